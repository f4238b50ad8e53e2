//! The segment that frames are appended to.
//!
//! Owned by the sequencer, the one writer. A crash within `append` leaves a torn or whole last frame that nobody was
//! answered from.

use crate::disk::DiskFile;
#[cfg(debug_assertions)]
use crate::failpoint;
use std::{io, sync::Arc};

/// The segment that frames are appended to.
pub(crate) struct Current {
    pub(crate) number: u32,
    pub(crate) file: Arc<dyn DiskFile>,
    /// Where the next frame begins.
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

impl Current {
    /// Writes a frame and makes it durable.
    pub(crate) fn append(&self, frame: &[u8]) -> io::Result<()> {
        #[cfg(debug_assertions)]
        if failpoint::leaves_unwritten() {
            return Ok(());
        }
        let written = self
            .file
            .write_all_at(frame, self.offset)
            .and_then(|()| self.file.sync())
            .and_then(|()| self.still_there());
        #[cfg(debug_assertions)]
        if failpoint::ignores_write_error() {
            return Ok(());
        }
        written
    }

    /// A segment that is deleted or cut while it is written keeps nothing, whatever its sync says.
    pub(crate) fn still_there(&self) -> io::Result<()> {
        let stat = self.file.stat()?;
        match (stat.links, stat.len) {
            (0, _) => Err(io::Error::other("the segment was deleted while the journal is open")),
            (_, len) if len < self.bytes => {
                Err(io::Error::other("the segment was truncated while the journal is open"))
            }
            _ => Ok(()),
        }
    }
}
