//! Who ran while the thread of one request waited for a pCPU.

use crate::timeline::{Antagonist, Credits, Span};
use crate::units::PcpuId;

/// Tasks that one request tells apart, each on each pCPU where it was met, at most.
pub const WAITS_MAX: usize = 64;

/// All that ran while the thread of one request waited, in all its waits. A chain is cut off after some
/// spans, and the slowest requests have most: who was in their way would not be known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waits(Credits<PcpuId>);

impl Default for Waits {
    fn default() -> Waits {
        Waits(Credits::new(WAITS_MAX))
    }
}

impl Waits {
    /// Takes the request's next span; nothing unless the thread waited for a pCPU.
    pub fn push(&mut self, span: &Span) {
        if let Some(pcpu) = span.state.waits_for() {
            span.antagonists.iter().for_each(|ran| self.0.add(pcpu, ran));
        }
    }

    /// Who ran on which pCPU, the longest first; nobody and others, who have none, come last.
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
