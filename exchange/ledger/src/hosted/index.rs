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
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

const SLOT_BITS: u32 = 24;
const OFFSET_BITS: u32 = 24;
const LENGTH_BITS: u32 = 16;
const _: () = assert!(SLOT_BITS + OFFSET_BITS + LENGTH_BITS == u64::BITS);
const _: () = assert!(MOST_SEGMENT_BYTES <= 1 << OFFSET_BITS && MOST_ROW_BYTES < 1 << LENGTH_BITS);
/// Most segments in force at once.
pub(crate) const MOST_SEGMENTS: usize = 1 << SLOT_BITS;
/// Longest segment that is merged with others, and how many of them are worth it.
const SMALL_BYTES: u64 = 256 << 10;
const MERGED_FROM: usize = 16;
/// Segments that end together and are looked at in one turn, which bounds what is kept of their rows.
const ENDED_AT_ONCE: usize = 64;

/// A row's place in 8 bytes: number of its segment, offset in the file, length of the row without its seal. Offset 0 says
/// that the segment removes the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell(u64);

impl Cell {
    fn new(slot: u32, entry: &Entry) -> Self {
        let length = u64::from(entry.length).saturating_sub(SEAL_BYTES as u64);
        Self(u64::from(slot) << (OFFSET_BITS + LENGTH_BITS) | u64::from(entry.offset) << LENGTH_BITS | length)
    }

    fn slot(self) -> u32 {
        (self.0 >> (OFFSET_BITS + LENGTH_BITS)) as u32
    }

    fn offset(self) -> u32 {
        (self.0 >> LENGTH_BITS) as u32 & ((1 << OFFSET_BITS) - 1)
    }

    /// Length of the sealed row; `None` where it is removed.
    fn sealed(self) -> Option<u32> {
        (self.offset() != 0).then(|| u32::from(self.0 as u16) + SEAL_BYTES as u32)
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
}

impl Segment {
    pub(crate) fn sequence(&self) -> u64 {
        sequence(&self.id)
    }

    /// Rows that lie in its file and are no longer found there.
    pub(crate) fn gone(&self) -> u32 {
        self.gone.load(Ordering::Relaxed)
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
}

impl Index {
    fn new() -> Self {
        Self { cells: map(), segments: map(), resources: map() }
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

    /// The row of a directory, if no later segment has it.
    pub(crate) fn newest(&self, segment: &Arc<Segment>, entry: &Entry) -> Option<Place> {
        let newest = *self.cells.get(&entry.row)? == Cell::new(segment.slot, entry) && !entry.removes();
        let (row, offset, length) = (entry.row, entry.offset, entry.length);
        newest.then(|| Place { segment: Arc::clone(segment), row, offset, length })
    }

    /// The row of a directory or its removal, if no later segment has it.
    pub(crate) fn moved(&self, segment: &Arc<Segment>, entry: &Entry) -> Option<Moved> {
        let newest = *self.cells.get(&entry.row)? == Cell::new(segment.slot, entry);
        let step = Step { order: segment.order(), row: entry.row };
        newest.then(|| Moved { step, place: self.newest(segment, entry) })
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

    /// Segments of one resource that are to be written anew, and why that is worth it: small ones from before a sequence, to be one;
    /// else the one with the most rows that are gone.
    pub(crate) fn due(&self, before: u64, living: impl Fn(&Label) -> bool) -> Option<Vec<Arc<Segment>>> {
        let mut sparsest: Option<Arc<Segment>> = None;
        for resource in self.resources.iter().filter(|resource| living(resource.key())) {
            let mut small: Vec<Arc<Segment>> = Vec::new();
            let (mut rows, mut bytes) = (0, 0);
            for segment in resource.segments.values() {
                if segment.gone() > sparsest.as_ref().map_or(0, |sparsest| sparsest.gone()) {
                    sparsest = Some(Arc::clone(segment));
                }
                let document = &segment.document;
                let fits = segment.sequence() < before
                    && document.bytes <= SMALL_BYTES
                    && rows + document.rows as usize <= MOST_ROWS
                    && bytes + document.bytes <= MOST_SEGMENT_BYTES as u64;
                if fits {
                    rows += document.rows as usize;
                    bytes += document.bytes;
                    small.push(Arc::clone(segment));
                }
            }
            if small.len() >= MERGED_FROM {
                return Some(small);
            }
        }
        sparsest.map(|sparsest| vec![sparsest])
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
        let segment = Arc::new(Segment { id, document, slot, gone: AtomicU32::new(0) });
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
                    balance.turn(None, Some(new));
                }
                dashmap::Entry::Occupied(mut found) => {
                    let old = *found.get();
                    let loses = self.sequences[old.slot() as usize] > own;
                    let lost = if loses { new } else { old };
                    if lost.sealed().is_some()
                        && let Some(loser) = self.index.segments.get(&lost.slot())
                    {
                        loser.gone.fetch_add(1, Ordering::Relaxed);
                    }
                    if !loses {
                        found.insert(new);
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
            for some in segments.chunks(ENDED_AT_ONCE) {
                self.end_some(&label, some, read)?;
                gone.extend_from_slice(some);
            }
        }
        Ok(gone)
    }

    fn end_some<E>(
        &mut self,
        label: &Label,
        ended: &[Arc<Segment>],
        read: &mut dyn FnMut(&Segment) -> Result<Vec<Entry>, E>,
    ) -> Result<(), E> {
        let slots: FxHashSet<u32> = ended.iter().map(|segment| segment.slot).collect();
        let mut left = self.index.segments_of(label, 0);
        left.retain(|segment| !slots.contains(&segment.slot));
        // Rows that an ended segment was the newest of, and what an earlier one has of them.
        let mut orphans: FxHashMap<Key, Option<Cell>> = FxHashMap::default();
        for segment in ended {
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
            if let Some(heir) = heir.filter(|heir| heir.sealed().is_some())
                && let Some(segment) = self.index.segments.get(&heir.slot())
            {
                segment.gone.fetch_sub(1, Ordering::Relaxed);
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
            self.index.segments.remove(&segment.slot);
            self.slots.remove(&segment.id);
            self.free.push(segment.slot);
        }
        Ok(())
    }
}
