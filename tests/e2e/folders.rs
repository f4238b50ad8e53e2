//! Data folders: a command that refuses one leaves it byte for byte as it was, and nothing that is lost is replaced by
//! something new under the old name.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use schemas::codes::Code;
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
    for name in ["journal", "index", "epoch", "log", "trust", "../secret/kek"] {
        let (key, away) = (keys.join(name), server.folder.with_file_name("away"));
        fs::rename(&key, &away).unwrap();
        refused(QUICKSTART, &server.folder, "keys");
        if name != "trust" {
            assert!(server.folder.join("store").exists(), "a restart image");
            let word = if name.ends_with("kek") { "key-encryption key" } else { "keys" };
            assert_eq!(refused(SERVE, &server.folder, word), DATA, "{name}");
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

/// `exchange backup` of a folder into another.
fn backup(folder: &Path, out: &Path) -> Finished {
    let output = command().arg("backup").arg("--data").arg(folder).arg("--out").arg(out).output().unwrap();
    finished(output)
}

/// `exchange restore` of a backup into a folder.
fn restore(from: &Path, folder: &Path, kek: &Path) -> Finished {
    let mut command = command();
    command.arg("restore").arg("--from").arg(from).arg("--data").arg(folder).arg("--kek").arg(kek);
    finished(command.output().unwrap())
}

fn finished(output: std::process::Output) -> Finished {
    Finished {
        status: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

#[tokio::test]
async fn a_copy_is_not_served_beside_its_original_and_a_moved_folder_is() {
    let mut server = with_licenses().await;
    let copied = server.folder.with_file_name("copied");
    copy(&server.folder, &copied);
    serves(&mut server).await;
    assert_eq!(refused(SERVE, &copied, "exchange restore"), DATA);
    let close = ["log", "close", "--yes"];
    assert_eq!(refused(&close, &copied, "exchange restore"), DATA);
    // The original is gone: the operator vouches for it, once.
    fs::remove_dir_all(&server.folder).unwrap();
    assert_eq!(refused(SERVE, &copied, "--moved"), DATA);
    let mut moved = command();
    moved.args(SERVE).arg("--moved").arg("--data").arg(&copied).stdout(Stdio::piped());
    let mut moved = moved.spawn().unwrap();
    let mut said = BufReader::new(moved.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    assert!(line.starts_with("serving"), "{line}");
    moved.kill().unwrap();
    moved.wait().unwrap();
    server.move_to(&copied);
    serves(&mut server).await;
    // Under another name on the same disk it is the same folder.
    let renamed = copied.with_file_name("renamed");
    fs::rename(&copied, &renamed).unwrap();
    server.move_to(&renamed);
    serves(&mut server).await;
}

#[tokio::test]
async fn a_backup_is_never_served_and_restored_into_a_successor() {
    let mut server = with_licenses().await;
    let [taken, online, new] = ["taken", "online", "new"].map(|name| server.folder.with_file_name(name));
    let made = backup(&server.folder, &taken);
    assert_eq!(made.status, Some(0), "{made:?}");
    assert!(made.stdout.contains("all of it"), "{made:?}");
    assert_eq!(backup(&server.folder, &taken).status, Some(64), "a backup is never written over");

    // While it serves, too; and the original goes on as if nothing had been.
    server.start();
    let mut issuer = server.party("issuer");
    let writing = async {
        for _ in 0..20 {
            draft(&natural()).issue(&mut issuer).await;
        }
    };
    let (folder, out) = (server.folder.clone(), online.clone());
    let copying = tokio::task::spawn_blocking(move || backup(&folder, &out));
    let ((), copying) = tokio::join!(writing, copying);
    let copying = copying.unwrap();
    assert_eq!(copying.status, Some(0), "{copying:?}");
    assert!(copying.stdout.contains("being served"), "{copying:?}");
    let size = server.size().await;
    assert_eq!(server.stop(), Some(0));

    for backup in [&taken, &online] {
        let held = files(backup);
        let kek = fs::read(server.folder.join("secret/kek")).unwrap();
        assert!(!held.values().any(|digest| *digest == sha256(&kek)), "the key-encryption key is in it");
        for name in ["journal/guard", "keys/log", "keys/epoch", "pki/trust-bundle.note", "pki/server.key"] {
            assert!(held.contains_key(name), "no {name}");
        }
        for words in [
            SERVE,
            QUICKSTART,
            &["check-config"],
            &["rebuild"],
            &["archive", "--before", "1"],
            &["log", "close", "--yes"],
            &["init", "--origin", "a.test", "--operator", "x.pem"],
        ] {
            let before = files(backup);
            let finished = run(words, backup);
            assert!(finished.status.is_some_and(|status| status != 0), "{words:?}: {finished:?}");
            assert!(changed(&before, &files(backup)).is_empty(), "{words:?} changes a backup");
        }
        for words in [SERVE, &["rebuild"], &["log", "close", "--yes"]] {
            assert_eq!(refused(words, backup, "exchange restore"), DATA);
        }
    }

    // Only a backup is restored, and only with its key.
    let kek = server.folder.join("secret/kek");
    assert_eq!(restore(&server.folder, &new, &kek).status, Some(64));
    let wrong = server.folder.with_file_name("wrong");
    certs::sealed::Kek::create(&wrong).unwrap();
    assert_eq!(restore(&online, &new, &wrong).status, Some(DATA));
    let restored = restore(&online, &new, &kek);
    assert_eq!(restored.status, Some(0), "{restored:?}");
    assert!(restored.stdout.contains("not known: entries that the old log took after"), "{restored:?}");
    let old = server.config.origin.clone();
    copy(&server.folder.join("pki/clients"), &new.join("pki/clients"));
    server.move_to(&new);
    assert_ne!(server.config.origin, old);
    assert!(server.trust.log(&old).is_some(), "what the old log proved stays proven");
    serves(&mut server).await;
    server.log_verify();

    // The copy has whole frames only, and as many as there were at some moment.
    let fence = fs::read_to_string(online.join("FENCED.toml")).unwrap();
    let copied = fence.lines().find_map(|line| line.strip_prefix("size = ")).unwrap();
    assert!((4..=size).contains(&copied.parse::<u64>().unwrap()), "{fence}");
}

#[tokio::test]
async fn a_backup_that_lost_a_part_is_not_restored() {
    let mut server = with_licenses().await;
    let [taken, new] = ["taken", "new"].map(|name| server.folder.with_file_name(name));
    let made = backup(&server.folder, &taken);
    assert_eq!(made.status, Some(0), "{made:?}");
    let kek = server.folder.join("secret/kek");
    let not_restored = |what: &str| {
        let refused = restore(&taken, &new, &kek);
        assert_eq!(refused.status, Some(DATA), "{what}: {refused:?}");
        assert!(!new.exists(), "{what}: makes a folder");
    };
    let journal = taken.join("journal");
    let segments = fs::read_dir(&journal).unwrap().map(|file| file.unwrap().path());
    let mut segments: Vec<_> =
        segments.filter(|path| path.extension().is_some_and(|end| end == "mxj")).collect();
    segments.sort();
    // The newest is another one's place: an older copy without it is whole by itself.
    let last = segments.pop().unwrap();
    let bytes = fs::read(&last).unwrap();
    fs::remove_file(&last).unwrap();
    not_restored("without its last segment");
    fs::write(&last, &bytes[..bytes.len() / 2]).unwrap();
    not_restored("cut");
    fs::write(&last, &bytes).unwrap();

    // A whole journal of the same log, and not the one that was copied: its own guard says nothing.
    let older = server.folder.with_file_name("older");
    fs::rename(&taken, &older).unwrap();
    serves(&mut server).await;
    assert_eq!(backup(&server.folder, &taken).status, Some(0));
    fs::rename(taken.join("journal"), taken.join("newer")).unwrap();
    copy(&older.join("journal"), &taken.join("journal"));
    not_restored("with an older journal");
    fs::remove_dir_all(taken.join("journal")).unwrap();
    fs::rename(taken.join("newer"), taken.join("journal")).unwrap();

    // A fence from before the copy was complete.
    let fence = taken.join("FENCED.toml");
    let whole = fs::read_to_string(&fence).unwrap();
    fs::write(&fence, whole.split("size = ").next().unwrap()).unwrap();
    not_restored("cut off while it was made");
    fs::write(&fence, whole).unwrap();
    assert_eq!(restore(&taken, &new, &kek).status, Some(0));
    assert_eq!(restore(&taken, &new, &kek).status, Some(0), "what is begun is completed");
}

#[tokio::test]
async fn a_folder_with_another_log_is_not_restored_into() {
    let mut server = with_licenses().await;
    let other = with_licenses().await;
    let [taken, copied] = ["taken", "copied"].map(|name| server.folder.with_file_name(name));
    assert_eq!(backup(&server.folder, &taken).status, Some(0));
    copy(&server.folder, &copied);
    let kek = server.folder.join("secret/kek");
    for folder in [&server.folder, &copied, &other.folder] {
        let before = files(folder);
        let refused = restore(&taken, folder, &kek);
        assert_eq!(refused.status, Some(64), "{refused:?}");
        let continues = ["init", "--continues", server.folder.to_str().unwrap(), "--lost", "--yes"];
        assert_eq!(run(&continues, folder).status, Some(64));
        let changed = changed(&before, &files(folder));
        assert!(changed.is_empty(), "{} changes {changed:?}", folder.display());
    }
    assert_eq!(refused(SERVE, &copied, "exchange restore"), DATA);
    serves(&mut server).await;
}

#[tokio::test]
async fn an_older_copy_that_was_brought_back_into_the_folder_is_not_served() {
    let mut server = with_licenses().await;
    let older = server.folder.with_file_name("older");
    copy(&server.folder, &older);
    serves(&mut server).await;
    // As `rsync -a --delete` does it: each file that differs is written beside and renamed, the folders stay.
    let (now, then) = (files(&server.folder), files(&older));
    for name in now.keys().filter(|name| !then.contains_key(*name)) {
        fs::remove_file(server.folder.join(name)).unwrap();
    }
    for name in then.keys().filter(|name| now.get(*name) != then.get(*name)) {
        let (to, temporary) = (server.folder.join(name), server.folder.join("arriving"));
        fs::copy(older.join(name), &temporary).unwrap();
        fs::rename(&temporary, &to).unwrap();
    }
    assert_eq!(files(&server.folder), then);
    assert_eq!(refused(SERVE, &server.folder, "an older copy was brought back"), DATA);
}

#[tokio::test]
async fn a_server_key_that_others_may_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = Setup::new().prepare().await;
    let key = server.folder.join("pki/server.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(refused(SERVE, &server.folder, "has mode 0644"), 64);
}

/// The commands of a guide, in order.
pub(crate) fn commands(guide: &str) -> String {
    let blocks = guide.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    blocks.collect()
}

/// An address with two free ports behind it. The system gives these ports to nobody, such as to the tests beside this one.
pub(crate) fn free_address() -> String {
    static ASKED: AtomicU16 = AtomicU16::new(0);
    let free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    let apart = 300 * ASKED.fetch_add(1, Ordering::Relaxed);
    let from = 20_000 + apart + u16::try_from(std::process::id() % 10_000).unwrap();
    let first = (from..32_000).step_by(3).find(|first| (*first..first + 3).all(free)).unwrap();
    format!("127.0.0.1:{first}")
}

#[test]
fn the_guide_leads_from_nothing_to_a_verified_license() {
    let folder = tempfile::tempdir().unwrap();
    let script = commands(include_str!("../../exchange/docs/guides/production.md"));
    let programs = PathBuf::from(tests::binary("certs").get_program());
    let path = format!("{}:{}", programs.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut shell = std::process::Command::new("sh");
    shell.args(["-eu", "-c", &script]).current_dir(folder.path()).stdin(Stdio::null());
    let done = finished(shell.env("PATH", path).env("LISTEN", free_address()).output().unwrap());
    let log = fs::read_to_string(folder.path().join("serve.log")).unwrap_or_default();
    assert_eq!(done.status, Some(0), "{}\n{}\n{log}", done.stdout, done.stderr);
    assert_eq!(done.stdout.lines().last(), Some("\"verdict\":\"valid\""), "{}", done.stdout);
}

/// A process that is killed when the test ends.
struct Serving(std::process::Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_quickstart_leaves_a_walkthrough_that_shows_what_it_expects() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("a folder");
    fs::create_dir(&folder).unwrap();
    // An index root each second, so that the trace is whole soon.
    let config = "origin = \"miaoxiang.local/00000000\"\n[journal]\nindex_root_seconds = 1\n";
    fs::write(folder.join("config.toml"), config).unwrap();
    let mut quickstart = command();
    quickstart.args(["quickstart", "--listen", "0.0.0.0:0", "--data"]).arg(&folder);
    let log = NamedTempFile::new().unwrap();
    quickstart.env_remove("RUST_LOG").stdout(Stdio::piped()).stderr(log.reopen().unwrap());
    let mut serving = Serving(quickstart.spawn().unwrap());
    let mut lines = BufReader::new(serving.0.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().starts_with("quickstart ok ")), "the round is not complete");
    // Its own refusals do not cover what it says; those of who tries it are explained to whoever runs it.
    let reasons = || fs::read_to_string(log.path()).unwrap().matches("reason=").count();
    assert_eq!(reasons(), 0);

    let samples = folder.join("samples");
    let read = |name: &str| fs::read_to_string(samples.join(name)).unwrap();
    let grants: serde_json::Value = serde_json::from_str(&read("grants.json")).unwrap();
    let states: Vec<&str> =
        grants.as_array().unwrap().iter().map(|grant| grant["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["active", "revoked", "expired"]);
    let licenses: serde_json::Value = serde_json::from_str(&read("licenses.json")).unwrap();
    assert!(licenses.as_array().unwrap().len() >= tests::all_types().len());
    assert!(read("persons.json").contains("测试"));

    let walk = |shell: &str, script: &str| {
        let mut run = std::process::Command::new(shell);
        // From elsewhere: it finds its own folder.
        run.arg(samples.join(script)).arg("--masked").current_dir(parent.path()).stdin(Stdio::null());
        finished(run.output().unwrap())
    };
    let expected = read("walkthrough.expected");
    for shell in ["sh", "bash"] {
        let done = walk(shell, "walkthrough.sh");
        assert_eq!((done.status, &*done.stderr), (Some(0), ""), "{shell}");
        assert_eq!(done.stdout, expected, "{shell}");
    }
    assert_eq!(reasons(), 2 * 3, "{}", fs::read_to_string(log.path()).unwrap());
    // The bytes are kept that the receipt is over.
    let check = tests::binary("verifier")
        .arg("receipt")
        .arg(samples.join("answers/granted.json"))
        .arg("--request")
        .arg(samples.join("answers/granted.request.json"))
        .arg("--trust")
        .arg(folder.join("pki/trust-bundle.note"))
        .args(["--anchor", fs::read_to_string(folder.join("pki/trust-anchor.vkey")).unwrap().trim()])
        .output()
        .unwrap();
    assert!(check.status.success(), "{check:?}");

    let verifier = PathBuf::from(tests::binary("verifier").get_program());
    let without = read("walkthrough.sh").replace(verifier.to_str().unwrap(), "/nowhere/verifier");
    fs::write(samples.join("without.sh"), without).unwrap();
    let done = walk("sh", "without.sh");
    let told = "NOT CHECKED: there is no /nowhere/verifier. Build it with: cargo build ";
    assert_eq!(done.status, Some(0), "{}", done.stderr);
    // Two receipts, two licenses, a trace.
    assert_eq!(done.stdout.matches(told).count(), 5, "{}", done.stdout);
    assert!(!done.stdout.contains("receipt genuine"), "{}", done.stdout);
}

/// Permission bits of every file and folder below a folder.
fn modes(folder: &Path) -> BTreeMap<PathBuf, u32> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            found.extend(modes(&path));
        }
        found.insert(path, metadata.permissions().mode() & 0o777);
    }
    found
}

#[tokio::test]
async fn nobody_else_reads_what_a_server_writes_and_it_leaves_no_core() {
    let mut server = Setup::new().prepare().await;
    let before = modes(&server.folder);
    server.start();
    draft(&natural()).issue(&mut server.party("issuer")).await;
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    assert_eq!(server.stop(), Some(0));
    let written = modes(&server.folder);
    let mut new = written.iter().filter(|(path, _)| !before.contains_key(*path)).peekable();
    assert!(new.peek().is_some(), "nothing was written");
    for (path, mode) in new {
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
    }
}

/// `certs issuer` in a data folder that holds the trust authority's key.
fn issuer(server: &mut Server, words: &[&str]) {
    assert_eq!(server.stop(), Some(0));
    let organisation = server.organisation("keyless").to_string();
    let mut command = tests::binary("certs");
    command.arg("--data").arg(&server.folder).arg("issuer").args(words);
    let done = finished(command.args(["--organisation", &organisation]).output().unwrap());
    assert_eq!(done.status, Some(0), "{done:?}");
    let folder = server.folder.clone();
    server.move_to(&folder);
    server.start();
}

#[tokio::test]
async fn an_authority_without_a_key_in_force_is_refused_until_it_has_one() {
    let all = |keyless: &mut exchange::participant::Participant| {
        keyless.roles = vec![exchange::participant::Role::Issuer];
        keyless.issues = tests::all_types().into_iter().map(|one| one.code).collect();
    };
    let mut server = Setup::new().participant("keyless", all).start().await;
    // No wait makes a key: the refusal is a decision, and nobody is told to come back.
    let mut party = server.party("keyless");
    let (reply, _) = server.refused(&mut party, &draft(&natural()).call(), Code::NoSigningKey).await;
    assert_eq!((reply.status, reply.retry_after), (409, None));

    issuer(&mut server, &["add", "--name", "测试机关", "--type", natural().code.as_str()]);
    let key_of = |one: &tests::Issued| {
        let opened = verifier::license::OpenedEnvelope::open(&one.envelope).unwrap();
        assert_eq!(opened.signatures().len(), 1, "one signature of each suite");
        opened.signatures()[0].key_id
    };
    let begun = Instant::now();
    let first = draft(&natural()).issue(&mut server.party("keyless")).await;
    issuer(&mut server, &["rotate"]);
    let second = loop {
        // A key begins with a second of its own.
        let next = draft(&natural()).issue(&mut server.party("keyless")).await;
        if key_of(&next) != key_of(&first) {
            break next;
        }
        assert!(begun.elapsed() < HANG, "the new key does not sign");
    };
    issuer(&mut server, &["retire", "--at-once"]);
    loop {
        // The second in which it was ended is still the key's.
        let reply = server.party("keyless").send(&draft(&natural()).call()).await;
        if reply.status == 409 {
            assert_eq!(reply.code(), Code::NoSigningKey.name());
            break;
        }
        assert!(reply.status == 201 && begun.elapsed() < HANG, "{}", reply.json);
    }
    let mut roots = verifier::license::RootCache::new();
    for license in [&first, &second] {
        let report =
            verifier::license::verify(&license.envelope, &server.trust, tests::now_ms() / 1_000, &mut roots);
        assert_eq!(report.verdict, verifier::report::Verdict::Valid, "{report:?}");
    }
}

/// A folder that the build before this format made and closed: `log close` there and `init --continues` here carry it over.
#[test]
fn a_closed_folder_of_the_format_before_is_refused_by_name_and_carried_over() {
    let folder = tempfile::TempDir::new().unwrap();
    let [old, new] = ["old", "new"].map(|name| folder.path().join(name));
    fs::create_dir(&old).unwrap();
    let packed = concat!(env!("CARGO_MANIFEST_DIR"), "/e2e/format-1.tar.gz");
    let unpacked = std::process::Command::new("tar").args(["-xzf", packed, "-C"]).arg(&old).status();
    assert!(unpacked.unwrap().success());
    for words in [&["rebuild"][..], &["log", "close", "--yes"]] {
        assert_eq!(refused(words, &old, "of format 1, and this build serves format 2"), DATA);
        assert_eq!(refused(words, &old, "init --continues"), DATA);
    }
    let verified = run(&["log", "verify"], &old);
    assert!(verified.status == Some(1) && verified.stdout.contains("of format 1"), "{verified:?}");
    let before = files(&old);
    let made = run(&["init", "--continues", old.to_str().unwrap()], &new);
    assert_eq!(made.status, Some(0), "{made:?}");
    assert!(changed(&before, &files(&old)).is_empty(), "carrying it over changes it");
    let verified = run(&["log", "verify"], &new);
    assert_eq!(verified.status, Some(0), "{verified:?}");

    let config = exchange::config::Config::load(&new.join("config.toml")).unwrap();
    let keys = || exchange::opening::ledger_keys(&exchange::opening::key_folder(&config).unwrap()).unwrap();
    let options = || exchange::opening::ledger_options(&config);
    let (kind, opening) = ledger::first_leaf(&options(), &keys()).unwrap().unwrap();
    assert_eq!(kind, verifier::leaf::LeafKind::ShardOpen);
    let checkpoint = fs::read_to_string(old.join("closed.checkpoint")).unwrap();
    let ended: Vec<&str> = checkpoint.lines().take(3).collect();
    let said = format!("miaoxiang shard open v1\n{}\n", ended.join("\n"));
    assert_eq!(String::from_utf8(opening).unwrap(), said, "it goes on where the old log ended");
    let mut operators = 0;
    let participant = ledger::DocumentKind::Participant.number();
    ledger::entries(options(), keys(), |entry| {
        operators += entry.record.documents.iter().filter(|document| document.kind == participant).count();
    })
    .unwrap();
    assert_eq!(operators, 2, "the register is carried over");

    // What was forged since is not carried over: the first format's own rules hold for it.
    let segment = old.join("journal/0000000000.mxj");
    let mut bytes = fs::read(&segment).unwrap();
    let frame = 64;
    let length = u32::from_be_bytes(bytes[frame + 8..frame + 12].try_into().unwrap()) as usize;
    bytes[frame + 80 + 38 + 40] ^= 1;
    let crc = crc32c::crc32c(&bytes[frame..frame + length - 4]).to_be_bytes();
    bytes[frame + length - 4..frame + length].copy_from_slice(&crc);
    fs::write(&segment, bytes).unwrap();
    let forged = run(&["init", "--continues", old.to_str().unwrap()], &folder.path().join("third"));
    assert_eq!(forged.status, Some(DATA), "{forged:?}");
}
