//! What one operator may do alone, and what takes two: an operator is made, changed and let back in by two others only.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by panicking")]

use schemas::codes::Code;
use schemas::routes::Route;
use serde_json::{Value, json};
use tests::{Call, Party, Reply, Server, Setup};

fn setup() -> Setup {
    Setup::new()
        .stranger("newcomer")
        .participant("operator3", |operator| operator.roles = vec![exchange::participant::Role::Operator])
}

fn registration(server: &Server, name: &str, roles: &[&str]) -> Value {
    json!({
        "organisation": server.organisation(name).as_str(), "name": "测试机构", "roles": roles,
        "validFrom": "2026-01-01",
    })
}

fn directly(route: Route, registration: &Value) -> Call {
    Call::new(route, &json!({"participant": registration}))
}

fn suspend(server: &Server, name: &str, suspended: bool) -> Call {
    let organisation = server.organisation(name).to_string();
    let body = json!({"organisation": organisation, "suspended": suspended, "reason": "测试"});
    Call::new(Route::ParticipantSuspend, &body)
}

fn propose(registration: &Value) -> Call {
    let body = json!({"kind": "register-participant", "participant": registration, "reason": "测试"});
    Call::new(Route::Propose, &body)
}

fn approve(proposal: &Value, registration: Option<&Value>) -> Call {
    let mut body = json!({"proposal": proposal});
    if let Some(registration) = registration {
        body["participant"] = registration.clone();
    }
    Call::new(Route::Approve, &body)
}

async fn proposed(operator: &mut Party, call: &Call) -> Value {
    operator.send(call).await.expect(201).json["proposal"].clone()
}

async fn by_two(operators: [&mut Party; 2], registration: &Value) -> Reply {
    let [one, other] = operators;
    let proposal = proposed(one, &propose(registration)).await;
    other.send(&approve(&proposal, Some(registration))).await
}

fn rotate() -> Call {
    Call::new(Route::Propose, &json!({"kind": "rotate-epoch", "reason": "测试"}))
}

async fn refused_because(server: &Server, party: &mut Party, call: &Call, why: &str) {
    let (reply, _) = server.refused(party, call, Code::ProposalRefused).await;
    assert_eq!(reply.json["detail"], json!(why));
}

#[tokio::test]
async fn one_operator_alone_makes_no_second_one() {
    let server = setup().start().await;
    let mut operator = server.party("operator");
    let two = |route: Route, name: &str, roles: &[&str]| directly(route, &registration(&server, name, roles));
    server.permitted(&mut operator, &suspend(&server, "operator2", true)).await;
    for (what, call) in [
        ("a new operator", two(Route::ParticipantAdd, "newcomer", &["operator"])),
        ("among other roles", two(Route::ParticipantAdd, "newcomer", &["relying", "operator"])),
        ("a new auditor", two(Route::ParticipantAdd, "newcomer", &["auditor"])),
        ("a bank as operator", two(Route::ParticipantChange, "bank", &["relying", "operator"])),
        ("a bank as auditor", two(Route::ParticipantChange, "bank", &["auditor"])),
        ("itself", two(Route::ParticipantChange, "operator", &["operator", "auditor"])),
        ("itself, its name", two(Route::ParticipantChange, "operator", &["operator"])),
        ("itself, no operator", two(Route::ParticipantChange, "operator", &["relying"])),
        ("another operator", two(Route::ParticipantChange, "operator3", &["relying"])),
        ("the auditor", two(Route::ParticipantChange, "auditor", &["relying"])),
        ("back in", suspend(&server, "operator2", false)),
    ] {
        let size = server.size().await;
        let reply = operator.send(&call).await;
        assert_eq!((reply.status, reply.code()), (403, "needs-two-operators"), "{what}");
        assert_eq!(server.entry(&reply).await.open.index, size, "{what}: the refusal is journaled");
    }
    // The register is as it was.
    let mut newcomer = server.party("newcomer");
    server.refused(&mut newcomer, &rotate(), Code::UnknownParticipant).await;
    server.refused(&mut server.party("bank"), &rotate(), Code::WrongRole).await;
    server.refused(&mut server.party("operator2"), &rotate(), Code::ParticipantSuspended).await;
    // Everybody else's registration is one operator's to write.
    server.permitted(&mut operator, &two(Route::ParticipantAdd, "newcomer", &["relying", "portal"])).await;
    server.permitted(&mut operator, &two(Route::ParticipantChange, "newcomer", &["provider"])).await;
    server.permitted(&mut operator, &suspend(&server, "newcomer", true)).await;
    server.permitted(&mut operator, &suspend(&server, "newcomer", false)).await;
}

#[tokio::test]
async fn two_operators_make_a_third_who_knows_what_is_approved() {
    let server = setup().start().await;
    let [mut one, mut other, mut newcomer] =
        ["operator", "operator2", "newcomer"].map(|name| server.party(name));
    let wanted = registration(&server, "newcomer", &["operator"]);
    let rotation = proposed(&mut one, &rotate()).await;
    let proposal = proposed(&mut one, &propose(&wanted)).await;
    refused_because(&server, &mut one, &approve(&proposal, Some(&wanted)), "own-proposal").await;
    // Who approves says what: neither blindly, nor something else, nor this in place of another proposal.
    refused_because(&server, &mut other, &approve(&proposal, None), "other-registration").await;
    let more = registration(&server, "newcomer", &["operator", "auditor"]);
    refused_because(&server, &mut other, &approve(&proposal, Some(&more)), "other-registration").await;
    refused_because(&server, &mut other, &approve(&rotation, Some(&wanted)), "other-registration").await;
    server.refused(&mut newcomer, &rotate(), Code::UnknownParticipant).await;
    let (reply, _) = server.permitted(&mut other, &approve(&proposal, Some(&wanted))).await;
    assert_eq!(
        (&reply.json["kind"], &reply.json["state"]),
        (&json!("register-participant"), &json!("approved"))
    );
    server.permitted(&mut newcomer, &rotate()).await;
    refused_because(&server, &mut other, &approve(&proposal, Some(&wanted)), "proposal-closed").await;

    // What the register says now is not what was to be changed.
    let auditor = registration(&server, "newcomer", &["auditor"]);
    let first = proposed(&mut one, &propose(&more)).await;
    let second = proposed(&mut one, &propose(&auditor)).await;
    server.permitted(&mut other, &approve(&first, Some(&more))).await;
    refused_because(&server, &mut other, &approve(&second, Some(&auditor)), "proposal-closed").await;

    for bad in [
        json!({"kind": "register-participant", "reason": "测试"}),
        json!({"kind": "rotate-epoch", "participant": wanted, "reason": "测试"}),
        json!({"kind": "register-participant", "participant": wanted, "reason": ""}),
    ] {
        server.refused(&mut one, &Call::new(Route::Propose, &bad), Code::MalformedRequest).await;
    }
    let none = propose(&registration(&server, "newcomer", &[]));
    server.refused(&mut one, &none, Code::BadParticipant).await;
    for name in ["bank", "auditor", "portal"] {
        server.refused(&mut server.party(name), &propose(&wanted), Code::WrongRole).await;
    }
}

#[tokio::test]
async fn an_approval_counts_only_while_the_proposer_is_an_operator() {
    let server = setup().start().await;
    let [mut one, mut other, mut third] =
        ["operator", "operator2", "operator3"].map(|name| server.party(name));
    let proposal = proposed(&mut one, &rotate()).await;
    server.permitted(&mut other, &suspend(&server, "operator", true)).await;
    refused_because(&server, &mut other, &approve(&proposal, None), "proposer-inactive").await;
    // Two others let the suspended one in again: as an operator no longer.
    let demoted = registration(&server, "operator", &["relying"]);
    by_two([&mut third, &mut other], &demoted).await.expect(200);
    server.refused(&mut one, &rotate(), Code::WrongRole).await;
    refused_because(&server, &mut other, &approve(&proposal, None), "proposer-inactive").await;
    let ended = {
        let mut ended = registration(&server, "operator", &["operator"]);
        ended["validUntil"] = json!("2026-01-02");
        ended
    };
    by_two([&mut third, &mut other], &ended).await.expect(200);
    refused_because(&server, &mut other, &approve(&proposal, None), "proposer-inactive").await;
    // As an operator the proposal is good again.
    by_two([&mut third, &mut other], &registration(&server, "operator", &["operator"])).await.expect(200);
    server.permitted(&mut one, &rotate()).await;
    other.send(&approve(&proposal, None)).await.expect(200);
}

#[tokio::test]
async fn who_has_the_data_folder_registers_an_operator_while_nothing_is_served() {
    let mut server = setup().start().await;
    let file = server.folder.join("registration.json");
    let name = file.to_str().unwrap().to_owned();
    let put = |registration: &Value| std::fs::write(&file, registration.to_string()).unwrap();
    put(&registration(&server, "newcomer", &["operator"]));
    let add = ["participant", "add", "--offline", &name];
    let change = ["participant", "change", "--offline", &name];
    // The gateway has the journal.
    let busy = server.run(&add);
    assert!(busy.status.is_some_and(|status| status != 0), "{busy:?}");
    server.permitted(&mut server.party("operator"), &suspend(&server, "operator2", true)).await;
    assert_eq!(server.stop(), Some(0));
    for (command, status) in [(&change, 1), (&add, 0), (&add, 1)] {
        let done = server.run(command);
        assert_eq!(done.status, Some(status), "{command:?} {done:?}");
    }
    // An operator whom the only other one has suspended is let in by nobody else.
    put(&registration(&server, "operator2", &["operator"]));
    assert_eq!(server.run(&change).status, Some(0));
    put(&json!({"organisation": server.organisation("bank").as_str(), "roles": ["operator"]}));
    assert_eq!(server.run(&change).status, Some(1));
    server.start();
    for name in ["newcomer", "operator2"] {
        server.permitted(&mut server.party(name), &rotate()).await;
    }
    server.refused(&mut server.party("bank"), &rotate(), Code::WrongRole).await;
    server.log_verify();
}
