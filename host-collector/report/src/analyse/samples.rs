//! The samples of a run on their way to the observers.

use super::observers::Observers;
use super::{AnalyseError, optional};
use crate::summary::VmIndex;
use vslice_core::samples::SampleItem;
use vslice_core::units::HostNs;
use vslice_trace::evidence::EvidenceLevel;
use vslice_trace::manifest::Manifest;
use vslice_trace::{RunDir, StreamReader, VmName};

/// Tells of all of them; returns the time of the last one. A stream that was cut off counts as far as it goes.
pub(super) fn read(
    run: &RunDir,
    manifest: &Manifest,
    observers: &Observers<'_>,
) -> Result<HostNs, AnalyseError> {
    let mut last = HostNs(0);
    if manifest.evidence.level == EvidenceLevel::Recorded {
        return Ok(last);
    }
    for (index, vm) in manifest.vms.iter().enumerate() {
        let path = run.samples_path(&VmName::try_from(vm.name.as_str())?);
        let stream = optional(StreamReader::<SampleItem>::open(&path).map(Some))?;
        let Some(mut stream) = stream else { continue };
        while let Some(block) = stream.next_block()? {
            for sample in &block {
                observers.sample(VmIndex(index), sample);
            }
            last = last.max(block.last().map_or(last, SampleItem::time));
        }
    }
    Ok(last)
}
