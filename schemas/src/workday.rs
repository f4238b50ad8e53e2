//! Working days (工作日) in China: a calendar of holidays (法定节假日) and make-up days (调休) for each year, and clocks that count
//! them.
//!
//! A calendar is data with the notice that it is taken from. No day of a year without a calendar is guessed. Pure functions;
//! nothing to lose.

use serde::{Deserialize, Serialize};

use crate::date::Date;

/// First year whose notices follow the decision on holidays of 2024 (国务院令第795号).
const FIRST_YEAR: i32 = 2025;
/// Working days that the holidays of a year take away, once make-up days are taken off: the statutory holidays.
const STATUTORY_DAYS: usize = 13;
/// Most days of either list.
const MAX_DAYS: usize = 60;
/// Most characters of a notice number or a source.
const MAX_TEXT_CHARS: usize = 100;
/// Most days that a clock looks ahead, so that no clock runs for ever.
const MAX_AHEAD: i32 = 3_660;

/// The days of one year that are not what their weekday says. Example: 2026-01-04 is a Sunday on which people work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Calendar {
    /// The year.
    pub year: i32,
    /// Number of the notice. Example: `国办发明电〔2025〕7号`.
    pub notice: String,
    /// Day of the notice.
    pub published: String,
    /// Its title or address.
    pub source: String,
    /// Days off.
    pub off: Vec<String>,
    /// Saturdays and Sundays on which people work.
    pub work: Vec<String>,
}

/// Why a document is no calendar.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CalendarError {
    /// Before the rules that it is checked by.
    #[error("a calendar is of a year from {FIRST_YEAR} on")]
    Year,
    /// No notice number, or not of the form of one.
    #[error("a notice number has the form 国办发明电〔YYYY〕N号, of the year or the one before")]
    Notice,
    /// The notice is not of the year or the one before.
    #[error("the notice is published in the year or the one before")]
    Published,
    /// No source.
    #[error("a source has 1 to {MAX_TEXT_CHARS} characters")]
    Source,
    /// A day that is none, is of another year, stands twice or out of order.
    #[error("the days of {list} are at most {MAX_DAYS} different days of the year, in order")]
    Days {
        /// `off` or `work`.
        list: &'static str,
    },
    /// A make-up day that is not a Saturday or Sunday, or a day off too.
    #[error("people are made to work on Saturdays and Sundays only, and not on days off")]
    Work,
    /// Make-up days are missing, or holidays.
    #[error("the days off take {found} working days beside the make-up days, and the law {STATUTORY_DAYS}")]
    Balance {
        /// Working days taken, make-up days taken off.
        found: i64,
    },
}

impl CalendarError {
    /// JSON pointer of the member that is wrong.
    pub const fn pointer(&self) -> &'static str {
        match self {
            Self::Year => "/year",
            Self::Notice => "/notice",
            Self::Published => "/published",
            Self::Source => "/source",
            Self::Days { list } => match list.as_bytes() {
                b"off" => "/off",
                _ => "/work",
            },
            Self::Work | Self::Balance { .. } => "/work",
        }
    }
}

impl Calendar {
    /// The calendars that are built in: those of 2025 and 2026.
    pub fn builtin() -> Vec<Self> {
        [include_str!("../calendars/2025.json"), include_str!("../calendars/2026.json")]
            .iter()
            .map(|json| serde_json::from_str(json).expect("the built-in calendars are read by a test"))
            .collect()
    }

    /// Checks all that can be known of a year's notice without it: its number, the days, and that holidays and make-up days
    /// balance as the law says.
    ///
    /// # Errors
    /// The first fault.
    pub fn check(&self) -> Result<(), CalendarError> {
        if !(FIRST_YEAR..=9_998).contains(&self.year) {
            return Err(CalendarError::Year);
        }
        if !notice_year(&self.notice).is_some_and(|year| year == self.year || year + 1 == self.year) {
            return Err(CalendarError::Notice);
        }
        let published = self.published.parse::<Date>().map(|day| day.civil().0);
        if !published.is_ok_and(|year| year == self.year || year + 1 == self.year) {
            return Err(CalendarError::Published);
        }
        if crate::text::read(&self.source, MAX_TEXT_CHARS).is_err() {
            return Err(CalendarError::Source);
        }
        let off = self.days("off", &self.off)?;
        let work = self.days("work", &self.work)?;
        if work.iter().any(|day| !is_weekend(*day) || off.contains(day)) {
            return Err(CalendarError::Work);
        }
        let taken = off.iter().filter(|day| !is_weekend(**day)).count();
        if taken != STATUTORY_DAYS + work.len() {
            let count = |days: usize| i64::try_from(days).unwrap_or(i64::MAX);
            return Err(CalendarError::Balance { found: count(taken) - count(work.len()) });
        }
        Ok(())
    }

    fn days(&self, list: &'static str, days: &[String]) -> Result<Vec<Date>, CalendarError> {
        let wrong = CalendarError::Days { list };
        let read = days.iter().map(|day| day.parse::<Date>().map_err(|_| wrong.clone()));
        let read = read.collect::<Result<Vec<_>, _>>()?;
        let of_the_year = read.iter().all(|day| day.civil().0 == self.year);
        if read.len() > MAX_DAYS || !of_the_year || !read.is_sorted_by(|before, after| before < after) {
            return Err(wrong);
        }
        Ok(read)
    }

    /// Whether people work on a day of the year.
    fn is_working(&self, day: Date) -> bool {
        let named = |days: &[String]| days.iter().any(|named| *named == day.to_string());
        if is_weekend(day) { named(&self.work) } else { !named(&self.off) }
    }
}

/// The year in a notice number such as `国办发明电〔2025〕7号`.
fn notice_year(notice: &str) -> Option<i32> {
    let (year, number) = notice.strip_prefix("国办发明电〔")?.split_once('〕')?;
    let number = number.strip_suffix('号')?;
    let is_number =
        |text: &str, most| (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    (year.len() == 4 && is_number(year, 4) && is_number(number, 4) && !number.starts_with('0'))
        .then(|| year.parse().ok())?
}

/// 1970-01-01 was a Thursday.
fn is_weekend(day: Date) -> bool {
    matches!((day.days() + 4).rem_euclid(7), 0 | 6)
}

/// When a clock of working days ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "determinable")]
pub enum Due {
    /// With the last second of this day, China Standard Time.
    #[serde(rename = "yes")]
    On {
        /// The day.
        day: Date,
    },
    /// It cannot be known yet: the calendar of a year is missing.
    #[serde(rename = "no")]
    Undeterminable {
        /// Working days that are known to be counted.
        counted: u16,
        /// Last day that is known.
        through: Date,
    },
}

impl Due {
    /// The last moment, ms since 1970, if it is known.
    pub fn last_ms(&self) -> Option<u64> {
        match self {
            Self::On { day } => u64::try_from(day.last_second()).ok().map(|second| second * 1_000 + 999),
            Self::Undeterminable { .. } => None,
        }
    }
}

fn next(day: Date) -> Option<Date> {
    Date::from_days(day.days() + 1)
}

/// The end of a clock that starts on a day and runs for so many working days: the day itself does not count. A clock of no days
/// ends with its day.
pub fn due<'c>(start: Date, working_days: u16, calendar: impl Fn(i32) -> Option<&'c Calendar>) -> Due {
    let (mut day, mut counted) = (start, 0);
    for _ in 0..MAX_AHEAD {
        if counted == working_days {
            return Due::On { day };
        }
        let Some(tomorrow) = next(day) else { break };
        let Some(year) = calendar(tomorrow.civil().0) else { break };
        counted += u16::from(year.is_working(tomorrow));
        day = tomorrow;
    }
    Due::Undeterminable { counted, through: day }
}

/// Working days from the day behind `start` to `end`; `None` when the calendar of a year is missing. For 3 and 2 January 2026: 0.
pub fn between<'c>(start: Date, end: Date, calendar: impl Fn(i32) -> Option<&'c Calendar>) -> Option<u32> {
    let (mut day, mut counted) = (start, 0);
    while day < end {
        day = next(day)?;
        counted += u32::from(calendar(day.civil().0)?.is_working(day));
    }
    Some(counted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> Date {
        text.parse().expect("a day")
    }

    fn of<'c>(calendars: &'c [Calendar]) -> impl Fn(i32) -> Option<&'c Calendar> {
        |year| calendars.iter().find(|calendar| calendar.year == year)
    }

    #[test]
    fn the_built_in_calendars_are_whole() {
        for calendar in Calendar::builtin() {
            assert_eq!(calendar.check(), Ok(()), "{}", calendar.year);
        }
    }

    /// Counted by hand on the notices.
    #[test]
    fn clocks_count_make_up_days_and_no_holidays() {
        let calendars = Calendar::builtin();
        let on = |start: &str, days| match due(day(start), days, of(&calendars)) {
            Due::On { day } => day.to_string(),
            due @ Due::Undeterminable { .. } => format!("{due:?}"),
        };
        // A usual week, over a weekend.
        assert_eq!(on("2026-11-27", 3), "2026-12-02");
        // New Year: off to the 3rd, work on Sunday the 4th.
        assert_eq!(on("2025-12-31", 1), "2026-01-04");
        // Spring Festival: off 15 to 23 February, work on Saturday the 14th and the 28th.
        assert_eq!(on("2026-02-13", 1), "2026-02-14");
        assert_eq!(on("2026-02-13", 2), "2026-02-24");
        assert_eq!(on("2026-02-24", 4), "2026-02-28");
        // National Day: off to the 7th, work on Saturday the 10th.
        assert_eq!(on("2026-09-30", 3), "2026-10-10");
        assert_eq!(on("2025-09-30", 3), "2025-10-11");
        assert_eq!(on("2026-05-08", 0), "2026-05-08");
        assert_eq!(between(day("2026-02-13"), day("2026-02-24"), of(&calendars)), Some(2));
    }

    #[test]
    fn a_clock_into_a_year_without_a_notice_says_what_is_known() {
        let calendars = Calendar::builtin();
        let through = day("2026-12-31");
        assert_eq!(due(day("2026-12-30"), 3, of(&calendars)), Due::Undeterminable { counted: 1, through });
        assert_eq!(due(day("2026-12-28"), 3, of(&calendars)), Due::On { day: through });
        assert_eq!(due(day("2026-12-30"), 3, of(&calendars)).last_ms(), None);
        assert_eq!(between(day("2026-12-30"), day("2027-01-04"), of(&calendars)), None);
    }

    #[test]
    fn a_calendar_that_no_notice_says_is_refused() {
        let good = Calendar::builtin().remove(1);
        let with = |change: &dyn Fn(&mut Calendar)| {
            let mut calendar = good.clone();
            change(&mut calendar);
            calendar.check().expect_err("refused")
        };
        for notice in ["", "国办发明电〔2025〕号", "国办发明电〔2023〕7号", "国办发明电〔2025〕07号", "7"]
        {
            assert_eq!(with(&|calendar| calendar.notice = notice.to_owned()), CalendarError::Notice);
        }
        // Dates by rule, without make-up days: what a package of holidays gives for a year without a notice.
        assert_eq!(with(&|calendar| calendar.work.clear()), CalendarError::Balance { found: 19 });
        assert_eq!(with(&|calendar| calendar.off.truncate(3)), CalendarError::Balance { found: -4 });
        assert_eq!(with(&|calendar| calendar.year = 2027), CalendarError::Notice);
        assert_eq!(
            with(&|calendar| calendar.off[0] = "2025-12-31".to_owned()),
            CalendarError::Days { list: "off" }
        );
        assert_eq!(with(&|calendar| calendar.off.swap(0, 1)), CalendarError::Days { list: "off" });
        assert_eq!(with(&|calendar| calendar.work[0] = "2026-01-05".to_owned()), CalendarError::Work);
        assert_eq!(with(&|calendar| calendar.source.clear()), CalendarError::Source);
        assert_eq!(with(&|calendar| calendar.published = "2024-11-04".to_owned()), CalendarError::Published);
    }
}
