//! When the epoch changes: daily, when two operators ask for it, and at start when a change was cut off. Before a change, the keys of uses
//! past their period are destroyed, so that it takes them out of every copy of the journal.
//!
//! One task of a serving exchange. `exchange/ledger/README.md` says what a crash between two steps leaves.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::gateway::Gateway;
use crate::moment::now_ms;

/// How often the time is looked at, and how long a change that failed waits.
const LOOK: Duration = Duration::from_secs(60);
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// China Standard Time is UTC+8 all year.
const CST_OFFSET_MS: u64 = 8 * HOUR_MS;

/// Changes the epoch whenever it is time, and keeps uses for so many years after theirs, until `stopped`. A change under way is finished first.
pub async fn follow(gateway: Arc<Gateway>, hour: u8, uses_years: u16, mut stopped: watch::Receiver<bool>) {
    let mut look = tokio::time::interval(LOOK);
    // Asked for, and perhaps cut off before it was begun.
    let mut owed = gateway.rotation_owed();
    loop {
        tokio::select! {
            () = gateway.rotation_wanted() => owed = true,
            _ = look.tick() => {}
            _ = stopped.wait_for(|stopped| *stopped) => return,
        }
        if gateway.ledger().is_closed() {
            // No key event can follow the last leaf.
            continue;
        }
        let state = gateway.ledger().state();
        let now_ms = now_ms().max(state.time_ms());
        if owed || state.is_rotating() || is_due(now_ms, state.epoch_since_ms(), hour) {
            gateway.destroy_uses(uses_years).await;
            owed &= !rotate(&gateway).await;
        }
    }
}

/// One change, or the end of one that was cut off; whether it was made. A failure is an operator's to see; the next look
/// tries again.
pub async fn rotate(gateway: &Arc<Gateway>) -> bool {
    let gateway = Arc::clone(gateway);
    match tokio::task::spawn_blocking(move || gateway.rotate()).await {
        Ok(Ok(epoch)) => {
            tracing::info!(epoch, "the epoch has changed");
            return true;
        }
        Ok(Err(error)) => tracing::error!(%error, "the epoch did not change; it is tried again"),
        Err(_) => tracing::error!("changing the epoch panicked"),
    }
    false
}

/// Whether an epoch that began at `since_ms` has seen its hour pass; 0 is a log without entries.
fn is_due(now_ms: u64, since_ms: u64, hour: u8) -> bool {
    let shift = CST_OFFSET_MS + DAY_MS - u64::from(hour) * HOUR_MS;
    let day = |ms: u64| ms.saturating_add(shift) / DAY_MS;
    since_ms != 0 && day(since_ms) < day(now_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_ends_at_its_hour_in_china() {
        let at = |text: &str| schemas::date::parse_rfc3339(text).expect("a time");
        let before = at("2026-03-01T18:59:59Z");
        let hour = at("2026-03-01T19:00:00Z");
        assert!(is_due(hour, before, 3));
        assert!(!is_due(hour - 1, at("2026-02-28T19:00:00Z"), 3));
        assert!(!is_due(hour, hour, 3));
        assert!(!is_due(hour + DAY_MS - 1, hour, 3));
        assert!(is_due(hour + DAY_MS, hour, 3));
        assert!(is_due(hour + 400 * DAY_MS, hour, 3));
        assert!(is_due(at("2026-03-01T16:00:00Z"), at("2026-03-01T15:59:59Z"), 0));
        assert!(!is_due(hour, 0, 3), "a log without entries");
    }
}
