//! A process that imitates a VMM: its "vCPU" thread blocks for known causes, according to a script.
//!
//! ```text
//! collector                            scripted process (this program, hidden subcommand)
//! ScriptedProcess::start  ── script ──▶   main thread: holds locks, signals, otherwise asleep
//!   (find vcpu(), start to record)        vCPU thread: named and pinned, waits
//! ScriptedProcess::go     ── file ────▶   vCPU thread: the script's steps, nothing written meanwhile
//! ScriptedProcess::finish ◀─ JSON lines ─ ends
//! ```
//!
//! The thread that blocks logs each occurrence itself. Whether it really left its pCPU is known from the
//! kernel's counts of its context switches (getrusage(2), `RUSAGE_THREAD`).

mod fault_memory;
mod run;
mod steps;
mod sys;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use std::{fs, io};
use thiserror::Error;
use vslice_core::units::{HostNs, PcpuId, Tid};
use vslice_host::scratch::{self, PrivateDir, ScratchError};
use vslice_host::threads::{self, ThreadsError};
use vslice_lab::disk::{self, DiskError};
use vslice_lab::plan::DiskPlan;
use vslice_lab::process::{self, ChildSpec, ProcessError, SupervisedChild};

pub use run::run;

/// The hidden subcommand of `vslice` that [`ScriptedProcess::start`] gives its program.
pub const SUBCOMMAND: &str = "selftest-process";

/// The size of the file that [`Action::DirectRead`] and [`Action::FileFault`] read: the most faults there are
/// is one for each of its pages.
pub const FILE_BYTES: u64 = 8 << 20;

/// How often an action is tried for each time that it has to be proven, [`Occurrence::is_proven`]: where
/// others have the pCPU, a lock may be free again before it is waited for.
pub const TRIES: u32 = 4;

/// The time limit for the process to start its threads.
const START_LIMIT: Duration = Duration::from_secs(10);

const POLL: Duration = Duration::from_millis(5);

/// Something that takes a vCPU thread off its pCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A pthread mutex that the main thread holds for 1 ms: `FUTEX_WAIT_PRIVATE` (0x80), value 2.
    PthreadLock,
    /// A pthread condition without a time limit, signalled after 1 ms:
    /// `FUTEX_WAIT_BITSET_PRIVATE | FUTEX_CLOCK_REALTIME` (0x189).
    Condition,
    /// A pthread condition on `CLOCK_MONOTONIC` that nobody signals for 1 ms:
    /// `FUTEX_WAIT_BITSET_PRIVATE` (0x89).
    TimedCondition,
    /// Rust's own mutex, held for 1 ms by the main thread: `FUTEX_WAIT_BITSET_PRIVATE` (0x89).
    RustLock,
    /// `ppoll(2)` of nothing for 1 ms.
    Poll,
    /// `clock_nanosleep(2)` of 1 ms.
    Nanosleep,
    /// `sched_yield(2)` to a rival on the same pCPU.
    Yield,
    /// `pread(2)` of 4 KiB from an `O_DIRECT` file.
    DirectRead,
    /// The write of a page to the end of a file, and `fdatasync(2)`: on a disk's file system that waits
    /// for a thread of the kernel's, however fast the disk is.
    Flush,
    /// The first touch of a page that the main thread brings after 1 ms, by userfaultfd(2): however
    /// disk and page cache behave.
    Fault,
    /// The first touch of a page of a mapped file that is not in memory.
    FileFault,
    /// Nothing: runs for 10 ms, so that an injector can take it off its pCPU.
    Spin,
}

impl Action {
    /// All of them.
    pub const ALL: [Action; 12] = [
        Action::PthreadLock,
        Action::Condition,
        Action::TimedCondition,
        Action::RustLock,
        Action::Poll,
        Action::Nanosleep,
        Action::Yield,
        Action::DirectRead,
        Action::Flush,
        Action::Fault,
        Action::FileFault,
        Action::Spin,
    ];
}

/// A part of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What to do.
    pub action: Action,
    /// How often it has to happen; it is tried [`TRIES`] times as often at most. Of [`Action::Fault`] and of
    /// [`Action::FileFault`], a script has room for [`FILE_BYTES`] / 4096 tries.
    pub count: u32,
}

/// What the process does, step by step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// The name of its program, by which vslice recognises a VMM: `firecracker`.
    pub program_name: String,
    /// The name of its vCPU thread, at most 15 bytes: `CPU 0/KVM` for QEMU's, see
    /// [`vslice_host::threads::role`] for others.
    pub thread_name: String,
    /// The pCPU of the vCPU thread.
    pub pcpu: PcpuId,
    /// The pCPU of the main thread.
    pub main_pcpu: PcpuId,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

impl Script {
    /// The most tries of an action in this script.
    fn count(&self, action: Action) -> u64 {
        let steps = self.steps.iter().filter(|step| step.action == action);
        steps.map(|step| u64::from(step.count) * u64::from(TRIES)).sum()
    }
}

/// The argument of the hidden subcommand, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptArgument {
    /// What to do.
    pub script: Script,
    /// The process starts the script when this file exists.
    pub go: PathBuf,
    /// A file of [`FILE_BYTES`], clean, on a file system with `O_DIRECT`; [`Action::Flush`] adds to it.
    pub file: PathBuf,
}

/// The ids of the process and the addresses of its locks; a lock's address is the one that futex(2) gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// The process.
    pub pid: Tid,
    /// The vCPU thread.
    pub vcpu: Tid,
    /// Of [`Action::PthreadLock`].
    pub pthread_lock_address: u64,
    /// Of [`Action::Condition`]: the first of the condition's [`CONDITION_BYTES`], in which glibc
    /// chooses one word or another.
    pub condition_address: u64,
    /// The same of [`Action::TimedCondition`].
    pub timed_condition_address: u64,
    /// Of [`Action::RustLock`].
    pub rust_lock_address: u64,
    /// The actions of the script that this host does not allow.
    pub unavailable: Vec<UnavailableAction>,
}

/// An action that this host does not allow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnavailableAction {
    /// Which.
    pub action: Action,
    /// The reason, as a sentence without its full stop.
    pub why: String,
}

/// The size of a `pthread_cond_t`.
pub const CONDITION_BYTES: u64 = 48;

/// One execution of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occurrence {
    /// What.
    pub action: Action,
    /// Taken by the vCPU thread before the first of the kernel's counts.
    pub start: HostNs,
    /// And after the last one: what was counted lies between the two.
    pub end: HostNs,
    /// How often the thread went to sleep between `start` and `end`, by the kernel's count.
    pub voluntary_switches: u64,
    /// How often it was still runnable when it left its pCPU, `sched_yield` among them.
    pub involuntary_switches: u64,
    /// Major page faults between `start` and `end`, by the kernel's count.
    pub major_faults: u64,
    /// Whom an [`Action::Yield`] makes way for.
    pub rival: Option<Tid>,
}

impl Occurrence {
    /// Whether what was meant to happen did, by the kernel's own counts: the thread slept, gave way, or
    /// waited for a page. Nothing that was recorded has a part in it.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        match self.action {
            // It is to stay.
            Action::Spin => true,
            // One call gives way once: of two switches one was a preemption, and nobody says which.
            Action::Yield => self.involuntary_switches == 1,
            Action::FileFault => self.major_faults > 0 && self.voluntary_switches > 0,
            _ => self.voluntary_switches > 0,
        }
    }
}

/// Everything that a scripted process did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptLog {
    /// The process and its locks.
    pub process: ProcessInfo,
    /// All occurrences, in order of time.
    pub occurrences: Vec<Occurrence>,
}

/// Why a scripted process failed.
#[derive(Debug, Error)]
pub enum ScriptedProcessError {
    /// See [`ScratchError`].
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    /// See [`DiskError`].
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// See [`ProcessError`].
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// See [`ThreadsError`].
    #[error(transparent)]
    Threads(#[from] ThreadsError),
    /// A script is sent as text.
    #[error("cannot pass on the script: {0}")]
    Script(serde_json::Error),
    /// A file.
    #[error("file {path} of the scripted process: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// A system call of a step.
    #[error("{what} failed in the scripted process: {errno}")]
    Call {
        /// The call.
        what: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
    /// The memory whose pages the main thread brings.
    #[error("cannot provide a page that the vCPU thread of the scripted process waits for: {0}")]
    Page(io::Error),
    /// More faults than there are pages.
    #[error("a script can have at most {page_count} faults, one per page, not {fault_count}")]
    TooManyFaults {
        /// What it has.
        fault_count: u64,
        /// What it may have.
        page_count: u64,
    },
    /// See [`super::inject::InjectError`].
    #[error(transparent)]
    Inject(#[from] super::inject::InjectError),
    /// Its vCPU thread.
    #[error("the vCPU thread of the scripted process {0}")]
    Vcpu(&'static str),
    /// It takes too long.
    #[error("the scripted process {what} within {} s", limit.as_secs())]
    TimedOut {
        /// `did not finish`.
        what: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// Its output.
    #[error("cannot parse the log of the scripted process: {0}")]
    Log(String),
}

/// A running scripted process. Dropping it ends it.
#[derive(Debug)]
pub struct ScriptedProcess {
    child: SupervisedChild,
    directory: PrivateDir,
    vcpu: Tid,
}

impl ScriptedProcess {
    /// Starts the process and waits until its vCPU thread exists. `program` is the `vslice` executable.
    ///
    /// The kernel ends it when the calling **thread** ends, see [`SupervisedChild::start`].
    ///
    /// # Errors
    /// [`ScriptedProcessError`].
    pub fn start(program: &Path, script: &Script) -> Result<ScriptedProcess, ScriptedProcessError> {
        let directory = PrivateDir::create(&scratch::parent_dir())?;
        let file = directory.path().join("file");
        write_file(&file)?;
        let argument = ScriptArgument { script: script.clone(), go: go_path(&directory), file };
        let argument = serde_json::to_string(&argument).map_err(ScriptedProcessError::Script)?;
        // Programs are known by what they were started as.
        let named = directory.path().join(&script.program_name);
        symlink(program, &named)
            .map_err(|source| ScriptedProcessError::File { path: named.clone(), source })?;
        let mut child = SupervisedChild::start(&ChildSpec {
            title: "the scripted process".to_owned(),
            program: named,
            args: vec![SUBCOMMAND.into(), argument.into()],
            log: log_path(&directory),
            pcpu: None,
            file_bytes_max: Some(process::LOG_BYTES_MAX),
        })?;
        let vcpu = wait_for_vcpu(&mut child, &script.thread_name)?;
        Ok(ScriptedProcess { child, directory, vcpu })
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> Tid {
        self.child.pid()
    }

    /// The vCPU thread.
    #[must_use]
    pub fn vcpu(&self) -> Tid {
        self.vcpu
    }

    /// Lets the process start its script.
    ///
    /// # Errors
    /// [`ScriptedProcessError::File`].
    pub fn go(&self) -> Result<(), ScriptedProcessError> {
        let path = go_path(&self.directory);
        fs::write(&path, []).map_err(|source| ScriptedProcessError::File { path, source })
    }

    /// Waits until the process has finished its script.
    ///
    /// # Errors
    /// [`ScriptedProcessError::Process`] with its last words if it failed, [`ScriptedProcessError::TimedOut`] after
    /// `limit`, [`ScriptedProcessError::Log`].
    pub fn finish(mut self, limit: Duration) -> Result<ScriptLog, ScriptedProcessError> {
        let deadline = Instant::now() + limit;
        loop {
            match self.child.status()? {
                Some(status) if status.success() => break,
                Some(_) => self.child.check()?,
                None if Instant::now() < deadline => std::thread::sleep(POLL),
                None => {
                    return Err(ScriptedProcessError::TimedOut { what: "did not finish", limit });
                }
            }
        }
        let path = log_path(&self.directory);
        let text = fs::read_to_string(&path);
        parse(&text.map_err(|source| ScriptedProcessError::File { path, source })?)
    }
}

fn go_path(directory: &PrivateDir) -> PathBuf {
    directory.path().join("go")
}

fn log_path(directory: &PrivateDir) -> PathBuf {
    directory.path().join("log")
}

fn write_file(path: &Path) -> Result<(), DiskError> {
    let plan = DiskPlan::of_size(FILE_BYTES);
    disk::create_scratch(path, &plan, &AtomicBool::new(false))
}

fn wait_for_vcpu(child: &mut SupervisedChild, name: &str) -> Result<Tid, ScriptedProcessError> {
    let deadline = Instant::now() + START_LIMIT;
    while Instant::now() < deadline {
        child.check()?;
        let threads = threads::list(child.pid())?;
        if let Some(thread) = threads.iter().find(|thread| thread.comm == name) {
            return Ok(thread.tid);
        }
        std::thread::sleep(POLL);
    }
    Err(ScriptedProcessError::TimedOut {
        what: "did not start its vCPU thread",
        limit: START_LIMIT,
    })
}

/// The process, then an occurrence a line.
fn parse(text: &str) -> Result<ScriptLog, ScriptedProcessError> {
    fn line<T: for<'a> Deserialize<'a>>(line: &str) -> Result<T, ScriptedProcessError> {
        serde_json::from_str(line)
            .map_err(|error| ScriptedProcessError::Log(format!("{error} in {line}")))
    }
    let mut lines = text.lines();
    let first = lines.next().ok_or_else(|| ScriptedProcessError::Log("it is empty".to_owned()))?;
    Ok(ScriptLog { process: line(first)?, occurrences: lines.map(line).collect::<Result<_, _>>()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read_as_it_is_written_and_a_broken_line_is_told() {
        let process = ProcessInfo {
            pid: Tid(1),
            vcpu: Tid(2),
            pthread_lock_address: 3,
            condition_address: 4,
            timed_condition_address: 5,
            rust_lock_address: 6,
            unavailable: vec![UnavailableAction { action: Action::Fault, why: "EPERM".to_owned() }],
        };
        let occurrence = Occurrence {
            action: Action::PthreadLock,
            start: HostNs(7),
            end: HostNs(8),
            voluntary_switches: 1,
            involuntary_switches: 0,
            major_faults: 0,
            rival: None,
        };
        let mut out = Vec::new();
        run::write_log(&mut out, &process, &[occurrence, occurrence]).expect("memory");
        let text = String::from_utf8(out).expect("JSON");
        assert_eq!(
            parse(&text).expect("a log"),
            ScriptLog { process, occurrences: vec![occurrence; 2] }
        );
        let message = parse(&(text + "panic!\n")).expect_err("not JSON").to_string();
        assert!(message.ends_with("in panic!"), "{message}");
        assert!(parse("").is_err());
    }
}
