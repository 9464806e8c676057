//! What a thread sleeps on in `futex(2)`, from the arguments of the call and what is known of its
//! VMM.

use serde::{Deserialize, Serialize};

/// `FUTEX_PRIVATE_FLAG` and `FUTEX_CLOCK_REALTIME`, `include/uapi/linux/futex.h`.
const FLAGS: u32 = 0x80 | 0x100;
const FUTEX_WAIT: u32 = 0;
const FUTEX_WAIT_BITSET: u32 = 9;
const PRIVATE: u32 = 0x80;

/// The value of a glibc mutex that somebody waits for (`__lll_lock_wait`, nptl/lowlevellock.c).
const MUTEX_CONTENDED: u32 = 2;

/// Who wrote the VMM, as far as it matters for its locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Vmm {
    /// QEMU: C, with glibc's mutexes and conditions.
    Qemu,
    /// Firecracker, Cloud Hypervisor, crosvm: the standard library of Rust.
    Rust,
    /// Not known.
    #[default]
    Unknown,
}

/// What runs the guest's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuestMode {
    /// KVM: an idle guest sleeps in the kernel.
    Kvm,
    /// QEMU itself: an idle guest sleeps on a condition of QEMU.
    Tcg,
}

/// What is known of the locks of one VMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LockFacts {
    /// What the VMM is.
    pub vmm: Vmm,
    /// What runs its guest, where that is known.
    pub mode: Option<GuestMode>,
    /// The address of QEMU's big lock, where it could be found.
    pub bql: Option<u64>,
    /// Where it could not, the address of the mutex that behaves as the big lock does.
    pub bql_by_behaviour: Option<u64>,
    /// Where the executable keeps its variables: start, and the address after the end.
    pub exe_data: Option<(u64, u64)>,
}

/// What a thread sleeps on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FutexWait {
    /// QEMU's big lock, by its address.
    Bql,
    /// The mutex that behaves as QEMU's big lock does.
    BqlFoundByBehaviour,
    /// A glibc mutex among the executable's own variables, in a QEMU whose big lock is not known.
    StaticMutex,
    /// A glibc mutex.
    Mutex,
    /// A glibc condition.
    Condition,
    /// A QemuEvent (`qemu_futex_wait`, include/qemu/futex.h): the only futexes that are not private
    /// to the process.
    Event,
    /// A mutex or a condition of Rust's standard library, which are waited for in the same way
    /// (`futex_wait`, library/std/src/sys/pal/unix/futex.rs).
    Std,
    /// The arguments were not recorded, or are of no known kind.
    Unknown,
}

/// A wait in `futex(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FutexCall {
    /// The futex.
    pub address: u64,
    operation: u32,
    value: u32,
}

impl FutexCall {
    /// From the first three arguments of the call; the kernel looks at the low halves of the second
    /// and the third only, which are C ints.
    #[must_use]
    pub fn new([address, operation, value]: [u64; 3]) -> FutexCall {
        let low = |word: u64| u32::try_from(word & 0xffff_ffff).expect("the mask leaves 32 bits");
        FutexCall { address, operation: low(operation), value: low(value) }
    }

    /// What a thread of this VMM waits for in it.
    #[must_use]
    pub fn wait(self, facts: &LockFacts) -> FutexWait {
        let command = self.operation & !FLAGS;
        if facts.bql == Some(self.address) {
            return FutexWait::Bql;
        }
        let big_lock = facts.bql.or(facts.bql_by_behaviour);
        match (facts.vmm, command) {
            (Vmm::Rust, FUTEX_WAIT_BITSET) => FutexWait::Std,
            (Vmm::Qemu, FUTEX_WAIT_BITSET) => FutexWait::Condition,
            (Vmm::Qemu, FUTEX_WAIT) if self.operation & PRIVATE == 0 => FutexWait::Event,
            (Vmm::Qemu, FUTEX_WAIT) if self.value == MUTEX_CONTENDED => {
                let is_static = |(start, end)| (start..end).contains(&self.address);
                match big_lock {
                    Some(address) if address == self.address => FutexWait::BqlFoundByBehaviour,
                    None if facts.exe_data.is_some_and(is_static) => FutexWait::StaticMutex,
                    _ => FutexWait::Mutex,
                }
            }
            // glibc before 2.25 waits for conditions like this; their value counts the wakings.
            (Vmm::Qemu, FUTEX_WAIT) => FutexWait::Condition,
            _ => FutexWait::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Arguments as recorded of QEMU 7.2.22 on Linux 6.18 (docs/evidence.md, "Futexes").
    #[test]
    fn observed_waits() {
        let known = LockFacts {
            vmm: Vmm::Qemu,
            bql: Some(0x560c_9484_9b40),
            exe_data: Some((0x560c_9400_0000, 0x560c_9500_0000)),
            ..LockFacts::default()
        };
        let not_found = LockFacts { bql: None, ..known };
        let by_behaviour = LockFacts { bql_by_behaviour: Some(0x560c_9484_9b40), ..not_found };
        let rust = LockFacts { vmm: Vmm::Rust, ..LockFacts::default() };
        let nobody = LockFacts::default();
        for (facts, args, expected) in [
            (known, [0x560c_9484_9b40, 0x80, 2], FutexWait::Bql),
            (not_found, [0x560c_9484_9b40, 0x80, 2], FutexWait::StaticMutex),
            (known, [0x560c_9484_aaaa, 0x80, 2], FutexWait::Mutex),
            (by_behaviour, [0x560c_9484_9b40, 0x80, 2], FutexWait::BqlFoundByBehaviour),
            (by_behaviour, [0x560c_9484_9b40, 0x189, 0], FutexWait::Condition),
            (by_behaviour, [0x560c_9484_aaa8, 0x80, 2], FutexWait::Mutex),
            (not_found, [0x55d2_80cf_505c, 0x80, 2], FutexWait::Mutex),
            (known, [0x55d2_80cf_505c, 0x189, 0], FutexWait::Condition),
            (known, [0x55d2_80cf_505c, 0x89, 0], FutexWait::Condition),
            (known, [0x55d2_80cf_505c, 0x80, 7], FutexWait::Condition),
            (known, [0x55d2_80cf_505c, 0, 2], FutexWait::Event),
            (rust, [0x55d2_80cf_505c, 0x89, 2], FutexWait::Std),
            (rust, [0x55d2_80cf_505c, 0x80, 2], FutexWait::Unknown),
            (nobody, [0x55d2_80cf_505c, 0x80, 2], FutexWait::Unknown),
        ] {
            assert_eq!(FutexCall::new(args).wait(&facts), expected, "{args:x?} {facts:x?}");
        }
    }

    #[test]
    fn what_the_kernel_does_not_look_at_does_not_matter() {
        let facts = LockFacts { vmm: Vmm::Qemu, ..LockFacts::default() };
        let args = [8, 0xdead_0000_0000_0080, 0xdead_0000_0000_0002];
        assert_eq!(FutexCall::new(args).wait(&facts), FutexWait::Mutex);
    }
}
