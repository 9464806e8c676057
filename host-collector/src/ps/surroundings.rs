//! What of the host decides whether a placement costs latency.

use std::collections::BTreeMap;
use vslice_core::units::{PcpuId, Tid};
use vslice_host::topology::{self, Topology};
use vslice_host::vm::Vm;

/// The host around its VMs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Surroundings {
    /// The pCPUs that are online.
    pub pcpus: Vec<PcpuId>,
    /// What they share.
    pub topology: Topology,
    /// For how long KVM polls when a vCPU halts; `None` if it is not there.
    pub halt_poll_ns: Option<u64>,
    /// The bytes of memory on each NUMA node, by the VMs' processes: of those whose vCPUs are all on one node of
    /// several, and whose memory this user may see.
    pub memory: BTreeMap<Tid, BTreeMap<u32, u64>>,
}

impl Surroundings {
    /// Looks at this host.
    #[must_use]
    pub(crate) fn of_this_host(vms: &[Vm]) -> Surroundings {
        let online = vslice_host::host::online_pcpus();
        let topology = Topology::of_host();
        let is_placed = |vm: &&Vm| topology.only_node_of(&vcpus_pcpus(vm)).is_some();
        let memory = vms
            .iter()
            .filter(is_placed)
            .filter_map(|vm| Some((vm.pid, topology::guest_memory_by_node(vm.pid).ok()?)));
        Surroundings {
            pcpus: online.map(|pcpus| pcpus.iter().collect()).unwrap_or_default(),
            memory: memory.collect(),
            halt_poll_ns: topology::halt_poll_ns(),
            topology,
        }
    }
}

/// The pCPUs on which the vCPUs of a VM may run; none if that of one of them is not known.
pub(super) fn vcpus_pcpus(vm: &Vm) -> Vec<PcpuId> {
    if vm.vcpus().any(|vcpu| vcpu.affinity.is_empty()) {
        return Vec::new();
    }
    vm.vcpus().flat_map(|vcpu| vcpu.affinity.iter().copied()).collect()
}
