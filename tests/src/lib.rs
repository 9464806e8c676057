//! What the end-to-end tests need: `vslice` as a user runs it, and a look at what it left behind.

pub mod large;

use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The overflow uid, which every Linux has (`/proc/sys/kernel/overflowuid`), and which owns nothing.
const NOBODY: u32 = 65_534;

/// Says that a test could not judge here, which is neither a success nor a failure: its machine did not
/// let it. `because` has the figure that was measured. `make test` lists these lines at its end.
///
/// # Errors
/// Never: so that a test can end with it.
pub fn not_judged<Error>(test: &str, because: &str) -> Result<(), Error> {
    // Not by `eprintln!`, which the test harness keeps to itself when a test passes.
    let _ = writeln!(io::stderr(), "\n{test}: not judged, because {because}");
    Ok(())
}

/// The built `vslice` and a guest image; a lab that lacks one of them says which.
#[derive(Debug, Clone)]
pub struct Lab {
    vslice: PathBuf,
    image: PathBuf,
    /// Where programs are looked for before all other places.
    tools: Option<PathBuf>,
}

impl Lab {
    /// Finds the lab by the environment variables `VSLICE_BIN` and `VSLICE_IMAGE`, which
    /// `make test` sets.
    ///
    /// # Errors
    /// Why guests cannot be booted here, for the ignored tests to say.
    pub fn find() -> Result<Lab, String> {
        let find = |variable: &str, file: &str| {
            let path = std::env::var_os(variable).map(PathBuf::from);
            let path = path.ok_or(format!("{variable} is not set, see make test"))?;
            let file = if file.is_empty() { path.clone() } else { path.join(file) };
            if file.exists() {
                Ok(path)
            } else {
                Err(format!("{} is not there, see make test", file.display()))
            }
        };
        if !nix::unistd::geteuid().is_root() {
            return Err(String::from("recording needs root"));
        }
        let (vslice, image) = (find("VSLICE_BIN", "")?, find("VSLICE_IMAGE", "vmlinux")?);
        Ok(Lab { vslice, image, tools: None })
    }

    /// The same with the programs of this directory, QEMU above all.
    #[must_use]
    pub fn with_tools(self, directory: PathBuf) -> Lab {
        Lab { tools: Some(directory), ..self }
    }

    /// The same with the guests of this image.
    #[must_use]
    pub fn with_image(self, image: PathBuf) -> Lab {
        Lab { image, ..self }
    }

    /// The image directory.
    #[must_use]
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// `vslice` with `arguments`, to be changed and started by the test.
    #[must_use]
    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(&self.vslice);
        command.args(arguments).env("VSLICE_IMAGE", &self.image).env("NO_COLOR", "1");
        command.envs(self.tools.iter().map(|tools| ("VSLICE_TOOLS", tools)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a plan to its end, into a directory that goes with the result.
    ///
    /// # Errors
    /// If there is no directory for it, or `vslice` cannot be started.
    pub fn run(&self, arguments: &[&str]) -> io::Result<Run> {
        self.start(arguments)?.finish()
    }

    /// Whether a user without any rights can run this `vslice` with this image.
    ///
    /// # Errors
    /// What is out of that user's reach, for the ignored tests to say.
    pub fn may_be_used_by_anybody(&self) -> Result<(), String> {
        let reaches = |program: &Path, arguments: &[&OsStr]| {
            let mut command = Command::new(program);
            command.args(arguments).uid(NOBODY).gid(NOBODY).stdin(Stdio::null());
            command.output().is_ok_and(|output| output.status.success())
        };
        if !reaches(&self.vslice, &[OsStr::new("--version")]) {
            return Err(format!("{} is out of an ordinary user's reach", self.vslice.display()));
        }
        let kernel = self.image.join("vmlinux");
        if !reaches(Path::new("test"), &[OsStr::new("-r"), kernel.as_os_str()]) {
            return Err(format!("{} is out of an ordinary user's reach", kernel.display()));
        }
        Ok(())
    }

    /// Runs a plan to its end as a user without any rights.
    ///
    /// # Errors
    /// As [`Lab::run`].
    pub fn run_as_nobody(&self, arguments: &[&str]) -> io::Result<Run> {
        let dir = tempfile::Builder::new().prefix("lab-").tempdir_in("/var/tmp")?;
        std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY))?;
        let mut command = self.command(&["run"]);
        command.args(arguments).arg("--output").arg(run_dir(&dir));
        // Without a home of its own it would look for programs in the caller's.
        command.uid(NOBODY).gid(NOBODY).env("HOME", dir.path()).current_dir(dir.path());
        Started { child: command.spawn()?, dir }.finish()
    }

    /// Starts a plan and returns while it goes on.
    ///
    /// # Errors
    /// As [`Lab::run`].
    pub fn start(&self, arguments: &[&str]) -> io::Result<Started> {
        let dir = scratch()?;
        let child =
            self.command(&["run"]).args(arguments).arg("--output").arg(run_dir(&dir)).spawn();
        Ok(Started { child: child?, dir })
    }
}

/// On the disk that the workspace is on: a `/tmp` in memory has no `O_DIRECT`.
fn scratch() -> io::Result<TempDir> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tmp");
    fs::create_dir_all(&target)?;
    tempfile::Builder::new().prefix("lab-").tempdir_in(target.canonicalize()?)
}

fn run_dir(dir: &TempDir) -> PathBuf {
    dir.path().join("run")
}

/// A run that goes on.
#[derive(Debug)]
pub struct Started {
    child: Child,
    dir: TempDir,
}

impl Started {
    /// The collector's pid.
    #[must_use]
    pub fn pid(&self) -> nix::unistd::Pid {
        let pid = i32::try_from(self.child.id()).expect("Linux pids fit 22 bits");
        nix::unistd::Pid::from_raw(pid)
    }

    /// The run directory, which may not be there yet.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        run_dir(&self.dir)
    }

    /// Waits until `seen` says so.
    ///
    /// # Errors
    /// When the run ends before that, or nothing is seen for `timeout`.
    pub fn wait_until(
        &mut self,
        timeout: Duration,
        seen: impl Fn(&Path) -> bool,
    ) -> Result<(), String> {
        let deadline = Instant::now() + timeout;
        while !seen(&self.run_dir()) {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("the run ended too early: {status}"));
            }
            if Instant::now() > deadline {
                return Err(format!("nothing was seen for {timeout:?}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If its output cannot be read.
    pub fn finish(self) -> io::Result<Run> {
        let collector = self.child.id();
        Ok(Run { output: self.child.wait_with_output()?, dir: self.dir, collector })
    }
}

/// A run that has ended.
#[derive(Debug)]
pub struct Run {
    output: Output,
    dir: TempDir,
    /// The collector's pid, which is in the names of what it makes for the time of a run.
    collector: u32,
}

impl Run {
    /// The exit code; `None` after a signal.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.output.status.code()
    }

    /// What it said on standard error.
    #[must_use]
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// What it printed on standard output.
    #[must_use]
    pub fn printed(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    /// The run directory.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        run_dir(&self.dir)
    }

    /// The run's `summary.json`.
    ///
    /// # Errors
    /// That there is none, with all that the run said.
    pub fn summary(&self) -> Result<Value, String> {
        let path = self.run_dir().join("summary.json");
        let text = fs::read_to_string(&path);
        let text = text.map_err(|error| {
            format!(
                "{}: {error}; {}; the run said:\n{}",
                path.display(),
                self.output.status,
                self.said()
            )
        })?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    /// That no process of the run is there: QEMU has the run directory on its command line, what
    /// serves it the private directory.
    ///
    /// # Errors
    /// The command lines of those that are still there.
    pub fn no_process_is_left(&self) -> Result<(), String> {
        let mut processes = processes_with(self.dir.path());
        processes.extend(processes_with(Path::new(&format!("/vslice-{}-", self.collector))));
        if processes.is_empty() { Ok(()) } else { Err(format!("left behind: {processes:#?}")) }
    }

    /// That neither a process of the run nor its private directory with sockets and disks nor its
    /// journal of affinities is there.
    ///
    /// # Errors
    /// What is.
    pub fn nothing_is_left(&self) -> Result<(), String> {
        self.no_process_is_left()?;
        let parent = std::env::var_os("VSLICE_TMP").map_or("/var/tmp".into(), PathBuf::from);
        let entries = fs::read_dir(&parent).map_err(|error| error.to_string())?.flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let of_run = |name: &String| {
            let owned = name.strip_prefix("vslice-").or(name.strip_prefix("affinity-"));
            owned.is_some_and(|owned| owned.starts_with(&format!("{}-", self.collector)))
        };
        let left: Vec<String> = names.filter(of_run).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("left in {parent:?}: {left:?}")) }
    }
}

/// The pids and command lines of processes whose command line names `path`.
#[must_use]
pub fn processes_with(path: &Path) -> Vec<(i32, String)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let needle = path.to_string_lossy().into_owned();
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let bytes = fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&bytes).replace('\0', " ");
            line.contains(&needle).then_some((pid, line))
        })
        .collect()
}
