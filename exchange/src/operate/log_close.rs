//! `exchange log close`.

use crate::succession;
use verifier::command;

use super::{Place, Sure, runtime};

/// Closes a log for good, and prints its last checkpoint.
pub fn run(place: &Place, sure: &Sure) -> anyhow::Result<()> {
    let config = place.load()?;
    sure.of(&format!("The log {} takes no entry any more from here on", config.origin))?;
    command::print(runtime()?.block_on(succession::close(&config))?);
    Ok(())
}
