//! Places a guest's requests on the host's clock.

use crate::clock::{ClockMap, Unmapped};
use crate::units::{HostNs, VcpuId};
use std::collections::BTreeMap;
use vslice_wire::Request;

/// The clocks of one guest: a map for each vCPU that has one.
#[derive(Debug, Clone, Default)]
pub struct Clocks {
    maps: BTreeMap<VcpuId, ClockMap>,
}

/// A request on the host's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// The request as the guest recorded it.
    pub request: Request,
    /// Its submission, by the clock of the vCPU that it was submitted on.
    pub start: HostNs,
    /// Its completion, by the clock of the vCPU that it was completed on; not before `start`.
    pub end: HostNs,
    /// By how many nanoseconds either end may be off.
    pub bound_ns: u64,
    /// By how many nanoseconds its length may be off. If both ends are by one clock they have the same error,
    /// so this is far less than `bound_ns`.
    pub length_error_ns: u64,
}

/// Why a request cannot be placed on the host's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unplaced {
    /// It was stamped on a vCPU whose clock is unknown.
    NoClock,
    /// A clock stepped, and it is unknown on which side of the step it was stamped, or it was stamped on
    /// both.
    ClockStepped,
    /// It was stamped at a time that the clock may have shown more than once.
    ClockAmbiguous,
}

impl From<Unmapped> for Unplaced {
    fn from(unmapped: Unmapped) -> Self {
        match unmapped {
            Unmapped::BetweenPieces | Unmapped::AcrossCut => Unplaced::ClockStepped,
            Unmapped::Ambiguous => Unplaced::ClockAmbiguous,
        }
    }
}

impl Clocks {
    /// Adds the map of a vCPU.
    pub fn insert(&mut self, vcpu: VcpuId, map: ClockMap) {
        self.maps.insert(vcpu, map);
    }

    /// The map of a vCPU.
    #[must_use]
    pub fn get(&self, vcpu: VcpuId) -> Option<&ClockMap> {
        self.maps.get(&vcpu)
    }

    /// The vCPUs that have a map, each with its map.
    pub fn iter(&self) -> impl Iterator<Item = (VcpuId, &ClockMap)> {
        self.maps.iter().map(|(vcpu, map)| (*vcpu, map))
    }

    /// The two vCPUs whose clocks are furthest apart, and by how many nanoseconds at least; `None` if all of
    /// them may be one clock.
    #[must_use]
    pub fn furthest_apart(&self) -> Option<(VcpuId, VcpuId, u64)> {
        let pairs = self.iter().flat_map(|(one, left)| {
            let others = self.iter().filter(move |(other, _)| *other > one);
            others.map(move |(other, right)| (one, other, left.apart_ns(right)))
        });
        pairs.filter(|(.., apart_ns)| *apart_ns > 0).max_by_key(|(.., apart_ns)| *apart_ns)
    }

    /// Places a request on the host's clock, each end by the clock of the vCPU that stamped it.
    ///
    /// # Errors
    /// See [`Unplaced`].
    pub fn place(&self, request: Request) -> Result<Placed, Unplaced> {
        let map = |vcpu| self.maps.get(&VcpuId(vcpu)).ok_or(Unplaced::NoClock);
        let (submitted_by, completed_by) =
            (map(request.vcpu_submitted)?, map(request.vcpu_completed)?);
        let (from, to, length_error_ns) = if request.vcpu_submitted == request.vcpu_completed {
            let length = submitted_by.length_to_host(request.submitted, request.completed)?;
            (length.from, length.to, length.error_ns)
        } else {
            let from = submitted_by.to_host(request.submitted)?;
            let to = completed_by.to_host(request.completed)?;
            (from, to, from.bound_ns.saturating_add(to.bound_ns))
        };
        Ok(Placed {
            request,
            start: from.at,
            end: to.at.max(from.at),
            bound_ns: from.bound_ns.max(to.bound_ns),
            length_error_ns,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Exchange;
    use vslice_wire::GuestTicks;

    /// A tick is a nanosecond; the guest shows so much more, and more after a step.
    fn map(ahead: u64, stepped: u64) -> ClockMap {
        let read = |host: u64| {
            let guest = GuestTicks(host + ahead + if host > 5_000 { stepped } else { 0 });
            let host = HostNs(host);
            Exchange {
                host_sent: host,
                guest_received: guest,
                guest_sent: guest,
                host_received: host,
            }
        };
        let exchanges: Vec<Exchange> = (1..=10).map(|turn| read(turn * 1_000)).collect();
        ClockMap::estimate(&exchanges).unwrap()
    }

    fn request(submitted: (u64, u16), completed: (u64, u16)) -> Request {
        Request {
            index: 0,
            submitted: GuestTicks(submitted.0),
            completed: GuestTicks(completed.0),
            vcpu_submitted: submitted.1,
            vcpu_completed: completed.1,
            result: 0,
        }
    }

    #[test]
    fn each_end_is_mapped_by_the_vcpu_that_stamped_it() {
        let mut clocks = Clocks::default();
        clocks.insert(VcpuId(0), map(0, 0));
        clocks.insert(VcpuId(1), map(15_700, 0));
        let placed = clocks.place(request((2_000, 0), (3_500, 0))).unwrap();
        assert!(placed.start.0.abs_diff(2_000) <= 2 && placed.end.0.abs_diff(3_500) <= 2);
        assert!(placed.length_error_ns <= 4, "{placed:?}");
        let moved = clocks.place(request((2_000, 0), (3_500 + 15_700, 1))).unwrap();
        assert!(moved.start.0.abs_diff(2_000) <= 2 && moved.end.0.abs_diff(3_500) <= 2);
        let unknown = [request((2_000, 7), (3_500, 0)), request((2_000, 0), (3_500, 7))];
        assert_eq!(unknown.map(|request| clocks.place(request)), [Err(Unplaced::NoClock); 2]);
        let (one, other, apart_ns) = clocks.furthest_apart().unwrap();
        assert_eq!((one, other), (VcpuId(0), VcpuId(1)));
        assert!((15_690..=15_700).contains(&apart_ns), "{apart_ns}");
        clocks.insert(VcpuId(1), map(0, 0));
        assert_eq!(clocks.furthest_apart(), None);
    }

    #[test]
    fn what_a_step_hides_is_not_placed() {
        let mut clocks = Clocks::default();
        clocks.insert(VcpuId(0), map(0, 100_000));
        let place = |from, to| clocks.place(request((from, 0), (to, 0)));
        assert!(place(2_000, 4_000).is_ok() && place(107_000, 108_000).is_ok());
        assert_eq!(place(2_000, 107_000), Err(Unplaced::ClockStepped));
        assert_eq!(place(2_000, 5_500), Err(Unplaced::ClockStepped));
        assert_eq!(place(50_000, 107_000), Err(Unplaced::ClockStepped));
        clocks.insert(VcpuId(0), {
            let read = |host: u64, guest: u64| {
                let (host, guest) = (HostNs(host), GuestTicks(guest));
                Exchange {
                    host_sent: host,
                    guest_received: guest,
                    guest_sent: guest,
                    host_received: host,
                }
            };
            let before = [1_000, 2_000, 3_000].map(|at| read(at, at));
            let after = [4_000, 5_000, 6_000].map(|at| read(at, at - 2_000));
            ClockMap::estimate(&[before, after].concat()).unwrap()
        });
        let place = |from, to| clocks.place(request((from, 0), (to, 0)));
        assert_eq!(place(2_500, 2_700), Err(Unplaced::ClockAmbiguous));
    }
}
