//! What the threads of a VMM that run no vCPU did for its vCPUs: whom a doorbell wakes, and who wakes
//! the vCPU. It tells whether a disk is really served where its configuration says.

use crate::units::Tid;
use serde::{Deserialize, Serialize};

/// One thread of a VMM that runs no vCPU, in the measured window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceThread {
    /// The VM.
    pub vm: String,
    /// What it is for, as "iothread io0", "main loop", "worker".
    pub role: String,
    /// Its id.
    pub tid: Tid,
    /// How often it came on a pCPU.
    pub arrivals: u64,
    /// How often a vCPU's thread woke it: for a doorbell of its devices, or for a lock that was let go.
    pub woken_by_vcpus: u64,
    /// How often it woke a vCPU's thread: for an interrupt that the vCPU slept for, or for a lock that was
    /// let go.
    pub woke_vcpus: u64,
}

/// At least so many of a reader's requests must have woken an iothread, as a share, for its disk to be
/// served there. Each of them rings once; who has not gone to sleep since the last one needs no waking.
pub const ENGAGED_SHARE_MIN: f64 = 0.5;

/// Whether the disk of a VM was served by its iothreads in a run of `requests`: they were woken by
/// doorbells.
#[must_use]
pub fn is_engaged(threads: &[ServiceThread], vm: &str, requests: u64) -> bool {
    let iothreads =
        threads.iter().filter(|thread| thread.vm == vm && thread.role.starts_with("iothread"));
    let woken: u64 = iothreads.map(|thread| thread.woken_by_vcpus).sum();
    requests > 0 && woken as f64 >= ENGAGED_SHARE_MIN * requests as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(vm: &str, role: &str, woken_by_vcpus: u64) -> ServiceThread {
        let (vm, role) = (vm.to_owned(), role.to_owned());
        ServiceThread { vm, role, tid: Tid(7), arrivals: 9, woken_by_vcpus, woke_vcpus: 0 }
    }

    #[test]
    fn a_disk_is_served_where_its_doorbells_wake_somebody() {
        let woken = [thread("vm1", "iothread io0", 60), thread("vm1", "main loop", 3)];
        assert!(is_engaged(&woken, "vm1", 100));
        assert!(!is_engaged(&woken, "vm1", 200), "most of the requests woke nobody there");
        assert!(!is_engaged(&woken, "vm2", 100), "another VM's");
        assert!(!is_engaged(&[thread("vm1", "main loop", 100)], "vm1", 100));
        assert!(!is_engaged(&woken, "vm1", 0));
        let spread = [thread("vm1", "iothread io0", 30), thread("vm1", "iothread io1", 30)];
        assert!(is_engaged(&spread, "vm1", 100));
    }
}
