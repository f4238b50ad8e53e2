//! `POST /v1/trace`: who used a holder's licenses.
//!
//! The path alone calls it. A crash leaves the entry of the question, or nothing.

use std::borrow::Cow;

use schemas::holder::HolderRef;
use schemas::identifier::Uscc;
use schemas::kinds::LinkKind;
use schemas::routes::Route;
use serde::Deserialize;

use crate::capability::Capability;
use crate::gateway::case::Case;
use crate::gateway::change::{Change, json as answer};
use crate::gateway::names::Names;
use crate::gateway::permit::{Permit, Ruling};
use crate::participant::Participant;
use crate::rights::assertion::reads_for;
use crate::rights::link::{Chain, chain};
use crate::wire::named::{ContextValue, Holder, UseContext, context};
use crate::wire::read::{Body, json};
use crate::wire::refusal::{Gather, Placed as _, Refusal};
use crate::wire::text::{Text, page as page_limit};

mod page;

/// The capability.
pub(crate) struct Trace;

/// A holder's question who used the holder's licenses.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    /// The holder that the portal vouches for, or that the agent acts for.
    pub holder: HolderRef,
    /// The person who asks in place of the holder.
    pub agent: Option<HolderRef>,
    /// The assertion of whoever asks, holder or agent: a JWT of the identity provider.
    pub assertion: Option<Cow<'a, str>>,
    /// The page begins behind the entry of this index.
    pub before: Option<u64>,
    /// Most entries of the page.
    pub limit: usize,
    /// Use context.
    pub context: UseContext<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    holder: Holder<'a>,
    agent: Option<Holder<'a>>,
    assertion: Option<Text<'a>>,
    before: Option<u64>,
    limit: Option<u64>,
    #[serde(rename = "use")]
    context: Option<ContextValue<'a>>,
}

/// A trace that may be shown.
#[derive(Debug)]
pub(crate) struct Shown {
    /// The links by which somebody asks for the holder.
    chain: Option<Chain>,
    delay_days_max: u16,
}

impl<'r> Capability<'r> for Trace {
    const ROUTE: Route = Route::Trace;
    type Asked = Asked<'r>;
    type Granted = Shown;

    fn read(body: Body<'r>) -> Result<Asked<'r>, Refusal> {
        json::<Request<'_>>(body.bytes)?.typed()
    }

    fn names<'a>(asked: &'a Asked<'r>, _caller: &Uscc) -> Names<'a> {
        let names = Names { context: Some(&asked.context), ..Names::default() };
        names.holder(&asked.holder, asked.agent.as_ref())
    }

    /// The portal vouches for the holder it names, so a holder that the log does not know has an empty trace; the portal
    /// learns no more than a search tells it. For an agent it has to hold a link, which exists between known persons only.
    fn decide(
        case: &mut Case<'_>,
        caller: &Participant,
        asked: &Asked<'r>,
    ) -> Result<Ruling<Shown>, Refusal> {
        let asker = asked.agent.as_ref().unwrap_or(&asked.holder);
        reads_for(case, caller, asked.assertion.as_deref(), Some(asker))?;
        let holder = case.holder(&asked.holder);
        let chain = asked.agent.as_ref().map(|agent| chain(case, &caller.organisation, &asked.holder, agent));
        let chain = chain.transpose().map_err(Refusal::not_permitted)?;
        let concerned = holder.iter().map(|holder| holder.label).collect();
        let delay_days_max = case.rules().delay_days_max;
        Ok(Ruling::plain(Shown { chain, delay_days_max }, concerned))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked<'r>,
        permit: Permit<Shown>,
    ) -> Result<Vec<u8>, Refusal> {
        let (Shown { chain, delay_days_max }, right) = permit.into_parts();
        if let Some(chain) = &chain {
            change.names().link = chain.kind().map(LinkKind::name);
            change.acting_for(chain.persons());
        }
        let label = change.first_concerned();
        let part = page::Part { before: asked.before, limit: asked.limit };
        let page = page::page(change, right, label, part, delay_days_max).await?;
        Ok(answer(&page))
    }
}

impl<'a> Request<'a> {
    fn typed(self) -> Result<Asked<'a>, Refusal> {
        let mut wrong = Gather::new();
        let context = wrong.take(context(self.context));
        let holder = wrong.take(self.holder.typed().under("holder"));
        let agent = wrong.take(self.agent.map(Holder::typed).transpose().under("agent"));
        let limit = wrong.take(page_limit(self.limit));
        let typed = || {
            let (holder, agent, limit, context) = (holder?, agent?, limit?, context?);
            let assertion = self.assertion.map(Text::into_inner);
            Some(Asked { holder, agent, assertion, before: self.before, limit, context })
        };
        wrong.all(typed())
    }
}
