//! What an agent that observes says of the block requests of its guest's kernel.

use crate::{Dropped, GuestTicks};

/// What a block request does (linux: include/linux/blk_types.h, `enum req_op`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlockOperation {
    /// It reads.
    Read,
    /// It writes.
    Write,
    /// It asks the disk to make durable what it has written; it has no sectors.
    Flush,
    /// It gives sectors back.
    Discard,
    /// Anything else: writes of zeroes, secure erasure, what zoned disks do.
    Other,
}

impl BlockOperation {
    /// Every operation; its place here is its number on the socket and in a run directory.
    pub const ALL: [BlockOperation; 5] =
        [Self::Read, Self::Write, Self::Flush, Self::Discard, Self::Other];

    /// Its place in [`BlockOperation::ALL`].
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Read => 0,
            Self::Write => 1,
            Self::Flush => 2,
            Self::Discard => 3,
            Self::Other => 4,
        }
    }

    /// See [`ObservedRequest::is_sync`].
    #[must_use]
    pub fn is_sync(self, flags: ObservedFlags) -> bool {
        let marks = [ObservedFlags::SYNC, ObservedFlags::FUA, ObservedFlags::PREFLUSH];
        match self {
            Self::Read | Self::Flush => true,
            Self::Write | Self::Discard | Self::Other => {
                marks.into_iter().any(|mark| flags.contains(mark))
            }
        }
    }

    /// The operation of this number.
    #[must_use]
    pub fn of_number(number: u64) -> Option<BlockOperation> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }
}

/// What else is known of an observed request: a set of the constants below. Bits that are none of
/// them mean nothing, and are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ObservedFlags(pub u16);

impl ObservedFlags {
    /// Somebody waits for it (`REQ_SYNC`).
    pub const SYNC: ObservedFlags = ObservedFlags(1);
    /// It is for a file system's own data (`REQ_META`).
    pub const META: ObservedFlags = ObservedFlags(1 << 1);
    /// It is done only when what it wrote is durable (`REQ_FUA`).
    pub const FUA: ObservedFlags = ObservedFlags(1 << 2);
    /// What was written before it is made durable first (`REQ_PREFLUSH`).
    pub const PREFLUSH: ObservedFlags = ObservedFlags(1 << 3);
    /// Nobody has asked for it yet (`REQ_RAHEAD`).
    pub const READ_AHEAD: ObservedFlags = ObservedFlags(1 << 4);
    /// The kernel made it of several; the first of them says when it was queued, and by whom.
    pub const MERGED: ObservedFlags = ObservedFlags(1 << 5);
    /// Its driver gave it back, and got it again; issued is the last time.
    pub const REQUEUED: ObservedFlags = ObservedFlags(1 << 6);
    /// Events fit more than one request, so that some of what is said of it (when it was queued, issued or
    /// completed, where, by whom, and with which result) may be of another, or of none. Another of the same
    /// operation and sectors waited or was in flight with it, or it is a flush, or a write with one before or
    /// after it, and which flush of the queue served it is not certain.
    pub const AMBIGUOUS: ObservedFlags = ObservedFlags(1 << 7);
    /// Another for some of its sectors was in flight meanwhile.
    pub const OVERLAPPED: ObservedFlags = ObservedFlags(1 << 8);
    /// When it was queued was not seen: it counts as queued when it was issued.
    pub const NO_QUEUE_TIME: ObservedFlags = ObservedFlags(1 << 9);

    /// Whether all of `flags` are set.
    #[must_use]
    pub fn contains(self, flags: ObservedFlags) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// These flags and those.
    #[must_use]
    pub fn with(self, flags: ObservedFlags) -> ObservedFlags {
        ObservedFlags(self.0 | flags.0)
    }
}

/// A block request of the guest's kernel, whoever made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObservedRequest {
    /// The number of its disk, as [`ObservedDevice`] says it.
    pub device: u16,
    /// What it does.
    pub operation: BlockOperation,
    /// What else is known of it.
    pub flags: ObservedFlags,
    /// The first of its sectors of 512 bytes, on the whole disk; 0 for a flush.
    pub sector: u64,
    /// Its length in bytes; 0 for a flush.
    pub bytes: u32,
    /// When the guest's kernel was asked for it.
    pub queued: GuestTicks,
    /// When the guest's kernel handed it to the disk's driver.
    pub issued: GuestTicks,
    /// When the driver had seen that it is done.
    pub completed: GuestTicks,
    /// The vCPU that asked for it.
    pub vcpu_queued: u16,
    /// The vCPU that handed it over.
    pub vcpu_issued: u16,
    /// The vCPU that saw that it is done.
    pub vcpu_completed: u16,
    /// The number of who asked for it, as [`ObservedTask`] says it.
    pub task: u32,
    /// 0, or the negated errno.
    pub result: i32,
}

impl ObservedRequest {
    /// Whether somebody waits for it, by the kernel's own rule (linux: include/linux/blk_types.h,
    /// `op_is_sync`): reads and flushes, and whatever is marked so. What is not is written back later.
    #[must_use]
    pub fn is_sync(&self) -> bool {
        self.operation.is_sync(self.flags)
    }

    /// Whether what is said of it rests on the ends of others, too, so that it may be wrong where some of these were
    /// hidden ([`ObservedHidden`]): it cannot be told from another, or it is a flush, or has one before or after it.
    #[must_use]
    pub fn rests_on_others(&self) -> bool {
        let marks = [ObservedFlags::AMBIGUOUS, ObservedFlags::PREFLUSH, ObservedFlags::FUA];
        self.operation == BlockOperation::Flush
            || marks.into_iter().any(|mark| self.flags.contains(mark))
    }
}

/// Observed requests of one frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedBlock {
    /// Every request that was queued before this has been told, or is lost.
    pub settled: GuestTicks,
    /// In order of completion; at most [`OBSERVED_MAX`](crate::OBSERVED_MAX).
    pub requests: Vec<ObservedRequest>,
}

/// On which vCPU the guest's kernel completes the requests of a disk, which need not be the one that took the
/// interrupt (linux: block/blk-mq.c, `blk_mq_complete_need_ipi`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CompletionVcpu {
    /// That cannot be read.
    #[default]
    Unknown,
    /// On the one that took the interrupt.
    Interrupted,
    /// On the one that took the interrupt, or on the one that asked for the request, which the first sends it to.
    InterruptedOrQueued,
    /// On the one that asked for the request, whichever took the interrupt.
    Queued,
}

impl CompletionVcpu {
    /// All there are, in the order of their numbers.
    pub const ALL: [CompletionVcpu; 4] = [
        CompletionVcpu::Unknown,
        CompletionVcpu::Interrupted,
        CompletionVcpu::InterruptedOrQueued,
        CompletionVcpu::Queued,
    ];
}

/// A whole disk whose requests are observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedDevice {
    /// What requests call it.
    pub number: u16,
    /// The guest's name for it: `vda`.
    pub name: String,
    /// The upper part of its device number.
    pub major: u32,
    /// The lower part.
    pub minor: u32,
    /// Its size in bytes; 0 if that cannot be read.
    pub size_bytes: u64,
    /// Its serial number; empty if the guest sees none.
    pub serial: String,
    /// Where it is on the guest's bus, `0000:00:05.0` for instance; empty if that cannot be read.
    pub address: String,
    /// The I/O scheduler of its queue when observing of it began; empty if that cannot be read.
    pub io_scheduler: String,
    /// How many hardware queues it has; 0 if that cannot be read.
    pub hardware_queues: u16,
    /// Where its requests are completed.
    pub completion_vcpu: CompletionVcpu,
}

/// Who asks for requests: a process under one of its threads' names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedTask {
    /// What requests call it.
    pub number: u32,
    /// Its process id in the guest; 0 for the kernel's idle tasks.
    pub pid: u32,
    /// The thread's name (`comm`).
    pub name: String,
    /// What the process calls itself (`/proc/PID/cmdline`); empty if that is not known.
    pub title: String,
}

/// Requests of one disk and operation, and alike in [`ObservedRequest::is_sync`], that were faster than
/// asked for, and so were only counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObservedOthers {
    /// The number of their disk.
    pub device: u16,
    /// What they do.
    pub operation: BlockOperation,
    /// Whether somebody waits for them.
    pub is_sync: bool,
    /// How many there were so far.
    pub count: u64,
    /// How many bytes they had.
    pub bytes: u64,
    /// How long they took together, from queued to completed, in units of [`GuestTicks`].
    pub total_ticks: u64,
}

/// What observing has cost the guest so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ObservedCost {
    /// The agent's time on vCPUs. What the kernel takes to record is not in it.
    pub cpu_ns: u64,
    /// Events that the kernel recorded.
    pub events_count: u64,
    /// Events that it had no room for.
    pub lost_count: u64,
    /// What one reading of the clock took, at best.
    pub clock_read_ns: u64,
}

/// Whether the disk's driver has a request that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObservedIssue {
    /// It waits in the guest's own queue.
    NotYet,
    /// It was issued then.
    At(GuestTicks),
    /// No event says so: it is a flush, or a write that has a flush before it.
    Unknown,
}

/// Requests of one disk and operation, and alike in [`ObservedRequest::is_sync`], that were under way when
/// observing ended. What was asked for and is no request yet counts as it was asked for: one request may be
/// made of several of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObservedUnderWay {
    /// The number of their disk.
    pub device: u16,
    /// What they do.
    pub operation: BlockOperation,
    /// Whether somebody waits for them.
    pub is_sync: bool,
    /// How many there were.
    pub count: u64,
    /// The first sector of the one that was queued first, as [`ObservedRequest::sector`] says it.
    pub sector: u64,
    /// Its length in bytes; 0 for a flush.
    pub bytes: u32,
    /// Who asked for it.
    pub task: u32,
    /// When it was queued.
    pub queued: GuestTicks,
    /// Whether the driver has it.
    pub issue: ObservedIssue,
}

/// Events that the guest's kernel has counted, of which perf has had no record and was told no loss, by what they
/// tell: some kernels record nothing of what happens while certain tasks are current, the idle task for instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ObservedHidden {
    /// That a request was asked for.
    pub queued_count: u64,
    /// That the driver got one.
    pub issued_count: u64,
    /// That one, or a part of it, was done.
    pub completed_count: u64,
    /// That one was sent on, refused or given back.
    pub others_count: u64,
    /// Whether that is all; else it is as many at least, as the rest may have been lost, or cannot be read.
    pub is_exact: bool,
}

/// What is left to say when nothing more is observed. An agent whose observing has failed does not say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedEnd {
    /// When observing ended: of what was queued or completed later, not all is told.
    pub at: GuestTicks,
    /// Requests that were under way when it began, and are not told.
    pub earlier_count: u64,
    /// Requests that are no block I/O, and are not told: commands of SCSI and NVMe, for instance.
    pub passthrough_count: u64,
    /// Events that came after later ones had been handled; what they may have been of is lost.
    pub late_count: u64,
    /// What of all that nobody was told.
    pub hidden: ObservedHidden,
    /// What was under way when it ended, and neither told nor lost before; at most
    /// [`OBSERVED_UNDER_WAY_MAX`](crate::OBSERVED_UNDER_WAY_MAX).
    pub under_way: Vec<ObservedUnderWay>,
}

/// What a guest says of its block requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observed {
    /// Disks, each before its first request; at most [`OBSERVED_DEVICES_MAX`](crate::OBSERVED_DEVICES_MAX).
    Devices(Vec<ObservedDevice>),
    /// Who asks, each before its first request; at most [`OBSERVED_TASKS_MAX`](crate::OBSERVED_TASKS_MAX).
    /// A later one of the same number says more of it.
    Tasks(Vec<ObservedTask>),
    /// See [`ObservedBlock`].
    Requests(ObservedBlock),
    /// What was counted so far, from the beginning; at most
    /// [`OBSERVED_OTHERS_MAX`](crate::OBSERVED_OTHERS_MAX).
    Others(Vec<ObservedOthers>),
    /// Requests, or their parts, that were not recorded in this time; its count is that of events.
    Lost(Dropped),
    /// See [`ObservedCost`].
    Cost(ObservedCost),
    /// See [`ObservedEnd`].
    End(ObservedEnd),
}
