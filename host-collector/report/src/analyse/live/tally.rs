//! Adds up what observers are told, for a second.

use super::io_tally::IoTally;
use super::vcpu_tally::VcpuTally;
use crate::analyse::observer::Observer;
use std::collections::HashMap;
use vslice_core::host_event::{HostEvent, HostEventKind};
use vslice_core::host_view::ViewedIo;
use vslice_core::task::VmIndex;
use vslice_core::timeline::{LockWait, Span, Tasks};
use vslice_core::units::{HostNs, Tid, VcpuId};
use vslice_trace::manifest::Manifest;

/// A second that is under way.
#[derive(Debug)]
pub(super) struct SecondTally {
    /// In the order of the manifest.
    pub(super) vms: Vec<VmTally>,
    /// The places of threads: the VM's, and the vCPU's in it.
    place_of: HashMap<Tid, (usize, usize)>,
    pub(super) lost_count: u64,
    pub(super) events_count: u64,
}

#[derive(Debug)]
pub(super) struct VmTally {
    pub(super) vcpus: Vec<(VcpuId, Tid, VcpuTally)>,
    pub(super) io: IoTally,
}

impl SecondTally {
    /// The first one, of the VMs of a recording.
    pub(super) fn new(manifest: &Manifest, start: HostNs) -> SecondTally {
        let mut place_of = HashMap::new();
        let mut vms = Vec::new();
        for (place, vm) in manifest.vms.iter().enumerate() {
            let threads = vm.threads.iter();
            let mut vcpus: Vec<_> = threads
                .filter_map(|thread| Some((thread.vcpu?, thread.tid, VcpuTally::new(start))))
                .collect();
            vcpus.sort_by_key(|(vcpu, ..)| *vcpu);
            place_of
                .extend(vcpus.iter().enumerate().map(|(vcpu, (_, tid, _))| (*tid, (place, vcpu))));
            vms.push(VmTally { vcpus, io: IoTally::default() });
        }
        SecondTally { vms, place_of, lost_count: 0, events_count: 0 }
    }

    /// A new second.
    pub(super) fn turn(&mut self) {
        for vm in &mut self.vms {
            vm.io = IoTally::default();
            vm.vcpus.iter_mut().for_each(|(_, _, vcpu)| vcpu.turn());
        }
        (self.lost_count, self.events_count) = (0, 0);
    }

    fn vcpu(&mut self, tid: Tid) -> Option<&mut VcpuTally> {
        let (vm, vcpu) = *self.place_of.get(&tid)?;
        let (_, _, tally) = self.vms.get_mut(vm)?.vcpus.get_mut(vcpu)?;
        Some(tally)
    }
}

impl Observer for SecondTally {
    fn event(&mut self, event: &HostEvent, _tasks: &Tasks) {
        self.events_count += 1;
        if let HostEventKind::Lost { count, .. } = event.kind {
            self.lost_count = self.lost_count.saturating_add(count);
        }
    }

    fn span(&mut self, span: &Span) {
        if let Some(vcpu) = self.vcpu(span.tid) {
            vcpu.span(span);
        }
    }

    fn lock_wait(&mut self, wait: &LockWait) {
        if let Some(vcpu) = self.vcpu(wait.tid) {
            vcpu.lock_wait(wait);
        }
    }

    fn host_io(&mut self, vm: VmIndex, disk: Option<usize>, io: &ViewedIo) {
        if let Some(vm) = self.vms.get_mut(vm.0) {
            vm.io.add(disk, io);
        }
    }
}
