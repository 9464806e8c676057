//! The join of a VM's requests with the timelines of its vCPUs' threads.

use super::asked::Asked;
use super::breakdown::{Attribution, Breakdown, IoCheck};
use super::history::History;
use super::ios::Submitter;
use super::lane::Lane;
use super::matching::Matching;
use super::phase::{NoPhase, RequestIo};
use super::placed::Placed;
use super::target::Target;
use super::uncertainty;
use super::under_way::{Open, Pulled};
use crate::host_event::BlockEvent;
use crate::timeline::Span;
use crate::units::{HostNs, Tid, VcpuId};

/// Splits the requests of a VM by what the threads of its vCPUs were doing meanwhile.
///
/// Conservation is by construction: an open request knows how far it is covered, every span takes
/// it further, and what no span covers becomes [`Part::Unknown`](crate::join::Part::Unknown). Both ends of a request are mapped
/// once, and everything after that is subtraction of host times.
///
/// # Input
/// `requests` are those of the whole VM, placed on the host's clock, in order of submission (see
/// [`SubmissionOrder`](super::SubmissionOrder)). They are pulled as the spans reach them: only
/// those under way are kept, and those of vCPUs whose spans are behind those of another. Those that
/// were submitted on vCPUs that are not joined only lay claim to I/O. `None` means that there is none
/// *now*: a live source is asked again at the next span. Spans come by [`Join::push_span`], those of
/// each thread in order.
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
    /// The vCPUs whose requests are split.
    lanes: Vec<Lane>,
    requests: Requests,
    /// Pulled, but not reached by the span that it was pulled for.
    next: Option<Pulled>,
    /// Spans and requests since something was let go of.
    kept_count: usize,
    io: Option<(Target, Matching)>,
}

impl<Requests: Iterator<Item = Placed>> Join<Requests> {
    /// Joins those of `requests` that were submitted on `vcpu`, whose thread on the host is
    /// `thread`.
    pub fn new(vcpu: VcpuId, thread: Tid, requests: Requests) -> Self {
        Self::of_vcpus([(vcpu, thread)], requests)
    }

    /// Joins those of `requests` that were submitted on one of `vcpus`, each with its thread on the host.
    pub fn of_vcpus(vcpus: impl IntoIterator<Item = (VcpuId, Tid)>, requests: Requests) -> Self {
        let lanes = vcpus.into_iter().map(|(vcpu, thread)| Lane::new(vcpu, thread)).collect();
        Join { lanes, requests, next: None, kept_count: 0, io: None }
    }

    /// Splits them by I/O phase too; they read this disk.
    #[must_use]
    pub fn with_target(mut self, target: Target) -> Self {
        let matching = Matching::new(&target.image());
        self.io = Some((target, matching));
        self
    }

    /// Takes what the disk under the VM's image did, whoever's I/O it is; in order of time.
    pub fn push_io(&mut self, time: HostNs, event: &BlockEvent, submitter: Submitter) {
        if let Some((_, io)) = &mut self.io {
            io.push(time, event, submitter);
        }
    }

    /// On some pCPU events between `from` and `until` were lost, perhaps the disk's.
    pub fn lost(&mut self, from: HostNs, until: HostNs) {
        if let Some((_, io)) = &mut self.io {
            io.lost(from, until);
        }
    }

    /// Nothing will come any more that happened before `time`.
    pub fn advance(&mut self, time: HostNs) {
        if let Some((_, io)) = &mut self.io {
            io.advance(time);
        }
    }

    /// Lays the next span over the requests; those that it completes go to `sink`.
    ///
    /// Spans of other threads are passed over, so that all spans may be offered to all joins.
    pub fn push_span(&mut self, span: &Span, sink: &mut impl FnMut(Breakdown)) {
        let Some(place) = self.lanes.iter().position(|lane| lane.thread == span.tid) else {
            return;
        };
        for open in self.lanes[place].cover(span) {
            self.close(place, open, sink);
        }
        while let Some(pulled) = self.next_begun(place, span.end, sink) {
            if let Some(open) = self.lanes[place].begin(pulled, span) {
                self.close(place, open, sink);
            }
        }
        self.settle(place, sink);
    }

    /// No span will come any more: what is left goes to `sink`, its uncovered rest as unknown.
    pub fn finish(mut self, sink: &mut impl FnMut(Breakdown)) {
        for place in 0..self.lanes.len() {
            for mut open in self.lanes[place].take_all() {
                sink(self.breakdown(place, &mut open));
            }
        }
        while let Some(pulled) = self.pull() {
            if let Some(place) = self.lane_of(&pulled) {
                let mut open = Open::new(self.lanes[place].thread, pulled);
                open.abandon();
                sink(self.breakdown(place, &mut open));
            }
        }
    }

    /// The next request of this vCPU that begins before `until`. Those of others that come before it wait
    /// for their own spans.
    fn next_begun(
        &mut self,
        place: usize,
        until: HostNs,
        sink: &mut impl FnMut(Breakdown),
    ) -> Option<Pulled> {
        if self.lanes[place].has_waiting() {
            return self.lanes[place].next_waiting(until);
        }
        loop {
            let pulled = self.pull()?;
            // One that starts just as the span ends belongs to the next span.
            if pulled.placed.start >= until {
                self.next = Some(pulled);
                return None;
            }
            match self.lane_of(&pulled) {
                Some(own) if own == place => return Some(pulled),
                Some(other) => {
                    if let Some(open) = self.lanes[other].wait(pulled) {
                        self.close(other, open, sink);
                    }
                }
                None => {}
            }
        }
    }

    fn lane_of(&self, pulled: &Pulled) -> Option<usize> {
        self.lanes.iter().position(|lane| lane.vcpu == pulled.vcpu())
    }

    fn pull(&mut self) -> Option<Pulled> {
        self.next.take().or_else(|| {
            let placed = self.requests.next()?;
            let window = self.io.as_mut().map(|(target, io)| {
                let asked = Asked::by_reader(target, &placed);
                io.note(&placed, asked)
            });
            Some(Pulled { placed, window })
        })
    }

    /// A request that is covered to its end goes out, or waits for what is beyond that.
    fn close(&mut self, place: usize, mut open: Box<Open>, sink: &mut impl FnMut(Breakdown)) {
        let is_attributed = !open.touches_loss && !open.touches_unrecorded;
        if self.io.is_none() && !is_attributed {
            // The error of the clock is told only of those that can be attributed.
            sink(self.breakdown(place, &mut open));
        } else if let Some(mut open) = self.lanes[place].hold_back(open) {
            let is_due = self.has_come_to(place, open.latest);
            let mut breakdown = self.breakdown(place, &mut open);
            if !is_due && breakdown.attribution == Attribution::Attributed {
                breakdown.clock_error = uncertainty::anything(&open.placed);
            }
            sink(breakdown);
        }
    }

    /// Whether all has come that happened up to this time.
    fn has_come_to(&self, place: usize, time: HostNs) -> bool {
        self.lanes[place].history.until() >= time
            && self.io.as_ref().is_none_or(|(_, io)| io.has_come_to(time))
    }

    /// Gives out those of which all is known, and lets go of what was kept for them.
    fn settle(&mut self, place: usize, sink: &mut impl FnMut(Breakdown)) {
        self.kept_count += 1;
        while self.lanes[place].next_due().is_some_and(|latest| self.has_come_to(place, latest)) {
            if let Some(mut open) = self.lanes[place].pop_held_back() {
                sink(self.breakdown(place, &mut open));
                self.kept_count += 1;
            }
        }
        // Looking through all that are under way pays only once there are as many to let go of.
        let pending_count: usize = self.lanes.iter().map(Lane::pending_count).sum();
        if self.kept_count >= KEPT_MAX + pending_count {
            self.kept_count = 0;
            self.forget();
        }
    }

    /// Lets go of what no request that is under way or to come needs.
    fn forget(&mut self) {
        let next = self.next.as_ref().map(Pulled::earliest);
        // What may be off by most need not be what began first.
        let pending = self.lanes.iter().filter_map(Lane::earliest).chain(next);
        // Where none is under way and none comes, as at a run's end, nothing is needed.
        let first = pending.min().unwrap_or(HostNs(u64::MAX));
        self.lanes.iter_mut().for_each(|lane| lane.history.forget_before(first));
        if let Some((_, io)) = &mut self.io {
            io.forget_before(first);
        }
    }

    /// The breakdown of a request that is covered to its end; takes it out of `open`.
    fn breakdown(&self, place: usize, open: &mut Open) -> Breakdown {
        let history = &self.lanes[place].history;
        let io = self.io_of(history, open);
        let marks = io.as_ref().map(|io| io.marks).map_err(|why| *why);
        let io_check = match (&self.io, &open.window) {
            (Some((_, io)), Some(window)) => io.check(window, marks),
            _ => IoCheck::Unchecked,
        };
        let breakdown = &open.breakdown;
        let phases = io.ok().map(|io| {
            let believed = (open.spans_from, open.spans_until);
            history.product((breakdown.start, breakdown.end), believed, &io)
        });
        let mut breakdown = open.close(marks, phases);
        breakdown.io_check = io_check;
        if breakdown.attribution == Attribution::Attributed {
            breakdown.clock_error = uncertainty::clock_error(history, &open.placed);
        }
        breakdown
    }

    fn io_of(&self, history: &History, open: &Open) -> Result<RequestIo, NoPhase> {
        match (&self.io, &open.window) {
            (Some(_), Some(_)) if history.has_forgotten(open.breakdown.start) => {
                Err(NoPhase::Forgotten)
            }
            (Some((_, io)), Some(window)) => io.io(window),
            _ => Err(NoPhase::NotRecorded),
        }
    }
}

/// Spans and requests after which it is looked for what can be let go of, at least.
const KEPT_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::join::target::HostAccess;
    use crate::timeline::{RunMode, ThreadState};
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
            Placed::of_read(request, start..end, 1, 0)
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
        let io = join.io.as_ref().map(|(_, io)| io.comparisons_count());
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
