//! Calls to others as journaled: each has a document from its intent to its outcome, and one that failed is remembered for a day,
//! so that its idempotency key calls nobody again.
//!
//! The relayed path alone writes it, in the frames of intent and outcome. A crash between the two leaves it open, and the next
//! start closes it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ledger::{Document, DocumentKind, Key, Label};
use schemas::codes::{Code, Reason};
use schemas::identifier::Uscc;
use serde::{Deserialize, Serialize};

use super::parsed::Kept;
use crate::wire::refusal::Refusal;

/// How long a call that failed is remembered, as long as an idempotency key is bound, ms.
pub(super) const REMEMBERED_MS: u64 = 24 * 3_600 * 1_000;

/// A call as journaled, under the idempotency key of its request or a random key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Called {
    /// Number of the route.
    pub(super) route: u8,
    /// The organisation that called.
    pub(super) organisation: Uscc,
    /// Keyed hash of the request, as hex, where an idempotency key came with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) request: Option<String>,
    /// Code of the resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) resource: Option<String>,
    /// Size of the log before the intent, which stands at this index or behind it.
    pub(super) after: u64,
    /// Until when the holders concerned are not told, ms since 1970; 0 = at once.
    #[serde(default)]
    pub(super) release_ms: u64,
    /// Labels of the holders concerned, as hex.
    pub(super) concerned: Vec<String>,
    /// Number of the code that it failed with; there is none while it is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) failed: Option<u16>,
    /// Number of the reason beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<u16>,
}

impl Kept for Called {
    const KIND: DocumentKind = DocumentKind::Call;
}

/// Calls of this process whose outcome the journal did not take, by key of their document and index of their intent.
#[derive(Debug, Default)]
pub(super) struct Owed(Mutex<Vec<(Key, u64)>>);

impl Owed {
    pub(super) fn add(&self, key: Key, intent: u64) {
        self.calls().push((key, intent));
    }

    /// All of them, which are owed no longer.
    pub(super) fn take(&self) -> Vec<(Key, u64)> {
        std::mem::take(&mut *self.calls())
    }

    fn calls(&self) -> MutexGuard<'_, Vec<(Key, u64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Called {
    /// The call of a document that has no outcome. One that ended stays in memory until the next entry.
    pub(super) fn open(document: &Document) -> Option<Self> {
        let called: Self = serde_json::from_slice(&document.value).ok()?;
        (called.failed.is_none() && document.ends_ms == 0).then_some(called)
    }

    /// Labels of the holders concerned.
    pub(super) fn labels(&self) -> Vec<Label> {
        let label = |hex: &String| {
            let mut label = [0; 16];
            hex::decode_to_slice(hex, &mut label).ok().map(|()| label)
        };
        self.concerned.iter().filter_map(label).collect()
    }

    /// The refusal of a request that comes again under its key. A call without an outcome is not under way here: its request has the
    /// key's turn until its end.
    pub(super) fn again(&self, request: &Key) -> Refusal {
        if self.request.as_deref() != Some(hex::encode(request).as_str()) {
            return Refusal::new(Code::IdempotencyConflict);
        }
        let code = self.failed.and_then(Code::from_number).unwrap_or(Code::OutcomeUnknown);
        match self.reason.and_then(Reason::from_number) {
            Some(reason) if reason != Reason::None => Refusal::explained(code, reason),
            Some(_) | None => Refusal::new(code),
        }
    }

    /// The same with the failure that it ended in.
    pub(super) fn with(&self, refusal: &Refusal) -> Self {
        let (failed, reason) = (Some(refusal.code.number()), Some(refusal.reason.number()));
        Self { failed, reason, concerned: Vec::new(), ..self.clone() }
    }
}
