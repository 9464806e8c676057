//! Why a vCPU's thread was off its pCPU, as used in the summary.

use serde::{Deserialize, Serialize};
use vslice_core::timeline::{Reason, ThreadState};

/// One reason for being off a pCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "&'static str", try_from = "String")]
pub enum OffReason {
    /// It left for this reason.
    Left(Reason),
    /// It had been woken but was not yet on a pCPU.
    WakeupDelay,
    /// Records were lost, or none were made.
    NotRecorded,
}

impl OffReason {
    /// Every reason, in the order in which they are printed.
    pub fn all() -> impl Iterator<Item = OffReason> {
        let others = [OffReason::WakeupDelay, OffReason::NotRecorded];
        Reason::ALL.into_iter().map(OffReason::Left).chain(others)
    }

    /// The reason in a thread's state; `None` if the thread was on a pCPU.
    #[must_use]
    pub fn of(state: &ThreadState) -> Option<OffReason> {
        Some(match state {
            ThreadState::Running { .. } => return None,
            ThreadState::Blocked(sleep) => OffReason::Left(sleep.reason),
            ThreadState::PreemptWait { reason, .. } => OffReason::Left(*reason),
            ThreadState::WakeupDelay { .. } => OffReason::WakeupDelay,
            ThreadState::Unknown { .. } => OffReason::NotRecorded,
        })
    }

    /// Its name in `summary.json`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            OffReason::Left(reason) => reason.name(),
            OffReason::WakeupDelay => "wakeup_delay",
            OffReason::NotRecorded => "not_recorded",
        }
    }

    /// Its name on a page.
    #[must_use]
    pub fn label(self) -> &'static str {
        let reason = match self {
            OffReason::WakeupDelay => return "wakeup delay",
            OffReason::NotRecorded => return "not recorded",
            OffReason::Left(reason) => reason,
        };
        match reason {
            Reason::Bql => "BQL",
            Reason::BqlFoundByBehaviour => "BQL, by behaviour",
            Reason::BqlInferred => "BQL, inferred",
            Reason::QemuLock => "QEMU lock",
            Reason::HaltUser => "halt in QEMU",
            Reason::VmmLock => "VMM lock",
            Reason::Halt => "halt",
            Reason::HostFault => "host page fault",
            Reason::MemoryLimit => "memory limit",
            Reason::KvmKernelLock => "KVM kernel lock",
            Reason::IoSubmit => "own disk I/O",
            Reason::Throttle => "throttled",
            Reason::Timeslice => "timeslice over",
            Reason::PreemptWakeup => "preempted",
            Reason::PreemptRtOrStop => "real-time task",
            Reason::Yield => "yield",
            Reason::PollSleep => "poll or timer",
            Reason::SignalWork => "signal work",
            Reason::Stopped => "stopped",
            Reason::Unknown => "unknown",
        }
    }
}

impl From<OffReason> for &'static str {
    fn from(reason: OffReason) -> &'static str {
        reason.name()
    }
}

impl TryFrom<String> for OffReason {
    type Error = String;

    fn try_from(name: String) -> Result<OffReason, String> {
        OffReason::all()
            .find(|reason| reason.name() == name)
            .ok_or_else(|| format!("{name:?} is not a reason for being off a pCPU"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for reason in OffReason::all() {
            let json = serde_json::to_value(reason).unwrap();
            assert_eq!(serde_json::from_value::<OffReason>(json).unwrap(), reason);
        }
        assert!(serde_json::from_value::<OffReason>("bored".into()).is_err());
    }
}
