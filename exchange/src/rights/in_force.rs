//! The policies in force: a document of journaled state that two operators change, read once for each version.
//!
//! Its version is a fact of every decision, so a permit does not outlive them. Proposals alone write the document: a crash leaves it
//! with its entry, or the one before. All else that stands here is memory, and is read again.

use std::sync::{Mutex, OnceLock, PoisonError};

use ledger::{DocumentKind, Fact, Key, KeyedHash, Ledger};
use metrics::gauge;
use schemas::policy::ROLES;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use verifier::Hash;

use super::policy::Policies;
use crate::current::Current;
use crate::gateway::parsed::Kept;
use crate::gateway::source::Source;

/// Gauge: 1 while the policies in the journal cannot be read, and everything that they are asked about is denied.
pub const POLICIES_FAILED: &str = "miaoxiang_policies_failed";

/// The document as journaled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Published {
    /// The text.
    pub policies: String,
}

impl Kept for Published {
    const KIND: DocumentKind = DocumentKind::Policies;
}

/// Key of the document.
pub(crate) fn policies_key(keyed: &KeyedHash) -> Key {
    keyed.key("policies", &[])
}

/// Policies with the version of their document; 0 for those that come with the program.
pub(crate) struct Versioned {
    pub(crate) version: u32,
    pub(crate) policies: Policies,
}

/// The policies that are in force in one ledger.
pub struct InForce {
    read: Current<Versioned>,
    key: OnceLock<Key>,
    /// They are read by one, and others wait for it.
    reading: Mutex<()>,
}

impl Default for InForce {
    fn default() -> Self {
        let read = Versioned { version: 0, policies: read(ROLES) };
        Self { read: Current::new(read), key: OnceLock::new(), reading: Mutex::new(()) }
    }
}

impl InForce {
    /// The fact that they are, and they themselves.
    pub(crate) fn at(&self, source: &dyn Source) -> (Fact, Arc<Versioned>) {
        let key = *self.key.get_or_init(|| policies_key(source.keyed()));
        let fact = Fact::Document(DocumentKind::Policies, key);
        let (version, now) = (source.version(&fact), self.read.get());
        if now.version == version {
            return (fact, now);
        }
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(document) = source.document(DocumentKind::Policies, &key) else { return (fact, now) };
        let now = self.read.get();
        if now.version == document.version {
            return (fact, now);
        }
        // The gateway wrote these bytes itself. Those that it cannot read permit nothing.
        let published = serde_json::from_slice::<Published>(&document.value);
        let text = published.map(|published| published.policies).unwrap_or_default();
        let policies = read(&text);
        let hash = hex::encode(policies.hash());
        tracing::info!(
            version = document.version,
            policies = policies.count(),
            hash,
            "policies are in force"
        );
        self.read.replace(Versioned { version: document.version, policies });
        (fact, self.read.get())
    }

    /// The policy hash of the exchange's own entries.
    pub(crate) fn hash(&self, source: &dyn Source) -> Hash {
        *self.at(source).1.policies.hash()
    }
}

/// The policy hash of the exchange's own entries in a ledger that is not served.
pub fn hash(ledger: &Ledger) -> Hash {
    InForce::default().hash(ledger)
}

fn read(text: &str) -> Policies {
    let read = Policies::read(text);
    gauge!(POLICIES_FAILED).set(f64::from(u8::from(read.is_err())));
    read.unwrap_or_else(|fault| {
        tracing::error!(%fault, "the policies cannot be read: what they are asked about is denied");
        Policies::unreadable(text)
    })
}
