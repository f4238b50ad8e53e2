//! `POST /v1/participants/change`: an operator changes a registration.
//!
//! The path alone calls it. A crash leaves the new registration with its entry, or the old one.

use schemas::codes::Code;
use schemas::identifier::Uscc;
use schemas::routes::Route;

use super::{Written, by_one_operator, sent, write};
use crate::capability::Capability;
use crate::gateway::case::Case;
use crate::gateway::change::Change;
use crate::gateway::names::Names;
use crate::gateway::permit::{Permit, Ruling};
use crate::participant::Participant;
use crate::wire::read::Body;
use crate::wire::refusal::Refusal;

/// The capability.
pub(crate) struct Alter;

impl Capability<'_> for Alter {
    const ROUTE: Route = Route::ParticipantChange;
    type Asked = Participant;
    type Granted = Written;

    fn read(body: Body<'_>) -> Result<Participant, Refusal> {
        sent(body)
    }

    fn names<'a>(_asked: &'a Participant, _caller: &Uscc) -> Names<'a> {
        Names::default()
    }

    fn decide(
        case: &mut Case<'_>,
        _caller: &Participant,
        asked: &Participant,
    ) -> Result<Ruling<Written>, Refusal> {
        let (place, existing) = case.registration(&asked.organisation);
        let existing = existing.ok_or_else(|| Refusal::new(Code::ParticipantConflict))?;
        by_one_operator(&[&*existing, asked])?;
        // A change never lifts a suspension as a side effect.
        let participant = Participant { suspended: existing.suspended, ..asked.clone() };
        Ok(Ruling::plain(Written { participant, place }, Vec::new()))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        _asked: &Participant,
        permit: Permit<Written>,
    ) -> Result<Vec<u8>, Refusal> {
        Ok(write(change, &permit.into_granted()))
    }
}
