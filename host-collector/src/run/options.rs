//! What a run is told beside its plan.

use super::evidence::EvidenceSetting;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where a run reads and writes, and how it is interrupted.
#[derive(Debug, Clone, Copy)]
pub struct RunOptions<'a> {
    /// The run directory, made by the run.
    pub output: &'a Path,
    /// The guest image's directory.
    pub image: &'a Path,
    /// How well the guests' threads must be seen.
    pub evidence: EvidenceSetting,
    /// Set from outside when the run shall end early; a second time, while it ends, makes it end at once.
    pub interrupted: &'a AtomicBool,
}

impl RunOptions<'_> {
    /// Whether the run was interrupted since the last call. The first interrupt ends the run in
    /// order; one more, while it ends, makes it give up what the order takes time for.
    pub(super) fn take_interrupt(&self) -> bool {
        take_interrupt(self.interrupted)
    }
}

/// Whether there was an interrupt since the last call.
pub(super) fn take_interrupt(interrupted: &AtomicBool) -> bool {
    interrupted.swap(false, Ordering::Relaxed)
}
