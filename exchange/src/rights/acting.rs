//! Whether an intermediary may stand for the organisation that a use names. Decisions of every route with a use ask before anything
//! else of the request is looked at.
//!
//! It reads a case and changes nothing, so a crash leaves nothing.

use schemas::codes::{Code, Reason, Rule};
use schemas::identifier::Uscc;

use crate::gateway::case::Case;
use crate::participant::Participant;
use crate::wire::refusal::{Fault, Refusal};

/// Whether the caller is registered to act for this organisation, which is not suspended if it takes part itself.
///
/// # Errors
/// [`Code::ActingForRefused`]
pub(crate) fn for_organisation(
    case: &mut Case<'_>,
    caller: &Participant,
    organisation: &Uscc,
) -> Result<(), Refusal> {
    let refused = |reason| {
        let fault = Fault::at("/use/actingFor", Rule::Unknown);
        Refusal::of(Code::ActingForRefused, fault.form("an organisation of `actsFor` in the registration"))
            .because(reason)
    };
    if !caller.acts_for.contains(organisation) {
        return Err(refused(Reason::ActingForUnregistered));
    }
    let now_ms = case.now_ms();
    match case.participant(organisation) {
        Some(participant) if !participant.active_at(now_ms) => Err(refused(Reason::ActingForInactive)),
        Some(_) | None => Ok(()),
    }
}
