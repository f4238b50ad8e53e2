//! Rows that were removed, or that others took the place of, go from the disk: their segments are written anew without them.
//!
//! Called by the ticker, a segment or one merge a turn. A crash between file and entry leaves a file that nobody names, and the next start
//! removes it.

use ledger::record::Record;
use ledger::{DueRows, PreparedSegment, RowsError};

use super::Gateway;
use super::seal;

impl Gateway {
    /// Writes the segments anew that are most worth it, in one entry of the exchange's own; whether there were any.
    pub async fn compact_rows(&self) -> bool {
        let ledger = self.ledger.clone();
        if ledger.is_closed() {
            return false;
        }
        let written = tokio::task::spawn_blocking(move || {
            let due = ledger.rows().due()?;
            let mut record = Record::default();
            // Without a key the resource is going, and its segments with it.
            let key = ledger.sealing_key(&due.label(), &mut record)?;
            let prepared = ledger.rows().compact(&key, &due);
            Some(prepared.map(|prepared| (due, record, prepared)))
        });
        match written.await {
            Ok(Some(Ok((due, record, prepared)))) => self.commit_compacted(&due, record, prepared).await,
            // A full disk says so elsewhere.
            Ok(None | Some(Err(RowsError::Full | RowsError::Stopped))) => false,
            Ok(Some(Err(error))) => {
                tracing::error!(%error, "row segments cannot be written anew");
                false
            }
            Err(_) => false,
        }
    }

    async fn commit_compacted(&self, due: &DueRows, mut record: Record, prepared: PreparedSegment) -> bool {
        record.documents.extend(prepared.documents());
        match super::commit_system(&self.ledger, seal::system_entry(&self.policy(), &record)).await {
            Ok(()) => {
                tracing::debug!(
                    segments = due.count(),
                    rows = prepared.rows(),
                    "row segments were written anew"
                );
                true
            }
            Err(refused) => {
                // One of them ended meanwhile, with its resource: the next turn looks again.
                tracing::debug!(%refused, "row segments were not written anew");
                prepared.discard();
                false
            }
        }
    }
}
