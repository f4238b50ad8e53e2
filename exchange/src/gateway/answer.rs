//! Step 8 of the request path: answers. One that says something takes what the ledger gives back after its sync. An
//! answer that a crash loses may be asked for again under its idempotency key.

use bytes::Bytes;
use ledger::Committed;
use schemas::codes::Code;
use serde::Serialize;
use verifier::Hash;
use verifier::receipt::Receipt;

use super::allowance::Left;
use crate::server::{Parts, Work};
use crate::wire::machine::Form;
use crate::wire::object::json;
use crate::wire::refusal::{Language, undecided};

/// Media type of refusals (RFC 9457).
const PROBLEM: &str = "application/problem+json";

/// A finished answer. Only this file makes one.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: Bytes,
    /// Media type of the body.
    pub media_type: &'static str,
    /// Public code, for metrics.
    pub code: Code,
    /// Answers that it is made of, which are counted in its place.
    lines: Vec<Code>,
    /// Index of its entry, if it has one of its own.
    pub(super) index: Option<u64>,
    /// The caller's allowances, for the headers.
    pub limits: Option<Box<Left>>,
    /// The parts of a body that is made while it is taken; then `body` is empty.
    pub parts: Option<Parts>,
    #[expect(dead_code, reason = "evidence that it was made here")]
    made: Made,
}

/// The last line of an answer in lines: without it something is missing.
#[derive(Serialize)]
struct End {
    end: bool,
    lines: usize,
}

#[derive(Debug)]
struct Made;

impl Answer {
    /// Its public code, or those of the answers that it is made of.
    pub fn codes(&self) -> &[Code] {
        if self.lines.is_empty() { std::slice::from_ref(&self.code) } else { &self.lines }
    }

    /// The same with what is left of the caller's allowances.
    pub(super) fn with_limits(self, limits: Option<Box<Left>>) -> Self {
        Self { limits, ..self }
    }

    /// An answer that decides nothing: a fixed body, no fact.
    pub fn undecided(code: Code, language: Language) -> Self {
        let body = undecided(code, language).into();
        Self { status: code.status(), body, media_type: PROBLEM, code, ..Self::whole() }
    }

    /// The same, counted by the answers that it is made of.
    pub(super) fn made_of(self, lines: Vec<Code>) -> Self {
        Self { lines, ..self }
    }

    /// An answer whose parts are made while it is taken; what stands in each is an answer by itself.
    pub(super) fn in_parts(parts: Parts) -> Self {
        Self { media_type: Form::Lines.media_type(), parts: Some(parts), ..Self::whole() }
    }

    /// The same; its parts end the task that makes them when nobody takes them any more.
    pub(super) fn made_by(mut self, work: Work) -> Self {
        self.parts = self.parts.map(|parts| parts.made_by(work));
        self
    }

    /// A body that is there.
    fn whole() -> Self {
        Self {
            status: 200,
            body: Bytes::new(),
            media_type: PROBLEM,
            code: Code::Ok,
            lines: Vec::new(),
            index: None,
            limits: None,
            parts: None,
            made: Made,
        }
    }

    /// Answers of a body in lines, in their order, and an end.
    pub(super) fn in_lines(answers: &[Self]) -> Self {
        let length = answers.iter().map(|answer| answer.body.len() + 1).sum::<usize>();
        let mut body = Vec::with_capacity(length + 64);
        for answer in answers {
            body.extend_from_slice(&answer.body);
            body.push(b'\n');
        }
        body.extend(json(&End { end: true, lines: answers.len() }));
        body.push(b'\n');
        let lines = answers.iter().map(|answer| answer.code).collect();
        Self { body: body.into(), media_type: Form::Lines.media_type(), lines, ..Self::whole() }
    }

    /// An answer that says something: possible only with what the ledger gives back after its sync.
    pub(super) fn committed(
        origin: &str,
        status: u16,
        code: Code,
        form: Form,
        answer: &[u8],
        request_salt: Hash,
        committed: Committed,
    ) -> Self {
        let receipt = Receipt {
            log: origin.to_owned(),
            index: committed.index,
            leaf_hash: committed.leaf_hash,
            open: committed.open,
            salt: committed.salt,
            c: committed.c,
            request_salt: Some(request_salt),
            proof: committed.proof.map(|proof| proof.to_text()),
        };
        // A refusal is a problem document in every form, unless it is an answer too.
        let (form, media_type) = match status {
            ..300 => (form, form.media_type()),
            300.. => (Form::Json, PROBLEM),
        };
        let body = match form {
            Form::Machine => verifier::machine::attach(answer, &receipt),
            Form::Json | Form::Lines => verifier::receipt::attach(answer, &receipt),
        };
        Self { status, body: body.into(), media_type, code, index: Some(receipt.index), ..Self::whole() }
    }
}
