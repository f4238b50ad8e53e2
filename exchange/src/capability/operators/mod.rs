//! Decisions of two operators: one proposes, another one approves. Erasing a holder, a legal hold and its release, a change
//! of epoch before its time, license types, calendars, addresses of data providers, policies, and registrations that open holders or the log (decision 0013).
//!
//! A proposal is a document of journaled state. It names the holder by label. Propose and approve alone write it, each
//! in the frame of its entry: a crash leaves both or neither.

use ledger::{DocumentKind, Label, Ledger};
use schemas::codes::{Code, Reason, Rule};
use schemas::identifier::{LicenseTypeCode, Uscc};
use schemas::interface::Address;
use schemas::kinds::ProposalKind;
use schemas::license_type::{LicenseType, LicenseTypeError};
use schemas::workday::Calendar;
use serde::{Deserialize, Serialize};

use crate::gateway::case::{Case, Place};
use crate::gateway::parsed::Kept;
use crate::gateway::seal::sha256;
use crate::participant::Participant;
use crate::rights::in_force::{Published, policies_key};
use crate::rights::policy::Policies;
use crate::sharing::address::address_key;
use crate::sharing::clock::calendar_key;
use crate::wire::refusal::{Fault, Placed as _, Refusal};

pub(crate) mod approve;
pub(crate) mod list;
pub(crate) mod policies;
pub(crate) mod propose;

/// How long a proposal may be approved, ms.
const OPEN_MS: u64 = 7 * 24 * 3_600 * 1_000;

/// A proposal as journaled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Proposal {
    /// The kind of what is proposed.
    pub kind: ProposalKind,
    /// The holder's label as hex, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// The registration, where one is to be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<Registration>,
    /// The license type, where one is to be published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publication: Option<Publication>,
    /// The calendar, where one is to be published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calendar: Option<NewCalendar>,
    /// The address, where calls to one are to be allowed or ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<NewAddress>,
    /// The policies, where some are to be published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policies: Option<NewPolicies>,
    /// The operator who proposed it.
    pub by: Uscc,
    /// When, ms since 1970.
    pub at_ms: u64,
    /// The operator who approved it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<Uscc>,
    /// The epoch that ends by it, once a change of epoch is approved. It is owed as long as that epoch goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_epoch: Option<u32>,
}

/// A registration to be written, and the version of the document that it becomes: another one in between refuses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Registration {
    /// The registration as proposed.
    pub participant: Participant,
    /// Its version, one more than the present one's.
    pub version: u32,
}

/// A calendar to be published, and the version of the document that it becomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct NewCalendar {
    /// The calendar as proposed.
    pub calendar: Calendar,
    /// Its version, one more than the present one's.
    pub version: u32,
}

/// An address to be allowed or ended, and the version of the document that it becomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct NewAddress {
    /// The address as proposed.
    pub address: Address,
    /// Its version, one more than the present one's.
    pub version: u32,
}

/// Policies to be published. The text comes with the approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct NewPolicies {
    /// SHA-256 of the text, as hex.
    pub digest: String,
    /// The version of the document that it becomes.
    pub version: u32,
}

impl NewPolicies {
    pub(super) fn new(text: &str, version: u32) -> Self {
        Self { digest: hex::encode(sha256(text.as_bytes())), version }
    }
}

/// A license type to be published. The definition comes with the approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Publication {
    /// Its code.
    pub code: LicenseTypeCode,
    /// SHA-256 of the definition as it is journaled, as hex.
    pub digest: String,
    /// Its version, one more than the present one's.
    pub version: u32,
}

impl Publication {
    pub(super) fn new(license_type: &LicenseType, version: u32) -> Self {
        let digest = hex::encode(sha256(&definition(license_type)));
        Self { code: license_type.code, digest, version }
    }
}

/// The definition of a license type as it is journaled.
pub(crate) fn definition(license_type: &LicenseType) -> Vec<u8> {
    serde_json::to_vec(license_type).expect("a license type has only text, numbers and lists")
}

impl Proposal {
    /// Whether it may still be approved, but for what it is about.
    pub(crate) fn is_open(&self, now_ms: u64) -> bool {
        self.approved_by.is_none() && now_ms < self.at_ms.saturating_add(OPEN_MS)
    }

    /// The document as journaled.
    pub(crate) fn document(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a proposal has only text and numbers")
    }

    /// The holder's label.
    pub(crate) fn label(&self) -> Option<Label> {
        let mut label = [0; 16];
        hex::decode_to_slice(self.holder.as_deref()?, &mut label).ok().map(|()| label)
    }
}

/// A legal hold as journaled, under the holder's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Hold {
    /// It holds now.
    pub held: bool,
}

impl Kept for Proposal {
    const KIND: DocumentKind = DocumentKind::Proposal;
}

impl Kept for Hold {
    const KIND: DocumentKind = DocumentKind::Hold;
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    proposal: String,
    kind: ProposalKind,
    state: &'static str,
    /// When an approved erasure or change of epoch is complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    complete: Option<&'static str>,
}

/// Whether two operators have asked for a change of epoch that is not made yet: by the journal, so that neither a restart
/// nor a failure forgets it.
pub(crate) fn rotation_owed(ledger: &Ledger) -> bool {
    let state = ledger.state();
    let epoch = state.epoch();
    state.documents(DocumentKind::Proposal).iter().any(|(_, document)| {
        serde_json::from_slice::<Proposal>(&document.value)
            .is_ok_and(|proposal| proposal.ends_epoch == Some(epoch))
    })
}

fn refused(reason: Reason) -> Refusal {
    Refusal::explained(Code::ProposalRefused, reason)
}

/// The place of a holder's legal hold, and whether it holds.
fn hold(case: &mut Case<'_>, label: &Label) -> (Place, bool) {
    let (place, hold) = case.document::<Hold>(*label);
    // A hold that cannot be read holds.
    (place, hold.map_or(place.version() != 0, |hold| hold.held))
}

/// Whether a kind of proposal makes sense for a holder as they stand.
fn applies(case: &mut Case<'_>, kind: ProposalKind, label: &Label) -> Result<(), Refusal> {
    let (_, held) = hold(case, label);
    match kind {
        ProposalKind::EraseHolder => erasable(case, label, held),
        ProposalKind::HoldHolder if held => Err(refused(Reason::LegalHold)),
        ProposalKind::ReleaseHold if !held => Err(refused(Reason::NoLegalHold)),
        ProposalKind::HoldHolder
        | ProposalKind::ReleaseHold
        | ProposalKind::RotateEpoch
        | ProposalKind::RegisterParticipant
        | ProposalKind::PublishType
        | ProposalKind::PublishCalendar
        | ProposalKind::AllowAddress
        | ProposalKind::PublishPolicies => Ok(()),
    }
}

fn erasable(case: &mut Case<'_>, label: &Label, held: bool) -> Result<(), Refusal> {
    let refused = |reason| Err(Refusal::explained(Code::ErasureRefused, reason));
    for key in case.licenses_of(label) {
        // Each license is a fact: one that comes back into force, or a new one, makes this decided again.
        if case.license(key).is_some_and(|found| found.license.stands()) {
            return refused(Reason::LicenseInForce);
        }
    }
    if held {
        return refused(Reason::LegalHold);
    }
    let ended_ms = case.ended_ms(label);
    if ended_ms != 0 && case.now_ms() < ended_ms.saturating_add(case.retention_ms()) {
        return refused(Reason::RetentionPeriod);
    }
    Ok(())
}

/// A calendar that its notice may say.
fn checked(calendar: Calendar) -> Result<Calendar, Refusal> {
    match calendar.check() {
        Ok(()) => Ok(calendar),
        Err(error) => {
            let fault = Fault::at(error.pointer(), Rule::NotAllowed).form(error.to_string());
            Err(Refusal::of(Code::BadCalendar, fault)).under("calendar")
        }
    }
}

/// An address whose certificates can be read.
fn checked_address(address: Address) -> Result<Address, Refusal> {
    let mut faults: Vec<_> = address
        .faults()
        .into_iter()
        .map(|fault| Fault::at(fault.pointer, fault.rule).form(fault.form))
        .collect();
    if address.authorities.as_ref().is_some_and(|text| client::Tls::from_pem(text.as_bytes(), None).is_err())
    {
        faults.push(Fault::at("/authorities", Rule::Pattern).form("certificates in PEM"));
    }
    let wrong =
        if faults.is_empty() { Ok(address) } else { Err(Refusal::all(Code::MalformedRequest, faults)) };
    wrong.under("address")
}

/// The place of an address.
fn address_place(case: &mut Case<'_>, address: &Address) -> Place {
    let key = address_key(case.keyed(), &address.organisation, &address.host, address.port);
    case.document::<Address>(key).0
}

/// Whether policies can be read, and their schema allows them. Decisions ask, behind the role of who sends them: reading is work.
fn checked_policies(text: &str) -> Result<(), Refusal> {
    match Policies::read(text) {
        Ok(_) => Ok(()),
        Err(fault) => {
            let (line, column) = (fault.line, fault.column);
            tracing::warn!(line, column, "policies were refused: those in force stay");
            // Cedar's words would give back what was sent.
            let form = format!("Cedar policies of the exchange's schema; see line {line}, column {column}");
            Err(Refusal::of(Code::BadPolicy, Fault::at("/policies", Rule::Pattern).form(form)))
        }
    }
}

/// The place of the policies in force.
fn policies_place(case: &mut Case<'_>) -> Place {
    let key = policies_key(case.keyed());
    case.document::<Published>(key).0
}

/// The place of a year's calendar.
fn calendar_place(case: &mut Case<'_>, year: i32) -> Place {
    let key = calendar_key(case.keyed(), year);
    case.document::<Calendar>(key).0
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
