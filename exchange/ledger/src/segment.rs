//! Segment files: header, listing, creation, reading by position, and the keeper that prepares the next one ahead
//! and watches the free space (section 6).

use crate::{
    Hash, Position,
    crypt::ReadError,
    ledger::{Hooks, Space, Stop},
};
use dashmap::DashMap;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

pub(crate) const SEGMENT_HEADER_BYTES: usize = 64;
const MAGIC: &[u8; 4] = b"MXS1";
/// Zeros are written in pieces of this size.
const ZERO_BYTES: usize = 256 << 10;
/// The keeper makes each piece durable by itself and rests after it, so that no sync of the journal waits behind a whole
/// segment of zeros (64 MiB at once held answers up for 40 ms). Leaves about 100 MiB a second; a sequencer that is faster
/// than that is served without rest.
const KEEPER_REST: Duration = Duration::from_millis(2);
/// Open files kept for reading; beyond it all are closed and opened again as needed.
const MAX_OPEN_SEGMENTS: usize = 256;
/// First read of a subject part: most fit, and one `pread` is enough.
const FIRST_READ_BYTES: usize = 4096;
/// Longest sealed part that is read; admission allows no longer group.
const MAX_PART_BYTES: usize = 1 << 30;
/// How often the free space is looked at.
const SPACE_INTERVAL: Duration = Duration::from_millis(100);

/// The header that makes a prepared file a segment.
pub(crate) fn header(number: u32, first_frame: u64, origin: &str) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    bytes[..4].copy_from_slice(MAGIC);
    bytes[4..8].copy_from_slice(&number.to_be_bytes());
    bytes[8..16].copy_from_slice(&first_frame.to_be_bytes());
    bytes[16..48].copy_from_slice(&verifier::sha256(&[origin.as_bytes()]));
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) number: u32,
    pub(crate) first_frame: u64,
    pub(crate) origin: Hash,
}

impl Header {
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; SEGMENT_HEADER_BYTES] = bytes.first_chunk()?;
        let crc = u32::from_be_bytes(*bytes[60..].first_chunk()?);
        let fits =
            bytes.starts_with(MAGIC) && bytes[48..60] == [0; 12] && crc32c::crc32c(&bytes[..60]) == crc;
        fits.then_some(Self {
            number: u32::from_be_bytes(*bytes[4..].first_chunk()?),
            first_frame: u64::from_be_bytes(*bytes[8..].first_chunk()?),
            origin: *bytes[16..].first_chunk()?,
        })
    }
}

/// A segment file in the journal's folder.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) number: u32,
    pub(crate) path: PathBuf,
    /// `None`: prepared and not begun, or damaged.
    pub(crate) header: Option<Header>,
}

pub(crate) fn path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number:010}.mxj"))
}

/// All segment files, by number. Files left half made (`.new`) are not listed.
pub(crate) fn list(folder: &Path) -> io::Result<Vec<Listed>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".mxj"));
        let Some(number) = name.filter(|name| name.len() == 10).and_then(|name| name.parse().ok()) else {
            continue;
        };
        let mut bytes = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        File::open(&path)?.take(SEGMENT_HEADER_BYTES as u64).read_to_end(&mut bytes)?;
        segments.push(Listed { number, path, header: Header::parse(&bytes) });
    }
    segments.sort_by_key(|segment| segment.number);
    Ok(segments)
}

/// Makes a segment file that begins with `content` and is filled up to `length` with zeros.
///
/// Durable when it returns: written under a temporary name, synced, renamed, folder synced. A crash before the
/// rename leaves a `.new` file, which nobody reads and the next start removes. `pace` is called after each piece of
/// zeros; its error ends the attempt.
pub(crate) fn create(
    folder: &Path,
    number: u32,
    content: &[u8],
    length: u64,
    mut pace: impl FnMut(&File) -> io::Result<()>,
) -> io::Result<File> {
    let temporary = folder.join(format!("{number:010}.new"));
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&temporary)?;
    let filled = (|| {
        file.write_all(content)?;
        let zeros = vec![0; ZERO_BYTES];
        let mut left = length.saturating_sub(content.len() as u64);
        while left > 0 {
            let piece = left.min(ZERO_BYTES as u64);
            file.write_all(&zeros[..piece as usize])?;
            left -= piece;
            pace(&file)?;
        }
        file.sync_all()
    })();
    if let Err(error) = filled {
        // The next attempt begins with a new file: a failed sync is never tried again on the same one.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    fs::rename(&temporary, path(folder, number))?;
    File::open(folder)?.sync_all()?;
    Ok(file)
}

/// Removes what a crash left half made.
pub(crate) fn remove_temporary(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "new") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Reads the journal by position.
pub(crate) struct Reader {
    folder: PathBuf,
    files: DashMap<u32, Arc<File>>,
}

impl Reader {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, files: DashMap::new() }
    }

    fn file(&self, number: u32) -> io::Result<Arc<File>> {
        if let Some(file) = self.files.get(&number) {
            return Ok(Arc::clone(&file));
        }
        let file = Arc::new(File::open(path(&self.folder, number))?);
        if self.files.len() >= MAX_OPEN_SEGMENTS {
            self.files.clear();
        }
        self.files.insert(number, Arc::clone(&file));
        Ok(file)
    }

    /// A whole sealed part, from its length on.
    pub(crate) fn part(&self, position: Position) -> Result<Vec<u8>, ReadError> {
        let file = self.file(position.segment())?;
        let mut bytes = vec![0; FIRST_READ_BYTES];
        let read = read_up_to(&file, &mut bytes, position.offset().into())?;
        bytes.truncate(read);
        let length = bytes.first_chunk().map_or(0, |length| u32::from_be_bytes(*length) as usize);
        if length == 0 || length > MAX_PART_BYTES {
            return Err(ReadError::Malformed("subject part"));
        }
        bytes.resize(4 + length, 0);
        if bytes.len() > read {
            file.read_exact_at(&mut bytes[read..], u64::from(position.offset()) + read as u64)?;
        }
        Ok(bytes)
    }

    /// The bytes of the frame that begins at a position, as far as the frame's own length says.
    pub(crate) fn frame(&self, position: Position) -> Result<Vec<u8>, ReadError> {
        let file = self.file(position.segment())?;
        let mut bytes = vec![0; crate::frame::HEADER_BYTES];
        file.read_exact_at(&mut bytes, position.offset().into())?;
        let length = crate::frame::declared_length(&bytes).filter(|length| *length <= MAX_PART_BYTES);
        bytes.resize(length.ok_or(ReadError::Malformed("frame"))?, 0);
        file.read_exact_at(&mut bytes, position.offset().into())?;
        Ok(bytes)
    }
}

impl Reader {
    /// The newest segment file.
    fn newest(&self) -> io::Result<u32> {
        let mut newest = 0;
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".mxj")?.parse().ok());
            newest = newest.max(number.unwrap_or(0));
        }
        Ok(newest)
    }

    /// Number of entries and index of the first in the frame that begins here, and the frame's length; `None` where
    /// none begins.
    fn frame_head(&self, position: Position) -> Result<Option<FrameHead>, ReadError> {
        let mut bytes = [0; crate::frame::HEADER_BYTES];
        let read = read_up_to(&*self.file(position.segment())?, &mut bytes, position.offset().into())?;
        if read < bytes.len() {
            return Ok(None);
        }
        Ok(crate::frame::declared_length(&bytes).map(|length| FrameHead {
            length,
            first_index: u64::from_be_bytes(*bytes[16..].first_chunk().expect("a frame's head has 80 bytes")),
            count: u32::from_be_bytes(*bytes[12..].first_chunk().expect("a frame's head has 80 bytes")),
        }))
    }

    /// Where the frame with a durable entry begins. Reads the heads of a few segments, and then those of one segment's
    /// frames.
    ///
    /// Frames that a later segment supersedes are the same bytes, so it does not matter which copy is found.
    pub(crate) fn locate(&self, index: u64) -> Result<Position, ReadError> {
        const HEAD: u32 = SEGMENT_HEADER_BYTES as u32;
        // A segment never begins with an older frame than the one before it; one that is not begun has none.
        let (mut low, mut high) = (0, self.newest()?);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            let head = self.frame_head(Position::new(middle, HEAD))?;
            if head.is_some_and(|head| head.first_index <= index) {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        let mut position = Position::new(low, HEAD);
        loop {
            let head = self.frame_head(position)?.ok_or(ReadError::Malformed("frame"))?;
            if (head.first_index..head.first_index + u64::from(head.count)).contains(&index) {
                return Ok(position);
            }
            position = position.after(head.length).ok_or(ReadError::Malformed("frame"))?;
        }
    }

    /// The frame with entries that begins at a position or is the next one after it, in this segment or a later one,
    /// where no frame of an index below `index` counts. `None` at the end of the journal.
    pub(crate) fn next_group(
        &self,
        mut position: Position,
        index: u64,
    ) -> Result<Option<Position>, ReadError> {
        loop {
            match self.frame_head(position)? {
                Some(head) if head.count > 0 && head.first_index >= index => return Ok(Some(position)),
                Some(head) => position = position.after(head.length).ok_or(ReadError::Malformed("frame"))?,
                None if position.segment() < self.newest()? => {
                    position = Position::new(position.segment() + 1, SEGMENT_HEADER_BYTES as u32);
                }
                None => return Ok(None),
            }
        }
    }
}

/// What [`Reader::locate`] reads of a frame.
struct FrameHead {
    length: usize,
    first_index: u64,
    count: u32,
}

impl Position {
    /// The position so many bytes further in the same segment.
    fn after(self, bytes: usize) -> Option<Self> {
        Some(Self::new(self.segment(), self.offset().checked_add(u32::try_from(bytes).ok()?)?))
    }
}

fn read_up_to(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
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

/// Free and total bytes of the file system that holds `folder`.
pub(crate) fn free_space(folder: &Path) -> io::Result<Space> {
    let vfs = rustix::fs::statvfs(folder)?;
    Ok(Space {
        free_bytes: vfs.f_bavail.saturating_mul(vfs.f_frsize),
        total_bytes: vfs.f_blocks.saturating_mul(vfs.f_frsize),
    })
}

/// What the keeper and the sequencer share.
pub(crate) struct Keeper {
    slot: Mutex<KeeperSlot>,
    changed: Condvar,
    /// Below the reserve.
    full: AtomicBool,
}

#[derive(Default)]
struct KeeperSlot {
    /// The next segment's number while it is wanted and not made.
    wanted: Option<u32>,
    ready: Option<(u32, File)>,
    /// A closed segment and the length it is used to.
    closed: Option<(u32, u64)>,
    /// The sequencer waits for the segment: no time to rest.
    hurry: bool,
    stop: bool,
}

/// No segment can be had now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoSegment {
    /// The journal is below its reserve.
    Full,
    /// The ledger has stopped.
    Stopped,
}

/// What the keeper thread works with.
pub(crate) struct KeeperTask {
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) folder: PathBuf,
    pub(crate) segment_bytes: u64,
    pub(crate) reserve_percent: u8,
    pub(crate) reserve_segments: u32,
    pub(crate) hooks: Hooks,
    pub(crate) stop: Arc<Stop>,
    /// Held while the thread may touch the journal's folder.
    pub(crate) lock: Arc<File>,
}

impl Keeper {
    pub(crate) fn new(next: u32) -> Self {
        let slot = KeeperSlot { wanted: Some(next), ..KeeperSlot::default() };
        Self { slot: Mutex::new(slot), changed: Condvar::new(), full: AtomicBool::new(false) }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    fn slot(&self) -> MutexGuard<'_, KeeperSlot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The segment prepared ahead; waits for it, and orders the one after it. `used` is the length that the
    /// current segment is used to.
    pub(crate) fn take(&self, number: u32, used: u64, stop: &Stop) -> Result<File, NoSegment> {
        let mut slot = self.slot();
        loop {
            if stop.is_stopped() {
                return Err(NoSegment::Stopped);
            }
            if let Some((_, file)) = slot.ready.take_if(|(ready, _)| *ready == number) {
                slot.hurry = false;
                slot.wanted = number.checked_add(1);
                slot.closed = number.checked_sub(1).map(|closed| (closed, used));
                self.changed.notify_all();
                return Ok(file);
            }
            if self.is_full() {
                return Err(NoSegment::Full);
            }
            if !slot.hurry {
                slot.hurry = true;
                self.changed.notify_all();
            }
            slot = self.changed.wait_timeout(slot, SPACE_INTERVAL).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Rests, unless the sequencer waits; an error when the keeper is to stop.
    fn rest(&self) -> io::Result<()> {
        let may_rest = |slot: &mut KeeperSlot| !slot.stop && !slot.hurry;
        let waited = self.changed.wait_timeout_while(self.slot(), KEEPER_REST, may_rest);
        let stop = waited.unwrap_or_else(PoisonError::into_inner).0.stop;
        if stop { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }

    pub(crate) fn stop(&self) {
        self.slot().stop = true;
        self.changed.notify_all();
    }
}

impl KeeperTask {
    pub(crate) fn run(self) {
        let _held = Arc::clone(&self.lock);
        loop {
            self.watch();
            let (wanted, closed) = {
                let mut slot = self.keeper.slot();
                if slot.stop {
                    return;
                }
                (slot.wanted, slot.closed.take())
            };
            if let Some((number, used)) = closed {
                // Gives back the unused zeros. Nothing depends on it: a file left long ends at its first zero.
                if let Err(error) = OpenOptions::new()
                    .write(true)
                    .open(path(&self.folder, number))
                    .and_then(|file| file.set_len(used))
                {
                    tracing::warn!(segment = number, %error, "a closed segment keeps its unused end");
                }
            }
            if let Some(number) = wanted.filter(|_| !self.keeper.is_full()) {
                self.prepare(number);
            }
            let slot = self.keeper.slot();
            let idle = slot.wanted.is_none() || self.keeper.is_full();
            if !slot.stop && idle && slot.closed.is_none() {
                let _ = self.keeper.changed.wait_timeout(slot, SPACE_INTERVAL);
            }
        }
    }

    fn prepare(&self, number: u32) {
        let pace = |file: &File| {
            rustix::fs::fdatasync(file)?;
            self.keeper.rest()
        };
        match create(&self.folder, number, &[], self.segment_bytes, pace) {
            Ok(file) => {
                let mut slot = self.keeper.slot();
                slot.wanted = None;
                slot.ready = Some((number, file));
                self.keeper.changed.notify_all();
            }
            // Stopped in the middle: the half-made file is gone.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                // Nothing acknowledged is touched: the half-made file is gone and the journal counts as full until
                // there is room.
                self.set_full(true);
                std::thread::sleep(SPACE_INTERVAL);
            }
            Err(error) => {
                self.stop.fatal(&format!("preparing segment {number} failed: {error}"));
                let mut slot = self.keeper.slot();
                slot.stop = true;
                self.keeper.changed.notify_all();
            }
        }
    }

    /// Looks at the free space once.
    pub(crate) fn watch(&self) {
        let space = match &self.hooks.free_space {
            Some(hook) => hook(&self.folder),
            None => free_space(&self.folder),
        };
        match space {
            Ok(space) => {
                let percent = space.total_bytes / 100 * u64::from(self.reserve_percent);
                let segments = u64::from(self.reserve_segments).saturating_mul(self.segment_bytes);
                self.set_full(space.free_bytes < percent.max(segments));
            }
            // An unknown amount of space is no space.
            Err(error) => {
                tracing::error!(%error, "the free space of the journal cannot be read");
                self.set_full(true);
            }
        }
    }

    fn set_full(&self, full: bool) {
        if self.keeper.full.swap(full, Ordering::AcqRel) != full {
            if full {
                tracing::error!("the journal is below its reserve: refusing until there is room");
            } else {
                tracing::info!("the journal has room again");
            }
            self.keeper.changed.notify_all();
        }
        metrics::gauge!("miaoxiang_journal_full").set(if full { 1.0 } else { 0.0 });
    }
}
