//! `POST /v1/codes/scan`: a verifier scans the code that a holder shows, once; an inspector scans a posted permit too.
//!
//! The path alone calls it. A code is used up with its entry's frame, or can still be used after a crash.

use std::borrow::Cow;
use std::collections::BTreeMap;

use ledger::record::DocumentState;
use ledger::{Label, Ledger};
use schemas::codes::{Code, Reason, Rule};
use schemas::date::Date;
use schemas::holder::HolderRef;
use schemas::identifier::{LicenseTypeCode, Uscc};
use schemas::routes::Route;
use schemas::state::LicenseState;
use serde::Deserialize;
use verifier::report::Verdict;

use crate::capability::Capability;
use crate::capability::licenses::stored::{self, Masks, Shown};
use crate::capability::verify::{all_open, standing, verdict_name};
use crate::gateway::case::{Case, Found, Place};
use crate::gateway::change::{Change, in_place};
use crate::gateway::names::{About, HOLDER, Names};
use crate::gateway::permit::{Disclosure, Permit, Ruling};
use crate::keyed;
use crate::participant::{Participant, Role};
use crate::rights::assertion::user;
use crate::rights::code::{End, PresentationCode, Token};
use crate::rights::floor;
use crate::rights::intended::{Wanted, within};
use crate::rights::mode::Mode;
use crate::rights::right::Right;
use crate::wire::named::{ContextValue, Holder, Named, UseContext, context};
use crate::wire::object::Object;
use crate::wire::read::{Body, json};
use crate::wire::refusal::{Fault, Gather, Placed as _, Refusal};
use crate::wire::text::{Text, names, type_code};

/// Most licenses of one holder that a holder's code looks at.
const MAX_LICENSES: usize = 500;

/// The capability.
pub(crate) struct Scan;

/// A scan.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    /// The thing that was scanned.
    pub subject: Subject<'a>,
    /// The type that is needed, of a code of the holder.
    pub type_code: Option<LicenseTypeCode>,
    /// Fields that are asked for.
    pub fields: Vec<String>,
    /// The person who shows the code, where the verifier knows.
    pub holder: Option<HolderRef>,
    /// Use context.
    pub context: UseContext<'a>,
}

/// The thing that was scanned.
#[derive(Debug)]
pub(crate) enum Subject<'a> {
    /// A code.
    Code(Token),
    /// The identifier on a permit, by an inspector.
    Permit(Named<'a>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    code: Option<Text<'a>>,
    identifier: Option<Text<'a>>,
    type_code: Option<Text<'a>>,
    fields: Option<Vec<String>>,
    holder: Option<Holder<'a>>,
    #[serde(rename = "use")]
    context: Option<ContextValue<'a>>,
}

/// A license, as the register says it stands.
#[derive(Debug)]
struct Standing {
    found: Found,
    verdict: Verdict,
    reasons: Vec<&'static str>,
    state: Option<LicenseState>,
}

/// The findings of a decision.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The code, to be used up.
    code: Option<(Place, PresentationCode)>,
    /// The licenses, newest first: one, or all of the holder's where the code is of the holder.
    licenses: Vec<Standing>,
    /// The holder has no more.
    complete: bool,
    /// The type that is asked for.
    type_code: LicenseTypeCode,
    /// The holder whom the verifier is to recognise.
    holder: Option<Label>,
    /// The type whose masks lie over the fields.
    masks: Option<Masks>,
}

impl<'r> Capability<'r> for Scan {
    const ROUTE: Route = Route::CodeScan;
    type Asked = Asked<'r>;
    type Granted = Seen;

    fn read(body: Body<'r>) -> Result<Asked<'r>, Refusal> {
        json::<Request<'_>>(body.bytes)?.typed()
    }

    fn names<'a>(asked: &'a Asked<'r>, _caller: &Uscc) -> Names<'a> {
        let names = Names {
            context: Some(&asked.context),
            fields: asked.fields.iter().map(Cow::from).collect(),
            types_asked: asked.type_code.as_slice(),
            ..Names::default()
        };
        match &asked.subject {
            Subject::Code(token) => {
                let names = Names { about: About::Code(token), mode: Some("code"), ..names };
                // A person who shows another's code has nothing to do with it.
                asked.holder.iter().fold(names, |names, holder| names.beside(holder, HOLDER))
            }
            Subject::Permit(permit) => Names { mode: Some("permit"), ..names }.license(permit, None),
        }
    }

    fn decide(case: &mut Case<'_>, caller: &Participant, asked: &Asked<'r>) -> Result<Ruling<Seen>, Refusal> {
        match &asked.subject {
            Subject::Code(token) => shown(case, caller, asked, token),
            Subject::Permit(permit) => inspected(case, caller, asked, permit),
        }
    }

    /// Somebody else's code is used up by the attempt: nobody tries out with it whose it is.
    fn spoiled(case: &mut Case<'_>, asked: &Asked<'r>, refusal: &Refusal) -> Option<DocumentState> {
        let Subject::Code(token) = &asked.subject else { return None };
        if refusal.reason != Reason::OtherHolder {
            return None;
        }
        let (place, code) = case.document::<PresentationCode>(token.key(case.keyed()));
        Some(in_place(place, &code?.ended(End::Used)))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked<'r>,
        permit: Permit<Seen>,
    ) -> Result<Vec<u8>, Refusal> {
        let (Seen { code, licenses, complete, type_code, holder, masks }, right) = permit.into_parts();
        let by_code = code.is_some();
        let one = code.as_ref().is_none_or(|(_, code)| code.license.is_some());
        // Nothing is disclosed of another version than the one in force.
        let tells = licenses.iter().all(|standing| standing.state.is_some());
        let read = if by_code || tells && !asked.fields.is_empty() {
            let (tools, fields) = (change.tools(), asked.fields.clone());
            let ledger = tools.ledger.clone();
            let organisation = *change.entry().organisation;
            let read = move || picked(&ledger, right, licenses, &type_code, one, &fields, masks.as_ref());
            tools.lanes.searches.run(organisation, read).await.map_err(Refusal::new)??
        } else {
            licenses.into_iter().next().map(|standing| Read {
                standing,
                identifier: None,
                shown: Shown { fields: BTreeMap::new(), masked: Vec::new() },
            })
        };
        if let Some(shown) = read.as_ref().map(|read| &read.shown).filter(|shown| !shown.fields.is_empty()) {
            change.commit_fields(shown.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            let owned = |name: &String| Cow::from(name.clone());
            let names = change.names();
            names.fields = shown.fields.keys().map(owned).collect();
            names.masked = shown.masked.iter().map(owned).collect();
        }
        if let Some((place, code)) = code {
            change.keep(place, &code.ended(End::Used));
        }
        // An officer stands by name in the trace of whoever is inspected.
        change.names().officer = change.caller().has(Role::Inspector);
        let identifier = read.as_ref().and_then(|read| read.identifier.clone());
        if by_code {
            // The holder is told which license was seen; the verifier is not, because two could join what they know by it.
            change.names().identifiers.extend(identifier.map(Cow::from));
        }
        let subject = holder.map(|label| {
            // Whom the verifier stands for knows the holder by another handle than the verifier itself.
            let organisation = asked.context.acting_for.as_ref().unwrap_or(change.entry().organisation);
            keyed::subject_handle(change.tools().ledger.keyed(), organisation, &label)
        });
        let as_of = change.as_of();
        // Nothing is said to be missing where more licenses were not looked at.
        let missing =
            if complete { (Verdict::Invalid, "not-found") } else { (Verdict::Unknown, "status-not-known") };
        Ok(answer(read.as_ref(), missing, &type_code, subject.as_ref(), &as_of))
    }
}

/// A license that an answer is about, and what of it was read.
struct Read {
    standing: Standing,
    identifier: Option<String>,
    shown: Shown,
}

/// The first of the licenses that is of the type, and the fields asked for; one that is in force goes before. Blocks for a read of each.
fn picked(
    ledger: &Ledger,
    right: Disclosure,
    mut licenses: Vec<Standing>,
    type_code: &LicenseTypeCode,
    one: bool,
    fields: &[String],
    masks: Option<&Masks>,
) -> Result<Option<Read>, Refusal> {
    licenses.sort_by_key(|standing| standing.verdict != Verdict::Valid);
    for standing in licenses {
        let content = stored::content(ledger, &standing.found.license, right)?;
        if one || content.identifier.type_code() == *type_code {
            let shown = stored::shown(&content, masks, |name| fields.iter().any(|field| field == name));
            return Ok(Some(Read { standing, identifier: Some(content.identifier.to_string()), shown }));
        }
    }
    Ok(None)
}

fn answer(
    read: Option<&Read>,
    (verdict, reason): (Verdict, &'static str),
    type_code: &LicenseTypeCode,
    subject: Option<&[u8; 16]>,
    as_of: &str,
) -> Vec<u8> {
    let mut answer = Object::new();
    let standing = read.map(|read| &read.standing);
    answer.text("verdict", verdict_name(standing.map_or(verdict, |standing| standing.verdict)));
    answer.text("typeCode", type_code.as_str());
    answer.texts("reasons", standing.map_or(&[reason][..], |standing| &standing.reasons));
    if let Some((standing, state)) = standing.and_then(|standing| Some((standing, standing.state?))) {
        answer.text("state", state.code());
        let license = &standing.found.license;
        let day = |day| Date::from_days(day).map(|day| day.to_string());
        answer.text_if_any("validFrom", day(license.valid_from_day).as_deref());
        let until = (license.valid_until_day != i32::MAX).then(|| day(license.valid_until_day)).flatten();
        answer.text_if_any("validUntil", until.as_deref());
    }
    if let Some(Shown { fields, masked }) =
        read.map(|read| &read.shown).filter(|shown| !shown.fields.is_empty())
    {
        answer.other("fields", fields);
        if !masked.is_empty() {
            answer.other("masked", masked);
        }
    }
    if let Some(subject) = subject {
        answer.hex("subject", subject);
    }
    answer.text("asOf", as_of);
    answer.end()
}

/// A code, by whoever is of its class.
fn shown(
    case: &mut Case<'_>,
    caller: &Participant,
    asked: &Asked<'_>,
    token: &Token,
) -> Result<Ruling<Seen>, Refusal> {
    let denied = Refusal::not_permitted;
    let (place, code) = case.document::<PresentationCode>(token.key(case.keyed()));
    let code = code.ok_or_else(|| denied(Reason::NoSuchCode))?;
    code.live(case.now_ms()).map_err(denied)?;
    case.ends_at(code.until_ms.saturating_add(1));
    if !code.admits(caller) {
        return Err(denied(Reason::CodeOtherVerifier));
    }
    user(case, &caller.organisation, &asked.context, false).map_err(denied)?;
    let label = code.holder.0;
    let portal = case.participant(&code.portal);
    if !portal.is_some_and(|portal| portal.vouches_at(case.now_ms())) {
        return Err(denied(Reason::PortalInactive));
    }
    case.living(&label).ok_or_else(|| denied(Reason::NoSuchHolder))?;
    // A fault of the question is found before whose code it is: only a question that fits finds that out.
    let of_license = code.license.as_ref().map(|license| license.type_code);
    let type_code = match (of_license, asked.type_code) {
        (Some(of), Some(asked)) if of != asked => return Err(denied(Reason::CodeOtherType)),
        (None, None) => return Err(denied(Reason::CodeOtherType)),
        (Some(code), _) | (None, Some(code)) => code,
    };
    if asked.fields.iter().any(|field| !code.fields.contains(field)) {
        return Err(denied(Reason::CodeOtherFields));
    }
    if !code.is_linked(case, &type_code) {
        return Err(denied(Reason::GrantLinkEnded));
    }
    intended(case, caller, asked, &type_code)?;
    if let Some(expected) = &asked.holder {
        let expected = case.holder(expected).map(|holder| holder.label);
        if expected != Some(label) {
            return Err(denied(Reason::OtherHolder));
        }
    }
    let (found, complete, concerned) = match &code.license {
        Some(license) => {
            let found = case.license(license.key.0).ok_or_else(|| denied(Reason::NoSuchLicense))?;
            let concerned = found.license.holders.clone();
            (vec![found], true, concerned)
        }
        None => {
            let keys = case.licenses_of(&label);
            let (found, complete) = case.newest(keys, MAX_LICENSES);
            (found, complete, vec![label])
        }
    };
    let licenses = found.into_iter().map(|found| stands(case, found, None)).collect();
    let masks =
        if asked.fields.is_empty() { None } else { Masks::of(case.license_type(&type_code), &asked.context) };
    let seen = Seen { code: Some((place, code)), licenses, complete, type_code, holder: Some(label), masks };
    // A receipt shows no label: it is the same for all verifiers.
    Ok(Ruling::plain(seen, concerned).unnamed().used(Right::Holder, caller, case, true))
}

/// A permit of a legal person, by an inspector, without its holder.
fn inspected(
    case: &mut Case<'_>,
    caller: &Participant,
    asked: &Asked<'_>,
    permit: &Named<'_>,
) -> Result<Ruling<Seen>, Refusal> {
    if !caller.has(Role::Inspector) {
        return Err(Refusal::new(Code::WrongRole));
    }
    user(case, &caller.organisation, &asked.context, false).map_err(Refusal::not_permitted)?;
    let (type_code, version) = match permit {
        Named::Identifier { identifier, .. } => (identifier.type_code(), Some(identifier.version())),
        Named::Number { type_code, .. } => (*type_code, None),
    };
    intended(case, caller, asked, &type_code)?;
    let found = case.named(permit);
    let license_type = case.license_type(&type_code);
    if license_type.as_ref().is_none_or(|license_type| license_type.is_natural_person()) {
        return Err(Refusal::not_permitted(if found.is_some() {
            Reason::NoGrant
        } else {
            Reason::NoSuchLicense
        }));
    }
    let mask = floor::field_mask(license_type.as_deref(), asked.fields.iter().map(String::as_str));
    if !mask.is_some_and(|mask| all_open(license_type.as_deref(), mask)) {
        return Err(Refusal::not_permitted(Reason::CodeOtherFields));
    }
    let concerned = found.iter().flat_map(|found| found.license.holders.iter().copied()).collect();
    let has_license = found.is_some();
    let licenses: Vec<Standing> = found.into_iter().map(|found| stands(case, found, version)).collect();
    let seen = Seen {
        code: None,
        licenses,
        complete: true,
        type_code,
        holder: None,
        masks: Masks::of(license_type, &asked.context),
    };
    let ruling = Ruling::plain(seen, concerned);
    // A receipt shows whose permit it is only where the answer has told something of it.
    let ruling = if asked.fields.is_empty() { ruling.unnamed() } else { ruling };
    Ok(ruling.used(Right::Open, caller, case, has_license))
}

/// Whether the lists of intended uses have a line for what a scan shows.
fn intended(
    case: &mut Case<'_>,
    caller: &Participant,
    asked: &Asked<'_>,
    type_code: &LicenseTypeCode,
) -> Result<(), Refusal> {
    let mode = if asked.fields.is_empty() { Mode::Verify } else { Mode::Fields };
    let fields = asked.fields.iter().map(String::as_str);
    within(case, caller, &asked.context, &Wanted { type_code, mode, fields, member: "/fields" })
}

fn stands(case: &mut Case<'_>, found: Found, version: Option<u16>) -> Standing {
    let (verdict, reasons, state) = standing(case, Some(&found), version);
    Standing { found, verdict, reasons, state }
}

impl<'a> Request<'a> {
    fn typed(self) -> Result<Asked<'a>, Refusal> {
        let mut wrong = Gather::new();
        let malformed = |fault| Refusal::of(Code::MalformedRequest, fault);
        let by_permit = self.identifier.is_some() && self.code.is_none();
        if by_permit && (self.type_code.is_some() || self.holder.is_some()) {
            let form = "typeCode and holder beside a code only";
            wrong.note(malformed(Fault::at("", Rule::Combination).form(form)));
        }
        let subject = wrong.take(match (self.code, self.identifier) {
            (Some(code), None) => Token::read(&code).map(Subject::Code).under("code"),
            (None, Some(text)) => Refusal::parse(&text)
                .under("identifier")
                .map(|identifier| Subject::Permit(Named::Identifier { identifier, text: text.into_inner() })),
            _ => Err(malformed(Fault::at("", Rule::Combination).form("code or identifier"))),
        });
        let context = wrong.take(context(self.context));
        let type_code = wrong.take(self.type_code.as_deref().map(type_code).transpose().under("typeCode"));
        let fields = wrong.take(names(self.fields.unwrap_or_default()).under("fields"));
        let holder = wrong.take(self.holder.map(Holder::typed).transpose().under("holder"));
        let typed = || {
            Some(Asked {
                subject: subject?,
                type_code: type_code?,
                fields: fields?,
                holder: holder?,
                context: context?,
            })
        };
        wrong.all(typed())
    }
}
