//! `exchange resource`: what a provider writes into the catalogue, and the catalogue.
//!
//! A provider runs it, anyone lists. A step that a crash cut off is in the log or not at all.

use std::path::Path;

use schemas::routes::Route;
use schemas::sharing::ResourceAction;
use serde_json::{Value, json};

use super::{Caller, json_file, lists};

/// The participant whose certificate is taken unless told.
const PROVIDER: &str = "provider";

/// Writes a definition.
///
/// # Errors
/// Like [`Caller::send`].
pub fn write(file: &Path, provider: &Caller) -> anyhow::Result<u8> {
    provider.send_as(PROVIDER, Route::ResourceWrite, &json!({"resource": json_file(file)?}))
}

/// Takes a step of a resource's life.
///
/// # Errors
/// Like [`Caller::send`].
pub fn step(code: &str, action: ResourceAction, reason: &str, provider: &Caller) -> anyhow::Result<u8> {
    let body = json!({"resource": code, "action": action, "reason": reason});
    provider.send_as(PROVIDER, Route::ResourceTransition, &body)
}

/// Prints the resources of the catalogue, one a line.
///
/// # Errors
/// Like [`lists::all`].
pub fn list(words: Option<&str>, domain: Option<&str>, caller: &Caller) -> anyhow::Result<()> {
    let filters = [("words", words), ("domain", domain)];
    let filters = filters.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into())));
    let filters = Value::Object(filters.collect());
    lists::printed(Route::ResourceSearch, "resources", filters, caller, PROVIDER)
}
