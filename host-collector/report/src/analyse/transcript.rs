//! An observer that writes down all that it is told.

use super::analyse_on;
use super::chosen::Asked;
use super::observer::{Observer, Run, RunEnd};
use super::summarise::SummaryObserver;
use crate::summary::VmIndex;
use std::path::Path;
use vslice_core::host_event::HostEvent;
use vslice_core::host_view::ViewedIo;
use vslice_core::join::{Breakdown, GuestRequest, Unplaced};
use vslice_core::timeline::{Exit, LockWait, Span, Tasks};
use vslice_core::units::{HostNs, PcpuId};
use vslice_wire::Dropped;

/// A line for each thing that it was told.
#[derive(Debug, Default, PartialEq, Eq)]
struct Transcript {
    lines: Vec<String>,
}

impl Observer for Transcript {
    fn start(&mut self, run: &Run<'_>) {
        self.lines.push(format!("{run:?}"));
    }

    /// With what is known of the threads by then.
    fn event(&mut self, event: &HostEvent, tasks: &Tasks) {
        let mut known: Vec<_> = tasks.all().collect();
        known.sort_by_key(|(tid, _)| *tid);
        self.lines.push(format!("{event:?} {known:?}"));
    }

    fn cut_off(&mut self, pcpu: PcpuId, since: HostNs) {
        self.lines.push(format!("{pcpu:?} {since:?}"));
    }

    fn span(&mut self, span: &Span) {
        self.lines.push(format!("{span:?}"));
    }

    fn lock_wait(&mut self, wait: &LockWait) {
        self.lines.push(format!("{wait:?}"));
    }

    fn exit(&mut self, exit: &Exit) {
        self.lines.push(format!("{exit:?}"));
    }

    fn request(&mut self, vm: VmIndex, breakdown: &Breakdown) {
        self.lines.push(format!("{vm:?} {breakdown:?}"));
    }

    fn host_io(&mut self, vm: VmIndex, disk: Option<usize>, io: &ViewedIo) {
        self.lines.push(format!("{vm:?} {disk:?} {io:?}"));
    }

    fn unplaced_request(&mut self, vm: VmIndex, request: &GuestRequest, why: Unplaced) {
        self.lines.push(format!("{vm:?} {request:?} {why:?}"));
    }

    fn dropped_requests(&mut self, vm: VmIndex, dropped: &Dropped) {
        self.lines.push(format!("{vm:?} {dropped:?}"));
    }

    fn end(&mut self, _run: &Run<'_>, end: &RunEnd<'_>) {
        self.lines.push(format!("{:?} {} {:?}", end.window_end, end.events_count, end.warnings));
    }
}

/// All that observers are told of a run by the threads for so many pCPUs, and its summary as JSON.
pub(super) fn told_by_threads_for(pcpus_count: usize, run: &Path) -> (Vec<String>, String) {
    let (mut transcript, mut summary) = (Transcript::default(), SummaryObserver::default());
    let observers: &mut [&mut dyn Observer] = &mut [&mut transcript, &mut summary];
    analyse_on(pcpus_count, run, &Asked::default(), observers).unwrap();
    let summary = serde_json::to_string(&summary.into_summary().unwrap()).unwrap();
    (transcript.lines, summary)
}
