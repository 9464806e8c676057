//! The directory of an experiment: for one vslice at a time, and for what it was begun with only.

use super::error::ExperimentError;
use super::matrix::Matrix;
use super::record::{Experiment, MadeWith};
use crate::plan::Plan;
use serde::Deserialize;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use vslice_report::analyse;
use vslice_report::summary::Summary;
use vslice_report::summary::model::RunStatus;

/// An experiment's directory, locked against other collectors for as long as this is there.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    _lock: File,
}

/// What an earlier part of the experiment was begun with. What became of its runs they tell themselves.
#[derive(Debug, Deserialize)]
struct Before {
    matrix: Matrix,
    plan: Plan,
    #[serde(default)]
    made_with: MadeWith,
}

impl Directory {
    /// This one, which is made.
    pub(super) fn open(path: &Path) -> Result<Directory, ExperimentError> {
        fs::create_dir_all(path)
            .map_err(|source| ExperimentError::NoDirectory { path: path.to_owned(), source })?;
        let lock = File::open(path).map_err(|source| io_error("open", path, source))?;
        match lock.try_lock() {
            Ok(()) => Ok(Directory { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(ExperimentError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(io_error("lock", path, source)),
        }
    }

    /// Whether an earlier part of this experiment is in it.
    ///
    /// # Errors
    /// [`ExperimentError::Other`] and [`ExperimentError::MadeWith`] if it is another's.
    pub(super) fn goes_on(&self, experiment: &Experiment) -> Result<bool, ExperimentError> {
        let other = || ExperimentError::Other { path: self.path.clone() };
        let path = self.path.join("experiment.json");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut entries = fs::read_dir(&self.path)
                    .map_err(|source| io_error("list", &self.path, source))?;
                return if entries.next().is_some() { Err(other()) } else { Ok(false) };
            }
            Err(source) => return Err(io_error("read", &path, source)),
        };
        let before: Before = serde_json::from_slice(&bytes).map_err(|_| other())?;
        if before.matrix.cells() != experiment.matrix.cells() || before.plan != experiment.plan {
            return Err(other());
        }
        match before.made_with.difference(&experiment.made_with) {
            Some(what) => Err(ExperimentError::MadeWith { path: self.path.clone(), what }),
            None => Ok(true),
        }
    }

    /// Of a run that came to its end. Any other is put aside, to be made again.
    pub(super) fn complete(
        &self,
        cell: &str,
        number: u16,
    ) -> Result<Option<Summary>, ExperimentError> {
        let path = self.run(cell, number);
        if !path.exists() {
            return Ok(None);
        }
        match analyse(&path) {
            Ok(summary) if summary.facts.status == RunStatus::Complete => Ok(Some(summary)),
            _ => put_aside(&path).map(|()| None),
        }
    }

    /// Writes `experiment.json`.
    pub(super) fn write(&self, experiment: &Experiment) -> Result<(), ExperimentError> {
        let path = self.path.join("experiment.json");
        let text = serde_json::to_vec_pretty(experiment).expect("it has string keys only");
        // Replaced as a whole, so that whoever is killed meanwhile leaves the one before.
        let new = self.path.join("experiment.json.new");
        fs::write(&new, text).map_err(|source| io_error("write", &new, source))?;
        fs::rename(&new, &path).map_err(|source| io_error("write", &path, source))
    }

    /// Where a cell's runs are.
    pub(super) fn cell(&self, cell: &str) -> PathBuf {
        self.path.join(cell)
    }

    /// Where a run is.
    pub(super) fn run(&self, cell: &str, number: u16) -> PathBuf {
        self.cell(cell).join(format!("run-{number}"))
    }
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> ExperimentError {
    ExperimentError::Io { doing, path: path.to_owned(), source }
}

/// Out of the way of a run that is made anew, and of whoever looks for runs.
fn put_aside(path: &Path) -> Result<(), ExperimentError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let aside = parent.join("ended-early");
    fs::create_dir_all(&aside)
        .map_err(|source| io_error("create the directory", &aside, source))?;
    let numbered = |count: u32| {
        let mut name = name.to_owned();
        name.push(format!("-{count}"));
        aside.join(name)
    };
    let mut count = 1;
    while numbered(count).exists() {
        count += 1;
    }
    fs::rename(path, numbered(count)).map_err(|source| io_error("move", path, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_only_what_it_was_begun_with() {
        let scratch = tempfile::tempdir().expect("scratch");
        let path = scratch.path().join("mine");
        let matrix = Matrix::load("quick").expect("built in");
        let plan = matrix.base_plan().expect("built in");
        let mut experiment = Experiment::new(matrix, plan, MadeWith::default(), Vec::new());
        experiment.made_with.qemu = Some("QEMU emulator version 7.2".to_owned());
        let directory = Directory::open(&path).expect("made");
        let held = Directory::open(&path).expect_err("another has it");
        assert!(held.to_string().starts_with("another vslice is writing "), "{held}");
        assert!(!directory.goes_on(&experiment).expect("it is empty"));
        directory.write(&experiment).expect("writable");
        drop(directory);
        let directory = Directory::open(&path).expect("nobody has it");
        assert!(directory.goes_on(&experiment).expect("the same"));
        experiment.made_with.image = serde_json::json!({"kernel": "6.1"});
        assert!(directory.goes_on(&experiment).expect("an earlier vslice did not say"));
        experiment.made_with.qemu = Some("QEMU emulator version 10.0".to_owned());
        let error = directory.goes_on(&experiment).expect_err("another QEMU").to_string();
        assert!(error.contains("was started with another QEMU"), "{error}");
        experiment.plan.name.push('x');
        let error = directory.goes_on(&experiment).expect_err("another plan");
        assert!(matches!(error, ExperimentError::Other { .. }), "{error}");
        fs::remove_file(path.join("experiment.json")).expect("there");
        fs::write(path.join("letter"), "dear").expect("writable");
        let error = directory.goes_on(&experiment).expect_err("something else");
        assert!(matches!(error, ExperimentError::Other { .. }), "{error}");
    }

    #[test]
    fn a_directory_that_cannot_be_made_can_be_made_elsewhere() {
        // A file is no place for a directory, also for root.
        let file = tempfile::NamedTempFile::new().expect("scratch");
        let said = Directory::open(&file.path().join("mine")).expect_err("a file").to_string();
        assert!(said.ends_with("; use `--output DIR` to choose another one"), "{said}");
    }

    #[test]
    fn a_run_that_is_not_complete_is_put_aside() {
        let scratch = tempfile::tempdir().expect("scratch");
        let directory = Directory::open(scratch.path()).expect("there");
        assert!(directory.complete("ide", 1).expect("nothing is there").is_none());
        for count in 1..=2 {
            fs::create_dir_all(directory.run("ide", 1)).expect("writable");
            assert!(directory.complete("ide", 1).expect("movable").is_none());
            let aside = directory.cell("ide").join(format!("ended-early/run-1-{count}"));
            assert!(aside.exists() && !directory.run("ide", 1).exists(), "{aside:?}");
        }
    }
}
