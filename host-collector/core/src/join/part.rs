//! The parts that a request's latency is split into.

use crate::timeline::{Reason, RunMode, ThreadState};
use serde::{Deserialize, Serialize};

/// What the vCPU thread was doing, as a part of a request's latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// On a pCPU, in the guest, in KVM or in the VMM: which one was not recorded.
    OnPcpu,
    /// On a pCPU, in the guest.
    Guest,
    /// On a pCPU, in KVM.
    Kvm,
    /// On a pCPU, in the VMM.
    VmmUser,
    /// On a pCPU, in KVM, for a guest that was idle: KVM polled whether it has to run again.
    HaltPoll,
    /// Runnable, but another thread was given the pCPU.
    PreemptWait,
    /// Woken, but not yet on a pCPU.
    WakeupDelay,
    /// Runnable, but its control group had used up its CPU quota.
    Throttled,
    /// Asleep on QEMU's big lock, by the lock's address: proven by QEMU's code, or found by behaviour.
    BqlWait,
    /// Asleep on another lock of the VMM, or on one that is only inferred to be the big lock.
    LockWait,
    /// The guest was idle: it waited, normally for the device.
    Halt,
    /// Waiting for a host page fault.
    HostFault,
    /// Waiting for disk I/O that it submitted itself.
    IoSubmit,
    /// Asleep elsewhere in the host kernel.
    OtherSleep,
    /// Overlaps lost records, or a sleep that no rule matches.
    Unknown,
}

impl Part {
    /// Every part, in the order in which they are printed.
    pub const ALL: [Part; 15] = [
        Part::OnPcpu,
        Part::Guest,
        Part::Kvm,
        Part::VmmUser,
        Part::HaltPoll,
        Part::PreemptWait,
        Part::WakeupDelay,
        Part::Throttled,
        Part::BqlWait,
        Part::LockWait,
        Part::Halt,
        Part::HostFault,
        Part::IoSubmit,
        Part::OtherSleep,
        Part::Unknown,
    ];

    /// The part's name in `summary.json`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Part::OnPcpu => "on_pcpu",
            Part::Guest => "guest",
            Part::Kvm => "kvm",
            Part::VmmUser => "vmm_user",
            Part::HaltPoll => "halt_poll",
            Part::PreemptWait => "preempt_wait",
            Part::WakeupDelay => "wakeup_delay",
            Part::Throttled => "throttled",
            Part::BqlWait => "bql_wait",
            Part::LockWait => "lock_wait",
            Part::Halt => "halt",
            Part::HostFault => "host_fault",
            Part::IoSubmit => "io_submit",
            Part::OtherSleep => "other_sleep",
            Part::Unknown => "unknown",
        }
    }

    /// The part that a thread's state counts towards.
    #[must_use]
    pub fn of(state: &ThreadState) -> Part {
        match state {
            ThreadState::Running { mode, .. } => match mode {
                RunMode::Unsplit => Part::OnPcpu,
                RunMode::Guest => Part::Guest,
                RunMode::Kvm => Part::Kvm,
                RunMode::Vmm => Part::VmmUser,
                RunMode::HaltPoll => Part::HaltPoll,
            },
            ThreadState::PreemptWait { reason: Reason::Throttle, .. } => Part::Throttled,
            // Whatever the reason, and also if none is known: it was runnable.
            ThreadState::PreemptWait { .. } => Part::PreemptWait,
            ThreadState::WakeupDelay { .. } => Part::WakeupDelay,
            ThreadState::Blocked(sleep) => Part::of_sleep(sleep.reason),
            ThreadState::Unknown { .. } => Part::Unknown,
        }
    }

    fn of_sleep(reason: Reason) -> Part {
        match reason {
            Reason::Bql | Reason::BqlFoundByBehaviour => Part::BqlWait,
            Reason::BqlInferred | Reason::QemuLock | Reason::VmmLock => Part::LockWait,
            Reason::Halt | Reason::HaltUser => Part::Halt,
            Reason::HostFault => Part::HostFault,
            Reason::IoSubmit => Part::IoSubmit,
            Reason::MemoryLimit | Reason::KvmKernelLock | Reason::PollSleep | Reason::Stopped => {
                Part::OtherSleep
            }
            // The others are reasons of threads that are still runnable.
            Reason::Unknown
            | Reason::Throttle
            | Reason::Timeslice
            | Reason::PreemptWakeup
            | Reason::PreemptRtOrStop
            | Reason::Yield
            | Reason::SignalWork => Part::Unknown,
        }
    }

    /// Whether the thread was on a pCPU.
    #[must_use]
    pub fn is_on_pcpu(self) -> bool {
        matches!(self, Part::OnPcpu | Part::Guest | Part::Kvm | Part::VmmUser | Part::HaltPoll)
    }

    /// Whether this part is I/O inactivity once the I/O has completed: the vCPU is not on a pCPU to handle
    /// it, although it need not be notified first. A halted vCPU, for which KVM may poll, has not been
    /// notified yet, or another vCPU was; of an unknown state nothing can be said.
    #[must_use]
    pub fn is_inactivity(self) -> bool {
        match self {
            Part::PreemptWait
            | Part::WakeupDelay
            | Part::Throttled
            | Part::BqlWait
            | Part::LockWait
            | Part::HostFault
            | Part::IoSubmit
            | Part::OtherSleep => true,
            Part::OnPcpu
            | Part::Guest
            | Part::Kvm
            | Part::VmmUser
            | Part::HaltPoll
            | Part::Halt
            | Part::Unknown => false,
        }
    }
}

/// Nanoseconds by part; together they are the length of the window that was split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PartsNs([u64; Part::ALL.len()]);

impl PartsNs {
    /// Nanoseconds in `part`.
    #[must_use]
    pub fn get(&self, part: Part) -> u64 {
        self.0[part as usize]
    }

    /// Adds nanoseconds to `part`, saturating at `u64::MAX` (584 years), which only a lying guest reaches.
    pub fn add(&mut self, part: Part, length_ns: u64) {
        let sum_ns = &mut self.0[part as usize];
        *sum_ns = sum_ns.saturating_add(length_ns);
    }

    /// Adds all of `other`.
    pub fn add_all(&mut self, other: &PartsNs) {
        for part in Part::ALL {
            self.add(part, other.get(part));
        }
    }

    /// The sum over all parts.
    #[must_use]
    pub fn total_ns(&self) -> u64 {
        self.0.iter().fold(0, |total_ns, part_ns| total_ns.saturating_add(*part_ns))
    }
}
