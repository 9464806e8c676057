//! What the hogs of one guest say of its clocks: whether they are right, and how much better they can be known.

mod absences;
mod checker;
mod gaps;
mod stored;
mod timeslices;

use self::absences::Absences;
use self::checker::HogChecker;
use self::gaps::Gaps;
use self::stored::{GapsOfHog, StoredGaps};
use super::clocks::GuestClocks;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use vslice_core::clock::RoundTrips;
use vslice_core::host_event::HostEvent;
use vslice_core::units::{Tid, VcpuId};
use vslice_spec::workload::HOG_GAP_US;
use vslice_trace::manifest::VmRecord;
use vslice_trace::{RunDir, StoreError, VmName};

/// The hogs of one guest on vCPUs that have a clock.
pub(super) struct HogChecks {
    gaps: Rc<RefCell<StoredGaps>>,
    absences: Absences,
    by_thread: BTreeMap<Tid, Hog>,
}

/// A hog, and which clock it says something of.
struct Hog {
    vcpu: VcpuId,
    /// The place of its vCPU's clock among the guest's.
    row: usize,
    checker: HogChecker,
}

impl HogChecks {
    /// Those of the guest with this name; `None` if none of its hogs told anything.
    ///
    /// # Errors
    /// When what they told cannot be read.
    pub(super) fn open(
        run: &RunDir,
        name: &VmName,
        vm: &VmRecord,
        clocks: &GuestClocks,
    ) -> Result<Option<HogChecks>, StoreError> {
        let vcpus: BTreeSet<VcpuId> = vm.hogs.iter().copied().collect();
        let Some(gaps) = StoredGaps::open(run, name, &vcpus)? else { return Ok(None) };
        let gaps = Rc::new(RefCell::new(gaps));
        let hog = |(row, vcpu): (usize, VcpuId)| {
            let thread = vm.threads.iter().find(|thread| thread.vcpu == Some(vcpu))?;
            let map = clocks.clocks.get(vcpu)?.clone();
            let told = Gaps::new(GapsOfHog::new(&gaps, vcpu), map);
            let checker = HogChecker::new(told, u64::from(HOG_GAP_US) * 1_000);
            Some((thread.tid, Hog { vcpu, row, checker }))
        };
        let rows = clocks.rows.iter().map(|row| row.vcpu).enumerate();
        let with_hog = rows.filter(|(_, vcpu)| vcpus.contains(vcpu));
        let by_thread: BTreeMap<Tid, Hog> = with_hog.filter_map(hog).collect();
        let absences = Absences::of(by_thread.keys().copied());
        Ok((!by_thread.is_empty()).then_some(HogChecks { gaps, absences, by_thread }))
    }

    /// Whether a clock of the guest may become better known by what they say.
    pub(super) fn may_narrow(&self, clocks: &GuestClocks, trips: &RoundTrips) -> bool {
        self.by_thread.values().any(|hog| clocks.may_narrow(hog.row, hog.vcpu, trips))
    }

    /// Takes the next event of the host, in order of time.
    pub(super) fn push(&mut self, event: &HostEvent) {
        let Some((came, absence)) = self.absences.push(event) else { return };
        for (tid, hog) in &mut self.by_thread {
            if *tid == came {
                hog.checker.push(absence);
            } else {
                // What they told comes in one stream, and waits for whoever is behind.
                let since = self.absences.since(*tid).unwrap_or(event.time);
                hog.checker.read_on(since, event.time);
            }
        }
    }

    /// Says of each clock what there is to say.
    ///
    /// # Errors
    /// When the end of what they told could not be read.
    pub(super) fn conclude(
        self,
        clocks: &mut GuestClocks,
        trips: &RoundTrips,
    ) -> Result<(), StoreError> {
        for Hog { vcpu, row, checker } in self.by_thread.into_values() {
            clocks.rows[row].hog_check = checker.check;
            clocks.narrow(row, vcpu, trips, &checker.timeslices.exchanges);
        }
        let error = self.gaps.borrow_mut().take_error();
        error.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::super::clocks;
    use super::super::drawn::{clock_sample, guest_at, host_at, manifest, run_dir, stream};
    use super::*;
    use vslice_core::host_event::{HostEventKind, PrevState, Switch};
    use vslice_core::units::PcpuId;
    use vslice_trace::HogGapItem;

    /// The thread of vm1's vCPU0.
    const VCPU0: Tid = Tid(150);
    /// That of its vCPU1.
    const VCPU1: Tid = super::super::drawn::VM1_VCPU1;

    /// vm1 with hogs on both vCPUs, and so many milliseconds of it: in each of them the guest takes vCPU0 from
    /// its hog many times, of which the host knows nothing, and the host takes vCPU1 away once.
    fn absences_of_vcpu1(count_ms: u64) -> u64 {
        let mut manifest = manifest();
        let vm = &mut manifest.vms[0];
        let vcpu0 = vm.threads[1].clone();
        vm.threads.push(vslice_trace::thread::ThreadRecord {
            tid: VCPU0,
            vcpu: Some(VcpuId(0)),
            ..vcpu0
        });
        vm.hogs = vec![VcpuId(0), VcpuId(1)];
        let (_scratch, run) = run_dir(&manifest);
        let name = VmName::try_from("vm1").unwrap();
        let gap = |vcpu, start_us, end_us| {
            let (start, end) = (guest_at(start_us), guest_at(end_us));
            HogGapItem { vcpu: VcpuId(vcpu), start, end }
        };
        let gaps = (0..count_ms).flat_map(|ms| {
            let of_0 = (0..200).map(move |turn| gap(0, ms * 1_000 + turn, ms * 1_000 + turn + 1));
            of_0.chain([gap(1, ms * 1_000 + 399, ms * 1_000 + 701)])
        });
        stream(&run.hog_gaps_path(&name), gaps.collect(), true);
        let mut trips = RoundTrips::default();
        for vcpu in [0, 1] {
            for us in [0, count_ms * 1_000] {
                let sample = clock_sample(vcpu, us, us);
                trips.push(sample.vcpu, sample.exchange);
            }
        }
        let mut clocks = clocks::read(&manifest.vms[0], &trips, &[], host_at(0));
        let hogs = HogChecks::open(&run, &name, &manifest.vms[0], &clocks).unwrap();
        let mut hogs = hogs.expect("they told something");
        for ms in 0..count_ms {
            for (us, prev, next) in [(400, VCPU1, Tid(9)), (700, Tid(9), VCPU1)] {
                let switch = Switch::new(prev, PrevState::RunnablePreempted, next);
                let kind = HostEventKind::Switch(Switch { next_priority: Some(120), ..switch });
                hogs.push(&HostEvent { time: host_at(ms * 1_000 + us), pcpu: PcpuId(1), kind });
            }
        }
        hogs.conclude(&mut clocks, &trips).unwrap();
        let check = clocks.rows.iter().find(|row| row.vcpu == VcpuId(1)).unwrap().hog_check;
        assert_eq!(check.violations, 0, "{check:?}");
        check.absences
    }

    #[test]
    fn a_hog_that_the_host_lets_run_does_not_stand_in_the_way_of_another() {
        // Twice as many gaps of vCPU0 as are kept for it. The first and the last of vCPU1 surround the others.
        assert_eq!(absences_of_vcpu1(700), 698);
    }
}
