//! What a plan must hold for it to be possible on any host.

use super::{DiskPlan, LabAccelerator, Plan, PlanError, Problem, VmPlan};
use super::{MEMORY_MIB_MAX, MEMORY_MIB_MIN, QUEUES_MAX, VCPUS_MAX};
use std::collections::BTreeSet;
use vslice_host::disk::Aio;
use vslice_spec::SpecError;

const MIB: u64 = 1 << 20;

impl Plan {
    /// Checks everything that does not depend on the host. [`Plan::load`] has done this; it has to be
    /// repeated after overrides.
    ///
    /// # Errors
    /// [`PlanError::Impossible`] with the first problem.
    pub fn check(&self) -> Result<(), PlanError> {
        self.check_parts()?;
        self.impossible(self.first_problem_of_guests())
    }

    /// Like [`Plan::check`], for a plan that VMs take parts of which run already, with their own disks or
    /// without a reader.
    ///
    /// # Errors
    /// As [`Plan::check`].
    pub fn check_parts(&self) -> Result<(), PlanError> {
        self.impossible(self.first_problem())
    }

    fn impossible(&self, problem: Result<(), Problem>) -> Result<(), PlanError> {
        problem.map_err(|problem| PlanError::Impossible { plan: self.name.clone(), problem })
    }

    /// What guests need to be started for this plan.
    fn first_problem_of_guests(&self) -> Result<(), Problem> {
        if self.vms.iter().all(|vm| vm.reader.is_none()) {
            return Err(Problem::NoReader);
        }
        match self.vms.iter().find(|vm| vm.reader.is_some() && vm.disk.is_none()) {
            Some(vm) => Err(Problem::NoDisk(vm.name.clone())),
            None => Ok(()),
        }
    }

    fn first_problem(&self) -> Result<(), Problem> {
        check_name(&self.name)?;
        if self.vms.is_empty() {
            return Err(Problem::NoVm);
        }
        if self.vms.len() > 64 {
            return Err(Problem::TooManyVms(self.vms.len()));
        }
        if let Some(name) = self.host_io_scheduler.as_ref().filter(|name| !is_word(name)) {
            return Err(Problem::HostIoScheduler(name.clone()));
        }
        let mut names = BTreeSet::new();
        for vm in &self.vms {
            if !names.insert(&vm.name) {
                return Err(Problem::VmTwice(vm.name.clone()));
            }
            vm.check()?;
            self.check_workload(vm)?;
        }
        Ok(())
    }

    /// What the agent in the guest will check, by its own rules, so that it does not refuse what is
    /// found to be possible here.
    fn check_workload(&self, vm: &VmPlan) -> Result<(), Problem> {
        let refused = |problem| Problem::Workload { vm: vm.name.clone(), problem };
        u32::try_from(self.lease_ms)
            .map_err(|_| refused(SpecError::Lease { lease_ms: self.lease_ms }))?;
        if let Some(block_bytes) = vm.reader.as_ref().map(|reader| reader.block_bytes) {
            u32::try_from(block_bytes)
                .map_err(|_| refused(SpecError::BlockBytes { block_bytes }))?;
        }
        // The accelerator decides about no more than the clock.
        self.workload_spec(vm, LabAccelerator::Kvm).validate(vm.vcpus).map_err(refused)
    }
}

fn check_name(name: &str) -> Result<(), Problem> {
    let characters_fit = name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if characters_fit && (1..=32).contains(&name.len()) && !name.starts_with('-') {
        Ok(())
    } else {
        Err(Problem::Name(name.to_owned()))
    }
}

/// A name that can be one of the kernel's, so that nothing else is written to it.
fn is_word(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=16).contains(&name.len()) && name.bytes().all(fits)
}

impl VmPlan {
    fn check(&self) -> Result<(), Problem> {
        check_name(&self.name)?;
        self.check_range("vcpus", u64::from(self.vcpus), 1, u64::from(VCPUS_MAX))?;
        let memory_mib = u64::from(self.memory_mib);
        self.check_range("memory_mib", memory_mib, MEMORY_MIB_MIN, MEMORY_MIB_MAX)?;
        if self.vcpu_pcpus.len() != usize::from(self.vcpus) {
            return Err(Problem::PinCount {
                vm: self.name.clone(),
                pins: self.vcpu_pcpus.len(),
                vcpus: self.vcpus,
            });
        }
        if let Some(disk) = &self.disk {
            self.check_disk(disk)?;
        }
        Ok(())
    }

    fn check_range(
        &self,
        key: &'static str,
        value: u64,
        min: u64,
        max: u64,
    ) -> Result<(), Problem> {
        if (min..=max).contains(&value) {
            return Ok(());
        }
        Err(Problem::Range { vm: self.name.clone(), key, value, min, max })
    }

    fn check_disk(&self, disk: &DiskPlan) -> Result<(), Problem> {
        let vm = || self.name.clone();
        let of_virtio = [
            (disk.iothread, "iothread = true"),
            (disk.queues.is_some(), "queues"),
            (!disk.ioeventfd, "ioeventfd = false"),
            (!disk.msix, "msix = false"),
        ];
        if let Some((_, key)) = of_virtio.into_iter().find(|(asked, _)| *asked)
            && !disk.bus.is_virtio()
        {
            return Err(Problem::NotVirtio { vm: vm(), key, bus: disk.bus.name() });
        }
        if disk.iothread && !disk.ioeventfd {
            return Err(Problem::IothreadWithoutEventfd(vm()));
        }
        self.check_range("iothreads", u64::from(disk.iothreads), 1, 64)?;
        if disk.iothreads > 1 && !disk.iothread {
            return Err(Problem::NoMapping(vm()));
        }
        if disk.aio == Aio::Native && !disk.cache.is_direct() {
            return Err(Problem::NativeNeedsDirect(self.name.clone()));
        }
        let block_bytes = self.reader.as_ref().map_or(0, |reader| reader.block_bytes);
        if disk.size_bytes < MIB.max(block_bytes) || !disk.size_bytes.is_multiple_of(MIB) {
            return Err(Problem::DiskSize { vm: self.name.clone(), size_bytes: disk.size_bytes });
        }
        let Some(queues) = disk.queues else { return Ok(()) };
        self.check_range("queues", u64::from(queues), 1, u64::from(QUEUES_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{LabAccelerator, Overrides};
    use proptest::prelude::*;
    use vslice_core::units::{PcpuId, VcpuId};
    use vslice_spec::{Engine, WorkloadSpec};

    /// The demo plan with one text replaced by another.
    fn changed(from: &str, to: &str) -> Result<Plan, PlanError> {
        let demo = super::super::BUILT_IN[0].1;
        assert!(demo.contains(from), "the demo plan does not have {from}");
        Plan::parse("test.toml", &demo.replacen(from, to, 1))
    }

    fn sentence(from: &str, to: &str) -> String {
        changed(from, to).expect_err("this plan is impossible").to_string()
    }

    /// A change of the demo plan, and what is wrong with it then.
    const IMPOSSIBLE: &[(&str, &str, &str)] = &[
        (
            "name = \"vm1\"",
            "name = \"VM 1\"",
            "name = \"VM 1\": use 1 to 32 of the characters a-z, 0-9 and -",
        ),
        (
            "collector_pcpu = 0",
            "collector_pcpu = 0\nlease = \"2min\"",
            "vm 'vm1': a lease of 120000 ms is out of [200, 60000] ms",
        ),
        ("name = \"vm2\"", "name = \"vm1\"", "two vms have the name 'vm1'"),
        ("vcpus = 2", "vcpus = 0", "vm 'vm1': vcpus = 0 is not between 1 and 255"),
        (
            "vcpus = 2",
            "vcpus = 2\nmemory_mib = 16",
            "vm 'vm1': memory_mib = 16 is not between 128 and 16777216",
        ),
        (
            "vcpu_pcpus = [0, 1]",
            "vcpu_pcpus = [0, 1, 0]",
            "vm 'vm1': vcpu_pcpus has 3 pCPUs for vcpus = 2; it needs one for each vCPU",
        ),
        (
            "hogs = [1]",
            "hogs = [2]",
            "vm 'vm1': a hog is pinned to vCPU2, but the machine has 2 vCPUs, numbered from 0: pin it to another or give the machine more",
        ),
        (
            "hogs = [1]",
            "hogs = [1, 1]",
            "vm 'vm1': vCPU1 has more than one hog: name every vCPU once",
        ),
        (
            "housekeeping_vcpu = 0",
            "housekeeping_vcpu = 7",
            "vm 'vm1': the housekeeping is pinned to vCPU7, but the machine has 2 vCPUs, numbered from 0: pin it to another or give the machine more",
        ),
        (
            "vcpu = 1\npattern",
            "vcpu = 3\npattern",
            "vm 'vm1': the reader is pinned to vCPU3, but the machine has 2 vCPUs, numbered from 0: pin it to another or give the machine more",
        ),
        (
            "bus = \"virtio-blk\"\niothread = false",
            "bus = \"ide\"\niothread = true",
            "vm 'vm1': iothread = true is for virtio disks; QEMU has no equivalent for bus = \"ide\"",
        ),
        (
            "bus = \"virtio-blk\"",
            "bus = \"ide\"\nqueues = 2",
            "vm 'vm1': queues is for virtio disks; QEMU has no equivalent for bus = \"ide\"",
        ),
        (
            "bus = \"virtio-blk\"",
            "bus = \"nvme\"\nmsix = false",
            "vm 'vm1': msix = false is for virtio disks; QEMU has no equivalent for bus = \"nvme\"",
        ),
        (
            "iothread = false",
            "iothread = true\nioeventfd = false",
            "vm 'vm1': iothread = true needs ioeventfd = true, which wakes the iothread",
        ),
        ("iothread = false", "iothreads = 2", "vm 'vm1': iothreads above 1 needs iothread = true"),
        (
            "cache = \"none\"",
            "cache = \"writeback\"",
            "vm 'vm1': aio = \"native\" needs cache = \"none\" or \"directsync\"; QEMU refuses other caches",
        ),
        (
            "block = \"4KiB\"",
            "block = \"3KiB\"",
            "vm 'vm1': blocks of 3072 bytes cannot be read: take a power of two in [512, 1048576], 4096 for instance",
        ),
        (
            "block = \"4KiB\"",
            "block = \"16MiB\"",
            "vm 'vm1': blocks of 16777216 bytes cannot be read: take a power of two in [512, 1048576], 4096 for instance",
        ),
        (
            "block = \"4KiB\"",
            "block = \"8GiB\"",
            "vm 'vm1': size is 67108864 bytes; it must be a multiple of 1 MiB and hold at least one block",
        ),
        (
            "vcpu = 1\npattern",
            "vcpu = 0\npattern",
            "vm 'vm1': the reader is pinned to vCPU0, where the housekeeping runs: pin one of them to another of the 2 vCPUs, so that the sending does not disturb the measuring",
        ),
        (
            "guest_io_scheduler = \"none\"",
            "guest_io_scheduler = \"../none\"",
            "vm 'vm1': \"../none\" is no name of an I/O scheduler: take none, mq-deadline, kyber or bfq, or leave it out",
        ),
        (
            "total = \"64MiB\"",
            "total = \"1KiB\"",
            "vm 'vm1': 1024 bytes in total are less than one block of 4096 bytes",
        ),
        (
            "size = \"64MiB\"",
            "size = \"100KiB\"",
            "vm 'vm1': size is 102400 bytes; it must be a multiple of 1 MiB and hold at least one block",
        ),
        (
            "engine = \"psync\"",
            "engine = \"psync\"\ndepth = 8",
            "vm 'vm1': a depth of 8 needs the engine io_uring: psync waits for each read, its depth is 1",
        ),
        (
            "engine = \"psync\"",
            "engine = \"io_uring\"\ndepth = 5000",
            "vm 'vm1': a depth of 5000 is out of [1, 4096]",
        ),
        (
            "total = \"64MiB\"",
            "total = \"64MiB\"\nduration = \"0s\"",
            "vm 'vm1': a duration of 0 ms leaves no time to read: leave it out to read all of total_bytes",
        ),
    ];

    #[test]
    fn every_impossible_plan_is_refused_with_its_sentence() {
        for (from, to, problem) in IMPOSSIBLE {
            assert_eq!(sentence(from, to), format!("plan 'demo': {problem}"));
        }
    }

    #[test]
    fn a_plan_needs_a_guest_a_reader_and_a_disk_for_it() {
        let without_vms = Plan::parse("t", "name = \"t\"\ncollector_pcpu = 0\n");
        assert_eq!(without_vms.expect_err("no vm").to_string(), "plan 't': it has no [[vm]]");

        let mut crowd = Plan::load("demo").expect("the demo plan is sound");
        crowd.vms = vec![crowd.vms[0].clone(); 65];
        let message = crowd.check().expect_err("too many").to_string();
        assert_eq!(message, "plan 'demo': it has 65 [[vm]], but at most 64 are possible");

        let mut plan = Plan::load("demo").expect("the demo plan is sound");
        plan.vms[0].disk = None;
        assert!(plan.check_parts().is_ok(), "guests that are there have disks");
        let message = plan.check().expect_err("no disk").to_string();
        assert_eq!(message, "plan 'demo': vm 'vm1' has a [vm.reader] but no [vm.disk] to read");
        plan.vms[0].reader = None;
        let message = plan.check().expect_err("no reader").to_string();
        assert!(message.contains("no vm has a [vm.reader]"), "{message}");
        let overrides = Overrides { total_bytes: Some(1 << 20), ..Overrides::default() };
        let message = overrides.apply(&mut plan).expect_err("nothing to change").to_string();
        assert_eq!(message, "plan 'demo': --total changes [vm.reader], but no vm has one");
    }

    /// The demo plan with other numbers: each mostly a usual one, so that many of these plans pass.
    fn any_plan() -> impl Strategy<Value = Plan> {
        let lease_ms = prop_oneof![8 => Just(1_500), 1 => 0..300_u64, 1 => 59_000..u64::MAX];
        let scheduler = prop_oneof![8 => Just("none".to_owned()), 1 => "[a-z0-9_ -]{0,18}"];
        let hogs = prop::collection::btree_set(0..4_u16, 0..3);
        let duration_ms = prop_oneof![8 => Just(None), 1 => (0..2_u64).prop_map(Some)];
        let depth = prop_oneof![4 => Just(1), 1 => 0..9_u16, 1 => 4_000..5_000_u16];
        let vm = (2..6_u16, 0..4_u16, hogs, 0..4_u16, scheduler);
        let reader = (6..34_u32, any::<bool>(), depth, any::<bool>(), duration_ms);
        (vm, reader, lease_ms).prop_map(|(vm, reader, lease_ms)| {
            let mut plan = Plan::load("demo").expect("the demo plan is sound");
            plan.lease_ms = lease_ms;
            let part = &mut plan.vms[0];
            (part.vcpus, part.housekeeping_vcpu) = (vm.0, VcpuId(vm.1));
            part.vcpu_pcpus = vec![PcpuId(0); usize::from(vm.0)];
            part.hogs = vm.2.into_iter().map(VcpuId).collect();
            let disk = part.disk.as_mut().expect("it has one");
            (disk.size_bytes, disk.guest_io_scheduler) = (1 << 40, vm.4);
            let of_plan = part.reader.as_mut().expect("it has one");
            (of_plan.vcpu, of_plan.block_bytes) = (VcpuId(vm.3), 1 << reader.0);
            of_plan.total_bytes = of_plan.block_bytes - u64::from(!reader.1);
            (of_plan.depth, of_plan.duration_ms) = (reader.2, reader.4);
            of_plan.engine = if reader.3 { Engine::Psync } else { Engine::IoUring };
            plan
        })
    }

    proptest! {
        /// As the agent does it: it reads the JSON, and holds it against its vCPUs.
        #[test]
        fn every_plan_that_passes_is_one_that_the_agent_takes(plan in any_plan()) {
            if plan.check_parts().is_ok() {
                for (vm, accelerator) in plan.vms.iter().zip([LabAccelerator::Kvm, LabAccelerator::Tcg]) {
                    let json = serde_json::to_vec(&plan.workload_spec(vm, accelerator)).unwrap();
                    prop_assert!(json.len() <= vslice_wire::PLAN_BYTES_MAX);
                    let spec: WorkloadSpec = serde_json::from_slice(&json).unwrap();
                    prop_assert_eq!(spec.validate(vm.vcpus), Ok(()));
                }
            }
        }
    }

    #[test]
    fn what_does_not_parse_is_refused_with_line_and_key() {
        let table = [
            ("hogs = [1]", "hogz = [1]", "line 13, key 'hogz': unknown field `hogz`"),
            (
                "bus = \"virtio-blk\"",
                "bus = \"scsi\"",
                "key 'bus': unknown variant `scsi`, expected one of `virtio-blk`, `virtio-scsi`, `ide`",
            ),
            ("block = \"4KiB\"", "block = \"4kb\"", "key 'block': '4kb' is not a size"),
            ("vcpus = 2", "vcpus = -2", "line 11, key 'vcpus': invalid value: integer `-2`"),
            ("[vm.disk]", "[vm.disc]", "key '[vm.disc]': unknown field `disc`"),
            ("vcpus = 2", "vcpus = ", "line 11, key 'vcpus':"),
            ("vcpus = 2\n", "", "key '[[vm]]': missing field `vcpus`"),
        ];
        for (from, to, part) in table {
            let message = sentence(from, to);
            assert!(message.starts_with("plan test.toml, line "), "{message}");
            assert!(message.contains(part), "'{message}' does not have '{part}'");
            assert!(!message.contains('\n'), "{message}");
        }
    }
}
