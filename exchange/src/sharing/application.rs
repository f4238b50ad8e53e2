//! An application (供需对接申请) of an organisation to use a resource for a service item, and the approval that it becomes. A document for
//! each resource, applicant and item.
//!
//! Written by the routes of applications, and once by the first query; a crash leaves what the last entry says.

use ledger::{DocumentKind, Key, KeyedHash, Label};
use schemas::identifier::Uscc;
use schemas::sharing::{ApplicationState, GrantRule, Running, Scope};
use serde::{Deserialize, Serialize};

use super::parties::Parties;
use super::resource::Step;
use crate::gateway::parsed::Kept;

/// An application as journaled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Application {
    /// Code of the resource.
    pub(crate) resource: String,
    /// The organisation that applies.
    pub(crate) applicant: Uscc,
    /// The organisation that answers.
    pub(crate) provider: Uscc,
    /// Code of the service item that it is for.
    pub(crate) item_code: String,
    /// Name of the item.
    pub(crate) item_name: String,
    /// The purpose, in words.
    pub(crate) purpose: String,
    /// The scope that is asked.
    pub(crate) asked: Scope,
    /// The scope that is allowed, once one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) terms: Option<Scope>,
    /// Where it stands.
    pub(crate) state: ApplicationState,
    /// An operator has to settle a dispute.
    #[serde(default)]
    pub(crate) disputed: bool,
    /// An operator countersigned it.
    #[serde(default)]
    pub(crate) countersigned: bool,
    /// The rule by which it was granted at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rule: Option<GrantRule>,
    /// When it was made, ms since 1970.
    pub(crate) made_ms: u64,
    /// When it was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) answered_ms: Option<u64>,
    /// When it was supplied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) provided_ms: Option<u64>,
    /// The clock that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) clock: Option<Running>,
    /// How it came to where it stands.
    pub(crate) history: Vec<Step>,
    /// Keys of the two organisations, as hex: it is found by them.
    pub(crate) parties: Parties,
}

impl Application {
    /// When it was supplied or refused, ms since 1970.
    pub(crate) fn settled_ms(&self) -> Option<u64> {
        let refused = self.state == ApplicationState::Refused;
        self.provided_ms.or(self.answered_ms.filter(|_| refused))
    }
}

impl Kept for Application {
    const KIND: DocumentKind = DocumentKind::Application;

    fn owners(&self) -> Vec<Label> {
        self.parties.owners()
    }
}

/// Key of an application's document.
pub(crate) fn application_key(keyed: &KeyedHash, resource: &str, applicant: &Uscc, item_code: &str) -> Key {
    keyed.key("application", &[resource.as_bytes(), applicant.as_bytes(), item_code.as_bytes()])
}
