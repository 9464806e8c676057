//! What an analysis takes of memory does not grow with the run.

#[path = "support/allocated.rs"]
mod allocated;

use allocated::{MEASURED, Peak};
use std::error::Error;
use vslice_core::clock::Exchange;
use vslice_core::host_event::{
    BlockEvent, BlockStep, HostEvent, HostEventKind, PrevState, StackId, Switch,
};
use vslice_core::join::Part;
use vslice_core::timeline::Reason;
use vslice_core::units::{GuestTicks, HostNs, PcpuId, Tid, VcpuId};
use vslice_report::analyse;
use vslice_report::summary::Summary;
use vslice_trace::manifest::SCHEMA;
use vslice_trace::{
    ClockSample, HogGapItem, ObservedItem, RequestItem, RunDir, StackNames, StreamWriter, VmName,
};
use vslice_wire::{BlockOperation, ObservedFlags, ObservedRequest, Request};

const MAIN_LOOP: Tid = Tid(100);
const VCPU: Tid = Tid(101);

/// The strangers, who share so many names.
const STRANGERS: u64 = 1_000;
const NAMES: u64 = 200;
const TURN_NS: u64 = 2_000_000;
const START_NS: u64 = 1_000_000_000;

/// More than all that is read in blocks, one of each of two streams being decoded ahead or not when the peak comes. What
/// one absence takes is 16 bytes: more than this for those that the longer run has more.
const GROWTH_MAX_BYTES: usize = 1280 << 10;

/// The host's disk, and what of it the reader reads again and again, in blocks of 4 KiB.
const DEVICE: u32 = 0xfe0_0000;
const BLOCK_BYTES: u64 = 4096;
const DISK_BYTES: u64 = 1 << 20;

/// Where QEMU has its big lock.
const BQL: u64 = 0x55a8_e2e7_eb40;

/// What happens in each turn of two milliseconds, in nanoseconds from its begin. A stranger has the vCPU's pCPU
/// until it comes on; then the guest gets what it had asked for in the turn before, and asks for the next
/// block. While the main loop reads that, the vCPU has to wait for the big lock.
const CAME_NS: u64 = TURN_NS / 2;
const COMPLETED_NS: u64 = CAME_NS + 10_000;
const ASKED_NS: u64 = CAME_NS + 100_000;
const IO_BEGUN_NS: u64 = CAME_NS + 150_000;
const SLEPT_NS: u64 = CAME_NS + 200_000;
const IO_ENDED_NS: u64 = CAME_NS + 300_000;
const WOKEN_NS: u64 = CAME_NS + 400_000;
const BACK_NS: u64 = CAME_NS + 410_000;

/// Two in a hundred requests are slower than the others, and each of them by something else, so that the slowest
/// ones are classes of their own. They too are answered before the next is made.
fn slower_ns(turn: u64) -> u64 {
    100_u64.saturating_sub(turn * 7_919 % 4_999) * 800
}

fn manifest(turns: u64) -> serde_json::Value {
    serde_json::json!({
        "schema": SCHEMA,
        "status": { "state": "complete" },
        "plan": null, "plan_name": "drawn", "accelerator": "kvm", "accelerator_reason": "drawn",
        "vsock_way": "none", "environment": null, "environment_lines": [], "collector_pid": 1,
        "image": null,
        "window": { "start_ns": START_NS, "end_ns": START_NS + turns * TURN_NS },
        "vms": [{
            "name": "vm1", "pid": MAIN_LOOP, "device_pid": null, "block_bytes": BLOCK_BYTES,
            "threads": [
                { "tid": MAIN_LOOP, "comm": "qemu", "role": "main loop", "vcpu": null, "pinned": 0 },
                { "tid": VCPU, "comm": "qemu", "role": "vCPU1", "vcpu": 1, "pinned": 1 },
            ],
            "reader_vcpu": 1, "hogs": [1], "guest": null,
            "lock": {
                "bql": {
                    "address": BQL, "symbol": "bql_lock_impl", "owner_seen": null, "looks_count": 1,
                },
                "bql_missing": null, "exe_data": null,
            },
            "disk": {
                "is_direct": true, "pattern": "seq", "size_bytes": DISK_BYTES,
                "whole_disk": { "name": "vda", "device": DEVICE, "first_sector": 0 },
                "missing": null,
                "extents": [{ "offset_bytes": 0, "sector": 0, "length_bytes": DISK_BYTES }],
                "extents_missing": null,
            },
        }],
        "cost": {
            "events_count": 0, "lost_count": 0, "cpu_ns": 0, "uncovered_threads_count": 0,
            "ring_bytes": 0, "written_bytes": 0,
        },
    })
}

fn switch(time: u64, prev: Tid, state: PrevState, next: Tid) -> HostEvent {
    let stack = (state == PrevState::Sleep).then_some(StackId(0));
    // `pthread_mutex_lock` of a lock that is taken: FUTEX_WAIT_PRIVATE, value 2.
    let call_args = stack.map(|_| [BQL, 0x80, 2]);
    let next_priority = Some(120);
    let switch = Switch { stack, call_args, next_priority, ..Switch::new(prev, state, next) };
    HostEvent { time: HostNs(time), pcpu: PcpuId(1), kind: HostEventKind::Switch(switch) }
}

/// Who takes the vCPU's pCPU in a turn.
fn stranger(turn: u64) -> Tid {
    Tid(1_000 + u32::try_from(turn % STRANGERS).expect("they are few"))
}

/// What the other pCPU tells of a turn that begins at `at`.
fn of_main_loop(at: u64, turn: u64) -> [HostEvent; 5] {
    let named = HostEventKind::Comm { tid: stranger(turn), comm: format!("cc{}", turn % NAMES) };
    let block = |step, tid| {
        let sector = turn * BLOCK_BYTES % DISK_BYTES / 512;
        HostEventKind::Block(BlockEvent {
            step,
            tid,
            device: DEVICE,
            sector,
            sectors: 8,
            operation: None,
        })
    };
    let waking = HostEventKind::Waking { tid: VCPU, target: PcpuId(1), waker: MAIN_LOOP };
    [
        (1, named),
        (IO_BEGUN_NS, block(BlockStep::Submitted, MAIN_LOOP)),
        (IO_BEGUN_NS + 10_000, block(BlockStep::Issued, MAIN_LOOP)),
        (IO_ENDED_NS, block(BlockStep::Completed, Tid::IDLE)),
        (WOKEN_NS, waking),
    ]
    .map(|(ns, kind)| HostEvent { time: HostNs(at + ns), pcpu: PcpuId(0), kind })
}

/// Another request of the guest's, of which only its kernel told.
fn observed(turn: u64) -> ObservedRequest {
    let at = START_NS + turn * TURN_NS;
    ObservedRequest {
        device: 0,
        operation: BlockOperation::Write,
        flags: ObservedFlags(0),
        sector: 0,
        bytes: 4096,
        queued: GuestTicks(at + ASKED_NS),
        issued: GuestTicks(at + ASKED_NS + 1_000),
        completed: GuestTicks(at + TURN_NS + COMPLETED_NS),
        vcpu_queued: 1,
        vcpu_issued: 1,
        vcpu_completed: 1,
        task: 0,
        result: 0,
    }
}

/// A hog and a reader on a vCPU that loses its pCPU so many times, for a millisecond each, and sleeps on the
/// big lock in between. After `asking` turns nobody in the guest asks for anything any more.
fn run_of(turns: u64, asking: u64, run: &RunDir) -> Result<(), Box<dyn Error>> {
    run.write_json("run.json", &manifest(turns))?;
    let frames = ["futex_wait_queue", "do_futex"].map(str::to_owned).to_vec();
    run.write_stack_names(&[StackNames { id: 0, frames }])?;
    let vm = VmName::try_from("vm1")?;
    let mut events = StreamWriter::create(&run.events_path(PcpuId(1)))?;
    let mut others = StreamWriter::create(&run.events_path(PcpuId(0)))?;
    let mut gaps = StreamWriter::create(&run.hog_gaps_path(&vm))?;
    let mut requests = StreamWriter::create(&run.requests_path(&vm))?;
    if asking < turns {
        let mut others = StreamWriter::create(&run.observed_path(&vm))?;
        for turn in 0..asking {
            others.push(ObservedItem::Request(observed(turn)))?;
        }
        others.finish()?;
    }
    let preempted = PrevState::RunnablePreempted;
    for turn in 0..turns {
        let at = START_NS + turn * TURN_NS;
        for (time, prev, state, next) in [
            (at, VCPU, preempted, stranger(turn)),
            (at + CAME_NS, stranger(turn), preempted, VCPU),
            (at + SLEPT_NS, VCPU, PrevState::Sleep, Tid::IDLE),
            (at + BACK_NS, Tid::IDLE, PrevState::Runnable, VCPU),
        ] {
            events.push(switch(time, prev, state, next))?;
        }
        for event in of_main_loop(at, turn) {
            others.push(event)?;
        }
        for (left, came) in [(at, at + CAME_NS), (at + SLEPT_NS, at + BACK_NS)] {
            let (start, end) = (GuestTicks(left - 1_000), GuestTicks(came + 1_000));
            gaps.push(HogGapItem { vcpu: VcpuId(1), start, end })?;
        }
        // The last one is not answered before the record ends.
        if turn + 1 < turns && turn < asking {
            requests.push(RequestItem::Request(Request {
                index: turn,
                submitted: GuestTicks(at + ASKED_NS),
                completed: GuestTicks(at + TURN_NS + COMPLETED_NS + slower_ns(turn)),
                vcpu_submitted: 1,
                vcpu_completed: 1,
                result: 4096,
            }))?;
        }
    }
    events.finish()?;
    others.finish()?;
    gaps.finish()?;
    requests.finish()?;
    let mut clock = StreamWriter::create(&run.clock_path(&vm))?;
    for place in 0..100 {
        let sent = START_NS + place * turns * TURN_NS / 100 + 1_500_000;
        let stamp = GuestTicks(sent + 10_000);
        let exchange = Exchange {
            host_sent: HostNs(sent),
            guest_received: stamp,
            guest_sent: stamp,
            host_received: HostNs(sent + 20_000),
        };
        clock.push(ClockSample { vcpu: VcpuId(1), exchange })?;
    }
    clock.finish()?;
    Ok(())
}

/// That the analysis has worked on all that was drawn: else it is of no worth that it takes little for it.
fn assert_all_is_there(summary: &Summary, turns: u64) {
    let check = summary.clock.hog_check();
    assert_eq!(check.violations, 0);
    assert!(check.absences >= turns - 4, "{check:?}");
    assert!(summary.clock.vcpus[0].stays >= turns - 4, "{:?}", summary.clock.vcpus[0]);
    assert_eq!((summary.requests.count, summary.requests.unattributable), (turns - 1, 0));
    assert_eq!(summary.io.classes.all.known, turns - 1);
    let part_ns = |part| summary.parts.all.get(part) / (turns - 1) / 1_000;
    assert_eq!((part_ns(Part::PreemptWait), part_ns(Part::BqlWait)), (1_000, 200));
    let [waits] = &summary.lock_waits[..] else { panic!("{:?}", summary.lock_waits) };
    assert_eq!((waits.reason, waits.count), (Reason::Bql, turns));
    let classes = &summary.classes;
    assert!(classes.p999.count > 0, "{:?}", classes.p999);
    // More names than are listed.
    for class in [&classes.all, &classes.p99] {
        assert!(class.count > 0 && class.others_ns > 0, "{class:?}");
    }
}

/// What the analysis of such a run takes at most, beside what is there before.
fn peak_bytes(turns: u64, asking: u64) -> Result<usize, Box<dyn Error>> {
    let _alone = MEASURED.lock()?;
    let scratch = tempfile::tempdir()?;
    let run = RunDir::create(&scratch.path().join("run"))?;
    run_of(turns, asking, &run)?;
    let peak = Peak::from_now();
    let summary = analyse(run.path())?;
    let peak_bytes = peak.bytes();
    if asking < turns {
        let observed = summary.observed.as_ref().ok_or("nothing was observed")?;
        let counts: Vec<u64> = observed.operations.iter().map(|row| row.count).collect();
        assert_eq!((summary.requests.count, counts), (asking, vec![asking]));
    } else {
        assert_all_is_there(&summary, turns);
    }
    Ok(peak_bytes)
}

#[test]
fn an_analysis_of_twenty_times_the_run_takes_no_more_memory() -> Result<(), Box<dyn Error>> {
    let (short, long) = (peak_bytes(5_000, 5_000)?, peak_bytes(100_000, 100_000)?);
    assert!(
        long <= short + GROWTH_MAX_BYTES,
        "{short} bytes for 5,000 requests and 20,000 switches, {long} for twenty times as many"
    );
    Ok(())
}

#[test]
fn what_follows_the_last_request_takes_no_memory() -> Result<(), Box<dyn Error>> {
    let (short, long) = (peak_bytes(5_000, 1_000)?, peak_bytes(50_000, 1_000)?);
    assert!(
        long <= short + GROWTH_MAX_BYTES,
        "{short} bytes where nothing is asked for in 16,000 switches, {long} for twelve times as many"
    );
    Ok(())
}
