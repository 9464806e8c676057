//! What comes of the host's events, whoever brings them: the streams of a run, or a recording that goes on.

use super::host_views::HostViews;
use super::observer::MeasuredWindow;
use super::observers::Observers;
use rustc_hash::FxHashMap;
use vslice_core::host_event::HostEvent;
use vslice_core::timeline::{
    RunMode, Span, StackTable, Tasks, ThreadState, Timeline, UnknownCause,
};
use vslice_core::units::{HostNs, PcpuId, Tid};
use vslice_trace::manifest::Manifest;

/// Whoever lays what guests tell over what the host's threads did.
pub(crate) trait Joins {
    /// Takes the next event, in order of time, with the threads as they were before it.
    fn event(&mut self, event: &HostEvent, tasks: &Tasks, stacks: &StackTable);

    /// Takes a loss that no event tells of.
    fn loss(&mut self, loss: &HostEvent);

    /// Takes the next span of any thread.
    fn span(&mut self, span: &Span);
}

/// Where no guest tells anything.
pub(crate) struct NoJoins;

impl Joins for NoJoins {
    fn event(&mut self, _event: &HostEvent, _tasks: &Tasks, _stacks: &StackTable) {}

    fn loss(&mut self, _loss: &HostEvent) {}

    fn span(&mut self, _span: &Span) {}
}

/// Takes events through the timelines and the host's views, and tells observers of all that comes of it.
#[derive(Debug)]
pub(crate) struct HostPass {
    host_views: HostViews,
    /// Threads that kept their pCPU through the window, so that no event told of them.
    kept: FxHashMap<Tid, PcpuId>,
}

impl HostPass {
    pub(crate) fn new(manifest: &Manifest) -> HostPass {
        let start = MeasuredWindow::of(manifest).start;
        HostPass { host_views: HostViews::of(manifest, start), kept: kept(manifest) }
    }

    /// Takes the next event, in order of time.
    pub(crate) fn event(
        &mut self,
        event: &HostEvent,
        timeline: &mut Timeline,
        observers: &Observers<'_>,
        joins: &mut impl Joins,
    ) {
        observers.tell(|observer| observer.event(event, timeline.tasks()));
        joins.event(event, timeline.tasks(), timeline.stacks());
        timeline.push(event, &mut |span| self.span(&span, observers, joins));
        self.host_views.event(event, timeline, observers);
        for exit in timeline.take_exits() {
            observers.exit(&exit);
        }
        lock_waits(timeline, observers);
    }

    /// Takes a loss that no event tells of.
    pub(crate) fn loss(
        &mut self,
        loss: &HostEvent,
        timeline: &mut Timeline,
        observers: &Observers<'_>,
        joins: &mut impl Joins,
    ) {
        joins.loss(loss);
        timeline.push(loss, &mut |span| self.span(&span, observers, joins));
        self.host_views.event(loss, timeline, observers);
    }

    /// No event will come any more.
    pub(crate) fn finish(
        mut self,
        end: HostNs,
        timeline: &mut Timeline,
        observers: &Observers<'_>,
        joins: &mut impl Joins,
    ) {
        timeline.finish(end, &mut |span| self.span(&span, observers, joins));
        lock_waits(timeline, observers);
        self.host_views.finish(observers);
    }

    /// Tells of the I/Os that were done before that, with what is known of them now.
    pub(crate) fn tell_ios(&mut self, done_before: HostNs, observers: &Observers<'_>) {
        self.host_views.tell_all(done_before, observers);
    }

    fn span(&mut self, span: &Span, observers: &Observers<'_>, joins: &mut impl Joins) {
        let kept = self.kept.get(&span.tid).filter(|_| {
            matches!(span.state, ThreadState::Unknown { cause: UnknownCause::NotYetSeen })
        });
        let on_pcpu = kept.map(|pcpu| Span {
            state: ThreadState::Running { pcpu: *pcpu, mode: RunMode::Unsplit },
            ..span.clone()
        });
        let span = on_pcpu.as_ref().unwrap_or(span);
        observers.span(span);
        joins.span(span);
        self.host_views.span(span);
    }
}

fn lock_waits(timeline: &mut Timeline, observers: &Observers<'_>) {
    for wait in timeline.take_lock_waits() {
        observers.lock_wait(&wait);
    }
}

fn kept(manifest: &Manifest) -> FxHashMap<Tid, PcpuId> {
    let threads = manifest.vms.iter().flat_map(|vm| &vm.threads);
    threads.filter_map(|thread| Some((thread.tid, thread.kept?))).collect()
}
