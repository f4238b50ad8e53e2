//! Presentation codes (亮证码): what a holder shows for a moment, so that a verifier learns of one license, once.
//!
//! The three routes of codes alone write them, as documents of journaled state under a keyed hash of the code. A crash leaves a
//! code and its entry, or neither.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ledger::{DocumentKind, GrantLink, Key, KeyedHash, Label};
use ring::rand::{SecureRandom as _, SystemRandom};
use schemas::codes::{Code, Reason, Rule};
use schemas::identifier::{LicenseTypeCode, Uscc};
use schemas::kinds::Verifiers;
use serde::{Deserialize, Serialize};
use verifier::trace::Label as PageLabel;

use crate::gateway::case::Case;
use crate::gateway::parsed::Kept;
use crate::participant::{Participant, Role};
use crate::rights::link::{Above, still_allow};
use crate::rights::mode::Mode;
use crate::wire::refusal::{Fault, Refusal};

/// The front of a code: what scans it knows whom to ask.
const FRONT: &str = "MX1.";
/// Random bytes of a code; their base64url has no padding.
const RANDOM_BYTES: usize = 18;
/// How long a code is kept behind its end, so that the journal says why it was refused, ms.
const KEPT_MS: u64 = 3_600_000;
/// State organs' codes begin with this (GB 32100: 机构编制, 机关).
const STATE_ORGAN: &str = "11";

/// The secret of a code. State knows a keyed hash of it alone, and no output shows it but the answer that mints it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; RANDOM_BYTES]);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// A new one.
    ///
    /// # Errors
    /// [`Code::Internal`]: no randomness.
    pub(crate) fn new() -> Result<Self, Refusal> {
        let mut bytes = [0; RANDOM_BYTES];
        SystemRandom::new().fill(&mut bytes).map_err(|_| Refusal::new(Code::Internal))?;
        Ok(Self(bytes))
    }

    /// Reads a code.
    ///
    /// # Errors
    /// [`Code::MalformedRequest`]: no code has this form.
    pub(crate) fn read(text: &str) -> Result<Self, Refusal> {
        let bytes = text.strip_prefix(FRONT).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or_else(|| {
            let fault = Fault::at("", Rule::Pattern).form("MX1.[0-9A-Za-z_-]{24}").got(text.chars().count());
            Refusal::of(Code::MalformedRequest, fault)
        })
    }

    /// The text that is shown.
    pub(crate) fn text(&self) -> String {
        format!("{FRONT}{}", URL_SAFE_NO_PAD.encode(self.0))
    }

    /// The key of its document.
    pub(crate) fn key(&self, keyed: &KeyedHash) -> Key {
        keyed.key("code", &[&self.0])
    }
}

/// A code as journaled. It names its holder by label, and nobody by number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct PresentationCode {
    /// The person who shows it.
    pub holder: PageLabel,
    /// The license that it is for; `None` for the holder: the scan names a type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<Shown>,
    /// The verifiers that may scan it.
    pub verifiers: Verifiers,
    /// Fields that a scan may ask for, beside type, state and validity.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// The links by which an agent made it, the nearest to the holder first; empty for a holder's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<Above>,
    /// The portal that vouches for the holder.
    pub portal: Uscc,
    /// Last valid moment, ms since 1970.
    pub until_ms: u64,
    /// The end that it came to before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
}

/// The license that a code is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Shown {
    /// Its key.
    pub key: PageLabel,
    /// Its type.
    pub type_code: LicenseTypeCode,
}

/// The end of a code before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum End {
    /// It was scanned, or shown by somebody else.
    Used,
    /// Its holder ended it.
    Ended,
}

impl Kept for PresentationCode {
    const KIND: DocumentKind = DocumentKind::PresentationCode;

    fn owners(&self) -> Vec<Label> {
        vec![self.holder.0]
    }

    fn ends_ms(&self) -> u64 {
        self.until_ms.saturating_add(KEPT_MS)
    }
}

impl PresentationCode {
    /// Whether it can still be used.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn live(&self, now_ms: u64) -> Result<(), Reason> {
        match self.end {
            Some(End::Used) => Err(Reason::CodeUsed),
            Some(End::Ended) => Err(Reason::CodeEnded),
            None if now_ms > self.until_ms => Err(Reason::CodeExpired),
            None => Ok(()),
        }
    }

    /// The modes of grants that a scan is like.
    pub(crate) fn modes(fields: &[String]) -> u8 {
        if fields.is_empty() { Mode::Verify.bit() } else { Mode::Verify.bit() | Mode::Fields.bit() }
    }

    /// Whether the agent who made it may still show a license of a type.
    pub(crate) fn is_linked(&self, case: &mut Case<'_>, type_code: &LicenseTypeCode) -> bool {
        let links = self.chain.iter().map(|link| GrantLink { key: link.key.0, since_ms: link.since_ms });
        still_allow(case, links, &self.holder.0, Self::modes(&self.fields), |_, code| code == type_code)
    }

    /// Whether a participant is of the class that may scan it.
    pub(crate) fn admits(&self, caller: &Participant) -> bool {
        match self.verifiers {
            Verifiers::Any => true,
            Verifiers::Government => caller.organisation.as_str().starts_with(STATE_ORGAN),
            Verifiers::Kiosk => caller.has(Role::Kiosk),
            Verifiers::Inspector => caller.has(Role::Inspector),
        }
    }

    /// The same with an end.
    pub(crate) fn ended(self, end: End) -> Self {
        Self { end: Some(end), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_reads_back_and_nothing_else_does() {
        let token = Token::new().expect("randomness");
        let text = token.text();
        assert_eq!(text.len(), FRONT.len() + 24);
        assert_eq!(Token::read(&text).expect("a code"), token);
        assert_ne!(Token::new().expect("randomness"), token);
        assert!(!format!("{token:?}").contains(text.trim_start_matches(FRONT)));
        for wrong in [
            "",
            "MX1.",
            &text[1..],
            &text[..text.len() - 1],
            &format!("{text}A"),
            &text.replace("MX1", "MX2"),
        ] {
            assert_eq!(Token::read(wrong).expect_err("no code").code, Code::MalformedRequest, "{wrong}");
        }
    }
}
