//! How a ledger is opened, and the hooks of its tests.
//!
//! Read once, when a ledger is opened; the hooks are called by the thread that each of them names. Nothing of them is
//! on the disk.

use crate::{derive::store::Engine, disk::Space, error::OpenError};
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Exit status after a failed write or sync (`EX_IOERR` of `sysexits.h`).
const EXIT_IO: i32 = 74;
/// Largest segment: offsets in a position have 32 bits.
const MAX_SEGMENT_BYTES: u64 = 1 << 30;
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
    /// The engine that keeps the restart image. Another engine begins with an image made anew.
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
/// `rotation-wiped` abort it after steps 1 to 4 of a change of epoch. `rows-written` aborts when a row segment is durable and
/// no entry names it.
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
