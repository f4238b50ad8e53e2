//! A key that a participant signs its requests with: Ed25519 or P-256, as `openssl pkey -pubout` prints it.
//!
//! A value of the participant register. It changes with its registration alone.

use certs::pem;
use schemas::date::Date;
use serde::{Deserialize, Serialize};
use verifier::signature::{PublicKey, Suite, normalise};

/// Label of a public key in PEM.
const PUBLIC_KEY: &str = "PUBLIC KEY";

/// One signing key of a registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SigningKey {
    /// The `keyid` of signatures, the participant's own name for it.
    pub id: String,
    /// The key.
    pub public_key: Public,
    /// Last day on which it signs (China Standard Time); `None` = no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Date>,
}

impl SigningKey {
    /// The first moment at which it signs no longer, ms since 1970; `u64::MAX` without end.
    pub fn ends_at_ms(&self) -> u64 {
        self.until
            .and_then(|until| u64::try_from(until.last_second()).ok())
            .map_or(u64::MAX, |second| (second + 1) * 1_000)
    }
}

/// A public key with the text that it was read from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Public {
    pem: String,
    key: PublicKey,
}

/// The text holds no key that requests are signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no public key of Ed25519 or P-256 in PEM")]
pub struct NoKey;

impl TryFrom<String> for Public {
    type Error = NoKey;

    fn try_from(text: String) -> Result<Self, NoKey> {
        let sections = pem::sections(&text).map_err(|_| NoKey)?;
        let [section] = sections.as_slice() else { return Err(NoKey) };
        if section.label != PUBLIC_KEY {
            return Err(NoKey);
        }
        let read = |suite| PublicKey::from_spki(suite, &section.der).ok();
        let key = [Suite::Ed25519, Suite::Es256].into_iter().find_map(read).ok_or(NoKey)?;
        drop(sections);
        Ok(Self { pem: text, key })
    }
}

impl From<Public> for String {
    fn from(public: Public) -> Self {
        public.pem
    }
}

impl Public {
    /// The algorithm by its name in RFC 9421.
    pub fn algorithm(&self) -> &'static str {
        match self.key.suite() {
            Suite::Ed25519 => "ed25519",
            Suite::Es256 | Suite::Sm2Sm3 => "ecdsa-p256-sha256",
        }
    }

    /// Whether the signature is one of this key. In ECDSA both forms count: who signs knows nothing of ours.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let mut signature = signature.to_vec();
        normalise(self.key.suite(), &mut signature);
        self.key.verify(message, &signature)
    }
}
