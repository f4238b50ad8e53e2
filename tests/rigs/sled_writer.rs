//! The program that the power cut's control runs: it acknowledges on sled's own flush, as many programs do.

use std::io::Write as _;
use std::path::Path;

/// Puts records into sled and prints the number of each when its flush has returned; ends when it is killed or
/// something fails.
pub(crate) fn write(folder: &Path) -> anyhow::Result<()> {
    // Without the flush of its own that it does twice a second: what is told is what `flush` is worth.
    let store = sled::Config::new().path(folder).flush_every_ms(None).open()?;
    let mut out = std::io::stdout().lock();
    for number in 0_u64.. {
        store.insert(number.to_be_bytes(), &[7; 200][..])?;
        store.flush()?;
        writeln!(out, "{number}")?;
    }
    Ok(())
}

/// Records that are there without a gap. A store that cannot be opened has none.
pub(crate) fn count(folder: &Path) -> u64 {
    let Ok(store) = sled::open(folder) else { return 0 };
    (0_u64..).take_while(|number| store.get(number.to_be_bytes()).is_ok_and(|value| value.is_some())).count()
        as u64
}
