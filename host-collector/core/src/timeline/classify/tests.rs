//! Every row of the table, with stacks as kernels have shown them.

use super::super::stack::marks_of;
use super::*;

const SLICE_NS: u64 = 4_000_000;

/// Left asleep with this stack (`a <- b <- c`, top first), in a QEMU under TCG.
pub(super) fn asleep(stack: &str) -> Evidence {
    let frames: Vec<&str> = stack.split(" <- ").collect();
    Evidence {
        state: PrevState::Sleep,
        marks: marks_of(&frames),
        futex: FutexWait::Unknown,
        is_shared: false,
        vmm: Vmm::Qemu,
        mode: Some(GuestMode::Tcg),
        user: LockUser::Vcpu,
        next: Next::Unseen,
        ran_ns: 1_000_000,
        slice_ns: Some(SLICE_NS),
        preemption: None,
        is_throttled_group: false,
        is_realtime: false,
    }
}

pub(super) fn runnable(stack: &str, next: Next) -> Evidence {
    Evidence { state: PrevState::Runnable, next, ..asleep(stack) }
}

/// Linux 6.18, as docs/evidence.md has it under "Stacks as recorded".
const FUTEX_6_18: &str = "futex_do_wait <- __futex_wait <- futex_wait <- do_futex <- \
    __x64_sys_futex <- do_syscall_64 <- entry_SYSCALL_64_after_hwframe";
/// Linux 6.1, seen in the box of docs/labs.md.
const FUTEX_6_1: &str = "futex_wait_queue <- futex_wait <- do_futex";
/// Linux 3.16, the unusual trace of docs/seed-experiment.md, whole: with its `?` frames.
const FUTEX_3_16: &str = "[] dump_stack+0x64/0x84 <- [] __schedule+0x561/0x900 <- \
    [] schedule+0x29/0x70 <- [] futex_wait_queue_me+0xd8/0x150 <- [] futex_wait+0x1ab/0x2b0 <- \
    [] ? futex_wake+0x80/0x160 <- [] ? __vmx_load_host_state+0x125/0x170 [kvm_intel] <- \
    [] do_futex+0xf5/0xd20 <- [] ? kvm_vcpu_ioctl+0x100/0x560 [kvm] <- \
    [] ? __dequeue_entity+0x30/0x50 <- [] ? do_vfs_ioctl+0x93/0x520 <- \
    [] ? native_write_msr_safe+0xa/0x10 <- [] SyS_futex+0x7d/0x170 <- \
    [] ? fire_user_return_notifiers+0x42/0x50 <- [] ? do_notify_resume+0xc5/0x100 <- \
    [] system_call_fastpath+0x1a/0x1f";
/// Linux 3.16, the usual trace of docs/seed-experiment.md.
const SLICE_3_16: &str = "[] dump_stack+0x64/0x84 <- [] __schedule+0x561/0x900 <- \
    [] _cond_resched+0x2a/0x40 <- [] kvm_arch_vcpu_ioctl_run+0xf54/0x12d0 [kvm] <- \
    [] ? futex_wake+0x80/0x160 <- [] ? kvm_arch_vcpu_load+0x4e/0x1b0 [kvm] <- \
    [] kvm_vcpu_ioctl+0x3f7/0x560 [kvm] <- [] ? __dequeue_entity+0x30/0x50 <- \
    [] ? __switch_to+0x596/0x690 <- [] do_vfs_ioctl+0x93/0x520 <- [] ? SyS_futex+0x7d/0x170 <- \
    [] SyS_ioctl+0xa1/0xb0 <- [] system_call_fastpath+0x1a/0x1f";
const GUEST_6_18: &str = "__schedule <- schedule <- xfer_to_guest_mode_handle_work <- \
    kvm_arch_vcpu_ioctl_run <- kvm_vcpu_ioctl <- __x64_sys_ioctl <- do_syscall_64 <- \
    entry_SYSCALL_64_after_hwframe";
const TCG_TICK_6_18: &str = "__schedule <- schedule <- irqentry_exit_to_user_mode <- \
    asm_sysvec_apic_timer_interrupt";
const TCG_IPI_6_18: &str = "irqentry_exit_to_user_mode <- asm_sysvec_reschedule_ipi";
const CALL_RETURN_6_18: &str =
    "exit_to_user_mode_loop <- do_syscall_64 <- entry_SYSCALL_64_after_hwframe";

#[test]
fn locks_are_told_by_the_futex_and_only_by_it() {
    for stack in [FUTEX_6_18, FUTEX_6_1, FUTEX_3_16] {
        for (futex, reason) in [
            (FutexWait::Bql, Reason::Bql),
            (FutexWait::Mutex, Reason::QemuLock),
            (FutexWait::StaticMutex, Reason::QemuLock),
            (FutexWait::Event, Reason::QemuLock),
            (FutexWait::Condition, Reason::HaltUser),
            (FutexWait::Std, Reason::VmmLock),
            (FutexWait::Unknown, Reason::Unknown),
        ] {
            let evidence = Evidence { futex, ..asleep(stack) };
            assert_eq!(evidence.reason(), reason, "{futex:?} {stack}");
            // Woken before it slept: it counts as the same.
            let woken = Evidence { state: PrevState::Runnable, ..evidence };
            assert_eq!(woken.reason(), reason, "{futex:?} {stack}");
        }
        let shared = Evidence { futex: FutexWait::StaticMutex, is_shared: true, ..asleep(stack) };
        assert_eq!(shared.reason(), Reason::BqlInferred);
    }
}

/// The seed's own evidence: stacks of a QEMU under KVM, and nothing else.
#[test]
fn the_traces_of_the_seed() {
    let kvm = |evidence| Evidence { mode: Some(GuestMode::Kvm), ..evidence };
    assert_eq!(kvm(asleep(FUTEX_3_16)).reason(), Reason::BqlInferred);
    assert_eq!(kvm(runnable(SLICE_3_16, Next::Waiting)).reason(), Reason::Timeslice);
}

#[test]
fn a_thread_that_is_preempted_on_its_way_into_a_futex_does_not_sleep_on_it() {
    let stack = "__schedule <- preempt_schedule_irq <- irqentry_exit <- futex_do_wait";
    for state in [PrevState::Runnable, PrevState::RunnablePreempted] {
        let next = Next::Waiting;
        let evidence = Evidence { state, next, futex: FutexWait::Bql, ..asleep(stack) };
        assert_eq!(evidence.reason(), Reason::Timeslice, "{state:?}");
    }
}

#[test]
fn sleeps_in_the_kernel() {
    for (reason, stack) in [
        (
            Reason::Halt,
            "kvm_vcpu_block <- kvm_vcpu_halt <- kvm_arch_vcpu_ioctl_run <- kvm_vcpu_ioctl",
        ),
        // Up to 5.16.
        (Reason::Halt, "kvm_vcpu_block+0x1/0x2 [kvm] <- kvm_arch_vcpu_ioctl_run+0x1/0x2 [kvm]"),
        (
            Reason::HostFault,
            "io_schedule <- folio_wait_bit_common <- filemap_fault <- handle_mm_fault <- \
             __get_user_pages <- hva_to_pfn <- kvm_faultin_pfn <- kvm_mmu_page_fault",
        ),
        (
            Reason::HostFault,
            "io_schedule <- folio_wait_bit_common <- filemap_fault <- handle_mm_fault <- \
             do_user_addr_fault <- exc_page_fault <- asm_exc_page_fault",
        ),
        (Reason::KvmKernelLock, "synchronize_srcu <- kvm_set_memslot <- kvm_vm_ioctl"),
        (Reason::KvmKernelLock, "__mutex_lock <- kvm_vm_ioctl_set_gsi <- kvm_vm_ioctl"),
        (
            Reason::IoSubmit,
            "blk_mq_get_tag <- blk_mq_submit_bio <- submit_bio_noacct <- io_submit_one <- \
             __x64_sys_io_submit",
        ),
        (
            Reason::IoSubmit,
            "io_schedule <- __iomap_dio_rw <- ext4_file_read_iter <- __x64_sys_pread64",
        ),
        (
            Reason::IoSubmit,
            "schedule_timeout <- io_schedule_timeout <- __iomap_dio_rw <- iomap_dio_rw <- \
             ext4_file_read_iter <- vfs_read <- __x64_sys_pread64",
        ),
        (Reason::Stopped, "do_signal_stop <- get_signal <- arch_do_signal_or_restart"),
        (Reason::PollSleep, "poll_schedule_timeout <- do_sys_poll <- __x64_sys_ppoll"),
        (Reason::PollSleep, "do_nanosleep <- hrtimer_nanosleep <- __x64_sys_clock_nanosleep"),
        (
            Reason::IoSubmit,
            "io_schedule <- folio_wait_bit_common <- filemap_read <- vfs_read <- ksys_read",
        ),
        // The VMM writes what the guest prints, and whoever reads it is slow.
        (Reason::Unknown, "pipe_write <- vfs_write <- ksys_write <- __x64_sys_write"),
        (Reason::Unknown, "pipe_read <- vfs_read <- ksys_read"),
    ] {
        // Woken before it slept, it counts as the same.
        for state in [PrevState::Sleep, PrevState::DiskSleep, PrevState::Runnable] {
            let evidence = Evidence { state, ..asleep(stack) };
            assert_eq!(evidence.reason(), reason, "{state:?} {stack}");
        }
        // But not if somebody made it leave there.
        let preempted = format!("__schedule <- preempt_schedule_irq <- irqentry_exit <- {stack}");
        let state = PrevState::RunnablePreempted;
        let evidence = Evidence { state, next: Next::Waiting, ..asleep(&preempted) };
        assert_eq!(evidence.reason(), Reason::Timeslice, "{preempted}");
    }
    let unrecorded = Evidence { marks: None, ..asleep("") };
    assert_eq!(unrecorded.reason(), Reason::Unknown);
    let stopped = Evidence { state: PrevState::Stopped, ..asleep("do_signal_stop <- get_signal") };
    assert_eq!(stopped.reason(), Reason::Stopped);
}

#[test]
fn a_timeslice_is_told_from_a_preemption_by_who_came_on() {
    let woken = |ago_ns| Next::Woken { ago_ns };
    for stack in [GUEST_6_18, TCG_TICK_6_18, TCG_IPI_6_18, CALL_RETURN_6_18, SLICE_3_16] {
        for (next, ran_ns, reason) in [
            (Next::Waiting, SLICE_NS, Reason::Timeslice),
            // What it had used of its slice before it was last off counts too.
            (Next::Waiting, SLICE_NS / 10, Reason::Timeslice),
            (woken(16_000), SLICE_NS / 10, Reason::PreemptWakeup),
            (woken(100_000), SLICE_NS, Reason::PreemptWakeup),
            (woken(100_001), SLICE_NS, Reason::Timeslice),
            // Woken while the other one ran, which had not had its slice: a lazy kernel.
            (woken(300_000), SLICE_NS / 10, Reason::PreemptWakeup),
            // Woken before the other one came on.
            (woken(SLICE_NS / 10), SLICE_NS / 10, Reason::Timeslice),
            (Next::Unseen, SLICE_NS * 8 / 10, Reason::Timeslice),
            (Next::Unseen, SLICE_NS * 8 / 10 - 1, Reason::PreemptWakeup),
            (Next::Realtime, SLICE_NS, Reason::PreemptRtOrStop),
            (Next::Idle, SLICE_NS, Reason::Unknown),
        ] {
            let evidence = Evidence { ran_ns, ..runnable(stack, next) };
            assert_eq!(evidence.reason(), reason, "{next:?} {ran_ns} {stack}");
            let kernel = Evidence { state: PrevState::RunnablePreempted, ..evidence };
            assert_eq!(kernel.reason(), reason, "{next:?} {ran_ns} {stack}");
        }
    }
    let untold = Evidence { slice_ns: None, ..runnable(GUEST_6_18, Next::Unseen) };
    assert_eq!(untold.reason(), Reason::Unknown, "the host does not tell its slice");
}

/// A thread that waits for the tick still preempts, one that waits for longer does not: HZ=1000, of which three
/// ticks are a slice.
#[test]
fn how_late_a_woken_thread_preempts_is_the_kernels_choice() {
    let lazy = Some(Preemption::AtTick { tick_ns: 1_000_000 });
    let full = Some(Preemption::AtOnce);
    for (preemption, ago_ns, ran_ns, reason) in [
        (lazy, 16_000, 2_000_000, Reason::PreemptWakeup),
        (lazy, 990_000, 1_500_000, Reason::PreemptWakeup),
        // The tick after the waking has passed, and the other one went on.
        (lazy, 1_200_000, 1_500_000, Reason::Timeslice),
        (full, 16_000, 2_000_000, Reason::PreemptWakeup),
        (full, 300_000, 1_500_000, Reason::Timeslice),
        (None, 1_200_000, 1_500_000, Reason::PreemptWakeup),
        // It has had its slice by then, whoever came.
        (lazy, 990_000, 3_000_000, Reason::Timeslice),
        // Woken before the other one came on.
        (lazy, 900_000, 800_000, Reason::Timeslice),
    ] {
        let next = Next::Woken { ago_ns };
        let slice_ns = Some(3_000_000);
        let evidence = Evidence { preemption, ran_ns, slice_ns, ..runnable(GUEST_6_18, next) };
        assert_eq!(evidence.reason(), reason, "{preemption:?} {ago_ns} {ran_ns}");
    }
}

#[test]
fn a_quota_that_is_used_up() {
    let is_throttled_group = true;
    let inside = "__schedule <- schedule <- throttle_cfs_rq_work <- task_work_run <- \
        xfer_to_guest_mode_handle_work <- kvm_arch_vcpu_ioctl_run";
    assert_eq!(runnable(inside, Next::Waiting).reason(), Reason::Throttle);
    // Linux 6.18, a hog under TCG and one under KVM, each with 20 of 50 ms.
    for work in [
        "__schedule <- __cond_resched <- task_work_run <- irqentry_exit_to_user_mode <- \
         asm_sysvec_apic_timer_interrupt",
        "__schedule <- __cond_resched <- task_work_run <- xfer_to_guest_mode_handle_work <- \
         kvm_arch_vcpu_ioctl_run",
    ] {
        for next in [Next::Idle, Next::Waiting, Next::Woken { ago_ns: 1 }] {
            let state = PrevState::RunnablePreempted;
            let throttled = Evidence { state, is_throttled_group, ..runnable(work, next) };
            assert_eq!(throttled.reason(), Reason::Throttle, "{next:?}");
        }
    }
    let idle = Evidence { is_throttled_group, ..runnable(GUEST_6_18, Next::Idle) };
    assert_eq!(idle.reason(), Reason::Throttle, "up to 6.17");
    let other = Evidence { is_throttled_group, ..runnable(GUEST_6_18, Next::Waiting) };
    assert_eq!(other.reason(), Reason::Timeslice);
}

#[test]
fn a_real_time_thread_has_no_timeslice_but_a_share_of_its_pcpu() {
    let realtime = |next| Evidence { is_realtime: true, ..runnable(TCG_TICK_6_18, next) };
    for next in [Next::Waiting, Next::Woken { ago_ns: 1 }, Next::Unseen, Next::Idle] {
        assert_eq!(realtime(next).reason(), Reason::Throttle, "{next:?}");
    }
    assert_eq!(realtime(Next::Realtime).reason(), Reason::PreemptRtOrStop);
    let fair = runnable(TCG_TICK_6_18, Next::Waiting);
    assert_eq!(fair.reason(), Reason::Timeslice);
}

#[test]
fn giving_way_by_itself() {
    let yielded = "__schedule <- schedule <- do_sched_yield <- __x64_sys_sched_yield";
    assert_eq!(runnable(yielded, Next::Waiting).reason(), Reason::Yield);
    let spinning = "__schedule <- schedule <- yield_to <- kvm_vcpu_on_spin <- handle_pause";
    assert_eq!(runnable(spinning, Next::Waiting).reason(), Reason::Yield);
    let signal = "__schedule <- schedule <- get_signal <- arch_do_signal_or_restart";
    assert_eq!(runnable(signal, Next::Waiting).reason(), Reason::SignalWork);
    let inside = "__schedule <- __cond_resched <- task_work_run <- xfer_to_guest_mode_handle_work";
    assert_eq!(runnable(inside, Next::Waiting).reason(), Reason::Timeslice);
}

#[test]
fn every_reason_has_a_row() {
    for reason in Reason::ALL {
        let has_row = ROWS.iter().any(|row| row.reason == reason);
        assert_eq!(has_row, reason != Reason::Unknown, "{reason:?}");
    }
}
