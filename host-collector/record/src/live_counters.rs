//! What the kernel counts of VMs while they are recorded, read once a second for whoever looks on.

use crate::measurement::own_cpu_ns;
use crate::sampling::schedstat;
use crate::uninterrupted::Before;
use vslice_core::units::{PcpuId, Tid};
use vslice_host::host_clock::host_clocks_now;
use vslice_host::steal;
use vslice_host::tsc::KvmDebugfs;
use vslice_trace::manifest::{Manifest, may_use_kvm};

/// The counters of a recording's VMs, and what they were before its window.
#[derive(Debug)]
pub struct LiveCounters {
    before: Before,
    vcpus: Vec<Tid>,
    vmms: Vec<Tid>,
    debugfs: Option<KvmDebugfs>,
}

/// What was counted until now.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Counted {
    /// Nanoseconds since 1970.
    pub realtime_ns: u64,
    /// For how long each vCPU's thread was ever runnable without a pCPU: what KVM adds to its guest's steal time
    /// (linux: arch/x86/kvm/x86.c, `record_steal_time`).
    pub run_delay_ns: Vec<(Tid, u64)>,
    /// Threads that have kept their pCPU since before the window.
    pub kept: Vec<(Tid, PcpuId)>,
    /// Threads that have slept since before the window.
    pub asleep: Vec<Tid>,
    /// For how long KVM has polled for each VM's halted vCPUs, in the order of the VMs.
    pub halt_poll_ns: Vec<Option<u64>>,
    /// What a hypervisor below this host has kept of all pCPUs.
    pub stolen_ns: Option<u64>,
    /// CPU time of this process.
    pub cpu_ns: u64,
}

impl LiveCounters {
    /// Reads them just before the window. Nothing of it is needed: what cannot be read is not told.
    pub(crate) fn start(manifest: &Manifest) -> LiveCounters {
        let vcpus = manifest.vms.iter().flat_map(|vm| &vm.threads);
        let vcpus = vcpus.filter(|thread| thread.vcpu.is_some()).map(|thread| thread.tid);
        let uses_kvm = may_use_kvm(&manifest.vms);
        LiveCounters {
            before: Before::read(&manifest.vms),
            vcpus: vcpus.collect(),
            vmms: manifest.vms.iter().map(|vm| vm.pid).collect(),
            debugfs: uses_kvm.then(KvmDebugfs::find).and_then(Result::ok),
        }
    }

    /// Reads them now.
    #[must_use]
    pub fn read(&self) -> Counted {
        let run_delay = |tid: &Tid| {
            let text = std::fs::read_to_string(format!("/proc/{tid}/schedstat")).ok()?;
            schedstat(&text).map(|[_, run_delay_ns, _]| (*tid, run_delay_ns))
        };
        let halt_poll = |vmm: &Tid| self.debugfs.as_ref()?.halt_poll_ns(*vmm).ok();
        Counted {
            realtime_ns: host_clocks_now().realtime_ns,
            run_delay_ns: self.vcpus.iter().filter_map(run_delay).collect(),
            kept: self.before.kept(),
            asleep: self.before.asleep(),
            halt_poll_ns: self.vmms.iter().map(halt_poll).collect(),
            stolen_ns: steal::stolen_ns(),
            cpu_ns: own_cpu_ns(),
        }
    }
}
