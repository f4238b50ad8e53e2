//! Shared data in a quickstart's round: two resources are published, granted and queried, and the person sees it.
//!
//! The quickstart alone calls it. A run that was cut off is continued by the next one, step by step.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use client::{
    ApplicationAction, ApplicationSearch, ApplicationState, ApplicationTransition, Apply, Holder, Personal,
    RecordsIngest, RecordsQuery, ResourceAction, ResourceSearch, ResourceState, ResourceTransition,
    ResourceWrite, Scope, Trace, TracePage,
};
use schemas::resource::Resource;
use schemas::synthetic::Synthetic;
use serde_json::{Value, json};
use verifier::command::line;

use super::party::{Party, use_context};

/// Seed of the person and the company, so that every folder has the same ones.
const SEED: u64 = 20_220_915;
/// Pause between two looks into a trace, and most of them.
const PAUSE: Duration = Duration::from_millis(200);
const LOOKS: u32 = 100;
/// Last day of the approvals.
const UNTIL: &str = "2099-12-31";

/// A resource with the row that is asked for and the fields that are needed.
struct Shared {
    resource: Resource,
    row: BTreeMap<String, Personal>,
    holder: Holder,
    fields: [&'static str; 2],
}

/// Has a provider publish a resource of class 1 and one of class 2, an approval system get the first by rule and the second by
/// approval, and query both. Does nothing on a folder where that is done.
pub(super) async fn share(
    provider: &mut Party,
    approval: &mut Party,
    portal: &mut Party,
    organisation: &str,
) -> anyhow::Result<()> {
    let made = approval.ask(|client| client.applications(&ApplicationSearch::default())).await?.applications;
    let [open, closed] = shared(organisation)?;
    let found = |shared: &Shared| {
        let mut made = made.iter();
        made.find(|one| one.resource == shared.resource.code && one.state != ApplicationState::Stopped)
    };
    if found(&closed).is_some_and(|one| one.state == ApplicationState::InUse) {
        return Ok(());
    }
    for shared in [&open, &closed] {
        publish(provider, shared).await?;
    }
    line("  published  2 resources of a data provider, with their rows");
    for (shared, by_rule) in [(&open, true), (&closed, false)] {
        let (application, state) = match found(shared) {
            Some(one) => (one.application.clone(), one.state),
            None => {
                let applied = approval.ask(|client| client.apply(&shared.application())).await?;
                ensure!(applied.rule.is_some() == by_rule, "a rule grants what it should not, or does not");
                (applied.application, applied.state)
            }
        };
        if state == ApplicationState::Pending {
            let action = ApplicationAction::Approve;
            let agree = ApplicationTransition {
                application,
                action,
                terms: None,
                ground: None,
                basis: None,
                note: None,
            };
            provider.ask(|client| client.transition_application(&agree)).await?;
        }
    }
    line("  shared     the first by rule, the second by approval within its clock of working days");
    for shared in [&open, &closed] {
        let query = RecordsQuery {
            resource: shared.resource.code.clone(),
            holder: Some(shared.holder.clone()),
            key: None,
            fields: None,
            context: use_context(0),
        };
        let answer = approval.ask(|client| client.query_records(&query)).await?;
        ensure!(answer.found && answer.record.is_some(), "a row that was brought in is not found");
    }
    let trace = Trace {
        holder: closed.holder.clone(),
        agent: None,
        assertion: None,
        before: None,
        limit: None,
        context: use_context(0),
    };
    let mut looks = 0;
    while !shows(&portal.ask(|client| client.trace(&trace)).await?, &closed.resource.code) {
        looks += 1;
        ensure!(looks < LOOKS, "a query does not stand in the trace of its subject");
        // An entry is shown once the public checkpoint covers it.
        tokio::time::sleep(PAUSE).await;
    }
    line("  queried    both, and the person's trace shows it");
    Ok(())
}

/// Whether a page of a trace tells of a query of a resource.
fn shows(page: &TracePage, code: &str) -> bool {
    let mut told = page.entries.iter().filter_map(|entry| entry.told.as_ref());
    told.any(|told| {
        serde_json::from_str::<Value>(&told.document).is_ok_and(|document| document["resource"] == code)
    })
}

/// Publishes a resource, as far as that is not done, and brings its row in.
async fn publish(provider: &mut Party, shared: &Shared) -> anyhow::Result<()> {
    let code = shared.resource.code.clone();
    let search = ResourceSearch { code: Some(code.clone()), ..ResourceSearch::default() };
    let found = provider.ask(|client| client.resources(&search)).await?.resources;
    let state = match found.first() {
        Some(found) => found.state,
        None => {
            let write = ResourceWrite { resource: shared.resource.clone() };
            provider.ask(|client| client.write_resource(&write)).await?.state
        }
    };
    if state == ResourceState::Draft {
        let (resource, action, reason) = (code.clone(), ResourceAction::Publish, "演示".to_owned());
        let publish = ResourceTransition { resource, action, reason };
        provider.ask(|client| client.transition_resource(&publish)).await?;
    }
    let rows = vec![shared.row.clone()];
    let ingest =
        RecordsIngest { resource: code, first_line: Some(1), rows, removed: Vec::new(), erased: Vec::new() };
    let taken = provider.ask(|client| client.ingest_records(&ingest)).await?;
    ensure!(taken.accepted == 1, "a good row is not taken");
    Ok(())
}

/// The two resources: the samples of companies and persons.
fn shared(provider: &str) -> anyhow::Result<[Shared; 2]> {
    let mut synthetic = Synthetic::new(SEED);
    let [company, company_name] = [synthetic.uscc().as_str().to_owned(), synthetic.organisation_name()];
    let [person, person_name] = [synthetic.citizen_number(), synthetic.person_name()];
    let mut samples = Resource::samples().into_iter().map(|mut resource| {
        for unit in &mut resource.duties {
            provider.clone_into(&mut unit.organisation);
        }
        resource
    });
    let (persons, companies) = (samples.next(), samples.next());
    let row = |pairs: [(&str, &str); 4]| {
        pairs.into_iter().map(|(key, value)| (key.to_owned(), Personal::from(value))).collect()
    };
    let holder = |type_code: &str, number: &str| -> anyhow::Result<Holder> {
        Ok(serde_json::from_value(json!({"typeCode": type_code, "number": number}))?)
    };
    Ok([
        Shared {
            resource: companies.context("a sample")?,
            row: row([
                ("creditCode", &company),
                ("organisationName", &company_name),
                ("regionCode", "350102"),
                ("status", "在营"),
            ]),
            holder: holder("001", &company)?,
            fields: ["organisationName", "status"],
        },
        Shared {
            resource: persons.context("a sample")?,
            row: row([
                ("idNumber", &person),
                ("name", &person_name),
                ("regionCode", "440106"),
                ("status", "1"),
            ]),
            holder: holder("111", &person)?,
            fields: ["name", "status"],
        },
    ])
}

impl Shared {
    fn application(&self) -> Apply {
        let context = use_context(0);
        Apply {
            resource: self.resource.code.clone(),
            item_code: context.item_code,
            item_name: context.item_name,
            purpose: "演示: 核对登记信息".to_owned(),
            scope: Scope {
                fields: self.fields.map(str::to_owned).to_vec(),
                clear: Vec::new(),
                regions: Vec::new(),
                daily_limit: Some(1_000),
                feed: false,
                until: UNTIL.parse().unwrap_or(schemas::date::Date::MAX),
            },
        }
    }
}
