//! The handle: what the gateway holds.

use crate::{
    Hash, Key, Label, Position,
    clock::Clock,
    crypt::{Crypt, HolderKey, KeyedHash, LedgerKeys, PreparedHolder, ReadError, is_sealed_for},
    entry::{self, OpenedEntry},
    epoch::{RotateError, Rotation},
    followers::Followers,
    frame::Frame,
    guard::Released,
    image::{Feed, Followed, Follower},
    index::{HolderProof, Index},
    record::{Record, StateDigest},
    recovery::{self, Recovered, Start},
    scrub::{Scrub, ScrubTask},
    segment::{Folders, Keeper, KeeperTask, Reader, is_archived},
    sequencer::{
        Command, Committed, Message, Outcome, Prepared, Refused, Reply, Sequencer, Submission,
        committed_again,
    },
    state::{Bound, State},
    store::Engine,
    tiles::{self, Tiles},
};
use crossbeam_channel::{Sender, TrySendError, bounded, unbounded};
use std::{
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use verifier::{
    leaf::{LEAF_BYTES, LeafKind},
    merkle::{consistency_from, inclusion_from},
    note::VerifierKey,
    proof::TlogProof,
};

/// Exit status after a failed write or sync (`EX_IOERR` of `sysexits.h`).
const EXIT_IO: i32 = 74;
/// Largest segment: offsets in a position have 32 bits.
const MAX_SEGMENT_BYTES: u64 = 1 << 30;
/// Priority of the threads that no answer waits for: a quarter of a processor that another wants too.
const BEHIND_NICE: i32 = 5;
/// Room in a segment beside two full groups.
const SEGMENT_SLACK_BYTES: u64 = 64 << 10;

/// How a ledger is opened.
#[derive(Clone)]
pub struct Options {
    /// The data folder; the ledger uses `journal`, `tiles` and `store` in it.
    pub folder: PathBuf,
    /// The log's name: scheme-less URL; no spaces, plus signs or control characters. Never changes for a journal.
    pub origin: String,
    /// Length of a segment file, in bytes; at least twice `group_bytes` and 64 KiB more, at most 1 GiB.
    pub segment_bytes: u64,
    /// Below this share of the file system the journal counts as full.
    pub reserve_percent: u8,
    /// And below this many segments.
    pub reserve_segments: u32,
    /// Commands waiting; more are refused as overloaded.
    pub queue: usize,
    /// Most entries of a group.
    pub group_entries: usize,
    /// Most bytes of a group.
    pub group_bytes: usize,
    /// Whether to keep a restart image. Without one every start replays the whole journal.
    pub image: bool,
    /// What the restart image is kept in. Another engine begins with an image made anew.
    pub engine: Engine,
    /// Asked before the process opens a restart image: whether the engine can read it. It should find out with
    /// [`crate::check_store`] in a process of its own and within a time limit, because an engine that meets damage may
    /// panic in its own threads, hang or abort. The error says what happened; the image is then made anew.
    pub probe: Shared<Probe>,
    /// Where closed segments are moved by [`crate::archive`]; read too wherever the journal is read.
    pub archive: Option<PathBuf>,
    /// A snapshot is made after so many closed segments, if the journal has grown by many times the last one.
    pub snapshot_segments: u32,
    /// And after this time. Without a change of the state none is made.
    pub snapshot_interval: Duration,
    /// How fast closed segments are read again to find damage, in bytes.
    pub scrub_bytes_per_second: u64,
    /// Live idempotency keys of one organisation; beyond it the oldest is dropped.
    pub idempotency_per_organisation: usize,
    /// How often the index root is put into the log when a holder's sequence has grown; `None` = never.
    pub index_roots: Option<Duration>,
    /// Start although the clock is far ahead of the journal or behind it: the operator has looked at it.
    pub accept_clock: bool,
    /// Asked when the clock is more than 72 h after the journal's last entry: whether it is known to be right by other
    /// means, such as a time service. The default always says so.
    pub clock_is_kept: fn() -> bool,
    /// Called once, with the cause, when the ledger cannot go on. The default logs it and exits with status 74; one
    /// that returns leaves a ledger that refuses everything as stopped.
    pub on_fatal: fn(&str),
    /// The journal must hold at least this many entries, because others have seen as many: what witnesses cosigned.
    pub least_size: u64,
    /// For tests; empty otherwise.
    pub hooks: Hooks,
}

impl Options {
    /// The defaults for a data folder and an origin.
    pub fn new(folder: impl Into<PathBuf>, origin: impl Into<String>) -> Self {
        Self {
            folder: folder.into(),
            origin: origin.into(),
            segment_bytes: 64 << 20,
            reserve_percent: 5,
            reserve_segments: 2,
            queue: 4096,
            group_entries: 1024,
            group_bytes: 4 << 20,
            image: true,
            engine: Engine::default(),
            probe: None,
            archive: None,
            snapshot_segments: 10,
            snapshot_interval: Duration::from_secs(3600),
            scrub_bytes_per_second: 1 << 20,
            idempotency_per_organisation: 1_000_000,
            index_roots: None,
            accept_clock: false,
            clock_is_kept: || true,
            on_fatal: exit,
            least_size: 0,
            hooks: Hooks::default(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let group = self.group_bytes as u64;
        if self.segment_bytes > MAX_SEGMENT_BYTES
            || group.saturating_mul(2).saturating_add(SEGMENT_SLACK_BYTES) > self.segment_bytes
        {
            return Err(OpenError::Options("segment_bytes is not between two groups + 64 KiB and 1 GiB"));
        }
        if self.queue == 0 || self.group_entries == 0 || self.reserve_percent > 100 {
            return Err(OpenError::Options("queue, group_entries or reserve_percent is out of range"));
        }
        Ok(())
    }
}

fn exit(cause: &str) {
    tracing::error!(cause, "the journal cannot go on");
    std::process::exit(EXIT_IO);
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

type Shared<F> = Option<Arc<F>>;
type Probe = dyn Fn(&Path, Engine) -> Result<(), String> + Send + Sync;
type LaidOutHook = dyn Fn(&mut [u8]) + Send + Sync;
type SpaceHook = dyn Fn(&Path) -> io::Result<Space> + Send + Sync;

/// Places where a test may step in. All are empty in production.
///
/// In builds with debug assertions the environment variable `MIAOXIANG_FAILPOINT` does the same for a whole process.
/// With `:N` behind it, it begins with the N-th group, without with the first:
///
/// * `after-sync-abort` aborts between the group's sync and the release of its answers,
/// * `after-sync-hold` holds the sequencer there for good,
/// * `answer-unwritten` answers it and every later group without writing them: what a kill finds when answers leave
///   before the write,
/// * `ignore-write-error` answers although the write or the sync failed.
///
/// The last two are the faults that the rigs must find, and so is `rotation-unreplaced`: a change of epoch destroys the
/// old key although the new file was never written. `rotation-prepared`, `rotation-begun`, `rotation-replaced` and
/// `rotation-wiped` abort it after steps 1 to 4 of a change of epoch.
#[derive(Clone, Default)]
pub struct Hooks {
    /// Before a frame is written, with its number; an error stands for a failed write.
    pub before_write: Shared<dyn Fn(u64) -> io::Result<()> + Send + Sync>,
    /// When a frame's content is laid out in memory, before it is compared with what was admitted: a bit may flip here.
    pub laid_out: Shared<LaidOutHook>,
    /// Between a frame's sync and the release of its answers, with its number.
    pub after_sync: Shared<dyn Fn(u64) + Send + Sync>,
    /// Before tiles are written; an error stands for a failed write.
    pub tiles_write: Shared<dyn Fn() -> io::Result<()> + Send + Sync>,
    /// In place of `statvfs`.
    pub free_space: Shared<SpaceHook>,
    /// In place of the wall clock: ms since 1970.
    pub clock: Shared<dyn Fn() -> u64 + Send + Sync>,
}

impl Hooks {
    pub(crate) fn now_ms(&self) -> u64 {
        match &self.clock {
            Some(clock) => clock(),
            None => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            }
        }
    }

    pub(crate) fn before_write(&self, frame: u64) -> io::Result<()> {
        self.before_write.as_ref().map_or(Ok(()), |hook| hook(frame))
    }

    pub(crate) fn laid_out(&self, content: &mut [u8]) {
        if let Some(hook) = &self.laid_out {
            hook(content);
        }
    }

    pub(crate) fn tiles_write(&self) -> io::Result<()> {
        self.tiles_write.as_ref().map_or(Ok(()), |hook| hook())
    }

    pub(crate) fn after_sync(&self, frame: u64) {
        if let Some(hook) = &self.after_sync {
            hook(frame);
        }
    }
}

/// Why a ledger cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// An option is out of range (operator).
    #[error("{0}")]
    Options(&'static str),
    /// Another process has the journal open (operator).
    #[error("another process has the journal open")]
    Locked,
    /// The file system failed.
    #[error("{what} failed: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The cause.
        error: io::Error,
    },
    /// The log's key or name cannot be used, or the keys are not those of this journal (operator).
    #[error("{0}")]
    Keys(&'static str),
    /// A frame that was acknowledged, or may have been, is damaged: never start from a guess.
    #[error("segment {segment} is damaged at offset {offset}: {why}")]
    Corrupt {
        /// The segment's number.
        segment: u32,
        /// Where the damage begins.
        offset: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// A segment that is needed is not there: it was archived and the archive is away, or it is lost.
    #[error("segment {segment} is needed and is neither in the journal nor in the archive")]
    Missing {
        /// The segment's number.
        segment: u32,
    },
    /// A start may need a segment that was to be archived (operator).
    #[error("segments from {limit} on may be needed by a start: archive before {limit} instead of {before}")]
    NotYet {
        /// What was asked for.
        before: u32,
        /// Segments below this can be archived; 0 until the second snapshot.
        limit: u32,
    },
    /// The journal is older than what was made from it, a published or cosigned checkpoint, the restart image or a snapshot:
    /// it was rolled back, or swapped.
    #[error("the log has shown size {published}, which the journal of size {journal} does not confirm")]
    RolledBack {
        /// The largest size seen: published, cosigned, or in the restart image or a snapshot.
        published: u64,
        /// Entries in the journal.
        journal: u64,
    },
    /// Entries that were answered from are not in the journal: it was cut short, or rolled back.
    #[error(
        "the log answered from {guard} entries by its guard, the journal ends after {journal}: it was cut short or rolled back"
    )]
    CutShort {
        /// Entries by the guard; as many as in the journal when only a seal is missing.
        guard: u64,
        /// Entries in the journal.
        journal: u64,
    },
    /// The clock is not where the journal's last entry lets it be (operator): entries made by it could not be unmade, as
    /// journal time never goes back.
    #[error(
        "the clock says {}, {how} the journal's last entry of {}: set the clock, or start once with --accept-clock if it is \
         right; nothing was changed",
        moment(.clock), moment(.journal)
    )]
    Clock {
        /// By the clock, ms since 1970.
        clock: u64,
        /// How it stands to the journal: behind it, or too far after it.
        how: &'static str,
        /// By the journal, ms since 1970.
        journal: u64,
    },
    /// The guard cannot be used, so that a journal which lost its end would go unnoticed.
    #[error("{0}")]
    Guard(&'static str),
}

fn moment(ms: &u64) -> String {
    schemas::date::rfc3339(*ms)
}

impl OpenError {
    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { what, error }
    }
}

/// What opening found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Entries in the log.
    pub size: u64,
    /// Entries replayed.
    pub replayed: u64,
    /// Replay began at a restart image.
    pub from_image: bool,
    /// Replay began at a snapshot of this size, which the journal confirms.
    pub from_snapshot: Option<u64>,
    /// The last frame was torn and is dropped; nobody was answered from it.
    pub torn: bool,
    /// Bytes copied from the end of the last segment into a new one.
    pub tail_bytes: u64,
}

/// How much the state holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Licenses.
    pub licenses: usize,
    /// Grants.
    pub grants: usize,
    /// Holders.
    pub holders: usize,
    /// Documents.
    pub documents: usize,
    /// Live idempotency keys.
    pub idempotency: usize,
}

/// How the ledger is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Below the reserve: commands are refused as full.
    pub journal_full: bool,
    /// Why the ledger has stopped, if it has.
    pub stopped: Option<String>,
    /// Commands waiting.
    pub queue: usize,
    /// How many may wait; more are refused as overloaded.
    pub queue_capacity: usize,
    /// Durable entries that the restart image does not hold yet; 0 without an image.
    pub image_lag: u64,
    /// Closed segments that the scrub found damaged or gone.
    pub damaged_segments: usize,
    /// Tiles that the scrub found damaged and could not mend: what is served of them is wrong.
    pub damaged_tiles: usize,
    /// What is derived and does not keep up: a write failed and is tried again, or its thread has ended.
    pub failing: Vec<Derived>,
}

/// What is derived from the journal behind the answers, each by a thread of its own. Nothing is decided by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Derived {
    /// The public log: tiles, entry bundles and published checkpoint stand still.
    Tiles,
    /// The restart image and the snapshots: the next start replays more.
    Image,
    /// The index roots: traces have no proof of their end.
    Index,
    /// The reading again of closed segments and tiles: damage goes unnoticed.
    Scrub,
}

impl Derived {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tiles, Self::Image, Self::Index, Self::Scrub];

    /// Its name in metrics and in the health's text.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tiles => "tiles",
            Self::Image => "image",
            Self::Index => "index",
            Self::Scrub => "scrub",
        }
    }
}

/// Which of the derived do not keep up. Set by their own threads.
pub(crate) struct Failing([AtomicBool; Derived::ALL.len()]);

impl Failing {
    pub(crate) fn new() -> Self {
        let failing = Self(Default::default());
        Derived::ALL.into_iter().for_each(|what| failing.set(what, false));
        failing
    }

    pub(crate) fn set(&self, what: Derived, fails: bool) {
        self.0[what as usize].store(fails, Ordering::Release);
        metrics::gauge!("miaoxiang_derived_failing", "what" => what.name()).set(f64::from(u8::from(fails)));
    }

    fn list(&self) -> Vec<Derived> {
        let fails = |what: &Derived| self.0[*what as usize].load(Ordering::Acquire);
        Derived::ALL.into_iter().filter(fails).collect()
    }
}

/// The end of all answering.
pub(crate) struct Stop {
    stopped: AtomicBool,
    /// The sequencer takes nothing any more: what is queued from now on is never answered.
    ended: AtomicBool,
    cause: Mutex<Option<String>>,
    on_fatal: fn(&str),
}

impl Stop {
    pub(crate) fn new(on_fatal: fn(&str)) -> Self {
        Self {
            stopped: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            cause: Mutex::new(None),
            on_fatal,
        }
    }

    /// Said by the sequencer before it empties the queue for the last time.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Stops the ledger; only the first cause counts.
    pub(crate) fn fatal(&self, cause: &str) {
        {
            let mut known = self.cause.lock().unwrap_or_else(PoisonError::into_inner);
            if known.is_some() {
                return;
            }
            *known = Some(cause.to_owned());
            self.stopped.store(true, Ordering::Release);
        }
        (self.on_fatal)(cause);
    }

    pub(crate) fn cause(&self) -> Option<String> {
        self.cause.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A handle on the ledger; clones share it. Dropping the last one drains and seals in the background; use
/// [`Ledger::close`] to wait for that.
#[derive(Clone)]
pub struct Ledger(Arc<Inner>);

struct Inner {
    sender: Sender<Message>,
    group_bytes: usize,
    crypt: Arc<Crypt>,
    keyed: KeyedHash,
    state: Arc<State>,
    reader: Arc<Reader>,
    scrub: Arc<Scrub>,
    failing: Arc<Failing>,
    tiles: Arc<Tiles>,
    verifier_key: VerifierKey,
    keeper: Arc<Keeper>,
    stop: Arc<Stop>,
    durable: Arc<AtomicU64>,
    closed: Arc<AtomicBool>,
    /// `None` without a restart image.
    image: Option<Followed>,
    rotation: Rotation,
    /// The map over all holders; `None` when no index root is made.
    index: Option<Arc<Index>>,
    hooks: Hooks,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Ledger {
    /// Opens the journal in `options.folder`, or begins one: takes the lock, verifies and replays the journal,
    /// copies its unsealed tail into a new segment and starts the threads. Blocks while it does.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing of the journal is changed when it is refused.
    pub fn open(options: Options, keys: LedgerKeys) -> Result<(Self, Opened), OpenError> {
        Self::open_from(options, keys, Start::Image, &|_| {}, in_thread)
    }

    /// Like [`Ledger::open`], with the sequencer in the caller's hands (crate feature `sim`): nothing is committed but by
    /// [`ByHand::step`](crate::ByHand::step).
    ///
    /// # Errors
    /// See [`OpenError`].
    #[cfg(feature = "sim")]
    pub fn open_by_hand(options: Options, keys: LedgerKeys) -> Result<(Self, crate::ByHand), OpenError> {
        let mut by_hand = None;
        let (ledger, _) = Self::open_from(options, keys, Start::Image, &|_| {}, |sequencer, _| {
            by_hand = Some(crate::ByHand::new(sequencer));
            Ok(None)
        })?;
        Ok((ledger, by_hand.ok_or(OpenError::Options("the sequencer was not started"))?))
    }

    /// Opens, tells `progress` how many entries are done, and lets the sequencer go with `run`.
    fn open_from(
        options: Options,
        keys: LedgerKeys,
        start: Start,
        progress: &dyn Fn(u64),
        run: impl FnOnce(Sequencer, &Arc<Stop>) -> Result<Option<JoinHandle<()>>, OpenError>,
    ) -> Result<(Self, Opened), OpenError> {
        let Recovered {
            disk,
            lock,
            crypt,
            state,
            signer,
            durable_epoch,
            tiles,
            writer,
            image,
            guard,
            files,
            current,
            cursor,
            slots,
            opened,
        } = recovery::recover(&options, &keys, start, progress)?;
        let stop = Arc::new(Stop::new(options.on_fatal));
        let keeper = Arc::new(Keeper::new(current.number + 1));
        for file in files {
            let watched = keeper.watch_over(&*disk, file.clone());
            // A segment may have been archived since it was listed.
            if watched.is_err() && is_archived(&*disk, &file) {
                continue;
            }
            watched.map_err(OpenError::io("looking at the journal's files"))?;
        }
        let durable = Arc::new(AtomicU64::new(opened.size));
        // The tiles hold every leaf by now, checked against the journal.
        let last = match opened.size.checked_sub(1) {
            Some(last) => tiles.leaf(last).map(Some).map_err(OpenError::io("reading the last leaf"))?,
            None => None,
        };
        let is_close = |leaf: [u8; LEAF_BYTES]| leaf[1] == LeafKind::ShardClose.number();
        let closed = Arc::new(AtomicBool::new(last.is_some_and(is_close)));
        let (sender, receiver) = bounded(options.queue);
        let (tiles_sender, tiles_receiver) = bounded(tiles::QUEUE);
        let failing = Arc::new(Failing::new());
        failing.set(Derived::Image, options.image && image.is_none());
        let (feed, fed) = Feed::new(Arc::clone(&failing));
        let folders = Folders::new(Arc::clone(&disk), &options);
        let reader = Arc::new(Reader::new(folders.clone()));
        let mut threads = Vec::new();

        let task = KeeperTask {
            keeper: Arc::clone(&keeper),
            disk: Arc::clone(&disk),
            folder: recovery::journal_folder(&options.folder),
            segment_bytes: options.segment_bytes,
            reserve_percent: options.reserve_percent,
            reserve_segments: options.reserve_segments,
            hooks: options.hooks.clone(),
            stop: Arc::clone(&stop),
            lock: Arc::clone(&lock),
        };
        // Known before the first command comes.
        task.watch();
        threads.push(spawn("keeper", guarded(&stop, "keeper", move || task.run()))?);

        let released = Arc::new(Released::new(cursor.mark()));
        let (guard_ends, ended) = bounded(0);
        let (held, read, stopped) = (Arc::clone(&lock), Arc::clone(&released), Arc::clone(&stop));
        let task = guarded(&stop, "guard", move || guard.follow(&read, &ended, &stopped));
        threads.push(spawn("guard", move || {
            task();
            drop(held);
        })?);

        let held = Arc::clone(&lock);
        let (from, told, hooks) = (Arc::clone(&reader), Arc::clone(&failing), options.hooks.clone());
        let task = noticed(&failing, Derived::Tiles, move || {
            writer.follow(&tiles_receiver, &from, &told, &hooks);
        });
        threads.push(spawn("tiles", move || {
            task();
            drop(held);
        })?);

        let mut followed = None;
        if let Some(image) = image {
            let covered = opened.size - opened.replayed;
            let (state, tiles) = (Arc::clone(&state), Arc::clone(&tiles));
            let (follower, shared) =
                Follower::new(&options, image, fed, state, tiles, cursor.clone(), slots, covered);
            followed = Some(shared);
            let held = Arc::clone(&lock);
            let task = noticed(&failing, Derived::Image, move || follower.run());
            threads.push(spawn("image", move || {
                task();
                drop(held);
            })?);
        }

        let index =
            options.index_roots.map(|every| (every, Arc::new(Index::new(&state.heads(), opened.size))));
        let (index_sender, index_receiver) = unbounded();

        let verifier_key = signer.key.clone();
        let held = Arc::downgrade(&lock);
        let scrub = Arc::new(Scrub::default());
        let task = ScrubTask {
            scrub: Arc::clone(&scrub),
            folders,
            reader: Arc::clone(&reader),
            tiles: Arc::clone(&tiles),
            key: verifier_key.clone(),
            bytes_per_second: options.scrub_bytes_per_second,
        };
        threads.push(spawn("scrub", noticed(&failing, Derived::Scrub, move || task.run()))?);
        let sequencer = Sequencer {
            receiver,
            crypt: Arc::clone(&crypt),
            state: Arc::clone(&state),
            signer,
            current,
            cursor,
            keeper: Arc::clone(&keeper),
            stop: Arc::clone(&stop),
            followers: Followers::new(
                tiles_sender,
                feed,
                index.is_some().then_some(index_sender),
                verifier_key.clone(),
            ),
            released,
            guard_ends,
            durable: Arc::clone(&durable),
            closed: Arc::clone(&closed),
            group_entries: options.group_entries,
            group_bytes: options.group_bytes,
            clock: Clock::new(options.hooks.now_ms()),
            hooks: options.hooks.clone(),
            lock,
        };
        threads.extend(run(sequencer, &stop)?);

        let ledger = Self(Arc::new(Inner {
            sender,
            group_bytes: options.group_bytes,
            crypt,
            keyed: KeyedHash::new(&keys.index),
            state,
            reader,
            scrub,
            failing: Arc::clone(&failing),
            tiles,
            verifier_key,
            keeper,
            stop,
            durable,
            closed,
            image: followed,
            rotation: Rotation::new(Arc::clone(&keys.epochs), &options.origin, durable_epoch, held),
            index: index.as_ref().map(|(_, index)| Arc::clone(index)),
            hooks: options.hooks,
            threads: Mutex::new(threads),
        }));
        if let Some((every, index)) = index {
            // A strong handle in the thread would keep the sequencer from ending with the last one.
            let weak = Arc::downgrade(&ledger.0);
            let task = noticed(&failing, Derived::Index, move || {
                index.follow(&index_receiver, every, |prepared| {
                    weak.upgrade().and_then(|inner| Self(inner).commit_blocking(prepared))
                });
            });
            let thread = spawn("index", task)?;
            ledger.0.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok((ledger, opened))
    }

    /// Keyed hashes under this ledger's index key.
    pub fn keyed(&self) -> &KeyedHash {
        &self.0.keyed
    }

    /// The state: durable entries only.
    pub fn state(&self) -> &State {
        &self.0.state
    }

    /// Commits a decision: returns when its entry is durable, or when it must be decided again.
    ///
    /// Cancel-safe in the sense that a dropped future changes nothing: a command that was queued is committed all
    /// the same, and an idempotency key finds it.
    ///
    /// # Errors
    /// [`Refused`]; nothing was committed, except that `Stopped` leaves it unknown: the disk may hold the entry,
    /// and the next start decides.
    pub async fn commit(&self, command: Command) -> Result<Outcome, Refused> {
        self.submit(command)?.outcome().await
    }

    fn submit(&self, command: Command) -> Result<Reply, Refused> {
        if self.0.stop.is_stopped() {
            return Err(Refused::Stopped);
        }
        if self.0.keeper.is_full() {
            return Err(Refused::Full);
        }
        let (submission, reply) = Submission::admit(command, self.0.group_bytes)?;
        match self.0.sender.try_send(Message::Commit(submission)) {
            // What was queued before the end is answered or dropped by the sequencer, what comes later by nobody.
            Ok(()) if self.0.stop.ended.load(Ordering::SeqCst) => Err(Refused::Stopped),
            Ok(()) => Ok(reply),
            Err(TrySendError::Full(_)) => Err(Refused::Overloaded),
            Err(TrySendError::Disconnected(_)) => Err(Refused::Stopped),
        }
    }

    /// Changes the epoch: makes a key for the next one, switches to it at one index, writes the key file anew without
    /// those that are erased, and destroys the old key, which completes every erasure committed before the switch. A
    /// change that a crash or an error cut off is finished instead ([`State::is_rotating`]). `entry` makes what is
    /// committed of each of the two records, neither of which concerns anybody. Blocks; not within an asynchronous
    /// context. The epoch that has begun.
    ///
    /// # Errors
    /// [`RotateError`]; the ledger goes on, with the keys of both epochs if the switch was made.
    pub fn rotate(&self, entry: impl Fn(&Record) -> Prepared) -> Result<u32, RotateError> {
        let inner = &self.0;
        inner.rotation.run(&inner.crypt, &inner.state, |record| {
            match self.submit(unconditional(entry(&record)))?.blocking_outcome()? {
                Outcome::Committed(_) => Ok(()),
                Outcome::Changed => Err(Refused::Malformed("a key event that is not the next one")),
            }
        })
    }

    /// Commits an entry that rests on no fact, on a thread that may wait. `None` when it was not committed.
    fn commit_blocking(&self, prepared: Prepared) -> Option<Committed> {
        match self.submit(unconditional(prepared)).ok()?.blocking_outcome() {
            Ok(Outcome::Committed(committed)) => Some(committed),
            _ => None,
        }
    }

    /// The free space as it was last looked at, within the last seconds.
    pub fn room(&self) -> Room {
        self.0.keeper.room()
    }

    /// Seals a subject part: without a holder under the key of today, for one under the holder's key, for several
    /// under a record key wrapped for each (at most 255).
    pub fn seal_subject(&self, part: u16, holders: &[HolderKey], plaintext: &[u8]) -> Vec<u8> {
        self.0.crypt.seal_subject(part, holders, self.0.hooks.now_ms(), plaintext)
    }

    /// A random label and key for a holder that the state does not know. Nothing is stored until a record with it
    /// in `new_holders` is committed.
    pub fn new_holder(&self, key: Key) -> PreparedHolder {
        self.0.crypt.new_holder(key)
    }

    /// Reads and opens the sealed part at a position: the bytes of a `SubjectRecord`. Blocks for one `pread`.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn open_subject(&self, position: Position) -> Result<Vec<u8>, ReadError> {
        let part = self.0.reader.part(position)?;
        self.0.crypt.open_subject(&part, |label: &Label| self.0.state.holder_key(label))
    }

    /// The sealed part of an entry that tells a holder of it, opened: the one made for the holder, or the entry's only
    /// one. Blocks for a read of each part until it is found.
    ///
    /// # Errors
    /// [`ReadError`], also [`ReadError::KeyGone`] after an erasure.
    pub fn open_part_for(&self, entry: &OpenedEntry, label: &Label) -> Result<Vec<u8>, ReadError> {
        let place = entry.links.iter().position(|link| link.label == *label);
        let own = place.and_then(|place| entry.parts.get(place));
        for position in own.into_iter().chain(&entry.parts) {
            let part = self.0.reader.part(*position)?;
            if is_sealed_for(&part, label) {
                return self.0.crypt.open_subject(&part, |label: &Label| self.0.state.holder_key(label));
            }
        }
        Err(ReadError::KeyGone)
    }

    /// An entry by its index. Blocks for some reads.
    ///
    /// # Errors
    /// [`ReadError`], also for an index that is not durable yet.
    pub fn entry(&self, index: u64) -> Result<OpenedEntry, ReadError> {
        self.entry_at(self.locate(index)?, index)
    }

    /// The entry of an index, given where its frame stood when it was written; where that place no longer has it, the
    /// entry is looked for. Blocks for one read, or some.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn entry_near(&self, frame: Position, index: u64) -> Result<OpenedEntry, ReadError> {
        self.entry_at(frame, index).or_else(|_| self.entry(index))
    }

    fn locate(&self, index: u64) -> Result<Position, ReadError> {
        if index >= self.size() {
            return Err(ReadError::Malformed("entry"));
        }
        self.0.reader.locate(index)
    }

    fn entry_at(&self, position: Position, index: u64) -> Result<OpenedEntry, ReadError> {
        let bytes = self.0.reader.frame(position)?;
        entry::open_frame(&self.0.crypt, position, &bytes, |at| at == index)?
            .pop()
            .ok_or(ReadError::Malformed("entry"))
    }

    /// Gives the durable entries from `from` to below `until` in order to `visit`, until it returns `false`. Blocks for
    /// a read of each frame.
    ///
    /// # Errors
    /// [`ReadError`]; what came before was visited.
    pub fn visit_entries(
        &self,
        from: u64,
        until: u64,
        mut visit: impl FnMut(OpenedEntry) -> bool,
    ) -> Result<(), ReadError> {
        let until = until.min(self.size());
        if from >= until {
            return Ok(());
        }
        let mut index = from;
        let mut position = self.locate(from)?;
        loop {
            let bytes = self.0.reader.frame(position)?;
            let entries =
                entry::open_frame(&self.0.crypt, position, &bytes, |at| (index..until).contains(&at))?;
            for entry in entries {
                index = entry.committed.index + 1;
                if !visit(entry) {
                    return Ok(());
                }
            }
            if index >= until {
                return Ok(());
            }
            let next = self.0.reader.next_group(position, index)?;
            position = next.ok_or(ReadError::Malformed("frame"))?;
        }
    }

    /// Index of the first durable entry that is not older than a moment (ms since 1970); the log's size when all are older.
    /// Blocks for reads of frames' heads.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn first_at(&self, time_ms: u64) -> Result<u64, ReadError> {
        let size = self.size();
        if size == 0 {
            return Ok(0);
        }
        Ok(self.0.reader.first_at(time_ms)?.map_or(size, |index| index.min(size)))
    }

    /// What the latest index root says of a holder; `None` when there is none, or none is made.
    pub fn holder_proof(&self, label: &Label) -> Option<HolderProof> {
        self.0.index.as_ref()?.proof(label)
    }

    /// The original answer and receipt of an idempotency key: the `SubjectRecord` that holds the answer bytes, and
    /// the entry without a proof. Blocks for two reads.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn original(&self, bound: &Bound) -> Result<(Vec<u8>, Committed), ReadError> {
        let bytes = self.0.reader.frame(bound.frame)?;
        let frame = Frame::parse(&bytes).map_err(ReadError::Malformed)?;
        let plain = self.0.crypt.open_state(frame.state, frame.head.day, frame.head.number)?;
        let committed = committed_again(&frame, &plain, bound.index)?;
        Ok((self.open_subject(bound.answer)?, committed))
    }

    /// 32 random bytes.
    pub fn random(&self) -> Hash {
        self.0.crypt.random()
    }

    /// The log's name.
    pub fn origin(&self) -> &str {
        self.0.verifier_key.name()
    }

    /// The key that checkpoints are verified with.
    pub fn verifier_key(&self) -> &VerifierKey {
        &self.0.verifier_key
    }

    /// Durable entries.
    pub fn size(&self) -> u64 {
        self.0.durable.load(Ordering::Acquire)
    }

    /// Whether the log's last leaf closes it: then every command is refused as [`Refused::Closed`], for good.
    pub fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Acquire)
    }

    /// The signed checkpoint that the public sees; moves once a second.
    pub fn published_checkpoint(&self) -> Arc<str> {
        self.0.tiles.published_text()
    }

    /// A tile of the published tree: `width` hashes of it, 256 when `None`. `None` when the tree has not that many.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn tile(&self, level: u8, index: u64, width: Option<u16>) -> io::Result<Option<Vec<u8>>> {
        self.0.tiles.tile(level, index, width)
    }

    /// An entry bundle of the published tree, as [`Ledger::tile`].
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn entry_bundle(&self, index: u64, width: Option<u16>) -> io::Result<Option<Vec<u8>>> {
        self.0.tiles.entry_bundle(index, width)
    }

    /// A proof of an entry in the published checkpoint, without an extra line; `None` when the published tree does
    /// not reach it yet.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn proof(&self, index: u64) -> io::Result<Option<TlogProof>> {
        let (size, text) = self.published();
        let path = self.inclusion(index, size)?;
        Ok(path.map(|path| TlogProof { extra: None, index, path, checkpoint: text.to_string() }))
    }

    /// Size and text of the checkpoint that the public sees, as [`Ledger::published_checkpoint`].
    pub fn published(&self) -> (u64, Arc<str>) {
        let published = self.0.tiles.published.read().unwrap_or_else(PoisonError::into_inner);
        (published.size, Arc::clone(&published.text))
    }

    /// The inclusion path of an entry in the tree of `size` leaves; `None` when that tree does not hold the entry or
    /// is larger than the published one.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn inclusion(&self, index: u64, size: u64) -> io::Result<Option<Vec<Hash>>> {
        if index >= size || size > self.0.tiles.published_size() {
            return Ok(None);
        }
        inclusion_from(index, size, |level, index| self.0.tiles.node(level, index)).map(Some)
    }

    /// The root of the tree of `size` leaves, from the tiles; `None` when that tree is larger than the published one.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn root(&self, size: u64) -> io::Result<Option<Hash>> {
        if size > self.0.tiles.published_size() {
            return Ok(None);
        }
        self.0.tiles.root(size).map(Some)
    }

    /// The consistency path between two sizes of the published tree; empty between equal ones and from 0. `None` when
    /// `old` is larger than `new`, or `new` than the published tree.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn consistency(&self, old: u64, new: u64) -> io::Result<Option<Vec<Hash>>> {
        if old > new || new > self.0.tiles.published_size() {
            return Ok(None);
        }
        consistency_from(old, new, |level, index| self.0.tiles.node(level, index)).map(Some)
    }

    /// The digest of the newest snapshot, until it is logged: the caller commits it in an entry of the system
    /// ([`crate::record::Record::state_digest`]) and says so. A snapshot whose digest is not logged is never used.
    pub fn snapshot_to_log(&self) -> Option<StateDigest> {
        let image = self.0.image.as_ref()?;
        *image.digest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that the digest is logged, durably.
    pub fn snapshot_logged(&self, logged: &StateDigest) {
        if let Some(image) = &self.0.image {
            let mut digest = image.digest.lock().unwrap_or_else(PoisonError::into_inner);
            digest.take_if(|digest| digest == logged);
        }
    }

    /// Stops the ledger for good, because its log is not the one that others have seen: `on_fatal` is called.
    pub fn stop(&self, cause: &str) {
        self.0.stop.fatal(cause);
    }

    /// How the ledger is.
    pub fn health(&self) -> Health {
        let inner = &self.0;
        Health {
            journal_full: inner.keeper.is_full(),
            stopped: inner.stop.cause(),
            queue: inner.sender.len(),
            queue_capacity: inner.sender.capacity().unwrap_or(usize::MAX),
            damaged_segments: inner.scrub.damaged(),
            damaged_tiles: inner.scrub.damaged_tiles(),
            failing: inner.failing.list(),
            image_lag: inner
                .image
                .as_ref()
                .map_or(0, |image| self.size().saturating_sub(image.covered.load(Ordering::Acquire))),
        }
    }

    /// Finishes what is queued, writes a seal, publishes the last checkpoint and flushes the restart image.
    /// Whatever comes through other handles afterwards is refused as stopped. Blocks.
    pub fn close(self) {
        // A sequencer that is gone has nothing left to finish.
        let _ = self.0.sender.send(Message::Close);
        self.0.scrub.stop();
        let threads = std::mem::take(&mut *self.0.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a ledger thread panicked");
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.scrub.stop();
    }
}

/// What rests on no fact and counts nothing.
pub(crate) fn unconditional(prepared: Prepared) -> Command {
    Command { permit_or_denial: prepared, reads: Vec::new(), ends_at_ms: u64::MAX, inline_proof: false }
}

/// Starts the sequencer's thread.
fn in_thread(sequencer: Sequencer, stop: &Arc<Stop>) -> Result<Option<JoinHandle<()>>, OpenError> {
    spawn("sequencer", guarded(stop, "sequencer", move || sequencer.run())).map(Some)
}

fn spawn(name: &'static str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(OpenError::io("starting a thread"))
}

/// A panic in a thread that the journal depends on stops the ledger as a failed write does.
fn guarded<F: FnOnce()>(stop: &Arc<Stop>, name: &'static str, run: F) -> impl FnOnce() + use<F> {
    let stop = Arc::clone(stop);
    move || {
        if catch_unwind(AssertUnwindSafe(run)).is_err() {
            stop.fatal(&format!("the {name} thread panicked"));
        }
    }
}

/// Lets whoever answers take the processor from this thread as soon as it is woken, not at the end of a time slice of
/// milliseconds.
pub(crate) fn give_way() {
    // On Linux this is of this thread alone. Where it may not be lowered only latency suffers.
    let _ = rustix::process::nice(BEHIND_NICE);
}

/// A panic in a thread that only derives costs what it derives, and is told.
fn noticed<F: FnOnce()>(failing: &Arc<Failing>, what: Derived, run: F) -> impl FnOnce() + use<F> {
    let failing = Arc::clone(failing);
    move || {
        give_way();
        if catch_unwind(AssertUnwindSafe(run)).is_err() {
            tracing::error!("the {} thread panicked: what it derives stands still", what.name());
            failing.set(what, true);
        }
    }
}

/// What a rebuild made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// Entries in the log.
    pub size: u64,
    /// Entries replayed: all there are, without a snapshot.
    pub replayed: u64,
    /// Size of the snapshot that replay began at; `None` when it began with the first entry.
    pub from_snapshot: Option<u64>,
    /// What the state holds.
    pub counts: Counts,
    /// Digest of the state, the same for every way it can come about.
    pub state_digest: Hash,
}

/// Where a rebuild begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RebuildFrom {
    /// At the newest snapshot whose digest the journal confirms. Tiles that fit the journal stay.
    Snapshot,
    /// At the first entry; the tiles are made again too.
    Zero,
}

/// Deletes the restart image and makes it again from the journal. `progress` gets the entries done so far. What a start would
/// refuse is refused, and then nothing is deleted.
///
/// The published checkpoint stays: it is what a rolled-back journal is noticed by.
///
/// # Errors
/// [`OpenError`], also [`OpenError::Locked`] while a gateway runs.
pub fn rebuild(
    options: Options,
    keys: LedgerKeys,
    from: RebuildFrom,
    progress: &dyn Fn(u64),
) -> Result<Rebuilt, OpenError> {
    let start = match from {
        RebuildFrom::Snapshot => Start::Snapshot,
        RebuildFrom::Zero => Start::Zero,
    };
    let (ledger, opened) = Ledger::open_from(options, keys, start, progress, in_thread)?;
    let rebuilt = Rebuilt {
        size: opened.size,
        replayed: opened.replayed,
        from_snapshot: opened.from_snapshot,
        counts: ledger.state().counts(),
        state_digest: ledger.state().digest(),
    };
    ledger.close();
    Ok(rebuilt)
}
