//! Limits: failed matches, quotas, uses of a grant and the budget of journaled refusals are exact, each says which of
//! them was reached, and none of them touches another organisation.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use exchange::opening;
use exchange::participant::Participant;
use schemas::codes::Code;
use schemas::routes::Route;
use serde_json::{Value, json};
use tests::{
    Call, Issued, Party, Reply, Server, Setup, Target, draft, eventually, grant, key, legal, natural,
};

/// Requests at once.
const AT_ONCE: usize = 64;
/// One in so many of them expects what is right.
const RIGHT_EVERY: usize = 8;
/// Failed matches an organisation may make on one license a day.
const MISMATCHES: usize = 5;
/// Journaled refusals a second of the budget test.
const REFUSALS_A_SECOND: u32 = 5;
/// Journaled refusals at once of the budget test.
const REFUSAL_BURST: u32 = 20;
/// Connections that send refused requests.
const NOISY: usize = 20;
/// Requests of all of them.
const BAD_REQUESTS: usize = 200;

fn with(call: &Call, change: impl FnOnce(&mut Value)) -> Call {
    let mut body: Value = serde_json::from_slice(&call.body).unwrap();
    change(&mut body);
    Call::new(call.route, &body)
}

fn expecting(license: &Issued, grant: &str, number: &str) -> Call {
    with(&license.verify(Some(grant)), |body| body["expect"] = json!({"certificateNumber": number}))
}

/// A grant of everything, with at most so many uses.
async fn granted(portal: &mut Party, of: &Issued, grantee: &Party, max_uses: Option<u32>) -> String {
    let mut body = grant(of.draft.holder(), grantee, Target::License(of));
    if let Some(max_uses) = max_uses {
        body["maxUses"] = json!(max_uses);
    }
    portal.grant(&body).await
}

/// Sends each request on a connection of its own, all at once.
async fn at_once(party: &Party, calls: Vec<Call>) -> Vec<Reply> {
    let barrier = Arc::new(tokio::sync::Barrier::new(calls.len()));
    let tasks: Vec<_> = calls
        .into_iter()
        .map(|call| {
            let (mut party, barrier) = (party.again(), Arc::clone(&barrier));
            tokio::spawn(async move {
                barrier.wait().await;
                party.send(&call).await
            })
        })
        .collect();
    let mut replies = Vec::new();
    for task in tasks {
        replies.push(task.await.unwrap());
    }
    replies
}

#[tokio::test(flavor = "multi_thread")]
async fn after_five_failed_matches_committed_no_match_is_told_that_day() {
    let server = Setup::new().start().await;
    let [mut issuer, mut portal, mut bank] = ["issuer", "portal", "bank"].map(|name| server.party(name));
    for _ in 0..3 {
        let license = draft(&natural()).issue(&mut issuer).await;
        let right = granted(&mut portal, &license, &bank, None).await;
        let good = expecting(&license, &right, &license.draft.license.certificate_number);
        let guess = expecting(&license, &right, "CS-GUESS");
        let calls = (0..AT_ONCE)
            .map(|number| if number % RIGHT_EVERY == RIGHT_EVERY - 1 { good.clone() } else { guess.clone() })
            .collect();
        let replies = at_once(&bank, calls).await;
        let mut told: HashMap<bool, Vec<u64>> = HashMap::new();
        for reply in &replies {
            match reply.json["matches"].as_bool() {
                Some(matches) => told.entry(matches).or_default().push(reply.receipt().index),
                None => assert_eq!(
                    (reply.status, reply.code()),
                    (403, Code::TooManyMismatches.name()),
                    "{}",
                    reply.json
                ),
            }
        }
        let mut failed = told.remove(&false).unwrap_or_default();
        failed.sort_unstable();
        assert_eq!(failed.len(), MISMATCHES, "guesses answered");
        let last = *failed.last().unwrap();
        for index in told.remove(&true).unwrap_or_default() {
            assert!(index < last, "a match is told at {index}, after the last guess at {last}");
        }
        for call in [&good, &guess] {
            server.refused(&mut bank, call, Code::TooManyMismatches).await;
        }
        // Without an expectation, and for another organisation, nothing is spent.
        server.permitted(&mut bank, &license.verify(Some(&right))).await;
        let mut approval = server.party("approval");
        let other = granted(&mut portal, &license, &approval, None).await;
        let good = expecting(&license, &other, &license.draft.license.certificate_number);
        let (reply, _) = server.permitted(&mut approval, &good).await;
        assert_eq!(reply.json["matches"], json!(true));
    }
}

/// Sends `call` held before its commit by a server with that hold point; meanwhile sends `between` as the same caller.
async fn held(hold: &PathBuf, party: &Party, call: &Call, between: &[Call]) -> Reply {
    let arrived = hold.with_extension("arrived");
    let _ = std::fs::remove_file(&arrived);
    std::fs::write(hold, "").unwrap();
    let held = call.clone().header("x-miaoxiang-hold", "1");
    let mut first = party.again();
    let task = tokio::spawn(async move { first.send(&held).await });
    eventually("the held decision", || async { arrived.exists().then_some(()) }).await;
    let mut second = party.again();
    for call in between {
        second.send(call).await.expect(200);
    }
    assert!(!task.is_finished(), "the request was not held");
    std::fs::remove_file(hold).unwrap();
    task.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_match_decided_before_the_last_guess_is_not_told_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let hold = folder.path().join("hold");
    let server = Setup::new().env("MIAOXIANG_HOLD", hold.to_str().unwrap()).start().await;
    let [mut issuer, mut portal, bank] = ["issuer", "portal", "bank"].map(|name| server.party(name));
    for good in [true, false] {
        let license = draft(&natural()).issue(&mut issuer).await;
        let right = granted(&mut portal, &license, &bank, None).await;
        let number = if good { &license.draft.license.certificate_number } else { "CS-LATE" };
        let call = expecting(&license, &right, number);
        let guess = expecting(&license, &right, "CS-GUESS");
        let guesses = vec![guess; MISMATCHES];
        // One guess less leaves the answer as it was decided.
        let reply = held(&hold, &bank, &call, &guesses[1..]).await.expect(200);
        assert_eq!(reply.json["matches"], json!(good));
        let left = if good { &guesses[..1] } else { &[] };
        if !left.is_empty() {
            let reply = held(&hold, &bank, &call, left).await;
            assert_eq!((reply.status, reply.code()), (403, Code::TooManyMismatches.name()));
            assert!(reply.json.get("matches").is_none(), "{}", reply.json);
        }
        let reply = bank.again().send(&call).await;
        assert_eq!((reply.status, reply.code()), (403, Code::TooManyMismatches.name()));
        // All of them meanwhile.
        let license = draft(&natural()).issue(&mut issuer).await;
        let right = granted(&mut portal, &license, &bank, None).await;
        let number = if good { &license.draft.license.certificate_number } else { "CS-LATE" };
        let guesses = vec![expecting(&license, &right, "CS-GUESS"); MISMATCHES];
        let reply = held(&hold, &bank, &expecting(&license, &right, number), &guesses).await;
        assert_eq!((reply.status, reply.code()), (403, Code::TooManyMismatches.name()), "{}", reply.json);
    }
}

/// The request that gives an organisation another daily quota.
fn quota_of(server: &Server, name: &str, daily_quota: u32) -> Call {
    let participant = json!({
        "organisation": server.organisation(name).as_str(), "name": "测试限额单位", "roles": ["relying"],
        "dailyQuota": daily_quota, "validFrom": "2026-01-01",
    });
    Call::new(Route::ParticipantChange, &json!({ "participant": participant }))
}

#[tokio::test]
async fn a_contract_lets_licenses_be_used_for_its_purposes_only() {
    let agreed = ["开户核验", "贷后管理"].map(str::to_owned);
    let purposes = agreed.to_vec();
    let bind = move |bound: &mut Participant| {
        (bound.contract, bound.purposes) = (Some("CONTRACT-1".to_owned()), purposes);
    };
    let server = Setup::new().participant("bound", bind).start().await;
    let [mut issuer, mut operator, mut bound] =
        ["issuer", "operator", "bound"].map(|name| server.party(name));
    let company = draft(&legal()).issue(&mut issuer).await;
    let never = draft(&legal());
    let asked = |purpose: Option<&str>| {
        let purpose = purpose.map(str::to_owned);
        with(&company.verify(None), |body| {
            body["use"]["purpose"] = json!(purpose);
        })
    };
    let without = company.verify(None);
    for call in [&without, &asked(Some("营销")), &asked(Some(""))] {
        let code =
            if call.body == asked(Some("")).body { Code::BadUseContext } else { Code::PurposeNotAgreed };
        server.refused(&mut bound, call, code).await;
    }
    let (refused, _) = server.refused(&mut bound, &without, Code::PurposeNotAgreed).await;
    assert_eq!(
        refused.json["errors"],
        json!([{"pointer": "/use/purpose", "rule": "one-of", "allowed": agreed}])
    );
    // It says nothing of the license.
    let nothing = with(&without, |body| {
        body["license"] = json!({
            "typeCode": never.license_type.code, "certificateNumber": never.license.certificate_number,
            "holder": tests::holder(never.holder()),
        })
    });
    let (unknown, _) = server.refused(&mut bound, &nothing, Code::PurposeNotAgreed).await;
    let said = |reply: &Reply| reply.json["errors"].clone();
    assert_eq!(said(&unknown), said(&refused));
    for purpose in &agreed {
        server.permitted(&mut bound, &asked(Some(purpose))).await;
    }
    // Another registration binds the next use.
    let change = json!({"participant": {
        "organisation": bound.organisation, "name": "测试单位", "roles": ["relying"], "contract": "CONTRACT-2",
        "purposes": [agreed[1]], "validFrom": "2026-01-01",
    }});
    server.permitted(&mut operator, &Call::new(Route::ParticipantChange, &change)).await;
    server.refused(&mut bound, &asked(Some(&agreed[0])), Code::PurposeNotAgreed).await;
    server.permitted(&mut bound, &asked(Some(&agreed[1]))).await;
}

#[tokio::test]
async fn a_spent_quota_and_a_spent_grant_have_a_code_each() {
    let mut server =
        Setup::new().participant("limited", |limited| limited.daily_quota = Some(3)).start().await;
    let [mut issuer, mut portal, mut operator, mut limited] =
        ["issuer", "portal", "operator", "limited"].map(|name| server.party(name));
    let license = draft(&natural()).issue(&mut issuer).await;
    let company = draft(&legal()).issue(&mut issuer).await;
    let two = granted(&mut portal, &license, &limited, Some(2)).await;
    let five = granted(&mut portal, &license, &limited, Some(5)).await;
    let (by_two, by_five) = (license.verify(Some(&two)), license.verify(Some(&five)));
    let retrieve = license.retrieve(&["holderName"], Some(&five));
    // The grant is spent, the quota is not, and a refusal takes nothing of it.
    for _ in 0..2 {
        server.permitted(&mut limited, &by_two.in_new_case()).await;
    }
    for _ in 0..3 {
        server.refused(&mut limited, &by_two.in_new_case(), Code::NotPermitted).await;
    }
    // The quota is spent, the grant is not, and a refusal takes none of its uses.
    server.permitted(&mut limited, &by_five.in_new_case()).await;
    let matching = expecting(&license, &five, &license.draft.license.certificate_number);
    let guess = expecting(&license, &five, "CS-GUESS");
    for call in [&by_five, &retrieve, &matching, &guess, &company.verify(None), &company.verify_envelope()] {
        server.refused(&mut limited, call, Code::QuotaSpent).await;
    }
    server.permitted(&mut operator, &quota_of(&server, "limited", 4)).await;
    server.permitted(&mut limited, &retrieve.in_new_case()).await;
    server.refused(&mut limited, &by_five.in_new_case(), Code::QuotaSpent).await;
    server.permitted(&mut operator, &quota_of(&server, "limited", 100)).await;
    for _ in 0..3 {
        server.permitted(&mut limited, &by_five.in_new_case()).await;
    }
    let (_, refused) = server.refused(&mut limited, &by_five.in_new_case(), Code::NotPermitted).await;
    server.permitted(&mut limited, &company.verify(None)).await;
    // A guess that the quota refused was none: all of them are left.
    let more = granted(&mut portal, &license, &limited, Some(10)).await;
    for _ in 0..MISMATCHES {
        let (reply, _) = server.permitted(&mut limited, &expecting(&license, &more, "CS-GUESS")).await;
        assert_eq!(reply.json["matches"], json!(false));
    }
    let good = expecting(&license, &more, &license.draft.license.certificate_number);
    let (_, too_many) = server.refused(&mut limited, &good, Code::TooManyMismatches).await;
    // Insiders read which counter it was.
    assert_eq!(server.stop(), Some(0));
    let reasons = server.reasons();
    let used_up = schemas::codes::Reason::GrantUsedUp.number();
    assert_eq!(reasons.get(&refused.open.index), Some(&used_up));
    assert_ne!(reasons.get(&too_many.open.index), Some(&used_up));
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_of_one_organisation_is_shed_and_keeps_nobody_else_out() {
    let mut server = Setup::new()
        .config(|config| {
            config.limits.refusals_a_second = NonZeroU32::new(REFUSALS_A_SECOND).unwrap();
            config.limits.refusal_burst = NonZeroU32::new(REFUSAL_BURST).unwrap();
        })
        .start()
        .await;
    let [mut issuer, bank, approval] = ["issuer", "bank", "approval"].map(|name| server.party(name));
    let good = draft(&legal()).issue(&mut issuer).await.verify(None);
    let bad = Call::raw(Route::Verify, "{");
    let begun = Instant::now();
    let sent = Arc::new(AtomicUsize::new(0));
    let noisy: Vec<_> = (0..NOISY)
        .map(|_| {
            let (mut party, bad, sent) = (bank.again(), bad.clone(), Arc::clone(&sent));
            tokio::spawn(async move {
                let mut replies = Vec::new();
                for _ in 0..BAD_REQUESTS / NOISY {
                    replies.push(party.send(&bad).await);
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                replies
            })
        })
        .collect();
    // Beside them, and while the noisy organisation is shut out.
    let mut quiet = approval.again();
    while sent.load(Ordering::Relaxed) < BAD_REQUESTS {
        let reply = quiet.send(&good).await.expect(200);
        assert_eq!(reply.json["verdict"], json!("valid"));
        if noisy.iter().all(tokio::task::JoinHandle::is_finished) {
            break;
        }
    }
    let mut replies = Vec::new();
    for task in noisy {
        replies.extend(task.await.unwrap());
    }
    // Whatever the budget earned in that time, and a second more for rounding.
    let earned = (begun.elapsed().as_secs() + 1) * u64::from(REFUSALS_A_SECOND);
    let (journaled, shed): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status == 400);
    let bound = u64::from(REFUSAL_BURST) + NOISY as u64 + 1 + earned;
    assert!(journaled.len() as u64 <= bound, "{} refusals journaled, at most {bound}", journaled.len());
    assert!(journaled.len() >= REFUSAL_BURST as usize, "the burst is the organisation's");
    assert!(!shed.is_empty(), "nothing was shed");
    for reply in &journaled {
        assert_eq!(reply.code(), Code::MalformedRequest.name());
        server.entry(reply).await;
    }
    for reply in &shed {
        assert_eq!((reply.status, reply.code()), (429, Code::TooManyRefusals.name()));
        assert!(reply.json.get("receipt").is_none(), "{}", reply.json);
        assert_eq!(reply.body, shed[0].body, "a fixed body");
        assert!(reply.retry_after.is_some());
    }
    server.permitted(&mut approval.again(), &good).await;

    // It is let in again, and what it may is what it might.
    eventually("the organisation is served again", || async {
        let reply = bank.again().send(&good).await;
        assert!(matches!(reply.status, 200 | 429), "{}", reply.json);
        (reply.status == 200).then_some(())
    })
    .await;
    let again = bank.again().send(&bad).await;
    assert_eq!((again.status, again.code()), (400, Code::MalformedRequest.name()));
    server.entry(&again).await;

    // What was shed is counted, and the counts are journaled for the organisation alone.
    let counted = server.answers(Route::Verify, Code::TooManyRefusals).await;
    assert!(counted >= shed.len() as u64);
    assert_eq!(server.stop(), Some(0));
    server.log_verify();
    let keys = opening::ledger_keys(&opening::key_folder(&server.config).unwrap()).unwrap();
    let mut recorded: HashMap<(String, u16), u64> = HashMap::new();
    ledger::entries(opening::ledger_options(&server.config), keys, |entry| {
        for shed in &entry.record.shed {
            *recorded.entry((shed.organisation.clone(), shed.code)).or_default() += shed.count;
        }
    })
    .unwrap();
    let noisy = (server.organisation("bank").to_string(), Code::TooManyRefusals.number());
    assert_eq!(recorded, HashMap::from([(noisy, counted)]));
    server.start();
    server.permitted(&mut server.party("bank"), &good).await;
}

/// HTTP/2 connections of one organisation, and requests on each: more than one organisation may have under way.
const TRICKLING: usize = 9;
const STREAMS: usize = 128;

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_do_not_arrive_keep_nobody_else_out() {
    let server = Setup::new()
        .stranger("stranger")
        .participant("suspended", |suspended| suspended.suspended = true)
        .start()
        .await;
    let mut issuer = server.party("issuer");
    let good = draft(&legal()).issue(&mut issuer).await.verify(None);
    let begun = Call::raw(Route::Verify, "{").endless();
    for name in ["stranger", "suspended", "bank"] {
        let mut slow = tokio::task::JoinSet::new();
        for _ in 0..TRICKLING {
            let connection = server.party(name).http2().await;
            for _ in 0..STREAMS {
                let (connection, begun) = (connection.clone(), begun.clone());
                slow.spawn(async move { connection.send(&begun).await });
            }
        }
        // One of them found no room: they hold all that they get.
        let refused = slow.join_next().await.unwrap().unwrap().unwrap();
        assert_eq!((refused.status, refused.code()), (503, Code::Overloaded.name()), "{name}");
        let mut quiet = server.party("approval");
        for _ in 0..20 {
            quiet.again().send(&good).await.expect(200);
            quiet.send(&good).await.expect(200);
        }
        if name == "bank" {
            // None of the same organisation's either, as soon as a body has waited long enough.
            eventually("room of the organisation's own", || async {
                let reply = server.party(name).send(&good).await;
                assert!(matches!(reply.status, 200 | 503), "{}", reply.json);
                (reply.status == 200).then_some(())
            })
            .await;
        }
    }
    // What brings nothing is told so, before the longest time that a body may take.
    let reply = server.party("bank").http2().await.send(&begun).await.unwrap();
    assert_eq!((reply.status, reply.code()), (408, Code::RequestTimeout.name()));
}

/// Connections with log queries at once: more of these than the process has threads that may block.
const ASKING: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_are_long_in_reading_hold_up_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let hold = folder.path().join("hold");
    let server = Setup::new().env("MIAOXIANG_HOLD_PAGES", hold.to_str().unwrap()).start().await;
    let [mut issuer, mut portal, mut bank] = ["issuer", "portal", "bank"].map(|name| server.party(name));
    let license = draft(&legal()).issue(&mut issuer).await;
    let good = license.verify(None);
    let (reply, _) = server.permitted(&mut bank, &good).await;
    server.proof(reply.receipt().index).await;
    let holder = tests::holder(license.draft.holder());
    let search = Call::new(Route::Search, &json!({"holder": holder, "use": tests::use_context()}));
    let query = Call::new(Route::LogQuery, &json!({"purpose": "测试审计", "userName": "测试审计员"}));
    std::fs::write(&hold, "").unwrap();
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..ASKING {
        let connection = server.party("auditor").http2().await;
        for _ in 0..STREAMS {
            let (connection, query) = (connection.clone(), query.clone());
            asking.spawn(async move { connection.send(&query).await });
        }
    }
    // Those that find no place are told to come again.
    let refused = asking.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!((refused.status, refused.code()), (503, Code::Overloaded.name()));
    assert!(refused.retry_after.is_some());
    for _ in 0..10 {
        bank.send(&good).await.expect(200);
        let found = portal.send(&search).await.expect(200);
        assert_eq!(found.json["licenses"].as_array().unwrap().len(), 1);
        server.public("/v1/log/tile/entries/000.p/1").await.expect(200);
        server.proof(0).await;
    }
    std::fs::remove_file(&hold).unwrap();
    let mut given = 0;
    while let Some(reply) = asking.join_next().await {
        let reply = reply.unwrap().unwrap();
        assert!(matches!(reply.status, 200 | 503), "{}", reply.json);
        given += usize::from(reply.status == 200);
    }
    assert!(given > 0, "nobody got a page");
    // And another one does, as before.
    server.party("auditor").send(&query).await.expect(200);
}

#[tokio::test]
async fn a_key_on_another_route_is_bound_to_another_request() {
    let server = Setup::new().start().await;
    let mut operator = server.party("operator");
    let organisation = schemas::synthetic::Synthetic::new(77).uscc();
    let participant = json!({
        "organisation": organisation.as_str(), "name": "测试同键", "roles": ["relying"], "validFrom": "2026-01-01",
    });
    let body = json!({ "participant": participant });
    // Both routes take the same document.
    let (first, second) = (key(), key());
    let add = |key: &str| Call::new(Route::ParticipantAdd, &body).key(key).without("receipt");
    let change = |key: &str| Call::new(Route::ParticipantChange, &body).key(key).without("receipt");
    assert_eq!(add(&first).body, change(&first).body);
    let (added, _) = server.permitted(&mut operator, &add(&first)).await;
    server.refused(&mut operator, &change(&first), Code::IdempotencyConflict).await;
    let (changed, _) = server.permitted(&mut operator, &change(&second)).await;
    server.refused(&mut operator, &add(&second), Code::IdempotencyConflict).await;
    // Each key still gives its own answer.
    assert_eq!(operator.send(&add(&first)).await.expect(201).body, added.body);
    assert_eq!(operator.send(&change(&second)).await.expect(200).body, changed.body);
}
