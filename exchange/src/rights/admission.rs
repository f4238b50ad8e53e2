//! Whether a participant's limits admit a use, and the counters that it raises. Without limits there is nothing to look at.
//!
//! The path alone asks, before the right of the use is looked for. It changes nothing, so a crash leaves nothing.

use std::net::IpAddr;

use ledger::record::CounterUse;
use schemas::codes::{Code, Rule};
use schemas::date::Date;
use schemas::kinds::Facility;
use schemas::routes::Route;

use crate::admission::Limit;
use crate::gateway::allowance::Allowance;
use crate::gateway::case::Case;
use crate::gateway::names::Names;
use crate::gateway::permit::unspent;
use crate::keyed;
use crate::participant::Participant;
use crate::rights::mode::Mode;
use crate::wire::refusal::{Fault, Refusal};

/// The routes that limits are of, with their class.
const FACILITIES: [(Route, Facility); 9] = [
    (Route::Verify, Facility::Verify),
    (Route::VerifyBatch, Facility::Verify),
    (Route::Retrieve, Facility::Retrieve),
    (Route::Search, Facility::Search),
    (Route::ItemsMaterials, Facility::Search),
    (Route::CodeScan, Facility::Scan),
    (Route::RecordsQuery, Facility::Records),
    (Route::RecordsCall, Facility::Records),
    (Route::RecordsFeed, Facility::Records),
];

/// The class of routes that a request comes under; `None` for one that no limit is of. A line of a bundle is what it asks.
fn facility(route: Route, names: &Names<'_>) -> Option<Facility> {
    // A question comes under the line of the use that it is about.
    if matches!(route, Route::Bundle | Route::Evaluation) {
        return Some(if names.resource.is_some() {
            Facility::Records
        } else if names.mode.is_some() {
            Facility::Retrieve
        } else {
            Facility::Verify
        });
    }
    FACILITIES.iter().find(|(of, _)| *of == route).map(|(_, facility)| *facility)
}

/// The line that a use comes under: that of its type, else the one for all types.
fn line<'p>(
    case: &mut Case<'_>,
    caller: &'p Participant,
    route: Route,
    names: &Names<'_>,
) -> Result<Option<&'p Limit>, Refusal> {
    if caller.limits.is_empty() {
        return Ok(None);
    }
    let Some(facility) = facility(route, names) else { return Ok(None) };
    let of_facility = || caller.limits.iter().filter(|limit| limit.facility == facility);
    let type_code = names.type_used(case);
    let of_type = of_facility().find(|limit| type_code.is_some() && limit.type_code == type_code);
    let found = of_type.or_else(|| of_facility().find(|limit| limit.type_code.is_none()));
    // None a day is none at all, and no use that is spent.
    found.filter(|limit| limit.daily != Some(0)).map(Some).ok_or_else(|| {
        let lines = caller.limits.iter().filter(|limit| limit.facility == facility);
        let types: Vec<String> =
            lines.filter_map(|limit| Some(limit.type_code.as_ref()?.as_str().to_owned())).collect();
        if route == Route::Search && type_code.is_none() && !types.is_empty() {
            return Refusal::of(Code::UseNotAgreed, Fault::at("/typeCode", Rule::Required).one_of(types));
        }
        Refusal::new(Code::UseNotAgreed)
    })
}

/// Whether the caller's limits admit a use of its class at all, from the address that it comes from. It looks nothing up, so it is
/// asked where the type is found by the decision alone.
///
/// # Errors
/// [`Code::UseNotAgreed`] or [`Code::SourceNotAgreed`]
pub(crate) fn admit_class(
    caller: &Participant,
    route: Route,
    names: &Names<'_>,
    address: IpAddr,
) -> Result<(), Refusal> {
    let Some(facility) = facility(route, names).filter(|_| !caller.limits.is_empty()) else { return Ok(()) };
    let mut lines = caller.limits.iter().filter(|limit| limit.facility == facility);
    if lines.clone().all(|limit| limit.daily == Some(0)) {
        return Err(Refusal::new(Code::UseNotAgreed));
    }
    let from_here = |limit: &Limit| {
        limit.sources.is_empty() || limit.sources.iter().any(|network| network.contains(address))
    };
    if lines.any(from_here) { Ok(()) } else { Err(Refusal::new(Code::SourceNotAgreed)) }
}

/// Whether the caller's limits admit a use by its class, its type, the address that it comes from and its fields.
///
/// # Errors
/// The first limit that does not.
pub(crate) fn admit(
    case: &mut Case<'_>,
    caller: &Participant,
    route: Route,
    names: &Names<'_>,
    address: IpAddr,
) -> Result<(), Refusal> {
    let Some(limit) = line(case, caller, route, names)? else { return Ok(()) };
    if !limit.sources.is_empty() && !limit.sources.iter().any(|network| network.contains(address)) {
        return Err(Refusal::new(Code::SourceNotAgreed));
    }
    let Some(allowed) = &limit.fields else { return Ok(()) };
    // Where a line of a bundle names them.
    let under = match (route, limit.facility) {
        (Route::Bundle, Facility::Records) => "/query",
        (Route::Bundle, Facility::Retrieve) => "/retrieve",
        (Route::Bundle, _) => "/verify",
        _ => "",
    };
    let bad = |fault| Err(Refusal::of(Code::FieldsNotAgreed, fault));
    let whole = [Mode::Face, Mode::Envelope, Mode::Copy];
    if limit.facility == Facility::Retrieve && whole.iter().any(|mode| names.mode == Some(mode.name())) {
        return bad(Fault::at(format!("{under}/mode"), Rule::OneOf).one_of([Mode::Fields.name()]));
    }
    // A feed gives whole rows.
    if route == Route::RecordsFeed {
        return bad(Fault::at("/resource", Rule::NotAllowed).form("a query that names fields"));
    }
    // Without fields a row has all that are approved.
    if limit.facility == Facility::Records && names.fields.is_empty() {
        let fault = Fault::at(format!("{under}/fields"), Rule::Required);
        return bad(fault.one_of(allowed.iter().cloned()));
    }
    let other =
        names.fields.iter().zip(0..).filter(|(name, _)| !allowed.iter().any(|field| *field == **name));
    let faults: Vec<Fault> = other
        .map(|(_, place)| {
            let fault = match limit.facility {
                // The names are the caller's own.
                Facility::Verify => Fault::at(format!("{under}/expect"), Rule::OneOf).position(place + 1),
                Facility::Retrieve | Facility::Search | Facility::Scan | Facility::Records => {
                    Fault::at(format!("{under}/fields/{place}"), Rule::OneOf)
                }
            };
            fault.one_of(allowed.iter().cloned())
        })
        .collect();
    let other_keys = names.keys.iter().filter(|name| !allowed.iter().any(|field| *field == **name));
    let other_keys = other_keys
        .map(|name| Fault::at(format!("{under}/key/{name}"), Rule::OneOf).one_of(allowed.iter().cloned()));
    let faults: Vec<Fault> = faults.into_iter().chain(other_keys).collect();
    if faults.is_empty() { Ok(()) } else { Err(Refusal::all(Code::FieldsNotAgreed, faults)) }
}

/// The counters of the caller's limits that a use raises. The sequencer looks again when it commits.
///
/// # Errors
/// [`Code::QuotaSpent`] or [`Code::RateExceeded`]
pub(crate) fn counters(
    case: &mut Case<'_>,
    caller: &Participant,
    route: Route,
    names: &Names<'_>,
) -> Result<Vec<CounterUse>, Refusal> {
    let Some(limit) = line(case, caller, route, names)? else { return Ok(Vec::new()) };
    let mut counters = Vec::with_capacity(2);
    if let Some(most) = limit.daily {
        let (key, day) = (keyed::limit_key(case.keyed(), &caller.organisation, limit, None), case.today());
        case.note(Allowance::of_day("day", most, key, day));
        let counter = CounterUse { key, day, amount: 1, limit: most };
        counters.push(unspent(case.counter(&key, day), counter, || Refusal::new(Code::QuotaSpent))?);
    }
    if let Some(rate) = limit.rate {
        let (number, ends_ms) = rate.period(case.now_ms());
        case.ends_at(ends_ms);
        let key = keyed::limit_key(case.keyed(), &caller.organisation, limit, Some(number));
        // The counter is gone with the day after this: the day on which its period ends.
        let last = Date::at(i64::try_from(ends_ms / 1_000).unwrap_or(i64::MAX)).days();
        let day = u32::try_from(last).unwrap_or(0).max(1);
        case.note(Allowance::of_period("rate", rate.uses, rate.seconds, ends_ms, key, day));
        let counter = CounterUse { key, day, amount: 1, limit: rate.uses };
        counters.push(unspent(case.counter(&key, day), counter, || Refusal::new(Code::RateExceeded))?);
    }
    // A question uses nothing; whether a use would have room was looked at.
    Ok(if route == Route::Evaluation { Vec::new() } else { counters })
}
