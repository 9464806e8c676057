//! `vslice report`: the report of a run directory, once more.

use super::complete;
use super::exports::Exports;
use super::list::{RUNS, found_in, tell};
use super::terminal::style;
use anyhow::{Context, bail};
use clap::Args;
use clap_complete::ArgValueCompleter;
use std::io::Write;
use std::path::{Path, PathBuf};
use vslice_report::runs::{self, Found};
use vslice_report::summary::{Style, Summary, laws, render, render_full};

/// The arguments of `vslice report`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vslice report                         the latest run below runs/
  vslice report runs/demo-1795471866    a run, here or copied from another machine
  vslice report --full                  every table of the latest run
  vslice report RUN --html run.html     also as a page to look at
  vslice report RUN --csv tables        also its requests, for a spreadsheet")]
pub(crate) struct ReportArgs {
    /// A run directory that `vslice run` or `vslice attach` wrote [default: the latest below runs/]
    #[arg(add = ArgValueCompleter::new(complete::run_directories))]
    run: Option<PathBuf>,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    exports: Exports,
}

/// Which report of a run is printed.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Form {
    /// Print every table instead of the one-page answer
    #[arg(long, conflicts_with = "json")]
    full: bool,
    /// Print the summary as JSON (schema vslice.summary/3)
    #[arg(long)]
    json: bool,
}

pub(super) fn execute(args: &ReportArgs) -> anyhow::Result<u8> {
    let path = match &args.run {
        Some(path) => path.clone(),
        None => latest(Path::new(RUNS))?,
    };
    if !runs::is_run(&path) {
        if path.is_dir() && !found_in(&path)?.paths.is_empty() {
            let folder = path.display();
            bail!(
                "{folder} is a folder of runs: name one of them; `vslice list {folder}` lists them"
            );
        }
        bail!("{}", runs::what_it_is(&path));
    }
    let summary = args
        .exports
        .analyse(&path)
        .with_context(|| format!("cannot report on {}", path.display()))?;
    print(&summary, args.form)?;
    Ok(0)
}

/// The latest run in a folder, which is named on standard error.
fn latest(folder: &Path) -> anyhow::Result<PathBuf> {
    let found = if folder.is_dir() { found_in(folder)? } else { Found::default() };
    let Some(path) = found.paths.last() else {
        bail!(
            "there is no run in {}/ here: name a run, or make one with `vslice run demo`",
            folder.display()
        );
    };
    tell(&format!("the latest run below {}/: {}", folder.display(), path.display()));
    if let Some(reason) = &found.incomplete {
        tell(&format!("there may be a later one: {reason}"));
    }
    Ok(path.clone())
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
    use clap::Parser;
    use std::fs;
    use vslice_core::units::HostNs;
    use vslice_report::summary::model::{
        Accelerator, Cost, Environment, Lost, RunFacts, RunStatus,
    };
    use vslice_report::summary::{Facts, Names, SummaryBuilder};
    use vslice_trace::evidence::{Evidence, GroupEvidence};

    fn facts() -> Facts {
        Facts {
            run: RunFacts {
                plan: "demo".to_owned(),
                status: RunStatus::Complete,
                accelerator: Accelerator { name: "tcg".to_owned(), reason: "asked for".to_owned() },
                environment: Environment { lines: vec![], details: serde_json::Value::Null },
                measured_ns: 0,
                hogs: vec![],
                service: vec![],
                big_locks: vec![],
                control_groups: GroupEvidence::default(),
                evidence: Evidence::default(),
                sampled: None,
                scheduled: vec![],
                host_io: vslice_report::summary::host_io::HostIo::default(),
                lost: Lost::default(),
                cost: Cost::default(),
                warnings: vec![],
            },
            clocks: vec![],
            clocks_apart: vec![],
            disks: vec![],
            hidden: vec![],
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
            let told = "inconsistent: requests.unattributable is 7, but its reasons add up to 0";
            assert!(error.to_string().starts_with(told), "{error}");
            assert!(String::from_utf8_lossy(&out).contains("INCONSISTENT"));
        }
    }

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: ReportArgs,
    }

    fn report(path: &Path, options: &[&str]) -> Result<u8, String> {
        let words = ["report".as_ref(), path.as_os_str()];
        let line = words.into_iter().chain(options.iter().map(AsRef::as_ref));
        execute(&Line::try_parse_from(line).unwrap().args).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn the_latest_run_is_that_whose_manifest_was_written_last() {
        let folder = tempfile::tempdir().unwrap();
        for (second, run) in (1..).zip(["b", "sweep/a/1", "a"]) {
            let path = folder.path().join(run);
            fs::create_dir_all(&path).unwrap();
            let file = fs::File::create(path.join("run.json")).unwrap();
            let written = std::time::UNIX_EPOCH + std::time::Duration::from_secs(second % 3);
            file.set_modified(written).unwrap();
        }
        assert_eq!(latest(folder.path()).unwrap(), folder.path().join("sweep/a/1"));
    }

    #[test]
    fn without_a_folder_of_runs_it_is_said_how_to_make_one() {
        let folder = tempfile::tempdir().unwrap();
        let error = latest(&folder.path().join("runs")).unwrap_err().to_string();
        assert!(error.ends_with("here: name a run, or make one with `vslice run demo`"), "{error}");
        let error = latest(folder.path()).unwrap_err().to_string();
        assert!(error.contains("has no run in it"), "{error}");
    }

    #[test]
    fn a_folder_of_runs_has_no_report() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("broken");
        fs::create_dir(&run).unwrap();
        fs::write(run.join("run.json"), "{}").unwrap();
        let error = report(folder.path(), &["--csv", "tables"]).unwrap_err();
        assert!(error.contains("is a folder of runs: name one of them"), "{error}");
        let error = report(&run, &["--full"]).unwrap_err();
        assert!(error.starts_with("cannot report on "), "{error}");
        let error = report(&run.join("run.json"), &[]).unwrap_err();
        assert!(error.contains("is a file of a run"), "{error}");
        fs::remove_file(run.join("run.json")).unwrap();
        let error = report(folder.path(), &[]).unwrap_err();
        assert!(error.contains("has no run in it"), "{error}");
    }
}
