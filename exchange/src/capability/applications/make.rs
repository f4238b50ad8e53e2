//! `POST /v1/applications`: an organisation applies to use a resource for a service item. A need that a rule covers is granted at once
//! (秒享).
//!
//! The path alone calls it. An application is one entry: a crash leaves it whole or not at all.

use ledger::Key;
use schemas::codes::{Code, Reason, Rule};
use schemas::identifier::Uscc;
use schemas::resource::{Condition, MAX_WORDS_CHARS, Resource};
use schemas::routes::Route;
use schemas::sharing::{ApplicationAction, ApplicationState, ClockStep, GrantRule, ResourceState, Scope};
use serde::Deserialize;

use super::{Answer, COUNTERSIGNED_LEVEL, ScopeValue, agreed, allows, unfit};
use crate::capability::Capability;
use crate::gateway::case::{Case, Place};
use crate::gateway::change::{Change, json as answer};
use crate::gateway::names::Names;
use crate::gateway::permit::{Permit, Ruling};
use crate::participant::Participant;
use crate::sharing::application::{Application, application_key};
use crate::sharing::clock::{self, day_of};
use crate::sharing::parties::Parties;
use crate::sharing::resource::{Step, add_step};
use crate::wire::read::{Body, json};
use crate::wire::refusal::{Fault, Gather, Placed as _, Refusal};
use crate::wire::text::{MAX_CONTEXT_CHARS, owned_words, unknown_resource};

/// The capability.
pub(crate) struct Make;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request {
    resource: String,
    item_code: String,
    item_name: String,
    purpose: String,
    scope: ScopeValue,
}

/// A new application.
#[derive(Debug)]
pub(crate) struct Asked {
    resource: String,
    item_code: String,
    item_name: String,
    purpose: String,
    scope: Scope,
}

/// An application that may be made.
#[derive(Debug)]
pub(crate) struct Made {
    key: Key,
    place: Place,
    pub(crate) application: Application,
}

impl Capability<'_> for Make {
    const ROUTE: Route = Route::ApplicationMake;
    type Asked = Asked;
    type Granted = Made;

    fn read(body: Body<'_>) -> Result<Asked, Refusal> {
        json::<Request>(body.bytes)?.typed()
    }

    fn names<'a>(asked: &'a Asked, _caller: &Uscc) -> Names<'a> {
        Names { reason: &asked.purpose, ..Names::default() }
    }

    fn decide(case: &mut Case<'_>, caller: &Participant, asked: &Asked) -> Result<Ruling<Made>, Refusal> {
        let (_, listed) = case.resource(&asked.resource);
        let listed = listed.filter(|listed| listed.state.is_listed());
        let listed = listed.ok_or_else(|| unknown_resource("/resource"))?;
        if listed.state == ResourceState::Suspended {
            return Err(Refusal::explained(Code::ResourceRefused, Reason::ResourceSuspended));
        }
        let resource = &listed.resource;
        if resource.sharing_class == 3 {
            return Err(Refusal::explained(Code::ApplicationRefused, Reason::NotShared));
        }
        let mut wrong = unfit(resource, &asked.scope, day_of(case.now_ms()));
        wrong.extend(conditions(resource, &asked.scope));
        if listed.provider == caller.organisation {
            wrong.push(Fault::at("/resource", Rule::NotAllowed).form("a resource of another provider"));
        }
        if !wrong.is_empty() {
            let refusal = Refusal::all(Code::BadApplication, wrong);
            return Err(if listed.provider == caller.organisation {
                refusal
            } else {
                refusal.under("scope")
            });
        }
        if !allows(resource, caller, &asked.purpose) {
            return Err(Refusal::explained(Code::ApplicationRefused, Reason::OutsidePurpose));
        }
        let key = application_key(case.keyed(), &asked.resource, &caller.organisation, &asked.item_code);
        let (place, before) = case.application(key);
        if before.as_ref().is_some_and(|before| !before.state.is_over()) {
            return Err(Refusal::explained(Code::ApplicationRefused, Reason::ApplicationOpen));
        }
        let now_ms = case.now_ms();
        let calendars = case.calendars();
        let clock =
            clock::start(case.clocks(), ClockStep::Answer, resource.sharing_class, now_ms, &calendars);
        let mut application = Application {
            resource: asked.resource.clone(),
            applicant: caller.organisation,
            provider: listed.provider,
            item_code: asked.item_code.clone(),
            item_name: asked.item_name.clone(),
            purpose: asked.purpose.clone(),
            asked: asked.scope.clone(),
            terms: None,
            state: ApplicationState::Pending,
            disputed: false,
            rule: before.as_deref().is_none_or(is_free).then(|| rule(resource, caller, asked)).flatten(),
            countersigned: false,
            made_ms: now_ms,
            answered_ms: None,
            provided_ms: None,
            clock,
            history: before.map(|before| before.history.clone()).unwrap_or_default(),
            parties: Parties::new(case.keyed(), &caller.organisation, &listed.provider),
        };
        let mut step = |action: &str, note: Option<&str>| {
            let (action, note) = (action.to_owned(), note.map(str::to_owned));
            add_step(&mut application.history, Step { at_ms: now_ms, by: caller.organisation, action, note });
        };
        step("apply", None);
        if let Some(rule) = application.rule {
            step("grant-by-rule", Some(rule.name()));
            // A field that is guarded more strictly later is masked from then on.
            application.terms = Some(Scope { clear: Vec::new(), ..asked.scope.clone() });
            agreed(case, resource, &mut application);
        }
        Ok(Ruling::plain(Made { key, place, application }, Vec::new()))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        _asked: &Asked,
        permit: Permit<Made>,
    ) -> Result<Vec<u8>, Refusal> {
        let Made { key, place, application } = permit.into_granted();
        change.keep(place, &application);
        Ok(answer(&Answer::new(key, &application)))
    }
}

/// Whether a rule may grant what was asked before: its provider has neither refused it nor ended its use.
fn is_free(before: &Application) -> bool {
    let ended_by = before.history.iter().rev().find(|step| step.action == ApplicationAction::Stop.name());
    before.state != ApplicationState::Refused && ended_by.is_none_or(|step| step.by == before.applicant)
}

/// The rule that grants a need at once: nothing in clear that is masked for others, nothing of the highest level, and no feed.
fn rule(resource: &Resource, caller: &Participant, asked: &Asked) -> Option<GrantRule> {
    if asked.scope.feed {
        return None;
    }
    if resource.level >= COUNTERSIGNED_LEVEL || asked.scope.clear.iter().any(|key| resource.masks(key)) {
        return None;
    }
    // The applicant would choose its own extent: that is for the provider to say.
    if resource.conditions.iter().any(|condition| matches!(condition, Condition::Region | Condition::Volume))
    {
        return None;
    }
    if resource.sharing_class == 1 {
        return Some(GrantRule::Unconditional);
    }
    let organisation = caller.organisation.as_str();
    let covers = |need: &schemas::resource::Agreed| {
        need.organisation == organisation && need.item_code == asked.item_code
    };
    resource.agreed.iter().any(covers).then_some(GrantRule::Agreed)
}

/// The conditions of sharing that a scope does not meet.
pub(super) fn conditions(resource: &Resource, scope: &Scope) -> Vec<Fault> {
    let fault = |condition: &Condition| {
        let needs = |pointer: &str, rule, form: &'static str| Some(Fault::at(pointer, rule).form(form));
        match condition {
            Condition::Region if scope.regions.is_empty() => {
                needs("/regions", Rule::Required, "the regions whose rows are needed")
            }
            Condition::Volume if scope.daily_limit.is_none() => {
                needs("/dailyLimit", Rule::Required, "most queries a day")
            }
            Condition::Masked if !scope.clear.is_empty() => {
                needs("/clear", Rule::NotAllowed, "the resource is used masked")
            }
            Condition::Region
            | Condition::Volume
            | Condition::Masked
            | Condition::NamedItem
            | Condition::Duty => None,
        }
    };
    resource.conditions.iter().filter_map(fault).collect()
}

impl Request {
    fn typed(self) -> Result<Asked, Refusal> {
        const BAD: Code = Code::BadApplication;
        let mut wrong = Gather::new();
        let item_code = wrong.take(owned_words(BAD, self.item_code, MAX_CONTEXT_CHARS).under("itemCode"));
        let item_name = wrong.take(owned_words(BAD, self.item_name, MAX_CONTEXT_CHARS).under("itemName"));
        let purpose = wrong.take(owned_words(BAD, self.purpose, MAX_WORDS_CHARS).under("purpose"));
        let scope = wrong.take(self.scope.typed().under("scope"));
        let typed = || {
            Some(Asked {
                resource: self.resource,
                item_code: item_code?,
                item_name: item_name?,
                purpose: purpose?,
                scope: scope?,
            })
        };
        wrong.all(typed())
    }
}
