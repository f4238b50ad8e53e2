//! Why a ledger cannot be opened, and why a part of it cannot be read.
//!
//! Values that any thread makes; a caller that gets one has changed nothing. A crash leaves nothing of them.

use std::io;

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
        /// The attempt that failed.
        what: &'static str,
        /// The cause.
        error: io::Error,
    },
    /// The log's key or name cannot be used, or the keys are not those of this journal (operator).
    #[error("{0}")]
    Keys(&'static str),
    /// The folder is of another format than this build's (operator).
    #[error("the data folder is of format {found}, and this build serves format {serves}: {}", format_help(*.found, *.serves))]
    Format {
        /// The folder's.
        found: u32,
        /// This build's.
        serves: u32,
    },
    /// A frame that was acknowledged, or may have been, is damaged: never start from a guess.
    #[error("segment {segment} is damaged at offset {offset}: {why}")]
    Corrupt {
        /// The segment's number.
        segment: u32,
        /// Where the damage begins.
        offset: u64,
        /// The fault.
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
        /// The segment that was asked for.
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
    /// A file of hosted rows that an entry committed to is missing or another one.
    #[error("the row segment journal/rows/{file} is not what was committed: {why}")]
    Rows {
        /// The file's name.
        file: String,
        /// The fault.
        why: String,
    },
    /// The guard cannot be used, so that a journal which lost its end would go unnoticed.
    #[error("{0}")]
    Guard(&'static str),
}

fn format_help(found: u32, serves: u32) -> &'static str {
    if found < serves {
        "close its log with the build that wrote it (`exchange log close`), then carry it on in a new folder (`exchange init \
         --continues`); nothing was changed"
    } else {
        "use the build that wrote it, or a later one; nothing was changed"
    }
}

fn moment(ms: &u64) -> String {
    schemas::date::rfc3339(*ms)
}

impl OpenError {
    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { what, error }
    }
}

/// Why a part cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read there.
    #[error("reading the journal failed: {0}")]
    Io(#[from] io::Error),
    /// The segment is neither in the journal nor in the archive: what it holds cannot be told now.
    #[error("segment {0} of the journal is not at hand")]
    Missing(u32),
    /// The bytes there have not the form that was asked for.
    #[error("the journal has no {0} at this position")]
    Malformed(&'static str),
    /// No holder that the part was sealed for has a key any more.
    #[error("the key of the part is gone")]
    KeyGone,
    /// The seal does not open: other key or changed bytes.
    #[error("the {0} does not open with its key")]
    Sealed(&'static str),
    /// A file of hosted rows is not there.
    #[error("the row segment {0} is not at hand")]
    MissingRows(String),
    /// The ledger stopped before it took in the rows that were committed last.
    #[error("the rows that were committed last are not at hand")]
    Unpublished,
}

/// Why a batch of hosted rows was not written.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// The journal is below its reserve; it recovers by itself when there is room.
    #[error("the journal is full")]
    Full,
    /// The ledger has stopped.
    #[error("the ledger has stopped")]
    Stopped,
    /// The batch is none (caller).
    #[error("{0}")]
    Malformed(&'static str),
    /// The file system failed. The file is given up.
    #[error("writing a row segment failed: {0}")]
    Io(io::Error),
    /// Rows that were to be written anew cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}
