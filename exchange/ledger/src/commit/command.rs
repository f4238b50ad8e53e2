//! A decision on its way into the journal: what a caller hands over, and what it gets back.
//!
//! Made by any caller and given to the sequencer through the queue. Nothing of it is on the disk until its frame is synced.

use crate::{
    journal::{record::Record, subjects::Subjects},
    names::Hash,
    state::fact::Fact,
};
use verifier::{leaf::LeafKind, proof::TlogProof};

/// A decision, ready to be committed.
pub struct Command {
    /// The entry that is committed if every fact still holds and no counter is spent.
    pub permit_or_denial: Prepared,
    /// Every fact the decision was made on, with the version that was read; version 0 is absent.
    pub reads: Vec<(Fact, u32)>,
    /// Last moment (ms since 1970) at which all those facts hold; `u64::MAX` when none ends.
    pub ends_at_ms: u64,
    /// Whether the answer wants an inclusion proof in the group's own checkpoint.
    pub inline_proof: bool,
}

/// One entry, complete but for what only the sequencer knows.
pub struct Prepared {
    /// The kind of its leaf; every decision is an entry.
    pub kind: LeafKind,
    /// The encoded `open` with index and time zero; the public statement of a leaf that is no entry.
    pub open: Vec<u8>,
    /// The part of it that replay needs.
    pub record: Record,
    /// A salted digest of the text that each holder concerned is told ([`verifier::leaf::told_digest`]), in the
    /// record's order; zeros for nothing.
    pub told: Vec<Hash>,
    /// Sealed subject parts, whose digest stands in `open`; see [`crate::Ledger::seal_subject`].
    pub subjects: Subjects,
}

/// The outcome of a command.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "almost every outcome is a commit")]
pub enum Outcome {
    /// It is durable.
    Committed(Committed),
    /// A fact changed or ended since it was read, another command bound the idempotency key, or a counter is spent that was
    /// not when it was looked at: decide again. The state shows by now what got in the way.
    Changed,
}

/// A durable entry: what the receipt is made of. Only the ledger makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Committed {
    /// Index in the log.
    pub index: u64,
    /// Journal time, ms since 1970.
    pub time_ms: u64,
    /// Hash of the leaf.
    pub leaf_hash: Hash,
    /// The completed `open`.
    pub open: Vec<u8>,
    /// Salt of the commitment.
    pub salt: Hash,
    /// Commitment to what only insiders know.
    pub c: Hash,
    /// Proof in the group's own checkpoint, its extra line opening the leaf, when asked for.
    pub proof: Option<TlogProof>,
}

/// Why nothing was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The journal is below its reserve; it recovers by itself when there is room.
    #[error("the journal is full")]
    Full,
    /// The queue is full.
    #[error("the queue is full")]
    Overloaded,
    /// The ledger has stopped; it answers nothing any more.
    #[error("the ledger has stopped")]
    Stopped,
    /// The log was closed; it takes no entry any more.
    #[error("the log is closed")]
    Closed,
    /// The caller prepared something that is no entry: a fault of the program, nothing is written.
    #[error("the command is malformed: {0}")]
    Malformed(&'static str),
}

/// A command that rests on no fact and counts nothing.
pub(crate) fn unconditional(prepared: Prepared) -> Command {
    Command { permit_or_denial: prepared, reads: Vec::new(), ends_at_ms: u64::MAX, inline_proof: false }
}
