//! The system calls of perf events; each one a thin function with `io::Result`.
#![expect(
    unsafe_code,
    reason = "perf events have no safe wrapper: one system call and its ioctls; nor has membarrier(2)"
)]

use perf_event_open_sys::bindings::{PERF_FLAG_FD_CLOEXEC, perf_event_attr};
use perf_event_open_sys::{ioctls, perf_event_open};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Opens an event for everything that runs on one of the kernel's CPUs, in the group of `leader` if there is
/// one.
///
/// # Errors
/// What the kernel says, `perf_event_open(2)`.
pub fn open(
    mut attr: perf_event_attr,
    cpu: u32,
    leader: Option<BorrowedFd<'_>>,
) -> io::Result<OwnedFd> {
    let cpu = i32::try_from(cpu).map_err(|_| io::ErrorKind::InvalidInput)?;
    let group = leader.map_or(-1, |leader| leader.as_raw_fd());
    // SAFETY: `attr` is a live, initialised struct that says its own size; the kernel may write
    // into it, and asking for events on a pCPU changes no memory of this process.
    let fd = unsafe { perf_event_open(&raw mut attr, -1, cpu, group, PERF_FLAG_FD_CLOEXEC.into()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above has just returned this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets only those occurrences of a tracepoint through that the filter matches.
///
/// # Errors
/// When it does not understand the filter, or the event has one already.
pub fn set_filter(event: BorrowedFd<'_>, filter: &str) -> io::Result<()> {
    let filter = CString::new(filter)?;
    // SAFETY: the kernel copies a NUL-terminated text, which `filter` is and which outlives the
    // call; it does not write through the pointer (`strndup_user`).
    checked(unsafe { ioctls::SET_FILTER(event.as_raw_fd(), filter.as_ptr().cast_mut()) })
}

/// Makes an event write into another one's ring.
///
/// # Errors
/// When they are not of one CPU, or the other has no ring.
pub fn set_output(event: BorrowedFd<'_>, owner: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both are open descriptors, as their types say; no memory is passed.
    checked(unsafe { ioctls::SET_OUTPUT(event.as_raw_fd(), owner.as_raw_fd()) })
}

/// Enables an event, and with the leader of a group all of it at one instant.
///
/// # Errors
/// What the kernel says.
pub fn enable(event: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: it is an open descriptor, as its type says; no memory is passed.
    checked(unsafe { ioctls::ENABLE(event.as_raw_fd(), 0) })
}

/// Disables an event, and with the leader of a group all of it at one instant.
///
/// # Errors
/// What the kernel says.
pub fn disable(event: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: it is an open descriptor, as its type says; no memory is passed.
    checked(unsafe { ioctls::DISABLE(event.as_raw_fd(), 0) })
}

fn checked(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// For how many ns this event has been enabled, where it was opened to tell that alone; it stands still when its
/// CPU has gone offline, and does so for good.
#[must_use]
pub fn enabled_ns_of(event: &OwnedFd) -> Option<u64> {
    second_number_of(event)
}

/// How many records of this event found no room, where it was opened to tell (`attr::LostCount`).
#[must_use]
pub fn lost_of(event: &OwnedFd) -> u64 {
    second_number_of(event).unwrap_or(0)
}

/// What an event has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventCount {
    /// How often it was let through by its filter, with a record or without.
    pub value: u64,
    /// How many of these found no room for a record; `None` where it was not opened to tell (`attr::LostCount`).
    pub lost: Option<u64>,
}

/// What this event has counted so far, also if its CPU has gone offline since; `None` where it cannot be read. Each
/// reading interrupts the event's CPU while it is enabled (linux: kernel/events/core.c, `perf_event_read`).
#[must_use]
pub fn count_of(event: &OwnedFd) -> Option<EventCount> {
    let mut values = [0; 16];
    let length = nix::unistd::read(event, &mut values).ok()?;
    let value = crate::bytes::u64_at(values.get(..length)?, 0)?;
    Some(EventCount { value, lost: crate::bytes::u64_at(values.get(..length)?, 8) })
}

/// Waits until whatever wrote a record when this was called has written it, on all CPUs; whether the kernel can. An
/// interrupt may disable an event between its count and its record.
///
/// It waits for all code that may not be preempted, as handlers of tracepoints (linux: kernel/sched/membarrier.c,
/// `MEMBARRIER_CMD_GLOBAL` calls `synchronize_rcu`, before 4.20 `synchronize_sched`). A kernel with `nohz_full`
/// refuses it.
#[must_use]
pub fn wait_for_writers() -> bool {
    /// Until Linux 4.16 it was called `MEMBARRIER_CMD_SHARED`.
    const GLOBAL: libc::c_int = 1;
    const NO_FLAGS: libc::c_int = 0;
    // SAFETY: this command reads and writes no memory of the process; it takes two integers, as given.
    unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, NO_FLAGS) == 0 }
}

/// With PERF_FORMAT_LOST or PERF_FORMAT_TOTAL_TIME_ENABLED alone, an event reads as its value and that.
fn second_number_of(event: &OwnedFd) -> Option<u64> {
    let mut values = [0; 16];
    match nix::unistd::read(event, &mut values) {
        Ok(16) => crate::bytes::u64_at(&values, 8),
        _ => None,
    }
}
