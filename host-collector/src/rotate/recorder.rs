//! One recorder of a continuous recording: `vslice attach` as a process of its own, into a directory of its own.
#![expect(unsafe_code, reason = "Command::pre_exec: what a child does between fork and exec")]

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid, getppid};
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use vslice_trace::RunDir;
use vslice_trace::manifest::Manifest;

/// A recorder that has not begun by then is killed. It looks at all of the host's processes first.
const BEGIN_MAX: Duration = Duration::from_secs(120);

/// The same of one that was told to end. It waits until all that it has written is on the disk.
const END_MAX: Duration = Duration::from_secs(120);

/// A recorder that was started.
#[derive(Debug)]
pub(crate) struct Recorder {
    /// The name of its directory.
    pub(crate) name: String,
    dir: PathBuf,
    child: Child,
    started: Instant,
    begun: Option<Begun>,
    told: Option<Instant>,
}

/// That it records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begun {
    /// When that was seen.
    pub(crate) seen: Instant,
    /// When its window began, on the clock of host records.
    pub(crate) start_ns: u64,
}

impl Recorder {
    /// Starts one that ends in order when **the thread that calls this** ends, by whatever cause.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) fn start(name: String, dir: PathBuf, args: &[OsString]) -> io::Result<Recorder> {
        let supervisor = getpid();
        // This very program, also where its file has been replaced since.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("vslice").args(args).arg("--output").arg(&dir);
        // Two of them have no room for a bar each.
        command.env("TERM", "dumb").stdin(Stdio::null()).stdout(Stdio::null());
        // Ctrl-C reaches the supervisor alone, which ends its recorders in order.
        command.process_group(0);
        let before_exec = move || end_with(supervisor).map_err(Into::into);
        // SAFETY: `end_with` makes two system calls, allocates nothing and takes no lock, so it may run between fork
        // and exec.
        unsafe { command.pre_exec(before_exec) };
        let child = command.spawn()?;
        Ok(Recorder { name, dir, child, started: Instant::now(), begun: None, told: None })
    }

    /// Its run directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether it records by now: its manifest says so.
    pub(crate) fn begun(&mut self) -> Option<Begun> {
        if self.begun.is_none() {
            let window = manifest_in(&self.dir).and_then(|manifest| manifest.window);
            self.begun =
                window.map(|window| Begun { seen: Instant::now(), start_ns: window.start_ns.0 });
        }
        self.begun
    }

    /// Has it end in order, so that its run is whole.
    pub(crate) fn tell_to_end(&mut self) {
        if self.told.is_none() {
            self.told = Some(Instant::now());
            self.signal(Signal::SIGTERM);
        }
    }

    /// How it ended, once it has. One that takes too long is killed.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub(crate) fn has_ended(&mut self) -> io::Result<Option<ExitStatus>> {
        let is_late = match (self.told, self.begun) {
            (Some(told), _) => told.elapsed() > END_MAX,
            (None, None) => self.started.elapsed() > BEGIN_MAX,
            (None, Some(_)) => false,
        };
        if is_late {
            self.signal(Signal::SIGKILL);
        }
        self.child.try_wait()
    }

    fn signal(&self, signal: Signal) {
        // It is not waited for yet, so its number is nobody else's.
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _may_have_ended = kill(Pid::from_raw(pid), signal);
        }
    }
}

/// What a directory says of its run; `None` if it does not yet.
pub(crate) fn manifest_in(dir: &Path) -> Option<Manifest> {
    RunDir::open(dir).ok()?.read_json("run.json").ok()
}

/// Before it becomes the program. Async-signal-safe, see signal-safety(7).
fn end_with(supervisor: Pid) -> Result<(), Errno> {
    prctl::set_pdeathsig(Signal::SIGTERM)?;
    // Had it ended before the line above, no signal would ever come.
    if getppid() == supervisor { Ok(()) } else { Err(Errno::ESRCH) }
}
