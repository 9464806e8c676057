//! Who takes what the host's events show: the joins that lay guests' requests over it, and the observers. With it on its
//! way from the thread that looks at the events.

use super::guests::{Guests, GuestsEnd};
use super::host_pass::HostSink;
use super::observers::Observers;
use crate::summary::VmIndex;
use std::rc::Rc;
use std::sync::mpsc::SyncSender;
use vslice_core::host_event::HostEvent;
use vslice_core::host_view::ViewedIo;
use vslice_core::timeline::{Exit, LockWait, Span, StackTable, Tasks};
use vslice_core::units::{HostNs, PcpuId};
use vslice_trace::StoreError;
use vslice_trace::manifest::Manifest;

/// What is shown at once: some 20 kB, and some microseconds of work.
const BATCH_ITEMS: usize = 128;

/// The joins and the observers of an analysis.
///
/// They know the host's threads by themselves, from the same events as the timelines: these may be far ahead.
pub(super) struct Listeners<'o> {
    observers: Rc<Observers<'o>>,
    guests: Guests<'o>,
    tasks: Tasks,
    stacks: StackTable,
}

/// Something that the host's events show.
#[derive(Debug)]
pub(super) enum Shown {
    Event(HostEvent),
    /// A loss that no event tells of.
    Loss(HostEvent),
    CutOff(PcpuId, HostNs),
    Span(Span),
    HostIo(VmIndex, Option<usize>, ViewedIo),
    Exit(Exit),
    LockWait(LockWait),
}

/// Takes as well that records were cut off, which no recording that goes on is.
pub(super) trait RunSink: HostSink {
    /// The record of a pCPU ends here, without its writer's end.
    fn cut_off(&mut self, pcpu: PcpuId, since: HostNs);
}

impl<'o> Listeners<'o> {
    /// With the threads and the kernel's stacks as they are before the first event.
    pub(super) fn new(
        observers: &Rc<Observers<'o>>,
        guests: Guests<'o>,
        tasks: Tasks,
        stacks: StackTable,
    ) -> Listeners<'o> {
        Listeners { observers: Rc::clone(observers), guests, tasks, stacks }
    }

    pub(super) fn take(&mut self, shown: Shown) {
        match shown {
            Shown::Event(event) => self.take_event(&event),
            Shown::Loss(loss) => self.loss(&loss),
            Shown::CutOff(pcpu, since) => self.cut_off(pcpu, since),
            Shown::Span(span) => self.span(span),
            Shown::HostIo(vm, disk, io) => self.host_io(vm, disk, io),
            Shown::Exit(exit) => self.exit(exit),
            Shown::LockWait(wait) => self.lock_wait(wait),
        }
    }

    /// Nothing will be shown any more.
    ///
    /// # Errors
    /// When the rest of a guest's stream cannot be read.
    pub(super) fn finish(self, manifest: &Manifest) -> Result<GuestsEnd, StoreError> {
        self.guests.finish(manifest)
    }

    fn take_event(&mut self, event: &HostEvent) {
        self.observers.tell(|observer| observer.event(event, &self.tasks));
        self.guests.event(event, &self.tasks, &self.stacks);
        self.tasks.learn(event);
    }
}

impl HostSink for Listeners<'_> {
    fn event(&mut self, event: &HostEvent, _tasks: &Tasks, _stacks: &StackTable) {
        self.take_event(event);
    }

    fn loss(&mut self, loss: &HostEvent) {
        self.guests.loss(loss);
    }

    fn span(&mut self, span: Span) {
        self.observers.span(&span);
        self.guests.span(&span);
    }

    fn host_io(&mut self, vm: VmIndex, disk: Option<usize>, io: ViewedIo) {
        self.observers.host_io(vm, disk, &io);
    }

    fn exit(&mut self, exit: Exit) {
        self.observers.exit(&exit);
    }

    fn lock_wait(&mut self, wait: LockWait) {
        self.observers.lock_wait(&wait);
    }
}

impl RunSink for Listeners<'_> {
    fn cut_off(&mut self, pcpu: PcpuId, since: HostNs) {
        self.observers.tell(|observer| observer.cut_off(pcpu, since));
    }
}

/// Sends what is shown to the thread that has the listeners.
#[derive(Debug)]
pub(super) struct Batches {
    batch: Vec<Shown>,
    taken: SyncSender<Vec<Shown>>,
}

impl Batches {
    pub(super) fn new(taken: SyncSender<Vec<Shown>>) -> Batches {
        Batches { batch: Vec::with_capacity(BATCH_ITEMS), taken }
    }

    fn push(&mut self, shown: Shown) {
        self.batch.push(shown);
        if self.batch.len() == BATCH_ITEMS {
            self.flush();
        }
    }

    /// Sends what is left.
    pub(super) fn flush(&mut self) {
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH_ITEMS));
        // Nobody listens any more only where the listener has panicked.
        let _is_wanted = self.taken.send(batch);
    }
}

impl HostSink for Batches {
    fn event(&mut self, event: &HostEvent, _tasks: &Tasks, _stacks: &StackTable) {
        self.push(Shown::Event(event.clone()));
    }

    fn loss(&mut self, loss: &HostEvent) {
        self.push(Shown::Loss(loss.clone()));
    }

    fn span(&mut self, span: Span) {
        self.push(Shown::Span(span));
    }

    fn host_io(&mut self, vm: VmIndex, disk: Option<usize>, io: ViewedIo) {
        self.push(Shown::HostIo(vm, disk, io));
    }

    fn exit(&mut self, exit: Exit) {
        self.push(Shown::Exit(exit));
    }

    fn lock_wait(&mut self, wait: LockWait) {
        self.push(Shown::LockWait(wait));
    }
}

impl RunSink for Batches {
    fn cut_off(&mut self, pcpu: PcpuId, since: HostNs) {
        self.push(Shown::CutOff(pcpu, since));
    }
}
