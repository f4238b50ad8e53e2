//! One call: sent, sent again where that is right, and its answer read and proven.
//!
//! Made by the client, awaited by its user. After a crash the call may have been decided: sent again under the same
//! key, it counts once.

use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hyper::header::HeaderValue;
use ring::rand::{SecureRandom as _, SystemRandom};
use schemas::codes::{Code, Decision};
use schemas::routes::Route;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout};
use verifier::leaf::Open;
use verifier::receipt::{self, CutError, Receipt};
use verifier::report::{Reason, Report, Verdict};
use verifier::trust::Trust;

use crate::answer::{Answer, Exchanged};
use crate::client::Shared;
use crate::error::{Error, Malformed, NoAnswer, Problem, Refused, Unproven};
use crate::transport::{Fetched, Lost, Outgoing};

/// A call may take so long, with all that is sent again, unless told otherwise.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// How often a request is sent, and when again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Most times, the first included; 1 = never again.
    pub attempts: u32,
    /// Longest wait for the answer of one of them.
    pub patience: Duration,
    /// Pause before the second; each pause after it is twice as long, and a part of it is left to chance.
    pub first_pause: Duration,
    /// Longest pause. `Retry-After` of the exchange may ask for a longer one.
    pub longest_pause: Duration,
}

impl Retry {
    /// A request is sent once.
    pub const NEVER: Self = Self { attempts: 1, patience: DEADLINE, ..Self::USUAL };
    /// Four times within the usual deadline.
    pub const USUAL: Self = Self {
        attempts: 4,
        patience: Duration::from_secs(10),
        first_pause: Duration::from_millis(100),
        longest_pause: Duration::from_secs(5),
    };

    /// The pause after so many attempts, between half and the whole of what doubling gives.
    fn pause(&self, attempts: u32) -> Duration {
        let doubled = self.first_pause.saturating_mul(1 << attempts.saturating_sub(1).min(16));
        let whole = doubled.min(self.longest_pause);
        let mut chance = [0; 1];
        // Without chance the pause is only less spread.
        let _ = SystemRandom::new().fill(&mut chance);
        whole / 2 + (whole / 2).saturating_mul(u32::from(chance[0])) / 256
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self::USUAL
    }
}

/// A request that is sent when it is awaited.
#[must_use = "a call is sent when it is awaited"]
pub struct Call<'c, T> {
    shared: &'c Shared,
    route: Route,
    body: Result<Bytes, String>,
    key: Option<String>,
    inline: bool,
    deadline: Duration,
    answer: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for Call<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Call({})", self.route.name())
    }
}

impl<'c, T> Call<'c, T> {
    pub(crate) fn new(shared: &'c Shared, route: Route, body: Result<Bytes, String>) -> Self {
        Self {
            shared,
            route,
            body,
            key: None,
            inline: shared.trust.is_some(),
            deadline: shared.deadline,
            answer: PhantomData,
        }
    }

    /// With this idempotency key, 16 to 64 characters of ASCII. Without it a fresh one is made where it matters: for a change of
    /// state, and for a use that may be sent again.
    pub fn key(self, key: impl Into<String>) -> Self {
        Self { key: Some(key.into()), ..self }
    }

    /// Asks for the receipt's proof with the answer. A client with a trust always does.
    pub fn with_proof(self) -> Self {
        Self { inline: true, ..self }
    }

    /// May take so long, with all that is sent again.
    pub fn within(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }
}

impl<'c, T: DeserializeOwned> IntoFuture for Call<'c, T> {
    type Output = Result<Answer<T>, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'c>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { shared, route, body, key, inline, deadline, .. } = self;
        // The answer's type need not live as long as the call.
        Box::pin(async move { shared.exchange(route, body, key, inline, deadline).await })
    }
}

impl Shared {
    async fn exchange<T: DeserializeOwned>(
        &self,
        route: Route,
        body: Result<Bytes, String>,
        key: Option<String>,
        inline: bool,
        deadline: Duration,
    ) -> Result<Answer<T>, Error> {
        let body = body.map_err(Error::Request)?;
        let path = route.path().ok_or_else(|| Error::Request(format!("{} has no path", route.name())))?;
        let key = match key {
            // Whatever may be sent twice has a key, so that it counts once. A page may be asked for twice.
            None if route.changes_state() || self.retry.attempts > 1 && !is_page(route) => Some(fresh_key()?),
            key => key,
        };
        let mut headers = vec![("content-type", HeaderValue::from_static("application/json"))];
        if let Some(key) = &key {
            let value =
                HeaderValue::from_str(key).map_err(|_| Error::Request("no idempotency key".to_owned()))?;
            headers.push(("idempotency-key", value));
        }
        if let (Some(signing), Some(key), true) = (&self.signing, &key, route.changes_state()) {
            let authority = self.connection.endpoint.authority();
            let signed = signing.headers(authority, path, &body, key);
            headers.extend(signed.ok_or_else(|| Error::Request("it cannot be signed".to_owned()))?);
        }
        if inline {
            headers.push(("receipt", HeaderValue::from_static("inline")));
        }
        let outgoing = Outgoing { body: Some(body.clone()), path, headers };
        let fetched = self.fetch(&outgoing, key.clone(), deadline, self.retry.patience).await?;
        self.read(route, body, key, fetched)
    }

    /// Sends a request until there is an answer that decides something, waiting so long for each.
    pub(crate) async fn fetch(
        &self,
        outgoing: &Outgoing<'_>,
        key: Option<String>,
        within: Duration,
        patience: Duration,
    ) -> Result<Fetched, Error> {
        let deadline = Instant::now() + within;
        let (mut attempts, mut unanswered) = (0, false);
        loop {
            attempts += 1;
            let patience = deadline.saturating_duration_since(Instant::now()).min(patience);
            let outcome = match timeout(patience, self.connection.send(outgoing)).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    // Whether the connection still carries anything is not known.
                    self.connection.drop_kept();
                    Err(Lost::NoAnswer { why: format!("none within {patience:?}"), again: true })
                }
            };
            let (again, asked_for) = match &outcome {
                Ok(fetched) => (fetched.is_not_now(), fetched.retry_after),
                Err(lost) => (lost.may_pass(), None),
            };
            unanswered |= matches!(outcome, Err(Lost::NoAnswer { .. }));
            let pause = self.retry.pause(attempts).max(Duration::from_secs(asked_for.unwrap_or(0)));
            let left = deadline.saturating_duration_since(Instant::now());
            if again && attempts < self.retry.attempts && pause < left {
                sleep(pause).await;
                continue;
            }
            let authority = self.connection.endpoint.authority().to_owned();
            return outcome.map_err(|lost| match lost {
                // An earlier attempt may have taken effect.
                Lost::Unreachable { why, .. } if !unanswered => Error::Unreachable { authority, why },
                Lost::Unreachable { why, .. } | Lost::NoAnswer { why, .. } => {
                    Error::NoAnswer(NoAnswer { authority, why, key })
                }
                Lost::Request(why) => Error::Request(why),
            });
        }
    }

    /// Reads an answer and has its receipt checked.
    pub(crate) fn read<T: DeserializeOwned>(
        &self,
        route: Route,
        request: Bytes,
        key: Option<String>,
        fetched: Fetched,
    ) -> Result<Answer<T>, Error> {
        let Fetched { status, body: answer, .. } = fetched;
        let exchanged = Exchanged { request, answer };
        let permitted = (200..300).contains(&status);
        let malformed = |why: String, exchanged: Exchanged| {
            Err(Error::Malformed(Box::new(Malformed { status, why, exchanged })))
        };
        let (document, receipt) = match receipt::cut(&exchanged.answer) {
            Ok((document, receipt)) => (document, Some(receipt)),
            Err(CutError::NoReceipt) if !permitted => (exchanged.answer.to_vec(), None),
            Err(error) => return malformed(error.to_string(), exchanged),
        };
        let report = match (&receipt, self.trust.as_deref()) {
            (Some(receipt), Some(trust)) => Some(check(receipt, &exchanged, trust)),
            _ => None,
        };
        // The exchange may refuse what it has not read to its end; the entry says so.
        let unread = |report: &Report| {
            !permitted && report.reasons.iter().all(|found| found.reason == Reason::RequestNotRecorded)
        };
        if let Some(report) =
            report.clone().filter(|report| report.verdict != Verdict::Valid && !unread(report))
        {
            return Err(Error::Unproven(Box::new(Unproven { status, report, exchanged })));
        }
        if !permitted {
            // A proxy before the exchange may answer with no problem document.
            let problem: Problem = serde_json::from_slice(&document).unwrap_or_default();
            let code = problem.code.as_deref().and_then(Code::from_name).map(Code::number);
            let told = |open: Open| {
                open.decision == Decision::Denial.number() && code.is_none_or(|code| code == open.code)
            };
            if receipt.as_ref().is_some_and(|receipt| !Open::parse(&receipt.open).is_ok_and(told)) {
                return malformed(OTHER_ENTRY.to_owned(), exchanged);
            }
            let refused = Refused { status, problem, key, receipt, report, exchanged };
            return Err(Error::Refused(Box::new(refused)));
        }
        // A question whose answer is no is refused.
        let is_answer = |decision| decision == Decision::Permit.number() || route == Route::Evaluation;
        let told = |open: Open| is_answer(open.decision) && open.route == route.number();
        let Some(receipt) = receipt.filter(|receipt| Open::parse(&receipt.open).is_ok_and(told)) else {
            return malformed(OTHER_ENTRY.to_owned(), exchanged);
        };
        match serde_json::from_slice(&document) {
            Ok(value) => Ok(Answer { value, receipt, report, exchanged }),
            // The words of serde may hold the answer.
            Err(error) => malformed(format!("line {}, column {}", error.line(), error.column()), exchanged),
        }
    }
}

/// The receipt belongs to this answer, but says something else of it.
const OTHER_ENTRY: &str = "its receipt is of another decision";

/// Whether a route shows pages or answers questions, each of which is asked for anew.
const fn is_page(route: Route) -> bool {
    matches!(
        route,
        Route::Trace
            | Route::LogQuery
            | Route::ParticipantList
            | Route::ProposalList
            | Route::GrantSearch
            | Route::IssuedList
            | Route::ResourceSearch
            | Route::ApplicationList
            | Route::RecordsFeed
            | Route::RecordsMismatches
            | Route::Evaluation
            | Route::Evaluations
    )
}

impl Fetched {
    /// It decides nothing, and the same may be answered a little later.
    fn is_not_now(&self) -> bool {
        self.status == 408 || self.retry_after.is_some() && matches!(self.status, 429 | 503)
    }
}

fn check(receipt: &Receipt, exchanged: &Exchanged, trust: &Trust) -> Report {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    receipt::verify(receipt, Some(&exchanged.request), Some(&exchanged.answer), trust, now)
}

pub(crate) fn fresh_key() -> Result<String, Error> {
    let mut key = [0; 16];
    SystemRandom::new().fill(&mut key).map_err(|_| Error::Request("no randomness".to_owned()))?;
    Ok(hex::encode(key))
}
