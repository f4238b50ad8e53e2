//! The development PKI, and the organisation that a client certificate names.
//!
//! Keys of the development PKI lie unsealed beside their certificates, so that curl and test programs can use
//! them. Every certificate says so in its names, and [`is_development`] lets a server refuse them.
//!
//! The quickstart, `certs` and tests alone write it. A kill leaves a file whole or absent, and the next run makes what
//! is missing.

use crate::{Error, file, pem};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData,
    RevocationReason, RevokedCertParams, SanType, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use schemas::identifier::Uscc;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::x509::X509Name;
use zeroize::Zeroizing;

/// The text before the USCC in the URI of a client certificate.
pub const ORGANISATION_URN: &str = "urn:miaoxiang:org:";
/// The subject's O of the development CA and of all that it signs.
pub const DEVELOPMENT_ORGANISATION: &str = "Miaoxiang development PKI";

const CA_NAME: &str = "Miaoxiang development CA";
const CA: &str = "development CA";
const SERVER: &str = "server certificate";
const CLIENT: &str = "client certificate";
const CRL: &str = "revocation list";
const FOLDER: &str = "PKI folder";

/// Seconds from 1970 to the year 2106. Times beyond it are refused: date libraries differ about far years.
const MAX_UNIX_SECONDS: u64 = u32::MAX as u64;
/// Validity of the CA: ten years.
const CA_VALIDITY: Duration = Duration::from_secs(3_650 * 86_400);
/// Validity of a server or client certificate, and time to the next revocation list: a year.
pub const LEAF_VALIDITY: Duration = Duration::from_secs(365 * 86_400);
/// Certificates are valid this long before they were made, for peers whose clock is slow.
const CLOCK_SKEW: Duration = Duration::from_secs(300);
/// Bytes of a serial number; RFC 5280 4.1.2.2 allows 20.
const SERIAL_BYTES: usize = 16;
/// Bytes of a certificate name: it becomes a file name and a common name (64 at most, RFC 5280 appendix A).
const MAX_NAME_BYTES: usize = 48;

/// From when until when a certificate is valid.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    /// First moment.
    pub from: SystemTime,
    /// Last moment.
    pub until: SystemTime,
}

impl Validity {
    /// From a little before now, for slow clocks, until `duration` from now.
    pub fn starting_now(duration: Duration) -> Self {
        let now = SystemTime::now();
        Self { from: now - CLOCK_SKEW, until: now + duration }
    }
}

/// Where a certificate and its key lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM (PKCS#8), mode 0600.
    pub key: PathBuf,
}

impl Files {
    fn new(folder: &Path, name: &str) -> Self {
        Self { certificate: folder.join(format!("{name}.pem")), key: folder.join(format!("{name}.key")) }
    }

    /// Both files are there and belong together. The key is written first: a key without its certificate is
    /// what a kill leaves, and counts as nothing.
    fn complete(&self, what: &'static str) -> Result<Option<(String, KeyPair)>, Error> {
        let exists = |path: &Path| path.try_exists().map_err(Error::io(what, path));
        if !exists(&self.certificate)? || !exists(&self.key)? {
            return Ok(None);
        }
        let certificate = file::read_text(what, &self.certificate)?;
        let key = key_pair(what, &self.key)?;
        let der = certificate_der(what, &certificate)?;
        if parse(&der)?.public_key().raw != key.subject_public_key_info() {
            return Err(Error::Malformed { what, reason: "certificate and key do not belong together" });
        }
        Ok(Some((certificate, key)))
    }

    /// A certificate without its key goes first, else a kill after the new key was written would leave two
    /// files that do not belong together.
    fn write(&self, what: &'static str, certificate: &str, key: &KeyPair) -> Result<(), Error> {
        file::remove(what, &self.certificate)?;
        let secret = Zeroizing::new(key.serialize_pem());
        file::replace(what, &self.key, secret.as_bytes(), file::PRIVATE)?;
        file::create(what, &self.certificate, certificate.as_bytes(), file::PUBLIC)
    }
}

/// The development PKI in a folder: `ca.{pem,key}`, `server.{pem,key}`, `clients/<name>.{pem,key}`, `crl.pem`.
pub struct DevelopmentPki {
    folder: PathBuf,
    ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl DevelopmentPki {
    /// Opens the PKI in `folder` (`pki` of a data folder) and makes what is missing: the CA and the server certificate
    /// for localhost, 127.0.0.1 and ::1. An existing file stays; one that a kill left half-made is made again. A CA
    /// certificate whose key is gone is an error: a new CA would make all its clients strangers.
    pub fn create_missing(folder: impl Into<PathBuf>) -> Result<Self, Error> {
        let folder = folder.into();
        file::create_folder(FOLDER, &folder)?;
        let files = Files::new(&folder, "ca");
        let params = ca_params()?;
        let (ca_pem, issuer) = match files.complete(CA)? {
            Some((certificate, key)) => (certificate, Issuer::new(params, key)),
            None if files.certificate.exists() => {
                return Err(Error::Malformed { what: CA, reason: "ca.pem is there and ca.key is missing" });
            }
            None => {
                let key = KeyPair::generate()?;
                let certificate = params.self_signed(&key)?.pem();
                files.write(CA, &certificate, &key)?;
                (certificate, Issuer::new(params, key))
            }
        };
        let pki = Self { folder, ca_pem, issuer };
        pki.create_missing_server()?;
        Ok(pki)
    }

    /// The CA certificate, PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Where the CA certificate lies.
    pub fn ca_path(&self) -> PathBuf {
        Files::new(&self.folder, "ca").certificate
    }

    /// Where the server certificate and its key lie.
    pub fn server_files(&self) -> Files {
        Files::new(&self.folder, "server")
    }

    /// Where the revocation list lies once something was revoked.
    pub fn crl_path(&self) -> PathBuf {
        self.folder.join("crl.pem")
    }

    /// Where a client's certificate and key lie, whether they exist or not.
    pub fn client_files(&self, name: &str) -> Result<Files, Error> {
        let plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(plain) {
            return Err(Error::CertificateName(name.chars().take(80).collect()));
        }
        Ok(Files::new(&self.folder.join("clients"), name))
    }

    /// Makes a client certificate with one URI per organisation. The gateway accepts exactly one; tests need
    /// certificates with none and with two. One that exists stays as it is, and is an error
    /// ([`Error::OtherOrganisations`]) if it is for others.
    pub fn issue_client(
        &self,
        name: &str,
        organisations: &[Uscc],
        validity: Validity,
    ) -> Result<Files, Error> {
        let files = self.client_files(name)?;
        let wanted: Vec<String> =
            organisations.iter().map(|uscc| format!("{ORGANISATION_URN}{}", uscc.as_str())).collect();
        if let Some((certificate, _)) = files.complete(CLIENT)? {
            let der = certificate_der(CLIENT, &certificate)?;
            return match uris(&der) {
                Ok(found) if found == wanted => Ok(files),
                _ => Err(Error::OtherOrganisations(name.to_owned())),
            };
        }
        file::create_folder(FOLDER, &self.folder.join("clients"))?;
        let mut params =
            leaf_params(&format!("development {name}"), validity, ExtendedKeyUsagePurpose::ClientAuth)?;
        for uri in wanted {
            params.subject_alt_names.push(SanType::URI(uri.try_into()?));
        }
        self.sign(CLIENT, &files, params)?;
        Ok(files)
    }

    /// Adds a certificate of this CA to the revocation list `crl.pem` and returns the number of revoked ones.
    /// Once more for the same certificate renews the list and adds nothing. A server that was given the list
    /// refuses the certificate, and closes the connections that are open with it.
    pub fn revoke(&self, certificate_pem: &str) -> Result<usize, Error> {
        let der = certificate_der(CLIENT, certificate_pem)?;
        let certificate = parse(&der)?;
        let ca_der = certificate_der(CA, &self.ca_pem)?;
        let ca = parse(&ca_der)?;
        if certificate.issuer().as_raw() != ca.subject().as_raw()
            || authority_key_id(&certificate).is_none()
            || authority_key_id(&certificate) != subject_key_id(&ca)
        {
            return Err(Error::Malformed { what: CLIENT, reason: "not signed by this CA" });
        }
        let now = SystemTime::now();
        let (number, mut revoked_certs) = self.revoked()?;
        let serial_number = SerialNumber::from_slice(certificate.raw_serial());
        if revoked_certs.iter().all(|revoked| revoked.serial_number != serial_number) {
            revoked_certs.push(RevokedCertParams {
                serial_number,
                revocation_time: moment(now)?,
                reason_code: Some(RevocationReason::CessationOfOperation),
                invalidity_date: None,
            });
        }
        let count = revoked_certs.len();
        self.write_list(number + 1, revoked_certs, now + LEAF_VALIDITY)?;
        Ok(count)
    }

    /// Makes the revocation list `crl.pem` anew, with the certificates that it holds, good until a moment.
    pub fn renew_list(&self, until: SystemTime) -> Result<(), Error> {
        let (number, revoked_certs) = self.revoked()?;
        self.write_list(number + 1, revoked_certs, until)
    }

    /// Number and certificates of the list that there is.
    fn revoked(&self) -> Result<(u64, Vec<RevokedCertParams>), Error> {
        let path = self.crl_path();
        // A list that cannot be read stops here: writing a new one would lift its revocations.
        match path.try_exists().map_err(Error::io(CRL, &path))? {
            true => read_crl(&file::read_text(CRL, &path)?),
            false => Ok((0, Vec::new())),
        }
    }

    fn write_list(
        &self,
        number: u64,
        revoked_certs: Vec<RevokedCertParams>,
        until: SystemTime,
    ) -> Result<(), Error> {
        let list = CertificateRevocationListParams {
            this_update: moment(SystemTime::now() - CLOCK_SKEW)?,
            next_update: moment(until)?,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        }
        .signed_by(&self.issuer)?;
        file::replace(CRL, &self.crl_path(), list.pem()?.as_bytes(), file::PUBLIC)
    }

    fn create_missing_server(&self) -> Result<(), Error> {
        let files = self.server_files();
        if files.complete(SERVER)?.is_some() {
            return Ok(());
        }
        let validity = Validity::starting_now(LEAF_VALIDITY);
        let mut params = leaf_params("development server", validity, ExtendedKeyUsagePurpose::ServerAuth)?;
        params.subject_alt_names = vec![
            SanType::DnsName("localhost".try_into()?),
            SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        ];
        self.sign(SERVER, &files, params)
    }

    fn sign(&self, what: &'static str, files: &Files, params: CertificateParams) -> Result<(), Error> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        files.write(what, &certificate, &key)
    }
}

/// Why a certificate does not name the organisation that uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrganisationError {
    /// The certificate or its alternative names cannot be read.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// No URI, or more than one.
    #[error("the certificate must hold exactly one URI and holds {0}")]
    Count(usize),
    /// The one URI is not `urn:miaoxiang:org:` and a USCC with right check characters.
    #[error("the certificate's URI is not urn:miaoxiang:org: and a valid USCC")]
    BadUri,
}

/// The organisation that a client certificate stands for. The certificate must hold exactly one URI, and that
/// must be `urn:miaoxiang:org:<USCC>`: a second URI of any kind would leave it to each reader which one counts.
pub fn organisation(certificate: &[u8]) -> Result<Uscc, OrganisationError> {
    let uris = uris(certificate)?;
    let [uri] = uris.as_slice() else {
        return Err(OrganisationError::Count(uris.len()));
    };
    uri.strip_prefix(ORGANISATION_URN).and_then(|uscc| uscc.parse().ok()).ok_or(OrganisationError::BadUri)
}

/// Whether a PEM text holds a certificate of a development PKI: one whose subject or issuer says so. An unreadable text
/// is not development; whoever uses it will find out.
pub fn is_development(pem: &str) -> bool {
    let found = pem::sections(pem).unwrap_or_default();
    found.iter().any(|section| parse(&section.der).is_ok_and(|one| says_development(&one)))
}

/// Whether a certificate's subject or issuer says that it is of a development PKI.
pub(crate) fn says_development(certificate: &X509Certificate<'_>) -> bool {
    [certificate.subject(), certificate.issuer()]
        .into_iter()
        .flat_map(X509Name::iter_organization)
        .any(|part| part.as_str() == Ok(DEVELOPMENT_ORGANISATION))
}

/// All URIs among a certificate's alternative names.
fn uris(certificate: &[u8]) -> Result<Vec<String>, OrganisationError> {
    let certificate = parse(certificate).map_err(|_| OrganisationError::Unreadable)?;
    // Errors on a doubled extension.
    let names = certificate.subject_alternative_name().map_err(|_| OrganisationError::Unreadable)?;
    let Some(names) = names else { return Ok(Vec::new()) };
    let mut uris = Vec::new();
    for name in &names.value.general_names {
        match name {
            GeneralName::URI(uri) => uris.push((*uri).to_owned()),
            // A name that cannot be read may be a URI that another reader can.
            GeneralName::Invalid(..) => return Err(OrganisationError::Unreadable),
            _ => {}
        }
    }
    Ok(uris)
}

pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Error> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(Error::Malformed { what: "certificate", reason: "not an X.509 certificate" }),
    }
}

/// The certificate of a PEM text, which holds nothing else.
///
/// # Errors
/// [`Error::Pem`]
pub fn certificate_der(what: &'static str, text: &str) -> Result<Vec<u8>, Error> {
    let section = pem::one(text, "certificate", &[pem::CERTIFICATE]);
    section.map(|section| section.der.to_vec()).map_err(|source| Error::Pem { what, source })
}

fn key_pair(what: &'static str, path: &Path) -> Result<KeyPair, Error> {
    let text = file::read_private(what, path)?;
    let text = str::from_utf8(&text).map_err(|_| Error::Malformed { what, reason: "key is not PEM" })?;
    pem::one(text, "private key", &pem::PRIVATE_KEYS).map_err(|source| Error::Pem { what, source })?;
    // rcgen's own error may quote the input.
    KeyPair::from_pem(text).map_err(|_| Error::Malformed { what, reason: "key is not PKCS#8 in PEM" })
}

fn read_crl(text: &str) -> Result<(u64, Vec<RevokedCertParams>), Error> {
    let malformed = || Error::Malformed { what: CRL, reason: "not a revocation list" };
    let section = pem::one(text, "revocation list", &[pem::REVOCATION_LIST])
        .map_err(|source| Error::Pem { what: CRL, source })?;
    let (_, list) = CertificateRevocationList::from_der(&section.der).map_err(|_| malformed())?;
    let number = list.crl_number().and_then(|number| number.to_u64_digits().first().copied()).unwrap_or(0);
    let revoked = list
        .iter_revoked_certificates()
        .map(|revoked| {
            let seconds = u64::try_from(revoked.revocation_date.timestamp()).map_err(|_| malformed())?;
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from_slice(revoked.raw_serial()),
                revocation_time: moment(UNIX_EPOCH + Duration::from_secs(seconds))?,
                reason_code: Some(RevocationReason::CessationOfOperation),
                invalidity_date: None,
            })
        })
        .collect::<Result<_, Error>>()?;
    Ok((number, revoked))
}

fn authority_key_id<'a>(certificate: &X509Certificate<'a>) -> Option<&'a [u8]> {
    certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(value) => value.key_identifier.as_ref().map(|id| id.0),
        _ => None,
    })
}

fn subject_key_id<'a>(certificate: &X509Certificate<'a>) -> Option<&'a [u8]> {
    certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    })
}

fn ca_params() -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    set_validity(&mut params, Validity::starting_now(CA_VALIDITY))?;
    params.serial_number = Some(serial()?);
    params.distinguished_name = name(CA_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn leaf_params(
    common_name: &str,
    validity: Validity,
    purpose: ExtendedKeyUsagePurpose,
) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    set_validity(&mut params, validity)?;
    params.serial_number = Some(serial()?);
    params.distinguished_name = name(common_name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn set_validity(params: &mut CertificateParams, validity: Validity) -> Result<(), Error> {
    params.not_before = moment(validity.from)?;
    params.not_after = moment(validity.until)?;
    Ok(())
}

/// A time as rcgen wants it, whatever date library it uses.
fn moment<T: From<SystemTime>>(time: SystemTime) -> Result<T, Error> {
    // Whole seconds: X.509 has no others.
    let seconds = time.duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or(0);
    if seconds > MAX_UNIX_SECONDS {
        return Err(Error::Malformed { what: "certificate", reason: "validity ends after the year 2106" });
    }
    Ok(T::from(UNIX_EPOCH + Duration::from_secs(seconds)))
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, DEVELOPMENT_ORGANISATION);
    name.push(DnType::CommonName, common_name);
    name
}

/// Random, positive and of one length: the two highest bits are 01.
fn serial() -> Result<SerialNumber, Error> {
    let mut bytes = [0; SERIAL_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error::Randomness)?;
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use tempfile::TempDir;

    /// Made-up organisations with right check characters.
    const ONE: &str = "11100000MB0341032Y";
    const TWO: &str = "11100000MB03271699";

    fn fresh() -> (TempDir, DevelopmentPki) {
        let dir = tempfile::tempdir().unwrap();
        let pki = DevelopmentPki::create_missing(dir.path().join("pki")).unwrap();
        (dir, pki)
    }

    fn der(path: &Path) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(path).unwrap()
    }

    fn year() -> Validity {
        Validity::starting_now(LEAF_VALIDITY)
    }

    /// Name and content of every file, sorted.
    fn snapshot(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files.extend(snapshot(&path));
            } else {
                files.push((path.clone(), fs::read(&path).unwrap()));
            }
        }
        files.sort();
        files
    }

    #[test]
    fn a_second_run_changes_nothing() {
        let (dir, pki) = fresh();
        pki.issue_client("bank", &[ONE.parse().unwrap()], year()).unwrap();
        let before = snapshot(dir.path());
        assert_eq!(before.len(), 6);
        let again = DevelopmentPki::create_missing(dir.path().join("pki")).unwrap();
        again.issue_client("bank", &[ONE.parse().unwrap()], year()).unwrap();
        assert_eq!(snapshot(dir.path()), before);
    }

    #[test]
    fn keys_are_the_owners_alone() {
        let (dir, pki) = fresh();
        pki.issue_client("bank", &[ONE.parse().unwrap()], year()).unwrap();
        for (path, _) in snapshot(dir.path()) {
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, if path.extension().unwrap() == "key" { 0o600 } else { 0o644 });
        }
        let key = pki.server_files().key;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            DevelopmentPki::create_missing(dir.path().join("pki")),
            Err(Error::Permissions { mode: 0o644, .. })
        ));
    }

    #[test]
    fn a_half_made_pair_is_made_again() {
        let (dir, pki) = fresh();
        let organisation = ONE.parse().unwrap();
        let client = pki.issue_client("bank", &[organisation], year()).unwrap();
        for files in [client, pki.server_files()] {
            for lost in [&files.certificate, &files.key] {
                fs::remove_file(lost).unwrap();
                fs::write(files.key.with_file_name(".bank.key.1.new"), "half").unwrap();
                let again = DevelopmentPki::create_missing(dir.path().join("pki")).unwrap();
                again.issue_client("bank", &[organisation], year()).unwrap();
                assert!(files.complete(CLIENT).unwrap().is_some());
            }
        }
        assert_eq!(fs::read_to_string(pki.ca_path()).unwrap(), pki.ca_pem());
    }

    #[test]
    fn a_ca_key_without_certificate_is_made_again_and_the_reverse_is_refused() {
        let (dir, pki) = fresh();
        fs::remove_file(pki.ca_path()).unwrap();
        let again = DevelopmentPki::create_missing(dir.path().join("pki")).unwrap();
        assert_ne!(again.ca_pem(), pki.ca_pem());
        fs::remove_file(dir.path().join("pki/ca.key")).unwrap();
        assert!(matches!(
            DevelopmentPki::create_missing(dir.path().join("pki")),
            Err(Error::Malformed { what: CA, .. })
        ));
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let (dir, pki) = fresh();
        fs::copy(dir.path().join("pki/ca.key"), pki.server_files().key).unwrap();
        assert!(matches!(
            DevelopmentPki::create_missing(dir.path().join("pki")),
            Err(Error::Malformed { what: SERVER, .. })
        ));
    }

    #[test]
    fn certificates_name_their_organisation() {
        let (_dir, pki) = fresh();
        let (one, two): (Uscc, Uscc) = (ONE.parse().unwrap(), TWO.parse().unwrap());
        let good = pki.issue_client("good", &[one], year()).unwrap();
        assert_eq!(organisation(&der(&good.certificate)), Ok(one));
        let none = pki.issue_client("none", &[], year()).unwrap();
        assert_eq!(organisation(&der(&none.certificate)), Err(OrganisationError::Count(0)));
        let both = pki.issue_client("both", &[one, two], year()).unwrap();
        assert_eq!(organisation(&der(&both.certificate)), Err(OrganisationError::Count(2)));
        let twice = pki.issue_client("twice", &[one, one], year()).unwrap();
        assert_eq!(organisation(&der(&twice.certificate)), Err(OrganisationError::Count(2)));
        assert_eq!(organisation(b""), Err(OrganisationError::Unreadable));
        assert!(matches!(pki.issue_client("good", &[two], year()), Err(Error::OtherOrganisations(_))));
    }

    #[test]
    fn other_uris_name_no_organisation() {
        let (_dir, pki) = fresh();
        let certificate = |uris: &[String]| {
            let mut params = leaf_params("x", year(), ExtendedKeyUsagePurpose::ClientAuth).unwrap();
            params.subject_alt_names =
                uris.iter().map(|uri| SanType::URI(uri.as_str().try_into().unwrap())).collect();
            params.signed_by(&KeyPair::generate().unwrap(), &pki.issuer).unwrap()
        };
        let good = format!("{ORGANISATION_URN}{ONE}");
        assert_eq!(
            organisation(certificate(std::slice::from_ref(&good)).der()).map(|uscc| uscc.to_string()),
            Ok(ONE.to_owned())
        );
        let bad = [
            format!("{ORGANISATION_URN}11100000MB0341032X"),
            ORGANISATION_URN.to_owned(),
            format!("URN:miaoxiang:org:{ONE}"),
            format!("{good}/"),
            format!("{ORGANISATION_URN} {ONE}"),
            "spiffe://example.test/x".to_owned(),
        ];
        for uri in bad {
            assert_eq!(organisation(certificate(&[uri]).der()), Err(OrganisationError::BadUri));
        }
        let second = [good, "spiffe://example.test/x".to_owned()];
        assert_eq!(organisation(certificate(&second).der()), Err(OrganisationError::Count(2)));
    }

    #[test]
    fn development_certificates_say_so() {
        let (_dir, pki) = fresh();
        let client = pki.issue_client("bank", &[ONE.parse().unwrap()], year()).unwrap();
        assert!(is_development(pki.ca_pem()));
        for path in [client.certificate, pki.server_files().certificate] {
            assert!(is_development(&fs::read_to_string(path).unwrap()));
        }
        let own = CertificateParams::new(vec!["exchange.example.test".to_owned()]).unwrap();
        let own = own.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        assert!(!is_development(&own));
        assert!(is_development(&format!("{own}{}", pki.ca_pem())));
        assert!(!is_development("no certificate"));
    }

    #[test]
    fn serials_are_random_and_purposes_are_narrow() {
        let (_dir, pki) = fresh();
        let one = pki.issue_client("one", &[ONE.parse().unwrap()], year()).unwrap();
        let two = pki.issue_client("two", &[ONE.parse().unwrap()], year()).unwrap();
        let (one, two) = (der(&one.certificate), der(&two.certificate));
        let (one, two) = (parse(&one).unwrap(), parse(&two).unwrap());
        assert_ne!(one.raw_serial(), two.raw_serial());
        assert_eq!((one.raw_serial().len(), one.is_ca()), (SERIAL_BYTES, false));
        let purposes = one.extended_key_usage().unwrap().unwrap().value.clone();
        assert!(purposes.client_auth && !purposes.server_auth && !purposes.any);
        assert!(one.subject().to_string().contains("development one"));
    }

    #[test]
    fn names_do_not_lead_out_of_the_folder() {
        let (_dir, pki) = fresh();
        let long = "a".repeat(MAX_NAME_BYTES + 1);
        for name in ["", ".", "..", "../ca", "a/b", "Bank", "银行", "a.b", long.as_str()] {
            assert!(matches!(pki.issue_client(name, &[], year()), Err(Error::CertificateName(_))), "{name}");
        }
    }

    #[test]
    fn revocation_lists_grow_and_never_shrink() {
        let (_dir, pki) = fresh();
        let mut serials = Vec::new();
        for (count, name) in ["one", "two"].into_iter().enumerate() {
            let files = pki.issue_client(name, &[ONE.parse().unwrap()], year()).unwrap();
            let pem = fs::read_to_string(&files.certificate).unwrap();
            assert_eq!(pki.revoke(&pem).unwrap(), count + 1);
            assert_eq!(pki.revoke(&pem).unwrap(), count + 1);
            serials.push(parse(&der(&files.certificate)).unwrap().raw_serial().to_vec());
        }
        let (number, revoked) = read_crl(&fs::read_to_string(pki.crl_path()).unwrap()).unwrap();
        assert_eq!(number, 4);
        assert_eq!(revoked.iter().map(|entry| entry.serial_number.to_bytes()).collect::<Vec<_>>(), serials);
        // A damaged list is not replaced by an empty one.
        let pem = fs::read_to_string(pki.client_files("one").unwrap().certificate).unwrap();
        fs::write(pki.crl_path(), "damaged").unwrap();
        assert!(matches!(pki.revoke(&pem), Err(Error::Pem { what: CRL, .. })));
        // Nor does a stranger's certificate get in.
        let (_other_dir, other) = fresh();
        assert!(matches!(other.revoke(&pem), Err(Error::Malformed { what: CLIENT, .. })));
    }
}
