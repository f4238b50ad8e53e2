//! Documents of journaled state, parsed once for each version: the register and the license types, which nearly every request
//! reads.
//!
//! Cases fill and read it. It is a cache of the state: a crash leaves nothing, and it fills again.

use std::hash::Hash;
use std::sync::Arc;

use dashmap::DashMap;
use ledger::{DocumentKind, Key, KeyedHash, Label};
use rustc_hash::FxBuildHasher;
use schemas::license_type::LicenseType;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::source::Source;

/// A document of journaled state, as JSON.
pub trait Kept: Serialize + DeserializeOwned {
    /// Its kind.
    const KIND: DocumentKind;

    /// Whom it belongs to, each once: labels of holders, or keyed hashes. It is found by each of them.
    fn owners(&self) -> Vec<Label> {
        Vec::new()
    }

    /// From this moment of journal time on it is gone, ms since 1970; 0 = it stays.
    fn ends_ms(&self) -> u64 {
        0
    }
}

impl Kept for LicenseType {
    const KIND: DocumentKind = DocumentKind::LicenseType;
}

/// Parsed documents of one ledger's journaled state, each valid for one fact version, by what they are about. Only what
/// has a document stands here, so nobody can fill it by asking.
pub struct Documents<I, T> {
    parsed: DashMap<I, Parsed<T>, FxBuildHasher>,
}

/// A document, and the key that was computed to find it: each use needs two of these keys.
struct Parsed<T> {
    key: Key,
    version: u32,
    document: Arc<T>,
}

impl<T> Clone for Parsed<T> {
    fn clone(&self) -> Self {
        Self { key: self.key, version: self.version, document: Arc::clone(&self.document) }
    }
}

impl<I: Copy + Eq + Hash, T: Kept> Default for Documents<I, T> {
    fn default() -> Self {
        Self { parsed: DashMap::default() }
    }
}

impl<I: Copy + Eq + Hash, T: Kept> Documents<I, T> {
    /// The document about something, which `key_of` gives the key of, with key and fact version; version 0 and `None`
    /// where there is none.
    pub fn get(
        &self,
        source: &dyn Source,
        about: &I,
        key_of: impl FnOnce(&KeyedHash, &I) -> Key,
    ) -> (Key, u32, Option<Arc<T>>) {
        let cached = self.parsed.get(about).map(|cached| cached.clone());
        let key = cached.as_ref().map_or_else(|| key_of(source.keyed(), about), |cached| cached.key);
        let Some(found) = source.document(T::KIND, &key) else { return (key, 0, None) };
        let version = found.version;
        if let Some(cached) = cached.filter(|cached| cached.version == version) {
            return (key, version, Some(cached.document));
        }
        // The gateway wrote these bytes itself; bytes that do not parse are a fault, and the caller denies.
        let Ok(document) = serde_json::from_slice::<T>(&found.value) else {
            tracing::error!(kind = ?T::KIND, "a journaled document cannot be read");
            return (key, version, None);
        };
        let document = Arc::new(document);
        self.parsed.insert(*about, Parsed { key, version, document: Arc::clone(&document) });
        (key, version, Some(document))
    }
}
