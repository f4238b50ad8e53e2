//! What needs two operators: one proposes, another one approves. Erasing a holder, a legal hold and its release, a change
//! of epoch before its time, license types, and registrations that open holders or the log (decision 0013).
//!
//! A proposal is a document of journaled state. It names the holder by label.

use ledger::{DocumentKind, Key, Label, Ledger};
use schemas::codes::{Code, Reason};
use schemas::identifier::{LicenseTypeCode, Uscc};
use schemas::license_type::LicenseType;
use serde::{Deserialize, Serialize};

use crate::decide::{Context, Granted, Permit, need, plain};
use crate::effect::sha256;
use crate::facts::{Facts, Link};
use crate::participant::{Participant, Role};
use crate::refusal::Refusal;
use crate::request::{Approve, Propose, Proposed};

/// How long a proposal may be approved, ms.
const OPEN_MS: u64 = 7 * 24 * 3_600 * 1_000;

/// What is proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Destroy a holder's key: what is sealed under it can never be read again.
    EraseHolder,
    /// Keep a holder from being erased.
    HoldHolder,
    /// End a legal hold.
    ReleaseHold,
    /// Change the epoch now, which completes the erasures so far.
    RotateEpoch,
    /// Write a registration, which is then not suspended.
    RegisterParticipant,
    /// Publish a license type's definition, or one that takes the place of the one there is.
    PublishType,
}

/// A proposal as journaled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Proposal {
    /// What.
    pub kind: Kind,
    /// The holder's label as hex, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// The registration, where one is to be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<Registration>,
    /// The license type, where one is to be published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publication: Option<Publication>,
    /// Who proposed it.
    pub by: Uscc,
    /// When, ms since 1970.
    pub at_ms: u64,
    /// Who approved it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<Uscc>,
    /// The epoch that ends by it, once a change of epoch is approved. It is owed as long as that epoch goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_epoch: Option<u32>,
}

/// A registration to be written, and the version of the document that it becomes: another one in between refuses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Registration {
    /// As it is to be.
    pub participant: Participant,
    /// Its version, one more than the present one's.
    pub version: u32,
}

/// A license type to be published. The definition comes with the approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Publication {
    /// Its code.
    pub code: LicenseTypeCode,
    /// SHA-256 of the definition as it is journaled, as hex.
    pub digest: String,
    /// Its version, one more than the present one's.
    pub version: u32,
}

impl Publication {
    fn new(license_type: &LicenseType, version: u32) -> Self {
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
    pub fn is_open(&self, now_ms: u64) -> bool {
        self.approved_by.is_none() && now_ms < self.at_ms.saturating_add(OPEN_MS)
    }

    /// The document as journaled.
    pub fn document(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a proposal has only text and numbers")
    }

    /// The holder's label.
    pub fn label(&self) -> Option<Label> {
        let mut label = [0; 16];
        hex::decode_to_slice(self.holder.as_deref()?, &mut label).ok().map(|()| label)
    }
}

/// A legal hold as journaled, under the holder's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Hold {
    /// It holds now.
    pub held: bool,
}

/// An approved proposal, to be carried out.
#[derive(Debug)]
pub(crate) struct Approved {
    pub(crate) id: Key,
    /// The document's next version.
    pub(crate) version: u32,
    pub(crate) proposal: Proposal,
    /// The license type's definition to be published, as journaled.
    pub(crate) definition: Option<Vec<u8>>,
    /// The holder it is about, with the version that a hold on it has now.
    pub(crate) holder: Option<(Label, u32)>,
    /// The links that end with the holder, with their keys and versions now.
    pub(crate) links: Vec<(Key, u32, Link)>,
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

/// Whether an operator may propose this.
pub(crate) fn propose<'a>(
    context: &Context<'_>,
    facts: &mut Facts<'_>,
    caller: &Participant,
    propose: &'a Propose,
) -> Result<Permit<'a>, Refusal> {
    need(caller, Role::Operator)?;
    let (mut label, mut registration, mut publication) = (None, None, None);
    match &propose.what {
        Proposed::RotateEpoch => {}
        Proposed::Participant(participant) => {
            if !facts.rules().allow(participant) {
                return Err(Refusal::new(Code::BadParticipant));
            }
            let (version, _) = facts.registration(&participant.organisation);
            registration = Some(Registration { participant: participant.clone(), version: version + 1 });
        }
        Proposed::Type(license_type) => {
            let (version, existing) = facts.published(&license_type.code);
            if existing.is_some_and(|existing| !license_type.may_follow(&existing)) {
                return Err(Refusal::new(Code::BadType));
            }
            publication = Some(Publication::new(license_type, version + 1));
        }
        Proposed::Holder(kind, holder) => {
            let holder = facts.holder(holder).ok_or_else(|| Refusal::not_permitted(Reason::NoSuchHolder))?;
            applies(context, facts, *kind, &holder.label)?;
            label = Some(holder.label);
        }
    }
    let proposal = Proposal {
        kind: propose.what.kind(),
        holder: label.map(hex::encode),
        registration,
        publication,
        by: caller.organisation,
        at_ms: facts.now_ms,
        approved_by: None,
        ends_epoch: None,
    };
    Ok(plain(Granted::Propose { propose, proposal }, label.into_iter().collect()))
}

/// Whether an operator may approve this, and whether what was proposed may still be done.
pub(crate) fn approve<'a>(
    context: &Context<'_>,
    facts: &mut Facts<'_>,
    caller: &Participant,
    approve: &'a Approve,
) -> Result<Permit<'a>, Refusal> {
    need(caller, Role::Operator)?;
    let (version, proposal) = facts.proposal(&approve.proposal);
    let proposal = proposal.ok_or_else(|| refused(Reason::NoSuchProposal))?;
    let label = proposal.label();
    if proposal.by == caller.organisation {
        return Err(refused(Reason::OwnProposal));
    }
    let end_ms = proposal.at_ms.saturating_add(OPEN_MS);
    if !proposal.is_open(facts.now_ms) {
        return Err(refused(Reason::ProposalClosed));
    }
    facts.ends_at(end_ms);
    // Two operators are two now: one who was suspended or is no operator any more counts no longer.
    let proposer = facts.participant(&proposal.by);
    let counts = |proposer: &Participant| proposer.active_at(facts.now_ms) && proposer.has(Role::Operator);
    if !proposer.is_some_and(|proposer| counts(&proposer)) {
        return Err(refused(Reason::ProposerInactive));
    }
    if approve.participant.as_ref() != proposal.registration.as_ref().map(|new| &new.participant) {
        return Err(refused(Reason::OtherRegistration));
    }
    match (&approve.license_type, &proposal.publication) {
        (None, None) => {}
        (Some(named), Some(new)) if Publication::new(named, new.version) == *new => {
            if facts.published(&new.code).0.checked_add(1) != Some(new.version) {
                return Err(refused(Reason::ProposalClosed));
            }
        }
        _ => return Err(refused(Reason::OtherDefinition)),
    }
    if let Some(new) = &proposal.registration {
        let (version, _) = facts.registration(&new.participant.organisation);
        if version.checked_add(1) != Some(new.version) {
            return Err(refused(Reason::ProposalClosed));
        }
    }
    let (mut holder, mut links) = (None, Vec::new());
    if let Some(label) = label {
        if !facts.lives(&label) {
            return Err(refused(Reason::ProposalClosed));
        }
        applies(context, facts, proposal.kind, &label)?;
        holder = Some((label, facts.hold(&label).0));
        if proposal.kind == Kind::EraseHolder {
            links = facts.links_of(&label);
        }
    }
    let ends_epoch = (proposal.kind == Kind::RotateEpoch).then(|| facts.epoch());
    let proposal = Proposal { approved_by: Some(caller.organisation), ends_epoch, ..proposal };
    let definition = approve.license_type.as_ref().map(definition);
    let approved =
        Approved { id: approve.proposal, version: version + 1, proposal, definition, holder, links };
    // The request names the proposal alone; who approves need not know the holder.
    let permit = plain(Granted::Approve(approved), label.into_iter().collect());
    Ok(Permit { names_holder: false, ..permit })
}

/// Whether a kind of proposal makes sense for a holder as they stand.
fn applies(context: &Context<'_>, facts: &mut Facts<'_>, kind: Kind, label: &Label) -> Result<(), Refusal> {
    let (_, held) = facts.hold(label);
    match kind {
        Kind::EraseHolder => erasable(context, facts, label, held),
        Kind::HoldHolder if held => Err(refused(Reason::LegalHold)),
        Kind::ReleaseHold if !held => Err(refused(Reason::NoLegalHold)),
        Kind::HoldHolder
        | Kind::ReleaseHold
        | Kind::RotateEpoch
        | Kind::RegisterParticipant
        | Kind::PublishType => Ok(()),
    }
}

fn erasable(context: &Context<'_>, facts: &mut Facts<'_>, label: &Label, held: bool) -> Result<(), Refusal> {
    let refused = |reason| Err(Refusal::explained(Code::ErasureRefused, reason));
    for key in facts.licenses_of(label) {
        // Each license is a fact: one that comes back into force, or a new one, makes this decided again.
        if facts.license(key).is_some_and(|found| found.license.stands()) {
            return refused(Reason::LicenseInForce);
        }
    }
    if held {
        return refused(Reason::LegalHold);
    }
    let ended_ms = context.ledger.state().holder_by_label(label).map_or(0, |holder| holder.ended_ms);
    if ended_ms != 0 && facts.now_ms < ended_ms.saturating_add(context.retention_ms) {
        return refused(Reason::RetentionPeriod);
    }
    Ok(())
}
