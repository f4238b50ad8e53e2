//! Civil dates in China Standard Time and RFC 3339 times.
//!
//! A license's dates are days of the Chinese calendar day, UTC+8 without daylight saving; what the journal and
//! the answers carry are milliseconds since 1970 in UTC. Both are computed here, without a clock.
//!
//! Pure functions; nothing to lose.

use std::fmt;
use std::str::FromStr;

use crate::identifier::serde_as_string;

/// Seconds by which China Standard Time is ahead of UTC.
const CST_OFFSET_SECONDS: i64 = 8 * 3600;
const SECONDS_PER_DAY: i64 = 86_400;
const MS_PER_DAY: u64 = 86_400_000;

/// A civil date from 1900-01-01 to 9999-12-31, written `YYYY-MM-DD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Date {
    days: i32,
}

/// Why a text is no [`Date`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DateError {
    /// Not of the form `YYYY-MM-DD` in ASCII digits.
    #[error("a date is written YYYY-MM-DD")]
    Format,
    /// The month or the day does not exist in that year.
    #[error("there is no such day in the calendar")]
    NoSuchDay,
    /// Before 1900-01-01.
    #[error("a date lies between 1900-01-01 and 9999-12-31")]
    OutOfRange,
}

impl Date {
    /// 1900-01-01.
    pub const MIN: Self = Self { days: -25_567 };
    /// 9999-12-31.
    pub const MAX: Self = Self { days: 2_932_896 };

    /// Days since 1970-01-01.
    pub const fn days(self) -> i32 {
        self.days
    }

    /// The date that lies `days` after 1970-01-01, or `None` outside the range. The journal's mark for "no end"
    /// (2147483647) is outside.
    pub fn from_days(days: i32) -> Option<Self> {
        (Self::MIN.days..=Self::MAX.days).contains(&days).then_some(Self { days })
    }

    /// The date of a year, a month (1–12) and a day (1–31), or `None` if the calendar has no such day or it is
    /// outside the range.
    pub fn from_civil(year: i32, month: u8, day: u8) -> Option<Self> {
        // The year bound comes first: the arithmetic below is for years of four digits.
        if !(1900..=9999).contains(&year) || !is_day(year, month, day) {
            return None;
        }
        Self::from_days(days_from_civil(year, month, day))
    }

    /// Year, month (1–12) and day (1–31).
    pub fn civil(self) -> (i32, u8, u8) {
        civil_from_days(self.days)
    }

    /// The day on which a moment (seconds since 1970 UTC) falls in China Standard Time. A moment outside the
    /// range of dates gives the nearest date.
    pub fn at(unix_seconds: i64) -> Self {
        let days = unix_seconds.saturating_add(CST_OFFSET_SECONDS).div_euclid(SECONDS_PER_DAY);
        let days = days.clamp(i64::from(Self::MIN.days), i64::from(Self::MAX.days));
        Self { days: i32::try_from(days).expect("clamped to the range of dates") }
    }

    /// First second of the day in China Standard Time, seconds since 1970 UTC.
    pub fn first_second(self) -> i64 {
        i64::from(self.days) * SECONDS_PER_DAY - CST_OFFSET_SECONDS
    }

    /// Last second of the day in China Standard Time, seconds since 1970 UTC: what is valid "until" this date is
    /// valid through it.
    pub fn last_second(self) -> i64 {
        self.first_second() + SECONDS_PER_DAY - 1
    }
}

impl FromStr for Date {
    type Err = DateError;

    fn from_str(text: &str) -> Result<Self, DateError> {
        let (year, month, day) = read_civil(text.as_bytes()).ok_or(DateError::Format)?;
        if !is_day(year, month, day) {
            return Err(DateError::NoSuchDay);
        }
        Self::from_civil(year, month, day).ok_or(DateError::OutOfRange)
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.civil();
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

serde_as_string!(Date);

/// A moment (milliseconds since 1970) as RFC 3339 in UTC with milliseconds and `Z`. A moment past the year 9999
/// gives the last millisecond of that year, because RFC 3339 has no longer years.
pub fn rfc3339(ms: u64) -> String {
    let last = MS_PER_DAY * (u64::from(Date::MAX.days.unsigned_abs()) + 1) - 1;
    let ms = ms.min(last);
    let days = i32::try_from(ms / MS_PER_DAY).expect("bounded by the year 9999");
    let (year, month, day) = civil_from_days(days);
    let in_day = ms % MS_PER_DAY;
    let (hour, minute) = (in_day / 3_600_000, in_day / 60_000 % 60);
    let (second, milli) = (in_day / 1000 % 60, in_day % 1000);
    // Almost every answer holds one: a format string costs ten times as much.
    let mut text = *b"0000-00-00T00:00:00.000Z";
    let mut put = |digits: std::ops::Range<usize>, mut number: u64| {
        for digit in text[digits].iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
    };
    put(0..4, u64::from(year.unsigned_abs()));
    put(5..7, month.into());
    put(8..10, day.into());
    put(11..13, hour);
    put(14..16, minute);
    put(17..19, second);
    put(20..23, milli);
    std::str::from_utf8(&text).expect("digits and signs of ASCII").to_owned()
}

/// Milliseconds since 1970 of an RFC 3339 time: capital `T` and `Z`, `Z` or an offset `±HH:MM`, at most nine
/// digits of a second's fraction, of which those behind the third are cut off. `None` for anything else, for
/// moments before 1970 and for leap seconds, which unix time does not have.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let (date, rest) = text.as_bytes().split_at_checked(10)?;
    let (year, month, day) = read_civil(date)?;
    let date = Date::from_civil(year, month, day)?;
    let (time, rest) = rest.split_at_checked(9)?;
    let [b'T', h1, h2, b':', m1, m2, b':', s1, s2] = *time else { return None };
    let (hour, minute, second) = (two(h1, h2)?, two(m1, m2)?, two(s1, s2)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (milli, zone) = read_fraction(rest)?;
    let offset = match *zone {
        [b'Z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (two(h1, h2)?, two(m1, m2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = i64::from(hours) * 3600 + i64::from(minutes) * 60;
            if sign == b'+' { seconds } else { -seconds }
        }
        _ => return None,
    };
    let second = i64::from(date.days()) * SECONDS_PER_DAY
        + i64::from(hour) * 3600
        + i64::from(minute) * 60
        + i64::from(second)
        - offset;
    u64::try_from(second).ok()?.checked_mul(1000)?.checked_add(milli)
}

/// Reads `.` and 1 to 9 digits, if they are there; the milliseconds and what follows.
fn read_fraction(rest: &[u8]) -> Option<(u64, &[u8])> {
    let Some((b'.', digits)) = rest.split_first() else { return Some((0, rest)) };
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=9).contains(&count) {
        return None;
    }
    let (digits, zone) = digits.split_at(count);
    let milli = digits.iter().chain(b"00").take(3).fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    Some((milli, zone))
}

/// The numbers of a `YYYY-MM-DD`, not yet compared with the calendar.
fn read_civil(text: &[u8]) -> Option<(i32, u8, u8)> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = *text else { return None };
    let year = i32::from(two(y1, y2)?) * 100 + i32::from(two(y3, y4)?);
    Some((year, two(m1, m2)?, two(d1, d2)?))
}

fn two(tens: u8, ones: u8) -> Option<u8> {
    (tens.is_ascii_digit() && ones.is_ascii_digit()).then(|| (tens - b'0') * 10 + (ones - b'0'))
}

/// Whether the Gregorian calendar has this day.
pub(crate) fn is_day(year: i32, month: u8, day: u8) -> bool {
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => return false,
    };
    (1..=length).contains(&day)
}

/// Days since 1970-01-01, counted in eras of 400 years that begin on 1 March, so that the leap day is the last of
/// its year (H. Hinnant, "chrono-compatible low-level date algorithms").
fn days_from_civil(year: i32, month: u8, day: u8) -> i32 {
    let (month, day) = (i32::from(month), i32::from(day));
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i32) -> (i32, u8, u8) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i32::from(month <= 2);
    let small = |number: i32| u8::try_from(number).expect("a month or a day of a month");
    (year, small(month), small(day))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn date(text: &str) -> Date {
        text.parse().unwrap()
    }

    #[test]
    fn prints_what_it_parsed() {
        for text in ["1900-01-01", "1969-12-31", "1970-01-01", "2000-02-29", "2024-02-29", "9999-12-31"] {
            assert_eq!(date(text).to_string(), text);
        }
        assert_eq!((date("1900-01-01"), date("9999-12-31")), (Date::MIN, Date::MAX));
        assert_eq!(date("1970-01-01").days(), 0);
    }

    #[test]
    fn refuses_other_spellings() {
        let bad = [
            "",
            "2024",
            "2024-1-01",
            "2024-01-1",
            "20240101",
            "2024/01/01",
            " 2024-01-01",
            "2024-01-01 ",
            "+024-01-01",
            "-024-01-01",
            "２024-01-01",
            "2024-01-01T",
            "02024-01-01",
            "2024-0a-01",
        ];
        for text in bad {
            assert_eq!(text.parse::<Date>(), Err(DateError::Format), "{text}");
        }
        for text in ["2023-02-29", "1900-02-29", "2024-13-01", "2024-00-01", "2024-04-31", "2024-01-00"] {
            assert_eq!(text.parse::<Date>(), Err(DateError::NoSuchDay), "{text}");
        }
        for text in ["1899-12-31", "0000-01-01"] {
            assert_eq!(text.parse::<Date>(), Err(DateError::OutOfRange), "{text}");
        }
    }

    #[test]
    fn days_outside_the_range_are_no_date() {
        for days in [i32::MIN, Date::MIN.days() - 1, Date::MAX.days() + 1, i32::MAX] {
            assert_eq!(Date::from_days(days), None);
        }
        assert_eq!(Date::from_civil(i32::MAX, 1, 1), None);
        assert_eq!(Date::from_civil(10_000, 1, 1), None);
    }

    #[test]
    fn a_day_ends_at_midnight_in_china() {
        let day = date("2026-11-21");
        assert_eq!(rfc3339(u64::try_from(day.first_second()).unwrap() * 1000), "2026-11-20T16:00:00.000Z");
        assert_eq!(rfc3339(u64::try_from(day.last_second()).unwrap() * 1000), "2026-11-21T15:59:59.000Z");
        assert_eq!(Date::at(day.first_second() - 1), date("2026-11-20"));
        assert_eq!(Date::at(day.first_second()), day);
        assert_eq!(Date::at(day.last_second()), day);
        assert_eq!(Date::at(day.last_second() + 1), date("2026-11-22"));
        assert_eq!((Date::at(i64::MIN), Date::at(i64::MAX)), (Date::MIN, Date::MAX));
    }

    #[test]
    fn is_a_string_in_json() {
        assert_eq!(serde_json::to_string(&date("2024-02-29")).unwrap(), "\"2024-02-29\"");
        assert_eq!(serde_json::from_str::<Date>("\"2024-02-29\"").unwrap(), date("2024-02-29"));
        for json in ["\"2023-02-29\"", "20240229", "null"] {
            assert!(serde_json::from_str::<Date>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn rfc3339_vectors() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_790_000_000_123), "2026-09-21T14:13:20.123Z");
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59.999Z");
        assert_eq!(parse_rfc3339("1970-01-01T08:00:00+08:00"), Some(0));
        assert_eq!(parse_rfc3339("1969-12-31T23:30:00-00:30"), Some(0));
        assert_eq!(parse_rfc3339("2026-09-21T14:13:20.1239Z"), Some(1_790_000_000_123));
        assert_eq!(parse_rfc3339("2026-09-21T14:13:20.1Z"), Some(1_790_000_000_100));
        assert_eq!(parse_rfc3339("2026-09-21T14:13:20.000000009Z"), Some(1_790_000_000_000));
    }

    #[test]
    fn refuses_other_times() {
        let bad = [
            "",
            "2026-09-21",
            "2026-09-21T14:13:20",
            "2026-09-21 14:13:20Z",
            "2026-09-21T14:13:20z",
            "2026-09-21t14:13:20Z",
            "2026-09-21T24:00:00Z",
            "2026-09-21T14:60:00Z",
            "2026-09-21T14:13:60Z",
            "2026-09-21T14:13:20.Z",
            "2026-09-21T14:13:20.1234567890Z",
            "2026-09-21T14:13:20+0800",
            "2026-09-21T14:13:20+24:00",
            "2026-09-21T14:13:20+08:60",
            "2026-09-21T14:13:20ZZ",
            "2026-02-30T14:13:20Z",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+00:01",
            "2026-09-2１T14:13:20Z",
            "1899-12-31T00:00:00Z",
        ];
        for text in bad {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_an_independent_calendar(days in Date::MIN.days()..=Date::MAX.days()) {
            let date = Date::from_days(days).unwrap();
            let epoch = jiff::civil::date(1970, 1, 1);
            let theirs = epoch.checked_add(jiff::Span::new().days(i64::from(days))).unwrap();
            prop_assert_eq!(date.to_string(), theirs.to_string());
            prop_assert_eq!(date.to_string().parse(), Ok(date));
            prop_assert_eq!(Date::at(date.first_second()), date);
        }

        #[test]
        fn times_read_back(ms in 0..=253_402_300_799_999_u64) {
            prop_assert_eq!(parse_rfc3339(&rfc3339(ms)), Some(ms));
            let theirs = jiff::Timestamp::from_millisecond(i64::try_from(ms).unwrap());
            if let Ok(theirs) = theirs {
                prop_assert_eq!(rfc3339(ms), format!("{theirs:.3}"));
            }
        }

        #[test]
        fn never_panics(text in "\\PC{0,40}", digits in "[0-9TZ:.+-]{0,40}") {
            let _ = (text.parse::<Date>(), parse_rfc3339(&text), digits.parse::<Date>(), parse_rfc3339(&digits));
        }
    }
}
