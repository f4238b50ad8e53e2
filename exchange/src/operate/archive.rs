//! `exchange archive`.
//!
//! An operator runs it, beside a serving exchange too. `ledger/src/start/archive.rs` says what a crash leaves.

use crate::opening;
use verifier::command;

use super::Place;

/// Moves closed segments to the archive folder.
pub fn run(place: &Place, before: u32, json: bool) -> anyhow::Result<()> {
    let config = place.load()?;
    let keys = opening::ledger_keys(&opening::key_folder(&config)?)?;
    let done = ledger::archive(&opening::ledger_options(&config), &keys, before)?;
    if json {
        command::line(serde_json::json!({"segments": done.segments, "bytes": done.bytes}));
    } else {
        command::line(format_args!("archived {} segments, {} bytes", done.segments, done.bytes));
    }
    Ok(())
}
