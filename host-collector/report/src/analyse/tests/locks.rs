//! Big locks that QEMU's code does not tell, and what the events say of them.

use super::*;
use crate::summary::OffReason;
use crate::summary::big_lock::LockEvidence;
use vslice_core::host_event::{StackId, Switch};
use vslice_core::timeline::LockBehaviour;
use vslice_core::timeline::behaviour::WAKINGS_MIN;
use vslice_trace::lock::ExeData;

/// vm1's main loop and its vCPU1 wait for a lock of vm1 so often each, on two pCPUs.
fn contended(run: &RunDir, address: u64, times: u64) {
    let (mut on_pcpu0, mut on_pcpu1) = (Vec::new(), Vec::new());
    for round in 0..times {
        let at = |us: u64| HostNs(host_at(round * 20).0 + us * 1000);
        let sleeps = |us, tid, pcpu| {
            let switch = Switch {
                stack: Some(StackId(0)),
                call_args: Some([address, 0x80, 2]),
                ..Switch::new(tid, PrevState::Sleep, Tid::IDLE)
            };
            HostEvent { time: at(us), pcpu, kind: HostEventKind::Switch(switch) }
        };
        let wakes = |us, pcpu, waker, tid, target| {
            let kind = HostEventKind::Waking { tid, target, waker };
            HostEvent { time: at(us), pcpu, kind }
        };
        let comes = |us, tid, pcpu| {
            let switch = Switch::new(Tid::IDLE, PrevState::Runnable, tid);
            HostEvent { time: at(us), pcpu, kind: HostEventKind::Switch(switch) }
        };
        let (pcpu0, pcpu1) = (PcpuId(0), PcpuId(1));
        on_pcpu1.push(sleeps(1, VM1_VCPU1, pcpu1));
        on_pcpu0.push(wakes(3, pcpu0, VM1_LOOP, VM1_VCPU1, pcpu1));
        on_pcpu1.push(comes(4, VM1_VCPU1, pcpu1));
        on_pcpu0.push(sleeps(5, VM1_LOOP, pcpu0));
        on_pcpu1.push(wakes(8, pcpu1, VM1_VCPU1, VM1_LOOP, pcpu0));
        on_pcpu0.push(comes(9, VM1_LOOP, pcpu0));
    }
    stream(&run.events_path(PcpuId(0)), on_pcpu0, true);
    stream(&run.events_path(PcpuId(1)), on_pcpu1, true);
}

/// The run of a QEMU without symbols, whose variables are known.
fn without_symbols(address: u64, times: u64) -> Summary {
    let mut manifest = manifest();
    let lock = &mut manifest.vms[0].lock;
    (lock.bql, lock.bql_missing) = (None, Some("QEMU has 0 symbols".to_owned()));
    lock.exe_data = Some(ExeData { start: BQL & !0xffff, end: BQL | 0xffff });
    let (_scratch, run) = run_dir(&manifest);
    names(&run);
    contended(&run, address, times);
    analyse(run.path()).unwrap()
}

#[test]
fn a_lock_is_found_by_behaviour_and_says_what_it_rests_on() {
    let summary = without_symbols(BQL, WAKINGS_MIN);
    let [waits] = &summary.lock_waits[..] else { panic!("{:?}", summary.lock_waits) };
    // From the first one on.
    assert_eq!((waits.reason, waits.count), (Reason::BqlFoundByBehaviour, WAKINGS_MIN));
    assert_eq!(waits.total_ns, WAKINGS_MIN * 2000);
    let [lock, other] = &summary.facts.big_locks[..] else { panic!("{:?}", summary.facts) };
    assert_eq!((lock.evidence, lock.address), (LockEvidence::FoundByBehaviour, Some(BQL)));
    let seen = LockBehaviour {
        address: BQL,
        vcpu_sleeps: WAKINGS_MIN,
        main_loop_sleeps: WAKINGS_MIN,
        vcpus_woken_by_main_loop: WAKINGS_MIN,
        main_loop_woken_by_vcpus: WAKINGS_MIN,
    };
    assert_eq!(lock.behaviour, Some(seen));
    assert_eq!((other.vm.as_str(), other.evidence), ("vm2", LockEvidence::Proven));
    let page = crate::summary::render(&summary, crate::summary::Style::PLAIN);
    assert!(
        page.contains("big lock: that of vm1 at 0x55a8e2e7eb40 is found by behaviour: it is"),
        "{page}"
    );
}

#[test]
fn too_little_is_inferred_as_ever_and_a_devices_lock_is_another() {
    let reasons = |summary: &Summary| {
        let vcpu = summary.vcpus.iter().find(|vcpu| vcpu.tid == VM1_VCPU1).unwrap();
        let seen = vcpu.off_cpu.iter().filter(|off| off.count > 0);
        let mut reasons: Vec<_> = seen.map(|off| off.reason).collect();
        reasons.retain(|reason| *reason != OffReason::WakeupDelay);
        reasons.sort_by_key(|reason| reason.name());
        reasons
    };
    let few = without_symbols(BQL, WAKINGS_MIN - 1);
    let inferred = [Reason::BqlInferred, Reason::QemuLock].map(OffReason::Left);
    assert_eq!(reasons(&few), inferred, "the first before the main loop had waited as well");
    let on_the_heap = without_symbols(0x7f00_0000_1240, 3 * WAKINGS_MIN);
    assert_eq!(reasons(&on_the_heap), [OffReason::Left(Reason::QemuLock)]);
    for (summary, most) in [(few, "(9 at most)"), (on_the_heap, "(0 at most)")] {
        let lock = &summary.facts.big_locks[0];
        assert_eq!((lock.evidence, lock.address), (LockEvidence::Unknown, None));
        assert!(lock.because.contains(most), "{}", lock.because);
    }
}

#[test]
fn what_the_code_proves_is_not_looked_for() {
    let (_scratch, run) = run_dir(&manifest());
    names(&run);
    contended(&run, BQL, WAKINGS_MIN);
    let summary = analyse(run.path()).unwrap();
    assert_eq!(summary.lock_waits[0].reason, Reason::Bql);
    let lock = &summary.facts.big_locks[0];
    assert_eq!((lock.evidence, lock.behaviour), (LockEvidence::Proven, None));
    assert!(lock.because.starts_with("bql_lock_impl and bql_unlock name it"), "{}", lock.because);
}
