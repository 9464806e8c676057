//! The join of one vCPU's requests with the timeline of its thread.

use super::breakdown::{Attribution, Breakdown, Part, PartsNs};
use super::chain::Chain;
use crate::clock::ClockMap;
use crate::timeline::{Antagonist, Span, ThreadState, UnknownCause};
use crate::units::{HostNs, Tid, VcpuId};
use vslice_wire::Request;

/// Requests that are open at a time at most.
///
/// More than any agent has in flight. A guest whose requests overlap more than that is lying; those
/// that come while so many are open are given up, so that neither memory nor time per span grows.
pub const OPEN_REQUESTS_MAX: usize = 8192;

/// Splits the requests of one vCPU by what its thread was doing meanwhile.
///
/// Conservation is by construction: an open request knows how far it is covered, every span takes
/// it further, and what no span covers becomes [`Part::Unknown`]. Both ends of a request are mapped
/// once, and everything after that is subtraction of host times.
///
/// # Input
/// `requests` are those that were submitted on this vCPU, in order of submission (see
/// [`SubmissionOrder`](super::SubmissionOrder)). They are pulled as the spans reach them: only
/// those under way are kept. `None` means that there is none *now*: a live source is asked again at
/// the next span. Spans come by [`Join::push_span`], in order.
///
/// A request that comes when the spans of its beginning have passed is still split, but what was
/// missed counts as unknown and [`Attribution::NotRecorded`].
///
/// # Attribution
/// The first that applies: `Lost` where it touches a loss; `NotRecorded` where a part of it is
/// covered by no span, or by one that says that the thread had not been seen yet or had ended;
/// `Moved` where it completed on another vCPU (its whole latency still lies on the thread of the
/// vCPU that submitted it); else `Attributed`.
///
/// # Hostile input
/// A request that completes before it was submitted has a latency of 0. One that ends beyond the
/// recording stays open until [`Join::finish`].
#[derive(Debug)]
pub struct Join<Requests> {
    vcpu: VcpuId,
    thread: Tid,
    clock: ClockMap,
    requests: Requests,
    /// Pulled, but not reached by a span yet.
    next: Option<Open>,
    /// Under way at the end of the last span, in order of submission.
    open: Vec<Open>,
}

impl<Requests: Iterator<Item = Request>> Join<Requests> {
    /// Joins `requests` of `vcpu`, whose thread on the host is `thread`.
    pub fn new(vcpu: VcpuId, thread: Tid, clock: ClockMap, requests: Requests) -> Self {
        Join { vcpu, thread, clock, requests, next: None, open: Vec::new() }
    }

    /// Lays the next span over the requests; those that it completes go to `sink`.
    ///
    /// Spans of other threads are passed over, so that all spans may be offered to all joins.
    pub fn push_span(&mut self, span: &Span, sink: &mut impl FnMut(Breakdown)) {
        if span.tid != self.thread {
            return;
        }
        self.open.retain_mut(|open| {
            open.cover(span);
            let goes_on = open.breakdown.end > span.end;
            if !goes_on {
                sink(open.close());
            }
            goes_on
        });
        while let Some(mut open) = self.pull() {
            // One that starts just as the span ends belongs to the next span.
            if open.breakdown.start >= span.end {
                self.next = Some(open);
                return;
            }
            open.cover(span);
            if open.breakdown.end <= span.end {
                sink(open.close());
            } else {
                self.keep(open, sink);
            }
        }
    }

    /// No span will come any more: what is left goes to `sink`, its uncovered rest as unknown.
    pub fn finish(mut self, sink: &mut impl FnMut(Breakdown)) {
        self.open.iter_mut().for_each(|open| sink(open.abandon()));
        while let Some(mut open) = self.pull() {
            sink(open.abandon());
        }
    }

    fn pull(&mut self) -> Option<Open> {
        self.next.take().or_else(|| {
            let request = self.requests.next()?;
            Some(Open::new(self.vcpu, self.thread, &self.clock, request))
        })
    }

    fn keep(&mut self, mut open: Open, sink: &mut impl FnMut(Breakdown)) {
        if self.open.len() < OPEN_REQUESTS_MAX {
            self.open.push(open);
        } else {
            sink(open.abandon());
        }
    }
}

/// A request that is not fully covered yet.
#[derive(Debug)]
struct Open {
    breakdown: Breakdown,
    thread: Tid,
    /// Up to here the request is covered.
    covered_until: HostNs,
    touches_loss: bool,
    touches_unrecorded: bool,
}

impl Open {
    fn new(vcpu: VcpuId, thread: Tid, clock: &ClockMap, request: Request) -> Open {
        let submitted = clock.to_host(request.submitted);
        let completed = clock.to_host(request.completed);
        let start = submitted.at;
        let breakdown = Breakdown {
            request,
            vcpu,
            start,
            end: completed.at.max(start),
            bound_ns: submitted.bound_ns.max(completed.bound_ns),
            parts: PartsNs::default(),
            attribution: Attribution::Attributed,
            chain: Chain::default(),
        };
        Open {
            breakdown,
            thread,
            covered_until: start,
            touches_loss: false,
            touches_unrecorded: false,
        }
    }

    /// Covers what lies between the span and what is covered already as not recorded, and what lies
    /// within the span as the span says.
    fn cover(&mut self, span: &Span) {
        let until = self.breakdown.end.min(span.end);
        if span.start > self.covered_until {
            self.cover_unrecorded(self.breakdown.end.min(span.start));
        }
        // A request of no length touches the span that it lies in. (None starts after the span.)
        let touches = self.breakdown.end > span.start || self.breakdown.start >= span.start;
        match span.state {
            ThreadState::Unknown { cause: UnknownCause::Lost } => self.touches_loss |= touches,
            ThreadState::Unknown { cause: UnknownCause::NotYetSeen | UnknownCause::Ended } => {
                self.touches_unrecorded |= touches;
            }
            ThreadState::Running { .. }
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
        self.breakdown.parts.add(Part::of(&span.state), until.since_ns(from));
        self.breakdown.chain.push(clip(span, from, until));
    }

    /// The breakdown of a request that is covered to its end; takes it out of `self`.
    fn close(&mut self) -> Breakdown {
        let request = self.breakdown.request;
        let attribution = if self.touches_loss {
            Attribution::Lost
        } else if self.touches_unrecorded {
            Attribution::NotRecorded
        } else if request.vcpu_submitted != request.vcpu_completed {
            Attribution::Moved
        } else {
            Attribution::Attributed
        };
        let chain = std::mem::take(&mut self.breakdown.chain);
        Breakdown { attribution, chain, ..self.breakdown }
    }

    /// Closes a request whose rest no span will cover.
    fn abandon(&mut self) -> Breakdown {
        self.cover_unrecorded(self.breakdown.end);
        self.close()
    }
}

/// The part of a span from `start` to `end`, which lie within it.
fn clip(span: &Span, start: HostNs, end: HostNs) -> Span {
    let (length_ns, clipped_ns) = (span.length_ns(), end.since_ns(start));
    let scaled = |antagonist: &Antagonist| Antagonist {
        tid: antagonist.tid,
        // ran_ns * clipped_ns / length_ns, cut: the sum stays within the clipped length.
        ran_ns: u64::try_from(
            u128::from(antagonist.ran_ns) * u128::from(clipped_ns) / u128::from(length_ns.max(1)),
        )
        .unwrap_or(u64::MAX),
    };
    let antagonists = if clipped_ns == length_ns {
        span.antagonists.clone()
    } else {
        span.antagonists.iter().map(scaled).filter(|antagonist| antagonist.ran_ns > 0).collect()
    };
    Span { tid: span.tid, start, end, state: span.state, antagonists }
}
