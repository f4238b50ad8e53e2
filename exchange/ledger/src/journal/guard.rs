//! The guard: a small file that tells how far the journal had been released, so that a journal which is shorter, or
//! whose last frame is damaged, is never mistaken for one that ended there (section 6 of the formats).
//!
//! Two slots are written in turn, each durable before the next: a torn slot leaves the other one. It is written by a
//! thread of its own, behind the answers, so it may lag by a second and never runs ahead.
//!
//! No other thread writes it, but an opening before that thread runs.

use crate::{
    disk::{self, Disk, DiskFile},
    error::OpenError,
    health::Stop,
    journal::cursor::Mark,
    names::Hash,
};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// How often what changed is written: with the time of the write well below a second.
const INTERVAL: Duration = Duration::from_millis(500);
const MAGIC: &[u8; 4] = b"MXG1";
const SLOT_BYTES: usize = 128;
/// The slots lie in blocks of their own, so that no write of one touches the other.
const SLOT_STRIDE: usize = 4096;
const FILE_BYTES: usize = 2 * SLOT_STRIDE;

pub(crate) fn path(journal: &Path) -> PathBuf {
    journal.join("guard")
}

/// The newest whole slot of the guard file: its sequence and its mark. `None` when there is no such file.
///
/// # Errors
/// [`OpenError::Guard`] when both slots are damaged, [`OpenError::Keys`] for the guard of another log.
pub(crate) fn read(disk: &dyn Disk, journal: &Path, origin: &str) -> Result<Option<(u64, Mark)>, OpenError> {
    let bytes = match disk::read_all(disk, &path(journal)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(OpenError::Io { what: "reading the journal's guard", error }),
    };
    let slots = [0, SLOT_STRIDE].map(|at| bytes.get(at..at + SLOT_BYTES).and_then(parse));
    let newest = slots.into_iter().flatten().max_by_key(|slot| slot.sequence);
    let Slot { sequence, origin: of, mark } = newest
        .ok_or(OpenError::Guard("the journal's guard cannot be read: both of its slots are damaged"))?;
    if of != verifier::sha256(&[origin.as_bytes()]) {
        return Err(OpenError::Keys("the journal's guard is another log's"));
    }
    Ok(Some((sequence, mark)))
}

struct Slot {
    sequence: u64,
    origin: Hash,
    mark: Mark,
}

fn parse(bytes: &[u8]) -> Option<Slot> {
    let bytes: &[u8; SLOT_BYTES] = bytes.first_chunk()?;
    let number = |at: usize| Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    let crc = u32::from_be_bytes(*bytes[SLOT_BYTES - 4..].first_chunk()?);
    let whole = bytes.starts_with(MAGIC)
        && bytes[4..8] == [0; 4]
        && bytes[96..124] == [0; 28]
        && crc32c::crc32c(&bytes[..SLOT_BYTES - 4]) == crc;
    let mark = Mark { size: number(16)?, frames: number(24)?, root: *bytes[32..].first_chunk()? };
    whole.then_some(Slot { sequence: number(8)?, origin: *bytes[64..].first_chunk()?, mark })
}

fn encode(sequence: u64, origin: &Hash, mark: &Mark) -> [u8; SLOT_BYTES] {
    let mut bytes = [0; SLOT_BYTES];
    bytes[..4].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&sequence.to_be_bytes());
    bytes[16..24].copy_from_slice(&mark.size.to_be_bytes());
    bytes[24..32].copy_from_slice(&mark.frames.to_be_bytes());
    bytes[32..64].copy_from_slice(&mark.root);
    bytes[64..96].copy_from_slice(origin);
    let crc = crc32c::crc32c(&bytes[..SLOT_BYTES - 4]);
    bytes[SLOT_BYTES - 4..].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// Writes the guard file. Owned by one thread.
pub(crate) struct Guard {
    file: Arc<dyn DiskFile>,
    origin: Hash,
    sequence: u64,
    written: Mark,
}

impl Guard {
    /// Makes the file for a journal without a frame. It is durable before the first segment is, so that no crash
    /// leaves frames without a guard.
    pub(crate) fn create(disk: &dyn Disk, journal: &Path, origin: &str) -> io::Result<Self> {
        let written = Mark::START;
        let origin = verifier::sha256(&[origin.as_bytes()]);
        let mut content = vec![0; FILE_BYTES];
        content[..SLOT_BYTES].copy_from_slice(&encode(0, &origin, &written));
        let temporary = journal.join("guard.new");
        let file = disk.create(&temporary)?;
        file.write_all_at(&content, 0)?;
        file.sync()?;
        disk.rename(&temporary, &path(journal))?;
        disk.sync_folder(journal)?;
        Ok(Self { file, origin, sequence: 0, written })
    }

    /// Goes on with the file that [`read`] gave `sequence` and `written` of.
    pub(crate) fn open(
        disk: &dyn Disk,
        journal: &Path,
        origin: &str,
        (sequence, written): (u64, Mark),
    ) -> io::Result<Self> {
        let file = disk.open(&path(journal), true)?;
        Ok(Self { file, origin: verifier::sha256(&[origin.as_bytes()]), sequence, written })
    }

    /// Writes a mark into the older slot and makes it durable; nothing when it is the last one written.
    pub(crate) fn write(&mut self, mark: Mark) -> io::Result<()> {
        if mark == self.written {
            return Ok(());
        }
        let sequence = self.sequence + 1;
        let at = sequence % 2 * SLOT_STRIDE as u64;
        self.file.write_all_at(&encode(sequence, &self.origin, &mark), at)?;
        self.file.sync()?;
        (self.sequence, self.written) = (sequence, mark);
        Ok(())
    }

    /// The thread: writes what the sequencer has released until `ended` is disconnected, and once more then.
    pub(crate) fn follow(mut self, released: &Released, ended: &Receiver<()>, stop: &Stop) {
        loop {
            let over = ended.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Disconnected);
            // The same as for a segment: a failed write leaves unknown what the disk holds, so nothing is answered any more.
            if let Err(error) = self.write(released.get()) {
                stop.fatal(&format!("writing the journal's guard failed: {error}"));
                return;
            }
            if over {
                return;
            }
        }
    }
}

/// The latest durable mark, set by the sequencer after each sync and read by the guard's thread.
pub(crate) struct Released(Mutex<Mark>);

impl Released {
    pub(crate) fn new(mark: Mark) -> Self {
        Self(Mutex::new(mark))
    }

    pub(crate) fn set(&self, mark: Mark) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = mark;
    }

    pub(crate) fn get(&self) -> Mark {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
