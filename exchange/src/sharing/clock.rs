//! Clocks of data sharing in working days: how long a provider has, by sharing class. Configuration with its source.
//!
//! Read by decisions; nothing to lose.

use ledger::{DocumentKind, Key, KeyedHash, Ledger};
use schemas::date::Date;
use schemas::sharing::{ClockStep, Running};
use schemas::workday::{Calendar, Due, between, due};
use serde::{Deserialize, Serialize};

use crate::gateway::parsed::Kept;

impl Kept for Calendar {
    const KIND: DocumentKind = DocumentKind::Calendar;
}

/// Working days within which the plans want shared data connected (3日对接率).
pub(crate) const CONNECTED_WITHIN_DAYS: u32 = 3;

/// All calendars that are in force.
pub(crate) fn calendars(ledger: &Ledger) -> Vec<Calendar> {
    let found = ledger.state().documents(DocumentKind::Calendar).into_iter();
    // The gateway wrote these bytes itself; a year that cannot be read is not known.
    found.filter_map(|(_, found)| serde_json::from_slice(&found.value).ok()).collect()
}

/// Working days from a day to another; none where the calendar of a year is missing.
pub(crate) fn working_days(from: Date, to: Date, calendars: &[Calendar]) -> Option<u32> {
    between(from, to, |year| calendars.iter().find(|calendar| calendar.year == year))
}

/// Key of a year's calendar.
pub(crate) fn calendar_key(keyed: &KeyedHash, year: i32) -> Key {
    keyed.key("calendar", &[&year.to_be_bytes()])
}

/// One clock. Example: an application for a resource of class 2 is answered within 3 working days.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Clock {
    /// The step.
    pub step: ClockStep,
    /// The sharing class, 1 to 3.
    pub class: u8,
    /// For how long.
    pub working_days: u16,
    /// Where that stands.
    pub source: String,
    /// From which day on applications get it.
    pub effective_from: Date,
}

/// The clocks in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Clocks(pub Vec<Clock>);

impl Default for Clocks {
    /// The stricter figure of the plans for both steps: connected within 3 working days. The counts of decree 809 are not at
    /// hand in a source, so they are the operator's to configure.
    fn default() -> Self {
        let clock = |step, class| Clock {
            step,
            class,
            working_days: 3,
            source: "实现共享数据3个工作日内完成对接".to_owned(),
            effective_from: Date::MIN,
        };
        let steps = [ClockStep::Answer, ClockStep::Provide];
        Self(steps.into_iter().flat_map(|step| [1, 2].map(|class| clock(step, class))).collect())
    }
}

impl Clocks {
    /// The clock of a step, for what begins on a day: the latest that is in effect.
    pub(crate) fn of(&self, step: ClockStep, class: u8, day: Date) -> Option<&Clock> {
        let fits = |clock: &&Clock| clock.step == step && clock.class == class && clock.effective_from <= day;
        self.0.iter().filter(fits).max_by_key(|clock| clock.effective_from)
    }
}

/// The clock of a step that starts now; `None` where none is configured.
pub(crate) fn start(
    clocks: &Clocks,
    step: ClockStep,
    class: u8,
    now_ms: u64,
    calendars: &[Calendar],
) -> Option<Running> {
    let clock = clocks.of(step, class, day_of(now_ms))?;
    let (working_days, source) = (clock.working_days, clock.source.clone());
    Some(Running {
        step,
        since_ms: now_ms,
        working_days,
        source,
        due: due_of(now_ms, working_days, calendars),
    })
}

/// The same by these calendars.
pub(crate) fn again(running: &Running, calendars: &[Calendar]) -> Running {
    Running { due: due_of(running.since_ms, running.working_days, calendars), ..running.clone() }
}

/// The day of a moment in China Standard Time.
pub(crate) fn day_of(ms: u64) -> Date {
    Date::at(i64::try_from(ms / 1_000).unwrap_or(i64::MAX))
}

fn due_of(since_ms: u64, working_days: u16, calendars: &[Calendar]) -> Due {
    due(day_of(since_ms), working_days, |year| calendars.iter().find(|calendar| calendar.year == year))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_in_effect_is_the_latest() {
        let mut clocks = Clocks::default();
        let later: Date = "2026-07-01".parse().expect("a day");
        let usual = clocks.of(ClockStep::Answer, 2, later).expect("a clock").clone();
        clocks.0.push(Clock { working_days: 10, effective_from: later, ..usual });
        let of = |day: &str| {
            let clock = clocks.of(ClockStep::Answer, 2, day.parse().expect("a day"));
            clock.map(|clock| clock.working_days)
        };
        assert_eq!((of("2026-06-30"), of("2026-07-01")), (Some(3), Some(10)));
        assert_eq!(clocks.of(ClockStep::Answer, 3, later), None);
    }

    #[test]
    fn a_clock_is_over_with_the_last_second_of_its_day() {
        let begun = schemas::date::parse_rfc3339("2026-11-27T09:00:00+08:00").expect("a moment");
        let running = start(&Clocks::default(), ClockStep::Answer, 2, begun, &Calendar::builtin());
        let running = running.expect("a clock");
        let at = |text| running.is_over(schemas::date::parse_rfc3339(text).expect("a moment"));
        assert!(!at("2026-12-02T23:59:59.999+08:00"));
        assert!(at("2026-12-03T00:00:00+08:00"));
        let unknown = again(&running, &[]);
        assert!(!unknown.is_over(u64::MAX), "nobody is late by a guess");
        assert_eq!(again(&unknown, &Calendar::builtin()), running);
    }
}
