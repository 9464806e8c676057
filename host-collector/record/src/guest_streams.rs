//! Where a session's deliveries go: the streams of its guest in the run directory.

use crate::guest::session::{GuestSink, SinkError};
use vslice_core::clock::Exchange;
use vslice_core::units::VcpuId;
use vslice_trace::{
    ClockSample, HogGapItem, ObservedItem, RequestItem, RunDir, StoreError, StreamWriter, VmName,
};
use vslice_wire::{Dropped, HogGap, Request};

/// The streams of one guest.
#[derive(Debug)]
pub(crate) struct GuestStreams {
    requests: StreamWriter<RequestItem>,
    clock: StreamWriter<ClockSample>,
    hog_gaps: StreamWriter<HogGapItem>,
    observed: Option<StreamWriter<ObservedItem>>,
}

impl GuestStreams {
    /// Those of a guest; one of observed requests only if it observes.
    pub(crate) fn create(
        run: &RunDir,
        vm: &VmName,
        observes: bool,
    ) -> Result<GuestStreams, StoreError> {
        let observed = observes.then(|| StreamWriter::create(&run.observed_path(vm)));
        Ok(GuestStreams {
            observed: observed.transpose()?,
            requests: StreamWriter::create(&run.requests_path(vm))?,
            clock: StreamWriter::create(&run.clock_path(vm))?,
            hog_gaps: StreamWriter::create(&run.hog_gaps_path(vm))?,
        })
    }

    /// Says that the streams are whole.
    pub(crate) fn finish(self) -> Result<(), StoreError> {
        self.requests.finish()?;
        self.clock.finish()?;
        self.hog_gaps.finish()?;
        self.observed.map_or(Ok(()), StreamWriter::finish)
    }
}

impl GuestSink for &mut GuestStreams {
    fn requests(&mut self, requests: &[Request]) -> Result<(), SinkError> {
        for request in requests {
            self.requests.push(RequestItem::Request(*request))?;
        }
        Ok(self.requests.tick()?)
    }

    fn dropped(&mut self, dropped: &Dropped) -> Result<(), SinkError> {
        self.requests.push(RequestItem::Dropped(*dropped))?;
        Ok(self.requests.tick()?)
    }

    fn exchange(&mut self, vcpu: VcpuId, exchange: &Exchange) -> Result<(), SinkError> {
        self.clock.push(ClockSample { vcpu, exchange: *exchange })?;
        Ok(self.clock.tick()?)
    }

    fn hog_gaps(&mut self, vcpu: VcpuId, gaps: &[HogGap]) -> Result<(), SinkError> {
        for gap in gaps {
            self.hog_gaps.push(HogGapItem { vcpu, start: gap.start, end: gap.end })?;
        }
        Ok(self.hog_gaps.tick()?)
    }

    fn observed(&mut self, items: &[ObservedItem]) -> Result<(), SinkError> {
        let Some(observed) = &mut self.observed else { return Ok(()) };
        for item in items {
            observed.push(*item)?;
        }
        Ok(observed.tick()?)
    }

    fn observed_bytes(&self) -> u64 {
        self.observed.as_ref().map_or(0, StreamWriter::written_bytes)
    }
}
