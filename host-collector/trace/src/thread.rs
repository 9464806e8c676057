//! Threads as a run found them: those of a VMM, and all of the host.

use serde::{Deserialize, Serialize};
use std::fmt;
use vslice_core::units::{PcpuId, Tid, VcpuId};

/// One thread of a VMM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadRecord {
    /// The thread.
    pub tid: Tid,
    /// Its name.
    pub comm: String,
    /// What it does: `vcpu`, `main_loop`, `iothread`, ...
    pub role: String,
    /// The vCPU it runs, if it runs one.
    pub vcpu: Option<VcpuId>,
    /// The pCPU that it was pinned to for the run, if it was.
    pub pinned: Option<PcpuId>,
    /// The pCPU that it kept through the whole window, if no switch took it away.
    #[serde(default)]
    pub kept: Option<PcpuId>,
    /// How it competed for its pCPU when the recording began.
    #[serde(default)]
    pub scheduling: Option<Scheduling>,
}

/// How a thread competes for its pCPU: its scheduling class and its weight or priority in it, see sched(7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduling {
    /// As sched(7) calls it, or the number of one that is not known.
    pub policy: String,
    /// In [-20, 19]; it counts for `SCHED_OTHER` and `SCHED_BATCH`.
    pub nice: i32,
    /// In [1, 99] for `SCHED_FIFO` and `SCHED_RR`, 0 for all others.
    pub priority: u32,
}

impl fmt::Display for Scheduling {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.policy)?;
        match self.policy.as_str() {
            "SCHED_OTHER" | "SCHED_BATCH" => write!(formatter, " nice {}", self.nice),
            "SCHED_FIFO" | "SCHED_RR" => write!(formatter, " priority {}", self.priority),
            _ => Ok(()),
        }
    }
}

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
