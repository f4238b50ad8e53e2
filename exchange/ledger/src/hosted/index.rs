//! Where each hosted row stands: the index in memory over all segments that are in force.
//!
//! Written by one thread, the start and then the follower; read by anyone. All of it is gone with the process and comes
//! again from the directories of the segments.

use crate::{
    hosted::format::{
        Entry, MOST_ROW_BYTES, MOST_ROWS, MOST_SEGMENT_BYTES, SEAL_BYTES, SegmentDocument, id_of, sequence,
    },
    names::{Key, Label},
    state::table::{Map, map},
};
use rustc_hash::{FxHashMap, FxHashSet};
use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
};

const SLOT_BITS: u32 = 24;
const OFFSET_BITS: u32 = 24;
const LENGTH_BITS: u32 = 16;
const _: () = assert!(SLOT_BITS + OFFSET_BITS + LENGTH_BITS == u64::BITS);
const _: () = assert!(MOST_SEGMENT_BYTES < 1 << OFFSET_BITS && MOST_ROW_BYTES < 1 << LENGTH_BITS);
/// The bit of an offset, behind every segment's end, that says: the segment removes the row, and a note of that stands there.
const REMOVES: u32 = 1 << (OFFSET_BITS - 1);
const _: () = assert!(MOST_SEGMENT_BYTES <= REMOVES as usize);
/// Most segments in force at once.
pub(crate) const MOST_SEGMENTS: usize = 1 << SLOT_BITS;
/// Longest segment that is merged with others, and how many of them are worth it.
const SMALL_BYTES: u64 = 256 << 10;
const MERGED_FROM: usize = 16;
/// Segments that end together and are looked at in one turn, which bounds what is kept of their rows.
const ENDED_AT_ONCE: usize = 64;
/// Segments that one look for those worth being written anew passes: the next look goes on behind them.
const MOST_LOOKED_AT: usize = 16_384;

/// A row's place in 8 bytes: number of its segment, offset in the file, length of the row without its seal. A row that the
/// segment removes has the place of its note; offset 0 says that there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell(u64);

impl Cell {
    fn new(slot: u32, entry: &Entry) -> Self {
        let length = u64::from(entry.length).saturating_sub(SEAL_BYTES as u64);
        let offset = entry.offset | if entry.removes { REMOVES } else { 0 };
        Self(u64::from(slot) << (OFFSET_BITS + LENGTH_BITS) | u64::from(offset) << LENGTH_BITS | length)
    }

    fn slot(self) -> u32 {
        (self.0 >> (OFFSET_BITS + LENGTH_BITS)) as u32
    }

    fn offset(self) -> u32 {
        (self.0 >> LENGTH_BITS) as u32 & (REMOVES - 1)
    }

    fn removes(self) -> bool {
        (self.0 >> LENGTH_BITS) as u32 & REMOVES != 0
    }

    /// Length of what is sealed there, row or note; `None` of a removal without one.
    fn length(self) -> Option<u32> {
        (self.offset() != 0).then(|| u32::from(self.0 as u16) + SEAL_BYTES as u32)
    }

    /// Length of the sealed row; `None` where it is removed.
    fn sealed(self) -> Option<u32> {
        self.length().filter(|_| !self.removes())
    }
}

/// A segment in force.
pub(crate) struct Segment {
    pub(crate) id: Key,
    pub(crate) document: SegmentDocument,
    /// Its number in the cells. Another segment may get it once this one has left the index.
    slot: u32,
    /// Rows that lie in its file and that another segment has anew, or removes.
    gone: AtomicU32,
    /// Rows and removals of its directory that no other segment has anew.
    newest: AtomicU32,
    /// A row of it could not be read when it was to be written anew.
    unreadable: AtomicBool,
}

impl Segment {
    pub(crate) fn sequence(&self) -> u64 {
        sequence(&self.id)
    }

    /// Rows that lie in its file and are no longer found there.
    pub(crate) fn gone(&self) -> u32 {
        self.gone.load(Ordering::Relaxed)
    }

    /// Whether nothing in it counts any more: neither a row nor that one is removed.
    pub(crate) fn is_dead(&self) -> bool {
        self.newest.load(Ordering::Relaxed) == 0
    }

    /// Size of the log behind the entry that its rows came in with.
    pub(crate) fn order(&self) -> u64 {
        self.document.order
    }
}

/// Where a row stands. It keeps the segment's file until it is dropped, also when the segment ends meanwhile.
#[derive(Clone)]
pub struct Place {
    pub(crate) segment: Arc<Segment>,
    pub(crate) row: Key,
    pub(crate) offset: u32,
    /// Length of the sealed row.
    pub(crate) length: u32,
}

impl Place {
    /// The row's key.
    pub fn row(&self) -> &Key {
        &self.row
    }

    /// Where the walk over the resource's rows stands behind this one.
    pub fn mark(&self) -> Mark {
        Mark { sequence: self.segment.sequence(), row: self.row }
    }

    /// The key of the document of its segment.
    pub fn segment(&self) -> &Key {
        &self.segment.id
    }

    /// Size of the log behind the entry that the row came in with.
    pub fn order(&self) -> u64 {
        self.segment.order()
    }
}

/// The last that was committed of a row.
#[derive(Clone)]
pub struct Last {
    /// Size of the log behind the entry that it came in with.
    pub order: u64,
    /// The row was removed.
    pub removed: bool,
    /// Where the row stands, or the note of its removal; `None` where there is no note.
    pub place: Option<Place>,
}

/// A row of a walk over all rows of a resource, which goes on behind it; also after a restart, and when its segment was
/// rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The order of the segment.
    pub sequence: u64,
    /// The row in it.
    pub row: Key,
}

/// A step of a feed, which goes on behind it: rows and removals in the order of the entries that they came in with. It stays right
/// over restarts and rewritten segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step {
    /// Size of the log behind the entry.
    pub order: u64,
    /// The row in it.
    pub row: Key,
}

/// A row as a feed tells it.
#[derive(Clone)]
pub struct Moved {
    /// Where the feed stands behind it.
    pub step: Step,
    /// Where the row stands; `None` of one that was taken out.
    pub place: Option<Place>,
    /// Where the note of its removal stands.
    pub note: Option<Place>,
}

/// How much a resource holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowCounts {
    /// Rows that can be found.
    pub rows: u64,
    /// Their bytes, sealed.
    pub bytes: u64,
    /// Segments.
    pub segments: usize,
}

#[derive(Default)]
struct Resource {
    rows: u64,
    bytes: u64,
    segments: BTreeMap<Key, Arc<Segment>>,
}

/// The index. A row key is a keyed hash over its resource too, so one map serves all resources.
pub(crate) struct Index {
    cells: Map<Key, Cell>,
    /// By number.
    segments: Map<u32, Arc<Segment>>,
    resources: Map<Label, Resource>,
    /// Segments in force that could not be read.
    unreadable: AtomicUsize,
}

/// Where a look for segments to be written anew goes on: behind a segment of a resource.
pub(crate) type LookedAt = (Label, Key);

/// The highest id of a segment's sequence. A segment that takes the place of one that was passed was passed with it, whatever
/// its random part.
fn last_of_sequence(id: &Key) -> Key {
    id_of(sequence(id), [0xff; 8])
}

/// The segments of a resource that are worth being written anew.
struct Worth<'s> {
    /// Nothing in them counts any more.
    dead: Vec<Arc<Segment>>,
    /// Small ones from before a sequence.
    small: Vec<Arc<Segment>>,
    rows: usize,
    bytes: u64,
    before: u64,
    /// The one with the most rows that are gone, of all resources.
    sparsest: &'s mut Option<Arc<Segment>>,
}

impl<'s> Worth<'s> {
    fn new(before: u64, sparsest: &'s mut Option<Arc<Segment>>) -> Self {
        Self { dead: Vec::new(), small: Vec::new(), rows: 0, bytes: 0, before, sparsest }
    }

    fn look_at(&mut self, segment: &Arc<Segment>) {
        if segment.is_dead() {
            self.dead.push(Arc::clone(segment));
            return;
        }
        // One that cannot be read is said, and holds nobody up.
        if segment.unreadable.load(Ordering::Relaxed) {
            return;
        }
        if segment.gone() > self.sparsest.as_ref().map_or(0, |sparsest| sparsest.gone()) {
            *self.sparsest = Some(Arc::clone(segment));
        }
        let (rows, bytes) = (segment.document.rows as usize, segment.document.bytes);
        let fits = segment.sequence() < self.before
            && bytes <= SMALL_BYTES
            && self.rows + rows <= MOST_ROWS
            && self.bytes + bytes <= MOST_SEGMENT_BYTES as u64;
        if fits {
            self.rows += rows;
            self.bytes += bytes;
            self.small.push(Arc::clone(segment));
        }
    }
}

impl Index {
    fn new() -> Self {
        Self { cells: map(), segments: map(), resources: map(), unreadable: AtomicUsize::new(0) }
    }

    /// A row of a resource.
    pub(crate) fn place(&self, resource: &Label, row: &Key) -> Option<Place> {
        // Kept while the segment is looked up: a segment leaves the index only when no cell has its number any more.
        let cell = self.cells.get(row)?;
        let length = cell.sealed()?;
        let segment = Arc::clone(&*self.segments.get(&cell.slot())?);
        let own = segment.document.label() == resource;
        own.then(|| Place { segment, row: *row, offset: cell.offset(), length })
    }

    /// The last of a row of a resource that is in the index.
    pub(crate) fn last(&self, resource: &Label, row: &Key) -> Option<Last> {
        let cell = self.cells.get(row)?;
        let segment = Arc::clone(&*self.segments.get(&cell.slot())?);
        let (order, removed, offset) = (segment.order(), cell.removes(), cell.offset());
        let own = segment.document.label() == resource;
        let place = cell.length().map(|length| Place { segment, row: *row, offset, length });
        own.then_some(Last { order, removed, place })
    }

    /// The row of a directory, if no later segment has it.
    pub(crate) fn newest(&self, segment: &Arc<Segment>, entry: &Entry) -> Option<Place> {
        self.moved(segment, entry)?.place
    }

    /// The row of a directory or its removal, if no later segment has it.
    pub(crate) fn moved(&self, segment: &Arc<Segment>, entry: &Entry) -> Option<Moved> {
        if *self.cells.get(&entry.row)? != Cell::new(segment.slot, entry) {
            return None;
        }
        let (row, offset, length) = (entry.row, entry.offset, entry.length);
        let there = (length != 0).then(|| Place { segment: Arc::clone(segment), row, offset, length });
        let (place, note) = if entry.removes { (None, there) } else { (there, None) };
        Some(Moved { step: Step { order: segment.order(), row }, place, note })
    }

    pub(crate) fn counts(&self, resource: &Label) -> RowCounts {
        self.resources.get(resource).map_or_else(RowCounts::default, |found| RowCounts {
            rows: found.rows,
            bytes: found.bytes,
            segments: found.segments.len(),
        })
    }

    /// A resource's segments whose sequence is at least this, ascending.
    pub(crate) fn segments_of(&self, resource: &Label, from: u64) -> Vec<Arc<Segment>> {
        let Some(found) = self.resources.get(resource) else { return Vec::new() };
        found.segments.range(id_of(from, [0; 8])..).map(|(_, segment)| Arc::clone(segment)).collect()
    }

    /// Segments of one resource that are to be written anew: those in which nothing counts any more; small ones from before a
    /// sequence, to be one; else the one with the most rows that are gone. One look passes so many segments at most, and leaves in
    /// `from` where the next one goes on: so nobody waits for those in front of it, and nobody is passed over.
    pub(crate) fn due(
        &self,
        before: u64,
        from: &mut Option<LookedAt>,
        living: impl Fn(&Label) -> bool,
    ) -> Option<Vec<Arc<Segment>>> {
        let mut labels: Vec<Label> = self.resources.iter().map(|resource| *resource.key()).collect();
        labels.sort_unstable();
        let begun = from.take();
        let first = begun.map_or(0, |(label, _)| labels.partition_point(|other| *other < label));
        let (front, rest) = labels.split_at(first);
        let begun = begun.filter(|(label, _)| rest.first() == Some(label));
        // Once round: behind where the look before ended, and at last up to there.
        let whole = |label: &Label| (*label, Bound::Unbounded, Bound::Unbounded);
        let behind = begun.map(|(label, id)| (label, Bound::Excluded(id), Bound::Unbounded));
        let up_to = begun.map(|(label, id)| (label, Bound::Unbounded, Bound::Included(id)));
        let others = rest.iter().skip(usize::from(begun.is_some())).chain(front).map(whole);
        let (mut left, mut sparsest) = (MOST_LOOKED_AT, None::<Arc<Segment>>);
        for (label, start, end) in behind.into_iter().chain(others).chain(up_to) {
            if !living(&label) {
                continue;
            }
            let Some(resource) = self.resources.get(&label) else { continue };
            let mut worth = Worth::new(before, &mut sparsest);
            for (id, segment) in resource.segments.range((start, end)).take(left) {
                left -= 1;
                worth.look_at(segment);
                if left == 0 || worth.dead.len() == ENDED_AT_ONCE {
                    *from = Some((label, last_of_sequence(id)));
                    break;
                }
            }
            let Worth { dead, small, .. } = worth;
            if !dead.is_empty() || small.len() >= MERGED_FROM {
                let found = if dead.is_empty() { small } else { dead };
                *from = from.or_else(|| found.last().map(|last| (label, last_of_sequence(&last.id))));
                return Some(found);
            }
            if left == 0 {
                break;
            }
        }
        sparsest.map(|sparsest| vec![sparsest])
    }

    /// Notes that a segment cannot be read: it stays as it is.
    pub(crate) fn cannot_read(&self, segment: &Segment) {
        if !segment.unreadable.swap(true, Ordering::Relaxed) {
            self.unreadable.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Segments in force that were found to be unreadable.
    pub(crate) fn unreadable(&self) -> usize {
        self.unreadable.load(Ordering::Relaxed)
    }

    /// Segments in force.
    pub(crate) fn segments(&self) -> usize {
        self.segments.len()
    }
}

/// The one writer of the index.
pub(crate) struct Writer {
    pub(crate) index: Arc<Index>,
    slots: FxHashMap<Key, u32>,
    /// Sequences by number.
    sequences: Vec<u64>,
    free: Vec<u32>,
}

/// How many rows and bytes a resource gains and loses.
#[derive(Default)]
struct Balance {
    rows: i64,
    bytes: i64,
}

impl Balance {
    fn turn(&mut self, old: Option<Cell>, new: Option<Cell>) {
        for (cell, sign) in [(old, -1), (new, 1)] {
            if let Some(length) = cell.and_then(Cell::sealed) {
                self.rows += sign;
                self.bytes += sign * i64::from(length);
            }
        }
    }

    fn settle(self, resource: &mut Resource) {
        resource.rows = resource.rows.saturating_add_signed(self.rows);
        resource.bytes = resource.bytes.saturating_add_signed(self.bytes);
    }
}

impl Writer {
    pub(crate) fn new() -> Self {
        let index = Arc::new(Index::new());
        Self { index, slots: FxHashMap::default(), sequences: Vec::new(), free: Vec::new() }
    }

    /// Whether a segment is in the index.
    pub(crate) fn has(&self, id: &Key) -> bool {
        self.slots.contains_key(id)
    }

    /// Takes a segment in. Where another one has a row, the higher sequence counts; a rewritten segment has the sequence of
    /// the one before it and comes after it.
    pub(crate) fn add(&mut self, id: Key, document: SegmentDocument, entries: &[Entry]) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.sequences.push(0);
            (self.sequences.len() - 1) as u32
        });
        let own = sequence(&id);
        self.sequences[slot as usize] = own;
        self.slots.insert(id, slot);
        let (gone, newest, unreadable) = Default::default();
        let segment = Arc::new(Segment { id, document, slot, gone, newest, unreadable });
        // Before any cell that leads to it. A reader that finds a resource's segments the same twice has missed no row.
        self.index.segments.insert(slot, Arc::clone(&segment));
        let label = *segment.document.label();
        self.index.resources.entry(label).or_default().segments.insert(id, Arc::clone(&segment));
        let mut balance = Balance::default();
        for entry in entries {
            let new = Cell::new(slot, entry);
            match self.index.cells.entry(entry.row) {
                dashmap::Entry::Vacant(vacant) => {
                    vacant.insert(new);
                    segment.newest.fetch_add(1, Ordering::Relaxed);
                    balance.turn(None, Some(new));
                }
                dashmap::Entry::Occupied(mut found) => {
                    let old = *found.get();
                    let loses = self.sequences[old.slot() as usize] > own;
                    let lost = if loses { new } else { old };
                    if let Some(loser) = self.index.segments.get(&lost.slot()) {
                        loser.gone.fetch_add(u32::from(lost.length().is_some()), Ordering::Relaxed);
                        loser.newest.fetch_sub(u32::from(!loses), Ordering::Relaxed);
                    }
                    if !loses {
                        found.insert(new);
                        segment.newest.fetch_add(1, Ordering::Relaxed);
                        balance.turn(Some(old), Some(new));
                    }
                }
            }
        }
        balance.settle(&mut self.index.resources.entry(label).or_default());
    }

    /// Lets segments go that have ended; each of their rows that no other segment has leaves the index with them. `read`
    /// gives directories; after its error some of the segments are still there. Each is named once. The segments that went.
    pub(crate) fn end<E>(
        &mut self,
        ended: &[Key],
        read: &mut dyn FnMut(&Segment) -> Result<Vec<Entry>, E>,
    ) -> Result<Vec<Arc<Segment>>, E> {
        let mut by_label: FxHashMap<Label, Vec<Arc<Segment>>> = FxHashMap::default();
        for segment in ended.iter().filter_map(|id| self.index.segments.get(self.slots.get(id)?)) {
            by_label.entry(*segment.document.label()).or_default().push(Arc::clone(&segment));
        }
        let mut gone = Vec::new();
        for (label, segments) in by_label {
            // None of those that end has a row after all, so their directories are read once.
            let ending: FxHashSet<u32> = segments.iter().map(|segment| segment.slot).collect();
            for some in segments.chunks(ENDED_AT_ONCE) {
                self.end_some(&label, some, &ending, read)?;
                gone.extend_from_slice(some);
            }
        }
        Ok(gone)
    }

    fn end_some<E>(
        &mut self,
        label: &Label,
        ended: &[Arc<Segment>],
        ending: &FxHashSet<u32>,
        read: &mut dyn FnMut(&Segment) -> Result<Vec<Entry>, E>,
    ) -> Result<(), E> {
        let mut left = self.index.segments_of(label, 0);
        left.retain(|segment| !ending.contains(&segment.slot));
        // Rows that an ended segment was the newest of, and what an earlier one has of them.
        let mut orphans: FxHashMap<Key, Option<Cell>> = FxHashMap::default();
        for segment in ended.iter().filter(|segment| !segment.is_dead()) {
            let led_here = |entry: &Entry| {
                self.index.cells.get(&entry.row).is_some_and(|cell| cell.slot() == segment.slot)
            };
            let rows = read(segment)?.into_iter().filter(led_here);
            orphans.extend(rows.map(|entry| (entry.row, None)));
        }
        if !orphans.is_empty() {
            // Ascending by sequence, so the last one counts.
            for segment in left {
                for entry in read(&segment)? {
                    if let Some(heir) = orphans.get_mut(&entry.row) {
                        *heir = Some(Cell::new(segment.slot, &entry));
                    }
                }
            }
        }
        let mut balance = Balance::default();
        for (row, heir) in orphans {
            if let Some(heir) = heir
                && let Some(segment) = self.index.segments.get(&heir.slot())
            {
                segment.gone.fetch_sub(u32::from(heir.length().is_some()), Ordering::Relaxed);
                segment.newest.fetch_add(1, Ordering::Relaxed);
            }
            let old = match heir {
                Some(cell) => self.index.cells.insert(row, cell),
                None => self.index.cells.remove(&row).map(|(_, old)| old),
            };
            balance.turn(old, heir);
        }
        if let Some(mut resource) = self.index.resources.get_mut(label) {
            balance.settle(&mut resource);
            ended.iter().for_each(|segment| drop(resource.segments.remove(&segment.id)));
        }
        self.index.resources.remove_if(label, |_, resource| resource.segments.is_empty());
        for segment in ended {
            if segment.unreadable.load(Ordering::Relaxed) {
                self.index.unreadable.fetch_sub(1, Ordering::Relaxed);
            }
            self.index.segments.remove(&segment.slot);
            self.slots.remove(&segment.id);
            self.free.push(segment.slot);
        }
        Ok(())
    }
}
