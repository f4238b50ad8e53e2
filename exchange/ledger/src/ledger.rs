//! The handle: what the gateway holds. Commits through the queue, reads the state and the journal.
//!
//! Any thread; clones share one ledger. Files belong to the threads behind it, and so does what a crash leaves of them.

use crate::{
    commit::{
        command::{Command, Committed, Outcome, Prepared, Refused, unconditional},
        submission::{Message, Queued, Reply, Submission},
    },
    derive::{
        image::Followed,
        index::{HolderProof, Index},
        scrub::Scrub,
        tiles::Tiles,
    },
    disk::Room,
    error::ReadError,
    health::{Failing, Health, Stop},
    hosted::rows::Rows,
    journal::{
        entry::{self, OpenedEntry, committed_again},
        frame::Frame,
        record::{NewKey, Record, StateDigest},
        segment::{Keeper, Reader},
    },
    keys::{
        crypt::{Crypt, HolderKey, KeyedHash, PreparedHolder, is_sealed_for},
        epoch::{RotateError, Rotation},
    },
    names::{Hash, Key, KeyName, Label, Position, STANDARD},
    options::Hooks,
    state::{State, rows::Bound},
};
use crossbeam_channel::{Sender, TrySendError};
use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};
use verifier::{
    merkle::{consistency_from, inclusion_from, multiproof_from},
    note::VerifierKey,
    proof::TlogProof,
};

/// A handle on the ledger; clones share it. Dropping the last one drains and seals in the background; use
/// [`Ledger::close`] to wait for that.
#[derive(Clone)]
pub struct Ledger(pub(crate) Arc<Inner>);

/// The part that the clones of a handle share. `open.rs` makes it.
pub(crate) struct Inner {
    pub(crate) sender: Sender<Message>,
    pub(crate) group_bytes: usize,
    pub(crate) crypt: Arc<Crypt>,
    pub(crate) keyed: KeyedHash,
    pub(crate) state: Arc<State>,
    pub(crate) reader: Arc<Reader>,
    pub(crate) rows: Rows,
    pub(crate) scrub: Arc<Scrub>,
    pub(crate) failing: Arc<Failing>,
    pub(crate) tiles: Arc<Tiles>,
    pub(crate) verifier_key: VerifierKey,
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) stop: Arc<Stop>,
    pub(crate) durable: Arc<AtomicU64>,
    pub(crate) closed: Arc<AtomicBool>,
    /// `None` without a restart image.
    pub(crate) image: Option<Followed>,
    pub(crate) rotation: Rotation,
    /// The map over all holders; `None` when no index root is made.
    pub(crate) index: Option<Arc<Index>>,
    pub(crate) hooks: Hooks,
    pub(crate) threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Ledger {
    /// Keyed hashes under this ledger's index key.
    pub fn keyed(&self) -> &KeyedHash {
        &self.0.keyed
    }

    /// The state: durable entries only.
    pub fn state(&self) -> &State {
        &self.0.state
    }

    /// The hosted rows.
    pub fn rows(&self) -> &Rows {
        &self.0.rows
    }

    /// Longest entry that a commit takes, bytes: with all that it changes and seals.
    pub fn most_entry_bytes(&self) -> usize {
        self.0.group_bytes
    }

    /// Commits a decision: returns when its entry is durable, or when it must be decided again.
    ///
    /// Cancel-safe in the sense that a dropped future changes nothing: a command that was queued is committed all
    /// the same, and an idempotency key finds it.
    ///
    /// # Errors
    /// [`Refused`]; nothing was committed, except that `Stopped` leaves it unknown: the disk may hold the entry,
    /// and the next start decides.
    pub async fn commit(&self, command: Command) -> Result<Outcome, Refused> {
        self.submit(command)?.outcome().await
    }

    /// Commits many decisions, in their order and in one group as far as they fit. They are queued at once; the future gives the
    /// outcome of each, in its place, as [`Ledger::commit`] does: one that must be decided again holds up no other.
    pub fn commit_all(
        &self,
        commands: Vec<Command>,
    ) -> impl Future<Output = Vec<Result<Outcome, Refused>>> + Send + use<> {
        let mut queued = Vec::with_capacity(commands.len());
        let admitted = commands.into_iter().map(|command| {
            let (submission, reply) = self.admit(command)?;
            queued.push(submission);
            Ok(reply)
        });
        let replies: Vec<Result<Reply, Refused>> = admitted.collect();
        let sent = if queued.is_empty() { Ok(()) } else { self.send(Message::CommitAll(queued)) };
        async move {
            let mut outcomes = Vec::with_capacity(replies.len());
            for reply in replies {
                outcomes.push(match (reply, sent) {
                    (Ok(reply), Ok(())) => reply.outcome().await,
                    (Err(refused), _) | (Ok(_), Err(refused)) => Err(refused),
                });
            }
            outcomes
        }
    }

    fn submit(&self, command: Command) -> Result<Reply, Refused> {
        let (submission, reply) = self.admit(command)?;
        self.send(Message::Commit(submission)).map(|()| reply)
    }

    fn admit(&self, command: Command) -> Result<(Queued, Reply), Refused> {
        if self.0.stop.is_stopped() {
            return Err(Refused::Stopped);
        }
        if self.0.keeper.is_full() {
            return Err(Refused::Full);
        }
        if !self.0.rows.admits(&command.permit_or_denial.record) {
            return Err(Refused::Malformed("a row segment that was not written for this record"));
        }
        Submission::admit(command, self.0.group_bytes)
    }

    fn send(&self, message: Message) -> Result<(), Refused> {
        match self.0.sender.try_send(message) {
            // The sequencer answers or drops what was queued before the end; nobody does what comes later.
            Ok(()) if self.0.stop.has_ended() => Err(Refused::Stopped),
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => Err(Refused::Overloaded),
            Err(TrySendError::Disconnected(_)) => Err(Refused::Stopped),
        }
    }

    /// Changes the epoch: makes a key for the next one, switches to it at one index, writes the key file anew without
    /// those that are erased, and destroys the old key, which completes every erasure committed before the switch. A
    /// change that a crash or an error cut off is finished instead ([`State::is_rotating`]). `entry` makes what is
    /// committed of each of the two records, neither of which concerns anybody. Blocks; not within an asynchronous
    /// context. The epoch that has begun.
    ///
    /// # Errors
    /// [`RotateError`]; the ledger goes on, with the keys of both epochs if the switch was made.
    pub fn rotate(&self, entry: impl Fn(&Record) -> Prepared) -> Result<u32, RotateError> {
        let inner = &self.0;
        inner.rotation.run(&inner.crypt, &inner.state, |record| {
            match self.submit(unconditional(entry(&record)))?.blocking_outcome()? {
                Outcome::Committed(_) => Ok(()),
                Outcome::Changed => Err(Refused::Malformed("a key event that is not the next one")),
            }
        })
    }

    /// Commits an entry that rests on no fact, on a thread that may wait. `None` when it was not committed.
    pub(crate) fn commit_blocking(&self, prepared: Prepared) -> Option<Committed> {
        match self.submit(unconditional(prepared)).ok()?.blocking_outcome() {
            Ok(Outcome::Committed(committed)) => Some(committed),
            _ => None,
        }
    }

    /// The free space as it was last looked at, within the last seconds.
    pub fn room(&self) -> Room {
        self.0.keeper.room()
    }

    /// Seals a subject part: without a holder under the key of today, for one under the holder's key, for several
    /// under a record key wrapped for each (at most 255).
    pub fn seal_subject(&self, part: u16, holders: &[HolderKey], plaintext: &[u8]) -> Vec<u8> {
        self.0.crypt.seal_subject(part, holders, self.0.hooks.now_ms(), plaintext)
    }

    /// A random label and key for a holder that the state does not know. Nothing is stored until a record with it
    /// in `new_holders` is committed. The key is of the class [`STANDARD`].
    pub fn new_holder(&self, key: Key) -> PreparedHolder {
        self.new_holder_in(STANDARD, key)
    }

    /// The same with a key of another class.
    pub fn new_holder_in(&self, class: u8, key: Key) -> PreparedHolder {
        self.0.crypt.new_holder(key, class, self.now_ms())
    }

    /// The key that seals what a known holder's part says from now on: of the class [`STANDARD`] and of this year. The
    /// first entry of a year bears it, in `record`. `None` for a holder who is not known or is erased.
    pub fn sealing_key(&self, label: &Label, record: &mut Record) -> Option<HolderKey> {
        self.sealing_key_in(STANDARD, label, record)
    }

    /// The same of another class.
    pub fn sealing_key_in(&self, class: u8, label: &Label, record: &mut Record) -> Option<HolderKey> {
        let (state, crypt) = (&self.0.state, &self.0.crypt);
        let name = KeyName::at(*label, class, self.now_ms());
        if let Some(key) = state.part_key(&name) {
            return Some(key);
        }
        // It may be born in this record already.
        if let Some(new) = record.new_keys.iter().find(|new| new.name == name) {
            return crypt.unwrap_holder(&name, new.epoch, &new.wrapped);
        }
        if state.erased(label) != Some(false) || state.has_key(&name) {
            return None;
        }
        let (key, epoch, wrapped) = crypt.new_key(name);
        record.new_keys.push(NewKey { name, epoch, wrapped });
        Some(key)
    }

    /// The moment that an entry of now has: the clock's, and never before the latest entry's.
    fn now_ms(&self) -> u64 {
        self.0.hooks.now_ms().max(self.0.state.time_ms())
    }

    /// Reads and opens the sealed part at a position: the bytes of a `SubjectRecord`. Blocks for one `pread`.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn open_subject(&self, position: Position) -> Result<Vec<u8>, ReadError> {
        let part = self.0.reader.part(position)?;
        self.0.crypt.open_subject(&part, |name| self.0.state.part_key(name))
    }

    /// The sealed part of an entry that tells a holder of it, opened: the one made for the holder, or the entry's only
    /// one. Blocks for a read of each part until it is found.
    ///
    /// # Errors
    /// [`ReadError`], also [`ReadError::KeyGone`] after an erasure.
    pub fn open_part_for(&self, entry: &OpenedEntry, label: &Label) -> Result<Vec<u8>, ReadError> {
        let place = entry.links.iter().position(|link| link.label == *label);
        let own = place.and_then(|place| entry.parts.get(place));
        for position in own.into_iter().chain(&entry.parts) {
            let part = self.0.reader.part(*position)?;
            if is_sealed_for(&part, label) {
                return self.0.crypt.open_subject(&part, |name| self.0.state.part_key(name));
            }
        }
        Err(ReadError::KeyGone)
    }

    /// An entry by its index. Blocks for some reads.
    ///
    /// # Errors
    /// [`ReadError`], also for an index that is not durable yet.
    pub fn entry(&self, index: u64) -> Result<OpenedEntry, ReadError> {
        self.entry_at(self.locate(index)?, index)
    }

    /// The entry of an index, given where its frame stood when it was written; where that place no longer has it, the
    /// entry is looked for. Blocks for one read, or some.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn entry_near(&self, frame: Position, index: u64) -> Result<OpenedEntry, ReadError> {
        self.entry_at(frame, index).or_else(|_| self.entry(index))
    }

    fn locate(&self, index: u64) -> Result<Position, ReadError> {
        if index >= self.size() {
            return Err(ReadError::Malformed("entry"));
        }
        self.0.reader.locate(index)
    }

    fn entry_at(&self, position: Position, index: u64) -> Result<OpenedEntry, ReadError> {
        let bytes = self.0.reader.frame(position)?;
        entry::open_frame(&self.0.crypt, position, &bytes, |at| at == index)?
            .pop()
            .ok_or(ReadError::Malformed("entry"))
    }

    /// Gives the durable entries from `from` to below `until` in order to `visit`, until it returns `false`. Blocks for
    /// a read of each frame.
    ///
    /// # Errors
    /// [`ReadError`]; what came before was visited.
    pub fn visit_entries(
        &self,
        from: u64,
        until: u64,
        mut visit: impl FnMut(OpenedEntry) -> bool,
    ) -> Result<(), ReadError> {
        let until = until.min(self.size());
        if from >= until {
            return Ok(());
        }
        let mut index = from;
        let mut position = self.locate(from)?;
        loop {
            let bytes = self.0.reader.frame(position)?;
            let entries =
                entry::open_frame(&self.0.crypt, position, &bytes, |at| (index..until).contains(&at))?;
            for entry in entries {
                index = entry.committed.index + 1;
                if !visit(entry) {
                    return Ok(());
                }
            }
            if index >= until {
                return Ok(());
            }
            let next = self.0.reader.next_group(position, index)?;
            position = next.ok_or(ReadError::Malformed("frame"))?;
        }
    }

    /// Index of the first durable entry that is not older than a moment (ms since 1970); the log's size when all are older.
    /// Blocks for reads of frames' heads.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn first_at(&self, time_ms: u64) -> Result<u64, ReadError> {
        let size = self.size();
        if size == 0 {
            return Ok(0);
        }
        Ok(self.0.reader.first_at(time_ms)?.map_or(size, |index| index.min(size)))
    }

    /// The proof of a holder in the latest index root; `None` when there is none, or none is made.
    pub fn holder_proof(&self, label: &Label) -> Option<HolderProof> {
        self.0.index.as_ref()?.proof(label)
    }

    /// The original answer and receipt of an idempotency key: the `SubjectRecord` that holds the answer bytes, and
    /// the entry without a proof. Blocks for two reads.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn original(&self, bound: &Bound) -> Result<(Vec<u8>, Committed), ReadError> {
        let bytes = self.0.reader.frame(bound.frame)?;
        let frame = Frame::parse(&bytes).map_err(ReadError::Malformed)?;
        let plain = self.0.crypt.open_state(frame.state, frame.head.day, frame.head.number)?;
        let committed = committed_again(&frame, &plain, bound.index)?;
        Ok((self.open_subject(bound.answer)?, committed))
    }

    /// 32 random bytes.
    pub fn random(&self) -> Hash {
        self.0.crypt.random()
    }

    /// The log's name.
    pub fn origin(&self) -> &str {
        self.0.verifier_key.name()
    }

    /// The key that checkpoints are verified with.
    pub fn verifier_key(&self) -> &VerifierKey {
        &self.0.verifier_key
    }

    /// Durable entries.
    pub fn size(&self) -> u64 {
        self.0.durable.load(Ordering::Acquire)
    }

    /// Whether the log's last leaf closes it: then every command is refused as [`Refused::Closed`], for good.
    pub fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Acquire)
    }

    /// The signed checkpoint that the public sees; moves once a second.
    pub fn published_checkpoint(&self) -> Arc<str> {
        self.0.tiles.published_text()
    }

    /// A tile of the published tree: `width` hashes of it, 256 when `None`. `None` when the tree has not that many.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn tile(&self, level: u8, index: u64, width: Option<u16>) -> io::Result<Option<Vec<u8>>> {
        self.0.tiles.tile(level, index, width)
    }

    /// An entry bundle of the published tree, as [`Ledger::tile`].
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn entry_bundle(&self, index: u64, width: Option<u16>) -> io::Result<Option<Vec<u8>>> {
        self.0.tiles.entry_bundle(index, width)
    }

    /// A proof of an entry in the published checkpoint, without an extra line; `None` when the published tree does
    /// not reach it yet.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn proof(&self, index: u64) -> io::Result<Option<TlogProof>> {
        let (size, text) = self.published();
        let path = self.inclusion(index, size)?;
        Ok(path.map(|path| TlogProof { extra: None, index, path, checkpoint: text.to_string() }))
    }

    /// Size and text of the checkpoint that the public sees, as [`Ledger::published_checkpoint`].
    pub fn published(&self) -> (u64, Arc<str>) {
        let published = self.0.tiles.published.read().unwrap_or_else(PoisonError::into_inner);
        (published.size, Arc::clone(&published.text))
    }

    /// Size and text of the newest checkpoint that [`Ledger::multiproof`] leads to: a moment behind the log, and perhaps not public yet.
    pub fn provable(&self) -> (u64, Arc<str>) {
        let newest = self.0.tiles.newest.read().unwrap_or_else(PoisonError::into_inner);
        (newest.size, Arc::clone(&newest.text))
    }

    /// The inclusion path of an entry in the tree of `size` leaves; `None` when that tree does not hold the entry or
    /// is larger than the published one.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn inclusion(&self, index: u64, size: u64) -> io::Result<Option<Vec<Hash>>> {
        if index >= size || size > self.0.tiles.published_size() {
            return Ok(None);
        }
        inclusion_from(index, size, |level, index| self.0.tiles.node(level, index)).map(Some)
    }

    /// One proof for many entries, ascending by index, in the tree of `size` leaves; `None` when that tree does not hold them all
    /// or is larger than the one of [`Ledger::provable`].
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn multiproof(&self, indexes: &[u64], size: u64) -> io::Result<Option<Vec<Hash>>> {
        let provable = self.provable().0.max(self.0.tiles.published_size());
        if indexes.last().is_none_or(|last| *last >= size) || size > provable {
            return Ok(None);
        }
        multiproof_from(indexes, size, |level, index| self.0.tiles.node(level, index)).map(Some)
    }

    /// The root of the tree of `size` leaves, from the tiles; `None` when that tree is larger than the published one.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn root(&self, size: u64) -> io::Result<Option<Hash>> {
        if size > self.0.tiles.published_size() {
            return Ok(None);
        }
        self.0.tiles.root(size).map(Some)
    }

    /// The consistency path between two sizes of the published tree; empty between equal ones and from 0. `None` when
    /// `old` is larger than `new`, or `new` than the published tree.
    ///
    /// # Errors
    /// The files cannot be read.
    pub fn consistency(&self, old: u64, new: u64) -> io::Result<Option<Vec<Hash>>> {
        if old > new || new > self.0.tiles.published_size() {
            return Ok(None);
        }
        consistency_from(old, new, |level, index| self.0.tiles.node(level, index)).map(Some)
    }

    /// The digest of the newest snapshot, until it is logged: the caller commits it in an entry of the system
    /// ([`crate::record::Record::state_digest`]) and says so. A snapshot whose digest is not logged is never used.
    pub fn snapshot_to_log(&self) -> Option<StateDigest> {
        let image = self.0.image.as_ref()?;
        *image.digest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that the digest is logged, durably.
    pub fn snapshot_logged(&self, logged: &StateDigest) {
        if let Some(image) = &self.0.image {
            let mut digest = image.digest.lock().unwrap_or_else(PoisonError::into_inner);
            digest.take_if(|digest| digest == logged);
        }
    }

    /// Stops the ledger for good, because its log is not the one that others have seen: `on_fatal` is called.
    pub fn stop(&self, cause: &str) {
        self.0.stop.fatal(cause);
    }

    /// How the ledger is.
    pub fn health(&self) -> Health {
        let inner = &self.0;
        Health {
            journal_full: inner.keeper.is_full(),
            stopped: inner.stop.cause(),
            queue: inner.sender.len(),
            queue_capacity: inner.sender.capacity().unwrap_or(usize::MAX),
            damaged_segments: inner.scrub.damaged(),
            damaged_tiles: inner.scrub.damaged_tiles(),
            unreadable_rows: inner.rows.unreadable(),
            failing: inner.failing.list(),
            image_lag: inner
                .image
                .as_ref()
                .map_or(0, |image| self.size().saturating_sub(image.covered.load(Ordering::Acquire))),
        }
    }

    /// Finishes what is queued, writes a seal, publishes the last checkpoint and flushes the restart image.
    /// Whatever comes through other handles afterwards is refused as stopped. Blocks.
    pub fn close(self) {
        // A sequencer that is gone has nothing left to finish.
        let _ = self.0.sender.send(Message::Close);
        self.0.scrub.stop();
        let threads = std::mem::take(&mut *self.0.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a ledger thread panicked");
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.scrub.stop();
    }
}
