//! `POST /v1/resources/search`: the catalogue, by words and facets. Drafts and withdrawn resources are shown to their provider alone.
//!
//! The path alone calls it. It reads, so a crash leaves nothing.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use ledger::{DocumentKind, Key, Ledger};
use schemas::codes::{Code, Rule};
use schemas::identifier::Uscc;
use schemas::resource::{Domain, MAX_NAME_CHARS, Openness, Resource, Supply};
use schemas::routes::Route;
use schemas::sharing::ResourceState;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::capability::Capability;
use crate::capability::pages::listed;
use crate::gateway::case::Case;
use crate::gateway::change::Change;
use crate::gateway::names::Names;
use crate::gateway::parsed::Documents;
use crate::gateway::permit::{Permit, Ruling};
use crate::participant::{Participant, Role};
use crate::sharing::quality::quality;
use crate::sharing::resource::Listed;
use crate::wire::read::{self, Body};
use crate::wire::refusal::{Fault, Gather, Placed as _, Refusal};
use crate::wire::text::{Paging, PagingValue, Text, words};

/// The capability.
pub(crate) struct Search;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request<'a> {
    words: Option<String>,
    code: Option<String>,
    domain: Option<Domain>,
    sharing_class: Option<u8>,
    openness: Option<Openness>,
    supply: Option<Supply>,
    state: Option<ResourceState>,
    #[serde(borrow)]
    provider: Option<Text<'a>>,
    #[serde(default)]
    returned: bool,
    after: Option<String>,
    limit: Option<u64>,
}

/// A question for resources.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    words: Option<String>,
    code: Option<String>,
    domain: Option<Domain>,
    sharing_class: Option<u8>,
    openness: Option<Openness>,
    supply: Option<Supply>,
    state: Option<ResourceState>,
    provider: Option<Uscc>,
    /// Only data that flow back from national systems.
    returned: bool,
    paging: Paging,
}

impl Asked {
    fn takes(&self, listed: &Listed) -> bool {
        let resource = &listed.resource;
        let words = |words: &String| {
            [&resource.name, &resource.summary].iter().any(|text| text.contains(words.as_str()))
                || resource.fields.iter().any(|field| field.label.contains(words.as_str()))
        };
        self.words.as_ref().is_none_or(words)
            && self.code.as_ref().is_none_or(|code| resource.code.starts_with(code.as_str()))
            && self.domain.is_none_or(|domain| resource.domain == domain)
            && self.sharing_class.is_none_or(|class| resource.sharing_class == class)
            && self.openness.is_none_or(|openness| resource.openness == openness)
            && self.supply.is_none_or(|supply| resource.supply == supply)
            && self.state.is_none_or(|state| listed.state == state)
            && self.provider.is_none_or(|provider| listed.provider == provider)
            && (!self.returned || resource.returned_from.is_some())
    }
}

/// Whose drafts and withdrawn resources are shown.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sees {
    /// The provider's own.
    Own(Uscc),
    /// All, to operators and auditors.
    All,
}

impl Capability<'_> for Search {
    const ROUTE: Route = Route::ResourceSearch;
    type Asked = Asked;
    type Granted = Sees;

    fn read(body: Body<'_>) -> Result<Asked, Refusal> {
        read::json::<Request<'_>>(body.bytes)?.typed()
    }

    fn names<'a>(_asked: &'a Asked, _caller: &Uscc) -> Names<'a> {
        Names::default()
    }

    fn decide(_case: &mut Case<'_>, caller: &Participant, _asked: &Asked) -> Result<Ruling<Sees>, Refusal> {
        let all = caller.has(Role::Operator) || caller.has(Role::Auditor);
        let sees = if all { Sees::All } else { Sees::Own(caller.organisation) };
        Ok(Ruling::plain(sees, Vec::new()))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked,
        permit: Permit<Sees>,
    ) -> Result<Vec<u8>, Refusal> {
        let (sees, asked, now_ms) = (permit.into_granted(), asked.clone(), change.entry().now_ms);
        let resources = Arc::clone(change.tools().resources);
        let (page, ()) =
            listed(change, move |ledger| Ok((page(ledger, &resources, sees, &asked, now_ms), ()))).await?;
        Ok(page)
    }
}

/// A page, and how many of all that passes there are by facet.
fn page(
    ledger: &Ledger,
    resources: &Documents<Key, Listed>,
    sees: Sees,
    asked: &Asked,
    now_ms: u64,
) -> Value {
    let mut facets: BTreeMap<&str, BTreeMap<String, u64>> = BTreeMap::new();
    let (mut rows, mut total, mut last, mut next) = (Vec::new(), 0_u64, None::<Key>, None);
    for (key, _) in ledger.state().documents(DocumentKind::Resource) {
        // The gateway wrote these bytes itself; what cannot be read is not shown.
        let (_, version, Some(found)) = resources.get(ledger, &key, |_, key| *key) else { continue };
        let sees_all = match sees {
            Sees::All => true,
            Sees::Own(caller) => found.provider == caller,
        };
        let seen = found.state.is_listed() || sees_all;
        if !seen || !asked.takes(&found) {
            continue;
        }
        total += 1;
        let resource = &found.resource;
        for (facet, value) in [
            ("domain", resource.domain.name().to_owned()),
            ("sharingClass", resource.sharing_class.to_string()),
            ("openness", resource.openness.name().to_owned()),
            ("supply", resource.supply.name().to_owned()),
            ("state", found.state.name().to_owned()),
        ] {
            *facets.entry(facet).or_default().entry(value).or_default() += 1;
        }
        if asked.paging.after.is_some_and(|after| key <= after) {
            continue;
        }
        if rows.len() == asked.paging.limit {
            next = next.or(last.map(hex::encode));
            continue;
        }
        rows.push(row(ledger, &found, version, now_ms, sees_all));
        last = Some(key);
    }
    json!({"resources": rows, "total": total, "facets": facets, "next": next})
}

/// A resource as the catalogue shows it. Where its interface is called is for its provider to see.
fn row(ledger: &Ledger, listed: &Listed, version: u32, now_ms: u64, sees_all: bool) -> Value {
    let resource = match &listed.resource.interface {
        Some(_) if !sees_all => Cow::Owned(Resource { interface: None, ..listed.resource.clone() }),
        Some(_) | None => Cow::Borrowed(&listed.resource),
    };
    let history: Vec<Value> = listed
        .history
        .iter()
        .map(|step| {
            let mut shown = json!({
                "at": schemas::date::rfc3339(step.at_ms), "by": step.by, "action": step.action,
            });
            if let (Some(note), Some(shown)) = (&step.note, shown.as_object_mut()) {
                shown.insert("note".to_owned(), note.clone().into());
            }
            shown
        })
        .collect();
    let mut row = json!({
        "resource": resource, "provider": listed.provider, "state": listed.state.name(), "version": version,
        "domainName": listed.resource.domain.chinese(), "history": history,
    });
    if let Some(quality) = quality(ledger, listed, now_ms)
        && let Some(row) = row.as_object_mut()
    {
        row.insert("quality".to_owned(), json!(quality));
    }
    row
}

impl Request<'_> {
    fn typed(self) -> Result<Asked, Refusal> {
        let mut wrong = Gather::new();
        let read = self.words.map(|text| words(Code::MalformedRequest, text.into(), MAX_NAME_CHARS));
        let words = wrong.take(read.transpose().under("words"));
        let provider =
            wrong.take(self.provider.map(|text| Refusal::parse::<Uscc>(&text)).transpose().under("provider"));
        if self.sharing_class.is_some_and(|class| !(1..=3).contains(&class)) {
            let fault = Fault::at("/sharingClass", Rule::Range).bounds(1, 3);
            wrong.note(Refusal::of(Code::MalformedRequest, fault));
        }
        let paging = wrong.take(PagingValue { after: self.after, limit: self.limit }.typed());
        let typed = || {
            Some(Asked {
                words: words?.map(Cow::into_owned),
                code: self.code,
                domain: self.domain,
                sharing_class: self.sharing_class,
                openness: self.openness,
                supply: self.supply,
                state: self.state,
                provider: provider?,
                returned: self.returned,
                paging: paging?,
            })
        };
        wrong.all(typed())
    }
}
