//! Sides drawn by hand, for tests.

use super::because::{ClassMeans, SlowRequests, WaitedFor};
use super::fingerprint::{Condition, ConditionKind};
use super::metrics::{Metric, Reader};
use super::spread::Spread;
use super::vcpus::VcpuFigures;
use super::{Comparison, LeftOut, Run, Side};
use crate::summary::OffReason;
use std::collections::BTreeMap;
use vslice_core::join::Part;
use vslice_core::timeline::Reason;
use vslice_core::units::VcpuId;

/// Runs with these timeslice CVs and waits for the big lock, in nanoseconds a second.
#[must_use]
pub fn side(name: &str, has_iothread: bool, runs: &[(f64, f64)]) -> Side {
    let runs = runs.iter().enumerate().map(|(at, (cv, wait_ns_per_s))| Run {
        path: format!("{name}/{}", at + 1),
        readers: vec![Reader { vm: "vm1".to_owned(), vcpu: VcpuId(2) }],
        values: vec![
            (Metric::TimesliceCv, *cv),
            (Metric::BqlWaitPerSecond, *wait_ns_per_s),
            (Metric::BqlWaitPerRequest, wait_ns_per_s / 1_800.0),
            (Metric::LatencyP50, 205_000.0 + 1_000.0 * at as f64),
            (Metric::LatencyP99, 3_000_000.0 * cv),
            (Metric::Iops, 1_800.0 - 10.0 * at as f64),
            (Metric::Share(Part::OnPcpu), 1.0 - wait_ns_per_s / 1e8),
            (Metric::Share(Part::BqlWait), wait_ns_per_s / 1e8),
            (Metric::Share(Part::Throttled), 0.0),
        ],
        slow: Some(slow(
            &[(WaitedFor::State(Part::BqlWait), 3e6 * cv), (WaitedFor::Device, 90_000.0)],
            &[],
        )),
        vcpus: vec![vcpu("vm1", 3e7, &[(OffReason::Left(Reason::Bql), *wait_ns_per_s)], &[])],
        timeslices: Some(timeslices(*cv > 1.0, at as u64)),
        conditions: vec![condition("QEMU", "7.2.22"), condition("accelerator", "kvm")],
        has_iothread: Some(has_iothread),
        lost_count: 0,
        is_observed: false,
    });
    Side { path: name.to_owned(), runs: runs.collect(), left_out: vec![] }
}

/// Slices of 4 ms, cut short now and then.
fn timeslices(do_jitter: bool, at: u64) -> Spread {
    let p10_ns = if do_jitter { 600_000 } else { 3_100_000 } + 40_000 * at;
    Spread { p10_ns, p50_ns: 3_990_000, p90_ns: if do_jitter { 7_980_000 } else { 4_010_000 } }
}

/// One that is neither of the disk nor of who serves it.
#[must_use]
pub fn condition(name: &str, value: &str) -> Condition {
    Condition { name: name.to_owned(), value: value.to_owned(), kind: ConditionKind::Other }
}

/// Six runs against six, in which the claim holds.
#[must_use]
pub fn held() -> (Side, Side) {
    let a =
        [(1.21, 3.1e7), (1.30, 2.7e7), (1.24, 3.4e7), (1.18, 2.9e7), (1.27, 3.0e7), (1.25, 3.3e7)];
    let b =
        [(0.71, 1.2e6), (0.74, 0.9e6), (0.70, 1.4e6), (0.73, 1.1e6), (0.69, 1.0e6), (0.72, 1.3e6)];
    (side("main-loop", false, &a), side("iothread", true, &b))
}

/// The same with everything that there is to warn of.
#[must_use]
pub fn doubtful() -> Comparison {
    let (a, b) = doubtful_sides();
    Comparison::new(a, b)
}

/// Its sides.
#[must_use]
pub fn doubtful_sides() -> (Side, Side) {
    let (mut a, mut b) = held();
    b.runs.iter_mut().for_each(|run| run.conditions[0].value = "8.0.1".to_owned());
    a.runs[2].conditions[1].value = "tcg".to_owned();
    a.runs[3].lost_count = 17;
    a.runs[5].is_observed = true;
    a.runs[4].readers.push(Reader { vm: "vm2".to_owned(), vcpu: VcpuId(0) });
    b.runs[0].has_iothread = None;
    let reason = "it ended early: interrupted".to_owned();
    b.left_out.push(LeftOut { path: "iothread/7".to_owned(), reason });
    (a, b)
}

/// One run against three, in one of which A has none of it.
#[must_use]
pub fn thin() -> Comparison {
    let (a, b) = thin_sides();
    Comparison::new(a, b)
}

/// Its sides.
#[must_use]
pub fn thin_sides() -> (Side, Side) {
    let mut a = side("one", false, &[(1.2, 0.0)]);
    a.runs[0].values.retain(|(metric, _)| *metric != Metric::Iops);
    (a, side("three", true, &[(0.7, 1e5), (0.8, 2e5), (0.9, 3e5)]))
}

/// Slow requests that wait for so many nanoseconds each, and who ran meanwhile.
#[must_use]
pub fn slow(causes: &[(WaitedFor, f64)], ran: &[(&str, f64)]) -> SlowRequests {
    let ran = ran.iter().map(|(name, ns)| ((*name).to_owned(), *ns)).collect();
    let is_wait = |what| matches!(what, WaitedFor::State(Part::PreemptWait | Part::WakeupDelay));
    let wait = causes.iter().filter(|(what, _)| is_wait(*what)).map(|(_, ns)| ns).sum();
    let causes = causes.iter().copied().collect();
    let p99 = ClassMeans { causes, wait, ran, ..ClassMeans::default() };
    SlowRequests { all: ClassMeans { causes: BTreeMap::new(), ..p99.clone() }, p99: Some(p99) }
}

/// A vCPU by its figures, in nanoseconds a second; of those who are not among `ran` nobody is known.
#[must_use]
pub fn vcpu(
    vm: &str,
    run_delay: f64,
    off: &[(OffReason, f64)],
    ran: &[(&str, f64)],
) -> VcpuFigures {
    VcpuFigures {
        vm: vm.to_owned(),
        vcpu: VcpuId(1),
        run_delay,
        off: off.to_vec(),
        ran: ran.iter().map(|(name, figure)| ((*name).to_owned(), *figure)).collect(),
        unlisted_max: 2e5,
    }
}

/// Plain attaches of this VM: no request, one vCPU.
#[must_use]
pub fn attached(name: &str, runs: &[VcpuFigures]) -> Side {
    let mut side = side(name, false, &vec![(1.0, 0.0); runs.len()]);
    for (run, vcpu) in side.runs.iter_mut().zip(runs) {
        run.values.clear();
        run.slow = None;
        run.timeslices = None;
        run.has_iothread = None;
        run.vcpus = vec![vcpu.clone()];
    }
    side
}

/// A quiet VM, and the same one with a busy neighbour.
#[must_use]
pub fn neighbour() -> (Side, Side) {
    let bql = [(OffReason::Left(Reason::Bql), 2e6)];
    let quiet = vcpu("web1", 5.1e6, &bql, &[("web1 main loop", 4.6e6)]);
    let busy = vcpu("web1", 702e6, &bql, &[("sh", 690e6), ("web1 main loop", 5e6)]);
    (attached("quiet", &[quiet]), attached("busy", &[busy]))
}
