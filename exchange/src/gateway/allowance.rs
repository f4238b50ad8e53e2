//! The allowances of a caller: its limits and quotas with what is left of each, as headers of an answer say them.
//!
//! The path notes allowances while it decides, and reads their counters once the entry is durable. They are memory.

use std::fmt::Write as _;

use ledger::Key;
use schemas::codes::Code;
use schemas::date::Date;

const DAY_SECONDS: u64 = 86_400;

/// A counter with its limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    /// Its name in the headers.
    name: &'static str,
    limit: u32,
    /// Length of its window, seconds.
    window: u64,
    /// The end of the window, ms since 1970.
    ends_ms: u64,
    key: Key,
    day: u32,
}

impl Allowance {
    /// One of a day in China Standard Time.
    pub(crate) fn of_day(name: &'static str, limit: u32, key: Key, day: u32) -> Self {
        let day_of = i32::try_from(day).ok().and_then(Date::from_days);
        let last = day_of.and_then(|day| u64::try_from(day.last_second()).ok()).unwrap_or(0);
        Self {
            name,
            limit,
            window: DAY_SECONDS,
            ends_ms: last.saturating_add(1).saturating_mul(1_000),
            key,
            day,
        }
    }

    /// One of a period of so many seconds, which ends at a moment, ms since 1970.
    pub(crate) fn of_period(
        name: &'static str,
        limit: u32,
        seconds: u32,
        ends_ms: u64,
        key: Key,
        day: u32,
    ) -> Self {
        Self { name, limit, window: seconds.into(), ends_ms, key, day }
    }

    fn seconds_left(&self, now_ms: u64) -> u64 {
        self.ends_ms.saturating_sub(now_ms).div_ceil(1_000)
    }
}

/// The words of the headers (structured fields of draft-ietf-httpapi-ratelimit-headers).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// `RateLimit-Policy`; empty for none.
    pub policy: String,
    /// `RateLimit`; empty for none.
    pub limit: String,
    /// `Retry-After`, seconds.
    pub retry_after: Option<u64>,
}

/// The headers of an answer with a code; `None` for a caller without limits.
pub(super) fn left(
    allowances: &[Allowance],
    code: Code,
    now_ms: impl FnOnce() -> u64,
    used: impl Fn(&Key, u32) -> u32,
) -> Option<Box<Left>> {
    let spends = matches!(code, Code::QuotaSpent | Code::RateExceeded);
    if allowances.is_empty() && !spends {
        return None;
    }
    let now_ms = now_ms();
    let mut left = Left::default();
    for allowance in allowances {
        let Allowance { name, limit, window, .. } = allowance;
        let rest = limit.saturating_sub(used(&allowance.key, allowance.day));
        let comma = if left.policy.is_empty() { "" } else { ", " };
        // Writing to a text never fails.
        let _ = write!(left.policy, "{comma}\"{name}\";q={limit};w={window}");
        let _ = write!(left.limit, "{comma}\"{name}\";r={rest};t={}", allowance.seconds_left(now_ms));
    }
    left.retry_after = match code {
        Code::QuotaSpent => {
            let now = i64::try_from(now_ms / 1_000).unwrap_or(i64::MAX);
            u64::try_from(Date::at(now).last_second().saturating_add(1).saturating_sub(now)).ok()
        }
        Code::RateExceeded => {
            let periods = allowances.iter().filter(|allowance| allowance.window < DAY_SECONDS);
            periods.map(|allowance| allowance.seconds_left(now_ms)).max()
        }
        _ => None,
    };
    left.retry_after = left.retry_after.map(|seconds| seconds.max(1));
    Some(Box::new(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2027-01-15, 16:00:00 in China Standard Time.
    const NOW_MS: u64 = 1_800_000_000_000;

    #[test]
    fn what_is_left_is_said_of_each_allowance() {
        let day = u32::try_from(Date::at(1_800_000_000).days()).expect("a day");
        let all = [
            Allowance::of_day("quota", 10, [1; 16], day),
            Allowance::of_period("rate", 3, 60, NOW_MS + 20_500, [2; 16], day),
        ];
        let used = |key: &Key, _| if *key == [1; 16] { 4 } else { 3 };
        let told = left(&all, Code::Ok, || NOW_MS, used).expect("limits");
        assert_eq!(told.policy, r#""quota";q=10;w=86400, "rate";q=3;w=60"#);
        assert_eq!(told.limit, r#""quota";r=6;t=28800, "rate";r=0;t=21"#);
        assert_eq!(told.retry_after, None);
        assert_eq!(left(&all, Code::RateExceeded, || NOW_MS, used).expect("limits").retry_after, Some(21));
        assert_eq!(left(&[], Code::QuotaSpent, || NOW_MS, used).expect("spent").retry_after, Some(28_800));
        assert_eq!(left(&[], Code::Ok, || NOW_MS, used), None);
    }
}
