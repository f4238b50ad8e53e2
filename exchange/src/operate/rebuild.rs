//! `exchange rebuild`.
//!
//! An operator runs it on a folder that nobody serves. A crash leaves a part of an image, which the next start makes
//! anew.

use crate::opening;
use indicatif::ProgressBar;
use ledger::RebuildFrom;
use verifier::command;

use super::Place;

/// Makes the restart image anew.
pub fn run(place: &Place, from_zero: bool, accept_clock: bool, json: bool) -> anyhow::Result<()> {
    let mut config = place.load()?;
    config.accept_clock = accept_clock;
    let keys = opening::ledger_keys(&opening::key_folder(&config)?)?;
    let from = if from_zero { RebuildFrom::Zero } else { RebuildFrom::Snapshot };
    let bar = ProgressBar::new_spinner();
    let report = ledger::rebuild(opening::ledger_options(&config), keys, from, &|entries| {
        bar.set_message(format!("{entries} entries"));
        bar.tick();
    });
    bar.finish_and_clear();
    let report = report?;
    let digest = hex::encode(report.state_digest);
    if json {
        command::line(serde_json::json!({
            "size": report.size, "replayed": report.replayed, "snapshot": report.from_snapshot,
            "stateDigest": digest,
        }));
    } else {
        let from =
            report.from_snapshot.map_or("the first entry".to_owned(), |size| format!("snapshot {size}"));
        command::line(format_args!("rebuilt {} entries from {from}, state digest {digest}", report.size));
    }
    Ok(())
}
