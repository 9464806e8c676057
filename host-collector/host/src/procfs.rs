//! The few facts about threads that `/proc` tells.

use nix::unistd::{SysconfVar, sysconf};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;
use std::{fs, io};
use vslice_core::units::{PcpuId, Tid};

/// The start time of a thread, in clock ticks since the host's boot. Together with the thread id it
/// identifies one thread until the next boot, although the kernel reuses ids.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct StartTicks(pub u64);

/// The start time of a thread; `None` if there is no such thread now.
#[must_use]
pub fn start_ticks(tid: Tid) -> Option<StartTicks> {
    let stat = fs::read_to_string(format!("/proc/{tid}/stat")).ok()?;
    parse_start_ticks(&stat)
}

/// How long ago something was started; `None` if the kernel does not say.
pub(crate) fn age(start: StartTicks) -> Option<Duration> {
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime_s: f64 = uptime.split(' ').next()?.parse().ok()?;
    let ticks_per_s = sysconf(SysconfVar::CLK_TCK).ok().flatten()?;
    let since_boot = Duration::from_secs(start.0) / u32::try_from(ticks_per_s).ok()?;
    Some(Duration::try_from_secs_f64(uptime_s).ok()?.saturating_sub(since_boot))
}

/// Whether this very thread, and not a later one of its id, still exists. A zombie does not: it
/// runs nothing any more, and waits only to be asked for its status.
#[must_use]
pub fn is_alive(tid: Tid, start: StartTicks) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{tid}/stat")) else {
        return false;
    };
    let zombie = matches!(fields_after_comm(&stat).and_then(|mut f| f.next()), Some("Z" | "X"));
    parse_start_ticks(&stat) == Some(start) && !zombie
}

/// What has stopped a whole process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stopper {
    /// SIGSTOP or another stopping signal, until SIGCONT.
    Signal,
    /// A debugger.
    Debugger,
}

/// What has stopped a process, by the state of its main thread; `None` if it is not stopped.
#[must_use]
pub fn stopper(pid: Tid) -> Option<Stopper> {
    parse_stopper(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Field 3 of proc_pid_stat(5).
fn parse_stopper(stat: &str) -> Option<Stopper> {
    match fields_after_comm(stat)?.next()? {
        "T" => Some(Stopper::Signal),
        "t" => Some(Stopper::Debugger),
        _ => None,
    }
}

/// The bytes that a thread's name has at most (linux: include/linux/sched.h, `TASK_COMM_LEN`, which counts a zero).
pub(crate) const COMM_BYTES_MAX: usize = 15;

/// A thread's name without the final newline, if the thread is there.
///
/// # Errors
/// Those of reading `/proc/PID/task/TID/comm`.
pub fn comm(pid: Tid, tid: Tid) -> io::Result<String> {
    let bytes = fs::read(format!("/proc/{pid}/task/{tid}/comm"))?;
    Ok(String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned())
}

/// The bytes of a command line that are read. A command line of that length takes a stack of 8 MiB (execve(2)), but
/// a process may later call any part of its memory its command line (prctl(2), `PR_SET_MM_MAP`).
const LINE_BYTES_MAX: u64 = 2 << 20;

/// The words of a command line that are read; a QEMU with 256 disks has some 2,000.
pub(crate) const WORDS_MAX: usize = 1 << 13;

/// The words of a process's command line, as far as it is read; none of the kernel's own.
///
/// # Errors
/// Those of reading `/proc/PID/cmdline`.
pub fn command_line(pid: Tid) -> io::Result<Vec<String>> {
    let mut bytes = Vec::new();
    fs::File::open(format!("/proc/{pid}/cmdline"))?.take(LINE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(words_of(&bytes))
}

/// Each word ends in a zero; one that is cut off is left out.
fn words_of(line: &[u8]) -> Vec<String> {
    let words = line.split_inclusive(|byte| *byte == 0);
    let whole = words.filter_map(|word| word.strip_suffix(&[0])).take(WORDS_MAX);
    whole.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// The path of the Unix socket that a process has open as a file descriptor: `/proc/PID/fd/FD` tells its
/// inode, `/proc/PID/net/unix` (unix(7)) the path.
#[must_use]
pub fn unix_socket_path(pid: Tid, fd: u32) -> Option<PathBuf> {
    let link = fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()?;
    let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned();
    path_of_inode(&fs::read_to_string(format!("/proc/{pid}/net/unix")).ok()?, &inode)
}

/// A line has eight columns; sockets without a name have seven. A path may have spaces.
fn path_of_inode(table: &str, inode: &str) -> Option<PathBuf> {
    table.lines().skip(1).find_map(|line| {
        let mut rest = line;
        for column in 0..7 {
            let (word, after) = rest.trim_start().split_once(' ')?;
            if column == 6 && word != inode {
                return None;
            }
            rest = after;
        }
        Some(PathBuf::from(rest))
    })
}

/// `PF_KTHREAD` of `include/linux/sched.h`: the task is the kernel's own. Field 9 (`flags`) of
/// proc_pid_stat(5) has it.
const PF_KTHREAD: u64 = 0x0020_0000;

/// Whether a process is the kernel's own: of all that `/proc` tells of a thread, its name above all,
/// this is what no other can pretend to.
#[must_use]
pub fn is_kernel(pid: Tid) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| flags(&stat).is_some_and(|flags| flags & PF_KTHREAD != 0))
}

/// The facts of proc_pid_stat(5) that tell which process one is.
pub(crate) struct ProcessStat {
    pub comm: String,
    pub parent: Tid,
    pub is_kernel: bool,
}

/// These facts; `None` if the process has ended.
pub(crate) fn process_stat(pid: Tid) -> Option<ProcessStat> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    Some(ProcessStat {
        comm: stat.split_once('(')?.1.rsplit_once(')')?.0.to_owned(),
        parent: Tid(fields_after_comm(&stat)?.nth(4 - 3)?.parse().ok()?),
        is_kernel: flags(&stat)? & PF_KTHREAD != 0,
    })
}

/// The process of a thread: the line `Tgid` (proc_pid_status(5)).
pub(crate) fn process_of(tid: Tid) -> Option<Tid> {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok().map(Tid)
}

/// A process's id as its own PID namespace counts it: the last of the line `NSpid` (proc_pid_status(5)).
pub(crate) fn pid_inside(pid: Tid) -> Option<Tid> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().next_back()?.parse().ok().map(Tid)
}

/// All processes of the host, the kernel's own among them; none if `/proc` is not there.
#[must_use]
pub fn pids() -> Vec<Tid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut pids: Vec<Tid> = pids.map(Tid).collect();
    pids.sort_unstable();
    pids
}

/// What a process has open of a hypervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct KvmFiles {
    /// A VM of KVM.
    pub has_vm: bool,
    /// How many vCPUs of KVM.
    pub vcpus_count: usize,
    /// A partition of Microsoft's hypervisor.
    pub has_mshv: bool,
}

/// The files of a hypervisor that a process has open, by the names that the kernel gives them (linux:
/// virt/kvm/kvm_main.c, `kvm_dev_ioctl_create_vm` and `create_vcpu_fd`; drivers/hv/mshv_root_main.c).
///
/// # Errors
/// Those of reading the directory `/proc/PID/fd`.
pub(crate) fn kvm_files(pid: Tid) -> io::Result<KvmFiles> {
    let mut files = KvmFiles::default();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // A file may be closed meanwhile.
        let Ok(link) = fs::read_link(entry?.path()) else { continue };
        match link.to_str().and_then(|link| link.strip_prefix("anon_inode:")) {
            Some("kvm-vm") => files.has_vm = true,
            Some(name) if name.starts_with("kvm-vcpu") => files.vcpus_count += 1,
            Some("mshv_partition") => files.has_mshv = true,
            _ => {}
        }
    }
    Ok(files)
}

/// All threads of a process.
///
/// # Errors
/// Those of reading the directory `/proc/PID/task`.
pub fn tids(pid: Tid) -> io::Result<Vec<Tid>> {
    let mut tids = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        if let Some(tid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
            tids.push(Tid(tid));
        }
    }
    tids.sort_unstable();
    Ok(tids)
}

/// The file descriptors that a process has open.
///
/// # Errors
/// Those of reading the directory `/proc/PID/fd`, which another user's process does not show.
pub fn fds(pid: Tid) -> io::Result<Vec<u32>> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))?.flatten();
    let mut fds: Vec<u32> =
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    fds.sort_unstable();
    Ok(fds)
}

/// The pCPU that a thread is on, or was on last: field 39 of proc_pid_stat(5).
#[must_use]
pub fn last_pcpu(tid: Tid) -> Option<PcpuId> {
    let stat = fs::read_to_string(format!("/proc/{tid}/stat")).ok()?;
    fields_after_comm(&stat)?.nth(39 - 3)?.parse().ok().map(PcpuId)
}

/// Field 9 of `/proc/PID/stat`, see proc_pid_stat(5).
fn flags(stat: &str) -> Option<u64> {
    fields_after_comm(stat)?.nth(9 - 3)?.parse().ok()
}

/// Field 22 of `/proc/TID/stat`, `starttime`, see proc_pid_stat(5).
fn parse_start_ticks(stat: &str) -> Option<StartTicks> {
    // The first field after the name is number 3.
    fields_after_comm(stat)?.nth(22 - 3)?.parse().ok().map(StartTicks)
}

/// The name, field 2, stands in parentheses and may itself hold spaces and parentheses: what
/// follows the last one is the rest.
pub(super) fn fields_after_comm(stat: &str) -> Option<std::str::SplitWhitespace<'_>> {
    stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace())
}

/// The context switches of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SwitchCounts {
    /// How often it left its pCPU to sleep.
    pub voluntary: u64,
    /// How often it left its pCPU while it was still runnable.
    pub involuntary: u64,
}

/// How long a thread has been on pCPUs since it began: the first field of `/proc/PID/task/TID/schedstat` (linux:
/// Documentation/scheduler/sched-stats.rst).
pub(crate) fn run_time(pid: Tid, tid: Tid) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/schedstat")).ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// The kernel's counts for a thread (proc_pid_status(5)); `None` if it has ended.
#[must_use]
pub fn switch_counts(pid: Tid, tid: Tid) -> Option<SwitchCounts> {
    let status = fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")).ok()?;
    let count = |key: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(key))?;
        value.trim().parse().ok()
    };
    Some(SwitchCounts {
        voluntary: count("voluntary_ctxt_switches:")?,
        involuntary: count("nonvoluntary_ctxt_switches:")?,
    })
}

/// A path of another process, as this one can open it (proc(5), `root` and `cwd`): the path itself,
/// where it leads to the same file here.
pub(crate) fn seen_by(pid: Tid, path: &Path) -> PathBuf {
    let Ok(below_root) = path.strip_prefix("/") else {
        return Path::new(&format!("/proc/{pid}/cwd")).join(path);
    };
    let through = within(Path::new(&format!("/proc/{pid}/root")), below_root);
    let file = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    if file(path).is_some_and(|here| file(&through) == Some(here)) {
        path.to_owned()
    } else {
        through
    }
}

/// A socket of another process, as this one can connect to it. Where it cannot be seen it stays as it is told, but not
/// if that process has another root: there the path may be somebody else's socket here.
pub(crate) fn socket_seen_by(pid: Tid, path: &Path) -> PathBuf {
    let seen = seen_by(pid, path);
    let id = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let root = id(Path::new(&format!("/proc/{pid}/root")));
    let has_other_root = root.is_some() && root != id(Path::new("/"));
    if has_other_root || seen.exists() { seen } else { path.to_owned() }
}

/// As many as Linux follows in a path (linux/include/linux/namei.h, `MAXSYMLINKS`).
const LINKS_MAX: usize = 40;

/// A path below a root of somebody else's, without the links in it: the kernel would take one that begins with a
/// slash, such as a container's `/var/run`, from this process's root.
fn within(root: &Path, path: &Path) -> PathBuf {
    let names = |path: &Path| -> Vec<OsString> {
        let parts = path.components().filter(|part| *part != Component::RootDir);
        parts.map(|part| part.as_os_str().to_owned()).collect()
    };
    let (mut found, mut links_count) = (PathBuf::new(), 0);
    let mut rest: VecDeque<OsString> = names(path).into();
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            found.pop();
            continue;
        }
        match fs::read_link(root.join(&found).join(&name)) {
            Ok(target) if links_count < LINKS_MAX => {
                links_count += 1;
                if target.is_absolute() {
                    found.clear();
                }
                for name in names(&target).into_iter().rev() {
                    rest.push_front(name);
                }
            }
            _ => found.push(name),
        }
    }
    root.join(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let stat = "13139 (CPU 0) R 9 (x) R 13125 13125 5004 0 -1 4194304 99 0 0 0 0 0 0 0 20 0 1 0 \
                    180777 3133440 358";
        assert_eq!(parse_start_ticks(stat), Some(StartTicks(180_777)));
        assert_eq!(flags(stat), Some(4_194_304));
        assert_eq!(flags("13139 (cat"), None);
        assert_eq!(parse_start_ticks("13139 (cat"), None);
        assert_eq!(parse_start_ticks("13139 (cat) R 1 2"), None);
    }

    #[test]
    fn a_command_line_is_read_as_far_as_its_words_are_whole() {
        assert_eq!(words_of(b"qemu\0\0-S\0"), ["qemu", "", "-S"]);
        assert_eq!(words_of(b"qemu\0-na"), ["qemu"], "the rest is cut off");
        assert_eq!(words_of(b""), [""; 0]);
        assert_eq!(words_of(&[0; WORDS_MAX + 1]).len(), WORDS_MAX);
    }

    #[test]
    fn links_lead_to_files_below_the_root_that_they_are_in() {
        use std::os::unix::fs::symlink;
        let scratch = tempfile::tempdir().expect("scratch");
        let root = scratch.path();
        fs::create_dir_all(root.join("run/vm")).expect("scratch is writable");
        fs::create_dir(root.join("var")).expect("scratch is writable");
        fs::write(root.join("run/vm/d.img"), b"x").expect("scratch is writable");
        for (target, link) in [
            ("/run", "var/run"),
            ("../../run/vm", "run/vm/up"),
            ("/loop", "loop"),
            ("d.img", "run/vm/l"),
        ] {
            symlink(target, root.join(link)).expect("scratch is writable");
        }
        let image = root.join("run/vm/d.img");
        for path in
            ["var/run/vm/d.img", "run/vm/up/d.img", "../../run/vm/./l", "var/../run/vm/d.img"]
        {
            assert_eq!(within(root, Path::new(path)), image, "{path}");
        }
        assert_eq!(within(root, Path::new("run/gone")), root.join("run/gone"));
        assert!(fs::metadata(within(root, Path::new("loop/x"))).is_err());
    }

    #[test]
    fn a_socket_that_is_gone_or_cannot_be_seen_stays_as_it_is_told() {
        let own = Tid(std::process::id());
        for (pid, path) in [(own, "/"), (own, "/run/gone.sock"), (Tid(u32::MAX), "/run/gone.sock")]
        {
            assert_eq!(socket_seen_by(pid, Path::new(path)), Path::new(path), "{pid}");
        }
    }

    #[test]
    fn a_process_has_its_parent() {
        let own = process_stat(Tid(std::process::id())).expect("it runs");
        assert_eq!(own.parent, Tid(std::os::unix::process::parent_id()));
        assert!(!own.is_kernel && process_stat(Tid(u32::MAX)).is_none());
    }

    #[test]
    fn a_stopped_process_has_its_stopper() {
        for (state, stopper) in
            [("T", Some(Stopper::Signal)), ("t", Some(Stopper::Debugger)), ("S", None), ("R", None)]
        {
            assert_eq!(parse_stopper(&format!("7 (a T) {state} 1 7")), stopper, "{state}");
        }
        assert_eq!(stopper(Tid(std::process::id())), None);
    }

    #[test]
    fn an_open_socket_leads_to_its_path() {
        let directory = tempfile::tempdir().expect("scratch");
        let path = directory.path().join("a socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("scratch is writable");
        let fd = u32::try_from(std::os::fd::AsRawFd::as_raw_fd(&listener)).expect("it is open");
        let own = Tid(std::process::id());
        assert_eq!(unix_socket_path(own, fd), Some(path));
        assert_eq!(unix_socket_path(own, 0), None, "no socket, or one without a path");
    }

    #[test]
    fn this_process_is_alive_and_an_earlier_one_of_its_id_is_not() {
        let pid = Tid(std::process::id());
        let start = start_ticks(pid).expect("this process runs");
        assert!(is_alive(pid, start));
        assert!(!is_alive(pid, StartTicks(start.0 - 1)));
        let age = age(start).expect("Linux tells both");
        assert!(age < Duration::from_hours(1), "this test began {age:?} ago");
        assert!(tids(pid).expect("its own threads").contains(&pid));
        assert!(pids().contains(&pid) && !is_kernel(pid));
        let words = command_line(pid).expect("its own");
        assert_eq!(words, std::env::args().collect::<Vec<_>>());
        // kthreadd; a container has another process of this id, or none.
        if comm(Tid(2), Tid(2)).is_ok_and(|name| name == "kthreadd") {
            assert!(is_kernel(Tid(2)));
        }
    }
}
