//! Checks after a run, from bytes alone: a fast wrong answer is worth nothing.

use std::collections::HashSet;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use client::{Client, Fetched};
use serde::{Deserialize, Serialize};
use verifier::proof::TlogProof;
use verifier::receipt::{self, Receipt};
use verifier::report::{Reason, Verdict};
use verifier::trust::Trust;

use crate::mix::Kept;
use crate::population::now_ms;

/// Receipts that are checked up to the signed checkpoint; the others up to their leaf.
pub const PROOFS: usize = 64;
/// A checkpoint is published every second.
const PUBLICATION_DEADLINE: Duration = Duration::from_secs(15);

/// What was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checks {
    /// Receipts that open their leaf and are for this request and this answer.
    pub receipts: usize,
    /// Those of them that were also led to the log's signed checkpoint.
    pub proofs: usize,
    /// Denials and wrong answers among the receipts.
    pub denials: usize,
    /// What failed.
    pub failed: usize,
    /// The first failure; holds codes and numbers, nothing of a person.
    pub first_failure: Option<String>,
}

impl Checks {
    /// Whether something was checked, and everything checked is good.
    pub fn passed(&self) -> bool {
        self.failed == 0 && self.receipts > 0 && self.proofs > 0
    }

    fn fail(&mut self, what: String) {
        self.failed += 1;
        self.first_failure.get_or_insert(what);
    }

    /// The log must hold an entry for every answer.
    pub fn log_grew(&mut self, by: u64, answers: u64) {
        if by < answers {
            self.fail(format!("{answers} answers and only {by} entries in the log"));
        }
    }
}

impl fmt::Display for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { receipts, proofs, denials, failed, first_failure } = self;
        write!(
            f,
            "{receipts} good receipts ({denials} of denials), {proofs} good proofs, {failed} failures"
        )?;
        match first_failure {
            Some(what) => write!(f, ", first: {what}"),
            None => Ok(()),
        }
    }
}

/// Checks answers, and `PROOFS` of them, evenly spread, with proofs of the public listener.
///
/// # Errors
/// The public listener is gone, or publishes no checkpoint. What does not check is in the result instead.
pub async fn check(kept: &[Kept], wrong: &[Kept], trust: &Trust, public: &Client) -> anyhow::Result<Checks> {
    let at = now_ms() / 1_000;
    let (mut checks, good) = receipts(kept, wrong, trust, at);
    let Some((last, _)) = good.last() else { return Ok(checks) };
    published(public, last.index).await?;
    for (cut, one) in good.iter().rev().step_by(good.len().div_ceil(PROOFS)) {
        let proof = proof(public, cut.index).await?.context("a proof that was there is gone")?;
        let report =
            receipt::verify_against(cut, Some(&proof), Some(&one.request), Some(&one.answer), trust, at);
        if report.verdict == Verdict::Valid {
            checks.proofs += 1;
        } else {
            let why = report.reasons.first().map_or("unknown", |finding| finding.code());
            checks.fail(format!("entry {}: {why}", cut.index));
        }
    }
    Ok(checks)
}

/// Checks receipts up to their leaves; gives the good ones by index.
fn receipts<'a>(
    kept: &'a [Kept],
    wrong: &'a [Kept],
    trust: &Trust,
    at: u64,
) -> (Checks, Vec<(Receipt, &'a Kept)>) {
    let mut checks = Checks::default();
    let mut indexes = HashSet::new();
    let mut good = Vec::new();
    for (number, one) in kept.iter().chain(wrong).enumerate() {
        let cut = match receipt::cut(&one.answer) {
            Ok((_, cut)) => cut,
            // What decides nothing carries no receipt; it is an error of the run already.
            Err(_) if number >= kept.len() => continue,
            Err(error) => {
                checks.fail(error.to_string());
                continue;
            }
        };
        let report = receipt::verify(&cut, Some(&one.request), Some(&one.answer), trust, at);
        match report.reasons.iter().find(|finding| finding.reason != Reason::NoProof) {
            Some(finding) => checks.fail(format!("entry {}: {}", cut.index, finding.code())),
            // Without a proof nothing else ties a receipt to the log that was loaded.
            None if trust.log(&cut.log).is_none() => {
                checks.fail(format!("entry {} of log {}", cut.index, cut.log))
            }
            None if !indexes.insert(cut.index) => checks.fail(format!("entry {} answers twice", cut.index)),
            None => {
                checks.receipts += 1;
                checks.denials += usize::from(number >= kept.len());
                good.push((cut, one));
            }
        }
    }
    good.sort_by_key(|(cut, _)| cut.index);
    (checks, good)
}

/// Waits until the published tree reaches an entry.
async fn published(public: &Client, index: u64) -> anyhow::Result<()> {
    let deadline = Instant::now() + PUBLICATION_DEADLINE;
    while proof(public, index).await?.is_none() {
        ensure!(Instant::now() < deadline, "the published checkpoint does not reach entry {index}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

async fn proof(public: &Client, index: u64) -> anyhow::Result<Option<TlogProof>> {
    let Fetched { status, body, .. } = public.get(&format!("/v1/log/proof/{index}")).await?;
    match status {
        200 => Ok(Some(TlogProof::parse(std::str::from_utf8(&body)?)?)),
        404 => Ok(None),
        other => anyhow::bail!("the public listener answers {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::{self, InProcess};
    use crate::population::{self, VerifyRequest};
    use schemas::identifier::CertificateIdentifier;
    use schemas::routes::Route;

    #[test]
    fn nothing_checked_is_not_passed() {
        assert!(!Checks::default().passed());
        assert!(!Checks { receipts: 5, ..Checks::default() }.passed());
        let good = || Checks { receipts: 5, proofs: 5, ..Checks::default() };
        assert!(good().passed());
        let mut checks = good();
        checks.log_grew(7, 7);
        assert!(checks.passed());
        checks.log_grew(6, 7);
        assert!(!checks.passed());
        assert_eq!(checks.first_failure.as_deref(), Some("7 answers and only 6 entries in the log"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_receipt_that_is_not_of_this_request_and_answer_fails_the_run() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder::prepare(folder.path(), false).await.unwrap();
        let exchange = InProcess::open(&config).await.unwrap();
        let approval = folder::organisation("approval").unwrap();
        let issuer = folder::organisation("issuer").unwrap();
        let license_type = population::type_codes()[0];
        let serial = "NONE".parse().unwrap();
        let identifier = CertificateIdentifier::new(license_type, issuer, serial, 1).unwrap().to_string();
        let mut kept = Vec::new();
        for case in 0..3 {
            let mut request = Vec::new();
            VerifyRequest::body(&identifier, None).write(case, &mut request);
            // Denials have receipts like any other answer.
            let answer = exchange.ask(Route::Verify, approval, request.clone(), None, 403).await.unwrap();
            kept.push(Kept { request, answer: answer.to_vec() });
        }
        let checked = |right: &[Kept], wrong: &[Kept]| {
            let (checks, good) = receipts(right, wrong, &exchange.trust, now_ms() / 1_000);
            assert_eq!(checks.receipts, good.len());
            (checks.receipts, checks.denials, checks.failed)
        };
        assert_eq!(checked(&kept, &[]), (3, 0, 0));
        assert_eq!(checked(&kept[..1], &kept[1..]), (3, 2, 0));
        let crossed = Kept { request: kept[0].request.clone(), answer: kept[1].answer.clone() };
        assert_eq!(checked(&[crossed], &[]), (0, 0, 1));
        let mut answer = kept[0].answer.clone();
        answer[3] ^= 1;
        let changed = Kept { answer, ..kept[0].clone() };
        assert_eq!(checked(std::slice::from_ref(&changed), &kept[1..]), (2, 2, 1));
        assert_eq!(checked(&[kept[0].clone(), kept[0].clone()], &[]), (1, 0, 1), "one entry answers once");
        let none = Kept { answer: br#"{"verdict":"valid"}"#.to_vec(), ..kept[0].clone() };
        assert_eq!(checked(std::slice::from_ref(&none), &[]), (0, 0, 1), "a right answer has a receipt");
        assert_eq!(checked(&kept[..1], &[none]), (1, 0, 0), "what decides nothing has none");
        let other = tempfile::tempdir().unwrap();
        let config = folder::prepare(other.path(), false).await.unwrap();
        let strangers = InProcess::open(&config).await.unwrap();
        let (checks, _) = receipts(&kept, &[], &strangers.trust, now_ms() / 1_000);
        assert_eq!((checks.receipts, checks.failed), (0, 3), "receipts of another log");
        strangers.close().await.unwrap();
        exchange.close().await.unwrap();
    }
}
