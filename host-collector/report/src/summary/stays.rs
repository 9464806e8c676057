//! The timeslices of one thread, found among its spans.

use vslice_core::timeline::{Span, ThreadState};
use vslice_core::units::{HostNs, PcpuId};

/// Takes the spans of one thread in their order, and tells its timeslices.
///
/// A timeslice counts only if both its ends were seen, and a span does not say so itself: the
/// first may be cut by the beginning of the window, the last by its end, any by a loss. So a stay
/// on a pCPU is a timeslice if the spans right before and right after it are there and are known.
#[derive(Debug, Default)]
pub struct Stays {
    /// Where the last span ended, if what it said is known.
    known_until: Option<HostNs>,
    /// Whether the last span was on a pCPU, whatever is known of its ends.
    was_running: bool,
    /// A timeslice of which only the beginning is certain so far.
    open: Option<Timeslice>,
}

/// A stay on a pCPU whose ends were both seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeslice {
    /// When it began.
    pub start: HostNs,
    /// How long it was.
    pub length_ns: u64,
    /// Where.
    pub pcpu: PcpuId,
}

impl Stays {
    /// Takes the thread's next span. The timeslice that is over with its beginning, if one is.
    pub fn span(&mut self, span: &Span) -> Option<Timeslice> {
        let is_known = !matches!(span.state, ThreadState::Unknown { .. });
        let follows_known = self.known_until == Some(span.start);
        let running = match span.state {
            ThreadState::Running { pcpu, .. } => Some(pcpu),
            _ => None,
        };
        // A stay may come in several spans, one for each stretch in the guest, in KVM, in the VMM.
        let goes_on = follows_known && self.was_running && running.is_some();
        let open = self.open.take();
        if let Some(pcpu) = running {
            let length_ns = span.length_ns();
            let begun = Timeslice { start: span.start, length_ns, pcpu };
            self.open = if goes_on {
                open.map(|open| Timeslice {
                    length_ns: open.length_ns.saturating_add(length_ns),
                    ..open
                })
            } else {
                follows_known.then_some(begun)
            };
        }
        self.was_running = running.is_some();
        self.known_until = is_known.then_some(span.end);
        open.filter(|_| follows_known && is_known && !goes_on)
    }
}
