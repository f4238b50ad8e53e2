//! `exchange init`.
//!
//! An operator runs it on a folder that nobody serves. The next run completes what a crash cut off.

use std::path::{Path, PathBuf};

use crate::{init, succession};
use certs::trust::Authority;
use verifier::command::line;

use super::{Sure, runtime, say_missing_tls};

/// Makes a data folder without development keys.
///
/// # Errors
/// A file cannot be read, or the folder cannot be made.
pub fn production(
    data: &Path,
    origin: &str,
    operators: &[PathBuf],
    delay_days_max: u16,
    authority: Option<(&Path, Option<&str>)>,
) -> anyhow::Result<()> {
    let authority = authority.map(|(key, name)| {
        let name = name.map_or_else(|| format!("{origin}/trust"), str::to_owned);
        Authority::from_file(&name, key)
    });
    let made = init::production(data, origin, operators, delay_days_max, authority.transpose()?);
    let config = runtime()?.block_on(made)?;
    line(format_args!("made {} with log {}", data.display(), config.origin));
    say_missing_tls(&config, "still to be put there");
    line("next: exchange/docs/guides/production.md, from its step 4 on");
    Ok(())
}

/// Makes a data folder whose log continues another one.
pub fn successor(
    data: &Path,
    old: &Path,
    lost: bool,
    authority_key: Option<&Path>,
    sure: &Sure,
) -> anyhow::Result<()> {
    if lost {
        sure.of(&format!("The log in {} is given up as lost, and its successor begins", old.display()))?;
    }
    let config = runtime()?.block_on(succession::open_successor(data, old, lost, authority_key))?;
    line(format_args!(
        "made {} with log {}, which continues the log in {}",
        data.display(),
        config.origin,
        old.display()
    ));
    say_missing_tls(&config, "still to be put there");
    line("next: exchange/docs/operations/close-a-log.md, from step 3 on");
    Ok(())
}
