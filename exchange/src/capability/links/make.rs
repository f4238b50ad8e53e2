//! `POST /v1/links`: a portal makes a link between a holder and who acts for them, or gives it new terms.
//!
//! The path alone calls it. A crash leaves the new terms with their entry, or the old ones.

use ledger::Label;
use schemas::codes::{Code, Rule};
use schemas::date::Date;
use schemas::holder::HolderRef;
use schemas::identifier::{LicenseTypeCode, Uscc};
use schemas::kinds::LinkKind;
use schemas::routes::Route;
use serde::Deserialize;
use verifier::trace::Label as PageLabel;

use super::{Linked, linked, parties, write};
use crate::capability::Capability;
use crate::gateway::case::{Case, Place};
use crate::gateway::change::Change;
use crate::gateway::names::{AGENT, HOLDER, Names};
use crate::gateway::permit::{Permit, Ruling};
use crate::participant::Participant;
use crate::rights::assertion::{Told, assurance, told};
use crate::rights::link::{Chain, Link, chain};
use crate::rights::mode::Mode;
use crate::wire::named::Holder;
use crate::wire::read::{Body, json};
use crate::wire::refusal::{Fault, Gather, Placed as _, Refusal};
use crate::wire::text::{MAX_REASON_CHARS, moment, owned_words, to_come, type_code};

/// Most types of one link.
const MAX_TYPES: usize = 32;
/// All modes of grants.
const ALL_MODES: u8 = 127;
/// Age at which nobody needs a guardian any more, years.
const AGE: i32 = 18;
/// The word for who gives a link in the holder's place.
const VIA: &str = "via";
/// Which kinds stand where.
const TIERS: &str = "of an organisation: legal-representative, under it manager, under either clerk; of a person: guardian, relative; of either: agent";

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
    /// The person who gives it in the holder's place: the agent of the link that it is to stand under.
    pub via: Option<HolderRef>,
    /// Modes of grants that the agent may make, as bits.
    pub modes: u8,
    /// Types of licenses that the agent acts for; empty: all.
    pub types: Vec<LicenseTypeCode>,
    /// The basis of a guardian.
    pub basis: Option<String>,
    /// The identity provider's word for whoever gives it.
    pub assertion: Option<String>,
    /// The same for the agent, who takes it.
    pub agent_assertion: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    holder: Holder<'a>,
    agent: Holder<'a>,
    kind: LinkKind,
    until: String,
    via: Option<Holder<'a>>,
    modes: Option<Vec<Mode>>,
    type_codes: Option<Vec<String>>,
    basis: Option<String>,
    assertion: Option<String>,
    agent_assertion: Option<String>,
}

/// A link that may be made.
#[derive(Debug)]
pub(crate) struct Made {
    place: Place,
    holder: Label,
    before: Option<Link>,
    since_ms: u64,
    above: Option<Chain>,
    /// The words of whoever gives it, and of the agent.
    told: [Option<Told>; 2],
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
        let names = names.person(&asked.holder, HOLDER).beside(&asked.agent, AGENT);
        asked.via.iter().fold(names, |names, via| names.beside(via, VIA))
    }

    fn decide(case: &mut Case<'_>, caller: &Participant, asked: &Asked) -> Result<Ruling<Made>, Refusal> {
        let told = asked.consents(case, caller)?;
        if asked.until_ms <= case.now_ms() {
            return Err(Refusal::of(Code::BadLink, to_come("/until")));
        }
        asked.guards(case.now_ms())?;
        let above = match &asked.via {
            None => None,
            Some(via) => {
                let above = chain(case, &caller.organisation, &asked.holder, via);
                Some(above.map_err(Refusal::not_permitted)?)
            }
        };
        let Linked { place, holder, link, since_ms, concerned } =
            linked(case, caller, &asked.holder, &asked.agent)?;
        if let Some(above) = &above {
            let agent = case.holder(&asked.agent).map(|agent| agent.label);
            asked.stands_under(above, agent)?;
        } else if !asked.kind.may_stand_under(None) {
            return Err(Refusal::of(Code::BadLink, Fault::at("/via", Rule::Required)));
        }
        let before = link.filter(|link| case.now_ms() <= link.until_ms);
        Ok(Ruling::plain(Made { place, holder, before, since_ms, above, told }, concerned))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked,
        permit: Permit<Made>,
    ) -> Result<Vec<u8>, Refusal> {
        let Made { place, holder, before, since_ms, above, told } = permit.into_granted();
        for told in told.iter().flatten() {
            change.spend(told)?;
        }
        // An agent whom the log does not know gets a label by it.
        let agent = change.concern(&asked.agent)?;
        if let (Some(above), Some(via)) = (&above, &asked.via) {
            change.concern(via)?;
            change.acting_for(above.persons());
        }
        let under = above.as_ref().and_then(Chain::nearest).map(|(above, _)| above);
        // Only new terms of a live link leave what was done under it in force.
        let same = before.filter(|before| before.kind == asked.kind && before.under == under);
        let since_ms = same.map_or(since_ms, |same| same.since_ms);
        let lowest = told.iter().map(|told| assurance(told.as_ref())).min().unwrap_or(0);
        let link = Link {
            holder: PageLabel(holder),
            agent: PageLabel(agent),
            kind: asked.kind,
            until_ms: asked.until_ms,
            ended: false,
            since_ms,
            modes: asked.modes,
            types: asked.types.clone(),
            under,
            basis: asked.basis.clone(),
            assurance: lowest,
        };
        Ok(write(change, place, &link))
    }
}

impl Request<'_> {
    fn typed(self) -> Result<Asked, Refusal> {
        let mut wrong = Gather::new();
        let parties = wrong.take(parties(self.holder, self.agent));
        let until_ms = wrong.take(moment(Code::BadLink, &self.until).under("until"));
        let via = wrong.take(self.via.map(Holder::typed).transpose().under("via"));
        if let (Some((holder, agent)), Some(Some(via))) = (&parties, &via)
            && (via == holder || via == agent)
        {
            wrong.note(Refusal::of(Code::BadLink, Fault::at("/via", Rule::Distinct)));
        }
        let modes =
            self.modes.map_or(ALL_MODES, |modes| modes.iter().fold(0, |bits, mode| bits | mode.bit()));
        let codes = self.type_codes.unwrap_or_default();
        if codes.len() > MAX_TYPES {
            let fault = Fault::at("/typeCodes", Rule::Count).bounds(0, MAX_TYPES).got(codes.len());
            wrong.note(Refusal::of(Code::BadLink, fault));
        }
        let types = codes.iter().take(MAX_TYPES).zip(0..).map(|(code, place)| type_code(code).under(place));
        let types = wrong.take(types.collect::<Result<Vec<_>, _>>().under("typeCodes"));
        let basis = self.basis.map(|basis| owned_words(Code::BadLink, basis, MAX_REASON_CHARS));
        let basis = wrong.take(basis.transpose().under("basis"));
        let made = || {
            let ((holder, agent), until_ms, via) = (parties?, until_ms?, via?);
            let (assertion, agent_assertion) = (self.assertion, self.agent_assertion);
            let (types, basis, kind) = (types?, basis?, self.kind);
            Some(Asked {
                holder,
                agent,
                kind,
                until_ms,
                via,
                modes,
                types,
                basis,
                assertion,
                agent_assertion,
            })
        };
        wrong.all(made())
    }
}

impl Asked {
    /// Both consent: whoever gives the link, and the agent who takes it. A ward gives nothing: a guardian rests on the law.
    fn consents(&self, case: &mut Case<'_>, caller: &Participant) -> Result<[Option<Told>; 2], Refusal> {
        let giver = self.via.as_ref().unwrap_or(&self.holder);
        let is_given = self.kind != LinkKind::Guardian;
        let organisation = &caller.organisation;
        let given = told(case, organisation, self.assertion.as_deref(), giver, is_given)?;
        let taken = told(case, organisation, self.agent_assertion.as_deref(), &self.agent, true)?;
        Ok([given, taken])
    }

    /// Guardians of minors act until the ward is of age; those of others say what they rest on. Tiers are an organisation's.
    fn guards(&self, now_ms: u64) -> Result<(), Refusal> {
        let bad = |fault| Err(Refusal::of(Code::BadLink, fault));
        let is_natural = self.holder.type_code().is_natural();
        let fits = match self.kind {
            LinkKind::LegalRepresentative | LinkKind::Manager | LinkKind::Clerk => !is_natural,
            LinkKind::Guardian | LinkKind::Relative => is_natural,
            LinkKind::Agent => true,
        };
        if !fits {
            return bad(Fault::at("/kind", Rule::Combination).form(TIERS));
        }
        if self.kind != LinkKind::Guardian {
            return Ok(());
        }
        let of_age = self.holder.birth_date().and_then(|day| of_age_ms(&day));
        match of_age.filter(|of_age| *of_age > now_ms) {
            Some(of_age) if self.until_ms > of_age => {
                bad(Fault::at("/until", Rule::Order).form("no later than the ward is 18 years old"))
            }
            None if self.basis.is_none() => {
                bad(Fault::at("/basis", Rule::Required).bounds(1, MAX_REASON_CHARS))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// A link allows no more than the one above it, and leads to nobody who stands above it already.
    fn stands_under(&self, above: &Chain, agent: Option<Label>) -> Result<(), Refusal> {
        let bad = |fault| Err(Refusal::of(Code::BadLink, fault));
        if !self.kind.may_stand_under(above.kind()) {
            return bad(Fault::at("/kind", Rule::Combination).form(TIERS));
        }
        if agent.is_some_and(|agent| above.persons().contains(&agent)) {
            return bad(Fault::at("/agent", Rule::Distinct));
        }
        let Some((_, nearest)) = above.nearest() else { return Ok(()) };
        let wider = |pointer| bad(Fault::at(pointer, Rule::NotAllowed).form("no wider than the link above"));
        let is_within = nearest.types.is_empty()
            || !self.types.is_empty() && self.types.iter().all(|code| nearest.types.contains(code));
        match () {
            () if !Mode::are_within(self.modes, nearest.modes) => wider("/modes"),
            () if !is_within => wider("/typeCodes"),
            () if self.until_ms > above.until_ms() => wider("/until"),
            () => Ok(()),
        }
    }
}

/// The first moment at which somebody born on a day is of age, ms since 1970.
fn of_age_ms(birth: &str) -> Option<u64> {
    let (year, month, day) = birth.parse::<Date>().ok()?.civil();
    // The day after, where the year has no 29th of February.
    let day = Date::from_civil(year + AGE, month, day).or_else(|| Date::from_civil(year + AGE, 3, 1))?;
    u64::try_from(day.first_second()).ok()?.checked_mul(1_000)
}
