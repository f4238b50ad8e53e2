//! The index root (section 4): a map over all holders whose root stands in the log each minute, so that a holder whose
//! newest entries are left out of a trace notices.
//!
//! The map is a binary Merkle tree over the keys' bits, first bit first: a subtree without a key is 32 zeros, one with a
//! single key is that key's leaf, any other is a node over its two halves. A proof shows siblings only, and in place of
//! an absent key at most the leaf of another holder, as two digests that only who knows that holder's label can make.
//!
//! Pure functions; nothing to lose.

use crate::{Hash, checkpoint::decimal, merkle::node_hash, sha256};
use base64::{Engine as _, engine::general_purpose::STANDARD};

/// The hash of a subtree without a key.
pub const EMPTY: Hash = [0; 32];

/// Most nodes on the way to a key.
pub const MAX_DEPTH: usize = 256;

const HEADER: &str = "miaoxiang index root v1";

/// The statement whose leaf (kind 2) says: over all entries below `size` the map has this root.
pub fn statement(size: u64, root: &Hash) -> String {
    format!("{HEADER}\n{size}\n{}\n", STANDARD.encode(root))
}

/// Size and root of a statement; `None` when it is none.
pub fn parse_statement(text: &str) -> Option<(u64, Hash)> {
    let mut lines = text.strip_suffix('\n')?.split('\n');
    if lines.next()? != HEADER {
        return None;
    }
    let size = decimal(lines.next()?)?;
    let root = STANDARD.decode(lines.next()?).ok()?.try_into().ok()?;
    lines.next().is_none().then_some((size, root))
}

/// The key of a holder: H("miaoxiang index key v1" ‖ 0x00 ‖ label).
pub fn key(label: &[u8; 16]) -> Hash {
    sha256(&[b"miaoxiang index key v1\0", label])
}

/// The value of a holder with `count` entries in the own sequence, the last with this leaf hash:
/// H(label ‖ count (8) ‖ last leaf hash).
pub fn value(label: &[u8; 16], count: u64, last_leaf: &Hash) -> Hash {
    sha256(&[label, &count.to_be_bytes(), last_leaf])
}

/// The leaf of a key: H(0x00 ‖ key ‖ value).
pub fn leaf(key: &Hash, value: &Hash) -> Hash {
    sha256(&[&[0], key, value])
}

/// The bit of a key that tells left (0) from right (1) at a depth.
pub fn bit(key: &Hash, depth: usize) -> bool {
    let byte = key.get(depth / 8).copied().unwrap_or_default();
    byte.checked_shr(u32::try_from(7usize.saturating_sub(depth % 8)).unwrap_or_default()).unwrap_or_default()
        & 1
        == 1
}

/// A part of the map: how many keys it has, and its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subtree {
    /// Keys in it.
    pub count: u64,
    /// Its hash.
    pub hash: Hash,
}

impl Subtree {
    /// The part without a key.
    pub const EMPTY: Self = Self { count: 0, hash: EMPTY };

    /// The part made of two halves.
    pub fn join(left: &Self, right: &Self) -> Self {
        let count = left.count.saturating_add(right.count);
        let hash = match (left.count, right.count) {
            (0, 0) => EMPTY,
            (1, 0) => left.hash,
            (0, 1) => right.hash,
            _ => node_hash(&left.hash, &right.hash),
        };
        Self { count, hash }
    }

    /// The part at a depth, of (key, leaf) pairs in the order of their keys, which share the bits above.
    pub fn of(rows: &Rows, depth: usize) -> Self {
        match rows {
            [] => Self::EMPTY,
            [(_, leaf)] => Self { count: 1, hash: *leaf },
            _ => {
                let (left, right) = halves(rows, depth);
                let below = depth.saturating_add(1);
                Self::join(&Self::of(left, below), &Self::of(right, below))
            }
        }
    }
}

/// Pairs of a key and a hash, in the order of the keys.
pub type Rows = [(Hash, Hash)];

/// The rows left and right of a depth's bit.
pub fn halves(rows: &Rows, depth: usize) -> (&Rows, &Rows) {
    let middle = rows.partition_point(|(key, _)| !bit(key, depth));
    rows.split_at_checked(middle).unwrap_or((rows, &[]))
}

/// The end of the way to a key: the key, another one alone in that part of the map, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terminal {
    /// The key itself.
    Found,
    /// Another key, with its value.
    Other(Hash, Hash),
    /// No key.
    Nothing,
}

/// The root that a proof leads to: from what stands at the end of the key's path up through the siblings, the lowest
/// first. `found` is the key's value, for a key that is there. `None` when the proof cannot be one for this key.
pub fn root_from_path(key: &Hash, terminal: &Terminal, found: Option<&Hash>, path: &[Hash]) -> Option<Hash> {
    let depth = path.len();
    if depth > MAX_DEPTH {
        return None;
    }
    let start = match (terminal, found) {
        (Terminal::Found, Some(value)) => leaf(key, value),
        (Terminal::Nothing, None) => EMPTY,
        (Terminal::Other(other, value), None) => {
            let beside = (0..depth).all(|at| bit(other, at) == bit(key, at));
            if other == key || !beside {
                return None;
            }
            leaf(other, value)
        }
        _ => return None,
    };
    Some((0..depth).rev().zip(path).fold(start, |below, (depth, sibling)| {
        if bit(key, depth) { node_hash(sibling, &below) } else { node_hash(&below, sibling) }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(labels: impl Iterator<Item = [u8; 16]>) -> Vec<(Hash, Hash)> {
        let mut rows: Vec<_> =
            labels.map(|label| (key(&label), leaf(&key(&label), &value(&label, 1, &[7; 32])))).collect();
        rows.sort_unstable();
        rows
    }

    /// Siblings and terminal of a key, the slow way.
    fn prove(all: &Rows, wanted: &Hash, values: impl Fn(&Hash) -> Hash) -> (Vec<Hash>, Terminal) {
        let (mut part, mut depth, mut path) = (all, 0, Vec::new());
        while part.len() > 1 {
            let (left, right) = halves(part, depth);
            depth += 1;
            let (own, other) = if bit(wanted, depth - 1) { (right, left) } else { (left, right) };
            path.push(Subtree::of(other, depth).hash);
            part = own;
        }
        path.reverse();
        let terminal = match part {
            [] => Terminal::Nothing,
            [(key, _)] if key == wanted => Terminal::Found,
            [(key, _), ..] => Terminal::Other(*key, values(key)),
        };
        (path, terminal)
    }

    #[test]
    fn every_key_is_proven_present_and_every_other_absent() {
        for count in [0u8, 1, 2, 3, 50] {
            let labels: Vec<[u8; 16]> = (0..count).map(|n| [n; 16]).collect();
            let rows = rows(labels.iter().copied());
            let root = Subtree::of(&rows, 0).hash;
            let value_of = |wanted: &Hash| {
                let label = labels.iter().find(|label| key(label) == *wanted).unwrap();
                value(label, 1, &[7; 32])
            };
            for label in &labels {
                let (path, terminal) = prove(&rows, &key(label), value_of);
                let root_with = |count, leaf: Hash| {
                    root_from_path(&key(label), &terminal, Some(&value(label, count, &leaf)), &path)
                };
                assert_eq!(root_with(1, [7; 32]), Some(root));
                assert_ne!(root_with(2, [7; 32]), Some(root), "another count");
                assert_ne!(root_with(1, [8; 32]), Some(root), "another last leaf");
                assert_eq!(root_from_path(&key(label), &terminal, None, &path), None);
                assert_ne!(root_from_path(&key(label), &Terminal::Nothing, None, &path), Some(root));
                let same = Terminal::Other(key(label), value_of(&key(label)));
                assert_eq!(root_from_path(&key(label), &same, None, &path), None, "present, called another");
            }
            for n in 100..120u8 {
                let absent = key(&[n; 16]);
                let (path, terminal) = prove(&rows, &absent, value_of);
                assert_eq!(root_from_path(&absent, &terminal, None, &path), Some(root));
                let forged = value(&[n; 16], 1, &[7; 32]);
                assert_ne!(root_from_path(&absent, &Terminal::Found, Some(&forged), &path), Some(root));
            }
        }
    }

    #[test]
    fn statements_are_read_back_and_others_refused() {
        let text = statement(12, &[9; 32]);
        assert_eq!(parse_statement(&text), Some((12, [9; 32])));
        for bad in [
            text.replace("v1", "v2"),
            text.replace("12", "012"),
            format!("{text}more\n"),
            text.trim_end().to_owned(),
            text.replace("CQkJ", "CQk"),
        ] {
            assert_eq!(parse_statement(&bad), None, "{bad:?}");
        }
    }
}
