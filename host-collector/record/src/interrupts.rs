//! Which vCPU is which in KVM's events of interrupts: noted before anything is recorded.

use vslice_core::units::Tid;
use vslice_host::tsc::KvmDebugfs;
use vslice_trace::manifest::{InterruptRecord, KvmVcpu, VmRecord, may_use_kvm};

/// Notes KVM's number of each vCPU. Nothing of it is needed for a run: what cannot be found becomes the reason why.
pub(crate) fn note_vcpus(vms: &mut [VmRecord]) {
    if !may_use_kvm(vms) {
        return;
    }
    let debugfs = KvmDebugfs::find().map_err(|error| error.to_string());
    for vm in vms {
        let tids = debugfs.as_ref().map_err(Clone::clone).and_then(|debugfs| {
            let tids = debugfs.vcpu_tids(vm.pid).map_err(|error| error.to_string())?;
            Ok(tids.into_iter().map(|(vcpu, tid)| (u32::from(vcpu.0), tid)).collect())
        });
        vm.interrupts = record(tids);
    }
}

fn record(tids: Result<Vec<(u32, Tid)>, String>) -> InterruptRecord {
    let missing = match &tids {
        Ok(tids) if tids.is_empty() => Some(
            "KVM does not tell which thread runs which vCPU (it does since Linux 6.0)".to_owned(),
        ),
        Ok(_) => None,
        Err(why) => Some(format!("KVM's debugfs directory cannot be read ({why})")),
    };
    let vcpus = tids.unwrap_or_default().into_iter().map(|(number, tid)| KvmVcpu { number, tid });
    InterruptRecord { vcpus: vcpus.collect(), missing }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kvm_does_not_tell_has_its_reason() {
        let told = record(Ok(vec![(0, Tid(7)), (4, Tid(9))]));
        let (number, tid) = (4, Tid(9));
        assert_eq!((told.vcpus[1], told.missing), (KvmVcpu { number, tid }, None));
        let silent = record(Ok(vec![]));
        assert!(silent.vcpus.is_empty() && silent.missing.unwrap().contains("since Linux 6.0"));
        let refused = record(Err("no rights".to_owned()));
        assert!(refused.missing.unwrap().contains("(no rights)"));
    }
}
