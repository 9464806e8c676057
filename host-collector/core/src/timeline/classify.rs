//! Why a thread left its pCPU, from what was recorded as it did.
//!
//! One table of rows, tried from the top; the first whose conditions all hold names the reason. What
//! it rests on is in docs/evidence.md. Evidence that is missing never makes a row hold, so with less
//! evidence the reason is [`Reason::Unknown`], not another one.

use super::futex::{FutexWait, GuestMode, Vmm};
use super::lock::LockUser;
use super::reason::Reason;
use super::stack::{Mark, Marks};
use crate::host_event::PrevState;

/// What was recorded of a thread that left its pCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    /// In which state it left.
    pub state: PrevState,
    /// What its stack proves; `None` without a stack.
    pub marks: Option<Marks>,
    /// What it waits for if it sleeps in `futex(2)`.
    pub futex: FutexWait,
    /// Whether a mutex of that address was waited for by threads of different roles.
    pub is_shared: bool,
    /// Whose thread it is.
    pub vmm: Vmm,
    /// What runs its guest.
    pub mode: Option<GuestMode>,
    /// What it is in its VMM.
    pub user: LockUser,
    /// Who came on.
    pub next: Next,
    /// For how long it had been on the pCPU.
    pub ran_ns: u64,
    /// The shortest timeslice that the scheduler gives a thread that others wait for, rounded up to
    /// a tick; `None` where the host does not tell.
    pub slice_ns: Option<u64>,
    /// When the host's scheduler lets a woken thread preempt, where that is known.
    pub preemption: Option<Preemption>,
    /// Whether its control group has a quota and was seen to use it up.
    pub is_throttled_group: bool,
    /// Whether the thread is a real-time or deadline task.
    pub is_realtime: bool,
}

/// When a woken thread that shall preempt another one comes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preemption {
    /// At once: a kernel that is fully preemptible.
    AtOnce,
    /// At the next tick, or where the other one enters the guest or user space before that: a kernel that
    /// preempts lazily (linux: kernel/sched/core.c, `resched_curr_lazy` and `sched_tick`).
    AtTick {
        /// From one tick to the next, in nanoseconds.
        tick_ns: u64,
    },
}

impl Preemption {
    /// How long after its waking a thread comes on at the latest because of it.
    fn latest_ns(self) -> u64 {
        match self {
            Preemption::AtOnce => WAKING_AGO_MAX_NS,
            Preemption::AtTick { tick_ns } => tick_ns.saturating_add(WAKING_AGO_MAX_NS),
        }
    }
}

/// Who was switched in when a thread left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nobody.
    Idle,
    /// A real-time or deadline task, or the kernel's stopper.
    Realtime,
    /// A thread that had been woken `ago_ns` before.
    Woken {
        /// From the waking to the switch.
        ago_ns: u64,
    },
    /// A thread that had been runnable since before the other one was switched in: it had been preempted
    /// itself, or woken while no VM's thread ran there.
    Waiting,
    /// A thread of which neither a waking nor a preemption was recorded.
    Unseen,
}

/// A waking so short before the switch is what caused it. The longest way from one to the other is
/// an interrupt to another pCPU, a guest's exit and the exit's work: 6 to 16 us were seen.
const WAKING_AGO_MAX_NS: u64 = 100_000;

/// A thread that has run for so many tenths of its slice was taken off for it: the slice ends at a
/// tick, and ticks are counted from before it came on.
const SLICE_TENTHS_MIN: u64 = 8;

/// In which state a thread must have left.
#[derive(Debug, Clone, Copy)]
enum Left {
    /// Asleep, in whatever way; also woken just before it could be: then it is still runnable, but
    /// nobody made it leave.
    Asleep,
    /// Still runnable.
    Runnable,
    /// By a stop.
    Stopped,
}

/// What the futex must be.
#[derive(Debug, Clone, Copy)]
enum Futex {
    Any,
    Is(&'static [FutexWait]),
    /// A mutex of the executable for which threads of different roles wait.
    SharedStatic,
    /// Not recorded, in a vCPU thread of QEMU that runs its guest in KVM: there such threads hardly
    /// ever wait for anything else than the big lock.
    UnrecordedUnderKvm,
}

/// What the scheduler must have been about.
#[derive(Debug, Clone, Copy)]
enum Scheduler {
    Any,
    NextIsRealtime,
    /// The thread's group has used up a quota.
    Quota,
    /// The same, and nobody else was there to run, though the thread was runnable.
    NobodyAndQuota,
    /// A real-time thread gives way to one that is none: real-time tasks have used up their share of the
    /// pCPU (linux: kernel/sched/rt.c, `sched_rt_runtime_us`; since 6.12 the fair server of
    /// kernel/sched/deadline.c).
    RealtimeShare,
    NextWasWoken,
    SliceOver,
}

/// Whose threads it can be.
#[derive(Debug, Clone, Copy)]
enum Threads {
    All,
    /// Those that run vCPUs.
    Vcpus,
}

/// One row: all of its conditions must hold.
#[derive(Debug)]
struct Row {
    reason: Reason,
    left: Left,
    /// Of each set, one must be on the stack.
    stack: &'static [Marks],
    /// None of these may be.
    without: Marks,
    threads: Threads,
    futex: Futex,
    scheduler: Scheduler,
}

const fn row(reason: Reason, left: Left, stack: &'static [Marks]) -> Row {
    let (without, threads) = (Marks::of(&[]), Threads::All);
    Row { reason, left, stack, without, threads, futex: Futex::Any, scheduler: Scheduler::Any }
}

const fn without(row: Row, without: Marks) -> Row {
    Row { without, ..row }
}

const fn futex(reason: Reason, futex: Futex) -> Row {
    Row { futex, ..row(reason, Left::Asleep, FUTEX) }
}

const fn scheduled(reason: Reason, stack: &'static [Marks], scheduler: Scheduler) -> Row {
    Row { scheduler, ..row(reason, Left::Runnable, stack) }
}

const FUTEX: &[Marks] = &[Marks::of(&[Mark::FutexSleep])];
const FAULT: &[Marks] = &[Marks::of(&[Mark::Fault])];
const FAULT_ENTRY: &[Marks] = &[Marks::of(&[Mark::FaultEntry])];
const AFTER_FAULT: Marks = Marks::of(&[Mark::ReturnWork, Mark::Emulation]);
const RETURN_WORK: Marks = Marks::of(&[Mark::ReturnWork]);
const MEMORY_LIMIT: &[Marks] = &[Marks::of(&[Mark::MemoryLimit])];
const KVM_LOCK: &[Marks] = &[Marks::of(&[Mark::Kvm]), Marks::of(&[Mark::KernelLock])];
const CACHED_FILE: &[Marks] = &[Marks::of(&[Mark::FileCall]), Marks::of(&[Mark::PageWait])];
const RING: &[Marks] = &[Marks::of(&[Mark::RingWait])];
const DISK: &[Marks] = &[Marks::of(&[Mark::DiskCall])];
const DISK_WAIT: &[Marks] = &[Marks::of(&[Mark::DiskWait])];
const DEVICE_FILE: Marks = Marks::of(&[Mark::DeviceFile]);
const WAITS_FOR_WORK: &[Marks] = &[Marks::of(&[Mark::PollSleep, Mark::NoWork])];
const TASK_WORK: &[Marks] = &[Marks::of(&[Mark::TaskWork]), Marks::of(&[Mark::KernelPreempted])];
const PREEMPTED: &[Marks] = &[Marks::of(&[Mark::ReturnPreempted, Mark::KernelPreempted])];

/// The rows, in order of precedence.
const ROWS: &[Row] = &[
    row(Reason::Stopped, Left::Stopped, &[]),
    row(Reason::Stopped, Left::Asleep, &[Marks::of(&[Mark::Stop])]),
    // A fault may charge memory, and what charges memory may be put to sleep for it.
    row(Reason::MemoryLimit, Left::Asleep, MEMORY_LIMIT),
    // Whatever it waits for in there: nothing but a fault calls these.
    row(Reason::HostFault, Left::Asleep, FAULT),
    without(row(Reason::HostFault, Left::Asleep, FAULT_ENTRY), AFTER_FAULT),
    futex(Reason::Bql, Futex::Is(&[FutexWait::Bql])),
    futex(Reason::BqlFoundByBehaviour, Futex::Is(&[FutexWait::BqlFoundByBehaviour])),
    futex(Reason::BqlInferred, Futex::SharedStatic),
    futex(Reason::BqlInferred, Futex::UnrecordedUnderKvm),
    futex(
        Reason::QemuLock,
        Futex::Is(&[FutexWait::Mutex, FutexWait::StaticMutex, FutexWait::Event]),
    ),
    futex(Reason::HaltUser, Futex::Is(&[FutexWait::Condition])),
    futex(Reason::VmmLock, Futex::Is(&[FutexWait::Std])),
    row(Reason::Halt, Left::Asleep, &[Marks::of(&[Mark::KvmHalt])]),
    // On its way into the guest a thread also does work of others than KVM.
    without(row(Reason::KvmKernelLock, Left::Asleep, KVM_LOCK), RETURN_WORK),
    // An event loop of QEMU from 10.2 on waits there for whatever comes (qemu: util/fdmon-io_uring.c); a vCPU
    // has no other business with a ring than its own I/O.
    Row { threads: Threads::Vcpus, ..row(Reason::IoSubmit, Left::Asleep, RING) },
    row(Reason::PollSleep, Left::Asleep, RING),
    row(Reason::IoSubmit, Left::Asleep, DISK_WAIT),
    without(row(Reason::IoSubmit, Left::Asleep, DISK), DEVICE_FILE),
    row(Reason::IoSubmit, Left::Asleep, CACHED_FILE),
    row(Reason::PollSleep, Left::Asleep, WAITS_FOR_WORK),
    row(Reason::Throttle, Left::Runnable, &[Marks::of(&[Mark::Throttle])]),
    scheduled(Reason::PreemptRtOrStop, PREEMPTED, Scheduler::NextIsRealtime),
    // Whoever is preempted in such work is hard to tell from whoever is throttled in it, but for the
    // quota; and preempted it hardly ever is, as the work takes a microsecond.
    scheduled(Reason::Throttle, TASK_WORK, Scheduler::Quota),
    row(Reason::Yield, Left::Runnable, &[Marks::of(&[Mark::Yield])]),
    scheduled(Reason::Throttle, PREEMPTED, Scheduler::NobodyAndQuota),
    scheduled(Reason::Throttle, PREEMPTED, Scheduler::RealtimeShare),
    scheduled(Reason::PreemptWakeup, PREEMPTED, Scheduler::NextWasWoken),
    scheduled(Reason::Timeslice, PREEMPTED, Scheduler::SliceOver),
    row(Reason::SignalWork, Left::Runnable, &[Marks::of(&[Mark::OwnWork])]),
];

impl Evidence {
    /// The reason that the evidence proves.
    #[must_use]
    pub fn reason(&self) -> Reason {
        ROWS.iter().find(|row| self.fits(row)).map_or(Reason::Unknown, |row| row.reason)
    }

    fn fits(&self, row: &Row) -> bool {
        let marks = self.marks.unwrap_or_default();
        self.left(row.left)
            && row.stack.iter().all(|set| marks.intersects(*set))
            && !marks.intersects(row.without)
            && (matches!(row.threads, Threads::All) || self.user == LockUser::Vcpu)
            && self.waits_for(row.futex)
            && self.was_scheduled(row.scheduler)
    }

    fn left(&self, left: Left) -> bool {
        match left {
            Left::Asleep => match self.state {
                PrevState::Sleep | PrevState::DiskSleep | PrevState::Other(_) => true,
                PrevState::Runnable => {
                    let was_preempted =
                        |marks: Marks| PREEMPTED.iter().all(|set| marks.intersects(*set));
                    !self.marks.is_some_and(was_preempted)
                }
                PrevState::RunnablePreempted | PrevState::Stopped | PrevState::Dead => false,
            },
            Left::Runnable => self.state.is_runnable(),
            Left::Stopped => self.state == PrevState::Stopped,
        }
    }

    fn waits_for(&self, futex: Futex) -> bool {
        match futex {
            Futex::Any => true,
            Futex::Is(waits) => waits.contains(&self.futex),
            Futex::SharedStatic => self.futex == FutexWait::StaticMutex && self.is_shared,
            Futex::UnrecordedUnderKvm => {
                let is_vcpu_in_kvm = self.vmm == Vmm::Qemu && self.mode == Some(GuestMode::Kvm);
                self.futex == FutexWait::Unknown && is_vcpu_in_kvm
            }
        }
    }

    /// Whether a thread that was woken so long ago would have preempted this one before, if it could: so it was
    /// its turn only now.
    fn is_long_ago(&self, ago_ns: u64) -> bool {
        self.preemption.is_some_and(|preemption| ago_ns > preemption.latest_ns())
    }

    fn was_scheduled(&self, scheduler: Scheduler) -> bool {
        let ran_its_slice = self.slice_ns.map(|slice_ns| {
            self.ran_ns.saturating_mul(10) >= slice_ns.saturating_mul(SLICE_TENTHS_MIN)
        });
        match (scheduler, self.next) {
            (Scheduler::Any, _) | (Scheduler::NextIsRealtime, Next::Realtime) => true,
            (Scheduler::Quota, _) | (Scheduler::NobodyAndQuota, Next::Idle) => {
                self.is_throttled_group
            }
            // The next one is none: that has a row of its own before.
            (Scheduler::RealtimeShare, _) => self.is_realtime,
            (Scheduler::NextWasWoken, Next::Woken { ago_ns }) => {
                // A lazy kernel lets the one who runs go on until the next tick. If its slice is over there as
                // well, it has had its due.
                let was_lazy = ago_ns < self.ran_ns && ran_its_slice == Some(false);
                ago_ns <= WAKING_AGO_MAX_NS || (was_lazy && !self.is_long_ago(ago_ns))
            }
            (Scheduler::SliceOver, Next::Woken { ago_ns }) => {
                let has_waited = ago_ns >= self.ran_ns || self.is_long_ago(ago_ns);
                has_waited || ran_its_slice == Some(true)
            }
            (Scheduler::SliceOver, Next::Waiting) => true,
            // Somebody who was not there before: how long the thread had run must tell.
            (Scheduler::NextWasWoken, Next::Unseen) => ran_its_slice == Some(false),
            (Scheduler::SliceOver, Next::Unseen) => ran_its_slice == Some(true),
            _ => false,
        }
    }
}

#[cfg(test)]
mod field_tests;
#[cfg(test)]
mod kinds_tests;
#[cfg(test)]
mod tests;
