//! The results of the runs in a folder.

use super::find::written;
use super::{Figures, FirstCause, Found, Outcome, Run, Runs, SCHEMA};
use crate::analyse::{analyse, manifest_of};
use crate::summary::hindrance::{REPORTED_SHARE_MIN, most_hindered};
use crate::summary::model::SCHEMA as SUMMARY_SCHEMA;
use crate::summary::totals::share;
use crate::summary::verdict::first_cause;
use crate::summary::{Summary, laws};
use serde_json::Value;
use std::path::Path;
use std::time::UNIX_EPOCH;
use vslice_core::text::sentence;
use vslice_trace::RunDir;

/// The results of the runs. A stored summary of the current schema is used as it is; other runs are analysed,
/// which may take long: `analysing` is called before each with its path below the folder and the reason.
#[must_use]
pub fn list(folder: &Path, found: &Found, mut analysing: impl FnMut(&str, &str)) -> Runs {
    let runs = found.paths.iter().map(|path| {
        let below = path.strip_prefix(folder).unwrap_or(path).display().to_string();
        // What is wrong is told of files of the run, whose place the row has already.
        let own_files = |text: &str| text.replace(&format!("{}/", path.display()), "");
        let outcome = summary(path, |why| analysing(&below, &own_files(why))).map_or_else(
            |reason| Outcome::Unreadable { reason: own_files(&reason) },
            |summary| Outcome::new(summary.facts.status.clone(), figures(summary)),
        );
        let since = written(path).and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let written_s = since.map(|since| since.as_secs());
        Run { path: below, written_s, bytes: size_bytes(path).ok(), outcome }
    });
    Runs {
        schema: SCHEMA,
        folder: folder.display().to_string(),
        runs: runs.collect(),
        incomplete: found.incomplete.clone(),
    }
}

/// The size of a run's files, which lie in no folders of their own.
fn size_bytes(run: &Path) -> std::io::Result<u64> {
    let mut size_bytes = 0;
    for entry in std::fs::read_dir(run)? {
        let data = entry?.metadata()?;
        size_bytes += if data.is_file() { data.len() } else { 0 };
    }
    Ok(size_bytes)
}

/// The summary of a run, or why there is none.
fn summary(path: &Path, analysing: impl FnOnce(&str)) -> Result<Summary, String> {
    let run = RunDir::open(path).map_err(|error| sentence(&error))?;
    manifest_of(&run).map_err(|error| sentence(&error))?;
    let summary = match stored_summary(&run) {
        Ok(summary) => summary,
        Err(why) => {
            analysing(&why);
            analyse(path).map_err(|error| sentence(&error))?
        }
    };
    laws::check(&summary).map_err(|error| error.to_string())?;
    Ok(summary)
}

/// The summary that the run left, or why it is of no use here.
fn stored_summary(run: &RunDir) -> Result<Summary, String> {
    if !run.path().join("summary.json").exists() {
        return Err("it has no summary.json".to_owned());
    }
    let json: Value = run.read_json("summary.json").map_err(|error| sentence(&error))?;
    match json["schema"].as_str() {
        // From the file again: to make a summary of a `Value` too would double what is compiled for it.
        Some(SUMMARY_SCHEMA) => run
            .read_json("summary.json")
            .map_err(|_| format!("its summary.json does not match what {SUMMARY_SCHEMA} is today")),
        Some(other) => {
            let other: String = other.chars().take(40).collect();
            Err(format!("its summary.json has schema {other}"))
        }
        None => Err("its summary.json has no schema".to_owned()),
    }
}

/// Of VMs that were asked for nothing: what kept a vCPU from its work most, as their page says first.
fn first_hindrance(summary: &Summary) -> Option<(String, f64)> {
    let (vcpu, hindrance, kept_ns) = most_hindered(summary)?;
    let share = share(kept_ns, vcpu.observed_ns);
    let label = format!("{} {} {}", vcpu.vm, vcpu.vcpu, hindrance.label());
    (share >= REPORTED_SHARE_MIN).then_some((label, share))
}

fn figures(summary: Summary) -> Figures {
    let first_cause = match summary.requests.count {
        0 => first_hindrance(&summary),
        _ => first_cause(&summary),
    };
    let mut vms: Vec<String> = summary.vcpus.into_iter().map(|vcpu| vcpu.vm).collect();
    vms.extend(summary.facts.scheduled.into_iter().map(|vcpu| vcpu.vm));
    vms.sort_unstable();
    vms.dedup();
    Figures {
        plan: summary.facts.plan,
        vms,
        requests: summary.requests.count,
        p50_ns: summary.latency_ns.p50,
        p99_ns: summary.latency_ns.p99,
        first_cause: first_cause.map(|(label, share)| FirstCause { label, share }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::example::{folder, listed};
    use super::*;
    use crate::runs::find;
    use crate::summary::causes::Kind;
    use crate::summary::example;
    use std::fs;

    fn outcome(runs: &Runs, path: &str) -> Outcome {
        runs.runs.iter().find(|run| run.path == path).unwrap().outcome.clone()
    }

    #[test]
    fn a_run_has_the_figures_of_the_summary_that_it_left() {
        let (runs, analysed) = listed(folder().path());
        let Outcome::Complete(figures) = outcome(&runs, "demo-1") else { panic!("{runs:?}") };
        let summary = example::summary();
        assert_eq!(
            (figures.p50_ns, figures.p99_ns),
            (summary.latency_ns.p50, summary.latency_ns.p99)
        );
        assert_eq!((figures.requests, figures.vms.join(" ")), (2000, "vm1 vm2".to_owned()));
        let waits = summary.causes.p99.iter().filter(|cause| cause.kind() == Kind::PcpuWait);
        let share: f64 = waits.map(|cause| cause.share).sum();
        assert!((figures.first_cause.unwrap().share - share).abs() < 1e-3, "{share}");
        let Outcome::Partial { reason, .. } = outcome(&runs, "quick-2/ide/1") else {
            panic!("{runs:?}")
        };
        assert_eq!(reason, "interrupted");
        assert_eq!(analysed.len(), 1, "a summary that is there is not made again: {analysed:?}");
    }

    #[test]
    fn of_vms_that_were_asked_for_nothing_it_is_what_kept_a_vcpu_most() {
        let mut summary = example::summary();
        (summary.requests.count, summary.facts.measured_ns) = (0, 1_000_000);
        for vcpu in &mut summary.vcpus {
            (vcpu.observed_ns, vcpu.wait_ns) = (1_000_000, 100);
            vcpu.off_cpu.clear();
        }
        assert_eq!(figures(summary.clone()).first_cause, None, "nothing that anybody felt");
        summary.vcpus[1].wait_ns = 366_000;
        let first = figures(summary).first_cause.unwrap();
        assert_eq!((first.label.as_str(), first.share), ("vm1 vCPU1 waiting for a pCPU", 0.366));
    }

    #[test]
    fn the_vms_of_a_run_are_named_as_far_as_a_terminal_may_be_sent_them() {
        let scratch = tempfile::tempdir().unwrap();
        let mut manifest = crate::analyse::drawn::manifest();
        manifest.vms[1].name = "vm\x1b2".to_owned();
        let run = crate::analyse::drawn::run_in(&scratch.path().join("run"), &manifest);
        assert_eq!(crate::runs::vms(run.path()), ["vm1"]);
        assert!(crate::runs::vms(scratch.path()).is_empty());
    }

    #[test]
    fn a_run_has_the_size_of_its_files() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("of no file")).unwrap();
        for (name, bytes) in [("run.json", 100), ("events-0.vsr", 2000)] {
            fs::write(folder.path().join(name), vec![b' '; bytes]).unwrap();
        }
        assert_eq!(size_bytes(folder.path()).unwrap(), 2100);
        assert!(size_bytes(&folder.path().join("nowhere")).is_err());
    }

    #[test]
    fn causes_of_one_kind_count_together_as_in_the_report() {
        let first = |summary: Summary| figures(summary).first_cause.unwrap();
        let summary = example::waited([45_000_000, 33_000_000, 27_000_000]);
        let told = crate::summary::verdict::verdict(&summary);
        assert!(told.contains("vm1 vCPU1 waited for a pCPU for 57 % of the time"), "{told}");
        let wait = first(summary);
        assert_eq!(wait.label, "waiting for a pCPU after I/O completion");
        assert_eq!(wait.share, 0.5714, "60 of 105");
        let one_part = first(example::waited([45_000_000, 60_000_000, 0]));
        assert_eq!(one_part.label, "preemption wait after I/O completion");
        let disk = first(example::waited([65_000_000, 33_000_000, 27_000_000]));
        assert_eq!(disk.label, "in the host's disk");
    }

    #[test]
    fn slow_requests_without_causes_have_none_of_the_others() {
        let mut summary = example::summary();
        summary.classes.p99.unattributable += std::mem::take(&mut summary.classes.p99.count);
        summary.causes.p99.clear();
        let told = crate::summary::verdict::verdict(&summary);
        assert!(told.contains("No slower request could be attributed to causes"), "{told}");
        assert_eq!(figures(summary).first_cause, None);
    }

    #[test]
    fn a_run_whose_summary_is_of_no_use_is_analysed_and_that_is_told() {
        let folder = folder();
        let (_, analysed) = listed(folder.path());
        assert_eq!(analysed, ["a-later: it has no summary.json"]);
        let summary = folder.path().join("demo-1/summary.json");
        for (json, why) in [
            (r#"{"schema": "vslice.summary/2"}"#, "its summary.json has schema vslice.summary/2"),
            (
                r#"{"schema": "vslice.summary/3"}"#,
                "its summary.json does not match what vslice.summary/3 is today",
            ),
            ("{}", "its summary.json has no schema"),
            ("{", "summary.json does not hold the expected JSON"),
        ] {
            fs::write(&summary, json).unwrap();
            let (runs, analysed) = listed(folder.path());
            assert!(
                analysed[0].starts_with("demo-1: ") && analysed[0].contains(why),
                "{analysed:?}"
            );
            let Outcome::Complete(figures) = outcome(&runs, "demo-1") else { panic!("{runs:?}") };
            assert_eq!(
                (figures.plan.as_str(), figures.requests),
                ("drawn", 0),
                "what run.json says"
            );
        }
    }

    #[test]
    fn a_run_without_a_report_says_why() {
        let folder = folder();
        let reason = || match outcome(&listed(folder.path()).0, "broken") {
            Outcome::Unreadable { reason } => reason,
            other => panic!("{other:?}"),
        };
        assert!(reason().starts_with("run.json does not hold the expected JSON"), "{}", reason());
        let run_json = folder.path().join("broken/run.json");
        fs::write(&run_json, r#"{"schema": "vslice.run/1", "vms": 2}"#).unwrap();
        assert!(reason().contains("its run.json has schema vslice.run/1"), "{}", reason());
        fs::remove_file(run_json).unwrap();
        fs::write(folder.path().join("broken/events-0.vsr"), "").unwrap();
        assert!(reason().starts_with("cannot read run.json: "), "{}", reason());
    }

    #[test]
    fn a_summary_that_contradicts_itself_is_not_listed_as_if_it_did_not() {
        let folder = folder();
        let mut summary = example::summary();
        summary.requests.unattributable += 7;
        let json = serde_json::to_vec(&summary).unwrap();
        fs::write(folder.path().join("demo-1/summary.json"), json).unwrap();
        let found = find(folder.path()).unwrap();
        let runs = list(folder.path(), &found, |_, _| ());
        let Outcome::Unreadable { reason } = outcome(&runs, "demo-1") else { panic!("{runs:?}") };
        assert!(reason.starts_with("inconsistent: requests.unattributable is "), "{reason}");
    }
}
