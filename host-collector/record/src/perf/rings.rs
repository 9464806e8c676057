//! The events and the ring of each pCPU: opening, enabling, reading what was lost.

use super::RecordError;
use super::assemble::RingOrder;
use super::attr;
use super::filter;
use super::format::Detail;
use super::machine::{Machine, Watch};
use super::opening::{Events, kernel, map_error, open_error};
use super::source::Source;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use vslice_core::units::{HostNs, PcpuId};
use vslice_perf::Ring;
use vslice_perf::attr::LostCount;
use vslice_perf::filter::Numbers;
use vslice_perf::sys::{self, lost_of};

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
        let leader = sys::open(
            attr::lives(ring_bytes, machine.lost, source.group_births(&machine.groups)),
            pcpu.0,
            None,
        )
        .map_err(|error| open_error(error, pcpu, *opened))?;
        *opened += 1;
        let ring = Ring::map(&leader, machine.page_bytes, ring_bytes)
            .map_err(|error| map_error(error, pcpu, ring_bytes))?;
        let mut events = Events::new(pcpu, Some(leader.as_fd()), leader.as_fd(), opened);
        let is_watched = watch.pcpus.contains(&pcpu.0);
        source.open(machine, watch, &mut events)?;
        for format in &machine.formats.details {
            let filters = match format.detail {
                Detail::Block(_) if source.disks().is_ok() => continue,
                Detail::Block(_) => filter::disks(&watch.disks),
                Detail::Interrupt => filter::current_is(&watch.interrupters()),
                _ => filter::current_is(&watch.vcpus),
            };
            events.add(machine.detail(format.id), filters)?;
        }
        Ok(PcpuRing {
            pcpu,
            order: RingOrder::new(pcpu, is_watched, HostNs(0)),
            ring,
            events: events.opened(),
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
        let mut events = Events::new(self.pcpu, None, self.leader.as_fd(), opened);
        source.open_more(machine, watch, new, &mut events)?;
        let events = events.opened();
        for event in &events {
            sys::enable(event.as_fd()).map_err(kernel("enable an event", self.pcpu))?;
        }
        Ok(events)
    }

    /// Enables all events of the group at one instant.
    pub(super) fn enable(&mut self, now: HostNs) -> Result<(), RecordError> {
        self.order.begin(now);
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
            self.closed_lost_count = total(self.closed_lost_count, events);
        }
    }

    /// Records that were lost without a record in the ring that says so; 0 where the kernel cannot
    /// tell. To be asked after the last drain.
    pub(super) fn untold_lost_count(&self) -> u64 {
        if self.lost == LostCount::InRingOnly {
            return 0;
        }
        let closed_and_leader = self.closed_lost_count.saturating_add(lost_of(&self.leader));
        total(closed_and_leader, &self.events).saturating_sub(self.order.lost_count)
    }
}

/// What these events have lost, and `before`.
fn total(before: u64, events: &[OwnedFd]) -> u64 {
    events.iter().map(lost_of).fold(before, u64::saturating_add)
}
