//! The host's view of a run in which nothing of the guest is known.

use super::*;
use crate::summary::host_io::HostIoOperation;
use vslice_core::host_event::{KvmEvent, Switch};
use vslice_trace::manifest::KvmVcpu;
use vslice_trace::thread::HostThread;
use vslice_wire::BlockOperation;

const DISK: u32 = 254 << 20;

/// vm1 with one disk at sectors 1000 on, and no reader.
fn viewed() -> Manifest {
    let mut manifest = manifest();
    manifest.window = Some(Window { start_ns: host_at(0), end_ns: Some(host_at(30_000)) });
    for vm in &mut manifest.vms {
        (vm.reader_vcpu, vm.block_bytes, vm.disk, vm.guest) = (None, None, None, None);
        vm.hogs.clear();
    }
    manifest.vms[0].disks = vec![super::io::image(DISK)];
    manifest
}

/// A read for sector 1000 from 20,100 to 20,200 us: the main loop works until 20,300 us. vm1's vCPU is taken from its
/// pCPU at 20,150 us by vm2's and back at 21,200 us.
fn events() -> Vec<HostEvent> {
    let at = |us, kind| HostEvent { time: host_at(us), pcpu: PcpuId(0), kind };
    let on = |us, kind| HostEvent { time: host_at(us), pcpu: PcpuId(1), kind };
    let switch = |prev, state, next| HostEventKind::Switch(Switch::new(prev, state, next));
    let block = |step, tid| {
        let operation = Some(BlockOperation::Read);
        let (device, sector, sectors) = (DISK, 1000, 8);
        HostEventKind::Block(BlockEvent { step, tid, device, sector, sectors, operation })
    };
    let (runnable, sleep) = (PrevState::Runnable, PrevState::Sleep);
    vec![
        on(1_000, switch(VM2_VCPU1, runnable, VM1_VCPU1)),
        at(20_100, block(BlockStep::Submitted, VM1_LOOP)),
        at(20_110, switch(VM1_LOOP, sleep, Tid(0))),
        on(20_150, switch(VM1_VCPU1, runnable, VM2_VCPU1)),
        at(20_200, block(BlockStep::Completed, Tid(0))),
        at(20_205, HostEventKind::Waking { tid: VM1_LOOP, target: PcpuId(0), waker: Tid(0) }),
        at(20_210, switch(Tid(0), runnable, VM1_LOOP)),
        at(20_300, switch(VM1_LOOP, sleep, Tid(0))),
        on(21_200, switch(VM2_VCPU1, runnable, VM1_VCPU1)),
        on(22_000, switch(VM1_VCPU1, runnable, VM2_VCPU1)),
    ]
}

const WORKER: Tid = Tid(71);

/// A worker of the kernel that works for pCPU0.
fn worker() -> HostThread {
    HostThread {
        tid: WORKER,
        pid: WORKER,
        comm: String::from("kworker/0:1"),
        is_kernel: true,
        is_vslice: false,
        command: None,
        group: None,
    }
}

fn summary_of(manifest: &Manifest, mut events: Vec<HostEvent>) -> Summary {
    let (_scratch, run) = run_dir(manifest);
    names(&run);
    run.write_json("threads.json", &[worker()]).unwrap();
    for pcpu in [PcpuId(0), PcpuId(1)] {
        let path = run.events_path(pcpu);
        let _ = std::fs::remove_file(&path);
        events.sort_by_key(|event| event.time);
        stream(&path, events.iter().filter(|event| event.pcpu == pcpu).cloned().collect(), true);
    }
    analyse(run.path()).unwrap()
}

fn only(summary: &Summary) -> &HostIoOperation {
    let [disk, ..] = &summary.facts.host_io.disks[..] else { panic!("no disk") };
    let [row] = &disk.operations[..] else { panic!("{disk:?}") };
    row
}

#[test]
fn without_a_guests_word_the_hosts_view_tells_of_its_io() {
    let summary = summary_of(&viewed(), events());
    let row = only(&summary);
    assert_eq!((row.operation.as_str(), row.count, row.bytes), ("read", 1, 4096));
    assert_eq!((row.ended, row.p50_ns, row.known), (1, Some(100_000), 1), "{row:?}");
    // From when the main loop is woken.
    assert_eq!((row.least_ns, row.most_ns), (995_000, 995_000), "{row:?}");
    let [worst] = &summary.facts.host_io.worst[..] else { panic!("{:?}", summary.facts.host_io) };
    assert_eq!((worst.vcpu, worst.latency_ns), (Some(1), 100_000));
    let who = worst.who.as_deref().unwrap();
    assert!(who.starts_with("vm2 vCPU1"), "{who}");
    let page = crate::summary::render(&summary, crate::summary::Style::default());
    let words = page.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "No request was observed (attach with --observe for that); on the host, 1 I/O for the VMs' disks ended, and \
         they then waited 995 us in all for a vCPU that could take them (I/O inactivity).",
        "Host's view of the disks",
        "I/Os that waited longest for a vCPU",
    ] {
        assert!(words.contains(part), "{page}");
    }
    let json = serde_json::to_string(&summary).unwrap();
    assert_eq!(serde_json::from_str::<Summary>(&json).unwrap(), summary);
}

/// A read each millisecond from 1,100 us on: done after 100 us, the main loop works for 95 us and interrupts the vCPU that
/// KVM calls 4, which is vm1's vCPU1, with this vector.
fn many(vector: u8) -> Vec<HostEvent> {
    let mut all = vec![events()[0].clone()];
    for io in 1..50_u64 {
        let template = &events()[1..8];
        for event in template.iter().filter(|event| event.pcpu == PcpuId(0)) {
            let since_ns = event.time.since_ns(host_at(20_100));
            let time = HostNs(host_at(io * 1000 + 100).0 + since_ns);
            all.push(HostEvent { time, ..event.clone() });
        }
        let event = KvmEvent::Interrupt { vcpu: 4, vector };
        let kind = HostEventKind::Kvm { tid: VM1_LOOP, event };
        all.push(HostEvent { time: host_at(io * 1000 + 240), pcpu: PcpuId(0), kind });
    }
    all.push(HostEvent { time: host_at(55_000), ..events()[9].clone() });
    all
}

#[test]
fn an_interrupt_tells_who_took_an_io_once_it_is_known_to_be_the_disks() {
    let mut manifest = viewed();
    manifest.window = Some(Window { start_ns: host_at(0), end_ns: Some(host_at(60_000)) });
    let by_interrupt = |manifest: &Manifest, events| {
        let row = only(&summary_of(manifest, events)).clone();
        (row.ended, row.by_interrupt)
    };
    assert_eq!(by_interrupt(&manifest, many(40)), (49, 0), "nobody is called 4");
    let tid = VM1_VCPU1;
    manifest.vms[0].interrupts.vcpus = vec![KvmVcpu { number: 4, tid }];
    // The first in which the VMM's threads are known, at 10 ms, and 32 more teach it.
    let (ended, told) = by_interrupt(&manifest, many(40));
    assert!(ended == 49 && (5..=10).contains(&told), "{told}");
    let strangers = many(40).into_iter().map(|event| match event.kind {
        HostEventKind::Kvm { event: told, .. } => {
            let kind = HostEventKind::Kvm { tid: Tid(900), event: told };
            HostEvent { kind, ..event }
        }
        _ => event,
    });
    assert_eq!(by_interrupt(&manifest, strangers.collect()), (49, 0), "another VM's");
    let page = summary_of(&manifest, many(40));
    let page = crate::summary::render(&page, crate::summary::Style::default());
    assert!(page.contains("by the interrupt for it, inferred to be the disk's"), "{page}");
}

/// As `events`, but the disk's interrupt wakes a worker, which gets pCPU0 at 21,500 us and wakes the main loop at 21,505
/// us. Meanwhile that works for something else until 20,400 us. vm1's vCPU is off its pCPU from 21,300 us until 23,000 us too.
fn late_events() -> Vec<HostEvent> {
    let at = |us, kind| HostEvent { time: host_at(us), pcpu: PcpuId(0), kind };
    let on = |us, kind| HostEvent { time: host_at(us), pcpu: PcpuId(1), kind };
    let switch = |prev, state, next| HostEventKind::Switch(Switch::new(prev, state, next));
    let waking = |tid, waker| HostEventKind::Waking { tid, target: PcpuId(0), waker };
    let (runnable, sleep, idle) = (PrevState::Runnable, PrevState::Sleep, PrevState::Other(0x80));
    let stranger = Tid(900);
    let mut all: Vec<HostEvent> =
        events().into_iter().filter(|event| event.time < host_at(20_200)).collect();
    all.push(at(20_120, switch(Tid(0), runnable, stranger)));
    let HostEventKind::Block(mut done) = events()[4].kind else { panic!("no completion") };
    done.tid = stranger;
    all.extend([
        at(20_200, HostEventKind::Block(done)),
        at(20_202, waking(WORKER, stranger)),
        at(20_210, waking(VM1_LOOP, VM1_VCPU1)),
        at(20_220, switch(stranger, runnable, VM1_LOOP)),
        at(20_400, switch(VM1_LOOP, sleep, stranger)),
        // A process that is none of the VM's.
        at(20_405, HostEventKind::Exit { tid: Tid(901) }),
        on(21_200, switch(VM2_VCPU1, runnable, VM1_VCPU1)),
        on(21_300, switch(VM1_VCPU1, runnable, VM2_VCPU1)),
        at(21_500, switch(stranger, runnable, WORKER)),
        at(21_505, waking(VM1_LOOP, WORKER)),
        at(21_510, switch(WORKER, idle, VM1_LOOP)),
        at(21_600, switch(VM1_LOOP, sleep, stranger)),
        on(23_000, switch(VM2_VCPU1, runnable, VM1_VCPU1)),
        on(24_000, switch(VM1_VCPU1, runnable, VM2_VCPU1)),
    ]);
    all
}

#[test]
fn the_vmm_knows_of_an_io_once_the_kernels_worker_has_told_it() {
    let row = only(&summary_of(&viewed(), late_events())).clone();
    // From 21,500 us, when the worker came, or from 21,510 us, when it has done, to 23,000 us.
    assert_eq!((row.known, row.least_ns, row.most_ns), (1, 1_490_000, 1_500_000), "{row:?}");
}

#[test]
fn who_ends_and_is_none_of_the_vms_says_nothing_of_the_vmms_threads() {
    let mut manifest = viewed();
    manifest.window = Some(Window { start_ns: host_at(0), end_ns: Some(host_at(60_000)) });
    let at = |us, kind| HostEvent { time: host_at(us), pcpu: PcpuId(0), kind };
    let on = |us, kind| HostEvent { time: host_at(us), pcpu: PcpuId(1), kind };
    let switch = |prev, state, next| HostEventKind::Switch(Switch::new(prev, state, next));
    let (runnable, stranger) = (PrevState::Runnable, Tid(900));
    let mut all = late_events();
    all.push(at(24_500, HostEventKind::Lost { until: host_at(24_510), count: 1 }));
    // Since then the main loop is at work without leaving its pCPU; it is handed an I/O meanwhile.
    let blocks: Vec<HostEvent> = late_events()
        .into_iter()
        .filter(|event| matches!(event.kind, HostEventKind::Block(_)))
        .map(|event| HostEvent { time: HostNs(event.time.0 + 20_000_000), ..event })
        .collect();
    all.extend(blocks);
    all.extend([
        on(30_000, switch(VM2_VCPU1, runnable, VM1_VCPU1)),
        on(40_150, switch(VM1_VCPU1, runnable, VM2_VCPU1)),
        at(40_300, switch(stranger, runnable, WORKER)),
        at(40_310, switch(WORKER, PrevState::Other(0x80), stranger)),
        at(40_400, HostEventKind::Exit { tid: Tid(901) }),
        on(41_000, switch(VM2_VCPU1, runnable, VM1_VCPU1)),
        on(42_000, switch(VM1_VCPU1, runnable, VM2_VCPU1)),
    ]);
    let row = only(&summary_of(&manifest, all)).clone();
    assert_eq!((row.known, row.unknown_by.get("never_quiet")), (1, Some(&1)), "{row:?}");
}

#[test]
fn io_of_others_and_elsewhere_is_none_of_the_disks() {
    let mut all = events();
    for event in &mut all {
        if let HostEventKind::Block(block) = &mut event.kind {
            block.sector = 5;
        }
    }
    let elsewhere = |manifest: &Manifest| {
        let io = summary_of(manifest, all.clone()).facts.host_io;
        let disk = io.disks.iter().find(|disk| !disk.operations.is_empty()).unwrap();
        (disk.disk.is_none(), io.count())
    };
    // What a sparse image had no place for yet may have got one there, or its file's inode was written.
    let mut sparse = viewed();
    sparse.vms[0].disks[0].size_bytes = Some(2 << 20);
    assert_eq!(elsewhere(&sparse), (true, 0));
    // Where the system disk lies is not known, and the other does not lie there: that does not make it the system's.
    let mut system = viewed();
    let mut unmapped = super::io::image(DISK);
    (unmapped.extents, unmapped.extents_missing) = (vec![], Some("its format is qcow2".to_owned()));
    system.vms[0].disks.insert(0, unmapped.clone());
    assert_eq!(elsewhere(&system), (true, 0));
    // Alone there, whatever the VM's threads hand to the host's disk is for it; an empty drive is on none.
    system.vms[0].disks[1].missing = Some("it has no medium".to_owned());
    system.vms[0].disks[1].whole_disk = None;
    assert_eq!(elsewhere(&system), (false, 1));
    system.vms[0].disks[1].missing = Some("nobody knows".to_owned());
    assert_eq!(elsewhere(&system), (true, 0));
    let summary = summary_of(&viewed(), all);
    let disks = &summary.facts.host_io.disks;
    assert_eq!(disks.len(), 2, "{disks:?}");
    assert_eq!(
        (disks[0].operations.len(), &disks[1].disk, disks[1].operations[0].count),
        (0, &None, 1)
    );
    assert_eq!(summary.facts.host_io.count(), 0, "none is for a disk");
    let mut all = events();
    for event in &mut all {
        if let HostEventKind::Block(block) = &mut event.kind {
            block.tid = Tid(900);
        }
    }
    let summary = summary_of(&viewed(), all);
    assert_eq!(summary.facts.host_io.disks[0].operations, [], "a stranger's");
}

#[test]
fn what_is_not_known_has_its_reason_and_counts_nowhere() {
    // The main loop never sleeps again.
    let endless: Vec<HostEvent> =
        events().into_iter().filter(|event| event.time != host_at(20_300)).collect();
    let summary = summary_of(&viewed(), endless);
    let row = only(&summary);
    assert_eq!((row.known, row.unknown_by.get("never_quiet")), (0, Some(&1)), "{row:?}");
    // A loss while it was in flight.
    let mut lost = events();
    let kind = HostEventKind::Lost { until: host_at(20_160), count: 1 };
    lost.push(HostEvent { time: host_at(20_150), pcpu: PcpuId(0), kind });
    let summary = summary_of(&viewed(), lost);
    let row = only(&summary);
    assert_eq!((row.ended, row.no_end_by.get("lost")), (0, Some(&1)), "{row:?}");
    // A disk that is on no disk of the host, in a run that was only sampled.
    let mut manifest = viewed();
    manifest.vms[0].disks[0].missing = Some("it has no medium".to_owned());
    let summary = summary_of(&manifest, events());
    let disk = &summary.facts.host_io.disks[0];
    assert_eq!((disk.reason.as_deref(), disk.operations.len()), (Some("it has no medium"), 0));
}

#[test]
fn a_vcpu_that_slept_all_the_time_was_told_nothing() {
    let mut manifest = viewed();
    let vcpu2 =
        ThreadRecord { tid: Tid(177), vcpu: Some(VcpuId(2)), ..manifest.vms[0].threads[1].clone() };
    manifest.vms[0].threads.push(vcpu2);
    let row = only(&summary_of(&manifest, events())).clone();
    assert_eq!((row.known, row.unknown_by.get("vcpu_unknown")), (0, Some(&1)), "{row:?}");
    manifest.vms[0].asleep_vcpus = vec![VcpuId(2)];
    assert_eq!(only(&summary_of(&manifest, events())).known, 1);
}
