//! The requests of a VM, a disk and an operation, while the run is told.

use super::bands::{Bands, causes_ns};
use super::cause;
use super::over_time::OverTime;
use super::sample::{Point, Sample};
use super::slow::Slow;
use vslice_core::join::{Attribution, Breakdown, GuestRequest, Part};
use vslice_core::task::VmIndex;
use vslice_core::units::HostNs;
use vslice_report::summary::distribution::Precision;
use vslice_trace::observation::{ObservationRecord, ObservedOthersRecord};
use vslice_wire::BlockOperation;

/// Slow requests that are kept of each group.
const WORST_MAX: usize = 8;

/// What tells the requests of one group from those of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// Of the VM's reader.
    Read(VmIndex),
    /// Observed in the VM.
    Observed { vm: VmIndex, device: u16, operation: BlockOperation, is_sync: bool },
}

impl Key {
    pub(super) fn of(vm: VmIndex, request: &GuestRequest) -> Key {
        match request {
            GuestRequest::Read(_) => Key::Read(vm),
            GuestRequest::Observed(request) => Key::Observed {
                vm,
                device: request.device,
                operation: request.operation,
                is_sync: request.is_sync(),
            },
        }
    }

    pub(super) fn vm(self) -> VmIndex {
        match self {
            Key::Read(vm) | Key::Observed { vm, .. } => vm,
        }
    }

    /// How many of them the guest did not send, as they were faster than asked for.
    pub(super) fn faster(self, record: &ObservationRecord) -> u64 {
        let Key::Observed { device, operation, is_sync, .. } = self else { return 0 };
        let is_own = |of: &&ObservedOthersRecord| {
            (of.device, of.operation, of.is_sync) == (device, operation, is_sync)
        };
        record.others.iter().find(is_own).map_or(0, |of| of.count)
    }
}

/// What a group comes to so far.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) bands: Bands,
    pub(super) sample: Sample,
    pub(super) over_time: OverTime,
    /// Those that have no place on the host's clock.
    pub(super) unplaced: u64,
    /// The slowest first.
    pub(super) worst: Vec<Slow>,
}

impl Tally {
    /// Of a run whose measured window begins at `start`.
    pub(super) fn new(precision: Precision, points_max: usize, start: HostNs) -> Tally {
        let (bands, sample) = (Bands::new(precision), Sample::new(points_max));
        Tally { bands, sample, over_time: OverTime::new(start), unplaced: 0, worst: Vec::new() }
    }

    /// Takes a request; `keep` makes it one that is drawn, if it is among the slowest.
    pub(super) fn add(&mut self, breakdown: &Breakdown, keep: impl FnOnce() -> Slow) {
        let causes_ns = causes_ns(breakdown);
        self.bands.add(breakdown, &causes_ns);
        self.sample.add(point(breakdown, &causes_ns));
        self.over_time.add(breakdown, &causes_ns);
        let rank = Slow::rank_of(breakdown);
        let place = self.worst.partition_point(|slow| slow.rank() < rank);
        if place < WORST_MAX {
            self.worst.insert(place, keep());
            self.worst.truncate(WORST_MAX);
        }
    }
}

/// A request as a sample has it: of one that is not attributed it is not known what took its time.
fn point(breakdown: &Breakdown, causes_ns: &[u64]) -> Point {
    let (mut dominant, mut of_cause) = (Part::Unknown as usize, cause::UNKNOWN);
    if breakdown.attribution == Attribution::Attributed {
        dominant = longest(&Part::ALL.map(|part| breakdown.parts.get(part)), dominant);
        of_cause = longest(causes_ns, of_cause);
    }
    let (start, latency_ns) = (breakdown.start, breakdown.latency_ns());
    Point { start, latency_ns, dominant, cause: of_cause }
}

/// The place of the longest, the first of equals; `unknown` if none took any time.
fn longest(lengths_ns: &[u64], unknown: usize) -> usize {
    let longest_ns = lengths_ns.iter().copied().max().filter(|longest_ns| *longest_ns > 0);
    let place =
        longest_ns.and_then(|longest_ns| lengths_ns.iter().position(|of| *of == longest_ns));
    place.unwrap_or(unknown)
}
