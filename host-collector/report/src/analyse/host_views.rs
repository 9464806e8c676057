//! The host's view of each VM's I/O, while a run is read.

use super::host_pass::HostSink;
use crate::summary::VmIndex;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeSet;
use vslice_core::extent::Extent;
use vslice_core::host_event::{BlockEvent, HostEvent, HostEventKind, KvmEvent, Switch};
use vslice_core::host_view::{HostView, Role, ViewedIo};
use vslice_core::join::Submitter;
use vslice_core::task::ThreadKind;
use vslice_core::timeline::{Reason, RunMode, Span, Tasks, ThreadState, Timeline, UnknownCause};
use vslice_core::units::{HostNs, PcpuId, Tid};
use vslice_trace::image::ImageRecord;
use vslice_trace::manifest::{Manifest, VmRecord};

/// Why an empty drive has no I/O, as `vslice-host` says it of its storage.
const NO_MEDIUM: &str = "it has no medium";

/// Those of all VMs that have a disk whose I/O was recorded.
#[derive(Debug)]
pub(super) struct HostViews {
    views: Vec<VmView>,
    by_vm: FxHashMap<VmIndex, usize>,
    /// Those that mind strangers at the moment.
    minding: BTreeSet<usize>,
}

#[derive(Debug)]
struct VmView {
    vm: VmIndex,
    view: HostView,
    vcpus: FxHashSet<Tid>,
    /// vCPUs that kept their pCPU through the window, so that no event told of them.
    kept: FxHashMap<Tid, PcpuId>,
    disks: Vec<Disk>,
}

/// A disk of the VM whose I/O was recorded.
#[derive(Debug)]
struct Disk {
    /// Its place in the manifest.
    place: usize,
    device: u32,
    /// Where it lies; `None` if that is not known.
    extents: Option<Vec<Extent>>,
    /// Whether none of the VM's other disks may be on that device.
    is_alone: bool,
}

impl HostViews {
    pub(super) fn of(manifest: &Manifest, start: HostNs) -> HostViews {
        let vms = manifest.vms.iter().enumerate();
        let views = vms.filter_map(|(place, vm)| VmView::of(VmIndex(place), vm, start));
        let views: Vec<VmView> = views.collect();
        let by_vm = views.iter().enumerate().map(|(place, view)| (view.vm, place)).collect();
        HostViews { views, by_vm, minding: BTreeSet::new() }
    }

    /// Takes an event that the timelines have taken.
    pub(super) fn event(
        &mut self,
        event: &HostEvent,
        timeline: &Timeline,
        sink: &mut impl HostSink,
    ) {
        if self.views.is_empty() {
            return;
        }
        let thread = |tid| Thread::of(timeline.tasks(), tid);
        match &event.kind {
            HostEventKind::Switch(switch) => {
                let threads = [switch.prev, switch.next].map(thread);
                self.for_each_of(threads, |view| {
                    view.switched(event, switch, threads, timeline, sink);
                });
            }
            HostEventKind::Waking { tid, waker, .. } => {
                let threads = [*tid, *waker].map(thread);
                self.for_each_of(threads, |view| view.waking(event, threads, timeline, sink));
            }
            HostEventKind::Exit { tid } | HostEventKind::Kvm { tid, .. } => {
                let place = thread(*tid).vm.and_then(|vm| self.by_vm.get(&vm).copied());
                place.into_iter().for_each(|place| {
                    self.change(place, |view| view.own(event, *tid, timeline, sink));
                });
            }
            HostEventKind::Block(block) => {
                let submitter = thread(block.tid).vm;
                for place in 0..self.views.len() {
                    self.change(place, |view| view.block(event, block, submitter, sink));
                }
            }
            HostEventKind::Lost { until, .. } => {
                for place in 0..self.views.len() {
                    self.change(place, |view| view.lost(event.time, *until, timeline, sink));
                }
            }
            HostEventKind::Comm { .. }
            | HostEventKind::Group { .. }
            | HostEventKind::Fork { .. } => {}
        }
    }

    /// Those that an event of these threads concerns, in order: most concern none of the VMs, on hosts that have many.
    fn for_each_of(&mut self, threads: [Thread; 2], mut take: impl FnMut(&mut VmView)) {
        if threads.iter().any(|thread| thread.vm.is_none() && thread.role != Role::Other) {
            (0..self.views.len()).for_each(|place| self.change(place, &mut take));
            return;
        }
        let [one, other] =
            threads.map(|thread| thread.vm.and_then(|vm| self.by_vm.get(&vm).copied()));
        if self.minding.is_empty() {
            let own = [one.min(other), one.max(other).filter(|_| one != other)];
            own.into_iter().flatten().for_each(|place| self.change(place, &mut take));
            return;
        }
        let mut concerned = self.minding.clone();
        concerned.extend(one.into_iter().chain(other));
        concerned.into_iter().for_each(|place| self.change(place, &mut take));
    }

    fn change(&mut self, place: usize, take: impl FnOnce(&mut VmView)) {
        let view = &mut self.views[place];
        let minded_before = view.view.minds_strangers();
        take(view);
        match (minded_before, view.view.minds_strangers()) {
            (false, true) => _ = self.minding.insert(place),
            (true, false) => _ = self.minding.remove(&place),
            (true, true) | (false, false) => {}
        }
    }

    pub(super) fn span(&mut self, span: &Span) {
        let views = self.views.iter_mut();
        for VmView { view, .. } in views.filter(|view| view.vcpus.contains(&span.tid)) {
            view.span(span);
        }
    }

    /// Tells of those that were done before that, with what is known of them now.
    pub(super) fn tell_all(&mut self, done_before: HostNs, sink: &mut impl HostSink) {
        for place in 0..self.views.len() {
            self.change(place, |VmView { vm, view, disks, .. }| {
                view.give_up_before(done_before, &mut |io| tell(*vm, disks, sink, io));
            });
        }
    }

    /// Nothing will come any more.
    pub(super) fn finish(self, sink: &mut impl HostSink) {
        for VmView { vm, view, disks, .. } in self.views {
            view.finish(&mut |io| tell(vm, &disks, sink, io));
        }
    }
}

/// A thread, as far as it may matter to a VM's I/O.
#[derive(Debug, Clone, Copy)]
struct Thread {
    tid: Tid,
    /// Whose it is, if it is a VM's.
    vm: Option<VmIndex>,
    /// What it is if it is one of the kernel's.
    role: Role,
}

impl Thread {
    fn of(tasks: &Tasks, tid: Tid) -> Thread {
        let stranger = Thread { tid, vm: None, role: Role::Other };
        let Some(task) = tasks.known(tid) else { return stranger };
        match task.kind {
            ThreadKind::Vcpu { vm, .. } | ThreadKind::Vmm { vm } => {
                Thread { vm: Some(vm), ..stranger }
            }
            ThreadKind::Kernel => Thread { role: Role::of_kernel_thread(&task.name), ..stranger },
            ThreadKind::Host
            | ThreadKind::Collector
            | ThreadKind::OtherVslice { .. }
            | ThreadKind::Unknown => stranger,
        }
    }
}

impl VmView {
    fn of(vm: VmIndex, record: &VmRecord, start: HostNs) -> Option<VmView> {
        let disks = Disk::all_of(&record.disks);
        if disks.is_empty() {
            return None;
        }
        let all = record.threads.iter().filter_map(|thread| Some((thread.vcpu?, thread.tid)));
        let vcpus = all.clone().map(|(_, tid)| tid).collect();
        let awake = all.filter(|(vcpu, _)| !record.asleep_vcpus.contains(vcpu));
        let kept = record.threads.iter().filter_map(|thread| Some((thread.tid, thread.kept?)));
        let (kept, mut view) = (kept.collect(), HostView::new(start, awake));
        let numbers = &record.interrupts.vcpus;
        if !numbers.is_empty() {
            let numbers = numbers.iter().map(|vcpu| (vcpu.number, vcpu.tid));
            view = view.with_interrupts(start, numbers);
        }
        Some(VmView { vm, view, vcpus, kept, disks })
    }

    /// What a thread is to the VM's I/O.
    fn role(&self, thread: Thread) -> Role {
        if self.vcpus.contains(&thread.tid) {
            Role::Vcpu
        } else if thread.vm == Some(self.vm) {
            Role::Vmm
        } else {
            thread.role
        }
    }

    fn switched(
        &mut self,
        event: &HostEvent,
        switch: &Switch,
        threads: [Thread; 2],
        timeline: &Timeline,
        sink: &mut impl HostSink,
    ) {
        let roles = threads.map(|thread| self.role(thread));
        if roles[0] == Role::Vmm {
            let has_work = switch.prev_state.is_runnable() || has_work(timeline, switch.prev);
            self.view.notifier(event.time, switch.prev, has_work);
        }
        if roles[1] == Role::Vmm {
            self.view.notifier(event.time, switch.next, true);
        }
        self.view.switched((event.time, event.pcpu), switch, roles);
        if threads.iter().any(|thread| thread.vm == Some(self.vm)) {
            self.settle(event.time, timeline, sink);
        }
    }

    /// The first of these threads is woken by the other one.
    fn waking(
        &mut self,
        event: &HostEvent,
        [woken, waker]: [Thread; 2],
        timeline: &Timeline,
        sink: &mut impl HostSink,
    ) {
        let roles = [woken, waker].map(|thread| self.role(thread));
        if roles[0] == Role::Vmm {
            self.view.notifier(event.time, woken.tid, true);
        }
        let at = (event.time, event.pcpu);
        self.view.waking(at, (woken.tid, roles[0]), (waker.tid, roles[1]));
        if woken.vm == Some(self.vm) {
            self.settle(event.time, timeline, sink);
        }
    }

    /// Takes what one of its threads was seen to do, or KVM for it.
    fn own(&mut self, event: &HostEvent, tid: Tid, timeline: &Timeline, sink: &mut impl HostSink) {
        let is_vcpu = self.vcpus.contains(&tid);
        match &event.kind {
            HostEventKind::Exit { .. } if !is_vcpu => self.view.notifier(event.time, tid, false),
            HostEventKind::Kvm { event: KvmEvent::Interrupt { vcpu, vector }, .. } => {
                if !is_vcpu {
                    self.view.interrupt(event.time, *vcpu, *vector);
                }
                return;
            }
            HostEventKind::Kvm { .. } if is_vcpu => {}
            _ => return,
        }
        self.settle(event.time, timeline, sink);
    }

    fn block(
        &mut self,
        event: &HostEvent,
        block: &BlockEvent,
        submitter: Option<VmIndex>,
        sink: &mut impl HostSink,
    ) {
        let (vm, disks) = (self.vm, &self.disks);
        if disks.iter().any(|disk| disk.device == block.device) {
            let is_own = submitter == Some(vm);
            let submitter = if is_own { Submitter::OwnVm } else { Submitter::Other };
            let at = (event.time, event.pcpu);
            self.view.block(at, block, submitter, &mut |io| tell(vm, disks, sink, io));
        }
    }

    fn lost(&mut self, time: HostNs, until: HostNs, timeline: &Timeline, sink: &mut impl HostSink) {
        let (vm, disks) = (self.vm, &self.disks);
        self.view.lost(time, until, &mut |io| tell(vm, disks, sink, io));
        self.settle(time, timeline, sink);
    }

    fn settle(&mut self, time: HostNs, timeline: &Timeline, sink: &mut impl HostSink) {
        let (vm, disks, kept) = (self.vm, &self.disks, &self.kept);
        let mut sink = |io| tell(vm, disks, sink, io);
        self.view.settle(time, |tid| open(timeline, kept, tid), &mut sink);
    }
}

/// What a vCPU's thread does, and since when.
fn open(
    timeline: &Timeline,
    kept: &FxHashMap<Tid, PcpuId>,
    tid: Tid,
) -> Option<(HostNs, ThreadState)> {
    let (since, state) = timeline.open(tid)?;
    let is_unseen = matches!(state, ThreadState::Unknown { cause: UnknownCause::NotYetSeen });
    match kept.get(&tid).filter(|_| is_unseen) {
        Some(pcpu) => Some((since, ThreadState::Running { pcpu: *pcpu, mode: RunMode::Unsplit })),
        None => Some((since, state)),
    }
}

/// Whether a thread of the VMM that has gone to sleep has not done with its work: it waits for a lock, or may have been
/// woken already.
fn has_work(timeline: &Timeline, tid: Tid) -> bool {
    match timeline.open(tid) {
        Some((_, ThreadState::Blocked(sleep))) => matches!(
            sleep.reason,
            Reason::Bql | Reason::BqlFoundByBehaviour | Reason::BqlInferred | Reason::QemuLock
        ),
        Some(_) => false,
        None => timeline.watches(tid),
    }
}

impl Disk {
    fn of((place, record): (usize, &ImageRecord)) -> Option<Disk> {
        let whole = record.whole_disk.as_ref().filter(|_| record.missing.is_none())?;
        let extents = record.extents_missing.is_none().then(|| record.extents.clone());
        Some(Disk { place, device: whole.device, extents, is_alone: false })
    }

    /// All of a VM whose I/O was recorded.
    fn all_of(records: &[ImageRecord]) -> Vec<Disk> {
        let mut disks: Vec<Disk> = records.iter().enumerate().filter_map(Disk::of).collect();
        for disk in &mut disks {
            let others = records.iter().enumerate().filter(|(place, _)| *place != disk.place);
            disk.is_alone = others.map(|(_, other)| other).all(|other| match &other.whole_disk {
                Some(whole) => whole.device != disk.device,
                None => other.missing.as_deref() == Some(NO_MEDIUM),
            });
        }
        disks
    }

    /// Whether an I/O is for this disk; `None` if where it lies does not tell.
    fn has(&self, event: &BlockEvent) -> Option<bool> {
        if self.device != event.device {
            return Some(false);
        }
        let end = event.sector.saturating_add(event.sectors.into());
        // A flush is for the whole device.
        if event.sector == end {
            return None;
        }
        let overlaps = |extent: &Extent| {
            let sectors = extent.sectors();
            event.sector < sectors.end && sectors.start < end
        };
        Some(self.extents.as_ref()?.iter().any(overlaps))
    }
}

/// The disk that an I/O is for: the one that has its sectors, or the only one that the VM has there.
///
/// What is in no map is nobody's where the VM has others there: to flush an image, its VMM's threads write the inode of
/// its file too. Nor is what lies outside a disk's own map told as that disk's: a write to a hole gets a place that is not in
/// it, and so does what the file system writes for itself.
fn disk_of(disks: &[Disk], event: &BlockEvent) -> Option<usize> {
    let by_sectors = disks.iter().find(|disk| disk.has(event) == Some(true));
    let alone = || disks.iter().find(|disk| disk.is_alone && disk.has(event).is_none());
    by_sectors.or_else(alone).map(|disk| disk.place)
}

fn tell(vm: VmIndex, disks: &[Disk], sink: &mut impl HostSink, io: ViewedIo) {
    let disk = disk_of(disks, &io.event);
    sink.host_io(vm, disk, io);
}
