//! The machine's clock.
//!
//! Any thread asks it. Pure reading; nothing to lose.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, seconds since 1970, by the machine's clock.
pub fn now_seconds() -> u64 {
    now_ms() / 1_000
}

/// Now, ms since 1970, by the machine's clock; the journal's time never decreases even if this does.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
