//! `exchange log verify`.
//!
//! An operator runs it, beside a serving exchange too. It writes nothing of the log, so a crash leaves nothing.

use crate::opening;
use indicatif::ProgressBar;
use ledger::{ImageFound, LogReport, OpenError};
use serde_json::json;
use verifier::command::{self, EXIT_CANNOT_TELL, EXIT_DONE, EXIT_NO};

use super::Place;

/// Checks the journal, and what is derived from it, reading only.
pub fn run(place: &Place, json: bool) -> anyhow::Result<u8> {
    let config = place.load()?;
    let keys = opening::ledger_keys(&opening::key_folder(&config)?)?;
    let bar = ProgressBar::new_spinner();
    let report = ledger::verify_log(opening::ledger_options(&config), keys, |entries| {
        bar.set_message(format!("{entries} entries"));
        bar.tick();
    });
    bar.finish_and_clear();
    match report {
        Ok(report) => Ok(tell(&report, json)),
        Err(error @ OpenError::Options(_)) => Err(error.into()),
        Err(error) => {
            let (verdict, word, status) = match &error {
                // The keys may be the wrong ones, a segment may be in an archive that is away, a disk may be busy.
                OpenError::Keys(_) | OpenError::Missing { .. } | OpenError::Io { .. } | OpenError::Locked => {
                    ("unknown", "cannot be told", EXIT_CANNOT_TELL)
                }
                _ => ("invalid", "bad", EXIT_NO),
            };
            if json {
                command::line(json!({"verdict": verdict, "problem": error.to_string()}));
            } else {
                command::line(format_args!("log {word}: {error}"));
            }
            Ok(status)
        }
    }
}

/// Prints a report on a journal whose frames are all good, and gives the exit status.
fn tell(report: &LogReport, json: bool) -> u8 {
    let (verdict, word, status) = if !report.problems.is_empty() {
        ("invalid", "good, what is derived from it bad", EXIT_NO)
    } else if !report.not_looked_at.is_empty() {
        ("unknown", "good, not all that is derived from it looked at", EXIT_CANNOT_TELL)
    } else {
        ("valid", "good", EXIT_DONE)
    };
    if json {
        command::line(json!({
            "verdict": verdict, "size": report.size, "root": hex::encode(report.root),
            "frames": report.frames, "segments": report.segments, "tornTail": report.torn_tail,
            "published": report.published, "stateDigest": hex::encode(report.state_digest),
            "loggedDigests": report.logged_digests, "indexRoots": report.index_roots,
            "tilesFrom": report.tiles_from,
            "snapshots": report.snapshots, "rowSegments": report.row_segments,
            "image": image_name(report.image), "problems": report.problems,
            "notLookedAt": report.not_looked_at,
        }));
        return status;
    }
    let torn = if report.torn_tail { "; an unfinished write at its end was never acknowledged" } else { "" };
    command::line(format_args!(
        "log {word}: {} entries in {} frames, root {}{torn}; image {}",
        report.size,
        report.frames,
        hex::encode(report.root),
        image_name(report.image),
    ));
    for problem in &report.problems {
        command::line(format_args!("problem: {problem}"));
    }
    for what in &report.not_looked_at {
        command::line(format_args!("not looked at: {what}"));
    }
    status
}

fn image_name(found: ImageFound) -> &'static str {
    match found {
        ImageFound::Absent => "absent",
        ImageFound::InUse => "in-use",
        ImageFound::NotLookedAt => "not-looked-at",
        ImageFound::Good => "good",
        ImageFound::Bad => "bad",
    }
}
