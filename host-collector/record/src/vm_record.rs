//! From a VM to what the manifest says of it.

use crate::guests::RecordedVm;
use crate::lock_facts;
use crate::names::names_of;
use vslice_core::units::VcpuId;
use vslice_host::scheduling::scheduling_of;
use vslice_host::vm::Vm;
use vslice_trace::manifest::VmRecord;
use vslice_trace::observation::ObservationRecord;
use vslice_trace::thread::{HelperRecord, ThreadRecord};

/// What is known of a VM before anything was recorded of it.
pub(crate) fn vm_record(recorded: &RecordedVm) -> VmRecord {
    let vm = &recorded.vm;
    let record = VmRecord {
        accelerator: vm.accelerator,
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
