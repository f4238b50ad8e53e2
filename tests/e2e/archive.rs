//! Snapshots, archiving, checking and rebuilding a journal from the command line, beside a serving gateway.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use schemas::codes::Code;
use schemas::routes::Route;
use serde_json::{Value, json};
use tests::{Call, Server, Setup, draft, key, legal, use_context};

/// Longest wait for something that comes by itself.
const HANG: Duration = Duration::from_secs(60);
/// Closed segments after which a snapshot is made.
const SNAPSHOT_SEGMENTS: usize = 10;

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < HANG, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn snapshots(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder.join("snapshots")) else { return Vec::new() };
    let mut found: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|end| end == "mxs"));
    found
}

fn verdict(server: &Server) -> (Option<i32>, Value) {
    let finished = server.run(&["log", "verify", "--json"]);
    (finished.status, serde_json::from_str(&finished.stdout).unwrap())
}

/// A gateway with a license and a use of it in its first segments, a snapshot behind many more, and an archive folder.
async fn grown(engine: exchange::config::Engine) -> (Server, tests::Issued, Call) {
    let mut server = Setup::new()
        .config(move |config| {
            config.journal.archive = Some("archive".into());
            config.store.engine = engine;
        })
        .start()
        .await;
    let license = draft(&legal()).issue(&mut server.party("issuer")).await;
    let used = license.verify(None).key(&key());
    server.permitted(&mut server.party("issuer"), &used).await;
    // Each start begins a segment.
    for _ in 0..SNAPSHOT_SEGMENTS {
        server.stop();
        server.start();
    }
    draft(&legal()).issue(&mut server.party("issuer")).await;
    until("a snapshot", || !snapshots(&server.folder).is_empty());
    until("its digest in the log", || server.log_verify()["loggedDigests"] == 1);
    (server, license, used)
}

#[tokio::test]
async fn what_is_archived_away_is_unknown_and_never_not_found() {
    let (mut server, license, used) = grown(exchange::config::Engine::Sled).await;
    let refused = server.run(&["archive", "--before", "1000"]);
    assert_eq!(refused.status, Some(64), "{refused:?}");
    let limit = SNAPSHOT_SEGMENTS.to_string();
    let done = server.run(&["archive", "--before", &limit, "--json"]);
    assert_eq!(done.status, Some(0), "{done:?}");
    let done: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(done["segments"], SNAPSHOT_SEGMENTS);

    let (archive, away) = (server.folder.join("archive"), server.folder.join("away"));
    let number = license.draft.value()["certificateNumber"].clone();
    let body = json!({
        "license": license.named(), "expect": {"certificateNumber": number}, "use": use_context(),
    });
    let verify = Call::new(Route::Verify, &body);
    let retrieve = license.retrieve(&["certificateNumber"], None);
    // Read back from the archive.
    let mut issuer = server.party("issuer");
    let (reply, _) = server.permitted(&mut issuer, &verify).await;
    assert_eq!((&reply.json["verdict"], &reply.json["matches"]), (&json!("valid"), &json!(true)));
    server.permitted(&mut issuer, &retrieve).await;

    // Away. A process that has read it keeps it open, so a new one is asked.
    fs::rename(&archive, &away).unwrap();
    server.stop();
    server.start();
    let mut issuer = server.party("issuer");
    let (reply, _) = server.permitted(&mut issuer, &verify).await;
    assert_eq!(reply.json["verdict"], "unknown", "{}", reply.json);
    assert_eq!(reply.json["reasons"], json!(["record-unavailable"]));
    assert_eq!(reply.json.get("matches").cloned().unwrap_or_default(), Value::Null);
    // Who has the right is told, and so is the log; also where the log already says that the answer was given.
    for call in [&retrieve, &used] {
        let (reply, _) = server.refused(&mut issuer, call, Code::RecordUnavailable).await;
        assert_eq!((reply.status, reply.retry_after.is_some()), (503, false));
    }
    // What needs no record is answered all the same.
    let (reply, _) = server.permitted(&mut issuer, &license.verify(None)).await;
    assert_eq!(reply.json["verdict"], "valid");
    let (status, report) = verdict(&server);
    assert_eq!((status, &report["verdict"]), (Some(2), &json!("unknown")), "{report}");
    assert_eq!(server.run(&["log", "verify"]).status, Some(2));

    // Back, without a restart.
    fs::rename(&away, &archive).unwrap();
    let (reply, _) = server.permitted(&mut issuer, &verify).await;
    assert_eq!((&reply.json["verdict"], &reply.json["matches"]), (&json!("valid"), &json!(true)));
    server.permitted(&mut issuer, &retrieve).await;
    issuer.send(&used).await.expect(200);
    server.log_verify();
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_refused_in_the_log_too() {
    let mut server = Setup::new().start().await;
    let license = draft(&legal()).issue(&mut server.party("issuer")).await;
    let used = license.verify(None).key(&key());
    server.permitted(&mut server.party("issuer"), &used).await;
    server.stop();
    server.start();
    let path = server.folder.join("journal/0000000001.mxj");
    let bad: Vec<u8> = fs::read(&path).unwrap().iter().map(|byte| byte ^ 1).collect();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &bad, 0).unwrap();
    let mut issuer = server.party("issuer");
    for call in [&license.retrieve(&["certificateNumber"], None), &used] {
        let (reply, _) = server.refused(&mut issuer, call, Code::RecordUnavailable).await;
        assert_eq!(reply.status, 503);
    }
    let (reply, _) = server.permitted(&mut issuer, &license.verify(None)).await;
    assert_eq!(reply.json["verdict"], "valid");
}

#[tokio::test]
async fn one_flipped_bit_is_found_beside_a_serving_gateway_and_by_its_scrub() {
    let mut server = Setup::new().start().await;
    draft(&legal()).issue(&mut server.party("issuer")).await;
    server.stop();
    server.start();
    let path = server.folder.join("journal/0000000001.mxj");
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    let report = server.log_verify();
    assert_eq!((&report["image"], &report["tornTail"]), (&json!("in-use"), &json!(false)), "{report}");
    fs::write(&path, &bad).unwrap();
    let (status, report) = verdict(&server);
    assert_eq!((status, &report["verdict"]), (Some(1), &json!("invalid")), "{report}");
    // The gateway serves on; its next process scrubs what its start does not read.
    server.stop();
    server.start();
    let began = Instant::now();
    while server.admin("/health").await.body.as_ref() == b"ok\n" {
        assert!(began.elapsed() < HANG, "the scrub finds nothing");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(server.metric("miaoxiang_scrub_damaged_segments", &[]).await, 1);
    assert_eq!(server.admin("/ready").await.status, 200);
    assert!(server.stderr().contains("the journal is damaged"));
    draft(&legal()).issue(&mut server.party("issuer")).await;
    fs::write(&path, &good).unwrap();
    server.log_verify();
}

#[tokio::test]
async fn rebuilding_from_a_snapshot_and_from_zero_end_in_the_same_state() {
    let (mut server, license, _) = grown(exchange::config::Engine::Fjall).await;
    server.stop();
    let report = server.log_verify();
    assert_eq!((&report["image"], &report["snapshots"]), (&json!("good"), &json!(1)), "{report}");
    let rebuild = |words: &[&str]| -> Value {
        let finished = server.run(&[&["rebuild", "--json"], words].concat());
        assert_eq!(finished.status, Some(0), "{finished:?}");
        serde_json::from_str(&finished.stdout).unwrap()
    };
    let from_snapshot = rebuild(&[]);
    assert!(from_snapshot["snapshot"].as_u64().is_some(), "{from_snapshot}");
    let from_zero = rebuild(&["--from-zero"]);
    assert_eq!(from_zero["snapshot"], Value::Null);
    assert_eq!(from_zero["replayed"], from_zero["size"]);
    for rebuilt in [&from_snapshot, &from_zero] {
        assert_eq!(rebuilt["stateDigest"], report["stateDigest"]);
    }

    // An image that no engine can read costs a child and a replay, and the gateway says so.
    let store = server.folder.join("store/fjall");
    for entry in fs::read_dir(&store).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::write(path, [0xa5; 5000]).unwrap();
        }
    }
    server.start();
    assert!(server.stderr().contains("the restart image is moved aside"), "{}", server.stderr());
    assert!(server.folder.join("store.bad-0").exists());
    let (reply, _) = server.permitted(&mut server.party("issuer"), &license.verify(None)).await;
    assert_eq!(reply.json["verdict"], "valid");
}
