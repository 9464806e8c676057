//! What comes of the host's events, whoever brings them: the streams of a run, or a recording that goes on.

use super::host_views::HostViews;
use super::observer::MeasuredWindow;
use super::observers::Observers;
use crate::summary::VmIndex;
use rustc_hash::FxHashMap;
use vslice_core::host_event::HostEvent;
use vslice_core::host_view::ViewedIo;
use vslice_core::timeline::{
    Exit, LockWait, RunMode, Span, StackTable, Tasks, ThreadState, Timeline, UnknownCause,
};
use vslice_core::units::{HostNs, PcpuId, Tid};
use vslice_trace::manifest::Manifest;

/// Takes what the host's events show, in the order in which they show it.
pub(crate) trait HostSink {
    /// Takes the next event, in order of time, before the timelines do.
    fn event(&mut self, event: &HostEvent, tasks: &Tasks, stacks: &StackTable);

    /// Takes a loss that no event tells of.
    fn loss(&mut self, loss: &HostEvent);

    /// Takes the next span of any thread.
    fn span(&mut self, span: Span);

    /// Takes an I/O of a VM, as the host saw it, and the disk that it is for, if that is known.
    fn host_io(&mut self, vm: VmIndex, disk: Option<usize>, io: ViewedIo);

    /// Takes an exit of a vCPU from its guest.
    fn exit(&mut self, exit: Exit);

    /// Takes a wait for a lock.
    fn lock_wait(&mut self, wait: LockWait);
}

/// Observers by themselves, where no guest tells anything.
impl HostSink for Observers<'_> {
    fn event(&mut self, event: &HostEvent, tasks: &Tasks, _stacks: &StackTable) {
        self.tell(|observer| observer.event(event, tasks));
    }

    fn loss(&mut self, _loss: &HostEvent) {}

    fn span(&mut self, span: Span) {
        Observers::span(self, &span);
    }

    fn host_io(&mut self, vm: VmIndex, disk: Option<usize>, io: ViewedIo) {
        Observers::host_io(self, vm, disk, &io);
    }

    fn exit(&mut self, exit: Exit) {
        Observers::exit(self, &exit);
    }

    fn lock_wait(&mut self, wait: LockWait) {
        Observers::lock_wait(self, &wait);
    }
}

/// Takes events through the timelines and the host's views.
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
        sink: &mut impl HostSink,
    ) {
        sink.event(event, timeline.tasks(), timeline.stacks());
        self.push(event, timeline, sink);
        timeline.take_exits().into_iter().for_each(|exit| sink.exit(exit));
        timeline.take_lock_waits().into_iter().for_each(|wait| sink.lock_wait(wait));
    }

    /// Takes a loss that no event tells of.
    pub(crate) fn loss(
        &mut self,
        loss: &HostEvent,
        timeline: &mut Timeline,
        sink: &mut impl HostSink,
    ) {
        sink.loss(loss);
        self.push(loss, timeline, sink);
    }

    fn push(&mut self, event: &HostEvent, timeline: &mut Timeline, sink: &mut impl HostSink) {
        timeline.push(event, &mut |span| self.span(span, sink));
        self.host_views.event(event, timeline, sink);
    }

    /// No event will come any more.
    pub(crate) fn finish(mut self, end: HostNs, timeline: &mut Timeline, sink: &mut impl HostSink) {
        timeline.finish(end, &mut |span| self.span(span, sink));
        timeline.take_lock_waits().into_iter().for_each(|wait| sink.lock_wait(wait));
        self.host_views.finish(sink);
    }

    /// Tells of the I/Os that were done before that, with what is known of them now.
    pub(crate) fn tell_ios(&mut self, done_before: HostNs, sink: &mut impl HostSink) {
        self.host_views.tell_all(done_before, sink);
    }

    fn span(&mut self, mut span: Span, sink: &mut impl HostSink) {
        if matches!(span.state, ThreadState::Unknown { cause: UnknownCause::NotYetSeen })
            && let Some(pcpu) = self.kept.get(&span.tid)
        {
            span.state = ThreadState::Running { pcpu: *pcpu, mode: RunMode::Unsplit };
        }
        self.host_views.span(&span);
        sink.span(span);
    }
}

fn kept(manifest: &Manifest) -> FxHashMap<Tid, PcpuId> {
    let threads = manifest.vms.iter().flat_map(|vm| &vm.threads);
    threads.filter_map(|thread| Some((thread.tid, thread.kept?))).collect()
}
