//! `--at`: a time of day instead of a run.

use super::list::{RUNS, found_in, tell};
use super::local_time::offset_s;
use super::report::nanoseconds;
use anyhow::bail;
use clap::Args;
use std::path::{Path, PathBuf};
use vslice_core::text::sentence;
use vslice_report::runs::at::{At, NotFound, TimeOfDay, dated, find_at};
use vslice_report::runs::is_run;

/// Where the service of host-collector/systemd keeps its runs.
pub(super) const SERVICE_RUNS: &str = "/var/lib/vslice";

/// A time of day, and how much around it.
#[derive(Debug, Clone, Args)]
pub(super) struct AtArgs {
    /// The run that was being recorded at this time of day here, such as 03:12 (that minute), 03:12:05 (that second) or
    /// "2026-11-30 03:12:05"; with a Z behind it, it is UTC. RUN may be a folder of runs then [default: runs/ and
    /// /var/lib/vslice]
    #[arg(long, value_name = "TIME", conflicts_with_all = ["since", "until"])]
    at: Option<TimeOfDay>,
    /// How much before and after that minute or second is told as well
    #[arg(long, value_name = "TIME", requires = "at", default_value = "5s", value_parser = nanoseconds)]
    around: u64,
}

/// A stretch of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) run: PathBuf,
    pub(super) since_ns: u64,
    pub(super) until_ns: u64,
}

impl AtArgs {
    /// Whether it is.
    pub(super) fn is_asked(&self) -> bool {
        self.at.is_some()
    }

    /// The stretch of a run that is asked for, which is told on standard error; `None` if no time is asked for.
    ///
    /// # Errors
    /// If no run has that time, or several have it.
    pub(super) fn stretch(&self, named: Option<&Path>) -> anyhow::Result<Option<Stretch>> {
        let Some(wanted) = self.at else { return Ok(None) };
        let mut paths = Vec::new();
        for folder in folders(named) {
            if is_run(&folder) {
                paths.push(folder);
                continue;
            }
            let found = found_in(&folder)?;
            if let Some(reason) = &found.incomplete {
                tell(&format!("there may be more runs: {reason}"));
            }
            paths.extend(found.paths);
        }
        let at = match find_at(&dated(&paths), wanted, self.around, &offset_s) {
            Ok(at) => at,
            Err(error @ NotFound::Nowhere { .. }) if paths.is_empty() => {
                bail!("{} (looked below {RUNS}/ and {SERVICE_RUNS})", sentence(&error))
            }
            Err(error) => bail!("{}", sentence(&error)),
        };
        tell_of(&at);
        let At { run, since_ns, until_ns, .. } = at;
        Ok(Some(Stretch { run, since_ns, until_ns }))
    }
}

/// Where runs are looked for. Without a name, what is not there is not missed.
fn folders(named: Option<&Path>) -> Vec<PathBuf> {
    match named {
        Some(named) => vec![named.to_owned()],
        None => {
            let usual = [RUNS, SERVICE_RUNS].map(PathBuf::from);
            usual.into_iter().filter(|folder| found_in(folder).is_ok()).collect()
        }
    }
}

/// What is reported, as a command that reports the same again.
fn tell_of(at: &At) {
    let [since, until] = [at.since_ns, at.until_ns].map(seconds);
    tell(&format!("report {} --since {since} --until {until}", at.run.display()));
    for other in &at.others {
        tell(&format!("another part of that time is in {}", other.display()));
    }
    if at.set_by_ns != 0 {
        let (by, way) =
            (at.set_by_ns.unsigned_abs(), if at.set_by_ns < 0 { "back" } else { "forward" });
        tell(&format!(
            "the host's date was set {way} by {} while this run was recorded; its times of day are by the date at \
             its beginning",
            seconds(by)
        ));
    }
}

/// Exact, as `--since` reads it.
fn seconds(ns: u64) -> String {
    let text = format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000);
    format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_core::units::HostNs;
    use vslice_report::analyse::drawn;
    use vslice_trace::date::DateSample;
    use vslice_trace::manifest::Manifest;

    /// 2026-11-30 03:12:00 UTC.
    const AT_NS: u64 = 1_796_008_320_000_000_000;

    fn at(text: &str) -> AtArgs {
        AtArgs { at: Some(text.parse().expect("a time")), around: 5_000_000_000 }
    }

    fn dated_run(path: &Path) {
        let date = |host_s: u64| DateSample {
            host_ns: HostNs(host_s * 1_000_000_000),
            realtime_ns: AT_NS + host_s * 1_000_000_000 - 100_000_000_000,
        };
        let _run = drawn::run_in(
            path,
            &Manifest { dates: vec![date(10), date(310)], ..drawn::manifest() },
        );
    }

    #[test]
    fn a_time_is_a_stretch_of_the_run_that_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("service/one");
        dated_run(&run);
        let stretch =
            Stretch { run: run.clone(), since_ns: 85_000_000_000, until_ns: 155_000_000_000 };
        for named in [folder.path(), &run] {
            let found = at("2026-11-30 03:12Z").stretch(Some(named)).unwrap();
            assert_eq!(found, Some(stretch.clone()));
        }
        let none = AtArgs { at: None, around: 0 }.stretch(Some(folder.path()));
        assert_eq!(none.unwrap(), None);
    }

    #[test]
    fn a_time_that_no_run_has_says_which_runs_there_are() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = at("2026-11-30 04:12Z");
        let error = wanted.stretch(Some(folder.path())).unwrap_err().to_string();
        assert!(error.contains("has no run in it"), "{error}");
        dated_run(&folder.path().join("one"));
        let error = wanted.stretch(Some(folder.path())).unwrap_err().to_string();
        assert!(error.starts_with("no run was being recorded then; there is "), "{error}");
    }

    #[test]
    fn what_is_told_is_read_again() {
        for ns in [0, 1, 125_300_000_000, 1_999_999_999, 60_000_000_000] {
            assert_eq!(nanoseconds(&seconds(ns)), Ok(ns), "{}", seconds(ns));
        }
        assert_eq!(seconds(125_300_000_000), "125.3s");
        assert_eq!(seconds(60_000_000_000), "60s");
    }
}
