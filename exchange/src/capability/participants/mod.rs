//! The register of participants, as operators keep it and each participant sees it.
//!
//! These routes, an approval and the making of a log alone write it. A registration is in the frame of its entry: a
//! crash leaves both or neither.

use schemas::codes::Code;
use serde::{Deserialize, Serialize};

use crate::gateway::case::Place;
use crate::gateway::change::{Change, json};
use crate::participant::Participant;
use crate::wire::read::{self, Body};
use crate::wire::refusal::{Placed as _, Refusal};

pub(crate) mod add;
pub(crate) mod change;
pub(crate) mod list;
pub(crate) mod suspend;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request {
    participant: crate::participant::Wire,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    organisation: &'a str,
    suspended: bool,
}

/// A registration to be written, and where.
#[derive(Debug)]
pub(crate) struct Written {
    participant: Participant,
    place: Place,
}

/// The registration that a request sends.
fn sent(body: Body<'_>) -> Result<Participant, Refusal> {
    read::json::<Request>(body.bytes)?.participant.typed().under("participant")
}

/// Whether one operator may write a registration alone, given how it was and how it is to be. Else one could make a second
/// of itself, or a portal that reads whom it likes. To suspend, which only takes away, one is always enough.
fn by_one_operator(registrations: &[&Participant]) -> Result<(), Refusal> {
    if registrations.iter().any(|registration| registration.takes_two()) {
        return Err(Refusal::new(Code::NeedsTwoOperators));
    }
    Ok(())
}

/// Writes a registration; the answer.
fn write(change: &mut Change<'_>, written: &Written) -> Vec<u8> {
    let Written { participant, place } = written;
    change.put(*place, participant.document());
    json(&Answer { organisation: participant.organisation.as_str(), suspended: participant.suspended })
}
