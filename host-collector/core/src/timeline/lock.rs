//! Waits for a VMM's locks: who released the lock, how long it was held, and for which device access the
//! thread needed it.

use super::reason::Reason;
use super::span::DeviceAddress;
use crate::units::{HostNs, Tid};
use rustc_hash::FxHashMap;

/// Locks of one VM of which it is kept who waits for them; beyond that, no new ones are.
const LOCKS_MAX: usize = 4096;

/// One sleep on a lock of the VMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockWait {
    /// The thread that slept.
    pub tid: Tid,
    /// When it went to sleep.
    pub start: HostNs,
    /// When it was woken.
    pub end: HostNs,
    /// Which lock: [`Reason::is_lock`] holds.
    pub reason: Reason,
    /// The lock's address, where it was recorded.
    pub address: Option<u64>,
    /// The thread that released it by waking the sleeper. (A signal such as a vCPU kick wakes the sleeper as
    /// well: then this is the sender, and the sleeper waits once more.)
    pub released_by: Tid,
    /// How long that thread had held it, in nanoseconds, if that is certain: it got the lock while the
    /// sleeper waited and has woken no other waiter since. (Releasing a lock that has waiters wakes one of
    /// them.)
    pub held_ns: Option<u64>,
    /// The device that the guest had touched, where that was recorded.
    pub device: Option<DeviceAddress>,
}

/// What a thread is in its VMM, as far as it matters for what lock it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockUser {
    /// A vCPU's thread.
    Vcpu,
    /// The main loop.
    MainLoop,
    /// Any other.
    Other,
}

/// Which kinds of threads have been seen to wait for each lock of one VM.
#[derive(Debug, Default)]
pub(super) struct LockUsers {
    seen: FxHashMap<u64, u8>,
}

impl LockUsers {
    /// A thread waits for a lock; says whether threads of different kinds have.
    pub(super) fn wait(&mut self, address: u64, user: LockUser) -> bool {
        let bit = 1_u8 << user as u32;
        if self.seen.len() >= LOCKS_MAX && !self.seen.contains_key(&address) {
            return false;
        }
        let seen = self.seen.entry(address).or_default();
        *seen |= bit;
        *seen != bit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_shared_from_the_second_kind_of_thread_on() {
        let mut users = LockUsers::default();
        assert!(!users.wait(8, LockUser::Vcpu));
        assert!(!users.wait(8, LockUser::Vcpu));
        assert!(!users.wait(16, LockUser::MainLoop));
        assert!(users.wait(8, LockUser::MainLoop));
        assert!(users.wait(8, LockUser::Vcpu));
        for address in 0..LOCKS_MAX as u64 {
            users.wait(address * 8, LockUser::Other);
        }
        assert!(!users.wait(1, LockUser::Vcpu) && !users.wait(1, LockUser::MainLoop));
    }
}
