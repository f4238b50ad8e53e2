//! Batches: each line has a right, a decision, an entry and a receipt of its own; the report is checked offline; who reads
//! slowly, goes away or asks for what it may not see harms nobody else.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

use schemas::codes::Code;
use schemas::routes::Route;
use serde_json::{Value, json};
use tests::{
    Call, HANG, Party, Reply, Server, Setup, Target, draft, grant, key, legal, natural, now_ms, shared,
    use_context,
};
use verifier::batch;
use verifier::leaf::Open;
use verifier::receipt;
use verifier::report::{Reason, Report, Verdict};

/// Lines of a batch that is not taken.
const LINES: usize = 9_000;

/// A line that asks for a license by its identifier.
fn asks(identifier: &str) -> Value {
    json!({"license": {"identifier": identifier}, "use": use_context()})
}

/// The lines as a body.
fn call(lines: &[String], key: &str) -> Call {
    Call::raw(Route::VerifyBatch, lines.join("\n"))
        .header("content-type", "application/x-ndjson")
        .without("receipt")
        .key(key)
}

async fn report(party: &mut Party, call: &Call) -> Reply {
    let reply = party.send(call).await.expect(200);
    assert_eq!(reply.content_type, "application/x-ndjson");
    reply
}

fn check(server: &Server, report: &[u8], request: Option<&[u8]>) -> Report {
    batch::verify(report, request, &server.trust, None, now_ms() / 1_000)
}

fn answers(report: &[u8]) -> Vec<Value> {
    batch::lines(report).map(|line| serde_json::from_slice(line).unwrap()).collect()
}

/// The report must not be good, for this reason.
fn bad(server: &Server, report: &[u8], request: Option<&[u8]>, verdict: Verdict, reason: Reason) {
    let found = check(server, report, request);
    assert!(found.verdict == verdict && found.has(reason), "{reason}: {:?}", found.reasons);
}

/// Lines about companies, whom anybody may ask for: so many, over these identifiers.
fn companies(identifiers: &[String], count: usize) -> Vec<String> {
    identifiers.iter().cycle().take(count).map(|identifier| asks(identifier).to_string()).collect()
}

#[tokio::test]
async fn a_bank_checks_many_in_one_call_and_checks_the_report_offline() {
    let turn = shared(Setup::new).await;
    let server = &*turn;
    let [mut issuer, mut portal, mut bank] = ["issuer", "portal", "bank"].map(|name| server.party(name));
    let mut identifiers = Vec::new();
    for _ in 0..3 {
        identifiers.push(draft(&legal()).issue(&mut issuer).await.identifier);
    }
    let revoked = draft(&legal()).issue(&mut issuer).await;
    issuer.send(&revoked.operation("05", Some("07"))).await.expect(200);
    let (person, other) =
        (draft(&natural()).issue(&mut issuer).await, draft(&natural()).issue(&mut issuer).await);
    let right = portal.grant(&grant(person.draft.holder(), &bank, Target::License(&person))).await;

    let mut lines = companies(&identifiers, 400);
    lines[7] = asks(&revoked.identifier).to_string();
    lines[70] = asks(&other.identifier).to_string();
    lines[71] = r#"{"license":{"identifier":"1.2.3"},"use":{}}"#.to_owned();
    lines[72] = "not JSON".to_owned();
    let mut granted = asks(&person.identifier);
    granted["grant"] = json!(right);
    granted["expect"] = json!({"certificateNumber": person.draft.license.certificate_number});
    lines[73] = granted.to_string();
    let before = server.size().await;
    let call = call(&lines, &key());
    let whole = report(&mut bank, &call).await;
    let body = whole.body.clone();

    // 400 answers, the proof, the end; an entry for each answer and for the end.
    let told = answers(&body);
    assert_eq!(told.len(), 402);
    assert_eq!(told[7]["verdict"], "invalid");
    assert_eq!(told[70]["code"], "not-permitted");
    let wrong = told[71]["errors"].as_array().unwrap();
    assert!(wrong.iter().any(|wrong| wrong["pointer"] == "/license/identifier"), "{}", told[71]);
    assert_eq!(told[72]["code"], "malformed-request");
    assert_eq!((&told[73]["verdict"], &told[73]["matches"]), (&json!("valid"), &json!(true)));
    assert_eq!((&told[401]["lines"], &told[401]["permitted"]), (&json!(400), &json!(397)));
    let mut indexes = BTreeSet::new();
    for (line, answer) in lines.iter().zip(batch::lines(&body)) {
        let (_, receipt) = receipt::cut(answer).unwrap();
        let open = Open::parse(&receipt.open).unwrap();
        assert_eq!(
            (open.route, open.organisation),
            (Route::VerifyBatch.number(), *bank.organisation.as_bytes())
        );
        let found =
            receipt::verify(&receipt, Some(line.as_bytes()), Some(answer), &server.trust, now_ms() / 1_000);
        assert!(found.checked.contains(&"request") && found.checked.contains(&"answer"), "{found:?}");
        assert!(receipt.index >= before && indexes.insert(receipt.index));
    }
    let good = check(server, &body, Some(&call.body));
    assert_eq!(good.verdict, Verdict::Valid, "{good:?}");
    let facts = good.batch.unwrap();
    assert_eq!((facts.lines, facts.permitted, facts.refused, facts.undecided), (400, 397, 3, 0));
    assert_eq!((facts.valid, facts.invalid, facts.unknown), (396, 1, 0));
    assert_eq!(facts.organisation, bank.organisation.as_str());
    // The proof of all is shorter than that of two.
    assert!(told[400]["proof"]["nodes"].as_array().unwrap().len() < 64);

    let text: Vec<&[u8]> = batch::lines(&body).collect();
    let joined = |lines: &[&[u8]]| [lines.join(&b'\n'), b"\n".to_vec()].concat();
    assert_eq!(joined(&text), body);
    let (invalid, unknown) = (Verdict::Invalid, Verdict::Unknown);
    // Cut off: at a line, in a line, without its end.
    for length in [body.len() - 1_000, body.len() / 2, text[0].len() + 1, 10] {
        bad(server, &body[..length], None, unknown, Reason::ReportIncomplete);
    }
    bad(server, &joined(&text[..401]), None, unknown, Reason::ReportIncomplete);
    // A line less, twice, in another place, another caller's or changed; the proof less; other requests.
    let mut less = text.clone();
    less.remove(5);
    bad(server, &joined(&less), None, invalid, Reason::ReportMismatch);
    let mut twice = text.clone();
    twice[6] = text[5];
    bad(server, &joined(&twice), None, invalid, Reason::ReportMismatch);
    let mut swapped = text.clone();
    swapped.swap(5, 6);
    bad(server, &joined(&swapped), None, invalid, Reason::ReportMismatch);
    let changed = String::from_utf8(text[7].to_vec()).unwrap().replace("\"invalid\"", "\"valid\"");
    let mut better = text.clone();
    better[7] = changed.as_bytes();
    bad(server, &joined(&better), None, invalid, Reason::AnswerMismatch);
    let mut unproven = text.clone();
    unproven.remove(400);
    bad(server, &joined(&unproven), None, unknown, Reason::NoProof);
    let mut node = told[400].clone();
    node["proof"]["nodes"][0] = told[400]["proof"]["nodes"][1].clone();
    let node = node.to_string();
    let mut elsewhere = text.clone();
    elsewhere[400] = node.as_bytes();
    bad(server, &joined(&elsewhere), None, invalid, Reason::NotIncluded);
    let mut asked = lines.clone();
    asked.swap(0, 1);
    bad(server, &body, Some(asked.join("\n").as_bytes()), invalid, Reason::RequestMismatch);
    bad(server, &body, Some(&call.body[1..]), invalid, Reason::RequestMismatch);
    for place in (0..body.len()).step_by(body.len() / 40) {
        let mut flipped = body.to_vec();
        flipped[place] ^= 1;
        assert_ne!(check(server, &flipped, Some(&call.body)).verdict, Verdict::Valid, "byte {place}");
    }
    // Without the salt of a request nobody can tell; without the end's neither.
    let salt = |line: &[u8]| {
        let (hashed, receipt) = receipt::cut(line).unwrap();
        let text = String::from_utf8(line.to_vec()).unwrap();
        let cut = format!(",\"requestSalt\":{}", json!(base64_of(&receipt.request_salt.unwrap())));
        assert!(text.contains(&cut), "{text}");
        assert_eq!(receipt::cut(text.replace(&cut, "").as_bytes()).unwrap().0, hashed);
        text.replace(&cut, "").into_bytes()
    };
    for place in [5, 401] {
        let (mut unsalted, bare) = (text.clone(), salt(text[place]));
        unsalted[place] = &bare;
        let found = check(server, &joined(&unsalted), Some(&call.body));
        let reasons: Vec<_> = found.reasons.iter().map(|finding| finding.reason).collect();
        match place {
            401 => assert_eq!((found.verdict, reasons), (unknown, vec![Reason::RequestNotRecorded])),
            // The digest of the answers covers this one's receipt.
            _ => assert_eq!((found.verdict, reasons.contains(&Reason::ReportMismatch)), (invalid, true)),
        }
    }
    // Line ends of another system are no change.
    let crlf = text.join(&b"\r\n"[..]);
    assert_eq!(check(server, &crlf, Some(&call.body)).verdict, Verdict::Valid);

    // The same key gives the answers that were given; refusals are decided anew.
    let size = server.size().await;
    let again = report(&mut bank, &call).await;
    let same = batch::lines(&body).zip(batch::lines(&again.body)).take(400).enumerate();
    for (place, (one, two)) in same {
        assert_eq!(one == two, !(70..73).contains(&place), "line {place}");
    }
    assert_eq!(server.size().await, size + 4, "three refusals and an end");
    let later = check(server, &again.body, Some(&call.body));
    assert_eq!(later.verdict, Verdict::Valid);
    // It says how old its answers are.
    let (first, later) = (facts, later.batch.unwrap());
    assert_eq!(first.answered_from, later.answered_from);
    assert!(
        first.answered_to <= first.time && first.time < later.answered_to && later.answered_to <= later.time
    );
    // Other requests under the same key are refused line by line.
    let other = call.clone().with_body(lines[1..].join("\n"));
    let told = answers(&report(&mut bank, &other).await.body);
    assert_eq!(told[7]["code"], "idempotency-conflict");
}

#[tokio::test]
async fn what_is_no_batch_is_refused_once() {
    let turn = shared(Setup::new).await;
    let server = &*turn;
    let identifier = draft(&legal()).issue(&mut server.party("issuer")).await.identifier;
    let lines = companies(&[identifier], 3);
    let good = call(&lines, &key());
    let mut bank = server.party("bank");
    // All of it, with one entry each.
    for (party, call, code) in [
        ("auditor", good.clone(), Code::WrongRole),
        ("bank", good.clone().with_body(""), Code::MalformedRequest),
        ("bank", good.clone().with_body("\n \n"), Code::MalformedRequest),
        ("bank", good.clone().with_body("{}\n".repeat(10_001)), Code::MalformedRequest),
        ("bank", good.clone().with_body(vec![b' '; (8 << 20) + 1]), Code::BodyTooLarge),
        ("bank", good.clone().header("content-type", "text/plain"), Code::WrongContentType),
        ("bank", good.clone().header("receipt", "later"), Code::MalformedRequest),
        ("bank", good.clone().key("short"), Code::IdempotencyKeyRequired),
    ] {
        let before = server.size().await;
        let reply = server.party(party).send(&call).await.expect(code.status());
        assert_eq!(reply.code(), code.name());
        assert_eq!(server.size().await, before + 1, "{code:?}");
    }
    // A method that is none, and one document.
    let reply = bank.send(&good.clone().method(hyper::Method::GET)).await;
    assert_eq!(reply.code(), Code::MethodNotAllowed.name());
    let one = Call::raw(Route::VerifyBatch, lines[0].clone());
    assert_eq!(bank.send(&one).await.expect(200).json["verdict"], "valid");
    // Over HTTP/2, with a proof for each line too.
    let inline = good.clone().key(&key()).header("receipt", "inline");
    let reply = bank.http2().await.send(&inline).await.unwrap().expect(200);
    assert_eq!(check(server, &reply.body, Some(&good.body)).verdict, Verdict::Valid);
    assert!(
        answers(&reply.body)[..4]
            .iter()
            .all(|told| told["proof"].is_object() || told["receipt"]["proof"].is_string())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_refusals_is_slowed_to_its_budget_and_shuts_nobody_out() {
    let server = Setup::new()
        .config(|config| {
            config.limits.refusals_a_second = NonZeroU32::new(100).unwrap();
            config.limits.refusal_burst = NonZeroU32::new(20).unwrap();
        })
        .start()
        .await;
    let mut issuer = server.party("issuer");
    let company = draft(&legal()).issue(&mut issuer).await;
    let person = draft(&natural()).issue(&mut issuer).await;
    let lines: Vec<String> = std::iter::repeat_n(asks(&person.identifier).to_string(), 120).collect();
    let (mut bank, mut beside) = (server.party("bank"), server.party("bank"));
    let call = call(&lines, &key());
    let batch = tokio::spawn({
        let call = call.clone();
        async move { report(&mut bank, &call).await }
    });
    // The organisation's other requests go on meanwhile.
    let mut asked = 0;
    while !batch.is_finished() {
        beside.send(&company.verify(None)).await.expect(200);
        asked += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let body = batch.await.unwrap().body;
    let found = check(&server, &body, Some(&call.body));
    assert_eq!(found.verdict, Verdict::Valid, "{found:?}");
    let facts = found.batch.unwrap();
    assert_eq!((facts.lines, facts.refused, facts.undecided), (120, 120, 0), "none is cut");
    assert!(asked > 0);
    assert_eq!(server.answers(Route::VerifyBatch, Code::TooManyRefusals).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_or_reads_slowly_leaves_entries_and_nothing_else() {
    let server = Setup::new().start().await;
    let identifier = draft(&legal()).issue(&mut server.party("issuer")).await.identifier;
    let lines = companies(&[identifier], LINES);
    // With a proof in each the answers are more than the sockets take.
    let call = call(&lines, &key()).header("receipt", "inline");
    let lines = LINES as u64;
    let (before, bank) = (server.size().await, server.party("bank"));
    // Only what the transport holds is decided for a client that takes nothing.
    let taken = bank.begin(&call, 1).await;
    let size = settled(&server).await;
    assert!(size > before && size < before + lines, "all are decided ahead");
    drop(taken);
    // What was decided is given again, the rest is decided, and nothing is decided twice.
    settled(&server).await;
    let mut bank = server.party("bank");
    let body = report(&mut bank, &call).await.body;
    let found = check(&server, &body, Some(&call.body));
    assert_eq!(found.verdict, Verdict::Valid, "{found:?}");
    assert_eq!(found.batch.unwrap().valid, lines);
    assert_eq!(server.size().await, before + lines + 1, "each line once, and an end");
}

/// The size of the log once it does not grow any more.
async fn settled(server: &Server) -> u64 {
    let settle = async {
        let mut size = server.size().await;
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let now = server.size().await;
            if now == size {
                return size;
            }
            size = now;
        }
    };
    tokio::time::timeout(HANG, settle).await.unwrap()
}

#[test]
fn the_page_leads_a_bank_to_a_report_that_is_checked_offline() {
    let folder = crate::departments::follow(include_str!("../../exchange/docs/guides/banks.md"));
    assert!(folder.path().join("report.ndjson").exists());
}

fn base64_of(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fifth_batch_of_an_organisation_waits_for_one_of_four_to_end() {
    let server = Setup::new().start().await;
    let identifier = draft(&legal()).issue(&mut server.party("issuer")).await.identifier;
    let lines = companies(&[identifier], LINES);
    let bank = server.party("bank");
    let mut slow = Vec::new();
    for _ in 0..4 {
        slow.push(bank.begin(&call(&lines, &key()).header("receipt", "inline"), 1).await);
    }
    let few = call(&lines[..3], &key());
    let reply = server.party("bank").send(&few).await;
    assert_eq!((reply.status, reply.code()), (Code::Overloaded.status(), Code::Overloaded.name()));
    // Another organisation has its own.
    report(&mut server.party("approval"), &few).await;
    slow.pop();
    tests::eventually("a place", || async {
        (server.party("bank").send(&few).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_suspended_amid_a_batch_is_refused_once_for_the_rest() {
    let server = Setup::new().start().await;
    let identifier = draft(&legal()).issue(&mut server.party("issuer")).await.identifier;
    let call = call(&companies(&[identifier], LINES), &key()).header("receipt", "inline");
    let bank = server.party("bank");
    let taken = bank.begin(&call, 1).await;
    settled(&server).await;
    let body = json!({"organisation": bank.organisation, "suspended": true, "reason": "测试"});
    server.party("operator").send(&Call::new(Route::ParticipantSuspend, &body)).await.expect(200);
    let before = server.answers(Route::VerifyBatch, Code::ParticipantSuspended).await;
    let size = server.size().await;
    let rest = taken.rest().await;
    let last = batch::lines(&rest).last().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(last).unwrap()["code"], Code::ParticipantSuspended.name());
    assert_eq!(
        server.answers(Route::VerifyBatch, Code::ParticipantSuspended).await,
        before + 1,
        "one refusal"
    );
    assert!(server.size().await < size + 2_000, "the lines behind it are not decided");
    bad(&server, &rest, None, Verdict::Unknown, Reason::ReportIncomplete);
}

#[tokio::test]
async fn the_last_uses_of_a_grant_are_exact_within_a_group() {
    let turn = shared(Setup::new).await;
    let server = &*turn;
    let [mut issuer, mut portal, mut bank] = ["issuer", "portal", "bank"].map(|name| server.party(name));
    let person = draft(&natural()).issue(&mut issuer).await;
    // The first group takes 128 of them, and the second has more lines than are left.
    let mut terms = grant(person.draft.holder(), &bank, Target::License(&person));
    terms["maxUses"] = json!(140);
    let mut line = asks(&person.identifier);
    line["grant"] = json!(portal.grant(&terms).await);
    let lines = (0..170).map(|case| {
        // Within one case a license is used once, however often it is asked for.
        line["use"]["businessCode"] = json!(format!("CS2026{case:04}"));
        line.to_string()
    });
    let lines: Vec<String> = lines.collect();
    let call = call(&lines, &key());
    let body = report(&mut bank, &call).await.body;
    let found = check(server, &body, Some(&call.body));
    assert_eq!(found.verdict, Verdict::Valid, "{found:?}");
    let facts = found.batch.unwrap();
    assert_eq!((facts.permitted, facts.refused), (140, 30));
    let told = answers(&body);
    assert!(told[..140].iter().all(|told| told["verdict"] == "valid"), "the first lines have them");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_a_crash_cuts_off_goes_on_where_it_stopped() {
    let mut server = Setup::new().start().await;
    let identifier = draft(&legal()).issue(&mut server.party("issuer")).await.identifier;
    let call = call(&companies(&[identifier], LINES), &key()).header("receipt", "inline");
    let before = server.size().await;
    let taken = server.party("bank").begin(&call, 1).await;
    server.kill();
    drop(taken);
    server.start();
    let size = server.size().await;
    assert!(size > before && size < before + LINES as u64, "it was cut off");
    let body = report(&mut server.party("bank"), &call).await.body;
    let found = check(&server, &body, Some(&call.body));
    assert_eq!(found.verdict, Verdict::Valid, "{found:?}");
    assert_eq!(server.size().await, before + LINES as u64 + 1, "each line once, and an end");
}
