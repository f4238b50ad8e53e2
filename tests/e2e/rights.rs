//! Rights: without one, every cause is the same answer; with one, no more than it says, and counted exactly.

use schemas::codes::{Code, Reason};
use schemas::routes::Route;
use serde_json::{Value, json};
use std::collections::HashSet;
use tests::{
    Call, Issued, Party, Server, Setup, Target, draft, grant, holder, legal, natural, now_ms, revoke, shared,
    use_context,
};
use verifier::leaf::Labels;

/// Uses at once.
const AT_ONCE: usize = 32;

fn setup() -> Setup {
    Setup::new()
        .authority("authority2")
        .participant("limited", |participant| participant.daily_quota = Some(3))
}

/// Makes a grant; `change` says what differs from one for everything.
async fn granted(
    server: &Server,
    portal: &mut Party,
    of: &Issued,
    grantee: &str,
    change: impl FnOnce(&mut Value),
) -> String {
    let mut body = grant(of.draft.holder(), &server.party(grantee), Target::License(of));
    change(&mut body);
    portal.grant(&body).await
}

fn with(call: &Call, change: impl FnOnce(&mut Value)) -> Call {
    let mut body: Value = serde_json::from_slice(&call.body).unwrap();
    change(&mut body);
    Call::new(call.route, &body)
}

/// The identifier of the same license with another serial: well-formed, and nobody's.
fn absent(issued: &Issued) -> Issued {
    let identifier: schemas::identifier::CertificateIdentifier = issued.identifier.parse().unwrap();
    let nobody = draft(&natural());
    let issuer = identifier.issuer().uscc().unwrap();
    let identifier = schemas::identifier::CertificateIdentifier::new(
        identifier.type_code(),
        issuer,
        nobody.serial.parse().unwrap(),
        1,
    )
    .unwrap();
    Issued { identifier: identifier.to_string(), envelope: Vec::new(), draft: nobody }
}

#[tokio::test]
async fn every_cause_of_no_right_is_the_same_answer() {
    let mut server = setup().start().await;
    let [mut issuer, mut portal, mut bank, mut issuer2] =
        ["issuer", "portal", "bank", "authority2"].map(|name| server.party(name));
    let mine = draft(&natural());
    let a = mine.issue(&mut issuer).await;
    let a_too = {
        let mut second = mine.clone();
        second.serial = draft(&natural()).serial;
        second.issue(&mut issuer).await
    };
    let b = draft(&natural()).issue(&mut issuer).await;
    let none = absent(&a);

    let everything = granted(&server, &mut portal, &a, "bank", |_| {}).await;
    let of_approval = granted(&server, &mut portal, &a, "approval", |_| {}).await;
    let of_other_holder = granted(&server, &mut portal, &b, "bank", |_| {}).await;
    let of_other_license = granted(&server, &mut portal, &a_too, "bank", |_| {}).await;
    let only_search = granted(&server, &mut portal, &a, "bank", |g| g["modes"] = json!(["search"])).await;
    let only_name = granted(&server, &mut portal, &a, "bank", |g| g["fields"] = json!(["holderName"])).await;
    let other_item =
        granted(&server, &mut portal, &a, "bank", |g| g["itemCode"] = json!("another-item")).await;
    let revoked = granted(&server, &mut portal, &a, "bank", |_| {}).await;
    portal.send(&revoke(a.draft.holder(), &revoked)).await.expect(200);
    let used_up = granted(&server, &mut portal, &a, "bank", |g| g["maxUses"] = json!(1)).await;
    bank.send(&a.verify(Some(&used_up)).in_new_case()).await.expect(200);
    let soon = schemas::date::rfc3339(now_ms() + 2_000);
    let ended = granted(&server, &mut portal, &a, "bank", |g| g["until"] = json!(soon)).await;
    let mut watcher = bank.again();
    let last_use = a.verify(Some(&ended));
    loop {
        let reply = watcher.send(&last_use).await;
        if reply.status == 403 {
            break;
        }
        assert_eq!(reply.status, 200, "{}", reply.json);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let no_such_grant = "ab".repeat(16);
    let of_type = {
        let body = grant(a.draft.holder(), &bank, Target::Type(&natural()));
        portal.grant(&body).await
    };

    // The grant works before anything is refused by it.
    server.permitted(&mut bank, &a.verify(Some(&everything))).await;
    server.permitted(&mut bank, &a.retrieve(&["holderName"], Some(&everything))).await;

    let expecting = |issued: &Issued, grant: Option<&str>, name: &str| {
        with(&issued.verify(grant), |body| body["expect"] = json!({name: "x"}))
    };
    let as_holder = |issued: &Issued, of: &Issued| {
        with(&issued.verify(None), |body| body["holder"] = holder(of.draft.holder()))
    };
    let by_number = |issued: &Issued, number: &str, of: &Issued| {
        let license = json!({
            "typeCode": issued.draft.license_type.code.as_str(), "certificateNumber": number,
            "holder": holder(of.draft.holder()),
        });
        Call::new(Route::Verify, &json!({"license": license, "use": use_context()}))
    };
    let number = a.draft.license.certificate_number.clone();
    let mut rows: Vec<(&str, Call, Reason)> = Vec::new();
    for (right, reason) in [
        (&no_such_grant, Reason::NoSuchGrant),
        (&of_approval, Reason::OtherGrantee),
        (&of_other_holder, Reason::OtherHolder),
        (&revoked, Reason::GrantRevoked),
        (&ended, Reason::GrantExpired),
        (&used_up, Reason::GrantUsedUp),
        (&of_other_license, Reason::GrantOtherTarget),
        (&only_search, Reason::GrantOtherMode),
        (&other_item, Reason::GrantOtherItem),
    ] {
        rows.push(("bank", a.verify(Some(right)), reason));
        rows.push(("bank", a.retrieve(&["holderName"], Some(right)), reason));
    }
    rows.extend([
        ("bank", a.verify(None), Reason::NoGrant),
        ("bank", none.verify(None), Reason::NoSuchLicense),
        ("bank", none.verify(Some(&everything)), Reason::NoSuchLicense),
        ("bank", none.verify(Some(&of_type)), Reason::NoSuchLicense),
        ("bank", none.verify(Some(&no_such_grant)), Reason::NoSuchGrant),
        ("bank", a.retrieve(&["holderName"], None), Reason::NoGrant),
        ("bank", none.retrieve(&["holderName"], None), Reason::NoSuchLicense),
        ("bank", none.retrieve(&["holderName"], Some(&of_type)), Reason::NoSuchLicense),
        (
            "bank",
            a.retrieve(&["certificateNumber", "holderName"], Some(&only_name)),
            Reason::GrantOtherFields,
        ),
        ("bank", a.retrieve(&["address"], Some(&everything)), Reason::GrantOtherFields),
        ("bank", a.retrieve(&["surprise"], Some(&everything)), Reason::GrantOtherFields),
        ("bank", expecting(&a, Some(&only_name), "certificateNumber"), Reason::GrantOtherFields),
        ("bank", expecting(&a, Some(&everything), "surprise"), Reason::GrantOtherFields),
        ("bank", by_number(&a, &number, &a), Reason::NoGrant),
        ("bank", by_number(&a, "CS-NONE", &a), Reason::NoSuchLicense),
        ("bank", by_number(&a, &number, &b), Reason::NoSuchLicense),
        ("bank", by_number(&a, &number, &none), Reason::NoSuchLicense),
        ("portal", as_holder(&a, &b), Reason::OtherHolder),
        ("portal", as_holder(&a, &none), Reason::NoGrant),
        ("portal", as_holder(&none, &a), Reason::NoSuchLicense),
        ("portal", a.verify(None), Reason::NoGrant),
        ("authority2", a.verify(None), Reason::NoGrant),
        ("authority2", a.operation("03", None), Reason::OtherIssuer),
        ("issuer", none.verify(None), Reason::NoSuchLicense),
        ("issuer", none.operation("03", None), Reason::NoSuchLicense),
        ("portal", revoke(b.draft.holder(), &everything), Reason::OtherHolder),
        ("portal", revoke(a.draft.holder(), &no_such_grant), Reason::NoSuchGrant),
        ("portal", revoke(none.draft.holder(), &everything), Reason::NoSuchHolder),
        (
            "portal",
            Call::new(Route::GrantCreate, &grant(b.draft.holder(), &bank, Target::License(&a))),
            Reason::OtherHolder,
        ),
        (
            "portal",
            Call::new(Route::GrantCreate, &grant(a.draft.holder(), &bank, Target::License(&none))),
            Reason::NoSuchLicense,
        ),
        (
            "portal",
            Call::new(Route::GrantCreate, &grant(none.draft.holder(), &bank, Target::License(&a))),
            Reason::NoSuchHolder,
        ),
        (
            "bank",
            Call::new(Route::Search, &json!({"holder": holder(a.draft.holder()), "use": use_context()})),
            Reason::NoGrant,
        ),
        (
            "bank",
            Call::new(
                Route::Search,
                &json!({"holder": holder(a.draft.holder()), "grant": of_type, "use": use_context()}),
            ),
            Reason::GrantOtherTarget,
        ),
    ]);

    let mut bodies = HashSet::new();
    let mut expected = Vec::new();
    for (name, call, reason) in rows {
        let party = match name {
            "bank" => &mut bank,
            "portal" => &mut portal,
            "issuer" => &mut issuer,
            _ => &mut issuer2,
        };
        let (reply, entry) = server.refused(party, &call, Code::NotPermitted).await;
        assert_eq!(entry.open.labels, Labels::List(Vec::new()), "a refusal shows no holder");
        bodies.insert(reply.hashed());
        // The receipts have one shape too: only what the caller knows differs in length or kind.
        assert_eq!(entry.receipt.open.len(), verifier::leaf::OPEN_FIXED_BYTES);
        expected.push((entry.open.index, reason));
    }
    assert_eq!(bodies.len(), 1, "an answer tells its cause");
    // The cause stands in the journal, for insiders.
    assert_eq!(server.stop(), Some(0));
    let reasons = server.reasons();
    for (index, reason) in expected {
        assert_eq!(reasons.get(&index), Some(&reason.number()), "entry {index}");
    }
}

#[tokio::test]
async fn a_right_discloses_what_it_names_and_nothing_more() {
    let server = shared(setup).await;
    let [mut issuer, mut portal, mut bank] = ["issuer", "portal", "bank"].map(|name| server.party(name));
    let a = draft(&natural()).issue(&mut issuer).await;
    let narrow = granted(&server, &mut portal, &a, "bank", |g| {
        g["modes"] = json!(["verify", "fields"]);
        g["fields"] = json!(["holderName"]);
    })
    .await;
    let (reply, _) = server.permitted(&mut bank, &a.retrieve(&["holderName"], Some(&narrow))).await;
    let name = a.draft.license.holders[0].0.clone();
    assert_eq!(reply.json["fields"], json!({"holderName": name}));
    let text = String::from_utf8_lossy(&reply.body);
    assert!(!text.contains(a.draft.holder().number()), "a number that nobody asked for");
    assert!(reply.json.get("envelope").is_none());
    for mode in ["face", "envelope", "copy"] {
        let call = with(&a.retrieve(&["holderName"], Some(&narrow)), |body| {
            body["mode"] = json!(mode);
            body.as_object_mut().unwrap().remove("fields");
        });
        server.refused(&mut bank, &call, Code::NotPermitted).await;
    }
    // A fact expected is answered by one boolean for all, and a mismatch names none.
    let expecting =
        |value: &str| with(&a.verify(Some(&narrow)), |body| body["expect"] = json!({"holderName": value}));
    let (reply, _) = server.permitted(&mut bank, &expecting(&name)).await;
    assert_eq!(reply.json["matches"], json!(true));
    let (reply, _) = server.permitted(&mut bank, &expecting("别人")).await;
    assert_eq!(reply.json["matches"], json!(false));
    assert!(!String::from_utf8_lossy(&reply.body).contains(&name));
    // An annotated copy says who had it made and for what.
    let wide = granted(&server, &mut portal, &a, "bank", |_| {}).await;
    let call = with(&a.retrieve(&["holderName"], Some(&wide)), |body| {
        body["mode"] = json!("copy");
        body.as_object_mut().unwrap().remove("fields");
    });
    let (reply, _) = server.permitted(&mut bank, &call).await;
    assert_eq!(reply.json["annotation"]["creator"], json!(server.organisation("bank").as_str()));
    assert_eq!(reply.json["annotation"]["businessCode"], use_context()["businessCode"]);
    assert_eq!(reply.json["fields"]["holderNumber"], json!(a.draft.holder().number()));
}

#[tokio::test]
async fn a_legal_persons_license_is_verified_by_anyone_who_relies_on_it() {
    let server = shared(setup).await;
    let a = draft(&legal()).issue(&mut server.party("issuer")).await;
    let mut bank = server.party("bank");
    let (reply, entry) = server.permitted(&mut bank, &a.verify(None)).await;
    assert_eq!(reply.json["verdict"], json!("valid"));
    assert_eq!(entry.open.labels, Labels::List(Vec::new()), "nobody was named");
    let open = with(&a.verify(None), |body| body["expect"] = json!({"uscc": a.draft.holder().number()}));
    let (reply, _) = server.permitted(&mut bank, &open).await;
    assert_eq!(reply.json["matches"], json!(true));
    // A field that is not open needs the holder's grant here too, and the license itself does.
    let closed = with(&a.verify(None), |body| body["expect"] = json!({"legalRepresentative": "x"}));
    server.refused(&mut bank, &closed, Code::NotPermitted).await;
    server.refused(&mut bank, &a.retrieve(&["uscc"], None), Code::NotPermitted).await;
    let absent = with(&a.verify(None), |body| body["license"] = Issued { ..absent(&a) }.named());
    let (reply, _) = server.permitted(&mut bank, &absent).await;
    assert_eq!((&reply.json["verdict"], &reply.json["reasons"]), (&json!("invalid"), &json!(["not-found"])));
}

#[tokio::test]
async fn the_holder_and_the_issuer_see_their_own() {
    let server = shared(setup).await;
    let [mut issuer, mut portal, mut other] =
        ["issuer", "portal", "authority2"].map(|name| server.party(name));
    let a = draft(&natural()).issue(&mut issuer).await;
    let search = |of: &Issued| {
        Call::new(Route::Search, &json!({"holder": holder(of.draft.holder()), "use": use_context()}))
    };
    let (reply, entry) = server.permitted(&mut portal, &search(&a)).await;
    assert_eq!(reply.json["licenses"][0]["identifier"], json!(a.identifier));
    assert!(matches!(&entry.open.labels, Labels::List(labels) if labels.len() == 1));
    let (reply, _) = server.permitted(&mut issuer, &search(&a)).await;
    assert_eq!(reply.json["licenses"][0]["identifier"], json!(a.identifier));
    let (reply, _) = server.permitted(&mut other, &search(&a)).await;
    assert_eq!(reply.json["licenses"], json!([]), "another authority sees only what it issued");
    let vouched = with(&a.verify(None), |body| body["holder"] = holder(a.draft.holder()));
    let (reply, _) = server.permitted(&mut portal, &vouched).await;
    assert_eq!(reply.json["verdict"], json!("valid"));
    let (reply, _) = server.permitted(&mut issuer, &a.verify(None)).await;
    assert_eq!(reply.json["verdict"], json!("valid"));
}

#[tokio::test]
async fn a_grant_is_refused_when_it_cannot_be_what_it_says() {
    let server = shared(setup).await;
    let [mut issuer, mut portal, bank] = ["issuer", "portal", "bank"].map(|name| server.party(name));
    let a = draft(&natural()).issue(&mut issuer).await;
    let good = grant(a.draft.holder(), &bank, Target::License(&a));
    let past = schemas::date::rfc3339(now_ms() - 1_000);
    for (member, value) in [
        ("until", json!(past)),
        ("until", json!("tomorrow")),
        ("modes", json!([])),
        ("maxUses", json!(0)),
        ("fields", json!(["surprise"])),
        ("itemCode", json!("")),
        ("typeCode", json!(natural().code.as_str())),
    ] {
        let mut body = good.clone();
        body[member] = value;
        server.refused(&mut portal, &Call::new(Route::GrantCreate, &body), Code::BadGrant).await;
    }
    let made = granted(&server, &mut portal, &a, "bank", |_| {}).await;
    server.permitted(&mut portal, &revoke(a.draft.holder(), &made)).await;
    server.refused(&mut portal, &revoke(a.draft.holder(), &made), Code::BadGrant).await;
}

/// Sends a request on many connections at once, each in a case of its own.
async fn at_once(party: &Party, call: &Call) -> Vec<tests::Reply> {
    let mut tasks = Vec::new();
    for _ in 0..AT_ONCE {
        let (mut party, call) = (party.again(), call.in_new_case());
        tasks.push(tokio::spawn(async move { party.send(&call).await }));
    }
    let mut replies = Vec::new();
    for task in tasks {
        replies.push(task.await.unwrap());
    }
    replies
}

#[tokio::test(flavor = "multi_thread")]
async fn uses_of_a_grant_are_counted_exactly_when_they_come_at_once() {
    let server = setup().start().await;
    let [mut issuer, mut portal, bank] = ["issuer", "portal", "bank"].map(|name| server.party(name));
    let a = draft(&natural()).issue(&mut issuer).await;
    let five = granted(&server, &mut portal, &a, "bank", |g| g["maxUses"] = json!(5)).await;
    let before = (server.answers(Route::Verify, Code::Ok).await, server.size().await);
    let replies = at_once(&bank, &a.verify(Some(&five))).await;
    let permits = replies.iter().filter(|reply| reply.status == 200).count();
    let denials: HashSet<_> =
        replies.iter().filter(|reply| reply.status == 403).map(tests::Reply::hashed).collect();
    assert_eq!((permits, denials.len()), (5, 1), "five uses, and one answer for all others");
    assert_eq!(server.answers(Route::Verify, Code::Ok).await, before.0 + 5);
    assert_eq!(server.size().await, before.1 + AT_ONCE as u64, "each answer has its entry");
    for reply in &replies {
        server.entry(reply).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daily_quota_is_exact_when_uses_come_at_once() {
    let server = setup().start().await;
    let [mut issuer, limited] = ["issuer", "limited"].map(|name| server.party(name));
    let a = draft(&legal()).issue(&mut issuer).await;
    let replies = at_once(&limited, &a.verify(None)).await;
    let permits = replies.iter().filter(|reply| reply.status == 200).count();
    assert_eq!(permits, 3);
    assert!(replies.iter().all(|reply| reply.status == 200 || reply.code() == Code::QuotaSpent.name()));
    server.refused(&mut limited.again(), &a.verify(None), Code::QuotaSpent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_at_a_field_ends_after_five_mismatches() {
    let server = setup().start().await;
    let [mut issuer, mut portal, bank] = ["issuer", "portal", "bank"].map(|name| server.party(name));
    let a = draft(&natural()).issue(&mut issuer).await;
    let right = granted(&server, &mut portal, &a, "bank", |_| {}).await;
    let guess =
        with(&a.verify(Some(&right)), |body| body["expect"] = json!({"certificateNumber": "CS-GUESS"}));
    let replies = at_once(&bank, &guess).await;
    let answered = replies.iter().filter(|reply| reply.status == 200).count();
    assert_eq!(answered, 5, "guesses answered");
    let good = with(&a.verify(Some(&right)), |body| {
        body["expect"] = json!({"certificateNumber": a.draft.license.certificate_number});
    });
    server.refused(&mut bank.again(), &good, Code::TooManyMismatches).await;
}

#[tokio::test]
async fn values_that_differ_in_typing_match_and_are_no_failed_guess() {
    let server = setup().start().await;
    let [mut issuer, mut portal, mut bank] = ["issuer", "portal", "bank"].map(|name| server.party(name));
    let mut value = draft(&natural()).of_name("买买提·阿不都（测试）");
    value.license.certificate_number = "京〔2026〕Cs-1号".to_owned();
    let a = value.issue(&mut issuer).await;
    let right = granted(&server, &mut portal, &a, "bank", |_| {}).await;
    let asking = |expect: Value| with(&a.verify(Some(&right)), |body| body["expect"] = expect.clone());
    let number = "京［２０２６］CS—1号 ";
    for name in [
        "买买提・阿不都(测试)",
        "买买提•阿不都（测试）",
        "买买提 ‧ 阿不都（测试） ",
        "买买提．阿不都（测试）",
    ] {
        let call = asking(json!({"holderName": name, "certificateNumber": number}));
        // More often than a failed guess is allowed.
        let (reply, _) = server.permitted(&mut bank, &call).await;
        assert_eq!(reply.json["matches"], json!(true), "{name}");
        assert_eq!(reply.json["folded"], json!(["/expect/holderName", "/expect/certificateNumber"]));
    }
    let exact = asking(json!({"holderName": "买买提·阿不都（测试）"}));
    for _ in 0..3 {
        let (reply, _) = server.permitted(&mut bank, &exact).await;
        assert_eq!((&reply.json["matches"], &reply.json["folded"]), (&json!(true), &Value::Null));
    }
    // A wrong value tells nothing of the others, and five of them end it.
    for _ in 0..5 {
        let call = asking(json!({"holderName": "买买提阿不都", "certificateNumber": number}));
        let (reply, _) = server.permitted(&mut bank, &call).await;
        assert_eq!((&reply.json["matches"], &reply.json["folded"]), (&json!(false), &Value::Null));
    }
    server.refused(&mut bank, &exact, Code::TooManyMismatches).await;

    // Looked up by its number, however that is typed; the signed bytes keep what was sent.
    let license =
        json!({"typeCode": natural().code, "certificateNumber": number, "holder": holder(a.draft.holder())});
    let body = json!({"license": license, "mode": "fields", "fields": ["certificateNumber"], "grant": right,
        "use": use_context()});
    let (reply, _) = server.permitted(&mut bank, &Call::new(Route::Retrieve, &body)).await;
    assert_eq!(reply.json["fields"]["certificateNumber"], json!("京〔2026〕Cs-1号"));
    let body = json!({"license": license, "grant": right, "use": use_context()});
    let (reply, _) = server.permitted(&mut bank, &Call::new(Route::Verify, &body)).await;
    assert_eq!(
        (&reply.json["verdict"], &reply.json["folded"]),
        (&json!("valid"), &json!(["/license/certificateNumber"]))
    );
}

/// Every file below a folder.
fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found
}

#[tokio::test]
async fn nothing_personal_stands_in_a_file_a_log_line_or_a_metric() {
    let mut server = setup().env("RUST_LOG", "trace").start().await;
    let [mut issuer, mut portal, mut bank] = ["issuer", "portal", "bank"].map(|name| server.party(name));
    let draft = draft(&natural()).of_name("测试绝不外传");
    let a = draft.issue(&mut issuer).await;
    let right = granted(&server, &mut portal, &a, "bank", |g| g["maxUses"] = json!(9)).await;
    let with_user = |call: Call| with(&call, |body| body["use"]["userName"] = json!("经办绝不外传"));
    for call in [
        a.verify(Some(&right)),
        a.verify(None),
        a.verify_envelope(),
        a.retrieve(&["holderName"], Some(&right)),
        a.retrieve(&["address"], Some(&right)),
        Call::new(Route::Search, &json!({"holder": holder(a.draft.holder()), "use": use_context()})),
    ] {
        bank.send(&with_user(call)).await;
    }
    portal
        .send(&Call::new(Route::Search, &json!({"holder": holder(a.draft.holder()), "use": use_context()})))
        .await
        .expect(200);
    issuer.send(&a.operation("03", None)).await.expect(200);
    let metrics = server.admin("/metrics").await.body;
    assert_eq!(server.stop(), Some(0));
    let address = a.draft.license.fields.iter().find(|(key, _)| key == "address").unwrap().1.clone();
    let secrets = [
        a.draft.holder().number(),
        "绝不外传",
        &a.draft.serial,
        &a.identifier,
        &a.draft.license.certificate_number,
        &address,
        &right,
    ];
    let silent = |bytes: &[u8], whence: &str| {
        for secret in secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{whence} tells {secret}");
        }
    };
    assert!(!server.stderr().is_empty(), "the operator's log was on");
    silent(server.stderr().as_bytes(), "the operator's log");
    silent(&metrics, "a metric");
    for folder in ["journal", "store", "tiles"] {
        for path in files(&server.folder.join(folder)) {
            let bytes = std::fs::read(&path).unwrap();
            silent(&bytes, &path.display().to_string());
            // A grant's id is no name of anything on the disk, neither of the grant nor of its counter.
            let id = hex::decode(&right).unwrap();
            assert!(
                !bytes.windows(id.len()).any(|window| window == id),
                "{} has a grant's id",
                path.display()
            );
        }
    }
}
