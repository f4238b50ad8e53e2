//! Step 1 of the request path: from bytes to a bounded, typed request.
//!
//! Everything a caller sends is parsed here once, into types that cannot hold a wrong value. What cannot be
//! parsed becomes a [`Refusal`] with a public code; the text of a refusal never echoes what was sent.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use flatbuffers::VerifierOptions;
use schemas::codes::{Code, Rule};
use schemas::date::Date;
use schemas::holder::{HolderError, HolderRef, gives_away};
use schemas::identifier::{CertificateIdentifier, LicenseTypeCode, Serial, Uscc};
use schemas::license_type::{LicenseType, LicenseTypeError, MAX_VALUE_LENGTH};
use schemas::machine as fb;
use schemas::routes::Route;
use schemas::state::{LicenseState, Operation};
use schemas::text;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use crate::machine::{self, Form};
use crate::participant::Participant;
use crate::proposal::Kind;
use crate::refusal::{DATE_FORM, Fault, Gather, Placed as _, Refusal};
use crate::shape;

/// Longest body of a JSON route, bytes: an issue request with every field at its longest stays below.
pub const MAX_BODY_BYTES: usize = 256 * 1024;
/// Longest text of a use context's part other than the cause, characters.
const MAX_CONTEXT_CHARS: usize = 100;
/// Longest cause (用证事由), characters (`useCause` of the Shandong profile).
const MAX_CAUSE_CHARS: usize = 200;
/// Longest reason of a transition or revocation, characters.
const MAX_REASON_CHARS: usize = 200;
/// Most facts a verify request may expect.
const MAX_EXPECTED: usize = 8;
/// Most fields a license or a grant may name.
const MAX_FIELDS: usize = 64;
/// Most entries of one page of a trace or a log query.
const MAX_PAGE_ENTRIES: usize = 100;
/// Tables of a machine peer's request: the request, a license, two holders, a use context and the fields.
const MAX_TABLES: usize = 8 + MAX_FIELDS;
/// How deep they lie in each other.
const MAX_DEPTH: usize = 8;
/// Most holders of one license.
const MAX_HOLDERS: usize = 16;

/// A request as received: body bytes, and what they ask. What most requests say is read where it was received.
#[derive(Debug)]
pub struct Request<'a> {
    /// The body as received.
    pub body: &'a [u8],
    /// `Idempotency-Key`, where given.
    pub idempotency_key: Option<&'a str>,
    /// `Receipt: inline` was asked for.
    pub inline_proof: bool,
    /// The form of the body, and of the answer.
    pub form: Form,
    /// What is asked.
    pub action: Action<'a>,
}

/// What a request asks, one variant per route.
#[derive(Debug)]
pub enum Action<'a> {
    /// `POST /v1/licenses`
    Issue(Draft),
    /// `POST /v1/licenses/transition`
    Transition(Box<Transition>),
    /// `POST /v1/licenses/search`
    Search(Search<'a>),
    /// `POST /v1/licenses/retrieve`
    Retrieve(Retrieve<'a>),
    /// `POST /v1/verify`
    Verify(Verify<'a>),
    /// `POST /v1/grants`
    GrantCreate(GrantCreate),
    /// `POST /v1/grants/revoke`
    GrantRevoke(GrantRevoke),
    /// `POST /v1/participants`
    ParticipantAdd(Participant),
    /// `POST /v1/participants/change`
    ParticipantChange(Participant),
    /// `POST /v1/participants/suspend`
    ParticipantSuspend(ParticipantSuspend),
    /// `POST /v1/admin/proposals`
    Propose(Propose),
    /// `POST /v1/admin/approve`
    Approve(Approve),
    /// `POST /v1/trace`
    Trace(Trace<'a>),
    /// `POST /v1/log/query`
    LogQuery(Box<LogQuery>),
    /// `POST /v1/links`
    LinkMake(LinkMake),
    /// `POST /v1/links/end`
    LinkEnd(LinkEnd),
    /// `POST /v1/participants/list`
    ParticipantList(Paging),
    /// `POST /v1/admin/proposals/list`
    ProposalList(Paging),
    /// `POST /v1/grants/search`
    GrantSearch(GrantSearch),
    /// `POST /v1/licenses/issued`
    IssuedList(IssuedList),
}

/// Which page of a list.
#[derive(Clone, Copy, Debug)]
pub struct Paging {
    /// It begins behind this, which the page before ended with.
    pub after: Option<[u8; 16]>,
    /// Most that it lists.
    pub limit: usize,
}

/// A question for grants.
#[derive(Debug)]
pub struct GrantSearch {
    /// Whose, as a portal vouches; `None` = those that the caller may use.
    pub holder: Option<HolderRef>,
    /// Which page.
    pub paging: Paging,
}

/// A question of an issuing authority for its own licenses; every filter that is there must match.
#[derive(Debug)]
pub struct IssuedList {
    /// Licenses of this type only.
    pub type_code: Option<LicenseTypeCode>,
    /// In this state.
    pub state: Option<LicenseState>,
    /// Which page.
    pub paging: Paging,
}

impl<'a> Action<'a> {
    /// The use context, of what has one.
    pub fn context(&self) -> Option<&UseContext<'a>> {
        match self {
            Self::Search(search) => Some(&search.context),
            Self::Retrieve(retrieve) => Some(&retrieve.context),
            Self::Verify(verify) => Some(&verify.context),
            Self::Trace(trace) => Some(&trace.context),
            _ => None,
        }
    }
}

/// A holder's question who used the holder's licenses.
#[derive(Debug)]
pub struct Trace<'a> {
    /// The holder that the portal vouches for, or that the agent acts for.
    pub holder: HolderRef,
    /// Who asks in place of the holder.
    pub agent: Option<HolderRef>,
    /// The page begins behind the entry of this index.
    pub before: Option<u64>,
    /// Most entries of the page.
    pub limit: usize,
    /// Use context.
    pub context: UseContext<'a>,
}

/// An auditor's question; every filter that is there must match.
#[derive(Debug)]
pub struct LogQuery {
    /// Why the auditor asks; the holders whose records are shown are told.
    pub purpose: String,
    /// The user at the auditor's side.
    pub user_name: String,
    /// Earliest moment, ms since 1970.
    pub from_ms: Option<u64>,
    /// Latest moment, ms since 1970.
    pub to_ms: Option<u64>,
    /// The caller of the entries.
    pub organisation: Option<Uscc>,
    /// A license, in any version.
    pub license: Option<CertificateIdentifier>,
    /// A holder concerned.
    pub holder: Option<HolderRef>,
    /// A case number (办件编号).
    pub business_code: Option<String>,
    /// A public code.
    pub code: Option<Code>,
    /// Entries from this index on.
    pub from_index: u64,
    /// Most entries of the page.
    pub limit: usize,
}

/// What makes somebody act for a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkKind {
    /// 监护人.
    Guardian,
    /// 代理人.
    Agent,
}

impl LinkKind {
    /// The name in requests and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Guardian => "guardian",
            Self::Agent => "agent",
        }
    }
}

/// A new link, or new terms of one.
#[derive(Debug)]
pub struct LinkMake {
    /// Who is acted for.
    pub holder: HolderRef,
    /// Who acts.
    pub agent: HolderRef,
    /// By what.
    pub kind: LinkKind,
    /// Last valid moment, ms since 1970.
    pub until_ms: u64,
}

/// The end of a link.
#[derive(Debug)]
pub struct LinkEnd {
    /// Who was acted for.
    pub holder: HolderRef,
    /// Who acted.
    pub agent: HolderRef,
    /// Why.
    pub reason: String,
}

/// The content of a license to be signed.
#[derive(Debug)]
pub struct Draft {
    /// License type.
    pub type_code: LicenseTypeCode,
    /// Serial; never a holder's number.
    pub serial: Serial,
    /// 证照编号.
    pub certificate_number: String,
    /// Holders with the name that the license shows.
    pub holders: Vec<(String, HolderRef)>,
    /// Date of issue that the license shows.
    pub issue_date: Date,
    /// First valid day.
    pub valid_from: Date,
    /// Last valid day; `None` = no end.
    pub valid_until: Option<Date>,
    /// Fields of the face.
    pub fields: Vec<(String, String)>,
}

/// A change of one license's state.
#[derive(Debug)]
pub struct Transition {
    /// The version in force (for 08: the new license's identifier follows from `draft`).
    pub identifier: CertificateIdentifier,
    /// Operation 02–10.
    pub operation: Operation,
    /// Target of operation 05.
    pub to: Option<LicenseState>,
    /// Why.
    pub reason: String,
    /// Content of the new version (02, 09) or the new license (08).
    pub draft: Option<Draft>,
}

/// An index query.
#[derive(Debug)]
pub struct Search<'a> {
    /// Whose licenses.
    pub holder: HolderRef,
    /// Only this type.
    pub type_code: Option<LicenseTypeCode>,
    /// Grant used.
    pub grant: Option<[u8; 16]>,
    /// Use context.
    pub context: UseContext<'a>,
}

/// How much of a license is disclosed, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Yes or no.
    Verify,
    /// Named fields.
    Fields,
    /// All fields.
    Face,
    /// The signed bytes.
    Envelope,
    /// 加注件: the face with maker, purpose and end of use.
    Copy,
    /// The index.
    Search,
    /// Only in a grant, beside envelope: the signed bytes of a license that is not in force too.
    Ended,
}

impl Mode {
    /// Every mode, in the order of its bit.
    pub const ALL: [Self; 7] =
        [Self::Verify, Self::Fields, Self::Face, Self::Envelope, Self::Copy, Self::Search, Self::Ended];
    /// The modes that disclose a license.
    const DISCLOSING: [Self; 4] = [Self::Fields, Self::Face, Self::Envelope, Self::Copy];

    /// Bit in a grant's `modes`.
    pub const fn bit(self) -> u8 {
        match self {
            Self::Verify => 1,
            Self::Fields => 2,
            Self::Face => 4,
            Self::Envelope => 8,
            Self::Copy => 16,
            Self::Search => 32,
            Self::Ended => 64,
        }
    }

    /// The name in requests and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Fields => "fields",
            Self::Face => "face",
            Self::Envelope => "envelope",
            Self::Copy => "copy",
            Self::Search => "search",
            Self::Ended => "ended",
        }
    }
}

/// A retrieval of one license.
#[derive(Debug)]
pub struct Retrieve<'a> {
    /// Which.
    pub license: Named<'a>,
    /// How much.
    pub mode: Mode,
    /// Named fields for mode `fields`.
    pub fields: Vec<String>,
    /// Holder the portal vouches for.
    pub holder: Option<HolderRef>,
    /// Grant used.
    pub grant: Option<[u8; 16]>,
    /// The signed bytes are wanted although the license is not in force.
    pub include_ended: bool,
    /// Use context.
    pub context: UseContext<'a>,
}

/// A license named without its bytes.
#[derive(Debug)]
pub enum Named<'a> {
    /// By identifier of a version.
    Identifier {
        /// The identifier.
        identifier: CertificateIdentifier,
        /// Its text as received, which is how it prints.
        text: Cow<'a, str>,
    },
    /// By type, 证照编号 and holder.
    Number {
        /// License type.
        type_code: LicenseTypeCode,
        /// 证照编号.
        certificate_number: String,
        /// Holder.
        holder: HolderRef,
    },
}

/// What a verify request names.
#[derive(Debug)]
pub enum Subject<'a> {
    /// A license named.
    Named(Named<'a>),
    /// The envelope itself.
    Envelope(Vec<u8>),
}

/// A verification.
#[derive(Debug)]
pub struct Verify<'a> {
    /// Which license.
    pub subject: Subject<'a>,
    /// Field values that the caller expects.
    pub expect: Vec<(String, String)>,
    /// Holder the portal vouches for.
    pub holder: Option<HolderRef>,
    /// Grant used.
    pub grant: Option<[u8; 16]>,
    /// Use context.
    pub context: UseContext<'a>,
}

/// A new grant.
#[derive(Debug)]
pub struct GrantCreate {
    /// The holder the portal vouches for.
    pub holder: HolderRef,
    /// Who may use it.
    pub grantee: Uscc,
    /// One license, or all of a type.
    pub target: GrantTarget,
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

/// What a grant is for.
#[derive(Debug)]
pub enum GrantTarget {
    /// One license.
    License(CertificateIdentifier),
    /// All of the holder's licenses of a type.
    Type(LicenseTypeCode),
}

/// The end of a grant.
#[derive(Debug)]
pub struct GrantRevoke {
    /// Which.
    pub grant: [u8; 16],
    /// The holder the portal vouches for.
    pub holder: HolderRef,
    /// Why.
    pub reason: String,
}

/// Suspension of a participant, or its end.
#[derive(Debug)]
pub struct ParticipantSuspend {
    /// Whom.
    pub organisation: Uscc,
    /// Suspend or lift.
    pub suspended: bool,
    /// Why.
    pub reason: String,
}

/// What needs two operators.
#[derive(Debug)]
pub struct Propose {
    /// What.
    pub what: Proposed,
    /// Why.
    pub reason: String,
}

/// A kind of proposal with what it is about.
#[derive(Debug)]
pub enum Proposed {
    /// A change of epoch.
    RotateEpoch,
    /// A registration, new or in place of the one there is.
    Participant(Participant),
    /// A license type, new or in place of the one there is.
    Type(LicenseType),
    /// One of the kinds about a holder.
    Holder(Kind, HolderRef),
}

impl Proposed {
    /// The kind.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::RotateEpoch => Kind::RotateEpoch,
            Self::Participant(_) => Kind::RegisterParticipant,
            Self::Type(_) => Kind::PublishType,
            Self::Holder(kind, _) => *kind,
        }
    }
}

/// The approval of a proposal.
#[derive(Debug)]
pub struct Approve {
    /// Which.
    pub proposal: [u8; 16],
    /// The registration, where one is proposed: nobody approves one without knowing it.
    pub participant: Option<Participant>,
    /// The definition, where a license type is proposed.
    pub license_type: Option<LicenseType>,
}

/// Who uses a license, for what and in which case (用证信息): all six are required.
#[derive(Clone, Debug)]
pub struct UseContext<'a> {
    /// Person at the caller, as the caller names them.
    pub user_name: Cow<'a, str>,
    /// Service item code (事项编码).
    pub item_code: Cow<'a, str>,
    /// Service item name.
    pub item_name: Cow<'a, str>,
    /// Case number (办件编号).
    pub business_code: Cow<'a, str>,
    /// Why (用证事由).
    pub cause: Cow<'a, str>,
    /// Stage: 申办, 受理, 审核, 决定 or 送达.
    pub stage: Cow<'a, str>,
    /// Delay class, for a use that the law keeps from its holder for a time.
    pub delay: Option<Cow<'a, str>>,
}

/// Stages of a case (环节).
pub const STAGES: [&str; 5] = ["申办", "受理", "审核", "决定", "送达"];

/// Reads a body as the route's action.
pub fn parse(route: Route, form: Form, body: &[u8]) -> Result<Action<'_>, Refusal> {
    match form {
        Form::Json => parse_json(route, body),
        Form::Machine => parse_machine(route, body).map_err(Refusal::in_machine_names),
    }
}

fn parse_machine(route: Route, body: &[u8]) -> Result<Action<'_>, Refusal> {
    Ok(match route {
        Route::Verify => {
            Action::Verify(wire::Verify::of_machine(&read::<fb::VerifyRequest<'_>>(body)?)?.typed()?)
        }
        Route::Retrieve => {
            Action::Retrieve(wire::Retrieve::of_machine(&read::<fb::RetrieveRequest<'_>>(body)?)?.typed()?)
        }
        _ => {
            let fault = Fault::header("Content-Type", Rule::OneOf).one_of([Form::Json.media_type()]);
            return Err(Refusal::of(Code::WrongContentType, fault));
        }
    })
}

/// Reads a table of a machine peer, whose parts may lie in each other only so often.
fn read<'a, T: flatbuffers::Follow<'a> + flatbuffers::Verifiable + 'a>(
    body: &'a [u8],
) -> Result<T::Inner, Refusal> {
    let limits = VerifierOptions {
        max_depth: MAX_DEPTH,
        max_tables: MAX_TABLES,
        max_apparent_size: MAX_BODY_BYTES,
        ..VerifierOptions::default()
    };
    flatbuffers::root_with_opts::<T>(&limits, body)
        .map_err(|error| Refusal::all(Code::MalformedRequest, machine::fault(&error).into_iter().collect()))
}

fn parse_json(route: Route, body: &[u8]) -> Result<Action<'_>, Refusal> {
    let text = std::str::from_utf8(body).map_err(|_| Refusal::new(Code::BadUtf8))?;
    Ok(match route {
        Route::Issue => Action::Issue(json::<wire::Issue>(text)?.typed()?),
        Route::Transition => Action::Transition(Box::new(json::<wire::Transition>(text)?.typed()?)),
        Route::Search => Action::Search(json::<wire::Search<'_>>(text)?.typed()?),
        Route::Retrieve => Action::Retrieve(json::<wire::Retrieve<'_>>(text)?.typed()?),
        Route::Verify => Action::Verify(json::<wire::Verify<'_>>(text)?.typed()?),
        Route::GrantCreate => Action::GrantCreate(json::<wire::GrantCreate<'_>>(text)?.typed()?),
        Route::GrantRevoke => Action::GrantRevoke(json::<wire::GrantRevoke<'_>>(text)?.typed()?),
        Route::ParticipantAdd => Action::ParticipantAdd(json::<wire::ParticipantBody>(text)?.typed()?),
        Route::ParticipantChange => Action::ParticipantChange(json::<wire::ParticipantBody>(text)?.typed()?),
        Route::ParticipantSuspend => {
            Action::ParticipantSuspend(json::<wire::ParticipantSuspend>(text)?.typed()?)
        }
        Route::Trace => Action::Trace(json::<wire::Trace<'_>>(text)?.typed()?),
        Route::LogQuery => Action::LogQuery(Box::new(json::<wire::LogQuery<'_>>(text)?.typed()?)),
        Route::LinkMake => Action::LinkMake(json::<wire::LinkMake<'_>>(text)?.typed()?),
        Route::LinkEnd => Action::LinkEnd(json::<wire::LinkEnd<'_>>(text)?.typed()?),
        Route::Propose => Action::Propose(json::<wire::Propose<'_>>(text)?.typed()?),
        Route::Approve => Action::Approve(json::<wire::Approve>(text)?.typed()?),
        Route::ParticipantList => Action::ParticipantList(json::<wire::Paging>(text)?.typed()?),
        Route::ProposalList => Action::ProposalList(json::<wire::Paging>(text)?.typed()?),
        Route::GrantSearch => Action::GrantSearch(json::<wire::GrantSearch<'_>>(text)?.typed()?),
        Route::IssuedList => Action::IssuedList(json::<wire::IssuedList<'_>>(text)?.typed()?),
        Route::None | Route::System => return Err(Refusal::new(Code::NoSuchRoute)),
    })
}

/// Parses JSON.
fn json<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Refusal> {
    serde_json::from_str(text).map_err(|error| misshapen::<T>(text, &error))
}

/// Why a text that serde refused is not what was asked for: where it is no JSON, or else every fault of its shape. The code
/// tells unknown and doubled members from the others.
#[cold]
fn misshapen<'a, T: Deserialize<'a>>(text: &str, error: &serde_json::Error) -> Refusal {
    let faults = match shape::faults::<T>(text) {
        Ok(faults) => faults,
        Err(error) => return Refusal::new(Code::MalformedRequest).line(error.line(), error.column()),
    };
    let first = faults.first().map(Fault::rule);
    let code = match first {
        Some(Rule::UnknownMember) => Code::UnknownField,
        Some(Rule::DuplicateMember) => Code::DuplicateKey,
        _ => Code::MalformedRequest,
    };
    let refusal = Refusal::all(code, faults);
    // What is not there has no place in the text.
    if first == Some(Rule::Required) { refusal } else { refusal.line(error.line(), error.column()) }
}

/// Reads a text of people and places; what is wrong with it is refused with `code`.
fn words(code: Code, value: Cow<'_, str>, max_chars: usize) -> Result<Cow<'_, str>, Refusal> {
    let composed = match text::read(&value, max_chars) {
        Ok(Cow::Borrowed(_)) => None,
        Ok(Cow::Owned(composed)) => Some(composed),
        Err(error) => return Err(Refusal::of(code, Fault::text("", &value, max_chars, error))),
    };
    Ok(composed.map_or(value, Cow::Owned))
}

/// Reads a text that is kept.
pub(crate) fn owned_words(code: Code, value: String, max_chars: usize) -> Result<String, Refusal> {
    words(code, Cow::Owned(value), max_chars).map(Cow::into_owned)
}

fn reason(text: String) -> Result<String, Refusal> {
    owned_words(Code::MalformedRequest, text, MAX_REASON_CHARS).under("reason")
}

/// The form of a moment.
const MOMENT_FORM: &str = "RFC 3339, such as 2026-12-31T23:59:59+08:00";

fn moment(code: Code, text: &str) -> Result<u64, Refusal> {
    let fault = || Fault::at("", Rule::Date).form(MOMENT_FORM).got(text.chars().count());
    schemas::date::parse_rfc3339(text).ok_or_else(|| Refusal::of(code, fault()))
}

/// Reads a day.
pub(crate) fn day(code: Code, text: &str) -> Result<Date, Refusal> {
    let fault = || Fault::at("", Rule::Date).form(DATE_FORM).got(text.chars().count());
    text.parse().map_err(|_| Refusal::of(code, fault()))
}

/// A map of text to text that keeps its order and refuses a key that stands twice.
#[derive(Debug, Default)]
struct Pairs(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor;
        impl<'de> Visitor<'de> for PairsVisitor {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of text values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs: Vec<(String, String)> = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, String>()? {
                    if pairs.iter().any(|(before, _)| *before == key) {
                        return Err(serde::de::Error::duplicate_field("of the map"));
                    }
                    if pairs.len() == MAX_FIELDS {
                        return Err(serde::de::Error::invalid_length(MAX_FIELDS + 1, &self));
                    }
                    pairs.push((key, value));
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(PairsVisitor)
    }
}

/// The JSON shapes, before their values are checked; `openapi.json` is their contract.
mod wire {
    use super::*;

    /// Text where it was received, unless it is written with escapes.
    #[derive(Deserialize)]
    #[serde(transparent)]
    pub(super) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

    impl std::ops::Deref for Text<'_> {
        type Target = str;

        fn deref(&self) -> &str {
            &self.0
        }
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    pub(super) struct Issue {
        license: License,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    pub(super) struct License {
        type_code: String,
        serial: String,
        certificate_number: String,
        holders: Vec<NamedHolder>,
        issue_date: String,
        valid_from: String,
        valid_until: Option<String>,
        fields: Pairs,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct NamedHolder {
        name: String,
        type_code: String,
        number: String,
        as_registered: Option<bool>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Holder<'a> {
        #[serde(borrow)]
        type_code: Text<'a>,
        number: Text<'a>,
        as_registered: Option<bool>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    pub(super) struct Transition {
        identifier: String,
        operation: String,
        to: Option<String>,
        reason: String,
        license: Option<License>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    pub(super) struct Search<'a> {
        #[serde(borrow)]
        holder: Holder<'a>,
        type_code: Option<Text<'a>>,
        grant: Option<Text<'a>>,
        #[serde(rename = "use")]
        context: Option<ContextValue<'a>>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct LicenseName<'a> {
        #[serde(borrow)]
        identifier: Option<Text<'a>>,
        type_code: Option<Text<'a>>,
        certificate_number: Option<Text<'a>>,
        holder: Option<Holder<'a>>,
        envelope: Option<Envelope<'a>>,
    }

    /// An envelope as it was sent.
    #[derive(Deserialize)]
    #[serde(from = "Text<'a>")]
    enum Envelope<'a> {
        /// In JSON, base64.
        Base64(Text<'a>),
        /// By a machine peer.
        Bytes(&'a [u8]),
    }

    impl<'a> From<Text<'a>> for Envelope<'a> {
        fn from(text: Text<'a>) -> Self {
            Self::Base64(text)
        }
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    pub(super) struct Retrieve<'a> {
        #[serde(borrow)]
        license: LicenseName<'a>,
        mode: Text<'a>,
        fields: Option<Vec<String>>,
        holder: Option<Holder<'a>>,
        grant: Option<Text<'a>>,
        include_ended: Option<bool>,
        #[serde(rename = "use")]
        context: Option<ContextValue<'a>>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    pub(super) struct Verify<'a> {
        #[serde(borrow)]
        license: LicenseName<'a>,
        expect: Option<Pairs>,
        holder: Option<Holder<'a>>,
        grant: Option<Text<'a>>,
        #[serde(rename = "use")]
        context: Option<ContextValue<'a>>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    pub(super) struct GrantCreate<'a> {
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

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    pub(super) struct GrantRevoke<'a> {
        #[serde(borrow)]
        grant: Text<'a>,
        holder: Holder<'a>,
        reason: String,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    pub(super) struct ParticipantSuspend {
        organisation: String,
        suspended: bool,
        reason: String,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    pub(super) struct ParticipantBody {
        participant: crate::participant::Wire,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    pub(super) struct Propose<'a> {
        kind: Kind,
        #[serde(borrow)]
        holder: Option<Holder<'a>>,
        participant: Option<crate::participant::Wire>,
        license_type: Option<serde_json::Value>,
        reason: String,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    pub(super) struct Approve {
        proposal: String,
        participant: Option<crate::participant::Wire>,
        license_type: Option<serde_json::Value>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    pub(super) struct Paging {
        after: Option<String>,
        limit: Option<u64>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    pub(super) struct GrantSearch<'a> {
        #[serde(borrow)]
        holder: Option<Holder<'a>>,
        after: Option<String>,
        limit: Option<u64>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    pub(super) struct IssuedList<'a> {
        #[serde(borrow)]
        type_code: Option<Text<'a>>,
        state: Option<Text<'a>>,
        after: Option<String>,
        limit: Option<u64>,
    }

    /// The use context's object; a missing member is a bad use context, not a malformed request.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct ContextValue<'a> {
        #[serde(borrow)]
        user_name: Option<Text<'a>>,
        item_code: Option<Text<'a>>,
        item_name: Option<Text<'a>>,
        business_code: Option<Text<'a>>,
        cause: Option<Text<'a>>,
        stage: Option<Text<'a>>,
        delay: Option<Text<'a>>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    pub(super) struct Trace<'a> {
        #[serde(borrow)]
        holder: Holder<'a>,
        agent: Option<Holder<'a>>,
        before: Option<u64>,
        limit: Option<u64>,
        #[serde(rename = "use")]
        context: Option<ContextValue<'a>>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    pub(super) struct LogQuery<'a> {
        purpose: Option<String>,
        user_name: Option<String>,
        from: Option<String>,
        to: Option<String>,
        organisation: Option<String>,
        license: Option<String>,
        #[serde(borrow)]
        holder: Option<Holder<'a>>,
        business_code: Option<String>,
        code: Option<String>,
        from_index: Option<u64>,
        limit: Option<u64>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    pub(super) struct LinkMake<'a> {
        #[serde(borrow)]
        holder: Holder<'a>,
        agent: Holder<'a>,
        kind: LinkKind,
        until: String,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    pub(super) struct LinkEnd<'a> {
        #[serde(borrow)]
        holder: Holder<'a>,
        agent: Holder<'a>,
        reason: String,
    }

    fn page(limit: Option<u64>) -> Result<usize, Refusal> {
        let limit = limit.map_or(Some(MAX_PAGE_ENTRIES), |limit| usize::try_from(limit).ok());
        limit.filter(|limit| (1..=MAX_PAGE_ENTRIES).contains(limit)).ok_or_else(|| {
            let fault = Fault::at("/limit", Rule::Range).bounds(1, MAX_PAGE_ENTRIES);
            Refusal::of(Code::MalformedRequest, fault)
        })
    }

    impl<'a> Trace<'a> {
        pub(super) fn typed(self) -> Result<super::Trace<'a>, Refusal> {
            let mut wrong = Gather::new();
            let context = wrong.take(context(self.context));
            let holder = wrong.take(self.holder.typed().under("holder"));
            let agent = wrong.take(self.agent.map(Holder::typed).transpose().under("agent"));
            let limit = wrong.take(page(self.limit));
            let typed = || {
                let (holder, agent, limit, context) = (holder?, agent?, limit?, context?);
                Some(super::Trace { holder, agent, before: self.before, limit, context })
            };
            wrong.all(typed())
        }
    }

    impl LogQuery<'_> {
        pub(super) fn typed(self) -> Result<super::LogQuery, Refusal> {
            let mut wrong = Gather::new();
            let mut said = |name: &str, text: Option<String>, max| {
                let missing = || Fault::at("", Rule::Required).bounds(1, max);
                let text = text.ok_or_else(|| Refusal::of(Code::BadUseContext, missing()));
                wrong.take(text.and_then(|text| owned_words(Code::BadUseContext, text, max)).under(name))
            };
            let purpose = said("purpose", self.purpose, MAX_CAUSE_CHARS);
            let user_name = said("userName", self.user_name, MAX_CONTEXT_CHARS);
            let mut time = |name: &str, text: Option<String>| {
                let read = text.map(|text| moment(Code::MalformedRequest, &text));
                wrong.take(read.transpose().under(name))
            };
            let (from_ms, to_ms) = (time("from", self.from), time("to", self.to));
            let organisation = self.organisation.map(|text| Refusal::parse(&text)).transpose();
            let organisation = wrong.take(organisation.under("organisation"));
            let license =
                wrong.take(self.license.as_deref().map(Refusal::parse).transpose().under("license"));
            let holder = wrong.take(self.holder.map(Holder::typed).transpose().under("holder"));
            let code = self.code.map(|name| {
                let fault =
                    || Fault::at("/code", Rule::OneOf).one_of(Code::ALL.iter().map(|code| code.name()));
                Code::from_name(&name)
                    .ok_or_else(|| Refusal::of(Code::MalformedRequest, fault().got(name.chars().count())))
            });
            let code = wrong.take(code.transpose());
            let limit = wrong.take(page(self.limit));
            let business_code = self.business_code.map(|text| {
                owned_words(Code::MalformedRequest, text, MAX_CONTEXT_CHARS).under("businessCode")
            });
            let business_code = wrong.take(business_code.transpose());
            let typed = || {
                Some(super::LogQuery {
                    purpose: purpose?,
                    user_name: user_name?,
                    from_ms: from_ms?,
                    to_ms: to_ms?,
                    organisation: organisation?,
                    license: license?,
                    holder: holder?,
                    business_code: business_code?,
                    code: code?,
                    from_index: self.from_index.unwrap_or(0),
                    limit: limit?,
                })
            };
            wrong.all(typed())
        }
    }

    /// Nobody is somebody's own agent.
    fn parties(holder: Holder<'_>, agent: Holder<'_>) -> Result<(HolderRef, HolderRef), Refusal> {
        let mut wrong = Gather::new();
        let holder = wrong.take(holder.typed().under("holder"));
        let agent = wrong.take(agent.typed().under("agent"));
        if holder.is_some() && holder == agent {
            wrong.note(Refusal::of(Code::BadLink, Fault::at("/agent", Rule::Distinct)));
        }
        wrong.all(holder.zip(agent))
    }

    impl LinkMake<'_> {
        pub(super) fn typed(self) -> Result<super::LinkMake, Refusal> {
            let mut wrong = Gather::new();
            let parties = wrong.take(parties(self.holder, self.agent));
            let until_ms = wrong.take(moment(Code::BadLink, &self.until).under("until"));
            let made = parties.zip(until_ms).map(|((holder, agent), until_ms)| super::LinkMake {
                holder,
                agent,
                kind: self.kind,
                until_ms,
            });
            wrong.all(made)
        }
    }

    impl LinkEnd<'_> {
        pub(super) fn typed(self) -> Result<super::LinkEnd, Refusal> {
            let mut wrong = Gather::new();
            let parties = wrong.take(parties(self.holder, self.agent));
            let reason = wrong.take(reason(self.reason));
            let ended = parties.zip(reason);
            wrong.all(ended.map(|((holder, agent), reason)| super::LinkEnd { holder, agent, reason }))
        }
    }

    impl Issue {
        pub(super) fn typed(self) -> Result<Draft, Refusal> {
            self.license.typed().under("license")
        }
    }

    impl License {
        fn typed(self) -> Result<Draft, Refusal> {
            let mut wrong = Gather::new();
            let type_code = wrong.take(type_code(&self.type_code).under("typeCode"));
            let serial: Option<Serial> = wrong.take(self.serial.parse().map_err(|error| {
                Refusal::of(Code::BadSerial, Fault::identifier("/serial", &self.serial, error))
            }));
            if !(1..=MAX_HOLDERS).contains(&self.holders.len()) {
                let fault = Fault::at("/holders", Rule::Count).bounds(1, MAX_HOLDERS).got(self.holders.len());
                wrong.note(Refusal::of(Code::BadFields, fault));
            }
            let mut holders: Vec<(String, HolderRef)> =
                Vec::with_capacity(self.holders.len().min(MAX_HOLDERS));
            for (holder, place) in self.holders.into_iter().zip(0..MAX_HOLDERS) {
                let under = |refusal: Refusal| refusal.under(place).under("holders");
                let name = owned_words(Code::BadHolder, holder.name, MAX_CONTEXT_CHARS).under("name");
                let name = wrong.take(name.map_err(under));
                let reference = holder_of(&holder.type_code, &holder.number, holder.as_registered);
                let reference = reference.map_err(|error| under(Refusal::holder(&holder.number, error)));
                let Some((name, reference)) = name.zip(wrong.take(reference)) else { continue };
                if holders.iter().any(|(_, other)| *other == reference) {
                    wrong.note(under(Refusal::of(Code::BadHolder, Fault::at("/number", Rule::Distinct))));
                }
                holders.push((name, reference));
            }
            // A serial stands in every identifier, so a holder's number there would publish it.
            let published = serial
                .as_ref()
                .is_some_and(|serial| gives_away(serial.as_str(), holders.iter().map(|(_, holder)| holder)));
            if published {
                let fault = Fault::at("/serial", Rule::NotAllowed).form("no holder's number");
                wrong.note(Refusal::of(Code::BadSerial, fault));
            }
            let number = owned_words(Code::BadFields, self.certificate_number, MAX_CONTEXT_CHARS);
            let certificate_number = wrong.take(number.under("certificateNumber"));
            let mut fields = Vec::with_capacity(self.fields.0.len());
            for ((key, value), position) in self.fields.0.into_iter().zip(1..) {
                let length = value.chars().count();
                if length > MAX_VALUE_LENGTH {
                    let fault =
                        Fault::at("/fields", Rule::Length).position(position).bounds(0, MAX_VALUE_LENGTH);
                    wrong.note(Refusal::of(Code::BadFields, fault.got(length)));
                } else {
                    let composed = match text::nfc(&value) {
                        Cow::Borrowed(_) => None,
                        Cow::Owned(composed) => Some(composed),
                    };
                    fields.push((key, composed.unwrap_or(value)));
                }
            }
            let mut date = |name: &str, text: &str| wrong.take(day(Code::BadFields, text).under(name));
            let issue_date = date("issueDate", &self.issue_date);
            let valid_from = date("validFrom", &self.valid_from);
            let valid_until = match &self.valid_until {
                None => Some(None),
                Some(text) => date("validUntil", text).map(Some),
            };
            let typed = || {
                Some(Draft {
                    type_code: type_code?,
                    serial: serial?,
                    certificate_number: certificate_number?,
                    holders,
                    issue_date: issue_date?,
                    valid_from: valid_from?,
                    valid_until: valid_until?,
                    fields,
                })
            };
            wrong.all(typed())
        }
    }

    /// One of the codes of a table.
    fn coded<T: std::str::FromStr>(
        text: &str,
        codes: impl Iterator<Item = &'static str>,
    ) -> Result<T, Refusal> {
        text.parse().map_err(|_| {
            let fault = Fault::at("", Rule::OneOf).one_of(codes).got(text.chars().count());
            Refusal::of(Code::MalformedRequest, fault)
        })
    }

    impl Transition {
        pub(super) fn typed(self) -> Result<super::Transition, Refusal> {
            let mut wrong = Gather::new();
            let identifier = wrong.take(Refusal::parse(&self.identifier).under("identifier"));
            let operations = Operation::ALL.iter().filter(|operation| **operation != Operation::Issue);
            let operation = coded(&self.operation, operations.map(|operation| operation.code()));
            let operation = wrong.take(operation.under("operation"));
            let states = || LicenseState::ALL.iter().map(|state| state.code());
            let to = self.to.as_deref().map(|to| coded(to, states())).transpose();
            let to = wrong.take(to.under("to"));
            let reason = wrong.take(reason(self.reason));
            let draft = wrong.take(self.license.map(License::typed).transpose().under("license"));
            let typed = || {
                let (identifier, operation) = (identifier?, operation?);
                Some(super::Transition { identifier, operation, to: to?, reason: reason?, draft: draft? })
            };
            wrong.all(typed())
        }
    }

    /// A wrong check character is taken where the request says that a registrar gave the number out like this.
    fn holder_of(
        type_code: &str,
        number: &str,
        as_registered: Option<bool>,
    ) -> Result<HolderRef, HolderError> {
        let read = if as_registered.unwrap_or(false) { HolderRef::as_registered } else { HolderRef::new };
        read(type_code, number)
    }

    impl Holder<'_> {
        fn typed(self) -> Result<HolderRef, Refusal> {
            holder_of(&self.type_code, &self.number, self.as_registered)
                .map_err(|error| Refusal::holder(&self.number, error))
        }
    }

    fn context<'a>(value: Option<ContextValue<'a>>) -> Result<UseContext<'a>, Refusal> {
        let bad = |fault| Refusal::of(Code::BadUseContext, fault);
        let value = value.ok_or_else(|| bad(Fault::at("/use", Rule::Required).form("object")))?;
        let mut wrong = Gather::new();
        let mut part = |name: &str, text: Option<Text<'a>>, max| match text {
            Some(Text(text)) => wrong.take(words(Code::BadUseContext, text, max).under(name)),
            None => {
                wrong.note(bad(Fault::at("", Rule::Required).bounds(1, max)).under(name));
                None
            }
        };
        let user_name = part("userName", value.user_name, MAX_CONTEXT_CHARS);
        let item_code = part("itemCode", value.item_code, MAX_CONTEXT_CHARS);
        let item_name = part("itemName", value.item_name, MAX_CONTEXT_CHARS);
        let business_code = part("businessCode", value.business_code, MAX_CONTEXT_CHARS);
        let cause = part("cause", value.cause, MAX_CAUSE_CHARS);
        let delay = match value.delay {
            None => Some(None),
            class => part("delay", class, MAX_CONTEXT_CHARS).map(Some),
        };
        let stage = value.stage.map(|Text(stage)| stage);
        let known = stage.as_deref().is_some_and(|stage| STAGES.contains(&stage));
        if !known {
            let rule = if stage.is_some() { Rule::OneOf } else { Rule::Required };
            let fault = Fault::at("/stage", rule).one_of(STAGES);
            let got = stage.as_ref().map(|stage| stage.chars().count());
            wrong.note(bad(got.into_iter().fold(fault, Fault::got)));
        }
        let typed = || {
            Some(UseContext {
                user_name: user_name?,
                item_code: item_code?,
                item_name: item_name?,
                business_code: business_code?,
                cause: cause?,
                stage: stage?,
                delay: delay?,
            })
        };
        wrong.all(typed()).under("use")
    }

    impl<'a> Search<'a> {
        pub(super) fn typed(self) -> Result<super::Search<'a>, Refusal> {
            let mut wrong = Gather::new();
            let context = wrong.take(context(self.context));
            let holder = wrong.take(self.holder.typed().under("holder"));
            let type_code =
                wrong.take(self.type_code.as_deref().map(type_code).transpose().under("typeCode"));
            let grant = wrong.take(self.grant.as_deref().map(id).transpose().under("grant"));
            let typed = || {
                let (holder, type_code, grant, context) = (holder?, type_code?, grant?, context?);
                Some(super::Search { holder, type_code, grant, context })
            };
            wrong.all(typed())
        }
    }

    impl<'a> LicenseName<'a> {
        fn named(self) -> Result<Named<'a>, Refusal> {
            match self {
                Self {
                    identifier: Some(text),
                    type_code: None,
                    certificate_number: None,
                    holder: None,
                    envelope: None,
                } => Ok(Named::Identifier {
                    identifier: Refusal::parse(&text).under("identifier")?,
                    text: text.0,
                }),
                Self {
                    identifier: None,
                    type_code: Some(code),
                    certificate_number: Some(Text(number)),
                    holder: Some(holder),
                    envelope: None,
                } => {
                    let mut wrong = Gather::new();
                    let type_code = wrong.take(type_code(&code).under("typeCode"));
                    // Blanks at the ends of a number that is looked up mean nothing.
                    let number = words(Code::MalformedRequest, number.trim().into(), MAX_CONTEXT_CHARS);
                    let certificate_number =
                        wrong.take(number.map(Cow::into_owned).under("certificateNumber"));
                    let holder = wrong.take(holder.typed().under("holder"));
                    let typed = || {
                        let (type_code, holder) = (type_code?, holder?);
                        Some(Named::Number { type_code, certificate_number: certificate_number?, holder })
                    };
                    wrong.all(typed())
                }
                other => Err(Refusal::all(Code::MalformedRequest, other.mixed())),
            }
        }

        /// What is wrong with the members together.
        fn mixed(&self) -> Vec<Fault> {
            let by_number = [
                ("/typeCode", self.type_code.is_some()),
                ("/certificateNumber", self.certificate_number.is_some()),
                ("/holder", self.holder.is_some()),
            ];
            let otherwise = self.identifier.is_some() || self.envelope.is_some();
            if otherwise || by_number.iter().all(|(_, there)| !there) {
                let ways = "identifier; or typeCode, certificateNumber and holder; or, to verify, envelope";
                return vec![Fault::at("", Rule::Combination).form(ways)];
            }
            let missing = by_number.iter().filter(|(_, there)| !there);
            missing.map(|(pointer, _)| Fault::at(*pointer, Rule::Required)).collect()
        }

        fn subject(self) -> Result<Subject<'a>, Refusal> {
            match self {
                Self {
                    identifier: None,
                    type_code: None,
                    certificate_number: None,
                    holder: None,
                    envelope: Some(envelope),
                } => Ok(Subject::Envelope(match envelope {
                    Envelope::Base64(text) => BASE64.decode(text.as_bytes()).map_err(|_| {
                        let fault = Fault::at("/envelope", Rule::Pattern).form("base64 (RFC 4648 section 4)");
                        Refusal::of(Code::BadEnvelope, fault.got(text.chars().count()))
                    })?,
                    Envelope::Bytes(bytes) => bytes.to_vec(),
                })),
                other => Ok(Subject::Named(other.named()?)),
            }
        }
    }

    fn names(fields: Vec<String>) -> Result<Vec<String>, Refusal> {
        if fields.len() > MAX_FIELDS {
            let fault = Fault::at("", Rule::Count).bounds(1, MAX_FIELDS).got(fields.len());
            return Err(Refusal::of(Code::BadFields, fault));
        }
        let names = fields.into_iter().zip(0..);
        names
            .map(|(name, place)| owned_words(Code::BadFields, name, MAX_CONTEXT_CHARS).under(place))
            .collect()
    }

    impl<'a> Retrieve<'a> {
        pub(super) fn typed(self) -> Result<super::Retrieve<'a>, Refusal> {
            let mut wrong = Gather::new();
            let context = wrong.take(context(self.context));
            let mode = Mode::DISCLOSING.into_iter().find(|mode| mode.name() == &*self.mode);
            let fields = self.fields.unwrap_or_default();
            let malformed = |fault| Refusal::of(Code::MalformedRequest, fault);
            match mode {
                None => {
                    let names = Mode::DISCLOSING.iter().map(|mode| mode.name());
                    let fault = Fault::at("/mode", Rule::OneOf).one_of(names).got(self.mode.chars().count());
                    wrong.note(malformed(fault));
                }
                Some(Mode::Fields) if fields.is_empty() => {
                    wrong.note(malformed(Fault::at("/fields", Rule::Required).bounds(1, MAX_FIELDS)));
                }
                Some(mode) if mode != Mode::Fields && !fields.is_empty() => {
                    wrong.note(malformed(Fault::at("/fields", Rule::NotAllowed).form("mode fields only")));
                }
                Some(_) => {}
            }
            let license = wrong.take(self.license.named().under("license"));
            let fields = wrong.take(names(fields).under("fields"));
            let holder = wrong.take(self.holder.map(Holder::typed).transpose().under("holder"));
            let grant = wrong.take(self.grant.as_deref().map(id).transpose().under("grant"));
            let typed = || {
                Some(super::Retrieve {
                    license: license?,
                    mode: mode?,
                    fields: fields?,
                    holder: holder?,
                    grant: grant?,
                    include_ended: self.include_ended.unwrap_or(false),
                    context: context?,
                })
            };
            wrong.all(typed())
        }
    }

    impl<'a> From<&'a str> for Text<'a> {
        fn from(text: &'a str) -> Self {
            Self(Cow::Borrowed(text))
        }
    }

    impl<'a> From<fb::Holder<'a>> for Holder<'a> {
        fn from(holder: fb::Holder<'a>) -> Self {
            Self {
                type_code: holder.type_code().into(),
                number: holder.number().into(),
                as_registered: Some(holder.as_registered()),
            }
        }
    }

    impl<'a> From<fb::LicenseName<'a>> for LicenseName<'a> {
        fn from(name: fb::LicenseName<'a>) -> Self {
            Self {
                identifier: name.identifier().map(Text::from),
                type_code: name.type_code().map(Text::from),
                certificate_number: name.certificate_number().map(Text::from),
                holder: name.holder().map(Holder::from),
                envelope: name.envelope().map(|envelope| Envelope::Bytes(envelope.bytes())),
            }
        }
    }

    impl<'a> From<fb::UseContext<'a>> for ContextValue<'a> {
        fn from(context: fb::UseContext<'a>) -> Self {
            Self {
                user_name: context.user_name().map(Text::from),
                item_code: context.item_code().map(Text::from),
                item_name: context.item_name().map(Text::from),
                business_code: context.business_code().map(Text::from),
                cause: context.cause().map(Text::from),
                stage: context.stage().map(Text::from),
                delay: context.delay().map(Text::from),
            }
        }
    }

    impl<'a> Retrieve<'a> {
        pub(super) fn of_machine(request: &fb::RetrieveRequest<'a>) -> Result<Self, Refusal> {
            let fields = request.fields();
            if let Some(fields) = fields.filter(|fields| fields.len() > MAX_FIELDS) {
                let fault = Fault::at("/fields", Rule::Count).bounds(1, MAX_FIELDS).got(fields.len());
                return Err(Refusal::of(Code::MalformedRequest, fault));
            }
            Ok(Self {
                license: request.license().into(),
                mode: request.mode().into(),
                fields: fields.map(|fields| fields.iter().map(str::to_owned).collect()),
                holder: request.holder().map(Holder::from),
                grant: request.grant().map(Text::from),
                include_ended: Some(request.include_ended()),
                context: request.use_().map(ContextValue::from),
            })
        }
    }

    impl<'a> Verify<'a> {
        pub(super) fn of_machine(request: &fb::VerifyRequest<'a>) -> Result<Self, Refusal> {
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
                grant: request.grant().map(Text::from),
                context: request.use_().map(ContextValue::from),
            })
        }

        pub(super) fn typed(self) -> Result<super::Verify<'a>, Refusal> {
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
                Some(super::Verify { subject, expect, holder, grant, context })
            };
            wrong.all(typed())
        }
    }

    impl GrantCreate<'_> {
        pub(super) fn typed(self) -> Result<super::GrantCreate, Refusal> {
            let mut wrong = Gather::new();
            let bad = |fault| Refusal::of(Code::BadGrant, fault);
            let target = wrong.take(match (self.identifier, self.type_code) {
                (Some(text), None) => Refusal::parse(&text).map(GrantTarget::License).under("identifier"),
                (None, Some(code)) => type_code(&code).map(GrantTarget::Type).under("typeCode"),
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
                Some(super::GrantCreate {
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

    impl GrantRevoke<'_> {
        pub(super) fn typed(self) -> Result<super::GrantRevoke, Refusal> {
            let mut wrong = Gather::new();
            let grant = wrong.take(id(&self.grant).under("grant"));
            let holder = wrong.take(self.holder.typed().under("holder"));
            let reason = wrong.take(reason(self.reason));
            let typed = || Some(super::GrantRevoke { grant: grant?, holder: holder?, reason: reason? });
            wrong.all(typed())
        }
    }

    impl ParticipantSuspend {
        pub(super) fn typed(self) -> Result<super::ParticipantSuspend, Refusal> {
            let mut wrong = Gather::new();
            let organisation = wrong.take(Refusal::parse(&self.organisation).under("organisation"));
            let reason = wrong.take(reason(self.reason));
            let suspended = self.suspended;
            let typed = organisation.zip(reason);
            wrong.all(typed.map(|(organisation, reason)| super::ParticipantSuspend {
                organisation,
                suspended,
                reason,
            }))
        }
    }

    impl Propose<'_> {
        pub(super) fn typed(self) -> Result<super::Propose, Refusal> {
            let mut wrong = Gather::new();
            let what = wrong.take(match (self.kind, self.holder, self.participant, self.license_type) {
                (Kind::RotateEpoch, None, None, None) => Ok(Proposed::RotateEpoch),
                (Kind::RegisterParticipant, None, Some(participant), None) => {
                    participant.typed().map(Proposed::Participant).under("participant")
                }
                (Kind::PublishType, None, None, Some(definition)) => {
                    license_type(&definition).map(Proposed::Type)
                }
                (
                    kind @ (Kind::EraseHolder | Kind::HoldHolder | Kind::ReleaseHold),
                    Some(holder),
                    None,
                    None,
                ) => holder.typed().map(|holder| Proposed::Holder(kind, holder)).under("holder"),
                (kind, holder, participant, definition) => {
                    let about_holder =
                        matches!(kind, Kind::EraseHolder | Kind::HoldHolder | Kind::ReleaseHold);
                    let members = [
                        ("/holder", about_holder, holder.is_some()),
                        ("/participant", kind == Kind::RegisterParticipant, participant.is_some()),
                        ("/licenseType", kind == Kind::PublishType, definition.is_some()),
                    ];
                    let faults = members.into_iter().filter_map(|(pointer, wanted, there)| {
                        let rule = if wanted { Rule::Required } else { Rule::NotAllowed };
                        (wanted != there).then(|| Fault::at(pointer, rule))
                    });
                    Err(Refusal::all(Code::MalformedRequest, faults.collect()))
                }
            });
            let reason = wrong.take(reason(self.reason));
            wrong.all(what.zip(reason).map(|(what, reason)| super::Propose { what, reason }))
        }
    }

    impl Approve {
        pub(super) fn typed(self) -> Result<super::Approve, Refusal> {
            let mut wrong = Gather::new();
            let proposal = wrong.take(id(&self.proposal).under("proposal"));
            let participant = self.participant.map(|participant| participant.typed()).transpose();
            let participant = wrong.take(participant.under("participant"));
            let license_type = wrong.take(self.license_type.as_ref().map(license_type).transpose());
            let typed = || {
                let (proposal, participant, license_type) = (proposal?, participant?, license_type?);
                Some(super::Approve { proposal, participant, license_type })
            };
            wrong.all(typed())
        }
    }

    impl Paging {
        pub(super) fn typed(self) -> Result<super::Paging, Refusal> {
            let mut wrong = Gather::new();
            let after = wrong.take(self.after.as_deref().map(id).transpose().under("after"));
            let limit = wrong.take(page(self.limit));
            wrong.all(after.zip(limit).map(|(after, limit)| super::Paging { after, limit }))
        }
    }

    impl GrantSearch<'_> {
        pub(super) fn typed(self) -> Result<super::GrantSearch, Refusal> {
            let mut wrong = Gather::new();
            let holder = wrong.take(self.holder.map(Holder::typed).transpose().under("holder"));
            let paging = wrong.take(Paging { after: self.after, limit: self.limit }.typed());
            wrong.all(holder.zip(paging).map(|(holder, paging)| super::GrantSearch { holder, paging }))
        }
    }

    impl IssuedList<'_> {
        pub(super) fn typed(self) -> Result<super::IssuedList, Refusal> {
            let mut wrong = Gather::new();
            let type_code =
                wrong.take(self.type_code.as_deref().map(type_code).transpose().under("typeCode"));
            let state = self.state.as_deref().map(|code| {
                let fault = || {
                    let codes = LicenseState::ALL.iter().map(|state| state.code());
                    Fault::at("/state", Rule::OneOf).one_of(codes).got(code.chars().count())
                };
                let state = LicenseState::ALL.iter().copied().find(|state| state.code() == code);
                state.ok_or_else(|| Refusal::of(Code::MalformedRequest, fault()))
            });
            let state = wrong.take(state.transpose());
            let paging = wrong.take(Paging { after: self.after, limit: self.limit }.typed());
            let typed = || {
                let (type_code, state, paging) = (type_code?, state?, paging?);
                Some(super::IssuedList { type_code, state, paging })
            };
            wrong.all(typed())
        }
    }

    fn license_type(definition: &serde_json::Value) -> Result<LicenseType, Refusal> {
        LicenseType::parse(&definition.to_string()).map_err(|error| {
            let form = match error {
                // The library's words would give back what was sent.
                LicenseTypeError::Json(_) => "the definition of a license type".to_owned(),
                error => error.to_string(),
            };
            Refusal::of(Code::BadType, Fault::at("/licenseType", Rule::Pattern).form(form))
        })
    }

    impl ParticipantBody {
        pub(super) fn typed(self) -> Result<Participant, Refusal> {
            self.participant.typed().under("participant")
        }
    }

    fn type_code(text: &str) -> Result<LicenseTypeCode, Refusal> {
        // A code that cannot be read names no type; only a wrong check character is told apart.
        text.parse().map_err(|error: schemas::identifier::IdentifierError| {
            let code = if error.is_check_error() { Code::WrongCheckDigit } else { Code::UnknownType };
            Refusal::of(code, Fault::identifier("", text, error))
        })
    }

    /// The id of a grant or a proposal.
    fn id(text: &str) -> Result<[u8; 16], Refusal> {
        let mut id = [0; 16];
        hex::decode_to_slice(text, &mut id).map_err(|_| {
            let fault = Fault::at("", Rule::Pattern).form("[0-9a-f]{32}").got(text.chars().count());
            Refusal::of(Code::MalformedRequest, fault)
        })?;
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_of(route: Route, body: &str) -> Code {
        parse(route, Form::Json, body.as_bytes()).expect_err("must be refused").code
    }

    #[test]
    fn unknown_and_doubled_members_have_their_own_codes() {
        assert_eq!(code_of(Route::GrantRevoke, r#"{"grantt":"a"}"#), Code::UnknownField);
        assert_eq!(code_of(Route::GrantRevoke, r#"{"grant":"a","grant":"b"}"#), Code::DuplicateKey);
        assert_eq!(code_of(Route::GrantRevoke, r#"{"grant":"#), Code::MalformedRequest);
        assert_eq!(
            code_of(Route::Verify, r#"{"license":{"identifier":"x"},"expect":{"a":"1","a":"2"}}"#),
            Code::DuplicateKey
        );
    }

    #[test]
    fn missing_use_context_is_its_own_code() {
        let body = r#"{"license":{"identifier":"x"},"use":{"userName":"a"}}"#;
        assert_eq!(code_of(Route::Verify, body), Code::BadUseContext);
        assert_eq!(code_of(Route::Verify, r#"{"license":{"identifier":"x"}}"#), Code::BadUseContext);
    }

    #[test]
    fn text_with_escapes_is_the_text_that_they_stand_for() {
        let identifier = "1.2.156.3005.2.11100000000013338W011.11430000006122244L.20230000403.001.U";
        let escaped = identifier.replace('W', "\\u0057");
        let part = "审\u{e9}";
        let body = format!(
            r#"{{"license":{{"identifier":"{escaped}"}},"use":{{"userName":"{part}","itemCode":"a\"b","itemName":"\u4e8b\\",
            "businessCode":"c","cause":"d","stage":"\u53d7理"}}}}"#
        );
        let Action::Verify(verify) = parse(Route::Verify, Form::Json, body.as_bytes()).expect("good") else {
            unreachable!("asked of this route")
        };
        let Subject::Named(Named::Identifier { identifier: read, text }) = &verify.subject else {
            unreachable!("an identifier was sent")
        };
        assert_eq!((read.to_string().as_str(), &**text), (identifier, identifier));
        let UseContext { user_name, item_code, item_name, stage, .. } = &verify.context;
        assert_eq!(
            [user_name, item_code, item_name, stage].map(|text| &**text),
            [part, "a\"b", "事\\", "受理"]
        );
        assert!(matches!(user_name, Cow::Borrowed(_)) && matches!(stage, Cow::Owned(_)));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused() {
        assert_eq!(parse(Route::Verify, Form::Json, &[0xff, 0xfe]).expect_err("bad").code, Code::BadUtf8);
    }
}
