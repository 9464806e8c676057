//! Who is who when recording begins: the threads of the host, from the census and the manifest.

use crate::report::{ThreadKind, VmIndex};
use crate::run::census::HostThread;
use crate::run::manifest::Manifest;
use crate::task::{Process, Task};
use crate::timeline::Tasks;
use crate::units::{HostNs, Tid};
use std::collections::HashMap;

/// Those that were there when recording started.
pub(super) fn tasks(manifest: &Manifest, census: Vec<HostThread>) -> Tasks {
    let mut kind_of_process = HashMap::from([(manifest.collector_pid, ThreadKind::Collector)]);
    for (index, vm) in manifest.vms.iter().enumerate() {
        let kind = ThreadKind::Vmm { vm: VmIndex(index) };
        kind_of_process.insert(vm.pid, kind);
        kind_of_process.extend(vm.device_pid.map(|pid| (pid, kind)));
    }
    let mut tasks = Tasks::new(kind_of_process.clone());
    for thread in census {
        let other = if thread.is_kernel { ThreadKind::Kernel } else { ThreadKind::Host };
        let kind = kind_of_process.get(&thread.pid).copied().unwrap_or(other);
        tasks.add(there_before(thread.tid, thread.pid, kind, thread.comm));
    }
    // The role of a VMM's thread says more than its name.
    for (index, vm) in manifest.vms.iter().enumerate() {
        let vm_index = VmIndex(index);
        for thread in &vm.threads {
            let kind = match thread.vcpu {
                Some(vcpu) => ThreadKind::Vcpu { vm: vm_index, vcpu },
                None => ThreadKind::Vmm { vm: vm_index },
            };
            tasks.add(there_before(thread.tid, vm.pid, kind, thread.role.clone()));
        }
    }
    tasks
}

fn there_before(tid: Tid, pid: Tid, kind: ThreadKind, name: String) -> Task {
    let since = HostNs(0);
    Task { tid, since, process: Some(Process { pid, since }), kind, name }
}
