//! `POST /v1/links`: a portal makes a link between a holder and who acts for them, or gives it new terms.
//!
//! The path alone calls it. A crash leaves the new terms with their entry, or the old ones.

use ledger::Label;
use schemas::codes::Code;
use schemas::holder::HolderRef;
use schemas::identifier::Uscc;
use schemas::kinds::LinkKind;
use schemas::routes::Route;
use serde::Deserialize;
use verifier::trace::Label as PageLabel;

use super::{Link, Linked, linked, parties, write};
use crate::capability::Capability;
use crate::gateway::case::{Case, Place};
use crate::gateway::change::Change;
use crate::gateway::names::{AGENT, HOLDER, Names};
use crate::gateway::permit::{Permit, Ruling};
use crate::participant::Participant;
use crate::wire::named::Holder;
use crate::wire::read::{Body, json};
use crate::wire::refusal::{Gather, Placed as _, Refusal};
use crate::wire::text::{moment, to_come};

/// The capability.
pub(crate) struct Make;

/// A new link, or new terms of one.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The person acted for.
    pub holder: HolderRef,
    /// The person who acts.
    pub agent: HolderRef,
    /// By what.
    pub kind: LinkKind,
    /// Last valid moment, ms since 1970.
    pub until_ms: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    holder: Holder<'a>,
    agent: Holder<'a>,
    kind: LinkKind,
    until: String,
}

/// A link that may be made.
#[derive(Debug)]
pub(crate) struct Made {
    place: Place,
    holder: Label,
}

impl Capability<'_> for Make {
    const ROUTE: Route = Route::LinkMake;
    type Asked = Asked;
    type Granted = Made;

    fn read(body: Body<'_>) -> Result<Asked, Refusal> {
        json::<Request<'_>>(body.bytes)?.typed()
    }

    fn names<'a>(asked: &'a Asked, _caller: &Uscc) -> Names<'a> {
        let names = Names { link: Some(asked.kind.name()), ..Names::default() };
        names.person(&asked.holder, HOLDER).beside(&asked.agent, AGENT)
    }

    fn decide(case: &mut Case<'_>, caller: &Participant, asked: &Asked) -> Result<Ruling<Made>, Refusal> {
        if asked.until_ms <= case.now_ms() {
            return Err(Refusal::of(Code::BadLink, to_come("/until")));
        }
        let Linked { place, holder, concerned, .. } = linked(case, caller, &asked.holder, &asked.agent)?;
        Ok(Ruling::plain(Made { place, holder }, concerned))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked,
        permit: Permit<Made>,
    ) -> Result<Vec<u8>, Refusal> {
        let Made { place, holder } = permit.into_granted();
        // An agent whom the log does not know gets a label by it.
        let agent = change.concern(&asked.agent)?;
        let link = Link {
            holder: PageLabel(holder),
            agent: PageLabel(agent),
            kind: asked.kind,
            until_ms: asked.until_ms,
            ended: false,
        };
        Ok(write(change, place, &link))
    }
}

impl Request<'_> {
    fn typed(self) -> Result<Asked, Refusal> {
        let mut wrong = Gather::new();
        let parties = wrong.take(parties(self.holder, self.agent));
        let until_ms = wrong.take(moment(Code::BadLink, &self.until).under("until"));
        let made = parties.zip(until_ms).map(|((holder, agent), until_ms)| Asked {
            holder,
            agent,
            kind: self.kind,
            until_ms,
        });
        wrong.all(made)
    }
}
