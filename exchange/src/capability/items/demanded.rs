//! `POST /v1/items/demanded`: an approval system reports which materials were demanded on paper in a stage of a case, none of them included.
//! From these reports the rate of materials done without (免提交率) is counted.
//!
//! The path alone calls it. A report is one entry: a crash leaves it whole or not at all.

use std::time::Instant;

use ledger::{Label, Ledger, Position};
use schemas::codes::{Code, Decision, Rule};
use schemas::dictionary::{Item, MAX_CODE_CHARS, MAX_NAMED, Mode as Way};
use schemas::holder::HolderRef;
use schemas::identifier::{CertificateIdentifier, LicenseTypeCode, Uscc};
use schemas::routes::Route;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use verifier::leaf::Open;

use super::{MAX_LICENSES, held, is_approved, item, mapping, material};
use crate::capability::Capability;
use crate::capability::entries::{own_link, subject_for};
use crate::gateway::at_a_step;
use crate::gateway::case::{Case, Found, Place};
use crate::gateway::change::{Change, json as answer};
use crate::gateway::names::{HOLDER, Names};
use crate::gateway::permit::{Disclosure, Permit, Ruling};
use crate::participant::Participant;
use crate::sharing::dictionary::{Demand, Demands, Stage, demands_key};
use crate::wire::named::{ContextValue, Holder, STAGES, UseContext, context};
use crate::wire::read::{self, Body};
use crate::wire::refusal::{Fault, Gather, Placed as _, Refusal};
use crate::wire::text::words;

/// How long a report counts after its last stage, ms: 400 days, so that two years can be compared.
const KEPT_MS: u64 = 400 * 86_400_000;

/// Most entries of a holder's that are looked through for uses in the case.
const MAX_ENTRIES: usize = 200;

/// The capability.
pub(crate) struct Demanded;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    holder: Option<Holder<'a>>,
    demanded: Vec<String>,
    #[serde(rename = "use")]
    context: Option<ContextValue<'a>>,
}

/// A report.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    holder: Option<HolderRef>,
    demanded: Vec<String>,
    context: UseContext<'a>,
}

/// A report that is counted.
#[derive(Debug)]
pub(crate) struct Granted {
    place: Place,
    before: Option<Demands>,
    item: Item,
    /// Each with the license type that would have done instead.
    demanded: Vec<(Demand, Option<LicenseTypeCode>)>,
    licenses: Vec<Found>,
    holder: Option<Label>,
}

/// A case of an organisation's.
struct UsedIn {
    organisation: Uscc,
    item: String,
    number: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    item: &'a str,
    version: u32,
    stage: &'a str,
    materials: usize,
    demanded: usize,
}

impl<'r> Capability<'r> for Demanded {
    const ROUTE: Route = Route::ItemsDemanded;
    type Asked = Asked<'r>;
    type Granted = Granted;

    fn read(body: Body<'r>) -> Result<Asked<'r>, Refusal> {
        read::json::<Request<'_>>(body.bytes)?.typed()
    }

    fn names<'a>(asked: &'a Asked<'r>, _caller: &Uscc) -> Names<'a> {
        let fields = asked.demanded.iter().map(|code| code.as_str().into()).collect();
        let names = Names { context: Some(&asked.context), fields, ..Names::default() };
        asked.holder.iter().fold(names, |names, holder| names.person(holder, HOLDER))
    }

    fn decide(
        case: &mut Case<'_>,
        caller: &Participant,
        asked: &Asked<'r>,
    ) -> Result<Ruling<Granted>, Refusal> {
        let context = &asked.context;
        let item = item(case, &context.item_code)?;
        let key = demands_key(case.keyed(), &caller.organisation, &item.code, &context.business_code);
        let (place, before) = case.document::<Demands>(key);
        let earlier = STAGES.iter().take_while(|stage| **stage != context.stage);
        let earlier: Vec<&Stage> = before
            .iter()
            .flat_map(|before| &before.stages)
            .filter(|stage| earlier.clone().any(|name| *name == stage.stage))
            .collect();
        let (mut demanded, mut wrong) = (Vec::new(), Vec::new());
        for (code, place) in asked.demanded.iter().zip(0..) {
            // A material on no list of the item is a demand all the same.
            if !item.materials.contains(code) && material(case, code).is_none() {
                wrong.push(Fault::at(format!("/demanded/{place}"), Rule::Unknown));
                continue;
            }
            let mapped = mapping(case, &item.code, code);
            let needless = mapped.as_ref().is_some_and(|mapped| {
                let is_current = !mapped.is_under_review(Some(&item));
                match (mapped.mapping.mode, &mapped.mapping.resource) {
                    (Way::Drop, _) => is_current,
                    (Way::Share, Some(resource)) => {
                        is_approved(case, caller, context, resource, &mapped.mapping.fields)
                    }
                    (Way::Share, None) | (Way::Verify, _) => false,
                }
            });
            let done_without = |stage: &&Stage| !stage.demanded.iter().any(|demand| demand.material == *code);
            let again = earlier.iter().any(done_without);
            let mapping = mapped.map(|mapped| mapped.mapping);
            let mode = mapping.as_ref().map(|mapping| mapping.mode);
            let type_code = mapping.and_then(|mapping| mapping.type_code);
            demanded.push((Demand { material: code.clone(), mode, needless, again, used: false }, type_code));
        }
        if !wrong.is_empty() {
            return Err(Refusal::all(Code::BadItems, wrong));
        }
        let holder = asked.holder.as_ref().and_then(|holder| case.holder(holder));
        let concerned: Vec<Label> = holder.into_iter().map(|holder| holder.label).collect();
        let mut licenses = Vec::new();
        if let Some(label) = concerned.first().filter(|_| demanded.iter().any(|(_, code)| code.is_some())) {
            let keys = case.licenses_of(label);
            (licenses, _) = case.newest(keys, MAX_LICENSES);
        }
        // The report tells nothing of the holder, not even whether the exchange knows one.
        let holder = concerned.first().copied();
        let granted = Granted { place, before, item, demanded, licenses, holder };
        Ok(Ruling::plain(granted, concerned).unnamed().approved(caller, case, None))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked<'r>,
        permit: Permit<Granted>,
    ) -> Result<Vec<u8>, Refusal> {
        let (Granted { place, before, item, demanded, licenses, holder }, right) = permit.into_parts();
        let begun = Instant::now();
        if let Some(holder) = &asked.holder {
            change.concern(holder)?;
        }
        let (tools, entry) = (change.tools(), change.entry());
        let now_ms = entry.now_ms;
        let types: Vec<LicenseTypeCode> = demanded.iter().filter_map(|(_, code)| *code).collect();
        let ledger = tools.ledger.clone();
        // That a license was at hand is counted, and told to nobody who asks for this person: nor does a license that cannot be read.
        let case = UsedIn {
            organisation: *entry.organisation,
            item: asked.context.item_code.clone().into_owned(),
            number: asked.context.business_code.clone().into_owned(),
        };
        let (found, used) = if licenses.is_empty() {
            (Vec::new(), Vec::new())
        } else {
            let read = tools.lanes.searches.run(*entry.organisation, move || {
                let used = holder.map(|label| used_in(&ledger, right, &label, &case)).unwrap_or_default();
                (held(&ledger, right, &licenses, &types, now_ms).unwrap_or_default(), used)
            });
            read.await.unwrap_or_default()
        };
        if asked.holder.is_some() {
            // Nor does the time of the answer tell it.
            at_a_step(begun).await;
        }
        let demanded = demanded.into_iter().map(|(demand, code)| {
            let in_force = found.iter().any(|held| Some(held.type_code) == code && held.in_force);
            let used = code.is_some_and(|code| used.contains(&code));
            Demand { needless: demand.needless || in_force, used, ..demand }
        });
        let stage = Stage {
            stage: asked.context.stage.clone().into_owned(),
            at_ms: now_ms,
            demanded: demanded.collect(),
        };
        let mut stages = before.map(|before| before.stages).unwrap_or_default();
        // A stage that is reported again is corrected.
        stages.retain(|before| before.stage != stage.stage);
        let report = Answer {
            item: &item.code,
            version: item.version,
            stage: &asked.context.stage,
            materials: item.materials.len(),
            demanded: stage.demanded.len(),
        };
        stages.push(stage);
        let demands = Demands {
            item: item.code.clone(),
            version: item.version,
            materials: item.materials.len(),
            organisation: *entry.organisation,
            stages,
            ends_ms: now_ms.saturating_add(KEPT_MS),
        };
        change.keep(place, &demands);
        Ok(answer(&report))
    }
}

/// Types of the holder's licenses that the organisation has used in a case, among the newest entries that concern the holder. Blocks
/// for a read of each.
fn used_in(ledger: &Ledger, right: Disclosure, label: &Label, case: &UsedIn) -> Vec<LicenseTypeCode> {
    let head = ledger.state().holder_by_label(label).map(|holder| holder.head);
    let mut at = head.filter(|head| head.sequence > 0).map(|head| (head.frame, head.index));
    let mut used = Vec::new();
    for _ in 0..MAX_ENTRIES {
        // An entry that cannot be read ends it: the report says no less than is known.
        let Some((frame, index)) = at else { break };
        let Ok(entry) = ledger.entry_near(frame, index) else { break };
        let Some(link) = own_link(&entry, label) else { break };
        at = (link.sequence > 1).then_some((Position(link.previous_position), link.previous_index));
        let is_use = Open::parse(&entry.committed.open).is_ok_and(|open| {
            matches!(Route::from_number(open.route), Some(Route::Verify | Route::Retrieve))
                && open.decision == Decision::Permit.number()
                && open.organisation == *case.organisation.as_bytes()
        });
        if !is_use {
            continue;
        }
        let told = subject_for(ledger, right, &entry, label).ok().flatten();
        let told = told.and_then(|subject| subject.told(label));
        let told = told.and_then(|told| serde_json::from_str::<Value>(&told.document).ok());
        let told = told.unwrap_or_default();
        if told["use"]["itemCode"] == *case.item && told["use"]["businessCode"] == *case.number {
            let licenses = told["licenses"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let parsed = licenses.filter_map(|text| text.parse::<CertificateIdentifier>().ok());
            used.extend(parsed.map(|identifier| identifier.type_code()));
        }
    }
    used
}

impl<'a> Request<'a> {
    fn typed(self) -> Result<Asked<'a>, Refusal> {
        let mut wrong = Gather::new();
        let context = wrong.take(context(self.context));
        let holder = wrong.take(self.holder.map(Holder::typed).transpose().under("holder"));
        let demanded = self.demanded;
        if demanded.len() > MAX_NAMED {
            let fault = Fault::at("/demanded", Rule::Count).bounds(0, MAX_NAMED).got(demanded.len());
            wrong.note(Refusal::of(Code::BadItems, fault));
        }
        for (place, code) in demanded.iter().enumerate().take(MAX_NAMED) {
            // They stand in the record of the use.
            let read = words(Code::BadItems, code.as_str().into(), MAX_CODE_CHARS).map(drop);
            wrong.take(read.under(place).under("demanded"));
            if demanded.iter().take(place).any(|before| before == code) {
                let fault = Fault::at(format!("/demanded/{place}"), Rule::Distinct);
                wrong.note(Refusal::of(Code::BadItems, fault));
            }
        }
        let typed = || Some(Asked { holder: holder?, demanded, context: context? });
        wrong.all(typed())
    }
}
