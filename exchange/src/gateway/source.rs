//! Where a decision reads from: the ledger's state in memory, or a table in tests. Nothing here writes. A case alone
//! reads it for a decision. A crash leaves nothing.

#[cfg(test)]
use std::collections::HashMap;

use ledger::{Bound, Document, DocumentKind, Fact, Grant, Holder, Key, KeyedHash, Label, Ledger, License};

/// State as a decision reads it. [`super::case::Case`] remembers what was read; nobody else reads for a decision.
pub trait Source: Sync {
    /// Names of things in the state.
    fn keyed(&self) -> &KeyedHash;
    /// The journal's time, ms since 1970.
    fn time_ms(&self) -> u64;
    /// The license under a key.
    fn license(&self, key: &Key) -> Option<License>;
    /// Tag of a license's number and the license's version, for less than the whole license takes.
    fn number_tag(&self, key: &Key) -> Option<(u64, u32)>;
    /// A license that is none, which takes as long to read as one that is.
    fn no_license(&self) -> License;
    /// Keys of the licenses that name a holder.
    fn licenses_of(&self, label: &Label) -> Vec<Key>;
    /// The holder under a key.
    fn holder(&self, key: &Key) -> Option<Holder>;
    /// The holder with a label, erased or not.
    fn holder_by_label(&self, label: &Label) -> Option<Holder>;
    /// A document under a key.
    fn document(&self, kind: DocumentKind, key: &Key) -> Option<Document>;
    /// The documents of a kind that name a holder or an organisation as their owner.
    fn documents_of(&self, kind: DocumentKind, owner: &Label) -> Vec<(Key, Document)>;
    /// The grant with an id.
    fn grant(&self, id: &Key) -> Option<Grant>;
    /// A counter's value on a day.
    fn counter(&self, key: &Key, day: u32) -> u32;
    /// The entry that bound an idempotency key.
    fn idempotency(&self, key: &Key) -> Option<Bound>;
    /// The epoch that goes on.
    fn epoch(&self) -> u32;
    /// The version of a fact now.
    fn version(&self, fact: &Fact) -> u32;
}

impl Source for Ledger {
    fn keyed(&self) -> &KeyedHash {
        Self::keyed(self)
    }

    fn time_ms(&self) -> u64 {
        self.state().time_ms()
    }

    fn license(&self, key: &Key) -> Option<License> {
        self.state().license(key)
    }

    fn number_tag(&self, key: &Key) -> Option<(u64, u32)> {
        self.state().number_tag(key)
    }

    fn no_license(&self) -> License {
        self.state().no_license()
    }

    fn licenses_of(&self, label: &Label) -> Vec<Key> {
        self.state().licenses_of(label)
    }

    fn holder(&self, key: &Key) -> Option<Holder> {
        self.state().holder(key)
    }

    fn holder_by_label(&self, label: &Label) -> Option<Holder> {
        self.state().holder_by_label(label)
    }

    fn document(&self, kind: DocumentKind, key: &Key) -> Option<Document> {
        self.state().document(kind, key)
    }

    fn documents_of(&self, kind: DocumentKind, owner: &Label) -> Vec<(Key, Document)> {
        self.state().documents_of(kind, owner, None, usize::MAX)
    }

    fn grant(&self, id: &Key) -> Option<Grant> {
        self.state().grant(id)
    }

    fn counter(&self, key: &Key, day: u32) -> u32 {
        self.state().counter(key, day)
    }

    fn idempotency(&self, key: &Key) -> Option<Bound> {
        self.state().idempotency(key)
    }

    fn epoch(&self) -> u32 {
        self.state().epoch()
    }

    fn version(&self, fact: &Fact) -> u32 {
        self.state().version(fact)
    }
}

/// State that a test writes down.
#[cfg(test)]
pub(crate) struct Table {
    pub(crate) keyed: KeyedHash,
    pub(crate) licenses: HashMap<Key, License>,
    pub(crate) holders: HashMap<Key, Holder>,
    pub(crate) documents: HashMap<(u8, Key), Document>,
    pub(crate) grants: HashMap<Key, Grant>,
    pub(crate) counters: HashMap<(Key, u32), u32>,
}

#[cfg(test)]
impl Default for Table {
    fn default() -> Self {
        Self {
            keyed: KeyedHash::new(&[7; 32]),
            licenses: HashMap::new(),
            holders: HashMap::new(),
            documents: HashMap::new(),
            grants: HashMap::new(),
            counters: HashMap::new(),
        }
    }
}

#[cfg(test)]
impl Source for Table {
    fn keyed(&self) -> &KeyedHash {
        &self.keyed
    }

    fn time_ms(&self) -> u64 {
        0
    }

    fn license(&self, key: &Key) -> Option<License> {
        self.licenses.get(key).cloned()
    }

    fn number_tag(&self, key: &Key) -> Option<(u64, u32)> {
        self.licenses.get(key).map(|license| (license.number_tag, license.version))
    }

    fn no_license(&self) -> License {
        unreachable!("denials are not levelled here")
    }

    fn licenses_of(&self, label: &Label) -> Vec<Key> {
        let all = self.licenses.iter().filter(|(_, license)| license.holders.contains(label));
        all.map(|(key, _)| *key).collect()
    }

    fn holder(&self, key: &Key) -> Option<Holder> {
        self.holders.get(key).cloned()
    }

    fn holder_by_label(&self, label: &Label) -> Option<Holder> {
        self.holders.values().find(|holder| holder.label == *label).cloned()
    }

    fn document(&self, kind: DocumentKind, key: &Key) -> Option<Document> {
        self.documents.get(&(kind.number(), *key)).cloned()
    }

    fn documents_of(&self, kind: DocumentKind, _owner: &Label) -> Vec<(Key, Document)> {
        let all = self.documents.iter().filter(|((number, _), _)| *number == kind.number());
        all.map(|((_, key), document)| (*key, document.clone())).collect()
    }

    fn grant(&self, id: &Key) -> Option<Grant> {
        self.grants.get(id).cloned()
    }

    fn counter(&self, key: &Key, day: u32) -> u32 {
        self.counters.get(&(*key, day)).copied().unwrap_or_default()
    }

    fn idempotency(&self, _key: &Key) -> Option<Bound> {
        None
    }

    fn epoch(&self) -> u32 {
        1
    }

    fn version(&self, fact: &Fact) -> u32 {
        match fact {
            Fact::Document(kind, key) => self.document(*kind, key).map_or(0, |document| document.version),
            Fact::License(_)
            | Fact::Grant(_)
            | Fact::Holder(_)
            | Fact::Licenses(_)
            | Fact::Idempotency(_)
            | Fact::Epoch => 0,
        }
    }
}
