//! Where the journal goes on, and how far it is known to be whole.
//!
//! Values: the sequencer owns the living cursor, the guard and the restart image keep copies on the disk. A crash
//! leaves those copies, older by what they lag.

use crate::names::{Hash, Position};
use verifier::merkle::Frontier;

/// Where the journal goes on: the state right after a frame. Kept by the restart image for the last seal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// Number of the next frame.
    pub(crate) frame: u64,
    /// Hash of the frame before it.
    pub(crate) previous: Hash,
    /// Where the next frame begins, unless it begins a segment of its own.
    pub(crate) position: Position,
    /// The tree after the frame before it.
    pub(crate) frontier: Frontier,
    /// Journal time of the frame before it.
    pub(crate) time_ms: u64,
}

impl Cursor {
    /// The mark that the guard is told.
    pub(crate) fn mark(&self) -> Mark {
        Mark { frames: self.frame, size: self.frontier.size(), root: self.frontier.root() }
    }
}

impl Cursor {
    /// Before the first frame.
    pub(crate) fn start() -> Self {
        Self { frame: 0, previous: [0; 32], position: Position::NONE, frontier: Frontier::new(), time_ms: 0 }
    }
}

/// How far the journal is durable: everything before is whole, whatever a start finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Frames in the journal, seals included: the number of the next one.
    pub(crate) frames: u64,
    /// Entries.
    pub(crate) size: u64,
    /// Root over them.
    pub(crate) root: Hash,
}

impl Mark {
    /// The mark of a journal without a frame.
    pub(crate) const START: Self = Self { frames: 0, size: 0, root: verifier::merkle::EMPTY_ROOT };
}
