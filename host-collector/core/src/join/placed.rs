//! Places a guest's requests on the host's clock.

use super::guest_request::GuestRequest;
use crate::clock::{ClockMap, Unmapped};
use crate::units::{HostNs, VcpuId};
use std::collections::BTreeMap;
use vslice_wire::{ObservedRequest, Request};

/// The clocks of one guest: a map for each vCPU that has one.
#[derive(Debug, Clone, Default)]
pub struct Clocks {
    maps: BTreeMap<VcpuId, ClockMap>,
}

/// A request on the host's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// The request as the guest recorded it.
    pub request: GuestRequest,
    /// Its submission, or when it was queued, by the clock of that vCPU.
    pub start: HostNs,
    /// When an observed request was handed to the disk's driver for the last time, by the clock of that vCPU;
    /// between `start` and `end`.
    pub issued: Option<HostNs>,
    /// Its completion, by the clock of the vCPU that it was completed on; not before `start`.
    pub end: HostNs,
    /// By how many nanoseconds each of these may be off.
    pub bounds: Bounds,
    /// By how many nanoseconds its length may be off. If both ends are by one clock they have the same error,
    /// so this is far less than the bounds.
    pub length_error_ns: u64,
}

/// By how many nanoseconds a request's times on the host's clock may be off, each by the map of the vCPU that
/// stamped it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// Its submission, or when it was queued.
    pub start_ns: u64,
    /// When it was issued; as `start_ns` where that is not told.
    pub issued_ns: u64,
    /// Its completion.
    pub end_ns: u64,
}

impl Bounds {
    /// The same for all of its times.
    #[must_use]
    pub fn all(bound_ns: u64) -> Bounds {
        Bounds { start_ns: bound_ns, issued_ns: bound_ns, end_ns: bound_ns }
    }

    /// That of the time that is known worst.
    #[must_use]
    pub fn worst_ns(&self) -> u64 {
        self.start_ns.max(self.issued_ns).max(self.end_ns)
    }
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

impl Placed {
    /// One of the reader's, drawn by hand.
    #[cfg(test)]
    pub(super) fn of_read(
        request: Request,
        window: std::ops::Range<HostNs>,
        bound_ns: u64,
        length_error_ns: u64,
    ) -> Placed {
        Placed {
            request: GuestRequest::Read(request),
            start: window.start,
            issued: None,
            end: window.end,
            bounds: Bounds::all(bound_ns),
            length_error_ns,
        }
    }

    /// When the guest handed it over: when it was issued, or submitted.
    #[must_use]
    pub fn handed_over(&self) -> HostNs {
        self.issued.unwrap_or(self.start)
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
            request: GuestRequest::Read(request),
            start: from.at,
            issued: None,
            end: to.at.max(from.at),
            bounds: Bounds {
                start_ns: from.bound_ns,
                issued_ns: from.bound_ns,
                end_ns: to.bound_ns,
            },
            length_error_ns,
        })
    }

    /// Places an observed request on the host's clock, each of its times by the clock of the vCPU that
    /// stamped it. Where clocks that are not exactly known put them in another order, the later ones give way.
    ///
    /// # Errors
    /// See [`Unplaced`].
    pub fn place_observed(&self, request: ObservedRequest) -> Result<Placed, Unplaced> {
        let stamps = [
            (request.vcpu_queued, request.queued),
            (request.vcpu_issued, request.issued),
            (request.vcpu_completed, request.completed),
        ];
        let map = |vcpu| self.maps.get(&VcpuId(vcpu)).ok_or(Unplaced::NoClock);
        // What one vCPU stamped on both sides of a step has no length.
        for (one, other) in [(0, 1), (1, 2)] {
            let ((vcpu, from), (other_vcpu, to)) = (stamps[one], stamps[other]);
            if vcpu == other_vcpu {
                map(vcpu)?.length_to_host(from, to)?;
            }
        }
        let (queued, issued, completed) = (stamps[0], stamps[1], stamps[2]);
        let (from, to, length_error_ns) = if queued.0 == completed.0 {
            let length = map(queued.0)?.length_to_host(queued.1, completed.1)?;
            (length.from, length.to, length.error_ns)
        } else {
            let from = map(queued.0)?.to_host(queued.1)?;
            let to = map(completed.0)?.to_host(completed.1)?;
            (from, to, from.bound_ns.saturating_add(to.bound_ns))
        };
        let issue = map(issued.0)?.to_host(issued.1)?;
        let issued = issue.at.max(from.at);
        Ok(Placed {
            request: GuestRequest::Observed(request),
            start: from.at,
            issued: Some(issued),
            end: to.at.max(issued),
            bounds: Bounds {
                start_ns: from.bound_ns,
                issued_ns: issue.bound_ns,
                end_ns: to.bound_ns,
            },
            length_error_ns,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Exchange;
    use vslice_wire::{BlockOperation, GuestTicks, ObservedFlags};

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

    fn observed(stamps: [(u64, u16); 3]) -> ObservedRequest {
        let [queued, issued, completed] = stamps;
        ObservedRequest {
            device: 0,
            operation: BlockOperation::Write,
            flags: ObservedFlags(0),
            sector: 0,
            bytes: 4096,
            queued: GuestTicks(queued.0),
            issued: GuestTicks(issued.0),
            completed: GuestTicks(completed.0),
            vcpu_queued: queued.1,
            vcpu_issued: issued.1,
            vcpu_completed: completed.1,
            task: 0,
            result: 0,
        }
    }

    #[test]
    fn each_time_of_an_observed_request_is_mapped_by_the_vcpu_that_stamped_it() {
        let mut clocks = Clocks::default();
        clocks.insert(VcpuId(0), map(0, 0));
        clocks.insert(VcpuId(1), map(15_700, 0));
        clocks.insert(VcpuId(2), map(300, 0));
        let placed = |stamps| {
            let placed = clocks.place_observed(observed(stamps)).unwrap();
            [placed.start, placed.issued.unwrap(), placed.end].map(|at| (at.0 + 5) / 10 * 10)
        };
        assert_eq!(placed([(2_000, 0), (2_500, 0), (3_500, 0)]), [2_000, 2_500, 3_500]);
        assert_eq!(placed([(2_000, 0), (18_200, 1), (3_800, 2)]), [2_000, 2_500, 3_500]);
        // Out of order the later ones give way.
        assert_eq!(placed([(2_000, 0), (17_200, 1), (3_800, 2)]), [2_000, 2_000, 3_500]);
        assert_eq!(placed([(2_000, 0), (2_500, 0), (2_400, 2)]), [2_000, 2_500, 2_500]);
        let unknown = |place: usize| {
            let mut stamps = [(2_000, 0), (2_500, 0), (3_500, 0)];
            stamps[place].1 = 7;
            clocks.place_observed(observed(stamps))
        };
        assert_eq!([0, 1, 2].map(unknown), [Err(Unplaced::NoClock); 3]);
    }

    #[test]
    fn each_time_of_an_observed_request_has_its_own_bound() {
        let read = |host: u64, off: u64| Exchange {
            host_sent: HostNs(host),
            guest_received: GuestTicks(host + off),
            guest_sent: GuestTicks(host + off),
            host_received: HostNs(host + 2 * off),
        };
        let map_within = |off| ClockMap::estimate(&[read(1_000, off), read(9_000, off)]).unwrap();
        let mut clocks = Clocks::default();
        for (vcpu, off) in [(0, 10), (1, 50), (2, 200)] {
            clocks.insert(VcpuId(vcpu), map_within(off));
        }
        let stamps = [(2_000, 0), (3_000, 1), (5_000, 2)];
        let placed = clocks.place_observed(observed(stamps)).unwrap();
        let [start_ns, issued_ns, end_ns] =
            [(0, 2_000), (1, 3_000), (2, 5_000)].map(|(vcpu, at)| {
                clocks.get(VcpuId(vcpu)).unwrap().to_host(GuestTicks(at)).unwrap().bound_ns
            });
        assert!(start_ns < issued_ns && issued_ns < end_ns);
        assert_eq!(placed.bounds, Bounds { start_ns, issued_ns, end_ns });
        assert_eq!(placed.bounds.worst_ns(), end_ns);
        assert_eq!(placed.length_error_ns, start_ns + end_ns, "two clocks");
    }

    #[test]
    fn what_a_step_hides_of_an_observed_request_is_not_placed() {
        let mut clocks = Clocks::default();
        clocks.insert(VcpuId(0), map(0, 100_000));
        clocks.insert(VcpuId(1), map(0, 0));
        let place = |stamps| clocks.place_observed(observed(stamps)).map(|_| ());
        assert_eq!(place([(2_000, 0), (3_000, 0), (4_000, 0)]), Ok(()));
        // Two of its times by a clock that stepped between them, in each of the three pairs.
        for stamps in [
            [(2_000, 0), (107_000, 0), (8_000, 1)],
            [(2_000, 1), (3_000, 0), (108_000, 0)],
            [(2_000, 0), (3_000, 1), (108_000, 0)],
        ] {
            assert_eq!(place(stamps), Err(Unplaced::ClockStepped), "{stamps:?}");
        }
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
