//! The same for shared data: a department publishes, another one applies.

use ledger::DocumentKind;
use schemas::codes::{Code, Reason};
use schemas::identifier::Uscc;
use schemas::interface::{Address, Interface};
use schemas::resource::{Agreed, Compared, Condition, Duty, Resource, Supply};
use schemas::sharing::{ApplicationState, GrantRule, ResourceState};
use schemas::workday::Calendar;
use serde_json::{Value, json};

use super::{NOW_MS, World, approve, document};
use crate::capability::applications::{make::Make, transition::Transition as Answering};
use crate::capability::operators::{self, NewAddress, NewCalendar};
use crate::capability::records::call::Call;
use crate::capability::records::compare::Compare;
use crate::capability::records::feed::Feed;
use crate::capability::records::query::Query;
use crate::capability::resources::{transition::Transition, write::Write};
use crate::participant::{Participant, Role};
use crate::sharing::address::address_key;
use crate::sharing::application::application_key;
use crate::sharing::resource::{Listed, resource_key};
use crate::wire::refusal::{Language, Refusal};

const ITEM: &str = "1";

/// The world with a resource of class 2 in a state.
pub(super) struct Sharing {
    pub(super) world: World,
    pub(super) provider: Participant,
    pub(super) resource: Resource,
}

impl Sharing {
    pub(super) fn new(state: ResourceState) -> Self {
        Self::with(state, |_| {})
    }

    pub(super) fn with(state: ResourceState, change: impl FnOnce(&mut Resource)) -> Self {
        let mut world = World::new();
        let provider = Participant { roles: vec![Role::Provider, Role::Relying], ..world.approval.clone() };
        let mut resource = Resource::samples().remove(0);
        change(&mut resource);
        let listed = Listed {
            resource: resource.clone(),
            provider: provider.organisation,
            state,
            history: Vec::new(),
            label: Some(hex::encode([3; 16])),
        };
        let key = resource_key(&world.table.keyed, &resource.code);
        world.table.documents.insert((DocumentKind::Resource.number(), key), document(&listed));
        Self { world, provider, resource }
    }

    fn key(&self, applicant: &Uscc) -> ledger::Key {
        application_key(&self.world.table.keyed, &self.resource.code, applicant, ITEM)
    }

    /// Adds an application of the bank's in a state.
    pub(super) fn applied(mut self, state: ApplicationState) -> Self {
        let bank = self.world.bank.organisation;
        let application = json!({
            "resource": self.resource.code, "applicant": bank, "provider": self.provider.organisation,
            "itemCode": ITEM, "itemName": "测试事项", "purpose": "测试", "asked": scope(), "terms": scope(), "state": state,
            "madeMs": NOW_MS, "history": [], "parties": ["", ""],
        });
        let key = self.key(&bank);
        self.world.table.documents.insert((DocumentKind::Application.number(), key), document(&application));
        self
    }

    /// The approval ends on a day.
    fn until(&mut self, day: &str) {
        self.scope("until", &day.into());
    }

    /// The approval says something else of one part.
    fn scope(&mut self, part: &str, value: &Value) {
        let key = self.key(&self.world.bank.organisation);
        let found =
            self.world.table.documents.get_mut(&(DocumentKind::Application.number(), key)).expect("applied");
        let mut application: Value = serde_json::from_slice(&found.value).expect("JSON");
        application["terms"][part] = value.clone();
        *found = document(&application);
    }

    fn apply(&self, more: &Value) -> String {
        let body = json!({
            "resource": self.resource.code, "itemCode": ITEM, "itemName": "测试事项", "purpose": "测试", "scope": scope(),
        });
        super::merged(body, more)
    }

    fn answer(&self, action: &str, more: &Value) -> String {
        let id = hex::encode(self.key(&self.world.bank.organisation));
        super::merged(json!({"application": id, "action": action}), more)
    }
}

fn scope() -> Value {
    json!({"fields": ["name", "status"], "dailyLimit": 10, "until": "2099-01-01"})
}

pub(super) fn reasons(refused: &mut impl FnMut(Reason, Result<(), Refusal>)) {
    of_resources(refused);
    of_applications(refused);
    of_queries(refused);
    of_feeds_and_comparisons(refused);
    let (world, another) = (World::new(), World::new());
    let calendar = Calendar::builtin().remove(0);
    let proposed = world.with_proposal(|_, proposal| {
        proposal.kind = schemas::kinds::ProposalKind::PublishCalendar;
        proposal.holder = None;
        proposal.calendar = Some(NewCalendar { calendar: calendar.clone(), version: 1 });
    });
    let named = approve(&json!({"calendar": calendar}));
    assert!(proposed.ask::<operators::approve::Approve>(&proposed.operator2, &named).is_ok());
    let unnamed = proposed.ask::<operators::approve::Approve>(&proposed.operator2, &approve(&json!({})));
    refused(Reason::OtherCalendar, unnamed);
    let organisation = another.bank.organisation;
    let address = Address { organisation, host: "data.example".into(), port: 443, authorities: None };
    let proposed = another.with_proposal(|_, proposal| {
        proposal.kind = schemas::kinds::ProposalKind::AllowAddress;
        proposal.holder = None;
        proposal.address = Some(NewAddress { address: address.clone(), version: 1 });
    });
    let named = approve(&json!({"address": address}));
    assert!(proposed.ask::<operators::approve::Approve>(&proposed.operator2, &named).is_ok());
    let other = approve(&json!({"address": Address { port: 444, ..address.clone() }}));
    let other = proposed.ask::<operators::approve::Approve>(&proposed.operator2, &other);
    refused(Reason::OtherDefinition, other);
}

fn of_resources(refused: &mut impl FnMut(Reason, Result<(), Refusal>)) {
    use ResourceState as S;
    let step = |sharing: &Sharing, action: &str| {
        let body = json!({"resource": sharing.resource.code, "action": action, "reason": "测试"}).to_string();
        sharing.world.ask::<Transition>(&sharing.provider, &body)
    };
    assert!(step(&Sharing::new(S::Draft), "publish").is_ok());
    refused(Reason::ResourceDraft, step(&Sharing::new(S::Draft), "suspend"));
    refused(Reason::ResourcePublished, step(&Sharing::new(S::Published), "publish"));
    refused(Reason::ResourceSuspended, step(&Sharing::new(S::Suspended), "suspend"));
    refused(Reason::ResourceWithdrawn, step(&Sharing::new(S::Withdrawn), "resume"));
    let without = Sharing::with(S::Draft, |resource| {
        resource.duties.retain(|unit| unit.duty != Duty::Archiving);
    });
    refused(Reason::DutyMissing, step(&without, "publish"));
    let written = |resource: &Resource| json!({"resource": resource}).to_string();
    let sharing = Sharing::new(S::Published);
    assert!(sharing.world.ask::<Write>(&sharing.provider, &written(&sharing.resource)).is_ok());
    let another = Participant { roles: vec![Role::Provider], ..sharing.world.bank.clone() };
    refused(Reason::OtherProvider, sharing.world.ask::<Write>(&another, &written(&sharing.resource)));
    let changed = Resource { key: vec!["idNumber".into(), "name".into()], ..sharing.resource.clone() };
    let refusal = sharing.world.ask::<Write>(&sharing.provider, &written(&changed)).expect_err("another key");
    assert_eq!(refusal.code, Code::BadResource);
}

fn of_applications(refused: &mut impl FnMut(Reason, Result<(), Refusal>)) {
    use ApplicationState as A;
    use ResourceState as S;
    let make = |sharing: &Sharing, more: &Value| {
        sharing.world.ask::<Make>(&sharing.world.bank, &sharing.apply(more))
    };
    let sharing = Sharing::new(S::Published);
    assert!(make(&sharing, &json!({})).is_ok());
    let class3 = Sharing::with(S::Published, |resource| {
        (resource.sharing_class, resource.conditions) = (3, Vec::new());
    });
    refused(Reason::NotShared, make(&class3, &json!({})));
    let by_duty = Sharing::with(S::Published, |resource| resource.conditions.push(Condition::Duty));
    refused(Reason::OutsidePurpose, make(&by_duty, &json!({})));
    let own = sharing.world.ask::<Make>(&sharing.provider, &sharing.apply(&json!({})));
    assert_eq!(own.expect_err("one's own").code, Code::BadApplication);
    for (more, code) in [
        (json!({"fields": ["name"], "until": "2099-01-01"}), Code::BadApplication),
        (json!({"fields": ["none"], "dailyLimit": 1, "until": "2099-01-01"}), Code::BadApplication),
        (json!({"fields": ["name"], "dailyLimit": 1, "until": "2020-01-01"}), Code::BadApplication),
    ] {
        let refusal = make(&sharing, &json!({"scope": more})).expect_err("a scope that does not fit");
        assert_eq!(refusal.code, code);
    }
    let open = Sharing::new(S::Published).applied(A::Pending);
    refused(Reason::ApplicationOpen, make(&open, &json!({})));
    assert!(make(&Sharing::new(S::Published).applied(A::Refused), &json!({})).is_ok());

    let provider = &open.provider;
    let stranger = Participant { roles: vec![Role::Relying], ..open.world.issuer.clone() };
    let approved = open.answer("approve", &json!({}));
    assert!(open.world.ask::<Answering>(provider, &approved).is_ok());
    refused(Reason::NoSuchApplication, open.world.ask::<Answering>(&stranger, &approved));
    refused(Reason::ApplicationStep, open.world.ask::<Answering>(&open.world.bank, &approved));
    let wider = open.answer(
        "approve",
        &json!({"terms": {"fields": ["name", "address"], "dailyLimit": 10, "until": "2099-01-01"}}),
    );
    assert_eq!(open.world.ask::<Answering>(provider, &wider).expect_err("wider").code, Code::BadApplication);
    let groundless = open.answer("refuse", &json!({}));
    assert_eq!(
        open.world.ask::<Answering>(provider, &groundless).expect_err("no ground").code,
        Code::BadApplication
    );
    let refusing = open.answer("refuse", &json!({"ground": "excessive"}));
    assert_eq!(
        open.world.ask::<Answering>(provider, &refusing).expect_err("no basis").code,
        Code::BadApplication
    );
}

fn of_feeds_and_comparisons(refused: &mut impl FnMut(Reason, Result<(), Refusal>)) {
    use ApplicationState as A;
    use ResourceState as S;
    let feed = |sharing: &Sharing| {
        let body = json!({"resource": sharing.resource.code, "use": super::use_context()});
        sharing.world.ask::<Feed>(&sharing.world.bank, &body.to_string())
    };
    let mut sharing = Sharing::new(S::Published).applied(A::InUse);
    refused(Reason::OutsideApproval, feed(&sharing));
    sharing.scope("feed", &true.into());
    assert!(feed(&sharing).is_ok());
    sharing.scope("regions", &json!(["44"]));
    assert!(feed(&sharing).is_ok());
    let mut gone = Sharing::new(S::Withdrawn).applied(A::InUse);
    gone.scope("feed", &true.into());
    assert_eq!(feed(&gone).expect_err("withdrawn").code, Code::UnknownResource);

    let compare = |sharing: &Sharing, caller: &Participant| {
        let license = sharing.world.identifier.to_string();
        let body = json!({"resource": sharing.resource.code, "license": license, "reason": "测试"});
        sharing.world.ask::<Compare>(caller, &body.to_string())
    };
    let sharing = Sharing::new(S::Published);
    refused(Reason::NotCompared, compare(&sharing, &sharing.provider));
    let type_code = super::TYPE.to_owned();
    let compared = Sharing::with(S::Published, |resource| {
        let fields = [("name".to_owned(), "holderName".to_owned())].into();
        resource.compared = vec![Compared { type_code, fields }];
    });
    assert!(compare(&compared, &compared.provider).is_ok());
    assert!(compare(&compared, &compared.world.issuer).is_ok());
    let another = Participant { roles: vec![Role::Issuer], ..compared.world.bank.clone() };
    refused(Reason::OtherIssuer, compare(&compared, &another));
    let not_shared = Sharing::with(S::Published, |resource| {
        (resource.sharing_class, resource.conditions) = (3, Vec::new());
    });
    refused(Reason::NotShared, compare(&not_shared, &not_shared.provider));
}

fn of_queries(refused: &mut impl FnMut(Reason, Result<(), Refusal>)) {
    use ApplicationState as A;
    use ResourceState as S;
    let query = |sharing: &Sharing, more: &Value| {
        let body = json!({
            "resource": sharing.resource.code, "holder": sharing.world.holder(), "fields": ["status"], "use": super::use_context(),
        });
        sharing.world.ask::<Query>(&sharing.world.bank, &super::merged(body, more))
    };
    let applied = |state| Sharing::new(S::Published).applied(state);
    let nothing = json!({});
    assert!(query(&applied(A::Provided), &nothing).is_ok());
    assert!(query(&applied(A::InUse), &nothing).is_ok());
    refused(Reason::NoApproval, query(&Sharing::new(S::Published), &nothing));
    refused(Reason::ApprovalPending, query(&applied(A::Pending), &nothing));
    refused(Reason::ApprovalRefused, query(&applied(A::Refused), &nothing));
    refused(Reason::ApprovalStopped, query(&applied(A::Stopped), &nothing));
    refused(Reason::OutsideApproval, query(&applied(A::InUse), &json!({"fields": ["address"]})));
    refused(Reason::ResourceSuspended, query(&Sharing::new(S::Suspended).applied(A::InUse), &nothing));
    let other = Sharing::with(S::Published, |resource| resource.supply = Supply::Interface).applied(A::InUse);
    refused(Reason::OtherSupply, query(&other, &nothing));
    of_calls(refused);
    let mut ended = applied(A::InUse);
    ended.until("2026-01-01");
    refused(Reason::ApprovalEnded, query(&ended, &nothing));
    for (more, pointer) in [
        (json!({"holder": null}), "/holder"),
        (json!({"key": {"status": "1"}}), "/key"),
        (json!({"holder": {"typeCode": "001", "number": "91350102XX3DEMPQ6R"}}), "/holder/typeCode"),
    ] {
        let refusal = query(&applied(A::InUse), &more).expect_err("not a row");
        assert_eq!(refusal.code, Code::BadRecords, "{pointer}");
        let problem: Value = serde_json::from_slice(&refusal.problem(Language::English)).expect("JSON");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    // A refusal for want of an approval says where to apply and until when, and nothing of the person.
    let refusal = query(&Sharing::new(S::Published), &nothing).expect_err("no approval");
    let problem: Value = serde_json::from_slice(&refusal.problem(Language::English)).expect("JSON");
    let access = &problem["accessRequest"];
    assert_eq!(access["path"], "/v1/applications");
    assert_eq!(access["answeredBy"]["determinable"], "no", "a year without a calendar");
    assert!(!problem.to_string().contains(sharing_number(&Sharing::new(S::Published)).as_str()));
}

/// A call rests on the same approval, and on an address that two operators allowed.
fn of_calls(refused: &mut impl FnMut(Reason, Result<(), Refusal>)) {
    let call = |sharing: &Sharing| {
        let body = json!({
            "resource": sharing.resource.code, "holder": sharing.world.holder(), "fields": ["status"], "use": super::use_context(),
        });
        sharing.world.ask::<Call>(&sharing.world.bank, &body.to_string())
    };
    let supplied = |state| {
        Sharing::with(state, |resource| {
            resource.supply = Supply::Interface;
            let url = "https://data.example:8443/rows".to_owned();
            resource.interface = Some(Interface { url, deadline_ms: 1_000 });
        })
    };
    let allow = |sharing: &mut Sharing, port, authorities: Option<&str>| {
        let organisation = sharing.provider.organisation;
        let host = "data.example".to_owned();
        let key = address_key(&sharing.world.table.keyed, &organisation, &host, port);
        let address = Address { organisation, host, port, authorities: authorities.map(str::to_owned) };
        sharing.world.table.documents.insert((DocumentKind::Address.number(), key), document(&address));
    };
    let mut allowed = supplied(ResourceState::Published).applied(ApplicationState::InUse);
    refused(Reason::AddressNotAllowed, call(&allowed));
    allow(&mut allowed, 443, Some("PEM"));
    refused(Reason::AddressNotAllowed, call(&allowed));
    allow(&mut allowed, 8443, Some("PEM"));
    assert!(call(&allowed).is_ok());
    allow(&mut allowed, 8443, None);
    refused(Reason::AddressNotAllowed, call(&allowed));
    refused(Reason::NoApproval, call(&supplied(ResourceState::Published)));
    let hosted = Sharing::new(ResourceState::Published).applied(ApplicationState::InUse);
    refused(Reason::OtherSupply, call(&hosted));
    // Nobody lists a resource that cannot be called.
    let publish = |sharing: &Sharing| {
        let body =
            json!({"resource": sharing.resource.code, "action": "publish", "reason": "测试"}).to_string();
        sharing.world.ask::<Transition>(&sharing.provider, &body)
    };
    let mut draft = supplied(ResourceState::Draft);
    refused(Reason::AddressNotAllowed, publish(&draft));
    allow(&mut draft, 8443, Some("PEM"));
    assert!(publish(&draft).is_ok());
    let mut listed = supplied(ResourceState::Published);
    allow(&mut listed, 8443, Some("PEM"));
    let write = |sharing: &Sharing, url: &str| {
        let interface = Some(Interface { url: url.to_owned(), deadline_ms: 1_000 });
        let resource = Resource { interface, ..sharing.resource.clone() };
        sharing.world.ask::<Write>(&sharing.provider, &json!({"resource": resource}).to_string())
    };
    assert!(write(&listed, "https://data.example:8443/other").is_ok());
    refused(Reason::AddressNotAllowed, write(&listed, "https://data.example:8444/rows"));
}

fn sharing_number(sharing: &Sharing) -> String {
    sharing.world.holder()["number"].as_str().expect("a number").to_owned()
}

/// The queries of a day are counted exactly, and one more is refused.
#[test]
fn a_limit_of_queries_that_is_spent_is_said() {
    let mut sharing = Sharing::new(ResourceState::Published).applied(ApplicationState::InUse);
    let body = json!({"resource": sharing.resource.code, "holder": sharing.world.holder(), "use": super::use_context()});
    let body = body.to_string();
    let key = sharing.key(&sharing.world.bank.organisation);
    let day = u32::try_from(crate::sharing::clock::day_of(NOW_MS).days()).expect("a day");
    sharing.world.table.counters.insert((key, day), 9);
    assert!(sharing.world.ask::<Query>(&sharing.world.bank, &body).is_ok());
    sharing.world.table.counters.insert((key, day), 10);
    let refusal = sharing.world.ask::<Query>(&sharing.world.bank, &body).expect_err("spent");
    assert_eq!(refusal.code, Code::QuotaSpent);
}

/// A rule grants what is shared without a condition or agreed on, and nothing that others see masked.
#[test]
fn a_rule_grants_no_more_than_it_says() {
    let granted = |change: fn(&mut Resource), more: Value| {
        let sharing = Sharing::with(ResourceState::Published, |resource| {
            (resource.sharing_class, resource.conditions, resource.level) = (1, Vec::new(), 2);
            change(resource);
        });
        let body = sharing.apply(&more);
        let application =
            sharing.world.decided::<Make>(&sharing.world.bank, &body).expect("permitted").application;
        (application.state, application.rule, application.clock.is_some())
    };
    let at_once = (ApplicationState::Provided, Some(GrantRule::Unconditional), false);
    assert_eq!(granted(|_| {}, json!({})), at_once);
    let pending = (ApplicationState::Pending, None, true);
    assert_eq!(granted(|resource| resource.level = 4, json!({})), pending);
    let of_own_choice = |resource: &mut Resource| {
        (resource.sharing_class, resource.conditions) = (2, vec![Condition::Volume]);
    };
    assert_eq!(granted(of_own_choice, json!({"scope": scope()})), pending);
    let clear = json!({"scope": {"fields": ["name"], "clear": ["name"], "until": "2099-01-01"}});
    assert_eq!(granted(|_| {}, clear), pending);
    let conditional = |resource: &mut Resource| {
        (resource.sharing_class, resource.conditions) = (2, vec![Condition::NamedItem]);
    };
    assert_eq!(granted(conditional, json!({})), pending);
    assert_eq!(
        granted(|resource| resource.supply = Supply::File, json!({})),
        (ApplicationState::Agreed, Some(GrantRule::Unconditional), true)
    );
    let sharing = Sharing::with(ResourceState::Published, |resource| {
        let need = |organisation: Uscc| Agreed {
            organisation: organisation.as_str().into(),
            item_code: ITEM.into(),
        };
        resource.agreed = vec![need(World::new().bank.organisation)];
        resource.conditions = vec![Condition::NamedItem];
    });
    let body = sharing.apply(&json!({}));
    let made = sharing.world.decided::<Make>(&sharing.world.bank, &body).expect("permitted");
    assert_eq!(made.application.rule, Some(GrantRule::Agreed));
}
