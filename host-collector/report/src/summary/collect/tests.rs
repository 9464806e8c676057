use super::*;
use crate::summary::clock::ClockCheck;
use crate::summary::example::{
    self, BLOCK_BYTES, START, VM1, antagonist, blocked, facts, laid_out, lost, names, preempted,
    request, running, vms, woken,
};
use crate::summary::group::{GroupKind, MEMBERS_MAX};
use crate::summary::model::{Class, Lost, Members, NamedThread, Relation, UnattributableBy};
use proptest::prelude::*;
use std::sync::Arc;
use vslice_core::join::{Bounds, GuestRequest, IoCheck};
use vslice_core::task::{Process, Task, ThreadKind};
use vslice_core::timeline::{self, Who};
use vslice_trace::evidence::{Evidence, Missing};

fn builder() -> SummaryBuilder {
    SummaryBuilder::new(START, vms())
}

fn finish(builder: SummaryBuilder) -> Summary {
    builder.finish(facts(), &names())
}

/// 1000 requests: 989 of 1 us, 9 of 2 ms on a futex, 2 of 6 ms behind vm2's vCPU1.
fn thousand() -> Summary {
    let mut builder = builder();
    for index in 0..1000 {
        let spans = match index {
            0..989 => vec![running(1_000)],
            989..998 => vec![running(500_000), blocked(Reason::Bql, 1_500_000)],
            _ => vec![running(1_000_000), preempted(5_000_000, &[(201, 4_500_000)])],
        };
        builder.breakdown(VM1, &request(index, HostNs(START.0 + index * 10_000_000), spans));
    }
    finish(builder)
}

#[test]
fn each_class_sums_the_parts_of_its_requests() {
    let summary = thousand();
    let parts = |part| {
        let parts = &summary.parts;
        [parts.all.get(part), parts.p99.get(part), parts.p999.get(part)]
    };
    assert_eq!((summary.latency_ns.p50, summary.latency_ns.max), (Some(1_000), Some(6_000_000)));
    assert_eq!(summary.latency_ns.mean, Some((989_000 + 9 * 2_000_000 + 2 * 6_000_000) / 1000));
    // The 990th and the 999th of 1000: one of 2 ms and one of 6 ms, to the bucket.
    assert_eq!(
        (summary.latency_ns.p99, summary.latency_ns.p999),
        (Some(2_000_895), Some(6_000_000))
    );
    assert_eq!(parts(Part::OnPcpu), [989_000 + 4_500_000 + 2_000_000, 2_000_000, 0]);
    assert_eq!(parts(Part::BqlWait), [13_500_000, 0, 0]);
    assert_eq!(parts(Part::PreemptWait), [10_000_000, 10_000_000, 0]);
    let classes = &summary.classes;
    assert_eq!([classes.all.count, classes.p99.count, classes.p999.count], [1000, 2, 0]);
    assert_eq!(classes.p99.latency_ns, 12_000_000);
    assert_eq!((classes.all.threshold_ns, classes.p99.threshold_ns), (None, Some(2_000_895)));
}

/// A page shows the first of them only.
#[test]
fn warnings_come_in_the_order_of_what_they_spoil() {
    let missing = Missing { name: "kernel symbols".to_owned(), costs: "reasons".to_owned() };
    let evidence = Evidence { missing: vec![missing], ..Evidence::default() };
    let lost = Lost { records: 1, intervals: 1, total_ns: u64::MAX };
    let notice = Warning::Notice { text: "something else".to_owned() };
    let mut told = facts();
    (told.run.evidence, told.run.lost, told.run.warnings) = (evidence, lost, vec![notice]);
    let summary = builder().finish(told, &names());
    assert!(summary.facts.warnings.is_sorted_by_key(Warning::rank), "{:?}", summary.facts.warnings);
    let place =
        |is_meant: fn(&Warning) -> bool| summary.facts.warnings.iter().position(is_meant).unwrap();
    let lost = place(|warning| matches!(warning, Warning::LostRecords { .. }));
    let notice = place(|warning| matches!(warning, Warning::Notice { .. }));
    let missing = place(|warning| matches!(warning, Warning::MissingEvidence { .. }));
    assert!(lost < notice && notice < missing, "{:?}", summary.facts.warnings);
}

#[test]
fn a_class_names_who_ran_while_its_requests_waited() {
    let summary = thousand();
    let class = &summary.classes.p99;
    let antagonist = Antagonist {
        thread: NamedThread {
            tid: Tid(201),
            name: "vm2 vCPU1".to_owned(),
            kind: Relation::OtherVmVcpu,
        },
        pid: Some(Tid(200)),
        command: Some("qemu-system-x86_64 -name vm2,debug-threads=on".to_owned()),
        group: Some("vm2".to_owned()),
        group_path: None,
        threads: Members { count: 1, is_exact: true },
        processes: Members { count: 1, is_exact: true },
        ran_ns: 9_000_000,
        error_ns: 0,
        share: 0.9,
    };
    assert_eq!(class.antagonists.len(), 1);
    assert_eq!(class.antagonists[0].antagonist, antagonist);
    assert_eq!((class.antagonists[0].victim_vm.as_str(), class.antagonists[0].pcpu.0), ("vm1", 1));
    assert_eq!((class.wait_ns, class.others_ns, class.unseen_ns), (10_000_000, 0, 1_000_000));
}

fn with_result(breakdown: &Breakdown, result: i32) -> GuestRequest {
    GuestRequest::Read(Request { result, ..*breakdown.request.read().unwrap() })
}

#[test]
fn requests_are_counted_by_what_became_of_them() {
    let mut builder = builder();
    let at = |index: u64| HostNs(START.0 + index * 1_000_000);
    let results = [4096, 512, 0, -5, 4096, 4096, 4096, 4096, 4096];
    let attributions = [
        Attribution::Attributed,
        Attribution::Attributed,
        Attribution::Attributed,
        Attribution::Attributed,
        Attribution::Lost,
        Attribution::Moved,
        Attribution::NotRecorded,
        Attribution::Ambiguous,
        Attribution::Forgotten,
    ];
    for (index, (result, attribution)) in (0_u64..).zip(results.into_iter().zip(attributions)) {
        let mut breakdown = request(index, at(index), vec![running(400_000)]);
        breakdown.request = with_result(&breakdown, result);
        breakdown.attribution = attribution;
        breakdown.bounds.end_ns = if index == 3 { 45_000 } else { 20_000 };
        builder.breakdown(VM1, &breakdown);
    }
    for why in [Unplaced::NoClock, Unplaced::ClockStepped, Unplaced::ClockStepped] {
        let request = with_result(&request(8, START, vec![]), 512);
        builder.unplaced(VM1, &request, why);
    }
    builder.dropped(9);
    builder.dropped(4);
    let summary = finish(builder);
    assert_eq!(
        summary.requests,
        Requests {
            count: 12,
            dropped: 13,
            dropped_intervals: 2,
            unattributable: 8,
            unattributable_by: UnattributableBy {
                lost: 1,
                moved: 1,
                steered: 0,
                not_recorded: 1,
                ambiguous: 1,
                hidden: 0,
                forgotten: 1,
                no_clock: 1,
                clock_stepped: 2,
                clock_ambiguous: 0
            },
            errors: 1,
            short: 5,
            bytes: 6 * u64::from(BLOCK_BYTES) + 4 * 512,
            elapsed_ns: Some(8_400_000),
            iops: Some(2619.0),
        }
    );
    assert_eq!((summary.classes.all.count, summary.classes.all.unattributable), (4, 5));
    assert_eq!(summary.parts.all.total_ns(), 4 * 400_000);
    assert_eq!(summary.clock.bound_ns, Some(45_000), "the largest that a request got");
}

#[test]
fn errors_of_the_clock_are_summed_by_class_and_its_violations_counted() {
    let mut builder = builder();
    for index in 0..1000 {
        let length_ns = if index < 995 { 1_000 } else { 9_000_000 };
        let mut breakdown = request(index, START, vec![running(length_ns)]);
        breakdown.clock_error.parts.add(Part::OnPcpu, 7);
        breakdown.clock_error.parts.add(Part::PreemptWait, index / 995);
        breakdown.clock_error.can_move = !(10..995).contains(&index);
        breakdown.io_check = match index {
            0..400 => IoCheck::Unchecked,
            400..500 => IoCheck::Unseen,
            600 => IoCheck::Beyond { excess_ns: 30 },
            700 => IoCheck::Beyond { excess_ns: 40 },
            _ => IoCheck::Within,
        };
        builder.breakdown(VM1, &breakdown);
    }
    let mut lost = request(1000, START, vec![running(10)]);
    lost.attribution = Attribution::Lost;
    lost.clock_error.parts.add(Part::OnPcpu, 1_000);
    builder.breakdown(VM1, &lost);
    let summary = finish(builder);
    let error_ns = |parts: &PartTotals| (parts.get(Part::OnPcpu), parts.get(Part::PreemptWait));
    let errors = &summary.clock_error_ns;
    assert_eq!((error_ns(&errors.all), error_ns(&errors.p99)), ((7_000, 5), (35, 5)));
    let classes = &summary.classes;
    assert_eq!((classes.all.clock_uncertain, classes.p99.clock_uncertain), (15, 5));
    assert_eq!(error_ns(&summary.worst[0].clock_error_ns), (7, 1));
    let check = ClockCheck { requests: 500, violations: 2, worst_ns: 40, unseen: 100 };
    assert_eq!(summary.clock.check, check);
}

#[test]
fn the_worst_are_the_slowest_whether_attributed_or_not() {
    let mut builder = builder();
    for (index, length_us) in (0_u64..).zip([3, 9, 1, 7, 9, 8, 2, 5]) {
        let mut breakdown = request(index, START, vec![running(length_us * 1_000)]);
        if index == 3 {
            breakdown.attribution = Attribution::Moved;
        }
        builder.breakdown(VM1, &breakdown);
    }
    let summary = finish(builder);
    let worst: Vec<_> = summary.worst.iter().map(|worst| (worst.index, worst.latency_ns)).collect();
    assert_eq!(worst, [(1, 9_000), (4, 9_000), (5, 8_000), (3, 7_000), (7, 5_000)]);
}

#[test]
fn a_worst_request_tells_what_happened_to_it() {
    let mut builder = builder();
    let spans = vec![
        running(13_000),
        blocked(Reason::Bql, 70_000),
        woken(2_000),
        preempted(3_998_000, &[(201, 3_990_000), (7, 8_000)]),
        lost(500),
    ];
    let mut breakdown = request(42, HostNs(START.0 - 5_000), spans);
    breakdown.chain.cut_count = 3;
    builder.breakdown(VM1, &breakdown);
    let summary = finish(builder);
    let worst = &summary.worst[0];
    assert_eq!((worst.vm.as_str(), worst.vcpu, worst.start_ns), ("vm1", VcpuId(1), -5_000));
    assert_eq!((worst.latency_ns, worst.parts.total_ns()), (4_083_500, 4_083_500));
    assert_eq!(worst.chain_cut_count, 3);
    let rows: Vec<_> = worst
        .chain
        .iter()
        .map(|span| (span.offset_ns, span.length_ns, span.part, span.pcpu.map(|pcpu| pcpu.0)))
        .collect();
    assert_eq!(
        rows,
        [
            (0, 13_000, Part::OnPcpu, Some(1)),
            (13_000, 70_000, Part::BqlWait, None),
            (83_000, 2_000, Part::WakeupDelay, Some(1)),
            (85_000, 3_998_000, Part::PreemptWait, Some(1)),
            (4_083_000, 500, Part::Unknown, None),
        ]
    );
    let asleep = &worst.chain[1];
    assert_eq!(asleep.stack[0], "futex_wait_queue");
    assert_eq!(asleep.waker.as_ref().map(|waker| waker.name.as_str()), Some("vm1 main loop"));
    let ran: Vec<_> = worst.chain[3]
        .antagonists
        .iter()
        .map(|ran| (ran.thread.name.as_str(), ran.ran_ns))
        .collect();
    assert_eq!(ran, [("vm2 vCPU1", 3_990_000), ("kworker/1:1", 8_000)]);
    assert_eq!(worst.chain[4].why_unknown, Some(WhyUnknown::Lost));
}

#[test]
fn spans_count_for_the_vcpu_whose_thread_they_are() {
    let mut builder = builder();
    let spans = laid_out(
        START,
        vec![
            woken(1_000),
            running(7_000),
            preempted(4_000, &[(201, 3_000)]),
            running(5_000),
            blocked(Reason::PollSleep, 2_000),
        ],
    );
    spans.iter().for_each(|span| builder.span(span));
    builder.span(&Span { tid: Tid(4711), ..spans[1].clone() });
    let summary = finish(builder);
    let [other, vcpu, ..] = summary.vcpus.as_slice() else { panic!("four vCPUs were given") };
    assert_eq!((other.tid, other.observed_ns), (Tid(100), 0));
    assert_eq!((vcpu.vm.as_str(), vcpu.vcpu, vcpu.tid), ("vm1", VcpuId(1), Tid(101)));
    assert_eq!((vcpu.observed_ns, vcpu.on_pcpu_ns), (19_000, 12_000));
    assert_eq!((vcpu.timeslices.count, vcpu.timeslices.mean_ns), (2, Some(6_000)));
    assert_eq!((vcpu.wait_ns, vcpu.unseen_ns), (5_000, 2_000));
    assert_eq!((vcpu.antagonists[0].ran_ns, vcpu.antagonists[0].share), (3_000, 0.6));
    let reasons: Vec<_> = vcpu.off_cpu.iter().map(|row| row.reason).collect();
    assert!(reasons.into_iter().eq(OffReason::all()));
    let stacks: Vec<_> = summary
        .stacks
        .iter()
        .map(|stack| (stack.reason, stack.count, stack.total_ns, stack.frames[0].as_str()))
        .collect();
    assert_eq!(
        stacks,
        [
            (OffReason::Left(Reason::Timeslice), 1, 4_000, "(no stack recorded)"),
            (OffReason::Left(Reason::PollSleep), 1, 2_000, "do_sys_poll"),
        ]
    );
}

#[test]
fn distinct_stacks_are_bounded() {
    let mut builder = builder();
    let stacks_count = u32::try_from(STACKS_MAX).unwrap() + 10;
    for stack in 0..stacks_count {
        let mut span = blocked(Reason::PollSleep, 1_000);
        let sleep = Sleep { stack: Some(StackId(stack)), ..Sleep::new(Reason::PollSleep) };
        span.state = ThreadState::Blocked(sleep);
        builder.span(&span);
    }
    assert_eq!(builder.stacks.len(), STACKS_MAX + 1);
    let beyond = (OffReason::Left(Reason::PollSleep), StackKey::BeyondLimit);
    assert_eq!(builder.stacks[&beyond], (10, 10_000));
}

#[test]
fn the_longest_request_there_could_be_does_no_harm() {
    let mut builder = builder();
    for index in 0..3 {
        let mut breakdown = request(index, HostNs(0), vec![running(u64::MAX)]);
        breakdown.bounds = Bounds::all(u64::MAX);
        builder.span(&breakdown.chain.links()[0].span);
        builder.breakdown(VmIndex(99), &breakdown);
    }
    let summary = finish(builder);
    assert_eq!(summary.parts.all.get(Part::OnPcpu), u64::MAX, "saturated");
    assert_eq!(summary.worst[0].vm, "VM number 99");
    assert!(!crate::summary::render_full(&summary, Default::default()).is_empty());
}

#[test]
fn the_callers_warnings_follow_those_of_the_numbers() {
    let mut facts = facts();
    let notice = Warning::Notice { text: "the hypervisor stole 3 %".to_owned() };
    facts.run.lost = Lost::default();
    facts.run.warnings = vec![notice.clone()];
    let summary = builder().finish(facts, &names());
    assert_eq!(summary.facts.warnings, [Warning::NoRequests, notice]);
}

#[test]
fn antagonists_beyond_the_list_are_others() {
    let mut builder = builder();
    let ran: Vec<(u32, u64)> = (300..310).map(|tid| (tid, u64::from(tid))).collect();
    let breakdown = request(0, START, vec![preempted(4_000, &ran)]);
    builder.span(&breakdown.chain.links()[0].span);
    builder.breakdown(VM1, &breakdown);
    let summary = finish(builder);
    let (class, vcpu) = (&summary.classes.all, &summary.vcpus[1]);
    assert_eq!((class.antagonists.len(), vcpu.antagonists.len()), (8, 8));
    assert_eq!(vcpu.antagonists[0].thread.name, "tid 309", "the longest is first");
    assert_eq!((class.others_ns, vcpu.others_ns), (601, 601), "the two shortest");
    let ran_ns: u64 = (300..310).sum();
    assert_eq!((class.unseen_ns, vcpu.unseen_ns), (4_000 - ran_ns, 4_000 - ran_ns));
}

/// A process that ran once, under this name.
fn process(tid: u32, name: &str, ran_ns: u64) -> timeline::Antagonist {
    let process = Some(Process { pid: Tid(tid), since: HostNs(7) });
    let (kind, name) = (ThreadKind::Host, name.to_owned());
    let task = Task { process, kind, name, ..Task::unknown(Tid(tid)) };
    timeline::Antagonist::new(Who::Thread(Arc::new(task)), ran_ns)
}

/// Each row of a class with what it ran, by name.
fn ran_by_name(class: &Class) -> BTreeMap<&str, u64> {
    let rows = class.antagonists.iter().map(|row| &row.antagonist);
    rows.map(|row| (row.thread.name.as_str(), row.ran_ns)).collect()
}

/// Requests of 1 ms met twenty threads by turns, three of 9 ms only the one that had the least of all.
#[test]
fn every_class_has_the_same_rows_and_what_each_of_them_ran() {
    let mut builder = builder();
    for index in 0..3000 {
        let tid = 300 + u32::try_from(index % 20).unwrap();
        let ran_ns = 500_000 + u64::from(tid);
        let span = match index {
            2997..3000 => preempted(9_000_000, &[(400, 8_000_000)]),
            _ => preempted(1_000_000, &[(tid, ran_ns)]),
        };
        builder.breakdown(VM1, &request(index, START, vec![span]));
    }
    let summary = finish(builder);
    let classes = &summary.classes;
    assert_eq!((classes.p99.count, classes.p999.count), (3, 3));
    let all = ran_by_name(&classes.all);
    assert_eq!(all["tid 400"], 24_000_000, "less than any of the others, and what it was");
    assert_eq!(all.len(), 9, "eight of all and one of the slow ones");
    for class in [&classes.p99, &classes.p999] {
        assert!(ran_by_name(class).keys().eq(all.keys()));
    }
    assert_eq!(ran_by_name(&classes.p99)["tid 400"], 24_000_000);
    assert_eq!(classes.p99.antagonists[0].antagonist.thread.name, "tid 400", "the longest first");
    let listed_ns: u64 = all.values().sum();
    let ran_ns: u64 = (0..2997).map(|index| 500_300 + index % 20).sum::<u64>() + 24_000_000;
    assert_eq!(listed_ns + classes.all.others_ns, ran_ns);
}

#[test]
fn thousands_of_processes_of_one_name_are_one_row() {
    let mut builder = builder();
    for index in 0..2000_u32 {
        let mut span = preempted(1_000_000, &[]);
        let tid = 10_000 + 2 * index;
        span.antagonists = vec![process(tid, "true", 600_000), process(tid + 1, "bash", 300_000)];
        builder.span(&span);
        builder.breakdown(VM1, &request(index.into(), START, vec![span]));
    }
    let summary = finish(builder);
    let class = &summary.classes.all;
    assert_eq!((class.antagonists.len(), class.others_ns, class.unseen_ns), (2, 0, 200_000_000));
    let row = &class.antagonists[0].antagonist;
    assert_eq!((row.thread.name.as_str(), row.ran_ns, row.error_ns), ("true", 1_200_000_000, 0));
    let all_of_them = Members { count: 2000, is_exact: true };
    assert_eq!((row.threads, row.processes), (all_of_them, all_of_them));
    assert_eq!(row.pid, Some(row.thread.tid), "one of them");
    assert_eq!(summary.vcpus[1].antagonists[0].threads, all_of_them);
    assert_eq!(class.antagonist_groups.len(), 2, "of an unknown control group each name is one");
    assert_eq!(class.antagonist_groups[0].group.kind, GroupKind::Unknown);
}

/// As `make -j2` does: many names, each for a moment, in one control group; and a service beside.
#[test]
fn thousands_of_processes_of_one_control_group_are_one_row() {
    let mut names = names();
    let build = names.groups.at("/system.slice/docker-3f2a1b0c9d8e7f60.scope");
    let in_build = |number: u32, name: &str, ran_ns| {
        let mut ran = process(number, name, ran_ns);
        if let Who::Thread(task) = &mut ran.who {
            *task = Arc::new(Task { group: build, ..(**task).clone() });
        }
        ran
    };
    let mut builder = builder();
    for index in 0..2000_u32 {
        let mut span = preempted(1_000_000, &[(200, 100_000)]);
        let first = 10_000 + 2 * index;
        let step = format!("step{}", index % 40);
        span.antagonists
            .extend([in_build(first, "cc1", 500_000), in_build(first + 1, &step, 300_000)]);
        builder.span(&span);
        builder.breakdown(VM1, &request(index.into(), START, vec![span]));
    }
    let summary = builder.finish(facts(), &names);
    let class = &summary.classes.all;
    let row = &class.antagonist_groups[0].group;
    assert_eq!((row.kind, row.name.as_str()), (GroupKind::ControlGroup, "docker 3f2a1b0c9d8e"));
    assert_eq!((row.ran_ns, row.share, row.error_ns), (1_600_000_000, 0.8, 0));
    let all_of_them = Members { count: 4000, is_exact: true };
    assert_eq!((row.threads, row.processes, row.names), (all_of_them, all_of_them, 41));
    assert_eq!((row.members.len(), row.members[0].name.as_str()), (MEMBERS_MAX, "cc1"));
    assert_eq!(class.antagonist_groups.len(), 2);
    assert_eq!(class.other_groups_ns, 0, "while of the names some have no row");
    assert!(class.others_ns > 0);
    assert_eq!(class.antagonists[0].antagonist.group.as_deref(), Some("docker 3f2a1b0c9d8e"));
    assert_eq!(summary.vcpus[1].antagonist_groups[0].ran_ns, 1_600_000_000);
}

#[test]
fn a_process_with_the_name_of_a_kernel_thread_is_another_row() {
    let mut builder = builder();
    let mut span = preempted(1_000_000, &[]);
    let kernels = process(600, "ksoftirqd/1", 300_000);
    let Who::Thread(task) = &kernels.who else { panic!("{kernels:?}") };
    let task = Task { kind: ThreadKind::Kernel, ..(**task).clone() };
    let kernels = timeline::Antagonist::new(Who::Thread(Arc::new(task)), 300_000);
    span.antagonists = vec![process(500, "ksoftirqd/1", 600_000), kernels];
    builder.breakdown(VM1, &request(0, START, vec![span]));
    let class = finish(builder).classes.all;
    let ran_ns: Vec<u64> = class.antagonists.iter().map(|row| row.antagonist.ran_ns).collect();
    assert_eq!(ran_ns, [600_000, 300_000]);
}

#[test]
fn a_thread_counts_under_the_name_that_it_had() {
    let mut builder = builder();
    let mut span = preempted(1_000_000, &[]);
    span.antagonists = vec![process(500, "bash", 100_000), process(500, "cc1", 900_000)];
    builder.breakdown(VM1, &request(0, START, vec![span]));
    let summary = finish(builder);
    let expected = BTreeMap::from([("bash", 100_000), ("cc1", 900_000)]);
    assert_eq!(ran_by_name(&summary.classes.all), expected);
}

/// Nobody is in the way of a thread that its quota keeps from its pCPU.
#[test]
fn whoever_runs_while_a_quota_is_used_up_is_no_antagonist() {
    let mut builder = builder();
    let mut throttled = preempted(5_000_000, &[(201, 5_000_000)]);
    if let ThreadState::PreemptWait { reason, .. } = &mut throttled.state {
        *reason = Reason::Throttle;
    }
    let spans = vec![throttled, preempted(1_000_000, &[(201, 800_000)]), running(10_000)];
    let breakdown = request(0, START, spans);
    breakdown.chain.spans().for_each(|span| builder.span(span));
    builder.breakdown(VM1, &breakdown);
    let summary = finish(builder);
    assert_eq!(summary.parts.all.get(Part::Throttled), 5_000_000);
    let class = &summary.classes.all;
    assert_eq!(ran_by_name(class), BTreeMap::from([("vm2 vCPU1", 800_000)]));
    assert_eq!((class.wait_ns, class.unseen_ns), (1_000_000, 200_000));
    let vcpu = &summary.vcpus[1];
    assert_eq!((vcpu.antagonists[0].ran_ns, vcpu.antagonists[0].share), (800_000, 0.8));
    assert!(summary.worst[0].chain[0].antagonists.is_empty());
}

#[test]
fn a_pcpu_that_idled_is_nobody_and_has_a_figure_of_its_own() {
    let mut builder = builder();
    let span = woken(1_000_000);
    let antagonists = vec![antagonist(Tid(7), 300_000), antagonist(Tid::IDLE, 600_000)];
    let span = Span { antagonists, ..span };
    builder.span(&span);
    builder.breakdown(VM1, &request(0, START, vec![span]));
    let summary = finish(builder);
    let (class, vcpu) = (&summary.classes.all, &summary.vcpus[1]);
    assert_eq!(ran_by_name(class), BTreeMap::from([("kworker/1:1", 300_000)]));
    assert_eq!((class.idle_ns, class.unseen_ns), (600_000, 100_000));
    assert_eq!((vcpu.idle_ns, vcpu.unseen_ns, vcpu.antagonists.len()), (600_000, 100_000, 1));
    assert_eq!(summary.worst[0].chain[0].idle_ns, 600_000);
}

/// A chain keeps 64 spans; who was in the way in the others is known all the same.
#[test]
fn waits_that_a_chain_leaves_out_are_known() {
    let mut builder = builder();
    let turn = || [preempted(4_000_000, &[(201, 4_000_000)]), running(1_000_000)];
    let spans: Vec<Span> = (0..200).flat_map(|_| turn()).collect();
    builder.breakdown(VM1, &request(0, START, spans));
    let class = finish(builder).classes.all;
    assert_eq!((class.wait_ns, class.unseen_ns), (800_000_000, 0));
    assert_eq!(ran_by_name(&class), BTreeMap::from([("vm2 vCPU1", 800_000_000)]));
}

/// Spans of any kind, of up to 3 ms.
fn spans() -> impl Strategy<Value = Vec<Span>> {
    let span =
        (0..9_u8, 0..3_000_000_u64, 0..30_u8).prop_map(|(kind, length_ns, who)| match kind {
            0 => running(length_ns),
            1 => preempted(length_ns, &[(201, length_ns / 2), (7, length_ns / 3)]),
            2 => {
                let others = [(300 + u32::from(who), length_ns / 4), (0, length_ns / 5)];
                Span { antagonists: preempted(0, &others).antagonists, ..woken(length_ns) }
            }
            3 => blocked(Reason::Bql, length_ns),
            4 => blocked(Reason::Halt, length_ns),
            5 => blocked(Reason::PollSleep, length_ns),
            6 => blocked(Reason::Unknown, length_ns),
            7 => lost(length_ns),
            _ => running(length_ns / 1_000),
        });
    prop::collection::vec(span, 0..6)
}

/// Spans, from when until when the host had the I/O, and how well the request is known.
type DrawnRequest = (Vec<Span>, Option<(u64, u64)>, u8);

fn drawn_requests() -> impl Strategy<Value = Vec<DrawnRequest>> {
    let io = prop::option::weighted(0.8, (0..4_000_000_u64, 0..9_000_000_u64));
    prop::collection::vec((spans(), io, 0..20_u8), 0..150)
}

proptest! {
    /// Whatever is drawn: every law, and what the summary has in common with what was drawn.
    #[test]
    fn nothing_is_lost_and_nothing_is_made_up(requests in drawn_requests()) {
        let mut builder = builder();
        let (mut total_ns, mut attributed_ns, mut unplaced) = (0, 0, 0);
        for (index, (spans, io, fate)) in (0..).zip(requests) {
            let mut breakdown = request(index, HostNs(START.0 + index * 20_000_000), spans);
            if fate == 0 {
                builder.unplaced(VM1, &breakdown.request, Unplaced::ClockStepped);
                unplaced += 1;
                continue;
            }
            let latency_ns = breakdown.latency_ns();
            if let Some((from_ns, length_ns)) = io {
                let from_ns = from_ns.min(latency_ns);
                example::set_io(&mut breakdown, from_ns, (from_ns + length_ns).min(latency_ns));
            }
            if fate == 1 {
                breakdown.attribution = Attribution::Moved;
            } else {
                attributed_ns += latency_ns;
            }
            breakdown.clock_error.can_move = fate == 2;
            total_ns += latency_ns;
            breakdown.chain.spans().for_each(|span| builder.span(span));
            builder.breakdown(VM1, &breakdown);
        }
        let summary = finish(builder);
        prop_assert_eq!(laws::violations(&summary), Vec::<String>::new());
        prop_assert_eq!(summary.classes.all.latency_ns, attributed_ns);
        prop_assert_eq!(summary.requests.unattributable_by.clock_stepped, unplaced);
        // A class lies in the one before it, and each row in itself.
        let rows = [&summary.classes.all, &summary.classes.p99, &summary.classes.p999].map(ran_by_name);
        for (wider, narrower) in [(&rows[0], &rows[1]), (&rows[1], &rows[2])] {
            prop_assert!(wider.keys().eq(narrower.keys()));
            prop_assert!(wider.iter().all(|(name, ran_ns)| *ran_ns >= narrower[name]));
        }
        let vcpu = &summary.vcpus[1];
        prop_assert_eq!(vcpu.observed_ns, total_ns);
        if attributed_ns == total_ns {
            let parts = &summary.parts.all;
            prop_assert_eq!(vcpu.on_pcpu_ns, parts.get(Part::OnPcpu));
            let off = |wanted| vcpu.off_cpu.iter().find(|row| row.reason == wanted);
            let of = |wanted| off(wanted).unwrap().total_ns;
            prop_assert_eq!(of(OffReason::Left(Reason::Bql)), parts.get(Part::BqlWait));
            prop_assert_eq!(of(OffReason::WakeupDelay), parts.get(Part::WakeupDelay));
        }
        let json = serde_json::to_string(&summary).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Summary>(&json).unwrap(), &summary);
        let page = crate::summary::render_full(&summary, Default::default());
        prop_assert!(!page.contains("NaN") && !page.contains("INCONSISTENT"));
    }
}

#[test]
fn figures_of_nothing_are_null_and_not_zero() {
    let json = serde_json::to_value(finish(builder())).unwrap();
    let latencies = json["latency_ns"].as_object().unwrap();
    assert_eq!(latencies.len(), 8);
    assert!(latencies.values().all(serde_json::Value::is_null), "{latencies:?}");
    for key in ["iops", "elapsed_ns"] {
        assert!(json["requests"][key].is_null(), "{key}");
    }
    let timeslices = json["vcpus"][0]["timeslices"].as_object().unwrap();
    let figures = timeslices.iter().filter(|(key, _)| *key != "count");
    assert!(figures.map(|(_, figure)| figure).all(serde_json::Value::is_null), "{timeslices:?}");
    let off = &json["vcpus"][0]["off_cpu"][0];
    assert!(off["max_ns"].is_null() && off["total_ns"] == 0, "a sum of nothing is 0: {off}");
}

#[test]
fn the_example_comes_back_from_its_json() {
    let summary = example::summary();
    let json = serde_json::to_string_pretty(&summary).unwrap();
    assert_eq!(serde_json::from_str::<Summary>(&json).unwrap(), summary);
}
