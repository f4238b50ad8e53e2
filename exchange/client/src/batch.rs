//! A batch: many verifications in one call, and the report of it.
//!
//! Made by the client, awaited by its user. A call whose report has no end is sent again under its key: what was answered is answered
//! alike, and counts once.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hyper::header::HeaderValue;
use schemas::routes::{Form, Route};
use serde_json::Value;
use verifier::batch::{self, End};
use verifier::receipt::{self, Receipt};
use verifier::report::{Report, Verdict};

use crate::answer::{Exchanged, Verified};
use crate::call::fresh_key;
use crate::client::Client;
use crate::error::{Error, Malformed, NoAnswer, Problem, Unproven};
use crate::request::Verify;
use crate::transport::Outgoing;

/// A report with its end.
#[derive(Clone, Debug)]
pub struct BatchReport {
    /// The answer of each line, in its place: a verification, or why there is none.
    pub answers: Vec<Result<Verified, Problem>>,
    /// The end.
    pub end: End,
    /// The receipt of the end.
    pub receipt: Receipt,
    /// The check of the report: valid. `None` when the client was given no trust.
    pub report: Option<Report>,
    /// The idempotency key that was sent.
    pub key: String,
    /// The bytes that prove it later: `verifier report` takes both.
    pub exchanged: Exchanged,
}

/// Requests as the body of a batch, a line each.
///
/// # Errors
/// [`Error::Request`]
pub fn batch_body(requests: &[Verify]) -> Result<Bytes, Error> {
    let mut body = Vec::new();
    for request in requests {
        // The words of serde may hold the request.
        serde_json::to_writer(&mut body, request)
            .map_err(|_| Error::Request("a line is no JSON".to_owned()))?;
        body.push(b'\n');
    }
    Ok(body.into())
}

impl Client {
    /// Verifies many licenses in one call: `POST /v1/verify/batch`. `body` has a request in each line ([`batch_body`]). `key` is the
    /// idempotency key of an earlier call whose report had no end; without one a fresh one is made. Refusals beyond the organisation's
    /// budget slow the exchange down: `within` must leave time for them.
    ///
    /// # Errors
    /// [`Error::NoAnswer`] also for a report without its end: the same call with its key goes on.
    pub async fn verify_batch(
        &self,
        body: impl Into<Bytes>,
        key: Option<String>,
        within: Duration,
    ) -> Result<BatchReport, Error> {
        const ROUTE: Route = Route::VerifyBatch;
        let (shared, request) = (&self.shared, body.into());
        let path = ROUTE.path().ok_or_else(|| Error::Request("no path".to_owned()))?;
        let key = match key {
            Some(key) => key,
            None => fresh_key()?,
        };
        let value =
            HeaderValue::from_str(&key).map_err(|_| Error::Request("no idempotency key".to_owned()))?;
        let media_type = HeaderValue::from_static(Form::Lines.media_type());
        let headers = vec![("content-type", media_type), ("idempotency-key", value)];
        let outgoing = Outgoing { body: Some(request.clone()), path, headers };
        let fetched = shared.fetch(&outgoing, Some(key.clone()), within, within).await?;
        let status = fetched.status;
        if status != ROUTE.success_status() {
            shared.read::<Value>(ROUTE, request.clone(), Some(key), fetched)?;
            let exchanged = Exchanged { request, answer: Bytes::new() };
            return Err(malformed(status, "it has another status than a report".to_owned(), exchanged));
        }
        let exchanged = Exchanged { request, answer: fetched.body };
        let Some(batch::Ended { end, receipt, .. }) = batch::end(&exchanged.answer) else {
            let authority = shared.connection.endpoint.authority().to_owned();
            let why = "the report has no end: answers are missing".to_owned();
            return Err(Error::NoAnswer(NoAnswer { authority, why, key: Some(key) }));
        };
        let report = shared.trust.as_deref().map(|trust| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            batch::verify(&exchanged.answer, Some(&exchanged.request), trust, None, now)
        });
        if let Some(report) = report.clone().filter(|report| report.verdict != Verdict::Valid) {
            return Err(Error::Unproven(Box::new(Unproven { status, report, exchanged })));
        }
        let most = usize::try_from(end.lines).unwrap_or(usize::MAX);
        let answers: Result<Vec<_>, String> = (1..)
            .zip(batch::lines(&exchanged.answer).take(most))
            .map(|(number, line)| answer(number, line))
            .collect();
        match answers {
            Ok(answers) if answers.len() == most => {
                Ok(BatchReport { answers, end, receipt, report, key, exchanged })
            }
            Ok(_) => {
                Err(malformed(status, "the report has fewer lines than its end says".to_owned(), exchanged))
            }
            Err(why) => Err(malformed(status, why, exchanged)),
        }
    }
}

fn malformed(status: u16, why: String, exchanged: Exchanged) -> Error {
    Error::Malformed(Box::new(Malformed { status, why, exchanged }))
}

/// Reads the answer of a line, whose receipt the check of the report has seen to.
fn answer(number: usize, line: &[u8]) -> Result<Result<Verified, Problem>, String> {
    let cut = receipt::cut(line).map(|(document, _)| document);
    let document = cut.as_deref().unwrap_or(line);
    if let Ok(verified) = serde_json::from_slice::<Verified>(document) {
        return Ok(Ok(verified));
    }
    // The words of serde may hold the answer.
    let problem = serde_json::from_slice::<Problem>(document).ok().filter(|problem| problem.code.is_some());
    problem.map(Err).ok_or_else(|| format!("line {number} is no answer"))
}
