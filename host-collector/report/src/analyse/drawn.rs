//! A run drawn by hand, stored by the writers of a real run, whose figures are known beforehand: for
//! tests, here and in the crates above.
//!
//! ```text
//! us        20  50  100         400  450   550  600     700    750  800       1000      1200
//! pCPU1     |vm1 vCPU1 |vm2 vCPU1 |vm1 vCPU1    |vm2 vCPU1      |vm1 vCPU1     |vm2 vCPU1 |vm1
//! vm1 vCPU1 |runs      |preempted |runs         |futex  |woken  |runs          |preempted |
//! request       <-------- 0 ------------->  <-------- 1 ------------->
//! ```

use std::path::Path;
use vslice_core::host_event::{HostEvent, HostEventKind, PrevState, StackId, Switch};
use vslice_core::units::{GuestTicks, HostNs, PcpuId, Tid, VcpuId};
use vslice_trace::lock::{Bql, LockRecord};
use vslice_trace::manifest::{
    GuestClock, GuestEnd, GuestRecord, HogRecord, InterruptRecord, Manifest, Status, TscRecord,
    VmRecord, Window,
};
use vslice_trace::memory_map::MemoryMap;
use vslice_trace::thread::{HostThread, ThreadRecord, ThreadRole};
use vslice_trace::vmm::Accelerator;
use vslice_trace::{ClockSample, RequestItem, RunDir, StackNames, StreamWriter, VmName};
use vslice_wire::Request;

/// When the drawing begins.
pub const START_NS: u64 = 1_000_000_000;
/// What the guest's clock shows less than the host's; both count nanoseconds.
pub const OFFSET_NS: u64 = 999_000_000;

/// Where vm1's QEMU has its big lock.
pub const BQL: u64 = 0x55a8_e2e7_eb40;

/// vm1's main loop.
pub const VM1_LOOP: Tid = Tid(100);
/// The thread of vm1's vCPU1.
pub const VM1_VCPU1: Tid = Tid(101);
/// vm2's main loop.
pub const VM2_LOOP: Tid = Tid(200);
/// The thread of vm2's vCPU1.
pub const VM2_VCPU1: Tid = Tid(201);

/// So many microseconds after the beginning.
#[must_use]
pub fn host_at(us: u64) -> HostNs {
    HostNs(START_NS + us * 1000)
}

/// The same on the guests' clock.
#[must_use]
pub fn guest_at(us: u64) -> GuestTicks {
    GuestTicks(host_at(us).0 - OFFSET_NS)
}

/// A switch on pCPU1; whoever sleeps does so for the big lock of vm1.
#[must_use]
pub fn switch(us: u64, prev: Tid, prev_state: PrevState, next: Tid) -> HostEvent {
    let stack = (prev_state == PrevState::Sleep).then_some(StackId(0));
    // `pthread_mutex_lock` of a lock that is taken: FUTEX_WAIT_PRIVATE, value 2.
    let call_args = stack.map(|_| [BQL, 0x80, 2]);
    let next_priority = Some(120);
    let switch = Switch { stack, call_args, next_priority, ..Switch::new(prev, prev_state, next) };
    let kind = HostEventKind::Switch(switch);
    HostEvent { time: host_at(us), pcpu: PcpuId(1), kind }
}

/// That vm1's main loop wakes its vCPU1.
#[must_use]
pub fn waking(us: u64) -> HostEvent {
    let kind = HostEventKind::Waking { tid: VM1_VCPU1, target: PcpuId(1), waker: VM1_LOOP };
    HostEvent { time: host_at(us), pcpu: PcpuId(0), kind }
}

/// One of the VMs.
#[must_use]
pub fn vm(name: &str, pid: Tid, vcpu1: Tid, reads: bool) -> VmRecord {
    let thread = |tid, role: &str, vcpu, pcpu| ThreadRecord {
        tid,
        comm: String::from("qemu"),
        role: ThreadRole::from(role.to_owned()),
        vcpu,
        pinned: Some(PcpuId(pcpu)),
        kept: None,
        scheduling: None,
    };
    let bql = Bql {
        address: BQL,
        symbol: String::from("bql_lock_impl"),
        unlock_symbol: Some(String::from("bql_unlock")),
        owner_seen: None,
        looks_count: 1,
    };
    VmRecord {
        name: name.to_owned(),
        vmm: Some(vslice_trace::vmm::Vmm::Qemu),
        accelerator: Some(Accelerator::Kvm),
        domain: None,
        pid,
        device_pid: None,
        helpers: Vec::new(),
        block_bytes: reads.then_some(4096),
        threads: vec![
            thread(pid, "main loop", None, 0),
            thread(vcpu1, "vCPU1", Some(VcpuId(1)), 1),
        ],
        reader_vcpu: reads.then_some(VcpuId(1)),
        hogs: vec![VcpuId(1)],
        guest: Some(GuestRecord {
            kernel_release: String::from("6.1.0"),
            agent_version: String::from("0.1.0"),
            vcpu_count: 2,
            tsc_invariant: true,
            clock: Some(GuestClock::Tsc),
            target: String::from("/dev/vda"),
            io_scheduler: None,
            clock_source: None,
            requests_count: 2,
            dropped_count: 0,
            hogs: vec![HogRecord { vcpu: VcpuId(1), count: 77 }],
            notices: vec![],
            host_times: vec![],
            ended: Some(GuestEnd::Completed),
        }),
        lock: LockRecord { bql: Some(bql), ..LockRecord::default() },
        memory_map: MemoryMap::default(),
        memory_map_missing: None,
        disks: Vec::new(),
        disks_missing: None,
        asleep_vcpus: Vec::new(),
        observation: None,
        groups: vec![],
        groups_missing: None,
        tsc: TscRecord::default(),
        interrupts: InterruptRecord::default(),
        disk: None,
    }
}

/// The run as it ends.
#[must_use]
pub fn manifest() -> Manifest {
    Manifest {
        status: Status::Complete,
        plan_name: String::from("drawn"),
        accelerator_reason: String::from("drawn by hand"),
        vsock_way: String::from("none"),
        window: Some(Window { start_ns: host_at(0), end_ns: Some(host_at(1100)) }),
        vms: vec![vm("vm1", VM1_LOOP, VM1_VCPU1, true), vm("vm2", VM2_LOOP, VM2_VCPU1, false)],
        ..Manifest::begun(Tid(1))
    }
}

/// The run as its collector was killed: no end of the window, no word of the guests.
#[must_use]
pub fn killed_manifest() -> Manifest {
    let mut manifest = Manifest { status: Status::Recording, ..manifest() };
    manifest.window = Some(Window { start_ns: host_at(0), end_ns: None });
    manifest.vms.iter_mut().for_each(|vm| vm.guest = None);
    manifest
}

/// A stream as a run leaves it: `finished`, or cut off as its writer was killed.
pub fn stream<T: vslice_trace::Columnar>(path: &Path, items: Vec<T>, finished: bool) {
    let mut writer = StreamWriter::create(path).expect("a scratch directory takes it");
    for item in items {
        writer.push(item).expect("a scratch directory takes it");
    }
    if finished {
        writer.finish().expect("a scratch directory takes it");
    }
}

/// What the collector records while the run goes on.
pub fn streams(run: &RunDir, clock_us: &[u64], finished: bool) {
    let (runs, preempted) = (PrevState::Runnable, PrevState::RunnablePreempted);
    let events = vec![
        switch(20, VM2_VCPU1, preempted, VM1_VCPU1),
        switch(100, VM1_VCPU1, preempted, VM2_VCPU1),
        switch(400, VM2_VCPU1, runs, VM1_VCPU1),
        switch(600, VM1_VCPU1, PrevState::Sleep, VM2_VCPU1),
        switch(750, VM2_VCPU1, preempted, VM1_VCPU1),
        switch(1000, VM1_VCPU1, preempted, VM2_VCPU1),
        switch(1200, VM2_VCPU1, preempted, VM1_VCPU1),
    ];
    stream(&run.events_path(PcpuId(1)), events, finished);
    stream(&run.events_path(PcpuId(0)), vec![waking(700)], true);
    let request = |index, from_us, to_us| Request {
        index,
        submitted: guest_at(from_us),
        completed: guest_at(to_us),
        vcpu_submitted: 1,
        vcpu_completed: 1,
        result: 4096,
    };
    let requests =
        vec![RequestItem::Request(request(0, 50, 450)), RequestItem::Request(request(1, 550, 800))];
    let vm1 = VmName::try_from("vm1").expect("a scratch directory takes it");
    stream(&run.requests_path(&vm1), requests, finished);
    let sample = |us: &u64| clock_sample(1, *us, *us);
    stream(&run.clock_path(&vm1), clock_us.iter().map(sample).collect(), finished);
}

/// A run directory with this manifest, and what it is in.
#[cfg(test)]
pub(crate) fn run_dir(manifest: &Manifest) -> (tempfile::TempDir, RunDir) {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let run = run_in(&scratch.path().join("run"), manifest);
    (scratch, run)
}

/// A run directory at this path, with this manifest.
#[must_use]
pub fn run_in(path: &Path, manifest: &Manifest) -> RunDir {
    let run = RunDir::create(path).expect("a scratch directory takes it");
    run.write_json("run.json", manifest).expect("a scratch directory takes it");
    run
}

/// What a run writes at its start and at its end.
pub fn names(run: &RunDir) {
    run.write_json("threads.json", &Vec::<HostThread>::new())
        .expect("a scratch directory takes it");
    let frames = vec![String::from("futex_wait_queue"), String::from("do_futex")];
    run.write_stack_names(&[StackNames { id: 0, frames }]).expect("a scratch directory takes it");
}

/// An exchange with vm1's vCPU, as the guest answered at this time of its own.
#[must_use]
pub fn clock_sample(vcpu: u16, host_us: u64, guest_us: u64) -> ClockSample {
    let (host, guest) = (host_at(host_us), guest_at(guest_us));
    let exchange = vslice_core::clock::Exchange {
        host_sent: host,
        guest_received: guest,
        guest_sent: guest,
        host_received: host,
    };
    ClockSample { vcpu: VcpuId(vcpu), exchange }
}
