//! Child processes that never outlive the collector, and whose end never goes unnoticed.
#![expect(unsafe_code, reason = "Command::pre_exec: what a child does between fork and exec")]

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::{Pid, getpid, getppid};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use thiserror::Error;
use vslice_core::text::harmless;
use vslice_core::units::{PcpuId, Tid};

/// How often a process that should end is asked whether it has.
const POLL: Duration = Duration::from_millis(10);

/// More than any log or console needs, in bytes; see [`ChildSpec::file_bytes_max`].
pub const LOG_BYTES_MAX: u64 = 64 << 20;

/// What to start.
#[derive(Debug, Clone)]
pub struct ChildSpec {
    /// What errors call it, such as "QEMU of vm1".
    pub title: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Where its output goes.
    pub log: PathBuf,
    /// The only pCPU that it may run on, if that is fixed from its first instruction.
    pub pcpu: Option<PcpuId>,
    /// The largest file that it may write, in bytes. A guest writes to its console as much as it
    /// likes, and must not fill the host's disk by it.
    pub file_bytes_max: Option<u64>,
}

/// Why a child is not there.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// It did not start.
    #[error("cannot start {title} ({program}): {source}")]
    Start {
        /// What it is.
        title: String,
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It has ended by itself.
    #[error("{title} {how}: {last_words}")]
    Ended {
        /// What it was.
        title: String,
        /// `ended with status 1`, `was ended by signal 9`.
        how: String,
        /// The last line of its log, or what there is instead.
        last_words: String,
    },
    /// Its state is unknown.
    #[error("cannot watch {title}: {source}")]
    Watch {
        /// What it is.
        title: String,
        /// Why.
        source: io::Error,
    },
}

/// A running child. Dropping it ends it at once.
#[derive(Debug)]
pub struct SupervisedChild {
    title: String,
    log: PathBuf,
    child: Child,
}

impl SupervisedChild {
    /// Starts a child that the kernel kills when **the thread that calls this** ends, by whatever
    /// cause (`PR_SET_PDEATHSIG`, prctl(2)): call it on a thread that lives as long as the run.
    ///
    /// The child is in a process group of its own, so that Ctrl-C reaches the collector alone and
    /// the collector ends its guests in order.
    ///
    /// # Errors
    /// [`ProcessError::Start`].
    pub fn start(spec: &ChildSpec) -> Result<SupervisedChild, ProcessError> {
        SupervisedChild::try_start(spec).map_err(|source| ProcessError::Start {
            title: spec.title.clone(),
            program: spec.program.clone(),
            source,
        })
    }

    fn try_start(spec: &ChildSpec) -> io::Result<SupervisedChild> {
        let log = File::create(&spec.log)?;
        let affinity = spec.pcpu.map(affinity_set).transpose()?;
        let (collector, file_bytes_max) = (getpid(), spec.file_bytes_max);
        let mut command = Command::new(&spec.program);
        command
            .args(&spec.args)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        let before_exec =
            move || prepare_child(collector, affinity.as_ref(), file_bytes_max).map_err(Into::into);
        // SAFETY: `prepare_child` makes system calls and copies plain values; it allocates nothing
        // and takes no lock, so it may run between fork and exec of a process with threads.
        unsafe { command.pre_exec(before_exec) };
        let child = command.spawn()?;
        Ok(SupervisedChild { title: spec.title.clone(), log: spec.log.clone(), child })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Tid {
        Tid(self.child.id())
    }

    /// What errors call it.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Its status if it has ended, whatever the reason.
    ///
    /// # Errors
    /// [`ProcessError::Watch`].
    pub fn status(&mut self) -> Result<Option<ExitStatus>, ProcessError> {
        let title = &self.title;
        self.child.try_wait().map_err(|source| ProcessError::Watch { title: title.clone(), source })
    }

    /// That it is still there.
    ///
    /// # Errors
    /// [`ProcessError::Ended`] with its last words if it is not.
    pub fn check(&mut self) -> Result<(), ProcessError> {
        match self.status()? {
            None => Ok(()),
            Some(status) => Err(ProcessError::Ended {
                title: self.title.clone(),
                how: describe(status),
                last_words: last_line(&self.log)
                    .unwrap_or_else(|| format!("its log {} is empty", self.log.display())),
            }),
        }
    }

    /// Ends it: asks first (SIGTERM), kills it after `grace`, and waits until it is gone.
    pub fn stop(&mut self, grace: Duration) {
        self.ask_to_end();
        self.wait_or_kill(grace);
    }

    /// Sends SIGTERM and does not wait.
    pub fn ask_to_end(&mut self) {
        // Until it is waited for, the id is this child's even if it has ended: no other process
        // can be hit.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        }
    }

    /// Waits until it has ended, and kills it if that takes longer than `grace`.
    pub fn wait_or_kill(&mut self, grace: Duration) {
        let deadline = Instant::now() + grace;
        while Instant::now() < deadline {
            match self.child.try_wait() {
                Ok(None) => thread::sleep(POLL),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for SupervisedChild {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the child does before it becomes the program. Async-signal-safe, see signal-safety(7).
fn prepare_child(
    collector: Pid,
    affinity: Option<&CpuSet>,
    file_bytes_max: Option<u64>,
) -> Result<(), Errno> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // Had the collector ended before the line above, no signal would ever come.
    if getppid() != collector {
        return Err(Errno::ESRCH);
    }
    // A core file would be left in whatever directory the collector was started in.
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    if let Some(set) = affinity {
        sched_setaffinity(Pid::from_raw(0), set)?;
    }
    if let Some(bytes) = file_bytes_max {
        // Ignored, so that a write beyond the limit is an error to the child and not its end.
        // SAFETY: SIG_IGN runs no code of this process.
        unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }?;
        setrlimit(Resource::RLIMIT_FSIZE, bytes, bytes)?;
    }
    Ok(())
}

fn affinity_set(pcpu: PcpuId) -> io::Result<CpuSet> {
    let mut set = CpuSet::new();
    set.set(usize::try_from(pcpu.0).map_err(io::Error::other)?)?;
    Ok(set)
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with status {code}"),
        (None, Some(number)) => format!("was ended by signal {number}"),
        (None, None) => "ended".to_owned(),
    }
}

/// The last line of a file that is not blank, without what could steer a terminal. Reads only the
/// end of the file, however long it is.
#[must_use]
pub fn last_line(path: &Path) -> Option<String> {
    let size_bytes = fs::metadata(path).ok()?.len();
    lines_from(path, size_bytes.saturating_sub(EXCERPT_BYTES)).pop()
}

/// The last line near the end of a file that has `part` in it, in the same way.
#[must_use]
pub fn last_line_with(path: &Path, part: &str) -> Option<String> {
    let size_bytes = fs::metadata(path).ok()?.len();
    let lines = lines_from(path, size_bytes.saturating_sub(EXCERPT_BYTES));
    lines.into_iter().rfind(|line| line.contains(part))
}

/// The first line of a file that is neither blank nor a warning, without what could steer a
/// terminal. Of a program that ended at once this is the cause, and what follows it are effects.
#[must_use]
pub fn first_complaint(path: &Path) -> Option<String> {
    lines_from(path, 0).into_iter().find(|line| !line.contains("warning:"))
}

/// How much of a log is looked at from either end, in bytes.
const EXCERPT_BYTES: u64 = 4096;

fn lines_from(path: &Path, offset_bytes: u64) -> Vec<String> {
    let mut excerpt = Vec::new();
    let read = File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::Start(offset_bytes))?;
        file.take(EXCERPT_BYTES).read_to_end(&mut excerpt)
    });
    if read.is_err() {
        return Vec::new();
    }
    String::from_utf8_lossy(&excerpt)
        .lines()
        .map(|line| harmless(line.trim()))
        .filter(|line| !line.is_empty())
        .collect()
}

/// Waits until `path` exists, as long as `child` is there to make it.
///
/// # Errors
/// [`ProcessError::Ended`] if it ends, [`ProcessError::Watch`] after `limit`.
pub fn wait_for_file(
    child: &mut SupervisedChild,
    path: &Path,
    limit: Duration,
) -> Result<(), ProcessError> {
    let deadline = Instant::now() + limit;
    while fs::symlink_metadata(path).is_err() {
        child.check()?;
        if Instant::now() >= deadline {
            return Err(ProcessError::Watch {
                title: child.title.clone(),
                source: io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("{} did not appear within {} s", path.display(), limit.as_secs()),
                ),
            });
        }
        thread::sleep(POLL);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_host::{pin, procfs};

    const LONG: Duration = Duration::from_secs(60);

    fn shell(directory: &Path, script: &str) -> ChildSpec {
        ChildSpec {
            title: "the test's shell".to_owned(),
            program: PathBuf::from("/bin/sh"),
            args: vec!["-c".into(), script.into()],
            log: directory.join("log"),
            pcpu: None,
            file_bytes_max: None,
        }
    }

    /// Waits for an end that is sure to come.
    fn wait(child: &mut SupervisedChild) -> ProcessError {
        loop {
            if let Err(error) = child.check() {
                return error;
            }
            thread::sleep(POLL);
        }
    }

    #[test]
    fn an_end_that_nobody_asked_for_is_told_with_its_last_words() {
        let directory = tempfile::tempdir().expect("scratch");
        let script = "echo first; printf 'qemu: \\033[31mno such disk\\n\\n' >&2; exit 3";
        let mut child = SupervisedChild::start(&shell(directory.path(), script)).expect("a shell");
        let message = wait(&mut child).to_string();
        assert_eq!(message, "the test's shell ended with status 3: qemu: ?[31mno such disk");

        let script = "kill -KILL $$";
        let mut child = SupervisedChild::start(&shell(directory.path(), script)).expect("a shell");
        let message = wait(&mut child).to_string();
        assert!(message.starts_with("the test's shell was ended by signal 9: its log "));
    }

    #[test]
    fn a_child_that_does_not_listen_is_killed() {
        let directory = tempfile::tempdir().expect("scratch");
        let ready = directory.path().join("ready");
        let script = format!("trap '' TERM; : > {}; while :; do sleep 1; done", ready.display());
        let mut child = SupervisedChild::start(&shell(directory.path(), &script)).expect("a shell");
        wait_for_file(&mut child, &ready, LONG).expect("it makes the file");
        child.stop(Duration::from_millis(50));
        let status = child.status().expect("it is known").expect("it has ended");
        assert_eq!(status.signal(), Some(9));
    }

    #[test]
    fn a_child_ends_with_the_thread_that_started_it() {
        let directory = tempfile::tempdir().expect("scratch");
        let spec = shell(directory.path(), "exec sleep 10");
        let start = move || SupervisedChild::start(&spec).expect("a shell");
        let mut child = thread::spawn(start).join().expect("it started the child and ended");
        let message = wait(&mut child).to_string();
        assert!(message.contains("was ended by signal 9"), "{message}");
    }

    #[test]
    fn dropping_a_child_ends_it() {
        let directory = tempfile::tempdir().expect("scratch");
        let spec = shell(directory.path(), "exec sleep 600");
        let child = SupervisedChild::start(&spec).expect("a shell");
        let pid = child.pid();
        let start = procfs::start_ticks(pid).expect("it runs");
        drop(child);
        assert!(!procfs::is_alive(pid, start));
    }

    #[test]
    fn a_child_runs_on_its_pcpu_and_writes_no_more_than_it_may() {
        let directory = tempfile::tempdir().expect("scratch");
        let own = Tid(std::process::id());
        let target = *pin::affinity(own).expect("it runs").last().expect("somewhere");
        let script = format!(
            "cd {}; head -c 100000 /dev/zero > big; : > done; exec sleep 600",
            directory.path().display()
        );
        let mut spec = shell(directory.path(), &script);
        (spec.pcpu, spec.file_bytes_max) = (Some(target), Some(4096));
        let mut child = SupervisedChild::start(&spec).expect("a shell");
        wait_for_file(&mut child, &directory.path().join("done"), LONG).expect("it goes on");
        assert_eq!(pin::affinity(child.pid()), Ok(vec![target]));
        let size_bytes = fs::metadata(directory.path().join("big")).expect("it is there").len();
        assert_eq!(size_bytes, 4096);
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let directory = tempfile::tempdir().expect("scratch");
        let mut spec = shell(directory.path(), "");
        spec.program = PathBuf::from("/nonexistent/qemu");
        let message = SupervisedChild::start(&spec).expect_err("no program").to_string();
        assert!(message.starts_with("cannot start the test's shell (/nonexistent/qemu)"));
    }
}
