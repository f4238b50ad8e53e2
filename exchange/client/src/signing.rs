//! Signatures of requests (RFC 9421), for participants whose registration has signing keys.
//!
//! A client owns the key, which it reads once. Nothing is written.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;
use ring::digest;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;

/// The parts that are covered, in the order in which they are signed.
const COVERED: &str = r#"("@method" "@authority" "@path" "@query" "content-digest")"#;

/// Why a request cannot be signed with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigningError {
    /// The key is none of Ed25519 or P-256 in PKCS#8.
    #[error("signing key: no private key of Ed25519 or P-256 in PEM (PKCS#8)")]
    Key,
    /// The name cannot stand in a header.
    #[error("signing key: its name is 1 to 64 printable ASCII characters without blanks and quotes")]
    Id,
}

enum Key {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

/// A key that requests are signed with, and its name in the registration.
#[derive(Clone)]
pub struct Signing {
    id: String,
    key: Arc<Key>,
}

impl fmt::Debug for Signing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signing({})", self.id)
    }
}

impl Signing {
    /// From the key's name in the registration, and the private key in PEM as `openssl genpkey` writes it.
    ///
    /// # Errors
    /// [`SigningError`]
    pub fn from_pem(id: &str, pem: &[u8]) -> Result<Self, SigningError> {
        let is_named = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
        if !(1..=64).contains(&id.len()) || !id.bytes().all(is_named) {
            return Err(SigningError::Id);
        }
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| SigningError::Key)?;
        let der = der.secret_pkcs8_der();
        let ed25519 = || Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map(Key::Ed25519);
        let p256 = || {
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &SystemRandom::new())
                .map(Key::P256)
        };
        let key = ed25519().or_else(|_| p256()).map_err(|_| SigningError::Key)?;
        Ok(Self { id: id.to_owned(), key: Arc::new(key) })
    }

    /// The headers of a signed request: a digest of the body, what is covered, and the signature. The idempotency key is the nonce.
    pub(crate) fn headers(
        &self,
        authority: &str,
        path: &str,
        body: &[u8],
        idempotency_key: &str,
    ) -> Option<[(&'static str, HeaderValue); 3]> {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        let authority = authority.to_ascii_lowercase();
        let authority = authority.strip_suffix(":443").unwrap_or(&authority);
        let digest = format!("sha-256=:{}:", STANDARD.encode(digest::digest(&digest::SHA256, body)));
        let input = format!(r#"{COVERED};created={created};keyid="{}";nonce="{idempotency_key}""#, self.id);
        let base = format!(
            "\"@method\": POST\n\"@authority\": {authority}\n\"@path\": {path}\n\"@query\": ?\n\
             \"content-digest\": {digest}\n\"@signature-params\": {input}"
        );
        let signature = match &*self.key {
            Key::Ed25519(key) => key.sign(base.as_bytes()),
            Key::P256(key) => key.sign(&SystemRandom::new(), base.as_bytes()).ok()?,
        };
        let header = |text: String| HeaderValue::from_str(&text).ok();
        Some([
            ("content-digest", header(digest)?),
            ("signature-input", header(format!("sig={input}"))?),
            ("signature", header(format!("sig=:{}:", STANDARD.encode(signature)))?),
        ])
    }
}
