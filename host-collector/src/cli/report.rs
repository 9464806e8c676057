//! `vslice report`: the report of a run directory, once more.

use anyhow::Context;
use clap::Args;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use vslice::report::Summary;
use vslice::report::text::{Style, render};
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
        write!(out, "{}", render(summary, style(&out)))?;
    }
    Ok(())
}

/// How a page is printed there: in colour on a terminal unless `NO_COLOR` is set
/// (<https://no-color.org>).
pub(super) fn style(out: &impl IsTerminal) -> Style {
    Style { width: 100, colour: out.is_terminal() && std::env::var_os("NO_COLOR").is_none() }
}
