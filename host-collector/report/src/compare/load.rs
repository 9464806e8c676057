//! Reads the run directories of a side: the only part of the comparison that touches files.

use super::because::SlowRequests;
use super::fingerprint::{conditions, has_iothread};
use super::metrics::{Metric, Reader};
use super::spread::Spread;
use super::vcpus::VcpuFigures;
use super::{LeftOut, Run, Side};
use crate::analyse::{AnalyseError, analyse, manifest_of};
use crate::summary::laws;
use crate::summary::model::RunStatus;
use crate::summary::service::Engagement;
use std::path::{Path, PathBuf};
use std::{fs, io};
use vslice_core::text::sentence;
use vslice_trace::RunDir;
use vslice_trace::manifest::Status;

/// Why there is nothing to compare.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// The directory cannot be listed.
    #[error("cannot list {}", path.display())]
    List {
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// There is no run in it.
    #[error("{} is not a run directory and contains none: neither it nor a directory in it has a run.json", .0.display())]
    NoRun(PathBuf),
    /// None of its runs can be compared.
    #[error("no run of {} can be compared: {reason}", path.display())]
    NoneCounts {
        /// Which.
        path: PathBuf,
        /// What is wrong with the first one.
        reason: String,
    },
}

/// Reads one side: a run directory, or a directory of run directories. Runs that are partial or cannot be
/// read are left out, and so are runs whose iothreads did not serve the disk, and directories without a
/// `run.json`.
///
/// # Errors
/// See [`CompareError`]; a side without a run that can be compared is an error.
pub fn load(path: &Path) -> Result<Side, CompareError> {
    let mut side = Side { path: path.display().to_string(), runs: vec![], left_out: vec![] };
    for path in run_paths(path)? {
        match run(&path) {
            Ok(run) => side.runs.push(run),
            Err(reason) => {
                side.left_out.push(LeftOut { path: path.display().to_string(), reason });
            }
        }
    }
    if side.runs.is_empty() {
        let reason = side.left_out.swap_remove(0).reason;
        return Err(CompareError::NoneCounts { path: path.to_owned(), reason });
    }
    Ok(side)
}

/// The run directories that a path means, in order of their names; there is at least one.
fn run_paths(path: &Path) -> Result<Vec<PathBuf>, CompareError> {
    if is_run(path) {
        return Ok(vec![path.to_owned()]);
    }
    let list = |source| CompareError::List { path: path.to_owned(), source };
    let entries = fs::read_dir(path).map_err(list)?;
    let entries: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(list)?;
    let mut runs: Vec<PathBuf> = entries.into_iter().filter(|path| is_run(path)).collect();
    runs.sort_unstable();
    if runs.is_empty() { Err(CompareError::NoRun(path.to_owned())) } else { Ok(runs) }
}

fn is_run(path: &Path) -> bool {
    path.join("run.json").is_file()
}

/// What is compared of a run, or why it does not count.
fn run(path: &Path) -> Result<Run, String> {
    // What is wrong is told of files of the run, whose place is named beside it.
    let described =
        |error: AnalyseError| sentence(&error).replace(&format!("{}/", path.display()), "");
    let manifest = RunDir::open(path).map_err(AnalyseError::from);
    let manifest = &manifest.and_then(|run| manifest_of(&run)).map_err(described)?;
    match &manifest.status {
        Status::Complete => {}
        Status::Partial { why } => return Err(format!("it ended early: {why}")),
        Status::Recording => {
            return Err("it is still being recorded, or its collector was killed".to_owned());
        }
    }
    let summary = analyse(path).map_err(described)?;
    if let RunStatus::Partial { reason } = &summary.facts.status {
        return Err(reason.clone());
    }
    laws::check(&summary).map_err(|inconsistent| inconsistent.to_string())?;
    let readers = Reader::all(manifest, &summary);
    let has_iothread = has_iothread(manifest);
    let engaged = readers.first().and_then(|reader| summary.engagement_of(&reader.vm));
    if has_iothread == Some(true) && engaged == Some(Engagement::Not) {
        return Err(
            "doorbells did not wake its iothreads, so it proves nothing about them".to_owned()
        );
    }
    let value = |metric: Metric| Some((metric, metric.of(&summary, readers.first())?));
    Ok(Run {
        path: path.display().to_string(),
        values: Metric::all().filter_map(value).collect(),
        slow: SlowRequests::of(&summary),
        vcpus: VcpuFigures::all(&summary),
        timeslices: readers.first().and_then(|reader| Spread::of(reader.timeslices(&summary)?)),
        readers,
        conditions: conditions(manifest),
        has_iothread,
        lost_count: summary.facts.lost.records,
        is_observed: summary.observed.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyse::drawn;
    use vslice_trace::manifest::Manifest;

    fn write(path: &Path, manifest: &Manifest) {
        RunDir::create(path).unwrap().write_json("run.json", manifest).unwrap();
    }

    #[test]
    fn a_side_is_a_run_or_a_directory_of_runs_and_partial_ones_are_left_out() {
        let scratch = tempfile::tempdir().unwrap();
        let side = scratch.path().join("side");
        let complete = drawn::manifest();
        let mut partial = drawn::manifest();
        partial.status = Status::Partial { why: "interrupted".to_owned() };
        let killed = Manifest { status: Status::Recording, ..drawn::manifest() };
        for (name, manifest) in
            [("1", &complete), ("2", &partial), ("3", &killed), ("4", &complete)]
        {
            write(&side.join(name), manifest);
        }
        fs::create_dir(side.join("notes")).unwrap();
        fs::write(side.join("README"), "mine").unwrap();
        let names = |side: &Side| -> Vec<String> {
            let name = |path: &String| path.rsplit('/').next().unwrap().to_owned();
            side.runs.iter().map(|run| name(&run.path)).collect()
        };
        let loaded = load(&side).unwrap();
        assert_eq!(names(&loaded), ["1", "4"]);
        let reasons: Vec<&str> = loaded.left_out.iter().map(|run| run.reason.as_str()).collect();
        assert_eq!(
            reasons,
            [
                "it ended early: interrupted",
                "it is still being recorded, or its collector was killed"
            ]
        );
        assert_eq!(names(&load(&side.join("1")).unwrap()), ["1"]);
        let error = load(&side.join("2")).unwrap_err().to_string();
        assert!(error.ends_with("/2 can be compared: it ended early: interrupted"), "{error}");
        assert!(matches!(load(&side.join("notes")), Err(CompareError::NoRun(_))));
        assert!(matches!(load(&side.join("nowhere")), Err(CompareError::List { .. })));
    }

    #[test]
    fn a_run_that_cannot_be_read_is_left_out_with_its_reason() {
        let scratch = tempfile::tempdir().unwrap();
        let side = scratch.path().join("side");
        write(&side.join("1"), &drawn::manifest());
        for (name, json) in [
            ("2", r#"{"schema": "vslice.run/0", "status": "done"}"#),
            ("3", r#"{"schema": "vslice.run/0"}"#),
            ("4", "{"),
        ] {
            fs::create_dir_all(side.join(name)).unwrap();
            fs::write(side.join(name).join("run.json"), json).unwrap();
        }
        write(&side.join("5"), &drawn::manifest());
        fs::write(side.join("5/stacks.json"), "{").unwrap();
        let loaded = load(&side).unwrap();
        let reasons: Vec<&str> = loaded.left_out.iter().map(|run| run.reason.as_str()).collect();
        let schema = "its run.json has schema vslice.run/0, this vslice reads ";
        assert!(reasons[0].starts_with(schema) && reasons[1].starts_with(schema), "{reasons:?}");
        assert!(reasons[2].starts_with("run.json does not hold the expected JSON"), "{reasons:?}");
        assert!(reasons[3].starts_with("stacks.json does not hold"), "{reasons:?}");
        assert_eq!((loaded.runs.len(), reasons.len()), (1, 4));
        let error = load(&side.join("2")).unwrap_err().to_string();
        assert!(
            error.contains("/2 can be compared: its run.json has schema vslice.run/0"),
            "{error}"
        );
    }

    /// The drawn main loop does everything, and there is no iothread that a doorbell could wake.
    #[test]
    fn a_run_whose_iothreads_did_nothing_proves_nothing_of_them() {
        let with_iothread = |iothread: bool| {
            let mut manifest = drawn::manifest();
            let disk = serde_json::json!({ "iothread": iothread });
            manifest.plan = serde_json::json!({ "vm": [{ "name": "vm1", "disk": disk }] });
            let (_scratch, run) = drawn::run_dir(&manifest);
            drawn::streams(&run, &[10, 1250], true);
            load(run.path())
        };
        assert_eq!(with_iothread(false).unwrap().runs.len(), 1);
        let error = with_iothread(true).unwrap_err().to_string();
        assert!(
            error
                .ends_with("doorbells did not wake its iothreads, so it proves nothing about them")
        );
    }
}
