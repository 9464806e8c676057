//! Why a thread blocked, from the kernel stack with which it left its pCPU.
//!
//! A first cut: one table of rules, tried from the top, the first match wins.

use super::span::BlockReason;
use crate::host_event::StackId;

/// A reason, and the functions of which any one on the stack proves it.
struct Rule {
    reason: BlockReason,
    any_of: &'static [&'static str],
}

/// The rules, in order of precedence.
const RULES: &[Rule] = &[
    // One function by three names: `futex_wait_queue_me` up to Linux 5.15, `futex_wait_queue` from
    // 5.16, `futex_do_wait` from about 6.16 (seen on 6.18). `futex_wait` and `do_futex` prove
    // nothing: a thread can also be preempted, or fault, in them.
    Rule {
        reason: BlockReason::Futex,
        any_of: &["futex_wait_queue_me", "futex_wait_queue", "futex_do_wait"],
    },
    // `kvm_vcpu_halt` wraps `kvm_vcpu_block` from 5.17 on; before that the latter stands alone.
    Rule { reason: BlockReason::Halt, any_of: &["kvm_vcpu_block", "kvm_vcpu_halt"] },
];

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

/// Why a thread with this kernel stack, top first, was asleep; a stack without a single usable
/// frame is [`BlockReason::Unknown`].
#[must_use]
pub fn reason_of<Frame: AsRef<str>>(frames: &[Frame]) -> BlockReason {
    let symbols = || frames.iter().filter_map(|frame| symbol(frame.as_ref()));
    if symbols().next().is_none() {
        return BlockReason::Unknown;
    }
    RULES
        .iter()
        .find(|rule| symbols().any(|name| rule.any_of.contains(&name)))
        .map_or(BlockReason::Other, |rule| rule.reason)
}

/// The kernel stacks of a run, each classified once.
#[derive(Debug, Clone, Default)]
pub struct StackTable {
    stacks: Vec<(Vec<String>, BlockReason)>,
}

impl StackTable {
    /// Adds a stack, top first; its [`StackId`] is its place in the table, counted from 0.
    pub fn push(&mut self, frames: Vec<String>) {
        let reason = reason_of(&frames);
        self.stacks.push((frames, reason));
    }

    /// The frames of a stack, top first; none where the table does not have it.
    #[must_use]
    pub fn frames(&self, stack: StackId) -> &[String] {
        self.entry(stack).map_or(&[], |(frames, _)| frames)
    }

    /// Why a thread that went to sleep with this stack did so.
    #[must_use]
    pub fn reason(&self, stack: Option<StackId>) -> BlockReason {
        stack
            .and_then(|stack| self.entry(stack))
            .map_or(BlockReason::Unknown, |(_, reason)| *reason)
    }

    fn entry(&self, stack: StackId) -> Option<&(Vec<String>, BlockReason)> {
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

    /// Stacks observed on Linux 6.18 (qemu-kvm-facts.md section 8), 6.1 (labs.md, rung 4) and 3.16
    /// (seed.txt, as printed by `dump_stack`, with its `?` frames).
    const OBSERVED: &[(&str, BlockReason, &str)] = &[
        (
            "6.18, QEMU's big lock",
            BlockReason::Futex,
            "futex_do_wait <- __futex_wait <- futex_wait <- do_futex <- __x64_sys_futex <- \
             do_syscall_64 <- entry_SYSCALL_64_after_hwframe",
        ),
        (
            "6.18, guest halted",
            BlockReason::Halt,
            "kvm_vcpu_block <- kvm_vcpu_halt <- kvm_arch_vcpu_ioctl_run <- kvm_vcpu_ioctl <- \
             __x64_sys_ioctl <- do_syscall_64 <- entry_SYSCALL_64_after_hwframe",
        ),
        (
            "6.18, end of a timeslice",
            BlockReason::Other,
            "xfer_to_guest_mode_handle_work <- kvm_arch_vcpu_ioctl_run <- kvm_vcpu_ioctl <- \
             __x64_sys_ioctl <- do_syscall_64 <- entry_SYSCALL_64_after_hwframe",
        ),
        (
            "6.18, preempted at the end of a system call",
            BlockReason::Other,
            "exit_to_user_mode_loop <- do_syscall_64 <- entry_SYSCALL_64_after_hwframe",
        ),
        (
            "6.18, end of a timeslice under TCG",
            BlockReason::Other,
            "irqentry_exit_to_user_mode <- asm_sysvec_apic_timer_interrupt",
        ),
        ("6.1, QEMU's big lock", BlockReason::Futex, "futex_wait_queue <- futex_wait <- do_futex"),
        (
            "3.16, QEMU's big lock",
            BlockReason::Futex,
            "[] dump_stack+0x64/0x84 <- [] __schedule+0x561/0x900 <- [] schedule+0x29/0x70 <- \
             [] futex_wait_queue_me+0xd8/0x150 <- [] futex_wait+0x1ab/0x2b0 <- \
             [] ? futex_wake+0x80/0x160 <- [] ? __vmx_load_host_state+0x125/0x170 [kvm_intel] <- \
             [] do_futex+0xf5/0xd20 <- [] ? kvm_vcpu_ioctl+0x100/0x560 [kvm] <- \
             [] ? __dequeue_entity+0x30/0x50 <- [] ? do_vfs_ioctl+0x93/0x520 <- \
             [] ? native_write_msr_safe+0xa/0x10 <- [] SyS_futex+0x7d/0x170 <- \
             [] ? fire_user_return_notifiers+0x42/0x50 <- [] ? do_notify_resume+0xc5/0x100 <- \
             [] system_call_fastpath+0x1a/0x1f",
        ),
        (
            "3.16, end of a timeslice",
            BlockReason::Other,
            "[] dump_stack+0x64/0x84 <- [] __schedule+0x561/0x900 <- [] _cond_resched+0x2a/0x40 <- \
             [] kvm_arch_vcpu_ioctl_run+0xf54/0x12d0 [kvm] <- [] ? futex_wake+0x80/0x160 <- \
             [] ? kvm_arch_vcpu_load+0x4e/0x1b0 [kvm] <- [] kvm_vcpu_ioctl+0x3f7/0x560 [kvm] <- \
             [] ? __dequeue_entity+0x30/0x50 <- [] ? __switch_to+0x596/0x690 <- \
             [] do_vfs_ioctl+0x93/0x520 <- [] ? SyS_futex+0x7d/0x170 <- [] SyS_ioctl+0xa1/0xb0 <- \
             [] system_call_fastpath+0x1a/0x1f",
        ),
    ];

    #[test]
    fn observed_stacks() {
        for (what, expected, stack) in OBSERVED {
            let frames: Vec<&str> = stack.split(" <- ").collect();
            assert_eq!(reason_of(&frames), *expected, "{what}");
        }
    }

    #[test]
    fn a_stale_word_on_the_stack_proves_nothing() {
        assert_eq!(
            reason_of(&["schedule", "? futex_wait_queue_me+0xd8/0x150"]),
            BlockReason::Other
        );
        assert_eq!(reason_of(&["? futex_wait_queue_me+0xd8/0x150"]), BlockReason::Unknown);
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
    fn no_stack_is_unknown() {
        let table = StackTable::from(vec![
            vec![],
            vec!["futex_do_wait".to_owned()],
            vec!["io_schedule".to_owned()],
        ]);
        assert_eq!(table.reason(None), BlockReason::Unknown);
        assert_eq!(table.reason(Some(StackId(0))), BlockReason::Unknown);
        assert_eq!(table.reason(Some(StackId(1))), BlockReason::Futex);
        assert_eq!(table.reason(Some(StackId(2))), BlockReason::Other);
        assert_eq!(table.reason(Some(StackId(3))), BlockReason::Unknown);
        assert_eq!(table.frames(StackId(1)), ["futex_do_wait"]);
        assert!(table.frames(StackId(3)).is_empty());
    }
}
