//! What this machine offers, and who is to be recorded on it.

use super::attr::{self, GroupBirths, Stack};
use super::format::{Detail, DetailFormat, Formats, SwitchFormat, WakingFormat};
use super::kernel::sysctl;
use super::opening::not_permitted;
use super::{RecordError, Tracefs};
use perf_event_open_sys::bindings::perf_event_attr;
use std::collections::BTreeSet;
use std::io;
use vslice_core::units::PcpuId;
use vslice_host::control_groups::GroupNames;
use vslice_perf::attr::LostCount;
use vslice_perf::filter::Numbers;
use vslice_perf::{online, sys};

pub(super) const SWITCH: &str = "sched/sched_switch";
pub(super) const WAKING: &str = "sched/sched_waking";

/// What this machine offers, asked once.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) formats: Formats,
    pub(super) online: BTreeSet<PcpuId>,
    pub(super) frames_max: u16,
    pub(super) lost: LostCount,
    pub(super) page_bytes: usize,
    /// Tracepoints that were wanted and cannot be had, by group and name.
    pub(super) missing: Vec<&'static str>,
    /// The control groups; else why they cannot be told.
    pub(super) groups: Result<GroupNames, String>,
}

impl Machine {
    /// Asks, among other things, for the formats of the details that are wanted.
    pub(super) fn ask(wanted: &[Detail]) -> Result<Machine, RecordError> {
        check_pid_namespace()?;
        let tracefs = Tracefs::find().map_err(tracefs_error)?;
        let text = |name| tracefs.format(name).map_err(|source| format_error(name, source));
        let bad = |name| move |what| RecordError::BadFormat { name, what };
        let switch = SwitchFormat::parse(&text(SWITCH)?).map_err(bad(SWITCH))?;
        let waking = WakingFormat::parse(&text(WAKING)?).map_err(bad(WAKING))?;
        let host = |doing| move |source| RecordError::Host { doing, source };
        let online = online::cpus().map_err(host("list the online CPUs"))?;
        let online: BTreeSet<PcpuId> = online.into_iter().map(PcpuId).collect();
        let page_bytes = online::page_bytes().map_err(host("ask for the page size"))?;
        let frames_max = sysctl("perf_event_max_stack").unwrap_or(u16::MAX);
        let lost = LostCount::ask(first(&online));
        let (mut details, mut missing) = (Vec::new(), Vec::new());
        for &detail in wanted {
            let text = tracefs.format(detail.name()).map_err(|error| error.to_string());
            match text.and_then(|text| DetailFormat::parse(detail, &text)) {
                Ok(format) => details.push(format),
                // The KVM modules need not be loaded, say. The recording goes without.
                Err(_) => missing.push(detail.name()),
            }
        }
        // Without what says when the VMM is asked, its time would be told as KVM's.
        let has = |detail| details.iter().any(|format: &DetailFormat| format.detail == detail);
        if !has(Detail::UserspaceExit) {
            details.retain(|format| !Detail::EXITS.contains(&format.detail));
        }
        let formats = Formats { switch, waking, details };
        let groups = GroupNames::of_host().map(|names| match births(&online, lost) {
            GroupBirths::Recorded => names,
            GroupBirths::NotRecorded => names.without_births(),
        });
        Ok(Machine { formats, online, frames_max, lost, page_bytes, missing, groups })
    }

    /// The size of a ring: a power of two of pages, at least `wanted_bytes`.
    pub(super) fn ring_bytes(&self, wanted_bytes: usize) -> usize {
        wanted_bytes.div_ceil(self.page_bytes).max(1).next_power_of_two() * self.page_bytes
    }

    pub(super) fn switch(&self, stack: Stack) -> perf_event_attr {
        attr::tracepoint(self.formats.switch.id, stack, self.lost)
    }

    pub(super) fn detail(&self, id: u16) -> perf_event_attr {
        attr::tracepoint(id, Stack::None, self.lost)
    }

    pub(super) fn waking(&self) -> perf_event_attr {
        attr::tracepoint(self.formats.waking.id, Stack::None, self.lost)
    }
}

/// Records of births have pids of the reader's namespace, tracepoints those of the initial one.
fn check_pid_namespace() -> Result<(), RecordError> {
    // PROC_PID_INIT_INO in include/linux/proc_ns.h
    const INITIAL: &str = "pid:[4026531836]";
    match std::fs::read_link("/proc/self/ns/pid") {
        Ok(link) if link.as_os_str() != INITIAL => Err(RecordError::PidNamespace),
        _ => Ok(()),
    }
}

fn first(online: &BTreeSet<PcpuId>) -> u32 {
    online.first().copied().unwrap_or_default().0
}

/// Older kernels refuse an event that asks for control groups that are made (since 5.7).
fn births(online: &BTreeSet<PcpuId>, lost: LostCount) -> GroupBirths {
    match sys::open(attr::lives(0, lost, GroupBirths::Recorded), first(online), None) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => GroupBirths::NotRecorded,
        _ => GroupBirths::Recorded,
    }
}

/// Who is recorded.
#[derive(Debug, Clone, Default)]
pub(super) struct Watch {
    /// The vCPU threads; all of them are among `stacked`.
    pub(super) vcpus: Numbers,
    /// The threads whose kernel stacks are recorded where they leave; all of them are among
    /// `threads`.
    pub(super) stacked: Numbers,
    /// All threads of the VMs.
    pub(super) threads: Numbers,
    /// The disks, as `dev_t` in the kernel's own form, whose I/O is recorded.
    pub(super) disks: Numbers,
    /// The pCPUs where every switch is recorded.
    pub(super) pcpus: Numbers,
}

impl Watch {
    /// The threads of the VMs that run no vCPU and were there at the start. What a vCPU's own does are timers and
    /// interrupts between vCPUs; who is born later in QEMU is a worker, which interrupts nobody (util/thread-pool.c
    /// of 7.2: its I/O is completed in the thread that asked for it), and there may be many.
    pub(super) fn interrupters(&self) -> Numbers {
        &self.threads - &self.vcpus
    }
}

/// Whoever may not mount tracefs could not record with it either.
fn tracefs_error(source: io::Error) -> RecordError {
    match source.kind() {
        io::ErrorKind::PermissionDenied => not_permitted(),
        _ => RecordError::NoTracefs(source),
    }
}

/// Only root may look into tracefs, unless somebody has changed its rights.
fn format_error(name: &'static str, source: io::Error) -> RecordError {
    match source.kind() {
        io::ErrorKind::PermissionDenied => not_permitted(),
        _ => RecordError::NoTracepoint { name, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_may_not_mount_tracefs_may_not_record() {
        let refused = |errno| tracefs_error(io::Error::from_raw_os_error(errno));
        assert!(matches!(refused(libc::EPERM), RecordError::NotPermitted { .. }));
        assert!(matches!(refused(libc::ENODEV), RecordError::NoTracefs(_)));
    }
}
