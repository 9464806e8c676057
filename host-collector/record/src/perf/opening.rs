//! Events of one pCPU: opening them, and what may be refused.

use super::RecordError;
use super::kernel::sysctl;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use perf_event_open_sys::bindings::perf_event_attr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use vslice_core::units::PcpuId;
use vslice_perf::sys;

/// Events of one pCPU that are being opened.
#[derive(Debug)]
pub(super) struct Events<'a> {
    pub(super) pcpu: PcpuId,
    /// Who leads their group, with whom they are enabled; without one they start disabled.
    group: Option<BorrowedFd<'a>>,
    /// Whose ring they write into.
    owner: BorrowedFd<'a>,
    /// The machine's events that are open.
    count: &'a mut usize,
    opened: Vec<OwnedFd>,
}

impl<'a> Events<'a> {
    /// Events that write into the ring of `owner`, in the group of `group` if there is one; `count` is
    /// that of all that are open.
    pub(super) fn new(
        pcpu: PcpuId,
        group: Option<BorrowedFd<'a>>,
        owner: BorrowedFd<'a>,
        count: &'a mut usize,
    ) -> Events<'a> {
        Events { pcpu, group, owner, count, opened: Vec::new() }
    }

    /// All that are kept.
    pub(super) fn opened(self) -> Vec<OwnedFd> {
        self.opened
    }

    /// Opens one event for each filter.
    pub(super) fn add(
        &mut self,
        attr: perf_event_attr,
        filters: Vec<String>,
    ) -> Result<(), RecordError> {
        for filter in filters {
            let event = self.open(attr, Some(&filter))?;
            self.keep(event);
        }
        Ok(())
    }

    /// Opens an event that is yet to be kept.
    pub(super) fn open(
        &self,
        mut attr: perf_event_attr,
        filter: Option<&str>,
    ) -> Result<OwnedFd, RecordError> {
        attr.set_disabled(u64::from(self.group.is_none()));
        let event = sys::open(attr, self.pcpu.0, self.group)
            .map_err(|error| open_error(error, self.pcpu, *self.count))?;
        if let Some(filter) = filter {
            let set = sys::set_filter(event.as_fd(), filter);
            set.map_err(kernel("set a filter", self.pcpu))?;
        }
        let joined = sys::set_output(event.as_fd(), self.owner);
        joined.map_err(kernel("attach to a ring buffer", self.pcpu))?;
        Ok(event)
    }

    /// Keeps an event open.
    pub(super) fn keep(&mut self, event: OwnedFd) {
        self.opened.push(event);
        *self.count += 1;
    }
}

pub(super) fn kernel(doing: &'static str, pcpu: PcpuId) -> impl Fn(io::Error) -> RecordError {
    move |source| RecordError::Kernel { doing, pcpu, source }
}

pub(super) fn not_permitted() -> RecordError {
    RecordError::NotPermitted { paranoid: sysctl("perf_event_paranoid") }
}

pub(super) fn open_error(source: io::Error, pcpu: PcpuId, opened: usize) -> RecordError {
    match Errno::from_raw(source.raw_os_error().unwrap_or(0)) {
        Errno::EPERM | Errno::EACCES => not_permitted(),
        Errno::ENOSYS => RecordError::NoPerf,
        Errno::ENODEV => RecordError::PcpuOffline(pcpu),
        Errno::EMFILE | Errno::ENFILE => {
            let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
            RecordError::TooManyFiles { opened, limit }
        }
        _ => RecordError::Kernel { doing: "open an event", pcpu, source },
    }
}

pub(super) fn map_error(source: io::Error, pcpu: PcpuId, ring_bytes: usize) -> RecordError {
    match source.raw_os_error() {
        Some(libc::EPERM) => {
            let mlock_kib = sysctl("perf_event_mlock_kb").unwrap_or(0);
            RecordError::MlockLimit { ring_bytes, pcpu, mlock_kib }
        }
        _ => RecordError::Kernel { doing: "map a ring buffer", pcpu, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_to_do() {
        let error = |errno| {
            let source = io::Error::from_raw_os_error(errno);
            open_error(source, PcpuId(1), 77).to_string()
        };
        assert!(error(libc::EACCES).contains("CAP_PERFMON"));
        assert!(error(libc::EMFILE).starts_with("too many open files after 77 perf events"));
        assert_eq!(error(libc::ENODEV), "pCPU1 is not online");
        let locked = map_error(io::Error::from_raw_os_error(libc::EPERM), PcpuId(1), 4096);
        assert!(locked.to_string().contains("perf_event_mlock_kb"));
    }
}
