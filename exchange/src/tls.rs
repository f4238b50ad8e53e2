//! TLS of all listeners and of our own clients: version 1.3 only, ring only.
//!
//! The data listener identifies its callers: a client certificate is required, must chain to a configured CA and
//! must name exactly one organisation. Whoever fails gets a TLS alert and never reaches HTTP.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    RootCertStore, ServerConfig, SignatureScheme,
};
use schemas::identifier::Uscc;
use std::cell::Cell;
use std::sync::Arc;

/// ALPN name of HTTP/2.
pub const ALPN_H2: &[u8] = b"h2";
/// ALPN name of HTTP/1.1.
pub const ALPN_HTTP1: &[u8] = b"http/1.1";

/// Why a TLS configuration cannot be made; always the operator's to fix. Never holds key material.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM text does not hold what it should.
    #[error("{what}: {reason}")]
    Pem {
        /// Role of the text.
        what: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Certificate and key do not belong together, or their kind is not supported.
    #[error("{what}: {source}")]
    Refused {
        /// Role of the certificate.
        what: &'static str,
        /// What rustls said.
        source: Error,
    },
    /// The CA certificates or revocation lists for client certificates cannot be used.
    #[error("client CA: {0}")]
    ClientCa(#[from] rustls::server::VerifierBuilderError),
}

const SERVER: &str = "server certificate";
const CLIENT: &str = "client certificate";
const CA: &str = "CA certificates";

/// TLS of a listener. With `client_ca_pem` every client must present a certificate that chains to one of its CAs
/// and names exactly one organisation; revocation lists in the same text are enforced, and then a certificate
/// of a CA without a list in date is refused too. Without it nobody is asked for a certificate.
pub fn server_config(
    cert_chain_pem: &str,
    key_pem: &str,
    client_ca_pem: Option<&str>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider();
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| TlsError::Refused { what: SERVER, source })?;
    let builder = match client_ca_pem {
        Some(pem) => builder.with_client_cert_verifier(OrganisationVerifier::new(pem, provider)?),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(certificates(SERVER, cert_chain_pem)?, private_key(SERVER, key_pem)?)
        .map_err(|source| TlsError::Refused { what: SERVER, source })?;
    config.alpn_protocols = vec![ALPN_H2.to_vec(), ALPN_HTTP1.to_vec()];
    // A resumed session takes over the old authentication and asks for no certificate (RFC 8446 2.2), so neither
    // the end of a certificate nor its revocation would be seen. Each connection is authenticated anew.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// TLS of our own clients: trusts the CAs of `ca_pem` and presents `identity` (certificate chain and key, PEM) if
/// given. No ALPN is set, which means HTTP/1.1; a caller that speaks HTTP/2 sets `alpn_protocols`.
pub fn client_config(ca_pem: &str, identity: Option<(&str, &str)>) -> Result<ClientConfig, TlsError> {
    let refused = |source| TlsError::Refused { what: CLIENT, source };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(refused)?
        .with_root_certificates(roots(ca_pem)?);
    match identity {
        Some((certificate, key)) => builder
            .with_client_auth_cert(certificates(CLIENT, certificate)?, private_key(CLIENT, key)?)
            .map_err(refused),
        None => Ok(builder.with_no_client_auth()),
    }
}

/// The organisation that a client certificate names, if it names exactly one. Says nothing about who signed it.
pub fn organisation_of(certificate: &CertificateDer<'_>) -> Option<Uscc> {
    certs::pki::organisation(certificate).ok()
}

/// The first moment at which a certificate is no longer good, ms since 1970; `None` when it cannot be read.
pub fn end_of(certificate: &CertificateDer<'_>) -> Option<u64> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    // notAfter is the last good second (RFC 5280, 4.1.2.5).
    let last = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    last.checked_add(1)?.checked_mul(1_000)
}

tokio::task_local! {
    /// Whose certificate the handshake under way has refused: rustls drops it with the connection.
    static REFUSED_SUBJECT: Cell<Option<String>>;
}

/// Runs a handshake; with it whose client certificate was refused, for the operator's log.
pub(crate) async fn with_subject<F: Future>(handshake: F) -> (F::Output, Option<String>) {
    let run = async {
        let done = handshake.await;
        (done, REFUSED_SUBJECT.with(Cell::take))
    };
    REFUSED_SUBJECT.scope(Cell::new(None), run).await
}

/// Organisation and serial number that a certificate claims. Names of persons may stand in it, and are not repeated.
fn subject_of(certificate: &CertificateDer<'_>) -> String {
    /// Longest serial number (RFC 5280 4.1.2.2); a forged certificate may hold more.
    const SERIAL_BYTES: usize = 20;
    let organisation = organisation_of(certificate);
    let organisation = organisation.as_ref().map_or("none", |uscc| uscc.as_str());
    let serial = x509_parser::parse_x509_certificate(certificate).map_or_else(
        |_| "unreadable".to_owned(),
        |(_, parsed)| hex::encode(parsed.raw_serial().get(..SERIAL_BYTES).unwrap_or(parsed.raw_serial())),
    );
    format!("organisation {organisation}, certificate {serial}")
}

/// Adds to the checks of webpki that a certificate names exactly one organisation.
#[derive(Debug)]
struct OrganisationVerifier {
    chain: Arc<dyn ClientCertVerifier>,
}

impl OrganisationVerifier {
    fn new(pem: &str, provider: Arc<CryptoProvider>) -> Result<Arc<Self>, TlsError> {
        let lists = CertificateRevocationListDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| TlsError::Pem { what: CA, reason: "a section is not PEM" })?;
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(pem)?), provider);
        if !lists.is_empty() {
            builder =
                builder.with_crls(lists).only_check_end_entity_revocation().enforce_revocation_expiration();
        }
        Ok(Arc::new(Self { chain: builder.build()? }))
    }
}

impl ClientCertVerifier for OrganisationVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now).and_then(|verified| {
            match certs::pki::organisation(end_entity) {
                Ok(_) => Ok(verified),
                Err(error) => Err(CertificateError::Other(OtherError(Arc::new(error))).into()),
            }
        });
        if verified.is_err() {
            // Outside of `with_subject` nobody asks.
            let _ = REFUSED_SUBJECT.try_with(|subject| subject.set(Some(subject_of(end_entity))));
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Named at each use, never installed for the process: a dependency that brings a second provider then changes
/// nothing.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots(pem: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(CA, pem)? {
        roots.add(certificate).map_err(|source| TlsError::Refused { what: CA, source })?;
    }
    Ok(roots)
}

fn certificates(what: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| TlsError::Pem { what, reason: "a section is not PEM" })?;
    if certificates.is_empty() {
        return Err(TlsError::Pem { what, reason: "holds no certificate in PEM" });
    }
    Ok(certificates)
}

fn private_key(what: &'static str, pem: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| TlsError::Pem { what, reason: "its key file holds no private key in PEM" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use certs::pki::{DevelopmentPki, LEAF_VALIDITY, Validity};
    use std::fs;

    #[test]
    fn wrong_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let pki = DevelopmentPki::create_missing(dir.path()).unwrap();
        let certificate = fs::read_to_string(pki.server_files().certificate).unwrap();
        let key = fs::read_to_string(pki.server_files().key).unwrap();
        let ca = pki.ca_pem();
        let other_key = fs::read_to_string(dir.path().join("ca.key")).unwrap();
        server_config(&certificate, &key, Some(ca)).unwrap();
        let failed = |certificate: &str, key: &str, ca: Option<&str>| {
            server_config(certificate, key, ca).map(|_| ()).unwrap_err().to_string()
        };
        assert!(failed("", &key, None).contains("holds no certificate"));
        assert!(failed(&certificate, "", None).contains("holds no private key"));
        assert!(failed(&certificate, &certificate, None).contains("holds no private key"));
        assert!(failed(&certificate, &other_key, None).contains(SERVER));
        assert!(failed(&certificate, &key, Some("")).contains(CA));
        assert!(failed(&certificate, &key, Some(&key)).contains(CA));
        let broken_list = format!("{ca}-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n");
        assert!(failed(&certificate, &key, Some(&broken_list)).contains("client CA"));
        let half = ca.split_at(ca.len() / 2).0;
        assert!(failed(&certificate, &key, Some(half)).contains(CA));
    }

    #[test]
    fn nothing_is_resumed_and_only_tls13_is_spoken() {
        let dir = tempfile::tempdir().unwrap();
        let pki = DevelopmentPki::create_missing(dir.path()).unwrap();
        let certificate = fs::read_to_string(pki.server_files().certificate).unwrap();
        let key = fs::read_to_string(pki.server_files().key).unwrap();
        let config = server_config(&certificate, &key, Some(pki.ca_pem())).unwrap();
        assert_eq!((config.send_tls13_tickets, config.max_early_data_size), (0, 0));
        assert!(!config.session_storage.can_cache() && !config.ticketer.enabled());
        assert_eq!(config.alpn_protocols, [ALPN_H2, ALPN_HTTP1]);
    }

    #[test]
    fn fingerprints_are_over_the_der_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let pki = DevelopmentPki::create_missing(dir.path()).unwrap();
        let organisation: Uscc = "11100000MB0341032Y".parse().unwrap();
        let files = pki.issue_client("bank", &[organisation], Validity::starting_now(LEAF_VALIDITY)).unwrap();
        let certificate = CertificateDer::from_pem_file(files.certificate).unwrap();
        assert_eq!(organisation_of(&certificate), Some(organisation));
        assert!(end_of(&certificate).unwrap() > 0);
        assert_eq!(organisation_of(&CertificateDer::from_pem_slice(pki.ca_pem().as_bytes()).unwrap()), None);
    }
}
