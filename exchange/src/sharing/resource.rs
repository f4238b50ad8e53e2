//! A resource in the catalogue: its definition, its state and how it came to it. A document per resource.
//!
//! Written by the routes of resources alone; a crash leaves what the last entry says.

use ledger::{DocumentKind, Key, KeyedHash, Label};
use schemas::identifier::Uscc;
use schemas::resource::Resource;
use schemas::sharing::ResourceState;
use serde::{Deserialize, Serialize};

use crate::gateway::parsed::Kept;

/// Most steps of a history that are kept: the journal has all.
const MAX_STEPS: usize = 64;

/// A step of a life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Step {
    /// When, ms since 1970.
    pub(crate) at_ms: u64,
    /// By which organisation.
    pub(crate) by: Uscc,
    /// The deed.
    pub(crate) action: String,
    /// Words beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

/// Adds a step; of a long history the middle goes first, for its start and its end are asked for.
pub(crate) fn add_step(history: &mut Vec<Step>, step: Step) {
    if history.len() >= MAX_STEPS {
        history.remove(1);
    }
    history.push(step);
}

/// A resource as journaled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Listed {
    /// The definition.
    pub(crate) resource: Resource,
    /// Its provider.
    pub(crate) provider: Uscc,
    /// Its state.
    pub(crate) state: ResourceState,
    /// How it came to it.
    pub(crate) history: Vec<Step>,
    /// The label under whose key its rows lie, as hex, once there may be rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) label: Option<String>,
}

impl Listed {
    /// The label under whose key its rows lie.
    pub(crate) fn rows_label(&self) -> Option<Label> {
        let mut label = [0; 16];
        hex::decode_to_slice(self.label.as_deref()?, &mut label).ok().map(|()| label)
    }
}

impl Kept for Listed {
    const KIND: DocumentKind = DocumentKind::Resource;
}

/// Key of a resource's document.
pub(crate) fn resource_key(keyed: &KeyedHash, code: &str) -> Key {
    keyed.key("resource", &[code.as_bytes()])
}
