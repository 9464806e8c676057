//! What is asked of `perf_event_open(2)`, as plain attributes. Pure.
//!
//! All events of a ring write samples of one layout, so that a record says by itself what it is:
//! the raw data begins with the tracepoint's id, and an event without a stack asks for a callchain
//! from which both halves are excluded, which is a count of 0 (as large as an event id would be).
//! Only events with a stack ask for user registers; they come last, so that a record which ends
//! with its raw data has none.
//!
//! Nothing is asked for that is known otherwise, since each field costs the thread that is recorded:
//! the pCPU is the ring's, and the threads are in the tracepoint's own data.

use super::registers;
use perf_event_open_sys::bindings::{
    PERF_COUNT_SW_BPF_OUTPUT, PERF_COUNT_SW_DUMMY, PERF_SAMPLE_CALLCHAIN, PERF_SAMPLE_RAW,
    PERF_SAMPLE_REGS_USER, PERF_TYPE_SOFTWARE, PERF_TYPE_TRACEPOINT, perf_event_attr,
};
use vslice_perf::attr::{LostCount, stamped, wake_at_a_quarter};

/// Frames of a kernel stack at most; the innermost are kept. What tells why a vCPU thread sleeps is mostly
/// within the first ten (`futex_wait`, `kvm_vcpu_block`). But a page fault that has to reclaim memory, or waits
/// for a file system's journal, sleeps below 30 other functions: without the fault's own, such a wait would
/// be told as the thread's own disk I/O. Frames that are not there cost nothing.
const STACK_FRAMES_MAX: u16 = 64;

/// Whether a sample has the kernel stack of the current task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stack {
    /// With the innermost frames, at most `frames_max` as the machine allows, and with the user
    /// registers that hold a system call's arguments.
    Kernel {
        /// `/proc/sys/kernel/perf_event_max_stack`; more is refused.
        frames_max: u16,
    },
    /// With none.
    None,
}

/// Whether a ring gets a record of each control group that is made (since 5.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GroupBirths {
    /// It does.
    Recorded,
    /// It does not.
    NotRecorded,
}

/// The event that owns a ring: it counts nothing, but its ring gets the records of births, deaths
/// and new names of threads. It starts disabled, and all events grouped under it with it.
pub(super) fn lives(ring_bytes: usize, lost: LostCount, groups: GroupBirths) -> perf_event_attr {
    let mut attr = stamped(lost);
    attr.type_ = PERF_TYPE_SOFTWARE;
    attr.config = PERF_COUNT_SW_DUMMY.into();
    attr.set_disabled(1);
    attr.set_comm(1);
    attr.set_task(1);
    attr.set_cgroup((groups == GroupBirths::Recorded).into());
    // One wake-up a quarter, the reader's timeout does the rest.
    wake_at_a_quarter(&mut attr, ring_bytes);
    attr
}

/// Every occurrence of a tracepoint that its filter lets through.
pub(super) fn tracepoint(id: u16, stack: Stack, lost: LostCount) -> perf_event_attr {
    let mut attr = samples(stack, lost);
    attr.type_ = PERF_TYPE_TRACEPOINT;
    attr.config = id.into();
    if registers::MASK != 0 && stack != Stack::None {
        attr.sample_type |= u64::from(PERF_SAMPLE_REGS_USER);
        attr.sample_regs_user = registers::MASK;
    }
    attr
}

/// What a BPF program writes; it writes user registers itself, which costs less than to ask perf.
pub(super) fn program_output(stack: Stack, lost: LostCount) -> perf_event_attr {
    let mut attr = samples(stack, lost);
    attr.type_ = PERF_TYPE_SOFTWARE;
    attr.config = PERF_COUNT_SW_BPF_OUTPUT.into();
    attr
}

fn samples(stack: Stack, lost: LostCount) -> perf_event_attr {
    let mut attr = stamped(lost);
    attr.sample_period = 1;
    attr.sample_type |= u64::from(PERF_SAMPLE_CALLCHAIN | PERF_SAMPLE_RAW);
    attr.set_exclude_callchain_user(1);
    match stack {
        Stack::Kernel { frames_max } => {
            attr.sample_max_stack = frames_max.min(STACK_FRAMES_MAX);
        }
        Stack::None => attr.set_exclude_callchain_kernel(1),
    }
    attr
}
