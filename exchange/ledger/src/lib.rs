//! The ledger: one journal that is both the store of truth and the tamper-evident audit log.
//!
//! A caller prepares a [`Command`] (its record serialised, its personal parts sealed, the versions of the facts it
//! was decided on) and awaits [`Ledger::commit`]. One sequencer thread takes everything queued, checks the facts
//! again in order, writes the group as ONE frame with ONE `fdatasync`, and only then releases the answers:
//!
//! ```text
//! Command -> admitted -> judged (facts, counters) -> completed (index, time, sequences, salts) -> leaf
//!         -> frame -> write + fdatasync -> applied to the state -> Committed
//! ```
//!
//! Everything else (tiles, published checkpoint, restart image) is derived behind it and can be deleted. The
//! ledger knows nothing of HTTP. Formats: `schemas/README.md`, sections 4 to 7; files on disk and what a crash
//! leaves of each: `README.md` in this folder.

#![forbid(unsafe_code)]

mod archive;
mod clock;
mod copy;
mod crypt;
mod disk;
mod entry;
mod epoch;
#[cfg(debug_assertions)]
mod failpoint;
mod followers;
mod frame;
mod guard;
mod image;
mod index;
mod ledger;
mod recovery;
mod scrub;
mod segment;
mod sequencer;
mod snapshot;
mod state;
mod store;
mod subjects;
mod tally;
mod tiles;
mod verify;

#[cfg(feature = "sim")]
pub mod sim;
#[cfg(feature = "sim")]
pub use sequencer::ByHand;

pub mod record;

pub use archive::{Archived, archive};
pub use copy::{Copied, copy_journal};
pub use crypt::{HolderKey, KeyedHash, LedgerKeys, PreparedHolder, ReadError};
pub use entry::OpenedEntry;
pub use epoch::{EpochFile, EpochFiles, EpochsInMemory, RotateError, first_epoch};
pub use image::check_store;
pub use index::{HolderProof, IndexRoot};
pub use ledger::{
    Counts, Derived, Health, Hooks, Ledger, OpenError, Opened, Options, RebuildFrom, Rebuilt, Room, Space,
    rebuild,
};
pub use sequencer::{Command, Committed, Outcome, Prepared, Refused};
pub use state::{Bound, Delayed, Document, DocumentKind, Fact, Grant, Head, Holder, License, State};
pub use store::{Engine, StoreError};
pub use subjects::Subjects;
pub use verifier::Hash;
pub use verify::{Entry, ImageFound, LogReport, Tail, entries, entries_of_lost, first_leaf, verify_log};

/// A keyed hash of 16 bytes (section 7 of the formats): how licenses, grants, holders and documents are named.
pub type Key = [u8; 16];

/// A holder's random label.
pub type Label = [u8; 16];

/// A place in the journal: segment number × 2³² + offset in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    /// No place: every segment begins with its header, so nothing stands at offset 0 of segment 0.
    pub const NONE: Self = Self(0);

    /// The place at `offset` of a segment.
    pub const fn new(segment: u32, offset: u32) -> Self {
        Self(((segment as u64) << 32) | offset as u64)
    }

    /// The segment's number.
    pub const fn segment(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The offset in the segment's file.
    pub const fn offset(self) -> u32 {
        self.0 as u32
    }
}
