//! `vslice report`: the report of a run directory, once more.

use super::terminal::style;
use anyhow::Context;
use clap::Args;
use std::io::Write;
use std::path::PathBuf;
use vslice::report::Summary;
use vslice::report::render_full;
use vslice::run::analyse::analyse;

/// The arguments of `vslice report`.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// A run directory, as `vslice run` leaves it
    run: PathBuf,
    /// Print the summary as JSON (schema vslice.summary/3)
    #[arg(long)]
    json: bool,
}

pub(super) fn execute(args: &ReportArgs) -> anyhow::Result<u8> {
    let summary =
        analyse(&args.run).with_context(|| format!("no report of {}", args.run.display()))?;
    print(&summary, args.json)?;
    Ok(0)
}

/// Prints a summary on standard output.
pub(super) fn print(summary: &Summary, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, summary)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", render_full(summary, style(&out)))?;
    }
    Ok(())
}
