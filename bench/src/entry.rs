//! Entries as a verify request makes them, for what drives a ledger without an exchange around it.

use ledger::record::Record;
use ledger::{Command, Fact, Prepared, Subjects};
use verifier::leaf::{Labels, LeafKind, Open, told_digest};

/// Plaintext of a use's subject part, bytes.
pub const SUBJECT_BYTES: usize = 400;
/// USCC of the organisation that asks; made up, with a true check character.
pub const ORGANISATION: [u8; 18] = *b"91350100M000100Y43";

/// An entry with this record and these sealed parts; digests that nobody looks into are constants.
pub fn prepared(record: &Record, subjects: Vec<Vec<u8>>) -> Prepared {
    let subjects = Subjects::of(&subjects);
    let open = Open {
        route: 5,
        decision: 1,
        code: 0,
        organisation: ORGANISATION,
        request_digest: [4; 32],
        answer_digest: [5; 32],
        policy: [6; 32],
        subject_digest: *subjects.digest(),
        labels: Labels::new(record.concerned.clone()),
        ..Open::default()
    };
    Prepared {
        kind: LeafKind::Entry,
        open: open.encode(),
        record: record.clone(),
        told: record.concerned.iter().map(|label| told_digest(&[8; 32], label, b"told")).collect(),
        subjects,
    }
}

/// A permit that rests on these facts.
pub fn command(record: &Record, reads: Vec<(Fact, u32)>, subjects: Vec<Vec<u8>>) -> Command {
    Command { permit_or_denial: prepared(record, subjects), reads, ends_at_ms: u64::MAX, inline_proof: false }
}
