//! The trust bundle (section 3): which keys may sign what, and which logs are known.
//!
//! Pure functions over a signed bundle; nothing to lose.

use crate::{
    encoding::{base64_bytes, hex_bytes},
    note::{NoteError, SignedNote, VerifierKey, WitnessKey},
    report::Reason,
    signature::{KeyError, KeyId, PublicKey, Suite, key_id},
};
use schemas::identifier::{LicenseTypeCode, Uscc};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, ops::Deref};

/// The only layout there is.
pub const TRUST_VERSION: u32 = 1;

/// The trust bundle as a document. To check with it, make a [`Trust`] of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrustBundle {
    /// [`TRUST_VERSION`].
    pub version: u32,
    /// Grows with every bundle; a checker refuses a lower one than it has seen.
    pub sequence: u64,
    /// When it was made, seconds since 1970.
    pub issued_at: u64,
    /// From this second on nothing can be told by it.
    pub expires: u64,
    /// Index in the log up to which it takes events into account.
    pub journal_index: u64,
    /// Issuing authorities; each organisation once.
    pub issuers: Vec<TrustIssuer>,
    /// Logs that receipts may come from; each origin once.
    pub logs: Vec<TrustLog>,
    /// Keys of witnesses.
    pub witnesses: Vec<WitnessKey>,
    /// Keys of mirrors, whose cosignatures also say that they durably hold all entries (C2SP tlog-mirror). No check counts
    /// them yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<WitnessKey>,
    /// Origins of peer exchanges.
    pub peers: Vec<String>,
    /// Key of the trust authority that signs it, which vouches for nothing by itself: it is what a checker without an anchor
    /// may pin. Filled in by who signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<VerifierKey>,
}

/// An issuing authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrustIssuer {
    /// Its USCC.
    pub organisation: Uscc,
    /// Its name.
    pub name: String,
    /// License types that it may issue.
    pub types: Vec<LicenseTypeCode>,
    /// Suites that its licenses must be signed with.
    pub required_suites: Vec<RequiredSuite>,
    /// Its keys; each key once in the whole bundle.
    pub keys: Vec<TrustKey>,
}

/// A suite that licenses must be signed with from a moment on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequiredSuite {
    /// Number of the suite.
    pub suite: u8,
    /// From this `issued_at` of a body on, seconds since 1970.
    pub from: u64,
}

/// A signing key of an issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrustKey {
    /// Number of the suite.
    pub suite: u8,
    /// First 16 bytes of H(spki).
    #[serde(with = "hex_bytes")]
    pub key_id: KeyId,
    /// SubjectPublicKeyInfo, DER.
    #[serde(with = "base64_bytes")]
    pub spki: Vec<u8>,
    /// First `issued_at` that it signs, seconds since 1970.
    pub from: u64,
    /// First `issued_at` that it no longer signs.
    pub until: u64,
    /// When set to N, the key is good only with an issue receipt of an index below N.
    pub compromised_at_size: Option<u64>,
}

/// A log that receipts may come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrustLog {
    /// Its origin, and the name of its key.
    pub origin: String,
    /// Its key.
    pub key: VerifierKey,
}

/// The text of a bundle that the trust authority signs: one line of JSON and a newline.
pub fn encode_text(bundle: &TrustBundle) -> String {
    let mut text = serde_json::to_string(bundle).expect("a bundle is strings, numbers and lists");
    text.push('\n');
    text
}

/// Why a trust bundle is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// The note cannot be read or is not signed by the anchor.
    #[error("the trust bundle's note: {0}")]
    Note(#[from] NoteError),
    /// The text is not one line of JSON of this form.
    #[error("the trust bundle cannot be read: {0}")]
    Malformed(String),
    /// The bundle is of another version than [`TRUST_VERSION`].
    #[error("the trust bundle has version {0}")]
    Version(u32),
    /// A key's id is not that of its SubjectPublicKeyInfo, or the key cannot be read.
    #[error("key {0} of the trust bundle is malformed")]
    BadKey(String),
    /// A key, an organisation, a log or a witness stands twice.
    #[error("{0} stands twice in the trust bundle")]
    Duplicate(String),
    /// The key that it names as its authority's is not the anchor.
    #[error("the trust bundle names another key as its authority's")]
    Authority,
    /// A log's key has another name than the log.
    #[error("the key of log {0} has another name")]
    LogName(String),
    /// The sequence is lower than one seen before.
    #[error("the trust bundle has sequence {found}, but {minimum} was seen before")]
    Rollback {
        /// Sequence of the bundle.
        found: u64,
        /// Lowest sequence the caller takes.
        minimum: u64,
    },
}

impl TrustError {
    /// The reason for a report.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Rollback { .. } => Reason::TrustRollback,
            Self::Note(NoteError::BadSignature(_) | NoteError::NoKnownKey) | Self::Authority => {
                Reason::BadTrustSignature
            }
            _ => Reason::MalformedTrust,
        }
    }
}

/// A trust bundle that was checked in itself, with its keys read and indexed.
#[derive(Clone, Debug)]
pub struct Trust {
    bundle: TrustBundle,
    anchored: bool,
    keys: BTreeMap<KeyId, KnownKey>,
    /// Position in `bundle.issuers`.
    issuers: BTreeMap<Uscc, usize>,
}

/// A key of the bundle, with the organisation it belongs to.
#[derive(Clone, Debug)]
pub struct KnownKey {
    /// The organisation.
    pub organisation: Uscc,
    /// Number of the suite.
    pub suite: u8,
    /// The key; `None` for a suite that is not supported.
    pub public: Option<PublicKey>,
    /// First `issued_at` that it signs.
    pub from: u64,
    /// First `issued_at` that it no longer signs.
    pub until: u64,
    /// When set to N, the key is good only with an issue receipt of an index below N.
    pub compromised_at_size: Option<u64>,
}

impl Trust {
    /// Takes a bundle that the caller trusts as it is, such as one it has just made.
    ///
    /// # Errors
    /// Those of [`TrustError`] that concern the bundle itself.
    pub fn new(bundle: TrustBundle) -> Result<Self, TrustError> {
        if bundle.version != TRUST_VERSION {
            return Err(TrustError::Version(bundle.version));
        }
        let mut keys = BTreeMap::new();
        let mut issuers = BTreeMap::new();
        for (position, issuer) in bundle.issuers.iter().enumerate() {
            if issuers.insert(issuer.organisation, position).is_some() {
                return Err(TrustError::Duplicate(issuer.organisation.to_string()));
            }
            for key in &issuer.keys {
                let known = KnownKey::read(issuer.organisation, key)?;
                if keys.insert(key.key_id, known).is_some() {
                    return Err(TrustError::Duplicate(hex::encode(key.key_id)));
                }
            }
        }
        let mut origins: Vec<_> = bundle.logs.iter().map(|log| log.origin.as_str()).collect();
        origins.sort_unstable();
        if let Some(twice) =
            origins.windows(2).find_map(|pair| (pair.first() == pair.last()).then(|| pair.first()))
        {
            return Err(TrustError::Duplicate(twice.copied().unwrap_or_default().to_owned()));
        }
        // Twice the same witness would count as two, and a mirror's key says more than a witness's.
        let mut witnesses: Vec<_> =
            bundle.witnesses.iter().chain(&bundle.mirrors).map(WitnessKey::bytes).collect();
        witnesses.sort_unstable();
        if witnesses.windows(2).any(|pair| pair.first() == pair.last()) {
            return Err(TrustError::Duplicate("a witness".to_owned()));
        }
        if let Some(log) = bundle.logs.iter().find(|log| log.key.name() != log.origin) {
            return Err(TrustError::LogName(log.origin.clone()));
        }
        Ok(Self { bundle, anchored: true, keys, issuers })
    }

    /// Reads a bundle from its signed note. Without an `anchor` no signature is checked, and no report that rests on the
    /// bundle is more than cannot tell. `minimum_sequence` is the highest sequence the caller has seen.
    ///
    /// # Errors
    /// [`TrustError`]
    pub fn parse_note(
        text: &str,
        anchor: Option<&VerifierKey>,
        minimum_sequence: u64,
    ) -> Result<Self, TrustError> {
        let note = SignedNote::parse(text)?;
        let text = match anchor {
            Some(anchor) => note.verify(std::slice::from_ref(anchor))?.text(),
            None => note.unchecked_text(),
        };
        let line = text.strip_suffix('\n').filter(|line| !line.contains('\n'));
        let line = line.ok_or_else(|| TrustError::Malformed("more than one line".to_owned()))?;
        let bundle: TrustBundle =
            serde_json::from_str(line).map_err(|error| TrustError::Malformed(error.to_string()))?;
        if anchor.zip(bundle.authority.as_ref()).is_some_and(|(anchor, named)| anchor != named) {
            return Err(TrustError::Authority);
        }
        if bundle.sequence < minimum_sequence {
            return Err(TrustError::Rollback { found: bundle.sequence, minimum: minimum_sequence });
        }
        Ok(Self { anchored: anchor.is_some(), ..Self::new(bundle)? })
    }

    /// The bundle as read.
    pub fn bundle(&self) -> &TrustBundle {
        &self.bundle
    }

    /// Whether the bundle's signature was checked, or its caller made it.
    pub fn is_anchored(&self) -> bool {
        self.anchored
    }

    /// The key with this id.
    pub fn key(&self, id: &KeyId) -> Option<&KnownKey> {
        self.keys.get(id)
    }

    /// The issuer with this USCC.
    pub fn issuer(&self, organisation: &Uscc) -> Option<&TrustIssuer> {
        self.bundle.issuers.get(*self.issuers.get(organisation)?)
    }

    /// The log with this origin.
    pub fn log(&self, origin: &str) -> Option<&TrustLog> {
        self.bundle.logs.iter().find(|log| log.origin == origin)
    }
}

impl Deref for Trust {
    type Target = TrustBundle;

    fn deref(&self) -> &TrustBundle {
        &self.bundle
    }
}

impl KnownKey {
    fn read(organisation: Uscc, key: &TrustKey) -> Result<Self, TrustError> {
        let bad = || TrustError::BadKey(hex::encode(key.key_id));
        if key_id(&key.spki) != key.key_id {
            return Err(bad());
        }
        // A suite of tomorrow must not make today's bundle unreadable.
        let public = match Suite::from_number(key.suite).map(|suite| PublicKey::from_spki(suite, &key.spki)) {
            Some(Ok(public)) => Some(public),
            Some(Err(KeyError::Malformed)) => return Err(bad()),
            Some(Err(KeyError::Unsupported)) | None => None,
        };
        Ok(Self {
            organisation,
            suite: key.suite,
            public,
            from: key.from,
            until: key.until,
            compromised_at_size: key.compromised_at_size,
        })
    }
}
