//! The host's I/O of a run.

use super::*;

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
    manifest.vms[0].disks = vec![image(DISK), image(DISK + 7)];
    manifest
}

pub(super) fn image(device: u32) -> ImageRecord {
    ImageRecord {
        label: "virtio-blk disk0 on /a.img (raw)".to_owned(),
        serial: None,
        pci_address: None,
        bus: "virtio-blk".to_owned(),
        iothreads: None,
        size_bytes: Some(1 << 20),
        is_direct: Some(true),
        descriptors: Vec::new(),
        whole_disk: Some(WholeDisk { name: String::from("vda"), device, first_sector: 0 }),
        missing: None,
        extents: vec![Extent { offset_bytes: 0, sector: 1000, length_bytes: 1 << 20 }],
        extents_missing: None,
    }
}

/// The I/O of both requests: the first by vm1's main loop, the second by a newborn worker.
fn io_streams(run: &RunDir) {
    let io = |us, step, tid, (device, sector)| {
        let kind = HostEventKind::Block(BlockEvent {
            step,
            tid,
            device,
            sector,
            sectors: 8,
            operation: None,
        });
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
    let vm = &summary.facts.environment.details["vms"][0];
    for disk in [&vm["disk"], &vm["disks"][0], &vm["disks"][1]] {
        assert_eq!(disk["extents"], serde_json::json!([]));
    }
}

#[test]
fn a_disk_that_was_not_recorded_has_a_reason_and_no_phases() {
    let mut manifest = on_disk(manifest());
    recorded_disks::mark_unrecorded(&mut manifest, &["block/block_rq_issue"]);
    assert_eq!(recorded_disks::devices(&manifest.vms), [DISK, DISK + 7]);
    assert!(recorded_disks::target(&manifest.vms[0]).is_some());
    recorded_disks::mark_unrecorded(&mut manifest, &["block/block_rq_complete"]);
    let reason = "this kernel has no tracepoint block/block_rq_complete";
    for disk in &manifest.vms[0].disks {
        assert_eq!(disk.missing.as_deref(), Some(reason));
    }
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
