//! Pages of lists. A decision said before how much a caller may see. A page is bounded and made in a lane of its caller's. It
//! ends with a cursor that the next one goes on from, and says when it was read.
//!
//! Routes that list call it. It only reads, so a crash leaves nothing.

use ledger::{Document, DocumentKind, Key, Ledger};
use schemas::identifier::Uscc;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::gateway::change::{Change, json};
use crate::keyed;
use crate::participant::{Participant, Role};
use crate::wire::refusal::Refusal;
use crate::wire::text::Paging;

/// Licenses that a page looks at: where few pass the filters, the rest is left to the next pages.
pub(crate) const MAX_LOOKED_AT: usize = 1_000;

/// A page that `read` makes, as bytes, and what else it found.
///
/// # Errors
/// The refusal of `read`; the lane is full.
pub(crate) async fn listed<T: Send + 'static>(
    change: &Change<'_>,
    read: impl FnOnce(&Ledger) -> Result<(Value, T), Refusal> + Send + 'static,
) -> Result<(Vec<u8>, T), Refusal> {
    let (tools, entry) = (change.tools(), change.entry());
    let ledger = tools.ledger.clone();
    let read = tools.lanes.searches.run(*entry.organisation, move || read(&ledger));
    let (mut page, found) = read.await.map_err(Refusal::new)??;
    if let Some(page) = page.as_object_mut() {
        page.insert("asOf".to_owned(), change.as_of().into());
    }
    Ok((json(&page), found))
}

/// The rows of what passes among these keys, and the cursor of the next page. When there are more keys than a page looks at, the last one
/// is looked at by the next page, also where this one has less than `limit` rows.
pub(crate) fn looked_at(
    keys: Vec<Key>,
    limit: usize,
    mut row: impl FnMut(&Key) -> Result<Option<Value>, Refusal>,
) -> Result<(Vec<Value>, Option<String>), Refusal> {
    let (mut rows, mut last) = (Vec::new(), None);
    for (before, key) in keys.into_iter().enumerate() {
        if rows.len() == limit || before == MAX_LOOKED_AT {
            return Ok((rows, last.map(hex::encode::<Key>)));
        }
        rows.extend(row(&key)?);
        last = Some(key);
    }
    Ok((rows, None))
}

/// The organisation whose rows alone a list shows to a caller: its own. `None` shows all, to operators and auditors.
pub(crate) fn whose(caller: &Participant) -> Option<Uscc> {
    let all = caller.has(Role::Operator) || caller.has(Role::Auditor);
    (!all).then_some(caller.organisation)
}

/// Documents of a kind that a page looks at, and one more: an organisation's, or all.
pub(crate) fn owned(
    ledger: &Ledger,
    kind: DocumentKind,
    whose: Option<Uscc>,
    after: Option<&Key>,
) -> Vec<(Key, Document)> {
    let (state, most) = (ledger.state(), MAX_LOOKED_AT + 1);
    match whose {
        Some(organisation) => {
            let owner = keyed::participant_key(ledger.keyed(), &organisation);
            state.documents_of(kind, &owner, after, most)
        }
        None => state.documents_behind(kind, after, most),
    }
}

/// At most a page of the documents of a kind, ascending by key, and one more where there is a next page.
pub(crate) fn behind(ledger: &Ledger, kind: DocumentKind, paging: Paging) -> Vec<(Key, Document)> {
    ledger.state().documents_behind(kind, paging.after.as_ref(), paging.limit.saturating_add(1))
}

/// The rows that `row` shows of a page from [`behind`], and the cursor of the next page.
pub(crate) fn documents<T: DeserializeOwned>(
    found: &[(Key, Document)],
    paging: Paging,
    row: impl Fn(&Key, T) -> Option<Value>,
) -> (Vec<Value>, Option<String>) {
    let page = found.get(..paging.limit).unwrap_or(found);
    // The gateway wrote these bytes itself; what cannot be read is not shown.
    let shown = page.iter().filter_map(|(key, document)| {
        serde_json::from_slice(&document.value).ok().and_then(|value| row(key, value))
    });
    let next = page.last().filter(|_| page.len() < found.len()).map(|(key, _)| hex::encode(key));
    (shown.collect(), next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_whole_however_few_pass() {
        const WANTED: u32 = 700;
        let all: Vec<Key> = (0..3_000_u128).map(u128::to_be_bytes).collect();
        let passes = |key: &Key| u128::from_be_bytes(*key).is_multiple_of(u128::from(WANTED));
        for limit in [1, 2, 100] {
            let (mut found, mut after, mut pages) = (Vec::new(), None::<Key>, 0);
            loop {
                let behind = all.iter().filter(|key| after.is_none_or(|after| **key > after));
                let keys = behind.copied().take(MAX_LOOKED_AT + 1).collect();
                let mut looks = 0;
                let page = looked_at(keys, limit, |key| {
                    looks += 1;
                    Ok(passes(key).then(|| hex::encode(key).into()))
                });
                let (rows, next) = page.expect("nothing is read");
                assert!(rows.len() <= limit && looks <= MAX_LOOKED_AT, "{looks}");
                found.extend(rows);
                pages += 1;
                let Some(next) = next else { break };
                after = Some(hex::decode(next).expect("hex").try_into().expect("a key"));
            }
            let wanted = all.iter().filter(|key| passes(key)).map(|key| Value::from(hex::encode(key)));
            assert_eq!(found, wanted.collect::<Vec<_>>(), "{limit}");
            assert!(pages >= 3);
        }
    }
}
