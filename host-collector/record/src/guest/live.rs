//! Figures of a guest while it runs, for whoever watches. The report never uses them.

use hdrhistogram::Histogram;
use std::sync::{Mutex, MutexGuard, PoisonError};
use vslice_core::clock::Exchange;
use vslice_core::units::{GuestTicks, HostNs};
use vslice_wire::{BlockOperation, ObservedFlags, ObservedRequest, Request};

/// The largest latency that is told apart, in guest ticks: more than a minute at 10 GHz.
const LATENCY_TICKS_MAX: u64 = 1 << 40;

/// Latencies of observed requests that are kept until somebody takes them.
const OBSERVED_KEPT_MAX: usize = 1 << 14;

/// One guest's live figures, shared between its session and the watcher.
#[derive(Debug)]
pub struct Live {
    figures: Mutex<Figures>,
}

#[derive(Debug)]
struct Figures {
    latency_ticks: Histogram<u64>,
    observed_count: u64,
    /// Latencies that nobody has taken yet, in ticks.
    observed: Vec<(BlockOperation, u64)>,
    first: Option<(GuestTicks, HostNs)>,
    last: Option<(GuestTicks, HostNs)>,
}

/// The figures for a watcher.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LiveFigures {
    /// The number of the reader's requests so far.
    pub requests_count: u64,
    /// The number of observed requests so far.
    pub observed_count: u64,
    /// The median latency in nanoseconds, once the clock's rate is known.
    pub p50_ns: Option<f64>,
    /// The 99th percentile of the latency in nanoseconds, once the clock's rate is known.
    pub p99_ns: Option<f64>,
}

impl Default for Live {
    fn default() -> Self {
        let latency_ticks = Histogram::new_with_bounds(1, LATENCY_TICKS_MAX, 2)
            .expect("1 is a valid lower bound, 2 a valid number of digits");
        Live {
            figures: Mutex::new(Figures {
                latency_ticks,
                observed_count: 0,
                observed: Vec::new(),
                first: None,
                last: None,
            }),
        }
    }
}

impl Live {
    /// Counts requests that were received.
    pub fn requested(&self, requests: &[Request]) {
        let mut figures = self.lock();
        for request in requests {
            let ticks = request.completed.0.saturating_sub(request.submitted.0);
            figures.latency_ticks.saturating_record(ticks.max(1));
        }
    }

    /// Counts observed requests that were received.
    pub fn observed(&self, requests: &[ObservedRequest]) {
        let mut figures = self.lock();
        figures.observed_count += requests.len() as u64;
        let latency = |request: &ObservedRequest| {
            let is_certain = !request.flags.contains(ObservedFlags::AMBIGUOUS)
                && !request.flags.contains(ObservedFlags::NO_QUEUE_TIME);
            let ticks = request.completed.0.checked_sub(request.queued.0).filter(|_| is_certain)?;
            Some((request.operation, ticks))
        };
        let room = OBSERVED_KEPT_MAX.saturating_sub(figures.observed.len());
        figures.observed.extend(requests.iter().filter_map(latency).take(room));
    }

    /// The latencies in nanoseconds of the observed requests that came since this was last asked, in so far as there was
    /// room for them; none before the clock's rate is known.
    pub fn take_observed(&self) -> Vec<(BlockOperation, u64)> {
        let mut figures = self.lock();
        let Some(rate) = figures.ns_per_tick() else { return Vec::new() };
        let in_ns = |(operation, ticks): (BlockOperation, u64)| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a rate is not negative, and a float too large becomes the largest integer"
            )]
            let ns = (ticks as f64 * rate) as u64;
            (operation, ns)
        };
        std::mem::take(&mut figures.observed).into_iter().map(in_ns).collect()
    }

    /// Estimates the guest clock's rate from the first and the latest exchange.
    pub fn exchanged(&self, exchange: &Exchange) {
        let mut figures = self.lock();
        let point = (exchange.guest_sent, exchange.host_received);
        figures.first.get_or_insert(point);
        figures.last = Some(point);
    }

    /// The current figures.
    #[must_use]
    pub fn now(&self) -> LiveFigures {
        let figures = self.lock();
        let rate = figures.ns_per_tick();
        let quantile =
            |q| rate.map(|rate| figures.latency_ticks.value_at_quantile(q) as f64 * rate);
        let requests_count = figures.latency_ticks.len();
        let some = requests_count > 0;
        LiveFigures {
            requests_count,
            observed_count: figures.observed_count,
            p50_ns: quantile(0.5).filter(|_| some),
            p99_ns: quantile(0.99).filter(|_| some),
        }
    }

    /// A watcher that panicked leaves figures that are as good as before.
    fn lock(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Figures {
    fn ns_per_tick(&self) -> Option<f64> {
        let ((first_ticks, first_ns), (last_ticks, last_ns)) = (self.first?, self.last?);
        let ticks = last_ticks.0.checked_sub(first_ticks.0).filter(|ticks| *ticks > 0)?;
        Some(last_ns.since_ns(first_ns) as f64 / ticks as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_become_nanoseconds_by_the_exchanges_rate() {
        let live = Live::default();
        assert_eq!(live.now(), LiveFigures::default());
        for (ticks, ns) in [(1_000, 500), (3_001_000, 1_000_500)] {
            live.exchanged(&Exchange {
                host_sent: HostNs(0),
                guest_received: GuestTicks(ticks),
                guest_sent: GuestTicks(ticks),
                host_received: HostNs(ns),
            });
        }
        let request = Request {
            index: 0,
            submitted: GuestTicks(10_000),
            completed: GuestTicks(40_000),
            vcpu_submitted: 0,
            vcpu_completed: 0,
            result: 4096,
        };
        live.requested(&[request]);
        let glance = live.now();
        assert_eq!(glance.requests_count, 1);
        let p50_ns = glance.p50_ns.unwrap();
        assert!((p50_ns - 10_000.0).abs() < 150.0, "{p50_ns}");
    }
}
