//! One vCPU's requests and what its thread did, within a join.

use super::OPEN_REQUESTS_MAX;
use super::history::History;
use super::part::Part;
use super::under_way::{Open, Pulled};
use crate::timeline::Span;
use crate::units::{HostNs, Tid, VcpuId};
use std::collections::{BTreeMap, VecDeque};

/// Requests of one vCPU that wait for its thread's spans at most. Another thread's spans may be ahead of
/// them by as long as the longest of them is; beyond this they are given up.
const WAITING_MAX: usize = 1 << 18;

/// A vCPU whose requests are split.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) vcpu: VcpuId,
    /// Its thread on the host.
    pub(super) thread: Tid,
    /// Pulled, but not reached by a span of its thread yet; in order of submission.
    waiting: VecDeque<Pulled>,
    /// Under way at the end of the last span, in order of submission.
    #[expect(clippy::vec_box, reason = "each goes on to other queues, and is a kilobyte")]
    open: Vec<Box<Open>>,
    /// Covered to their ends, but not known to all sides of them: by the time up to which all must
    /// have come, and a number to tell them apart.
    settling: BTreeMap<(HostNs, u64), Box<Open>>,
    settling_number: u64,
    pub(super) history: History,
}

impl Lane {
    pub(super) fn new(vcpu: VcpuId, thread: Tid) -> Lane {
        Lane {
            vcpu,
            thread,
            waiting: VecDeque::new(),
            open: Vec::new(),
            settling: BTreeMap::new(),
            settling_number: 0,
            history: History::default(),
        }
    }

    /// Lays a span of its thread over the requests that are under way; returns those that it completes.
    #[expect(clippy::vec_box, reason = "as the open ones")]
    pub(super) fn cover(&mut self, span: &Span) -> Vec<Box<Open>> {
        self.history.push(span.start, span.end, Part::of(&span.state));
        let covered = self.open.extract_if(.., |open| {
            open.cover(span);
            open.breakdown.end <= span.end
        });
        covered.collect()
    }

    /// Lays the span over a request that begins before its end; returns it if nothing more will cover it.
    pub(super) fn begin(&mut self, pulled: Pulled, span: &Span) -> Option<Box<Open>> {
        let mut open = Open::new(self.thread, pulled);
        open.cover(span);
        if open.breakdown.end <= span.end {
            return Some(open);
        }
        if self.open.len() >= OPEN_REQUESTS_MAX {
            open.abandon();
            return Some(open);
        }
        self.open.push(open);
        None
    }

    /// Keeps a request until a span of its thread reaches it; returns it given up if too many wait.
    pub(super) fn wait(&mut self, pulled: Pulled) -> Option<Box<Open>> {
        if self.waiting.len() >= WAITING_MAX {
            let mut open = Open::new(self.thread, pulled);
            open.abandon();
            return Some(open);
        }
        self.waiting.push_back(pulled);
        None
    }

    /// The next of those that wait, if it begins before `until`.
    pub(super) fn next_waiting(&mut self, until: HostNs) -> Option<Pulled> {
        self.waiting.pop_front_if(|pulled| pulled.placed.start < until)
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Holds back a request that is covered to its end; returns it if too many are held back.
    pub(super) fn hold_back(&mut self, open: Box<Open>) -> Option<Box<Open>> {
        if self.settling.len() >= OPEN_REQUESTS_MAX {
            return Some(open);
        }
        self.settling_number += 1;
        self.settling.insert((open.latest, self.settling_number), open);
        None
    }

    /// The time up to which all must have come for the next of those that are held back.
    pub(super) fn next_due(&self) -> Option<HostNs> {
        self.settling.first_key_value().map(|((latest, _), _)| *latest)
    }

    /// The next of those that are held back.
    pub(super) fn pop_held_back(&mut self) -> Option<Box<Open>> {
        self.settling.pop_first().map(|(_, open)| open)
    }

    /// All that are left: those that are covered first, and given up those that are not.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Box<Open>> + use<> {
        let (thread, settling) = (self.thread, std::mem::take(&mut self.settling));
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        let waiting = waiting.map(move |pulled| Open::new(thread, pulled));
        let rest = std::mem::take(&mut self.open).into_iter().chain(waiting).map(|mut open| {
            open.abandon();
            open
        });
        settling.into_values().chain(rest)
    }

    /// How many requests are under way, or held back.
    pub(super) fn pending_count(&self) -> usize {
        self.open.len() + self.settling.len() + self.waiting.len()
    }

    /// When the first of those that are not out yet may have begun.
    pub(super) fn earliest(&self) -> Option<HostNs> {
        let covered = self.open.iter().chain(self.settling.values()).map(|open| open.earliest);
        covered.chain(self.waiting.iter().map(Pulled::earliest)).min()
    }
}
