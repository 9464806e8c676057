//! Observed requests of the drawn run, whose vm1 has a vCPU0 as well:
//!
//! ```text
//! us           100 110 120 130      200      250      300          400  450
//! vm1 vCPU0    | runs               |preempted        |runs
//! vm1 vCPU1    |preempted                                          |runs
//! request          queued  issued                                       completed
//!                  on vCPU0         host's disk has it                  on vCPU1
//! ```

use super::drawn::{VM1_LOOP, clock_sample, guest_at, host_at, manifest, stream, streams, waking};
use vslice_core::extent::Extent;
use vslice_core::host_event::{BlockEvent, BlockStep, HostEvent, HostEventKind, PrevState, Switch};
use vslice_core::units::{PcpuId, Tid, VcpuId};
use vslice_trace::host::WholeDisk;
use vslice_trace::image::ImageRecord;
use vslice_trace::manifest::Manifest;
use vslice_trace::observation::{ObservationRecord, ObservedDeviceRecord};
use vslice_trace::thread::ThreadRecord;
use vslice_trace::{ObservedItem, RunDir, VmName};
use vslice_wire::{BlockOperation, CompletionVcpu, ObservedFlags, ObservedRequest};

/// The host's disk that both of vm1's are on.
pub const DISK: u32 = 254 << 20;
/// vm1's vCPU0.
pub const VM1_VCPU0: Tid = Tid(150);
/// Somebody else of the host.
pub const STRANGER: Tid = Tid(900);

/// Observes two disks of vm1, and nobody reads.
#[must_use]
pub fn observed_manifest() -> Manifest {
    let mut manifest = manifest();
    let vm1 = &mut manifest.vms[0];
    let vcpu1 = vm1.threads[1].clone();
    let (vcpu, pinned) = (Some(VcpuId(0)), Some(PcpuId(2)));
    vm1.threads.push(ThreadRecord { tid: VM1_VCPU0, vcpu, pinned, ..vcpu1 });
    let image = |sector| ImageRecord {
        label: String::from("virtio-blk disk"),
        serial: None,
        pci_address: None,
        bus: String::from("virtio-blk"),
        iothreads: None,
        size_bytes: Some(1 << 20),
        is_direct: Some(true),
        descriptors: Vec::new(),
        whole_disk: Some(WholeDisk { name: String::from("sda"), device: DISK, first_sector: 0 }),
        missing: None,
        extents: vec![Extent { offset_bytes: 0, sector, length_bytes: 1 << 20 }],
        extents_missing: None,
    };
    vm1.disks = vec![image(10_000), image(50_000)];
    let device = |number: u16, name: &str| ObservedDeviceRecord {
        number,
        name: name.to_owned(),
        size_bytes: Some(1 << 20),
        serial: None,
        address: None,
        io_scheduler: None,
        hardware_queues: None,
        completion_vcpu: CompletionVcpu::Interrupted,
        disk: Some(usize::from(number)),
        disk_missing: None,
    };
    let devices = vec![device(0, "vda"), device(1, "vdb")];
    vm1.observation = Some(ObservationRecord { devices, ..ObservationRecord::default() });
    manifest
}

/// A write of vm1, queued, issued and completed at these times on these vCPUs.
#[must_use]
pub fn request(device: u16, times_us: [u64; 3], vcpus: [u16; 3]) -> ObservedRequest {
    ObservedRequest {
        device,
        operation: BlockOperation::Write,
        flags: ObservedFlags(0),
        sector: 16,
        bytes: 8192,
        queued: guest_at(times_us[0]),
        issued: guest_at(times_us[1]),
        completed: guest_at(times_us[2]),
        vcpu_queued: vcpus[0],
        vcpu_issued: vcpus[1],
        vcpu_completed: vcpus[2],
        task: 0,
        result: 0,
    }
}

/// What the host recorded, and the guest's clocks.
pub fn host_streams(run: &RunDir) {
    streams(run, &[], true);
    let vm1 = vm1();
    std::fs::remove_file(run.clock_path(&vm1)).expect("a scratch directory takes it");
    let samples = [0, 1].map(|vcpu| [0, 500, 1150].map(|us| clock_sample(vcpu, us, us)));
    stream(&run.clock_path(&vm1), samples.concat(), true);
    let event = |us, pcpu, kind| HostEvent { time: host_at(us), pcpu: PcpuId(pcpu), kind };
    let switch = |us, prev, next| {
        let switch =
            Switch { next_priority: Some(120), ..Switch::new(prev, PrevState::Runnable, next) };
        event(us, 2, HostEventKind::Switch(switch))
    };
    let vcpu0 = [
        (20, STRANGER, VM1_VCPU0),
        (200, VM1_VCPU0, STRANGER),
        (300, STRANGER, VM1_VCPU0),
        (1100, VM1_VCPU0, STRANGER),
    ];
    let vcpu0 = vcpu0.map(|(us, prev, next)| switch(us, prev, next));
    stream(&run.events_path(PcpuId(2)), vcpu0.into(), true);
    let io = |us, step, tid, sector| {
        let block = BlockEvent { step, tid, device: DISK, sector, sectors: 16, operation: None };
        event(us, 0, HostEventKind::Block(block))
    };
    let (submitted, completed) = (BlockStep::Submitted, BlockStep::Completed);
    let path = run.events_path(PcpuId(0));
    std::fs::remove_file(&path).expect("a scratch directory takes it");
    let events = vec![
        io(130, submitted, VM1_LOOP, 10_016),
        // The same place of the other disk.
        io(140, submitted, VM1_LOOP, 50_016),
        io(160, completed, STRANGER, 50_016),
        io(250, completed, STRANGER, 10_016),
        waking(700),
    ];
    stream(&path, events, true);
}

/// What the guest observed.
pub fn observed_stream(run: &RunDir, items: Vec<ObservedItem>) {
    stream(&run.observed_path(&vm1()), items, true);
}

fn vm1() -> VmName {
    VmName::try_from("vm1").expect("a name")
}
