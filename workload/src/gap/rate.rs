//! Ticks of a [`Clock`] to nanoseconds.

use crate::clock::Clock;

/// Brackets of which the narrowest is taken: one of them is disturbed by nothing.
const TRIES: u32 = 16;

/// One moment on a clock and on `CLOCK_MONOTONIC_RAW`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TickSample {
    /// The clock's reading.
    pub ticks: u64,
    /// The raw clock's, in nanoseconds.
    pub raw_ns: u64,
}

impl TickSample {
    /// Now, on both. The raw clock may be slow to read (an exit under TCG), so it is bracketed by
    /// two readings of `clock`, and the middle of the narrowest bracket is the moment.
    #[must_use]
    pub fn take(clock: Clock) -> TickSample {
        let bracketed = (0..TRIES).map(|_| {
            let before = clock.now();
            let raw_ns = Clock::MonotonicRaw.now();
            let width = clock.now().saturating_sub(before);
            (width, TickSample { ticks: before + width / 2, raw_ns })
        });
        let narrowest = bracketed.min_by_key(|(width, _)| *width);
        narrowest.map(|(_, sample)| sample).expect("there is at least one try")
    }
}

/// How long a tick is: so many ticks are so many nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TickRate {
    ticks: u64,
    ns: u64,
}

impl TickRate {
    /// From two moments; `None` if no time lies between them.
    #[must_use]
    pub fn between(first: TickSample, last: TickSample) -> Option<TickRate> {
        let ticks = last.ticks.checked_sub(first.ticks).filter(|ticks| *ticks > 0)?;
        let ns = last.raw_ns.checked_sub(first.raw_ns).filter(|ns| *ns > 0)?;
        Some(TickRate { ticks, ns })
    }

    /// A rate where so many ticks take so many nanoseconds, both above 0.
    #[must_use]
    pub fn new(ticks: u64, ns: u64) -> TickRate {
        TickRate { ticks: ticks.max(1), ns: ns.max(1) }
    }

    /// Nanoseconds in `ticks`, rounded down.
    #[must_use]
    pub fn ns(self, ticks: u64) -> u64 {
        scaled(ticks, self.ns, self.ticks)
    }

    /// Ticks in `ns`, rounded down.
    #[must_use]
    pub fn ticks(self, ns: u64) -> u64 {
        scaled(ns, self.ticks, self.ns)
    }
}

fn scaled(value: u64, times: u64, over: u64) -> u64 {
    let scaled = u128::from(value) * u128::from(times) / u128::from(over);
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_goes_both_ways() {
        let at = |ticks, raw_ns| TickSample { ticks, raw_ns };
        let rate = TickRate::between(at(1000, 50), at(4000, 1050)).unwrap();
        assert_eq!(rate.ns(3000), 1000);
        assert_eq!(rate.ticks(1000), 3000);
        assert_eq!(rate.ns(u64::MAX), u64::MAX / 3);
        assert_eq!(TickRate::between(at(1, 1), at(1, 2)), None);
        assert_eq!(TickRate::between(at(2, 2), at(3, 1)), None);
    }

    #[test]
    fn a_sample_of_the_raw_clock_is_itself() {
        let sample = TickSample::take(Clock::MonotonicRaw);
        let later = TickSample::take(Clock::MonotonicRaw);
        let rate = TickRate::between(sample, later);
        assert!(later.ticks.abs_diff(later.raw_ns) < 1_000_000_000, "{later:?}");
        assert!(rate.is_none_or(|rate| rate.ns(1_000) > 0));
    }
}
