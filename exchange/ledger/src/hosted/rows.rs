//! The handle on hosted rows: records of shared resources that the exchange keeps for a department.
//!
//! A resource is a subject of sealing as a holder is: it has a label and keys, and all its rows are unreadable once those are
//! destroyed. Any thread; clones share one store. Everything that reads or writes a file says so.

use crate::{
    disk::Lock,
    error::{ReadError, RowsError},
    health::Stop,
    hosted::{
        check::in_force,
        files::{Files, Wrong, name},
        follow::{Feed, Follower, Turns},
        format::{self, Built, Entry, SegmentDocument, Written, id_of},
        index::{Index, Last, LookedAt, MOST_SEGMENTS, Mark, Moved, Place, RowCounts, Segment, Step, Writer},
    },
    journal::{
        record::{DocumentState, Record},
        segment::Keeper,
    },
    keys::crypt::{Crypt, HolderKey},
    names::{Hash, Key, KeyName, Label},
    state::{State, fact::DocumentKind, fact::Fact, table::Map, table::map},
};
use rustc_hash::FxHashSet;
use std::{
    any::Any,
    io,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use zeroize::Zeroizing;

const KIND: DocumentKind = DocumentKind::RowSegment;
/// Gauge of row segments in force that cannot be read.
const UNREADABLE: &str = "miaoxiang_rows_unreadable_segments";
/// The end of a document that ends with the entry which says so: any moment that is over.
const AT_ONCE_MS: u64 = 1;

/// Hosted rows.
#[derive(Clone)]
pub struct Rows(pub(crate) Arc<Shared>);

/// All that the clones share.
pub(crate) struct Shared {
    pub(crate) index: Arc<Index>,
    pub(crate) files: Arc<Files>,
    pub(crate) turns: Arc<Turns>,
    pub(crate) crypt: Arc<Crypt>,
    pub(crate) state: Arc<State>,
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) stop: Arc<Stop>,
    /// The journal's lock, which its threads hold.
    pub(crate) lock: Weak<dyn Any + Send + Sync>,
    /// The sequence of the next segment.
    pub(crate) next: AtomicU64,
    /// The first sequence of this process: nothing below it will be committed any more.
    pub(crate) first: u64,
    /// Segments that were written and whose [`PreparedSegment`] lives.
    pub(crate) prepared: Map<Key, Prepared>,
    /// Where the next look for segments worth being written anew goes on.
    pub(crate) looked_at: Mutex<Option<LookedAt>>,
    /// Turns of those who write rows, by resource.
    pub(crate) writers: Map<Label, Arc<RwLock<()>>>,
}

/// The turn of somebody who writes rows of a resource: beside others, or alone. Kept until the entry is committed or given up.
#[must_use = "others write once it is dropped"]
pub enum Writing {
    /// Others may write, too.
    Beside(OwnedRwLockReadGuard<()>),
    /// Nobody else changes the resource's rows meanwhile.
    Alone(OwnedRwLockWriteGuard<()>),
}

/// A segment that may be committed.
pub(crate) struct Prepared {
    document: Vec<u8>,
    /// The key that its rows are sealed under.
    key: HolderKey,
    /// A command with it was queued: from then on only the journal says whether it is committed.
    submitted: bool,
}

/// Sequences of one millisecond.
const A_MILLISECOND: u64 = 1 << 16;

/// A sequence behind all that were ever committed: behind those that the state knows, and behind the journal's time, since a
/// segment may have ended and be forgotten. No process writes more segments than its time has sequences.
pub(crate) fn next_sequence(state: &State) -> u64 {
    let known = state.documents(KIND);
    let behind_known = known.last().map_or(1, |(id, _)| format::sequence(id).saturating_add(1));
    behind_known.max((state.time_ms() + 1).saturating_mul(A_MILLISECOND))
}

impl Rows {
    /// The rows that recovery found, the sequencer's end of the way to their index, and who goes it.
    pub(crate) fn new(
        files: Files,
        writer: Writer,
        crypt: &Arc<Crypt>,
        state: &Arc<State>,
        keeper: &Arc<Keeper>,
        stop: &Arc<Stop>,
        lock: &Lock,
    ) -> (Self, Feed, Follower) {
        let (files, turns) = (Arc::new(files), Arc::new(Turns::new()));
        let (feed, receiver) = Feed::new(&turns);
        let first = next_sequence(state);
        let shared = Shared {
            index: Arc::clone(&writer.index),
            files: Arc::clone(&files),
            turns: Arc::clone(&turns),
            crypt: Arc::clone(crypt),
            state: Arc::clone(state),
            keeper: Arc::clone(keeper),
            stop: Arc::clone(stop),
            lock: Arc::downgrade(lock),
            next: AtomicU64::new(first),
            first,
            prepared: map(),
            looked_at: Mutex::default(),
            writers: map(),
        };
        let follower = Follower { writer, files, turns, receiver, stop: Arc::clone(stop), ended: Vec::new() };
        (Self(Arc::new(shared)), feed, follower)
    }

    /// Writes a batch of rows of a resource as one segment, sealed and durable. A row's key is a keyed
    /// hash over the resource and the row's key fields. They are found once an entry with
    /// [`PreparedSegment::documents`] is committed, the key of `key` born in it or before. Where two batches have a row, the one
    /// that was put later counts, in whichever order they are committed.
    ///
    /// Blocks for the writing of a file and two syncs: not within an asynchronous context.
    ///
    /// # Errors
    /// [`RowsError`]; nothing is left of the batch.
    pub fn put(&self, key: &HolderKey, rows: &[(Key, Written<'_>)]) -> Result<PreparedSegment, RowsError> {
        let sequence = self.0.next.fetch_add(1, Ordering::Relaxed);
        let made = self.write(sequence, key, rows, None)?;
        Ok(self.prepared(key.label, Some(made), Vec::new()))
    }

    /// A turn to write rows of a resource. Waits for those who write alone; `alone` waits for all others.
    pub async fn writing(&self, resource: &Label, alone: bool) -> Writing {
        let lock = Arc::clone(&self.0.writers.entry(*resource).or_default());
        if alone {
            Writing::Alone(lock.write_owned().await)
        } else {
            Writing::Beside(lock.read_owned().await)
        }
    }

    /// Erases rows of the resource whose key this is: rewrites each segment that has one of them without it, sealed under this
    /// key. All that is given back belongs into one entry. Once it is committed, the old files go as soon as nobody reads
    /// them. A batch that is committed meanwhile stays; if it may have one of the rows, look again.
    ///
    /// Blocks: reads every directory of the resource and writes segments anew. Not within an asynchronous context.
    ///
    /// # Errors
    /// [`RowsError`]; nothing is changed.
    pub fn erase(&self, key: &HolderKey, rows: &[Key]) -> Result<Vec<PreparedSegment>, RowsError> {
        let erased: FxHashSet<&Key> = rows.iter().collect();
        self.0.turns.wait_blocking(&key.label)?;
        let mut rewritten = Vec::new();
        for segment in self.0.index.segments_of(&key.label, 0) {
            let entries = self.directory(&segment)?;
            if !entries.iter().any(|entry| erased.contains(&entry.row)) {
                continue;
            }
            let kept = entries.iter().filter(|entry| !erased.contains(&entry.row));
            let kept =
                kept.map(|entry| self.opened(&segment, entry)).collect::<Result<Vec<_>, ReadError>>()?;
            let rows: Vec<_> = kept.iter().map(Opened::written).collect();
            let made = match rows.is_empty() {
                true => None,
                false => {
                    let replaced = Some((segment.id, segment.order()));
                    Some(self.write(segment.sequence(), key, &rows, replaced)?)
                }
            };
            let ended = self.ending(&segment.id, segment.document.encode(), key.label);
            rewritten.push(self.prepared(key.label, made, vec![ended]));
        }
        Ok(rewritten)
    }

    /// Segments that are worth being written anew, of those that this look passes; `None` where there are none. Each look goes on
    /// where the one before it ended. Reads memory alone.
    pub fn due(&self) -> Option<DueRows> {
        // The rest of an erased resource cannot be read.
        let living = |label: &Label| self.0.state.erased(label) == Some(false);
        let mut from = self.0.looked_at.lock().unwrap_or_else(PoisonError::into_inner);
        // One that ended meanwhile counts no longer.
        metrics::gauge!(UNREADABLE).set(self.unreadable() as f64);
        self.0.index.due(self.0.first, &mut from, living).map(DueRows)
    }

    /// Segments in force that could not be read when they were to be written anew: they stay as they are.
    pub fn unreadable(&self) -> usize {
        self.0.index.unreadable()
    }

    /// Writes segments anew as one, under this key of their resource, without the rows that another segment has anew or removes: what
    /// was removed or replaced is then gone from the disk too. That a row is removed stays, for the feeds. The result belongs
    /// into one entry; once that is committed, the old files go as soon as nobody reads them.
    ///
    /// A merged segment has the highest sequence of its parts, which are all from before this process: no row of another segment comes
    /// between them any more.
    ///
    /// Blocks: reads the segments and writes a file. Not within an asynchronous context.
    ///
    /// # Errors
    /// [`RowsError`]; nothing is changed. A segment that cannot be read is not due again.
    pub fn compact(&self, key: &HolderKey, due: &DueRows) -> Result<PreparedSegment, RowsError> {
        self.0.turns.wait_blocking(&key.label)?;
        let mut kept = Vec::new();
        for segment in due.0.iter().filter(|segment| !segment.is_dead()) {
            kept.append(&mut self.newest_of(segment).inspect_err(|error| self.unread(segment, error))?);
        }
        let rows: Vec<_> = kept.iter().map(Opened::written).collect();
        let last = due.0.iter().max_by_key(|segment| segment.sequence());
        let made = match last.filter(|_| !rows.is_empty()) {
            None => None,
            Some(last) => {
                let order = due.0.iter().map(|segment| segment.order()).max().unwrap_or(0);
                Some(self.write(last.sequence(), key, &rows, Some((last.id, order)))?)
            }
        };
        let ended =
            due.0.iter().map(|segment| self.ending(&segment.id, segment.document.encode(), key.label));
        Ok(self.prepared(key.label, made, ended.collect()))
    }

    /// Rows and removals of a segment that no other one has anew.
    fn newest_of(&self, segment: &Arc<Segment>) -> Result<Vec<Opened>, ReadError> {
        let entries = self.directory(segment)?;
        let newest = entries.iter().filter(|entry| self.0.index.moved(segment, entry).is_some());
        newest.map(|entry| self.opened(segment, entry)).collect()
    }

    /// Notes a segment that is to be written anew and cannot be read, unless that passes.
    fn unread(&self, segment: &Segment, error: &ReadError) {
        if matches!(error, ReadError::Io(error) if crate::disk::lacks_descriptors(error)) {
            return;
        }
        tracing::error!(file = name(&segment.id), %error, "a row segment cannot be read, and stays as it is");
        self.0.index.cannot_read(segment);
        metrics::gauge!(UNREADABLE).set(self.unreadable() as f64);
    }

    /// The documents that end all committed segments of a resource: once they are committed its rows are gone.
    pub fn ended(&self, resource: &Label) -> Vec<DocumentState> {
        let known = self.0.state.documents_of(KIND, resource, None, usize::MAX);
        let in_force = known.into_iter().filter(|(_, document)| document.ends_ms == 0);
        in_force.map(|(id, document)| self.ending(&id, document.value.to_vec(), *resource)).collect()
    }

    /// Waits until what was committed of a resource before the call is in the index. Ends by itself when the ledger stops.
    ///
    /// # Errors
    /// [`ReadError::Unpublished`]: the ledger has stopped before.
    pub async fn settled(&self, resource: &Label) -> Result<(), ReadError> {
        self.0.turns.wait(resource).await
    }

    /// Where a row of a resource stands: one that is committed is found. Waits only while a batch of the same resource is being
    /// taken in. Reads memory alone.
    ///
    /// # Errors
    /// [`ReadError::Unpublished`]: it is not known whether there is such a row.
    pub async fn find(&self, resource: &Label, row: &Key) -> Result<Option<Place>, ReadError> {
        self.settled(resource).await?;
        Ok(self.0.index.place(resource, row))
    }

    /// The last that was committed of a row of a resource; a removal of it too, which [`Rows::find`] does not tell from nothing. Blocks
    /// while a batch of the resource is being taken in, and reads memory alone.
    ///
    /// # Errors
    /// [`ReadError::Unpublished`]
    pub fn last(&self, resource: &Label, row: &Key) -> Result<Option<Last>, ReadError> {
        self.0.turns.wait_blocking(resource)?;
        Ok(self.0.index.last(resource, row))
    }

    /// A row, or the note of a removal. Blocks for one `pread` and, when the file is not open, an `open`: on a thread that may wait for the disk.
    ///
    /// # Errors
    /// [`ReadError`], also [`ReadError::KeyGone`] once the resource's key is destroyed.
    pub fn read(&self, place: &Place) -> Result<Zeroizing<Vec<u8>>, ReadError> {
        let Place { segment, row, offset, length } = place;
        let key = self.0.state.part_key(&segment.document.key).ok_or(ReadError::KeyGone)?;
        let file = self.0.files.file(&segment.id)?;
        let mut sealed = vec![0; *length as usize];
        crate::disk::read_exact(&*file, &mut sealed, u64::from(*offset))?;
        self.0.crypt.open_row(&key, &segment.id, row, &sealed)
    }

    /// How much a resource holds, as far as it is in the index.
    pub fn counts(&self, resource: &Label) -> RowCounts {
        self.0.index.counts(resource)
    }

    /// A digest of the segments that a resource's rows are in: another one whenever a row may have changed, as far as it is in the
    /// index.
    pub fn version(&self, resource: &Label) -> Hash {
        let segments = self.0.index.segments_of(resource, 0);
        let ids: Vec<&[u8]> = segments.iter().map(|segment| &segment.id[..]).collect();
        verifier::sha256(&ids)
    }

    /// At most `count` rows of a resource behind `after`, each at its newest, by segment and then by row. A row that is
    /// written anew during a walk comes again. A walk is no list of changes: removals are not in it, and a batch that was
    /// written earlier and committed later comes in before the mark.
    ///
    /// Blocks for the reading of directories, and while a batch of the resource is being taken in.
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn rows_of(
        &self,
        resource: &Label,
        after: Option<&Mark>,
        count: usize,
    ) -> Result<Vec<Place>, ReadError> {
        self.0.turns.wait_blocking(resource)?;
        let from = after.map_or(0, |after| after.sequence);
        self.steadily(resource, |segments| {
            let mut found = Vec::new();
            for segment in segments.iter().filter(|segment| segment.sequence() >= from) {
                if found.len() >= count {
                    break;
                }
                let sequence = segment.sequence();
                let is_behind =
                    |entry: &&Entry| after.is_none_or(|after| Mark { sequence, row: entry.row } > *after);
                let entries = self.directory(segment)?;
                let places =
                    entries.iter().filter(is_behind).filter_map(|entry| self.0.index.newest(segment, entry));
                found.extend(places.take(count - found.len()));
            }
            Ok(found)
        })
    }

    /// At most `count` rows of a resource behind a step of its feed, each at its newest, and removals. A row that was written or
    /// removed once more is said where that stands, and there alone.
    ///
    /// Blocks like [`Rows::rows_of`].
    ///
    /// # Errors
    /// [`ReadError`]
    pub fn moved(
        &self,
        resource: &Label,
        after: Option<&Step>,
        count: usize,
    ) -> Result<Vec<Moved>, ReadError> {
        self.0.turns.wait_blocking(resource)?;
        let from = after.map_or(0, |after| after.order);
        self.steadily(resource, |segments| {
            let mut ordered: Vec<_> = segments.iter().filter(|segment| segment.order() >= from).collect();
            ordered.sort_unstable_by_key(|segment| segment.order());
            let mut found = Vec::new();
            for segment in ordered {
                if found.len() >= count {
                    break;
                }
                let order = segment.order();
                let is_behind =
                    |entry: &&Entry| after.is_none_or(|after| Step { order, row: entry.row } > *after);
                let entries = self.directory(segment)?;
                let moved =
                    entries.iter().filter(is_behind).filter_map(|entry| self.0.index.moved(segment, entry));
                found.extend(moved.take(count - found.len()));
            }
            Ok(found)
        })
    }

    /// Size of the log behind the last entry that rows of a resource came in with, as far as it is in the index; 0 before the first.
    pub fn last_order(&self, resource: &Label) -> u64 {
        let segments = self.0.index.segments_of(resource, 0);
        segments.iter().map(|segment| segment.order()).max().unwrap_or(0)
    }

    /// Reads a resource's segments, and again as long as one of them was rewritten or one came between them meanwhile: its rows
    /// would be missing.
    fn steadily<T>(
        &self,
        resource: &Label,
        read: impl Fn(&[Arc<Segment>]) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        loop {
            let segments = self.0.index.segments_of(resource, 0);
            let last = segments.last().map_or(0, |last| last.sequence());
            let found = read(&segments)?;
            let after = self.0.index.segments_of(resource, 0);
            let known = after.iter().filter(|segment| segment.sequence() <= last);
            if known.map(|segment| segment.id).eq(segments.iter().map(|segment| segment.id)) {
                return Ok(found);
            }
        }
    }

    /// Whether a record puts no other row segments than those that were written for it, under a key that there is or that it
    /// bears, and ends those it replaces. They count as submitted from now on.
    pub(crate) fn admits(&self, record: &Record) -> bool {
        let own = || record.documents.iter().filter(|document| document.kind == KIND.number());
        let ends = |id: &Key| own().any(|document| document.key == *id && document.ends_ms == AT_ONCE_MS);
        own().all(|document| {
            if document.ends_ms == AT_ONCE_MS {
                return self.0.state.version(&Fact::Document(KIND, document.key)) > 0;
            }
            let Some(decoded) = SegmentDocument::decode(&document.value) else { return false };
            let Some(mut prepared) = self.0.prepared.get_mut(&document.key) else { return false };
            let fits = document.ends_ms == 0
                && document.value == prepared.document
                && document.owners == [*decoded.label()]
                && decoded.replaces.is_none_or(|replaced| ends(&replaced))
                && self.born(record, &prepared.key.name()).is_some_and(|key| key.is(&prepared.key));
            prepared.submitted |= fits;
            fits
        })
    }

    /// The key of this name that there will be behind a record.
    fn born(&self, record: &Record, name: &KeyName) -> Option<HolderKey> {
        let known = self.0.state.part_key(name);
        known.or_else(|| {
            let holders =
                record.new_holders.iter().map(|holder| (holder.name(), holder.epoch, &holder.wrapped));
            let keys = record.new_keys.iter().map(|new| (new.name, new.epoch, &new.wrapped));
            let (name, epoch, wrapped) = holders.chain(keys).find(|(born, ..)| born == name)?;
            self.0.crypt.unwrap_holder(&name, epoch, wrapped)
        })
    }

    fn prepared(
        &self,
        resource: Label,
        made: Option<(Key, SegmentDocument)>,
        ended: Vec<DocumentState>,
    ) -> PreparedSegment {
        PreparedSegment { rows: self.clone(), resource, made, ended }
    }

    fn write(
        &self,
        sequence: u64,
        key: &HolderKey,
        rows: &[(Key, Written<'_>)],
        replaces: Option<(Key, u64)>,
    ) -> Result<(Key, SegmentDocument), RowsError> {
        let shared = &*self.0;
        // A writer to the journal's folder holds its lock.
        let _lock: Lock = shared.lock.upgrade().ok_or(RowsError::Stopped)?;
        if shared.stop.is_stopped() || shared.stop.has_ended() {
            return Err(RowsError::Stopped);
        }
        if shared.keeper.is_full() || shared.index.segments() + shared.prepared.len() >= MOST_SEGMENTS {
            return Err(RowsError::Full);
        }
        let id = id_of(sequence, shared.crypt.random());
        let seal = shared.crypt.row_sealer(key, &id);
        let replaced = replaces.map(|(id, _)| id);
        let Built { bytes, mut document } =
            format::build(&id, &key.name(), shared.files.origin(), rows, replaced, seal)?;
        document.order = replaces.map_or(0, |(_, order)| order);
        shared.files.write(&id, &bytes).map_err(|error| match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => RowsError::Full,
            _ => RowsError::Io(error),
        })?;
        #[cfg(debug_assertions)]
        crate::failpoint::after_step("rows-written");
        let prepared = Prepared { document: document.encode(), key: key.clone(), submitted: false };
        shared.prepared.insert(id, prepared);
        Ok((id, document))
    }

    fn ending(&self, id: &Key, value: Vec<u8>, resource: Label) -> DocumentState {
        DocumentState {
            kind: KIND.number(),
            key: *id,
            version: self.0.state.version(&Fact::Document(KIND, *id)) + 1,
            value,
            owners: vec![resource],
            ends_ms: AT_ONCE_MS,
        }
    }

    fn directory(&self, segment: &Segment) -> Result<Vec<Entry>, ReadError> {
        self.0.files.directory(&segment.id, &segment.document).map_err(|error| match error {
            Wrong::Io(error) => ReadError::Io(error),
            Wrong::Is(_) => ReadError::Malformed("row segment"),
        })
    }

    /// A row of a directory, or its removal, as it is there.
    fn opened(&self, segment: &Arc<Segment>, entry: &Entry) -> Result<Opened, ReadError> {
        let Entry { row, offset, length, removes } = *entry;
        let plain = match length {
            0 => Zeroizing::default(),
            _ => self.read(&Place { segment: Arc::clone(segment), row, offset, length })?,
        };
        Ok(Opened { row, plain, removes })
    }
}

/// A row that was read, or the note of its removal.
struct Opened {
    row: Key,
    plain: Zeroizing<Vec<u8>>,
    removes: bool,
}

impl Opened {
    fn written(&self) -> (Key, Written<'_>) {
        let written = if self.removes { Written::Removal(&self.plain) } else { Written::Row(&self.plain) };
        (self.row, written)
    }
}

/// A segment that is written and not committed, or that only ends others. Dropped before a command with it was queued, its file
/// goes. Afterwards only the journal knows; a file that was not committed then stays until the next start, or until
/// [`PreparedSegment::discard`].
#[must_use = "rows that are not committed are not found"]
pub struct PreparedSegment {
    rows: Rows,
    resource: Label,
    made: Option<(Key, SegmentDocument)>,
    ended: Vec<DocumentState>,
}

/// Segments that are worth being written anew, of one resource. Their files stay as long as the value lives.
pub struct DueRows(Vec<Arc<Segment>>);

impl DueRows {
    /// The label of their resource.
    pub fn label(&self) -> Label {
        // There is at least one.
        self.0.first().map(|segment| *segment.document.label()).unwrap_or_default()
    }

    /// How many segments there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl PreparedSegment {
    /// The documents for the entry that commits to it.
    pub fn documents(&self) -> Vec<DocumentState> {
        let made = self.made.iter().map(|(id, document)| DocumentState {
            kind: KIND.number(),
            key: *id,
            version: 1,
            value: document.encode(),
            owners: vec![self.resource],
            ends_ms: 0,
        });
        made.chain(self.ended.clone()).collect()
    }

    /// Whether it is sealed under this key. Two entries may bear a resource's key of a year, and one of them is committed.
    /// The other is decided again, with the committed key: its segment is then refused, and the batch is to be appended anew.
    pub fn is_under(&self, key: &HolderKey) -> bool {
        let Some((id, _)) = &self.made else { return true };
        self.rows.0.prepared.get(id).is_some_and(|prepared| prepared.key.is(key))
    }

    /// Entries of its directory, removals among them.
    pub fn rows(&self) -> u32 {
        self.made.as_ref().map_or(0, |(_, document)| document.rows)
    }

    /// Length of its file.
    pub fn bytes(&self) -> u64 {
        self.made.as_ref().map_or(0, |(_, document)| document.bytes)
    }

    /// Removes its file, for whoever knows that no command with it is queued: its commit was refused, or it is to be decided
    /// again and will not be. One that is committed stays.
    pub fn discard(self) {
        if let Some((id, _)) = &self.made
            && let Some(mut prepared) = self.rows.0.prepared.get_mut(id)
        {
            prepared.submitted = false;
        }
    }
}

impl Drop for PreparedSegment {
    fn drop(&mut self) {
        let Some((id, _)) = &self.made else { return };
        let shared = &*self.rows.0;
        let Some((_, prepared)) = shared.prepared.remove(id) else { return };
        let document = shared.state.document(KIND, id);
        if prepared.submitted || document.is_some_and(|document| in_force(&document).is_some()) {
            return;
        }
        // The lock: another process may have begun with the folder.
        if let Some(_lock) = shared.lock.upgrade()
            && let Err(error) = shared.files.remove(id)
        {
            tracing::warn!(%error, "a row segment that was not committed stays until the next start");
        }
    }
}
