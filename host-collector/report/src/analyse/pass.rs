//! The one pass over a run's events: each goes through the timelines and the joins, and all that comes of it to the
//! observers.

use super::guests::{Guests, GuestsEnd};
use super::host_pass::HostPass;
use super::observer::MeasuredWindow;
use super::observers::Observers;
use crate::summary::Warning;
use rustc_hash::FxHashSet;
use std::rc::Rc;
use vslice_core::host_event::{HostEvent, HostEventKind};
use vslice_core::timeline::Timeline;
use vslice_core::units::{HostNs, PcpuId};
use vslice_trace::manifest::Manifest;
use vslice_trace::{EventMerge, StoreError, Tail};

/// A pass that is under way.
pub(super) struct Pass<'o> {
    observers: Rc<Observers<'o>>,
    guests: Guests<'o>,
    host: HostPass,
    window: MeasuredWindow,
    watched: FxHashSet<PcpuId>,
    /// That the record of a pCPU was cut off; after that nothing is certain, whatever else is cut off.
    cut: Option<Warning>,
}

/// What a pass comes to, beside what the observers were told.
pub(super) struct PassEnd {
    pub(super) timeline: Timeline,
    /// The time of the last event, or the start of the window.
    pub(super) last: HostNs,
    /// Events of the window.
    pub(super) events_count: u64,
    /// Those of them that contradict the ones before them.
    pub(super) contradictions_count: u64,
    /// That the record of a pCPU was cut off.
    pub(super) cut: Option<Warning>,
    pub(super) guests: GuestsEnd,
}

impl<'o> Pass<'o> {
    pub(super) fn new(
        manifest: &Manifest,
        guests: Guests<'o>,
        observers: &Rc<Observers<'o>>,
    ) -> Pass<'o> {
        let window = MeasuredWindow::of(manifest);
        Pass {
            observers: Rc::clone(observers),
            guests,
            host: HostPass::new(manifest),
            window,
            watched: watched_pcpus(manifest),
            cut: None,
        }
    }

    /// Takes all events.
    ///
    /// # Errors
    /// When they, or requests, cannot be read.
    pub(super) fn run(
        mut self,
        mut events: EventMerge,
        mut timeline: Timeline,
        manifest: &Manifest,
    ) -> Result<PassEnd, StoreError> {
        let start = self.window.start;
        let mut last = start;
        // Where nothing at all is left, no event comes by at which it would be seen.
        let mut ended_count = events.ended_count();
        self.look_for_a_cut(&events, &mut timeline, start);
        // What was contradicted before the window concerns no request.
        let mut contradictions_before = 0;
        let mut events_count = 0;
        while let Some(event) = events.next() {
            let event = event?;
            last = event.time;
            self.host.event(&event, &mut timeline, &self.observers, &mut self.guests);
            if last < start {
                contradictions_before = timeline.contradictions().count();
            } else {
                events_count += 1;
            }
            if events.ended_count() != ended_count {
                ended_count = events.ended_count();
                self.look_for_a_cut(&events, &mut timeline, last);
            }
        }
        self.host.finish(last, &mut timeline, &self.observers, &mut self.guests);
        Ok(PassEnd {
            last,
            events_count,
            contradictions_count: timeline.contradictions().count() - contradictions_before,
            cut: self.cut,
            guests: self.guests.finish(manifest)?,
            timeline,
        })
    }

    /// Where the record of a pCPU ends without its end, it is from there on as if the kernel had lost
    /// everything.
    fn look_for_a_cut(&mut self, events: &EventMerge, timeline: &mut Timeline, now: HostNs) {
        if self.cut.is_some() {
            return;
        }
        let Some(pcpu) = cut_pcpu(events, &self.watched) else { return };
        let text = format!(
            "the scheduler events of {pcpu} were cut off after {:.3} s; the time after that counts as \
             lost",
            now.since_ns(self.window.start) as f64 / 1e9
        );
        self.cut = Some(Warning::Notice { text });
        self.observers.tell(|observer| observer.cut_off(pcpu, now));
        let kind = HostEventKind::Lost { until: HostNs(u64::MAX), count: 0 };
        let loss = HostEvent { time: now, pcpu, kind };
        self.host.loss(&loss, timeline, &self.observers, &mut self.guests);
    }
}

/// The pCPUs on which every switch is recorded.
pub fn watched_pcpus<Pcpus: FromIterator<PcpuId>>(manifest: &Manifest) -> Pcpus {
    let pinned = manifest.vms.iter().flat_map(|vm| &vm.threads).filter_map(|thread| thread.pinned);
    pinned.chain(manifest.pcpus.iter().copied()).collect()
}

/// A watched pCPU whose record has come to its end, but not to the one that its writer makes. The
/// others' records of a run that was killed may go on for a second or so. On pCPUs that are not
/// watched next to nothing happens, so the end of their record says little.
fn cut_pcpu(events: &EventMerge, watched: &FxHashSet<PcpuId>) -> Option<PcpuId> {
    let tails = events.tails().into_iter();
    let mut cut = tails.filter(|(pcpu, tail)| *tail != Tail::Finished && watched.contains(pcpu));
    cut.next().map(|(pcpu, _)| pcpu)
}
