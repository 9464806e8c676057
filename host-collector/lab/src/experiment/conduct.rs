//! Conducts an experiment: each run by the means of `vslice run`, in a directory of its own. Runs that
//! are complete there already are not made again.

use super::directory::Directory;
use super::error::ExperimentError;
use super::matrix::{Cell, Matrix, alternating};
use super::record::{CellRecord, CellState, Experiment, MadeWith, RunRecord, record};
use super::{emission, offer};
use crate::disk::create_scratch;
use crate::emit::versions::QemuVersion;
use crate::image::MicroImage;
use crate::plan::{AcceleratorSetting, DiskPlan, Plan, PlanError, VsockSetting};
use crate::run::{RunError, RunOptions, prepare};
use crate::tools;
use indicatif::HumanDuration;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use vslice_core::text::sentence;
use vslice_host::host::qemu_version;
use vslice_host::scratch::{self, PrivateDir};
use vslice_record::EvidenceSetting;
use vslice_record::watcher::Watcher;
use vslice_report::analyse;

/// A disk to ask QEMU with.
const PROBE_BYTES: u64 = 1 << 20;

/// The options of an experiment beside its matrix.
#[derive(Debug, Clone, Copy)]
pub struct ExperimentOptions<'a> {
    /// Its directory, which is created, or which an interrupted experiment has left.
    pub output: &'a Path,
    /// The guest image's directory.
    pub image: &'a Path,
    /// The level of evidence about the guests' threads.
    pub evidence: EvidenceSetting,
    /// The guests' accelerator, instead of the plan's.
    pub accelerator: Option<AcceleratorSetting>,
    /// The transport between guests and collector, instead of the plan's.
    pub vsock: Option<VsockSetting>,
    /// The I/O scheduler of the host's disk, instead of the plan's.
    pub host_io_scheduler: Option<&'a str>,
    /// Is set to end the experiment early.
    pub interrupted: &'a AtomicBool,
}

/// Finds out which cells are possible, without creating anything.
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
    let image = MicroImage::in_directory(options.image).map(|image| image.manifest);
    let made_with = MadeWith {
        qemu: tools::find(tools::QEMU).and_then(|qemu| qemu_version(&qemu).ok()),
        image: image.unwrap_or_default(),
        evidence: Some(options.evidence),
    };
    let cells = cells(matrix, &plan)?;
    Ok(Experiment::new(matrix.clone(), plan, made_with, cells))
}

/// An experiment that is ready to run.
#[derive(Debug)]
pub struct Conductor<'a> {
    /// The experiment and its results so far.
    pub experiment: Experiment,
    options: &'a ExperimentOptions<'a>,
    directory: Directory,
}

impl<'a> Conductor<'a> {
    /// Finds out which cells are possible, and resumes what is in the directory.
    ///
    /// # Errors
    /// [`ExperimentError`]; no run was made then.
    pub fn prepare(
        matrix: &Matrix,
        options: &'a ExperimentOptions<'a>,
        watcher: &mut dyn Watcher,
    ) -> Result<Conductor<'a>, ExperimentError> {
        watcher.stage("asking QEMU which disks it supports");
        let mut experiment = look(matrix, options)?;
        let directory = Directory::open(options.output)?;
        if directory.goes_on(&experiment)? {
            take_runs(&mut experiment, &directory)?;
        }
        directory.write(&experiment)?;
        if experiment.cells.iter().all(|cell| matches!(cell.state, CellState::Impossible { .. })) {
            return Err(ExperimentError::NothingPossible);
        }
        Ok(Conductor { experiment, options, directory })
    }

    /// Makes the missing runs, alternating between cells. A run that ends early is recorded, and the
    /// others continue. `after` is told of the experiment after each of them.
    ///
    /// # Errors
    /// [`ExperimentError`]; what was done until then is in the directory.
    pub fn conduct(
        &mut self,
        watcher: &mut dyn Watcher,
        after: &mut dyn FnMut(&Experiment),
    ) -> Result<(), ExperimentError> {
        let is_done = |cell: &CellRecord, number| match &cell.state {
            CellState::Impossible { .. } => true,
            CellState::Possible { runs } => runs.iter().any(|run| run.number == number),
        };
        let experiment = &self.experiment;
        let order = alternating(experiment.cells.len(), experiment.matrix.repeat);
        let is_missing = |(place, n): &(usize, u16)| !is_done(&experiment.cells[*place], *n);
        let order: Vec<(usize, u16)> = order.into_iter().filter(is_missing).collect();
        let begun = Instant::now();
        for (index, (place, number)) in order.iter().enumerate() {
            let left = left(begun.elapsed(), index, order.len());
            watcher.stage(&format!(
                "run {} of {}{left}: {}, repeat {}",
                index + 1,
                order.len(),
                self.experiment.cells[*place].name,
                number
            ));
            let run = self.run(*place, *number, watcher)?;
            if let CellState::Possible { runs } = &mut self.experiment.cells[*place].state {
                runs.push(run);
                runs.sort_by_key(|run| run.number);
            }
            self.directory.write(&self.experiment)?;
            after(&self.experiment);
        }
        Ok(())
    }

    fn run(
        &self,
        place: usize,
        number: u16,
        watcher: &mut dyn Watcher,
    ) -> Result<RunRecord, ExperimentError> {
        let options = self.options;
        let cell = &self.experiment.cells[place];
        let plan = cell.cell.plan(&self.experiment.plan)?;
        let output = self.directory.run(&cell.name, number);
        let run_options = RunOptions {
            output: &output,
            image: options.image,
            evidence: options.evidence,
            interrupted: options.interrupted,
        };
        let interrupted = || ExperimentError::Interrupted { path: options.output.to_owned() };
        let prepared = match prepare(&plan, run_options, watcher) {
            Err(error) if error.is_interrupt() => return Err(interrupted()),
            prepared => prepared?,
        };
        self.emit(&prepared.settled_plan(), &cell.name)?;
        let conducted = prepared.conduct(watcher);
        // The host has back what was its own before the analysis, which may take a while.
        drop(prepared);
        if conducted.as_ref().is_err_and(RunError::is_interrupt) {
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

    /// Writes what a cell's VMs are for QEMU and libvirt, if it can be told for which QEMU.
    fn emit(&self, plan: &Plan, cell: &str) -> Result<(), ExperimentError> {
        let banner = self.experiment.made_with.qemu.as_deref();
        match banner.and_then(|banner| QemuVersion::from_banner(banner).ok()) {
            Some(version) => emission::write(plan, version, &self.directory.cell(cell)),
            None => Ok(()),
        }
    }
}

/// Notes the runs that are complete, and puts the others aside to be made again.
fn take_runs(experiment: &mut Experiment, directory: &Directory) -> Result<(), ExperimentError> {
    for of_cell in &mut experiment.cells {
        let CellState::Possible { runs } = &mut of_cell.state else { continue };
        let plan = of_cell.cell.plan(&experiment.plan)?;
        for number in 1..=experiment.matrix.repeat {
            if let Some(summary) = directory.complete(&of_cell.name, number)? {
                runs.push(record(&of_cell.cell, &plan, number, None, Some(&summary)));
            }
        }
    }
    Ok(())
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

/// How long the rest will take, if that can be told.
fn left(elapsed: Duration, done_count: usize, all_count: usize) -> String {
    if done_count == 0 {
        return String::new();
    }
    let left = elapsed.mul_f64((all_count - done_count) as f64 / done_count as f64);
    format!(" (about {} left)", HumanDuration(left))
}
