//! Who may call what: the participant register decides before anything is looked up.

use schemas::codes::{Code, Decision};
use schemas::routes::Route;
use serde_json::{Value, json};
use tests::{
    Call, Server, Setup, Target, draft, grant, holder, in_one_hour, key, legal, natural, shared, use_context,
};

/// Participants beside the development ones.
fn setup() -> Setup {
    Setup::new()
        .stranger("stranger")
        .participant("noisy", |_| {})
        .participant("ended", |participant| {
            participant.valid_from = "2020-01-01".parse().unwrap();
            participant.valid_until = Some("2021-12-31".parse().unwrap());
        })
        .participant("future", |participant| participant.valid_from = "2099-01-01".parse().unwrap())
        .participant("narrow", |participant| {
            participant.roles = vec![exchange::participant::Role::Issuer];
            participant.issues = vec![legal().code];
        })
}

/// A well-formed request of every route that means nothing in particular.
fn some_request(server: &Server, route: Route) -> Value {
    let draft = draft(&natural());
    let of = holder(draft.holder());
    let identifier = "1.2.156.3005.2.11100000000013338W011.11430000006122244L.20230000403.001.U";
    let participant = json!({
        "organisation": server.organisation("stranger").as_str(), "name": "测试机构", "roles": ["relying"],
        "validFrom": "2026-01-01",
    });
    match route {
        Route::Issue => json!({"license": draft.value()}),
        Route::Transition => json!({"identifier": identifier, "operation": "03", "reason": "测试"}),
        Route::Search => json!({"holder": of, "use": use_context()}),
        Route::Retrieve => {
            json!({"license": {"identifier": identifier}, "mode": "face", "use": use_context()})
        }
        Route::Verify => json!({"license": {"identifier": identifier}, "use": use_context()}),
        Route::GrantCreate => json!({
            "holder": of, "grantee": server.organisation("bank").as_str(), "typeCode": natural().code.as_str(),
            "modes": ["verify"], "until": in_one_hour(),
        }),
        Route::GrantRevoke => json!({"grant": "00".repeat(16), "holder": of, "reason": "测试"}),
        Route::ParticipantAdd | Route::ParticipantChange => json!({"participant": participant}),
        Route::ParticipantSuspend => {
            json!({"organisation": server.organisation("stranger").as_str(), "suspended": true, "reason": "测试"})
        }
        Route::Propose => json!({"kind": "erase-holder", "holder": of, "reason": "测试"}),
        Route::Approve => json!({"proposal": "00".repeat(16)}),
        Route::Trace => json!({"holder": of, "use": use_context()}),
        Route::LogQuery => json!({"purpose": "测试审计", "userName": "测试审计员"}),
        Route::LinkMake | Route::LinkEnd => {
            let agent = holder(tests::draft(&legal()).holder());
            match route {
                Route::LinkEnd => json!({"holder": of, "agent": agent, "reason": "测试"}),
                _ => json!({"holder": of, "agent": agent, "kind": "agent", "until": in_one_hour()}),
            }
        }
        Route::ParticipantList | Route::ProposalList | Route::IssuedList => json!({}),
        Route::GrantSearch => json!({"holder": of}),
        // The contract's example is one as well.
        route => example(route).unwrap_or_default(),
    }
}

/// The contract's first example of a route's requests.
fn example(route: Route) -> Option<Value> {
    let contract: Value = serde_json::from_str(schemas::OPENAPI).unwrap();
    let body = &contract["paths"][route.path()?]["post"]["requestBody"]["content"]["application/json"];
    let example = body["examples"].as_object()?.values().next()?;
    Some(example["value"].clone())
}

fn routes() -> impl Iterator<Item = Route> {
    Route::ALL.iter().copied().filter(|route| route.path().is_some())
}

#[tokio::test]
async fn an_organisation_that_is_not_registered_is_refused_on_every_route() {
    let server = shared(setup).await;
    let mut stranger = server.party("stranger");
    for route in routes() {
        let call = Call::new(route, &some_request(&server, route));
        server.refused(&mut stranger, &call, Code::UnknownParticipant).await;
    }
}

#[tokio::test]
async fn a_registration_that_has_ended_or_not_begun_is_refused() {
    let server = shared(setup).await;
    for name in ["ended", "future"] {
        let call = Call::new(Route::Verify, &some_request(&server, Route::Verify));
        server.refused(&mut server.party(name), &call, Code::ParticipantSuspended).await;
    }
}

#[tokio::test]
async fn a_suspension_binds_at_once_and_is_lifted_at_once() {
    let server = shared(setup).await;
    let (mut operator, mut noisy) = (server.party("operator"), server.party("noisy"));
    let suspend = |suspended: bool| {
        let body = json!({"organisation": server.organisation("noisy").as_str(), "suspended": suspended, "reason": "测试"});
        Call::new(Route::ParticipantSuspend, &body)
    };
    let verify = Call::new(Route::Verify, &some_request(&server, Route::Verify));
    server.refused(&mut noisy, &verify, Code::NotPermitted).await;
    let (reply, _) = server.permitted(&mut operator, &suspend(true)).await;
    assert_eq!(reply.json["suspended"], json!(true));
    for route in routes() {
        let call = Call::new(route, &some_request(&server, route));
        server.refused(&mut noisy, &call, Code::ParticipantSuspended).await;
    }
    // A change of the registration does not lift the suspension as a side effect.
    let change = json!({"participant": {
        "organisation": server.organisation("noisy").as_str(), "name": "测试改名", "roles": ["relying"],
        "validFrom": "2026-01-01",
    }});
    let (reply, _) = server.permitted(&mut operator, &Call::new(Route::ParticipantChange, &change)).await;
    assert_eq!(reply.json["suspended"], json!(true));
    server.refused(&mut noisy, &verify, Code::ParticipantSuspended).await;
    server.permitted(&mut operator, &suspend(false)).await;
    server.refused(&mut noisy, &verify, Code::NotPermitted).await;
}

#[tokio::test]
async fn a_role_opens_its_own_routes_and_no_others() {
    let server = shared(setup).await;
    let table: [(Route, &[&str]); 14] = [
        (Route::Issue, &["approval", "bank", "portal", "auditor", "operator", "provider"]),
        (Route::Transition, &["approval", "bank", "portal", "auditor", "operator", "provider"]),
        (Route::Verify, &["auditor", "operator", "provider"]),
        (Route::GrantCreate, &["issuer", "bank", "auditor", "operator", "provider"]),
        (Route::GrantRevoke, &["issuer", "bank", "auditor", "operator", "provider"]),
        (Route::ParticipantAdd, &["issuer", "bank", "portal", "auditor", "provider"]),
        (Route::ParticipantSuspend, &["issuer", "bank", "portal", "auditor", "provider"]),
        (Route::Trace, &["issuer", "bank", "auditor", "operator", "provider"]),
        (Route::LogQuery, &["issuer", "bank", "portal", "operator", "provider"]),
        (Route::LinkMake, &["issuer", "bank", "auditor", "operator", "provider"]),
        (Route::ProposalList, &["issuer", "bank", "portal", "auditor", "provider"]),
        (Route::GrantSearch, &["issuer", "bank", "auditor", "operator", "provider"]),
        (Route::IssuedList, &["approval", "bank", "portal", "auditor", "operator", "provider"]),
        (Route::LinkEnd, &["issuer", "bank", "auditor", "operator", "provider"]),
    ];
    for (route, names) in table {
        for name in names {
            let call = Call::new(route, &some_request(&server, route));
            server.refused(&mut server.party(name), &call, Code::WrongRole).await;
        }
    }
    for name in ["issuer", "bank", "portal", "auditor", "provider"] {
        let call = Call::new(Route::ParticipantChange, &some_request(&server, Route::ParticipantChange));
        server.refused(&mut server.party(name), &call, Code::WrongRole).await;
    }
    // A caller without a right to a license learns no more from these two than that.
    for route in [Route::Search, Route::Retrieve] {
        for name in ["bank", "auditor", "operator", "provider"] {
            let call = Call::new(route, &some_request(&server, route));
            server.refused(&mut server.party(name), &call, Code::NotPermitted).await;
        }
    }
}

#[tokio::test]
async fn an_authority_issues_only_the_types_it_is_registered_for() {
    let server = shared(setup).await;
    let call = draft(&natural()).call();
    server.refused(&mut server.party("narrow"), &call, Code::WrongRole).await;
}

#[tokio::test]
async fn a_grant_needs_a_relying_grantee() {
    let server = shared(setup).await;
    let (mut issuer, mut portal) = (server.party("issuer"), server.party("portal"));
    let issued = draft(&natural()).issue(&mut issuer).await;
    for name in ["portal", "auditor", "stranger"] {
        let body = grant(issued.draft.holder(), &server.party(name), Target::License(&issued));
        server.refused(&mut portal, &Call::new(Route::GrantCreate, &body), Code::BadGrant).await;
    }
}

#[tokio::test]
async fn the_register_refuses_what_it_cannot_hold() {
    let server = shared(setup).await;
    let mut operator = server.party("operator");
    let good = |organisation: &str| {
        json!({"participant": {
            "organisation": organisation, "name": "测试机构", "roles": ["relying"], "validFrom": "2026-01-01",
        }})
    };
    let bank = server.organisation("bank").to_string();
    let stranger = server.organisation("stranger").to_string();
    let existing = Call::new(Route::ParticipantAdd, &good(&bank));
    server.refused(&mut operator, &existing, Code::ParticipantConflict).await;
    let absent = Call::new(Route::ParticipantChange, &good(&stranger));
    server.refused(&mut operator, &absent, Code::ParticipantConflict).await;
    let absent = json!({"organisation": stranger, "suspended": true, "reason": "测试"});
    server
        .refused(&mut operator, &Call::new(Route::ParticipantSuspend, &absent), Code::ParticipantConflict)
        .await;
    for (member, value) in [
        ("name", json!("")),
        ("name", json!("名".repeat(101))),
        ("roles", json!([])),
        ("validFrom", json!("2026-02-30")),
        ("validUntil", json!("2025-12-31")),
        ("purposes", json!([""])),
    ] {
        let mut body = good(&stranger);
        body["participant"][member] = value;
        server.refused(&mut operator, &Call::new(Route::ParticipantAdd, &body), Code::BadParticipant).await;
    }
    let mut unknown_role = good(&stranger);
    unknown_role["participant"]["roles"] = json!(["king"]);
    server
        .refused(&mut operator, &Call::new(Route::ParticipantAdd, &unknown_role), Code::MalformedRequest)
        .await;
}

#[tokio::test]
async fn a_registered_participant_may_act_from_the_next_request_on() {
    let server = Setup::new().stranger("late").start().await;
    let (mut operator, mut late) = (server.party("operator"), server.party("late"));
    let verify = Call::new(
        Route::Verify,
        &json!({
            "license": {"identifier": "1.2.156.3005.2.11100000000013338W011.11430000006122244L.20230000403.001.U"},
            "use": use_context(),
        }),
    );
    server.refused(&mut late, &verify, Code::UnknownParticipant).await;
    let add = Call::new(
        Route::ParticipantAdd,
        &json!({"participant": {
            "organisation": server.organisation("late").as_str(), "name": "测试后来者", "roles": ["relying"],
            "validFrom": "2026-01-01",
        }}),
    )
    .key(&key());
    let (_, entry) = server.permitted(&mut operator, &add).await;
    assert_eq!(entry.open.decision, Decision::Permit.number());
    server.refused(&mut late, &verify, Code::NotPermitted).await;
}
