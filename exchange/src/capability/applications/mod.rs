//! Applications to use a shared resource (供需对接): made by who needs it, granted by rule or answered by its provider against a clock in
//! working days.
//!
//! Its routes alone write applications, beside the first query and the clocks that are counted anew. It is state of the journal.

use schemas::codes::{Code, Rule};
use schemas::date::Date;
use schemas::resource::{Condition, MAX_FIELDS, Resource, Supply, is_region};
use schemas::sharing::{ApplicationState, ClockStep, Running, Scope};
use serde::{Deserialize, Serialize};

use crate::gateway::case::Case;
use crate::participant::Participant;
use crate::sharing::application::Application;
use crate::sharing::clock;
use crate::wire::refusal::{Fault, Gather, Placed as _, Refusal};
use crate::wire::text::day;

pub(crate) mod list;
pub(crate) mod make;
pub(crate) mod transition;

/// Level of a resource from which no rule grants and an operator countersigns.
pub(crate) const COUNTERSIGNED_LEVEL: u8 = 4;
/// Most regions of one application.
const MAX_REGIONS: usize = 64;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    application: String,
    state: &'static str,
    /// The rule by which it was granted at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    terms: Option<&'a Scope>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clock: Option<&'a Running>,
}

impl<'a> Answer<'a> {
    fn new(key: ledger::Key, application: &'a Application) -> Self {
        Self {
            application: hex::encode(key),
            state: application.state.name(),
            rule: application.rule.map(|rule| rule.name()),
            terms: application.terms.as_ref(),
            clock: application.clock.as_ref(),
        }
    }
}

/// A scope as it is sent, asked or allowed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ScopeValue {
    fields: Vec<String>,
    #[serde(default)]
    clear: Vec<String>,
    #[serde(default)]
    regions: Vec<String>,
    daily_limit: Option<u32>,
    #[serde(default)]
    feed: bool,
    until: String,
}

impl ScopeValue {
    fn typed(self) -> Result<Scope, Refusal> {
        let bad = |fault| Refusal::of(Code::BadApplication, fault);
        let mut wrong = Gather::new();
        for (pointer, least, list) in [("/fields", 1, &self.fields), ("/clear", 0, &self.clear)] {
            if !(least..=MAX_FIELDS).contains(&list.len()) {
                wrong.note(bad(Fault::at(pointer, Rule::Count).bounds(least, MAX_FIELDS).got(list.len())));
            }
        }
        // Lists that are too long are looked at no further.
        for (key, place) in self.clear.iter().take(MAX_FIELDS).zip(0..) {
            if !self.fields.iter().take(MAX_FIELDS).any(|field| field == key) {
                wrong.note(bad(Fault::at(format!("/clear/{place}"), Rule::Unknown).form("one of fields")));
            }
        }
        if self.regions.len() > MAX_REGIONS {
            let fault = Fault::at("/regions", Rule::Count).bounds(0, MAX_REGIONS).got(self.regions.len());
            wrong.note(bad(fault));
        }
        for (region, place) in self.regions.iter().take(MAX_REGIONS).zip(0..) {
            if !is_region(region) {
                let form = "2, 4, 6, 9 or 12 digits (GB/T 2260)";
                wrong.note(bad(Fault::at(format!("/regions/{place}"), Rule::Pattern).form(form)));
            }
        }
        if self.daily_limit == Some(0) {
            let most = usize::try_from(u32::MAX).unwrap_or(usize::MAX);
            wrong.note(bad(Fault::at("/dailyLimit", Rule::Range).bounds(1, most)));
        }
        let until = wrong.take(day(Code::BadApplication, &self.until).under("until"));
        let Self { fields, clear, regions, daily_limit, feed, .. } = self;
        wrong.all(until.map(|until| Scope { fields, clear, regions, daily_limit, feed, until }))
    }
}

/// The parts of a scope that do not fit the resource or the day.
fn unfit(resource: &Resource, scope: &Scope, today: Date) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (key, place) in scope.fields.iter().zip(0..) {
        if resource.field(key).is_none() {
            let known = resource.fields.iter().map(|field| field.key.clone());
            faults.push(Fault::at(format!("/fields/{place}"), Rule::OneOf).one_of(known));
        }
    }
    if !scope.regions.is_empty() && resource.region.is_none() {
        faults.push(Fault::at("/regions", Rule::NotAllowed).form("the resource's rows have no region"));
    }
    if scope.feed && resource.supply != Supply::Hosted {
        faults.push(Fault::at("/feed", Rule::NotAllowed).form("the exchange keeps no rows of the resource"));
    }
    if scope.until < today {
        faults.push(Fault::at("/until", Rule::Order).form("a day to come"));
    }
    faults
}

/// Whether an organisation may use a resource for a purpose. A contract names the purposes that data are used for, and the condition of duty
/// asks the register for the same.
pub(crate) fn allows(resource: &Resource, caller: &Participant, purpose: &String) -> bool {
    let bound = caller.contract.is_some() || resource.conditions.contains(&Condition::Duty);
    !bound || caller.purposes.contains(purpose)
}

/// Puts an application that is agreed on into use: at once where the exchange answers, else with the clock of its supply.
fn agreed(case: &mut Case<'_>, resource: &Resource, application: &mut Application) {
    let now_ms = case.now_ms();
    application.answered_ms = Some(now_ms);
    match resource.supply {
        Supply::Hosted | Supply::Interface => {
            application.state = ApplicationState::Provided;
            application.provided_ms = Some(now_ms);
            application.clock = None;
        }
        Supply::File | Supply::Table => {
            let calendars = case.calendars();
            application.state = ApplicationState::Agreed;
            let class = resource.sharing_class;
            application.clock = clock::start(case.clocks(), ClockStep::Provide, class, now_ms, &calendars);
        }
    }
}
