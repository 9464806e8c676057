//! Who is there when recording starts: the threads of this host, so that antagonists have names.

use crate::units::Tid;
use crate::vmm::procfs;
use serde::{Deserialize, Serialize};

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
    procfs::pids().into_iter().flat_map(threads_of).collect()
}

fn threads_of(pid: Tid) -> Vec<HostThread> {
    let is_kernel = procfs::is_kernel(pid);
    let tids = procfs::tids(pid).unwrap_or_default();
    let thread = |tid| {
        let comm = procfs::comm(pid, tid).ok()?;
        Some(HostThread { tid, pid, comm, is_kernel })
    };
    tids.into_iter().filter_map(thread).collect()
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
        // kthreadd; a container may not see it.
        if let Some(kthreadd) = threads.iter().find(|thread| thread.comm == "kthreadd") {
            assert!(kthreadd.is_kernel);
        }
    }
}
