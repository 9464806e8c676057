//! The host's view of each VM's I/O, while a run is read.

use super::host_pass::HostSink;
use crate::summary::VmIndex;
use rustc_hash::{FxHashMap, FxHashSet};
use vslice_core::extent::Extent;
use vslice_core::host_event::{BlockEvent, HostEvent, HostEventKind, KvmEvent};
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
pub(super) struct HostViews(Vec<VmView>);

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
        HostViews(vms.filter_map(|(place, vm)| VmView::of(VmIndex(place), vm, start)).collect())
    }

    /// Takes an event that the timelines have taken.
    pub(super) fn event(
        &mut self,
        event: &HostEvent,
        timeline: &Timeline,
        sink: &mut impl HostSink,
    ) {
        if self.0.is_empty() {
            return;
        }
        // Most switches and wakings concern none of the VMs, on hosts that have many.
        let concerned = match &event.kind {
            HostEventKind::Switch(switch) => Some([switch.prev, switch.next]),
            HostEventKind::Waking { tid, waker, .. } => Some([*tid, *waker]),
            _ => None,
        };
        let tasks = timeline.tasks();
        let belongs = concerned.map(|tids| tids.map(|tid| Belongs::of(tasks, tid)));
        for view in &mut self.0 {
            if belongs.is_none_or(|both| both.iter().any(|one| view.is_concerned_by(*one))) {
                view.event(event, timeline, sink);
            }
        }
    }

    pub(super) fn span(&mut self, span: &Span) {
        for VmView { view, .. } in self.0.iter_mut().filter(|view| view.vcpus.contains(&span.tid)) {
            view.span(span);
        }
    }

    /// Tells of those that were done before that, with what is known of them now.
    pub(super) fn tell_all(&mut self, done_before: HostNs, sink: &mut impl HostSink) {
        for VmView { vm, view, disks, .. } in &mut self.0 {
            view.give_up_before(done_before, &mut |io| tell(*vm, disks, sink, io));
        }
    }

    /// Nothing will come any more.
    pub(super) fn finish(self, sink: &mut impl HostSink) {
        for VmView { vm, view, disks, .. } in self.0 {
            view.finish(&mut |io| tell(vm, &disks, sink, io));
        }
    }
}

/// Whose a thread is, as far as that may matter to a VM's I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Belongs {
    Vm(VmIndex),
    Worker,
    Stranger,
}

impl Belongs {
    fn of(tasks: &Tasks, tid: Tid) -> Belongs {
        let kind = tasks.known(tid).map(|task| task.kind);
        match kind {
            Some(ThreadKind::Vcpu { vm, .. } | ThreadKind::Vmm { vm }) => Belongs::Vm(vm),
            Some(ThreadKind::Kernel) => {
                let role = tasks.kernel_thread(tid).map_or(Role::Other, Role::of_kernel_thread);
                if role == Role::Other { Belongs::Stranger } else { Belongs::Worker }
            }
            _ => Belongs::Stranger,
        }
    }
}

impl VmView {
    /// Whether an event of a thread matters to it.
    fn is_concerned_by(&self, thread: Belongs) -> bool {
        match thread {
            Belongs::Vm(vm) => vm == self.vm || self.view.minds_strangers(),
            Belongs::Worker => true,
            Belongs::Stranger => self.view.minds_strangers(),
        }
    }

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

    fn event(&mut self, event: &HostEvent, timeline: &Timeline, sink: &mut impl HostSink) {
        let time = event.time;
        let (vm, disks) = (self.vm, &self.disks);
        let mut sink = |io: ViewedIo| tell(vm, disks, sink, io);
        let tasks = timeline.tasks();
        let is_own = |tid: Tid| tasks.vm_of(tid) == Some(vm);
        let at = (time, event.pcpu);
        match &event.kind {
            HostEventKind::Block(block) => {
                if disks.iter().any(|disk| disk.device == block.device) {
                    let own = is_own(block.tid);
                    let submitter = if own { Submitter::OwnVm } else { Submitter::Other };
                    self.view.block(at, block, submitter, &mut sink);
                }
                return;
            }
            HostEventKind::Lost { until, .. } => self.view.lost(time, *until, &mut sink),
            HostEventKind::Switch(switch) => {
                let own = [switch.prev, switch.next].map(is_own);
                if own[0] && !self.vcpus.contains(&switch.prev) {
                    let has_work =
                        switch.prev_state.is_runnable() || has_work(timeline, switch.prev);
                    self.view.notifier(time, switch.prev, has_work);
                }
                if own[1] && !self.vcpus.contains(&switch.next) {
                    self.view.notifier(time, switch.next, true);
                }
                let roles = [switch.prev, switch.next].map(|tid| role(&self.vcpus, vm, tasks, tid));
                self.view.switched(at, switch, roles);
                if own == [false; 2] {
                    return;
                }
            }
            HostEventKind::Waking { tid, waker, .. } => {
                let is_own = is_own(*tid);
                if is_own && !self.vcpus.contains(tid) {
                    self.view.notifier(time, *tid, true);
                }
                let role = |tid| (tid, role(&self.vcpus, vm, tasks, tid));
                self.view.waking(at, role(*tid), role(*waker));
                if !is_own {
                    return;
                }
            }
            HostEventKind::Exit { tid } if is_own(*tid) && !self.vcpus.contains(tid) => {
                self.view.notifier(time, *tid, false);
            }
            HostEventKind::Kvm { tid, event: KvmEvent::Interrupt { vcpu, vector } } => {
                if is_own(*tid) && !self.vcpus.contains(tid) {
                    self.view.interrupt(time, *vcpu, *vector);
                }
                return;
            }
            HostEventKind::Kvm { tid, .. } if self.vcpus.contains(tid) => {}
            _ => return,
        }
        let kept = &self.kept;
        self.view.settle(time, |tid| open(timeline, kept, tid), &mut sink);
    }
}

/// What a thread is to the VM's I/O.
fn role(vcpus: &FxHashSet<Tid>, vm: VmIndex, tasks: &Tasks, tid: Tid) -> Role {
    if vcpus.contains(&tid) {
        Role::Vcpu
    } else if tasks.vm_of(tid) == Some(vm) {
        Role::Vmm
    } else {
        tasks.kernel_thread(tid).map_or(Role::Other, Role::of_kernel_thread)
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
