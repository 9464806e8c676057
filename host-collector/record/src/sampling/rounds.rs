//! The sampling thread: rounds of looks, and the rest between them.

use super::files::{Functions, ThreadFiles};
use super::plan::{
    OTHERS_ROUNDS, PCPU_SHARE_MAX, PERIOD, SampleContent, SampleError, SampleRate, SampleSink,
    SampledThread, SamplerTotals, SinkError, TOTALS_INTERVAL,
};
use nix::time::{ClockId, clock_gettime};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use vslice_core::samples::SampleItem;
use vslice_core::units::HostNs;
use vslice_host::host_clock::host_now;

/// Pseudo-random numbers (G. Marsaglia, Xorshift RNGs, J. Stat. Software 8/14, 2003): all that is
/// asked of them is not to keep step with the host's ticks.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From half of `mean` to one and a half.
    fn around(&mut self, mean: Duration) -> Duration {
        let part = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        mean.mul_f64(0.5 + part)
    }
}

/// The sampling thread's state.
pub(super) struct Rounds<S> {
    pub(super) threads: Vec<(SampledThread, ThreadFiles)>,
    pub(super) vms: Vec<usize>,
    pub(super) content: SampleContent,
    pub(super) sink: S,
    pub(super) functions: Functions,
    pub(super) totals: SamplerTotals,
}

impl<S: SampleSink> Rounds<S> {
    /// Until it is told to stop, or the sink fails.
    pub(super) fn repeat(mut self, stop: &AtomicBool) -> SamplerTotals {
        let (started, own_before_ns) = (Instant::now(), own_ns());
        let result = self.rounds(stop).and_then(|()| self.read_totals());
        let result = result.and_then(|()| self.sink.finish());
        self.totals.elapsed_ns = nanoseconds(started.elapsed());
        self.totals.own_ns = own_ns().saturating_sub(own_before_ns);
        self.totals.ended_early = result.err().map(SampleError::Sink);
        self.totals
    }

    fn rounds(&mut self, stop: &AtomicBool) -> Result<(), SinkError> {
        let period = match self.content {
            SampleContent::StatesAndTotals => PERIOD,
            SampleContent::TotalsOnly => TOTALS_INTERVAL,
        };
        // Not 0, which would stay 0.
        let mut random = Random(host_now().0 | 1);
        self.read_totals()?;
        let (mut totals_at, mut due) = (Instant::now(), Instant::now());
        let mut own_before_ns = own_ns();
        while !stop.load(Ordering::Relaxed) {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let late = due.elapsed();
            if late > period {
                self.gap(late, period)?;
            }
            if self.content == SampleContent::StatesAndTotals {
                self.look()?;
            }
            if self.content == SampleContent::TotalsOnly || totals_at.elapsed() >= TOTALS_INTERVAL {
                totals_at = Instant::now();
                self.read_totals()?;
                self.sink.tick()?;
            }
            self.totals.rounds_count += 1;
            let own_now_ns = own_ns();
            let took = Duration::from_nanos(own_now_ns.saturating_sub(own_before_ns));
            own_before_ns = own_now_ns;
            due = Instant::now() + random.around(period).max(rest(took));
        }
        Ok(())
    }

    /// All threads that are due in this round; those that have ended are forgotten.
    fn look(&mut self) -> Result<(), SinkError> {
        let is_for_all = self.totals.rounds_count.is_multiple_of(OTHERS_ROUNDS);
        let mut ended = Vec::new();
        for (place, (thread, files)) in self.threads.iter_mut().enumerate() {
            if thread.rate == SampleRate::EveryTenthRound && !is_for_all {
                continue;
            }
            match files.look(&mut self.functions) {
                Some(look) => {
                    self.totals.looks_count += 1;
                    self.sink.item(thread.vm, SampleItem::Look(look))?;
                }
                None => ended.push(place),
            }
        }
        for place in ended.into_iter().rev() {
            self.threads.swap_remove(place);
        }
        Ok(())
    }

    fn read_totals(&mut self) -> Result<(), SinkError> {
        for (thread, files) in &self.threads {
            if let Some(schedstat) = files.schedstat() {
                self.sink.item(thread.vm, SampleItem::Schedstat(schedstat))?;
            }
        }
        Ok(())
    }

    fn gap(&mut self, late: Duration, period: Duration) -> Result<(), SinkError> {
        let until = host_now();
        let time = HostNs(until.0.saturating_sub(nanoseconds(late)));
        let rounds_count = nanoseconds(late) / nanoseconds(period);
        for vm in &self.vms {
            self.sink.item(*vm, SampleItem::Gap { time, until, rounds_count })?;
        }
        Ok(())
    }
}

/// How long to rest after work of this length, to stay within [`PCPU_SHARE_MAX`].
fn rest(took: Duration) -> Duration {
    took.mul_f64((1.0 - PCPU_SHARE_MAX) / PCPU_SHARE_MAX)
}

fn nanoseconds(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}

/// Time that the calling thread has spent on a pCPU.
fn own_ns() -> u64 {
    let Ok(time) = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID) else { return 0 };
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    part(time.tv_sec()) * 1_000_000_000 + part(time.tv_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn work_and_rest_stay_within_the_share(took_ns in 1_000_u64..100_000_000) {
            let took = Duration::from_nanos(took_ns);
            let share = took.as_secs_f64() / (took + rest(took)).as_secs_f64();
            prop_assert!(share <= PCPU_SHARE_MAX + 1e-3);
        }

        #[test]
        fn intervals_are_around_their_mean(seed in 1_u64..) {
            let mut random = Random(seed);
            let lengths: Vec<f64> =
                (0..2000).map(|_| random.around(PERIOD).as_secs_f64() / PERIOD.as_secs_f64()).collect();
            prop_assert!(lengths.iter().all(|length| (0.5..=1.5).contains(length)));
            let mean = lengths.iter().sum::<f64>() / lengths.len() as f64;
            // Its deviation is 0.0065: ten of them.
            prop_assert!((mean - 1.0).abs() < 0.065, "{mean}");
        }
    }
}
