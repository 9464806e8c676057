//! The sampler against the running kernel: threads of a child whose states are known beforehand.
//!
//! The child is this test once more, in the role of a VMM. It needs no rights that a user has not of
//! an own child; where the kernel shows nothing even so, the tests are reported as ignored and say
//! why. Shares have bounds that only a broken sampler misses; nothing is timed.

use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::prctl;
use std::cell::{Cell, RefCell};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use vslice_core::samples::{Doing, SampleItem, Tally, ThreadShares};
use vslice_core::timeline::{GuestMode, LockFacts, LockUser, Reason, Vmm};
use vslice_core::units::{HostNs, Tid};
use vslice_record::sampling::plan::PCPU_SHARE_MAX;
use vslice_record::sampling::{
    SampleContent, SampleRate, SampledThread, Sampler, SamplerPlan, SamplerTotals,
    ThreadVisibility, visibility_of,
};

const DEADLINE: Duration = Duration::from_secs(60);

/// Looks at each thread that a test wants: its bounds are many deviations away then.
const LOOKS_MIN: u64 = 400;

type Outcome = Result<(), Failed>;
type Test = fn() -> Outcome;

fn main() {
    if std::env::args().any(|argument| argument == TEST_PROCESS) {
        return test_process();
    }
    let arguments = Arguments::from_args();
    let tests: [(&str, Test); 4] = [
        ("a_thread_in_a_known_state_is_seen_there", known_states),
        ("totals_alone_tell_who_ran", totals_alone),
        ("a_child_that_may_not_be_looked_at_shows_nothing", hidden_child),
        ("a_thread_that_ends_is_forgotten", ended_thread),
    ];
    let missing = unavailable();
    let trial = |(name, test): (&str, Test)| match &missing {
        None => Trial::test(name, test),
        Some(reason) => Trial::test(name, test).with_kind(reason).with_ignored_flag(true),
    };
    libtest_mimic::run(&arguments, tests.into_iter().map(trial).collect()).exit();
}

/// Why the kernel would not show an own child: by its settings, not by what the sampler finds, which
/// is what is tested. Nothing refuses root (kernel: Documentation/admin-guide/LSM/Yama.rst).
fn unavailable() -> Option<String> {
    let setting = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok()?;
    let scope: u8 = setting.trim().parse().ok()?;
    let is_refused = scope >= 2 && !nix::unistd::geteuid().is_root();
    is_refused.then(|| format!("kernel.yama.ptrace_scope is {scope}"))
}

const TEST_PROCESS: &str = "--be-the-test-process";
const HIDDEN: &str = "--hidden";

/// What the child does: a thread in each state, whose tids it prints, until its input ends.
fn test_process() {
    if std::env::args().any(|argument| argument == HIDDEN) {
        prctl::set_dumpable(false).expect("a process may always hide");
    }
    let (report, reported) = mpsc::channel();
    let name = |who: &'static str| {
        let report = report.clone();
        move || report.send((who, nix::unistd::gettid(), 0)).expect("the main thread waits")
    };
    let word = Box::leak(Box::new(2_u32));
    let address = std::ptr::from_ref(word).addr();
    let announce = report.clone();
    thread::spawn(move || {
        announce.send(("lock", nix::unistd::gettid(), address)).expect("the main thread waits");
        // As `__lll_lock_wait` of glibc waits for a mutex that is never released.
        loop {
            futex_wait(word);
        }
    });
    let sleeper = name("sleep");
    thread::spawn(move || {
        sleeper();
        loop {
            thread::sleep(Duration::from_secs(1000));
        }
    });
    let spinner = name("spin");
    thread::spawn(move || {
        spinner();
        loop {
            std::hint::spin_loop();
        }
    });
    let mortal = name("mortal");
    let (end, ended) = mpsc::channel::<()>();
    thread::spawn(move || {
        mortal();
        let _until_told = ended.recv();
    });
    let mut out = std::io::stdout();
    for (who, tid, address) in reported.iter().take(4) {
        writeln!(out, "{who} {tid} {address}").expect("the test reads it");
    }
    let mut input = BufReader::new(std::io::stdin());
    let mut line = String::new();
    if input.read_line(&mut line).is_ok_and(|length| length > 0) {
        drop(end);
        let _until_the_test_ends = input.read_to_end(&mut Vec::new());
    }
}

/// `futex(word, FUTEX_WAIT_PRIVATE, 2, NULL)`; returns when woken, or by a signal.
fn futex_wait(word: &u32) {
    let wait = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    let none = std::ptr::null::<libc::timespec>();
    // SAFETY: FUTEX_WAIT only reads the u32 that `word` borrows for the whole call, and a null
    // timeout is one that never comes (futex(2)).
    #[expect(unsafe_code, reason = "libc has no safe futex")]
    unsafe {
        libc::syscall(libc::SYS_futex, std::ptr::from_ref(word), wait, 2_u32, none);
    }
}

/// The child, which ends with this.
struct TestProcess {
    child: Child,
    threads: Vec<(String, Tid, u64)>,
}

impl TestProcess {
    fn start(arguments: &[&str]) -> Result<TestProcess, String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let child = Command::new(own)
            .arg(TEST_PROCESS)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.map_err(|error| error.to_string())?;
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let mut threads = Vec::new();
        for line in out.lines().take(4) {
            let line = line.map_err(|error| error.to_string())?;
            let mut words = line.split(' ');
            let mut word = || words.next().ok_or(format!("the test process said {line:?}"));
            let name = word()?.to_owned();
            let number = |text: &str| text.parse::<u64>().map_err(|error| error.to_string());
            let tid = u32::try_from(number(word()?)?).map_err(|error| error.to_string())?;
            threads.push((name, Tid(tid), number(word()?)?));
        }
        Ok(TestProcess { child, threads })
    }

    fn thread(&self, name: &str) -> (Tid, u64) {
        let found = self.threads.iter().find(|(known, ..)| known == name);
        found.map(|(_, tid, address)| (*tid, *address)).expect("the test process has named it")
    }

    fn tids(&self) -> Vec<Tid> {
        self.threads.iter().map(|(_, tid, _)| *tid).collect()
    }

    fn shown(&self) -> ThreadVisibility {
        visibility_of(&self.tids())
    }
}

impl Drop for TestProcess {
    fn drop(&mut self) {
        let _may_have_ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Samples until `enough`.
fn sample(
    process: &TestProcess,
    content: SampleContent,
    enough: impl Fn(&[SampleItem]) -> bool,
) -> Result<(Vec<SampleItem>, SamplerTotals), Failed> {
    let items: Arc<Mutex<Vec<SampleItem>>> = Arc::default();
    let kept = Arc::clone(&items);
    let threads = process.tids().into_iter();
    let plan = SamplerPlan {
        threads: threads
            .map(|tid| SampledThread { vm: 0, tid, rate: SampleRate::EveryRound })
            .collect(),
        content,
        pcpu: None,
    };
    let sampler = Sampler::start(&plan, move |_: usize, item: SampleItem| {
        kept.lock().expect("no holder panics").push(item);
        Ok(())
    })?;
    let start = Instant::now();
    while !enough(&items.lock().expect("no holder panics")) {
        if start.elapsed() > DEADLINE {
            return Err(format!("not enough was sampled within {DEADLINE:?}").into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    let totals = sampler.stop()?;
    let items = std::mem::take(&mut *items.lock().expect("no holder panics"));
    Ok((items, totals))
}

fn looks(items: &[SampleItem], wanted: Tid) -> u64 {
    let is_wanted =
        |item: &&SampleItem| matches!(item, SampleItem::Look(look) if look.tid == wanted);
    items.iter().filter(is_wanted).count() as u64
}

fn tally(items: Vec<SampleItem>) -> Tally {
    let mut tally = Tally::new(HostNs(0), HostNs(u64::MAX));
    items.into_iter().for_each(|item| tally.push(item));
    tally
}

fn share(all: &[ThreadShares], tid: Tid, doing: Doing, lock: Option<u64>) -> f64 {
    let thread = all.iter().find(|thread| thread.tid == tid).expect("it was looked at");
    let row = thread.shares.iter().find(|row| (row.doing, row.lock) == (doing, lock));
    row.map_or(0.0, |row| row.share)
}

fn check(what: &str, holds: bool, seen: impl std::fmt::Debug) -> Outcome {
    if holds { Ok(()) } else { Err(format!("{what}: {seen:?}").into()) }
}

fn known_states() -> Outcome {
    let process = TestProcess::start(&[])?;
    let (lock, address) = process.thread("lock");
    let ((sleep, _), (spin, _)) = (process.thread("sleep"), process.thread("spin"));
    let enough = |items: &[SampleItem]| looks(items, lock) >= LOOKS_MIN;
    let (items, totals) = sample(&process, SampleContent::StatesAndTotals, enough)?;
    let tally = tally(items);
    let facts = LockFacts {
        vmm: Vmm::Qemu,
        mode: Some(GuestMode::Tcg),
        bql: Some(address),
        ..LockFacts::default()
    };
    let all = tally.shares(&facts, |_| LockUser::Vcpu);
    let bql = share(&all, lock, Doing::Off(Reason::Bql), Some(address));
    check("the lock's address is seen where a thread waits for it", bql > 0.9, &all)?;
    let poll = share(&all, sleep, Doing::Off(Reason::PollSleep), None);
    check("a sleep is a sleep", poll > 0.9, &all)?;
    let runnable = share(&all, spin, Doing::Runnable, None);
    check("who spins is runnable", runnable > 0.9, &all)?;
    // Of another lock than the big one the same looks say so.
    let other = LockFacts { bql: Some(address + 64), ..facts };
    let others = tally.shares(&other, |_| LockUser::Vcpu);
    let qemu_lock = share(&others, lock, Doing::Off(Reason::QemuLock), Some(address));
    check("another address is another lock", qemu_lock > 0.9, &others)?;
    let own_share = totals.own_ns as f64 / totals.elapsed_ns as f64;
    check("its own share is bounded", own_share <= PCPU_SHARE_MAX * 1.05, &totals)?;
    check("it came to its end", totals.ended_early.is_none(), &totals)
}

fn totals_alone() -> Outcome {
    let process = TestProcess::start(&[])?;
    let ((sleep, _), (spin, _)) = (process.thread("sleep"), process.thread("spin"));
    let of = |items: &[SampleItem], wanted: Tid| {
        let reads = items.iter().filter_map(|item| match item {
            SampleItem::Schedstat(read) if read.tid == wanted => Some(read.on_pcpu_ns),
            _ => None,
        });
        reads.collect::<Vec<u64>>()
    };
    // A tick is at most 10 ms, and the spinner gets its pCPU sooner or later.
    let enough = |items: &[SampleItem]| {
        let ran = of(items, spin);
        ran.last().zip(ran.first()).is_some_and(|(last, first)| last - first > 100_000_000)
    };
    let (items, _) = sample(&process, SampleContent::TotalsOnly, enough)?;
    check("nobody was looked at", looks(&items, spin) == 0, items.len())?;
    let scheduled = tally(items).scheduled();
    let row = |tid| scheduled.iter().find(|row| row.tid == tid).expect("it was read");
    let (spin, sleep) = (row(spin), row(sleep));
    check("who spins runs", spin.on_pcpu_ns > 100_000_000, spin)?;
    check("who sleeps does not", sleep.on_pcpu_ns == 0 && sleep.timeslices_count == 0, sleep)?;
    // The spinner has run or waited all the time, give or take what was not yet brought up to date.
    let known_ns = spin.on_pcpu_ns + spin.run_delay_ns;
    check("time is not counted twice", known_ns <= spin.observed_ns + 50_000_000, spin)
}

/// Without the capability to see everything, that is.
fn hidden_child() -> Outcome {
    let process = TestProcess::start(&[HIDDEN])?;
    let shown = process.shown();
    if nix::unistd::geteuid().is_root() {
        return check("root sees it", shown == ThreadVisibility::Both, shown);
    }
    check("nothing is shown", shown == ThreadVisibility::Nothing, shown)
}

fn ended_thread() -> Outcome {
    let mut process = TestProcess::start(&[])?;
    let ((mortal, _), (lock, _)) = (process.thread("mortal"), process.thread("lock"));
    let input = RefCell::new(process.child.stdin.take().expect("piped"));
    let mut told = Cell::new(None);
    // It is told to end once it has been looked at, and the others are looked at after that.
    let enough = |items: &[SampleItem]| {
        let seen = looks(items, mortal);
        if seen >= 5 && told.get().is_none() {
            writeln!(input.borrow_mut(), "end").expect("the test process reads it");
            told.set(Some(()));
        }
        let is_gone = !std::path::Path::new(&format!("/proc/{mortal}")).exists();
        is_gone && looks(items, lock) >= seen + 50
    };
    let (_, totals) = sample(&process, SampleContent::StatesAndTotals, enough)?;
    check("it was told to end", told.get_mut().is_some(), &totals)?;
    check("that is no error", totals.ended_early.is_none(), &totals)
}
