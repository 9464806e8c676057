//! Observed requests of the drawn run, see `drawn_observed.rs`.

use super::drawn::{VM1_LOOP, VM2_LOOP, guest_at, host_at, names, run_dir, stream};
use super::drawn_observed::{STRANGER, host_streams, observed_manifest, observed_stream, request};
use super::observer::{Observer, Run, RunEnd};
use super::{analyse, analyse_with};
use crate::summary::VmIndex;
use vslice_core::host_event::{HostEvent, HostEventKind, PrevState, StackId, Switch};
use vslice_core::join::{Attribution, Breakdown, GuestRequest, NoPhase, Part, Phase, Unplaced};
use vslice_core::timeline::Who;
use vslice_core::units::{HostNs, PcpuId, VcpuId};
use vslice_trace::observation::ObservationRecord;
use vslice_trace::{ObservedItem, RunDir, StackNames, VmName};
use vslice_wire::{
    BlockOperation, CompletionVcpu, Dropped, GuestTicks, NOT_OBSERVED, ObservedRequest,
};

#[test]
fn why_a_guest_was_not_observed_is_what_its_agent_said() {
    let mut manifest = observed_manifest();
    let vm1 = &mut manifest.vms[0];
    vm1.observation = Some(ObservationRecord::default());
    let why = "the guest has none of the disks to be observed: it has vda";
    let guest = vm1.guest.as_mut().unwrap();
    guest.notices = vec!["something else".to_owned(), format!("{NOT_OBSERVED}: {why}")];
    let (_scratch, run) = run_dir(&manifest);
    let observed = analyse(run.path()).unwrap().observed.unwrap();
    assert_eq!(observed.guests[0].unobserved.as_deref(), Some(why));
}

#[derive(Default)]
struct Listener {
    split: Vec<Breakdown>,
    reads_count: usize,
    unplaced: Vec<(GuestRequest, Unplaced)>,
    lost: Vec<Dropped>,
    observed_by: Vec<(u16, u64)>,
    warnings: String,
}

impl Observer for Listener {
    fn request(&mut self, vm: VmIndex, breakdown: &Breakdown) {
        assert_eq!(vm, VmIndex(0));
        match breakdown.request {
            GuestRequest::Observed(_) => self.split.push(breakdown.clone()),
            GuestRequest::Read(_) => self.reads_count += 1,
        }
    }

    fn unplaced_request(&mut self, _vm: VmIndex, request: &GuestRequest, why: Unplaced) {
        self.unplaced.push((*request, why));
    }

    fn lost_observed(&mut self, _vm: VmIndex, lost: &Dropped) {
        self.lost.push(*lost);
    }

    fn end(&mut self, _run: &Run<'_>, end: &RunEnd<'_>) {
        let counts = end.clocks.iter().map(|clock| (clock.vcpu.0, clock.observed));
        self.observed_by = counts.collect();
        self.warnings = format!("{:?}", end.warnings);
    }
}

fn told(run: &RunDir) -> Listener {
    let mut listener = Listener::default();
    analyse_with(run.path(), &mut [&mut listener]).unwrap();
    listener.split.sort_by_key(|split| split.start);
    listener
}

/// What is not 0, in microseconds.
fn drawn(split: &Breakdown) -> Vec<(Phase, Part, u64)> {
    let all = Phase::ALL.into_iter().flat_map(|phase| Part::ALL.map(|part| (phase, part)));
    let lengths =
        all.map(|(phase, part)| (phase, part, (split.phases.of(phase).get(part) + 500) / 1000));
    lengths.filter(|(.., us)| *us > 0).collect()
}

#[test]
fn an_observed_request_is_laid_over_the_vcpus_that_it_waits_for() {
    let (_scratch, run) = run_dir(&observed_manifest());
    names(&run);
    host_streams(&run);
    let (first, second) =
        (request(0, [110, 120, 450], [0, 0, 1]), request(1, [115, 125, 190], [0, 0, 0]));
    let items = vec![
        ObservedItem::Request(second),
        ObservedItem::Request(first),
        ObservedItem::Settled(guest_at(460)),
    ];
    observed_stream(&run, items);
    let told = told(&run);
    assert_eq!(told.split.len(), 2);
    let split = &told.split[0];
    assert_eq!(
        (split.request, split.attribution),
        (GuestRequest::Observed(first), Attribution::Attributed)
    );
    assert_eq!(
        drawn(split),
        [
            (Phase::GuestQueue, Part::OnPcpu, 10),
            (Phase::Queued, Part::OnPcpu, 10),
            (Phase::Device, Part::OnPcpu, 70),
            (Phase::Device, Part::PreemptWait, 50),
            (Phase::Completed, Part::OnPcpu, 50),
            (Phase::Completed, Part::PreemptWait, 150),
        ]
    );
    assert_eq!(split.parts.total_ns(), split.latency_ns());
    // vm2's vCPU1 had the pCPU that vm1's vCPU1 waited for; who had vCPU0's did not matter.
    let waits: Vec<_> = split
        .waits
        .rows()
        .map(|(pcpu, ran)| (pcpu, ran.who.clone(), (ran.ran_ns + 500) / 1000))
        .collect();
    assert_eq!(waits.len(), 1, "{waits:?}");
    assert!(
        matches!(&waits[0], (Some(PcpuId(1)), Who::Thread(thread), 150) if thread.tid == super::drawn::VM2_VCPU1)
    );
    // The other disk's.
    let marks = told.split[1].io.unwrap();
    assert_eq!((marks.submitted, marks.completed), (host_at(140), host_at(160)));
    assert_eq!(told.observed_by, [(0, 2), (1, 1)]);
    assert_eq!(told.reads_count, 2, "the reader's own are told as ever");
}

#[test]
fn where_the_guest_completes_requests_is_in_the_manifest() {
    let mut manifest = observed_manifest();
    let devices = &mut manifest.vms[0].observation.as_mut().unwrap().devices;
    devices[0].completion_vcpu = CompletionVcpu::InterruptedOrQueued;
    let (_scratch, run) = run_dir(&manifest);
    names(&run);
    host_streams(&run);
    // Of the first disk one vCPU queued and issued it; of the second the guest tells that none is sent on.
    let first = request(0, [110, 120, 450], [0, 0, 0]);
    let second = request(1, [115, 125, 190], [0, 0, 0]);
    let items = [second, first].map(ObservedItem::Request);
    observed_stream(
        &run,
        items.into_iter().chain([ObservedItem::Settled(guest_at(460))]).collect(),
    );
    let told = told(&run);
    let over: Vec<_> = told.split.iter().map(|split| split.vcpus.completed).collect();
    assert_eq!(over, [None, Some(VcpuId(0))]);
    let completed = |split: &Breakdown| *split.phases.of(Phase::Completed);
    let unknown_us = completed(&told.split[0]).get(Part::Unknown) / 1000;
    assert_eq!(unknown_us, completed(&told.split[0]).total_ns() / 1000);
    assert!(unknown_us > 190, "{unknown_us}");
    assert_eq!(completed(&told.split[1]).get(Part::Unknown), 0);
}

/// On pCPU 3 vm1's main loop sleeps in a flush from 150 to 200 and from 210 to 250, and meanwhile that of vm2 does.
#[test]
fn a_flush_is_known_by_the_vmms_thread_that_sleeps_for_it() {
    let mut manifest = observed_manifest();
    manifest.vms[0].disks[0].descriptors = vec![14];
    let (_scratch, run) = run_dir(&manifest);
    names(&run);
    host_streams(&run);
    let mut stacks = run.read_stack_names().unwrap();
    let frames = ["__schedule", "submit_bio_wait", "blkdev_issue_flush", "__x64_sys_fdatasync"];
    stacks.push(StackNames { id: 1, frames: frames.map(str::to_owned).to_vec() });
    run.write_stack_names(&stacks).unwrap();
    let event = |us, kind| HostEvent { time: host_at(us), pcpu: PcpuId(3), kind };
    let comes =
        |us, next| event(us, HostEventKind::Switch(Switch::new(STRANGER, PrevState::Sleep, next)));
    let sleeps = |us, prev, stack| {
        let switch = Switch {
            stack: Some(StackId(stack)),
            call_args: Some([14, 0, 0]),
            ..Switch::new(prev, PrevState::DiskSleep, STRANGER)
        };
        event(us, HostEventKind::Switch(switch))
    };
    let woken =
        |us, tid| event(us, HostEventKind::Waking { tid, target: PcpuId(3), waker: STRANGER });
    let events = vec![
        // It has nothing to do.
        comes(50, VM2_LOOP),
        sleeps(60, VM2_LOOP, 0),
        comes(80, VM1_LOOP),
        sleeps(90, VM1_LOOP, 0),
        woken(104, VM1_LOOP),
        comes(105, VM1_LOOP),
        sleeps(150, VM1_LOOP, 1),
        comes(160, VM2_LOOP),
        sleeps(170, VM2_LOOP, 1),
        woken(200, VM1_LOOP),
        comes(205, VM1_LOOP),
        sleeps(210, VM1_LOOP, 1),
        woken(250, VM1_LOOP),
        woken(300, VM2_LOOP),
    ];
    stream(&run.events_path(PcpuId(3)), events, true);
    let flush = |device| ObservedRequest {
        operation: BlockOperation::Flush,
        sector: 0,
        bytes: 0,
        ..request(device, [110, 120, 450], [0, 0, 0])
    };
    observed_stream(&run, [0, 1].map(|device| ObservedItem::Request(flush(device))).into());
    let told = told(&run);
    let marks = told.split.iter().map(|split| split.io);
    let marks: Vec<_> = marks.map(|io| io.map(|io| (io.submitted, io.completed))).collect();
    assert_eq!(marks, [Ok((host_at(150), host_at(250))), Err(NoPhase::UnknownFile)]);
    let device_ns = told.split[0].phases.of(Phase::Device).total_ns();
    assert_eq!(device_ns, 90_000, "not while it was awake");
}

#[test]
fn what_is_lost_or_has_no_place_is_told() {
    let (_scratch, run) = run_dir(&observed_manifest());
    names(&run);
    host_streams(&run);
    let lost = Dropped { count: 5, first: guest_at(500), last: guest_at(510) };
    let nowhere = request(0, [110, 120, 450], [0, 9, 1]);
    let flush = ObservedRequest {
        operation: BlockOperation::Flush,
        sector: 0,
        bytes: 0,
        ..request(0, [490, 495, 540], [1, 1, 1])
    };
    let unknown_disk = request(7, [600, 610, 620], [0, 0, 0]);
    let items = vec![
        ObservedItem::Request(nowhere),
        ObservedItem::Lost(lost),
        ObservedItem::Request(flush),
        ObservedItem::Request(unknown_disk),
    ];
    observed_stream(&run, items);
    let told = told(&run);
    assert_eq!(told.unplaced, [(GuestRequest::Observed(nowhere), Unplaced::NoClock)]);
    assert_eq!(told.lost, [lost]);
    let io: Vec<_> = told.split.iter().map(|split| split.io).collect();
    assert_eq!(io, [Err(NoPhase::Lost), Err(NoPhase::NotRecorded)], "others may be among the lost");
    let attribution: Vec<_> = told.split.iter().map(|split| split.attribution).collect();
    let expected = [Attribution::Attributed, Attribution::Steered];
    assert_eq!(attribution, expected, "of a disk that is not told nothing is known");
}

#[test]
fn a_run_whose_observed_stream_was_cut_off_says_so() {
    let (_scratch, run) = run_dir(&observed_manifest());
    names(&run);
    host_streams(&run);
    observed_stream(&run, vec![ObservedItem::Request(request(0, [110, 120, 450], [0, 0, 1]))]);
    let path = run.observed_path(&VmName::try_from("vm1").unwrap());
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
    let told = told(&run);
    assert!(
        told.warnings.contains("the stored observed requests were cut off"),
        "{}",
        told.warnings
    );
}

/// Nothing is observed: the summary of the same run is the same, and no stream is looked for twice.
#[test]
fn observed_requests_are_none_of_the_readers() {
    let (_scratch, run) = run_dir(&observed_manifest());
    names(&run);
    host_streams(&run);
    let before = analyse(run.path()).unwrap();
    observed_stream(&run, vec![ObservedItem::Request(request(0, [110, 120, 450], [0, 0, 1]))]);
    let after = analyse(run.path()).unwrap();
    assert_eq!((after.requests.clone(), after.latency_ns), (before.requests, before.latency_ns));
    assert_eq!(after.classes, before.classes);
}

#[test]
fn a_guest_that_stamps_at_the_end_of_time_is_bounded() {
    let (_scratch, run) = run_dir(&observed_manifest());
    names(&run);
    host_streams(&run);
    let endless = ObservedRequest {
        completed: GuestTicks(u64::MAX),
        ..request(0, [110, 120, 450], [0, 0, 1])
    };
    observed_stream(&run, vec![ObservedItem::Request(endless); 3]);
    let told = told(&run);
    assert_eq!(told.split.len() + told.unplaced.len(), 3);
    for split in &told.split {
        assert_eq!(split.parts.total_ns(), split.latency_ns());
        assert!(split.end > HostNs(1 << 60) && split.attribution == Attribution::NotRecorded);
    }
}
