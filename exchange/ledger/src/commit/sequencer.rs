//! The sequencer: one thread that owns the end of the journal and the log's key.
//!
//! It takes everything queued when the last sync returned and whoever shares its processor had a turn (natural group
//! commit, no timer). It judges that in order, and makes it durable with one write and one `fdatasync`. A group's later
//! members see what its earlier ones change through [`Pending`]; the shared state changes only after the sync. A command
//! that must be decided again is answered after the group too, so that its next decision sees what got in its way.
//!
//! A crash leaves at most one torn or whole last frame that nobody was answered from; the next start drops or adopts
//! it.

use crate::{
    commit::{
        command::{Committed, Outcome, Refused},
        followers::{Followed, Followers},
        judge::{Judgement, Pending, judge},
        member::{Member, SALTS_BYTES, is_intact},
        submission::{Message, Queued},
    },
    disk::Lock,
    health::Stop,
    hosted::follow::Feed,
    journal::{
        clock::Clock,
        current::Current,
        cursor::{Cursor, Mark},
        frame::{self, HEADER_BYTES, SEAL_BYTES, TRAILER_BYTES},
        guard::Released,
        leaf::organisation,
        record::EntryPlain,
        segment::{Keeper, NoSegment, SEGMENT_HEADER_BYTES},
    },
    keys::{
        crypt::{Crypt, NONCE_BYTES, TAG_BYTES, day_of},
        signer::{LogSigner, build_seal},
    },
    names::{Hash, Position},
    options::Hooks,
    state::{Applied, State, slot::Slot},
};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use verifier::{
    checkpoint::Checkpoint,
    leaf::LeafKind,
    merkle::{Frontier, GroupTree},
    proof::TlogProof,
};

/// After this time without a group a seal frame is written.
const IDLE: Duration = Duration::from_millis(10);
/// Most times that the sequencer lets other threads run before it closes a group.
const MOST_YIELDS: usize = 4;

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
    /// To the thread that takes hosted rows in.
    pub(crate) rows: Feed,
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
        loop {
            match self.sequencer.receiver.try_recv() {
                Ok(Message::Commit(submission)) => group.push(submission),
                Ok(Message::CommitAll(submissions)) => group.extend(submissions),
                Ok(Message::Close) | Err(_) => break,
            }
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
        // Taken from the queue, and for the next group.
        let mut held = VecDeque::new();
        let mut unsealed = false;
        let mut open = true;
        while open || !held.is_empty() {
            if held.is_empty() {
                match self.next(unsealed) {
                    Ok(Message::Commit(first)) => held.push_back(first),
                    Ok(Message::CommitAll(all)) => held.extend(all),
                    Ok(Message::Close) | Err(RecvTimeoutError::Disconnected) => break,
                    Err(RecvTimeoutError::Timeout) => {
                        unsealed = false;
                        if !self.stop.is_stopped() && self.seal().is_err() {
                            tracing::debug!("the seal was not written");
                        }
                        continue;
                    }
                }
            }
            self.let_others_queue();
            let (mut bytes, mut group) = (0, Vec::with_capacity(held.len()));
            while group.len() < self.group_entries {
                let Some(next) = held.pop_front() else {
                    if !open {
                        break;
                    }
                    match self.receiver.try_recv() {
                        Ok(Message::Commit(next)) => held.push_back(next),
                        Ok(Message::CommitAll(all)) => held.extend(all),
                        Ok(Message::Close) => open = false,
                        Err(_) => break,
                    }
                    continue;
                };
                let more = next.submission.frame_bytes();
                if bytes + more > self.group_bytes && !group.is_empty() {
                    held.push_front(next);
                    break;
                }
                bytes += more;
                group.push(next);
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

    /// The work of the thread when it is idle.
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
            match judge(&self.state, pending, &queued.submission, index, time_ms) {
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
        self.rows.applied(&self.state, &slots);
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
