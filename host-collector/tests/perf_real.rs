//! The recorder against the running kernel, with threads of this process in the place of vCPUs.
//!
//! Needs the right to record the whole machine; where that is missing, each test is reported as
//! ignored and says why. Tests wait for what they expect to see, never for a time; the deadline
//! only keeps a broken recorder from hanging the run.
#![expect(clippy::print_stdout, reason = "one process tells another its threads")]

use libtest_mimic::{Arguments, Failed, Trial};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{Pid, gettid};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, Builder, JoinHandle};
use std::time::{Duration, Instant};
use vslice_core::host_event::{HostEvent, HostEventKind, PrevState, StackId, Switch};
use vslice_core::units::{HostNs, PcpuId, Tid};
use vslice_record::event_writers::EventWriters;
use vslice_record::perf::{
    EventSink, RecordError, RecordPlan, RecordTotals, Recorder, SchedulerSource, SinkError,
    Symbols, check_programs, check_rights,
};
use vslice_trace::{EventMerge, RunDir, StackFrames, Tail, read_all};

const DEADLINE: Duration = Duration::from_secs(60);

type Outcome = Result<(), Failed>;
type Test = fn(SchedulerSource) -> Outcome;

/// In the environment of a process of strangers: the watched pCPU and another one.
const STRANGERS: &str = "VSLICE_TEST_STRANGERS";

fn main() {
    if let Ok(pcpus) = std::env::var(STRANGERS) {
        return Strangers::live(&pcpus);
    }
    let mut arguments = Arguments::from_args();
    // The tests record each other's threads and share two pCPUs: one at a time.
    arguments.test_threads = Some(1);
    let missing = check_rights().err().map(|error| error.to_string());
    let tests: [(&str, Test); 9] = [
        ("two_busy_threads_alternate_on_their_pcpu", two_busy_threads_alternate),
        ("a_sleeping_thread_shows_where_it_sleeps", a_sleeping_thread_shows_where),
        ("only_what_is_wanted_is_recorded", only_what_is_wanted),
        ("a_newborn_is_named_and_seen_on_an_unwatched_pcpu", a_newborn_is_seen),
        ("threads_that_are_added_are_seen_on_an_unwatched_pcpu", added_threads_are_seen),
        ("a_ring_that_nobody_reads_tells_its_losses", a_full_ring_tells_its_losses),
        ("a_sink_that_fails_ends_the_recording", a_failing_sink_ends_it),
        ("a_run_is_stored_and_read_back", a_run_is_stored),
        ("nothing_is_left_behind", nothing_is_left_behind),
    ];
    // A program that the kernel refuses is a defect, and not a missing right.
    let programs = check_programs().err().filter(|reason| !reason.contains("load a BPF program"));
    let programs = missing.clone().or(programs);
    let with = |source, how: &str, missing: &Option<String>| {
        let trial = |(name, test): (&str, Test)| {
            let trial = Trial::test(format!("{name}_{how}"), move || test(source));
            match missing {
                None => trial,
                Some(reason) => trial.with_kind(reason).with_ignored_flag(true),
            }
        };
        tests.into_iter().map(trial).collect::<Vec<_>>()
    };
    let comparison = Trial::test("programs_and_tracepoints_tell_the_same", both_tell_the_same);
    let comparison = match &programs {
        None => comparison,
        Some(reason) => comparison.with_kind(reason).with_ignored_flag(true),
    };
    let mut trials = vec![comparison];
    trials.extend(with(SchedulerSource::Programs, "by_programs", &programs));
    trials.extend(with(SchedulerSource::Tracepoints, "by_tracepoints", &missing));
    libtest_mimic::run(&arguments, trials).exit();
}

fn plan(scheduler_source: SchedulerSource) -> RecordPlan {
    RecordPlan { scheduler_source, ..RecordPlan::default() }
}

/// What a recording has told so far.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<HostEvent>>>);

impl Seen {
    fn sink(&self) -> impl EventSink + use<> {
        let seen = self.clone();
        move |pcpu: PcpuId, events: &[HostEvent]| -> Result<(), SinkError> {
            assert!(events.iter().all(|event| event.pcpu == pcpu));
            seen.events().extend_from_slice(events);
            Ok(())
        }
    }

    fn events(&self) -> MutexGuard<'_, Vec<HostEvent>> {
        self.0.lock().expect("no holder of this lock panics")
    }

    fn wait_for(&self, what: &str, mut is_there: impl FnMut(&[HostEvent]) -> bool) -> Outcome {
        let start = Instant::now();
        while !is_there(&self.events()) {
            if start.elapsed() > DEADLINE {
                return Err(format!("{what} was not seen within {DEADLINE:?}").into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn of(&self, pcpu: PcpuId) -> Vec<HostEvent> {
        self.events().iter().filter(|event| event.pcpu == pcpu).cloned().collect()
    }
}

/// A thread of this process that runs `step` again and again until it is dropped.
struct Worker {
    tid: Tid,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn start(name: &str, pcpu: PcpuId, step: impl Fn() + Send + 'static) -> Worker {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, tid) = channel();
        let stopped = Arc::clone(&stop);
        let run = move || {
            let mut pcpus = CpuSet::new();
            pcpus.set(pcpu.0 as usize).expect("tests use the first 1024 pCPUs");
            sched_setaffinity(Pid::from_raw(0), &pcpus).expect("the pCPU is online");
            told.send(Tid(gettid().as_raw().cast_unsigned())).expect("the test waits for it");
            while !stopped.load(Ordering::Relaxed) {
                step();
            }
        };
        let thread = Builder::new().name(name.into()).spawn(run).expect("threads can be made");
        let tid = tid.recv().expect("the thread sends it first");
        Worker { tid, stop, thread: Some(thread) }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn online() -> Vec<PcpuId> {
    let list = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let range = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        first.parse::<u32>().unwrap_or(0)..=last.parse::<u32>().unwrap_or(0)
    };
    list.trim().split(',').flat_map(range).map(PcpuId).collect()
}

/// The last pCPU: the first one has the machine's interrupts.
fn watched() -> PcpuId {
    *online().last().expect("this runs on one")
}

fn nap() {
    thread::sleep(Duration::from_micros(200));
}

fn switches(events: &[HostEvent]) -> impl Iterator<Item = (HostNs, Tid, PrevState, Tid, bool)> {
    events.iter().filter_map(|event| match event.kind {
        HostEventKind::Switch(Switch { prev, prev_state, next, stack, .. }) => {
            Some((event.time, prev, prev_state, next, stack.is_some()))
        }
        _ => None,
    })
}

fn check(condition: bool, what: impl FnOnce() -> String) -> Outcome {
    if condition { Ok(()) } else { Err(what().into()) }
}

/// On a watched pCPU every switch begins with the thread that the one before it ended with, unless
/// records were lost in between. There are kernels that hide what some tasks do (see `assemble`), but
/// never where one of `threads` leaves.
fn check_chain(events: &[HostEvent], threads: &[Tid]) -> Outcome {
    let lost = |event: &HostEvent| matches!(event.kind, HostEventKind::Lost { .. });
    let mut before: Option<Tid> = None;
    for (place, event) in events.iter().enumerate() {
        if lost(event) {
            before = None;
        }
        if let HostEventKind::Switch(Switch { prev, next, .. }) = event.kind {
            let chained = before.is_none_or(|before| before == prev || !threads.contains(&before));
            let around = &events[place.saturating_sub(5)..events.len().min(place + 3)];
            check(chained, || {
                format!("{before:?} was on the pCPU, but {prev:?} left: {around:#?}")
            })?;
            before = Some(next);
        }
    }
    check(events.is_sorted_by_key(|event| event.time), || "times go back".into())
}

fn stop(recorder: Recorder) -> Result<RecordTotals, Failed> {
    let totals = recorder.stop()?;
    check(totals.missing.is_empty(), || format!("without {:?}", totals.missing))?;
    match totals.ended_early {
        None => Ok(totals),
        Some(error) => Err(error.into()),
    }
}

/// Whether it is a thread of this process.
fn is_own(tid: Tid) -> bool {
    std::fs::exists(format!("/proc/self/task/{tid}")).unwrap_or(false)
}

fn two_busy_threads_alternate(source: SchedulerSource) -> Outcome {
    let pcpu = watched();
    let busy = || (0..1000).for_each(|_| std::hint::spin_loop());
    let (one, two) = (Worker::start("vs-one", pcpu, busy), Worker::start("vs-two", pcpu, busy));
    let plan = RecordPlan {
        vcpu_tids: vec![one.tid],
        vm_tids: vec![one.tid, two.tid],
        pcpus: vec![pcpu],
        reader_pcpu: Some(online()[0]),
        ..plan(source)
    };
    let seen = Seen::default();
    let recorder = Recorder::start(&plan, seen.sink())?;
    let pairs = |events: &[HostEvent], from: Tid, to: Tid| {
        switches(events).filter(|(_, prev, _, next, _)| (*prev, *next) == (from, to)).count()
    };
    seen.wait_for("10 switches each way", |events| {
        pairs(events, one.tid, two.tid) >= 10 && pairs(events, two.tid, one.tid) >= 10
    })?;
    let totals = stop(recorder)?;
    let events = seen.of(pcpu);
    check_chain(&events, &[one.tid, two.tid])?;
    for (time, prev, state, _, has_stack) in switches(&events) {
        let ran = prev == one.tid || prev == two.tid;
        // A recorder that looks for newborns may come upon others of this process.
        let is_right = if ran { has_stack } else { !has_stack || is_own(prev) };
        check(is_right, || format!("{prev} at {time:?}: {has_stack}"))?;
        check(!ran || state.is_runnable(), || format!("{prev} left as {state:?}"))?;
    }
    for (tid, name) in [(one.tid, "vs-one"), (two.tid, "vs-two")] {
        let comm = HostEventKind::Comm { tid, comm: name.into() };
        let said = events.iter().filter(|event| event.kind == comm).count();
        check(said == 1, || format!("{name} was said {said} times"))?;
    }
    check(totals.started < totals.stopped && totals.reader_cpu_ns > 0, || format!("{totals:?}"))?;
    let count = totals.counters.events_count;
    check(count == seen.events().len() as u64, || format!("{count} events were counted"))?;
    check(totals.unknown_count == 0, || format!("{} unknown records", totals.unknown_count))
}

fn a_sleeping_thread_shows_where(source: SchedulerSource) -> Outcome {
    let pcpu = watched();
    let napper = Worker::start("vs-nap", pcpu, nap);
    let (lock, changed) = (Mutex::new(()), Condvar::new());
    let wait = move || {
        let guard = lock.lock().expect("no holder of this lock panics");
        drop(changed.wait_timeout(guard, Duration::from_micros(200)));
    };
    let waiter = Worker::start("vs-futex", pcpu, wait);
    let tids = vec![napper.tid, waiter.tid];
    let plan = RecordPlan { vcpu_tids: tids, pcpus: vec![pcpu], ..plan(source) };
    let seen = Seen::default();
    let recorder = Recorder::start(&plan, seen.sink())?;
    let sleep_of = |events: &[HostEvent], tid: Tid| {
        events.iter().find_map(|event| match event.kind {
            HostEventKind::Switch(switch)
                if switch.prev == tid && switch.prev_state == PrevState::Sleep =>
            {
                Some(switch)
            }
            _ => None,
        })
    };
    let stack_of = |events: &[HostEvent], tid: Tid| sleep_of(events, tid)?.stack;
    let woken = |events: &[HostEvent], woken: Tid| {
        events.iter().any(
            |event| matches!(event.kind, HostEventKind::Waking { tid, target, .. } if tid == woken && target == pcpu),
        )
    };
    seen.wait_for("a sleep and a waking of each", |events| {
        [napper.tid, waiter.tid]
            .iter()
            .all(|tid| stack_of(events, *tid).is_some() && woken(events, *tid))
    })?;
    let totals = stop(recorder)?;
    check_chain(&seen.of(pcpu), &[napper.tid, waiter.tid])?;
    let is_loss = |event: &HostEvent| matches!(event.kind, HostEventKind::Lost { .. });
    check(!seen.events().iter().any(is_loss), || format!("lost: {totals:?}"))?;
    let symbols = Symbols::load()?;
    for (tid, function) in [(napper.tid, "hrtimer_nanosleep"), (waiter.tid, "futex_wait")] {
        let id = stack_of(&seen.events(), tid).ok_or("no stack")?;
        let names = symbols.frame_names(totals.stacks.frames(id).ok_or("no frames")?);
        let found = names.iter().any(|name| name.contains(function));
        check(found, || format!("{function} is not in {names:?}"))?;
        let schedules = names.iter().any(|name| name.contains("schedule"));
        check(schedules, || format!("no schedule in {names:?}"))?;
    }
    // The standard library waits with FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG.
    let args = sleep_of(&seen.events(), waiter.tid).and_then(|switch| switch.call_args);
    let is_wait = args.is_some_and(|[address, operation, _]| address != 0 && operation == 0x89);
    check(is_wait, || format!("the futex's arguments are {args:x?}"))?;
    let has_priority = seen.events().iter().any(|event| match event.kind {
        HostEventKind::Switch(switch) => {
            switch.next == waiter.tid && switch.next_priority == Some(120)
        }
        _ => false,
    });
    check(has_priority, || "no switch says the waiter's priority".into())
}

/// Strangers on the watched pCPU and elsewhere, who wake each other and are woken by a VM's threads.
fn only_what_is_wanted(source: SchedulerSource) -> Outcome {
    let [elsewhere, .., pcpu] = online()[..] else { return Ok(()) };
    let member = Worker::start("vs-member", pcpu, nap);
    let outlier = Worker::start("vs-outlier", elsewhere, nap);
    let members = [member.tid, outlier.tid];
    let strangers = Strangers::start(pcpu, elsewhere)?;
    let [visitor, neighbour, ..] = strangers.tids;
    let plan = RecordPlan { vm_tids: members.to_vec(), pcpus: vec![pcpu], ..plan(source) };
    let seen = Seen::default();
    let recorder = Recorder::start(&plan, seen.sink())?;
    let wakings_of = |events: &[HostEvent], tid: Tid| {
        let wakes = |event: &&HostEvent| matches!(event.kind, HostEventKind::Waking { tid: woken, .. } if woken == tid);
        events.iter().filter(wakes).count()
    };
    let switches_of = |events: &[HostEvent], tid: Tid| {
        switches(events).filter(|(_, prev, ..)| *prev == tid).count()
    };
    seen.wait_for("10 of everything that is wanted", |events| {
        members.iter().all(|tid| wakings_of(events, *tid) >= 10 && switches_of(events, *tid) >= 10)
            && wakings_of(events, visitor) >= 10
            && switches_of(events, neighbour) >= 10
    })?;
    stop(recorder)?;
    let events = seen.events();
    let is_stranger = |tid: Tid| tid == Tid::IDLE || strangers.tids.contains(&tid);
    for event in events.iter() {
        let is_wanted = match event.kind {
            HostEventKind::Switch(Switch { prev, next, .. }) => {
                event.pcpu == pcpu || !is_stranger(prev) || !is_stranger(next)
            }
            HostEventKind::Waking { tid, target, waker } => {
                let may_preempt = event.pcpu != pcpu || !is_stranger(waker);
                !is_stranger(tid) || target == pcpu && may_preempt
            }
            _ => true,
        };
        check(is_wanted, || format!("nobody asked for {event:?} of {:?}", strangers.tids))?;
    }
    Ok(())
}

/// Threads of another process: one on the watched pCPU that one elsewhere wakes, one there that one
/// there wakes, and one elsewhere.
struct Strangers {
    process: Child,
    /// The woken ones come first.
    tids: [Tid; 5],
}

impl Strangers {
    fn start(watched: PcpuId, elsewhere: PcpuId) -> Result<Strangers, Failed> {
        let mut process = Command::new(std::env::current_exe()?)
            .env(STRANGERS, format!("{} {}", watched.0, elsewhere.0))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let output = process.stdout.take().ok_or("it has an output")?;
        BufReader::new(output).read_line(&mut line)?;
        let tids: Vec<Tid> = line.split_whitespace().flat_map(str::parse).map(Tid).collect();
        let tids = tids.try_into().map_err(|tids| format!("five threads, not {tids:?}"))?;
        Ok(Strangers { process, tids })
    }

    /// What the other process does, until its input ends.
    fn live(pcpus: &str) {
        let mut pcpus = pcpus.split(' ').flat_map(str::parse).map(PcpuId);
        let (Some(watched), Some(elsewhere)) = (pcpus.next(), pcpus.next()) else { return };
        let (distant, visitor) = pair("vs-distant", elsewhere, "vs-visitor", watched);
        let (other, neighbour) = pair("vs-one", watched, "vs-other", watched);
        let alone = Worker::start("vs-elsewhere", elsewhere, nap);
        let tids = [&visitor, &neighbour, &distant, &other, &alone].map(|worker| worker.tid.0);
        println!("{}", tids.map(|tid| tid.to_string()).join(" "));
        let _ = std::io::stdin().read(&mut [0]);
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// The first wakes the second, which waits for it.
fn pair(waker: &str, waker_pcpu: PcpuId, woken: &str, woken_pcpu: PcpuId) -> (Worker, Worker) {
    let (rouse, roused) = sync_channel(1);
    let woken = Worker::start(woken, woken_pcpu, move || {
        let _ = roused.recv_timeout(Duration::from_millis(100));
    });
    let waker = Worker::start(waker, waker_pcpu, move || {
        let _ = rouse.try_send(());
        nap();
    });
    (waker, woken)
}

/// What was recorded of a switch, but for its time and the number of its stack.
type Told = (Tid, PrevState, Tid, Option<i16>, Option<[u64; 3]>, Vec<String>);

/// Two recordings at once, of threads that sleep, wait, stop and are preempted.
fn both_tell_the_same() -> Outcome {
    let pcpu = watched();
    let busy = || (0..1000).for_each(|_| std::hint::spin_loop());
    let yielding = || {
        let _ = nix::sched::sched_yield();
    };
    // Until the child runs its own program, the parent sleeps where no signal wakes it.
    let spawn = || {
        let _ = Command::new("true").status();
        thread::sleep(Duration::from_millis(2));
    };
    let (lock, changed) = (Mutex::new(()), Condvar::new());
    let wait = move || {
        let guard = lock.lock().expect("no holder of this lock panics");
        drop(changed.wait_timeout(guard, Duration::from_micros(300)));
    };
    let workers = [
        Worker::start("vs-nap", pcpu, nap),
        Worker::start("vs-futex", pcpu, wait),
        Worker::start("vs-busy", pcpu, busy),
        Worker::start("vs-yield", pcpu, yielding),
        Worker::start("vs-spawn", pcpu, spawn),
    ];
    let tids: Vec<Tid> = workers.iter().map(|worker| worker.tid).collect();
    let record = |source| {
        let plan = RecordPlan { vm_tids: tids.clone(), pcpus: vec![pcpu], ..plan(source) };
        let seen = Seen::default();
        Recorder::start(&plan, seen.sink()).map(|recorder| (recorder, seen))
    };
    let (programs, by_programs) = record(SchedulerSource::Programs)?;
    let (tracepoints, by_tracepoints) = record(SchedulerSource::Tracepoints)?;
    // Of these threads and no others: on a busy pCPU most switches are a stranger's.
    let states = [PrevState::Sleep, PrevState::DiskSleep, PrevState::Runnable];
    by_tracepoints.wait_for("500 switches of the threads, in all states", |events| {
        let left = |state: Option<&PrevState>| {
            let of_threads = switches(events).filter(|(_, prev, ..)| tids.contains(prev));
            of_threads.filter(|(_, _, left, ..)| state.is_none_or(|state| state == left)).count()
        };
        left(None) >= 500 && states.iter().all(|state| left(Some(state)) >= 10)
    })?;
    let (tracepoints, programs) = (stop(tracepoints)?, stop(programs)?);
    let symbols = Symbols::load()?;
    let told = |seen: &Seen, totals: &RecordTotals| -> Vec<(HostNs, Told)> {
        let events = seen.of(pcpu);
        let told = events.iter().filter_map(|event| {
            let HostEventKind::Switch(switch) = event.kind else { return None };
            let Switch { prev, prev_state, next, next_priority, stack, call_args } = switch;
            // Others of this process may be come upon by one of them and not yet by the other.
            if !tids.contains(&prev) {
                return None;
            }
            let frames = totals.stacks.frames(stack?)?;
            let names = symbols.frame_names(frames);
            Some((event.time, (prev, prev_state, next, next_priority, call_args, names)))
        });
        told.collect()
    };
    let (ours, theirs) = (told(&by_programs, &programs), told(&by_tracepoints, &tracepoints));
    // Both write a switch at the same hit of the tracepoint, one after the other; programs were there
    // before and after.
    let (first_time, first) = theirs.first().ok_or("no tracepoint told of a switch")?;
    let same = ours.iter().enumerate().filter(|(_, (_, told))| told == first);
    let nearest = same.min_by_key(|(_, (time, _))| time.0.abs_diff(first_time.0));
    let start = nearest.ok_or("no program told of the first switch")?.0;
    check(ours.len() - start >= theirs.len(), || "programs told of less".into())?;
    for ((time, ours), (their_time, theirs)) in ours[start..].iter().zip(&theirs) {
        check(ours == theirs, || {
            format!("{time:?} {ours:?} by a program, {their_time:?} {theirs:?} by the tracepoint")
        })?;
    }
    let has = |state: &PrevState| theirs.iter().any(|(_, told)| told.1 == *state);
    check(states.iter().all(has), || format!("not all of {states:?} were told"))
}

/// On a pCPU that is not watched, a thread leaves before it comes again, and no switch is told
/// twice. It may seem to leave twice: where it follows a task that the kernel hides, nothing tells that
/// it came (see `assemble`).
fn check_stays(events: &[HostEvent], tid: Tid) -> Outcome {
    let mut is_on = false;
    let mut last: Option<HostNs> = None;
    for (time, prev, _, next, _) in switches(events) {
        if prev == tid || next == tid {
            let comes = next == tid;
            check(!(is_on && comes), || format!("{tid} came twice, at {time:?}"))?;
            check(last != Some(time), || format!("{tid} switched twice at {time:?}"))?;
            (is_on, last) = (comes, Some(time));
        }
    }
    Ok(())
}

fn concerns(event: &HostEvent, thread: Tid) -> bool {
    match event.kind {
        HostEventKind::Switch(switch) => switch.prev == thread || switch.next == thread,
        HostEventKind::Waking { tid, .. } => tid == thread,
        _ => false,
    }
}

fn a_newborn_is_seen(source: SchedulerSource) -> Outcome {
    let [elsewhere, .., pcpu] = online()[..] else { return Ok(()) };
    let parent = Worker::start("vs-parent", pcpu, nap);
    let (tids, pcpus) = (vec![parent.tid], vec![pcpu]);
    let plan = RecordPlan { vm_tids: tids, pcpus, ..plan(source) };
    let seen = Seen::default();
    let recorder = Recorder::start(&plan, seen.sink())?;
    let child = Worker::start("vs-newborn", elsewhere, nap);
    let tid = child.tid;
    seen.wait_for("the newborn's switches", |events| {
        let there = |event: &&HostEvent| event.pcpu == elsewhere && concerns(event, tid);
        events.iter().filter(there).count() >= 20
    })?;
    drop(child);
    seen.wait_for("its end", |events| {
        events.iter().any(|event| event.kind == HostEventKind::Exit { tid })
    })?;
    let totals = stop(recorder)?;
    check(totals.uncovered_threads_count == 0, || format!("{totals:?}"))?;
    let pid = Tid(std::process::id());
    let fork = HostEventKind::Fork { pid, tid, parent_pid: pid };
    let comm = HostEventKind::Comm { tid, comm: "vs-newborn".into() };
    for kind in [fork, comm] {
        let is_there = seen.events().iter().any(|event| event.kind == kind);
        check(is_there, || format!("no {kind:?}"))?;
    }
    check_stays(&seen.of(elsewhere), tid)
}

fn added_threads_are_seen(source: SchedulerSource) -> Outcome {
    let [elsewhere, .., pcpu] = online()[..] else { return Ok(()) };
    let worker = Worker::start("vs-added", elsewhere, nap);
    let seen = Seen::default();
    let plan = RecordPlan { pcpus: vec![pcpu], ..plan(source) };
    let recorder = Recorder::start(&plan, seen.sink())?;
    recorder.add_threads(&[worker.tid])?;
    // A second time changes nothing, and above all records nothing twice.
    recorder.add_threads(&[worker.tid])?;
    seen.wait_for("its switches and wakings", |events| {
        events.iter().filter(|event| concerns(event, worker.tid)).count() >= 20
    })?;
    stop(recorder)?;
    let events = seen.of(elsewhere);
    check_stays(&events, worker.tid)?;
    let mut wakings = BTreeSet::new();
    for event in seen.events().iter() {
        if matches!(event.kind, HostEventKind::Waking { .. }) {
            let new = wakings.insert((event.time, event.pcpu));
            check(new, || format!("told twice: {event:?}"))?;
        }
    }
    Ok(())
}

fn a_full_ring_tells_its_losses(source: SchedulerSource) -> Outcome {
    let pcpu = watched();
    let worker = Worker::start("vs-fast", pcpu, nap);
    let seen = Seen::default();
    let mut inner = seen.sink();
    let (entered, reader_waits) = sync_channel(1);
    let (release, released) = channel::<()>();
    let mut waited = false;
    let sink = move |of: PcpuId, events: &[HostEvent]| -> Result<(), SinkError> {
        inner.batch(of, events)?;
        if of == pcpu && !waited {
            waited = true;
            entered.send(())?;
            released.recv()?;
        }
        Ok(())
    };
    let tids = vec![worker.tid];
    let plan = RecordPlan { vcpu_tids: tids, pcpus: vec![pcpu], ring_bytes: 1, ..plan(source) };
    let recorder = Recorder::start(&plan, sink)?;
    reader_waits.recv_timeout(DEADLINE)?;
    // The reader stands still. A page holds some 30 switches; the kernel says how many there were.
    let before = switch_count(worker.tid)?;
    let start = Instant::now();
    while switch_count(worker.tid)? < before + 300 && start.elapsed() < DEADLINE {
        thread::sleep(Duration::from_millis(5));
    }
    release.send(())?;
    let totals = stop(recorder)?;
    let events = seen.of(pcpu);
    check_chain(&events, &[worker.tid])?;
    let losses: Vec<(HostNs, HostNs, u64)> = events
        .iter()
        .filter_map(|event| match event.kind {
            HostEventKind::Lost { until, count } => Some((event.time, until, count)),
            _ => None,
        })
        .collect();
    check(!losses.is_empty(), || "nothing was lost".into())?;
    for (start, end, count) in &losses {
        let sensible =
            start < end && *count > 0 && *end <= HostNs(totals.stopped.0 + 1_000_000_000);
        check(sensible, || format!("{losses:?}"))?;
        // Nothing is known of the time between; what is known lies outside.
        let inside = switches(&events).find(|(time, ..)| start < time && time < end);
        check(inside.is_none(), || format!("{inside:?} in {start:?} to {end:?}"))?;
    }
    let lost: u64 = losses.iter().map(|(_, _, count)| count).sum();
    check(lost >= 200, || format!("only {lost} of 300 were lost in a ring of a page"))?;
    let counted = totals.counters;
    check(counted.lost_count >= lost && counted.lost_intervals_count > 0, || format!("{counted:?}"))
}

/// How often a thread of this process has left its pCPU, by the scheduler's own count.
fn switch_count(tid: Tid) -> Result<u64, Failed> {
    let status = std::fs::read_to_string(format!("/proc/self/task/{tid}/status"))?;
    let line = |name| status.lines().find_map(|line| line.strip_prefix(name));
    let count = line("voluntary_ctxt_switches:").ok_or("no count of switches")?;
    Ok(count.trim().parse()?)
}

fn a_failing_sink_ends_it(source: SchedulerSource) -> Outcome {
    let pcpu = watched();
    let worker = Worker::start("vs-busy", pcpu, nap);
    let calls = Arc::new(AtomicUsize::new(0));
    let called = Arc::clone(&calls);
    let sink = move |_: PcpuId, _: &[HostEvent]| -> Result<(), SinkError> {
        called.fetch_add(1, Ordering::Relaxed);
        Err("disk full".into())
    };
    let tids = vec![worker.tid];
    let plan = RecordPlan { vm_tids: tids, pcpus: vec![pcpu], ..plan(source) };
    let recorder = Recorder::start(&plan, sink)?;
    let start = Instant::now();
    while !recorder.has_ended() && start.elapsed() < DEADLINE {
        thread::sleep(Duration::from_millis(10));
    }
    check(recorder.has_ended(), || "it goes on".into())?;
    let added = recorder.add_threads(&[worker.tid]);
    check(matches!(added, Err(RecordError::ReaderGone)), || format!("{added:?}"))?;
    let totals = recorder.stop()?;
    let failed = matches!(&totals.ended_early, Some(RecordError::Sink(error)) if error.to_string() == "disk full");
    check(failed, || format!("{:?}", totals.ended_early))?;
    let calls = calls.load(Ordering::Relaxed);
    check(calls == 1, || format!("a sink that failed was called {calls} times"))
}

fn a_run_is_stored(source: SchedulerSource) -> Outcome {
    let pcpu = watched();
    let worker = Worker::start("vs-store", pcpu, nap);
    let scratch = tempfile::tempdir()?;
    let run = RunDir::create(scratch.path())?;
    let tids = vec![worker.tid];
    let plan = RecordPlan { vcpu_tids: tids, pcpus: vec![pcpu], ..plan(source) };
    let recorder = Recorder::start(&plan, EventWriters::create(&run)?)?;
    let start = Instant::now();
    while recorder.counters().events_count < 100 && start.elapsed() < DEADLINE {
        thread::sleep(Duration::from_millis(10));
    }
    let totals = stop(recorder)?;
    let (stacks, tail) = read_all::<StackFrames>(&run.stacks_path())?;
    check(tail == Tail::Finished, || format!("{tail:?}"))?;
    let expected = totals.stacks.iter().map(|(id, frames)| (id, frames.to_vec()));
    check(stacks.into_iter().map(|stack| (stack.id, stack.frames)).eq(expected), || {
        "the stacks differ".into()
    })?;
    let mut merge = EventMerge::open(&run)?;
    let events = merge.by_ref().collect::<Result<Vec<HostEvent>, _>>()?;
    let count = totals.counters.events_count;
    check(count >= 100 && events.len() as u64 == count, || format!("{} of {count}", events.len()))?;
    check(events.is_sorted_by_key(|event| event.time), || "times go back".into())?;
    let finished = merge.tails().iter().all(|(_, tail)| *tail == Tail::Finished);
    check(finished, || format!("{:?}", merge.tails()))?;
    let known = |id: StackId| totals.stacks.frames(id).is_some();
    let stacks_known = events.iter().all(|event| match event.kind {
        HostEventKind::Switch(switch) => switch.stack.is_none_or(known),
        _ => true,
    });
    check(stacks_known, || "an event names a stack that is not there".into())
}

fn nothing_is_left_behind(source: SchedulerSource) -> Outcome {
    let descriptors =
        || -> Result<usize, Failed> { Ok(std::fs::read_dir("/proc/self/fd")?.count()) };
    let maps = || -> Result<usize, Failed> {
        let maps = std::fs::read_to_string("/proc/self/maps")?;
        Ok(maps.lines().filter(|line| line.contains("perf_event")).count())
    };
    let mounts = || std::fs::read_to_string("/proc/self/mounts");
    let before = (descriptors()?, maps()?, mounts()?);
    let watching = RecordPlan { pcpus: vec![watched()], ..plan(source) };
    let recorder = Recorder::start(&watching, Seen::default().sink())?;
    let during = (descriptors()?, maps()?);
    check(during.0 > before.0 && during.1 >= before.1, || format!("{during:?}"))?;
    drop(recorder);
    let offline = RecordPlan { pcpus: vec![PcpuId(9999)], ..plan(source) };
    let refused = Recorder::start(&offline, Seen::default().sink());
    check(matches!(refused, Err(RecordError::PcpuOffline(PcpuId(9999)))), || "accepted".into())?;
    let after = (descriptors()?, maps()?, mounts()?);
    check(before == after, || format!("before {before:?}, after {after:?}"))
}
