//! What is compared of each run: one number of a summary for each metric.

use super::statistics::Scale;
use crate::summary::model::{Summary, Timeslices, Vcpu};
use crate::summary::verdict::label as part_label;
use crate::summary::{OffReason, text};
use serde::Serialize;
use vslice_core::join::Part;
use vslice_core::timeline::Reason;
use vslice_core::units::VcpuId;
use vslice_spec::quantity::{duration, percent};
use vslice_trace::evidence::EvidenceLevel;
use vslice_trace::manifest::Manifest;

/// If more than this share of a run's requests could not be placed on the host's clock, the others do not
/// represent the run.
pub const UNPLACED_SHARE_MAX: f64 = 0.1;

/// A number that each run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// The coefficient of variation of the timeslices of the reader's vCPU.
    TimesliceCv,
    /// How long the reader's vCPU slept on QEMU's big lock, per second of its observed time.
    BqlWaitPerSecond,
    /// The same per recorded request.
    BqlWaitPerRequest,
    /// The median latency.
    LatencyP50,
    /// The 99th percentile of the latency.
    LatencyP99,
    /// The 99.9th percentile of the latency.
    LatencyP999,
    /// Requests per second.
    Iops,
    /// I/O inactivity (see [`Part::is_inactivity`]) per request whose phases are known.
    InactivityPerRequest,
    /// The share of a part in the attributed requests' latency.
    Share(Part),
}

/// What a metric's numbers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Unit {
    /// A plain ratio, at least 0.
    #[serde(rename = "1")]
    One,
    /// Nanoseconds.
    #[serde(rename = "ns")]
    Nanoseconds,
    /// Nanoseconds per second, in [0, 1e9].
    #[serde(rename = "ns/s")]
    NanosecondsPerSecond,
    /// Times per second.
    #[serde(rename = "1/s")]
    PerSecond,
    /// A share of a whole, in [0, 1].
    #[serde(rename = "share")]
    Share,
}

/// The vCPU that makes the requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reader {
    /// Its VM.
    pub vm: String,
    /// Which of its vCPUs.
    pub vcpu: VcpuId,
}

impl Reader {
    /// The readers of a run: those of its plan, or else the vCPU that made the slowest request.
    #[must_use]
    pub fn all(manifest: &Manifest, summary: &Summary) -> Vec<Reader> {
        let planned = manifest
            .vms
            .iter()
            .filter_map(|vm| Some(Reader { vm: vm.name.clone(), vcpu: vm.reader_vcpu? }));
        let mut readers: Vec<Reader> = planned.collect();
        if let (true, Some(worst)) = (readers.is_empty(), summary.worst.first()) {
            readers.push(Reader { vm: worst.vm.clone(), vcpu: worst.vcpu });
        }
        readers
    }

    /// The timeslices of that vCPU; `None` if not every switch was recorded.
    #[must_use]
    pub fn timeslices<'a>(&self, summary: &'a Summary) -> Option<&'a Timeslices> {
        let is_recorded = summary.facts.evidence.level == EvidenceLevel::Recorded;
        self.of(summary).filter(|_| is_recorded).map(|vcpu| &vcpu.timeslices)
    }

    fn of<'a>(&self, summary: &'a Summary) -> Option<&'a Vcpu> {
        summary.vcpus.iter().find(|vcpu| vcpu.vm == self.vm && vcpu.vcpu == self.vcpu)
    }
}

impl Metric {
    /// Every one, in the order in which they are printed.
    pub fn all() -> impl Iterator<Item = Metric> {
        [
            Metric::TimesliceCv,
            Metric::BqlWaitPerSecond,
            Metric::BqlWaitPerRequest,
            Metric::LatencyP50,
            Metric::LatencyP99,
            Metric::LatencyP999,
            Metric::Iops,
            Metric::InactivityPerRequest,
        ]
        .into_iter()
        .chain(Part::ALL.into_iter().map(Metric::Share))
    }

    /// Its name in the JSON.
    #[must_use]
    pub fn key(self) -> String {
        match self {
            Metric::TimesliceCv => "timeslice_cv".to_owned(),
            Metric::BqlWaitPerSecond => "bql_wait_ns_per_s".to_owned(),
            Metric::BqlWaitPerRequest => "bql_wait_ns_per_request".to_owned(),
            Metric::LatencyP50 => "latency_p50_ns".to_owned(),
            Metric::LatencyP99 => "latency_p99_ns".to_owned(),
            Metric::LatencyP999 => "latency_p999_ns".to_owned(),
            Metric::Iops => "iops".to_owned(),
            Metric::InactivityPerRequest => "io_inactivity_ns_per_request".to_owned(),
            Metric::Share(part) => format!("share_{}", part.name()),
        }
    }

    /// Its name on a page.
    #[must_use]
    pub fn label(self) -> String {
        match self {
            Metric::TimesliceCv => "timeslice CV".to_owned(),
            Metric::BqlWaitPerSecond => "BQL wait per second".to_owned(),
            Metric::BqlWaitPerRequest => "BQL wait per request".to_owned(),
            Metric::LatencyP50 => "latency p50".to_owned(),
            Metric::LatencyP99 => "latency p99".to_owned(),
            Metric::LatencyP999 => "latency p99.9".to_owned(),
            Metric::Iops => "IOPS".to_owned(),
            Metric::InactivityPerRequest => "I/O inactivity per request".to_owned(),
            Metric::Share(part) if part.is_on_pcpu() => {
                format!("share of time {}", part_label(part))
            }
            Metric::Share(part) => format!("share of {}", part_label(part)),
        }
    }

    /// The unit of its numbers.
    #[must_use]
    pub fn unit(self) -> Unit {
        match self {
            Metric::TimesliceCv => Unit::One,
            Metric::BqlWaitPerSecond => Unit::NanosecondsPerSecond,
            Metric::Iops => Unit::PerSecond,
            Metric::Share(_) => Unit::Share,
            Metric::BqlWaitPerRequest
            | Metric::LatencyP50
            | Metric::LatencyP99
            | Metric::LatencyP999
            | Metric::InactivityPerRequest => Unit::Nanoseconds,
        }
    }

    /// How two of its means are compared.
    #[must_use]
    pub fn scale(self) -> Scale {
        match self {
            Metric::Share(_) => Scale::Difference,
            _ => Scale::Relative,
        }
    }

    /// Its value in one run; `None` if the run does not have it.
    #[must_use]
    pub fn of(self, summary: &Summary, reader: Option<&Reader>) -> Option<f64> {
        let is_recorded = summary.facts.evidence.level == EvidenceLevel::Recorded;
        let vcpu = || reader.filter(|_| is_recorded).and_then(|reader| reader.of(summary));
        // Requests that no clock could place have no latency, and no rate; where they are many, the others
        // are no fair sample of the run.
        let requests = &summary.requests;
        let unplaced_count = requests.unattributable_by.unplaced();
        let is_placed = requests.count > 0
            && unplaced_count as f64 <= UNPLACED_SHARE_MAX * requests.count as f64;
        let latency =
            |latency_ns: Option<u64>| latency_ns.filter(|_| is_placed).map(|ns| ns as f64);
        let ratio = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
        let (all, io) = (&summary.classes.all, &summary.io.classes.all);
        match self {
            Metric::TimesliceCv => vcpu()?.timeslices.cv,
            Metric::BqlWaitPerSecond => {
                let vcpu = vcpu()?;
                Some(ratio(bql_wait_ns(vcpu), vcpu.observed_ns)? * 1e9)
            }
            Metric::BqlWaitPerRequest => ratio(bql_wait_ns(vcpu()?), summary.requests.count),
            Metric::LatencyP50 => latency(summary.latency_ns.p50),
            Metric::LatencyP99 => latency(summary.latency_ns.p99),
            Metric::LatencyP999 => latency(summary.latency_ns.p999),
            Metric::Iops => requests.iops.filter(|_| is_placed),
            Metric::InactivityPerRequest if is_recorded && is_placed => {
                ratio(io.inactivity_ns, io.known)
            }
            Metric::Share(part) if is_recorded && is_placed => {
                ratio(summary.parts.all.get(part), all.latency_ns)
            }
            Metric::InactivityPerRequest | Metric::Share(_) => None,
        }
    }
}

/// How long a vCPU slept on the big lock, in nanoseconds: as its address proves, or, where that is not
/// known, as its stack makes likely.
fn bql_wait_ns(vcpu: &Vcpu) -> u64 {
    let is_bql = |reason| {
        let OffReason::Left(reason) = reason else { return false };
        matches!(reason, Reason::Bql | Reason::BqlFoundByBehaviour | Reason::BqlInferred)
    };
    vcpu.off_cpu.iter().filter(|off| is_bql(off.reason)).map(|off| off.total_ns).sum()
}

impl Unit {
    /// A number of this unit, as people read it.
    #[must_use]
    pub fn show(self, value: f64) -> String {
        match self {
            Unit::One => format!("{value:.2}"),
            Unit::Nanoseconds => duration(whole_ns(value)),
            Unit::NanosecondsPerSecond => format!("{}/s", duration(whole_ns(value))),
            Unit::PerSecond => text::iops(value),
            Unit::Share => percent(value),
        }
    }
}

/// Rounded to whole nanoseconds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a mean of lengths of time lies between them, so it is one"
)]
fn whole_ns(length_ns: f64) -> u64 {
    length_ns.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::example;

    fn reader(vcpu: u16) -> Reader {
        Reader { vm: "vm1".to_owned(), vcpu: VcpuId(vcpu) }
    }

    #[test]
    fn numbers_are_those_of_the_summary() {
        let summary = example::summary();
        let vcpu = summary.vcpus.iter().find(|vcpu| vcpu.vcpu == VcpuId(1)).unwrap();
        let off =
            vcpu.off_cpu.iter().find(|off| off.reason == OffReason::Left(Reason::Bql)).unwrap();
        assert!(off.total_ns > 0);
        let of = |metric: Metric| metric.of(&summary, Some(&reader(1))).unwrap();
        assert_eq!(Some(of(Metric::TimesliceCv)), vcpu.timeslices.cv);
        let per_second = off.total_ns as f64 / vcpu.observed_ns as f64 * 1e9;
        assert_eq!(of(Metric::BqlWaitPerSecond), per_second);
        assert_eq!(
            of(Metric::BqlWaitPerRequest),
            off.total_ns as f64 / summary.requests.count as f64
        );
        assert_eq!(of(Metric::LatencyP999), summary.latency_ns.p999.unwrap() as f64);
        assert_eq!(Some(of(Metric::Iops)), summary.requests.iops);
        let io = &summary.io.classes.all;
        assert_eq!(of(Metric::InactivityPerRequest), io.inactivity_ns as f64 / io.known as f64);
        let shares: f64 = Part::ALL.into_iter().map(|part| of(Metric::Share(part))).sum();
        assert!((shares - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_lock_that_is_inferred_counts_as_well() {
        let mut summary = example::summary();
        let vcpu = summary.vcpus.iter_mut().find(|vcpu| vcpu.vcpu == VcpuId(1)).unwrap();
        for off in &mut vcpu.off_cpu {
            off.total_ns = if off.reason == OffReason::Left(Reason::BqlInferred) { 7 } else { 0 };
        }
        assert_eq!(bql_wait_ns(vcpu), 7);
    }

    #[test]
    fn what_a_run_does_not_tell_is_no_number() {
        let summary = example::summary();
        assert_eq!(Metric::TimesliceCv.of(&summary, None), None);
        assert_eq!(Metric::TimesliceCv.of(&summary, Some(&reader(9))), None);
        assert_eq!(reader(9).timeslices(&summary), None);
        assert!(reader(1).timeslices(&summary).is_some_and(|timeslices| timeslices.count > 0));
        let sampled = example::sampled();
        assert_eq!(reader(1).timeslices(&sampled), None);
        let told = |metric: &Metric| metric.of(&sampled, Some(&reader(1))).is_some();
        let told: Vec<String> = Metric::all().filter(told).map(Metric::key).collect();
        let with_guests = ["latency_p50_ns", "latency_p99_ns", "latency_p999_ns", "iops"];
        assert!(told.iter().all(|key| with_guests.contains(&key.as_str())), "{told:?}");
    }

    #[test]
    fn requests_without_a_place_on_the_clock_are_no_latency_of_nothing() {
        let mut summary = example::summary();
        let of_requests =
            [Metric::LatencyP50, Metric::LatencyP999, Metric::Iops, Metric::Share(Part::OnPcpu)];
        let told =
            |summary: &Summary| of_requests.map(|of| of.of(summary, Some(&reader(1))).is_some());
        assert_eq!(told(&summary), [true; 4]);
        summary.requests.unattributable_by.no_clock = summary.requests.count;
        assert_eq!(told(&summary), [false; 4], "none has a latency");
        summary.requests.unattributable_by.no_clock = summary.requests.count / 8;
        assert_eq!(told(&summary), [false; 4], "too many have none");
        summary.requests.unattributable_by.no_clock = summary.requests.count / 11;
        assert_eq!(told(&summary), [true; 4]);
    }

    #[test]
    fn the_reader_is_that_of_the_plan_or_who_made_the_slowest_request() {
        let manifest = crate::analyse::drawn::manifest();
        let summary = example::summary();
        assert_eq!(Reader::all(&manifest, &summary), [reader(1)]);
        let mut unplanned = manifest;
        unplanned.vms.iter_mut().for_each(|vm| vm.reader_vcpu = None);
        let slowest = Reader { vm: summary.worst[0].vm.clone(), vcpu: summary.worst[0].vcpu };
        assert_eq!(Reader::all(&unplanned, &summary), [slowest]);
    }
}
