//! `exchange application`: applications for shared resources, and the steps of both sides and of the operator.
//!
//! Participants run it. A step that a crash cut off is in the log or not at all.

use std::path::Path;

use schemas::routes::Route;
use schemas::sharing::ApplicationAction;
use serde_json::json;

use super::{Caller, json_file, lists};

/// Applies for a resource.
///
/// # Errors
/// Like [`Caller::send`].
pub fn make(file: &Path, applicant: &Caller) -> anyhow::Result<u8> {
    applicant.send_as(applicant.named()?, Route::ApplicationMake, &json_file(file)?)
}

/// Takes a step, with what belongs to it: a ground and its basis, or a note.
///
/// # Errors
/// Like [`Caller::send`].
pub fn step(
    application: &str,
    action: ApplicationAction,
    details: &[(&str, Option<String>)],
    caller: &Caller,
) -> anyhow::Result<u8> {
    let mut body = json!({"application": application, "action": action});
    for (name, detail) in details {
        if let Some(detail) = detail {
            body[*name] = detail.as_str().into();
        }
    }
    caller.send_as(caller.named()?, Route::ApplicationTransition, &body)
}

/// The provider agrees, to all that was asked or to the terms of a file.
///
/// # Errors
/// Like [`Caller::send`].
pub fn approve(application: &str, terms: Option<&Path>, provider: &Caller) -> anyhow::Result<u8> {
    let mut body = json!({"application": application, "action": ApplicationAction::Approve});
    if let Some(terms) = terms {
        body["terms"] = json_file(terms)?;
    }
    provider.send_as(provider.named()?, Route::ApplicationTransition, &body)
}

/// Prints applications with their clocks, one a line.
///
/// # Errors
/// Like [`lists::all`].
pub fn list(
    overdue: bool,
    due_within: Option<u16>,
    state: Option<&str>,
    caller: &Caller,
) -> anyhow::Result<()> {
    let mut filters = json!({"overdue": overdue});
    if let Some(days) = due_within {
        filters["dueWithin"] = days.into();
    }
    if let Some(state) = state {
        filters["state"] = state.into();
    }
    lists::printed(Route::ApplicationList, "applications", filters, caller, caller.named()?)
}
