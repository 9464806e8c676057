//! What the host's scheduler was seen to do: the events that are recorded, stored and analysed.

use crate::units::{HostNs, PcpuId, Tid};
use vslice_wire::BlockOperation;

/// One recorded event. The events of one pCPU are in order of `time`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostEvent {
    /// When it happened; of a loss, when the loss began.
    pub time: HostNs,
    /// The pCPU on which it was recorded.
    pub pcpu: PcpuId,
    /// What happened.
    pub kind: HostEventKind,
}

/// An index into the run's table of kernel stacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StackId(pub u32);

/// What a [`HostEvent`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostEventKind {
    /// `sched:sched_switch`.
    Switch(Switch),
    /// `sched:sched_waking`: `waker`, running here, wakes `tid`.
    Waking {
        /// The thread that becomes runnable.
        tid: Tid,
        /// The pCPU that it last ran on; the scheduler may choose another one after this event.
        target: PcpuId,
        /// The current task of the recording pCPU; in an interrupt that is whoever was interrupted.
        waker: Tid,
    },
    /// A thread's name, once when it is first seen and again whenever it changes.
    Comm {
        /// The thread.
        tid: Tid,
        /// Its name, at most 15 bytes, control characters replaced.
        comm: String,
    },
    /// The control group that a thread is in, once when it is first seen on a pCPU and again when it
    /// comes onto one and is in another.
    Group {
        /// The thread.
        tid: Tid,
        /// The group's number in the kernel's default hierarchy (`kernfs_node.id`), which is that of
        /// cgroup v2, and the inode number of its directory there.
        group: u64,
    },
    /// A thread was born.
    Fork {
        /// Its process (thread group) id.
        pid: Tid,
        /// Its thread id.
        tid: Tid,
        /// The process that created it.
        parent_pid: Tid,
    },
    /// A thread ended.
    Exit {
        /// The thread.
        tid: Tid,
    },
    /// Events were lost on this pCPU between `time` and `until`.
    Lost {
        /// The end of the interval: the first moment at which recording was known to work again.
        until: HostNs,
        /// How many records the kernel says it dropped.
        count: u64,
    },
    /// What KVM did for a vCPU thread, or for another of the VMM's that interrupts a vCPU.
    Kvm {
        /// The thread, which was running here.
        tid: Tid,
        /// What KVM did.
        event: KvmEvent,
    },
    /// What the block layer did.
    Block(BlockEvent),
}

/// `sched:sched_switch`: `prev` left the pCPU and `next` came on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switch {
    /// The thread that left.
    pub prev: Tid,
    /// The state in which it left.
    pub prev_state: PrevState,
    /// The thread that came on.
    pub next: Tid,
    /// The kernel's priority of `next` (`task_struct.prio`), where it was recorded: below 0 for
    /// deadline tasks, 0 to 99 for real-time tasks and the stopper, 100 to 139 for all others.
    pub next_priority: Option<i16>,
    /// The kernel stack of `prev`, where it was asked for.
    pub stack: Option<StackId>,
    /// The first three arguments of the system call that `prev` was in, where its stack was asked
    /// for and it seemed to be in one: its stack says in which.
    pub call_args: Option<[u64; 3]>,
}

impl Switch {
    /// A switch without stack, priority and call arguments.
    #[must_use]
    pub fn new(prev: Tid, prev_state: PrevState, next: Tid) -> Switch {
        Switch { prev, prev_state, next, next_priority: None, stack: None, call_args: None }
    }
}

/// What KVM did for a vCPU thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvmEvent {
    /// `kvm:kvm_entry`: the guest runs from here on.
    GuestEntry,
    /// `kvm:kvm_exit`: the guest stopped running.
    GuestExit {
        /// Whose numbers `reason` has: `KVM_ISA_VMX` (1) or `KVM_ISA_SVM` (2), `arch/x86/kvm/trace.h`;
        /// others are backends of their own.
        isa: u32,
        /// The hardware's reason.
        reason: u32,
    },
    /// `kvm:kvm_userspace_exit`: the VMM is asked to go on.
    UserspaceExit {
        /// `KVM_EXIT_*` of `include/uapi/linux/kvm.h`.
        reason: u32,
        /// 0, or a negated errno: `-EINTR` (-4) where the VMM kicked the vCPU.
        errno: i32,
    },
    /// `kvm:kvm_vcpu_wakeup`: the guest was halted, and is no longer.
    HaltEnd {
        /// From the start of the halt, in nanoseconds of `CLOCK_MONOTONIC`; polling included.
        halted_ns: u64,
        /// Whether the thread slept: otherwise it polled all the time.
        has_slept: bool,
    },
    /// `kvm:kvm_pio` of an access that the kernel tells before it is served: the guest writes to a
    /// port.
    PortWrite {
        /// Its number.
        port: u16,
    },
    /// `kvm:kvm_pio` of an access that the kernel tells after it was served: the guest has read from
    /// a port (`complete_emulator_pio_in`, arch/x86/kvm/x86.c).
    PortRead {
        /// Its number.
        port: u16,
    },
    /// `kvm:kvm_mmio`: the guest touched memory that a device serves.
    Memory {
        /// The guest-physical address.
        address: u64,
    },
    /// `kvm:kvm_apic_accept_irq`: the current task, which runs no vCPU, interrupts one of its VM. It is told before
    /// the vCPU is woken (`__apic_accept_irq`, arch/x86/kvm/lapic.c).
    Interrupt {
        /// KVM's number of the vCPU (`vcpu_id`), which is its APIC id and need not be QEMU's number of it.
        vcpu: u32,
        /// The vector.
        vector: u8,
    },
}

/// What the block layer did with sectors of 512 bytes of a whole disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockEvent {
    /// What it did.
    pub step: BlockStep,
    /// The current task: the submitter of a bio; in an interrupt that is whoever was interrupted.
    pub tid: Tid,
    /// The disk's `dev_t` as the kernel prints it: major in bits 20 and above, minor below.
    pub device: u32,
    /// The first sector.
    pub sector: u64,
    /// How many sectors.
    pub sectors: u32,
    /// What is done with them; `None` where that was not recorded, and in older runs.
    pub operation: Option<BlockOperation>,
}

/// Which step of an I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockStep {
    /// `block:block_bio_queue`: handed to the block layer.
    Submitted,
    /// `block:block_rq_issue`: handed to the driver.
    Issued,
    /// `block:block_rq_complete`: the driver says that it is done.
    Completed,
}

/// The state in which a thread left its pCPU, from `prev_state` of `sched_switch`
/// (`include/trace/events/sched.h`, `__trace_sched_switch_state`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PrevState {
    /// `R`: still runnable; it was switched out at a scheduling point.
    Runnable,
    /// `R+`: still runnable, preempted inside the kernel.
    RunnablePreempted,
    /// `S`: interruptible sleep.
    Sleep,
    /// `D`: uninterruptible sleep.
    DiskSleep,
    /// `T` or `t`: stopped or traced.
    Stopped,
    /// `X` or `Z`: it has ended.
    Dead,
    /// Any other state (`I`, `P`, ...), by the kernel's bit.
    Other(u16),
}

impl PrevState {
    /// Whether the thread was still runnable: it was preempted or yielded, and did not block.
    #[must_use]
    pub fn is_runnable(self) -> bool {
        matches!(self, PrevState::Runnable | PrevState::RunnablePreempted)
    }
}
