//! Where a data folder keeps what is the ledger's, and the journal's lock.
//!
//! A process that writes to the journal holds the lock. A crash leaves the lock's file without a lock, which stands in
//! nobody's way.

use crate::{
    disk::{Disk, Lock},
    error::OpenError,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

pub(crate) fn journal_folder(data: &Path) -> PathBuf {
    data.join("journal")
}

pub(crate) fn rows_folder(data: &Path) -> PathBuf {
    journal_folder(data).join("rows")
}

pub(crate) fn tiles_folder(data: &Path) -> PathBuf {
    data.join("tiles")
}

pub(crate) fn store_folder(data: &Path) -> PathBuf {
    data.join("store")
}

pub(crate) fn snapshots_folder(data: &Path) -> PathBuf {
    data.join("snapshots")
}

pub(crate) fn lock_path(journal: &Path) -> PathBuf {
    journal.join("lock")
}

/// Takes the journal's lock.
pub(crate) fn lock(disk: &dyn Disk, data: &Path) -> Result<Lock, OpenError> {
    let folder = journal_folder(data);
    disk.make_folder(&folder).map_err(OpenError::io("making the journal's folder"))?;
    let lock = disk.lock(&lock_path(&folder)).map_err(OpenError::io("locking the journal"))?;
    lock.ok_or(OpenError::Locked)
}

/// Whether a gateway has the journal open now.
pub(crate) fn is_served(data: &Path) -> bool {
    let Ok(file) = fs::File::open(lock_path(&journal_folder(data))) else { return false };
    let locked = rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared);
    matches!(locked, Err(rustix::io::Errno::WOULDBLOCK))
}
