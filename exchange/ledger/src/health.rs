//! How the ledger is: what does not keep up, and whether all answering has ended.
//!
//! Each flag has one writer, named at its type; anyone reads. All of it is gone with the process.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

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
    /// Segments of hosted rows that could not be read when they were to be written anew.
    pub unreadable_rows: usize,
    /// Derived parts that do not keep up: a write failed and is tried again, or its thread has ended.
    pub failing: Vec<Derived>,
}

/// A part that is derived from the journal behind the answers, each by a thread of its own. Nothing is decided by it.
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

    pub(crate) fn list(&self) -> Vec<Derived> {
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

    /// Whether what is queued now is answered by nobody.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
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
