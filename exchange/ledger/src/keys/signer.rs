//! The log's key: signs the checkpoint of each frame and makes seals.
//!
//! Owned by the sequencer, and before it starts by whoever opens or copies the journal. Its file stays as it is. A
//! crash leaves nothing.

use crate::{
    error::OpenError,
    journal::{
        cursor::Cursor,
        frame::{self, SEAL_BYTES},
        segment::{self, SEGMENT_HEADER_BYTES},
    },
    keys::{
        crypt::{KeyedHash, day_of},
        secrets::LedgerKeys,
    },
    names::Hash,
    options::Options,
};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use verifier::{checkpoint::Checkpoint, note::VerifierKey};

pub(crate) fn signer(options: &Options, keys: &LedgerKeys) -> Result<LogSigner, OpenError> {
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&keys.log_pkcs8)
        .map_err(|_| OpenError::Keys("the log's key is not an Ed25519 key in PKCS#8"))?;
    let public: &[u8; 32] =
        pair.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes");
    let key = VerifierKey::ed25519(&options.origin, public)
        .map_err(|_| OpenError::Keys("the origin cannot be a key name"))?;
    let index_check = KeyedHash::new(&keys.index).check(&options.origin);
    Ok(LogSigner { pair, key, index_check })
}

/// The log's key with the name it signs under, and what tells the index key.
pub(crate) struct LogSigner {
    pub(crate) pair: Ed25519KeyPair,
    pub(crate) key: VerifierKey,
    pub(crate) index_check: u64,
}

impl LogSigner {
    pub(crate) fn segment_header(&self, number: u32, first_frame: u64) -> [u8; SEGMENT_HEADER_BYTES] {
        segment::header(number, first_frame, self.key.name(), self.index_check)
    }

    pub(crate) fn sign(&self, size: u64, root: Hash) -> (Checkpoint, [u8; 64]) {
        let checkpoint = Checkpoint { origin: self.key.name().to_owned(), size, root };
        let signature = self.pair.sign(checkpoint.text().as_bytes());
        let signature = signature.as_ref().try_into().expect("an Ed25519 signature has 64 bytes");
        (checkpoint, signature)
    }
}

/// Builds a seal frame after `cursor` and moves the cursor behind it, except for its position.
pub(crate) fn build_seal(cursor: &mut Cursor, signer: &LogSigner) -> Vec<u8> {
    let head = frame::Head {
        kind: frame::Kind::Seal,
        count: 0,
        first_index: cursor.frontier.size(),
        number: cursor.frame,
        time_ms: cursor.time_ms,
        previous: cursor.previous,
        day: day_of(cursor.time_ms),
    };
    let mut bytes = Vec::with_capacity(SEAL_BYTES);
    head.write(&mut bytes);
    let (checkpoint, signature) = signer.sign(cursor.frontier.size(), cursor.frontier.root());
    frame::finish(&mut bytes, 0, checkpoint.size, &checkpoint.root, &signature);
    cursor.frame += 1;
    cursor.previous = frame::chain_hash(&bytes);
    bytes
}
