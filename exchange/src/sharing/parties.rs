//! The two organisations that a document of shared data is between, as it is found by them.
//!
//! A value within such documents: written with them, and a crash leaves what the last entry says.

use ledger::{KeyedHash, Label};
use schemas::identifier::Uscc;
use serde::{Deserialize, Serialize};

use crate::keyed::participant_key;

/// Keys of two organisations, as hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Parties([String; 2]);

impl Parties {
    /// The keys of these.
    pub(crate) fn new(keyed: &KeyedHash, one: &Uscc, other: &Uscc) -> Self {
        Self([one, other].map(|party| hex::encode(participant_key(keyed, party))))
    }

    /// The keys, each once.
    pub(crate) fn owners(&self) -> Vec<Label> {
        let mut owners: Vec<Label> = Vec::new();
        for party in &self.0 {
            let mut owner = [0; 16];
            if hex::decode_to_slice(party, &mut owner).is_ok() && !owners.contains(&owner) {
                owners.push(owner);
            }
        }
        owners
    }
}
