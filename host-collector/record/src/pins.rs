//! The VMs' threads on the pCPUs that a plan has for them, for as long as a recording goes on.

use crate::error::RecordingError;
use crate::guests::RecordedVm;
use vslice_core::units::Tid;
use vslice_host::pin::{Pin, Pinning, VmPins};
use vslice_host::scratch;
use vslice_host::threads::{self, ThreadsError, VmmThread};
use vslice_trace::manifest::VmRecord;

/// The pins, put back when this is dropped.
#[derive(Debug)]
pub(crate) struct KeptPins {
    /// Of each VM its pins and its VMM's process.
    vms: Vec<(VmPins, Tid)>,
    pinning: Pinning,
}

impl KeptPins {
    /// Pins all threads of these VMs, the kernel's own for vhost among them.
    pub(crate) fn apply(pins: &[VmPins], vms: &[RecordedVm]) -> Result<KeptPins, RecordingError> {
        let vms = pins.iter().cloned().zip(vms.iter().map(|vm| vm.vm.pid)).collect();
        let pinning = Pinning::new(&scratch::parent_dir())?;
        let mut kept = KeptPins { vms, pinning };
        let pins = kept.pins_of(threads::list_with_kernel)?;
        kept.pinning.apply(&pins)?;
        Ok(kept)
    }

    /// The same for threads that were started meanwhile.
    pub(crate) fn apply_again(&mut self) -> Result<(), RecordingError> {
        let pins = self.pins_of(threads::list)?;
        Ok(self.pinning.apply(&pins)?)
    }

    /// Tells the manifest which thread is pinned where.
    pub(crate) fn note(&self, vms: &mut [VmRecord]) {
        for ((pins, _), vm) in self.vms.iter().zip(vms) {
            for thread in &mut vm.threads {
                thread.pinned = pins.pcpu_of(&thread.role);
            }
        }
    }

    fn pins_of(
        &self,
        list: impl Fn(Tid) -> Result<Vec<VmmThread>, ThreadsError>,
    ) -> Result<Vec<Pin>, RecordingError> {
        let mut pins = Vec::new();
        for (vm, pid) in &self.vms {
            pins.extend(vm.pins(&list(*pid)?));
        }
        Ok(pins)
    }
}
