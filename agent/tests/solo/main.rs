//! `vslice-agent solo` as a process on this machine, disturbed in ways whose truth is known from
//! elsewhere: the kernel's own counters, or the test that did it. No time is asserted but by the
//! agreement of two measurements of one run, and that to within what the test knows that it does not
//! know: others have work on this machine too, and its own host may take the pCPU for long.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use vslice_tests::not_judged;
use vslice_workload::hog::Hog;

const MS: u64 = 1_000_000;

/// The threshold of a gap, and what reading the counters may take on top of it when it is interrupted.
const SHORT_NS: u64 = 40_000;

/// A part of a gap in which the kernel counted neither running nor waiting is below this where nobody stopped
/// the process: it is what its counters are apart.
const STOP_MIN_NS: u64 = MS;

/// Where the reader of `/proc` was away for longer than this, it may have missed more than one switch.
const UNSEEN_MAX_NS: u64 = 4 * MS;

/// Where others have more of this machine, what a process cannot keep up with is not its fault.
const OTHERS_SHARE_MAX: f64 = 0.15;

/// All tests use the same pCPU: two at once would be each other's rivals.
static PCPU: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    PCPU.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The last pCPU that this process may use: the first one has most of the interrupts.
fn last_pcpu() -> u16 {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let is_allowed = |pcpu: &u16| allowed.is_set(usize::from(*pcpu)).unwrap();
    (0..1024).rfind(is_allowed).unwrap()
}

fn solo(arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vslice-agent"));
    command.arg("solo").args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn report(child: Child) -> Value {
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

/// `schedstat` of the loop's thread; `None` until it is there.
fn loop_file(child: &Child, pcpu: u16) -> Option<PathBuf> {
    let name = format!("gap-{pcpu}\n");
    let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).ok()?;
    let task = tasks
        .flatten()
        .map(|task| task.path())
        .find(|task| std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm == name))?;
    Some(task.join("schedstat"))
}

fn wait_for_loop(child: &Child, pcpu: u16) -> PathBuf {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(file) = loop_file(child, pcpu) {
            return file;
        }
        assert!(Instant::now() < deadline, "no loop has started");
        thread::sleep(Duration::from_millis(1));
    }
}

/// What the kernel counts of a thread: time that it ran, as of the last tick or switch, time that it
/// waited for its pCPU, and how often it came on.
#[derive(Debug, Clone, Copy)]
struct SchedStat {
    ran_ns: u64,
    waited_ns: u64,
    timeslices: u64,
}

/// While the thread is there.
fn schedstat(file: &PathBuf) -> Option<SchedStat> {
    let mut text = String::new();
    std::fs::File::open(file).ok()?.read_to_string(&mut text).ok()?;
    let mut numbers = text.split_ascii_whitespace().map(|number| number.parse().unwrap());
    let mut next = || numbers.next();
    Some(SchedStat { ran_ns: next()?, waited_ns: next()?, timeslices: next()? })
}

/// Waits until the thread has run for so long from now on, as far as its kernel has told.
fn wait_until_it_ran(file: &PathBuf, ns: u64) {
    let begun_ns = schedstat(file).unwrap().ran_ns;
    let deadline = Instant::now() + Duration::from_secs(60);
    while schedstat(file).unwrap().ran_ns < begun_ns + ns {
        assert!(Instant::now() < deadline, "the loop does not run");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until no thread of the process can run any more.
fn wait_until_stopped(child: &Child, file: &Path) {
    let stat = file.with_file_name("stat");
    let deadline = Instant::now() + Duration::from_secs(60);
    // The state stands behind the name, which may hold anything but has a bracket at its end.
    let is_stopped =
        |stat: &str| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'));
    while !is_stopped(&std::fs::read_to_string(&stat).unwrap()) {
        assert!(Instant::now() < deadline, "{} does not stop", child.id());
        thread::sleep(Duration::from_micros(100));
    }
}

fn ns_since(moment: Instant) -> u64 {
    u64::try_from(moment.elapsed().as_nanos()).unwrap()
}

fn vcpu(report: &Value) -> &Value {
    assert_eq!(report["schema"], "vslice.solo/1");
    &report["vcpus"][0]
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// A rival on the loop's pCPU takes half of it, and the loop names the guest's own scheduler.
#[test]
fn a_rival_is_the_guests_own_switch() {
    let _alone = alone();
    let pcpu = last_pcpu();
    let stop = Arc::new(AtomicBool::new(false));
    let rival = Hog::start(pcpu, Arc::clone(&stop), None).unwrap();
    let begun = Instant::now();
    let child = solo(&["--duration", "2s", "--vcpus", &pcpu.to_string(), "--json", "--gaps"]);
    let file = wait_for_loop(&child, pcpu);
    let mut seen = Vec::new();
    let mut looked = Instant::now();
    while let Some(stat) = schedstat(&file) {
        looked = Instant::now();
        seen.push(stat);
        thread::sleep(Duration::from_millis(1));
    }
    let unseen_ns = ns_since(looked);
    let report = report(child);
    let lived_ns = ns_since(begun);
    stop.store(true, Ordering::Relaxed);
    let _ = rival.join();
    let vcpu = vcpu(&report);
    let last = *seen.last().unwrap();
    let found_ns = number(&vcpu["parts_ns"]["guest_switch"]);
    let told_ns = number(&vcpu["run_delay_ns"]);
    assert!(last.waited_ns > 0 && last.timeslices > 0, "a pinned rival runs at times");
    // Both are of the loop's own counters; what is missing are switches below the threshold, of which
    // there are not more than timeslices.
    let short_ns = SHORT_NS * last.timeslices;
    assert!(found_ns <= told_ns, "{found_ns} of {told_ns} ns");
    assert!(found_ns + short_ns >= told_ns, "{found_ns} of {told_ns} ns, {last:?}");
    // What was read from outside is of another time: neither begins nor ends where the loop's own does.
    let elsewhere_ns = lived_ns.saturating_sub(number(&vcpu["measured_ns"]));
    let apart_ns = told_ns.abs_diff(last.waited_ns);
    assert!(apart_ns <= elsewhere_ns, "{told_ns} ns, {last:?}, {elsewhere_ns} ns elsewhere");
    let list = vcpu["gap_list"].as_array().unwrap();
    let switches = list.iter().filter(|gap| gap["kind"] == "guest_switch").count() as u64;
    assert_eq!(switches, number(&vcpu["gaps"]["guest_switch"]["count"]));
    match judge_switches(switches, last.timeslices, unseen_ns) {
        Ok(None) => {}
        Ok(Some(because)) => {
            not_judged::<()>("a_rival_is_the_guests_own_switch, by timeslices", &because).unwrap();
        }
        Err(wrong) => panic!("{wrong}"),
    }
    for gap in list {
        let parts_ns: u64 = gap["parts_ns"].as_object().unwrap().values().map(number).sum();
        assert_eq!(parts_ns, number(&gap["length_ns"]));
    }
    if elsewhere_ns * 5 > told_ns {
        let because =
            format!("the process took {elsewhere_ns} ns to start and end, and waited {told_ns}");
        not_judged::<()>("a_rival_is_the_guests_own_switch, by /proc", &because).unwrap();
    }
}

/// Each gap of a switch ends with a timeslice; the last one may be after the last look at `/proc`: `None`. Where
/// nobody looked for long before the end, more than that are not judged.
fn judge_switches(
    switches: u64,
    timeslices: u64,
    unseen_ns: u64,
) -> Result<Option<String>, String> {
    let said = format!(
        "{switches} gaps of switches stand against {timeslices} timeslices, of which the last \
         {unseen_ns} ns were not seen"
    );
    match (switches <= timeslices + 1, unseen_ns > UNSEEN_MAX_NS) {
        (true, _) => Ok(None),
        (false, true) => Ok(Some(said)),
        (false, false) => Err(said),
    }
}

#[test]
fn more_gaps_of_switches_than_timeslices_are_wrong() {
    assert_eq!(judge_switches(101, 100, MS), Ok(None));
    assert_eq!(judge_switches(101, 100, 9 * MS), Ok(None));
    assert!(judge_switches(102, 100, 4 * MS).is_err());
    assert!(judge_switches(102, 100, 4 * MS + 1).is_ok_and(|because| because.is_some()));
}

/// A stopped process neither runs nor waits: no run delay, no interrupt, and not the host either.
#[test]
fn a_stopped_loop_is_neither_the_hosts_nor_a_switch() {
    const STOPS: usize = 6;
    const STOPPED: Duration = Duration::from_millis(50);
    let _alone = alone();
    let pcpu = last_pcpu();
    let child = solo(&["--duration", "600s", "--vcpus", &pcpu.to_string(), "--json", "--gaps"]);
    let file = wait_for_loop(&child, pcpu);
    // By then the loop has begun, and has more than one tick behind it.
    wait_until_it_ran(&file, 100 * MS);
    let mut stops = Vec::new();
    for _ in 0..STOPS {
        let asked = Instant::now();
        kill(pid_of(&child), Signal::SIGSTOP).unwrap();
        wait_until_stopped(&child, &file);
        let stopped = Instant::now();
        thread::sleep(STOPPED);
        let surely_ns = ns_since(stopped);
        kill(pid_of(&child), Signal::SIGCONT).unwrap();
        stops.push((surely_ns, ns_since(asked)));
        wait_until_it_ran(&file, 20 * MS);
    }
    kill(pid_of(&child), Signal::SIGINT).unwrap();
    let report = report(child);
    let vcpu = vcpu(&report);
    let part_ns = |gap: &Value| number(&gap["parts_ns"]["guest_stopped"]);
    let list = vcpu["gap_list"].as_array().unwrap();
    // Neither is one of them missing, nor is a shorter one there that nobody made.
    let found: Vec<&Value> = list.iter().filter(|gap| part_ns(gap) >= STOP_MIN_NS).collect();
    assert_eq!(found.len(), STOPS, "{found:#?}");
    // Around a stop, the host's own thefts look the same from inside.
    let steal = &vcpu["steal"];
    let stolen_ns = number(&steal["moved_ns"]) + number(&steal["step_ns"]);
    for (gap, (surely_ns, at_most_ns)) in found.iter().zip(stops) {
        let stopped_ns = part_ns(gap);
        assert!(stopped_ns + MS >= surely_ns, "{gap:#}, {surely_ns} ns outside");
        assert!(stopped_ns <= at_most_ns + stolen_ns, "{gap:#}, {at_most_ns} ns outside");
        let waited_ns = number(&gap["parts_ns"]["guest_switch"]);
        let expected = if waited_ns > stopped_ns { "guest_switch" } else { "guest_stopped" };
        assert_eq!(gap["kind"], expected, "{gap:#}");
    }
}

/// Whoever ends it early gets the report of what was measured.
#[test]
fn an_interrupted_run_reports() {
    let _alone = alone();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let pcpu = last_pcpu();
        let child = solo(&["--duration", "600s", "--vcpus", &pcpu.to_string(), "--json"]);
        let file = wait_for_loop(&child, pcpu);
        wait_until_it_ran(&file, 100 * MS);
        kill(pid_of(&child), signal).unwrap();
        let report = report(child);
        assert_eq!(report["interrupted"], true);
        let measured_ns = number(&vcpu(&report)["measured_ns"]);
        assert!((1..600_000 * MS).contains(&measured_ns), "{measured_ns}");
        assert!(number(&vcpu(&report)["cost"]["iterations"]) > 0);
    }
}

/// Time that all pCPUs had since the boot, and what this process's children had of it.
#[derive(Debug, Clone, Copy)]
struct PcpuTime {
    all: f64,
    idle: f64,
    children: f64,
}

impl PcpuTime {
    /// All in ticks of `/proc` (proc_stat(5), proc_pid_stat(5)).
    fn now() -> Self {
        let numbers = |text: &str| -> Vec<f64> {
            text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect()
        };
        let stat = std::fs::read_to_string("/proc/stat").unwrap();
        // Guests' time, behind the first eight, is in them already. Stolen time is others'.
        let times = &numbers(stat.lines().next().unwrap())[..8];
        let own = std::fs::read_to_string("/proc/self/stat").unwrap();
        let own = numbers(own.rsplit_once(") ").unwrap().1);
        // Behind the state, which is no number, the process's own times are the eleventh and twelfth; its
        // children's follow.
        Self { all: times.iter().sum(), idle: times[3] + times[4], children: own[12] + own[13] }
    }

    /// The share that neither idled nor was the children's.
    fn others_share(self, before: Self) -> f64 {
        let all = self.all - before.all;
        let others = all - (self.idle - before.idle) - (self.children - before.children);
        (others / all.max(1.0)).clamp(0.0, 1.0)
    }
}

/// Of what the reader did, one in a hundred may have found no room: `None`. More is wrong, unless others had
/// too much of the machine for anybody to keep up, which is why nothing is judged.
fn judge_drops(count: u64, dropped: u64, others_share: f64) -> Result<Option<String>, String> {
    let said = format!(
        "{dropped} requests were dropped beside {count}, while others had {:.1} % of the pCPUs",
        others_share * 100.0
    );
    match (count > 0 && dropped * 100 <= count, others_share > OTHERS_SHARE_MAX) {
        (true, _) => Ok(None),
        (false, true) => Ok(Some(said)),
        (false, false) => Err(said),
    }
}

#[test]
fn a_reader_that_drops_much_is_wrong_unless_others_were_busy() {
    assert_eq!(judge_drops(10_000, 100, 0.0), Ok(None));
    assert_eq!(judge_drops(10_000, 100, 0.9), Ok(None));
    for (count, dropped) in [(10_000, 101), (0, 0), (0, 5)] {
        let said = judge_drops(count, dropped, 0.15).unwrap_err();
        assert!(said.starts_with(&format!("{dropped} requests were dropped")), "{said}");
        let because = judge_drops(count, dropped, 0.16).unwrap().unwrap();
        assert!(because.ends_with("while others had 16.0 % of the pCPUs"), "{because}");
    }
}

/// The reader's slow requests are laid under the gaps.
#[test]
fn a_reader_is_joined() {
    let _alone = alone();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = dir.path().join("data");
    std::fs::write(&file, vec![7; 4 << 20]).unwrap();
    let pcpu = last_pcpu().to_string();
    let path = file.to_str().unwrap();
    let before = PcpuTime::now();
    let json = report(solo(&["--duration", "1s", "--vcpus", &pcpu, "--json", "--read", path]));
    let others_share = PcpuTime::now().others_share(before);
    let reading = &json["reading"];
    let latency = &reading["latency"];
    let dropped = reading["dropped"].as_u64().unwrap();
    match judge_drops(number(&latency["count"]), dropped, others_share) {
        Ok(None) => {}
        Ok(Some(because)) => not_judged::<()>("a_reader_is_joined, by drops", &because).unwrap(),
        Err(wrong) => panic!("{wrong}: {reading:#}"),
    }
    assert_eq!(reading["slow_from_ns"], latency["p99_ns"]);
    assert!(number(&reading["slow"]["count"]) * 100 <= number(&latency["count"]));
    assert!(number(&reading["slow"]["host_ns"]) <= number(&reading["slow"]["latency_ns"]));
    let text = solo(&["--duration", "100ms", "--vcpus", &pcpu, "--read", path]);
    let text = String::from_utf8(text.wait_with_output().unwrap().stdout).unwrap();
    assert!(text.contains("Reader on vCPU") && text.contains("a lower bound"), "{text}");
}

/// An ordinary user is told what is missing, and nothing else.
#[test]
fn what_cannot_run_says_why() {
    let _alone = alone();
    for (arguments, expected) in [
        (&["--vcpus", "1000"][..], "vCPU1000"),
        (&["--vcpus", "0,0"], "named twice"),
        (&["--duration", "1ms"], "10 ms"),
        (&["--duration", "5 minutes or so"], "is not a duration: write"),
        (&["--duration", "1s", "--read", "/nowhere"], "/nowhere"),
    ] {
        let output = solo(arguments).wait_with_output().unwrap();
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(expected), "{said}");
    }
}

fn figures(of: &Value) -> (u64, u64) {
    (number(&of["count"]), number(&of["max_ns"]))
}

/// How many lengths a log has under each tag, and the longest of them.
fn logged(log: &[u8]) -> BTreeMap<String, (u64, u64)> {
    let mut deserializer = Deserializer::new();
    let mut logged = BTreeMap::new();
    for entry in IntervalLogIterator::new(log) {
        let LogEntry::Interval(line) = entry.unwrap() else { continue };
        let bytes = STANDARD.decode(line.encoded_histogram()).unwrap();
        let lengths: Histogram<u64> = deserializer.deserialize(&mut bytes.as_slice()).unwrap();
        let of_tag = logged.entry(line.tag().unwrap().to_string()).or_insert((0, 0));
        *of_tag = (of_tag.0 + lengths.len(), of_tag.1.max(lengths.max()));
    }
    logged
}

/// The log of lengths has what the report has, and the calibration says how fine the loop is.
#[test]
fn a_log_and_a_calibration() {
    let _alone = alone();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = dir.path().join("solo.hlog");
    let pcpu = last_pcpu().to_string();
    let path = file.to_str().unwrap();
    let arguments = ["--duration", "500ms", "--threshold", "1us", "--vcpus", &pcpu, "--json"];
    let json = report(solo(&[&arguments[..], &["--hlog", path]].concat()));
    let log = std::fs::read_to_string(&file).unwrap();
    assert!(log.starts_with("#[Histogram log format version 1.3]\n"), "{log}");
    let logged = logged(log.as_bytes());
    let vcpu = &json["vcpus"][0];
    let gaps = vcpu["gaps"].as_object().unwrap().iter().map(|(kind, of)| (kind.as_str(), of));
    let told: BTreeMap<String, (u64, u64)> = gaps
        .chain([("timeslice", &vcpu["timeslices"])])
        .map(|(kind, of)| (format!("vcpu{pcpu}_{kind}"), figures(of)))
        .filter(|(_, (count, _))| *count > 0)
        .collect();
    assert!(!told.is_empty(), "half a second without an interrupt of 1 us: {log}");
    let counts = |of: &BTreeMap<String, (u64, u64)>| -> Vec<(String, u64)> {
        of.iter().map(|(tag, (count, _))| (tag.clone(), *count)).collect()
    };
    assert_eq!(counts(&logged), counts(&told));
    for (tag, (_, max_ns)) in told {
        let logged_ns = logged[&tag].1;
        // A length is the difference of two rounded times there.
        assert!(logged_ns.abs_diff(max_ns) <= max_ns / 1000 + 1, "{tag}: {logged_ns} {max_ns}");
    }
    let json = report(solo(&["--calibrate", "--vcpus", &pcpu, "--json"]));
    assert_eq!(json["schema"], "vslice.solo-calibration/1");
    let vcpu = &json["vcpus"][0];
    assert!(number(&vcpu["iteration_p50_ns"]) > 0);
    assert!(number(&vcpu["iteration_p50_ns"]) <= number(&vcpu["shortest_gap_ns"]));
    assert!(number(&vcpu["counters_p50_ns"]) > number(&vcpu["iteration_p50_ns"]));
}

/// A loop that may not run where it is asked to says so.
#[test]
fn the_affinity_of_the_process_is_the_default() {
    let _alone = alone();
    let pcpu = last_pcpu();
    let child = thread::spawn(move || {
        let mut set = CpuSet::new();
        set.set(usize::from(pcpu)).unwrap();
        sched_setaffinity(Pid::from_raw(0), &set).unwrap();
        solo(&["--duration", "50ms", "--json"])
    });
    let report = report(child.join().unwrap());
    assert_eq!(report["vcpus"].as_array().unwrap().len(), 1);
    assert_eq!(vcpu(&report)["vcpu"], pcpu);
}
