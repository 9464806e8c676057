//! Each export is written in memory that does not grow with the run.
//!
//! `cargo test --release -p vslice-export --test memory -- --ignored --nocapture` writes each of a run of 10^7 events,
//! and says how long it took and how large it is.
#![expect(clippy::print_stdout, reason = "what it took is told")]

#[path = "../../report/tests/support/allocated.rs"]
mod allocated;

use allocated::{MEASURED, Peak};
use std::error::Error;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Instant;
use vslice_core::clock::Exchange;
use vslice_core::host_event::{HostEvent, HostEventKind, PrevState, StackId, Switch};
use vslice_core::units::{GuestTicks, HostNs, PcpuId, Tid, VcpuId};
use vslice_export::csv::RequestsCsv;
use vslice_export::folded::OffCpuStacks;
use vslice_export::hlog::LatencyLog;
use vslice_export::page::PageObserver;
use vslice_export::perfetto::PerfettoTrace;
use vslice_report::analyse::observer::{Observer, Run, RunEnd};
use vslice_report::analyse::{SummaryObserver, analyse_with};
use vslice_trace::manifest::SCHEMA;
use vslice_trace::{ClockSample, RequestItem, RunDir, StackNames, StreamWriter, VmName};
use vslice_wire::Request;

const MAIN_LOOP: Tid = Tid(100);
const VCPU: Tid = Tid(101);
const STRANGERS: u64 = 1_000;
const TURN_NS: u64 = 2_000_000;
const START_NS: u64 = 1_000_000_000;
const BQL: u64 = 0x55a8_e2e7_eb40;

/// Of each turn: four switches, a waking and a name.
const EVENTS_A_TURN: u64 = 6;

/// More than all that is read in blocks, and than a batch of packets that is longer by chance.
const GROWTH_MAX_BYTES: usize = 1 << 20;

/// What a trace of these events takes at most for each of them.
const TRACE_BYTES_AN_EVENT_MAX: u64 = 8;

/// A page keeps a sample, which a run of a few thousand requests does not fill.
const PAGE_GROWTH_MAX_BYTES: usize = 4 << 20;

/// What an export of a run of any length takes at most.
const PEAK_MAX_BYTES: usize = 48 << 20;

/// As an attachment to a mail may have.
const PAGE_MAX_BYTES: u64 = 2_000_000;

fn manifest(turns: u64) -> serde_json::Value {
    serde_json::json!({
        "schema": SCHEMA,
        "status": { "state": "complete" },
        "plan": null, "plan_name": "drawn", "accelerator": "kvm", "accelerator_reason": "drawn",
        "vsock_way": "none", "environment": null, "environment_lines": [], "collector_pid": 1,
        "image": null,
        "window": { "start_ns": START_NS, "end_ns": START_NS + turns * TURN_NS },
        "vms": [{
            "name": "vm1", "pid": MAIN_LOOP, "device_pid": null, "block_bytes": 4096,
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
        }],
        "cost": {
            "events_count": 0, "lost_count": 0, "cpu_ns": 0, "uncovered_threads_count": 0,
            "ring_bytes": 0, "written_bytes": 0,
        },
    })
}

fn switch(time: u64, prev: Tid, state: PrevState, next: Tid) -> HostEvent {
    let stack = (state == PrevState::Sleep).then_some(StackId(0));
    let call_args = stack.map(|_| [BQL, 0x80, 2]);
    let next_priority = Some(120);
    let switch = Switch { stack, call_args, next_priority, ..Switch::new(prev, state, next) };
    HostEvent { time: HostNs(time), pcpu: PcpuId(1), kind: HostEventKind::Switch(switch) }
}

fn stranger(turn: u64) -> Tid {
    Tid(1_000 + u32::try_from(turn % STRANGERS).expect("they are few"))
}

/// A vCPU that loses its pCPU to a stranger for a millisecond in each turn, asks for a block, and sleeps on the big lock
/// until the main loop wakes it.
fn run_of(turns: u64, run: &RunDir) -> Result<(), Box<dyn Error>> {
    run.write_json("run.json", &manifest(turns))?;
    let frames = ["futex_wait_queue", "do_futex"].map(str::to_owned).to_vec();
    run.write_stack_names(&[StackNames { id: 0, frames }])?;
    let vm = VmName::try_from("vm1")?;
    let mut events = StreamWriter::create(&run.events_path(PcpuId(1)))?;
    let mut others = StreamWriter::create(&run.events_path(PcpuId(0)))?;
    let mut requests = StreamWriter::create(&run.requests_path(&vm))?;
    let (preempted, asleep) = (PrevState::RunnablePreempted, PrevState::Sleep);
    for turn in 0..turns {
        // What does not repeat, as nothing does in a real run.
        let at = START_NS + turn * TURN_NS + turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 50_000;
        for (time, prev, state, next) in [
            (at, VCPU, preempted, stranger(turn)),
            (at + 1_000_000, stranger(turn), preempted, VCPU),
            (at + 1_200_000, VCPU, asleep, Tid::IDLE),
            (at + 1_410_000, Tid::IDLE, PrevState::Runnable, VCPU),
        ] {
            events.push(switch(time, prev, state, next))?;
        }
        let named = HostEventKind::Comm { tid: stranger(turn), comm: format!("cc{}", turn % 200) };
        let waking = HostEventKind::Waking { tid: VCPU, target: PcpuId(1), waker: MAIN_LOOP };
        for (ns, kind) in [(1, named), (1_400_000, waking)] {
            others.push(HostEvent { time: HostNs(at + ns), pcpu: PcpuId(0), kind })?;
        }
        requests.push(RequestItem::Request(Request {
            index: turn,
            submitted: GuestTicks(at + 500_000),
            completed: GuestTicks(at + 1_600_000),
            vcpu_submitted: 1,
            vcpu_completed: 1,
            result: 4096,
        }))?;
    }
    events.finish()?;
    others.finish()?;
    requests.finish()?;
    let mut clock = StreamWriter::create(&run.clock_path(&vm))?;
    for place in 0..100 {
        let sent = START_NS + place * turns * TURN_NS / 100 + 1_700_000;
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

/// A form that a run is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Page,
    Csv,
    Folded,
    Hlog,
    Perfetto,
}

const FORMS: [Form; 5] = [Form::Page, Form::Csv, Form::Folded, Form::Hlog, Form::Perfetto];

type Output = BufWriter<std::fs::File>;

impl Form {
    /// Analyses the run, and writes it in this form.
    fn write(
        self,
        run: &Path,
        counts: &mut Counts,
        mut output: Output,
    ) -> Result<(), Box<dyn Error>> {
        match self {
            Form::Page => {
                let (mut page, mut summary) = (PageObserver::default(), SummaryObserver::default());
                analyse_with(run, &mut [counts, &mut page, &mut summary])?;
                page.write(&summary.into_summary().ok_or("no end")?, &mut output)?;
                output.flush()?;
            }
            Form::Csv => {
                let mut csv = RequestsCsv::new(output);
                analyse_with(run, &mut [counts, &mut csv])?;
                csv.finish()?.flush()?;
            }
            Form::Folded => {
                let mut stacks = OffCpuStacks::default();
                analyse_with(run, &mut [counts, &mut stacks])?;
                stacks.write(output)?;
            }
            Form::Hlog => {
                let mut log = LatencyLog::new(output);
                analyse_with(run, &mut [counts, &mut log])?;
                log.finish()?.flush()?;
            }
            Form::Perfetto => {
                let mut trace = PerfettoTrace::new(output);
                analyse_with(run, &mut [counts, &mut trace])?;
                trace.finish()?.flush()?;
            }
        }
        Ok(())
    }
}

/// What an analysis with an export has come to.
struct Written {
    peak_bytes: usize,
    bytes: u64,
    events: u64,
}

/// How many events and requests there are.
#[derive(Debug, Default)]
struct Counts {
    events: u64,
    requests: u64,
}

impl Observer for Counts {
    fn request(&mut self, _: vslice_core::task::VmIndex, _: &vslice_core::join::Breakdown) {
        self.requests += 1;
    }

    fn end(&mut self, _: &Run<'_>, end: &RunEnd<'_>) {
        self.events = end.events_count;
    }
}

fn bytes_in(directory: &Path) -> Result<u64, Box<dyn Error>> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}

/// Writes each run in this form, and says what it took.
fn written(turns: u64, form: Form) -> Result<Written, Box<dyn Error>> {
    let _alone = MEASURED.lock()?;
    let scratch = tempfile::tempdir()?;
    let run = RunDir::create(&scratch.path().join("run"))?;
    run_of(turns, &run)?;
    let run_bytes = bytes_in(run.path())?;
    let path = scratch.path().join("export");
    let peak = Peak::from_now();
    let (began, mut counts) = (Instant::now(), Counts::default());
    form.write(run.path(), &mut counts, BufWriter::new(std::fs::File::create(&path)?))?;
    let peak_bytes = peak.bytes();
    assert_eq!((counts.events, counts.requests), (turns * EVENTS_A_TURN, turns));
    let bytes = std::fs::metadata(&path)?.len();
    println!(
        "{form:?} of {} events, {turns} requests: {:.1} s, {:.1} MiB at most in memory, {bytes} bytes, of a run of \
         {run_bytes} bytes",
        counts.events,
        began.elapsed().as_secs_f64(),
        peak_bytes as f64 / f64::from(1 << 20),
    );
    Ok(Written { peak_bytes, bytes, events: counts.events })
}

/// A trace can be opened in a browser; a page may be sent by mail.
fn is_small(form: Form, written: &Written) {
    match form {
        Form::Perfetto => {
            let most = written.events * TRACE_BYTES_AN_EVENT_MAX;
            assert!(written.bytes <= most, "{} bytes", written.bytes);
        }
        Form::Page => assert!(written.bytes <= PAGE_MAX_BYTES, "{} bytes", written.bytes),
        Form::Csv | Form::Folded | Form::Hlog => assert!(written.bytes > 0, "{form:?} is empty"),
    }
}

#[test]
fn an_export_of_five_times_the_run_takes_no_more_memory() -> Result<(), Box<dyn Error>> {
    for form in FORMS {
        // The shorter one fills all that is read and handed on in blocks already.
        let (short, long) = (written(6_000, form)?, written(30_000, form)?);
        let growth = if form == Form::Page { PAGE_GROWTH_MAX_BYTES } else { GROWTH_MAX_BYTES };
        assert!(
            long.peak_bytes <= short.peak_bytes + growth,
            "{form:?}: {} bytes for 36,000 events, {} for five times as many",
            short.peak_bytes,
            long.peak_bytes
        );
        is_small(form, &long);
    }
    Ok(())
}

#[test]
#[ignore = "takes minutes: see the head of the file"]
fn exports_of_ten_million_events_take_no_more_memory() -> Result<(), Box<dyn Error>> {
    for form in FORMS {
        let long = written(10_000_000_u64.div_ceil(EVENTS_A_TURN), form)?;
        assert!(long.peak_bytes <= PEAK_MAX_BYTES, "{form:?}: {} bytes", long.peak_bytes);
        is_small(form, &long);
    }
    Ok(())
}
