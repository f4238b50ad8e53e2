//! Answers. Members that a later exchange adds are skipped.
//!
//! Values that a call gives; nothing to lose.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use schemas::date::Date;
use schemas::dictionary::{Mode as Way, Origin};
use schemas::identifier::{CertificateIdentifier, LicenseTypeCode, Uscc};
use schemas::resource::Resource;
use schemas::state::LicenseState;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use verifier::receipt::Receipt;
use verifier::report::Report;
use verifier::trace::Digest;
pub use verifier::trace::{AuditPage, TracePage};

use crate::{
    Agreement, ApplicationState, DelayClass, DictionaryList, Facility, GrantMode, GrantRule, Limit, LinkKind,
    MaterialTrust, MismatchState, Mode, Personal, ProposalKind, ResourceState, Role, Running, Scenario,
    Scope, SigningKey, Verifiers,
};

/// A permitted answer with what proves it.
#[derive(Clone, Debug)]
pub struct Answer<T> {
    /// The answer.
    pub value: T,
    /// The receipt of the answer.
    pub receipt: Receipt,
    /// The check of the receipt: valid. `None` when the client was given no trust.
    pub report: Option<Report>,
    /// The bytes that the receipt is for; who keeps them can prove the answer later.
    pub exchanged: Exchanged,
}

impl<T> Deref for Answer<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// A request and its answer as they went over the wire. They hold personal data, and `Debug` shows their lengths only.
#[derive(Clone, PartialEq, Eq)]
pub struct Exchanged {
    /// Body of the request.
    pub request: Bytes,
    /// Body of the answer, with the receipt in it.
    pub answer: Bytes,
}

impl fmt::Debug for Exchanged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Exchanged({} bytes, {} bytes)", self.request.len(), self.answer.len())
    }
}

/// A signed envelope; base64 in JSON. `Debug` shows its length only.
#[derive(Clone, PartialEq, Eq)]
pub struct EnvelopeBytes(pub Vec<u8>);

impl fmt::Debug for EnvelopeBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnvelopeBytes({} bytes)", self.0.len())
    }
}

impl Serialize for EnvelopeBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for EnvelopeBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64.decode(text).map(Self).map_err(|_| D::Error::custom("not base64"))
    }
}

/// A license was issued.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Issued {
    /// Identifier of its first version.
    pub identifier: CertificateIdentifier,
    /// Its state.
    pub state: LicenseState,
    /// The signed bytes.
    pub envelope: EnvelopeBytes,
}

/// A license was changed.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Transitioned {
    /// Identifier of the version in force.
    pub identifier: CertificateIdentifier,
    /// Its state.
    pub state: LicenseState,
    /// The signed bytes, where a version or license was made (02, 08, 09).
    pub envelope: Option<EnvelopeBytes>,
}

/// The index of a holder's licenses.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// At most 100.
    pub licenses: Vec<FoundLicense>,
    /// There are more.
    pub truncated: bool,
    /// When this was so, RFC 3339.
    pub as_of: String,
}

/// A line of the index.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundLicense {
    /// Identifier of the version in force.
    pub identifier: CertificateIdentifier,
    /// The number that is printed on the license (证照编号).
    pub certificate_number: Personal,
    /// `certificateNumber`, where the type masks it for who asks.
    #[serde(default)]
    pub masked: Vec<String>,
    /// The authority that issued it (发证机关).
    pub issuer_name: String,
    /// Its state.
    pub state: LicenseState,
    /// Valid now: state 01 and within its days.
    pub in_force: bool,
    /// First valid day.
    pub valid_from: Date,
    /// Last valid day.
    pub valid_until: Option<Date>,
}

/// The content of a license.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retrieved {
    /// Identifier of the version.
    pub identifier: CertificateIdentifier,
    /// How much of it is here.
    pub mode: Mode,
    /// Its state.
    pub state: LicenseState,
    /// Valid now: state 01 and within its days.
    pub in_force: bool,
    /// Modes `fields`, `face` and `copy`.
    #[serde(default)]
    pub fields: BTreeMap<String, Personal>,
    /// Names of the fields whose values are masked.
    #[serde(default)]
    pub masked: Vec<String>,
    /// The signed bytes, mode `envelope`.
    pub envelope: Option<EnvelopeBytes>,
    /// Mode `copy`.
    pub annotation: Option<Annotation>,
    /// When this was so, RFC 3339.
    pub as_of: String,
    /// Licenses of the type and holder that have the number looked up, if there are several.
    pub same_number: Option<u64>,
}

/// The use that an annotated copy is for (加注信息).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Annotation {
    /// The organisation that had it made.
    pub creator: Uscc,
    /// The creator's name.
    pub creator_name: String,
    /// Why (用证事由).
    pub cause: Personal,
    /// Service item name (事项名称).
    pub item_name: String,
    /// Case number (办件编号).
    pub business_code: String,
    /// When, RFC 3339.
    pub created_at: String,
    /// Last moment of its use, RFC 3339; `None` where the copy is good for no use.
    pub expires_at: Option<String>,
    /// 水印.
    pub watermark: Personal,
    /// Purpose (用途), if the use names one.
    pub purpose: Option<String>,
    /// Identity of the license that it is a copy of.
    pub original_digest: Digest,
    /// The copy's own digest.
    pub digest: Digest,
}

/// Whether a use would be permitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Evaluated {
    /// It would.
    pub decision: bool,
}

/// Whether each of many uses would be permitted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct EvaluatedMany {
    /// The answers, in the order of the questions; fewer where one settled them.
    pub evaluations: Vec<Evaluated>,
}

/// Whether a license is valid (核验结论).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is.
    Valid,
    /// It is not, and the reasons say why.
    Invalid,
    /// The exchange cannot tell now, and the reasons say why.
    Unknown,
}

/// The outcome of a verification.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// The outcome.
    pub verdict: Verdict,
    /// The license's state, where it is known.
    pub state: Option<LicenseState>,
    /// Stable codes, such as `revoked` or `not-found`; empty for a valid license.
    pub reasons: Vec<String>,
    /// Whether every value that was expected is right; `None` when none was.
    pub matches: Option<bool>,
    /// Members of the request, as JSON pointers, that differ from the license in typing only.
    #[serde(default)]
    pub folded: Vec<String>,
    /// When this was so, RFC 3339.
    pub as_of: String,
    /// Licenses of the type and holder that have the number looked up, if there are several.
    pub same_number: Option<u64>,
}

/// State of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GrantState {
    /// It gives a right.
    Active,
    /// It gives none now.
    Paused,
    /// It gives none any more.
    Revoked,
    /// Its last valid moment is past.
    Expired,
    /// Its uses are spent; what was used goes on in its case.
    UsedUp,
}

/// A grant was made, changed or ended.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Granted {
    /// Grant id, hex.
    pub grant: String,
    /// Its state.
    pub state: GrantState,
}

/// A page of grants.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrantPage {
    /// The grants.
    pub grants: Vec<FoundGrant>,
    /// `after` of the next page; `None` at the last one.
    pub next: Option<String>,
    /// When the page was read, RFC 3339.
    pub as_of: String,
}

/// A grant as its holder or grantee may see it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundGrant {
    /// Grant id, hex.
    pub grant: String,
    /// Its state.
    pub state: GrantState,
    /// The organisation that may use it.
    pub grantee: Uscc,
    /// The portal that vouched for the holder.
    pub portal: Uscc,
    /// The portal still does; else the grant gives no right.
    pub portal_vouches: bool,
    /// For this license.
    pub identifier: Option<CertificateIdentifier>,
    /// For these licenses, as far as they are known.
    #[serde(default)]
    pub identifiers: Vec<CertificateIdentifier>,
    /// For all of the holder's licenses of this type.
    pub type_code: Option<LicenseTypeCode>,
    /// For all of the holder's licenses of these types.
    #[serde(default)]
    pub type_codes: Vec<LicenseTypeCode>,
    /// The modes that it allows.
    pub modes: Vec<GrantMode>,
    /// Fields that may be disclosed or expected.
    pub fields: Vec<String>,
    /// Only for one service item.
    pub for_one_item: bool,
    /// Last valid moment, RFC 3339.
    pub until: String,
    /// Only for this purpose.
    pub purpose: Option<String>,
    /// Only in this field of use.
    pub scenario: Option<Scenario>,
    /// Only for one user: the pseudonym that the holder's trace shows.
    pub user: Option<String>,
    /// An agent made it: whether the links by which it was made go on.
    pub linked: Option<bool>,
    /// Uses counted, of a grant with `max_uses`: a license in a case once.
    pub uses: u64,
    /// Most uses.
    pub max_uses: Option<u64>,
    /// Uses left.
    pub left: Option<u64>,
}

/// A page of the caller's own licenses.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IssuedPage {
    /// The licenses.
    pub licenses: Vec<IssuedLicense>,
    /// `after` of the next page; `None` at the last one.
    pub next: Option<String>,
    /// When the page was read, RFC 3339.
    pub as_of: String,
}

/// An own license.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IssuedLicense {
    /// Identifier of the version in force.
    pub identifier: CertificateIdentifier,
    /// Its state.
    pub state: LicenseState,
    /// Valid now: state 01 and within its days.
    pub in_force: bool,
    /// First valid day.
    pub valid_from: Date,
    /// Last valid day.
    pub valid_until: Option<Date>,
}

/// A registration was made or changed.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Registered {
    /// Its organisation.
    pub organisation: Uscc,
    /// Whether it is suspended.
    pub suspended: bool,
}

/// A page of the register.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParticipantPage {
    /// The registrations.
    pub participants: Vec<Registration>,
    /// `after` of the next page; `None` at the last one.
    pub next: Option<String>,
    /// When the page was read, RFC 3339.
    pub as_of: String,
}

/// A registration as far as the caller may see it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Registration {
    /// Unified social credit code.
    pub organisation: Uscc,
    /// Name.
    pub name: String,
    /// Roles.
    pub roles: Vec<Role>,
    /// License types that it may issue.
    #[serde(default)]
    pub issues: Vec<LicenseTypeCode>,
    /// Purposes that its contract names.
    #[serde(default)]
    pub purposes: Vec<String>,
    /// Contract reference.
    pub contract: Option<String>,
    /// Most permitted uses a day.
    pub daily_quota: Option<u32>,
    /// Delay classes by name.
    #[serde(default)]
    pub delays: BTreeMap<String, DelayClass>,
    /// Keys that its state changes are signed with; empty = they are not signed.
    #[serde(default)]
    pub signing_keys: Vec<SigningKey>,
    /// Limits of its uses.
    #[serde(default)]
    pub limits: Vec<Limit>,
    /// Organisations that it may stand for.
    #[serde(default)]
    pub acts_for: Vec<Uscc>,
    /// Its uses of licenses stay within its list of intended uses.
    #[serde(default)]
    pub intended_use: bool,
    /// First valid day.
    pub valid_from: Date,
    /// Last valid day.
    pub valid_until: Option<Date>,
    /// Suspended by an operator.
    #[serde(default)]
    pub suspended: bool,
}

/// State of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProposalState {
    /// It waits for another operator.
    Open,
    /// It was approved and is done.
    Approved,
    /// Nobody approved it in time.
    Expired,
}

/// A proposal was made or approved.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proposed {
    /// Proposal id, hex.
    pub proposal: String,
    /// The decision that it asks for.
    pub kind: ProposalKind,
    /// Its state.
    pub state: ProposalState,
    /// When an approved erasure or change of epoch is complete: `after-next-rotation`.
    pub complete: Option<String>,
}

/// The policies in force.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoliciesInForce {
    /// Version of their document; 0 for those that come with the program.
    pub version: u32,
    /// The policy hash of entries that are decided by them, hex.
    pub policy: String,
    /// The text, in Cedar.
    pub policies: String,
    /// When they were read, RFC 3339.
    pub as_of: String,
}

/// A page of proposals.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProposalPage {
    /// The proposals.
    pub proposals: Vec<FoundProposal>,
    /// `after` of the next page; `None` at the last one.
    pub next: Option<String>,
    /// When the page was read, RFC 3339.
    pub as_of: String,
}

/// A proposal; of a registration or a definition no more than what it is of.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundProposal {
    /// Proposal id, hex.
    pub proposal: String,
    /// The decision that it asks for.
    pub kind: ProposalKind,
    /// Its state.
    pub state: ProposalState,
    /// The operator who proposed it.
    pub by: Uscc,
    /// When, RFC 3339.
    pub at: String,
    /// The operator who approved it.
    pub approved_by: Option<Uscc>,
    /// Whose registration it is of.
    pub organisation: Option<Uscc>,
    /// Which type it is of.
    pub type_code: Option<LicenseTypeCode>,
}

/// State of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// It gives a right.
    Active,
    /// It gives none any more.
    Ended,
}

/// A link was made or ended.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Linked {
    /// Its state.
    pub link: LinkState,
    /// By what.
    pub kind: LinkKind,
    /// Last valid moment, RFC 3339.
    pub until: String,
}

/// A presentation code was minted.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Minted {
    /// The code, as the text of a QR code.
    pub text: Personal,
    /// The verifiers that may scan it.
    pub verifiers: Verifiers,
    /// Last valid moment, RFC 3339.
    pub until: String,
}

/// A presentation code was ended.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CodeEnded {
    /// `ended`.
    pub state: String,
}

/// The outcome of a scan.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scanned {
    /// The outcome.
    pub verdict: Verdict,
    /// The license's type.
    pub type_code: LicenseTypeCode,
    /// Stable codes, such as `revoked` or `not-found`; empty for a valid license.
    pub reasons: Vec<String>,
    /// The license's state, where it is known.
    pub state: Option<LicenseState>,
    /// First valid day.
    pub valid_from: Option<Date>,
    /// Last valid day.
    pub valid_until: Option<Date>,
    /// The fields that were asked for.
    #[serde(default)]
    pub fields: BTreeMap<String, Personal>,
    /// Those of them that are masked.
    #[serde(default)]
    pub masked: Vec<String>,
    /// The handle of whoever showed the code: the same at each scan by the same verifier, another one for each verifier.
    pub subject: Option<String>,
    /// When this was so, RFC 3339.
    pub as_of: String,
}

/// A page of the caller's own uses.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsagePage {
    /// The day that is counted.
    pub day: Date,
    /// The daily quota.
    pub quota: Option<Counted>,
    /// Each line of the caller's limits.
    pub limits: Vec<UsedLimit>,
    /// Entries, oldest first.
    pub uses: Vec<OwnUse>,
    /// `from_index` of the next page; `None` at the last one.
    pub next: Option<u64>,
    /// When the counters were read, RFC 3339.
    pub as_of: String,
}

/// A counter and its limit.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counted {
    /// Most permitted uses.
    pub limit: u32,
    /// Permitted so far.
    pub used: u32,
    /// How many are left.
    pub left: u32,
}

/// A line of the caller's limits, with what it counts.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsedLimit {
    /// The class of routes.
    pub interface: Facility,
    /// The license type.
    pub type_code: Option<LicenseTypeCode>,
    /// Uses of today.
    pub daily: Option<Counted>,
    /// Uses of the period.
    pub rate: Option<UsedRate>,
    /// Fields that may be asked for.
    pub fields: Option<Vec<String>>,
    /// Networks that connections come from.
    #[serde(default)]
    pub sources: Vec<String>,
}

/// The counter of a period.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsedRate {
    /// Most permitted uses.
    pub limit: u32,
    /// Permitted so far.
    pub used: u32,
    /// How many are left.
    pub left: u32,
    /// Length of the period, seconds.
    pub seconds: u32,
    /// Its end, RFC 3339.
    pub ends: String,
}

/// An entry of the caller's.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnUse {
    /// Index in the log.
    pub index: u64,
    /// Time, RFC 3339.
    pub time: String,
    /// Route.
    pub route: String,
    /// `permit` or `denial`.
    pub decision: String,
    /// Public code.
    pub code: String,
}

/// A resource was written or took a step.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceWritten {
    /// Its code.
    pub resource: String,
    /// Its state.
    pub state: ResourceState,
    /// Its version, one more with each change.
    pub version: u32,
}

/// A page of the catalogue.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourcePage {
    /// The resources.
    pub resources: Vec<FoundResource>,
    /// How many fit, on all pages.
    pub total: u64,
    /// How many of them have which value, by facet.
    pub facets: BTreeMap<String, BTreeMap<String, u64>>,
    /// `after` of the next page; `None` at the last one.
    pub next: Option<String>,
    /// When the page was read, RFC 3339.
    pub as_of: String,
}

/// A resource in the catalogue.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundResource {
    /// The definition.
    pub resource: Resource,
    /// Its provider.
    pub provider: Uscc,
    /// Its state.
    pub state: ResourceState,
    /// Its version.
    pub version: u32,
    /// Chinese name of its domain.
    pub domain_name: String,
    /// How it came to its state.
    pub history: Vec<Step>,
    /// How fresh and good its rows are, of a hosted resource.
    pub quality: Option<Quality>,
}

/// How fresh and good the rows of a hosted resource are: scores from 0 to 100, `None` where there is nothing to judge by.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quality {
    /// Rows that can be found.
    pub rows: u64,
    /// When the last batch came, to the minute, RFC 3339.
    pub last_batch_at: Option<String>,
    /// The update cycle is broken.
    pub stale: bool,
    /// From when on, RFC 3339.
    pub stale_since: Option<String>,
    /// The mean of the scores that there are.
    pub score: Option<u8>,
    /// Share of optional fields that rows have.
    pub completeness: Option<u8>,
    /// Share of rows that keep the definition.
    pub validity: Option<u8>,
    /// Share of rows whose key stood once in their batch.
    pub uniqueness: Option<u8>,
    /// Share of batches that came within the update cycle.
    pub timeliness: Option<u8>,
}

/// A step of a resource or an application.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// When, RFC 3339.
    pub at: String,
    /// By which organisation.
    pub by: Uscc,
    /// The step.
    pub action: String,
    /// Words beside it.
    pub note: Option<String>,
}

/// An application was made or took a step.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// Its id, hex.
    pub application: String,
    /// Where it stands.
    pub state: ApplicationState,
    /// The rule by which it was granted at once.
    pub rule: Option<GrantRule>,
    /// The scope that is allowed.
    pub terms: Option<Scope>,
    /// The clock that runs.
    pub clock: Option<Running>,
}

/// A page of applications.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationPage {
    /// The applications.
    pub applications: Vec<FoundApplication>,
    /// `after` of the next page; `None` at the last one.
    pub next: Option<String>,
    /// When the page was read, RFC 3339.
    pub as_of: String,
}

/// An application.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundApplication {
    /// Its id, hex.
    pub application: String,
    /// Code of the resource.
    pub resource: String,
    /// The organisation that applies.
    pub applicant: Uscc,
    /// The organisation that answers.
    pub provider: Uscc,
    /// Code of the service item that it is for.
    pub item_code: String,
    /// Name of the item.
    pub item_name: String,
    /// The purpose.
    pub purpose: String,
    /// Where it stands.
    pub state: ApplicationState,
    /// An operator has to settle a dispute.
    pub disputed: bool,
    /// The rule by which it was granted at once.
    pub rule: Option<GrantRule>,
    /// The scope that is asked.
    pub asked: Scope,
    /// The scope that is allowed.
    pub terms: Option<Scope>,
    /// When it was made, RFC 3339.
    pub made_at: String,
    /// When it was answered, RFC 3339.
    pub answered_at: Option<String>,
    /// When it was supplied, RFC 3339.
    pub provided_at: Option<String>,
    /// Working days from then until it was supplied or refused; `None` before that, or where a year's calendar is missing.
    pub settled_in_days: Option<u32>,
    /// Working days since it was made; `None` where a year's calendar is missing.
    pub age_in_days: Option<u32>,
    /// The clock that runs.
    pub clock: Option<Running>,
    /// The clock is over.
    pub overdue: bool,
    /// How it came to where it stands.
    pub history: Vec<Step>,
}

/// Rows were brought in.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordsIngested {
    /// Code of the resource.
    pub resource: String,
    /// Rows that were taken.
    pub accepted: u64,
    /// Rows that were taken out.
    pub removed: u64,
    /// Rows that were erased.
    #[serde(default)]
    pub erased: u64,
    /// Rows that were not taken.
    pub rejected: u64,
    /// Which, at most 1,000.
    #[serde(default)]
    pub rejects: Vec<RejectedRow>,
}

/// A row that was not taken.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RejectedRow {
    /// Its line in the provider's file.
    pub line: u64,
    /// Its faults, by field.
    pub errors: Vec<RowError>,
}

/// A fault of a row.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RowError {
    /// The field, as a JSON pointer.
    pub pointer: String,
    /// The rule that it breaks.
    pub rule: String,
    /// The right form.
    pub allowed: String,
}

/// A row, as far as the approval shows it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueriedRecord {
    /// Code of the resource.
    pub resource: String,
    /// Whether there is such a row in the approved regions.
    pub found: bool,
    /// Its fields.
    pub record: Option<BTreeMap<String, Personal>>,
    /// Those of them that are masked.
    #[serde(default)]
    pub masked: Vec<String>,
    /// When the row was brought in, RFC 3339.
    pub updated_at: Option<String>,
    /// The row is older than the resource's update cycle promises.
    pub late: Option<bool>,
    /// The resource has not been brought up to date within its update cycle.
    pub stale: Option<bool>,
    /// From when on, RFC 3339.
    pub stale_since: Option<String>,
    /// The approval that it is given under.
    pub approval: UsedApproval,
    /// When it was read, RFC 3339.
    pub as_of: String,
}

/// A page of a feed.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FeedPage {
    /// Code of the resource.
    pub resource: String,
    /// Rows and removals, in the order in which they came.
    pub changes: Vec<FedRow>,
    /// Fields that are masked.
    #[serde(default)]
    pub masked: Vec<String>,
    /// `after` of the next page.
    pub next: String,
    /// There was more by then.
    pub more: bool,
    /// The resource has not been brought up to date within its update cycle.
    pub stale: bool,
    /// From when on, RFC 3339.
    pub stale_since: Option<String>,
    /// The approval that it is given under.
    pub approval: UsedApproval,
    /// When it was read, RFC 3339.
    pub as_of: String,
}

/// A row of a feed, in place of what was read of it before; or that it is gone.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FedRow {
    /// Names the row, to this approval alone.
    pub id: String,
    /// Its fields.
    pub record: Option<BTreeMap<String, Personal>>,
    /// When it was brought in, RFC 3339.
    pub updated_at: Option<String>,
    /// It was taken out, or is of another region now.
    #[serde(default)]
    pub removed: bool,
}

/// A license against its row.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// Code of the resource.
    pub resource: String,
    /// Identifier of the license's version.
    pub license: CertificateIdentifier,
    /// There is a row of the license's holder.
    pub found: bool,
    /// The fields compared.
    pub fields: Vec<ComparedField>,
    /// Where the mismatch of the two stands, if there ever was one.
    pub mismatch: Option<MismatchState>,
    /// When they were compared, RFC 3339.
    pub as_of: String,
}

/// A field that was compared.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ComparedField {
    /// The code of the resource.
    pub field: String,
    /// The fact of the license.
    pub license_field: String,
    /// How they stand to each other.
    pub outcome: Agreement,
}

/// A page of licenses and base resources that disagree.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MismatchPage {
    /// The mismatches.
    pub mismatches: Vec<FoundMismatch>,
    /// `after` of the next page; `None` at the last one.
    pub next: Option<String>,
    /// When the page was read, RFC 3339.
    pub as_of: String,
}

/// A license and a base resource that disagree, or did.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundMismatch {
    /// Identifier of the license's version in force.
    pub license: CertificateIdentifier,
    /// Code of the resource.
    pub resource: String,
    /// The authority that issued the license.
    pub issuer: Uscc,
    /// The organisation that provides the resource.
    pub provider: Uscc,
    /// Fields of the resource that differed last.
    pub fields: Vec<String>,
    /// Where it stands.
    pub state: MismatchState,
    /// When it was found, RFC 3339.
    pub found_at: String,
    /// When it was last compared, RFC 3339.
    pub compared_at: String,
}

/// The approval that an answer is given under.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsedApproval {
    /// Its id, hex.
    pub application: String,
    /// The only purpose that the data may be used for.
    pub purpose: String,
    /// Its last day.
    pub until: Date,
    /// Whether the data may be passed on: never.
    pub passing_on: bool,
}

/// Rows of a dictionary, or mappings, were brought in.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ItemsImported {
    /// The list.
    pub list: DictionaryList,
    /// Rows that were taken.
    pub accepted: u64,
    /// Those of them that stood like that before.
    pub unchanged: u64,
    /// Rows that were not taken.
    pub rejected: u64,
    /// Which.
    #[serde(default)]
    pub rejects: Vec<RejectedRow>,
}

/// A page of the list that was asked for; the others are empty.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ItemsPage {
    /// Service items.
    #[serde(default)]
    pub items: Vec<FoundItem>,
    /// Materials.
    #[serde(default)]
    pub materials: Vec<FoundMaterial>,
    /// Data elements.
    #[serde(default)]
    pub elements: Vec<FoundElement>,
    /// Mappings.
    #[serde(default)]
    pub mappings: Vec<FoundMapping>,
    /// Reports of what was demanded on paper.
    #[serde(default)]
    pub demands: Vec<FoundDemands>,
    /// Lines of lists of intended uses.
    #[serde(default)]
    pub uses: Vec<FoundUse>,
    /// Organisations that asked for more than their lists.
    #[serde(default)]
    pub beyond: Vec<FoundBeyond>,
    /// Fields of resources that are no data element of the dictionary; on the first page of orphans.
    #[serde(default)]
    pub orphan_fields: Vec<OrphanField>,
    /// `after` of the next page; `None` at the last one.
    pub next: Option<String>,
    /// When the page was read, RFC 3339.
    pub as_of: String,
}

/// A line of an organisation's list of intended uses.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundUse {
    /// The organisation.
    pub organisation: Uscc,
    /// Code of the item.
    pub item: String,
    /// The license type.
    pub type_code: LicenseTypeCode,
    /// Materials of the item that the license stands for.
    #[serde(default)]
    pub materials: Vec<String>,
    /// Names of the modes.
    pub modes: Vec<String>,
    /// Fields that may be shown or expected.
    #[serde(default)]
    pub fields: Vec<String>,
    /// It no longer holds.
    #[serde(default)]
    pub cancelled: bool,
    /// How often more than the line was asked for.
    pub beyond: u64,
    /// Where it is from.
    pub source: String,
    /// When it was brought in, RFC 3339.
    pub imported_at: String,
}

/// How often an organisation asked for more than its list of intended uses.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundBeyond {
    /// The organisation.
    pub organisation: Uscc,
    /// Its name.
    pub name: String,
    /// How often.
    pub beyond: u64,
}

/// A service item.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundItem {
    /// Its code.
    pub code: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// The department that does it.
    pub department: Uscc,
    /// Codes of its materials.
    #[serde(default)]
    pub materials: Vec<String>,
    /// The license type that is its result.
    pub result: Option<LicenseTypeCode>,
    /// Nobody does it any more.
    #[serde(default)]
    pub cancelled: bool,
    /// Where the row is from.
    pub source: String,
    /// When it was imported, RFC 3339.
    pub imported_at: String,
}

/// A material.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundMaterial {
    /// Its code.
    pub code: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// Where it comes from.
    pub origin: Origin,
    /// No item takes it any more.
    #[serde(default)]
    pub cancelled: bool,
    /// Where the row is from.
    pub source: String,
    /// When it was imported, RFC 3339.
    pub imported_at: String,
}

/// A data element.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundElement {
    /// Its code.
    pub code: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// No resource uses it any more.
    #[serde(default)]
    pub cancelled: bool,
    /// Where the row is from.
    pub source: String,
    /// When it was imported, RFC 3339.
    pub imported_at: String,
}

/// A mapping of an item's material.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundMapping {
    /// Code of the item.
    pub item: String,
    /// Code of the material.
    pub material: String,
    /// The way in which it is done without.
    pub mode: Way,
    /// Code of the resource.
    pub resource: Option<String>,
    /// The license type.
    pub type_code: Option<LicenseTypeCode>,
    /// Fields of the one or the other.
    #[serde(default)]
    pub fields: Vec<String>,
    /// It no longer holds.
    #[serde(default)]
    pub cancelled: bool,
    /// Version of the item that it was made for.
    pub item_version: u32,
    /// The item has changed since.
    pub review: bool,
    /// Where the row is from.
    pub source: String,
    /// When it was imported, RFC 3339.
    pub imported_at: String,
    /// By which organisation.
    pub by: Uscc,
}

/// A field of a resource that is no data element of the dictionary.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrphanField {
    /// Code of the resource.
    pub resource: String,
    /// Key of the field.
    pub field: String,
    /// The element that it names.
    pub element: Option<String>,
}

/// The demands of a case, on paper.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundDemands {
    /// Code of the item.
    pub item: String,
    /// Its version.
    pub version: u32,
    /// How many materials it takes.
    pub materials: u64,
    /// The organisation that reports.
    pub organisation: Uscc,
    /// Stage by stage.
    pub stages: Vec<DemandStage>,
}

/// The demands of a stage.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DemandStage {
    /// The stage.
    pub stage: String,
    /// When it was reported, RFC 3339.
    pub reported_at: String,
    /// The materials.
    pub demanded: Vec<Demand>,
}

/// A material that was demanded on paper.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Demand {
    /// Its code.
    pub material: String,
    /// The way in which it could have been done without.
    pub mode: Option<Way>,
    /// The exchange had it at hand; false to whom that is not told.
    #[serde(default)]
    pub needless: bool,
    /// An earlier stage of the case had done without it.
    pub again: bool,
    /// The organisation had used the holder's license in the same case.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub used: bool,
}

/// The materials of an item.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ItemMaterials {
    /// Code of the item.
    pub item: String,
    /// Its name.
    pub item_name: String,
    /// Its version.
    pub version: u32,
    /// The materials.
    pub materials: Vec<ItemMaterial>,
    /// Those that need not be handed in.
    pub spared: u64,
    /// Those that have to be.
    pub missing: u64,
    /// When it was read, RFC 3339.
    pub as_of: String,
}

/// A material of an item.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ItemMaterial {
    /// Its code.
    pub material: String,
    /// Its name.
    pub name: Option<String>,
    /// Whether it has to be handed in.
    pub outcome: Outcome,
    /// The way in which it is done without.
    pub mode: Option<Way>,
    /// The item has changed since it was mapped.
    #[serde(default)]
    pub review: bool,
    /// Code of the resource that says it.
    pub resource: Option<String>,
    /// Whether the caller has an approval for that.
    pub approved: Option<bool>,
    /// The license type that says it.
    pub type_code: Option<LicenseTypeCode>,
    /// Fields of the one or the other.
    #[serde(default)]
    pub fields: Vec<String>,
    /// The holder's license of the type.
    pub license: Option<HeldLicense>,
    /// A copy that was verified before.
    pub kept: Option<KeptMaterial>,
}

/// Whether a material has to be handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It need not be.
    Spared,
    /// It has to be.
    Missing,
    /// The caller may not know whether the holder has the license.
    Unknown,
}

/// A holder's license: one in force if there is one.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldLicense {
    /// Identifier.
    pub identifier: CertificateIdentifier,
    /// State.
    pub state: LicenseState,
    /// Whether it is in force.
    pub in_force: bool,
    /// Its last day.
    pub valid_until: Option<Date>,
}

/// A material that was verified before.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptMaterial {
    /// How far it is to be trusted.
    pub trust: MaterialTrust,
    /// The organisation that verified it.
    pub verifier: Uscc,
    /// When, RFC 3339.
    pub verified_at: String,
    /// When it ends, RFC 3339.
    pub until: String,
    /// Whether it is the one whose digest was sent.
    pub same: Option<bool>,
}

/// The answer to one part.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Bundled {
    /// To a verification.
    Verified(Verified),
    /// To a retrieval.
    Retrieved(Box<Retrieved>),
    /// To a query.
    Queried(QueriedRecord),
}

/// A material is kept.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MaterialKept {
    /// Its code.
    pub material: String,
    /// How far it is to be trusted.
    pub trust: MaterialTrust,
    /// The organisation that verified it.
    pub verifier: Uscc,
    /// Last day on which it counts.
    pub until: Date,
}

/// A report is counted.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DemandsCounted {
    /// Code of the item.
    pub item: String,
    /// Its version.
    pub version: u32,
    /// The stage.
    pub stage: String,
    /// How many materials the item takes.
    pub materials: u64,
    /// How many were demanded on paper.
    pub demanded: u64,
}
