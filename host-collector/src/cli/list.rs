//! `vslice list`: the runs in a folder.

use super::terminal::{shown, style};
use anyhow::{Context, bail};
use clap::Args;
use std::io::Write;
use std::path::{Path, PathBuf};
use vslice_report::runs::{self, Found};

/// Where `vslice run` and `vslice attach` write their runs by default.
pub(super) const RUNS: &str = "runs";

/// The arguments of `vslice list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vslice list                           the runs below runs/, one per row, the latest last
  vslice list /srv/runs --json          those of another folder as JSON (schema vslice.runs/1)")]
pub(crate) struct ListArgs {
    /// A folder of run directories
    #[arg(default_value = RUNS)]
    folder: PathBuf,
    /// Print the list as JSON (schema vslice.runs/1)
    #[arg(long)]
    json: bool,
}

pub(super) fn execute(args: &ListArgs) -> anyhow::Result<u8> {
    let folder = &args.folder;
    if runs::is_run(folder) {
        let run = folder.display();
        bail!("{run} is a run and no folder of runs: `vslice report {run}` prints its report");
    }
    let found = found_in(folder)?;
    let runs = runs::list(folder, &found, |run, why| tell(&format!("analysing {run}: {why}")));
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &runs)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", runs::text::render(&runs, style(&out)))?;
    }
    Ok(0)
}

/// The runs in a folder; there is at least one.
pub(super) fn found_in(path: &Path) -> anyhow::Result<Found> {
    if !path.is_dir() {
        bail!("{}", runs::what_it_is(path));
    }
    let found = runs::find(path).with_context(|| format!("cannot list {}", path.display()))?;
    match (found.paths.is_empty(), &found.incomplete) {
        (false, _) => Ok(found),
        (true, None) => bail!("{}", runs::what_it_is(path)),
        (true, Some(reason)) => bail!("no run was found in {}: {reason}", path.display()),
    }
}

/// A line on standard error; without one there is nobody to tell.
pub(super) fn tell(line: &str) {
    drop(writeln!(std::io::stderr(), "vslice: {}", shown(line)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn list(folder: &Path, json: bool) -> Result<u8, String> {
        let args = ListArgs { folder: folder.to_owned(), json };
        execute(&args).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_folder_is_listed_and_a_run_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let error = list(&folder.path().join("runs"), false).unwrap_err();
        assert!(error.starts_with("there is no "), "{error}");
        let run = folder.path().join("broken");
        fs::create_dir(&run).unwrap();
        let error = list(folder.path(), false).unwrap_err();
        assert!(error.contains("has no run in it"), "{error}");
        fs::write(run.join("run.json"), "{}").unwrap();
        assert_eq!([list(folder.path(), false), list(folder.path(), true)], [Ok(0), Ok(0)]);
        let error = list(&run, false).unwrap_err();
        assert!(error.contains("is a run and no folder of runs"), "{error}");
    }
}
