//! What KVM says of guests' TSCs, held against the maps that round trips make.
//!
//! What KVM says counts only of a vCPU that is in its guest. Where a host's TSC is not stable, a vCPU
//! that comes onto a pCPU is given an offset by which its TSC goes on from where it left, and only on
//! the way into the guest another one by which it catches up (`kvm_arch_vcpu_load`,
//! `kvm_guest_time_update`; linux: arch/x86/kvm/x86.c). Taken off again in between, it shows for all
//! that time an offset that its guest never sees.

use crate::summary::clock::KvmCheck;
use std::collections::VecDeque;
use vslice_core::clock::{ClockMap, Exchange};
use vslice_core::timeline::{Span, ThreadState};
use vslice_core::units::{HostNs, Tid};

/// A vCPU thread that has been on its pCPU for so long has entered its guest meanwhile: the way there
/// takes microseconds, and on an emulated host some hundreds of them. In the last millisecond KVM said
/// the same (`STEADY_TIME` of the watch), so that the vCPU did not come from the VMM just now either.
const ENTERED_NS: u64 = 3_000_000;

/// One time that KVM was asked.
#[derive(Debug, Clone, Copy)]
struct Reading {
    before: HostNs,
    after: HostNs,
    beyond_ns: u64,
}

/// All that KVM said of one vCPU, until it is known whether the vCPU was running then.
#[derive(Debug)]
pub(super) struct TscOffsetChecker {
    tid: Tid,
    /// In order of time.
    readings: VecDeque<Reading>,
    /// The thread is on a pCPU since then, up to the second time.
    on_pcpu: Option<(HostNs, HostNs)>,
    /// What came of it so far.
    pub(super) check: KvmCheck,
}

impl TscOffsetChecker {
    /// `told` is what KVM said of the vCPU with this thread, in order of time; `map` rests on nothing
    /// of it.
    pub(super) fn new(tid: Tid, map: &ClockMap, told: &[Exchange]) -> TscOffsetChecker {
        let reading = |exchange: &Exchange| {
            let beyond_ns = map.beyond_ns(exchange).ok()?;
            let (before, after) = (exchange.host_sent, exchange.host_received);
            Some(Reading { before, after, beyond_ns })
        };
        let readings = told.iter().filter_map(reading).collect();
        TscOffsetChecker { tid, readings, on_pcpu: None, check: KvmCheck::default() }
    }

    /// Takes the next span of any thread.
    pub(super) fn push(&mut self, span: &Span) {
        if span.tid != self.tid || self.readings.is_empty() {
            return;
        }
        let on_pcpu = matches!(span.state, ThreadState::Running { .. }).then(|| {
            let since = self.on_pcpu.filter(|(_, until)| *until == span.start);
            (since.map_or(span.start, |(since, _)| since), span.end)
        });
        self.on_pcpu = on_pcpu;
        while let Some(reading) = self.readings.front().filter(|next| next.after <= span.end) {
            let entered = |(since, _): (HostNs, HostNs)| since.0.saturating_add(ENTERED_NS);
            if on_pcpu.is_some_and(|on_pcpu| entered(on_pcpu) <= reading.before.0) {
                self.check = self.check.with(reading.beyond_ns);
            }
            self.readings.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_core::timeline::RunMode;
    use vslice_core::units::{GuestTicks, PcpuId};

    fn at(ms: u64) -> HostNs {
        HostNs(ms * 1_000_000)
    }

    /// The guest's clock is the host's; what KVM says of it is late by `late_ns`.
    fn exchange(ms: u64, late_ns: u64) -> Exchange {
        let guest = GuestTicks(at(ms).0 + late_ns);
        let (host_sent, host_received) = (at(ms), HostNs(at(ms).0 + 100));
        Exchange { host_sent, guest_received: guest, guest_sent: guest, host_received }
    }

    #[test]
    fn only_a_vcpu_that_has_entered_its_guest_counts() {
        let map = ClockMap::estimate(&[exchange(0, 0), exchange(1_000, 0)]).unwrap();
        let told = [(10, 0), (21, 9_000), (25, 5_000), (31, 0), (45, 9_000)]
            .map(|(ms, late_ns)| exchange(ms, late_ns));
        let mut checker = TscOffsetChecker::new(Tid(7), &map, &told);
        let mut push = |tid, from, to, state| {
            let (start, end) = (at(from), at(to));
            checker.push(&Span { tid: Tid(tid), start, end, state, antagonists: vec![] });
        };
        let on = |mode| ThreadState::Running { pcpu: PcpuId(1), mode };
        let off = ThreadState::WakeupDelay { pcpu: PcpuId(1), raced: None };
        push(7, 0, 20, on(RunMode::Unsplit));
        // Another's span tells nothing of this one.
        push(8, 0, 50, on(RunMode::Unsplit));
        // One stay in two spans: too early at 21, long enough at 25 and 31.
        push(7, 20, 20, off);
        push(7, 20, 30, on(RunMode::Unsplit));
        push(7, 30, 40, on(RunMode::Unsplit));
        push(7, 40, 50, off);
        let check = checker.check;
        assert_eq!((check.readings, check.violations), (3, 1));
        assert!(check.worst_ns.abs_diff(5_000) < 200, "{check:?}");
    }
}
