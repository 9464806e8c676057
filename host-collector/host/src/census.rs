//! All processes of the host at one moment, as far as this user sees them: what is looked for among all of
//! them is looked for in one reading of `/proc`.

use crate::procfs::{self, ProcessStat};
use crate::unix_sockets::HeldSockets;
use std::cell::OnceCell;
use vslice_core::units::Tid;

/// A process, the kernel's own threads among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: Tid,
    /// Who started it, or who took it over.
    pub parent: Tid,
    /// The name of its first thread. Of the kernel's own it is the whole name since Linux 5.17, and 15 bytes of
    /// it before (linux: fs/proc/array.c, `proc_task_name`).
    pub comm: String,
    /// Whether it is the kernel's own.
    pub is_kernel: bool,
    /// Its command line; empty for the kernel's own.
    pub words: Vec<String>,
}

/// What one reading of `/proc` showed.
#[derive(Debug, Clone, Default)]
pub struct Census {
    /// The processes, by their ids.
    pub processes: Vec<Process>,
    /// Read when a VM has a device that somebody else serves, and once for all VMs.
    sockets: OnceCell<HeldSockets>,
}

impl Census {
    /// Reads `/proc`: two files for each process. What ends meanwhile is left out.
    #[must_use]
    pub fn take() -> Census {
        let processes = procfs::pids().into_iter().filter_map(Process::of).collect();
        Census { processes, sockets: OnceCell::new() }
    }

    /// The Unix sockets that these processes hold.
    pub(crate) fn sockets(&self) -> &HeldSockets {
        self.sockets.get_or_init(|| HeldSockets::of(self.programs().map(|program| program.pid)))
    }

    /// The kernel's own threads.
    pub(crate) fn kernel_threads(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(|process| process.is_kernel)
    }

    /// All but the kernel's own.
    pub(crate) fn programs(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().filter(|process| !process.is_kernel)
    }
}

impl Process {
    /// One process; `None` if it has ended.
    pub(crate) fn of(pid: Tid) -> Option<Process> {
        let ProcessStat { comm, parent, is_kernel } = procfs::process_stat(pid)?;
        let words = if is_kernel { Vec::new() } else { procfs::command_line(pid).ok()? };
        Some(Process { pid, parent, comm, is_kernel, words })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_counted_with_its_command_line() {
        let census = Census::take();
        let own = Tid(std::process::id());
        let found = census.programs().find(|process| process.pid == own).expect("it runs");
        assert_eq!(found.words, std::env::args().collect::<Vec<_>>());
        assert!(census.kernel_threads().all(|thread| thread.words.is_empty()));
    }
}
