//! The system calls of perf events; each one a thin function with `io::Result`.
#![expect(unsafe_code, reason = "perf events have no safe wrapper: one system call and its ioctls")]

use perf_event_open_sys::bindings::{PERF_FLAG_FD_CLOEXEC, perf_event_attr};
use perf_event_open_sys::{ioctls, perf_event_open};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use vslice_core::units::PcpuId;

/// Opens an event for everything that runs on one pCPU, in the group of `leader` if there is one.
pub(super) fn open(
    mut attr: perf_event_attr,
    pcpu: PcpuId,
    leader: Option<BorrowedFd<'_>>,
) -> io::Result<OwnedFd> {
    let cpu = i32::try_from(pcpu.0).map_err(|_| io::ErrorKind::InvalidInput)?;
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
pub(super) fn set_filter(event: BorrowedFd<'_>, filter: &str) -> io::Result<()> {
    let filter = CString::new(filter)?;
    // SAFETY: the kernel copies a NUL-terminated text, which `filter` is and which outlives the
    // call; it does not write through the pointer (`strndup_user`).
    checked(unsafe { ioctls::SET_FILTER(event.as_raw_fd(), filter.as_ptr().cast_mut()) })
}

/// Makes an event write into another one's ring.
pub(super) fn set_output(event: BorrowedFd<'_>, owner: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both are open descriptors, as their types say; no memory is passed.
    checked(unsafe { ioctls::SET_OUTPUT(event.as_raw_fd(), owner.as_raw_fd()) })
}

/// Enables an event, and with the leader of a group all of it at one instant.
pub(super) fn enable(event: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: it is an open descriptor, as its type says; no memory is passed.
    checked(unsafe { ioctls::ENABLE(event.as_raw_fd(), 0) })
}

/// Disables an event, and with the leader of a group all of it at one instant.
pub(super) fn disable(event: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: it is an open descriptor, as its type says; no memory is passed.
    checked(unsafe { ioctls::DISABLE(event.as_raw_fd(), 0) })
}

fn checked(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
