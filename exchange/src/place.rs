//! Whether a data folder may be served where it lies: a backup never, a copy only when its original is gone.
//!
//! A log's key signs one history. Two folders with one key, served one after the other, sign two. Nothing in the bytes of
//! a copy tells it from its original, so `journal/place` holds what no copy takes along: the inode of the journal's folder
//! and the moment it was made. A copy of the whole disk or machine takes both along and is not told.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::Context as _;
use certs::file;

use crate::app::{EXIT_DATA, Exit};
use crate::config::Config;

pub use certs::layout::FENCE;

fn path(config: &Config) -> PathBuf {
    config.folder.join("journal/place")
}

/// What stands in the file for the journal's folder as it is now.
fn found(config: &Config) -> anyhow::Result<String> {
    let folder = config.folder.join("journal");
    let metadata = fs::metadata(&folder).with_context(|| folder.display().to_string())?;
    let made = metadata.created().ok().and_then(|made| made.duration_since(UNIX_EPOCH).ok());
    let made = made.map_or_else(|| "unknown".to_owned(), |made| made.as_nanos().to_string());
    Ok(format!("inode {} made {made}\n", metadata.ino()))
}

/// Whether two descriptions are of one folder. A file system that does not keep when a folder was made is believed by its
/// inode alone.
fn is_same(left: &str, right: &str) -> bool {
    let parts = |text: &str| {
        let mut words = text.split_whitespace().map(str::to_owned);
        (words.nth(1), words.nth(1).filter(|made| made != "unknown"))
    };
    let ((left, left_made), (right, right_made)) = (parts(left), parts(right));
    left.is_some()
        && left == right
        && (left_made.is_none() || right_made.is_none() || left_made == right_made)
}

/// Refuses a folder that was copied or moved to another file system, unless the configuration says that it was moved.
/// Changes nothing.
///
/// # Errors
/// [`Exit`] with [`EXIT_DATA`]
pub fn check(config: &Config) -> anyhow::Result<()> {
    let path = path(config);
    // Nobody has served it yet.
    if config.moved || !path.exists() || is_same(&file::read_text("place", &path)?, &found(config)?) {
        return Ok(());
    }
    let message = format!(
        "{} is a copy, or was moved: receipts of the original would be contradicted. If the original is gone for good, \
         `exchange serve --moved`; else `exchange restore` (exchange/docs/guides/backup.md)",
        config.folder.display()
    );
    Err(Exit { status: EXIT_DATA, message }.into())
}

/// Remembers where the journal lies. Only for who holds its lock.
///
/// # Errors
/// The file cannot be written.
pub fn keep(config: &Config) -> anyhow::Result<()> {
    let (path, found) = (path(config), found(config)?);
    if !path.exists() || file::read_text("place", &path)? != found {
        file::replace("place", &path, found.as_bytes(), file::PRIVATE)?;
    }
    Ok(())
}

/// Whether a folder is a backup.
pub fn is_fenced(folder: &Path) -> bool {
    folder.join(FENCE).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_known_by_its_inode_and_by_when_it_was_made() {
        assert!(is_same("inode 7 made 12\n", "inode 7 made 12\n"));
        assert!(is_same("inode 7 made 12\n", "inode 7 made unknown\n"));
        for other in ["inode 7 made 13\n", "inode 8 made 12\n", "inode 8 made unknown\n", "", "inode"] {
            assert!(!is_same("inode 7 made 12\n", other), "{other}");
        }
        assert!(!is_same("", ""));
    }
}
