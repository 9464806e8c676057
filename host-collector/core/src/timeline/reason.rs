//! Why a thread left its pCPU.

use serde::{Deserialize, Serialize};

/// One reason for which a thread left its pCPU. The rules that tell them apart are in
/// [`classify`](super::classify).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Asleep on QEMU's big lock: the futex's address is the lock's.
    Bql,
    /// Asleep on QEMU's big lock, whose address is not in its code but in what its threads do: it is the one
    /// mutex from which vCPUs and main loop wake each other.
    BqlFoundByBehaviour,
    /// Asleep on what is probably QEMU's big lock, whose address is not known.
    BqlInferred,
    /// Asleep on another mutex of QEMU.
    QemuLock,
    /// Asleep on a condition of QEMU: the vCPU is halted or paused there. Under TCG this is how a
    /// guest is idle.
    HaltUser,
    /// Asleep on a mutex or a condition of a VMM written in Rust, where the two look the same.
    VmmLock,
    /// The guest is idle: the vCPU is halted in KVM.
    Halt,
    /// Waiting for a host page fault: guest memory that is swapped out or not yet allocated.
    HostFault,
    /// Put to sleep by the kernel, as its control group uses more memory than its `memory.high`.
    MemoryLimit,
    /// Asleep on a lock of the host's kernel, or until others no longer use what it changes, in KVM.
    KvmKernelLock,
    /// The vCPU's thread does disk I/O itself and waits for it.
    IoSubmit,
    /// Its control group has used up its CPU quota, or it is a real-time task and real-time tasks have used
    /// up their share of the pCPU.
    Throttle,
    /// Its timeslice was over.
    Timeslice,
    /// A thread that had just been woken preempted it.
    PreemptWakeup,
    /// A real-time task or the kernel's stopper took the pCPU.
    PreemptRtOrStop,
    /// It yielded its pCPU by itself.
    Yield,
    /// Asleep in `poll`, for a time, or until there is work to do.
    PollSleep,
    /// It was switched out while it handled signals or other task work in the kernel.
    SignalWork,
    /// Stopped by a signal or a debugger.
    Stopped,
    /// No rule fits, or there is no stack. Never a guess.
    Unknown,
}

impl Reason {
    /// Every reason, in the order in which they are printed.
    pub const ALL: [Reason; 20] = [
        Reason::Bql,
        Reason::BqlFoundByBehaviour,
        Reason::BqlInferred,
        Reason::QemuLock,
        Reason::HaltUser,
        Reason::VmmLock,
        Reason::Halt,
        Reason::HostFault,
        Reason::MemoryLimit,
        Reason::KvmKernelLock,
        Reason::IoSubmit,
        Reason::Throttle,
        Reason::Timeslice,
        Reason::PreemptWakeup,
        Reason::PreemptRtOrStop,
        Reason::Yield,
        Reason::PollSleep,
        Reason::SignalWork,
        Reason::Stopped,
        Reason::Unknown,
    ];

    /// Its name in `summary.json`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Reason::Bql => "bql",
            Reason::BqlFoundByBehaviour => "bql_found_by_behaviour",
            Reason::BqlInferred => "bql_inferred",
            Reason::QemuLock => "qemu_lock",
            Reason::HaltUser => "halt_user",
            Reason::VmmLock => "vmm_lock",
            Reason::Halt => "halt",
            Reason::HostFault => "host_fault",
            Reason::MemoryLimit => "memory_limit",
            Reason::KvmKernelLock => "kvm_kernel_lock",
            Reason::IoSubmit => "io_submit",
            Reason::Throttle => "throttle",
            Reason::Timeslice => "timeslice",
            Reason::PreemptWakeup => "preempt_wakeup",
            Reason::PreemptRtOrStop => "preempt_rt_or_stop",
            Reason::Yield => "yield",
            Reason::PollSleep => "poll_sleep",
            Reason::SignalWork => "signal_work",
            Reason::Stopped => "stopped",
            Reason::Unknown => "unknown",
        }
    }

    /// Whether a thread with this reason sleeps on a lock of its VMM.
    #[must_use]
    pub fn is_lock(self) -> bool {
        matches!(
            self,
            Reason::Bql
                | Reason::BqlFoundByBehaviour
                | Reason::BqlInferred
                | Reason::QemuLock
                | Reason::VmmLock
        )
    }

    /// Whether this reason holds up a vCPU that has work to do: a lock, a fault, a quota. An idle guest does
    /// not count, nor does waiting for a pCPU.
    #[must_use]
    pub fn is_hindrance(self) -> bool {
        let others = [
            Reason::HostFault,
            Reason::MemoryLimit,
            Reason::KvmKernelLock,
            Reason::IoSubmit,
            Reason::Throttle,
            Reason::Stopped,
        ];
        self.is_lock() || others.contains(&self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_json_and_all_are_listed() {
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.name());
            assert_eq!(reason as usize, place);
        }
    }
}
