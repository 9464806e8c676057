//! How QEMU's big lock is known in each VM.

use super::model::Summary;
use super::reason::OffReason;
use serde::{Deserialize, Serialize};
use vslice_core::timeline::behaviour::WAKINGS_MIN;
use vslice_core::timeline::{FoundLock, LockBehaviour, Reason};
use vslice_spec::quantity::count;
use vslice_trace::manifest::VmRecord;

/// What the waits for a big lock rest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockEvidence {
    /// QEMU's code names the lock: waits for it are `bql`.
    Proven,
    /// It is the one mutex of QEMU with which vCPUs and main loop do what they do with the big lock: waits for it
    /// are `bql_found_by_behaviour`.
    FoundByBehaviour,
    /// Neither: waits are at best `bql_inferred`.
    Unknown,
}

/// The big lock of one VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BigLock {
    /// The VM.
    pub vm: String,
    /// How it is known.
    pub evidence: LockEvidence,
    /// Where it is in QEMU's memory; `None` if that is unknown.
    pub address: Option<u64>,
    /// What that rests on, or why it is unknown, as a sentence without its full stop.
    pub because: String,
    /// What was seen of it, if it was found by that.
    pub behaviour: Option<LockBehaviour>,
}

impl BigLock {
    /// That of a VM, with what its recording shows of it; `None` where nothing was looked for.
    pub(crate) fn of(vm: &VmRecord, shown: Option<FoundLock>) -> Option<BigLock> {
        let lock = |evidence, address, because, behaviour| {
            Some(BigLock { vm: vm.name.clone(), evidence, address, because, behaviour })
        };
        if let Some(bql) = &vm.lock.bql {
            return lock(LockEvidence::Proven, Some(bql.address), bql.check(), None);
        }
        let missing = vm.lock.bql_missing.as_deref()?;
        match shown {
            Some(FoundLock::Found(found)) => lock(
                LockEvidence::FoundByBehaviour,
                Some(found.address),
                format!(
                    "it is the only one of QEMU's mutexes from which the main loop wakes vCPUs ({} \
                    times) and they wake it ({} times); its code does not name it: {missing}",
                    count(found.vcpus_woken_by_main_loop),
                    count(found.main_loop_woken_by_vcpus)
                ),
                Some(found),
            ),
            Some(FoundLock::Ambiguous { mutexes_count }) => lock(
                LockEvidence::Unknown,
                None,
                format!(
                    "vCPUs and main loop wake each other from {} of QEMU's mutexes, and its code names \
                    none of these: {missing}",
                    count(mutexes_count)
                ),
                None,
            ),
            Some(FoundLock::TooFew { wakings_count }) => lock(
                LockEvidence::Unknown,
                None,
                format!(
                    "vCPUs and main loop woke each other from none of QEMU's mutexes at least \
                    {WAKINGS_MIN} times ({} at most), and its code names none: {missing}",
                    count(wakings_count)
                ),
                None,
            ),
            None => lock(LockEvidence::Unknown, None, missing.to_owned(), None),
        }
    }

    /// "vm1's big lock is proven: ..."
    pub(crate) fn sentence(&self) -> String {
        let place = self.address.map(|address| format!(" at {address:#x}")).unwrap_or_default();
        let how = match self.evidence {
            LockEvidence::Proven => "is proven",
            LockEvidence::FoundByBehaviour => "is found by behaviour",
            LockEvidence::Unknown => "is unknown",
        };
        format!("that of {}{place} {how}: {}", self.vm, self.because)
    }

    /// Whether vCPUs waited for it, where it is found by behaviour.
    pub(crate) fn is_told_by_behaviour(&self, summary: &Summary) -> bool {
        if self.evidence != LockEvidence::FoundByBehaviour {
            return false;
        }
        let by_behaviour = OffReason::Left(Reason::BqlFoundByBehaviour);
        let mut vcpus = summary.vcpus.iter().filter(|vcpu| vcpu.vm == self.vm);
        vcpus.any(|vcpu| vcpu.off_cpu.iter().any(|off| off.reason == by_behaviour && off.count > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyse::drawn::{self, BQL};

    fn of(shown: Option<FoundLock>, change: impl FnOnce(&mut VmRecord)) -> Option<BigLock> {
        let mut vm = drawn::vm("vm1", drawn::VM1_LOOP, drawn::VM1_VCPU1, true);
        change(&mut vm);
        BigLock::of(&vm, shown)
    }

    fn unnamed(vm: &mut VmRecord) {
        (vm.lock.bql, vm.lock.bql_missing) = (None, Some("QEMU has 0 symbols".to_owned()));
    }

    #[test]
    fn each_level_of_evidence_says_what_it_rests_on() {
        let proven = of(None, |_| ()).expect("it is known");
        assert_eq!((proven.evidence, proven.address), (LockEvidence::Proven, Some(BQL)));
        assert!(
            proven.sentence().starts_with(&format!("that of vm1 at {BQL:#x} is proven: bql_lock_"))
        );

        let seen = LockBehaviour {
            address: 0x5500_1240,
            vcpu_sleeps: 2000,
            main_loop_sleeps: 90,
            vcpus_woken_by_main_loop: 1234,
            main_loop_woken_by_vcpus: 77,
        };
        let found = of(Some(FoundLock::Found(seen)), unnamed).expect("it is found");
        assert_eq!((found.evidence, found.behaviour), (LockEvidence::FoundByBehaviour, Some(seen)));
        assert_eq!(
            found.sentence(),
            "that of vm1 at 0x55001240 is found by behaviour: it is the only one of QEMU's mutexes from \
            which the main loop wakes vCPUs (1,234 times) and they wake it (77 times); its code does not \
            name it: QEMU has 0 symbols"
        );

        let unknown = [
            (Some(FoundLock::Ambiguous { mutexes_count: 2 }), "from 2 of QEMU's mutexes"),
            (Some(FoundLock::TooFew { wakings_count: 3 }), "at least 10 times (3 at most)"),
            (None, "that of vm1 is unknown: QEMU has 0 symbols"),
        ];
        for (shown, part) in unknown {
            let lock = of(shown, unnamed).expect("it was looked for");
            assert_eq!((lock.evidence, lock.address), (LockEvidence::Unknown, None));
            assert!(lock.sentence().contains(part), "{}", lock.sentence());
        }
        assert_eq!(of(None, |vm| vm.lock.bql = None), None, "nobody looked for it");
    }
}
