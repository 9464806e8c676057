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
A matrix is a TOML file: the plan that is run, and lists of disks, dataplanes, ways to read the image and \
caches. Each combination is a condition; what QEMU does not have here is listed with its own words. Runs \
alternate (A B B A ...), so that what drifts in the host favours none. Ctrl-C ends it in order, and the \
same command with the same --output goes on where it was.

Examples:
  vslice experiment quick                         some minutes: virtio-blk and IDE, an iothread or not
  vslice experiment seed --list                   which conditions there are, and which not, and why
  vslice experiment seed --plan demo --total 16MiB  every disk, where there are only two pCPUs
  vslice experiment mine.toml --repeat 10 -o mine")]
pub(crate) struct ExperimentArgs {
    /// A built-in matrix (quick, seed) or a TOML file
    matrix: String,
    /// Run each condition so often, instead of what the matrix says
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    repeat: Option<u16>,
    /// Run this plan, a built-in one or a TOML file, instead of the one that the matrix names
    #[arg(long, value_name = "PLAN")]
    plan: Option<String>,
    /// Read this much in each run, as in 64MiB, instead of what the matrix says
    #[arg(long = "total", value_name = "SIZE", value_parser = parse_bytes)]
    total_bytes: Option<u64>,
    /// Make the directory here, instead of runs/MATRIX-SECONDS, or go on with the one that is here
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Only list the conditions, and what cannot be had here
    #[arg(long)]
    list: bool,
    /// Boot this guest image, as `make image` builds it
    #[arg(long, value_name = "DIR", env = "VSLICE_IMAGE", default_value = "target/images/micro")]
    image: PathBuf,
    /// Give the host's disk under the guests' images this I/O scheduler meanwhile; keep: none but its own
    #[arg(long, value_name = "NAME")]
    host_io_scheduler: Option<String>,
    /// Run the guests under this
    #[arg(long)]
    accelerator: Option<AcceleratorSetting>,
    /// Reach the guests in this way
    #[arg(long)]
    vsock: Option<VsockSetting>,
    /// See the guests' threads as well as this, or end with an error
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

/// An experiment of which runs ended early, or prove nothing, is none that came to its end.
fn refuse_unsound(experiment: &Experiment) -> anyhow::Result<u8> {
    let unsound = experiment.cells.iter().filter(|cell| cell.is_unsound()).count();
    if unsound > 0 {
        bail!("{unsound} of the conditions are not sound, see above");
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
    // A condition of which no run counts is told of above.
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
    writeln!(out, "\neverything is in {0}; see vslice compare {0}/A {0}/B", output.display())?;
    Ok(())
}

fn outcome(cell: &CellRecord, repeat: u16, is_list: bool) -> String {
    let runs = match &cell.state {
        CellState::Impossible { reason } => return format!("not here: {reason}"),
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
