//! Entries read back for those who may see them: what a page of a holder's trace and a page of an auditor's query share. Both
//! only read what is in the published checkpoint, so that everything on a page is proven by it.
//!
//! Reading blocks, and may take long: it happens in a lane of its own. Sealed parts are opened with a [`Disclosure`].
//! It only reads, so a crash leaves nothing.

use ledger::{Label, Ledger, OpenedEntry, ReadError};
use schemas::codes::Code;
use verifier::Hash;
use verifier::leaf::HolderLink;
use verifier::receipt::Receipt;
use verifier::trace::{Digest, Proven, Told};

use crate::capability::licenses::stored;
use crate::gateway::permit::Disclosure;
use crate::wire::refusal::Refusal;

/// The content of a subject part, as far as pages show it.
#[derive(Default)]
pub(crate) struct Subject {
    pub(crate) told: Option<Vec<u8>>,
    pub(crate) told_salt: Option<Vec<u8>>,
    pub(crate) user_name: Option<String>,
    pub(crate) detail: Option<String>,
    pub(crate) field_salt: Option<Vec<u8>>,
}

impl Subject {
    pub(crate) fn read(plaintext: &[u8]) -> Option<Self> {
        let record = flatbuffers::root::<schemas::journal::SubjectRecord<'_>>(plaintext).ok()?;
        Some(Self {
            told: record.told().map(|bytes| bytes.bytes().to_vec()),
            told_salt: record.told_salt().map(|bytes| bytes.bytes().to_vec()),
            user_name: record.user_name().map(str::to_owned),
            detail: record.detail().map(str::to_owned),
            field_salt: record.field_salt().map(|bytes| bytes.bytes().to_vec()),
        })
    }

    /// The document that a holder is told, with the salt for this holder alone.
    pub(crate) fn told(&self, label: &Label) -> Option<Told> {
        let (salt, document) = (self.told_salt.as_ref()?, self.told.clone()?);
        let salt = verifier::sha256(&[salt, label]);
        Some(Told { salt: Digest(salt), document: String::from_utf8(document).ok()? })
    }
}

pub(crate) fn fault(error: &ReadError) -> Refusal {
    if let ReadError::Missing(segment) = error {
        return stored::missing(*segment);
    }
    tracing::error!(%error, "a journaled entry cannot be read back");
    Refusal::new(Code::RecordUnavailable)
}

/// The inclusion path of a leaf in the published tree of a size.
pub(crate) fn path(ledger: &Ledger, index: u64, size: u64) -> Result<Vec<Hash>, Refusal> {
    let path = ledger.inclusion(index, size).map_err(|error| {
        tracing::error!(%error, "the tiles cannot be read");
        Refusal::new(Code::Internal)
    })?;
    path.ok_or_else(|| Refusal::new(Code::Internal))
}

/// The part that tells a holder of an entry; `None` when its key is gone. That of a destruction of keys is for all whom it concerns.
pub(crate) fn subject_for(
    ledger: &Ledger,
    _right: Disclosure,
    entry: &OpenedEntry,
    label: &Label,
) -> Result<Option<Subject>, Refusal> {
    match ledger.open_part_for(entry, label) {
        Ok(plaintext) => Ok(Some(Subject::read(&plaintext).ok_or_else(|| Refusal::new(Code::Internal))?)),
        Err(ReadError::KeyGone) if !entry.record.destroyed.is_empty() => {
            let Some(part) = entry.parts.first() else { return Ok(None) };
            let plaintext = ledger.open_subject(*part).map_err(|error| fault(&error))?;
            Ok(Subject::read(&plaintext))
        }
        Err(ReadError::KeyGone) => Ok(None),
        Err(error) => Err(fault(&error)),
    }
}

pub(crate) fn proven(ledger: &Ledger, entry: &OpenedEntry, size: u64) -> Result<Proven, Refusal> {
    let committed = &entry.committed;
    let receipt = Receipt {
        log: ledger.origin().to_owned(),
        index: committed.index,
        leaf_hash: committed.leaf_hash,
        open: committed.open.clone(),
        salt: committed.salt,
        c: committed.c,
        // The requester's alone.
        request_salt: None,
        proof: None,
    };
    let path = path(ledger, committed.index, size)?;
    Proven::new(&receipt, &path).ok_or_else(|| Refusal::new(Code::Internal))
}

pub(crate) fn digests(hashes: &[Hash]) -> Vec<Digest> {
    hashes.iter().copied().map(Digest).collect()
}

pub(crate) fn own_link<'a>(entry: &'a OpenedEntry, label: &Label) -> Option<&'a HolderLink> {
    entry.links.iter().find(|link| link.label == *label)
}
