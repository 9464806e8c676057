//! Halt polling: before KVM puts the thread of a halted vCPU to sleep, it keeps the pCPU busy for a while and
//! looks whether the guest has to run again.
//!
//! ```text
//!   guest | KVM | polls | sleeps   | woken | KVM | guest
//!         ^     |<------------ ns -------->|     ^
//!     kvm_exit                       kvm_vcpu_wakeup (waited = 1)
//!
//!   guest | KVM | polls            | KVM | guest
//!         ^     |<------ ns ------>|     ^
//!     kvm_exit               kvm_vcpu_wakeup (waited = 0)
//! ```
//!
//! `ns` of `kvm:kvm_vcpu_wakeup` is all the time from the start of the polling to the end of the sleep, and
//! `waited` is whether there was a sleep: so in `kvm_vcpu_halt` of virt/kvm/kvm_main.c (Linux 6.12, 7.3), and in
//! `kvm_vcpu_block` before 5.17. So only at the end of a sleep is it known for how long the thread had polled
//! before it, and until then the span in which it did is held back.

use super::span::{RunMode, Span, ThreadState};
use crate::units::HostNs;

/// KVM's shortest poll is 10 us (`halt_poll_ns_grow_start`, virt/kvm/kvm_main.c). Whoever slept earlier than
/// that was on its way to sleep: 2 to 13 us were seen, on a host that is a guest.
const POLL_MIN_NS: u64 = 10_000;

/// `ns` is measured with `CLOCK_MONOTONIC`, events with `CLOCK_MONOTONIC_RAW`: one runs by up to 500 parts in a
/// million faster than the other (`MAXFREQ`, include/linux/timex.h).
const CLOCK_DRIFT_DIVISOR: u64 = 2_000;

/// The spans of a thread from before a sleep in a halt, until KVM says how long the halt was.
#[derive(Debug, Default)]
pub(super) struct HeldBack {
    /// Whether KVM has ever said so: otherwise nothing is worth waiting for.
    is_told: bool,
    /// The first is the one that the thread ran in before it slept. Empty where nothing is held back.
    spans: Vec<Span>,
}

impl HeldBack {
    /// The thread's next span: it goes on, unless it has to stay behind one that is held back.
    pub(super) fn pass(&mut self, span: Span, sink: &mut impl FnMut(Span)) {
        if self.spans.is_empty() { sink(span) } else { self.spans.push(span) }
    }

    /// The same of the span that the thread ran in before it sleeps in a halt.
    pub(super) fn pass_last_of_stay(&mut self, span: Span, sink: &mut impl FnMut(Span)) {
        if self.is_told { self.spans.push(span) } else { sink(span) }
    }

    /// Those that are held back, as they are if nothing more becomes known of them.
    pub(super) fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Whatever happened, it was not the end of the halt: the spans go out as they are.
    pub(super) fn let_go(&mut self, sink: &mut impl FnMut(Span)) {
        self.spans.drain(..).for_each(sink);
    }

    /// A halt with a sleep is over at `end`, `halted_ns` after its start.
    pub(super) fn slept(&mut self, end: HostNs, halted_ns: u64, sink: &mut impl FnMut(Span)) {
        self.is_told = true;
        if let Some(stay) = self.spans.first().cloned()
            && let ThreadState::Running { pcpu, .. } = stay.state
        {
            let latest_ns = end.0.saturating_sub(halted_ns) + halted_ns / CLOCK_DRIFT_DIVISOR;
            let from = HostNs(latest_ns).min(stay.end);
            // A halt that began earlier has slept before, and was woken for nothing in between.
            if from >= stay.start && stay.end.since_ns(from) >= POLL_MIN_NS {
                self.spans.remove(0);
                let state = ThreadState::Running { pcpu, mode: RunMode::HaltPoll };
                if from > stay.start {
                    sink(Span { end: from, ..stay.clone() });
                }
                sink(Span { start: from, state, ..stay });
            }
        }
        self.let_go(sink);
    }

    /// A halt without a sleep is over.
    pub(super) fn polled(&mut self, sink: &mut impl FnMut(Span)) {
        self.is_told = true;
        self.let_go(sink);
    }
}

#[cfg(test)]
mod tests;
