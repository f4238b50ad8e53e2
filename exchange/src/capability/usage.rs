//! `POST /v1/usage`: a participant's own counters, and a page of its own entries, without what they are about.
//!
//! The path alone calls it. It only reads: a crash leaves its own entry, or nothing.

use ledger::Ledger;
use schemas::codes::{Code, Decision};
use schemas::date::{Date, rfc3339};
use schemas::identifier::{LicenseTypeCode, Uscc};
use schemas::kinds::Facility;
use schemas::routes::Route;
use serde::{Deserialize, Serialize};
use verifier::leaf::{LeafKind, Open};

use crate::admission::Limit;
use crate::capability::Capability;
use crate::capability::entries::fault;
use crate::gateway::case::Case;
use crate::gateway::change::{Change, json as answer};
use crate::gateway::names::Names;
use crate::gateway::permit::{Permit, Ruling};
use crate::keyed;
use crate::participant::Participant;
use crate::wire::read::{Body, json};
use crate::wire::refusal::{Gather, Placed as _, Refusal};
use crate::wire::text::{moment, page};

/// Most entries that one page looks at.
const MAX_SCANNED: u64 = 10_000;

/// The capability.
pub(crate) struct Usage;

/// A question for the caller's own uses.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Earliest moment, ms since 1970; `None` = today (China Standard Time).
    from_ms: Option<u64>,
    /// Entries from this index on.
    from_index: u64,
    /// Most entries of the page.
    limit: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request {
    from: Option<String>,
    from_index: Option<u64>,
    limit: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    day: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    quota: Option<Counted>,
    limits: Vec<Line>,
    uses: Vec<Entry>,
    next: Option<u64>,
    as_of: String,
}

/// A counter and its limit.
#[derive(Serialize)]
struct Counted {
    limit: u32,
    used: u32,
    left: u32,
}

impl Counted {
    fn of(limit: u32, used: u32) -> Self {
        Self { limit, used, left: limit.saturating_sub(used) }
    }
}

/// A line of the caller's limits, with what it counts.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    interface: Facility,
    #[serde(skip_serializing_if = "Option::is_none")]
    type_code: Option<LicenseTypeCode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    daily: Option<Counted>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<Period>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sources: Vec<String>,
}

/// The counter of a period.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Period {
    #[serde(flatten)]
    counted: Counted,
    seconds: u32,
    ends: String,
}

/// An entry of the caller's. Its receipt and the log say the rest.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    index: u64,
    time: String,
    route: String,
    decision: String,
    code: String,
}

impl Capability<'_> for Usage {
    const ROUTE: Route = Route::Usage;
    type Asked = Asked;
    /// Today.
    type Granted = u32;

    fn read(body: Body<'_>) -> Result<Asked, Refusal> {
        let Request { from, from_index, limit } = json(body.bytes)?;
        let mut wrong = Gather::new();
        let from = from.map(|text| moment(Code::MalformedRequest, &text)).transpose().under("from");
        let from_ms = wrong.take(from);
        let limit = wrong.take(page(limit));
        let typed = || Some(Asked { from_ms: from_ms?, from_index: from_index.unwrap_or(0), limit: limit? });
        wrong.all(typed())
    }

    fn names<'a>(_asked: &'a Asked, _caller: &Uscc) -> Names<'a> {
        Names::default()
    }

    fn decide(case: &mut Case<'_>, _caller: &Participant, _asked: &Asked) -> Result<Ruling<u32>, Refusal> {
        Ok(Ruling::plain(case.today(), Vec::new()))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked,
        permit: Permit<u32>,
    ) -> Result<Vec<u8>, Refusal> {
        let today = permit.into_granted();
        let (caller, now_ms) = (change.caller(), change.entry().now_ms);
        let ledger = change.tools().ledger.clone();
        let counter = |key, day| ledger.state().counter(&key, day);
        let used = |limit: &Limit| {
            counter(keyed::limit_key(ledger.keyed(), &caller.organisation, limit, None), today)
        };
        let rated = |limit: &Limit| {
            let rate = limit.rate?;
            let (number, ends_ms) = rate.period(now_ms);
            let key = keyed::limit_key(ledger.keyed(), &caller.organisation, limit, Some(number));
            let used = counter(key, day_of(ends_ms));
            Some(Period {
                counted: Counted::of(rate.uses, used),
                seconds: rate.seconds,
                ends: rfc3339(ends_ms),
            })
        };
        let line = |limit: &Limit| Line {
            interface: limit.facility,
            type_code: limit.type_code,
            daily: limit.daily.map(|most| Counted::of(most, used(limit))),
            rate: rated(limit),
            fields: limit.fields.clone(),
            sources: limit.sources.iter().map(ToString::to_string).collect(),
        };
        let limits = caller.limits.iter().map(line).collect();
        let quota_key = keyed::quota_key(ledger.keyed(), &caller.organisation);
        let quota = caller.daily_quota.map(|most| Counted::of(most, counter(quota_key, today)));
        let day = i32::try_from(today).ok().and_then(Date::from_days);
        let day = day.ok_or_else(|| Refusal::new(Code::Internal))?;
        let begins = u64::try_from(day.first_second()).unwrap_or(0).saturating_mul(1_000);
        let (from_ms, from_index, limit) = (asked.from_ms.unwrap_or(begins), asked.from_index, asked.limit);
        let (organisation, size) = (caller.organisation, change.tools().cosigning.served().size);
        let reading = ledger.clone();
        let read =
            change.tools().lanes.pages.run(organisation, move || {
                entries(&reading, &organisation, from_ms, from_index, limit, size)
            });
        let (uses, next) = read.await.map_err(Refusal::new)??;
        let as_of = change.as_of();
        Ok(answer(&Answer { day: day.to_string(), quota, limits, uses, next, as_of }))
    }
}

/// The day of a moment, as counters have it.
fn day_of(ms: u64) -> u32 {
    u32::try_from(Date::at(i64::try_from(ms / 1_000).unwrap_or(i64::MAX)).days()).unwrap_or(0).max(1)
}

/// Entries of an organisation as the published log has them, oldest first, and the index that the next page goes on from.
fn entries(
    ledger: &Ledger,
    organisation: &Uscc,
    from_ms: u64,
    from_index: u64,
    limit: usize,
    size: u64,
) -> Result<(Vec<Entry>, Option<u64>), Refusal> {
    let first = ledger.first_at(from_ms).map_err(|error| fault(&error))?;
    let first = first.clamp(from_index.min(size), size);
    let until = first.saturating_add(MAX_SCANNED).min(size);
    let (mut found, mut next) = (Vec::new(), until);
    let read = ledger.visit_entries(first, until, |entry| {
        let Ok(open) = Open::parse(&entry.committed.open) else { return true };
        if entry.kind != LeafKind::Entry || open.organisation != *organisation.as_bytes() {
            return true;
        }
        let named =
            |name: Option<&'static str>, number: u16| name.map_or_else(|| number.to_string(), str::to_owned);
        found.push(Entry {
            index: open.index,
            time: rfc3339(open.time_ms),
            route: named(Route::from_number(open.route).map(Route::name), open.route.into()),
            decision: named(Decision::from_number(open.decision).map(Decision::name), open.decision.into()),
            code: named(Code::from_number(open.code).map(Code::name), open.code),
        });
        if found.len() == limit {
            next = open.index + 1;
            return false;
        }
        true
    });
    read.map_err(|error| fault(&error))?;
    Ok((found, (next < size).then_some(next)))
}
