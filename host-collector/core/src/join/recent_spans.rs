//! What a vCPU's thread did lately, in whole spans.

use crate::timeline::Span;
use crate::units::{HostNs, Tid};
use std::collections::VecDeque;

/// The recent spans of a vCPU's thread, as many as there is room for.
#[derive(Debug)]
pub(super) struct RecentSpans {
    thread: Tid,
    spans: VecDeque<Span>,
    spans_max: usize,
    forgotten_until: HostNs,
    until: HostNs,
}

impl RecentSpans {
    /// Nothing of this thread yet, and room for so many.
    pub(super) fn new(thread: Tid, spans_max: usize) -> RecentSpans {
        RecentSpans {
            thread,
            spans: VecDeque::new(),
            spans_max,
            forgotten_until: HostNs(0),
            until: HostNs(0),
        }
    }

    /// The thread.
    pub(super) fn thread(&self) -> Tid {
        self.thread
    }

    /// What it did next.
    pub(super) fn push(&mut self, span: &Span) {
        self.until = self.until.max(span.end);
        self.spans.push_back(span.clone());
        if self.spans.len() > self.spans_max {
            self.forget_first();
        }
    }

    /// The end of the last span.
    pub(super) fn until(&self) -> HostNs {
        self.until
    }

    /// Drops what ended before `time`.
    pub(super) fn forget_before(&mut self, time: HostNs) {
        while self.spans.front().is_some_and(|span| span.end <= time) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some(gone) = self.spans.pop_front() {
            self.forgotten_until = self.forgotten_until.max(gone.end);
        }
    }

    /// Whether what it did at `time` may have been dropped.
    pub(super) fn has_forgotten(&self, time: HostNs) -> bool {
        time < self.forgotten_until
    }

    /// The spans that have a part between `from` and `until`, in order of time; also one of no length there.
    pub(super) fn between(&self, from: HostNs, until: HostNs) -> impl Iterator<Item = &Span> {
        let first = self.spans.partition_point(|span| span.end <= from);
        self.spans.range(first..).take_while(move |span| span.start < until)
    }

    /// The span that this instant is in.
    pub(super) fn at(&self, time: HostNs) -> Option<&Span> {
        let first = self.spans.partition_point(|span| span.end <= time);
        self.spans.get(first).filter(|span| span.start <= time)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }
}
