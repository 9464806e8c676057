//! `vslice compare`: runs of two conditions against each other.

use super::complete;
use super::exports::{can_write, write_page};
use super::terminal::style;
use clap::Args;
use clap_complete::ArgValueCompleter;
use std::io::Write;
use std::path::PathBuf;
use vslice_export::comparison_page::ComparisonPage;
use vslice_report::compare::{Comparison, load, text};

/// The arguments of `vslice compare`.
#[derive(Debug, Args)]
#[command(after_help = "\
A and B are each a run directory, or a directory of run directories: the repeats of one condition. An \
effect is judged by the scatter between repeats, so make at least 4 runs on each side, alternating:

  for i in 1 2 3 4 5 6; do
    vslice run seed --output main-loop/$i
    vslice run seed --iothread true --output iothread/$i
  done
  vslice compare main-loop iothread")]
pub(crate) struct CompareArgs {
    /// The baseline: a run directory, or a directory of run directories
    #[arg(add = ArgValueCompleter::new(complete::run_directories))]
    a: PathBuf,
    /// The other condition: a run directory, or a directory of run directories
    #[arg(add = ArgValueCompleter::new(complete::run_directories))]
    b: PathBuf,
    /// Print JSON (schema vslice.comparison/2)
    #[arg(long)]
    json: bool,
    /// Write FILE: every run side by side as a page to look at, which holds all that it needs
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

pub(super) fn execute(args: &CompareArgs) -> anyhow::Result<u8> {
    args.html.as_deref().map_or(Ok(()), can_write)?;
    let (a, b) = (load(&args.a)?, load(&args.b)?);
    let comparison = Comparison::new(a.clone(), b.clone());
    if let Some(html) = &args.html {
        write_page(&ComparisonPage::of_two(&a, &b, &comparison), html)?;
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &comparison)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", text::render(&comparison, style(&out)))?;
    }
    Ok(0)
}
