//! Killed at a chosen moment: a retry makes nothing twice, and quickstart continues. Kills at any moment under load are
//! a rig (`tests/rigs`).

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the last line says which kill it was")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use ring::rand::{SecureRandom as _, SystemRandom};
use schemas::codes::Code;
use serde_json::{Value, json};
use tests::{Call, Finished, Issued, Setup, Target, command, draft, grant, key, natural};

fn random_below(bound: u64) -> u64 {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).unwrap();
    u64::from_be_bytes(bytes) % bound
}

/// Sends a request that the server dies under between its sync and its answer; then starts it again.
async fn lost_answer(server: &mut tests::Server, name: &str, call: &Call) {
    server.set_env("MIAOXIANG_FAILPOINT", Some("after-sync-abort:1"));
    server.start();
    let lost = server.party(name).try_send(call).await;
    assert!(lost.is_err(), "an answer left a process that died before it: {lost:?}");
    assert_eq!(server.exit_status(), None, "aborted");
    server.set_env("MIAOXIANG_FAILPOINT", None);
    server.log_verify();
    server.start();
}

#[tokio::test]
async fn a_retry_after_a_kill_between_sync_and_release_is_one_license_one_index() {
    let mut server = Setup::new().prepare().await;
    server.start();
    let size = server.size().await;
    assert_eq!(server.stop(), Some(0));
    let draft = draft(&natural());
    let call = draft.call().without("receipt");
    lost_answer(&mut server, "issuer", &call).await;
    assert_eq!(server.size().await, size + 1, "the entry is durable, though nobody was answered");
    let mut issuer = server.party("issuer");
    let first = issuer.send(&call).await.expect(201);
    let entry = server.entry(&first).await;
    assert_eq!(entry.open.index, size);
    let second = issuer.send(&call).await.expect(201);
    assert_eq!(first.body, second.body);
    assert_eq!(server.size().await, size + 1, "one license, one index");
    let issued = Issued::new(draft.clone(), &first.json);
    let (reply, _) = server.permitted(&mut issuer, &issued.verify(None)).await;
    assert_eq!(reply.json["verdict"], json!("valid"));
    server.refused(&mut issuer, &draft.call(), Code::IdentifierExists).await;
}

#[tokio::test]
async fn a_use_whose_answer_was_lost_counts_once() {
    let mut server = Setup::new().start().await;
    let issued = draft(&natural()).issue(&mut server.party("issuer")).await;
    let mut body = grant(issued.draft.holder(), &server.party("bank"), Target::License(&issued));
    body["maxUses"] = json!(2);
    let right = server.party("portal").grant(&body).await;
    let size = server.size().await;
    assert_eq!(server.stop(), Some(0));
    let call = issued.retrieve(&["holderName"], Some(&right)).key(&key()).without("receipt");
    lost_answer(&mut server, "bank", &call).await;
    let mut bank = server.party("bank");
    let reply = bank.send(&call).await.expect(200);
    assert_eq!(server.entry(&reply).await.open.index, size);
    assert_eq!(server.size().await, size + 1);
    server.permitted(&mut bank, &issued.verify(Some(&right)).in_new_case()).await;
    server.refused(&mut bank, &issued.verify(Some(&right)).in_new_case(), Code::NotPermitted).await;
}

/// `exchange quickstart` on a folder, at ports of its own on all addresses: it reaches itself by a name of its certificate.
fn quickstart(folder: &Path) -> Child {
    let mut command = command();
    command.args(["quickstart", "--once", "--listen", "0.0.0.0:0", "--data"]).arg(folder);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn finished(mut child: Child) -> Finished {
    let mut stderr = child.stderr.take().unwrap();
    let errors = std::thread::spawn(move || {
        let mut text = Vec::new();
        stderr.read_to_end(&mut text).map(|_| String::from_utf8_lossy(&text).into_owned())
    });
    let mut stdout = String::new();
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    let status = child.wait().unwrap().code();
    Finished { status, stdout, stderr: errors.join().unwrap().unwrap() }
}

/// The counts of the last line.
fn counts(finished: &Finished) -> Vec<(String, u64)> {
    assert_eq!(finished.status, Some(0), "{finished:?}");
    let last = finished.stdout.lines().last().unwrap();
    let words = last.strip_prefix("quickstart ok ").unwrap_or_else(|| panic!("{last}"));
    words
        .split(' ')
        .map(|word| word.split_once('=').unwrap())
        .map(|(name, count)| (name.to_owned(), count.parse().unwrap()))
        .collect()
}

fn log_verify(folder: &Path) -> Value {
    let output = command().args(["log", "verify", "--json", "--data"]).arg(folder).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn quickstart_completes_and_continues_however_often_it_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut size = 0;
    // Killed while it makes the folder, while it registers, and in the midst of its round.
    for round in 0..5 {
        let mut child = quickstart(&data);
        let mut stderr = child.stderr.take().unwrap();
        let drain = std::thread::spawn(move || {
            let _ = stderr.read_to_end(&mut Vec::new());
        });
        if round > 1 {
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            assert!(lines.any(|line| line.unwrap().trim_start().starts_with("log ")), "no round began");
        }
        let pause = random_below(800);
        println!("round {round}: killed after {pause} ms");
        std::thread::sleep(Duration::from_millis(pause));
        let _ = child.kill();
        let _ = child.wait();
        drain.join().unwrap();
        if data.join("journal").exists() && data.join("keys/epoch").exists() {
            let now = log_verify(&data)["size"].as_u64().unwrap();
            assert!(now >= size, "the log went from {size} to {now}");
            size = now;
        }
    }
    for _ in 0..2 {
        let finished = finished(quickstart(&data));
        let counts = counts(&finished);
        let count = |name: &str| counts.iter().find(|(have, _)| have == name).unwrap().1;
        let names: Vec<&str> = counts.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["issued", "retrieved", "verified", "refused", "receipts", "log_size"]);
        assert!(count("issued") >= 1_000, "{counts:?}");
        assert!(count("retrieved") > 0 && count("verified") > 0 && count("refused") > 0);
        assert!(count("receipts") > count("issued"));
        assert!(count("log_size") >= size + count("receipts"), "{counts:?} after {size}");
        size = log_verify(&data)["size"].as_u64().unwrap();
        assert_eq!(size, count("log_size"));
    }
}
