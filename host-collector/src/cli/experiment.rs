//! `vslice experiment`: a plan under several conditions, in turn.

use super::run::{default_output, interrupts, watcher};
use super::terminal::{shown, style};
use anyhow::{Context, bail};
use clap::Args;
use std::io::Write;
use std::path::{Path, PathBuf};
use vslice_core::text::sentence;
use vslice_lab::experiment::{
    CellRecord, CellState, Conductor, Experiment, ExperimentError, ExperimentOptions, Matrix, look,
    overview,
};
use vslice_lab::plan::{AcceleratorSetting, VsockSetting};
use vslice_lab::quantity::parse_bytes;
use vslice_record::EvidenceSetting;
use vslice_report::compare::{Comparison, Side, load};

/// The arguments of `vslice experiment`.
#[derive(Debug, Args)]
#[command(after_help = "\
A matrix is a TOML file with a plan, and lists of disks, dataplanes (iothreads), aio modes and cache \
modes. Each combination is a condition; one that QEMU does not support here is listed with QEMU's error \
message. Runs alternate (A B B A ...), so that drift in the host favours no condition. Ctrl-C ends the \
experiment in order; the same command with the same --output resumes it.

Examples:
  vslice experiment quick                         a few minutes: virtio-blk and IDE, with and without an iothread
  vslice experiment seed --list                   its conditions, and why some are not available here
  vslice experiment seed --plan demo --total 16MiB  every disk, on a host with only two pCPUs
  vslice experiment mine.toml --repeat 10 -o mine")]
pub(crate) struct ExperimentArgs {
    /// A built-in matrix (quick, seed) or a TOML file
    matrix: String,
    /// Run each condition this many times, instead of the matrix's repeat
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    repeat: Option<u16>,
    /// Run this plan (a built-in one or a TOML file) instead of the matrix's plan
    #[arg(long, value_name = "PLAN")]
    plan: Option<String>,
    /// Read this much in each run, such as 64MiB, instead of the matrix's total
    #[arg(long = "total", value_name = "SIZE", value_parser = parse_bytes)]
    total_bytes: Option<u64>,
    /// Create the directory here instead of runs/MATRIX-SECONDS, or resume the experiment that is here
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Only list the conditions, including those that are not available here
    #[arg(long)]
    list: bool,
    /// Guest image to boot, as `make image` builds it
    #[arg(long, value_name = "DIR", env = "VSLICE_IMAGE", default_value = "target/images/micro")]
    image: PathBuf,
    /// I/O scheduler to set meanwhile on the host disk that holds the guests' images; keep: leave it as
    /// it is
    #[arg(long, value_name = "NAME")]
    host_io_scheduler: Option<String>,
    /// Accelerator that runs the guests
    #[arg(long)]
    accelerator: Option<AcceleratorSetting>,
    /// Transport between vslice and the guests
    #[arg(long)]
    vsock: Option<VsockSetting>,
    /// How the guests' threads are observed; an error if this host does not allow it
    #[arg(long, value_name = "LEVEL", default_value = "recorded")]
    evidence: EvidenceSetting,
    /// Print experiment.json
    #[arg(long)]
    json: bool,
}

pub(super) fn execute(args: &ExperimentArgs) -> anyhow::Result<u8> {
    let mut matrix = Matrix::load(&args.matrix)?;
    matrix.repeat = args.repeat.unwrap_or(matrix.repeat);
    matrix.plan = args.plan.clone().unwrap_or(matrix.plan);
    matrix.total_bytes = args.total_bytes.unwrap_or(matrix.total_bytes);
    let output = match &args.output {
        Some(output) => output.clone(),
        None => default_output(&matrix.name)?,
    };
    let interrupted = interrupts()?;
    let options = ExperimentOptions {
        output: &output,
        image: &args.image,
        evidence: args.evidence,
        accelerator: args.accelerator,
        vsock: args.vsock,
        host_io_scheduler: args.host_io_scheduler.as_deref(),
        interrupted: &interrupted,
    };
    if args.list {
        let experiment = look(&matrix, &options)?;
        return print(&experiment, None, args.json).map(|()| 0);
    }
    let mut watcher = watcher();
    let mut conductor = Conductor::prepare(&matrix, &options, watcher.as_mut())
        .map_err(|error| anyhow::anyhow!("nothing was run: {}", sentence(&error)))?;
    let conducted = conductor.conduct(watcher.as_mut());
    drop(watcher);
    print(&conductor.experiment, Some(&output), args.json)?;
    match conducted {
        Err(error @ ExperimentError::Interrupted { .. }) => Err(error.into()),
        conducted => {
            conducted
                .with_context(|| format!("the experiment in {} ended early", output.display()))?;
            refuse_unsound(&conductor.experiment)
        }
    }
}

/// An error if runs of the experiment ended early or prove nothing.
fn refuse_unsound(experiment: &Experiment) -> anyhow::Result<u8> {
    let unsound = experiment.cells.iter().filter(|cell| cell.is_unsound()).count();
    if unsound > 0 {
        bail!("{unsound} of the conditions are not sound: see above");
    }
    Ok(0)
}

fn print(experiment: &Experiment, output: Option<&Path>, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, experiment)?;
        writeln!(out)?;
        return Ok(());
    }
    let matrix = &experiment.matrix;
    writeln!(out, "Experiment {}: {}", matrix.name, matrix.description)?;
    let width = experiment.cells.iter().map(|cell| cell.name.len()).max().unwrap_or(0);
    for cell in &experiment.cells {
        writeln!(
            out,
            "  {:width$}  {}",
            cell.name,
            shown(&outcome(cell, matrix.repeat, output.is_none()))
        )?;
    }
    let Some(output) = output else { return Ok(()) };
    // A condition without a usable run is already listed above.
    let side = |name: &str| load(&output.join(name)).ok();
    let names = experiment.cells.iter().map(|cell| cell.name.as_str());
    let sides: Vec<(&str, Side)> = names.filter_map(|name| Some((name, side(name)?))).collect();
    write!(out, "\n{}", overview::render(&sides, style(&out)))?;
    let side = |name: &str| sides.iter().find(|(of, _)| *of == name).map(|(_, side)| side.clone());
    for (off, with) in experiment.pairs() {
        let (Some(a), Some(b)) = (side(off), side(with)) else { continue };
        let comparison = Comparison::new(a, b);
        let claim = comparison.claim.map(|claim| claim.sentence);
        let sentence = claim.unwrap_or(comparison.answer.sentence);
        writeln!(out, "\nA {off} against B {with}:\n  {sentence}")?;
    }
    writeln!(
        out,
        "\nthe runs are in {0}; to compare two conditions in full: vslice compare {0}/A {0}/B",
        output.display()
    )?;
    Ok(())
}

fn outcome(cell: &CellRecord, repeat: u16, is_list: bool) -> String {
    let runs = match &cell.state {
        CellState::Impossible { reason } => return format!("not available here: {reason}"),
        CellState::Possible { .. } if is_list => return format!("{repeat} runs"),
        CellState::Possible { runs } => runs,
    };
    let complete = runs.iter().filter(|run| run.ended_early.is_none()).count();
    let mut text = format!("{complete} of {repeat} runs");
    if let Some(reason) = runs.iter().find_map(|run| run.ended_early.as_ref()) {
        text.push_str(&format!("; one ended early: {reason}"));
    }
    if let Some(least) = runs.iter().filter_map(|run| run.engaged).max() {
        text.push_str(&format!("; {}", least.label()));
    }
    text
}
