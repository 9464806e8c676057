//! Finds run directories, and says what a path is that is not one.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use vslice_spec::quantity::counted;
use vslice_trace::RunDir;

/// How deep below a folder runs are looked for: those of an experiment lie three below `runs`.
const DEPTH_MAX: usize = 3;

/// Runs that are found in a folder at most.
const RUNS_MAX: usize = 1000;

/// Directories that are looked into at most: a folder may be `/`.
const DIRECTORIES_MAX: usize = 20_000;

/// What was found in a folder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// The runs, in the order in which their `run.json` was last written.
    pub paths: Vec<PathBuf>,
    /// Why there may be more, as a sentence without its full stop; `None` if there are no more.
    pub incomplete: Option<String>,
}

/// Whether this is the directory of a run, complete or not.
#[must_use]
pub fn is_run(path: &Path) -> bool {
    RunDir::open(path).is_ok()
}

/// The runs below a folder. Symbolic links are not followed: a run is where it is.
///
/// # Errors
/// When the folder cannot be listed.
pub fn find(folder: &Path) -> io::Result<Found> {
    find_within(folder, RUNS_MAX, DIRECTORIES_MAX)
}

fn find_within(folder: &Path, runs_max: usize, directories_max: usize) -> io::Result<Found> {
    let mut search =
        Search { runs_max, directories_left: directories_max, found: Found::default() };
    search.look(folder, DEPTH_MAX)?;
    search.found.paths.sort_by_cached_key(|path| (written(path), path.clone()));
    Ok(search.found)
}

/// When the `run.json` of a run was last written: at its end, unless its collector was killed.
pub(super) fn written(run: &Path) -> Option<SystemTime> {
    fs::metadata(run.join("run.json")).and_then(|data| data.modified()).ok()
}

/// When any of a run's files was last written, which for one without an end is about when it ended.
pub(super) fn last_written(run: &Path) -> Option<SystemTime> {
    let files = fs::read_dir(run).ok()?.flatten();
    files.filter_map(|file| file.metadata().ok()?.modified().ok()).max()
}

struct Search {
    runs_max: usize,
    directories_left: usize,
    found: Found,
}

impl Search {
    fn look(&mut self, folder: &Path, depth: usize) -> io::Result<()> {
        for path in directories(folder)? {
            if self.found.paths.len() >= self.runs_max {
                self.may_be_more(format!(
                    "the list stops at {}",
                    counted(self.runs_max as u64, "run")
                ));
                break;
            }
            if self.directories_left == 0 {
                self.may_be_more("not all of its directories were searched".to_owned());
                break;
            }
            self.directories_left -= 1;
            if is_run(&path) {
                self.found.paths.push(path);
            } else if depth > 1
                && let Err(error) = self.look(&path, depth - 1)
            {
                self.may_be_more(format!("cannot list {}: {error}", path.display()));
            }
        }
        Ok(())
    }

    /// The first reason is the one that is told.
    fn may_be_more(&mut self, reason: String) {
        self.found.incomplete.get_or_insert(reason);
    }
}

/// The directories in a folder in order of their names.
fn directories(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            paths.push(entry.path());
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

/// Describes a path that is not a run and holds none, and says what to do, as a sentence without its full
/// stop.
#[must_use]
pub fn what_it_is(path: &Path) -> String {
    let shown = path.display();
    let data = match path.metadata() {
        Ok(data) => data,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return format!(
                "there is no {shown}; `vslice list` lists the runs that `vslice run` wrote to runs/"
            );
        }
        Err(error) => return format!("cannot look at {shown}: {error}"),
    };
    if data.is_dir() {
        return format!(
            "{shown} has no run in it: neither it nor any directory up to {DEPTH_MAX} levels below it has \
             the run.json that `vslice run` and `vslice attach` write"
        );
    }
    let parent = path.parent().map(|parent| match parent.as_os_str().is_empty() {
        true => Path::new("."),
        false => parent,
    });
    if let Some(run) = parent.filter(|parent| is_run(parent)) {
        return format!(
            "{shown} is a file of a run: for its report, use `vslice report {}`",
            run.display()
        );
    }
    if path.extension().is_some_and(|extension| extension == "toml") {
        return format!("{shown} is a file and may be a plan: to run it, use `vslice run {shown}`");
    }
    format!(
        "{shown} is a file and not a run: name the directory that `vslice run` or `vslice attach` wrote"
    )
}

#[cfg(test)]
mod tests {
    use super::super::example::folder;
    use super::*;

    fn names(found: &Found, folder: &Path) -> Vec<String> {
        let below = |path: &PathBuf| path.strip_prefix(folder).unwrap().display().to_string();
        found.paths.iter().map(below).collect()
    }

    #[test]
    fn runs_are_found_below_a_folder_the_latest_last() {
        let folder = folder();
        let found = find(folder.path()).unwrap();
        assert_eq!(names(&found, folder.path()), ["demo-1", "quick-2/ide/1", "broken", "a-later"]);
        assert_eq!(found.incomplete, None);
    }

    #[test]
    fn what_was_not_looked_at_is_told() {
        let folder = folder();
        let found = find_within(folder.path(), 1, 100).unwrap();
        assert_eq!(found.paths.len(), 1);
        assert_eq!(found.incomplete.as_deref(), Some("the list stops at 1 run"));
        let found = find_within(folder.path(), 100, 2).unwrap();
        assert_eq!(names(&found, folder.path()), ["broken", "a-later"]);
        let told = "not all of its directories were searched";
        assert_eq!(found.incomplete.as_deref(), Some(told));
        let all = find_within(folder.path(), 4, 7).unwrap();
        assert_eq!((all.paths.len(), all.incomplete), (4, None));
    }

    #[test]
    fn a_link_to_a_folder_above_it_is_not_followed() {
        let folder = folder();
        std::os::unix::fs::symlink(folder.path(), folder.path().join("again")).unwrap();
        assert_eq!(find(folder.path()).unwrap().paths.len(), 4);
    }

    #[test]
    fn what_is_no_run_is_told_what_it_is() {
        let folder = folder();
        let said = |name: &str| what_it_is(&folder.path().join(name));
        assert!(said("none").starts_with("there is no "), "{}", said("none"));
        assert!(said("empty").contains("has no run in it"), "{}", said("empty"));
        assert!(
            said("demo-1/run.json")
                .contains("is a file of a run: for its report, use `vslice report ")
        );
        fs::write(folder.path().join("mine.toml"), "").unwrap();
        assert!(
            said("mine.toml").contains("may be a plan: to run it, use `vslice run "),
            "{}",
            said("mine.toml")
        );
        fs::write(folder.path().join("disk.raw"), "").unwrap();
        assert!(said("disk.raw").contains("is a file and not a run"), "{}", said("disk.raw"));
        assert!(said("disk.raw/run").starts_with("cannot look at "), "{}", said("disk.raw/run"));
    }
}
