//! A holder's trace: what it shows, what it proves, what of it cannot be changed unnoticed, and who may read it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use exchange::keyed;
use exchange::participant::{Certified, Role};
use http_body_util::Full;
use schemas::codes::Code;
use schemas::holder::HolderRef;
use schemas::routes::Route;
use serde_json::{Value, json};
use tests::{
    Call, Entry, Party, Reply, Server, Setup, Target, draft, eventually, grant, holder, legal, natural,
    now_ms, revoke, use_context,
};
use verifier::leaf::{Labels, Open};
use verifier::receipt::Receipt;
use verifier::report::{Reason, Report, Verdict};
use verifier::trace::{Place, Told, TraceEntry, TracePage, verify_trace};

const MS_PER_DAY: u64 = 86_400_000;

fn setup() -> Setup {
    Setup::new()
        .config(|config| config.journal.index_root_seconds = 1)
        .participant("police", |police| police.delays = tests::delay_class("investigation", 30))
        .participant("portal2", |portal| portal.roles = vec![Role::Portal])
}

fn trace(of: &HolderRef) -> Value {
    json!({"holder": holder(of), "use": use_context()})
}

fn call(body: &Value) -> Call {
    Call::new(Route::Trace, body)
}

/// The page without its receipt.
fn page(reply: &Reply) -> TracePage {
    serde_json::from_slice(&reply.hashed()).unwrap()
}

fn lines(pages: &[TracePage]) -> Vec<u8> {
    let lines: Vec<Vec<u8>> = pages.iter().map(|page| serde_json::to_vec(page).unwrap()).collect();
    lines.join(&b'\n')
}

fn check(server: &Server, file: &[u8]) -> Report {
    verify_trace(file, &server.trust, None, now_ms() / 1_000)
}

/// The holder's trace, once an index root covers the entry of this index.
async fn whole(server: &Server, portal: &Party, of: &HolderRef, covering: u64) -> (Reply, TracePage) {
    eventually("an index root", || async {
        // Each look is a reading and so an entry of this trace, which is to stay on one page.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let reply = portal.again().send(&call(&trace(of))).await.expect(200);
        let page = page(&reply);
        let report = check(server, &lines(std::slice::from_ref(&page)));
        let count = page.index_root.as_ref().map_or(0, |root| root.count);
        let reaches = page.entries.iter().any(|entry| {
            entry.entry.index >= covering
                && matches!(entry.place, Place::Own { sequence, .. } if sequence <= count)
        });
        (report.verdict == Verdict::Valid && reaches).then_some((reply, page))
    })
    .await
}

fn told(entry: &TraceEntry) -> Value {
    serde_json::from_str(&entry.told.as_ref().unwrap().document).unwrap()
}

fn of_index(page: &TracePage, entry: &Entry) -> TraceEntry {
    let index = entry.receipt.index;
    page.entries
        .iter()
        .find(|entry| entry.entry.index == index)
        .unwrap_or_else(|| panic!("entry {index} is not shown"))
        .clone()
}

#[tokio::test]
async fn a_trace_proves_who_when_what_and_why_and_nothing_of_it_can_be_changed() {
    let server = setup().start().await;
    let [mut issuer, mut portal, mut bank, mut approval] =
        ["issuer", "portal", "bank", "approval"].map(|name| server.party(name));
    let license = draft(&natural()).issue(&mut issuer).await;
    let other = draft(&natural()).issue(&mut issuer).await;
    let of = license.draft.holder().clone();
    let created = portal
        .send(&Call::new(Route::GrantCreate, &grant(&of, &bank, Target::License(&license))))
        .await
        .expect(201);
    let id = created.json["grant"].as_str().unwrap().to_owned();
    let retrieve = license.retrieve(&["certificateNumber"], Some(&id));
    let used = bank.send(&retrieve).await.expect(200);
    let used = server.entry(&used).await;
    let denied = approval.send(&license.verify(None)).await.expect(403);
    let denied = server.entry(&denied).await;
    let suspended = issuer.send(&license.operation("03", None)).await.expect(200);
    let suspended = server.entry(&suspended).await;
    let revoked = portal.send(&revoke(&of, &id)).await.expect(200);
    let revoked = server.entry(&revoked).await;

    let (reply, page) = whole(&server, &portal, &of, revoked.receipt.index).await;
    let report = check(&server, &reply.body);
    assert_eq!(report.verdict, Verdict::Valid, "{:?}", report.reasons);
    let facts = report.pages.unwrap();
    let sentence = facts.completeness.unwrap();
    assert!(sentence.starts_with("complete up to checkpoint "), "{sentence}");
    assert!(sentence.ends_with(", except uses delayed by law"), "{sentence}");
    assert!(report.checked.contains(&"answer") && report.checked.contains(&"index-root"));

    // Who, when, item, case, why, which fields, allowed or denied.
    let entry = of_index(&page, &used);
    assert_eq!(entry.entry.organisation, bank.organisation.as_str());
    assert_eq!((entry.entry.route.as_str(), entry.entry.decision.as_str()), ("retrieve", "permit"));
    assert_eq!(entry.entry.time, schemas::date::rfc3339(used.open.time_ms));
    let document = told(&entry);
    assert_eq!(document["fields"], json!(["certificateNumber"]));
    assert_eq!(document["licenses"], json!([license.identifier]));
    assert_eq!(document["grant"], json!(id));
    let context = use_context();
    for name in ["itemCode", "itemName", "businessCode", "cause", "stage"] {
        assert_eq!(document["use"][name], context[name], "{name}");
    }
    let user = document["use"]["user"].as_str().unwrap().to_owned();
    assert!(!user.is_empty() && !document.to_string().contains(context["userName"].as_str().unwrap()));
    // Knowing all of the request but the user's name, one cannot try names until one fits.
    let open = Open::parse(&entry.entry.open.0).unwrap();
    assert_ne!(open.request_digest, verifier::sha256(&[&retrieve.body]));
    let salt = used.receipt.request_salt.unwrap();
    assert_eq!(open.request_digest, verifier::receipt::request_digest(&salt, &retrieve.body));
    let shown = String::from_utf8(reply.hashed()).unwrap();
    assert!(!shown.contains("requestSalt") && !shown.contains(&BASE64.encode(salt)));
    let refused = of_index(&page, &denied);
    assert_eq!((refused.entry.decision.as_str(), refused.entry.code.as_str()), ("denial", "not-permitted"));
    assert_ne!(told(&refused)["use"]["user"], json!(user), "the same name elsewhere is somebody else");
    assert_eq!(of_index(&page, &suspended).entry.route, "transition");

    // Every reading is an entry, and the next one shows it.
    let (_, next) = whole(&server, &portal, &of, reply.receipt().index).await;
    let reading = next.entries.iter().find(|entry| entry.entry.index == reply.receipt().index).unwrap();
    assert_eq!(
        (reading.entry.route.as_str(), told(reading)["use"]["stage"].as_str()),
        ("trace", Some("受理"))
    );

    // Nothing can be changed.
    let (_, others) = whole(&server, &portal, other.draft.holder(), 0).await;
    let refuse = |what: &str, reason: Reason, change: &dyn Fn(&mut TracePage)| {
        let mut changed = page.clone();
        change(&mut changed);
        assert_ne!(changed, page, "{what}");
        let report = check(&server, &lines(&[changed]));
        assert!(report.has(reason), "{what}: {:?}", report.reasons);
        assert_eq!(report.verdict, reason.verdict(), "{what}");
        assert_eq!(report.pages.and_then(|pages| pages.completeness), None, "{what}");
    };
    let count = page.index_root.as_ref().unwrap().count;
    let last = page.entries.len() - 1;
    assert!(last >= 5 && count >= 6, "{last} {count}");
    refuse("one in the middle is left out", Reason::SequenceBroken, &|page| drop(page.entries.remove(2)));
    refuse("the newest are left out", Reason::EntriesMissing, &|page| {
        page.entries.retain(|entry| matches!(entry.place, Place::Own { sequence, .. } if sequence < count));
    });
    refuse("all are left out", Reason::EntriesMissing, &|page| page.entries.clear());
    refuse("the first is left out", Reason::NotWhole, &|page| drop(page.entries.pop()));
    refuse("two change places", Reason::SequenceBroken, &|page| page.entries.swap(1, 2));
    refuse("one stands twice", Reason::SequenceBroken, &|page| {
        page.entries.insert(1, page.entries[1].clone());
    });
    refuse("another holder's entry", Reason::SequenceBroken, &|page| {
        page.entries[1] = others.entries.last().unwrap().clone();
    });
    refuse("another holder's label", Reason::SequenceBroken, &|page| page.label = others.label);
    refuse("another told", Reason::ToldMismatch, &|page| {
        let told: &mut Told = page.entries[last].told.as_mut().unwrap();
        told.document = told.document.replace('{', "{ ");
    });
    refuse("another holder's told", Reason::ToldMismatch, &|page| {
        page.entries[last].told = others.entries.last().unwrap().told.clone();
    });
    refuse("nothing told", Reason::ToldMissing, &|page| page.entries[last].told = None);
    refuse("another organisation in words", Reason::EntryMismatch, &|page| {
        page.entries[1].entry.organisation = "91350100M000100Y43".to_owned();
    });
    refuse("a denial in words", Reason::EntryMismatch, &|page| {
        page.entries[last].entry.decision = "denial".to_owned();
    });
    refuse("another open part", Reason::EntryMismatch, &|page| page.entries[1].entry.open.0[5] ^= 1);
    refuse("another number", Reason::SequenceBroken, &|page| {
        if let Place::Own { sequence, .. } = &mut page.entries[0].place {
            *sequence += 1;
        }
    });
    refuse("another path", Reason::NotIncluded, &|page| page.entries[1].entry.path[0].0[0] ^= 1);
    refuse("another checkpoint", Reason::BadCheckpoint, &|page| {
        page.checkpoint = page.checkpoint.replacen('\n', "\n1", 1);
    });
    refuse("another count", Reason::BadIndexRoot, &|page| page.index_root.as_mut().unwrap().count -= 1);
    refuse("not in the map", Reason::BadIndexRoot, &|page| page.index_root.as_mut().unwrap().count = 0);
    refuse("another root", Reason::BadIndexRoot, &|page| {
        let root = page.index_root.as_mut().unwrap();
        root.statement = verifier::index::statement(1, &[0; 32]);
    });
    refuse("another holder's root", Reason::BadIndexRoot, &|page| {
        page.index_root = others.index_root.clone()
    });
    refuse("no root", Reason::NoIndexRoot, &|page| page.index_root = None);
    refuse("a sentence of another size", Reason::EntryMismatch, &|page| {
        page.completeness = verifier::trace::completeness(1_000_000);
    });
    // A receipt is for the page of one log, one route and one holder.
    let receipted = |page: &TracePage, change: &dyn Fn(&mut Receipt, &mut Open)| {
        let answer = serde_json::to_vec(page).unwrap();
        let mut receipt = reply.receipt();
        let mut open = Open::parse(&receipt.open).unwrap();
        open.answer_digest = tests::sha256(&answer);
        change(&mut receipt, &mut open);
        receipt.open = open.encode();
        receipt.leaf_hash = receipt.computed_leaf_hash();
        check(&server, &verifier::receipt::attach(&answer, &receipt))
    };
    let report = receipted(&page, &|_, _| ());
    assert_eq!(report.verdict, Verdict::Valid, "{:?}", report.reasons);
    let foreign = |what: &str, report: Report| {
        assert!(report.has(Reason::PageMismatch), "{what}: {:?}", report.reasons);
        assert_eq!(report.verdict, Verdict::Invalid, "{what}");
    };
    foreign("another holder's page", receipted(&others, &|_, _| ()));
    foreign("nobody's page", receipted(&TracePage { label: None, ..page.clone() }, &|_, _| ()));
    foreign("no label", receipted(&page, &|_, open| open.labels = Labels::List(Vec::new())));
    foreign("another log", receipted(&page, &|receipt, _| receipt.log = "log.example/other".to_owned()));
    foreign("another route", receipted(&page, &|_, open| open.route = Route::Search.number()));
    foreign("a denial", receipted(&page, &|_, open| open.decision = 2));
    let text = String::from_utf8(reply.body.to_vec()).unwrap();
    let report = check(&server, text.replacen("\"entries\":[{", "\"entries\": [{", 1).as_bytes());
    assert!(report.verdict == Verdict::Invalid && report.has(Reason::AnswerMismatch), "{:?}", report.reasons);
    for nothing in ["", "{}", "[]", "\n\n"] {
        assert!(check(&server, nothing.as_bytes()).has(Reason::MalformedPage), "{nothing:?}");
    }
}

#[tokio::test]
async fn pages_make_one_trace_and_a_part_of_them_is_not_the_whole() {
    let server = setup().start().await;
    let [mut issuer, mut portal, mut bank] = ["issuer", "portal", "bank"].map(|name| server.party(name));
    let license = draft(&legal()).issue(&mut issuer).await;
    let other = draft(&legal()).issue(&mut issuer).await;
    let of = license.draft.holder();
    for _ in 0..6 {
        bank.send(&license.verify(None)).await.expect(200);
    }
    let last = bank.send(&license.verify(None)).await.expect(200).receipt().index;
    whole(&server, &portal, of, last).await;
    let (mut pages, mut answers) = (Vec::new(), Vec::new());
    let mut before = None;
    loop {
        let mut body = trace(of);
        body["limit"] = json!(3);
        if let Some(before) = before {
            body["before"] = json!(before);
        }
        let reply = portal.send(&call(&body)).await.expect(200);
        let page = page(&reply);
        before = page.next;
        pages.push(page);
        answers.push(reply.body);
        if before.is_none() {
            break;
        }
        assert_eq!(pages.last().unwrap().entries.len(), 3);
    }
    assert!(pages.len() >= 3);
    let report = check(&server, &lines(&pages));
    assert_eq!(report.verdict, Verdict::Valid, "{:?}", report.reasons);
    for (part, reason) in [
        (&pages[..1], Reason::NotWhole),
        (&pages[..pages.len() - 1], Reason::NotWhole),
        (&pages[1..], Reason::NotWhole),
        (&[pages[0].clone(), pages[2].clone()][..], Reason::SequenceBroken),
        (&[pages[1].clone(), pages[0].clone()][..], Reason::SequenceBroken),
    ] {
        let report = check(&server, &lines(part));
        assert!(report.has(reason) && report.verdict == reason.verdict(), "{:?}", report.reasons);
    }
    // The same from the command line, with the answers as they came.
    let whole = server.verify_pages("trace", &answers);
    assert_eq!(whole.status, Some(0), "{whole:?}");
    assert!(pages[0].completeness.ends_with(", except uses delayed by law"), "{}", pages[0].completeness);
    assert!(
        whole.stdout.starts_with("trace genuine: ") && whole.stdout.contains(&pages[0].completeness),
        "{whole:?}"
    );
    let part = server.verify_pages("trace", &answers[..1]);
    assert_eq!(part.status, Some(2), "{part:?}");
    assert!(part.stdout.contains("not-whole") && !part.stdout.contains("complete up to"), "{part:?}");
    for bad in tests::flipped(&answers[1]) {
        let mut changed = answers.clone();
        changed[1] = bad;
        let refused = server.verify_pages("trace", &changed);
        assert_eq!(refused.status, Some(1), "{refused:?}");
        assert!(!refused.stdout.contains("complete up to"), "{refused:?}");
    }
    // A page begins behind an entry of this holder only.
    let foreign = bank.send(&other.verify(None)).await.expect(200).receipt().index;
    for before in [foreign, u64::MAX >> 1] {
        let mut body = trace(of);
        body["before"] = json!(before);
        server.entry(&portal.send(&call(&body)).await.expect(400)).await;
    }
    let mut body = trace(of);
    body["limit"] = json!(101);
    portal.send(&call(&body)).await.expect(400);
}

#[tokio::test]
async fn only_the_portal_of_the_holder_or_of_a_live_link_reads_a_trace() {
    let server = setup().start().await;
    let [mut issuer, mut portal, mut portal2, mut bank, mut auditor] =
        ["issuer", "portal", "portal2", "bank", "auditor"].map(|name| server.party(name));
    let license = draft(&natural()).issue(&mut issuer).await;
    let agent = draft(&natural());
    let (of, by) = (license.draft.holder(), agent.holder());
    for party in [&mut bank, &mut issuer, &mut auditor] {
        let reply = party.send(&call(&trace(of))).await.expect(403);
        assert_eq!(reply.code(), Code::WrongRole.name());
        server.entry(&reply).await;
    }
    let mut as_agent = trace(of);
    as_agent["agent"] = holder(by);
    let refused = |reply: Reply| {
        assert_eq!((reply.status, reply.code()), (403, Code::NotPermitted.name()), "{}", reply.json);
    };
    refused(portal.send(&call(&as_agent)).await);

    let link = json!({"holder": holder(of), "agent": holder(by), "kind": "guardian", "until": tests::in_one_hour(),
            "basis": "测试依据"});
    let made = portal.send(&Call::new(Route::LinkMake, &link)).await.expect(201);
    assert_eq!((&made.json["link"], &made.json["kind"]), (&json!("active"), &json!("guardian")));
    let reply = portal.send(&call(&as_agent)).await.expect(200);
    refused(portal2.send(&call(&as_agent)).await);
    // A link goes one way, and for this holder only.
    let mut turned = trace(by);
    turned["agent"] = holder(of);
    refused(portal.send(&call(&turned)).await);
    let (_, shown) = whole(&server, &portal, of, reply.receipt().index).await;
    let reading = shown.entries.iter().find(|entry| entry.entry.index == reply.receipt().index).unwrap();
    assert_eq!(told(reading)["link"], json!("guardian"), "the holder sees that a guardian read");

    let end = json!({"holder": holder(of), "agent": holder(by), "reason": "测试终止"});
    let bad = portal2.send(&Call::new(Route::LinkEnd, &end)).await.expect(422);
    assert_eq!(bad.code(), Code::BadLink.name(), "another portal's link");
    let ended = portal.send(&Call::new(Route::LinkEnd, &end)).await.expect(200);
    assert_eq!(ended.json["link"], json!("ended"));
    refused(portal.send(&call(&as_agent)).await);
    portal.send(&Call::new(Route::LinkEnd, &end)).await.expect(422);

    for (change, status) in [
        (("until", json!("2020-01-01T00:00:00Z")), 422),
        (("agent", holder(of)), 422),
        (("kind", json!("friend")), 400),
        (("holder", holder(draft(&natural()).holder())), 403),
    ] {
        let mut body = link.clone();
        body[change.0] = change.1;
        portal.send(&Call::new(Route::LinkMake, &body)).await.expect(status);
    }
    bank.send(&Call::new(Route::LinkMake, &link)).await.expect(403);
    bank.send(&Call::new(Route::LinkEnd, &end)).await.expect(403);

    // The portal vouches for a holder that the log does not know: nothing to show, and nothing proven.
    let nobody = draft(&natural());
    let reply = portal.send(&call(&trace(nobody.holder()))).await.expect(200);
    let page = page(&reply);
    assert_eq!((page.label, page.entries.len()), (None, 0));
    assert!(check(&server, &reply.body).has(Reason::NoIndexRoot));
    let mut without = trace(of);
    without.as_object_mut().unwrap().remove("use");
    assert_eq!(portal.send(&call(&without)).await.expect(422).code(), Code::BadUseContext.name());
}

#[tokio::test]
async fn a_denial_counts_for_the_real_holder_else_for_the_holder_named() {
    let server = setup().authority("authority2").start().await;
    let [mut issuer, mut issuer2, mut portal, mut bank, mut provider, mut operator] =
        ["issuer", "authority2", "portal", "bank", "provider", "operator"].map(|name| server.party(name));
    let mine = draft(&natural()).issue(&mut issuer).await;
    let theirs = draft(&natural()).issue(&mut issuer).await;
    let (me, them) = (mine.draft.holder().clone(), theirs.draft.holder().clone());
    let mut with_real = Vec::new();
    let mut with_named = Vec::new();

    with_real.push(("no grant", bank.send(&mine.verify(None)).await.expect(403)));
    with_real.push(("no role", provider.send(&mine.verify(None)).await.expect(403)));
    with_real.push(("no role, envelope", provider.send(&mine.verify_envelope()).await.expect(403)));
    with_real.push(("another authority", issuer2.send(&mine.operation("03", None)).await.expect(403)));
    with_real.push(("not allowed", issuer.send(&mine.operation("06", None)).await.expect(409)));
    with_real.push(("exists", issuer.send(&mine.draft.call()).await.expect(409)));
    with_real.push(("not an issuer", bank.send(&mine.operation("03", None)).await.expect(403)));
    // The portal names one holder and the license of another.
    let mut body = grant(&them, &bank, Target::License(&mine));
    with_real.push(("other holder", portal.send(&Call::new(Route::GrantCreate, &body)).await.expect(403)));
    body = json!({"license": mine.named(), "mode": "face", "holder": holder(&them), "use": use_context()});
    with_real.push(("vouched wrongly", portal.send(&Call::new(Route::Retrieve, &body)).await.expect(403)));
    // A license that does not exist: the holder named.
    let number = json!({
        "typeCode": natural().code.as_str(), "certificateNumber": "CSNICHTDA", "holder": holder(&me),
    });
    body = json!({"license": number, "mode": "face", "use": use_context()});
    with_named.push(("by number", bank.send(&Call::new(Route::Retrieve, &body)).await.expect(403)));
    body = json!({"holder": holder(&me), "use": use_context()});
    with_named.push(("search", bank.send(&Call::new(Route::Search, &body)).await.expect(403)));
    with_named.push(("trace", bank.send(&call(&trace(&me))).await.expect(403)));
    // A suspended organisation's attempt.
    let suspend = json!({"organisation": bank.organisation.as_str(), "suspended": true, "reason": "测试"});
    operator.send(&Call::new(Route::ParticipantSuspend, &suspend)).await.expect(200);
    with_real.push(("suspended", bank.send(&mine.verify(None)).await.expect(403)));

    let last = with_real.last().unwrap().1.receipt().index;
    let (_, shown) = whole(&server, &portal, &me, last).await;
    for (what, reply) in with_real.iter().chain(&with_named) {
        let entry = server.entry(reply).await;
        assert_eq!(of_index(&shown, &entry).entry.decision, "denial", "{what}");
    }
    let (_, shown) = whole(&server, &portal, &them, 0).await;
    let denials = shown.entries.iter().filter(|entry| entry.entry.decision == "denial").count();
    assert_eq!(denials, 0, "nobody tried theirs");
}

#[tokio::test]
async fn a_use_delayed_by_law_is_told_when_its_delay_has_ended() {
    let mut server = setup().start().await;
    let [mut issuer, portal, mut police, mut bank] =
        ["issuer", "portal", "police", "bank"].map(|name| server.party(name));
    let license = draft(&legal()).issue(&mut issuer).await;
    let of = license.draft.holder().clone();
    let secret = |call: &Call| {
        let mut body: Value = serde_json::from_slice(&call.body).unwrap();
        body["use"]["delay"] = json!("investigation");
        Call::new(call.route, &body)
    };
    let ordinary = bank.send(&license.verify(None)).await.expect(200);
    let quiet = police.send(&secret(&license.verify(None))).await.expect(200);
    let quiet_too = police.send(&secret(&license.retrieve(&["holderName"], None))).await.expect(403);
    let loud = police.send(&license.verify(None)).await.expect(200);
    // A suspended holder of the class is refused, and what it tried stays as quiet.
    let mut operator = server.party("operator");
    let suspend = |suspended: bool| {
        let organisation = server.organisation("police").to_string();
        let body = json!({"organisation": organisation, "suspended": suspended, "reason": "测试"});
        Call::new(Route::ParticipantSuspend, &body)
    };
    operator.send(&suspend(true)).await.expect(200);
    let suspended = police.send(&secret(&license.verify(None))).await.expect(403);
    assert_eq!(suspended.code(), Code::ParticipantSuspended.name());
    let suspended_loud = police.send(&license.verify(None)).await.expect(403);
    // Two operators let it in again.
    let again = json!({
        "organisation": server.organisation("police").as_str(), "name": "测试公安", "roles": ["relying"],
        "validFrom": "2026-01-01", "delays": tests::delay_class("investigation", 30),
    });
    let body = json!({"kind": "register-participant", "participant": again, "reason": "测试"});
    let proposed = operator.send(&Call::new(Route::Propose, &body)).await.expect(201);
    let body = json!({"proposal": proposed.json["proposal"], "participant": again});
    server.party("operator2").send(&Call::new(Route::Approve, &body)).await.expect(200);
    // An auditor who sees the quiet ones is as quiet; who sees the others is told of.
    server.proof(suspended_loud.receipt().index).await;
    let mut auditor = server.party("auditor");
    let mut views = (Vec::new(), Vec::new());
    let mut from = quiet.receipt().index;
    loop {
        let body = json!({"purpose": "测试审计", "userName": "测试审计员", "holder": holder(&of),
            "fromIndex": from, "to": schemas::date::rfc3339(now_ms())});
        let reply = auditor.send(&Call::new(Route::LogQuery, &body)).await.expect(200);
        let entries = reply.json["entries"].as_array().unwrap();
        let seen: Vec<u64> = entries.iter().filter_map(|entry| entry["entry"]["index"].as_u64()).collect();
        let quiet_ones = [&quiet, &quiet_too, &suspended].map(|reply| reply.receipt().index);
        let quietly = seen.iter().filter(|index| quiet_ones.contains(index)).count();
        assert!(quietly == 0 || quietly == seen.len(), "a view is of the one or of the other: {seen:?}");
        let views = if quietly > 0 { &mut views.0 } else { &mut views.1 };
        if !seen.is_empty() {
            views.push(reply.clone());
        }
        match reply.json["next"].as_u64() {
            Some(next) => from = next,
            None => break,
        }
    }
    let (quiet_views, loud_views) = views;
    assert!(!quiet_views.is_empty() && !loud_views.is_empty());
    // A caller that does not hold the class may not name it, and the attempt is told at once.
    let refused = bank.send(&secret(&license.verify(None))).await.expect(403);
    assert_eq!(refused.code(), Code::DelayNotAllowed.name());
    server.entry(&quiet).await;
    let (_, page) = whole(&server, &portal, &of, refused.receipt().index).await;
    let shown = |page: &TracePage, reply: &Reply| {
        let index = reply.receipt().index;
        page.entries.iter().any(|entry| entry.entry.index == index)
    };
    assert!(shown(&page, &ordinary) && shown(&page, &loud) && shown(&page, &refused));
    assert!(shown(&page, &suspended_loud) && loud_views.iter().all(|view| shown(&page, view)));
    assert!(!shown(&page, &quiet) && !shown(&page, &quiet_too) && !shown(&page, &suspended));
    assert!(!quiet_views.iter().any(|view| shown(&page, view)), "the view would tell of the use");
    assert!(page.completeness.ends_with(", except uses delayed by law"));

    // A month later.
    assert_eq!(server.stop(), Some(0));
    let later = server.later(31 * MS_PER_DAY).await;
    let gateway = &later.gateway;
    let ledger = gateway.ledger().clone();
    assert_eq!(ledger.state().due(u64::MAX).len(), 3 + quiet_views.len());
    gateway.release_delayed().await;
    gateway.release_delayed().await;
    assert!(ledger.state().due(u64::MAX).is_empty());
    let label = ledger.state().holder(&keyed::holder_key(ledger.keyed(), &of)).unwrap().label;
    let head = ledger.state().holder_by_label(&label).unwrap().head;
    let page = eventually("an index root", || async {
        let body = json!({"holder": holder(&of), "use": use_context()}).to_string();
        let request = hyper::Request::post("/v1/trace").header("content-type", "application/json");
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let caller = Certified {
            organisation: server.organisation("portal"),
            ends_at_ms: u64::MAX,
            address: std::net::Ipv4Addr::LOCALHOST.into(),
        };
        let answer = gateway.handle(Route::Trace, &caller, request, None).await;
        let (page, _) = verifier::receipt::cut(&answer.body).unwrap();
        let page: TracePage = serde_json::from_slice(&page).unwrap();
        let covered = page.index_root.as_ref().is_some_and(|root| root.count >= head.sequence);
        covered.then_some(page)
    })
    .await;
    let report = check(&server, &lines(std::slice::from_ref(&page)));
    assert_eq!(report.verdict, Verdict::Valid, "{:?}", report.reasons);
    let released: Vec<&TraceEntry> = page.entries.iter().flat_map(|entry| &entry.released).collect();
    let mut indexes: Vec<u64> = released.iter().map(|entry| entry.entry.index).collect();
    indexes.sort_unstable();
    let delayed = [&quiet, &quiet_too, &suspended].into_iter().chain(&quiet_views);
    let mut delayed: Vec<u64> = delayed.map(|reply| reply.receipt().index).collect();
    delayed.sort_unstable();
    assert_eq!(indexes, delayed, "each once, also the views");
    let released: Vec<&TraceEntry> = released
        .into_iter()
        .filter(|entry| [&quiet_too, &quiet].iter().any(|reply| reply.receipt().index == entry.entry.index))
        .collect();
    assert!(released.iter().all(|entry| matches!(entry.place, Place::Hidden { .. })));
    assert_eq!(told(released[1])["use"]["cause"], use_context()["cause"]);
    assert_eq!(released[1].entry.organisation, police.organisation.as_str());

    let refuse = |what: &str, reason: Reason, change: &dyn Fn(&mut TraceEntry)| {
        let mut changed = page.clone();
        let entry = changed.entries.iter_mut().flat_map(|entry| &mut entry.released).next().unwrap();
        change(entry);
        let report = check(&server, &lines(&[changed]));
        assert!(report.has(reason) && report.verdict == Verdict::Invalid, "{what}: {:?}", report.reasons);
    };
    refuse("another told", Reason::ToldMismatch, &|entry| {
        entry.told = page.entries.last().unwrap().told.clone()
    });
    refuse("another place", Reason::SequenceBroken, &|entry| {
        if let Place::Hidden { hidden } = &mut entry.place {
            hidden.0[0] ^= 1;
        }
    });
    refuse("an entry of the own sequence", Reason::SequenceBroken, &|entry| {
        *entry = page.entries.last().unwrap().clone();
    });
    // What a release tells is committed to: each of its uses stands there once, and no other.
    let releases: Vec<usize> =
        (0..page.entries.len()).filter(|at| !page.entries[*at].released.is_empty()).collect();
    let [newer, older, ..] = releases[..] else { panic!("{releases:?}") };
    let first = page.entries[newer].released[0].entry.index;
    assert_eq!(told(&page.entries[newer])["released"], json!([first]));
    let refuse = |what: &str, reason: Reason, change: &dyn Fn(&mut TracePage)| {
        let mut changed = page.clone();
        change(&mut changed);
        let report = check(&server, &lines(&[changed]));
        assert!(report.has(reason), "{what}: {:?}", report.reasons);
        assert_eq!(report.verdict, reason.verdict(), "{what}");
        assert_eq!(report.pages.and_then(|pages| pages.completeness), None, "{what}");
    };
    refuse("one is left out", Reason::ReleaseMismatch, &|page| page.entries[newer].released.clear());
    refuse("one stands twice", Reason::ReleaseMismatch, &|page| {
        let again = page.entries[newer].released[0].clone();
        page.entries[newer].released.push(again);
    });
    refuse("one stands elsewhere too", Reason::ReleaseMismatch, &|page| {
        let again = page.entries[newer].released[0].clone();
        page.entries[older].released.push(again);
    });
    refuse("another one", Reason::ReleaseMismatch, &|page| {
        page.entries[newer].released = page.entries[older].released.clone();
    });
    refuse("one of an entry that releases nothing", Reason::ReleaseMismatch, &|page| {
        let again = page.entries[newer].released.clone();
        page.entries.last_mut().unwrap().released = again;
    });
    refuse("told by no document", Reason::ToldMissing, &|page| {
        page.entries[newer].told = None;
        page.entries[newer].released.clear();
    });
    refuse("of one released nothing is told", Reason::ToldMissing, &|page| {
        page.entries[newer].released[0].told = None;
    });
    drop(ledger);
    later.close().await;
}

#[tokio::test]
async fn one_holder_has_one_label_whoever_asks() {
    let server = setup().start().await;
    let [mut issuer, mut portal] = ["issuer", "portal"].map(|name| server.party(name));
    let license = draft(&natural()).issue(&mut issuer).await;
    let other = draft(&natural()).issue(&mut issuer).await;
    let side = |reply: &Reply| verifier::same_holder::Side {
        receipt: reply.receipt(),
        request: Some(reply.request.to_vec()),
    };
    let one = portal.send(&call(&trace(license.draft.holder()))).await.expect(200);
    let body = json!({"holder": holder(license.draft.holder()), "use": use_context()});
    let two = portal.send(&Call::new(Route::Search, &body)).await.expect(200);
    let third = portal.send(&call(&trace(other.draft.holder()))).await.expect(200);
    let compare = |a: &Reply, b: &Reply| {
        verifier::same_holder::verify(&side(a), &side(b), &server.trust, now_ms() / 1_000)
    };
    let report = compare(&one, &two);
    assert_eq!(report.verdict, Verdict::Valid, "{:?}", report.reasons);
    let report = compare(&one, &third);
    assert!(report.has(Reason::NothingTies) && report.verdict == Verdict::Unknown, "{:?}", report.reasons);
    let mut without = side(&one);
    without.request = None;
    let report = verifier::same_holder::verify(&without, &side(&two), &server.trust, now_ms() / 1_000);
    assert!(report.has(Reason::NothingTies), "{:?}", report.reasons);
    // The request of another receipt does not belong to it.
    let mut forged = side(&third);
    forged.request = Some(one.request.to_vec());
    let report = verifier::same_holder::verify(&side(&one), &forged, &server.trust, now_ms() / 1_000);
    assert!(
        report.has(Reason::RequestMismatch) && report.verdict == Verdict::Invalid,
        "{:?}",
        report.reasons
    );
}
