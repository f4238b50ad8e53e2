//! The commands: clear exit statuses, one line for a person, nothing changed when refused.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
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
/// Input or output failed.
const IO: Option<i32> = Some(74);

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
            assert!(finished.stderr.contains(word), "{word}: {finished:?}");
            assert!(finished.stderr.contains(path.to_str().unwrap()), "the file: {finished:?}");
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

#[test]
fn the_folder_says_where_quickstart_serves() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut quickstart = command();
    quickstart.args(["quickstart", "--listen", "127.0.0.1:0", "--data"]).arg(&data);
    let mut child = quickstart.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // Registered, and its round begun.
    assert!(lines.any(|line| line.unwrap().trim_start().starts_with("log ")), "it does not begin");
    let finished =
        command().args(["keys", "--rotate-now", "--reason", "测试", "--data"]).arg(&data).output().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let said = String::from_utf8(finished.stdout).unwrap();
    assert!(finished.status.success() && said.contains("\"state\":\"open\""), "{said} {:?}", finished.stderr);
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
        assert_eq!(finished.status, UNAVAILABLE, "{words:?}: {finished:?}");
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
        for words in [&serve[..], &["rebuild"], &["log", "close", "--yes"]] {
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
    assert!(one_line(&finished).contains("refused (409 participant-conflict)"), "{finished:?}");
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
    // The rules and the operator, in one entry.
    assert_eq!(report["size"], json!(1));
    let again = command().args(words).arg(&fresh).output().unwrap();
    assert_ne!(again.status.code(), Some(0), "a folder is made once");
}

/// A started command whose standard error is read back; killed when dropped.
struct Running {
    child: Child,
    stderr: tempfile::NamedTempFile,
}

impl Running {
    fn start(mut command: Command, stdout: Stdio) -> Self {
        let stderr = tempfile::NamedTempFile::new().unwrap();
        let child = command.stdout(stdout).stderr(stderr.reopen().unwrap()).spawn().unwrap();
        Self { child, stderr }
    }

    fn stderr(&self) -> String {
        fs::read_to_string(self.stderr.path()).unwrap()
    }

    fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(id, signal).unwrap();
    }

    /// Waits until standard error holds this.
    async fn says(&self, words: &str) {
        tests::eventually(words, || async { self.stderr().contains(words).then_some(()) }).await;
    }

    async fn ends(&mut self) -> Option<i32> {
        let child = std::cell::RefCell::new(&mut self.child);
        tests::eventually("the end of the process", || async { child.borrow_mut().try_wait().unwrap() })
            .await
            .code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `exchange serve` with these words, logging what an operator sees.
fn serve(folder: &Path, words: &[&str]) -> Command {
    let mut command = command();
    command.env_remove("RUST_LOG").args(["serve", "--development", "--data"]).arg(folder).args(words);
    command
}

/// What a process prints when it serves: the addresses of data, public and admin.
fn addresses(running: &mut Running) -> [SocketAddr; 3] {
    let mut line = String::new();
    BufReader::new(running.child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    ["data", "public", "admin"].map(|name| {
        let at = words.iter().position(|word| *word == name);
        at.and_then(|at| words.get(at + 1)?.parse().ok())
            .unwrap_or_else(|| panic!("{line} {}", running.stderr()))
    })
}

const FULL: &str = "/dev/full";

fn into_full(mut command: Command) -> Finished {
    let full = fs::OpenOptions::new().write(true).open(FULL).unwrap();
    let output = command.stdout(full).stderr(Stdio::piped()).output().unwrap();
    Finished {
        status: output.status.code(),
        stdout: String::new(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Into a pipe that nobody reads.
fn into_nothing(mut command: Command) -> Finished {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command.stdout(writer).stderr(Stdio::piped()).output().unwrap();
    Finished {
        status: output.status.code(),
        stdout: String::new(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[tokio::test]
async fn no_print_ends_a_command_or_changes_its_verdict() {
    let server = Setup::new().prepare().await;
    let junk = server.folder.join("junk");
    fs::write(&junk, "no license").unwrap();
    let folder = &server.folder;
    let in_folder = |name: &str, words: &[&str]| {
        let mut command = tests::binary(name);
        command.args(words).arg("--data").arg(folder);
        command
    };
    let verifier = |file: &Path| {
        let mut command = tests::binary("verifier");
        let trust = server.config.path(&server.config.keys.trust_bundle);
        command.args(["license", "--trust"]).arg(trust).arg(file);
        command
    };
    let mut log = in_folder("exchange", &["log", "verify"]);
    let mut inspect = tests::binary("certs");
    inspect.arg("inspect").arg(folder.join("pki/ca.pem"));
    let witness = in_folder("witness", &["init", "--name", "witness.example"]);
    let mut help = command();
    help.arg("--help");
    let mut none = command();
    none.arg("surprise");
    // Success that nobody could read is none; a verdict stays what it is.
    for (name, command, full) in [
        ("log verify", log, IO),
        ("inspect", inspect, IO),
        ("witness", witness, IO),
        ("check-config", in_folder("exchange", &["check-config"]), IO),
        ("help", help, IO),
        ("an invalid license", verifier(&junk), Some(1)),
        ("usage", none, USAGE),
    ] {
        let finished = into_full(command);
        assert_eq!(finished.status, full, "{name}: {finished:?}");
        if full == IO {
            assert!(one_line(&finished).contains("No space left on device"), "{name}: {finished:?}");
        }
        assert!(!finished.stderr.contains("panicked"), "{name}: {finished:?}");
    }
    log = in_folder("exchange", &["log", "verify"]);
    inspect = tests::binary("certs");
    inspect.arg("inspect").arg(folder.join("pki/ca.pem"));
    for (name, command, status) in [
        ("log verify", log, Some(0)),
        ("inspect", inspect, Some(0)),
        ("an invalid license", verifier(&junk), Some(1)),
    ] {
        let finished = into_nothing(command);
        assert_eq!((finished.status, finished.stderr.as_str()), (status, ""), "{name}");
    }
}

#[tokio::test]
async fn a_server_that_nobody_hears_serves_and_logs_json_for_machines() {
    let server = Setup::new().prepare().await;
    // Neither its lines nor its log can be written.
    let full = || Stdio::from(fs::OpenOptions::new().write(true).open(FULL).unwrap());
    let mut mute = serve(&server.folder, &["--listen", "127.0.0.1:0"]);
    let mut mute = mute.stdout(Stdio::piped()).stderr(full()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(mute.stdout.as_mut().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("serving log "), "{first}");
    let id = Pid::from_raw(i32::try_from(mute.id()).unwrap()).unwrap();
    for signal in [Signal::USR1, Signal::USR2, Signal::HUP, Signal::TERM] {
        kill_process(id, signal).unwrap();
    }
    assert_eq!(mute.wait().unwrap().code(), Some(0), "drained");

    let mut deaf =
        Running::start(serve(&server.folder, &["--listen", "127.0.0.1:0", "--log-format", "json"]), full());
    deaf.says("No space left on device").await;
    deaf.signal(Signal::USR1);
    deaf.says("epoch_destroyed").await;
    deaf.signal(Signal::TERM);
    assert_eq!(deaf.ends().await, IO, "it served to its end, and says that it was not heard");
    let said = deaf.stderr();
    let state: Value = said.lines().find_map(|line| serde_json::from_str(line).ok()).unwrap();
    assert!(state["message"].is_string() && state["level"] == "INFO", "{state}");
    for line in said.lines().filter(|line| !line.starts_with("standard output: ")) {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }

    let mut text = Running::start(serve(&server.folder, &["--listen", "127.0.0.1:0"]), Stdio::piped());
    addresses(&mut text);
    text.signal(Signal::USR1);
    text.says("SIGUSR1").await;
    text.signal(Signal::TERM);
    assert_eq!(text.ends().await, Some(0));
    assert!(!text.stderr().contains('\u{1b}'), "colors in a file: {}", text.stderr());
}

#[tokio::test]
async fn nothing_that_a_supervisor_sends_ends_a_server_without_a_drain() {
    let folder = tempfile::tempdir().unwrap();
    let hold = folder.path().join("hold");
    let mut server =
        Setup::new().env("MIAOXIANG_HOLD", hold.to_str().unwrap()).env("RUST_LOG", "info").start().await;
    let license = draft(&natural()).issue(&mut server.party("issuer")).await;
    for (name, signal) in [
        ("SIGHUP", Signal::HUP),
        ("SIGUSR1", Signal::USR1),
        ("SIGUSR2", Signal::USR2),
        ("SIGALRM", Signal::ALARM),
        ("SIGVTALRM", Signal::VTALARM),
        ("SIGPROF", Signal::PROF),
        ("SIGIO", Signal::IO),
        ("SIGSTKFLT", Signal::STKFLT),
        ("SIGXFSZ", Signal::XFSZ),
    ] {
        server.signal(signal);
        tests::eventually(name, || async { server.stderr().contains(name).then_some(()) }).await;
    }
    server.signal(Signal::PIPE);
    let state = server.stderr();
    let state =
        state.lines().find(|line| line.contains("epoch_destroyed=")).unwrap_or_else(|| panic!("{state}"));
    for word in ["size=", "queue=", "epoch=", "connections=", "data ", "health=\"ok\""] {
        assert!(state.contains(word), "{word}: {state}");
    }
    // A second signal does not cut off what the first one lets finish.
    fs::write(&hold, "").unwrap();
    let mut bank = server.party("bank");
    let held = license.verify_envelope().header("x-miaoxiang-hold", "1");
    let answer = tokio::spawn(async move { bank.send(&held).await });
    let arrived = hold.with_extension("arrived");
    tests::eventually("the held request", || async { arrived.exists().then_some(()) }).await;
    for (signal, words) in [
        (Signal::QUIT, "SIGQUIT: finishing"),
        (Signal::TERM, "SIGTERM: ending already"),
        (Signal::INT, "SIGINT: ending already"),
        (Signal::HUP, "SIGHUP: ending already"),
    ] {
        server.signal(signal);
        tests::eventually(words, || async { server.stderr().contains(words).then_some(()) }).await;
    }
    fs::remove_file(&hold).unwrap();
    answer.await.unwrap().expect(200);
    assert_eq!(server.exit_status(), Some(0), "{}", server.stderr());
    assert_eq!(server.log_verify()["tornTail"], json!(false));
}

#[tokio::test]
async fn nothing_that_a_supervisor_sends_ends_a_witness_without_a_drain() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("witness");
    exchange::witness::Witness::init(&data, "witness.example").unwrap();
    let mut command = tests::binary("witness");
    command.env_remove("RUST_LOG").args(["serve", "--listen", "localhost:0", "--data"]).arg(&data);
    let mut witness = Running::start(command, Stdio::piped());
    let mut line = String::new();
    BufReader::new(witness.child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    for (name, signal) in [
        ("SIGHUP", Signal::HUP),
        ("SIGUSR1", Signal::USR1),
        ("SIGUSR2", Signal::USR2),
        ("SIGALRM", Signal::ALARM),
        ("SIGPROF", Signal::PROF),
    ] {
        witness.signal(signal);
        witness.says(name).await;
    }
    witness.signal(Signal::QUIT);
    assert_eq!(witness.ends().await, Some(0), "{}", witness.stderr());
}

#[tokio::test]
async fn the_admin_listener_stays_on_loopback_wherever_the_data_listener_is() {
    let mut server = Setup::new().prepare().await;
    for (listen, host) in [("0.0.0.0:0", "0.0.0.0"), ("localhost:0", "127.0.0.1")] {
        let mut running = Running::start(serve(&server.folder, &["--listen", listen]), Stdio::piped());
        let [data, public, admin] = addresses(&mut running);
        assert_eq!([data.ip().to_string(), public.ip().to_string()], [host, host], "{listen}");
        assert!(admin.ip().is_loopback(), "{listen}: admin at {admin}");
        running.signal(Signal::TERM);
        assert_eq!(running.ends().await, Some(0));
    }
    // The file alone is held to the same rule.
    server.config.listen.admin = "0.0.0.0:0".parse().unwrap();
    fs::write(server.folder.join("config.toml"), server.config.to_toml()).unwrap();
    let finished = server.run(&["serve", "--development"]);
    assert_eq!(finished.status, USAGE, "{finished:?}");
    assert!(finished.stderr.contains("listen.admin") && finished.stderr.contains("^^^"), "{finished:?}");
}

#[tokio::test]
async fn paths_mean_what_they_mean_at_the_start() {
    let server = Setup::new().prepare().await;
    let beside = |words: &[&str]| {
        let mut command = command();
        command.current_dir(&server.folder).args(words);
        command
    };
    for words in [&["check-config", "--config", "config.toml"][..], &["log", "verify", "--data", "."]] {
        let output = beside(words).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let words = ["serve", "--development", "--listen", "127.0.0.1:0", "--config", "config.toml"];
    let mut running = Running::start(beside(&words), Stdio::piped());
    addresses(&mut running);
    running.signal(Signal::TERM);
    assert_eq!(running.ends().await, Some(0), "{}", running.stderr());
}

#[tokio::test]
async fn what_cannot_be_undone_is_asked_for() {
    let server = Setup::new().prepare().await;
    let lost = server.folder.with_file_name("successor");
    let close = |stdin: Stdio| {
        let mut command = command();
        command.args(["log", "close", "--data"]).arg(&server.folder).stdin(stdin);
        command.output().unwrap()
    };
    let give_up = || {
        let mut command = command();
        command.args(["init", "--lost", "--continues"]).arg(&server.folder).arg("--data").arg(&lost);
        command.output().unwrap()
    };
    let before = files(&server.folder);
    for (what, output) in [("close", close(Stdio::null())), ("lost", give_up())] {
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), USAGE, "{what}: {stderr}");
        assert!(stderr.contains("cannot be undone") && stderr.contains("--yes"), "{what}: {stderr}");
    }
    // On a terminal it asks, and only one word means yes.
    let terminal = |typed: &str| {
        let master =
            rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).unwrap();
        rustix::pty::grantpt(&master).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
        let own = i32::try_from(rustix::fs::OFlags::NOCTTY.bits()).unwrap();
        let slave =
            fs::OpenOptions::new().read(true).write(true).custom_flags(own).open(name.to_str().unwrap());
        let slave = slave.unwrap();
        rustix::io::write(&master, typed.as_bytes()).unwrap();
        let output = close(Stdio::from(slave));
        drop(master);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, stderr) = terminal("y\n");
    assert_eq!(status, USAGE, "{stderr}");
    assert!(stderr.contains("nothing was done"), "{stderr}");
    assert_eq!(files(&server.folder), before, "nothing was said to be meant");
    assert!(!lost.exists());
    let (status, stderr) = terminal("yes\n");
    assert_eq!(status, Some(0), "{stderr}");
    assert!(server.folder.join("closed.checkpoint").exists());
    // The help tells them apart.
    for words in [&["--help"][..], &["log", "--help"]] {
        let help = run(words).stdout;
        let (commands, apart) = help.split_once("Cannot be undone").unwrap_or_else(|| panic!("{help}"));
        assert!(!commands.contains("for good") && apart.contains("close"), "{help}");
    }
}

#[tokio::test]
async fn what_could_not_be_looked_at_is_no_damage() {
    let mut server = Setup::new().start().await;
    draft(&natural()).issue(&mut server.party("issuer")).await;
    assert_eq!(server.stop(), Some(0));
    assert!(server.folder.join("store").exists(), "a restart image");
    // The lock cannot be taken, as on a file system that is read only.
    let lock = server.folder.join("journal/lock");
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    let finished = server.run(&["log", "verify"]);
    assert_eq!(finished.status, Some(2), "{finished:?}");
    assert!(finished.stdout.contains("not looked at: the restart image"), "{finished:?}");
    let finished = server.run(&["log", "verify", "--json"]);
    let report: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(
        (&report["verdict"], &report["image"], &report["problems"]),
        (&json!("unknown"), &json!("not-looked-at"), &json!([]))
    );
}

/// The table in `verifier::command`, row by row: what each kind of command says when it ends so.
#[tokio::test]
async fn exit_statuses_are_those_of_the_table() {
    let server = Setup::new().prepare().await;
    let nowhere = server.folder.with_file_name("nowhere");
    let nowhere = nowhere.to_str().unwrap();
    let folder = server.folder.to_str().unwrap();
    let proposal = server.folder.join("proposal.json");
    fs::write(&proposal, r#"{"kind":"rotate-epoch","reason":"测试"}"#).unwrap();
    let proposal = proposal.to_str().unwrap();
    let bad = server.folder.join("bad.json");
    fs::write(&bad, "{").unwrap();
    let bad = bad.to_str().unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let told = |program: &str, words: &[&str], status: Option<i32>, word: &str| {
        let output = tests::binary(program).args(words).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), status, "{program} {words:?}: {stderr}");
        assert!(stderr.contains(word), "{program} {words:?}: {stderr}");
        assert!(stderr.matches("No such file").count() <= 1, "a cause is said once: {stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
    };
    // 64: what the command line or the configuration says or names.
    for words in [
        &["serve", "--development", "--data", nowhere][..],
        &["check-config", "--config", nowhere],
        &["log", "verify", "--data", nowhere],
        &["log", "close", "--yes", "--data", nowhere],
        &["rebuild", "--data", nowhere],
        &["archive", "--before", "1", "--data", nowhere],
        &["propose", proposal, "--data", nowhere],
        &["propose", nowhere, "--data", folder],
        &["approve", "00", "--participant", nowhere, "--data", folder],
        &["participant", "add", nowhere, "--data", folder],
        &["participant", "add", "--offline", nowhere, "--data", folder],
        &["keys", "--rotate-now", "--reason", "测试", "--data", nowhere],
        &["log", "export", "--query", nowhere, "--out", nowhere, "--data", folder],
        &["init", "--origin", "a.example", "--operator", nowhere, "--data", nowhere],
        &["init", "--continues", nowhere, "--data", nowhere],
    ] {
        told("exchange", words, USAGE, "No such file");
    }
    told("exchange", &["propose", bad, "--data", folder], USAGE, "line 1");
    told("exchange", &["archive", "--before", "1", "--data", folder], USAGE, "");
    told("exchange", &["init", "--continues", folder, "--data", nowhere], USAGE, "is not closed");
    for listen in ["127.0.0.1:65535", "localhost:65534"] {
        let words = ["serve", "--development", "--data", folder, "--listen", listen];
        told("exchange", &words, USAGE, "--listen");
        told("exchange", &["quickstart", "--data", folder, "--listen", listen], USAGE, "65533");
    }
    told("witness", &["serve", "--data", nowhere], USAGE, "No such file");
    told("witness", &["add-log", "--data", nowhere, "no key"], USAGE, "");
    told("certs", &["inspect", nowhere], USAGE, "No such file");
    told("certs", &["bundle", "--name", "a", nowhere, "--data", folder], USAGE, "No such file");
    told("verifier", &["license", nowhere, "--trust", nowhere], USAGE, "No such file");
    told("verifier", &["license"], USAGE, "");
    // 69: not now.
    told("exchange", &["propose", proposal, "--data", folder, "--server", &closed], UNAVAILABLE, &closed);
    told(
        "exchange",
        &["propose", proposal, "--data", folder, "--server", "nowhere.invalid:1"],
        UNAVAILABLE,
        "nowhere.invalid",
    );
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let witness = server.folder.with_file_name("witness");
    let witness = witness.to_str().unwrap();
    told("witness", &["init", "--name", "w.example", "--data", witness], Some(0), "");
    told("witness", &["init", "--name", "v.example", "--data", witness], USAGE, "w.example already");
    told("witness", &["serve", "--data", witness, "--listen", &address], UNAVAILABLE, &address);
    // 65: the data is not the log's, a key is not the data's.
    fs::write(Path::new(witness).join("key"), "junk").unwrap();
    told("witness", &["serve", "--data", witness], DATA, "key");
    let key = server.folder.join("keys/log");
    let sealed = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    let serve = ["serve", "--development", "--data", folder, "--listen", "127.0.0.1:0"];
    for words in [
        &serve[..],
        &["check-config", "--data", folder],
        &["log", "verify", "--data", folder],
        &["log", "close", "--yes", "--data", folder],
        &["rebuild", "--data", folder],
        &["quickstart", "--data", folder, "--listen", "127.0.0.1:0"],
    ] {
        told("exchange", words, DATA, "keys");
    }
    fs::write(&key, sealed).unwrap();
    // 74: the system.
    let journal = server.folder.join("journal");
    let aside = server.folder.join("aside");
    fs::rename(&journal, &aside).unwrap();
    fs::write(&journal, "no folder").unwrap();
    for words in [&serve[..], &["rebuild", "--data", folder]] {
        told("exchange", words, IO, "journal");
    }
    // A check says that it cannot tell.
    told("exchange", &["log", "verify", "--data", folder], Some(2), "");
    fs::remove_file(&journal).unwrap();
    fs::rename(&aside, &journal).unwrap();
    told("exchange", &["log", "verify", "--data", folder], Some(0), "");
}

#[tokio::test]
async fn a_disk_that_is_nearly_full_is_told_with_figures() {
    let mut server = Setup::new().stranger("late").prepare().await;
    server.configure(|config| config.journal.reserve_segments = u32::MAX);
    let registration = server.folder.join("participant.json");
    let body = json!({
        "organisation": server.organisation("late").to_string(), "name": "测试后来者", "roles": ["relying"],
        "validFrom": "2026-01-01",
    });
    fs::write(&registration, body.to_string()).unwrap();
    let finished = server.run(&["participant", "add", "--offline", registration.to_str().unwrap()]);
    assert_eq!(finished.status, IO, "{finished:?}");
    let last = finished.stderr.trim_end().lines().last().unwrap();
    assert!(last.contains("MiB are free") && last.contains("are the reserve"), "{finished:?}");
    assert!(last.contains("exchange archive") && last.contains("reserve_segments"), "{finished:?}");
    // At a start, too.
    server.start();
    assert!(server.stderr().contains("MiB are free"), "{}", server.stderr());
}

/// License types are published by two operators, none comes with the program; how long a use may be kept from its holders is
/// said once, when the log is made.
#[tokio::test]
async fn a_production_log_begins_without_types_and_with_its_own_bound_of_delays() {
    let server = Setup::new().stranger("police").prepare().await;
    let fresh = server.folder.with_file_name("production");
    let operator = server.folder.join("pki/clients/operator.pem");
    let init = |days: &str| {
        let mut command = command();
        command.args(["init", "--origin", "log.example.test", "--delay-days-max", days]);
        command.arg("--operator").arg(&operator).arg("--data").arg(&fresh).output().unwrap().status.code()
    };
    assert_eq!(init("3661"), Some(64));
    assert_eq!(init("30"), Some(0));
    let mut config = exchange::config::Config::load(&fresh.join("config.toml")).unwrap();
    let register = |config: &exchange::config::Config, days: u16| {
        let class = json!({"days": days, "legalBasis": "测试法第一条"});
        let file = config.folder.join("police.json");
        let registration = json!({
            "organisation": server.organisation("police").as_str(), "name": "测试公安", "roles": ["relying"],
            "validFrom": "2026-01-01", "delays": {"investigation": class},
        });
        fs::write(&file, registration.to_string()).unwrap();
        let mut command = command();
        command.args(["participant", "add", "--offline"]).arg(&file).arg("--data").arg(&config.folder);
        command.output().unwrap().status.code()
    };
    assert_ne!(register(&config, 31), Some(0), "longer than the log allows");
    // A successor of the log has the same bound. It takes along what TLS has, and says what is missing.
    fs::copy(server.folder.join("pki/ca.pem"), fresh.join("pki/ca.pem")).unwrap();
    let backup = server.folder.with_file_name("backup");
    let backed =
        command().arg("backup").arg("--data").arg(&fresh).arg("--out").arg(&backup).output().unwrap();
    assert_eq!(backed.status.code(), Some(0), "{}", String::from_utf8_lossy(&backed.stderr));
    let said = String::from_utf8_lossy(&backed.stdout);
    assert!(said.contains("not there, so not copied: ") && backup.join("pki/ca.pem").exists(), "{said}");
    let close = command().args(["log", "close", "--yes", "--data"]).arg(&fresh).output().unwrap();
    assert_eq!(close.status.code(), Some(0), "{}", String::from_utf8_lossy(&close.stderr));
    let next = server.folder.with_file_name("next");
    let continued =
        command().args(["init", "--continues"]).arg(&fresh).arg("--data").arg(&next).output().unwrap();
    assert_eq!(continued.status.code(), Some(0), "{}", String::from_utf8_lossy(&continued.stderr));
    let pki = next.join("pki");
    let missing = format!(
        "still to be put there: {}, {}\n",
        pki.join("server.pem").display(),
        pki.join("server.key").display()
    );
    let said = String::from_utf8_lossy(&continued.stdout);
    assert!(said.contains(&missing) && pki.join("ca.pem").exists(), "{said}");
    let restored = server.folder.with_file_name("restored");
    let mut restore = command();
    restore.arg("restore").arg("--from").arg(&backup).arg("--data").arg(&restored);
    let restored = restore.arg("--kek").arg(fresh.join("secret/kek")).output().unwrap();
    assert_eq!(restored.status.code(), Some(0), "{}", String::from_utf8_lossy(&restored.stderr));
    assert!(String::from_utf8_lossy(&restored.stdout).contains("still to be put there: "), "{restored:?}");
    config = exchange::config::Config::load(&next.join("config.toml")).unwrap();
    assert_eq!([31, 30].map(|days| register(&config, days) == Some(0)), [false, true]);
    let keys = exchange::opening::ledger_keys(&exchange::opening::key_folder(&config).unwrap()).unwrap();
    let mut kinds = Vec::new();
    ledger::entries(exchange::opening::ledger_options(&config), keys, |entry| {
        kinds.extend(entry.record.documents.iter().map(|document| document.kind));
    })
    .unwrap();
    assert!(!kinds.contains(&ledger::DocumentKind::LicenseType.number()), "a type nobody has published");
}

#[tokio::test]
async fn each_state_is_said_in_words() {
    let mut server = Setup::new().start().await;
    let (status, states) = server.states().await;
    assert!(status == 200 && states.is_empty(), "{states:?}");
    assert_eq!(server.admin("/health").await.body, "ok\n");
    assert_eq!(server.stop(), Some(0));
    let said = async |server: &Server, state: &str, expected: u16, word: &str| {
        let (status, states) = server.states().await;
        assert!(states.get(state).is_some_and(|words| words.contains(word)), "{state}: {states:?}");
        assert_eq!(status, expected, "{state}");
        assert_eq!(server.admin("/ready").await.json["ready"], json!(expected == 200));
        let health = server.admin("/health").await.expect(200).body;
        assert!(health.starts_with(b"alarm: "), "{health:?}");
    };

    let segments = server.config.journal.reserve_segments;
    server.configure(|config| config.journal.reserve_segments = 4_000_000);
    server.start();
    said(&server, "journal-full", 503, "below the reserve").await;
    assert_eq!(server.stop(), Some(0));
    server.configure(|config| config.journal.reserve_segments = segments);

    // A clock that was ten days fast for one entry.
    server.later(10 * 86_400_000).await.close().await;
    let refused = server.start_refused();
    assert_eq!(refused.status, DATA, "{refused:?}");
    assert!(refused.stderr.contains("behind the journal's last entry of 20"), "{refused:?}");
    assert!(refused.stderr.contains("--accept-clock"), "{refused:?}");
    // Each command that holds the clock against the journal takes the word that the refusal names.
    assert_eq!(server.run(&["rebuild"]).status, DATA);
    assert_eq!(server.run(&["rebuild", "--accept-clock"]).status, Some(0));
    server.set_words(&["--accept-clock"]);
    server.start();
    said(&server, "journal-ahead", 200, "journal time is 9 days 23 h").await;
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test]
async fn each_metric_is_described_with_its_labels() {
    let server = Setup::new().start().await;
    draft(&natural()).issue(&mut server.party("issuer")).await;
    let text = String::from_utf8(server.admin("/metrics").await.body.to_vec()).unwrap();
    let mut shown = 0;
    for family in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = family.split_once(' ').unwrap();
        let described = exchange::meters::METRICS.iter().find(|metric| metric.name == name);
        let described = described.unwrap_or_else(|| panic!("{name} is not described"));
        assert_eq!(format!("{:?}", described.kind).to_lowercase(), kind, "{name}");
        assert!(text.contains(&format!("# HELP {name} {}\n", described.help)), "{name} has no HELP");
        for series in text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(['{', '_'])) {
            let Some((labels, _)) = series.rsplit_once('}') else { continue };
            // Of a histogram the name goes on.
            let labels = labels.rsplit_once('{').map_or(labels, |(_, labels)| labels);
            let labels: Vec<&str> = labels.split(',').map(|label| label.split_once('=').unwrap().0).collect();
            let mut labels: Vec<&str> = labels.into_iter().filter(|label| *label != "le").collect();
            let mut wanted = described.labels.to_vec();
            labels.sort_unstable();
            wanted.sort_unstable();
            assert_eq!(labels, wanted, "{name}");
        }
        shown += 1;
    }
    assert!(shown > 10, "{text}");
}
