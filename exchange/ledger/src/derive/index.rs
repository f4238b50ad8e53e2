//! The index root: a map over all holders, kept by a thread behind the sequencer, whose root is put into the log as a
//! statement whenever a holder's sequence has grown since the last one (section 4 of the formats).
//!
//! The thread keeps a copy of what it has put into the map, 56 bytes a holder and the slack of a growing vector, because
//! the state moves on while proofs lead to the last root. Holders lie in buckets by the first bits of their keys; a root
//! costs the hashes of the buckets that changed, at worst about four for every holder there is.
//!
//! The thread alone changes the map. It is memory: after a crash the next start makes it from the state.

use crate::{
    commit::command::{Committed, Prepared},
    journal::{record::Record, subjects::Subjects},
    names::{Hash, Label},
};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use rustc_hash::FxHashMap;
use std::{
    collections::{BTreeSet, VecDeque},
    sync::{PoisonError, RwLock},
    time::{Duration, Instant},
};
use verifier::{
    index::{Subtree, Terminal, bit, halves, key, leaf, parse_statement, statement, value},
    leaf::LeafKind,
};

/// Depth of the map at which its buckets hang.
const BUCKET_DEPTH: usize = 12;
const BUCKETS: usize = 1 << BUCKET_DEPTH;
/// Entries kept while a journal is read, for a root that was made before them and stands behind them: 64 MiB.
const MOST_WAITING: usize = 1 << 20;

/// The heads that some groups add to the holders' own sequences.
pub(crate) struct Change {
    /// Holder, number of entries, leaf hash of the last.
    pub(crate) heads: Vec<(Label, u64, Hash)>,
    /// Entries in the log after them.
    pub(crate) size: u64,
}

/// An entry that came to a holder's own sequence.
pub(crate) struct Grown {
    /// Its index.
    pub(crate) index: u64,
    pub(crate) label: Label,
    /// Entries of the sequence, with it.
    pub(crate) count: u64,
    pub(crate) last_leaf: Hash,
}

/// Makes the map again while a journal is read, and compares the roots that were logged with its own.
pub(crate) struct Recount {
    map: Map,
    /// Entries that the map has not, oldest first: a root covers what was there when it was made, and others may come
    /// before its leaf.
    grown: VecDeque<Grown>,
    /// Entries below this index may be in the map.
    size: u64,
    /// Buckets whose part of the tree is out of date.
    dirty: BTreeSet<usize>,
}

impl Recount {
    pub(crate) fn new() -> Self {
        let map = Map::of(&[]);
        Self { map, grown: VecDeque::new(), size: 0, dirty: BTreeSet::new() }
    }

    /// Takes in the next entry of a sequence.
    pub(crate) fn grow(&mut self, grown: Grown) {
        self.grown.push_back(grown);
        while self.grown.len() > MOST_WAITING {
            self.take();
        }
    }

    /// Puts the oldest entry that waits into the map.
    fn take(&mut self) {
        if let Some(Grown { index, label, count, last_leaf }) = self.grown.pop_front() {
            self.dirty.insert(self.map.set(Row { label, count, last_leaf }));
            self.size = index + 1;
        }
    }

    /// Compares the statement that stands at an index; what is wrong with it, if anything.
    pub(crate) fn compare(&mut self, index: u64, text: &str) -> Result<(), &'static str> {
        let (size, root) = parse_statement(text).filter(|(size, _)| *size <= index).ok_or("malformed")?;
        if size < self.size {
            return Err("older than one before it, or than can be compared");
        }
        while self.grown.front().is_some_and(|grown| grown.index < size) {
            self.take();
        }
        self.size = size;
        self.map.refresh(std::mem::take(&mut self.dirty));
        if self.map.nodes[1].hash == root { Ok(()) } else { Err("not that of the holders' sequences") }
    }
}

/// An index root in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexRoot {
    /// The statement that its leaf commits to.
    pub statement: String,
    /// All entries below this size are covered.
    pub size: u64,
    /// Index of the leaf.
    pub index: u64,
}

/// The proof of one holder in an index root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HolderProof {
    /// The root.
    pub root: IndexRoot,
    /// Number of the holder's entries; 0 = not in the map.
    pub count: u64,
    /// Leaf hash of the last of them; zeros without one.
    pub last_leaf: Hash,
    /// Siblings on the way to the holder's key, the lowest first.
    pub siblings: Vec<Hash>,
    /// The end of that way.
    pub terminal: Terminal,
}

/// A holder in the map.
#[derive(Clone, Copy)]
struct Row {
    label: Label,
    count: u64,
    last_leaf: Hash,
}

const _: () = assert!(size_of::<Row>() == 56);

struct Map {
    /// By the first bits of the key; in each the rows by label.
    buckets: Vec<Vec<Row>>,
    /// The tree above the buckets as a heap: 1 is the root, the children of n are 2n and 2n + 1.
    nodes: Vec<Subtree>,
    /// The root in the log that the map has now; `None` while it has none.
    rooted: Option<IndexRoot>,
}

/// The map, for the one thread that changes it and for those who ask for proofs.
pub(crate) struct Index {
    map: RwLock<Map>,
    /// Entries that the map covers at start.
    size: u64,
}

impl Index {
    /// The map of a state after `size` entries.
    pub(crate) fn new(heads: &[(Label, u64, Hash)], size: u64) -> Self {
        Self { map: RwLock::new(Map::of(heads)), size }
    }

    /// The proof of a holder in the log's latest root; `None` while there is no root.
    pub(crate) fn proof(&self, label: &Label) -> Option<HolderProof> {
        self.map.read().unwrap_or_else(PoisonError::into_inner).proof(label)
    }

    /// The thread: gathers what grows, and at each interval puts a root into the log if anything did. `commit` says where
    /// the statement stands; without an answer (the journal is full, the ledger ends) the next interval tries again.
    pub(crate) fn follow(
        &self,
        receiver: &Receiver<Change>,
        every: Duration,
        commit: impl Fn(Prepared) -> Option<Committed>,
    ) {
        let mut grown: FxHashMap<Label, (u64, Hash)> = FxHashMap::default();
        let mut size = self.size;
        // Nothing tells at start whether the last root is that of the state; an empty map needs none.
        let mut unrooted = self.map.read().unwrap_or_else(PoisonError::into_inner).nodes[1].count > 0;
        let mut due = Instant::now() + every;
        loop {
            let waited = match grown.is_empty() && !unrooted {
                true => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => receiver.recv_deadline(due),
            };
            match waited {
                Ok(first) => {
                    for change in std::iter::once(first).chain(receiver.try_iter()) {
                        let heads = change.heads.into_iter();
                        grown.extend(heads.map(|(label, count, last_leaf)| (label, (count, last_leaf))));
                        size = change.size;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() < due || (grown.is_empty() && !unrooted) {
                continue;
            }
            due = Instant::now() + every;
            let text = {
                let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
                map.rooted = None;
                map.put(grown.drain().map(|(label, (count, last_leaf))| (label, count, last_leaf)));
                statement(size, &map.nodes[1].hash)
            };
            let committed = commit(prepared(&text));
            unrooted = committed.is_none();
            let root = committed.map(|at| IndexRoot { statement: text, size, index: at.index });
            self.map.write().unwrap_or_else(PoisonError::into_inner).rooted = root;
        }
    }
}

/// The entry of a statement.
fn prepared(statement: &str) -> Prepared {
    Prepared {
        kind: LeafKind::IndexRoot,
        open: statement.as_bytes().to_vec(),
        record: Record::default(),
        told: Vec::new(),
        subjects: Subjects::none(),
    }
}

/// The bucket of a key.
fn bucket_of(key: &Hash) -> usize {
    (usize::from(key[0]) << 4) | usize::from(key[1] >> 4)
}

impl Map {
    fn of(heads: &[(Label, u64, Hash)]) -> Self {
        let nodes = vec![Subtree::EMPTY; 2 * BUCKETS];
        let mut map = Self { buckets: vec![Vec::new(); BUCKETS], nodes, rooted: None };
        map.put(heads.iter().copied());
        map
    }

    /// Sets holders to their latest entries and brings the tree up to date.
    fn put(&mut self, heads: impl Iterator<Item = (Label, u64, Hash)>) {
        let dirty =
            heads.map(|(label, count, last_leaf)| self.set(Row { label, count, last_leaf })).collect();
        self.refresh(dirty);
    }

    /// Sets a holder to its latest entry; gives the node of its bucket, which is out of date from then on.
    fn set(&mut self, row: Row) -> usize {
        let bucket = bucket_of(&key(&row.label));
        let rows = &mut self.buckets[bucket];
        match rows.binary_search_by_key(&row.label, |row| row.label) {
            Ok(at) => rows[at] = row,
            Err(at) => rows.insert(at, row),
        }
        BUCKETS + bucket
    }

    /// Brings the tree up to date above these buckets.
    fn refresh(&mut self, mut dirty: BTreeSet<usize>) {
        for node in &dirty {
            self.nodes[*node] = Subtree::of(&self.rows(node - BUCKETS), BUCKET_DEPTH);
        }
        while dirty.first().is_some_and(|node| *node > 1) {
            dirty = dirty.into_iter().map(|node| node / 2).collect();
            for node in &dirty {
                self.nodes[*node] = Subtree::join(&self.nodes[2 * node], &self.nodes[2 * node + 1]);
            }
        }
    }

    /// Keys and leaves of a bucket, in the order of the keys.
    fn rows(&self, bucket: usize) -> Vec<(Hash, Hash)> {
        let rows = self.buckets[bucket].iter().map(|row| {
            let key = key(&row.label);
            (key, leaf(&key, &value(&row.label, row.count, &row.last_leaf)))
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort_unstable();
        rows
    }

    fn proof(&self, label: &Label) -> Option<HolderProof> {
        let root = self.rooted.clone()?;
        let wanted = key(label);
        let mut siblings = Vec::new();
        let (mut node, mut depth) = (1, 0);
        while depth < BUCKET_DEPTH && self.nodes[node].count > 1 {
            let right = usize::from(bit(&wanted, depth));
            siblings.push(self.nodes[2 * node + 1 - right].hash);
            node = 2 * node + right;
            depth += 1;
        }
        // A part with a single key is its leaf, wherever below it the bucket is.
        while depth < BUCKET_DEPTH && self.nodes[node].count == 1 {
            node = if self.nodes[2 * node].count == 1 { 2 * node } else { 2 * node + 1 };
            depth += 1;
        }
        let bucket = if depth == BUCKET_DEPTH { node - BUCKETS } else { bucket_of(&wanted) };
        let all = if self.nodes[node].count == 0 { Vec::new() } else { self.rows(bucket) };
        let mut part = all.as_slice();
        while part.len() > 1 {
            let (left, right) = halves(part, depth);
            let (own, other) = if bit(&wanted, depth) { (right, left) } else { (left, right) };
            depth += 1;
            siblings.push(Subtree::of(other, depth).hash);
            part = own;
        }
        siblings.reverse();
        let there = part.first().and_then(|(found, _)| {
            self.buckets[bucket].iter().find(|row| key(&row.label) == *found).copied()
        });
        let (count, last_leaf, terminal) = match there {
            Some(row) if row.label == *label => (row.count, row.last_leaf, Terminal::Found),
            Some(row) => {
                let value = value(&row.label, row.count, &row.last_leaf);
                (0, [0; 32], Terminal::Other(key(&row.label), value))
            }
            None => (0, [0; 32], Terminal::Nothing),
        };
        Some(HolderProof { root, count, last_leaf, siblings, terminal })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use verifier::index::root_from_path;

    fn label(n: u32) -> Label {
        let mut label = [3; 16];
        label[..4].copy_from_slice(&n.to_be_bytes());
        label
    }

    fn heads(numbers: impl Iterator<Item = u32>) -> Vec<(Label, u64, Hash)> {
        numbers.map(|n| (label(n), u64::from(n) + 1, [n as u8; 32])).collect()
    }

    fn rooted(mut map: Map) -> Map {
        map.rooted = Some(IndexRoot { statement: String::new(), size: 0, index: 0 });
        map
    }

    fn map(heads: &[(Label, u64, Hash)]) -> Map {
        rooted(Index::new(heads, 0).map.into_inner().unwrap())
    }

    #[test]
    fn proofs_lead_to_the_plain_root_of_all_pairs() {
        for count in [0u32, 1, 2, 5, 9_000] {
            let all = heads(0..count);
            let map = map(&all);
            let mut rows: Vec<_> = all
                .iter()
                .map(|(label, count, last)| (key(label), leaf(&key(label), &value(label, *count, last))))
                .collect();
            rows.sort_unstable();
            let root = Subtree::of(&rows, 0);
            assert_eq!(map.nodes[1], root, "{count}");
            for n in (0..count).step_by(97).chain(count..count + 50) {
                let proof = map.proof(&label(n)).unwrap();
                let expected = if n < count { u64::from(n) + 1 } else { 0 };
                assert_eq!(proof.count, expected);
                let value = (n < count).then(|| value(&label(n), proof.count, &proof.last_leaf));
                let made = root_from_path(&key(&label(n)), &proof.terminal, value.as_ref(), &proof.siblings);
                assert_eq!(made, Some(root.hash), "{count} {n}");
            }
        }
    }

    #[test]
    fn what_grows_step_by_step_is_what_is_made_at_once() {
        let mut grown = map(&[]);
        for n in 0..300 {
            grown.put([(label(n % 200), 1, [0; 32])].into_iter());
            grown.put(heads(n % 200..n % 200 + 1).into_iter());
        }
        assert_eq!(grown.nodes, map(&heads(0..200)).nodes);
    }
}
