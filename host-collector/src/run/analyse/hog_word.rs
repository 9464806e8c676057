//! What a hog missed, held against when the host had its vCPU off its pCPU.
//!
//! A hog looks at its guest's clock every few microseconds and tells of looks that are far apart. While
//! its vCPU's thread is off the pCPU it cannot look. So each time that the thread is off, and long
//! enough for the hog to tell of it, lies within one of the hog's gaps: the last look before was before
//! the thread left, and the first one after was after it came back. A clock map that is off by more than
//! its bound puts a look where there can have been none. Whatever else keeps the hog from looking only
//! makes its gaps longer.

use super::absences::Absence;
use crate::clock::ClockMap;
use crate::report::clock::HogCheck;
use crate::store::HogGapItem;
use crate::units::HostNs;

/// A gap on the host's clock, as long as it may have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    /// What the hog told.
    pub(super) told: HogGapItem,
    /// The last look before was not before this.
    pub(super) earliest_start: HostNs,
    /// The first look after was not after this.
    pub(super) latest_end: HostNs,
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

    /// The gaps on the host's clock, up to the first one that the map has no host time for.
    pub(super) fn placed(&self, map: &ClockMap) -> Vec<Gap> {
        let place = |told: &HogGapItem| {
            let (start, end) = (map.to_host(told.start).ok()?, map.to_host(told.end).ok()?);
            let earliest_start = HostNs(start.at.0.saturating_sub(start.bound_ns));
            let latest_end = HostNs(end.at.0.saturating_add(end.bound_ns));
            Some(Gap { told: *told, earliest_start, latest_end })
        };
        self.gaps.iter().map_while(place).collect()
    }
}

/// Whether the hog missed each time that the thread of its vCPU was off its pCPU. `map` rests on nothing
/// that it told.
pub(super) fn hog_check(map: &ClockMap, told: &HogTold<'_>, absences: &[Absence]) -> HogCheck {
    let gaps = told.placed(map);
    let (Some(first), Some(last)) = (gaps.first(), gaps.last()) else { return HogCheck::default() };
    let judged_from_ns = told.judged_from_ns(map.bound_ns());
    // In between the hog is known to have looked.
    let is_judged = |absence: &&Absence| {
        first.latest_end <= absence.left
            && absence.came <= last.earliest_start
            && absence.came.since_ns(absence.left) > judged_from_ns
    };
    let mut check = HogCheck::default();
    let mut next = 0;
    for absence in absences.iter().filter(is_judged) {
        // Two gaps that follow each other closely may overlap by what the clock may be off.
        while gaps.get(next).is_some_and(|gap| gap.latest_end < absence.left) {
            next += 1;
        }
        let beyond_ns = beyond_ns(&gaps[next.min(gaps.len())..], *absence);
        check.absences += 1;
        check.violations += u64::from(beyond_ns > 0);
        check.worst_ns = check.worst_ns.max(beyond_ns);
    }
    check
}

/// By how much an absence lies beyond the gap that it fits best.
fn beyond_ns(gaps: &[Gap], absence: Absence) -> u64 {
    let beyond = |gap: &Gap| {
        let early_ns = gap.earliest_start.0.saturating_sub(absence.left.0);
        early_ns.max(absence.came.0.saturating_sub(gap.latest_end.0))
    };
    let near = gaps.iter().take_while(|gap| gap.earliest_start < absence.came);
    near.map(beyond).min().unwrap_or(absence.came.since_ns(absence.left))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Exchange;
    use crate::units::{GuestTicks, VcpuId};

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
        let absences: Vec<Absence> = absences_us.iter().map(absence).collect();
        hog_check(&map(), &HogTold { gaps, threshold_ns: THRESHOLD_NS }, &absences)
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
