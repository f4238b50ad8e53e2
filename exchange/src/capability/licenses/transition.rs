//! `POST /v1/licenses/transition`: operations 02 to 10 on a license (the table in [`schemas::state`]).
//!
//! The path alone calls it. The new state, and the new version if there is one, come with the entry's frame or not at
//! all.

use ledger::record::LicenseState as Written;
use schemas::codes::{Code, Reason, Rule};
use schemas::identifier::{CertificateIdentifier, Uscc};
use schemas::routes::Route;
use schemas::state::{LicenseState, Operation, TransitionError};
use serde::{Deserialize, Serialize};

use super::draft::{self, Draft, License, check_draft, entitled_type, same_holders};
use super::issue::{First, first, issue_answer, persons, sign_first};
use crate::capability::Capability;
use crate::gateway::case::{Case, Found, Validity};
use crate::gateway::change::{Change, json as answer};
use crate::gateway::names::{About, Names};
use crate::gateway::permit::{Permit, Ruling};
use crate::keyed;
use crate::participant::Participant;
use crate::wire::read::{Body, json};
use crate::wire::refusal::{Fault, Gather, Placed as _, Refusal};
use crate::wire::text::{coded, reason};

/// Last 版本号.
const LAST_VERSION: u16 = 999;

/// The capability.
pub(crate) struct Transition;

/// A change of one license's state.
#[derive(Debug)]
pub(crate) struct Asked {
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Request {
    identifier: String,
    operation: String,
    to: Option<String>,
    reason: String,
    license: Option<License>,
}

/// The effect of a permit.
#[derive(Debug)]
pub(crate) enum Granted {
    /// Sign a license that takes another one over.
    First(First),
    /// Sign a new version.
    Version { identifier: CertificateIdentifier, found: Found },
    /// Change the state.
    State { found: Found, state: LicenseState, by_04: bool },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    identifier: &'a str,
    state: &'a str,
}

impl Capability<'_> for Transition {
    const ROUTE: Route = Route::Transition;
    type Asked = Asked;
    type Granted = Granted;

    fn read(body: Body<'_>) -> Result<Asked, Refusal> {
        json::<Request>(body.bytes)?.typed()
    }

    fn names<'a>(asked: &'a Asked, _caller: &Uscc) -> Names<'a> {
        Names {
            about: About::Licenses(std::slice::from_ref(&asked.identifier)),
            persons: asked.draft.as_ref().map(persons).unwrap_or_default(),
            identifiers: vec![asked.identifier.to_string().into()],
            reason: &asked.reason,
            ..Names::default()
        }
    }

    fn decide(case: &mut Case<'_>, caller: &Participant, asked: &Asked) -> Result<Ruling<Granted>, Refusal> {
        if asked.operation == Operation::MoveIn {
            take_over(case, caller, asked)
        } else {
            operate(case, caller, asked)
        }
    }

    async fn carry_out(
        change: &mut Change<'_>,
        asked: &Asked,
        permit: Permit<Granted>,
    ) -> Result<Vec<u8>, Refusal> {
        let (granted, right) = permit.into_parts();
        let draft = || asked.draft.as_ref().ok_or_else(|| Refusal::new(Code::Internal));
        match granted {
            Granted::First(first) => sign_first(change, right, draft()?, first).await,
            Granted::Version { identifier, found } => {
                let (draft, identifier, version) = (draft()?, identifier.to_string(), identifier.version());
                let envelope = draft::sign(change, right, draft, &identifier).await?;
                let keyed = change.tools().ledger.keyed();
                let number_tag = keyed::number_tag(keyed, &draft.type_code, &draft.certificate_number);
                change.license(&found, |next| Written {
                    state: LicenseState::Valid.number(),
                    certificate_version: version,
                    valid_from_day: draft.valid_from.days(),
                    valid_until_day: draft.valid_until.map_or(i32::MAX, |day| day.days()),
                    written_by_04: false,
                    number_tag,
                    body_part: 0,
                    ..next
                });
                let answer = issue_answer(&identifier, &envelope);
                change.keep_envelope(envelope);
                change.names().identifiers.push(identifier.into());
                Ok(answer)
            }
            Granted::State { found, state, by_04 } => {
                change.license(&found, |next| Written {
                    state: state.number(),
                    written_by_04: by_04,
                    ..next
                });
                Ok(answer(&Answer { identifier: &asked.identifier.to_string(), state: state.code() }))
            }
        }
    }
}

impl Request {
    fn typed(self) -> Result<Asked, Refusal> {
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
            Some(Asked { identifier, operation, to: to?, reason: reason?, draft: draft? })
        };
        wrong.all(typed())
    }
}

/// Operations of a license's own authority.
fn operate(
    case: &mut Case<'_>,
    caller: &Participant,
    transition: &Asked,
) -> Result<Ruling<Granted>, Refusal> {
    let refused = |fault| Refusal::of(Code::TransitionNotAllowed, fault);
    let identifier = &transition.identifier;
    if identifier.issuer().uscc() != Some(caller.organisation) {
        return Err(Refusal::not_permitted(Reason::OtherIssuer));
    }
    let found = case
        .license(keyed::license_key(case.keyed(), identifier))
        .ok_or_else(|| Refusal::not_permitted(Reason::NoSuchLicense))?;
    let concerned = found.license.holders.clone();
    let state = LicenseState::from_number(found.license.state).ok_or_else(|| Refusal::new(Code::Internal))?;
    let moved = transition.operation == Operation::CancelMove && found.license.taken_over;
    if found.license.certificate_version != identifier.version() {
        return Err(refused(Fault::at("/identifier", Rule::NotAllowed).form("the version in force")));
    }
    if moved {
        return Err(refused(
            Fault::at("/operation", Rule::NotAllowed).form("not after the license was taken over"),
        ));
    }
    let ended = case.validity(&found.license) == Validity::Ended;
    let next = schemas::state::transition(
        transition.operation,
        Some(state),
        ended,
        found.license.written_by_04,
        transition.to,
    )
    .map_err(|error| refused(not_in_table(transition.operation, state, ended, &found, error)))?;
    if next.new_version != transition.draft.is_some() {
        let rule = if next.new_version { Rule::Required } else { Rule::NotAllowed };
        return Err(Refusal::of(Code::MalformedRequest, Fault::at("/license", rule)));
    }
    let Some(draft) = &transition.draft else {
        let by_04 = transition.operation == Operation::Expire;
        return Ok(Ruling::plain(Granted::State { found, state: next.state, by_04 }, concerned));
    };
    let license_type = entitled_type(case, caller, &draft.type_code)?;
    check_draft(&license_type, draft)?;
    let same = [
        ("/license/typeCode", draft.type_code == identifier.type_code()),
        ("/license/serial", draft.serial == *identifier.serial()),
        ("/license/holders", same_holders(case, draft, &found)),
    ];
    let other = same.into_iter().filter(|(_, same)| !same);
    let mut faults: Vec<_> = other
        .map(|(pointer, _)| Fault::at(pointer, Rule::NotAllowed).form("as in the version before"))
        .collect();
    if identifier.version() >= LAST_VERSION {
        faults.push(Fault::at("/identifier", Rule::Range).bounds(1, usize::from(LAST_VERSION) - 1));
    }
    if !faults.is_empty() {
        return Err(Refusal::all(Code::TransitionNotAllowed, faults));
    }
    let identifier =
        identifier.with_version(identifier.version() + 1).map_err(|_| Refusal::new(Code::BadIdentifier))?;
    Ok(Ruling::plain(Granted::Version { identifier, found }, concerned))
}

/// The fault of an operation that the table does not have, and those that it has from there.
fn not_in_table(
    operation: Operation,
    state: LicenseState,
    ended: bool,
    found: &Found,
    error: TransitionError,
) -> Fault {
    use TransitionError as E;
    let allowed = || schemas::state::allowed(state, ended, found.license.written_by_04);
    let targets =
        || allowed().filter(|(allowed, _)| *allowed == operation).filter_map(|(_, to)| Some(to?.code()));
    match error {
        E::TargetMissing => Fault::at("/to", Rule::Required).one_of(targets()),
        E::Target { .. } => Fault::at("/to", Rule::OneOf).one_of(targets()),
        E::TargetUnexpected { .. } => Fault::at("/to", Rule::NotAllowed).form("operation 05 only"),
        _ => {
            let mut operations: Vec<_> = allowed().map(|(operation, _)| operation.code()).collect();
            operations.dedup();
            Fault::at("/operation", Rule::OneOf).one_of(operations)
        }
    }
}

/// 08 转入: a new license of the caller takes the place of one that is on its way out elsewhere. The other license is
/// none of the caller's: what depends on it is one `not-permitted`, so that nothing is learned by asking.
fn take_over(
    case: &mut Case<'_>,
    caller: &Participant,
    transition: &Asked,
) -> Result<Ruling<Granted>, Refusal> {
    let identifier = &transition.identifier;
    let missing = || Refusal::of(Code::MalformedRequest, Fault::at("/license", Rule::Required));
    let draft = transition.draft.as_ref().ok_or_else(missing)?;
    let from_other = identifier.issuer().uscc() != Some(caller.organisation);
    let wrong = [
        ("/to", transition.to.is_some(), "operation 05 only"),
        ("/identifier", !from_other, "another authority's license"),
        ("/license/typeCode", draft.type_code != identifier.type_code(), "as in the license taken over"),
    ];
    let wrong = wrong.into_iter().filter(|(_, wrong, _)| *wrong);
    let faults: Vec<_> =
        wrong.map(|(pointer, _, allowed)| Fault::at(pointer, Rule::NotAllowed).form(allowed)).collect();
    if !faults.is_empty() {
        return Err(Refusal::all(Code::TransitionNotAllowed, faults));
    }
    let license_type = entitled_type(case, caller, &draft.type_code)?;
    check_draft(&license_type, draft)?;
    let found = case
        .license(keyed::license_key(case.keyed(), identifier))
        .ok_or_else(|| Refusal::not_permitted(Reason::NoSuchLicense))?;
    let license = &found.license;
    let on_its_way = license.certificate_version == identifier.version()
        && license.state == LicenseState::MovedOut.number()
        && !license.taken_over;
    if !on_its_way || !same_holders(case, draft, &found) {
        return Err(Refusal::not_permitted(Reason::NotMovedOut));
    }
    let (first, concerned) = first(case, caller, draft, Some(found))?;
    Ok(Ruling::plain(Granted::First(first), concerned))
}
