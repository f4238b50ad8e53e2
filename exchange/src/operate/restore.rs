//! `exchange restore`.
//!
//! An operator runs it; the backup is only read. A crash leaves a begun folder, which the same command completes.

use std::path::Path;

use crate::config::Config;
use crate::exit::Exit;
use crate::place::{self, FENCE};
use crate::succession::{self, Ended};
use certs::layout::CONFIG;
use verifier::command::line;

use super::{runtime, say_missing_tls};

/// Makes a data folder from a backup. Its log is a successor: what the old one took after the copy nobody here knows, and
/// its key must not sign anything else in that place.
pub fn run(from: &Path, data: &Path, kek: &Path, authority_key: Option<&Path>) -> anyhow::Result<()> {
    if !place::is_fenced(from) {
        return Err(Exit::usage(format_args!(
            "{} is no backup: it has no {FENCE}. A folder that was moved is served with `exchange serve --moved`",
            from.display()
        )));
    }
    let old = Config::load_fenced(&from.join(CONFIG))?;
    let (size, root) = place::end_of_backup(from)?;
    let ended = Ended::Copied { size, root };
    let made = runtime()?.block_on(succession::successor_of(&old, kek, data, ended, authority_key));
    let (config, tail) = made?;
    line(format_args!(
        "made {} with log {}, the successor of {} at size {}",
        data.display(),
        config.origin,
        old.origin,
        tail.size
    ));
    line(
        "not known: entries that the old log took after the copy. Receipts given for them stay true and are not contradicted; \
         their licenses, grants and changes are not here",
    );
    say_missing_tls(&config, "still to be put there");
    line(format_args!(
        "next: exchange/docs/operations/close-a-log.md, from step 3 on; {} stays as what is known of the old log",
        from.display()
    ));
    Ok(())
}
