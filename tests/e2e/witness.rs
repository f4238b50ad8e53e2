//! Witnesses: what is served is cosigned, a log that forks or goes back is refused, a witness that is gone or slow
//! holds up nobody. And the public log as C2SP tlog-tiles has it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use exchange::config::WitnessAddress;
use exchange::succession::{close_statement, open_statement};
use exchange::witness::{Submission, Witness};
use ledger::Tail;
use schemas::routes::Route;
use serde_json::json;
use tests::{
    Call, Finished, Issued, Reply, Server, Setup, WitnessProcess, binary, draft, eventually, holder, natural,
    sha256, shared, use_context,
};
use verifier::checkpoint::Checkpoint;
use verifier::leaf::{LeafKind, statement_leaf};
use verifier::merkle::{leaf_hash, verify_consistency, verify_inclusion};
use verifier::note::{CosignerKey, SignedNote};
use verifier::proof::{TlogProof, parse_nodes};

/// Exit status of a start that finds the log older or other than its witnesses have seen it.
const ROLLED_BACK: i32 = 65;
/// Exit status of a serving exchange whose log is proven to be another than its witnesses have seen.
const STOPPED: i32 = 74;

/// A server under two witnesses, both of which must cosign.
struct World {
    server: Server,
    witnesses: [WitnessProcess; 2],
}

impl World {
    async fn new() -> Self {
        let mut server = Setup::new().prepare().await;
        let log = server.log_key();
        let witnesses = ["one.example", "two.example"].map(|name| WitnessProcess::start_new(name, &log));
        server.configure(|config| {
            config.quorum = 2;
            config.witnesses = witnesses.iter().map(WitnessProcess::configured).collect();
        });
        let policy: String =
            (1..).zip(&witnesses).map(|(at, one)| format!("witness w{at} {}\n", one.key)).collect();
        fs::write(server.folder.join("policy"), format!("{policy}group all all w1 w2\nquorum all\n"))
            .unwrap();
        server.start();
        Self { server, witnesses }
    }

    /// One answered request, its answer and a proof of it in files; gives its index.
    async fn use_one(&self, license: &Issued, name: &str) -> u64 {
        let reply = self.server.party("bank").send(&license.verify_envelope()).await.expect(200);
        self.keep(&reply, name).await
    }

    /// Stops the server and puts a snapshot of its folder back, from before a use that the witnesses cosigned. Gives the
    /// folder that has the use.
    async fn roll_back(&mut self, license: &Issued) -> PathBuf {
        assert_eq!(self.server.stop(), Some(0));
        let aside = self.server.folder.with_file_name("aside");
        copy(&self.server.folder, &aside);
        // A snapshot of the disk, which brings the journal back to its own place.
        fs::remove_file(aside.join("journal/place")).unwrap();
        self.server.start();
        self.use_one(license, "later").await;
        assert_eq!(self.server.stop(), Some(0));
        let newest = aside.with_file_name("newest");
        fs::rename(&self.server.folder, &newest).unwrap();
        fs::rename(&aside, &self.server.folder).unwrap();
        newest
    }

    async fn keep(&self, reply: &Reply, name: &str) -> u64 {
        let index = reply.receipt().index;
        let proof = self.server.public(&format!("/v1/log/proof/{index}")).await.expect(200);
        fs::write(self.server.folder.join(name), &reply.body).unwrap();
        fs::write(self.server.folder.join(format!("{name}.proof")), &proof.body).unwrap();
        index
    }

    /// `verifier receipt` on a kept answer with its proof.
    fn verify(&self, name: &str, words: &[&str]) -> Finished {
        let mut command = binary("verifier");
        command.args(["receipt", name, "--proof", &format!("{name}.proof")]).args(words);
        command.args(["--trust", "pki/trust-bundle.note", "--anchor", &self.server.anchor()]);
        command.current_dir(&self.server.folder);
        finished(&mut command)
    }
}

fn finished(command: &mut Command) -> Finished {
    let output = command.output().unwrap();
    Finished {
        status: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[track_caller]
fn assert_said(finished: &Finished, status: i32, words: &[&str]) {
    assert_eq!(finished.status, Some(status), "{finished:?}");
    for word in words {
        assert!(finished.stdout.contains(word), "no {word:?} in {finished:?}");
    }
}

/// Name and digest of every file below a folder.
fn files(folder: &Path) -> BTreeMap<String, [u8; 32]> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.display().to_string(), sha256(&fs::read(&path).unwrap()));
        }
    }
    found
}

/// `exchange init --continues` of one data folder into another.
fn successor(old: &Path, new: &Path, words: &[&str]) -> Finished {
    let mut command = binary("exchange");
    finished(command.args(["init", "--continues"]).arg(old).arg("--data").arg(new).args(words))
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

#[tokio::test]
async fn receipts_are_cosigned_by_two_of_two_and_cannot_be_told_with_one() {
    let mut world = World::new().await;
    let license = draft(&natural()).issue(&mut world.server.party("issuer")).await;
    world.use_one(&license, "both").await;
    let policy = ["--policy", "policy"];
    assert_said(&world.verify("both", &policy), 0, &["receipt genuine: ", "witnesses    2 of 2\n"]);
    // A batch waits for them, and its report shows them.
    let lines = vec![license.verify_envelope().body; 3].join(&b'\n');
    let batch = Call::raw(Route::VerifyBatch, lines).header("content-type", "application/x-ndjson");
    let reported = world.server.party("bank").send(&batch).await.expect(200);
    let file = world.server.folder.join("report");
    fs::write(&file, &reported.body).unwrap();
    let policy_file = world.server.folder.join("policy").display().to_string();
    let said = world.server.verifier(&["report", file.to_str().unwrap(), "--policy", &policy_file]);
    assert_said(&said, 0, &["report genuine: 3 answers", "witnesses    2 of 2\n"]);

    // With one witness gone the log goes on, and says less.
    world.witnesses[1].kill();
    world.use_one(&license, "one").await;
    let said = world.verify("one", &policy);
    assert_said(&said, 2, &["cannot tell: witnesses-short\n", "witnesses    1 of 2\n"]);
    assert_said(&world.verify("one", &[]), 0, &["receipt genuine: "]);
    assert_said(&world.verify("both", &policy), 0, &["witnesses    2 of 2\n"]);
    let behind = [("witness", "two.example"), ("result", "unreachable")];
    assert!(world.server.metric("miaoxiang_witness_submissions_total", &behind).await > 0);
    assert!(world.server.stderr().contains("a witness is behind"), "{}", world.server.stderr());

    // It comes back and has missed nothing.
    world.witnesses[1].start();
    let index = world.use_one(&license, "again").await;
    eventually("two of two", || async {
        let proof = world.server.public(&format!("/v1/log/proof/{index}")).await.expect(200);
        fs::write(world.server.folder.join("again.proof"), &proof.body).unwrap();
        (world.verify("again", &policy).status == Some(0)).then_some(())
    })
    .await;

    // Every view is one log: each later one has grown from each earlier one.
    let checkpoint = |name: &str| {
        let text = fs::read_to_string(world.server.folder.join(format!("{name}.proof"))).unwrap();
        let note = TlogProof::parse(&text).unwrap().checkpoint;
        let log = world.server.log_key();
        let note = SignedNote::parse(&note).unwrap();
        Checkpoint::parse(&note.verify(&[log]).unwrap()).unwrap()
    };
    let (old, new) = (checkpoint("both"), checkpoint("again"));
    let previous = ["--previous", "both.proof"];
    assert_said(&world.verify("again", &previous), 2, &["no-consistency-proof"]);
    let path = format!("/v1/log/consistency/{}/{}", old.size, new.size);
    let nodes = world.server.public(&path).await.expect(200);
    fs::write(world.server.folder.join("nodes"), &nodes.body).unwrap();
    let proved = ["--previous", "both.proof", "--consistency", "nodes"];
    assert_said(&world.verify("again", &proved), 0, &["inclusion, previous\n"]);
    fs::write(world.server.folder.join("nodes"), "").unwrap();
    assert_said(&world.verify("again", &proved), 1, &["inconsistent"]);
}

#[tokio::test]
async fn pages_are_held_against_the_policy_like_receipts() {
    let mut world = World::new().await;
    assert_eq!(world.server.stop(), Some(0));
    world.server.configure(|config| config.journal.index_root_seconds = 1);
    world.server.start();
    let license = draft(&natural()).issue(&mut world.server.party("issuer")).await;
    let used = world.use_one(&license, "used").await;
    let of = json!({"holder": holder(license.draft.holder()), "use": use_context()});
    let of = Call::new(Route::Trace, &of);
    let query = json!({"purpose": "测试", "userName": "审计员", "fromIndex": used, "limit": 1});
    let query = Call::new(Route::LogQuery, &query);
    let check = async |world: &World, command: &str, words: &[&str]| {
        let (call, name) = if command == "trace" { (&of, "portal") } else { (&query, "auditor") };
        let reply = world.server.party(name).send(call).await.expect(200);
        // The query goes on behind its first entry: what is checked here is one page of it.
        let body = match String::from_utf8(reply.hashed()).unwrap() {
            page if command == "audit" => page.replace(&format!("\"next\":{}", used + 1), "\"next\":null"),
            page => page,
        };
        fs::write(world.server.folder.join("pages"), body).unwrap();
        let mut verifier = binary("verifier");
        verifier.args([command, "pages"]).args(words);
        verifier.args(["--trust", "pki/trust-bundle.note", "--anchor", &world.server.anchor()]);
        verifier.current_dir(&world.server.folder);
        finished(&mut verifier)
    };
    let policy = ["--policy", "policy"];
    for command in ["trace", "audit"] {
        eventually("pages cosigned by two of two", || async {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            let said = check(&world, command, &policy).await;
            (said.status == Some(0) && said.stdout.contains("witnesses    2 of 2\n")).then_some(())
        })
        .await;
    }
    world.witnesses[1].kill();
    for command in ["trace", "audit"] {
        eventually("pages cosigned by one of two", || async {
            world.use_one(&license, "more").await;
            let said = check(&world, command, &policy).await;
            let short = said.status == Some(2)
                && said.stdout.contains("witnesses-short")
                && said.stdout.contains("witnesses    1 of 2\n")
                && !said.stdout.contains("complete up to");
            short.then_some(())
        })
        .await;
        // Without the policy it cannot tell only until an index root holds the last use.
        eventually("nobody asked for witnesses", || async {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            let said = check(&world, command, &[]).await;
            assert!(!said.stdout.contains("witnesses-short"), "{said:?}");
            (said.status == Some(0)).then_some(())
        })
        .await;
    }
    fs::write(world.server.folder.join("policy"), "quorum all\n").unwrap();
    assert_eq!(check(&world, "trace", &policy).await.status, Some(64), "a policy that cannot be read");
}

#[tokio::test]
async fn a_log_that_went_back_is_refused_at_start_and_left_as_it_is() {
    let mut world = World::new().await;
    let license = draft(&natural()).issue(&mut world.server.party("issuer")).await;
    // Shorter than what was cosigned.
    let newest = world.roll_back(&license).await;
    let journal = world.server.folder.join("journal");
    let before = files(&journal);
    let refused = world.server.start_refused();
    assert_eq!(refused.status, Some(ROLLED_BACK), "{}", refused.stderr);
    assert!(refused.stderr.contains("the log went back") && refused.stderr.contains(".example has cosigned"));
    assert_eq!(files(&journal), before, "a refused start leaves the journal as it is");

    // With the witnesses out of reach it starts, and says what it does not know.
    world.witnesses.iter_mut().for_each(WitnessProcess::kill);
    world.server.start();
    assert!(world.server.stderr().contains("could not be asked"), "{}", world.server.stderr());
    for _ in 0..8 {
        world.server.party("bank").send(&license.verify_envelope()).await.expect(200);
    }
    assert_eq!(world.server.stop(), Some(0));

    // By now it is longer than what was cosigned, and another log.
    world.witnesses.iter_mut().for_each(WitnessProcess::start);
    let refused = world.server.start_refused();
    assert_eq!(refused.status, Some(ROLLED_BACK), "{}", refused.stderr);
    assert!(refused.stderr.contains("did not grow from"), "{}", refused.stderr);
    // The log that was cosigned is good as ever.
    fs::remove_dir_all(&world.server.folder).unwrap();
    fs::rename(newest, &world.server.folder).unwrap();
    world.server.start();
    world.use_one(&license, "good").await;
    assert_said(&world.verify("good", &["--policy", "policy"]), 0, &["witnesses    2 of 2\n"]);
}

#[tokio::test]
async fn a_log_that_went_back_and_outgrew_its_witness_stops_when_the_witness_is_back() {
    let mut world = World::new().await;
    let license = draft(&natural()).issue(&mut world.server.party("issuer")).await;
    world.roll_back(&license).await;
    world.witnesses.iter_mut().for_each(WitnessProcess::kill);

    // Nobody can tell, and it grows beyond what the witnesses hold.
    world.server.set_words(&["--moved"]);
    world.server.start();
    for _ in 0..8 {
        world.server.party("bank").send(&license.verify_envelope()).await.expect(200);
    }
    let (status, states) = world.server.states().await;
    assert!(status == 200 && states.contains_key("witness-behind"), "{states:?}");
    world.witnesses[0].start();
    assert_eq!(world.server.exit_status(), Some(STOPPED), "{}", world.server.stderr());
    let said = world.server.stderr();
    assert!(said.contains("did not grow from") && said.contains("bears this log's signature"), "{said}");
    assert!(!said.contains("two.example has cosigned"), "only one was back: {said}");
}

/// A witness in name only: it has cosigned more than there is, and shows nothing.
fn liar() -> WitnessAddress {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                loop {
                    let (mut head, mut length) = (String::new(), 0);
                    while !head.ends_with("\r\n\r\n") {
                        if reader.read_line(&mut head).unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    for line in head.lines() {
                        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                            length = value.parse().unwrap();
                        }
                    }
                    std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink()).unwrap();
                    let answer = match head.starts_with("POST") {
                        true => "HTTP/1.1 409 Conflict\r\ncontent-length: 7\r\n\r\n999999\n",
                        false => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
                    };
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    WitnessAddress { url, key: CosignerKey::ed25519("liar.example", &[7; 32]).unwrap() }
}

#[tokio::test]
async fn a_status_alone_raises_an_alarm_and_stops_nothing() {
    let mut server = Setup::new().prepare().await;
    server.configure(|config| {
        config.quorum = 1;
        config.witnesses = vec![liar()];
    });
    server.start();
    let license = draft(&natural()).issue(&mut server.party("issuer")).await;
    for _ in 0..3 {
        server.party("bank").send(&license.verify_envelope()).await.expect(200);
        let (status, states) = server.states().await;
        let words = states.get("witness-contradicts").unwrap_or_else(|| panic!("{states:?}"));
        assert!(status == 200 && words.contains("liar.example") && words.contains("999999"), "{words}");
    }
    let health = server.admin("/health").await.expect(200);
    assert!(health.body.starts_with(b"alarm: witness liar.example says"), "{:?}", health.body);
    assert_eq!(server.metric("miaoxiang_witness_contradicts", &[("witness", "liar.example")]).await, 1);
    assert!(server.stderr().contains("a witness contradicts the log"), "{}", server.stderr());
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test]
async fn a_closed_log_takes_nothing_more_and_its_successor_goes_on() {
    let mut world = World::new().await;
    let license = draft(&natural()).issue(&mut world.server.party("issuer")).await;
    world.use_one(&license, "kept").await;
    let locked = world.server.run(&["log", "close", "--yes"]);
    assert_eq!(locked.status, Some(69), "not beside a serving process: {locked:?}");
    let early = world.server.folder.with_file_name("early");
    let refused = successor(&world.server.folder, &early, &[]);
    assert!(refused.status == Some(64) && refused.stderr.contains("is not closed"), "{refused:?}");
    assert_eq!(world.server.stop(), Some(0));

    let closed = world.server.run(&["log", "close", "--yes"]);
    assert_eq!(closed.status, Some(0), "{closed:?}");
    let last = fs::read_to_string(world.server.folder.join("closed.checkpoint")).unwrap();
    assert_eq!(closed.stdout, last);
    let note = SignedNote::parse(&last).unwrap();
    let old = Checkpoint::parse(&note.verify(&[world.server.log_key()]).unwrap()).unwrap();
    let known = world.witnesses.each_ref().map(|witness| witness.key.clone());
    assert_eq!(note.cosignatures(&known).unwrap().len(), 2);
    let again = world.server.run(&["log", "close", "--yes"]);
    let size = old.size.to_string();
    assert!(again.status == Some(0) && again.stdout.lines().nth(1) == Some(size.as_str()), "{again:?}");
    assert_eq!(world.server.log_verify()["size"], old.size);

    // Closed for good: what is public is still read, nothing is decided.
    world.server.start();
    let reply = world.server.party("bank").send(&license.verify_envelope()).await;
    assert_eq!((reply.status, reply.code()), (503, "log-closed"));
    let (status, states) = world.server.states().await;
    assert!(status == 503 && states["closed"].contains("successor"), "{states:?}");
    let bundle = world.server.public(&format!("/v1/log/proof/{}", old.size - 1)).await.expect(200);
    let proof = TlogProof::parse(std::str::from_utf8(&bundle.body).unwrap()).unwrap();
    let statement = close_statement(&world.server.config.origin);
    let leaf = leaf_hash(&statement_leaf(LeafKind::ShardClose, statement.as_bytes()));
    assert!(verify_inclusion(old.size - 1, old.size, &leaf, &proof.path, &old.root));
    assert_eq!(world.server.stop(), Some(0));

    // The successor says whom it continues, knows the same participants, and both logs are trusted.
    let folder = world.server.folder.with_file_name("successor");
    let made = successor(&world.server.folder, &folder, &[]);
    assert_eq!(made.status, Some(0), "{made:?}");
    let again = successor(&world.server.folder, &folder, &[]);
    assert_eq!(again.status, Some(0), "a run that was cut off is completed");
    copy(&world.server.folder.join("pki/clients"), &folder.join("pki/clients"));
    let policy = world.server.folder.join("policy");
    copy(&policy, &folder.join("policy"));
    let kept = ["kept", "kept.proof"].map(|name| fs::read(world.server.folder.join(name)).unwrap());
    let mut next = world;
    next.server.move_to(&folder);
    assert_ne!(next.server.config.origin, old.origin);
    for witness in &mut next.witnesses {
        witness.kill();
        Witness::add_log(&witness.folder, &next.server.log_key()).unwrap();
        witness.start();
    }
    next.server.start();
    let first = next.server.public("/v1/log/tile/entries/000.p/1").await.expect(200);
    let tail = Tail { size: old.size, root: old.root, closed: true };
    let statement = open_statement(&old.origin, &tail);
    assert_eq!(first.body[2..], statement_leaf(LeafKind::ShardOpen, statement.as_bytes()));
    let license = draft(&natural()).issue(&mut next.server.party("issuer")).await;
    next.use_one(&license, "new").await;
    assert_said(&next.verify("new", &["--policy", "policy"]), 0, &["witnesses    2 of 2\n"]);
    // What the old log proved stays proven, under the new trust bundle.
    for (name, bytes) in ["kept", "kept.proof"].iter().zip(&kept) {
        fs::write(next.server.folder.join(name), bytes).unwrap();
    }
    assert_said(&next.verify("kept", &["--policy", "policy"]), 0, &["witnesses    2 of 2\n"]);
}

#[tokio::test]
async fn a_log_that_went_back_is_given_up_for_a_successor() {
    let mut server = Setup::new().prepare().await;
    let (one, two) = (server.folder.with_file_name("one"), server.folder.with_file_name("two"));
    let (journal, newer) = (server.folder.join("journal"), server.folder.with_file_name("newer"));
    assert_eq!(successor(&server.folder, &one, &[]).status, Some(64));
    // A disk that came back without its last segments, and with the guard that knows of them.
    let before = server.folder.with_file_name("before");
    copy(&journal, &before);
    server.start();
    draft(&natural()).issue(&mut server.party("issuer")).await;
    assert_eq!(server.stop(), Some(0));
    fs::rename(&journal, &newer).unwrap();
    fs::rename(&before, &journal).unwrap();
    fs::copy(newer.join("guard"), journal.join("guard")).unwrap();
    let refused = successor(&server.folder, &one, &[]);
    assert!(refused.status != Some(0) && refused.stderr.contains("rolled back"), "{refused:?}");
    let made = successor(&server.folder, &two, &["--lost", "--yes"]);
    assert_eq!(made.status, Some(0), "{made:?}");
    let mut command = binary("exchange");
    assert_said(&finished(command.args(["log", "verify", "--data"]).arg(&two)), 0, &["log good"]);
}

#[tokio::test]
async fn a_witness_that_never_answers_holds_up_nobody() {
    let mut server = Setup::new().prepare().await;
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let good = WitnessProcess::start_new("good.example", &server.log_key());
    server.configure(|config| {
        config.quorum = 1;
        let mut other = good.configured();
        other.url = format!("http://{}", silent.local_addr().unwrap());
        other.key = CosignerKey::ed25519("silent.example", &[7; 32]).unwrap();
        config.witnesses = vec![other, good.configured()];
    });
    server.start();
    let license = draft(&natural()).issue(&mut server.party("issuer")).await;
    for _ in 0..3 {
        let reply = server.party("bank").send(&license.verify_envelope()).await.expect(200);
        let proof = server.public(&format!("/v1/log/proof/{}", reply.receipt().index)).await.expect(200);
        let proof = TlogProof::parse(std::str::from_utf8(&proof.body).unwrap()).unwrap();
        let known = [good.key.clone()];
        assert_eq!(SignedNote::parse(&proof.checkpoint).unwrap().cosignatures(&known).unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_witness_speaks_the_protocol_and_lets_one_of_many_win() {
    let server = shared(Setup::new).await;
    let witness = WitnessProcess::start_new("w.example", &server.log_key());
    let checkpoint = server.public("/v1/log/checkpoint").await.expect(200);
    let text = String::from_utf8(checkpoint.body.to_vec()).unwrap();
    let first = Submission { old: 0, proof: Vec::new(), checkpoint: text.clone() }.to_text();
    // Each of these grows from nothing, so whoever comes first has all others told its size.
    let answers = std::iter::repeat_with(|| witness.post(first.clone())).take(16);
    let mut statuses: Vec<u16> = Vec::new();
    for answer in futures(answers).await {
        if answer.status == 409 {
            assert_eq!(answer.content_type, "text/x.tlog.size");
            let size = text.lines().nth(1).unwrap();
            assert_eq!(answer.body, format!("{size}\n"));
        }
        statuses.push(answer.status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [vec![200], vec![409; 15]].concat());

    let hash = hex::encode(verifier::sha256(&[server.config.origin.as_bytes()]));
    let shown = witness.get(&format!("/{hash}/checkpoint")).await.expect(200);
    assert!(shown.body.starts_with(text.as_bytes()));
    for (reply, status) in [
        (witness.get("/add-checkpoint").await, 405),
        (witness.get("/").await, 404),
        (witness.get(&format!("/{}/checkpoint", "0".repeat(64))).await, 404),
        (witness.post("old 0\n").await, 400),
        (witness.post(vec![b'x'; 200_000]).await, 400),
        (witness.post(first.replace(&server.config.origin, "another.log/1")).await, 404),
    ] {
        assert_eq!(reply.status, status);
    }
}

/// The answers of requests that are all under way at once.
async fn futures<F: Future<Output = Reply>>(requests: impl Iterator<Item = F>) -> Vec<Reply> {
    let mut waiting: Vec<_> = requests.map(Box::pin).collect();
    let mut done = Vec::new();
    std::future::poll_fn(|context| {
        waiting.retain_mut(|request| match request.as_mut().poll(context) {
            std::task::Poll::Ready(reply) => {
                done.push(reply);
                false
            }
            std::task::Poll::Pending => true,
        });
        if waiting.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done
}

#[tokio::test]
async fn the_public_log_is_served_as_tlog_tiles_has_it() {
    let server = shared(Setup::new).await;
    let mut bank = server.party("bank");
    let license = draft(&natural()).issue(&mut server.party("issuer")).await;
    for _ in 0..280 {
        bank.send(&license.verify_envelope()).await.expect(200);
    }
    server.proof(server.size().await - 1).await;
    let checkpoint = server.public("/v1/log/checkpoint").await;
    assert_eq!(checkpoint.content_type, "text/plain; charset=utf-8");
    assert_eq!(checkpoint.cache_control.as_deref(), Some("no-cache"));
    let note = String::from_utf8(checkpoint.body.to_vec()).unwrap();
    let note = SignedNote::parse(&note).unwrap().verify(&[server.log_key()]).unwrap().text().to_owned();
    let size: u64 = note.lines().nth(1).unwrap().parse().unwrap();
    assert!(size > 256, "{size}");

    // Full and partial tiles and bundles, and any narrower one of the same.
    let rest = size % 256;
    for (path, bytes) in [
        ("0/000".to_owned(), 256 * 32),
        (format!("0/001.p/{rest}"), rest * 32),
        ("0/000.p/1".to_owned(), 32),
        ("1/000.p/1".to_owned(), 32),
        ("entries/000".to_owned(), 256 * 36),
        (format!("entries/001.p/{rest}"), rest * 36),
    ] {
        let reply = server.public(&format!("/v1/log/tile/{path}")).await;
        assert_eq!((reply.status, reply.body.len() as u64), (200, bytes), "{path}");
        assert_eq!(reply.content_type, "application/octet-stream");
        assert_eq!(reply.cache_control.as_deref(), Some("public, max-age=31536000, immutable"));
    }
    let bundle = server.public("/v1/log/tile/entries/000").await.body;
    let tile = server.public("/v1/log/tile/0/000").await.body;
    for (entry, hash) in bundle.chunks(36).zip(tile.chunks(32)) {
        assert_eq!(entry[..2], [0, 34]);
        assert_eq!(leaf_hash(&entry[2..]), hash);
    }
    for path in [
        format!("0/001.p/{}", rest + 1),
        "0/001".to_owned(),
        "0/002.p/1".to_owned(),
        "0/000.p/0".to_owned(),
        "0/000.p/256".to_owned(),
        "0/000.p/01".to_owned(),
        "00/000".to_owned(),
        "0/0".to_owned(),
        "0/x000/000".to_owned(),
        "1/000".to_owned(),
        "2/000.p/1".to_owned(),
        "63/000.p/1".to_owned(),
        "64/000.p/1".to_owned(),
        "entries/001".to_owned(),
        "entries".to_owned(),
    ] {
        assert_eq!(server.public(&format!("/v1/log/tile/{path}")).await.status, 404, "{path}");
    }

    // Consistency between any two sizes, and none beyond.
    let root_of = |size: u64| {
        let hashes = tile.chunks(32).take(usize::try_from(size).unwrap());
        verifier::merkle::BatchTree::new(hashes.map(|hash| hash.try_into().unwrap()).collect()).root()
    };
    for (old, new) in [(1, 1), (1, 2), (7, 100), (128, 256), (255, 256)] {
        let reply = server.public(&format!("/v1/log/consistency/{old}/{new}")).await;
        let path = parse_nodes(std::str::from_utf8(&reply.body).unwrap()).unwrap();
        assert!(verify_consistency(old, new, &root_of(old), &root_of(new), &path), "{old} {new}");
        assert_eq!(reply.cache_control.as_deref(), Some("public, max-age=31536000, immutable"));
    }
    for path in ["0/5", "5/4", "5/999999999", "05/6", "+5/6", "x/6", "5"] {
        assert_eq!(server.public(&format!("/v1/log/consistency/{path}")).await.status, 404, "{path}");
    }
    for path in ["-1", "+1", "01", "x", "18446744073709551616"] {
        assert_eq!(server.public(&format!("/v1/log/proof/{path}")).await.status, 404, "{path}");
    }
}
