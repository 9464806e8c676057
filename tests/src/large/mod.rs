//! Runs of any size whose right summary is known by construction: a host is acted out, event by event, and written by
//! the writers of a real run.
//!
//! ```text
//! each VM has five pCPUs:  vCPU0  vCPU1 (reads)  vCPU2  vCPU3  main loop
//! all others:              strangers, who come and go
//! ```
//!
//! Nobody shares a pCPU with a VM but strangers, and no VM knows of another. So what happens to a vCPU is acted out on its
//! own, and what is known of it adds up. The guests' clocks are the host's.

mod expected;
mod random;
mod reader;
mod strangers;

pub use expected::{Expected, Latencies, VcpuExpected};

use random::Random;
use reader::Reader;
use serde_json::{Value, json};
use std::path::Path;
use strangers::Strangers;
use vslice_core::clock::Exchange;
use vslice_core::host_event::{HostEvent, HostEventKind, PrevState, StackId, Switch};
use vslice_core::units::{GuestTicks, HostNs, PcpuId, Tid, VcpuId};
use vslice_trace::manifest::SCHEMA;
use vslice_trace::{
    ClockSample, RequestItem, RunDir, StackNames, StoreError, StreamWriter, VmName,
};

/// When the window begins.
const START_NS: u64 = 1_000_000_000;

/// A reader makes a request in each turn of so many nanoseconds.
const TURN_NS: u64 = 400_000;

const VCPUS: u32 = 4;
const READING_VCPU: u32 = 1;
const PCPUS_OF_VM: u32 = VCPUS + 1;
const BLOCK_BYTES: u64 = 4096;
const DISK_BYTES: u64 = 1 << 30;
const BQL: u64 = 0x55a8_e2e7_eb40;

/// The kernel's stacks, by what they are of.
const IN_FUTEX: StackId = StackId(0);
const IN_HALT: StackId = StackId(1);

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// So many events or somewhat more.
    pub events: u64,
    /// Requests of all readers, rounded up so that all make as many.
    pub requests: u64,
    /// Virtual machines; each needs five pCPUs.
    pub vms: u32,
    /// The host's pCPUs.
    pub pcpus: u32,
    /// Other numbers give other runs, of the same size.
    pub seed: u64,
}

/// Writes a run into a new directory, and says what its summary has to be.
///
/// # Errors
/// When it cannot be written.
///
/// # Panics
/// If there are too few pCPUs for so many VMs.
pub fn write(path: &Path, asked: &Asked) -> Result<Expected, StoreError> {
    assert!(asked.vms * PCPUS_OF_VM <= asked.pcpus, "each VM needs {PCPUS_OF_VM} pCPUs");
    let run = RunDir::create(path)?;
    let turns = asked.requests.div_ceil(asked.vms.into());
    let end_ns = START_NS + turns * TURN_NS;
    run.write_json("run.json", &manifest(asked, end_ns))?;
    run.write_json("threads.json", &census(asked))?;
    run.write_stack_names(&stacks())?;
    let mut expected = Expected::default();
    for vm in 0..asked.vms {
        Reader::new(&run, vm, asked.seed)?.write(turns, end_ns, &mut expected)?;
        write_clock(&run, vm, end_ns)?;
    }
    let reading = expected.events;
    let others = (0..asked.pcpus).filter(|pcpu| !is_written_by_reader(*pcpu, asked.vms));
    let others: Vec<u32> = others.collect();
    let stays = asked.events.saturating_sub(reading).div_ceil(2 * others.len() as u64).max(1);
    for pcpu in others {
        let vcpu = vcpu_on(pcpu, asked.vms);
        Strangers::new(&run, pcpu, vcpu, asked.seed)?.write(stays, end_ns, &mut expected)?;
    }
    Ok(expected)
}

fn vm_name(vm: u32) -> String {
    format!("vm{vm}")
}

fn main_loop(vm: u32) -> Tid {
    Tid(10_000 + vm * 100)
}

fn vcpu_thread(vm: u32, vcpu: u32) -> Tid {
    Tid(main_loop(vm).0 + 1 + vcpu)
}

fn pcpu_of(vm: u32, place: u32) -> PcpuId {
    PcpuId(vm * PCPUS_OF_VM + place)
}

/// The VM and the vCPU that have this pCPU, if any have.
fn vcpu_on(pcpu: u32, vms: u32) -> Option<(u32, u32)> {
    let (vm, place) = (pcpu / PCPUS_OF_VM, pcpu % PCPUS_OF_VM);
    (vm < vms && place < VCPUS).then_some((vm, place))
}

fn is_written_by_reader(pcpu: u32, vms: u32) -> bool {
    let (vm, place) = (pcpu / PCPUS_OF_VM, pcpu % PCPUS_OF_VM);
    vm < vms && (place == READING_VCPU || place == VCPUS)
}

/// The host's disk that a VM's is on.
fn device(vm: u32) -> u32 {
    0xfe0_0000 + vm * 16
}

fn switch(time: u64, pcpu: PcpuId, prev: Tid, prev_state: PrevState, next: Tid) -> HostEvent {
    let switch = Switch { next_priority: Some(120), ..Switch::new(prev, prev_state, next) };
    HostEvent { time: HostNs(time), pcpu, kind: HostEventKind::Switch(switch) }
}

fn stacks() -> [StackNames; 2] {
    let stack = |StackId(id), frames: &[&str]| StackNames {
        id,
        frames: frames.iter().map(|frame| (*frame).to_owned()).collect(),
    };
    [
        stack(IN_FUTEX, &["futex_wait_queue", "do_futex"]),
        stack(IN_HALT, &["kvm_vcpu_block", "kvm_vcpu_halt", "kvm_arch_vcpu_ioctl_run"]),
    ]
}

/// Exchanges with the reading vCPU that took no time: its clock is the host's.
fn write_clock(run: &RunDir, vm: u32, end_ns: u64) -> Result<(), StoreError> {
    let mut clock =
        StreamWriter::create(&run.clock_path(&VmName::try_from(vm_name(vm).as_str())?))?;
    for place in 0..=100 {
        let at = START_NS + (end_ns - START_NS) / 100 * place;
        let exchange = Exchange {
            host_sent: HostNs(at),
            guest_received: GuestTicks(at),
            guest_sent: GuestTicks(at),
            host_received: HostNs(at),
        };
        clock.push(ClockSample { vcpu: VcpuId(1), exchange })?;
    }
    clock.finish()
}

fn census(asked: &Asked) -> Value {
    let strangers = (0..asked.pcpus).flat_map(strangers::all_on);
    let strangers = strangers.map(|(tid, name)| {
        json!({ "tid": tid, "pid": tid, "comm": name, "is_kernel": false, "command": null })
    });
    strangers.collect()
}

fn manifest(asked: &Asked, end_ns: u64) -> Value {
    json!({
        "schema": SCHEMA,
        "status": { "state": "complete" },
        "plan": null, "plan_name": "acted out", "accelerator_reason": "acted out",
        "vsock_way": "none", "environment": null, "environment_lines": [], "collector_pid": 1,
        "image": null,
        "window": { "start_ns": START_NS, "end_ns": end_ns },
        "pcpus": (0..asked.pcpus).collect::<Vec<u32>>(),
        "vms": (0..asked.vms).map(vm).collect::<Vec<Value>>(),
        "cost": {
            "events_count": 0, "lost_count": 0, "cpu_ns": 0, "uncovered_threads_count": 0,
            "ring_bytes": 0, "written_bytes": 0,
        },
    })
}

fn vm(vm: u32) -> Value {
    let vcpus = (0..VCPUS).map(|vcpu| {
        json!({
            "tid": vcpu_thread(vm, vcpu), "comm": "qemu", "role": format!("vCPU{vcpu}"),
            "vcpu": vcpu, "pinned": pcpu_of(vm, vcpu),
        })
    });
    let own = json!({
        "tid": main_loop(vm), "comm": "qemu", "role": "main loop", "vcpu": null,
        "pinned": pcpu_of(vm, VCPUS),
    });
    json!({
        "name": vm_name(vm), "vmm": "qemu", "accelerator": "kvm", "pid": main_loop(vm),
        "device_pid": null, "block_bytes": BLOCK_BYTES,
        "threads": std::iter::once(own).chain(vcpus).collect::<Vec<Value>>(),
        "reader_vcpu": READING_VCPU, "hogs": [], "guest": null,
        "lock": {
            "bql": {
                "address": BQL, "symbol": "bql_lock_impl", "owner_seen": null, "looks_count": 1,
            },
            "bql_missing": null, "exe_data": null,
        },
        "disk": {
            "is_direct": true, "pattern": "seq", "size_bytes": DISK_BYTES,
            "whole_disk": { "name": format!("vd{vm}"), "device": device(vm), "first_sector": 0 },
            "missing": null,
            "extents": [{ "offset_bytes": 0, "sector": 0, "length_bytes": DISK_BYTES }],
            "extents_missing": null,
        },
    })
}

/// The stream of a pCPU's events, of which each is counted.
struct Events {
    writer: StreamWriter<HostEvent>,
    count: u64,
}

impl Events {
    fn create(run: &RunDir, pcpu: PcpuId) -> Result<Events, StoreError> {
        Ok(Events { writer: StreamWriter::create(&run.events_path(pcpu))?, count: 0 })
    }

    fn push(&mut self, event: HostEvent) -> Result<(), StoreError> {
        self.count += 1;
        self.writer.push(event)
    }

    fn finish(self) -> Result<u64, StoreError> {
        self.writer.finish()?;
        Ok(self.count)
    }
}

/// The requests of a reader.
type Requests = StreamWriter<RequestItem>;
