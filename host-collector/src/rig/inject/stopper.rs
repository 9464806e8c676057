//! Stops a whole process again and again, as a debugger or `kill -STOP` would.

use super::{Episode, InjectError};
use crate::guest::exchange::host_now;
use crate::units::Tid;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// Stops a process at intervals. Dropping it lets the process go on.
#[derive(Debug)]
pub struct Stopper {
    /// Dropped, it ends the thread at once, whatever that waits for.
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<Result<Vec<Episode>, InjectError>>>,
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
            Err(RecvTimeoutError::Timeout) => Turn::Next,
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Turn::Last,
        };
        let run = move || stop_and_go(pid, stopped, running, wait);
        let error = |source| InjectError::Thread { name: "rig-stopper", source };
        let thread = Builder::new().name("rig-stopper".to_owned()).spawn(run).map_err(error)?;
        Ok(Stopper { end: Some(end), thread: Some(thread) })
    }

    /// Ends it, the process running. Its log has one episode for each stop: from just before
    /// `SIGSTOP` was sent to just after `SIGCONT` was.
    ///
    /// # Errors
    /// [`InjectError::Signal`] if the process has ended meanwhile.
    pub fn stop(mut self) -> Result<Vec<Episode>, InjectError> {
        self.join().unwrap_or_else(|| Ok(Vec::new()))
    }

    fn join(&mut self) -> Option<Result<Vec<Episode>, InjectError>> {
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
enum Turn {
    Next,
    Last,
}

/// A process that was stopped is let go before anything else.
fn stop_and_go(
    pid: Tid,
    stopped: Duration,
    running: Duration,
    wait: impl Fn(Duration) -> Turn,
) -> Result<Vec<Episode>, InjectError> {
    let mut episodes = Vec::new();
    loop {
        let start = host_now();
        send(pid, Signal::SIGSTOP)?;
        let turn = wait(stopped);
        send(pid, Signal::SIGCONT)?;
        episodes.push(Episode { start, end: host_now() });
        if turn == Turn::Last || wait(running) == Turn::Last {
            return Ok(episodes);
        }
    }
}

fn send(pid: Tid, signal: Signal) -> Result<(), InjectError> {
    let error = |errno| InjectError::Signal { pid, errno };
    // To kill(2), 0 and negative numbers are whole groups of processes.
    let raw = i32::try_from(pid.0).ok().filter(|&raw| raw > 0);
    kill(Pid::from_raw(raw.ok_or(error(Errno::ESRCH))?), signal).map_err(error)
}
