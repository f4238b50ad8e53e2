//! Grants (用证授权): made by a portal for the holder that it vouches for or for the holder's agent, changed, ended, listed.
//!
//! Create, change and revoke alone write grants. A grant and its entry are in one frame, so a crash leaves both or neither.

use ledger::Label;
use schemas::codes::{Code, Reason, Rule};
use schemas::holder::HolderRef;
use serde::Serialize;

use crate::gateway::case::{Case, Held};
use crate::participant::Participant;
use crate::rights::floor;
use crate::rights::link::{Chain, chain};
use crate::wire::refusal::{Fault, Refusal};

pub(crate) mod change;
pub(crate) mod create;
pub(crate) mod revoke;
pub(crate) mod search;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    grant: String,
    state: &'static str,
}

/// A grant that somebody may change.
#[derive(Debug)]
pub(crate) struct Own {
    held: Held,
    chain: Option<Chain>,
}

/// The grant with an id, which is the holder's; an agent has those that it made itself.
fn own(
    case: &mut Case<'_>,
    caller: &Participant,
    id: &[u8; 16],
    holder: &HolderRef,
    agent: Option<&HolderRef>,
) -> Result<(Own, Vec<Label>), Refusal> {
    let denied = Refusal::not_permitted;
    let known = case.holder(holder).ok_or_else(|| denied(Reason::NoSuchHolder))?;
    let chain = agent.map(|agent| chain(case, &caller.organisation, holder, agent));
    let chain = chain.transpose().map_err(denied)?;
    let held = case.grant(id).ok_or_else(|| denied(Reason::NoSuchGrant))?;
    if held.grant.holder != known.label {
        return Err(denied(Reason::OtherHolder));
    }
    if chain.as_ref().is_some_and(|chain| chain.entered() != held.grant.chain) {
        return Err(denied(Reason::BeyondLink));
    }
    if held.grant.state == floor::GRANT_REVOKED {
        let fault = Fault::at("/grant", Rule::NotAllowed).form("not revoked yet");
        return Err(Refusal::of(Code::BadGrant, fault));
    }
    Ok((Own { held, chain }, vec![known.label]))
}
