//! Idempotency keys: the same request gets the same bytes and the same entry, another request is refused.

use schemas::codes::Code;
use schemas::routes::Route;
use serde_json::{Value, json};
use tests::{Call, Issued, Party, Reply, Server, Setup, Target, draft, grant, key, natural, revoke, shared};

/// Requests at once.
const AT_ONCE: usize = 16;

async fn granted(portal: &mut Party, of: &Issued, grantee: &Party, max_uses: u32) -> String {
    let mut body = grant(of.draft.holder(), grantee, Target::License(of));
    body["maxUses"] = json!(max_uses);
    portal.grant(&body).await
}

/// Without an inline proof, so that whole answers can be compared byte by byte.
fn plain(call: Call) -> Call {
    call.without("receipt")
}

/// Sends a request again and expects the first answer: same bytes, same receipt, no entry.
async fn again(server: &Server, party: &mut Party, call: &Call, first: &Reply) {
    let size = server.size().await;
    let reply = party.send(call).await;
    assert_eq!((reply.status, &reply.body), (first.status, &first.body));
    assert_eq!(server.size().await, size, "an answer given again is no new entry");
}

fn with(call: &Call, change: impl FnOnce(&mut Value)) -> Call {
    let mut body: Value = serde_json::from_slice(&call.body).unwrap();
    change(&mut body);
    call.clone().with_body(serde_json::to_vec(&body).unwrap())
}

#[tokio::test]
async fn the_same_request_gets_the_same_answer_and_makes_nothing_twice() {
    let server = shared(Setup::new).await;
    let [mut issuer, mut portal, bank, mut operator] =
        ["issuer", "portal", "bank", "operator"].map(|name| server.party(name));
    let draft = draft(&natural());
    let issue = plain(draft.call());
    let (first, _) = server.permitted(&mut issuer, &issue).await;
    for _ in 0..3 {
        again(&server, &mut issuer, &issue, &first).await;
    }
    let issued = Issued::new(draft, &first.json);
    let make =
        plain(Call::new(Route::GrantCreate, &grant(issued.draft.holder(), &bank, Target::License(&issued))));
    let (first, _) = server.permitted(&mut portal, &make).await;
    again(&server, &mut portal, &make, &first).await;
    let end = plain(revoke(issued.draft.holder(), first.json["grant"].as_str().unwrap()));
    let (first, _) = server.permitted(&mut portal, &end).await;
    again(&server, &mut portal, &end, &first).await;
    let suspend = plain(issued.operation("03", None));
    let (first, _) = server.permitted(&mut issuer, &suspend).await;
    again(&server, &mut issuer, &suspend, &first).await;
    let participant = json!({"organisation": server.organisation("provider").as_str(), "suspended": false, "reason": "测试"});
    let change = plain(Call::new(Route::ParticipantSuspend, &participant));
    let (first, _) = server.permitted(&mut operator, &change).await;
    again(&server, &mut operator, &change, &first).await;
}

#[tokio::test]
async fn an_inline_proof_may_be_asked_for_again() {
    let server = shared(Setup::new).await;
    let mut issuer = server.party("issuer");
    let call = draft(&natural()).call();
    let (first, entry) = server.permitted(&mut issuer, &call).await;
    let reply = issuer.send(&call).await.expect(201);
    assert_eq!(reply.hashed(), first.hashed());
    assert_eq!(server.entry(&reply).await.open, entry.open);
}

#[tokio::test]
async fn a_key_is_bound_to_its_request() {
    let server = shared(Setup::new).await;
    let mut issuer = server.party("issuer");
    let key = key();
    let first = draft(&natural()).call().key(&key);
    server.permitted(&mut issuer, &first).await;
    for other in [
        draft(&natural()).call().key(&key),
        // The same document in other bytes is another request.
        first.clone().with_body([first.body.as_ref(), b" "].concat()),
        draft(&natural()).issue(&mut issuer).await.operation("03", None).key(&key),
    ] {
        server.refused(&mut issuer, &other, Code::IdempotencyConflict).await;
    }
    let use_of = draft(&natural()).issue(&mut issuer).await.verify(None).key(&key);
    server.refused(&mut issuer, &use_of, Code::IdempotencyConflict).await;
}

#[tokio::test]
async fn keys_of_two_organisations_are_two_keys() {
    let server = Setup::new().authority("authority2").start().await;
    let key = key();
    let draft = draft(&natural());
    let call = plain(draft.call().key(&key));
    let (one, _) = server.permitted(&mut server.party("issuer"), &call).await;
    let (two, _) = server.permitted(&mut server.party("authority2"), &call).await;
    assert_ne!(one.json["identifier"], two.json["identifier"]);
}

#[tokio::test]
async fn a_refusal_binds_nothing() {
    let server = shared(Setup::new).await;
    let mut issuer = server.party("issuer");
    let license = draft(&natural()).issue(&mut issuer).await;
    let release = plain(license.operation("06", None));
    server.refused(&mut issuer, &release, Code::TransitionNotAllowed).await;
    server.refused(&mut issuer, &release, Code::TransitionNotAllowed).await;
    issuer.send(&license.operation("03", None)).await.expect(200);
    let (first, _) = server.permitted(&mut issuer, &release).await;
    again(&server, &mut issuer, &release, &first).await;
    // A key that a refusal came with is free for another request.
    let key = key();
    server.refused(&mut issuer, &license.operation("10", None).key(&key), Code::TransitionNotAllowed).await;
    server.permitted(&mut issuer, &license.operation("03", None).key(&key)).await;
}

#[tokio::test]
async fn a_use_with_a_key_counts_once() {
    let server = shared(Setup::new).await;
    let [mut issuer, mut portal, mut bank] = ["issuer", "portal", "bank"].map(|name| server.party(name));
    let license = draft(&natural()).issue(&mut issuer).await;
    let right = granted(&mut portal, &license, &bank, 2).await;
    let keyed = plain(license.verify(Some(&right)).key(&key()));
    let (first, _) = server.permitted(&mut bank, &keyed).await;
    for _ in 0..5 {
        again(&server, &mut bank, &keyed, &first).await;
    }
    let retrieve = license.retrieve(&["holderName"], Some(&right));
    server.permitted(&mut bank, &retrieve.in_new_case()).await;
    server.refused(&mut bank, &retrieve.in_new_case(), Code::NotPermitted).await;
    // What was counted may be asked for again even now that the grant is used up: it counts no more.
    again(&server, &mut bank, &keyed, &first).await;
}

#[tokio::test]
async fn a_disclosure_is_given_again_only_while_its_right_holds() {
    let server = shared(Setup::new).await;
    let [mut issuer, mut portal, mut bank, mut operator] =
        ["issuer", "portal", "bank", "operator"].map(|name| server.party(name));
    let license = draft(&natural()).issue(&mut issuer).await;
    let right = granted(&mut portal, &license, &bank, 5).await;
    let keyed = plain(license.retrieve(&["holderName"], Some(&right)).key(&key()));
    let (first, _) = server.permitted(&mut bank, &keyed).await;
    again(&server, &mut bank, &keyed, &first).await;
    let suspend = |suspended: bool| {
        let body =
            json!({"organisation": bank.organisation.as_str(), "suspended": suspended, "reason": "测试"});
        Call::new(Route::ParticipantSuspend, &body)
    };
    let (on, off) = (suspend(true), suspend(false));
    server.permitted(&mut operator, &on).await;
    server.refused(&mut bank, &keyed, Code::ParticipantSuspended).await;
    server.permitted(&mut operator, &off).await;
    again(&server, &mut bank, &keyed, &first).await;
    portal.send(&revoke(license.draft.holder(), &right)).await.expect(200);
    server.refused(&mut bank, &keyed, Code::NotPermitted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_one_is_done_and_all_get_its_answer() {
    let server = shared(Setup::new).await;
    let issuer = server.party("issuer");
    for _ in 0..4 {
        let call = plain(draft(&natural()).call());
        let size = server.size().await;
        let tasks: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                let (mut party, call) = (issuer.again(), call.clone());
                tokio::spawn(async move { party.send(&call).await })
            })
            .collect();
        let mut bodies = Vec::new();
        for task in tasks {
            bodies.push(task.await.unwrap().expect(201).body);
        }
        bodies.dedup();
        assert_eq!(bodies.len(), 1, "two answers for one key");
        assert_eq!(server.size().await, size + 1, "one effect, one entry");
    }
}

#[tokio::test]
async fn keys_outlive_a_restart() {
    let mut server = Setup::new().start().await;
    let call = plain(draft(&natural()).call());
    let (first, _) = server.permitted(&mut server.party("issuer"), &call).await;
    assert_eq!(server.stop(), Some(0));
    server.start();
    let mut issuer = server.party("issuer");
    again(&server, &mut issuer, &call, &first).await;
    server.kill();
    server.start();
    let mut issuer = server.party("issuer");
    again(&server, &mut issuer, &call, &first).await;
    let other = with(&call, |body| body["license"]["serial"] = json!("OTHER"));
    server.refused(&mut issuer, &other, Code::IdempotencyConflict).await;
    // Without the restart image, from the journal alone.
    server.kill();
    std::fs::remove_dir_all(server.folder.join("store")).unwrap();
    server.start();
    again(&server, &mut server.party("issuer"), &call, &first).await;
}
