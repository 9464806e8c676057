//! Kernel stacks: which of the functions that matter are on them.

use crate::host_event::StackId;

/// What a function on a kernel stack proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Mark {
    /// It sleeps in `futex(2)`.
    FutexSleep,
    /// It sleeps in KVM because the guest is idle.
    KvmHalt,
    /// It runs a guest.
    KvmRun,
    /// It is in KVM, running a guest or not.
    Kvm,
    /// It was stopped by a signal or a debugger.
    Stop,
    /// It waits for a page, or for I/O without a name.
    PageWait,
    /// It waits for a lock of the kernel.
    KernelLock,
    /// It handles a page fault, its own or its guest's.
    Fault,
    /// It reads, writes or submits I/O.
    DiskCall,
    /// It reads or writes a file of whatever kind: a pipe or a terminal as well as one on a disk.
    FileCall,
    /// Its control group's quota is used up.
    Throttle,
    /// It does work that was left for its way back to user space or to the guest.
    TaskWork,
    /// It sleeps in `poll`, `epoll_wait`, or for a time.
    PollSleep,
    /// It asked to give way.
    Yield,
    /// Innermost: it gave way before it went back to the guest or to user space.
    ReturnPreempted,
    /// Innermost: it was preempted, or gave way, within the kernel.
    KernelPreempted,
    /// Innermost: it handled signals or other work of its own.
    OwnWork,
}

/// A set of [`Mark`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks(u32);

impl Marks {
    /// The marks in `list`.
    #[must_use]
    pub const fn of(list: &[Mark]) -> Marks {
        let mut bits = 0;
        let mut place = 0;
        while place < list.len() {
            bits |= 1 << list[place] as u32;
            place += 1;
        }
        Marks(bits)
    }

    /// The marks of both.
    #[must_use]
    pub const fn and(self, other: Marks) -> Marks {
        Marks(self.0 | other.0)
    }

    /// Whether there is a mark that both have.
    #[must_use]
    pub fn intersects(self, other: Marks) -> bool {
        self.0 & other.0 != 0
    }
}

/// Where on the stack a function must be to prove something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StackPosition {
    /// Anywhere.
    Anywhere,
    /// Right under the scheduler's own functions: it is what called the scheduler.
    Innermost,
    /// What called the one that is innermost. (Balancing of NUMA nodes is task work as well, but gives
    /// way in functions of its own.)
    Beneath,
}

/// The functions that prove something. A name that ends in `*` stands for all that begin so.
///
/// One thing has had several names; the kernel versions are those of docs/evidence.md, "Names of
/// kernel functions", read in the sources of 3.16, 6.1, 6.12 and 6.18 or seen on stacks of 6.1 and
/// 6.18.
const FUNCTIONS: &[(Mark, StackPosition, &[&str])] = &[
    // Up to 5.15; 5.16 to 6.15; from 6.16. `futex_wait` and `do_futex` prove nothing: a thread can
    // also be preempted, or fault, in them.
    (
        Mark::FutexSleep,
        StackPosition::Anywhere,
        &["futex_wait_queue_me", "futex_wait_queue", "futex_do_wait"],
    ),
    // `kvm_vcpu_halt` wraps `kvm_vcpu_block` from 5.17 on; before that the latter stands alone.
    (Mark::KvmHalt, StackPosition::Anywhere, &["kvm_vcpu_block", "kvm_vcpu_halt"]),
    (Mark::KvmRun, StackPosition::Anywhere, &["kvm_arch_vcpu_ioctl_run", "vcpu_run", "__vcpu_run"]),
    (Mark::Kvm, StackPosition::Anywhere, &["kvm_*", "__kvm_*"]),
    (
        Mark::Stop,
        StackPosition::Anywhere,
        &["do_signal_stop", "ptrace_stop", "do_jobctl_trap", "do_freezer_trap"],
    ),
    (
        Mark::PageWait,
        StackPosition::Anywhere,
        &[
            "io_schedule*",
            "folio_wait_bit*",
            "__folio_lock*",
            "wait_on_page_bit*",
            "__lock_page*",
            "do_swap_page",
            "handle_userfault",
        ],
    ),
    (
        Mark::KernelLock,
        StackPosition::Anywhere,
        &[
            "__mutex_lock*",
            "mutex_lock*",
            "rwsem_down_*",
            "synchronize_srcu*",
            "__synchronize_srcu*",
            "wait_for_completion*",
            "percpu_rwsem_wait",
        ],
    ),
    (
        Mark::Fault,
        StackPosition::Anywhere,
        &[
            "kvm_mmu_page_fault",
            "kvm_tdp_page_fault",
            "kvm_faultin_pfn",
            "__kvm_faultin_pfn",
            "kvm_mmu_faultin_pfn",
            "try_async_pf",
            "hva_to_pfn*",
            "handle_mm_fault",
            "__handle_mm_fault",
            "faultin_page",
            "__get_user_pages",
            "do_user_addr_fault",
            "__do_page_fault",
            "exc_page_fault",
            "asm_exc_page_fault",
        ],
    ),
    (
        Mark::DiskCall,
        StackPosition::Anywhere,
        &[
            // The calls, with the names that they had up to 4.16 and from 4.17 on.
            "SyS_io_submit",
            "__x64_sys_io_submit",
            "SyS_pread64",
            "__x64_sys_pread64",
            "SyS_preadv",
            "__x64_sys_preadv*",
            "SyS_pwrite64",
            "__x64_sys_pwrite64",
            "SyS_pwritev",
            "__x64_sys_pwritev*",
            "__x64_sys_io_uring_enter",
            "SyS_fdatasync",
            "__x64_sys_fdatasync",
            "SyS_fsync",
            "__x64_sys_fsync",
            // What waits in them.
            "blk_mq_get_tag",
            "wbt_wait",
            "rq_qos_wait",
            "do_blockdev_direct_IO",
            "__iomap_dio_rw",
            "__blkdev_direct_IO*",
            "submit_bio_wait",
        ],
    ),
    (
        Mark::FileCall,
        StackPosition::Anywhere,
        &["SyS_read", "SyS_write", "ksys_read", "ksys_write"],
    ),
    // From 6.18 on a throttled thread takes itself off its runqueue in work that it does on its way
    // to user space or to the guest (kernel/sched/fair.c). Seen there is `__cond_resched <-
    // task_work_run`, after that work; before 6.18 nothing on the stack tells.
    (Mark::Throttle, StackPosition::Anywhere, &["throttle_cfs_rq_work"]),
    (Mark::TaskWork, StackPosition::Beneath, &["task_work_run"]),
    (
        Mark::PollSleep,
        StackPosition::Anywhere,
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
    (
        Mark::Yield,
        StackPosition::Anywhere,
        &[
            "sys_sched_yield",
            "SyS_sched_yield",
            "__x64_sys_sched_yield",
            "do_sched_yield",
            "yield_to",
            "kvm_vcpu_on_spin",
        ],
    ),
    (
        Mark::ReturnPreempted,
        StackPosition::Innermost,
        &[
            // To the guest, from 5.9 on; up to 5.8 it is `cond_resched`, below.
            "xfer_to_guest_mode_handle_work",
            "xfer_to_guest_mode_work",
            // To user space: 4.x to 5.7; from 5.8 on; from an interrupt; 3.x.
            "exit_to_usermode_loop",
            "exit_to_user_mode_prepare",
            "exit_to_user_mode_loop",
            "irqentry_exit_to_user_mode",
            "syscall_exit_to_user_mode*",
            "retint_user",
            "retint_careful",
            "sysret_careful",
            "int_careful",
        ],
    ),
    (
        Mark::KernelPreempted,
        StackPosition::Innermost,
        &[
            "_cond_resched",
            "__cond_resched",
            "dynamic_cond_resched",
            "preempt_schedule*",
            "raw_irqentry_exit_cond_resched",
            "irqentry_exit_cond_resched",
            "irqentry_exit",
        ],
    ),
    (Mark::OwnWork, StackPosition::Innermost, &["task_work_run", "get_signal", "do_signal"]),
];

/// The scheduler's own functions, and what records them: they say nothing of who called.
const SCHEDULER: &[&str] = &[
    "dump_stack",
    "__schedule",
    "schedule",
    "__traceiter_*",
    "trace_event_raw_event_*",
    "perf_trace_*",
];

fn is_one_of(name: &str, patterns: &[&str]) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == *pattern,
    })
}

/// The function that a stack frame names, or `None` for a frame that proves nothing.
///
/// Takes a bare symbol (`futex_wait`) as well as a line of the kernel's log
/// (`[<ffffffff810ef6fb>] futex_wait+0x1ab/0x2b0`, `kvm_vcpu_ioctl+0x3f7/0x560 [kvm]`). The
/// kernel marks words that merely lie on the stack, left over from earlier calls, with `?`; they
/// are `None`. What the compiler appends to clones (`.isra.0`, `.constprop.0`, `.part.0`) is cut.
#[must_use]
pub fn symbol(frame: &str) -> Option<&str> {
    let frame = frame.trim_start();
    let named = match frame.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((_address, rest)) => rest.trim_start(),
        None => frame,
    };
    if named.starts_with('?') {
        return None;
    }
    let end = named.find(|character: char| "+. \t".contains(character)).unwrap_or(named.len());
    Some(&named[..end]).filter(|name| !name.is_empty())
}

/// What a stack proves, top first; `None` where it has not one usable frame.
#[must_use]
pub fn marks_of<Frame: AsRef<str>>(frames: &[Frame]) -> Option<Marks> {
    let symbols: Vec<&str> = frames.iter().filter_map(|frame| symbol(frame.as_ref())).collect();
    let mut callers = symbols.iter().filter(|name| !is_one_of(name, SCHEDULER));
    let (innermost, beneath) = (callers.next(), callers.next());
    let holds = |place: StackPosition, names: &[&str]| match place {
        StackPosition::Anywhere => symbols.iter().any(|name| is_one_of(name, names)),
        StackPosition::Innermost => innermost.is_some_and(|name| is_one_of(name, names)),
        StackPosition::Beneath => beneath.is_some_and(|name| is_one_of(name, names)),
    };
    let marks = FUNCTIONS.iter().filter(|(_, place, names)| holds(*place, names));
    let bits = marks.fold(0, |bits, (mark, _, _)| bits | 1 << *mark as u32);
    (!symbols.is_empty()).then_some(Marks(bits))
}

/// The kernel stacks of a run, each classified once.
#[derive(Debug, Clone, Default)]
pub struct StackTable {
    stacks: Vec<(Vec<String>, Option<Marks>)>,
}

impl StackTable {
    /// Adds a stack, top first; its [`StackId`] is its place in the table, counted from 0.
    pub fn push(&mut self, frames: Vec<String>) {
        let marks = marks_of(&frames);
        self.stacks.push((frames, marks));
    }

    /// The frames of a stack, top first; none where the table does not have it.
    #[must_use]
    pub fn frames(&self, stack: StackId) -> &[String] {
        self.entry(stack).map_or(&[], |(frames, _)| frames)
    }

    /// What a stack proves; `None` where the table does not have it, or not one frame of it.
    #[must_use]
    pub fn marks(&self, stack: Option<StackId>) -> Option<Marks> {
        self.entry(stack?)?.1
    }

    fn entry(&self, stack: StackId) -> Option<&(Vec<String>, Option<Marks>)> {
        self.stacks.get(usize::try_from(stack.0).ok()?)
    }
}

impl From<Vec<Vec<String>>> for StackTable {
    fn from(stacks: Vec<Vec<String>>) -> Self {
        let mut table = StackTable::default();
        stacks.into_iter().for_each(|frames| table.push(frames));
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(frames: &[&str], mark: Mark) -> bool {
        marks_of(frames).is_some_and(|marks| marks.intersects(Marks::of(&[mark])))
    }

    #[test]
    fn a_stale_word_on_the_stack_proves_nothing() {
        assert!(!has(&["schedule", "? futex_wait_queue_me+0xd8/0x150"], Mark::FutexSleep));
        assert_eq!(marks_of(&["? futex_wait_queue_me+0xd8/0x150"]), None);
    }

    #[test]
    fn what_called_the_scheduler_is_told_from_what_called_that() {
        let returns = ["__schedule", "schedule", "exit_to_user_mode_loop", "do_syscall_64"];
        assert!(has(&returns, Mark::ReturnPreempted));
        // It handled work on its way out, and the work gave way.
        let works = ["__schedule", "task_work_run", "exit_to_user_mode_loop"];
        assert!(has(&works, Mark::OwnWork) && !has(&works, Mark::ReturnPreempted));
    }

    #[test]
    fn a_star_stands_for_the_rest_of_a_name() {
        assert!(is_one_of("folio_wait_bit_common", &["folio_wait_bit*"]));
        assert!(!is_one_of("folio_wait", &["folio_wait_bit*"]));
        assert!(!is_one_of("futex_wait_queue_me", &["futex_wait_queue"]));
    }

    #[test]
    fn symbols() {
        for (frame, expected) in [
            ("futex_wait", Some("futex_wait")),
            ("futex_wait_queue.isra.0+0x10/0x20", Some("futex_wait_queue")),
            ("[<ffffffff810ef4d8>] futex_wait_queue_me+0xd8/0x150", Some("futex_wait_queue_me")),
            ("kvm_vcpu_ioctl+0x3f7/0x560 [kvm]", Some("kvm_vcpu_ioctl")),
            ("[<ffffffff810eef00>] ? get_futex_key+0x2d0/0x2e0", None),
            ("0xffffffff81000000", Some("0xffffffff81000000")),
            ("[", Some("[")),
            ("[]", None),
            ("", None),
        ] {
            assert_eq!(symbol(frame), expected, "{frame:?}");
        }
    }

    #[test]
    fn a_stack_that_is_not_there_proves_nothing() {
        let table = StackTable::from(vec![vec![], vec!["futex_do_wait".to_owned()]]);
        assert_eq!(table.marks(None), None);
        assert_eq!(table.marks(Some(StackId(0))), None);
        assert_eq!(table.marks(Some(StackId(1))), Some(Marks::of(&[Mark::FutexSleep])));
        assert_eq!(table.marks(Some(StackId(3))), None);
        assert_eq!(table.frames(StackId(1)), ["futex_do_wait"]);
        assert!(table.frames(StackId(3)).is_empty());
    }
}
