//! What a hog missed, held against when the host had its vCPU off its pCPU.
//!
//! A hog looks at its guest's clock every few microseconds and tells of looks that are far apart. While
//! its vCPU's thread is off the pCPU it cannot look. So each time that the thread is off, and long
//! enough for the hog to tell of it, lies within one of the hog's gaps: the last look before was before
//! the thread left, and the first one after was after it came back. A clock map that is off by more than
//! its bound puts a look where there can have been none. Whatever else keeps the hog from looking only
//! makes its gaps longer.

use super::absences::Absence;
use super::gaps::{Gap, Gaps};
use super::timeslices::HogTimeslices;
use crate::summary::clock::HogCheck;
use vslice_core::units::HostNs;

/// What one hog says of its vCPU's clock, from the absences of its thread as they come.
pub(super) struct HogChecker {
    gaps: Gaps,
    judged_from_ns: u64,
    /// Whether the hog missed each time that the thread of its vCPU was off its pCPU.
    pub(super) check: HogCheck,
    /// Its timeslices.
    pub(super) timeslices: HogTimeslices,
}

impl HogChecker {
    /// Gaps that are not longer than `threshold_ns` were not told.
    pub(super) fn new(gaps: Gaps, threshold_ns: u64) -> HogChecker {
        let judged_from_ns = judged_from_ns(threshold_ns, gaps.map().bound_ns());
        HogChecker {
            gaps,
            judged_from_ns,
            check: HogCheck::default(),
            timeslices: HogTimeslices::default(),
        }
    }

    /// Reads on to what the hog told up to `until`, and lets go of what it told before `from`: it was on its
    /// pCPU then, or has been off it since.
    pub(super) fn read_on(&mut self, from: HostNs, until: HostNs) {
        self.gaps.read(from, until);
    }

    /// Takes the next absence, in order of time.
    pub(super) fn push(&mut self, absence: Absence) {
        if absence.came.since_ns(absence.left) <= self.judged_from_ns {
            return;
        }
        self.gaps.read(absence.left, absence.came);
        // In between the hog is known to have looked.
        if self.gaps.surround(absence.left, absence.came) {
            let beyond_ns = beyond_ns(self.gaps.near(), absence);
            self.check.absences += 1;
            self.check.violations += u64::from(beyond_ns > 0);
            self.check.worst_ns = self.check.worst_ns.max(beyond_ns);
        }
        self.timeslices.push(self.gaps.near(), absence);
    }
}

/// How long a thread must be off its pCPU before its hog must have told of it, by a map with this bound:
/// what the map makes longer or shorter of a gap is its bound at both ends.
fn judged_from_ns(threshold_ns: u64, bound_ns: u64) -> u64 {
    threshold_ns.saturating_mul(2).saturating_add(bound_ns.saturating_mul(4))
}

/// By how much an absence lies beyond the gap that it fits best.
fn beyond_ns<'a>(gaps: impl Iterator<Item = &'a Gap>, absence: Absence) -> u64 {
    let beyond = |gap: &Gap| {
        let early_ns = gap.earliest_start.0.saturating_sub(absence.left.0);
        early_ns.max(absence.came.0.saturating_sub(gap.latest_end.0))
    };
    let near = gaps.take_while(|gap| gap.earliest_start < absence.came);
    near.map(beyond).min().unwrap_or(absence.came.since_ns(absence.left))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_core::clock::{ClockMap, Exchange};
    use vslice_core::units::{GuestTicks, HostNs, VcpuId};
    use vslice_trace::HogGapItem;

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

    /// The thread is off its pCPU between these times, in microseconds.
    fn check(gaps: &[HogGapItem], absences_us: &[(u64, u64)]) -> HogCheck {
        let absence = |(left, came): &(u64, u64)| Absence {
            left: HostNs(left * 1_000),
            came: HostNs(came * 1_000),
        };
        let gaps = Gaps::new(Vec::from(gaps).into_iter(), map());
        let mut hog = HogChecker::new(gaps, THRESHOLD_NS);
        absences_us.iter().map(absence).for_each(|absence| hog.push(absence));
        hog.check
    }

    fn told(absences: u64, violations: u64, worst_us: u64) -> HogCheck {
        HogCheck { absences, violations, worst_ns: worst_us * 1_000 }
    }

    /// From here on the hog is known to have looked.
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
}
