//! `POST /v1/grants/revoke`: a holder, through a portal, ends a grant.
//!
//! The path alone calls it. After a crash the grant has ended with a durable entry, or still goes on.

use schemas::codes::{Code, Reason, Rule};
use schemas::holder::HolderRef;
use schemas::identifier::Uscc;
use schemas::routes::Route;
use serde::Deserialize;

use super::Answer;
use crate::capability::Capability;
use crate::gateway::case::{Case, Held};
use crate::gateway::change::{Change, json as answer};
use crate::gateway::names::{About, HOLDER, Names};
use crate::gateway::permit::{Permit, Ruling};
use crate::participant::Participant;
use crate::rights::floor;
use crate::wire::named::Holder;
use crate::wire::read::{Body, json};
use crate::wire::refusal::{Fault, Gather, Placed as _, Refusal};
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
    /// Why.
    pub reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    grant: Text<'a>,
    holder: Holder<'a>,
    reason: String,
}

impl Capability<'_> for Revoke {
    const ROUTE: Route = Route::GrantRevoke;
    type Asked = Asked;
    type Granted = Held;

    fn read(body: Body<'_>) -> Result<Asked, Refusal> {
        json::<Request<'_>>(body.bytes)?.typed()
    }

    fn names<'a>(asked: &'a Asked, _caller: &Uscc) -> Names<'a> {
        let about = About::Grant(asked.grant);
        let names = Names { about, grant: Some(asked.grant), reason: &asked.reason, ..Names::default() };
        names.person(&asked.holder, HOLDER)
    }

    fn decide(case: &mut Case<'_>, _caller: &Participant, asked: &Asked) -> Result<Ruling<Held>, Refusal> {
        let holder =
            case.holder(&asked.holder).ok_or_else(|| Refusal::not_permitted(Reason::NoSuchHolder))?;
        let concerned = vec![holder.label];
        let held = case.grant(&asked.grant).ok_or_else(|| Refusal::not_permitted(Reason::NoSuchGrant))?;
        if held.grant.holder != holder.label {
            return Err(Refusal::not_permitted(Reason::OtherHolder));
        }
        if held.grant.state == floor::GRANT_REVOKED {
            return Err(Refusal::of(
                Code::BadGrant,
                Fault::at("/grant", Rule::NotAllowed).form("not revoked yet"),
            ));
        }
        Ok(Ruling::plain(held, concerned))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked,
        permit: Permit<Held>,
    ) -> Result<Vec<u8>, Refusal> {
        change.grant(&permit.into_granted(), floor::GRANT_REVOKED);
        Ok(answer(&Answer { grant: hex::encode(asked.grant), state: "revoked" }))
    }
}

impl Request<'_> {
    fn typed(self) -> Result<Asked, Refusal> {
        let mut wrong = Gather::new();
        let grant = wrong.take(id(&self.grant).under("grant"));
        let holder = wrong.take(self.holder.typed().under("holder"));
        let reason = wrong.take(reason(self.reason));
        let typed = || Some(Asked { grant: grant?, holder: holder?, reason: reason? });
        wrong.all(typed())
    }
}
