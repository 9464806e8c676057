//! What can go wrong with a workload before or beside its requests, and what to do about it. A read
//! that fails is none of this: it is a recorded result.

use std::io;
use std::path::PathBuf;
use vslice_spec::SpecError;

/// Why a workload cannot start or go on.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are what the messages say they are")]
pub enum WorkloadError {
    /// The plan makes no sense on any machine.
    #[error(transparent)]
    Spec(#[from] SpecError),

    /// A thread cannot be pinned.
    #[error(
        "cannot pin a thread to vCPU{vcpu}: it does not exist, is offline, or is outside this \
        process's cpuset; see /sys/devices/system/cpu/online"
    )]
    Pin { vcpu: u16 },
    /// A hog's thread cannot be started.
    #[error("cannot start the hog of vCPU{vcpu}: raise the limit of threads or memory")]
    SpawnHog { vcpu: u16, source: io::Error },

    /// `auto` found nothing.
    #[error(
        "no disk appeared in {directory} within {waited_s} s: add a disk and its driver, or name the \
        target"
    )]
    NoDisk { directory: PathBuf, waited_s: u64 },
    /// `auto` found more than one.
    #[error("the machine has several disks ({}): name one as the target", names.join(", "))]
    SeveralDisks { names: Vec<String> },

    /// The target is not there.
    #[error("the target {path} does not exist: correct the path, or set create = true")]
    TargetMissing { path: PathBuf },
    /// The target can be neither file nor disk.
    #[error("the target {path} is neither a regular file nor a block device")]
    TargetKind { path: PathBuf },
    /// The target, or its directory, lies in memory.
    #[error("{path} is on tmpfs or ramfs, so reads do not reach a disk: use a target on a disk")]
    TargetInMemory { path: PathBuf },
    /// The kernel does not say something about the target, or does not open it.
    #[error("cannot {action} {path}")]
    Target { action: &'static str, path: PathBuf, source: io::Error },
    /// The file system of the target has no `O_DIRECT`.
    #[error(
        "the file system of {path} does not support O_DIRECT: use a target on ext4, xfs or btrfs, or a \
        block device"
    )]
    NoDirectIo { path: PathBuf },
    /// The target has no room for one read.
    #[error(
        "the target {path} has {target_bytes} bytes, less than one block of {block_bytes}: use a \
        larger target or smaller blocks"
    )]
    TargetTooSmall { path: PathBuf, target_bytes: u64, block_bytes: u32 },
    /// The disk cannot read so little at once.
    #[error(
        "blocks of {block_bytes} bytes are smaller than the logical blocks of {path}, which have \
        {logical_block_bytes}: use at least that block size"
    )]
    BlockTooSmall { path: PathBuf, block_bytes: u32, logical_block_bytes: u32 },
    /// The file system refuses direct reads of this size, and does not say which it would take.
    #[error(
        "{path} cannot be read with O_DIRECT in blocks of {block_bytes} bytes: try 4096 or more"
    )]
    BlockRefused { path: PathBuf, block_bytes: u32 },
    /// Some of the file exists only by name: reading it would reach no disk.
    #[error(
        "the target {path} is sparse or was never written ({data_bytes} of {target_bytes} bytes are \
        data): reads of its holes do not reach the disk; delete it and set create = true, or fill it \
        with dd if=/dev/urandom"
    )]
    Sparse { path: PathBuf, data_bytes: u64, target_bytes: u64 },
    /// The target does not fit its file system.
    #[error(
        "not enough space to create {path}: it needs {needed_bytes} bytes, but its file system has \
        {available_bytes}; free some space, or use a smaller total_bytes"
    )]
    DiskFull { path: PathBuf, needed_bytes: u64, available_bytes: u64 },

    /// The scheduler of a target that is on no disk of this machine.
    #[error(
        "{path} is not on a block device with an I/O scheduler: leave out the scheduler, or use a \
        target on a disk"
    )]
    NoScheduler { path: PathBuf },
    /// The kernel does not take the scheduler.
    #[error(
        "{file} does not accept the I/O scheduler {wanted:?}; it offers: {offered}; load the module of \
        any other one first"
    )]
    Scheduler { file: PathBuf, wanted: String, offered: String, source: io::Error },

    /// There is no `io_uring` here, or none so deep.
    #[error(
        "cannot set up an io_uring of {depth} entries: it needs Linux 5.6, kernel.io_uring_disabled = \
        0 and enough locked memory (ulimit -l); or use the engine psync"
    )]
    IoUringSetup { depth: u16, source: io::Error },
    /// The kernel did not take requests, or did not wait for them.
    #[error("io_uring_enter failed with {in_flight_count} requests in flight")]
    IoUringEnter { in_flight_count: usize, source: io::Error },
}
