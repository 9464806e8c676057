//! The VMs of this host that are not recorded, so that they have names where their threads are in the way.

use crate::vm_record::{domain_record, helper_records, thread_records};
use std::collections::{BTreeMap, BTreeSet};
use vslice_core::text::harmless;
use vslice_core::units::{HostNs, Tid};
use vslice_host::host_clock::host_now;
use vslice_host::vm::{Vm, VmWatch};
use vslice_trace::manifest::{Manifest, OtherVmRecord};

/// VMs that are noted at most.
const VMS_MAX: usize = 1024;

/// What those that come later take in the manifest at most, for which room is kept.
pub(crate) const LATER_BYTES_MAX: u64 = 256 << 10;

/// Processes that are looked into at a time while requests are measured.
const PROCESSES_MAX: usize = 16;

/// What is known of them, and what was seen of their threads.
#[derive(Debug)]
pub(crate) struct OtherVms {
    watch: VmWatch,
    recorded: BTreeSet<Tid>,
    later: Vec<OtherVmRecord>,
    /// Threads that are called as those of vCPUs are, when this was last asked.
    strange_vcpus_count: u64,
    has_more: bool,
}

impl OtherVms {
    /// Finds those that there are now, and notes them.
    pub(crate) fn note(manifest: &mut Manifest) -> OtherVms {
        let mut others = OtherVms {
            watch: VmWatch::new(),
            recorded: manifest.vms.iter().map(|vm| vm.pid).collect(),
            later: Vec::new(),
            strange_vcpus_count: 0,
            has_more: false,
        };
        manifest.other_vms = others.look(usize::MAX, HostNs(0));
        manifest.other_vms.truncate(VMS_MAX);
        rename(manifest);
        others
    }

    /// Looks for new ones if a thread was seen that is called as a vCPU's is and that is none of a recorded VM;
    /// `count` says of how many so far. A few processes are looked into at a time.
    pub(crate) fn turn(&mut self, count: u64) {
        if count != self.strange_vcpus_count || self.has_more {
            self.strange_vcpus_count = count;
            let found = self.look(PROCESSES_MAX, host_now());
            self.came(found);
        }
    }

    /// Notes those that came. Nothing is measured any more.
    pub(crate) fn finish(mut self, manifest: &mut Manifest) {
        let found = self.look(usize::MAX, host_now());
        self.came(found);
        let mut bytes = 0;
        let fits = |vm: &OtherVmRecord| {
            bytes += json_bytes(vm);
            bytes <= LATER_BYTES_MAX
        };
        manifest.other_vms.extend(self.later.into_iter().take_while(fits));
        rename(manifest);
    }

    fn came(&mut self, found: Vec<OtherVmRecord>) {
        self.later.extend(found);
        self.later.truncate(VMS_MAX);
    }

    fn look(&mut self, processes_max: usize, since: HostNs) -> Vec<OtherVmRecord> {
        let look = self.watch.look(processes_max);
        self.has_more = look.left_count > 0;
        let others = look.found.into_iter().filter(|vm| !self.recorded.contains(&vm.pid));
        others.map(|vm| record(&vm, since)).collect()
    }
}

fn record(vm: &Vm, since: HostNs) -> OtherVmRecord {
    let mut threads = thread_records(vm);
    // Those without a role are called by their own names.
    threads.retain(|thread| thread.vcpu.is_some() || thread.tid == vm.pid);
    OtherVmRecord {
        name: harmless(&vm.label()),
        vmm: vm.vmm,
        domain: domain_record(vm),
        pid: vm.pid,
        since_ns: since,
        threads,
        helpers: helper_records(vm),
    }
}

/// Two VMs of one name are told apart by their processes.
fn rename(manifest: &mut Manifest) {
    let mut taken: BTreeSet<String> = manifest.vms.iter().map(|vm| vm.name.clone()).collect();
    for vm in &mut manifest.other_vms {
        if !taken.insert(vm.name.clone()) {
            vm.name = format!("{} (process {})", vm.name, vm.pid);
            taken.insert(vm.name.clone());
        }
    }
}

/// What a VM takes in the manifest, where it is indented.
fn json_bytes(vm: &OtherVmRecord) -> u64 {
    let manifest = BTreeMap::from([("other_vms", [vm])]);
    serde_json::to_vec_pretty(&manifest).map_or(0, |json| json.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command};

    /// A process that is called like a QEMU, until it is dropped.
    struct Qemu(Child);

    impl Qemu {
        fn start(name: &str) -> Qemu {
            let mut command = Command::new("sleep");
            // `sleep` adds its numbers up; the rest it is called with is in its first word.
            let child = command.arg0(format!("qemu-system-x86_64 -name {name}")).arg("60").spawn();
            Qemu(child.expect("sleep runs"))
        }

        fn pid(&self) -> Tid {
            Tid(self.0.id())
        }
    }

    impl Drop for Qemu {
        fn drop(&mut self) {
            let _it_is_ours = self.0.kill().and_then(|()| self.0.wait());
        }
    }

    fn of(manifest: &Manifest, pid: Tid) -> Option<&OtherVmRecord> {
        manifest.other_vms.iter().find(|vm| vm.pid == pid)
    }

    fn named(name: &str, pid: u32) -> OtherVmRecord {
        OtherVmRecord {
            name: name.to_owned(),
            vmm: vslice_trace::vmm::Vmm::Qemu,
            domain: None,
            pid: Tid(pid),
            since_ns: HostNs(0),
            threads: Vec::new(),
            helpers: Vec::new(),
        }
    }

    #[test]
    fn vms_of_one_name_are_told_apart() {
        let mut manifest = vslice_report::analyse::drawn::manifest();
        manifest.other_vms = vec![named("vm1", 7), named("web", 8), named("web", 9)];
        rename(&mut manifest);
        rename(&mut manifest);
        let names: Vec<&str> = manifest.other_vms.iter().map(|vm| vm.name.as_str()).collect();
        assert_eq!(names, ["vm1 (process 7)", "web", "web (process 9)"]);
    }

    #[test]
    fn those_that_come_later_are_known_from_then_on_and_looked_for_only_if_a_vcpu_is_seen() {
        let mut manifest = Manifest::begun(Tid(1));
        let before = Qemu::start("a");
        std::thread::sleep(std::time::Duration::from_millis(200));
        let mut others = OtherVms::note(&mut manifest);
        let later = Qemu::start("b");
        std::thread::sleep(std::time::Duration::from_millis(200));
        others.turn(0);
        assert!(others.later.is_empty() || others.has_more, "nobody has asked for a look");
        for count in 1..500 {
            others.turn(count);
        }
        assert!(others.later.iter().any(|vm| vm.pid == later.pid()), "{:?}", others.later);
        others.finish(&mut manifest);
        assert_eq!(of(&manifest, before.pid()).map(|vm| vm.since_ns), Some(HostNs(0)));
        assert!(of(&manifest, later.pid()).is_some_and(|vm| vm.since_ns > HostNs(0)));
    }

    #[test]
    fn those_that_come_later_have_bounded_room() {
        let mut manifest = Manifest::begun(Tid(1));
        let mut others = OtherVms::note(&mut manifest);
        let there_count = manifest.other_vms.len();
        let large = |pid| OtherVmRecord { name: "many".repeat(100), ..named("", pid) };
        others.came((0..5_000).map(large).collect());
        assert_eq!(others.later.len(), VMS_MAX);
        others.finish(&mut manifest);
        let later = &manifest.other_vms[there_count..];
        // Whoever has a name that another has is called by the process as well.
        let bytes: u64 = later.iter().map(json_bytes).sum::<u64>() - 32 * later.len() as u64;
        assert!(!later.is_empty() && bytes <= LATER_BYTES_MAX, "{bytes} for {}", later.len());
    }
}
