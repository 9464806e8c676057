//! What a vCPU's thread was off its pCPU for, and where that lies on the guest's clock. Times are
//! nanoseconds.

use vslice_core::host_event::{HostEvent, HostEventKind};
use vslice_core::units::Tid;

/// Gaps above this are what the guest has to see.
pub(super) const JUDGED_FROM_NS: u64 = 100_000;

/// Of one gap the guest sees no less than this less than the host, and no more than that more: between
/// the ends that they see lie the emulator's way back, and the guest's handlers.
const LESS_NS: u64 = 50_000;
const MORE_NS: u64 = 1_000_000;

/// The width of a vote on the distance of the clocks.
const VOTE_NS: i128 = 20_000;

/// Distances that are tried: two busy threads alternate by the tick, so that many get votes.
const CANDIDATES_MAX: usize = 200;

/// How much earlier or later than when QEMU was told to begin the guest's TSC may have been 0. Where others had
/// this host's pCPUs, some 0.3 ms and more before that were seen; why is not known.
const AROUND_NS: i128 = 50_000_000;

/// Two distances closer than this are one.
const APART_NS: i128 = 500_000;

/// From the first nanosecond to the one after the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Interval {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Interval {
    pub(super) fn length(self) -> u64 {
        self.end - self.start
    }

    pub(super) fn overlap(self, other: Interval) -> u64 {
        self.end.min(other.end).saturating_sub(self.start.max(other.start))
    }
}

/// What the guest saw, on its own clock.
#[derive(Debug)]
pub(super) struct Seen {
    /// Each with whether it was said to be the host's.
    pub(super) gaps: Vec<(Interval, bool)>,
    pub(super) begun: u64,
    pub(super) ended: u64,
    /// Up to this length the guest says of no gap that it is the host's: it may be a slow tick.
    pub(super) unsaid_up_to: u64,
}

/// When the thread was off its pCPU, in order of time. Before its first switch and after its last
/// nothing is known.
pub(super) fn off_intervals(events: &[HostEvent], tid: Tid) -> Vec<Interval> {
    let mut events: Vec<&HostEvent> = events.iter().collect();
    events.sort_by_key(|event| event.time);
    let mut intervals = Vec::new();
    let mut left = None;
    for event in events {
        let HostEventKind::Switch(switch) = &event.kind else { continue };
        if switch.prev == tid {
            left = Some(event.time.0);
        } else if let Some(start) = left.take() {
            intervals.push(Interval { start, end: event.time.0 });
        }
    }
    intervals
}

/// The distance from the guest's clock to the host's, at which both run alike; `None` if nothing fits.
///
/// It is the one number that is taken from the data: the distance at which most of the gaps' time lies on
/// each other, among those that the starts of many pairs of gaps of one length agree on, and by which the
/// guest's TSC was 0 around `begun`. Two busy threads alternate by the tick, so that single gaps fit at many
/// distances; that all of them do is no chance.
pub(super) fn distance(truth: &[Interval], seen: &Seen, begun: (u64, u64)) -> Option<i128> {
    let possible = i128::from(begun.0) - AROUND_NS..=i128::from(begun.1) + AROUND_NS;
    let long = || seen.gaps.iter().map(|(gap, _)| *gap).filter(|gap| gap.length() > JUDGED_FROM_NS);
    let mut distances: Vec<i128> = Vec::new();
    for gap in long() {
        for interval in truth {
            let may_be = interval.length().saturating_sub(LESS_NS)..interval.length() + MORE_NS;
            if may_be.contains(&gap.length()) {
                let distance = i128::from(interval.start) - i128::from(gap.start);
                distances.extend(possible.contains(&distance).then_some(distance));
            }
        }
    }
    let common = |distance: i128| -> u64 {
        long().filter_map(|gap| moved(gap, distance)).map(|gap| covered_ns(gap, truth)).sum()
    };
    candidates(distances).into_iter().max_by_key(|distance| common(*distance))
}

/// The distances with the most votes, no two of them close to each other.
fn candidates(mut distances: Vec<i128>) -> Vec<i128> {
    distances.sort_unstable();
    let mut windows: Vec<(usize, i128)> = Vec::new();
    let mut from = 0;
    for to in 0..distances.len() {
        while distances[to] - distances[from] > VOTE_NS {
            from += 1;
        }
        windows.push((to - from + 1, distances[usize::midpoint(from, to)]));
    }
    windows.sort_unstable_by_key(|(votes, distance)| (std::cmp::Reverse(*votes), *distance));
    let mut kept: Vec<i128> = Vec::new();
    for (_, distance) in windows {
        if kept.len() == CANDIDATES_MAX {
            break;
        }
        if kept.iter().all(|other| (other - distance).abs() > APART_NS) {
            kept.push(distance);
        }
    }
    kept
}

/// On the host's clock, at this distance from the guest's.
pub(super) fn moved(interval: Interval, distance_ns: i128) -> Option<Interval> {
    let move_one = |time: u64| u64::try_from(i128::from(time) + distance_ns).ok();
    Some(Interval { start: move_one(interval.start)?, end: move_one(interval.end)? })
}

/// How much of `gap` lies in these intervals, which are in order of time and apart.
pub(super) fn covered_ns(gap: Interval, intervals: &[Interval]) -> u64 {
    let first = intervals.partition_point(|interval| interval.end <= gap.start);
    let inside = intervals[first..].iter().take_while(|interval| interval.start < gap.end);
    inside.map(|interval| interval.overlap(gap)).sum()
}

/// Everything that one of the two covers, in order of time and apart.
pub(super) fn union(one: &[Interval], other: &[Interval]) -> Vec<Interval> {
    let mut all: Vec<Interval> = one.iter().chain(other).copied().collect();
    all.sort_by_key(|interval| interval.start);
    let mut apart: Vec<Interval> = Vec::new();
    for interval in all {
        match apart.last_mut() {
            Some(last) if interval.start <= last.end => last.end = last.end.max(interval.end),
            _ => apart.push(interval),
        }
    }
    apart
}
