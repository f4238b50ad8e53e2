//! Step 8 of the request path: answers. One that says something takes what the ledger gives back after its sync.

use bytes::Bytes;
use ledger::Committed;
use schemas::codes::Code;
use verifier::Hash;
use verifier::receipt::Receipt;

use crate::wire::machine::Form;
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
    #[expect(dead_code, reason = "evidence that it was made here")]
    made: Made,
}

#[derive(Debug)]
struct Made;

impl Answer {
    /// An answer that decides nothing: a fixed body, no fact.
    pub fn undecided(code: Code, language: Language) -> Self {
        let body = undecided(code, language).into();
        Self { status: code.status(), body, media_type: PROBLEM, code, made: Made }
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
        let (body, media_type) = match (code, form) {
            (Code::Ok, Form::Machine) => (verifier::machine::attach(answer, &receipt), form.media_type()),
            (Code::Ok, Form::Json) => (verifier::receipt::attach(answer, &receipt), form.media_type()),
            _ => (verifier::receipt::attach(answer, &receipt), PROBLEM),
        };
        Self { status, body: body.into(), media_type, code, made: Made }
    }
}
