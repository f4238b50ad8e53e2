//! `POST /v1/grants/revoke`: a holder or the agent who made it, through a portal, ends a grant.
//!
//! The path alone calls it. After a crash the grant has ended with a durable entry, or still goes on.

use ledger::Grant;
use schemas::codes::Code;
use schemas::holder::HolderRef;
use schemas::identifier::Uscc;
use schemas::routes::Route;
use serde::Deserialize;

use super::create::{acting, agent};
use super::{Answer, Own, own};
use crate::capability::Capability;
use crate::gateway::case::Case;
use crate::gateway::change::{Change, json as answer};
use crate::gateway::names::{About, Names};
use crate::gateway::permit::{Permit, Ruling};
use crate::participant::Participant;
use crate::rights::assertion::{Told, told};
use crate::rights::floor;
use crate::wire::named::Holder;
use crate::wire::read::{Body, json};
use crate::wire::refusal::{Gather, Placed as _, Refusal};
use crate::wire::text::{Text, id, reason};

/// The capability.
pub(crate) struct Revoke;

/// The end of a grant.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Which.
    pub grant: [u8; 16],
    /// The holder the portal vouches for.
    pub holder: HolderRef,
    /// The agent who made it, in the holder's place.
    pub agent: Option<HolderRef>,
    /// Why.
    pub reason: String,
    /// The identity provider's word for whoever ends it. None is needed for what takes away.
    pub assertion: Option<String>,
}

/// A grant that may be ended.
#[derive(Debug)]
pub(crate) struct Ended {
    own: Own,
    told: Option<Told>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    grant: Text<'a>,
    holder: Holder<'a>,
    agent: Option<Holder<'a>>,
    reason: String,
    assertion: Option<String>,
}

impl Capability<'_> for Revoke {
    const ROUTE: Route = Route::GrantRevoke;
    type Asked = Asked;
    type Granted = Ended;

    fn read(body: Body<'_>) -> Result<Asked, Refusal> {
        json::<Request<'_>>(body.bytes)?.typed()
    }

    fn names<'a>(asked: &'a Asked, _caller: &Uscc) -> Names<'a> {
        let about = About::Grant(asked.grant);
        let names = Names { about, grant: Some(asked.grant), reason: &asked.reason, ..Names::default() };
        names.holder(&asked.holder, asked.agent.as_ref())
    }

    fn decide(case: &mut Case<'_>, caller: &Participant, asked: &Asked) -> Result<Ruling<Ended>, Refusal> {
        let who = asked.agent.as_ref().unwrap_or(&asked.holder);
        let told = told(case, &caller.organisation, asked.assertion.as_deref(), who, false)?;
        let (own, concerned) = own(case, caller, &asked.grant, &asked.holder, asked.agent.as_ref())?;
        Ok(Ruling::plain(Ended { own, told }, concerned))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked,
        permit: Permit<Ended>,
    ) -> Result<Vec<u8>, Refusal> {
        let Ended { own: Own { held, chain }, told } = permit.into_granted();
        if let Some(told) = &told {
            change.spend(told)?;
        }
        if let (Some(chain), Some(agent)) = (&chain, &asked.agent) {
            acting(change, chain, agent)?;
        }
        change.grant(&held, |grant| Grant { state: floor::GRANT_REVOKED, ..grant });
        Ok(answer(&Answer { grant: hex::encode(asked.grant), state: "revoked" }))
    }
}

impl Request<'_> {
    fn typed(self) -> Result<Asked, Refusal> {
        let mut wrong = Gather::new();
        let grant = wrong.take(id(&self.grant).under("grant"));
        let holder = wrong.take(self.holder.typed().under("holder"));
        let agent = wrong.take(agent(Code::BadGrant, self.agent, holder.as_ref()));
        let reason = wrong.take(reason(self.reason));
        let typed = || {
            let (grant, holder, agent) = (grant?, holder?, agent?);
            Some(Asked { grant, holder, agent, reason: reason?, assertion: self.assertion })
        };
        wrong.all(typed())
    }
}
