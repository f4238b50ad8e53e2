//! `exchange item`: lists of items and their materials, the question which need not be handed in, and the reports of approval systems.
//!
//! Participants run it. A step that a crash cut off is in the log or not at all.

use std::path::Path;

use schemas::routes::Route;
use serde_json::{Value, json};

use super::{Caller, json_file, lists};

/// Prints a list, one row a line.
///
/// # Errors
/// Like [`lists::all`].
pub fn list(list: &str, item: Option<&str>, review: bool, caller: &Caller) -> anyhow::Result<()> {
    let mut filters = json!({"list": list});
    if let Some(item) = item {
        filters["item"] = item.into();
    }
    if review {
        filters["review"] = true.into();
    }
    lists::printed(Route::ItemsSearch, list, filters, caller, "operator")
}

/// Prints the fields that are no data element, and the data elements that no resource uses: a page of each.
///
/// # Errors
/// Like [`Caller::send`].
pub fn orphans(caller: &Caller) -> anyhow::Result<u8> {
    let body = json!({"list": "elements", "orphans": true});
    caller.send_as("operator", Route::ItemsSearch, &body)
}

/// Asks, keeps or reports what a file says, and prints the answer.
///
/// # Errors
/// Like [`Caller::send`].
pub fn send(route: Route, file: &Path, caller: &Caller) -> anyhow::Result<u8> {
    let body: Value = json_file(file)?;
    caller.send_as(caller.named()?, route, &body)
}
