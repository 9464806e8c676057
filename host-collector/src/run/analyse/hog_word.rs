//! What a hog missed, held against when the host had its vCPU off its pCPU.
//!
//! A hog looks at its guest's clock every few microseconds and tells of looks that are far apart. While
//! its vCPU's thread is off the pCPU it cannot look. So each time that the thread is off, and long
//! enough for the hog to tell of it, lies within one of the hog's gaps: the last look before was before
//! the thread left, and the first one after was after it came back. A clock map that is off by more than
//! its bound puts a look where there can have been none. Whatever else keeps the hog from looking only
//! makes its gaps longer.

use crate::clock::ClockMap;
use crate::report::clock::HogCheck;
use crate::store::HogGapItem;
use crate::timeline::{Span, ThreadState};
use crate::units::{HostNs, Tid};
use std::collections::VecDeque;

/// A gap on the host's clock, as long as it may have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Gap {
    /// The last look before was not before this.
    earliest_start: HostNs,
    /// The first look after was not after this.
    latest_end: HostNs,
}

/// What one hog told.
#[derive(Debug)]
pub(super) struct HogTold<'a> {
    /// In order of time.
    pub(super) gaps: &'a [HogGapItem],
    /// Gaps that are not longer were not told.
    pub(super) threshold_ns: u64,
}

impl HogTold<'_> {
    /// How long a thread must be off its pCPU before its hog must have told of it, by a map with this
    /// bound: what the map makes longer or shorter of a gap is its bound at both ends.
    pub(super) fn judged_from_ns(&self, bound_ns: u64) -> u64 {
        self.threshold_ns.saturating_mul(2).saturating_add(bound_ns.saturating_mul(4))
    }
}

/// All that one hog told, and what came of it.
#[derive(Debug)]
pub(super) struct HogWord {
    tid: Tid,
    /// In order of time; those that ended before all that is yet to be judged are gone.
    gaps: VecDeque<Gap>,
    /// The hog is known to have looked from the first time on, up to the second.
    known: (HostNs, HostNs),
    /// How long the thread must be off before the hog must have told of it.
    judged_from_ns: u64,
    /// The thread is off its pCPU since then, up to the second time.
    absence: Option<(HostNs, HostNs)>,
    /// What came of it so far.
    pub(super) check: HogCheck,
}

impl HogWord {
    /// `told` is of the vCPU with this thread; `map` rests on nothing of it. Gaps behind one that the
    /// map has no host time for say nothing.
    pub(super) fn new(tid: Tid, map: &ClockMap, told: &HogTold<'_>) -> HogWord {
        let mut bound_ns = 0;
        let placed = told.gaps.iter().map_while(|gap| {
            let (start, end) = (map.to_host(gap.start).ok()?, map.to_host(gap.end).ok()?);
            bound_ns = bound_ns.max(start.bound_ns).max(end.bound_ns);
            Some(Gap {
                earliest_start: HostNs(start.at.0.saturating_sub(start.bound_ns)),
                latest_end: HostNs(end.at.0.saturating_add(end.bound_ns)),
            })
        });
        let gaps: VecDeque<Gap> = placed.collect();
        let first = gaps.front().map_or(HostNs(u64::MAX), |gap| gap.latest_end);
        let last = gaps.back().map_or(HostNs(0), |gap| gap.earliest_start);
        let judged_from_ns = told.judged_from_ns(bound_ns);
        let check = HogCheck::default();
        HogWord { tid, gaps, known: (first, last), judged_from_ns, absence: None, check }
    }

    /// Takes the next span of any thread.
    pub(super) fn push(&mut self, span: &Span) {
        if span.tid != self.tid || self.gaps.is_empty() {
            return;
        }
        let is_absent = match span.state {
            ThreadState::Running { .. } => false,
            ThreadState::Unknown { .. } => {
                self.absence = None;
                return;
            }
            _ => true,
        };
        if is_absent {
            let since = self.absence.filter(|(_, until)| *until == span.start);
            self.absence = Some((since.map_or(span.start, |(since, _)| since), span.end));
        } else if let Some((left, came)) = self.absence.take()
            && came == span.start
        {
            self.judge(left, came);
        }
    }

    fn judge(&mut self, left: HostNs, came: HostNs) {
        let is_known = self.known.0 <= left && came <= self.known.1;
        if !is_known || came.since_ns(left) <= self.judged_from_ns {
            return;
        }
        // Two gaps that follow each other closely may overlap by what the clock may be off.
        while self.gaps.front().is_some_and(|gap| gap.latest_end < left) {
            self.gaps.pop_front();
        }
        let beyond = |gap: &Gap| {
            let early_ns = gap.earliest_start.0.saturating_sub(left.0);
            early_ns.max(came.0.saturating_sub(gap.latest_end.0))
        };
        let near = self.gaps.iter().take_while(|gap| gap.earliest_start < came);
        let beyond_ns = near.map(beyond).min().unwrap_or(came.since_ns(left));
        self.check.absences += 1;
        self.check.violations += u64::from(beyond_ns > 0);
        self.check.worst_ns = self.check.worst_ns.max(beyond_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Exchange;
    use crate::timeline::RunMode;
    use crate::units::{GuestTicks, PcpuId, VcpuId};

    const TID: Tid = Tid(7);
    const THRESHOLD_NS: u64 = 50_000;

    /// Round trips of 20 us with a guest whose clock is the host's.
    fn map() -> ClockMap {
        let exchange = |ms: u64| {
            let sent = ms * 1_000_000;
            let stamped = GuestTicks(sent + 10_000);
            Exchange {
                host_sent: HostNs(sent),
                guest_received: stamped,
                guest_sent: stamped,
                host_received: HostNs(sent + 20_000),
            }
        };
        ClockMap::estimate(&(0..100).map(exchange).collect::<Vec<_>>()).unwrap()
    }

    fn gap(start_us: i64, end_us: i64) -> HogGapItem {
        let ticks = |us: i64| GuestTicks((us * 1_000).cast_unsigned());
        HogGapItem { vcpu: VcpuId(1), start: ticks(start_us), end: ticks(end_us) }
    }

    fn span(tid: Tid, state: ThreadState, start_us: u64, end_us: u64) -> Span {
        let (start, end) = (HostNs(start_us * 1_000), HostNs(end_us * 1_000));
        Span { tid, start, end, state, antagonists: Vec::new() }
    }

    /// The thread is off its pCPU between these times, in microseconds, and runs in between.
    fn check(gaps: &[HogGapItem], absences_us: &[(u64, u64)]) -> HogCheck {
        let mut word = HogWord::new(TID, &map(), &HogTold { gaps, threshold_ns: THRESHOLD_NS });
        let running = ThreadState::Running { pcpu: PcpuId(1), mode: RunMode::Unsplit };
        let waiting = ThreadState::WakeupDelay { pcpu: PcpuId(1), raced: None };
        let mut now = 0;
        for (left, came) in absences_us {
            word.push(&span(TID, running, now, *left));
            word.push(&span(Tid(8), waiting, *left, left + 1));
            word.push(&span(TID, waiting, *left, left + 1));
            word.push(&span(TID, waiting, left + 1, *came));
            now = *came;
        }
        word.push(&span(TID, running, now, now + 1));
        word.check
    }

    fn told(absences: u64, violations: u64, worst_us: u64) -> HogCheck {
        HogCheck { absences, violations, worst_ns: worst_us * 1_000 }
    }

    /// With these every other one lies within what the hog told.
    const FIRST: HogGapItem =
        HogGapItem { vcpu: VcpuId(1), start: GuestTicks(1), end: GuestTicks(2) };

    #[test]
    fn an_absence_lies_within_a_gap() {
        let gaps = [FIRST, gap(9_990, 14_010), gap(20_000, 24_000), gap(90_000, 90_100)];
        assert_eq!(check(&gaps, &[(10_000, 14_000), (20_009, 24_009)]), told(2, 0, 0));
        // The bound is 10 us.
        for (absence_us, worst_us) in
            [((19_985, 24_000), 5), ((20_000, 24_030), 20), ((30_000, 34_000), 4_000)]
        {
            let found = check(&gaps, &[absence_us]);
            let rounded = HogCheck { worst_ns: (found.worst_ns + 5) / 1_000 * 1_000, ..found };
            assert_eq!(rounded, told(1, 1, worst_us), "{absence_us:?}: {found:?}");
        }
    }

    #[test]
    fn what_a_hog_need_not_tell_is_not_judged() {
        let gaps = [gap(9_990, 14_010), gap(90_000, 90_100)];
        assert_eq!(check(&gaps, &[(30_000, 30_130)]), told(0, 0, 0), "short");
        assert_eq!(check(&gaps, &[(5_000, 6_000), (91_000, 95_000)]), told(0, 0, 0), "not known");
        assert_eq!(check(&[], &[(5_000, 6_000)]), told(0, 0, 0));
    }

    #[test]
    fn nothing_is_judged_by_what_is_unknown() {
        let gaps = [FIRST, gap(90_000, 90_100)];
        let mut word =
            HogWord::new(TID, &map(), &HogTold { gaps: &gaps, threshold_ns: THRESHOLD_NS });
        let running = ThreadState::Running { pcpu: PcpuId(1), mode: RunMode::Unsplit };
        let waiting = ThreadState::WakeupDelay { pcpu: PcpuId(1), raced: None };
        let cause = crate::timeline::UnknownCause::Lost;
        word.push(&span(TID, waiting, 10_000, 12_000));
        word.push(&span(TID, ThreadState::Unknown { cause }, 12_000, 13_000));
        word.push(&span(TID, running, 13_000, 14_000));
        // A hole between two spans is not known either.
        word.push(&span(TID, waiting, 14_000, 16_000));
        word.push(&span(TID, running, 17_000, 18_000));
        assert_eq!(word.check, told(0, 0, 0));
    }
}
