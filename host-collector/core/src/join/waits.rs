//! Who ran while the thread of one request waited for a pCPU.

use crate::timeline::{Antagonist, Credits, Span};
use crate::units::PcpuId;

/// How many rows (a task on a pCPU) one request keeps at most.
pub const WAITS_MAX: usize = 64;

/// Everyone who ran while the thread of one request waited, over all its waits. This is kept beside the
/// chain, because a chain is cut off after some spans, and the slowest requests have the most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waits(Credits<PcpuId>);

impl Default for Waits {
    fn default() -> Waits {
        Waits(Credits::new(WAITS_MAX))
    }
}

impl Waits {
    /// Takes the request's next span, which counts only if the thread waited for a pCPU.
    pub fn push(&mut self, span: &Span) {
        if let Some(pcpu) = span.state.waits_for() {
            span.antagonists.iter().for_each(|ran| self.0.add(pcpu, ran));
        }
    }

    /// Who ran on which pCPU, the longest first; idle time and others, which have no pCPU, come last.
    pub fn rows(&self) -> impl Iterator<Item = (Option<PcpuId>, Antagonist)> {
        self.0.rows()
    }
}

impl<'a> FromIterator<&'a Span> for Waits {
    fn from_iter<Spans: IntoIterator<Item = &'a Span>>(spans: Spans) -> Waits {
        let mut waits = Waits::default();
        spans.into_iter().for_each(|span| waits.push(span));
        waits
    }
}
