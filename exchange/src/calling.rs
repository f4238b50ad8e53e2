//! How our own commands call an exchange: crate `client`, with the files that they are given and their exit statuses.
//!
//! The operator's commands use it; it keeps nothing. A command that dies may have been decided: the log says so.

use std::path::Path;

use client::{Error, Tls};
use verifier::command::{EXIT_INTERNAL, EXIT_NO};

use crate::exit::{EXIT_UNAVAILABLE, Exit};
use crate::files::{read, read_key};

/// A participant of a development folder, by the name of its files in `pki/clients`.
///
/// # Errors
/// A file cannot be read, or does not hold what it should.
pub fn participant(folder: &Path, name: &str) -> anyhow::Result<Tls> {
    let clients = folder.join("pki/clients");
    tls(
        &folder.join("pki/ca.pem"),
        &clients.join(format!("{name}.pem")),
        &clients.join(format!("{name}.key")),
    )
}

/// TLS for the holder of a certificate and its key, trusting servers of `ca`.
///
/// # Errors
/// A file cannot be read, or does not hold what it should.
pub fn tls(ca: &Path, certificate: &Path, key: &Path) -> anyhow::Result<Tls> {
    let (authorities, chain, private) = (read(ca)?, read(certificate)?, read_key(key)?);
    Tls::from_pem(authorities.as_bytes(), Some((chain.as_bytes(), private.as_bytes()))).map_err(|error| {
        let (ca, certificate, key) = (ca.display(), certificate.display(), key.display());
        Exit::usage(format_args!("one of {ca}, {certificate}, {key}: {error}"))
    })
}

/// The error that ends a command whose call ended without its answer.
pub fn ended(error: Error) -> anyhow::Error {
    let status = match &error {
        Error::Unreachable { .. } | Error::NoAnswer(_) => EXIT_UNAVAILABLE,
        Error::Refused(refused) if refused.status >= 500 => EXIT_UNAVAILABLE,
        Error::Refused(_) | Error::Unproven(_) => EXIT_NO,
        Error::Malformed(_) | Error::Request(_) => EXIT_INTERNAL,
    };
    Exit { status, message: error.to_string() }.into()
}
