//! Merkle trees of RFC 6962 shape (SHA-256): roots, inclusion and consistency proofs.
//!
//! Three ways to hold a tree, for three users: [`Frontier`] is what a log needs to go on, [`GroupTree`] proves
//! the leaves of one appended group from the frontier before it, and the `*_from` functions prove anything from
//! stored complete subtrees. [`BatchTree`] is a whole tree in memory.
//!
//! Each user owns its tree. All of it is memory.

use crate::{Hash, sha256};

/// Root of the tree without leaves: the digest of nothing.
pub const EMPTY_ROOT: Hash = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27,
    0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

/// Hash of a leaf: H(0x00 ‖ leaf).
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    sha256(&[&[0], leaf])
}

/// Hash of an inner node: H(0x01 ‖ left ‖ right).
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[1], left, right])
}

/// Folds an inclusion path into the root it leads to (RFC 9162, 2.1.3.2).
///
/// `None` when the index is outside the tree or the path has not the one length that fits.
pub fn root_from_inclusion(index: u64, size: u64, leaf: &Hash, path: &[Hash]) -> Option<Hash> {
    if index >= size {
        return None;
    }
    let (mut node, mut last) = (index, size.checked_sub(1)?);
    let mut root = *leaf;
    for sibling in path {
        if last == 0 {
            return None;
        }
        if node & 1 == 1 || node == last {
            root = node_hash(sibling, &root);
            // The right edge has no sibling on these levels.
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            root = node_hash(&root, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(root)
}

/// Whether `leaf` (its hash) stands at `index` in the tree of `size` leaves with this root.
pub fn verify_inclusion(index: u64, size: u64, leaf: &Hash, path: &[Hash], root: &Hash) -> bool {
    root_from_inclusion(index, size, leaf, path).as_ref() == Some(root)
}

/// Whether the tree of `size2` leaves begins with the tree of `size1` leaves (RFC 9162, 2.1.4.2).
///
/// The empty tree says nothing about what follows, so `size1` 0 is refused, unless both are the empty tree.
pub fn verify_consistency(size1: u64, size2: u64, root1: &Hash, root2: &Hash, path: &[Hash]) -> bool {
    if size1 > size2 {
        return false;
    }
    if size1 == size2 {
        return path.is_empty() && root1 == root2 && (size1 != 0 || *root1 == EMPTY_ROOT);
    }
    if size1 == 0 {
        return false;
    }
    let (mut node, mut last) = (size1.saturating_sub(1), size2.saturating_sub(1));
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    // A complete old tree is itself the first node, and is left out of the path.
    let (first, rest) = if size1.is_power_of_two() {
        (root1, path)
    } else {
        match path.split_first() {
            Some(split) => split,
            None => return false,
        }
    };
    let (mut old, mut new) = (*first, *first);
    for sibling in rest {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            old = node_hash(sibling, &old);
            new = node_hash(sibling, &new);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            new = node_hash(&new, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && old == *root1 && new == *root2
}

/// The right edge of a tree: roots of its complete subtrees, largest first. All that appending needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    nodes: Vec<Hash>,
}

impl Frontier {
    /// The frontier of the empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// A frontier read back from storage; `None` unless there is one node per bit set in `size`.
    pub fn from_parts(size: u64, nodes: Vec<Hash>) -> Option<Self> {
        (u32::try_from(nodes.len()) == Ok(size.count_ones())).then_some(Self { size, nodes })
    }

    /// Leaves in the tree.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Roots of the complete subtrees, largest first.
    pub fn nodes(&self) -> &[Hash] {
        &self.nodes
    }

    /// Adds a leaf by its hash.
    pub fn append(&mut self, leaf: Hash) {
        let mut node = leaf;
        for _ in 0..self.size.trailing_ones() {
            // One node per bit set: every trailing one has a subtree to join with.
            if let Some(left) = self.nodes.pop() {
                node = node_hash(&left, &node);
            }
        }
        self.nodes.push(node);
        // No log lives to see 2⁶⁴ leaves.
        self.size = self.size.wrapping_add(1);
    }

    /// Root of the tree.
    pub fn root(&self) -> Hash {
        fold(&self.nodes).unwrap_or(EMPTY_ROOT)
    }

    /// Root of the complete subtree of 2^`level` leaves on the right edge, when there is one.
    fn node_at(&self, level: u32) -> Option<&Hash> {
        let larger = self.size.checked_shr(level)?;
        if larger & 1 == 0 {
            return None;
        }
        let before = usize::try_from((larger >> 1).count_ones()).ok()?;
        self.nodes.get(before)
    }
}

/// Joins subtrees, largest first, from the right; `None` for no subtree.
fn fold(subtrees: &[Hash]) -> Option<Hash> {
    subtrees.iter().rev().copied().reduce(|right, left| node_hash(&left, &right))
}

/// The part of a tree that an appended group touches: proves each of the group's leaves in the tree as it
/// stands after the whole group, from the frontier before the group and the group's leaf hashes alone.
#[derive(Clone, Debug)]
pub struct GroupTree {
    /// Index of the group's first leaf.
    first: u64,
    /// Per level the nodes from an even position on to the right edge; a last node without sibling moves up
    /// as it is, which gives the RFC 6962 shape.
    rows: Vec<Row>,
}

#[derive(Clone, Debug)]
struct Row {
    start: u64,
    nodes: Vec<Hash>,
}

impl GroupTree {
    /// `before` is the frontier before the group, `leaves` the group's leaf hashes in order.
    pub fn new(before: &Frontier, leaves: &[Hash]) -> Self {
        let mut rows = Vec::new();
        let (mut start, mut nodes) = (before.size, leaves.to_vec());
        for level in 0..=u64::BITS {
            if let Some(left) = before.node_at(level) {
                nodes.insert(0, *left);
                start &= !1;
            }
            let above = nodes
                .chunks(2)
                .map(|pair| match pair {
                    [left, right] => node_hash(left, right),
                    [lone] => *lone,
                    _ => EMPTY_ROOT,
                })
                .collect::<Vec<_>>();
            let done = start == 0 && nodes.len() <= 1;
            rows.push(Row { start, nodes });
            if done {
                break;
            }
            nodes = above;
            start >>= 1;
        }
        Self { first: before.size, rows }
    }

    /// Root of the tree after the group.
    pub fn root(&self) -> Hash {
        self.rows.last().and_then(|row| row.nodes.first()).copied().unwrap_or(EMPTY_ROOT)
    }

    /// Inclusion path of the leaf at `position` in the group, in the tree after the whole group. A position
    /// outside the group has no path: the answer verifies nothing.
    pub fn inclusion(&self, position: usize) -> Vec<Hash> {
        let Some(index) = u64::try_from(position).ok().and_then(|p| self.first.checked_add(p)) else {
            return Vec::new();
        };
        let mut path = Vec::with_capacity(self.rows.len());
        for (level, row) in (0u32..).zip(&self.rows) {
            let sibling = index.checked_shr(level).unwrap_or(0) ^ 1;
            let node = sibling
                .checked_sub(row.start)
                .and_then(|offset| usize::try_from(offset).ok())
                .and_then(|offset| row.nodes.get(offset));
            path.extend(node);
        }
        path
    }
}

/// A whole tree in memory: the shape under one signature over a batch of licenses.
#[derive(Clone, Debug)]
pub struct BatchTree(GroupTree);

impl BatchTree {
    /// The tree over these leaf hashes.
    pub fn new(leaves: Vec<Hash>) -> Self {
        Self(GroupTree::new(&Frontier::new(), &leaves))
    }

    /// Root of the tree; [`EMPTY_ROOT`] without leaves.
    pub fn root(&self) -> Hash {
        self.0.root()
    }

    /// Inclusion path of leaf `index`. An index outside the tree has no path: the answer verifies nothing.
    pub fn path(&self, index: usize) -> Vec<Hash> {
        self.0.inclusion(index)
    }
}

/// Inclusion path of leaf `index` in the tree of `size` leaves. `node(level, index)` gives the root of the
/// complete subtree of 2^`level` leaves that begins at leaf `index` × 2^`level`.
///
/// An index outside the tree has no path: the answer is empty and verifies nothing.
///
/// # Errors
/// The first error of `node`.
pub fn inclusion_from<E>(
    index: u64,
    size: u64,
    mut node: impl FnMut(u8, u64) -> Result<Hash, E>,
) -> Result<Vec<Hash>, E> {
    let mut path = Vec::new();
    if index >= size {
        return Ok(path);
    }
    let mut range = Range { start: 0, end: size };
    while let Some((left, right)) = range.split() {
        if index < left.end {
            path.push(right.root(&mut node)?);
            range = left;
        } else {
            path.push(left.root(&mut node)?);
            range = right;
        }
    }
    path.reverse();
    Ok(path)
}

/// Consistency path between the trees of `size1` and `size2` leaves; `node` as in [`inclusion_from`].
///
/// Empty for equal sizes, for `size1` 0, and for `size1` > `size2`, where it verifies nothing.
///
/// # Errors
/// The first error of `node`.
pub fn consistency_from<E>(
    size1: u64,
    size2: u64,
    mut node: impl FnMut(u8, u64) -> Result<Hash, E>,
) -> Result<Vec<Hash>, E> {
    let mut path = Vec::new();
    if size1 == 0 || size1 >= size2 {
        return Ok(path);
    }
    let mut range = Range { start: 0, end: size2 };
    while range.end != size1 {
        let Some((left, right)) = range.split() else { break };
        if size1 <= left.end {
            path.push(right.root(&mut node)?);
            range = left;
        } else {
            path.push(left.root(&mut node)?);
            range = right;
        }
    }
    // From leaf 0 on it is the old tree itself, which the checker has.
    if range.start != 0 {
        path.push(range.root(&mut node)?);
    }
    path.reverse();
    Ok(path)
}

/// One proof for many leaves of the tree of `size` leaves: the least set of subtree roots that leads, with the leaves themselves, to the
/// root. They stand from left to right; [`root_from_multiproof`] says which each is. `indexes` ascend; `node` as in
/// [`inclusion_from`].
///
/// Empty, and verifies nothing, without an index, for indexes that do not ascend and for one outside the tree.
///
/// # Errors
/// The first error of `node`.
pub fn multiproof_from<E>(
    indexes: &[u64],
    size: u64,
    mut node: impl FnMut(u8, u64) -> Result<Hash, E>,
) -> Result<Vec<Hash>, E> {
    fn walk<E>(
        range: Range,
        indexes: &[u64],
        node: &mut impl FnMut(u8, u64) -> Result<Hash, E>,
        nodes: &mut Vec<Hash>,
    ) -> Result<(), E> {
        if indexes.is_empty() {
            nodes.push(range.root(node)?);
            return Ok(());
        }
        // A leaf that is proven is given by who checks the proof.
        let Some((left, right)) = range.split() else { return Ok(()) };
        let middle = indexes.partition_point(|index| *index < left.end);
        let (of_left, of_right) = indexes.split_at_checked(middle).unwrap_or((indexes, &[]));
        walk(left, of_left, node, nodes)?;
        walk(right, of_right, node, nodes)
    }
    let mut nodes = Vec::new();
    if ascend_within(indexes.iter().copied(), size) {
        walk(Range { start: 0, end: size }, indexes, &mut node, &mut nodes)?;
    }
    Ok(nodes)
}

/// The root that leaves and the nodes of [`multiproof_from`] lead to. Each leaf is an index and a hash; they ascend by index.
///
/// `None` without a leaf, for indexes that do not ascend or lie outside the tree, and unless the nodes are as many as fit.
pub fn root_from_multiproof(leaves: &[(u64, Hash)], size: u64, nodes: &[Hash]) -> Option<Hash> {
    fn walk(range: Range, leaves: &[(u64, Hash)], nodes: &mut &[Hash]) -> Option<Hash> {
        let Some((_, leaf)) = leaves.first() else {
            let (node, rest) = nodes.split_first()?;
            *nodes = rest;
            return Some(*node);
        };
        let Some((left, right)) = range.split() else { return Some(*leaf) };
        let middle = leaves.partition_point(|(index, _)| *index < left.end);
        let (of_left, of_right) = leaves.split_at_checked(middle)?;
        let left = walk(left, of_left, nodes)?;
        let right = walk(right, of_right, nodes)?;
        Some(node_hash(&left, &right))
    }
    let mut rest = nodes;
    if !ascend_within(leaves.iter().map(|(index, _)| *index), size) {
        return None;
    }
    let root = walk(Range { start: 0, end: size }, leaves, &mut rest)?;
    rest.is_empty().then_some(root)
}

/// Whether there are indexes, each is larger than the one before, and all are below `size`.
fn ascend_within(indexes: impl Iterator<Item = u64>, size: u64) -> bool {
    let mut last = None;
    for index in indexes {
        if index >= size || last.is_some_and(|last| index <= last) {
            return false;
        }
        last = Some(index);
    }
    last.is_some()
}

/// Root of the tree of `size` leaves; `node` as in [`inclusion_from`].
///
/// # Errors
/// The first error of `node`.
pub fn root_from<E>(size: u64, mut node: impl FnMut(u8, u64) -> Result<Hash, E>) -> Result<Hash, E> {
    Range { start: 0, end: size }.root(&mut node)
}

/// Leaves `start..end` that make one node of a tree: `start` is a multiple of the largest power of two that
/// is not greater than the length.
#[derive(Clone, Copy)]
struct Range {
    start: u64,
    end: u64,
}

impl Range {
    /// The two children: the left one holds the largest power of two smaller than the length.
    fn split(self) -> Option<(Self, Self)> {
        let last = self.end.checked_sub(self.start)?.checked_sub(1)?;
        let middle = self.start.checked_add(1u64.checked_shl(last.checked_ilog2()?)?)?;
        Some((Self { start: self.start, end: middle }, Self { start: middle, end: self.end }))
    }

    fn root<E>(self, node: &mut impl FnMut(u8, u64) -> Result<Hash, E>) -> Result<Hash, E> {
        let mut subtrees = Vec::new();
        let mut start = self.start;
        while let Some(level) = self.end.saturating_sub(start).checked_ilog2() {
            let level = u8::try_from(level).expect("a u64 has 64 bits");
            subtrees.push(node(level, start.checked_shr(level.into()).unwrap_or(0))?);
            start = start.saturating_add(1u64.checked_shl(level.into()).unwrap_or(u64::MAX));
        }
        Ok(fold(&subtrees).unwrap_or(EMPTY_ROOT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use proptest::prelude::*;
    use serde::Deserialize;
    use std::{convert::Infallible, fs, path::Path};

    /// The recursive definition of RFC 6962, 2.1: the second implementation that all others are held against.
    mod naive {
        use super::*;

        fn split(n: usize) -> usize {
            n.next_power_of_two() / 2
        }

        pub(super) fn root(leaves: &[Hash]) -> Hash {
            match leaves {
                [] => sha256(&[]),
                [leaf] => *leaf,
                _ => {
                    let (left, right) = leaves.split_at(split(leaves.len()));
                    node_hash(&root(left), &root(right))
                }
            }
        }

        pub(super) fn path(index: usize, leaves: &[Hash]) -> Vec<Hash> {
            if leaves.len() <= 1 {
                return Vec::new();
            }
            let k = split(leaves.len());
            let (left, right) = leaves.split_at(k);
            let (mut path, sibling) = if index < k {
                (path(index, left), root(right))
            } else {
                (path(index - k, right), root(left))
            };
            path.push(sibling);
            path
        }

        pub(super) fn consistency(old: usize, leaves: &[Hash], whole: bool) -> Vec<Hash> {
            if old == leaves.len() {
                return if whole { Vec::new() } else { vec![root(leaves)] };
            }
            let k = split(leaves.len());
            let (left, right) = leaves.split_at(k);
            let (mut path, sibling) = if old <= k {
                (consistency(old, left, whole), root(right))
            } else {
                (consistency(old - k, right, false), root(left))
            };
            path.push(sibling);
            path
        }
    }

    fn leaves(n: usize) -> Vec<Hash> {
        (0..n).map(|i| leaf_hash(&i.to_be_bytes())).collect()
    }

    fn stored(leaves: &[Hash]) -> impl FnMut(u8, u64) -> Result<Hash, Infallible> + '_ {
        |level, index| {
            let start = (index as usize) << level;
            Ok(naive::root(&leaves[start..start + (1 << level)]))
        }
    }

    #[test]
    fn every_small_tree_agrees_with_the_definition() {
        for n in 0..70usize {
            let leaves = leaves(n);
            let root = naive::root(&leaves);
            let mut frontier = Frontier::new();
            for leaf in &leaves {
                frontier.append(*leaf);
            }
            let batch = BatchTree::new(leaves.clone());
            assert_eq!(frontier.root(), root);
            assert_eq!(batch.root(), root);
            assert_eq!(root_from(n as u64, stored(&leaves)), Ok(root));
            assert_eq!(Frontier::from_parts(n as u64, frontier.nodes().to_vec()), Some(frontier));
            for i in 0..n {
                let path = naive::path(i, &leaves);
                assert_eq!(batch.path(i), path);
                assert_eq!(inclusion_from(i as u64, n as u64, stored(&leaves)), Ok(path.clone()));
                assert!(verify_inclusion(i as u64, n as u64, &leaves[i], &path, &root));
                assert!(!verify_inclusion(i as u64 + 1, n as u64, &leaves[i], &path, &root));
            }
            for old in 1..=n {
                let path = naive::consistency(old, &leaves, true);
                assert_eq!(consistency_from(old as u64, n as u64, stored(&leaves)), Ok(path.clone()));
                let before = naive::root(&leaves[..old]);
                assert!(verify_consistency(old as u64, n as u64, &before, &root, &path));
                assert!(!verify_consistency(old as u64, n as u64, &root, &before, &path) || before == root);
            }
        }
    }

    /// Leaves at these indexes, as a checker has them.
    fn at(leaves: &[Hash], indexes: &[u64]) -> Vec<(u64, Hash)> {
        indexes.iter().map(|index| (*index, leaves[*index as usize])).collect()
    }

    #[test]
    fn every_choice_of_leaves_of_a_small_tree_has_its_proof() {
        for n in 1..11u64 {
            let leaves = leaves(n as usize);
            let root = naive::root(&leaves);
            for chosen in 1..1u64 << n {
                let indexes: Vec<u64> = (0..n).filter(|index| chosen >> index & 1 == 1).collect();
                let nodes = multiproof_from(&indexes, n, stored(&leaves)).unwrap();
                assert_eq!(root_from_multiproof(&at(&leaves, &indexes), n, &nodes), Some(root));
                if let [index] = indexes[..] {
                    let mut path = naive::path(index as usize, &leaves);
                    let mut sorted = nodes.clone();
                    path.sort_unstable();
                    sorted.sort_unstable();
                    assert_eq!(sorted, path, "of one leaf it is the inclusion path in another order");
                }
                if chosen == (1 << n) - 1 {
                    assert!(nodes.is_empty(), "all leaves need nothing beside them");
                }
            }
        }
    }

    #[test]
    fn a_multiproof_that_does_not_fit_leads_nowhere() {
        let leaves = leaves(13);
        let proof = |indexes: &[u64]| multiproof_from(indexes, 13, stored(&leaves)).unwrap();
        for indexes in [&[][..], &[3, 2], &[4, 4], &[13], &[u64::MAX]] {
            assert!(proof(indexes).is_empty(), "{indexes:?}");
            let given: Vec<_> = indexes.iter().map(|index| (*index, leaves[0])).collect();
            assert_eq!(root_from_multiproof(&given, 13, &[leaves[0]]), None, "{indexes:?}");
        }
        assert_eq!(root_from_multiproof(&[(0, leaves[0])], 0, &[]), None);
        let nodes = proof(&[2, 7, 12]);
        let given = at(&leaves, &[2, 7, 12]);
        assert_eq!(root_from_multiproof(&given, 13, &nodes[1..]), None, "one too few");
        assert_eq!(
            root_from_multiproof(&given, 13, &[&nodes[..], &nodes[..1]].concat()),
            None,
            "one too many"
        );
        assert_eq!(root_from_multiproof(&given, u64::MAX, &nodes), None, "another tree");
    }

    proptest! {
        #[test]
        fn a_multiproof_says_what_the_paths_of_its_leaves_say(
            n in 1usize..400,
            picks in proptest::collection::btree_set(0u64..400, 1..60),
            turned in any::<usize>(),
        ) {
            let leaves = leaves(n);
            let indexes: Vec<u64> = picks.into_iter().filter(|index| *index < n as u64).collect();
            prop_assume!(!indexes.is_empty());
            let (size, root) = (n as u64, naive::root(&leaves));
            let nodes = multiproof_from(&indexes, size, stored(&leaves)).unwrap();
            let given = at(&leaves, &indexes);
            prop_assert_eq!(root_from_multiproof(&given, size, &nodes), Some(root));
            // Every node is of some leaf's inclusion path, and no path is longer than all of it.
            let mut paths = Vec::new();
            for index in &indexes {
                let path = naive::path(*index as usize, &leaves);
                prop_assert!(verify_inclusion(*index, size, &leaves[*index as usize], &path, &root));
                paths.extend(path);
            }
            prop_assert!(nodes.iter().all(|node| paths.contains(node)));
            // One bit, in a leaf, an index or a node, and it leads elsewhere.
            let mut other = given.clone();
            let at = turned % other.len();
            other[at].1[turned % 32] ^= 1;
            prop_assert_ne!(root_from_multiproof(&other, size, &nodes), Some(root));
            if !nodes.is_empty() {
                let mut other = nodes.clone();
                let at = turned % other.len();
                other[at][turned % 32] ^= 1;
                prop_assert_ne!(root_from_multiproof(&given, size, &other), Some(root));
                other.swap_remove(at);
                prop_assert_eq!(root_from_multiproof(&given, size, &other), None);
            }
            let mut moved = given;
            let at = turned % moved.len();
            moved[at].0 ^= 1;
            prop_assert_ne!(root_from_multiproof(&moved, size, &nodes), Some(root));
        }
    }

    #[test]
    fn a_frontier_of_the_wrong_number_of_nodes_is_refused() {
        assert_eq!(Frontier::from_parts(3, vec![EMPTY_ROOT]), None);
        assert_eq!(Frontier::from_parts(0, vec![EMPTY_ROOT]), None);
        assert_eq!(Frontier::from_parts(0, Vec::new()), Some(Frontier::new()));
    }

    #[test]
    fn what_lies_outside_the_tree_has_no_path() {
        let leaves = leaves(5);
        assert_eq!(inclusion_from(5, 5, stored(&leaves)), Ok(Vec::new()));
        assert_eq!(consistency_from(6, 5, stored(&leaves)), Ok(Vec::new()));
        assert_eq!(root_from_inclusion(0, 0, &leaves[0], &[]), None);
        assert_eq!(root_from_inclusion(u64::MAX - 1, u64::MAX, &leaves[0], &[]), None);
        let tree = BatchTree::new(leaves.clone());
        assert!(!verify_inclusion(9, 5, &leaves[0], &tree.path(9), &tree.root()));
        let group = GroupTree::new(&Frontier::new(), &leaves);
        let _ = group.inclusion(usize::MAX);
    }

    proptest! {
        #[test]
        fn a_group_is_proved_from_the_frontier_before_it(before in 0usize..300, group in 1usize..90) {
            let leaves = leaves(before + group);
            let mut frontier = Frontier::new();
            for leaf in &leaves[..before] {
                frontier.append(*leaf);
            }
            let tree = GroupTree::new(&frontier, &leaves[before..]);
            let whole = BatchTree::new(leaves.clone());
            prop_assert_eq!(tree.root(), naive::root(&leaves));
            for i in 0..group {
                prop_assert_eq!(tree.inclusion(i), whole.path(before + i));
            }
            for leaf in &leaves[before..] {
                frontier.append(*leaf);
            }
            prop_assert_eq!(frontier.root(), tree.root());
        }
    }

    fn bytes<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        Ok(STANDARD.decode(String::deserialize(d)?).unwrap())
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct InclusionVector {
        leaf_idx: u64,
        tree_size: u64,
        #[serde(deserialize_with = "bytes")]
        root: Vec<u8>,
        #[serde(deserialize_with = "bytes")]
        leaf_hash: Vec<u8>,
        proof: Option<Vec<String>>,
        desc: String,
        want_err: bool,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct ConsistencyVector {
        size1: u64,
        size2: u64,
        #[serde(deserialize_with = "bytes")]
        root1: Vec<u8>,
        #[serde(deserialize_with = "bytes")]
        root2: Vec<u8>,
        proof: Option<Vec<String>>,
        desc: String,
        want_err: bool,
    }

    /// Some consistency vectors have short texts for hashes; our types cannot hold them, and their digests
    /// serve as well.
    fn hash(bytes: &[u8]) -> Hash {
        bytes.try_into().unwrap_or_else(|_| sha256(&[bytes]))
    }

    fn path(proof: Option<Vec<String>>) -> Vec<Hash> {
        proof.unwrap_or_default().iter().map(|node| hash(&STANDARD.decode(node).unwrap())).collect()
    }

    fn walk(folder: &Path, visit: &mut impl FnMut(&str)) -> usize {
        let mut count = 0;
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap().path();
            if entry.is_dir() {
                count += walk(&entry, visit);
            } else {
                visit(&fs::read_to_string(&entry).unwrap());
                count += 1;
            }
        }
        count
    }

    /// The vectors of transparency-dev/merkle; most must fail.
    #[test]
    fn published_vectors() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/merkle");
        let inclusion = walk(&folder.join("inclusion"), &mut |text| {
            let v: InclusionVector = serde_json::from_str(text).unwrap();
            let ok = match (v.root.try_into(), v.leaf_hash.try_into()) {
                (Ok(root), Ok(leaf)) => {
                    verify_inclusion(v.leaf_idx, v.tree_size, &leaf, &path(v.proof), &root)
                }
                _ => false,
            };
            assert_eq!(ok, !v.want_err, "{}", v.desc);
        });
        let consistency = walk(&folder.join("consistency"), &mut |text| {
            let v: ConsistencyVector = serde_json::from_str(text).unwrap();
            let (root1, root2) = (hash(&v.root1), hash(&v.root2));
            let ok = verify_consistency(v.size1, v.size2, &root1, &root2, &path(v.proof));
            assert_eq!(ok, !v.want_err, "{}", v.desc);
        });
        assert!(inclusion + consistency > 190, "{inclusion} + {consistency} vectors");
    }
}
