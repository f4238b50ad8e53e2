//! Segment files: header, listing, creation, reading by position, and the keeper that prepares the next one ahead
//! and watches the free space (section 6).
//!
//! The keeper makes segments and cuts closed ones; behind a start the sequencer alone writes frames. A crash leaves an `N.new`, a
//! segment of zeros or a torn header without a frame; the next start replaces each.

use crate::{
    disk::{self, Disk, DiskFile, Lock, Room, Stat, lacks_descriptors, open_files},
    error::ReadError,
    folder::journal_folder,
    health::Stop,
    journal::frame::Frame,
    names::{Hash, Position},
    options::{Hooks, Options},
    thread::give_way,
};
use dashmap::DashMap;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    ops::Bound,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use verifier::leaf::LEAF_BYTES;

pub(crate) const SEGMENT_HEADER_BYTES: usize = 64;
const MAGIC: &[u8; 4] = b"MXS1";
/// The format of a data folder, raised for all its parts at once. The first one had a zero in its place.
pub(crate) const FORMAT: u32 = 2;
/// Zeros are written in pieces of this size. While one is written and synced the journal's own write may have to wait:
/// 64 MiB at once held answers up for 40 ms, 1 MiB for 3.5.
const ZERO_BYTES: usize = 256 << 10;
/// The keeper makes each piece durable by itself and rests after it, which leaves at most 125 MiB a second. A sequencer
/// that has to wait for a segment is served without rest.
const KEEPER_REST: Duration = Duration::from_millis(2);
/// The system keeps the pages of so many segments in memory as it likes: the one that is prepared, and the newest before it. An older
/// one gives its pages to the zeros of the next. Pages that this machine never used cost up to eight times as much to write to
/// (`bench/notes/measurements.md`), and one read of the disk brings back what is asked for again.
const CACHED_SEGMENTS: u32 = 4;
/// Open files kept for reading, where the process may open many; beyond it all are closed and opened again as needed.
const MAX_OPEN_SEGMENTS: u64 = 256;
/// Descriptors that the keeper has in hand: for a new segment, its folder, and a file that is cut or read beside it.
const SPARE_DESCRIPTORS: usize = 4;
/// First read of a subject part: most fit, and one `pread` is enough.
const FIRST_READ_BYTES: usize = 4096;
/// Longest sealed part that is read; admission allows no longer group.
const MAX_PART_BYTES: usize = 1 << 30;
/// How often the free space is looked at.
const SPACE_INTERVAL: Duration = Duration::from_millis(100);
/// How often files of the journal are looked for, and for how many of them: of a long journal it takes some turns to see all.
const INSPECT_INTERVAL: Duration = Duration::from_secs(1);
const INSPECT_FILES: usize = if cfg!(test) { 3 } else { 256 };

/// The header that makes a prepared file a segment. `index_check` is [`crate::KeyedHash::check`].
pub(crate) fn header(
    number: u32,
    first_frame: u64,
    origin: &str,
    index_check: u64,
) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    bytes[..4].copy_from_slice(MAGIC);
    bytes[4..8].copy_from_slice(&number.to_be_bytes());
    bytes[8..16].copy_from_slice(&first_frame.to_be_bytes());
    bytes[16..48].copy_from_slice(&verifier::sha256(&[origin.as_bytes()]));
    bytes[48..56].copy_from_slice(&index_check.to_be_bytes());
    bytes[56..60].copy_from_slice(&FORMAT.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// The fields of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) number: u32,
    pub(crate) first_frame: u64,
    pub(crate) origin: Hash,
    pub(crate) index_check: u64,
    /// [`FORMAT`] of the build that wrote it.
    pub(crate) format: u32,
}

impl Header {
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; SEGMENT_HEADER_BYTES] = bytes.first_chunk()?;
        let crc = u32::from_be_bytes(*bytes[60..].first_chunk()?);
        let fits = bytes.starts_with(MAGIC) && crc32c::crc32c(&bytes[..60]) == crc;
        fits.then_some(Self {
            number: u32::from_be_bytes(*bytes[4..].first_chunk()?),
            first_frame: u64::from_be_bytes(*bytes[8..].first_chunk()?),
            origin: *bytes[16..].first_chunk()?,
            index_check: u64::from_be_bytes(*bytes[48..].first_chunk()?),
            format: u32::from_be_bytes(*bytes[56..].first_chunk()?).max(1),
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

/// The path of the stub that the journal's folder keeps for an archived segment: a copy of its header.
pub(crate) fn stub_path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number:010}.mxa"))
}

/// Where segments may be.
#[derive(Clone)]
pub(crate) struct Folders {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) journal: PathBuf,
    pub(crate) archive: Option<PathBuf>,
}

impl Folders {
    pub(crate) fn new(disk: Arc<dyn Disk>, options: &Options) -> Self {
        Self { disk, journal: journal_folder(&options.folder), archive: options.archive.clone() }
    }

    /// Opens a segment for reading, wherever it is now.
    pub(crate) fn open(&self, number: u32) -> io::Result<Arc<dyn DiskFile>> {
        match (self.disk.open(&path(&self.journal, number), false), &self.archive) {
            (Err(error), Some(archive)) if error.kind() == io::ErrorKind::NotFound => {
                self.disk.open(&path(archive, number), false)
            }
            (opened, _) => opened,
        }
    }

    /// A whole segment.
    pub(crate) fn read(&self, number: u32) -> io::Result<Vec<u8>> {
        disk::read_file(&*self.open(number)?)
    }
}

/// All segments, by number, archived ones among them. Files left half made (`.new`) are not listed.
///
/// A segment that is archived while the folder is read may be seen in neither of its forms, so those that seem to be
/// missing are looked for by their names.
pub(crate) fn list(disk: &dyn Disk, folder: &Path) -> io::Result<Vec<Listed>> {
    let mut numbers = BTreeSet::new();
    for path in disk.list(folder)? {
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once('.'));
        if let Some((name, "mxj" | "mxa")) = name.filter(|(name, _)| name.len() == 10) {
            numbers.extend(name.parse::<u32>());
        }
    }
    let mut segments: Vec<Listed> = Vec::with_capacity(numbers.len());
    for number in numbers {
        let next = segments.last().map_or(0, |last| last.number + 1);
        for unseen in next..number {
            // One that is really missing is told by who asked; those behind it change nothing.
            let Some(listed) = look(disk, folder, unseen)? else { break };
            segments.push(listed);
        }
        segments.extend(look(disk, folder, number)?);
    }
    Ok(segments)
}

/// Looks at a segment, or at the stub of an archived one, which is made before the segment goes. Where a crash left both, the
/// segment counts.
fn look(disk: &dyn Disk, folder: &Path, number: u32) -> io::Result<Option<Listed>> {
    for path in [path(folder, number), stub_path(folder, number)] {
        let file = match disk.open(&path, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file?,
        };
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        let read = disk::read_up_to(&*file, &mut bytes, 0)?;
        return Ok(Some(Listed { number, path, header: Header::parse(&bytes[..read]) }));
    }
    Ok(None)
}

/// Makes a segment file that begins with `content` and is filled up to `length` with zeros.
///
/// Durable when it returns: written under a temporary name, synced, renamed, folder synced. A crash before the
/// rename leaves a `.new` file, which nobody reads and the next start removes. `pace` is called between pieces of
/// zeros; its error ends the attempt.
pub(crate) fn create(
    disk: &dyn Disk,
    folder: &Path,
    number: u32,
    content: &[u8],
    length: u64,
    mut pace: impl FnMut(&dyn DiskFile) -> io::Result<()>,
) -> io::Result<Arc<dyn DiskFile>> {
    let temporary = folder.join(format!("{number:010}.new"));
    let file = disk.create(&temporary)?;
    let filled = (|| {
        file.write_all_at(content, 0)?;
        let zeros = vec![0; ZERO_BYTES];
        let mut at = content.len() as u64;
        while at < length {
            let piece = (length - at).min(ZERO_BYTES as u64);
            file.write_all_at(&zeros[..piece as usize], at)?;
            at += piece;
            if at < length {
                pace(&*file)?;
            }
        }
        file.sync()
    })();
    if let Err(error) = filled {
        // The next attempt begins with a new file: a failed sync is never tried again on the same one.
        let _ = disk.remove(&temporary);
        return Err(error);
    }
    disk.rename(&temporary, &path(folder, number))?;
    disk.sync_folder(folder)?;
    Ok(file)
}

/// Removes what a crash left half made.
pub(crate) fn remove_temporary(disk: &dyn Disk, folder: &Path) -> io::Result<()> {
    for path in disk.list(folder)? {
        if path.extension().is_some_and(|extension| extension == "new") {
            disk.remove(&path)?;
        }
    }
    Ok(())
}

/// Whether a segment's file is gone because it was archived: its stub was durable before the segment went.
pub(crate) fn is_archived(disk: &dyn Disk, path: &Path) -> bool {
    let is_segment = path.extension().is_some_and(|kind| kind == "mxj");
    is_segment && disk.stat(path).is_err() && disk.stat(&path.with_extension("mxa")).is_ok()
}

/// Reads the journal by position.
pub(crate) struct Reader {
    folders: Folders,
    files: DashMap<u32, Arc<dyn DiskFile>>,
}

impl Reader {
    pub(crate) fn new(folders: Folders) -> Self {
        Self { folders, files: DashMap::new() }
    }

    fn file(&self, number: u32) -> Result<Arc<dyn DiskFile>, ReadError> {
        if let Some(file) = self.files.get(&number) {
            return Ok(Arc::clone(&file));
        }
        let file = match self.folders.open(number) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ReadError::Missing(number)),
            file => file?,
        };
        if self.files.len() >= open_files(MAX_OPEN_SEGMENTS) {
            self.files.clear();
        }
        self.files.insert(number, Arc::clone(&file));
        Ok(file)
    }

    /// Closes files that were deleted since they were opened, so that their space is given back.
    pub(crate) fn close_deleted(&self) {
        self.files.retain(|_, file| file.stat().is_ok_and(|stat| stat.links > 0));
    }

    /// A whole sealed part, from its length on.
    pub(crate) fn part(&self, position: Position) -> Result<Vec<u8>, ReadError> {
        let file = self.file(position.segment())?;
        let mut bytes = vec![0; FIRST_READ_BYTES];
        let read = disk::read_up_to(&*file, &mut bytes, position.offset().into())?;
        bytes.truncate(read);
        let length = bytes.first_chunk().map_or(0, |length| u32::from_be_bytes(*length) as usize);
        if length == 0 || length > MAX_PART_BYTES {
            return Err(ReadError::Malformed("subject part"));
        }
        bytes.resize(4 + length, 0);
        if bytes.len() > read {
            disk::read_exact(&*file, &mut bytes[read..], u64::from(position.offset()) + read as u64)?;
        }
        Ok(bytes)
    }

    /// The bytes of the frame that begins at a position, as far as the frame's own length says.
    pub(crate) fn frame(&self, position: Position) -> Result<Vec<u8>, ReadError> {
        let file = self.file(position.segment())?;
        let mut bytes = vec![0; crate::journal::frame::HEADER_BYTES];
        disk::read_exact(&*file, &mut bytes, position.offset().into())?;
        let length =
            crate::journal::frame::declared_length(&bytes).filter(|length| *length <= MAX_PART_BYTES);
        bytes.resize(length.ok_or(ReadError::Malformed("frame"))?, 0);
        disk::read_exact(&*file, &mut bytes, position.offset().into())?;
        Ok(bytes)
    }
}

impl Reader {
    /// The newest segment file.
    fn newest(&self) -> io::Result<u32> {
        let mut newest = 0;
        for path in self.folders.disk.list(&self.folders.journal)? {
            let name = path.file_name().and_then(|name| name.to_str());
            let number = name.and_then(|name| name.strip_suffix(".mxj")?.parse().ok());
            newest = newest.max(number.unwrap_or(0));
        }
        Ok(newest)
    }

    /// Number of entries and index of the first in the frame that begins here, and the frame's length; `None` where
    /// none begins.
    fn frame_head(&self, position: Position) -> Result<Option<FrameHead>, ReadError> {
        let mut bytes = [0; crate::journal::frame::HEADER_BYTES];
        let read = disk::read_up_to(&*self.file(position.segment())?, &mut bytes, position.offset().into())?;
        if read < bytes.len() {
            return Ok(None);
        }
        Ok(crate::journal::frame::declared_length(&bytes).map(|length| FrameHead {
            length,
            first_index: u64::from_be_bytes(*bytes[16..].first_chunk().expect("a frame's head has 80 bytes")),
            time_ms: u64::from_be_bytes(*bytes[32..].first_chunk().expect("a frame's head has 80 bytes")),
            count: u32::from_be_bytes(*bytes[12..].first_chunk().expect("a frame's head has 80 bytes")),
        }))
    }

    /// Where the frame with a durable entry begins. Reads the heads of a few segments, and then those of one segment's
    /// frames.
    ///
    /// Frames that a later segment supersedes are the same bytes, so it does not matter which copy is found.
    pub(crate) fn locate(&self, index: u64) -> Result<Position, ReadError> {
        let mut position = self.last_that_begins(|head| head.first_index <= index)?;
        loop {
            let head = self.frame_head(position)?.ok_or(ReadError::Malformed("frame"))?;
            if (head.first_index..head.first_index + u64::from(head.count)).contains(&index) {
                return Ok(position);
            }
            position = position.after(head.length).ok_or(ReadError::Malformed("frame"))?;
        }
    }

    /// The first frame of the last segment whose first frame is as wanted; of the first segment when none is. Frames that are
    /// as wanted stand before all that are not.
    fn last_that_begins(&self, wanted: impl Fn(&FrameHead) -> bool) -> Result<Position, ReadError> {
        const HEAD: u32 = SEGMENT_HEADER_BYTES as u32;
        // A segment never begins with an older frame than the one before it; one that is not begun has none.
        let (mut low, mut high) = (0, self.newest()?);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            // Those that are missing were archived, which happens from the oldest on.
            let earlier = match self.frame_head(Position::new(middle, HEAD)) {
                Err(ReadError::Missing(_)) => true,
                head => head?.is_some_and(|head| wanted(&head)),
            };
            if earlier {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        Ok(Position::new(low, HEAD))
    }

    /// Index of the first entry that is not older than a moment; `None` when all are older. Reads as much as
    /// [`Reader::locate`].
    pub(crate) fn first_at(&self, time_ms: u64) -> Result<Option<u64>, ReadError> {
        let mut position = self.last_that_begins(|head| head.time_ms < time_ms)?;
        loop {
            let Some(next) = self.next_group(position, 0)? else { return Ok(None) };
            let head = self.frame_head(next)?.ok_or(ReadError::Malformed("frame"))?;
            if head.time_ms >= time_ms {
                return Ok(Some(head.first_index));
            }
            position = next.after(head.length).ok_or(ReadError::Malformed("frame"))?;
        }
    }

    /// Gives the leaves of the durable entries from `from` to below `until` to `take`, as many at once as a frame has, until
    /// it says `false`.
    pub(crate) fn leaves(
        &self,
        from: u64,
        until: u64,
        mut take: impl FnMut(&[[u8; LEAF_BYTES]]) -> io::Result<bool>,
    ) -> Result<(), ReadError> {
        let mut index = from;
        let mut position = self.locate(from)?;
        while index < until {
            let bytes = self.frame(position)?;
            let frame = Frame::parse(&bytes).map_err(ReadError::Malformed)?;
            let behind = frame.head.first_index..until;
            let leaves = behind.zip(frame.leaves()).filter(|(at, _)| *at >= index).map(|(_, leaf)| *leaf);
            let leaves: Vec<_> = leaves.collect();
            index += leaves.len() as u64;
            if leaves.is_empty() || !take(&leaves)? {
                return Ok(());
            }
            if index < until {
                position = self.next_group(position, index)?.ok_or(ReadError::Malformed("frame"))?;
            }
        }
        Ok(())
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

/// The part of a frame that [`Reader::locate`] reads.
struct FrameHead {
    length: usize,
    first_index: u64,
    time_ms: u64,
    count: u32,
}

impl Position {
    /// The position so many bytes further in the same segment.
    fn after(self, bytes: usize) -> Option<Self> {
        Some(Self::new(self.segment(), self.offset().checked_add(u32::try_from(bytes).ok()?)?))
    }
}

/// The state that keeper and sequencer share.
pub(crate) struct Keeper {
    slot: Mutex<KeeperSlot>,
    changed: Condvar,
    /// Below the reserve.
    full: AtomicBool,
    /// Free bytes at the last look, and the reserve in bytes.
    free: AtomicU64,
    needed: AtomicU64,
    watched: Mutex<WatchedFiles>,
    /// Descriptors held for the next segment: they are given back just before it is made, so that one can be made when
    /// every other descriptor of the process is used up.
    spare: Mutex<Vec<File>>,
}

/// The files that must stay. Only what this process or its start made or read is in it.
#[derive(Default)]
struct WatchedFiles {
    by_path: BTreeMap<PathBuf, Watched>,
    /// The last one that was looked for.
    last: PathBuf,
}

/// A file of the journal as it must stay.
#[derive(Clone, Copy)]
struct Watched {
    inode: u64,
    /// It may be longer, never shorter.
    min_len: u64,
}

#[derive(Default)]
struct KeeperSlot {
    /// The next segment's number while it is wanted and not made.
    wanted: Option<u32>,
    ready: Option<(u32, Arc<dyn DiskFile>)>,
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

/// The keeper's thread, with all that it works with.
pub(crate) struct KeeperTask {
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) folder: PathBuf,
    pub(crate) segment_bytes: u64,
    pub(crate) reserve_percent: u8,
    pub(crate) reserve_segments: u32,
    pub(crate) hooks: Hooks,
    pub(crate) stop: Arc<Stop>,
    /// Held while the thread may touch the journal's folder.
    pub(crate) lock: Lock,
}

impl Keeper {
    pub(crate) fn new(next: u32) -> Self {
        let slot = KeeperSlot { wanted: Some(next), ..KeeperSlot::default() };
        Self {
            slot: Mutex::new(slot),
            changed: Condvar::new(),
            full: AtomicBool::new(false),
            free: AtomicU64::new(0),
            needed: AtomicU64::new(0),
            watched: Mutex::default(),
            spare: Mutex::default(),
        }
    }

    /// Takes as many spare descriptors in hand as there are to be; gives them back with `hold` false.
    fn spare(&self, hold: bool) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if !hold {
            spare.clear();
        }
        while hold && spare.len() < SPARE_DESCRIPTORS {
            // Without one there is nothing to be done now; the next turn tries again.
            let Ok(file) = File::open("/dev/null") else { break };
            spare.push(file);
        }
    }

    fn watched(&self) -> MutexGuard<'_, WatchedFiles> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the file must stay what and as long as it is.
    pub(crate) fn watch_over(&self, disk: &dyn Disk, path: PathBuf) -> io::Result<()> {
        let Stat { inode, len, .. } = disk.stat(&path)?;
        self.watched().by_path.insert(path, Watched { inode, min_len: len });
        Ok(())
    }

    /// Looks for the files of the journal whose turn it is; what is wrong with the first that is not as it must be.
    fn inspect(&self, disk: &dyn Disk) -> Result<(), String> {
        let mut watched = self.watched();
        let WatchedFiles { by_path, last } = &mut *watched;
        let behind = (Bound::Excluded(last.as_path()), Bound::Unbounded);
        let in_turn = by_path.range::<Path, _>(behind).chain(by_path.iter());
        let turn: Vec<(PathBuf, Watched)> = in_turn
            .take(by_path.len().min(INSPECT_FILES))
            .map(|(path, expected)| (path.clone(), *expected))
            .collect();
        for (path, expected) in turn {
            last.clone_from(&path);
            let what = match disk.stat(&path) {
                Ok(found) if found.inode != expected.inode => "was replaced".to_owned(),
                Ok(found) if found.len < expected.min_len => "was truncated".to_owned(),
                Ok(_) => continue,
                Err(_) if is_archived(disk, &path) => {
                    by_path.remove(&path);
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => "was deleted".to_owned(),
                Err(error) => format!("cannot be looked at: {error}"),
            };
            let name = path.file_name().unwrap_or_default().display();
            return Err(format!("the journal's file {name} {what} while the journal is open"));
        }
        Ok(())
    }

    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// The free space as it was last looked at, beside the reserve.
    pub(crate) fn room(&self) -> Room {
        Room {
            free_bytes: self.free.load(Ordering::Relaxed),
            needed_bytes: self.needed.load(Ordering::Relaxed),
        }
    }

    fn slot(&self) -> MutexGuard<'_, KeeperSlot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The segment prepared ahead; waits for it, and orders the one after it.
    pub(crate) fn take(&self, number: u32, stop: &Stop) -> Result<Arc<dyn DiskFile>, NoSegment> {
        let mut slot = self.slot();
        loop {
            if stop.is_stopped() {
                return Err(NoSegment::Stopped);
            }
            if let Some((_, file)) = slot.ready.take_if(|(ready, _)| *ready == number) {
                slot.hurry = false;
                slot.wanted = number.checked_add(1);
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

    /// A segment is sealed for good and used to this length.
    pub(crate) fn close(&self, number: u32, used: u64) {
        self.slot().closed = Some((number, used));
        self.changed.notify_all();
    }

    /// There is no time to rest.
    #[cfg(feature = "sim")]
    pub(crate) fn hurry(&self) {
        self.slot().hurry = true;
    }

    /// Rests, unless the sequencer waits; an error when the keeper is to stop.
    fn rest(&self) -> io::Result<()> {
        let may_rest = |slot: &mut KeeperSlot| !slot.stop && !slot.hurry;
        let waited = self.changed.wait_timeout_while(self.slot(), KEEPER_REST, may_rest);
        let stop = waited.unwrap_or_else(PoisonError::into_inner).0.stop;
        if stop { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }

    /// Waits before the next attempt, also when the sequencer is in a hurry.
    fn pause(&self) {
        let waited = self.changed.wait_timeout_while(self.slot(), SPACE_INTERVAL, |slot| !slot.stop);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn stop(&self) {
        self.slot().stop = true;
        self.changed.notify_all();
    }
}

impl KeeperTask {
    pub(crate) fn run(self) {
        let _held = Arc::clone(&self.lock);
        give_way();
        let mut inspected = Instant::now();
        while !self.keeper.slot().stop {
            self.step();
            if inspected.elapsed() >= INSPECT_INTERVAL {
                self.inspect();
                inspected = Instant::now();
            }
            let slot = self.keeper.slot();
            let idle = slot.wanted.is_none() || self.keeper.is_full();
            if !slot.stop && idle && slot.closed.is_none() {
                let _ = self.keeper.changed.wait_timeout(slot, SPACE_INTERVAL);
            }
        }
    }

    /// Looks at the free space, cuts a closed segment and makes the one that is wanted.
    pub(crate) fn step(&self) {
        self.watch();
        let (wanted, closed) = {
            let mut slot = self.keeper.slot();
            (slot.wanted, slot.closed.take())
        };
        if closed.is_some() || wanted.is_some() {
            self.keeper.spare(false);
        }
        if let Some((number, used)) = closed {
            // Gives back the unused zeros. Nothing depends on it: a file left long ends at its first zero.
            let path = path(&self.folder, number);
            if let Some(watched) = self.keeper.watched().by_path.get_mut(&path) {
                watched.min_len = used;
            }
            if let Err(error) = self.disk.open(&path, true).and_then(|file| file.set_len(used)) {
                tracing::warn!(segment = number, %error, "a closed segment keeps its unused end");
            }
        }
        if let Some(number) = wanted.filter(|_| !self.keeper.is_full()) {
            self.prepare(number);
        }
        self.keeper.spare(true);
    }

    /// Stops the ledger when one of the next files of the journal is gone or cut. The sequencer sees as much of its own segment with
    /// each group; this is for the others, and for an idle journal.
    pub(crate) fn inspect(&self) {
        if let Err(cause) = self.keeper.inspect(&*self.disk) {
            self.stop.fatal(&cause);
            self.keeper.stop();
        }
    }

    fn prepare(&self, number: u32) {
        // First, so that the pages are there when they are wanted. It may be archived, and nothing depends on it.
        if let Some(old) = number.checked_sub(CACHED_SEGMENTS)
            && let Ok(file) = self.disk.open(&path(&self.folder, old), false)
        {
            file.forget();
        }
        let pace = |file: &dyn DiskFile| {
            file.sync()?;
            self.keeper.rest()
        };
        let made =
            create(&*self.disk, &self.folder, number, &[], self.segment_bytes, pace).and_then(|file| {
                self.keeper.watch_over(&*self.disk, path(&self.folder, number))?;
                Ok(file)
            });
        match made {
            Ok(file) => {
                let mut slot = self.keeper.slot();
                slot.wanted = None;
                slot.ready = Some((number, file));
                self.keeper.changed.notify_all();
            }
            // Stopped in the middle: the half-made file is gone.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Nothing acknowledged is touched: the half-made file is gone and the journal counts as full until
            // there is room.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
            {
                self.set_full(true);
            }
            // The holders of the descriptors give one back some time. Until then answers wait at the end of the present
            // segment, and nothing is lost.
            Err(error) if lacks_descriptors(&error) => {
                tracing::error!(segment = number, %error, "the next segment has to wait for a descriptor");
                self.keeper.pause();
            }
            Err(error) => {
                self.stop.fatal(&format!("preparing segment {number} failed: {error}"));
                self.keeper.stop();
            }
        }
    }

    /// Looks at the free space once.
    pub(crate) fn watch(&self) {
        let space = match &self.hooks.free_space {
            Some(hook) => hook(&self.folder),
            None => self.disk.space(&self.folder),
        };
        match space {
            Ok(space) => {
                let percent = space.total_bytes / 100 * u64::from(self.reserve_percent);
                let segments = u64::from(self.reserve_segments).saturating_mul(self.segment_bytes);
                let needed = percent.max(segments);
                self.keeper.free.store(space.free_bytes, Ordering::Relaxed);
                self.keeper.needed.store(needed, Ordering::Relaxed);
                self.set_full(space.free_bytes < needed);
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
                let room = self.keeper.room();
                tracing::error!(
                    "the journal in {} is below its reserve, refusing until there is room: {room}",
                    self.folder.display()
                );
            } else {
                tracing::info!("the journal has room again");
            }
            self.keeper.changed.notify_all();
        }
        metrics::gauge!("miaoxiang_journal_full").set(if full { 1.0 } else { 0.0 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{RealDisk, Space};
    use std::{fs, sync::atomic::AtomicU32};
    use tempfile::TempDir;

    /// A disk on which something happens meanwhile.
    #[derive(Default)]
    struct Eventful {
        /// Segments that are archived while the folder is read: the reader comes too early for the stubs and too late for
        /// the segments.
        racing: &'static [u32],
        /// So many files cannot be made, because there is no descriptor left.
        starved: AtomicU32,
    }

    impl Disk for Eventful {
        fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
            let mut seen = RealDisk.list(folder)?;
            for number in self.racing {
                fs::rename(path(folder, *number), stub_path(folder, *number))?;
                seen.retain(|seen| *seen != path(folder, *number));
            }
            Ok(seen)
        }

        fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn DiskFile>> {
            RealDisk.open(path, write)
        }

        fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
            let less = |left: u32| left.checked_sub(1);
            match self.starved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less) {
                Ok(_) => Err(rustix::io::Errno::MFILE.into()),
                Err(_) => RealDisk.create(path),
            }
        }

        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            RealDisk.rename(from, to)
        }

        fn remove(&self, path: &Path) -> io::Result<()> {
            RealDisk.remove(path)
        }

        fn make_folder(&self, folder: &Path) -> io::Result<()> {
            RealDisk.make_folder(folder)
        }

        fn sync_folder(&self, folder: &Path) -> io::Result<()> {
            RealDisk.sync_folder(folder)
        }

        fn stat(&self, path: &Path) -> io::Result<Stat> {
            RealDisk.stat(path)
        }

        fn space(&self, folder: &Path) -> io::Result<Space> {
            RealDisk.space(folder)
        }

        fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
            RealDisk.lock(path)
        }
    }

    /// Used-up descriptors must not end the journal.
    #[test]
    fn a_segment_that_no_descriptor_is_left_for_is_made_later() {
        let dir = TempDir::new().unwrap();
        let stop = Arc::new(Stop::new(|cause| panic!("the ledger ended: {cause}")));
        let task = KeeperTask {
            keeper: Arc::new(Keeper::new(1)),
            disk: Arc::new(Eventful { starved: AtomicU32::new(2), ..Eventful::default() }),
            folder: dir.path().to_owned(),
            segment_bytes: ZERO_BYTES as u64,
            reserve_percent: 0,
            reserve_segments: 0,
            hooks: Hooks::default(),
            stop: Arc::clone(&stop),
            lock: Arc::new(()),
        };
        for made in [false, false, true] {
            task.step();
            assert_eq!(path(dir.path(), 1).exists(), made);
        }
        assert!(!stop.is_stopped());
        assert_eq!(task.keeper.spare.lock().unwrap().len(), SPARE_DESCRIPTORS);
        task.keeper.take(1, &stop).unwrap();
    }

    /// With each look a few, so that a journal of any length costs the same.
    #[test]
    fn every_file_has_its_turn_to_be_looked_for() {
        let dir = TempDir::new().unwrap();
        let keeper = Keeper::new(0);
        let files = |from: u32| (from..10).map(|number| path(dir.path(), number));
        for file in files(0) {
            fs::write(&file, b"entries").unwrap();
            keeper.watch_over(&RealDisk, file).unwrap();
        }
        let looks = |keeper: &Keeper, wanted: u32| -> Vec<bool> {
            (0..wanted).map(|_| keeper.inspect(&RealDisk).is_ok()).collect()
        };
        assert_eq!(looks(&keeper, 8), [true; 8]);
        // Twenty-four of ten were looked at: the next three end where the first begins.
        fs::remove_file(path(dir.path(), 3)).unwrap();
        assert_eq!(looks(&keeper, 4), [true, true, true, false]);
        // A file that is archived is forgotten, another is not.
        fs::write(path(dir.path(), 3).with_extension("mxa"), b"").unwrap();
        assert_eq!(looks(&keeper, 8), [true; 8]);
        assert_eq!(keeper.watched().by_path.len(), 9);
        for file in files(4) {
            fs::write(&file, b"entr").unwrap();
        }
        assert!(looks(&keeper, 3).contains(&false));
    }

    #[test]
    fn what_is_archived_while_the_folder_is_read_is_found() {
        let dir = TempDir::new().unwrap();
        for number in 0..6 {
            fs::write(path(dir.path(), number), header(number, 0, "log.example/test", 7)).unwrap();
        }
        let numbers = |racing: &'static [u32]| -> Vec<u32> {
            let listed = list(&Eventful { racing, ..Eventful::default() }, dir.path()).unwrap();
            assert!(listed.iter().all(|listed| listed.header.is_some_and(|one| one.number == listed.number)));
            listed.iter().map(|listed| listed.number).collect()
        };
        assert_eq!(numbers(&[0]), [0, 1, 2, 3, 4, 5]);
        assert_eq!(numbers(&[1, 2, 3]), [0, 1, 2, 3, 4, 5]);
        // One that is really gone stays so, and a name that nobody made costs nothing.
        fs::remove_file(path(dir.path(), 4)).unwrap();
        fs::write(path(dir.path(), u32::MAX), header(u32::MAX, 0, "log.example/test", 7)).unwrap();
        assert_eq!(numbers(&[]), [0, 1, 2, 3, 5, u32::MAX]);
    }
}
