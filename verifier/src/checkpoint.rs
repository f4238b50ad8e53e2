//! C2SP checkpoints (<https://c2sp.org/tlog-checkpoint>): what a log signs about its tree.
//!
//! Pure functions; nothing to lose.

use crate::{
    Hash,
    note::{VerifiedNote, VerifierKey, signature_line},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};

/// Origin, size, root.
const LINES: usize = 3;

/// Why a note is no checkpoint of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The text is not origin, size and root on three lines and no more.
    #[error("the checkpoint is malformed")]
    Malformed,
    /// No verified signature is of a key named as the origin.
    #[error("the checkpoint is not signed by the log it names")]
    NotTheLog,
}

/// The size and root of a log's tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name, and the name of its key.
    pub origin: String,
    /// Leaves in the tree.
    pub size: u64,
    /// Root of the tree.
    pub root: Hash,
}

impl Checkpoint {
    /// The text that is signed.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root))
    }

    /// The checkpoint as a signed note; `signature` is over [`Self::text`].
    pub fn signed_text(&self, key: &VerifierKey, signature: &[u8; 64]) -> String {
        format!("{}\n{}", self.text(), signature_line(key, signature))
    }

    /// Reads a verified note as a checkpoint.
    ///
    /// # Errors
    /// [`CheckpointError::Malformed`], also for extension lines, which our logs never write;
    /// [`CheckpointError::NotTheLog`]
    pub fn parse(note: &VerifiedNote<'_>) -> Result<Self, CheckpointError> {
        if note.text().lines().count() > LINES {
            return Err(CheckpointError::Malformed);
        }
        Self::parse_extended(note)
    }

    /// Reads a verified note of any log as a checkpoint and lets extension lines be: a witness says nothing about them.
    ///
    /// # Errors
    /// Like [`Self::parse`]
    pub fn parse_extended(note: &VerifiedNote<'_>) -> Result<Self, CheckpointError> {
        let checkpoint = Self::from_text(note.text()).ok_or(CheckpointError::Malformed)?;
        if !note.signers().contains(&checkpoint.origin.as_str()) {
            return Err(CheckpointError::NotTheLog);
        }
        Ok(checkpoint)
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
        if origin.is_empty() || lines.any(str::is_empty) {
            return None;
        }
        let root = STANDARD.decode(root).ok()?.try_into().ok()?;
        Some(Self { origin: origin.to_owned(), size: decimal(size)?, root })
    }
}

/// An ASCII decimal without sign or leading zeros.
pub fn decimal(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::note::SignedNote;
    use ring::signature::{Ed25519KeyPair, KeyPair as _};

    fn note(name: &str, text: &str) -> (VerifierKey, String) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let key = VerifierKey::ed25519(name, pair.public_key().as_ref().try_into().unwrap()).unwrap();
        let line = signature_line(&key, pair.sign(text.as_bytes()).as_ref().try_into().unwrap());
        (key, format!("{text}\n{line}"))
    }

    fn parse(name: &str, text: &str) -> Result<Checkpoint, CheckpointError> {
        let (key, note) = note(name, text);
        Checkpoint::parse(&SignedNote::parse(&note).unwrap().verify(&[key]).unwrap())
    }

    #[test]
    fn round_trip() {
        let checkpoint = Checkpoint { origin: "log.example/1".to_owned(), size: 12, root: [9; 32] };
        assert_eq!(parse("log.example/1", &checkpoint.text()), Ok(checkpoint.clone()));
        let (key, signed) = note("log.example/1", &checkpoint.text());
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let signature = pair.sign(checkpoint.text().as_bytes());
        assert_eq!(checkpoint.signed_text(&key, signature.as_ref().try_into().unwrap()), signed);
    }

    #[test]
    fn another_signer_is_not_the_log() {
        let checkpoint = Checkpoint { origin: "a".to_owned(), size: 0, root: [9; 32] };
        assert_eq!(parse("b", &checkpoint.text()), Err(CheckpointError::NotTheLog));
    }

    #[test]
    fn malformed_texts_are_refused() {
        let root = STANDARD.encode([9; 32]);
        for text in [
            format!("a\n1\n{root}\nextension\n"),
            format!("a\n01\n{root}\n"),
            format!("a\n+1\n{root}\n"),
            format!("a\n\n{root}\n"),
            format!("a\n18446744073709551616\n{root}\n"),
            format!("\n1\n{root}\n"),
            "a\n1\nAAAA\n".to_owned(),
            "a\n1\n".to_owned(),
        ] {
            assert_eq!(parse("a", &text), Err(CheckpointError::Malformed), "{text:?}");
        }
        let extended = |text: &str| {
            let (key, note) = note("a", text);
            Checkpoint::parse_extended(&SignedNote::parse(&note).unwrap().verify(&[key]).unwrap())
        };
        let checkpoint = Checkpoint { origin: "a".to_owned(), size: 1, root: [9; 32] };
        assert_eq!(extended(&format!("a\n1\n{root}\nextension\n")), Ok(checkpoint));
        let empty_line = format!("a\n1\n{root}\n\nextension\n");
        assert_eq!(extended(&empty_line), Err(CheckpointError::Malformed));
    }
}
