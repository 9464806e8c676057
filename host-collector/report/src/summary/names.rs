//! Names for what the host numbers: threads and kernel stacks.

use super::control_group;
use super::group::GroupKind;
use super::model::{NamedThread, Relation};
use super::quota::QuotaUse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use vslice_core::control_groups::{ControlGroups, GroupName};
use vslice_core::host_event::StackId;
use vslice_core::task::{Process, Task, TaskGroup};
use vslice_core::text::harmless;
use vslice_core::timeline::DeviceAddress;
use vslice_core::units::{Tid, VcpuId};
use vslice_trace::memory_map::MemoryMap;

pub use vslice_core::task::{ThreadKind, VmIndex};

/// A VM of the run, and the threads of its vCPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmThreads {
    /// Its name in the plan.
    pub name: String,
    /// The size of its reader's requests in bytes; `None` if it has no reader.
    pub block_bytes: Option<u32>,
    /// Its vCPUs with the host threads that run them.
    pub vcpus: Vec<(VcpuId, Tid)>,
    /// What the quotas of vCPUs did, for those of which one was used up in the measured window.
    pub quotas: BTreeMap<VcpuId, QuotaUse>,
}

/// What the caller knows of the threads and stacks of a run. The threads of vCPUs need not be in
/// it: [`VmThreads`] names them.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// Threads under their latest names; one that is missing is called by its number.
    pub threads: HashMap<Tid, Arc<Task>>,
    /// The command lines of processes, where they could be read; they are anybody's text, made
    /// [harmless].
    pub commands: HashMap<Process, CommandLine>,
    /// Kernel symbols of a stack, the innermost first.
    pub stacks: HashMap<StackId, Vec<String>>,
    /// The devices of each VM, in the order of the VMs; one that is missing is called by its address.
    pub devices: Vec<MemoryMap>,
    /// The control groups of threads.
    pub groups: ControlGroups,
    /// The names of the VMs that were not recorded; their indices follow those of the run's VMs.
    pub other_vms: Vec<String>,
}

/// What a group of threads is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedGroup {
    pub(crate) kind: GroupKind,
    pub(crate) name: String,
    /// The path of the control group that it is, where that is known.
    pub(crate) path: Option<String>,
}

/// The command line of a process, which is that of the program that it ran under one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// The name of its first thread when the line was read.
    pub comm: String,
    /// The line.
    pub text: String,
}

/// Says who a thread is, as seen from a vCPU.
#[derive(Debug)]
pub(crate) struct Directory<'a> {
    names: &'a Names,
    vms: &'a [VmThreads],
    vcpu_threads: HashMap<Tid, (VmIndex, VcpuId)>,
}

impl<'a> Directory<'a> {
    pub(crate) fn new(names: &'a Names, vms: &'a [VmThreads]) -> Self {
        let mut vcpu_threads = HashMap::new();
        for (index, vm) in vms.iter().enumerate() {
            for (vcpu, tid) in &vm.vcpus {
                vcpu_threads.insert(*tid, (VmIndex(index), *vcpu));
            }
        }
        Directory { names, vms, vcpu_threads }
    }

    /// The vCPU of this VM whose thread this is.
    pub(super) fn vcpu_of(&self, vm: VmIndex, tid: Tid) -> Option<VcpuId> {
        self.vcpu_threads.get(&tid).filter(|(of, _)| *of == vm).map(|(_, vcpu)| *vcpu)
    }

    /// The name of a VM; a caller that invents an index gets a name that says so.
    pub(super) fn vm_name(&self, vm: VmIndex) -> String {
        let other = || self.names.other_vms.get(vm.0.checked_sub(self.vms.len())?).cloned();
        let name = self.vms.get(vm.0).map(|vm| vm.name.clone());
        name.or_else(other).unwrap_or_else(|| format!("VM number {}", vm.0))
    }

    /// What the group of a task is called, as seen from a vCPU of `victim`: its VM, else its control group, else
    /// its own name.
    pub(crate) fn group(&self, task: &Task, victim: VmIndex) -> NamedGroup {
        let thread = || self.task(task, victim).name;
        let vcpu = self.vcpu_threads.get(&task.tid).map(|(vm, _)| TaskGroup::Vm(*vm));
        let (kind, name) = match vcpu.unwrap_or(task.task_group()) {
            TaskGroup::Vm(vm) if vm == victim => (GroupKind::OwnVm, self.vm_name(vm)),
            TaskGroup::Vm(vm) => (GroupKind::OtherVm, self.vm_name(vm)),
            TaskGroup::Collector => (GroupKind::Collector, "this vslice".to_owned()),
            TaskGroup::OtherVslice { .. } => (GroupKind::OtherVslice, thread()),
            TaskGroup::Kernel => (GroupKind::KernelThread, thread()),
            TaskGroup::Unknown => (GroupKind::Unknown, thread()),
            TaskGroup::Control(group) => {
                let name = match self.names.groups.name(group) {
                    Some(GroupName::Path(path)) => control_group::name_of(path),
                    Some(GroupName::Gone(number)) => {
                        format!("control group {number}, gone before it was named")
                    }
                    Some(GroupName::Unnamed(number)) => {
                        format!("control group {number}, whose path was not recorded")
                    }
                    None => "an unknown control group".to_owned(),
                };
                let path = match self.names.groups.name(group) {
                    Some(GroupName::Path(path)) => Some(path.to_string()),
                    Some(GroupName::Gone(_) | GroupName::Unnamed(_)) | None => None,
                };
                return NamedGroup { kind: GroupKind::ControlGroup, name, path };
            }
        };
        NamedGroup { kind, name, path: None }
    }

    /// Who `tid` is to a vCPU of `victim`, under its latest name.
    pub(super) fn thread(&self, tid: Tid, victim: VmIndex) -> NamedThread {
        if tid == Tid::IDLE {
            return NamedThread { tid, name: "idle".to_owned(), kind: Relation::Idle };
        }
        match self.names.threads.get(&tid) {
            Some(task) => self.task(task, victim),
            None => self.task(&Task::unknown(tid), victim),
        }
    }

    /// Who a task is to a vCPU of `victim`.
    pub(super) fn task(&self, task: &Task, victim: VmIndex) -> NamedThread {
        let tid = task.tid;
        let named = |name: String, kind: Relation| NamedThread { tid, name, kind };
        if let Some((vm, vcpu)) = self.vcpu_threads.get(&tid) {
            return self.vcpu(tid, *vm, *vcpu, victim);
        }
        let name = task.name.clone();
        match task.kind {
            ThreadKind::Vcpu { vm, vcpu } => self.vcpu(tid, vm, vcpu, victim),
            ThreadKind::Vmm { vm } => {
                let name = format!("{} {name}", self.vm_name(vm));
                let is_own = vm == victim;
                let kind = if is_own { Relation::OwnVmThread } else { Relation::OtherVmThread };
                named(name, kind)
            }
            ThreadKind::Collector => named(name, Relation::Collector),
            ThreadKind::OtherVslice { pid } => {
                named(format!("another vslice (pid {pid})"), Relation::OtherVslice)
            }
            ThreadKind::Kernel => named(name, Relation::KernelThread),
            ThreadKind::Host => named(name, Relation::HostTask),
            ThreadKind::Unknown => named(name, Relation::Unknown),
        }
    }

    /// The command line of a task's process, where it could be read; the kernel's own have none. A process that
    /// is called otherwise runs, or ran, another program, as a shell's child does until it is a program of its
    /// own.
    pub(super) fn command(&self, task: &Task) -> Option<String> {
        let process = task.process?;
        let command = self.names.commands.get(&process)?;
        let has_name = match task.kind {
            // It is called by its role.
            ThreadKind::Vcpu { .. } | ThreadKind::Vmm { .. } => false,
            _ => task.tid == process.pid,
        };
        (!has_name || harmless(&task.name) == command.comm).then(|| command.text.clone())
    }

    fn vcpu(&self, tid: Tid, vm: VmIndex, vcpu: VcpuId, victim: VmIndex) -> NamedThread {
        let kind = if vm == victim { Relation::OwnVmVcpu } else { Relation::OtherVmVcpu };
        NamedThread { tid, name: format!("{} {vcpu}", self.vm_name(vm)), kind }
    }

    /// The device of a VM at an address: its name where the VM's memory map tells, else the address.
    pub(super) fn device(&self, vm: VmIndex, at: DeviceAddress) -> String {
        self.names.devices.get(vm.0).unwrap_or(&MemoryMap::default()).device(at)
    }

    /// The symbols of a stack; empty where there is none.
    pub(super) fn frames(&self, stack: Option<StackId>) -> &[String] {
        stack.and_then(|stack| self.names.stacks.get(&stack)).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_core::units::HostNs;

    fn named(tid: Tid, kind: Relation, name: &str) -> NamedThread {
        NamedThread { tid, name: name.to_owned(), kind }
    }

    #[test]
    fn a_command_line_is_that_of_the_name_under_which_it_was_read() {
        let process = Process { pid: Tid(7), since: HostNs(5) };
        let mut names = Names::default();
        let command = CommandLine { comm: "dd".to_owned(), text: "dd if=/dev/vdb".to_owned() };
        names.commands.insert(process, command);
        let directory = Directory::new(&names, &[]);
        let told = |tid, name: &str, kind| {
            let (process, name) = (Some(process), name.to_owned());
            directory.command(&Task { process, name, kind, ..Task::unknown(Tid(tid)) })
        };
        let line = Some("dd if=/dev/vdb".to_owned());
        assert_eq!(told(7, "dd", ThreadKind::Host), line);
        assert_eq!(told(7, "bash", ThreadKind::Host), None, "before it was dd");
        assert_eq!(told(8, "worker", ThreadKind::Host), line, "another thread of it");
        assert_eq!(told(7, "main loop", ThreadKind::Vmm { vm: VmIndex(0) }), line, "a role");
    }

    #[test]
    fn a_thread_is_named_as_seen_from_the_vcpu_that_waits() {
        let vm = |name: &str, vcpu1| VmThreads {
            name: name.into(),
            block_bytes: None,
            vcpus: vec![(VcpuId(1), Tid(vcpu1))],
            quotas: BTreeMap::new(),
        };
        let vms = [vm("vm1", 11), vm("vm2", 21)];
        let mut names = Names::default();
        for (tid, name, kind) in [
            (12, "main loop", ThreadKind::Vmm { vm: VmIndex(0) }),
            (22, "worker", ThreadKind::Vmm { vm: VmIndex(1) }),
            (30, "kworker/1:1", ThreadKind::Kernel),
            (31, "cargo", ThreadKind::Host),
            (32, "vslice", ThreadKind::Collector),
            (33, "sampler", ThreadKind::OtherVslice { pid: Tid(34) }),
        ] {
            let task = Task { name: name.into(), kind, ..Task::unknown(Tid(tid)) };
            names.threads.insert(Tid(tid), Arc::new(task));
        }
        let directory = Directory::new(&names, &vms);
        let seen_from_vm1 = |tid| directory.thread(Tid(tid), VmIndex(0));
        for (tid, kind, name) in [
            (0, Relation::Idle, "idle"),
            (11, Relation::OwnVmVcpu, "vm1 vCPU1"),
            (12, Relation::OwnVmThread, "vm1 main loop"),
            (21, Relation::OtherVmVcpu, "vm2 vCPU1"),
            (22, Relation::OtherVmThread, "vm2 worker"),
            (30, Relation::KernelThread, "kworker/1:1"),
            (31, Relation::HostTask, "cargo"),
            (32, Relation::Collector, "vslice"),
            (33, Relation::OtherVslice, "another vslice (pid 34)"),
            (99, Relation::Unknown, "tid 99"),
        ] {
            assert_eq!(seen_from_vm1(tid), named(Tid(tid), kind, name));
        }
        assert_eq!(directory.thread(Tid(21), VmIndex(1)).kind, Relation::OwnVmVcpu);
        assert_eq!(directory.thread(Tid(12), VmIndex(1)).kind, Relation::OtherVmThread);
    }
}
