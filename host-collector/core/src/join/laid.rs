//! An observed request, laid over the threads of the vCPUs that it waits for.
//!
//! ```text
//!            queued      issued        host has it        host's I/O done      completed
//!              | guest queue | queued        | device              | completed       |
//!              '-- vcpu_queued -'-------- vcpu_issued -------------'- who took the ---'
//!                  a cause, if     a cause        context: nobody     interrupt: a cause
//!                  it issued it                   has to act
//! ```
//!
//! Where it is not known when the host had its I/O, all from being issued on lies over the vCPU that issued
//! it, and is a cause only if that one took the interrupt too. Where it is not known which vCPU took it, *completed*
//! lies over none.

use super::breakdown::{Attribution, PhaseVcpus};
use super::chain::Chain;
use super::phase::{NoPhase, Phase, PhaseParts, RequestIo};
use super::placed::Placed;
use super::recent_spans::RecentSpans;
use super::waits::Waits;
use crate::join::part::Part;
use crate::timeline::{Span, ThreadState, UnknownCause};
use crate::units::{HostNs, Tid};
use std::ops::Range;
use vslice_wire::ObservedFlags;

/// The threads of the vCPUs that queued and issued a request, and took its interrupt; `None` for one that is not
/// known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Threads<'a> {
    pub(super) queued: Option<&'a RecentSpans>,
    pub(super) issued: Option<&'a RecentSpans>,
    pub(super) completed: Option<&'a RecentSpans>,
}

/// What became of a request's time.
#[derive(Debug, Default)]
pub(super) struct Laid {
    pub(super) phases: PhaseParts,
    pub(super) chain: Chain,
    pub(super) waits: Waits,
    gaps: Gaps,
}

/// What is missing of the threads where it matters.
#[derive(Debug, Default)]
struct Gaps {
    touches_loss: bool,
    touches_unrecorded: bool,
    touches_forgotten: bool,
}

/// A phase of the request, or a part of one.
#[derive(Debug, Clone)]
struct Segment {
    phase: Phase,
    time: Range<HostNs>,
}

/// Lays a request over what its vCPUs' threads did.
pub(super) fn lay(
    placed: &Placed,
    vcpus: &PhaseVcpus,
    io: &Result<RequestIo, NoPhase>,
    threads: Threads<'_>,
) -> Laid {
    let mut laid = Laid::default();
    let segments = segments(placed, io);
    for segment in &segments {
        let is_waited_for = vcpus.is_waited_for(segment.phase);
        if vcpus.of(segment.phase).is_none() {
            let length_ns = segment.time.end.since_ns(segment.time.start);
            laid.phases.add_to(segment.phase, Part::Unknown, length_ns);
            continue;
        }
        for piece in pieces(threads.of(segment.phase), &segment.time) {
            laid.phases.add_to(segment.phase, Part::of(&piece.span.state), piece.span.length_ns());
            if is_waited_for {
                laid.waits.push(&piece.span);
                laid.gaps.take(&piece);
            }
        }
    }
    // A stretch over one thread is one in the chain, whatever phases it is in.
    let same_thread = |before: &Segment, after: &Segment| {
        vcpus.of(before.phase) == vcpus.of(after.phase) && before.time.end == after.time.start
    };
    for run in segments.chunk_by(same_thread) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        let time = first.time.start..last.time.end;
        if vcpus.of(first.phase).is_none() {
            laid.chain.push(unknown(UnknownCause::UnknownThread, None, time));
            continue;
        }
        pieces(threads.of(first.phase), &time).for_each(|piece| laid.chain.push(piece.span));
    }
    if placed.start == placed.end {
        laid.gaps.take_instant(threads.issued, placed.start);
    }
    laid
}

impl Laid {
    /// Whether its parts can be trusted: the first reason that applies against it.
    pub(super) fn attribution(
        &self,
        placed: &Placed,
        vcpus: &PhaseVcpus,
        io: &Result<RequestIo, NoPhase>,
    ) -> Attribution {
        let observed = placed.request.observed();
        if observed.is_some_and(|of| of.flags.contains(ObservedFlags::AMBIGUOUS)) {
            Attribution::Ambiguous
        } else if self.gaps.touches_loss {
            Attribution::Lost
        } else if self.gaps.touches_forgotten {
            Attribution::Forgotten
        } else if self.gaps.touches_unrecorded {
            Attribution::NotRecorded
        } else if io.is_err() && vcpus.completed.is_none() {
            Attribution::Steered
        } else if io.is_err() && vcpus.completed != Some(vcpus.issued) {
            Attribution::Moved
        } else {
            Attribution::Attributed
        }
    }
}

impl<'a> Threads<'a> {
    fn of(&self, phase: Phase) -> Option<&'a RecentSpans> {
        match phase {
            Phase::GuestQueue => self.queued,
            Phase::Queued | Phase::Device | Phase::Unknown => self.issued,
            Phase::Completed => self.completed,
        }
    }
}

impl Gaps {
    fn take(&mut self, piece: &Piece) {
        match piece.span.state {
            ThreadState::Unknown { cause: UnknownCause::Lost } => self.touches_loss = true,
            ThreadState::Unknown { cause: UnknownCause::NotYetSeen | UnknownCause::Ended } => {
                if piece.is_forgotten {
                    self.touches_forgotten = true;
                } else {
                    self.touches_unrecorded = true;
                }
            }
            ThreadState::Unknown { cause: UnknownCause::UnknownThread }
            | ThreadState::Running { .. }
            | ThreadState::Blocked(_)
            | ThreadState::WakeupDelay { .. }
            | ThreadState::PreemptWait { .. } => {}
        }
    }

    /// A request of no length touches what its vCPU was in.
    fn take_instant(&mut self, thread: Option<&RecentSpans>, time: HostNs) {
        let span = thread.and_then(|thread| thread.at(time)).cloned();
        let is_forgotten = thread.is_some_and(|thread| thread.has_forgotten(time));
        let span = span.unwrap_or_else(|| not_seen(thread, time..time));
        self.take(&Piece { span, is_forgotten });
    }
}

/// The phases of a request, one after the other; those of no length are left out.
fn segments(placed: &Placed, io: &Result<RequestIo, NoPhase>) -> Vec<Segment> {
    let issued = placed.handed_over();
    let mut segments = vec![Segment { phase: Phase::GuestQueue, time: placed.start..issued }];
    let known = io.as_ref().ok().into_iter();
    let known = known.flat_map(|io| io.stretches(issued, placed.end));
    segments.extend(known.map(|(phase, time)| Segment { phase, time }));
    if io.is_err() {
        segments.push(Segment { phase: Phase::Unknown, time: issued..placed.end });
    }
    segments.retain(|segment| segment.time.start < segment.time.end);
    segments
}

/// What a thread did for a while, or that it is not known.
struct Piece {
    span: Span,
    /// It is not known because it was let go of.
    is_forgotten: bool,
}

/// What a thread did in this time, without a gap.
fn pieces<'a>(
    thread: Option<&'a RecentSpans>,
    time: &Range<HostNs>,
) -> impl Iterator<Item = Piece> + use<'a> {
    let (until, mut at) = (time.end, time.start);
    let spans = thread.map(|thread| thread.between(time.start, time.end));
    let mut spans = spans.into_iter().flatten().peekable();
    std::iter::from_fn(move || {
        loop {
            if at >= until {
                return None;
            }
            let from = at;
            match spans.peek() {
                Some(span) if span.start <= from => {
                    at = span.end.min(until).max(from);
                    let span = span.clipped(from, at);
                    spans.next();
                    if from < at {
                        return Some(Piece { span, is_forgotten: false });
                    }
                }
                next => {
                    at = next.map_or(until, |span| span.start.min(until));
                    let is_forgotten = thread.is_some_and(|thread| thread.has_forgotten(from));
                    return Some(Piece { span: not_seen(thread, from..at), is_forgotten });
                }
            }
        }
    })
}

fn not_seen(thread: Option<&RecentSpans>, time: Range<HostNs>) -> Span {
    unknown(UnknownCause::NotYetSeen, thread, time)
}

fn unknown(cause: UnknownCause, thread: Option<&RecentSpans>, time: Range<HostNs>) -> Span {
    let state = ThreadState::Unknown { cause };
    let tid = thread.map_or(Tid(0), RecentSpans::thread);
    Span { tid, start: time.start, end: time.end, state, antagonists: Vec::new() }
}
