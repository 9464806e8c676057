//! `vslice experiment`: a plan under several conditions, in turn.

mod outcome;

use self::outcome::{Outcome, heading};
use super::exports::{can_write, write_page};
use super::run::{default_output, interrupts, watcher};
use super::terminal::style;
use anyhow::{Context, bail};
use clap::Args;
use std::io::Write;
use std::path::{Path, PathBuf};
use vslice_core::text::sentence;
use vslice_lab::experiment::{
    CellState, Conductor, Experiment, ExperimentError, ExperimentOptions, Matrix, look,
};
use vslice_lab::plan::{AcceleratorSetting, VsockSetting};
use vslice_lab::quantity::parse_bytes;
use vslice_record::EvidenceSetting;

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
    /// Write FILE: the conditions side by side as a page to look at, which holds all that it needs; anew after each
    /// round of runs
    #[arg(long, value_name = "FILE", conflicts_with = "list")]
    html: Option<PathBuf>,
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
        if args.json {
            print_json(&experiment)?;
        } else {
            write!(std::io::stdout(), "{}", heading(&experiment, true))?;
        }
        return Ok(0);
    }
    args.html.as_deref().map_or(Ok(()), can_write)?;
    let mut watcher = watcher();
    let mut conductor = Conductor::prepare(&matrix, &options, watcher.as_mut())
        .map_err(|error| anyhow::anyhow!("nothing was run: {}", sentence(&error)))?;
    let conducted = conductor.conduct(watcher.as_mut(), &mut |experiment| {
        if let Some(html) = &args.html {
            keep_page(experiment, &output, html);
        }
    });
    drop(watcher);
    print(&conductor.experiment, &output, args)?;
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

fn print(experiment: &Experiment, output: &Path, args: &ExperimentArgs) -> anyhow::Result<()> {
    if args.json {
        print_json(experiment)?;
        if args.html.is_none() {
            return Ok(());
        }
    }
    let outcome = Outcome::load(experiment, output);
    if !args.json {
        let mut out = std::io::stdout().lock();
        write!(out, "{}", outcome.text(style(&out)))?;
    }
    args.html.as_deref().map_or(Ok(()), |html| write_page(&outcome.page(), html))
}

fn print_json(experiment: &Experiment) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, experiment)?;
    writeln!(out)?;
    Ok(())
}

/// Writes the page of what is there after each round, so that it can be looked at while the others are made.
fn keep_page(experiment: &Experiment, output: &Path, html: &Path) {
    let runs = experiment.cells.iter().filter_map(|cell| match &cell.state {
        CellState::Impossible { .. } => None,
        CellState::Possible { runs } => Some(runs.len()),
    });
    let runs: Vec<usize> = runs.collect();
    let made = runs.first().copied().unwrap_or(0);
    if runs.iter().all(|count| *count == made) && made < usize::from(experiment.matrix.repeat) {
        // What goes wrong with it is told at the end, where it is written again.
        let _ = write_page(&Outcome::load(experiment, output).page(), html);
    }
}
