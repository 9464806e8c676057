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
    vms: Vec<(VmPins, Tid)>,
    pinning: Pinning,
    pins: Vec<Pin>,
}

impl KeptPins {
    /// Pins all threads of these VMs, the kernel's own for vhost among them.
    pub(crate) fn apply(pins: &[VmPins], vms: &[RecordedVm]) -> Result<KeptPins, RecordingError> {
        let vms = pins.iter().cloned().zip(vms.iter().map(|vm| vm.vm.pid)).collect();
        let pinning = Pinning::new(&scratch::parent_dir())?;
        let mut kept = KeptPins { vms, pinning, pins: Vec::new() };
        kept.pins = kept.pins_of(threads::list_with_kernel)?;
        kept.pinning.apply(&kept.pins)?;
        Ok(kept)
    }

    /// The same for threads that were started meanwhile.
    pub(crate) fn apply_again(&mut self) -> Result<(), RecordingError> {
        let pins = self.pins_of(threads::list)?;
        Ok(self.pinning.apply(&pins)?)
    }

    /// Tells the manifest which thread is pinned where.
    pub(crate) fn note(&self, vms: &mut [VmRecord]) {
        let pcpu_of = |tid: Tid| self.pins.iter().find(|pin| pin.tid == tid).map(|pin| pin.pcpu);
        for thread in vms.iter_mut().flat_map(|vm| &mut vm.threads) {
            thread.pinned = pcpu_of(thread.tid);
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
