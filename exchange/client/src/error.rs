//! How a call can end without its answer.
//!
//! Values of the client's user. A call without an answer may have been decided.

use std::fmt;

use schemas::codes::Code;
use serde::Deserialize;
use serde_json::Value;
use verifier::receipt::Receipt;
use verifier::report::{Report, Verdict};

use crate::Exchanged;

/// How a call ended without its answer. No text of it holds what was sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody is there, or somebody else: nothing was sent.
    #[error("cannot reach {authority}: {why}")]
    Unreachable {
        /// Where the server was looked for.
        authority: String,
        /// The fault, in words for a person.
        why: String,
    },
    /// The request was sent, or a part of it, and no answer came.
    #[error(transparent)]
    NoAnswer(NoAnswer),
    /// The exchange refuses.
    #[error(transparent)]
    Refused(Box<Refused>),
    /// The receipt does not prove the answer. It must not be believed.
    #[error(transparent)]
    Unproven(Box<Unproven>),
    /// The answer is not what the contract says, or it has no receipt.
    #[error(transparent)]
    Malformed(Box<Malformed>),
    /// The request cannot be written.
    #[error("the request cannot be sent: {0}")]
    Request(String),
}

/// Nobody knows whether the request took effect. The same request with the same key finds out, and takes effect once.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{authority} gives no answer: {why}")]
pub struct NoAnswer {
    /// The endpoint that was asked.
    pub authority: String,
    /// The fault, in words for a person.
    pub why: String,
    /// The idempotency key that was sent; [`Call::key`](crate::Call::key) takes it again.
    pub key: Option<String>,
}

/// A refusal.
#[derive(Clone, Debug)]
pub struct Refused {
    /// HTTP status.
    pub status: u16,
    /// The problem, as answered.
    pub problem: Problem,
    /// The idempotency key that was sent. After "not now" the request is sent again with it: an attempt before may have taken effect.
    pub key: Option<String>,
    /// The receipt of the refusal. An answer that decides nothing, such as "not now", has none.
    pub receipt: Option<Receipt>,
    /// The check of the receipt: valid, or only that the exchange did not read the request to its end. `None` without a
    /// receipt, and when the client was given no trust.
    pub report: Option<Report>,
    /// The bytes that the receipt is for.
    pub exchanged: Exchanged,
}

impl Refused {
    /// The stable code; `None` when it is none that this client knows.
    pub fn code(&self) -> Option<Code> {
        self.problem.code.as_deref().and_then(Code::from_name)
    }
}

impl std::error::Error for Refused {}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { code, title, detail, errors, .. } = &self.problem;
        write!(f, "refused ({} {})", self.status, code.as_deref().unwrap_or("without a code"))?;
        for words in [title, detail].into_iter().flatten() {
            write!(f, "; {words}")?;
        }
        match &self.receipt {
            Some(receipt) => write!(f, "; entry {} of the log", receipt.index)?,
            None => f.write_str("; no entry of the log")?,
        }
        for fault in errors {
            write!(f, "\n  {fault}")?;
        }
        Ok(())
    }
}

/// A problem document (RFC 9457). It holds nothing that was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Problem {
    /// The stable code; programs decide by it.
    pub code: Option<String>,
    /// One sentence.
    pub title: Option<String>,
    /// More of it.
    pub detail: Option<String>,
    /// With `identifier-exists`: the caller's license that exists.
    pub identifier: Option<String>,
    /// The faults of the request, part by part.
    #[serde(default)]
    pub errors: Vec<Fault>,
}

/// One part of a request that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// Where in the body (RFC 6901); the empty one is the whole body.
    pub pointer: Option<String>,
    /// The header, for a fault outside the body.
    pub header: Option<String>,
    /// The stable name of the rule.
    pub rule: String,
    /// The right values, bounds, or form.
    pub allowed: Option<Value>,
    /// How long what was sent is, in characters or members.
    pub got_length: Option<u64>,
    /// Which member of the object, or which character of the text, from 1.
    pub position: Option<u64>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pointer, header, rule, allowed, got_length, position } = self;
        if let Some(pointer) = pointer {
            write!(f, "pointer {pointer}, ")?;
        }
        if let Some(header) = header {
            write!(f, "header {header}, ")?;
        }
        write!(f, "rule {rule}")?;
        match allowed {
            Some(Value::String(form)) => write!(f, ", allowed {form}")?,
            Some(allowed) => write!(f, ", allowed {allowed}")?,
            None => {}
        }
        if let Some(length) = got_length {
            write!(f, ", gotLength {length}")?;
        }
        if let Some(position) = position {
            write!(f, ", position {position}")?;
        }
        Ok(())
    }
}

/// An answer whose receipt is not valid: for another request, another answer or another log, or nobody can tell.
#[derive(Clone, Debug)]
pub struct Unproven {
    /// HTTP status.
    pub status: u16,
    /// The findings of the check.
    pub report: Report,
    /// The bytes, as evidence.
    pub exchanged: Exchanged,
}

impl std::error::Error for Unproven {}

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict =
            if self.report.verdict == Verdict::Invalid { "is invalid" } else { "cannot be checked" };
        write!(f, "the receipt of the answer {verdict}")?;
        for (number, finding) in self.report.reasons.iter().enumerate() {
            write!(f, "{}{}", if number == 0 { ": " } else { ", " }, finding.code())?;
        }
        Ok(())
    }
}

/// An answer that the contract does not know.
#[derive(Clone, Debug)]
pub struct Malformed {
    /// HTTP status.
    pub status: u16,
    /// The fault of it.
    pub why: String,
    /// The bytes, as evidence.
    pub exchanged: Exchanged,
}

impl std::error::Error for Malformed {}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the answer (status {}) is not as the contract says: {}", self.status, self.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_in_words() {
        let problem = r#"{"title":"Not so.","code":"bad-use-context","detail":"cause","errors":[
            {"pointer":"/use/cause","rule":"length","allowed":{"max":200,"min":1},"gotLength":201},
            {"header":"idempotency-key","rule":"pattern","allowed":"16 to 64 characters"},
            {"pointer":"/use/stage","rule":"one-of","allowed":["受理"]}]}"#;
        let receipt = Receipt {
            log: "log.example/1".to_owned(),
            index: 7,
            leaf_hash: [0; 32],
            open: Vec::new(),
            salt: [0; 32],
            c: [0; 32],
            request_salt: None,
            proof: None,
        };
        let exchanged = Exchanged { request: "{}".into(), answer: "{}".into() };
        let refused = Refused {
            status: 422,
            problem: serde_json::from_str(problem).expect("a problem"),
            key: None,
            receipt: Some(receipt),
            report: None,
            exchanged,
        };
        assert_eq!(refused.code(), Some(Code::BadUseContext));
        let text = "refused (422 bad-use-context); Not so.; cause; entry 7 of the log\n  \
                    pointer /use/cause, rule length, allowed {\"max\":200,\"min\":1}, gotLength 201\n  \
                    header idempotency-key, rule pattern, allowed 16 to 64 characters\n  \
                    pointer /use/stage, rule one-of, allowed [\"受理\"]";
        assert_eq!(refused.to_string(), text);
        let nothing = Refused { status: 503, problem: Problem::default(), receipt: None, ..refused };
        assert_eq!(nothing.to_string(), "refused (503 without a code); no entry of the log");
        assert_eq!(nothing.code(), None);
    }
}
