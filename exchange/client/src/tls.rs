//! Whom a client trusts, and who it is.
//!
//! Read once, when a client is made. It reads files and writes none.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Why certificates or a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no certificate, or it cannot be read.
    #[error("{0}: no certificate in PEM")]
    Certificate(&'static str),
    /// There is no private key, or it cannot be read.
    #[error("client key: no private key in PEM")]
    Key,
    /// A certificate authority cannot be used.
    #[error("certificate authorities: {0}")]
    Authority(rustls::Error),
    /// Certificate and key do not belong together, or their kind is not supported.
    #[error("client certificate: {0}")]
    Identity(rustls::Error),
}

/// Whom a client trusts as a server, and who it is itself.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ClientConfig>,
}

impl Tls {
    /// From PEM: the certificate authorities of servers; the own certificate chain and its key, or nothing for the public
    /// listener. Anything else in the texts, such as revocation lists of clients, is skipped.
    ///
    /// # Errors
    /// [`TlsError`]
    pub fn from_pem(authorities: &[u8], identity: Option<(&[u8], &[u8])>) -> Result<Self, TlsError> {
        let mut roots = rustls::RootCertStore::empty();
        for authority in certificates("certificate authorities", authorities)? {
            roots.add(authority).map_err(TlsError::Authority)?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(TlsError::Identity)?
            .with_root_certificates(roots);
        let config = match identity {
            Some((chain, key)) => {
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::Key)?;
                let chain = certificates("client certificate", chain)?;
                builder.with_client_auth_cert(chain, key).map_err(TlsError::Identity)?
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Self { config: Arc::new(config) })
    }

    /// The same from files.
    ///
    /// # Errors
    /// [`TlsError`]
    pub fn from_files<P: AsRef<Path>>(authorities: P, identity: Option<(P, P)>) -> Result<Self, TlsError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
        };
        let authorities = read(authorities.as_ref())?;
        match identity {
            None => Self::from_pem(&authorities, None),
            Some((chain, key)) => {
                Self::from_pem(&authorities, Some((&read(chain.as_ref())?, &read(key.as_ref())?)))
            }
        }
    }

    /// The same for rustls, without ALPN: for who speaks to an exchange in a way of their own.
    pub fn config(&self) -> ClientConfig {
        (*self.config).clone()
    }
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or(TlsError::Certificate(what))
}
