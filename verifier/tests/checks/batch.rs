//! Reports of batches: one test per reason, and attempts to be fooled.

use crate::fixture::*;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use schemas::routes::Route;
use verifier::{
    Hash,
    batch::{End, Multiproof, ProofLine, lines, verify},
    checkpoint::Checkpoint,
    leaf::{Labels, Open},
    merkle::{BatchTree, leaf_hash, multiproof_from, root_from},
    receipt::{Receipt, attach, request_digest},
    report::Verdict,
    sha256,
    trace::Digest,
};

/// Leaves of the log, and where the entries of the report stand in it.
const SIZE: u64 = 40;
const PLACES: [u64; 5] = [3, 4, 9, 30, 31];
const END: u64 = 33;
const UNDECIDED: &str = r#"{"type":"about:blank","status":503,"code":"overloaded","title":"x"}"#;

/// A report under construction.
struct Made {
    requests: Vec<String>,
    answers: Vec<String>,
    receipts: Vec<Receipt>,
    proof: Option<ProofLine>,
    end: String,
}

fn entry(index: u64, request: &[u8], answer: &str, decision: u8, code: u16) -> (String, Receipt) {
    let open = Open {
        route: Route::VerifyBatch.number(),
        decision,
        code,
        index,
        request_digest: request_digest(&REQUEST_SALT, request),
        answer_digest: sha256(&[answer.as_bytes()]),
        labels: Labels::List(Vec::new()),
        ..open()
    };
    let receipt = receipt_of(open.encode(), index);
    (String::from_utf8(attach(answer.as_bytes(), &receipt)).unwrap(), receipt)
}

impl Made {
    /// Four permits and a refusal, in another order than their entries, and a line that nobody decided.
    fn new() -> Self {
        let (mut requests, mut answers, mut receipts) = (Vec::new(), Vec::new(), Vec::new());
        for (number, index) in [PLACES[1], PLACES[0], PLACES[4], PLACES[2], PLACES[3]].into_iter().enumerate()
        {
            let request = format!(r#"{{"line":{number}}}"#);
            let (answer, decision, code) = match number {
                0 => (r#"{"verdict":"valid","n":0}"#.to_owned(), 1, 0),
                1 => (r#"{"code":"not-permitted"}"#.to_owned(), 2, 1),
                2 => (r#"{"verdict":"unknown"}"#.to_owned(), 1, 0),
                _ => (format!(r#"{{"verdict":"invalid","n":{number}}}"#), 1, 0),
            };
            let (answer, receipt) = entry(index, request.as_bytes(), &answer, decision, code);
            requests.push(request);
            answers.push(answer);
            receipts.push(receipt);
        }
        requests.push(r#"{"line":5}"#.to_owned());
        answers.push(UNDECIDED.to_owned());
        let mut made = Self { requests, answers, receipts, proof: None, end: String::new() };
        made.finish(|_| {});
        made
    }

    fn request(&self) -> String {
        self.requests.join("\n")
    }

    /// Ends the report, with an end that is changed before its entry is made, and proves it.
    fn finish(&mut self, change: impl FnOnce(&mut End)) {
        let all: String = self.answers.iter().map(|answer| format!("{answer}\n")).collect();
        let mut end = End {
            end: true,
            lines: 6,
            permitted: 4,
            refused: 1,
            undecided: 1,
            digest: Digest(sha256(&[all.as_bytes()])),
            as_of: "2026-09-21T14:13:20.000Z".to_owned(),
        };
        change(&mut end);
        let text = serde_json::to_string(&end).unwrap();
        let (end, receipt) = entry(END, self.request().as_bytes(), &text, 1, 0);
        self.end = end;
        self.receipts.truncate(5);
        self.receipts.push(receipt);
        self.prove();
    }

    fn prove(&mut self) {
        let mut leaves: Vec<Hash> = (0..SIZE).map(|index| leaf_hash(&index.to_be_bytes())).collect();
        for receipt in &self.receipts {
            leaves[receipt.index as usize] = receipt.leaf_hash;
        }
        let tree = BatchTree::new(leaves.clone());
        let node = |level: u8, index: u64| {
            let start = (index << level) as usize;
            let below = &leaves[start..start + (1 << level)];
            Ok::<_, ()>(BatchTree::new(below.to_vec()).root())
        };
        assert_eq!(root_from(SIZE, node), Ok(tree.root()));
        let mut indexes: Vec<u64> = self.receipts.iter().map(|receipt| receipt.index).collect();
        indexes.sort_unstable();
        let nodes = multiproof_from(&indexes, SIZE, node).unwrap().into_iter().map(Digest).collect();
        let checkpoint = Checkpoint { origin: LOG.to_owned(), size: SIZE, root: tree.root() };
        let checkpoint = sign_note(3, LOG, &checkpoint.text());
        self.proof = Some(ProofLine { proof: Multiproof { checkpoint, nodes } });
    }

    fn text(&self) -> String {
        let proof = self.proof.as_ref().map(|proof| serde_json::to_string(proof).unwrap());
        let all = self.answers.iter().chain(&proof).chain([&self.end]);
        all.map(|line| format!("{line}\n")).collect()
    }

    fn codes(&self) -> Vec<&'static str> {
        codes(&verify(self.text().as_bytes(), Some(self.request().as_bytes()), &trust(), None, NOW))
    }
}

#[test]
fn a_good_report_is_valid_and_counted() {
    let made = Made::new();
    let report = verify(made.text().as_bytes(), Some(made.request().as_bytes()), &trust(), None, NOW);
    assert_eq!((report.verdict, codes(&report)), (Verdict::Valid, vec![]), "{report:?}");
    assert_eq!(report.checked, ["answers", "request", "checkpoint", "inclusion"]);
    let facts = report.batch.unwrap();
    assert_eq!((facts.lines, facts.permitted, facts.refused, facts.undecided), (6, 4, 1, 1));
    assert_eq!((facts.valid, facts.invalid, facts.unknown), (1, 2, 1));
    assert_eq!((facts.checkpoint_size, &*facts.organisation), (Some(SIZE), "11100000MB0341032Y"));
    let without = verify(made.text().as_bytes(), None, &trust(), None, NOW);
    assert_eq!((without.verdict, without.not_checked), (Verdict::Valid, vec!["request"]));
    // A tool that reads lines may have put blanks around them, or other line ends.
    let other = made.text().replace('\n', " \r\n\r\n");
    assert_eq!(verify(other.as_bytes(), None, &trust(), None, NOW).verdict, Verdict::Valid);
    assert_eq!(lines(other.as_bytes()).count(), 8);
}

#[test]
fn what_is_missing_cannot_be_told() {
    let made = Made::new();
    let text = made.text();
    // Wherever it is cut, but for the last line feed.
    for length in 1..text.len() - 1 {
        let report = verify(&text.as_bytes()[..length], None, &trust(), None, NOW);
        assert_eq!(
            (report.verdict, codes(&report)),
            (Verdict::Unknown, vec!["report-incomplete"]),
            "{length}"
        );
    }
    let mut unproven = Made::new();
    unproven.proof = None;
    assert_eq!(unproven.codes(), ["no-proof"]);
    let elsewhere = text.replace(LOG, "log.example/2");
    assert!(codes(&verify(elsewhere.as_bytes(), None, &trust(), None, NOW)).contains(&"unknown-log"));
    let printed: Vec<String> = lines(text.as_bytes())
        .map(|line| {
            serde_json::to_string_pretty(&serde_json::from_slice::<serde_json::Value>(line).unwrap()).unwrap()
        })
        .collect();
    let report = verify(printed.join("\n").as_bytes(), None, &trust(), None, NOW);
    assert_eq!((report.verdict, codes(&report)), (Verdict::Unknown, vec!["reformatted"]));
}

#[test]
fn what_was_changed_is_found() {
    let with = |change: fn(&mut Made)| {
        let mut made = Made::new();
        change(&mut made);
        made.codes()
    };
    assert_eq!(with(|made| made.finish(|end| end.lines = 7)), ["report-mismatch"]);
    assert_eq!(with(|made| made.finish(|end| (end.permitted, end.refused) = (5, 0))), ["report-mismatch"]);
    assert_eq!(with(|made| made.finish(|end| end.digest.0[0] ^= 1)), ["report-mismatch"]);
    // An end that says no end is an answer like others, and the report has none.
    assert_eq!(with(|made| made.finish(|end| end.end = false))[0], "report-incomplete");
    // Answers moved, added, dropped, changed behind an end that stays as it was.
    assert_eq!(with(|made| made.answers.swap(0, 1)), ["report-mismatch", "request-mismatch"]);
    assert!(with(|made| made.answers.push(UNDECIDED.to_owned())).contains(&"report-mismatch"));
    assert!(with(|made| drop(made.answers.remove(5))).contains(&"report-mismatch"));
    assert!(with(|made| made.answers[5] = UNDECIDED.replace("503", "504")).contains(&"report-mismatch"));
    assert!(
        with(|made| made.answers[3] = made.answers[3].replace("invalid", "valid"))
            .contains(&"answer-mismatch")
    );
    let stripped = with(|made| made.answers[3] = r#"{"verdict":"valid"}"#.to_owned());
    assert!(stripped.contains(&"malformed-receipt"), "{stripped:?}");
    // A refusal whose receipt is spoiled decides all the same.
    let spoiled = with(|made| made.answers[1] = made.answers[1].replace("leafHash", "leafhash"));
    assert!(spoiled.contains(&"malformed-receipt"), "{spoiled:?}");
    let stripped = with(|made| made.answers[3] = r#"{"code":"no-such-code"}"#.to_owned());
    assert!(stripped.contains(&"malformed-receipt"), "{stripped:?}");
    assert!(
        with(|made| made.answers[3] = made.answers[3].replace(r#""index":9"#, r#""index":8"#))
            .contains(&"index-mismatch")
    );
    // A good answer of the same log to another organisation, with a good proof and an end for it.
    let other = with(|made| {
        let open =
            Open { organisation: *b"11100000MB03271699", ..Open::parse(&made.receipts[3].open).unwrap() };
        let receipt = receipt_of(open.encode(), made.receipts[3].index);
        let (answer, _) = verifier::receipt::cut(made.answers[3].as_bytes()).unwrap();
        made.answers[3] = String::from_utf8(attach(&answer, &receipt)).unwrap();
        made.receipts[3] = receipt;
        made.finish(|_| {});
    });
    assert_eq!(other, ["report-mismatch"]);
    // An answer that stands twice, with an end that says so.
    let twice = with(|made| {
        made.answers[5] = made.answers[0].clone();
        made.requests[5] = made.requests[0].clone();
        made.finish(|end| (end.permitted, end.undecided) = (5, 0));
    });
    assert_eq!(twice, ["report-mismatch"]);
    // Another body, or one line of it.
    assert_eq!(with(|made| made.requests.swap(0, 1)), ["request-mismatch"]);
    assert_eq!(with(|made| made.requests.push("{}".to_owned())), ["request-mismatch"]);
    assert_eq!(with(|made| made.requests[5] = "{}".to_owned()), ["request-mismatch"]);
    // The receipt of something else in place of the end's.
    let route = with(|made| {
        let (end, receipt) = verifier::receipt::cut(made.end.as_bytes()).unwrap();
        let open = Open { route: Route::Verify.number(), ..Open::parse(&receipt.open).unwrap() };
        made.receipts[5] = receipt_of(open.encode(), END);
        made.end = String::from_utf8(attach(&end, &made.receipts[5])).unwrap();
        made.prove();
    });
    assert_eq!(route, ["answer-mismatch", "report-mismatch"]);
}

#[test]
fn a_proof_that_proves_something_else_is_none() {
    let with = |change: fn(&mut Multiproof)| {
        let mut made = Made::new();
        change(&mut made.proof.as_mut().unwrap().proof);
        made.codes()
    };
    assert_eq!(with(|proof| proof.nodes.truncate(1)), ["not-included"]);
    assert_eq!(with(|proof| proof.nodes.push(Digest([0; 32]))), ["not-included"]);
    assert_eq!(with(|proof| proof.nodes.swap(0, 1)), ["not-included"]);
    assert_eq!(with(|proof| proof.nodes[2].0[5] ^= 1), ["not-included"]);
    assert_eq!(
        with(|proof| proof.checkpoint = proof.checkpoint.replace("\n40\n", "\n41\n")),
        ["bad-checkpoint"]
    );
    assert_eq!(with(|proof| proof.checkpoint.clear()), ["bad-checkpoint"]);
    let smaller = |proof: &mut Multiproof| {
        let checkpoint = Checkpoint { origin: LOG.to_owned(), size: 9, root: [1; 32] };
        proof.checkpoint = sign_note(3, LOG, &checkpoint.text());
    };
    assert_eq!(with(smaller), ["not-included"]);
}

#[test]
fn no_bytes_make_it_panic_or_valid() {
    let made = Made::new();
    let text = made.text();
    for at in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 0x15;
        let report = verify(&bytes, Some(made.request().as_bytes()), &trust(), None, NOW);
        assert_ne!(report.verdict, Verdict::Valid, "byte {at}");
    }
    for bytes in [
        &b""[..],
        b"\n\n",
        b"{}",
        b"[]\n{}",
        b"\xff\n\xfe",
        b"{\"proof\":{\"checkpoint\":\"\",\"nodes\":[]}}",
        &[b'{'; 5_000],
    ] {
        assert_ne!(verify(bytes, Some(bytes), &trust(), None, NOW).verdict, Verdict::Valid);
    }
    // Thousands of bad lines do not make thousands of reasons.
    let many = format!("{}\n", STANDARD.encode([7; 30])).repeat(5_000);
    assert!(verify(many.as_bytes(), None, &trust(), None, NOW).reasons.len() < 20);
}
