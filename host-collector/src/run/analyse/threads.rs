//! Who is who: the threads of the host, from the census, the manifest and what was recorded.

use crate::host_event::{HostEvent, HostEventKind};
use crate::report::{ThreadIdentity, ThreadKind, VmIndex};
use crate::run::census::HostThread;
use crate::run::manifest::Manifest;
use crate::units::Tid;
use std::collections::HashMap;

/// The threads that are known so far.
#[derive(Debug)]
pub(super) struct Threads {
    by_tid: HashMap<Tid, ThreadIdentity>,
    /// Whose threads a process's newborns are.
    kind_of_process: HashMap<Tid, ThreadKind>,
}

impl Threads {
    /// Those that were there when recording started.
    pub(super) fn new(manifest: &Manifest, census: Vec<HostThread>) -> Threads {
        let mut kind_of_process = HashMap::from([(manifest.collector_pid, ThreadKind::Collector)]);
        let mut by_tid = HashMap::new();
        for (index, vm) in manifest.vms.iter().enumerate() {
            let kind = ThreadKind::Vmm { vm: VmIndex(index) };
            kind_of_process.insert(vm.pid, kind);
            kind_of_process.extend(vm.device_pid.map(|pid| (pid, kind)));
        }
        for thread in census {
            let other = if thread.is_kernel { ThreadKind::Kernel } else { ThreadKind::Host };
            let kind = kind_of_process.get(&thread.pid).copied().unwrap_or(other);
            by_tid.insert(thread.tid, ThreadIdentity { name: thread.comm, kind });
        }
        // The role of a VMM's thread says more than its name.
        for (index, vm) in manifest.vms.iter().enumerate() {
            let kind = ThreadKind::Vmm { vm: VmIndex(index) };
            for thread in vm.threads.iter().filter(|thread| thread.vcpu.is_none()) {
                by_tid.insert(thread.tid, ThreadIdentity { name: thread.role.clone(), kind });
            }
        }
        Threads { by_tid, kind_of_process }
    }

    /// Takes what an event says of a thread's name or birth.
    pub(super) fn learn(&mut self, event: &HostEvent) {
        match &event.kind {
            HostEventKind::Comm { tid, comm } => self.name(*tid, comm),
            HostEventKind::Fork { pid, tid, parent_pid } => {
                let of_process = self.kind_of_process.get(pid).copied();
                let parent = self.by_tid.get(parent_pid).map(|parent| parent.kind);
                let of_kernel = parent.filter(|kind| *kind == ThreadKind::Kernel);
                let kind = of_process.or(of_kernel).unwrap_or(ThreadKind::Host);
                self.by_tid.insert(*tid, ThreadIdentity { name: String::new(), kind });
            }
            HostEventKind::Switch(_)
            | HostEventKind::Waking { .. }
            | HostEventKind::Exit { .. }
            | HostEventKind::Kvm { .. }
            | HostEventKind::Block(_)
            | HostEventKind::Lost { .. } => {}
        }
    }

    /// The VM that a thread is of, if it is a thread of a VM's process: the kernel's helpers of
    /// io_uring are (linux: kernel/fork.c, `create_io_thread`, `CLONE_THREAD`), its worker pools are
    /// nobody's.
    pub(super) fn vm_of(&self, tid: Tid) -> Option<VmIndex> {
        match self.by_tid.get(&tid)?.kind {
            ThreadKind::Vmm { vm } => Some(vm),
            _ => None,
        }
    }

    /// All of them, by tid.
    pub(super) fn into_identities(self) -> HashMap<Tid, ThreadIdentity> {
        self.by_tid
    }

    fn name(&mut self, tid: Tid, comm: &str) {
        let unknown = ThreadIdentity { name: String::new(), kind: ThreadKind::Host };
        let identity = self.by_tid.entry(tid).or_insert(unknown);
        let has_role = matches!(identity.kind, ThreadKind::Vmm { .. }) && !identity.name.is_empty();
        if !has_role {
            comm.clone_into(&mut identity.name);
        }
    }
}
