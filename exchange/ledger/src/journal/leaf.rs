//! The commitment of a leaf, made from the parts of an entry, and the fields at fixed places of an encoded `open`.
//!
//! Pure functions over bytes of the journal; any thread. Nothing is written, so nothing is lost.

use crate::journal::record::EntryPlain;
use verifier::leaf::{
    LEAF_BYTES, LeafKind, OPEN_FIXED_BYTES, OPEN_INDEX_OFFSET, OPEN_TIME_OFFSET, commitment,
    inner_commitment_of, leaf_bytes, statement_leaf,
};

/// Where the organisation stands in an encoded `open`.
const OPEN_ORGANISATION_OFFSET: usize = 24;
/// Where the digest of the subject parts stands in an encoded `open`.
const OPEN_SUBJECT_DIGEST_OFFSET: usize = 144;

/// The leaf of a kind that the parts of an entry make; `None` when the completion is malformed.
pub(crate) fn leaf_of(kind: LeafKind, entry: &EntryPlain<'_>) -> Option<[u8; LEAF_BYTES]> {
    if kind != LeafKind::Entry {
        return Some(statement_leaf(kind, entry.open));
    }
    let c = inner_commitment_of(entry.inner_salt, entry.record, entry.completion)?;
    Some(leaf_bytes(kind, &commitment(entry.salt, entry.open, &c)))
}

/// Whether an entry commits to these subject parts; a leaf of another kind has none.
pub(crate) fn are_committed(kind: LeafKind, open: &[u8], subjects: &[u8]) -> bool {
    if kind != LeafKind::Entry {
        return subjects.is_empty();
    }
    let said = open.get(OPEN_SUBJECT_DIGEST_OFFSET..OPEN_SUBJECT_DIGEST_OFFSET + 32);
    said == Some(&verifier::sha256(&[subjects])[..])
}

/// The kind that a leaf says it is of.
pub(crate) fn kind_of_leaf(leaf: &[u8; LEAF_BYTES]) -> Option<LeafKind> {
    LeafKind::from_number(leaf[1])
}

/// The organisation in an encoded `open`; zeros when there is none.
pub(crate) fn organisation(kind: LeafKind, open: &[u8]) -> [u8; 18] {
    const _: () = assert!(OPEN_ORGANISATION_OFFSET + 18 <= OPEN_FIXED_BYTES);
    if kind != LeafKind::Entry {
        return [0; 18];
    }
    open.get(OPEN_ORGANISATION_OFFSET..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default()
}

/// Index and time in an encoded `open`; `None` when it is too short to hold them.
pub(crate) fn stamp(open: &[u8]) -> Option<(u64, u64)> {
    let number = |at: usize| open.get(at..)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
    Some((number(OPEN_INDEX_OFFSET)?, number(OPEN_TIME_OFFSET)?))
}
