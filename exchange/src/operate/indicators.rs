//! `exchange indicators`: how well departments share, by the figures that the plans ask for, from applications, catalogue and log; and
//! how much paper is done without, from the reports of approval systems.
//!
//! An operator or auditor runs it. It reads, so a crash leaves nothing. `tests/indicators.py` counts the same from the same lists with
//! code of its own.

use std::collections::BTreeMap;
use std::path::Path;

use client::{
    ApplicationSearch, ApplicationState, Client, FoundApplication, FoundResource, ResourceSearch,
    ResourceState,
};
use schemas::identifier::Uscc;
use serde::Serialize;
use verifier::command::{self, EXIT_DONE};

use super::calls::Calls;
use super::demands::{self, Demanded};
use super::{Caller, runtime};
use crate::calling;
use crate::sharing::clock::CONNECTED_WITHIN_DAYS;

/// Applications of one page.
pub(super) const PAGE: u64 = 100;

/// Counts of applications, of a provider or of all.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    /// Made.
    applications: u64,
    /// Granted by rule, at once.
    granted_by_rule: u64,
    /// Supplied or refused, or open for longer than that: these count for the rate.
    counted: u64,
    /// Supplied or refused within three working days.
    within_three_days: u64,
    /// Open past their clock.
    overdue: u64,
    /// The time is unknown, because the calendar of a year is missing.
    undeterminable: u64,
    /// Share of `counted` that is within three working days (3日对接率), in tenths of a percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    connected_permille: Option<u64>,
    /// Share of all that a rule granted (秒享率), in tenths of a percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    instant_permille: Option<u64>,
}

impl Counts {
    fn add(&mut self, one: &FoundApplication) {
        self.applications += 1;
        self.granted_by_rule += u64::from(one.rule.is_some());
        self.overdue += u64::from(one.overdue);
        let is_settled = one.provided_at.is_some() || one.state == ApplicationState::Refused;
        match if is_settled { one.settled_in_days } else { one.age_in_days } {
            None => self.undeterminable += 1,
            Some(days) if is_settled => {
                self.counted += 1;
                self.within_three_days += u64::from(days <= CONNECTED_WITHIN_DAYS);
            }
            // Withdrawn before anybody was late is nobody's failure.
            Some(days) if days > CONNECTED_WITHIN_DAYS && one.state != ApplicationState::Stopped => {
                self.counted += 1
            }
            Some(_) => {}
        }
    }

    fn rated(mut self) -> Self {
        let share = |part: u64, of: u64| (part * 1_000).checked_div(of);
        self.connected_permille = share(self.within_three_days, self.counted);
        self.instant_permille = share(self.granted_by_rule, self.applications);
        self
    }
}

/// The supply of a department.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Supplied {
    /// Its resources that are published or suspended.
    resources: u64,
    /// Those of them that are published.
    published: u64,
    /// Mean of the quality scores of its hosted resources, 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    quality: Option<u64>,
    #[serde(skip)]
    scores: Vec<u64>,
}

impl Supplied {
    fn add(&mut self, one: &FoundResource) {
        let is_published = matches!(one.state, ResourceState::Published | ResourceState::Changed);
        self.resources += u64::from(is_published || one.state == ResourceState::Suspended);
        self.published += u64::from(is_published);
        self.scores.extend(one.quality.as_ref().and_then(|quality| quality.score).map(u64::from));
    }
}

/// A department, or all.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Department {
    #[serde(flatten)]
    counts: Counts,
    #[serde(flatten)]
    supplied: Supplied,
    /// Uses of its resources, where a log is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    calls: Option<Calls>,
    /// Mean of the parts that are known, 0 to 100: supply (published of its resources), answer time (within three working days),
    /// quality, and use (calls that were served of those that its side could serve).
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<u64>,
}

impl Department {
    fn rated(mut self) -> Self {
        self.counts = self.counts.rated();
        let scores = &self.supplied.scores;
        self.supplied.quality = scores.iter().sum::<u64>().checked_div(scores.len() as u64);
        let supply = (self.supplied.published * 100).checked_div(self.supplied.resources);
        let answered = self.counts.connected_permille.map(|permille| permille / 10);
        let used = self.calls.as_ref().and_then(Calls::served_percent);
        let parts: Vec<u64> = [supply, answered, self.supplied.quality, used].into_iter().flatten().collect();
        self.score = parts.iter().sum::<u64>().checked_div(parts.len() as u64);
        self
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    all: Department,
    providers: BTreeMap<Uscc, Department>,
    items: BTreeMap<String, Demanded>,
}

async fn applications(client: &Client) -> anyhow::Result<Vec<FoundApplication>> {
    let mut request = ApplicationSearch { limit: Some(PAGE), ..ApplicationSearch::default() };
    let mut found = Vec::new();
    loop {
        let page = client.applications(&request).await.map_err(calling::ended)?.value;
        found.extend(page.applications);
        let Some(next) = page.next else { return Ok(found) };
        request.after = Some(next);
    }
}

async fn resources(client: &Client) -> anyhow::Result<Vec<FoundResource>> {
    let mut request = ResourceSearch { limit: Some(PAGE), ..ResourceSearch::default() };
    let mut found = Vec::new();
    loop {
        let page = client.resources(&request).await.map_err(calling::ended)?.value;
        found.extend(page.resources);
        let Some(next) = page.next else { return Ok(found) };
        request.after = Some(next);
    }
}

/// Prints the indicators as JSON; `log` is what `exchange log export` wrote.
///
/// # Errors
/// The exchange cannot be reached, or refuses; the log cannot be read.
pub fn print(log: Option<&Path>, caller: &Caller) -> anyhow::Result<u8> {
    let (applications, resources, cases) = runtime()?.block_on(async {
        let client = caller.connect("auditor").await?;
        anyhow::Ok((
            applications(&client).await?,
            resources(&client).await?,
            demands::reported(&client).await?,
        ))
    })?;
    let (mut sum, mut providers) = (Department::default(), BTreeMap::<Uscc, Department>::new());
    for one in &applications {
        sum.counts.add(one);
        providers.entry(one.provider).or_default().counts.add(one);
    }
    for one in &resources {
        sum.supplied.add(one);
        providers.entry(one.provider).or_default().supplied.add(one);
    }
    if let Some(log) = log {
        let by_code: BTreeMap<&str, Uscc> =
            resources.iter().map(|one| (one.resource.code.as_str(), one.provider)).collect();
        sum.calls = Some(Calls::default());
        for department in providers.values_mut() {
            department.calls = Some(Calls::default());
        }
        super::calls::each(log, |call| {
            let provider = call.resource.as_deref().and_then(|code| by_code.get(code));
            let department = provider.and_then(|provider| providers.get_mut(provider));
            for department in department.into_iter().chain([&mut sum]) {
                department.calls.get_or_insert_default().add(&call);
            }
        })?;
    }
    let providers = providers.into_iter().map(|(provider, one)| (provider, one.rated())).collect();
    let mut items = BTreeMap::<String, Demanded>::new();
    for case in &cases {
        items.entry(case.item.clone()).or_default().add(case);
    }
    let items = items.into_iter().map(|(item, demanded)| (item, demanded.rated())).collect();
    command::line(serde_json::to_string_pretty(&Report { all: sum.rated(), providers, items })?);
    Ok(EXIT_DONE)
}
