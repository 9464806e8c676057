//! The exchanges with a guest's vCPUs, in memory that does not grow with the run.

use super::Exchange;
use crate::units::{HostNs, VcpuId};
use std::collections::BTreeMap;

/// Exchanges that are kept at most: some five hours of a guest that is asked ten times a second and whose
/// other vCPUs are visited now and then.
const KEPT_MAX: usize = 1 << 18;

/// The exchanges with one guest, by vCPU, in bounded memory.
///
/// When there are too many, the vCPU with the most gives up half of them: of every two consecutive exchanges
/// the one with the longer round trip, which says less. It thins out later exchanges in the same way. The
/// first and the last always stay. The rest is as true as the whole; a map made from it has a slightly larger
/// bound and knows less well when a clock stepped.
#[derive(Debug)]
pub struct RoundTrips {
    by_vcpu: BTreeMap<VcpuId, OfVcpu>,
    kept_count: usize,
    kept_max: usize,
}

impl Default for RoundTrips {
    fn default() -> RoundTrips {
        RoundTrips::keeping(KEPT_MAX)
    }
}

impl RoundTrips {
    /// None yet; so many are kept at most.
    fn keeping(kept_max: usize) -> RoundTrips {
        RoundTrips { by_vcpu: BTreeMap::new(), kept_count: 0, kept_max }
    }

    /// Takes one more exchange; they come in the order in which they were made.
    pub fn push(&mut self, vcpu: VcpuId, exchange: Exchange) {
        let own = self.by_vcpu.entry(vcpu).or_default();
        self.kept_count += usize::from(own.push(exchange));
        if self.kept_count > self.kept_max {
            let most = self.by_vcpu.values_mut().max_by_key(|own| own.kept.len());
            self.kept_count -= most.map_or(0, OfVcpu::thin);
        }
    }

    /// The exchanges with one vCPU, in the order in which they were made.
    #[must_use]
    pub fn of(&self, vcpu: VcpuId) -> Vec<Exchange> {
        self.by_vcpu.get(&vcpu).map_or_else(Vec::new, |own| own.all().collect())
    }

    /// The exchanges with all vCPUs, grouped by vCPU.
    #[must_use]
    pub fn of_all(&self) -> Vec<Exchange> {
        self.by_vcpu.values().flat_map(OfVcpu::all).collect()
    }

    /// When the last exchange with a vCPU began; 0 if there is none.
    #[must_use]
    pub fn last_sent(&self, vcpu: VcpuId) -> HostNs {
        self.by_vcpu.get(&vcpu).map(OfVcpu::last_sent).unwrap_or_default()
    }

    /// When the last exchange of all vCPUs began; 0 if there is none.
    #[must_use]
    pub fn last_sent_of_all(&self) -> HostNs {
        self.by_vcpu.values().map(OfVcpu::last_sent).max().unwrap_or_default()
    }
}

/// Those with one vCPU.
#[derive(Debug, Default)]
struct OfVcpu {
    /// One of each group, which had the shortest round trip; of the first group it is the first one.
    kept: Vec<Exchange>,
    /// A group has two to the power of this.
    group_bits: u32,
    /// Those of the group that has just been begun: how many, and the shortest.
    begun: Option<(u64, Exchange)>,
    last: Option<Exchange>,
}

impl OfVcpu {
    /// Whether one more is kept.
    fn push(&mut self, exchange: Exchange) -> bool {
        self.last = Some(exchange);
        let (count, shortest) = match self.begun.take() {
            Some((count, shortest)) => (count + 1, shorter(shortest, exchange)),
            None => (1, exchange),
        };
        let is_whole = count >= 1 << self.group_bits;
        if is_whole {
            self.kept.push(shortest);
        } else {
            self.begun = Some((count, shortest));
        }
        is_whole
    }

    /// Makes groups twice as large; returns how many are kept no more.
    fn thin(&mut self) -> usize {
        let before_count = self.kept.len();
        self.group_bits += 1;
        let first = self.kept.first().copied();
        let pairs = self.kept.chunks(2);
        let shortest =
            pairs.filter_map(|pair| pair.iter().copied().reduce(shorter)).collect::<Vec<_>>();
        self.kept = shortest;
        if let (Some(first), Some(place)) = (first, self.kept.first_mut()) {
            *place = first;
        }
        before_count - self.kept.len()
    }

    fn all(&self) -> impl Iterator<Item = Exchange> {
        let begun = self.begun.map(|(_, shortest)| shortest);
        // The last one may be the shortest of its group.
        let last = self.last.filter(|last| {
            begun.as_ref() != Some(last) && (begun.is_some() || self.kept.last() != Some(last))
        });
        self.kept.iter().copied().chain(begun).chain(last)
    }

    fn last_sent(&self) -> HostNs {
        self.last.map(|last| last.host_sent).unwrap_or_default()
    }
}

/// The one with the shorter round trip.
fn shorter(one: Exchange, other: Exchange) -> Exchange {
    let trip_ns = |exchange: &Exchange| exchange.host_received.since_ns(exchange.host_sent);
    if trip_ns(&other) < trip_ns(&one) { other } else { one }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ClockMap;
    use crate::units::GuestTicks;
    use proptest::prelude::*;

    /// The guest's clock is the host's and `off` more.
    fn exchange(sent: u64, there: u64, back: u64, off: u64) -> Exchange {
        Exchange {
            host_sent: HostNs(sent),
            guest_received: GuestTicks(sent + there + off),
            guest_sent: GuestTicks(sent + there + off),
            host_received: HostNs(sent + there + back),
        }
    }

    #[test]
    fn few_exchanges_are_all_kept() {
        let mut trips = RoundTrips::default();
        let made: Vec<Exchange> =
            (0..100).map(|turn| exchange(turn * 1_000, 10 + turn % 7, 10, 0)).collect();
        made.iter().for_each(|exchange| trips.push(VcpuId(0), *exchange));
        assert_eq!(trips.of(VcpuId(0)), made);
        assert_eq!(trips.of_all(), made);
        assert_eq!(trips.of(VcpuId(1)), []);
    }

    #[test]
    fn a_vcpu_that_is_seldom_asked_loses_none_of_its_own() {
        let mut trips = RoundTrips::keeping(100);
        for turn in 0..1_000 {
            trips.push(VcpuId(1), exchange(turn * 1_000, 10 + turn % 2, 10, 0));
            if turn % 100 == 0 {
                trips.push(VcpuId(0), exchange(turn * 1_000 + 500, 10, 10, 0));
            }
        }
        assert_eq!(trips.of(VcpuId(0)).len(), 10);
        let own = trips.of(VcpuId(1));
        assert!((40..=92).contains(&own.len()), "{}", own.len());
        assert_eq!(own[0].host_sent, HostNs(0));
        assert_eq!(trips.last_sent(VcpuId(1)), HostNs(999_000));
        assert_eq!(trips.last_sent_of_all(), HostNs(999_000));
        assert_eq!(trips.of_all().len(), own.len() + 10);
        let slow = own.iter().filter(|one| one.host_received.0 % 1_000 == 21);
        assert_eq!(slow.count(), 1, "only the last one, which always stays");
        let gaps = own.windows(2).map(|pair| pair[1].host_sent.since_ns(pair[0].host_sent));
        assert!(gaps.max() <= Some(32_000), "early ones are as many as late ones");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// What is left bounds the truth, and a step is still seen.
        #[test]
        fn what_is_left_is_true_and_is_not_many(
            delays in prop::collection::vec((1..9_000_u64, 1..9_000_u64), 300..3_000),
            step in prop::option::of(1_000_000..2_000_000_u64),
        ) {
            let stepped_at = delays.len() as u64 / 2;
            let mut trips = RoundTrips::keeping(128);
            let mut last = 0;
            for ((there, back), turn) in delays.iter().zip(0_u64..) {
                let off = step.filter(|_| turn > stepped_at).unwrap_or(0);
                last = turn * 100_000;
                trips.push(VcpuId(0), exchange(last, *there, *back, off));
                prop_assert!(trips.of(VcpuId(0)).len() <= 130);
            }
            let map = ClockMap::estimate(&trips.of(VcpuId(0))).unwrap();
            prop_assert_eq!(map.cuts().is_empty(), step.is_none());
            for time in [10_000, last] {
                let off = step.filter(|_| time == last).unwrap_or(0);
                let mapped = map.to_host(GuestTicks(time + off)).unwrap();
                prop_assert!(mapped.at.0.abs_diff(time) <= mapped.bound_ns, "{:?}", mapped);
            }
        }
    }
}
