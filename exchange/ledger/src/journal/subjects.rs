//! The sealed subject parts of one entry, as a frame holds them: one behind the other.

use crate::{keys::crypt::part_number, names::Hash};

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

    /// How many parts there are; `None` unless each is whole and numbered by its place.
    pub(crate) fn count(&self) -> Option<usize> {
        let mut rest = self.bytes.as_slice();
        let mut count = 0;
        while !rest.is_empty() {
            let part = rest.split_off(..part_bytes(rest)?)?;
            if part_number(part).map(usize::from) != Some(count) {
                return None;
            }
            count += 1;
        }
        Some(count)
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

/// The length of the part that begins here, with its own length.
fn part_bytes(bytes: &[u8]) -> Option<usize> {
    4usize.checked_add(u32::from_be_bytes(*bytes.first_chunk()?) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(number: u16, content: &[u8]) -> Vec<u8> {
        let length = (4 + content.len()) as u32;
        [&length.to_be_bytes(), &[1, 0][..], &number.to_be_bytes(), content].concat()
    }

    #[test]
    fn parts_are_found_one_behind_the_other() {
        let parts = [part(0, b"first"), part(1, b""), part(2, b"third")];
        let subjects = Subjects::of(&parts);
        assert_eq!(subjects.count(), Some(3));
        assert!(subjects.offsets().eq([0, 13, 21]));
        assert_eq!(subjects.digest(), &verifier::sha256(&[&parts[0], &parts[1], &parts[2]]));
        assert_eq!(Subjects::none().count(), Some(0));
        assert_eq!(Subjects::none().offsets().count(), 0);
    }

    #[test]
    fn parts_that_are_cut_or_numbered_otherwise_do_not_count() {
        let whole = part(0, b"content");
        for cut in 1..whole.len() {
            assert_eq!(Subjects::one(whole[..cut].to_vec()).count(), None, "{cut}");
        }
        for wrong in [part(1, b"content"), [part(0, b""), part(0, b"")].concat(), vec![255; 20], vec![0; 20]]
        {
            assert_eq!(Subjects::one(wrong).count(), None);
        }
    }
}
