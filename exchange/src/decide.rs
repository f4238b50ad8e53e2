//! Step 5 of the request path: from facts to a [`Permit`] or a [`Refusal`]. Default deny.
//!
//! A `Permit` can only be made here; what discloses or changes anything takes one.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::sync::Arc;

use ledger::{Grant, Holder, Key, Label, Ledger, License};
use schemas::codes::{Code, Reason, Rule};
use schemas::holder::HolderRef;
use schemas::identifier::{CertificateIdentifier, LicenseTypeCode, Uscc};
use schemas::license_type::{LicenseType, NamedHolder, Sensitivity};
use schemas::state::{LicenseState, Operation, TransitionError};
use verifier::license::{LicenseContent, OpenedEnvelope, RootCache};
use verifier::report::Verdict;
use verifier::trust::Trust;

use crate::current::Current;
use crate::facts::{self, Facts, Found, Link, Validity};
use crate::floor::{self, Ask};
use crate::participant::{Participant, Role};
use crate::proposal::{self, Approved, Proposal};
use crate::refusal::{Fault, Refusal};
use crate::request::{
    Action, Draft, GrantCreate, GrantRevoke, GrantSearch, GrantTarget, IssuedList, LinkEnd, LinkKind,
    LinkMake, LogQuery, Mode, Named, Paging, Propose, Proposed, Retrieve, Search, Subject, Trace, Transition,
    UseContext, Verify,
};

/// Failed matches an organisation may make on one license a day.
pub const MISMATCHES_A_DAY: u32 = 5;
/// Last 版本号.
const LAST_VERSION: u16 = 999;
/// Most licenses of one holder that a search opens.
const MAX_SEARCHED: usize = 500;

/// What was decided: the only way to an effect.
#[derive(Debug)]
pub struct Permit<'a> {
    /// What may be done.
    pub(crate) granted: Granted<'a>,
    /// Labels of the holders concerned that the exchange knows already.
    pub(crate) concerned: Vec<Label>,
    /// The request or the answer names the holder, so the receipt shows the labels.
    pub(crate) names_holder: bool,
    /// Grant used, with its limit (0 = none).
    pub(crate) grant: Option<(Key, u32)>,
    /// Daily quota of the caller, and the day it is counted on.
    pub(crate) quota: Option<(u32, u32)>,
}

/// A refusal with the holders it concerns.
#[derive(Debug)]
pub struct Denial {
    /// Code and reason.
    pub refusal: Refusal,
    /// Who it concerns: see [`concerned`].
    pub concerned: Vec<Label>,
}

/// One variant per effect.
#[derive(Debug)]
pub(crate) enum Granted<'a> {
    /// Sign a first version; `predecessor` is taken over (operation 08).
    Issue { draft: &'a Draft, identifier: CertificateIdentifier, key: Key, predecessor: Option<Found> },
    /// Sign a new version of an existing license.
    NewVersion { draft: &'a Draft, identifier: CertificateIdentifier, found: Found },
    /// Change the state.
    State { identifier: &'a CertificateIdentifier, found: Found, state: LicenseState, by_04: bool },
    /// Answer an index query, newest first.
    Search { search: &'a Search<'a>, licenses: Vec<Found>, issuer: Option<Uscc>, complete: bool },
    /// Disclose one license.
    Retrieve { retrieve: &'a Retrieve<'a>, found: Found },
    /// Answer a verification.
    Verify {
        verify: &'a Verify<'a>,
        found: Option<Found>,
        verdict: Verdict,
        reasons: Vec<&'static str>,
        state: Option<LicenseState>,
        /// The version asked for is the one in force, so its fields may be compared.
        current: bool,
        /// Content of the envelope presented.
        content: Option<LicenseContent>,
        /// The type's definition, where values are expected: it says how they are compared.
        license_type: Option<Arc<LicenseType>>,
        /// Key and day of the counter of failed matches, where fields of a license looked up by name are to match.
        mismatches: Option<(Key, u32)>,
    },
    /// Make a grant.
    GrantCreate { create: &'a GrantCreate, holder: Label, target: Key, fields: u64 },
    /// End a grant.
    GrantRevoke { revoke: &'a GrantRevoke, grant: Grant },
    /// Write a participant.
    Participant { participant: Participant, version: u32 },
    /// Write a proposal.
    Propose { propose: &'a Propose, proposal: Proposal },
    /// Carry a proposal out.
    Approve(Approved),
    /// Show a holder's trace, to an agent by a link.
    Trace { trace: &'a Trace<'a>, link: Option<LinkKind>, delay_days_max: u16 },
    /// Answer an auditor; with the label of the holder asked for, `None` for one that the log does not know.
    LogQuery { query: &'a LogQuery, holder: Option<Option<Label>> },
    /// Make a link; an agent whom the log does not know gets a label by it.
    LinkMake { key: Key, version: u32, make: &'a LinkMake, holder: Label },
    /// End a link.
    LinkEnd { key: Key, version: u32, link: Link },
    /// Show a page of a list.
    List { list: List, paging: Paging },
}

/// A list, of what the caller may see.
#[derive(Clone, Copy, Debug)]
pub(crate) enum List {
    /// The register, or one registration.
    Participants { only: Option<Uscc> },
    /// What was proposed.
    Proposals,
    /// A holder's grants; none of a holder whom the log does not know.
    GrantsOf { holder: Option<Label> },
    /// The live grants that an organisation may use.
    GrantsTo { grantee: Uscc },
    /// An issuing authority's licenses, of one type or in one state.
    Issued { issuer: Uscc, type_code: Option<LicenseTypeCode>, state: Option<LicenseState> },
}

impl Granted<'_> {
    /// Whether there is a license that the caller was told of.
    fn has_license(&self) -> bool {
        match self {
            Self::Verify { found, .. } => found.is_some(),
            // What an issuing authority finds of its own is filtered by issuer only when it is opened.
            Self::Search { .. } => false,
            _ => true,
        }
    }
}

/// What deciding needs beside the facts.
pub struct Context<'a> {
    /// The ledger, for keyed hashes and counters.
    pub ledger: &'a Ledger,
    /// The trust bundle in force, for envelopes.
    pub trust: &'a Current<Trust>,
    /// How long a holder is kept after the last license ended, ms.
    pub retention_ms: u64,
}

thread_local! {
    /// Signatures already checked; one cache a worker, so that nobody waits for another's verification.
    static ROOTS: RefCell<RootCache> = RefCell::new(RootCache::new());
}

/// Decides one request of an identified, active caller.
pub fn decide<'a>(
    context: &Context<'_>,
    facts: &mut Facts<'_>,
    caller: &Participant,
    action: &'a Action<'a>,
) -> Result<Permit<'a>, Refusal> {
    match action {
        Action::Issue(draft) => issue(context, facts, caller, draft, None),
        Action::Transition(transition) => decide_transition(context, facts, caller, transition),
        Action::Search(search) => decide_search(context, facts, caller, search),
        Action::Retrieve(retrieve) => decide_retrieve(context, facts, caller, retrieve),
        Action::Verify(verify) => decide_verify(context, facts, caller, verify),
        Action::GrantCreate(create) => decide_grant(context, facts, caller, create),
        Action::GrantRevoke(revoke) => decide_revoke(facts, caller, revoke),
        Action::ParticipantAdd(participant) => {
            let (version, _) = registered(facts, caller, &participant.organisation)?;
            if version != 0 {
                return Err(Refusal::new(Code::ParticipantConflict));
            }
            by_one_operator(&[participant])?;
            Ok(plain(Granted::Participant { participant: participant.clone(), version: 1 }, Vec::new()))
        }
        Action::ParticipantChange(participant) => {
            let (version, existing) = registered(facts, caller, &participant.organisation)?;
            let existing = existing.ok_or_else(|| Refusal::new(Code::ParticipantConflict))?;
            by_one_operator(&[&*existing, participant])?;
            // A change never lifts a suspension by the way.
            let participant = Participant { suspended: existing.suspended, ..participant.clone() };
            Ok(plain(Granted::Participant { participant, version: version + 1 }, Vec::new()))
        }
        Action::ParticipantSuspend(suspend) => {
            let (version, existing) = registered(facts, caller, &suspend.organisation)?;
            let existing = existing.ok_or_else(|| Refusal::new(Code::ParticipantConflict))?;
            if !suspend.suspended {
                by_one_operator(&[&*existing])?;
            }
            let participant = Participant { suspended: suspend.suspended, ..(*existing).clone() };
            Ok(plain(Granted::Participant { participant, version: version + 1 }, Vec::new()))
        }
        Action::Propose(propose) => proposal::propose(context, facts, caller, propose),
        Action::Approve(approve) => proposal::approve(context, facts, caller, approve),
        Action::Trace(trace) => decide_trace(context, facts, caller, trace),
        Action::ParticipantList(paging) => {
            let all = caller.has(Role::Operator) || caller.has(Role::Auditor);
            let only = (!all).then_some(caller.organisation);
            Ok(plain(Granted::List { list: List::Participants { only }, paging: *paging }, Vec::new()))
        }
        Action::ProposalList(paging) => {
            need(caller, Role::Operator)?;
            Ok(plain(Granted::List { list: List::Proposals, paging: *paging }, Vec::new()))
        }
        Action::GrantSearch(GrantSearch { holder: Some(holder), paging }) => {
            // As a search: the portal vouches for the holder, whom the log may not know.
            need(caller, Role::Portal)?;
            let holder = facts.holder(holder).map(|holder| holder.label);
            let concerned = holder.into_iter().collect();
            Ok(plain(Granted::List { list: List::GrantsOf { holder }, paging: *paging }, concerned))
        }
        Action::GrantSearch(GrantSearch { holder: None, paging }) => {
            need(caller, Role::Relying).or_else(|_| need(caller, Role::Peer))?;
            let grantee = caller.organisation;
            // The holders whose grants a page shows learn nothing of each other, not even a label.
            let permit =
                plain(Granted::List { list: List::GrantsTo { grantee }, paging: *paging }, Vec::new());
            Ok(Permit { names_holder: false, ..permit })
        }
        Action::IssuedList(IssuedList { type_code, state, paging }) => {
            need(caller, Role::Issuer)?;
            // The page says nothing of holders, so it concerns none.
            let list = List::Issued { issuer: caller.organisation, type_code: *type_code, state: *state };
            Ok(plain(Granted::List { list, paging: *paging }, Vec::new()))
        }
        Action::LogQuery(query) => {
            need(caller, Role::Auditor)?;
            let holder = query.holder.as_ref().map(|holder| facts.holder(holder).map(|holder| holder.label));
            // The holders whose records a page shows learn nothing of each other, not even a label.
            let permit = plain(Granted::LogQuery { query, holder }, Vec::new());
            Ok(Permit { names_holder: false, ..permit })
        }
        Action::LinkMake(make) => {
            need(caller, Role::Portal)?;
            if make.until_ms <= facts.now_ms {
                return Err(Refusal::of(Code::BadLink, to_come("/until")));
            }
            let Linked { key, version, holder, concerned, .. } =
                linked(context, facts, caller, &make.holder, &make.agent)?;
            Ok(plain(Granted::LinkMake { key, version: version + 1, make, holder }, concerned))
        }
        Action::LinkEnd(end) => {
            need(caller, Role::Portal)?;
            let Linked { key, version, link, concerned, .. } =
                linked(context, facts, caller, &end.holder, &end.agent)?;
            let link = link.ok_or_else(|| Refusal::new(Code::BadLink))?;
            let link = Link { ended: true, ..link };
            Ok(plain(Granted::LinkEnd { key, version: version + 1, link }, concerned))
        }
    }
}

/// Whom a denial concerns: the real holders of the license asked about if it is known, else the holders named, as far
/// as the log knows them. So it is for every refusal of a request that can be read, whoever sent it: an attempt that
/// fails at a role or a suspension stands in the holder's trace like any other.
pub fn concerned(
    context: &Context<'_>,
    facts: &mut Facts<'_>,
    caller: &Uscc,
    action: &Action<'_>,
) -> Vec<Label> {
    let found = match action {
        Action::Issue(draft) => CertificateIdentifier::new(draft.type_code, *caller, draft.serial.clone(), 1)
            .ok()
            .and_then(|identifier| facts.license(facts::license_key(context.ledger, &identifier))),
        Action::Transition(transition) => {
            facts.license(facts::license_key(context.ledger, &transition.identifier))
        }
        Action::Retrieve(Retrieve { license: named, .. })
        | Action::Verify(Verify { subject: Subject::Named(named), .. }) => facts.named(named),
        Action::Verify(Verify { subject: Subject::Envelope(envelope), .. }) => OpenedEnvelope::open(envelope)
            .ok()
            .and_then(|opened| verifier::license::read_body(opened.body()).ok())
            .and_then(|content| facts.license(facts::license_key(context.ledger, &content.identifier))),
        Action::GrantCreate(GrantCreate { target: GrantTarget::License(identifier), .. }) => {
            facts.license(facts::license_key(context.ledger, identifier))
        }
        Action::GrantRevoke(revoke) => {
            if let Some(grant) = facts.grant(&revoke.grant) {
                return vec![grant.holder];
            }
            None
        }
        _ => None,
    };
    if let Some(found) = found {
        return found.license.holders;
    }
    let named: Vec<&HolderRef> = match action {
        Action::Issue(draft) => draft.holders.iter().map(|(_, holder)| holder).collect(),
        Action::Transition(transition) => {
            transition.draft.iter().flat_map(|draft| &draft.holders).map(|(_, holder)| holder).collect()
        }
        Action::Retrieve(Retrieve { license: Named::Number { holder, .. }, .. })
        | Action::Verify(Verify { subject: Subject::Named(Named::Number { holder, .. }), .. })
        | Action::Search(Search { holder, .. })
        | Action::GrantCreate(GrantCreate { holder, .. })
        | Action::GrantRevoke(GrantRevoke { holder, .. })
        | Action::Trace(Trace { holder, .. })
        | Action::LinkMake(LinkMake { holder, .. })
        | Action::LinkEnd(LinkEnd { holder, .. }) => vec![holder],
        Action::Retrieve(Retrieve { holder, .. }) | Action::Verify(Verify { holder, .. }) => {
            holder.iter().collect()
        }
        Action::LogQuery(query) => query.holder.iter().collect(),
        Action::GrantSearch(search) => search.holder.iter().collect(),
        Action::Propose(Propose { what: Proposed::Holder(_, holder), .. }) => vec![holder],
        Action::Approve(approve) => {
            let (_, proposal) = facts.proposal(&approve.proposal);
            return proposal.and_then(|proposal| proposal.label()).into_iter().collect();
        }
        Action::Propose(_) | Action::ParticipantList(_) | Action::ProposalList(_) | Action::IssuedList(_) => {
            Vec::new()
        }
        Action::ParticipantAdd(_) | Action::ParticipantChange(_) | Action::ParticipantSuspend(_) => {
            Vec::new()
        }
    };
    named.into_iter().filter_map(|holder| facts.holder(holder)).map(|holder| holder.label).collect()
}

/// Fills up whom a denial concerns with holders that are nobody, as far as there may be real ones: whether a license or a
/// holder exists is told by no work that is done or left out for them, from here to the journal.
pub fn level(
    context: &Context<'_>,
    facts: &mut Facts<'_>,
    action: &Action<'_>,
    concerned: &mut Vec<Label>,
    nobodies: &[Label],
) {
    let named_type = |named: &Named<'_>| match named {
        Named::Identifier { identifier, .. } => identifier.type_code(),
        Named::Number { type_code, .. } => *type_code,
    };
    let (license_type, holders) = match action {
        Action::Issue(draft) => (None, draft.holders.len()),
        Action::Transition(transition) => (Some(transition.identifier.type_code()), 1),
        Action::Retrieve(Retrieve { license: named, .. })
        | Action::Verify(Verify { subject: Subject::Named(named), .. }) => (Some(named_type(named)), 1),
        Action::GrantCreate(GrantCreate { target: GrantTarget::License(identifier), .. }) => {
            (Some(identifier.type_code()), 1)
        }
        Action::LogQuery(query) => (None, usize::from(query.holder.is_some())),
        Action::GrantSearch(search) => (None, usize::from(search.holder.is_some())),
        Action::ParticipantList(_) | Action::ProposalList(_) | Action::IssuedList(_) => (None, 0),
        Action::ParticipantAdd(_)
        | Action::ParticipantChange(_)
        | Action::ParticipantSuspend(_)
        | Action::Propose(Propose {
            what: Proposed::RotateEpoch | Proposed::Participant(_) | Proposed::Type(_),
            ..
        })
        | Action::Approve(_) => (None, 0),
        Action::Verify(Verify { subject: Subject::Envelope(_), .. })
        | Action::Search(_)
        | Action::GrantCreate(_)
        | Action::GrantRevoke(_)
        | Action::Trace(_)
        | Action::LinkMake(_)
        | Action::LinkEnd(_)
        | Action::Propose(_) => (None, 1),
    };
    if let Action::Retrieve(Retrieve { license: named, .. })
    | Action::Verify(Verify { subject: Subject::Named(named), .. }) = action
        && let Some(nobody) = nobodies.first()
    {
        facts.level(named, nobody);
    }
    let license_type = license_type.and_then(|code| facts.license_type(&code));
    let most = license_type.map_or(0, |license_type| license_type.max_holders).max(holders);
    // The erased are concerned by nothing any more.
    let state = context.ledger.state();
    concerned.retain(|label| state.holder_by_label(label).is_some_and(|holder| !holder.erased));
    let missing = most.saturating_sub(concerned.len());
    concerned.extend(nobodies.iter().take(missing));
}

/// A portal's link between two persons.
struct Linked {
    key: Key,
    version: u32,
    holder: Label,
    /// As it holds between the two as they are now.
    link: Option<Link>,
    /// The holder, and the agent as far as the log knows one.
    concerned: Vec<Label>,
}

fn linked(
    context: &Context<'_>,
    facts: &mut Facts<'_>,
    caller: &Participant,
    holder: &HolderRef,
    agent: &HolderRef,
) -> Result<Linked, Refusal> {
    let known = facts.holder(holder).ok_or_else(|| Refusal::not_permitted(Reason::NoSuchHolder))?;
    let acting = facts.holder(agent);
    let mut concerned = vec![known.label];
    concerned.extend(acting.iter().map(|agent| agent.label));
    let key = facts::link_key(context.ledger, &caller.organisation, holder, agent);
    let (version, link) = facts.link(&key);
    let link = link.filter(|link| acting.is_some_and(|agent| link.holds(&known.label, &agent.label)));
    Ok(Linked { key, version, holder: known.label, link, concerned })
}

/// The portal vouches for the holder it names, so a holder that the log does not know has an empty trace; the portal
/// learns no more than a search tells it. For an agent it has to hold a link, which exists between known persons only.
fn decide_trace<'a>(
    context: &Context<'_>,
    facts: &mut Facts<'_>,
    caller: &Participant,
    trace: &'a Trace<'a>,
) -> Result<Permit<'a>, Refusal> {
    need(caller, Role::Portal)?;
    let holder = facts.holder(&trace.holder);
    let link = match &trace.agent {
        None => None,
        Some(agent) => {
            let key = facts::link_key(context.ledger, &caller.organisation, &trace.holder, agent);
            let (_, link) = facts.link(&key);
            let agent = facts.holder(agent);
            let live = holder.as_ref().zip(agent).zip(link).filter(|((holder, agent), link)| {
                link.holds(&holder.label, &agent.label) && facts.now_ms <= link.until_ms
            });
            let (_, link) = live.ok_or_else(|| Refusal::not_permitted(Reason::NoLink))?;
            Some(link.kind)
        }
    };
    let concerned = holder.iter().map(|holder| holder.label).collect();
    let delay_days_max = facts.rules().delay_days_max;
    Ok(plain(Granted::Trace { trace, link, delay_days_max }, concerned))
}

/// A permit without counters. The holders it concerns are known by their labels; whether the receipt shows the labels
/// is for the uses to say.
pub(crate) fn plain(granted: Granted<'_>, concerned: Vec<Label>) -> Permit<'_> {
    Permit { granted, concerned, names_holder: true, grant: None, quota: None }
}

pub(crate) fn need(caller: &Participant, role: Role) -> Result<(), Refusal> {
    if caller.has(role) { Ok(()) } else { Err(Refusal::new(Code::WrongRole)) }
}

// --- issuing authorities ---

fn issue<'a>(
    context: &Context<'_>,
    facts: &mut Facts<'_>,
    caller: &Participant,
    draft: &'a Draft,
    predecessor: Option<Found>,
) -> Result<Permit<'a>, Refusal> {
    need(caller, Role::Issuer)?;
    let license_type = entitled_type(facts, caller, &draft.type_code)?;
    check_draft(&license_type, draft)?;
    let identifier =
        CertificateIdentifier::new(draft.type_code, caller.organisation, draft.serial.clone(), 1)
            .map_err(|_| Refusal::new(Code::BadIdentifier))?;
    let key = facts::license_key(context.ledger, &identifier);
    if let Some(found) = facts.license(key) {
        // The caller's own license: its type, issuer and serial are the ones that were sent.
        let version = found.license.certificate_version;
        let existing =
            CertificateIdentifier::new(draft.type_code, caller.organisation, draft.serial.clone(), version)
                .map_err(|_| Refusal::new(Code::Internal))?;
        return Err(Refusal::new(Code::IdentifierExists).of_license(&existing));
    }
    // Holders are facts: a holder that appears meanwhile has a label and a key of its own.
    let concerned =
        draft.holders.iter().filter_map(|(_, holder)| facts.holder(holder)).map(|h| h.label).collect();
    Ok(plain(Granted::Issue { draft, identifier, key, predecessor }, concerned))
}

fn entitled_type(
    facts: &mut Facts<'_>,
    caller: &Participant,
    code: &LicenseTypeCode,
) -> Result<Arc<LicenseType>, Refusal> {
    let license_type = facts.license_type(code).ok_or_else(|| unknown_type("/license/typeCode"))?;
    if caller.issues.contains(code) { Ok(license_type) } else { Err(Refusal::new(Code::WrongRole)) }
}

fn unknown_type(pointer: &str) -> Refusal {
    Refusal::of(Code::UnknownType, Fault::at(pointer, Rule::Unknown))
}

/// A moment that has to lie ahead.
fn to_come(pointer: &str) -> Fault {
    Fault::at(pointer, Rule::Order).form("a moment to come")
}

fn check_draft(license_type: &LicenseType, draft: &Draft) -> Result<(), Refusal> {
    let holders: Vec<NamedHolder<'_>> =
        draft.holders.iter().map(|(name, holder)| NamedHolder { name, holder }).collect();
    license_type.check(&holders, &draft.fields, draft.valid_until, draft.valid_from).map_err(|errors| {
        let faults = errors.into_iter().map(|error| Fault::field(license_type, &draft.fields, error));
        Refusal::all(Code::BadFields, faults.collect()).under("license")
    })
}

fn decide_transition<'a>(
    context: &Context<'_>,
    facts: &mut Facts<'_>,
    caller: &Participant,
    transition: &'a Transition,
) -> Result<Permit<'a>, Refusal> {
    need(caller, Role::Issuer)?;
    if transition.operation == Operation::MoveIn {
        return take_over(context, facts, caller, transition);
    }
    let refused = |fault| Refusal::of(Code::TransitionNotAllowed, fault);
    let identifier = &transition.identifier;
    if identifier.issuer().uscc() != Some(caller.organisation) {
        return Err(Refusal::not_permitted(Reason::OtherIssuer));
    }
    let found = facts
        .license(facts::license_key(context.ledger, identifier))
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
    let ended = facts.validity(&found.license) == Validity::Ended;
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
        return Ok(plain(Granted::State { identifier, found, state: next.state, by_04 }, concerned));
    };
    let license_type = entitled_type(facts, caller, &draft.type_code)?;
    check_draft(&license_type, draft)?;
    let same = [
        ("/license/typeCode", draft.type_code == identifier.type_code()),
        ("/license/serial", draft.serial == *identifier.serial()),
        ("/license/holders", same_holders(facts, draft, &found)),
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
    Ok(plain(Granted::NewVersion { draft, identifier, found }, concerned))
}

/// What the table does not have, and what it has from there.
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
fn take_over<'a>(
    context: &Context<'_>,
    facts: &mut Facts<'_>,
    caller: &Participant,
    transition: &'a Transition,
) -> Result<Permit<'a>, Refusal> {
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
    let license_type = entitled_type(facts, caller, &draft.type_code)?;
    check_draft(&license_type, draft)?;
    let found = facts
        .license(facts::license_key(context.ledger, identifier))
        .ok_or_else(|| Refusal::not_permitted(Reason::NoSuchLicense))?;
    let license = &found.license;
    let on_its_way = license.certificate_version == identifier.version()
        && license.state == LicenseState::MovedOut.number()
        && !license.taken_over;
    if !on_its_way || !same_holders(facts, draft, &found) {
        return Err(Refusal::not_permitted(Reason::NotMovedOut));
    }
    issue(context, facts, caller, draft, Some(found))
}

/// A new version, and a license that takes another over, stay with the same holders.
fn same_holders(facts: &mut Facts<'_>, draft: &Draft, found: &Found) -> bool {
    draft.holders.len() == found.license.holders.len()
        && draft.holders.iter().all(|(_, holder)| {
            facts.holder(holder).is_some_and(|known| found.license.holders.contains(&known.label))
        })
}

// --- uses ---

/// By what right a use is permitted.
enum Right {
    /// No more than any relying party has.
    Open,
    /// The holder, through the portal.
    Holder,
    /// The license's own issuing authority.
    Issuer,
    /// A grant, by its key, with its limit of uses and its modes.
    Grant { key: Key, limit: u32, modes: u8 },
}

/// What a use is about, for [`right`].
struct Use<'a> {
    caller: &'a Participant,
    found: Option<&'a Found>,
    holders: &'a [Label],
    license_type: Key,
    issuer: Option<Uscc>,
    mode: Mode,
    fields: u64,
    vouched: Option<&'a Holder>,
    grant: Option<[u8; 16]>,
    context: &'a UseContext<'a>,
}

/// Finds the right that permits a use, or why there is none. The same facts are read whatever the answer is.
fn right(context: &Context<'_>, facts: &mut Facts<'_>, ask: &Use<'_>) -> Result<Right, Reason> {
    #[cfg(feature = "bench-ablation")]
    if crate::ablation::is_without(crate::ablation::Without::Floor) {
        return Ok(Right::Open);
    }
    let grant = ask.grant.map(|id| facts.grant(&id));
    let no_license = if ask.found.is_none() { Reason::NoSuchLicense } else { Reason::NoGrant };
    let organisation = &ask.caller.organisation;
    if let Some(grant) = grant {
        let for_one_item = grant.as_ref().is_some_and(|grant| grant.item_tag != 0);
        let item_tag = if for_one_item { facts::item_tag(context.ledger, &ask.context.item_code) } else { 0 };
        let vouched = grant.as_ref().is_some_and(|grant| facts.portal_vouches(grant));
        let question = Ask {
            organisation: organisation.as_str(),
            license: ask.found.map(|found| &found.key),
            license_type: &ask.license_type,
            holders: ask.holders,
            mode: ask.mode,
            fields: ask.fields,
            item_tag,
            vouched,
            now_ms: facts.now_ms,
        };
        let covered = floor::covers(grant.as_ref(), &question);
        let (key, limit, modes) =
            grant.as_ref().map_or(([0; 16], 0, 0), |grant| (grant.key, grant.max_uses, grant.modes));
        if !ask.caller.has(Role::Relying) && !ask.caller.has(Role::Peer) {
            return Err(Reason::OtherGrantee);
        }
        return covered.map(|()| Right::Grant { key, limit, modes }).map_err(|reason| {
            if ask.holders.is_empty() && reason == Reason::OtherHolder { no_license } else { reason }
        });
    }
    if ask.caller.has(Role::Portal)
        && let Some(vouched) = ask.vouched
    {
        return match ask.found {
            Some(_) if ask.holders.contains(&vouched.label) => Ok(Right::Holder),
            Some(_) => Err(Reason::OtherHolder),
            None => Err(Reason::NoSuchLicense),
        };
    }
    if ask.caller.has(Role::Issuer) && ask.found.is_some() && ask.issuer == Some(*organisation) {
        return Ok(Right::Issuer);
    }
    Err(no_license)
}

/// Counts a use, and shows labels only to whom a right, or the license itself, has told who the holder is.
fn used<'a>(permit: Permit<'a>, right: Right, caller: &Participant, facts: &mut Facts<'_>) -> Permit<'a> {
    let names_holder = match right {
        Right::Holder | Right::Grant { .. } => permit.names_holder,
        Right::Issuer | Right::Open => permit.names_holder && permit.granted.has_license(),
    };
    let grant = match right {
        Right::Grant { key, limit, .. } => Some((key, limit)),
        Right::Open | Right::Holder | Right::Issuer => None,
    };
    let quota = caller.daily_quota.map(|limit| (limit, facts.today()));
    Permit { grant, quota, names_holder, ..permit }
}

fn decide_search<'a>(
    context: &Context<'_>,
    facts: &mut Facts<'_>,
    caller: &Participant,
    search: &'a Search<'a>,
) -> Result<Permit<'a>, Refusal> {
    let holder = facts.holder(&search.holder);
    let concerned: Vec<Label> = holder.iter().map(|holder| holder.label).collect();
    let denied = Refusal::not_permitted;
    let mut issuer = None;
    let right = if let Some(id) = search.grant {
        let Some(code) = &search.type_code else { return Err(denied(Reason::GrantOtherTarget)) };
        let ask = Use {
            caller,
            found: None,
            holders: &concerned,
            license_type: facts::type_key(context.ledger, code),
            issuer: None,
            mode: Mode::Search,
            fields: 0,
            vouched: None,
            grant: Some(id),
            context: &search.context,
        };
        right(context, facts, &ask).map_err(denied)?
    } else if caller.has(Role::Portal) {
        Right::Holder
    } else if caller.has(Role::Issuer) {
        issuer = Some(caller.organisation);
        Right::Issuer
    } else {
        return Err(denied(Reason::NoGrant));
    };
    let keys = concerned.first().map(|label| facts.licenses_of(label)).unwrap_or_default();
    let mut licenses: Vec<(Key, License)> =
        keys.into_iter().filter_map(|key| Some((key, context.ledger.state().license(&key)?))).collect();
    // Newest first, as the journal orders them; each license looked at is a fact of the answer.
    licenses.sort_unstable_by_key(|(_, license)| Reverse(license.body));
    let complete = licenses.len() <= MAX_SEARCHED;
    let licenses: Vec<Found> =
        licenses.into_iter().take(MAX_SEARCHED).filter_map(|(key, _)| facts.license(key)).collect();
    for found in &licenses {
        // The answer says whether each is in force.
        facts.validity(&found.license);
    }
    let granted = Granted::Search { search, licenses, issuer, complete };
    Ok(used(plain(granted, concerned), right, caller, facts))
}

fn decide_retrieve<'a>(
    context: &Context<'_>,
    facts: &mut Facts<'_>,
    caller: &Participant,
    retrieve: &'a Retrieve<'a>,
) -> Result<Permit<'a>, Refusal> {
    let named = resolve(facts, caller, &retrieve.license, retrieve.holder.as_ref());
    let denied = Refusal::not_permitted;
    let (type_key, license_type) = facts.keyed_type(&named.type_code);
    let fields = match retrieve.mode {
        Mode::Fields => {
            floor::field_mask(license_type.as_deref(), retrieve.fields.iter().map(String::as_str))
                .ok_or_else(|| denied(Reason::GrantOtherFields))?
        }
        _ => 0,
    };
    let right = right(
        context,
        facts,
        &named.ask(type_key, caller, retrieve.mode, fields, retrieve.grant, &retrieve.context),
    )
    .map_err(denied)?;
    let Some(found) = named.found else { return Err(denied(Reason::NoSuchLicense)) };
    if named.version.is_some_and(|version| version != found.license.certificate_version) {
        return Err(denied(Reason::NoSuchLicense));
    }
    let ended = facts.validity(&found.license) == Validity::Ended
        || found.license.state != LicenseState::Valid.number();
    if ended && retrieve.mode == Mode::Envelope {
        // The bytes say nothing of it themselves. Only who has the right to them learns why they are not given.
        let granted = match right {
            Right::Grant { modes, .. } => modes & Mode::Ended.bit() != 0,
            Right::Open | Right::Holder | Right::Issuer => true,
        };
        if !granted || !retrieve.include_ended {
            return Err(Refusal::new(Code::LicenseEnded));
        }
    }
    let concerned = found.license.holders.clone();
    Ok(used(plain(Granted::Retrieve { retrieve, found }, concerned), right, caller, facts))
}

/// A named license, resolved.
struct Resolved {
    found: Option<Found>,
    type_code: LicenseTypeCode,
    issuer: Option<Uscc>,
    version: Option<u16>,
    holder: Option<Holder>,
    vouched: Option<Holder>,
}

fn resolve(
    facts: &mut Facts<'_>,
    caller: &Participant,
    named: &Named<'_>,
    vouched: Option<&HolderRef>,
) -> Resolved {
    let found = facts.named(named);
    // Only a portal vouches for anybody; what others say of a holder is not looked up.
    let vouched = vouched.filter(|_| caller.has(Role::Portal)).and_then(|holder| facts.holder(holder));
    match named {
        Named::Identifier { identifier, .. } => Resolved {
            found,
            type_code: identifier.type_code(),
            issuer: identifier.issuer().uscc(),
            version: Some(identifier.version()),
            holder: None,
            vouched,
        },
        Named::Number { type_code, holder, .. } => {
            let holder = facts.holder(holder);
            Resolved { found, type_code: *type_code, issuer: None, version: None, holder, vouched }
        }
    }
}

impl Resolved {
    /// The license's real holders if known, else the holder named.
    fn concerned(&self) -> Vec<Label> {
        match (&self.found, &self.holder, &self.vouched) {
            (Some(found), _, _) => found.license.holders.clone(),
            (None, Some(holder), _) | (None, None, Some(holder)) => vec![holder.label],
            (None, None, None) => Vec::new(),
        }
    }

    fn ask<'a>(
        &'a self,
        license_type: Key,
        caller: &'a Participant,
        mode: Mode,
        fields: u64,
        grant: Option<[u8; 16]>,
        use_context: &'a UseContext<'a>,
    ) -> Use<'a> {
        let holders = match (&self.found, &self.holder) {
            (Some(found), _) => found.license.holders.as_slice(),
            (None, Some(holder)) => std::slice::from_ref(&holder.label),
            (None, None) => &[],
        };
        Use {
            caller,
            found: self.found.as_ref(),
            holders,
            license_type,
            issuer: self.issuer,
            mode,
            fields,
            vouched: self.vouched.as_ref(),
            grant,
            context: use_context,
        }
    }
}

fn decide_verify<'a>(
    context: &Context<'_>,
    facts: &mut Facts<'_>,
    caller: &Participant,
    verify: &'a Verify<'a>,
) -> Result<Permit<'a>, Refusal> {
    let may_verify =
        [Role::Relying, Role::Portal, Role::Issuer, Role::Peer].iter().any(|role| caller.has(*role));
    if !may_verify {
        return Err(Refusal::new(Code::WrongRole));
    }
    match &verify.subject {
        Subject::Envelope(envelope) => Ok(verify_envelope(context, facts, caller, verify, envelope)),
        Subject::Named(named) => verify_named(context, facts, caller, verify, named),
    }
}

fn verify_named<'a>(
    context: &Context<'_>,
    facts: &mut Facts<'_>,
    caller: &Participant,
    verify: &'a Verify<'a>,
    named: &Named<'_>,
) -> Result<Permit<'a>, Refusal> {
    let resolved = resolve(facts, caller, named, verify.holder.as_ref());
    let (type_key, license_type) = facts.keyed_type(&resolved.type_code);
    // A type for both kinds of holder, and an unknown one, count as natural.
    let natural = license_type.as_ref().is_none_or(|license_type| license_type.is_natural_person());
    let names = verify.expect.iter().map(|(name, _)| name.as_str());
    let mask = floor::field_mask(license_type.as_deref(), names.clone());
    let needs_right =
        natural || verify.grant.is_some() || mask.is_none_or(|mask| !all_open(license_type.as_deref(), mask));
    let asked = right(
        context,
        facts,
        &resolved.ask(type_key, caller, Mode::Verify, mask.unwrap_or(0), verify.grant, &verify.context),
    );
    let right = match asked {
        Ok(right) if mask.is_some() => right,
        Ok(_) => return Err(Refusal::not_permitted(Reason::GrantOtherFields)),
        Err(reason) if needs_right => return Err(Refusal::not_permitted(reason)),
        Err(_) => Right::Open,
    };
    let expected = resolved.found.as_ref().filter(|_| !verify.expect.is_empty());
    let mismatches = expected.map(|found| (mismatch_key(context.ledger, caller, &found.key), facts.today()));
    if mismatches.is_some_and(|(key, day)| context.ledger.state().counter(&key, day) >= MISMATCHES_A_DAY) {
        return Err(Refusal::new(Code::TooManyMismatches));
    }
    let concerned = resolved.concerned();
    let names_holder =
        matches!(named, Named::Number { .. }) || resolved.vouched.is_some() || !verify.expect.is_empty();
    let (verdict, reasons, state) = standing(facts, resolved.found.as_ref(), resolved.version);
    let granted = Granted::Verify {
        verify,
        found: resolved.found,
        verdict,
        reasons,
        // Without a state the version asked for is not the one in force, and nothing is said of another.
        current: state.is_some(),
        state,
        content: None,
        license_type: license_type.filter(|_| !verify.expect.is_empty()),
        mismatches,
    };
    let permit = Permit { names_holder, ..plain(granted, concerned) };
    Ok(used(permit, right, caller, facts))
}

/// Fields that any relying party may check on a license of a legal person: the type says they are open.
fn all_open(license_type: Option<&LicenseType>, mask: u64) -> bool {
    let open = license_type.map_or(0, |license_type| {
        license_type.fields.iter().zip(0u32..).fold(0, |open, (field, index)| {
            if field.sensitivity == Sensitivity::Open { open | 1 << index } else { open }
        })
    });
    mask & !open == 0
}

/// Which license a permit discloses, and whether it is in force. Nothing for what is no disclosure.
pub(crate) fn disclosed(facts: &mut Facts<'_>, permit: &Permit<'_>) -> Option<(License, bool)> {
    let Granted::Retrieve { found, .. } = &permit.granted else { return None };
    Some((found.license.clone(), facts.in_force(&found.license)))
}

/// Key of the counter of failed matches: organisation and license.
fn mismatch_key(ledger: &Ledger, caller: &Participant, license: &Key) -> Key {
    ledger.keyed().key("match", &[caller.organisation.as_bytes(), license])
}

/// What the register says of a license: verdict, reasons, state.
fn standing(
    facts: &mut Facts<'_>,
    found: Option<&Found>,
    version: Option<u16>,
) -> (Verdict, Vec<&'static str>, Option<LicenseState>) {
    let Some(found) = found else { return (Verdict::Invalid, vec!["not-found"], None) };
    let license = &found.license;
    let Some(state) = LicenseState::from_number(license.state) else {
        return (Verdict::Unknown, vec!["state-unknown"], None);
    };
    match version {
        // An old version never names the new one, nor its state.
        Some(version) if version < license.certificate_version => {
            (Verdict::Invalid, vec!["superseded"], None)
        }
        Some(version) if version > license.certificate_version => (Verdict::Invalid, vec!["not-found"], None),
        _ => {
            let mut reasons = Vec::new();
            match state {
                LicenseState::Valid => {}
                LicenseState::Suspended => reasons.push("suspended"),
                LicenseState::Withdrawn => reasons.push("withdrawn"),
                LicenseState::Cancelled => reasons.push("cancelled"),
                LicenseState::Lapsed => reasons.push("expired"),
                LicenseState::MovedOut => reasons.push("transferred-out"),
                LicenseState::Revoked => reasons.push("revoked"),
                LicenseState::Other => reasons.push("other"),
            }
            match facts.validity(license) {
                Validity::Current => {}
                Validity::NotYet => reasons.push("not-yet-valid"),
                Validity::Ended if state == LicenseState::Lapsed => {}
                Validity::Ended => reasons.push("expired"),
            }
            let verdict = if reasons.is_empty() { Verdict::Valid } else { Verdict::Invalid };
            (verdict, reasons, Some(state))
        }
    }
}

fn verify_envelope<'a>(
    context: &Context<'_>,
    facts: &mut Facts<'_>,
    caller: &Participant,
    verify: &'a Verify<'a>,
    envelope: &[u8],
) -> Permit<'a> {
    let second = facts.now_ms / 1_000;
    let trust = context.trust.get();
    let report = ROOTS.with_borrow_mut(|roots| verifier::license::verify(envelope, &trust, second, roots));
    let mut reasons: Vec<&'static str> = report.reasons.iter().map(|reason| reason.code()).collect();
    let content = OpenedEnvelope::open(envelope)
        .ok()
        .and_then(|opened| verifier::license::read_body(opened.body()).ok());
    if second < trust.expires {
        facts.ends_at(trust.expires.saturating_mul(1_000));
    }
    let mut verdict = report.verdict;
    let mut found = None;
    let mut state = None;
    // Bytes that no known key of the issuer signed may name a license that their maker only guesses at.
    if verdict != Verdict::Invalid
        && report.checked.contains(&"signatures")
        && let Some(content) = &content
    {
        let end = content.valid_until.and_then(|day| u64::try_from(day.last_second()).ok());
        if let Some(end) = end.filter(|end| *end >= second) {
            facts.ends_at(end.saturating_add(1).saturating_mul(1_000));
        }
        // The signature is good; whether the license is still in force only the register knows.
        found = facts.license(facts::license_key(context.ledger, &content.identifier));
        if found.is_none() {
            verdict = Verdict::Unknown;
            reasons.push("status-not-known");
        } else {
            let (standing, why, current) =
                standing(facts, found.as_ref(), Some(content.identifier.version()));
            state = current;
            if standing != Verdict::Valid {
                verdict = standing;
            }
            reasons.extend(why.into_iter().filter(|why| !reasons.contains(why)).collect::<Vec<_>>());
        }
    }
    let concerned = found.iter().flat_map(|found| found.license.holders.iter().copied()).collect();
    let compared = content.as_ref().filter(|_| !verify.expect.is_empty());
    let license_type = compared.and_then(|content| facts.license_type(&content.identifier.type_code()));
    let granted = Granted::Verify {
        verify,
        found,
        verdict,
        reasons,
        state,
        current: true,
        content,
        license_type,
        mismatches: None,
    };
    used(plain(granted, concerned), Right::Open, caller, facts)
}

// --- grants ---

fn decide_grant<'a>(
    context: &Context<'_>,
    facts: &mut Facts<'_>,
    caller: &Participant,
    create: &'a GrantCreate,
) -> Result<Permit<'a>, Refusal> {
    need(caller, Role::Portal)?;
    let holder = facts.holder(&create.holder).ok_or_else(|| Refusal::not_permitted(Reason::NoSuchHolder))?;
    let concerned = vec![holder.label];
    let bad = |fault| Refusal::of(Code::BadGrant, fault);
    let (target, type_code) = match &create.target {
        GrantTarget::License(identifier) => {
            let found = facts.license(facts::license_key(context.ledger, identifier));
            let found = found.ok_or_else(|| Refusal::not_permitted(Reason::NoSuchLicense))?;
            if !found.license.holders.contains(&holder.label) {
                return Err(Refusal::not_permitted(Reason::OtherHolder));
            }
            (found.key, identifier.type_code())
        }
        GrantTarget::Type(code) => (facts::type_key(context.ledger, code), *code),
    };
    let license_type = facts.license_type(&type_code).ok_or_else(|| unknown_type("/typeCode"))?;
    let fields = floor::field_mask(Some(&license_type), create.fields.iter().map(String::as_str));
    let fields = fields.ok_or_else(|| Refusal::all(Code::BadGrant, unknown_names(&license_type, create)))?;
    let grantee = facts.participant(&create.grantee);
    let may_hold = grantee.is_some_and(|grantee| grantee.has(Role::Relying) || grantee.has(Role::Peer));
    // A portal that vouches for a holder would grant itself what it likes.
    if !may_hold || create.grantee == caller.organisation {
        let allowed = "another organisation of the register, relying party or peer";
        return Err(bad(Fault::at("/grantee", Rule::NotAllowed).form(allowed)));
    }
    if create.until_ms <= facts.now_ms {
        return Err(bad(to_come("/until")));
    }
    Ok(plain(Granted::GrantCreate { create, holder: holder.label, target, fields }, concerned))
}

/// The names that are none of the type's fields.
fn unknown_names(license_type: &LicenseType, create: &GrantCreate) -> Vec<Fault> {
    let names = || {
        let own = license_type.fields.iter().map(|field| field.key.clone());
        own.chain(schemas::license_type::BASE_FIELDS.map(str::to_owned))
    };
    let places = create.fields.iter().zip(0..);
    places
        .filter(|(name, _)| floor::field_mask(Some(license_type), [name.as_str()]).is_none())
        .map(|(_, place)| Fault::at(format!("/fields/{place}"), Rule::OneOf).one_of(names()))
        .collect()
}

fn decide_revoke<'a>(
    facts: &mut Facts<'_>,
    caller: &Participant,
    revoke: &'a GrantRevoke,
) -> Result<Permit<'a>, Refusal> {
    need(caller, Role::Portal)?;
    let holder = facts.holder(&revoke.holder).ok_or_else(|| Refusal::not_permitted(Reason::NoSuchHolder))?;
    let concerned = vec![holder.label];
    let grant = facts.grant(&revoke.grant).ok_or_else(|| Refusal::not_permitted(Reason::NoSuchGrant))?;
    if grant.holder != holder.label {
        return Err(Refusal::not_permitted(Reason::OtherHolder));
    }
    if grant.state == floor::GRANT_REVOKED {
        return Err(Refusal::of(
            Code::BadGrant,
            Fault::at("/grant", Rule::NotAllowed).form("not revoked yet"),
        ));
    }
    Ok(plain(Granted::GrantRevoke { revoke, grant }, concerned))
}

// --- the register ---

fn registered(
    facts: &mut Facts<'_>,
    caller: &Participant,
    organisation: &Uscc,
) -> Result<(u32, Option<Arc<Participant>>), Refusal> {
    need(caller, Role::Operator)?;
    Ok(facts.registration(organisation))
}

/// Whether one operator may write a registration alone, given how it was and how it is to be. Else one could make a second
/// of itself, or a portal that reads whom it likes. To suspend, which only takes away, one is always enough.
fn by_one_operator(registrations: &[&Participant]) -> Result<(), Refusal> {
    if registrations.iter().any(|registration| registration.takes_two()) {
        return Err(Refusal::new(Code::NeedsTwoOperators));
    }
    Ok(())
}
