//! `exchange init`.

use std::path::{Path, PathBuf};

use crate::{init, succession};
use verifier::command::line;

use super::{Sure, runtime};

/// Makes a data folder without development keys.
pub fn production(
    data: &Path,
    origin: &str,
    operators: &[PathBuf],
    delay_days_max: u16,
) -> anyhow::Result<()> {
    let config = runtime()?.block_on(init::production(data, origin, operators, delay_days_max))?;
    line(format_args!("made {} with log {}", data.display(), config.origin));
    line(
        "next: put the server certificate, its key and the client authorities where config.toml names them, then `exchange serve`",
    );
    Ok(())
}

/// Makes a data folder whose log continues another one.
pub fn successor(data: &Path, old: &Path, lost: bool, sure: &Sure) -> anyhow::Result<()> {
    if lost {
        sure.of(&format!("The log in {} is given up as lost, and its successor begins", old.display()))?;
    }
    let config = runtime()?.block_on(succession::open_successor(data, old, lost))?;
    line(format_args!(
        "made {} with log {}, which continues the log in {}",
        data.display(),
        config.origin,
        old.display()
    ));
    line("next: exchange/docs/operations/close-a-log.md, from step 3 on");
    Ok(())
}
