//! `POST /v1/links/end`: a portal ends a link.
//!
//! The path alone calls it. After a crash the link has ended with a durable entry, or still stands.

use schemas::codes::Code;
use schemas::holder::HolderRef;
use schemas::identifier::Uscc;
use schemas::routes::Route;
use serde::Deserialize;

use super::{Linked, linked, parties, write};
use crate::capability::Capability;
use crate::gateway::case::{Case, Place};
use crate::gateway::change::Change;
use crate::gateway::names::{AGENT, HOLDER, Names};
use crate::gateway::permit::{Permit, Ruling};
use crate::participant::Participant;
use crate::rights::link::Link;
use crate::wire::named::Holder;
use crate::wire::read::{Body, json};
use crate::wire::refusal::{Gather, Refusal};
use crate::wire::text::reason;

/// The capability.
pub(crate) struct End;

/// The end of a link.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The person acted for.
    pub holder: HolderRef,
    /// The person who acted.
    pub agent: HolderRef,
    /// Why.
    pub reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    holder: Holder<'a>,
    agent: Holder<'a>,
    reason: String,
}

/// A link that may be ended.
#[derive(Debug)]
pub(crate) struct Ended {
    place: Place,
    link: Link,
}

impl Capability<'_> for End {
    const ROUTE: Route = Route::LinkEnd;
    type Asked = Asked;
    type Granted = Ended;

    fn read(body: Body<'_>) -> Result<Asked, Refusal> {
        json::<Request<'_>>(body.bytes)?.typed()
    }

    fn names<'a>(asked: &'a Asked, _caller: &Uscc) -> Names<'a> {
        let names = Names { reason: &asked.reason, ..Names::default() };
        names.person(&asked.holder, HOLDER).beside(&asked.agent, AGENT)
    }

    fn decide(case: &mut Case<'_>, caller: &Participant, asked: &Asked) -> Result<Ruling<Ended>, Refusal> {
        let Linked { place, link, concerned, .. } = linked(case, caller, &asked.holder, &asked.agent)?;
        let link = link.ok_or_else(|| Refusal::new(Code::BadLink))?;
        let link = Link { ended: true, ..link };
        Ok(Ruling::plain(Ended { place, link }, concerned))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        _asked: &Asked,
        permit: Permit<Ended>,
    ) -> Result<Vec<u8>, Refusal> {
        let Ended { place, link } = permit.into_granted();
        Ok(write(change, place, &link))
    }
}

impl Request<'_> {
    fn typed(self) -> Result<Asked, Refusal> {
        let mut wrong = Gather::new();
        let parties = wrong.take(parties(self.holder, self.agent));
        let reason = wrong.take(reason(self.reason));
        let ended = parties.zip(reason);
        wrong.all(ended.map(|((holder, agent), reason)| Asked { holder, agent, reason }))
    }
}
