//! The kernel functions that prove something, by name: sets of names, since one thing has had several.
//!
//! Read in the sources of 3.16, 6.1, 6.12, 6.18 and 7.3 unless a comment names others, or seen on stacks of
//! 6.1 and 6.18 (docs/evidence.md, "Names of kernel functions"). A name that ends in `*` stands for all that
//! begin so.

use super::{Mark, StackPosition};

/// The functions of one mark, and where on the stack they must be.
pub(super) struct Functions {
    pub(super) mark: Mark,
    pub(super) position: StackPosition,
    pub(super) names: &'static [&'static str],
}

const fn anywhere(mark: Mark, names: &'static [&'static str]) -> Functions {
    Functions { mark, position: StackPosition::Anywhere, names }
}

const fn innermost(mark: Mark, names: &'static [&'static str]) -> Functions {
    Functions { mark, position: StackPosition::Innermost, names }
}

/// System calls, by the names that user space gives them.
const fn call(mark: Mark, names: &'static [&'static str]) -> Functions {
    Functions { mark, position: StackPosition::Call, names }
}

/// All of them; a mark may have several.
pub(super) const FUNCTIONS: &[Functions] = &[
    // Up to 5.15; 5.16 to 6.15; from 6.16; futex_waitv(2), from 5.16 (kernel/futex/waitwake.c). `futex_wait`
    // and `do_futex` prove nothing: a thread can also be preempted, or fault, in them.
    anywhere(
        Mark::FutexSleep,
        &["futex_wait_queue_me", "futex_wait_queue", "futex_do_wait", "futex_sleep_multiple"],
    ),
    // `kvm_vcpu_halt` wraps `kvm_vcpu_block` from 5.17 on; before that the latter stands alone
    // (virt/kvm/kvm_main.c). All architectures halt in it, but POWER before POWER9
    // (arch/powerpc/kvm/book3s_hv.c).
    anywhere(Mark::KvmHalt, &["kvm_vcpu_block", "kvm_vcpu_halt", "kvmppc_vcore_blocked"]),
    anywhere(Mark::KvmRun, &["kvm_arch_vcpu_ioctl_run", "vcpu_run", "__vcpu_run"]),
    // `kvm_async_pf_task_wait*` is a function of guests: of a host that is one itself.
    anywhere(Mark::Kvm, &["kvm_*", "__kvm_*", "kvmppc_*", "kvmhv_*"]),
    // Signals, debuggers; the freezer of cgroup v2 (kernel/signal.c), that of cgroup v1 and of suspend
    // (kernel/freezer.c).
    anywhere(
        Mark::Stop,
        &["do_signal_stop", "ptrace_stop", "do_jobctl_trap", "do_freezer_trap", "__refrigerator"],
    ),
    // mm/filemap.c; the last one is of 7.x.
    anywhere(
        Mark::PageWait,
        &[
            "io_schedule*",
            "folio_wait_bit*",
            "__folio_lock*",
            "wait_on_page_bit*",
            "__lock_page*",
            "do_swap_page",
            "handle_userfault",
            "migration_entry_wait*",
            "softleaf_entry_wait*",
        ],
    ),
    anywhere(Mark::KernelLock, KERNEL_LOCKS),
    anywhere(Mark::Fault, FAULTS),
    anywhere(Mark::FaultEntry, FAULT_ENTRIES),
    // KVM serves an access to a device's memory where it handles faults: it is told the two apart by what
    // it does next.
    anywhere(
        Mark::Emulation,
        &["x86_emulate_instruction", "x86_emulate_insn", "kvm_io_bus_*", "io_mem_abort"],
    ),
    anywhere(Mark::ReturnWork, RETURN_WORK),
    // Over the `memory.high` of its control group: a thread is put to sleep on its way back, or where it
    // charges memory (mm/memcontrol.c; with the underscores in 7.3).
    anywhere(Mark::MemoryLimit, &["mem_cgroup_handle_over_high", "__mem_cgroup_handle_over_high"]),
    call(
        Mark::DiskCall,
        &[
            "io_submit",
            "pread64",
            "preadv",
            "preadv2",
            "pwrite64",
            "pwritev",
            "pwritev2",
            "io_uring_enter",
            "fdatasync",
            "fsync",
        ],
    ),
    call(Mark::SyncCall, &["fdatasync", "fsync"]),
    // Files that are read at an offset as well, and are no disk: a device that is passed through, and its
    // mediated kind; sysfs, procfs, devices of user space.
    anywhere(
        Mark::DeviceFile,
        &["vfio_*", "mdev_*", "kernfs_*", "proc_reg_*", "seq_read*", "uio_*"],
    ),
    anywhere(
        Mark::DiskWait,
        &[
            "blk_mq_get_tag",
            "wbt_wait",
            "rq_qos_wait",
            "do_blockdev_direct_IO",
            "__iomap_dio_rw",
            "blkdev_direct_IO*",
            "__blkdev_direct_IO*",
            "submit_bio_wait",
        ],
    ),
    call(Mark::FileCall, &["read", "write", "readv", "writev"]),
    // io_uring/wait.c, before 7.x io_uring/io_uring.c.
    anywhere(
        Mark::RingWait,
        &["io_cqring_wait*", "__io_cqring_wait*", "io_cqring_schedule_timeout"],
    ),
    // Threads of the kernel that work for a VM, with nothing to do: vhost up to 6.3 and from 6.4 on (which
    // is also what KVM's large pages are recovered in), workers of io_uring, the timer chip of KVM.
    innermost(
        Mark::NoWork,
        &["vhost_worker", "vhost_task_fn", "io_wq_worker", "io_sq_thread", "kthread_worker_fn"],
    ),
    // From 6.18 on a throttled thread takes itself off its runqueue in work that it does on its way
    // to user space or to the guest (kernel/sched/fair.c). Seen there is `__cond_resched <-
    // task_work_run`, after that work; before 6.18 nothing on the stack tells.
    anywhere(Mark::Throttle, &["throttle_cfs_rq_work"]),
    Functions { mark: Mark::TaskWork, position: StackPosition::Beneath, names: &["task_work_run"] },
    anywhere(
        Mark::PollSleep,
        &[
            "poll_schedule_timeout*",
            "do_sys_poll",
            "do_poll*",
            "do_select",
            "ep_poll",
            "do_epoll_wait",
            "hrtimer_nanosleep",
            "do_nanosleep",
            "do_sigtimedwait",
        ],
    ),
    call(Mark::Yield, &["sched_yield"]),
    anywhere(Mark::Yield, &["do_sched_yield", "yield_to", "kvm_vcpu_on_spin"]),
    innermost(Mark::ReturnPreempted, RETURN_PREEMPTED),
    innermost(
        Mark::KernelPreempted,
        &[
            "_cond_resched",
            "__cond_resched*",
            "dynamic_cond_resched",
            "preempt_schedule*",
            "dynamic_preempt_schedule*",
            "raw_irqentry_exit_cond_resched",
            "irqentry_exit_cond_resched",
            // With what of the exit to user space the compiler has put into it; 7.3 puts all of it there.
            "irqentry_exit",
            "arm64_preempt_schedule_irq",
        ],
    ),
    innermost(Mark::OwnWork, &["task_work_run", "get_signal", "do_signal"]),
];

/// Locks of the kernel, and grace periods of RCU, which whoever changes what others read without a lock waits
/// for.
const KERNEL_LOCKS: &[&str] = &[
    // kernel/locking/mutex.c, rwsem.c, percpu-rwsem.c; kernel/sched/completion.c, with the name that it had
    // up to 4.x.
    "__mutex_lock*",
    "mutex_lock*",
    "rwsem_down_*",
    "percpu_rwsem_wait",
    "wait_for_completion*",
    "wait_for_common",
    "__wait_for_common",
    // PREEMPT_RT: spinlocks, rwlocks and semaphores sleep (kernel/locking/rtmutex.c, spinlock_rt.c,
    // rwbase_rt.c).
    "rt_spin_lock*",
    "__rt_spin_lock*",
    "rtlock_slowlock*",
    "rt_read_lock*",
    "rt_write_lock*",
    "rwbase_*",
    "__rwbase_*",
    "rt_mutex_lock*",
    "rt_mutex_slowlock*",
    "__rt_mutex_slowlock*",
    // kernel/rcu; `synchronize_sched` up to 4.20.
    "synchronize_srcu*",
    "__synchronize_srcu*",
    "synchronize_rcu*",
    "synchronize_sched*",
    "wait_rcu_gp*",
    "__wait_rcu_gp*",
    "rcu_barrier*",
    "srcu_barrier*",
];

/// What handles a page fault and nothing else: whoever sleeps under one of these waits for its page,
/// whatever it is that keeps the page from coming.
const FAULTS: &[&str] = &[
    // mm/memory.c, mm/gup.c.
    "handle_mm_fault",
    "__handle_mm_fault",
    "faultin_page*",
    "fixup_user_fault",
    "__get_user_pages*",
    "get_user_pages*",
    // arch/x86/mm/fault.c; `___` is of POWER, `do_mem_abort` of arm64, the last three of s390, RISC-V, and
    // of a host that is a guest itself, whose own host has the page (arch/x86/kernel/kvm.c).
    "do_user_addr_fault",
    "__do_page_fault",
    "___do_page_fault",
    "do_mem_abort",
    "do_dat_exception",
    "handle_page_fault",
    "kvm_async_pf_task_wait*",
    // virt/kvm: the page of a guest; guest_memfd.c for confidential guests, from 6.8 on.
    "hva_to_pfn*",
    "kvm_faultin_pfn",
    "__kvm_faultin_pfn",
    "kvm_gmem_get_pfn",
    "__kvm_gmem_get_pfn",
    // arch/x86/kvm/mmu/mmu.c; `try_async_pf` up to 5.13, `kvm_mmu_faultin_pfn` from 6.13. The way to these
    // is the same for SEV and TDX, and for what a guest's own guest faults on.
    "try_async_pf",
    "kvm_mmu_faultin_pfn",
    "__kvm_mmu_faultin_pfn",
    "tdp_page_fault",
    "kvm_tdp_page_fault",
    "kvm_tdp_mmu_page_fault",
    "direct_page_fault",
    "nonpaging_page_fault",
    "paging64_page_fault",
    "paging32_page_fault",
    "ept_page_fault",
    "kvm_handle_page_fault",
    "sev_handle_rmp_fault",
    // arch/arm64/kvm/mmu.c; loongarch, s390.
    "user_mem_abort",
    "gmem_abort",
    "pkvm_mem_abort",
    "kvm_handle_mm_fault",
    "vcpu_dat_fault_handler",
    "vcpu_post_run_handle_fault",
    "kvm_s390_faultin_gfn",
];

/// What handles a page fault, but also what follows it: on its way back from one a thread does other work, and
/// KVM emulates what accesses a device.
const FAULT_ENTRIES: &[&str] = &[
    // arch/x86/mm/fault.c, arch/x86/entry; `do_page_fault` up to 5.7, and of other architectures.
    "exc_page_fault",
    "asm_exc_page_fault",
    "do_page_fault",
    "el0_da",
    "el0_ia",
    // KVM: x86, arm64, RISC-V, POWER.
    "kvm_mmu_page_fault",
    "kvm_handle_guest_abort",
    "gstage_page_fault",
    "kvmppc_book3s_hv_page_fault",
    "kvmppc_book3s_radix_page_fault",
];

/// Work that was left for the way back to user space or to the guest: `resume_user_mode_work` and signals
/// (kernel/entry).
const RETURN_WORK: &[&str] = &[
    "task_work_run",
    "get_signal",
    "do_signal",
    "do_notify_resume",
    "exit_to_usermode_loop",
    "exit_to_user_mode_prepare",
    "exit_to_user_mode_loop",
    "irqentry_exit*",
    "syscall_exit_to_user_mode*",
    "xfer_to_guest_mode_*",
    "interrupt_exit_user_prepare*",
    "syscall_exit_prepare",
];

const RETURN_PREEMPTED: &[&str] = &[
    // To the guest, from 5.9 on (arm64 5.16, RISC-V 5.17, loongarch 6.7; kernel/entry/virt.c from 6.17); up to
    // 5.8 it is `cond_resched`. s390 gave way in these up to 6.18 or so (arch/s390/kvm/kvm-s390.c).
    "xfer_to_guest_mode_handle_work",
    "xfer_to_guest_mode_work",
    "vcpu_pre_run",
    "__vcpu_run",
    // To user space: 4.x to 5.7; from 5.8 on; from an interrupt; x86 of 3.x.
    "exit_to_usermode_loop",
    "exit_to_user_mode_prepare",
    "exit_to_user_mode_loop",
    "irqentry_exit_to_user_mode",
    "syscall_exit_to_user_mode*",
    "retint_user",
    "retint_careful",
    "sysret_careful",
    "int_careful",
    // arm64 up to 6.17, which has the generic exit after that; POWER.
    "do_notify_resume",
    "interrupt_exit_user_prepare*",
    "syscall_exit_prepare",
];

/// The scheduler's own functions, what sleeps for a time whoever asks, and what records them: they say nothing
/// of who called.
pub(super) const SCHEDULER: &[&str] = &[
    "dump_stack",
    "__switch_to",
    "__schedule",
    "__schedule_loop",
    "schedule",
    "schedule_preempt_disabled",
    "schedule_rtlock",
    "schedule_timeout*",
    "schedule_hrtimeout*",
    "rt_mutex_schedule",
    "__traceiter_*",
    "__do_trace_sched_*",
    "trace_event_raw_event_*",
    "perf_trace_*",
];

/// What a system call's function is called beside the call's own name: 2.6 to 4.16; from 4.17 on for each
/// architecture (arch/*/include/asm/syscall_wrapper.h); within the kernel.
pub(super) const CALL_PREFIXES: &[&str] = &[
    "sys_",
    "SyS_",
    "__x64_sys_",
    "__arm64_sys_",
    "__riscv_sys_",
    "__s390x_sys_",
    "__se_sys_",
    "__do_sys_",
    "ksys_",
];
