//! License signatures (section 2): suites, public keys, the message that is signed.
//!
//! Pure functions; nothing to lose.

use crate::{Hash, sha256};
use ring::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey, VerificationAlgorithm};

/// First 16 bytes of H(SubjectPublicKeyInfo DER).
pub type KeyId = [u8; 16];

/// Bytes of a signature value; the same in every suite.
pub const SIGNATURE_BYTES: usize = 64;

/// Most signatures on a license.
pub const MAX_SIGNATURES: usize = 8;

/// The suites of all signatures of an envelope: ascending, each once, zeros behind them.
pub type Suites = [u8; MAX_SIGNATURES];

/// Bytes of the message that is signed.
pub const MESSAGE_BYTES: usize = CONTEXT.len() + 1 + MAX_SIGNATURES + 8 + 32;

/// The beginning of the message, so that a signature over a license is never one over something else.
const CONTEXT: &[u8] = b"miaoxiang license v2\0";

/// Order of the group of P-256, and half of it, rounded down: of the two values s and order − s, which verify alike, only
/// the one that is not above the half is accepted.
const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
    0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];
const P256_HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0x80, 0x00, 0x00, 0x00, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xde,
    0x73, 0x7d, 0x56, 0xd3, 0x8b, 0xcf, 0x42, 0x79, 0xdc, 0xe5, 0x61, 0x7e, 0x31, 0x92, 0xa8,
];

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

    /// The bytes before the key in the SubjectPublicKeyInfo, how many key bytes follow, and how to verify.
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

/// The list of an envelope's suites. `None` unless they ascend strictly from 1 on and are at most [`MAX_SIGNATURES`].
pub fn suites(numbers: impl IntoIterator<Item = u8>) -> Option<Suites> {
    let mut list = [0; MAX_SIGNATURES];
    let mut places = list.iter_mut();
    let mut last = 0;
    for number in numbers {
        if number <= last {
            return None;
        }
        *places.next()? = number;
        last = number;
    }
    Some(list)
}

/// The message that a signature over a tree of license bodies covers. It names every suite of the envelope, so that none
/// of the signatures can be left out unnoticed.
pub fn message(suite: Suite, suites: &Suites, size: u64, root: &Hash) -> [u8; MESSAGE_BYTES] {
    let mut message = [0; MESSAGE_BYTES];
    let mut room = message.as_mut_slice();
    for part in [CONTEXT, &[suite.number()], suites, &size.to_be_bytes(), root] {
        if let Some(place) = room.split_off_mut(..part.len()) {
            place.copy_from_slice(part);
        }
    }
    message
}

/// Whether a signature value is in the one form that is accepted of its suite: in ECDSA, s is not above half the order.
fn is_normal(suite: Suite, value: &[u8]) -> bool {
    suite != Suite::Es256 || value.last_chunk().is_some_and(|s: &[u8; 32]| *s <= P256_HALF_ORDER)
}

/// Brings a signature value into the one form that is accepted of its suite. Whatever signs, also a token, may give the
/// other one.
pub fn normalise(suite: Suite, value: &mut [u8]) {
    if is_normal(suite, value) {
        return;
    }
    let Some(s) = value.last_chunk_mut::<32>() else { return };
    let mut borrow = false;
    for (s, order) in s.iter_mut().zip(P256_ORDER).rev() {
        let (difference, first) = order.overflowing_sub(*s);
        let (difference, second) = difference.overflowing_sub(borrow.into());
        (*s, borrow) = (difference, first || second);
    }
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

    /// Whether `signature` is one of this key over `message`, in the one form that is accepted: see [`normalise`].
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let Some((_, _, algorithm)) = self.suite.parameters() else { return false };
        is_normal(self.suite, signature)
            && UnparsedPublicKey::new(algorithm, &self.key).verify(message, signature).is_ok()
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
        let message = message(Suite::Es256, &suites([1, 2]).unwrap(), 0x0102, &[9; 32]);
        assert_eq!(message[..21], *b"miaoxiang license v2\0");
        assert_eq!(message[21..30], [2, 1, 2, 0, 0, 0, 0, 0, 0]);
        assert_eq!(message[30..38], [0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(message[38..], [9; 32]);
    }

    #[test]
    fn suites_ascend_each_once() {
        assert_eq!(suites([1, 2, 9]), Some([1, 2, 9, 0, 0, 0, 0, 0]));
        assert_eq!(suites([]), Some([0; 8]));
        assert_eq!(suites(1..9), Some([1, 2, 3, 4, 5, 6, 7, 8]));
        for wrong in [&[0][..], &[1, 1], &[2, 1], &[1, 2, 0], &[1, 2, 3, 4, 5, 6, 7, 8, 9]] {
            assert_eq!(suites(wrong.iter().copied()), None, "{wrong:?}");
        }
    }

    /// Ring takes both s and order − s. Only one is accepted, and signing ends with it.
    #[test]
    fn an_ecdsa_value_has_one_form() {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random);
        let pair = pair.unwrap();
        let der = spki(Suite::Es256, pair.public_key().as_ref()).unwrap();
        let key = PublicKey::from_spki(Suite::Es256, &der).unwrap();
        let takes = |value: &[u8]| {
            let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref());
            key.verify(b"m", value).is_ok()
        };
        let mut turned = 0;
        for _ in 0..40 {
            let made = pair.sign(&random, b"m").unwrap().as_ref().to_vec();
            let mut value = made.clone();
            normalise(Suite::Es256, &mut value);
            turned += u32::from(value != made);
            assert_eq!(value != made, !key.verify(b"m", &made));
            assert!(takes(&made) && takes(&value) && key.verify(b"m", &value));
            let again = value.clone();
            normalise(Suite::Es256, &mut value);
            assert_eq!(value, again);
        }
        assert!(turned > 0);
        let mut limit = [P256_HALF_ORDER, P256_HALF_ORDER].concat();
        assert!(is_normal(Suite::Es256, &limit));
        *limit.last_mut().unwrap() += 1;
        assert!(!is_normal(Suite::Es256, &limit) && is_normal(Suite::Ed25519, &limit));
        normalise(Suite::Es256, &mut limit);
        assert_eq!(limit[32..], P256_HALF_ORDER, "order − (half + 1) is the half of an odd order");
        assert!(!is_normal(Suite::Es256, &[]));
        normalise(Suite::Es256, &mut []);
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
        for (suite, public, mut value) in signed {
            normalise(suite, &mut value);
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
