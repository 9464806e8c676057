use super::*;
use vslice_core::units::{Tid, VcpuId};
use vslice_host::vm::VmThread;
use vslice_trace::thread::ThreadRole;

/// The demo's roles are vm1 and vm2.
fn assigned(vms: &[&str], named: &[Option<&str>]) -> Result<Vec<String>, String> {
    let vms: Vec<Vm> = vms.iter().map(|name| Vm::named(name)).collect();
    let named: Vec<Option<String>> = named.iter().map(|name| name.map(str::to_owned)).collect();
    let plan = Plan::load("demo").expect("built in");
    let assignment = RoleAssignment::new(plan, &vms, &named).map_err(|error| error.to_string())?;
    Ok(assignment.roles().map(|role| role.name.clone()).collect())
}

#[test]
fn a_role_is_named_or_of_the_own_name_or_the_first_that_is_free() {
    for (vms, named, roles) in [
        (&["web"][..], &[None][..], &["vm1"][..]),
        (&["web"], &[Some("vm2")], &["vm2"]),
        (&["vm2"], &[None], &["vm2"]),
        (&["web", "db"], &[None, None], &["vm1", "vm2"]),
        (&["web", "db"], &[None, Some("vm1")], &["vm2", "vm1"]),
        (&["web", "vm1"], &[None, None], &["vm2", "vm1"]),
        (&["vm1", "vm2"], &[Some("vm2"), Some("vm1")], &["vm2", "vm1"]),
    ] {
        assert_eq!(assigned(vms, named).unwrap(), roles, "{vms:?} {named:?}");
    }
}

#[test]
fn a_role_that_a_vm_cannot_have_is_an_error() {
    let message = assigned(&["web"], &[Some("vm9")]).unwrap_err();
    assert_eq!(
        message,
        "plan 'demo' has no role 'vm9' for web; its roles are vm1, vm2: choose one with VM=ROLE"
    );
    let message = assigned(&["a", "b", "c"], &[None, None, None]).unwrap_err();
    assert!(message.contains("no role left for c"), "{message}");
    let message = assigned(&["a", "vm1"], &[Some("vm1"), None]).unwrap_err();
    assert!(message.contains("another VM already has the role of vm1"), "{message}");
}

#[test]
fn pins_need_a_pcpu_for_each_vcpu() {
    let vms = [Vm::named("web")];
    let plan = Plan::load("demo").expect("built in");
    let assignment = RoleAssignment::new(plan, &vms, &[None]).unwrap();
    let message = assignment.pins(&vms).unwrap_err().to_string();
    assert_eq!(message, "web has 0 vCPUs, but its role 'vm1' pins 2");
}

fn vm_with(vcpus: u16) -> Vm {
    let thread = |vcpu| {
        let (tid, role) = (Tid(100 + u32::from(vcpu)), ThreadRole::Vcpu(VcpuId(vcpu)));
        VmThread::new(tid, &format!("CPU {vcpu}/KVM"), role, vec![])
    };
    Vm { threads: (0..vcpus).map(thread).collect(), ..Vm::named("web") }
}

/// Whether an agent would take what it is to do, with the demo changed like this.
fn checked(vcpus: u16, target: Option<&str>, change: impl FnOnce(&mut Plan)) -> Result<(), String> {
    let vms = [vm_with(vcpus)];
    let mut plan = Plan::load("demo").expect("built in");
    change(&mut plan);
    let assignment = RoleAssignment::new(plan, &vms, &[None]).expect("it has a role");
    assignment.workloads(&vms, target).map(drop).map_err(|error| error.to_string())
}

#[test]
fn of_a_vm_whose_accelerator_is_not_known_the_clock_is_kvms() {
    for (accelerator, as_under) in [
        (None, LabAccelerator::Kvm),
        (Some(Accelerator::Kvm), LabAccelerator::Kvm),
        (Some(Accelerator::Tcg), LabAccelerator::Tcg),
        (Some(Accelerator::Mshv), LabAccelerator::Tcg),
    ] {
        let vm = Vm { accelerator, ..Vm::named("web") };
        assert_eq!(clock_as_under(&vm), as_under, "{:?}", vm.accelerator);
    }
}

#[test]
fn what_an_agent_would_refuse_is_refused_before_it_is_started() {
    assert_eq!(checked(2, None, |_| {}), Ok(()));
    let unlike = |checked: Result<(), String>, words: &str| {
        let message = checked.expect_err(words);
        assert!(message.starts_with("web cannot have the role 'vm1': "), "{message}");
        assert!(message.contains(words), "{message}");
    };
    unlike(checked(1, None, |_| {}), "a hog is pinned to vCPU1, but the machine has 1 vCPUs");
    unlike(checked(2, Some(""), |_| {}), "is no path");
    let vcpu7 = |plan: &mut Plan| plan.vms[0].housekeeping_vcpu = VcpuId(7);
    unlike(checked(4, None, vcpu7), "the housekeeping is pinned to vCPU7");
    let vcpu1 = |plan: &mut Plan| plan.vms[0].housekeeping_vcpu = VcpuId(1);
    unlike(checked(2, None, vcpu1), "the reader is pinned to vCPU1, where the housekeeping runs");
    // A run gives its own disk that scheduler; here nobody asks for it.
    let scheduler = |plan: &mut Plan| {
        let disk = plan.vms[0].disk.as_mut().expect("it has one");
        disk.guest_io_scheduler = "of another guest".to_owned();
    };
    assert_eq!(checked(2, None, scheduler), Ok(()));
}
