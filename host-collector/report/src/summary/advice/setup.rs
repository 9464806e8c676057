//! What commands for a host and its VMs have to name.

use std::collections::BTreeSet;
use vslice_core::units::{Tid, VcpuId};
use vslice_trace::image::ImageRecord;
use vslice_trace::manifest::{Manifest, OtherVmRecord, VmRecord};
use vslice_trace::quota::GroupRecord;
use vslice_trace::thread::{ThreadRecord, ThreadRole};
use vslice_trace::vmm::{Accelerator, DomainRecord, Vmm};

/// What commands for a host and its VMs have to name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Setup {
    /// The VMs, recorded or not.
    pub(super) machines: Vec<Machine>,
    /// KVM's parameter, where there is KVM.
    pub(super) halt_poll_ns: Option<u64>,
    /// Whether the nice value counts only within a session.
    pub(super) is_autogroup_on: Option<bool>,
}

/// One VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Machine {
    pub(super) name: String,
    pub(super) vmm: Option<Vmm>,
    pub(super) accelerator: Option<Accelerator>,
    pub(super) domain: Option<DomainRecord>,
    pub(super) threads: Vec<(Tid, ThreadRole)>,
    /// `None` if its disks are unknown.
    pub(super) disks: Option<Vec<MachineDisk>>,
    pub(super) groups: Vec<GroupRecord>,
}

/// A disk of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MachineDisk {
    pub(super) label: String,
    pub(super) bus: String,
    /// `None` if that is unknown.
    pub(super) has_iothread: Option<bool>,
}

impl Setup {
    /// That of a run.
    #[must_use]
    pub fn of(manifest: &Manifest) -> Setup {
        let conditions = manifest.environment.as_ref().and_then(|host| host.conditions.as_ref());
        let machines = manifest.vms.iter().map(Machine::of);
        Setup {
            machines: machines.chain(manifest.other_vms.iter().map(Machine::of_other)).collect(),
            halt_poll_ns: conditions.and_then(|conditions| conditions.halt_poll_ns),
            is_autogroup_on: conditions.and_then(|conditions| conditions.is_autogroup_on),
        }
    }

    /// The one VM of this name.
    pub(super) fn machine(&self, name: &str) -> Option<&Machine> {
        let mut named = self.machines.iter().filter(|machine| machine.name == name);
        named.next().filter(|_| named.next().is_none())
    }
}

impl Machine {
    fn of(vm: &VmRecord) -> Machine {
        Machine {
            name: vm.name.clone(),
            vmm: vm.vmm,
            accelerator: vm.accelerator,
            domain: vm.domain.clone(),
            threads: threads(&vm.threads),
            disks: vm.disks_missing.is_none().then(|| vm.disks.iter().map(disk).collect()),
            groups: vm.groups.clone(),
        }
    }

    fn of_other(vm: &OtherVmRecord) -> Machine {
        Machine {
            name: vm.name.clone(),
            vmm: Some(vm.vmm),
            accelerator: None,
            domain: vm.domain.clone(),
            threads: threads(&vm.threads),
            disks: None,
            groups: Vec::new(),
        }
    }

    pub(super) fn role(&self, tid: Tid) -> Option<&ThreadRole> {
        self.threads.iter().find(|(of, _)| *of == tid).map(|(_, role)| role)
    }

    /// Whether its disks have iothreads; `None` if that is unknown, or some have and others not.
    pub(super) fn has_iothreads(&self) -> Option<bool> {
        let disks = self.disks.as_ref()?;
        let known: Option<BTreeSet<bool>> = disks.iter().map(|disk| disk.has_iothread).collect();
        match known?.into_iter().collect::<Vec<_>>().as_slice() {
            [only] => Some(*only),
            _ => None,
        }
    }

    /// Whether each disk is one that can have an iothread.
    pub(super) fn is_virtio(&self) -> bool {
        let is_virtio = |disk: &MachineDisk| disk.bus.starts_with("virtio");
        self.disks.as_ref().is_some_and(|disks| disks.iter().all(is_virtio))
    }

    /// The control group of a vCPU's thread itself.
    pub(super) fn group_of(&self, vcpu: VcpuId) -> Option<&GroupRecord> {
        let of_vcpu = self.groups.iter().filter(|group| group.vcpus.contains(&vcpu));
        of_vcpu.max_by_key(|group| group.path.len())
    }
}

fn threads(threads: &[ThreadRecord]) -> Vec<(Tid, ThreadRole)> {
    threads.iter().map(|thread| (thread.tid, thread.role.clone())).collect()
}

fn disk(image: &ImageRecord) -> MachineDisk {
    let has_iothread = image.iothreads.as_ref().map(|iothreads| !iothreads.is_empty());
    MachineDisk { label: image.label.clone(), bus: image.bus.clone(), has_iothread }
}
