//! `vslice report`: the report of a run directory, once more.

use super::at::{AtArgs, Stretch};
use super::complete;
use super::exports::Exports;
use super::list::{RUNS, found_in, tell};
use super::terminal::style;
use anyhow::{Context, bail};
use clap::Args;
use clap_complete::ArgValueCompleter;
use std::io::Write;
use std::path::{Path, PathBuf};
use vslice_core::text::sentence;
use vslice_core::units::VcpuId;
use vslice_report::analyse::chosen::Asked;
use vslice_report::runs::{self, Found};
use vslice_report::summary::{Style, Summary, laws, render, render_full};
use vslice_spec::duration;
use vslice_spec::quantity::counted;

/// The arguments of `vslice report`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vslice report                         the latest run below runs/
  vslice report runs/demo-1795471866    a run, here or copied from another machine
  vslice report --full                  every table of the latest run
  vslice report RUN --html run.html     also as a page to look at
  vslice report RUN --since 12s --until 14s --vm web1 --slower-than 5ms
                                        a part of it, also in every file that is asked for
  vslice report --at 03:12              what was recorded then, below runs/ or by the service
  vslice report RUN --csv tables        also its requests, for a spreadsheet
  vslice report runs/* --parquet fleet  many runs as tables for DuckDB or Spark: docs/fleet.md")]
pub(crate) struct ReportArgs {
    /// A run directory that `vslice run` or `vslice attach` wrote [default: the latest below runs/]
    ///
    /// Of several runs only --parquet is written.
    #[arg(value_name = "RUN", add = ArgValueCompleter::new(complete::run_directories))]
    runs: Vec<PathBuf>,
    #[command(flatten)]
    part: PartArgs,
    #[command(flatten, next_help_heading = "Only a part of the run")]
    at: AtArgs,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    exports: Exports,
}

/// Which part of a run is told.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Only a part of the run")]
struct PartArgs {
    /// Only what began from this time of the run on, such as 12s, 1.5s or 200ms
    #[arg(long, value_name = "TIME", value_parser = nanoseconds)]
    since: Option<u64>,
    /// Only what began before this time of the run
    #[arg(long, value_name = "TIME", value_parser = nanoseconds)]
    until: Option<u64>,
    /// Only these VMs, such as db1,web1; who had their pCPUs is told, whoever it was
    #[arg(long = "vm", value_name = "NAMES", value_delimiter = ',', add = ArgValueCompleter::new(complete::recorded_vms))]
    vms: Vec<String>,
    /// Only these vCPUs of the VMs, such as 0,1, and requests that were queued, issued or completed on one of them
    #[arg(long = "vcpu", value_name = "NUMBERS", value_delimiter = ',')]
    vcpus: Vec<u16>,
    /// Only requests that took at least this long; percentiles are then those of these alone
    #[arg(long, value_name = "TIME", value_parser = nanoseconds)]
    slower_than: Option<u64>,
}

impl PartArgs {
    fn asked(&self) -> Asked {
        Asked {
            since_ns: self.since,
            until_ns: self.until,
            vms: self.vms.clone(),
            vcpus: self.vcpus.iter().copied().map(VcpuId).collect(),
            slower_than_ns: self.slower_than,
        }
    }
}

pub(super) fn nanoseconds(text: &str) -> Result<u64, String> {
    let length = duration::parse(text).map_err(|error| error.to_string())?;
    u64::try_from(length.as_nanos()).map_err(|_| format!("'{text}' is longer than any run"))
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
    let mut asked = args.part.asked();
    if args.exports.is_for_many_runs() && (asked != Asked::default() || args.at.is_asked()) {
        bail!("--parquet takes whole runs: its tables cannot say which part of one they have");
    }
    if args.runs.len() > 1 {
        return several(&args.runs, args);
    }
    let named = args.runs.first();
    let path = match (args.at.stretch(named.map(PathBuf::as_path))?, named) {
        (Some(Stretch { run, since_ns, until_ns }), _) => {
            (asked.since_ns, asked.until_ns) = (Some(since_ns), Some(until_ns));
            run
        }
        (None, Some(path)) => path.clone(),
        (None, None) => latest(Path::new(RUNS))?,
    };
    print(&analysed(&path, &args.exports, &asked)?, args.form)?;
    Ok(0)
}

/// Writes several runs into tables; nothing of them is printed. One that cannot be read keeps none of the others out.
fn several(runs: &[PathBuf], args: &ReportArgs) -> anyhow::Result<u8> {
    if !args.exports.is_for_many_runs() {
        bail!("a report is of one run; of {} runs only --parquet DIR is written", runs.len());
    }
    if args.exports.is_for_one_run() || args.form.full || args.form.json {
        bail!("of several runs only --parquet is written: ask for the rest run by run");
    }
    let mut failed = 0_usize;
    for run in runs {
        match analysed(run, &args.exports, &Asked::default()) {
            Ok(summary) => tell(&written(run, &summary)),
            Err(error) => {
                failed += 1;
                tell(&sentence(error.as_ref()));
            }
        }
    }
    if failed > 0 {
        bail!("{failed} of {} runs were not written", runs.len());
    }
    Ok(0)
}

/// What is told of a run that is in the tables now. Its figures may contradict themselves, which a report would say.
fn written(run: &Path, summary: &Summary) -> String {
    let doubt = laws::check(summary).err().map(|error| format!("; {error}"));
    let requests = counted(summary.requests.count, "request");
    format!("{}: written, {requests} of the reader{}", run.display(), doubt.unwrap_or_default())
}

/// The summary of a run, whose other files are written.
fn analysed(path: &Path, exports: &Exports, asked: &Asked) -> anyhow::Result<Summary> {
    if !runs::is_run(path) {
        if path.is_dir() && !found_in(path)?.paths.is_empty() {
            let folder = path.display();
            bail!(
                "{folder} is a folder of runs: name one of them; `vslice list {folder}` lists them"
            );
        }
        bail!("{}", runs::what_it_is(path));
    }
    exports
        .analyse_chosen(path, asked)
        .with_context(|| format!("cannot report on {}", path.display()))
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
    use vslice_report::analyse::drawn;
    use vslice_report::summary::advice::Setup;
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
                selection: None,
                host_io: vslice_report::summary::host_io::HostIo::default(),
                pcpus: vec![],
                lost: Lost::default(),
                cost: Cost::default(),
                warnings: vec![],
            },
            clocks: vec![],
            clocks_apart: vec![],
            disks: vec![],
            hidden: vec![],
            setup: Setup::default(),
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

    fn drawn_run(folder: &Path) -> PathBuf {
        fs::create_dir_all(folder).unwrap();
        let path = folder.join("drawn");
        let run = drawn::run_in(&path, &drawn::manifest());
        drawn::names(&run);
        drawn::streams(&run, &[0, 500, 1150], true);
        path
    }

    #[test]
    fn a_part_of_a_run_is_told_and_its_files_are_of_that_part() {
        let folder = tempfile::tempdir().unwrap();
        let run = drawn_run(folder.path());
        let tables = folder.path().join("tables");
        let tables = tables.to_str().unwrap();
        let starts = |options: &[&str]| {
            let options = [options, &["--csv", tables]].concat();
            report(&run, &options).unwrap();
            let csv = fs::read_to_string(folder.path().join("tables/requests.csv")).unwrap();
            let rows = csv.lines().skip(1).map(|row| row.split(',').nth(2).unwrap().to_owned());
            rows.collect::<Vec<String>>()
        };
        assert_eq!(starts(&["--full"]), ["50000", "550000"]);
        assert_eq!(starts(&["--since", "0.5ms", "--until", "900us"]), ["550000"]);
        assert_eq!(starts(&["--until", "500us", "--json"]), ["50000"]);
        assert_eq!(starts(&["--vm", "vm1,vm2", "--vcpu", "1"]), ["50000", "550000"]);
        assert_eq!(starts(&["--vm", "vm2"]), Vec::<String>::new());
        assert_eq!(starts(&["--slower-than", "300us"]), ["50000"]);
    }

    #[test]
    fn a_part_that_is_not_there_is_an_error_and_no_file_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let run = drawn_run(folder.path());
        let page = folder.path().join("page.html");
        for (options, told) in [
            (["--vm", "web1"], "no VM of the run is called 'web1': it has vm1, vm2"),
            (["--vcpu", "9"], "there is no vCPU9: the run has vm1 vCPU1, vm2 vCPU1"),
            (["--since", "12s"], "there is nothing after 12 s: the run is 1.10 ms long"),
            (["--until", "0s"], "there is nothing between 0 s and 0 s: the run is 1.10 ms long"),
        ] {
            let options = [options[0], options[1], "--html", page.to_str().unwrap()];
            let error = report(&run, &options).unwrap_err();
            assert!(error.ends_with(told), "{error}");
        }
        assert!(!page.exists());
        let line = |time| Line::try_parse_from(["report", "run", "--since", time]);
        assert!(line("half").unwrap_err().to_string().contains("is not a duration"));
        assert!(line("9999999h").unwrap_err().to_string().contains("longer than any run"));
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

    #[cfg(feature = "parquet")]
    #[test]
    fn several_runs_are_written_into_tables_and_one_that_is_broken_keeps_none_out() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) =
            (drawn_run(&folder.path().join("a")), drawn_run(&folder.path().join("b")));
        let fleet = folder.path().join("fleet");
        let broken = folder.path().join("broken");
        fs::create_dir(&broken).unwrap();
        let several = |options: &[&str]| {
            let runs = [&broken, &first, &second].map(|run| run.to_str().unwrap().to_owned());
            let words = ["report".to_owned()].into_iter().chain(runs);
            let line = words.chain(options.iter().map(|word| (*word).to_owned()));
            execute(&Line::try_parse_from(line).unwrap().args).unwrap_err().to_string()
        };
        let parquet = ["--parquet", fleet.to_str().unwrap()];
        assert_eq!(several(&[]), "a report is of one run; of 3 runs only --parquet DIR is written");
        let told = several(&[parquet[0], parquet[1], "--json"]);
        assert_eq!(told, "of several runs only --parquet is written: ask for the rest run by run");
        let told = several(&[parquet[0], parquet[1], "--vm", "vm1"]);
        assert!(told.starts_with("--parquet takes whole runs"), "{told}");
        assert!(!fleet.exists());
        assert_eq!(several(&parquet), "1 of 3 runs were not written");
        let none = "__HIVE_DEFAULT_PARTITION__";
        let runs = fleet.join(format!("runs/host={none}/day={none}"));
        let files = fs::read_dir(runs).unwrap().count();
        assert_eq!(files, 1, "two runs of one name and time are the same run");
        let second = fs::rename(&second, second.with_file_name("other"))
            .map(|()| second.with_file_name("other"));
        report(&second.unwrap(), &parquet).unwrap();
        assert_eq!(
            fs::read_dir(fleet.join(format!("requests/host={none}/day={none}"))).unwrap().count(),
            2
        );
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
