//! Requests as they stand in the body. Each type is a document of `schemas/openapi.json`, and one that has more members than
//! that is not read.
//!
//! The client's user makes them. Values; nothing to lose.

use std::collections::BTreeMap;

use schemas::date::Date;
pub use schemas::dictionary::{List as DictionaryList, Trust as MaterialTrust};
use schemas::holder::{HolderRef, HolderTypeCode};
use schemas::identifier::{CertificateIdentifier, LicenseTypeCode, Serial, Uscc};
pub use schemas::interface::Address;
pub use schemas::kinds::{Facility, GrantAction, LinkKind, ProposalKind, Scenario, Verifiers};
use schemas::license_type::LicenseType;
use schemas::resource::{Domain, Ground, Openness, Resource, Supply};
pub use schemas::roles::Role;
pub use schemas::sharing::{
    Agreement, ApplicationAction, ApplicationState, ClockStep, GrantRule, MismatchState, ResourceAction,
    ResourceState, Running, Scope,
};
use schemas::state::{LicenseState, Operation};
use schemas::workday::Calendar;
use serde::{Deserialize, Serialize};

use crate::Personal;
use crate::answer::EnvelopeBytes;

/// Not said: the member is left out.
fn is_false(value: &bool) -> bool {
    !*value
}

/// A license holder (持证主体).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Holder {
    /// Kind of the number.
    pub type_code: HolderTypeCode,
    /// Number (证件号码). The exchange brings it into its one form.
    pub number: Personal,
    /// The registrar gave the number out with a wrong check character (按登记), which is taken then.
    #[serde(default, skip_serializing_if = "is_false")]
    pub as_registered: bool,
}

impl Holder {
    /// A holder whose number is right.
    pub fn new(type_code: HolderTypeCode, number: impl Into<Personal>) -> Self {
        Self { type_code, number: number.into(), as_registered: false }
    }
}

impl From<&HolderRef> for Holder {
    fn from(holder: &HolderRef) -> Self {
        Self::new(holder.type_code(), holder.number())
    }
}

/// A license holder with the name that the license shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamedHolder {
    /// Name (持证者名称).
    pub name: Personal,
    /// Kind of the number.
    pub type_code: HolderTypeCode,
    /// Number (证件号码).
    pub number: Personal,
    /// See [`Holder::as_registered`].
    #[serde(default, skip_serializing_if = "is_false")]
    pub as_registered: bool,
}

/// Stage of a case (环节).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// 申办.
    #[serde(rename = "申办")]
    Application,
    /// 受理.
    #[serde(rename = "受理")]
    Acceptance,
    /// 审核.
    #[serde(rename = "审核")]
    Review,
    /// 决定.
    #[serde(rename = "决定")]
    Decision,
    /// 送达.
    #[serde(rename = "送达")]
    Delivery,
}

/// The use of a license: by whom, for what and in which case (用证信息).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UseContext {
    /// The person at the caller (经办人).
    pub user_name: Personal,
    /// Service item code (事项编码).
    pub item_code: String,
    /// Service item name (事项名称).
    pub item_name: String,
    /// Case number (办件编号).
    pub business_code: String,
    /// Why (用证事由), at most 200 characters.
    pub cause: Personal,
    /// Stage of the case.
    pub stage: Stage,
    /// Delay class of a use that the law keeps from its holder for a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<String>,
    /// Purpose (用途), for a grant that is for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// Field of use (用证场景), for a grant that is for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scenario: Option<Scenario>,
    /// The organisation that the caller stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acting_for: Option<Uscc>,
    /// The identity provider's word that the user is `user_name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion: Option<Personal>,
}

/// Which license is meant. Retrieving takes no envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum License {
    /// By the identifier of a version.
    Identifier(ByIdentifier),
    /// By type, certificate number and holder.
    Number(ByNumber),
    /// By the signed bytes.
    Envelope(ByEnvelope),
}

/// By the identifier of a version (证照标识).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ByIdentifier {
    /// The identifier.
    pub identifier: CertificateIdentifier,
}

/// By type, certificate number (证照编号) and holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ByNumber {
    /// License type.
    pub type_code: LicenseTypeCode,
    /// The number that is printed on the license.
    pub certificate_number: Personal,
    /// Its holder.
    pub holder: Holder,
}

/// By the signed bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ByEnvelope {
    /// The signed envelope.
    pub envelope: EnvelopeBytes,
}

impl License {
    /// By the identifier of a version.
    pub const fn by_identifier(identifier: CertificateIdentifier) -> Self {
        Self::Identifier(ByIdentifier { identifier })
    }

    /// By type, certificate number and holder.
    pub fn by_number(type_code: LicenseTypeCode, number: impl Into<Personal>, holder: Holder) -> Self {
        Self::Number(ByNumber { type_code, certificate_number: number.into(), holder })
    }

    /// By the signed bytes.
    pub fn by_envelope(envelope: impl Into<Vec<u8>>) -> Self {
        Self::Envelope(ByEnvelope { envelope: EnvelopeBytes(envelope.into()) })
    }
}

/// The content of a license to be signed. Its issuer is the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Draft {
    /// License type.
    pub type_code: LicenseTypeCode,
    /// Serial (流水号); never a holder's number.
    pub serial: Serial,
    /// The number that is printed on the license (证照编号).
    pub certificate_number: Personal,
    /// Each holder once.
    pub holders: Vec<NamedHolder>,
    /// Date of issue that the license shows.
    pub issue_date: Date,
    /// First valid day.
    pub valid_from: Date,
    /// Last valid day; `None` for a license without end (长期).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<Date>,
    /// Fields of the face (照面) by the keys of the type.
    pub fields: BTreeMap<String, Personal>,
}

/// Issues a license.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Issue {
    /// Its content.
    pub license: Draft,
}

/// Changes the state of a license or makes a version of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Transition {
    /// The version in force; for 08 that of the license taken over.
    pub identifier: CertificateIdentifier,
    /// The operation: 02 to 10.
    pub operation: Operation,
    /// The state wanted, for 05 only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<LicenseState>,
    /// Why.
    pub reason: String,
    /// Content of the new version (02, 09) or of the new license (08).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<Draft>,
}

/// Asks for the index of a holder's licenses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Search {
    /// Whose licenses.
    pub holder: Holder,
    /// Only of this type; required beside a grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub type_code: Option<LicenseTypeCode>,
    /// The identity provider's word for the holder, if a portal asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion: Option<Personal>,
    /// Grant id, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    /// Use context.
    #[serde(rename = "use")]
    pub context: UseContext,
}

/// How much of a license is disclosed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Named fields.
    Fields,
    /// All fields.
    Face,
    /// The signed bytes.
    Envelope,
    /// The annotated copy (加注件).
    Copy,
}

/// Asks for the content of a license.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retrieve {
    /// Which license.
    pub license: License,
    /// How much of it.
    pub mode: Mode,
    /// Names of fields, for mode `fields` only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// The holder that a portal vouches for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<Holder>,
    /// The identity provider's word for the holder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion: Option<Personal>,
    /// Grant id, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    /// The signed bytes are wanted although the license is not in force.
    #[serde(default, skip_serializing_if = "is_false")]
    pub include_ended: bool,
    /// Use context.
    #[serde(rename = "use")]
    pub context: UseContext,
}

impl Retrieve {
    /// A question for a license in a mode.
    pub const fn new(license: License, mode: Mode, context: UseContext) -> Self {
        Self {
            license,
            mode,
            fields: Vec::new(),
            holder: None,
            assertion: None,
            grant: None,
            include_ended: false,
            context,
        }
    }

    /// With the grant that gives the right, hex.
    #[must_use]
    pub fn with_grant(self, grant: impl Into<String>) -> Self {
        Self { grant: Some(grant.into()), ..self }
    }
}

/// Verifies a license.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Verify {
    /// Which license.
    pub license: License,
    /// Values that the caller expects, by the names of the fields. The answer says only whether all are right.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub expect: BTreeMap<String, Personal>,
    /// The holder that a portal vouches for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<Holder>,
    /// The identity provider's word for the holder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion: Option<Personal>,
    /// Grant id, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    /// Use context.
    #[serde(rename = "use")]
    pub context: UseContext,
}

impl Verify {
    /// A question whether a license is valid.
    pub const fn new(license: License, context: UseContext) -> Self {
        Self { license, expect: BTreeMap::new(), holder: None, assertion: None, grant: None, context }
    }

    /// With the grant that gives the right, hex.
    #[must_use]
    pub fn with_grant(self, grant: impl Into<String>) -> Self {
        Self { grant: Some(grant.into()), ..self }
    }

    /// With one more value that is expected.
    #[must_use]
    pub fn expecting(mut self, field: impl Into<String>, value: impl Into<Personal>) -> Self {
        self.expect.insert(field.into(), value.into());
        self
    }
}

/// The modes that a grant allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GrantMode {
    /// Yes or no.
    Verify,
    /// Named fields.
    Fields,
    /// All fields.
    Face,
    /// The signed bytes.
    Envelope,
    /// The annotated copy (加注件).
    Copy,
    /// The index.
    Search,
    /// Beside `envelope`: the signed bytes also of a license that is not in force.
    Ended,
}

/// Makes a grant (用证授权): of licenses, or of all of the holder's licenses of some types. Exactly one of `identifier`, `identifiers`,
/// `type_code` and `type_codes` is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrantCreate {
    /// The holder that the portal vouches for.
    pub holder: Holder,
    /// The organisation that may use it.
    pub grantee: Uscc,
    /// For this license only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identifier: Option<CertificateIdentifier>,
    /// For these licenses only, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub identifiers: Vec<CertificateIdentifier>,
    /// For all of the holder's licenses of this type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub type_code: Option<LicenseTypeCode>,
    /// For all of the holder's licenses of these types, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub type_codes: Vec<LicenseTypeCode>,
    /// The modes that it allows.
    pub modes: Vec<GrantMode>,
    /// Fields that may be disclosed or expected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// The person who acts for the holder by a link of the portal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Holder>,
    /// Only for this service item (事项编码).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item_code: Option<String>,
    /// Only for this purpose (用途).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// Only in this field of use (用证场景).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scenario: Option<Scenario>,
    /// Only for this user of the grantee's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_name: Option<Personal>,
    /// Last valid moment, RFC 3339.
    pub until: String,
    /// Most uses; `None` = without limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_uses: Option<u32>,
    /// The identity provider's word for whoever grants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion: Option<Personal>,
}

/// Pauses a grant, resumes it, or narrows it to terms; what is not said stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrantChange {
    /// Grant id, hex.
    pub grant: String,
    /// Whose.
    pub holder: Holder,
    /// The agent who made it, in the holder's place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Holder>,
    /// The step.
    pub action: GrantAction,
    /// Modes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modes: Option<Vec<GrantMode>>,
    /// Fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<Vec<String>>,
    /// Service item (事项编码).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item_code: Option<String>,
    /// Purpose (用途).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// Field of use (用证场景).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scenario: Option<Scenario>,
    /// User of the grantee's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_name: Option<Personal>,
    /// Last valid moment, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Most uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_uses: Option<u32>,
    /// Why.
    pub reason: String,
    /// The identity provider's word for whoever asks; what takes away needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion: Option<Personal>,
}

/// Ends a grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrantRevoke {
    /// Grant id, hex.
    pub grant: String,
    /// Whose.
    pub holder: Holder,
    /// The agent who made it, in the holder's place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Holder>,
    /// Why.
    pub reason: String,
    /// The identity provider's word for whoever asks; none is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion: Option<Personal>,
}

/// Asks for grants: a holder's, through the portal; without a holder those that the caller may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrantSearch {
    /// Whose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<Holder>,
    /// The identity provider's word for the holder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion: Option<Personal>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Most rows of the page, 1 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Asks for a page of the caller's own licenses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IssuedList {
    /// Only of this type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub type_code: Option<LicenseTypeCode>,
    /// Only in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<LicenseState>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Most rows of the page, 1 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Asks for a page of the register or of the proposals.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct List {
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Most rows of the page, 1 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A class of uses that the law keeps from their holders for a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DelayClass {
    /// For how long, days.
    pub days: u16,
    /// The law that says so.
    pub legal_basis: String,
}

/// A key that a participant signs its state changes with (RFC 9421).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SigningKey {
    /// The `keyid` of signatures.
    pub id: String,
    /// PEM of the public key, Ed25519 or P-256.
    pub public_key: String,
    /// Last day on which it signs; `None` = no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Date>,
}

/// One entry of the participant register (接入单位).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Participant {
    /// Unified social credit code.
    pub organisation: Uscc,
    /// Name.
    pub name: String,
    /// Roles.
    pub roles: Vec<Role>,
    /// License types that it may issue.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issues: Vec<LicenseTypeCode>,
    /// Purposes that its contract names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub purposes: Vec<String>,
    /// Contract reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract: Option<String>,
    /// Most permitted uses a day (China Standard Time); `None` = without limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily_quota: Option<u32>,
    /// Delay classes by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub delays: BTreeMap<String, DelayClass>,
    /// Keys that its state changes are signed with; empty = they are not signed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signing_keys: Vec<SigningKey>,
    /// Limits of its uses; with any, it is admitted to what they name alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<Limit>,
    /// Organisations that it may stand for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acts_for: Vec<Uscc>,
    /// Its uses of licenses stay within its list of intended uses.
    #[serde(default, skip_serializing_if = "is_false")]
    pub intended_use: bool,
    /// First valid day.
    pub valid_from: Date,
    /// Last valid day; `None` = no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<Date>,
}

/// A line of a participant's limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limit {
    /// The class of routes.
    pub interface: Facility,
    /// The license type; `None` = all for which no other line stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub type_code: Option<LicenseTypeCode>,
    /// Most permitted uses a day (China Standard Time).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily: Option<u32>,
    /// Most permitted uses in a shorter period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Fields that may be asked for; `None` = any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<Vec<String>>,
    /// Networks that its connections come from, such as `192.0.2.0/24`; empty = any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
}

/// Uses in a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rate {
    /// Most permitted uses.
    pub uses: u32,
    /// Length of the period, seconds.
    pub seconds: u32,
}

/// Mints a presentation code (亮证码).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CodeMint {
    /// The person who shows it.
    pub holder: Holder,
    /// The person who acts for the holder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Holder>,
    /// The license that it shows; `None` for a code of the holder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identifier: Option<CertificateIdentifier>,
    /// Fields that a scan may ask for, beside type, state and validity.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// The verifiers that may scan it.
    pub verifiers: Verifiers,
    /// For how long it is good, seconds; 60 unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u32>,
    /// The identity provider's word for whoever shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion: Option<Personal>,
}

/// Ends a presentation code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CodeEnd {
    /// The code.
    pub code: Personal,
    /// Whose it is.
    pub holder: Holder,
    /// The person who acts for the holder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Holder>,
    /// Why.
    pub reason: String,
}

/// Scans a presentation code, or as an inspector the identifier on a permit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CodeScan {
    /// The code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Personal>,
    /// The identifier on a permit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identifier: Option<CertificateIdentifier>,
    /// The type that is needed, of a code of the holder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub type_code: Option<LicenseTypeCode>,
    /// Fields that are asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// The person who shows the code: somebody else's is refused, and used up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<Holder>,
    /// Use context.
    #[serde(rename = "use")]
    pub context: UseContext,
}

/// A page of the caller's own uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UsageSearch {
    /// Earliest moment, RFC 3339; `None` = today.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Entries from this index on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_index: Option<u64>,
    /// Most entries of the page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// Registers a participant, or changes its registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Register {
    /// The registration.
    pub participant: Participant,
}

/// Suspends a participant, or lifts that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Suspend {
    /// Whom.
    pub organisation: Uscc,
    /// Suspend, or lift the suspension.
    pub suspended: bool,
    /// Why.
    pub reason: String,
}

/// Proposes what takes two operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Propose {
    /// The kind of the proposal.
    pub kind: ProposalKind,
    /// Whom; with the kinds about a holder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<Holder>,
    /// The registration; with `register-participant`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub participant: Option<Participant>,
    /// The definition; with `publish-type`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license_type: Option<LicenseType>,
    /// The calendar; with `publish-calendar`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calendar: Option<Calendar>,
    /// The address of a data provider; with `allow-address`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// The policies, in Cedar; with `publish-policies`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policies: Option<String>,
    /// Why.
    pub reason: String,
}

/// Approves another operator's proposal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Approve {
    /// Proposal id, hex.
    pub proposal: String,
    /// The registration as proposed; with `register-participant`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub participant: Option<Participant>,
    /// The definition as proposed; with `publish-type`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license_type: Option<LicenseType>,
    /// The calendar as proposed; with `publish-calendar`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calendar: Option<Calendar>,
    /// The address as proposed; with `allow-address`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// The policies as proposed; with `publish-policies`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policies: Option<String>,
}

/// Asks for the policies in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShowPolicies {}

/// Asks who used a holder's licenses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Trace {
    /// Whose licenses.
    pub holder: Holder,
    /// Guardian or agent who asks in the holder's place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Holder>,
    /// The identity provider's word for whoever asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion: Option<Personal>,
    /// The page begins behind the entry of this index: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// Most entries of the page, 1 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Use context.
    #[serde(rename = "use")]
    pub context: UseContext,
}

/// An auditor's question. Every filter that is there must match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogQuery {
    /// Why the auditor asks; the holders whose records are shown are told.
    pub purpose: String,
    /// The person at the auditor's side.
    pub user_name: Personal,
    /// Earliest moment, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Latest moment, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The caller of the entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organisation: Option<Uscc>,
    /// A license, in any version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<CertificateIdentifier>,
    /// A holder concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<Holder>,
    /// Case number (办件编号).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub business_code: Option<String>,
    /// A public code, or `ok`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Entries from this index on: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_index: Option<u64>,
    /// Most entries of the page, 1 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Lets somebody act for a holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LinkMake {
    /// The person acted for.
    pub holder: Holder,
    /// The person who acts.
    pub agent: Holder,
    /// By what.
    pub kind: LinkKind,
    /// Last valid moment, RFC 3339.
    pub until: String,
    /// The person who gives it in the holder's place: the agent of the link that it stands under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<Holder>,
    /// Modes of grants that the agent may make; `None` = all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modes: Option<Vec<GrantMode>>,
    /// License types that the agent acts for; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub type_codes: Vec<LicenseTypeCode>,
    /// The basis of a guardian.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<String>,
    /// The identity provider's word for whoever gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion: Option<Personal>,
    /// The same for the agent, who takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_assertion: Option<Personal>,
}

impl LinkMake {
    /// A link that the holder gives, with all modes and types.
    pub fn new(holder: Holder, agent: Holder, kind: LinkKind, until: String) -> Self {
        Self {
            holder,
            agent,
            kind,
            until,
            via: None,
            modes: None,
            type_codes: Vec::new(),
            basis: None,
            assertion: None,
            agent_assertion: None,
        }
    }
}

/// Ends that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LinkEnd {
    /// The person acted for.
    pub holder: Holder,
    /// The person who acted.
    pub agent: Holder,
    /// Why.
    pub reason: String,
}

/// Writes a resource's definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceWrite {
    /// The definition.
    pub resource: Resource,
}

/// Takes a step of a resource's life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceTransition {
    /// Its code.
    pub resource: String,
    /// The step.
    pub action: ResourceAction,
    /// Why.
    pub reason: String,
}

/// Asks for a page of the catalogue. Every member that is there has to fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceSearch {
    /// Words in name, summary or a field's label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<String>,
    /// The code, or its front.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Its domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<Domain>,
    /// Its sharing class, 1 to 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharing_class: Option<u8>,
    /// Whether it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub openness: Option<Openness>,
    /// How it is supplied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supply: Option<Supply>,
    /// Its state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ResourceState>,
    /// Its provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<Uscc>,
    /// Only data that flow back from national systems.
    #[serde(default, skip_serializing_if = "is_false")]
    pub returned: bool,
    /// The page begins behind this: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Most that it lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// Applies for a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Apply {
    /// Its code.
    pub resource: String,
    /// Code of the service item that it is for.
    pub item_code: String,
    /// Name of the item.
    pub item_name: String,
    /// The purpose.
    pub purpose: String,
    /// The scope that is asked.
    pub scope: Scope,
}

/// Takes a step of an application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApplicationTransition {
    /// Its id, hex.
    pub application: String,
    /// The step.
    pub action: ApplicationAction,
    /// The scope that is allowed, if less than was asked; with `approve`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<Scope>,
    /// The ground; with `refuse`, and with `stop` by the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ground: Option<Ground>,
    /// Its legal basis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<String>,
    /// Words beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Asks for a page of applications. Every member that is there has to fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApplicationSearch {
    /// Code of the resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Where they stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ApplicationState>,
    /// Only those whose clock is over.
    #[serde(default, skip_serializing_if = "is_false")]
    pub overdue: bool,
    /// Only those whose clock ends within so many working days, or is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_within: Option<u16>,
    /// Only those that an operator has to settle.
    #[serde(default, skip_serializing_if = "is_false")]
    pub disputed: bool,
    /// The page begins behind this: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Most that it lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// Brings rows of a hosted resource in, or takes rows out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecordsIngest {
    /// Code of the resource.
    pub resource: String,
    /// Line of the first row in the provider's file, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_line: Option<u64>,
    /// Rows, each by field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<BTreeMap<String, Personal>>,
    /// Keys of rows that are taken out, each by field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<BTreeMap<String, Personal>>,
    /// Keys of rows that are taken out and erased from the disk at once, each by field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub erased: Vec<BTreeMap<String, Personal>>,
}

/// Compares a license with its row of a base resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecordsCompare {
    /// Code of the resource.
    pub resource: String,
    /// Identifier of the license's version.
    pub license: CertificateIdentifier,
    /// Why.
    pub reason: String,
}

/// Asks for licenses and base resources that disagree; every filter that is there must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MismatchSearch {
    /// Code of the resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Where it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<MismatchState>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Most rows, 1 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// Asks for a page of a hosted resource's feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecordsFeed {
    /// Code of the resource.
    pub resource: String,
    /// `next` of the page before; `None` from the beginning on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Most rows and removals, 1 to 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// The use.
    #[serde(rename = "use")]
    pub context: UseContext,
}

/// Asks for a row of a resource: of a hosted one, or from its provider's interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecordsQuery {
    /// Code of the resource.
    pub resource: String,
    /// Whom the row is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<Holder>,
    /// The other fields that the row is found by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<BTreeMap<String, Personal>>,
    /// Fields that are wanted; `None`: all that are approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<Vec<String>>,
    /// The use.
    #[serde(rename = "use")]
    pub context: UseContext,
}

/// Brings rows of a dictionary or mappings in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ItemsImport {
    /// The list.
    pub list: DictionaryList,
    /// Where the rows are from, in words.
    pub source: String,
    /// Line of the first row in the file, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_line: Option<u64>,
    /// Rows, each by field.
    pub rows: Vec<BTreeMap<String, String>>,
}

/// A list of items and their materials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Listing {
    /// Service items.
    Items,
    /// Materials.
    Materials,
    /// Data elements.
    Elements,
    /// Mappings of items' materials.
    Mappings,
    /// Reports of what was demanded on paper.
    Demands,
    /// Lines of lists of intended uses.
    Uses,
    /// Organisations that asked for more than their lists.
    Beyond,
}

/// Asks for a page of a list. Every member that is there has to fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ItemsSearch {
    /// The list.
    pub list: Listing,
    /// The code; of a dictionary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Words in the name; of a dictionary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<String>,
    /// Code of the item; of mappings, demands and uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<String>,
    /// Only mappings whose item has changed since.
    #[serde(default, skip_serializing_if = "is_false")]
    pub review: bool,
    /// Only data elements that no resource uses, and the fields that are none.
    #[serde(default, skip_serializing_if = "is_false")]
    pub orphans: bool,
    /// The page begins behind this: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Most that it lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// Asks which materials of an item need not be handed in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ItemsMaterials {
    /// Whose; `None`: what the dictionaries say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<Holder>,
    /// Ids of grants in mode search, hex.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<String>,
    /// SHA-256 of materials at hand in hex, by code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digests: Option<BTreeMap<String, String>>,
    /// The holder's own assertion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion: Option<Personal>,
    /// The use; its item is the one asked about.
    #[serde(rename = "use")]
    pub context: UseContext,
}

/// One part of what a matter needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Bundle {
    /// Whether a license is valid.
    Verify(Verify),
    /// The content of a license.
    Retrieve(Retrieve),
    /// A row of a hosted resource.
    Query(RecordsQuery),
}

/// Keeps a material that was verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MaterialKeep {
    /// Whose.
    pub holder: Holder,
    /// Code of the material.
    pub material: String,
    /// Its SHA-256, hex.
    pub digest: String,
    /// How far it is to be trusted.
    pub trust: MaterialTrust,
    /// Last day on which it counts.
    pub until: Date,
    /// The use.
    #[serde(rename = "use")]
    pub context: UseContext,
}

/// Reports which materials were demanded on paper in a stage of a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ItemsDemanded {
    /// The holder of the case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<Holder>,
    /// Codes of the materials; none of them is a report too.
    pub demanded: Vec<String>,
    /// The use: item, case and stage.
    #[serde(rename = "use")]
    pub context: UseContext,
}

/// Whom or what a question is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessEntity {
    /// Its kind: `organisation` or `user` of a subject, `license` of a resource.
    #[serde(rename = "type")]
    pub kind: String,
    /// USCC, user name or identifier.
    pub id: Personal,
}

/// A use that is asked about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessAction {
    /// Its mode: `verify`, `fields`, `face`, `envelope` or `copy`.
    pub name: String,
    /// The fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub properties: Option<AccessFields>,
}

/// Fields of a use that is asked about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessFields {
    /// Their names.
    pub fields: Vec<String>,
}

/// The terms of a use that is asked about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessContext {
    /// Holder that the portal vouches for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<Holder>,
    /// The identity provider's word for the holder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion: Option<Personal>,
    /// Id of a grant, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    /// The use.
    #[serde(rename = "use")]
    pub context: UseContext,
}

/// Asks whether a use of a license would be permitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// The caller's organisation, or its user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<AccessEntity>,
    /// The use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<AccessAction>,
    /// The license.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<AccessEntity>,
    /// Its terms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<AccessContext>,
}

/// Asks that of many uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluations {
    /// The subject of those without their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<AccessEntity>,
    /// The same of the use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<AccessAction>,
    /// The same of the license.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<AccessEntity>,
    /// The same of the terms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<AccessContext>,
    /// The questions.
    pub evaluations: Vec<Evaluation>,
    /// How they are asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<AccessOptions>,
}

/// How many questions are asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessOptions {
    /// `execute_all`, `deny_on_first_deny` or `permit_on_first_permit`.
    pub evaluations_semantic: String,
}
