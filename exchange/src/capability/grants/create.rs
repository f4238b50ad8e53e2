//! `POST /v1/grants`: a holder or the holder's agent, through a portal, lets an organisation use a license or all of a type.
//!
//! The path alone calls it. The grant comes with its entry's frame, or not at all.

use std::borrow::Cow;
use std::sync::Arc;

use ledger::record::GrantState;
use ledger::{Key, Label};
use schemas::codes::{Code, Reason, Rule};
use schemas::date::rfc3339;
use schemas::holder::HolderRef;
use schemas::identifier::{CertificateIdentifier, LicenseTypeCode, Uscc};
use schemas::kinds::{LinkKind, Scenario};
use schemas::license_type::LicenseType;
use schemas::routes::Route;
use serde::Deserialize;

use super::Answer;
use crate::capability::Capability;
use crate::gateway::case::Case;
use crate::gateway::change::{Change, json as answer};
use crate::gateway::names::{About, Names, Terms};
use crate::gateway::permit::{Permit, Ruling};
use crate::keyed;
use crate::participant::{Participant, Role};
use crate::rights::assertion::{Told, assurance, told};
use crate::rights::floor;
use crate::rights::link::{Chain, chain};
use crate::rights::mode::Mode;
use crate::wire::named::{Holder, scenario};
use crate::wire::read::{Body, json};
use crate::wire::refusal::{Fault, Gather, Placed as _, Refusal};
use crate::wire::text::{
    MAX_CONTEXT_CHARS, MAX_FIELDS, Text, moment, names, owned_words, to_come, type_code, unknown_type,
};

/// The capability.
pub(crate) struct Create;

/// A new grant.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The holder the portal vouches for.
    pub holder: HolderRef,
    /// The organisation that may use it.
    pub grantee: Uscc,
    /// One license, or all of a type.
    pub target: Target,
    /// Modes allowed, as bits.
    pub modes: u8,
    /// Fields that may be disclosed or expected.
    pub fields: Vec<String>,
    /// The person who acts for the holder.
    pub agent: Option<HolderRef>,
    /// Limits of the uses.
    pub limits: Limits,
    /// Last valid moment, ms since 1970.
    pub until_ms: u64,
    /// Most uses; 0 = without limit.
    pub max_uses: u32,
    /// The identity provider's word for whoever grants.
    pub assertion: Option<String>,
}

/// The uses that a grant is limited to; nothing: any.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    /// This service item.
    pub item_code: Option<String>,
    /// This purpose.
    pub purpose: Option<String>,
    /// This field of use.
    pub scenario: Option<Scenario>,
    /// This user of the grantee's.
    pub user_name: Option<String>,
}

/// The licenses that a grant is for.
#[derive(Debug)]
pub(crate) enum Target {
    /// One license.
    License(CertificateIdentifier),
    /// All of the holder's licenses of a type.
    Type(LicenseTypeCode),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    holder: Holder<'a>,
    grantee: Text<'a>,
    identifier: Option<Text<'a>>,
    type_code: Option<Text<'a>>,
    modes: Vec<Mode>,
    fields: Option<Vec<String>>,
    agent: Option<Holder<'a>>,
    item_code: Option<String>,
    purpose: Option<String>,
    scenario: Option<String>,
    user_name: Option<String>,
    until: Text<'a>,
    max_uses: Option<u32>,
    assertion: Option<String>,
}

/// The terms that a decision found.
#[derive(Debug)]
pub(crate) struct Granted {
    holder: Label,
    target: Key,
    fields: u64,
    chain: Option<Chain>,
    told: Option<Told>,
}

impl Capability<'_> for Create {
    const ROUTE: Route = Route::GrantCreate;
    type Asked = Asked;
    type Granted = Granted;

    fn read(body: Body<'_>) -> Result<Asked, Refusal> {
        json::<Request<'_>>(body.bytes)?.typed()
    }

    fn names<'a>(asked: &'a Asked, _caller: &Uscc) -> Names<'a> {
        let fields = asked.fields.iter().map(Cow::from).collect();
        let terms = Some(asked.limits.terms(Some(&asked.grantee), Some(asked.until_ms), None));
        let names = Names { fields, terms, ..Names::default() };
        let names = names.holder(&asked.holder, asked.agent.as_ref());
        match &asked.target {
            Target::Type(code) => Names { type_asked: Some(code), ..names },
            Target::License(identifier) => Names {
                about: About::License(identifier),
                identifiers: vec![identifier.to_string().into()],
                ..names
            },
        }
    }

    fn decide(case: &mut Case<'_>, caller: &Participant, asked: &Asked) -> Result<Ruling<Granted>, Refusal> {
        let grantor = asked.agent.as_ref().unwrap_or(&asked.holder);
        let told = told(case, &caller.organisation, asked.assertion.as_deref(), grantor, true)?;
        let holder =
            case.holder(&asked.holder).ok_or_else(|| Refusal::not_permitted(Reason::NoSuchHolder))?;
        let concerned = vec![holder.label];
        let chain = asked.agent.as_ref().map(|agent| chain(case, &caller.organisation, &asked.holder, agent));
        let chain = chain.transpose().map_err(Refusal::not_permitted)?;
        let bad = |fault| Refusal::of(Code::BadGrant, fault);
        let (target, type_code) = match &asked.target {
            Target::License(identifier) => {
                let found = case.license(keyed::license_key(case.keyed(), identifier));
                let found = found.ok_or_else(|| Refusal::not_permitted(Reason::NoSuchLicense))?;
                if !found.license.holders.contains(&holder.label) {
                    return Err(Refusal::not_permitted(Reason::OtherHolder));
                }
                (found.key, identifier.type_code())
            }
            Target::Type(code) => (keyed::type_key(case.keyed(), code), *code),
        };
        let license_type = case.license_type(&type_code).ok_or_else(|| unknown_type("/typeCode"))?;
        let fields = field_mask(&license_type, &asked.fields, asked.modes)?;
        let scenarios = &license_type.scenarios;
        if let Some(scenario) = asked.limits.scenario
            && !scenarios.is_empty()
            && !scenarios.contains(&scenario)
        {
            let names = scenarios.iter().map(|scenario| scenario.name());
            return Err(bad(Fault::at("/scenario", Rule::OneOf).one_of(names)));
        }
        if let Some(chain) = &chain {
            beyond(chain, asked.modes, asked.until_ms, &type_code)?;
        }
        let grantee = case.participant(&asked.grantee);
        let may_hold = grantee.is_some_and(|grantee| grantee.has(Role::Relying) || grantee.has(Role::Peer));
        // A portal that vouches for a holder would grant itself what it likes.
        if !may_hold || asked.grantee == caller.organisation {
            let allowed = "another organisation of the register, relying party or peer";
            return Err(bad(Fault::at("/grantee", Rule::NotAllowed).form(allowed)));
        }
        if asked.until_ms <= case.now_ms() {
            return Err(bad(to_come("/until")));
        }
        Ok(Ruling::plain(Granted { holder: holder.label, target, fields, chain, told }, concerned))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked,
        permit: Permit<Granted>,
    ) -> Result<Vec<u8>, Refusal> {
        let Granted { holder, target, fields, chain, told } = permit.into_granted();
        if let Some(told) = &told {
            change.spend(told)?;
        }
        let mut links = Vec::new();
        if let (Some(chain), Some(agent)) = (&chain, &asked.agent) {
            acting(change, chain, agent)?;
            links = chain.entered();
        }
        let keyed = change.tools().ledger.keyed();
        let Limits { item_code, purpose, scenario, user_name } = &asked.limits;
        let user_tag = user_name.as_deref().map_or(0, |name| keyed::user_tag(keyed, &asked.grantee, name));
        let id = change.new_grant(GrantState {
            key: [0; 16],
            version: 1,
            state: floor::GRANT_ACTIVE,
            holder,
            grantee: *asked.grantee.as_bytes(),
            target,
            target_is_type: matches!(asked.target, Target::Type(_)),
            modes: asked.modes,
            fields,
            item_tag: item_code.as_deref().map_or(0, |code| keyed::item_tag(keyed, code)),
            until_ms: asked.until_ms,
            max_uses: asked.max_uses,
            portal: *change.entry().organisation.as_bytes(),
            purpose: purpose.as_deref().map(Arc::from),
            scenario: scenario.map_or(0, Scenario::number),
            user_tag,
            assurance: assurance(told.as_ref()),
            chain: links,
        })?;
        change.names().grant = Some(id);
        Ok(answer(&Answer { grant: hex::encode(id), state: "active" }))
    }
}

impl Request<'_> {
    fn typed(self) -> Result<Asked, Refusal> {
        let mut wrong = Gather::new();
        let bad = |fault| Refusal::of(Code::BadGrant, fault);
        let target = wrong.take(match (self.identifier, self.type_code) {
            (Some(text), None) => Refusal::parse(&text).map(Target::License).under("identifier"),
            (None, Some(code)) => type_code(&code).map(Target::Type).under("typeCode"),
            _ => Err(bad(Fault::at("", Rule::Combination).form("identifier or typeCode"))),
        });
        let modes = wrong.take(modes(&self.modes));
        let limits = LimitsValue {
            item_code: self.item_code,
            purpose: self.purpose,
            scenario: self.scenario,
            user_name: self.user_name,
        };
        let limits = wrong.take(limits.typed());
        if self.max_uses == Some(0) {
            let most = usize::try_from(u32::MAX).unwrap_or(usize::MAX);
            wrong.note(bad(Fault::at("/maxUses", Rule::Range).bounds(1, most)));
        }
        let fields = self.fields.unwrap_or_default();
        // Such a grant would give nothing.
        let most = modes.unwrap_or_default();
        if most & Mode::Fields.bit() != 0 && most & FACES == 0 && fields.is_empty() {
            wrong.note(bad(Fault::at("/fields", Rule::Required).bounds(1, MAX_FIELDS)));
        }
        let holder = wrong.take(self.holder.typed().under("holder"));
        let grantee = wrong.take(Refusal::parse(&self.grantee).under("grantee"));
        let fields = wrong.take(names(fields).under("fields"));
        let agent = wrong.take(agent(Code::BadGrant, self.agent, holder.as_ref()));
        let until_ms = wrong.take(moment(Code::BadGrant, &self.until).under("until"));
        let typed = || {
            Some(Asked {
                holder: holder?,
                grantee: grantee?,
                target: target?,
                modes: modes?,
                fields: fields?,
                agent: agent?,
                limits: limits?,
                until_ms: until_ms?,
                max_uses: self.max_uses.unwrap_or(0),
                assertion: self.assertion,
            })
        };
        wrong.all(typed())
    }
}

/// The limits of uses, as they were sent.
pub(super) struct LimitsValue {
    pub(super) item_code: Option<String>,
    pub(super) purpose: Option<String>,
    pub(super) scenario: Option<String>,
    pub(super) user_name: Option<String>,
}

impl LimitsValue {
    pub(super) fn typed(self) -> Result<Limits, Refusal> {
        let mut wrong = Gather::new();
        let mut text = |name: &str, text: Option<String>| {
            let read = text.map(|text| owned_words(Code::BadGrant, text, MAX_CONTEXT_CHARS));
            wrong.take(read.transpose().under(name))
        };
        let (item_code, purpose) = (text("itemCode", self.item_code), text("purpose", self.purpose));
        let user_name = text("userName", self.user_name);
        let named = self.scenario.as_deref().map(|name| scenario(Code::BadGrant, name));
        let scenario = wrong.take(named.transpose().under("scenario"));
        let typed = || {
            let (item_code, purpose, scenario) = (item_code?, purpose?, scenario?);
            Some(Limits { item_code, purpose, scenario, user_name: user_name? })
        };
        wrong.all(typed())
    }
}

impl Limits {
    /// The words that the holder is told of them.
    pub(super) fn terms<'a>(
        &'a self,
        grantee: Option<&'a Uscc>,
        until_ms: Option<u64>,
        action: Option<&'static str>,
    ) -> Terms<'a> {
        Terms {
            action,
            grantee,
            purpose: self.purpose.as_deref(),
            scenario: self.scenario,
            until: until_ms.map(rfc3339),
            verifiers: None,
        }
    }
}

/// Modes that disclose all fields.
const FACES: u8 = Mode::Face.bit() | Mode::Copy.bit();

/// Modes as bits.
pub(super) fn modes(modes: &[Mode]) -> Result<u8, Refusal> {
    let bits = modes.iter().fold(0, |bits, mode| bits | mode.bit());
    let bad = |fault| Err(Refusal::of(Code::BadGrant, fault));
    if bits == 0 {
        return bad(Fault::at("/modes", Rule::Count).bounds(1, Mode::ALL.len()).got(0));
    }
    // Without the signed bytes there is nothing that mode `ended` would give.
    if bits & Mode::Ended.bit() != 0 && bits & Mode::Envelope.bit() == 0 {
        return bad(Fault::at("/modes", Rule::Combination).form("ended beside envelope only"));
    }
    Ok(bits)
}

/// The person who acts for a holder, who is somebody else.
pub(crate) fn agent(
    code: Code,
    agent: Option<Holder<'_>>,
    holder: Option<&HolderRef>,
) -> Result<Option<HolderRef>, Refusal> {
    let agent = agent.map(Holder::typed).transpose().under("agent")?;
    if agent.is_some() && agent.as_ref() == holder {
        return Err(Refusal::of(code, Fault::at("/agent", Rule::Distinct)));
    }
    Ok(agent)
}

/// The bits of fields. A grant that gives the face and names no field gives all of them.
pub(super) fn field_mask(license_type: &LicenseType, fields: &[String], modes: u8) -> Result<u64, Refusal> {
    if fields.is_empty() && modes & FACES != 0 {
        return Ok(u64::MAX);
    }
    let mask = floor::field_mask(Some(license_type), fields.iter().map(String::as_str));
    mask.ok_or_else(|| {
        let names = || {
            let own = license_type.fields.iter().map(|field| field.key.clone());
            own.chain(schemas::license_type::BASE_FIELDS.map(str::to_owned))
        };
        let places = fields.iter().zip(0..);
        let unknown =
            places.filter(|(name, _)| floor::field_mask(Some(license_type), [name.as_str()]).is_none());
        let fault = |(_, place)| Fault::at(format!("/fields/{place}"), Rule::OneOf).one_of(names());
        Refusal::all(Code::BadGrant, unknown.map(fault).collect())
    })
}

/// An agent grants no more, and no longer, than its links allow.
fn beyond(chain: &Chain, modes: u8, until_ms: u64, type_code: &LicenseTypeCode) -> Result<(), Refusal> {
    if chain.allows(modes, |code| code == type_code) && until_ms <= chain.until_ms() {
        return Ok(());
    }
    Err(Refusal::explained(Code::BadGrant, Reason::BeyondLink))
}

/// Notes in whose name an agent acts. The entry concerns the agent, too.
pub(crate) fn acting(change: &mut Change<'_>, chain: &Chain, agent: &HolderRef) -> Result<(), Refusal> {
    change.concern(agent)?;
    change.acting_for(chain.persons());
    change.names().link = chain.kind().map(LinkKind::name);
    Ok(())
}
