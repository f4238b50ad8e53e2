//! The TLS files of a configuration: the server's certificate with its key, and the authorities of its clients.
//!
//! A start, a reload and `check-config` read them here. Nothing is written, so a crash leaves them as they are.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::exit::Exit;
use crate::files::{read, read_key};
use crate::moment::now_seconds;
use crate::outgoing::Identity;
use crate::tls::{self, Authorities, Described, ServerIdentity, ServerTls, TlsError};

/// The TLS files of a configuration, read and checked.
pub struct TlsFiles {
    /// The server's certificate with its key.
    pub identity: ServerIdentity,
    /// The authorities that sign clients' certificates.
    pub authorities: Authorities,
    /// The exchange's certificate and key for calls to data providers.
    pub outgoing: Arc<Identity>,
    /// Each certificate of that chain, the exchange's own first.
    pub outgoing_described: Vec<Described>,
}

impl TlsFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// [`Exit`] with [`crate::exit::EXIT_USAGE`]: a file cannot be read, holds something that is not used, is of the development PKI
    /// without leave, or nobody could connect with it now.
    pub fn load(config: &Config) -> anyhow::Result<Self> {
        let now = now_seconds();
        let (certificate, key) = (config.path(&config.tls.certificate), config.path(&config.tls.key));
        let client_ca = config.path(&config.tls.client_ca);
        let (certificate_text, client_ca_text) = (read(&certificate)?, read(&client_ca)?);
        for (path, text) in [(&certificate, &certificate_text), (&client_ca, &client_ca_text)] {
            if !config.development && certs::pki::is_development(text) {
                let why = "is of the development PKI; serve it with --development only";
                return Err(Exit::usage(format!("{} {why}", path.display())));
            }
        }
        let named = |error: TlsError| {
            let path = match error {
                TlsError::Pem { what: tls::KEY, .. } => &key,
                TlsError::Pem { what: tls::CA, .. } | TlsError::ClientCa(_) => &client_ca,
                _ => &certificate,
            };
            Exit::usage(format!("{}: {error}", path.display()))
        };
        let identity = ServerIdentity::parse(&certificate_text, &read_key(&key)?).map_err(named)?;
        let grace = Duration::from_secs(u64::from(config.tls.crl_grace_hours) * 3_600);
        let authorities = Authorities::parse(&client_ca_text, grace).map_err(named)?;
        for one in &identity.described {
            let wrong = match now {
                now if now >= one.until => Some(("has ended", one.until)),
                now if now < one.from => Some(("is good only from", one.from)),
                _ => None,
            };
            if let Some((how, at)) = wrong {
                let at = schemas::date::rfc3339(at.saturating_mul(1_000));
                let what = format!("{}: the server certificate {}", certificate.display(), one.name);
                return Err(Exit::usage(format!("{what} {how} {at}: no client would connect")));
            }
        }
        if authorities.roots().all(|root| now >= root.until) {
            return Err(Exit::usage(format!("{}: every client CA has ended", client_ca.display())));
        }
        let (outgoing, outgoing_described) = outgoing(config)?;
        let files = Self { identity, authorities, outgoing: Arc::new(outgoing), outgoing_described };
        // Whether certificate and key belong together.
        files.data().map_err(named)?;
        Ok(files)
    }

    /// TLS of the data listener.
    ///
    /// # Errors
    /// [`TlsError`]
    pub fn data(&self) -> Result<ServerTls, TlsError> {
        let authorities = Some(&self.authorities);
        #[cfg(feature = "bench-ablation")]
        let authorities =
            authorities.filter(|_| !crate::without::is_without(crate::without::Without::ClientCertificates));
        tls::server_config_of(&self.identity, authorities)
    }

    /// TLS of the public listener.
    ///
    /// # Errors
    /// [`TlsError`]
    pub fn public(&self) -> Result<ServerTls, TlsError> {
        tls::server_config_of(&self.identity, None)
    }
}

/// The certificate and key for calls to data providers, checked to belong together. One that has ended is said elsewhere: it keeps
/// nothing but such calls.
fn outgoing(config: &Config) -> anyhow::Result<(Identity, Vec<Described>)> {
    let Some(files) = &config.outgoing else { return Ok((Identity(None), Vec::new())) };
    let (certificate, key) = (config.path(&files.certificate), config.path(&files.key));
    let (chain, private) = (read(&certificate)?, read_key(&key)?);
    if !config.development && certs::pki::is_development(&chain) {
        let why = "is of the development PKI; serve it with --development only";
        return Err(Exit::usage(format!("{} {why}", certificate.display())));
    }
    let own = Some((chain.as_bytes(), private.as_bytes()));
    // Any authorities do: whom the exchange trusts is said address by address.
    client::Tls::from_pem(chain.as_bytes(), own)
        .map_err(|error| Exit::usage(format!("{} and {}: {error}", certificate.display(), key.display())))?;
    let described = tls::described_chain(&chain)
        .map_err(|error| Exit::usage(format!("{}: {error}", certificate.display())))?;
    Ok((Identity(Some((chain, private))), described))
}
