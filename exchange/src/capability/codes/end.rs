//! `POST /v1/codes/end`: a holder or the holder's agent, through the portal that minted it, ends a code before its time.
//!
//! The path alone calls it. After a crash the code has ended with a durable entry, or still goes on.

use schemas::codes::{Code, Reason};
use schemas::holder::HolderRef;
use schemas::identifier::Uscc;
use schemas::routes::Route;
use serde::{Deserialize, Serialize};

use crate::capability::Capability;
use crate::capability::grants::create::{acting, agent};
use crate::gateway::case::{Case, Place};
use crate::gateway::change::{Change, json as answer};
use crate::gateway::names::{About, Names, Terms};
use crate::gateway::permit::{Permit, Ruling};
use crate::participant::Participant;
use crate::rights::code::{End as Ending, PresentationCode, Token};
use crate::rights::link::{Chain, chain};
use crate::wire::named::Holder;
use crate::wire::read::{Body, json};
use crate::wire::refusal::{Gather, Placed as _, Refusal};
use crate::wire::text::{Text, reason};

/// The capability.
pub(crate) struct End;

/// The end of a code.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Which.
    pub code: Token,
    /// The holder the portal vouches for.
    pub holder: HolderRef,
    /// The person who acts for the holder.
    pub agent: Option<HolderRef>,
    /// Why.
    pub reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    code: Text<'a>,
    holder: Holder<'a>,
    agent: Option<Holder<'a>>,
    reason: String,
}

/// A code that may be ended.
#[derive(Debug)]
pub(crate) struct Live {
    place: Place,
    code: PresentationCode,
    chain: Option<Chain>,
}

#[derive(Serialize)]
struct Answer {
    state: &'static str,
}

impl Capability<'_> for End {
    const ROUTE: Route = Route::CodeEnd;
    type Asked = Asked;
    type Granted = Live;

    fn read(body: Body<'_>) -> Result<Asked, Refusal> {
        let Request { code, holder, agent: acting, reason: why } = json::<Request<'_>>(body.bytes)?;
        let mut wrong = Gather::new();
        let code = wrong.take(Token::read(&code).under("code"));
        let holder = wrong.take(holder.typed().under("holder"));
        let agent = wrong.take(agent(Code::BadCode, acting, holder.as_ref()));
        let why = wrong.take(reason(why));
        let typed = || Some(Asked { code: code?, holder: holder?, agent: agent?, reason: why? });
        wrong.all(typed())
    }

    fn names<'a>(asked: &'a Asked, _caller: &Uscc) -> Names<'a> {
        let terms = Some(Terms { action: Some("code-end"), ..Terms::default() });
        let names =
            Names { about: About::Code(&asked.code), terms, reason: &asked.reason, ..Names::default() };
        names.holder(&asked.holder, asked.agent.as_ref())
    }

    fn decide(case: &mut Case<'_>, caller: &Participant, asked: &Asked) -> Result<Ruling<Live>, Refusal> {
        let denied = Refusal::not_permitted;
        let holder = case.holder(&asked.holder).ok_or_else(|| denied(Reason::NoSuchHolder))?;
        let chain = asked.agent.as_ref().map(|agent| chain(case, &caller.organisation, &asked.holder, agent));
        let chain = chain.transpose().map_err(denied)?;
        let (place, code) = case.document::<PresentationCode>(asked.code.key(case.keyed()));
        let code = code.filter(|code| code.portal == caller.organisation);
        let code = code.ok_or_else(|| denied(Reason::NoSuchCode))?;
        if code.holder.0 != holder.label {
            return Err(denied(Reason::OtherHolder));
        }
        code.live(case.now_ms()).map_err(|reason| Refusal::explained(Code::BadCode, reason))?;
        case.ends_at(code.until_ms.saturating_add(1));
        Ok(Ruling::plain(Live { place, code, chain }, vec![holder.label]))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked,
        permit: Permit<Live>,
    ) -> Result<Vec<u8>, Refusal> {
        let Live { place, code, chain } = permit.into_granted();
        if let (Some(chain), Some(agent)) = (&chain, &asked.agent) {
            acting(change, chain, agent)?;
        }
        change.keep(place, &code.ended(Ending::Ended));
        Ok(answer(&Answer { state: "ended" }))
    }
}
