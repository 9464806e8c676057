//! Loads recorded in turn, then reports of them in turn with the same by perf, and the guest's reader beside fio.

use super::Analysed;
use super::child::{self, Took};
use super::goal::{Better, Goal, Rival, Row};
use super::recording::{self, Load, Run, Setting};
use crate::machine::{self, Mounts, Places};
use crate::reading;
use crate::reading::task::Task;
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use vslice_core::units::PcpuId;
use vslice_spec::Engine;

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) rows: Vec<Row>,
    pub(crate) rounds: usize,
    pub(crate) recordings: usize,
    pub(crate) events_count: u64,
    pub(crate) requests_count: u64,
    /// The older vslice's, if there is one and it is known.
    pub(crate) older_commit: Option<String>,
    /// Load averages at the start and at the end.
    pub(crate) load: [String; 2],
}

/// One vslice: what it has recorded, and what its reports took.
#[derive(Debug)]
struct Side {
    vslice: PathBuf,
    loads: Vec<Load>,
    analysed: Option<Analysis>,
    one: Vec<Took>,
    all: Vec<Took>,
    without_requests: Vec<Took>,
}

/// The run directory that is reported.
#[derive(Debug)]
struct Analysis {
    directory: PathBuf,
    without_requests: Option<PathBuf>,
    run: Run,
}

impl Side {
    fn new(vslice: &Path) -> anyhow::Result<Side> {
        let vslice = std::fs::canonicalize(vslice)
            .with_context(|| format!("no {}: `make dist` builds it", vslice.display()))?;
        let (one, all, without_requests) = (vec![], vec![], vec![]);
        Ok(Side { vslice, loads: vec![], analysed: None, one, all, without_requests })
    }

    /// Reports once on one pCPU, once on all, and once more without requests.
    fn report(&mut self, pcpu: PcpuId) -> anyhow::Result<()> {
        let analysed = self.analysed.as_ref().context("nothing to analyse")?;
        let report = |directory: &Path, pcpu| {
            let mut command = Command::new(&self.vslice);
            command.args(["report", "--json"]).arg(directory);
            child::run(&command, pcpu)
        };
        self.one.push(report(&analysed.directory, Some(pcpu))?);
        self.all.push(report(&analysed.directory, None)?);
        if let Some(directory) = &analysed.without_requests {
            self.without_requests.push(report(directory, Some(pcpu))?);
        }
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    fn millions_a_second(&self, took: &[Took]) -> Vec<f64> {
        let Some(analysed) = &self.analysed else { return Vec::new() };
        let events_count = analysed.run.events.events_count as f64;
        took.iter().map(|took| events_count / took.seconds / 1e6).collect()
    }

    /// By what a report takes longer with them. Where that is lost in the noise, there is no such rate.
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    fn millions_of_requests_a_second(&self) -> Vec<f64> {
        let Some(analysed) = &self.analysed else { return Vec::new() };
        let requests_count = analysed.run.requests_count as f64;
        let pairs = self.one.iter().zip(&self.without_requests);
        let longer =
            pairs.map(|(with, without)| with.processor_seconds - without.processor_seconds);
        longer.filter(|longer| *longer > 0.0).map(|longer| requests_count / longer / 1e6).collect()
    }

    fn of_loads(&self, of: impl Fn(&Load) -> f64) -> Vec<f64> {
        self.loads.iter().map(of).collect()
    }
}

/// Measures everything; `told` hears what is done.
pub(crate) fn run(
    asked: &Analysed,
    rounds: usize,
    window: Duration,
    told: &mut dyn FnMut(String),
) -> anyhow::Result<(Results, Option<reading::rounds::Results>)> {
    let load = machine::load()?;
    let _mounts = Mounts::note();
    let pcpu = Places::choose()?.measured;
    let scratch = tempfile::tempdir_in("/var/tmp").context("cannot make a directory")?;
    let mut now = Side::new(&asked.vslice)?;
    let mut parent =
        asked.parent.as_ref().map(|parent| Side::new(&parent.join("vslice"))).transpose()?;
    let mut fio_bytes = Vec::new();
    if let Some(directory) = &asked.run {
        let run = Run::of(&now.vslice, directory)?;
        let directory = directory.clone();
        now.analysed = Some(Analysis { directory, without_requests: None, run });
    } else {
        fio_bytes = record(asked, &mut now, parent.as_mut(), scratch.path(), told)?;
    }
    machine::raise_priority()?;
    let perf = reports(&mut now, parent.as_mut(), rounds, pcpu, told)?;
    let sides = Sides { now: &now, parent: parent.as_ref() };
    let mut rows = rows_of_reports(sides, &perf);
    rows.extend(rows_of_recordings(sides, &fio_bytes));
    let read = match asked.run {
        Some(_) => None,
        None => {
            let tasks = reading::task::ALL.to_vec();
            let older = asked.parent.as_ref().map(|parent| parent.join("reader"));
            let schedule = reading::rounds::Schedule { tasks, rounds, window, target: None, older };
            Some(schedule.run(&mut |round| told(format!("reading {round} of {rounds}")))?)
        }
    };
    rows.extend(read.iter().flat_map(|read| &read.rows).map(row_of_reading));
    let analysed = now.analysed.context("nothing was analysed")?;
    let results = Results {
        rows,
        rounds,
        recordings: now.loads.len(),
        events_count: analysed.run.events.events_count,
        requests_count: analysed.run.requests_count,
        older_commit: asked.parent.as_deref().and_then(commit_of),
        load: [load, machine::load()?],
    };
    Ok((results, read))
}

/// What tests/bench/parent has written beside its programs.
fn commit_of(older: &Path) -> Option<String> {
    let text = std::fs::read_to_string(older.join("commit")).ok()?;
    Some(text.trim().to_owned())
}

/// Records the load by each vslice in turn; comes back with the bytes of fio's log for a request.
fn record(
    asked: &Analysed,
    now: &mut Side,
    mut parent: Option<&mut Side>,
    scratch: &Path,
    told: &mut dyn FnMut(String),
) -> anyhow::Result<Vec<f64>> {
    let setting = Setting { image: &asked.image, total: &asked.total, scratch };
    let mut fio_bytes = Vec::new();
    for number in 0..asked.recordings {
        told(format!("recording {} of {}", number + 1, asked.recordings));
        for (name, side) in [("now", Some(&mut *now)), ("parent", parent.as_deref_mut())] {
            let Some(side) = side else { continue };
            let name = format!("{name}-{number}");
            side.loads.push(recording::record(&setting, &side.vslice, &name)?);
        }
        fio_bytes.push(recording::fio_log_bytes_a_request(scratch)?);
    }
    for side in [Some(now), parent].into_iter().flatten() {
        side.analysed = Some(last(side)?);
    }
    Ok(fio_bytes)
}

/// Reports in turn, the older vslice first in every second round; comes back with what perf took for its own.
fn reports(
    now: &mut Side,
    mut parent: Option<&mut Side>,
    rounds: usize,
    pcpu: PcpuId,
    told: &mut dyn FnMut(String),
) -> anyhow::Result<OfPerf> {
    let mut took = Vec::new();
    for round in 0..rounds {
        told(format!("report {} of {rounds}", round + 1));
        let mut sides = [Some(&mut *now), parent.as_deref_mut()];
        if !round.is_multiple_of(2) {
            sides.reverse();
        }
        for side in sides.into_iter().flatten() {
            side.report(pcpu)?;
        }
        if let Some(load) = now.loads.last() {
            took.push(timehist(&load.perf_data, pcpu)?);
        }
    }
    Ok(OfPerf { took, events_count: now.loads.last().map_or(0, |load| load.perf.events_count) })
}

fn last(side: &Side) -> anyhow::Result<Analysis> {
    let load = side.loads.last().context("nothing was recorded")?;
    let target = load.directory.with_extension("without-requests");
    recording::without_requests(&load.directory, &target)?;
    let directory = load.directory.clone();
    Ok(Analysis { directory, without_requests: Some(target), run: load.run })
}

/// `perf sched timehist -s` of what perf recorded.
fn timehist(data: &Path, pcpu: PcpuId) -> anyhow::Result<Took> {
    let mut command = Command::new("perf");
    command.args(["sched", "timehist", "--summary", "--input"]).arg(data);
    child::run(&command, Some(pcpu))
}

/// What perf's reports took.
struct OfPerf {
    took: Vec<Took>,
    events_count: u64,
}

impl OfPerf {
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    fn millions_a_second(&self) -> Vec<f64> {
        let rate = |took: &Took| self.events_count as f64 / took.seconds / 1e6;
        self.took.iter().map(rate).collect()
    }
}

/// How many times as fast as on one pCPU it shall be on all: three times on four, and so three quarters of
/// fewer.
fn scaling() -> f64 {
    let pcpus_count = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    u32::try_from(pcpus_count).map_or(1.0, |count| (0.75 * f64::from(count)).max(1.0))
}

/// Both columns of vslice.
#[derive(Clone, Copy)]
struct Sides<'a> {
    now: &'a Side,
    parent: Option<&'a Side>,
}

impl Sides<'_> {
    /// A row without a rival.
    fn row(
        self,
        name: &str,
        (better, goal): (Better, Goal),
        places: usize,
        of: impl Fn(&Side) -> Vec<f64>,
    ) -> Row {
        Row {
            name: name.to_owned(),
            better,
            goal,
            places,
            parent: self.parent.map(&of).unwrap_or_default(),
            now: of(self.now),
            rival: None,
            missing: None,
        }
    }
}

/// The same row beside somebody, if he was measured.
fn beside(row: Row, name: &'static str, values: Vec<f64>) -> Row {
    Row { rival: Some(Rival { name, values }).filter(|rival| !rival.values.is_empty()), ..row }
}

fn at_least(goal: f64) -> (Better, Goal) {
    (Better::More, Goal::Figure(goal))
}

fn at_most(goal: f64) -> (Better, Goal) {
    (Better::Less, Goal::Figure(goal))
}

/// The rows of reports.
fn rows_of_reports(sides: Sides<'_>, perf: &OfPerf) -> Vec<Row> {
    let peaks = |took: &[Took]| took.iter().map(|took| took.peak_mib).collect::<Vec<_>>();
    let one = |side: &Side| side.millions_a_second(&side.one);
    let all = |side: &Side| side.millions_a_second(&side.all);
    let timehist = "perf sched timehist -s";
    let name = "analyse events on one pCPU, million/s";
    let on_one = sides.row(name, at_least(10.0), 2, one);
    let name = "the same on all pCPUs, million/s";
    let on_all = sides.row(name, (Better::More, Goal::Ratio(scaling())), 2, all);
    let join = Side::millions_of_requests_a_second;
    let joined = sides.row("join requests, million/s", at_least(5.0), 2, join);
    let memory = sides.row("memory of a report, MiB", at_most(64.0), 1, |side| peaks(&side.all));
    vec![
        beside(on_one, timehist, perf.millions_a_second()),
        beside(on_all, "on one pCPU", one(sides.now)),
        Row { missing: Some("no run without requests, or lost in the noise".to_owned()), ..joined },
        beside(memory, timehist, peaks(&perf.took)),
    ]
}

/// The rows of recordings; none if none was made.
fn rows_of_recordings(sides: Sides<'_>, fio_bytes: &[f64]) -> Vec<Row> {
    if sides.now.loads.is_empty() {
        return Vec::new();
    }
    let rival = |of: fn(&Load) -> f64| sides.now.of_loads(of);
    let bytes = |side: &Side| side.of_loads(|load| load.run.events.bytes_an_event());
    let request_bytes = |side: &Side| side.of_loads(|load| load.run.bytes_a_request());
    let processor = |side: &Side| side.of_loads(|load| load.run.events.processor_us_an_event());
    let name = "collector's CPU time an event, us";
    let processor = sides.row(name, at_most(0.4), 2, processor);
    let of_trace_cmd = rival(|load| load.trace_cmd.bytes_an_event());
    let of_perf = rival(|load| load.perf.processor_us_an_event());
    vec![
        beside(
            sides.row("bytes an event on disk", at_most(3.5), 2, bytes),
            "trace-cmd, zstd",
            of_trace_cmd,
        ),
        beside(
            sides.row("bytes a request on disk", at_most(4.5), 2, request_bytes),
            "fio's log",
            fio_bytes.to_vec(),
        ),
        beside(processor.clone(), "perf record", of_perf),
        beside(processor, "trace-cmd record", rival(|load| load.trace_cmd.processor_us_an_event())),
    ]
}

/// The guest's reader, whose own table has more of it.
fn row_of_reading(row: &reading::rounds::Row) -> Row {
    let pairs = row.measured.as_deref().unwrap_or_default();
    let (better, goal, places, rival) = match row.task {
        Task::Record => (Better::Less, Goal::Figure(35.0), 1, "fio's log"),
        Task::Read { engine: Engine::Psync, .. } => (Better::More, Goal::Ratio(1.0), 0, "fio"),
        Task::Read { engine: Engine::IoUring, .. } => (Better::More, Goal::Ratio(1.2), 0, "fio"),
    };
    Row {
        name: row.task.to_string(),
        better,
        goal,
        places,
        parent: pairs.iter().filter_map(|pair| pair.older).collect(),
        now: pairs.iter().map(|pair| pair.vslice.value).collect(),
        rival: Some(Rival { name: rival, values: pairs.iter().map(|pair| pair.fio).collect() }),
        missing: row.measured.as_ref().err().cloned(),
    }
}
