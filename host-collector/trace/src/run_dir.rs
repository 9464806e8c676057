//! The directory itself: which files it has, what may be in their names, and its JSON files.

use super::StoreError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use vslice_core::units::PcpuId;

/// The limit in bytes for JSON files of a run. None reaches it: what could grow is bounded when it is
/// written.
pub const JSON_BYTES_MAX: u64 = 64 << 20;

/// The file that keeps room for a run's last words while it is recorded.
pub const RESERVE: &str = ".reserve";

/// What the umask leaves of these.
const MODE_SHARED: u32 = 0o666;
const MODE_PRIVATE: u32 = 0o600;

/// A VM's name as it may appear in a file's name: 1 to 32 of `a-z`, `0-9` and `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VmName(String);

impl VmName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for VmName {
    type Error = StoreError;

    fn try_from(name: &str) -> Result<Self, StoreError> {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if (1..=32).contains(&name.len()) && name.bytes().all(allowed) {
            Ok(VmName(name.to_owned()))
        } else {
            // The name may come from anywhere and the message goes to a terminal: `{:?}` escapes,
            // and the length is cut.
            Err(StoreError::BadVmName(name.chars().take(40).collect()))
        }
    }
}

impl TryFrom<String> for VmName {
    type Error = StoreError;

    fn try_from(name: String) -> Result<Self, StoreError> {
        VmName::try_from(name.as_str())
    }
}

impl From<VmName> for String {
    fn from(name: VmName) -> String {
        name.0
    }
}

impl std::fmt::Display for VmName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A directory that holds one run.
#[derive(Debug, Clone)]
pub struct RunDir {
    path: PathBuf,
    /// The directories that [`RunDir::create`] made for it, the innermost first; what was there is somebody's.
    made: Vec<PathBuf>,
}

impl RunDir {
    /// Makes a directory, and its parents, for a new run.
    ///
    /// # Errors
    /// [`StoreError::NotEmpty`] if there is something in it already.
    pub fn create(path: &Path) -> Result<RunDir, StoreError> {
        let error = |doing| move |source| StoreError::Io { doing, path: path.into(), source };
        let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
        let made = path.ancestors().take_while(is_missing).map(Path::to_owned).collect();
        let run = RunDir { path: path.into(), made };
        if let Err(source) = fs::create_dir_all(path) {
            run.remove_made();
            return Err(error("create the directory")(source));
        }
        let mut entries = fs::read_dir(path).map_err(error("list"))?;
        if entries.next().is_some() {
            return Err(StoreError::NotEmpty(path.into()));
        }
        Ok(run)
    }

    /// Removes the directories that were made for it, as far as they are empty.
    fn remove_made(&self) {
        for directory in &self.made {
            let _may_not_be_there_or_not_empty = fs::remove_dir(directory);
        }
    }

    /// Opens the directory of a run, finished or not.
    ///
    /// # Errors
    /// [`StoreError::NotARun`] if nothing in it looks like one.
    pub fn open(path: &Path) -> Result<RunDir, StoreError> {
        let run = RunDir { path: path.into(), made: Vec::new() };
        let names = run.file_names()?;
        if names.iter().any(|name| name == "run.json" || name.ends_with(".vsr")) {
            Ok(run)
        } else {
            Err(StoreError::NotARun(path.into()))
        }
    }

    /// Removes a run that came to nothing: its files, and the directories that [`RunDir::create`] made, if they are
    /// empty. What is not a run's or cannot be removed stays, with its directory.
    pub fn discard(&self) {
        for name in self.file_names().unwrap_or_default().iter().filter(|name| is_of_a_run(name)) {
            let _stays = fs::remove_file(self.path.join(name));
        }
        self.remove_made();
    }

    /// Whether a recording leaves a file of this name in such a directory, also one that was killed.
    #[must_use]
    pub fn has_such_a_file(name: &str) -> bool {
        is_of_a_run(name)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file of one pCPU's scheduling events.
    #[must_use]
    pub fn events_path(&self, pcpu: PcpuId) -> PathBuf {
        self.path.join(format!("events-{}.vsr", pcpu.0))
    }

    /// The file of one guest's requests.
    #[must_use]
    pub fn requests_path(&self, vm: &VmName) -> PathBuf {
        self.path.join(format!("requests-{vm}.vsr"))
    }

    /// The file of the block requests that were observed in one guest.
    #[must_use]
    pub fn observed_path(&self, vm: &VmName) -> PathBuf {
        self.path.join(format!("observed-{vm}.vsr"))
    }

    /// The file of one guest's clock exchanges.
    #[must_use]
    pub fn clock_path(&self, vm: &VmName) -> PathBuf {
        self.path.join(format!("clock-{vm}.vsr"))
    }

    /// The file of the gaps of one guest's hogs.
    #[must_use]
    pub fn hog_gaps_path(&self, vm: &VmName) -> PathBuf {
        self.path.join(format!("gaps-{vm}.vsr"))
    }

    /// The file of the samples of one VM's threads.
    #[must_use]
    pub fn samples_path(&self, vm: &VmName) -> PathBuf {
        self.path.join(format!("samples-{vm}.vsr"))
    }

    /// The file of the kernel stacks' addresses.
    #[must_use]
    pub fn stacks_path(&self) -> PathBuf {
        self.path.join("stacks.vsr")
    }

    /// The file of the control groups' paths.
    #[must_use]
    pub fn groups_path(&self) -> PathBuf {
        self.path.join("groups.vsr")
    }

    /// The pCPUs that have a stream, in ascending order.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the directory cannot be listed.
    pub fn event_pcpus(&self) -> Result<Vec<PcpuId>, StoreError> {
        let number = |name: &String| between(name, "events-", ".vsr")?.parse().ok().map(PcpuId);
        let mut pcpus: Vec<PcpuId> = self.file_names()?.iter().filter_map(number).collect();
        pcpus.sort_unstable();
        Ok(pcpus)
    }

    /// The guests that have a stream of requests, in order of their names.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the directory cannot be listed.
    pub fn request_vms(&self) -> Result<Vec<VmName>, StoreError> {
        let vm = |name: &String| VmName::try_from(between(name, "requests-", ".vsr")?).ok();
        let mut vms: Vec<VmName> = self.file_names()?.iter().filter_map(vm).collect();
        vms.sort_unstable();
        Ok(vms)
    }

    /// The size of all streams together, in bytes.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the directory cannot be listed.
    pub fn streams_bytes(&self) -> Result<u64, StoreError> {
        let names = self.file_names()?;
        let streams = names.iter().filter(|name| name.ends_with(".vsr"));
        let sizes = streams.map(|name| fs::metadata(self.path.join(name)).map_or(0, |m| m.len()));
        Ok(sizes.sum())
    }

    /// Returns once every stream is on the disk.
    ///
    /// # Errors
    /// [`StoreError::Io`] with the path of the first that is not.
    pub fn sync_streams(&self) -> Result<(), StoreError> {
        let names = self.file_names()?;
        for name in names.iter().filter(|name| name.ends_with(".vsr")) {
            let path = self.path.join(name);
            // fsync(2) needs no right to write, and writes what others have written to the file.
            let synced = File::open(&path).and_then(|file| file.sync_all());
            synced.map_err(|source| StoreError::Io { doing: "write", path, source })?;
        }
        Ok(())
    }

    /// Writes a JSON file so that a reader sees the old one or the new one, whole, whatever
    /// happens. `name` is a constant of the caller, such as `"run.json"`.
    ///
    /// # Errors
    /// [`StoreError::Io`] with the path; the file that was there before is untouched then.
    ///
    /// # Panics
    /// If `name` is not a plain file name: names from outside never come here.
    pub fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), StoreError> {
        self.write_json_as(name, value, MODE_SHARED)
    }

    /// The same for what is nobody else's business, as command lines are: only the owner may read it, as
    /// it is with what perf records.
    ///
    /// # Errors
    /// As [`RunDir::write_json`].
    pub fn write_private_json(&self, name: &str, value: &impl Serialize) -> Result<(), StoreError> {
        self.write_json_as(name, value, MODE_PRIVATE)
    }

    fn write_json_as(
        &self,
        name: &str,
        value: &impl Serialize,
        mode: u32,
    ) -> Result<(), StoreError> {
        assert!(is_plain(name), "{name:?} is not a plain file name");
        let path = self.path.join(name);
        let part = self.path.join(format!(".{name}.tmp"));
        let mut json = serde_json::to_vec_pretty(value)
            .map_err(|source| StoreError::Json { path: path.clone(), source })?;
        json.push(b'\n');
        let result = write_synced(&part, &json, mode).and_then(|()| fs::rename(&part, &path));
        let result = result.and_then(|()| sync_directory(&self.path));
        result.map_err(|source| {
            // The half-written file would only fill the disk further.
            let _ = fs::remove_file(&part);
            StoreError::Io { doing: "write", path, source }
        })
    }

    /// Reads a JSON file of the run.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::TooLarge`] or [`StoreError::Json`], each with the path.
    pub fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<T, StoreError> {
        let path = self.path.join(name);
        let error = |source| StoreError::Io { doing: "read", path: path.clone(), source };
        let mut json = Vec::new();
        let file = File::open(&path).map_err(error)?;
        file.take(JSON_BYTES_MAX + 1).read_to_end(&mut json).map_err(error)?;
        if json.len() as u64 > JSON_BYTES_MAX {
            return Err(StoreError::TooLarge { path, limit_bytes: JSON_BYTES_MAX });
        }
        serde_json::from_slice(&json).map_err(|source| StoreError::Json { path, source })
    }

    /// The names in the directory that are UTF-8; all that vslice writes are.
    fn file_names(&self) -> Result<Vec<String>, StoreError> {
        let error = |source| StoreError::Io { doing: "list", path: self.path.clone(), source };
        let entries = fs::read_dir(&self.path).map_err(error)?;
        let name = |entry: io::Result<fs::DirEntry>| match entry {
            Ok(entry) => entry.file_name().into_string().ok().map(Ok),
            Err(source) => Some(Err(error(source))),
        };
        entries.filter_map(name).collect()
    }
}

fn write_synced(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    set_mode(&mut options, mode);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(unix)]
fn set_mode(options: &mut OpenOptions, mode: u32) {
    std::os::unix::fs::OpenOptionsExt::mode(options, mode);
}

/// Runs are recorded on Linux; where one is only read, nothing private is written.
#[cfg(not(unix))]
fn set_mode(_: &mut OpenOptions, _: u32) {}

/// Makes a rename in this directory last.
#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Elsewhere a directory is no file that could be synced.
#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

fn between<'a>(name: &'a str, before: &str, after: &str) -> Option<&'a str> {
    name.strip_prefix(before)?.strip_suffix(after)
}

/// Whether a recording gives a file such a name.
fn is_of_a_run(name: &str) -> bool {
    [".vsr", ".json", ".json.tmp"].iter().any(|end| name.ends_with(end)) || name == RESERVE
}

fn is_plain(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_private_is_its_owners_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let run = RunDir::create(scratch.path()).unwrap();
        run.write_private_json("threads.json", &1).unwrap();
        run.write_json("run.json", &1).unwrap();
        let others = |name| fs::metadata(run.path.join(name)).unwrap().permissions().mode() & 0o077;
        assert_eq!(others("threads.json"), 0);
        assert_ne!(others("run.json"), 0, "the umask of this test leaves nothing to see");
    }

    #[test]
    fn only_streams_count_as_streams() {
        let scratch = tempfile::tempdir().unwrap();
        let run = RunDir::create(scratch.path()).unwrap();
        for (name, bytes) in [("events-0.vsr", 3), ("stacks.vsr", 4), ("run.json", 100)] {
            fs::write(run.path().join(name), vec![0; bytes]).unwrap();
        }
        assert_eq!(run.streams_bytes().unwrap(), 7);
    }

    #[test]
    fn a_run_never_overwrites_another_one() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("a/b");
        let run = RunDir::create(&path).unwrap();
        assert!(matches!(RunDir::open(&path), Err(StoreError::NotARun(_))));
        RunDir::create(&path).expect("an empty directory is fine");
        run.write_json("run.json", &1).unwrap();
        assert!(matches!(RunDir::create(&path), Err(StoreError::NotEmpty(_))));
        RunDir::open(&path).unwrap();
    }

    #[test]
    fn a_run_that_came_to_nothing_takes_nothing_of_the_users_along() {
        let scratch = tempfile::tempdir().unwrap();
        let discarded = |path: &Path| {
            let run = RunDir::create(path).unwrap();
            run.write_json("run.json", &1).unwrap();
            fs::write(run.events_path(PcpuId(0)), b"").unwrap();
            run
        };
        let made = scratch.path().join("made");
        discarded(&made).discard();
        assert!(!made.exists());
        let users = scratch.path().join("users");
        fs::create_dir(&users).unwrap();
        discarded(&users).discard();
        assert_eq!(fs::read_dir(&users).unwrap().count(), 0, "it is the user's, and empty again");
        let run = discarded(&made);
        fs::write(made.join("notes.txt"), b"mine").unwrap();
        run.discard();
        assert_eq!(RunDir { path: made, made: vec![] }.file_names().unwrap(), ["notes.txt"]);
    }

    #[test]
    fn a_run_that_came_to_nothing_leaves_no_folder_that_was_made_for_it() {
        let scratch = tempfile::tempdir().unwrap();
        let runs = scratch.path().join("there/runs");
        fs::create_dir(scratch.path().join("there")).unwrap();
        RunDir::create(&runs.join("demo-1")).unwrap().discard();
        assert!(!runs.exists() && scratch.path().join("there").exists());
        // Another run has come into it meanwhile.
        let run = RunDir::create(&runs.join("demo-1")).unwrap();
        RunDir::create(&runs.join("demo-2")).unwrap();
        run.discard();
        assert_eq!(fs::read_dir(&runs).unwrap().count(), 1);
        // What cannot be made leaves nothing either: no name may have so many bytes.
        let parent = scratch.path().join("new");
        let too_long = parent.join("n".repeat(300));
        assert!(matches!(RunDir::create(&too_long), Err(StoreError::Io { .. })));
        assert!(!parent.exists());
    }

    #[test]
    fn json_is_replaced_whole_and_nothing_else_is_left() {
        let scratch = tempfile::tempdir().unwrap();
        let run = RunDir::create(scratch.path()).unwrap();
        run.write_json("run.json", &vec![1, 2]).unwrap();
        run.write_json("run.json", &vec![3]).unwrap();
        assert_eq!(run.read_json::<Vec<u32>>("run.json").unwrap(), [3]);
        assert_eq!(run.file_names().unwrap(), ["run.json"]);
        assert!(matches!(run.read_json::<String>("run.json"), Err(StoreError::Json { .. })));
        assert!(matches!(run.read_json::<String>("none.json"), Err(StoreError::Io { .. })));
    }

    #[test]
    fn names_from_guests_never_become_paths() {
        let too_long = "a".repeat(33);
        for name in ["", "..", "a/b", "A", "vm 1", "vm\u{1b}", "vm.vsr", &too_long] {
            assert!(VmName::try_from(name).is_err(), "{name:?}");
        }
        assert_eq!(VmName::try_from("vm-1").unwrap().as_str(), "vm-1");
        assert!(serde_json::from_str::<VmName>("\"../etc\"").is_err());
        let message = VmName::try_from("\u{1b}[2J").unwrap_err().to_string();
        assert!(!message.contains('\u{1b}'), "{message}");
    }

    #[test]
    fn streams_are_found_by_their_names() {
        let scratch = tempfile::tempdir().unwrap();
        let run = RunDir::create(scratch.path()).unwrap();
        let vm = VmName::try_from("vm1").unwrap();
        for path in [
            run.events_path(PcpuId(10)),
            run.events_path(PcpuId(2)),
            run.requests_path(&vm),
            run.path().join("events-x.vsr"),
            run.path().join("requests-A B.vsr"),
        ] {
            File::create(path).unwrap();
        }
        assert_eq!(run.event_pcpus().unwrap(), [PcpuId(2), PcpuId(10)]);
        assert_eq!(run.request_vms().unwrap(), [vm]);
    }
}
