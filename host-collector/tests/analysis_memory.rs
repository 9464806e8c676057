//! What an analysis takes of memory does not grow with the run.
#![expect(unsafe_code, reason = "an allocator that counts is an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use vslice::clock::Exchange;
use vslice::host_event::{BlockEvent, BlockStep, HostEvent, HostEventKind, PrevState, Switch};
use vslice::run::analyse;
use vslice::run::manifest::SCHEMA;
use vslice::store::{ClockSample, HogGapItem, RequestItem, RunDir, StreamWriter, VmName};
use vslice::units::{GuestTicks, HostNs, PcpuId, Tid, VcpuId};
use vslice_wire::Request;

struct Counting;

static NOW_BYTES: AtomicUsize = AtomicUsize::new(0);
static PEAK_BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all that is asked for is asked of `System` as it is, and what that gives is passed on.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW_BYTES.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK_BYTES.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller keeps to the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: `System` gave it, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const MAIN_LOOP: Tid = Tid(100);
const VCPU: Tid = Tid(101);
const STRANGER: Tid = Tid(900);
const TURN_NS: u64 = 2_000_000;
const START_NS: u64 = 1_000_000_000;
const BLOCK_BYTES: u32 = 4096;
/// They are read again and again.
const BLOCKS_COUNT: u64 = 1024;
const DISK: u32 = 254 << 20;

/// More than all that is read in blocks; what one absence takes is 16 bytes.
const GROWTH_MAX_BYTES: usize = 256 << 10;

/// A vCPU with a hog and a reader that loses its pCPU so many times, for a millisecond each, in the middle
/// of a request whose I/O is done by then.
fn run_of(turns: u64, run: &RunDir) -> Result<(), Box<dyn Error>> {
    let size_bytes = BLOCKS_COUNT * u64::from(BLOCK_BYTES);
    let manifest = serde_json::json!({
        "schema": SCHEMA,
        "status": { "state": "complete" },
        "plan": null, "plan_name": "drawn", "accelerator": "kvm", "accelerator_reason": "drawn",
        "vsock_way": "none", "environment": null, "environment_lines": [], "collector_pid": 1,
        "image": null,
        "window": { "start_ns": START_NS, "end_ns": START_NS + turns * TURN_NS },
        "vms": [{
            "name": "vm1", "pid": 100, "device_pid": null, "block_bytes": BLOCK_BYTES,
            "threads": [
                { "tid": MAIN_LOOP, "comm": "qemu", "role": "main loop", "vcpu": null, "pinned": 0 },
                { "tid": VCPU, "comm": "qemu", "role": "vCPU1", "vcpu": 1, "pinned": 1 },
            ],
            "reader_vcpu": 1, "hogs": [1], "guest": null,
            "disk": {
                "is_direct": true, "pattern": "seq", "size_bytes": size_bytes, "missing": null,
                "whole_disk": { "name": "vdz", "device": DISK, "first_sector": 0 },
                "extents": [{ "offset_bytes": 0, "sector": 0, "length_bytes": size_bytes }],
                "extents_missing": null,
            },
        }],
        "cost": {
            "events_count": 0, "lost_count": 0, "cpu_ns": 0, "uncovered_threads_count": 0,
            "ring_bytes": 0, "written_bytes": 0,
        },
    });
    run.write_json("run.json", &manifest)?;
    let vm = VmName::try_from("vm1")?;
    let mut events = StreamWriter::create(&run.events_path(PcpuId(1)))?;
    let mut gaps = StreamWriter::create(&run.hog_gaps_path(&vm))?;
    let mut requests = StreamWriter::create(&run.requests_path(&vm))?;
    let mut disk = StreamWriter::create(&run.events_path(PcpuId(0)))?;
    for turn in 0..turns {
        let (left, came) = (START_NS + turn * TURN_NS, START_NS + turn * TURN_NS + TURN_NS / 2);
        for (time, prev, next) in [(left, VCPU, STRANGER), (came, STRANGER, VCPU)] {
            let switch = Switch::new(prev, PrevState::RunnablePreempted, next);
            let switch = Switch { next_priority: Some(120), ..switch };
            let kind = HostEventKind::Switch(switch);
            events.push(HostEvent { time: HostNs(time), pcpu: PcpuId(1), kind })?;
        }
        let (start, end) = (GuestTicks(left - 1_000), GuestTicks(came + 1_000));
        gaps.push(HogGapItem { vcpu: VcpuId(1), start, end })?;
        let request = Request {
            index: turn,
            submitted: GuestTicks(came + 600_000),
            completed: GuestTicks(came + 2_200_000),
            vcpu_submitted: 1,
            vcpu_completed: 1,
            result: 4096,
        };
        requests.push(RequestItem::Request(request))?;
        for (time, step) in
            [(came + 700_000, BlockStep::Submitted), (came + 900_000, BlockStep::Completed)]
        {
            let (sector, sectors) = (turn % BLOCKS_COUNT * 8, 8);
            let block = BlockEvent { step, tid: MAIN_LOOP, device: DISK, sector, sectors };
            let kind = HostEventKind::Block(block);
            disk.push(HostEvent { time: HostNs(time), pcpu: PcpuId(0), kind })?;
        }
    }
    events.finish()?;
    gaps.finish()?;
    requests.finish()?;
    disk.finish()?;
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

/// What the analysis of such a run takes at most, beside what is there before.
fn peak_bytes(turns: u64) -> Result<usize, Box<dyn Error>> {
    let scratch = tempfile::tempdir()?;
    let run = RunDir::create(&scratch.path().join("run"))?;
    run_of(turns, &run)?;
    let before = NOW_BYTES.load(Ordering::Relaxed);
    PEAK_BYTES.store(before, Ordering::Relaxed);
    let summary = analyse(run.path())?;
    let peak = PEAK_BYTES.load(Ordering::Relaxed) - before;
    let check = summary.clock.hog_check();
    assert_eq!(check.violations, 0);
    assert!(check.absences >= turns - 4, "{check:?}");
    assert!(summary.clock.vcpus[0].stays >= turns - 4, "{:?}", summary.clock.vcpus[0]);
    assert_eq!(summary.requests.count, turns);
    assert!(summary.requests.unattributable <= 1, "{:?}", summary.requests);
    assert!(summary.io.classes.all.known >= turns - 1, "{:?}", summary.io.classes.all);
    Ok(peak)
}

#[test]
fn an_analysis_of_ten_times_the_run_takes_no_more_memory() -> Result<(), Box<dyn Error>> {
    let (short, long) = (peak_bytes(10_000)?, peak_bytes(100_000)?);
    assert!(
        long <= short + GROWTH_MAX_BYTES,
        "{short} bytes for 20,000 switches and 10,000 requests, {long} for ten times as many"
    );
    Ok(())
}
