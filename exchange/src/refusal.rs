//! Why a request is refused: the public code, and what only insiders learn.

use schemas::codes::{Code, Reason};
use schemas::holder::HolderError;
use schemas::identifier::IdentifierError;
use serde::Serialize;

/// A refusal on its way to becoming a journaled denial.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// What the caller learns.
    pub code: Code,
    /// What stands in the journal's sealed part only.
    pub reason: Reason,
    /// Line and column of a JSON fault.
    position: Option<(usize, usize)>,
    /// The reason is told to the caller as well.
    explained: bool,
}

/// RFC 9457 problem document.
#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    status: u16,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

impl Refusal {
    /// A refusal whose public code says it all.
    pub fn new(code: Code) -> Self {
        Self { code, reason: Reason::None, position: None, explained: false }
    }

    /// The one `not-permitted`, with the cause for insiders.
    pub fn not_permitted(reason: Reason) -> Self {
        Self { code: Code::NotPermitted, reason, position: None, explained: false }
    }

    /// A refusal whose reason the caller may know: its name is the problem's detail.
    pub fn explained(code: Code, reason: Reason) -> Self {
        Self { code, reason, position: None, explained: true }
    }

    /// Adds where in the body the fault lies.
    pub fn at(mut self, line: usize, column: usize) -> Self {
        self.position = Some((line, column));
        self
    }

    /// A refusal of an identifier: a wrong check character has its own code.
    pub fn identifier(error: IdentifierError) -> Self {
        Self::new(if error.is_check_error() { Code::WrongCheckDigit } else { Code::BadIdentifier })
    }

    /// A refusal of a holder's number: a wrong check character has its own code.
    pub fn holder(error: HolderError) -> Self {
        Self::new(if error.is_check_error() { Code::WrongCheckDigit } else { Code::BadHolder })
    }

    /// The problem document, byte for byte what is hashed and sent before the receipt is written in.
    pub fn problem(&self) -> Vec<u8> {
        let problem = Problem {
            kind: format!("urn:miaoxiang:problem:{}", self.code.name()),
            title: self.code.sentence(),
            status: self.code.status(),
            code: self.code.name(),
            detail: match self.position {
                Some((line, column)) => Some(format!("line {line}, column {column}")),
                None => self.explained.then(|| self.reason.name().to_owned()),
            },
        };
        serde_json::to_vec(&problem).expect("a problem document has only text and numbers")
    }
}

/// The fixed body of an answer that decides nothing (408, 429, 503): no fact, no receipt.
pub fn undecided(code: Code) -> Vec<u8> {
    Refusal::new(code).problem()
}
