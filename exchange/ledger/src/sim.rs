//! A disk that fails and a journal that is run by hand on it, for the simulation (crate feature `sim`).
//!
//! The disk keeps what the kernel shows apart from what has reached the platter: what was never synced may be there
//! after a power cut or not, each sector of 512 bytes by itself, in whatever order it was written. Everything is
//! decided by one seed. The journal is the product's own code; only its threads are replaced by calls.
//!
//! The simulation's one thread owns both. The disk is memory, and what a crash leaves on it is what the tests look at.

use crate::{
    commit::{
        command::{Command, Committed, Outcome, Prepared, Refused, unconditional},
        followers::Followers,
        sequencer::Sequencer,
        submission::{Reply, Submission},
    },
    derive::feed::Feed,
    disk::{self, Disk, DiskFile, Lock, Space, Stat},
    error::{OpenError, ReadError},
    folder::{self, lock},
    health::{Failing, Stop},
    hosted::{check, files::Files, follow::Follower as RowsFollower, rows::Rows},
    journal::{
        clock::Clock,
        cursor::Cursor,
        entry::committed_again,
        frame::Frame,
        guard::{Guard, Released},
        record::Record,
        segment::{Folders, Keeper, KeeperTask, Reader},
    },
    keys::{
        crypt::{Crypt, HolderKey, PreparedHolder},
        epoch::{self, RotateError, Rotation},
        secrets::{EpochFile, EpochFiles, LedgerKeys},
        signer::signer,
    },
    names::{Hash, Key, Position},
    options::{Hooks, Options},
    start::{
        recovery::{Changes, Found, apply_frame},
        walk::Reading,
    },
    state::{State, rows::Bound},
};
use crossbeam_channel::bounded;
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use verifier::{merkle::leaf_hash, note::VerifierKey};
use zeroize::Zeroizing;

mod choices;

pub use choices::Choices;

/// The unit that reaches the platter as a whole or not at all.
const SECTOR_BYTES: usize = 512;
/// The data folder on the disk.
const FOLDER: &str = "sim";

/// The worth of a sync.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sync {
    /// It does what it says.
    #[default]
    Honest,
    /// Nothing: it answers and does nothing. No journal can stand on such a disk.
    Lying,
    /// It answers first and works before the next operation: to the journal's answers it is as if they left before
    /// the sync.
    Late,
}

/// How a process or a machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The process is gone; the kernel has all that it wrote.
    Kill,
    /// The machine is gone with everything that was not synced, or with a part of it.
    PowerCut,
}

/// A disk whose every misfortune is decided by a seed. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<Inner>>);

#[derive(Clone)]
struct Inner {
    choices: Choices,
    files: BTreeMap<u64, SimFile>,
    names: BTreeMap<PathBuf, u64>,
    /// Names that survive a power cut.
    durable_names: BTreeMap<PathBuf, u64>,
    /// Changes of names since the last sync of the folder, in order.
    renamed: Vec<Renamed>,
    sync: Sync,
    /// Files whose sync was answered and is still to come.
    owed: BTreeSet<u64>,
    short_reads: bool,
    capacity: u64,
    /// Changing operations until the end; `None`: no end is near.
    fuse: Option<u64>,
    /// Syncs and writes until one fails.
    sync_fails_in: Option<u64>,
    write_fails_in: Option<u64>,
    /// One of the two has.
    failed: bool,
    /// The process is gone: every operation fails and changes nothing.
    down: bool,
}

#[derive(Clone, Default)]
struct SimFile {
    /// The bytes that the kernel shows.
    shown: Vec<u8>,
    platter: Vec<u8>,
    /// Sectors of `shown` that the kernel has still to write.
    dirty: BTreeSet<usize>,
    /// The length is still to be written.
    dirty_len: bool,
}

#[derive(Clone)]
enum Renamed {
    Gone(PathBuf),
    Named { from: Option<PathBuf>, to: PathBuf, inode: u64 },
}

/// A disk as it was, to go back to.
#[derive(Clone)]
pub struct Snapshot(Inner);

impl SimDisk {
    /// An empty disk.
    pub fn new(seed: u64, sync: Sync) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            choices: Choices::new(seed),
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            renamed: Vec::new(),
            sync,
            owed: BTreeSet::new(),
            short_reads: true,
            capacity: u64::MAX,
            fuse: None,
            sync_fails_in: None,
            write_fails_in: None,
            failed: false,
            down: false,
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process or machine ends in the middle of the changing operation that comes after so many others.
    pub fn end_after(&self, operations: u64) {
        self.inner().fuse = Some(operations);
    }

    /// The sync after so many others fails; what it was to write may be lost, and the kernel forgets that it was to
    /// be written.
    pub fn fail_sync_after(&self, syncs: u64) {
        self.inner().sync_fails_in = Some(syncs);
    }

    /// The write after so many others fails after a part.
    pub fn fail_write_after(&self, writes: u64) {
        self.inner().write_fails_in = Some(writes);
    }

    /// Bytes that may still be written into new room, from now on.
    pub fn leave_room(&self, bytes: u64) {
        let mut inner = self.inner();
        inner.capacity = inner.used().saturating_add(bytes);
    }

    /// Whether a sync or a write has failed since the last restart.
    pub fn has_failed(&self) -> bool {
        self.inner().failed
    }

    /// Whether the end has come.
    pub fn is_down(&self) -> bool {
        self.inner().down
    }

    /// Goes on with what the end left, with no misfortune ahead.
    pub fn restart(&self, end: End) {
        let inner = &mut *self.inner();
        (inner.fuse, inner.sync_fails_in, inner.write_fails_in) = (None, None, None);
        (inner.failed, inner.down) = (false, false);
        if end == End::PowerCut {
            inner.owed.clear();
            // From "everything that was shown was also written" to "nothing was".
            let share = inner.choices.below(5);
            for change in std::mem::take(&mut inner.renamed) {
                if inner.choices.chance(share, 4) {
                    change.apply(&mut inner.durable_names);
                }
            }
            inner.names = inner.durable_names.clone();
        }
        for file in inner.files.values_mut() {
            let share = if end == End::PowerCut { inner.choices.below(5) } else { inner.choices.below(2) };
            file.write_back(&mut inner.choices, share);
            if end == End::PowerCut {
                file.shown = file.platter.clone();
                file.dirty.clear();
                file.dirty_len = false;
            }
        }
        let kept: BTreeSet<u64> = inner.names.values().chain(inner.durable_names.values()).copied().collect();
        inner.files.retain(|inode, _| kept.contains(inode));
    }

    /// Everything as it is.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.inner().clone())
    }

    /// Back to a snapshot; choices made since stay made.
    pub fn restore(&self, snapshot: &Snapshot) {
        let mut inner = self.inner();
        let choices = inner.choices.clone();
        *inner = Inner { choices, ..snapshot.0.clone() };
    }

    /// Every file as the kernel shows it, by name.
    pub fn contents(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let inner = self.inner();
        let shown = |inode: &u64| inner.files.get(inode).map(|file| file.shown.clone()).unwrap_or_default();
        inner.names.iter().map(|(path, inode)| (path.clone(), shown(inode))).collect()
    }

    /// Puts these bytes into a file, in place and on the platter, as damage does; makes the file when there is none.
    pub fn damage(&self, path: &Path, bytes: Vec<u8>) {
        let mut inner = self.inner();
        let inode = match inner.names.get(path) {
            Some(inode) => *inode,
            None => {
                let inode = inner.next_inode();
                inner.names.insert(path.to_owned(), inode);
                inner.durable_names.insert(path.to_owned(), inode);
                inode
            }
        };
        let file = SimFile { platter: bytes.clone(), shown: bytes, ..SimFile::default() };
        inner.files.insert(inode, file);
    }

    /// Deletes a file for good.
    pub fn lose(&self, path: &Path) {
        let mut inner = self.inner();
        inner.names.remove(path);
        inner.durable_names.remove(path);
    }
}

impl Inner {
    fn used(&self) -> u64 {
        self.names
            .values()
            .filter_map(|inode| self.files.get(inode))
            .map(|file| file.shown.len() as u64)
            .sum()
    }

    fn next_inode(&self) -> u64 {
        self.files.last_key_value().map_or(1, |(inode, _)| inode + 1)
    }

    /// Before each operation that reads.
    fn reads(&mut self) -> io::Result<()> {
        if self.down { Err(io::Error::other("the process is gone")) } else { Ok(()) }
    }

    /// Before each operation that changes something: whether it is to be the last, and only half done.
    fn changes(&mut self) -> io::Result<bool> {
        self.reads()?;
        for inode in std::mem::take(&mut self.owed) {
            if let Some(file) = self.files.get_mut(&inode) {
                file.write_all_back();
            }
        }
        match &mut self.fuse {
            Some(0) => {
                self.down = true;
                Ok(true)
            }
            Some(left) => {
                *left -= 1;
                Ok(false)
            }
            None => Ok(false),
        }
    }

    /// Whether this sync is the one to fail.
    fn sync_fails(&mut self) -> bool {
        let fails = is_due(&mut self.sync_fails_in);
        self.failed |= fails;
        fails
    }

    fn write_fails(&mut self) -> bool {
        let fails = is_due(&mut self.write_fails_in);
        self.failed |= fails;
        fails
    }

    fn change_names(&mut self, change: Renamed) -> io::Result<()> {
        let last = self.changes()?;
        // At the very end it has happened or not.
        if !last || self.choices.chance(1, 2) {
            change.apply(&mut self.names);
            self.renamed.push(change);
        }
        self.reads()
    }

    fn file(&mut self, inode: u64) -> io::Result<&mut SimFile> {
        self.files.get_mut(&inode).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn inode(&self, path: &Path) -> io::Result<u64> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn stat(&mut self, inode: u64) -> io::Result<Stat> {
        self.reads()?;
        let links = self.names.values().filter(|named| **named == inode).count() as u64;
        let len = self.file(inode)?.shown.len() as u64;
        Ok(Stat { inode, links, len })
    }
}

/// Counts down to a failure.
fn is_due(left: &mut Option<u64>) -> bool {
    *left = match *left {
        Some(0) => {
            *left = None;
            return true;
        }
        Some(more) => Some(more - 1),
        None => None,
    };
    false
}

impl Renamed {
    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Self::Gone(path) => {
                names.remove(path);
            }
            Self::Named { from, to, inode } => {
                if let Some(from) = from {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
        }
    }
}

impl SimFile {
    fn resize(&mut self, len: usize) {
        self.shown.resize(len, 0);
        self.dirty.retain(|sector| sector * SECTOR_BYTES < len);
        self.dirty_len = true;
    }

    fn write(&mut self, bytes: &[u8], offset: usize) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len();
        if end > self.shown.len() {
            self.resize(end);
        }
        self.shown[offset..end].copy_from_slice(bytes);
        self.dirty.extend(offset / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES);
    }

    /// Writes each dirty sector and the length to the platter, each by a share of quarters.
    fn write_back(&mut self, choices: &mut Choices, share: u64) {
        if self.dirty_len && choices.chance(share, 4) {
            self.platter.resize(self.shown.len(), 0);
            self.dirty_len = false;
        }
        let dirty = std::mem::take(&mut self.dirty);
        for sector in dirty {
            if choices.chance(share, 4) {
                self.write_sector(sector);
            } else {
                self.dirty.insert(sector);
            }
        }
    }

    fn write_sector(&mut self, sector: usize) {
        let start = sector * SECTOR_BYTES;
        let end = (start + SECTOR_BYTES).min(self.shown.len());
        if self.platter.len() < end {
            self.platter.resize(end, 0);
        }
        self.platter[start..end].copy_from_slice(&self.shown[start..end]);
    }

    fn write_all_back(&mut self) {
        self.platter.resize(self.shown.len(), 0);
        self.dirty_len = false;
        for sector in std::mem::take(&mut self.dirty) {
            self.write_sector(sector);
        }
    }
}

struct SimHandle {
    disk: SimDisk,
    inode: u64,
}

impl DiskFile for SimHandle {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let inner = &mut *self.disk.inner();
        inner.reads()?;
        let short = inner.short_reads && inner.choices.chance(1, 8);
        let wanted = if short { 1 + inner.choices.below(bytes.len() as u64) as usize } else { bytes.len() };
        let shown = &inner.file(self.inode)?.shown;
        let rest = shown.get(offset as usize..).unwrap_or_default();
        let read = rest.len().min(wanted).min(bytes.len());
        bytes[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let inner = &mut *self.disk.inner();
        let last = inner.changes()?;
        let fails = inner.write_fails();
        let end = offset + bytes.len() as u64;
        let grows = end.saturating_sub(inner.file(self.inode)?.shown.len() as u64);
        let full = inner.used().saturating_add(grows) > inner.capacity && grows > 0;
        let part = if last || fails || full {
            inner.choices.below(bytes.len() as u64) as usize
        } else {
            bytes.len()
        };
        inner.file(self.inode)?.write(&bytes[..part], offset as usize);
        inner.reads()?;
        if full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if fails { Err(io::Error::other("bad sector")) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let inner = &mut *self.disk.inner();
        let last = inner.changes()?;
        if last || inner.sync_fails() {
            let mut choices = inner.choices.clone();
            let share = choices.below(5);
            let file = inner.file(self.inode)?;
            file.write_back(&mut choices, share);
            if !last {
                // The kernel forgets what it could not write: it is shown, and never written.
                file.dirty.clear();
                file.dirty_len = false;
            }
            inner.choices = choices;
            inner.reads()?;
            return Err(io::Error::other("input/output error"));
        }
        match inner.sync {
            Sync::Honest => inner.file(self.inode)?.write_all_back(),
            Sync::Lying => {}
            Sync::Late => {
                inner.owed.insert(self.inode);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let inner = &mut *self.disk.inner();
        let last = inner.changes()?;
        if !last || inner.choices.chance(1, 2) {
            inner.file(self.inode)?.resize(len as usize);
        }
        inner.reads()
    }

    fn stat(&self) -> io::Result<Stat> {
        self.disk.inner().stat(self.inode)
    }

    /// The platter has no memory before it.
    fn forget(&self) {}
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, _write: bool) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.inner();
        inner.reads()?;
        let inode = inner.inode(path)?;
        Ok(Arc::new(SimHandle { disk: self.clone(), inode }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.inner();
        let inode = match inner.names.get(path) {
            Some(inode) => {
                let inode = *inode;
                if !inner.changes()? {
                    inner.file(inode)?.resize(0);
                }
                inner.reads()?;
                inode
            }
            None => {
                let inode = inner.next_inode();
                inner.files.insert(inode, SimFile::default());
                inner.change_names(Renamed::Named { from: None, to: path.to_owned(), inode })?;
                inode
            }
        };
        Ok(Arc::new(SimHandle { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        let inode = inner.inode(from)?;
        inner.change_names(Renamed::Named { from: Some(from.to_owned()), to: to.to_owned(), inode })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner();
        inner.inode(path)?;
        inner.change_names(Renamed::Gone(path.to_owned()))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let mut inner = self.inner();
        inner.reads()?;
        Ok(inner.names.keys().filter(|path| path.parent() == Some(folder)).cloned().collect())
    }

    fn make_folder(&self, _folder: &Path) -> io::Result<()> {
        self.inner().reads()
    }

    fn sync_folder(&self, _folder: &Path) -> io::Result<()> {
        let inner = &mut *self.inner();
        let last = inner.changes()?;
        let renamed = std::mem::take(&mut inner.renamed);
        if last || inner.sync_fails() {
            for change in renamed {
                if inner.choices.chance(1, 2) {
                    change.apply(&mut inner.durable_names);
                } else {
                    inner.renamed.push(change);
                }
            }
            return Err(io::Error::other("input/output error"));
        }
        if inner.sync != Sync::Lying {
            inner.durable_names = inner.names.clone();
        } else {
            inner.renamed = renamed;
        }
        Ok(())
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        let mut inner = self.inner();
        inner.reads()?;
        let inode = inner.inode(path)?;
        inner.stat(inode)
    }

    fn space(&self, _folder: &Path) -> io::Result<Space> {
        let mut inner = self.inner();
        inner.reads()?;
        let free_bytes = inner.capacity.saturating_sub(inner.used());
        Ok(Space { free_bytes, total_bytes: inner.capacity })
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        let exists = self.inner().names.contains_key(path);
        if !exists {
            self.create(path)?;
        }
        Ok(Some(Arc::new(())))
    }
}

/// How a journal is run by hand.
#[derive(Clone)]
pub struct Settings {
    /// The log's name.
    pub origin: String,
    /// Length of a segment, in bytes; any.
    pub segment_bytes: u64,
    /// Most bytes of a group.
    pub group_bytes: usize,
    /// The clock, ms since 1970.
    pub clock: Arc<AtomicU64>,
}

impl Settings {
    fn options(&self) -> Options {
        let clock = Arc::clone(&self.clock);
        Options {
            segment_bytes: self.segment_bytes,
            group_bytes: self.group_bytes,
            reserve_percent: 0,
            reserve_segments: 0,
            image: false,
            on_fatal: |_| {},
            hooks: Hooks { clock: Some(Arc::new(move || clock.load(Ordering::Relaxed))), ..Hooks::default() },
            ..Options::new(FOLDER, self.origin.clone())
        }
    }
}

/// The files of the epochs' keys on a simulated disk: each replaced as a whole, durable before the call returns.
pub struct SimEpochs(SimDisk);

impl SimEpochs {
    /// The first epoch of a log, on the platter.
    pub fn new(disk: &SimDisk, origin: &str) -> Self {
        disk.damage(&Self::path(EpochFile::Current), epoch::first_epoch(origin).to_vec());
        Self(disk.clone())
    }

    fn path(file: EpochFile) -> PathBuf {
        keys_folder().join(match file {
            EpochFile::Current => "epoch",
            EpochFile::Next => "epoch.next",
        })
    }

    fn remove_path(&self, path: &Path) -> io::Result<()> {
        match self.0.remove(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => removed?,
        }
        self.0.sync_folder(&keys_folder())
    }
}

fn keys_folder() -> PathBuf {
    Path::new(FOLDER).join("keys")
}

impl EpochFiles for SimEpochs {
    fn load(&self, file: EpochFile) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        match disk::read_all(&self.0, &Self::path(file)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            content => Ok(Some(Zeroizing::new(content?))),
        }
    }

    fn replace(&self, file: EpochFile, content: &[u8]) -> io::Result<()> {
        let temporary = keys_folder().join("new");
        let made = self.0.create(&temporary)?;
        made.write_all_at(content, 0)?;
        made.sync()?;
        self.0.rename(&temporary, &Self::path(file))?;
        self.0.sync_folder(&keys_folder())
    }

    fn remove(&self, file: EpochFile) -> io::Result<()> {
        self.remove_path(&Self::path(file))
    }

    fn tidy(&self) -> io::Result<()> {
        self.remove_path(&keys_folder().join("new"))
    }
}

/// Where the journal's files are on the disk.
pub fn journal_folder() -> PathBuf {
    folder::journal_folder(Path::new(FOLDER))
}

/// A journal without threads: what they would do is done when it is called for. The index of hosted
/// rows follows each group at once.
pub struct Journal {
    sequencer: Sequencer,
    keeper: KeeperTask,
    guard: Guard,
    released: Arc<Released>,
    stop: Arc<Stop>,
    crypt: Arc<Crypt>,
    state: Arc<State>,
    reader: Reader,
    rotation: Arc<Rotation>,
    key: VerifierKey,
    hooks: Hooks,
    group_bytes: usize,
    /// A group was written since the last seal.
    unsealed: bool,
    found: Vec<Hash>,
    rows: Rows,
    rows_follower: RowsFollower,
}

/// The findings of [`verify`].
#[derive(Debug, PartialEq, Eq)]
pub struct Verified {
    /// Hashes of all leaves.
    pub leaves: Vec<Hash>,
    /// Digest of the state that replay gives.
    pub state_digest: Hash,
}

/// Reads and checks the whole journal and changes nothing.
///
/// # Errors
/// Like [`crate::verify_log`].
pub fn verify(disk: &SimDisk, settings: &Settings, keys: &LedgerKeys) -> Result<Verified, OpenError> {
    let options = settings.options();
    let signer = signer(&options, keys)?;
    let crypt = Arc::new(Crypt::new(&options.origin, keys));
    let state = State::new(Arc::clone(&crypt), options.idempotency_per_organisation);
    let folders = Folders::new(Arc::new(disk.clone()), &options);
    let found = Found::look(folders, &signer, None, Reading::Check)?;
    let (mut leaves, mut changes) = (Vec::new(), Changes::default());
    found.walk::<OpenError>(&Cursor::start(), &mut |position, frame, hashes| {
        apply_frame(&crypt, &state, position, frame, hashes, &mut changes)?;
        leaves.extend_from_slice(hashes);
        Ok(())
    })?;
    Ok(Verified { leaves, state_digest: state.digest() })
}

impl Journal {
    /// Starts on what the disk shows, as [`crate::Ledger::open`] does.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn open(disk: &SimDisk, settings: &Settings, keys: &LedgerKeys) -> Result<Self, OpenError> {
        let options = settings.options();
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let signer = signer(&options, keys)?;
        let lock = lock(&*disk, &options.folder)?;
        let folders = Folders::new(Arc::clone(&disk), &options);
        let found = Found::look(folders.clone(), &signer, None, Reading::Start)?;
        let crypt = Arc::new(Crypt::new(&options.origin, keys));
        let closed = found.check_keys(&crypt)?;
        let epochs = epoch::Loaded::read(&*keys.epochs, &options.origin)?;
        epochs.install(&crypt);
        let state = Arc::new(State::new(Arc::clone(&crypt), options.idempotency_per_organisation));
        let mut leaves = Vec::new();
        let end = found.replay::<OpenError>(&crypt, &state, &Cursor::start(), &mut |_, frame| {
            leaves.extend(frame.leaves().map(|leaf| leaf_hash(leaf)));
            Ok(())
        })?;
        epochs.complete(&crypt, &state)?;
        if !closed {
            found.check_clock(&options, &end)?;
        }
        let row_files = Files::new(Arc::clone(&disk), &options.folder, &options.origin);
        let rows = check::load(&row_files, &state)?;
        let (guard, current, cursor) = found.go_on(end, options.segment_bytes, &signer)?;
        let durable = epochs.settle(&*keys.epochs, &crypt, &state)?;
        check::sweep(&row_files, &rows);
        let held = Arc::downgrade(&lock);
        let rotation = Arc::new(Rotation::new(Arc::clone(&keys.epochs), &options.origin, durable, held));

        let stop = Arc::new(Stop::new(options.on_fatal));
        let keeper = Arc::new(Keeper::new(current.number + 1));
        for file in found.files() {
            keeper.watch_over(&*disk, file).map_err(OpenError::io("looking at the journal's files"))?;
        }
        let folder = folder::journal_folder(&options.folder);
        let task = KeeperTask {
            keeper: Arc::clone(&keeper),
            disk: Arc::clone(&disk),
            folder,
            segment_bytes: options.segment_bytes,
            reserve_percent: options.reserve_percent,
            reserve_segments: options.reserve_segments,
            hooks: options.hooks.clone(),
            stop: Arc::clone(&stop),
            lock: Arc::clone(&lock),
        };
        let released = Arc::new(Released::new(cursor.mark()));
        let key = signer.key.clone();
        // Nobody follows: tiles, image and guard thread are not there.
        let (tiles, image, guard_ends) = (bounded(1).0, Feed::new(Arc::new(Failing::new())).0, bounded(1).0);
        let followers = Followers::new(tiles, image, None, key.clone());
        let (rows, rows_feed, rows_follower) =
            Rows::new(row_files, rows, &crypt, &state, &keeper, &stop, &lock);
        let sequencer = Sequencer {
            receiver: bounded(1).1,
            crypt: Arc::clone(&crypt),
            state: Arc::clone(&state),
            signer,
            current,
            cursor,
            keeper,
            stop: Arc::clone(&stop),
            followers,
            rows: rows_feed,
            released: Arc::clone(&released),
            guard_ends,
            closed: Arc::default(),
            durable: Arc::new(AtomicU64::new(leaves.len() as u64)),
            group_entries: options.group_entries,
            group_bytes: options.group_bytes,
            clock: Clock::new(options.hooks.now_ms()),
            hooks: options.hooks.clone(),
            lock,
        };
        Ok(Self {
            sequencer,
            keeper: task,
            guard,
            released,
            stop,
            crypt,
            state,
            reader: Reader::new(folders),
            rotation,
            key,
            hooks: options.hooks,
            group_bytes: options.group_bytes,
            unsealed: false,
            found: leaves,
            rows,
            rows_follower,
        })
    }

    /// Hashes of the leaves that the start found.
    pub fn found(&self) -> &[Hash] {
        &self.found
    }

    /// One group, judged, made durable, applied and answered as the sequencer's thread does.
    pub fn commit(&mut self, commands: Vec<Command>) -> Vec<Result<Outcome, Refused>> {
        // The thread would wait for the keeper's.
        self.keep();
        let admit = |command: Command| {
            // Segments count as submitted from now on. One that a test has written by itself is not looked at.
            let _ = self.rows.admits(&command.permit_or_denial.record);
            Submission::admit(command, self.group_bytes)
        };
        let admitted: Vec<_> = commands.into_iter().map(admit).collect();
        let mut group = Vec::new();
        let mut replies = Vec::new();
        for admitted in admitted {
            match admitted {
                Ok((submission, reply)) => {
                    group.push(submission);
                    replies.push(Ok(reply));
                }
                Err(refused) => replies.push(Err(refused)),
            }
        }
        self.unsealed |= self.sequencer.commit_by_hand(group);
        self.rows_follower.step();
        let answer = |reply: Result<Reply, Refused>| reply?.settled();
        replies.into_iter().map(answer).collect()
    }

    /// Like [`crate::Ledger::rotate`]; with what became of each of its commands.
    pub fn rotate(
        &mut self,
        entry: impl Fn(&Record) -> Prepared,
    ) -> (Result<u32, RotateError>, Vec<Result<Outcome, Refused>>) {
        let (rotation, crypt, state) =
            (Arc::clone(&self.rotation), Arc::clone(&self.crypt), Arc::clone(&self.state));
        let (this, replies) = (RefCell::new(self), RefCell::new(Vec::new()));
        let rotated = rotation.run(&crypt, &state, |record| {
            let reply = this.borrow_mut().commit(vec![unconditional(entry(&record))]).pop();
            let reply = reply.unwrap_or(Err(Refused::Stopped));
            let known = match &reply {
                Ok(Outcome::Committed(_)) => Ok(()),
                Ok(Outcome::Changed) => Err(Refused::Malformed("a key event that is not the next one")),
                Err(refused) => Err(*refused),
            };
            replies.borrow_mut().push(reply);
            known
        });
        (rotated, replies.into_inner())
    }

    /// The number of the segment that frames are appended to.
    pub fn segment(&self) -> u32 {
        self.sequencer.current.number
    }

    /// The sequencer's work when nothing comes.
    pub fn idle(&mut self) {
        if std::mem::take(&mut self.unsealed) {
            self.sequencer.seal_by_hand();
        }
    }

    /// The keeper's work: free space, closed segments, the next segment.
    pub fn keep(&mut self) {
        if !self.stop.is_stopped() {
            self.keeper.keeper.hurry();
            self.keeper.step();
        }
    }

    /// The keeper's work of each second: looks for every file.
    pub fn inspect(&mut self) {
        self.keeper.inspect();
    }

    /// The guard's work.
    pub fn guard(&mut self) {
        if let Err(error) = self.guard.write(self.released.get()) {
            self.stop.fatal(&error.to_string());
        }
    }

    /// Why it has stopped, if it has.
    pub fn stopped(&self) -> Option<String> {
        self.stop.cause()
    }

    /// The state: durable entries only.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The hosted rows.
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// The key that checkpoints are verified with.
    pub fn verifier_key(&self) -> &VerifierKey {
        &self.key
    }

    /// Like [`crate::Ledger::seal_subject`].
    pub fn seal_subject(&self, part: u16, holders: &[HolderKey], plaintext: &[u8]) -> Vec<u8> {
        self.crypt.seal_subject(part, holders, self.hooks.now_ms(), plaintext)
    }

    /// Like [`crate::Ledger::new_holder`].
    pub fn new_holder(&self, key: Key) -> PreparedHolder {
        self.crypt.new_holder(key, crate::STANDARD, self.hooks.now_ms())
    }

    /// Like [`crate::Ledger::open_subject`].
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn open_subject(&self, position: Position) -> Result<Vec<u8>, ReadError> {
        let part = self.reader.part(position)?;
        self.crypt.open_subject(&part, |name| self.state.part_key(name))
    }

    /// Like [`crate::Ledger::original`].
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn original(&self, bound: &Bound) -> Result<(Vec<u8>, Committed), ReadError> {
        let bytes = self.reader.frame(bound.frame)?;
        let frame = Frame::parse(&bytes).map_err(ReadError::Malformed)?;
        let plain = self.crypt.open_state(frame.state, frame.head.day, frame.head.number)?;
        Ok((self.open_subject(bound.answer)?, committed_again(&frame, &plain, bound.index)?))
    }
}
