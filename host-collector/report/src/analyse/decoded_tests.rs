//! How often an analysis decodes each stream of a run.

use super::analyse;
use super::drawn::{
    OFFSET_NS, VM1_VCPU1, clock_sample, guest_at, host_at, manifest, names, run_dir, stream,
    streams, vm,
};
use std::collections::BTreeMap;
use vslice_core::clock::tsc::{TscRelation, TscSample};
use vslice_core::samples::{Call, Look, SampleItem};
use vslice_core::units::{HostNs, Tid, VcpuId};
use vslice_trace::evidence::EvidenceLevel;
use vslice_trace::manifest::{Manifest, TscReading, TscRecord, VcpuTsc};
use vslice_trace::observation::ObservationRecord;
use vslice_trace::{
    ClockSample, HogGapItem, ObservedItem, RequestItem, RunDir, VmName, decoded, read_all,
};
use vslice_wire::Request;

/// How often the analysis decodes all of each stream, and how often it opens it.
fn decoded(run: &RunDir) -> BTreeMap<String, (f64, u64)> {
    let _of_whoever_was_before = decoded::take(run.path());
    analyse(run.path()).unwrap();
    let analysed = decoded::take(run.path());
    let times = |(path, of): (&std::path::PathBuf, &decoded::Decoded)| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let items = match name.split_once('-').unwrap().0 {
            "events" => read_all::<vslice_core::host_event::HostEvent>(path).unwrap().0.len(),
            "requests" => read_all::<RequestItem>(path).unwrap().0.len(),
            "clock" => read_all::<ClockSample>(path).unwrap().0.len(),
            "observed" => read_all::<ObservedItem>(path).unwrap().0.len(),
            "gaps" => read_all::<HogGapItem>(path).unwrap().0.len(),
            "samples" => read_all::<SampleItem>(path).unwrap().0.len(),
            other => panic!("{other} is read as well"),
        };
        (name, (of.items_count as f64 / items as f64, of.opened_count))
    };
    analysed.iter().map(times).collect()
}

fn times<const COUNT: usize>(streams: [(&str, u64); COUNT]) -> BTreeMap<String, (f64, u64)> {
    let times = |(name, times): (&str, u64)| (format!("{name}.vsr"), (times as f64, times));
    streams.map(times).into()
}

/// The drawn run, with all that it writes.
fn drawn(manifest: &Manifest) -> (tempfile::TempDir, RunDir) {
    let (scratch, run) = run_dir(manifest);
    names(&run);
    streams(&run, &[0, 500, 1150], true);
    (scratch, run)
}

fn vm_name(name: &str) -> VmName {
    VmName::try_from(name).unwrap()
}

/// The hog of a VM's vCPU1 misses when vm1's vCPU1 is off its pCPU.
fn hog_gaps(run: &RunDir, vm: &str) {
    let gap =
        |(start, end)| HogGapItem { vcpu: VcpuId(1), start: guest_at(start), end: guest_at(end) };
    let gaps = [(30, 90), (99, 401), (599, 752), (999, 1201), (1400, 1500)].map(gap);
    stream(&run.hog_gaps_path(&vm_name(vm)), gaps.into(), true);
}

#[test]
fn a_run_without_hogs_is_decoded_once() {
    let (_scratch, run) = drawn(&manifest());
    let once = [("clock-vm1", 1), ("events-0", 1), ("events-1", 1), ("requests-vm1", 1)];
    assert_eq!(decoded(&run), times(once));
}

#[test]
fn requests_of_several_vcpus_are_decoded_once() {
    let mut manifest = manifest();
    let vcpu0 = manifest.vms[0].threads[1].clone();
    manifest.vms[0].threads.push(vslice_trace::thread::ThreadRecord {
        tid: Tid(150),
        vcpu: Some(VcpuId(0)),
        ..vcpu0
    });
    let (_scratch, run) = drawn(&manifest);
    let (clock, requests) = (run.clock_path(&vm_name("vm1")), run.requests_path(&vm_name("vm1")));
    [&clock, &requests].into_iter().for_each(|path| std::fs::remove_file(path).unwrap());
    let samples = [0, 1].map(|vcpu| [0, 500, 1150].map(|us| clock_sample(vcpu, us, us)));
    stream(&clock, samples.concat(), true);
    let request = |index: u64| {
        let vcpu = u16::try_from(index % 2).unwrap();
        RequestItem::Request(Request {
            index,
            submitted: guest_at(50 + index * 10),
            completed: guest_at(55 + index * 10),
            vcpu_submitted: vcpu,
            vcpu_completed: vcpu,
            result: 4096,
        })
    };
    stream(&requests, (0..10).map(request).collect(), true);
    let once = [("clock-vm1", 1), ("events-0", 1), ("events-1", 1), ("requests-vm1", 1)];
    assert_eq!(decoded(&run), times(once));
}

/// Where requests are placed by a clock that a hog's timeslices make better, all switches must be known first.
#[test]
fn events_are_decoded_twice_where_a_hog_is_part_of_the_clock_that_places_requests() {
    let (_scratch, run) = drawn(&manifest());
    hog_gaps(&run, "vm1");
    // However many guests have hogs.
    let samples = [0, 500, 1150].map(|us| clock_sample(1, us, us));
    stream(&run.clock_path(&vm_name("vm2")), samples.into(), true);
    hog_gaps(&run, "vm2");
    let expected = [
        ("clock-vm1", 1),
        ("clock-vm2", 1),
        ("events-0", 2),
        ("events-1", 2),
        ("gaps-vm1", 1),
        ("gaps-vm2", 1),
        ("requests-vm1", 1),
    ];
    assert_eq!(decoded(&run), times(expected));
    let clock = &analyse(run.path()).unwrap().clock;
    let vcpu = &clock.vcpus[0];
    assert_eq!((vcpu.stays, vcpu.hog_check.absences, vcpu.hog_check.violations), (2, 3, 0));
}

#[test]
fn hogs_of_a_guest_that_reads_nothing_are_checked_in_the_one_pass() {
    let mut manifest = manifest();
    manifest.vms[0] = vm("vm1", manifest.vms[0].pid, VM1_VCPU1, false);
    let (_scratch, run) = drawn(&manifest);
    hog_gaps(&run, "vm1");
    let once = [("clock-vm1", 1), ("events-0", 1), ("events-1", 1), ("gaps-vm1", 1)];
    assert_eq!(decoded(&run), times(once));
    let clock = &analyse(run.path()).unwrap().clock;
    assert_eq!((clock.vcpus[0].stays, clock.vcpus[0].hog_check.absences), (2, 3));
}

#[test]
fn hogs_are_checked_in_the_one_pass_where_kvm_tells_the_clock() {
    let mut manifest = manifest();
    let sample = |us| TscSample {
        before: host_at(us),
        tsc: host_at(us).0,
        after: HostNs(host_at(us).0 + 1),
    };
    manifest.host_tsc = [10, 500, 900].map(sample).into();
    let relation = TscRelation { offset_ticks: -OFFSET_NS.cast_signed(), scaling: None };
    let readings = vec![TscReading { from: host_at(10), until: host_at(901), relation }];
    let vcpus = vec![VcpuTsc { vcpu: VcpuId(1), readings }];
    manifest.vms[0].tsc = TscRecord { vcpus, missing: None };
    let (_scratch, run) = drawn(&manifest);
    hog_gaps(&run, "vm1");
    let once =
        [("clock-vm1", 1), ("events-0", 1), ("events-1", 1), ("gaps-vm1", 1), ("requests-vm1", 1)];
    assert_eq!(decoded(&run), times(once));
    let clock = &analyse(run.path()).unwrap().clock;
    assert_eq!((clock.vcpus[0].stays, clock.vcpus[0].hog_check.absences), (0, 3));
}

#[test]
fn observed_requests_are_decoded_once() {
    let mut manifest = manifest();
    manifest.vms[0].observation = Some(ObservationRecord::default());
    let (_scratch, run) = drawn(&manifest);
    let settled = |us| ObservedItem::Settled(guest_at(us));
    stream(&run.observed_path(&vm_name("vm1")), (0..9).map(settled).collect(), true);
    assert_eq!(decoded(&run)["observed-vm1.vsr"], (1.0, 1));
}

#[test]
fn samples_are_decoded_once() {
    let mut manifest = manifest();
    manifest.evidence.level = EvidenceLevel::Sampled;
    let (_scratch, run) = drawn(&manifest);
    let (tid, call, state, wchan) = (VM1_VCPU1, Call::Running, None, None);
    let look =
        |us| SampleItem::Look(Look { time: host_at(us), tid, call, state, wchan: wchan.clone() });
    stream(&run.samples_path(&vm_name("vm1")), (0..9).map(look).collect(), true);
    assert_eq!(decoded(&run)["samples-vm1.vsr"], (1.0, 1));
}
