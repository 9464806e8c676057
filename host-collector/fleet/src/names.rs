//! What threads are called in the tables.

use crate::table::Cell;
use std::collections::HashMap;
use vslice_core::task::{Task, ThreadKind, VmIndex};
use vslice_core::text::harmless;
use vslice_core::timeline::{Antagonist, Covers, Who};
use vslice_core::units::{Tid, VcpuId};
use vslice_report::who::VmNames;
use vslice_trace::manifest::Manifest;

/// The VMs of a run and their threads.
#[derive(Debug, Default)]
pub(crate) struct Names {
    vms: VmNames,
    threads: HashMap<Tid, Thread>,
}

/// A thread of a VM, as it was when recording began.
#[derive(Debug, Clone)]
pub(crate) struct Thread {
    pub(crate) vm: VmIndex,
    pub(crate) vm_name: String,
    pub(crate) vcpu: Option<VcpuId>,
    /// `vCPU1`, `main loop`, `iothread io0`.
    pub(crate) role: String,
}

/// Somebody who ran instead.
#[derive(Debug)]
pub(crate) struct Ran {
    /// `None`: nobody, or threads that are not told apart.
    pub(crate) name: Option<String>,
    /// The VM that the thread belongs to.
    pub(crate) vm: Option<String>,
    pub(crate) kind: &'static str,
    pub(crate) ran_ns: u64,
}

impl Names {
    pub(crate) fn of(manifest: &Manifest) -> Names {
        let mut threads = HashMap::new();
        let recorded = manifest.vms.iter().map(|vm| (&vm.name, &vm.threads));
        let others = manifest.other_vms.iter().map(|vm| (&vm.name, &vm.threads));
        for (place, (name, of_vm)) in recorded.chain(others).enumerate() {
            for thread in of_vm {
                let role = thread.vcpu.map_or_else(|| thread.role.to_string(), |of| of.to_string());
                let named = Thread {
                    vm: VmIndex(place),
                    vm_name: harmless(name),
                    vcpu: thread.vcpu,
                    role: harmless(&role),
                };
                threads.insert(thread.tid, named);
            }
        }
        Names { vms: VmNames::of(manifest), threads }
    }

    /// A VM's thread.
    pub(crate) fn thread(&self, tid: Tid) -> Option<&Thread> {
        self.threads.get(&tid)
    }

    /// What a thread is called, and its VM if it has one. Of one that was born while the run went on there is its number.
    pub(crate) fn tid(&self, tid: Tid) -> (String, Option<&str>) {
        match self.thread(tid) {
            Some(thread) => {
                (format!("{} {}", thread.vm_name, thread.role), Some(thread.vm_name.as_str()))
            }
            None => (format!("tid {tid}"), None),
        }
    }

    /// Whoever ran on a pCPU.
    pub(crate) fn ran(&self, antagonist: &Antagonist) -> Ran {
        let Antagonist { who, ran_ns, covers } = antagonist;
        let (name, vm, kind) = match who {
            Who::Idle => (None, None, "idle"),
            Who::Others => (None, None, "others"),
            Who::Thread(task) => {
                let name = harmless(&self.vms.task(task));
                // Which of the group it was is not told apart.
                let name = match covers {
                    Covers::Group => format!("{name} and others of its group"),
                    Covers::Thread | Covers::Name => name,
                };
                (Some(name), self.vm_of(task), kind(task.kind))
            }
        };
        Ran { name, vm, kind, ran_ns: *ran_ns }
    }

    fn vm_of(&self, task: &Task) -> Option<String> {
        match task.kind {
            ThreadKind::Vcpu { vm, .. } | ThreadKind::Vmm { vm } => Some(harmless(self.vms.vm(vm))),
            _ => None,
        }
    }
}

impl Ran {
    pub(crate) fn name(&self) -> Cell<'_> {
        self.name.as_deref().into()
    }

    pub(crate) fn vm(&self) -> Cell<'_> {
        self.vm.as_deref().into()
    }
}

fn kind(kind: ThreadKind) -> &'static str {
    match kind {
        ThreadKind::Vcpu { .. } => "vcpu",
        ThreadKind::Vmm { .. } => "vmm",
        ThreadKind::Collector => "collector",
        ThreadKind::OtherVslice { .. } => "other_vslice",
        ThreadKind::Kernel => "kernel",
        ThreadKind::Host => "host",
        ThreadKind::Unknown => "unknown",
    }
}
