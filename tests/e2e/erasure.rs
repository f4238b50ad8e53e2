//! Keys and erasure over HTTP: two operators, what refuses, what is gone and what stays, a change of epoch that dies at
//! each of its steps.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use exchange::keyed;
use ledger::{DocumentKind, Ledger};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use schemas::codes::Code;
use schemas::holder::HolderRef;
use schemas::journal::SubjectRecord;
use schemas::routes::Route;
use serde_json::{Value, json};
use tests::{
    Call, Draft, Finished, Issued, Party, Server, Setup, draft, eventually, grant, holder, key, natural,
    shared, use_context,
};
use verifier::leaf::Labels;
use verifier::report::Verdict;
use verifier::trace::{verify_audit, verify_trace};

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// Closed segments after which a snapshot is made.
const SNAPSHOT_SEGMENTS: usize = 10;

fn propose(kind: &str, whom: Option<&HolderRef>) -> Call {
    let mut body = json!({"kind": kind, "reason": "测试"});
    if let Some(whom) = whom {
        body["holder"] = holder(whom);
    }
    Call::new(Route::Propose, &body)
}

fn approve(proposal: &Value) -> Call {
    Call::new(Route::Approve, &json!({"proposal": proposal}))
}

fn search(whom: &HolderRef) -> Call {
    Call::new(Route::Search, &json!({"holder": holder(whom), "use": use_context()}))
}

/// One proposes, the other approves; the approving answer.
async fn by_two(operators: &mut [Party; 2], call: &Call) -> Value {
    let [one, other] = operators;
    let proposed = one.send(call).await.expect(201).json;
    assert_eq!((&proposed["state"], proposed.get("complete")), (&json!("open"), None));
    other.send(&approve(&proposed["proposal"])).await.expect(200).json
}

async fn revoked(issuer: &mut Party) -> Issued {
    let issued = draft(&natural()).issue(issuer).await;
    issuer.send(&issued.operation("05", Some("07"))).await.expect(200);
    issued
}

/// Every file of a folder with its bytes.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let bytes = fs::read(&path).unwrap();
            found.push((path, bytes));
        }
    }
    found
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// What is wrapped under an epoch's key, unwrapped by the format alone.
fn unwrap(origin: &str, epoch_key: &[u8], name: &[u8], wrapped: &[u8]) -> Option<Vec<u8>> {
    let aad = [b"miaoxiang holder key v2\0", origin.as_bytes(), b"\0", name].concat();
    let nonce = Nonce::try_assume_unique_for_key(&wrapped[..12]).unwrap();
    let mut sealed = wrapped[12..].to_vec();
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, epoch_key).unwrap());
    key.open_in_place(nonce, Aad::from(aad), &mut sealed).ok().map(|key| key.to_vec())
}

/// Name (label, class, year) and wrapped first key of every holder that the journal names.
fn born(server: &Server) -> Vec<([u8; 19], [u8; 60])> {
    let keys =
        exchange::opening::ledger_keys(&exchange::opening::key_folder(&server.config).unwrap()).unwrap();
    let mut born = Vec::new();
    ledger::entries(exchange::opening::ledger_options(&server.config), keys, |entry| {
        // The holders that are nobody come with the register.
        let persons = entry.record.new_holders.iter().filter(|_| entry.record.documents.is_empty());
        born.extend(persons.map(|holder| {
            let name = [&holder.label[..], &[holder.class], &holder.year.to_be_bytes()].concat();
            (name.try_into().unwrap(), holder.wrapped)
        }));
    })
    .unwrap();
    born
}

/// The unsealed content of the epoch's key file: its key stands at 37.
fn epoch_file(server: &Server) -> Vec<u8> {
    exchange::opening::key_folder(&server.config).unwrap().load("epoch").unwrap().to_vec()
}

async fn epoch(server: &Server) -> (u64, u64) {
    let ready = server.admin("/ready").await.json;
    (ready["epoch"].as_u64().unwrap(), ready["epochDestroyed"].as_u64().unwrap())
}

/// The two commands, as two operators give them to a serving exchange.
fn rotate_now(server: &Server) -> [Finished; 2] {
    let address = server.data.to_string();
    let proposed = server.run(&["keys", "--rotate-now", "--reason", "测试", "--server", &address]);
    let answer: Value = serde_json::from_str(proposed.stdout.trim()).unwrap_or_default();
    let id = answer["proposal"].as_str().unwrap_or_default().to_owned();
    let file = |end: &str| server.folder.join(format!("pki/clients/operator2.{end}")).display().to_string();
    let words = ["approve", &id, "--server", &address, "--cert", &file("pem"), "--key", &file("key")];
    [proposed, server.run(&words)]
}

async fn rotated(server: &Server) {
    let before = epoch(server).await;
    for finished in rotate_now(server) {
        assert_eq!(finished.status, Some(0), "{finished:?}");
    }
    eventually("a change of epoch", || async {
        (epoch(server).await == (before.0 + 1, before.1 + 1)).then_some(())
    })
    .await;
}

fn at_once() -> Setup {
    Setup::new().config(|config| config.keys.retention_days = 0)
}

#[tokio::test]
async fn a_proposal_needs_two_operators_and_is_done_once() {
    let server = shared(at_once).await;
    let mut issuer = server.party("issuer");
    let [mut one, mut other] = [server.party("operator"), server.party("operator2")];
    let whom = revoked(&mut issuer).await;
    let erase = propose("erase-holder", Some(whom.draft.holder()));
    for name in ["issuer", "portal", "auditor", "bank"] {
        server.refused(&mut server.party(name), &erase, Code::WrongRole).await;
        server.refused(&mut server.party(name), &approve(&json!("00".repeat(16))), Code::WrongRole).await;
    }
    for bad in [
        json!({"kind": "erase-holder", "reason": "测试"}),
        json!({"kind": "rotate-epoch", "reason": "测试", "holder": holder(whom.draft.holder())}),
        json!({"kind": "erase-holder", "reason": " ", "holder": holder(whom.draft.holder())}),
        json!({"kind": "surprise", "reason": "测试"}),
    ] {
        server.refused(&mut one, &Call::new(Route::Propose, &bad), Code::MalformedRequest).await;
    }
    let nobody = draft(&natural());
    server.refused(&mut one, &propose("erase-holder", Some(nobody.holder())), Code::NotPermitted).await;
    server.refused(&mut one, &erase.clone().without("idempotency-key"), Code::IdempotencyKeyRequired).await;

    let (reply, entry) = server.permitted(&mut one, &erase).await;
    assert!(
        matches!(&entry.open.labels, Labels::List(labels) if labels.len() == 1),
        "the request names the holder"
    );
    let again = one.send(&erase).await.expect(201);
    assert_eq!(again.hashed(), reply.hashed());
    let proposal = reply.json["proposal"].clone();
    let detail = |reply: &tests::Reply| reply.json["detail"].as_str().unwrap_or_default().to_owned();
    let (reply, _) = server.refused(&mut one, &approve(&proposal), Code::ProposalRefused).await;
    assert_eq!(detail(&reply), "own-proposal");
    let unknown = approve(&json!("00".repeat(16)));
    let (reply, _) = server.refused(&mut other, &unknown, Code::ProposalRefused).await;
    assert_eq!(detail(&reply), "no-such-proposal");

    let approval = approve(&proposal);
    let (reply, entry) = server.permitted(&mut other, &approval).await;
    assert_eq!(
        (&reply.json["state"], &reply.json["complete"]),
        (&json!("approved"), &json!("after-next-rotation"))
    );
    assert_eq!(entry.open.labels, Labels::List(Vec::new()), "the request names the proposal alone");
    // A retry has the answer although the holder's key is gone; the proposal is done once.
    assert_eq!(other.send(&approval).await.expect(200).hashed(), reply.hashed());
    let (reply, _) = server.refused(&mut other, &approve(&proposal), Code::ProposalRefused).await;
    assert_eq!(detail(&reply), "proposal-closed");
    // The proposing answer was sealed under the erased key.
    assert_eq!(one.send(&erase).await.code(), Code::Erased.name());
}

#[tokio::test]
async fn what_keeps_a_holder_is_named() {
    let server = shared(at_once).await;
    let mut issuer = server.party("issuer");
    let mut operators = [server.party("operator"), server.party("operator2")];
    let issued = draft(&natural()).issue(&mut issuer).await;
    let whom = issued.draft.holder();
    let erase = || propose("erase-holder", Some(whom));
    for operation in [None, Some(("03", None)), Some(("06", None)), Some(("05", Some("06")))] {
        if let Some((operation, to)) = operation {
            issuer.send(&issued.operation(operation, to)).await.expect(200);
        }
        let (reply, _) = server.refused(&mut operators[0], &erase(), Code::ErasureRefused).await;
        assert_eq!(reply.json["detail"], json!("license-in-force"), "{operation:?}");
    }
    issuer.send(&issued.operation("10", None)).await.expect(200);
    issuer.send(&issued.operation("05", Some("04"))).await.expect(200);

    let release = propose("release-hold", Some(whom));
    let (reply, _) = server.refused(&mut operators[0], &release, Code::ProposalRefused).await;
    assert_eq!(reply.json["detail"], json!("no-legal-hold"));
    // Proposed before the hold, approved after it.
    let before = operators[0].send(&erase()).await.expect(201).json["proposal"].clone();
    by_two(&mut operators, &propose("hold-holder", Some(whom))).await;
    let again = propose("hold-holder", Some(whom));
    let (reply, _) = server.refused(&mut operators[0], &again, Code::ProposalRefused).await;
    assert_eq!(reply.json["detail"], json!("legal-hold"));
    for (at, call) in [(0, erase()), (1, approve(&before))] {
        let (reply, _) = server.refused(&mut operators[at], &call, Code::ErasureRefused).await;
        assert_eq!(reply.json["detail"], json!("legal-hold"));
    }
    by_two(&mut operators, &release.key(&key())).await;

    // A license that appears after the proposal keeps the holder as well.
    let license = Draft { license: issued.draft.license.clone(), ..draft(&natural()) };
    let second = license.issue(&mut issuer).await;
    let (reply, _) = server.refused(&mut operators[1], &approve(&before), Code::ErasureRefused).await;
    assert_eq!(reply.json["detail"], json!("license-in-force"));
    issuer.send(&second.operation("05", Some("07"))).await.expect(200);
    operators[1].send(&approve(&before)).await.expect(200);
    let gone = issuer.send(&issued.retrieve(&["holderName"], None)).await;
    assert_eq!((gone.status, gone.code()), (410, Code::Erased.name()));
}

#[tokio::test]
async fn the_retention_period_keeps_a_holder() {
    let server = Setup::new().start().await;
    let issued = revoked(&mut server.party("issuer")).await;
    let erase = propose("erase-holder", Some(issued.draft.holder()));
    let (reply, _) = server.refused(&mut server.party("operator"), &erase, Code::ErasureRefused).await;
    assert_eq!(reply.json["detail"], json!("retention-period"));
}

#[tokio::test]
async fn the_erased_are_in_no_file_and_nothing_else_changes() {
    let mut server = at_once().start().await;
    let mut issuer = server.party("issuer");
    let mut portal = server.party("portal");
    let bank = server.party("bank");
    let operators = [server.party("operator"), server.party("operator2")];
    let kept = draft(&natural()).issue(&mut issuer).await;
    let issuing = draft(&natural()).call();
    let reply = issuer.send(&issuing).await.expect(201);
    let receipt_of = server.entry(&reply).await;
    let draft_of_gone = {
        let body: Value = serde_json::from_slice(&issuing.body).unwrap();
        body["license"].clone()
    };
    let number = draft_of_gone["holders"][0]["number"].as_str().unwrap().to_owned();
    let name = draft_of_gone["holders"][0]["name"].as_str().unwrap().to_owned();
    let code = draft_of_gone["holders"][0]["typeCode"].as_str().unwrap();
    let whom = HolderRef::new(code, &number).unwrap();
    let identifier = reply.json["identifier"].as_str().unwrap().to_owned();
    let named = json!({"identifier": identifier});
    let verify = Call::new(Route::Verify, &json!({"license": named, "use": use_context()}));
    let by_envelope = json!({"license": {"envelope": reply.json["envelope"]}, "use": use_context()});
    let by_envelope = Call::new(Route::Verify, &by_envelope);
    let face = Call::new(Route::Retrieve, &json!({"license": named, "mode": "face", "use": use_context()}));
    let revoke = json!({"identifier": identifier, "operation": "05", "to": "07", "reason": "测试"});
    issuer.send(&face).await.expect(200);
    let given = grant(&whom, &bank, tests::Target::Type(&natural()));
    let given = json!(portal.grant(&given).await);
    // A snapshot that still has the holder. Each start begins a segment.
    drop((issuer, portal, bank, operators));
    for _ in 0..SNAPSHOT_SEGMENTS {
        server.stop();
        server.start();
    }
    let mut issuer = server.party("issuer");
    let mut operators = [server.party("operator"), server.party("operator2")];
    issuer.send(&Call::new(Route::Transition, &revoke)).await.expect(200);
    eventually("a snapshot in the log", || async {
        (server.log_verify()["loggedDigests"] == 1).then_some(())
    })
    .await;

    // What a thief of the whole folder has before: the key that opens everything of the holder.
    let (epoch_key, wrapped) = (epoch_file(&server)[37..69].to_vec(), born(&server));
    let origin = server.config.origin.clone();
    let keys: Vec<_> =
        wrapped.iter().map(|(name, wrapped)| unwrap(&origin, &epoch_key, name, wrapped).unwrap()).collect();
    assert_eq!(keys.len(), 2);

    let answer = by_two(&mut operators, &propose("erase-holder", Some(&whom))).await;
    assert_eq!(answer["complete"], json!("after-next-rotation"));
    rotated(&server).await;

    let verdict = |reply: tests::Reply| {
        let reply = reply.expect(200);
        (reply.json["verdict"].clone(), reply.json["state"].clone(), reply.json["reasons"].clone())
    };
    let invalid = (json!("invalid"), json!("07"), json!(["revoked"]));
    let with_grant = json!({"license": named, "mode": "face", "grant": given, "use": use_context()});
    let with_grant = Call::new(Route::Retrieve, &with_grant);
    let everything = async |server: &Server| {
        let (mut issuer, mut portal) = (server.party("issuer"), server.party("portal"));
        let mut bank = server.party("bank");
        assert_eq!(verdict(issuer.send(&verify).await), invalid);
        assert_eq!(verdict(bank.send(&by_envelope).await), invalid);
        let (reply, _) = server.refused(&mut issuer, &face, Code::Erased).await;
        assert_eq!(reply.status, 410);
        server.refused(&mut bank, &with_grant, Code::Erased).await;
        assert_eq!(portal.send(&search(&whom)).await.expect(200).json["licenses"], json!([]));
        let own = issuer.send(&Call::new(Route::IssuedList, &json!({}))).await.expect(200);
        let own = own.json["licenses"].as_array().unwrap().clone();
        assert!(own.iter().any(|row| row["identifier"] == json!(kept.identifier)), "{own:?}");
        assert!(own.iter().all(|row| row["identifier"] != json!(identifier)), "{own:?}");
        // The identifier is never free again, for nobody.
        let same = Call::new(Route::Issue, &json!({"license": draft_of_gone}));
        server.refused(&mut issuer, &same, Code::IdentifierExists).await;
        assert_eq!(verdict(issuer.send(&kept.verify(None)).await).0, json!("valid"));
        issuer.send(&kept.retrieve(&["holderName"], None)).await.expect(200);
    };
    everything(&server).await;
    // The answer of the issue was sealed under the erased key.
    assert_eq!(issuer.send(&issuing).await.code(), Code::Erased.name());
    let old = server.entry(&reply).await;
    assert_eq!(old.receipt.leaf_hash, receipt_of.receipt.leaf_hash);
    assert_eq!(server.stop(), Some(0));

    let digest = server.log_verify()["stateDigest"].clone();
    for (words, from_snapshot) in
        [(&["rebuild", "--json", "--from-zero"][..], false), (&["rebuild", "--json"], true)]
    {
        for derived in ["store", "tiles"] {
            fs::remove_dir_all(server.folder.join(derived)).unwrap();
        }
        let rebuilt = server.run(words);
        let rebuilt: Value = serde_json::from_str(&rebuilt.stdout).unwrap();
        assert_eq!((&rebuilt["stateDigest"], rebuilt["snapshot"].is_u64()), (&digest, from_snapshot));
    }

    // No file holds plaintext or key, in the clear or under a seal that still opens.
    let now = epoch_file(&server);
    let mut found = files(&server.folder);
    found.push(("unsealed epoch".into(), now.clone()));
    for name in ["journal", "index", "log", "trust"] {
        let content = exchange::opening::key_folder(&server.config).unwrap().load(name).unwrap().to_vec();
        found.push((name.into(), content));
    }
    let is_snapshot = |path: &Path| path.extension().is_some_and(|end| end == "mxs");
    assert!(found.iter().any(|(path, _)| is_snapshot(path)), "a snapshot is among them");
    for (path, bytes) in &found {
        for secret in [number.as_bytes(), name.as_bytes(), &epoch_key, &keys[0], &keys[1]] {
            assert!(!contains(bytes, secret), "{}", path.display());
        }
    }
    let rows: Vec<_> = now[73..].chunks(79).collect();
    assert_eq!((now[33..37].to_vec(), rows.len()), (vec![0, 0, 0, 2], 1 + usize::from(keyed::NOBODIES)));
    let of = |name: &[u8; 19]| rows.iter().find(|row| row.starts_with(name));
    assert_eq!(of(&wrapped[1].0), None, "the erased have no row");
    let (name, row) = of(&wrapped[0].0).unwrap().split_at(19);
    assert_eq!(
        unwrap(&origin, &now[37..69], name, row).as_ref(),
        Some(&keys[0]),
        "who lives has the same key"
    );
    assert_eq!(unwrap(&origin, &now[37..69], &wrapped[1].0, &wrapped[1].1), None);

    server.start();
    everything(&server).await;
    let old = server.entry(&reply).await;
    assert_eq!(old.receipt.leaf_hash, receipt_of.receipt.leaf_hash);

    // The same person comes back as somebody new.
    let mut issuer = server.party("issuer");
    let mut back = draft_of_gone.clone();
    back["serial"] = json!(draft(&natural()).serial);
    let back = issuer.send(&Call::new(Route::Issue, &json!({"license": back}))).await.expect(201);
    let listed = server.party("portal").send(&search(&whom)).await.expect(200).json["licenses"].clone();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["identifier"], back.json["identifier"]);
    server.refused(&mut issuer, &face, Code::Erased).await;
    assert_eq!(server.stop(), Some(0));
    let labels: Vec<_> = born(&server).into_iter().map(|(name, _)| name[..16].to_vec()).collect();
    assert_eq!(labels.len(), 3);
    assert!(!labels[..2].contains(&labels[2]));
}

/// Joint holders: what concerns both goes on for the one who stays.
#[tokio::test]
async fn after_an_erasure_denials_traces_views_and_retries_go_on_for_the_others() {
    let server = at_once().config(|config| config.journal.index_root_seconds = 1).start().await;
    let [mut issuer, mut portal, mut bank, mut auditor] =
        ["issuer", "portal", "bank", "auditor"].map(|name| server.party(name));
    let mut operators = [server.party("operator"), server.party("operator2")];
    let alone = revoked(&mut issuer).await;
    let married = tests::all_types().into_iter().find(|kind| kind.min_holders == 2).unwrap();
    let joint = draft(&married);
    let [gone, stays] = [0, 1].map(|at| joint.license.holders[at].1.clone());
    let issuing = joint.call();
    let issued = issuer.send(&issuing).await.expect(201);
    let joint = Issued::new(joint, &issued.json);
    let looking = joint.verify(None).key(&key());
    let looked = issuer.send(&looking).await.expect(200);
    issuer.send(&joint.operation("05", Some("07"))).await.expect(200);
    for whom in [&gone, alone.draft.holder()] {
        by_two(&mut operators, &propose("erase-holder", Some(whom))).await;
    }
    rotated(&server).await;
    let erased_at = server.size().await;

    // An answer sealed for both has a key left.
    assert_eq!(issuer.send(&issuing).await.expect(201).hashed(), issued.hashed());
    assert_eq!(issuer.send(&looking).await.expect(200).hashed(), looked.hashed());
    // Denials as they always were: about nobody who lives, and about one of two.
    let trace =
        |whom: &HolderRef| Call::new(Route::Trace, &json!({"holder": holder(whom), "use": use_context()}));
    for (call, code) in [
        (alone.verify(None), Code::NotPermitted),
        (search(alone.draft.holder()), Code::NotPermitted),
        (trace(alone.draft.holder()), Code::WrongRole),
    ] {
        server.refused(&mut bank, &call, code).await;
    }
    let (_, denied) = server.refused(&mut bank, &joint.verify(None), Code::NotPermitted).await;
    server.refused(&mut issuer, &alone.draft.call(), Code::IdentifierExists).await;

    // Holders who stay have the whole of their trace, the erased none, as somebody nobody knows.
    let wanted = [issued.receipt().index, looked.receipt().index, denied.receipt.index];
    eventually("an index root", || async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let page = portal.again().send(&trace(&stays)).await.expect(200).json;
        let shown: Vec<_> =
            page["entries"].as_array()?.iter().map(|entry| entry["entry"]["index"].as_u64()).collect();
        wanted.iter().all(|index| shown.contains(&Some(*index))).then_some(())
    })
    .await;
    for whom in [alone.draft.holder(), &gone, draft(&natural()).holder()] {
        let page = portal.send(&trace(whom)).await.expect(200).json;
        assert_eq!(page["entries"], json!([]));
    }

    // An auditor still finds that something happened, and no more of the erased.
    let query = async |auditor: &mut Party, filters: Value| {
        let mut body = json!({"purpose": "测试", "userName": "审计员"});
        body.as_object_mut().unwrap().extend(filters.as_object().unwrap().clone());
        auditor.send(&Call::new(Route::LogQuery, &body)).await.expect(200).json["entries"].clone()
    };
    let none = query(&mut auditor, json!({"holder": holder(alone.draft.holder())})).await;
    assert_eq!(none, json!([]));
    let all = query(&mut auditor, json!({"limit": 100})).await;
    let find = |index: u64| {
        all.as_array()
            .unwrap()
            .iter()
            .find(|entry| entry["entry"]["index"] == index)
            .unwrap_or_else(|| panic!("{index}"))
    };
    let told = &find(denied.receipt.index)["told"];
    // The one who is left, and nobody in place of the other.
    assert!(told.as_array().unwrap().len() == 2 && told[0].is_object(), "{told}");
    let told = &find(issued.receipt().index)["told"];
    assert_eq!(told.as_array().unwrap().len(), 2);
    // What was asked since is the askers' own, and sealed for nobody.
    for entry in all.as_array().unwrap() {
        let old = entry["entry"]["index"].as_u64().unwrap() < erased_at;
        for secret in [alone.draft.holder().number(), &alone.identifier] {
            assert!(!old || !entry.to_string().contains(secret), "{entry}");
        }
    }
}

/// The plaintext of every sealed part that still opens, and what the state part says of each entry, with its index.
fn opened(ledger: &Ledger) -> Vec<(u64, Vec<u8>)> {
    let mut found = Vec::new();
    let visited = ledger.visit_entries(0, u64::MAX, |entry| {
        let index = entry.committed.index;
        found.push((index, entry.committed.open));
        found.push((index, entry.record_bytes));
        found.push((index, entry.completion));
        found.extend(entry.parts.iter().filter_map(|part| Some((index, ledger.open_subject(*part).ok()?))));
        true
    });
    visited.unwrap();
    found
}

/// An erased holder was named in what concerns others too, and by those who knew of nobody. Nothing that still opens has
/// the number.
#[tokio::test]
async fn a_number_stands_in_nothing_that_is_kept_for_others() {
    let mut server = at_once().start().await;
    let [mut issuer, mut portal, mut bank, mut auditor] =
        ["issuer", "portal", "bank", "auditor"].map(|name| server.party(name));
    let mut operators = [server.party("operator"), server.party("operator2")];
    let mine = draft(&natural());
    let me = mine.holder().clone();
    let theirs = draft(&natural()).issue(&mut issuer).await;
    let them = theirs.draft.holder().clone();
    // Some certificates have the holder's number for theirs.
    let number = |of: &HolderRef| {
        json!({
            "typeCode": natural().code.as_str(), "certificateNumber": of.number(), "holder": holder(of),
        })
    };
    let trace_of = |of: &HolderRef, by: Option<&HolderRef>| {
        let mut body = json!({"holder": holder(of), "use": use_context()});
        if let Some(by) = by {
            body["agent"] = holder(by);
        }
        Call::new(Route::Trace, &body)
    };
    let query = |filters: Value| {
        let mut body = json!({"purpose": "测试", "userName": "审计员"});
        body.as_object_mut().unwrap().extend(filters.as_object().unwrap().clone());
        Call::new(Route::LogQuery, &body)
    };
    let link = |of: &HolderRef, agent: &HolderRef| {
        let until = tests::in_one_hour();
        let body = json!({"holder": holder(of), "agent": holder(agent), "kind": "agent", "until": until});
        Call::new(Route::LinkMake, &body)
    };
    let unlink = |of: &HolderRef, agent: &HolderRef| {
        let body = json!({"holder": holder(of), "agent": holder(agent), "reason": "测试终止"});
        Call::new(Route::LinkEnd, &body)
    };
    let retrieve = |license: Value, vouched: &HolderRef| {
        let body =
            json!({"license": license, "mode": "face", "holder": holder(vouched), "use": use_context()});
        Call::new(Route::Retrieve, &body)
    };
    let verify = |license: Value, vouched: &HolderRef| {
        let body = json!({"license": license, "holder": holder(vouched), "use": use_context()});
        Call::new(Route::Verify, &body)
    };

    // While the log knows nobody of that number; a link makes somebody known.
    bank.send(&search(&me)).await.expect(403);
    portal.send(&search(&me)).await.expect(200);
    portal.send(&trace_of(&me, None).key(&key())).await.expect(200);
    portal.send(&trace_of(&them, Some(&me))).await.expect(403);
    bank.send(&verify(number(&me), &me)).await.expect(403);
    portal.send(&retrieve(number(&me), &them)).await.expect(403);
    portal.send(&link(&me, &them)).await.expect(403);
    portal.send(&unlink(&them, &me)).await.expect(422);
    auditor.send(&query(json!({"holder": holder(&me)}))).await.expect(200);
    operators[0].send(&propose("erase-holder", Some(&me))).await.expect(403);
    portal.send(&link(&them, &me)).await.expect(201);
    portal.send(&trace_of(&them, Some(&me)).key(&key())).await.expect(200);
    portal.send(&unlink(&them, &me)).await.expect(200);

    // While the log knows the person: as agent, as holder, named beside others, shown beside others.
    let mine = mine.issue(&mut issuer).await;
    let married = tests::all_types().into_iter().find(|kind| kind.min_holders == 2).unwrap();
    let joint = draft(&married).of_holder(&me);
    let stays = joint.license.holders[1].1.clone();
    let with_body = issuer.send(&joint.call()).await.expect(201);
    let joint = Issued::new(joint, &with_body.json);
    let mut bodies = vec![with_body.receipt().index];
    for (of, by) in [(&them, &me), (&me, &them), (&stays, &me)] {
        portal.send(&link(of, by)).await.expect(201);
        portal.send(&trace_of(of, Some(by))).await.expect(200);
    }
    portal.send(&unlink(&stays, &me)).await.expect(200);
    portal.send(&trace_of(&stays, Some(&me))).await.expect(403);
    for license in [theirs.named(), number(&them), joint.named(), number(&me)] {
        let reply = portal.send(&retrieve(license.clone(), &me).key(&key())).await;
        // The record of both, which is theirs to see.
        bodies.extend((reply.status == 200).then(|| reply.receipt().index));
        portal.send(&verify(license.clone(), &me)).await;
        bank.send(&verify(license, &me)).await.expect(403);
    }
    let by_number = json!({
        "typeCode": married.code.as_str(), "holder": holder(&me),
        "certificateNumber": joint.draft.license.certificate_number,
    });
    bodies.push(portal.send(&retrieve(by_number.clone(), &me).key(&key())).await.expect(200).receipt().index);
    bank.send(&verify(by_number.clone(), &me)).await.expect(403);
    bank.send(&search(&me)).await.expect(403);
    portal.send(&search(&me).key(&key())).await.expect(200);
    bank.send(&Call::new(Route::GrantCreate, &grant(&me, &bank, tests::Target::License(&theirs))))
        .await
        .expect(403);
    portal
        .send(&Call::new(Route::GrantCreate, &grant(&me, &bank, tests::Target::License(&theirs))))
        .await
        .expect(403);
    server.proof(portal.send(&search(&them)).await.expect(200).receipt().index).await;
    for filters in [json!({"holder": holder(&me)}), json!({"holder": holder(&me), "code": "quota-spent"})] {
        auditor.send(&query(filters)).await.expect(200);
    }
    operators[0].send(&propose("release-hold", Some(&me))).await.expect(409);
    for license in [&mine, &joint] {
        issuer.send(&license.operation("05", Some("07"))).await.expect(200);
    }
    let erased = by_two(&mut operators, &propose("erase-holder", Some(&me))).await;
    assert_eq!(erased["state"], json!("approved"));
    rotated(&server).await;
    // What is sealed for those who stay goes on opening.
    let size = server.size().await;

    // The same person comes back, under a new label; no link of the old one holds.
    let back = Draft { license: mine.draft.license.clone(), ..draft(&natural()) };
    back.issue(&mut issuer).await;
    for (of, by) in [(&them, &me), (&me, &them)] {
        let refused = portal.send(&trace_of(of, Some(by))).await.expect(403);
        assert_eq!(refused.code(), Code::NotPermitted.name());
        portal.send(&unlink(of, by)).await.expect(422);
    }
    portal.send(&link(&them, &me)).await.expect(201);
    portal.send(&trace_of(&them, Some(&me))).await.expect(200);
    assert_eq!(server.stop(), Some(0));

    let later = server.later(0).await;
    let ledger = later.gateway.ledger();
    let links = ledger.state().documents(DocumentKind::Link).into_iter();
    let ended = links.map(|(_, link)| serde_json::from_slice::<Value>(&link.value).unwrap()["ended"] == true);
    let mut ended: Vec<bool> = ended.collect();
    ended.sort_unstable();
    assert_eq!(ended, [false, true, true], "the one made anew lives");
    let found = opened(ledger);
    assert!(found.iter().any(|(_, bytes)| contains(bytes, "测试终止".as_bytes())), "parts do open");
    let mut with_bodies = 0;
    for (index, bytes) in found.iter().filter(|(index, _)| *index < size) {
        // A body that is shared is gone when the last of its holders is (design, section 4), and so is an answer with it.
        if bodies.contains(index) {
            with_bodies += usize::from(contains(bytes, me.number().as_bytes()));
            let Ok(subject) = flatbuffers::root::<SubjectRecord<'_>>(bytes) else { continue };
            let told = subject.told().map_or(&[][..], |told| told.bytes());
            assert!(!contains(told, me.number().as_bytes()), "entry {index}");
        } else {
            assert!(!contains(bytes, me.number().as_bytes()), "entry {index}");
        }
    }
    assert_eq!((with_bodies, bodies.len()), (3, 3), "the search finds a number");
    later.close().await;
}

/// Records of several holders, all or some of them erased, and uses whose delay ends after the erasure.
#[tokio::test]
async fn what_was_shared_or_delayed_is_told_to_those_who_stay() {
    let mut server = at_once()
        .config(|config| config.journal.index_root_seconds = 1)
        .participant("police", |police| police.delays = tests::delay_class("investigation", 30))
        .start()
        .await;
    let [mut issuer, mut portal, mut bank, mut police, mut auditor] =
        ["issuer", "portal", "bank", "police", "auditor"].map(|name| server.party(name));
    let mut operators = [server.party("operator"), server.party("operator2")];
    let married = tests::all_types().into_iter().find(|kind| kind.min_holders == 2).unwrap();
    let alone = draft(&natural()).issue(&mut issuer).await;
    let half = draft(&married).issue(&mut issuer).await;
    let both = draft(&married);
    let holders = [0, 1].map(|at| both.license.holders[at].1.clone());
    let issuing = both.call();
    let issued = issuer.send(&issuing).await.expect(201);
    let both = Issued::new(both, &issued.json);
    let [gone, stays] = [0, 1].map(|at| half.draft.license.holders[at].1.clone());
    let mut delayed = Vec::new();
    for license in [&alone, &half, &both] {
        let call = license.retrieve(&["holderName"], None);
        let mut body: Value = serde_json::from_slice(&call.body).unwrap();
        body["use"]["delay"] = json!("investigation");
        let reply = police.send(&Call::new(Route::Retrieve, &body)).await.expect(403);
        delayed.push(reply.receipt().index);
        issuer.send(&license.operation("05", Some("07"))).await.expect(200);
    }
    let erased = [alone.draft.holder(), &gone, &holders[0], &holders[1]];
    for whom in erased {
        by_two(&mut operators, &propose("erase-holder", Some(whom))).await;
    }
    rotated(&server).await;
    let erased_at = server.size().await;

    // All its holders are gone, and so is the record; what stands in the log of it stays.
    let read = both.retrieve(&["holderName"], None);
    let (reply, _) = server.refused(&mut issuer, &read, Code::Erased).await;
    assert_eq!(reply.status, 410);
    server.refused(&mut issuer, &issuing, Code::Erased).await;
    let verified = issuer.send(&both.verify(None)).await.expect(200);
    assert_eq!((&verified.json["verdict"], &verified.json["state"]), (&json!("invalid"), &json!("07")));
    server.refused(&mut bank, &both.verify(None), Code::NotPermitted).await;
    // One of them stays, and so does the record.
    let kept = issuer.send(&half.retrieve(&["certificateNumber"], None)).await.expect(200);
    assert!(kept.json["fields"]["certificateNumber"].is_string());
    for whom in erased {
        for before in [None, Some(issued.receipt().index), Some(delayed[0])] {
            let mut body = json!({"holder": holder(whom), "use": use_context()});
            body["before"] = before.map_or(Value::Null, |before| json!(before));
            let page = portal.send(&Call::new(Route::Trace, &body)).await.expect(200).json;
            assert_eq!((&page["label"], &page["entries"]), (&Value::Null, &json!([])));
        }
    }
    let audited = |pages: &[Bytes], server: &Server| {
        let report = verify_audit(&pages.join(&b'\n'), &server.trust, None, tests::now_ms() / 1_000);
        assert_eq!(report.verdict, Verdict::Valid, "{:?}", report.reasons);
        let text = String::from_utf8(pages.concat()).unwrap();
        for whom in erased {
            assert!(!text.contains(whom.number()));
        }
    };
    let ask = |from: u64, to: &str| {
        let body = json!({"purpose": "测试", "userName": "审计员", "fromIndex": from, "to": to});
        Call::new(Route::LogQuery, &body)
    };
    server.proof(kept.receipt().index).await;
    let now = schemas::date::rfc3339(tests::now_ms());
    let (mut pages, mut from) = (Vec::new(), Some(0));
    while let Some(next) = from {
        let reply = auditor.send(&ask(next, &now)).await.expect(200);
        from = reply.json["next"].as_u64();
        pages.push(reply.body);
    }
    audited(&pages, &server);
    let shown: Vec<Value> = pages
        .iter()
        .flat_map(|page| {
            serde_json::from_slice::<Value>(page).unwrap()["entries"].as_array().unwrap().clone()
        })
        .collect();
    let told = |index: u64| {
        let entry = shown.iter().find(|entry| entry["entry"]["index"] == index);
        entry.unwrap_or_else(|| panic!("{index}"))["told"].clone()
    };
    assert_eq!(told(delayed[0]), json!([null]));
    assert_eq!(told(delayed[2]), json!([null, null]));
    assert_eq!(told(issued.receipt().index), json!([null, null]));
    assert!(told(delayed[1])[1].is_object(), "the part opens for the one who stays");

    // A month later: told to those who stay, and to nobody else.
    assert_eq!(server.stop(), Some(0));
    let later = server.later(31 * DAY_MS).await;
    let ledger = later.gateway.ledger().clone();
    let label = ledger.state().holder(&keyed::holder_key(ledger.keyed(), &stays)).unwrap().label;
    let due = ledger.state().due(u64::MAX);
    // The use, and the views of it.
    assert_eq!(due[0].index, delayed[1]);
    assert!(due.iter().all(|due| due.holders == [label]), "{due:?}");
    later.gateway.release_delayed().await;
    assert!(ledger.state().due(u64::MAX).is_empty());
    let trace = Call::new(Route::Trace, &json!({"holder": holder(&stays), "use": use_context()}));
    let portal = server.organisation("portal");
    let report = eventually("an index root", || async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let reply = later.ask(portal, &trace).await.expect(200);
        let report = verify_trace(&reply.body, &server.trust, None, tests::now_ms() / 1_000);
        let entries = reply.json["entries"].as_array().unwrap().clone();
        let told = |entry: &Value| entry["released"][0]["entry"]["index"] == delayed[1];
        (report.verdict == Verdict::Valid && entries.iter().any(told)).then_some(report)
    })
    .await;
    assert!(report.pages.unwrap().completeness.is_some());
    for whom in erased {
        let body = json!({"holder": holder(whom), "use": use_context()});
        let page = later.ask(portal, &Call::new(Route::Trace, &body)).await.expect(200).json;
        assert_eq!(page["entries"], json!([]));
    }
    let end = schemas::date::rfc3339(tests::now_ms() + 60 * DAY_MS);
    let reply = later.ask(server.organisation("auditor"), &ask(erased_at, &end)).await.expect(200);
    let entries = reply.json["entries"].as_array().unwrap();
    assert!(entries.iter().any(|entry| entry["entry"]["route"] == "system" && entry["told"][0].is_object()));
    drop(ledger);
    later.close().await;
}

#[tokio::test]
async fn a_proposal_may_be_approved_for_seven_days() {
    let mut server = at_once().start().await;
    let mut operator = server.party("operator");
    let mut proposals = Vec::new();
    for _ in 0..2 {
        let call = propose("rotate-epoch", None);
        proposals.push(operator.send(&call).await.expect(201).json["proposal"].clone());
    }
    assert_eq!(server.stop(), Some(0));
    let other = server.organisation("operator2");
    for (ms, proposal, status) in
        [(7 * DAY_MS - HOUR_MS, &proposals[0], 200), (7 * DAY_MS + HOUR_MS, &proposals[1], 409)]
    {
        let later = server.later(ms).await;
        let reply = later.ask(other, &approve(proposal)).await.expect(status);
        if status != 200 {
            assert_eq!(reply.code(), Code::ProposalRefused.name());
            assert_eq!(reply.json["detail"], json!("proposal-closed"));
        }
        later.close().await;
    }
}

#[tokio::test]
async fn a_process_that_dies_at_any_step_of_a_change_is_finished_by_the_next() {
    for (step, epochs) in [
        // Two operators asked for it, so the next process makes it from the beginning.
        ("rotation-prepared", (2, 1)),
        ("rotation-begun", (2, 1)),
        ("rotation-replaced", (2, 1)),
        ("rotation-wiped", (2, 1)),
    ] {
        let mut server = at_once().env("MIAOXIANG_FAILPOINT", step).start().await;
        let mut issuer = server.party("issuer");
        let issued = draft(&natural()).issue(&mut issuer).await;
        let gone = revoked(&mut issuer).await;
        let mut operators = [server.party("operator"), server.party("operator2")];
        by_two(&mut operators, &propose("erase-holder", Some(gone.draft.holder()))).await;
        let [proposed, _] = rotate_now(&server);
        assert_eq!(proposed.status, Some(0), "{proposed:?}");
        assert_eq!(server.exit_status(), None, "{step}: killed by its own signal");

        server.set_env("MIAOXIANG_FAILPOINT", None);
        server.start();
        eventually(step, || async { (epoch(&server).await == epochs).then_some(()) }).await;
        let mut issuer = server.party("issuer");
        issuer.send(&issued.retrieve(&["holderName"], None)).await.expect(200);
        let (reply, _) =
            server.refused(&mut issuer, &gone.retrieve(&["holderName"], None), Code::Erased).await;
        assert_eq!(reply.status, 410);
        assert!(!server.folder.join("keys/epoch.next").exists(), "{step}");
        let another: Draft = draft(&natural());
        let another = another.issue(&mut issuer).await;
        rotated(&server).await;
        for license in [&issued, &another] {
            issuer.send(&license.retrieve(&["holderName"], None)).await.expect(200);
        }
        assert_eq!(server.stop(), Some(0));
        server.log_verify();
        let left: Vec<_> = files(&server.folder.join("keys")).into_iter().map(|(path, _)| path).collect();
        let left = left.iter().any(|path| path.extension().is_some_and(|end| end == "new"));
        assert!(!left, "{step}: a killed writer's file is left");
    }
}

#[tokio::test]
async fn a_key_file_of_an_earlier_epoch_or_of_another_log_is_refused_and_left_alone() {
    let mut server = Setup::new().start().await;
    draft(&natural()).issue(&mut server.party("issuer")).await;
    let path = server.folder.join("keys/epoch");
    let old = fs::read(&path).unwrap();
    rotated(&server).await;
    assert_eq!(server.stop(), Some(0));
    let present = fs::read(&path).unwrap();
    let folder = exchange::opening::key_folder(&server.config).unwrap();
    let other = ledger::first_epoch("log.example/other");
    for (why, put) in [("older than the journal", None), ("of another log", Some(other))] {
        match put {
            Some(content) => folder.replace("epoch", &content).unwrap(),
            None => fs::write(&path, &old).unwrap(),
        }
        let before: Vec<_> = ["journal", "keys"].map(|name| files(&server.folder.join(name))).concat();
        let refused = server.run(&["serve", "--development", "--listen", "127.0.0.1:0"]);
        assert_eq!(refused.status, Some(65), "{refused:?}");
        assert!(refused.stderr.lines().last().is_some_and(|line| line.contains(why)), "{refused:?}");
        let after: Vec<_> = ["journal", "keys"].map(|name| files(&server.folder.join(name))).concat();
        assert!(before.iter().all(|file| after.contains(file)) && before.len() == after.len());
    }
    fs::write(&path, &present).unwrap();
    server.start();
    assert_eq!(epoch(&server).await, (2, 1));
}
