//! A command on its way to the sequencer: its form is checked on the caller's thread, and its reply goes back there.
//!
//! The ledger's handle makes submissions, and the sequencer takes them from the queue. They are memory: after a crash nobody
//! was answered whose frame was not synced.

use crate::{
    commit::command::{Command, Outcome, Prepared, Refused},
    journal::{
        frame::ENTRY_BYTES,
        record::{
            Completion, EntryPlain, MAX_GRANT_LINKS, MAX_GRANT_TARGETS, MAX_LINKS, Malformed, NO_BODY_PART,
            Record,
        },
        subjects::Heads,
    },
    names::Hash,
    state::fact::Fact,
};
use std::collections::HashSet;
use tokio::sync::oneshot;
use verifier::leaf::{LeafKind, Open, Stage, open_digest};

/// Most subject parts of an entry: a bulk delivery has one for each holder it concerns.
const MAX_PARTS: usize = MAX_LINKS;
/// Longest statement of a leaf that is no entry.
const MAX_STATEMENT_BYTES: usize = 1024;

/// A prepared entry whose form is checked.
pub(super) struct Admitted {
    pub(super) prepared: Prepared,
    /// The `StateRecord`.
    pub(super) record_bytes: Vec<u8>,
    /// The digests of record and `open` that its leaf commits to. The sequencer makes the leaf from these and, once more, from the frame
    /// buffer.
    pub(super) record_digest: Hash,
    pub(super) open_digest: Hash,
    /// The year whose holders' keys its parts are sealed under.
    pub(super) year: Option<u16>,
    /// Index of the intent that it closes.
    pub(super) intent: Option<u64>,
}

impl Admitted {
    fn new(prepared: Prepared) -> Result<Self, Refused> {
        let record = &prepared.record;
        record.check().map_err(|Malformed(what)| Refused::Malformed(what))?;
        let Heads { count: parts, year } =
            prepared.subjects.heads().ok_or(Refused::Malformed("subject parts"))?;
        let mut intent = None;
        if prepared.kind == LeafKind::Entry {
            let open = Open::parse(&prepared.open).map_err(|_| Refused::Malformed("open"))?;
            if (open.index, open.time_ms) != (0, 0) {
                return Err(Refused::Malformed("an index or a time before the sequencer gives it"));
            }
            if let Stage::Outcome { intent: closed } = open.stage {
                intent = Some(closed);
            }
            // The sequencer's comparison with the frame buffer then finds bit flips, not a caller's mistake.
            if open.subject_digest != *prepared.subjects.digest() {
                return Err(Refused::Malformed("subject digest"));
            }
        } else if *record != Record::default() || parts != 0 || prepared.open.len() > MAX_STATEMENT_BYTES {
            return Err(Refused::Malformed("a statement with more than its text"));
        }
        if prepared.told.len() != record.concerned.len() {
            return Err(Refused::Malformed("not one digest of what is told for each holder concerned"));
        }
        if parts > MAX_PARTS {
            return Err(Refused::Malformed("subject parts"));
        }
        let bodies = record.licenses.iter().map(|license| license.body_part);
        let answer = record.idempotency.map(|bound| bound.answer_part);
        if bodies.filter(|part| *part != NO_BODY_PART).chain(answer).any(|part| usize::from(part) >= parts) {
            return Err(Refused::Malformed("a part that the record names is missing"));
        }
        let distinct = are_distinct(record.concerned.iter())
            && are_distinct(record.erased.iter())
            && are_distinct(record.new_keys.iter().map(|new| &new.name))
            && are_distinct(record.destroyed.iter())
            && are_distinct(record.new_holders.iter().map(|holder| &holder.key))
            && are_distinct(record.new_holders.iter().map(|holder| &holder.label))
            && are_distinct(record.licenses.iter().map(|license| &license.key))
            && are_distinct(record.grants.iter().map(|grant| &grant.key))
            && are_distinct(record.documents.iter().map(|document| (document.kind, &document.key)));
        if !distinct {
            return Err(Refused::Malformed("a record that names something twice"));
        }
        let mut born = record
            .new_holders
            .iter()
            .map(|holder| holder.name())
            .chain(record.new_keys.iter().map(|new| new.name));
        if born.any(|name| name.class == 0) {
            return Err(Refused::Malformed("a key of no class"));
        }
        // A purpose stays below a kilobyte, and the number of links, and of targets, in one byte of the restart image.
        if record.grants.iter().any(|grant| grant.chain.len() > MAX_GRANT_LINKS) {
            return Err(Refused::Malformed("a grant under too many links"));
        }
        if record.grants.iter().any(|grant| grant.more_targets.len() >= MAX_GRANT_TARGETS) {
            return Err(Refused::Malformed("a grant for too many licenses or types"));
        }
        if record.release_ms != 0 && record.concerned.is_empty() {
            return Err(Refused::Malformed("a delayed use that concerns nobody"));
        }
        let record_bytes = record.encode();
        let record_digest = verifier::sha256(&[&record_bytes]);
        let open_digest = open_digest(&prepared.open);
        Ok(Self { prepared, record_bytes, record_digest, open_digest, year, intent })
    }

    /// Bytes of the entry in a frame.
    fn frame_bytes(&self) -> usize {
        ENTRY_BYTES
            + self.prepared.subjects.bytes().len()
            + EntryPlain::FIXED_BYTES
            + self.prepared.open.len()
            + self.record_bytes.len()
            + Completion::encoded_bytes(&self.prepared.record)
    }
}

fn are_distinct<T: Eq + std::hash::Hash>(items: impl ExactSizeIterator<Item = T>) -> bool {
    if items.len() < 2 {
        return true;
    }
    let mut seen = HashSet::with_capacity(items.len());
    items.into_iter().all(|item| seen.insert(item))
}

/// An admitted command on its way through the queue.
pub(crate) struct Submission {
    pub(super) admitted: Admitted,
    pub(super) reads: Vec<(Fact, u32)>,
    pub(super) ends_at_ms: u64,
    pub(super) inline_proof: bool,
}

/// A submission where its caller put it, so that it is not copied on its way to the answer.
pub(crate) struct Queued {
    pub(super) submission: Box<Submission>,
    reply: oneshot::Sender<Settled>,
}

/// The end of a submission. It goes back to its caller, whose thread frees what it allocated: memory that another
/// thread frees costs both of them more.
struct Settled {
    outcome: Result<Outcome, Refused>,
    _submission: Box<Submission>,
}

impl Queued {
    /// Tells the caller. One that went away has its entry in the log all the same.
    pub(super) fn settle(self, outcome: Result<Outcome, Refused>) {
        let _ = self.reply.send(Settled { outcome, _submission: self.submission });
    }
}

/// The caller's end of a submission.
pub(crate) struct Reply(oneshot::Receiver<Settled>);

impl Reply {
    /// Waits; stopped when the sequencer has gone without an answer.
    pub(crate) async fn outcome(self) -> Result<Outcome, Refused> {
        self.0.await.map_err(|_| Refused::Stopped)?.outcome
    }

    /// The same on a thread that may block.
    pub(crate) fn blocking_outcome(self) -> Result<Outcome, Refused> {
        self.0.blocking_recv().map_err(|_| Refused::Stopped)?.outcome
    }

    /// The outcome, if it has arrived.
    #[cfg(feature = "sim")]
    pub(crate) fn settled(mut self) -> Result<Outcome, Refused> {
        self.0.try_recv().map_err(|_| Refused::Stopped)?.outcome
    }
}

impl Submission {
    /// Checks the form of a command, on the caller's thread, so that the sequencer meets only what it can commit.
    pub(crate) fn admit(command: Command, group_bytes: usize) -> Result<(Queued, Reply), Refused> {
        let admitted = Admitted::new(command.permit_or_denial)?;
        let (reply, receiver) = oneshot::channel();
        let submission = Self {
            admitted,
            reads: command.reads,
            ends_at_ms: command.ends_at_ms,
            inline_proof: command.inline_proof,
        };
        if submission.frame_bytes() > group_bytes {
            return Err(Refused::Malformed("the entry is longer than a group may be"));
        }
        Ok((Queued { submission: Box::new(submission), reply }, Reply(receiver)))
    }

    pub(super) fn record(&self) -> &Record {
        &self.admitted.prepared.record
    }

    /// The most bytes that it may take in a frame.
    pub(super) fn frame_bytes(&self) -> usize {
        self.admitted.frame_bytes()
    }
}

/// The content of the queue.
pub(crate) enum Message {
    Commit(Queued),
    /// Many at once, in their order and in one group as far as they fit; never none.
    CommitAll(Vec<Queued>),
    /// Finish what is queued before it, seal and end.
    Close,
}
