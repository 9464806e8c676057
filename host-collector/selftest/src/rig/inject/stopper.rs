//! Stops a whole process again and again, as a debugger or `kill -STOP` would.

use super::InjectError;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};
use vslice_core::units::{HostNs, Tid};
use vslice_host::host_clock::host_now;

/// How often a process that was told to stop is asked whether it has.
const LOOK: Duration = Duration::from_micros(200);

/// How long a process may take until its last thread has stopped: each has to run for that, and on a
/// busy pCPU has to wait for it.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// One time that a process was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Taken just before `SIGSTOP` was sent: no thread had stopped.
    pub start: HostNs,
    /// Taken when the kernel said that all threads had (`CLD_STOPPED` of waitid(2)), which is known
    /// some 0.2 ms later than it happens.
    pub complete: HostNs,
    /// Taken just before `SIGCONT` was sent: all threads were still stopped.
    pub end: HostNs,
}

/// Stops a process at intervals. Dropping it lets the process go on.
#[derive(Debug)]
pub struct Stopper {
    /// Dropped, it ends the thread at once, whatever that waits for.
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<Result<Vec<Stop>, InjectError>>>,
}

impl Stopper {
    /// Stops the process for `stopped`, lets it run for `running`, and so on.
    ///
    /// The process has to be a child of this one that nobody has waited for, so that its id cannot
    /// become another's.
    ///
    /// # Errors
    /// [`InjectError::Thread`]; [`InjectError::Signal`] comes with [`Stopper::stop`].
    pub fn start(pid: Tid, stopped: Duration, running: Duration) -> Result<Stopper, InjectError> {
        let (end, ended) = channel::<()>();
        // Sent or gone: either way somebody wants this to end.
        let wait = move |duration| match ended.recv_timeout(duration) {
            Err(RecvTimeoutError::Timeout) => Wait::Elapsed,
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Wait::Ended,
        };
        let run = move || stop_and_go(pid, stopped, running, wait);
        let error = |source| InjectError::Thread { name: "rig-stopper", source };
        let thread = Builder::new().name("rig-stopper".to_owned()).spawn(run).map_err(error)?;
        Ok(Stopper { end: Some(end), thread: Some(thread) })
    }

    /// Ends it, the process running, and says when it was stopped.
    ///
    /// # Errors
    /// [`InjectError::Signal`] if the process has ended meanwhile or is not a child of this one.
    pub fn stop(mut self) -> Result<Vec<Stop>, InjectError> {
        self.join().unwrap_or_else(|| Ok(Vec::new()))
    }

    fn join(&mut self) -> Option<Result<Vec<Stop>, InjectError>> {
        self.end.take();
        self.thread.take()?.join().ok()
    }
}

impl Drop for Stopper {
    fn drop(&mut self) {
        self.join();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// The time is over.
    Elapsed,
    /// Somebody wants this to end.
    Ended,
}

/// Stops the process and continues it in turn. A stopped process is always continued first.
fn stop_and_go(
    pid: Tid,
    stopped: Duration,
    running: Duration,
    wait: impl Fn(Duration) -> Wait,
) -> Result<Vec<Stop>, InjectError> {
    let mut stops = Vec::new();
    loop {
        let start = host_now();
        send(pid, Signal::SIGSTOP)?;
        // SIGCONT takes back a SIGSTOP that a thread has not come to yet, so nothing was stopped
        // unless it is waited for.
        let complete = wait_until_stopped(pid);
        let waited = wait(stopped);
        let end = host_now();
        send(pid, Signal::SIGCONT)?;
        stops.push(Stop { start, complete: complete?, end });
        if waited == Wait::Ended || wait(running) == Wait::Ended {
            return Ok(stops);
        }
    }
}

fn send(pid: Tid, signal: Signal) -> Result<(), InjectError> {
    let error = |errno| InjectError::Signal { pid, errno };
    // To kill(2), 0 and negative numbers are whole groups of processes.
    let raw = i32::try_from(pid.0).ok().filter(|&raw| raw > 0);
    kill(Pid::from_raw(raw.ok_or(error(Errno::ESRCH))?), signal).map_err(error)
}

fn wait_until_stopped(pid: Tid) -> Result<HostNs, InjectError> {
    let deadline = Instant::now() + STOP_LIMIT;
    let raw = Pid::from_raw(pid.0.cast_signed());
    while Instant::now() < deadline {
        match waitid(Id::Pid(raw), WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG) {
            Ok(WaitStatus::StillAlive) => std::thread::sleep(LOOK),
            Ok(_) => return Ok(host_now()),
            Err(errno) => return Err(InjectError::Signal { pid, errno }),
        }
    }
    Err(InjectError::Signal { pid, errno: Errno::ETIMEDOUT })
}
