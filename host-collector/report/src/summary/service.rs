//! What the threads of a VMM that run no vCPU did for its vCPUs: whom a doorbell wakes, and who wakes the
//! vCPU. This tells whether a disk is really served by the thread that its configuration names.

use serde::{Deserialize, Serialize};
use vslice_core::units::Tid;

/// One thread of a VMM that runs no vCPU, in the measured window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceThread {
    /// The VM.
    pub vm: String,
    /// Its role, such as "iothread io0", "main loop", "worker".
    pub role: String,
    /// Its id.
    pub tid: Tid,
    /// How often it was switched in.
    pub arrivals: u64,
    /// How often a vCPU's thread woke it, by a doorbell of its devices or by releasing a lock.
    pub woken_by_vcpus: u64,
    /// How often it woke a vCPU's thread, by an interrupt or by releasing a lock.
    pub woke_vcpus: u64,
}

/// How far the iothreads of a VM served its disk, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engagement {
    /// Doorbells woke them, and they, not the main loop, woke the vCPUs when they were done.
    Whole,
    /// Doorbells woke them, and the main loop raised the interrupts: under TCG, and with INTx, only it can
    /// (hw/virtio: without an irqfd a guest notifier is an event of the main loop).
    SubmissionOnly,
    /// No doorbell woke them, or the main loop was woken more often.
    Not,
}

impl Engagement {
    /// A description that follows the name of a condition.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Engagement::Whole => "doorbells woke the iothreads, and the iothreads woke the vCPUs",
            Engagement::SubmissionOnly => {
                "doorbells woke the iothreads, and the main loop raised the interrupts"
            }
            Engagement::Not => "VOID: doorbells did not wake the iothreads",
        }
    }
}

/// How far the iothreads of a VM that made requests served them. A thread that has not gone to sleep since
/// the last doorbell needs no wakeup, so wakeups are compared with those of the main loop and not with the
/// number of requests.
#[must_use]
pub fn engagement(threads: &[ServiceThread], vm: &str) -> Engagement {
    let sums = |role: &str| {
        let of_role = |thread: &&ServiceThread| thread.vm == vm && thread.role.starts_with(role);
        threads.iter().filter(of_role).fold((0_u64, 0_u64), |(woken, woke), thread| {
            (woken + thread.woken_by_vcpus, woke + thread.woke_vcpus)
        })
    };
    let ((woken, woke), (loop_woken, loop_woke)) = (sums("iothread"), sums("main loop"));
    if woken == 0 || woken < loop_woken {
        Engagement::Not
    } else if woke < loop_woke {
        Engagement::SubmissionOnly
    } else {
        Engagement::Whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(vm: &str, role: &str, woken_by_vcpus: u64, woke_vcpus: u64) -> ServiceThread {
        let (vm, role) = (vm.to_owned(), role.to_owned());
        ServiceThread { vm, role, tid: Tid(7), arrivals: 9, woken_by_vcpus, woke_vcpus }
    }

    /// The numbers are those of real runs: of KVM with MSI-X and with INTx, and of TCG.
    #[test]
    fn a_disk_is_served_where_its_doorbells_wake_somebody() {
        let of = |threads: &[ServiceThread]| engagement(threads, "vm1");
        let msi_x = thread("vm1", "iothread io0", 272, 30);
        assert_eq!(of(&[msi_x.clone(), thread("vm1", "vhost", 64, 10)]), Engagement::Whole);
        let intx = thread("vm1", "main loop", 0, 69);
        let two =
            [intx, thread("vm1", "iothread io0", 200, 10), thread("vm1", "iothread io1", 88, 6)];
        assert_eq!(of(&two), Engagement::SubmissionOnly);
        let tcg = thread("vm1", "main loop", 1527, 4567);
        let served = thread("vm1", "iothread io0", 8098, 0);
        assert_eq!(of(&[tcg.clone(), served.clone()]), Engagement::SubmissionOnly);
        let asleep = thread("vm1", "iothread io0", 3, 0);
        assert_eq!(of(&[tcg.clone(), asleep]), Engagement::Not);
        assert_eq!(of(std::slice::from_ref(&tcg)), Engagement::Not);
        assert_eq!(engagement(&[tcg, served], "vm2"), Engagement::Not, "another VM's");
        assert_eq!(of(&[]), Engagement::Not);
        // One that is too busy to sleep is woken now and then, and the main loop not at all.
        assert_eq!(of(&[thread("vm1", "iothread io0", 5, 0)]), Engagement::Whole);
        assert_eq!(of(&[msi_x, thread("vm1", "main loop", 3, 2)]), Engagement::Whole);
    }
}
