//! Where a session's deliveries go: the streams of its guest in the run directory.

use crate::guest::session::{GuestSink, SinkError};
use crate::kept::Kept;
use vslice_core::clock::Exchange;
use vslice_core::units::VcpuId;
use vslice_trace::{
    ClockSample, HogGapItem, ObservedItem, RequestItem, RunDir, StoreError, StreamWriter, VmName,
};
use vslice_wire::{Dropped, HogGap, Request};

/// The streams of one guest; none of a recording that is not kept.
#[derive(Debug)]
pub(crate) struct GuestStreams(Option<Streams>);

#[derive(Debug)]
struct Streams {
    requests: StreamWriter<RequestItem>,
    clock: StreamWriter<ClockSample>,
    hog_gaps: StreamWriter<HogGapItem>,
    observed: Option<StreamWriter<ObservedItem>>,
}

impl GuestStreams {
    /// Those of a guest; one of observed requests only if it observes.
    pub(crate) fn create(
        kept: &Kept,
        vm: &VmName,
        observes: bool,
    ) -> Result<GuestStreams, StoreError> {
        let create = |run: &RunDir| -> Result<Streams, StoreError> {
            let observed = observes.then(|| StreamWriter::create(&run.observed_path(vm)));
            Ok(Streams {
                observed: observed.transpose()?,
                requests: StreamWriter::create(&run.requests_path(vm))?,
                clock: StreamWriter::create(&run.clock_path(vm))?,
                hog_gaps: StreamWriter::create(&run.hog_gaps_path(vm))?,
            })
        };
        Ok(GuestStreams(kept.dir().map(create).transpose()?))
    }

    /// Says that the streams are whole.
    pub(crate) fn finish(self) -> Result<(), StoreError> {
        let Some(streams) = self.0 else { return Ok(()) };
        streams.requests.finish()?;
        streams.clock.finish()?;
        streams.hog_gaps.finish()?;
        streams.observed.map_or(Ok(()), StreamWriter::finish)
    }
}

impl GuestSink for &mut GuestStreams {
    fn requests(&mut self, requests: &[Request]) -> Result<(), SinkError> {
        let Some(streams) = &mut self.0 else { return Ok(()) };
        for request in requests {
            streams.requests.push(RequestItem::Request(*request))?;
        }
        Ok(streams.requests.tick()?)
    }

    fn dropped(&mut self, dropped: &Dropped) -> Result<(), SinkError> {
        let Some(streams) = &mut self.0 else { return Ok(()) };
        streams.requests.push(RequestItem::Dropped(*dropped))?;
        Ok(streams.requests.tick()?)
    }

    fn exchange(&mut self, vcpu: VcpuId, exchange: &Exchange) -> Result<(), SinkError> {
        let Some(streams) = &mut self.0 else { return Ok(()) };
        streams.clock.push(ClockSample { vcpu, exchange: *exchange })?;
        Ok(streams.clock.tick()?)
    }

    fn hog_gaps(&mut self, vcpu: VcpuId, gaps: &[HogGap]) -> Result<(), SinkError> {
        let Some(streams) = &mut self.0 else { return Ok(()) };
        for gap in gaps {
            streams.hog_gaps.push(HogGapItem { vcpu, start: gap.start, end: gap.end })?;
        }
        Ok(streams.hog_gaps.tick()?)
    }

    fn observed(&mut self, items: &[ObservedItem]) -> Result<(), SinkError> {
        let observed = self.0.as_mut().and_then(|streams| streams.observed.as_mut());
        let Some(observed) = observed else { return Ok(()) };
        for item in items {
            observed.push(*item)?;
        }
        Ok(observed.tick()?)
    }

    fn observed_bytes(&self) -> u64 {
        let observed = self.0.as_ref().and_then(|streams| streams.observed.as_ref());
        observed.map_or(0, StreamWriter::written_bytes)
    }
}
