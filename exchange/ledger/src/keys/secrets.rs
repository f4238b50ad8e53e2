//! The secrets a ledger works with, and where the epochs' keys lie.
//!
//! Read when a ledger is opened. One ledger alone writes the epoch files, while it holds the journal's lock; what a crash
//! leaves of them stands in README.md, "A change of epoch".

use std::{io, sync::Arc};
use zeroize::{Zeroize as _, Zeroizing};

/// The epoch that every log begins in.
pub(crate) const FIRST_EPOCH: u32 = 1;

/// The secrets a ledger works with, as they stand in the sealed key files (section 7). Overwritten when dropped.
pub struct LedgerKeys {
    /// Journal key: day keys are derived from it.
    pub journal: [u8; 32],
    /// Key of the keyed hashes.
    pub index: [u8; 32],
    /// The log's Ed25519 key, PKCS#8.
    pub log_pkcs8: Vec<u8>,
    /// Where the epochs' keys lie.
    pub epochs: Arc<dyn EpochFiles>,
}

impl Drop for LedgerKeys {
    fn drop(&mut self) {
        self.journal.zeroize();
        self.index.zeroize();
        self.log_pkcs8.zeroize();
    }
}

/// The two files of epoch keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpochFile {
    /// The current epoch's key and the table.
    Current,
    /// The next epoch's key, while the epoch changes.
    Next,
}

/// Where epoch keys lie: sealed, apart from the journal. One ledger alone writes them, while it holds the journal's
/// lock.
pub trait EpochFiles: Send + Sync {
    /// The content of a file; `None` when there is none.
    ///
    /// # Errors
    /// It cannot be read, or its seal does not open.
    fn load(&self, file: EpochFile) -> io::Result<Option<Zeroizing<Vec<u8>>>>;

    /// Puts a content in the place of the one that may be there. Durable when it returns, and then the old bytes are
    /// overwritten; a crash leaves the old file or the new one.
    ///
    /// # Errors
    /// The file is the old one or the new one.
    fn replace(&self, file: EpochFile, content: &[u8]) -> io::Result<()>;

    /// Overwrites and removes a file, if it is there. Durable when it returns.
    ///
    /// # Errors
    /// The file may still be there.
    fn remove(&self, file: EpochFile) -> io::Result<()>;

    /// Wipes what crashed replacements left.
    ///
    /// # Errors
    /// Some may still be there.
    fn tidy(&self) -> io::Result<()>;
}
