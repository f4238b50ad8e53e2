//! Signatures of assertions: compact JWS (RFC 7515) under keys of a JWK set (RFC 7517), each with one algorithm.
//!
//! A key decides its algorithm, never the token: `none`, HMAC and whatever else a header says are no algorithm of any key here. Pure
//! functions over bytes; nothing to lose.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};
use schemas::codes::Reason;
use serde::Deserialize;
use serde_json::Value;

/// Most keys of a set that are looked at.
const MAX_KEYS: usize = 64;

/// Public keys of a provider.
#[derive(Default)]
pub struct KeySet(Vec<Key>);

struct Key {
    id: String,
    algorithm: Algorithm,
    material: Material,
}

enum Material {
    /// Modulus and exponent, big-endian.
    Rsa(Vec<u8>, Vec<u8>),
    /// A point, uncompressed, or the 32 bytes of Ed25519.
    Point(Vec<u8>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Rs256,
    Ps256,
    Es256,
    Es384,
    EdDsa,
}

impl Algorithm {
    const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<Value>,
}

impl KeySet {
    /// Reads a JWK set. Keys of kinds that sign no assertion are passed over.
    ///
    /// # Errors
    /// One line: it is no JWK set, or has no key that can be used.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        let set: JwkSet = serde_json::from_slice(json).map_err(|error| format!("no JWK set: {error}"))?;
        let keys = set.keys.into_iter().take(MAX_KEYS);
        let keys: Vec<Key> =
            keys.filter_map(|key| serde_json::from_value(key).ok().and_then(key_of)).collect();
        if keys.is_empty() {
            return Err("no key with an id for RS256, PS256, ES256, ES384 or EdDSA".to_owned());
        }
        Ok(Self(keys))
    }

    /// Checks the signature of a compact JWS. Its payload, in base64url.
    ///
    /// # Errors
    /// Why it does not hold.
    pub(super) fn verify<'t>(&self, token: &'t str) -> Result<&'t str, Reason> {
        const BAD: Reason = Reason::AssertionMalformed;
        let (signed, signature) = token.rsplit_once('.').ok_or(BAD)?;
        let (header, payload) =
            signed.split_once('.').filter(|(_, payload)| !payload.contains('.')).ok_or(BAD)?;
        let header = BASE64URL.decode(header).map_err(|_| BAD)?;
        let header: Header = serde_json::from_slice(&header).map_err(|_| BAD)?;
        let signature = BASE64URL.decode(signature).map_err(|_| BAD)?;
        let is_jwt = header.typ.is_none_or(|typ| typ.eq_ignore_ascii_case("JWT"));
        // An extension that has to be understood is not.
        if !is_jwt || header.crit.is_some() {
            return Err(BAD);
        }
        let id = header.kid.ok_or(Reason::AssertionKey)?;
        let key = self.0.iter().find(|key| key.id == id).ok_or(Reason::AssertionKey)?;
        if key.algorithm.name() != header.alg {
            return Err(Reason::AssertionKey);
        }
        if key.has_signed(signed.as_bytes(), &signature) { Ok(payload) } else { Err(Reason::AssertionForged) }
    }
}

impl Key {
    fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let point = |algorithm: &'static dyn VerificationAlgorithm, point: &[u8]| {
            UnparsedPublicKey::new(algorithm, point).verify(message, signature).is_ok()
        };
        match (&self.material, self.algorithm) {
            (Material::Rsa(n, e), Algorithm::Rs256) => {
                let key = RsaPublicKeyComponents { n, e };
                key.verify(&signature::RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok()
            }
            (Material::Rsa(n, e), Algorithm::Ps256) => {
                let key = RsaPublicKeyComponents { n, e };
                key.verify(&signature::RSA_PSS_2048_8192_SHA256, message, signature).is_ok()
            }
            (Material::Point(key), Algorithm::Es256) => point(&signature::ECDSA_P256_SHA256_FIXED, key),
            (Material::Point(key), Algorithm::Es384) => point(&signature::ECDSA_P384_SHA384_FIXED, key),
            (Material::Point(key), Algorithm::EdDsa) => point(&signature::ED25519, key),
            (Material::Rsa(..), Algorithm::Es256 | Algorithm::Es384 | Algorithm::EdDsa)
            | (Material::Point(_), Algorithm::Rs256 | Algorithm::Ps256) => false,
        }
    }
}

/// A key for signatures, with an id and the one algorithm that it says or that its curve has.
fn key_of(jwk: Jwk) -> Option<Key> {
    let bytes = |text: Option<String>| BASE64URL.decode(text?).ok();
    if jwk.usage.is_some_and(|usage| usage != "sig") {
        return None;
    }
    let (algorithm, material) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", None) => {
            let algorithm =
                if jwk.alg.as_deref() == Some("PS256") { Algorithm::Ps256 } else { Algorithm::Rs256 };
            (algorithm, Material::Rsa(bytes(jwk.n)?, bytes(jwk.e)?))
        }
        ("EC", Some("P-256")) => {
            (Algorithm::Es256, Material::Point(point(32, bytes(jwk.x)?, bytes(jwk.y)?)?))
        }
        ("EC", Some("P-384")) => {
            (Algorithm::Es384, Material::Point(point(48, bytes(jwk.x)?, bytes(jwk.y)?)?))
        }
        ("OKP", Some("Ed25519")) => {
            (Algorithm::EdDsa, Material::Point(bytes(jwk.x).filter(|x| x.len() == 32)?))
        }
        _ => return None,
    };
    let says_another = jwk.alg.is_some_and(|alg| alg != algorithm.name());
    Some(Key { id: jwk.kid?, algorithm, material }).filter(|_| !says_another)
}

/// The uncompressed form of a point with coordinates of so many bytes.
fn point(length: usize, x: Vec<u8>, y: Vec<u8>) -> Option<Vec<u8>> {
    (x.len() == length && y.len() == length).then(|| [vec![4], x, y].concat())
}
