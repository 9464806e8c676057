//! How the calling thread is scheduled: the calls that nix does not wrap.
#![expect(unsafe_code, reason = "sched_setscheduler, sched_setattr and setpriority by libc")]

use nix::errno::Errno;

/// The highest weight that a normal thread can have, setpriority(2).
pub const NICE_MIN: i32 = -20;

/// The shortest slice that the kernel accepts: 0.1 ms (linux: kernel/sched/fair.c,
/// `__setparam_fair` clamps to it since 6.12).
pub const SLICE_NS_MIN: u64 = 100_000;

/// Makes the calling thread `SCHED_FIFO` of this priority, in [1, 99].
///
/// # Errors
/// `EPERM` without `CAP_SYS_NICE`, or in a cgroup (v1 `cpu` with `CONFIG_RT_GROUP_SCHED`) that
/// has no realtime of its own: linux, kernel/sched/syscalls.c, `rt_bandwidth_enabled()`.
pub fn become_fifo(priority: i32) -> Result<(), Errno> {
    let param = libc::sched_param { sched_priority: priority };
    // SAFETY: `param` is a whole sched_param that outlives the call, which only reads it.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const param) };
    Errno::result(result).map(drop)
}

/// Gives the calling thread this nice value and asks for this slice.
///
/// Linux before 6.12 takes no slice from a normal thread and ignores the number.
///
/// # Errors
/// `EPERM` without `CAP_SYS_NICE` for a negative nice value.
pub fn become_normal(nice: i32, slice_ns: u64) -> Result<(), Errno> {
    let attributes = SchedAttr {
        size: 48,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: nice,
        sched_priority: 0,
        sched_runtime: slice_ns,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: `attributes` has the 48 bytes that its `size` says and the layout of
    // linux/sched/types.h; it outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(&attributes), 0) };
    Errno::result(result).map(drop)
}

/// `struct sched_attr` in its first version, `SCHED_ATTR_SIZE_VER0` of 48 bytes.
#[repr(C)]
struct SchedAttr {
    size: u32,
    sched_policy: u32,
    sched_flags: u64,
    sched_nice: i32,
    sched_priority: u32,
    sched_runtime: u64,
    sched_deadline: u64,
    sched_period: u64,
}
