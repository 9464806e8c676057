use super::*;
use crate::watcher::LineWatcher;
use vslice_core::text::Letters;
use vslice_core::units::{Tid, VcpuId};
use vslice_host::vm::VmThread;
use vslice_spec::ClockChoice;
use vslice_trace::thread::ThreadRole;
use vslice_trace::vmm::Accelerator;

/// VMs that nobody can look at any more.
fn gone(names: &[(&str, Option<Accelerator>)]) -> AttachedVms {
    let vm = |(name, accelerator): &(&str, Option<Accelerator>)| Vm {
        pid: Tid(u32::MAX),
        accelerator: *accelerator,
        ..Vm::named(name)
    };
    let vms: Vec<Vm> = names.iter().map(vm).collect();
    AttachedVms::started_at(&vms, Vec::new(), None)
}

#[test]
fn an_accelerator_that_is_not_known_is_no_default_and_has_its_reason() {
    let kvm = Some(Accelerator::Kvm);
    let facts = gone(&[("web", kvm), ("db", kvm)]).facts(AttachedPlans::default());
    assert_eq!(facts.accelerator_reason, "the VMs were found running");
    let facts = gone(&[("web", kvm), ("db", None)]).facts(AttachedPlans::default());
    assert_eq!(facts.accelerator_reason, format!("the VMs were found running; {NO_ACCELERATOR}"));
}

#[test]
fn what_cannot_be_seen_of_a_vm_is_a_reason_and_nothing_of_the_hosts() {
    let facts = gone(&[("web", Some(Accelerator::Kvm))]).facts(AttachedPlans::default());
    let said = facts.environment_lines.join("\n");
    for reason in [
        "QEMU version unknown, because the program that runs it is not visible",
        "host disk unknown, because the open files of web are not visible",
    ] {
        assert!(said.contains(reason), "{said}");
    }
}

#[test]
fn nothing_is_plugged_into_a_vm_whose_agent_cannot_be_started() {
    let scratch = tempfile::tempdir().unwrap();
    let monitor = scratch.path().join("qmp");
    let socket = std::os::unix::net::UnixListener::bind(&monitor).unwrap();
    socket.set_nonblocking(true).unwrap();
    let vms = [Vm { qmp_sockets: vec![monitor], ..Vm::named("web") }];
    let workload = WorkloadSpec {
        hogs: vec![1],
        reader: None,
        housekeeping_vcpu: 0,
        clock: ClockChoice::Auto,
        io_scheduler: None,
        lease_ms: 1_500,
        observe: None,
        hog_gap_us: None,
    };
    let load = AgentLoad { workloads: vec![workload], agent: None, plug: true };
    let mut attached = AttachedVms::started_at(&vms, Vec::new(), Some(load));
    let mut watcher = LineWatcher::new(Vec::new(), Letters::Unicode);
    let said = attached.open(&mut watcher).unwrap_err().to_string();
    assert!(said.starts_with("web: there is no port for qemu-ga"), "{said}");
    assert!(said.contains("-device virtio-serial-pci"), "{said}");
    let asked = socket.accept().map(drop).map_err(|error| error.kind());
    assert_eq!(asked, Err(std::io::ErrorKind::WouldBlock), "nobody has come to the monitor");
}

#[test]
fn a_vm_that_is_stopped_is_said_at_once() {
    let (tid, role) = (Tid(std::process::id()), ThreadRole::Vcpu(VcpuId(0)));
    let vcpu = VmThread::new(tid, "CPU 0/TCG", role, vec![PcpuId(0)]);
    let stopper = Some(procfs::Stopper::Signal);
    let vms = [Vm { threads: vec![vcpu], stopper, ..Vm::named("web") }];
    let mut said = Vec::new();
    let mut watcher = LineWatcher::new(&mut said, Letters::Unicode);
    drop(AttachedVms::new(&vms, None, &mut watcher).unwrap());
    let said = String::from_utf8(said).unwrap();
    let first = said.lines().next().unwrap_or_default();
    assert!(first.starts_with("vslice: web: its process ") && first.contains("SIGSTOP"), "{said}");
}
