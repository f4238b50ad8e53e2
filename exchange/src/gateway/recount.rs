//! Open clocks are counted anew when a calendar has changed: each is an entry of the exchange itself.
//!
//! Called by the ticker once a second, and does nothing as long as the calendars are the same. A crash between two entries leaves clocks
//! that the next start counts.

use std::sync::atomic::Ordering;

use ledger::record::{DocumentState, Record};
use ledger::{Command, DocumentKind, Fact, Key};
use schemas::workday::Calendar;

use super::Gateway;
use super::parsed::Kept as _;
use super::seal;
use crate::sharing::application::Application;
use crate::sharing::clock;

impl Gateway {
    /// Counts every open clock anew if a calendar has changed since the last call. A clock that cannot be written now is written by
    /// the next call.
    pub async fn recount_clocks(&self) {
        let state = self.ledger.state();
        let found = state.documents(DocumentKind::Calendar);
        let versions = found.iter().map(|(_, calendar)| u64::from(calendar.version)).sum();
        if self.counted_by.load(Ordering::Relaxed) == versions {
            return;
        }
        let calendars = found.iter().filter_map(|(_, found)| serde_json::from_slice(&found.value).ok());
        let calendars: Vec<Calendar> = calendars.collect();
        let (mut whole, mut recounted) = (true, 0_u64);
        for (key, document) in state.documents(DocumentKind::Application) {
            let Ok(application) = serde_json::from_slice::<Application>(&document.value) else { continue };
            let Some(running) = &application.clock else { continue };
            let again = clock::again(running, &calendars);
            if again.due == running.due {
                continue;
            }
            let application = Application { clock: Some(again), ..application };
            let written = self.write_recounted(key, document.version, &application).await;
            recounted += u64::from(written);
            whole &= written;
        }
        if recounted > 0 {
            tracing::info!(recounted, "open clocks were counted anew");
        }
        if whole {
            self.counted_by.store(versions, Ordering::Relaxed);
        }
    }

    /// Writes an application, unless it has changed meanwhile.
    async fn write_recounted(&self, key: Key, version: u32, application: &Application) -> bool {
        let kind = DocumentKind::Application;
        let document = DocumentState {
            kind: kind.number(),
            key,
            version: version + 1,
            value: super::change::json(application),
            owners: application.owners(),
            ends_ms: 0,
        };
        let record = Record { documents: vec![document], ..Record::default() };
        let command = Command {
            permit_or_denial: seal::system_entry(&self.policy(), &record),
            reads: vec![(Fact::Document(kind, key), version)],
            ends_at_ms: u64::MAX,
            inline_proof: false,
        };
        matches!(self.ledger.commit(command).await, Ok(ledger::Outcome::Committed(_)))
    }
}
