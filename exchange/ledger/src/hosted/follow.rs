//! From a durable entry to the index: a thread of its own takes in the segments that entries put, and lets go those that
//! entries end.
//!
//! The sequencer only names them; a batch of rows would hold up every answer behind it. A look-up of a row waits until
//! what is committed of its resource is taken in. A crash loses the index, which the next start makes again.

use crate::{
    error::ReadError,
    health::Stop,
    hosted::{
        check::in_force,
        files::{Files, Wrong, name},
        index::{Segment, Writer},
    },
    names::{Key, Label},
    state::{
        State,
        fact::DocumentKind,
        rows::Document,
        slot::{Kind, Slot},
    },
    thread::give_way,
};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use rustc_hash::FxHashMap;
use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;

const KIND: DocumentKind = DocumentKind::RowSegment;
/// How often files of ended segments that somebody still reads are tried again.
const AGAIN: Duration = Duration::from_millis(100);
/// How often a file is tried again that no descriptor is left for, at that pace. Then the ledger stops.
const TRIES: u32 = 100;

/// How far the index is. A turn is a group whose entries put or ended segments.
pub(crate) struct Turns {
    /// Turns of durable entries. Raised by the sequencer before it answers.
    applied: AtomicU64,
    /// Turns that are in the index.
    done: AtomicU64,
    /// For those who wait: the same, or the end.
    told: watch::Sender<u64>,
    /// The last turn of each resource that is not in the index yet.
    pending: Mutex<FxHashMap<Label, u64>>,
    /// For those who wait on a thread of their own.
    changed: Condvar,
}

/// Stands for every resource; labels are random.
const ANYBODY: Label = [0; 16];

/// The last turn that concerns a resource and may not be in the index.
fn last_turn(pending: &FxHashMap<Label, u64>, resource: &Label) -> Option<u64> {
    pending.get(resource).max(pending.get(&ANYBODY)).copied()
}

/// Said in place of a turn when there will be none any more.
const END: u64 = u64::MAX;

impl Turns {
    pub(crate) fn new() -> Self {
        Self {
            applied: AtomicU64::new(0),
            done: AtomicU64::new(0),
            told: watch::Sender::new(0),
            pending: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn pending(&self) -> MutexGuard<'_, FxHashMap<Label, u64>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_done(&self, turn: u64) -> bool {
        self.done.load(Ordering::Acquire) >= turn
    }

    /// Waits until the index has what was committed of a resource before the call.
    pub(crate) async fn wait(&self, resource: &Label) -> Result<(), ReadError> {
        if self.is_done(self.applied.load(Ordering::Acquire)) {
            return Ok(());
        }
        let pending = last_turn(&self.pending(), resource);
        let Some(turn) = pending.filter(|turn| !self.is_done(*turn)) else { return Ok(()) };
        // The sender lives as long as this does.
        let _ = self.told.subscribe().wait_for(|told| *told >= turn).await;
        if self.is_done(turn) { Ok(()) } else { Err(ReadError::Unpublished) }
    }

    /// The same on a thread that may block.
    pub(crate) fn wait_blocking(&self, resource: &Label) -> Result<(), ReadError> {
        let mut pending = self.pending();
        let Some(turn) = last_turn(&pending, resource) else { return Ok(()) };
        while !self.is_done(turn) && *self.told.borrow() != END {
            pending = self.changed.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
        if self.is_done(turn) { Ok(()) } else { Err(ReadError::Unpublished) }
    }

    fn advance(&self, turn: u64) {
        self.done.store(turn, Ordering::Release);
        self.pending().retain(|_, waiting| *waiting > turn);
        self.tell(turn);
    }

    fn tell(&self, turn: u64) {
        let pending = self.pending();
        self.told.send_replace(turn);
        drop(pending);
        self.changed.notify_all();
    }
}

/// The sequencer's end.
pub(crate) struct Feed {
    turns: Arc<Turns>,
    /// Unbounded: the sequencer must never wait for what no answer waits for.
    sender: Sender<Named>,
}

impl Feed {
    pub(crate) fn new(turns: &Arc<Turns>) -> (Self, Receiver<Named>) {
        let (sender, receiver) = unbounded();
        (Self { turns: Arc::clone(turns), sender }, receiver)
    }

    /// Names the segments among what a durable group changed in the state; before the group is answered. All of them are taken
    /// in together, as the state has them now: a later group may end one before the thread has looked.
    pub(crate) fn applied(&self, state: &State, slots: &[Slot]) {
        let kind = u32::from(KIND.number());
        let mut segments =
            slots.iter().filter(|slot| slot.kind == Kind::Document && slot.sub == kind).peekable();
        if segments.peek().is_none() {
            return;
        }
        // The only writer.
        let turn = self.turns.applied.load(Ordering::Relaxed) + 1;
        let documents = segments.map(|slot| (slot.key, state.document(KIND, &slot.key)));
        let documents: FxHashMap<Key, Option<Document>> = documents.collect();
        // One that ended is gone with the next entry, which may be of the same group: then it is not known whose it was.
        let label = |document: &Document| document.owners.first().copied();
        let labels = documents.values().map(|document| document.as_ref().and_then(label).unwrap_or(ANYBODY));
        self.turns.pending().extend(labels.map(|label| (label, turn)));
        self.turns.applied.store(turn, Ordering::Release);
        // Without the follower the ledger has stopped.
        let _ = self.sender.send(Named { turn, documents });
    }
}

/// The segments that a group put or ended: the document of each, if it still has one.
pub(crate) struct Named {
    turn: u64,
    documents: FxHashMap<Key, Option<Document>>,
}

/// The thread, and all that it owns.
pub(crate) struct Follower {
    pub(crate) writer: Writer,
    pub(crate) files: Arc<Files>,
    pub(crate) turns: Arc<Turns>,
    pub(crate) receiver: Receiver<Named>,
    pub(crate) stop: Arc<Stop>,
    /// Segments that ended and whose files are still there.
    pub(crate) ended: Vec<Arc<Segment>>,
}

impl Drop for Follower {
    /// After an orderly end nobody waits.
    fn drop(&mut self) {
        self.turns.tell(END);
    }
}

impl Follower {
    pub(crate) fn run(mut self) {
        give_way();
        loop {
            let next = if self.ended.is_empty() {
                self.receiver.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                self.receiver.recv_timeout(AGAIN)
            };
            match next {
                Ok(named) => {
                    if let Err(error) = self.take(named) {
                        // Durable state is in doubt.
                        return self.stop.fatal(&error);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.remove_ended(),
            }
            self.remove_ended();
        }
    }

    /// Takes in all that was said by now, as the thread does.
    #[cfg(feature = "sim")]
    pub(crate) fn step(&mut self) {
        while let Ok(named) = self.receiver.try_recv() {
            if let Err(error) = self.take(named) {
                return self.stop.fatal(&error);
            }
        }
        self.remove_ended();
    }

    /// Takes in what a group said: first the segments that it put, so that no row is missing in between.
    fn take(&mut self, named: Named) -> Result<(), String> {
        let mut ended = Vec::new();
        // In the order of their entries: whoever has read up to one of them has read those before.
        let mut documents: Vec<(Key, Option<Document>)> = named.documents.into_iter().collect();
        documents.sort_unstable_by_key(|(_, document)| document.as_ref().map(|document| document.index));
        for (id, document) in documents {
            match document.as_ref().and_then(in_force) {
                Some(_) if self.writer.has(&id) => {}
                Some(document) => {
                    let entries = patiently(|| self.files.directory(&id, &document));
                    let entries = entries.map_err(|error| cannot_be_read(&id, &error))?;
                    self.writer.add(id, document, &entries);
                }
                None if self.writer.has(&id) => ended.push(id),
                // Its group put and ended it, or it ended before.
                None if self.ended.iter().all(|segment| segment.id != id) => drop(self.files.remove(&id)),
                None => {}
            }
        }
        if !ended.is_empty() {
            let files = &self.files;
            let gone = self.writer.end(&ended, &mut |segment| {
                patiently(|| files.directory(&segment.id, &segment.document))
                    .map_err(|error| cannot_be_read(&segment.id, &error))
            })?;
            self.ended.extend(gone);
        }
        self.turns.advance(named.turn);
        Ok(())
    }

    /// Removes the files of ended segments that nobody reads.
    fn remove_ended(&mut self) {
        if self.ended.iter().all(|segment| Arc::strong_count(segment) > 1) {
            return;
        }
        let Some(_right) = self.files.may_remove() else { return };
        let mut removed = false;
        self.ended.retain(|segment| {
            if Arc::strong_count(segment) > 1 {
                return true;
            }
            match self.files.remove(&segment.id) {
                Ok(()) => {
                    removed = true;
                    false
                }
                Err(error) => {
                    tracing::warn!(%error, "the file of a row segment that ended stays");
                    true
                }
            }
        });
        if let Some(Err(error)) = removed.then(|| self.files.sync_names()) {
            tracing::warn!(%error, "a removed row segment may come back until the next start");
        }
    }
}

fn cannot_be_read(id: &Key, error: &Wrong) -> String {
    format!("the row segment {} cannot be read: {error}", name(id))
}

/// Reads, and again as long as no descriptor is left: that passes.
fn patiently<T>(read: impl Fn() -> Result<T, Wrong>) -> Result<T, Wrong> {
    let mut tries = 0;
    loop {
        match read() {
            Err(Wrong::Io(error)) if crate::disk::lacks_descriptors(&error) && tries < TRIES => {
                tries += 1;
                std::thread::sleep(AGAIN);
            }
            read => return read,
        }
    }
}
