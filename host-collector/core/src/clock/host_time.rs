//! What KVM tells a guest of its host's clock, as exchanges. Pure.
//!
//! A guest that asks reads its own clock before and after, so that the host's time lies between two
//! of its stamps: the other way round than a ping. What it is told is the host's `CLOCK_REALTIME`
//! (linux: `kvm_pv_clock_pairing` in arch/x86/kvm/x86.c), which the collector lays on its own clock
//! when the answer arrives.

use super::Exchange;
use crate::units::{GuestTicks, HostNs, VcpuId};
use serde::{Deserialize, Serialize};
use vslice_wire::HostTime;

/// `CLOCK_REALTIME` is slewed by one part in 2000 at most: 500 ppm (`MAX_PHASE`, `MAXFREQ` of
/// adjtimex(2), which are 500 us a second and 500 ppm, so twice that).
const SLEW_PARTS: u64 = 1_000;

/// An answer older than this has waited in a queue somewhere, and is of no use.
const AGE_MAX_NS: u64 = 1_000_000_000;

/// The host's two clocks, read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostClocks {
    /// The clock of every host record, just before ...
    pub before: HostNs,
    /// ... `CLOCK_REALTIME` was read, in nanoseconds ...
    pub realtime_ns: u64,
    /// ... and just after.
    pub after: HostNs,
}

/// A time of the host's clock that KVM told a guest, placed on the collector's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostTimeSample {
    /// The vCPU that asked.
    pub vcpu: VcpuId,
    /// Its clock just before it asked.
    pub asked_ticks: u64,
    /// Its clock just after it had the answer.
    pub answered_ticks: u64,
    /// The answer was read no earlier than this ...
    pub earliest: HostNs,
    /// ... and no later than this.
    pub latest: HostNs,
}

impl HostTimeSample {
    /// Places an answer on the collector's clock, by the host's clocks when it arrived. `None` if it lies in
    /// the future or too far in the past, as it does if somebody has set the host's clock meanwhile.
    #[must_use]
    pub fn place(answer: &HostTime, now: &HostClocks) -> Option<HostTimeSample> {
        let age_ns = now.realtime_ns.checked_sub(answer.realtime_ns)?;
        if age_ns > AGE_MAX_NS {
            return None;
        }
        let slew_ns = age_ns / SLEW_PARTS + 1;
        Some(HostTimeSample {
            vcpu: VcpuId(answer.vcpu),
            asked_ticks: answer.before.0,
            answered_ticks: answer.after.0,
            earliest: HostNs(now.before.0.checked_sub(age_ns + slew_ns)?),
            latest: HostNs(now.after.0.checked_sub(age_ns)? + slew_ns),
        })
    }

    /// What follows from it: the guest's clock had come to `asked_ticks` when the host's came to `latest`,
    /// and had not passed `answered_ticks` before `earliest`.
    #[must_use]
    pub fn exchange(&self) -> Exchange {
        Exchange {
            host_sent: self.earliest,
            guest_received: GuestTicks(self.answered_ticks),
            guest_sent: GuestTicks(self.asked_ticks),
            host_received: self.latest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ClockMap;
    use proptest::prelude::*;

    const NOW: HostClocks =
        HostClocks { before: HostNs(5_000_000), realtime_ns: 90_000_000, after: HostNs(5_000_040) };

    fn answer(realtime_ns: u64) -> HostTime {
        HostTime { vcpu: 1, before: GuestTicks(3), realtime_ns, after: GuestTicks(8) }
    }

    #[test]
    fn a_time_is_as_old_as_its_clock_says() {
        let time = HostTimeSample::place(&answer(89_000_000), &NOW).unwrap();
        assert_eq!((time.earliest, time.latest), (HostNs(3_998_999), HostNs(4_001_041)));
        let exchange = time.exchange();
        assert_eq!((exchange.guest_received, exchange.guest_sent), (GuestTicks(8), GuestTicks(3)));
    }

    #[test]
    fn a_time_that_cannot_be_is_none() {
        assert_eq!(HostTimeSample::place(&answer(90_000_001), &NOW), None, "of the future");
        assert_eq!(HostTimeSample::place(&answer(0), &NOW), None, "from before the host began");
        let late = HostClocks { realtime_ns: answer(0).realtime_ns + AGE_MAX_NS + 1, ..NOW };
        assert_eq!(HostTimeSample::place(&answer(0), &late), None, "of long ago");
    }

    proptest! {
        /// A guest whose clock is the host's, told the truth, is never beyond its map; told a wrong
        /// time, it is by as much as nothing explains.
        #[test]
        fn the_truth_is_never_beyond_the_map(
            asked_us in 1_000_u64..9_000,
            way_ns in 1_u64..40_000,
            back_ns in 1_u64..40_000,
            arrives_us in 1_u64..500,
            slew_ppm in -500_i64..500,
            wrong_us in 200_i64..900,
            is_late in any::<bool>(),
        ) {
            let turn = |at: u64| Exchange {
                host_sent: HostNs(at),
                guest_received: GuestTicks(at + 20_000),
                guest_sent: GuestTicks(at + 20_000),
                host_received: HostNs(at + 40_000),
            };
            let map = ClockMap::estimate(&[turn(0), turn(10_000_000)]).unwrap();
            let host = asked_us * 1_000;
            let realtime = |at: u64| {
                let slew = i64::try_from(at).unwrap() * slew_ppm / 1_000_000;
                (7_000_000_000 + at).checked_add_signed(slew).unwrap()
            };
            let arrival = host + arrives_us * 1_000;
            let now = HostClocks {
                before: HostNs(arrival), realtime_ns: realtime(arrival), after: HostNs(arrival),
            };
            let answer_at = |realtime_ns| HostTime {
                vcpu: 0, before: GuestTicks(host - way_ns), realtime_ns,
                after: GuestTicks(host + back_ns),
            };
            let true_time = HostTimeSample::place(&answer_at(realtime(host)), &now).unwrap();
            prop_assert_eq!(map.beyond_ns(&true_time.exchange()), Ok(0));
            let wrong_ns = if is_late { -wrong_us } else { wrong_us } * 1_000;
            let wrong = realtime(host).checked_add_signed(wrong_ns).unwrap();
            if let Some(time) = HostTimeSample::place(&answer_at(wrong), &now) {
                let beyond_ns = map.beyond_ns(&time.exchange()).unwrap();
                prop_assert!(beyond_ns + 100_000 >= wrong_ns.unsigned_abs(), "{}", beyond_ns);
            }
        }
    }
}
