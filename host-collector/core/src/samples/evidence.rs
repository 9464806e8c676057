//! One look at a thread -> the reason for which it was off its pCPU.
//!
//! A look has less than a recorded switch: one function instead of a stack, but the system call by
//! its number, which is a stack's other end. Together they make the [`Marks`] that the table in
//! [`classify`](crate::timeline::classify) is about, so that both ways to a reason use one table
//! (docs/evidence.md, "Without the right to record"). Why a thread that is runnable has left its
//! pCPU cannot be seen in this way; how long it waited, `schedstat` tells.

use super::item::{Call, Look};
use crate::host_event::PrevState;
use crate::timeline::classify::{Evidence, Next};
use crate::timeline::futex::{FutexCall, FutexWait};
use crate::timeline::stack::{Mark, Marks, marks_of};
use crate::timeline::{LockFacts, LockUser, Reason};

/// What a look showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Doing {
    /// The thread was on a pCPU, or waited for one: that cannot be told by looking.
    Runnable,
    /// It was off, for this reason.
    Off(Reason),
}

/// `futex`, arch/x86/entry/syscalls/syscall_64.tbl, as all numbers here.
pub(super) const FUTEX: u32 = 202;
pub(super) const IOCTL: u32 = 16;

/// `KVM_RUN`, include/uapi/linux/kvm.h: `_IO(KVMIO, 0x80)`.
const KVM_RUN: u64 = 0xae80;

/// Calls in which a thread reads, writes or submits I/O by itself: pread64, pwrite64, fsync,
/// fdatasync, io_submit, preadv, pwritev, preadv2, pwritev2, io_uring_enter. Not read and write:
/// threads of a VMM sleep in them on event descriptors and pipes.
const DISK_CALLS: &[u32] = &[17, 18, 74, 75, 209, 295, 296, 327, 328, 426];

/// poll, select, nanosleep, rt_sigtimedwait, clock_nanosleep, epoll_wait, pselect6, ppoll,
/// epoll_pwait, epoll_pwait2.
const POLL_CALLS: &[u32] = &[7, 23, 35, 128, 230, 232, 270, 271, 281, 441];

/// What a thread waits for in the kernel whatever call it is in.
const KERNEL_WAIT: Marks =
    Marks::of(&[Mark::PageWait, Mark::KernelLock, Mark::Stop, Mark::MemoryLimit]);

/// What a thread waits for where it handles a fault.
const FAULT_WAIT: Marks = Marks::of(&[Mark::PageWait, Mark::KernelLock]);

impl Look {
    /// What the thread was doing, by what is known of the locks of its VMM and by what it is there.
    /// `is_shared` says whether threads of different roles were seen to wait for the futex that it waits for,
    /// if it does.
    #[must_use]
    pub fn doing(&self, facts: &LockFacts, user: LockUser, is_shared: bool) -> Doing {
        if self.is_runnable() {
            return Doing::Runnable;
        }
        let futex = self.futex().map_or(FutexWait::Unknown, |call| call.wait(facts));
        let evidence = Evidence {
            state: self.prev_state(),
            marks: Some(self.marks()),
            futex,
            is_shared,
            vmm: facts.vmm,
            mode: facts.mode.filter(|_| user == LockUser::Vcpu),
            user,
            next: Next::Unseen,
            ran_ns: 0,
            slice_ns: None,
            preemption: None,
            is_throttled_group: false,
            is_realtime: false,
        };
        Doing::Off(evidence.reason())
    }

    /// The wait in `futex(2)` that the thread was in, if its arguments are known.
    #[must_use]
    pub fn futex(&self) -> Option<FutexCall> {
        match self.call {
            Call::In { number: FUTEX, args } => Some(FutexCall::new(args)),
            _ => None,
        }
    }

    fn is_runnable(&self) -> bool {
        match self.call {
            Call::Running => true,
            Call::Hidden => self.state == Some(b'R'),
            // The call was read first: a thread that is runnable by now slept then.
            Call::None | Call::In { .. } => false,
        }
    }

    fn prev_state(&self) -> PrevState {
        match self.state {
            Some(b'D') => PrevState::DiskSleep,
            Some(b'T' | b't') => PrevState::Stopped,
            Some(b'Z' | b'X') => PrevState::Dead,
            Some(b'S' | b'R') | None => PrevState::Sleep,
            Some(_) => PrevState::Other(0),
        }
    }

    fn marks(&self) -> Marks {
        let name = self.wchan.as_deref();
        let innermost = name.and_then(|name| marks_of(&[name])).unwrap_or_default();
        let waits_in_kernel = innermost.intersects(KERNEL_WAIT);
        let outer: &[Mark] = match self.call {
            Call::In { number: IOCTL, args: [_, KVM_RUN, _] } => {
                // A lock may be one of KVM's, or one that a fault takes, or other work on the way to the guest.
                let waits_for_lock = innermost.intersects(Marks::of(&[Mark::KernelLock]));
                let waits_for_page = innermost.intersects(Marks::of(&[Mark::PageWait]));
                match (waits_for_lock, waits_for_page) {
                    (true, _) => &[],
                    (false, true) => &[Mark::KvmRun, Mark::Kvm, Mark::Fault],
                    (false, false) => &[Mark::KvmRun, Mark::Kvm],
                }
            }
            Call::In { number: FUTEX, .. } if !waits_in_kernel => &[Mark::FutexSleep],
            Call::In { number, .. } if DISK_CALLS.contains(&number) => &[Mark::DiskCall],
            Call::In { number, .. } if POLL_CALLS.contains(&number) && !waits_in_kernel => {
                &[Mark::PollSleep]
            }
            // Who sleeps outside a call has come into the kernel by a fault, or by an interrupt after which
            // there was other work to do.
            Call::None if innermost.intersects(FAULT_WAIT) => &[Mark::Fault],
            Call::None => &[],
            Call::In { .. } | Call::Running | Call::Hidden => &[],
        };
        innermost.and(Marks::of(outer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::{GuestMode, Vmm};
    use crate::units::{HostNs, Tid};

    const BQL: u64 = 0x560c_9484_9b40;
    const HEAP: u64 = 0x55d2_80cf_505c;

    fn look(call: Call, state: u8, wchan: &str) -> Look {
        let wchan = (!wchan.is_empty()).then(|| wchan.into());
        Look { time: HostNs(0), tid: Tid(1), call, state: Some(state), wchan }
    }

    fn within(number: u32, args: [u64; 3]) -> Call {
        Call::In { number, args }
    }

    fn facts(mode: GuestMode) -> LockFacts {
        let exe_data = Some((0x560c_9400_0000, 0x560c_9500_0000));
        LockFacts {
            vmm: Vmm::Qemu,
            mode: Some(mode),
            bql: Some(BQL),
            exe_data,
            ..LockFacts::default()
        }
    }

    #[test]
    fn the_rows_of_the_table_by_call_and_function() {
        let kvm_run = within(16, [9, 0xae80, 0]);
        let ppoll = within(271, [1, 2, 3]);
        let unknown = Reason::Unknown;
        for (call, state, wchan, expected) in [
            (within(202, [BQL, 0x80, 2]), b'S', "futex_do_wait", Reason::Bql),
            (within(202, [BQL, 0x80, 2]), b'S', "", Reason::Bql),
            (within(202, [BQL, 0x80, 2]), b'R', "futex_wait_queue", Reason::Bql),
            (within(202, [BQL, 0x80, 2]), b'D', "folio_wait_bit_common", unknown),
            (within(202, [HEAP, 0x80, 2]), b'S', "futex_wait_queue_me", Reason::QemuLock),
            (within(202, [HEAP, 0x189, 0]), b'S', "futex_do_wait", Reason::HaltUser),
            (kvm_run, b'S', "kvm_vcpu_block", Reason::Halt),
            (kvm_run, b'D', "folio_wait_bit_common", Reason::HostFault),
            (kvm_run, b'D', "__mutex_lock.constprop.0", unknown),
            (kvm_run, b'D', "mem_cgroup_handle_over_high", Reason::MemoryLimit),
            (kvm_run, b'D', "__refrigerator", Reason::Stopped),
            (Call::None, b'D', "__mem_cgroup_handle_over_high", Reason::MemoryLimit),
            (within(426, [3, 0, 1]), b'S', "io_cqring_wait", Reason::IoSubmit),
            (within(426, [3, 8, 0]), b'D', "blk_mq_get_tag", Reason::IoSubmit),
            (kvm_run, b'D', "rwsem_down_read_slowpath", unknown),
            (kvm_run, b'S', "", unknown),
            (within(16, [9, 0xae01, 0]), b'D', "__mutex_lock", unknown),
            (Call::None, b'D', "folio_wait_bit_common", Reason::HostFault),
            (Call::None, b'S', "", unknown),
            (within(17, [3, 4, 5]), b'D', "blkdev_direct_IO", Reason::IoSubmit),
            (within(209, [3, 4, 5]), b'D', "rq_qos_wait", Reason::IoSubmit),
            (within(0, [3, 4, 5]), b'S', "pipe_read", unknown),
            (ppoll, b'S', "do_sys_poll", Reason::PollSleep),
            (ppoll, b'D', "rwsem_down_read_slowpath", unknown),
            (within(230, [0, 0, 0]), b'S', "hrtimer_nanosleep", Reason::PollSleep),
            (within(35, [0, 0, 0]), b'T', "do_signal_stop", Reason::Stopped),
        ] {
            let look = look(call, state, wchan);
            let doing = look.doing(&facts(GuestMode::Kvm), LockUser::Vcpu, false);
            assert_eq!(doing, Doing::Off(expected), "{call:?} {wchan}");
        }
    }

    #[test]
    fn an_event_loop_that_waits_for_its_ring_is_idle() {
        let look = look(within(426, [3, 0, 1]), b'S', "io_cqring_wait");
        for user in [LockUser::MainLoop, LockUser::Other] {
            let doing = look.doing(&facts(GuestMode::Kvm), user, false);
            assert_eq!(doing, Doing::Off(Reason::PollSleep), "{user:?}");
        }
    }

    #[test]
    fn without_the_call_the_function_proves_less_and_nothing_else() {
        let hidden = |state, wchan| look(Call::Hidden, state, wchan);
        let kvm = facts(GuestMode::Kvm);
        let tcg = facts(GuestMode::Tcg);
        assert_eq!(hidden(b'R', "").doing(&kvm, LockUser::Vcpu, false), Doing::Runnable);
        let sleeps = hidden(b'S', "futex_do_wait");
        assert_eq!(sleeps.doing(&kvm, LockUser::Vcpu, false), Doing::Off(Reason::BqlInferred));
        assert_eq!(sleeps.doing(&tcg, LockUser::Vcpu, false), Doing::Off(Reason::Unknown));
        assert_eq!(sleeps.doing(&kvm, LockUser::MainLoop, false), Doing::Off(Reason::Unknown));
        assert_eq!(
            hidden(b'S', "kvm_vcpu_block").doing(&kvm, LockUser::Vcpu, false),
            Doing::Off(Reason::Halt)
        );
        assert_eq!(
            hidden(b'S', "").doing(&kvm, LockUser::Vcpu, false),
            Doing::Off(Reason::Unknown)
        );
    }

    #[test]
    fn a_lock_that_is_not_known_is_inferred_only_where_it_is_shared() {
        let facts = LockFacts { bql: None, ..facts(GuestMode::Tcg) };
        let look = look(within(202, [BQL, 0x80, 2]), b'S', "futex_do_wait");
        assert_eq!(look.doing(&facts, LockUser::Vcpu, true), Doing::Off(Reason::BqlInferred));
        assert_eq!(look.doing(&facts, LockUser::Vcpu, false), Doing::Off(Reason::QemuLock));
    }

    #[test]
    fn a_thread_on_a_pcpu_and_one_that_waits_for_it_look_the_same() {
        let running = Look { state: None, ..look(Call::Running, b'R', "") };
        assert_eq!(running.doing(&facts(GuestMode::Kvm), LockUser::Vcpu, false), Doing::Runnable);
    }
}
