//! Licenses (section 2): writing and reading bodies and envelopes, and the check of a license from its bytes.
//!
//! The exchange writes with it, and a checker reads. Pure functions; nothing to lose.

use crate::{
    Hash, merkle,
    report::{LicenseFacts, Reason, Report, seconds},
    sha256,
    signature::{KeyId, SIGNATURE_BYTES, Suite, Suites, message, suites},
    trust::{KnownKey, Trust, TrustIssuer},
};
use flatbuffers::{FlatBufferBuilder, VerifierOptions};
use schemas::{date::Date, identifier::CertificateIdentifier, license as wire};
use std::collections::BTreeSet;

/// Longest envelope, in bytes, with its size prefix.
pub const MAX_ENVELOPE_BYTES: usize = 1 << 20;

pub use crate::signature::MAX_SIGNATURES;

/// Most nodes in an inclusion path.
pub const MAX_PATH_NODES: usize = 63;

/// Deepest nesting and most tables in one buffer.
const MAX_DEPTH: usize = 16;
const MAX_TABLES: usize = 512;

/// Roots that a [`RootCache`] holds before it starts anew.
const MAX_ROOTS: usize = 1024;

const SIZE_PREFIX_BYTES: usize = 4;
const HASH_BYTES: usize = 32;

/// The content of a license body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LicenseContent {
    /// The full identifier of this version.
    pub identifier: CertificateIdentifier,
    /// 证照编号, the number printed on the license.
    pub certificate_number: String,
    /// Name of the issuing authority.
    pub issuer_name: String,
    /// The holders.
    pub holders: Vec<BodyHolder>,
    /// The date of issue that the license shows.
    pub issue_date: Date,
    /// First valid day.
    pub valid_from: Date,
    /// Last valid day, counted through its last second; `None` for a license without end.
    pub valid_until: Option<Date>,
    /// The moment of signing, seconds since 1970; keys are judged at it.
    pub issued_at: u64,
    /// Fields of the face, in the order of the license type, as key and value.
    pub fields: Vec<(String, String)>,
}

impl LicenseContent {
    /// Every fact of the face by field name.
    pub fn face(&self) -> Vec<(String, String)> {
        let join =
            |part: fn(&BodyHolder) -> &str| self.holders.iter().map(part).collect::<Vec<_>>().join("、");
        let mut face = vec![
            ("certificateNumber".to_owned(), self.certificate_number.clone()),
            ("holderName".to_owned(), join(|holder| &holder.name)),
            ("holderNumber".to_owned(), join(|holder| &holder.number)),
            ("issueDate".to_owned(), self.issue_date.to_string()),
            ("validFrom".to_owned(), self.valid_from.to_string()),
            ("issuerName".to_owned(), self.issuer_name.clone()),
        ];
        face.extend(self.valid_until.map(|day| ("validUntil".to_owned(), day.to_string())));
        face.extend(self.fields.iter().cloned());
        face
    }
}

/// One holder of a license. Personal data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyHolder {
    /// Name.
    pub name: String,
    /// Type code of the number.
    pub type_code: String,
    /// The number in its one form.
    pub number: String,
    /// The number's check character is wrong, and the registrar gave it out like this.
    pub as_registered: bool,
}

/// One signature of an envelope, in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureParts {
    /// Number of the suite.
    pub suite: u8,
    /// Id of the key.
    pub key_id: KeyId,
    /// Leaves of the tree that is signed.
    pub size: u64,
    /// This license's leaf.
    pub index: u64,
    /// Inclusion path, from the leaf's sibling up.
    pub path: Vec<Hash>,
    /// The signature over [`crate::signature::message`].
    pub value: Vec<u8>,
}

/// Writes a body. `nonce` is random, so that no published digest confirms a guess of the content.
pub fn encode_body(content: &LicenseContent, nonce: &[u8; 16]) -> Vec<u8> {
    let mut fbb = FlatBufferBuilder::new();
    let holders: Vec<_> = content
        .holders
        .iter()
        .map(|holder| {
            let args = wire::BodyHolderArgs {
                name: Some(fbb.create_string(&holder.name)),
                type_code: Some(fbb.create_string(&holder.type_code)),
                number: Some(fbb.create_string(&holder.number)),
                as_registered: holder.as_registered,
            };
            wire::BodyHolder::create(&mut fbb, &args)
        })
        .collect();
    let fields: Vec<_> = content
        .fields
        .iter()
        .map(|(key, value)| {
            let args = wire::BodyFieldArgs {
                key: Some(fbb.create_string(key)),
                value: Some(fbb.create_string(value)),
            };
            wire::BodyField::create(&mut fbb, &args)
        })
        .collect();
    let args = wire::LicenseBodyArgs {
        nonce: Some(fbb.create_vector(nonce)),
        identifier: Some(fbb.create_string(&content.identifier.to_string())),
        certificate_number: Some(fbb.create_string(&content.certificate_number)),
        issuer_name: Some(fbb.create_string(&content.issuer_name)),
        holders: Some(fbb.create_vector(&holders)),
        issue_date: Some(fbb.create_string(&content.issue_date.to_string())),
        valid_from: Some(fbb.create_string(&content.valid_from.to_string())),
        valid_until: content.valid_until.map(|date| fbb.create_string(&date.to_string())),
        issued_at: content.issued_at,
        fields: Some(fbb.create_vector(&fields)),
    };
    let root = wire::LicenseBody::create(&mut fbb, &args);
    wire::finish_license_body_buffer(&mut fbb, root);
    fbb.finished_data().to_vec()
}

/// Reads a body. Says nothing about its signatures.
///
/// # Errors
/// [`Reason::MalformedBody`], [`Reason::BadIdentifier`]
pub fn read_body(body: &[u8]) -> Result<LicenseContent, Reason> {
    if !has_identifier(body, 0, wire::LICENSE_BODY_IDENTIFIER) || body.len() > MAX_ENVELOPE_BYTES {
        return Err(Reason::MalformedBody);
    }
    let read =
        wire::root_as_license_body_with_opts(&reader_limits(), body).map_err(|_| Reason::MalformedBody)?;
    if read.nonce().len() != 16 {
        return Err(Reason::MalformedBody);
    }
    let date = |text: &str| text.parse::<Date>().map_err(|_| Reason::MalformedBody);
    Ok(LicenseContent {
        identifier: read.identifier().parse().map_err(|_| Reason::BadIdentifier)?,
        certificate_number: read.certificate_number().to_owned(),
        issuer_name: read.issuer_name().to_owned(),
        holders: read
            .holders()
            .iter()
            .map(|holder| BodyHolder {
                name: holder.name().to_owned(),
                type_code: holder.type_code().to_owned(),
                number: holder.number().to_owned(),
                as_registered: holder.as_registered(),
            })
            .collect(),
        issue_date: date(read.issue_date())?,
        valid_from: date(read.valid_from())?,
        valid_until: read.valid_until().map(date).transpose()?,
        issued_at: read.issued_at(),
        fields: read
            .fields()
            .iter()
            .map(|field| (field.key().to_owned(), field.value().to_owned()))
            .collect(),
    })
}

/// The identifier in an envelope of one's own. Looks only at what it needs: whether the envelope has the one form that is
/// accepted, [`OpenedEnvelope::open`] says.
///
/// # Errors
/// [`Reason::MalformedEnvelope`], [`Reason::MalformedBody`]
pub fn identifier_in(envelope: &[u8]) -> Result<String, Reason> {
    let read = wire::size_prefixed_root_as_envelope_with_opts(&reader_limits(), envelope)
        .map_err(|_| Reason::MalformedEnvelope)?;
    let body = wire::root_as_license_body_with_opts(&reader_limits(), read.body().bytes())
        .map_err(|_| Reason::MalformedBody)?;
    Ok(body.identifier().to_owned())
}

/// Writes an envelope.
pub fn encode_envelope(body: &[u8], signatures: &[SignatureParts]) -> Vec<u8> {
    let mut fbb = FlatBufferBuilder::new();
    let signatures: Vec<_> = signatures
        .iter()
        .map(|parts| {
            let args = wire::SignatureArgs {
                suite: parts.suite,
                key_id: Some(fbb.create_vector(&parts.key_id)),
                size: parts.size,
                index: parts.index,
                path: Some(fbb.create_vector(parts.path.as_flattened())),
                value: Some(fbb.create_vector(&parts.value)),
            };
            wire::Signature::create(&mut fbb, &args)
        })
        .collect();
    let args = wire::EnvelopeArgs {
        body: Some(fbb.create_vector(body)),
        signatures: Some(fbb.create_vector(&signatures)),
    };
    let root = wire::Envelope::create(&mut fbb, &args);
    wire::finish_size_prefixed_envelope_buffer(&mut fbb, root);
    fbb.finished_data().to_vec()
}

/// An envelope taken apart; nothing is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedEnvelope<'a> {
    body: &'a [u8],
    signatures: Vec<SignatureParts>,
    suites: Suites,
}

impl<'a> OpenedEnvelope<'a> {
    /// Takes an envelope apart, within the limits of section 2.
    ///
    /// Signatures cover the body and the list of suites, so an envelope is accepted only in the one form that
    /// [`encode_envelope`] gives it, with its suites ascending, each once: nothing can be hidden in its padding, and every
    /// changed bit is noticed.
    ///
    /// # Errors
    /// [`Reason::MalformedEnvelope`], [`Reason::TrailingBytes`]
    pub fn open(envelope: &'a [u8]) -> Result<Self, Reason> {
        let malformed = Reason::MalformedEnvelope;
        let (prefix, rest) = envelope.split_first_chunk::<SIZE_PREFIX_BYTES>().ok_or(malformed)?;
        let length = usize::try_from(u32::from_le_bytes(*prefix)).map_err(|_| malformed)?;
        if rest.len() < length || envelope.len() > MAX_ENVELOPE_BYTES {
            return Err(malformed);
        }
        if !has_identifier(envelope, SIZE_PREFIX_BYTES, wire::ENVELOPE_IDENTIFIER) {
            return Err(malformed);
        }
        if rest.len() > length {
            return Err(Reason::TrailingBytes);
        }
        let read = wire::size_prefixed_root_as_envelope_with_opts(&reader_limits(), envelope)
            .map_err(|_| malformed)?;
        if read.signatures().len() > MAX_SIGNATURES {
            return Err(malformed);
        }
        let suites = suites(read.signatures().iter().map(|signature| signature.suite())).ok_or(malformed)?;
        let signatures = read.signatures().iter().map(|signature| SignatureParts::read(&signature));
        let opened = Self {
            body: read.body().bytes(),
            signatures: signatures.collect::<Option<_>>().ok_or(malformed)?,
            suites,
        };
        if encode_envelope(opened.body, &opened.signatures) != envelope {
            return Err(malformed);
        }
        Ok(opened)
    }

    /// The body bytes, as they were signed.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// The signatures.
    pub fn signatures(&self) -> &[SignatureParts] {
        &self.signatures
    }

    /// The license's identity: H(body).
    pub fn body_digest(&self) -> Hash {
        sha256(&[self.body])
    }
}

impl SignatureParts {
    fn read(signature: &wire::Signature<'_>) -> Option<Self> {
        let (path, rest) = signature.path().bytes().as_chunks::<HASH_BYTES>();
        if !rest.is_empty() || path.len() > MAX_PATH_NODES {
            return None;
        }
        Some(Self {
            suite: signature.suite(),
            key_id: signature.key_id().bytes().try_into().ok()?,
            size: signature.size(),
            index: signature.index(),
            path: path.to_vec(),
            value: signature.value().bytes().to_vec(),
        })
    }
}

/// Roots whose signature was checked before, so that the licenses of one batch cost one signature check together.
/// Bounded; when it is full it starts anew.
#[derive(Clone, Debug, Default)]
pub struct RootCache(BTreeSet<CheckedRoot>);

/// Names the key by its id, which commits to it.
type CheckedRoot = (u8, Suites, KeyId, u64, Hash, [u8; SIGNATURE_BYTES]);

impl RootCache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    fn insert(&mut self, root: CheckedRoot) {
        if self.0.len() >= MAX_ROOTS {
            self.0.clear();
        }
        self.0.insert(root);
    }
}

/// Checks a license from its bytes: form, signatures, the issuer's right to the type, and its time.
///
/// `at` is the time of the check in seconds since 1970. Whether the license was suspended or revoked since does not
/// stand in its bytes: the report lists it as not checked.
pub fn verify(envelope: &[u8], trust: &Trust, at: u64, warm: &mut RootCache) -> Report {
    let mut report = Report::new(trust, at);
    report.not_checked.push("current-state");
    let opened = match OpenedEnvelope::open(envelope) {
        Ok(opened) => opened,
        Err(reason) => {
            report.add(reason, "the envelope cannot be read");
            return report;
        }
    };
    // A body that a known key did not sign is not read: whatever it says, somebody else says it.
    let leaf = merkle::leaf_hash(opened.body);
    let mut broken = false;
    for signature in &opened.signatures {
        if let Some((suite, key)) = known_key(signature, trust) {
            broken |= !check_signature(&mut report, suite, &opened.suites, signature, key, &leaf, warm);
        }
    }
    if broken {
        return report;
    }
    let content = match read_body(opened.body) {
        Ok(content) => content,
        Err(reason) => {
            report.add(reason, "the body cannot be read");
            return report;
        }
    };
    report.checked.push("form");
    report.license = Some(LicenseFacts {
        body_digest: opened.body_digest(),
        identifier: content.identifier.clone(),
        issuer_name: content.issuer_name.clone(),
        valid_from: content.valid_from,
        valid_until: content.valid_until,
        signed_at: content.issued_at,
        as_registered: content.holders.iter().any(|holder| holder.as_registered),
    });
    check_signers(&mut report, &opened, &content, trust);
    check_time(&mut report, &content, at);
    report
}

/// A suite that this verifier checks.
fn supported(suite: u8) -> Option<Suite> {
    Suite::from_number(suite).filter(|suite| *suite != Suite::Sm2Sm3)
}

/// The suite of a signature and its key, if the one is supported and the bundle has the other.
fn known_key<'t>(signature: &SignatureParts, trust: &'t Trust) -> Option<(Suite, &'t KnownKey)> {
    let key = trust.key(&signature.key_id).filter(|key| key.suite == signature.suite)?;
    Some((supported(signature.suite)?, key))
}

/// Asks the bundle about those who signed: they must be the issuer, in the time of their keys.
fn check_signers(report: &mut Report, opened: &OpenedEnvelope<'_>, content: &LicenseContent, trust: &Trust) {
    let before = report.reasons.len();
    let issuer = content.identifier.issuer().uscc().and_then(|uscc| trust.issuer(&uscc));
    for signature in &opened.signatures {
        if supported(signature.suite).is_none() {
            report.add(Reason::UnsupportedSuite, format!("suite {}", signature.suite));
            continue;
        }
        let Some((_, key)) = known_key(signature, trust) else {
            if issuer.is_some() {
                report.add(Reason::UnknownSigner, format!("key {}", hex::encode(signature.key_id)));
            }
            continue;
        };
        if Some(key.organisation) != content.identifier.issuer().uscc() {
            report.add(Reason::IssuerMismatch, format!("the key belongs to {}", key.organisation));
            continue;
        }
        check_key_time(report, key, content.issued_at);
    }
    match issuer {
        Some(issuer) => check_issuer(report, opened, content, issuer),
        // A key of somebody else says more than that the issuer is not known.
        None if report.has(Reason::IssuerMismatch) => {}
        None => report.add(
            Reason::NoTrustForIssuer,
            format!("the trust bundle does not know issuer {}", content.identifier.issuer()),
        ),
    }
    if report.reasons.len() == before {
        report.checked.extend(["signatures", "issuer", "key-time", "license-type"]);
    }
}

/// A key is judged at the moment of signing: what it signed in its time stays valid.
fn check_key_time(report: &mut Report, key: &KnownKey, issued_at: u64) {
    if issued_at < key.from {
        return report.add(Reason::KeyNotYetValid, format!("the key begins {}", seconds(key.from)));
    }
    if issued_at >= key.until {
        return report.add(Reason::KeyPastEnd, format!("the key ended {}", seconds(key.until)));
    }
    if let Some(size) = key.compromised_at_size {
        report.add(
            Reason::KeyCompromised,
            format!("the key is good only with an issue receipt of an index below {size}"),
        );
    }
}

fn check_signature(
    report: &mut Report,
    suite: Suite,
    suites: &Suites,
    signature: &SignatureParts,
    key: &KnownKey,
    leaf: &Hash,
    warm: &mut RootCache,
) -> bool {
    let SignatureParts { key_id, size, index, path, value, .. } = signature;
    let Some(root) = merkle::root_from_inclusion(*index, *size, leaf, path) else {
        report.add(Reason::BadPath, format!("leaf {index} of {size} with {} nodes", path.len()));
        return false;
    };
    let value = value.as_slice().try_into().ok();
    let checked = value.map(|value| (suite.number(), *suites, *key_id, *size, root, value));
    let verifies = checked.is_some_and(|checked| {
        warm.0.contains(&checked)
            || key.public.as_ref().is_some_and(|key| {
                let verifies = key.verify(&message(suite, suites, *size, &root), &checked.5);
                if verifies {
                    warm.insert(checked);
                }
                verifies
            })
    });
    if !verifies {
        report.add(Reason::BadSignature, format!("suite {}", suite.name()));
    }
    verifies
}

/// Asks the bundle about the issuer: its license types, and the suites it must sign with.
fn check_issuer(
    report: &mut Report,
    opened: &OpenedEnvelope<'_>,
    content: &LicenseContent,
    issuer: &TrustIssuer,
) {
    let type_code = content.identifier.type_code();
    if !issuer.types.contains(&type_code) {
        report.add(Reason::NotEntitledToType, format!("type {type_code}"));
    }
    for required in issuer.required_suites.iter().filter(|required| required.from <= content.issued_at) {
        if !opened.suites.contains(&required.suite) {
            report.add(Reason::RequiredSuiteMissing, format!("suite {}", required.suite));
        }
    }
    // A bundle that requires no suite yet does not make an unsigned license valid.
    if opened.signatures.is_empty() && !report.has(Reason::RequiredSuiteMissing) {
        report.add(Reason::RequiredSuiteMissing, "no signature");
    }
}

fn check_time(report: &mut Report, content: &LicenseContent, at: u64) {
    let at = i64::try_from(at).unwrap_or(i64::MAX);
    let before = report.reasons.len();
    if at < content.valid_from.first_second() {
        report.add(Reason::NotYetValid, format!("the first day is {}", content.valid_from));
    }
    if let Some(last) = content.valid_until.filter(|date| at > date.last_second()) {
        report.add(Reason::Expired, format!("the last day was {last}"));
    }
    if report.reasons.len() == before {
        report.checked.push("license-time");
    }
}

/// Limits of the checking reader.
fn reader_limits() -> VerifierOptions {
    VerifierOptions {
        max_depth: MAX_DEPTH,
        max_tables: MAX_TABLES,
        max_apparent_size: MAX_ENVELOPE_BYTES,
        ignore_missing_null_terminator: false,
    }
}

/// Whether the buffer that begins at `start` bears this file identifier, behind its 4-byte root offset.
fn has_identifier(bytes: &[u8], start: usize, identifier: &str) -> bool {
    let rest = bytes.get(start..).and_then(|buffer| buffer.get(4..));
    rest.is_some_and(|rest| rest.starts_with(identifier.as_bytes()))
}
