//! Answers that are given again, from the journal: the second half of step 3.
//!
//! The path alone calls it, in a lane. It only reads, so a crash leaves nothing.

use std::borrow::Cow;
use std::time::Duration;

use ledger::{Bound, Committed, Ledger, ReadError};
use schemas::codes::Code;
use verifier::leaf::Open;
use verifier::license::LicenseContent;

use super::answer::Answer;
use super::permit::Disclosure;
use super::seal::{request_salt, sha256};
use super::tools::{Entry, Tools};
use crate::capability::licenses::stored::{self, StandsNow};
use crate::capability::licenses::{Given, issue_answer};
use crate::wire::refusal::Refusal;

/// How soon an entry is under a published checkpoint.
const PUBLISHED_WITHIN: Duration = Duration::from_secs(1);
/// How often that is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// A license that an answer disclosed, as it stands now, with the right to read it.
pub(super) struct Disclosed {
    pub(super) stands: StandsNow,
    pub(super) right: Disclosure,
}

/// A disclosed license, what stands in it, and how it is shown now.
type Standing = (StandsNow, LicenseContent);

impl Tools<'_> {
    /// The answer and the receipt of the entry that bound an idempotency key, read back from the journal in a lane: the
    /// entry may be old, and the same key may be sent as often as its organisation likes.
    /// An inline proof is given against the published checkpoint, which covers the entry within a second.
    ///
    /// `None` when the answer discloses a license that does not stand like that any more.
    ///
    /// # Errors
    /// The journal cannot give it back.
    pub(super) async fn original(
        &self,
        entry: &Entry<'_>,
        bound: Bound,
        inline_proof: bool,
        disclosed: Option<Disclosed>,
    ) -> Result<Option<Answer>, Refusal> {
        if inline_proof {
            self.published(bound.index).await;
        }
        let ledger = self.ledger.clone();
        let read = self
            .lanes
            .searches
            .run(*entry.organisation, move || read_original(&ledger, &bound, inline_proof, disclosed));
        let (subject, committed, standing) = read.await.map_err(Refusal::new)??;
        let lost = || Refusal::new(Code::RecordUnavailable);
        let record =
            flatbuffers::root::<schemas::journal::SubjectRecord<'_>>(&subject).map_err(|_| lost())?;
        let answer = match (record.answer(), record.envelope()) {
            (Some(answer), _) => Cow::from(answer.bytes()),
            (None, Some(envelope)) => {
                let identifier = stored::identifier_in(envelope.bytes())?;
                issue_answer(&identifier, envelope.bytes()).into()
            }
            (None, None) => return Err(lost()),
        };
        // The receipt is of these very bytes.
        if Open::parse(&committed.open).map_err(|_| lost())?.answer_digest != sha256(&answer) {
            tracing::error!(
                index = committed.index,
                "the original answer is another than the one that was given"
            );
            return Err(lost());
        }
        if let Some(standing) = standing
            && !Given::read(entry.form, &answer).is_some_and(|given| {
                let (stands, content) = &standing;
                (&given.identifier, given.in_force) == (&content.identifier.to_string(), stands.in_force)
                    && given.is_shown_of(content, stands.masks.as_ref())
            })
        {
            return Ok(None);
        }
        let salt = request_salt(record.told_salt().ok_or_else(lost)?.bytes());
        let (origin, status) = (self.ledger.origin(), entry.route.success_status());
        // The same body is of the same form.
        Ok(Some(Answer::committed(origin, status, Code::Ok, entry.form, &answer, salt, committed)))
    }
}

impl Tools<'_> {
    /// Waits until the published checkpoint covers an entry, which it does within a second: a retry may come sooner. After three the
    /// answer goes without its proof.
    async fn published(&self, index: u64) {
        let covered = async {
            while self.ledger.published().0 <= index {
                tokio::time::sleep(LOOK).await;
            }
        };
        let _ = tokio::time::timeout(3 * PUBLISHED_WITHIN, covered).await;
    }
}

/// Reads what an answer is given again from: the `SubjectRecord` that holds it, its entry, and how the license that it discloses
/// stands now. Blocks for some reads.
fn read_original(
    ledger: &Ledger,
    bound: &Bound,
    inline_proof: bool,
    disclosed: Option<Disclosed>,
) -> Result<(Vec<u8>, Committed, Option<Standing>), Refusal> {
    let standing = match disclosed {
        Some(Disclosed { stands, right }) => {
            let content = stored::content(ledger, &stands.license, right)?;
            Some((stands, content))
        }
        None => None,
    };
    let (subject, mut committed) = ledger.original(bound).map_err(|error| {
        match error {
            ReadError::Missing(segment) => return stored::missing(segment),
            ReadError::KeyGone => return Refusal::new(Code::Erased),
            _ => {}
        }
        tracing::error!(index = bound.index, "the original answer cannot be read back");
        Refusal::new(Code::RecordUnavailable)
    })?;
    if inline_proof {
        committed.proof = ledger.proof(bound.index).ok().flatten();
    }
    Ok((subject, committed, standing))
}
