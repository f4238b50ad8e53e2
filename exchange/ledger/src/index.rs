//! The index root: a map over all holders, kept by a thread behind the sequencer, whose root is put into the log as a
//! statement whenever a holder's sequence has grown since the last one (section 4 of the formats).
//!
//! The thread keeps a copy of what it has put into the map, 56 bytes a holder and the slack of a growing vector, because
//! the state moves on while proofs lead to the last root. Holders lie in buckets by the first bits of their keys; a root
//! costs the hashes of the buckets that changed, at worst about four for every holder there is.

use crate::{
    Hash, Label,
    record::Record,
    sequencer::{Committed, Prepared},
};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{PoisonError, RwLock},
    time::{Duration, Instant},
};
use verifier::{
    index::{Subtree, Terminal, bit, halves, key, leaf, statement, value},
    leaf::LeafKind,
};

/// Depth of the map at which its buckets hang.
const BUCKET_DEPTH: usize = 12;
const BUCKETS: usize = 1 << BUCKET_DEPTH;

/// What a group adds to the holders' own sequences.
pub(crate) struct Change {
    /// Holder, number of entries, leaf hash of the last.
    pub(crate) heads: Vec<(Label, u64, Hash)>,
    /// Entries in the log after it.
    pub(crate) size: u64,
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

/// What an index root says of one holder.
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
    /// What stands at the end of that way.
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
        let nodes = vec![Subtree::EMPTY; 2 * BUCKETS];
        let mut map = Map { buckets: vec![Vec::new(); BUCKETS], nodes, rooted: None };
        map.put(heads.iter().copied());
        Self { map: RwLock::new(map), size }
    }

    /// What the root in the log says of a holder; `None` while there is none.
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
        let mut grown: HashMap<Label, (u64, Hash)> = HashMap::new();
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
                    // As the other followers do: one switch of threads for many groups.
                    std::thread::sleep(crate::tiles::COALESCE);
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
        record: Record::default().encode(),
        told: Vec::new(),
        subjects: Vec::new(),
        subject_digest: verifier::sha256(&[]),
    }
}

/// The bucket of a key.
fn bucket_of(key: &Hash) -> usize {
    (usize::from(key[0]) << 4) | usize::from(key[1] >> 4)
}

impl Map {
    /// Sets holders to their latest entries and brings the tree up to date.
    fn put(&mut self, heads: impl Iterator<Item = (Label, u64, Hash)>) {
        let mut dirty = BTreeSet::new();
        for (label, count, last_leaf) in heads {
            let bucket = bucket_of(&key(&label));
            let rows = &mut self.buckets[bucket];
            let row = Row { label, count, last_leaf };
            match rows.binary_search_by_key(&label, |row| row.label) {
                Ok(at) => rows[at] = row,
                Err(at) => rows.insert(at, row),
            }
            dirty.insert(BUCKETS + bucket);
        }
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
