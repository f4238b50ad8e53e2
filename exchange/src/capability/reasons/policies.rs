//! Policies over a table: what they deny is denied whatever the floor says, and what they permit is the floor's to decide.
//!
//! Tests alone have this file. Nothing is written.

use ledger::{Document, DocumentKind};
use schemas::codes::{Code, Reason};
use serde_json::json;

use super::{ID, NOW_MS, World, document, known, merged, use_context};
use crate::capability::grants::create::Create;
use crate::capability::licenses::search::Search;
use crate::capability::operators::approve::Approve;
use crate::capability::operators::policies::Show;
use crate::capability::operators::propose::Propose;
use crate::capability::operators::{NewPolicies, Proposal};
use crate::capability::verify::Verify;
use crate::rights::in_force::{Published, policies_key};
use crate::wire::refusal::Refusal;
use schemas::kinds::ProposalKind;

pub(super) fn reasons(refused: &mut impl FnMut(Reason, Result<(), Refusal>)) {
    refused(Reason::PolicyDenied, verified(&World::new().under(""), "贷款"));
    refused(Reason::PolicyFailed, verified(&World::new().under("permit ("), "贷款"));
}

const ALL: &str = "permit (principal, action, resource);";

impl World {
    pub(super) fn under(mut self, policies: &str) -> Self {
        let key = policies_key(&self.table.keyed);
        let published = Document { version: 1, ..document(&Published { policies: policies.to_owned() }) };
        self.table.documents.insert((DocumentKind::Policies.number(), key), published);
        self
    }
}

/// A use for a purpose, with the grant.
fn verified(world: &World, purpose: &str) -> Result<(), Refusal> {
    let mut context = use_context();
    context["purpose"] = json!(purpose);
    let body = world.used(&json!({"grant": hex::encode(ID), "use": context}));
    world.ask::<Verify>(&world.bank, &body)
}

#[test]
fn a_stricter_set_denies_one_purpose_of_one_type_and_says_no_more_than_the_floor() {
    let strict = format!(
        "{ALL} forbid (principal in Role::\"relying\", action == Action::\"verify\", \
         resource == LicenseType::\"{}\") unless {{ context has purpose && context.purpose == \"贷款\" }};",
        super::TYPE
    );
    let world = World::new().under(&strict);
    assert!(verified(&world, "贷款").is_ok());
    let denied = verified(&world, "保险").expect_err("forbidden");
    assert_eq!((denied.code, denied.reason), (Code::NotPermitted, Reason::PolicyDenied));
    let by_floor = world.ask::<Verify>(&world.approval, &world.used(&json!({}))).expect_err("no grant");
    // What is sent differs by nothing.
    assert_eq!(by_floor.code, denied.code);
}

#[test]
fn a_set_that_permits_all_lifts_nothing_of_the_floor() {
    let world = World::new().under(ALL);
    assert!(verified(&world, "贷款").is_ok());
    let refused = |world: &World| verified(world, "贷款").expect_err("the floor").reason;
    let paused = World::new().under(ALL).with_grant(|grant| grant.state = crate::rights::floor::GRANT_PAUSED);
    assert_eq!(refused(&paused), Reason::GrantPaused);
    let ended = World::new().under(ALL).with_grant(|grant| grant.until_ms = NOW_MS - 1);
    assert_eq!(refused(&ended), Reason::GrantExpired);
    let none = world.ask::<Verify>(&world.bank, &world.used(&json!({})));
    assert_eq!(none.expect_err("no grant").reason, Reason::NoGrant);
    let grants = json!({"holder": world.holder(), "grantee": world.bank.organisation, "typeCode": super::TYPE,
        "modes": ["verify"], "until": schemas::date::rfc3339(NOW_MS + 1_000)});
    assert!(world.ask::<Create>(&world.portal, &grants.to_string()).is_ok());
}

#[test]
fn grants_and_searches_are_judged_by_the_type_and_the_terms_that_they_name() {
    let forbid = |what: &str| {
        World::new().under(&format!("{ALL} forbid (principal, action, resource) when {{ {what} }};"))
    };
    let grants = |world: &World| {
        let body = json!({"holder": world.holder(), "grantee": world.bank.organisation, "typeCode": super::TYPE,
            "modes": ["verify"], "purpose": "保险", "scenario": "finance",
            "until": schemas::date::rfc3339(NOW_MS + 1_000)});
        world.ask::<Create>(&world.portal, &body.to_string()).map_err(|refusal| refusal.reason)
    };
    let searches = |world: &World| {
        let body = json!({"holder": world.holder(), "typeCode": super::TYPE, "use": use_context()});
        world.ask::<Search>(&world.portal, &body.to_string()).map_err(|refusal| refusal.reason)
    };
    let (of_type, natural) = (
        forbid("resource == LicenseType::\"11100000DE0000022B002\""),
        forbid("resource.holders == \"natural\""),
    );
    for world in [&of_type, &natural] {
        assert_eq!((grants(world), searches(world)), (Err(Reason::PolicyDenied), Err(Reason::PolicyDenied)));
    }
    let purpose = forbid("context has purpose && context.purpose == \"保险\"");
    assert_eq!((grants(&purpose), searches(&purpose)), (Err(Reason::PolicyDenied), Ok(())));
    let scenario = forbid("context has scenario && context.scenario == \"finance\"");
    assert_eq!((grants(&scenario), searches(&scenario)), (Err(Reason::PolicyDenied), Ok(())));
    let item = forbid("context has item && context.item == \"1\"");
    assert_eq!((grants(&item), searches(&item)), (Ok(()), Err(Reason::PolicyDenied)));
}

#[test]
fn what_cannot_be_evaluated_or_read_denies_and_locks_no_operator_out() {
    let overflow =
        format!("{ALL} forbid (principal, action, resource) unless {{ 9223372036854775807 + 1 > 0 }};");
    for policies in
        [&*overflow, "permit (", "", "permit (principal, action == Action::\"nothing\", resource);"]
    {
        let world = World::new().under(policies).with_proposal(|_, proposal| {
            *proposal = Proposal {
                kind: ProposalKind::PublishPolicies,
                holder: None,
                policies: Some(NewPolicies::new(ALL, 2)),
                ..proposal.clone()
            };
        });
        let denied = verified(&world, "贷款").expect_err("denied");
        let reason = if policies.is_empty() { Reason::PolicyDenied } else { Reason::PolicyFailed };
        assert_eq!((denied.code, denied.reason), (Code::NotPermitted, reason), "{policies}");
        assert!(world.ask::<Show>(&world.operator, "{}").is_ok());
        let proposed = json!({"kind": "publish-policies", "policies": ALL, "reason": "测试"});
        assert!(world.ask::<Propose>(&world.operator, &proposed.to_string()).is_ok());
        let approve = |text: Option<&str>| {
            let body = json!({"proposal": hex::encode(ID)});
            let more = text.map_or(json!({}), |text| json!({"policies": text}));
            world.ask::<Approve>(&world.operator2, &merged(body, &more)).map_err(|refusal| refusal.reason)
        };
        assert_eq!(approve(Some(ALL)), Ok(()));
        // Neither blindly, nor other ones.
        assert_eq!(approve(None), Err(Reason::OtherDefinition));
        assert_eq!(approve(Some("permit (principal, action, resource) ;")), Err(Reason::OtherDefinition));
    }
    let world = World::new().with_proposal(|_, _| {});
    let other = json!({"proposal": hex::encode(ID), "policies": ALL});
    let other = world.ask::<Approve>(&world.operator2, &other.to_string());
    assert_eq!(other.expect_err("another kind").reason, Reason::OtherDefinition);
}

#[test]
fn policies_with_a_fault_are_refused_by_line_and_column() {
    let world = World::new();
    let propose = |policies: &str| {
        let body = json!({"kind": "publish-policies", "policies": policies, "reason": "测试"});
        world.ask::<Propose>(&world.operator, &body.to_string())
    };
    for bad in [
        "permit (principal, action, resource)\n",
        "\n\npermit (principal in Role::\"bank\", action, resource);",
    ] {
        let refusal = propose(bad).expect_err("a fault");
        assert_eq!(refusal.code, Code::BadPolicy);
        let said = format!("{refusal:?}");
        assert!(said.contains("line ") && said.contains("column ") && !said.contains("bank"), "{said}");
    }
    assert!(propose(ALL).is_ok());
}

/// A registration that changes, and a type that is published again, are other facts than those that an answer was kept under.
#[test]
fn an_answer_ends_with_the_registration_and_the_type_it_rests_on() {
    use crate::participant::{Participant, Role};
    let policies =
        "permit (principal in Role::\"relying\", action, resource) when { resource.holders == \"natural\" };";
    let mut world = World::new().under(policies);
    let known = known();
    let ask = |world: &World, caller: &Participant, version| {
        let body = world.used(&json!({"grant": hex::encode(ID)}));
        let judged = world.judged_by::<Verify>(&known, caller, version, &body);
        judged.map(|_| ()).map_err(|refusal| refusal.reason)
    };
    assert_eq!(ask(&world, &world.bank, 1), Ok(()));
    assert_eq!(ask(&world, &world.bank, 1), Ok(()));
    // It is a peer alone now.
    let changed = Participant { roles: vec![Role::Peer], ..world.bank.clone() };
    assert_eq!(ask(&world, &changed, 2), Err(Reason::PolicyDenied));
    // A type whose definition is another one now, which the journal would not take.
    world.license_type.holders = schemas::license_type::HolderKind::Both;
    let key = crate::keyed::type_key(&world.table.keyed, &world.license_type.code);
    let published = Document { version: 2, ..document(&world.license_type) };
    world.table.documents.insert((DocumentKind::LicenseType.number(), key), published);
    assert_eq!(ask(&world, &world.bank, 1), Err(Reason::PolicyDenied));
    // Other policies.
    let mut world = world.under(ALL);
    assert_eq!(ask(&world, &world.bank, 1), Err(Reason::PolicyDenied), "the same version is the same set");
    let key = policies_key(&world.table.keyed);
    if let Some(document) = world.table.documents.get_mut(&(DocumentKind::Policies.number(), key)) {
        document.version = 2;
    }
    assert_eq!(ask(&world, &world.bank, 1), Ok(()));
}
