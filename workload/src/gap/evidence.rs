//! A gap and the counters around it, in nanoseconds.

use super::probe::{Counters, RawGap};
use super::rate::TickRate;

/// Clocks differ in rate, and counters are not read at one instant: a difference between clocks
/// below this is none. 2 us, and 200 ppm of the time between the two readings, which is more than
/// any two clocks of one machine drift apart.
fn slack_ns(window_ns: u64) -> u64 {
    2_000 + window_ns / 5_000
}

/// What is known about one gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Evidence {
    /// The gap's length.
    pub length_ns: u64,
    /// The time between the two readings of the counters, in which the gap lies.
    pub window_ns: u64,
    /// What of it the thread's CPU clock counted.
    pub cpu_ns: u64,
    /// What of it the thread's CPU clock counted only later: [`evidence_of_all`].
    pub regained_ns: u64,
    /// What of it the thread was runnable and not running; `None` if the kernel does not tell.
    pub run_delay_ns: Option<u64>,
    /// Switches away from the thread when it was not runnable.
    pub voluntary: u64,
    /// Switches away from the thread when it was.
    pub involuntary: u64,
    /// Where the last tick was.
    pub tick: Tick,
}

/// The last tick before the counters were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tick {
    /// The kernel does not tell, or the thread was switched, which looks the same.
    #[default]
    Untold,
    /// Not in the gap.
    Outside,
    /// In the gap, so long after its start, as far as the gap's time was counted to the thread.
    After {
        /// The time from the gap's start to the tick.
        start_ns: u64,
    },
}

/// What the loop left behind about its gaps, which are in order of time. `last` is what the counters
/// were at its end.
///
/// Where the TSC is not known to be invariant, under TCG for instance, the kernel lets its scheduler's
/// clock run at most one tick ahead of the last tick it has seen, and sets it right at the next one
/// (kernel/sched/clock.c, `sched_clock_local`). When the host takes the vCPU for longer, and no tick is
/// pending when it gives it back, the thread's CPU clock has missed most of the gap when the loop reads
/// it, and jumps ahead of time a little later. That jump is what was missing: it goes to the latest
/// gaps that miss time. Steal and interrupts, where a kernel leaves them out, never come back.
#[must_use]
pub fn evidence_of_all(gaps: &[RawGap], last: &Counters, rate: TickRate) -> Vec<Evidence> {
    let mut all: Vec<Evidence> = gaps.iter().map(|gap| evidence_of(gap, rate)).collect();
    let mut missing = Missing::default();
    for (index, gap) in gaps.iter().enumerate() {
        if let Some(before) = index.checked_sub(1).and_then(|index| gaps.get(index)) {
            missing.regain(&mut all, jump_ns(&before.after, &gap.before, rate));
        }
        missing.regain(&mut all, jump_ns(&gap.before, &gap.after, rate));
        missing.add(index, all[index].unexplained_ns());
    }
    if let Some(gap) = gaps.last() {
        missing.regain(&mut all, jump_ns(&gap.after, last, rate));
    }
    all
}

/// How far the thread's CPU clock ran ahead of time between two readings of the counters.
fn jump_ns(from: &Counters, to: &Counters, rate: TickRate) -> u64 {
    let window_ns = rate.ns(to.at.saturating_sub(from.at));
    let ahead_ns = to.cpu_ns.saturating_sub(from.cpu_ns).saturating_sub(window_ns);
    if ahead_ns > slack_ns(window_ns) { ahead_ns } else { 0 }
}

/// The gaps that miss time on the CPU clock, and how much; the latest is the last.
#[derive(Debug, Default)]
struct Missing(Vec<(usize, u64)>);

impl Missing {
    fn add(&mut self, index: usize, missing_ns: u64) {
        if missing_ns > 0 {
            self.0.push((index, missing_ns));
        }
    }

    /// Gives a jump of the clock to the latest gaps that miss time.
    fn regain(&mut self, all: &mut [Evidence], mut jump_ns: u64) {
        while let Some((index, missing_ns)) = self.0.pop() {
            let regained_ns = missing_ns.min(jump_ns);
            all[index].regained_ns += regained_ns;
            jump_ns -= regained_ns;
            if missing_ns > regained_ns {
                self.0.push((index, missing_ns - regained_ns));
                return;
            }
        }
    }
}

fn evidence_of(gap: &RawGap, rate: TickRate) -> Evidence {
    let (before, after) = (&gap.before, &gap.after);
    let window_ns = rate.ns(after.at.saturating_sub(before.at));
    let voluntary = after.voluntary.saturating_sub(before.voluntary);
    let involuntary = after.involuntary.saturating_sub(before.involuntary);
    let run_delay_ns = before.schedstat.zip(after.schedstat).map(|(before, after)| {
        // The kernel adds up; a counter that went back is a kernel's bug and tells nothing.
        after.run_delay_ns.saturating_sub(before.run_delay_ns)
    });
    let tick = match after.schedstat {
        Some(schedstat) if voluntary + involuntary == 0 => tick_of(gap, schedstat.ran_ns, rate),
        _ => Tick::Untold,
    };
    Evidence {
        length_ns: rate.ns(gap.end.saturating_sub(gap.start)),
        window_ns,
        cpu_ns: after.cpu_ns.saturating_sub(before.cpu_ns),
        regained_ns: 0,
        run_delay_ns,
        voluntary,
        involuntary,
        tick,
    }
}

/// Where the tick was that left the thread's runtime at `ran_ns`.
fn tick_of(gap: &RawGap, ran_ns: u64, rate: TickRate) -> Tick {
    let (before, after) = (&gap.before, &gap.after);
    let since_tick_ns = after.cpu_ns.saturating_sub(ran_ns);
    let since_end_ns = rate.ns(after.at.saturating_sub(gap.end));
    let since_start_ns = rate.ns(after.at.saturating_sub(gap.start));
    let slack_ns = slack_ns(since_start_ns);
    let is_inside = ran_ns > before.cpu_ns
        && since_tick_ns + slack_ns >= since_end_ns
        && since_tick_ns <= since_start_ns + slack_ns;
    if is_inside {
        Tick::After { start_ns: since_start_ns.saturating_sub(since_tick_ns) }
    } else {
        Tick::Outside
    }
}

/// A gap by what the guest's kernel said the loop's thread was doing. The parts add up to the
/// gap's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Split {
    /// Runnable, but the guest's scheduler ran somebody else.
    pub switch_ns: u64,
    /// Neither running nor runnable, though the loop never sleeps: stopped or frozen.
    pub stopped_ns: u64,
    /// Current on its vCPU, but the time was not counted to it: steal or interrupts, in kernels that
    /// leave these out.
    pub uncounted_ns: u64,
    /// Running, as far as the guest's kernel knew.
    pub counted_ns: u64,
}

impl Evidence {
    /// The time between the two readings that the CPU clock has never counted; 0 if it is no more
    /// than clocks differ.
    fn missing_ns(&self) -> u64 {
        let missing_ns =
            self.window_ns.saturating_sub(self.cpu_ns).saturating_sub(self.regained_ns);
        if missing_ns > slack_ns(self.window_ns) { missing_ns } else { 0 }
    }

    /// What of it neither a wait for another thread nor a stop explains.
    fn unexplained_ns(&self) -> u64 {
        if self.voluntary > 0 {
            return 0;
        }
        let missing_ns = self.missing_ns();
        match self.run_delay_ns {
            Some(run_delay_ns) => missing_ns.saturating_sub(run_delay_ns),
            None if self.involuntary > 0 => 0,
            None => missing_ns,
        }
    }

    /// Splits the gap. What the counters cannot tell from the time around the gap (at most one
    /// window) is cut to the gap's length.
    #[must_use]
    pub fn split(&self) -> Split {
        let length_ns = self.length_ns;
        let missing_ns = self.missing_ns();
        let switch_ns = match self.run_delay_ns {
            Some(run_delay_ns) => run_delay_ns.min(length_ns),
            // Without run delays: a thread that was only ever switched while runnable has waited.
            None if self.voluntary == 0 && self.involuntary > 0 => missing_ns.min(length_ns),
            None => 0,
        };
        let rest_ns = missing_ns.saturating_sub(switch_ns).min(length_ns - switch_ns);
        let (stopped_ns, uncounted_ns) =
            if self.voluntary > 0 { (rest_ns, 0) } else { (0, rest_ns) };
        let counted_ns = length_ns - switch_ns - rest_ns;
        Split { switch_ns, stopped_ns, uncounted_ns, counted_ns }
    }
}

#[cfg(test)]
mod tests {
    use super::super::probe::{Counters, SchedStat};
    use super::*;
    use proptest::prelude::*;

    const US: u64 = 1_000;

    /// A gap of 4 ms after 1 ms in which the loop ran, in a kernel that counts all as CPU time.
    fn plain() -> Evidence {
        let window_ns = 5_000 * US;
        Evidence {
            length_ns: 4_000 * US,
            window_ns,
            cpu_ns: window_ns,
            run_delay_ns: Some(0),
            ..Evidence::default()
        }
    }

    #[test]
    fn time_that_was_counted_stays_with_the_thread() {
        assert_eq!(plain().split(), Split { counted_ns: 4_000 * US, ..Split::default() });
        let drifted = Evidence { cpu_ns: 4_997 * US + 1, ..plain() };
        assert_eq!(drifted.split().counted_ns, 4_000 * US, "3 us of 5 ms are clocks");
    }

    #[test]
    fn a_rival_in_the_guest_is_a_run_delay() {
        let waited = Evidence {
            cpu_ns: 1_010 * US,
            run_delay_ns: Some(3_990 * US),
            involuntary: 1,
            ..plain()
        };
        let expected = Split { switch_ns: 3_990 * US, counted_ns: 10 * US, ..Split::default() };
        assert_eq!(waited.split(), expected);
        let untold = Evidence { run_delay_ns: None, ..waited };
        assert_eq!(untold.split(), expected);
    }

    #[test]
    fn a_mixed_gap_keeps_both_parts() {
        let mixed = Evidence {
            cpu_ns: 3_000 * US,
            run_delay_ns: Some(2_000 * US),
            involuntary: 1,
            ..plain()
        };
        assert_eq!(
            mixed.split(),
            Split { switch_ns: 2_000 * US, counted_ns: 2_000 * US, ..Split::default() }
        );
    }

    #[test]
    fn what_was_neither_counted_nor_waited_for() {
        let missing = Evidence { cpu_ns: 1_000 * US, ..plain() };
        assert_eq!(missing.split(), Split { uncounted_ns: 4_000 * US, ..Split::default() });
        let stopped = Evidence { voluntary: 1, ..missing };
        assert_eq!(stopped.split(), Split { stopped_ns: 4_000 * US, ..Split::default() });
    }

    /// Ticks are nanoseconds; the counters were read 10 us before the gap and 5 us after it.
    fn raw(last_tick_ran_ns: u64) -> RawGap {
        let schedstat = |ran_ns| Some(SchedStat { ran_ns, run_delay_ns: 7 });
        let before = Counters {
            at: 990 * US,
            cpu_ns: 500 * US,
            schedstat: schedstat(499 * US),
            ..Counters::default()
        };
        let after = Counters {
            at: 1_105 * US,
            cpu_ns: 615 * US,
            schedstat: schedstat(last_tick_ran_ns),
            ..before
        };
        RawGap { start: 1_000 * US, end: 1_100 * US, before, after }
    }

    #[test]
    fn a_tick_is_seen_by_the_runtime_it_left_behind() {
        let tick = |ran_ns| evidence_of(&raw(ran_ns), TickRate::new(1, 1)).tick;
        let after_us = |us: u64| Tick::After { start_ns: us * US };
        // At 515 us of CPU time the gap was 5 us old, at 608 it was almost over.
        assert_eq!(tick(515 * US), after_us(5));
        assert_eq!(tick(608 * US), after_us(98));
        assert_eq!(tick(503 * US), Tick::Outside, "7 us before the gap");
        assert_eq!(tick(500 * US), Tick::Outside, "what reading the clock itself left");
        // Counters that were read right before the gap brought the runtime up to date themselves.
        let mut fresh = raw(500 * US);
        (fresh.start, fresh.end) = (990 * US, 1_105 * US);
        assert_eq!(evidence_of(&fresh, TickRate::new(1, 1)).tick, Tick::Outside);
        let mut switched = raw(515 * US);
        switched.after.involuntary = 1;
        let evidence = evidence_of(&switched, TickRate::new(1, 1));
        assert_eq!((evidence.tick, evidence.involuntary), (Tick::Untold, 1));
        assert_eq!((evidence.length_ns, evidence.window_ns), (100 * US, 115 * US));
        assert_eq!((evidence.cpu_ns, evidence.run_delay_ns), (115 * US, Some(0)));
    }

    /// Gaps as the loop leaves them, in microseconds: how long the loop ran before the gap, how long
    /// the gap was, and what of both the CPU clock counted.
    fn drawn(steps: &[(u64, u64, u64)]) -> (Vec<RawGap>, Counters) {
        let (mut at, mut cpu_ns) = (0, 0);
        let mut before = Counters::default();
        let mut gaps = Vec::new();
        for (ran_us, gap_us, counted_us) in steps {
            let start = at + ran_us * US;
            at = start + gap_us * US;
            cpu_ns += counted_us * US;
            let schedstat = Some(SchedStat::default());
            let after = Counters { at, cpu_ns, schedstat, ..Counters::default() };
            gaps.push(RawGap { start, end: at, before, after });
            before = after;
        }
        (gaps, before)
    }

    fn uncounted_us(steps: &[(u64, u64, u64)]) -> Vec<u64> {
        let (gaps, last) = drawn(steps);
        let all = evidence_of_all(&gaps, &last, TickRate::new(1, 1));
        all.iter().map(|evidence| evidence.split().uncounted_ns / US).collect()
    }

    #[test]
    fn time_that_the_cpu_clock_counts_later_was_the_threads() {
        // Seen in a TCG guest: three gaps without a tick, and a fourth in which the clock caught up.
        let late = [
            (3_868, 34_551, 104),
            (65, 101, 0),
            (1_297, 2_146, 0),
            (1_841, 20_438, 22_279 + 41_924),
        ];
        assert_eq!(uncounted_us(&late), [0, 0, 0, 0]);
        assert_eq!(uncounted_us(&late[..3]), [34_551, 101, 2_146], "it has not come back");
    }

    #[test]
    fn time_that_never_comes_back_is_uncounted() {
        assert_eq!(uncounted_us(&[(1_000, 4_000, 1_000), (1_000, 40, 1_040)]), [4_000, 0]);
        // Half of the second gap comes back, and nothing of the first.
        let half = [(1_000, 4_000, 1_000), (1_000, 4_000, 1_000), (1_000, 40, 3_040)];
        assert_eq!(uncounted_us(&half), [4_000, 2_000, 0]);
        // No more comes back than was missing.
        assert_eq!(uncounted_us(&[(1_000, 4_000, 4_900), (10, 40, 9_000)]), [0, 0]);
    }

    #[test]
    fn what_comes_back_between_gaps_or_after_the_last_counts_too() {
        let (mut gaps, mut last) = drawn(&[(1_000, 4_000, 1_000), (1_000, 40, 1_040)]);
        // A reading of the counters between the two, of which no gap tells.
        gaps[1].before.at += 500 * US;
        gaps[1].before.cpu_ns += 4_500 * US;
        gaps[1].after.cpu_ns += 4_000 * US;
        let all = evidence_of_all(&gaps, &gaps[1].after, TickRate::new(1, 1));
        assert_eq!(all[0].regained_ns, 4_000 * US);
        let (gaps, _) = drawn(&[(1_000, 4_000, 1_000)]);
        (last.at, last.cpu_ns) = (gaps[0].after.at + US, gaps[0].after.cpu_ns + 4_001 * US);
        let all = evidence_of_all(&gaps, &last, TickRate::new(1, 1));
        assert_eq!(all[0].regained_ns, 4_000 * US);
    }

    proptest! {
        #[test]
        fn no_gap_regains_more_than_it_misses(
            steps in proptest::collection::vec((0_u64..9_000, 1_u64..9_000, 0_u64..30_000), 0..30),
        ) {
            let (gaps, last) = drawn(&steps);
            for evidence in evidence_of_all(&gaps, &last, TickRate::new(1, 1)) {
                let missing_ns = evidence.window_ns.saturating_sub(evidence.cpu_ns);
                prop_assert!(evidence.regained_ns <= missing_ns, "{evidence:?}");
            }
        }

        #[test]
        fn a_split_adds_up(
            length_ns in 0_u64..1 << 40,
            around_ns in 0_u64..1 << 30,
            cpu_ns in 0_u64..1 << 41,
            regained_ns in 0_u64..1 << 41,
            run_delay_ns in proptest::option::of(0_u64..1 << 41),
            voluntary in 0_u64..3,
            involuntary in 0_u64..3,
        ) {
            let window_ns = length_ns + around_ns;
            let evidence = Evidence {
                length_ns, window_ns, cpu_ns, regained_ns, run_delay_ns, voluntary, involuntary,
                tick: Tick::Untold,
            };
            let Split { switch_ns, stopped_ns, uncounted_ns, counted_ns } = evidence.split();
            prop_assert_eq!(switch_ns + stopped_ns + uncounted_ns + counted_ns, length_ns);
        }
    }
}
