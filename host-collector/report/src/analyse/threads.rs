//! Who is who when recording begins: the threads of the host, from the census and the manifest.

use crate::summary::{CommandLine, ThreadKind, VmIndex, Warning};
use std::collections::HashMap;
use std::io::ErrorKind;
use vslice_core::task::{Process, Task};
use vslice_core::text::harmless;
use vslice_core::timeline::Tasks;
use vslice_core::units::{HostNs, Tid};
use vslice_trace::manifest::Manifest;
use vslice_trace::thread::HostThread;
use vslice_trace::{RunDir, StoreError};

/// A census of a run; and why it cannot be read, if it is there. It costs names then, and not the report:
/// whoever may read the rest may not be its owner, for instance.
pub(super) fn census(run: &RunDir, name: &str) -> (Vec<HostThread>, Option<Warning>) {
    // Without the path, as the same run is the same report wherever it lies.
    let why = match run.read_json(name) {
        Ok(threads) => return (threads, None),
        // A run that ended early has not written the last one.
        Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return (Vec::new(), None);
        }
        Err(StoreError::Io { source, .. }) => source.to_string(),
        Err(StoreError::Json { source, .. }) => source.to_string(),
        Err(StoreError::TooLarge { limit_bytes, .. }) => {
            format!("it is larger than {limit_bytes} bytes")
        }
        Err(other) => other.to_string(),
    };
    let text = format!(
        "{name} cannot be read ({}): antagonists' kinds, names and command lines that only it has are missing",
        harmless(&why)
    );
    (Vec::new(), Some(Warning::Notice { text }))
}

/// Those that were there when recording started.
pub(super) fn tasks(manifest: &Manifest, census: &[HostThread]) -> Tasks {
    let mut kind_of_process = HashMap::from([(manifest.collector_pid, ThreadKind::Collector)]);
    for (index, vm) in manifest.vms.iter().enumerate() {
        let kind = ThreadKind::Vmm { vm: VmIndex(index) };
        kind_of_process.insert(vm.pid, kind);
        kind_of_process.extend(vm.device_pid.map(|pid| (pid, kind)));
    }
    let mut tasks = Tasks::new(kind_of_process.clone());
    for thread in census {
        let other = match &thread {
            HostThread { is_kernel: true, .. } => ThreadKind::Kernel,
            HostThread { is_vslice: true, pid, .. } => ThreadKind::OtherVslice { pid: *pid },
            _ => ThreadKind::Host,
        };
        let kind = kind_of_process.get(&thread.pid).copied().unwrap_or(other);
        tasks.add(there_before(thread.tid, thread.pid, kind, thread.comm.clone()));
    }
    // The role of a VMM's thread says more than its name.
    for (index, vm) in manifest.vms.iter().enumerate() {
        let vm_index = VmIndex(index);
        for thread in &vm.threads {
            let kind = match thread.vcpu {
                Some(vcpu) => ThreadKind::Vcpu { vm: vm_index, vcpu },
                None => ThreadKind::Vmm { vm: vm_index },
            };
            tasks.add(there_before(thread.tid, vm.pid, kind, thread.role.to_string()));
        }
    }
    tasks
}

fn there_before(tid: Tid, pid: Tid, kind: ThreadKind, name: String) -> Task {
    let since = HostNs(0);
    Task { tid, since, process: Some(Process { pid, since }), kind, name, group: None }
}

/// The command lines of those that were there before, and of those that had come by the end, each with the name
/// that its process had then.
pub(super) fn commands(
    before: &[HostThread],
    came: &[HostThread],
    tasks: &Tasks,
) -> HashMap<Process, CommandLine> {
    let line = |thread: &HostThread| {
        Some(CommandLine { comm: thread.comm.clone(), text: thread.command.clone()? })
    };
    let mut commands = HashMap::new();
    for thread in before {
        let process = Process { pid: thread.pid, since: HostNs(0) };
        commands.extend(line(thread).map(|line| (process, line)));
    }
    let came: HashMap<Tid, CommandLine> =
        came.iter().filter_map(|thread| Some((thread.tid, line(thread)?))).collect();
    for (tid, task) in tasks.all() {
        let Some(process) = task.process.filter(|process| process.pid == tid) else { continue };
        let Some(command) = came.get(&tid) else { continue };
        if process.since == HostNs(0) {
            // It runs another program than at first, and which of them ran when is not known.
            commands.remove(&process);
        } else if command.comm == harmless(&task.name) {
            commands.insert(process, command.clone());
        }
    }
    commands
}
