//! Calls to a data provider's interface: a real provider with certificates, delays and faults beside a real exchange.

use std::collections::BTreeMap;

use schemas::codes::Code;
use schemas::routes::Route;
use serde_json::{Value, json};
use tests::called::{COMPANY, allow, question, resource, share, step};
use tests::{Call, Identity, Party, Provider, Reaction, Reply, Server, Setup, eventually, key};
use verifier::leaf::{Open, Stage};

async fn ask(server: &Server, call: &Call) -> Reply {
    server.party("bank").send(call).await
}

fn stage(reply: &Reply) -> Stage {
    Open::parse(&reply.receipt().open).unwrap().stage
}

/// The calls as the company is told of them, newest first: the stage of each entry, and the words beside it.
async fn trace(server: &Server, holds: impl Fn(&[(Stage, Option<String>)]) -> bool) {
    let body = json!({"holder": {"typeCode": "001", "number": COMPANY}, "use": tests::use_context()});
    let call = Call::new(Route::Trace, &body);
    eventually("the trace tells of the call", || async {
        let page = server.party("portal").send(&call).await.expect(200).json;
        let told = page["entries"].as_array().unwrap().iter().filter_map(|entry| {
            let document: Value = serde_json::from_str(entry["told"]["document"].as_str()?).unwrap();
            document.get("resource")?;
            let open = hex::decode(entry["entry"]["open"].as_str()?).ok().or_else(|| {
                use base64::Engine as _;
                base64::engine::general_purpose::STANDARD.decode(entry["entry"]["open"].as_str()?).ok()
            })?;
            let mode = document["mode"].as_str().map(str::to_owned);
            Some((Open::parse(&open).unwrap().stage, mode))
        });
        let told: Vec<_> = told.collect();
        holds(&told).then_some(())
    })
    .await;
}

/// Asks without waiting for the answer.
fn asking(server: &Server, call: &Call) -> tokio::task::JoinHandle<anyhow::Result<Reply>> {
    let (mut party, call): (Party, Call) = (server.party("bank"), call.clone());
    tokio::spawn(async move { party.try_send(&call).await })
}

async fn arrived(provider: &Provider, count: usize) {
    eventually("the question arrives", || async { (provider.asked() >= count).then_some(()) }).await;
}

#[test]
fn the_page_leads_from_an_interface_to_an_answered_call() {
    crate::departments::follow(include_str!("../../exchange/docs/guides/providers.md"));
}

#[tokio::test]
async fn a_row_is_called_for_within_an_approval_at_an_address_that_two_operators_allowed() {
    let server = Setup::new().start().await;
    let provider = Provider::of(&server);
    let resource = resource(1, &provider.url(), 5_000);
    let written = Call::new(Route::ResourceWrite, &json!({"resource": resource}));
    server.party("provider").send(&written).await.expect(200);
    let early = step(&server, &resource["code"], "publish").await.expect(409);
    assert_eq!(early.json["detail"], "address-not-allowed");
    let address = provider.address(server.organisation("provider").as_str());
    allow(&server, &address).await;
    share(&server, &resource, None).await;

    let call = question(&resource).key(&key());
    let first = ask(&server, &call).await.expect(200);
    assert_eq!(first.json["record"], json!({"organisationName": "测试单位", "status": "在营"}));
    assert!(first.json.get("updatedAt").is_none() && first.json.get("late").is_none());
    let index = first.receipt().index;
    assert_eq!(stage(&first), Stage::Outcome { intent: index - 1 });
    let asked = &provider.questions()[0];
    assert_eq!(asked["key"], json!({"creditCode": COMPANY}));
    assert_eq!(
        asked["fields"],
        json!(["organisationName", "regionCode", "status"]),
        "no more than is needed"
    );
    assert_eq!(asked["intent"], index - 1);

    // The same key: the same answer, and nobody is asked.
    assert_eq!(ask(&server, &call).await.expect(200).receipt().index, index);
    assert_eq!(provider.asked(), 1);
    provider.react(Reaction::Nothing);
    assert_eq!(ask(&server, &question(&resource)).await.expect(200).json["found"], false);
    // Hosted rows have their own way.
    let mut hosted = question(&resource);
    hosted = Call::raw(Route::RecordsQuery, hosted.body);
    assert_eq!(ask(&server, &hosted).await.expect(409).json["detail"], "other-supply");
    // Where it is called is not for all to see.
    let search = Call::new(Route::ResourceSearch, &json!({}));
    for (name, shown) in [("bank", false), ("provider", true), ("auditor", true)] {
        let found = server.party(name).send(&search).await.expect(200).json;
        assert_eq!(found["resources"][0]["resource"].get("interface").is_some(), shown, "{name}");
    }
    trace(&server, |told| {
        let stages: Vec<_> = told.iter().map(|(stage, _)| *stage).collect();
        stages.contains(&Stage::Intent) && stages.contains(&Stage::Outcome { intent: index - 1 })
    })
    .await;

    // Two operators end it, and nobody is called any more.
    let mut ended = address;
    ended.as_object_mut().unwrap().remove("authorities");
    allow(&server, &ended).await;
    let refused = ask(&server, &question(&resource)).await.expect(409);
    assert_eq!(refused.json["detail"], "address-not-allowed");
    assert_eq!(provider.asked(), 2);
    assert_eq!(server.log_verify()["verdict"], "valid");
}

#[tokio::test]
async fn each_fault_of_a_provider_is_an_answer_that_names_its_cause() {
    let server = Setup::new().start().await;
    let provider = Provider::of(&server);
    let organisation = server.organisation("provider");
    let organisation = organisation.as_str();
    allow(&server, &provider.address(organisation)).await;
    let shared = resource(1, &provider.url(), 700);
    share(&server, &shared, None).await;
    let row = |row: Value| Reaction::Bytes(json!({"rows": [row]}).to_string().into());
    let good = json!({"creditCode": COMPANY, "organisationName": "测试单位", "regionCode": "350102", "status": "在营"});
    let changed = |name: &str, value: Value| {
        let mut changed = good.clone();
        changed[name] = value;
        row(changed)
    };
    let wrong = Code::ProviderWrong;
    let cases = [
        ("another form", Reaction::Bytes("<html>".into()), wrong, "provider-rows"),
        (
            "two rows",
            Reaction::Bytes(json!({"rows": [good, good]}).to_string().into()),
            wrong,
            "provider-rows",
        ),
        ("another's row", changed("creditCode", "91350102XX3DEMPQ7P".into()), wrong, "provider-rows"),
        ("a wrong type", changed("status", 1.into()), wrong, "provider-rows"),
        ("a value too long", changed("organisationName", "长".repeat(5_000).into()), wrong, "provider-rows"),
        ("a field of none", changed("secret", "x".into()), wrong, "provider-rows"),
        ("without an end", Reaction::Endless, wrong, "provider-rows"),
        ("a slow trickle", Reaction::Trickle, Code::ProviderLate, ""),
        ("a redirect", Reaction::Status(302), wrong, "provider-status"),
        ("an error", Reaction::Status(500), wrong, "provider-status"),
        ("a break", Reaction::Break, wrong, "provider-broken"),
    ];
    let mut causes: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, reaction, code, cause) in cases {
        provider.react(reaction);
        let before = provider.asked();
        let call = question(&shared).key(&key());
        let failed = ask(&server, &call).await;
        assert_eq!((failed.code(), failed.status), (code.name(), 503), "{name}: {}", failed.json);
        assert_eq!(failed.json["detail"].as_str().unwrap_or_default(), cause, "{name}");
        assert!(matches!(stage(&failed), Stage::Outcome { .. }), "{name}");
        // The key has its outcome: nobody is asked again.
        let again = ask(&server, &call).await;
        assert_eq!((again.code(), provider.asked()), (code.name(), before + 1), "{name}");
        *causes.entry(if cause.is_empty() { code.name() } else { cause }).or_default() += 1;
        provider.react(Reaction::Row);
        assert_eq!(ask(&server, &question(&shared)).await.expect(200).json["found"], true, "{name}");
    }
    for (cause, count) in causes {
        assert_eq!(server.metric("miaoxiang_calls_total", &[("cause", cause)]).await, count, "{cause}");
    }

    // A provider that cannot be reached, or does not prove who it is, is sent nothing.
    let expired = Provider::with(&server, Identity::until(2020));
    let other = json!({"organisation": organisation, "host": "127.0.0.2", "port": provider.port, "authorities": provider.authorities});
    let mut stranger = provider.address(organisation);
    stranger["host"] = "127.0.0.1".into();
    stranger["authorities"] = expired.authorities.clone().into();
    let mut down = provider.address(organisation);
    down["port"] = 1.into();
    let cases = [
        ("an expired certificate", expired.url(), expired.address(organisation), "provider-certificate"),
        (
            "a foreign authority",
            format!("https://127.0.0.1:{}/", provider.port),
            stranger,
            "provider-certificate",
        ),
        ("down", "https://localhost:1/".to_owned(), down, "provider-down"),
        ("nobody there", format!("https://127.0.0.2:{}/", provider.port), other, "provider-down"),
    ];
    let before = provider.asked();
    for (number, (name, url, address, cause)) in (10..).zip(cases) {
        allow(&server, &address).await;
        let shared = resource(number, &url, 5_000);
        share(&server, &shared, None).await;
        let failed = ask(&server, &question(&shared)).await.expect(503);
        assert_eq!(
            (failed.code(), failed.json["detail"].as_str()),
            ("provider-unavailable", Some(cause)),
            "{name}"
        );
        assert_eq!((stage(&failed), failed.retry_after.as_deref()), (Stage::Whole, Some("10")), "{name}");
    }
    assert_eq!((provider.asked(), expired.asked()), (before, 0));

    // A certificate for another host. Where it is reached, it is not believed.
    let elsewhere = Provider::at(&server, "127.0.0.3:0".parse().unwrap(), Identity::until(2100));
    let url = format!("https://127.0.0.3:{}/", elsewhere.port);
    let mut address = elsewhere.address(organisation);
    address["host"] = "127.0.0.3".into();
    allow(&server, &address).await;
    let shared = resource(20, &url, 5_000);
    share(&server, &shared, None).await;
    let failed = ask(&server, &question(&shared)).await.expect(503);
    assert_eq!(failed.json["detail"], "provider-certificate");
    assert_eq!(elsewhere.asked(), 0);
}

#[tokio::test]
async fn who_fails_in_a_row_is_left_alone_and_who_stalls_holds_nobody_up() {
    /// The failures that a breaker lets pass, and the calls that one provider gets at once.
    const MOST_FAILURES: usize = 5;
    const MOST_CALLS: usize = 64;
    let server = Setup::new().start().await;
    let [slow, other] = [Provider::of(&server), Provider::of(&server)];
    for (number, provider) in (1..).zip([&slow, &other]) {
        allow(&server, &provider.address(server.organisation("provider").as_str())).await;
        share(&server, &resource(number, &provider.url(), 10_000), None).await;
    }
    let [of_slow, of_other] = [resource(1, "", 0), resource(2, "", 0)].map(|resource| question(&resource));
    slow.react(Reaction::Stall);
    let stalled: Vec<_> = (0..MOST_CALLS).map(|_| asking(&server, &of_slow)).collect();
    arrived(&slow, MOST_CALLS).await;
    // One more is refused at once, and others are answered while these wait.
    let busy = ask(&server, &of_slow).await.expect(503);
    assert_eq!(busy.json["detail"], "provider-busy");
    for _ in 0..20 {
        ask(&server, &of_other).await.expect(200);
    }
    assert!(stalled.iter().all(|call| !call.is_finished()), "they were answered before");
    slow.release();
    for call in stalled {
        call.await.unwrap().unwrap().expect(200);
    }

    // An answer to the question itself says nothing of the next one.
    slow.react(Reaction::Status(404));
    for _ in 0..=MOST_FAILURES {
        assert_eq!(ask(&server, &of_slow).await.json["detail"], "provider-status");
    }
    slow.react(Reaction::Status(500));
    for _ in 0..MOST_FAILURES {
        assert_eq!(ask(&server, &of_slow).await.json["detail"], "provider-status");
    }
    let before = slow.asked();
    let paused = ask(&server, &of_slow).await.expect(503);
    assert_eq!((paused.json["detail"].as_str(), slow.asked()), (Some("provider-paused"), before));
    ask(&server, &of_other).await.expect(200);
}

#[tokio::test]
async fn what_was_revoked_meanwhile_is_fetched_and_not_delivered() {
    let server = Setup::new().start().await;
    let provider = Provider::of(&server);
    allow(&server, &provider.address(server.organisation("provider").as_str())).await;
    let shared = resource(1, &provider.url(), 10_000);
    let application = share(&server, &shared, None).await;
    provider.react(Reaction::Stall);
    let call = question(&shared).key(&key());
    let waiting = asking(&server, &call);
    arrived(&provider, 1).await;
    let stop = json!({"application": application, "action": "stop"});
    server.party("bank").send(&Call::new(Route::ApplicationTransition, &stop)).await.expect(200);
    provider.release();
    let dropped = waiting.await.unwrap().unwrap().expect(403);
    assert_eq!(
        (dropped.code(), dropped.json["detail"].as_str()),
        ("approval-needed", Some("approval-stopped"))
    );
    assert!(!dropped.json.to_string().contains("在营"));
    let Stage::Outcome { intent } = stage(&dropped) else { panic!("no outcome") };
    trace(&server, |told| {
        let words = Some("fetched-not-delivered".to_owned());
        told.contains(&(Stage::Outcome { intent }, words)) && told.contains(&(Stage::Intent, None))
    })
    .await;
    assert_eq!(server.metric("miaoxiang_calls_total", &[("cause", "fetched-not-delivered")]).await, 1);
}

#[tokio::test]
async fn limits_that_were_narrowed_meanwhile_bind_the_outcome() {
    let server = Setup::new().start().await;
    let provider = Provider::of(&server);
    allow(&server, &provider.address(server.organisation("provider").as_str())).await;
    let shared = resource(1, &provider.url(), 10_000);
    share(&server, &shared, None).await;
    provider.react(Reaction::Stall);
    let waiting = asking(&server, &question(&shared).key(&key()));
    arrived(&provider, 1).await;
    let bank = json!({"organisation": server.organisation("bank"), "name": "测试银行", "roles": ["relying"],
        "limits": [{"interface": "records", "sources": ["192.0.2.0/24"]}], "validFrom": "2026-01-01"});
    let change = Call::new(Route::ParticipantChange, &json!({ "participant": bank }));
    server.party("operator").send(&change).await.expect(200);
    provider.release();
    let dropped = waiting.await.unwrap().unwrap().expect(403);
    assert_eq!(dropped.code(), "source-not-agreed");
    assert!(!dropped.json.to_string().contains("在营"));
    assert!(matches!(stage(&dropped), Stage::Outcome { .. }));
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_an_outcome() {
    let server = Setup::new().start().await;
    let provider = Provider::of(&server);
    allow(&server, &provider.address(server.organisation("provider").as_str())).await;
    let shared = resource(1, &provider.url(), 10_000);
    share(&server, &shared, None).await;
    provider.react(Reaction::Stall);
    let call = question(&shared).key(&key());
    let gone = asking(&server, &call);
    arrived(&provider, 1).await;
    let intent = server.size().await - 1;
    gone.abort();
    assert!(gone.await.is_err());
    provider.release();
    eventually("the outcome", || async { (server.size().await > intent + 1).then_some(()) }).await;
    let again = ask(&server, &call).await.expect(200);
    assert_eq!((stage(&again), provider.asked()), (Stage::Outcome { intent }, 1));
}

#[tokio::test]
async fn a_kill_between_intent_and_outcome_calls_nobody_twice() {
    let mut server = Setup::new().start().await;
    let provider = Provider::of(&server);
    allow(&server, &provider.address(server.organisation("provider").as_str())).await;
    let shared = resource(1, &provider.url(), 10_000);
    share(&server, &shared, Some(1)).await;
    provider.react(Reaction::Stall);
    let call = question(&shared).key(&key());
    let cut = asking(&server, &call);
    arrived(&provider, 1).await;
    let intent = server.size().await - 1;
    server.kill();
    assert!(cut.await.unwrap().is_err(), "nothing was answered");
    provider.release();
    provider.react(Reaction::Row);
    server.start();
    assert!(server.stderr().contains("their outcome is unknown"), "{}", server.stderr());
    // The key has its outcome, and the use of the day is counted once.
    for _ in 0..2 {
        let unknown = ask(&server, &call).await.expect(409);
        assert_eq!(unknown.code(), "outcome-unknown");
    }
    let spent = ask(&server, &question(&shared)).await.expect(403);
    assert_eq!((spent.code(), provider.asked()), ("quota-spent", 1));
    trace(&server, |told| {
        let words = Some("outcome-unknown".to_owned());
        told.contains(&(Stage::Outcome { intent }, words)) && told.contains(&(Stage::Intent, None))
    })
    .await;
    // It is closed once: another start finds nothing, and the log is whole.
    server.kill();
    server.start();
    assert_eq!(server.stderr().matches("their outcome is unknown").count(), 1);
    assert_eq!(ask(&server, &call).await.expect(409).code(), "outcome-unknown");
    assert_eq!(server.log_verify()["verdict"], "valid");
}
