//! What one operator may do alone, and what takes two: an operator is made, changed and let back in by two others only.

use std::slice::from_ref;

use exchange::participant::Role;
use schemas::codes::{Code, Reason};
use schemas::routes::Route;
use serde_json::{Value, json};
use tests::{Call, Issued, Party, Reply, Server, Setup, Target, draft, grant, legal, natural};

fn setup() -> Setup {
    Setup::new()
        .stranger("newcomer")
        .participant("operator3", |operator| operator.roles = vec![Role::Operator])
        .participant("portal2", |portal| portal.roles = vec![Role::Portal])
        .participant("both", |both| both.roles = vec![Role::Relying, Role::Portal])
        .participant("police", |police| police.delays = tests::delay_class("investigation", 30))
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
    for name in ["operator2", "portal2", "police"] {
        server.permitted(&mut operator, &suspend(&server, name, true)).await;
    }
    let with_delays = {
        let mut wanted = registration(&server, "newcomer", &["relying"]);
        wanted["delays"] = json!({"investigation": {"days": 1, "legalBasis": "测试法第一条"}});
        wanted
    };
    for (what, call) in [
        ("a new portal", two(Route::ParticipantAdd, "newcomer", &["portal"])),
        ("a bank as portal", two(Route::ParticipantChange, "bank", &["relying", "portal"])),
        ("the portal", two(Route::ParticipantChange, "portal", &["relying"])),
        ("the portal back in", suspend(&server, "portal2", false)),
        ("a delay class", directly(Route::ParticipantAdd, &with_delays)),
        ("no delay class any more", two(Route::ParticipantChange, "police", &["relying"])),
        ("a holder of a class back in", suspend(&server, "police", false)),
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
    server.permitted(&mut operator, &two(Route::ParticipantAdd, "newcomer", &["relying", "peer"])).await;
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

/// A grant of a license for the bank, made by a portal.
async fn granted(server: &Server, portal: &mut Party, license: &Issued) -> String {
    let body = grant(license.draft.holder(), &server.party("bank"), Target::License(license));
    portal.grant(&body).await
}

#[tokio::test]
async fn a_grant_ends_with_the_portal_that_made_it() {
    let mut server = setup().start().await;
    let [mut one, mut other, mut portal, mut portal2, mut both, mut bank] =
        ["operator", "operator2", "portal", "portal2", "both", "bank"].map(|name| server.party(name));
    let license = draft(&natural()).issue(&mut server.party("issuer")).await;
    // Who vouches for a holder grants nothing to itself.
    let own = grant(license.draft.holder(), &both, Target::License(&license));
    server.refused(&mut both, &Call::new(Route::GrantCreate, &own), Code::BadGrant).await;

    let of_portal = granted(&server, &mut portal, &license).await;
    let of_portal2 = granted(&server, &mut portal2, &license).await;
    let mut ended = Vec::new();
    let uses = [license.verify(Some(&of_portal2)), license.retrieve(&["holderName"], Some(&of_portal2))];
    let steps: [&[&str]; 3] = [&["relying"], &["portal"], &["issuer", "relying"]];
    for roles in [None].into_iter().chain(steps.map(Some)) {
        match roles {
            None => drop(server.permitted(&mut one, &suspend(&server, "portal2", true)).await),
            Some(roles) => drop(
                by_two([&mut one, &mut other], &registration(&server, "portal2", roles)).await.expect(200),
            ),
        }
        for call in &uses {
            if roles == Some(&["portal"]) {
                server.permitted(&mut bank, call).await;
            } else {
                ended.push(server.refused(&mut bank, call, Code::NotPermitted).await.1.open.index);
            }
            server.permitted(&mut bank, &license.verify(Some(&of_portal))).await;
        }
    }
    // Its registration's end is a portal's end too.
    let mut over = registration(&server, "portal2", &["portal"]);
    over["validUntil"] = json!("2026-01-02");
    by_two([&mut one, &mut other], &over).await.expect(200);
    for call in &uses {
        ended.push(server.refused(&mut bank, call, Code::NotPermitted).await.1.open.index);
    }
    // The holder confirms it elsewhere, and is heard there too.
    let confirmed = granted(&server, &mut portal, &license).await;
    server.permitted(&mut bank, &license.verify(Some(&confirmed))).await;
    assert_eq!(server.stop(), Some(0));
    let reasons = server.reasons();
    for index in ended {
        assert_eq!(reasons.get(&index), Some(&Reason::PortalInactive.number()), "entry {index}");
    }
    // The same from the journal alone.
    std::fs::remove_dir_all(server.folder.join("store")).unwrap();
    server.start();
    let mut bank = server.party("bank");
    server.refused(&mut bank, &uses[0], Code::NotPermitted).await;
    server.permitted(&mut bank, &license.verify(Some(&of_portal))).await;
}

#[tokio::test]
async fn a_delay_class_has_a_legal_basis_and_a_bound() {
    let server = setup().start().await;
    let [mut one, mut other, mut newcomer] =
        ["operator", "operator2", "newcomer"].map(|name| server.party(name));
    let with = |class: Value| {
        let mut wanted = registration(&server, "newcomer", &["relying"]);
        wanted["delays"] = json!({ "investigation": class });
        wanted
    };
    for (class, code) in [
        (json!({"days": 181, "legalBasis": "测试法第一条"}), Code::BadParticipant),
        (json!({"days": 3_660, "legalBasis": "测试法第一条"}), Code::BadParticipant),
        (json!({"days": 0, "legalBasis": "测试法第一条"}), Code::BadParticipant),
        (json!({"days": 30, "legalBasis": " "}), Code::BadParticipant),
        (json!({"days": 30}), Code::MalformedRequest),
        (json!(30), Code::MalformedRequest),
    ] {
        server.refused(&mut one, &propose(&with(class)), code).await;
    }
    let good = with(json!({"days": 180, "legalBasis": "测试法第一条"}));
    by_two([&mut one, &mut other], &good).await.expect(200);
    let license = draft(&legal()).issue(&mut server.party("issuer")).await;
    let mut body: Value = serde_json::from_slice(&license.verify(None).body).unwrap();
    body["use"]["delay"] = json!("investigation");
    server.permitted(&mut newcomer, &Call::new(Route::Verify, &body)).await;
    // Each trace counts it, whoever's it is, and nobody is told whose.
    let other_person = draft(&natural()).issue(&mut server.party("issuer")).await;
    for of in [license.draft.holder(), other_person.draft.holder()] {
        let trace = json!({"holder": tests::holder(of), "use": tests::use_context()});
        let reply = server.party("portal").send(&Call::new(Route::Trace, &trace)).await.expect(200);
        assert_eq!(reply.json["delayed"], json!({"uses": 1, "daysMax": 180}));
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
    assert_eq!(server.run(&change).status, Some(64));
    server.start();
    for name in ["newcomer", "operator2"] {
        server.permitted(&mut server.party(name), &rotate()).await;
    }
    server.refused(&mut server.party("bank"), &rotate(), Code::WrongRole).await;
    server.log_verify();
}

fn publish(definition: &Value) -> Call {
    let body = json!({"kind": "publish-type", "licenseType": definition, "reason": "测试"});
    Call::new(Route::Propose, &body)
}

fn approve_type(proposal: &Value, definition: &Value) -> Call {
    Call::new(Route::Approve, &json!({"proposal": proposal, "licenseType": definition}))
}

/// A folder as `exchange init` makes one has no type; what two operators publish is there, and only grows.
#[tokio::test]
async fn a_license_type_is_published_by_two_operators() {
    let mut server = setup().start().await;
    let [mut one, mut other] = ["operator", "operator2"].map(|name| server.party(name));
    let mut drafted = serde_json::to_value(natural()).unwrap();
    // Another type of the same authority, as it drafts one.
    let code = format!("{}{}", &natural().code.as_str()[..18], "999");
    drafted["code"] = json!(code);
    drafted["name"] = json!("测试证");
    let known = async |server: &Server| {
        let types = server.public("/v1/types").await.json["types"].as_array().unwrap().clone();
        types.into_iter().find(|one| one["code"] == json!(code))
    };
    let proposal = proposed(&mut one, &publish(&drafted)).await;
    assert_eq!(known(&server).await, None, "a proposal publishes nothing");
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut changed = drafted.clone();
        change(&mut changed);
        changed
    };
    let other_name = changed(&|definition| definition["name"] = json!("别的证"));
    refused_because(&server, &mut one, &approve_type(&proposal, &drafted), "own-proposal").await;
    refused_because(&server, &mut other, &approve(&proposal, None), "other-definition").await;
    refused_because(&server, &mut other, &approve_type(&proposal, &other_name), "other-definition").await;
    server.permitted(&mut other, &approve_type(&proposal, &drafted)).await;
    assert_eq!(known(&server).await, Some(drafted.clone()));
    refused_because(&server, &mut other, &approve_type(&proposal, &drafted), "proposal-closed").await;

    // What licenses and grants rest on stays: a grant names a field by its place.
    let more = changed(&|definition| {
        let mut field = definition["fields"][0].clone();
        (field["key"], field["required"]) = (json!("furtherName"), json!(false));
        definition["fields"].as_array_mut().unwrap().push(field);
    });
    for (what, bad) in [
        ("another kind of holders", changed(&|definition| definition["holders"] = json!("legal"))),
        (
            "not as few holders",
            changed(&|definition| {
                (definition["minHolders"], definition["maxHolders"]) = (json!(2), json!(2))
            }),
        ),
        ("not every kind of number", changed(&|definition| definition["holderTypes"] = json!(["414"]))),
        ("a field less", changed(&|definition| drop(definition["fields"].as_array_mut().unwrap().pop()))),
        ("another order", changed(&|definition| definition["fields"].as_array_mut().unwrap().swap(0, 1))),
        (
            "one before",
            changed(&|definition| {
                let last = more["fields"].as_array().unwrap().last().unwrap().clone();
                definition["fields"].as_array_mut().unwrap().insert(0, last);
            }),
        ),
        (
            "an open field",
            changed(&|definition| {
                for field in definition["fields"].as_array_mut().unwrap() {
                    field["sensitivity"] = json!(1);
                }
            }),
        ),
        ("no definition", json!({"code": code})),
        (
            "a wrong check character",
            changed(&|definition| definition["code"] = json!("11100000DE0000022C999")),
        ),
    ] {
        let reply = one.send(&publish(&bad)).await;
        assert_eq!((reply.status, reply.code()), (422, "bad-type"), "{what}");
    }
    let first = proposed(&mut one, &publish(&more)).await;
    let second = proposed(&mut one, &publish(&other_name)).await;
    server.permitted(&mut other, &approve_type(&first, &more)).await;
    refused_because(&server, &mut other, &approve_type(&second, &other_name), "proposal-closed").await;
    assert_eq!(known(&server).await, Some(more.clone()));

    // From the command line, and after a start from the journal alone.
    let file = server.folder.join("type.json");
    let mut again = more;
    again["nameEn"] = json!("Test certificate");
    std::fs::write(&file, again.to_string()).unwrap();
    let data = server.data.to_string();
    let file = file.to_str().unwrap().to_owned();
    let added = server.run(&["type", "add", &file, "--reason", "测试", "--json", "--server", &data]);
    assert_eq!(added.status, Some(0), "{added:?}");
    let added: Value = serde_json::from_str(&added.stdout).unwrap();
    let id = added["proposal"].as_str().unwrap().to_owned();
    let clients = server.folder.join("pki/clients");
    let [cert, key] = ["pem", "key"].map(|end| clients.join(format!("operator2.{end}")));
    let [cert, key] = [&cert, &key].map(|path| path.to_str().unwrap().to_owned());
    let approval = ["approve", &id, "--type", &file, "--server", &data, "--cert", &cert, "--key", &key];
    let approved = server.run(&approval);
    assert_eq!(approved.status, Some(0), "{approved:?}");
    let listed = server.run(&["proposals", "list", "--server", &data]);
    let listed: Vec<Value> = listed.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let state = |proposal: &Value| {
        let row = listed.iter().find(|row| row["proposal"] == *proposal).unwrap();
        (row["kind"].clone(), row["state"].clone(), row["typeCode"].clone())
    };
    let row = |state: &str| (json!("publish-type"), json!(state), json!(code));
    assert_eq!([&first, &second, &json!(id)].map(state), ["approved", "open", "approved"].map(row));
    assert_eq!(server.stop(), Some(0));
    std::fs::remove_dir_all(server.folder.join("store")).unwrap();
    server.start();
    assert_eq!(known(&server).await, Some(again));
}

/// All rows of a list, in pages of two, and how many pages that were.
async fn pages_of_two(
    server: &Server,
    party: &mut Party,
    route: Route,
    member: &str,
    asked: &Value,
) -> (Vec<Value>, usize) {
    let (mut rows, mut asked, mut pages) = (Vec::new(), asked.clone(), 0);
    asked["limit"] = json!(2);
    loop {
        let (reply, _) = server.permitted(party, &Call::new(route, &asked)).await;
        let more = reply.json[member].as_array().unwrap().clone();
        assert!(more.len() <= 2 && reply.json["asOf"].is_string(), "{}", reply.json);
        rows.extend(more);
        pages += 1;
        match &reply.json["next"] {
            Value::Null => return (rows, pages),
            next => asked["after"] = next.clone(),
        }
    }
}

#[tokio::test]
async fn lists_come_in_pages_of_what_a_role_may_see() {
    let server = setup().start().await;
    let [mut issuer, mut portal, mut bank, mut auditor, mut operator] =
        ["issuer", "portal", "bank", "auditor", "operator"].map(|name| server.party(name));
    let page = |route: Route, body: &Value| Call::new(route, body);
    let all = async |party: &mut Party, route: Route, member: &str, asked: &Value| {
        pages_of_two(&server, party, route, member, asked).await
    };
    let (rows, pages) = all(&mut operator, Route::ParticipantList, "participants", &json!({})).await;
    let mut codes: Vec<&str> = rows.iter().map(|row| row["organisation"].as_str().unwrap()).collect();
    codes.sort_unstable();
    codes.dedup();
    // Eight of the development folder and four of this test; the newcomer is not registered.
    assert_eq!((rows.len(), codes.len(), pages), (12, 12, 6));
    assert_eq!(all(&mut auditor, Route::ParticipantList, "participants", &json!({})).await.0, rows);
    let (own, _) = all(&mut bank, Route::ParticipantList, "participants", &json!({})).await;
    assert_eq!(own.len(), 1);
    assert_eq!(own[0]["organisation"], json!(bank.organisation.as_str()));
    for bad in [json!({"limit": 0}), json!({"limit": 101}), json!({"after": "x"}), json!({"all": true})] {
        let reply = operator.send(&page(Route::ParticipantList, &bad)).await;
        assert_eq!(reply.status, 400, "{bad}");
    }

    // Grants: the portal's of one holder, ended ones too; the bank's own, as far as they give a right.
    let [a, b] = [draft(&natural()).issue(&mut issuer).await, draft(&natural()).issue(&mut issuer).await];
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(granted(&server, &mut portal, &a).await);
    }
    let of_b = granted(&server, &mut portal, &b).await;
    let mut of_type = grant(a.draft.holder(), &server.party("approval"), Target::Type(&natural()));
    of_type["maxUses"] = json!(2);
    let approval = json!(portal.grant(&of_type).await);
    portal.send(&tests::revoke(a.draft.holder(), &made[0])).await.expect(200);
    let ids = |rows: &[Value]| -> std::collections::BTreeSet<String> {
        rows.iter().map(|row| row["grant"].as_str().unwrap().to_owned()).collect()
    };
    let set = |ids: &[&String]| ids.iter().map(|id| (*id).clone()).collect::<std::collections::BTreeSet<_>>();
    let asked = json!({"holder": tests::holder(a.draft.holder())});
    let (rows, pages) = all(&mut portal, Route::GrantSearch, "grants", &asked).await;
    let approval = approval.as_str().unwrap().to_owned();
    assert_eq!((ids(&rows), pages), (set(&[&made[0], &made[1], &made[2], &approval]), 2));
    for row in &rows {
        let ended = row["grant"] == json!(made[0]);
        assert_eq!(row["state"], json!(if ended { "revoked" } else { "active" }));
        if row["grant"] == json!(approval) {
            assert_eq!((&row["typeCode"], &row["maxUses"]), (&json!(natural().code.as_str()), &json!(2)));
        } else {
            assert_eq!(row["identifier"], json!(a.identifier));
            assert_eq!(row["fields"], json!(["certificateNumber", "holderName"]));
        }
    }
    let (rows, _) = all(&mut bank, Route::GrantSearch, "grants", &json!({})).await;
    assert_eq!(ids(&rows), set(&[&made[1], &made[2], &of_b]), "no other's, and none that is revoked");
    // Each works as it is listed, and the holders are told of the list.
    server.permitted(&mut bank, &a.verify(Some(&made[1]))).await;
    let stranger = json!({"holder": tests::holder(draft(&natural()).holder())});
    assert_eq!(all(&mut portal, Route::GrantSearch, "grants", &stranger).await.0, Vec::<Value>::new());
    server.refused(&mut bank, &page(Route::GrantSearch, &asked), Code::WrongRole).await;
    let (reply, entry) = server.permitted(&mut bank, &page(Route::GrantSearch, &json!({}))).await;
    assert_eq!(entry.open.labels, verifier::leaf::Labels::List(Vec::new()), "{}", reply.json);
    let trace = json!({"holder": tests::holder(b.draft.holder()), "use": tests::use_context()});
    server.proof(reply.receipt().index).await;
    let shown = portal.send(&Call::new(Route::Trace, &trace)).await.expect(200);
    let entries = shown.json["entries"].as_array().unwrap();
    assert!(entries.iter().any(|shown| shown["entry"]["index"] == json!(entry.open.index)));
}

#[tokio::test]
async fn an_authority_lists_its_own_licenses_and_no_others() {
    let mut server = setup().authority("authority2").start().await;
    let [mut issuer, mut other] = ["issuer", "authority2"].map(|name| server.party(name));
    let whole = async |server: &Server, party: &mut Party, asked: &Value| {
        pages_of_two(server, party, Route::IssuedList, "licenses", asked).await
    };
    assert_eq!(whole(&server, &mut issuer, &json!({})).await, (Vec::new(), 1));
    let mut made = Vec::new();
    for license_type in [natural(), natural(), natural(), legal(), legal()] {
        made.push(draft(&license_type).issue(&mut issuer).await);
    }
    let foreign = draft(&natural()).issue(&mut other).await;
    issuer.send(&made[0].operation("05", Some("07"))).await.expect(200);
    let changed = issuer.send(&made[1].operation_with("09", &made[1].draft)).await.expect(200);
    // The newest version's identifier is the one listed.
    let changed = changed.json["identifier"].as_str().unwrap().to_owned();
    assert_ne!(changed, made[1].identifier);

    let identifiers = |rows: &[Value]| {
        rows.iter().map(|row| row["identifier"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let sorted = |mut all: Vec<String>| {
        all.sort_unstable();
        all
    };
    let (rows, pages) = whole(&server, &mut issuer, &json!({})).await;
    let [a, c, d, e] = [0, 2, 3, 4].map(|number| made[number].identifier.clone());
    assert_eq!(pages, 3);
    assert_eq!(
        sorted(identifiers(&rows)),
        sorted(vec![a.clone(), changed.clone(), c.clone(), d.clone(), e.clone()])
    );
    for row in &rows {
        let draft = made.iter().find(|made| row["identifier"] == json!(made.identifier)).unwrap_or(&made[1]);
        let draft = draft.draft.value();
        let ended = row["identifier"] == json!(a);
        let mut wanted = json!({
            "identifier": row["identifier"], "state": if ended { "07" } else { "01" }, "inForce": !ended,
            "validFrom": draft["validFrom"],
        });
        if !draft["validUntil"].is_null() {
            wanted["validUntil"] = draft["validUntil"].clone();
        }
        assert_eq!(*row, wanted, "nothing of holders, and no more");
    }
    assert_eq!(identifiers(&whole(&server, &mut other, &json!({})).await.0), from_ref(&foreign.identifier));
    let (_, entry) = server.permitted(&mut issuer, &Call::new(Route::IssuedList, &json!({}))).await;
    assert_eq!(entry.open.labels, verifier::leaf::Labels::List(Vec::new()));

    let filtered = [
        (json!({"typeCode": legal().code.as_str()}), vec![d.clone(), e.clone()]),
        (json!({"state": "07"}), vec![a.clone()]),
        (json!({"state": "01", "typeCode": natural().code.as_str()}), vec![changed.clone(), c.clone()]),
        (json!({"state": "02"}), Vec::new()),
    ];
    for (asked, wanted) in filtered {
        let (rows, _) = whole(&server, &mut issuer, &asked).await;
        assert_eq!(sorted(identifiers(&rows)), sorted(wanted), "{asked}");
    }
    for bad in [json!({"limit": 0}), json!({"after": "x"}), json!({"state": "1"}), json!({"issuer": "x"})] {
        assert_eq!(issuer.send(&Call::new(Route::IssuedList, &bad)).await.status, 400, "{bad}");
    }
    let listed = |server: &Server, more: &[&str]| {
        let data = server.data.to_string();
        let finished = server.run(&[&["license", "list", "--server", &data], more].concat());
        assert_eq!(finished.status, Some(0), "{finished:?}");
        finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    assert_eq!(listed(&server, &[]), rows);
    assert_eq!(identifiers(&listed(&server, &["--state", "07", "--type", natural().code.as_str()])), [a]);

    // The same from the image, from the journal alone, and from an image made anew.
    drop((issuer, other));
    for (gone, anew) in [(false, false), (true, false), (true, true)] {
        assert_eq!(server.stop(), Some(0));
        if gone {
            std::fs::remove_dir_all(server.folder.join("store")).unwrap();
        }
        if anew {
            assert_eq!(server.run(&["rebuild"]).status, Some(0));
        }
        server.start();
        assert_eq!(whole(&server, &mut server.party("issuer"), &json!({})).await.0, rows, "{gone} {anew}");
        let (others, _) = whole(&server, &mut server.party("authority2"), &json!({})).await;
        assert_eq!(identifiers(&others), from_ref(&foreign.identifier));
    }
}
