//! What the analysis makes of the run of [`super::drawn`], whose figures are known beforehand.

mod clocks;
mod damage;
mod host_io;
mod io;
mod locks;

use super::drawn::*;
use super::*;
use crate::summary::Warning;
use crate::summary::clock::{ClockMethod, HogCheck, KvmCheck};
use crate::summary::group::GroupKind;
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
use vslice_trace::image::ImageRecord;
use vslice_trace::manifest::{OtherVmRecord, Status, TscReading, TscRecord, VcpuTsc, Window};
use vslice_trace::quota::{GroupRecord, Quota, Throttling};
use vslice_trace::recorded_disks;
use vslice_trace::thread::{HelperRecord, HostThread, ThreadRecord, ThreadRole};
use vslice_trace::vmm::{Accelerator, Vmm};
use vslice_trace::{ClockSample, GroupItem, HogGapItem, RequestItem, VmName, read_all};
use vslice_wire::{Dropped, Request};

fn parts(summary: &Summary) -> Vec<(Part, u64)> {
    let parts = Part::ALL.map(|part| (part, summary.parts.all.get(part)));
    parts.into_iter().filter(|(_, ns)| *ns > 0).collect()
}

fn notices(summary: &Summary) -> String {
    let texts: Vec<String> = summary.facts.warnings.iter().map(ToString::to_string).collect();
    texts.join("\n")
}

#[test]
fn a_whole_run_has_the_figures_that_were_drawn() {
    let (_scratch, run) = run_dir(&manifest());
    names(&run);
    streams(&run, &[0, 500, 1150], true);
    let summary = analyse(run.path()).unwrap();
    assert_eq!(summary.facts.status, RunStatus::Complete);
    assert_eq!(summary.facts.measured_ns, 1_100_000);
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
    assert_eq!(summary.facts.hogs.iter().map(|hog| hog.count).collect::<Vec<_>>(), [77, 77]);
    assert_eq!(summary.clock.bound_ns, Some(2));
    let [waits] = &summary.lock_waits[..] else { panic!("{:?}", summary.lock_waits) };
    assert_eq!((waits.reason, waits.count, waits.total_ns), (Reason::Bql, 1, 100_000));
    assert_eq!(waits.released_by.name, "vm1 main loop");
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
        group: None,
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

/// With a process that works for vm1, one that works for vm1 and for a VM that nobody recorded, that VM, and one
/// of which only its command line says that it works for vm1.
fn manifest_with_helpers() -> Manifest {
    let mut manifest = manifest();
    let helper = |pid, comm: &str, role: &str| HelperRecord {
        pid: Tid(pid),
        comm: comm.to_owned(),
        role: role.to_owned(),
        is_inferred: comm == "socat",
    };
    let switchd = helper(700, "ovs-vswitchd", "network");
    manifest.vms[0].helpers = vec![
        helper(600, "virtiofsd", "file system"),
        helper(800, "socat", "disk"),
        switchd.clone(),
    ];
    let vcpu0 = ThreadRecord {
        tid: Tid(501),
        comm: "CPU 0/KVM".to_owned(),
        role: ThreadRole::Vcpu(VcpuId(0)),
        vcpu: Some(VcpuId(0)),
        pinned: None,
        kept: None,
        scheduling: None,
    };
    manifest.other_vms = vec![OtherVmRecord {
        name: "web".to_owned(),
        vmm: Vmm::Qemu,
        domain: None,
        pid: Tid(500),
        since_ns: HostNs(0),
        threads: vec![vcpu0],
        helpers: vec![switchd],
    }];
    manifest
}

fn threads_with_groups() -> Vec<HostThread> {
    let thread = |tid, comm: &str, group: &str| HostThread {
        tid: Tid(tid),
        pid: Tid(tid),
        comm: comm.to_owned(),
        is_kernel: false,
        is_vslice: false,
        command: None,
        group: Some(group.to_owned()),
    };
    vec![
        thread(300, "bash", "/user.slice/user-0.slice/session-3.scope"),
        thread(600, "virtiofsd", "/system.slice/virtiofsd.service"),
        thread(700, "ovs-vswitchd", "/system.slice/ovs-vswitchd.service"),
        thread(800, "socat", "/system.slice/debug.service"),
    ]
}

/// On vm2's vCPU1's pCPU, in its last stay but one: a shell that was there before, short processes in a unit, one
/// in a group that is gone, one of a VM that nobody recorded, one that serves a disk of vm1, and one that may.
fn stays_of_groups() -> Vec<HostEvent> {
    let at = |us, kind| HostEvent { time: host_at(us), pcpu: PcpuId(1), kind };
    let comm =
        |us, tid, comm: &str| at(us, HostEventKind::Comm { tid: Tid(tid), comm: comm.to_owned() });
    let group = |us, tid, group| at(us, HostEventKind::Group { tid: Tid(tid), group });
    let (runs, preempted) = (PrevState::Runnable, PrevState::RunnablePreempted);
    let mut events = vec![
        switch(20, VM2_VCPU1, preempted, VM1_VCPU1),
        switch(100, VM1_VCPU1, preempted, Tid(300)),
    ];
    let stays = [
        (110, 301, "cc1", Some(7)),
        (160, 302, "as", Some(7)),
        (200, 303, "true", Some(8)),
        (230, 501, "CPU 0/KVM", Some(9)),
        (300, 600, "virtiofsd", None),
        (360, 700, "ovs-vswitchd", None),
        (380, 800, "socat", None),
    ];
    let mut on = 300;
    for (us, tid, name, number) in stays {
        events.push(comm(us, tid, name));
        events.extend(number.map(|number| group(us, tid, number)));
        events.push(switch(us, Tid(on), runs, Tid(tid)));
        on = tid;
    }
    events.push(switch(400, Tid(on), runs, VM1_VCPU1));
    events.push(switch(1200, VM1_VCPU1, preempted, VM2_VCPU1));
    events
}

#[test]
fn antagonists_are_grouped_by_vm_then_by_control_group() {
    let (_scratch, run) = run_dir(&manifest_with_helpers());
    names(&run);
    streams(&run, &[0, 500, 1150], true);
    run.write_json("threads.json", &threads_with_groups()).unwrap();
    let item = |number, path: Option<&str>| GroupItem { number, path: path.map(str::to_owned) };
    let items = vec![item(7, Some("/system.slice/build.service")), item(8, None)];
    stream(&run.groups_path(), items, true);
    std::fs::remove_file(run.events_path(PcpuId(1))).unwrap();
    stream(&run.events_path(PcpuId(1)), stays_of_groups(), true);
    let summary = analyse(run.path()).unwrap();
    let vcpu = summary.vcpus.iter().find(|vcpu| vcpu.tid == VM1_VCPU1).unwrap();
    let rows = vcpu.antagonist_groups.iter();
    let rows: Vec<_> = rows.map(|row| (row.kind, row.name.as_str(), row.ran_ns)).collect();
    let control = GroupKind::ControlGroup;
    assert_eq!(
        rows,
        [
            (control, "build.service", 90_000),
            (GroupKind::OtherVm, "web", 70_000),
            (GroupKind::OwnVm, "vm1", 60_000),
            (control, "control group 8, gone before it was named", 30_000),
            (control, "ovs-vswitchd.service", 20_000),
            (control, "debug.service", 20_000),
            (control, "session-3.scope of user 0", 10_000),
        ],
        "whoever serves two VMs belongs to none of them, nor who is only inferred to serve one"
    );
    let of_web = &vcpu.antagonist_groups[1];
    assert_eq!(of_web.members[0].name, "web vCPU0");
    assert_eq!(of_web.members[0].kind, Relation::OtherVmVcpu);
    assert_eq!(vcpu.antagonist_groups[2].members[0].kind, Relation::OwnVmThread);
    let path = vcpu.antagonist_groups[0].path.as_deref();
    assert_eq!(path, Some("/system.slice/build.service"));
    let mut of_build = vcpu.antagonists.iter().filter(|row| row.thread.name == "as");
    assert_eq!(of_build.next().unwrap().group.as_deref(), Some("build.service"));
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
    assert_eq!(summary.facts.cost.kvm_events, 4);
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
        ("kvm", serde_json::json!({ "exits": true }), "KVM on this host has not traced any"),
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
    // Interrupted while its guests booted.
    let none = Manifest {
        accelerator_chosen: Some(Accelerator::Kvm),
        exits_asked: Some(true),
        vms: Vec::new(),
        ..manifest()
    };
    let (_scratch, run) = run_dir(&none);
    let notices = notices(&analyse(run.path()).unwrap());
    assert!(!notices.contains("guests under TCG"), "{notices}");
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
            .facts
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
            vcpus.into_iter().any(|thread| timeline_facts::is_throttled(vm, thread))
        };
        let used = |group: &GroupRecord| group.throttled().is_some();
        let is_used = manifest.vms[0].groups.iter().any(used);
        assert_eq!((is_throttled(0), is_throttled(1)), (is_used, false));
    }
}
