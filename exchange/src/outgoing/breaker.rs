//! A circuit breaker: who failed often in a row is left alone for a while, then tried by one call.
//!
//! Each provider that is called has one. It is memory: after a crash everybody is tried again.

use std::time::{Duration, Instant};

/// Failures in a row that open it.
const MOST_FAILURES: u32 = 5;
/// How long it stays open.
pub(crate) const PAUSE: Duration = Duration::from_secs(10);

/// Closed while calls succeed, open after failures, half open while one call tries.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    /// Until when nobody calls, once it has opened.
    until: Option<Instant>,
    /// A call tries whether it closes.
    trying: bool,
}

impl Breaker {
    /// Whether a call may be made now. Its outcome is told by one of the other three.
    pub(super) fn admits(&mut self, now: Instant) -> bool {
        match self.until {
            None => true,
            Some(until) if now < until || self.trying => false,
            Some(_) => {
                self.trying = true;
                true
            }
        }
    }

    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    pub(super) fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.trying = false;
        if self.failures >= MOST_FAILURES {
            self.until = Some(now + PAUSE);
        }
    }

    /// The call was given up for a cause that is not the provider's.
    pub(super) fn undecided(&mut self) {
        self.trying = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_one_call_tries() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        for _ in 1..MOST_FAILURES {
            assert!(breaker.admits(now));
            breaker.failed(now);
        }
        // A success in between counts anew.
        breaker.succeeded();
        for _ in 0..MOST_FAILURES {
            assert!(breaker.admits(now));
            breaker.failed(now);
        }
        assert!(!breaker.admits(now) && !breaker.admits(now + PAUSE - Duration::from_millis(1)));
        let later = now + PAUSE;
        assert!(breaker.admits(later) && !breaker.admits(later), "one call tries");
        breaker.failed(later);
        assert!(!breaker.admits(later + PAUSE - Duration::from_millis(1)));
        let (later, again) = (later + PAUSE, later + PAUSE);
        assert!(breaker.admits(later));
        breaker.undecided();
        assert!(breaker.admits(again), "a call that was given up is tried by another one");
        breaker.succeeded();
        assert!(breaker.admits(again) && breaker.admits(again));
    }
}
