//! Who is who when recording begins: the threads of the host, from the census and the manifest.

use crate::summary::{CommandLine, ThreadKind, VmIndex, Warning};
use std::collections::HashMap;
use std::io::ErrorKind;
use vslice_core::control_groups::ControlGroups;
use vslice_core::task::{Process, Task};
use vslice_core::text::harmless;
use vslice_core::timeline::{Arrival, Tasks};
use vslice_core::units::{HostNs, Tid};
use vslice_trace::manifest::Manifest;
use vslice_trace::thread::{HelperRecord, HostThread, ThreadRecord};
use vslice_trace::{GroupItem, RunDir, StoreError};

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

/// The control groups that events name by their numbers; and why some of their paths cannot be read, if there
/// are any.
pub(super) fn control_groups(run: &RunDir) -> (ControlGroups, Option<Warning>) {
    let mut groups = ControlGroups::default();
    let why = match vslice_trace::read_all::<GroupItem>(&run.groups_path()) {
        Ok((items, _)) => {
            for GroupItem { number, path } in items {
                match path {
                    Some(path) => groups.is_at(number, &harmless(&path)),
                    None => groups.is_gone(number),
                }
            }
            return (groups, None);
        }
        // In older runs, and where no thread's group is told.
        Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return (groups, None);
        }
        Err(StoreError::Io { source, .. }) => source.to_string(),
        Err(_) => "it is damaged".to_owned(),
    };
    let text =
        format!("groups.vsr cannot be read ({}): control groups have numbers only", harmless(&why));
    (groups, Some(Warning::Notice { text }))
}

/// Those that were there when recording started, and what is known of those that came.
pub(super) fn tasks(
    manifest: &Manifest,
    census: &[HostThread],
    mut groups: ControlGroups,
) -> Tasks {
    let vms = vms(manifest);
    let mut kind_of_process = HashMap::from([(manifest.collector_pid, ThreadKind::Collector)]);
    for vm in vms.iter().filter(|vm| vm.since == HostNs(0)) {
        kind_of_process.extend(vm.processes.iter().map(|pid| (*pid, vm.kind())));
    }
    let mut group_of_process = HashMap::new();
    for thread in census.iter().filter(|thread| thread.tid == thread.pid) {
        let group = thread.group.as_deref().and_then(|path| groups.at(&harmless(path)));
        group_of_process.extend(group.map(|group| (thread.pid, group)));
    }
    let there_before = |tid, pid, kind, name| {
        let since = HostNs(0);
        let group = group_of_process.get(&pid).copied();
        Task { tid, since, process: Some(Process { pid, since }), kind, name, group }
    };
    let mut tasks = Tasks::new(kind_of_process.clone()).with_groups(groups);
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
    for vm in vms.iter().filter(|vm| vm.since == HostNs(0)) {
        for (tid, kind, role) in vm.threads() {
            tasks.add(there_before(tid, vm.pid, kind, role));
        }
    }
    let later = vms.iter().filter(|vm| vm.since > HostNs(0));
    tasks.with_arrivals(later.map(HostVm::arrival).collect())
}

/// A VM of the host, recorded or not.
struct HostVm<'a> {
    index: VmIndex,
    pid: Tid,
    since: HostNs,
    /// All that work for it alone.
    processes: Vec<Tid>,
    helpers: &'a [HelperRecord],
    threads: &'a [ThreadRecord],
}

impl HostVm<'_> {
    fn kind(&self) -> ThreadKind {
        ThreadKind::Vmm { vm: self.index }
    }

    /// Its threads with their kinds and roles.
    fn threads(&self) -> impl Iterator<Item = (Tid, ThreadKind, String)> {
        self.threads.iter().map(|thread| {
            let vcpu = thread.vcpu.map(|vcpu| ThreadKind::Vcpu { vm: self.index, vcpu });
            (thread.tid, vcpu.unwrap_or(self.kind()), thread.role.to_string())
        })
    }

    fn arrival(&self) -> Arrival {
        let (since, pid, kind) = (self.since, self.pid, self.kind());
        Arrival { since, pid, kind, threads: self.threads().collect() }
    }
}

/// The VMs that were recorded, then those that were not.
fn vms(manifest: &Manifest) -> Vec<HostVm<'_>> {
    let recorded = manifest.vms.iter().map(|vm| HostVm {
        index: VmIndex(0),
        pid: vm.pid,
        since: HostNs(0),
        processes: std::iter::once(vm.pid).chain(vm.device_pid).collect(),
        helpers: &vm.helpers,
        threads: &vm.threads,
    });
    let others = manifest.other_vms.iter().map(|vm| HostVm {
        index: VmIndex(0),
        pid: vm.pid,
        since: vm.since_ns,
        processes: vec![vm.pid],
        helpers: &vm.helpers,
        threads: &vm.threads,
    });
    let mut vms: Vec<HostVm<'_>> = recorded.chain(others).collect();
    let mut served_counts = HashMap::<Tid, usize>::new();
    for helper in vms.iter().flat_map(|vm| vm.helpers) {
        *served_counts.entry(helper.pid).or_default() += 1;
    }
    for (place, vm) in vms.iter_mut().enumerate() {
        vm.index = VmIndex(place);
        // Whoever serves several VMs, as Open vSwitch does, belongs to none of them, nor does one of whom only
        // its command line says that it serves any: a shell that names the socket has the same.
        let proven = vm.helpers.iter().filter(|helper| !helper.is_inferred);
        let helpers = proven.map(|helper| helper.pid);
        vm.processes.extend(helpers.filter(|pid| served_counts.get(pid) == Some(&1)));
    }
    vms
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
