//! Step 1 of the request path: from bytes to a bounded, typed request.
//!
//! Everything a caller sends is parsed here once, into types that cannot hold a wrong value. What cannot be
//! parsed becomes a [`Refusal`] with a public code; the text of a refusal never echoes what was sent.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use flatbuffers::VerifierOptions;
use schemas::codes::Code;
use schemas::date::Date;
use schemas::holder::{HolderError, HolderRef, gives_away};
use schemas::identifier::{CertificateIdentifier, LicenseTypeCode, Serial, Uscc};
use schemas::license_type::{LicenseType, MAX_VALUE_LENGTH};
use schemas::machine as fb;
use schemas::routes::Route;
use schemas::state::{LicenseState, Operation};
use serde::Deserialize;
use serde::de::{Deserializer, IntoDeserializer as _, MapAccess, Visitor};

use crate::machine::Form;
use crate::participant::Participant;
use crate::proposal::Kind;
use crate::refusal::Refusal;

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
    /// Of a grant only, beside envelope: the signed bytes of a license that is not in force too.
    Ended,
}

impl Mode {
    /// Every mode, in the order of its bit.
    pub const ALL: [Self; 7] =
        [Self::Verify, Self::Fields, Self::Face, Self::Envelope, Self::Copy, Self::Search, Self::Ended];

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
        Form::Machine => parse_machine(route, body),
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
        _ => return Err(Refusal::new(Code::WrongContentType)),
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
    flatbuffers::root_with_opts::<T>(&limits, body).map_err(|_| Refusal::new(Code::MalformedRequest))
}

fn parse_json(route: Route, body: &[u8]) -> Result<Action<'_>, Refusal> {
    let text = std::str::from_utf8(body).map_err(|_| Refusal::new(Code::BadUtf8))?;
    Ok(match route {
        Route::Issue => Action::Issue(json::<wire::Issue>(text)?.license.typed()?),
        Route::Transition => Action::Transition(Box::new(json::<wire::Transition>(text)?.typed()?)),
        Route::Search => Action::Search(json::<wire::Search<'_>>(text)?.typed()?),
        Route::Retrieve => Action::Retrieve(json::<wire::Retrieve<'_>>(text)?.typed()?),
        Route::Verify => Action::Verify(json::<wire::Verify<'_>>(text)?.typed()?),
        Route::GrantCreate => Action::GrantCreate(json::<wire::GrantCreate<'_>>(text)?.typed()?),
        Route::GrantRevoke => Action::GrantRevoke(json::<wire::GrantRevoke<'_>>(text)?.typed()?),
        Route::ParticipantAdd => Action::ParticipantAdd(json::<wire::ParticipantBody>(text)?.typed()?),
        Route::ParticipantChange => Action::ParticipantChange(json::<wire::ParticipantBody>(text)?.typed()?),
        Route::ParticipantSuspend => {
            let suspend = json::<wire::ParticipantSuspend>(text)?;
            Action::ParticipantSuspend(ParticipantSuspend {
                organisation: Refusal::parse(&suspend.organisation).map_err(|e| e.under("organisation"))?,
                suspended: suspend.suspended,
                reason: reason(suspend.reason)?,
            })
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
        Route::None | Route::System => return Err(Refusal::new(Code::NoSuchRoute)),
    })
}

/// Parses JSON; the code tells unknown and doubled members from other faults, the insider's detail says where.
fn json<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Refusal> {
    serde_json::from_str(text).map_err(|error| {
        // serde's own wording of the two cases; the tests of this module fail if it ever changes.
        let message = error.to_string();
        let code = if message.starts_with("unknown field") {
            Code::UnknownField
        } else if message.starts_with("duplicate field") {
            Code::DuplicateKey
        } else {
            Code::MalformedRequest
        };
        Refusal::new(code).line(error.line(), error.column())
    })
}

/// Some text that shows, not too long, without control characters.
fn bounded(value: &str, max_chars: usize) -> bool {
    // Six parts of each use context come through here, so the bytes are looked at several at once: a control character is
    // one of these bytes, or begins with 0xc2 (U+0080 to U+009F), as a few letters and signs do too.
    let suspicious = |byte: u8| byte < 0x20 || byte == 0x7f || byte == 0xc2;
    let may_control = value.bytes().fold(false, |found, byte| found | suspicious(byte));
    value.chars().any(|c| !c.is_whitespace())
        // No text has more characters than bytes.
        && (value.len() <= max_chars || value.chars().count() <= max_chars)
        && !(may_control && value.chars().any(char::is_control))
}

fn reason(text: String) -> Result<String, Refusal> {
    if bounded(&text, MAX_REASON_CHARS) { Ok(text) } else { Err(Refusal::new(Code::MalformedRequest)) }
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
        pub(super) license: License,
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
        #[serde(default)]
        as_registered: bool,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Holder<'a> {
        #[serde(borrow)]
        type_code: Text<'a>,
        number: Text<'a>,
        #[serde(default)]
        as_registered: bool,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    pub(super) struct Transition {
        identifier: String,
        operation: Operation,
        to: Option<LicenseState>,
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
        mode: Mode,
        #[serde(default)]
        fields: Vec<String>,
        holder: Option<Holder<'a>>,
        grant: Option<Text<'a>>,
        #[serde(default)]
        include_ended: bool,
        #[serde(rename = "use")]
        context: Option<ContextValue<'a>>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    pub(super) struct Verify<'a> {
        #[serde(borrow)]
        license: LicenseName<'a>,
        #[serde(default)]
        expect: Pairs,
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
        #[serde(default)]
        fields: Vec<String>,
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
        pub(super) organisation: String,
        pub(super) suspended: bool,
        pub(super) reason: String,
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
        limit: Option<usize>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    pub(super) struct GrantSearch<'a> {
        #[serde(borrow)]
        holder: Option<Holder<'a>>,
        after: Option<String>,
        limit: Option<usize>,
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
        limit: Option<usize>,
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
        limit: Option<usize>,
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

    fn page(limit: Option<usize>) -> Result<usize, Refusal> {
        let limit = limit.unwrap_or(MAX_PAGE_ENTRIES);
        let fits = (1..=MAX_PAGE_ENTRIES).contains(&limit);
        if fits { Ok(limit) } else { Err(Refusal::new(Code::MalformedRequest)) }
    }

    impl<'a> Trace<'a> {
        pub(super) fn typed(self) -> Result<super::Trace<'a>, Refusal> {
            Ok(super::Trace {
                context: context(self.context)?,
                holder: self.holder.typed()?,
                agent: self.agent.map(Holder::typed).transpose()?,
                before: self.before,
                limit: page(self.limit)?,
            })
        }
    }

    impl LogQuery<'_> {
        pub(super) fn typed(self) -> Result<super::LogQuery, Refusal> {
            let malformed = || Refusal::new(Code::MalformedRequest);
            let said = |text: Option<String>, max| {
                text.filter(|text| bounded(text, max)).ok_or_else(|| Refusal::new(Code::BadUseContext))
            };
            let moment = |text: String| schemas::date::parse_rfc3339(&text).ok_or_else(malformed);
            let code = |name: String| Code::from_name(&name).ok_or_else(malformed);
            Ok(super::LogQuery {
                purpose: said(self.purpose, MAX_CAUSE_CHARS)?,
                user_name: said(self.user_name, MAX_CONTEXT_CHARS)?,
                from_ms: self.from.map(moment).transpose()?,
                to_ms: self.to.map(moment).transpose()?,
                organisation: self
                    .organisation
                    .map(|text| Refusal::parse(&text).map_err(|e| e.under("organisation")))
                    .transpose()?,
                license: self.license.as_deref().map(identifier).transpose()?,
                holder: self.holder.map(Holder::typed).transpose()?,
                business_code: self.business_code,
                code: self.code.map(code).transpose()?,
                from_index: self.from_index.unwrap_or(0),
                limit: page(self.limit)?,
            })
        }
    }

    /// Nobody is somebody's own agent.
    fn parties(holder: Holder<'_>, agent: Holder<'_>) -> Result<(HolderRef, HolderRef), Refusal> {
        let (holder, agent) = (holder.typed()?, agent.typed()?);
        if holder == agent { Err(Refusal::new(Code::BadLink)) } else { Ok((holder, agent)) }
    }

    impl LinkMake<'_> {
        pub(super) fn typed(self) -> Result<super::LinkMake, Refusal> {
            let (holder, agent) = parties(self.holder, self.agent)?;
            let until_ms =
                schemas::date::parse_rfc3339(&self.until).ok_or_else(|| Refusal::new(Code::BadLink))?;
            Ok(super::LinkMake { holder, agent, kind: self.kind, until_ms })
        }
    }

    impl LinkEnd<'_> {
        pub(super) fn typed(self) -> Result<super::LinkEnd, Refusal> {
            let (holder, agent) = parties(self.holder, self.agent)?;
            Ok(super::LinkEnd { holder, agent, reason: reason(self.reason)? })
        }
    }

    impl License {
        pub(super) fn typed(self) -> Result<Draft, Refusal> {
            let type_code = type_code(&self.type_code)?;
            let serial: Serial = self.serial.parse().map_err(|_| Refusal::new(Code::BadSerial))?;
            if self.holders.is_empty() || self.holders.len() > MAX_HOLDERS {
                return Err(Refusal::new(Code::BadFields));
            }
            let mut holders = Vec::with_capacity(self.holders.len());
            for holder in self.holders {
                if !bounded(&holder.name, MAX_CONTEXT_CHARS) {
                    return Err(Refusal::new(Code::BadHolder));
                }
                let reference = holder_of(&holder.type_code, &holder.number, holder.as_registered)
                    .map_err(|error| Refusal::holder(&holder.number, error))?;
                if holders.iter().any(|(_, other)| *other == reference) {
                    return Err(Refusal::new(Code::BadHolder));
                }
                holders.push((holder.name, reference));
            }
            // A serial stands in every identifier, so a holder's number there would publish it.
            if gives_away(serial.as_str(), holders.iter().map(|(_, holder)| holder)) {
                return Err(Refusal::new(Code::BadSerial));
            }
            if !bounded(&self.certificate_number, MAX_CONTEXT_CHARS)
                || self.fields.0.iter().any(|(_, value)| value.chars().count() > MAX_VALUE_LENGTH)
            {
                return Err(Refusal::new(Code::BadFields));
            }
            Ok(Draft {
                type_code,
                serial,
                certificate_number: self.certificate_number,
                holders,
                issue_date: date(&self.issue_date)?,
                valid_from: date(&self.valid_from)?,
                valid_until: self.valid_until.as_deref().map(date).transpose()?,
                fields: self.fields.0,
            })
        }
    }

    impl Transition {
        pub(super) fn typed(self) -> Result<super::Transition, Refusal> {
            Ok(super::Transition {
                identifier: identifier(&self.identifier)?,
                operation: self.operation,
                to: self.to,
                reason: reason(self.reason)?,
                draft: self.license.map(License::typed).transpose()?,
            })
        }
    }

    /// A wrong check character is taken where the request says that a registrar gave the number out like this.
    fn holder_of(type_code: &str, number: &str, as_registered: bool) -> Result<HolderRef, HolderError> {
        let read = if as_registered { HolderRef::as_registered } else { HolderRef::new };
        read(type_code, number)
    }

    impl Holder<'_> {
        fn typed(self) -> Result<HolderRef, Refusal> {
            holder_of(&self.type_code, &self.number, self.as_registered)
                .map_err(|error| Refusal::holder(&self.number, error))
        }
    }

    fn context(value: Option<ContextValue<'_>>) -> Result<UseContext<'_>, Refusal> {
        let bad = || Refusal::new(Code::BadUseContext);
        let value = value.ok_or_else(bad)?;
        fn part(text: Option<Text<'_>>, max: usize) -> Result<Cow<'_, str>, Refusal> {
            match text {
                Some(Text(text)) if bounded(&text, max) => Ok(text),
                _ => Err(Refusal::new(Code::BadUseContext)),
            }
        }
        let context = UseContext {
            user_name: part(value.user_name, MAX_CONTEXT_CHARS)?,
            item_code: part(value.item_code, MAX_CONTEXT_CHARS)?,
            item_name: part(value.item_name, MAX_CONTEXT_CHARS)?,
            business_code: part(value.business_code, MAX_CONTEXT_CHARS)?,
            cause: part(value.cause, MAX_CAUSE_CHARS)?,
            stage: part(value.stage, MAX_CONTEXT_CHARS)?,
            delay: value.delay.map(|class| part(Some(class), MAX_CONTEXT_CHARS)).transpose()?,
        };
        if STAGES.contains(&&*context.stage) { Ok(context) } else { Err(bad()) }
    }

    impl<'a> Search<'a> {
        pub(super) fn typed(self) -> Result<super::Search<'a>, Refusal> {
            Ok(super::Search {
                context: context(self.context)?,
                holder: self.holder.typed()?,
                type_code: self.type_code.as_deref().map(type_code).transpose()?,
                grant: self.grant.as_deref().map(id).transpose()?,
            })
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
                } => Ok(Named::Identifier { identifier: identifier(&text)?, text: text.0 }),
                Self {
                    identifier: None,
                    type_code: Some(code),
                    certificate_number: Some(certificate_number),
                    holder: Some(holder),
                    envelope: None,
                } if bounded(&certificate_number, MAX_CONTEXT_CHARS) => Ok(Named::Number {
                    type_code: type_code(&code)?,
                    certificate_number: certificate_number.0.into_owned(),
                    holder: holder.typed()?,
                }),
                _ => Err(Refusal::new(Code::MalformedRequest)),
            }
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
                    Envelope::Base64(text) => {
                        BASE64.decode(text.as_bytes()).map_err(|_| Refusal::new(Code::BadEnvelope))?
                    }
                    Envelope::Bytes(bytes) => bytes.to_vec(),
                })),
                other => Ok(Subject::Named(other.named()?)),
            }
        }
    }

    fn names(fields: Vec<String>) -> Result<Vec<String>, Refusal> {
        if fields.len() <= MAX_FIELDS && fields.iter().all(|f| bounded(f, MAX_CONTEXT_CHARS)) {
            Ok(fields)
        } else {
            Err(Refusal::new(Code::BadFields))
        }
    }

    impl<'a> Retrieve<'a> {
        pub(super) fn typed(self) -> Result<super::Retrieve<'a>, Refusal> {
            let context = context(self.context)?;
            let wants_fields = self.mode == Mode::Fields;
            let no_mode = matches!(self.mode, Mode::Verify | Mode::Search | Mode::Ended);
            if no_mode || wants_fields == self.fields.is_empty() {
                return Err(Refusal::new(Code::MalformedRequest));
            }
            Ok(super::Retrieve {
                license: self.license.named()?,
                mode: self.mode,
                fields: names(self.fields)?,
                holder: self.holder.map(Holder::typed).transpose()?,
                grant: self.grant.as_deref().map(id).transpose()?,
                include_ended: self.include_ended,
                context,
            })
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
                as_registered: holder.as_registered(),
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
            let malformed = || Refusal::new(Code::MalformedRequest);
            let mode: Result<Mode, serde::de::value::Error> =
                Mode::deserialize(request.mode().into_deserializer());
            let fields = request.fields();
            if fields.is_some_and(|fields| fields.len() > MAX_FIELDS) {
                return Err(malformed());
            }
            Ok(Self {
                license: request.license().into(),
                mode: mode.map_err(|_| malformed())?,
                fields: fields.into_iter().flatten().map(str::to_owned).collect(),
                holder: request.holder().map(Holder::from),
                grant: request.grant().map(Text::from),
                include_ended: request.include_ended(),
                context: request.use_().map(ContextValue::from),
            })
        }
    }

    impl<'a> Verify<'a> {
        pub(super) fn of_machine(request: &fb::VerifyRequest<'a>) -> Result<Self, Refusal> {
            let mut expect: Vec<(String, String)> = Vec::new();
            for field in request.expect().into_iter().flatten() {
                if expect.iter().any(|(before, _)| before == field.name()) {
                    return Err(Refusal::new(Code::DuplicateKey));
                }
                expect.push((field.name().to_owned(), field.value().to_owned()));
            }
            Ok(Self {
                license: request.license().into(),
                expect: Pairs(expect),
                holder: request.holder().map(Holder::from),
                grant: request.grant().map(Text::from),
                context: request.use_().map(ContextValue::from),
            })
        }

        pub(super) fn typed(self) -> Result<super::Verify<'a>, Refusal> {
            let context = context(self.context)?;
            if self.expect.0.len() > MAX_EXPECTED {
                return Err(Refusal::new(Code::MalformedRequest));
            }
            Ok(super::Verify {
                subject: self.license.subject()?,
                expect: self.expect.0,
                holder: self.holder.map(Holder::typed).transpose()?,
                grant: self.grant.as_deref().map(id).transpose()?,
                context,
            })
        }
    }

    impl GrantCreate<'_> {
        pub(super) fn typed(self) -> Result<super::GrantCreate, Refusal> {
            let bad = || Refusal::new(Code::BadGrant);
            let target = match (self.identifier, self.type_code) {
                (Some(text), None) => GrantTarget::License(identifier(&text)?),
                (None, Some(code)) => GrantTarget::Type(type_code(&code)?),
                _ => return Err(bad()),
            };
            let modes = self.modes.iter().fold(0, |bits, mode| bits | mode.bit());
            let item_code = match self.item_code {
                Some(code) if !bounded(&code, MAX_CONTEXT_CHARS) => return Err(bad()),
                code => code,
            };
            // Without the signed bytes there is nothing that mode `ended` would give.
            let alone = modes & Mode::Ended.bit() != 0 && modes & Mode::Envelope.bit() == 0;
            if modes == 0 || alone || self.max_uses == Some(0) {
                return Err(bad());
            }
            Ok(super::GrantCreate {
                holder: self.holder.typed()?,
                grantee: Refusal::parse(&self.grantee).map_err(|e| e.under("grantee"))?,
                target,
                modes,
                fields: names(self.fields)?,
                item_code,
                until_ms: schemas::date::parse_rfc3339(&self.until).ok_or_else(bad)?,
                max_uses: self.max_uses.unwrap_or(0),
            })
        }
    }

    impl GrantRevoke<'_> {
        pub(super) fn typed(self) -> Result<super::GrantRevoke, Refusal> {
            Ok(super::GrantRevoke {
                grant: id(&self.grant)?,
                holder: self.holder.typed()?,
                reason: reason(self.reason)?,
            })
        }
    }

    impl Propose<'_> {
        pub(super) fn typed(self) -> Result<super::Propose, Refusal> {
            let what = match (self.kind, self.holder, self.participant, self.license_type) {
                (Kind::RotateEpoch, None, None, None) => Proposed::RotateEpoch,
                (Kind::RegisterParticipant, None, Some(participant), None) => {
                    Proposed::Participant(participant.typed()?)
                }
                (Kind::PublishType, None, None, Some(definition)) => {
                    Proposed::Type(license_type(definition)?)
                }
                (
                    kind @ (Kind::EraseHolder | Kind::HoldHolder | Kind::ReleaseHold),
                    Some(holder),
                    None,
                    None,
                ) => Proposed::Holder(kind, holder.typed()?),
                _ => return Err(Refusal::new(Code::MalformedRequest)),
            };
            Ok(super::Propose { what, reason: reason(self.reason)? })
        }
    }

    impl Approve {
        pub(super) fn typed(self) -> Result<super::Approve, Refusal> {
            Ok(super::Approve {
                proposal: id(&self.proposal)?,
                participant: self.participant.map(|participant| participant.typed()).transpose()?,
                license_type: self.license_type.map(license_type).transpose()?,
            })
        }
    }

    impl Paging {
        pub(super) fn typed(self) -> Result<super::Paging, Refusal> {
            Ok(super::Paging { after: self.after.as_deref().map(id).transpose()?, limit: page(self.limit)? })
        }
    }

    impl GrantSearch<'_> {
        pub(super) fn typed(self) -> Result<super::GrantSearch, Refusal> {
            Ok(super::GrantSearch {
                holder: self.holder.map(Holder::typed).transpose()?,
                paging: Paging { after: self.after, limit: self.limit }.typed()?,
            })
        }
    }

    fn license_type(definition: serde_json::Value) -> Result<LicenseType, Refusal> {
        serde_json::from_value(definition).map_err(|_| Refusal::new(Code::BadType))
    }

    impl ParticipantBody {
        pub(super) fn typed(self) -> Result<Participant, Refusal> {
            self.participant.typed()
        }
    }

    fn identifier(text: &str) -> Result<CertificateIdentifier, Refusal> {
        Refusal::parse(text)
    }

    fn type_code(text: &str) -> Result<LicenseTypeCode, Refusal> {
        // A code that cannot be read names no type; only a wrong check character is told apart.
        text.parse().map_err(|error: schemas::identifier::IdentifierError| {
            if error.is_check_error() {
                Refusal::new(Code::WrongCheckDigit)
            } else {
                Refusal::new(Code::UnknownType)
            }
        })
    }

    fn date(text: &str) -> Result<Date, Refusal> {
        text.parse().map_err(|_| Refusal::new(Code::BadFields))
    }

    /// The id of a grant or a proposal.
    fn id(text: &str) -> Result<[u8; 16], Refusal> {
        let mut id = [0; 16];
        hex::decode_to_slice(text, &mut id).map_err(|_| Refusal::new(Code::MalformedRequest))?;
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
    fn text_is_bounded_by_what_it_shows() {
        let (longest, longer) = ("证".repeat(5), "证".repeat(6));
        for good in ["a", "\u{a0}a", " é\u{a0}", "\u{301}", "\u{a9}\u{bf}", &longest] {
            assert!(bounded(good, 5), "{good:?}");
        }
        for bad in ["", " ", "\u{a0}\u{3000}", "a\n", "\u{0}", "a\u{7f}", "a\u{80}", "证\u{9f}", &longer] {
            assert!(!bounded(bad, 5), "{bad:?}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused() {
        assert_eq!(parse(Route::Verify, Form::Json, &[0xff, 0xfe]).expect_err("bad").code, Code::BadUtf8);
    }
}
