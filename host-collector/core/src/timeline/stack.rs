//! Kernel stacks: which of the functions that matter are on them.

mod functions;

use crate::host_event::StackId;
use functions::{CALL_PREFIXES, FUNCTIONS, Functions, SCHEDULER};

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
    /// It handles a page fault, or does what follows one.
    FaultEntry,
    /// It serves its guest's access to a device's memory.
    Emulation,
    /// It does what was left for its way back to user space or to the guest, or gives way there.
    ReturnWork,
    /// It used more memory than its control group shall.
    MemoryLimit,
    /// It reads, writes or submits I/O.
    DiskCall,
    /// It reads or writes a file that is a device of its own, or the kernel's.
    DeviceFile,
    /// It waits in the block layer.
    DiskWait,
    /// It waits for I/O of an `io_uring`.
    RingWait,
    /// Innermost: a thread of the kernel that works for a VM, and has nothing to do.
    NoWork,
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
    /// It makes what was written to a file durable.
    SyncCall,
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
    /// Anywhere, as a system call: by the name that it has in user space.
    Call,
}

fn is_one_of(name: &str, patterns: &[&str]) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == *pattern,
    })
}

/// Whether a function is one of these system calls.
fn is_call(name: &str, calls: &[&str]) -> bool {
    let called = CALL_PREFIXES.iter().filter_map(|prefix| name.strip_prefix(prefix));
    called.into_iter().any(|call| calls.contains(&call))
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
    let holds = |functions: &&Functions| {
        let names = functions.names;
        match functions.position {
            StackPosition::Anywhere => symbols.iter().any(|name| is_one_of(name, names)),
            StackPosition::Innermost => innermost.is_some_and(|name| is_one_of(name, names)),
            StackPosition::Beneath => beneath.is_some_and(|name| is_one_of(name, names)),
            StackPosition::Call => symbols.iter().any(|name| is_call(name, names)),
        }
    };
    let proven = FUNCTIONS.iter().filter(holds);
    let bits = proven.fold(0, |bits, functions| bits | 1 << functions.mark as u32);
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
