//! The join of one vCPU's requests with the timeline of its thread.

use super::OPEN_REQUESTS_MAX;
use super::breakdown::{Attribution, Breakdown, IoCheck};
use super::chain::Chain;
use super::history::History;
use super::ios::Submitter;
use super::matching::Matching;
use super::part::{Part, PartsNs};
use super::phase::{IoMarks, NoPhase, PhaseParts, RequestIo};
use super::placed::Placed;
use super::target::Target;
use super::uncertainty::{self, ClockError};
use super::waits::Waits;
use super::windows::Window;
use crate::host_event::BlockEvent;
use crate::timeline::{Antagonist, Span, ThreadState, UnknownCause};
use crate::units::{HostNs, Tid, VcpuId};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Splits the requests of one vCPU by what its thread was doing meanwhile.
///
/// Conservation is by construction: an open request knows how far it is covered, every span takes
/// it further, and what no span covers becomes [`Part::Unknown`]. Both ends of a request are mapped
/// once, and everything after that is subtraction of host times.
///
/// # Input
/// `requests` are those of the whole VM, placed on the host's clock, in order of submission (see
/// [`SubmissionOrder`](super::SubmissionOrder)). They are pulled as the spans reach them: only
/// those under way are kept. Those that were submitted on other vCPUs only lay claim to I/O.
/// `None` means that there is none *now*: a live source is asked again at the next span. Spans come
/// by [`Join::push_span`], in order.
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
/// # Error of the clock
/// A breakdown says by how much each part may be off, see `uncertainty.rs`. So a request is held
/// back until the spans have come as far beyond its end as its end may be off.
///
/// # I/O phases
/// With [`Join::with_target`] a request also says when the host had its I/O, see
/// `matching.rs`. It is held back until that, as far beyond its end, has come by [`Join::push_io`],
/// [`Join::lost`] or [`Join::advance`]. Without it, or where that is not known, all of it is in
/// [`Phase::Unknown`](super::Phase::Unknown).
///
/// # Hostile input
/// A request that completes before it was submitted has a latency of 0. One that ends beyond the
/// recording stays open until [`Join::finish`].
#[derive(Debug)]
pub struct Join<Requests> {
    vcpu: VcpuId,
    thread: Tid,
    requests: Requests,
    /// Pulled, but not reached by a span yet.
    next: Option<Open>,
    /// Under way at the end of the last span, in order of submission.
    open: Vec<Open>,
    /// Covered to their ends, but not known to all sides of them: by the time up to which all must
    /// have come, and a number to tell them apart.
    settling: BTreeMap<(HostNs, u64), Open>,
    settling_number: u64,
    history: History,
    /// Spans and requests since something was let go of.
    kept_count: usize,
    io: Option<Matching>,
}

impl<Requests: Iterator<Item = Placed>> Join<Requests> {
    /// Joins those of `requests` that were submitted on `vcpu`, whose thread on the host is
    /// `thread`.
    pub fn new(vcpu: VcpuId, thread: Tid, requests: Requests) -> Self {
        Join {
            vcpu,
            thread,
            requests,
            next: None,
            open: Vec::new(),
            settling: BTreeMap::new(),
            settling_number: 0,
            history: History::default(),
            kept_count: 0,
            io: None,
        }
    }

    /// Splits them by I/O phase too; they read this disk.
    #[must_use]
    pub fn with_target(mut self, target: Target) -> Self {
        self.io = Some(Matching::new(target));
        self
    }

    /// Takes what the disk under the VM's image did, whoever's I/O it is; in order of time.
    pub fn push_io(&mut self, time: HostNs, event: &BlockEvent, submitter: Submitter) {
        if let Some(io) = &mut self.io {
            io.push(time, event, submitter);
        }
    }

    /// On some pCPU events between `from` and `until` were lost, perhaps the disk's.
    pub fn lost(&mut self, from: HostNs, until: HostNs) {
        if let Some(io) = &mut self.io {
            io.lost(from, until);
        }
    }

    /// Nothing will come any more that happened before `time`.
    pub fn advance(&mut self, time: HostNs) {
        if let Some(io) = &mut self.io {
            io.advance(time);
        }
    }

    /// Lays the next span over the requests; those that it completes go to `sink`.
    ///
    /// Spans of other threads are passed over, so that all spans may be offered to all joins.
    pub fn push_span(&mut self, span: &Span, sink: &mut impl FnMut(Breakdown)) {
        if span.tid != self.thread {
            return;
        }
        self.history.push(span.start, span.end, Part::of(&span.state));
        let mut covered = Vec::new();
        self.open.retain_mut(|open| {
            open.cover(span);
            let goes_on = open.breakdown.end > span.end;
            if !goes_on {
                covered.push(open.take());
            }
            goes_on
        });
        covered.into_iter().for_each(|open| self.close(open, sink));
        while let Some(mut open) = self.pull() {
            // One that starts just as the span ends belongs to the next span.
            if open.breakdown.start >= span.end {
                self.next = Some(open);
                break;
            }
            if open.breakdown.vcpu != self.vcpu {
                continue;
            }
            open.cover(span);
            if open.breakdown.end <= span.end {
                self.close(open, sink);
            } else if self.open.len() < OPEN_REQUESTS_MAX {
                self.open.push(open);
            } else {
                open.abandon();
                self.close(open, sink);
            }
        }
        self.settle(sink);
    }

    /// No span will come any more: what is left goes to `sink`, its uncovered rest as unknown.
    pub fn finish(mut self, sink: &mut impl FnMut(Breakdown)) {
        let settling = std::mem::take(&mut self.settling);
        settling.into_values().for_each(|mut open| sink(self.breakdown(&mut open)));
        for mut open in std::mem::take(&mut self.open) {
            open.abandon();
            sink(self.breakdown(&mut open));
        }
        while let Some(mut open) = self.pull() {
            if open.breakdown.vcpu == self.vcpu {
                open.abandon();
                sink(self.breakdown(&mut open));
            }
        }
    }

    fn pull(&mut self) -> Option<Open> {
        self.next.take().or_else(|| {
            let mut open = Open::new(self.thread, self.requests.next()?);
            open.window = self.io.as_mut().map(|io| io.note(&open.placed));
            Some(open)
        })
    }

    /// A request that is covered to its end goes out, or waits for what is beyond that.
    fn close(&mut self, mut open: Open, sink: &mut impl FnMut(Breakdown)) {
        let is_attributed = !open.touches_loss && !open.touches_unrecorded;
        if self.io.is_none() && !is_attributed {
            // The error of the clock is told only of those that can be attributed.
            sink(self.breakdown(&mut open));
        } else if self.settling.len() < OPEN_REQUESTS_MAX {
            self.settling_number += 1;
            self.settling.insert((open.latest, self.settling_number), open);
        } else {
            let is_due = self.has_come_to(open.latest);
            let mut breakdown = self.breakdown(&mut open);
            if !is_due && breakdown.attribution == Attribution::Attributed {
                breakdown.clock_error = uncertainty::anything(&open.placed);
            }
            sink(breakdown);
        }
    }

    /// Whether all has come that happened up to this time.
    fn has_come_to(&self, time: HostNs) -> bool {
        self.history.until() >= time && self.io.as_ref().is_none_or(|io| io.has_come_to(time))
    }

    /// Gives out those of which all is known, and lets go of what was kept for them.
    fn settle(&mut self, sink: &mut impl FnMut(Breakdown)) {
        self.kept_count += 1;
        let latest = |settling: &BTreeMap<(HostNs, u64), Open>| {
            settling.first_key_value().map(|((latest, _), _)| *latest)
        };
        while latest(&self.settling).is_some_and(|latest| self.has_come_to(latest)) {
            if let Some((_, mut open)) = self.settling.pop_first() {
                sink(self.breakdown(&mut open));
                self.kept_count += 1;
            }
        }
        // Looking through all that are under way pays only once there are as many to let go of.
        if self.kept_count >= KEPT_MAX + self.open.len() + self.settling.len() {
            self.kept_count = 0;
            self.forget();
        }
    }

    /// Lets go of what no request that is under way or to come needs.
    fn forget(&mut self) {
        let pending = || self.open.iter().chain(self.settling.values()).chain(&self.next);
        // What may be off by most need not be what began first.
        let Some(first) = pending().map(|open| open.earliest).min() else { return };
        self.history.forget_before(first);
        if let Some(io) = &mut self.io {
            io.forget_before(first);
        }
    }

    /// The breakdown of a request that is covered to its end; takes it out of `open`.
    fn breakdown(&self, open: &mut Open) -> Breakdown {
        let io = self.io_of(open);
        let marks = io.as_ref().map(|io| io.marks).map_err(|why| *why);
        let io_check = match (&self.io, &open.window) {
            (Some(io), Some(window)) => io.check(window, marks),
            _ => IoCheck::Unchecked,
        };
        let breakdown = &open.breakdown;
        let phases = io.ok().map(|io| {
            let believed = (open.spans_from, open.spans_until);
            self.history.product((breakdown.start, breakdown.end), believed, &io)
        });
        let mut breakdown = open.close(marks, phases);
        breakdown.io_check = io_check;
        if breakdown.attribution == Attribution::Attributed {
            breakdown.clock_error = uncertainty::clock_error(&self.history, &open.placed);
        }
        breakdown
    }

    fn io_of(&self, open: &Open) -> Result<RequestIo, NoPhase> {
        match (&self.io, &open.window) {
            (Some(_), Some(_)) if self.history.has_forgotten(open.breakdown.start) => {
                Err(NoPhase::Forgotten)
            }
            (Some(io), Some(window)) => io.io(window),
            _ => Err(NoPhase::NotRecorded),
        }
    }
}

/// Spans and requests after which it is looked for what can be let go of, at least.
const KEPT_MAX: usize = 64;

/// A request that is not fully covered yet.
#[derive(Debug)]
struct Open {
    placed: Placed,
    breakdown: Breakdown,
    thread: Tid,
    /// However wrong the clock map is, it lies between these.
    earliest: HostNs,
    latest: HostNs,
    /// Up to here the request is covered.
    covered_until: HostNs,
    touches_loss: bool,
    touches_unrecorded: bool,
    /// Only of what lies between these two do the spans count.
    spans_from: HostNs,
    spans_until: HostNs,
    /// Where its I/O may be, if that is asked for.
    window: Option<Rc<Window>>,
}

impl Open {
    fn new(thread: Tid, placed: Placed) -> Open {
        let Placed { request, start, end, bound_ns, length_error_ns } = placed;
        let breakdown = Breakdown {
            request,
            vcpu: VcpuId(request.vcpu_submitted),
            start,
            end,
            bound_ns,
            parts: PartsNs::default(),
            attribution: Attribution::Attributed,
            clock_error: ClockError::default(),
            chain: Chain::default(),
            waits: Waits::default(),
            io: Err(NoPhase::NotRecorded),
            io_check: IoCheck::Unchecked,
            phases: PhaseParts::default(),
        };
        Open {
            placed,
            breakdown,
            thread,
            earliest: HostNs(start.0.saturating_sub(bound_ns)),
            latest: HostNs(end.0.saturating_add(bound_ns).saturating_add(length_error_ns)),
            covered_until: start,
            touches_loss: false,
            touches_unrecorded: false,
            spans_from: start,
            spans_until: HostNs(u64::MAX),
            window: None,
        }
    }

    /// Takes all out of `self`.
    fn take(&mut self) -> Open {
        let chain = std::mem::take(&mut self.breakdown.chain);
        let waits = std::mem::take(&mut self.breakdown.waits);
        let breakdown = Breakdown { chain, waits, ..self.breakdown };
        Open { breakdown, window: self.window.take(), ..*self }
    }

    /// Covers what lies between the span and what is covered already as not recorded, and what lies
    /// within the span as the span says.
    fn cover(&mut self, span: &Span) {
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
        let clipped = clip(span, from, until);
        self.breakdown.parts.add(Part::of(&span.state), clipped.length_ns());
        self.breakdown.waits.push(&clipped);
        self.breakdown.chain.push(clipped);
    }

    /// The breakdown of a request that is covered to its end; takes it out of `self`.
    fn close(&mut self, io: Result<IoMarks, NoPhase>, phases: Option<PhaseParts>) -> Breakdown {
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
        let waits = std::mem::take(&mut self.breakdown.waits);
        let phases = phases.unwrap_or_else(|| PhaseParts::unknown(self.breakdown.parts));
        Breakdown { attribution, chain, waits, io, phases, ..self.breakdown }
    }

    /// Gives up a request whose rest no span will cover.
    fn abandon(&mut self) {
        self.spans_until = self.covered_until;
        self.cover_unrecorded(self.breakdown.end);
    }
}

/// The part of a span from `start` to `end`, which lie within it.
///
/// Where in the span each of the antagonists ran is not kept, so each gets its share of what is left:
/// the difference of two sums that are cut to whole nanoseconds, so that all of them together get what
/// their sum gets, and none is off by more than one.
fn clip(span: &Span, start: HostNs, end: HostNs) -> Span {
    let (length_ns, clipped_ns) = (span.length_ns(), end.since_ns(start));
    if clipped_ns == length_ns {
        return span.clone();
    }
    let scaled = |ran_ns: u64| {
        let scaled = u128::from(ran_ns) * u128::from(clipped_ns) / u128::from(length_ns.max(1));
        u64::try_from(scaled).unwrap_or(u64::MAX)
    };
    let mut before_ns = 0_u64;
    let clipped = |antagonist: &Antagonist| {
        let until_ns = before_ns.saturating_add(antagonist.ran_ns);
        let ran_ns = scaled(until_ns) - scaled(std::mem::replace(&mut before_ns, until_ns));
        Antagonist { ran_ns, ..antagonist.clone() }
    };
    let antagonists = span.antagonists.iter().map(clipped).filter(|ran| ran.ran_ns > 0).collect();
    Span { tid: span.tid, start, end, state: span.state, antagonists }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::join::target::HostAccess;
    use crate::timeline::RunMode;
    use crate::units::PcpuId;
    use vslice_spec::Pattern;
    use vslice_wire::{GuestTicks, Request};

    const SPANS_COUNT: u64 = 5_000;

    /// How many of the requests under way are looked at for each span, with so many of them.
    fn looks_per_span(depth: u64) -> f64 {
        let placed = (0..depth).map(|index| {
            let (submitted, completed) = (GuestTicks(0), GuestTicks(0));
            let (vcpu_submitted, vcpu_completed, result) = (1, 1, 4096);
            let request =
                Request { index, submitted, completed, vcpu_submitted, vcpu_completed, result };
            let (start, end) = (HostNs(0), HostNs(2 * SPANS_COUNT));
            Placed { request, start, end, bound_ns: 1, length_error_ns: 0 }
        });
        let mut join = Join::new(VcpuId(1), Tid(7), placed).with_target(Target {
            access: HostAccess::Direct,
            pattern: Pattern::Seq,
            block_bytes: 4096,
            size_bytes: 4096 * depth,
            offset_bytes: 0,
            extents: None,
        });
        for at in 0..SPANS_COUNT {
            let state = ThreadState::Running { pcpu: PcpuId(0), mode: RunMode::Unsplit };
            let (start, end, antagonists) = (HostNs(at), HostNs(at + 1), Vec::new());
            join.advance(start);
            let span = Span { tid: Tid(7), start, end, state, antagonists };
            join.push_span(&span, &mut |_| panic!("none has ended"));
        }
        let io = join.io.as_ref().map(Matching::comparisons_count);
        io.unwrap_or(0) as f64 / SPANS_COUNT as f64
    }

    #[test]
    fn what_can_be_let_go_of_is_looked_for_once_for_as_many_spans_as_requests_are_under_way() {
        for depth in [16, 2_048] {
            let looks = looks_per_span(depth);
            assert!(0.0 < looks && looks <= 1.0, "{looks} for each span with {depth} under way");
        }
    }
}
