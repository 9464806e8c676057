//! Conducts an experiment: each run by the means of `vslice run`, in a directory of its own. Runs that
//! are complete there already are not made again.

use super::error::ExperimentError;
use super::matrix::{Cell, Dataplane, Matrix, alternating};
use super::{emission, offer};
use crate::lab::disk::create_scratch;
use crate::lab::emit::versions::QemuVersion;
use crate::lab::plan::{AcceleratorSetting, DiskPlan, Plan, PlanError, VsockSetting};
use crate::lab::scratch::{self, PrivateDir};
use crate::lab::tools;
use crate::report::Summary;
use crate::report::model::RunStatus;
use crate::report::service::is_engaged;
use crate::run::watch::Watcher;
use crate::run::{EvidenceSetting, RunError, RunOptions, analyse, prepare, sentence};
use crate::vmm::host::qemu_version;
use indicatif::HumanDuration;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// The `schema` of `experiment.json`.
pub const SCHEMA: &str = "vslice.experiment/1";

/// A disk to ask QEMU with.
const PROBE_BYTES: u64 = 1 << 20;

/// What an experiment is told beside its matrix.
#[derive(Debug, Clone, Copy)]
pub struct ExperimentOptions<'a> {
    /// Its directory, made by it, or of an earlier part of it.
    pub output: &'a Path,
    /// The guest image's directory.
    pub image: &'a Path,
    /// How well the guests' threads must be seen.
    pub evidence: EvidenceSetting,
    /// What runs the guests.
    pub accelerator: Option<AcceleratorSetting>,
    /// How the guests reach the collector.
    pub vsock: Option<VsockSetting>,
    /// The I/O scheduler of the host's disk, instead of what the plan says.
    pub host_io_scheduler: Option<&'a str>,
    /// Set from outside when it shall end early.
    pub interrupted: &'a AtomicBool,
}

/// What `experiment.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Experiment {
    /// [`SCHEMA`].
    pub schema: String,
    /// The matrix.
    pub matrix: Matrix,
    /// The plan that all cells start from.
    pub plan: Plan,
    /// Every cell.
    pub cells: Vec<CellRecord>,
}

/// One condition, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellRecord {
    /// Its name, and that of its directory.
    pub name: String,
    /// What it is.
    pub cell: Cell,
    /// What became of it.
    #[serde(flatten)]
    pub state: CellState,
}

/// What became of a cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum CellState {
    /// It cannot be.
    Impossible {
        /// Why, a sentence.
        reason: String,
    },
    /// It is run.
    Possible {
        /// The runs that were made, by their numbers.
        runs: Vec<RunRecord>,
    },
}

/// One run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// From 1.
    pub number: u16,
    /// Why it ended early; `None` if it did not.
    pub ended_early: Option<String>,
    /// Whether the iothreads served the disk, if the cell has some and a request was made: else the run
    /// proves nothing.
    pub engaged: Option<bool>,
}

impl Experiment {
    /// Each condition with an iothread beside the one that differs from it in that alone, by their names.
    /// Whose iothreads were not woken proves nothing of iothreads, and is in no pair.
    #[must_use]
    pub fn pairs(&self) -> Vec<(&str, &str)> {
        let counts = |record: &&CellRecord| {
            let CellState::Possible { runs } = &record.state else { return false };
            !runs.is_empty() && runs.iter().all(|run| run.engaged != Some(false))
        };
        let with = self.cells.iter().filter(|record| record.cell.dataplane != Dataplane::Off);
        let pair = |with: &'_ CellRecord| {
            let off = Cell { dataplane: Dataplane::Off, ..with.cell };
            self.cells.iter().filter(counts).find(|record| record.cell == off)
        };
        let pairs = with.filter(counts).filter_map(|with| Some((pair(with)?, with)));
        pairs.map(|(off, with)| (off.name.as_str(), with.name.as_str())).collect()
    }
}

impl CellRecord {
    /// Whether a run of it ended early, or was not served where it should be.
    #[must_use]
    pub fn is_unsound(&self) -> bool {
        let CellState::Possible { runs } = &self.state else { return false };
        runs.iter().any(|run| run.ended_early.is_some() || run.engaged == Some(false))
    }
}

impl Experiment {
    /// Which cells can be, and which not; nothing is made.
    ///
    /// # Errors
    /// [`ExperimentError`].
    pub fn look(
        matrix: &Matrix,
        options: &ExperimentOptions<'_>,
    ) -> Result<Experiment, ExperimentError> {
        let mut plan = matrix.base_plan()?;
        plan.accelerator = options.accelerator.unwrap_or(plan.accelerator);
        plan.vsock = options.vsock.unwrap_or(plan.vsock);
        let scheduler = options.host_io_scheduler.map(str::to_owned);
        plan.host_io_scheduler = scheduler.or(plan.host_io_scheduler);
        plan.host_io_scheduler = plan.host_io_scheduler().map(str::to_owned);
        plan.check()?;
        let cells = cells(matrix, &plan)?;
        Ok(Experiment { schema: SCHEMA.to_owned(), matrix: matrix.clone(), plan, cells })
    }

    /// Finds out which cells can be, and goes on with what is in the directory.
    ///
    /// # Errors
    /// [`ExperimentError`]; no run was made then.
    pub fn prepare(
        matrix: &Matrix,
        options: &ExperimentOptions<'_>,
        watcher: &mut dyn Watcher,
    ) -> Result<Experiment, ExperimentError> {
        watcher.stage("asking QEMU which disks it has");
        let mut experiment = Experiment::look(matrix, options)?;
        experiment.take_up(options.output)?;
        if experiment.cells.iter().all(|cell| matches!(cell.state, CellState::Impossible { .. })) {
            return Err(ExperimentError::NothingPossible);
        }
        Ok(experiment)
    }

    /// Makes the runs that are missing, in turn. A run that ends early is noted, and the others go on.
    ///
    /// # Errors
    /// [`ExperimentError`]; what was done until then is in the directory.
    pub fn conduct(
        &mut self,
        options: &ExperimentOptions<'_>,
        watcher: &mut dyn Watcher,
    ) -> Result<(), ExperimentError> {
        let is_done = |cell: &CellRecord, number| match &cell.state {
            CellState::Impossible { .. } => true,
            CellState::Possible { runs } => runs.iter().any(|run| run.number == number),
        };
        let order = alternating(self.cells.len(), self.matrix.repeat);
        let order: Vec<(usize, u16)> =
            order.into_iter().filter(|(place, n)| !is_done(&self.cells[*place], *n)).collect();
        let begun = Instant::now();
        for (index, (place, number)) in order.iter().enumerate() {
            let left = left(begun.elapsed(), index, order.len());
            watcher.stage(&format!(
                "run {} of {}{left}: {} for the {}. time",
                index + 1,
                order.len(),
                self.cells[*place].name,
                number
            ));
            let run = self.run(*place, *number, options, watcher)?;
            if let CellState::Possible { runs } = &mut self.cells[*place].state {
                runs.push(run);
                runs.sort_by_key(|run| run.number);
            }
            self.write(options.output)?;
        }
        Ok(())
    }

    fn run(
        &self,
        place: usize,
        number: u16,
        options: &ExperimentOptions<'_>,
        watcher: &mut dyn Watcher,
    ) -> Result<RunRecord, ExperimentError> {
        let cell = &self.cells[place];
        let plan = cell.cell.plan(&self.plan)?;
        let output = run_path(options.output, &cell.name, number);
        let run_options = RunOptions {
            output: &output,
            image: options.image,
            evidence: options.evidence,
            interrupted: options.interrupted,
        };
        let interrupted = || ExperimentError::Interrupted { path: options.output.to_owned() };
        let prepared = match prepare(&plan, run_options, watcher) {
            Err(RunError::Interrupted) => return Err(interrupted()),
            prepared => prepared?,
        };
        let conducted = prepared.conduct(watcher);
        // The host has back what was its own before the analysis, which may take a while.
        drop(prepared);
        if matches!(conducted, Err(RunError::Interrupted)) {
            return Err(interrupted());
        }
        let analysed = analyse(&output);
        let ended_early = match (&conducted, &analysed) {
            (Err(error), _) => Some(sentence(error)),
            (_, Err(error)) => Some(sentence(error)),
            _ => None,
        };
        Ok(record(&cell.cell, &plan, number, ended_early, analysed.ok().as_ref()))
    }

    /// Takes what an earlier part of this experiment has left, or begins the directory.
    fn take_up(&mut self, output: &Path) -> Result<(), ExperimentError> {
        let other = || ExperimentError::Other { path: output.to_owned() };
        let path = output.join("experiment.json");
        match fs::read(&path) {
            Ok(bytes) => {
                let before: Experiment = serde_json::from_slice(&bytes).map_err(|_| other())?;
                if before.matrix.cells() != self.matrix.cells() || before.plan != self.plan {
                    return Err(other());
                }
                self.take_runs(output)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let doing = "create the directory";
                fs::create_dir_all(output).map_err(|source| io_error(doing, output, source))?;
                let mut entries =
                    fs::read_dir(output).map_err(|source| io_error("list", output, source))?;
                if entries.next().is_some() {
                    return Err(other());
                }
            }
            Err(source) => return Err(io_error("read", &path, source)),
        }
        self.emit(output)?;
        self.write(output)
    }

    /// Writes what each cell is for QEMU and libvirt, if it can be told for which QEMU.
    fn emit(&self, output: &Path) -> Result<(), ExperimentError> {
        let banner = tools::find(tools::QEMU).and_then(|qemu| qemu_version(&qemu));
        let version = banner.and_then(|banner| QemuVersion::from_banner(&banner).ok());
        let Some(version) = version else { return Ok(()) };
        let possible = |cell: &&CellRecord| matches!(cell.state, CellState::Possible { .. });
        for cell in self.cells.iter().filter(possible) {
            emission::write(&cell.cell, &self.plan, version, &output.join(&cell.name))?;
        }
        Ok(())
    }

    /// Notes the runs that are complete, and puts the others aside to be made again.
    fn take_runs(&mut self, output: &Path) -> Result<(), ExperimentError> {
        for record_of_cell in &mut self.cells {
            let CellState::Possible { runs } = &mut record_of_cell.state else { continue };
            let plan = record_of_cell.cell.plan(&self.plan)?;
            for number in 1..=self.matrix.repeat {
                let path = run_path(output, &record_of_cell.name, number);
                if !path.exists() {
                    continue;
                }
                match analyse(&path) {
                    Ok(summary) if summary.status == RunStatus::Complete => {
                        let cell = &record_of_cell.cell;
                        runs.push(record(cell, &plan, number, None, Some(&summary)));
                    }
                    _ => put_aside(&path)?,
                }
            }
        }
        Ok(())
    }

    fn write(&self, output: &Path) -> Result<(), ExperimentError> {
        let path = output.join("experiment.json");
        let text = serde_json::to_vec_pretty(self).expect("it has string keys only");
        // Replaced as a whole, so that whoever is killed meanwhile leaves the one before.
        let new = output.join("experiment.json.new");
        fs::write(&new, text).map_err(|source| io_error("write", &new, source))?;
        fs::rename(&new, &path).map_err(|source| io_error("write", &path, source))
    }
}

/// Where a run is.
#[must_use]
pub fn run_path(output: &Path, cell: &str, number: u16) -> PathBuf {
    output.join(cell).join(format!("run-{number}"))
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> ExperimentError {
    ExperimentError::Io { doing, path: path.to_owned(), source }
}

/// Every cell of the matrix, with why it cannot be or room for its runs.
fn cells(matrix: &Matrix, plan: &Plan) -> Result<Vec<CellRecord>, ExperimentError> {
    let qemu = tools::find(tools::QEMU).ok_or(RunError::NoQemu)?;
    let directory = PrivateDir::create(&scratch::parent_dir())?;
    let image = directory.path().join("probe.raw");
    create_scratch(&image, &DiskPlan::of_size(PROBE_BYTES), &AtomicBool::new(false))?;
    let state = |cell: &Cell| {
        let offered = match cell.plan(plan) {
            Err(PlanError::Impossible { problem, .. }) => Err(problem.to_string()),
            Err(error) => Err(error.to_string()),
            Ok(plan) => plan
                .vms
                .iter()
                .filter_map(|vm| vm.disk.as_ref())
                .try_for_each(|disk| offer::takes(&qemu, disk, &image)),
        };
        match offered {
            Ok(()) => CellState::Possible { runs: Vec::new() },
            Err(reason) => CellState::Impossible { reason },
        }
    };
    let record = |cell: Cell| CellRecord { name: cell.to_string(), state: state(&cell), cell };
    Ok(matrix.cells().into_iter().map(record).collect())
}

/// What became of a run.
fn record(
    cell: &Cell,
    plan: &Plan,
    number: u16,
    ended_early: Option<String>,
    summary: Option<&Summary>,
) -> RunRecord {
    let reader = plan.vms.iter().find(|vm| vm.reader.is_some());
    // Who rang no doorbell has not shown that none would have been heard.
    let engaged = summary
        .filter(|summary| summary.requests.count > 0)
        .zip(reader)
        .map(|(summary, vm)| is_engaged(&summary.service, &vm.name, summary.requests.count));
    let engaged = engaged.filter(|_| cell.dataplane != Dataplane::Off);
    RunRecord { number, ended_early, engaged }
}

/// Out of the way of a run that is made anew, and of whoever looks for runs.
fn put_aside(path: &Path) -> Result<(), ExperimentError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let aside = parent.join("ended-early");
    fs::create_dir_all(&aside)
        .map_err(|source| io_error("create the directory", &aside, source))?;
    let numbered = |count: u32| {
        let mut name = name.to_owned();
        name.push(format!("-{count}"));
        aside.join(name)
    };
    let mut count = 1;
    while numbered(count).exists() {
        count += 1;
    }
    fs::rename(path, numbered(count)).map_err(|source| io_error("move", path, source))
}

/// How long the rest will take, if that can be told.
fn left(elapsed: Duration, done_count: usize, all_count: usize) -> String {
    if done_count == 0 {
        return String::new();
    }
    let left = elapsed.mul_f64((all_count - done_count) as f64 / done_count as f64);
    format!(" (about {} left)", HumanDuration(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its guest may have died before.
    #[test]
    fn a_run_without_requests_makes_no_condition_void() {
        let matrix = Matrix::load("quick").expect("built in");
        let plan = matrix.base_plan().expect("built in");
        let mut summary = crate::report::example::summary();
        summary.service.clear();
        let engaged =
            |summary: &Summary, cell: Cell| record(&cell, &plan, 1, None, Some(summary)).engaged;
        let [off, iothread] = [matrix.cells()[0], matrix.cells()[1]];
        assert_eq!(engaged(&summary, iothread), Some(false));
        assert_eq!(engaged(&summary, off), None);
        summary.requests.count = 0;
        assert_eq!(engaged(&summary, iothread), None);
    }

    #[test]
    fn a_void_condition_is_in_no_pair() {
        let matrix = Matrix::load("quick").expect("built in");
        let plan = matrix.base_plan().expect("built in");
        let record = |cell: Cell, engaged| CellRecord {
            name: cell.to_string(),
            cell,
            state: CellState::Possible {
                runs: vec![RunRecord { number: 1, ended_early: None, engaged }],
            },
        };
        let experiment = |engaged| {
            let cells = matrix.cells();
            let cells = vec![record(cells[0], None), record(cells[1], Some(engaged))];
            let (matrix, plan) = (matrix.clone(), plan.clone());
            Experiment { schema: SCHEMA.to_owned(), matrix, plan, cells }
        };
        let pair = ("virtio-blk.off.native.none", "virtio-blk.iothread.native.none");
        assert_eq!(experiment(true).pairs(), [pair]);
        assert!(experiment(false).pairs().is_empty());
    }
}
