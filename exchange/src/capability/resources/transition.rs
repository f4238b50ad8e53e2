//! `POST /v1/resources/transition`: a provider publishes, suspends, resumes or withdraws a resource.
//!
//! The path alone calls it. A step is one entry: a crash leaves it whole or not at all.

use schemas::codes::{Code, Reason};
use schemas::identifier::Uscc;
use schemas::resource::Supply;
use schemas::routes::Route;
use schemas::sharing::{ResourceAction as Action, ResourceState};
use serde::Deserialize;

use super::{Answer, own};
use crate::capability::Capability;
use crate::capability::records::call::target;
use crate::gateway::case::{Case, Place};
use crate::gateway::change::{Change, json as answer};
use crate::gateway::names::Names;
use crate::gateway::permit::{Permit, Ruling};
use crate::participant::Participant;
use crate::sharing::resource::{Listed, Step, add_step};
use crate::wire::read::{Body, json};
use crate::wire::refusal::Refusal;
use crate::wire::text::reason;

/// The capability.
pub(crate) struct Transition;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request {
    resource: String,
    action: Action,
    reason: String,
}

/// A step that is asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    resource: String,
    action: Action,
    reason: String,
}

/// A step that may be taken.
#[derive(Debug)]
pub(crate) struct Taken {
    place: Place,
    listed: Listed,
}

impl Capability<'_> for Transition {
    const ROUTE: Route = Route::ResourceTransition;
    type Asked = Asked;
    type Granted = Taken;

    fn read(body: Body<'_>) -> Result<Asked, Refusal> {
        let Request { resource, action, reason: words } = json(body.bytes)?;
        Ok(Asked { resource, action, reason: reason(words)? })
    }

    fn names<'a>(asked: &'a Asked, _caller: &Uscc) -> Names<'a> {
        Names { reason: &asked.reason, ..Names::default() }
    }

    fn decide(case: &mut Case<'_>, caller: &Participant, asked: &Asked) -> Result<Ruling<Taken>, Refusal> {
        let (place, mut listed) = own(case, caller, &asked.resource)?;
        listed.state = follows(listed.state, asked.action)
            .map_err(|reason| Refusal::explained(Code::ResourceRefused, reason))?;
        if asked.action == Action::Publish && listed.resource.missing_duties().next().is_some() {
            return Err(Refusal::explained(Code::ResourceRefused, Reason::DutyMissing));
        }
        // A resource is listed while it can be called.
        if listed.state.is_live() && listed.resource.supply == Supply::Interface {
            target(case, &listed.provider, &listed.resource)?;
        }
        let step = Step {
            at_ms: case.now_ms(),
            by: caller.organisation,
            action: asked.action.name().to_owned(),
            note: Some(asked.reason.clone()),
        };
        add_step(&mut listed.history, step);
        Ok(Ruling::plain(Taken { place, listed }, Vec::new()))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked,
        permit: Permit<Taken>,
    ) -> Result<Vec<u8>, Refusal> {
        let Taken { place, mut listed } = permit.into_granted();
        if asked.action == Action::Publish {
            // Its rows lie under a key of its own, which is born with it.
            listed.label = Some(hex::encode(change.new_label(place)));
        }
        if asked.action == Action::Withdraw
            && let Some(label) = listed.rows_label()
        {
            change.end_rows(label);
        }
        change.keep(place, &listed);
        let version = place.version() + 1;
        Ok(answer(&Answer { resource: &asked.resource, state: listed.state.name(), version }))
    }
}

/// The state behind a step, or why it is not taken.
fn follows(state: ResourceState, action: Action) -> Result<ResourceState, Reason> {
    use ResourceState as S;
    match (state, action) {
        (S::Withdrawn, _) => Err(Reason::ResourceWithdrawn),
        (S::Draft, Action::Publish) | (S::Suspended, Action::Resume) => Ok(S::Published),
        (S::Published | S::Changed, Action::Suspend) => Ok(S::Suspended),
        (S::Draft | S::Published | S::Changed | S::Suspended, Action::Withdraw) => Ok(S::Withdrawn),
        (S::Draft, Action::Suspend | Action::Resume) => Err(Reason::ResourceDraft),
        (S::Published | S::Changed, Action::Publish | Action::Resume) => Err(Reason::ResourcePublished),
        (S::Suspended, Action::Publish | Action::Suspend) => Err(Reason::ResourceSuspended),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_lives_by_the_table() {
        use ResourceState as S;
        let states = [S::Draft, S::Published, S::Changed, S::Suspended, S::Withdrawn];
        let actions = [Action::Publish, Action::Suspend, Action::Resume, Action::Withdraw];
        let table = states.map(|state| actions.map(|action| follows(state, action).ok()));
        assert_eq!(
            table,
            [
                [Some(S::Published), None, None, Some(S::Withdrawn)],
                [None, Some(S::Suspended), None, Some(S::Withdrawn)],
                [None, Some(S::Suspended), None, Some(S::Withdrawn)],
                [None, None, Some(S::Published), Some(S::Withdrawn)],
                [None; 4],
            ]
        );
    }
}
