//! `exchange calendar`: the working days of a year, which two operators bring in.
//!
//! An operator runs it. A proposal that a crash cut off is in the log or not at all.

use std::path::Path;

use serde_json::json;

use super::{Caller, json_file, propose};

/// Proposes the calendar of a year.
///
/// # Errors
/// Like [`Caller::send`].
pub fn add(file: &Path, reason: &str, operator: &Caller) -> anyhow::Result<u8> {
    let body = json!({"kind": "publish-calendar", "calendar": json_file(file)?, "reason": reason});
    propose::send(&body, operator)
}
