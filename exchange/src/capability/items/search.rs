//! `POST /v1/items/search`: dictionaries and mappings, to all; reports of what was demanded on paper, to operators and auditors, and to who
//! made them.
//!
//! The path alone calls it. It reads, so a crash leaves nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ledger::{DocumentKind, Key, Ledger};
use schemas::codes::{Code, Rule};
use schemas::date::rfc3339;
use schemas::dictionary::{Element, Item, Material};
use schemas::identifier::Uscc;
use schemas::resource::MAX_NAME_CHARS;
use schemas::routes::Route;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::capability::Capability;
use crate::capability::pages::{MAX_LOOKED_AT, listed, looked_at, whose};
use crate::gateway::case::Case;
use crate::gateway::change::Change;
use crate::gateway::names::Names;
use crate::gateway::parsed::Documents;
use crate::gateway::permit::{Permit, Ruling};
use crate::participant::Participant;
use crate::sharing::dictionary::{
    Demand, Demands, Entry, Imported, Intended, Mapped, beyond_key, entry_key, mapping_key,
};
use crate::sharing::resource::Listed;
use crate::wire::read::{self, Body};
use crate::wire::refusal::{Fault, Gather, Placed as _, Refusal};
use crate::wire::text::{Paging, PagingValue, words};

/// Most fields without a data element that a page names.
const MAX_ORPHANS: usize = 1_000;

/// The capability.
pub(crate) struct Search;

/// A list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Listing {
    Items,
    Materials,
    Elements,
    Mappings,
    Demands,
    Uses,
    Beyond,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request {
    list: Listing,
    code: Option<String>,
    words: Option<String>,
    item: Option<String>,
    #[serde(default)]
    review: bool,
    #[serde(default)]
    orphans: bool,
    after: Option<String>,
    limit: Option<u64>,
}

/// A question for a list.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    list: Listing,
    code: Option<String>,
    words: Option<String>,
    /// Only of this item.
    item: Option<String>,
    /// Only mappings that somebody has to look at.
    review: bool,
    /// Only data elements that no resource uses, and beside them the fields that are none.
    orphans: bool,
    paging: Paging,
}

impl Capability<'_> for Search {
    const ROUTE: Route = Route::ItemsSearch;
    type Asked = Asked;
    /// The organisation whose reports are shown; `None` for all.
    type Granted = Option<Uscc>;

    fn read(body: Body<'_>) -> Result<Asked, Refusal> {
        read::json::<Request>(body.bytes)?.typed()
    }

    fn names<'a>(_asked: &'a Asked, _caller: &Uscc) -> Names<'a> {
        Names::default()
    }

    fn decide(
        _case: &mut Case<'_>,
        caller: &Participant,
        _asked: &Asked,
    ) -> Result<Ruling<Option<Uscc>>, Refusal> {
        Ok(Ruling::plain(whose(caller), Vec::new()))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked,
        permit: Permit<Option<Uscc>>,
    ) -> Result<Vec<u8>, Refusal> {
        let (whose, asked) = (permit.into_granted(), asked.clone());
        let resources = Arc::clone(change.tools().resources);
        let (page, ()) =
            listed(change, move |ledger| Ok((page(ledger, &resources, whose, &asked)?, ()))).await?;
        Ok(page)
    }
}

impl Request {
    fn typed(self) -> Result<Asked, Refusal> {
        let mut wrong = Gather::new();
        let text =
            |text: String, name| words(Code::MalformedRequest, text.into(), MAX_NAME_CHARS).under(name);
        let mut part = |value: Option<String>, name: &'static str| {
            wrong.take(value.map(|value| text(value, name)).transpose())
        };
        let (code, item, words) =
            (part(self.code, "code"), part(self.item, "item"), part(self.words, "words"));
        let (list, mut misplaced) =
            (self.list, |name: &'static str, is_misplaced: bool, form: &'static str| {
                if is_misplaced {
                    let fault = Fault::at(format!("/{name}"), Rule::Combination).form(form);
                    wrong.note(Refusal::of(Code::MalformedRequest, fault));
                }
            });
        let of_item = matches!(list, Listing::Mappings | Listing::Demands | Listing::Uses);
        let of_dictionary = matches!(list, Listing::Items | Listing::Materials | Listing::Elements);
        misplaced("item", matches!(&item, Some(Some(_))) && !of_item, "with mappings, demands and uses only");
        misplaced("review", self.review && list != Listing::Mappings, "with mappings only");
        misplaced("orphans", self.orphans && list != Listing::Elements, "with elements only");
        misplaced("code", matches!(&code, Some(Some(_))) && !of_dictionary, "with a dictionary only");
        misplaced("words", matches!(&words, Some(Some(_))) && !of_dictionary, "with a dictionary only");
        let paging = wrong.take(PagingValue { after: self.after, limit: self.limit }.typed());
        let owned = |text: Option<std::borrow::Cow<'_, str>>| text.map(std::borrow::Cow::into_owned);
        let (review, orphans) = (self.review, self.orphans);
        let typed = || {
            Some(Asked {
                list,
                code: owned(code?),
                words: owned(words?),
                item: owned(item?),
                review,
                orphans,
                paging: paging?,
            })
        };
        wrong.all(typed())
    }
}

/// A journaled document; bytes that cannot be read are not shown: the gateway wrote them itself.
fn found<T: DeserializeOwned>(ledger: &Ledger, kind: DocumentKind, key: &Key) -> Option<T> {
    let document = ledger.state().document(kind, key)?;
    serde_json::from_slice(&document.value).ok()
}

fn page(
    ledger: &Ledger,
    resources: &Documents<Key, Listed>,
    whose: Option<Uscc>,
    asked: &Asked,
) -> Result<Value, Refusal> {
    match asked.list {
        Listing::Items => entries::<Item>(ledger, asked, |_| true),
        Listing::Materials => entries::<Material>(ledger, asked, |_| true),
        Listing::Elements if asked.orphans => {
            let used = Used::of(ledger, resources);
            let mut page = entries::<Element>(ledger, asked, |element| {
                !element.cancelled && !used.elements.contains(&element.code)
            })?;
            if asked.paging.after.is_none() {
                page["orphanFields"] = used.orphans.into();
            }
            Ok(page)
        }
        Listing::Elements => entries::<Element>(ledger, asked, |_| true),
        Listing::Mappings => mappings(ledger, asked),
        Listing::Demands => demands(ledger, whose, asked),
        Listing::Uses => uses(ledger, whose, asked),
        Listing::Beyond => beyond(ledger, whose, asked),
    }
}

/// A page of a dictionary.
fn entries<T: Entry>(ledger: &Ledger, asked: &Asked, wanted: impl Fn(&T) -> bool) -> Result<Value, Refusal> {
    let (kind, paging) = (DocumentKind::DictionaryEntry, asked.paging);
    let keys: Vec<Key> = match &asked.code {
        Some(code) => vec![entry_key::<T>(ledger.keyed(), code)],
        None => {
            let most = MAX_LOOKED_AT.saturating_add(1);
            let all = ledger.state().documents_of(kind, &T::OWNER, paging.after.as_ref(), most);
            all.into_iter().map(|(key, _)| key).collect()
        }
    };
    let (rows, next) = looked_at(keys, paging.limit, |key| {
        let Some(Imported::<T> { entry, source, at_ms, .. }) = found(ledger, kind, key) else {
            return Ok(None);
        };
        let named = asked.words.as_ref().is_none_or(|words| entry.name().contains(words.as_str()));
        Ok((named && wanted(&entry)).then(|| {
            let mut row = json!(entry);
            row["source"] = source.into();
            row["importedAt"] = rfc3339(at_ms).into();
            row
        }))
    })?;
    let mut page = json!({"next": next});
    page[T::LIST.name()] = rows.into();
    Ok(page)
}

/// The data elements that resources use, and the fields that are none.
struct Used {
    elements: BTreeSet<String>,
    orphans: Vec<Value>,
}

impl Used {
    fn of(ledger: &Ledger, resources: &Documents<Key, Listed>) -> Self {
        let (mut elements, mut orphans) = (BTreeSet::new(), Vec::new());
        let mut known: BTreeMap<String, bool> = BTreeMap::new();
        for (key, _) in ledger.state().documents(DocumentKind::Resource) {
            let (_, _, Some(resource)) = resources.get(ledger, &key, |_, key| *key) else { continue };
            if !resource.state.is_listed() {
                continue;
            }
            for field in &resource.resource.fields {
                let is_known = field.element.as_ref().is_some_and(|code| {
                    *known.entry(code.clone()).or_insert_with(|| {
                        let key = entry_key::<Element>(ledger.keyed(), code);
                        let found = found::<Imported<Element>>(ledger, DocumentKind::DictionaryEntry, &key);
                        found.is_some_and(|found| !found.entry.cancelled)
                    })
                });
                elements.extend(field.element.clone());
                if !is_known && orphans.len() < MAX_ORPHANS {
                    let mut orphan = json!({"resource": resource.resource.code, "field": field.key});
                    if let Some(element) = &field.element {
                        orphan["element"] = element.as_str().into();
                    }
                    orphans.push(orphan);
                }
            }
        }
        Self { elements, orphans }
    }
}

/// A page of mappings; those of one item are found by the item's materials alone.
fn mappings(ledger: &Ledger, asked: &Asked) -> Result<Value, Refusal> {
    let (state, paging, kind) = (ledger.state(), asked.paging, DocumentKind::Mapping);
    let item_of = |code: &str| {
        let key = entry_key::<Item>(ledger.keyed(), code);
        found::<Imported<Item>>(ledger, DocumentKind::DictionaryEntry, &key).map(|found| found.entry)
    };
    let keys: Vec<Key> = match &asked.item {
        Some(code) => {
            let materials = item_of(code).map(|item| item.materials).unwrap_or_default();
            let keys = materials.iter().map(|material| mapping_key(ledger.keyed(), code, material));
            let mut keys: Vec<Key> = keys.collect();
            keys.sort_unstable();
            keys.retain(|key| paging.after.is_none_or(|after| *key > after));
            keys
        }
        None => {
            let most = MAX_LOOKED_AT.saturating_add(1);
            let all = state.documents_behind(kind, paging.after.as_ref(), most);
            all.into_iter().map(|(key, _)| key).collect()
        }
    };
    let (rows, next) = looked_at(keys, paging.limit, |key| {
        let Some(Imported::<Mapped> { entry, source, at_ms, by }) = found(ledger, kind, key) else {
            return Ok(None);
        };
        let review = !entry.mapping.cancelled && entry.is_under_review(item_of(&entry.mapping.item).as_ref());
        Ok((review || !asked.review).then(|| {
            let mut row = json!(entry.mapping);
            row["itemVersion"] = entry.item_version.into();
            row["review"] = review.into();
            row["source"] = source.into();
            row["importedAt"] = rfc3339(at_ms).into();
            row["by"] = by.as_str().into();
            row
        }))
    })?;
    Ok(json!({"mappings": rows, "next": next}))
}

/// A page of lines of intended uses, each with how often more was asked for.
fn uses(ledger: &Ledger, whose: Option<Uscc>, asked: &Asked) -> Result<Value, Refusal> {
    let (paging, kind) = (asked.paging, DocumentKind::IntendedUse);
    let most = MAX_LOOKED_AT.saturating_add(1);
    let all = ledger.state().documents_behind(kind, paging.after.as_ref(), most);
    let keys = all.into_iter().map(|(key, _)| key).collect();
    let (rows, next) = looked_at(keys, paging.limit, |key| {
        let Some(Imported::<Intended> { entry: Intended { use_ }, source, at_ms, .. }) =
            found(ledger, kind, key)
        else {
            return Ok(None);
        };
        let wanted = whose.is_none_or(|whose| whose == use_.organisation)
            && asked.item.as_ref().is_none_or(|item| *item == use_.item);
        let line = (use_.item.as_str(), &use_.type_code);
        let counter = beyond_key(ledger.keyed(), &use_.organisation, Some(line));
        Ok(wanted.then(|| {
            let mut row = json!(use_);
            row["beyond"] = ledger.state().counter(&counter, 0).into();
            row["source"] = source.into();
            row["importedAt"] = rfc3339(at_ms).into();
            row
        }))
    })?;
    Ok(json!({"uses": rows, "next": next}))
}

/// A page of organisations that have a list of intended uses, each with how often it asked for more.
fn beyond(ledger: &Ledger, whose: Option<Uscc>, asked: &Asked) -> Result<Value, Refusal> {
    let (paging, kind) = (asked.paging, DocumentKind::Participant);
    let most = MAX_LOOKED_AT.saturating_add(1);
    let all = ledger.state().documents_behind(kind, paging.after.as_ref(), most);
    let keys = all.into_iter().map(|(key, _)| key).collect();
    let (rows, next) = looked_at(keys, paging.limit, |key| {
        let Some(participant) = found::<Participant>(ledger, kind, key) else { return Ok(None) };
        let organisation = participant.organisation;
        let count = ledger.state().counter(&beyond_key(ledger.keyed(), &organisation, None), 0);
        let wanted =
            whose.is_none_or(|whose| whose == organisation) && (participant.intended_use || count > 0);
        Ok(wanted.then(|| json!({"organisation": organisation, "name": participant.name, "beyond": count})))
    })?;
    Ok(json!({"beyond": rows, "next": next}))
}

/// A page of reports of what was demanded on paper.
fn demands(ledger: &Ledger, whose: Option<Uscc>, asked: &Asked) -> Result<Value, Refusal> {
    let (paging, kind) = (asked.paging, DocumentKind::Demands);
    let most = MAX_LOOKED_AT.saturating_add(1);
    let all = ledger.state().documents_behind(kind, paging.after.as_ref(), most);
    let keys = all.into_iter().map(|(key, _)| key).collect();
    let (rows, next) = looked_at(keys, paging.limit, |key| {
        let Some(report) = found::<Demands>(ledger, kind, key) else { return Ok(None) };
        let wanted = whose.is_none_or(|whose| whose == report.organisation)
            && asked.item.as_ref().is_none_or(|item| *item == report.item);
        Ok(wanted.then(|| {
            let demand = |demand: &Demand| {
                let mut shown = json!(demand);
                // It follows from the person's licenses, so the one who reports is not told.
                if let Some(members) = shown.as_object_mut().filter(|_| whose.is_some()) {
                    members.remove("needless");
                }
                shown
            };
            let stages = report.stages.iter().map(|stage| {
                let demanded: Vec<Value> = stage.demanded.iter().map(demand).collect();
                json!({"stage": stage.stage, "reportedAt": rfc3339(stage.at_ms), "demanded": demanded})
            });
            json!({
                "item": report.item, "version": report.version, "materials": report.materials,
                "organisation": report.organisation, "stages": stages.collect::<Vec<_>>(),
            })
        }))
    })?;
    Ok(json!({"demands": rows, "next": next}))
}
