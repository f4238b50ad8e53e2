//! `exchange indicators`: how well departments share, by the figures that the plans ask for, from the applications in the log; and how
//! much paper is done without, from the reports of approval systems.
//!
//! An operator or auditor runs it. It reads, so a crash leaves nothing. `tests/indicators.py` counts the same from the same list with
//! code of its own.

use std::collections::{BTreeMap, BTreeSet};

use client::{
    ApplicationSearch, ApplicationState, Client, FoundApplication, FoundDemands, ItemsSearch, Listing,
};
use schemas::identifier::Uscc;
use serde::Serialize;
use verifier::command::{self, EXIT_DONE};

use super::{Caller, runtime};
use crate::calling;

/// Working days within which the plans want shared data connected.
const WITHIN_DAYS: u32 = 3;
/// Applications of one page.
const PAGE: u64 = 100;

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
                self.within_three_days += u64::from(days <= WITHIN_DAYS);
            }
            // Withdrawn before anybody was late is nobody's failure.
            Some(days) if days > WITHIN_DAYS && one.state != ApplicationState::Stopped => self.counted += 1,
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

/// The demands of an item's cases, as approval systems report them.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Demanded {
    /// Cases.
    cases: u64,
    /// Materials that they would have taken.
    materials: u64,
    /// Those of them that were demanded.
    demanded: u64,
    /// Those of them that the exchange had at hand.
    needless: u64,
    /// Those that an earlier stage of the case had done without.
    again: u64,
    /// Share of the materials that was not demanded (免提交率), in tenths of a percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    spared_permille: Option<u64>,
    /// The needless demands by material.
    needless_materials: BTreeMap<String, u64>,
}

impl Demanded {
    fn add(&mut self, case: &FoundDemands) {
        self.cases += 1;
        self.materials += case.materials;
        let demands = case.stages.iter().flat_map(|stage| &stage.demanded);
        let of = |wanted: fn(&client::Demand) -> bool| -> BTreeSet<&str> {
            demands.clone().filter(|demand| wanted(demand)).map(|demand| demand.material.as_str()).collect()
        };
        let count = |materials: &BTreeSet<&str>| u64::try_from(materials.len()).unwrap_or(u64::MAX);
        let needless = of(|demand| demand.needless);
        // A material that several stages demand is demanded once.
        self.demanded += count(&of(|_| true));
        self.again += count(&of(|demand| demand.again));
        self.needless += count(&needless);
        for material in needless {
            *self.needless_materials.entry(material.to_owned()).or_default() += 1;
        }
    }

    fn rated(mut self) -> Self {
        let spared = self.materials.saturating_sub(self.demanded);
        self.spared_permille = (spared * 1_000).checked_div(self.materials);
        self
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    all: Counts,
    providers: BTreeMap<Uscc, Counts>,
    items: BTreeMap<String, Demanded>,
}

async fn demands(client: &Client) -> anyhow::Result<Vec<FoundDemands>> {
    let mut request = ItemsSearch {
        list: Listing::Demands,
        code: None,
        words: None,
        item: None,
        review: false,
        orphans: false,
        after: None,
        limit: Some(PAGE),
    };
    let mut found = Vec::new();
    loop {
        let page = client.items(&request).await.map_err(calling::ended)?.value;
        found.extend(page.demands);
        let Some(next) = page.next else { return Ok(found) };
        request.after = Some(next);
    }
}

async fn all(client: &Client) -> anyhow::Result<Vec<FoundApplication>> {
    let mut request = ApplicationSearch { limit: Some(PAGE), ..ApplicationSearch::default() };
    let mut found = Vec::new();
    loop {
        let page = client.applications(&request).await.map_err(calling::ended)?.value;
        found.extend(page.applications);
        let Some(next) = page.next else { return Ok(found) };
        request.after = Some(next);
    }
}

/// Prints the indicators as JSON.
///
/// # Errors
/// The exchange cannot be reached, or refuses.
pub fn print(caller: &Caller) -> anyhow::Result<u8> {
    let (applications, cases) = runtime()?.block_on(async {
        let client = caller.connect("auditor").await?;
        anyhow::Ok((all(&client).await?, demands(&client).await?))
    })?;
    let (mut sum, mut providers) = (Counts::default(), BTreeMap::<Uscc, Counts>::new());
    for one in &applications {
        sum.add(one);
        providers.entry(one.provider).or_default().add(one);
    }
    let providers = providers.into_iter().map(|(provider, counts)| (provider, counts.rated())).collect();
    let mut items = BTreeMap::<String, Demanded>::new();
    for case in &cases {
        items.entry(case.item.clone()).or_default().add(case);
    }
    let items = items.into_iter().map(|(item, demanded)| (item, demanded.rated())).collect();
    command::line(serde_json::to_string_pretty(&Report { all: sum.rated(), providers, items })?);
    Ok(EXIT_DONE)
}
