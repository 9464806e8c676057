//! The threads of a VMM and of the host, as a run recorded them.

use serde::{Deserialize, Serialize};
use std::fmt;
use vslice_core::units::{PcpuId, Tid, VcpuId};

/// What a thread is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", from = "String")]
pub enum ThreadRole {
    /// It runs this vCPU.
    Vcpu(VcpuId),
    /// The thread that the process began with; in QEMU, the main loop.
    MainLoop,
    /// It serves devices outside the main loop; QEMU's id of it, or another VMM's name.
    Iothread(String),
    /// It does blocking calls for other threads.
    Worker,
    /// The host kernel's own, for a vhost device.
    Vhost,
    /// Anything else.
    Other,
}

impl fmt::Display for ThreadRole {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ThreadRole::Vcpu(vcpu) => vcpu.fmt(formatter),
            ThreadRole::MainLoop => formatter.write_str("main loop"),
            ThreadRole::Iothread(id) => write!(formatter, "iothread {id}"),
            ThreadRole::Worker => formatter.write_str("worker"),
            ThreadRole::Vhost => formatter.write_str("vhost"),
            ThreadRole::Other => formatter.write_str("other thread"),
        }
    }
}

impl From<ThreadRole> for String {
    fn from(role: ThreadRole) -> String {
        role.to_string()
    }
}

/// A role as [`fmt::Display`] writes it; whatever else is written is another one.
impl From<String> for ThreadRole {
    fn from(text: String) -> ThreadRole {
        let vcpu = text.strip_prefix("vCPU").and_then(|number| number.parse().ok());
        match (text.as_str(), vcpu, text.strip_prefix("iothread ")) {
            (_, Some(number), _) => ThreadRole::Vcpu(VcpuId(number)),
            (_, _, Some(id)) => ThreadRole::Iothread(id.to_owned()),
            ("main loop", ..) => ThreadRole::MainLoop,
            ("worker", ..) => ThreadRole::Worker,
            ("vhost", ..) => ThreadRole::Vhost,
            _ => ThreadRole::Other,
        }
    }
}

impl ThreadRole {
    /// The vCPU that it runs, if it runs one.
    #[must_use]
    pub fn vcpu(&self) -> Option<VcpuId> {
        match self {
            ThreadRole::Vcpu(vcpu) => Some(*vcpu),
            _ => None,
        }
    }
}

/// One thread of a VMM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadRecord {
    /// The thread.
    pub tid: Tid,
    /// Its name.
    pub comm: String,
    /// What it is for.
    pub role: ThreadRole,
    /// The vCPU it runs, if it runs one.
    pub vcpu: Option<VcpuId>,
    /// The pCPU that it was pinned to for the run, if it was.
    pub pinned: Option<PcpuId>,
    /// The pCPU on which it ran through the whole window, if it was never switched out.
    #[serde(default)]
    pub kept: Option<PcpuId>,
    /// Its scheduling policy when recording began.
    #[serde(default)]
    pub scheduling: Option<Scheduling>,
}

/// A thread's scheduling policy, and its nice value or priority within it: see sched(7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduling {
    /// The policy's name in sched(7), or its number if it has no known name.
    pub policy: String,
    /// The nice value in [-20, 19]; it matters for `SCHED_OTHER` and `SCHED_BATCH`.
    pub nice: i32,
    /// The real-time priority: in [1, 99] for `SCHED_FIFO` and `SCHED_RR`, 0 for all others.
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
    /// Whether it is a kernel thread.
    pub is_kernel: bool,
    /// Whether its process runs a program called `vslice`, or calls itself so.
    #[serde(default)]
    pub is_vslice: bool,
    /// The command line of its process, if it is the one that the process began with and it could be
    /// read: at most 512 bytes of it, made harmless.
    #[serde(default)]
    pub command: Option<String>,
    /// If it is the one that its process began with, the control group that it was in when it was listed: a path
    /// below the root of its hierarchy, made harmless. `None` if that could not be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// Somebody who works for one VM outside of its VMM's process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelperRecord {
    /// Its process; a kernel thread is one by itself.
    pub pid: Tid,
    /// Its name.
    pub comm: String,
    /// What it serves, in words: `disk`, `file system`, `network`.
    pub role: String,
    /// Whether it is only inferred that it works for this VM.
    pub is_inferred: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_come_back_as_they_were_written() {
        for role in [
            ThreadRole::Vcpu(VcpuId(7)),
            ThreadRole::MainLoop,
            ThreadRole::Iothread("io 1".to_owned()),
            ThreadRole::Worker,
            ThreadRole::Vhost,
            ThreadRole::Other,
        ] {
            let json = serde_json::to_string(&role).unwrap();
            assert_eq!(serde_json::from_str::<ThreadRole>(&json).unwrap(), role, "{json}");
        }
        let later: ThreadRole = serde_json::from_str("\"a role of a later vslice\"").unwrap();
        assert_eq!(later, ThreadRole::Other);
    }
}
