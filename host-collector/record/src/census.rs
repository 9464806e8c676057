//! Who is there when recording starts, and who came until its end: the threads of this host, so that
//! antagonists have names, and the command lines of their processes.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use vslice_core::text::harmless;
use vslice_core::units::Tid;
use vslice_host::control_groups::GroupNames;
use vslice_host::procfs;
use vslice_trace::thread::HostThread;

/// Bytes of a command line that are read at most.
const COMMAND_BYTES_MAX: u64 = 512;

/// For how long command lines are waited for, all together.
const COMMANDS_WITHIN: Duration = Duration::from_secs(1);

/// What is kept of a census at most, so that its file stays below what is read of one. Where there is more,
/// the rest is counted.
#[derive(Debug, Clone, Copy)]
struct Room {
    threads_count: usize,
    /// All command lines together.
    commands_bytes: usize,
    /// The paths of all control groups together, each as often as a process is in it.
    groups_bytes: usize,
}

/// A host of some thousand processes and some ten thousand threads is far below it.
const HOST_ROOM: Room =
    Room { threads_count: 1 << 17, commands_bytes: 8 << 20, groups_bytes: 4 << 20 };

/// These are written when a run may have filled its disk, into room that was kept for them.
const NEWCOMERS_ROOM: Room =
    Room { threads_count: 1 << 12, commands_bytes: 1 << 20, groups_bytes: 0 };

/// What the newcomers' file takes at most.
pub(crate) const NEWCOMERS_JSON_BYTES_MAX: u64 = 4 << 20;

/// The name of vslice's program.
const VSLICE: &str = "vslice";

/// The threads of the host, and the number of threads that were left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    /// The threads, ordered by process.
    pub threads: Vec<HostThread>,
    /// The number of threads beyond the limit.
    pub threads_left_out_count: u64,
    /// The number of processes whose command line exceeded the limit.
    pub commands_left_out_count: u64,
}

impl Census {
    fn take(mut threads: impl Iterator<Item = HostThread>, room: Room) -> Census {
        let mut census = Census {
            threads: threads.by_ref().take(room.threads_count).collect(),
            threads_left_out_count: threads.count() as u64,
            commands_left_out_count: 0,
        };
        census.add_commands(room);
        census.limit_groups(room);
        census
    }

    /// Those for which there is no room are not known.
    fn limit_groups(&mut self, room: Room) {
        let mut left_bytes = room.groups_bytes;
        for group in self.threads.iter_mut().map(|thread| &mut thread.group) {
            let length_bytes = group.as_ref().map_or(0, String::len);
            match left_bytes.checked_sub(length_bytes) {
                Some(left) => left_bytes = left,
                None => *group = None,
            }
        }
    }

    /// What has not come in time is not known.
    fn add_commands(&mut self, room: Room) {
        let leaders = self.threads.iter().filter(|thread| is_leader(thread) && !thread.is_kernel);
        let commands = read_commands(leaders.map(|thread| thread.pid).collect(), command);
        let (mut by_pid, left_out_count) = fitting(commands, room);
        for thread in self.threads.iter_mut().filter(|thread| is_leader(thread)) {
            thread.command = by_pid.remove(&thread.pid);
        }
        self.commands_left_out_count = left_out_count;
    }
}

/// Lists all threads of the host. Threads that end meanwhile are left out.
#[must_use]
pub fn host_threads() -> Census {
    let groups = GroupNames::of_host().ok();
    let of_process = |pid| threads_of(pid, groups.as_ref());
    Census::take(procfs::pids().into_iter().flat_map(of_process), HOST_ROOM)
}

/// The processes that are new since this census, or have another name now, each represented by its main
/// thread.
#[must_use]
pub fn newcomers(before: &[HostThread]) -> Census {
    newcomers_among(procfs::pids().into_iter().filter_map(|pid| thread_of(pid, pid, None)), before)
}

fn newcomers_among(leaders: impl Iterator<Item = HostThread>, before: &[HostThread]) -> Census {
    let known: HashMap<Tid, &str> =
        before.iter().map(|thread| (thread.tid, thread.comm.as_str())).collect();
    let is_new = |thread: &HostThread| known.get(&thread.tid) != Some(&thread.comm.as_str());
    Census::take(leaders.filter(is_new), NEWCOMERS_ROOM)
}

/// One after the other, as a process may have more threads than are kept. Only of the first one it
/// is said in which control group it is: few processes have threads in several.
fn threads_of(pid: Tid, groups: Option<&GroupNames>) -> impl Iterator<Item = HostThread> {
    thread_of(pid, pid, groups).into_iter().flat_map(move |leader| {
        let tids = procfs::tids(pid).unwrap_or_default();
        let first = leader.clone();
        let others = tids.into_iter().filter(move |tid| *tid != pid);
        let others = others.filter_map(move |tid| {
            let comm = harmless(&procfs::comm(pid, tid).ok()?);
            Some(HostThread { tid, comm, group: None, ..leader.clone() })
        });
        std::iter::once(first).chain(others)
    })
}

fn is_leader(thread: &HostThread) -> bool {
    thread.tid == thread.pid
}

fn thread_of(pid: Tid, tid: Tid, groups: Option<&GroupNames>) -> Option<HostThread> {
    let comm = harmless(&procfs::comm(pid, tid).ok()?);
    let exe = std::fs::read_link(format!("/proc/{pid}/exe"));
    let is_vslice =
        comm == VSLICE || exe.is_ok_and(|exe| exe.file_name().is_some_and(|name| name == VSLICE));
    let is_kernel = procfs::is_kernel(pid);
    let is_process = tid == pid && !is_kernel;
    let group = groups.filter(|_| is_process).and_then(|groups| groups.of_thread(pid));
    Some(HostThread { tid, pid, comm, is_kernel, is_vslice, command: None, group })
}

/// Reads the command lines on a thread of its own: the kernel takes the lock of the process's memory for
/// it, and one that hangs with that lock must not keep the run from beginning.
fn read_commands(
    pids: Vec<Tid>,
    command: impl Fn(Tid) -> Option<String> + Send + 'static,
) -> impl Iterator<Item = (Tid, String)> {
    let (sender, commands) = mpsc::sync_channel(64);
    let reader = std::thread::Builder::new().name("census".to_owned()).spawn(move || {
        let read = pids.into_iter().filter_map(|pid| Some((pid, command(pid)?)));
        // Nobody waits any more, if it cannot be sent.
        let _ = read.map(|read| sender.send(read)).take_while(Result::is_ok).count();
    });
    // Where there is no such thread its end of the channel is gone, and nothing comes.
    drop(reader);
    let deadline = Instant::now() + COMMANDS_WITHIN;
    let left = move || deadline.saturating_duration_since(Instant::now());
    std::iter::from_fn(move || commands.recv_timeout(left()).ok())
}

/// The first ones that there is room for, and how many of the others have none.
fn fitting(
    commands: impl Iterator<Item = (Tid, String)>,
    room: Room,
) -> (HashMap<Tid, String>, u64) {
    let (mut kept, mut left_bytes, mut left_out_count) = (HashMap::new(), room.commands_bytes, 0);
    for (pid, command) in commands {
        match left_bytes.checked_sub(command.len()) {
            Some(left) => {
                left_bytes = left;
                kept.insert(pid, command);
            }
            None => left_out_count += 1,
        }
    }
    (kept, left_out_count)
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
    use vslice_trace::JSON_BYTES_MAX;

    /// Of the longest names that the kernel shows (64 bytes with their end, `proc_task_name` in
    /// fs/proc/array.c), of letters that JSON escapes.
    fn at_worst(room: Room) -> u64 {
        let tid = Tid(u32::MAX);
        let thread = HostThread {
            tid,
            pid: tid,
            comm: "\"".repeat(63),
            is_kernel: false,
            is_vslice: false,
            command: Some(String::new()),
            group: Some(String::new()),
        };
        let one = serde_json::to_string_pretty(&[&thread]).unwrap().len() as u64;
        // Paths have backslashes, which JSON escapes too.
        room.threads_count as u64 * one + 2 * (room.commands_bytes + room.groups_bytes) as u64
    }

    #[test]
    fn what_is_kept_of_a_census_can_be_read_again() {
        assert!(at_worst(HOST_ROOM) < JSON_BYTES_MAX, "{}", at_worst(HOST_ROOM));
        let newcomers_bytes = at_worst(NEWCOMERS_ROOM);
        assert!(newcomers_bytes < NEWCOMERS_JSON_BYTES_MAX, "{newcomers_bytes}");
    }

    #[test]
    fn threads_that_are_too_many_are_counted() {
        let thread = |tid| HostThread {
            tid: Tid(tid),
            pid: Tid(7),
            comm: "many".to_owned(),
            is_kernel: false,
            is_vslice: false,
            command: None,
            group: None,
        };
        let room = Room { threads_count: 3, commands_bytes: 0, groups_bytes: 0 };
        let census = Census::take((100..110).map(thread), room);
        assert_eq!(census.threads, [thread(100), thread(101), thread(102)]);
        assert_eq!((census.threads_left_out_count, census.commands_left_out_count), (7, 0));
    }

    #[test]
    fn control_groups_are_told_of_processes_as_far_as_there_is_room() {
        let threads = host_threads().threads;
        let own = Tid(std::process::id());
        let own = threads.iter().filter(|thread| thread.pid == own);
        let groups: Vec<_> = own.map(|thread| (thread.tid == thread.pid, &thread.group)).collect();
        let names = GroupNames::of_host().ok();
        let expected = names.and_then(|names| names.of_thread(Tid(std::process::id())));
        assert!(groups.iter().all(|(is_leader, group)| match is_leader {
            true => **group == expected,
            false => group.is_none(),
        }));
        let mut census = Census { threads, ..Census::default() };
        census.limit_groups(Room { groups_bytes: 0, ..HOST_ROOM });
        assert!(census.threads.iter().all(|thread| thread.group.is_none()));
    }

    /// No process has such a number: `PID_MAX_LIMIT` in include/linux/threads.h.
    #[test]
    fn newcomers_are_kept_as_far_as_there_is_room_at_the_end_of_a_run() {
        let tids = (5_000_000..).map(Tid).take(NEWCOMERS_ROOM.threads_count + 5);
        let threads = tids.map(|tid| HostThread {
            tid,
            pid: tid,
            comm: "many".to_owned(),
            is_kernel: false,
            is_vslice: false,
            command: None,
            group: None,
        });
        let census = newcomers_among(threads, &[]);
        assert_eq!(census.threads.len(), NEWCOMERS_ROOM.threads_count);
        assert_eq!(census.threads_left_out_count, 5);
    }

    #[test]
    fn a_process_that_hangs_keeps_nobody_waiting() {
        let (_nobody, hangs) = mpsc::channel::<()>();
        let read = move |pid| {
            // Much longer than command lines are waited for.
            (pid == Tid(2)).then(|| hangs.recv_timeout(20 * COMMANDS_WITHIN).is_ok())?;
            Some("late".to_owned())
        };
        assert_eq!(read_commands(vec![Tid(1), Tid(2)], read).count(), 0);
    }

    #[test]
    fn a_command_line_is_cut() {
        let mut child = std::process::Command::new("sleep");
        let mut child = child.arg("60").args(["0"; 300]).spawn().unwrap();
        let pid = Tid(child.id());
        // For a moment it has a new memory and no words in it.
        let found = (0..500).find_map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            command(pid).filter(|command| command.starts_with("sleep 60 0 0"))
        });
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found.expect("it sleeps").len() as u64, COMMAND_BYTES_MAX);
    }

    #[test]
    fn a_thread_that_calls_itself_a_command_of_a_terminal_is_harmless() {
        let (ready, tids) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let builder = std::thread::Builder::new().name("a\x1b[2Jb".to_owned());
        let thread = builder.spawn(move || {
            ready.send(Tid(nix::unistd::gettid().as_raw().cast_unsigned())).unwrap();
            ended.recv().unwrap_err();
        });
        let (tid, pid) = (tids.recv().unwrap(), Tid(std::process::id()));
        let of_all = threads_of(pid, None).find(|thread| thread.tid == tid).unwrap();
        let alone = thread_of(pid, tid, None).unwrap();
        drop(end);
        thread.unwrap().join().unwrap();
        assert_eq!((of_all.comm.as_str(), alone.comm.as_str()), ("a?[2Jb", "a?[2Jb"));
    }

    #[test]
    fn command_lines_that_are_too_much_are_counted() {
        let commands = ["12345", "1234567", "123", "12345"];
        let commands = (1..).map(Tid).zip(commands.map(str::to_owned));
        let room = Room { threads_count: 10, commands_bytes: 10, groups_bytes: 0 };
        let (kept, left_out_count) = fitting(commands, room);
        let kept: std::collections::BTreeSet<Tid> = kept.into_keys().collect();
        assert_eq!(
            (kept.into_iter().collect::<Vec<_>>(), left_out_count),
            (vec![Tid(1), Tid(3)], 2)
        );
    }

    #[test]
    fn this_test_is_in_the_census_and_no_kernel_thread() {
        let threads = host_threads().threads;
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
        let before = host_threads().threads;
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Tid(child.id());
        let named = |threads: Vec<HostThread>| {
            threads.into_iter().find(|thread| thread.pid == pid && thread.comm == "sleep")
        };
        // It is a copy of this process until it runs its own program.
        let found = (0..500).find_map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            named(newcomers(&before).threads)
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
