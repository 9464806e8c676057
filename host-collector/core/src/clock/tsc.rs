//! What KVM says of a guest's TSC, as exchanges. Pure.
//!
//! KVM gives a vCPU the host's TSC times a ratio plus an offset, and tells both in debugfs:
//! `kvm/PID-FD/vcpuN/tsc-offset`, `tsc-scaling-ratio` and `tsc-scaling-ratio-frac-bits` (linux:
//! arch/x86/kvm/debugfs.c). So a reading of the host's TSC is one of the guest's. One that lies
//! between two readings of the host's clock is an exchange whose ping and pong take some tens of
//! nanoseconds; the rest is [`ClockMap`](super::ClockMap)'s.

use super::Exchange;
use crate::units::{GuestTicks, HostNs};
use serde::{Deserialize, Serialize};

/// A reading of the host's TSC between two readings of the host's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TscSample {
    /// The host's clock just before.
    pub before: HostNs,
    /// The host's TSC, in ticks.
    pub tsc: u64,
    /// The host's clock just after.
    pub after: HostNs,
}

/// How a vCPU's TSC follows from the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TscRelation {
    /// `tsc-offset`, in guest ticks.
    pub offset_ticks: i64,
    /// Where the hardware scales; `None` is a ratio of 1.
    pub scaling: Option<TscScaling>,
}

/// By how much the hardware scales the host's TSC for a guest: `ratio / 2^fraction_bits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TscScaling {
    /// `tsc-scaling-ratio`.
    pub ratio: u64,
    /// `tsc-scaling-ratio-frac-bits`: 48 on Intel, 32 on AMD; at most 63.
    pub fraction_bits: u8,
}

impl TscRelation {
    /// The exchange that would result if the vCPU had read its TSC at the moment when the host's was read.
    ///
    /// The arithmetic is that of the hardware: the product is cut to whole ticks, and both product
    /// and sum wrap at 2^64 (linux: `kvm_scale_tsc` and `kvm_read_l1_tsc` in arch/x86/kvm/x86.c).
    #[must_use]
    pub fn exchange(&self, sample: &TscSample) -> Exchange {
        let scaled = self.scaling.map_or(sample.tsc, |scaling| scaled(sample.tsc, scaling));
        let guest = GuestTicks(scaled.wrapping_add_signed(self.offset_ticks));
        Exchange {
            host_sent: sample.before,
            guest_received: guest,
            guest_sent: guest,
            host_received: sample.after,
        }
    }
}

/// tsc * ratio / 2^fraction_bits, its low 64 bits.
fn scaled(tsc: u64, scaling: TscScaling) -> u64 {
    let product = u128::from(tsc) * u128::from(scaling.ratio);
    let low = (product >> scaling.fraction_bits.min(63)) & u128::from(u64::MAX);
    u64::try_from(low).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ClockMap;
    use proptest::prelude::*;

    fn exchanges_from_offset(
        samples: &[TscSample],
        offset_ticks: i64,
        scaling: Option<TscScaling>,
    ) -> Vec<Exchange> {
        let relation = TscRelation { offset_ticks, scaling };
        samples.iter().map(|sample| relation.exchange(sample)).collect()
    }

    #[test]
    fn the_arithmetic_is_that_of_the_hardware() {
        let sample = |tsc| TscSample { before: HostNs(10), tsc, after: HostNs(14) };
        let guest = |tsc, offset, scaling| {
            exchanges_from_offset(&[sample(tsc)], offset, scaling)[0].guest_received.0
        };
        assert_eq!(guest(1_000, -1_000, None), 0);
        assert_eq!(guest(1_000, -1_001, None), u64::MAX, "it wraps");
        // 3 / 2 in 48 and in 32 bits; 4503 is 3002 * 1.5, 4501.5 is cut.
        for fraction_bits in [48, 32] {
            let scaling = TscScaling { ratio: 3 << (fraction_bits - 1), fraction_bits };
            assert_eq!(guest(3_002, 7, Some(scaling)), 4_503 + 7);
            assert_eq!(guest(3_001, 0, Some(scaling)), 4_501);
        }
        let scaling = TscScaling { ratio: u64::MAX, fraction_bits: 32 };
        assert_eq!(guest(u64::MAX, 0, Some(scaling)), 0xffff_fffe_0000_0000);
        let exchange = exchanges_from_offset(&[sample(5)], 0, None)[0];
        assert_eq!((exchange.host_sent, exchange.host_received), (HostNs(10), HostNs(14)));
    }

    /// The host's TSC at a host time: 2.1 ticks a nanosecond, from some tick on.
    fn tsc(host_ns: u64, zero: u64) -> u64 {
        zero + host_ns * 21 / 10
    }

    proptest! {
        /// Both ways to a map are true, so they agree; and the exact one is the tighter.
        #[test]
        fn the_exact_map_holds_the_truth_and_agrees_with_exchanges(
            zero in 0..1_u64 << 50,
            offset_from_zero in 0..1_i64 << 40,
            permille in 500..2_000_u64,
            is_scaled in any::<bool>(),
            samples in prop::collection::vec((1_000..1_000_000_u64, 0..90_u64, 0..90_u64), 2..40),
            delays in prop::collection::vec((0..400_000_u64, 0..400_000_u64), 2..20),
            step_ns in 1_000_000..9_000_000_i64,
        ) {
            let scaling = TscScaling { ratio: (1 << 48) / 1_000 * permille, fraction_bits: 48 };
            let scaling = is_scaled.then_some(scaling);
            let base = scaling.map_or(zero, |scaling| scaled(zero, scaling));
            let offset = offset_from_zero - i64::try_from(base).unwrap();
            let guest = |host_ns| {
                let scaled = scaling.map_or(tsc(host_ns, zero), |by| scaled(tsc(host_ns, zero), by));
                GuestTicks(scaled.wrapping_add_signed(offset))
            };
            let mut now = 0;
            let samples: Vec<TscSample> = samples.iter().map(|(pause, before, after)| {
                let at = now + pause + before;
                now = at + after;
                TscSample { before: HostNs(at - before), tsc: tsc(at, zero), after: HostNs(now) }
            }).collect();
            let Ok(exact) = ClockMap::estimate(&exchanges_from_offset(&samples, offset, scaling))
            else { return Ok(()) };
            prop_assert!(exact.cuts().is_empty());
            let last = now;
            for at in (0..=20).map(|step| last * step / 20) {
                let mapped = exact.to_host(guest(at)).unwrap();
                // A tick of the guest may last 2 ns here; the model's own cuts cost one more.
                prop_assert!(mapped.at.0.abs_diff(at) <= mapped.bound_ns + 3, "{at}: {mapped:?}");
            }
            let exchanges: Vec<Exchange> = (0..).zip(&delays).map(|(turn, (ping, pong))| {
                let sent = turn * 2_000_000;
                let read = guest(sent + ping);
                Exchange {
                    host_sent: HostNs(sent), guest_received: read, guest_sent: read,
                    host_received: HostNs(sent + ping + pong),
                }
            }).collect();
            let loose = ClockMap::estimate(&exchanges).unwrap();
            // The widened units of both, where the exact one leaves no room.
            prop_assert!(exact.apart_ns(&loose) <= 3, "{}", exact.apart_ns(&loose));
            // An offset that is off by more than the delays is found out.
            let ticks = if is_scaled { step_ns * 21 / 10 * permille.cast_signed() / 1_000 }
                else { step_ns * 21 / 10 };
            let wrong = exchanges_from_offset(&samples, offset + ticks, scaling);
            let wrong = ClockMap::estimate(&wrong).unwrap();
            let apart = wrong.apart_ns(&loose);
            prop_assert!(apart <= step_ns.unsigned_abs() + 3, "{apart} of {step_ns}");
            let samples_end = samples[samples.len() - 1].after.0;
            let exchanges_end = exchanges[exchanges.len() - 1].host_received.0;
            if samples_end > 5_000_000 && exchanges_end > 5_000_000 {
                prop_assert!(apart + 900_000 >= step_ns.unsigned_abs(), "{apart} of {step_ns}");
            }
        }
    }
}
