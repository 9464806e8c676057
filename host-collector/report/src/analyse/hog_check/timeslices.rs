//! A hog's timeslices, as round trips that bound its clock.
//!
//! While the host lets a vCPU's thread run, from when it came on to when it left, its hog looks at the
//! guest's clock: for the first time after the thread came, for the last time before it left. That is
//! what a round trip tells, a message that was there between two host times, and some of the many
//! timeslices of a run are much shorter on their way than any message: the hog looks within microseconds.
//!
//! ```text
//! host    left      came                      left      came
//!   ------|          |-------------------------|          |-----
//! guest   : gap      : . . . . . . . . . . . . : gap      :
//!                       first look    last look
//! ```
//!
//! Which look belongs to which timeslice is told by the gaps: an absence of the thread lies within one. The
//! map that round trips make says where the gaps are, well enough to see which.

use super::absences::Absence;
use super::gaps::Gap;
use vslice_core::clock::{Exchange, Outermost};
use vslice_trace::HogGapItem;

/// A gap, and an absence that it is certainly that of.
#[derive(Debug, Clone, Copy)]
struct Matched {
    gap: HogGapItem,
    absence: Absence,
}

/// The timeslices between absences and gaps that certainly belong together, as exchanges.
#[derive(Debug, Default)]
pub(super) struct HogTimeslices {
    last: Option<Matched>,
    /// Those of them that say something.
    pub(super) exchanges: Outermost,
}

impl HogTimeslices {
    /// Takes the next absence, with the gaps around it.
    pub(super) fn push<'a>(&mut self, near: impl Iterator<Item = &'a Gap>, absence: Absence) {
        let Some(after) = matched(near, absence) else { return };
        let Some(before) = self.last.replace(after) else { return };
        if before.gap.end <= after.gap.start && before.absence.came <= after.absence.left {
            self.exchanges.push(Exchange {
                host_sent: before.absence.came,
                guest_received: before.gap.end,
                guest_sent: after.gap.start,
                host_received: after.absence.left,
            });
        }
    }
}

/// A gap that overlaps an absence holds all of it, because nobody looks while the thread is absent. One
/// that seems to hold an absence which is longer than the map may be off at both ends does overlap it.
fn matched<'a>(near: impl Iterator<Item = &'a Gap>, absence: Absence) -> Option<Matched> {
    let mut near = near.take_while(|gap| gap.earliest_start <= absence.came);
    // If two gaps touch it within what the map may be off, either may be its own.
    let (Some(gap), None) = (near.next(), near.next()) else { return None };
    let is_within = gap.earliest_start <= absence.left && absence.came <= gap.latest_end;
    is_within.then_some(Matched { gap: gap.told, absence })
}

#[cfg(test)]
mod tests {
    use super::super::checker::HogChecker;
    use super::super::gaps::Gaps;
    use super::*;
    use vslice_core::clock::ClockMap;
    use vslice_core::units::{GuestTicks, HostNs, VcpuId};

    /// The guest's clock is the host's; round trips take 200 us.
    fn slow_map() -> (Vec<Exchange>, ClockMap) {
        let exchange = |ms: u64| {
            let sent = ms * 1_000_000;
            let stamped = GuestTicks(sent + 100_000);
            Exchange {
                host_sent: HostNs(sent),
                guest_received: stamped,
                guest_sent: stamped,
                host_received: HostNs(sent + 200_000),
            }
        };
        let exchanges: Vec<Exchange> = (0..100).map(exchange).collect();
        let map = ClockMap::estimate(&exchanges).unwrap();
        (exchanges, map)
    }

    fn timeslices(map: &ClockMap, gaps: &[HogGapItem], absences: &[Absence]) -> Vec<Exchange> {
        let mut hog = HogChecker::new(Gaps::new(Vec::from(gaps).into_iter(), map.clone()), 50_000);
        absences.iter().for_each(|absence| hog.push(*absence));
        hog.timeslices.exchanges.exchanges().to_vec()
    }

    fn absence(left_us: u64, came_us: u64) -> Absence {
        Absence { left: HostNs(left_us * 1_000), came: HostNs(came_us * 1_000) }
    }

    /// The hog looks `late_us` after it came and as long before it left.
    fn gap(absence: Absence, late_us: u64) -> HogGapItem {
        HogGapItem {
            vcpu: VcpuId(1),
            start: GuestTicks(absence.left.0 - late_us * 1_000),
            end: GuestTicks(absence.came.0 + late_us * 1_000),
        }
    }

    #[test]
    fn timeslices_bound_a_clock_better_than_slow_round_trips() {
        let (exchanges, map) = slow_map();
        let absences: Vec<Absence> =
            (1..12).map(|turn| absence(turn * 8_000, turn * 8_000 + 4_000)).collect();
        let gaps: Vec<HogGapItem> = absences.iter().map(|absence| gap(*absence, 5)).collect();
        let timeslices = timeslices(&map, &gaps, &absences);
        assert_eq!(timeslices.len(), 10);
        let better = ClockMap::estimate(&[exchanges, timeslices].concat()).unwrap();
        assert!(map.bound_ns() >= 99_000, "{}", map.bound_ns());
        assert!(better.bound_ns() < 8_000, "{}", better.bound_ns());
        let mapped = better.to_host(GuestTicks(50_000_000)).unwrap();
        assert!(mapped.at.0.abs_diff(50_000_000) <= mapped.bound_ns, "{mapped:?}");
    }

    #[test]
    fn what_is_not_certain_is_no_timeslice() {
        let (_, map) = slow_map();
        let (one, two, three) =
            (absence(8_000, 12_000), absence(12_050, 16_000), absence(20_000, 24_000));
        let gaps = |list: &[Absence]| list.iter().map(|one| gap(*one, 5)).collect::<Vec<_>>();
        let count =
            |gaps: &[HogGapItem], absences: &[Absence]| timeslices(&map, gaps, absences).len();
        assert_eq!(count(&gaps(&[one, three]), &[one, three]), 1);
        // Within the bound both gaps may be that of either absence.
        assert_eq!(count(&gaps(&[one, two, three]), &[one, two, three]), 0);
        assert_eq!(count(&gaps(&[three]), &[one, three]), 0, "told of one only");
        let short = absence(30_000, 30_100);
        assert_eq!(count(&gaps(&[one, short]), &[one, short]), 0, "need not be told");
        let half = HogGapItem { end: GuestTicks(22_000_000), ..gap(three, 5) };
        assert_eq!(count(&[gap(one, 5), half], &[one, three]), 0, "the hog looked in between");
    }
}
