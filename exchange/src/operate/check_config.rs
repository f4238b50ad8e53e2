//! `exchange check-config`.
//!
//! An operator runs it. It only reads, so a crash leaves nothing.

use crate::exit::{self, Exit};
use crate::opening;
use crate::reload;
use verifier::command;

use super::Place;

/// Checks the configuration and everything that it names, and says what was read and when it ends.
pub fn run(place: &Place) -> anyhow::Result<()> {
    let mut config = place.load()?;
    let keys = opening::ledger_keys(&opening::key_folder(&config)?)?;
    if keys.epochs.load(ledger::EpochFile::Current)?.is_none() {
        let message = "the epoch's key file in keys is missing".to_owned();
        return Err(Exit { status: exit::EXIT_DATA, message }.into());
    }
    // Whether development keys may be served is for `serve` to say.
    config.development = true;
    let found = reload::report(&config)?;
    command::line(config.to_toml());
    for line in found {
        command::line(format_args!("# {line}"));
    }
    command::line("# good: configuration, keys, trust bundle and certificates");
    Ok(())
}
