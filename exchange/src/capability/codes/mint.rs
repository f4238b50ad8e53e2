//! `POST /v1/codes`: a holder or the holder's agent, through a portal, gets a code to show once.
//!
//! The path alone calls it. The code comes with its entry's frame, or not at all.

use std::borrow::Cow;

use ledger::Label;
use schemas::codes::{Code, Reason, Rule};
use schemas::date::rfc3339;
use schemas::holder::HolderRef;
use schemas::identifier::{CertificateIdentifier, Uscc};
use schemas::kinds::Verifiers;
use schemas::license_type::{BASE_FIELDS, LicenseType};
use schemas::routes::Route;
use serde::{Deserialize, Serialize};
use verifier::trace::Label as PageLabel;

use crate::capability::Capability;
use crate::capability::grants::create::{acting, agent};
use crate::gateway::case::{Case, Place};
use crate::gateway::change::{Change, json as answer};
use crate::gateway::names::{About, Names, Terms};
use crate::gateway::permit::{Permit, Ruling};
use crate::keyed;
use crate::participant::Participant;
use crate::rights::assertion::{Told, told};
use crate::rights::code::{PresentationCode, Shown, Token};
use crate::rights::floor;
use crate::rights::link::{Chain, chain};
use crate::wire::named::Holder;
use crate::wire::read::{Body, json};
use crate::wire::refusal::{Fault, Gather, Placed as _, Refusal};
use crate::wire::text::{Text, names, unknown_type};

/// How long a code is good, seconds: the least, the usual, the most.
const SECONDS: [u64; 3] = [5, 60, 300];
/// The word that a holder's trace has for it.
const ACTION: &str = "code";

/// The capability.
pub(crate) struct Mint;

/// A code to be made.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The holder the portal vouches for.
    pub holder: HolderRef,
    /// The person who acts for the holder.
    pub agent: Option<HolderRef>,
    /// The license that it shows; `None` for a code of the holder.
    pub license: Option<CertificateIdentifier>,
    /// Fields that may be asked for.
    pub fields: Vec<String>,
    /// The verifiers that may scan it.
    pub verifiers: Verifiers,
    /// For how long, seconds.
    pub seconds: u64,
    /// The identity provider's word for whoever shows it.
    pub assertion: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    holder: Holder<'a>,
    agent: Option<Holder<'a>>,
    identifier: Option<Text<'a>>,
    fields: Option<Vec<String>>,
    verifiers: Text<'a>,
    seconds: Option<u64>,
    assertion: Option<String>,
}

/// A code that a decision made.
#[derive(Debug)]
pub(crate) struct Granted {
    token: Token,
    place: Place,
    code: PresentationCode,
    chain: Option<Chain>,
    told: Option<Told>,
}

#[derive(Serialize)]
struct Answer {
    text: String,
    verifiers: Verifiers,
    until: String,
}

impl Capability<'_> for Mint {
    const ROUTE: Route = Route::CodeMint;
    type Asked = Asked;
    type Granted = Granted;

    fn read(body: Body<'_>) -> Result<Asked, Refusal> {
        json::<Request<'_>>(body.bytes)?.typed()
    }

    fn names<'a>(asked: &'a Asked, _caller: &Uscc) -> Names<'a> {
        let fields = asked.fields.iter().map(Cow::from).collect();
        let terms = Terms { action: Some(ACTION), verifiers: Some(asked.verifiers), ..Terms::default() };
        let names = Names { fields, terms: Some(terms), ..Names::default() };
        let names = names.holder(&asked.holder, asked.agent.as_ref());
        match &asked.license {
            None => names,
            Some(identifier) => Names {
                about: About::Licenses(std::slice::from_ref(identifier)),
                identifiers: vec![identifier.to_string().into()],
                ..names
            },
        }
    }

    fn decide(case: &mut Case<'_>, caller: &Participant, asked: &Asked) -> Result<Ruling<Granted>, Refusal> {
        let who = asked.agent.as_ref().unwrap_or(&asked.holder);
        let told = told(case, &caller.organisation, asked.assertion.as_deref(), who, true)?;
        let denied = Refusal::not_permitted;
        let holder = case.holder(&asked.holder).ok_or_else(|| denied(Reason::NoSuchHolder))?;
        let chain = asked.agent.as_ref().map(|agent| chain(case, &caller.organisation, &asked.holder, agent));
        let chain = chain.transpose().map_err(denied)?;
        // A fault of what is asked is told before a license is looked up, so that it says nothing of one.
        let type_code = asked.license.as_ref().map(CertificateIdentifier::type_code);
        if let Some(type_code) = &type_code {
            let license_type = case.license_type(type_code).ok_or_else(|| unknown_type("/identifier"))?;
            known(&license_type, &asked.fields)?;
        }
        let until_ms = case.now_ms().saturating_add(asked.seconds.saturating_mul(1_000));
        if let Some(chain) = &chain {
            let is_type = |code: &_| type_code.as_ref() == Some(code);
            if !chain.allows(PresentationCode::modes(&asked.fields), is_type) || until_ms > chain.until_ms() {
                return Err(Refusal::explained(Code::BadCode, Reason::BeyondLink));
            }
        }
        let license = match (&asked.license, type_code) {
            (Some(identifier), Some(type_code)) => {
                let found = case.license(keyed::license_key(case.keyed(), identifier));
                let found = found.ok_or_else(|| denied(Reason::NoSuchLicense))?;
                if !found.license.holders.contains(&holder.label) {
                    return Err(denied(Reason::OtherHolder));
                }
                Some(Shown { key: PageLabel(found.key), type_code })
            }
            (None, _) | (Some(_), None) => None,
        };
        let token = Token::new()?;
        let (place, _) = case.document::<PresentationCode>(token.key(case.keyed()));
        let code = PresentationCode {
            holder: PageLabel(holder.label),
            license,
            verifiers: asked.verifiers,
            fields: asked.fields.clone(),
            chain: chain.as_ref().map(Chain::kept).unwrap_or_default(),
            portal: caller.organisation,
            until_ms,
            end: None,
        };
        let concerned: Vec<Label> = vec![holder.label];
        Ok(Ruling::plain(Granted { token, place, code, chain, told }, concerned))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked,
        permit: Permit<Granted>,
    ) -> Result<Vec<u8>, Refusal> {
        let Granted { token, place, code, chain, told } = permit.into_granted();
        if let Some(told) = &told {
            change.spend(told)?;
        }
        if let (Some(chain), Some(agent)) = (&chain, &asked.agent) {
            acting(change, chain, agent)?;
        }
        let until = rfc3339(code.until_ms);
        if let Some(terms) = &mut change.names().terms {
            terms.until = Some(until.clone());
        }
        change.keep(place, &code);
        Ok(answer(&Answer { text: token.text(), verifiers: code.verifiers, until }))
    }
}

/// Whether each of these is a field of the type.
fn known(license_type: &LicenseType, fields: &[String]) -> Result<(), Refusal> {
    let unknown =
        fields.iter().zip(0..).filter(|(name, _)| floor::field_bit(Some(license_type), name).is_none());
    let own = || license_type.fields.iter().map(|field| field.key.clone());
    let names = || own().chain(BASE_FIELDS.map(str::to_owned));
    let faults: Vec<Fault> = unknown
        .map(|(_, place)| Fault::at(format!("/fields/{place}"), Rule::OneOf).one_of(names()))
        .collect();
    if faults.is_empty() { Ok(()) } else { Err(Refusal::all(Code::BadCode, faults)) }
}

impl Request<'_> {
    fn typed(self) -> Result<Asked, Refusal> {
        let mut wrong = Gather::new();
        let bad = |fault| Refusal::of(Code::BadCode, fault);
        let holder = wrong.take(self.holder.typed().under("holder"));
        let agent = wrong.take(agent(Code::BadCode, self.agent, holder.as_ref()));
        let license =
            wrong.take(self.identifier.as_deref().map(Refusal::parse).transpose().under("identifier"));
        let fields = wrong.take(names(self.fields.unwrap_or_default()).under("fields"));
        if self.identifier.is_none() && fields.as_ref().is_some_and(|fields| !fields.is_empty()) {
            wrong.note(bad(Fault::at("/fields", Rule::Combination).form("with an identifier only")));
        }
        let verifiers = Verifiers::ALL.into_iter().find(|one| one.name() == &*self.verifiers);
        if verifiers.is_none() {
            let fault = Fault::at("/verifiers", Rule::OneOf).one_of(Verifiers::ALL.map(Verifiers::name));
            wrong.note(bad(fault.got(self.verifiers.chars().count())));
        }
        let [least, usual, most] = SECONDS;
        let seconds = self.seconds.unwrap_or(usual);
        if !(least..=most).contains(&seconds) {
            let number = |seconds| usize::try_from(seconds).unwrap_or(usize::MAX);
            wrong.note(bad(Fault::at("/seconds", Rule::Range).bounds(number(least), number(most))));
        }
        let typed = || {
            Some(Asked {
                holder: holder?,
                agent: agent?,
                license: license?,
                fields: fields?,
                verifiers: verifiers?,
                seconds,
                assertion: self.assertion,
            })
        };
        wrong.all(typed())
    }
}
