//! Links between a holder and who acts for them (监护, 授权代理, 亲友代办, 分级授权): made and ended by the portal that vouches for both.
//!
//! The two routes alone write links, as documents of journaled state. A crash leaves a link and its entry, or neither.

use ledger::Label;
use schemas::codes::{Code, Reason, Rule};
use schemas::holder::HolderRef;
use serde::Serialize;

use crate::gateway::case::{Case, Place};
use crate::gateway::change::{Change, json};
use crate::keyed;
use crate::participant::Participant;
use crate::rights::link::{Link, link_at};
use crate::wire::named::Holder;
use crate::wire::refusal::{Fault, Gather, Placed as _, Refusal};

pub(crate) mod end;
pub(crate) mod make;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    link: &'static str,
    kind: &'static str,
    until: String,
}

/// A portal's link between two persons.
struct Linked {
    place: Place,
    holder: Label,
    /// The link between the two as they are now.
    link: Option<Link>,
    /// When a new one begins, ms since 1970.
    since_ms: u64,
    /// The holder, and the agent as far as the log knows one.
    concerned: Vec<Label>,
}

fn linked(
    case: &mut Case<'_>,
    caller: &Participant,
    holder: &HolderRef,
    agent: &HolderRef,
) -> Result<Linked, Refusal> {
    let known = case.holder(holder).ok_or_else(|| Refusal::not_permitted(Reason::NoSuchHolder))?;
    let acting = case.holder(agent);
    let mut concerned = vec![known.label];
    concerned.extend(acting.iter().map(|agent| agent.label));
    let key = keyed::link_key(case.keyed(), &caller.organisation, holder, agent);
    let (place, link) = link_at(case, key);
    // No other link of these two ever began at the same moment.
    let since_ms = link.as_ref().map_or(0, |link| link.since_ms.saturating_add(1)).max(case.now_ms());
    let link = link.filter(|link| acting.is_some_and(|agent| link.holds(&known.label, &agent.label)));
    Ok(Linked { place, holder: known.label, link, since_ms, concerned })
}

/// Nobody is somebody's own agent.
fn parties(holder: Holder<'_>, agent: Holder<'_>) -> Result<(HolderRef, HolderRef), Refusal> {
    let mut wrong = Gather::new();
    let holder = wrong.take(holder.typed().under("holder"));
    let agent = wrong.take(agent.typed().under("agent"));
    if holder.is_some() && holder == agent {
        wrong.note(Refusal::of(Code::BadLink, Fault::at("/agent", Rule::Distinct)));
    }
    wrong.all(holder.zip(agent))
}

/// Writes a link; the answer.
fn write(change: &mut Change<'_>, place: Place, link: &Link) -> Vec<u8> {
    change.keep(place, link);
    json(&Answer {
        link: if link.ended { "ended" } else { "active" },
        kind: link.kind.name(),
        until: schemas::date::rfc3339(link.until_ms),
    })
}
