//! What a vCPU's thread was off its pCPU for, and how well a guest saw it. Times are nanoseconds.

use vslice::host_event::{HostEvent, HostEventKind};
use vslice::units::Tid;
use vslice_workload::gap::Figures;

/// Gaps above this are what the guest has to see.
const JUDGED_FROM_NS: u64 = 100_000;

/// Two ends of one gap, as host and guest saw them, are not further apart: between them lie the
/// switch itself, the emulator's way back, and a pending interrupt of the guest.
const SAME_NS: u64 = 200_000;

/// The width of a vote on the distance of the clocks.
const VOTE_NS: i128 = 20_000;

/// Distances that are tried: two busy threads alternate by the tick, so that many get votes.
const CANDIDATES_MAX: usize = 100;

/// Two distances closer than this are one.
const APART_NS: i128 = 500_000;

/// From the first nanosecond to the one after the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Interval {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Interval {
    fn length(self) -> u64 {
        self.end - self.start
    }

    fn overlap(self, other: Interval) -> u64 {
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
}

/// How well a guest saw what the host did; what no demand is made of is for whoever reads a failure.
#[derive(Debug)]
#[expect(dead_code, reason = "printed where a demand is not met")]
pub(super) struct Agreement {
    /// Times above [`JUDGED_FROM_NS`] that the thread was off its pCPU.
    pub(super) host_gaps: usize,
    /// Those of them that the guest saw, at least 9/10 of each.
    pub(super) recall: f64,
    /// Of the gaps that the guest said were the host's: those more than half of which were.
    pub(super) precision: f64,
    /// By guest and host.
    pub(super) timeslice_mean_ns: (f64, f64),
    pub(super) timeslice_p50_ns: (u64, u64),
    pub(super) timeslice_p90_ns: (u64, u64),
    pub(super) timeslice_p99_ns: (u64, u64),
    /// What the guest said of those that it did not call the host's, though they were.
    pub(super) seen_by_another_name: usize,
    pub(super) guest_gaps: usize,
    /// From the guest's clock to the host's.
    pub(super) distance_ns: i128,
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

/// Compares what the guest saw with what the host knows. `None` if nothing fits.
///
/// The guest's clock runs like the host's, at a distance that is not known: the one number that is
/// taken from the data. It is the one at which most of the gaps' time lies on each other, among those
/// that starts of many pairs of gaps agree on, and by which the guest's TSC was 0 within `begun`, where
/// QEMU lets it begin (`cpu_enable_ticks`, softmmu/cpu-timers.c): two busy threads alternate by the
/// tick, so that gaps would fit at many distances.
pub(super) fn agreement(truth: &[Interval], seen: &Seen, begun: (u64, u64)) -> Option<Agreement> {
    let distance_ns = distance(truth, seen, begun)?;
    let moved = |interval: Interval| moved(interval, distance_ns);
    let window = moved(Interval { start: seen.begun, end: seen.ended })?;
    let gaps: Vec<(Interval, bool)> = seen
        .gaps
        .iter()
        .filter_map(|(interval, is_host)| Some((moved(*interval)?, *is_host)))
        .collect();
    let inside =
        |interval: &&Interval| interval.start >= window.start && interval.end <= window.end;
    let judged: Vec<Interval> = truth
        .iter()
        .filter(inside)
        .filter(|interval| interval.length() > JUDGED_FROM_NS)
        .copied()
        .collect();
    let covered = |interval: &Interval, host_only: bool| {
        let theirs = gaps.iter().filter(|(_, is_host)| *is_host || !host_only);
        let overlap: u64 = theirs.map(|(gap, _)| gap.overlap(*interval)).sum();
        overlap * 10 >= interval.length() * 9
    };
    let found = judged.iter().filter(|interval| covered(interval, true)).count();
    let found_at_all = judged.iter().filter(|interval| covered(interval, false)).count();
    let host: Vec<Interval> =
        gaps.iter().filter(|(_, is_host)| *is_host).map(|(gap, _)| *gap).collect();
    let is_true = |gap: &&Interval| covered_ns(**gap, truth) * 2 > gap.length();
    let right = host.iter().filter(is_true).count();
    let (of_guest, of_host) = (timeslices(&host), timeslices(&judged));
    Some(Agreement {
        host_gaps: judged.len(),
        recall: share(found, judged.len()),
        precision: share(right, host.len()),
        timeslice_mean_ns: (of_guest.mean_ns, of_host.mean_ns),
        timeslice_p50_ns: (of_guest.p50_ns, of_host.p50_ns),
        timeslice_p90_ns: (of_guest.p90_ns, of_host.p90_ns),
        timeslice_p99_ns: (of_guest.p99_ns, of_host.p99_ns),
        seen_by_another_name: found_at_all - found,
        guest_gaps: gaps.len(),
        distance_ns,
    })
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn timeslices(gaps: &[Interval]) -> Figures {
    Figures::of(gaps.windows(2).map(|pair| pair[1].start.saturating_sub(pair[0].end)))
}

/// The distance at which most of the gaps' time lies on each other, of those that the starts of many
/// pairs of one length agree on.
fn distance(truth: &[Interval], seen: &Seen, begun: (u64, u64)) -> Option<i128> {
    let possible = i128::from(begun.0)..=i128::from(begun.1);
    let long = || seen.gaps.iter().map(|(gap, _)| *gap).filter(|gap| gap.length() > JUDGED_FROM_NS);
    let mut distances: Vec<i128> = Vec::new();
    for gap in long() {
        for interval in truth {
            if gap.length().abs_diff(interval.length()) < SAME_NS {
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
fn moved(interval: Interval, distance_ns: i128) -> Option<Interval> {
    let move_one = |time: u64| u64::try_from(i128::from(time) + distance_ns).ok();
    Some(Interval { start: move_one(interval.start)?, end: move_one(interval.end)? })
}

/// How much of `gap` lies in these intervals, which are in order of time and apart.
fn covered_ns(gap: Interval, intervals: &[Interval]) -> u64 {
    let first = intervals.partition_point(|interval| interval.end <= gap.start);
    let inside = intervals[first..].iter().take_while(|interval| interval.start < gap.end);
    inside.map(|interval| interval.overlap(gap)).sum()
}
