//! Policies in Cedar: two operators publish them, every decision rests on them, and nothing that they permit lifts the floor.

use std::path::PathBuf;

use schemas::codes::{Code, Reason};
use schemas::policy::ROLES;
use schemas::routes::Route;
use serde_json::{Value, json};
use tests::{Call, Issued, Server, Setup, Target, draft, eventually, grant, natural};

/// The rules of the roles, and one purpose that relying parties may not have for a type.
fn stricter(license: &Issued) -> String {
    let code = license.draft.value()["identifier"]["typeCode"].as_str().map(str::to_owned);
    let code = code.unwrap_or_else(|| natural().code.to_string());
    format!(
        "{ROLES}
@id(\"no insurance\")
forbid (principal in Role::\"relying\", action in [Action::\"verify\", Action::\"retrieve\"], resource == LicenseType::\"{code}\")
when {{ context has purpose && context.purpose == \"保险\" }};
"
    )
}

fn for_purpose(call: &Call, purpose: &str) -> Call {
    let mut body: Value = serde_json::from_slice(&call.body).unwrap();
    body["use"]["purpose"] = json!(purpose);
    call.clone().with_body(body.to_string())
}

/// Writes down where the server listens, for commands.
fn listens(server: &mut Server) {
    let (data, public) = (server.data, server.public);
    server.configure(|config| (config.listen.data, config.listen.public) = (data, public));
}

fn file(server: &Server, name: &str, text: &str) -> PathBuf {
    let path = server.folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// Two operators publish policies by the commands; the index of the approval.
async fn published(server: &Server, text: &str) -> u64 {
    let path = file(server, "published.cedar", text);
    let path = path.to_str().unwrap();
    let proposed = server.run(&["policy", "propose", path, "--reason", "测试"]);
    assert_eq!(proposed.status, Some(0), "{proposed:?}");
    let proposed: Value = serde_json::from_str(&proposed.stdout).unwrap();
    let id = proposed["proposal"].as_str().unwrap();
    let blind = server.run(&["approve", id, "--as", "operator2"]);
    assert_eq!(blind.status, Some(1), "{blind:?}");
    let approved = server.run(&["approve", id, "--policy", path, "--as", "operator2"]);
    assert_eq!(approved.status, Some(0), "{approved:?}");
    let approved: Value = serde_json::from_str(&approved.stdout).unwrap();
    assert_eq!((&approved["kind"], &approved["state"]), (&json!("publish-policies"), &json!("approved")));
    server.size().await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_operators_tighten_a_purpose_and_put_the_old_policies_back() {
    let mut server = Setup::new().start().await;
    listens(&mut server);
    let license = draft(&natural()).issue(&mut server.party("issuer")).await;
    let mut bank = server.party("bank");
    let right =
        server.party("portal").grant(&grant(license.draft.holder(), &bank, Target::License(&license))).await;
    let uses = [license.verify(Some(&right)), license.retrieve(&["holderName"], Some(&right))];
    let insurance: Vec<Call> = uses.iter().map(|call| for_purpose(call, "保险")).collect();
    let mut before = Vec::new();
    for call in uses.iter().chain(&insurance) {
        before.push(server.permitted(&mut bank, call).await.1.open.policy);
    }
    let strict = stricter(&license);
    published(&server, &strict).await;
    let stranger = server.refused(&mut server.party("approval"), &uses[0], Code::NotPermitted).await.0;
    let mut denied = Vec::new();
    for call in &insurance {
        let (reply, entry) = server.refused(&mut bank, call, Code::NotPermitted).await;
        // Nobody learns that policies did it.
        let without = |reply: &Value| {
            let mut value = reply.clone();
            value.as_object_mut().unwrap().remove("receipt");
            value.as_object_mut().unwrap().remove("instance");
            value
        };
        assert_eq!(without(&reply.json), without(&stranger.json));
        assert_ne!(entry.open.policy, before[0]);
        denied.push(entry.open.index);
    }
    for call in &uses {
        server.permitted(&mut bank, call).await;
        server.permitted(&mut bank, &for_purpose(call, "贷款")).await;
    }
    // The same after a start, and from the journal alone.
    for from_journal in [false, true] {
        assert_eq!(server.stop(), Some(0));
        if from_journal {
            std::fs::remove_dir_all(server.folder.join("store")).unwrap();
        }
        server.start();
        listens(&mut server);
        denied.push(
            server.refused(&mut server.party("bank"), &insurance[0], Code::NotPermitted).await.1.open.index,
        );
    }
    let shown = server.run(&["policy", "show"]);
    assert_eq!((shown.status, shown.stdout.trim_end()), (Some(0), strict.trim_end()));
    let of_auditor = server.run(&["policy", "show", "--json", "--as", "auditor"]);
    let of_auditor: Value = serde_json::from_str(&of_auditor.stdout).unwrap();
    assert_eq!(of_auditor["version"], 1);
    server
        .refused(&mut server.party("bank"), &Call::new(Route::PolicyShow, &json!({})), Code::WrongRole)
        .await;

    // The old ones back, whose hash is the old one: the text decides it.
    published(&server, ROLES).await;
    let (_, entry) = server.permitted(&mut server.party("bank"), &insurance[0]).await;
    assert_eq!(entry.open.policy, before[0]);
    // A set that permits all lifts nothing.
    published(&server, "permit (principal, action, resource);\n").await;
    server.refused(&mut server.party("approval"), &uses[0], Code::NotPermitted).await;
    let trace = json!({"holder": tests::holder(license.draft.holder()), "use": tests::use_context()});
    server.refused(&mut server.party("issuer"), &Call::new(Route::Trace, &trace), Code::WrongRole).await;
    let search = Call::new(Route::GrantSearch, &json!({}));
    server.refused(&mut server.party("operator"), &search, Code::WrongRole).await;
    server.permitted(&mut server.party("bank"), &insurance[1]).await;
    // What was answered is answered again while policies permit it, and not longer.
    let keyed = draft(&natural()).call();
    let (issued, _) = server.permitted(&mut server.party("issuer"), &keyed).await;
    let repeated = server.party("issuer").send(&keyed).await.expect(201);
    assert_eq!(repeated.hashed(), issued.hashed());
    // One that permits nothing locks nobody out who replaces it.
    published(&server, "").await;
    let (_, entry) = server.refused(&mut server.party("issuer"), &keyed, Code::NotPermitted).await;
    denied.push(entry.open.index);
    denied.push(server.refused(&mut server.party("bank"), &uses[0], Code::NotPermitted).await.1.open.index);
    published(&server, ROLES).await;
    server.permitted(&mut server.party("bank"), &uses[0]).await;
    assert_eq!(server.stop(), Some(0));
    let reasons = server.reasons();
    for index in denied {
        assert_eq!(reasons.get(&index), Some(&Reason::PolicyDenied.number()), "entry {index}");
    }
    server.log_verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_a_bundle_and_a_question_are_asked_as_the_use_that_they_are_about() {
    let mut server = Setup::new().start().await;
    listens(&mut server);
    let license = draft(&natural()).issue(&mut server.party("issuer")).await;
    let mut bank = server.party("bank");
    let right =
        server.party("portal").grant(&grant(license.draft.holder(), &bank, Target::License(&license))).await;
    let verify = license.verify(Some(&right));
    let retrieve = license.retrieve(&["holderName"], Some(&right));
    let part = |name: &str, of: &Call| {
        let body: Value = serde_json::from_slice(&of.body).unwrap();
        Call::new(Route::Bundle, &json!({ name: body }))
    };
    let (by_bundle, retrieved) = (part("verify", &verify), part("retrieve", &retrieve));
    server.permitted(&mut bank, &by_bundle).await;
    let forbid = |action: &str| {
        let organisation = bank.organisation;
        format!(
            "{ROLES}\nforbid (principal == Organisation::\"{organisation}\", action == Action::\"{action}\", resource);\n"
        )
    };
    let (no_verify, no_retrieve) = (forbid("verify"), forbid("retrieve"));
    published(&server, &no_verify).await;
    server.refused(&mut bank, &verify, Code::NotPermitted).await;
    server.refused(&mut bank, &by_bundle, Code::NotPermitted).await;
    server.permitted(&mut bank, &retrieved).await;
    published(&server, &no_retrieve).await;
    server.refused(&mut bank, &retrieved, Code::NotPermitted).await;
    server.permitted(&mut bank, &by_bundle).await;

    // Many questions are each asked by what they say, and the whole of them says nothing.
    published(
        &server,
        &format!("{ROLES}\nforbid (principal, action == Action::\"verify\", resource) unless {{ context has purpose && context.purpose == \"贷款\" }};\n"),
    )
    .await;
    let context = |purpose: &str| {
        let mut context = tests::use_context();
        context["purpose"] = json!(purpose);
        json!({"grant": right, "use": context})
    };
    let many = json!({
        "subject": {"type": "organisation", "id": bank.organisation}, "action": {"name": "verify"},
        "resource": {"type": "license", "id": license.identifier},
        "evaluations": [{"context": context("贷款")}, {"context": context("保险")}],
    });
    let reply = bank.send(&Call::new(Route::Evaluations, &many)).await.expect(200);
    let decisions: Vec<&Value> =
        reply.json["evaluations"].as_array().unwrap().iter().map(|one| &one["decision"]).collect();
    assert_eq!(decisions, [&json!(true), &json!(false)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_is_named_by_its_place_and_what_is_in_force_stays() {
    let server = Setup::new().start().await;
    let mut operator = server.party("operator");
    let syntax = file(&server, "syntax.cedar", &format!("{ROLES}\npermit (principal, action, resource)\n"));
    let schema = file(&server, "schema.cedar", "permit (principal in Role::\"bank\", action, resource);\n");
    let propose = |text: &str| {
        let body = json!({"kind": "publish-policies", "policies": text, "reason": "测试"});
        Call::new(Route::Propose, &body)
    };
    for (path, line) in [(&syntax, ROLES.lines().count() + 2), (&schema, 1)] {
        for words in [&["policy", "check"][..], &["policy", "propose", "--reason", "测试"]] {
            let mut all = words.to_vec();
            all.push(path.to_str().unwrap());
            let mut command = tests::command();
            command.args(&all);
            if words[1] == "propose" {
                command.arg("--data").arg(&server.folder);
            }
            let output = command.output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains(&format!("line {line}, column ")), "{said}");
        }
        let text = std::fs::read_to_string(path).unwrap();
        let (reply, _) = server.refused(&mut operator, &propose(&text), Code::BadPolicy).await;
        assert_eq!(reply.json["errors"][0]["pointer"], "/policies", "{}", reply.json);
        assert!(reply.json.to_string().contains(&format!("line {line}, column ")), "{}", reply.json);
    }
    assert_eq!(server.answers(Route::Propose, Code::BadPolicy).await, 2);
    assert!(server.stderr().contains("policies were refused"), "{}", server.stderr());
    let shown = operator.send(&Call::new(Route::PolicyShow, &json!({}))).await.expect(200);
    assert_eq!((&shown.json["version"], &shown.json["policies"]), (&json!(0), &json!(ROLES)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_is_asked_before_policies_are_published() {
    let mut server = Setup::new().start().await;
    listens(&mut server);
    let license = draft(&natural()).issue(&mut server.party("issuer")).await;
    let mut bank = server.party("bank");
    let right =
        server.party("portal").grant(&grant(license.draft.holder(), &bank, Target::License(&license))).await;
    let (verify, since) = (license.verify(Some(&right)), "2020-01-01T00:00:00Z");
    for purpose in ["贷款", "保险", "保险"] {
        server.permitted(&mut bank, &for_purpose(&verify, purpose).in_new_case()).await;
    }
    server.refused(&mut server.party("approval"), &for_purpose(&verify, "保险"), Code::NotPermitted).await;
    let strict = file(&server, "stricter.cedar", &stricter(&license));
    let roles = file(&server, "roles.cedar", ROLES);
    // The newest entries are read when the public log has them.
    let replay = async |path: Option<&PathBuf>, least: u64| {
        let mut words = vec!["policy", "replay", "--since", since, "--json"];
        if let Some(path) = path {
            words.extend(["--policy", path.to_str().unwrap()]);
        }
        eventually("the decisions in the log", || async {
            let replayed = server.run(&words);
            assert_eq!(replayed.status, Some(0), "{replayed:?}");
            let replayed: Value = serde_json::from_str(&replayed.stdout).unwrap();
            (replayed["decisions"].as_u64().unwrap() >= least).then_some(replayed)
        })
        .await
    };
    let bank_code = server.organisation("bank").to_string();
    let row = |loses: u64, gains: u64| {
        json!([{"organisation": bank_code, "action": "verify", "licenseType": natural().code.as_str(),
            "loses": loses, "gains": gains}])
    };
    // Issued, granted, used three times, refused.
    let lost = replay(Some(&strict), 6).await;
    assert_eq!(
        (&lost["changes"], &lost["gains"], &lost["cannotTell"]),
        (&row(2, 0), &json!(0), &json!(0)),
        "{lost}"
    );
    let same = replay(None, 6).await;
    assert_eq!((&same["changes"], &same["loses"]), (&json!([]), &json!(0)), "{same}");
    let text = server.run(&["policy", "replay", "--since", since, "--policy", strict.to_str().unwrap()]);
    assert!(text.stdout.contains("loses 2, gains 0") && text.stdout.contains("cannot tell: 0"), "{text:?}");

    // What was denied under these would be permitted under the old ones.
    published(&server, &stricter(&license)).await;
    server.refused(&mut bank, &for_purpose(&verify, "保险"), Code::NotPermitted).await;
    let gained = eventually("the refusal in the log", || async {
        let gained = replay(Some(&roles), 6).await;
        (gained["gains"] == 1).then_some(gained)
    })
    .await;
    assert_eq!(gained["changes"], row(0, 1), "{gained}");

    // A policy that the log alone cannot answer.
    let of_type = "permit (principal, action, resource) when { resource.holders == \"natural\" };";
    let of_type = file(&server, "type.cedar", of_type);
    let cannot = replay(Some(&of_type), 6).await;
    assert!(cannot["cannotTell"].as_u64().unwrap() > 0, "{cannot}");
    let uncached = "@id(\"case\") permit (principal, action, resource) when { context has caseNumber };";
    let uncached = file(&server, "uncached.cedar", uncached);
    let checked = tests::command().args(["policy", "check", uncached.to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8(checked.stdout).unwrap();
    assert!(said.contains("uncached: case reads caseNumber") && said.contains("1 policies"), "{said}");
}
