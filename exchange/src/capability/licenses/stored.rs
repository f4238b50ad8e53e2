//! Licenses as the journal holds them, and what is said of them. Their signed bytes are read with a [`Disclosure`] alone.
//!
//! Routes and `gateway/again.rs` call it. It only reads, so a crash leaves nothing.

use std::collections::BTreeMap;

use ledger::{Ledger, License, ReadError};
use schemas::codes::Code;
use schemas::date::Date;
use schemas::state::LicenseState as Standing;
use verifier::license::{BodyHolder, LicenseContent, OpenedEnvelope};

use crate::gateway::permit::Disclosure;
use crate::wire::refusal::Refusal;

/// The record stands in a part of the journal that is not at hand: that is said, and never taken for a record that
/// does not exist.
pub(crate) fn missing(segment: u32) -> Refusal {
    tracing::warn!(segment, "a segment of the journal is asked for and not at hand");
    Refusal::new(Code::RecordUnavailable)
}

/// A body that the journal holds but that cannot be read is our fault, never a verdict on the license.
pub(crate) fn unreadable(what: &str) -> Refusal {
    tracing::error!(what, "a journaled license body cannot be read");
    Refusal::new(Code::RecordUnavailable)
}

/// A license's envelope as the journal holds it.
pub(crate) fn envelope(ledger: &Ledger, license: &License, _right: Disclosure) -> Result<Vec<u8>, Refusal> {
    let plaintext = ledger.open_subject(license.body).map_err(|error| match error {
        ReadError::KeyGone => Refusal::new(Code::Erased),
        ReadError::Missing(segment) => missing(segment),
        _ => unreadable("part"),
    })?;
    let subject = flatbuffers::root::<schemas::journal::SubjectRecord<'_>>(&plaintext)
        .map_err(|_| unreadable("record"))?;
    Ok(subject.envelope().ok_or_else(|| unreadable("envelope"))?.bytes().to_vec())
}

/// The identifier in an envelope that the journal holds.
pub(crate) fn identifier_in(envelope: &[u8]) -> Result<String, Refusal> {
    verifier::license::identifier_in(envelope).map_err(|_| unreadable("buffer"))
}

/// The content of an envelope that the journal holds.
pub(crate) fn content_of(envelope: &[u8]) -> Result<LicenseContent, Refusal> {
    let opened = OpenedEnvelope::open(envelope).map_err(|_| unreadable("buffer"))?;
    verifier::license::read_body(opened.body()).map_err(|_| unreadable("body"))
}

/// The content of a license.
pub(crate) fn content(
    ledger: &Ledger,
    license: &License,
    right: Disclosure,
) -> Result<LicenseContent, Refusal> {
    content_of(&envelope(ledger, license, right)?)
}

pub(crate) fn state_code(license: &License) -> &'static str {
    Standing::from_number(license.state).unwrap_or(Standing::Other).code()
}

/// How many licenses have the number looked up, where that is worth saying.
pub(crate) fn several(same_number: u32) -> Option<u32> {
    (same_number > 1).then_some(same_number)
}

/// Whether the license is valid now: state 01 and within its days.
pub(crate) fn in_force(now_ms: u64, license: &License) -> bool {
    let today = Date::at(i64::try_from(now_ms / 1_000).unwrap_or(i64::MAX)).days();
    let days = license.valid_from_day..=license.valid_until_day;
    license.state == Standing::Valid.number() && days.contains(&today)
}

/// Every fact of a license's face by field name.
pub(crate) fn face(content: &LicenseContent) -> Vec<(String, String)> {
    let join =
        |part: fn(&BodyHolder) -> &str| content.holders.iter().map(part).collect::<Vec<_>>().join("、");
    let mut face = vec![
        ("certificateNumber".to_owned(), content.certificate_number.clone()),
        ("holderName".to_owned(), join(|holder| &holder.name)),
        ("holderNumber".to_owned(), join(|holder| &holder.number)),
        ("issueDate".to_owned(), content.issue_date.to_string()),
        ("validFrom".to_owned(), content.valid_from.to_string()),
        ("issuerName".to_owned(), content.issuer_name.clone()),
    ];
    face.extend(content.valid_until.map(|day| ("validUntil".to_owned(), day.to_string())));
    face.extend(content.fields.iter().cloned());
    face
}

pub(crate) fn disclose(content: &LicenseContent, wanted: impl Fn(&str) -> bool) -> BTreeMap<String, String> {
    face(content).into_iter().filter(|(name, _)| wanted(name)).collect()
}
