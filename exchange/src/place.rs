//! Whether a data folder may be served where it lies: a backup never, a copy only when its original is gone.
//!
//! A log's key signs one history. Two folders with one key, served one after the other, sign two. Nothing in the bytes of
//! a copy tells it from its original, so `journal/place` holds what no copy takes along: of the journal's folder and of its
//! guard the inode and the moment it was made. The guard is written where it lies, so another one was put there: an older
//! copy was brought back into the folder. A copy of the whole disk or machine takes all of it along and is not told.
//!
//! A process that holds the journal's lock alone writes it. A crash leaves none or the old one, and the next start
//! makes it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use certs::file;
use serde::Deserialize;

use crate::config::Config;
use crate::exit::{self, EXIT_DATA, Exit};

pub use certs::layout::FENCE;

fn path(config: &Config) -> PathBuf {
    config.folder.join("journal/place")
}

/// The file's text for the journal's folder and its guard as they are now, a line each. A guard that is missing has no
/// line: the ledger says what that means.
fn found(config: &Config) -> anyhow::Result<String> {
    let mut lines = String::new();
    for path in ["journal", "journal/guard"].map(|name| config.folder.join(name)) {
        let metadata = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            metadata => metadata.with_context(|| path.display().to_string())?,
        };
        let made = metadata.created().ok().and_then(|made| made.duration_since(UNIX_EPOCH).ok());
        let made = made.map_or_else(|| "unknown".to_owned(), |made| made.as_nanos().to_string());
        lines.push_str(&format!("inode {} made {made}\n", metadata.ino()));
    }
    Ok(lines)
}

/// Whether two descriptions are of one place: the same lines, as far as both have them.
fn is_same(left: &str, right: &str) -> bool {
    !left.is_empty()
        && !right.is_empty()
        && left.lines().zip(right.lines()).all(|(left, right)| is_same_file(left, right))
}

/// Whether two lines are of one file or folder. A file system that does not keep when it was made is believed by its inode
/// alone.
fn is_same_file(left: &str, right: &str) -> bool {
    let parts = |text: &str| {
        let mut words = text.split_whitespace().map(str::to_owned);
        (words.nth(1), words.nth(1).filter(|made| made != "unknown"))
    };
    let ((left, left_made), (right, right_made)) = (parts(left), parts(right));
    left.is_some()
        && left == right
        && (left_made.is_none() || right_made.is_none() || left_made == right_made)
}

/// Refuses a folder that was copied, moved to another file system or overwritten with a copy, unless the configuration says
/// that it was moved.
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
        "{} is a copy, was moved, or an older copy was brought back into it: receipts of the \
         original would be contradicted. If the original is gone for good and this has all that it took, \
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

/// Size and root of the log that a backup holds, as its fence has them.
///
/// # Errors
/// [`Exit`] with [`EXIT_DATA`]: the fence cannot be read, or the backup was not completed.
pub fn end_of_backup(folder: &Path) -> anyhow::Result<(u64, [u8; 32])> {
    #[derive(Deserialize)]
    struct Fence {
        size: u64,
        root: String,
    }
    let path = folder.join(FENCE);
    let fence: Option<Fence> = toml::from_str(&file::read_text("fence", &path)?).ok();
    let end = fence.and_then(|fence| Some((fence.size, BASE64.decode(fence.root).ok()?.try_into().ok()?)));
    end.ok_or_else(|| {
        exit::unusable(format_args!(
            "{} does not say how far the backup goes: it is damaged, or was cut off while it was made",
            path.display()
        ))
    })
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
        let both = "inode 7 made 12\ninode 8 made 13\n";
        assert!(is_same(both, both));
        assert!(!is_same(both, "inode 7 made 12\ninode 9 made 14\n"));
        // A file with the folder's line alone tells what it can.
        assert!(is_same("inode 7 made 12\n", both) && is_same(both, "inode 7 made 12\n"));
        assert!(!is_same("inode 6 made 12\n", both));
    }
}
