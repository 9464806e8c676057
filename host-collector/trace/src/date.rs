//! When a run was recorded, as people tell the time.

use serde::{Deserialize, Serialize};
use vslice_core::units::HostNs;

/// `CLOCK_REALTIME` runs faster or slower than the clock of the records by one part of so many at most, unless
/// somebody sets it: adjtimex(2) slews it by 500 ppm, and adjtime(3) by as much again.
const SLEW_PARTS: u64 = 1_000;

/// What more two readings of it may differ by.
const READING_NS: u64 = 1_000_000;

/// The host's date at a moment of its clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DateSample {
    /// The moment, on the clock of all host records.
    pub host_ns: HostNs,
    /// `CLOCK_REALTIME` then: nanoseconds since 1970 began in UTC, without leap seconds.
    pub realtime_ns: u64,
}

/// Where a run's measured window lies on `CLOCK_REALTIME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunDates {
    start: DateSample,
    end: Option<DateSample>,
}

impl RunDates {
    /// By the readings when its window began and when it ended; `None` in older runs, which made none.
    #[must_use]
    pub fn of(readings: &[DateSample]) -> Option<RunDates> {
        let (start, later) = readings.split_first()?;
        let end = later.last().copied().filter(|end| end.host_ns > start.host_ns);
        Some(RunDates { start: *start, end })
    }

    /// When the window began, in nanoseconds since 1970.
    #[must_use]
    pub fn start_realtime_ns(&self) -> u64 {
        self.start.realtime_ns
    }

    /// When it ended, by the date that the host had at its beginning if that was set meanwhile; `None` if the
    /// collector was killed.
    #[must_use]
    pub fn end_realtime_ns(&self) -> Option<u64> {
        let end = self.end?;
        Some(match self.set_by_ns() {
            0 => end.realtime_ns,
            _ => self.start.realtime_ns.saturating_add(end.host_ns.since_ns(self.start.host_ns)),
        })
    }

    /// By how many nanoseconds somebody has set the date meanwhile, forward or back; 0 for what slewing explains.
    #[must_use]
    pub fn set_by_ns(&self) -> i64 {
        let Some(end) = self.end else { return 0 };
        let host_ns = end.host_ns.since_ns(self.start.host_ns);
        let difference =
            |one: u64, other: u64| i64::try_from(one.abs_diff(other)).unwrap_or(i64::MAX);
        let expected_ns = self.start.realtime_ns.saturating_add(host_ns);
        let apart_ns = difference(end.realtime_ns, expected_ns);
        if apart_ns.unsigned_abs() <= host_ns / SLEW_PARTS + READING_NS {
            return 0;
        }
        if end.realtime_ns < expected_ns { -apart_ns } else { apart_ns }
    }

    /// The moment at which the host had this date, in nanoseconds since the window began; 0 if it was earlier.
    #[must_use]
    pub fn in_run_ns(&self, realtime_ns: u64) -> u64 {
        let since_ns = realtime_ns.saturating_sub(self.start.realtime_ns);
        let slewed = |end: DateSample| {
            let host_ns = u128::from(end.host_ns.since_ns(self.start.host_ns));
            let date_ns = u128::from(end.realtime_ns.checked_sub(self.start.realtime_ns)?);
            u64::try_from((u128::from(since_ns) * host_ns).checked_div(date_ns)?).ok()
        };
        let end = self.end.filter(|_| self.set_by_ns() == 0);
        end.and_then(slewed).unwrap_or(since_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn dates(readings: &[(u64, u64)]) -> Option<RunDates> {
        let sample = |&(host_ns, realtime_ns)| DateSample { host_ns: HostNs(host_ns), realtime_ns };
        RunDates::of(&readings.iter().map(sample).collect::<Vec<_>>())
    }

    #[test]
    fn a_date_that_is_slewed_is_found_between_its_readings() {
        // 400 s by the host's clock are 400.2 s of its date.
        let run = dates(&[(50 * S, 1_000 * S), (450 * S, 1_400 * S + S / 5)]).unwrap();
        assert_eq!(run.set_by_ns(), 0);
        assert_eq!(run.in_run_ns(1_000 * S), 0);
        assert_eq!(run.in_run_ns(1_200 * S + S / 10), 200 * S);
        assert_eq!(run.in_run_ns(900 * S), 0, "before it");
        assert_eq!(run.end_realtime_ns(), Some(1_400 * S + S / 5));
    }

    #[test]
    fn a_date_that_is_set_is_told_and_the_first_one_goes_on() {
        for (end, set_by_s) in [(5_000, 3_600), (400, -1_000)] {
            let run = dates(&[(50 * S, 1_000 * S), (450 * S, end * S)]).unwrap();
            assert_eq!(run.set_by_ns(), set_by_s * 1_000_000_000);
            assert_eq!(run.in_run_ns(1_100 * S), 100 * S);
            assert_eq!(run.end_realtime_ns(), Some(1_400 * S));
        }
    }

    #[test]
    fn a_killed_run_has_no_end_and_an_older_one_no_dates() {
        let run = dates(&[(50 * S, 1_000 * S)]).unwrap();
        assert_eq!((run.start_realtime_ns(), run.end_realtime_ns()), (1_000 * S, None));
        assert_eq!((run.set_by_ns(), run.in_run_ns(1_007 * S)), (0, 7 * S));
        assert_eq!(dates(&[]), None);
    }

    #[test]
    fn readings_of_anybody_are_read() {
        let run = dates(&[(u64::MAX, u64::MAX), (0, 0)]).unwrap();
        assert_eq!((run.end_realtime_ns(), run.in_run_ns(0)), (None, 0));
        let run = dates(&[(0, u64::MAX), (u64::MAX, 0)]).unwrap();
        assert_eq!(run.end_realtime_ns(), Some(u64::MAX));
        assert!(run.set_by_ns() < 0);
        let run = dates(&[(0, 0), (1, 0)]).unwrap();
        assert_eq!((run.set_by_ns(), run.in_run_ns(u64::MAX)), (0, u64::MAX));
    }
}
