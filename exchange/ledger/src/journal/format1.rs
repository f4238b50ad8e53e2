//! The format before this one, as far as it is read: to carry a closed log over into a successor.
//!
//! Pure functions over bytes of the journal. Nothing is written in it. A crash leaves nothing.

use crate::{journal::record::EntryPlain, names::Hash};
use verifier::{
    leaf::{HolderLink, LEAF_BYTES, LeafKind, inner_commitment},
    sha256,
};

/// The number that its frames, leaves and open parts have in place of the present one.
pub(crate) const NUMBER: u8 = 1;
/// A link had no chain.
const LINK_BYTES: usize = 104;
const COMPLETION_HEAD_BYTES: usize = 4;
const LAYOUT_OWN: u8 = 1;

/// The hash by which the next frame named a frame.
pub(crate) fn chain_hash(frame: &[u8]) -> Hash {
    sha256(&[frame])
}

/// The leaf that the parts of an entry made; `None` when the completion is malformed.
pub(crate) fn leaf_of(kind: LeafKind, entry: &EntryPlain<'_>) -> Option<[u8; LEAF_BYTES]> {
    let commitment = match kind {
        LeafKind::Entry => sha256(&[entry.salt, entry.open, &inner(entry)?]),
        LeafKind::IndexRoot | LeafKind::ShardOpen | LeafKind::ShardClose => sha256(&[entry.open]),
    };
    let mut leaf = [0; LEAF_BYTES];
    leaf[..2].copy_from_slice(&[NUMBER, kind.number()]);
    leaf[2..].copy_from_slice(&commitment);
    Some(leaf)
}

fn inner(entry: &EntryPlain<'_>) -> Option<Hash> {
    let [layout, counters, high, low] = *entry.completion.first_chunk::<COMPLETION_HEAD_BYTES>()?;
    let (head, links) =
        entry.completion.split_at_checked(COMPLETION_HEAD_BYTES + 4 * usize::from(counters))?;
    let (links, odd) = links.as_chunks::<LINK_BYTES>();
    if !odd.is_empty() || links.len() != usize::from(u16::from_be_bytes([high, low])) {
        return None;
    }
    let length = u32::try_from(entry.record.len()).ok()?.to_be_bytes();
    let insider = sha256(&[entry.inner_salt, &length, entry.record, head]);
    let digest = |link: &[u8; LINK_BYTES]| {
        let (label, rest) = link.split_first_chunk().expect("a link has a label");
        let told = rest.first_chunk().expect("a link has a digest");
        if layout == LAYOUT_OWN {
            sha256(&[&[LAYOUT_OWN], link])
        } else {
            HolderLink::oversight_digest(label, told, &sha256(&[entry.inner_salt, link]))
        }
    };
    Some(inner_commitment(&insider, links.iter().map(digest)))
}

/// The same open part in the present layout, which has places for more.
pub(crate) fn open_part(open: &[u8]) -> Vec<u8> {
    const PRESENT: u8 = NUMBER + 1;
    let mut open = open.to_vec();
    if let Some(layout) = open.first_mut().filter(|layout| **layout == NUMBER) {
        *layout = PRESENT;
    }
    open
}
