//! Every reason that only insiders learn, from a decision over state that stands in a table: no ledger, no TLS, no clock.
//!
//! Tests alone have this file. Nothing is written.

mod codes;
mod intended;
mod items;
mod model;
mod policies;
mod reference;
mod sharing;
mod terms;

use std::collections::BTreeSet;
use std::sync::Arc;

use ledger::record::CounterUse;
use ledger::{Document, DocumentKind, Grant, GrantLink, Head, Holder, Key, Label, License, Position};
use schemas::codes::{Code, Reason};
use schemas::date::Date;
use schemas::identifier::{CertificateIdentifier, LicenseTypeCode};
use schemas::kinds::{LinkKind, ProposalKind, Scenario};
use schemas::license_type::LicenseType;
use schemas::routes::Form;
use schemas::state::LicenseState;
use schemas::synthetic::{Synthetic, SyntheticLicense};
use serde::Serialize;
use serde_json::{Value, json};
use verifier::trace::Label as PageLabel;
use verifier::trust::{Trust, TrustBundle};

use super::operators::{Hold, Proposal, Publication, Registration};
use super::{Capability, grants, licenses, operators, trace, verify};
use crate::current::Current;
use crate::gateway::case::{Case, Known};
use crate::gateway::parsed::Documents;
use crate::gateway::source::Table;
use crate::keyed;
use crate::participant::{Caller, Certified, Participant, Role};
use crate::rights::allowed::allowed;
use crate::rights::floor::{GRANT_ACTIVE, GRANT_PAUSED, GRANT_REVOKED};
use crate::rights::in_force::InForce;
use crate::rights::link::Link;
use crate::rights::mode::Mode;
use crate::sharing::clock::Clocks;
use crate::wire::read::Body;
use crate::wire::refusal::Refusal;

/// 居民身份证.
const TYPE: &str = "11100000DE0000022B002";
/// A moment in 2027.
const NOW_MS: u64 = 1_800_000_000_000;
const RETENTION_MS: u64 = 1_000_000;
const ID: Key = [9; 16];

/// A small province: two persons, a license of the first, a grant to the bank, and who acts.
pub(super) struct World {
    table: Table,
    issuer: Participant,
    issuer2: Participant,
    bank: Participant,
    approval: Participant,
    pub(super) portal: Participant,
    operator: Participant,
    operator2: Participant,
    license: SyntheticLicense,
    other: SyntheticLicense,
    identifier: CertificateIdentifier,
    label: Label,
    license_type: LicenseType,
}

fn document(value: &impl Serialize) -> Document {
    let value = Arc::from(serde_json::to_vec(value).expect("JSON"));
    Document { version: 1, value, owners: Vec::new(), ends_ms: 0, index: 0 }
}

impl World {
    pub(super) fn new() -> Self {
        let mut synthetic = Synthetic::new(1);
        let mut participant = |role| Participant {
            organisation: synthetic.uscc(),
            name: "测试单位".to_owned(),
            roles: vec![role],
            issues: vec![TYPE.parse().expect("a type")],
            purposes: Vec::new(),
            contract: None,
            daily_quota: None,
            delays: Default::default(),
            signing_keys: Vec::new(),
            limits: Vec::new(),
            acts_for: Vec::new(),
            intended_use: false,
            valid_from: Date::from_days(0).expect("a day"),
            valid_until: None,
            suspended: false,
        };
        let (issuer, issuer2) = (participant(Role::Issuer), participant(Role::Issuer));
        let (bank, approval) = (participant(Role::Relying), participant(Role::Relying));
        let (portal, operator) = (participant(Role::Portal), participant(Role::Operator));
        let operator2 = participant(Role::Operator);
        let types = LicenseType::builtin().into_iter();
        let license_type = types.into_iter().find(|found| found.code.as_str() == TYPE).expect("built in");
        let today = Date::at(i64::try_from(NOW_MS / 1_000).expect("seconds"));
        let (license, other) =
            (synthetic.license(&license_type, today), synthetic.license(&license_type, today));
        let code: LicenseTypeCode = TYPE.parse().expect("a type");
        let identifier =
            CertificateIdentifier::new(code, issuer.organisation, synthetic.serial(), 1).expect("good");
        let label = [1; 16];
        let mut world = Self {
            table: Table::default(),
            issuer,
            issuer2,
            bank,
            approval,
            portal,
            operator,
            operator2,
            license,
            other,
            identifier,
            label,
            license_type,
        };
        world.fill();
        world
    }

    fn fill(&mut self) {
        let all = [
            &self.issuer,
            &self.issuer2,
            &self.bank,
            &self.approval,
            &self.portal,
            &self.operator,
            &self.operator2,
        ];
        let all: Vec<Participant> = all.into_iter().cloned().collect();
        for participant in &all {
            self.register(participant);
        }
        let key = keyed::type_key(&self.table.keyed, &self.license_type.code);
        self.table.documents.insert((DocumentKind::LicenseType.number(), key), document(&self.license_type));
        let key = keyed::holder_key(&self.table.keyed, &self.license.holders[0].1);
        let holder =
            Holder { version: 3, key, label: self.label, erased: false, ended_ms: 0, head: Head::default() };
        self.table.holders.insert(key, holder);
        let license = License {
            version: 1,
            state: LicenseState::Valid.number(),
            certificate_version: 1,
            valid_from_day: 0,
            valid_until_day: i32::MAX,
            taken_over: false,
            written_by_04: false,
            number_tag: 5,
            holders: vec![self.label],
            body: Position(1),
        };
        self.table.licenses.insert(self.license_key(), license);
        let grant = Grant {
            key: [4; 16],
            version: 1,
            state: GRANT_ACTIVE,
            holder: self.label,
            grantee: *self.bank.organisation.as_bytes(),
            target: self.license_key(),
            target_is_type: false,
            modes: Mode::Verify.bit() | Mode::Fields.bit(),
            fields: 0,
            item_tag: 0,
            until_ms: NOW_MS + 1_000,
            max_uses: 2,
            portal: *self.portal.organisation.as_bytes(),
            ..Grant::default()
        };
        self.table.grants.insert(ID, grant);
    }

    fn license_key(&self) -> Key {
        keyed::license_key(&self.table.keyed, &self.identifier)
    }

    fn register(&mut self, participant: &Participant) {
        let key = keyed::participant_key(&self.table.keyed, &participant.organisation);
        self.table.documents.insert((DocumentKind::Participant.number(), key), document(participant));
    }

    fn with_grant(mut self, change: impl FnOnce(&mut Grant)) -> Self {
        change(self.table.grants.get_mut(&ID).expect("there"));
        self
    }

    fn with_license(mut self, change: impl FnOnce(&mut License)) -> Self {
        let key = self.license_key();
        change(self.table.licenses.get_mut(&key).expect("there"));
        self
    }

    fn with_hold(mut self, held: bool) -> Self {
        self.table.documents.insert((DocumentKind::Hold.number(), self.label), document(&Hold { held }));
        self
    }

    fn with_proposal(mut self, change: impl FnOnce(&Self, &mut Proposal)) -> Self {
        let mut proposal = Proposal {
            kind: ProposalKind::HoldHolder,
            holder: Some(hex::encode(self.label)),
            registration: None,
            publication: None,
            calendar: None,
            address: None,
            policies: None,
            by: self.operator.organisation,
            at_ms: NOW_MS - 1,
            approved_by: None,
            ends_epoch: None,
        };
        change(&self, &mut proposal);
        self.table.documents.insert((DocumentKind::Proposal.number(), ID), document(&proposal));
        self
    }

    /// Decides a request of a caller's, and what it would count.
    pub(super) fn decided<'r, C: Capability<'r>>(
        &self,
        caller: &Participant,
        body: &'r str,
    ) -> Result<C::Granted, Refusal> {
        self.counted::<C>(caller, body).map(|(granted, _)| granted)
    }

    /// The same, and how many facts it rests on.
    fn counted<'r, C: Capability<'r>>(
        &self,
        caller: &Participant,
        body: &'r str,
    ) -> Result<(C::Granted, usize), Refusal> {
        self.judged::<C>(caller, body).map(|(granted, _, facts)| (granted, facts))
    }

    /// The uses that a caller's request counts, if it is permitted.
    fn counters<'r, C: Capability<'r>>(
        &self,
        caller: &Participant,
        body: &'r str,
    ) -> Result<Vec<CounterUse>, Refusal> {
        self.judged::<C>(caller, body).map(|(_, counters, _)| counters)
    }

    fn judged<'r, C: Capability<'r>>(
        &self,
        caller: &Participant,
        body: &'r str,
    ) -> Result<(C::Granted, Vec<CounterUse>, usize), Refusal> {
        self.judged_by::<C>(&known(), caller, 1, body)
    }

    /// The same by what was read before, of a caller in this version of its registration.
    fn judged_by<'r, C: Capability<'r>>(
        &self,
        known: &Known,
        caller: &Participant,
        version: u32,
        body: &'r str,
    ) -> Result<(C::Granted, Vec<CounterUse>, usize), Refusal> {
        let mut case = Case::open(&self.table, known, NOW_MS);
        let asked = C::read(Body { form: Form::Json, bytes: body.as_bytes() })?;
        assert!(C::ROUTE.contract().roles.admit(&caller.roles), "the path refuses the role before");
        let address = std::net::Ipv4Addr::LOCALHOST.into();
        let certified = Certified { organisation: caller.organisation, ends_at_ms: u64::MAX, address };
        let identified = Caller::identify(Arc::new(caller.clone()), version, NOW_MS, &certified)?;
        let names = C::names(&asked, &caller.organisation);
        allowed(&mut case, C::ROUTE, &identified, &names)?;
        let ruling = C::decide(&mut case, caller, &asked)?;
        let counters = ruling.counters(&mut case, &caller.organisation)?;
        Ok((ruling.into_granted(), counters, case.reads().len()))
    }

    /// A request, read.
    fn read<'r, C: Capability<'r>>(&self, body: &'r str) -> C::Asked {
        C::read(Body { form: Form::Json, bytes: body.as_bytes() }).expect("a request")
    }

    /// Decides something by what the table says.
    fn with_case<T>(&self, decide: impl FnOnce(&mut Case<'_>) -> T) -> T {
        let known = known();
        let mut case = Case::open(&self.table, &known, NOW_MS);
        decide(&mut case)
    }

    /// Whether a request of a caller's is permitted, with room in what it would count.
    pub(super) fn ask<'r, C: Capability<'r>>(
        &self,
        caller: &Participant,
        body: &'r str,
    ) -> Result<(), Refusal> {
        self.decided::<C>(caller, body).map(|_| ())
    }

    pub(super) fn holder(&self) -> Value {
        holder(&self.license)
    }

    fn used(&self, more: &Value) -> String {
        let body = json!({"license": {"identifier": self.identifier.to_string()}, "use": use_context()});
        merged(body, more)
    }

    fn transition(&self, operation: &str, more: &Value) -> String {
        let identifier = self.identifier.to_string();
        merged(json!({"identifier": identifier, "operation": operation, "reason": "测试"}), more)
    }

    fn propose(&self, kind: &str) -> String {
        json!({"kind": kind, "holder": self.holder(), "reason": "测试"}).to_string()
    }

    fn trace(&self, agent: &Value) -> String {
        json!({"holder": self.holder(), "agent": agent, "use": use_context()}).to_string()
    }
}

/// Nothing that was read before.
fn known() -> Known {
    let bundle = TrustBundle {
        version: 1,
        sequence: 1,
        issued_at: 0,
        expires: u64::MAX,
        journal_index: 0,
        issuers: Vec::new(),
        logs: Vec::new(),
        witnesses: Vec::new(),
        mirrors: Vec::new(),
        peers: Vec::new(),
        authority: None,
    };
    Known {
        register: Documents::default(),
        types: Documents::default(),
        trust: Current::new(Trust::new(bundle).expect("an empty bundle")),
        retention_ms: RETENTION_MS,
        resources: Arc::default(),
        applications: Documents::default(),
        clocks: Clocks::default(),
        identity: None,
        policies: InForce::default(),
    }
}

fn holder(license: &SyntheticLicense) -> Value {
    let (_, holder) = &license.holders[0];
    json!({"typeCode": holder.type_code().as_str(), "number": holder.number()})
}

fn merged(mut body: Value, more: &Value) -> String {
    for (name, value) in more.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body.to_string()
}

fn use_context() -> Value {
    json!({"userName": "测试", "itemCode": "1", "itemName": "测试事项", "businessCode": "CS1", "cause": "测试", "stage": "受理"})
}

fn approve(more: &Value) -> String {
    merged(json!({"proposal": hex::encode(ID)}), more)
}

/// Each reason is refused once; the permit beside it shows that nothing else is in the way.
#[test]
fn every_reason_has_a_decision_that_gives_it() {
    let mut seen = BTreeSet::new();
    let mut refused = |reason: Reason, found: Result<(), Refusal>| {
        let refusal = found.expect_err(reason.name());
        assert_eq!((refusal.reason, refusal.code), (reason, refusal.code), "{}", reason.name());
        seen.insert(reason.number());
    };
    uses(&mut refused);
    of_grants(&mut refused);
    of_operators(&mut refused);
    sharing::reasons(&mut refused);
    codes::reasons(&mut refused);
    policies::reasons(&mut refused);
    intended::reasons(&mut refused);
    let without: Vec<_> = Reason::ALL.iter().filter(|reason| !seen.contains(&reason.number())).collect();
    // The findings of a call are tested where it is made, and those of an assertion where it is checked.
    let of_calls = [
        Reason::AddressForbidden,
        Reason::ProviderDown,
        Reason::ProviderCertificate,
        Reason::ProviderPaused,
        Reason::ProviderBusy,
        Reason::ProviderBroken,
        Reason::ProviderStatus,
        Reason::ProviderRows,
    ];
    let of_assertions = [
        Reason::AssertionMissing,
        Reason::AssertionMalformed,
        Reason::AssertionKey,
        Reason::AssertionForged,
        Reason::AssertionAudience,
        Reason::AssertionExpired,
        Reason::AssertionEarly,
        Reason::AssertionSubject,
        Reason::AssertionLevel,
        Reason::AssertionUsed,
        Reason::IdentityUnavailable,
    ];
    let expected: Vec<_> = [Reason::None].iter().chain(&of_calls).chain(&of_assertions).collect();
    assert_eq!(without, expected, "reasons that no decision here gives");
}

fn uses(refused: &mut impl FnMut(Reason, Result<(), Refusal>)) {
    use licenses::retrieve::Retrieve;
    let world = World::new();
    let by_issuer = world.used(&json!({"mode": "face"}));
    assert!(world.ask::<Retrieve>(&world.issuer, &by_issuer).is_ok());
    refused(Reason::NoGrant, world.ask::<Retrieve>(&world.bank, &by_issuer));
    let gone = World { identifier: world.identifier.with_version(2).expect("good"), ..World::new() };
    let missing = gone.used(&json!({"mode": "face"}));
    refused(Reason::NoSuchLicense, world.ask::<Retrieve>(&world.issuer, &missing));
    let vouched = world.used(&json!({"mode": "face", "holder": world.holder()}));
    assert!(world.ask::<Retrieve>(&world.portal, &vouched).is_ok());
    let mut table = World::new();
    let key = keyed::holder_key(&table.table.keyed, &table.other.holders[0].1);
    let other = Holder { key, label: [2; 16], ..table.table.holders.values().next().expect("one").clone() };
    table.table.holders.insert(key, other);
    let vouched = table.used(&json!({"mode": "face", "holder": holder(&table.other)}));
    refused(Reason::OtherHolder, table.ask::<Retrieve>(&table.portal, &vouched));
    refused(Reason::NoLink, table.ask::<trace::Trace>(&table.portal, &table.trace(&holder(&table.other))));
    let link = Link {
        holder: PageLabel([1; 16]),
        agent: PageLabel([2; 16]),
        kind: LinkKind::Agent,
        until_ms: NOW_MS,
        ended: false,
        since_ms: 1,
        modes: Mode::Verify.bit(),
        types: Vec::new(),
        under: None,
        basis: None,
        assurance: 0,
    };
    let (of, agent) = (&table.license.holders[0].1, &table.other.holders[0].1);
    let key = keyed::link_key(&table.table.keyed, &table.portal.organisation, of, agent);
    table.table.documents.insert((DocumentKind::Link.number(), key), document(&link));
    assert!(table.ask::<trace::Trace>(&table.portal, &table.trace(&holder(&table.other))).is_ok());
    // The agent may have licenses verified, and no more.
    let granting = |mode: &str| {
        json!({"holder": table.holder(), "agent": holder(&table.other), "grantee": table.bank.organisation,
            "typeCode": TYPE, "modes": [mode], "fields": ["holderName"], "until": schemas::date::rfc3339(NOW_MS)})
        .to_string()
    };
    refused(Reason::BeyondLink, table.ask::<grants::create::Create>(&table.portal, &granting("fields")));
    let foreign = world.transition("05", &json!({"to": "03"}));
    assert!(world.ask::<licenses::transition::Transition>(&world.issuer, &foreign).is_ok());
    refused(Reason::OtherIssuer, world.ask::<licenses::transition::Transition>(&world.issuer2, &foreign));
    let draft = world.license.request(&world.license_type.code, "T08");
    let taken = world.transition("08", &json!({"license": draft}));
    refused(Reason::NotMovedOut, world.ask::<licenses::transition::Transition>(&world.issuer2, &taken));
    let moved = World::new().with_license(|license| license.state = LicenseState::MovedOut.number());
    assert!(moved.ask::<licenses::transition::Transition>(&moved.issuer2, &taken).is_ok());
}

fn of_grants(refused: &mut impl FnMut(Reason, Result<(), Refusal>)) {
    use verify::Verify;
    let world = World::new();
    let by_grant = |world: &World, more: &Value| {
        world
            .used(&json!({"grant": hex::encode(ID)}))
            .parse::<Value>()
            .map(|body| merged(body, more))
            .expect("JSON")
    };
    let plain = by_grant(&world, &json!({}));
    assert!(world.ask::<Verify>(&world.bank, &plain).is_ok());
    let none = by_grant(&world, &json!({"grant": "00000000000000000000000000000000"}));
    refused(Reason::NoSuchGrant, world.ask::<Verify>(&world.bank, &none));
    refused(Reason::OtherGrantee, world.ask::<Verify>(&world.approval, &plain));
    let mut by = |reason, change: &dyn Fn(&mut Grant)| {
        let world = World::new().with_grant(change);
        refused(reason, world.ask::<Verify>(&world.bank, &plain));
    };
    by(Reason::GrantExpired, &|grant| grant.until_ms = NOW_MS - 1);
    by(Reason::GrantRevoked, &|grant| grant.state = GRANT_REVOKED);
    by(Reason::GrantPaused, &|grant| grant.state = GRANT_PAUSED);
    by(Reason::GrantOtherTarget, &|grant| grant.target = [8; 16]);
    by(Reason::GrantOtherMode, &|grant| grant.modes = Mode::Search.bit());
    by(Reason::GrantOtherPurpose, &|grant| grant.purpose = Some("贷款".into()));
    by(Reason::GrantOtherScenario, &|grant| grant.scenario = Scenario::Finance.number());
    by(Reason::GrantOtherUser, &|grant| grant.user_tag = 7);
    by(Reason::GrantLinkEnded, &|grant| grant.chain = vec![GrantLink { key: [5; 16], since_ms: 1 }]);
    by(Reason::GrantOtherItem, &|grant| grant.item_tag = 77);
    let expects = by_grant(&world, &json!({"expect": {"holderName": "x"}}));
    refused(Reason::GrantOtherFields, world.ask::<Verify>(&world.bank, &expects));
    let mut spent = World::new();
    spent.table.counters.insert(([4; 16], 0), 2);
    refused(Reason::GrantUsedUp, spent.ask::<Verify>(&spent.bank, &plain));
    let mut inactive = World::new();
    inactive.register(&Participant { suspended: true, ..inactive.portal.clone() });
    refused(Reason::PortalInactive, inactive.ask::<Verify>(&inactive.bank, &plain));
    let make = |of: &Value| {
        json!({"holder": of, "grantee": world.bank.organisation, "typeCode": TYPE, "modes": ["verify"],
            "until": "2099-12-31T23:59:59+08:00"})
        .to_string()
    };
    assert!(world.ask::<grants::create::Create>(&world.portal, &make(&world.holder())).is_ok());
    let unknown = make(&holder(&world.other));
    refused(Reason::NoSuchHolder, world.ask::<grants::create::Create>(&world.portal, &unknown));
}

fn of_operators(refused: &mut impl FnMut(Reason, Result<(), Refusal>)) {
    use operators::approve::Approve;
    use operators::propose::Propose;
    let world = World::new();
    refused(Reason::LicenseInForce, world.ask::<Propose>(&world.operator, &world.propose("erase-holder")));
    refused(Reason::NoLegalHold, world.ask::<Propose>(&world.operator, &world.propose("release-hold")));
    let held = World::new().with_hold(true);
    refused(Reason::LegalHold, held.ask::<Propose>(&held.operator, &held.propose("hold-holder")));
    let cancelled = || World::new().with_license(|license| license.state = LicenseState::Cancelled.number());
    let mut early = cancelled();
    assert!(early.ask::<Propose>(&early.operator, &early.propose("erase-holder")).is_ok());
    for one in early.table.holders.values_mut() {
        one.ended_ms = NOW_MS - 1;
    }
    refused(Reason::RetentionPeriod, early.ask::<Propose>(&early.operator, &early.propose("erase-holder")));

    let plain = approve(&json!({}));
    refused(Reason::NoSuchProposal, world.ask::<Approve>(&world.operator2, &plain));
    let proposed = World::new().with_proposal(|_, _| {});
    assert!(proposed.ask::<Approve>(&proposed.operator2, &plain).is_ok());
    refused(Reason::OwnProposal, proposed.ask::<Approve>(&proposed.operator, &plain));
    let closed = World::new().with_proposal(|world, proposal| {
        proposal.approved_by = Some(world.operator2.organisation);
    });
    refused(Reason::ProposalClosed, closed.ask::<Approve>(&closed.operator2, &plain));
    let mut inactive = World::new().with_proposal(|_, _| {});
    inactive.register(&Participant { suspended: true, ..inactive.operator.clone() });
    refused(Reason::ProposerInactive, inactive.ask::<Approve>(&inactive.operator2, &plain));
    let registration = World::new().with_proposal(|world, proposal| {
        (proposal.kind, proposal.holder) = (ProposalKind::RegisterParticipant, None);
        proposal.registration = Some(Registration { participant: world.bank.clone(), version: 2 });
    });
    refused(Reason::OtherRegistration, registration.ask::<Approve>(&registration.operator2, &plain));
    let publication = World::new().with_proposal(|world, proposal| {
        (proposal.kind, proposal.holder) = (ProposalKind::PublishType, None);
        proposal.publication = Some(Publication::new(&world.license_type, 2));
    });
    refused(Reason::OtherDefinition, publication.ask::<Approve>(&publication.operator2, &plain));
    let named = approve(&json!({"licenseType": serde_json::to_value(&world.license_type).expect("JSON")}));
    assert!(publication.ask::<Approve>(&publication.operator2, &named).is_ok());
}

/// The daily quota is no reason but a code of its own.
#[test]
fn a_quota_that_is_spent_is_said() {
    let mut world = World::new();
    let caller = Participant { daily_quota: Some(1), ..world.issuer.clone() };
    let body = world.used(&json!({"mode": "face"}));
    assert!(world.ask::<licenses::retrieve::Retrieve>(&caller, &body).is_ok());
    let key = world.table.keyed.key("quota", &[caller.organisation.as_bytes(), b"uses"]);
    let day = u32::try_from(Date::at(i64::try_from(NOW_MS / 1_000).expect("seconds")).days()).expect("a day");
    world.table.counters.insert((key, day), 1);
    let refusal = world.ask::<licenses::retrieve::Retrieve>(&caller, &body).expect_err("spent");
    assert_eq!(refusal.code, Code::QuotaSpent);
}
