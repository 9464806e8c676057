//! How guest times became host times, and what contradicts that.

use serde::{Deserialize, Serialize};
use vslice_core::clock::{ClockMap, Cut};
use vslice_core::join::{Breakdown, IoCheck};
use vslice_core::units::{HostNs, VcpuId};

/// Entries of [`VcpuClock::cuts`] at most, the first ones.
pub const CUTS_MAX: usize = 16;

/// How guest times became host times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// The method: the least precise of those that placed requests.
    pub method: ClockMethod,
    /// The ends of each recorded request are accurate to within this many nanoseconds; `None` if there was no
    /// request.
    pub bound_ns: Option<u64>,
    /// Whether the requests' I/O on the host lies within the requests.
    pub check: ClockCheck,
    /// The map of each vCPU.
    pub vcpus: Vec<VcpuClock>,
    /// Guests of which two vCPUs cannot have the same clock.
    pub apart: Vec<ClocksApart>,
}

/// How guest times are turned into host times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockMethod {
    /// Round trips between the collector and the guest.
    Exchange,
    /// KVM's offset from the host's TSC, and round trips.
    TscOffset,
}

/// A check that can fail: no I/O is handed to the host's block layer before the guest submitted its
/// request, and none is done after the guest saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClockCheck {
    /// How many requests had I/O that could contradict the clock.
    pub requests: u64,
    /// How many of them had I/O outside the request by more than the clock error.
    pub violations: u64,
    /// By how many nanoseconds more at worst.
    pub worst_ns: u64,
    /// How many further requests must have had I/O, none of which was seen near them.
    pub unseen: u64,
}

/// The clock map of one vCPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuClock {
    /// The VM's name.
    pub vm: String,
    /// The vCPU.
    pub vcpu: VcpuId,
    /// What the map was made from.
    pub method: ClockMethod,
    /// How many round trips the map was made from.
    pub exchanges: u64,
    /// Stays of the vCPU's hog on its pCPU among that: each bounds the clock as a round trip does.
    pub stays: u64,
    /// What KVM says of the vCPU's TSC, held against the round trips.
    pub kvm_check: KvmCheck,
    /// What the times say that KVM told the guest of the host's clock.
    pub ptp_check: KvmCheck,
    /// What its hog says of the map.
    pub hog_check: HogCheck,
    /// How many requests were submitted on it and could be placed on the host's clock.
    pub requests: u64,
    /// How many observed requests have a time by it and could be placed on the host's clock.
    #[serde(default)]
    pub observed: u64,
    /// The map's largest error bound in the measured window, in nanoseconds.
    pub bound_ns: u64,
    /// How often the clock stepped or changed its rate.
    pub cut_count: u64,
    /// The first [`CUTS_MAX`] of these, in order of time.
    pub cuts: Vec<ClockCut>,
}

/// Another check that can fail: what KVM says, to the host of a vCPU's TSC or to the guest of the
/// host's clock, is within the bounds of the map that round trips alone make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KvmCheck {
    /// Times at which KVM was asked, and the map has a host time for.
    pub readings: u64,
    /// Those at which it is not.
    pub violations: u64,
    /// By how much it is not, at worst.
    pub worst_ns: u64,
}

/// A third check that can fail: a hog does not look at its clock while the host has its vCPU off the
/// pCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HogCheck {
    /// Times that a vCPU was off its pCPU for so long that its hog must have missed them.
    pub absences: u64,
    /// Those in which the hog looked at its clock nevertheless, by more than the map may be off.
    pub violations: u64,
    /// By how many nanoseconds more at worst.
    pub worst_ns: u64,
}

/// A step of a vCPU's clock, or a change of its rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockCut {
    /// The step was no earlier than this, in nanoseconds since the start of the measured window; negative if
    /// before it ...
    pub after_ns: i64,
    /// ... and no later than this.
    pub before_ns: i64,
    /// The size of the step in nanoseconds, at least; 0 if only the rate may have changed.
    pub step_ns: u64,
}

/// The two vCPUs of a guest whose clocks differ most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClocksApart {
    /// The VM's name.
    pub vm: String,
    /// One of them.
    pub vcpu: VcpuId,
    /// The other.
    pub other_vcpu: VcpuId,
    /// How far apart they are, in nanoseconds, at least.
    pub apart_ns: u64,
}

impl ClockMethod {
    /// That of the maps by which requests were placed: the poorest of them.
    #[must_use]
    pub fn of(vcpus: &[VcpuClock]) -> ClockMethod {
        let used = || vcpus.iter().filter(|vcpu| vcpu.requests > 0 || vcpu.observed > 0);
        if used().count() > 0 && used().all(|vcpu| vcpu.method == ClockMethod::TscOffset) {
            ClockMethod::TscOffset
        } else {
            ClockMethod::Exchange
        }
    }
}

impl Clock {
    /// What KVM says of all vCPUs.
    #[must_use]
    pub fn kvm_check(&self) -> KvmCheck {
        self.vcpus.iter().map(|vcpu| vcpu.kvm_check).fold(KvmCheck::default(), KvmCheck::and)
    }

    /// What KVM told all guests.
    #[must_use]
    pub fn ptp_check(&self) -> KvmCheck {
        self.vcpus.iter().map(|vcpu| vcpu.ptp_check).fold(KvmCheck::default(), KvmCheck::and)
    }

    /// What the hogs of all vCPUs say.
    #[must_use]
    pub fn hog_check(&self) -> HogCheck {
        let checks = self.vcpus.iter().map(|vcpu| vcpu.hog_check);
        checks.fold(HogCheck::default(), |sum, check| HogCheck {
            absences: sum.absences + check.absences,
            violations: sum.violations + check.violations,
            worst_ns: sum.worst_ns.max(check.worst_ns),
        })
    }
}

impl KvmCheck {
    /// Both together.
    #[must_use]
    pub fn and(self, other: KvmCheck) -> KvmCheck {
        KvmCheck {
            readings: self.readings + other.readings,
            violations: self.violations + other.violations,
            worst_ns: self.worst_ns.max(other.worst_ns),
        }
    }

    /// With one more reading, which lies so far beyond the map.
    #[must_use]
    pub fn with(self, beyond_ns: u64) -> KvmCheck {
        let violations = u64::from(beyond_ns > 0);
        self.and(KvmCheck { readings: 1, violations, worst_ns: beyond_ns })
    }
}

impl VcpuClock {
    /// What is told of a map, in a window that starts at `start`; without requests.
    #[must_use]
    pub fn of(vm: &str, vcpu: VcpuId, map: &ClockMap, start: HostNs) -> VcpuClock {
        let cuts = map.cuts().iter().take(CUTS_MAX);
        VcpuClock {
            vm: vm.to_owned(),
            vcpu,
            method: ClockMethod::Exchange,
            exchanges: map.exchange_count() as u64,
            stays: 0,
            kvm_check: KvmCheck::default(),
            ptp_check: KvmCheck::default(),
            hog_check: HogCheck::default(),
            requests: 0,
            observed: 0,
            bound_ns: map.bound_ns(),
            cut_count: map.cuts().len() as u64,
            cuts: cuts.map(|cut| ClockCut::of(cut, start)).collect(),
        }
    }

    /// The largest of the steps that are kept.
    #[must_use]
    pub fn step_max_ns(&self) -> u64 {
        self.cuts.iter().map(|cut| cut.step_ns).max().unwrap_or(0)
    }
}

impl ClockCut {
    fn of(cut: &Cut, start: HostNs) -> ClockCut {
        ClockCut {
            after_ns: offset_ns(cut.after, start),
            before_ns: offset_ns(cut.before, start),
            step_ns: cut.step_ns,
        }
    }
}

/// From `start` to `time`, negative if `time` is earlier, cut to what an `i64` holds.
pub(super) fn offset_ns(time: HostNs, start: HostNs) -> i64 {
    let offset_ns = i128::from(time.0) - i128::from(start.0);
    i64::try_from(offset_ns).unwrap_or(if offset_ns < 0 { i64::MIN } else { i64::MAX })
}

/// What the requests say of the clock.
#[derive(Debug, Default)]
pub(super) struct ClockTally {
    pub(super) bound_ns: Option<u64>,
    pub(super) check: ClockCheck,
}

impl ClockTally {
    pub(super) fn add(&mut self, breakdown: &Breakdown) {
        self.bound_ns = self.bound_ns.max(Some(breakdown.bounds.worst_ns()));
        let check = &mut self.check;
        match breakdown.io_check {
            IoCheck::Unchecked => {}
            IoCheck::Unseen => check.unseen += 1,
            IoCheck::Within => check.requests += 1,
            IoCheck::Beyond { excess_ns } => {
                check.requests += 1;
                check.violations += 1;
                check.worst_ns = check.worst_ns.max(excess_ns);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_core::clock::Exchange;
    use vslice_core::units::GuestTicks;

    #[test]
    fn cuts_are_told_relative_to_the_window_and_not_all_of_them() {
        // Set on by 1 ms between every two pairs of readings.
        let read = |turn: u64| Exchange {
            host_sent: HostNs(turn * 1_000),
            guest_received: GuestTicks(turn * 1_000 + turn / 4 * 1_000_000),
            guest_sent: GuestTicks(turn * 1_000 + turn / 4 * 1_000_000),
            host_received: HostNs(turn * 1_000 + 10),
        };
        let exchanges: Vec<Exchange> = (0..80).map(read).collect();
        let map = ClockMap::estimate(&exchanges).unwrap();
        let clock = VcpuClock::of("vm1", VcpuId(3), &map, HostNs(10_000));
        assert_eq!((clock.cut_count, clock.cuts.len(), clock.exchanges), (19, CUTS_MAX, 80));
        assert_eq!((clock.cuts[0].after_ns, clock.cuts[0].before_ns), (-7_000, -5_990));
        assert_eq!((clock.cuts[3].after_ns, clock.cuts[3].before_ns), (5_000, 6_010));
        assert!(clock.step_max_ns() >= 900_000, "{}", clock.step_max_ns());
        assert_eq!(offset_ns(HostNs(u64::MAX), HostNs(0)), i64::MAX);
        assert_eq!(offset_ns(HostNs(0), HostNs(u64::MAX)), i64::MIN);
    }
}
