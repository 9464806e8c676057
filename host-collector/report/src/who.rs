//! What threads of the host are called, as no form of a run may take one VM's for another's.

use vslice_core::task::{Task, ThreadKind, VmIndex};
use vslice_core::timeline::{Tasks, Who};
use vslice_core::units::Tid;
use vslice_trace::manifest::Manifest;

/// The names of the VMs, those that were recorded before the others.
#[derive(Debug, Default)]
pub struct VmNames(Vec<String>);

impl VmNames {
    /// Those of a run.
    #[must_use]
    pub fn of(manifest: &Manifest) -> VmNames {
        let recorded = manifest.vms.iter().map(|vm| vm.name.clone());
        VmNames(recorded.chain(manifest.other_vms.iter().map(|vm| vm.name.clone())).collect())
    }

    /// The name of a VM.
    #[must_use]
    pub fn vm(&self, vm: VmIndex) -> &str {
        self.0.get(vm.0).map_or("a VM", String::as_str)
    }

    /// `vm1 vCPU0`, `vm1 iothread io0`, or the thread's own name.
    #[must_use]
    pub fn task(&self, task: &Task) -> String {
        match task.kind {
            ThreadKind::Vcpu { vm, vcpu } => format!("{} {vcpu}", self.vm(vm)),
            ThreadKind::Vmm { vm } => format!("{} {}", self.vm(vm), task.name),
            ThreadKind::OtherVslice { pid } => format!("another vslice (pid {pid})"),
            ThreadKind::Collector | ThreadKind::Kernel | ThreadKind::Host | ThreadKind::Unknown => {
                task.name.clone()
            }
        }
    }

    /// The same of a thread by its number, under its latest name.
    #[must_use]
    pub fn tid(&self, tid: Tid, tasks: &Tasks) -> String {
        match tasks.known(tid) {
            _ if tid == Tid::IDLE => "swapper".to_owned(),
            Some(task) => self.task(task),
            None => format!("tid {tid}"),
        }
    }

    /// The same of whoever was on a pCPU.
    #[must_use]
    pub fn antagonist(&self, who: &Who) -> String {
        match who {
            Who::Idle => "nobody".to_owned(),
            Who::Others => "others".to_owned(),
            Who::Thread(task) => self.task(task),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_core::units::VcpuId;

    #[test]
    fn a_thread_of_a_vm_has_its_vms_name() {
        let names = VmNames(vec!["vm1".to_owned(), "other".to_owned()]);
        let task = |name: &str, kind| Task { kind, name: name.to_owned(), ..Task::unknown(Tid(7)) };
        for (kind, expected) in [
            (ThreadKind::Vcpu { vm: VmIndex(1), vcpu: VcpuId(3) }, "other vCPU3"),
            (ThreadKind::Vmm { vm: VmIndex(0) }, "vm1 x"),
            (ThreadKind::Vmm { vm: VmIndex(9) }, "a VM x"),
            (ThreadKind::OtherVslice { pid: Tid(4) }, "another vslice (pid 4)"),
            (ThreadKind::Kernel, "x"),
        ] {
            assert_eq!(names.task(&task("x", kind)), expected);
        }
    }
}
