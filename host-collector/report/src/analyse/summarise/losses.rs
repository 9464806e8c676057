//! What the kernel dropped of the measured window.

use crate::analyse::observer::MeasuredWindow;
use crate::summary::model::Lost;
use vslice_core::host_event::{HostEvent, HostEventKind};
use vslice_core::units::HostNs;

/// The losses so far.
#[derive(Debug, Default)]
pub(super) struct Losses {
    pub(super) lost: Lost,
    /// Up to here they are counted.
    until: HostNs,
}

impl Losses {
    /// Counts what was lost within the window, stretches on several pCPUs once where they overlap.
    pub(super) fn learn(&mut self, event: &HostEvent, window: &MeasuredWindow) {
        let HostEventKind::Lost { until, count } = event.kind else { return };
        if !window.touches(event.time, until) {
            return;
        }
        self.lost.records = self.lost.records.saturating_add(count);
        self.lost.intervals += 1;
        // They come in the order in which they began.
        let from = event.time.max(window.start).max(self.until);
        let until = until.min(window.end);
        self.lost.total_ns = self.lost.total_ns.saturating_add(until.since_ns(from));
        self.until = self.until.max(until);
    }
}
