//! From a VM to what the manifest says of it.

use crate::guests::RecordedVm;
use crate::lock_facts;
use crate::names::names_of;
use vslice_core::units::VcpuId;
use vslice_host::scheduling::scheduling_of;
use vslice_host::vm::Vm;
use vslice_trace::manifest::VmRecord;
use vslice_trace::thread::ThreadRecord;

/// What is known of a VM before anything was recorded of it.
pub(crate) fn vm_record(recorded: &RecordedVm) -> VmRecord {
    let vm = &recorded.vm;
    let threads = vm.threads.iter().map(|thread| ThreadRecord {
        tid: thread.tid,
        comm: thread.comm.clone(),
        role: thread.role.clone(),
        vcpu: thread.vcpu,
        pinned: None,
        kept: None,
        scheduling: scheduling_of(thread.tid),
    });
    let record = VmRecord {
        accelerator: vm.accelerator,
        device_pid: vm.device_pid,
        ..VmRecord::new(recorded.name.as_str(), vm.vmm, vm.pid, threads.collect())
    };
    let Some(workload) = &recorded.workload else { return record };
    let reader = workload.reader.as_ref();
    VmRecord {
        block_bytes: reader.map(|reader| reader.block_bytes),
        reader_vcpu: reader.map(|reader| VcpuId(reader.vcpu)),
        hogs: workload.hogs.iter().copied().map(VcpuId).collect(),
        ..record
    }
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
