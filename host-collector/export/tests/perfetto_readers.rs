//! The trace of a drawn run, decoded by Perfetto's own descriptors and loaded by its own trace processor, against what
//! the observers of the same analysis are told.
//!
//! Both are in the environment that `tests/readers` makes; without it each test is ignored, and says so.

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
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
    let processor = processor();
    let processed = |name: &str, test: fn(&Path) -> Outcome| match processor.clone() {
        Ok(processor) => Trial::test(name, move || test(&processor)),
        Err(reason) => Trial::test(name, || Ok(())).with_kind(reason).with_ignored_flag(true),
    };
    let trials = vec![
        processed("perfettos_processor_has_the_counts_and_times_of_a_drawn_run", processed_drawn),
        processed("perfettos_processor_finds_no_error_but_what_was_lost", processed_losses),
        trial("a_drawn_run_has_its_counts_and_times", a_drawn_run),
        trial("a_run_with_losses_and_births_is_known_to_all_descriptors", losses_and_births),
        trial("a_run_without_any_event_is_a_trace", no_events),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// The folder with Perfetto's trace processor; it needs `node`.
fn processor() -> Result<PathBuf, String> {
    let directory = std::env::var_os("VSLICE_READERS").map(PathBuf::from);
    let directory = directory.ok_or("VSLICE_READERS is not set, see make test")?;
    let folder = directory.join("processor");
    let missing = || format!("{} has no processor, see make test", directory.display());
    folder.exists().then_some(folder).ok_or_else(missing)
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

/// The trace of a run, and what the observers were told.
fn written(run: &RunDir) -> Result<(PathBuf, Told), Failed> {
    let mut told = Told::default();
    let mut trace = PerfettoTrace::new(Vec::new());
    analyse_with(run.path(), &mut [&mut told, &mut trace])?;
    let path = run.path().join("trace");
    std::fs::write(&path, trace.finish()?)?;
    Ok((path, told))
}

/// A trace as the descriptors have it, and what the observers were told.
fn decoded(python: &Path, run: &RunDir) -> Result<(Value, Told), Failed> {
    let (path, told) = written(run)?;
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

fn with_requests(scratch: &Path) -> RunDir {
    let run = drawn(scratch);
    let requests = [
        observed::request(0, [110, 120, 400], [0, 0, 1]),
        observed::request(1, [115, 130, 300], [0, 0, 0]),
        observed::request(0, [450, 460, 480], [1, 1, 1]),
    ];
    observed::observed_stream(&run, requests.map(ObservedItem::Request).into());
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
    let run = with_requests(scratch.path());
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
            let text = |of: &Value| of.as_str().unwrap_or_default().to_owned();
            let notes = &from["notes"];
            let whom = notes.get("thread").or(notes.get("keeps_waiting")).unwrap_or(&Value::Null);
            (us(from), text(&from["name"]), text(whom), us(to), text(&to["name"]))
        })
        .collect();
    told.sort();
    let arrow = |us: u64, cause: &str, who: &str, what: &str| {
        (us, cause.to_owned(), who.to_owned(), us, what.to_owned())
    };
    let preempted = "preempted: unknown";
    let expected = [
        arrow(100, "vm2 vCPU1", "vm1 vCPU1", preempted),
        // The drawing calls vCPU0's thread the same.
        arrow(200, "tid 900", "vm1 vCPU1", preempted),
        arrow(400, "vm1 vCPU1", "vm2 vCPU1", preempted),
        arrow(700, "wakes", "vm1 vCPU1", "woken"),
        arrow(750, "vm1 vCPU1", "vm2 vCPU1", preempted),
        arrow(1000, "vm2 vCPU1", "vm1 vCPU1", preempted),
        arrow(1100, "tid 900", "vm1 vCPU1", preempted),
    ];
    assert_eq!(told, expected);
    // Each wait that is long enough has one, and no other has.
    let waits = slices_on(trace, |track| name_has(track, "off its pCPU")).into_iter();
    for wait in waits.filter(|slice| slice["categories"][0] == "waits for a pCPU") {
        let length_ns = number(wait, "end") - number(wait, "start");
        let ends_here = list(trace, "arrows").iter().any(|ends| ends[1] == wait["id"]);
        assert_eq!(ends_here, length_ns >= 100_000, "{wait}");
    }
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

/// The drawn run with what goes wrong, and with exits.
fn with_losses(scratch: &Path) -> Result<RunDir, Failed> {
    let run = drawn(scratch);
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
    Ok(run)
}

fn losses_and_births(python: &Path) -> Outcome {
    let scratch = tempfile::tempdir()?;
    let run = with_losses(scratch.path())?;
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

/// What Perfetto's trace processor says of a trace, query by query.
fn queried(processor: &Path, trace: &Path, queries: &[&str]) -> Result<Vec<Value>, Failed> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/query_perfetto.mjs");
    let mut node = Command::new("node");
    let pipes = node.arg(script).arg(processor).arg(trace);
    let mut child = pipes.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut questions = child.stdin.take().ok_or("no pipe")?;
    questions.write_all(queries.join("\n").as_bytes())?;
    drop(questions);
    let output = child.wait_with_output()?;
    let answers = String::from_utf8(output.stdout)?;
    let answers: Vec<Value> =
        answers.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let all = answers.len() == queries.len() && output.status.success();
    all.then_some(answers).ok_or_else(|| "not each query has an answer".into())
}

const ERRORS: &str = "select name, value from stats \
                      where severity in ('error', 'data_loss') and value > 0 order by name";

fn processed_drawn(processor: &Path) -> Outcome {
    let scratch = tempfile::tempdir()?;
    let run = with_requests(scratch.path());
    let (trace, told) = written(&run)?;
    let queries = [
        ERRORS,
        "select ts, cpu, tid from sched join thread using (utid) order by ts, cpu",
        "select s.ts as ts, s.dur as dur, p.name as cause, s.name as name from flow \
         join slice s on slice_in = s.id join slice p on slice_out = p.id order by s.ts",
        "select count(*) as n, sum(dur) as ns from slice where category = 'request'",
        "select sum(dur) as ns from slice where category = 'phase'",
        "select t.tid as tid, s.ts as ts, s.dur as dur from slice s \
         join thread_track k on s.track_id = k.id join thread t using (utid) \
         where k.name like '%off its pCPU%' order by tid, ts",
    ];
    let answers = queried(processor, &trace, &queries)?;
    let [errors, sched, arrows, requests, phases, lanes] = &answers[..] else {
        return Err("six answers".into());
    };
    assert_eq!(errors, &serde_json::json!([]));
    let mut came_on: Vec<_> = sched
        .as_array()
        .into_iter()
        .flatten()
        .map(|stay| (number(stay, "ts"), number(stay, "cpu"), number(stay, "tid")))
        .collect();
    came_on.sort_unstable();
    let mut expected = told.came_on.clone();
    expected.sort_unstable();
    assert_eq!(came_on, expected);
    let arrows = arrows.as_array().into_iter().flatten();
    let arrows = arrows.map(|arrow| {
        let text = |name: &str| arrow[name].as_str().unwrap_or_default().to_owned();
        ((number(arrow, "ts") - host_at(0).0) / 1_000, text("cause"), text("name"))
    });
    let arrow = |us: u64, cause: &str, name: &str| (us, cause.to_owned(), name.to_owned());
    assert_eq!(
        arrows.collect::<Vec<_>>(),
        [
            arrow(100, "vm2 vCPU1", "preempted: unknown"),
            arrow(200, "tid 900", "preempted: unknown"),
            arrow(400, "vm1 vCPU1", "preempted: unknown"),
            arrow(700, "wakes", "woken"),
            arrow(750, "vm1 vCPU1", "preempted: unknown"),
            arrow(1000, "vm2 vCPU1", "preempted: unknown"),
            arrow(1100, "tid 900", "preempted: unknown"),
        ]
    );
    let latency_ns: u64 = told.requests.iter().map(Breakdown::latency_ns).sum();
    assert_eq!(requests[0], serde_json::json!({ "n": told.requests.len(), "ns": latency_ns }));
    assert_eq!(phases[0], serde_json::json!({ "ns": latency_ns }));
    let mut spans: Vec<Value> = told
        .off
        .iter()
        .map(|span| (span.tid.0, span.start.0, span.length_ns()))
        .map(|(tid, ts, dur)| serde_json::json!({ "tid": tid, "ts": ts, "dur": dur }))
        .collect();
    spans.sort_by_key(|span| (number(span, "tid"), number(span, "ts")));
    assert_eq!(lanes.as_array(), Some(&spans));
    Ok(())
}

fn processed_losses(processor: &Path) -> Outcome {
    let scratch = tempfile::tempdir()?;
    let run = with_losses(scratch.path())?;
    let (trace, _) = written(&run)?;
    let nobody = "select count(*) as n from sched join thread using (utid) \
                  where name = 'not recorded'";
    let unknown = "select count(*) as n from sched where end_state is null and dur >= 0";
    let answers = queried(processor, &trace, &[ERRORS, nobody, unknown])?;
    let [errors, nobody, unknown] = &answers[..] else { return Err("three answers".into()) };
    assert_eq!(nobody[0]["n"], 2);
    // In which state who left where records are missing did so is not known, and Perfetto counts that.
    assert_eq!(unknown[0]["n"], 2);
    let pcpus = serde_json::json!({ "name": "ftrace_cpu_has_data_loss", "value": 1 });
    let lost = serde_json::json!({ "name": "task_state_invalid", "value": 2 });
    assert_eq!(errors, &serde_json::json!([pcpus, lost]));
    Ok(())
}
