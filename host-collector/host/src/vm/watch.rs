//! Which VMs come while something else goes on, for little: a process is looked into once, and the number of those
//! that are looked into at a time is bounded.

use super::{Depth, Vm, look_among};
use crate::census::{Census, Process};
use crate::procfs::{self, StartTicks};
use crate::tsc::KvmDebugfs;
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use vslice_core::units::Tid;

/// A process that is younger may still become a VMM, by execve(2) or by making its first VM.
const SETTLED_AFTER: Duration = Duration::from_secs(10);

/// What is kept of the VMs that were found, so that names of threads can be told after they have ended.
const VMS_MAX: usize = 1 << 12;

/// The VMs of this host, with what is needed to find new ones.
#[derive(Debug)]
pub struct VmWatch {
    debugfs: Option<KvmDebugfs>,
    /// Processes that run no VM, and need not be looked into again.
    others: BTreeSet<Tid>,
    /// When each VM's process was started.
    known: BTreeMap<Tid, StartTicks>,
    /// The process that was looked into last: the next look goes on after it.
    last: Tid,
}

/// What one look found.
#[derive(Debug, Default)]
pub struct Look {
    /// The VMs that were not there at the looks before: their threads and helpers, without disks and quotas.
    pub found: Vec<Vm>,
    /// How many processes are left for the next look.
    pub left_count: usize,
}

impl VmWatch {
    /// Knows no VM yet.
    #[must_use]
    pub fn new() -> VmWatch {
        VmWatch {
            debugfs: KvmDebugfs::find().ok(),
            others: BTreeSet::new(),
            known: BTreeMap::new(),
            last: Tid(0),
        }
    }

    /// Looks into at most so many processes that it does not know yet, those first that KVM knows. Beside that it
    /// lists `/proc`, and if there is a new VM, it reads all processes for its helpers: two files each.
    pub fn look(&mut self, processes_max: usize) -> Look {
        let pids = procfs::pids();
        let there: BTreeSet<Tid> = pids.iter().copied().collect();
        // Another process may come to have the id of one that has ended.
        self.others.retain(|pid| there.contains(pid));
        let of_kvm = self.debugfs.as_ref().map(KvmDebugfs::processes).unwrap_or_default();
        let is_new = |pid: &Tid| !self.others.contains(pid) && !self.is_known(*pid);
        let first = of_kvm.iter().copied().filter(|pid| !self.is_known(*pid));
        // Those that are too young to be passed over come again, but must not keep the others from their turn.
        let (before, after) = pids.split_at(pids.partition_point(|pid| *pid <= self.last));
        let rest = after.iter().chain(before).copied();
        let rest = rest.filter(|pid| !of_kvm.contains(pid) && is_new(pid));
        let new: Vec<Tid> = first.chain(rest).collect();
        let mut look =
            Look { found: Vec::new(), left_count: new.len().saturating_sub(processes_max) };
        let census = OnceCell::new();
        for pid in new.into_iter().take(processes_max) {
            self.look_into(pid, of_kvm.contains(&pid), &census, &mut look);
        }
        look
    }

    fn is_known(&self, pid: Tid) -> bool {
        self.known.get(&pid).is_some_and(|start| procfs::start_ticks(pid) == Some(*start))
    }

    fn look_into(&mut self, pid: Tid, is_of_kvm: bool, census: &OnceCell<Census>, look: &mut Look) {
        if !is_of_kvm {
            self.last = pid;
        }
        let Some(start) = procfs::start_ticks(pid) else { return };
        let program = Process::of(pid).filter(|process| !process.is_kernel);
        let vm = program.and_then(|program| {
            let debugfs = self.debugfs.as_ref().filter(|_| is_of_kvm);
            look_among(&program, debugfs, Depth::Threads, census)
        });
        match vm {
            Some(vm) if self.known.len() < VMS_MAX => {
                self.known.insert(pid, start);
                look.found.push(vm);
            }
            None if procfs::age(start).is_none_or(|age| age > SETTLED_AFTER) => {
                self.others.insert(pid);
            }
            _ => {}
        }
    }
}

impl Default for VmWatch {
    fn default() -> VmWatch {
        VmWatch::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command};

    /// A process that is called like a QEMU.
    fn qemu() -> Child {
        let mut command = Command::new("sleep");
        command.arg0("qemu-system-x86_64").arg("60").spawn().expect("sleep runs")
    }

    fn ends(mut child: Child) {
        child.kill().and_then(|()| child.wait()).expect("it is ours");
    }

    fn pids(look: &Look) -> Vec<Tid> {
        look.found.iter().map(|vm| vm.pid).collect()
    }

    #[test]
    fn a_vm_is_found_once_also_if_it_came_later() {
        let (mut watch, first) = (VmWatch::new(), qemu());
        let look = watch.look(usize::MAX);
        assert!(pids(&look).contains(&Tid(first.id())) && look.left_count == 0);
        let second = qemu();
        // Until it runs its program, the child is another one of this test's.
        let mut found = pids(&watch.look(usize::MAX));
        for _ in 0..100 {
            if !found.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
            found = pids(&watch.look(usize::MAX));
        }
        assert!(found.contains(&Tid(second.id())) && !found.contains(&Tid(first.id())));
        assert!(!pids(&watch.look(usize::MAX)).contains(&Tid(second.id())));
        [first, second].into_iter().for_each(ends);
    }

    #[test]
    fn a_look_is_bounded_and_the_next_one_goes_on() {
        // Too young to be passed over, and more than are looked into at a time.
        let sleep = || Command::new("sleep").arg("60").spawn().expect("sleep runs");
        let young: Vec<Child> = (0..20).map(|_| sleep()).collect();
        let child = qemu();
        let mut watch = VmWatch::new();
        let left_count = watch.look(7).left_count;
        let looks_max = 5 + left_count / 7;
        let looked = (0..looks_max).position(|_| pids(&watch.look(7)).contains(&Tid(child.id())));
        ends(child);
        young.into_iter().for_each(ends);
        assert!(looked.is_some(), "not in {looks_max} looks");
    }
}
