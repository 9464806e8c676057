//! Who served the vCPUs: counted from the events of the window.

use crate::analyse::chosen::Chosen;
use crate::analyse::observer::MeasuredWindow;
use crate::summary::VmIndex;
use crate::summary::service::ServiceThread;
use rustc_hash::FxHashMap;
use vslice_core::host_event::{HostEvent, HostEventKind};
use vslice_core::units::Tid;
use vslice_trace::manifest::Manifest;

/// The threads of the VMMs that run no vCPU, and those that do.
#[derive(Debug)]
pub(super) struct ServiceThreads {
    rows: Vec<ServiceThread>,
    row_of_tid: FxHashMap<Tid, usize>,
    /// The place of its VM among the VMs.
    vm_of_vcpu: FxHashMap<Tid, usize>,
    vm_of_row: Vec<usize>,
    window: MeasuredWindow,
}

impl ServiceThreads {
    pub(super) fn new(manifest: &Manifest, chosen: &Chosen) -> ServiceThreads {
        let mut service = ServiceThreads {
            rows: Vec::new(),
            row_of_tid: FxHashMap::default(),
            vm_of_vcpu: FxHashMap::default(),
            vm_of_row: Vec::new(),
            window: chosen.stretch(),
        };
        let vms = manifest.vms.iter().enumerate().filter(|(vm, _)| chosen.has_vm(VmIndex(*vm)));
        for (index, vm) in vms {
            for thread in &vm.threads {
                if let Some(vcpu) = thread.vcpu {
                    if chosen.has_vcpu(VmIndex(index), vcpu) {
                        service.vm_of_vcpu.insert(thread.tid, index);
                    }
                    continue;
                }
                service.row_of_tid.insert(thread.tid, service.rows.len());
                service.vm_of_row.push(index);
                service.rows.push(ServiceThread {
                    vm: vm.name.clone(),
                    role: thread.role.to_string(),
                    tid: thread.tid,
                    arrivals: 0,
                    woken_by_vcpus: 0,
                    woke_vcpus: 0,
                });
            }
        }
        service
    }

    pub(super) fn learn(&mut self, event: &HostEvent) {
        if !self.window.contains(event.time) {
            return;
        }
        match &event.kind {
            HostEventKind::Switch(switch) => {
                if let Some(row) = self.row_of_tid.get(&switch.next) {
                    self.rows[*row].arrivals += 1;
                }
            }
            HostEventKind::Waking { tid, waker, .. } => {
                let is_vcpu_of = |vcpu: &Tid, row: usize| {
                    self.vm_of_vcpu.get(vcpu) == Some(&self.vm_of_row[row])
                };
                if let Some(&row) = self.row_of_tid.get(tid) {
                    self.rows[row].woken_by_vcpus += u64::from(is_vcpu_of(waker, row));
                } else if let Some(&row) = self.row_of_tid.get(waker) {
                    self.rows[row].woke_vcpus += u64::from(is_vcpu_of(tid, row));
                }
            }
            _ => {}
        }
    }

    /// Those that did anything.
    pub(super) fn into_rows(self) -> Vec<ServiceThread> {
        let did = |row: &ServiceThread| row.arrivals + row.woken_by_vcpus + row.woke_vcpus > 0;
        self.rows.into_iter().filter(did).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyse::drawn::{VM1_VCPU1, host_at, manifest};
    use vslice_core::host_event::{PrevState, Switch};
    use vslice_core::units::PcpuId;

    #[test]
    fn wakings_count_between_a_vms_own_threads_and_in_the_window_only() {
        let manifest = manifest();
        let vm1_loop = manifest.vms[0].threads[0].tid;
        let (vm2_loop, vm2_vcpu) = (manifest.vms[1].threads[0].tid, manifest.vms[1].threads[1].tid);
        let chosen = Chosen::whole(MeasuredWindow::of(&manifest));
        let mut service = ServiceThreads::new(&manifest, &chosen);
        let mut learn =
            |us, kind| service.learn(&HostEvent { time: host_at(us), pcpu: PcpuId(0), kind });
        let waking = |tid, waker| HostEventKind::Waking { tid, target: PcpuId(0), waker };
        learn(10, waking(vm1_loop, VM1_VCPU1));
        learn(20, waking(VM1_VCPU1, vm1_loop));
        learn(30, waking(vm1_loop, vm2_vcpu));
        learn(40, waking(vm2_vcpu, vm1_loop));
        learn(50, waking(vm2_vcpu, VM1_VCPU1));
        learn(2000, waking(vm1_loop, VM1_VCPU1));
        learn(60, HostEventKind::Switch(Switch::new(Tid(0), PrevState::Runnable, vm1_loop)));
        let rows = service.into_rows();
        assert_eq!(rows.len(), 1, "{vm2_loop} did nothing: {rows:?}");
        assert_eq!((rows[0].vm.as_str(), rows[0].role.as_str()), ("vm1", "main loop"));
        assert_eq!((rows[0].arrivals, rows[0].woken_by_vcpus, rows[0].woke_vcpus), (1, 1, 1));
    }
}
