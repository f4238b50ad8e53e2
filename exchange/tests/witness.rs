//! The witness: the refusals of C2SP tlog-witness one by one, a foreign implementation's dialogue, races and restarts.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by panicking")]

use std::fs;
use std::path::Path;
use std::sync::Barrier;

use exchange::witness::{Answer, Submission, Witness};
use hyper::StatusCode;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use tempfile::TempDir;
use verifier::Hash;
use verifier::checkpoint::Checkpoint;
use verifier::merkle::{BatchTree, EMPTY_ROOT, consistency_from, leaf_hash};
use verifier::note::{CosignerKey, SignedNote, VerifierKey, signature_line};

const ORIGIN: &str = "log.example/1";
const NOW: u64 = 1_790_000_000;

/// A log of numbers, whose key is made of a seed. Another `salt` makes other leaves from size 4 on: a fork.
struct Log {
    pair: Ed25519KeyPair,
    key: VerifierKey,
    salt: u64,
}

impl Log {
    fn new(salt: u64) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let key = VerifierKey::ed25519(ORIGIN, pair.public_key().as_ref().try_into().unwrap()).unwrap();
        Self { pair, key, salt }
    }

    fn leaves(&self, size: u64) -> Vec<Hash> {
        (0..size).map(|i| leaf_hash(&(i + if i < 4 { 0 } else { self.salt }).to_be_bytes())).collect()
    }

    fn sign(&self, text: &str) -> String {
        let signature = self.pair.sign(text.as_bytes());
        format!("{text}\n{}", signature_line(&self.key, signature.as_ref().try_into().unwrap()))
    }

    fn checkpoint(&self, size: u64) -> String {
        let root = BatchTree::new(self.leaves(size)).root();
        self.sign(&Checkpoint { origin: ORIGIN.to_owned(), size, root }.text())
    }

    fn proof(&self, old: u64, size: u64) -> Vec<Hash> {
        let leaves = self.leaves(size);
        consistency_from(old, size, |level, index| {
            let width = 1usize << level;
            let start = usize::try_from(index).unwrap() * width;
            Ok::<_, ()>(BatchTree::new(leaves[start..start + width].to_vec()).root())
        })
        .unwrap()
    }

    fn submission(&self, old: u64, size: u64) -> Submission {
        Submission { old, proof: self.proof(old, size), checkpoint: self.checkpoint(size) }
    }
}

struct Rig {
    folder: TempDir,
    key: CosignerKey,
    log: Log,
}

impl Rig {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let data = folder.path().join("witness");
        let key = Witness::init(&data, "w.example/1").unwrap();
        let log = Log::new(0);
        Witness::add_log(&data, &log.key).unwrap();
        Self { folder, key, log }
    }

    fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("witness")
    }

    fn open(&self) -> Witness {
        Witness::open(&self.data()).unwrap()
    }
}

fn send(witness: &Witness, submission: &Submission) -> Answer {
    witness.add_checkpoint(submission.to_text().as_bytes(), NOW)
}

#[track_caller]
fn assert_cosigned(witness: &Witness, submission: &Submission) {
    let Answer::Cosigned(line) = send(witness, submission) else { panic!("not cosigned") };
    let note = format!("{}{line}", submission.checkpoint);
    let key = std::slice::from_ref(witness.key());
    let note = SignedNote::parse(&note).unwrap();
    let cosigned = note.cosignatures(key).unwrap();
    assert_eq!(cosigned.iter().map(|one| one.time()).collect::<Vec<_>>(), [NOW]);
}

#[track_caller]
fn assert_refused(witness: &Witness, submission: &Submission, status: u16) {
    match send(witness, submission) {
        Answer::Refused(found, _) => assert_eq!(found.as_u16(), status),
        other => panic!("{other:?} in place of {status}"),
    }
}

#[test]
fn a_log_that_grows_is_cosigned_and_the_newest_is_shown() {
    let rig = Rig::new();
    let witness = rig.open();
    let hash = hex::encode(verifier::sha256(&[ORIGIN.as_bytes()]));
    assert_eq!(witness.checkpoint(&hash), None);
    let mut old = 0;
    for size in [0, 1, 1, 2, 3, 7, 8, 64, 65, 300] {
        assert_cosigned(&witness, &rig.log.submission(old, size));
        old = size;
        let shown = witness.checkpoint(&hash).unwrap();
        let note = SignedNote::parse(&shown).unwrap();
        let verified = note.verify(std::slice::from_ref(&rig.log.key)).unwrap();
        assert_eq!(Checkpoint::parse(&verified).unwrap().size, size);
        assert_eq!(note.cosignatures(std::slice::from_ref(&rig.key)).unwrap().len(), 1);
    }
    assert_eq!(witness.checkpoint(&hash.to_uppercase()), None);
    assert_eq!(witness.checkpoint("../../witness"), None);
}

#[test]
fn another_size_than_the_last_is_told_the_last() {
    let rig = Rig::new();
    let witness = rig.open();
    assert_eq!(send(&witness, &rig.log.submission(3, 5)), Answer::Conflict(0));
    assert_cosigned(&witness, &rig.log.submission(0, 5));
    for (old, size) in [(0, 5), (0, 9), (4, 9), (6, 9), (0, 0)] {
        assert_eq!(send(&witness, &rig.log.submission(old, size)), Answer::Conflict(5), "{old} {size}");
    }
    assert_cosigned(&witness, &rig.log.submission(5, 9));
}

#[test]
fn a_split_view_is_never_cosigned() {
    let rig = Rig::new();
    let witness = rig.open();
    assert_cosigned(&witness, &rig.log.submission(0, 9));
    let fork = Log::new(100);
    // The other tree of the same size, a larger one with its own proof, and one with the right tree's proof.
    assert_eq!(send(&witness, &fork.submission(9, 9)), Answer::Conflict(9));
    assert_refused(&witness, &fork.submission(9, 20), 422);
    let mixed = Submission { proof: rig.log.proof(9, 20), ..fork.submission(9, 20) };
    assert_refused(&witness, &mixed, 422);
    let unproved = Submission { proof: Vec::new(), ..rig.log.submission(9, 20) };
    assert_refused(&witness, &unproved, 422);
    // Nothing of it has stayed.
    assert_cosigned(&witness, &rig.log.submission(9, 20));
}

#[test]
fn the_first_checkpoint_has_no_proof_and_the_empty_tree_its_own_root() {
    let rig = Rig::new();
    let witness = rig.open();
    let proved = Submission { proof: vec![[1; 32]], ..rig.log.submission(0, 5) };
    assert_refused(&witness, &proved, 422);
    let other = Checkpoint { origin: ORIGIN.to_owned(), size: 0, root: [1; 32] };
    let empty = |checkpoint: String| Submission { old: 0, proof: Vec::new(), checkpoint };
    assert_refused(&witness, &empty(rig.log.sign(&other.text())), 422);
    let right = Checkpoint { root: EMPTY_ROOT, ..other };
    assert_cosigned(&witness, &empty(rig.log.sign(&right.text())));
}

#[test]
fn only_known_logs_under_their_own_key_are_cosigned() {
    let rig = Rig::new();
    let witness = rig.open();
    let good = rig.log.submission(0, 5);
    let with = |checkpoint: String| Submission { checkpoint, ..good.clone() };
    assert_refused(&witness, &with(good.checkpoint.replace(ORIGIN, "log.example/2")), 404);
    // Changed behind the signature, a stranger's signature alone, and the log's under another name.
    assert_refused(&witness, &with(good.checkpoint.replace("\n5\n", "\n6\n")), 403);
    let stranger = Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap();
    let (text, lines) = good.checkpoint.rsplit_once("\n\n").unwrap();
    let mut old = 0;
    for name in [ORIGIN, "stranger"] {
        let key = VerifierKey::ed25519(name, stranger.public_key().as_ref().try_into().unwrap()).unwrap();
        let signature = stranger.sign(format!("{text}\n").as_bytes());
        let line = signature_line(&key, signature.as_ref().try_into().unwrap());
        assert_refused(&witness, &with(format!("{text}\n\n{line}")), 403);
        // Beside the log's it is nobody's, and is not passed on.
        let beside = Submission { old, ..with(format!("{text}\n\n{line}{lines}")) };
        assert_cosigned(&witness, &beside);
        let shown = witness.checkpoint(&hex::encode(verifier::sha256(&[ORIGIN.as_bytes()]))).unwrap();
        assert!(shown.contains(lines.trim_end()) && !shown.contains(line.trim_end()), "{shown}");
        old = 5;
    }
}

#[test]
fn malformed_submissions_are_refused() {
    let rig = Rig::new();
    let witness = rig.open();
    let good = rig.log.submission(0, 5).to_text();
    let node = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
    for bad in [
        String::new(),
        "old 0\n".to_owned(),
        good.replace("old 0", "old 00"),
        good.replace("old 0", "old -1"),
        good.replace("old 0", "old +0"),
        good.replace("old 0", "old 18446744073709551616"),
        good.replace("old 0", "size 0"),
        good.replace("old 0\n", "old 0 \n"),
        good.replace("old 0\n", "old 0\r\n"),
        good.replace("old 0\n", "old 0\nAAAA\n"),
        good.replace("old 0\n", &format!("old 0\n{}", node.repeat(64))),
        good.trim_end().to_owned(),
        format!("{good}more"),
        // The checkpoint is smaller than the size it is said to have grown from.
        good.replace("old 0", "old 6"),
    ] {
        let answer = witness.add_checkpoint(bad.as_bytes(), NOW);
        assert!(matches!(answer, Answer::Refused(StatusCode::BAD_REQUEST, _)), "{bad:?}: {answer:?}");
    }
    assert!(matches!(witness.add_checkpoint(b"\xff", NOW), Answer::Refused(StatusCode::BAD_REQUEST, _)));
    let text = rig.log.sign(&format!("{ORIGIN}\nfive\n{node}"));
    let submission = Submission { old: 0, proof: Vec::new(), checkpoint: text };
    assert_refused(&witness, &submission, 400);
}

#[test]
fn of_two_submissions_at_once_the_second_is_compared_with_the_first() {
    let rig = Rig::new();
    let witness = rig.open();
    assert_cosigned(&witness, &rig.log.submission(0, 4));
    let mut old = 4;
    for round in 0..20 {
        // Four trees that all grow from the last size, two of them a fork of the other two.
        let fork = Log::new(1_000 + round);
        let submissions = [
            rig.log.submission(old, old + 1),
            rig.log.submission(old, old + 2),
            fork.submission(old, old + 1),
            fork.submission(old, old + 2),
        ];
        let barrier = Barrier::new(submissions.len());
        let answers: Vec<Answer> = std::thread::scope(|scope| {
            let threads: Vec<_> = submissions
                .iter()
                .map(|submission| {
                    scope.spawn(|| {
                        barrier.wait();
                        send(&witness, submission)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let cosigned: Vec<u64> = (0..)
            .zip(&answers)
            .filter(|(_, answer)| matches!(answer, Answer::Cosigned(_)))
            .map(|(at, _)| old + 1 + at % 2)
            .collect();
        assert_eq!(cosigned.len(), 1, "{answers:?}");
        // Beyond the first four leaves only the log itself goes on, and after the fork won the first round nobody.
        let [size] = cosigned[..] else { unreachable!() };
        let [_, _, a, b] = &answers[..] else { unreachable!() };
        if matches!(a, Answer::Cosigned(_)) || matches!(b, Answer::Cosigned(_)) {
            assert_refused(&witness, &rig.log.submission(size, size + 1), 422);
            return;
        }
        old = size;
    }
}

#[test]
fn what_was_cosigned_is_known_after_a_restart() {
    let rig = Rig::new();
    assert_cosigned(&rig.open(), &rig.log.submission(0, 9));
    let witness = rig.open();
    assert_eq!(witness.origins().collect::<Vec<_>>(), [ORIGIN]);
    assert_eq!(send(&witness, &rig.log.submission(0, 5)), Answer::Conflict(9));
    assert_refused(&witness, &Log::new(100).submission(9, 20), 422);
    assert_cosigned(&witness, &rig.log.submission(9, 20));
    // Two at once would each cosign a view of its own.
    let error = Witness::open(&rig.data()).err().unwrap();
    assert!(error.to_string().contains("another process"), "{error}");
}

#[test]
fn what_cannot_be_kept_is_not_cosigned() {
    let rig = Rig::new();
    let witness = rig.open();
    assert_cosigned(&witness, &rig.log.submission(0, 4));
    let logs = rig.data().join("logs");
    let (kept, away) = (logs.read_dir().unwrap().next().unwrap().unwrap().path(), rig.data().join("away"));
    fs::rename(&kept, &away).unwrap();
    assert_refused(&witness, &rig.log.submission(4, 9), 500);
    fs::rename(&away, &kept).unwrap();
    assert_cosigned(&witness, &rig.log.submission(4, 9));
}

#[test]
fn a_damaged_folder_is_refused() {
    let rig = Rig::new();
    assert_cosigned(&rig.open(), &rig.log.submission(0, 9));
    let log = rig.data().join("logs").read_dir().unwrap().next().unwrap().unwrap().path();
    let refused = || Witness::open(&rig.data()).err().map(|error| format!("{error:#}"));
    let change = |path: &Path, change: &dyn Fn(&str) -> String| {
        let good = fs::read_to_string(path).unwrap();
        fs::write(path, change(&good)).unwrap();
        let error = refused();
        assert!(error.is_some(), "{}", path.display());
        fs::write(path, good).unwrap();
        error.unwrap()
    };
    let checkpoint = log.join("checkpoint");
    let error = change(&checkpoint, &|text| text.replace("\n9\n", "\n8\n"));
    assert!(error.contains("damaged"), "{error}");
    change(&checkpoint, &|_| String::new());
    change(&checkpoint, &|text| text.lines().take(5).map(|line| format!("{line}\n")).collect());
    change(&log.join("log.vkey"), &|text| text.replace("log.example/1", "log.example/2"));
    let other = VerifierKey::ed25519("log.example/2", rig.log.key.key()).unwrap();
    change(&log.join("log.vkey"), &|_| format!("{other}\n"));
    let stranger = CosignerKey::ed25519("w.example/1", &[9; 32]).unwrap();
    change(&rig.data().join("witness.vkey"), &|_| format!("{stranger}\n"));
    assert_eq!(refused(), None);
}

#[test]
fn a_folder_keeps_its_name_and_a_log_its_key() {
    let rig = Rig::new();
    assert_eq!(Witness::init(&rig.data(), "w.example/1").unwrap(), rig.key);
    assert!(Witness::init(&rig.data(), "w.example/2").is_err());
    Witness::add_log(&rig.data(), &rig.log.key).unwrap();
    assert!(Witness::add_log(&rig.data(), &VerifierKey::ed25519(ORIGIN, &[9; 32]).unwrap()).is_err());
    assert!(Witness::add_log(rig.folder.path(), &rig.log.key).is_err());
    assert!(Witness::open(rig.folder.path()).is_err());
}

/// The dialogue that torchwood's litewitness is tested with: requests of a Sigsum log and the statuses they get.
/// Since then the specification has given an unknown origin a status of its own.
#[test]
fn a_foreign_dialogue_goes_as_its_authors_say() {
    let origin = "sigsum.org/v1/tree/4d6d8825a6bb689d459628312889dfbb0bcd41b5211d9e1ce768b0ff0309e562";
    let mut public = [0; 32];
    hex::decode_to_slice("ffdc2d4d98e4124d3feaf788c0c2f9abfd796083d1f0495437f302ec79cf100f", &mut public)
        .unwrap();
    let folder = TempDir::new().unwrap();
    Witness::init(folder.path(), "example.com/witness").unwrap();
    Witness::add_log(folder.path(), &VerifierKey::ed25519(origin, &public).unwrap()).unwrap();
    let witness = Witness::open(folder.path()).unwrap();
    let dialogue = include_str!("vectors/torchwood/add-checkpoint.hurl");
    let mut turns = 0;
    for turn in dialogue.split("POST http://localhost:7380/add-checkpoint\n```\n").skip(1) {
        let (body, rest) = turn.split_once("```\n").unwrap();
        let (status, assertion) = rest.strip_prefix("HTTP ").unwrap().split_once('\n').unwrap();
        match (status, witness.add_checkpoint(body.as_bytes(), NOW)) {
            ("200", Answer::Cosigned(line)) => assert!(line.starts_with("— example.com/witness ")),
            ("409", Answer::Conflict(size)) => {
                assert!(assertion.contains(&format!("body == \"{size}\\n\"")), "{size}: {assertion}");
            }
            // Its signature is base64 with bits to spare, which is malformed for us before it is anybody's.
            ("403", Answer::Refused(StatusCode::BAD_REQUEST, _)) => assert!(body.contains("x6gx=\n")),
            ("403", Answer::Refused(StatusCode::NOT_FOUND, _)) => {
                assert!(!body.contains(&format!("\n{origin}\n")))
            }
            (status, Answer::Refused(found, why)) => assert_eq!(found.as_str(), status, "{why}\n{body}"),
            (status, other) => panic!("{other:?} in place of {status}:\n{body}"),
        }
        turns += 1;
    }
    assert_eq!(turns, dialogue.matches("POST ").count());
    assert!(turns >= 8, "{turns} turns");
}
