//! The events and the ring of each pCPU: opening, enabling, reading what was lost.

use super::assemble::RingOrder;
use super::attr::{self, LostCount, Stack};
use super::filter::{self, Numbers};
use super::format::{Detail, DetailFormat, Formats, SwitchFormat, WakingFormat};
use super::ring::Ring;
use super::source::Source;
use super::{RecordError, Tracefs, sys};
use crate::units::{HostNs, PcpuId};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{SysconfVar, sysconf};
use perf_event_open_sys::bindings::perf_event_attr;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub(super) const SWITCH: &str = "sched/sched_switch";
pub(super) const WAKING: &str = "sched/sched_waking";

/// What this machine offers, asked once.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) formats: Formats,
    pub(super) online: BTreeSet<PcpuId>,
    pub(super) frames_max: u16,
    pub(super) lost: LostCount,
    page_bytes: usize,
    /// Tracepoints that were wanted and cannot be had, by group and name.
    pub(super) missing: Vec<&'static str>,
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
        let online = std::fs::read_to_string("/sys/devices/system/cpu/online")
            .and_then(|list| cpu_list(&list).ok_or_else(|| io::ErrorKind::InvalidData.into()))
            .map_err(host("list the online CPUs"))?;
        let page_bytes = sysconf(SysconfVar::PAGE_SIZE)
            .map_err(io::Error::from)
            .and_then(|size| {
                size.and_then(|size| usize::try_from(size).ok())
                    .ok_or_else(|| io::ErrorKind::Unsupported.into())
            })
            .map_err(host("ask for the page size"))?;
        let frames_max = sysctl("perf_event_max_stack").unwrap_or(u16::MAX);
        let lost = lost_count(&online);
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
        Ok(Machine { formats, online, frames_max, lost, page_bytes, missing })
    }

    /// The size of a ring: a power of two of pages, at least `wanted_bytes`.
    pub(super) fn ring_bytes(&self, wanted_bytes: usize) -> usize {
        wanted_bytes.div_ceil(self.page_bytes).max(1).next_power_of_two() * self.page_bytes
    }

    pub(super) fn switch(&self, stack: Stack) -> perf_event_attr {
        attr::tracepoint(self.formats.switch.id, stack, self.lost)
    }

    fn detail(&self, id: u16) -> perf_event_attr {
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

/// `0-3,8` as pCPUs; `None` for anything else.
fn cpu_list(list: &str) -> Option<BTreeSet<PcpuId>> {
    let mut pcpus = BTreeSet::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        pcpus.extend((first..=last).map(PcpuId));
    }
    Some(pcpus)
}

pub(super) fn sysctl<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()?.trim().parse().ok()
}

/// Older kernels refuse an event that asks for what they do not know.
fn lost_count(online: &BTreeSet<PcpuId>) -> LostCount {
    let pcpu = online.first().copied().unwrap_or_default();
    match sys::open(attr::lives(0, LostCount::Readable), pcpu, None) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => LostCount::InRingOnly,
        _ => LostCount::Readable,
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

/// One pCPU's ring and the events that write into it.
#[derive(Debug)]
pub(super) struct PcpuRing {
    pub(super) pcpu: PcpuId,
    pub(super) order: RingOrder,
    pub(super) ring: Ring,
    /// Leads the group of `events` and owns the ring.
    leader: OwnedFd,
    events: Vec<OwnedFd>,
    lost: LostCount,
    /// What events that are closed by now had lost.
    closed_lost_count: u64,
}

impl PcpuRing {
    /// Opens all events of a pCPU, disabled. `opened` counts the machine's events.
    pub(super) fn open(
        machine: &Machine,
        source: &Source,
        watch: &Watch,
        pcpu: PcpuId,
        ring_bytes: usize,
        opened: &mut usize,
    ) -> Result<PcpuRing, RecordError> {
        let leader = sys::open(attr::lives(ring_bytes, machine.lost), pcpu, None)
            .map_err(|error| open_error(error, pcpu, *opened))?;
        *opened += 1;
        let ring = Ring::map(&leader, machine.page_bytes, ring_bytes)
            .map_err(|error| map_error(error, pcpu, ring_bytes))?;
        let mut events = Events {
            pcpu,
            group: Some(leader.as_fd()),
            owner: leader.as_fd(),
            count: opened,
            opened: Vec::new(),
        };
        source.open(machine, watch, &mut events)?;
        for format in &machine.formats.details {
            let filters = match format.detail {
                Detail::Block(_) => filter::disks(&watch.disks),
                _ => filter::current_is(&watch.vcpus),
            };
            events.add(machine.detail(format.id), filters)?;
        }
        Ok(PcpuRing {
            pcpu,
            order: RingOrder::new(pcpu, HostNs(0)),
            ring,
            events: events.opened,
            leader,
            lost: machine.lost,
            closed_lost_count: 0,
        })
    }

    /// Opens the events of threads that were born during the run, and enables them.
    pub(super) fn open_more(
        &self,
        machine: &Machine,
        source: &Source,
        watch: &Watch,
        new: &Numbers,
        opened: &mut usize,
    ) -> Result<Vec<OwnedFd>, RecordError> {
        let owner = self.leader.as_fd();
        let mut events =
            Events { pcpu: self.pcpu, group: None, owner, count: opened, opened: Vec::new() };
        source.open_more(machine, watch, new, &mut events)?;
        for event in &events.opened {
            sys::enable(event.as_fd()).map_err(kernel("enable an event", self.pcpu))?;
        }
        Ok(events.opened)
    }

    /// Enables all events of the group at one instant.
    pub(super) fn enable(&mut self, now: HostNs) -> Result<(), RecordError> {
        self.order = RingOrder::new(self.pcpu, now);
        sys::enable(self.leader.as_fd()).map_err(kernel("enable events", self.pcpu))
    }

    /// Disables all events of the group at one instant.
    pub(super) fn disable(&self) -> Result<(), RecordError> {
        sys::disable(self.leader.as_fd()).map_err(kernel("disable events", self.pcpu))
    }

    /// What `poll(2)` waits for.
    pub(super) fn poll_fd(&self) -> BorrowedFd<'_> {
        self.leader.as_fd()
    }

    /// Takes note of what events had lost that are about to be closed.
    pub(super) fn note_closing(&mut self, events: &[OwnedFd]) {
        if self.lost == LostCount::Readable {
            self.closed_lost_count += events.iter().map(lost_of).sum::<u64>();
        }
    }

    /// Records that were lost without a record in the ring that says so; 0 where the kernel cannot
    /// tell. To be asked after the last drain.
    pub(super) fn untold_lost_count(&self) -> u64 {
        if self.lost == LostCount::InRingOnly {
            return 0;
        }
        let lost: u64 = self.events.iter().map(lost_of).sum();
        let all = lost + lost_of(&self.leader) + self.closed_lost_count;
        all.saturating_sub(self.order.lost_count)
    }
}

/// With PERF_FORMAT_LOST alone, an event reads as its value and its lost records.
fn lost_of(event: &OwnedFd) -> u64 {
    let mut values = [0; 16];
    match nix::unistd::read(event, &mut values) {
        Ok(16) => super::bytes::u64_at(&values, 8).unwrap_or(0),
        _ => 0,
    }
}

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

impl Events<'_> {
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
        let event = sys::open(attr, self.pcpu, self.group)
            .map_err(|error| open_error(error, self.pcpu, *self.count))?;
        if let Some(filter) = filter {
            let set = sys::set_filter(event.as_fd(), filter);
            set.map_err(kernel("set a filter", self.pcpu))?;
        }
        let joined = sys::set_output(event.as_fd(), self.owner);
        joined.map_err(kernel("join a ring", self.pcpu))?;
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

/// Whoever may not mount tracefs could not record with it either.
fn tracefs_error(source: io::Error) -> RecordError {
    match source.kind() {
        io::ErrorKind::PermissionDenied => not_permitted(),
        _ => RecordError::NoTracefs(source),
    }
}

fn not_permitted() -> RecordError {
    RecordError::NotPermitted { paranoid: sysctl("perf_event_paranoid") }
}

/// Only root may look into tracefs, unless somebody has changed its rights.
fn format_error(name: &'static str, source: io::Error) -> RecordError {
    match source.kind() {
        io::ErrorKind::PermissionDenied => not_permitted(),
        _ => RecordError::NoTracepoint { name, source },
    }
}

fn open_error(source: io::Error, pcpu: PcpuId, opened: usize) -> RecordError {
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

fn map_error(source: io::Error, pcpu: PcpuId, ring_bytes: usize) -> RecordError {
    match source.raw_os_error() {
        Some(libc::EPERM) => {
            let mlock_kib = sysctl("perf_event_mlock_kb").unwrap_or(0);
            RecordError::MlockLimit { ring_bytes, pcpu, mlock_kib }
        }
        _ => RecordError::Kernel { doing: "map a ring", pcpu, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_read() {
        let list = |list| cpu_list(list).map(|pcpus| pcpus.iter().map(|pcpu| pcpu.0).collect());
        assert_eq!(list("0-2,8\n"), Some(vec![0, 1, 2, 8]));
        assert_eq!(list("5"), Some(vec![5]));
        assert_eq!(list("x"), None);
    }

    #[test]
    fn whoever_may_not_mount_tracefs_may_not_record() {
        let refused = |errno| tracefs_error(io::Error::from_raw_os_error(errno));
        assert!(matches!(refused(libc::EPERM), RecordError::NotPermitted { .. }));
        assert!(matches!(refused(libc::ENODEV), RecordError::NoTracefs(_)));
    }

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
