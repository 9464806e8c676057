//! The runs of which pages are made: drawn by hand, stored as a real run is.

use std::path::Path;
use vslice_core::host_event::{HostEvent, HostEventKind, KvmEvent, PrevState};
use vslice_core::samples::{Call, Look, SampleItem, Schedstat};
use vslice_core::units::{PcpuId, Tid};
use vslice_report::analyse::drawn::{
    BQL, VM1_VCPU1, VM2_VCPU1, guest_at, host_at, killed_manifest, manifest, names, run_in, stream,
    streams, switch, vm,
};
use vslice_report::analyse::drawn_observed::{
    STRANGER, host_streams, observed_manifest, observed_stream, request,
};
use vslice_trace::evidence::{Evidence, EvidenceLevel};
use vslice_trace::manifest::{Manifest, SamplingRecord};
use vslice_trace::observation::{ObservedOthersRecord, ObservedTaskRecord};
use vslice_trace::thread::HostThread;
use vslice_trace::{ObservedItem, RequestItem, RunDir, VmName};
use vslice_wire::{BlockOperation, ObservedRequest};

/// What guests and processes call themselves when they would be more than text.
pub(crate) const HOSTILE_NAMES: [&str; 2] =
    ["<img src=x onerror=pwned=1>", "</script><script>pwned=1</script><u>"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run {
    /// One VM reads, another is busy.
    Read,
    /// The requests of a guest's own kernel.
    Observed,
    /// The same, by processes that call themselves markup.
    Hostile,
    /// Its collector was killed.
    Killed,
    /// Nobody made requests.
    Idle,
    /// Guests send slow requests only.
    Limited,
    /// KVM's exits were recorded.
    Exits,
    /// Its threads were looked at, and no events recorded.
    Sampled,
    /// Four VMs, that nobody asked anything.
    FourVms,
}

impl Run {
    pub(crate) const ALL: &[Run] = &[
        Run::Read,
        Run::Observed,
        Run::Hostile,
        Run::Killed,
        Run::Idle,
        Run::Limited,
        Run::Exits,
        Run::Sampled,
        Run::FourVms,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Run::Read => "read",
            Run::Observed => "observed",
            Run::Hostile => "hostile",
            Run::Killed => "killed",
            Run::Idle => "idle",
            Run::Limited => "limited",
            Run::Exits => "exits",
            Run::Sampled => "sampled",
            Run::FourVms => "four-vms",
        }
    }

    /// Stores it in this directory.
    pub(crate) fn draw(self, directory: &Path) {
        match self {
            Run::Read => recorded(directory, &manifest(), true),
            Run::Observed => {
                observed(directory, observed_manifest(), ["postgres", "checkpointer"], "vdisk");
            }
            Run::Hostile => {
                observed(directory, observed_manifest(), HOSTILE_NAMES, HOSTILE_NAMES[0]);
            }
            Run::Limited => {
                observed(directory, limited_manifest(), ["postgres", "checkpointer"], "vdisk");
            }
            Run::Exits => exits(directory),
            Run::Killed => recorded(directory, &killed_manifest(), false),
            Run::Idle => idle(directory, &manifest()),
            Run::Sampled => sampled(directory),
            Run::FourVms => four_vms(directory),
        }
    }
}

fn recorded(directory: &Path, manifest: &Manifest, finished: bool) {
    let run = run_in(directory, manifest);
    names(&run);
    streams(&run, &[0, 500, 1150], finished);
}

/// Two writes of two processes, and a thread of the host that has the first one's pCPU meanwhile.
fn observed(directory: &Path, mut manifest: Manifest, processes: [&str; 2], stranger: &str) {
    let tasks = (0..).zip(processes).map(|(number, name)| ObservedTaskRecord {
        number,
        pid: 300 + number,
        name: name.chars().take(15).collect(),
        title: Some(name.to_owned()),
        title_before: None,
    });
    if let Some(observation) = &mut manifest.vms[0].observation {
        observation.tasks = tasks.collect();
    }
    let run = run_in(directory, &manifest);
    names(&run);
    let thread = HostThread {
        tid: STRANGER,
        pid: STRANGER,
        comm: stranger.to_owned(),
        is_kernel: false,
        is_vslice: false,
        command: None,
        group: None,
    };
    run.write_json("threads.json", &vec![thread]).expect("a scratch directory takes it");
    host_streams(&run);
    let first = request(0, [110, 120, 400], [0, 0, 1]);
    let second = ObservedRequest { task: 1, ..request(1, [115, 125, 420], [0, 0, 1]) };
    let items = [first, second].map(ObservedItem::Request);
    let settled = ObservedItem::Settled(guest_at(460));
    observed_stream(&run, items.into_iter().chain([settled]).collect());
}

/// Of the writes to the second disk, most were faster than what the guest was asked to send.
fn limited_manifest() -> Manifest {
    let mut manifest = observed_manifest();
    if let Some(observation) = &mut manifest.vms[0].observation {
        observation.slower_than_us = 50;
        observation.others = vec![ObservedOthersRecord {
            device: 1,
            operation: BlockOperation::Write,
            is_sync: true,
            count: 1_234,
            bytes: 5_054_464,
            total_ns: 43_210_000,
        }];
    }
    manifest
}

/// The drawn run, with a vCPU that leaves its guest for the VMM.
fn exits(directory: &Path) {
    recorded(directory, &manifest(), true);
    let run = RunDir::open(directory).expect("it was just made");
    let path = run.events_path(PcpuId(1));
    std::fs::remove_file(&path).expect("it is there");
    let kvm = |us, event| {
        let kind = HostEventKind::Kvm { tid: VM1_VCPU1, event };
        HostEvent { time: host_at(us), pcpu: PcpuId(1), kind }
    };
    let preempted = PrevState::RunnablePreempted;
    let events = vec![
        switch(20, VM2_VCPU1, preempted, VM1_VCPU1),
        kvm(30, KvmEvent::GuestEntry),
        kvm(70, KvmEvent::GuestExit { isa: 2, reason: 0x7b }),
        kvm(80, KvmEvent::UserspaceExit { reason: 2, errno: 0 }),
        switch(100, VM1_VCPU1, preempted, VM2_VCPU1),
        switch(400, VM2_VCPU1, PrevState::Runnable, VM1_VCPU1),
        kvm(420, KvmEvent::GuestEntry),
        switch(600, VM1_VCPU1, preempted, VM2_VCPU1),
    ];
    stream(&path, events, true);
}

/// The drawn run, of which the requests are taken away.
fn idle(directory: &Path, manifest: &Manifest) {
    let mut manifest = manifest.clone();
    for vm in &mut manifest.vms {
        vm.block_bytes = None;
        vm.reader_vcpu = None;
        if let Some(guest) = &mut vm.guest {
            guest.requests_count = 0;
        }
    }
    recorded(directory, &manifest, true);
    let run = RunDir::open(directory).expect("it was just made");
    let path = run.requests_path(&name("vm1"));
    std::fs::remove_file(&path).expect("it is there");
    stream::<RequestItem>(&path, Vec::new(), true);
}

fn four_vms(directory: &Path) {
    let mut manifest = manifest();
    for (vm_name, pid) in [("vm3", 300), ("vm4", 400)] {
        manifest.vms.push(vm(vm_name, Tid(pid), Tid(pid + 1), false));
    }
    idle(directory, &manifest);
}

/// Ten looks at a vCPU, on the big lock in the first six, and the kernel's totals.
fn sampled(directory: &Path) {
    let evidence =
        Evidence { level: EvidenceLevel::Sampled, reason: "drawn".to_owned(), missing: vec![] };
    let sampling = SamplingRecord { own_ns: 55, elapsed_ns: 1100, ..SamplingRecord::default() };
    let manifest = Manifest { evidence, sampling: Some(sampling), ..manifest() };
    idle(directory, &manifest);
    let run = RunDir::open(directory).expect("it was just made");
    for pcpu in [0, 1] {
        std::fs::remove_file(run.events_path(PcpuId(pcpu))).expect("it is there");
    }
    let read = |us, on_pcpu_us: u64, timeslices_count| {
        SampleItem::Schedstat(Schedstat {
            time: host_at(us),
            tid: VM1_VCPU1,
            on_pcpu_ns: on_pcpu_us * 1000,
            run_delay_ns: 0,
            timeslices_count,
        })
    };
    let look = |us| {
        let waits = us < 106;
        let call =
            if waits { Call::In { number: 202, args: [BQL, 0x80, 2] } } else { Call::Running };
        let (state, wchan) = (waits.then_some(b'S'), waits.then(|| "futex_do_wait".into()));
        SampleItem::Look(Look { time: host_at(us), tid: VM1_VCPU1, call, state, wchan })
    };
    let looks = (100..110).map(look);
    let items = [read(0, 7, 1)].into_iter().chain(looks).chain([read(1100, 407, 5)]);
    stream(&run.samples_path(&name("vm1")), items.collect(), true);
}

fn name(vm: &str) -> VmName {
    VmName::try_from(vm).expect("a name")
}
