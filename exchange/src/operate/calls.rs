//! Uses of shared records, counted from an exported log: how many were served, and why the others were not (调用成功率).
//!
//! `exchange indicators` alone calls it. It reads a file, so a crash leaves nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use anyhow::Context as _;
use schemas::codes::Code;
use schemas::routes::Route;
use serde::{Deserialize, Serialize};
use verifier::leaf::{Open, Stage};
use verifier::receipt;
use verifier::trace::{AuditEntry, AuditPage};

/// The routes that use shared records.
const ROUTES: [Route; 3] = [Route::RecordsQuery, Route::RecordsCall, Route::Bundle];
/// Codes that are the provider's side's: the caller had a right, and was not served.
const PROVIDERS_SIDE: [Code; 6] = [
    Code::ResourceRefused,
    Code::RecordUnavailable,
    Code::ProviderUnavailable,
    Code::ProviderWrong,
    Code::ProviderLate,
    Code::OutcomeUnknown,
];

/// One use.
pub(super) struct Call {
    /// The resource that it was for, where the entry says so.
    pub(super) resource: Option<String>,
    /// How it ended.
    pub(super) code: String,
}

/// Uses, counted.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Calls {
    /// All.
    calls: u64,
    /// Those that were served.
    served: u64,
    /// Share of `calls` that were served, in tenths of a percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    served_permille: Option<u64>,
    /// How the others ended: public code and count.
    causes: BTreeMap<String, u64>,
}

impl Calls {
    /// Counts one more.
    pub(super) fn add(&mut self, call: &Call) {
        self.calls += 1;
        if call.code == Code::Ok.name() {
            self.served += 1;
        } else {
            *self.causes.entry(call.code.clone()).or_default() += 1;
        }
        self.served_permille = (self.served * 1_000).checked_div(self.calls);
    }

    /// Share of the uses with a right that were served, in percent; `None` where there was none.
    pub(super) fn served_percent(&self) -> Option<u64> {
        let failed = PROVIDERS_SIDE.iter().filter_map(|code| self.causes.get(code.name())).sum::<u64>();
        (self.served * 100).checked_div(self.served + failed)
    }
}

/// The part of what a holder is told that names the resource.
#[derive(Deserialize)]
struct Named {
    resource: Option<String>,
}

fn resource(entry: &AuditEntry) -> Option<String> {
    let told = entry.told.iter().flatten().map(|told| told.document.as_str());
    let named = |text: &str| serde_json::from_str::<Named>(text).ok()?.resource;
    told.chain(entry.asked.as_deref()).find_map(named)
}

/// Reads the uses of an exported log, a page a line.
///
/// # Errors
/// It cannot be read, or a line of it is no page.
pub(super) fn each(log: &Path, mut on: impl FnMut(Call)) -> anyhow::Result<()> {
    let name = || log.display().to_string();
    let file = File::open(log).with_context(name)?;
    for (line, number) in BufReader::new(file).lines().zip(1_u64..) {
        let line = line.with_context(name)?;
        let place = || format!("{}, line {number}", log.display());
        // Each page came with its receipt.
        let (page, _) = receipt::cut(line.as_bytes()).with_context(place)?;
        let page: AuditPage = serde_json::from_slice(&page).with_context(place)?;
        for entry in &page.entries {
            if !ROUTES.iter().any(|route| route.name() == entry.entry.route) {
                continue;
            }
            // The end of an intent stands in its outcome.
            if Open::parse(&entry.entry.open.0).is_ok_and(|open| open.stage == Stage::Intent) {
                continue;
            }
            let resource = resource(entry);
            // Other lines of a bundle are about licenses.
            if resource.is_none() && entry.entry.route == Route::Bundle.name() {
                continue;
            }
            on(Call { resource, code: entry.entry.code.clone() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_the_caller_earned_is_counted_and_not_held_against_the_provider() {
        let mut calls = Calls::default();
        for code in [Code::Ok, Code::Ok, Code::ApprovalNeeded, Code::ResourceRefused] {
            calls.add(&Call { resource: None, code: code.name().to_owned() });
        }
        assert_eq!((calls.calls, calls.served, calls.served_permille), (4, 2, Some(500)));
        assert_eq!(calls.served_percent(), Some(66));
        assert_eq!(Calls::default().served_percent(), None);
    }
}
