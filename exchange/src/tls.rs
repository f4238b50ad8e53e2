//! TLS of all listeners and of our own clients: version 1.3 only, ring only.
//!
//! The data listener identifies its callers: a client certificate is required, must chain to a configured CA and must
//! name exactly one organisation. A caller that fails gets a TLS alert and never reaches HTTP.
//!
//! Listeners and clients are built from it. It reads files and writes none, so a crash leaves them as they are.

use certs::pem::{self, PemError, Section};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer,
    PrivateSec1KeyDer, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    ServerConfig, SignatureScheme,
};
use schemas::identifier::Uscc;
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;

/// ALPN name of HTTP/2.
pub const ALPN_H2: &[u8] = b"h2";
/// ALPN name of HTTP/1.1.
pub const ALPN_HTTP1: &[u8] = b"http/1.1";

/// Why a TLS configuration cannot be made; always the operator's to fix. Never holds key material.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM text does not hold what it should, or more than that.
    #[error("{what}: {source}")]
    Pem {
        /// Role of the text.
        what: &'static str,
        /// Where and why.
        source: PemError,
    },
    /// Certificate and key do not belong together, or their kind is not supported.
    #[error("{what}: {source}")]
    Refused {
        /// Role of the certificate.
        what: &'static str,
        /// The error of rustls.
        source: Error,
    },
    /// The CA certificates or revocation lists for client certificates cannot be used.
    #[error("client CA: {0}")]
    ClientCa(#[from] rustls::server::VerifierBuilderError),
}

const SERVER: &str = "server certificate";
const OUTGOING: &str = "certificate for calls";
pub(crate) const KEY: &str = "server key";
pub(crate) const CA: &str = "CA certificates";

/// Extension that says which of an authority's certificates a revocation list is about (RFC 5280, 5.2.5).
const ISSUING_DISTRIBUTION_POINT: &str = "2.5.29.28";

/// A certificate or a revocation list that a configuration names, as far as an operator wants to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Subject of the certificate, or issuer of the list.
    pub name: String,
    /// First second at which it is good, since 1970.
    pub from: u64,
    /// First second at which it is no longer good.
    pub until: u64,
}

/// The server's certificate with its key.
pub struct ServerIdentity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    /// Each certificate of the chain, the server's own first.
    pub described: Vec<Described>,
}

impl ServerIdentity {
    /// Reads a certificate chain and its key; whether they belong together shows when they are used.
    ///
    /// # Errors
    /// [`TlsError::Pem`]: a section that is none of these, or that cannot be read, by its line.
    pub fn parse(chain_pem: &str, key_pem: &str) -> Result<Self, TlsError> {
        let (sections, described) = chain(SERVER, chain_pem)?;
        Ok(Self {
            chain: sections.iter().map(certificate).collect(),
            key: private_key(KEY, key_pem)?,
            described,
        })
    }
}

/// Each certificate of the chain that the exchange shows to data providers, its own first.
///
/// # Errors
/// [`TlsError::Pem`]: a section that is none, or that cannot be read, by its line.
pub fn described_chain(chain_pem: &str) -> Result<Vec<Described>, TlsError> {
    chain(OUTGOING, chain_pem).map(|(_, described)| described)
}

/// The certificates of a chain, with what an operator wants to know of each.
fn chain<'p>(what: &'static str, pem: &'p str) -> Result<(Vec<Section<'p>>, Vec<Described>), TlsError> {
    let sections = certificates(what, pem)?;
    let described: Result<_, _> = sections.iter().map(described).collect();
    Ok((sections, described.map_err(|source| TlsError::Pem { what, source })?))
}

/// The authorities that may sign client certificates, and the certificates that are revoked.
pub struct Authorities {
    /// Certificate, description, name as it stands in what it signs.
    roots: Vec<(CertificateDer<'static>, Described)>,
    lists: Vec<List>,
    /// How long a list is still taken after its next one was due, seconds.
    grace: u64,
}

/// A revocation list.
#[derive(Clone)]
struct List {
    der: CertificateRevocationListDer<'static>,
    /// The issuer's name, DER.
    issuer: Vec<u8>,
    described: Described,
    revoked: usize,
    /// Whether an authority of the same text bears its issuer's name.
    known: bool,
}

impl Authorities {
    /// Reads the authorities and their revocation lists from one text. `grace` is how long a list is still taken after
    /// its next one was due.
    ///
    /// # Errors
    /// [`TlsError::Pem`]: a section that is neither or would not be used, by its line.
    pub fn parse(text: &str, grace: Duration) -> Result<Self, TlsError> {
        let bad = |source| TlsError::Pem { what: CA, source };
        let (mut roots, mut names) = (Vec::new(), Vec::new());
        let mut lists: Vec<(List, bool)> = Vec::new();
        for section in pem::sections(text).map_err(bad)? {
            match section.label {
                pem::CERTIFICATE => {
                    let described = described(&section).map_err(bad)?;
                    names.push(subject(&section.der));
                    roots.push((certificate(&section), described));
                }
                pem::REVOCATION_LIST => {
                    let (list, partial) = List::read(&section).map_err(bad)?;
                    let second =
                        lists.iter().any(|(first, part)| first.issuer == list.issuer && !(*part && partial));
                    if second {
                        let name = &list.described.name;
                        let why = format!("a second revocation list of {name}: only the first would be used");
                        return Err(bad(PemError::line(section.line, why)));
                    }
                    lists.push((list, partial));
                }
                _ => return Err(bad(section.unexpected("CA certificates and revocation lists"))),
            }
        }
        if roots.is_empty() {
            return Err(bad(PemError::None("certificate")));
        }
        let known = |list: List| List { known: names.contains(&Some(list.issuer.clone())), ..list };
        let lists = lists.into_iter().map(|(list, _)| known(list)).collect();
        Ok(Self { roots, lists, grace: grace.as_secs() })
    }

    /// The authorities.
    pub fn roots(&self) -> impl Iterator<Item = &Described> {
        self.roots.iter().map(|(_, described)| described)
    }

    /// The revocation lists: each with the number of revoked certificates, and whether its issuer is among the
    /// authorities (an intermediate one need not be).
    pub fn lists(&self) -> impl Iterator<Item = (&Described, usize, bool)> {
        self.lists.iter().map(|list| (&list.described, list.revoked, list.known))
    }

    /// The authorities that no list of this text is of, by name.
    pub fn without_list(&self) -> impl Iterator<Item = &str> {
        let has_list =
            |der: &[u8]| subject(der).is_some_and(|name| self.lists.iter().any(|list| list.issuer == name));
        self.roots.iter().filter(move |(der, _)| !has_list(der)).map(|(_, described)| described.name.as_str())
    }

    /// How long a list is still taken after its next one was due, seconds.
    pub fn grace(&self) -> u64 {
        self.grace
    }

    /// Whether anybody's certificate can be good at a moment, seconds since 1970.
    pub fn admit(&self, now: u64) -> bool {
        self.roots().any(|root| now < root.until)
            && (self.lists.is_empty() || self.lists.iter().any(|one| self.fresh(one, now)))
    }

    /// Whether a list of this text revokes a certificate; one that cannot be read is.
    fn revokes(&self, der: &CertificateDer<'_>) -> bool {
        let Ok((_, certificate)) = x509_parser::parse_x509_certificate(der) else { return true };
        self.lists.iter().filter(|list| list.issuer == certificate.issuer().as_raw()).any(|list| {
            CertificateRevocationList::from_der(&list.der).is_ok_and(|(_, list)| {
                list.iter_revoked_certificates().any(|one| one.raw_serial() == certificate.raw_serial())
            })
        })
    }

    fn fresh(&self, list: &List, now: u64) -> bool {
        now < list.described.until.saturating_add(self.grace)
    }
}

impl List {
    /// A list, and whether it is about a part of its issuer's certificates.
    fn read(section: &Section<'_>) -> Result<(Self, bool), PemError> {
        let unreadable =
            || PemError::line(section.line, "not an X.509 revocation list with the time of the next");
        let (_, list) = CertificateRevocationList::from_der(&section.der)
            .ok()
            .filter(|(rest, _)| rest.is_empty())
            .ok_or_else(unreadable)?;
        let next = list.next_update().ok_or_else(unreadable)?;
        let described = Described {
            name: list.issuer().to_string(),
            from: seconds(&list.last_update()),
            // From this second on it is over (webpki says the same).
            until: seconds(&next),
        };
        let partial =
            list.extensions().iter().any(|one| one.oid.to_id_string() == ISSUING_DISTRIBUTION_POINT);
        let revoked = list.iter_revoked_certificates().count();
        let der = CertificateRevocationListDer::from(section.der.to_vec());
        let issuer = list.issuer().as_raw().to_vec();
        Ok((Self { der, issuer, described, revoked, known: false }, partial))
    }
}

/// TLS of a listener, and who checks its clients.
#[derive(Debug)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    judge: Option<Arc<OrganisationVerifier>>,
}

impl ServerTls {
    /// The configuration of a handshake.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Whether a client with this certificate chain, its own first, would be let in now. rustls asks once a connection, so
    /// this is asked again when other files are in force.
    pub fn admits(&self, chain: &[CertificateDer<'_>]) -> bool {
        let Some(judge) = &self.judge else { return true };
        let Some((end_entity, intermediates)) = chain.split_first() else { return false };
        judge.judge(end_entity, intermediates, UnixTime::now()).is_ok()
    }
}

impl From<Arc<ServerConfig>> for ServerTls {
    /// Clients that were let in are not looked at again.
    fn from(config: Arc<ServerConfig>) -> Self {
        Self { config, judge: None }
    }
}

/// TLS of a listener. With `client_ca_pem` every client must present a certificate that chains to one of its CAs
/// and names exactly one organisation; revocation lists in the same text are enforced, and then a certificate
/// of a CA without a list in date is refused too. Without it nobody is asked for a certificate.
pub fn server_config(
    cert_chain_pem: &str,
    key_pem: &str,
    client_ca_pem: Option<&str>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let identity = ServerIdentity::parse(cert_chain_pem, key_pem)?;
    let authorities = client_ca_pem.map(|text| Authorities::parse(text, Duration::ZERO)).transpose()?;
    Ok(server_config_of(&identity, authorities.as_ref())?.config)
}

/// Like [`server_config`], from files that were read before.
pub fn server_config_of(
    identity: &ServerIdentity,
    authorities: Option<&Authorities>,
) -> Result<ServerTls, TlsError> {
    let provider = provider();
    let mut judge = None;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| TlsError::Refused { what: SERVER, source })?;
    let builder = match authorities {
        Some(authorities) => {
            let verifier = OrganisationVerifier::new(authorities, &provider)?;
            judge = Some(Arc::clone(&verifier));
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(|source| TlsError::Refused { what: SERVER, source })?;
    config.alpn_protocols = vec![ALPN_H2.to_vec(), ALPN_HTTP1.to_vec()];
    // A resumed session takes over the old authentication and asks for no certificate (RFC 8446 2.2), so neither
    // the end of a certificate nor its revocation would be seen. Each connection is authenticated anew.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(ServerTls { config: Arc::new(config), judge })
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

/// Every configured authority has ended: nobody's certificate can be good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("every configured client CA has ended")]
pub struct AuthoritiesEnded;

/// Adds to the checks of webpki that an authority has not ended, that a revocation list is in date or within its grace,
/// and that a certificate names exactly one organisation.
#[derive(Debug)]
struct OrganisationVerifier {
    /// For webpki an authority never ends, so each stage has those that are good before its second, since 1970; the
    /// first stage first.
    stages: Vec<Stage>,
    /// Issuer's name, the time of the next list, and the second from which on the list is no longer taken.
    lists: Vec<(Vec<u8>, u64, u64)>,
}

/// The checks of webpki while the same authorities are good.
#[derive(Debug)]
struct Stage {
    /// First second since 1970 at which the first of them is not.
    end: u64,
    /// Asks for the status of the client's certificate, and refuses it where no list says it.
    chain: Arc<dyn ClientCertVerifier>,
    /// Asks also for the status of each authority between it and the root, where a list says it: a root need not have one.
    between: Option<Arc<dyn ClientCertVerifier>>,
}

impl OrganisationVerifier {
    fn new(authorities: &Authorities, provider: &Arc<CryptoProvider>) -> Result<Arc<Self>, TlsError> {
        // webpki takes a path to any authority of the file, and never asks whether one of them is revoked.
        let roots_in_force: Vec<_> =
            authorities.roots.iter().filter(|(root, _)| !authorities.revokes(root)).collect();
        let mut ends: Vec<u64> = roots_in_force.iter().map(|(_, root)| root.until).collect();
        ends.sort_unstable();
        ends.dedup();
        let stage = |end: u64| -> Result<_, TlsError> {
            let good = roots_in_force.iter().filter(|(_, described)| described.until >= end);
            let roots = Arc::new(roots(good.map(|(root, _)| root))?);
            let builder = || {
                let builder =
                    WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider));
                let builder = builder.with_crls(authorities.lists.iter().map(|list| list.der.clone()));
                if authorities.grace == 0 { builder.enforce_revocation_expiration() } else { builder }
            };
            // Without a list the setting says nothing.
            let chain = builder().only_check_end_entity_revocation().build()?;
            let between = if authorities.lists.is_empty() {
                None
            } else {
                Some(builder().allow_unknown_revocation_status().build()? as Arc<dyn ClientCertVerifier>)
            };
            Ok(Stage { end, chain, between })
        };
        let stages: Vec<_> = ends.into_iter().map(stage).collect::<Result<_, _>>()?;
        let lists = authorities.lists.iter().map(|list| {
            let until = list.described.until;
            (list.issuer.clone(), until, until.saturating_add(authorities.grace))
        });
        Ok(Arc::new(Self { stages, lists: lists.collect() }))
    }

    /// The check of signatures alone is the same in each stage. There is one: a text without a certificate is refused.
    fn any(&self) -> Result<&Arc<dyn ClientCertVerifier>, Error> {
        let first = self.stages.first().map(|stage| &stage.chain);
        first.ok_or_else(|| CertificateError::Other(OtherError(Arc::new(AuthoritiesEnded))).into())
    }

    fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let Some(stage) = self.stages.iter().find(|stage| now.as_secs() < stage.end) else {
            return Err(CertificateError::Other(OtherError(Arc::new(AuthoritiesEnded))).into());
        };
        let verified = stage.chain.verify_client_cert(end_entity, intermediates, now)?;
        if let Some(between) = stage.between.as_ref().filter(|_| !intermediates.is_empty()) {
            between.verify_client_cert(end_entity, intermediates, now)?;
        }
        for certificate in std::iter::once(end_entity).chain(intermediates) {
            self.check_lists(certificate, now)?;
        }
        match certs::pki::organisation(end_entity) {
            Ok(_) => Ok(verified),
            Err(error) => Err(CertificateError::Other(OtherError(Arc::new(error))).into()),
        }
    }

    /// Refuses a certificate whose issuer's list is out of date.
    fn check_lists(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
        let issuer = match x509_parser::parse_x509_certificate(certificate) {
            Ok((_, certificate)) => certificate.issuer().as_raw().to_vec(),
            Err(_) => return Err(CertificateError::BadEncoding.into()),
        };
        match self.lists.iter().find(|(of, _, ends)| *of == issuer && *ends <= now.as_secs()) {
            Some((_, next, _)) => {
                let next_update = UnixTime::since_unix_epoch(Duration::from_secs(*next));
                Err(CertificateError::ExpiredRevocationListContext { time: now, next_update }.into())
            }
            None => Ok(()),
        }
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
        self.stages.first().map_or(&[], |stage| stage.chain.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.judge(end_entity, intermediates, now);
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
        self.any()?.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.any()?.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.any().map_or_else(|_| Vec::new(), |any| any.supported_verify_schemes())
    }
}

/// Named at each use, never installed for the process: a dependency that brings a second provider then changes
/// nothing.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn roots<'a>(
    certificates: impl Iterator<Item = &'a CertificateDer<'static>>,
) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone()).map_err(|source| TlsError::Refused { what: CA, source })?;
    }
    Ok(roots)
}

fn certificates<'a>(what: &'static str, text: &'a str) -> Result<Vec<Section<'a>>, TlsError> {
    pem::all(text, "certificate", &[pem::CERTIFICATE]).map_err(|source| TlsError::Pem { what, source })
}

fn certificate(section: &Section<'_>) -> CertificateDer<'static> {
    CertificateDer::from(section.der.to_vec())
}

fn private_key(what: &'static str, text: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    let section =
        pem::one(text, "private key", &pem::PRIVATE_KEYS).map_err(|source| TlsError::Pem { what, source })?;
    let der = section.der.to_vec();
    Ok(match section.label {
        "EC PRIVATE KEY" => PrivateKeyDer::Sec1(PrivateSec1KeyDer::from(der)),
        "RSA PRIVATE KEY" => PrivateKeyDer::Pkcs1(PrivatePkcs1KeyDer::from(der)),
        _ => PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der)),
    })
}

fn described(section: &Section<'_>) -> Result<Described, PemError> {
    let unreadable = || PemError::line(section.line, "not an X.509 certificate");
    let (rest, certificate) = x509_parser::parse_x509_certificate(&section.der).map_err(|_| unreadable())?;
    let validity = certificate.validity();
    let until = seconds(&validity.not_after).checked_add(1).filter(|_| rest.is_empty());
    Ok(Described {
        name: certificate.subject().to_string(),
        from: seconds(&validity.not_before),
        // The last good second is notAfter (RFC 5280, 4.1.2.5).
        until: until.ok_or_else(unreadable)?,
    })
}

fn subject(der: &[u8]) -> Option<Vec<u8>> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    Some(certificate.subject().as_raw().to_vec())
}

fn seconds(time: &x509_parser::time::ASN1Time) -> u64 {
    u64::try_from(time.timestamp()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use certs::pki::{DevelopmentPki, LEAF_VALIDITY, Validity};
    use rustls::pki_types::pem::PemObject as _;
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
        assert!(
            failed(&certificate, &certificate, None)
                .contains("a section CERTIFICATE among what should be private key")
        );
        assert!(failed(&certificate, &other_key, None).contains(SERVER));
        assert!(failed(&certificate, &key, Some("")).contains(CA));
        assert!(failed(&certificate, &key, Some(&key)).contains(CA));
        let list = || {
            let one = "11100000MB0341032Y".parse().unwrap();
            let revoked = pki.issue_client("revoked", &[one], years()).unwrap();
            pki.revoke(&fs::read_to_string(revoked.certificate).unwrap()).unwrap();
            fs::read_to_string(pki.crl_path()).unwrap()
        };
        let (older, newer) = (list(), list());
        server_config(&certificate, &key, Some(&format!("{ca}{older}"))).unwrap();
        let line = ca.lines().count() + older.lines().count() + 1;
        let second = failed(&certificate, &key, Some(&format!("{ca}{older}{newer}")));
        assert!(
            second.contains("a second revocation list") && second.contains(&format!("line {line}:")),
            "{second}"
        );
        for (certificate, key, ca, word) in [
            (format!("\u{feff}{certificate}"), key.clone(), ca.to_owned(), "line 1: holds a byte order mark"),
            (format!("{certificate}{older}"), key.clone(), ca.to_owned(), "a section X509 CRL"),
            (format!("{certificate}{key}"), key.clone(), ca.to_owned(), "a section PRIVATE KEY"),
            (certificate.clone(), key.repeat(2), ca.to_owned(), "a second private key"),
            (certificate.clone(), key.clone(), format!("{ca}\u{feff}{older}"), "byte order mark"),
            (certificate.clone(), key.clone(), format!("\u{feff}{ca}{ca}"), "line 1: "),
            (certificate.clone(), key.clone(), format!("{older}{key}{ca}"), "a section PRIVATE KEY"),
            (certificate.clone(), key.clone(), format!("{older} {ca}"), "line"),
        ] {
            let failed = failed(&certificate, &key, Some(&ca));
            assert!(failed.contains(word) && failed.contains("line "), "{failed}");
        }
        let broken_list = format!("{ca}-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n");
        assert!(failed(&certificate, &key, Some(&broken_list)).contains("not an X.509 revocation list"));
        let half = ca.split_at(ca.len() / 2).0;
        assert!(failed(&certificate, &key, Some(half)).contains(CA));
    }

    /// Longer than a revocation list.
    fn years() -> Validity {
        Validity::starting_now(LEAF_VALIDITY * 2)
    }

    #[test]
    fn an_authority_and_a_list_end_and_the_list_has_its_grace() {
        let dir = tempfile::tempdir().unwrap();
        let pki = DevelopmentPki::create_missing(dir.path()).unwrap();
        let one: Uscc = "11100000MB0341032Y".parse().unwrap();
        let der = |name: &str| {
            CertificateDer::from_pem_file(pki.issue_client(name, &[one], years()).unwrap().certificate)
                .unwrap()
        };
        let (good, revoked) = (der("good"), der("revoked"));
        let without_list = Authorities::parse(pki.ca_pem(), Duration::ZERO).unwrap();
        pki.revoke(&fs::read_to_string(dir.path().join("clients/revoked.pem")).unwrap()).unwrap();
        let text = format!("{}{}", pki.ca_pem(), fs::read_to_string(pki.crl_path()).unwrap());
        let read = |hours: u64| Authorities::parse(&text, Duration::from_secs(hours * 3_600)).unwrap();
        let (strict, lenient) = (read(0), read(24));
        let next = strict.lists().next().unwrap().0.until;
        let judge = |authorities: &Authorities, der: &CertificateDer<'_>, at: u64| {
            let at = UnixTime::since_unix_epoch(Duration::from_secs(at));
            let verifier = OrganisationVerifier::new(authorities, &provider()).unwrap();
            verifier.verify_client_cert(der, &[], at).map(|_| ())
        };
        let over = |judged| {
            matches!(
                judged,
                Err(Error::InvalidCertificate(CertificateError::ExpiredRevocationListContext { .. }))
            )
        };
        for authorities in [&strict, &lenient] {
            judge(authorities, &good, next - 2).unwrap();
            let judged = judge(authorities, &revoked, next - 2);
            assert!(
                matches!(judged, Err(Error::InvalidCertificate(CertificateError::Revoked))),
                "{judged:?}"
            );
        }
        assert!(over(judge(&strict, &good, next)) && !strict.admit(next) && strict.admit(next - 1));
        judge(&lenient, &good, next + 24 * 3_600 - 1).unwrap();
        assert!(lenient.admit(next) && !lenient.admit(next + 24 * 3_600));
        assert!(over(judge(&lenient, &good, next + 24 * 3_600)));
        let ended = judge(&without_list, &good, without_list.roots().next().unwrap().until);
        let Err(Error::InvalidCertificate(CertificateError::Other(OtherError(why)))) = ended else {
            panic!("{ended:?}");
        };
        assert!(why.is::<AuthoritiesEnded>());
    }

    #[test]
    fn a_list_of_the_root_ends_an_authority_below_it() {
        use rcgen::{
            BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod,
            KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
        };
        let authority = |name: &str, serial: u64| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            params.serial_number = Some(SerialNumber::from(serial));
            (params, KeyPair::generate().unwrap())
        };
        let (root_params, root_key) = authority("root", 1);
        let (below_params, below_key) = authority("below", 2);
        let root_certificate = root_params.self_signed(&root_key).unwrap();
        let root = Issuer::new(root_params, &root_key);
        let below_certificate = below_params.signed_by(&below_key, &root).unwrap();
        let below = Issuer::new(below_params, &below_key);
        let mut client = CertificateParams::default();
        client.serial_number = Some(SerialNumber::from(3_u64));
        let uri = format!("{}11100000MB0341032Y", certs::pki::ORGANISATION_URN);
        client.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        let client = client.signed_by(&KeyPair::generate().unwrap(), &below).unwrap();
        let list = |issuer: &Issuer<'_, &KeyPair>, revoked: &[u64]| {
            let revoked = revoked.iter().map(|serial| RevokedCertParams {
                serial_number: SerialNumber::from(*serial),
                revocation_time: date_time_ymd(2026, 1, 1),
                reason_code: None,
                invalidity_date: None,
            });
            let params = CertificateRevocationListParams {
                this_update: date_time_ymd(2026, 1, 1),
                next_update: date_time_ymd(2027, 1, 1),
                crl_number: SerialNumber::from(1_u64),
                issuing_distribution_point: None,
                revoked_certs: revoked.collect(),
                key_identifier_method: KeyIdMethod::Sha256,
            };
            params.signed_by(issuer).unwrap().pem().unwrap()
        };
        let (of_root, of_root_revoked, of_below) = (list(&root, &[]), list(&root, &[2]), list(&below, &[]));
        // 2026-06-01 and 2027-02-01, when the lists are over.
        let (within, behind) = (1_780_272_000, 1_801_440_000);
        let below_pem = below_certificate.pem();
        let judged = |lists: &[&String], grace: u64, at: u64| {
            let text = lists.iter().fold(root_certificate.pem(), |text, list| text + list);
            let authorities = Authorities::parse(&text, Duration::from_secs(grace)).unwrap();
            let verifier = OrganisationVerifier::new(&authorities, &provider()).unwrap();
            let at = UnixTime::since_unix_epoch(Duration::from_secs(at));
            verifier.verify_client_cert(client.der(), &[below_certificate.der().clone()], at).map(|_| ())
        };
        let refused = |judged| match judged {
            Err(Error::InvalidCertificate(error)) => error,
            other => panic!("{other:?}"),
        };
        assert_eq!(judged(&[], 0, within), Ok(()));
        assert_eq!(judged(&[&of_below], 0, within), Ok(()), "a root need not have a list");
        assert_eq!(judged(&[&of_root, &of_below], 0, within), Ok(()));
        for grace in [0, 3_600] {
            let revoked = judged(&[&of_root_revoked, &of_below], grace, within);
            assert_eq!(refused(revoked), CertificateError::Revoked);
            let over = refused(judged(&[&of_root, &of_below], grace, behind));
            assert!(matches!(over, CertificateError::ExpiredRevocationListContext { .. }), "{over:?}");
        }
        // An authority of the file is no way round its root's list.
        assert_eq!(judged(&[&below_pem, &of_root, &of_below], 0, within), Ok(()));
        let revoked = judged(&[&below_pem, &of_root_revoked, &of_below], 0, within);
        assert_eq!(refused(revoked), CertificateError::Revoked);
        let unknown = refused(judged(&[&of_root], 0, within));
        assert_eq!(unknown, CertificateError::UnknownRevocationStatus);
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
