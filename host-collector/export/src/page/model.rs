//! What the page is drawn from, as it is embedded in it. Times are nanoseconds unless the name says otherwise; unknown is
//! `null`.

use super::cause::CAUSES;
use serde::Serialize;
use vslice_core::join::{Part, Phase};
use vslice_core::units::{PcpuId, VcpuId};
use vslice_report::summary::Summary;
use vslice_report::summary::model::{AttributionName, Relation};

/// The value of [`Data::schema`].
pub(super) const SCHEMA: &str = "vslice.page/1";

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct Data<'a> {
    pub(super) schema: &'static str,
    pub(super) title: &'a str,
    pub(super) summary: &'a Summary,
    pub(super) sentence: String,
    pub(super) warnings: Vec<String>,
    pub(super) full_text: String,
    pub(super) parts: Vec<Name>,
    pub(super) phases: Vec<Name>,
    pub(super) causes: Vec<Name>,
    /// Which part of the run it is about.
    pub(super) part: Option<String>,
    /// When that begins and ends, since the measured window began.
    pub(super) window_from_ns: u64,
    pub(super) window_ns: u64,
    /// The one that the sentence is about first.
    pub(super) groups: Vec<Group>,
    /// Requests of groups that are not in the list.
    pub(super) requests_beyond: u64,
    pub(super) worst: Vec<Worst>,
    /// When events of the host were lost.
    pub(super) lost: &'a [Lost],
    /// Further such intervals.
    pub(super) lost_beyond: u64,
    /// Off-CPU time by stack, the longest first: see `folded.rs`.
    pub(super) folded: Vec<(String, u64)>,
}

/// What something is called in JSON and on the page.
#[derive(Debug, Serialize)]
pub(super) struct Name {
    pub(super) name: &'static str,
    pub(super) label: &'static str,
}

/// The requests of a VM, a disk and an operation.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Group {
    /// Its place in the summary's `observed.operations`.
    pub(super) place: Option<usize>,
    pub(super) vm: String,
    pub(super) disk: Option<String>,
    pub(super) operation: &'static str,
    pub(super) made_by: &'static str,
    pub(super) count: u64,
    pub(super) attributed: u64,
    pub(super) faster: u64,
    pub(super) sent_ns_from: Option<u64>,
    pub(super) latency_ns: Latency,
    pub(super) bands: Vec<Band>,
    pub(super) sample: SampleColumns,
    pub(super) over_time: Stretches,
}

/// Percentiles as a summary has them.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Latency {
    pub(super) min: Option<u64>,
    pub(super) mean: Option<u64>,
    pub(super) p50: Option<u64>,
    pub(super) p90: Option<u64>,
    pub(super) p99: Option<u64>,
    pub(super) p999: Option<u64>,
    pub(super) p9999: Option<u64>,
    pub(super) max: Option<u64>,
}

/// The attributed requests between two percentiles. The parts add up to their latency, and so do the phases and the
/// causes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Band {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) count: u64,
    pub(super) latency_from_ns: u64,
    pub(super) latency_to_ns: u64,
    pub(super) latency_ns: u64,
    pub(super) parts_ns: [u64; Part::ALL.len()],
    pub(super) phases_ns: [u64; Phase::ALL.len()],
    pub(super) causes_ns: [u64; CAUSES.len()],
    pub(super) inactivity_ns: u64,
}

/// Some requests in order of their starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct SampleColumns {
    /// Of so many.
    pub(super) of: u64,
    /// Of these, so many of the slowest are all there.
    pub(super) slowest: u64,
    pub(super) start_us: Vec<i64>,
    pub(super) latency_us: Vec<u64>,
    pub(super) dominant: Vec<usize>,
    pub(super) cause: Vec<usize>,
}

/// What the requests that began in each of some stretches of time come to. Each is `length_ns` long and begins a
/// multiple of that after the measured window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Stretches {
    pub(super) length_ns: u64,
    /// Which multiple; those in which none began are left out.
    pub(super) places: Vec<i64>,
    pub(super) requests: Vec<u64>,
    pub(super) attributed: Vec<u64>,
    /// Sums of the attributed ones, by part, phase and cause; those that took no time are left out.
    pub(super) parts_ns: Vec<Column>,
    pub(super) phases_ns: Vec<Column>,
    pub(super) causes_ns: Vec<Column>,
}

/// Sums of one part, phase or cause over all stretches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Column {
    /// Its number.
    pub(super) of: usize,
    pub(super) ns: Vec<u64>,
}

/// A slow request. Times in it count from its start.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Worst {
    pub(super) group: usize,
    pub(super) heading: String,
    pub(super) start_ns: i64,
    pub(super) latency_ns: u64,
    pub(super) clock_bound_ns: u64,
    pub(super) bounds: Vec<BoundRow>,
    pub(super) process: String,
    pub(super) pid: Option<u32>,
    pub(super) sector: Option<u64>,
    pub(super) bytes: Option<u64>,
    pub(super) result: i32,
    pub(super) attribution: AttributionName,
    pub(super) unattributable: Option<&'static str>,
    pub(super) io_unknown: Option<&'static str>,
    pub(super) parts_ns: [u64; Part::ALL.len()],
    pub(super) phases_ns: [u64; Phase::ALL.len()],
    pub(super) causes_ns: [u64; CAUSES.len()],
    pub(super) phases: Vec<PhaseRow>,
    pub(super) spans: Vec<SpanRow>,
    pub(super) cut_spans: u64,
    pub(super) pcpus: Vec<PcpuRow>,
    pub(super) marks: Vec<MarkRow>,
}

/// A time that the guest told, and by how much it may be off on the host's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct BoundRow {
    pub(super) what: &'static str,
    pub(super) at_ns: u64,
    pub(super) bound_ns: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct PhaseRow {
    pub(super) phase: usize,
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
    pub(super) vcpu: Option<VcpuId>,
    /// For so long in it nothing was in flight, as the request was in several pieces: that counts as queued.
    pub(super) gaps_ns: u64,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct SpanRow {
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
    pub(super) part: usize,
    pub(super) label: String,
    pub(super) vcpu: Option<VcpuId>,
    pub(super) pcpu: Option<PcpuId>,
    pub(super) who: Vec<WhoRow>,
    pub(super) others_ns: u64,
    pub(super) idle_ns: u64,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct WhoRow {
    pub(super) name: String,
    pub(super) group: Option<String>,
    pub(super) kind: Relation,
    pub(super) ran_ns: u64,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct PcpuRow {
    pub(super) pcpu: PcpuId,
    pub(super) stays: Option<Vec<StayRow>>,
    /// Why they are not known.
    pub(super) unknown: Option<&'static str>,
    pub(super) cut_stays: u64,
    pub(super) cut_ns: u64,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct StayRow {
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
    pub(super) name: String,
    pub(super) group: Option<String>,
    pub(super) kind: Relation,
    pub(super) is_own_vm: bool,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct MarkRow {
    pub(super) at_ns: u64,
    pub(super) label: String,
}

/// Events of a pCPU were lost, since the measured window began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Lost {
    pub(super) pcpu: PcpuId,
    pub(super) from_us: i64,
    /// `None` where it goes on to the end.
    pub(super) to_us: Option<i64>,
}
