//! What the analysis makes of the run of [`super::drawn`], whose figures are known beforehand.

use super::drawn::*;
use super::*;
use crate::summary::Warning;
use crate::summary::clock::{ClockMethod, HogCheck, KvmCheck};
use crate::summary::model::{Relation, RunStatus};
use vslice_core::clock::host_time::HostTimeSample;
use vslice_core::clock::tsc::{TscRelation, TscSample};
use vslice_core::extent::Extent;
use vslice_core::host_event::{
    BlockEvent, BlockStep, HostEvent, HostEventKind, KvmEvent, PrevState,
};
use vslice_core::join::{NoPhase, Part, Phase};
use vslice_core::timeline::Reason;
use vslice_core::units::{HostNs, PcpuId, Tid, VcpuId};
use vslice_trace::disk::DiskRecord;
use vslice_trace::host::WholeDisk;
use vslice_trace::manifest::{Status, TscReading, TscRecord, VcpuTsc, Window};
use vslice_trace::quota::{GroupRecord, Quota, Throttling};
use vslice_trace::recorded_disks;
use vslice_trace::thread::{HostThread, ThreadRecord};
use vslice_trace::{ClockSample, HogGapItem, RequestItem, VmName, read_all};
use vslice_wire::{Dropped, Request};

fn parts(summary: &Summary) -> Vec<(Part, u64)> {
    let parts = Part::ALL.map(|part| (part, summary.parts.all.get(part)));
    parts.into_iter().filter(|(_, ns)| *ns > 0).collect()
}

fn notices(summary: &Summary) -> String {
    let texts: Vec<String> = summary.warnings.iter().map(ToString::to_string).collect();
    texts.join("\n")
}

#[test]
fn a_whole_run_has_the_figures_that_were_drawn() {
    let (_scratch, run) = run_dir(&manifest());
    names(&run);
    streams(&run, &[0, 500, 1150], true);
    let summary = analyse(run.path()).unwrap();
    assert_eq!(summary.status, RunStatus::Complete);
    assert_eq!(summary.measured_ns, 1_100_000);
    assert_eq!((summary.requests.count, summary.requests.unattributable), (2, 0));
    let drawn = [
        (Part::OnPcpu, 200_000),
        (Part::PreemptWait, 300_000),
        (Part::WakeupDelay, 50_000),
        (Part::BqlWait, 100_000),
    ];
    // The clock rounds each end to a nanosecond.
    let summed = parts(&summary);
    assert_eq!(summed.len(), drawn.len(), "{summed:?}");
    for ((part, ns), (drawn_part, drawn_ns)) in summed.into_iter().zip(drawn) {
        assert!(part == drawn_part && ns.abs_diff(drawn_ns) <= 4, "{part:?}: {ns} of {drawn_ns}");
    }
    let vcpu = summary.vcpus.iter().find(|vcpu| vcpu.tid == VM1_VCPU1).unwrap();
    // 400 to 600 and 750 to 1000; the record begins with the one before them.
    assert_eq!((vcpu.timeslices.count, vcpu.timeslices.mean_ns), (2, Some(225_000)));
    assert_eq!(vcpu.antagonists[0].thread.name, "vm2 vCPU1");
    // 100 to 400, 700 to 750, and 1000 to 1200, which touches the window and counts whole.
    assert_eq!(vcpu.antagonists[0].ran_ns, 550_000);
    assert_eq!(summary.hogs.iter().map(|hog| hog.count).collect::<Vec<_>>(), [77, 77]);
    assert_eq!(summary.clock.bound_ns, Some(2));
    let [waits] = &summary.lock_waits[..] else { panic!("{:?}", summary.lock_waits) };
    assert_eq!((waits.reason, waits.count, waits.total_ns), (Reason::Bql, 1, 100_000));
    assert_eq!(waits.released_by.name, "vm1 main loop");
}

#[test]
fn a_census_that_cannot_be_read_costs_names_and_not_the_report() {
    let (_scratch, run) = run_dir(&manifest());
    streams(&run, &[0, 500, 1150], true);
    std::fs::write(run.path().join("threads.json"), "[{").unwrap();
    let too_large = std::fs::File::create(run.path().join("threads_end.json")).unwrap();
    too_large.set_len(vslice_trace::JSON_BYTES_MAX + 1).unwrap();
    let summary = analyse(run.path()).unwrap();
    assert_eq!(summary.requests.count, 2);
    let said = notices(&summary);
    assert!(said.contains("threads.json cannot be read (EOF while parsing"), "{said}");
    assert!(said.contains("threads_end.json cannot be read (it is larger than 67108864"), "{said}");
}

#[test]
fn what_a_census_had_no_room_for_is_said() {
    let mut manifest = manifest();
    manifest.cost.threads_left_out_count = 12;
    manifest.cost.commands_left_out_count = 3;
    let (_scratch, run) = run_dir(&manifest);
    names(&run);
    streams(&run, &[0, 500, 1150], true);
    let said = notices(&analyse(run.path()).unwrap());
    assert!(said.contains("12 more threads than are kept of one"), "{said}");
    assert!(said.contains("command lines of 3 processes"), "{said}");
}

/// On vm2's vCPU1's pCPU, in its last stay but one, a shell bears a process that runs two programs, and a
/// second vslice comes by.
#[test]
fn antagonists_of_a_run_have_the_names_and_processes_that_they_had() {
    let (_scratch, run) = run_dir(&manifest());
    names(&run);
    streams(&run, &[0, 500, 1150], true);
    let thread = |tid, comm: &str, is_vslice, command: Option<&str>| HostThread {
        tid: Tid(tid),
        pid: Tid(tid),
        comm: comm.to_owned(),
        is_kernel: false,
        is_vslice,
        command: command.map(str::to_owned),
    };
    let there = [
        thread(300, "bash", false, Some("bash -l")),
        thread(400, "vslice-pinned", true, Some("./vslice attach web1")),
    ];
    run.write_json("threads.json", &there).unwrap();
    run.write_json("threads_end.json", &[thread(301, "cc1", false, Some("cc1 -O2 a.c"))]).unwrap();
    let at = |us, kind| HostEvent { time: host_at(us), pcpu: PcpuId(1), kind };
    let comm =
        |us, comm: &str| at(us, HostEventKind::Comm { tid: Tid(301), comm: comm.to_owned() });
    let (runs, preempted) = (PrevState::Runnable, PrevState::RunnablePreempted);
    let events = vec![
        switch(20, VM2_VCPU1, preempted, VM1_VCPU1),
        switch(100, VM1_VCPU1, preempted, Tid(400)),
        switch(150, Tid(400), runs, Tid(300)),
        at(180, HostEventKind::Fork { pid: Tid(301), tid: Tid(301), parent_pid: Tid(300) }),
        comm(200, "bash"),
        switch(200, Tid(300), runs, Tid(301)),
        comm(230, "cc1"),
        switch(400, Tid(301), runs, VM1_VCPU1),
        switch(1200, VM1_VCPU1, preempted, VM2_VCPU1),
    ];
    std::fs::remove_file(run.events_path(PcpuId(1))).unwrap();
    stream(&run.events_path(PcpuId(1)), events, true);
    let summary = analyse(run.path()).unwrap();
    let vcpu = summary.vcpus.iter().find(|vcpu| vcpu.tid == VM1_VCPU1).unwrap();
    let rows: Vec<_> = vcpu
        .antagonists
        .iter()
        .map(|row| {
            (row.thread.name.as_str(), row.ran_ns, row.processes.count, row.command.as_deref())
        })
        .collect();
    assert_eq!(
        rows,
        [
            ("cc1", 170_000, 1, Some("cc1 -O2 a.c")),
            ("bash", 80_000, 2, Some("bash -l")),
            ("another vslice (pid 400)", 50_000, 1, Some("./vslice attach web1")),
        ]
    );
    assert_eq!((vcpu.wait_ns, vcpu.idle_ns, vcpu.others_ns, vcpu.unseen_ns), (300_000, 0, 0, 0));
    assert_eq!(vcpu.antagonists[2].thread.kind, Relation::OtherVslice);
}

const DISK: u32 = 254 << 20;
/// Born during the run.
const WORKER: Tid = Tid(150);
const STRANGER: Tid = Tid(900);

/// vm1's disk: blocks 0 and 1 at sectors 1000 to 1015.
fn on_disk(manifest: Manifest) -> Manifest {
    let mut manifest = manifest;
    manifest.vms[0].disk = Some(DiskRecord {
        is_direct: Some(true),
        pattern: vslice_spec::Pattern::Seq,
        size_bytes: 1 << 20,
        offset_bytes: 0,
        whole_disk: Some(WholeDisk { name: String::from("vda"), device: DISK, first_sector: 0 }),
        missing: None,
        extents: vec![Extent { offset_bytes: 0, sector: 1000, length_bytes: 1 << 20 }],
        extents_missing: None,
    });
    manifest
}

/// The I/O of both requests: the first by vm1's main loop, the second by a newborn worker.
fn io_streams(run: &RunDir) {
    let io = |us, step, tid, (device, sector)| {
        let kind = HostEventKind::Block(BlockEvent { step, tid, device, sector, sectors: 8 });
        HostEvent { time: host_at(us), pcpu: PcpuId(0), kind }
    };
    let (submitted, completed) = (BlockStep::Submitted, BlockStep::Completed);
    let fork = HostEventKind::Fork { pid: VM1_LOOP, tid: WORKER, parent_pid: VM1_LOOP };
    let events = vec![
        io(70, submitted, VM1_LOOP, (DISK, 1000)),
        // Somebody else's, and another disk's.
        io(80, submitted, STRANGER, (DISK, 1008)),
        io(85, completed, Tid(0), (DISK, 1008)),
        io(90, completed, Tid(0), (DISK + 1, 1000)),
        io(150, completed, STRANGER, (DISK, 1000)),
        HostEvent { time: host_at(560), pcpu: PcpuId(0), kind: fork },
        io(570, submitted, WORKER, (DISK, 1008)),
        io(720, completed, Tid(0), (DISK, 1008)),
    ];
    let path = run.events_path(PcpuId(0));
    std::fs::remove_file(&path).unwrap();
    let mut events = [events, vec![waking(700)]].concat();
    events.sort_by_key(|event| event.time);
    stream(&path, events, true);
}

#[test]
fn io_is_given_to_the_requests_and_crossed_with_the_vcpu() {
    let (_scratch, run) = run_dir(&on_disk(manifest()));
    names(&run);
    streams(&run, &[0, 500, 1150], true);
    io_streams(&run);
    let summary = analyse(run.path()).unwrap();
    let io = &summary.io.classes.all;
    assert_eq!((io.known, io.unphased), (2, 0), "{:?}", io.unphased_by);
    let drawn = [
        (Phase::Queued, Part::OnPcpu, 20_000 + 20_000),
        (Phase::Device, Part::OnPcpu, 30_000 + 30_000),
        (Phase::Device, Part::PreemptWait, 50_000),
        (Phase::Device, Part::WakeupDelay, 20_000),
        (Phase::Device, Part::BqlWait, 100_000),
        (Phase::Completed, Part::OnPcpu, 50_000 + 50_000),
        (Phase::Completed, Part::PreemptWait, 250_000),
        (Phase::Completed, Part::WakeupDelay, 30_000),
    ];
    for (phase, part, drawn_ns) in drawn {
        let ns = io.get(phase, part);
        assert!(ns.abs_diff(drawn_ns) <= 4, "{phase:?} {part:?}: {ns} of {drawn_ns}");
    }
    let drawn_ns: u64 = drawn.iter().map(|(.., ns)| ns).sum();
    assert!(summary.classes.all.latency_ns.abs_diff(drawn_ns) <= 8);
    let off = [Part::PreemptWait, Part::WakeupDelay];
    let inactivity_ns = off.map(|part| io.get(Phase::Completed, part)).iter().sum();
    assert_eq!((io.inactivity_ns, io.inactive), (inactivity_ns, 2));
    assert_eq!(summary.io.disks[0].device.as_deref(), Some("vda"));
    let marks = summary.worst[0].io.unwrap();
    assert!(marks.submitted_ns.abs_diff(20_000) <= 2 && marks.completed_ns.abs_diff(100_000) <= 2);
    assert!(
        summary.environment.details["vms"][0]["disk"]["extents"].as_array().unwrap().is_empty()
    );
}

#[test]
fn a_disk_that_was_not_recorded_has_a_reason_and_no_phases() {
    let mut manifest = on_disk(manifest());
    recorded_disks::mark_unrecorded(&mut manifest, &["block/block_rq_issue"]);
    assert_eq!(recorded_disks::devices(&manifest.vms), [DISK]);
    assert!(recorded_disks::target(&manifest.vms[0]).is_some());
    recorded_disks::mark_unrecorded(&mut manifest, &["block/block_rq_complete"]);
    let (_scratch, run) = run_dir(&manifest);
    names(&run);
    streams(&run, &[0, 500, 1150], true);
    io_streams(&run);
    let summary = analyse(run.path()).unwrap();
    assert_eq!(summary.io.classes.all.unphased_by.not_recorded, 2);
    let reason = summary.io.disks[0].reason.as_deref();
    assert_eq!(reason, Some("this kernel has no tracepoint block/block_rq_complete"));
    assert_eq!(summary.io.disks[0].device, None);
}

#[test]
fn a_loss_on_any_pcpu_hides_the_io_of_its_time() {
    let (_scratch, run) = run_dir(&on_disk(manifest()));
    names(&run);
    streams(&run, &[0, 500, 1150], true);
    io_streams(&run);
    let kind = HostEventKind::Lost { until: host_at(440), count: 1 };
    let loss = HostEvent { time: host_at(430), pcpu: PcpuId(7), kind };
    stream(&run.events_path(PcpuId(7)), vec![loss], true);
    let summary = analyse(run.path()).unwrap();
    let by = [&summary.worst[0], &summary.worst[1]].map(|worst| worst.io_unknown);
    assert_eq!(by, [Some(NoPhase::Lost), None]);
}

/// What is lost beyond the window changes nothing in it, and what is lost on two pCPUs at once is one loss of
/// time.
#[test]
fn losses_take_the_time_of_the_window_that_they_cover() {
    let (_scratch, run) = run_dir(&manifest());
    names(&run);
    streams(&run, &[0, 500, 1150], true);
    let loss = |pcpu, from, until| {
        let kind = HostEventKind::Lost { until: host_at(until), count: 3 };
        let event = HostEvent { time: host_at(from), pcpu: PcpuId(pcpu), kind };
        stream(&run.events_path(PcpuId(pcpu)), vec![event], true);
    };
    // The window ends at 1100.
    loss(7, 900, 3_000_000);
    loss(8, 850, 950);
    loss(9, 1_150, 1_160);
    let lost = analyse(run.path()).unwrap().lost;
    assert_eq!((lost.records, lost.intervals, lost.total_ns), (6, 2, 250_000));
}

#[test]
fn exits_split_the_time_on_a_pcpu_and_are_counted_by_reason() {
    let (_scratch, run) = run_dir(&manifest());
    names(&run);
    streams(&run, &[0, 500, 1150], true);
    let path = run.events_path(PcpuId(1));
    std::fs::remove_file(&path).unwrap();
    let kvm = |us, event| {
        let kind = HostEventKind::Kvm { tid: VM1_VCPU1, event };
        HostEvent { time: host_at(us), pcpu: PcpuId(1), kind }
    };
    let io = KvmEvent::UserspaceExit { reason: 2, errno: 0 };
    let preempted = PrevState::RunnablePreempted;
    let events = vec![
        switch(20, VM2_VCPU1, preempted, VM1_VCPU1),
        kvm(30, KvmEvent::GuestEntry),
        kvm(70, KvmEvent::GuestExit { isa: 2, reason: 0x7b }),
        kvm(80, io),
        switch(100, VM1_VCPU1, preempted, VM2_VCPU1),
        switch(400, VM2_VCPU1, PrevState::Runnable, VM1_VCPU1),
        kvm(420, KvmEvent::GuestEntry),
        switch(600, VM1_VCPU1, preempted, VM2_VCPU1),
    ];
    stream(&path, events, true);
    let summary = analyse(run.path()).unwrap();
    let rows: Vec<_> = summary
        .exits
        .iter()
        .map(|row| (row.reason.as_str(), row.count, [row.kvm_ns, row.vmm_ns, row.off_ns]))
        .collect();
    let us = |us: [u64; 3]| us.map(|us| us * 1_000);
    let expected = [("io", 1, us([10, 40, 300])), ("KVM_EXIT_IO", 1, us([0, 40, 300]))];
    assert_eq!(rows, expected);
    assert_eq!(summary.cost.kvm_events, 4);
    // Request 0 from 50 to 450.
    let split = summary.worst[0].chain[0].split.unwrap();
    let split_ns = [split.guest_ns, split.kvm_ns, split.vmm_ns];
    let drawn_ns = us([20, 10, 20]);
    assert!(split_ns.iter().zip(drawn_ns).all(|(ns, drawn)| ns.abs_diff(drawn) <= 2), "{split:?}");
    assert_eq!(split.exits, 1);
}

#[test]
fn exits_that_were_asked_for_and_are_not_there_are_said() {
    for (accelerator, plan, said) in [
        // Older runs say both in words only.
        ("tcg", serde_json::json!({ "exits": true }), "guests under TCG have none"),
        ("kvm", serde_json::json!({ "exits": true }), "KVM has not traced any"),
        ("kvm", serde_json::json!({ "exits": false }), ""),
        ("tcg", serde_json::Value::Null, ""),
    ] {
        let accelerator_before = Some(accelerator.to_owned());
        let mut manifest = Manifest { accelerator_before, plan, ..manifest() };
        manifest.vms.iter_mut().for_each(|vm| vm.accelerator = None);
        let (_scratch, run) = run_dir(&manifest);
        names(&run);
        streams(&run, &[0, 500, 1150], true);
        let notices = notices(&analyse(run.path()).unwrap());
        assert_eq!(notices.contains("exits were asked for"), !said.is_empty(), "{notices}");
        assert!(notices.contains(said), "{notices}");
    }
}

#[test]
fn drops_of_the_guest_are_counted() {
    let (_scratch, run) = run_dir(&manifest());
    names(&run);
    streams(&run, &[0, 1150], true);
    let vm1 = VmName::try_from("vm1").unwrap();
    std::fs::remove_file(run.requests_path(&vm1)).unwrap();
    let dropped = Dropped { count: 3, first: guest_at(50), last: guest_at(60) };
    stream(&run.requests_path(&vm1), vec![RequestItem::Dropped(dropped)], true);
    let summary = analyse(run.path()).unwrap();
    assert_eq!((summary.requests.count, summary.requests.dropped), (0, 3));
}

#[test]
fn threads_that_were_not_watched_everywhere_are_said() {
    let mut manifest = manifest();
    manifest.cost.uncovered_threads_count = 3;
    let (_scratch, run) = run_dir(&manifest);
    let summary = analyse(run.path()).unwrap();
    assert!(notices(&summary).contains("3 of 7 threads of the VMs"), "{}", notices(&summary));
}

/// The VMs have four threads that were there from the start.
#[test]
fn what_recording_could_not_keep_is_said_from_a_share_on() {
    let mut manifest = manifest();
    let thread = manifest.vms[0].threads[0].clone();
    manifest.vms[0].threads.extend(std::iter::repeat_n(thread, 5));
    manifest.cost.uncovered_threads_count = 1;
    assert_eq!(facts::uncovered(&manifest), None, "1 of 10");
    manifest.cost.uncovered_threads_count = 2;
    let told = facts::uncovered(&manifest).unwrap().to_string();
    assert!(told.contains("2 of 11 threads"), "{told}");

    manifest.cost.events_count = 1_000;
    manifest.cost.stacks_refused_count = 10;
    assert_eq!(facts::stacks_refused(&manifest), None, "1 %");
    manifest.cost.stacks_refused_count = 11;
    let told = facts::stacks_refused(&manifest).unwrap().to_string();
    assert!(told.starts_with("11 switches, 1.1 % of the recorded events"), "{told}");

    assert_eq!(facts::contradicted(1, 1_000), None, "1 in 1,000");
    let told = facts::contradicted(2, 1_000).unwrap().to_string();
    assert!(told.starts_with("2 scheduler events, 0.2 % of them, contradict the ones"), "{told}");
    assert_eq!(facts::contradicted(0, 0), None);
}

/// The host's TSC counts nanoseconds as well. vm1's vCPU runs from 20 us to 5 ms.
#[test]
fn kvms_word_makes_the_clock_exact_or_violates_it() {
    let summary = |offsets: [i64; 2]| {
        let mut manifest = manifest();
        manifest.window = Some(Window { start_ns: host_at(0), end_ns: Some(host_at(6000)) });
        let sample = |us| TscSample {
            before: host_at(us),
            tsc: host_at(us).0 + 20,
            after: HostNs(host_at(us).0 + 40),
        };
        manifest.host_tsc = [10, 3100, 3300, 3500, 4000].map(sample).into();
        let reading = |(from, until, offset_ticks): (u64, u64, i64)| TscReading {
            from: host_at(from),
            until: host_at(until + 1),
            relation: TscRelation { offset_ticks, scaling: None },
        };
        let readings = [(10, 3300, offsets[0]), (4000, 4000, offsets[1])].map(reading).into();
        let vcpus = vec![VcpuTsc { vcpu: VcpuId(1), readings }];
        manifest.vms[0].tsc = TscRecord { vcpus, missing: None };
        let (_scratch, run) = run_dir(&manifest);
        names(&run);
        streams(&run, &[0, 6000], true);
        std::fs::remove_file(run.events_path(PcpuId(1))).unwrap();
        let preempted = PrevState::RunnablePreempted;
        let events = vec![
            switch(20, VM2_VCPU1, preempted, VM1_VCPU1),
            switch(5000, VM1_VCPU1, preempted, VM2_VCPU1),
        ];
        stream(&run.events_path(PcpuId(1)), events, true);
        analyse(run.path()).unwrap()
    };
    let truth = -OFFSET_NS.cast_signed();
    let exact = summary([truth, truth]);
    assert_eq!(exact.clock.method, ClockMethod::TscOffset);
    // At 10 us the vCPU was not running. At 3.5 ms KVM said one thing before and another after.
    assert_eq!(
        exact.clock.vcpus[0].kvm_check,
        KvmCheck { readings: 3, violations: 0, worst_ns: 0 }
    );
    let off = summary([truth, truth + 5_000]);
    assert_eq!(off.clock.method, ClockMethod::Exchange);
    let check = off.clock.vcpus[0].kvm_check;
    assert_eq!((check.readings, check.violations), (3, 1));
    assert!(check.worst_ns.abs_diff(5_000) < 50, "{check:?}");
    assert!(notices(&off).contains("contradict the clock round trips"), "{}", notices(&off));
}

/// vm2's vCPU is in no event: what became of it is unknown, unless the scheduler's counts tell.
#[test]
fn a_thread_that_kept_its_pcpu_ran_through_the_window() {
    let summary = |kept: Option<PcpuId>| {
        let mut manifest = manifest();
        let threads = &mut manifest.vms[1].threads;
        threads.iter_mut().find(|thread| thread.tid == VM2_VCPU1).unwrap().kept = kept;
        let (_scratch, run) = run_dir(&manifest);
        names(&run);
        let preempted = PrevState::RunnablePreempted;
        let events = vec![
            switch(20, Tid(900), preempted, VM1_VCPU1),
            switch(600, VM1_VCPU1, preempted, Tid(900)),
        ];
        stream(&run.events_path(PcpuId(1)), events, true);
        let summary = analyse(run.path()).unwrap();
        let vcpu = summary.vcpus.iter().find(|vcpu| vcpu.tid == VM2_VCPU1).unwrap().clone();
        (vcpu.on_pcpu_ns, vcpu.observed_ns)
    };
    let (on_ns, observed_ns) = summary(Some(PcpuId(0)));
    assert!(on_ns > 0 && on_ns == observed_ns, "{on_ns} of {observed_ns}");
    assert_eq!(summary(None), (0, observed_ns));
}

#[test]
fn what_kvm_told_the_guest_of_the_hosts_clock_is_held_against_the_map() {
    let summary = |late_ns: u64| {
        let mut manifest = manifest();
        let time = |us: u64, late_ns: u64| HostTimeSample {
            vcpu: VcpuId(1),
            asked_ticks: guest_at(us).0,
            answered_ticks: guest_at(us + 2).0,
            earliest: HostNs(host_at(us + 1).0 + late_ns),
            latest: HostNs(host_at(us + 1).0 + late_ns),
        };
        let other = HostTimeSample { vcpu: VcpuId(0), ..time(100, 900_000) };
        let times = vec![time(100, 0), other, time(300, late_ns)];
        manifest.vms[0].guest.as_mut().unwrap().host_times = times;
        let (_scratch, run) = run_dir(&manifest);
        names(&run);
        streams(&run, &[0, 500], true);
        analyse(run.path()).unwrap()
    };
    let check = summary(0).clock.vcpus[0].ptp_check;
    assert_eq!(check, KvmCheck { readings: 2, violations: 0, worst_ns: 0 });
    let late = summary(80_000);
    let check = late.clock.vcpus[0].ptp_check;
    assert_eq!((check.readings, check.violations), (2, 1));
    assert!((60_000..80_000).contains(&check.worst_ns), "{check:?}");
    assert!(notices(&late).contains("as guests read it through KVM"), "{}", notices(&late));
}

/// vm1's vCPU is off its pCPU from 100 to 400 and from 600 to 750 us, and from 1000 to 1200, where the
/// record ends.
#[test]
fn a_hog_that_ran_while_its_vcpu_was_off_its_pcpu_violates_the_clock() {
    let summary = |gaps_us: &[(u64, u64)]| {
        let (_scratch, run) = run_dir(&manifest());
        names(&run);
        streams(&run, &[0, 500, 1150], true);
        let gap = |(start, end): &(u64, u64)| HogGapItem {
            vcpu: VcpuId(1),
            start: guest_at(*start),
            end: guest_at(*end),
        };
        let path = run.hog_gaps_path(&VmName::try_from("vm1").unwrap());
        stream(&path, gaps_us.iter().map(gap).collect(), true);
        analyse(run.path()).unwrap()
    };
    let sound = summary(&[(30, 90), (99, 401), (599, 752), (999, 1201), (1400, 1500)]);
    let told = |absences, violations| HogCheck { absences, violations, worst_ns: 0 };
    assert_eq!(sound.clock.vcpus[0].hog_check, told(3, 0));
    assert_eq!(sound.clock.vcpus[0].stays, 2, "from 400 to 600 us, and from 750 to 1000");
    let unsound = summary(&[(30, 90), (99, 401), (640, 760), (999, 1201), (1400, 1500)]);
    let check = unsound.clock.vcpus[0].hog_check;
    assert_eq!((check.absences, check.violations), (3, 1));
    assert!((38_000..40_000).contains(&check.worst_ns), "{check:?}");
    assert_eq!(unsound.clock.vcpus[0].stays, 1, "nothing rests on the gap that does not fit");
    assert!(notices(&unsound).contains("hogs ran 1 time"), "{}", notices(&unsound));
    assert_eq!(summary(&[]).clock.vcpus[0].hog_check, told(0, 0));
}

/// vm2's vCPU leaves at 20 and at 100 without having come on between.
#[test]
fn only_what_contradicts_itself_in_the_window_is_warned_of() {
    let warned = |window_start_us| {
        let mut manifest = manifest();
        let end_ns = Some(host_at(1100));
        manifest.window = Some(Window { start_ns: host_at(window_start_us), end_ns });
        let (_scratch, run) = run_dir(&manifest);
        names(&run);
        streams(&run, &[0, 1150], true);
        std::fs::remove_file(run.events_path(PcpuId(1))).unwrap();
        let events = [20, 100].map(|us| switch(us, VM2_VCPU1, PrevState::Runnable, VM1_VCPU1));
        stream(&run.events_path(PcpuId(1)), events.into(), true);
        notices(&analyse(run.path()).unwrap()).contains("contradict the ones before them")
    };
    assert!(warned(100));
    assert!(!warned(101));
}

#[test]
fn a_killed_run_is_partial_and_its_sleeps_have_no_reason() {
    let (_scratch, run) = run_dir(&killed_manifest());
    streams(&run, &[0, 500, 1150], false);
    let summary = analyse(run.path()).unwrap();
    assert!(matches!(summary.status, RunStatus::Partial { .. }));
    assert_eq!(summary.measured_ns, 1_200_000, "up to the last event");
    assert_eq!((summary.requests.count, summary.requests.unattributable), (2, 0));
    assert_eq!(summary.parts.all.get(Part::BqlWait), 0);
    let unknown_ns = summary.parts.all.get(Part::Unknown);
    assert!(unknown_ns.abs_diff(100_000) <= 4, "the sleep: {unknown_ns}");
    assert!(summary.hogs.is_empty(), "nobody knows whether they counted: {:?}", summary.hogs);
    assert!(!notices(&summary).contains("0 bytes"), "no block was cut: {}", notices(&summary));
}

/// Nothing is known of a pCPU after the end of its record, however long others' records are.
#[test]
fn what_comes_after_a_cut_is_unknown() {
    let (_scratch, run) = run_dir(&killed_manifest());
    names(&run);
    streams(&run, &[0, 500, 1150], false);
    let path = run.events_path(PcpuId(1));
    std::fs::remove_file(&path).unwrap();
    let (preempted, runs) = (PrevState::RunnablePreempted, PrevState::Runnable);
    let events = vec![
        switch(20, VM2_VCPU1, preempted, VM1_VCPU1),
        switch(100, VM1_VCPU1, preempted, VM2_VCPU1),
        switch(400, VM2_VCPU1, runs, VM1_VCPU1),
    ];
    stream(&path, events, false);
    let summary = analyse(run.path()).unwrap();
    assert_eq!((summary.requests.count, summary.requests.unattributable), (2, 2));
    assert_eq!(summary.lost.records, 0, "the kernel has dropped none");
    assert!(notices(&summary).contains("pCPU1"), "{}", notices(&summary));
}

/// The host died when the run had just been closed: its manifest is on the disk, and its events are not.
#[test]
fn a_run_whose_files_are_empty_is_not_complete() {
    let (_scratch, run) = run_dir(&manifest());
    names(&run);
    streams(&run, &[0, 500, 1150], true);
    for pcpu in [PcpuId(0), PcpuId(1)] {
        std::fs::write(run.events_path(pcpu), "").unwrap();
    }
    let summary = analyse(run.path()).unwrap();
    assert!(
        matches!(&summary.status, RunStatus::Partial { reason } if reason.contains("cut off")),
        "{:?}",
        summary.status
    );
    assert_eq!((summary.requests.count, summary.requests.unattributable), (2, 2));
    assert!(notices(&summary).contains("were cut off after 0.000 s"), "{}", notices(&summary));
    let page = crate::summary::render_full(&summary, crate::summary::Style::PLAIN);
    assert!(!page.contains("every scheduler event"), "{page}");
}

#[test]
fn a_run_that_ended_before_it_recorded_has_an_empty_report() {
    let why = String::from("vm1: the guest did not connect");
    let status = Status::Partial { why };
    let (_scratch, run) = run_dir(&Manifest { status, window: None, vms: vec![], ..manifest() });
    let summary = analyse(run.path()).unwrap();
    assert_eq!((summary.requests.count, summary.measured_ns), (0, 0));
    assert!(matches!(summary.status, RunStatus::Partial { reason } if reason.contains("vm1")));
}

#[test]
fn requests_without_a_clock_are_left_out_and_that_is_said() {
    let (_scratch, run) = run_dir(&manifest());
    names(&run);
    streams(&run, &[500], true);
    let summary = analyse(run.path()).unwrap();
    assert_eq!((summary.requests.count, summary.requests.unattributable_by.no_clock), (2, 2));
    assert_eq!((summary.classes.all.count, summary.latency_ns.max), (0, None));
    assert!(crate::summary::verdict::verdict(&summary).contains("No request could be placed"));
    assert!(notices(&summary).contains("vm1 vCPU1 has no clock map"), "{}", notices(&summary));
}

#[test]
fn a_clock_that_was_never_closed_rests_on_the_other_vcpus() {
    let (_scratch, run) = run_dir(&manifest());
    names(&run);
    streams(&run, &[0], true);
    let path = run.clock_path(&VmName::try_from("vm1").unwrap());
    let (mut samples, _) = read_all::<ClockSample>(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    samples.push(clock_sample(0, 1150, 1150));
    stream(&path, samples, true);
    let summary = analyse(run.path()).unwrap();
    assert_eq!(summary.requests.count, 2);
    assert!(notices(&summary).contains("was not read again on vCPU1"), "{}", notices(&summary));
}

#[test]
fn a_clock_that_stepped_leaves_out_what_lies_at_the_step() {
    let (_scratch, run) = run_dir(&manifest());
    names(&run);
    // Request 0 ends at 450, request 1 goes from 550 to 800; the clock is set on between 480 and
    // 520.
    streams(&run, &[0, 100, 200, 300, 460, 480], true);
    let path = run.clock_path(&VmName::try_from("vm1").unwrap());
    let (mut samples, _) = read_all::<ClockSample>(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let after = [600, 700, 800, 900, 1000, 1150];
    samples.extend(after.map(|us| clock_sample(1, us, us + 50_000)));
    stream(&path, samples, true);
    let summary = analyse(run.path()).unwrap();
    let by = summary.requests.unattributable_by;
    assert_eq!((summary.requests.count, by.clock_stepped), (2, 1));
    assert_eq!((summary.classes.all.count, summary.requests.unattributable), (1, 1));
    let [clock] = &summary.clock.vcpus[..] else { panic!("{:?}", summary.clock) };
    assert_eq!((clock.cut_count, clock.requests), (1, 1));
    assert_eq!((clock.cuts[0].after_ns, clock.cuts[0].before_ns), (480_000, 600_000));
    assert!((49_000_000..=50_000_000).contains(&clock.cuts[0].step_ns), "{clock:?}");
    assert!(notices(&summary).contains("the clock of vm1 vCPU1 stepped 1 time"));
}

#[test]
fn each_vcpu_has_its_own_clock_and_those_that_differ_are_named() {
    let mut manifest = manifest();
    let vcpu0 = ThreadRecord {
        tid: Tid(150),
        role: vslice_trace::thread::ThreadRole::Vcpu(VcpuId(0)),
        vcpu: Some(VcpuId(0)),
        ..manifest.vms[0].threads[1].clone()
    };
    manifest.vms[0].threads.push(vcpu0);
    let (_scratch, run) = run_dir(&manifest);
    names(&run);
    streams(&run, &[0, 500, 1150], true);
    let vm1 = VmName::try_from("vm1").unwrap();
    let path = run.clock_path(&vm1);
    let (mut samples, _) = read_all::<ClockSample>(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    samples.extend([10, 400, 1140].map(|us| clock_sample(0, us, us + 15_700)));
    // A vCPU that the VMM does not have: whatever the guest says of it is passed over.
    samples.extend([20, 600].map(|us| clock_sample(9, us, us * 2)));
    stream(&path, samples, true);
    std::fs::remove_file(run.requests_path(&vm1)).unwrap();
    let request = |index, (from, from_vcpu): (u64, u16), (to, to_vcpu): (u64, u16)| {
        let ahead = |vcpu| if vcpu == 0 { 15_700 } else { 0 };
        RequestItem::Request(Request {
            index,
            submitted: guest_at(from + ahead(from_vcpu)),
            completed: guest_at(to + ahead(to_vcpu)),
            vcpu_submitted: from_vcpu,
            vcpu_completed: to_vcpu,
            result: 4096,
        })
    };
    let requests = vec![
        request(0, (50, 1), (450, 1)),
        request(1, (500, 0), (600, 1)),
        request(2, (610, 0), (620, 0)),
        request(3, (630, 9), (640, 9)),
    ];
    stream(&run.requests_path(&vm1), requests, true);
    let summary = analyse(run.path()).unwrap();
    let by = summary.requests.unattributable_by;
    // Nothing was recorded of vCPU0's thread.
    assert_eq!((summary.requests.count, by.no_clock, by.not_recorded), (4, 1, 2));
    assert_eq!(summary.classes.all.count, 1);
    let lengths_ns: Vec<u64> = summary.worst.iter().map(|worst| worst.latency_ns).collect();
    let drawn_ns = [400_000_u64, 100_000, 10_000];
    assert!(lengths_ns.iter().zip(drawn_ns).all(|(ns, drawn)| ns.abs_diff(drawn) <= 8));
    let clocks: Vec<_> = summary.clock.vcpus.iter().map(|row| (row.vcpu.0, row.requests)).collect();
    assert_eq!(clocks, [(0, 2), (1, 1)]);
    let [apart] = &summary.clock.apart[..] else { panic!("{:?}", summary.clock.apart) };
    assert_eq!((apart.vcpu, apart.other_vcpu), (VcpuId(0), VcpuId(1)));
    assert!((15_699_000..=15_700_000).contains(&apart.apart_ns), "{apart:?}");
}

#[test]
fn a_quota_that_was_used_up_is_said_and_tells_a_throttled_wait() {
    let throttling = |throttled_count, throttled_ns| Throttling { throttled_count, throttled_ns };
    let group = |path: &str, before, after| GroupRecord {
        path: path.to_owned(),
        vcpus: vec![VcpuId(1)],
        quota: Some(Quota { quota_us: 20_000, period_us: 50_000 }),
        before,
        after,
    };
    for (groups, used_up_count, expected) in [
        (vec![group("/a", throttling(5, 900), Some(throttling(5, 900)))], None, None),
        (vec![group("/a", throttling(5, 900), None)], None, None),
        // 1 % of the 1.1 ms of the window.
        (vec![group("/a", throttling(5, 0), Some(throttling(6, 11_000)))], Some(1), None),
        (
            vec![group("/a", throttling(5, 0), Some(throttling(6, 11_001)))],
            Some(1),
            Some((1, 11_001, "/a")),
        ),
        (
            vec![
                group("/a/b", throttling(5, 1_000), Some(throttling(7, 301_000))),
                group("/a", throttling(0, 0), Some(throttling(3, 100_000))),
            ],
            Some(5),
            Some((5, 400_000, "/a")),
        ),
    ] {
        let mut manifest = manifest();
        manifest.vms[0].groups = groups;
        let (_scratch, run) = run_dir(&manifest);
        names(&run);
        streams(&run, &[0, 500, 1150], true);
        let summary = analyse(run.path()).unwrap();
        let used_up = summary.vcpus[0].quota.map(|quota| quota.used_up_count);
        assert_eq!((used_up, summary.vcpus[1].quota), (used_up_count, None));
        let throttled: Vec<Warning> = summary
            .warnings
            .into_iter()
            .filter(|warning| matches!(warning, Warning::Throttled { .. }))
            .collect();
        let expected = expected.map(|(count, throttled_ns, group)| Warning::Throttled {
            vm: "vm1".to_owned(),
            count,
            throttled_ns,
            group: group.to_owned(),
            quota_ns: Some(20_000_000),
            period_ns: Some(50_000_000),
        });
        assert_eq!(throttled, expected.as_slice());
        let is_throttled = |vm: usize| {
            let vm = &manifest.vms[vm];
            let vcpus = vm.threads.iter().filter(|thread| thread.vcpu.is_some());
            vcpus.into_iter().any(|thread| facts::is_throttled(vm, thread))
        };
        let used = |group: &GroupRecord| group.throttled().is_some();
        let is_used = manifest.vms[0].groups.iter().any(used);
        assert_eq!((is_throttled(0), is_throttled(1)), (is_used, false));
    }
}

#[test]
fn another_schema_is_refused() {
    let schema = String::from("vslice.run/0");
    let (_scratch, run) = run_dir(&Manifest { schema, ..manifest() });
    assert!(matches!(analyse(run.path()), Err(AnalyseError::Schema { .. })));
}
