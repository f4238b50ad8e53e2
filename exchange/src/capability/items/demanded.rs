//! `POST /v1/items/demanded`: an approval system reports which materials were demanded on paper in a stage of a case, none of them included.
//! From these reports the rate of materials done without (免提交率) is counted.
//!
//! The path alone calls it. A report is one entry: a crash leaves it whole or not at all.

use std::time::Instant;

use ledger::Label;
use schemas::codes::{Code, Rule};
use schemas::dictionary::{Item, MAX_CODE_CHARS, MAX_NAMED, Mode as Way};
use schemas::holder::HolderRef;
use schemas::identifier::{LicenseTypeCode, Uscc};
use schemas::routes::Route;
use serde::{Deserialize, Serialize};

use super::{MAX_LICENSES, held, is_approved, item, mapping, material};
use crate::capability::Capability;
use crate::gateway::at_a_step;
use crate::gateway::case::{Case, Found, Place};
use crate::gateway::change::{Change, json as answer};
use crate::gateway::names::{HOLDER, Names};
use crate::gateway::permit::{Permit, Ruling};
use crate::participant::Participant;
use crate::sharing::dictionary::{Demand, Demands, Stage, demands_key};
use crate::wire::named::{ContextValue, Holder, STAGES, UseContext, context};
use crate::wire::read::{self, Body};
use crate::wire::refusal::{Fault, Gather, Placed as _, Refusal};
use crate::wire::text::words;

/// How long a report counts after its last stage, ms: 400 days, so that two years can be compared.
const KEPT_MS: u64 = 400 * 86_400_000;

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
            demanded.push((Demand { material: code.clone(), mode, needless, again }, type_code));
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
        Ok(Ruling::plain(Granted { place, before, item, demanded, licenses }, concerned).unnamed())
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked<'r>,
        permit: Permit<Granted>,
    ) -> Result<Vec<u8>, Refusal> {
        let (Granted { place, before, item, demanded, licenses }, right) = permit.into_parts();
        let begun = Instant::now();
        if let Some(holder) = &asked.holder {
            change.concern(holder)?;
        }
        let (tools, entry) = (change.tools(), change.entry());
        let now_ms = entry.now_ms;
        let types: Vec<LicenseTypeCode> = demanded.iter().filter_map(|(_, code)| *code).collect();
        let ledger = tools.ledger.clone();
        // That a license was at hand is counted, and told to nobody who asks for this person: nor does a license that cannot be read.
        let found = if licenses.is_empty() {
            Vec::new()
        } else {
            let read = tools
                .lanes
                .searches
                .run(*entry.organisation, move || held(&ledger, right, &licenses, &types, now_ms));
            read.await.ok().and_then(Result::ok).unwrap_or_default()
        };
        if asked.holder.is_some() {
            // Nor does the time of the answer tell it.
            at_a_step(begun).await;
        }
        let demanded = demanded.into_iter().map(|(demand, code)| {
            let in_force = found.iter().any(|held| Some(held.type_code) == code && held.in_force);
            Demand { needless: demand.needless || in_force, ..demand }
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
