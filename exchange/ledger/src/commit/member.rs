//! A member of the group in the making, and the guard over the frame that its group becomes.
//!
//! The sequencer alone makes members, of commands that it accepted. They are memory: a crash before the sync leaves nothing
//! of them, and nobody was answered.

use crate::{
    commit::{
        command::Prepared,
        submission::{Admitted, Queued},
    },
    journal::{
        frame::{self, HEADER_BYTES},
        leaf::{are_committed, leaf_of},
        record::{Completion, EntryPlain, Record},
        subjects::Subjects,
    },
    names::{Hash, Label},
    state::rows::Head,
};
use verifier::{
    leaf::{
        HolderLink, LEAF_BYTES, LeafKind, OPEN_INDEX_OFFSET, OPEN_TIME_OFFSET, commitment_of,
        inner_commitment_with, leaf_bytes, statement_leaf,
    },
    merkle::leaf_hash,
};

/// Salt and inner salt.
pub(super) const SALTS_BYTES: usize = 64;
/// The length of an entry's subject parts in a frame.
pub(super) const SUBJECTS_LENGTH_BYTES: usize = 4;

/// A member of the group in the making.
pub(super) struct Member {
    pub(super) queued: Queued,
    pub(super) completion: Completion,
    pub(super) completion_bytes: Vec<u8>,
    pub(super) salt: Hash,
    pub(super) inner_salt: Hash,
    pub(super) c: Hash,
    pub(super) leaf: [u8; LEAF_BYTES],
    pub(super) leaf_hash: Hash,
}

impl Member {
    /// Completes an accepted command: index, time, salts, sequences, leaf.
    pub(super) fn new(
        mut queued: Queued,
        counters: Vec<u32>,
        salts: &[u8; SALTS_BYTES],
        index: u64,
        time_ms: u64,
        head: impl Fn(bool, &Label) -> Option<Head>,
    ) -> Self {
        let Admitted { prepared, record_digest, open_digest, .. } = &mut queued.submission.admitted;
        let Prepared { kind, open, record, told, .. } = prepared;
        if *kind == LeafKind::Entry {
            open[OPEN_INDEX_OFFSET..OPEN_INDEX_OFFSET + 8].copy_from_slice(&index.to_be_bytes());
            open[OPEN_TIME_OFFSET..OPEN_TIME_OFFSET + 8].copy_from_slice(&time_ms.to_be_bytes());
        }
        let delayed = record.release_ms != 0;
        let links = record.concerned.iter().zip(told).map(|(label, told)| {
            // A holder that this record brings has no entry yet.
            let head = head(delayed, label).unwrap_or_default();
            HolderLink {
                label: *label,
                told: *told,
                sequence: head.sequence + 1,
                previous_chain: 0,
                previous_position: head.frame.0,
                previous_index: head.index,
                previous_leaf: head.leaf_hash,
            }
        });
        let completion = Completion { delayed, links: links.collect(), counters };
        let completion_bytes = completion.encode();
        let (salt, inner_salt) = split_salts(salts);
        let c = inner_commitment_with(&inner_salt, record_digest, &completion_bytes)
            .expect("a completion that was just encoded is well formed");
        let leaf = match kind {
            LeafKind::Entry => leaf_bytes(*kind, &commitment_of(&salt, open, open_digest, &c)),
            _ => statement_leaf(*kind, open),
        };
        let leaf_hash = leaf_hash(&leaf);
        Self { queued, completion, completion_bytes, salt, inner_salt, c, leaf, leaf_hash }
    }

    pub(super) fn kind(&self) -> LeafKind {
        self.queued.submission.admitted.prepared.kind
    }

    pub(super) fn open(&self) -> &[u8] {
        &self.queued.submission.admitted.prepared.open
    }

    pub(super) fn record(&self) -> &Record {
        self.queued.submission.record()
    }

    pub(super) fn subjects(&self) -> &Subjects {
        &self.queued.submission.admitted.prepared.subjects
    }
}

fn split_salts(salts: &[u8; SALTS_BYTES]) -> (Hash, Hash) {
    let halves = salts.as_chunks::<32>().0;
    (halves[0], halves[1])
}

/// The bit-flip guard. A single flipped bit between admission and signing has ended public logs for good: so the digest of
/// the subject parts and every leaf hash are computed again, from the frame buffer alone, and compared. The leaf was made of
/// admission's digests of record and `open`, so another record or `open` in the buffer makes another leaf. The head and the
/// lengths are compared, too, which nothing is computed of: the frame would be synced and answered from, and no start
/// would take it.
pub(super) fn is_intact(
    buffer: &[u8],
    head: &frame::Head,
    members: &[Member],
    subjects_at: usize,
    plain_at: usize,
) -> bool {
    let mut again = Vec::with_capacity(HEADER_BYTES);
    head.write(&mut again);
    if !buffer.starts_with(&again) {
        return false;
    }
    let lengths = &buffer[subjects_at - members.len() * SUBJECTS_LENGTH_BYTES..subjects_at];
    let mut lengths = lengths.as_chunks::<SUBJECTS_LENGTH_BYTES>().0.iter();
    let mut subject = subjects_at;
    let mut plain = &buffer[plain_at..];
    members.iter().enumerate().all(|(at, member)| {
        let length = member.subjects().bytes().len();
        let told = lengths.next().map(|told| u32::from_be_bytes(*told) as usize);
        let subjects = &buffer[subject..subject + length];
        subject += length;
        let Ok(entry) = EntryPlain::read(&mut plain) else { return false };
        let leaf = &buffer[HEADER_BYTES + at * LEAF_BYTES..HEADER_BYTES + (at + 1) * LEAF_BYTES];
        told == Some(length)
            && are_committed(member.kind(), entry.open, subjects)
            && leaf_of(member.kind(), &entry).is_some_and(|made| made == leaf)
            && leaf_hash(leaf) == member.leaf_hash
    }) && plain.is_empty()
}
