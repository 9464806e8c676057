//! Exits, each with where its time went.
//!
//! ```text
//!   guest |  KVM   | VMM  | KVM again  |  off  |  | guest
//!         ^        ^                              ^
//!     kvm_exit  kvm_userspace_exit            kvm_entry
//!         |<-------------- hardware exit -------->|
//!                  |<------ userspace exit ------>|
//! ```

use super::exit_reason::ExitReason;
use super::span::{RunMode, ThreadState};
use crate::host_event::KvmEvent;
use crate::units::{HostNs, Tid};

/// An exit that is over.
///
/// Where `KVM_RUN` returns to the VMM more than once before the guest is entered again, each return
/// is a userspace exit of its own, within one hardware exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The vCPU's thread.
    pub tid: Tid,
    /// Which exit.
    pub reason: ExitReason,
    /// When it left the guest, or KVM.
    pub start: HostNs,
    /// When the guest was entered again; of a userspace exit also when the next one came.
    pub end: HostNs,
    /// Where the time between went.
    pub time: ExitTime,
}

/// Where the time of exits went; the three add up to their length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExitTime {
    /// On a pCPU in KVM, in nanoseconds.
    pub kvm_ns: u64,
    /// On a pCPU in the VMM, and in KVM on the way back from there, in nanoseconds.
    pub vmm_ns: u64,
    /// Off the pCPU, asleep or waiting for it, in nanoseconds.
    pub off_ns: u64,
}

impl ExitTime {
    /// All of it, in nanoseconds.
    #[must_use]
    pub fn total_ns(&self) -> u64 {
        self.kvm_ns.saturating_add(self.vmm_ns).saturating_add(self.off_ns)
    }

    /// Adds another's, up to 584 years.
    pub fn add(&mut self, more: ExitTime) {
        self.kvm_ns = self.kvm_ns.saturating_add(more.kvm_ns);
        self.vmm_ns = self.vmm_ns.saturating_add(more.vmm_ns);
        self.off_ns = self.off_ns.saturating_add(more.off_ns);
    }
}

/// The exits of one thread that are under way, and those that are over and not taken yet.
#[derive(Debug, Default)]
pub(super) struct OpenExits {
    /// Up to here the time of those under way is told.
    split_until: HostNs,
    hardware: Option<Open>,
    userspace: Option<Open>,
    over: Vec<Exit>,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    reason: ExitReason,
    start: HostNs,
    time: ExitTime,
}

impl OpenExits {
    /// Moves the exits that are over to `taken`.
    pub(super) fn take(&mut self, taken: &mut Vec<Exit>) {
        taken.append(&mut self.over);
    }

    /// Until `until` the thread was in `state`. Of an exit that touches time in which nothing is
    /// known, it is not known where it ended: it is given up.
    pub(super) fn pass(&mut self, until: HostNs, state: &ThreadState) {
        let length_ns = until.since_ns(self.split_until);
        self.split_until = self.split_until.max(until);
        if matches!(state, ThreadState::Unknown { .. }) {
            (self.hardware, self.userspace) = (None, None);
            return;
        }
        for open in [&mut self.hardware, &mut self.userspace].into_iter().flatten() {
            let place = match state {
                ThreadState::Running { mode: RunMode::Vmm, .. } => &mut open.time.vmm_ns,
                // In the guest no exit is open, and one that is unsplit has none either.
                ThreadState::Running { .. } => &mut open.time.kvm_ns,
                _ => &mut open.time.off_ns,
            };
            *place = place.saturating_add(length_ns);
        }
    }

    /// An event at the time that was passed last. `is_split` says that entries and exits are
    /// recorded, as an entry or an exit of the thread was seen before.
    pub(super) fn event(&mut self, tid: Tid, event: KvmEvent, is_split: bool) {
        let start = self.split_until;
        let begun = ExitReason::of(event).map(|reason| {
            let time = ExitTime::default();
            Open { reason, start, time }
        });
        match event {
            KvmEvent::GuestEntry => {
                for open in [self.hardware.take(), self.userspace.take()].into_iter().flatten() {
                    self.close(tid, open);
                }
            }
            // One that is still open has not seen its entry: it never is counted.
            KvmEvent::GuestExit { .. } => (self.hardware, self.userspace) = (begun, None),
            KvmEvent::UserspaceExit { .. } if is_split => {
                if let Some(open) = self.userspace.take() {
                    self.close(tid, open);
                }
                self.userspace = begun;
            }
            KvmEvent::UserspaceExit { .. }
            | KvmEvent::HaltEnd { .. }
            | KvmEvent::PortWrite { .. }
            | KvmEvent::PortRead { .. }
            | KvmEvent::Memory { .. }
            | KvmEvent::Interrupt { .. } => {}
        }
    }

    fn close(&mut self, tid: Tid, open: Open) {
        let Open { reason, start, time } = open;
        self.over.push(Exit { tid, reason, start, end: self.split_until, time });
    }
}

#[cfg(test)]
mod tests;
