//! `vslice report`: the report of a run directory, once more.

use super::terminal::style;
use anyhow::Context;
use clap::Args;
use std::io::Write;
use std::path::PathBuf;
use vslice::report::{Style, Summary, laws, render, render_full};
use vslice::run::analyse::analyse;

/// The arguments of `vslice report`.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// A run directory, as `vslice run` leaves it
    run: PathBuf,
    #[command(flatten)]
    form: Form,
}

/// What is printed of a run.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Form {
    /// Print every table, instead of a page with the answer
    #[arg(long, conflicts_with = "json")]
    full: bool,
    /// Print the summary as JSON (schema vslice.summary/3)
    #[arg(long)]
    json: bool,
}

pub(super) fn execute(args: &ReportArgs) -> anyhow::Result<u8> {
    let summary =
        analyse(&args.run).with_context(|| format!("no report of {}", args.run.display()))?;
    print(&summary, args.form)?;
    Ok(0)
}

/// Prints a summary on standard output; fails after that if it contradicts itself.
pub(super) fn print(summary: &Summary, form: Form) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let style = style(&out);
    print_to(&mut out, summary, form, style)
}

fn print_to(
    out: &mut impl Write,
    summary: &Summary,
    form: Form,
    style: Style,
) -> anyhow::Result<()> {
    if form.json {
        serde_json::to_writer_pretty(&mut *out, summary)?;
        writeln!(out)?;
    } else {
        let render = if form.full { render_full } else { render };
        write!(out, "{}", render(summary, style))?;
    }
    Ok(laws::check(summary)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vslice::report::evidence::Evidence;
    use vslice::report::model::{Accelerator, Cost, Environment, Lost, RunStatus};
    use vslice::report::{Facts, Names, SummaryBuilder};
    use vslice::units::HostNs;

    fn facts() -> Facts {
        Facts {
            plan: "demo".to_owned(),
            status: RunStatus::Complete,
            accelerator: Accelerator { name: "tcg".to_owned(), reason: "asked for".to_owned() },
            environment: Environment { lines: vec![], details: serde_json::Value::Null },
            measured_ns: 0,
            clocks: vec![],
            clocks_apart: vec![],
            disks: vec![],
            hidden: vec![],
            hogs: vec![],
            service: vec![],
            evidence: Evidence::default(),
            sampled: None,
            scheduled: vec![],
            lost: Lost::default(),
            cost: Cost::default(),
            warnings: vec![],
        }
    }

    #[test]
    fn a_summary_that_contradicts_itself_fails_after_it_was_printed() {
        let mut summary = SummaryBuilder::new(HostNs(0), vec![]).finish(facts(), &Names::default());
        let mut out = Vec::new();
        print_to(&mut out, &summary, Form { full: false, json: true }, Style::default()).unwrap();
        summary.requests.unattributable = 7;
        for full in [false, true] {
            out.clear();
            let form = Form { full, json: false };
            let error = print_to(&mut out, &summary, form, Style::default()).unwrap_err();
            let told = "inconsistent: requests.unattributable is 7, its reasons add up to 0";
            assert!(error.to_string().starts_with(told), "{error}");
            assert!(String::from_utf8_lossy(&out).contains("INCONSISTENT"));
        }
    }
}
