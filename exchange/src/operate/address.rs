//! `exchange address`: where data providers are called, which two operators allow and end.
//!
//! An operator runs it. A proposal that a crash cut off is in the log or not at all.

use std::path::{Path, PathBuf};

use clap::Args;
use schemas::identifier::Uscc;
use schemas::interface::Address;
use schemas::routes::Route;
use serde_json::json;

use super::{Caller, propose};
use crate::exit::Exit;
use crate::files::read;

/// An address of a provider's.
#[derive(Debug, Args)]
pub struct At {
    /// Host and port, as the interface's URL has them.
    #[arg(value_name = "HOST:PORT")]
    address: String,
    /// USCC of the provider.
    #[arg(long)]
    organisation: Uscc,
}

impl At {
    fn with(&self, authorities: Option<&Path>) -> anyhow::Result<Address> {
        let split = self.address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port) =
            split.ok_or_else(|| Exit::usage(format_args!("HOST:PORT is needed: {}", self.address)))?;
        let authorities = authorities.map(read).transpose()?;
        Ok(Address { organisation: self.organisation, host: host.to_owned(), port, authorities })
    }
}

/// Proposes that an address is called, whose server certificate chains to one of `authorities`; without them that it is no longer.
///
/// # Errors
/// Like [`Caller::send`]; the file cannot be read.
pub fn add(at: &At, authorities: Option<&PathBuf>, reason: &str, operator: &Caller) -> anyhow::Result<u8> {
    let address = at.with(authorities.map(PathBuf::as_path))?;
    propose::send(&json!({"kind": "allow-address", "address": address, "reason": reason}), operator)
}

/// Approves what another operator proposed, from what this one knows of the address.
///
/// # Errors
/// Like [`Caller::send`]; the file cannot be read.
pub fn approve(
    proposal: &str,
    at: &At,
    authorities: Option<&PathBuf>,
    operator: &Caller,
) -> anyhow::Result<u8> {
    let address = at.with(authorities.map(PathBuf::as_path))?;
    operator.send(Route::Approve, &json!({"proposal": proposal, "address": address}))
}
