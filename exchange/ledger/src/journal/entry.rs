//! Entries read back from the journal, opened for those who may see them: the holder's trace and the auditor.
//!
//! Any thread reads; nothing is written here, so a crash leaves nothing.

use crate::{
    commit::command::Committed,
    error::ReadError,
    journal::{
        frame::{Frame, part_offsets},
        leaf::{kind_of_leaf, leaf_of, stamp},
        record::{EntryPlain, Record},
    },
    keys::crypt::Crypt,
    names::{Hash, Position},
};
use verifier::{
    leaf::{Completion, HolderLink, LeafKind, Open, inner_commitment_of},
    merkle::leaf_hash,
};

/// One entry with everything that its leaf commits to.
#[derive(Debug)]
pub struct OpenedEntry {
    /// The parts of its receipt, without a proof. In a leaf that is no entry, `open` is the statement.
    pub committed: Committed,
    /// The kind of its leaf.
    pub kind: LeafKind,
    /// The record, read.
    pub record: Record,
    /// The record's bytes.
    pub record_bytes: Vec<u8>,
    /// The completion's bytes (section 6 of the formats).
    pub completion: Vec<u8>,
    /// Salt of R; never told to a holder.
    pub inner_salt: Hash,
    /// Whether the links are in the oversight sequences.
    pub delayed: bool,
    /// The places in the sequences of the holders concerned.
    pub links: Vec<HolderLink>,
    /// Where the sealed subject parts stand.
    pub parts: Vec<Position>,
}

impl OpenedEntry {
    /// K of each holder concerned.
    pub fn link_digests(&self) -> Vec<Hash> {
        let links = Completion::split(&self.completion);
        links.map_or_else(Vec::new, |all| {
            all.links.iter().map(|link| all.digest(&self.inner_salt, link)).collect()
        })
    }
}

/// Opens the entries of a frame whose index is wanted. `position` is where the frame stands.
pub(crate) fn open_frame(
    crypt: &Crypt,
    position: Position,
    bytes: &[u8],
    wanted: impl Fn(u64) -> bool,
) -> Result<Vec<OpenedEntry>, ReadError> {
    const MALFORMED: ReadError = ReadError::Malformed("entry");
    let frame = Frame::parse(bytes).map_err(ReadError::Malformed)?;
    let plain = crypt.open_state(frame.state, frame.head.day, frame.head.number)?;
    let mut rest = plain.as_slice();
    let mut opened = Vec::new();
    for (index, (leaf, (offset, length))) in
        (frame.head.first_index..).zip(frame.leaves().zip(frame.subjects()))
    {
        let entry = EntryPlain::read(&mut rest).map_err(|_| MALFORMED)?;
        if !wanted(index) {
            continue;
        }
        let kind = kind_of_leaf(leaf).ok_or(MALFORMED)?;
        let stamped = kind != LeafKind::Entry || stamp(entry.open) == Some((index, frame.head.time_ms));
        if leaf_of(kind, &entry).as_ref() != Some(leaf) || !stamped {
            return Err(MALFORMED);
        }
        let completion = Completion::split(entry.completion).ok_or(MALFORMED)?;
        let offsets = part_offsets(bytes, offset, length).ok_or(MALFORMED)?;
        opened.push(OpenedEntry {
            committed: Committed {
                index,
                time_ms: frame.head.time_ms,
                leaf_hash: leaf_hash(leaf),
                open: entry.open.to_vec(),
                salt: *entry.salt,
                c: inner_commitment_of(entry.inner_salt, entry.record, entry.completion).ok_or(MALFORMED)?,
                proof: None,
            },
            kind,
            record: Record::decode(entry.record).map_err(|_| MALFORMED)?,
            record_bytes: entry.record.to_vec(),
            completion: entry.completion.to_vec(),
            inner_salt: *entry.inner_salt,
            delayed: completion.delayed,
            links: completion.links.iter().map(HolderLink::decode).collect(),
            parts: offsets
                .into_iter()
                .map(|at| Position::new(position.segment(), position.offset() + at as u32))
                .collect(),
        });
    }
    Ok(opened)
}

/// An entry as its frame tells it, once more.
pub(crate) fn committed_again(
    frame: &Frame<'_>,
    plaintext: &[u8],
    index: u64,
) -> Result<Committed, ReadError> {
    const MALFORMED: ReadError = ReadError::Malformed("entry");
    let at = index.checked_sub(frame.head.first_index).ok_or(MALFORMED)?;
    if at >= u64::from(frame.head.count) {
        return Err(MALFORMED);
    }
    let mut rest = plaintext;
    let mut entry = EntryPlain::read(&mut rest).map_err(|_| MALFORMED)?;
    for _ in 0..at {
        entry = EntryPlain::read(&mut rest).map_err(|_| MALFORMED)?;
    }
    let leaf = leaf_of(LeafKind::Entry, &entry).ok_or(MALFORMED)?;
    if frame.leaves().nth(at as usize) != Some(&leaf) {
        return Err(MALFORMED);
    }
    let open = Open::parse(entry.open).map_err(|_| MALFORMED)?;
    Ok(Committed {
        index,
        time_ms: open.time_ms,
        leaf_hash: leaf_hash(&leaf),
        open: entry.open.to_vec(),
        salt: *entry.salt,
        c: inner_commitment_of(entry.inner_salt, entry.record, entry.completion).ok_or(MALFORMED)?,
        proof: None,
    })
}
