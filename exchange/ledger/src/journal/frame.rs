//! Frames: the unit that is written with one `write` and made durable with one `fdatasync` (section 6).
//!
//! Pure functions over bytes. The sequencer and a start write what they make; a crash leaves a torn last frame, which
//! the next start drops.

use crate::{journal::format1, names::Hash};
use verifier::leaf::LEAF_BYTES;

pub(crate) const HEADER_BYTES: usize = 80;
/// Tree size, root, signature, length, CRC.
pub(crate) const TRAILER_BYTES: usize = 8 + 32 + 64 + 4 + 4;
/// A seal is a frame of header and trailer alone.
pub(crate) const SEAL_BYTES: usize = HEADER_BYTES + TRAILER_BYTES;
/// Per entry beside its subject parts and its state: leaf and length of subject parts.
pub(crate) const ENTRY_BYTES: usize = LEAF_BYTES + 4;

const MAGIC: &[u8; 4] = b"MXF1";
const VERSION: u8 = 2;
const LENGTH_OFFSET: usize = 8;
const STATE_LENGTH_OFFSET: usize = 72;

/// The purpose of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Entries.
    Group,
    /// Says that all before it is whole.
    Seal,
}

/// The fields at the head of a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    /// Entries in the frame.
    pub(crate) count: u32,
    /// Index of the first.
    pub(crate) first_index: u64,
    /// Frames are numbered from 0.
    pub(crate) number: u64,
    pub(crate) time_ms: u64,
    /// [`chain_hash`] of the frame before; zeros in frame 0.
    pub(crate) previous: Hash,
    /// Day of the state part's key.
    pub(crate) day: u32,
}

impl Head {
    /// Begins a frame in an empty buffer. [`finish`] fills in the two lengths.
    pub(crate) fn write(&self, buffer: &mut Vec<u8>) {
        buffer.extend_from_slice(MAGIC);
        buffer.extend_from_slice(&[VERSION, if self.kind == Kind::Group { 1 } else { 2 }, 0, 0]);
        buffer.extend_from_slice(&[0; 4]);
        buffer.extend_from_slice(&self.count.to_be_bytes());
        buffer.extend_from_slice(&self.first_index.to_be_bytes());
        buffer.extend_from_slice(&self.number.to_be_bytes());
        buffer.extend_from_slice(&self.time_ms.to_be_bytes());
        buffer.extend_from_slice(&self.previous);
        buffer.extend_from_slice(&[0; 4]);
        buffer.extend_from_slice(&self.day.to_be_bytes());
    }
}

/// Ends a frame: trailer, lengths, CRC.
pub(crate) fn finish(buffer: &mut Vec<u8>, state_bytes: usize, size: u64, root: &Hash, signature: &[u8; 64]) {
    buffer.extend_from_slice(&size.to_be_bytes());
    buffer.extend_from_slice(root);
    buffer.extend_from_slice(signature);
    let length = ((buffer.len() + 8) as u32).to_be_bytes();
    buffer.extend_from_slice(&length);
    buffer[LENGTH_OFFSET..LENGTH_OFFSET + 4].copy_from_slice(&length);
    buffer[STATE_LENGTH_OFFSET..STATE_LENGTH_OFFSET + 4].copy_from_slice(&(state_bytes as u32).to_be_bytes());
    let crc = crc32c::crc32c(buffer).to_be_bytes();
    buffer.extend_from_slice(&crc);
}

/// The hash by which the next frame names a frame of this format: H of a whole frame less the subject parts and the
/// state part. The leaves commit to what those hold, and their readers check it.
pub(crate) fn chain_hash(frame: &[u8]) -> Hash {
    let (front, behind) = frame.split_at(HEADER_BYTES + be32(frame, 12) as usize * ENTRY_BYTES);
    verifier::sha256(&[front, &behind[behind.len() - TRAILER_BYTES..]])
}

/// A frame whose form and checksum are right. Chain, tree and signature are the reader's to check.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) head: Head,
    /// [`crate::journal::segment::FORMAT`], or the number of the format before it.
    pub(crate) format: u8,
    /// The whole frame.
    pub(crate) bytes: &'a [u8],
    leaves: &'a [u8],
    lengths: &'a [u8],
    /// Where the subject parts begin in `bytes`.
    pub(crate) subjects_offset: usize,
    pub(crate) state: &'a [u8],
    /// Tree size after the frame.
    pub(crate) size: u64,
    pub(crate) root: Hash,
    pub(crate) signature: [u8; 64],
}

impl<'a> Frame<'a> {
    /// Reads the frame at the beginning of `bytes`; what follows it is not looked at.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, &'static str> {
        let declared = declared_length(bytes).ok_or("no frame begins here")?;
        let bytes = bytes.get(..declared).ok_or("the frame is longer than its segment")?;
        if be32(bytes, declared - 8) as usize != declared {
            return Err("the two lengths differ");
        }
        if crc32c::crc32c(&bytes[..declared - 4]) != be32(bytes, declared - 4) {
            return Err("the checksum is wrong");
        }
        let format = bytes[4];
        let kind = match (format, bytes[5], bytes[6], bytes[7]) {
            (VERSION | format1::NUMBER, 1, 0, 0) => Kind::Group,
            (VERSION | format1::NUMBER, 2, 0, 0) => Kind::Seal,
            _ => return Err("the frame has an unknown version or kind"),
        };
        let head = Head {
            kind,
            count: be32(bytes, 12),
            first_index: be64(bytes, 16),
            number: be64(bytes, 24),
            time_ms: be64(bytes, 32),
            previous: hash(bytes, 40),
            day: be32(bytes, 76),
        };
        let count = head.count as usize;
        let state_bytes = be32(bytes, STATE_LENGTH_OFFSET) as usize;
        let inner = &bytes[HEADER_BYTES..declared - TRAILER_BYTES];
        let (leaves, rest) =
            inner.split_at_checked(count.saturating_mul(LEAF_BYTES)).ok_or("the leaves do not fit")?;
        let (lengths, rest) = rest.split_at_checked(count * 4).ok_or("the lengths do not fit")?;
        let state_at = rest.len().checked_sub(state_bytes).ok_or("the state part does not fit")?;
        let (subjects, state) = rest.split_at(state_at);
        let sum: u64 = lengths.chunks_exact(4).map(|length| u64::from(be32(length, 0))).sum();
        if sum != subjects.len() as u64 {
            return Err("the subject parts do not fill their place");
        }
        if (kind == Kind::Seal) != (count == 0) || (kind == Kind::Seal && !inner.is_empty()) {
            return Err("a seal with entries or a group without");
        }
        let trailer = declared - TRAILER_BYTES;
        Ok(Self {
            head,
            format,
            bytes,
            leaves,
            lengths,
            subjects_offset: HEADER_BYTES + leaves.len() + lengths.len(),
            state,
            size: be64(bytes, trailer),
            root: hash(bytes, trailer + 8),
            signature: *bytes[trailer + 40..].first_chunk().expect("the trailer has 112 bytes"),
        })
    }

    /// The hash by which the next frame names this one.
    pub(crate) fn chain_hash(&self) -> Hash {
        if self.format == format1::NUMBER { format1::chain_hash(self.bytes) } else { chain_hash(self.bytes) }
    }

    /// The leaves, in order.
    pub(crate) fn leaves(&self) -> impl ExactSizeIterator<Item = &'a [u8; LEAF_BYTES]> + use<'a> {
        self.leaves.as_chunks().0.iter()
    }

    /// Per entry, where its subject parts lie in `bytes`: offset and length.
    pub(crate) fn subjects(&self) -> impl Iterator<Item = (usize, usize)> + use<'a> {
        let mut offset = self.subjects_offset;
        self.lengths.chunks_exact(4).map(move |length| {
            let length = be32(length, 0) as usize;
            offset += length;
            (offset - length, length)
        })
    }
}

/// Where the subject parts of an entry begin, given where all of them lie; `None` when they do not fill their place.
pub(crate) fn part_offsets(bytes: &[u8], offset: usize, length: usize) -> Option<Vec<usize>> {
    let (mut at, end) = (offset, offset.checked_add(length)?);
    let mut offsets = Vec::new();
    while at < end {
        let part_length = u32::from_be_bytes(*bytes.get(at..end)?.first_chunk()?);
        offsets.push(at);
        at = at.checked_add(4)?.checked_add(part_length as usize)?;
    }
    (at == end).then_some(offsets)
}

/// The length that a frame beginning here declares; `None` when no frame can begin here.
pub(crate) fn declared_length(bytes: &[u8]) -> Option<usize> {
    if bytes.len() < HEADER_BYTES || !bytes.starts_with(MAGIC) {
        return None;
    }
    let length = be32(bytes, LENGTH_OFFSET) as usize;
    (length >= SEAL_BYTES).then_some(length)
}

/// Whether a whole frame with this number or a higher one begins anywhere in `bytes`.
///
/// This tells a torn last frame, after which nothing can stand, from a damaged frame that was acknowledged.
pub(crate) fn any_frame_from(bytes: &[u8], number: u64) -> bool {
    let mut at = 0;
    while let Some(found) = bytes[at..].iter().position(|byte| *byte == MAGIC[0]) {
        at += found;
        if Frame::parse(&bytes[at..]).is_ok_and(|frame| frame.head.number >= number) {
            return true;
        }
        at += 1;
    }
    false
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(*bytes[at..].first_chunk().expect("the caller has checked the length"))
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(*bytes[at..].first_chunk().expect("the caller has checked the length"))
}

fn hash(bytes: &[u8], at: usize) -> Hash {
    *bytes[at..].first_chunk().expect("the caller has checked the length")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(number: u64) -> Vec<u8> {
        let head = Head {
            kind: Kind::Seal,
            count: 0,
            first_index: 3,
            number,
            time_ms: 4,
            previous: [5; 32],
            day: 6,
        };
        let mut bytes = Vec::new();
        head.write(&mut bytes);
        finish(&mut bytes, 0, 3, &[7; 32], &[8; 64]);
        bytes
    }

    #[test]
    fn a_seal_has_the_length_that_is_kept_free_for_it() {
        let bytes = seal(1);
        assert_eq!(bytes.len(), SEAL_BYTES);
        let frame = Frame::parse(&bytes).unwrap();
        assert_eq!((frame.head.number, frame.size, frame.root), (1, 3, [7; 32]));
        assert_eq!((frame.leaves().len(), frame.subjects().count()), (0, 0));
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused_whatever_the_checksum_says() {
        for (at, value) in [
            (4, [0, 2, 0, 0]),
            (4, [3, 2, 0, 0]),
            (4, [2, 3, 0, 0]),
            (4, [2, 1, 0, 0]),
            (4, [2, 2, 1, 0]),
            (12, [0, 0, 0, 1]),
            (12, [255; 4]),
            (72, [0, 0, 0, 1]),
            (72, [255; 4]),
            (8, [0, 0, 0, 191]),
            (8, [255; 4]),
        ] {
            let mut bytes = seal(1);
            bytes[at..at + 4].copy_from_slice(&value);
            let end = bytes.len() - 4;
            let crc = crc32c::crc32c(&bytes[..end]).to_be_bytes();
            bytes[end..].copy_from_slice(&crc);
            assert!(Frame::parse(&bytes).is_err(), "{at} {value:?}");
        }
    }

    #[test]
    fn a_later_frame_is_found_wherever_it_begins() {
        let mut bytes = b"MXF1 MMXF".to_vec();
        assert!(!any_frame_from(&bytes, 0));
        bytes.extend_from_slice(&seal(5));
        assert!(any_frame_from(&bytes, 5));
        assert!(!any_frame_from(&bytes, 6));
        bytes.pop();
        assert!(!any_frame_from(&bytes, 0));
    }
}
