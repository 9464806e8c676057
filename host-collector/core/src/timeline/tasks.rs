//! The host's threads and their names over time: what the census says at first, and what is recorded of
//! forks, renames and exits.

use crate::control_groups::ControlGroups;
use crate::host_event::{HostEvent, HostEventKind};
use crate::task::{Process, Task, ThreadKind, VmIndex};
use crate::units::{HostNs, Tid};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::Arc;

/// Threads that have ended and are still known, for those that they woke; the oldest are forgotten
/// first.
const ENDED_MAX: usize = 1 << 16;

/// What vslice is called. Anybody may be called so.
const VSLICE: &str = "vslice";

/// The threads that are known so far.
#[derive(Debug, Default)]
pub struct Tasks {
    by_tid: FxHashMap<Tid, TaskEntry>,
    /// Whose threads a process's newborns are, of processes that were there when recording began.
    kind_of_process: FxHashMap<Tid, ThreadKind>,
    ended: VecDeque<Tid>,
    groups: ControlGroups,
    /// VMs that are known from some time on, the earliest first.
    arrivals: VecDeque<Arrival>,
}

/// A process that is known to be a VM's from some time on.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The time.
    pub since: HostNs,
    /// The process.
    pub pid: Tid,
    /// What its threads are, but for those that are listed.
    pub kind: ThreadKind,
    /// Threads with roles: what they are and what they are called.
    pub threads: Vec<(Tid, ThreadKind, String)>,
}

#[derive(Debug)]
struct TaskEntry {
    task: Arc<Task>,
    has_ended: bool,
}

impl Tasks {
    /// Empty; the future threads of these processes are of these kinds.
    #[must_use]
    pub fn new(kind_of_process: impl IntoIterator<Item = (Tid, ThreadKind)>) -> Tasks {
        let kind_of_process = kind_of_process.into_iter().collect();
        Tasks { kind_of_process, ..Tasks::default() }
    }

    /// The control groups, of which events say only the numbers.
    #[must_use]
    pub fn with_groups(mut self, groups: ControlGroups) -> Tasks {
        self.groups = groups;
        self
    }

    /// Processes that are known to be a VM's from some time on.
    #[must_use]
    pub fn with_arrivals(mut self, mut arrivals: Vec<Arrival>) -> Tasks {
        arrivals.sort_by_key(|arrival| arrival.since);
        self.arrivals = arrivals.into();
        self
    }

    /// The control groups of all that was learnt.
    #[must_use]
    pub fn groups(&self) -> &ControlGroups {
        &self.groups
    }

    /// The same, to learn of more.
    pub fn groups_mut(&mut self) -> &mut ControlGroups {
        &mut self.groups
    }

    /// Adds a thread that existed when recording began; it replaces what was known of it.
    pub fn add(&mut self, task: Task) {
        self.put(task);
    }

    /// The thread under its current name.
    pub fn get(&mut self, tid: Tid) -> Arc<Task> {
        let unknown = || TaskEntry { task: Arc::new(Task::unknown(tid)), has_ended: false };
        Arc::clone(&self.by_tid.entry(tid).or_insert_with(unknown).task)
    }

    /// The thread under its current name, if anything is known of it.
    #[must_use]
    pub fn known(&self, tid: Tid) -> Option<&Arc<Task>> {
        Some(&self.by_tid.get(&tid)?.task)
    }

    /// The VM that a thread is of, if it is a thread of a VM's process: the kernel's helpers of
    /// io_uring are (linux: kernel/fork.c, `create_io_thread`, `CLONE_THREAD`), its worker pools are
    /// nobody's.
    #[must_use]
    pub fn vm_of(&self, tid: Tid) -> Option<VmIndex> {
        match self.by_tid.get(&tid)?.task.kind {
            ThreadKind::Vmm { vm } | ThreadKind::Vcpu { vm, .. } => Some(vm),
            _ => None,
        }
    }

    /// The name of a thread of the kernel, if it is one.
    #[must_use]
    pub fn kernel_thread(&self, tid: Tid) -> Option<&str> {
        let task = &self.by_tid.get(&tid)?.task;
        (task.kind == ThreadKind::Kernel).then_some(task.name.as_str())
    }

    /// The process that a thread is of, where that is known.
    #[must_use]
    pub fn process_of(&self, tid: Tid) -> Option<Tid> {
        Some(self.by_tid.get(&tid)?.task.process?.pid)
    }

    /// All threads that are still known, by tid, under their latest names.
    pub fn all(&self) -> impl Iterator<Item = (Tid, &Arc<Task>)> {
        self.by_tid.iter().map(|(tid, known)| (*tid, &known.task))
    }

    /// The thread that an event says is called otherwise from now on, is elsewhere, or is another one.
    pub(super) fn changed_by(event: &HostEvent) -> Option<Tid> {
        match event.kind {
            HostEventKind::Comm { tid, .. }
            | HostEventKind::Group { tid, .. }
            | HostEventKind::Fork { tid, .. } => Some(tid),
            _ => None,
        }
    }

    /// Takes what an event says of a thread's name, control group, birth or end.
    pub fn learn(&mut self, event: &HostEvent) {
        while let Some(arrival) = self.arrivals.pop_front_if(|next| next.since <= event.time) {
            self.arrive(&arrival);
        }
        match &event.kind {
            HostEventKind::Comm { tid, comm } => self.name(*tid, event.time, comm),
            HostEventKind::Group { tid, group } => self.enters(*tid, *group),
            HostEventKind::Fork { pid, tid, parent_pid } => {
                self.born(event.time, *pid, *tid, *parent_pid);
            }
            HostEventKind::Exit { tid } => self.end(*tid),
            _ => {}
        }
    }

    fn put(&mut self, task: Task) {
        let known = TaskEntry { task: Arc::new(task), has_ended: false };
        self.by_tid.insert(known.task.tid, known);
    }

    fn kind_of(&self, tid: Tid) -> Option<ThreadKind> {
        self.by_tid.get(&tid).map(|known| known.task.kind)
    }

    fn born(&mut self, since: HostNs, pid: Tid, tid: Tid, parent_pid: Tid) {
        let is_thread = pid != tid;
        if !is_thread {
            // Whoever had this number before is gone.
            self.kind_of_process.remove(&pid);
        }
        // A process is its parent's copy until it runs a program of its own.
        let inherited = self.kind_of(if is_thread { pid } else { parent_pid });
        let inherited = inherited.filter(|kind| match kind {
            ThreadKind::Kernel | ThreadKind::Collector | ThreadKind::OtherVslice { .. } => true,
            ThreadKind::Vcpu { .. }
            | ThreadKind::Vmm { .. }
            | ThreadKind::Host
            | ThreadKind::Unknown => false,
        });
        let of_process = self.kind_of_process.get(&pid).copied();
        let kind = of_process.or(inherited).unwrap_or(ThreadKind::Host);
        let leader = self.by_tid.get(&pid).filter(|_| is_thread);
        let process = match leader.and_then(|leader| leader.task.process) {
            Some(process) => process,
            // A leader that is not known may have been there before anybody looked.
            None => Process { pid, since: if is_thread { HostNs(0) } else { since } },
        };
        let name = format!("tid {tid}");
        self.put(Task { tid, since, process: Some(process), kind, name, group: None });
    }

    fn arrive(&mut self, arrival: &Arrival) {
        self.kind_of_process.insert(arrival.pid, arrival.kind);
        let of_it = |task: &Task| task.process.is_some_and(|process| process.pid == arrival.pid);
        for known in self.by_tid.values_mut().filter(|known| of_it(&known.task)) {
            if !known.has_ended {
                known.task = Arc::new(Task { kind: arrival.kind, ..(*known.task).clone() });
            }
        }
        for (tid, kind, name) in &arrival.threads {
            let process = Some(Process { pid: arrival.pid, since: arrival.since });
            let new = Task { since: arrival.since, process, ..Task::unknown(*tid) };
            let known = self.by_tid.get(tid).filter(|known| of_it(&known.task) && !known.has_ended);
            let task = known.map_or(new, |known| (*known.task).clone());
            self.put(Task { kind: *kind, name: name.clone(), ..task });
        }
    }

    /// The VM that one of the kernel's threads works for alone: one of vhost is called after the thread that
    /// owns its device (linux 6.1: drivers/vhost/vhost.c, `vhost_dev_set_owner`, `current->pid`); since 6.4 it
    /// is a thread of the VMM.
    fn served_by(&self, kind: ThreadKind, comm: &str) -> Option<ThreadKind> {
        let owner = comm.strip_prefix("vhost-").filter(|_| kind == ThreadKind::Kernel)?;
        let vm = self.vm_of(Tid(owner.parse().ok()?))?;
        Some(ThreadKind::Vmm { vm })
    }

    fn enters(&mut self, tid: Tid, number: u64) {
        let group = self.groups.numbered(number);
        let unknown = || TaskEntry { task: Arc::new(Task::unknown(tid)), has_ended: false };
        let known = self.by_tid.entry(tid).or_insert_with(unknown);
        if known.task.group != group {
            known.task = Arc::new(Task { group, ..(*known.task).clone() });
        }
    }

    fn name(&mut self, tid: Tid, time: HostNs, comm: &str) {
        let known = self.by_tid.get(&tid);
        let (since, process, group) = known.map_or((time, None, None), |known| {
            (known.task.since, known.task.process, known.task.group)
        });
        let has_ended = known.is_some_and(|known| known.has_ended);
        let kind = known.map_or(ThreadKind::Unknown, |known| known.task.kind);
        // The role of a VMM's thread says more than its name.
        let has_role = match kind {
            ThreadKind::Vcpu { .. } => true,
            ThreadKind::Vmm { .. } => known.is_some_and(|known| known.task.since == HostNs(0)),
            _ => false,
        };
        if has_role {
            return;
        }
        let is_leader = process.is_none_or(|process| process.pid == tid);
        let kind = match kind {
            kind if !is_leader || self.kind_of_process.contains_key(&tid) => kind,
            ThreadKind::Kernel => ThreadKind::Kernel,
            ThreadKind::Collector | ThreadKind::OtherVslice { .. } if comm == VSLICE => kind,
            _ if comm == VSLICE => ThreadKind::OtherVslice { pid: tid },
            _ => ThreadKind::Host,
        };
        let kind = if kind == ThreadKind::Unknown { ThreadKind::Host } else { kind };
        let kind = self.served_by(kind, comm).unwrap_or(kind);
        let task = Arc::new(Task { tid, since, process, kind, name: comm.to_owned(), group });
        self.by_tid.insert(tid, TaskEntry { task, has_ended });
    }

    /// It has ended, and is still on its pCPU for the last time.
    fn end(&mut self, tid: Tid) {
        let Some(known) = self.by_tid.get_mut(&tid) else { return };
        if std::mem::replace(&mut known.has_ended, true) {
            return;
        }
        self.ended.push_back(tid);
        while self.ended.len() > ENDED_MAX {
            let oldest = self.ended.pop_front();
            // It may be another one's number again.
            let gone =
                oldest.filter(|tid| self.by_tid.get(tid).is_some_and(|known| known.has_ended));
            gone.and_then(|tid| self.by_tid.remove(&tid));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{PcpuId, VcpuId};

    const COLLECTOR: Tid = Tid(10);
    const VMM: Tid = Tid(20);

    fn tasks() -> Tasks {
        let vmm = ThreadKind::Vmm { vm: VmIndex(0) };
        let mut tasks = Tasks::new([(COLLECTOR, ThreadKind::Collector), (VMM, vmm)]);
        let mut add = |tid, pid, kind, name: &str| {
            let process = Some(Process { pid: Tid(pid), since: HostNs(0) });
            let (tid, since, name) = (Tid(tid), HostNs(0), name.to_owned());
            tasks.add(Task { tid, since, process, kind, name, group: None });
        };
        add(2, 2, ThreadKind::Kernel, "kthreadd");
        add(10, 10, ThreadKind::Collector, "vslice");
        add(20, 20, vmm, "main loop");
        add(30, 30, ThreadKind::Host, "bash");
        add(40, 40, ThreadKind::OtherVslice { pid: Tid(40) }, "vslice");
        tasks
    }

    fn learn(tasks: &mut Tasks, time: u64, kind: HostEventKind) {
        tasks.learn(&HostEvent { time: HostNs(time), pcpu: PcpuId(0), kind });
    }

    fn fork(tasks: &mut Tasks, time: u64, pid: u32, tid: u32, parent_pid: u32) {
        let (pid, tid, parent_pid) = (Tid(pid), Tid(tid), Tid(parent_pid));
        learn(tasks, time, HostEventKind::Fork { pid, tid, parent_pid });
    }

    fn comm(tasks: &mut Tasks, time: u64, tid: u32, comm: &str) {
        learn(tasks, time, HostEventKind::Comm { tid: Tid(tid), comm: comm.to_owned() });
    }

    #[test]
    fn a_newborn_is_a_process_of_its_own_and_named_as_it_goes() {
        let mut tasks = tasks();
        fork(&mut tasks, 5, 31, 31, 30);
        comm(&mut tasks, 6, 31, "bash");
        let before = tasks.get(Tid(31));
        comm(&mut tasks, 7, 31, "true");
        let after = tasks.get(Tid(31));
        assert_eq!((before.name.as_str(), after.name.as_str()), ("bash", "true"));
        let process = Some(Process { pid: Tid(31), since: HostNs(5) });
        assert_eq!(
            (after.process, after.since, after.kind),
            (process, HostNs(5), ThreadKind::Host)
        );
    }

    #[test]
    fn a_thread_keeps_its_control_group_until_it_is_seen_in_another() {
        let mut tasks = tasks();
        tasks.groups_mut().is_at(5, "/a.scope");
        let group = |tasks: &mut Tasks| tasks.get(Tid(31)).group;
        fork(&mut tasks, 5, 31, 31, 30);
        assert_eq!(group(&mut tasks), None, "it may have been born into any");
        learn(&mut tasks, 5, HostEventKind::Group { tid: Tid(31), group: 5 });
        comm(&mut tasks, 7, 31, "true");
        assert_eq!(group(&mut tasks), tasks.groups_mut().at("/a.scope"));
        let before = tasks.get(Tid(31));
        learn(&mut tasks, 8, HostEventKind::Group { tid: Tid(31), group: 6 });
        assert_eq!(group(&mut tasks), tasks.groups_mut().numbered(6));
        assert_ne!(before.task_group(), tasks.get(Tid(31)).task_group());
        fork(&mut tasks, 9, 31, 31, 30);
        assert_eq!(group(&mut tasks), None, "another thread");
    }

    #[test]
    fn a_vm_that_came_later_is_one_from_then_on() {
        let (vmm, vcpu) = (ThreadKind::Vmm { vm: VmIndex(1) }, VcpuId(0));
        let vcpu = ThreadKind::Vcpu { vm: VmIndex(1), vcpu };
        let threads = vec![(Tid(51), vcpu, "vCPU0".to_owned())];
        let arrival = Arrival { since: HostNs(10), pid: Tid(50), kind: vmm, threads };
        let mut tasks = tasks().with_arrivals(vec![arrival]);
        let of = |tasks: &mut Tasks, tid| {
            let task = tasks.get(Tid(tid));
            (task.kind, task.name.clone())
        };
        fork(&mut tasks, 5, 50, 50, 30);
        comm(&mut tasks, 6, 50, "qemu-system-x86");
        fork(&mut tasks, 7, 50, 51, 50);
        comm(&mut tasks, 9, 51, "CPU 0/KVM");
        assert_eq!(of(&mut tasks, 51), (ThreadKind::Host, "CPU 0/KVM".to_owned()));
        comm(&mut tasks, 10, 30, "bash");
        assert_eq!(of(&mut tasks, 51), (vcpu, "vCPU0".to_owned()));
        assert_eq!(of(&mut tasks, 50), (vmm, "qemu-system-x86".to_owned()));
        fork(&mut tasks, 11, 50, 52, 50);
        comm(&mut tasks, 11, 52, "worker");
        assert_eq!(of(&mut tasks, 52), (vmm, "worker".to_owned()));
        fork(&mut tasks, 20, 50, 50, 30);
        comm(&mut tasks, 21, 50, "bash");
        assert_eq!(of(&mut tasks, 50), (ThreadKind::Host, "bash".to_owned()), "another process");
    }

    #[test]
    fn the_kernels_threads_for_vhost_are_their_vms_and_nobody_else_with_such_a_name() {
        let mut tasks = tasks();
        fork(&mut tasks, 1, 3, 3, 2);
        comm(&mut tasks, 1, 3, "vhost-20");
        fork(&mut tasks, 1, 4, 4, 2);
        comm(&mut tasks, 1, 4, "vhost-30");
        fork(&mut tasks, 1, 31, 31, 30);
        comm(&mut tasks, 1, 31, "vhost-20");
        let kind = |tasks: &mut Tasks, tid| tasks.get(Tid(tid)).kind;
        assert_eq!(kind(&mut tasks, 3), ThreadKind::Vmm { vm: VmIndex(0) });
        assert_eq!(kind(&mut tasks, 4), ThreadKind::Kernel, "30 is no VMM");
        assert_eq!(kind(&mut tasks, 31), ThreadKind::Host, "a process of anybody");
    }

    #[test]
    fn a_number_that_is_used_again_is_another_thread() {
        let mut tasks = tasks();
        fork(&mut tasks, 5, 31, 31, 30);
        learn(&mut tasks, 6, HostEventKind::Exit { tid: Tid(31) });
        fork(&mut tasks, 9, 31, 31, 30);
        assert_eq!(tasks.get(Tid(31)).since, HostNs(9));
    }

    #[test]
    fn whoever_is_called_vslice_and_is_not_ours_is_another_one() {
        let mut tasks = tasks();
        let kind = |tasks: &mut Tasks, tid| tasks.get(Tid(tid)).kind;
        // Its threads, and its copies until they run something else.
        fork(&mut tasks, 1, 40, 41, 40);
        comm(&mut tasks, 1, 41, "sampler");
        fork(&mut tasks, 1, 42, 42, 40);
        comm(&mut tasks, 1, 42, "vslice");
        let other = ThreadKind::OtherVslice { pid: Tid(40) };
        assert_eq!((kind(&mut tasks, 41), kind(&mut tasks, 42)), (other, other));
        comm(&mut tasks, 2, 42, "qemu-system-x86");
        assert_eq!(kind(&mut tasks, 42), ThreadKind::Host);
        fork(&mut tasks, 3, 50, 50, 30);
        comm(&mut tasks, 3, 50, "bash");
        comm(&mut tasks, 4, 50, "vslice");
        assert_eq!(kind(&mut tasks, 50), ThreadKind::OtherVslice { pid: Tid(50) });
        // Our own, and our copies.
        fork(&mut tasks, 5, 11, 11, 10);
        comm(&mut tasks, 5, 11, "vslice");
        fork(&mut tasks, 5, 10, 12, 10);
        comm(&mut tasks, 5, 12, "recorder");
        assert_eq!(kind(&mut tasks, 11), ThreadKind::Collector);
        assert_eq!(kind(&mut tasks, 12), ThreadKind::Collector);
    }

    #[test]
    fn threads_of_the_kernel_and_of_vmms_are_known_by_who_bore_them() {
        let mut tasks = tasks();
        fork(&mut tasks, 1, 3, 3, 2);
        comm(&mut tasks, 1, 3, "kworker/1:2");
        assert_eq!(tasks.get(Tid(3)).kind, ThreadKind::Kernel);
        fork(&mut tasks, 1, 20, 21, 20);
        comm(&mut tasks, 2, 21, "worker");
        comm(&mut tasks, 2, 20, "qemu");
        let vmm = ThreadKind::Vmm { vm: VmIndex(0) };
        let worker = tasks.get(Tid(21));
        assert_eq!((worker.kind, worker.name.as_str()), (vmm, "worker"));
        assert_eq!(tasks.get(Tid(20)).name, "main loop", "its role");
        assert_eq!(tasks.vm_of(Tid(21)), Some(VmIndex(0)));
    }

    #[test]
    fn those_that_have_ended_are_forgotten_the_oldest_first() {
        let mut tasks = Tasks::default();
        let ended_count = u32::try_from(ENDED_MAX).unwrap() + 100;
        for tid in 1..=ended_count {
            fork(&mut tasks, 1, tid, tid, 0);
            learn(&mut tasks, 2, HostEventKind::Exit { tid: Tid(tid) });
        }
        assert_eq!(tasks.all().count(), ENDED_MAX);
        assert!(
            tasks.by_tid.contains_key(&Tid(ended_count)) && !tasks.by_tid.contains_key(&Tid(1))
        );
    }
}
