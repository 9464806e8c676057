//! The I/O of a VM as its host alone sees it, where nothing in the guest tells of requests: handed to the
//! block layer, done, and for how long no vCPU that could take it was there.
//!
//! ```text
//! block events ----------> in_flight --> done --.
//! wakings and workers ---> handover ------------+
//! the VMM's own threads -> notified ------------+--> HostView --> ViewedIo*
//! spans of the vCPUs ----> vcpu ----------------'
//! ```
//!
//! # What is bounded
//! Which vCPU an I/O is for, and when the VMM tells it, is not seen. But between the moment at which the host's kernel
//! hands the I/O to the VMM, see `handover.rs`, and that at which the VMM's own threads have all gone back to sleep
//! (*told by*), the VMM has told the guest: an I/O's completion is work that no thread of it sleeps on. So
//!
//! - a vCPU that was halted from the handover until then, or was not in its guest meanwhile and is halted then, was
//!   not told: an interrupt ends a halt;
//! - any other can have been told at any moment between, and took it when it was next on a pCPU.
//!
//! I/O inactivity is the time since the handover in which a vCPU that was to take it was kept off its pCPU (see
//! [`Part::is_inactivity`](crate::join::Part::is_inactivity)): the *least* if it was the first that could, told at once; the *most* if it was
//! the last that could, told at the end. What a guest does after it was on a pCPU is not seen, nor is time that a
//! guest's own tasks waited.
//!
//! # By the interrupt
//! KVM tells which vCPU a thread of the VMM has interrupted, and when. That vCPU takes the I/O when it is
//! next in its guest, and the range is one value, where
//!
//! - exactly one interrupt came from the I/O's end until *told by*, or until the next I/O of the VM ended, and it is a disk's;
//! - each I/O that ended before it is told of: the VMM has slept since, or it had such an interrupt of its own. Nor may
//!   there be any whose end is not known, as of flushes. Else this interrupt may be the other's, and the guest may have
//!   turned off that of this one;
//! - what that vCPU did agrees with it: the value lies within the range by run states.
//!
//! # What is not
//! A VMM whose threads never sleep is never known to have told (*never quiet*), nor one of which it was not seen how it
//! was handed the I/O (*not traced*). Where a thread of another process
//! or of the kernel tells the guest, its threads do not show it; such disks have no I/O recorded (vhost-user), or are
//! driven by the guest itself.
//!
//! Pure and streaming, in bounded memory.

mod handover;
mod in_flight;
mod interrupts;
#[cfg(test)]
mod laws;
mod notified;
mod vcpu;

pub use handover::Role;
pub use in_flight::NoEnd;

use crate::host_event::{BlockEvent, Switch};
use crate::join::Submitter;
use crate::timeline::{Span, ThreadState, Who};
use crate::units::{HostNs, PcpuId, Tid, VcpuId};
use handover::{Handover, Handovers, Progress, Way};
use in_flight::{Ended, InFlight};
use interrupts::{Interrupt, Interrupts};
use notified::Notifier;
use std::collections::VecDeque;
use vcpu::{Known, Told, VcpuHistory, Waits};
use vslice_wire::BlockOperation;

/// I/Os that are done and wait for what the vCPUs do, at most; more than a disk's queue holds.
const PENDING_MAX: usize = 8192;

/// One I/O of the VM on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewedIo {
    /// What was handed to the block layer.
    pub event: BlockEvent,
    /// When.
    pub submitted: HostNs,
    /// When the last of its sectors was done.
    pub done: Result<HostNs, NoEnd>,
    /// When the host's kernel handed it to the VMM; `None` if that was not seen.
    pub handed_over: Option<HandedOver>,
    /// For how long no vCPU was there to take it.
    pub inactivity: Result<Inactivity, NoInactivity>,
}

impl ViewedIo {
    /// How long the host had it, if its end is known.
    #[must_use]
    pub fn latency_ns(&self) -> Option<u64> {
        self.done.ok().map(|done| done.since_ns(self.submitted))
    }
}

/// The moment of a handover lies between these, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandedOver {
    /// Not before.
    pub from: HostNs,
    /// Not after.
    pub by: HostNs,
}

/// For how long an I/O was done and nobody there to take it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inactivity {
    /// If the first vCPU that could take it was to, and was told at once.
    pub least_ns: u64,
    /// If the last that could was to, and was told as late as can be.
    pub most_ns: u64,
    /// By then the VMM had told the guest.
    pub told_by: HostNs,
    /// The vCPU with the most, and who had its pCPU longest in its longest wait; `None` if none waited for a pCPU.
    pub waited: Option<Waiter>,
    /// What it rests on.
    pub evidence: InactivityEvidence,
}

/// What is known of who took an I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InactivityEvidence {
    /// Any vCPU that may have, by what all of them did: a range.
    RunStates,
    /// The vCPU that was interrupted for it: least and most are the same.
    Interrupt,
}

/// A vCPU, and who had its pCPU, if that is known.
pub type Waiter = (VcpuId, Option<Who>);

/// Why nothing is said of an I/O's inactivity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoInactivity {
    /// Its end is not known.
    NoEnd,
    /// Records were lost meanwhile, or the state of a vCPU is not known, or not until the recording's end.
    VcpuUnknown,
    /// The VMM's threads were not all asleep once until too much was waiting, or until the recording's end.
    NeverQuiet,
    /// It was not seen when the host's kernel handed it to the VMM.
    NotTraced,
    /// No vCPU was on a pCPU, or woken, until the VMM was asleep again: the guest was not told of this I/O alone.
    NobodyTold,
}

impl NoInactivity {
    /// All of them.
    pub const ALL: [NoInactivity; 5] = [
        NoInactivity::NoEnd,
        NoInactivity::VcpuUnknown,
        NoInactivity::NeverQuiet,
        NoInactivity::NotTraced,
        NoInactivity::NobodyTold,
    ];
}

/// An I/O that is done.
#[derive(Debug)]
struct Pending {
    event: BlockEvent,
    submitted: HostNs,
    done: HostNs,
    handed: Handed,
    told_by: Option<HostNs>,
    is_lost: bool,
    /// Whether the guest may have been told of another I/O with the same interrupt.
    is_shared: bool,
    /// When the next I/O ended, if the VMM had not slept until then, but an interrupt had come.
    next: Option<HostNs>,
}

impl Pending {
    fn viewed(self, inactivity: Result<Inactivity, NoInactivity>) -> ViewedIo {
        let Pending { event, submitted, done, handed, .. } = self;
        ViewedIo { event, submitted, done: Ok(done), handed_over: handed.over(done), inactivity }
    }
}

/// Whether the VMM was handed an I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handed {
    NotSeen,
    Seen(Handover),
    /// That will not be seen any more.
    NotTraced,
}

impl Handed {
    /// Of an I/O that was done then: it cannot have been handed over before.
    fn over(self, done: HostNs) -> Option<HandedOver> {
        let Handed::Seen(Handover { from, by }) = self else { return None };
        Some(HandedOver { from: from.unwrap_or(done), by })
    }
}

/// The I/O of one VM, in order of time.
#[derive(Debug)]
pub struct HostView {
    vcpus: Vec<(VcpuId, VcpuHistory)>,
    in_flight: InFlight,
    notifier: Notifier,
    handovers: Handovers,
    /// When those were done that the VMM was handed and has not told of.
    untold: Vec<HostNs>,
    /// In order of their ends.
    pending: VecDeque<Pending>,
    /// Before that not all is known of the VMM's threads.
    unsure_until: HostNs,
    /// Whom the VMM's threads interrupted; `None` if that was not recorded.
    interrupts: Option<Interrupts>,
    /// The threads of vCPUs by KVM's numbers.
    by_number: Vec<(u32, Tid)>,
    /// Up to here the guest may be told of I/O whose end is not known.
    shared_until: HostNs,
}

/// For so long after an I/O without a known end, a flush for one, the guest may be told of it. Where that comes later
/// still, it deceives only if the guest has turned off the interrupt of another I/O at that moment.
const UNSEEN_NS: u64 = 1_000_000_000;

/// A thread that was at work when recording began, or when records were lost, is known to be again once it has left
/// its pCPU; hardly any works for longer without.
const SURE_AFTER_NS: u64 = 10_000_000;

impl HostView {
    /// Of a VM with these vCPUs, each with its thread, recorded from `start` on.
    pub fn new(start: HostNs, vcpus: impl IntoIterator<Item = (VcpuId, Tid)>) -> HostView {
        let histories = vcpus.into_iter().map(|(vcpu, tid)| (vcpu, VcpuHistory::new(tid)));
        HostView {
            vcpus: histories.collect(),
            in_flight: InFlight::default(),
            notifier: Notifier::default(),
            handovers: Handovers::default(),
            untold: Vec::new(),
            pending: VecDeque::new(),
            unsure_until: HostNs(start.0.saturating_add(SURE_AFTER_NS)),
            interrupts: None,
            by_number: Vec::new(),
            shared_until: HostNs(0),
        }
    }

    /// The interrupts of the VM's threads that run no vCPU are told too, from `start` on; KVM calls the threads of
    /// its vCPUs so.
    #[must_use]
    pub fn with_interrupts(
        mut self,
        start: HostNs,
        by_number: impl IntoIterator<Item = (u32, Tid)>,
    ) -> HostView {
        self.interrupts = Some(Interrupts::new(start));
        self.by_number = by_number.into_iter().collect();
        self
    }

    /// Takes what a disk did that one of the VM's disks is on, whoever's I/O it is, and on which pCPU that was told.
    pub fn block(
        &mut self,
        (time, pcpu): (HostNs, PcpuId),
        event: &BlockEvent,
        submitter: Submitter,
        sink: &mut impl FnMut(ViewedIo),
    ) {
        let event_of_end = event;
        for Ended { event, submitted, done } in self.in_flight.push(time, event, submitter) {
            let is_shared = self.shares(time);
            match done {
                Ok(done) => {
                    let is_lost = done < self.unsure_until;
                    let (handed, told_by, next) = (Handed::NotSeen, None, None);
                    if self.pending.back().is_none_or(|last| last.done < done) {
                        let is_read = event.operation == Some(BlockOperation::Read);
                        let way = Way { device: event.device, is_read };
                        self.done((done, way), (pcpu, event_of_end.tid));
                    }
                    self.pending.push_back(Pending {
                        event,
                        submitted,
                        done,
                        handed,
                        told_by,
                        is_lost,
                        is_shared,
                        next,
                    });
                }
                Err(_) => {
                    self.shared_until = HostNs(time.0.saturating_add(UNSEEN_NS));
                    sink(without_end(event, submitted, done));
                }
            }
        }
        while self.pending.len() > PENDING_MAX {
            self.give_up(sink);
        }
    }

    /// A thread of the VMM that runs no vCPU has work to do from now on, or goes to sleep.
    pub fn notifier(&mut self, time: HostNs, tid: Tid, has_work: bool) {
        self.note_told(time);
        self.notifier.note(time, tid, has_work);
    }

    /// Whether it matters who comes onto a pCPU, or who is woken, though none of them is the VM's or a worker: an I/O is
    /// done and was not seen to be handed over.
    #[must_use]
    pub fn minds_strangers(&self) -> bool {
        self.handovers.are_open()
    }

    fn done(&mut self, (done, way): (HostNs, Way), whom: (PcpuId, Tid)) {
        let is_quiet = done >= self.unsure_until && self.notifier.is_quiet();
        let gone = self.handovers.done((done, way), whom, is_quiet);
        self.handed(gone.into_iter().collect());
    }

    /// On this pCPU `waker`, whom an interrupt may have come to, wakes `tid`. Told after [`HostView::notifier`].
    pub fn waking(&mut self, (time, pcpu): (HostNs, PcpuId), tid: (Tid, Role), waker: (Tid, Role)) {
        let mut known = Vec::new();
        self.handovers.waking(time, pcpu, tid, waker, &mut known);
        self.handed(known);
    }

    /// This pCPU has another thread; `roles` are of the one that left and of the one that came. Told after
    /// [`HostView::notifier`].
    pub fn switched(&mut self, (time, pcpu): (HostNs, PcpuId), switch: &Switch, roles: [Role; 2]) {
        let mut known = Vec::new();
        self.handovers.switched(time, pcpu, switch, roles, &mut known);
        self.handed(known);
    }

    fn handed(&mut self, known: Vec<handover::Known>) {
        for (done, progress) in known {
            let handed = match progress {
                Progress::HandedOver(handover) => {
                    self.untold.push(done);
                    Handed::Seen(handover)
                }
                Progress::NotTraced => Handed::NotTraced,
            };
            let first = self.pending.partition_point(|pending| pending.done < done);
            let same = self.pending.range_mut(first..).take_while(|pending| pending.done == done);
            same.for_each(|pending| pending.handed = handed);
        }
    }

    /// Whether the guest may be told of an I/O that ends now, and of another with the same interrupt. The other may be
    /// one whose interrupt has not come yet.
    fn shares(&mut self, now: HostNs) -> bool {
        self.note_told(now);
        let Some(interrupts) = &self.interrupts else { return true };
        let is_open = |pending: &&mut Pending| pending.told_by.is_none_or(|told_by| told_by >= now);
        let Some(last) = self.pending.back_mut().filter(is_open) else {
            return now < self.shared_until;
        };
        let before = HostNs(now.0.saturating_sub(1));
        let has_come = || interrupts.only_of_disk(last.done, before).is_some();
        if last.next.is_none() && (last.is_shared || !has_come()) {
            last.is_shared = true;
            return true;
        }
        last.next.get_or_insert(now);
        now < self.shared_until
    }

    /// A thread of the VM that runs no vCPU interrupts the vCPU that KVM calls so.
    pub fn interrupt(&mut self, time: HostNs, vcpu: u32, vector: u8) {
        if let Some(interrupts) = &mut self.interrupts {
            interrupts.push(Interrupt { time, vcpu, vector });
        }
    }

    fn note_told(&mut self, now: HostNs) {
        let Some(asleep_since) = self.notifier.asleep_since().filter(|since| *since <= now) else {
            return;
        };
        for done in std::mem::take(&mut self.untold) {
            let first = self.pending.partition_point(|pending| pending.done < done);
            for pending in self.pending.range_mut(first..).take_while(|of| of.done == done) {
                if let Handed::Seen(Handover { by, .. }) = pending.handed {
                    pending.told_by = Some(asleep_since.max(by));
                }
            }
        }
    }

    /// Takes the next span of any thread.
    pub fn span(&mut self, span: &Span) {
        for (_, history) in &mut self.vcpus {
            history.push(span);
        }
    }

    /// On some pCPU events between `from` and `until` were lost.
    pub fn lost(&mut self, from: HostNs, until: HostNs, sink: &mut impl FnMut(ViewedIo)) {
        for Ended { event, submitted, done } in self.in_flight.lost(until) {
            self.shared_until = HostNs(until.0.saturating_add(UNSEEN_NS)).max(self.shared_until);
            sink(without_end(event, submitted, done));
        }
        self.notifier.lost();
        self.handovers.lost();
        self.untold.clear();
        if let Some(interrupts) = &mut self.interrupts {
            interrupts.lost(until);
        }
        self.unsure_until = HostNs(until.0.saturating_add(SURE_AFTER_NS)).max(self.unsure_until);
        for pending in &mut self.pending {
            pending.is_lost |= pending.told_by.is_none_or(|told_by| told_by >= from);
        }
    }

    /// Gives out those of which all is known at `now`; `open` is what a thread does now, and since when.
    pub fn settle(
        &mut self,
        now: HostNs,
        open: impl Fn(Tid) -> Option<(HostNs, ThreadState)>,
        sink: &mut impl FnMut(ViewedIo),
    ) {
        let mut known = Vec::new();
        self.handovers.advance(now, &mut known);
        self.handed(known);
        self.note_told(now);
        while let Some(pending) = self.pending.front() {
            let done = pending.done;
            let known = match (pending.told_by, pending.handed) {
                _ if pending.is_lost => Some(Err(NoInactivity::VcpuUnknown)),
                (_, Handed::NotTraced) => Some(Err(NoInactivity::NotTraced)),
                (Some(told_by), handed) => handed
                    .over(done)
                    .and_then(|handed_over| self.inactivity((handed_over, told_by), now, &open)),
                _ => None,
            };
            let Some(mut inactivity) = known else { break };
            if let Ok(range) = &mut inactivity
                && let Some(narrow) = self.by_interrupt(pending, range, now, &open)
            {
                *range = narrow;
            }
            let told_by = pending.told_by.filter(|_| !pending.is_lost);
            if let (Some(interrupts), Some(told_by)) = (&mut self.interrupts, told_by) {
                interrupts.count(done, told_by);
            }
            let Some(pending) = self.pending.pop_front() else { break };
            sink(pending.viewed(inactivity));
        }
        let from = self.pending.front().map_or(now, |pending| pending.done);
        self.vcpus.iter_mut().for_each(|(_, history)| history.forget_before(from));
        if let Some(interrupts) = &mut self.interrupts {
            if self.pending.is_empty() {
                interrupts.count(now, now);
            }
            interrupts.forget_before(from);
        }
    }

    /// Gives out those that were done before that, with what is known of them: whoever looks on does not wait for the
    /// rest.
    pub fn give_up_before(&mut self, done: HostNs, sink: &mut impl FnMut(ViewedIo)) {
        while self.pending.front().is_some_and(|pending| pending.done < done) {
            self.give_up(sink);
            // The guest may be told of it yet, with the interrupt of another.
            self.shared_until = HostNs(done.0.saturating_add(UNSEEN_NS)).max(self.shared_until);
        }
    }

    /// Nothing will come any more.
    pub fn finish(mut self, sink: &mut impl FnMut(ViewedIo)) {
        while !self.pending.is_empty() {
            self.give_up(sink);
        }
        for Ended { event, submitted, done } in self.in_flight.finish() {
            sink(without_end(event, submitted, done));
        }
    }

    fn give_up(&mut self, sink: &mut impl FnMut(ViewedIo)) {
        let Some(pending) = self.pending.pop_front() else { return };
        let why = match (pending.told_by, pending.handed) {
            (None, Handed::Seen(_)) if !pending.is_lost => NoInactivity::NeverQuiet,
            (None, _) if !pending.is_lost => NoInactivity::NotTraced,
            // The guest was told, and a vCPU that may be the one has not come back.
            _ => NoInactivity::VcpuUnknown,
        };
        sink(pending.viewed(Err(why)));
    }

    /// `None` while a vCPU that may be the one has not been on a pCPU since.
    fn inactivity(
        &self,
        (HandedOver { from, by }, told_by): (HandedOver, HostNs),
        now: HostNs,
        open: impl Fn(Tid) -> Option<(HostNs, ThreadState)>,
    ) -> Option<Result<Inactivity, NoInactivity>> {
        let mut least_ns = u64::MAX;
        let mut most: Option<(u64, Option<Waiter>)> = None;
        let mut is_complete = true;
        for (vcpu, history) in &self.vcpus {
            match history.waits(from, Told::Until(told_by), now, open(history.tid())) {
                Known::NotYet => is_complete = false,
                Known::Never => return Some(Err(NoInactivity::VcpuUnknown)),
                Known::Excluded => {}
                Known::Waits(waits) => {
                    least_ns = least_ns.min(waits.least_ns);
                    if most.as_ref().is_none_or(|(most_ns, _)| *most_ns < waits.most_ns) {
                        let waited = (waits.most_ns > 0).then_some((*vcpu, waits.who));
                        most = Some((waits.most_ns, waited));
                    }
                }
            }
        }
        if !is_complete {
            return None;
        }
        Some(most.map_or(Err(NoInactivity::NobodyTold), |(most_ns, waited)| {
            let evidence = InactivityEvidence::RunStates;
            // It may have been handed over as late as that, and until then it waited for no vCPU.
            let least_ns = least_ns.saturating_sub(by.since_ns(from));
            Ok(Inactivity { least_ns, most_ns, told_by, waited, evidence })
        }))
    }

    /// What is certain by the interrupt that the guest got for this I/O, if that is known and agrees with the range by
    /// run states.
    fn by_interrupt(
        &self,
        pending: &Pending,
        range: &Inactivity,
        now: HostNs,
        open: impl Fn(Tid) -> Option<(HostNs, ThreadState)>,
    ) -> Option<Inactivity> {
        let interrupts = self.interrupts.as_ref().filter(|_| !pending.is_shared)?;
        let next = pending.next.map_or(range.told_by, |next| HostNs(next.0.saturating_sub(1)));
        let interrupt = interrupts.only_of_disk(pending.done, range.told_by.min(next))?;
        let (_, tid) = self.by_number.iter().find(|(number, _)| *number == interrupt.vcpu)?;
        let (vcpu, history) = self.vcpus.iter().find(|(_, history)| history.tid() == *tid)?;
        let told = Told::At(interrupt.time);
        let Handed::Seen(Handover { from: Some(from), .. }) = pending.handed else { return None };
        let Known::Waits(Waits { most_ns, who, .. }) = history.waits(from, told, now, open(*tid))
        else {
            return None;
        };
        let waited = (most_ns > 0).then_some((*vcpu, who));
        let evidence = InactivityEvidence::Interrupt;
        let (least_ns, told_by) = (most_ns, interrupt.time);
        let narrow = Inactivity { least_ns, most_ns, told_by, waited, evidence };
        (range.least_ns..=range.most_ns).contains(&most_ns).then_some(narrow)
    }
}

fn without_end(event: BlockEvent, submitted: HostNs, done: Result<HostNs, NoEnd>) -> ViewedIo {
    let (handed_over, inactivity) = (None, Err(NoInactivity::NoEnd));
    ViewedIo { event, submitted, done, handed_over, inactivity }
}
