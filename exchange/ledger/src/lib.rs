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
mod command;
mod copy;
mod crypt;
mod current;
mod cursor;
mod disk;
mod entry;
mod epoch;
mod error;
#[cfg(debug_assertions)]
mod failpoint;
mod feed;
mod folder;
mod followers;
mod frame;
mod guard;
mod health;
mod image;
mod index;
mod keys;
mod leaf;
mod ledger;
mod meta;
mod names;
mod options;
mod recovery;
mod scrub;
mod segment;
mod sequencer;
mod signer;
mod snapshot;
mod state;
mod store;
mod subjects;
mod tally;
mod thread;
mod tiles;
mod verify;

#[cfg(feature = "sim")]
pub mod sim;
#[cfg(feature = "sim")]
pub use sequencer::ByHand;

pub mod record;

pub use archive::{Archived, archive};
pub use command::{Command, Committed, Outcome, Prepared, Refused};
pub use copy::{Copied, copy_journal};
pub use crypt::{HolderKey, KeyedHash, PreparedHolder};
pub use disk::{Room, Space};
pub use entry::OpenedEntry;
pub use epoch::{EpochsInMemory, RotateError, first_epoch};
pub use error::{OpenError, ReadError};
pub use health::{Derived, Health};
pub use image::check_store;
pub use index::{HolderProof, IndexRoot};
pub use keys::{EpochFile, EpochFiles, LedgerKeys};
pub use ledger::{Ledger, RebuildFrom, Rebuilt, rebuild};
pub use names::{Hash, Key, Label, Position};
pub use options::{Hooks, Options};
pub use recovery::Opened;
pub use state::{Bound, Counts, Delayed, Document, DocumentKind, Fact, Grant, Head, Holder, License, State};
pub use store::{Engine, StoreError};
pub use subjects::Subjects;
pub use verify::{Entry, ImageFound, LogReport, Tail, entries, entries_of_lost, first_leaf, verify_log};
