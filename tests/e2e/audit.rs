//! The auditor's questions: who may ask, what is answered and proven, and that the holders see every view.

use ledger::record::Record;
use ledger::{Command, Label, Outcome};
use schemas::codes::Code;
use schemas::routes::Route;
use serde_json::{Value, json};
use tests::{
    Call, Party, Reply, Server, Setup, Target, draft, eventually, grant, holder, natural, now_ms, use_context,
};
use verifier::report::{Reason, Report, Verdict};
use verifier::trace::{AuditPage, TracePage, verify_audit};

fn query(filters: Value) -> Call {
    let mut body = json!({"purpose": "测试审计", "userName": "测试审计员"});
    body.as_object_mut().unwrap().extend(filters.as_object().unwrap().clone());
    Call::new(Route::LogQuery, &body)
}

fn page(reply: &Reply) -> AuditPage {
    serde_json::from_slice(&reply.hashed()).unwrap()
}

fn indexes(page: &AuditPage) -> Vec<u64> {
    page.entries.iter().map(|entry| entry.entry.index).collect()
}

fn check(server: &Server, pages: &[AuditPage]) -> Report {
    let lines: Vec<Vec<u8>> = pages.iter().map(|page| serde_json::to_vec(page).unwrap()).collect();
    verify_audit(&lines.join(&b'\n'), &server.trust, None, now_ms() / 1_000)
}

async fn asked(auditor: &mut Party, filters: Value) -> AuditPage {
    page(&auditor.send(&query(filters)).await.expect(200))
}

#[tokio::test]
async fn an_auditor_finds_entries_with_proof_and_every_view_is_told() {
    let server = Setup::new().start().await;
    let [mut issuer, mut portal, mut bank, mut approval, mut auditor] =
        ["issuer", "portal", "bank", "approval", "auditor"].map(|name| server.party(name));
    let license = draft(&natural()).issue(&mut issuer).await;
    let other = draft(&natural()).issue(&mut issuer).await;
    let of = license.draft.holder();
    let granted = Call::new(Route::GrantCreate, &grant(of, &bank, Target::License(&license)));
    let granted = portal.send(&granted).await.expect(201);
    let id = granted.json["grant"].as_str().unwrap().to_owned();
    let mut body: Value = serde_json::from_slice(&license.verify(Some(&id)).body).unwrap();
    body["use"]["businessCode"] = json!("CSAUDIT1");
    let used = bank.send(&Call::new(Route::Verify, &body)).await.expect(200).receipt().index;
    let denied = approval.send(&license.verify(None)).await.expect(403).receipt().index;
    let foreign = approval.send(&other.verify(None)).await.expect(403).receipt().index;
    let nobody = json!({"holder": holder(draft(&natural()).holder()), "use": use_context()});
    let unclaimed = bank.send(&Call::new(Route::Search, &nobody)).await.expect(403).receipt().index;
    server.proof(unclaimed).await;

    // Each filter by itself.
    let by_case = asked(&mut auditor, json!({"businessCode": "CSAUDIT1"})).await;
    assert_eq!(indexes(&by_case), [used]);
    let entry = &by_case.entries[0];
    assert_eq!(entry.user_name.as_deref(), use_context()["userName"].as_str());
    let told: Value = serde_json::from_str(&entry.told[0].as_ref().unwrap().document).unwrap();
    assert_eq!(told["grant"], json!(id));
    assert_eq!(entry.entry.organisation, bank.organisation.as_str());
    let by_license = asked(&mut auditor, json!({"license": license.identifier})).await;
    let found = indexes(&by_license);
    assert!(found.contains(&used) && found.contains(&denied) && !found.contains(&foreign), "{found:?}");
    let by_holder = asked(&mut auditor, json!({"holder": holder(of)})).await;
    let found = indexes(&by_holder);
    assert!(found.contains(&used) && found.contains(&denied) && !found.contains(&foreign), "{found:?}");
    assert!(found.contains(&granted.receipt().index));
    let by_code = asked(&mut auditor, json!({"code": "not-permitted"})).await;
    assert_eq!(indexes(&by_code), [denied, foreign, unclaimed]);
    assert_eq!(by_code.entries[0].reason, "no-grant");
    // Nobody is one holder too, of whom it is told in the same way.
    assert!(by_code.entries[2].concerned.len() == 1 && by_code.entries[2].told[0].is_some());
    let both = json!({"code": "not-permitted", "organisation": bank.organisation.as_str()});
    assert_eq!(indexes(&asked(&mut auditor, both).await), [unclaimed]);
    let late = json!({"from": "2999-01-01T00:00:00Z"});
    assert!(asked(&mut auditor, late).await.entries.is_empty());
    let early = asked(&mut auditor, json!({"to": "2001-01-01T00:00:00Z"})).await;
    assert!(early.entries.is_empty() && early.next.is_none());
    let unknown = json!({"holder": holder(draft(&natural()).holder())});
    assert!(asked(&mut auditor, unknown).await.entries.is_empty());

    // Pages by index make one export, which the verifier checks.
    let (mut pages, mut answers) = (Vec::new(), Vec::new());
    let mut from = 0;
    let to = schemas::date::rfc3339(now_ms());
    loop {
        let filters = json!({"limit": 2, "fromIndex": from, "to": to});
        let reply = auditor.send(&query(filters)).await.expect(200);
        let one = page(&reply);
        let next = one.next;
        pages.push(one);
        answers.push(reply.body);
        match next {
            Some(next) => from = next,
            None => break,
        }
    }
    let report = check(&server, &pages);
    assert_eq!(report.verdict, Verdict::Valid, "{:?}", report.reasons);
    assert!(report.not_checked.contains(&"matches"));
    assert!(pages.len() >= 3);
    let gap = [pages[0].clone(), pages[2].clone()];
    assert!(check(&server, &gap).has(Reason::SequenceBroken));
    let report = check(&server, &pages[..2]);
    assert!(report.has(Reason::NotWhole) && report.verdict == Verdict::Unknown, "{:?}", report.reasons);

    // The same from the command line, with the answers as they came.
    let whole = server.verify_pages("audit", &answers);
    assert_eq!(whole.status, Some(0), "{whole:?}");
    let entries: usize = pages.iter().map(|page| page.entries.len()).sum();
    assert!(whole.stdout.contains(&format!("entries      {entries} of ")), "{whole:?}");
    let part = server.verify_pages("audit", &answers[..1]);
    assert_eq!(part.status, Some(2), "{part:?}");
    assert!(part.stdout.contains("not-whole"), "{part:?}");
    for bad in tests::flipped(&answers[1]) {
        let mut changed = answers.clone();
        changed[1] = bad;
        let refused = server.verify_pages("audit", &changed);
        assert_eq!(refused.status, Some(1), "{refused:?}");
    }

    // Nothing can be changed.
    let refuse = |what: &str, reason: Reason, change: &dyn Fn(&mut AuditPage)| {
        let mut changed = by_code.clone();
        change(&mut changed);
        let report = check(&server, &[changed]);
        assert!(report.has(reason) && report.verdict == Verdict::Invalid, "{what}: {:?}", report.reasons);
    };
    assert_eq!(check(&server, std::slice::from_ref(&by_code)).verdict, Verdict::Valid);
    refuse("another reason", Reason::EntryMismatch, &|page| {
        page.entries[0].reason = "no-such-grant".to_owned()
    });
    refuse("another holder", Reason::EntryMismatch, &|page| {
        page.entries[0].concerned = page.entries[1].concerned.clone();
    });
    refuse("another told", Reason::EntryMismatch, &|page| {
        page.entries[0].told[0].as_mut().unwrap().document.push(' ');
    });
    refuse("another record", Reason::EntryMismatch, &|page| {
        page.entries[0].record = page.entries[2].record.clone();
    });
    refuse("another place", Reason::EntryMismatch, &|page| {
        let end = page.entries[0].completion.0.len();
        page.entries[0].completion.0[end - 1] ^= 1;
    });
    refuse("another order", Reason::SequenceBroken, &|page| page.entries.swap(0, 1));
    refuse("another time", Reason::EntryMismatch, &|page| {
        page.entries[0].entry.time = page.entries[1].entry.time.replace('2', "3");
    });
    refuse("another path", Reason::NotIncluded, &|page| page.entries[0].entry.path[0].0[3] ^= 1);

    // The holders whose records a page shows have nothing to do with each other: no view tells one of another.
    for answer in &answers {
        let (_, receipt) = verifier::receipt::cut(answer).unwrap();
        let open = verifier::leaf::Open::parse(&receipt.open).unwrap();
        assert_eq!(open.labels, verifier::leaf::Labels::List(Vec::new()));
    }

    // Each view stands in the traces of those whose records it showed, with its purpose.
    let view = auditor.send(&query(json!({"businessCode": "CSAUDIT1"}))).await.expect(200);
    let elsewhere =
        auditor.send(&query(json!({"organisation": auditor.organisation.as_str()}))).await.expect(200);
    server.proof(elsewhere.receipt().index).await;
    let trace = Call::new(Route::Trace, &json!({"holder": holder(of), "use": use_context()}));
    let reply = eventually("the view", || async {
        let reply = portal.again().send(&trace).await.expect(200);
        Some(reply)
    })
    .await;
    let shown: TracePage = serde_json::from_slice(&reply.hashed()).unwrap();
    let seen = shown.entries.iter().find(|entry| entry.entry.index == view.receipt().index).unwrap();
    let told: Value = serde_json::from_str(&seen.told.as_ref().unwrap().document).unwrap();
    assert_eq!((seen.entry.route.as_str(), &told["audit"]["purpose"]), ("log-query", &json!("测试审计")));
    assert!(!told.to_string().contains("测试审计员"), "the auditor's person stands under a pseudonym");
    assert!(told.get("licenses").is_none() && told.get("use").is_none());
    let of_other =
        Call::new(Route::Trace, &json!({"holder": holder(other.draft.holder()), "use": use_context()}));
    let reply = portal.send(&of_other).await.expect(200);
    let shown: TracePage = serde_json::from_slice(&reply.hashed()).unwrap();
    assert!(shown.entries.iter().all(|entry| entry.entry.index != view.receipt().index));
}

#[tokio::test]
async fn nobody_asks_without_the_role_or_without_a_purpose() {
    let server = Setup::new().start().await;
    let mut auditor = server.party("auditor");
    for name in ["issuer", "portal", "bank", "operator", "provider"] {
        server.refused(&mut server.party(name), &query(json!({})), Code::WrongRole).await;
    }
    for missing in ["purpose", "userName"] {
        let mut body = json!({"purpose": "测试审计", "userName": "测试审计员"});
        body.as_object_mut().unwrap().remove(missing);
        server.refused(&mut auditor, &Call::new(Route::LogQuery, &body), Code::BadUseContext).await;
        body[missing] = json!("   ");
        server.refused(&mut auditor, &Call::new(Route::LogQuery, &body), Code::BadUseContext).await;
    }
    for bad in [
        json!({"code": "no-such-code"}),
        json!({"from": "yesterday"}),
        json!({"limit": 0}),
        json!({"limit": 101}),
    ] {
        server.refused(&mut auditor, &query(bad), Code::MalformedRequest).await;
    }
    // A key binds nothing: each page is a view of its own.
    let call = query(json!({})).key("the-same-key-of-an-auditor");
    let one = auditor.send(&call).await.expect(200).receipt().index;
    let two = auditor.send(&call).await.expect(200).receipt().index;
    assert_ne!(one, two);
    // Far beyond the end there is nothing, and that is said.
    let page = asked(&mut auditor, json!({"fromIndex": u64::MAX >> 1})).await;
    assert!(page.entries.is_empty() && page.next.is_none());
}

#[tokio::test]
async fn an_export_from_the_command_line_is_one_file_that_the_verifier_checks() {
    let server = Setup::new().start().await;
    let [mut issuer, mut bank] = ["issuer", "bank"].map(|name| server.party(name));
    let license = draft(&natural()).issue(&mut issuer).await;
    let mut last = 0;
    for _ in 0..7 {
        last = bank.send(&license.verify(None)).await.expect(403).receipt().index;
    }
    // A query without an end ends now, and reads what is published by now.
    server.proof(last).await;
    let folder = server.folder.join("exports");
    std::fs::create_dir(&folder).unwrap();
    let (query, out) = (folder.join("query.json"), folder.join("export.jsonl"));
    let write = |query: &std::path::Path, purpose: &str| {
        let body = json!({
            "purpose": purpose, "userName": "测试审计员", "code": "not-permitted", "limit": 3,
        });
        std::fs::write(query, body.to_string()).unwrap();
    };
    let [query_name, out_name] = [&query, &out].map(|path| path.to_str().unwrap());
    let address = server.data.to_string();
    let export = |more: &[&str]| {
        let words = ["log", "export", "--query", query_name, "--out", out_name, "--server", &address];
        server.run(&[&words[..], more].concat())
    };
    let left = || {
        let files = std::fs::read_dir(&folder).unwrap();
        files.map(|file| file.unwrap().file_name()).collect::<Vec<_>>()
    };

    // Refused: nothing is left.
    write(&query, "   ");
    let refused = export(&[]);
    assert_eq!(refused.status, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("bad-use-context"), "{refused:?}");
    write(&query, "测试审计");
    let [cert, key] = ["pem", "key"].map(|end| server.folder.join(format!("pki/clients/bank.{end}")));
    let refused = export(&["--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap()]);
    assert_eq!(refused.status, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("wrong-role"), "{refused:?}");
    assert_eq!(left(), ["query.json"]);

    let done = export(&[]);
    assert_eq!(done.status, Some(0), "{done:?}");
    assert!(done.stdout.contains("7 entries in 3 pages"), "{done:?}");
    let text = std::fs::read(&out).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&out).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "personal data, for its owner alone");
    let checked = server.verifier(&["audit", out_name]);
    assert_eq!(checked.status, Some(0), "{checked:?}");
    assert!(checked.stdout.contains("entries      7 of "), "{checked:?}");
    // Each line is an answer with its receipt.
    for line in text.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n') {
        verifier::receipt::cut(line).unwrap();
    }
    let mut changed = text.clone();
    changed[text.len() / 4] ^= 1;
    let bad = folder.join("changed.jsonl");
    std::fs::write(&bad, changed).unwrap();
    assert_eq!(server.verifier(&["audit", bad.to_str().unwrap()]).status, Some(1));

    // What is there already stays.
    let again = export(&[]);
    assert_eq!(again.status, Some(64), "{again:?}");
    assert!(again.stderr.contains("is there already"), "{again:?}");
    assert_eq!(std::fs::read(&out).unwrap(), text);
}

#[tokio::test]
async fn a_page_shows_the_records_of_at_most_1024_holders() {
    let mut server = Setup::new().start().await;
    let known = server.size().await;
    assert_eq!(server.stop(), Some(0));
    let later = server.later(0).await;
    let ledger = later.gateway.ledger().clone();
    // What a bulk delivery leaves: an entry that concerns many. The second one concerns two of the first again.
    let mut labels: Vec<Label> = Vec::new();
    let mut entries = Vec::new();
    for (again, new) in [(0, 600), (2, 424), (1, 1)] {
        let mut record = Record { concerned: labels[..again].to_vec(), ..Record::default() };
        for _ in 0..new {
            let key = *ledger.random().first_chunk().unwrap();
            let holder = ledger.new_holder(key);
            record.concerned.push(holder.label);
            record.new_holders.push(holder.entered());
        }
        labels.extend(&record.concerned[again..]);
        let prepared = exchange::gateway::seal::system_entry(&[0; 32], &record);
        let command = Command {
            permit_or_denial: prepared,
            reads: Vec::new(),
            ends_at_ms: u64::MAX,
            inline_proof: false,
        };
        match ledger.commit(command).await.unwrap() {
            Outcome::Committed(committed) => entries.push(committed.index),
            Outcome::Changed => panic!("decided on nothing"),
        }
    }
    assert_eq!(labels.len(), 1_025);
    let last = *entries.last().unwrap();
    eventually("the checkpoint", || async { (ledger.published().0 > last).then_some(()) }).await;
    let auditor = server.organisation("auditor");
    let mut pages = Vec::new();
    let mut from = Some(known);
    while let Some(next) = from {
        let to = schemas::date::rfc3339(now_ms());
        let reply = later.ask(auditor, &query(json!({"fromIndex": next, "to": to}))).await.expect(200);
        let one = page(&reply);
        // The view concerns whom it shows: each once.
        let view = ledger.entry(reply.receipt().index).unwrap();
        let mut shown: Vec<Label> =
            one.entries.iter().flat_map(|entry| &entry.concerned).map(|label| label.0).collect();
        shown.sort_unstable();
        shown.dedup();
        let mut concerned = view.record.concerned.clone();
        concerned.sort_unstable();
        assert_eq!(concerned, shown);
        assert_eq!(view.parts.len(), shown.len().max(1), "a part for each");
        from = one.next.filter(|_| pages.len() < 8);
        pages.push(one);
    }
    let with: Vec<Vec<u64>> = pages
        .iter()
        .map(|page| indexes(page).into_iter().filter(|index| entries.contains(index)).collect())
        .filter(|found: &Vec<u64>| !found.is_empty())
        .collect();
    assert_eq!(with, [vec![entries[0], entries[1]], vec![entries[2]]], "1,024 fit, one more does not");
    let report = check(&server, &pages);
    assert_eq!(report.verdict, Verdict::Valid, "{:?}", report.reasons);
    drop(ledger);
    later.close().await;
}
