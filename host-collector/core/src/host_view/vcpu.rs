//! What one vCPU did since an I/O was done, as far as it may have been the one to take it.

use crate::join::Part;
use crate::timeline::{Antagonist, Span, ThreadState, Who};
use crate::units::{HostNs, Tid};
use std::collections::VecDeque;

/// Spans of a vCPU that are kept at most; then the oldest are let go of.
const SPANS_MAX: usize = 1 << 14;

/// What a span means for an I/O that is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// In the guest, or on a pCPU of which it is not known in whose code: it takes what it is told.
    Takes,
    /// Halted: an interrupt ends it.
    Halted,
    /// Kept off its pCPU.
    Waits,
    /// On a pCPU, but not in the guest.
    Between,
    /// Not known.
    Unknown,
}

impl Doing {
    fn of(state: &ThreadState) -> Doing {
        match Part::of(state) {
            Part::OnPcpu | Part::Guest => Doing::Takes,
            Part::Halt | Part::HaltPoll => Doing::Halted,
            Part::Kvm | Part::VmmUser => Doing::Between,
            Part::Unknown => Doing::Unknown,
            Part::PreemptWait
            | Part::WakeupDelay
            | Part::Throttled
            | Part::BqlWait
            | Part::LockWait
            | Part::HostFault
            | Part::IoSubmit
            | Part::OtherSleep => Doing::Waits,
        }
    }
}

#[derive(Debug)]
struct Kept {
    start: HostNs,
    end: HostNs,
    doing: Doing,
    antagonists: Vec<Antagonist>,
}

/// What is known of one vCPU and one I/O.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known {
    /// That comes later.
    NotYet,
    /// Its state was not known meanwhile.
    Never,
    /// It was not told of it.
    Excluded,
    /// It may have been.
    Waits(Waits),
}

/// For how long it was kept off a pCPU until it could take the I/O.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waits {
    /// If it was told at once; where it is known when it was told this says nothing.
    pub(super) least_ns: u64,
    /// If it was told at the end.
    pub(super) most_ns: u64,
    /// Who had its pCPU longest in its longest wait.
    pub(super) who: Option<Who>,
}

/// The spans of one vCPU's thread.
#[derive(Debug)]
pub(super) struct VcpuHistory {
    tid: Tid,
    spans: VecDeque<Kept>,
    /// Of what was before, not all is kept.
    kept_from: Option<HostNs>,
}

impl VcpuHistory {
    pub(super) fn new(tid: Tid) -> VcpuHistory {
        VcpuHistory { tid, spans: VecDeque::new(), kept_from: None }
    }

    pub(super) fn tid(&self) -> Tid {
        self.tid
    }

    /// Takes the next span of any thread.
    pub(super) fn push(&mut self, span: &Span) {
        if span.tid != self.tid {
            return;
        }
        let doing = Doing::of(&span.state);
        let antagonists = if doing == Doing::Waits { span.antagonists.clone() } else { vec![] };
        self.spans.push_back(Kept { start: span.start, end: span.end, doing, antagonists });
        if self.spans.len() > SPANS_MAX
            && let Some(gone) = self.spans.pop_front()
        {
            self.kept_from = Some(gone.end);
        }
    }

    /// Lets go of what ended before `time`.
    pub(super) fn forget_before(&mut self, time: HostNs) {
        while let Some(gone) = self.spans.front().filter(|span| span.end <= time) {
            self.kept_from = Some(gone.end);
            self.spans.pop_front();
        }
    }

    /// What it did since an I/O was done of which it was told so. `open` is what it does at `now` and since when, if that
    /// is certain.
    pub(super) fn waits(
        &self,
        done: HostNs,
        told: Told,
        now: HostNs,
        open: Option<(HostNs, ThreadState)>,
    ) -> Known {
        if self.kept_from.is_some_and(|from| done < from) {
            return Known::Never;
        }
        // Where a span is held back, what goes on now does not follow what is known.
        let known_until = self.spans.back().map(|span| span.end).or(self.kept_from);
        let follows =
            |(start, _): &(HostNs, ThreadState)| known_until.is_none_or(|until| until == *start);
        let open = open.filter(follows).map(|(start, state)| {
            // What goes on now is known up to and with this moment.
            let end = HostNs(now.0.saturating_add(1));
            Kept { start, end, doing: Doing::of(&state), antagonists: vec![] }
        });
        let known = self.spans.iter().chain(&open).filter(|span| span.end > done);
        let mut walk = Walk::new(done, told);
        for span in known {
            if let Some(known) = walk.step(span) {
                return known;
            }
        }
        Known::NotYet
    }
}

/// When a vCPU was told of an I/O that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// If at all, until then.
    Until(HostNs),
    /// It was interrupted then.
    At(HostNs),
}

/// A walk over the spans since an I/O was done.
struct Walk {
    told: Told,
    /// Up to here everything is known.
    at: HostNs,
    waited_ns: u64,
    /// What it had waited when it was first in the guest.
    least_ns: Option<u64>,
    /// What it had waited when it was last in the guest until it had been told.
    latest_ns: u64,
    longest: (u64, Option<Who>),
}

impl Walk {
    fn new(done: HostNs, told: Told) -> Walk {
        let (waited_ns, least_ns, latest_ns) = (0, None, 0);
        Walk { told, at: done, waited_ns, least_ns, latest_ns, longest: (0, None) }
    }

    /// What is known after this span, if that is all.
    fn step(&mut self, span: &Kept) -> Option<Known> {
        // No event told of what is between.
        if span.start > self.at {
            return Some(Known::Never);
        }
        let from = std::mem::replace(&mut self.at, span.end);
        let (Told::Until(told_by) | Told::At(told_by)) = self.told;
        let reaches_told = span.end > told_by;
        let is_certain = matches!(self.told, Told::At(_));
        match span.doing {
            Doing::Unknown => return Some(Known::Never),
            Doing::Takes => {
                self.least_ns.get_or_insert(self.waited_ns);
                self.latest_ns = self.waited_ns;
                if reaches_told {
                    return Some(self.waits());
                }
            }
            // It was told before, if it was in its guest at all, or not: who was told does not halt.
            Doing::Halted if reaches_told && !is_certain => return Some(self.waits()),
            // The interrupt ends a halt, and none begins until it is taken.
            Doing::Halted if reaches_told && span.start > told_by => return Some(Known::Never),
            Doing::Halted | Doing::Between => {}
            Doing::Waits => {
                let waited_ns = span.end.since_ns(from);
                self.waited_ns = self.waited_ns.saturating_add(waited_ns);
                if waited_ns > self.longest.0 {
                    let most = span.antagonists.iter().max_by_key(|antagonist| antagonist.ran_ns);
                    self.longest = (waited_ns, most.map(|antagonist| antagonist.who.clone()));
                }
            }
        }
        None
    }

    fn waits(&mut self) -> Known {
        let Some(least_ns) = self.least_ns else { return Known::Excluded };
        let who = self.longest.1.take();
        Known::Waits(Waits { least_ns, most_ns: self.latest_ns, who })
    }
}
