//! `POST /v1/grants`: a holder, through a portal, lets an organisation use a license or all of a type.
//!
//! The path alone calls it. The grant comes with its entry's frame, or not at all.

use std::borrow::Cow;

use ledger::record::GrantState;
use ledger::{Key, Label};
use schemas::codes::{Code, Reason, Rule};
use schemas::holder::HolderRef;
use schemas::identifier::{CertificateIdentifier, LicenseTypeCode, Uscc};
use schemas::license_type::LicenseType;
use schemas::routes::Route;
use serde::Deserialize;

use super::Answer;
use crate::capability::Capability;
use crate::gateway::case::Case;
use crate::gateway::change::{Change, json as answer};
use crate::gateway::names::{About, HOLDER, Names};
use crate::gateway::permit::{Permit, Ruling};
use crate::keyed;
use crate::participant::{Participant, Role};
use crate::rights::floor;
use crate::rights::mode::Mode;
use crate::wire::named::Holder;
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
    /// Only for this service item.
    pub item_code: Option<String>,
    /// Last valid moment, ms since 1970.
    pub until_ms: u64,
    /// Most uses; 0 = without limit.
    pub max_uses: u32,
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
    item_code: Option<String>,
    until: Text<'a>,
    max_uses: Option<u32>,
}

/// The terms that a decision found.
#[derive(Debug)]
pub(crate) struct Terms {
    holder: Label,
    target: Key,
    fields: u64,
}

impl Capability<'_> for Create {
    const ROUTE: Route = Route::GrantCreate;
    type Asked = Asked;
    type Granted = Terms;

    fn read(body: Body<'_>) -> Result<Asked, Refusal> {
        json::<Request<'_>>(body.bytes)?.typed()
    }

    fn names<'a>(asked: &'a Asked, _caller: &Uscc) -> Names<'a> {
        let fields = asked.fields.iter().map(Cow::from).collect();
        let names = Names { fields, ..Names::default() }.person(&asked.holder, HOLDER);
        match &asked.target {
            Target::Type(_) => names,
            Target::License(identifier) => Names {
                about: About::License(identifier),
                identifiers: vec![identifier.to_string().into()],
                ..names
            },
        }
    }

    fn decide(case: &mut Case<'_>, caller: &Participant, asked: &Asked) -> Result<Ruling<Terms>, Refusal> {
        let holder =
            case.holder(&asked.holder).ok_or_else(|| Refusal::not_permitted(Reason::NoSuchHolder))?;
        let concerned = vec![holder.label];
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
        let fields = floor::field_mask(Some(&license_type), asked.fields.iter().map(String::as_str));
        let fields =
            fields.ok_or_else(|| Refusal::all(Code::BadGrant, unknown_names(&license_type, asked)))?;
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
        Ok(Ruling::plain(Terms { holder: holder.label, target, fields }, concerned))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked,
        permit: Permit<Terms>,
    ) -> Result<Vec<u8>, Refusal> {
        let Terms { holder, target, fields } = permit.into_granted();
        let keyed = change.tools().ledger.keyed();
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
            item_tag: asked.item_code.as_deref().map_or(0, |code| keyed::item_tag(keyed, code)),
            until_ms: asked.until_ms,
            max_uses: asked.max_uses,
            portal: *change.entry().organisation.as_bytes(),
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
        let modes = self.modes.iter().fold(0, |bits, mode| bits | mode.bit());
        let item_code = match self.item_code {
            None => Some(None),
            Some(code) => {
                let read = owned_words(Code::BadGrant, code, MAX_CONTEXT_CHARS);
                wrong.take(read.under("itemCode")).map(Some)
            }
        };
        if modes == 0 {
            wrong.note(bad(Fault::at("/modes", Rule::Count).bounds(1, Mode::ALL.len()).got(0)));
        }
        // Without the signed bytes there is nothing that mode `ended` would give.
        if modes & Mode::Ended.bit() != 0 && modes & Mode::Envelope.bit() == 0 {
            wrong.note(bad(Fault::at("/modes", Rule::Combination).form("ended beside envelope only")));
        }
        if self.max_uses == Some(0) {
            let most = usize::try_from(u32::MAX).unwrap_or(usize::MAX);
            wrong.note(bad(Fault::at("/maxUses", Rule::Range).bounds(1, most)));
        }
        let fields = self.fields.unwrap_or_default();
        // Such a grant would give nothing.
        if modes & Mode::Fields.bit() != 0 && fields.is_empty() {
            wrong.note(bad(Fault::at("/fields", Rule::Required).bounds(1, MAX_FIELDS)));
        }
        let holder = wrong.take(self.holder.typed().under("holder"));
        let grantee = wrong.take(Refusal::parse(&self.grantee).under("grantee"));
        let fields = wrong.take(names(fields).under("fields"));
        let until_ms = wrong.take(moment(Code::BadGrant, &self.until).under("until"));
        let typed = || {
            Some(Asked {
                holder: holder?,
                grantee: grantee?,
                target: target?,
                modes,
                fields: fields?,
                item_code: item_code?,
                until_ms: until_ms?,
                max_uses: self.max_uses.unwrap_or(0),
            })
        };
        wrong.all(typed())
    }
}

/// The names that are none of the type's fields.
fn unknown_names(license_type: &LicenseType, asked: &Asked) -> Vec<Fault> {
    let names = || {
        let own = license_type.fields.iter().map(|field| field.key.clone());
        own.chain(schemas::license_type::BASE_FIELDS.map(str::to_owned))
    };
    let places = asked.fields.iter().zip(0..);
    places
        .filter(|(name, _)| floor::field_mask(Some(license_type), [name.as_str()]).is_none())
        .map(|(_, place)| Fault::at(format!("/fields/{place}"), Rule::OneOf).one_of(names()))
        .collect()
}
