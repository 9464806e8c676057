//! The trace of a drawn run, decoded by Perfetto's own descriptors, against what the observers of the same analysis are
//! told.
//!
//! They are in the environment that `tests/readers` makes; without it each test is ignored, and says so.

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use vslice_core::host_event::{HostEvent, HostEventKind, KvmEvent, PrevState, Switch};
use vslice_core::join::Breakdown;
use vslice_core::task::VmIndex;
use vslice_core::timeline::{Span, Tasks, ThreadState};
use vslice_core::units::{PcpuId, Tid};
use vslice_export::perfetto::PerfettoTrace;
use vslice_report::analyse::analyse_with;
use vslice_report::analyse::drawn::{host_at, names, run_in, stream};
use vslice_report::analyse::drawn_observed as observed;
use vslice_report::analyse::observer::Observer;
use vslice_trace::{EventMerge, ObservedItem, RunDir};

type Outcome = Result<(), Failed>;

fn main() -> ExitCode {
    let python = python();
    let trial = |name: &str, test: fn(&Path) -> Outcome| match python.clone() {
        Ok(python) => Trial::test(name, move || test(&python)),
        Err(reason) => Trial::test(name, || Ok(())).with_kind(reason).with_ignored_flag(true),
    };
    let trials = vec![
        trial("a_drawn_run_has_its_counts_and_times", a_drawn_run),
        trial("a_run_with_losses_and_births_is_known_to_all_descriptors", losses_and_births),
        trial("a_run_without_any_event_is_a_trace", no_events),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn python() -> Result<PathBuf, String> {
    let directory = std::env::var_os("VSLICE_READERS").map(PathBuf::from);
    let directory = directory.ok_or("VSLICE_READERS is not set, see make test")?;
    let python = directory.join("bin/python3");
    let missing = || format!("{} has no bin/python3, see make test", directory.display());
    python.exists().then_some(python).ok_or_else(missing)
}

/// What an observer is told of.
#[derive(Debug, Default)]
struct Told {
    /// Who came onto which pCPU when.
    came_on: Vec<(u64, u64, u64)>,
    wakings: Vec<(u64, u64, u64)>,
    off: Vec<Span>,
    requests: Vec<Breakdown>,
}

impl Observer for Told {
    fn event(&mut self, event: &HostEvent, _: &Tasks) {
        let at = (event.time.0, u64::from(event.pcpu.0));
        match &event.kind {
            HostEventKind::Switch(switch) => self.came_on.push((at.0, at.1, switch.next.0.into())),
            HostEventKind::Waking { tid, waker, .. } => {
                self.wakings.push((at.0, waker.0.into(), tid.0.into()));
            }
            _ => {}
        }
    }

    fn span(&mut self, span: &Span) {
        if !matches!(span.state, ThreadState::Running { .. }) {
            self.off.push(span.clone());
        }
    }

    fn request(&mut self, _: VmIndex, breakdown: &Breakdown) {
        self.requests.push(breakdown.clone());
    }
}

/// A trace as the descriptors have it, and what the observers were told.
fn decoded(python: &Path, run: &RunDir) -> Result<(Value, Told), Failed> {
    let mut told = Told::default();
    let mut trace = PerfettoTrace::new(Vec::new());
    analyse_with(run.path(), &mut [&mut told, &mut trace])?;
    let path = run.path().join("trace");
    std::fs::write(&path, trace.finish()?)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/read_perfetto.py");
    let output = Command::new(python).arg(script).arg(&path).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok((serde_json::from_slice(&output.stdout)?, told))
}

fn drawn(scratch: &Path) -> RunDir {
    let run = run_in(&scratch.join("run"), &observed::observed_manifest());
    observed::host_streams(&run);
    names(&run);
    run
}

fn list<'a>(of: &'a Value, name: &str) -> &'a [Value] {
    of[name].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn number(of: &Value, name: &str) -> u64 {
    of[name].as_u64().unwrap_or_else(|| panic!("{of} has no {name}"))
}

/// The slices of tracks with such a name.
fn slices_on(trace: &Value, is_it: impl Fn(&Value) -> bool) -> Vec<&Value> {
    let track = |slice: &Value| trace["tracks"][slice["track"].to_string()].clone();
    list(trace, "slices").iter().filter(|slice| is_it(&track(slice))).collect()
}

fn name_has(track: &Value, text: &str) -> bool {
    track["name"].as_str().is_some_and(|name| name.contains(text))
}

fn time(slice: &Value) -> (u64, u64) {
    (number(slice, "start"), number(slice, "end"))
}

fn a_drawn_run(python: &Path) -> Outcome {
    let scratch = tempfile::tempdir()?;
    let run = drawn(scratch.path());
    let requests = [
        observed::request(0, [110, 120, 400], [0, 0, 1]),
        observed::request(1, [115, 130, 300], [0, 0, 0]),
        observed::request(0, [450, 460, 480], [1, 1, 1]),
    ];
    observed::observed_stream(&run, requests.map(ObservedItem::Request).into());
    let (trace, told) = decoded(python, &run)?;
    scheduling_is_that_of_the_run(&trace, &told);
    lanes_have_what_kept_threads_off(&trace, &told);
    requests_have_their_phases_and_parts(&trace, &told);
    arrows_go_from_causes_to_whom_they_delayed(&trace);
    Ok(())
}

fn arrows_go_from_causes_to_whom_they_delayed(trace: &Value) {
    let slices = list(trace, "slices");
    let by_id = |id: &Value| slices.iter().find(|slice| slice["id"] == *id).unwrap_or(&Value::Null);
    let us = |slice: &Value| (number(slice, "start") - host_at(0).0) / 1_000;
    let arrows = list(trace, "arrows").iter().map(|ends| [by_id(&ends[0]), by_id(&ends[1])]);
    let mut told: Vec<_> = arrows
        .map(|[from, to]| {
            let cause = by_id(&from["in"])["name"].as_str().unwrap_or("instant");
            let who = from["notes"]["thread"].as_str().unwrap_or_default();
            let what = to["name"].as_str().unwrap_or_default();
            (us(from), cause.to_owned(), who.to_owned(), us(to), what.to_owned())
        })
        .collect();
    told.sort();
    let arrow = |us: u64, cause: &str, who: &str, what: &str| {
        (us, cause.to_owned(), who.to_owned(), us, what.to_owned())
    };
    let expected = [arrow(700, "instant", "vm1 vCPU1", "woken")];
    assert_eq!(told, expected);
}

fn scheduling_is_that_of_the_run(trace: &Value, told: &Told) {
    let of = |kinds: &[&str]| -> Vec<&Value> {
        let sched = list(trace, "sched").iter();
        sched.filter(|event| kinds.contains(&event["kind"].as_str().unwrap_or_default())).collect()
    };
    let stay = |stay: &&Value| (number(stay, "start"), number(stay, "pcpu"), number(stay, "tid"));
    let mut came_on: Vec<_> = of(&["stay", "open"]).iter().map(stay).collect();
    came_on.sort_unstable();
    let mut expected = told.came_on.clone();
    expected.sort_unstable();
    assert_eq!(came_on, expected);
    let waking =
        |waking: &&Value| (number(waking, "time"), number(waking, "waker"), number(waking, "tid"));
    assert_eq!(of(&["waking"]).iter().map(waking).collect::<Vec<_>>(), told.wakings);
}

fn lanes_have_what_kept_threads_off(trace: &Value, told: &Told) {
    let lanes = slices_on(trace, |track| name_has(track, "off its pCPU"));
    let tid = |slice: &Value| {
        let lane = &trace["tracks"][slice["track"].to_string()];
        number(&trace["tracks"][lane["parent"].to_string()], "tid")
    };
    let mut drawn: Vec<_> = lanes.iter().map(|slice| (tid(slice), time(slice))).collect();
    let mut spans: Vec<_> =
        told.off.iter().map(|span| (u64::from(span.tid.0), (span.start.0, span.end.0))).collect();
    drawn.sort_unstable();
    spans.sort_unstable();
    assert_eq!(drawn, spans);
    let bql: Vec<&&Value> = lanes.iter().filter(|slice| slice["name"] == "BQL").collect();
    assert_eq!(bql.len(), 1, "{lanes:?}");
    assert_eq!(bql[0]["notes"]["woken_by"], "vm1 main loop");
    assert_eq!(bql[0]["notes"]["kernel_stack"], "futex_wait_queue < do_futex");
}

fn requests_have_their_phases_and_parts(trace: &Value, told: &Told) {
    let on_tracks = slices_on(trace, |track| name_has(track, "in flight "));
    let requests: Vec<&&Value> = on_tracks.iter().filter(|slice| slice["depth"] == 0).collect();
    assert_eq!(requests.len(), told.requests.len());
    assert_eq!(requests.len(), 5, "two of the reader, three that were observed");
    for breakdown in &told.requests {
        let window = (breakdown.start.0, breakdown.end.0);
        let of_it = requests.iter().filter(|slice| time(slice) == window);
        let [slice] = of_it.collect::<Vec<_>>()[..] else { panic!("{window:?}") };
        let inner = |outer: &Value| -> Vec<&&Value> {
            on_tracks.iter().filter(|slice| slice["in"] == outer["id"]).collect()
        };
        let mut parts = BTreeMap::<String, u64>::new();
        let mut phases_ns = 0;
        for phase in inner(slice) {
            let (start, end) = time(phase);
            phases_ns += end - start;
            let states = inner(phase);
            let states_ns = states.iter().map(|state| time(state).1 - time(state).0).sum::<u64>();
            assert_eq!(states_ns, end - start, "{phase}");
            for state in states {
                let part = state["notes"]["part"].as_str().unwrap_or_default().to_owned();
                *parts.entry(part).or_default() += time(state).1 - time(state).0;
            }
        }
        assert_eq!(phases_ns, breakdown.latency_ns());
        let told = slice["notes"]["parts_ns"].as_object().into_iter().flatten();
        let told = told.map(|(name, ns)| (name.clone(), ns.as_u64().unwrap_or_default()));
        assert_eq!(parts, told.collect());
        assert_eq!(number(&slice["notes"], "clock_bound_ns"), breakdown.bounds.worst_ns());
    }
}

fn losses_and_births(python: &Path) -> Outcome {
    let scratch = tempfile::tempdir()?;
    let run = drawn(scratch.path());
    observed::observed_stream(&run, vec![]);
    let path = run.events_path(PcpuId(2));
    let mut events = Vec::new();
    for event in EventMerge::open(&run)? {
        let event = event?;
        if event.pcpu == PcpuId(2) {
            events.push(event);
        }
    }
    let event = |us, kind| HostEvent { time: host_at(us), pcpu: PcpuId(2), kind };
    let switch = |us, prev, next| {
        event(us, HostEventKind::Switch(Switch::new(prev, PrevState::Sleep, next)))
    };
    let (process, thread) = (Tid(901), Tid(902));
    events.extend([
        event(
            1101,
            HostEventKind::Fork { pid: process, tid: process, parent_pid: observed::STRANGER },
        ),
        event(1102, HostEventKind::Comm { tid: process, comm: "<b>\x1b[1m".to_owned() }),
        event(1103, HostEventKind::Fork { pid: process, tid: thread, parent_pid: process }),
        switch(1104, observed::STRANGER, process),
        switch(1105, process, thread),
        event(1110, HostEventKind::Lost { until: host_at(1120), count: 7 }),
        event(1115, HostEventKind::Lost { until: host_at(1118), count: 1 }),
        switch(1130, thread, process),
        // A record is missing before this.
        switch(1140, observed::STRANGER, thread),
    ]);
    let kvm =
        |us, event_of| event(us, HostEventKind::Kvm { tid: observed::VM1_VCPU0, event: event_of });
    events.extend([
        kvm(1010, KvmEvent::GuestEntry),
        kvm(1020, KvmEvent::GuestExit { isa: 1, reason: 30 }),
        kvm(1025, KvmEvent::UserspaceExit { reason: 2, errno: 0 }),
        kvm(1040, KvmEvent::GuestEntry),
    ]);
    events.sort_by_key(|event| event.time);
    std::fs::remove_file(&path)?;
    stream(&path, events, true);
    let (trace, told) = decoded(python, &run)?;
    assert_eq!(trace["threads"]["902"], 901, "{trace}");
    let exits = slices_on(&trace, |track| name_has(track, "exits "));
    let exits: Vec<_> = exits.iter().map(|exit| (exit["name"].clone(), time(exit))).collect();
    let at = |us| host_at(us).0;
    assert_eq!(
        exits,
        [
            (Value::from("IO_INSTRUCTION"), (at(1020), at(1040))),
            (Value::from("KVM_EXIT_IO"), (at(1025), at(1040))),
        ]
    );
    assert_eq!(trace["processes"]["901"], "<b>?[1m");
    let lost = slices_on(&trace, |track| name_has(track, "records lost on pCPU2"));
    let lost: Vec<_> = lost.iter().map(|slice| number(&slice["notes"], "records")).collect();
    assert_eq!(lost, [7, 1]);
    let window = slices_on(&trace, |track| name_has(track, "measured"));
    let [window] = window[..] else { panic!("{window:?}") };
    assert_eq!(number(&window["notes"], "lost_records"), 8);
    assert_eq!(window["notes"]["evidence"], "recorded");
    assert_eq!(list(&window["notes"], "clocks").len(), 2);
    // Each switch is there, and nobody is said to have run where that is not known.
    let sched = list(&trace, "sched").iter().filter(|event| event["kind"] != "waking");
    let nobody = sched.clone().filter(|event| event["name"] == "not recorded").count();
    assert_eq!(nobody, 2);
    let stays = sched.filter(|event| event["kind"] != "left").count();
    assert_eq!(stays, told.came_on.len() + 2 * nobody);
    Ok(())
}

fn no_events(python: &Path) -> Outcome {
    let scratch = tempfile::tempdir()?;
    let mut manifest = observed::observed_manifest();
    manifest.window = None;
    let run = run_in(&scratch.path().join("run"), &manifest);
    names(&run);
    let (trace, _) = decoded(python, &run)?;
    assert_eq!(list(&trace, "sched").len(), 0);
    assert_eq!(list(&trace, "slices").len(), 1, "the run itself");
    Ok(())
}
