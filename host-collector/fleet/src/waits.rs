//! Rows of `vcpu_waits`, `ran_instead` and `timeslices`, from the spans of the vCPUs' threads.

use crate::names::{Names, Ran};
use crate::place::Place;
use crate::table::{Cell, TableError, TableWriter};
use std::collections::HashMap;
use vslice_core::timeline::{Span, ThreadState};
use vslice_core::units::{HostNs, PcpuId, Tid};
use vslice_report::summary::OffReason;
use vslice_report::summary::stays::Stays;

/// The three tables, and the timeslices that are not over.
#[derive(Debug)]
pub(crate) struct Waits {
    pub(crate) vcpu_waits: TableWriter,
    pub(crate) ran_instead: TableWriter,
    pub(crate) timeslices: TableWriter,
    stays: HashMap<Tid, Stays>,
}

impl Waits {
    pub(crate) fn new(
        vcpu_waits: TableWriter,
        ran_instead: TableWriter,
        timeslices: TableWriter,
    ) -> Waits {
        Waits { vcpu_waits, ran_instead, timeslices, stays: HashMap::new() }
    }

    /// Takes the next span of a vCPU's thread.
    pub(crate) fn span(
        &mut self,
        span: &Span,
        place: &Place,
        names: &Names,
    ) -> Result<(), TableError> {
        let Some(thread) = names.thread(span.tid) else { return Ok(()) };
        let Some(vcpu) = thread.vcpu else { return Ok(()) };
        let who =
            [Cell::Text(&place.run), Cell::Text(&thread.vm_name), Cell::Integer(vcpu.0.into())];
        if let Some(slice) = self.stays.entry(span.tid).or_default().span(span) {
            let when = when(place, slice.start, slice.length_ns);
            let [run, vm, vcpu] = who;
            let [time, since, length] = when;
            let pcpu = Cell::Integer(slice.pcpu.0.into());
            self.timeslices.push(&[run, vm, vcpu, time, since, length, pcpu])?;
        }
        if let ThreadState::WakeupDelay { raced: Some(sleep), .. } = span.state {
            let over = Span { end: span.start, antagonists: Vec::new(), ..*span };
            let row = off(who, &over, sleep.reason.name(), None, place);
            self.vcpu_waits.push(&row.cells(None))?;
        }
        let Some(reason) = OffReason::of(&span.state) else { return Ok(()) };
        let pcpu = span.state.waits_for();
        let longest = span.antagonists.first().filter(|_| pcpu.is_some());
        let longest = longest.map(|first| names.ran(first));
        let row = off(who, span, reason.name(), pcpu, place);
        self.vcpu_waits.push(&row.cells(longest.as_ref()))?;
        if pcpu.is_some() { self.ran(who, span, place, names) } else { Ok(()) }
    }

    fn ran(
        &mut self,
        [run, vm, vcpu]: [Cell<'_>; 3],
        span: &Span,
        place: &Place,
        names: &Names,
    ) -> Result<(), TableError> {
        let [time, since, _] = when(place, span.start, 0);
        let pcpu = span.state.waits_for().map_or(Cell::None, |of| Cell::Integer(of.0.into()));
        for antagonist in &span.antagonists {
            let ran = names.ran(antagonist);
            let (kind, length) = (Cell::Text(ran.kind), Cell::count(ran.ran_ns));
            let row = [run, vm, vcpu, time, since, pcpu, ran.name(), ran.vm(), kind, length];
            self.ran_instead.push(&row)?;
        }
        Ok(())
    }
}

/// A stay off a pCPU, and the pCPU that the thread waited for.
#[derive(Debug, Clone, Copy)]
struct Off<'a> {
    who: [Cell<'a>; 3],
    when: [Cell<'static>; 3],
    reason: &'a str,
    pcpu: Option<PcpuId>,
}

fn off<'a>(
    who: [Cell<'a>; 3],
    span: &Span,
    reason: &'a str,
    pcpu: Option<PcpuId>,
    place: &Place,
) -> Off<'a> {
    Off { who, when: when(place, span.start, span.length_ns()), reason, pcpu }
}

impl<'a> Off<'a> {
    /// Its row, with whoever ran longest there.
    fn cells(&self, longest: Option<&'a Ran>) -> [Cell<'a>; 13] {
        let Off { who: [run, vm, vcpu], when: [time, since, length], reason, pcpu } = *self;
        [
            run,
            vm,
            vcpu,
            time,
            since,
            length,
            Cell::Text(reason),
            Cell::Flag(pcpu.is_some()),
            pcpu.map_or(Cell::None, |pcpu| Cell::Integer(pcpu.0.into())),
            longest.map_or(Cell::None, Ran::name),
            longest.map_or(Cell::None, Ran::vm),
            longest.map_or(Cell::None, |ran| Cell::Text(ran.kind)),
            Cell::maybe(longest.map(|ran| ran.ran_ns)),
        ]
    }
}

fn when(place: &Place, start: HostNs, length_ns: u64) -> [Cell<'static>; 3] {
    [place.time(start), place.since_start(start), Cell::count(length_ns)]
}
