//! What is told without a cause, against a list of all requests.

use super::moves::{GroupRoom, WhatIfTally};
use super::{Percentiles, WhatIf, Without};
use crate::summary::causes::Kind;
use crate::summary::distribution::{Distribution, Precision};
use crate::summary::example::{self, START, VM1, antagonist, blocked, preempted, running, woken};
use crate::summary::group::GroupKind;
use crate::summary::names::{Directory, VmIndex};
use crate::summary::observed::example as observed_example;
use crate::summary::{Summary, SummaryBuilder};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use vslice_core::join::{Attribution, Breakdown, ClockError, NoPhase, Part, Phase, Waits};
use vslice_core::task::{ControlGroup, Task, ThreadKind};
use vslice_core::timeline::{Antagonist, Reason, Span, Who};
use vslice_core::units::{HostNs, Tid};
use vslice_trace::observation::{ObservationRecord, ObservedOthersRecord};
use vslice_wire::BlockOperation;

/// What a percentile of these lengths is by its definition.
fn naive(lengths: &[u64], millionths: usize) -> u64 {
    let mut sorted = lengths.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() * millionths).div_ceil(1_000_000).max(1) - 1]
}

/// Whether the told percentiles are these lengths', within the width of a bucket: one of so many.
fn is_of(told: Percentiles, lengths: &[u64], buckets: u64) -> Result<(), TestCaseError> {
    for (told, millionths) in told.all().into_iter().zip([500_000, 990_000, 999_000]) {
        let (told, exact) = (told.unwrap(), naive(lengths, millionths));
        prop_assert!(
            (exact..=exact + exact / buckets).contains(&told),
            "{millionths}: {told} of {exact}"
        );
    }
    Ok(())
}

/// A span by a drawn number, and the kind that its time is of while the request waits for it.
fn span_of(number: u8, length_ns: u64) -> (Span, Kind) {
    match number {
        0 => (running(length_ns), Kind::OnPcpu),
        1 => (preempted(length_ns, &[(201, length_ns)]), Kind::PcpuWait),
        2 => (preempted(length_ns, &[(502, length_ns / 3), (7, length_ns / 3)]), Kind::PcpuWait),
        3 => (woken(length_ns), Kind::PcpuWait),
        4 => (blocked(Reason::Bql, length_ns), Kind::State(Part::BqlWait)),
        5 => (blocked(Reason::Halt, length_ns), Kind::State(Part::Halt)),
        6 => (blocked(Reason::PollSleep, length_ns), Kind::State(Part::OtherSleep)),
        _ => (example::lost(length_ns), Kind::State(Part::Unknown)),
    }
}

/// A request of the reader.
#[derive(Debug, Clone)]
struct Drawn {
    spans: Vec<(u8, u64)>,
    /// When the host has its I/O, as shares of its length in hundredths.
    io: Option<(u64, u64)>,
    is_attributed: bool,
    error_ns: u64,
}

/// What is known of it without any of the code that is tried.
#[derive(Debug, Default, Clone)]
struct Known {
    length_ns: u64,
    kinds: BTreeMap<Kind, u64>,
    unknown_phase: BTreeMap<Kind, u64>,
    inactivity_ns: u64,
    groups: BTreeMap<&'static str, u64>,
}

impl Known {
    fn get(&self, kind: Kind) -> u64 {
        self.kinds.get(&kind).copied().unwrap_or(0)
    }
}

fn drawn() -> impl Strategy<Value = Vec<Drawn>> {
    // Mostly short, so that percentiles are far apart.
    let length = prop_oneof![4 => 1..200_000_u64, 1 => 1..20_000_000_u64];
    let spans = prop::collection::vec((0..8_u8, length), 1..6);
    let io = prop::option::weighted(0.8, (0..=100_u64, 0..=100_u64));
    let one = (spans, io, prop::bool::weighted(0.9), prop_oneof![Just(0), 0..50_000_u64]);
    let one = one.prop_map(|(spans, io, is_attributed, error_ns)| {
        let io = io.map(|(one, other)| (one.min(other), one.max(other)));
        Drawn { spans, io, is_attributed, error_ns }
    });
    prop::collection::vec(one, 1..120)
}

impl Drawn {
    fn breakdown(&self, index: u64) -> (Breakdown, Known) {
        let spans = self.spans.iter().map(|(number, length_ns)| span_of(*number, *length_ns).0);
        let start = HostNs(START.0 + index * 1_000);
        let mut breakdown = example::request(index, start, spans.collect());
        let length_ns = breakdown.latency_ns();
        let mut known = Known { length_ns, ..Known::default() };
        let io = self.io.map(|(from, until)| (length_ns * from / 100, length_ns * until / 100));
        if let Some((from, until)) = io {
            example::set_io(&mut breakdown, from, until);
        }
        if !self.is_attributed {
            breakdown.attribution = Attribution::Lost;
            return (breakdown, known);
        }
        for part in [Part::PreemptWait, Part::BqlWait] {
            breakdown.clock_error.parts.add(part, self.error_ns);
        }
        let mut at = 0;
        for (number, length_ns) in &self.spans {
            let (span, kind) = span_of(*number, *length_ns);
            let (from, until) = (at, at + length_ns);
            at = until;
            let (submitted, completed) = io.unwrap_or((u64::MAX, u64::MAX));
            let in_device = until.min(completed).saturating_sub(from.max(submitted));
            *known.kinds.entry(Kind::Device).or_default() += in_device;
            *known.kinds.entry(kind).or_default() += length_ns - in_device;
            if io.is_none() {
                *known.unknown_phase.entry(kind).or_default() += length_ns;
            }
            if matches!(number, 1..=4 | 6) {
                known.inactivity_ns += until.saturating_sub(from.max(completed));
            }
            for ran in span.antagonists {
                let Who::Thread(task) = &ran.who else { continue };
                let name = match task.tid.0 {
                    201 => "vm2",
                    502 => "build.service",
                    _ => "kworker/1:1",
                };
                *known.groups.entry(name).or_default() += ran.ran_ns;
            }
        }
        let waited_ns = known.get(Kind::PcpuWait);
        known.groups.values_mut().for_each(|ran_ns| *ran_ns = (*ran_ns).min(waited_ns));
        (breakdown, known)
    }
}

fn summary_of(drawn: &[Drawn]) -> (Summary, Vec<Known>) {
    let mut builder = SummaryBuilder::new(START, example::vms());
    let requests = (0..).zip(drawn).map(|(index, drawn)| drawn.breakdown(index));
    let known = requests.map(|(breakdown, known)| {
        builder.breakdown(VM1, &breakdown);
        known
    });
    let known = known.collect();
    (builder.finish(example::facts(), &example::names()), known)
}

/// The lengths after so much was taken of each.
fn less(known: &[Known], taken: impl Fn(&Known) -> u64) -> Vec<u64> {
    known.iter().map(|of| of.length_ns - taken(of)).collect()
}

proptest! {
    #[test]
    fn a_percentile_without_a_cause_is_that_of_each_request_less_it(drawn in drawn()) {
        let (summary, known) = summary_of(&drawn);
        let attributed = drawn.iter().filter(|drawn| drawn.is_attributed).count();
        let Some(what_if) = summary.what_if else {
            prop_assert_eq!(attributed, 0);
            return Ok(());
        };
        prop_assert_eq!(what_if.attributed, attributed as u64);
        prop_assert_eq!(what_if.unattributed, (drawn.len() - attributed) as u64);
        for kind in Kind::ALL {
            let taken_ns: u64 = known.iter().map(|of| of.get(kind)).sum();
            let had = known.iter().filter(|of| of.get(kind) > 0).count();
            let row = what_if.causes.iter().find(|row| row.cause == kind);
            prop_assert_eq!(row.is_some(), taken_ns > 0);
            let Some(row) = row else { continue };
            prop_assert_eq!((row.without.taken_ns, row.without.requests), (taken_ns, had as u64));
            is_of(row.without.latency_ns, &less(&known, |of| of.get(kind)), 1_000)?;
        }
        if let Some(without) = what_if.inactivity {
            is_of(without.latency_ns, &less(&known, |of| of.inactivity_ns), 1_000)?;
        }
        for row in &what_if.antagonist_groups {
            let of_group = |of: &Known| of.groups.get(row.name.as_str()).copied().unwrap_or(0);
            let taken_ns: u64 = known.iter().map(of_group).sum();
            prop_assert_eq!(row.without.taken_ns, taken_ns, "{}", row.name);
            is_of(row.without.latency_ns, &less(&known, of_group), 1_000)?;
        }
    }

    /// What clock errors, unknown states and unknown phases may make of it.
    #[test]
    fn a_range_is_what_may_be_taken_at_least_and_at_most(drawn in drawn()) {
        let (summary, known) = summary_of(&drawn);
        let Some(what_if) = summary.what_if else { return Ok(()) };
        let error_of = |at: usize| if drawn[at].is_attributed { drawn[at].error_ns } else { 0 };
        for row in &what_if.causes {
            let is_off = matches!(row.cause, Kind::PcpuWait | Kind::State(Part::BqlWait));
            if !is_off && row.cause != Kind::State(Part::OtherSleep) {
                continue;
            }
            let lengths = |taken: &dyn Fn(&Known, u64) -> u64| -> Vec<u64> {
                let of = known.iter().enumerate();
                of.map(|(at, of)| {
                    let error_ns = if is_off { error_of(at) } else { 0 };
                    of.length_ns - taken(of, error_ns).min(of.length_ns)
                }).collect()
            };
            let kind = row.cause;
            is_of(row.without.low_ns, &lengths(&|of, error_ns| {
                of.get(kind) + error_ns + of.get(Kind::State(Part::Unknown))
            }), 1_000)?;
            is_of(row.without.high_ns, &lengths(&|of, error_ns| {
                let doubtful_ns = of.unknown_phase.get(&kind).copied().unwrap_or(0);
                (of.get(kind) - doubtful_ns).saturating_sub(error_ns)
            }), 1_000)?;
        }
    }
}

/// An observed request that took at least 1 ms: how long it was preempted in the guest's own queue, ran there, was
/// in the device, and was preempted after that; and which vCPU issued it.
type DrawnObserved = (u64, u64, u64, u64, bool);

fn observed_request(
    (stolen_ns, queue_ns, device_ns, late_ns, is_other): DrawnObserved,
) -> Breakdown {
    let issued = u16::from(!is_other);
    let phases = vec![
        (Phase::GuestQueue, vec![observed_example::taken(stolen_ns), running(queue_ns)]),
        (Phase::Queued, vec![running(1_000)]),
        (Phase::Device, vec![preempted(device_ns, &[])]),
        (Phase::Completed, vec![observed_example::taken(late_ns)]),
    ];
    let request = vslice_wire::ObservedRequest {
        vcpu_issued: issued,
        vcpu_completed: issued,
        ..observed_example::request()
    };
    observed_example::split(request, START, phases)
}

proptest! {
    /// Where faster ones were only counted, a percentile that may be one of them is not told.
    #[test]
    fn of_observed_requests_too_and_beside_those_that_were_only_counted(
        sent in prop::collection::vec(
            (0..3_000_000_u64, 0..900_000_u64, 1_000_000..2_000_000_u64, 0..9_000_000_u64, any::<bool>()),
            1..80,
        ),
        faster in prop_oneof![Just(vec![]), prop::collection::vec(1..900_000_u64, 1..60)],
    ) {
        let others = vec![ObservedOthersRecord {
            device: 0,
            operation: BlockOperation::Read,
            is_sync: true,
            count: faster.len() as u64,
            bytes: 0,
            total_ns: faster.iter().sum(),
        }];
        let record = ObservationRecord { others, slower_than_us: 1_000, ..observed_example::record() };
        let mut builder = observed_example::builder(record);
        sent.iter().for_each(|drawn| builder.breakdown(VM1, &observed_request(*drawn)));
        let summary = builder.finish(observed_example::facts(), &example::names());
        let row = &summary.observed.unwrap().operations[0];
        let what_if = row.what_if.as_ref().unwrap();
        let shortest = sent.iter().map(|drawn| observed_request(*drawn).latency_ns()).min().unwrap();
        for row in &what_if.causes {
            let taken = |(stolen_ns, queue_ns, device_ns, late_ns, is_other): DrawnObserved| match row.cause {
                Kind::GuestQueue => queue_ns + if is_other { stolen_ns } else { 0 },
                Kind::PcpuWait => late_ns + if is_other { 0 } else { stolen_ns },
                Kind::Device => device_ns,
                Kind::OnPcpu => 1_000,
                Kind::State(_) => 0,
            };
            let after = sent.iter().map(|of| observed_request(*of).latency_ns() - taken(*of));
            let all: Vec<u64> = after.chain(faster.iter().copied()).collect();
            let told = row.without.latency_ns.all();
            for (told, millionths) in told.into_iter().zip([500_000, 990_000, 999_000]) {
                let exact = naive(&all, millionths);
                let is_known = faster.is_empty() || exact >= shortest;
                match told {
                    Some(told) => {
                        prop_assert!((exact..=exact + exact / 100).contains(&told));
                        prop_assert!(faster.is_empty() || told >= shortest, "it may be a faster one");
                    }
                    None => prop_assert!(!is_known, "{exact} is longer than {shortest}"),
                }
            }
        }
        // vm2's vCPU ran in all waits that are a cause.
        let group = what_if.antagonist_groups.first().map(|row| row.without);
        let waits = what_if.causes.iter().find(|row| row.cause == Kind::PcpuWait);
        prop_assert_eq!(group.map(|of| of.latency_ns), waits.map(|row| row.without.latency_ns));
    }
}

fn directory_of(check: impl FnOnce(&Directory<'_>)) {
    let (names, vms) = (example::names(), example::vms());
    check(&Directory::new(&names, &vms));
}

/// A request that waited for 4 ms while each of these ran.
fn waited(ran: Vec<Antagonist>) -> Breakdown {
    let spans = vec![running(100_000), Span { antagonists: ran, ..preempted(4_000_000, &[]) }];
    let mut breakdown = example::request(0, START, spans);
    example::set_io(&mut breakdown, 0, 100_000);
    breakdown.bounds = vslice_core::join::Bounds::default();
    breakdown
}

fn of_group(group: u32, ran_ns: u64) -> Antagonist {
    let group = Some(ControlGroup(group));
    let task = Task { kind: ThreadKind::Host, group, ..Task::unknown(Tid(9_000)) };
    Antagonist::new(Who::Thread(Arc::new(task)), ran_ns)
}

fn tally_of(room: GroupRoom, requests: &[(VmIndex, Breakdown)]) -> WhatIf {
    let mut lengths = Distribution::new(Precision::Fine);
    let mut tally = WhatIfTally::new(room);
    for (vm, request) in requests {
        lengths.record(request.latency_ns());
        tally.add(*vm, request, &lengths);
    }
    let mut told = None;
    directory_of(|directory| told = tally.finish(&lengths, 0, directory));
    told.unwrap()
}

const ROOM: GroupRoom = GroupRoom { groups: 64, cells: 1 << 12 };

#[test]
fn who_ran_without_a_name_may_have_been_any_group() {
    let request = waited(vec![of_group(1, 1_000_000), of_group(2, 500_000)]);
    let told = tally_of(ROOM, &[(VM1, request)]);
    let [first, second] = &told.antagonist_groups[..] else { panic!("{told:?}") };
    let p50 = |row: &super::WithoutGroup| {
        let Without { latency_ns, low_ns, high_ns, .. } = row.without;
        [low_ns, latency_ns, high_ns].map(|of| of.p50.unwrap() / 10_000)
    };
    // Of 4 ms of waiting, 2.5 ms were not told.
    assert_eq!(p50(first), [60, 310, 310]);
    assert_eq!(p50(second), [110, 360, 360]);
    assert_eq!(told.other_groups_ns, 2_500_000);
}

#[test]
fn a_clock_error_may_move_a_group_both_ways() {
    let mut request = waited(vec![of_group(1, 4_000_000)]);
    let mut clock_error = ClockError::default();
    clock_error.parts.add(Part::WakeupDelay, 30_000);
    request.clock_error = clock_error;
    let other = Breakdown { waits: Waits::default(), ..request.clone() };
    let told = tally_of(ROOM, &[(VM1, request), (VM1, other)]);
    let Without { latency_ns, low_ns, high_ns, requests, .. } = told.antagonist_groups[0].without;
    let ends = |of: Percentiles| [of.p50, of.p999].map(|told| told.unwrap() / 10_000);
    assert_eq!((requests, ends(latency_ns)), (1, [10, 410]));
    assert_eq!((ends(low_ns), ends(high_ns)), ([7, 7], [13, 410]), "nobody was told of the other");
}

#[test]
fn in_a_phase_that_is_not_known_a_wait_may_be_no_cause() {
    let mut request = waited(vec![of_group(1, 4_000_000)]);
    request.io = Err(NoPhase::Ambiguous);
    request.phases = vslice_core::join::PhaseParts::unknown(request.parts);
    let told = tally_of(ROOM, &[(VM1, request.clone())]);
    let measured = Some(request.latency_ns());
    let group = told.antagonist_groups[0].without;
    assert_eq!((group.latency_ns.p50, group.high_ns.p50), (Some(100_031), measured));
    assert_eq!(told.inactivity, None, "no phases are known");
    request.io = Err(NoPhase::PageCache);
    let told = tally_of(ROOM, &[(VM1, request)]);
    let group = told.antagonist_groups[0].without;
    assert_eq!(group.high_ns, group.latency_ns, "no disk had it");
}

/// What a reader's vCPU waited for while the disk had its I/O is no cause, but who ran is told of all of its waits.
#[test]
fn a_group_took_no_more_than_the_waits_that_are_a_cause() {
    let mut request = waited(vec![of_group(1, 3_500_000), of_group(2, 500_000)]);
    example::set_io(&mut request, 0, 1_100_000);
    let told = tally_of(ROOM, &[(VM1, request)]);
    let [first, second] = &told.antagonist_groups[..] else { panic!("{told:?}") };
    assert_eq!((first.without.taken_ns, second.without.taken_ns), (3_000_000, 500_000));
    let high_ns = |row: &super::WithoutGroup| row.without.high_ns.p50.unwrap() / 10_000;
    assert_eq!((high_ns(first), high_ns(second)), (160, 410));
}

#[test]
fn groups_without_room_are_told_as_others_and_never_in_part() {
    let requests: Vec<_> =
        (0..40).map(|group| (VM1, waited(vec![of_group(group, 1_000_000)]))).collect();
    let told = tally_of(GroupRoom { groups: 4, cells: 1 << 12 }, &requests);
    assert_eq!(told.antagonist_groups.len(), 4);
    let unnamed_ns = 40 * 3_000_000;
    assert_eq!(told.other_groups_ns, unnamed_ns + 36 * 1_000_000);
    // The second of two buckets too many: the group that took least goes, and does not come back.
    let heavy = |ran_ns| waited(vec![of_group(1, ran_ns), of_group(2, ran_ns / 2)]);
    let requests = [heavy(1_000_000), heavy(2_000_000), heavy(3_000_000)].map(|of| (VM1, of));
    let told = tally_of(GroupRoom { groups: 4, cells: 6 }, &requests);
    assert_eq!(told.antagonist_groups.len(), 1);
    assert_eq!(told.antagonist_groups[0].without.taken_ns, 6_000_000);
    assert_eq!(told.other_groups_ns, 2_500_000 + 1_000_000 + 3_000_000);
}

#[test]
fn a_vm_that_keeps_itself_and_others_waiting_is_no_ones_own() {
    let own = |ran| waited(vec![antagonist(Tid(102), ran)]);
    let kind_of = |requests: &[(VmIndex, Breakdown)]| {
        let told = tally_of(ROOM, requests);
        (told.antagonist_groups[0].kind, told.antagonist_groups[0].name.clone())
    };
    let alone = [(VM1, own(1_000_000))];
    assert_eq!(kind_of(&alone), (GroupKind::OwnVm, "vm1".to_owned()));
    let both = [(VM1, own(1_000_000)), (VmIndex(1), own(1_000_000))];
    assert_eq!(kind_of(&both), (GroupKind::OtherVm, "vm1".to_owned()));
}

/// When the disk had an I/O that lies near an end of its request, or may be cut by it, depends on the clock.
#[test]
fn the_disks_time_is_uncertain_near_the_ends_alone() {
    let told = |from_ns, until_ns| {
        let mut request = example::request(0, START, vec![running(1_000_000)]);
        example::set_io(&mut request, from_ns, until_ns);
        request.bounds = vslice_core::join::Bounds::all(20_000);
        let told = tally_of(ROOM, &[(VM1, request)]);
        let device = told.causes.iter().find(|row| row.cause == Kind::Device).unwrap().without;
        [device.low_ns, device.latency_ns, device.high_ns].map(|of| of.p50.unwrap() / 1_000)
    };
    assert_eq!(told(200_000, 800_000), [400, 400, 400]);
    assert_eq!(told(5_000, 805_000), [185, 200, 215]);
}

#[test]
fn a_kind_of_cause_is_written_by_its_name() {
    for kind in Kind::ALL {
        let json = serde_json::to_value(kind).unwrap();
        assert_eq!(json, kind.name());
        assert_eq!(serde_json::from_value::<Kind>(json).unwrap(), kind);
        assert_eq!(Kind::ALL[kind.place()], kind);
    }
    assert!(serde_json::from_value::<Kind>("preempt_wait".into()).is_err());
    for part in Part::ALL {
        assert_eq!(Kind::ALL[Kind::of(Some(part)).place()], Kind::of(Some(part)));
    }
}

#[test]
fn lengths_beyond_all_reason_do_no_harm() {
    let requests = [0, 1].map(|index| {
        let mut request = example::request(index, HostNs(0), vec![running(u64::MAX)]);
        example::set_io(&mut request, 0, u64::MAX / 3);
        (VM1, request)
    });
    let told = tally_of(ROOM, &requests);
    assert_eq!((told.attributed, told.causes.len()), (2, 2));
    assert_eq!(told.causes[0].without.taken_ns, u64::MAX, "both together took more");
}

#[test]
fn memory_is_bounded_by_the_buckets_and_not_by_the_requests() {
    let mut lengths = Distribution::new(Precision::Fine);
    let room = GroupRoom { groups: 8, cells: 1 << 11 };
    let mut tally = WhatIfTally::new(room);
    for index in 0..20_000_u32 {
        let mut request = waited(vec![of_group(index % 32, u64::from(index) * 199)]);
        request.io = Err(NoPhase::NoIo);
        lengths.record(request.latency_ns());
        tally.add(VM1, &request, &lengths);
    }
    assert!(tally.groups_cells_count() <= room.cells, "{} cells", tally.groups_cells_count());
    // All were alike, and none is longer than it was.
    let longest_ns = lengths.longest_ns(1);
    let buckets: BTreeSet<u64> =
        (0..=longest_ns / 100).map(|place| lengths.bucket_ns(place * 100)).collect();
    // Of waiting for a pCPU, of whoever may have run, and of the groups.
    let most = 2 * (buckets.len() + 1) + room.cells;
    assert!(tally.cells_count() <= most, "{} cells, {most} at most", tally.cells_count());
}
