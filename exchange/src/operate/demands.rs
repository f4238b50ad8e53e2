//! How much paper is done without (免提交率), from the reports of approval systems.
//!
//! `exchange indicators` alone calls it. It reads, so a crash leaves nothing.

use std::collections::{BTreeMap, BTreeSet};

use client::{Client, FoundDemands, ItemsSearch, Listing};
use serde::Serialize;

use super::indicators::PAGE;
use crate::calling;

/// Paper that the cases of an item demanded, as approval systems report it.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Demanded {
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
    /// Counts a case.
    pub(super) fn add(&mut self, case: &FoundDemands) {
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

    /// With its share.
    pub(super) fn rated(mut self) -> Self {
        let spared = self.materials.saturating_sub(self.demanded);
        self.spared_permille = (spared * 1_000).checked_div(self.materials);
        self
    }
}

/// The cases that approval systems have reported.
///
/// # Errors
/// The exchange cannot be reached, or refuses.
pub(super) async fn reported(client: &Client) -> anyhow::Result<Vec<FoundDemands>> {
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
