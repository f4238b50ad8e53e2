//! `exchange log close`.
//!
//! An operator runs it on a log that nobody serves. Closing again completes what a crash cut off.

use crate::succession;
use verifier::command;

use super::{Place, Sure, runtime};

/// Closes a log for good, and prints its last checkpoint.
pub fn run(place: &Place, accept_clock: bool, sure: &Sure) -> anyhow::Result<()> {
    let mut config = place.load()?;
    config.accept_clock = accept_clock;
    sure.of(&format!("The log {} takes no entry any more from here on", config.origin))?;
    command::print(runtime()?.block_on(succession::close(&config))?);
    Ok(())
}
