//! The head of a restart image or a snapshot: its log, its size, and where replay goes on.
//!
//! Written by the image's thread, read by a start. It has a checksum of its own: half written it is doubtful, never wrong.

use crate::{
    derive::store::StoreError,
    journal::cursor::Cursor,
    names::{Hash, Position},
    state::slot::Slot,
};
use verifier::merkle::Frontier;

const FORMAT: u8 = 5;

/// Takes a slot and its value; an error ends the reading.
pub(crate) type TakeValue<'a> = dyn FnMut(&Slot, &[u8]) -> Result<(), StoreError> + 'a;

/// The head of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Replay begins here: behind the last seal that the image covers.
    pub(crate) cursor: Cursor,
    /// Entries that the values may already know of. All of them were durable when the image was written, so a
    /// shorter journal has lost some.
    pub(crate) covers: u64,
}

impl Meta {
    pub(crate) fn encode(&self, origin: &Hash, digest: &Hash) -> Vec<u8> {
        let cursor = &self.cursor;
        let mut bytes = [
            &[FORMAT][..],
            origin,
            digest,
            &self.covers.to_be_bytes(),
            &cursor.time_ms.to_be_bytes(),
            &cursor.frame.to_be_bytes(),
            &cursor.previous,
            &cursor.position.0.to_be_bytes(),
            &cursor.time_ms.to_be_bytes(),
            &cursor.frontier.size().to_be_bytes(),
            cursor.frontier.nodes().as_flattened(),
        ]
        .concat();
        let checksum = verifier::sha256(&[&bytes]);
        bytes.extend_from_slice(&checksum);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8], origin: &Hash) -> Result<(Self, Hash), StoreError> {
        const MALFORMED: StoreError = StoreError::Doubtful("malformed");
        let (body, checksum) = bytes.split_last_chunk::<32>().ok_or(MALFORMED)?;
        if verifier::sha256(&[body]) != *checksum {
            return Err(MALFORMED);
        }
        let mut rest = body;
        let r = &mut rest;
        if take::<1>(r).ok_or(MALFORMED)? != [FORMAT] {
            return Err(StoreError::Doubtful("of another format"));
        }
        if take::<32>(r).ok_or(MALFORMED)? != *origin {
            return Err(StoreError::Doubtful("of another log"));
        }
        let digest = take(r).ok_or(MALFORMED)?;
        let mut number = || take(r).map(u64::from_be_bytes).ok_or(MALFORMED);
        // The time stands behind the position once more.
        let (covers, _, frame) = (number()?, number()?, number()?);
        let previous = take(&mut rest).ok_or(MALFORMED)?;
        let r = &mut rest;
        let mut number = || take(r).map(u64::from_be_bytes).ok_or(MALFORMED);
        let (position, time_ms, size) = (Position(number()?), number()?, number()?);
        let (nodes, odd) = rest.as_chunks::<32>();
        let frontier =
            Frontier::from_parts(size, nodes.to_vec()).filter(|_| odd.is_empty()).ok_or(MALFORMED)?;
        let cursor = Cursor { frame, previous, position, frontier, time_ms };
        Ok((Self { cursor, covers }, digest))
    }
}

/// Takes the next bytes off.
pub(crate) fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(*head)
}
