//! `POST /v1/participants/suspend`: an operator suspends an organisation, or lifts the suspension.
//!
//! The path alone calls it. A crash leaves the suspension with its entry, or the organisation as it was.

use schemas::codes::Code;
use schemas::identifier::Uscc;
use schemas::routes::Route;
use serde::Deserialize;

use super::{Written, by_one_operator, write};
use crate::capability::Capability;
use crate::gateway::case::Case;
use crate::gateway::change::Change;
use crate::gateway::names::Names;
use crate::gateway::permit::{Permit, Ruling};
use crate::participant::Participant;
use crate::wire::read::{Body, json};
use crate::wire::refusal::{Gather, Placed as _, Refusal};
use crate::wire::text::reason;

/// The capability.
pub(crate) struct Suspend;

/// Suspension of a participant, or its end.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Whom.
    pub organisation: Uscc,
    /// Suspend or lift.
    pub suspended: bool,
    /// Why.
    pub reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request {
    organisation: String,
    suspended: bool,
    reason: String,
}

impl Capability<'_> for Suspend {
    const ROUTE: Route = Route::ParticipantSuspend;
    type Asked = Asked;
    type Granted = Written;

    fn read(body: Body<'_>) -> Result<Asked, Refusal> {
        json::<Request>(body.bytes)?.typed()
    }

    fn names<'a>(asked: &'a Asked, _caller: &Uscc) -> Names<'a> {
        Names { reason: &asked.reason, ..Names::default() }
    }

    fn decide(case: &mut Case<'_>, _caller: &Participant, asked: &Asked) -> Result<Ruling<Written>, Refusal> {
        let (place, existing) = case.registration(&asked.organisation);
        let existing = existing.ok_or_else(|| Refusal::new(Code::ParticipantConflict))?;
        if !asked.suspended {
            by_one_operator(&[&*existing])?;
        }
        let participant = Participant { suspended: asked.suspended, ..(*existing).clone() };
        Ok(Ruling::plain(Written { participant, place }, Vec::new()))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        _asked: &Asked,
        permit: Permit<Written>,
    ) -> Result<Vec<u8>, Refusal> {
        Ok(write(change, &permit.into_granted()))
    }
}

impl Request {
    fn typed(self) -> Result<Asked, Refusal> {
        let mut wrong = Gather::new();
        let organisation = wrong.take(Refusal::parse(&self.organisation).under("organisation"));
        let reason = wrong.take(reason(self.reason));
        let suspended = self.suspended;
        let typed = organisation.zip(reason);
        wrong.all(typed.map(|(organisation, reason)| Asked { organisation, suspended, reason }))
    }
}
