//! The report of a batch: the answer of `POST /v1/verify/batch` as it came, checked without the exchange. Its form stands here once,
//! for who writes and who checks it.
//!
//! A report is lines: an answer for each request, each with a receipt; one [`ProofLine`], which proves the entries of all of them at
//! once; the [`End`], whose own entry commits to all answers before it. So nobody can take an answer out, change it or add one.
//!
//! Pure functions; nothing to lose.

use crate::{
    Hash, json,
    leaf::Open,
    merkle,
    policy::Policy,
    proof::MAX_PROOF_BYTES,
    receipt::{self, Receipt, read_checkpoint, request_digest, witnesses},
    report::{BatchFacts, Reason, Report},
    sha256,
    trace::{Digest, MAX_FILE_BYTES},
    trust::Trust,
};
use schemas::{
    codes::{Code, Decision},
    date::rfc3339,
    routes::Route,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;

/// Most lines that are found fault with one by one.
const MOST_FAULTS: usize = 10;

/// The last line without its receipt: without it something is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct End {
    /// Always true.
    pub end: bool,
    /// Answers before it.
    pub lines: u64,
    /// Those of them that permit.
    pub permitted: u64,
    /// Those that refuse.
    pub refused: u64,
    /// Those that decide nothing, such as `overloaded`: they have no entry.
    pub undecided: u64,
    /// SHA-256 over all of them in their order, a line feed behind each.
    pub digest: Digest,
    /// When the last one was answered, RFC 3339 with milliseconds.
    pub as_of: String,
}

/// An end as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its words.
    pub end: End,
    /// Its receipt.
    pub receipt: Receipt,
    /// The bytes that its entry commits to.
    hashed: Vec<u8>,
}

/// The line before the end. No digest covers it: it speaks for itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProofLine {
    /// The proof.
    pub proof: Multiproof,
}

/// One proof for the entries of all answers and of the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Multiproof {
    /// The signed checkpoint, verbatim.
    pub checkpoint: String,
    /// Roots of the subtrees that hold none of these entries, from left to right ([`merkle::root_from_multiproof`]).
    pub nodes: Vec<Digest>,
}

/// An answer of a report.
enum Line {
    /// It decides, and has an entry.
    Decided(Box<Decided>),
    /// It decides nothing.
    Undecided,
}

struct Decided {
    receipt: Receipt,
    open: Open,
    verdict: Option<&'static str>,
}

/// The verdicts of an answer that are counted.
const VERDICTS: [&str; 3] = ["valid", "invalid", "unknown"];

/// The lines of a report, or of a request in lines: without blanks around them, and none that is empty.
pub fn lines(file: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    file.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty())
}

/// The end of a report, with its receipt, if it has one.
pub fn end(file: &[u8]) -> Option<Ended> {
    let (hashed, receipt) = receipt::cut(lines(file).last()?).ok()?;
    let end: End = serde_json::from_slice(&hashed).ok()?;
    end.end.then_some(Ended { end, receipt, hashed })
}

/// Checks a report as it was received, and that it answers `request`, the body as it was sent, if that is given. Under a policy
/// its witnesses must have seen the checkpoint. `at` in seconds since 1970.
pub fn verify(
    file: &[u8],
    request: Option<&[u8]>,
    trust: &Trust,
    policy: Option<&Policy>,
    at: u64,
) -> Report {
    let mut report = Report::new(trust, at);
    let mut all: Vec<&[u8]> = lines(file).collect();
    if file.len() > MAX_FILE_BYTES || all.is_empty() {
        report.add(Reason::MalformedReport, "no line can be read");
        return report;
    }
    if json::count(file).is_some_and(|values| values != all.len()) {
        report.add(Reason::Reformatted, "an answer is one line, in the bytes as they were received");
        return report;
    }
    let end = end(file);
    let last = all.pop();
    if end.is_none() {
        report.add(Reason::ReportIncomplete, "the stream has no end line: answers are missing");
        // The last line may be torn. A whole one is looked at like the others.
        all.extend(last.filter(|line| serde_json::from_slice::<Value>(line).is_ok()));
    }
    let proof = all.last().and_then(|line| serde_json::from_slice::<ProofLine>(line).ok());
    if proof.is_some() {
        all.pop();
    }
    let answers: Vec<Option<Line>> = {
        let mut faults = Faults { report: &mut report, left: MOST_FAULTS, untold: 0 };
        let read = (1..).zip(&all).map(|(number, bytes)| line(number, bytes, &mut faults)).collect();
        faults.end();
        read
    };
    let log = end.as_ref().map(|end| &end.receipt);
    let log = log.or_else(|| decided(&answers).next().map(|(_, answer)| &answer.receipt));
    let Some(log) = log.map(|receipt| receipt.log.clone()) else {
        report.not_checked.extend(["request", "inclusion"]);
        return report;
    };
    let mut facts = counted(&log, &answers);
    if let Some(end) = &end {
        let before = report.reasons.len();
        check_end(&mut report, end, &all, &mut facts, &answers);
        if before == report.reasons.len() && answers.iter().all(Option::is_some) {
            report.checked.push("answers");
        }
    }
    match request {
        Some(request) => check_request(&mut report, request, end.as_ref(), &answers),
        None => report.not_checked.push("request"),
    }
    match &end {
        Some(end) => check_proof(&mut report, &mut facts, proof.as_ref(), end, &answers, trust, policy),
        None => report.not_checked.push("inclusion"),
    }
    report.batch = Some(facts);
    report
}

/// Faults of single lines: the first ones are told, the others counted.
struct Faults<'r> {
    report: &'r mut Report,
    left: usize,
    untold: u64,
}

impl Faults<'_> {
    fn add(&mut self, number: u64, reason: Reason, detail: &str) {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                self.report.add(reason, format!("line {number}: {detail}"));
            }
            None => self.untold = self.untold.saturating_add(1),
        }
    }

    fn end(self) {
        if self.untold > 0 {
            self.report.add(Reason::ReportMismatch, format!("{} more lines are not good", self.untold));
        }
    }
}

/// Reads an answer and checks it by itself; `None` when it is not good.
fn line(number: u64, bytes: &[u8], faults: &mut Faults<'_>) -> Option<Line> {
    /// The part of an answer that is counted.
    #[derive(Deserialize)]
    struct Said<'a> {
        #[serde(borrow)]
        verdict: Option<Cow<'a, str>>,
    }
    let (hashed, receipt) = match receipt::cut(bytes) {
        Ok(cut) => cut,
        Err(error) => {
            // One whose receipt was spoiled is none of them.
            let is_undecided = json::read(bytes).is_ok_and(|said| {
                let code = said.get("code").and_then(Value::as_str).and_then(Code::from_name);
                code.is_some() && said.get("verdict").is_none() && said.get("receipt").is_none()
            });
            if is_undecided {
                return Some(Line::Undecided);
            }
            faults.add(number, Reason::MalformedReceipt, &error.to_string());
            return None;
        }
    };
    let Ok(open) = Open::parse(&receipt.open) else {
        faults.add(number, Reason::MalformedOpen, "the open part cannot be read");
        return None;
    };
    let mut good = true;
    let mut holds = |holds: bool, reason, detail| {
        if !holds {
            faults.add(number, reason, detail);
            good = false;
        }
    };
    let leaf = receipt.computed_leaf_hash();
    holds(leaf == receipt.leaf_hash, Reason::LeafMismatch, "open, salt and C do not make the leaf hash");
    holds(open.index == receipt.index, Reason::IndexMismatch, "the receipt has another index");
    holds(
        open.answer_digest == sha256(&[&hashed]),
        Reason::AnswerMismatch,
        "the receipt is for another answer",
    );
    let verdict = serde_json::from_slice::<Said<'_>>(&hashed).ok().and_then(|said| said.verdict);
    let verdict = verdict.and_then(|verdict| VERDICTS.into_iter().find(|known| *known == verdict));
    good.then(|| Line::Decided(Box::new(Decided { receipt, open, verdict })))
}

/// The answers that decide, with their places from 0.
fn decided(answers: &[Option<Line>]) -> impl Iterator<Item = (usize, &Decided)> {
    answers.iter().enumerate().filter_map(|(place, answer)| match answer {
        Some(Line::Decided(answer)) => Some((place, &**answer)),
        Some(Line::Undecided) | None => None,
    })
}

fn counted(log: &str, answers: &[Option<Line>]) -> BatchFacts {
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let of =
        |number: u8| count(decided(answers).filter(|(_, answer)| answer.open.decision == number).count());
    let said =
        |verdict: &str| count(decided(answers).filter(|(_, answer)| answer.verdict == Some(verdict)).count());
    let [valid, invalid, unknown] = VERDICTS.map(said);
    let times = || decided(answers).map(|(_, answer)| answer.open.time_ms);
    let (first, last) = (times().min().map(rfc3339), times().max().map(rfc3339));
    BatchFacts {
        log: log.to_owned(),
        organisation: String::new(),
        time: String::new(),
        answered_from: first.unwrap_or_default(),
        answered_to: last.unwrap_or_default(),
        lines: count(answers.len()),
        permitted: of(Decision::Permit.number()),
        refused: of(Decision::Denial.number()),
        undecided: count(answers.iter().filter(|answer| matches!(answer, Some(Line::Undecided))).count()),
        valid,
        invalid,
        unknown,
        checkpoint_size: None,
        witnesses: None,
    }
}

/// The end says what the answers before it are, its entry says so, and all entries are of one log, one caller and one route.
fn check_end(
    report: &mut Report,
    Ended { end, receipt, hashed }: &Ended,
    all: &[&[u8]],
    facts: &mut BatchFacts,
    answers: &[Option<Line>],
) {
    if (end.lines, end.permitted, end.refused, end.undecided)
        != (facts.lines, facts.permitted, facts.refused, facts.undecided)
    {
        let detail =
            format!("the end counts {} lines in another way than the {} before it", end.lines, facts.lines);
        report.add(Reason::ReportMismatch, detail);
    }
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    for answer in all {
        digest.update(answer);
        digest.update(b"\n");
    }
    if digest.finish().as_ref() != end.digest.0 {
        report.add(Reason::ReportMismatch, "the end is for other answers");
    }
    let Ok(open) = Open::parse(&receipt.open) else {
        return report.add(Reason::MalformedOpen, "the open part of the end cannot be read");
    };
    if receipt.computed_leaf_hash() != receipt.leaf_hash {
        report.add(Reason::LeafMismatch, "open, salt and C of the end do not make its leaf hash");
    }
    let permits = (open.route, open.decision) == (Route::VerifyBatch.number(), Decision::Permit.number());
    if open.index != receipt.index || open.answer_digest != sha256(&[hashed]) || !permits {
        report.add(Reason::AnswerMismatch, "the receipt of the end is for something else");
    }
    let other = decided(answers).find(|(_, answer)| {
        answer.receipt.log != receipt.log
            || (answer.open.organisation, answer.open.route) != (open.organisation, open.route)
    });
    if let Some((place, _)) = other {
        let number = place.saturating_add(1);
        report.add(
            Reason::ReportMismatch,
            format!("line {number}: of another log, caller or route than the end"),
        );
    }
    let of_end = receipt::facts(receipt, &open);
    (facts.organisation, facts.time) = (of_end.organisation, of_end.time);
}

/// Each answer is for the request in its line, and the end for the whole body.
fn check_request(report: &mut Report, request: &[u8], end: Option<&Ended>, answers: &[Option<Line>]) {
    // A salt that was cut off tells nothing against the request.
    let is_for = |receipt: &Receipt, digest: &Hash, bytes: &[u8]| {
        receipt.request_salt.is_none_or(|salt| request_digest(&salt, bytes) == *digest)
    };
    let receipts = decided(answers).map(|(_, answer)| &answer.receipt);
    let mut receipts = receipts.chain(end.map(|end| &end.receipt));
    let is_cut_off = receipts.any(|receipt| receipt.request_salt.is_none());
    let asked: Vec<&[u8]> = lines(request).collect();
    let wrong = decided(answers).find(|(place, answer)| {
        !asked.get(*place).is_some_and(|line| is_for(&answer.receipt, &answer.open.request_digest, line))
    });
    let whole = end.is_none_or(|Ended { receipt, .. }| {
        let open = Open::parse(&receipt.open);
        asked.len() == answers.len() && open.is_ok_and(|open| is_for(receipt, &open.request_digest, request))
    });
    match wrong {
        Some((place, _)) => {
            let number = place.saturating_add(1);
            report.add(Reason::RequestMismatch, format!("line {number}: the receipt is for another request"));
        }
        None if !whole => report.add(Reason::RequestMismatch, "the report is for another body"),
        None if is_cut_off => {
            report.add(Reason::RequestNotRecorded, "the salt of a request digest was cut off");
        }
        None => report.checked.push("request"),
    }
}

/// The entries of all answers and of the end lead to the checkpoint that the log signed.
fn check_proof(
    report: &mut Report,
    facts: &mut BatchFacts,
    proof: Option<&ProofLine>,
    end: &Ended,
    answers: &[Option<Line>],
    trust: &Trust,
    policy: Option<&Policy>,
) {
    let Some(ProofLine { proof }) = proof else {
        return report.add(Reason::NoProof, "no proof that the entries stand in the log");
    };
    let Some(log) = trust.log(&facts.log) else {
        return report.add(Reason::UnknownLog, format!("the trust bundle does not know log {}", facts.log));
    };
    if proof.checkpoint.len() > MAX_PROOF_BYTES {
        return report.add(Reason::MalformedProof, "the checkpoint is too long");
    }
    let checkpoint = match read_checkpoint(&proof.checkpoint, log) {
        Ok(checkpoint) => checkpoint,
        Err(error) => return report.add(Reason::BadCheckpoint, error),
    };
    report.checked.push("checkpoint");
    let mut leaves: Vec<(u64, Hash)> = decided(answers)
        .map(|(_, answer)| (answer.receipt.index, answer.receipt.leaf_hash))
        .chain([(end.receipt.index, end.receipt.leaf_hash)])
        .collect();
    leaves.sort_unstable();
    if leaves.iter().zip(leaves.iter().skip(1)).any(|(one, next)| one.0 == next.0) {
        return report.add(Reason::ReportMismatch, "two lines have one entry");
    }
    let nodes: Vec<Hash> = proof.nodes.iter().map(|node| node.0).collect();
    if merkle::root_from_multiproof(&leaves, checkpoint.size, &nodes) != Some(checkpoint.root) {
        return report.add(Reason::NotIncluded, "the entries do not lead to the root");
    }
    report.checked.push("inclusion");
    facts.checkpoint_size = Some(checkpoint.size);
    let seen = witnesses(report, &proof.checkpoint, policy, log, &trust.witnesses);
    facts.witnesses = seen.counts;
    if seen.enough {
        report.checked.push("witnesses");
    }
}
