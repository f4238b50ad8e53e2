//! `POST /v1/grants`: a holder or the holder's agent, through a portal, lets an organisation use licenses or all of some types.
//!
//! The path alone calls it. The grant comes with its entry's frame, or not at all.

use std::borrow::Cow;
use std::sync::Arc;

use ledger::record::{GrantState, MAX_GRANT_TARGETS};
use ledger::{GrantTarget, Key, Label};
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
    /// Licenses, or all of some types.
    pub target: Target,
    /// The request names them in a list.
    pub is_list: bool,
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
    /// These, each once.
    Licenses(Vec<CertificateIdentifier>),
    /// All of the holder's licenses of these types, each once.
    Types(Vec<LicenseTypeCode>),
}

impl Target {
    /// The member of the request that names them: one, or a list.
    const fn member(&self, is_list: bool) -> &'static str {
        match (self, is_list) {
            (Self::Licenses(_), false) => "identifier",
            (Self::Licenses(_), true) => "identifiers",
            (Self::Types(_), false) => "typeCode",
            (Self::Types(_), true) => "typeCodes",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    holder: Holder<'a>,
    grantee: Text<'a>,
    identifier: Option<Text<'a>>,
    identifiers: Option<Vec<Text<'a>>>,
    type_code: Option<Text<'a>>,
    type_codes: Option<Vec<Text<'a>>>,
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
    targets: Vec<GrantTarget>,
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
            Target::Types(codes) => Names { types_asked: codes, ..names },
            Target::Licenses(identifiers) => Names {
                about: About::Licenses(identifiers),
                identifiers: identifiers.iter().map(|identifier| identifier.to_string().into()).collect(),
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
        // A fault of what is asked is told before a license is looked up, so that it says nothing of one.
        let type_codes: Vec<LicenseTypeCode> = match &asked.target {
            Target::Licenses(identifiers) => {
                identifiers.iter().map(CertificateIdentifier::type_code).collect()
            }
            Target::Types(codes) => codes.clone(),
        };
        let mut license_types = Vec::with_capacity(type_codes.len());
        for (type_code, place) in type_codes.iter().zip(0..) {
            let license_type = case.license_type(type_code);
            let license_type = license_type.ok_or_else(|| unknown_type(&asked.place(place)))?;
            let scenarios = &license_type.scenarios;
            if let Some(scenario) = asked.limits.scenario
                && !scenarios.is_empty()
                && !scenarios.contains(&scenario)
            {
                let names = scenarios.iter().map(|scenario| scenario.name());
                return Err(bad(Fault::at("/scenario", Rule::OneOf).one_of(names)));
            }
            if let Some(chain) = &chain {
                beyond(chain, asked.modes, asked.until_ms, type_code)?;
            }
            license_types.push(license_type);
        }
        let types: Vec<&LicenseType> = license_types.iter().map(|license_type| &**license_type).collect();
        let fields = field_masks(&types, &asked.fields, asked.modes)?;
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
        let keys: Vec<Key> = match &asked.target {
            Target::Licenses(identifiers) => {
                let of_holder = |identifier: &CertificateIdentifier| {
                    let found = case.license(keyed::license_key(case.keyed(), identifier));
                    let found = found.ok_or_else(|| Refusal::not_permitted(Reason::NoSuchLicense))?;
                    if !found.license.holders.contains(&holder.label) {
                        return Err(Refusal::not_permitted(Reason::OtherHolder));
                    }
                    Ok(found.key)
                };
                identifiers.iter().map(of_holder).collect::<Result<_, _>>()?
            }
            Target::Types(codes) => codes.iter().map(|code| keyed::type_key(case.keyed(), code)).collect(),
        };
        let targets = keys.into_iter().zip(fields).map(|(key, fields)| GrantTarget { key, fields }).collect();
        Ok(Ruling::plain(Granted { holder: holder.label, targets, chain, told }, concerned))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked,
        permit: Permit<Granted>,
    ) -> Result<Vec<u8>, Refusal> {
        let Granted { holder, targets, chain, told } = permit.into_granted();
        let (first, more) = targets.split_first().ok_or_else(|| Refusal::new(Code::Internal))?;
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
            target: first.key,
            target_is_type: matches!(asked.target, Target::Types(_)),
            modes: asked.modes,
            fields: first.fields,
            item_tag: item_code.as_deref().map_or(0, |code| keyed::item_tag(keyed, code)),
            until_ms: asked.until_ms,
            max_uses: asked.max_uses,
            portal: *change.entry().organisation.as_bytes(),
            purpose: purpose.as_deref().map(Arc::from),
            scenario: scenario.map_or(0, Scenario::number),
            user_tag,
            assurance: assurance(told.as_ref()),
            chain: links,
            more_targets: more.to_vec(),
        })?;
        change.names().grant = Some(id);
        Ok(answer(&Answer { grant: hex::encode(id), state: "active" }))
    }
}

impl Request<'_> {
    fn typed(self) -> Result<Asked, Refusal> {
        let mut wrong = Gather::new();
        let bad = |fault| Refusal::of(Code::BadGrant, fault);
        let is_list = self.identifiers.is_some() || self.type_codes.is_some();
        let one_or_several = "one of identifier, identifiers, typeCode, typeCodes";
        let target = match (self.identifier, self.identifiers, self.type_code, self.type_codes) {
            (Some(text), None, None, None) => {
                Refusal::parse(&text).map(|one| Target::Licenses(vec![one])).under("identifier")
            }
            (None, Some(texts), None, None) => {
                each(&texts, Refusal::parse).map(Target::Licenses).under("identifiers")
            }
            (None, None, Some(code), None) => {
                type_code(&code).map(|one| Target::Types(vec![one])).under("typeCode")
            }
            (None, None, None, Some(codes)) => each(&codes, type_code).map(Target::Types).under("typeCodes"),
            _ => Err(bad(Fault::at("", Rule::Combination).form(one_or_several))),
        };
        let target = wrong.take(target);
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
                is_list,
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

impl Asked {
    /// The place of a license or type in the request.
    fn place(&self, place: usize) -> String {
        let member = self.target.member(self.is_list);
        if self.is_list { format!("/{member}/{place}") } else { format!("/{member}") }
    }
}

/// What a grant is for, each of it read, and named once.
fn each<T: PartialEq>(
    texts: &[Text<'_>],
    read: impl Fn(&str) -> Result<T, Refusal>,
) -> Result<Vec<T>, Refusal> {
    let bad = |fault| Refusal::of(Code::BadGrant, fault);
    if texts.is_empty() || texts.len() > MAX_GRANT_TARGETS {
        return Err(bad(Fault::at("", Rule::Count).bounds(1, MAX_GRANT_TARGETS).got(texts.len())));
    }
    let (mut all, mut wrong) = (Vec::with_capacity(texts.len()), Gather::new());
    for (text, place) in texts.iter().zip(0..) {
        let Some(one) = wrong.take(read(text).under(place.to_string())) else { continue };
        if all.contains(&one) {
            wrong.note(bad(Fault::at(format!("/{place}"), Rule::Distinct)));
        }
        all.push(one);
    }
    wrong.all(Some(all))
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

/// The bits of fields in each of the types that a grant is for. A name is a field of at least one of them. A grant that gives the face
/// and names no field gives all of them.
pub(super) fn field_masks(types: &[&LicenseType], fields: &[String], modes: u8) -> Result<Vec<u64>, Refusal> {
    if fields.is_empty() && modes & FACES != 0 {
        return Ok(vec![u64::MAX; types.len()]);
    }
    let bit = |of: &LicenseType, name: &String| floor::field_bit(Some(of), name);
    let mut known: Vec<String> = Vec::new();
    for name in types.iter().flat_map(|of| &of.fields).map(|field| &field.key) {
        if !known.contains(name) {
            known.push(name.clone());
        }
    }
    known.extend(schemas::license_type::BASE_FIELDS.map(str::to_owned));
    let places = fields.iter().zip(0..);
    let unknown: Vec<Fault> = places
        .filter(|(name, _)| types.iter().all(|of| bit(of, name).is_none()))
        .map(|(_, place)| Fault::at(format!("/fields/{place}"), Rule::OneOf).one_of(known.iter().cloned()))
        .collect();
    if !unknown.is_empty() {
        return Err(Refusal::all(Code::BadGrant, unknown));
    }
    let mask =
        |of: &&LicenseType| fields.iter().filter_map(|name| bit(of, name)).fold(0, |mask, bit| mask | bit);
    Ok(types.iter().map(mask).collect())
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
