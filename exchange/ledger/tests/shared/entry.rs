//! An entry as both test programs commit it.

use ledger::{Prepared, Subjects, record::Record};
use verifier::leaf::{Labels, LeafKind, Open};

/// Whose entries they are.
pub(crate) const ORGANISATION: [u8; 18] = *b"91310000000000000X";

/// An entry with this record and these sealed parts.
pub(crate) fn prepared(record: &Record, subjects: Vec<Vec<u8>>) -> Prepared {
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
        told: vec![[7; 32]; record.concerned.len()],
        subjects,
    }
}
