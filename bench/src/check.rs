//! Checks after a run, from bytes alone: a fast wrong answer is worth nothing.

use std::collections::HashSet;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use exchange::client::Client;
use serde::{Deserialize, Serialize};
use verifier::proof::TlogProof;
use verifier::receipt;
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
pub async fn check(
    kept: &[Kept],
    wrong: &[Kept],
    trust: &Trust,
    public: &mut Client,
) -> anyhow::Result<Checks> {
    let mut checks = Checks::default();
    let at = now_ms() / 1_000;
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
            None if !indexes.insert(cut.index) => checks.fail(format!("entry {} answers twice", cut.index)),
            None => {
                checks.receipts += 1;
                checks.denials += usize::from(number >= kept.len());
                good.push((cut, one));
            }
        }
    }
    good.sort_by_key(|(cut, _)| cut.index);
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

/// Waits until the published tree reaches an entry.
async fn published(public: &mut Client, index: u64) -> anyhow::Result<()> {
    let deadline = Instant::now() + PUBLICATION_DEADLINE;
    while proof(public, index).await?.is_none() {
        ensure!(Instant::now() < deadline, "the published checkpoint does not reach entry {index}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

async fn proof(public: &mut Client, index: u64) -> anyhow::Result<Option<TlogProof>> {
    let (status, body) = public.get(&format!("/v1/log/proof/{index}")).await?;
    match status {
        200 => Ok(Some(TlogProof::parse(std::str::from_utf8(&body)?)?)),
        404 => Ok(None),
        other => anyhow::bail!("the public listener answers {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
