//! What a right shows and what it does not: masks, commitments to the fields that left, annotated copies, lists of intended uses, who
//! stands for whom, and questions whether a use would be permitted.

use std::fs;

use schemas::codes::{Code, Decision};
use schemas::license_type::LicenseType;
use schemas::routes::Route;
use schemas::synthetic::Synthetic;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{
    Call, Issued, Party, Reply, Server, Setup, Target, draft, eventually, grant, holder, key, legal, natural,
    now_ms, shared, use_context,
};
use verifier::leaf::{ActingFor, Party as Somebody};

const PURPOSE: &str = "贷款审核";

fn setup() -> Setup {
    Setup::new()
        .participant("listed", |listed| listed.intended_use = true)
        .participant("agent", |agent| agent.name = "测试代办单位".to_owned())
}

fn with(call: &Call, more: &Value) -> Call {
    let mut body: Value = serde_json::from_slice(&call.body).unwrap();
    for (pointer, value) in more.as_object().unwrap() {
        match pointer.strip_prefix("use.") {
            Some(name) => body["use"][name] = value.clone(),
            None => body[pointer] = value.clone(),
        }
    }
    Call::new(call.route, &body)
}

/// A server on which two operators have published the type of identity cards with masks.
async fn masked() -> Server {
    let server = setup().start().await;
    let mut definition = serde_json::to_value(natural()).unwrap();
    definition["masks"] = json!([
        {"field": "holderNumber", "show": "ends", "clearFor": [PURPOSE]}, {"field": "ethnicity", "show": "nothing"},
    ]);
    let [mut one, mut other] = ["operator", "operator2"].map(|name| server.party(name));
    let wrong = |field: &str| {
        let mut wrong = definition.clone();
        wrong["masks"][0]["field"] = json!(field);
        Call::new(Route::Propose, &json!({"kind": "publish-type", "licenseType": wrong, "reason": "测试"}))
    };
    server.refused(&mut one, &wrong("shoeSize"), Code::BadType).await;
    server.refused(&mut one, &wrong("ethnicity"), Code::BadType).await;
    publish(&mut one, &mut other, &definition).await;
    server
}

/// Two operators publish the definition of a type.
async fn publish(one: &mut Party, other: &mut Party, definition: &Value) {
    let propose = json!({"kind": "publish-type", "licenseType": definition, "reason": "测试"});
    let proposal = one.send(&Call::new(Route::Propose, &propose)).await.expect(201).json["proposal"].clone();
    let approve = json!({"proposal": proposal, "licenseType": definition});
    other.send(&Call::new(Route::Approve, &approve)).await.expect(200);
}

#[tokio::test]
async fn a_new_mask_holds_for_answers_that_are_given_again_and_for_searches() {
    let server = setup().start().await;
    let [mut one, mut other, mut bank] = ["operator", "operator2", "bank"].map(|name| server.party(name));
    let (license, _) = granted(&server, &bank, &natural()).await;
    let number = license.draft.license.certificate_number.as_str().to_owned();
    let by_type = grant(license.draft.holder(), &bank, Target::Type(&natural()));
    let by_type = server.party("portal").grant(&by_type).await;
    let first = license.retrieve(&["certificateNumber", "holderName"], Some(&by_type)).key(&key());
    let (clear, _) = server.permitted(&mut bank, &first).await;
    assert_eq!(clear.json["fields"]["certificateNumber"], json!(number));
    assert_eq!(bank.send(&first).await.expect(200).hashed(), clear.hashed());
    let search = Call::new(
        Route::Search,
        &json!({"holder": holder(license.draft.holder()), "typeCode": natural().code, "grant": by_type,
            "use": use_context()}),
    );
    let (found, _) = server.permitted(&mut bank, &search).await;
    assert_eq!(found.json["licenses"][0]["certificateNumber"], json!(number));

    let mut definition = serde_json::to_value(natural()).unwrap();
    definition["masks"] = json!([{"field": "certificateNumber", "show": "ends"}]);
    publish(&mut one, &mut other, &definition).await;
    let again = bank.send(&first).await.expect(200);
    assert_eq!(again.json["masked"], json!(["certificateNumber"]));
    assert!(!String::from_utf8_lossy(&again.body).contains(&number));
    let (found, _) = server.permitted(&mut bank, &search).await;
    assert_eq!(found.json["licenses"][0]["masked"], json!(["certificateNumber"]));
    assert!(!String::from_utf8_lossy(&found.body).contains(&number));
}

/// A license of a person, and a grant of everything to a caller.
async fn granted(server: &Server, to: &Party, license_type: &LicenseType) -> (Issued, String) {
    let [mut issuer, mut portal] = ["issuer", "portal"].map(|name| server.party(name));
    let license = draft(license_type).issue(&mut issuer).await;
    let fields: Vec<&str> = license_type.fields.iter().map(|field| field.key.as_str()).collect();
    let mut terms = grant(license.draft.holder(), to, Target::License(&license));
    terms["fields"] = json!([fields, vec!["holderNumber", "holderName"]].concat());
    let right = portal.grant(&terms).await;
    (license, right)
}

fn of_mode(license: &Issued, mode: &str, right: &str) -> Call {
    with(&license.retrieve(&[], Some(right)), &json!({"mode": mode}))
}

/// The page of a holder's trace that has the entry of an answer.
async fn traced(server: &Server, license: &Issued, reply: &Reply) -> Reply {
    let index = reply.receipt().index;
    let trace = json!({"holder": holder(license.draft.holder()), "use": use_context()});
    eventually("the entry in the trace", || {
        let (mut portal, trace) = (server.party("portal"), Call::new(Route::Trace, &trace));
        async move {
            let page = portal.send(&trace).await.expect(200);
            entry_of(&page, index).is_some().then_some(page)
        }
    })
    .await
}

fn entry_of(page: &Reply, index: u64) -> Option<&Value> {
    page.json["entries"].as_array().unwrap().iter().find(|entry| entry["entry"]["index"] == json!(index))
}

fn told(entry: &Value) -> Value {
    serde_json::from_str(entry["told"]["document"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn a_masked_field_leaves_masked_wherever_its_value_stands_and_its_commitment_opens() {
    let server = masked().await;
    let [mut issuer, mut bank] = ["issuer", "bank"].map(|name| server.party(name));
    let (license, right) = granted(&server, &bank, &natural()).await;
    let number = license.draft.holder().number().to_owned();
    let shown = format!("{}**********{}", &number[..4], &number[14..]);
    let (face, _) = server.permitted(&mut bank, &of_mode(&license, "face", &right)).await;
    // The field that repeats the number is masked with it.
    assert_eq!(face.json["masked"], json!(["citizenNumber", "ethnicity", "holderNumber"]));
    assert_eq!(face.json["fields"]["holderNumber"], json!(shown));
    assert_eq!(face.json["fields"]["citizenNumber"], json!(shown));
    assert_eq!(face.json["fields"]["ethnicity"], json!("****"));
    assert!(!String::from_utf8_lossy(&face.body).contains(&number));
    let only = with(&license.retrieve(&["citizenNumber"], Some(&right)), &json!({}));
    for call in [only.clone().machine(), of_mode(&license, "copy", &right).machine()] {
        let reply = bank.send(&call).await.expect(200);
        assert!(!String::from_utf8_lossy(&reply.body).contains(&number));
        let said = tests::machine::decode(Route::Retrieve, &reply.body);
        assert_eq!(said["fields"]["citizenNumber"], json!(shown), "{said}");
        assert!(said["masked"].as_array().unwrap().contains(&json!("citizenNumber")));
    }
    let (only, _) = server.permitted(&mut bank, &only).await;
    assert_eq!(
        (&only.json["masked"], &only.json["fields"]),
        (&json!(["citizenNumber"]), &json!({"citizenNumber": shown}))
    );
    // A code that the holder shows lifts no mask either.
    let code = json!({"holder": holder(license.draft.holder()), "identifier": license.identifier, "verifiers": "any",
        "fields": ["citizenNumber"]});
    let minted = server.party("portal").send(&Call::new(Route::CodeMint, &code)).await.expect(201);
    let scan = json!({"code": minted.json["text"], "fields": ["citizenNumber"], "use": use_context()});
    let (scanned, _) = server.permitted(&mut bank, &Call::new(Route::CodeScan, &scan)).await;
    assert_eq!(
        (&scanned.json["masked"], &scanned.json["fields"]),
        (&json!(["citizenNumber"]), &json!({"citizenNumber": shown}))
    );
    // In clear for a purpose that the type names; what no purpose lifts stays masked. The issuer sees its own license.
    let clear = with(&of_mode(&license, "face", &right), &json!({"use.purpose": PURPOSE}));
    let (clear, _) = server.permitted(&mut bank, &clear).await;
    assert_eq!(
        (&clear.json["masked"], &clear.json["fields"]["citizenNumber"]),
        (&json!(["ethnicity"]), &json!(number))
    );
    let own = with(&license.retrieve(&[], None), &json!({"mode": "face"}));
    let (own, _) = server.permitted(&mut issuer, &own).await;
    assert_eq!((&own.json["masked"], &own.json["fields"]["holderNumber"]), (&Value::Null, &json!(number)));

    // What left stands in the trace by name, and a value opens its commitment: as it left, and no other.
    let page = traced(&server, &license, &clear).await;
    let folder = TempDir::new().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let pages = file("trace", &page.body);
    let opens = |reply: &Reply, name: &str, value: &str| {
        let (index, value) = (reply.receipt().index.to_string(), file("value", value.as_bytes()));
        let words = ["trace", &pages, "--entry", &index, "--field", name, "--value", &value];
        server.verifier(&words).stdout
    };
    for (reply, value) in [(&clear, &number), (&face, &shown)] {
        let said = told(entry_of(&page, reply.receipt().index).unwrap());
        let names: Vec<&String> = reply.json["fields"].as_object().unwrap().keys().collect();
        assert_eq!(said["fields"], json!(names));
        assert_eq!(said["masked"], reply.json["masked"]);
        assert_eq!(said["commitments"].as_array().unwrap().len(), names.len());
        let opened = opens(reply, "citizenNumber", value);
        assert!(!opened.contains("field-mismatch") && opened.contains("field"), "{opened}");
        assert!(opens(reply, "sex", value).contains("field-mismatch"));
        assert!(opens(reply, "shoeSize", value).contains("field-mismatch"));
    }
    assert!(opens(&clear, "citizenNumber", &shown).contains("field-mismatch"));
    assert!(opens(&face, "citizenNumber", &number).contains("field-mismatch"));

    // The auditor sees which fields left, bound to the entry, and neither a value nor what would open one.
    let query = json!({"purpose": "检查", "userName": "审计员", "license": license.identifier});
    let answers = eventually("the entry in the query", || {
        let (mut auditor, query) = (server.party("auditor"), Call::new(Route::LogQuery, &query));
        let index = clear.receipt().index;
        async move {
            let page = auditor.send(&query).await.expect(200);
            entry_of(&page, index).is_some().then_some(page)
        }
    })
    .await;
    let text = String::from_utf8_lossy(&answers.body).into_owned();
    assert!(!text.contains(&number) && !text.contains("fieldSalt"));
    assert_eq!(server.verify_pages("audit", std::slice::from_ref(&answers.body)).status, Some(0));
    let bare = String::from_utf8(answers.hashed()).unwrap();
    assert_eq!(server.verify_pages("audit", &[bare.clone().into()]).status, Some(0));
    let fewer = bare.replacen("\\\"fields\\\":[\\\"address\\\",", "\\\"fields\\\":[", 1);
    assert_ne!(fewer, bare);
    assert_eq!(server.verify_pages("audit", &[fewer.into()]).status, Some(1));
}

#[tokio::test]
async fn a_copy_says_for_whom_and_what_it_is_and_leaves_the_original_as_it_was() {
    let server = masked().await;
    let mut bank = server.party("bank");
    let (license, right) = granted(&server, &bank, &natural()).await;
    let call = with(&of_mode(&license, "copy", &right), &json!({"use.purpose": PURPOSE}));
    let (copy, _) = server.permitted(&mut bank, &call).await;
    let note = &copy.json["annotation"];
    assert_eq!((&note["creator"], &note["purpose"]), (&json!(bank.organisation), &json!(PURPOSE)));
    assert!(note["createdAt"].is_string() && note["expiresAt"].is_string());
    let folder = TempDir::new().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let original = file("original", &license.envelope);
    let check = |original: &str, copy: &[u8]| {
        let finished = server.verifier(&["license", original, "--copy", &file("copy", copy)]);
        (finished.status, finished.stdout)
    };
    let (status, said) = check(&original, &copy.body);
    assert!(status == Some(0) && said.contains("copy"), "{said}");
    let not_checked =
        said.lines().find(|line| line.trim_start().starts_with("not checked")).unwrap_or_default();
    assert!(not_checked.contains("annotation"), "its receipt alone proves who made it: {said}");
    // The copy goes without its receipt, too. A change that leaves its digest is noticed, and so is another original.
    let bare = String::from_utf8(copy.hashed()).unwrap();
    assert_eq!(check(&original, bare.as_bytes()).0, Some(0));
    let sex = copy.json["fields"]["sex"].as_str().unwrap();
    let other = if sex == "男" { "女" } else { "男" };
    let masked = bare.replace("\"ethnicity\":\"****\"", "\"ethnicity\":\"汉族\"");
    for changed in [
        bare.replace(PURPOSE, "营销"),
        bare.replace(&format!("\"sex\":\"{sex}\""), &format!("\"sex\":\"{other}\"")),
        bare.replace(note["expiresAt"].as_str().unwrap(), "2099-01-01T00:00:00.000Z"),
        masked,
    ] {
        assert_ne!(changed, bare);
        let (status, said) = check(&original, changed.as_bytes());
        assert!(status == Some(1) && said.contains("copy-mismatch"), "{said}");
    }
    let mut issuer = server.party("issuer");
    let elsewhere = draft(&natural()).issue(&mut issuer).await;
    assert!(check(&file("other", &elsewhere.envelope), &copy.body).1.contains("copy-mismatch"));
    // The original is what it was, and the trace names the copy.
    let (again, _) = server.permitted(&mut bank, &of_mode(&license, "envelope", &right)).await;
    let stated = tests::sha256(verifier::license::OpenedEnvelope::open(&license.envelope).unwrap().body());
    assert_eq!(serde_json::to_value(verifier::trace::Digest(stated)).unwrap(), note["originalDigest"]);
    assert_eq!(again.json["envelope"], json!(base64(&license.envelope)));
    let page = traced(&server, &license, &copy).await;
    assert_eq!(told(entry_of(&page, copy.receipt().index).unwrap())["copy"], note["digest"]);
}

fn base64(bytes: &[u8]) -> String {
    serde_json::to_value(verifier::trace::Bytes(bytes.to_vec())).unwrap().as_str().unwrap().to_owned()
}

/// Imports a row of a list of intended uses.
async fn intended(server: &Server, row: &Value) -> Value {
    let import = json!({"list": "uses", "source": "用证清单2026", "rows": [row]});
    let call = Call::new(Route::ItemsImport, &import);
    server.party("operator").send(&call).await.expect(200).json
}

#[tokio::test]
async fn more_than_a_line_of_the_list_allows_is_refused_by_name_and_listed() {
    let server = shared(setup).await;
    let mut listed = server.party("listed");
    let item = format!("ITEM-{}", key());
    let organisation = listed.organisation;
    let row = |more: &Value| {
        let mut row = json!({
            "organisation": organisation, "item": item, "typeCode": natural().code.as_str(), "materials": "SFZ",
            "modes": "fields", "fields": "name sex",
        });
        for (name, value) in more.as_object().unwrap() {
            row[name] = value.clone();
        }
        row
    };
    let (license, right) = granted(&server, &listed, &natural()).await;
    let used = json!({"use.itemCode": item});
    let asked = |fields: &[&str]| with(&license.retrieve(fields, Some(&right)), &used);
    // Without a line nothing is allowed, not even to verify.
    server.refused(&mut listed, &with(&license.verify(Some(&right)), &used), Code::BeyondIntendedUse).await;
    for (wrong, pointer) in [
        (json!({"typeCode": format!("{}998", &natural().code.as_str()[..18])}), "/typeCode"),
        (json!({"fields": "shoeSize"}), "/fields"),
        (json!({"modes": "paper"}), "/modes"),
    ] {
        let answer = intended(&server, &row(&wrong)).await;
        assert_eq!(
            (&answer["rejected"], &answer["rejects"][0]["errors"][0]["pointer"]),
            (&json!(1), &json!(pointer))
        );
    }
    let import = json!({"list": "uses", "source": "自拟", "rows": [row(&json!({}))]});
    let mut approval = server.party("approval");
    server.refused(&mut approval, &Call::new(Route::ItemsImport, &import), Code::WrongRole).await;
    assert_eq!(intended(&server, &row(&json!({}))).await["accepted"], json!(1));
    server.permitted(&mut listed, &asked(&["name"])).await;
    server.permitted(&mut listed, &with(&license.verify(Some(&right)), &used)).await;
    let (beyond, _) =
        server.refused(&mut listed, &asked(&["name", "address"]), Code::BeyondIntendedUse).await;
    assert_eq!(
        beyond.json["errors"],
        json!([{"pointer": "/fields", "rule": "not-allowed", "position": 2, "allowed": ["name", "sex"]}])
    );
    let face = with(&of_mode(&license, "face", &right), &used);
    server.refused(&mut listed, &face, Code::BeyondIntendedUse).await;
    // It says nothing of a license: one that there never was gets the same.
    let never = draft(&natural());
    let nobody = json!({
        "typeCode": natural().code, "certificateNumber": never.license.certificate_number, "holder": holder(never.holder()),
    });
    let unknown = with(&asked(&["name", "address"]), &json!({"license": nobody}));
    let (unknown, _) = server.refused(&mut listed, &unknown, Code::BeyondIntendedUse).await;
    assert_eq!(unknown.hashed(), beyond.hashed());
    // A license that is presented is one of its type all the same.
    let presented = with(&license.verify_envelope(), &json!({"use.itemCode": "another"}));
    server.refused(&mut listed, &presented, Code::BeyondIntendedUse).await;
    // Operators and the organisation itself see how often.
    let rows = async |party: &mut Party, list: &str| {
        let search = Call::new(Route::ItemsSearch, &json!({"list": list}));
        let found = party.send(&search).await.expect(200).json[list].as_array().unwrap().clone();
        let is_own = |row: &&Value| {
            row["organisation"] == json!(organisation) && (list == "beyond" || row["item"] == json!(item))
        };
        found.iter().find(is_own).map(|row| row["beyond"].as_u64().unwrap())
    };
    let mut operator = server.party("operator");
    assert_eq!(rows(&mut operator, "uses").await, Some(3));
    assert!(rows(&mut operator, "beyond").await.unwrap() >= 5);
    assert_eq!(rows(&mut listed, "uses").await, Some(3));
    assert_eq!(rows(&mut approval, "uses").await, None);
    // A line that is taken back permits nothing any more.
    assert_eq!(intended(&server, &row(&json!({"status": "cancelled"}))).await["accepted"], json!(1));
    server.refused(&mut listed, &asked(&["name"]), Code::BeyondIntendedUse).await;
}

#[tokio::test]
async fn an_intermediary_stands_for_whom_it_is_registered_for() {
    let server = shared(setup).await;
    let [mut agent, mut operator] = ["agent", "operator"].map(|name| server.party(name));
    let (license, right) = granted(&server, &agent, &natural()).await;
    let principal = Synthetic::new(now_ms()).uscc();
    let used = with(&license.verify(Some(&right)), &json!({"use.actingFor": principal}));
    let (refused, entry) = server.refused(&mut agent, &used, Code::ActingForRefused).await;
    assert_eq!(refused.json["errors"][0]["pointer"], json!("/use/actingFor"));
    assert_eq!(entry.open.acting_for, ActingFor::default());
    let registered = |acts_for: &[String]| {
        let participant = json!({
            "organisation": agent.organisation, "name": "测试代办单位", "roles": ["relying"], "actsFor": acts_for,
            "validFrom": "2026-01-01",
        });
        Call::new(Route::ParticipantChange, &json!({"participant": participant}))
    };
    let wrong = [principal.as_str().replace(&principal.as_str()[17..], "?")];
    let refused = operator.send(&registered(&wrong)).await;
    assert_eq!(
        (refused.status, &refused.json["errors"][0]["pointer"]),
        (422, &json!("/participant/actsFor/0"))
    );
    let bank = server.organisation("bank");
    let allowed = registered(&[principal.to_string(), bank.to_string()]);
    server.permitted(&mut operator, &allowed).await;
    for call in [used.clone(), used.clone().machine()] {
        let (reply, entry) = server.permitted(&mut agent, &call).await;
        let parties = ActingFor::new(vec![Somebody::Organisation(*principal.as_bytes())]);
        assert_eq!(entry.open.acting_for, parties, "{}", reply.json);
    }
    let (reply, _) = server.permitted(&mut agent, &used).await;
    let page = traced(&server, &license, &reply).await;
    assert_eq!(told(entry_of(&page, reply.receipt().index).unwrap())["use"]["actingFor"], json!(principal));
    let stranger = with(&used, &json!({"use.actingFor": Synthetic::new(now_ms() + 1).uscc()}));
    server.refused(&mut agent, &stranger, Code::ActingForRefused).await;
    // Nobody acts for an organisation that is suspended.
    let suspend = |suspended: bool| {
        Call::new(
            Route::ParticipantSuspend,
            &json!({"organisation": bank, "suspended": suspended, "reason": "测试"}),
        )
    };
    let for_bank = with(&used, &json!({"use.actingFor": bank}));
    server.permitted(&mut agent, &for_bank).await;
    server.permitted(&mut operator, &suspend(true)).await;
    server.refused(&mut agent, &for_bank, Code::ActingForRefused).await;
    server.permitted(&mut operator, &suspend(false)).await;
    server.permitted(&mut agent, &for_bank).await;
}

/// A question of a caller's about a license.
fn question(subject: &Value, action: &Value, identifier: &str, grant: Option<&str>) -> Value {
    let mut context = json!({"use": use_context()});
    if let Some(grant) = grant {
        context["grant"] = json!(grant);
    }
    json!({"subject": subject, "action": action, "resource": {"type": "license", "id": identifier}, "context": context})
}

#[tokio::test]
async fn a_question_is_answered_alike_for_every_want_of_a_right() {
    let server = shared(setup).await;
    let [mut issuer, mut portal, mut bank] = ["issuer", "portal", "bank"].map(|name| server.party(name));
    let license = draft(&natural()).issue(&mut issuer).await;
    let mut terms = grant(license.draft.holder(), &bank, Target::License(&license));
    (terms["maxUses"], terms["modes"]) = (json!(1), json!(["fields"]));
    let right = portal.grant(&terms).await;
    let (own, verify) = (json!({"type": "organisation", "id": bank.organisation}), json!({"name": "verify"}));
    let fields = json!({"name": "fields", "properties": {"fields": ["certificateNumber"]}});
    let ask = |body: &Value| Call::new(Route::Evaluation, body);
    for action in [&verify, &fields] {
        let call = ask(&question(&own, action, &license.identifier, Some(&right)));
        for _ in 0..2 {
            let (reply, entry) = server.permitted(&mut bank, &call).await;
            assert_eq!(reply.hashed(), br#"{"decision":true}"#);
            assert_eq!(entry.open.decision, Decision::Permit.number());
        }
    }
    let user = json!({"type": "user", "id": use_context()["userName"]});
    let call = ask(&question(&user, &verify, &license.identifier, Some(&right))).also("x-request-id", "q-1");
    let (reply, _) = server.permitted(&mut bank, &call).await;
    assert_eq!(reply.headers.get("x-request-id").unwrap(), "q-1");
    // The one use is left.
    server.permitted(&mut bank, &license.retrieve(&["certificateNumber"], Some(&right))).await;

    let (never, other) = (draft(&natural()), draft(&natural()).issue(&mut issuer).await);
    let never = with_serial(&license.identifier, &never.serial);
    let other_user = json!({"type": "user", "id": "别人"});
    let other_organisation = json!({"type": "organisation", "id": server.organisation("approval")});
    let questions = [
        question(&own, &verify, &other.identifier, None),
        question(&own, &verify, &other.identifier, Some(&right)),
        question(&own, &verify, &never, None),
        question(&own, &verify, &never, Some(&right)),
        question(&own, &json!({"name": "face"}), &license.identifier, Some(&right)),
        question(&other_user, &verify, &license.identifier, Some(&right)),
        question(&other_organisation, &verify, &license.identifier, Some(&right)),
    ];
    for body in &questions {
        let reply = bank.send(&ask(body)).await;
        assert_eq!((reply.status, &*reply.content_type), (200, "application/json"));
        assert_eq!(reply.hashed(), br#"{"decision":false}"#);
        let open = server.entry(&reply).await.open;
        assert_eq!((open.decision, open.code), (Decision::Denial.number(), Code::NotPermitted.number()));
    }
    // A no stands in the trace of whom it concerns.
    let reply = bank.send(&ask(&questions[0])).await;
    let page = traced(&server, &other, &reply).await;
    let entry = &entry_of(&page, reply.receipt().index).unwrap()["entry"];
    assert_eq!((&entry["route"], &entry["decision"]), (&json!("evaluation"), &json!("denial")));
    // Guessing ends: a right that comes later is not told of today.
    let mut terms = grant(other.draft.holder(), &bank, Target::License(&other));
    terms["maxUses"] = json!(9);
    let right = portal.grant(&terms).await;
    let good = question(&own, &verify, &other.identifier, Some(&right));
    let yes = bank.send(&ask(&good)).await;
    assert_eq!(yes.hashed(), br#"{"decision":true}"#);
    for _ in 0..2 {
        bank.send(&ask(&questions[0])).await.expect(200);
    }
    let reply = bank.send(&ask(&good)).await;
    assert_eq!(reply.hashed(), br#"{"decision":false}"#);
    assert_eq!(server.entry(&reply).await.open.code, Code::TooManyMismatches.number());

    // Each version of a license is the same guess.
    let guessed = draft(&natural()).issue(&mut issuer).await;
    let known: schemas::identifier::CertificateIdentifier = guessed.identifier.parse().unwrap();
    let issued_by = known.issuer().uscc().unwrap();
    for version in 1..=6 {
        let serial = guessed.draft.serial.parse().unwrap();
        let identifier =
            schemas::identifier::CertificateIdentifier::new(known.type_code(), issued_by, serial, version);
        let call = ask(&question(&own, &verify, &identifier.unwrap().to_string(), None));
        let code = server.entry(&bank.send(&call).await).await.open.code;
        let expected = if version < 6 { Code::NotPermitted } else { Code::TooManyMismatches };
        assert_eq!(code, expected.number(), "version {version}");
    }

    // Many at once, each an entry of its own; the whole commits to them.
    // Another case, for which no use is left.
    let mut spent = questions[4]["context"].clone();
    spent["use"]["businessCode"] = key().into();
    let many = json!({
        "subject": own, "action": verify, "context": good["context"],
        "evaluations": [
            {"resource": {"type": "license", "id": license.identifier}, "context": spent},
            {"resource": {"type": "license", "id": never}},
            {"resource": {"type": "license", "id": license.identifier}, "subject": other_user, "context": spent},
        ],
    });
    let decisions = |reply: &Reply| -> Vec<Value> {
        reply.json["evaluations"].as_array().unwrap().iter().map(|one| one["decision"].clone()).collect()
    };
    let before = server.size().await;
    let reply = bank.send(&Call::new(Route::Evaluations, &many)).await.expect(200);
    assert_eq!(decisions(&reply), [json!(false), json!(false), json!(false)]);
    assert_eq!(reply.receipt().index, before + 3);
    for (place, one) in (before..).zip(reply.json["evaluations"].as_array().unwrap()) {
        assert_eq!(one["receipt"]["index"], json!(place));
    }
    let mut short = many.clone();
    short["options"] = json!({"evaluations_semantic": "deny_on_first_deny"});
    let reply = bank.send(&Call::new(Route::Evaluations, &short)).await.expect(200);
    assert_eq!(decisions(&reply), [json!(false)]);
    for (wrong, pointer) in [
        (json!({"evaluations": []}), "/evaluations"),
        (json!({"evaluations": [{}], "subject": {"type": "role", "id": "x"}}), "/evaluations/0/subject/type"),
    ] {
        let mut body = many.clone();
        for (name, value) in wrong.as_object().unwrap() {
            body[name] = value.clone();
        }
        let (refused, _) =
            server.refused(&mut bank, &Call::new(Route::Evaluations, &body), Code::MalformedRequest).await;
        assert_eq!(refused.json["errors"][0]["pointer"], json!(pointer));
    }
    let wrong = question(&own, &json!({"name": "search"}), &license.identifier, None);
    let (refused, _) = server.refused(&mut bank, &ask(&wrong), Code::MalformedRequest).await;
    assert_eq!(refused.json["errors"][0]["pointer"], json!("/action/name"));
    let metadata = server.public("/.well-known/authzen-configuration").await.expect(200).json;
    let point = metadata["policy_decision_point"].as_str().unwrap();
    assert_eq!(metadata["access_evaluation_endpoint"], json!(format!("{point}/access/v1/evaluation")));
    assert!(metadata.as_object().unwrap().keys().all(|name| !name.contains("search")));
    // A company's license needs no right.
    let company = draft(&legal()).issue(&mut issuer).await;
    let reply = bank.send(&ask(&question(&own, &verify, &company.identifier, None))).await;
    assert_eq!(reply.hashed(), br#"{"decision":true}"#);
}

/// The identifier of a license like another one, under a serial that nobody has.
fn with_serial(identifier: &str, serial: &str) -> String {
    let known: schemas::identifier::CertificateIdentifier = identifier.parse().unwrap();
    let issuer = known.issuer().uscc().unwrap();
    let serial = serial.parse().unwrap();
    schemas::identifier::CertificateIdentifier::new(known.type_code(), issuer, serial, 1).unwrap().to_string()
}
