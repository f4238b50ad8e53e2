//! `POST /v1/verify`: whether a license is valid, and whether it says what the caller expects.
//!
//! The path alone calls it. It changes no license: a crash leaves the entry of the use, or nothing.

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;

use flatbuffers::FlatBufferBuilder;
use ledger::Key;
use ledger::record::CounterUse;
use schemas::codes::{Code, Reason, Rule};
use schemas::holder::HolderRef;
use schemas::identifier::{LicenseTypeCode, Uscc};
use schemas::license_type::{LicenseType, MAX_VALUE_LENGTH, Sensitivity};
use schemas::machine as fb;
use schemas::routes::{Form, Route};
use schemas::state::LicenseState;
use schemas::text::{self, Comparison};
use serde::Deserialize;
use verifier::license::{LicenseContent, OpenedEnvelope, RootCache};
use verifier::report::Verdict;

use super::licenses::stored;
use crate::capability::Capability;
use crate::gateway::case::{Case, Found, Validity};
use crate::gateway::change::Change;
use crate::gateway::names::{About, HOLDER, Names};
use crate::gateway::permit::{Permit, Ruling};
use crate::keyed;
use crate::participant::Participant;
use crate::rights::assertion::reads_for;
use crate::rights::floor;
use crate::rights::intended::{self, Wanted};
use crate::rights::mode::Mode;
use crate::rights::right::{Right, resolve, right};
use crate::wire::named::{ContextValue, Holder, LicenseName, Named, Subject, UseContext, context};
use crate::wire::object::{Object, USUAL_DOCUMENT_BYTES};
use crate::wire::read::{Body, json, table};
use crate::wire::refusal::{Fault, Gather, Placed as _, Refusal};
use crate::wire::text::{MAX_CONTEXT_CHARS, Pairs, Text, id};

/// Most facts a verify request may expect.
const MAX_EXPECTED: usize = 8;
/// Failed matches an organisation may make on one license a day.
pub(crate) const MISMATCHES_A_DAY: u32 = 5;

thread_local! {
    /// Signatures already checked; one cache a worker, so that nobody waits for another's verification.
    static ROOTS: RefCell<RootCache> = RefCell::new(RootCache::new());
}

/// The capability.
pub(crate) struct Verify;

/// A verification.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    /// Which license.
    pub subject: Subject<'a>,
    /// Field values that the caller expects.
    pub expect: Vec<(String, String)>,
    /// Holder the portal vouches for.
    pub holder: Option<HolderRef>,
    /// The holder's own assertion, a JWT of the identity provider.
    pub assertion: Option<Cow<'a, str>>,
    /// Grant used.
    pub grant: Option<[u8; 16]>,
    /// Use context.
    pub context: UseContext<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Request<'a> {
    #[serde(borrow)]
    license: LicenseName<'a>,
    expect: Option<Pairs>,
    holder: Option<Holder<'a>>,
    assertion: Option<Text<'a>>,
    grant: Option<Text<'a>>,
    #[serde(rename = "use")]
    context: Option<ContextValue<'a>>,
}

/// The answer of the register, and of the envelope presented.
#[derive(Debug)]
pub(crate) struct Checked {
    found: Option<Found>,
    verdict: Verdict,
    reasons: Vec<&'static str>,
    state: Option<LicenseState>,
    /// The version asked for is the one in force, so its fields may be compared.
    current: bool,
    /// Content of the envelope presented.
    content: Option<LicenseContent>,
    /// The type's definition, where values are expected: it says how they are compared.
    license_type: Option<Arc<LicenseType>>,
    /// Key and day of the counter of failed matches, where fields of a license looked up by name are to match.
    mismatches: Option<(Key, u32)>,
}

impl<'r> Capability<'r> for Verify {
    const ROUTE: Route = Route::Verify;
    type Asked = Asked<'r>;
    type Granted = Checked;

    fn read(body: Body<'r>) -> Result<Asked<'r>, Refusal> {
        match body.form {
            Form::Json | Form::Lines => json::<Request<'_>>(body.bytes)?.typed(),
            Form::Machine => {
                let read = || Request::of_machine(&table::<fb::VerifyRequest<'_>>(body.bytes)?)?.typed();
                read().map_err(Refusal::in_machine_names)
            }
        }
    }

    fn names<'a>(asked: &'a Asked<'r>, _caller: &Uscc) -> Names<'a> {
        let names = Names {
            context: Some(&asked.context),
            grant: asked.grant,
            fields: asked.expect.iter().map(|(name, _)| Cow::from(name)).collect(),
            ..Names::default()
        };
        let vouched = asked.holder.as_ref();
        match &asked.subject {
            Subject::Named(license) => names.license(license, vouched),
            Subject::Envelope(envelope) => {
                let names = Names { about: About::Envelope(envelope), ..names };
                vouched.into_iter().fold(names, |names, holder| names.person(holder, HOLDER))
            }
        }
    }

    fn decide(
        case: &mut Case<'_>,
        caller: &Participant,
        asked: &Asked<'r>,
    ) -> Result<Ruling<Checked>, Refusal> {
        reads_for(case, caller, asked.assertion.as_deref(), asked.holder.as_ref())?;
        match &asked.subject {
            Subject::Envelope(envelope) => {
                let opened = OpenedEnvelope::open(envelope).ok();
                let content = opened.and_then(|opened| verifier::license::read_body(opened.body()).ok());
                if let Some(content) = &content {
                    intended(case, caller, asked, &content.identifier.type_code())?;
                }
                Ok(presented(case, caller, asked, envelope, content))
            }
            Subject::Named(license) => {
                intended(case, caller, asked, &license.type_code())?;
                named(case, caller, asked, license)
            }
        }
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked<'r>,
        permit: Permit<Checked>,
    ) -> Result<Vec<u8>, Refusal> {
        let (checked, right) = permit.into_parts();
        let Checked {
            found,
            mut verdict,
            mut reasons,
            state: shown,
            current,
            content,
            license_type,
            mismatches,
        } = checked;
        let license_type = license_type.as_deref();
        let presented = content.as_ref().map(|content| content.identifier.to_string().into());
        change.names().identifiers.extend(presented);
        let compares = current && !asked.expect.is_empty();
        let matches = match (&asked.subject, &found, mismatches.filter(|_| compares)) {
            (Subject::Envelope(_), ..) => {
                content.filter(|_| compares).map(|content| all_match(&content, license_type, &asked.expect))
            }
            (Subject::Named(_), Some(found), Some((key, day))) => {
                match stored::content(change.tools().ledger, &found.license, right) {
                    Err(refusal) if refusal.code == Code::RecordUnavailable => {
                        // The values cannot be compared now; an invalid license is invalid all the same.
                        if verdict == Verdict::Valid {
                            (verdict, reasons) = (Verdict::Unknown, vec!["record-unavailable"]);
                        }
                        None
                    }
                    read => {
                        let matches = all_match(&read?, license_type, &asked.expect);
                        // Only a license looked up by name can be probed: a failed match is counted, and a good one
                        // commits only while guesses are left, also beside others under way. A holder of the
                        // envelope has its fields.
                        let (amount, limit) =
                            if matches.is_some() { (0, MISMATCHES_A_DAY - 1) } else { (1, MISMATCHES_A_DAY) };
                        let counter = CounterUse { key, day, amount, limit };
                        let refusal = || Refusal::new(Code::TooManyMismatches);
                        change.count(counter, refusal)?;
                        Some(matches)
                    }
                }
            }
            (Subject::Named(_), ..) => None,
        };
        let (verdict, state) = (verdict_name(verdict), shown.map(LicenseState::code));
        let mut folded = looked_up_folded(&asked.subject);
        folded.extend(matches.iter().flatten().flatten().cloned());
        let matches = matches.map(|matches| matches.is_some());
        let same_number = found.as_ref().and_then(|found| stored::several(found.same_number));
        let as_of = change.as_of();
        Ok(match change.entry().form {
            Form::Json | Form::Lines => {
                let mut answer = Object::new();
                answer.text("verdict", verdict);
                answer.text_if_any("state", state);
                answer.texts("reasons", &reasons);
                if let Some(matches) = matches {
                    answer.flag("matches", matches);
                }
                if !folded.is_empty() {
                    answer.texts("folded", &folded);
                }
                answer.text("asOf", &as_of);
                if let Some(same_number) = same_number {
                    answer.other("sameNumber", &same_number);
                }
                answer.end()
            }
            Form::Machine => machine_answer(verdict, state, &reasons, matches, &as_of, same_number, &folded),
        })
    }
}

impl<'a> Request<'a> {
    fn of_machine(request: &fb::VerifyRequest<'a>) -> Result<Self, Refusal> {
        let mut expect: Vec<(String, String)> = Vec::new();
        for (field, place) in request.expect().into_iter().flatten().zip(0..) {
            if expect.iter().any(|(before, _)| before == field.name()) {
                let fault = Fault::at(format!("/expect/{place}/name"), Rule::DuplicateMember);
                return Err(Refusal::of(Code::DuplicateKey, fault));
            }
            expect.push((field.name().to_owned(), field.value().to_owned()));
        }
        Ok(Self {
            license: request.license().into(),
            expect: Some(Pairs(expect)),
            holder: request.holder().map(Holder::from),
            assertion: request.assertion().map(Text::from),
            grant: request.grant().map(Text::from),
            context: request.use_().map(ContextValue::from),
        })
    }

    pub(crate) fn typed(self) -> Result<Asked<'a>, Refusal> {
        let mut wrong = Gather::new();
        let context = wrong.take(context(self.context));
        let expect = self.expect.unwrap_or_default().0;
        if expect.len() > MAX_EXPECTED {
            let fault = Fault::at("/expect", Rule::Count).bounds(0, MAX_EXPECTED).got(expect.len());
            wrong.note(Refusal::of(Code::MalformedRequest, fault));
        }
        // The names stand in the record of the use.
        let expect = expect.into_iter().zip(1..).map(|((name, value), position)| {
            let at = |rule| Fault::at("/expect", rule).position(position);
            let of = |fault| Refusal::of(Code::MalformedRequest, fault);
            if value.chars().count() > MAX_VALUE_LENGTH {
                return Err(of(at(Rule::Length).bounds(0, MAX_VALUE_LENGTH).got(value.chars().count())));
            }
            let named = text::read(&name, MAX_CONTEXT_CHARS).map(Cow::into_owned);
            let got = name.chars().count();
            let name = named.map_err(|_| of(at(Rule::Text).bounds(1, MAX_CONTEXT_CHARS).got(got)))?;
            Ok((name, value))
        });
        let expect = wrong.take(expect.take(MAX_EXPECTED).collect::<Result<Vec<_>, _>>());
        let subject = wrong.take(self.license.subject().under("license"));
        let holder = wrong.take(self.holder.map(Holder::typed).transpose().under("holder"));
        let grant = wrong.take(self.grant.as_deref().map(id).transpose().under("grant"));
        let typed = || {
            let (subject, holder, grant, context) = (subject?, holder?, grant?, context?);
            let expect = expect?;
            let assertion = self.assertion.map(Text::into_inner);
            Some(Asked { subject, expect, holder, assertion, grant, context })
        };
        wrong.all(typed())
    }
}

/// Whether a list of intended uses allows it.
fn intended(
    case: &mut Case<'_>,
    caller: &Participant,
    asked: &Asked<'_>,
    type_code: &LicenseTypeCode,
) -> Result<(), Refusal> {
    let fields = asked.expect.iter().map(|(name, _)| name.as_str());
    let wanted = Wanted { type_code, mode: Mode::Verify, fields, member: "/expect" };
    intended::within(case, caller, &asked.context, &wanted)
}

fn named(
    case: &mut Case<'_>,
    caller: &Participant,
    asked: &Asked<'_>,
    license: &Named<'_>,
) -> Result<Ruling<Checked>, Refusal> {
    let resolved = resolve(case, caller, license, asked.holder.as_ref());
    let (type_key, license_type) = case.keyed_type(&resolved.type_code);
    // A type for both kinds of holder, and an unknown one, count as natural.
    let natural = license_type.as_ref().is_none_or(|license_type| license_type.is_natural_person());
    let names = asked.expect.iter().map(|(name, _)| name.as_str());
    let mask = floor::field_mask(license_type.as_deref(), names.clone());
    let needs_right =
        natural || asked.grant.is_some() || mask.is_none_or(|mask| !all_open(license_type.as_deref(), mask));
    let found_right = right(
        case,
        &resolved.ask(type_key, caller, Mode::Verify, mask.unwrap_or(0), asked.grant, &asked.context),
    );
    let right = match found_right {
        Ok(right) if mask.is_some() => right,
        Ok(_) => return Err(Refusal::not_permitted(Reason::GrantOtherFields)),
        Err(reason) if needs_right => return Err(Refusal::not_permitted(reason)),
        Err(_) => Right::Open,
    };
    let expected = resolved.found.as_ref().filter(|_| !asked.expect.is_empty());
    let mismatches = expected.map(|found| (mismatch_key(case, caller, &found.key), case.today()));
    if mismatches.is_some_and(|(key, day)| case.counter(&key, day) >= MISMATCHES_A_DAY) {
        return Err(Refusal::new(Code::TooManyMismatches));
    }
    let concerned = resolved.concerned();
    let names_holder =
        matches!(license, Named::Number { .. }) || resolved.vouched.is_some() || !asked.expect.is_empty();
    let (verdict, reasons, state) = standing(case, resolved.found.as_ref(), resolved.version);
    let has_license = resolved.found.is_some();
    let checked = Checked {
        found: resolved.found,
        verdict,
        reasons,
        // Without a state the version asked for is not the one in force, and nothing is said of another.
        current: state.is_some(),
        state,
        content: None,
        license_type: license_type.filter(|_| !asked.expect.is_empty()),
        mismatches,
    };
    Ok(Ruling::plain(checked, concerned).naming(names_holder).used(right, caller, case, has_license))
}

/// Fields that any relying party may check on a license of a legal person: the type says they are open.
pub(crate) fn all_open(license_type: Option<&LicenseType>, mask: u64) -> bool {
    let open = license_type.map_or(0, |license_type| {
        license_type.fields.iter().zip(0u32..).fold(0, |open, (field, index)| {
            if field.sensitivity == Sensitivity::Open { open | 1 << index } else { open }
        })
    });
    mask & !open == 0
}

/// Key of the counter of failed matches: organisation and license.
pub(crate) fn mismatch_key(case: &Case<'_>, caller: &Participant, license: &Key) -> Key {
    case.keyed().key("match", &[caller.organisation.as_bytes(), license])
}

/// The register's word on a license: verdict, reasons, state.
pub(crate) fn standing(
    case: &mut Case<'_>,
    found: Option<&Found>,
    version: Option<u16>,
) -> (Verdict, Vec<&'static str>, Option<LicenseState>) {
    let Some(found) = found else { return (Verdict::Invalid, vec!["not-found"], None) };
    let license = &found.license;
    let Some(state) = LicenseState::from_number(license.state) else {
        return (Verdict::Unknown, vec!["state-unknown"], None);
    };
    match version {
        // An old version never names the new one, nor its state.
        Some(version) if version < license.certificate_version => {
            (Verdict::Invalid, vec!["superseded"], None)
        }
        Some(version) if version > license.certificate_version => (Verdict::Invalid, vec!["not-found"], None),
        _ => {
            let mut reasons = Vec::new();
            match state {
                LicenseState::Valid => {}
                LicenseState::Suspended => reasons.push("suspended"),
                LicenseState::Withdrawn => reasons.push("withdrawn"),
                LicenseState::Cancelled => reasons.push("cancelled"),
                LicenseState::Lapsed => reasons.push("expired"),
                LicenseState::MovedOut => reasons.push("transferred-out"),
                LicenseState::Revoked => reasons.push("revoked"),
                LicenseState::Other => reasons.push("other"),
            }
            match case.validity(license) {
                Validity::Current => {}
                Validity::NotYet => reasons.push("not-yet-valid"),
                Validity::Ended if state == LicenseState::Lapsed => {}
                Validity::Ended => reasons.push("expired"),
            }
            let verdict = if reasons.is_empty() { Verdict::Valid } else { Verdict::Invalid };
            (verdict, reasons, Some(state))
        }
    }
}

fn presented(
    case: &mut Case<'_>,
    caller: &Participant,
    asked: &Asked<'_>,
    envelope: &[u8],
    content: Option<LicenseContent>,
) -> Ruling<Checked> {
    let second = case.now_ms() / 1_000;
    let trust = case.trust().get();
    let report = ROOTS.with_borrow_mut(|roots| verifier::license::verify(envelope, &trust, second, roots));
    let mut reasons: Vec<&'static str> = report.reasons.iter().map(|reason| reason.code()).collect();
    if second < trust.expires {
        case.ends_at(trust.expires.saturating_mul(1_000));
    }
    let mut verdict = report.verdict;
    let mut found = None;
    let mut state = None;
    // Bytes that no known key of the issuer signed may name a license that their maker only guesses at.
    if verdict != Verdict::Invalid
        && report.checked.contains(&"signatures")
        && let Some(content) = &content
    {
        let end = content.valid_until.and_then(|day| u64::try_from(day.last_second()).ok());
        if let Some(end) = end.filter(|end| *end >= second) {
            case.ends_at(end.saturating_add(1).saturating_mul(1_000));
        }
        // The signature is good; whether the license is still in force only the register knows.
        found = case.license(keyed::license_key(case.keyed(), &content.identifier));
        if found.is_none() {
            verdict = Verdict::Unknown;
            reasons.push("status-not-known");
        } else {
            let (standing, why, current) = standing(case, found.as_ref(), Some(content.identifier.version()));
            state = current;
            if standing != Verdict::Valid {
                verdict = standing;
            }
            reasons.extend(why.into_iter().filter(|why| !reasons.contains(why)).collect::<Vec<_>>());
        }
    }
    let concerned = found.iter().flat_map(|found| found.license.holders.iter().copied()).collect();
    let compared = content.as_ref().filter(|_| !asked.expect.is_empty());
    let license_type = compared.and_then(|content| case.license_type(&content.identifier.type_code()));
    let has_license = found.is_some();
    let checked =
        Checked { found, verdict, reasons, state, current: true, content, license_type, mismatches: None };
    Ruling::plain(checked, concerned).used(Right::Open, caller, case, has_license)
}

pub(crate) fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Valid => "valid",
        Verdict::Invalid => "invalid",
        Verdict::Unknown => "unknown",
    }
}

/// One answer for all expected facts, so that a caller learns nothing about a single one: pointers to those that are equal
/// only in the form in which their kind is compared, or `None` if one is another.
fn all_match(
    content: &LicenseContent,
    license_type: Option<&LicenseType>,
    expect: &[(String, String)],
) -> Option<Vec<String>> {
    let face = content.face();
    let mut folded = Vec::new();
    for (name, value) in expect {
        let (_, is) = face.iter().find(|(have, _)| have == name)?;
        if is == value {
            continue;
        }
        let comparison = license_type?.comparison(name);
        if text::fold(comparison, is) != text::fold(comparison, value) {
            return None;
        }
        folded.push(format!("/expect/{name}"));
    }
    Some(folded)
}

/// The pointer to a certificate number that was looked up in another form than it was sent in.
fn looked_up_folded(subject: &Subject<'_>) -> Vec<String> {
    match subject {
        Subject::Named(Named::Number { certificate_number: number, .. })
            if text::fold(Comparison::Number, number) != *number =>
        {
            vec!["/license/certificateNumber".to_owned()]
        }
        Subject::Named(_) | Subject::Envelope(_) => Vec::new(),
    }
}

/// The answer's body of a verification.
fn machine_answer(
    verdict: &str,
    state: Option<&str>,
    reasons: &[&'static str],
    matches: Option<bool>,
    as_of: &str,
    same_number: Option<u32>,
    folded: &[String],
) -> Vec<u8> {
    let mut fbb = FlatBufferBuilder::with_capacity(USUAL_DOCUMENT_BYTES);
    let reasons: Vec<_> = reasons.iter().map(|reason| fbb.create_string(reason)).collect();
    let folded: Vec<_> = folded.iter().map(|pointer| fbb.create_string(pointer)).collect();
    let args = fb::VerifyAnswerArgs {
        verdict: Some(fbb.create_string(verdict)),
        state: state.map(|state| fbb.create_string(state)),
        reasons: Some(fbb.create_vector(&reasons)),
        matches,
        as_of: Some(fbb.create_string(as_of)),
        same_number,
        folded: (!folded.is_empty()).then(|| fbb.create_vector(&folded)),
    };
    let answer = fb::VerifyAnswer::create(&mut fbb, &args);
    fbb.finish(answer, None);
    fbb.finished_data().to_vec()
}
