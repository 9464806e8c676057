//! The report, which is also the JSON. Times are integers in nanoseconds, shares are in [0, 1].

use serde::Serialize;
use std::collections::BTreeMap;
use vslice_workload::clock::Clock;
use vslice_workload::gap::{Figures, TickRate};

/// The name and version of the JSON.
const SCHEMA: &str = "vslice.solo/1";
const CALIBRATION_SCHEMA: &str = "vslice.solo-calibration/1";

/// A whole run.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    pub(super) schema: &'static str,
    pub(super) threshold_ns: u64,
    pub(super) interrupt_max_ns: u64,
    pub(super) clock: ClockReport,
    /// Whether a signal ended it before its time.
    pub(super) interrupted: bool,
    /// What this machine does not tell, and what follows.
    pub(super) missing: Vec<String>,
    pub(super) vcpus: Vec<VcpuReport>,
    pub(super) reading: Option<ReadingReport>,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct ClockReport {
    /// `tsc` or `monotonic_raw`.
    pub(super) kind: &'static str,
    pub(super) ticks_per_s: u64,
}

/// One vCPU.
#[derive(Debug, Clone, Serialize)]
pub(super) struct VcpuReport {
    pub(super) vcpu: u16,
    /// From the loop's first reading to its last, or to the first gap that found no room.
    pub(super) measured_ns: u64,
    /// Up to here a gap may be a slow tick or another slow interrupt, and is unknown; 0 where ticks are too
    /// short to be gaps.
    pub(super) slow_tick_max_ns: u64,
    /// Gaps whose largest part the host took.
    pub(super) host_gaps: Distribution,
    pub(super) host_gaps_per_s: f64,
    /// What the host took, of all gaps, over `measured_ns`.
    pub(super) host_share: f64,
    /// The gaps by kind: each under the kind that has its largest part.
    pub(super) gaps: BTreeMap<&'static str, Distribution>,
    /// All gaps' time by kind, part by part.
    pub(super) parts_ns: BTreeMap<&'static str, u64>,
    /// The times between two host gaps.
    pub(super) timeslices: Distribution,
    /// The run in cells of equal length: which share of each the host took.
    pub(super) timeline: Vec<f64>,
    pub(super) timeline_cell_ns: u64,
    /// `gap lengths` by bins.
    pub(super) bins: Vec<Bin>,
    pub(super) steal: StealReport,
    /// The kernel's own sum of the loop's run delay over the run; `null` if it does not tell.
    pub(super) run_delay_ns: Option<u64>,
    pub(super) cost: CostReport,
    pub(super) lost: Option<LostReport>,
    /// Only with `--gaps`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gap_list: Option<Vec<GapReport>>,
}

/// The figures of a set of lengths.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Distribution {
    pub(super) count: u64,
    pub(super) total_ns: u64,
    pub(super) p50_ns: u64,
    pub(super) p90_ns: u64,
    pub(super) p99_ns: u64,
    pub(super) p999_ns: u64,
    pub(super) max_ns: u64,
    pub(super) mean_ns: f64,
    /// The coefficient of variation.
    pub(super) cv: f64,
}

impl From<Figures> for Distribution {
    fn from(figures: Figures) -> Self {
        let Figures { count, total_ns, p50_ns, p90_ns, p99_ns, p999_ns, max_ns, .. } = figures;
        let (mean_ns, cv) = (figures.mean_ns, figures.variation);
        Self { count, total_ns, p50_ns, p90_ns, p99_ns, p999_ns, max_ns, mean_ns, cv }
    }
}

/// Gaps of similar length: at least `from_ns`, and shorter than the next bin's.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Bin {
    pub(super) from_ns: u64,
    pub(super) counts: BTreeMap<&'static str, u64>,
}

/// What the steal clock of a vCPU said.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct StealReport {
    /// `per_gap`, `stood_still`, `total`, `never` or `untold`.
    pub(super) told: &'static str,
    /// How far it moved in the run; steps of `step_ns`.
    pub(super) moved_ns: Option<u64>,
    pub(super) step_ns: u64,
}

/// What the loop itself cost.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct CostReport {
    pub(super) iterations: u64,
    /// Time in which the loop saw nothing, because it read counters.
    pub(super) blind_ns: u64,
    pub(super) blind_longest_ns: u64,
    pub(super) counter_reads: u64,
}

/// Gaps that found no room.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct LostReport {
    pub(super) count: u64,
    pub(super) first_ns: u64,
    pub(super) last_ns: u64,
}

/// One gap.
#[derive(Debug, Clone, Serialize)]
pub(super) struct GapReport {
    /// The reading of the clock before the gap.
    pub(super) start_ticks: u64,
    /// Since the loop's first reading.
    pub(super) start_ns: u64,
    pub(super) length_ns: u64,
    pub(super) kind: &'static str,
    /// Where in the gap the guest's last tick was; `null` if there was none, or it is not told.
    pub(super) tick_after_ns: Option<u64>,
    /// Kinds that have a part; they add up to `length_ns`.
    pub(super) parts_ns: BTreeMap<&'static str, u64>,
}

/// The reader's requests, and what the host took of the slow ones.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ReadingReport {
    pub(super) target: String,
    pub(super) vcpu: u16,
    pub(super) latency: Distribution,
    pub(super) errors: u64,
    pub(super) dropped: u64,
    /// Requests that took longer are slow.
    pub(super) slow_from_ns: u64,
    pub(super) slow: SlowReport,
    /// The slowest, longest first.
    pub(super) slowest: Vec<SlowRequest>,
}

/// All slow requests together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct SlowReport {
    pub(super) count: u64,
    pub(super) latency_ns: u64,
    /// What of the latency host gaps of the reader's vCPU overlapped.
    pub(super) host_ns: u64,
    /// Requests more than half of which they overlapped.
    pub(super) mostly_host: u64,
    /// Slow requests that end after gaps were lost, and are in no other number here.
    pub(super) unattributable: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct SlowRequest {
    pub(super) index: u64,
    /// Since the first reading of its vCPU's loop.
    pub(super) submitted_ns: u64,
    pub(super) latency_ns: u64,
    pub(super) host_ns: u64,
}

impl Report {
    pub(super) fn schema() -> &'static str {
        SCHEMA
    }
}

impl ClockReport {
    pub(super) fn new(clock: Clock, rate: TickRate) -> Self {
        let kind = if clock.is_tsc() { "tsc" } else { "monotonic_raw" };
        Self { kind, ticks_per_s: rate.ticks(1_000_000_000) }
    }
}

/// What `--calibrate` says.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Calibration {
    schema: &'static str,
    pub(super) clock: ClockReport,
    pub(super) vcpus: Vec<VcpuCalibration>,
}

impl Calibration {
    pub(super) fn new(clock: Clock, rate: TickRate, vcpus: Vec<VcpuCalibration>) -> Self {
        Self { schema: CALIBRATION_SCHEMA, clock: ClockReport::new(clock, rate), vcpus }
    }
}

/// How fine the loop of one vCPU is.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct VcpuCalibration {
    pub(super) vcpu: u16,
    /// One turn of the loop.
    pub(super) iteration_p50_ns: u64,
    pub(super) iteration_p999_ns: u64,
    pub(super) iteration_max_ns: u64,
    /// One reading of the counters: the blind time after each gap.
    pub(super) counters_p50_ns: u64,
    pub(super) counters_p999_ns: u64,
    /// The shortest gap that can be told: what 999 of 1000 turns stay below.
    pub(super) shortest_gap_ns: u64,
}

impl VcpuCalibration {
    pub(super) fn new(vcpu: u16, steps: &Figures, reads: &Figures) -> Self {
        Self {
            vcpu,
            iteration_p50_ns: steps.p50_ns,
            iteration_p999_ns: steps.p999_ns,
            iteration_max_ns: steps.max_ns,
            counters_p50_ns: reads.p50_ns,
            counters_p999_ns: reads.p999_ns,
            shortest_gap_ns: steps.p999_ns,
        }
    }
}
