//! Uses past their period: their keys are destroyed, the holder is told so and can prove it; what stands, what is held and what was issued
//! stays readable.

use bytes::Bytes;
use exchange::keyed;
use ledger::{Ledger, ReadError};
use schemas::holder::HolderRef;
use schemas::routes::Route;
use serde_json::{Value, json};
use tests::{
    Call, HANG, Issued, Later, Party, Server, Setup, Target, draft, grant, holder, natural, now_ms,
    use_context,
};
use verifier::report::{Reason, Report};
use verifier::trace::{verify_audit, verify_trace};

const DAY_MS: u64 = 24 * 3_600_000;
/// Six years and some days: uses of now are past a period of five whole years.
const LATER_MS: u64 = 6 * 366 * DAY_MS;
const YEARS: u16 = 5;

fn trace_of(whom: &HolderRef) -> Call {
    Call::new(Route::Trace, &json!({"holder": holder(whom), "use": use_context()}))
}

/// A license that the bank has used, with a right.
async fn used(server: &Server) -> Issued {
    let license = draft(&natural()).issue(&mut server.party("issuer")).await;
    let terms = grant(license.draft.holder(), &server.party("bank"), Target::License(&license));
    let right = server.party("portal").grant(&terms).await;
    server.party("bank").send(&license.retrieve(&["holderName"], Some(&right))).await.expect(200);
    license
}

async fn held(operators: &mut [Party; 2], whom: &HolderRef) {
    let [one, other] = operators;
    let propose = json!({"kind": "hold-holder", "holder": holder(whom), "reason": "测试"});
    let proposal = one.send(&Call::new(Route::Propose, &propose)).await.expect(201).json["proposal"].clone();
    other.send(&Call::new(Route::Approve, &json!({"proposal": proposal}))).await.expect(200);
}

/// The trace of a holder at a later time, with an index root.
async fn trace(server: &Server, later: &Later, whom: &HolderRef, route: &str) -> (Value, Report, Bytes) {
    let portal = server.organisation("portal");
    let look = async {
        loop {
            let reply = later.ask(portal, &trace_of(whom)).await.expect(200);
            let report = verify_trace(&reply.body, &server.trust, None, now_ms() / 1_000);
            // What was written last is proven a moment later.
            let mut entries = reply.json["entries"].as_array().into_iter().flatten();
            if entries.any(|entry| entry["entry"]["route"] == route) {
                return (reply.json, report, reply.body);
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(HANG, look).await.unwrap()
}

/// The documents that a holder is told, by route; `None` for what is destroyed.
fn told(page: &Value) -> Vec<(String, Option<Value>)> {
    let entries = page["entries"].as_array().unwrap().iter();
    let one = |entry: &Value| {
        let document = entry["told"]["document"].as_str().map(|text| serde_json::from_str(text).unwrap());
        (entry["entry"]["route"].as_str().unwrap().to_owned(), document)
    };
    entries.map(one).collect()
}

fn label(ledger: &Ledger, whom: &HolderRef) -> ledger::Label {
    ledger.state().holder(&keyed::holder_key(ledger.keyed(), whom)).unwrap().label
}

/// What opening the sealed part of the use of a license gives.
fn part(ledger: &Ledger, index: u64) -> Result<Vec<u8>, ReadError> {
    ledger.open_subject(ledger.entry(index).unwrap().parts[0])
}

#[tokio::test(flavor = "multi_thread")]
async fn uses_past_their_period_are_destroyed_with_proof_and_nothing_else_is() {
    let mut server = Setup::new().config(|config| config.journal.index_root_seconds = 1).start().await;
    let mut operators = [server.party("operator"), server.party("operator2")];
    let (one, other, kept) = (used(&server).await, used(&server).await, used(&server).await);
    held(&mut operators, kept.draft.holder()).await;
    let retrieved = tests::eventually("the use in the trace", || async {
        let page = server.party("portal").send(&trace_of(one.draft.holder())).await.expect(200).json;
        let mut entries = page["entries"].as_array().unwrap().iter();
        entries.find(|one| one["entry"]["route"] == "retrieve").cloned()
    })
    .await;
    let index = retrieved["entry"]["index"].as_u64().unwrap();
    let document: Value = serde_json::from_str(retrieved["told"]["document"].as_str().unwrap()).unwrap();
    assert_eq!(document["use"]["basis"], json!("consent"));
    assert_eq!(server.stop(), Some(0));

    // Nothing is due before its time.
    let early = server.later(4 * 366 * DAY_MS).await;
    assert_eq!(early.gateway.destroy_uses(YEARS).await.destroyed, 0);
    early.close().await;

    // Cut off after an entry: each holder's year is gone or there, and the next run goes on.
    let later = server.later(LATER_MS).await;
    let ledger = later.gateway.ledger().clone();
    let labels = [&one, &other].map(|license| label(&ledger, license.draft.holder()));
    let uses = |ledger: &Ledger, label: &ledger::Label| {
        ledger.state().key_names(label).iter().filter(|(name, _)| name.class == ledger::USES).count()
    };
    // Of the three, and of those who are nobody.
    let before = ledger.state().keys_until(ledger::USES, ledger::cst_year(now_ms())).len();
    assert!(before > 3 && labels.iter().all(|label| uses(&ledger, label) == 1));
    assert_eq!(later.gateway.destroy_uses_in(YEARS, 1, 1).await.destroyed, 1);
    drop(ledger);
    later.close().await;
    let later = server.later(LATER_MS).await;
    let found = later.gateway.destroy_uses(YEARS).await;
    assert_eq!((found.destroyed, found.kept), (before - 2, 1));
    assert_eq!(later.gateway.destroy_uses(YEARS).await.destroyed, 0);
    let ledger = later.gateway.ledger().clone();
    assert!(labels.iter().all(|label| uses(&ledger, label) == 0));
    assert!(matches!(part(&ledger, index), Err(ReadError::KeyGone)));

    // The body and the right are still read; the issuer is answered.
    let issuer = server.organisation("issuer");
    later.ask(issuer, &one.retrieve(&["holderName"], None)).await.expect(200);
    let (page, report, body) = trace(&server, &later, one.draft.holder(), "system").await;
    let told_of = told(&page);
    let of =
        |route: &str| told_of.iter().filter(|(of, _)| of == route).map(|(_, told)| told).collect::<Vec<_>>();
    assert!(of("issue").iter().all(|told| told.is_some()), "{told_of:?}");
    assert!(of("grant-create").iter().all(|told| told.is_some()));
    let year = ledger::cst_year(now_ms());
    let end = json!({"destroyed": {"class": "uses", "year": year}});
    assert_eq!(of("system"), [&Some(end)]);
    // Those of the year are not shown any more, and that is no fault of the trace.
    assert!(of("retrieve").contains(&&None));
    assert!(!report.has(Reason::ToldMissing), "{report:?}");
    assert!(report.pages.unwrap().destroyed >= 1);
    let text = server.verify_pages("trace", std::slice::from_ref(&body));
    assert!(text.stdout.contains("destroyed"), "{text:?}");
    // Without the entry that tells of the end, what is missing is missing.
    let mut cut: Value = serde_json::from_slice(&body).unwrap();
    let entries = cut["entries"].as_array_mut().unwrap();
    entries.retain(|entry| entry["entry"]["route"] != "system");
    let cut = cut.to_string();
    let found = verify_trace(cut.as_bytes(), &server.trust, None, now_ms() / 1_000);
    assert!(found.has(Reason::ToldMissing), "{found:?}");

    // Under a legal hold all stays.
    let (page, ..) = trace(&server, &later, kept.draft.holder(), "retrieve").await;
    assert!(told(&page).iter().all(|(_, told)| told.is_some()));

    // An auditor proves which keys it were.
    let from = schemas::date::rfc3339(now_ms() + LATER_MS - DAY_MS);
    let until = schemas::date::rfc3339(now_ms() + LATER_MS + DAY_MS);
    let asked = json!({"from": from, "to": until, "purpose": "核查", "userName": "测试审计员", "limit": 100});
    let reply =
        later.ask(server.organisation("auditor"), &Call::new(Route::LogQuery, &asked)).await.expect(200);
    let found = verify_audit(&reply.body, &server.trust, None, now_ms() / 1_000);
    assert!(!found.has(Reason::EntryMismatch), "{found:?}");
    let entries = reply.json["entries"].as_array().unwrap();
    let ends = entries
        .iter()
        .filter(|entry| entry["told"][0]["document"].as_str().is_some_and(|text| text.contains("destroyed")));
    assert_eq!(ends.count(), 2);

    // After the change of epoch no copy of the journal opens it, with a restart image and without.
    let gateway = &later.gateway;
    tokio::task::block_in_place(|| gateway.rotate()).unwrap();
    drop(ledger);
    later.close().await;
    let report = server.log_verify();
    assert_eq!(report["problems"], json!([]), "{report}");
    let mut states = Vec::new();
    for image in [true, false] {
        if !image {
            std::fs::remove_dir_all(server.folder.join("store")).ok();
        }
        let later = server.later(LATER_MS).await;
        let ledger = later.gateway.ledger().clone();
        assert!(matches!(part(&ledger, index), Err(ReadError::KeyGone)));
        states.push(ledger.state().keys_until(ledger::USES, u16::MAX));
        drop(ledger);
        later.close().await;
    }
    assert_eq!(states[0], states[1], "the image names the keys that the journal leaves");

    // Those of the later year are due in their turn.
    let plan = server.run(&["retention", "--json", "--at", "2999-01-01"]);
    let plan: Value = serde_json::from_str(&plan.stdout).unwrap_or_else(|_| panic!("{plan:?}"));
    assert_eq!(plan["destroyed"].as_array().unwrap().len(), 2);
    assert_eq!(plan["years"][year.to_string()], json!({"keys": 1, "held": 1, "due": 0}));
    let text = server.run(&["retention"]);
    assert!(text.stdout.contains("were destroyed") && text.stdout.contains("1 under legal hold"), "{text:?}");
}
