//! Parts of the drawn run.

use super::chosen::Asked;
use super::drawn::{
    VM1_VCPU1, guest_at, host_at, killed_manifest, manifest, names, run_dir, stream, streams,
};
use super::drawn_observed::{host_streams, observed_manifest, observed_stream, request};
use super::{SummaryObserver, analyse, analyse_chosen};
use crate::summary::selection::{LeftOutBy, Selection};
use crate::summary::{OffReason, Style, Summary, render, render_full};
use vslice_core::host_event::{HostEvent, HostEventKind};
use vslice_core::timeline::Reason;
use vslice_core::units::{PcpuId, VcpuId};
use vslice_trace::observation::{ObservedCostRecord, ObservedOthersRecord};
use vslice_trace::{ObservedItem, RequestItem, RunDir, VmName};
use vslice_wire::{BlockOperation, Dropped};

pub(super) fn summary(run: &RunDir, asked: &Asked) -> Result<Summary, String> {
    let mut summary = SummaryObserver::default();
    analyse_chosen(run.path(), asked, &mut [&mut summary]).map_err(|error| error.to_string())?;
    Ok(summary.into_summary().expect("the end was told"))
}

fn drawn() -> (tempfile::TempDir, RunDir) {
    let (scratch, run) = run_dir(&manifest());
    names(&run);
    streams(&run, &[0, 500, 1150], true);
    (scratch, run)
}

fn stretch(since_us: u64, until_us: u64) -> Asked {
    let ns = |us: u64| Some(us * 1_000);
    Asked { since_ns: ns(since_us), until_ns: ns(until_us), ..Asked::default() }
}

fn of_vms(names: &[&str]) -> Asked {
    Asked { vms: names.iter().map(|name| (*name).to_owned()).collect(), ..Asked::default() }
}

fn selection(summary: &Summary) -> &Selection {
    summary.facts.selection.as_ref().expect("a part was asked for")
}

/// How long vm1's vCPU1 was seen, on its pCPU, and off it for each reason.
fn vcpu1(summary: &Summary) -> (u64, u64, Vec<(OffReason, u64, u64)>) {
    let row = summary.vcpus.iter().find(|row| row.tid == VM1_VCPU1).expect("it has a row");
    let off = row.off_cpu.iter().filter(|row| row.count > 0);
    let off = off.map(|row| (row.reason, row.count, row.total_ns)).collect();
    (row.observed_ns, row.on_pcpu_ns, off)
}

#[test]
fn what_begins_in_a_stretch_is_of_it_and_what_a_thread_did_is_cut_at_its_edges() {
    let (_scratch, run) = drawn();
    let part = summary(&run, &stretch(500, 900)).unwrap();
    let told = selection(&part);
    assert_eq!((told.since_ns, told.until_ns, told.of_ns), (500_000, 900_000, 1_100_000));
    assert_eq!((part.facts.measured_ns, part.requests.count), (400_000, 1));
    assert_eq!(told.left_out.reader, LeftOutBy { outside: 1, ..LeftOutBy::default() });
    assert_eq!((part.worst[0].index, part.worst[0].start_ns), (1, 550_000));
    let whole = analyse(run.path()).unwrap();
    let same = whole.worst.iter().find(|of| of.index == 1).unwrap();
    assert_eq!(&part.worst[0], same, "its parts are those that it has in the whole run");
    let off = vec![(OffReason::Left(Reason::Bql), 1, 100_000), (OffReason::WakeupDelay, 1, 50_000)];
    assert_eq!(vcpu1(&part), (400_000, 250_000, off));
    assert_eq!(part.vcpus[0].timeslices.count, 0, "both stays on the pCPU are cut");
    assert_eq!(part.lock_waits.iter().map(|row| row.count).sum::<u64>(), 1);
    let other = summary(&run, &stretch(100, 540)).unwrap();
    assert_eq!((other.requests.count, other.lock_waits.len()), (0, 0));
    assert!(render(&other, Style::PLAIN).contains("No request of the run is in this part of it"));
    assert_eq!(vcpu1(&other).1, 140_000);
}

#[test]
fn of_a_vm_that_is_chosen_it_is_told_who_had_its_pcpu_whoever_that_was() {
    let (_scratch, run) = drawn();
    let part = summary(&run, &of_vms(&["vm1"])).unwrap();
    assert_eq!(part.vcpus.len(), 1);
    let names = part.vcpus[0].antagonists.iter().map(|row| row.thread.name.as_str());
    assert_eq!(names.collect::<Vec<_>>(), ["vm2 vCPU1"]);
    assert_eq!((part.requests.count, part.clock.vcpus.len(), part.facts.hogs.len()), (2, 1, 1));
    let part = summary(&run, &of_vms(&["vm2"])).unwrap();
    assert_eq!(part.vcpus.iter().map(|row| row.vm.as_str()).collect::<Vec<_>>(), ["vm2"]);
    assert_eq!((part.requests.count, part.lock_waits.len(), part.clock.vcpus.len()), (0, 0, 0));
    assert_eq!(selection(&part).left_out.reader.other_vms, 2);
    let mut frames = part.stacks.iter().flat_map(|stack| &stack.frames);
    assert!(!frames.any(|frame| frame == "futex_wait_queue"), "that is vm1's: {:?}", part.stacks);
}

#[test]
fn faster_requests_are_counted_and_in_no_percentile_and_there_is_no_rate() {
    let (_scratch, run) = drawn();
    let slow = |ns| Asked { slower_than_ns: Some(ns), ..Asked::default() };
    let whole = analyse(run.path()).unwrap();
    let slowest_ns = whole.latency_ns.max.unwrap();
    let part = summary(&run, &slow(slowest_ns)).unwrap();
    assert_eq!((part.requests.count, part.latency_ns.min), (1, Some(slowest_ns)));
    assert_eq!(selection(&part).left_out.reader.faster, 1);
    assert!(whole.requests.iops.is_some() && part.requests.iops.is_none());
    let part = summary(&run, &slow(slowest_ns + 1)).unwrap();
    assert_eq!((part.requests.count, selection(&part).left_out.reader.faster), (0, 2));
    assert_eq!(part.vcpus, whole.vcpus, "what the threads did is not of requests");
}

#[test]
fn an_observed_request_is_of_each_vcpu_that_queued_issued_or_completed_it() {
    let (_scratch, run) = run_dir(&observed_manifest());
    names(&run);
    host_streams(&run);
    observed_stream(&run, vec![ObservedItem::Request(request(0, [110, 120, 450], [0, 0, 1]))]);
    let of = |vcpu| Asked { vcpus: vec![VcpuId(vcpu)], ..Asked::default() };
    for vcpu in [0, 1] {
        let part = summary(&run, &of(vcpu)).unwrap();
        let vcpus = part.vcpus.iter().filter(|row| row.vm == "vm1").map(|row| row.vcpu.0);
        assert_eq!(vcpus.collect::<Vec<_>>(), [vcpu]);
        assert_eq!(part.observed.unwrap().guests[0].count, 1, "vCPU{vcpu}");
        assert!(part.facts.host_io.disks.iter().all(|disk| disk.operations.is_empty()));
    }
    let path = run.observed_path(&VmName::try_from("vm1").unwrap());
    std::fs::remove_file(path).unwrap();
    observed_stream(&run, vec![ObservedItem::Request(request(0, [110, 120, 450], [0, 0, 0]))]);
    let part = summary(&run, &of(1)).unwrap();
    assert_eq!(selection(&part).left_out.observed.other_vcpus, 1);
    assert_eq!(selection(&part).left_out.host_io, 2, "which vCPU those are for is not seen");
    let reasons = part.facts.host_io.disks.iter().filter_map(|disk| disk.reason.as_deref());
    assert!(reasons.clone().count() == 2 && reasons.clone().all(|why| why.contains("vCPU")));
}

#[test]
fn what_is_not_there_is_an_error_that_says_what_is() {
    let (_scratch, run) = drawn();
    let error = |asked: &Asked| summary(&run, asked).unwrap_err();
    assert_eq!(
        error(&of_vms(&["vm1", "vm\x1b3"])),
        "no VM of the run is called 'vm?3': it has vm1, vm2"
    );
    let asked = Asked { vcpus: vec![VcpuId(1), VcpuId(7)], ..of_vms(&["vm2"]) };
    assert_eq!(error(&asked), "there is no vCPU7: the run has vm2 vCPU1");
    let empty = "there is nothing between 700 us and 700 us: the run is 1.10 ms long";
    assert_eq!(error(&stretch(700, 700)), empty);
    let beyond = "there is nothing after 1.1 ms: the run is 1.10 ms long";
    assert_eq!(error(&stretch(1_100, 5_000)), beyond);
    let (_scratch, killed) = run_dir(&killed_manifest());
    names(&killed);
    streams(&killed, &[0, 500, 1150], false);
    let error = summary(&killed, &stretch(1_200, 5_000)).unwrap_err();
    assert_eq!(error, "there is nothing after 1.2 ms: the run is 1.20 ms long");
    let told = summary(&killed, &stretch(500, 5_000)).unwrap();
    assert_eq!((told.facts.measured_ns, selection(&told).until_ns), (700_000, 1_200_000));
    let mut unmeasured = manifest();
    unmeasured.window = None;
    let (_scratch, unmeasured) = run_dir(&unmeasured);
    let error = summary(&unmeasured, &stretch(0, 5)).unwrap_err();
    assert!(error.starts_with("the run does not say when it was measured"), "{error}");
}

#[test]
fn losses_count_for_the_stretches_that_they_touch() {
    let (_scratch, run) = drawn();
    let path = run.events_path(PcpuId(0));
    std::fs::remove_file(&path).unwrap();
    let kind = HostEventKind::Lost { until: host_at(650), count: 9 };
    let lost = HostEvent { time: host_at(620), pcpu: PcpuId(0), kind };
    stream(&path, vec![lost], true);
    let vm1 = VmName::try_from("vm1").unwrap();
    std::fs::remove_file(run.requests_path(&vm1)).unwrap();
    let dropped = Dropped { count: 3, first: guest_at(900), last: guest_at(910) };
    stream(&run.requests_path(&vm1), vec![RequestItem::Dropped(dropped)], true);
    let of = |since_us, until_us| {
        let part = summary(&run, &stretch(since_us, until_us)).unwrap();
        (part.facts.lost.records, part.facts.lost.total_ns, part.requests.dropped)
    };
    assert_eq!(of(0, 600), (0, 0, 0));
    assert_eq!(of(600, 630), (9, 10_000, 0));
    assert_eq!(of(630, 800), (9, 20_000, 0));
    assert_eq!(of(800, 1000), (0, 0, 3));
}

#[test]
fn what_was_only_counted_over_all_of_the_run_is_not_told_of_a_stretch() {
    let mut manifest = observed_manifest();
    let record = manifest.vms[0].observation.as_mut().unwrap();
    record.slower_than_us = 200;
    record.lost_count = 5;
    record.others = vec![ObservedOthersRecord {
        device: 0,
        operation: BlockOperation::Write,
        is_sync: false,
        count: 1_000,
        bytes: 4096,
        total_ns: 1_000,
    }];
    record.cost =
        Some(ObservedCostRecord { cpu_ns: 500, events_count: 3, lost_count: 5, clock_read_ns: 20 });
    manifest.cost.uncovered_threads_count = 90;
    let (_scratch, run) = run_dir(&manifest);
    names(&run);
    host_streams(&run);
    observed_stream(&run, vec![ObservedItem::Request(request(0, [110, 120, 450], [0, 0, 1]))]);
    let guest = |summary: &Summary| summary.observed.as_ref().unwrap().guests[0].clone();
    let whole = analyse(run.path()).unwrap();
    assert_eq!((guest(&whole).faster, guest(&whole).lost_events), (1_000, 5));
    let part = summary(&run, &stretch(100, 200)).unwrap();
    let told = guest(&part);
    assert_eq!((told.count, told.faster, told.lost_events), (1, 0, 0));
    let per_request = |guest: crate::summary::observed::model::ObservedGuest| {
        guest.cost.unwrap().cpu_ns_per_request
    };
    assert_eq!((per_request(guest(&whole)), per_request(told)), (Some(0), None));
    let page = render_full(&part, Style::PLAIN);
    assert!(page.contains("those faster than 200 us not sent"), "{page}");
    let warned = "warning: of the whole run: 90 of 95 threads of the VMs started during the run";
    let said = page.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains(warned), "{page}");
    assert!(said.contains("written (of the whole run)"), "{page}");
    let vm1 = summary(&run, &of_vms(&["vm1"])).unwrap();
    assert_eq!(guest(&vm1).faster, 1_000, "all of its requests are told");
}
