//! What `vslice ps` tells: the VMs of this host, and what of their placement bites. Pure but for
//! [`Listing::of_this_host`].

pub mod text;
mod warning;

pub use warning::Bite;

use serde::Serialize;
use vslice_core::units::PcpuId;
use vslice_host::vm::{Vm, find_all};

/// The schema of the JSON.
pub const SCHEMA: &str = "vslice.ps/1";

/// The VMs of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The pCPUs that are online.
    pub pcpus: Vec<PcpuId>,
    /// The VMs, by the ids of their processes.
    pub vms: Vec<Vm>,
    /// What bites.
    pub warnings: Vec<Bite>,
}

impl Listing {
    /// Of what is known.
    #[must_use]
    pub fn new(pcpus: Vec<PcpuId>, vms: Vec<Vm>) -> Listing {
        let warnings = warning::all(&pcpus, &vms);
        Listing { schema: SCHEMA, pcpus, vms, warnings }
    }

    /// Of this host, as far as this process may look.
    #[must_use]
    pub fn of_this_host() -> Listing {
        let online = vslice_host::host::online_pcpus()
            .map(|pcpus| pcpus.iter().collect())
            .unwrap_or_default();
        Listing::new(online, find_all())
    }

    /// Of what a user calls so, see [`Vm::is_called`]; the warnings are those that concern it.
    #[must_use]
    pub fn only(mut self, wanted: &str) -> Listing {
        let is_wanted = |vm: &Vm| vm.is_called(wanted);
        let labels: Vec<String> =
            self.vms.iter().filter(|vm| is_wanted(vm)).map(Vm::label).collect();
        self.vms.retain(is_wanted);
        self.warnings.retain(|bite| labels.iter().any(|label| bite.concerns(label)));
        self
    }
}
