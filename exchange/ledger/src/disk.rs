//! All that the journal does with files: one narrow trait, so that a test can put a disk that fails under it.
//!
//! Segments, the guard and the lock go through it. Tiles and the restart image are derived and use files directly.
//!
//! It keeps no state. The file that calls it says what a crash leaves.

use std::{
    any::Any,
    fmt,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a taken lock is asked for again: between the fork and the exec of a child process the child has it too, and
/// a gateway that stops may still be letting go.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// The file system's facts about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Tells one file from another while both exist.
    pub(crate) inode: u64,
    /// Names that the file has; 0 when it was deleted.
    pub(crate) links: u64,
    /// Bytes.
    pub(crate) len: u64,
}

/// Free and total bytes of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that may still be used.
    pub free_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// The free space of the journal beside its reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that may still be used.
    pub free_bytes: u64,
    /// Below this, requests are refused.
    pub needed_bytes: u64,
}

impl fmt::Display for Room {
    /// The figures, and what can be done.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        write!(
            f,
            "{} MiB are free and {} MiB are the reserve; delete what is not the exchange's, `exchange archive`, a larger disk, \
             or a lower journal.reserve_percent and reserve_segments",
            self.free_bytes >> 20,
            mib(self.needed_bytes)
        )
    }
}

/// Held while a process may touch the journal; the lock ends when the last clone is dropped.
pub(crate) type Lock = Arc<dyn Any + Send + Sync>;

/// A folder of files on something that keeps them.
pub(crate) trait Disk: Send + Sync {
    /// Opens a file that exists, for reading and, if `write`, for writing.
    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn DiskFile>>;
    /// Makes an empty file for reading and writing; one that is there is emptied.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives a file another name, in place of whatever has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Everything in a folder, in no order.
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;
    /// Makes a folder, durably, unless it is there.
    fn make_folder(&self, folder: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    /// The file under a name.
    fn stat(&self, path: &Path) -> io::Result<Stat>;
    /// Free and total bytes of the file system that holds `folder`.
    fn space(&self, folder: &Path) -> io::Result<Space>;
    /// Takes the lock in this file, which is made if need be; `None` when another process has it.
    fn lock(&self, path: &Path) -> io::Result<Option<Lock>>;
}

/// An open file.
pub(crate) trait DiskFile: Send + Sync {
    /// Reads some bytes; fewer than asked for is no sign of the end, none is.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all bytes. After an error some of them may be written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes content and length durable (`fdatasync`). After an error what is durable is unknown, and a second call
    /// would not tell: never retried.
    fn sync(&self) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    fn stat(&self) -> io::Result<Stat>;
    /// Its durable bytes need not be kept in memory: a hint, which changes nothing that is read.
    fn forget(&self);
}

/// Reads until `bytes` is full or the file ends; how many bytes were read.
pub(crate) fn read_up_to(file: &dyn DiskFile, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], offset + read as u64) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// Fills `bytes`; a file that ends before is an error.
pub(crate) fn read_exact(file: &dyn DiskFile, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    let wanted = bytes.len();
    if read_up_to(file, bytes, offset)? == wanted { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// A whole file.
pub(crate) fn read_all(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    read_file(&*disk.open(path, false)?)
}

/// A whole file that is open.
pub(crate) fn read_file(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(file.stat()?.len).map_err(io::Error::other)?];
    let read = read_up_to(file, &mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// The file system of this machine.
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(write).open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        match folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => {
                self.make_folder(parent)?;
                fs::create_dir(folder)?;
                self.sync_folder(parent)
            }
            None => fs::create_dir(folder),
        }
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        Ok(stat_of(&fs::metadata(path)?))
    }

    fn space(&self, folder: &Path) -> io::Result<Space> {
        let vfs = rustix::fs::statvfs(folder)?;
        Ok(Space {
            free_bytes: vfs.f_bavail.saturating_mul(vfs.f_frsize),
            total_bytes: vfs.f_blocks.saturating_mul(vfs.f_frsize),
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        let began = Instant::now();
        loop {
            match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(Arc::new(file))),
                Err(rustix::io::Errno::WOULDBLOCK) if began.elapsed() < LOCK_PATIENCE => {
                    std::thread::sleep(LOCK_PAUSE);
                }
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl DiskFile for File {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, bytes, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        // The C library's, so that a rig can take the syncs away from a whole process.
        self.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Self::set_len(self, len)
    }

    fn stat(&self) -> io::Result<Stat> {
        Ok(stat_of(&self.metadata()?))
    }

    fn forget(&self) {
        let _ = rustix::fs::fadvise(self, 0, None, rustix::fs::Advice::DontNeed);
    }
}

fn stat_of(metadata: &fs::Metadata) -> Stat {
    Stat { inode: metadata.ino(), links: metadata.nlink(), len: metadata.len() }
}

/// How many files a cache may keep open: `most`, or its share of what the process may open.
pub(crate) fn open_files(most: u64) -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(most.min(limit / 16)).unwrap_or(usize::MAX).max(16)
}

/// Whether an operation failed because the process or the machine has no descriptor left: it passes.
pub(crate) fn lacks_descriptors(error: &io::Error) -> bool {
    let of = |errno: rustix::io::Errno| error.raw_os_error() == Some(errno.raw_os_error());
    of(rustix::io::Errno::MFILE) || of(rustix::io::Errno::NFILE)
}
