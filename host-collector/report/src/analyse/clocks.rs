//! The clocks of one guest, from the exchanges that were stored.

use super::tsc_offset_check::TscOffsetChecker;
use crate::summary::clock::{ClockMethod, ClocksApart, KvmCheck, VcpuClock};
use vslice_core::clock::tsc::TscSample;
use vslice_core::clock::{ClockError, ClockMap, Exchange, Outermost, RoundTrips};
use vslice_core::join::Clocks;
use vslice_core::units::{HostNs, VcpuId};
use vslice_trace::manifest::{GuestClock, VcpuTsc, VmRecord};

/// A vCPU whose last exchange came so long before that of another was not read again after the run.
const CLOSED_WITHIN_NS: u64 = 1_000_000_000;

/// So many changes of an offset are not somebody who writes to the TSC.
const RESTLESS_COUNT: usize = 10;

/// What the exchanges with one guest come to.
#[derive(Debug, Default)]
pub(super) struct GuestClocks {
    /// The maps.
    pub(super) clocks: Clocks,
    /// What the summary says of each.
    pub(super) rows: Vec<VcpuClock>,
    /// What KVM says of some of them, and the place of each among the rows.
    pub(super) tsc_offset_checks: Vec<(usize, TscOffsetChecker)>,
    /// The two that are furthest apart, if any two cannot be one clock.
    pub(super) apart: Option<ClocksApart>,
    /// What there is to say of them.
    pub(super) notices: Vec<String>,
}

impl GuestClocks {
    /// Makes the map of one vCPU, whose place among the rows is `place`, from a hog's timeslices as well. Not
    /// where it rests on more than the vCPU's own round trips, or where no one line fits all: then one of
    /// them is wrong, and that is for the checks to say.
    pub(super) fn narrow(
        &mut self,
        place: usize,
        vcpu: VcpuId,
        trips: &RoundTrips,
        timeslices: &Outermost,
    ) {
        if timeslices.count() == 0 || !self.may_narrow(place, vcpu, trips) {
            return;
        }
        if let Ok(map) = ClockMap::estimate(&[&trips.of(vcpu), timeslices.exchanges()].concat())
            && map.cuts().is_empty()
        {
            let row = &mut self.rows[place];
            (row.bound_ns, row.stays) = (map.bound_ns(), timeslices.count());
            self.clocks.insert(vcpu, map);
        }
    }

    /// Whether [`GuestClocks::narrow`] makes anything of a hog's timeslices.
    pub(super) fn may_narrow(&self, place: usize, vcpu: VcpuId, trips: &RoundTrips) -> bool {
        let (Some(map), Some(row)) = (self.clocks.get(vcpu), self.rows.get(place)) else {
            return false;
        };
        let is_own = || map.exchange_count() == trips.of(vcpu).len();
        row.method == ClockMethod::Exchange && map.cuts().is_empty() && is_own()
    }
}

/// The clocks of a guest's vCPUs, as far as there are exchanges with them. Those that a guest says
/// it has beyond the VMM's are passed over. `host_tsc` are readings of the host's own TSC; `start` is
/// that of the measured window.
pub(super) fn read(
    vm: &VmRecord,
    trips: &RoundTrips,
    host_tsc: &[TscSample],
    start: HostNs,
) -> GuestClocks {
    let mut all = GuestClocks::default();
    let mut vcpus: Vec<VcpuId> = vm.threads.iter().filter_map(|thread| thread.vcpu).collect();
    vcpus.sort_unstable();
    vcpus.dedup();
    for vcpu in vcpus {
        let is_reader = vm.reader_vcpu == Some(vcpu);
        let own = trips.of(vcpu);
        let map = match ClockMap::estimate(&own) {
            map if !is_reader => map,
            map => closed(vm, vcpu, map, trips, &mut all.notices),
        };
        match map {
            Ok(map) => {
                let exchanges = map.exchange_count() as u64;
                let told = told_by_kvm(vm, vcpu, host_tsc);
                let thread = vm.threads.iter().find(|thread| thread.vcpu == Some(vcpu));
                let checker = thread.map(|thread| TscOffsetChecker::new(thread.tid, &map, &told));
                all.tsc_offset_checks.extend(checker.map(|checker| (all.rows.len(), checker)));
                let ptp_check = told_to_guest(vm, vcpu, &map);
                let exact = exact(&map, &own, &told);
                let method =
                    exact.as_ref().map_or(ClockMethod::Exchange, |_| ClockMethod::TscOffset);
                let map = exact.unwrap_or(map);
                let row = VcpuClock::of(&vm.name, vcpu, &map, start);
                all.rows.push(VcpuClock { method, exchanges, ptp_check, ..row });
                all.clocks.insert(vcpu, map);
            }
            Err(error) if is_reader => all.notices.push(format!(
                "{} {vcpu} has no clock map, so its requests are left out: {error}",
                vm.name
            )),
            Err(_) => {}
        }
    }
    all.notices.extend(restless(vm));
    all.apart = all.clocks.furthest_apart().map(|(vcpu, other_vcpu, apart_ns)| ClocksApart {
        vm: vm.name.clone(),
        vcpu,
        other_vcpu,
        apart_ns,
    });
    all
}

/// What the vCPU's TSC read by what KVM says, each time that the host's was read and KVM said the same
/// before and after. Nothing of a guest that stamps with another clock.
fn told_by_kvm(vm: &VmRecord, vcpu: VcpuId, host_tsc: &[TscSample]) -> Vec<Exchange> {
    let clock = vm.guest.as_ref().and_then(|guest| guest.clock);
    let own = vm.tsc.vcpus.iter().find(|own| own.vcpu == vcpu && clock == Some(GuestClock::Tsc));
    let readings = own.map_or(&[][..], |own| &own.readings);
    let exchange = |sample: &TscSample| {
        let reading = readings
            .iter()
            .find(|reading| reading.from <= sample.before && sample.after <= reading.until)?;
        Some(reading.relation.exchange(sample))
    };
    host_tsc.iter().filter_map(exchange).collect()
}

/// What KVM told the guest on this vCPU of the host's clock, held against the map of its round trips.
fn told_to_guest(vm: &VmRecord, vcpu: VcpuId, map: &ClockMap) -> KvmCheck {
    let told = vm.guest.iter().flat_map(|guest| &guest.host_times);
    let own = told.filter(|time| time.vcpu == vcpu);
    let beyond = own.filter_map(|time| map.beyond_ns(&time.exchange()).ok());
    beyond.fold(KvmCheck::default(), KvmCheck::with)
}

/// That KVM wrote new offsets all the time. A TSC that is written to once is a step, which the map
/// shows; this one stands while its vCPU waits and catches up when it runs, so that it is no line.
fn restless(vm: &VmRecord) -> Option<String> {
    let changes_of = |vcpu: &VcpuTsc| {
        let pairs = vcpu.readings.windows(2);
        pairs.filter(|pair| pair[0].relation != pair[1].relation).count()
    };
    let most = vm.tsc.vcpus.iter().max_by_key(|vcpu| changes_of(vcpu))?;
    let changes = changes_of(most);
    (changes >= RESTLESS_COUNT).then(|| {
        format!(
            "{}: KVM changed the offset of {}'s TSC at least {changes} times, as it does on a host \
             whose TSC is not stable: its clock may at times be off by more than the round trips show",
            vm.name, most.vcpu
        )
    })
}

/// The map of all that is known, much the more exact one; if one line fits all of it. Where a host's
/// TSC is not stable KVM writes a new offset each time that a vCPU comes onto a pCPU
/// (`kvm_arch_vcpu_load`), and none does.
fn exact(by_exchange: &ClockMap, own: &[Exchange], told: &[Exchange]) -> Option<ClockMap> {
    if told.len() < 2 || !by_exchange.cuts().is_empty() {
        return None;
    }
    let map = ClockMap::estimate(&[own, told].concat()).ok()?;
    map.cuts().is_empty().then_some(map)
}

/// The map of the vCPU that reads. Of a guest that went away before its clock map was closed there
/// are no exchanges on it after its last request: then those on its other vCPUs, which went on
/// during the run, must do, if all of them fit one clock.
fn closed(
    vm: &VmRecord,
    vcpu: VcpuId,
    own: Result<ClockMap, ClockError>,
    trips: &RoundTrips,
    notices: &mut Vec<String>,
) -> Result<ClockMap, ClockError> {
    let open_ns = trips.last_sent_of_all().since_ns(trips.last_sent(vcpu));
    if own.is_ok() && open_ns <= CLOSED_WITHIN_NS {
        return own;
    }
    let of_all = ClockMap::estimate(&trips.of_all());
    match of_all {
        Ok(map) if open_ns > 0 && map.cuts().is_empty() => {
            notices.push(format!(
                "{}: its clock was not read again on {vcpu} after the run, so its clock map rests on all \
                 of its vCPUs and assumes that they share one clock",
                vm.name
            ));
            Ok(map)
        }
        _ => own,
    }
}

#[cfg(test)]
mod tests {
    use super::super::drawn::{clock_sample, host_at, manifest};
    use super::*;
    use vslice_core::clock::tsc::TscRelation;
    use vslice_trace::ClockSample;
    use vslice_trace::manifest::TscReading;

    /// The reader is vCPU1.
    fn read_samples(samples: &[ClockSample]) -> GuestClocks {
        let mut vm = manifest().vms.remove(0);
        let mut vcpu0 = vm.threads[1].clone();
        vcpu0.vcpu = Some(VcpuId(0));
        vm.threads.push(vcpu0);
        let mut trips = RoundTrips::default();
        samples.iter().for_each(|sample| trips.push(sample.vcpu, sample.exchange));
        read(&vm, &trips, &[], host_at(0))
    }

    #[test]
    fn a_clock_that_was_not_read_again_rests_on_the_others_if_they_are_one() {
        let stale = [clock_sample(1, 0, 0), clock_sample(1, 100, 100)];
        let others = |last_us, ahead_us| {
            [500, 600_000, last_us].map(|us| clock_sample(0, us, us + ahead_us))
        };
        let of = |last_us, ahead_us| {
            let clocks = read_samples(&[&stale[..], &others(last_us, ahead_us)].concat());
            let reader = clocks.rows.iter().find(|row| row.vcpu == VcpuId(1)).unwrap().clone();
            (reader.exchanges, clocks.notices.len(), clocks.apart.is_some())
        };
        assert_eq!(of(2_000_000, 0), (5, 1, false), "it rests on all of them");
        assert_eq!(of(1_000_000, 0), (2, 0, false), "it was read a second before");
        assert_eq!(of(2_000_000, 15_700), (2, 0, true), "they are not one clock");
    }

    #[test]
    fn an_offset_that_never_rests_is_said_and_a_step_is_not() {
        let notice = |changes_count: u64| {
            let mut vm = manifest().vms.remove(0);
            let reading = |turn: u64| TscReading {
                from: host_at(turn),
                until: host_at(turn),
                relation: TscRelation { offset_ticks: turn.cast_signed(), scaling: None },
            };
            let readings = (0..=changes_count).map(reading).collect();
            vm.tsc.vcpus = vec![VcpuTsc { vcpu: VcpuId(1), readings }];
            restless(&vm)
        };
        assert_eq!((notice(0), notice(9)), (None, None));
        assert!(notice(10).unwrap().contains("vCPU1's TSC at least 10 times"));
    }

    #[test]
    fn a_vcpu_without_a_map_is_said_only_if_it_reads() {
        let clocks = read_samples(&[clock_sample(0, 500, 500)]);
        assert!(clocks.rows.is_empty() && clocks.clocks.iter().next().is_none());
        assert_eq!(clocks.notices.len(), 1);
        assert!(clocks.notices[0].contains("vm1 vCPU1 has no clock map"), "{:?}", clocks.notices);
    }
}
