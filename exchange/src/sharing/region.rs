//! Rows of a hosted resource as they lie sealed, with the regions that each has left: who follows one of them is told that the row is
//! gone, and nobody else is.
//!
//! An ingest writes them beside the row, or as the note of its removal; a feed reads them. They lie sealed with the rows, so a crash
//! leaves what the batch leaves.

use ledger::{Key, Last, Ledger, Step};
use schemas::resource::Resource;
use schemas::sharing::Scope;
use serde::{Deserialize, Serialize};

use crate::wire::object::json;

/// Most that are kept of a row; the latest stay.
const MOST: usize = 64;

/// A region, and the size of the log behind the entry with which the row left it; 0: that is the entry which says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Left(String, u64);

/// The regions that a row has left once it is in `now`, or is removed, in the place of `last`.
pub(crate) fn left(
    ledger: &Ledger,
    resource: &Resource,
    last: Option<&Last>,
    now: Option<&str>,
) -> Vec<Left> {
    let (Some(field), Some(last)) = (&resource.region, last) else { return Vec::new() };
    let Some(place) = &last.place else { return Vec::new() };
    let read = ledger.rows().read(place).inspect_err(|error| {
        // A row that cannot be read is mended by bringing it in anew.
        tracing::error!(%error, "a row of a hosted resource cannot be read: who followed its region is not told that it left");
    });
    let Ok(plain) = read else { return Vec::new() };
    if last.removed {
        return behind(serde_json::from_slice(&plain).unwrap_or_default(), last.order, None, now);
    }
    let Some(stored) = StoredRow::decode(&plain) else { return Vec::new() };
    let region = stored.value(field).map(str::to_owned);
    behind(stored.left, last.order, region, now)
}

/// The same from what stood before: regions that it had left, the size of the log behind its entry, its region.
fn behind(before: Vec<Left>, order: u64, region: Option<String>, now: Option<&str>) -> Vec<Left> {
    let dated = before.into_iter().map(|Left(region, at)| Left(region, if at == 0 { order } else { at }));
    let all = dated.chain(region.map(|region| Left(region, 0)));
    let mut all: Vec<Left> = all.filter(|Left(region, _)| Some(region.as_str()) != now).collect();
    let older = all.len().saturating_sub(MOST);
    all.drain(..older);
    all
}

/// The note of a removal. A resource without regions has none.
pub(crate) fn note(resource: &Resource, left: &[Left]) -> Vec<u8> {
    if resource.region.is_some() { json(&left) } else { Vec::new() }
}

/// The regions of such a note.
pub(crate) fn noted(note: &[u8]) -> Vec<Left> {
    serde_json::from_slice(note).unwrap_or_default()
}

/// A row of a resource, as it lies sealed where it is hosted: when it was brought in, and its fields in order.
#[derive(Debug)]
pub struct StoredRow {
    /// When, ms since 1970.
    pub at_ms: u64,
    fields: Vec<(String, String)>,
    /// Regions that it has left.
    left: Vec<Left>,
}

impl StoredRow {
    /// The bytes to be sealed: the moment, 8 bytes big-endian, then a JSON list of two: pairs, and regions that the row has left.
    pub(crate) fn encode(at_ms: u64, fields: &[(String, String)], left: &[Left]) -> Vec<u8> {
        let mut bytes = at_ms.to_be_bytes().to_vec();
        bytes.append(&mut json(&(fields, left)));
        bytes
    }

    /// A row that was fetched at a moment, ms since 1970.
    pub(crate) fn new(at_ms: u64, fields: Vec<(String, String)>) -> Self {
        Self { at_ms, fields, left: Vec::new() }
    }

    /// The row of such bytes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (at_ms, rest) = bytes.split_first_chunk()?;
        let (fields, left) = serde_json::from_slice(rest).ok()?;
        Some(Self { at_ms: u64::from_be_bytes(*at_ms), fields, left })
    }

    /// Regions that it has left.
    pub(crate) fn left(&self) -> &[Left] {
        &self.left
    }

    /// The value of a field.
    pub fn value(&self, field: &str) -> Option<&str> {
        self.fields.iter().find(|(name, _)| name == field).map(|(_, value)| value.as_str())
    }
}

/// Whether a reader who stands at a step of the feed may have a row from one of the regions that it has left.
pub(crate) fn may_have(terms: &Scope, left: &[Left], row: &Key, stands: Step) -> bool {
    let is_to_come = |order: u64| order == 0 || Step { order, row: *row } > stands;
    terms.regions.is_empty()
        || left.iter().any(|Left(region, order)| terms.sees(Some(region)) && is_to_come(*order))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(region: &str) -> Scope {
        let scope = serde_json::json!({"fields": ["a"], "regions": [region], "until": "2099-12-31"});
        serde_json::from_value(scope).expect("a scope")
    }

    #[test]
    fn who_followed_a_region_is_told_once_and_others_never() {
        let row = [5; 16];
        // A reader at an order has read its rows up to a middle one.
        let at = |order: u64, row: u8| Step { order, row: [row; 16] };
        let told = |left: &[Left], region, order| may_have(&scope(region), left, &row, at(order, 5));
        // In B from 10 on, in A from 20 on, changed at 30, removed at 40.
        let moved = behind(Vec::new(), 10, Some("B1".to_owned()), Some("A"));
        assert!(told(&moved, "B", 10) && !told(&moved, "A", 10) && !told(&moved, "C", 0));
        let changed = behind(moved.clone(), 20, Some("A".to_owned()), Some("A"));
        assert!(told(&changed, "B", 15) && may_have(&scope("B"), &changed, &row, at(20, 4)));
        assert!(!told(&changed, "B", 20), "who has read that it left is not told of what comes after it");
        let removed = behind(changed, 30, Some("A".to_owned()), None);
        assert!(told(&removed, "A", 30) && !told(&removed, "B", 30));
        // Removed once more, and back in B.
        let again = behind(removed, 40, None, None);
        assert!(told(&again, "A", 39) && !told(&again, "A", 40));
        let back = behind(again, 50, None, Some("B1"));
        assert!(told(&back, "A", 35) && !told(&back, "B", 0), "it is there");
        // A reader without regions reads all.
        let all = Scope { regions: Vec::new(), ..scope("A") };
        assert!(may_have(&all, &[], &row, at(0, 0)));
        let many = (0..200).fold(Vec::new(), |left, n| behind(left, n + 1, Some(format!("{n}")), Some("A")));
        assert_eq!((many.len(), many.last()), (MOST, Some(&Left("199".to_owned(), 0))));
        assert_eq!(noted(&json(&many)), many);
    }
}
