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

mod disk;
mod error;
#[cfg(debug_assertions)]
mod failpoint;
mod folder;
mod health;
mod ledger;
mod names;
mod open;
mod options;
mod state;
mod thread;

/// The journal's formats and files.
mod journal {
    pub(crate) mod clock;
    pub(crate) mod current;
    pub(crate) mod cursor;
    pub(crate) mod entry;
    pub(crate) mod format1;
    pub(crate) mod frame;
    pub(crate) mod guard;
    pub(crate) mod leaf;
    pub mod record;
    pub(crate) mod segment;
    pub(crate) mod subjects;
}

/// Secrets, and what is sealed and signed with them.
mod keys {
    pub(crate) mod crypt;
    pub(crate) mod epoch;
    pub(crate) mod secrets;
    pub(crate) mod signer;
}

/// Rows of shared resources that are kept for a department.
mod hosted {
    pub(crate) mod check;
    pub(crate) mod files;
    pub(crate) mod follow;
    pub(crate) mod format;
    pub(crate) mod index;
    pub(crate) mod rows;
    #[cfg(test)]
    mod tests;
}

/// From a decision to a durable entry.
mod commit {
    pub(crate) mod command;
    pub(crate) mod followers;
    mod judge;
    mod member;
    pub(crate) mod sequencer;
    pub(crate) mod submission;
}

/// All that is made from the journal and can be deleted.
mod derive {
    pub(crate) mod feed;
    pub(crate) mod image;
    pub(crate) mod index;
    pub(crate) mod meta;
    pub(crate) mod scrub;
    pub(crate) mod snapshot;
    pub(crate) mod store;
    pub(crate) mod tally;
    pub(crate) mod tiles;
}

/// All that reads a journal from one end to the other.
mod start {
    pub(crate) mod archive;
    pub(crate) mod copy;
    pub(crate) mod recovery;
    pub(crate) mod verify;
    pub(crate) mod walk;
}

#[cfg(feature = "sim")]
pub mod sim;
#[cfg(feature = "sim")]
pub use commit::sequencer::ByHand;

pub use journal::record;

pub use commit::command::{Command, Committed, Outcome, Prepared, Refused};
pub use derive::image::check_store;
pub use derive::index::{HolderProof, IndexRoot};
pub use derive::store::{Engine, StoreError};
pub use disk::{Room, Space};
pub use error::{OpenError, ReadError, RowsError};
pub use health::{Derived, Health};
pub use hosted::format::{MOST_ROW_BYTES, MOST_ROWS, MOST_SEGMENT_BYTES, Written};
pub use hosted::index::{Last, Mark, Moved, Place, RowCounts, Step};
pub use hosted::rows::{DueRows, PreparedSegment, Rows, Writing};
pub use journal::entry::OpenedEntry;
pub use journal::subjects::Subjects;
pub use keys::crypt::{HolderKey, KeyedHash, PreparedHolder};
pub use keys::epoch::{EpochsInMemory, RotateError, first_epoch};
pub use keys::secrets::{EpochFile, EpochFiles, LedgerKeys};
pub use ledger::Ledger;
pub use names::{Hash, Key, KeyName, Label, Position, STANDARD, USES, cst_year};
pub use open::{RebuildFrom, Rebuilt, rebuild};
pub use options::{Hooks, Options};
pub use start::archive::{Archived, archive};
pub use start::copy::{Copied, copy_journal};
pub use start::recovery::Opened;
pub use start::verify::{
    Entry, ImageFound, LogReport, Tail, entries, entries_of_lost, first_leaf, verify_log,
};
pub use state::fact::{DocumentKind, Fact};
pub use state::license::License;
pub use state::rows::{Bound, Delayed, Document, Grant, GrantLink, GrantTarget, Head};
pub use state::table::Owner;
pub use state::{Counts, Holder, State};
