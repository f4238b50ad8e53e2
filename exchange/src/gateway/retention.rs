//! Uses past their period: the keys of a year of them are destroyed, and each holder is told so.
//!
//! The task that changes the epoch calls it, before each change. An entry destroys the keys of some hundred holders, or of none of them: a
//! crash leaves the entries that are durable, and the next call goes on.

use std::collections::BTreeMap;

use ledger::{Command, DocumentKind, Fact, KeyName, Ledger, Outcome, Refused, USES, cst_year};

use super::Gateway;
use super::case::Case;
use crate::capability::operators::Hold;
use crate::participant::Rules;

/// The shorter kind of year.
const DAYS_A_YEAR: u16 = 365;
/// Most holders of one entry.
const AT_ONCE: usize = 512;

/// Keys of uses whose period is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    /// Those that were destroyed.
    pub destroyed: usize,
    /// Those of holders under a legal hold.
    pub kept: usize,
}

/// A key to be destroyed, and the version of its holder's legal hold that says so.
type Due = (KeyName, u32);

impl Gateway {
    /// Destroys the keys of uses whose year ended more than so many years ago. State, bodies of licenses and rights lie under other keys.
    /// Nothing can be read any more in this process at once, and in every copy of the journal after the next change of epoch.
    pub async fn destroy_uses(&self, years: u16) -> Retained {
        self.destroy_uses_in(years, AT_ONCE, usize::MAX).await
    }

    /// The same in entries of so many keys, and no more than so many entries.
    pub async fn destroy_uses_in(&self, years: u16, at_once: usize, most: usize) -> Retained {
        let mut retained = Retained::default();
        let year = cst_year(self.now_ms());
        let rules = Case::open(&self.ledger, &self.known, self.now_ms()).rules();
        let years = period(years, &rules);
        let Some(last) = year.checked_sub(years.saturating_add(1)) else { return retained };
        if self.ledger.is_closed() {
            return retained;
        }
        let ledger = self.ledger.clone();
        let Ok((due, kept)) = tokio::task::spawn_blocking(move || due(&ledger, last)).await else {
            return retained;
        };
        retained.kept = kept;
        let mut left = most;
        for (year, keys) in due {
            for keys in keys.chunks(at_once).take(left) {
                left -= 1;
                match self.destroy(year, keys).await {
                    Ok(true) => retained.destroyed += keys.len(),
                    // One of them is held or erased by now: the next call looks again.
                    Ok(false) => retained.kept += keys.len(),
                    Err(error) => {
                        tracing::error!(%error, "the keys of uses past their period are not destroyed; it is tried again");
                        return retained;
                    }
                }
            }
        }
        if retained != Retained::default() {
            let Retained { destroyed, kept } = retained;
            tracing::info!(destroyed, kept, last, "uses past their period");
        }
        retained
    }

    /// One entry; whether nothing keeps them by now.
    async fn destroy(&self, year: u16, due: &[Due]) -> Result<bool, Refused> {
        let names: Vec<KeyName> = due.iter().map(|(name, _)| *name).collect();
        let hold = |(name, version): &Due| (Fact::Document(DocumentKind::Hold, name.label), *version);
        let reads = due.iter().map(hold).collect();
        let prepared = self.tools().destruction(&self.policy(), year, &names);
        let command =
            Command { permit_or_denial: prepared, reads, ends_at_ms: u64::MAX, inline_proof: false };
        Ok(matches!(self.ledger.commit(command).await?, Outcome::Committed(_)))
    }
}

/// The whole years for which uses are kept: one period for all, so that its end says nothing of a use that is delayed. None is
/// still secret by then.
pub(crate) fn period(uses_years: u16, rules: &Rules) -> u16 {
    uses_years.max(rules.delay_days_max.div_ceil(DAYS_A_YEAR))
}

/// The keys of uses up to a year that nothing keeps, by year, and how many are kept.
fn due(ledger: &Ledger, last: u16) -> (BTreeMap<u16, Vec<Due>>, usize) {
    let state = ledger.state();
    let (mut due, mut kept) = (BTreeMap::<u16, Vec<Due>>::new(), 0);
    for name in state.keys_until(USES, last) {
        let hold = state.document(DocumentKind::Hold, &name.label);
        // A hold that cannot be read holds.
        let is_over = |value: &[u8]| serde_json::from_slice::<Hold>(value).is_ok_and(|hold| !hold.held);
        let held = hold.as_ref().is_some_and(|hold| !is_over(&hold.value));
        if held {
            kept += 1;
        } else {
            due.entry(name.year).or_default().push((name, hold.map_or(0, |hold| hold.version)));
        }
    }
    (due, kept)
}
