//! Who is there when recording starts, and who came until its end: the threads of this host, so that
//! antagonists have names, and the command lines of their processes.

use crate::text::harmless;
use crate::units::Tid;
use crate::vmm::procfs;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Bytes of a command line that are read at most.
const COMMAND_BYTES_MAX: u64 = 512;

/// For how long command lines are waited for, all together.
const COMMANDS_WITHIN: Duration = Duration::from_secs(1);

/// The name of vslice's program.
const VSLICE: &str = "vslice";

/// One thread of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostThread {
    /// The thread.
    pub tid: Tid,
    /// Its process.
    pub pid: Tid,
    /// Its name.
    pub comm: String,
    /// Whether it is the kernel's own.
    pub is_kernel: bool,
    /// Whether its process runs a program called `vslice`, or calls itself so.
    #[serde(default)]
    pub is_vslice: bool,
    /// The command line of its process, if it is the one that the process began with and it could be
    /// read: at most 512 bytes of it, made harmless.
    #[serde(default)]
    pub command: Option<String>,
}

/// All threads of the host, in order of their processes. Those that end meanwhile are left out.
#[must_use]
pub fn host_threads() -> Vec<HostThread> {
    let mut threads: Vec<HostThread> = procfs::pids().into_iter().flat_map(threads_of).collect();
    add_commands(&mut threads);
    threads
}

/// The processes that are there now and were not in this census, or are called otherwise now: each by
/// the thread that it began with.
#[must_use]
pub fn newcomers(before: &[HostThread]) -> Vec<HostThread> {
    let known: HashMap<Tid, &str> =
        before.iter().map(|thread| (thread.tid, thread.comm.as_str())).collect();
    let leaders = procfs::pids().into_iter().filter_map(|pid| thread_of(pid, pid));
    let is_new = |thread: &HostThread| known.get(&thread.tid) != Some(&thread.comm.as_str());
    let mut threads: Vec<HostThread> = leaders.filter(is_new).collect();
    add_commands(&mut threads);
    threads
}

fn threads_of(pid: Tid) -> Vec<HostThread> {
    let Some(leader) = thread_of(pid, pid) else { return Vec::new() };
    let tids = procfs::tids(pid).unwrap_or_default();
    let others = tids.into_iter().filter(|tid| *tid != pid);
    let others = others.filter_map(|tid| {
        let comm = harmless(&procfs::comm(pid, tid).ok()?);
        Some(HostThread { tid, comm, ..leader.clone() })
    });
    std::iter::once(leader.clone()).chain(others).collect()
}

fn thread_of(pid: Tid, tid: Tid) -> Option<HostThread> {
    let comm = harmless(&procfs::comm(pid, tid).ok()?);
    let exe = std::fs::read_link(format!("/proc/{pid}/exe"));
    let is_vslice =
        comm == VSLICE || exe.is_ok_and(|exe| exe.file_name().is_some_and(|name| name == VSLICE));
    let is_kernel = procfs::is_kernel(pid);
    Some(HostThread { tid, pid, comm, is_kernel, is_vslice, command: None })
}

/// Reads the command lines on a thread of its own: the kernel takes the lock of the process's memory for
/// it, and one that hangs with that lock must not keep the run from beginning. What has not come in time
/// is not known.
fn add_commands(threads: &mut [HostThread]) {
    let leaders = threads.iter().filter(|thread| thread.tid == thread.pid && !thread.is_kernel);
    let pids: Vec<Tid> = leaders.map(|thread| thread.pid).collect();
    let (sender, commands) = mpsc::sync_channel(64);
    let reader = std::thread::Builder::new().name("census".to_owned()).spawn(move || {
        let read = pids.into_iter().filter_map(|pid| Some((pid, command(pid)?)));
        // Nobody waits any more, if it cannot be sent.
        let _ = read.map(|read| sender.send(read)).take_while(Result::is_ok).count();
    });
    if reader.is_err() {
        return;
    }
    let deadline = Instant::now() + COMMANDS_WITHIN;
    let mut by_pid = HashMap::new();
    while let Ok((pid, command)) =
        commands.recv_timeout(deadline.saturating_duration_since(Instant::now()))
    {
        by_pid.insert(pid, command);
    }
    for thread in threads.iter_mut().filter(|thread| thread.tid == thread.pid) {
        thread.command = by_pid.remove(&thread.pid);
    }
}

/// The words of a command line with spaces between them; `None` if there are none.
fn command(pid: Tid) -> Option<String> {
    let mut bytes = Vec::new();
    let file = File::open(format!("/proc/{pid}/cmdline")).ok()?;
    file.take(COMMAND_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    shown(&bytes)
}

fn shown(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end_matches('\0').replace('\0', " ");
    (!text.is_empty()).then(|| harmless(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_is_in_the_census_and_no_kernel_thread() {
        let threads = host_threads();
        let pid = Tid(std::process::id());
        let own = threads.iter().find(|thread| thread.tid == pid).unwrap();
        assert!(!own.is_kernel && own.pid == pid);
        let program = std::env::args().next().unwrap();
        let command = own.command.as_deref().unwrap();
        assert!(command.starts_with(&harmless(&program)[..20]), "{command}");
        // kthreadd; a container may not see it.
        if let Some(kthreadd) = threads.iter().find(|thread| thread.comm == "kthreadd") {
            assert!(kthreadd.is_kernel && kthreadd.command.is_none());
        }
    }

    #[test]
    fn who_came_since_is_told_by_its_process() {
        let before = host_threads();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Tid(child.id());
        let named = |threads: Vec<HostThread>| {
            threads.into_iter().find(|thread| thread.pid == pid && thread.comm == "sleep")
        };
        // It is a copy of this process until it runs its own program.
        let found = (0..500).find_map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            named(newcomers(&before))
        });
        child.kill().unwrap();
        child.wait().unwrap();
        let found = found.expect("it sleeps");
        assert_eq!((found.tid, found.command.as_deref()), (pid, Some("sleep 60")));
    }

    #[test]
    fn a_command_line_is_harmless() {
        let bytes = b"sh\0-c\0printf '\x1b[2J'\n\0\0";
        assert_eq!(shown(bytes).as_deref(), Some("sh -c printf '?[2J'?"));
        assert_eq!(shown(b"\0\0"), None);
        assert_eq!(shown(b"\xff\xfe").as_deref(), Some("??"));
    }
}
