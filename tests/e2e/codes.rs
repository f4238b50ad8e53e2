//! Presentation codes: shown once, to whom they are for, telling the least; exact counts at once and across a kill; inspectors and
//! kiosks; and the limits of participants.

use std::sync::Arc;

use exchange::admission::{Limit, Rate};
use exchange::participant::{Participant, Role};
use schemas::codes::{Code, Reason};
use schemas::holder::HolderRef;
use schemas::kinds::Facility;
use schemas::routes::Route;
use serde_json::{Value, json};
use tests::{
    Call, Issued, Party, Reply, Server, Setup, draft, eventually, holder, in_one_hour, key, legal, natural,
    shared, use_context,
};

/// Codes that are scanned by ten at once.
const ROUNDS: u32 = 20;
const AT_ONCE: u32 = 10;
/// Rounds of a ceiling.
const SEEDS: u32 = 200;

fn with_role(role: Role) -> impl FnOnce(&mut Participant) {
    move |participant| participant.roles = vec![role]
}

fn setup() -> Setup {
    Setup::new()
        .participant("kiosk", with_role(Role::Kiosk))
        .participant("inspector", with_role(Role::Inspector))
}

fn changed(mut body: Value, more: &Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// A request that mints a code of a license for anybody, changed.
fn mint(license: &Issued, more: &Value) -> Call {
    let body = json!({"holder": holder(license.draft.holder()), "identifier": license.identifier, "verifiers": "any"});
    Call::new(Route::CodeMint, &changed(body, more))
}

async fn minted(portal: &mut Party, license: &Issued, more: &Value) -> String {
    portal.send(&mint(license, more)).await.expect(201).json["text"].as_str().unwrap().to_owned()
}

fn scan(code: &str, more: &Value) -> Call {
    Call::new(Route::CodeScan, &changed(json!({"code": code, "use": use_context()}), more))
}

fn end(code: &str, of: &HolderRef) -> Call {
    Call::new(Route::CodeEnd, &json!({"code": code, "holder": holder(of), "reason": "测试"}))
}

/// Everything that a holder is told, newest first, once `until` is there.
async fn told(server: &Server, of: &HolderRef, until: impl Fn(&Value) -> bool) -> Vec<Value> {
    let call = Call::new(Route::Trace, &json!({"holder": holder(of), "use": use_context()}));
    eventually("it stands in the trace", || async {
        let page = server.party("portal").send(&call).await.expect(200).json;
        let entries = page["entries"].as_array().unwrap().iter();
        let documents = entries.filter_map(|entry| entry["told"]["document"].as_str().map(str::to_owned));
        let told: Vec<Value> = documents.map(|document| serde_json::from_str(&document).unwrap()).collect();
        told.iter().any(&until).then_some(told)
    })
    .await
}

#[tokio::test]
async fn a_code_is_scanned_once_and_tells_the_least() {
    let server = shared(setup).await;
    let [mut issuer, mut portal, mut bank, mut approval] =
        ["issuer", "portal", "bank", "approval"].map(|name| server.party(name));
    let license = draft(&natural()).issue(&mut issuer).await;
    let code = minted(&mut portal, &license, &json!({})).await;
    assert_eq!(code.len(), 28, "a QR code of version 3 holds it");
    let call = scan(&code, &json!({})).key(&key());
    let (reply, entry) = server.permitted(&mut bank, &call).await;
    let mut members: Vec<&str> = reply.json.as_object().unwrap().keys().map(String::as_str).collect();
    members.sort_unstable();
    let least =
        ["asOf", "reasons", "receipt", "state", "subject", "typeCode", "validFrom", "validUntil", "verdict"];
    assert!(members.iter().all(|member| least.contains(member)), "{members:?}");
    assert_eq!((&reply.json["verdict"], &reply.json["state"]), (&json!("valid"), &json!("01")));
    assert_eq!(reply.json["typeCode"], json!(natural().code));
    // Two verifiers cannot join what they get: neither a label nor the identifier is in it.
    assert_eq!(entry.open.labels, verifier::leaf::Labels::List(Vec::new()));
    for personal in [&license.identifier, license.draft.holder().number()] {
        assert!(!String::from_utf8_lossy(&reply.body).contains(personal));
    }
    // The same request is answered again; another one is a second scan.
    assert_eq!(bank.send(&call).await.expect(200).hashed(), reply.hashed());
    server.refused(&mut bank, &scan(&code, &json!({})), Code::NotPermitted).await;
    server.refused(&mut approval, &scan(&code, &json!({})), Code::NotPermitted).await;

    // The handle is the verifier's own: the same at each scan, another one elsewhere.
    let subject = |reply: Reply| reply.json["subject"].as_str().unwrap().to_owned();
    let mut seen = Vec::new();
    for name in ["bank", "approval", "bank"] {
        let party = &mut server.party(name);
        let code = minted(&mut portal, &license, &json!({})).await;
        seen.push(subject(server.permitted(party, &scan(&code, &json!({}))).await.0));
    }
    assert_eq!((&seen[0], &seen[0]), (&seen[2], &subject(reply)));
    assert_ne!(seen[0], seen[1]);

    // Fields that the holder allows, and no others.
    let code = minted(&mut portal, &license, &json!({"fields": ["holderName", "address"]})).await;
    server.refused(&mut bank, &scan(&code, &json!({"fields": ["holderNumber"]})), Code::NotPermitted).await;
    let (reply, _) = server.permitted(&mut bank, &scan(&code, &json!({"fields": ["holderName"]}))).await;
    let name = &license.draft.license.holders[0].0;
    assert_eq!(reply.json["fields"], json!({"holderName": name}));

    // The holder sees minting and scanning.
    let told = told(&server, license.draft.holder(), |told| told["fields"] == json!(["holderName"])).await;
    let terms = told.iter().find(|told| told["terms"]["action"] == "code").unwrap();
    assert_eq!(
        (&terms["terms"]["verifiers"], &terms["licenses"]),
        (&json!("any"), &json!([license.identifier]))
    );
    let scanned = told.iter().find(|told| told["mode"] == "code" && told["licenses"].is_array()).unwrap();
    assert_eq!(scanned["licenses"], json!([license.identifier]));
}

#[tokio::test]
async fn every_refused_scan_has_the_same_body_and_its_cause_in_the_journal() {
    let mut server = setup().start().await;
    let [mut issuer, mut portal, mut bank, mut kiosk] =
        ["issuer", "portal", "bank", "kiosk"].map(|name| server.party(name));
    let (license, other) =
        (draft(&natural()).issue(&mut issuer).await, draft(&natural()).issue(&mut issuer).await);
    let plain = json!({});
    let mut causes = Vec::new();
    let mut bodies = Vec::new();
    let mut refuse = async |party: &mut Party, call: &Call, reason: Reason| {
        let (reply, entry) = server.refused(party, call, Code::NotPermitted).await;
        bodies.push(reply.hashed());
        causes.push((entry.open.index, reason.number()));
    };
    refuse(&mut bank, &scan("MX1.AAECAwQFBgcICQoLDA0ODxAR", &plain), Reason::NoSuchCode).await;
    let used = minted(&mut portal, &license, &plain).await;
    bank.send(&scan(&used, &plain)).await.expect(200);
    refuse(&mut bank, &scan(&used, &plain), Reason::CodeUsed).await;
    let ended = minted(&mut portal, &license, &plain).await;
    portal.send(&end(&ended, license.draft.holder())).await.expect(200);
    refuse(&mut bank, &scan(&ended, &plain), Reason::CodeEnded).await;
    let for_kiosks = minted(&mut portal, &license, &json!({"verifiers": "kiosk"})).await;
    refuse(&mut bank, &scan(&for_kiosks, &plain), Reason::CodeOtherVerifier).await;
    // A kiosk knows who stands before it. A code of somebody else, photographed perhaps, is dead after the attempt.
    let stranger = json!({"holder": holder(other.draft.holder())});
    refuse(&mut kiosk, &scan(&for_kiosks, &stranger), Reason::OtherHolder).await;
    let own = json!({"holder": holder(license.draft.holder())});
    refuse(&mut kiosk, &scan(&for_kiosks, &own), Reason::CodeUsed).await;
    let code = minted(&mut portal, &license, &json!({"verifiers": "kiosk"})).await;
    kiosk.send(&scan(&code, &own)).await.expect(200);
    // A code of the holder takes a type; one of a license takes no other.
    let personal = minted(&mut portal, &license, &json!({"identifier": null})).await;
    refuse(&mut bank, &scan(&personal, &plain), Reason::CodeOtherType).await;
    let typed = json!({"typeCode": natural().code});
    let found = bank.send(&scan(&personal, &typed)).await.expect(200).json;
    assert_eq!((&found["verdict"], &found["state"]), (&json!("valid"), &json!("01")));
    let personal = minted(&mut portal, &license, &json!({"identifier": null})).await;
    let absent = bank.send(&scan(&personal, &json!({"typeCode": legal().code}))).await.expect(200).json;
    assert_eq!((&absent["verdict"], &absent["reasons"]), (&json!("invalid"), &json!(["not-found"])));
    let code = minted(&mut portal, &license, &plain).await;
    refuse(&mut bank, &scan(&code, &json!({"typeCode": legal().code})), Reason::CodeOtherType).await;
    refuse(&mut bank, &scan(&code, &json!({"fields": ["address"]})), Reason::CodeOtherFields).await;
    // Only the holder's own portal ends it, for the holder; a code that is used up says so to its holder.
    server.refused(&mut portal, &end(&code, other.draft.holder()), Code::NotPermitted).await;
    let (reply, _) = server.refused(&mut portal, &end(&used, license.draft.holder()), Code::BadCode).await;
    assert_eq!(reply.json["detail"], json!(Reason::CodeUsed.name()));
    server
        .refused(
            &mut portal,
            &mint(&license, &json!({"holder": holder(other.draft.holder())})),
            Code::NotPermitted,
        )
        .await;
    for wrong in [json!("MX1."), json!("MX2.AAECAwQFBgcICQoLDA0ODxAR"), json!(1)] {
        server.refused(&mut bank, &scan("", &json!({"code": wrong})), Code::MalformedRequest).await;
    }
    let short = minted(&mut portal, &license, &json!({"seconds": 5})).await;
    assert_eq!(server.stop(), Some(0));
    let later = server.later(6_000).await;
    let late = later.ask(server.organisation("bank"), &scan(&short, &plain)).await;
    assert_eq!(late.code(), Code::NotPermitted.name());
    causes.push((late.receipt().index, Reason::CodeExpired.number()));
    bodies.push(late.hashed());
    later.close().await;
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "one body whatever the cause");
    let reasons = server.reasons();
    for (index, reason) in causes {
        assert_eq!(reasons[&index], reason, "entry {index}");
    }
}

#[tokio::test]
async fn a_code_by_an_agent_ends_with_the_agents_link() {
    let server = shared(setup).await;
    let [mut issuer, mut portal, mut bank] = ["issuer", "portal", "bank"].map(|name| server.party(name));
    let license = draft(&natural()).issue(&mut issuer).await;
    let friend = draft(&natural());
    let (of, agent) = (holder(license.draft.holder()), holder(friend.holder()));
    let link = json!({"holder": of, "agent": agent, "kind": "agent", "until": in_one_hour()});
    server.permitted(&mut portal, &Call::new(Route::LinkMake, &link)).await;
    let mut codes = Vec::new();
    for _ in 0..2 {
        codes.push(minted(&mut portal, &license, &json!({"agent": agent})).await);
    }
    let own = minted(&mut portal, &license, &json!({})).await;
    server.permitted(&mut bank, &scan(&codes[0], &json!({}))).await;
    let end = json!({"holder": of, "agent": agent, "reason": "测试"});
    server.permitted(&mut portal, &Call::new(Route::LinkEnd, &end)).await;
    server.refused(&mut bank, &scan(&codes[1], &json!({})), Code::NotPermitted).await;
    // Made anew it is another link.
    server.permitted(&mut portal, &Call::new(Route::LinkMake, &link)).await;
    server.refused(&mut bank, &scan(&codes[1], &json!({})), Code::NotPermitted).await;
    server.permitted(&mut bank, &scan(&own, &json!({}))).await;
}

#[tokio::test]
async fn an_inspector_scans_a_permit_without_its_holder_and_is_logged_by_name() {
    let server = shared(setup).await;
    let [mut issuer, mut bank, mut inspector, mut kiosk] =
        ["issuer", "bank", "inspector", "kiosk"].map(|name| server.party(name));
    let permit = draft(&legal()).issue(&mut issuer).await;
    let person = draft(&natural()).issue(&mut issuer).await;
    let inspect = |license: &Issued, more: &Value| {
        let mut context = use_context();
        context["userName"] = json!("执法员甲 44010001");
        let body = json!({"identifier": license.identifier, "use": context});
        Call::new(Route::CodeScan, &changed(body, more))
    };
    let open = json!({"fields": ["enterpriseName"]});
    // A receipt says whose permit it is where the answer does, and not before.
    let labels = |entry: tests::Entry| match entry.open.labels {
        verifier::leaf::Labels::List(labels) => labels.len(),
        verifier::leaf::Labels::Digest(_) => panic!("one holder"),
    };
    let (_, entry) = server.permitted(&mut inspector, &inspect(&permit, &json!({}))).await;
    assert_eq!(labels(entry), 0);
    let (reply, entry) = server.permitted(&mut inspector, &inspect(&permit, &open)).await;
    assert_eq!(labels(entry), 1);
    assert_eq!((&reply.json["verdict"], reply.json.get("subject")), (&json!("valid"), None));
    assert!(reply.json["fields"]["enterpriseName"].is_string());
    let told = told(&server, permit.draft.holder(), |told| told["mode"] == "permit").await;
    let seen = told.iter().find(|told| told["mode"] == "permit").unwrap();
    assert_eq!(seen["use"]["officer"], json!("执法员甲 44010001"));
    // Nobody else does, and no person's license is looked at like that, whether there is one or not.
    for party in [&mut bank, &mut kiosk] {
        server.refused(party, &inspect(&permit, &json!({})), Code::WrongRole).await;
    }
    let nobody = draft(&natural());
    let unknown = format!(
        "{}",
        schemas::identifier::CertificateIdentifier::new(
            nobody.license_type.code,
            server.organisation("issuer"),
            nobody.serial.parse().unwrap(),
            1,
        )
        .unwrap()
    );
    let none = Issued { identifier: unknown, envelope: Vec::new(), draft: nobody };
    let (one, _) = server.refused(&mut inspector, &inspect(&person, &json!({})), Code::NotPermitted).await;
    let (two, _) = server.refused(&mut inspector, &inspect(&none, &json!({})), Code::NotPermitted).await;
    assert_eq!(one.hashed(), two.hashed());
    // The officer is always named; a kiosk is a verifier of codes, and of nothing else.
    let mut without = use_context();
    without.as_object_mut().unwrap().remove("userName");
    server.refused(&mut inspector, &inspect(&permit, &json!({"use": without})), Code::BadUseContext).await;
    server.refused(&mut kiosk, &permit.verify(None), Code::WrongRole).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_used_once_by_ten_at_once_and_across_a_kill() {
    let mut server = setup().start().await;
    let license = draft(&natural()).issue(&mut server.party("issuer")).await;
    let mut portal = server.party("portal");
    let mut codes = Vec::new();
    for _ in 0..=ROUNDS {
        codes.push(minted(&mut portal, &license, &json!({"seconds": 300})).await);
    }
    // A process that is killed while ten scan: at most one is answered, and exactly one is in the log.
    let code = codes.pop().unwrap();
    let calls: Vec<Call> = (0..AT_ONCE).map(|_| scan(&code, &json!({})).key(&key())).collect();
    let tasks: Vec<_> = calls
        .iter()
        .map(|call| {
            let (mut party, call) = (server.party("bank"), call.clone());
            tokio::spawn(async move { party.try_send(&call).await.is_ok() })
        })
        .collect();
    let mut tasks = tasks.into_iter();
    let _ = tasks.next().unwrap().await;
    server.kill();
    for task in tasks {
        let _ = task.await;
    }
    server.start();
    let (mut bank, mut permits) = (server.party("bank"), 0);
    for call in &calls {
        permits += u32::from(bank.send(call).await.status == 200);
    }
    assert_eq!(permits, 1);
    assert_eq!(server.stop(), Some(0));
    let organisations = ["bank", "approval"].map(|name| server.organisation(name));
    let later = Arc::new(server.later(0).await);
    for code in codes {
        let asked: Vec<_> = (0..AT_ONCE)
            .map(|number| {
                let (later, call) = (Arc::clone(&later), scan(&code, &json!({})).key(&key()));
                let by = organisations[number as usize % 2];
                tokio::spawn(async move { later.ask(by, &call).await })
            })
            .collect();
        let mut permits = 0;
        for task in asked {
            let reply = task.await.unwrap();
            permits += u32::from(reply.status == 200);
            assert!(reply.status == 200 || reply.code() == Code::NotPermitted.name(), "{}", reply.json);
        }
        assert_eq!(permits, 1);
    }
    Arc::into_inner(later).unwrap().close().await;
}

fn line(facility: Facility) -> Limit {
    Limit { facility, type_code: None, daily: None, rate: None, fields: None, sources: Vec::new() }
}

#[tokio::test]
async fn limits_bind_by_interface_type_field_and_source_and_are_seen_by_their_participant() {
    const DAILY: u32 = 3;
    let limits = vec![
        Limit {
            type_code: Some(legal().code),
            daily: Some(DAILY),
            fields: Some(vec!["enterpriseName".to_owned()]),
            sources: vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
            ..line(Facility::Verify)
        },
        Limit { sources: vec!["192.0.2.0/24".parse().unwrap()], ..line(Facility::Retrieve) },
    ];
    let server = setup().participant("limited", move |participant| participant.limits = limits).start().await;
    let [mut issuer, mut limited, mut operator] =
        ["issuer", "limited", "operator"].map(|name| server.party(name));
    let company = draft(&legal()).issue(&mut issuer).await;
    let person = draft(&natural()).issue(&mut issuer).await;
    let expecting = |field: &str| {
        let mut body: Value = serde_json::from_slice(&company.verify(None).body).unwrap();
        body["expect"] = json!({ field: "测试" });
        Call::new(Route::Verify, &body)
    };
    let headers = |reply: &Reply| {
        ["ratelimit-policy", "ratelimit"]
            .map(|name| reply.headers.get(name).map(|text| text.to_str().unwrap().to_owned()))
    };
    let (reply, _) = server.permitted(&mut limited, &company.verify(None)).await;
    let [policy, left] = headers(&reply);
    assert_eq!(policy.unwrap(), format!("\"day\";q={DAILY};w=86400"));
    assert!(left.unwrap().starts_with("\"day\";r=2;t="));
    // A question comes under the same lines, and counts nothing.
    let question = |license: &Issued| {
        Call::new(
            Route::Evaluation,
            &json!({"subject": {"type": "user", "id": use_context()["userName"]}, "action": {"name": "verify"},
                "resource": {"type": "license", "id": license.identifier}, "context": {"use": use_context()}}),
        )
    };
    for (license, decision) in [(&company, "true"), (&person, "false")] {
        let reply = limited.send(&question(license)).await.expect(200);
        assert_eq!(String::from_utf8_lossy(&reply.hashed()), format!("{{\"decision\":{decision}}}"));
    }
    let (reply, _) = server.refused(&mut limited, &expecting("address"), Code::FieldsNotAgreed).await;
    assert_eq!(
        reply.json["errors"],
        json!([{"pointer": "/expect", "rule": "one-of", "allowed": ["enterpriseName"], "position": 1}])
    );
    server.permitted(&mut limited, &expecting("enterpriseName")).await;
    // Another type, another interface, another place. Whether there is such a license makes no difference.
    server.refused(&mut limited, &person.verify(None), Code::UseNotAgreed).await;
    server.refused(&mut limited, &scan("MX1.AAECAwQFBgcICQoLDA0ODxAR", &json!({})), Code::UseNotAgreed).await;
    let forwarded = company.retrieve(&["enterpriseName"], None).header("x-forwarded-for", "192.0.2.1");
    server.refused(&mut limited, &forwarded.also("forwarded", "for=192.0.2.1"), Code::SourceNotAgreed).await;
    // By envelope it is the same type and the same counter.
    server.permitted(&mut limited, &company.verify_envelope()).await;
    let (spent, _) = server.refused(&mut limited, &company.verify(None), Code::QuotaSpent).await;
    let none_left = limited.send(&question(&company)).await.expect(200);
    assert_eq!(none_left.hashed(), br#"{"decision":false}"#, "a use would be refused");
    let seconds: u64 = spent.retry_after.unwrap().parse().unwrap();
    assert!((1..=86_400).contains(&seconds));
    let usage = Call::new(Route::Usage, &json!({"limit": 5}));
    let pages = eventually("the refusal among the own uses", || async {
        let (mut limited, mut pages, mut call) = (server.party("limited"), Vec::new(), usage.clone());
        loop {
            let page = limited.send(&call).await.expect(200).json;
            let next = page["next"].as_u64();
            pages.push(page);
            let Some(next) = next else { break };
            call = Call::new(Route::Usage, &json!({"limit": 5, "fromIndex": next}));
        }
        let spent =
            |page: &Value| page["uses"].as_array().unwrap().iter().any(|one| one["code"] == "quota-spent");
        pages.iter().any(spent).then_some(pages)
    })
    .await;
    assert_eq!(pages[0]["limits"][0]["daily"], json!({"limit": DAILY, "used": DAILY, "left": 0}));
    let uses: Vec<&Value> = pages.iter().flat_map(|page| page["uses"].as_array().unwrap()).collect();
    let of = |route: &str, code: &str| {
        uses.iter().filter(|one| one["route"] == route && one["code"] == code).count()
    };
    assert_eq!((of("verify", "ok"), of("verify", "quota-spent"), of("issue", "ok")), (3, 1, 0));
    assert!(uses.iter().all(|one| one.as_object().unwrap().len() == 5), "nothing of whom it was about");
    // What cannot be a limit is not registered.
    for (pointer, limit) in [
        ("/participant/limits/0/sources/0", json!({"interface": "verify", "sources": ["192.0.2.1/24"]})),
        (
            "/participant/limits/0/rate/seconds",
            json!({"interface": "verify", "rate": {"uses": 1, "seconds": 3601}}),
        ),
        (
            "/participant/limits/0/rate/uses",
            json!({"interface": "verify", "rate": {"uses": 0, "seconds": 1}}),
        ),
    ] {
        let participant = json!({"organisation": limited.organisation, "name": "测试单位", "roles": ["relying"],
            "limits": [limit], "validFrom": "2026-01-01"});
        let call = Call::new(Route::ParticipantChange, &json!({ "participant": participant }));
        let (reply, _) = server.refused(&mut operator, &call, Code::BadParticipant).await;
        assert_eq!(reply.json["errors"][0]["pointer"], json!(pointer));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ceilings_and_rates_are_exact_at_once_and_across_a_kill() {
    const DAILY: u32 = 4;
    const USES: u32 = 5;
    let daily = vec![Limit { daily: Some(DAILY), ..line(Facility::Verify) }];
    // A period so long that no test meets its end but for one in many; then both periods may be used.
    let rate = vec![Limit { rate: Some(Rate { uses: USES, seconds: 3_600 }), ..line(Facility::Verify) }];
    let mut server = setup()
        .participant("daily", move |participant| participant.limits = daily)
        .participant("rated", move |participant| participant.limits = rate)
        .start()
        .await;
    let company = draft(&legal()).issue(&mut server.party("issuer")).await;
    let calls: Vec<Call> = (0..10 * DAILY).map(|_| company.verify(None).key(&key())).collect();
    let tasks: Vec<_> = calls
        .iter()
        .map(|call| {
            let (mut party, call) = (server.party("daily"), call.clone());
            tokio::spawn(async move { party.try_send(&call).await.is_ok() })
        })
        .collect();
    let mut answered = 0;
    for task in tasks {
        if answered == 2 {
            server.kill();
        }
        answered += u32::from(task.await.unwrap());
    }
    server.kill();
    server.start();
    let (mut daily, mut permits) = (server.party("daily"), 0);
    let day = || schemas::date::Date::at(i64::try_from(tests::now_ms() / 1_000).unwrap());
    let before = day();
    for call in &calls {
        permits += u32::from(daily.send(call).await.status == 200);
    }
    assert!(permits == DAILY || day() != before, "{permits}");

    let period = || tests::now_ms() / 3_600_000;
    let begun = period();
    let tasks: Vec<_> = (0..10 * USES)
        .map(|_| {
            let (mut party, call) = (server.party("rated"), company.verify(None));
            tokio::spawn(async move { party.send(&call).await })
        })
        .collect();
    let mut permits = 0;
    for task in tasks {
        let reply = task.await.unwrap();
        permits += u32::from(reply.status == 200);
        if reply.status != 200 {
            assert_eq!((reply.status, reply.code()), (429, Code::RateExceeded.name()), "{}", reply.json);
            let seconds: u64 = reply.retry_after.as_deref().unwrap().parse().unwrap();
            assert!((1..=3_600).contains(&seconds));
            assert!(reply.headers["ratelimit"].to_str().unwrap().starts_with("\"rate\";r=0;t="));
        }
    }
    assert!(permits == USES || period() != begun, "{permits}");
}

/// A ceiling that is raised a little each round, of which ten times as many uses are asked for at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_ceiling_is_exact_over_many_rounds_at_once() {
    let mut server = setup().participant("daily", |_| {}).start().await;
    let [daily, operator] = ["daily", "operator"].map(|name| server.organisation(name));
    let company = draft(&legal()).issue(&mut server.party("issuer")).await;
    assert_eq!(server.stop(), Some(0));
    let later = Arc::new(server.later(0).await);
    let day = || tests::now_ms().saturating_add(8 * 3_600_000) / 86_400_000;
    let (mut ceiling, begun) = (0, day());
    for round in 0..SEEDS {
        let uses = 1 + round % 4;
        ceiling += uses;
        let participant = json!({"organisation": daily, "name": "测试限额单位", "roles": ["relying"],
            "limits": [{"interface": "verify", "daily": ceiling}], "validFrom": "2026-01-01"});
        let change = Call::new(Route::ParticipantChange, &json!({ "participant": participant }));
        later.ask(operator, &change).await.expect(200);
        let asked: Vec<_> = (0..10 * uses)
            .map(|_| {
                let (later, call) = (Arc::clone(&later), company.verify(None).key(&key()));
                tokio::spawn(async move { later.ask(daily, &call).await })
            })
            .collect();
        let mut permits = 0;
        for task in asked {
            let reply = task.await.unwrap();
            permits += u32::from(reply.status == 200);
            assert!(reply.status == 200 || reply.code() == Code::QuotaSpent.name(), "{}", reply.json);
        }
        assert!(permits == uses || day() != begun, "round {round}: {permits} of {uses}");
    }
    Arc::into_inner(later).unwrap().close().await;
}
