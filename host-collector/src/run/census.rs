//! Who is there when recording starts: the threads of this host, so that antagonists have names.

use crate::units::Tid;
use crate::vmm::procfs;
use serde::{Deserialize, Serialize};
use std::fs;

/// `PF_KTHREAD` of `include/linux/sched.h`: the task is the kernel's own. Field 9 (`flags`) of
/// proc_pid_stat(5) has it.
const PF_KTHREAD: u64 = 0x0020_0000;

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
}

/// All threads of the host, in order of their processes. Those that end meanwhile are left out.
#[must_use]
pub fn host_threads() -> Vec<HostThread> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut pids: Vec<Tid> = pids.map(Tid).collect();
    pids.sort_unstable();
    pids.into_iter().flat_map(threads_of).collect()
}

fn threads_of(pid: Tid) -> Vec<HostThread> {
    let is_kernel = fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| flags(&stat).is_some_and(|flags| flags & PF_KTHREAD != 0));
    let tids = procfs::tids(pid).unwrap_or_default();
    let thread = |tid| {
        let comm = procfs::comm(pid, tid).ok()?;
        Some(HostThread { tid, pid, comm, is_kernel })
    };
    tids.into_iter().filter_map(thread).collect()
}

/// The name, field 2, stands in parentheses and may hold anything; the last `)` ends it.
fn flags(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(9 - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_found_behind_any_name() {
        let stat = "12 (a) b (c)) S 2 0 0 0 -1 69238880 0 0 0 0 0 0";
        assert_eq!(flags(stat), Some(69_238_880));
        assert_eq!(flags("12 (a"), None);
    }

    #[test]
    fn this_test_is_in_the_census_and_no_kernel_thread() {
        let threads = host_threads();
        let pid = Tid(std::process::id());
        let own = threads.iter().find(|thread| thread.tid == pid).unwrap();
        assert!(!own.is_kernel && own.pid == pid);
        // kthreadd; a container may not see it.
        if let Some(kthreadd) = threads.iter().find(|thread| thread.comm == "kthreadd") {
            assert!(kthreadd.is_kernel);
        }
    }
}
