//! The one pass over a run's events: each goes through the timelines and the host's views, and all that these show of it
//! to the joins and the observers. Where there are pCPUs for it, these listen in a thread of their own.

use super::AnalyseError;
use super::host_pass::HostPass;
use super::listeners::{Batches, Listeners, RunSink};
use super::observer::MeasuredWindow;
use crate::summary::Warning;
use rustc_hash::FxHashSet;
use std::sync::mpsc::sync_channel;
use std::thread;
use vslice_core::host_event::{HostEvent, HostEventKind};
use vslice_core::timeline::Timeline;
use vslice_core::units::{HostNs, PcpuId};
use vslice_trace::manifest::Manifest;
use vslice_trace::{EventMerge, StoreError, Tail};

/// How many pCPUs this process may run on.
pub(super) fn pcpus_count() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Batches that are on their way to the listeners at most.
const BATCHES_AHEAD: usize = 2;

/// A pass that is under way.
pub(super) struct Pass {
    timeline: Timeline,
    host: HostPass,
    window: MeasuredWindow,
    watched: FxHashSet<PcpuId>,
    /// That the record of a pCPU was cut off; after that nothing is certain, whatever else is cut off.
    cut: Option<Warning>,
}

/// What a pass comes to, beside what the listeners took.
#[derive(Debug)]
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
}

impl Pass {
    pub(super) fn new(manifest: &Manifest, timeline: Timeline) -> Pass {
        Pass {
            timeline,
            host: HostPass::new(manifest),
            window: MeasuredWindow::of(manifest),
            watched: watched_pcpus(manifest),
            cut: None,
        }
    }

    /// Takes all events, in a thread of its own if there is a second pCPU for it. What is shown to whom and in which order
    /// does not depend on that.
    ///
    /// # Errors
    /// When they cannot be read, or there is no thread to be had.
    pub(super) fn run(
        self,
        events: EventMerge,
        pcpus_count: usize,
        listeners: &mut Listeners<'_>,
    ) -> Result<PassEnd, AnalyseError> {
        if pcpus_count < 2 {
            return Ok(self.take_all(events, listeners)?);
        }
        let (taken, batches) = sync_channel(BATCHES_AHEAD);
        thread::scope(|scope| {
            let timelines = thread::Builder::new().name("timelines".to_owned());
            let take_all = move || {
                let mut sink = Batches::new(taken);
                let end = self.take_all(events, &mut sink);
                sink.flush();
                end
            };
            let timelines = timelines.spawn_scoped(scope, take_all);
            let timelines = timelines.map_err(|source| AnalyseError::NoThread { source })?;
            for batch in batches {
                batch.into_iter().for_each(|shown| listeners.take(shown));
            }
            let end = timelines.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Ok(end?)
        })
    }

    fn take_all(
        mut self,
        mut events: EventMerge,
        sink: &mut impl RunSink,
    ) -> Result<PassEnd, StoreError> {
        let start = self.window.start;
        let mut last = start;
        // Where nothing at all is left, no event comes by at which it would be seen.
        let mut ended_count = events.ended_count();
        self.look_for_a_cut(&events, start, sink);
        // What was contradicted before the window concerns no request.
        let mut contradictions_before = 0;
        let mut events_count = 0;
        while let Some(event) = events.next() {
            let event = event?;
            last = event.time;
            self.host.event(&event, &mut self.timeline, sink);
            if last < start {
                contradictions_before = self.timeline.contradictions().count();
            } else {
                events_count += 1;
            }
            if events.ended_count() != ended_count {
                ended_count = events.ended_count();
                self.look_for_a_cut(&events, last, sink);
            }
        }
        self.host.finish(last, &mut self.timeline, sink);
        Ok(PassEnd {
            last,
            events_count,
            contradictions_count: self.timeline.contradictions().count() - contradictions_before,
            cut: self.cut,
            timeline: self.timeline,
        })
    }

    /// Where the record of a pCPU ends without its end, it is from there on as if the kernel had lost
    /// everything.
    fn look_for_a_cut(&mut self, events: &EventMerge, now: HostNs, sink: &mut impl RunSink) {
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
        sink.cut_off(pcpu, now);
        let kind = HostEventKind::Lost { until: HostNs(u64::MAX), count: 0 };
        self.host.loss(&HostEvent { time: now, pcpu, kind }, &mut self.timeline, sink);
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
