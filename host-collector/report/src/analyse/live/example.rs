//! A second with something of everything, for tests here and in the crates above.

use super::second::{
    GroupSecond, HostIoSecond, LockWaits, Losses, Modes, ObservedOperation, ObservedSecond,
    OwnCost, ReasonNs, Runner, SCHEMA, Second, UnknownNs, VcpuSecond, VmSecond, WorstLockWait,
    WorstWait,
};
use super::{LatencyTally, SECOND_NS};
use crate::summary::OffReason;
use crate::summary::group::GroupKind;
use vslice_core::timeline::{Reason, UnknownCause};
use vslice_core::units::{HostNs, PcpuId, Tid, VcpuId};

const MS: u64 = 1_000_000;

/// The second of this number: db1 has three vCPUs of which one waits for a compiler and for QEMU's big lock, and web1
/// is idle but for a vCPU of which records were lost.
#[must_use]
pub fn second(number: u64) -> Second {
    Second {
        schema: SCHEMA,
        number,
        realtime_ns: Some(1_795_471_866_000_000_000 + number * SECOND_NS),
        start_ns: HostNs(7_000_000_000 + number * SECOND_NS),
        length_ns: SECOND_NS,
        vms: vec![db1(number), web1()],
        losses: Losses { lost_events: 12, left_out_events: 0, late_events: 0, dropped_seconds: 0 },
        cost: OwnCost { cpu_ns: Some(31 * MS), events: 41_222 },
        stolen_ns: Some(20 * MS),
    }
}

fn db1(number: u64) -> VmSecond {
    let group = |kind, name: &str, ms| GroupSecond { kind, name: name.to_owned(), ran_ns: ms * MS };
    let mut reads = LatencyTally::default();
    (1..=100).for_each(|ms| reads.add(ms * MS / 10));
    let host_io = HostIoSecond {
        disk: Some(0),
        device: Some("nvme0n1".to_owned()),
        operation: "read",
        latency: reads.second(),
        no_end: 1,
        inactivity_known: 98,
        inactivity_least_ns: 3 * MS,
        inactivity_most_ns: 9 * MS,
    };
    let observed = ObservedOperation { operation: "read", latency: reads.second() };
    VmSecond {
        name: "db1".to_owned(),
        vcpus: vec![waiting(number), asleep_on_the_lock(), quiet(2, 201, 5)],
        antagonists: vec![
            group(GroupKind::ControlGroup, "build.service", 300),
            group(GroupKind::OtherVm, "web1", 60),
            group(GroupKind::KernelThread, "kworker/3:1", 10),
        ],
        others_ns: 0,
        idle_ns: 10 * MS,
        unseen_ns: 0,
        halt_poll_ns: Some(14 * MS),
        host_io: vec![host_io],
        observed: Some(ObservedSecond { operations: vec![observed] }),
    }
}

fn web1() -> VmSecond {
    let lost = UnknownNs { cause: UnknownCause::Lost, ns: 250 * MS };
    let unknown = VcpuSecond {
        running_ns: 750 * MS,
        asleep_ns: 0,
        asleep_by: Vec::new(),
        unknown_ns: 250 * MS,
        unknown_by: vec![lost],
        ..quiet(1, 302, 0)
    };
    VmSecond {
        name: "web1".to_owned(),
        vcpus: vec![quiet(0, 301, 1), unknown],
        antagonists: Vec::new(),
        others_ns: 0,
        idle_ns: 0,
        unseen_ns: 0,
        halt_poll_ns: None,
        host_io: Vec::new(),
        observed: None,
    }
}

fn waiting(number: u64) -> VcpuSecond {
    let waited_ms = 300 + 20 * (number % 5);
    let running_ns = (1_000 - waited_ms - 100) * MS;
    VcpuSecond {
        running_ns,
        waiting_ns: waited_ms * MS,
        asleep_ns: 60 * MS,
        throttled_ns: 40 * MS,
        modes: Some(Modes {
            guest_ns: running_ns - 31 * MS,
            kvm_ns: 11 * MS,
            halt_poll_ns: 14 * MS,
            vmm_ns: 6 * MS,
            unsplit_ns: 0,
        }),
        waiting_by: vec![
            by(OffReason::Left(Reason::PreemptWakeup), waited_ms - 40),
            by(OffReason::WakeupDelay, 40),
        ],
        asleep_by: vec![by(OffReason::Left(Reason::Halt), 60)],
        worst_wait: Some(WorstWait {
            length_ns: 87 * MS,
            goes_on: true,
            reason: OffReason::Left(Reason::PreemptWakeup),
            pcpu: PcpuId(3),
            by: Some(Runner { name: "cc1plus".to_owned(), ran_ns: 80 * MS }),
        }),
        steal_ns: Some((waited_ms + 1) * MS),
        ..quiet(0, 101, 0)
    }
}

fn asleep_on_the_lock() -> VcpuSecond {
    let worst = WorstLockWait {
        length_ns: 12 * MS,
        reason: OffReason::Left(Reason::Bql),
        released_by: "db1 main loop".to_owned(),
    };
    VcpuSecond {
        running_ns: 880 * MS,
        waiting_ns: 20 * MS,
        asleep_ns: 100 * MS,
        waiting_by: vec![by(OffReason::WakeupDelay, 20)],
        asleep_by: vec![
            by(OffReason::Left(Reason::Bql), 70),
            by(OffReason::Left(Reason::Halt), 30),
        ],
        worst_wait: Some(WorstWait {
            length_ns: 4 * MS,
            goes_on: false,
            reason: OffReason::WakeupDelay,
            pcpu: PcpuId(4),
            by: None,
        }),
        lock_waits: LockWaits { count: 9, total_ns: 70 * MS, worst: Some(worst) },
        ..quiet(1, 102, 0)
    }
}

/// One that is halted nearly all the time.
fn quiet(vcpu: u16, tid: u32, running_ms: u64) -> VcpuSecond {
    let asleep_ms = 1_000 - running_ms;
    VcpuSecond {
        vcpu: VcpuId(vcpu),
        tid: Tid(tid),
        running_ns: running_ms * MS,
        waiting_ns: 0,
        asleep_ns: asleep_ms * MS,
        throttled_ns: 0,
        unknown_ns: 0,
        modes: None,
        waiting_by: Vec::new(),
        asleep_by: vec![by(OffReason::Left(Reason::Halt), asleep_ms)],
        unknown_by: Vec::new(),
        worst_wait: None,
        lock_waits: LockWaits::default(),
        steal_ns: Some(0),
    }
}

fn by(reason: OffReason, ms: u64) -> ReasonNs {
    ReasonNs { reason, ns: ms * MS }
}
