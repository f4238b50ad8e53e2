//! Licenses as the journal holds them, and what is said of them. Their signed bytes are read with a [`Disclosure`] alone.
//!
//! Routes and `gateway/again.rs` call it. It only reads, so a crash leaves nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use ledger::{Ledger, License, ReadError};
use schemas::codes::Code;
use schemas::date::Date;
use schemas::license_type::LicenseType;
use schemas::mask::Show;
use schemas::state::LicenseState as Standing;
use schemas::text::{self, Comparison};
use verifier::Hash;
use verifier::license::{LicenseContent, OpenedEnvelope};

use crate::gateway::permit::Disclosure;
use crate::wire::named::UseContext;
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

/// The identity of the license in an envelope that the journal holds.
pub(crate) fn identity_of(envelope: &[u8]) -> Result<Hash, Refusal> {
    Ok(OpenedEnvelope::open(envelope).map_err(|_| unreadable("buffer"))?.body_digest())
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

/// The masks that lie over a license for a purpose.
#[derive(Clone, Debug)]
pub(crate) struct Masks {
    /// The type whose they are.
    pub(crate) license_type: Arc<LicenseType>,
    /// Purpose of the use.
    pub(crate) purpose: Option<String>,
}

impl Masks {
    /// Those of a type, for the purpose of a use.
    pub(crate) fn of(license_type: Option<Arc<LicenseType>>, context: &UseContext<'_>) -> Option<Self> {
        let purpose = context.purpose.as_deref().map(str::to_owned);
        license_type.map(|license_type| Self { license_type, purpose })
    }
}

/// A license that an answer disclosed, as it stands now.
#[derive(Debug)]
pub(crate) struct StandsNow {
    pub(crate) license: License,
    /// Whether it is in force.
    pub(crate) in_force: bool,
    /// The masks that lie over it now.
    pub(crate) masks: Option<Masks>,
}

/// A license's fields as an answer shows them.
#[derive(Debug)]
pub(crate) struct Shown {
    /// Values by field name.
    pub(crate) fields: BTreeMap<String, String>,
    /// Those of them that are masked.
    pub(crate) masked: Vec<String>,
}

/// The fields that are wanted, masked as the type says for a purpose; in clear without a type. A masked value is masked wherever it
/// stands: some certificates have the holder's number for theirs.
pub(crate) fn shown(content: &LicenseContent, masks: Option<&Masks>, wanted: impl Fn(&str) -> bool) -> Shown {
    let face = content.face();
    let mask = |name: &str| masks?.license_type.mask(name, masks?.purpose.as_deref());
    let mut hidden: Vec<(Show, &str)> = face
        .iter()
        .filter_map(|(name, value)| Some((mask(name)?, value)))
        .flat_map(|(show, value)| value.split(HOLDERS).map(move |part| (show, part)))
        .filter(|(_, part)| part.chars().count() >= LEAST_HIDDEN_CHARS)
        .collect();
    // One name may begin with another.
    hidden.sort_by_key(|(_, part)| std::cmp::Reverse(part.chars().count()));
    let (mut fields, mut masked) = (BTreeMap::new(), Vec::new());
    for (name, value) in face.iter().filter(|(name, _)| wanted(name)) {
        let value_shown = match mask(name) {
            Some(show) => {
                Some(value.split(HOLDERS).map(|part| show.of(part)).collect::<Vec<_>>().join(HOLDERS))
            }
            None => without(value, &hidden),
        };
        masked.extend(value_shown.is_some().then(|| name.clone()));
        fields.insert(name.clone(), value_shown.unwrap_or_else(|| value.clone()));
    }
    masked.sort_unstable();
    Shown { fields, masked }
}

/// Between the holders of one license in a fact about each.
const HOLDERS: &str = "、";
/// A shorter part of a masked value stands in others by chance.
const LEAST_HIDDEN_CHARS: usize = 2;

/// A value without the hidden ones that stand in it, in any spelling; `None` if none does.
fn without(value: &str, hidden: &[(Show, &str)]) -> Option<String> {
    let mut shown: Option<String> = None;
    for (show, part) in hidden {
        if shown.as_deref().unwrap_or(value).contains(part) {
            shown = Some(shown.as_deref().unwrap_or(value).replace(part, &show.of(part)));
        }
        // Another spelling may stand beside the one that was found.
        let now = shown.as_deref().unwrap_or(value);
        if text::fold(Comparison::Number, now).contains(&text::fold(Comparison::Number, part)) {
            return Some(Show::Nothing.of(value));
        }
    }
    shown
}
