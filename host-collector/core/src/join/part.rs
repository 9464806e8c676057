//! The parts that a request's latency is split into.

use crate::timeline::{Reason, RunMode, ThreadState};
use serde::{Deserialize, Serialize};

/// What the vCPU thread was doing, as a part of a request's latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// On a pCPU, where it was not recorded in whose code: in the guest, in KVM or in the VMM.
    OnPcpu,
    /// On a pCPU, in the guest.
    Guest,
    /// On a pCPU, in KVM.
    Kvm,
    /// On a pCPU, in the VMM.
    VmmUser,
    /// Runnable, but somebody else was given the pCPU.
    PreemptWait,
    /// Woken, but not yet on a pCPU.
    WakeupDelay,
    /// Runnable, but its control group had used up its quota.
    Throttled,
    /// Asleep on QEMU's big lock, proven by its address.
    BqlWait,
    /// Asleep on another lock of the VMM, or on one that is only inferred to be the big lock.
    LockWait,
    /// The guest was idle: it waited, normally for the device.
    Halt,
    /// Waiting for memory of the host.
    HostFault,
    /// Waiting for disk I/O of its own.
    IoSubmit,
    /// Asleep somewhere else in the host's kernel.
    OtherSleep,
    /// Overlaps a loss, or a sleep that no rule knows.
    Unknown,
}

impl Part {
    /// Every part, in the order in which they are printed.
    pub const ALL: [Part; 14] = [
        Part::OnPcpu,
        Part::Guest,
        Part::Kvm,
        Part::VmmUser,
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
            Reason::Bql => Part::BqlWait,
            Reason::BqlInferred | Reason::QemuLock | Reason::VmmLock => Part::LockWait,
            Reason::Halt | Reason::HaltUser => Part::Halt,
            Reason::HostFault => Part::HostFault,
            Reason::IoSubmit => Part::IoSubmit,
            Reason::KvmKernelLock | Reason::PollSleep | Reason::Stopped => Part::OtherSleep,
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
        matches!(self, Part::OnPcpu | Part::Guest | Part::Kvm | Part::VmmUser)
    }

    /// Whether it is I/O inactivity once the data is there: the vCPU is not on its pCPU to take it,
    /// though nobody has to tell it first. A halted one has not been told yet, or another vCPU
    /// was, and of an unknown state
    /// nothing is known.
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
            Part::OnPcpu | Part::Guest | Part::Kvm | Part::VmmUser | Part::Halt | Part::Unknown => {
                false
            }
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

    /// Adds nanoseconds to `part`; it stays at `u64::MAX`, 584 years, which only a lying guest
    /// reaches.
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
