//! License signatures (section 2): suites, public keys, the message that is signed.

use crate::{Hash, sha256};
use ring::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey, VerificationAlgorithm};

/// First 16 bytes of H(SubjectPublicKeyInfo DER).
pub type KeyId = [u8; 16];

/// Bytes of a signature value; the same in every suite.
pub const SIGNATURE_BYTES: usize = 64;

/// What the message begins with, so that a signature over a license is never one over something else.
const CONTEXT: &[u8] = b"miaoxiang license v1\0";

/// SubjectPublicKeyInfo of an Ed25519 key (RFC 8410) up to the 32 key bytes.
const ED25519_PREFIX: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// SubjectPublicKeyInfo of an uncompressed P-256 key (RFC 5480) up to the 65 bytes of the point.
const P256_PREFIX: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// First byte of an uncompressed point.
const UNCOMPRESSED: u8 = 4;

/// A signature suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Suite {
    /// Ed25519 with SHA-256 trees.
    Ed25519 = 1,
    /// ECDSA P-256 with SHA-256, r ‖ s.
    Es256 = 2,
    /// SM2 with SM3: a reserved number, which this verifier cannot check.
    Sm2Sm3 = 3,
}

impl Suite {
    /// The stable number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Ed25519 => 1,
            Self::Es256 => 2,
            Self::Sm2Sm3 => 3,
        }
    }

    /// The suite of a number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Ed25519),
            2 => Some(Self::Es256),
            3 => Some(Self::Sm2Sm3),
            _ => None,
        }
    }

    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::Es256 => "es256",
            Self::Sm2Sm3 => "sm2sm3",
        }
    }

    /// What stands before the key bytes in the SubjectPublicKeyInfo, how many key bytes follow, and how to verify.
    fn parameters(self) -> Option<(&'static [u8], usize, &'static dyn VerificationAlgorithm)> {
        match self {
            Self::Ed25519 => Some((ED25519_PREFIX, 32, &ED25519)),
            Self::Es256 => Some((P256_PREFIX, 65, &ECDSA_P256_SHA256_FIXED)),
            Self::Sm2Sm3 => None,
        }
    }
}

/// The id of a key.
pub fn key_id(spki_der: &[u8]) -> KeyId {
    *sha256(&[spki_der]).first_chunk().expect("a digest is longer than 16 bytes")
}

/// The message that a signature over a tree of license bodies covers.
pub fn message(suite: Suite, size: u64, root: &Hash) -> Vec<u8> {
    [CONTEXT, &[suite.number()], &size.to_be_bytes(), root].concat()
}

/// SubjectPublicKeyInfo (DER) of a public key: 32 bytes for Ed25519, the uncompressed point for P-256. `None` for
/// a key of another length and for a suite that is not supported.
pub fn spki(suite: Suite, key: &[u8]) -> Option<Vec<u8>> {
    let (prefix, length, _) = suite.parameters()?;
    (key.len() == length).then(|| [prefix, key].concat())
}

/// Why a SubjectPublicKeyInfo is no key of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The suite is known but cannot be checked here.
    #[error("the suite is not supported")]
    Unsupported,
    /// The DER is not exactly that of a key of this suite.
    #[error("the public key is malformed")]
    Malformed,
}

/// A public key that licenses are signed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    suite: Suite,
    key: Vec<u8>,
}

impl PublicKey {
    /// Reads a key. The DER is compared with the one encoding there is; nothing else is parsed.
    ///
    /// # Errors
    /// [`KeyError`]
    pub fn from_spki(suite: Suite, der: &[u8]) -> Result<Self, KeyError> {
        let (prefix, length, _) = suite.parameters().ok_or(KeyError::Unsupported)?;
        let key = der.strip_prefix(prefix).ok_or(KeyError::Malformed)?;
        if key.len() != length || (suite == Suite::Es256 && key.first() != Some(&UNCOMPRESSED)) {
            return Err(KeyError::Malformed);
        }
        Ok(Self { suite, key: key.to_vec() })
    }

    /// The suite the key is for.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Whether `signature` is one of this key over `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let Some((_, _, algorithm)) = self.suite.parameters() else { return false };
        UnparsedPublicKey::new(algorithm, &self.key).verify(message, signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
    };

    #[test]
    fn message_is_laid_out_as_the_format_says() {
        let message = message(Suite::Es256, 0x0102, &[9; 32]);
        assert_eq!(message[..21], *b"miaoxiang license v1\0");
        assert_eq!(message[21..30], [2, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(message[30..], [9; 32]);
    }

    #[test]
    fn both_suites_verify_what_was_signed_and_nothing_else() {
        let ed = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let es = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let signed = [
            (Suite::Ed25519, ed.public_key().as_ref().to_vec(), ed.sign(b"m").as_ref().to_vec()),
            (
                Suite::Es256,
                es.public_key().as_ref().to_vec(),
                es.sign(&random, b"m").unwrap().as_ref().to_vec(),
            ),
        ];
        for (suite, public, value) in signed {
            assert_eq!(value.len(), SIGNATURE_BYTES);
            let key = PublicKey::from_spki(suite, &spki(suite, &public).unwrap()).unwrap();
            assert!(key.verify(b"m", &value));
            assert!(!key.verify(b"n", &value));
            assert!(!key.verify(b"m", &value[1..]));
            for at in 0..value.len() {
                let mut changed = value.clone();
                changed[at] ^= 1;
                assert!(!key.verify(b"m", &changed), "{suite:?} byte {at}");
            }
        }
    }

    #[test]
    fn only_the_exact_encoding_is_a_key() {
        let der = spki(Suite::Ed25519, &[7; 32]).unwrap();
        let mut point = [7; 65];
        point[0] = UNCOMPRESSED;
        let p256 = spki(Suite::Es256, &point).unwrap();
        let read = |suite, der: &[u8]| PublicKey::from_spki(suite, der).map(|_| ());
        assert_eq!(read(Suite::Ed25519, &der), Ok(()));
        assert_eq!(read(Suite::Es256, &p256), Ok(()));
        assert_eq!(read(Suite::Es256, &der), Err(KeyError::Malformed));
        assert_eq!(read(Suite::Ed25519, &p256), Err(KeyError::Malformed));
        assert_eq!(read(Suite::Sm2Sm3, &der), Err(KeyError::Unsupported));
        assert_eq!(read(Suite::Ed25519, &der[..der.len() - 1]), Err(KeyError::Malformed));
        assert_eq!(read(Suite::Ed25519, &[&der[..], &[0]].concat()), Err(KeyError::Malformed));
        assert_eq!(read(Suite::Es256, &spki(Suite::Es256, &[7; 65]).unwrap()), Err(KeyError::Malformed));
        assert_eq!(spki(Suite::Ed25519, &[7; 31]), None);
        assert_eq!(spki(Suite::Sm2Sm3, &[7; 65]), None);
    }
}
