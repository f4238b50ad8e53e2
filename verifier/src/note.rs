//! C2SP signed notes (<https://c2sp.org/signed-note>) with Ed25519 keys.
//!
//! Pure functions; nothing to lose.

use crate::sha256;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, str::FromStr};

/// Longest note that is read, in bytes.
pub const MAX_NOTE_BYTES: usize = 1 << 20;

/// Most signatures on a note that is read; the specification asks for at least 16.
pub const MAX_SIGNATURES: usize = 16;

/// Signature type byte of Ed25519 over the text.
pub const TYPE_ED25519: u8 = 0x01;

/// Signature type byte of a cosignature: Ed25519 with a time (<https://c2sp.org/tlog-cosignature>, v1).
pub const TYPE_COSIGNATURE: u8 = 0x04;

/// Signature type byte of a cosignature of ML-DSA-44 with a time (<https://c2sp.org/tlog-cosignature>, v1.1).
pub const TYPE_ML_DSA_44: u8 = 0x06;

/// Bytes of an ML-DSA-44 public key.
const ML_DSA_44_KEY_BYTES: usize = 1312;

/// Bytes of a time and an ML-DSA-44 signature.
const ML_DSA_44_VALUE_BYTES: usize = 8 + 2420;

/// Why a note or a verifier key is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// A verifier key is not `name+hash+base64` of a key of the type asked for, or its hash is not that of its key.
    #[error("the verifier key is malformed")]
    MalformedKey,
    /// A key name is empty or holds a space, a plus sign or a control character.
    #[error("the key name is not allowed")]
    BadKeyName,
    /// The note is longer than [`MAX_NOTE_BYTES`].
    #[error("the note is too long")]
    TooLong,
    /// The note has more than [`MAX_SIGNATURES`] signatures.
    #[error("the note has too many signatures")]
    TooManySignatures,
    /// The note has a control character, no signatures, or a line that is none.
    #[error("the note is malformed")]
    Malformed,
    /// The signature of a known key does not verify.
    #[error("the signature of {0} does not verify")]
    BadSignature(String),
    /// No signature is of a known key.
    #[error("no known key signed the note")]
    NoKnownKey,
}

/// An Ed25519 key that may sign notes, under a name and for one signature type only: a log's key never passes for a
/// witness's. In text: `name+hash+base64(type ‖ key)`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NoteKey<const TYPE: u8> {
    name: String,
    hash: [u8; 4],
    key: [u8; 32],
}

/// A key that signs notes: a log's, or a trust authority's.
pub type VerifierKey = NoteKey<TYPE_ED25519>;

/// A key that cosigns checkpoints: a witness's.
pub type CosignerKey = NoteKey<TYPE_COSIGNATURE>;

impl<const TYPE: u8> NoteKey<TYPE> {
    /// The note key of an Ed25519 public key.
    ///
    /// # Errors
    /// [`NoteError::BadKeyName`]
    pub fn ed25519(name: &str, key: &[u8; 32]) -> Result<Self, NoteError> {
        if !is_key_name(name) {
            return Err(NoteError::BadKeyName);
        }
        let digest = sha256(&[name.as_bytes(), b"\n", &[TYPE], key]);
        let hash = *digest.first_chunk().expect("a digest is longer than 4 bytes");
        Ok(Self { name: name.to_owned(), hash, key: *key })
    }

    /// The name; of a log key, the log's origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// First four bytes of H(name ‖ "\n" ‖ type ‖ key).
    pub fn hash(&self) -> [u8; 4] {
        self.hash
    }

    /// The Ed25519 public key.
    pub fn key(&self) -> &[u8; 32] {
        &self.key
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.key).verify(message, signature).is_ok()
    }

    fn line(&self, value: &[&[u8]]) -> String {
        let value = [&self.hash, value.concat().as_slice()].concat();
        format!("— {} {}\n", self.name, STANDARD.encode(value))
    }
}

impl CosignerKey {
    /// The cosignature in the value of a signature line, if it verifies over `text` and has a time.
    fn cosignature(&self, text: &str, value: &[u8]) -> Option<Cosignature<'_>> {
        let (time, signature) = value.split_first_chunk()?;
        let (time, signature) = (u64::from_be_bytes(*time), <[u8; 64]>::try_from(signature).ok()?);
        let timed = time != 0 && i64::try_from(time).is_ok();
        let verifies = self.verifies(cosigned_message(time, text).as_bytes(), &signature);
        (timed && verifies).then_some(Cosignature { key: self, time, signature })
    }
}

/// A key that cosigns checkpoints with ML-DSA-44. This verifier reads and keeps such keys and their lines; it cannot check
/// their signatures, and counts none of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MlDsaKey {
    name: String,
    hash: [u8; 4],
    key: Vec<u8>,
}

/// A key of a witness, of either type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum WitnessKey {
    /// Type 0x04.
    Ed25519(CosignerKey),
    /// Type 0x06.
    MlDsa44(MlDsaKey),
}

impl WitnessKey {
    /// The key without its name.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Ed25519(key) => &key.key,
            Self::MlDsa44(key) => &key.key,
        }
    }

    /// The key, if its cosignatures can be checked.
    pub const fn checkable(&self) -> Option<&CosignerKey> {
        match self {
            Self::Ed25519(key) => Some(key),
            Self::MlDsa44(_) => None,
        }
    }
}

impl From<CosignerKey> for WitnessKey {
    fn from(key: CosignerKey) -> Self {
        Self::Ed25519(key)
    }
}

impl FromStr for WitnessKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let (name, hash, kind, key) = split_key(text)?;
        if kind != TYPE_ML_DSA_44 {
            return text.parse().map(Self::Ed25519);
        }
        if !is_key_name(name) {
            return Err(NoteError::BadKeyName);
        }
        let digest = sha256(&[name.as_bytes(), b"\n", &[kind], &key]);
        let own = *digest.first_chunk().expect("a digest is longer than 4 bytes");
        if key.len() != ML_DSA_44_KEY_BYTES || hex::encode(own) != hash {
            return Err(NoteError::MalformedKey);
        }
        Ok(Self::MlDsa44(MlDsaKey { name: name.to_owned(), hash: own, key }))
    }
}

impl fmt::Display for WitnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ed25519(key) => key.fmt(f),
            Self::MlDsa44(key) => {
                let typed = [&[TYPE_ML_DSA_44], key.key.as_slice()].concat();
                write!(f, "{}+{}+{}", key.name, hex::encode(key.hash), STANDARD.encode(typed))
            }
        }
    }
}

impl Serialize for WitnessKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WitnessKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Name, hash in hex, type and key of a verifier key in text.
fn split_key(text: &str) -> Result<(&str, &str, u8, Vec<u8>), NoteError> {
    // The base64 may hold plus signs of its own; name and hash hold none.
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(hash), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(NoteError::MalformedKey);
    };
    let typed = STANDARD.decode(key).map_err(|_| NoteError::MalformedKey)?;
    let (kind, key) = typed.split_first().ok_or(NoteError::MalformedKey)?;
    Ok((name, hash, *kind, key.to_vec()))
}

impl<const TYPE: u8> FromStr for NoteKey<TYPE> {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let (name, hash, kind, key) = split_key(text)?;
        let key: [u8; 32] = key.try_into().map_err(|_| NoteError::MalformedKey)?;
        if kind != TYPE {
            return Err(NoteError::MalformedKey);
        }
        let parsed = Self::ed25519(name, &key)?;
        if hex::encode(parsed.hash) != hash {
            return Err(NoteError::MalformedKey);
        }
        Ok(parsed)
    }
}

impl<const TYPE: u8> fmt::Display for NoteKey<TYPE> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut typed = vec![TYPE];
        typed.extend_from_slice(&self.key);
        write!(f, "{}+{}+{}", self.name, hex::encode(self.hash), STANDARD.encode(typed))
    }
}

impl<const TYPE: u8> Serialize for NoteKey<TYPE> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, const TYPE: u8> Deserialize<'de> for NoteKey<TYPE> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Whether a key may have this name.
fn is_key_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+')
}

/// A note whose signatures are not checked: its text is worth nothing before [`SignedNote::verify`].
#[derive(Clone, Debug)]
pub struct SignedNote<'a> {
    text: &'a str,
    signatures: Vec<NoteSignature<'a>>,
}

#[derive(Clone, Debug)]
struct NoteSignature<'a> {
    name: &'a str,
    hash: [u8; 4],
    value: Vec<u8>,
}

impl<'a> SignedNote<'a> {
    /// Splits a note into text and signatures.
    ///
    /// # Errors
    /// [`NoteError::TooLong`], [`NoteError::TooManySignatures`], [`NoteError::BadKeyName`],
    /// [`NoteError::Malformed`]
    pub fn parse(note: &'a str) -> Result<Self, NoteError> {
        if note.len() > MAX_NOTE_BYTES {
            return Err(NoteError::TooLong);
        }
        if note.bytes().any(|byte| byte < b' ' && byte != b'\n') {
            return Err(NoteError::Malformed);
        }
        // The last empty line separates; the text keeps its own newline.
        let separator = note.rfind("\n\n").ok_or(NoteError::Malformed)?;
        let (text, rest) = note.split_at_checked(separator.saturating_add(1)).ok_or(NoteError::Malformed)?;
        let lines =
            rest.strip_prefix('\n').and_then(|rest| rest.strip_suffix('\n')).ok_or(NoteError::Malformed)?;
        let mut signatures = Vec::new();
        for line in lines.split('\n') {
            if signatures.len() == MAX_SIGNATURES {
                return Err(NoteError::TooManySignatures);
            }
            signatures.push(NoteSignature::parse(line)?);
        }
        Ok(Self { text, signatures })
    }

    /// Checks the signatures against the keys the caller trusts. Signatures of other keys are ignored.
    ///
    /// # Errors
    /// [`NoteError::BadSignature`] when a known key's signature fails, even beside others that verify;
    /// [`NoteError::NoKnownKey`] when there is none of a known key.
    pub fn verify(&self, known: &[VerifierKey]) -> Result<VerifiedNote<'a>, NoteError> {
        let mut signers = Vec::new();
        for signature in &self.signatures {
            for key in known.iter().filter(|key| key.name == signature.name && key.hash == signature.hash) {
                if !key.verifies(self.text.as_bytes(), &signature.value) {
                    return Err(NoteError::BadSignature(key.name.clone()));
                }
                signers.push(signature.name);
            }
        }
        if signers.is_empty() {
            return Err(NoteError::NoKnownKey);
        }
        Ok(VerifiedNote { text: self.text, signers })
    }

    /// The cosignatures of the witnesses the caller knows, one of each at most, in the order of `known`. They say that
    /// a witness saw this checkpoint, not that the log signed it: that is [`SignedNote::verify`].
    ///
    /// # Errors
    /// [`NoteError::BadSignature`] when the line of a known witness does not verify, even beside others that do.
    pub fn cosignatures<'k>(&self, known: &'k [CosignerKey]) -> Result<Vec<Cosignature<'k>>, NoteError> {
        let mut found = Vec::new();
        for key in known {
            let mut first = None;
            for signature in self.signatures.iter().filter(|s| s.name == key.name && s.hash == key.hash) {
                let cosignature = key
                    .cosignature(self.text, &signature.value)
                    .ok_or_else(|| NoteError::BadSignature(key.name.clone()))?;
                first.get_or_insert(cosignature);
            }
            found.extend(first);
        }
        Ok(found)
    }

    /// How many of the keys of type 0x06 that the caller knows have a line of the right form, which says nothing yet: no
    /// signature of theirs is checked.
    ///
    /// # Errors
    /// [`NoteError::BadSignature`] when such a line holds no time and signature of the type's length.
    pub fn unchecked_cosignatures(&self, known: &[WitnessKey]) -> Result<usize, NoteError> {
        let mut found = 0usize;
        for key in known {
            let WitnessKey::MlDsa44(key) = key else { continue };
            let mut lines =
                self.signatures.iter().filter(|s| s.name == key.name && s.hash == key.hash).peekable();
            found = found.saturating_add(usize::from(lines.peek().is_some()));
            let whole = |line: &NoteSignature<'_>| {
                // The time is at most 2^63 - 1, so its first bit is none.
                line.value.len() == ML_DSA_44_VALUE_BYTES
                    && line.value.first().is_some_and(|byte| *byte < 0x80)
            };
            if !lines.all(whole) {
                return Err(NoteError::BadSignature(key.name.clone()));
            }
        }
        Ok(found)
    }

    /// The text **without** any check of a signature.
    pub fn unchecked_text(&self) -> &'a str {
        self.text
    }
}

impl<'a> NoteSignature<'a> {
    fn parse(line: &'a str) -> Result<Self, NoteError> {
        let (name, value) =
            line.strip_prefix("— ").and_then(|rest| rest.split_once(' ')).ok_or(NoteError::Malformed)?;
        if !is_key_name(name) {
            return Err(NoteError::BadKeyName);
        }
        let bytes = STANDARD.decode(value).map_err(|_| NoteError::Malformed)?;
        let (hash, value) = bytes.split_first_chunk().ok_or(NoteError::Malformed)?;
        if value.is_empty() {
            return Err(NoteError::Malformed);
        }
        Ok(Self { name, hash: *hash, value: value.to_vec() })
    }
}

/// A note's text with the names of the known keys whose signatures verify; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedNote<'a> {
    text: &'a str,
    signers: Vec<&'a str>,
}

impl<'a> VerifiedNote<'a> {
    /// The signed text, with its final newline.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// Names of the keys that signed.
    pub fn signers(&self) -> &[&'a str] {
        &self.signers
    }
}

/// A witness's statement that it saw a checkpoint grow from all it had seen of that log before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosignature<'k> {
    key: &'k CosignerKey,
    time: u64,
    signature: [u8; 64],
}

impl Cosignature<'_> {
    /// Whose it is.
    pub fn key(&self) -> &CosignerKey {
        self.key
    }

    /// When it was made, by the witness's clock, seconds since 1970.
    pub fn time(&self) -> u64 {
        self.time
    }

    /// The signature line, with its newline.
    pub fn line(&self) -> String {
        cosignature_line(self.key, self.time, &self.signature)
    }
}

/// The signature line of a note, with its newline: `— name base64(hash ‖ signature)`. A note is its text, an empty
/// line and its signature lines.
pub fn signature_line(key: &VerifierKey, signature: &[u8; 64]) -> String {
    key.line(&[signature])
}

/// The message that a witness signs over a checkpoint's text at a time, seconds since 1970.
pub fn cosigned_message(time: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}

/// The signature line of a cosignature, with its newline; `signature` is over [`cosigned_message`].
pub fn cosignature_line(key: &CosignerKey, time: u64, signature: &[u8; 64]) -> String {
    key.line(&[&time.to_be_bytes(), signature])
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{Ed25519KeyPair, KeyPair as _};

    /// The worked example of the C2SP specification.
    const VKEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    const NOTE: &str = "This is an example message.\n\n\
        — example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";

    /// The example of the Go package that notes come from.
    const GO_VKEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const GO_NOTE: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n\n\
        — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    fn signer(seed: u8, name: &str) -> (Ed25519KeyPair, VerifierKey) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let key = VerifierKey::ed25519(name, pair.public_key().as_ref().try_into().unwrap()).unwrap();
        (pair, key)
    }

    fn sign(pair: &Ed25519KeyPair, key: &VerifierKey, text: &str) -> String {
        signature_line(key, pair.sign(text.as_bytes()).as_ref().try_into().unwrap())
    }

    #[test]
    fn published_examples_verify() {
        for (vkey, note) in [(VKEY, NOTE), (GO_VKEY, GO_NOTE)] {
            let key: VerifierKey = vkey.parse().unwrap();
            assert_eq!(key.to_string(), vkey);
            let verified = SignedNote::parse(note).unwrap().verify(std::slice::from_ref(&key)).unwrap();
            assert_eq!(verified.signers(), [key.name()]);
            assert!(note.starts_with(verified.text()) && verified.text().ends_with(".\n"));
        }
    }

    #[test]
    fn round_trip_with_empty_lines_and_several_signers() {
        let (pair_a, a) = signer(1, "省级/交换平台");
        let (pair_b, b) = signer(2, "witness.example");
        let text = "one\n\n\nthree — four\n";
        let note = format!("{text}\n{}{}", sign(&pair_a, &a, text), sign(&pair_b, &b, text));
        let parsed = SignedNote::parse(&note).unwrap();
        assert_eq!(parsed.verify(std::slice::from_ref(&b)).unwrap().signers(), ["witness.example"]);
        let verified = parsed.verify(&[a, b]).unwrap();
        assert_eq!((verified.text(), verified.signers().len()), (text, 2));
    }

    #[test]
    fn a_known_key_that_fails_spoils_the_note() {
        let (pair_a, a) = signer(1, "a");
        let (pair_b, b) = signer(2, "b");
        let note = format!("text\n\n{}{}", sign(&pair_a, &a, "text\n"), sign(&pair_b, &b, "other\n"));
        let parsed = SignedNote::parse(&note).unwrap();
        assert_eq!(parsed.verify(&[a.clone(), b]).unwrap_err(), NoteError::BadSignature("b".to_owned()));
        assert!(parsed.verify(&[a]).is_ok());
        let (_, c) = signer(3, "c");
        assert_eq!(parsed.verify(&[c]).unwrap_err(), NoteError::NoKnownKey);
        // The same name with another key is another key.
        let (_, other) = signer(3, "a");
        assert_eq!(parsed.verify(&[other]).unwrap_err(), NoteError::NoKnownKey);
    }

    fn witness(seed: u8, name: &str) -> (Ed25519KeyPair, CosignerKey) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let key = CosignerKey::ed25519(name, pair.public_key().as_ref().try_into().unwrap()).unwrap();
        (pair, key)
    }

    fn cosign(pair: &Ed25519KeyPair, key: &CosignerKey, time: u64, text: &str) -> String {
        let signature = pair.sign(cosigned_message(time, text).as_bytes());
        cosignature_line(key, time, signature.as_ref().try_into().unwrap())
    }

    const CHECKPOINT: &str = "log.example/1\n9\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";

    #[test]
    fn cosignatures_are_counted_once_and_unknown_ones_ignored() {
        let ((pair_a, a), (pair_b, b), (_, c)) = (witness(1, "a"), witness(2, "b"), witness(3, "c"));
        let lines = [cosign(&pair_b, &b, 20, CHECKPOINT), cosign(&pair_a, &a, 10, CHECKPOINT)].concat();
        let note = format!("{CHECKPOINT}\n{lines}{}", cosign(&pair_a, &a, 11, CHECKPOINT));
        let parsed = SignedNote::parse(&note).unwrap();
        let known = [a.clone(), b.clone(), c.clone()];
        let found = parsed.cosignatures(&known).unwrap();
        let times: Vec<_> = found.iter().map(|one| (one.key().name(), one.time())).collect();
        assert_eq!(times, [("a", 10), ("b", 20)]);
        assert!(note.contains(&found[0].line()) && note.contains(&found[1].line()));
        assert_eq!(parsed.cosignatures(&[c]), Ok(Vec::new()));
        // The same name with another key is another witness.
        let (_, other) = witness(3, "a");
        assert_eq!(parsed.cosignatures(&[other]), Ok(Vec::new()));
    }

    #[test]
    fn a_known_witness_whose_cosignature_fails_spoils_the_note() {
        let (pair, key) = witness(1, "a");
        let good = cosign(&pair, &key, 10, CHECKPOINT);
        let timeless = cosign(&pair, &key, 0, CHECKPOINT);
        let late = cosign(&pair, &key, 1 << 63, CHECKPOINT);
        let elsewhere = cosign(&pair, &key, 10, &CHECKPOINT.replace("\n9\n", "\n8\n"));
        // A signature over the bare text, with a time put before it.
        let bare = cosignature_line(&key, 10, pair.sign(CHECKPOINT.as_bytes()).as_ref().try_into().unwrap());
        let short = key.line(&[&10u64.to_be_bytes(), &[1; 63]]);
        let long = key.line(&[&10u64.to_be_bytes(), &[1; 65]]);
        for bad in [timeless, late, elsewhere, bare, short, long, key.line(&[&[1]])] {
            let note = format!("{CHECKPOINT}\n{good}{bad}");
            let found = SignedNote::parse(&note).unwrap();
            let error = found.cosignatures(std::slice::from_ref(&key)).unwrap_err();
            assert_eq!(error, NoteError::BadSignature("a".to_owned()), "{bad}");
        }
    }

    #[test]
    fn a_logs_key_and_a_witnesss_key_are_never_mistaken_for_each_other() {
        let ((pair, log), (_, cosigner)) = (signer(1, "a"), witness(1, "a"));
        assert_ne!(log.hash(), cosigner.hash());
        let text = cosigner.to_string();
        assert_eq!(text.parse::<CosignerKey>().unwrap(), cosigner);
        assert_eq!(text.parse::<VerifierKey>().unwrap_err(), NoteError::MalformedKey);
        assert_eq!(log.to_string().parse::<CosignerKey>().unwrap_err(), NoteError::MalformedKey);
        let note = format!("{CHECKPOINT}\n{}", cosign(&pair, &cosigner, 10, CHECKPOINT));
        assert_eq!(SignedNote::parse(&note).unwrap().verify(&[log]).unwrap_err(), NoteError::NoKnownKey);
        let note = format!("{CHECKPOINT}\n{}", sign(&pair, &signer(1, "a").1, CHECKPOINT));
        assert_eq!(SignedNote::parse(&note).unwrap().cosignatures(&[cosigner]), Ok(Vec::new()));
    }

    #[test]
    fn every_changed_byte_of_the_text_is_noticed() {
        let key: VerifierKey = VKEY.parse().unwrap();
        for at in 0..NOTE.find("\n\n").unwrap() {
            let mut bytes = NOTE.as_bytes().to_vec();
            bytes[at] ^= 1;
            let note = String::from_utf8(bytes).unwrap();
            assert!(SignedNote::parse(&note).unwrap().verify(std::slice::from_ref(&key)).is_err());
        }
    }

    #[test]
    fn malformed_notes_are_refused() {
        let line = NOTE.split_once("\n\n").unwrap().1;
        let error = |note: &str| SignedNote::parse(note).unwrap_err();
        for note in [
            "",
            "\n",
            "\n\n",
            "text\n",
            "text\n\n",
            "text\n\n\n",
            "text\n\n— a\n",
            "text\n\n— a AAAA\n",
            "text\n\n— a AAAAAA\n",
            "text\n\n- a AAAAAAAAAA==\n",
            "te\u{7}xt\n\n— a AAAAAAAAAAA=\n",
            "te\rxt\n\n— a AAAAAAAAAAA=\n",
            NOTE.trim_end(),
        ] {
            assert_eq!(error(note), NoteError::Malformed, "{note:?}");
        }
        assert_eq!(error("text\n\n— a+b AAAAAAAAAAA=\n"), NoteError::BadKeyName);
        assert_eq!(error(&format!("text\n\n{}", line.repeat(17))), NoteError::TooManySignatures);
        assert!(SignedNote::parse(&format!("text\n\n{}", line.repeat(16))).is_ok());
        assert_eq!(error(&"x".repeat(MAX_NOTE_BYTES + 1)), NoteError::TooLong);
    }

    #[test]
    fn malformed_keys_are_refused() {
        for vkey in [
            "",
            "a",
            "a+b",
            "example.com/foo+530d903b+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
            "example.com/foo+530D903A+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
            "example.com/foo+530d903a+BOkyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
            "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv",
        ] {
            assert_eq!(vkey.parse::<VerifierKey>().unwrap_err(), NoteError::MalformedKey, "{vkey}");
        }
        for name in ["", "a b", "a\u{3000}b", "a+b", "a\nb"] {
            assert_eq!(VerifierKey::ed25519(name, &[0; 32]).unwrap_err(), NoteError::BadKeyName);
        }
    }
}
