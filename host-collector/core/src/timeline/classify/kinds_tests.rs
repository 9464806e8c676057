//! Stacks by what they have in common, as the sources of Linux 6.12 and 7.3 make them.

use super::tests::{asleep, runnable};
use super::*;

fn each_is(reason: Reason, stacks: &[&str]) {
    for stack in stacks {
        for state in [PrevState::Sleep, PrevState::DiskSleep, PrevState::Other(0x100)] {
            let evidence = Evidence { state, mode: Some(GuestMode::Kvm), ..asleep(stack) };
            assert_eq!(evidence.reason(), reason, "{state:?} {stack}");
        }
    }
}

#[test]
fn a_fault_is_a_fault_whatever_it_waits_for() {
    each_is(
        Reason::HostFault,
        &[
            // Memory is short, or the control group's is.
            "schedule_timeout <- reclaim_throttle <- shrink_node <- try_to_free_mem_cgroup_pages <- \
             try_charge_memcg <- __mem_cgroup_charge <- do_anonymous_page <- handle_mm_fault <- \
             do_user_addr_fault <- exc_page_fault <- asm_exc_page_fault",
            // Reclaim writes to a disk, and this thread does it.
            "blk_mq_get_tag <- blk_mq_submit_bio <- swap_writepage <- shrink_folio_list <- \
             try_to_free_pages <- __alloc_pages_slowpath <- do_anonymous_page <- __handle_mm_fault <- \
             handle_mm_fault <- do_user_addr_fault",
            // Postcopy, swap, migration between NUMA nodes.
            "handle_userfault <- do_anonymous_page <- handle_mm_fault <- __get_user_pages <- \
             hva_to_pfn <- __kvm_faultin_pfn <- kvm_mmu_faultin_pfn <- direct_page_fault",
            "io_schedule <- folio_wait_bit_common <- do_swap_page <- handle_mm_fault <- hva_to_pfn",
            "softleaf_entry_wait_on_locked <- migration_entry_wait <- do_swap_page <- handle_mm_fault",
            // Locks of the address space and of large pages; PREEMPT_RT's too.
            "rwsem_down_read_slowpath <- down_read_killable <- do_user_addr_fault <- exc_page_fault",
            "__mutex_lock <- hugetlb_fault <- handle_mm_fault <- do_user_addr_fault",
            "rt_mutex_schedule <- __rwbase_read_lock <- down_read <- exc_page_fault <- \
             asm_exc_page_fault",
            // Confidential guests: guest_memfd, and SEV-SNP's own table.
            "io_schedule <- folio_wait_bit_common <- kvm_gmem_get_pfn <- __kvm_mmu_faultin_pfn",
            "__mutex_lock <- rmp_make_shared <- sev_handle_rmp_fault <- kvm_mmu_page_fault",
            "rwsem_down_read_slowpath <- down_read <- kvm_mmu_page_fault <- kvm_arch_vcpu_ioctl_run",
            // What the disk shall write to is not there yet.
            "folio_wait_bit_common <- do_swap_page <- handle_mm_fault <- __get_user_pages <- \
             bio_iov_iter_get_pages <- blkdev_direct_IO <- io_submit_one <- __x64_sys_io_submit",
            // Other architectures.
            "folio_wait_bit_common <- filemap_fault <- handle_mm_fault <- do_page_fault <- \
             do_translation_fault <- do_mem_abort <- el0_da <- el0t_64_sync_handler",
            "jbd2_log_wait_commit <- ext4_page_mkwrite <- user_mem_abort <- kvm_handle_guest_abort",
            "rwsem_down_read_slowpath <- down_read <- gstage_page_fault <- kvm_riscv_vcpu_exit",
            "rwsem_down_read_slowpath <- kvm_handle_mm_fault <- kvm_handle_rdwr_fault",
            // The host is a guest, and its own host has to fetch the page.
            "kvm_async_pf_task_wait_schedule <- __kvm_handle_async_pf <- exc_page_fault <- \
             asm_exc_page_fault",
        ],
    );
}

#[test]
fn what_follows_a_fault_is_none() {
    each_is(
        Reason::Unknown,
        &[
            "__mutex_lock <- io_handle_tw_list <- tctx_task_work <- task_work_run <- \
             exit_to_user_mode_loop <- irqentry_exit_to_user_mode <- asm_exc_page_fault",
            "__mutex_lock <- io_handle_tw_list <- task_work_run <- irqentry_exit <- exc_page_fault",
        ],
    );
    each_is(
        Reason::Stopped,
        &["do_signal_stop <- get_signal <- exit_to_user_mode_loop <- asm_exc_page_fault"],
    );
    let limited = "schedule_timeout_killable <- __mem_cgroup_handle_over_high <- irqentry_exit <- \
        exc_page_fault <- asm_exc_page_fault";
    let charging = "mem_cgroup_handle_over_high <- try_charge_memcg <- handle_mm_fault";
    each_is(Reason::MemoryLimit, &[limited, charging]);
    let device = "__mutex_lock <- pic_ioport_write <- kvm_io_bus_write <- x86_emulate_instruction <- \
        kvm_mmu_page_fault <- kvm_arch_vcpu_ioctl_run";
    each_is(Reason::KvmKernelLock, &[device]);
}

#[test]
fn a_lock_of_the_kernel_is_kvms_only_in_kvms_own_work() {
    each_is(
        Reason::KvmKernelLock,
        &[
            "rtlock_slowlock_locked <- rt_spin_lock <- kvm_vcpu_wake_up <- kvm_vcpu_ioctl",
            "schedule_rtlock <- __rwbase_read_lock <- rt_read_lock <- kvm_zap_gfn <- kvm_vm_ioctl",
            "rt_mutex_schedule <- rt_mutex_slowlock_block <- __rt_mutex_slowlock_locked <- \
             mutex_lock <- kvm_vm_ioctl",
            "schedule_timeout <- __wait_for_common <- __wait_rcu_gp <- synchronize_rcu_normal <- \
             kvm_vcpu_ioctl",
        ],
    );
    each_is(
        Reason::Unknown,
        &[
            "rtlock_slowlock_locked <- rt_spin_lock <- futex_q_lock <- futex_wait_setup <- \
             __futex_wait <- __x64_sys_futex",
            "__mutex_lock <- tctx_task_work <- task_work_run <- xfer_to_guest_mode_handle_work <- \
             kvm_arch_vcpu_ioctl_run <- kvm_vcpu_ioctl",
        ],
    );
}

#[test]
fn disk_io_is_told_by_the_call_unless_the_file_is_no_disk() {
    each_is(
        Reason::IoSubmit,
        &[
            "rwsem_down_write_slowpath <- down_write <- ext4_file_write_iter <- __arm64_sys_pwrite64",
            "xlog_grant_head_wait <- xfs_log_reserve <- xfs_file_dio_write <- vfs_write <- \
             ksys_pwrite64",
            "io_schedule <- folio_wait_bit_common <- filemap_read <- do_readv <- __x64_sys_readv",
            "io_schedule <- bio_await <- submit_bio_wait <- blkdev_issue_flush <- __se_sys_fsync",
            "wait_on_page_bit <- generic_file_read_iter <- SyS_preadv",
        ],
    );
    each_is(
        Reason::Unknown,
        &[
            "__mutex_lock <- vfio_pci_rw <- vfio_device_fops_write <- vfs_write <- \
             __x64_sys_pwrite64",
            "__mutex_lock <- kernfs_fop_read_iter <- vfs_read <- __x64_sys_pread64",
            "eventfd_read <- do_iter_readv_writev <- do_readv <- __x64_sys_readv",
        ],
    );
}

#[test]
fn whoever_waits_for_its_ring_is_idle_unless_it_is_a_vcpu() {
    let waits = "io_cqring_wait <- __do_sys_io_uring_enter <- __x64_sys_io_uring_enter";
    // Linux 6.12 asks for a time in a function of its own.
    let for_a_time = "io_cqring_schedule_timeout <- __io_cqring_wait_schedule <- io_cqring_wait <- \
        __x64_sys_io_uring_enter";
    let submits =
        "blk_mq_get_tag <- blk_mq_submit_bio <- io_submit_sqes <- __x64_sys_io_uring_enter";
    for (stack, user, reason) in [
        (waits, LockUser::Vcpu, Reason::IoSubmit),
        (waits, LockUser::MainLoop, Reason::PollSleep),
        (for_a_time, LockUser::Other, Reason::PollSleep),
        (submits, LockUser::Other, Reason::IoSubmit),
        (submits, LockUser::Vcpu, Reason::IoSubmit),
    ] {
        let evidence = Evidence { user, ..asleep(stack) };
        assert_eq!(evidence.reason(), reason, "{user:?} {stack}");
    }
}

#[test]
fn a_thread_of_the_kernel_without_work_waits_for_some() {
    each_is(
        Reason::PollSleep,
        &[
            "__schedule <- schedule <- vhost_task_fn <- ret_from_fork <- ret_from_fork_asm",
            "schedule <- vhost_worker <- kthread <- ret_from_fork",
            "schedule <- schedule_timeout <- io_wq_worker <- ret_from_fork",
            "kthread_worker_fn <- kthread <- ret_from_fork",
        ],
    );
    let works = "__mutex_lock <- handle_tx_kick <- vhost_run_work_list <- vhost_task_fn";
    each_is(Reason::Unknown, &[works]);
}

#[test]
fn a_preemption_has_the_names_of_its_architecture_and_kernel() {
    for stack in [
        // arm64 of 6.12; from an interrupt; within the kernel.
        "schedule <- do_notify_resume <- exit_to_user_mode <- el0_svc <- el0t_64_sync_handler",
        "preempt_schedule_irq <- arm64_preempt_schedule_irq <- el1_interrupt",
        "__schedule <- schedule <- xfer_to_guest_mode_handle_work <- kvm_arch_vcpu_ioctl_run <- \
         kvm_vcpu_ioctl <- __arm64_sys_ioctl",
        // x86 of 7.3: the exit to user space is in the function of the interrupt.
        "schedule <- irqentry_exit <- sysvec_apic_timer_interrupt <- asm_sysvec_apic_timer_interrupt",
        "__cond_resched_rwlock_write <- kvm_tdp_mmu_zap_all <- kvm_vm_ioctl",
        // s390 of 6.12, POWER.
        "schedule <- vcpu_pre_run <- __vcpu_run <- kvm_arch_vcpu_ioctl_run",
        "schedule <- interrupt_exit_user_prepare_main <- interrupt_exit_user_prepare",
    ] {
        assert_eq!(runnable(stack, Next::Waiting).reason(), Reason::Timeslice, "{stack}");
    }
}
