//! `POST /v1/admin/approve`: another operator approves a proposal, which is carried out with it.
//!
//! The path alone calls it. Approval and effect are in one frame; a change of epoch is owed from then on, also after a
//! crash.

use ledger::{Key, Label};
use schemas::codes::{Code, Reason};
use schemas::identifier::Uscc;
use schemas::interface::Address;
use schemas::kinds::ProposalKind;
use schemas::license_type::LicenseType;
use schemas::routes::Route;
use schemas::workday::Calendar;
use serde::Deserialize;

use super::{
    Answer, Hold, NewPolicies, OPEN_MS, Proposal, Publication, address_place, applies, calendar_place,
    checked_policies, definition, hold, license_type, policies_place, refused,
};
use crate::capability::Capability;
use crate::gateway::case::{Case, Living, Place};
use crate::gateway::change::{Change, json as answer};
use crate::gateway::names::{About, Names};
use crate::gateway::permit::{Permit, Ruling};
use crate::participant::{Participant, Role, Wire};
use crate::rights::in_force::Published;
use crate::rights::link::Link;
use crate::sharing::dictionary::KeptMaterial;
use crate::wire::read::{Body, json};
use crate::wire::refusal::{Gather, Placed as _, Refusal};
use crate::wire::text::id;

/// Most links, and most kept materials, that an erasure ends in writing; the ones beyond end all the same, with the label.
const MAX_ENDED_LINKS: usize = 1_000;
/// When an erasure or a change of epoch is complete.
const AFTER_ROTATION: &str = "after-next-rotation";

/// The capability.
pub(crate) struct Approve;

/// The approval of a proposal.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Which.
    pub proposal: [u8; 16],
    /// The registration, where one is proposed: nobody approves one without knowing it.
    pub participant: Option<Participant>,
    /// The definition, where a license type is proposed.
    pub license_type: Option<LicenseType>,
    /// The calendar, where one is proposed.
    pub calendar: Option<Calendar>,
    /// The address, where one is proposed.
    pub address: Option<Address>,
    /// The policies, where some are proposed.
    pub policies: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request {
    proposal: String,
    participant: Option<Wire>,
    license_type: Option<serde_json::Value>,
    calendar: Option<Calendar>,
    address: Option<Address>,
    policies: Option<String>,
}

/// An approved proposal, to be carried out.
#[derive(Debug)]
pub(crate) struct Approved {
    /// Where it stands.
    place: Place,
    /// Its document from now on.
    proposal: Proposal,
    deed: Deed,
}

/// The deed that an approval carries out.
#[derive(Debug)]
enum Deed {
    /// Erase a holder, and end the links with the holder.
    Erase(Living, Vec<(Place, Link)>, Vec<(Place, KeptMaterial)>),
    /// Write a legal hold or its end.
    Hold(Place, Hold),
    /// Change the epoch.
    Rotate,
    /// Write a document: a registration, a license type's definition, a calendar, an address, policies.
    Write(Place, Vec<u8>),
}

impl Capability<'_> for Approve {
    const ROUTE: Route = Route::Approve;
    type Asked = Asked;
    type Granted = Approved;

    fn read(body: Body<'_>) -> Result<Asked, Refusal> {
        json::<Request>(body.bytes)?.typed()
    }

    fn names<'a>(asked: &'a Asked, _caller: &Uscc) -> Names<'a> {
        // The proposal stands in the state part, as a document.
        Names { about: About::Own(asked.proposal, concerned), ..Names::default() }
    }

    fn decide(case: &mut Case<'_>, caller: &Participant, asked: &Asked) -> Result<Ruling<Approved>, Refusal> {
        let (place, proposal) = case.document::<Proposal>(asked.proposal);
        let proposal = proposal.ok_or_else(|| refused(Reason::NoSuchProposal))?;
        may_approve(case, caller, asked, &proposal)?;
        let label = proposal.label();
        let deed = deed(case, asked, &proposal)?;
        let ends_epoch = (proposal.kind == ProposalKind::RotateEpoch).then(|| case.epoch());
        let proposal = Proposal { approved_by: Some(caller.organisation), ends_epoch, ..proposal };
        let approved = Approved { place, proposal, deed };
        // The request names the proposal alone; who approves need not know the holder.
        Ok(Ruling::plain(approved, label.into_iter().collect()).unnamed())
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked,
        permit: Permit<Approved>,
    ) -> Result<Vec<u8>, Refusal> {
        let Approved { place, proposal, deed } = permit.into_granted();
        change.put(place, proposal.document());
        let complete = match deed {
            Deed::Erase(holder, links, kept) => {
                for (place, link) in links {
                    change.keep(place, &Link { ended: true, ..link });
                }
                let ends_ms = change.entry().now_ms;
                for (place, kept) in kept {
                    change.keep(place, &KeptMaterial { digest: String::new(), ends_ms, ..kept });
                }
                change.erase(holder);
                Some(AFTER_ROTATION)
            }
            Deed::Hold(place, hold) => {
                change.put(place, answer(&hold));
                None
            }
            Deed::Rotate => {
                change.rotate();
                Some(AFTER_ROTATION)
            }
            Deed::Write(place, value) => {
                change.put(place, value);
                None
            }
        };
        let (id, kind) = (hex::encode(asked.proposal), proposal.kind);
        Ok(answer(&Answer { proposal: id, kind, state: "approved", complete }))
    }
}

/// The holder whom a proposal is about.
fn concerned(case: &mut Case<'_>, proposal: &Key) -> Vec<Label> {
    let (_, proposal) = case.document::<Proposal>(*proposal);
    proposal.and_then(|proposal| proposal.label()).into_iter().collect()
}

/// Whether an operator may approve a proposal by what it is and who made it, and says that it is this one.
fn may_approve(
    case: &mut Case<'_>,
    caller: &Participant,
    asked: &Asked,
    proposal: &Proposal,
) -> Result<(), Refusal> {
    if proposal.by == caller.organisation {
        return Err(refused(Reason::OwnProposal));
    }
    if !proposal.is_open(case.now_ms()) {
        return Err(refused(Reason::ProposalClosed));
    }
    case.ends_at(proposal.at_ms.saturating_add(OPEN_MS));
    // Two operators are two now: one who was suspended or is no operator any more counts no longer.
    let proposer = case.participant(&proposal.by);
    let counts = |proposer: &Participant| proposer.active_at(case.now_ms()) && proposer.has(Role::Operator);
    if !proposer.is_some_and(|proposer| counts(&proposer)) {
        return Err(refused(Reason::ProposerInactive));
    }
    if asked.participant.as_ref() != proposal.registration.as_ref().map(|new| &new.participant) {
        return Err(refused(Reason::OtherRegistration));
    }
    if asked.calendar.as_ref() != proposal.calendar.as_ref().map(|new| &new.calendar) {
        return Err(refused(Reason::OtherCalendar));
    }
    if asked.address.as_ref() != proposal.address.as_ref().map(|new| &new.address) {
        return Err(refused(Reason::OtherDefinition));
    }
    let policies =
        |new: &NewPolicies| asked.policies.as_ref().map(|text| NewPolicies::new(text, new.version));
    if asked.policies.is_some() != proposal.policies.is_some()
        || proposal.policies.as_ref().is_some_and(|new| policies(new).as_ref() != Some(new))
    {
        return Err(refused(Reason::OtherDefinition));
    }
    match (&asked.license_type, &proposal.publication) {
        (None, None) => Ok(()),
        (Some(named), Some(new)) if Publication::new(named, new.version) == *new => Ok(()),
        (Some(_), Some(_)) | (None, Some(_)) | (Some(_), None) => Err(refused(Reason::OtherDefinition)),
    }
}

/// The deed, if it still may be done: another registration or definition in between, or an erased holder, closes the
/// proposal.
fn deed(case: &mut Case<'_>, asked: &Asked, proposal: &Proposal) -> Result<Deed, Refusal> {
    let closed = || refused(Reason::ProposalClosed);
    // A proposal without what its kind is about is not written.
    let incomplete = || Refusal::new(Code::Internal);
    let next = |place: Place, version: u32| {
        if place.version().checked_add(1) == Some(version) { Ok(place) } else { Err(closed()) }
    };
    match proposal.kind {
        ProposalKind::RotateEpoch => Ok(Deed::Rotate),
        ProposalKind::RegisterParticipant => {
            let new = proposal.registration.as_ref().ok_or_else(incomplete)?;
            let (place, _) = case.registration(&new.participant.organisation);
            Ok(Deed::Write(next(place, new.version)?, new.participant.document()))
        }
        ProposalKind::PublishType => {
            let new = proposal.publication.as_ref().zip(asked.license_type.as_ref());
            let (new, license_type) = new.ok_or_else(incomplete)?;
            let (place, _) = case.published(&new.code);
            Ok(Deed::Write(next(place, new.version)?, definition(license_type)))
        }
        ProposalKind::PublishCalendar => {
            let new = proposal.calendar.as_ref().ok_or_else(incomplete)?;
            let place = calendar_place(case, new.calendar.year);
            Ok(Deed::Write(next(place, new.version)?, answer(&new.calendar)))
        }
        ProposalKind::AllowAddress => {
            let new = proposal.address.as_ref().ok_or_else(incomplete)?;
            let place = address_place(case, &new.address);
            Ok(Deed::Write(next(place, new.version)?, answer(&new.address)))
        }
        ProposalKind::PublishPolicies => {
            let new = proposal.policies.as_ref().zip(asked.policies.as_ref());
            let (new, text) = new.ok_or_else(incomplete)?;
            checked_policies(text)?;
            let place = policies_place(case);
            Ok(Deed::Write(next(place, new.version)?, answer(&Published { policies: text.clone() })))
        }
        kind @ (ProposalKind::EraseHolder | ProposalKind::HoldHolder | ProposalKind::ReleaseHold) => {
            let label = proposal.label().ok_or_else(incomplete)?;
            let living = case.living(&label).ok_or_else(closed)?;
            applies(case, kind, &label)?;
            let (place, _) = hold(case, &label);
            if kind != ProposalKind::EraseHolder {
                return Ok(Deed::Hold(place, Hold { held: kind == ProposalKind::HoldHolder }));
            }
            let names = |link: &Link| !link.ended && (link.holder.0 == label || link.agent.0 == label);
            let links = case.documents_of(&label, MAX_ENDED_LINKS, names);
            let kept = case.documents_of(&label, MAX_ENDED_LINKS, |_: &KeptMaterial| true);
            Ok(Deed::Erase(living, links, kept))
        }
    }
}

impl Request {
    fn typed(self) -> Result<Asked, Refusal> {
        let mut wrong = Gather::new();
        let proposal = wrong.take(id(&self.proposal).under("proposal"));
        let (calendar, address) = (self.calendar, self.address);
        let policies = self.policies;
        let participant = self.participant.map(|participant| participant.typed()).transpose();
        let participant = wrong.take(participant.under("participant"));
        let license_type = wrong.take(self.license_type.as_ref().map(license_type).transpose());
        let typed = || {
            let (proposal, participant, license_type) = (proposal?, participant?, license_type?);
            Some(Asked { proposal, participant, license_type, calendar, address, policies })
        };
        wrong.all(typed())
    }
}
