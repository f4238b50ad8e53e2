//! The sequencer: one thread that owns the end of the journal and the log's key.
//!
//! It takes everything queued when the last sync returned and whoever shares its processor had a turn (natural group
//! commit, no timer), judges it in order,
//! and makes it durable with one write and one `fdatasync`. What a group's earlier members change is seen by its
//! later members through [`Pending`]; the shared state changes only after the sync. A command that must be decided
//! again is answered after the group too, so that its next decision sees what got in its way.
//!
//! A crash leaves at most one torn or whole last frame that nobody was answered from; the next start drops or adopts
//! it.

use crate::{
    commit::{
        command::{Command, Committed, Outcome, Prepared, Refused},
        followers::{Followed, Followers},
    },
    disk::Lock,
    health::Stop,
    journal::{
        clock::Clock,
        current::Current,
        cursor::{Cursor, Mark},
        frame::{self, ENTRY_BYTES, HEADER_BYTES, SEAL_BYTES, TRAILER_BYTES},
        guard::Released,
        leaf::{are_committed, leaf_of, organisation},
        record::{Completion, CounterUse, EntryPlain, MAX_LINKS, Malformed, NO_BODY_PART, NewKey, Record},
        segment::{Keeper, NoSegment, SEGMENT_HEADER_BYTES},
        subjects::{Heads, Subjects},
    },
    keys::{
        crypt::{Crypt, NONCE_BYTES, TAG_BYTES, day_of},
        signer::{LogSigner, build_seal},
    },
    names::{Hash, Key, KeyName, Label, Position, cst_year},
    options::Hooks,
    state::{
        Applied, State,
        fact::{DocumentKind, Fact},
        label_version,
        rows::Head,
        slot::Slot,
    },
};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use rustc_hash::{FxHashMap, FxHashSet};
use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::oneshot;
use verifier::{
    checkpoint::Checkpoint,
    leaf::{
        HolderLink, LEAF_BYTES, LeafKind, OPEN_INDEX_OFFSET, OPEN_TIME_OFFSET, Open, Stage, commitment_of,
        inner_commitment_with, leaf_bytes, open_digest, statement_leaf,
    },
    merkle::{Frontier, GroupTree, leaf_hash},
    proof::TlogProof,
};

/// After this time without a group a seal frame is written.
const IDLE: Duration = Duration::from_millis(10);
/// Most times that the sequencer lets other threads run before it closes a group.
const MOST_YIELDS: usize = 4;
/// Salt and inner salt.
const SALTS_BYTES: usize = 64;
/// The length of an entry's subject parts in a frame.
const SUBJECTS_LENGTH_BYTES: usize = 4;
/// Most subject parts of an entry: a bulk delivery has one for each holder it concerns.
const MAX_PARTS: usize = MAX_LINKS;
/// Longest statement of a leaf that is no entry.
const MAX_STATEMENT_BYTES: usize = 1024;

/// A prepared entry whose form is checked.
struct Admitted {
    prepared: Prepared,
    /// The `StateRecord`.
    record_bytes: Vec<u8>,
    /// What its leaf commits to of record and `open`. The sequencer makes the leaf from these and, once more, from the frame
    /// buffer.
    record_digest: Hash,
    open_digest: Hash,
    /// The year whose holders' keys its parts are sealed under.
    year: Option<u16>,
    /// Index of the intent that it closes.
    intent: Option<u64>,
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
    admitted: Admitted,
    reads: Vec<(Fact, u32)>,
    ends_at_ms: u64,
    inline_proof: bool,
}

/// A submission where its caller put it, so that it is not copied on its way to the answer.
pub(crate) struct Queued {
    submission: Box<Submission>,
    reply: oneshot::Sender<Settled>,
}

/// What became of a submission. It goes back to its caller, whose thread frees what it allocated: memory that another
/// thread frees costs both of them more.
struct Settled {
    outcome: Result<Outcome, Refused>,
    _submission: Box<Submission>,
}

impl Queued {
    /// Tells the caller. One that went away has its entry in the log all the same.
    fn settle(self, outcome: Result<Outcome, Refused>) {
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

    /// What is there already.
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

    fn record(&self) -> &Record {
        &self.admitted.prepared.record
    }

    /// The most bytes that it may take in a frame.
    fn frame_bytes(&self) -> usize {
        self.admitted.frame_bytes()
    }
}

/// What the queue carries.
pub(crate) enum Message {
    Commit(Queued),
    /// Finish what is queued before it, seal and end.
    Close,
}

/// What the group's earlier members change, before the shared state does.
#[derive(Default)]
struct Pending {
    versions: FxHashMap<Fact, u32>,
    heads: FxHashMap<Label, Head>,
    oversight: FxHashMap<Label, Head>,
    released: HashSet<u64>,
    counters: FxHashMap<(Key, u32), u32>,
    /// Licenses that a holder gets.
    more_licenses: FxHashMap<Label, u32>,
    /// Holders whose keys are destroyed.
    erased: FxHashSet<Label>,
    /// Keys that are born, and keys that are destroyed while their holder stays.
    born: FxHashSet<KeyName>,
    destroyed_keys: FxHashSet<KeyName>,
    /// Epochs that begin and end.
    epoch: Option<u32>,
    destroyed: Option<u32>,
}

impl Pending {
    fn clear(&mut self) {
        self.versions.clear();
        self.heads.clear();
        self.oversight.clear();
        self.released.clear();
        self.counters.clear();
        self.more_licenses.clear();
        self.erased.clear();
        self.born.clear();
        self.destroyed_keys.clear();
        (self.epoch, self.destroyed) = (None, None);
    }

    fn version(&self, state: &State, fact: &Fact) -> u32 {
        if let Fact::Licenses(label) = fact {
            return state.version(fact) + self.more_licenses.get(label).copied().unwrap_or_default();
        }
        self.versions.get(fact).copied().unwrap_or_else(|| state.version(fact))
    }

    /// The latest entry of a holder's own sequence, or of the oversight sequence.
    fn head(&self, state: &State, delayed: bool, label: &Label) -> Option<Head> {
        if delayed {
            self.oversight.get(label).copied().or_else(|| state.oversight_head(label))
        } else {
            self.heads.get(label).copied().or_else(|| state.head(label))
        }
    }

    fn counter(&self, state: &State, counter: &CounterUse) -> u32 {
        let key = (counter.key, counter.day);
        self.counters.get(&key).copied().unwrap_or_else(|| state.counter(&counter.key, counter.day))
    }
}

/// What the sequencer decides about a command.
enum Judgement {
    /// Commit it; the values of its counters.
    Accept(Vec<u32>),
    Changed,
    Malformed(&'static str),
}

/// A member of the group in the making.
struct Member {
    queued: Queued,
    completion: Completion,
    completion_bytes: Vec<u8>,
    salt: Hash,
    inner_salt: Hash,
    c: Hash,
    leaf: [u8; LEAF_BYTES],
    leaf_hash: Hash,
}

/// Everything the sequencer thread owns.
pub(crate) struct Sequencer {
    pub(crate) receiver: Receiver<Message>,
    pub(crate) crypt: Arc<Crypt>,
    pub(crate) state: Arc<State>,
    pub(crate) signer: LogSigner,
    pub(crate) current: Current,
    pub(crate) cursor: Cursor,
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) stop: Arc<Stop>,
    pub(crate) followers: Followers,
    /// For the guard.
    pub(crate) released: Arc<Released>,
    /// Dropped with the sequencer: the guard is then written once more.
    pub(crate) guard_ends: Sender<()>,
    pub(crate) durable: Arc<AtomicU64>,
    /// The log's last leaf closes it, or does in the group in the making.
    pub(crate) closed: Arc<AtomicBool>,
    pub(crate) group_entries: usize,
    pub(crate) group_bytes: usize,
    pub(crate) hooks: Hooks,
    pub(crate) clock: Clock,
    /// Held while the thread may write to the journal.
    pub(crate) lock: Lock,
}

/// The sequencer without its thread, for what counts the work of one thread (crate feature `sim`).
#[cfg(feature = "sim")]
pub struct ByHand {
    sequencer: Sequencer,
    pending: Pending,
    buffer: Vec<u8>,
}

#[cfg(feature = "sim")]
impl ByHand {
    pub(crate) fn new(sequencer: Sequencer) -> Self {
        Self { sequencer, pending: Pending::default(), buffer: Vec::new() }
    }

    /// Commits everything that is queued as one group, as the thread does when a sync has returned, and answers it. How
    /// many commands that were; none when the queue is empty.
    pub fn step(&mut self) -> usize {
        let mut group = Vec::new();
        while let Ok(Message::Commit(submission)) = self.sequencer.receiver.try_recv() {
            group.push(submission);
        }
        let (commands, bytes) =
            (group.len(), group.iter().map(|queued| queued.submission.frame_bytes()).sum());
        if commands > 0 {
            self.sequencer.commit(group, bytes, &mut self.pending, &mut self.buffer);
        }
        commands
    }

    /// Lets the other threads end and the journal go, unsealed as after a kill. Comes before [`crate::Ledger::close`], which
    /// waits for them.
    pub fn end(self) {
        self.sequencer.end();
    }
}

/// The ledger cannot go on; the reason is already with [`Stop`].
struct Fatal;

impl Sequencer {
    pub(crate) fn run(mut self) {
        let mut pending = Pending::default();
        let mut buffer = Vec::new();
        let mut held = None;
        let mut unsealed = false;
        let mut open = true;
        while open || held.is_some() {
            let first = match held.take() {
                Some(first) => first,
                None => match self.next(unsealed) {
                    Ok(Message::Commit(first)) => first,
                    Ok(Message::Close) | Err(RecvTimeoutError::Disconnected) => break,
                    Err(RecvTimeoutError::Timeout) => {
                        unsealed = false;
                        if !self.stop.is_stopped() && self.seal().is_err() {
                            tracing::debug!("the seal was not written");
                        }
                        continue;
                    }
                },
            };
            self.let_others_queue();
            let mut bytes = first.submission.frame_bytes();
            let mut group = vec![first];
            while group.len() < self.group_entries && open {
                match self.receiver.try_recv() {
                    Ok(Message::Commit(next)) => {
                        let more = next.submission.frame_bytes();
                        if bytes + more > self.group_bytes {
                            held = Some(next);
                            break;
                        }
                        bytes += more;
                        group.push(next);
                    }
                    Ok(Message::Close) => open = false,
                    Err(_) => break,
                }
            }
            metrics::gauge!("miaoxiang_journal_queue").set(self.receiver.len() as f64);
            unsealed |= self.commit(group, bytes, &mut pending, &mut buffer);
        }
        if unsealed && !self.stop.is_stopped() && self.seal().is_err() {
            tracing::debug!("the last seal was not written");
        }
        self.end();
    }

    /// Lets the threads that share the sequencer's processor run first, as long as they queue more.
    ///
    /// A group costs a signature, a sync and the switches between threads whatever its size. With a processor of its own
    /// the sequencer loses less than a microsecond; on a shared one it would otherwise take each command as soon as it
    /// is queued, and a group would hold a few.
    fn let_others_queue(&self) {
        let mut queued = self.receiver.len();
        for _ in 0..MOST_YIELDS {
            std::thread::yield_now();
            let now = self.receiver.len();
            if now <= queued {
                break;
            }
            queued = now;
        }
    }

    /// Lets the other threads end, and the journal go.
    fn end(mut self) {
        self.followers.tell();
        // A caller that still waits in the queue learns it from the dropped reply: a queue whose receiver goes keeps what it
        // holds for as long as there is a sender. The lock goes last.
        self.keeper.stop();
        self.stop.end();
        self.receiver.try_iter().for_each(drop);
        drop(self.receiver);
        drop(self.guard_ends);
        drop(self.lock);
    }

    /// One group without the thread, for the simulation. Whether a frame was written.
    #[cfg(feature = "sim")]
    pub(crate) fn commit_by_hand(&mut self, group: Vec<Queued>) -> bool {
        let bytes = group.iter().map(|queued| queued.submission.frame_bytes()).sum();
        self.commit(group, bytes, &mut Pending::default(), &mut Vec::new())
    }

    /// What the thread does when it is idle.
    #[cfg(feature = "sim")]
    pub(crate) fn seal_by_hand(&mut self) {
        if !self.stop.is_stopped() && self.seal().is_err() {
            tracing::debug!("the seal was not written");
        }
    }

    fn next(&self, unsealed: bool) -> Result<Message, RecvTimeoutError> {
        if unsealed {
            self.receiver.recv_timeout(IDLE)
        } else {
            self.receiver.recv().map_err(|_| RecvTimeoutError::Disconnected)
        }
    }

    /// Judges a group, makes it durable, applies it and releases its answers. Whether a frame was written.
    fn commit(
        &mut self,
        group: Vec<Queued>,
        bytes: usize,
        pending: &mut Pending,
        buffer: &mut Vec<u8>,
    ) -> bool {
        if self.closed.load(Ordering::Acquire) {
            for queued in group {
                queued.settle(Err(Refused::Closed));
            }
            return false;
        }
        // Room first: the frame's position is part of what is committed.
        let room = self.make_room(HEADER_BYTES + bytes + NONCE_BYTES + TAG_BYTES + TRAILER_BYTES);
        if let Err(refused) = room {
            for queued in group {
                queued.settle(Err(refused));
            }
            return false;
        }
        let time_ms = match self.clock.journal_ms(self.hooks.now_ms(), self.cursor.time_ms) {
            Ok(time_ms) => time_ms,
            Err(cause) => {
                self.stop.fatal(&cause);
                for queued in group {
                    queued.settle(Err(Refused::Stopped));
                }
                return false;
            }
        };
        let frame_position = Position::new(self.current.number, self.current.offset as u32);
        let mut salts = vec![0; group.len() * SALTS_BYTES];
        self.crypt.fill_random(&mut salts);

        pending.clear();
        let mut members: Vec<Member> = Vec::with_capacity(group.len());
        let mut changed = Vec::new();
        for (queued, salts) in group.into_iter().zip(salts.as_chunks::<SALTS_BYTES>().0) {
            if self.closed.load(Ordering::Acquire) {
                queued.settle(Err(Refused::Closed));
                continue;
            }
            let index = self.cursor.frontier.size() + members.len() as u64;
            match self.judge(&queued.submission, pending, index, time_ms) {
                Judgement::Accept(counters) => {
                    let member = Member::new(queued, counters, salts, index, time_ms, |delayed, label| {
                        pending.head(&self.state, delayed, label)
                    });
                    // Nothing follows it, not even in its own group.
                    if member.kind() == LeafKind::ShardClose {
                        self.closed.store(true, Ordering::Release);
                    }
                    pending.note(&self.state, &member, index, frame_position);
                    members.push(member);
                }
                Judgement::Changed => changed.push(queued),
                Judgement::Malformed(what) => {
                    queued.settle(Err(Refused::Malformed(what)));
                }
            }
        }
        let written = !members.is_empty();
        if written {
            match self.write_group(&members, time_ms, buffer) {
                Ok(done) => self.release(members, time_ms, frame_position, done),
                Err(Fatal) => {
                    for queued in members.into_iter().map(|member| member.queued).chain(changed) {
                        queued.settle(Err(Refused::Stopped));
                    }
                    return false;
                }
            }
        }
        for queued in changed {
            queued.settle(Ok(Outcome::Changed));
        }
        written
    }

    fn judge(&self, submission: &Submission, pending: &Pending, index: u64, time_ms: u64) -> Judgement {
        let state = &*self.state;
        if time_ms > submission.ends_at_ms {
            return Judgement::Changed;
        }
        // A part is kept and destroyed with the year of its entry. What was sealed before midnight is sealed anew.
        if submission.admitted.year.is_some_and(|year| year != cst_year(time_ms)) {
            return Judgement::Changed;
        }
        if submission.admitted.intent.is_some_and(|intent| intent >= index) {
            return Judgement::Malformed("an outcome whose intent does not stand before it");
        }
        if submission.reads.iter().any(|(fact, version)| pending.version(state, fact) != *version) {
            return Judgement::Changed;
        }
        let record = submission.record();
        let mut counters: Vec<u32> = Vec::with_capacity(record.counters.len());
        for (at, counter) in record.counters.iter().enumerate() {
            let same =
                |(other, _): &(&CounterUse, &u32)| (other.key, other.day) == (counter.key, counter.day);
            let earlier = record.counters[..at].iter().zip(&counters).rev().find(same);
            let value = earlier.map_or_else(|| pending.counter(state, counter), |(_, value)| *value);
            match value.checked_add(counter.amount).filter(|raised| *raised <= counter.limit) {
                Some(raised) => counters.push(raised),
                None => return Judgement::Changed,
            }
        }
        match fits(record, state, pending, time_ms) {
            Ok(()) => Judgement::Accept(counters),
            Err(judgement) => judgement,
        }
    }

    /// Makes sure that a frame of `bytes` and a seal after it fit in the current segment.
    fn make_room(&mut self, bytes: usize) -> Result<(), Refused> {
        if self.stop.is_stopped() {
            return Err(Refused::Stopped);
        }
        if self.current.offset + (bytes + SEAL_BYTES) as u64 <= self.current.bytes {
            return Ok(());
        }
        // It may have to be waited for.
        self.followers.tell();
        // The next segment is taken before the old one is sealed: a journal that is full then stays as it is.
        let number = self.current.number + 1;
        let file = match self.keeper.take(number, &self.stop) {
            Ok(file) => file,
            Err(NoSegment::Full) => return Err(Refused::Full),
            Err(NoSegment::Stopped) => return Err(Refused::Stopped),
        };
        self.seal().map_err(|Fatal| Refused::Stopped)?;
        self.keeper.close(self.current.number, self.current.offset);
        // The header is durable before a frame follows it: a torn header has nothing behind it.
        let header = self.signer.segment_header(number, self.cursor.frame);
        let begun = file.write_all_at(&header, 0).and_then(|()| {
            file.sync()?;
            Ok(file.stat()?.len)
        });
        let bytes = match begun {
            Ok(bytes) => bytes,
            Err(error) => {
                self.stop.fatal(&format!("beginning segment {number} failed: {error}"));
                return Err(Refused::Stopped);
            }
        };
        self.current = Current { number, file, offset: SEGMENT_HEADER_BYTES as u64, bytes };
        self.cursor.position = Position::new(number, SEGMENT_HEADER_BYTES as u32);
        Ok(())
    }

    /// Builds the frame, guards it against bit flips, writes it and makes it durable.
    fn write_group(
        &mut self,
        members: &[Member],
        time_ms: u64,
        buffer: &mut Vec<u8>,
    ) -> Result<Written, Fatal> {
        let head = frame::Head {
            kind: frame::Kind::Group,
            count: members.len() as u32,
            first_index: self.cursor.frontier.size(),
            number: self.cursor.frame,
            time_ms,
            previous: self.cursor.previous,
            day: day_of(time_ms),
        };
        buffer.clear();
        head.write(buffer);
        for member in members {
            buffer.extend_from_slice(&member.leaf);
        }
        for member in members {
            let length = member.subjects().bytes().len();
            buffer.extend_from_slice(&(length as u32).to_be_bytes());
        }
        let subjects_at = buffer.len();
        for member in members {
            buffer.extend_from_slice(member.subjects().bytes());
        }
        let state_at = buffer.len();
        buffer.extend_from_slice(&[0; NONCE_BYTES]);
        for member in members {
            let plain = EntryPlain {
                salt: &member.salt,
                inner_salt: &member.inner_salt,
                open: member.open(),
                record: &member.queued.submission.admitted.record_bytes,
                completion: &member.completion_bytes,
            };
            plain.write(buffer);
        }
        self.hooks.laid_out(buffer);
        if !is_intact(buffer, &head, members, subjects_at, state_at + NONCE_BYTES) {
            self.stop.fatal("memory changed between admission and the frame: nothing was written");
            return Err(Fatal);
        }
        self.crypt.seal_state(buffer, state_at, head.day, head.number);
        let state_bytes = buffer.len() - state_at;

        let before = self.cursor.frontier.clone();
        let mut after = before.clone();
        for member in members {
            after.append(member.leaf_hash);
        }
        let (checkpoint, signature) = self.signer.sign(after.size(), after.root());
        frame::finish(buffer, state_bytes, checkpoint.size, &checkpoint.root, &signature);

        #[cfg(debug_assertions)]
        crate::failpoint::begin_group();
        self.write(buffer)?;
        #[cfg(debug_assertions)]
        crate::failpoint::after_sync();
        self.cursor.frontier = after;
        self.cursor.time_ms = time_ms;
        self.released.set(Mark { frames: self.cursor.frame, size: checkpoint.size, root: checkpoint.root });
        self.durable.store(checkpoint.size, Ordering::Release);
        metrics::counter!("miaoxiang_journal_entries_total").increment(members.len() as u64);
        metrics::histogram!("miaoxiang_journal_group_entries").record(members.len() as f64);
        Ok(Written { before, checkpoint, signature, subjects_at })
    }

    /// Appends one frame: one write, one sync. After an error nothing is ever written or answered again, because
    /// what the disk holds is unknown and a second sync would lie.
    fn write(&mut self, bytes: &[u8]) -> Result<(), Fatal> {
        let started = Instant::now();
        let written = self.hooks.before_write(self.cursor.frame).and_then(|()| self.current.append(bytes));
        if let Err(error) = written {
            self.stop.fatal(&format!("writing frame {} failed: {error}", self.cursor.frame));
            return Err(Fatal);
        }
        metrics::histogram!("miaoxiang_journal_sync_seconds").record(started.elapsed().as_secs_f64());
        self.hooks.after_sync(self.cursor.frame);
        self.current.offset += bytes.len() as u64;
        self.cursor.previous = frame::chain_hash(bytes);
        self.cursor.frame += 1;
        self.cursor.position = Position::new(self.current.number, self.current.offset as u32);
        Ok(())
    }

    fn seal(&mut self) -> Result<(), Fatal> {
        // A seal may end where its segment does: written to one that was cut, it would make the length right again.
        if let Err(error) = self.current.still_there() {
            self.stop.fatal(&format!("sealing the journal failed: {error}"));
            return Err(Fatal);
        }
        let bytes = build_seal(&mut self.cursor.clone(), &self.signer);
        self.write(&bytes)?;
        self.released.set(self.cursor.mark());
        self.followers.sealed(&self.cursor);
        Ok(())
    }

    /// Applies a durable group and lets its answers go.
    fn release(&mut self, members: Vec<Member>, time_ms: u64, frame: Position, done: Written) {
        let first = done.before.size();
        let mut slots: Vec<Slot> = Vec::with_capacity(members.len() * 2);
        let mut offset = frame.offset() + done.subjects_at as u32;
        let mut parts = Vec::new();
        for (index, member) in (first..).zip(&members) {
            parts.clear();
            let positions =
                member.subjects().offsets().map(|at| Position::new(frame.segment(), offset + at as u32));
            parts.extend(positions);
            offset += member.subjects().bytes().len() as u32;
            let entry = Applied {
                index,
                time_ms,
                organisation: organisation(member.kind(), member.open()),
                leaf_hash: member.leaf_hash,
                frame,
                parts: &parts,
                record: member.record(),
                completion: &member.completion,
            };
            self.state.apply(&entry, &mut slots);
        }
        let entries = members.iter().map(|member| Followed {
            leaf: &member.leaf,
            leaf_hash: &member.leaf_hash,
            links: if member.completion.delayed { &[] } else { &member.completion.links },
        });
        self.followers.gather(&self.state, &slots, entries, &done.checkpoint, &done.signature);
        let proofs = members.iter().any(|member| member.queued.submission.inline_proof).then(|| {
            let hashes: Vec<Hash> = members.iter().map(|member| member.leaf_hash).collect();
            let text = done.checkpoint.signed_text(&self.signer.key, &done.signature);
            (GroupTree::new(&done.before, &hashes), text)
        });
        for (position, member) in members.into_iter().enumerate() {
            let index = first + position as u64;
            let mut queued = member.queued;
            let open = std::mem::take(&mut queued.submission.admitted.prepared.open);
            let proof =
                proofs.as_ref().filter(|_| queued.submission.inline_proof).map(|(tree, text)| TlogProof {
                    extra: Some([&member.salt[..], &member.c, &open].concat()),
                    index,
                    path: tree.inclusion(position),
                    checkpoint: text.clone(),
                });
            let committed = Committed {
                index,
                time_ms,
                leaf_hash: member.leaf_hash,
                open,
                salt: member.salt,
                c: member.c,
                proof,
            };
            queued.settle(Ok(Outcome::Committed(committed)));
        }
        // Followers last: the answers are already gone.
        self.followers.tell_when_due();
    }
}

/// A durable group.
struct Written {
    /// The tree before it.
    before: Frontier,
    /// Its checkpoint and the signature.
    checkpoint: Checkpoint,
    signature: [u8; 64],
    /// Where its subject parts begin in the frame.
    subjects_at: usize,
}

/// Whether a record fits the state: every version is the next one, every holder it names is known.
///
/// The facts read should say as much; this makes it certain that one of two commands that create or change the
/// same thing wins, whatever its caller forgot to name. A record concerns living holders only, and brings none whose
/// key is wrapped for an epoch that has ended: what was prepared before is decided again.
fn fits(record: &Record, state: &State, pending: &Pending, time_ms: u64) -> Result<(), Judgement> {
    let next = |fact: Fact, version: u32| pending.version(state, &fact).checked_add(1) == Some(version);
    let licenses = record.licenses.iter().all(|license| next(Fact::License(license.key), license.version));
    let grants =
        record.grants.iter().all(|grant| next(Fact::Grant(state.grant_id(&grant.key)), grant.version));
    let mut documents = true;
    for document in &record.documents {
        let kind = DocumentKind::from_number(document.kind)
            .ok_or(Judgement::Malformed("an unknown document kind"))?;
        documents &= next(Fact::Document(kind, document.key), document.version);
    }
    let epoch = pending.epoch.unwrap_or_else(|| state.epoch());
    let destroyed = pending.destroyed.unwrap_or_else(|| state.epoch_destroyed());
    let holders = record
        .new_holders
        .iter()
        .all(|holder| holder.epoch == epoch && pending.version(state, &Fact::Holder(holder.key)) == 0);
    let year = cst_year(time_ms);
    let keys = record.new_holders.iter().all(|holder| holder.year == year)
        && record.new_keys.iter().all(|NewKey { name, epoch: of, .. }| {
            let exists = (state.has_key(name) && !pending.destroyed_keys.contains(name))
                || pending.born.contains(name)
                || record.new_holders.iter().any(|holder| holder.name() == *name);
            name.year == year && *of == epoch && !exists
        })
        && record.destroyed.iter().all(|name| {
            let gone = pending.destroyed_keys.contains(name) || pending.erased.contains(&name.label);
            state.has_key(name) && !gone
        });
    if record.destroyed.iter().any(|name| name.year >= year) {
        return Err(Judgement::Malformed("the destruction of a key whose year is not over"));
    }
    let is_new = |label: &Label| record.new_holders.iter().any(|holder| holder.label == *label);
    let (mut living, mut all_known) = (true, true);
    let keyed = record.new_keys.iter().map(|new| &new.name.label);
    for label in record.concerned.iter().chain(&record.erased).chain(keyed) {
        let erased = state.erased(label);
        living &= erased != Some(true) && !pending.erased.contains(label);
        all_known &= erased.is_some() || is_new(label) || pending.heads.contains_key(label);
    }
    // One epoch at a time: the next begins when the key of the one before the present is destroyed.
    let epochs = (record.epoch_begun == 0 || (record.epoch_begun == epoch + 1 && destroyed + 1 == epoch))
        && (record.epoch_destroyed == 0
            || (record.epoch_destroyed == destroyed + 1 && record.epoch_destroyed < epoch));
    let unbound =
        record.idempotency.is_none_or(|bound| pending.version(state, &Fact::Idempotency(bound.key)) == 0);
    if !(licenses && grants && documents && holders && keys && unbound && living && epochs) {
        return Err(Judgement::Changed);
    }
    for index in &record.released {
        let Some(delayed) = state.delayed(*index).filter(|_| !pending.released.contains(index)) else {
            return Err(Judgement::Changed);
        };
        if delayed.release_ms > time_ms || delayed.holders != record.concerned {
            return Err(Judgement::Malformed("a release that is too early or tells somebody else"));
        }
    }
    let known =
        |label: &Label| is_new(label) || pending.heads.contains_key(label) || state.knows_label(label);
    if record
        .new_holders
        .iter()
        .any(|holder| pending.heads.contains_key(&holder.label) || state.knows_label(&holder.label))
    {
        return Err(Judgement::Malformed("a label that is taken"));
    }
    let of_licenses = record.licenses.iter().flat_map(|license| &license.holders);
    let of_grants = record.grants.iter().map(|grant| &grant.holder);
    if !all_known || !of_licenses.chain(of_grants).all(known) {
        return Err(Judgement::Malformed("an unknown holder"));
    }
    Ok(())
}

impl Pending {
    /// Takes in what an accepted member changes.
    fn note(&mut self, state: &State, member: &Member, index: u64, frame: Position) {
        let record = member.record();
        for license in &record.licenses {
            self.versions.insert(Fact::License(license.key), license.version);
            if license.version == 1 {
                for label in &license.holders {
                    *self.more_licenses.entry(*label).or_default() += 1;
                }
            }
        }
        for grant in &record.grants {
            self.versions.insert(Fact::Grant(state.grant_id(&grant.key)), grant.version);
        }
        for document in &record.documents {
            if let Some(kind) = DocumentKind::from_number(document.kind) {
                self.versions.insert(Fact::Document(kind, document.key), document.version);
            }
        }
        for holder in &record.new_holders {
            self.versions.insert(Fact::Holder(holder.key), label_version(&holder.label));
            self.heads.insert(holder.label, Head::default());
        }
        self.erased.extend(&record.erased);
        self.born.extend(record.new_keys.iter().map(|new| new.name));
        self.destroyed_keys.extend(&record.destroyed);
        if record.epoch_begun != 0 {
            self.epoch = Some(record.epoch_begun);
            self.versions.insert(Fact::Epoch, record.epoch_begun);
        }
        if record.epoch_destroyed != 0 {
            self.destroyed = Some(record.epoch_destroyed);
        }
        if let Some(bound) = record.idempotency {
            self.versions.insert(Fact::Idempotency(bound.key), 1);
        }
        for (label, link) in record.concerned.iter().zip(&member.completion.links) {
            let head = Head { sequence: link.sequence, frame, index, leaf_hash: member.leaf_hash };
            if member.completion.delayed {
                self.oversight.insert(*label, head);
            } else {
                self.heads.insert(*label, head);
            }
        }
        self.released.extend(&record.released);
        for (counter, value) in record.counters.iter().zip(&member.completion.counters) {
            self.counters.insert((counter.key, counter.day), *value);
        }
    }
}

impl Member {
    /// Completes an accepted command: index, time, salts, sequences, leaf.
    fn new(
        mut queued: Queued,
        counters: Vec<u32>,
        salts: &[u8; SALTS_BYTES],
        index: u64,
        time_ms: u64,
        head: impl Fn(bool, &Label) -> Option<Head>,
    ) -> Self {
        let Admitted { prepared, record_digest, open_digest, .. } = &mut queued.submission.admitted;
        let Prepared { kind, open, record, told, .. } = prepared;
        if *kind == LeafKind::Entry {
            open[OPEN_INDEX_OFFSET..OPEN_INDEX_OFFSET + 8].copy_from_slice(&index.to_be_bytes());
            open[OPEN_TIME_OFFSET..OPEN_TIME_OFFSET + 8].copy_from_slice(&time_ms.to_be_bytes());
        }
        let delayed = record.release_ms != 0;
        let links = record.concerned.iter().zip(told).map(|(label, told)| {
            // A holder that this record brings has no entry yet.
            let head = head(delayed, label).unwrap_or_default();
            HolderLink {
                label: *label,
                told: *told,
                sequence: head.sequence + 1,
                previous_chain: 0,
                previous_position: head.frame.0,
                previous_index: head.index,
                previous_leaf: head.leaf_hash,
            }
        });
        let completion = Completion { delayed, links: links.collect(), counters };
        let completion_bytes = completion.encode();
        let (salt, inner_salt) = split_salts(salts);
        let c = inner_commitment_with(&inner_salt, record_digest, &completion_bytes)
            .expect("a completion that was just encoded is well formed");
        let leaf = match kind {
            LeafKind::Entry => leaf_bytes(*kind, &commitment_of(&salt, open, open_digest, &c)),
            _ => statement_leaf(*kind, open),
        };
        let leaf_hash = leaf_hash(&leaf);
        Self { queued, completion, completion_bytes, salt, inner_salt, c, leaf, leaf_hash }
    }

    fn kind(&self) -> LeafKind {
        self.queued.submission.admitted.prepared.kind
    }

    fn open(&self) -> &[u8] {
        &self.queued.submission.admitted.prepared.open
    }

    fn record(&self) -> &Record {
        self.queued.submission.record()
    }

    fn subjects(&self) -> &Subjects {
        &self.queued.submission.admitted.prepared.subjects
    }
}

fn split_salts(salts: &[u8; SALTS_BYTES]) -> (Hash, Hash) {
    let halves = salts.as_chunks::<32>().0;
    (halves[0], halves[1])
}

/// The bit-flip guard. A single flipped bit between admission and signing has ended public logs for good: so the digest of
/// the subject parts and every leaf hash are computed again, from the frame buffer alone, and compared. The leaf was made of
/// admission's digests of record and `open`, so another record or `open` in the buffer makes another leaf. The head and the
/// lengths are compared, too, which nothing is computed of: the frame would be synced and answered from, and no start
/// would take it.
fn is_intact(
    buffer: &[u8],
    head: &frame::Head,
    members: &[Member],
    subjects_at: usize,
    plain_at: usize,
) -> bool {
    let mut again = Vec::with_capacity(HEADER_BYTES);
    head.write(&mut again);
    if !buffer.starts_with(&again) {
        return false;
    }
    let lengths = &buffer[subjects_at - members.len() * SUBJECTS_LENGTH_BYTES..subjects_at];
    let mut lengths = lengths.as_chunks::<SUBJECTS_LENGTH_BYTES>().0.iter();
    let mut subject = subjects_at;
    let mut plain = &buffer[plain_at..];
    members.iter().enumerate().all(|(at, member)| {
        let length = member.subjects().bytes().len();
        let told = lengths.next().map(|told| u32::from_be_bytes(*told) as usize);
        let subjects = &buffer[subject..subject + length];
        subject += length;
        let Ok(entry) = EntryPlain::read(&mut plain) else { return false };
        let leaf = &buffer[HEADER_BYTES + at * LEAF_BYTES..HEADER_BYTES + (at + 1) * LEAF_BYTES];
        told == Some(length)
            && are_committed(member.kind(), entry.open, subjects)
            && leaf_of(member.kind(), &entry).is_some_and(|made| made == leaf)
            && leaf_hash(leaf) == member.leaf_hash
    }) && plain.is_empty()
}
