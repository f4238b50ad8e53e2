//! `exchange propose`, `exchange approve`, `exchange keys`.
//!
//! An operator runs them with a certificate of the role. After a crash the log says whether the call was decided.

use std::path::Path;

use schemas::routes::Route;
use serde_json::{Value, json};

use super::{Caller, json_file};
use crate::files;

/// Proposes what a file says.
pub fn file(file: &Path, operator: &Caller) -> anyhow::Result<u8> {
    send(&json_file(file)?, operator)
}

/// Proposes a change of epoch.
pub fn rotation(reason: &str, operator: &Caller) -> anyhow::Result<u8> {
    send(&json!({"kind": "rotate-epoch", "reason": reason}), operator)
}

/// Proposes anything.
///
/// # Errors
/// Like [`Caller::send`].
pub(super) fn send(proposal: &Value, operator: &Caller) -> anyhow::Result<u8> {
    operator.send(Route::Propose, proposal)
}

/// Approves a proposal, with the registration, the definition, the calendar or the policies that it is of.
///
/// # Errors
/// Like [`Caller::send`].
pub fn approve(
    proposal: &str,
    participant: Option<&Path>,
    license_type: Option<&Path>,
    calendar: Option<&Path>,
    policies: Option<&Path>,
    operator: &Caller,
) -> anyhow::Result<u8> {
    let mut body = json!({"proposal": proposal});
    for (member, file) in
        [("participant", participant), ("licenseType", license_type), ("calendar", calendar)]
    {
        if let Some(file) = file {
            body[member] = json_file(file)?;
        }
    }
    if let Some(file) = policies {
        body["policies"] = files::read(file)?.into();
    }
    operator.send(Route::Approve, &body)
}
