//! A whole log from its public files, as C2SP tlog-tiles lays them out (<https://c2sp.org/tlog-tiles>): `checkpoint`,
//! `tile/<level>/<number>` and `tile/entries/<number>`. No key of the exchange is needed. The caller reads the files:
//! pure functions, nothing to lose.

use crate::{
    Hash,
    checkpoint::Checkpoint,
    leaf::{LEAF_BYTES, LEAF_VERSION, LeafKind},
    merkle::{BatchTree, Frontier, leaf_hash},
    note::SignedNote,
    policy::Policy,
    receipt,
    report::{LogFacts, Reason, Report},
    trust::Trust,
};
use std::fmt;

/// Hashes of a whole tile, and entries of a whole bundle.
const TILE_WIDTH: usize = 256;
/// Bytes of the length before each entry of a bundle.
const LENGTH_BYTES: usize = 2;

/// Checks a log: its checkpoint's signature, and that its entries make the tiles and the checkpoint's root.
///
/// `read` gives the bytes of a file by its name below the log's folder, `None` when there is none. `previous` is a
/// checkpoint of the log that the caller has from before: the entries must make its root too. Where bundles are missing
/// the lowest tiles stand for them. A missing file is listed as not checked, and the whole log cannot be told.
pub fn verify(
    mut read: impl FnMut(&str) -> Option<Vec<u8>>,
    previous: Option<&str>,
    trust: &Trust,
    policy: Option<&Policy>,
    at: u64,
) -> Report {
    let mut report = Report::new(trust, at);
    let Some(note) = read("checkpoint") else {
        report.add(Reason::LogIncomplete, "there is no checkpoint");
        return report;
    };
    let note = String::from_utf8_lossy(&note).into_owned();
    let origin =
        SignedNote::parse(&note).map(|note| note.unchecked_text().lines().next().unwrap_or_default());
    let origin = match origin {
        Ok(origin) => origin,
        Err(error) => {
            report.add(Reason::BadCheckpoint, error.to_string());
            return report;
        }
    };
    let Some(log) = trust.log(origin) else {
        report.add(Reason::UnknownLog, format!("the trust bundle does not know log {origin}"));
        return report;
    };
    let checkpoint = match receipt::read_checkpoint(&note, log) {
        Ok(checkpoint) => checkpoint,
        Err(error) => {
            report.add(Reason::BadCheckpoint, error);
            return report;
        }
    };
    report.checked.push("checkpoint");
    let previous = match previous.map(|note| receipt::read_checkpoint(note, log)).transpose() {
        Ok(previous) => previous,
        Err(error) => {
            report.add(Reason::BadPrevious, format!("the earlier checkpoint: {error}"));
            return report;
        }
    };
    let seen = receipt::witnesses(&mut report, &note, policy, log, &trust.witnesses);
    if seen.enough {
        report.checked.push("witnesses");
    }
    let (origin, size) = (checkpoint.origin.clone(), checkpoint.size);
    report.log = Some(LogFacts { origin, size, witnesses: seen.counts });
    Walk::new(&mut read, &mut report).run(&checkpoint, previous.as_ref());
    report
}

/// The path of tile or bundle `number` below `folder`, as C2SP writes numbers: groups of three digits, with an `x` before
/// all but the last.
fn path(folder: impl fmt::Display, number: u64, width: usize) -> String {
    let mut name = format!("{:03}", number % 1_000);
    let mut above = number / 1_000;
    while above > 0 {
        name = format!("x{:03}/{name}", above % 1_000);
        above /= 1_000;
    }
    let part = if width < TILE_WIDTH { format!(".p/{width}") } else { String::new() };
    format!("tile/{folder}/{name}{part}")
}

/// One way through all entries.
struct Walk<'a, R> {
    read: &'a mut R,
    report: &'a mut Report,
    tree: Frontier,
    /// Per level of tiles: the hashes since the last whole tile, and the number of the next.
    levels: Vec<(Vec<Hash>, u64)>,
    bundles_missing: bool,
    tiles_missing: bool,
}

impl<'a, R: FnMut(&str) -> Option<Vec<u8>>> Walk<'a, R> {
    fn new(read: &'a mut R, report: &'a mut Report) -> Self {
        Self {
            read,
            report,
            tree: Frontier::new(),
            levels: Vec::new(),
            bundles_missing: false,
            tiles_missing: false,
        }
    }

    fn run(mut self, checkpoint: &Checkpoint, previous: Option<&Checkpoint>) {
        let mut number = 0u64;
        let mut grown = true;
        let whole = u64::try_from(TILE_WIDTH).unwrap_or(u64::MAX);
        while self.tree.size() < checkpoint.size {
            let left = checkpoint.size.saturating_sub(self.tree.size()).min(whole);
            let width = usize::try_from(left).unwrap_or(TILE_WIDTH);
            let Some(leaves) = self.leaves(number, width) else { return };
            for leaf in leaves {
                self.tree.append(leaf);
                self.push(0, leaf);
                if let Some(previous) = previous.filter(|previous| previous.size == self.tree.size()) {
                    grown = previous.root == self.tree.root();
                }
            }
            number = number.saturating_add(1);
        }
        for level in 0..self.levels.len() {
            self.tile(level);
        }
        if self.tree.root() != checkpoint.root {
            // Nothing is said of the earlier checkpoint: damaged files are no word of the log's.
            let detail = format!("the {} entries do not make the checkpoint's root", checkpoint.size);
            return self.report.add(Reason::BadTile, detail);
        }
        self.report.checked.push("root");
        match previous {
            Some(previous) if previous.size > checkpoint.size => {
                let detail = format!("the earlier checkpoint has {} entries", previous.size);
                self.report.add(Reason::LogIncomplete, detail);
            }
            Some(previous) if previous.size == 0 && previous.root != crate::merkle::EMPTY_ROOT => {
                self.report.add(Reason::Inconsistent, "the earlier checkpoint has a root without entries");
            }
            Some(previous) if !grown => {
                let detail =
                    format!("the first {} entries are not those of the earlier checkpoint", previous.size);
                self.report.add(Reason::Inconsistent, detail);
            }
            Some(_) => self.report.checked.push("previous"),
            None => {}
        }
        for (name, missing) in [("entries", self.bundles_missing), ("tiles", self.tiles_missing)] {
            if missing {
                self.report.not_checked.push(name);
                self.report.add(Reason::LogIncomplete, format!("some {name} are missing"));
            } else {
                self.report.checked.push(name);
            }
        }
    }

    /// The leaf hashes of a bundle or, where there is none, of the lowest tile. `None` ends the check.
    fn leaves(&mut self, number: u64, width: usize) -> Option<Vec<Hash>> {
        if let Some(bundle) = self.file("entries", number, width) {
            let leaves = entries(&bundle, width);
            if leaves.is_none() {
                self.report
                    .add(Reason::BadTile, format!("{} cannot be read", path("entries", number, width)));
            }
            return leaves;
        }
        self.bundles_missing = true;
        let tile = self.file(0, number, width);
        let Some(hashes) = tile.as_deref().and_then(|tile| tile.as_chunks().0.get(..width)) else {
            let detail = format!("neither {} nor {}", path("entries", number, width), path(0, number, width));
            self.report.add(Reason::LogIncomplete, detail);
            return None;
        };
        Some(hashes.to_vec())
    }

    /// A tile or bundle; of one that was not whole yet also the whole one will do, which a log that grew has in its place.
    fn file(&mut self, folder: impl fmt::Display, number: u64, width: usize) -> Option<Vec<u8>> {
        (self.read)(&path(&folder, number, width)).or_else(|| (self.read)(&path(&folder, number, TILE_WIDTH)))
    }

    /// Takes in the next hash of a level, and so of those above.
    fn push(&mut self, level: usize, hash: Hash) {
        if self.levels.len() <= level {
            self.levels.push((Vec::new(), 0));
        }
        let Some((hashes, _)) = self.levels.get_mut(level) else { return };
        hashes.push(hash);
        if hashes.len() == TILE_WIDTH {
            let root = BatchTree::new(hashes.clone()).root();
            self.tile(level);
            self.push(level.saturating_add(1), root);
        }
    }

    /// Compares the hashes of a level since its last whole tile with the tile.
    fn tile(&mut self, level: usize) {
        let Some((hashes, number)) = self.levels.get_mut(level) else { return };
        let (hashes, number) = (std::mem::take(hashes), std::mem::replace(number, number.saturating_add(1)));
        if hashes.is_empty() {
            return;
        }
        match self.file(level, number, hashes.len()) {
            None => self.tiles_missing = true,
            Some(tile) if tile.get(..hashes.as_flattened().len()) == Some(hashes.as_flattened()) => {}
            Some(_) => {
                let detail = format!("{} is not what the entries make", path(level, number, hashes.len()));
                self.report.add(Reason::BadTile, detail);
            }
        }
    }
}

/// The leaf hashes of the first `width` entries of a bundle: each is a leaf of section 4 behind its length.
fn entries(bundle: &[u8], width: usize) -> Option<Vec<Hash>> {
    let mut rest = bundle;
    let mut hashes = Vec::with_capacity(width);
    for _ in 0..width {
        let (length, behind) = rest.split_first_chunk::<LENGTH_BYTES>()?;
        let (leaf, behind) = behind.split_at_checked(u16::from_be_bytes(*length).into())?;
        let [version, kind, ..] = *leaf else { return None };
        if leaf.len() != LEAF_BYTES || version != LEAF_VERSION || LeafKind::from_number(kind).is_none() {
            return None;
        }
        hashes.push(leaf_hash(leaf));
        rest = behind;
    }
    Some(hashes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::iter;

    #[test]
    fn numbers_are_written_as_the_specification_says() {
        assert_eq!(path(0, 0, 256), "tile/0/000");
        assert_eq!(path("entries", 1_234_067, 256), "tile/entries/x001/x234/067");
        assert_eq!(path(3, 1_000, 17), "tile/3/x001/000.p/17");
    }

    #[test]
    fn a_bundle_holds_leaves_of_the_format() {
        let leaf = crate::leaf::leaf_bytes(LeafKind::Entry, &[7; 32]);
        let bundle: Vec<u8> = iter::repeat_n([&[0, 34][..], &leaf].concat(), 3).flatten().collect();
        assert_eq!(entries(&bundle, 3), Some(vec![leaf_hash(&leaf); 3]));
        assert_eq!(entries(&bundle, 2).unwrap().len(), 2);
        assert_eq!(entries(&bundle, 4), None);
        for at in [0, 1, 2, 3] {
            let mut changed = bundle.clone();
            changed[at] = 9;
            assert_eq!(entries(&changed, 3), None, "byte {at}");
        }
    }
}
