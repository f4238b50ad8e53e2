//! `exchange feed`, `exchange compare` and `exchange mismatch list`: hosted rows for who follows them, and against licenses.
//!
//! Participants run them. A feed that was cut off goes on behind the last page whose cursor is in the file: rows of the page after it are
//! printed once more.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use client::RecordsFeed;
use schemas::routes::Route;
use serde_json::{Value, json};
use verifier::command::{self, EXIT_DONE};

use super::{Caller, json_file, lists, runtime};
use crate::calling;
use crate::exit::Exit;
use crate::files;

/// Prints the rows and removals of a feed, one a line, from where the cursor file says, and writes that anew behind each page.
///
/// # Errors
/// The exchange cannot be reached or refuses, or a file cannot be read or written.
pub fn follow(file: &Path, cursor: &Path, caller: &Caller) -> anyhow::Result<u8> {
    let mut request: RecordsFeed = serde_json::from_value(json_file(file)?)
        .map_err(|error| Exit::usage(format_args!("{}: {error}", file.display())))?;
    let cursor = std::path::absolute(cursor)?;
    match fs::read_to_string(&cursor) {
        Ok(after) => request.after = Some(after.trim_end().to_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(Exit::usage(format_args!("{}: {error}", cursor.display()))),
    }
    let request = serde_json::to_value(&request)?;
    runtime()?.block_on(async {
        let client = caller.connect(caller.named()?).await?;
        let mut request = request;
        loop {
            let page =
                client.call::<Value>(Route::RecordsFeed, &request).await.map_err(calling::ended)?.value;
            let (Some(changes), Some(next)) = (page["changes"].as_array(), page["next"].as_str()) else {
                anyhow::bail!("the answer is no page of a feed");
            };
            for change in changes {
                command::line(change);
            }
            files::write_new(&cursor, &format!("{next}\n"))?;
            if page["more"] != true {
                return Ok(EXIT_DONE);
            }
            request["after"] = next.into();
        }
    })
}

/// Compares a license with its row of a base resource, and prints the answer.
///
/// # Errors
/// Like [`Caller::send`].
pub fn compare(resource: &str, license: &str, reason: &str, caller: &Caller) -> anyhow::Result<u8> {
    let body = json!({"resource": resource, "license": license, "reason": reason});
    caller.send_as(caller.named()?, Route::RecordsCompare, &body)
}

/// Prints licenses and base resources that disagree, one a line.
///
/// # Errors
/// Like [`lists::all`].
pub fn mismatches(state: Option<&str>, caller: &Caller) -> anyhow::Result<()> {
    let filters = state.map_or_else(|| json!({}), |state| json!({"state": state}));
    lists::printed(Route::RecordsMismatches, "mismatches", filters, caller, caller.named()?)
}
