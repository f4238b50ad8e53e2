//! The answer of a check: a verdict, its reasons, and what was and was not checked.
//!
//! A check alone makes one. Values; nothing to lose.

use crate::{Hash, trust::Trust};
use schemas::{
    date::{Date, rfc3339},
    identifier::CertificateIdentifier,
};
use serde::{Serialize, Serializer};
use std::fmt;

/// One of three clearly different answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every check that applies was made and holds.
    Valid,
    /// A check fails.
    Invalid,
    /// A check could not be made; nothing that was checked fails.
    Unknown,
}

/// Declares the reasons with their stable code and the verdict each leads to.
macro_rules! reasons {
    ($($(#[$meta:meta])* $variant:ident = $code:literal $verdict:ident),+ $(,)?) => {
        /// Why a verdict is not `valid`. The codes are stable.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$meta])* $variant),+ }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The stable code.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code),+ }
            }

            /// The verdict that this reason leads to under a trust bundle in force.
            pub const fn verdict(self) -> Verdict {
                match self { $(Self::$variant => Verdict::$verdict),+ }
            }
        }
    };
}

reasons! {
    /// The envelope is no `MXL1` buffer within the limits, or not in the one form that is written.
    MalformedEnvelope = "malformed-envelope" Invalid,
    /// Bytes follow the envelope.
    TrailingBytes = "trailing-bytes" Invalid,
    /// The body is no `MXB1` buffer within the limits, or a date in it is none.
    MalformedBody = "malformed-body" Invalid,
    /// The body's identifier is no license identifier, or its check character is wrong.
    BadIdentifier = "bad-identifier" Invalid,
    /// The trust bundle knows no issuer of this license.
    NoTrustForIssuer = "no-trust-for-issuer" Unknown,
    /// A signature is of a key that the trust bundle does not give the issuer.
    UnknownSigner = "unknown-signer" Invalid,
    /// A signature is of a key of another organisation than the identifier names.
    IssuerMismatch = "issuer-mismatch" Invalid,
    /// The issuer may not issue this license type.
    NotEntitledToType = "not-entitled-to-type" Invalid,
    /// The body was signed before the key's time.
    KeyNotYetValid = "key-not-yet-valid" Invalid,
    /// The body was signed after the key's time.
    KeyPastEnd = "key-past-end" Invalid,
    /// The key is compromised: good only with an issue receipt from before, which an envelope does not hold.
    KeyCompromised = "key-compromised" Unknown,
    /// A signature that the trust bundle requires of the issuer is missing.
    RequiredSuiteMissing = "required-suite-missing" Invalid,
    /// A signature is of a suite that this verifier does not know or cannot check.
    UnsupportedSuite = "unsupported-suite" Unknown,
    /// An inclusion path does not fit its index and size.
    BadPath = "bad-path" Invalid,
    /// A signature does not verify.
    BadSignature = "bad-signature" Invalid,
    /// The license's first day has not come.
    NotYetValid = "not-yet-valid" Invalid,
    /// The license's last day is over.
    Expired = "expired" Invalid,

    /// Nobody said by which key the trust bundle must be signed, so anybody may have made it.
    NoAnchor = "no-anchor" Unknown,
    /// The trust bundle is past its end.
    TrustExpired = "trust-expired" Unknown,
    /// The trust bundle is older than one seen before.
    TrustRollback = "trust-rollback" Unknown,
    /// The trust bundle cannot be read.
    MalformedTrust = "malformed-trust" Unknown,
    /// The trust bundle is not signed by the trust authority.
    BadTrustSignature = "bad-trust-signature" Unknown,

    /// No receipt can be read.
    MalformedReceipt = "malformed-receipt" Invalid,
    /// The receipt's open part cannot be read.
    MalformedOpen = "malformed-open" Invalid,
    /// The receipt's parts do not make its leaf hash.
    LeafMismatch = "leaf-mismatch" Invalid,
    /// The receipt's index is not that of its open part.
    IndexMismatch = "index-mismatch" Invalid,
    /// The request is not the one the receipt is for.
    RequestMismatch = "request-mismatch" Invalid,
    /// The receipt does not say which request it is for: the exchange did not read it to its end, or the salt of its digest
    /// was cut off.
    RequestNotRecorded = "request-not-recorded" Unknown,
    /// The answer is not the one the receipt is for.
    AnswerMismatch = "answer-mismatch" Invalid,
    /// The answer was written anew, such as by a pretty-printer: its bytes, which the receipt is for, are gone.
    Reformatted = "reformatted" Unknown,
    /// A JSON object has two members of one name: two readers could read two things.
    DuplicateMember = "duplicate-member" Invalid,
    /// The trust bundle does not know the log.
    UnknownLog = "unknown-log" Unknown,
    /// There is no proof that the leaf stands in the log.
    NoProof = "no-proof" Unknown,
    /// The proof cannot be read.
    MalformedProof = "malformed-proof" Invalid,
    /// The proof is for another entry.
    ProofMismatch = "proof-mismatch" Invalid,
    /// The proof's checkpoint is not one that the log signed.
    BadCheckpoint = "bad-checkpoint" Invalid,
    /// The leaf does not stand in the checkpoint's tree.
    NotIncluded = "not-included" Invalid,

    /// No line of a batch's report can be read.
    MalformedReport = "malformed-report" Invalid,
    /// The report has no end line: the stream was cut off, and answers are missing.
    ReportIncomplete = "report-incomplete" Unknown,
    /// The end of the report is not for the answers before it, or they are not of its log, caller and route.
    ReportMismatch = "report-mismatch" Invalid,

    /// No page of entries can be read.
    MalformedPage = "malformed-page" Invalid,
    /// A page shows something of an entry that the entry does not commit to.
    EntryMismatch = "entry-mismatch" Invalid,
    /// The text that the holder is said to be told is not what the entry commits to.
    ToldMismatch = "told-mismatch" Invalid,
    /// An entry of a trace comes without what the holder is told of it.
    ToldMissing = "told-missing" Unknown,
    /// The delayed uses that a trace shows with an entry are not those that the entry tells, each once.
    ReleaseMismatch = "release-mismatch" Invalid,
    /// The value of a field is not the one that left, or nothing says that the field did.
    FieldMismatch = "field-mismatch" Invalid,
    /// An annotated copy is not what its digest says, or not of this original.
    CopyMismatch = "copy-mismatch" Invalid,
    /// A page is not of the log, the route or the holder that its receipt is for.
    PageMismatch = "page-mismatch" Invalid,
    /// An entry before one that a trace shows stands in another chain of the operator, which the trace does not show.
    OtherChain = "other-chain" Unknown,
    /// The entries of a trace are not a holder's sequence: one is missing, doubled, moved or another holder's.
    SequenceBroken = "sequence-broken" Invalid,
    /// The index root proves more entries than the trace shows at its end.
    EntriesMissing = "entries-missing" Invalid,
    /// The index root, its leaf or the map's proof is not what it should be.
    BadIndexRoot = "bad-index-root" Invalid,
    /// There is no index root yet, so nothing says which entry is the holder's last.
    NoIndexRoot = "no-index-root" Unknown,
    /// The pages begin or end inside the sequence, or before the query does.
    NotWhole = "not-whole" Unknown,
    /// Two receipts show different labels for one holder.
    TwoLabels = "two-labels" Invalid,
    /// Nothing ties both receipts to one holder.
    NothingTies = "nothing-ties" Unknown,
    /// A known witness's line under the checkpoint does not verify.
    BadCosignature = "bad-cosignature" Invalid,
    /// The policy takes none of the keys that the log has.
    LogNotInPolicy = "log-not-in-policy" Unknown,
    /// Fewer witnesses have cosigned the checkpoint than the policy asks for.
    WitnessesShort = "witnesses-short" Unknown,
    /// The earlier receipt, proof or checkpoint holds no checkpoint that this log signed.
    BadPrevious = "bad-previous" Unknown,
    /// The log grew between the earlier checkpoint and this one, and there is no proof of how.
    NoConsistencyProof = "no-consistency-proof" Unknown,
    /// The consistency proof does not lead from the smaller tree to the larger one.
    Inconsistent = "inconsistent" Invalid,
    /// The log signed two different trees of one size: it shows different people different logs.
    SplitView = "split-view" Invalid,
    /// A folder of a log holds no checkpoint, or lacks tiles or bundles up to it.
    LogIncomplete = "log-incomplete" Unknown,
    /// A tile or bundle of a log is not what the others and the checkpoint make of it.
    BadTile = "bad-tile" Invalid,
}

impl Reason {
    /// Whether a newer trust bundle could take this reason away: an expired bundle cannot speak against a key.
    const fn rests_on_trust(self) -> bool {
        matches!(
            self,
            Self::UnknownSigner
                | Self::IssuerMismatch
                | Self::NotEntitledToType
                | Self::KeyNotYetValid
                | Self::KeyPastEnd
                | Self::RequiredSuiteMissing
                | Self::BadCheckpoint
        )
    }

    /// Whether a trust bundle of somebody else's making could bring this reason up: one that nobody signed cannot speak
    /// against a log either.
    const fn rests_on_anchor(self) -> bool {
        self.rests_on_trust()
            || matches!(
                self,
                Self::BadCosignature
                    | Self::Inconsistent
                    | Self::SplitView
                    | Self::TwoLabels
                    | Self::EntriesMissing
                    | Self::BadIndexRoot
                    | Self::BadTile
            )
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// A reason with what a reader needs to act on it. Never personal data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The reason.
    #[serde(rename = "code")]
    pub reason: Reason,
    /// More about it, in English; not stable.
    pub detail: String,
}

impl Finding {
    /// The reason's stable code.
    pub const fn code(&self) -> &'static str {
        self.reason.code()
    }
}

/// Which trust the check rested on, and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrustFacts {
    /// Sequence of the trust bundle.
    pub sequence: u64,
    /// When it was made, seconds since 1970; RFC 3339 in JSON.
    #[serde(serialize_with = "as_rfc3339")]
    pub issued_at: u64,
    /// When it ends, likewise.
    #[serde(serialize_with = "as_rfc3339")]
    pub expires: u64,
}

/// The facts that a license states; believed only under the verdict `valid`. Names no holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LicenseFacts {
    /// The license's identity: H(body).
    #[serde(serialize_with = "crate::encoding::hex_bytes::serialize")]
    pub body_digest: Hash,
    /// The full identifier.
    pub identifier: CertificateIdentifier,
    /// Name of the issuer as it stands in the body.
    pub issuer_name: String,
    /// First valid day.
    pub valid_from: Date,
    /// Last valid day; absent for a license without end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<Date>,
    /// When it was signed, seconds since 1970; RFC 3339 in JSON.
    #[serde(serialize_with = "as_rfc3339")]
    pub signed_at: u64,
    /// A holder's number has a wrong check character, and the issuer says that the registrar gave it out like this.
    #[serde(skip_serializing_if = "is_false")]
    pub as_registered: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// The facts of a receipt; believed only under the verdict `valid`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReceiptFacts {
    /// Origin of the log.
    pub log: String,
    /// Index of the entry.
    pub index: u64,
    /// Journal time, RFC 3339 with milliseconds.
    pub time: String,
    /// USCC of the caller's organisation; empty for an entry of the exchange itself.
    pub organisation: String,
    /// Name of the route, or its number when this verifier does not know it.
    pub route: String,
    /// Name of the decision.
    pub decision: String,
    /// Name of the public code, or its number when this verifier does not know it.
    pub code: String,
    /// Whom the caller acts for, the nearest first: a USCC, or a holder's label in hex. In place of a longer chain
    /// `sha256:` and its digest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub acting_for: Vec<String>,
    /// The entry is the intent of a relayed call, and no answer.
    #[serde(skip_serializing_if = "is_false")]
    pub is_intent: bool,
    /// Index of the intent that the entry closes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intent: Option<u64>,
    /// Size of the checkpoint's tree, when the proof holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_size: Option<u64>,
    /// The witnesses that saw that checkpoint, when any are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub witnesses: Option<WitnessFacts>,
}

/// How many of the known witnesses have cosigned a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct WitnessFacts {
    /// Those that have.
    pub cosigned: usize,
    /// Those of the policy or, without one, of the trust bundle.
    pub of: usize,
}

/// The facts of a holder's trace or an auditor's pages; believed only under the verdict `valid`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PageFacts {
    /// Origin of the log.
    pub log: String,
    /// Entries shown.
    pub entries: usize,
    /// The range that the pages are complete for, when they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completeness: Option<String>,
    /// In a trace: the entries whose text is destroyed, as later entries tell.
    #[serde(skip_serializing_if = "is_zero")]
    pub destroyed: usize,
    /// In a trace: the uses of all holders that the law keeps from them now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delayed: Option<crate::trace::DelayedUses>,
    /// The witnesses that saw the least seen checkpoint of those the pages lead to, when any are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub witnesses: Option<WitnessFacts>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// The facts of a batch's report; believed only under the verdict `valid`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchFacts {
    /// Origin of the log.
    pub log: String,
    /// USCC of the caller's organisation.
    pub organisation: String,
    /// Journal time of the end, RFC 3339 with milliseconds.
    pub time: String,
    /// Journal time of the earliest answer: one that is given again is as old as it was. Empty without one.
    pub answered_from: String,
    /// Journal time of the latest answer.
    pub answered_to: String,
    /// Answers.
    pub lines: u64,
    /// Those of them that permit.
    pub permitted: u64,
    /// Those that refuse.
    pub refused: u64,
    /// Those that decide nothing, and have no entry.
    pub undecided: u64,
    /// Licenses that were found valid.
    pub valid: u64,
    /// Licenses that were found invalid.
    pub invalid: u64,
    /// Licenses of which it could not be told.
    pub unknown: u64,
    /// Size of the checkpoint's tree, when the proof holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_size: Option<u64>,
    /// The witnesses that saw that checkpoint, when any are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub witnesses: Option<WitnessFacts>,
}

/// The answer of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The answer.
    pub verdict: Verdict,
    /// Why it is not `valid`; empty exactly when it is.
    pub reasons: Vec<Finding>,
    /// Names of what was checked and holds.
    pub checked: Vec<&'static str>,
    /// Names of what was not checked: the verdict says nothing about it.
    pub not_checked: Vec<&'static str>,
    /// The time of the check, seconds since 1970; RFC 3339 in JSON.
    #[serde(serialize_with = "as_rfc3339")]
    pub at: u64,
    /// The trust it rested on; absent when there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust: Option<TrustFacts>,
    /// About a license.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license: Option<LicenseFacts>,
    /// About a receipt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<ReceiptFacts>,
    /// About pages of entries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pages: Option<PageFacts>,
    /// About a whole log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<LogFacts>,
    /// About the report of a batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchFacts>,
}

/// The facts of a log's tiles and bundles; believed only under the verdict `valid`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogFacts {
    /// Origin of the log.
    pub origin: String,
    /// Size of the checkpoint's tree.
    pub size: u64,
    /// The witnesses that saw that checkpoint, when any are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub witnesses: Option<WitnessFacts>,
}

impl Report {
    /// A report that nothing speaks against yet. `at` in seconds since 1970.
    pub(crate) fn new(trust: &Trust, at: u64) -> Self {
        let mut report = Self { trust: Some(TrustFacts::of(trust)), ..Self::bare(at) };
        if !trust.is_anchored() {
            report.not_checked.push("trust-signature");
            report.add(Reason::NoAnchor, "whose key signed the trust bundle is not known");
        }
        if at >= trust.expires {
            report.add(Reason::TrustExpired, format!("the trust bundle ended {}", seconds(trust.expires)));
        }
        report
    }

    /// The report of a check that could not begin: its one reason and the time of the check in seconds since 1970.
    pub fn failed(reason: Reason, detail: impl Into<String>, at: u64) -> Self {
        let mut report = Self::bare(at);
        report.add(reason, detail);
        report
    }

    fn bare(at: u64) -> Self {
        Self {
            verdict: Verdict::Valid,
            reasons: Vec::new(),
            checked: Vec::new(),
            not_checked: Vec::new(),
            at,
            trust: None,
            license: None,
            receipt: None,
            pages: None,
            log: None,
            batch: None,
        }
    }

    /// Adds a reason, which takes the verdict with it.
    pub fn add(&mut self, reason: Reason, detail: impl Into<String>) {
        self.reasons.push(Finding { reason, detail: detail.into() });
        let (stale, unsigned) = (self.has(Reason::TrustExpired), self.has(Reason::NoAnchor));
        let invalid = |found: &Finding| {
            found.reason.verdict() == Verdict::Invalid
                && !(stale && found.reason.rests_on_trust())
                && !(unsigned && found.reason.rests_on_anchor())
        };
        self.verdict = if self.reasons.iter().any(invalid) { Verdict::Invalid } else { Verdict::Unknown };
    }

    /// Whether this is among the reasons.
    pub fn has(&self, reason: Reason) -> bool {
        self.reasons.iter().any(|finding| finding.reason == reason)
    }
}

impl TrustFacts {
    fn of(trust: &Trust) -> Self {
        Self { sequence: trust.sequence, issued_at: trust.issued_at, expires: trust.expires }
    }
}

fn as_rfc3339<S: Serializer>(at: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&seconds(*at))
}

/// Seconds since 1970 as RFC 3339.
pub fn seconds(at: u64) -> String {
    rfc3339(at.saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_are_unique_and_no_reason_leads_to_valid() {
        let codes: HashSet<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        assert!(Reason::ALL.iter().all(|reason| reason.verdict() != Verdict::Valid));
    }

    #[test]
    fn a_stale_bundle_cannot_speak_against_a_key() {
        let mut report = Report::failed(Reason::UnknownSigner, "", 0);
        assert_eq!(report.verdict, Verdict::Invalid);
        report.add(Reason::TrustExpired, "");
        assert_eq!(report.verdict, Verdict::Unknown);
        report.add(Reason::BadSignature, "");
        assert_eq!(report.verdict, Verdict::Invalid);
    }

    #[test]
    fn an_unsigned_bundle_speaks_for_nothing_and_against_nobody() {
        for reason in [Reason::UnknownSigner, Reason::BadCheckpoint, Reason::SplitView] {
            let mut report = Report::failed(Reason::NoAnchor, "", 0);
            report.add(reason, "");
            assert_eq!(report.verdict, Verdict::Unknown, "{reason}");
            report.add(Reason::MalformedEnvelope, "");
            assert_eq!(report.verdict, Verdict::Invalid);
        }
        let mut report = Report::failed(Reason::TrustExpired, "", 0);
        report.add(Reason::SplitView, "");
        assert_eq!(report.verdict, Verdict::Invalid, "an expired bundle still knows the log");
    }
}
