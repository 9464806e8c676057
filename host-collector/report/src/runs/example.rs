//! A folder of runs, for the tests of this module.

use super::{Runs, find, list};
use crate::analyse::drawn::manifest;
use crate::summary::example;
use crate::summary::model::RunStatus;
use std::fs;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

/// When the first of its runs was written: 2026-11-29 16:13:17 UTC.
pub(super) const WRITTEN_S: u64 = 1_795_968_797;

/// Four runs, each a second later than the one before: one whole, one that was interrupted, one whose
/// `run.json` is none, one that was killed before it had a summary; and a directory without a run.
pub(super) fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let whole = serde_json::to_string(&manifest()).unwrap();
    let runs =
        [("demo-1", &*whole), ("quick-2/ide/1", &*whole), ("broken", "{}"), ("a-later", &*whole)];
    for (second, (run, json)) in (WRITTEN_S..).zip(runs) {
        let path = folder.path().join(run);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("run.json"), json).unwrap();
        let file = fs::File::options().write(true).open(path.join("run.json")).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(second)).unwrap();
    }
    let interrupted = RunStatus::Partial { reason: "interrupted".to_owned() };
    let mut partial = example::summary();
    partial.facts.status = interrupted;
    for (run, summary) in [("demo-1", example::summary()), ("quick-2/ide/1", partial)] {
        let json = serde_json::to_vec(&summary).unwrap();
        fs::write(folder.path().join(run).join("summary.json"), json).unwrap();
    }
    fs::create_dir(folder.path().join("empty")).unwrap();
    folder
}

/// Its list, and what was told of the runs that had to be analysed.
pub(super) fn listed(folder: &Path) -> (Runs, Vec<String>) {
    let mut analysed = Vec::new();
    let found = find(folder).unwrap();
    let runs = list(folder, &found, |run, why| analysed.push(format!("{run}: {why}")));
    (runs, analysed)
}
