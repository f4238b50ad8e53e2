//! When the clock may be believed (decision 0010).
//!
//! Journal time never decreases, so a moment that was journaled by a wrong clock could never be taken back: grants and
//! licenses would have ended, idempotency keys would be forgotten and days counted, for as long as it is ahead. So the
//! clock is compared with what is known before anything is made by it.
//!
//! A start asks `check` once; the sequencer owns the living [`Clock`]. Both are memory: after a crash the last frame
//! tells the journal's time.

use crate::error::OpenError;

/// A journal may rest this long, ms; a clock that is further ahead is asked about.
const MAX_REST_MS: u64 = 90 * 86_400_000;
/// And this long, ms, when nobody keeps the clock.
const MAX_UNKEPT_REST_MS: u64 = 72 * 3_600_000;
/// A clock that is corrected by so much goes unasked, ms; journal time then stands until the clock has caught up.
const MAX_STEP_BACK_MS: u64 = 5 * 60_000;

/// Whether a start may believe a clock, given the time of the journal's last entry; `None` when there is none.
pub(crate) fn check(now_ms: u64, last_ms: Option<u64>, is_kept: fn() -> bool) -> Result<(), OpenError> {
    let Some(last_ms) = last_ms else { return Ok(()) };
    let refuse = |how| OpenError::Clock { clock: now_ms, how, journal: last_ms };
    if now_ms.saturating_add(MAX_STEP_BACK_MS) < last_ms {
        return Err(refuse("behind"));
    }
    if now_ms > last_ms.saturating_add(MAX_REST_MS) {
        return Err(refuse("more than 90 days after"));
    }
    if now_ms > last_ms.saturating_add(MAX_UNKEPT_REST_MS) && !is_kept() {
        return Err(refuse("not known to be synchronised and more than 72 hours after"));
    }
    Ok(())
}

/// The clock of a running journal. Owned by the sequencer.
pub(crate) struct Clock {
    /// The latest time that was believed, ms since 1970.
    believed_ms: u64,
    behind: bool,
}

impl Clock {
    /// Begins with a time that the start has accepted.
    pub(crate) fn new(now_ms: u64) -> Self {
        Self { believed_ms: now_ms, behind: false }
    }

    /// The journal's time of now; an error when the clock jumped ahead. When it went back, the journal's time stands.
    pub(crate) fn journal_ms(&mut self, now_ms: u64, last_ms: u64) -> Result<u64, String> {
        if now_ms > self.believed_ms.saturating_add(MAX_REST_MS) {
            let (from, to) = (self.believed_ms / 1_000, now_ms / 1_000);
            return Err(format!(
                "the clock jumped from {from} to {to} (seconds since 1970), by more than 90 days"
            ));
        }
        let behind = now_ms.saturating_add(MAX_STEP_BACK_MS) < last_ms;
        if behind && !self.behind {
            tracing::error!(
                behind_ms = last_ms - now_ms,
                "the clock went back: the journal's time stands until it has caught up"
            );
        }
        metrics::gauge!("miaoxiang_clock_behind_seconds")
            .set((last_ms.saturating_sub(now_ms) / 1_000) as f64);
        self.behind = behind;
        self.believed_ms = self.believed_ms.max(now_ms);
        Ok(now_ms.max(last_ms))
    }
}
