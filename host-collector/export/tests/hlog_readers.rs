//! Interval logs as others read them: what HdrHistogram's Python port finds in one is what was told.
//!
//! It is in the environment that `tests/readers` makes; without it the test is ignored, and says so.

use hdrhistogram::Histogram;
use libtest_mimic::{Arguments, Failed, Trial};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use vslice_core::join::{Breakdown, Part};
use vslice_core::task::VmIndex;
use vslice_core::timeline::Tasks;
use vslice_core::units::HostNs;
use vslice_export::hlog::LatencyLog;
use vslice_report::analyse::analyse_with;
use vslice_report::analyse::chosen::Chosen;
use vslice_report::analyse::drawn::{manifest, names, run_in, streams};
use vslice_report::analyse::observer::{MeasuredWindow, Observer, Run, RunEnd};
use vslice_report::summary::selection::LeftOut;

const S: u64 = 1_000_000_000;
const START_NS: u64 = 77 * S;
const SECONDS: u64 = 3;
/// So that each percentile below is one request's, however a reader rounds.
const REQUESTS: u64 = 1000;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let name = "counts_and_percentiles_are_the_same_to_hdrhistograms_python_port";
    let trial = match python() {
        Ok(python) => Trial::test(name, move || read_back(&python)),
        Err(reason) => Trial::test(name, || Ok(())).with_kind(reason).with_ignored_flag(true),
    };
    libtest_mimic::run(&arguments, vec![trial]).exit_code()
}

fn python() -> Result<PathBuf, String> {
    let directory = std::env::var_os("VSLICE_READERS").map(PathBuf::from);
    let directory = directory.ok_or("VSLICE_READERS is not set, see make test")?;
    let python = directory.join("bin/python3");
    python
        .exists()
        .then_some(python)
        .ok_or_else(|| format!("{} has no bin/python3, see make test", directory.display()))
}

/// A request as the drawn run tells it, to be told again at other times.
#[derive(Default)]
struct Drawn(Option<Breakdown>);

impl Observer for Drawn {
    fn request(&mut self, _: VmIndex, breakdown: &Breakdown) {
        self.0 = Some(breakdown.clone());
    }
}

fn drawn_request() -> Result<Breakdown, Failed> {
    let scratch = tempfile::tempdir()?;
    let run = run_in(&scratch.path().join("run"), &manifest());
    streams(&run, &[0, 500, 1150], true);
    names(&run);
    let mut drawn = Drawn::default();
    analyse_with(run.path(), &mut [&mut drawn])?;
    drawn.0.ok_or_else(|| "no request was told".into())
}

/// What was told, by second and tag, and the log of it.
type Told = BTreeMap<(u64, String), Histogram<u64>>;

/// Requests of three seconds, from 100 ns to 3 s long, in no order.
fn told() -> Result<(Told, Vec<u8>), Failed> {
    let request = drawn_request()?;
    let manifest = manifest();
    let window = MeasuredWindow { start: HostNs(START_NS), end: HostNs(START_NS + SECONDS * S) };
    let chosen = Chosen::whole(window);
    let run = Run { manifest: &manifest, window, chosen: &chosen, stacks: &[], locks: &[] };
    let mut log = LatencyLog::new(Vec::new());
    log.start(&run);
    let mut told = Told::new();
    for index in 0..REQUESTS * SECONDS {
        let (second, turn) = (index % SECONDS, index / SECONDS);
        let end = HostNs(START_NS + second * S + turn);
        // 7 has no common divisor with the number of requests: each is once in an order of their own.
        let latency_ns = 100 + (turn * 7 % REQUESTS).pow(3) * 3 + second;
        let told_request = Breakdown { start: HostNs(end.0 - latency_ns), end, ..request.clone() };
        log.request(VmIndex(0), &told_request);
        let parts = Part::ALL.map(|part| (part.name(), request.parts.get(part)));
        for (figure, length_ns) in [("latency", latency_ns)].into_iter().chain(parts) {
            let tag = format!("vm1/reader/read/{figure}");
            let new = || Histogram::new(3).expect("it is in the range [0, 5]");
            told.entry((second, tag)).or_insert_with(new).record(length_ns)?;
        }
    }
    log.end(&run, &nothing_more(window, &Tasks::default(), &HashMap::new()));
    Ok((told, log.finish()?))
}

fn nothing_more<'a>(
    window: MeasuredWindow,
    tasks: &'a Tasks,
    commands: &'a HashMap<vslice_core::task::Process, vslice_report::summary::CommandLine>,
) -> RunEnd<'a> {
    RunEnd {
        window_end: window.end,
        is_torn: false,
        events_count: 0,
        contradictions_count: 0,
        clocks: &[],
        clocks_apart: &[],
        tasks,
        commands,
        warnings: &[],
        left_out: LeftOut::default(),
    }
}

fn read_back(python: &PathBuf) -> Result<(), Failed> {
    let (told, log) = told()?;
    let scratch = tempfile::tempdir()?;
    let file = scratch.path().join("latencies.hlog");
    std::fs::write(&file, log)?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/read_hlog.py");
    let output = Command::new(python).args([script.as_ref(), file.as_path()]).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let read = String::from_utf8(output.stdout)?;
    let expected: Vec<String> = told
        .iter()
        .map(|((second, tag), of)| {
            let lengths = [0.5, 0.9, 0.99, 0.999].map(|quantile| of.value_at_quantile(quantile));
            let [p50, p90, p99, p999] = lengths;
            format!("{second} {tag} {} {p50} {p90} {p99} {p999} {}", of.len(), of.max())
        })
        .collect();
    let mut read: Vec<&str> = read.lines().collect();
    read.sort_unstable();
    if read != expected {
        return Err(format!("told {expected:#?}\nread {read:#?}").into());
    }
    Ok(())
}
