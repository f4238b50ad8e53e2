//! `POST /v1/admin/proposals`: an operator proposes what needs two.
//!
//! The path alone calls it. A crash leaves the proposal with its entry, or no proposal.

use ledger::DocumentKind;
use schemas::codes::{Code, Reason, Rule};
use schemas::date::Date;
use schemas::holder::HolderRef;
use schemas::identifier::Uscc;
use schemas::interface::Address;
use schemas::kinds::ProposalKind;
use schemas::license_type::LicenseType;
use schemas::routes::Route;
use schemas::workday::Calendar;
use serde::Deserialize;

use super::{
    Answer, NewAddress, NewCalendar, NewPolicies, Proposal, Publication, Registration, address_place,
    applies, calendar_place, checked, checked_address, checked_policies, license_type, policies_place,
};
use crate::capability::Capability;
use crate::gateway::case::Case;
use crate::gateway::change::{Change, json as answer};
use crate::gateway::names::{HOLDER, Names};
use crate::gateway::permit::{Permit, Ruling};
use crate::participant::Participant;
use crate::sharing::clock;
use crate::wire::named::Holder;
use crate::wire::read::{Body, json};
use crate::wire::refusal::{Fault, Gather, Placed as _, Refusal};
use crate::wire::text::reason;

/// The capability.
pub(crate) struct Propose;

/// A request for a decision of two operators.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The proposal itself.
    pub what: Proposed,
    /// Why.
    pub reason: String,
}

/// A kind of proposal with what it is about.
#[derive(Debug)]
pub(crate) enum Proposed {
    /// A change of epoch.
    RotateEpoch,
    /// A registration, new or in place of the one there is.
    Participant(Participant),
    /// A license type, new or in place of the one there is.
    Type(LicenseType),
    /// A year's calendar, new or in place of the one there is.
    Calendar(Calendar),
    /// An address of a provider's, to be called or no longer.
    Address(Address),
    /// Policies, in place of those there are.
    Policies(String),
    /// One of the kinds about a holder.
    Holder(ProposalKind, HolderRef),
}

impl Proposed {
    /// The kind.
    pub(crate) const fn kind(&self) -> ProposalKind {
        match self {
            Self::RotateEpoch => ProposalKind::RotateEpoch,
            Self::Participant(_) => ProposalKind::RegisterParticipant,
            Self::Type(_) => ProposalKind::PublishType,
            Self::Calendar(_) => ProposalKind::PublishCalendar,
            Self::Address(_) => ProposalKind::AllowAddress,
            Self::Policies(_) => ProposalKind::PublishPolicies,
            Self::Holder(kind, _) => *kind,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request<'a> {
    kind: ProposalKind,
    #[serde(borrow)]
    holder: Option<Holder<'a>>,
    participant: Option<crate::participant::Wire>,
    license_type: Option<serde_json::Value>,
    calendar: Option<Calendar>,
    address: Option<Address>,
    policies: Option<String>,
    reason: String,
}

impl Capability<'_> for Propose {
    const ROUTE: Route = Route::Propose;
    type Asked = Asked;
    type Granted = Proposal;

    fn read(body: Body<'_>) -> Result<Asked, Refusal> {
        json::<Request<'_>>(body.bytes)?.typed()
    }

    fn names<'a>(asked: &'a Asked, _caller: &Uscc) -> Names<'a> {
        let names = Names { reason: &asked.reason, ..Names::default() };
        match &asked.what {
            Proposed::Holder(_, holder) => names.person(holder, HOLDER),
            Proposed::RotateEpoch
            | Proposed::Participant(_)
            | Proposed::Type(_)
            | Proposed::Calendar(_)
            | Proposed::Address(_)
            | Proposed::Policies(_) => names,
        }
    }

    fn decide(case: &mut Case<'_>, caller: &Participant, asked: &Asked) -> Result<Ruling<Proposal>, Refusal> {
        let (mut label, mut registration, mut publication) = (None, None, None);
        let (mut calendar, mut address, mut policies) = (None, None, None);
        match &asked.what {
            Proposed::RotateEpoch => {}
            Proposed::Participant(participant) => {
                if !case.rules().allow(participant) {
                    return Err(Refusal::new(Code::BadParticipant));
                }
                let version = case.registration(&participant.organisation).0.version();
                registration = Some(Registration { participant: participant.clone(), version: version + 1 });
            }
            Proposed::Type(license_type) => {
                let (place, existing) = case.published(&license_type.code);
                if existing.is_some_and(|existing| !license_type.may_follow(&existing)) {
                    return Err(Refusal::new(Code::BadType));
                }
                publication = Some(Publication::new(license_type, place.version() + 1));
            }
            Proposed::Calendar(new) => {
                // A notice of a day to come is an invention.
                let today = clock::day_of(case.now_ms());
                if new.published.parse::<Date>().is_ok_and(|published| published > today) {
                    let fault = Fault::at("/calendar/published", Rule::Order).form("not after today");
                    return Err(Refusal::of(Code::BadCalendar, fault));
                }
                let version = calendar_place(case, new.year).version() + 1;
                calendar = Some(NewCalendar { calendar: new.clone(), version });
            }
            Proposed::Address(new) => {
                let version = address_place(case, new).version() + 1;
                address = Some(NewAddress { address: new.clone(), version });
            }
            Proposed::Policies(text) => {
                checked_policies(text)?;
                policies = Some(NewPolicies::new(text, policies_place(case).version() + 1));
            }
            Proposed::Holder(kind, holder) => {
                let holder =
                    case.holder(holder).ok_or_else(|| Refusal::not_permitted(Reason::NoSuchHolder))?;
                applies(case, *kind, &holder.label)?;
                label = Some(holder.label);
            }
        }
        let proposal = Proposal {
            kind: asked.what.kind(),
            holder: label.map(hex::encode),
            registration,
            publication,
            calendar,
            address,
            policies,
            by: caller.organisation,
            at_ms: case.now_ms(),
            approved_by: None,
            ends_epoch: None,
        };
        Ok(Ruling::plain(proposal, label.into_iter().collect()))
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked,
        permit: Permit<Proposal>,
    ) -> Result<Vec<u8>, Refusal> {
        let key = change.put_new(DocumentKind::Proposal, permit.into_granted().document())?;
        let (proposal, kind) = (hex::encode(key), asked.what.kind());
        Ok(answer(&Answer { proposal, kind, state: "open", complete: None }))
    }
}

impl Request<'_> {
    fn typed(self) -> Result<Asked, Refusal> {
        let mut wrong = Gather::new();
        let kind = self.kind;
        let about_holder =
            matches!(kind, ProposalKind::EraseHolder | ProposalKind::HoldHolder | ProposalKind::ReleaseHold);
        let members = [
            ("/holder", about_holder, self.holder.is_some()),
            ("/participant", kind == ProposalKind::RegisterParticipant, self.participant.is_some()),
            ("/licenseType", kind == ProposalKind::PublishType, self.license_type.is_some()),
            ("/calendar", kind == ProposalKind::PublishCalendar, self.calendar.is_some()),
            ("/address", kind == ProposalKind::AllowAddress, self.address.is_some()),
            ("/policies", kind == ProposalKind::PublishPolicies, self.policies.is_some()),
        ];
        let faults: Vec<Fault> = members
            .into_iter()
            .filter(|(_, wanted, there)| wanted != there)
            .map(|(pointer, wanted, _)| {
                Fault::at(pointer, if wanted { Rule::Required } else { Rule::NotAllowed })
            })
            .collect();
        let what = if faults.is_empty() {
            // The kind's own member is there, and no other.
            self.holder
                .map(|holder| holder.typed().map(|holder| Proposed::Holder(kind, holder)).under("holder"))
                .or(self.participant.map(|new| new.typed().map(Proposed::Participant).under("participant")))
                .or(self.license_type.map(|definition| license_type(&definition).map(Proposed::Type)))
                .or(self.calendar.map(|calendar| checked(calendar).map(Proposed::Calendar)))
                .or(self.address.map(|address| checked_address(address).map(Proposed::Address)))
                .or(self.policies.map(|text| Ok(Proposed::Policies(text))))
                .unwrap_or(Ok(Proposed::RotateEpoch))
        } else {
            Err(Refusal::all(Code::MalformedRequest, faults))
        };
        let what = wrong.take(what);
        let reason = wrong.take(reason(self.reason));
        wrong.all(what.zip(reason).map(|(what, reason)| Asked { what, reason }))
    }
}
