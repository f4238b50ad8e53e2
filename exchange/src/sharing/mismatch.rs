//! A mismatch (比对不一致): a license and a row of a base resource that say different things of the same. A document for each license and
//! resource.
//!
//! Comparisons alone write it. A crash leaves what the last entry says.

use ledger::{DocumentKind, Key, KeyedHash, Label};
use schemas::identifier::Uscc;
use schemas::sharing::MismatchState;
use serde::{Deserialize, Serialize};

use super::parties::Parties;
use crate::gateway::parsed::Kept;

/// A mismatch as journaled: nothing of the values, and the license by its keyed hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Mismatch {
    /// Code of the resource.
    pub(crate) resource: String,
    /// Key of the license, as hex.
    pub(crate) license: String,
    /// The authority that issued it.
    pub(crate) issuer: Uscc,
    /// The organisation that provides the resource.
    pub(crate) provider: Uscc,
    /// Fields of the resource that differed when they were last compared.
    pub(crate) fields: Vec<String>,
    /// Where it stands.
    pub(crate) state: MismatchState,
    /// When it was found, ms since 1970.
    pub(crate) found_ms: u64,
    /// When it was last compared.
    pub(crate) compared_ms: u64,
    /// Keys of the two organisations, as hex: it is found by them.
    pub(crate) parties: Parties,
}

impl Mismatch {
    /// Key of the license.
    pub(crate) fn license_key(&self) -> Option<Key> {
        let mut key = [0; 16];
        hex::decode_to_slice(&self.license, &mut key).ok().map(|()| key)
    }
}

impl Kept for Mismatch {
    const KIND: DocumentKind = DocumentKind::Mismatch;

    fn owners(&self) -> Vec<Label> {
        self.parties.owners()
    }
}

/// Key of a mismatch's document.
pub(crate) fn mismatch_key(keyed: &KeyedHash, resource: &str, license: &Key) -> Key {
    keyed.key("mismatch", &[resource.as_bytes(), license])
}
