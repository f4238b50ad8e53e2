//! `POST /v1/grants/change`: a holder or the agent who made it, through a portal, pauses a grant, resumes it, or narrows it.
//!
//! The path alone calls it. After a crash the grant has its new terms with a durable entry, or the old ones.

use std::borrow::Cow;
use std::sync::Arc;

use ledger::{Grant, Label};
use schemas::codes::{Code, Rule};
use schemas::holder::HolderRef;
use schemas::identifier::Uscc;
use schemas::kinds::{GrantAction, Scenario};
use schemas::routes::Route;
use serde::Deserialize;

use super::create::{Limits, LimitsValue, acting, agent, field_masks, modes};
use super::search::named;
use super::{Answer, Own, own};
use crate::capability::Capability;
use crate::gateway::case::Case;
use crate::gateway::change::{Change as Changing, json as answer};
use crate::gateway::names::{About, Names};
use crate::gateway::permit::{Permit, Ruling};
use crate::keyed;
use crate::participant::Participant;
use crate::rights::assertion::{Told, told};
use crate::rights::floor::{GRANT_ACTIVE, GRANT_PAUSED};
use crate::rights::mode::Mode;
use crate::wire::named::Holder;
use crate::wire::read::{Body, json};
use crate::wire::refusal::{Fault, Gather, Placed as _, Refusal};
use crate::wire::text::{Text, id, moment, names, reason};

/// The capability.
pub(crate) struct Change;

/// A step of a grant's life.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Which.
    grant: [u8; 16],
    /// The holder the portal vouches for.
    holder: HolderRef,
    /// The agent who made it, in the holder's place.
    agent: Option<HolderRef>,
    action: GrantAction,
    narrower: Narrower,
    reason: String,
    /// The identity provider's word for whoever asks. A change that takes away needs none.
    assertion: Option<String>,
}

/// Narrower terms; what is not said stays.
#[derive(Debug, Default)]
struct Narrower {
    modes: Option<u8>,
    fields: Option<Vec<String>>,
    limits: Limits,
    until_ms: Option<u64>,
    max_uses: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    grant: Text<'a>,
    holder: Holder<'a>,
    agent: Option<Holder<'a>>,
    action: GrantAction,
    modes: Option<Vec<Mode>>,
    fields: Option<Vec<String>>,
    item_code: Option<String>,
    purpose: Option<String>,
    scenario: Option<String>,
    user_name: Option<String>,
    until: Option<Text<'a>>,
    max_uses: Option<u32>,
    reason: String,
    assertion: Option<String>,
}

/// A step that may be taken.
#[derive(Debug)]
pub(crate) struct Granted {
    own: Own,
    told: Option<Told>,
    /// The grant as it is to be, but for its fields.
    next: Grant,
}

impl Capability<'_> for Change {
    const ROUTE: Route = Route::GrantChange;
    type Asked = Asked;
    type Granted = Granted;

    fn read(body: Body<'_>) -> Result<Asked, Refusal> {
        json::<Request<'_>>(body.bytes)?.typed()
    }

    fn names<'a>(asked: &'a Asked, _caller: &Uscc) -> Names<'a> {
        let narrower = &asked.narrower;
        let terms = narrower.limits.terms(None, narrower.until_ms, Some(asked.action.name()));
        let names = Names {
            about: About::Grant(asked.grant),
            grant: Some(asked.grant),
            fields: narrower.fields.iter().flatten().map(Cow::from).collect(),
            terms: Some(terms),
            reason: &asked.reason,
            ..Names::default()
        };
        names.holder(&asked.holder, asked.agent.as_ref())
    }

    fn decide(case: &mut Case<'_>, caller: &Participant, asked: &Asked) -> Result<Ruling<Granted>, Refusal> {
        let who = asked.agent.as_ref().unwrap_or(&asked.holder);
        let gives = asked.action == GrantAction::Resume;
        let told = told(case, &caller.organisation, asked.assertion.as_deref(), who, gives)?;
        let (own, concerned): (Own, Vec<Label>) =
            own(case, caller, &asked.grant, &asked.holder, asked.agent.as_ref())?;
        let grant = &own.held.grant;
        let (from, state) = match asked.action {
            GrantAction::Pause => (Some(GRANT_ACTIVE), GRANT_PAUSED),
            GrantAction::Resume => (Some(GRANT_PAUSED), GRANT_ACTIVE),
            GrantAction::Narrow => (None, grant.state),
        };
        if from.is_some_and(|from| from != grant.state) {
            let fault =
                Fault::at("/action", Rule::NotAllowed).form("pause what is active, resume what is paused");
            return Err(Refusal::of(Code::BadGrant, fault));
        }
        let next = narrowed(case, grant, &asked.narrower)?;
        let next = Grant { state, ..next };
        Ok(Ruling::plain(Granted { own, told, next }, concerned))
    }

    async fn carry_out(
        change: &mut Changing<'_>,
        asked: &Asked,
        permit: Permit<Granted>,
    ) -> Result<Vec<u8>, Refusal> {
        let (Granted { own: Own { held, chain }, told, mut next }, right) = permit.into_parts();
        if let Some(told) = &told {
            change.spend(told)?;
        }
        if let (Some(chain), Some(agent)) = (&chain, &asked.agent) {
            acting(change, chain, agent)?;
        }
        if let Some(fields) = &asked.narrower.fields {
            // The license alone says its type. It may be archived and away; then its fields cannot be named.
            let (_, types) = named(change.tools().ledger, right, &held.grant);
            let types = types.iter().map(Option::as_ref).collect::<Option<Vec<_>>>();
            let types = types.ok_or_else(|| Refusal::new(Code::RecordUnavailable))?;
            // There are as many as targets.
            let masks = field_masks(&types, fields, next.modes)?;
            let targets = std::iter::once(&mut next.fields)
                .chain(next.more_targets.iter_mut().map(|target| &mut target.fields));
            for (target, mask) in targets.zip(masks) {
                if mask & !*target != 0 {
                    return Err(wider("/fields"));
                }
                *target = mask;
            }
        }
        let paused = next.state == GRANT_PAUSED;
        change.grant(&held, |_| next);
        let state = if paused { "paused" } else { "active" };
        Ok(answer(&Answer { grant: hex::encode(asked.grant), state }))
    }
}

/// Terms that would give more than the grant does.
fn wider(pointer: &str) -> Refusal {
    let fault = Fault::at(pointer, Rule::NotAllowed).form("no wider than the grant is");
    Refusal::of(Code::BadGrant, fault)
}

/// A grant with terms that are no wider, but for its fields.
fn narrowed(case: &Case<'_>, grant: &Grant, terms: &Narrower) -> Result<Grant, Refusal> {
    let mut next = grant.clone();
    let mut wrong = Gather::new();
    let keyed = case.keyed();
    if let Some(modes) = terms.modes {
        next.modes = modes;
        if !Mode::are_within(modes, grant.modes) {
            wrong.note(wider("/modes"));
        }
    }
    let Limits { item_code, purpose, scenario, user_name } = &terms.limits;
    if let Some(code) = item_code {
        next.item_tag = keyed::item_tag(keyed, code);
    }
    if let Some(purpose) = purpose {
        next.purpose = Some(Arc::from(purpose.as_str()));
    }
    next.scenario = scenario.map_or(grant.scenario, Scenario::number);
    if let Some(name) = user_name {
        // The gateway wrote the code itself.
        let grantee = std::str::from_utf8(&grant.grantee).ok().and_then(|code| code.parse::<Uscc>().ok());
        let grantee = grantee.ok_or_else(|| Refusal::new(Code::Internal))?;
        next.user_tag = keyed::user_tag(keyed, &grantee, name);
    }
    next.until_ms = terms.until_ms.unwrap_or(grant.until_ms);
    next.max_uses = terms.max_uses.unwrap_or(grant.max_uses);
    let others = [
        ("/itemCode", grant.item_tag != 0 && next.item_tag != grant.item_tag),
        ("/purpose", grant.purpose.is_some() && next.purpose != grant.purpose),
        ("/scenario", grant.scenario != 0 && next.scenario != grant.scenario),
        ("/userName", grant.user_tag != 0 && next.user_tag != grant.user_tag),
        ("/until", next.until_ms > grant.until_ms),
        ("/maxUses", grant.max_uses != 0 && next.max_uses > grant.max_uses),
    ];
    for (pointer, is_wider) in others {
        if is_wider {
            wrong.note(wider(pointer));
        }
    }
    wrong.all(Some(next))
}

impl Request<'_> {
    fn typed(self) -> Result<Asked, Refusal> {
        let mut wrong = Gather::new();
        let bad = |fault| Refusal::of(Code::BadGrant, fault);
        let says = [
            self.modes.is_some(),
            self.fields.is_some(),
            self.item_code.is_some(),
            self.purpose.is_some(),
            self.scenario.is_some(),
            self.user_name.is_some(),
            self.until.is_some(),
            self.max_uses.is_some(),
        ];
        let says_terms = says.contains(&true);
        if says_terms != (self.action == GrantAction::Narrow) {
            wrong.note(bad(
                Fault::at("", Rule::Combination).form("terms to narrow to, and with nothing else")
            ));
        }
        if self.max_uses == Some(0) {
            let most = usize::try_from(u32::MAX).unwrap_or(usize::MAX);
            wrong.note(bad(Fault::at("/maxUses", Rule::Range).bounds(1, most)));
        }
        let limits = LimitsValue {
            item_code: self.item_code,
            purpose: self.purpose,
            scenario: self.scenario,
            user_name: self.user_name,
        };
        let limits = wrong.take(limits.typed());
        let modes = wrong.take(self.modes.as_deref().map(modes).transpose());
        let fields = wrong.take(self.fields.map(names).transpose().under("fields"));
        let grant = wrong.take(id(&self.grant).under("grant"));
        let holder = wrong.take(self.holder.typed().under("holder"));
        let agent = wrong.take(agent(Code::BadGrant, self.agent, holder.as_ref()));
        let until = self.until.as_deref().map(|until| moment(Code::BadGrant, until));
        let until_ms = wrong.take(until.transpose().under("until"));
        let reason = wrong.take(reason(self.reason));
        let typed = || {
            let (grant, holder, agent, reason) = (grant?, holder?, agent?, reason?);
            let (modes, fields, limits, until_ms) = (modes?, fields?, limits?, until_ms?);
            let narrower = Narrower { modes, fields, limits, until_ms, max_uses: self.max_uses };
            Some(Asked {
                grant,
                holder,
                agent,
                action: self.action,
                narrower,
                reason,
                assertion: self.assertion,
            })
        };
        wrong.all(typed())
    }
}
