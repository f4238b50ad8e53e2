//! `POST /v1/resources`: a provider writes a resource's definition, new or in place of its own.
//!
//! The path alone calls it. A definition is written by one entry: a crash leaves the old one or the new one.

use schemas::codes::{Code, Reason, Rule};
use schemas::identifier::Uscc;
use schemas::resource::{Resource, Supply};
use schemas::routes::Route;
use schemas::sharing::ResourceState;
use serde::Deserialize;

use super::{Answer, faults};
use crate::capability::Capability;
use crate::capability::records::call::target;
use crate::gateway::case::{Case, Place};
use crate::gateway::change::{Change, json as answer};
use crate::gateway::names::Names;
use crate::gateway::permit::{Permit, Ruling};
use crate::participant::Participant;
use crate::sharing::resource::{Listed, Step, add_step};
use crate::wire::read::{Body, json};
use crate::wire::refusal::{Fault, Placed as _, Refusal};

/// The capability.
pub(crate) struct Write;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Asked {
    resource: Resource,
}

/// A definition that may be written.
#[derive(Debug)]
pub(crate) struct Written {
    place: Place,
    listed: Listed,
}

impl Capability<'_> for Write {
    const ROUTE: Route = Route::ResourceWrite;
    type Asked = Asked;
    type Granted = Written;

    fn read(body: Body<'_>) -> Result<Asked, Refusal> {
        let asked = json::<Asked>(body.bytes)?;
        let found = asked.resource.faults();
        if found.is_empty() { Ok(asked) } else { Err(faults(Code::BadResource, found)).under("resource") }
    }

    fn names<'a>(_asked: &'a Asked, _caller: &Uscc) -> Names<'a> {
        Names::default()
    }

    fn decide(case: &mut Case<'_>, caller: &Participant, asked: &Asked) -> Result<Ruling<Written>, Refusal> {
        let resource = asked.resource.clone();
        let (place, before) = case.resource(&resource.code);
        let at_ms = case.now_ms();
        let step =
            |action: &str| Step { at_ms, by: caller.organisation, action: action.to_owned(), note: None };
        let listed = match before {
            None => Listed {
                resource,
                provider: caller.organisation,
                state: ResourceState::Draft,
                history: vec![step("draft")],
                label: None,
            },
            Some(before) => {
                if before.provider != caller.organisation {
                    return Err(Refusal::not_permitted(Reason::OtherProvider));
                }
                let state = match before.state {
                    ResourceState::Withdrawn => {
                        return Err(Refusal::explained(Code::ResourceRefused, Reason::ResourceWithdrawn));
                    }
                    ResourceState::Draft => ResourceState::Draft,
                    ResourceState::Suspended => ResourceState::Suspended,
                    ResourceState::Published | ResourceState::Changed => ResourceState::Changed,
                };
                let is_draft = state == ResourceState::Draft;
                if !is_draft && !resource.may_follow(&before.resource) {
                    let form =
                        "the fields, key and supply that approvals rest on, and new fields behind them";
                    let fault = Fault::at("/resource", Rule::NotAllowed).form(form);
                    return Err(Refusal::of(Code::BadResource, fault));
                }
                if !is_draft && resource.missing_duties().next().is_some() {
                    return Err(Refusal::explained(Code::ResourceRefused, Reason::DutyMissing));
                }
                if !is_draft && resource.supply == Supply::Interface {
                    target(case, &before.provider, &resource)?;
                }
                let mut history = before.history.clone();
                add_step(&mut history, step(if is_draft { "draft" } else { "change" }));
                Listed { resource, provider: before.provider, state, history, label: before.label.clone() }
            }
        };
        Ok(Ruling::plain(Written { place, listed }, Vec::new()))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked,
        permit: Permit<Written>,
    ) -> Result<Vec<u8>, Refusal> {
        let Written { place, listed } = permit.into_granted();
        change.keep(place, &listed);
        let (resource, version) = (asked.resource.code.as_str(), place.version() + 1);
        Ok(answer(&Answer { resource, state: listed.state.name(), version }))
    }
}
