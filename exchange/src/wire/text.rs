//! Parts that requests of many routes share: texts, moments, names of fields, ids, pages. Each is read once, into a type that
//! cannot hold a wrong value.
//!
//! Pure functions; nothing to lose.

use std::borrow::Cow;
use std::fmt;

use schemas::codes::{Code, Rule};
use schemas::date::Date;
use schemas::identifier::{IdentifierError, LicenseTypeCode};
use schemas::text;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::refusal::{DATE_FORM, Fault, Gather, Placed as _, Refusal};

/// Longest text of a use context's part other than the cause, characters.
pub(crate) const MAX_CONTEXT_CHARS: usize = 100;
/// Longest cause (用证事由), characters (`useCause` of the Shandong profile).
pub(crate) const MAX_CAUSE_CHARS: usize = 200;
/// Longest reason of a transition or revocation, characters.
pub(crate) const MAX_REASON_CHARS: usize = 200;
/// Most fields a license or a grant may name.
pub(crate) const MAX_FIELDS: usize = 64;
/// Most entries of one page of a trace or a log query.
pub(crate) const MAX_PAGE_ENTRIES: usize = 100;

/// Which page of a list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paging {
    /// It begins behind this, which the page before ended with.
    pub after: Option<[u8; 16]>,
    /// Most that it lists.
    pub limit: usize,
}

/// Text where it was received, unless it is written with escapes.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub(crate) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl<'a> Text<'a> {
    /// The text, where it was received if it was written without escapes.
    pub(crate) fn into_inner(self) -> Cow<'a, str> {
        self.0
    }
}

/// A map of text to text that keeps its order and refuses a key that stands twice.
#[derive(Debug, Default)]
pub(crate) struct Pairs(pub(crate) Vec<(String, String)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;
        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of text values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs: Vec<(String, String)> = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, String>()? {
                    if pairs.iter().any(|(before, _)| *before == key) {
                        return Err(serde::de::Error::duplicate_field("of the map"));
                    }
                    if pairs.len() == MAX_FIELDS {
                        return Err(serde::de::Error::invalid_length(MAX_FIELDS + 1, &self));
                    }
                    pairs.push((key, value));
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(PairsVisitor)
    }
}

/// Reads a text of people and places; what is wrong with it is refused with `code`.
pub(crate) fn words(code: Code, value: Cow<'_, str>, max_chars: usize) -> Result<Cow<'_, str>, Refusal> {
    let composed = match text::read(&value, max_chars) {
        Ok(Cow::Borrowed(_)) => None,
        Ok(Cow::Owned(composed)) => Some(composed),
        Err(error) => return Err(Refusal::of(code, Fault::text("", &value, max_chars, error))),
    };
    Ok(composed.map_or(value, Cow::Owned))
}

/// Reads a text that is kept.
pub(crate) fn owned_words(code: Code, value: String, max_chars: usize) -> Result<String, Refusal> {
    words(code, Cow::Owned(value), max_chars).map(Cow::into_owned)
}

pub(crate) fn reason(text: String) -> Result<String, Refusal> {
    owned_words(Code::MalformedRequest, text, MAX_REASON_CHARS).under("reason")
}

/// The form of a moment.
const MOMENT_FORM: &str = "RFC 3339, such as 2026-12-31T23:59:59+08:00";

pub(crate) fn moment(code: Code, text: &str) -> Result<u64, Refusal> {
    let fault = || Fault::at("", Rule::Date).form(MOMENT_FORM).got(text.chars().count());
    schemas::date::parse_rfc3339(text).ok_or_else(|| Refusal::of(code, fault()))
}

/// Reads a day.
pub(crate) fn day(code: Code, text: &str) -> Result<Date, Refusal> {
    let fault = || Fault::at("", Rule::Date).form(DATE_FORM).got(text.chars().count());
    text.parse().map_err(|_| Refusal::of(code, fault()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct PagingValue {
    pub(crate) after: Option<String>,
    pub(crate) limit: Option<u64>,
}

impl PagingValue {
    pub(crate) fn typed(self) -> Result<Paging, Refusal> {
        let mut wrong = Gather::new();
        let after = wrong.take(self.after.as_deref().map(id).transpose().under("after"));
        let limit = wrong.take(page(self.limit));
        wrong.all(after.zip(limit).map(|(after, limit)| Paging { after, limit }))
    }
}

pub(crate) fn page(limit: Option<u64>) -> Result<usize, Refusal> {
    let limit = limit.map_or(Some(MAX_PAGE_ENTRIES), |limit| usize::try_from(limit).ok());
    limit.filter(|limit| (1..=MAX_PAGE_ENTRIES).contains(limit)).ok_or_else(|| {
        let fault = Fault::at("/limit", Rule::Range).bounds(1, MAX_PAGE_ENTRIES);
        Refusal::of(Code::MalformedRequest, fault)
    })
}

/// One of the codes of a table.
pub(crate) fn coded<T: std::str::FromStr>(
    text: &str,
    codes: impl Iterator<Item = &'static str>,
) -> Result<T, Refusal> {
    text.parse().map_err(|_| {
        let fault = Fault::at("", Rule::OneOf).one_of(codes).got(text.chars().count());
        Refusal::of(Code::MalformedRequest, fault)
    })
}

pub(crate) fn names(fields: Vec<String>) -> Result<Vec<String>, Refusal> {
    if fields.len() > MAX_FIELDS {
        let fault = Fault::at("", Rule::Count).bounds(1, MAX_FIELDS).got(fields.len());
        return Err(Refusal::of(Code::BadFields, fault));
    }
    let names = fields.into_iter().zip(0..);
    names.map(|(name, place)| owned_words(Code::BadFields, name, MAX_CONTEXT_CHARS).under(place)).collect()
}

pub(crate) fn type_code(text: &str) -> Result<LicenseTypeCode, Refusal> {
    // A code that cannot be read names no type; only a wrong check character is told apart.
    text.parse().map_err(|error: IdentifierError| {
        let code = if error.is_check_error() { Code::WrongCheckDigit } else { Code::UnknownType };
        Refusal::of(code, Fault::identifier("", text, error))
    })
}

/// The id of a grant or a proposal.
pub(crate) fn id(text: &str) -> Result<[u8; 16], Refusal> {
    let mut id = [0; 16];
    hex::decode_to_slice(text, &mut id).map_err(|_| {
        let fault = Fault::at("", Rule::Pattern).form("[0-9a-f]{32}").got(text.chars().count());
        Refusal::of(Code::MalformedRequest, fault)
    })?;
    Ok(id)
}

/// A moment that has to lie ahead.
pub(crate) fn to_come(pointer: &str) -> Fault {
    Fault::at(pointer, Rule::Order).form("a moment to come")
}

/// A code that names no shared resource.
pub(crate) fn unknown_resource(pointer: &str) -> Refusal {
    Refusal::of(Code::UnknownResource, Fault::at(pointer, Rule::Unknown))
}

/// A code that names no license type.
pub(crate) fn unknown_type(pointer: &str) -> Refusal {
    Refusal::of(Code::UnknownType, Fault::at(pointer, Rule::Unknown))
}
