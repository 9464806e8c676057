//! A request that is under way, as spans cover it.

use super::breakdown::{Attribution, Breakdown, IoCheck, PhaseVcpus};
use super::chain::Chain;
use super::part::{Part, PartsNs};
use super::phase::{IoMarks, NoPhase, PhaseParts};
use super::placed::Placed;
use super::uncertainty::ClockError;
use super::waits::Waits;
use super::windows::Window;
use crate::timeline::{Span, ThreadState, UnknownCause};
use crate::units::{HostNs, Tid, VcpuId};
use std::rc::Rc;

/// A request that no span has reached yet.
#[derive(Debug)]
pub(super) struct Pulled {
    pub(super) placed: Placed,
    /// Where its I/O may be, if that is asked for.
    pub(super) window: Option<Rc<Window>>,
}

impl Pulled {
    /// However wrong the clock map is, it began after this.
    pub(super) fn earliest(&self) -> HostNs {
        HostNs(self.placed.start.0.saturating_sub(self.placed.bounds.worst_ns()))
    }

    pub(super) fn vcpu(&self) -> VcpuId {
        VcpuId(self.placed.request.vcpu_issued())
    }
}

/// A request that is not fully covered yet.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) placed: Placed,
    pub(super) breakdown: Breakdown,
    thread: Tid,
    /// However wrong the clock map is, it lies between these.
    pub(super) earliest: HostNs,
    pub(super) latest: HostNs,
    /// Up to here the request is covered.
    covered_until: HostNs,
    pub(super) touches_loss: bool,
    pub(super) touches_unrecorded: bool,
    /// Only of what lies between these two do the spans count.
    pub(super) spans_from: HostNs,
    pub(super) spans_until: HostNs,
    /// Where its I/O may be, if that is asked for.
    pub(super) window: Option<Rc<Window>>,
}

impl Open {
    /// A request of the vCPU that this thread runs. It is large, and goes from queue to queue.
    pub(super) fn new(thread: Tid, pulled: Pulled) -> Box<Open> {
        let earliest = pulled.earliest();
        let Pulled { placed, window } = pulled;
        let Placed { request, start, issued, end, bounds, length_error_ns } = placed;
        let vcpu = VcpuId(request.vcpu_issued());
        let breakdown = Breakdown {
            request,
            vcpu,
            vcpus: PhaseVcpus::all(vcpu),
            start,
            issued,
            end,
            bounds,
            parts: PartsNs::default(),
            attribution: Attribution::Attributed,
            clock_error: ClockError::default(),
            chain: Chain::default(),
            waits: Waits::default(),
            io: Err(NoPhase::NotRecorded),
            io_check: IoCheck::Unchecked,
            phases: PhaseParts::default(),
        };
        Box::new(Open {
            placed,
            breakdown,
            thread,
            earliest,
            latest: HostNs(end.0.saturating_add(bounds.worst_ns()).saturating_add(length_error_ns)),
            covered_until: start,
            touches_loss: false,
            touches_unrecorded: false,
            spans_from: start,
            spans_until: HostNs(u64::MAX),
            window,
        })
    }

    /// Covers what lies between the span and what is covered already as not recorded, and what lies
    /// within the span as the span says.
    pub(super) fn cover(&mut self, span: &Span) {
        let until = self.breakdown.end.min(span.end);
        if span.start > self.covered_until {
            let until = self.breakdown.end.min(span.start);
            if self.covered_until == self.spans_from {
                // Spans of its beginning there may have been, before it came.
                self.spans_from = until;
            }
            self.cover_unrecorded(until);
        }
        // A request of no length touches the span that it lies in. (None starts after the span.)
        let touches = self.breakdown.end > span.start || self.breakdown.start >= span.start;
        match span.state {
            ThreadState::Unknown { cause: UnknownCause::Lost } => self.touches_loss |= touches,
            ThreadState::Unknown { cause: UnknownCause::NotYetSeen | UnknownCause::Ended } => {
                self.touches_unrecorded |= touches;
            }
            ThreadState::Unknown { cause: UnknownCause::UnknownThread }
            | ThreadState::Running { .. }
            | ThreadState::Blocked(_)
            | ThreadState::WakeupDelay { .. }
            | ThreadState::PreemptWait { .. } => {}
        }
        if until > self.covered_until {
            self.add(span, until);
        }
    }

    fn cover_unrecorded(&mut self, until: HostNs) {
        self.touches_unrecorded = true;
        if until > self.covered_until {
            let state = ThreadState::Unknown { cause: UnknownCause::NotYetSeen };
            let (tid, start) = (self.thread, self.covered_until);
            self.add(&Span { tid, start, end: until, state, antagonists: Vec::new() }, until);
        }
    }

    /// Takes what a span says from where the request is covered to on, as far as `until`.
    fn add(&mut self, span: &Span, until: HostNs) {
        let from = std::mem::replace(&mut self.covered_until, until);
        let clipped = span.clipped(from, until);
        self.breakdown.parts.add(Part::of(&span.state), clipped.length_ns());
        self.breakdown.waits.push(&clipped);
        self.breakdown.chain.push(clipped);
    }

    /// The breakdown of a request that is covered to its end; takes it out of `self`.
    pub(super) fn close(
        &mut self,
        io: Result<IoMarks, NoPhase>,
        phases: Option<PhaseParts>,
    ) -> Breakdown {
        let request = self.breakdown.request;
        let attribution = if self.touches_loss {
            Attribution::Lost
        } else if self.touches_unrecorded {
            Attribution::NotRecorded
        } else if request.vcpu_issued() != request.vcpu_completed() {
            Attribution::Moved
        } else {
            Attribution::Attributed
        };
        let chain = std::mem::take(&mut self.breakdown.chain);
        let waits = std::mem::take(&mut self.breakdown.waits);
        let phases = phases.unwrap_or_else(|| PhaseParts::unknown(self.breakdown.parts));
        Breakdown { attribution, chain, waits, io, phases, ..self.breakdown }
    }

    /// Gives up a request whose rest no span will cover.
    pub(super) fn abandon(&mut self) {
        self.spans_until = self.covered_until;
        self.cover_unrecorded(self.breakdown.end);
    }
}
