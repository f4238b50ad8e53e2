//! Why a request is refused: the public code, what is wrong with which part of the request, and what only insiders learn.
//!
//! Any step makes one, and the path journals it. It is memory until then.

use std::borrow::Cow;
use std::fmt::Display;
use std::str::FromStr;

use hyper::header::{ACCEPT_LANGUAGE, HeaderMap};
use ledger::record::CounterUse;
use schemas::codes::{Code, Reason, Rule};
use schemas::holder::{HolderError, HolderTypeCode};
use schemas::identifier::{CertificateIdentifier, IdentifierError};
use schemas::license_type::{FieldError, FieldKind, LicenseType};
use schemas::routes::Route;
use schemas::text::TextError;
use serde::Serialize;

/// Most faults that one answer lists.
pub(crate) const MAX_FAULTS: usize = 32;

/// Languages in which a refusal speaks to its caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    /// English, unless the caller prefers the other.
    #[default]
    English,
    /// Chinese.
    Chinese,
}

impl Language {
    /// The one that `Accept-Language` (RFC 9110) prefers; of two that it likes alike, the one that it names first.
    pub fn preferred(headers: &HeaderMap) -> Self {
        // The greatest quality, and the least place.
        let (mut chinese, mut english, mut any) = (None, None, None);
        let values = headers.get_all(ACCEPT_LANGUAGE).iter().filter_map(|value| value.to_str().ok());
        for (range, place) in values.flat_map(|value| value.split(',')).zip(0_u32..) {
            let (tag, parameters) = range.split_once(';').unwrap_or((range, ""));
            let quality = parameters
                .trim()
                .to_ascii_lowercase()
                .strip_prefix("q=")
                .map_or(Some(1.0), |q| q.trim().parse::<f32>().ok());
            let Some(quality) = quality.filter(|quality| (0.0..=1.0).contains(quality)) else { continue };
            let primary = tag.trim().split('-').next().unwrap_or_default();
            let best = match primary {
                "*" => &mut any,
                _ if primary.eq_ignore_ascii_case("zh") => &mut chinese,
                _ if primary.eq_ignore_ascii_case("en") => &mut english,
                _ => continue,
            };
            if best.is_none_or(|(most, _)| quality > most) {
                *best = Some((quality, place));
            }
        }
        let any = any.unwrap_or((0.0, u32::MAX));
        let ((chinese, first), (english, second)) = (chinese.unwrap_or(any), english.unwrap_or(any));
        if chinese > english || chinese > 0.0 && chinese >= english && first < second {
            Self::Chinese
        } else {
            Self::English
        }
    }
}

/// A refusal on its way to becoming a journaled denial.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The code that the caller learns.
    pub code: Code,
    /// The reason, which stands in the journal's sealed part only.
    pub reason: Reason,
    /// Line and column of a JSON fault.
    position: Option<(usize, usize)>,
    /// The reason is told to the caller as well.
    explained: bool,
    /// The faults of the request, part by part. Nothing where the code protects a fact.
    faults: Vec<Fault>,
    /// The caller's own license that is in the way.
    identifier: Option<String>,
    /// Where the caller may apply for what is missing.
    access: Option<Box<AccessRequest>>,
    /// Counters that its entry raises.
    counts: Option<Box<[CounterUse]>>,
}

/// Where an approval that is missing is applied for: the shape of an access request (AuthZEN, draft profile).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessRequest {
    /// The resource.
    pub resource: String,
    /// Path on the data listener.
    pub path: &'static str,
    /// A body for it, to be completed.
    pub template: serde_json::Value,
    /// Until when the provider answers an application of now: a day, or how far it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_by: Option<schemas::workday::Due>,
}

/// One part of a request that breaks a rule: an entry of a problem's `errors`. Never holds what was sent.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// JSON pointer (RFC 6901) into the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<String>,
    /// The header, for a fault outside the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<&'static str>,
    #[serde(serialize_with = "rule_name")]
    rule: Rule,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed: Option<Allowed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    got_length: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<usize>,
}

/// The values that would be right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Allowed {
    /// One of these.
    OneOf(Vec<Cow<'static, str>>),
    /// From `min` to `max`: characters, members, or the number itself, as the rule says.
    Bounds {
        /// The least.
        min: u64,
        /// The greatest.
        max: u64,
    },
    /// A form, in words or as a pattern.
    Form(Cow<'static, str>),
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn rule_name<S: serde::Serializer>(rule: &Rule, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(rule.name())
}

impl Fault {
    /// A fault of the part that the pointer leads to: the empty one is the whole body, or the whole part that a caller of
    /// [`Refusal::under`] places.
    pub fn at(pointer: impl Into<String>, rule: Rule) -> Self {
        Self {
            pointer: Some(pointer.into()),
            header: None,
            rule,
            allowed: None,
            got_length: None,
            position: None,
        }
    }

    /// A fault of a header.
    pub fn header(name: &'static str, rule: Rule) -> Self {
        Self { pointer: None, header: Some(name), ..Self::at("", rule) }
    }

    /// The rule that is broken.
    pub const fn rule(&self) -> Rule {
        self.rule
    }

    /// Says which values are allowed.
    #[must_use]
    pub fn one_of(self, values: impl IntoIterator<Item = impl Into<Cow<'static, str>>>) -> Self {
        Self { allowed: Some(Allowed::OneOf(values.into_iter().map(Into::into).collect())), ..self }
    }

    /// Says the least and the greatest that is allowed: characters, members, or the number itself, as the rule says.
    #[must_use]
    pub fn bounds(self, min: usize, max: usize) -> Self {
        let number = |count| u64::try_from(count).unwrap_or(u64::MAX);
        Self { allowed: Some(Allowed::Bounds { min: number(min), max: number(max) }), ..self }
    }

    /// Says the form that is allowed, in words or as a pattern.
    #[must_use]
    pub fn form(self, form: impl Into<Cow<'static, str>>) -> Self {
        Self { allowed: Some(Allowed::Form(form.into())), ..self }
    }

    /// Says how long what came is, in characters or members.
    #[must_use]
    pub fn got(self, length: usize) -> Self {
        Self { got_length: Some(length), ..self }
    }

    /// Says which one it is, from 1, where its name is the caller's own: a member of the object, a character of the text.
    #[must_use]
    pub fn position(self, position: usize) -> Self {
        Self { position: Some(position), ..self }
    }

    /// A fault of a text of people and places.
    pub fn text(pointer: impl Into<String>, text: &str, max_chars: usize, error: TextError) -> Self {
        let rule = if matches!(error, TextError::Character { .. }) { Rule::Text } else { Rule::Length };
        let fault = Self::at(pointer, rule).got(text.chars().count());
        match error {
            TextError::Empty | TextError::TooLong { .. } => fault.bounds(1, max_chars),
            TextError::Character { class, place } => {
                fault.form(format!("no {}", class.name())).position(place)
            }
        }
    }

    /// A fault of an identifier, or of a part of one. These are public, so the right check character tells nothing.
    pub fn identifier(pointer: impl Into<String>, text: &str, error: IdentifierError) -> Self {
        use IdentifierError as E;
        let rule = if error.is_check_error() { Rule::CheckDigit } else { Rule::Pattern };
        let fault = Self::at(pointer, rule).got(text.chars().count());
        match error {
            E::UsccCheck { right, .. } | E::OrganisationCheck { right, .. } | E::Check { right, .. } => {
                fault.one_of([right.to_string()])
            }
            E::UsccLength { .. } | E::UsccCharacter { .. } => fault.form(USCC_FORM),
            E::TypeCodeLength { .. } | E::TypeCodeNumber => fault.form(TYPE_CODE_FORM),
            E::SerialEmpty
            | E::SerialTooLong { .. }
            | E::SerialLowerCase { .. }
            | E::SerialCharacter { .. } => fault.form(SERIAL_FORM),
            _ => fault.form(IDENTIFIER_FORM),
        }
    }

    /// A fault of a holder's type code or number; of a person's number nothing is said that would help to guess one.
    pub fn holder(number: &str, error: HolderError) -> Self {
        let at = |rule| Self::at("/number", rule).got(number.chars().count());
        match error {
            HolderError::TypeCode => Self::at("/typeCode", Rule::OneOf)
                .one_of(HolderTypeCode::ALL.iter().map(|code| code.as_str())),
            HolderError::Uscc(error) => Self::identifier("/number", number, error),
            HolderError::CitizenCheck => at(Rule::CheckDigit),
            HolderError::CitizenNumber => at(Rule::Pattern).form(CITIZEN_FORM),
            HolderError::ResidenceRegion => at(Rule::Pattern).form("551: from 81 or 82; 552: from 83"),
            HolderError::BirthDate => at(Rule::Date).form("YYYYMMDD at places 7 to 14"),
            HolderError::Empty | HolderError::TooLong => {
                at(Rule::Length).bounds(1, schemas::holder::MAX_NUMBER_LENGTH)
            }
            HolderError::NotPrintable => at(Rule::Text).form("printable characters"),
        }
    }

    /// A fault of a draft that does not fit its type, under the draft.
    pub fn field(license_type: &LicenseType, fields: &[(String, String)], error: FieldError) -> Self {
        use FieldError as E;
        let length = |key: &str| {
            let value = fields.iter().find(|(name, _)| name == key).map(|(_, value)| value.chars().count());
            value.unwrap_or_default()
        };
        let at = |key: &str, rule| Self::at(format!("/fields/{key}"), rule);
        let holder = |position: usize, rule| Self::at(format!("/holders/{}", position - 1), rule);
        match error {
            E::HolderCount { found, min, max } => {
                Self::at("/holders", Rule::Count).bounds(min, max).got(found)
            }
            E::HolderKind { position } => {
                let fits = |code: &&HolderTypeCode| license_type.may_hold(**code);
                let codes = HolderTypeCode::ALL.iter().filter(fits).map(|code| code.as_str());
                holder(position, Rule::OneOf).one_of(codes).under_last("typeCode")
            }
            E::DuplicateHolder { position } => holder(position, Rule::Distinct),
            // The caller's own word is not given back.
            E::UnknownField { position } => {
                let keys = license_type.fields.iter().map(|field| field.key.clone());
                Self::at("/fields", Rule::UnknownMember).position(position).one_of(keys)
            }
            E::DuplicateField { key } => at(&key, Rule::DuplicateMember),
            E::MissingField { key } => at(&key, Rule::Required),
            E::Text { key, error } => {
                let value = fields.iter().find(|(name, _)| *name == key).map_or("", |(_, value)| value);
                let max = license_type.field(&key).map_or(0, |field| field.max_length);
                Self::text(format!("/fields/{key}"), value, max, error)
            }
            E::BadValue { key } => {
                let got = length(&key);
                match license_type.field(&key).map(|field| &field.kind) {
                    Some(FieldKind::Date) => at(&key, Rule::Date).form(DATE_FORM),
                    Some(FieldKind::PartialDate) => at(&key, Rule::Date).form("YYYY, YYYY-MM or YYYY-MM-DD"),
                    Some(FieldKind::Number) => at(&key, Rule::Pattern).form("-?[0-9]+(\\.[0-9]+)?"),
                    Some(FieldKind::Code { values }) => at(&key, Rule::OneOf).one_of(values.clone()),
                    Some(FieldKind::CitizenNumber) => at(&key, Rule::Pattern).form(CITIZEN_FORM),
                    Some(FieldKind::Uscc) => at(&key, Rule::Pattern).form(USCC_FORM),
                    _ => at(&key, Rule::NotAllowed),
                }
                .got(got)
            }
            E::HolderDiffers { key } => {
                let got = length(&key);
                at(&key, Rule::Disagrees).form("what the entry in holders says").got(got)
            }
            E::Check { key } => at(&key, Rule::CheckDigit).got(length(&key)),
            E::EndMissing => Self::at("/validUntil", Rule::Required).form(DATE_FORM),
            E::EndNotAllowed => Self::at("/validUntil", Rule::NotAllowed),
            E::EndBeforeStart => Self::at("/validUntil", Rule::Order).form("not before validFrom"),
        }
    }

    /// The same, of a member of the part.
    fn under_last(mut self, member: &str) -> Self {
        if let Some(pointer) = &mut self.pointer {
            pointer.push('/');
            pointer.push_str(member);
        }
        self
    }
}

/// Forms that more than one member has.
pub(crate) const USCC_FORM: &str = "18 of 0-9A-Z without I, O, S, V and Z (GB 32100)";
pub(crate) const TYPE_CODE_FORM: &str = "a USCC and three digits";
pub(crate) const SERIAL_FORM: &str = "[0-9A-Z]{1,64}";
pub(crate) const IDENTIFIER_FORM: &str =
    "1.2.156.3005.2.<type>.<issuer>.<serial>.<version>.<check> (GB/T 36904)";
pub(crate) const CITIZEN_FORM: &str = "[0-9]{17}[0-9X] (GB 11643)";
pub(crate) const DATE_FORM: &str = "YYYY-MM-DD";

/// The answer to a question whose answer is no.
const NO: &[u8] = br#"{"decision":false}"#;

/// The body of a refusal of a question (AuthZEN) that says no: the same for every want of a right. `None` for a refusal of another kind,
/// which says nothing of the question.
pub(crate) const fn no(route: Route, code: Code) -> Option<&'static [u8]> {
    let is_no = matches!(
        code,
        Code::NotPermitted
            | Code::TooManyMismatches
            | Code::QuotaSpent
            | Code::RateExceeded
            | Code::DelayNotAllowed
            | Code::LicenseEnded
            | Code::PurposeNotAgreed
            | Code::BeyondIntendedUse
            | Code::ActingForRefused
            | Code::UseNotAgreed
            | Code::FieldsNotAgreed
            | Code::SourceNotAgreed
    );
    if is_no && matches!(route, Route::Evaluation) { Some(NO) } else { None }
}

/// RFC 9457 problem document.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    status: u16,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(skip_serializing_if = "<[Fault]>::is_empty")]
    errors: &'a [Fault],
    #[serde(skip_serializing_if = "Option::is_none")]
    identifier: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_request: Option<&'a AccessRequest>,
}

impl Refusal {
    /// A refusal whose public code says it all.
    pub const fn new(code: Code) -> Self {
        Self {
            code,
            reason: Reason::None,
            position: None,
            explained: false,
            faults: Vec::new(),
            identifier: None,
            access: None,
            counts: None,
        }
    }

    /// The one `not-permitted`, with the cause for insiders.
    pub fn not_permitted(reason: Reason) -> Self {
        Self { reason, ..Self::new(Code::NotPermitted) }
    }

    /// A refusal whose reason the caller may know: its name is the problem's detail.
    pub fn explained(code: Code, reason: Reason) -> Self {
        Self { reason, explained: true, ..Self::new(code) }
    }

    /// Adds the reason, for insiders alone.
    #[must_use]
    pub(crate) fn because(self, reason: Reason) -> Self {
        Self { reason, ..self }
    }

    /// Has its entry raise these counters.
    #[must_use]
    pub(crate) fn counting(self, counts: impl IntoIterator<Item = CounterUse>) -> Self {
        Self { counts: Some(counts.into_iter().collect()), ..self }
    }

    /// The counters that its entry raises.
    pub(crate) fn counts(&self) -> &[CounterUse] {
        self.counts.as_deref().unwrap_or_default()
    }

    /// Adds the identifier of the caller's own license that is in the way.
    #[must_use]
    pub fn of_license(self, identifier: &CertificateIdentifier) -> Self {
        Self { identifier: Some(identifier.to_string()), ..self }
    }

    /// Adds where to apply for what is missing.
    #[must_use]
    pub fn with_access(self, access: AccessRequest) -> Self {
        Self { access: Some(Box::new(access)), ..self }
    }

    /// A refusal for what is wrong with one part of the request.
    pub fn of(code: Code, fault: Fault) -> Self {
        Self::all(code, vec![fault])
    }

    /// A refusal for what is wrong with several parts of the request.
    pub fn all(code: Code, faults: Vec<Fault>) -> Self {
        Self { faults, ..Self::new(code) }
    }

    /// Adds where in the body the JSON breaks.
    #[must_use]
    pub fn line(self, line: usize, column: usize) -> Self {
        Self { position: Some((line, column)), ..self }
    }

    /// The same of a part of what the caller looks at: puts its name, or its place in a list, before every pointer.
    #[must_use]
    pub fn under(mut self, step: impl Display) -> Self {
        for pointer in self.faults.iter_mut().filter_map(|fault| fault.pointer.as_mut()) {
            *pointer = format!("/{step}{pointer}");
        }
        self
    }

    /// The same with the names that a machine peer's tables have.
    #[must_use]
    pub fn in_machine_names(mut self) -> Self {
        for pointer in self.faults.iter_mut().filter_map(|fault| fault.pointer.as_mut()) {
            let mut names = String::with_capacity(pointer.len());
            for character in pointer.chars() {
                if character.is_ascii_uppercase() {
                    names.push('_');
                }
                names.push(character.to_ascii_lowercase());
            }
            *pointer = names;
        }
        self
    }

    /// Reads an identifier, or a part of one.
    ///
    /// # Errors
    /// Its refusal, of the whole part.
    pub fn parse<T: FromStr<Err = IdentifierError>>(text: &str) -> Result<T, Self> {
        text.parse().map_err(|error| Self::identifier(text, error))
    }

    /// A refusal of an identifier: a wrong check character has its own code.
    pub fn identifier(text: &str, error: IdentifierError) -> Self {
        let code = if error.is_check_error() { Code::WrongCheckDigit } else { Code::BadIdentifier };
        Self::of(code, Fault::identifier("", text, error))
    }

    /// A refusal of a holder: a wrong check character has its own code.
    pub fn holder(number: &str, error: HolderError) -> Self {
        let code = if error.is_check_error() { Code::WrongCheckDigit } else { Code::BadHolder };
        Self::of(code, Fault::holder(number, error))
    }

    /// The problem document, byte for byte what is hashed and sent before the receipt is written in.
    pub fn problem(&self, language: Language) -> Vec<u8> {
        let problem = Problem {
            kind: format!("urn:miaoxiang:problem:{}", self.code.name()),
            title: match language {
                Language::English => self.code.sentence(),
                Language::Chinese => self.code.guidance().chinese,
            },
            status: self.code.status(),
            code: self.code.name(),
            detail: self.detail(language),
            errors: if self.code.protects_facts() {
                &[]
            } else {
                &self.faults[..self.faults.len().min(MAX_FAULTS)]
            },
            identifier: self.identifier.as_deref(),
            access_request: self.access.as_deref(),
        };
        serde_json::to_vec(&problem).expect("a problem document has only text and numbers")
    }

    /// Where the JSON breaks, and the first fault in words; or the reason's stable name.
    fn detail(&self, language: Language) -> Option<String> {
        let place = self.position.map(|(line, column)| match language {
            Language::English => format!("line {line}, column {column}"),
            Language::Chinese => format!("第 {line} 行第 {column} 列"),
        });
        let first = self.faults.first().map(|fault| {
            let place = fault.pointer.as_deref().or(fault.header).unwrap_or_default();
            let meaning = match language {
                Language::English => fault.rule.meaning(),
                Language::Chinese => fault.rule.chinese(),
            };
            let more = match (self.faults.len() - 1, language) {
                (0, _) => String::new(),
                (more, Language::English) => format!(" And {more} more."),
                (more, Language::Chinese) => format!("另有 {more} 处。"),
            };
            if place.is_empty() { format!("{meaning}{more}") } else { format!("{place}: {meaning}{more}") }
        });
        let reason = self.explained.then(|| self.reason.name().to_owned());
        let parts: Vec<String> = [place, first, reason].into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join(": "))
    }
}

/// A part of a request that is read, or refused.
pub trait Placed {
    /// The same with the part's name, or its place in a list, before the pointers of a refusal.
    #[must_use]
    fn under(self, step: impl Display) -> Self;
}

impl<T> Placed for Result<T, Refusal> {
    fn under(self, step: impl Display) -> Self {
        self.map_err(|refusal| refusal.under(step))
    }
}

/// The refusals of several parts of a request, put together: a caller learns of all at once.
#[derive(Debug, Default)]
pub struct Gather(Option<Refusal>);

impl Gather {
    /// Nothing refused yet.
    pub const fn new() -> Self {
        Self(None)
    }

    /// The value, or `None` when its refusal was noted.
    pub fn take<T>(&mut self, part: Result<T, Refusal>) -> Option<T> {
        part.map_err(|refusal| self.note(refusal)).ok()
    }

    /// Notes a refusal; the first one's code is the code of all.
    pub fn note(&mut self, refusal: Refusal) {
        match &mut self.0 {
            Some(first) => {
                let room = MAX_FAULTS.saturating_sub(first.faults.len());
                first.faults.extend(refusal.faults.into_iter().take(room));
            }
            none => *none = Some(refusal),
        }
    }

    /// The values, if nothing was refused.
    ///
    /// # Errors
    /// The refusal of all that was noted.
    pub fn all<T>(self, values: Option<T>) -> Result<T, Refusal> {
        match (self.0, values) {
            (None, Some(values)) => Ok(values),
            (refusal, _) => Err(refusal.unwrap_or(const { Refusal::new(Code::Internal) })),
        }
    }
}

/// The fixed body of an answer that decides nothing (408, 429, 503): no fact, no receipt.
pub fn undecided(code: Code, language: Language) -> Vec<u8> {
    Refusal::new(code).problem(language)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn errors(refusal: &Refusal) -> Value {
        serde_json::from_slice::<Value>(&refusal.problem(Language::English)).expect("JSON")["errors"].clone()
    }

    #[test]
    fn a_fault_says_where_and_what_would_be_right_and_never_what_came() {
        let identifier = "1.2.156.3005.2.11100000000013338W011.11430000006122244L.20230000403.001.A";
        let wrong = Refusal::parse::<CertificateIdentifier>(identifier);
        let refusal = wrong.expect_err("a wrong check character").under("identifier").under("license");
        assert_eq!(refusal.code, Code::WrongCheckDigit);
        assert_eq!(
            errors(&refusal),
            json!([{"pointer": "/license/identifier", "rule": "check-digit", "allowed": ["U"],
                "gotLength": identifier.len()}])
        );
        // The right check character of a person's number would help to guess it.
        let number = "110105194912310021";
        let error = schemas::holder::HolderRef::new("111", number).expect_err("a wrong check character");
        let refusal = Refusal::holder(number, error).under(1).under("holders");
        assert_eq!(
            errors(&refusal),
            json!([{"pointer": "/holders/1/number", "rule": "check-digit", "gotLength": 18}])
        );
        assert_eq!(errors(&Refusal::not_permitted(Reason::NoGrant)), Value::Null);
    }

    #[test]
    fn a_machine_peer_reads_the_names_of_its_tables() {
        let refusal = Refusal::of(Code::BadUseContext, Fault::at("/userName", Rule::Required)).under("use");
        assert_eq!(errors(&refusal.in_machine_names())[0]["pointer"], json!("/use/user_name"));
    }

    #[test]
    fn a_code_that_protects_facts_lists_no_faults() {
        let refusal = Refusal::of(Code::NotPermitted, Fault::at("/grant", Rule::Unknown));
        assert_eq!(errors(&refusal), Value::Null);
    }

    #[test]
    fn the_language_that_is_liked_most_is_spoken() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(ACCEPT_LANGUAGE, hyper::header::HeaderValue::from_static(value));
            }
            Language::preferred(&headers) == Language::Chinese
        };
        for chinese in [
            &["zh"][..],
            &["zh-CN"],
            &["ZH-Hans-CN, en;q=0.9"],
            &["zh,en"],
            &["en;q=0.5, zh;q=0.8"],
            &["fr, zh;q=0.1"],
            &["fr", "zh-TW;q=0.5"],
            &["*;q=0.1, zh;q=0.5"],
            &["en;q=0, *;q=0.5"],
        ] {
            assert!(of(chinese), "{chinese:?}");
        }
        for english in [
            &[][..],
            &["en"],
            &["en, zh"],
            &["*"],
            &["zh;q=0"],
            &["zh;q=0, *"],
            &["zh;q=0.5, en"],
            &["fr"],
            &["zh;q=x"],
            &["zh;q=2"],
            &["zhx"],
            &[";;,,q="],
        ] {
            assert!(!of(english), "{english:?}");
        }
    }

    #[test]
    fn all_faults_are_gathered_under_the_code_of_the_first() {
        let mut gather = Gather::new();
        assert_eq!(gather.take(Ok(1)), Some(1));
        for (code, rule) in [(Code::BadSerial, Rule::Pattern), (Code::BadFields, Rule::Date)] {
            assert_eq!(gather.take::<()>(Err(Refusal::of(code, Fault::at("/a", rule)))), None);
        }
        let refusal = gather.all::<()>(None).expect_err("two were noted");
        assert_eq!(refusal.code, Code::BadSerial);
        assert_eq!(
            errors(&refusal),
            json!([{"pointer": "/a", "rule": "pattern"}, {"pointer": "/a", "rule": "date"}])
        );
    }
}
