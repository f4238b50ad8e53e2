//! The sealed subject parts of one entry, as a frame holds them: one behind the other.
//!
//! The gateway makes them, and the sequencer takes them. Until their frame is synced they are memory, and a crash
//! leaves nothing of them.

use crate::{keys::crypt::PartHead, names::Hash};

/// Sealed subject parts of an entry, in the order of their numbers from 0, with their digest: what its `open` commits to.
/// The digest is made here and compared once more with the frame before it is signed, so that a bit that flips in between
/// is noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subjects {
    bytes: Vec<u8>,
    digest: Hash,
}

impl Subjects {
    /// The value of an entry that has none.
    pub fn none() -> Self {
        Self::one(Vec::new())
    }

    /// One part, as [`crate::Ledger::seal_subject`] makes it.
    pub fn one(part: Vec<u8>) -> Self {
        let digest = verifier::sha256(&[&part]);
        Self { bytes: part, digest }
    }

    /// Several parts.
    pub fn of(parts: &[Vec<u8>]) -> Self {
        Self::one(parts.concat())
    }

    /// SHA-256 of all parts.
    pub fn digest(&self) -> &Hash {
        &self.digest
    }

    /// All parts, one behind the other.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The heads of the parts; `None` unless each is whole and numbered by its place.
    pub(crate) fn heads(&self) -> Option<Heads> {
        let mut rest = self.bytes.as_slice();
        let mut heads = Heads { count: 0, year: None };
        while !rest.is_empty() {
            let head = PartHead::read(rest.split_off(..part_bytes(rest)?)?)?;
            if usize::from(head.number) != heads.count {
                return None;
            }
            let year = match (heads.year, head.year()) {
                (Some(year), Some(own)) if year != own => Some(NO_YEAR),
                (year, own) => year.or(own),
            };
            heads = Heads { count: heads.count + 1, year };
        }
        Some(heads)
    }

    /// Where each part begins in [`Subjects::bytes`], of parts that were counted.
    pub(crate) fn offsets(&self) -> impl Iterator<Item = usize> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let begin = at;
            at += part_bytes(self.bytes.get(begin..)?)?;
            Some(begin)
        })
    }
}

/// The fields that the parts of an entry have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heads {
    /// How many parts there are.
    pub(crate) count: usize,
    /// The year whose holders' keys they are sealed under; [`NO_YEAR`] where the year turned between two of them.
    pub(crate) year: Option<u16>,
}

/// A year that no entry is of.
const NO_YEAR: u16 = 0;

/// The length of the part that begins here, with its own length.
fn part_bytes(bytes: &[u8]) -> Option<usize> {
    4usize.checked_add(u32::from_be_bytes(*bytes.first_chunk()?) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(number: u16, content: &[u8]) -> Vec<u8> {
        part_of(number, 2026, content)
    }

    fn part_of(number: u16, year: u16, content: &[u8]) -> Vec<u8> {
        let length = (6 + content.len()) as u32;
        [&length.to_be_bytes(), &[1, 1][..], &number.to_be_bytes(), &year.to_be_bytes(), content].concat()
    }

    #[test]
    fn parts_are_found_one_behind_the_other() {
        let parts = [part(0, b"first"), part(1, b""), part(2, b"third")];
        let subjects = Subjects::of(&parts);
        assert_eq!(subjects.heads(), Some(Heads { count: 3, year: Some(2026) }));
        assert!(subjects.offsets().eq([0, 15, 25]));
        assert_eq!(subjects.digest(), &verifier::sha256(&[&parts[0], &parts[1], &parts[2]]));
        assert_eq!(Subjects::none().heads(), Some(Heads { count: 0, year: None }));
        assert_eq!(Subjects::none().offsets().count(), 0);
    }

    #[test]
    fn parts_that_are_cut_or_numbered_otherwise_do_not_count() {
        let whole = part(0, b"content");
        for cut in 1..whole.len() {
            assert_eq!(Subjects::one(whole[..cut].to_vec()).heads(), None, "{cut}");
        }
        let mut under_a_day = part(0, b"day");
        under_a_day[4] = 0;
        for wrong in [
            part(1, b"content"),
            [part(0, b""), part(0, b"")].concat(),
            part_of(0, 0, b"")[..]
                .iter()
                .enumerate()
                .map(|(at, byte)| if at == 5 { 0 } else { *byte })
                .collect(),
            under_a_day.clone(),
            vec![255; 20],
            vec![0; 20],
        ] {
            assert_eq!(Subjects::one(wrong).heads(), None);
        }
        let turned = Subjects::of(&[part(0, b""), part_of(1, 2027, b""), part(2, b"")]);
        assert_eq!(turned.heads(), Some(Heads { count: 3, year: Some(NO_YEAR) }));
        // One under the day's key goes with a year's.
        (under_a_day[5], under_a_day[8], under_a_day[9]) = (0, 0, 0);
        let both = Subjects::of(&[under_a_day, part(1, b"")]);
        assert_eq!(both.heads(), Some(Heads { count: 2, year: Some(2026) }));
    }
}
