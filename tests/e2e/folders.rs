//! Data folders: a command that refuses one leaves it byte for byte as it was, and nothing that is lost is replaced by
//! something new under the old name.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::NamedTempFile;
use tests::{Finished, HANG, Server, Setup, command, draft, natural, sha256};

/// Pause between two looks at a process.
const LOOK: Duration = Duration::from_millis(10);
/// Anywhere.
const LISTEN: &str = "127.0.0.1:0";
const QUICKSTART: &[&str] = &["quickstart", "--once", "--listen", LISTEN];
/// Exit status: the data is not the log's.
const DATA: i32 = 65;
const SERVE: &[&str] = &["serve", "--development", "--listen", LISTEN];

/// Runs `exchange` with these words on a folder; a process that serves instead of ending fails the test.
fn run(words: &[&str], folder: &Path) -> Finished {
    let said = NamedTempFile::new().unwrap();
    let mut command = command();
    command.args(words).arg("--data").arg(folder).stdout(said.reopen().unwrap()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        let serves = fs::read_to_string(said.path()).unwrap().starts_with("serving");
        if serves || begun.elapsed() > HANG {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{words:?} {}", if serves { "serves" } else { "does not end" });
        }
        std::thread::sleep(LOOK);
    }
    let output = child.wait_with_output().unwrap();
    Finished {
        status: output.status.code(),
        stdout: fs::read_to_string(said.path()).unwrap(),
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
                let name = path.strip_prefix(folder).unwrap().display().to_string();
                found.insert(name, sha256(&fs::read(&path).unwrap()));
            }
        }
    }
    found
}

/// Names of the files that differ.
fn changed(before: &BTreeMap<String, [u8; 32]>, after: &BTreeMap<String, [u8; 32]>) -> Vec<String> {
    let names: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    names.into_iter().filter(|name| before.get(*name) != after.get(*name)).cloned().collect()
}

/// The command is refused with one line that says `word`. Gives its exit status and the files that it changed.
fn refused_changing(words: &[&str], folder: &Path, word: &str) -> (i32, Vec<String>) {
    let before = files(folder);
    let finished = run(words, folder);
    let status = finished.status.filter(|status| *status != 0);
    assert!(status.is_some(), "{words:?}: {finished:?}");
    let line = finished.stderr.trim_end();
    assert!(!line.is_empty() && !line.contains('\n'), "{words:?}: not one line: {finished:?}");
    assert!(line.contains(word), "{words:?}: {line} does not name {word}");
    (status.unwrap(), changed(&before, &files(folder)))
}

/// The command is refused with one line that says `word`, and changes no file. Gives its exit status.
fn refused(words: &[&str], folder: &Path, word: &str) -> i32 {
    let (status, changed) = refused_changing(words, folder, word);
    assert!(changed.is_empty(), "{words:?} is refused and changes {changed:?}");
    status
}

/// A folder with a few licenses, stopped.
async fn with_licenses() -> Server {
    let mut server = Setup::new().start().await;
    let mut issuer = server.party("issuer");
    for _ in 0..3 {
        draft(&natural()).issue(&mut issuer).await;
    }
    assert_eq!(server.stop(), Some(0));
    server
}

/// The folder serves: it issues and verifies.
async fn serves(server: &mut Server) {
    server.start();
    let mut issuer = server.party("issuer");
    let license = draft(&natural()).issue(&mut issuer).await;
    let reply = issuer.send(&license.verify(None)).await.expect(200);
    assert_eq!(reply.json["verdict"], json!("valid"));
    assert_eq!(server.stop(), Some(0));
}

/// Two folders that are made already, one for development and one by `init`, and what `init` may be asked there.
struct Made {
    development: Server,
    production: PathBuf,
    asked: Vec<[String; 5]>,
}

impl Made {
    async fn prepare() -> Self {
        let development = with_licenses().await;
        let init = |origin: &str, operator: &str| {
            let operator = development.folder.join(format!("pki/clients/{operator}.pem"));
            ["init", "--origin", origin, "--operator", operator.to_str().unwrap()].map(str::to_owned)
        };
        let asked = vec![
            init("log.example.test", "operator"),
            init("log.example.test", "operator2"),
            init("other.example.test", "operator"),
        ];
        let production = development.folder.with_file_name("production");
        let made = run(&asked[0].each_ref().map(String::as_str), &production);
        assert_eq!(made.status, Some(0), "{made:?}");
        Self { development, production, asked }
    }

    /// Asks everything of both folders; `init` is refused. Gives the files that it changed.
    fn refused(&self) -> Vec<String> {
        let mut changed = Vec::new();
        for words in &self.asked {
            let words = words.each_ref().map(String::as_str);
            for folder in [&self.production, &self.development.folder] {
                changed.extend(refused_changing(&words, folder, "is a data folder already").1);
            }
        }
        changed
    }
}

#[tokio::test]
async fn init_on_a_folder_that_is_made_already_keeps_its_keys_and_its_log() {
    let mut made = Made::prepare().await;
    let changed = made.refused();
    let kept = ["config.toml", "keys/", "pki/"];
    let lost: Vec<_> = changed.iter().filter(|name| kept.iter().any(|kept| name.starts_with(kept))).collect();
    assert!(lost.is_empty(), "init is refused and changes {lost:?}");
    made.development.log_verify();
    let verified = run(&["log", "verify"], &made.production);
    assert_eq!(verified.status, Some(0), "{verified:?}");
    serves(&mut made.development).await;
}

#[tokio::test]
async fn init_on_a_folder_that_is_made_already_changes_no_file() {
    let changed = Made::prepare().await.refused();
    assert!(changed.is_empty(), "init is refused and changes {changed:?}");
}

#[tokio::test]
async fn a_journal_without_one_of_its_keys_is_refused_and_left_alone() {
    let mut server = with_licenses().await;
    let keys = server.folder.join("keys");
    for name in ["journal", "index", "epoch", "log", "trust", "kek"] {
        let (key, away) = (keys.join(name), server.folder.with_file_name(name));
        fs::rename(&key, &away).unwrap();
        refused(QUICKSTART, &server.folder, "keys");
        if name != "trust" {
            assert!(server.folder.join("store").exists(), "a restart image");
            assert_eq!(refused(SERVE, &server.folder, "keys"), DATA, "{name}");
        }
        fs::rename(&away, &key).unwrap();
        serves(&mut server).await;
    }
    // All of them at once, as a restored backup has it: keys and journal never lie in one.
    let away = server.folder.with_file_name("keys");
    fs::rename(&keys, &away).unwrap();
    for words in [QUICKSTART, SERVE] {
        refused(words, &server.folder, "keys");
    }
    fs::rename(&away, &keys).unwrap();
    serves(&mut server).await;
    server.log_verify();
}

#[tokio::test]
async fn a_key_of_another_log_is_refused_and_left_alone() {
    let mut server = with_licenses().await;
    // A log under the same key-encryption key: its sealed keys open here.
    let other = server.folder.with_file_name("other");
    let old = server.folder.to_str().unwrap();
    let made = run(&["init", "--lost", "--yes", "--continues", old], &other);
    assert_eq!(made.status, Some(0), "{made:?}");
    for (name, why) in [
        ("journal", "the journal key does not open the journal"),
        ("index", "the index key is not the journal's"),
        ("log", "the frame's signature is not the log's"),
        ("epoch", "the epoch's key file is of another log"),
    ] {
        let key = server.folder.join("keys").join(name);
        let own = fs::read(&key).unwrap();
        fs::copy(other.join("keys").join(name), &key).unwrap();
        assert!(server.folder.join("store").exists(), "a restart image");
        for words in [SERVE, &["log", "close", "--yes"]] {
            let before = files(&server.folder);
            let finished = run(words, &server.folder);
            assert_eq!(finished.status, Some(DATA), "{name} {words:?}: {finished:?}");
            // With another log's key the published checkpoint cannot be read: a warning comes first.
            let last = finished.stderr.trim_end().lines().last().unwrap_or_default();
            assert!(last.contains(why), "{name} {words:?}: {finished:?}");
            let changed = changed(&before, &files(&server.folder));
            assert!(changed.is_empty(), "{name} {words:?} is refused and changes {changed:?}");
        }
        fs::write(&key, own).unwrap();
    }
    serves(&mut server).await;
    server.log_verify();
}

#[tokio::test]
async fn a_trust_bundle_that_somebody_else_made_is_refused_and_left_alone() {
    let mut ours = with_licenses().await;
    let theirs = Setup::new().prepare().await;
    const BUNDLE: &str = "pki/trust-bundle.note";
    const ANCHOR: &str = "pki/trust-anchor.vkey";
    let own: Vec<_> = [BUNDLE, ANCHOR].map(|name| (name, fs::read(ours.folder.join(name)).unwrap())).into();
    // With its own anchor it is good, and of another authority; under ours it is not good.
    for names in [&[BUNDLE, ANCHOR][..], &[BUNDLE], &[ANCHOR]] {
        for name in names {
            fs::copy(theirs.folder.join(name), ours.folder.join(name)).unwrap();
        }
        refused(QUICKSTART, &ours.folder, "trust bundle");
        for (name, bytes) in &own {
            fs::write(ours.folder.join(name), bytes).unwrap();
        }
    }
    serves(&mut ours).await;

    // In a folder that has nothing else yet, too.
    let fresh = ours.folder.with_file_name("fresh");
    fs::create_dir_all(fresh.join("pki")).unwrap();
    for name in [BUNDLE, ANCHOR] {
        fs::copy(theirs.folder.join(name), fresh.join(name)).unwrap();
    }
    for _ in 0..2 {
        let finished = run(QUICKSTART, &fresh);
        assert!(finished.status.is_some_and(|status| status != 0), "{finished:?}");
        assert!(finished.stderr.contains("trust bundle"), "{finished:?}");
        for name in [BUNDLE, ANCHOR] {
            let (left, right) = (fs::read(fresh.join(name)), fs::read(theirs.folder.join(name)));
            assert_eq!(left.unwrap(), right.unwrap(), "{name} was replaced");
        }
    }
}
