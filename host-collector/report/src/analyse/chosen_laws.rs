//! The parts of any run add up to it.

use super::any_run_tests::{any_manifest, event, exchange, follow_each_other, request, store};
use super::chosen::Asked;
use super::drawn::{host_at, run_dir, stream};
use super::observer::{Observer, Run, RunEnd};
use super::{SummaryObserver, analyse, analyse_chosen, any_observed};
use crate::summary::selection::LeftOut;
use crate::summary::{OffReason, Summary, VmIndex, laws};
use proptest::prelude::*;
use std::collections::BTreeMap;
use vslice_core::join::{Breakdown, GuestRequest, Unplaced};
use vslice_core::units::Tid;
use vslice_trace::manifest::Window;
use vslice_trace::{RunDir, VmName};

/// The requests that are told, and of how many it is told that they are elsewhere.
#[derive(Default)]
struct Told {
    requests: Vec<String>,
    unplaced: u64,
    left_out: LeftOut,
}

impl Observer for Told {
    fn request(&mut self, vm: VmIndex, breakdown: &Breakdown) {
        self.requests.push(format!("{vm:?} {breakdown:?}"));
    }

    fn unplaced_request(&mut self, _vm: VmIndex, _request: &GuestRequest, _why: Unplaced) {
        self.unplaced += 1;
    }

    fn end(&mut self, _run: &Run<'_>, end: &RunEnd<'_>) {
        self.left_out = end.left_out;
    }
}

impl Told {
    /// However many were told or left out.
    fn count(&self) -> u64 {
        let LeftOut { reader, observed, .. } = self.left_out;
        self.requests.len() as u64 + self.unplaced + reader.total() + observed.total()
    }
}

fn told_of(run: &RunDir, asked: &Asked) -> (Told, Summary) {
    let (mut told, mut summary) = (Told::default(), SummaryObserver::default());
    analyse_chosen(run.path(), asked, &mut [&mut told, &mut summary]).unwrap();
    told.requests.sort_unstable();
    (told, summary.into_summary().unwrap())
}

/// What the threads of vCPUs did, in nanoseconds, and how often what has one instant.
#[derive(Debug, Default, PartialEq)]
struct Sums {
    on_pcpu_ns: BTreeMap<Tid, u64>,
    off_ns: BTreeMap<(Tid, OffReason), u64>,
    lock_waits: u64,
    exits: u64,
    wakes: u64,
}

impl Sums {
    fn add(&mut self, summary: &Summary) {
        for row in &summary.vcpus {
            *self.on_pcpu_ns.entry(row.tid).or_default() += row.on_pcpu_ns;
            for of in &row.off_cpu {
                *self.off_ns.entry((row.tid, of.reason)).or_default() += of.total_ns;
            }
        }
        self.lock_waits += summary.lock_waits.iter().map(|row| row.count).sum::<u64>();
        self.exits += summary.exits.iter().map(|row| row.count).sum::<u64>();
        let wakes = summary.facts.service.iter().map(|row| row.woken_by_vcpus + row.woke_vcpus);
        self.wakes += wakes.sum::<u64>();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_stretches_of_a_run_add_up_to_it_and_each_request_is_in_one_of_them_as_it_is(
        manifest in any_manifest(),
        length_us in 2..1_500_u64,
        cuts_us in prop::collection::btree_set(1..1_500_u64, 1..4),
        mut events in prop::collection::vec(event(), 0..120),
        requests in prop::collection::vec(request(), 0..24),
        exchanges in prop::collection::vec(exchange(), 2..12),
        observed in prop::collection::vec(any_observed::item(), 0..12),
        slower_than_ns in 0..400_000_u64,
    ) {
        let mut manifest = manifest;
        manifest.window =
            Some(Window { start_ns: host_at(0), end_ns: Some(host_at(length_us)) });
        let (_scratch, run) = run_dir(&manifest);
        events.sort_by_key(|event| event.time);
        follow_each_other(&mut events);
        store(&run, &events, requests);
        let vm1 = VmName::try_from("vm1").unwrap();
        stream(&run.clock_path(&vm1), exchanges, true);
        stream(&run.observed_path(&vm1), observed, true);

        let (whole, summary) = told_of(&run, &Asked::default());
        let mut sums = Sums::default();
        sums.add(&summary);
        let mut edges: Vec<u64> = cuts_us.into_iter().filter(|us| *us < length_us).collect();
        edges.insert(0, 0);
        edges.push(length_us);
        let (mut requests, mut of_parts) = (Vec::new(), Sums::default());
        for edge in edges.windows(2) {
            let (since_ns, until_ns) = (Some(edge[0] * 1_000), Some(edge[1] * 1_000));
            let asked = Asked { since_ns, until_ns, ..Asked::default() };
            let (told, part) = told_of(&run, &asked);
            prop_assert_eq!(laws::check(&part), Ok(()));
            prop_assert_eq!(told.count(), whole.count());
            let is_all = edges.len() == 2;
            prop_assert_eq!(told.unplaced, if is_all { whole.unplaced } else { 0 });
            requests.extend(told.requests);
            of_parts.add(&part);
        }
        requests.sort_unstable();
        prop_assert_eq!(&requests, &whole.requests);
        prop_assert_eq!(of_parts, sums);

        let vms = manifest.vms.iter().map(|vm| vm.name.clone()).collect();
        let (since_ns, until_ns) = (Some(0), Some(length_us * 1_000));
        let slower = Some(0);
        let everything = Asked { since_ns, until_ns, vms, slower_than_ns: slower, vcpus: vec![] };
        let (_, mut all) = told_of(&run, &everything);
        prop_assert!(all.facts.selection.take().is_some());
        // Some of the requests have no rate, and nobody asked whether these are all.
        all.requests.iops = summary.requests.iops;
        prop_assert!(all == analyse(run.path()).unwrap(), "all of a run is not the run");

        let slow = Asked { slower_than_ns: Some(slower_than_ns), ..Asked::default() };
        let (told, part) = told_of(&run, &slow);
        prop_assert_eq!(laws::check(&part), Ok(()));
        prop_assert_eq!(told.count(), whole.count());
        prop_assert!(told.requests.iter().all(|request| whole.requests.contains(request)));
    }
}
