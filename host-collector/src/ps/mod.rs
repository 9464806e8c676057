//! The listing of `vslice ps`: the VMs of this host, and the placements that cost latency. Pure but for
//! [`Listing::of_this_host`].

mod disk;
mod surroundings;
pub(crate) mod text;
mod warning;

pub(crate) use surroundings::Surroundings;
pub(crate) use warning::PlacementWarning;

use serde::Serialize;
use vslice_core::units::PcpuId;
use vslice_host::vm::{Vm, find_all};

/// The schema of the JSON.
pub(crate) const SCHEMA: &str = "vslice.ps/1";

/// The VMs of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Listing {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The pCPUs that are online.
    pub pcpus: Vec<PcpuId>,
    /// The VMs, by the ids of their processes.
    pub vms: Vec<Vm>,
    /// The placements that cost latency.
    pub warnings: Vec<PlacementWarning>,
}

impl Listing {
    /// Makes the listing of these VMs, with its warnings.
    #[must_use]
    pub(crate) fn new(host: Surroundings, vms: Vec<Vm>) -> Listing {
        let warnings = warning::all(&host, &vms);
        Listing { schema: SCHEMA, pcpus: host.pcpus, vms, warnings }
    }

    /// Makes the listing of this host, as far as this process is allowed to see it.
    #[must_use]
    pub(crate) fn of_this_host() -> Listing {
        let vms = find_all();
        Listing::new(Surroundings::of_this_host(&vms), vms)
    }

    /// Keeps the VMs that match a name, see [`Vm::is_called`], and the warnings about them.
    #[must_use]
    pub(crate) fn only(mut self, wanted: &str) -> Listing {
        let is_wanted = |vm: &Vm| vm.is_called(wanted);
        let labels = warning::labels(&self.vms).into_iter().zip(&self.vms);
        let labels: Vec<String> =
            labels.filter(|(_, vm)| is_wanted(vm)).map(|(label, _)| label).collect();
        self.vms.retain(is_wanted);
        self.warnings.retain(|warning| labels.iter().any(|label| warning.concerns(label)));
        self
    }
}
