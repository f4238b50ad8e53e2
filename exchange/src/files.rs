//! Reads the files that a configuration or a command line names, and writes files whole.
//!
//! Any command may call it. A crash leaves the file as it was, and a `.new` beside it that the next write replaces.

use std::path::Path;

use anyhow::Context as _;
use zeroize::Zeroizing;

use crate::exit::{Exit, as_usage};

/// Reads a private key in PEM, which must be its owner's alone.
///
/// # Errors
/// [`Exit`] with [`crate::exit::EXIT_USAGE`]
pub fn read_key(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let bytes = certs::file::read_private("TLS key", path).map_err(as_usage)?;
    let text = std::str::from_utf8(&bytes)
        .map_err(|_| Exit::usage(format_args!("{}: not UTF-8", path.display())))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Reads a file that the configuration or the command line names. One with a byte order mark is refused, because not every
/// reader would see what is behind it.
///
/// # Errors
/// [`Exit`] with [`crate::exit::EXIT_USAGE`]
pub fn read(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Exit::usage(format_args!("{}: {error}", path.display())))?;
    match text.lines().position(|line| line.contains('\u{feff}')) {
        Some(at) => {
            let (path, line) = (path.display(), at + 1);
            let why = "holds a byte order mark (U+FEFF): save the file as UTF-8 without one";
            Err(Exit::usage(format_args!("{path}: line {line}: {why}")))
        }
        None => Ok(text),
    }
}

/// Writes a file whole or not at all.
///
/// # Errors
/// It cannot be written.
pub fn write_new(path: &Path, text: &str) -> anyhow::Result<()> {
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, text).with_context(|| temporary.display().to_string())?;
    std::fs::File::open(&temporary)?.sync_all()?;
    std::fs::rename(&temporary, path)?;
    if let Some(folder) = path.parent() {
        std::fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}
