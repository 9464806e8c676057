//! Days of the proleptic Gregorian calendar. A time zone is given by whoever knows one, as an offset.

use std::fmt;

/// Seconds of a day; of leap seconds `CLOCK_REALTIME` knows nothing.
pub const DAY_S: i64 = 86_400;

/// A day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day {
    year: i64,
    month: u8,
    day: u8,
}

impl Day {
    /// Such a day; `None` if the calendar has none.
    #[must_use]
    pub fn new(year: u16, month: u8, day: u8) -> Option<Day> {
        let wanted = Day { year: year.into(), month, day };
        let may_be = (1..=12).contains(&month) && (1..=31).contains(&day);
        (may_be && Day::of_number(wanted.number()) == wanted).then_some(wanted)
    }

    /// The day that is so many days after 1970-01-01.
    #[must_use]
    pub fn of_number(number: i64) -> Day {
        // Eras of 400 years of which each year begins in March, so that the leap day is a year's last.
        let shifted = number.saturating_add(719_468);
        let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let month_index = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month_index + 2) / 5 + 1;
        let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
        let small = |number: i64| u8::try_from(number).unwrap_or(u8::MAX);
        Day { year: year + era * 400 + i64::from(month <= 2), month: small(month), day: small(day) }
    }

    /// How many days after 1970-01-01 it is.
    #[must_use]
    pub fn number(self) -> i64 {
        let year = self.year - i64::from(self.month <= 2);
        let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let month_index = (i64::from(self.month) + 9) % 12;
        let of_year = (153 * month_index + 2) / 5 + i64::from(self.day) - 1;
        era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
    }
}

/// `2026-11-30`.
impl fmt::Display for Day {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

/// A second of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DayTime {
    /// The day.
    pub day: Day,
    /// The second of it, in 0..86,400.
    pub second: u32,
}

impl DayTime {
    /// The time that a clock shows where it is `offset_s` ahead of UTC, so many seconds after 1970 began in UTC.
    #[must_use]
    pub fn of_unix_s(seconds: i64, offset_s: i64) -> DayTime {
        let local = seconds.saturating_add(offset_s);
        let second = u32::try_from(local.rem_euclid(DAY_S)).unwrap_or(0);
        DayTime { day: Day::of_number(local.div_euclid(DAY_S)), second }
    }

    /// When a clock shows it that is so far ahead of UTC, in seconds since 1970 began in UTC.
    #[must_use]
    pub fn unix_s(self, offset_s: i64) -> i64 {
        self.day.number() * DAY_S + i64::from(self.second) - offset_s
    }

    /// `03:12:05`.
    #[must_use]
    pub fn clock(self) -> String {
        let Self { second, .. } = self;
        format!("{:02}:{:02}:{:02}", second / 3_600, second / 60 % 60, second % 60)
    }
}

/// `2026-11-30 03:12:05`.
impl fmt::Display for DayTime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.day, self.clock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_moments_are_those_of_date_1() {
        for (seconds, offset_s, text) in [
            (0, 0, "1970-01-01 00:00:00"),
            (951_782_400, 0, "2000-02-29 00:00:00"),
            (1_709_164_799, 0, "2024-02-28 23:59:59"),
            (1_709_164_800, 0, "2024-02-29 00:00:00"),
            (1_795_471_866, 0, "2026-11-23 22:11:06"),
            (1_795_471_866, 7_200, "2026-11-24 00:11:06"),
            (-1, 0, "1969-12-31 23:59:59"),
        ] {
            let time = DayTime::of_unix_s(seconds, offset_s);
            assert_eq!(time.to_string(), text);
            assert_eq!(time.unix_s(offset_s), seconds);
        }
    }

    #[test]
    fn days_that_the_calendar_has_not_are_none() {
        for (year, month, day) in
            [(2026, 2, 29), (2026, 4, 31), (2026, 13, 1), (2026, 0, 1), (2026, 1, 0)]
        {
            assert_eq!(Day::new(year, month, day), None, "{year}-{month}-{day}");
        }
        assert!(Day::new(2024, 2, 29).is_some() && Day::new(1900, 2, 29).is_none());
    }

    proptest! {
        #[test]
        fn a_day_comes_after_the_one_before_it(number in -800_000_i64..3_000_000) {
            let (day, next) = (Day::of_number(number), Day::of_number(number + 1));
            prop_assert_eq!(day.number(), number);
            prop_assert!(day < next);
        }
    }
}
