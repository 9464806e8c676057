use super::super::surroundings::Surroundings;
use super::super::text::tests::{host, thread, vm};
use super::*;
use std::collections::{BTreeMap, BTreeSet};
use vslice_core::units::{Tid, VcpuId};
use vslice_host::cgroup::VcpuQuota;
use vslice_host::helper::{Helper, HelperRole, HelperSign, HelperThread};
use vslice_host::procfs::Stopper;
use vslice_host::topology::Topology;
use vslice_host::vm::{Vm, VmThread};
use vslice_trace::host::HostPcpus;
use vslice_trace::quota::Quota;
use vslice_trace::thread::ThreadRole;
use vslice_trace::vmm::{Accelerator, Vmm};

fn said(host: &Surroundings, vms: &[Vm]) -> Vec<String> {
    all(host, vms).iter().map(ToString::to_string).collect()
}

fn texts(pcpus_count: u32, vms: &[Vm]) -> Vec<String> {
    said(&host(&(0..pcpus_count).collect::<Vec<_>>()), vms)
}

#[test]
fn no_warning_if_every_thread_has_its_own_pcpu() {
    let one =
        vm("vm1", 10, vec![thread(11, Some(0), None, &[1]), thread(12, None, Some("io0"), &[0])]);
    assert_eq!(texts(4, &[one]), [""; 0]);
}

#[test]
fn two_vcpus_on_one_pcpu_and_more_vcpus_than_pcpus() {
    let one = vm("vm1", 10, vec![thread(11, Some(0), None, &[0]), thread(12, Some(1), None, &[1])]);
    let two =
        vm("vm2", 20, vec![thread(21, Some(0), None, &[0, 1]), thread(22, Some(1), None, &[1])]);
    assert_eq!(
        texts(2, &[one, two]),
        [
            "4 vCPUs share 2 pCPUs: when all of them are busy, they wait for each other",
            "vm1 vCPU1 and vm2 vCPU1 are pinned to the same pCPU, pCPU1",
        ]
    );
}

#[test]
fn an_iothread_is_warned_of_only_if_it_can_run_nowhere_else() {
    let with = |affinity: &[u32]| {
        vm(
            "vm1",
            10,
            vec![
                thread(11, Some(0), None, &[1]),
                thread(12, Some(1), None, &[2]),
                thread(13, None, Some("io0"), affinity),
            ],
        )
    };
    let warning = "iothread io0 of vm1 can only run on pCPU1, where vm1 vCPU0 is pinned: they \
        preempt each other or wait";
    assert_eq!(texts(4, &[with(&[1])]), [warning]);
    assert_eq!(texts(4, &[with(&[1, 2])]), [warning]);
    assert_eq!(texts(4, &[with(&[1, 3])]), [""; 0]);
    assert_eq!(texts(4, &[with(&[])]), [""; 0], "the kernel does not say");
}

fn with_quota(name: &str, group: &str, quota_us: u64, affinity: &[u32]) -> Vm {
    let by = VcpuQuota {
        group: group.into(),
        quota: Quota { quota_us, period_us: 100_000 },
        throttled_count: Some(37),
        vcpus: vec![VcpuId(0), VcpuId(1)],
    };
    let vcpus = vec![thread(11, Some(0), None, affinity), thread(12, Some(1), None, affinity)];
    Vm { quotas: Some(vec![by]), ..vm(name, 10, vcpus) }
}

#[test]
fn a_quota_is_warned_of_if_its_vcpus_could_use_it_up() {
    let one = |quota_us, affinity: &[u32]| texts(8, &[with_quota("web", "/g", quota_us, affinity)]);
    assert_eq!(
        one(150_000, &[0, 1]),
        ["/g limits the 2 vCPUs of web together to 150 ms of CPU time per 100 ms: when that is \
            used up, they wait until the next period, as in 37 periods so far"]
    );
    assert_eq!(one(200_000, &[0, 1]), [""; 0], "both can always run");
    let shared = texts(8, &[with_quota("web", "/g", 100_000, &[0])]);
    assert_eq!(shared.len(), 1, "there is but one pCPU for both: {shared:?}");
    assert_eq!(one(100_000, &[]).len(), 1, "where they may run is not known");
    let mut half = with_quota("web", "/g", 50_000, &[0, 1]);
    for by in half.quotas.iter_mut().flatten() {
        by.vcpus.truncate(1);
        by.throttled_count = Some(0);
    }
    let lone = "/g limits web vCPU0 to 50.0 ms of CPU time per 100 ms: when that is used up, it \
        waits until the next period";
    assert_eq!(texts(8, &[half]), [lone]);
    // A slice that holds two VMs is one group, and limits all four.
    let both = |quota_us| {
        let vms = ["db", "web"].map(|name| with_quota(name, "/slice", quota_us, &[0, 1, 2, 3]));
        texts(8, &vms)
    };
    assert_eq!(both(400_000), [""; 0]);
    let texts = both(300_000);
    assert_eq!(texts.len(), 1);
    assert!(
        texts[0].starts_with("/slice limits the 4 vCPUs of db and web together to"),
        "{texts:?}"
    );
}

#[test]
fn a_stopped_process_is_warned_of() {
    let stopped = |stopper| {
        let threads = vec![thread(11, Some(0), None, &[1])];
        texts(4, &[Vm { stopper: Some(stopper), ..vm("vm1", 10, threads) }])
    };
    let notice = "vm1: its process 10 is stopped by a signal (SIGSTOP): none of it runs until it is sent \
                SIGCONT";
    assert_eq!(stopped(Stopper::Signal), [notice]);
    assert!(stopped(Stopper::Debugger)[0].contains("by a debugger"));
}

#[test]
fn unidentified_vcpu_threads_are_warned_of_with_what_can_be_done() {
    let by_turns = VmThread::new(Tid(11), "ALL CPUs/TCG", ThreadRole::Other, vec![]);
    let main = || thread(10, None, None, &[0]);
    for (vm, advice) in [
        (vm("vm1", 10, vec![main()]), "start QEMU with -name ...,debug-threads=on, or run"),
        (vm("vm1", 10, vec![main(), by_turns]), "one thread runs all of them by turns; start QEMU"),
        (Vm { vmm: Vmm::Other, ..vm("vm1", 10, vec![main()]) }, "run vslice as root on a host"),
    ] {
        let texts = texts(4, &[vm]);
        let beginning = format!("cannot tell which threads of vm1 run its vCPUs: {advice}");
        assert!(texts.len() == 1 && texts[0].starts_with(&beginning), "{texts:?}");
    }
}

#[test]
fn on_a_host_of_one_pcpu_nobody_is_pinned() {
    let threads = vec![thread(11, Some(0), None, &[0]), thread(12, None, Some("io0"), &[0])];
    assert_eq!(texts(1, &[vm("vm1", 10, threads)]), [""; 0]);
}

#[test]
fn vms_of_one_name_are_told_apart() {
    let of = |pid| vm("vm1", pid, vec![thread(pid + 1, Some(0), None, &[1])]);
    assert_eq!(
        texts(4, &[of(10), of(20)]),
        ["vm1 (process 10) vCPU0 and vm1 (process 20) vCPU0 are pinned to the same pCPU, pCPU1"]
    );
}

fn helper(role: HelperRole, comm: &str, affinities: &[&[u32]]) -> Helper {
    let thread = |affinity: &&[u32]| HelperThread {
        tid: Tid(90),
        comm: comm.to_owned(),
        affinity: affinity.iter().copied().map(PcpuId).collect(),
    };
    let threads = affinities.iter().map(thread).collect();
    Helper { pid: Tid(90), comm: comm.to_owned(), role, sign: HelperSign::KernelThread, threads }
}

#[test]
fn who_works_for_a_vm_is_warned_of_if_it_can_run_only_where_vcpus_are_pinned() {
    let with = |helper: Option<Helper>, vhost: &[u32]| {
        let vhost = vhost.iter().copied().map(PcpuId).collect();
        let threads = vec![
            thread(11, Some(0), None, &[1]),
            thread(12, Some(1), None, &[2]),
            VmThread::new(Tid(13), "vhost-10", ThreadRole::Vhost, vhost),
        ];
        let vm = Vm { helpers: helper.into_iter().collect(), ..vm("vm1", 10, threads) };
        texts(4, &[vm])
    };
    let warning = |name: &str| {
        format!(
            "{name}, which works for vm1, can only run on pCPU1, where vm1 vCPU0 is pinned: they \
            preempt each other or wait"
        )
    };
    assert_eq!(with(None, &[1]), [warning("vhost-10")]);
    assert_eq!(with(None, &[1, 2]), [warning("vhost-10")]);
    assert_eq!(with(None, &[1, 3]), [""; 0], "it may run on pCPU3");
    let timer = |affinity| helper(HelperRole::Timer, "kvm-pit/10", &[affinity]);
    assert_eq!(with(Some(timer(&[1])), &[0]), [warning("kvm-pit/10")]);
    assert_eq!(with(Some(timer(&[0, 1])), &[0]), [""; 0]);
    let server = |affinities| helper(HelperRole::Disk, "spdk", affinities);
    assert_eq!(with(Some(server(&[&[1], &[2]])), &[0]), [warning("spdk")]);
    assert_eq!(with(Some(server(&[&[1], &[3]])), &[0]), [""; 0], "who of them serves it?");
    assert_eq!(with(Some(server(&[&[1], &[]])), &[0]), [""; 0], "the kernel does not say");
    for role in [HelperRole::PageRecovery, HelperRole::Tpm] {
        assert_eq!(with(Some(helper(role, "x", &[&[1]])), &[0]), [""; 0], "{role:?}");
    }
}

#[test]
fn an_iothread_that_serves_nothing_is_named() {
    let threads = || vec![thread(11, Some(0), None, &[1])];
    let idle = Vm { idle_iothreads: vec!["io1".to_owned()], ..vm("vm1", 10, threads()) };
    let warning = "iothread io1 of vm1 seems to serve nothing: no device on the command line uses it, and it has \
        hardly run";
    assert_eq!(texts(4, &[idle]), [warning]);
    assert_eq!(texts(4, &[vm("vm1", 10, threads())]), [""; 0]);
    let two = vec!["io1".to_owned(), "io2".to_owned()];
    let both = texts(4, &[Vm { idle_iothreads: two, ..vm("vm1", 10, threads()) }]);
    assert!(
        both.len() == 1
            && both[0].starts_with("iothreads io1 and io2 of vm1 seem to serve nothing")
    );
}

/// Eight pCPUs on two nodes; pCPUs 0 and 4, 1 and 5, ... are a core each.
fn big_host() -> Surroundings {
    let node =
        |pcpus: &[u32]| HostPcpus::of(&pcpus.iter().copied().map(PcpuId).collect::<Vec<_>>());
    let sibling = |pcpu: u32| (PcpuId(pcpu), BTreeSet::from([PcpuId((pcpu + 4) % 8)]));
    let topology = Topology {
        nodes: BTreeMap::from([(0, node(&[0, 1, 4, 5])), (1, node(&[2, 3, 6, 7]))]),
        siblings: (0..8).map(sibling).collect(),
    };
    Surroundings { topology, ..host(&[0, 1, 2, 3, 4, 5, 6, 7]) }
}

#[test]
fn two_vms_on_one_core_are_named_and_one_vm_is_not() {
    let of = |name, pid, pcpus: [&[u32]; 2]| {
        let threads = [0, 1].map(|vcpu| thread(pid, Some(vcpu), None, pcpus[usize::from(vcpu)]));
        vm(name, pid, threads.to_vec())
    };
    let one_vm = of("a", 10, [&[1], &[5]]);
    assert_eq!(said(&big_host(), &[one_vm]), [""; 0]);
    let apart = [of("a", 10, [&[0], &[4]]), of("b", 20, [&[1], &[5]])];
    assert_eq!(said(&big_host(), &apart), [""; 0]);
    assert_eq!(
        said(&big_host(), &[of("a", 10, [&[0], &[1]]), of("b", 20, [&[4], &[2]])]),
        ["a vCPU0 on pCPU0 and b vCPU0 on pCPU4 are pinned to the two threads of one core: each \
            slows the other while both run"]
    );
    let both = said(&big_host(), &[of("a", 10, [&[0], &[5]]), of("b", 20, [&[4], &[1]])]);
    assert!(both.len() == 1 && both[0].contains("core, and 1 other pair of these VMs"), "{both:?}");
    let floating = [of("a", 10, [&[0], &[1]]), of("b", 20, [&[4, 5], &[4, 5]])];
    assert_eq!(said(&big_host(), &floating), [""; 0], "b may run elsewhere");
}

#[test]
fn memory_is_remote_if_most_of_it_is_and_the_vcpus_stay_on_one_node() {
    let with = |affinity: &[u32], memory: &[(u32, u64)]| {
        let vms = [vm("web", 10, vec![thread(11, Some(0), None, affinity)])];
        let memory = memory.iter().map(|(node, mib)| (*node, mib << 20)).collect();
        let memory = BTreeMap::from([(Tid(10), memory)]);
        said(&Surroundings { memory, ..big_host() }, &vms)
    };
    assert_eq!(
        with(&[0, 1], &[(0, 1024), (1, 3072)]),
        ["the vCPUs of web run on NUMA node 0, but 3.22 GB of its 4.29 GB of memory are on other \
            nodes: each access goes over the link between them"]
    );
    assert_eq!(with(&[0, 1], &[(0, 3072), (1, 1024)]), [""; 0], "most of it is not");
    assert_eq!(with(&[0, 1], &[(0, 10), (1, 60)]), [""; 0], "no guest is so small");
    assert_eq!(with(&[1, 2], &[(0, 1), (1, 3072)]), [""; 0], "the vCPUs are on both");
    assert_eq!(with(&[], &[(1, 3072)]), [""; 0], "where they run is not known");
}

#[test]
fn halt_polling_is_warned_of_only_where_it_uses_up_a_quota() {
    let with = |halt_poll_ns, accelerator, throttled_count| {
        let mut vm = with_quota("web", "/g", 150_000, &[0, 1]);
        vm.accelerator = accelerator;
        vm.quotas.iter_mut().flatten().for_each(|by| by.throttled_count = throttled_count);
        let host = Surroundings { halt_poll_ns, ..host(&[0, 1, 2, 3]) };
        said(&host, &[vm]).split_off(1)
    };
    let kvm = Some(Accelerator::Kvm);
    assert_eq!(
        with(Some(200_000), kvm, Some(9)),
        [
            "KVM may poll for up to 200 us each time a vCPU of web halts (kvm.halt_poll_ns): the quota of /g \
            is also used up by that"
        ]
    );
    assert_eq!(with(Some(0), kvm, Some(9)), [""; 0], "it does not poll");
    assert_eq!(with(None, kvm, Some(9)), [""; 0], "there is no KVM");
    assert_eq!(with(Some(200_000), kvm, Some(0)), [""; 0], "the quota was never used up");
    assert_eq!(with(Some(200_000), Some(Accelerator::Tcg), Some(9)), [""; 0]);
    // Two vCPUs on one pCPU: whoever polls gives way at once.
    let threads = vec![thread(11, Some(0), None, &[0, 1]), thread(12, Some(1), None, &[0, 1])];
    let host = Surroundings { halt_poll_ns: Some(200_000), ..host(&[0, 1]) };
    assert_eq!(said(&host, &[vm("web", 10, threads)]), [""; 0]);
}
