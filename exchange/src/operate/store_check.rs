//! The hidden command that opens a restart image in a process of its own ([`crate::probe`]).
//!
//! A start and `log verify` run it while nobody serves the folder. Its crash costs at most the image, and replay takes its place.

use std::path::Path;

use anyhow::Context as _;

/// Opens and reads the restart image.
pub fn run(data: &Path, engine: &str, origin: &str) -> anyhow::Result<()> {
    let known = ledger::Engine::ALL.into_iter().find(|known| known.name() == engine);
    Ok(ledger::check_store(data, known.context("there is no such engine")?, origin)?)
}
