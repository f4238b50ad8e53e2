//! The files of row segments: where they lie, writing, reading, and which may go.
//!
//! Any thread writes a new file; one that was committed never changes. The thread that follows the journal removes those that
//! ended, and a start those that no entry names. A crash leaves a file, whole or torn, that no entry names.

use crate::{
    disk::{self, Disk, DiskFile, open_files},
    error::ReadError,
    folder::{journal_folder, rows_folder},
    hosted::format::{self, Entry, SegmentDocument},
    names::{Hash, Key},
};
use dashmap::DashMap;
use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// Open files kept for reading, where the process may open many; beyond it all are closed and opened again as needed.
const MAX_OPEN: u64 = 4096;
const EXTENSION: &str = "rows";

/// The name of a segment's file.
pub(crate) fn name(id: &Key) -> String {
    format!("{:032x}.{EXTENSION}", u128::from_be_bytes(*id))
}

/// Why a file is not the one that was committed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Wrong {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Is(&'static str),
}

/// The files of one journal.
pub(crate) struct Files {
    disk: Arc<dyn Disk>,
    journal: PathBuf,
    folder: PathBuf,
    /// The folder is there, and its name is durable.
    made: Mutex<bool>,
    /// Digest of the log's name.
    origin: Hash,
    open: DashMap<Key, Arc<dyn DiskFile>>,
}

impl Files {
    pub(crate) fn new(disk: Arc<dyn Disk>, data: &Path, origin: &str) -> Self {
        let origin = verifier::sha256(&[origin.as_bytes()]);
        let (journal, folder) = (journal_folder(data), rows_folder(data));
        Self { disk, journal, folder, made: Mutex::new(false), origin, open: DashMap::new() }
    }

    pub(crate) fn origin(&self) -> &Hash {
        &self.origin
    }

    fn path(&self, id: &Key) -> PathBuf {
        self.folder.join(name(id))
    }

    /// Makes the folder with the first file. Another thread, or an earlier process, may have made it and not have synced its
    /// name.
    fn make_folder(&self) -> io::Result<()> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if !*made {
            self.disk.make_folder(&self.folder)?;
            self.disk.sync_folder(&self.journal)?;
            *made = true;
        }
        Ok(())
    }

    /// Writes a new file and makes it durable under its name. After an error nothing of it is left, as far as that can be.
    pub(crate) fn write(&self, id: &Key, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(id);
        self.make_folder()?;
        let written = self.disk.create(&path).and_then(|file| {
            file.write_all_at(bytes, 0)?;
            file.sync()?;
            self.disk.sync_folder(&self.folder)
        });
        if written.is_err() {
            // A failed sync is never tried again on the same file.
            let _ = self.disk.remove(&path);
        }
        written
    }

    /// The file of a segment, kept open.
    pub(crate) fn file(&self, id: &Key) -> Result<Arc<dyn DiskFile>, ReadError> {
        if let Some(file) = self.open.get(id) {
            return Ok(Arc::clone(&file));
        }
        let file = match self.disk.open(&self.path(id), false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ReadError::MissingRows(name(id)));
            }
            file => file?,
        };
        if self.open.len() >= open_files(MAX_OPEN) {
            self.open.clear();
        }
        self.open.insert(*id, Arc::clone(&file));
        Ok(file)
    }

    /// The directory of a segment, checked against its document, and that the file has its length.
    pub(crate) fn directory(&self, id: &Key, document: &SegmentDocument) -> Result<Vec<Entry>, Wrong> {
        let file = self.disk.open(&self.path(id), false)?;
        if file.stat()?.len != document.bytes {
            return Err(Wrong::Is("its length is not the one that was committed"));
        }
        let mut front = vec![0; document.front_bytes()];
        disk::read_exact(&*file, &mut front, 0)?;
        format::directory(&front, id, document, &self.origin).map_err(Wrong::Is)
    }

    /// The whole file of a segment, checked against its document.
    pub(crate) fn whole(&self, id: &Key, document: &SegmentDocument) -> Result<Vec<u8>, Wrong> {
        let bytes = disk::read_all(&*self.disk, &self.path(id))?;
        format::check(&bytes, id, document, &self.origin).map_err(Wrong::Is)?;
        Ok(bytes)
    }

    /// Removes the file of a segment that no entry names, or none any more.
    pub(crate) fn remove(&self, id: &Key) -> io::Result<()> {
        self.open.remove(id);
        match self.disk.remove(&self.path(id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// Makes durable which files there are.
    pub(crate) fn sync_names(&self) -> io::Result<()> {
        self.disk.sync_folder(&self.folder)
    }

    /// Ids of all files; other names are not this module's.
    pub(crate) fn list(&self) -> io::Result<Vec<Key>> {
        let listed = match self.disk.list(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            listed => listed?,
        };
        let id = |path: &PathBuf| {
            let stem = path.file_name()?.to_str()?.strip_suffix(".rows")?;
            let id = u128::from_str_radix(stem, 16).ok()?.to_be_bytes();
            (path.file_name()?.to_str()? == name(&id)).then_some(id)
        };
        Ok(listed.iter().filter_map(id).collect())
    }

    /// The right to remove files; `None` while somebody copies or checks them.
    pub(crate) fn may_remove(&self) -> Option<impl Sized + use<>> {
        let Ok(folder) = File::open(&self.folder) else { return Some(None) };
        let locked = rustix::fs::flock(&folder, rustix::fs::FlockOperation::NonBlockingLockExclusive);
        locked.is_ok().then_some(Some(folder))
    }
}

/// Keeps a gateway from removing row segments as long as the value lives; taken before the journal is read, so that every
/// file which that journal names is there. Nothing without a folder.
pub(crate) fn hold(data: &Path) -> io::Result<Option<File>> {
    let folder = match File::open(rows_folder(data)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        folder => folder?,
    };
    rustix::fs::flock(&folder, rustix::fs::FlockOperation::LockShared)?;
    Ok(Some(folder))
}
