//! How fresh and how good a hosted resource is. Ingests add counts up, and the scores follow from them.
//!
//! Ingests alone add, in the entry of their batch: a crash leaves both or neither. Lists and answers read the sums.

use ledger::{Key, KeyedHash, Label, Ledger};
use schemas::date::{Date, rfc3339};
use schemas::resource::{Resource, UpdateCycle};
use serde::Serialize;

use super::clock::day_of;
use super::resource::Listed;

/// Time of a batch is kept in minutes: two batches of one minute never wait for each other.
const MINUTE_MS: u64 = 60_000;
/// Sums that end by themselves count the quarter that goes on, and the one before it.
const QUARTERS: [i32; 2] = [0, 1];

/// A sum over batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sum {
    /// Rows that were taken.
    Accepted,
    /// Rows that break a rule of the definition.
    Rejected,
    /// Rows whose key stood in their batch already.
    Repeated,
    /// Rows taken, each by the share of its optional fields that it has.
    Filled,
    /// Batches that came within the update cycle of the one before.
    Punctual,
    /// Batches that came later.
    Late,
}

impl Sum {
    const fn name(self) -> &'static [u8] {
        match self {
            Self::Accepted => b"accepted",
            Self::Rejected => b"rejected",
            Self::Repeated => b"repeated",
            Self::Filled => b"filled",
            Self::Punctual => b"punctual",
            Self::Late => b"late",
        }
    }

    /// Key of the sum of a resource's.
    pub(crate) fn key(self, keyed: &KeyedHash, code: &str) -> Key {
        keyed.key("quality", &[code.as_bytes(), self.name()])
    }
}

/// The day that names the sums of a moment's quarter, or of one some quarters before: the first of the quarter after the next. The
/// sums end with it, so that they outlive the quarter by another one.
pub(crate) fn quarter(ms: u64, before: i32) -> u32 {
    let (year, month, _) = day_of(ms).civil();
    let quarter = year * 4 + (i32::from(month) - 1) / 3 + 2 - before;
    let (year, month) = (quarter.div_euclid(4), quarter.rem_euclid(4) * 3 + 1);
    let first = format!("{year:04}-{month:02}-01").parse::<Date>().ok();
    first.and_then(|day| u32::try_from(day.days()).ok()).unwrap_or(0).max(1)
}

/// The counter that holds when the last batch came, in minutes since 1970, of a resource with this label.
pub(crate) fn last_batch(label: &Label) -> Key {
    *label
}

/// A moment as [`last_batch`] holds it.
pub(crate) fn minutes(ms: u64) -> u32 {
    u32::try_from(ms / MINUTE_MS).unwrap_or(u32::MAX)
}

/// When a resource was brought up to date, and whether that is long ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Freshness {
    /// When the last batch came, to the minute, ms since 1970; `None` before the first.
    pub(crate) last_ms: Option<u64>,
    /// From when on its update cycle is broken.
    pub(crate) due_ms: Option<u64>,
    /// The update cycle is broken.
    pub(crate) stale: bool,
}

impl Freshness {
    fn of(cycle: UpdateCycle, last_ms: Option<u64>, now_ms: u64) -> Self {
        let within = cycle.within_ms();
        let due_ms = last_ms.zip(within).map(|(last, within)| last.saturating_add(MINUTE_MS + within));
        let stale = within.is_some() && due_ms.is_none_or(|due| now_ms > due);
        Self { last_ms, due_ms, stale }
    }

    /// From when on it is stale, as answers say it.
    pub(crate) fn stale_since(&self) -> Option<String> {
        self.due_ms.filter(|_| self.stale).map(rfc3339)
    }
}

/// The freshness of a hosted resource whose rows have this label.
pub(crate) fn freshness(ledger: &Ledger, resource: &Resource, label: &Label, now_ms: u64) -> Freshness {
    let minutes = ledger.state().counter(&last_batch(label), 0);
    let last_ms = (minutes != 0).then_some(u64::from(minutes) * MINUTE_MS);
    Freshness::of(resource.update_cycle, last_ms, now_ms)
}

/// Scores of a hosted resource, 0 to 100; `None` where there is nothing to judge by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Quality {
    /// Rows that can be found.
    rows: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_batch_at: Option<String>,
    stale: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stale_since: Option<String>,
    /// The mean of the scores that there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<u8>,
    /// Share of optional fields that rows have.
    #[serde(skip_serializing_if = "Option::is_none")]
    completeness: Option<u8>,
    /// Share of rows that keep the definition.
    #[serde(skip_serializing_if = "Option::is_none")]
    validity: Option<u8>,
    /// Share of rows whose key stood once in their batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    uniqueness: Option<u8>,
    /// Share of batches that came within the update cycle.
    #[serde(skip_serializing_if = "Option::is_none")]
    timeliness: Option<u8>,
}

/// The quality of a hosted resource; `None` where the exchange keeps no rows of it.
pub(crate) fn quality(ledger: &Ledger, listed: &Listed, now_ms: u64) -> Option<Quality> {
    let (label, resource) = (listed.rows_label()?, &listed.resource);
    if resource.supply != schemas::resource::Supply::Hosted {
        return None;
    }
    let fresh = freshness(ledger, resource, &label, now_ms);
    let sum = |sum: Sum| {
        let key = sum.key(ledger.keyed(), &resource.code);
        QUARTERS.iter().map(|before| u64::from(ledger.state().counter(&key, quarter(now_ms, *before)))).sum()
    };
    Some(judge(resource, fresh, ledger.rows().counts(&label).rows, sum))
}

fn judge(resource: &Resource, fresh: Freshness, rows: u64, sum: impl Fn(Sum) -> u64) -> Quality {
    let (accepted, rejected, repeated) = (sum(Sum::Accepted), sum(Sum::Rejected), sum(Sum::Repeated));
    let has_optional = resource.fields.iter().any(|field| !field.required);
    let completeness = share(sum(Sum::Filled), accepted).filter(|_| has_optional);
    let validity = share(accepted + repeated, accepted + repeated + rejected);
    let uniqueness = share(accepted, accepted + repeated);
    // A batch that is overdue now counts like one that came late.
    let (punctual, late) = (sum(Sum::Punctual), sum(Sum::Late) + u64::from(fresh.stale));
    let timeliness = share(punctual, punctual + late);
    let scores = [completeness, validity, uniqueness, timeliness];
    let known = || scores.iter().flatten().map(|score| u64::from(*score));
    let count = known().count() as u64;
    let score = known().sum::<u64>().checked_div(count).and_then(|mean| u8::try_from(mean).ok());
    Quality {
        rows,
        last_batch_at: fresh.last_ms.map(rfc3339),
        stale: fresh.stale,
        stale_since: fresh.stale_since(),
        score,
        completeness,
        validity,
        uniqueness,
        timeliness,
    }
}

/// A share in percent, rounded down: 100 means all.
fn share(part: u64, whole: u64) -> Option<u8> {
    part.min(whole).saturating_mul(100).checked_div(whole).and_then(|share| u8::try_from(share).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 86_400_000;

    fn at(text: &str) -> u64 {
        schemas::date::parse_rfc3339(text).expect("a moment")
    }

    #[test]
    fn sums_outlive_their_quarter_by_another_one() {
        let day =
            |text: &str| u32::try_from(text.parse::<Date>().expect("a day").days()).expect("after 1970");
        for (now, own, before) in [
            ("2026-01-01T00:00:00+08:00", "2026-07-01", "2026-04-01"),
            ("2026-09-30T23:59:59+08:00", "2027-01-01", "2026-10-01"),
            ("2026-12-31T23:59:59+08:00", "2027-04-01", "2027-01-01"),
        ] {
            assert_eq!((quarter(at(now), 0), quarter(at(now), 1)), (day(own), day(before)), "{now}");
            // A counter is kept for two days behind its own.
            assert!(i64::from(quarter(at(now), 1)) + 2 > i64::from(day_of(at(now)).days()));
        }
    }

    #[test]
    fn a_resource_is_stale_once_its_cycle_is_over_and_not_before() {
        let last = 20_000 * DAY_MS;
        let fresh = |cycle, last, now| Freshness::of(cycle, last, now);
        let due = last + DAY_MS + MINUTE_MS;
        assert!(!fresh(UpdateCycle::Daily, Some(last), due).stale);
        let over = fresh(UpdateCycle::Daily, Some(last), due + 1);
        assert!(over.stale && over.stale_since() == Some(rfc3339(due)));
        assert!(!fresh(UpdateCycle::Irregular, Some(last), u64::MAX).stale, "nothing is promised");
        let never = fresh(UpdateCycle::Yearly, None, last);
        assert!(never.stale && never.stale_since().is_none());
        assert!(!fresh(UpdateCycle::Irregular, None, last).stale);
    }

    #[test]
    fn scores_are_shares_and_their_mean_is_of_those_that_there_are() {
        let mut resource = Resource::samples().remove(0);
        resource.fields[3].required = false;
        let fresh = |stale| Freshness { last_ms: Some(0), due_ms: Some(0), stale };
        let sums = |sum: Sum| match sum {
            Sum::Accepted => 80,
            Sum::Rejected => 10,
            Sum::Repeated => 10,
            Sum::Filled => 40,
            Sum::Punctual => 3,
            Sum::Late => 1,
        };
        let found = judge(&resource, fresh(false), 7, sums);
        let scores = |found: &Quality| {
            [found.completeness, found.validity, found.uniqueness, found.timeliness, found.score]
        };
        assert_eq!(scores(&found), [Some(50), Some(90), Some(88), Some(75), Some(75)]);
        assert_eq!(judge(&resource, fresh(true), 7, sums).timeliness, Some(60));
        resource.fields.iter_mut().for_each(|field| field.required = true);
        assert_eq!(scores(&judge(&resource, fresh(false), 7, sums))[0], None, "nothing is optional");
        assert_eq!(scores(&judge(&resource, fresh(false), 0, |_| 0)), [None; 5]);
        // All but one of many is not all.
        let nearly = |sum| if sum == Sum::Rejected { 1 } else { 1_000 };
        assert_eq!(judge(&resource, fresh(false), 7, nearly).validity, Some(99));
    }
}
