//! From a VM to what the manifest says of it.

use crate::guests::RecordedVm;
use crate::lock_facts;
use crate::names::names_of;
use vslice_core::text::harmless;
use vslice_core::units::VcpuId;
use vslice_host::scheduling::scheduling_of;
use vslice_host::vm::{Manager, Vm};
use vslice_trace::manifest::VmRecord;
use vslice_trace::observation::ObservationRecord;
use vslice_trace::thread::{HelperRecord, ThreadRecord};
use vslice_trace::vmm::DomainRecord;

/// What is known of a VM before anything was recorded of it.
pub(crate) fn vm_record(recorded: &RecordedVm) -> VmRecord {
    let vm = &recorded.vm;
    let record = VmRecord {
        accelerator: vm.accelerator,
        domain: domain_record(vm),
        device_pid: vm.device_pid,
        helpers: helper_records(vm),
        ..VmRecord::new(recorded.name.as_str(), vm.vmm, vm.pid, thread_records(vm))
    };
    let Some(workload) = &recorded.workload else { return record };
    let reader = workload.reader.as_ref();
    VmRecord {
        block_bytes: reader.map(|reader| reader.block_bytes),
        reader_vcpu: reader.map(|reader| VcpuId(reader.vcpu)),
        hogs: workload.hogs.iter().copied().map(VcpuId).collect(),
        observation: workload.observe.as_ref().map(|observe| ObservationRecord {
            slower_than_us: observe.slower_than_us,
            ..ObservationRecord::default()
        }),
        ..record
    }
}

/// The domain that a VM is. Names with letters that a terminal might obey are not kept: a command with another one would
/// be for another domain.
pub(crate) fn domain_record(vm: &Vm) -> Option<DomainRecord> {
    let uri = match vm.manager? {
        Manager::LibvirtSystem => "qemu:///system",
        Manager::LibvirtSession => "qemu:///session",
    };
    let name = vm.name.clone().filter(|name| harmless(name) == *name)?;
    Some(DomainRecord { name, uri: uri.to_owned() })
}

/// The threads of a VM's VMM.
pub(crate) fn thread_records(vm: &Vm) -> Vec<ThreadRecord> {
    let threads = vm.threads.iter().map(|thread| ThreadRecord {
        tid: thread.tid,
        comm: thread.comm.clone(),
        role: thread.role.clone(),
        vcpu: thread.vcpu,
        pinned: None,
        kept: None,
        scheduling: scheduling_of(thread.tid),
    });
    threads.collect()
}

/// Those that work for a VM outside of its VMM's process.
pub(crate) fn helper_records(vm: &Vm) -> Vec<HelperRecord> {
    let helpers = vm.helpers.iter().map(|helper| HelperRecord {
        pid: helper.pid,
        comm: helper.comm.clone(),
        role: helper.role.name().to_owned(),
        is_inferred: !helper.sign.is_proof(),
    });
    helpers.collect()
}

/// What a recording of these VMs would know of them beforehand: their threads and their locks.
#[must_use]
pub fn vm_records(vms: &[Vm]) -> Vec<VmRecord> {
    let recorded = vms.iter().zip(names_of(vms)).map(|(vm, name)| RecordedVm {
        name,
        vm: vm.clone(),
        workload: None,
    });
    let mut records: Vec<VmRecord> = recorded.map(|vm| vm_record(&vm)).collect();
    lock_facts::note(&mut records, None);
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_recorded_letter_by_letter_or_not_at_all() {
        let vm = |name: &str, manager| Vm { manager, ..Vm::named(name) };
        let of = |name: &str, manager| domain_record(&vm(name, manager));
        let system = Some(Manager::LibvirtSystem);
        let domain = of("Web 1; rm", system).expect("it is one");
        assert_eq!((domain.name.as_str(), domain.uri.as_str()), ("Web 1; rm", "qemu:///system"));
        let session = of("web", Some(Manager::LibvirtSession)).expect("it is one");
        assert_eq!(session.uri, "qemu:///session");
        assert_eq!(of("web\u{1b}[2J", system), None, "it would be called otherwise");
        assert_eq!(of("web", None), None);
    }
}
