//! The commands: clear exit statuses, one line for a person, nothing changed when refused.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use schemas::codes::Code;
use schemas::routes::Route;
use serde_json::{Value, json};
use tests::{Call, Finished, Server, Setup, command, draft, natural, sha256};

/// Wrong usage or configuration (sysexits.h).
const USAGE: Option<i32> = Some(64);
/// The data is not the log's.
const DATA: Option<i32> = Some(65);
/// The guard file is written again well within this time after a change.
const GUARD_RESTS: Duration = Duration::from_millis(1_200);
/// An address is taken.
const UNAVAILABLE: Option<i32> = Some(69);

fn run(words: &[&str]) -> Finished {
    let output = command().args(words).output().unwrap();
    Finished {
        status: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Every file below a folder with the digest of its content.
fn files(folder: &Path) -> BTreeMap<String, [u8; 32]> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.display().to_string(), sha256(&fs::read(&path).unwrap()));
            }
        }
    }
    found
}

/// The files of a folder whose name ends so, sorted.
fn files_named(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|end| end == extension));
    found.sort();
    found
}

fn one_line(finished: &Finished) -> &str {
    let line = finished.stderr.trim_end();
    assert!(!line.is_empty() && !line.contains('\n'), "not one line: {:?}", finished.stderr);
    line
}

#[test]
fn usage_that_cannot_be_read_is_64() {
    for words in [
        &["serve", "--surprise"][..],
        &["surprise"],
        &["quickstart", "--listen", "nowhere"],
        &["participant", "add"],
        &["log"],
        &[],
    ] {
        let finished = run(words);
        assert_eq!(finished.status, USAGE, "{words:?}: {finished:?}");
        assert!(finished.stdout.is_empty());
    }
    for words in [&["--help"][..], &["--version"], &["serve", "--help"]] {
        assert_eq!(run(words).status, Some(0), "{words:?}");
    }
}

#[tokio::test]
async fn a_configuration_is_checked_before_anything_is_opened() {
    let server = Setup::new().prepare().await;
    let good = server.run(&["check-config"]);
    assert_eq!(good.status, Some(0), "{good:?}");
    assert!(good.stdout.contains("origin") && good.stdout.contains("# good"), "{}", good.stdout);
    let path = server.folder.join("config.toml");
    let text = fs::read_to_string(&path).unwrap();
    for (bad, word) in [
        (format!("surprise = 1\n{text}"), "surprise"),
        (text.replace("segment_mib = 9", "segment_mib = 0"), "segment_mib"),
        (text.replace("segment_mib = 9", "segment_mib = 1"), "segment_mib"),
        (text.replace("segment_mib = 9", "segment_mib = 2000"), "segment_mib"),
        (text.replace("reserve_percent = 0", "reserve_percent = 91"), "reserve_percent"),
        (text.replace("origin = \"", "origin = \"https://"), "origin"),
        ("= not toml".to_owned(), "config.toml"),
        (String::new(), "origin"),
    ] {
        assert_ne!(bad, text, "{word}");
        fs::write(&path, &bad).unwrap();
        for words in [&["check-config"][..], &["serve", "--development"], &["log", "verify"], &["rebuild"]] {
            let finished = server.run(words);
            assert_eq!(finished.status, USAGE, "{word} {words:?}: {finished:?}");
            assert!(one_line(&finished).contains(word), "{word}: {finished:?}");
        }
    }
    fs::remove_file(&path).unwrap();
    let finished = server.run(&["check-config"]);
    assert_eq!(finished.status, USAGE);
    assert!(one_line(&finished).contains("config.toml"));
}

#[tokio::test]
async fn a_port_in_use_is_one_line_and_69() {
    let server = Setup::new().prepare().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let before = files(&server.folder);
    let finished = server.run(&["serve", "--development", "--listen", &address]);
    assert_eq!(finished.status, UNAVAILABLE, "{finished:?}");
    assert!(
        one_line(&finished).contains(&address) && one_line(&finished).contains("--listen"),
        "{finished:?}"
    );
    assert_eq!(files(&server.folder), before, "a refused start changed a file");
    let finished = server.run(&["quickstart", "--once", "--listen", &address]);
    assert_eq!(finished.status, UNAVAILABLE, "{finished:?}");
}

#[tokio::test]
async fn a_second_process_on_one_folder_changes_nothing() {
    let server = Setup::new().start().await;
    // Quiet, the next segment prepared ahead: only the second process could change a file now.
    let journal = server.folder.join("journal");
    tests::eventually("the segment prepared ahead", || async {
        let begun = |path: &Path| fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"MXS1"));
        let segments = files_named(&journal, "mxj");
        (!segments.is_empty()
            && segments.iter().any(|path| !begun(path))
            && files_named(&journal, "new").is_empty())
        .then_some(())
    })
    .await;
    // The guard follows what was written within a second.
    let mut before = files(&journal);
    loop {
        tokio::time::sleep(GUARD_RESTS).await;
        let now = files(&journal);
        if now == before {
            break;
        }
        before = now;
    }
    for words in [&["serve", "--development", "--listen", "127.0.0.1:0"][..], &["rebuild"]] {
        let finished = server.run(words);
        assert_eq!(finished.status, Some(1), "{words:?}: {finished:?}");
        assert!(one_line(&finished).contains("another process has the journal open"), "{finished:?}");
    }
    assert_eq!(files(&journal), before);
    draft(&natural()).issue(&mut server.party("issuer")).await;
}

#[tokio::test]
async fn development_keys_are_served_only_when_asked_for() {
    let server = Setup::new().prepare().await;
    let before = files(&server.folder);
    let finished = server.run(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(finished.status, USAGE, "{finished:?}");
    assert!(one_line(&finished).contains("--development"));
    assert_eq!(files(&server.folder), before);
}

#[tokio::test]
async fn a_stop_is_clean_by_both_signals() {
    let mut server = Setup::new().start().await;
    let mut licenses = Vec::new();
    for signal in [Signal::TERM, Signal::INT] {
        licenses.push(draft(&natural()).issue(&mut server.party("issuer")).await);
        server.signal(signal);
        assert_eq!(server.exit_status(), Some(0), "{}", server.stderr());
        let report = server.log_verify();
        assert_eq!(report["tornTail"], json!(false));
        server.start();
        let mut issuer = server.party("issuer");
        for license in &licenses {
            let reply = issuer.send(&license.verify(None)).await.expect(200);
            assert_eq!(reply.json["verdict"], json!("valid"));
        }
    }
}

#[tokio::test]
async fn verify_and_rebuild_agree_on_the_state() {
    let mut server = Setup::new().start().await;
    let mut issuer = server.party("issuer");
    for _ in 0..20 {
        let license = draft(&natural()).issue(&mut issuer).await;
        issuer.send(&license.operation("03", None)).await.expect(200);
    }
    assert_eq!(server.stop(), Some(0));
    let verified = server.log_verify();
    let rebuild = |server: &Server| -> Value {
        let finished = server.run(&["rebuild", "--json"]);
        assert_eq!(finished.status, Some(0), "{finished:?}");
        serde_json::from_str(&finished.stdout).unwrap()
    };
    let rebuilt = rebuild(&server);
    assert_eq!((&rebuilt["size"], &rebuilt["stateDigest"]), (&verified["size"], &verified["stateDigest"]));
    for derived in ["store", "tiles"] {
        fs::remove_dir_all(server.folder.join(derived)).unwrap();
    }
    assert_eq!(rebuild(&server)["stateDigest"], verified["stateDigest"]);
    server.start();
    assert_eq!(server.size().await, verified["size"].as_u64().unwrap());
    // Reading only: beside a running server too.
    server.log_verify();
}

#[tokio::test]
async fn a_damaged_journal_is_told_and_not_served() {
    let mut server = Setup::new().start().await;
    let mut issuer = server.party("issuer");
    for _ in 0..5 {
        draft(&natural()).issue(&mut issuer).await;
    }
    assert_eq!(server.stop(), Some(0));
    let mut segments = files_named(&server.folder.join("journal"), "mxj");
    segments.retain(|path| fs::read(path).unwrap().starts_with(b"MXS1"));
    let path = segments.last().unwrap();
    let good = fs::read(path).unwrap();
    let mut bad = good.clone();
    bad[400] ^= 1;
    fs::write(path, &bad).unwrap();
    let finished = server.run(&["log", "verify", "--json"]);
    assert_eq!(finished.status, Some(1), "{finished:?}");
    let report: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(report["verdict"], json!("invalid"));
    // A start replays from the restart image; without it, it reads what is damaged.
    fs::remove_dir_all(server.folder.join("store")).unwrap();
    let refused = |why: &str| {
        let serve = ["serve", "--development", "--listen", "127.0.0.1:0"];
        for words in [&serve[..], &["rebuild"], &["log", "close"]] {
            let finished = server.run(words);
            assert_eq!(finished.status, DATA, "{words:?}: {finished:?}");
            assert!(one_line(&finished).contains(why), "{words:?}: {finished:?}");
        }
    };
    refused("damaged");
    // Without its frames.
    fs::write(path, &good[..64]).unwrap();
    refused("cut short or rolled back");
    fs::write(path, &good).unwrap();
    let guard = server.folder.join("journal/guard");
    let mark = fs::read(&guard).unwrap();
    fs::remove_file(&guard).unwrap();
    refused("guard is missing");
    fs::write(&guard, mark).unwrap();
    server.log_verify();
}

#[tokio::test]
async fn the_register_is_changed_from_the_command_line() {
    let server = Setup::new().stranger("late").start().await;
    let mut late = server.party("late");
    let file = server.folder.join("participant.json");
    let organisation = server.organisation("late").to_string();
    let write = |name: &str| {
        let registration = json!({
            "organisation": organisation, "name": name, "roles": ["relying"], "validFrom": "2026-01-01",
        });
        fs::write(&file, registration.to_string()).unwrap();
    };
    let address = server.data.to_string();
    let participant =
        |words: &[&str]| server.run(&[&["participant"], words, &["--server", &address]].concat());
    let verify = Call::raw(Route::Verify, json!({
        "license": {"identifier": "1.2.156.3005.2.11100000000013338W011.11430000006122244L.20230000403.001.U"},
        "use": tests::use_context(),
    }).to_string());
    let name = file.to_str().unwrap();
    write("测试后来者");
    server.refused(&mut late, &verify, Code::UnknownParticipant).await;
    let finished = participant(&["change", name]);
    assert_eq!(finished.status, Some(1), "{finished:?}");
    assert!(finished.stdout.contains("participant-conflict"));
    assert_eq!(participant(&["add", name]).status, Some(0));
    server.refused(&mut late, &verify, Code::NotPermitted).await;
    write("测试改名");
    assert_eq!(participant(&["change", name]).status, Some(0));
    assert_eq!(participant(&["suspend", &organisation, "--reason", "测试"]).status, Some(0));
    server.refused(&mut late, &verify, Code::ParticipantSuspended).await;
    assert_eq!(participant(&["suspend", &organisation, "--reason", "测试", "--lift"]).status, Some(0));
    server.refused(&mut late, &verify, Code::NotPermitted).await;
    fs::write(&file, "{").unwrap();
    assert_ne!(participant(&["add", name]).status, Some(0));
}

#[tokio::test]
async fn a_production_folder_begins_with_its_operators() {
    let server = Setup::new().prepare().await;
    let fresh = server.folder.with_file_name("production");
    let operator = server.folder.join("pki/clients/operator.pem");
    let words = ["init", "--origin", "log.example.test", "--operator", operator.to_str().unwrap(), "--data"];
    let output = command().args(words).arg(&fresh).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!fresh.join("pki/ca.key").exists(), "development keys in a production folder");
    let verified = command().args(["log", "verify", "--json", "--data"]).arg(&fresh).output().unwrap();
    assert_eq!(verified.status.code(), Some(0));
    let report: Value = serde_json::from_slice(&verified.stdout).unwrap();
    // The types and the operator, in one entry.
    assert_eq!(report["size"], json!(1));
    let again = command().args(words).arg(&fresh).output().unwrap();
    assert_ne!(again.status.code(), Some(0), "a folder is made once");
}
