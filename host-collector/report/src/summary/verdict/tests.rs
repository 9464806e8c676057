use super::*;
use crate::summary::causes::Cause;
use crate::summary::example::{self, blocked, preempted, request, running, woken};
use crate::summary::group::GroupMember;
use crate::summary::io::IoDisk;
use crate::summary::quota::QuotaUse;
use crate::summary::{OffReason, Summary, SummaryBuilder, Warning};
use vslice_core::join::{Attribution, NoPhase, Phase};
use vslice_core::timeline::{Reason, Span};
use vslice_core::units::HostNs;

/// When the host had the I/O of the slow requests, since their submission; `None` if that is not known.
type Io = Option<(u64, u64)>;

/// 990 requests of 100 us and 10 slow ones, of these spans.
fn run(slow: &[Span], io: Io, attribution: Attribution) -> Summary {
    let mut builder = SummaryBuilder::new(example::START, example::vms());
    for index in 0..1000 {
        let is_slow = index >= 990;
        let spans = if is_slow { slow.to_vec() } else { vec![running(100_000)] };
        let mut breakdown = request(index, HostNs(2_000_000_000), spans);
        if is_slow {
            breakdown.attribution = attribution;
            if let Some((submitted_ns, completed_ns)) = io {
                example::set_io(&mut breakdown, submitted_ns, completed_ns);
            }
        }
        builder.breakdown(example::VM1, &breakdown);
    }
    builder.finish(example::facts(), &example::names())
}

/// What is said of the slow requests.
fn above(slow: &[Span], io: Io) -> String {
    let verdict = verdict(&run(slow, io, Attribution::Attributed));
    let (opening, tail) = verdict.split_once(". In slower requests, ").unwrap();
    assert_eq!(opening, "99th percentile: 100 us");
    tail.to_owned()
}

/// Somebody else of the waits for pCPU1 of vm1's vCPU1.
const VM2: u32 = 201;

#[test]
fn a_slow_disk_is_the_cause_of_what_waits_for_it() {
    let slow = [running(200_000), blocked(Reason::Halt, 9_600_000), running(200_000)];
    assert_eq!(
        above(&slow, Some((100_000, 9_800_000))),
        "the I/O was in the host's disk (vda) or its queue for 97 % of the time; meanwhile vm1 \
         vCPU1 was halted."
    );
}

#[test]
fn a_slow_disk_is_the_cause_though_a_hog_keeps_the_vcpu_on_its_pcpu() {
    assert_eq!(
        above(&[running(10_000_000)], Some((100_000, 9_300_000))),
        "the I/O was in the host's disk (vda) or its queue for 92 % of the time; meanwhile vm1 \
         vCPU1 was on a pCPU (in the guest, in KVM or in the VMM)."
    );
}

#[test]
fn a_slow_disk_is_the_cause_though_another_has_the_pcpu_meanwhile() {
    let slow = [running(1_000_000), preempted(6_000_000, &[(VM2, 6_000_000)]), running(1_000_000)];
    assert_eq!(
        above(&slow, Some((100_000, 7_900_000))),
        "the I/O was in the host's disk (vda) or its queue for 98 % of the time; for most of that time vm1 \
         vCPU1 waited for a pCPU after being preempted."
    );
}

#[test]
fn contention_before_the_doorbell_is_said_so() {
    let slow = [running(100_000), preempted(6_000_000, &[(VM2, 6_000_000)]), running(900_000)];
    assert_eq!(
        above(&slow, Some((6_200_000, 6_900_000))),
        "vm1 vCPU1 waited for a pCPU for 86 % of the time because vm2 vCPU1 was running on pCPU1, before \
         the I/O reached the host."
    );
}

#[test]
fn contention_after_the_completion_is_said_so() {
    let slow = [running(300_000), preempted(6_000_000, &[(VM2, 6_000_000)]), running(700_000)];
    assert_eq!(
        above(&slow, Some((10_000, 200_000))),
        "vm1 vCPU1 waited for a pCPU for 86 % of the time because vm2 vCPU1 was running on pCPU1, after \
         the I/O had completed."
    );
}

#[test]
fn contention_on_both_sides_of_the_device_counts_together() {
    let wait = || preempted(3_000_000, &[(VM2, 3_000_000)]);
    let slow = [wait(), running(2_000_000), wait(), woken(1_000_000), running(1_000_000)];
    assert_eq!(
        above(&slow, Some((4_000_000, 4_500_000))),
        "vm1 vCPU1 waited for a pCPU for 70 % of the time (60 % because vm2 vCPU1 was running on pCPU1): \
         40 % after the I/O had completed, 30 % before it reached the host."
    );
}

/// Who had the pCPU is known over all waits: of those outside of the device only what must lie there.
#[test]
fn an_antagonist_is_not_given_waits_that_it_may_have_run_in_the_device() {
    let slow = [
        preempted(1_000_000, &[(VM2, 1_000_000)]),
        preempted(6_000_000, &[(VM2, 5_000_000)]),
        preempted(3_000_000, &[(7, 3_000_000)]),
    ];
    // Of the 10 ms 2 are of the device, of the 6 ms of vm2 at least 4 and at most 6 are not.
    assert_eq!(
        above(&slow, Some((1_000_000, 3_000_000))),
        "vm1 vCPU1 waited for a pCPU for 80 % of the time (at least 40 % because vm2 vCPU1 was running on \
         pCPU1): 70 % after the I/O had completed, 10 % before it reached the host."
    );
}

#[test]
fn a_halted_vcpu_waits_for_the_vmm_once_the_data_is_there() {
    let slow = [running(100_000), blocked(Reason::Halt, 8_000_000), running(100_000)];
    assert_eq!(
        above(&slow, Some((10_000, 200_000))),
        "vm1 vCPU1 was halted for 96 % of the time after the disk had done the I/O: the host's \
         kernel or the VMM had not yet passed it on, or the VMM notified another vCPU."
    );
    assert_eq!(
        above(&slow, Some((8_000_000, 8_100_000))),
        "the VMM had not yet submitted the I/O to the host for 96 % of the time; vm1 vCPU1 was halted \
         meanwhile."
    );
    assert_eq!(
        above(&slow, Some((4_100_000, 4_100_000))),
        "vm1 vCPU1 was halted for 98 % of the time, waiting for the VMM or another vCPU: 49 % after the \
         I/O had completed, 49 % before it reached the host."
    );
}

#[test]
fn of_unknown_phases_the_state_is_told_and_that_the_disk_may_be_the_cause() {
    let slow = [running(500_000), preempted(5_500_000, &[(VM2, 5_500_000)])];
    assert_eq!(
        above(&slow, None),
        "vm1 vCPU1 waited for a pCPU for 92 % of the time because vm2 vCPU1 was running on pCPU1; the I/O \
         phase is unknown, so it may have been the disk that they waited for."
    );
    assert_eq!(
        above(&[blocked(Reason::Halt, 5_000_000)], None),
        "vm1 vCPU1 was halted for 100 % of the time; the I/O phase is unknown, so it \
         may have been the disk that they waited for."
    );
}

#[test]
fn what_the_page_cache_served_no_disk_has_a_part_in() {
    let slow = [running(500_000), preempted(5_500_000, &[(VM2, 5_500_000)])];
    let mut builder = SummaryBuilder::new(example::START, example::vms());
    for index in 0..10 {
        let mut breakdown = request(index, example::START, slow.to_vec());
        breakdown.io = Err(NoPhase::PageCache);
        builder.breakdown(example::VM1, &breakdown);
    }
    let summary = builder.finish(example::facts(), &example::names());
    let told = "vm1 vCPU1 waited for a pCPU for 92 % of the time because vm2 vCPU1 was running on pCPU1; \
                the host's page cache had the data, so no disk was involved.";
    assert!(verdict(&summary).ends_with(told), "{}", verdict(&summary));
    let unknown = |warning: &&Warning| matches!(warning, Warning::UnknownPhases { .. });
    assert_eq!(summary.facts.warnings.iter().find(unknown), None);
}

#[test]
fn a_state_in_unknown_phases_does_not_outdo_a_disk_that_is_known() {
    let mut builder = SummaryBuilder::new(example::START, example::vms());
    for index in 0..10 {
        let mut breakdown = request(index, example::START, vec![running(1_000_000)]);
        if index < 3 {
            example::set_io(&mut breakdown, 0, 1_000_000);
        }
        builder.breakdown(example::VM1, &breakdown);
    }
    let summary = builder.finish(example::facts(), &example::names());
    let told = "no single cause dominates: 70 % on a pCPU; 30 % in the host's disk (vda); for 70 % the I/O \
                phase is unknown, so it may have been the disk that they waited for.";
    assert!(verdict(&summary).ends_with(told), "{}", verdict(&summary));
}

#[test]
fn a_lock_that_keeps_the_vcpu_is_the_cause_outside_of_the_device_only() {
    let slow = [running(1_000_000), blocked(Reason::Bql, 3_000_000)];
    for (io, told) in [
        (
            (100_000, 900_000),
            "vm1 vCPU1 waited for QEMU's big lock for 75 % of the time, after the I/O had completed.",
        ),
        (
            (4_000_000, 4_000_000),
            "vm1 vCPU1 waited for QEMU's big lock for 75 % of the time, before the I/O reached the host.",
        ),
        (
            (500_000, 4_000_000),
            "the I/O was in the host's disk (vda) or its queue for 88 % of the time; for most of that time \
             vm1 vCPU1 waited for QEMU's big lock.",
        ),
    ] {
        assert_eq!(above(&slow, Some(io)), told);
    }
    let slow = [running(1_000_000), blocked(Reason::VmmLock, 3_000_000)];
    let told = "vm1 vCPU1 waited for a VMM lock for 75 % of the time, after the I/O had completed.";
    assert_eq!(above(&slow, Some((100_000, 900_000))), told);
}

#[test]
fn a_vcpu_on_its_pcpu_is_the_cause_outside_of_the_device() {
    assert_eq!(
        above(&[running(5_000_000)], Some((4_900_000, 4_950_000))),
        "vm1 vCPU1 was on a pCPU (in the guest, in KVM or in the VMM) for 99 % of the time, before the I/O \
         reached the host."
    );
}

#[test]
fn a_pcpu_that_idled_is_nobodys_fault() {
    let slow = [running(1), preempted(6_000_000, &[(0, 6_000_000)])];
    assert_eq!(
        above(&slow, Some((0, 1))),
        "vm1 vCPU1 waited for a pCPU for 100 % of the time while its pCPU was idle, after the I/O had \
         completed."
    );
}

#[test]
fn waits_shared_by_many_are_no_ones() {
    let ran: Vec<(u32, u64)> = (300..310).map(|tid| (tid, 600_000)).collect();
    assert_eq!(
        above(&[running(1_000_000), preempted(6_000_000, &ran)], Some((0, 1_000_000))),
        "vm1 vCPU1 waited for a pCPU after being preempted for 86 % of the time (tid 300 ran during 10 % \
         of the waits), after the I/O had completed."
    );
}

#[test]
fn where_nothing_dominates_the_kinds_of_cause_are_named_in_their_order() {
    let wait = |length_ns| preempted(length_ns, &[(VM2, length_ns)]);
    assert_eq!(
        above(&[running(3_000_000), wait(3_000_000)], Some((1_500_000, 1_500_000))),
        "no single cause dominates: 50 % preemption wait after the I/O had completed; 50 % on a pCPU."
    );
    // The lead is too small.
    assert_eq!(
        above(&[wait(4_800_000), running(5_200_000)], Some((10_000_000, 10_000_000))),
        "no single cause dominates: 52 % on a pCPU before the I/O reached the host; 48 % preemption wait \
         before the I/O reached the host."
    );
    let slow = [
        running(4_500_000),
        blocked(Reason::Bql, 4_000_000),
        blocked(Reason::Halt, 1_000_000),
        woken(500_000),
    ];
    assert_eq!(
        above(&slow, Some((500_000, 4_500_000))),
        "no single cause dominates: 40 % in the host's disk (vda); 40 % BQL wait after the I/O had \
         completed; 10 % halt after the I/O had completed."
    );
}

#[test]
fn two_disks_are_not_named() {
    let mut summary = run(&[running(5_000_000)], Some((0, 5_000_000)), Attribution::Attributed);
    let other = summary.io.disks[0].clone();
    summary.io.disks.push(IoDisk { device: Some("vdb".to_owned()), ..other });
    assert!(verdict(&summary).contains("the I/O was in the host's disk or its queue"));
}

#[test]
fn what_could_not_be_attributed_is_not_explained() {
    let slow = [preempted(6_000_000, &[(VM2, 6_000_000)])];
    assert_eq!(
        verdict(&run(&slow, None, Attribution::Lost)),
        "99th percentile: 100 us. No slower request could be attributed to causes: they overlap losses or \
         lie outside the recording."
    );
}

#[test]
fn where_nothing_is_above_the_percentile_all_requests_are_told_of() {
    let summary = run(&[running(100_000)], Some((100_000, 100_000)), Attribution::Attributed);
    assert!(verdict(&summary).starts_with(
        "99th percentile: 100 us. No request was slower. Over all requests, vm1 vCPU1 was on a pCPU (in \
         the guest, in KVM or in the VMM) for 100 % of the time"
    ));
}

#[test]
fn inactivity_of_any_kind_beside_another_cause_is_said_if_it_is_a_large_share() {
    let inactive = |length_ns: u64| {
        let (wait, lock) = (length_ns / 3, length_ns - length_ns / 3);
        let slow =
            [running(6_000_000), preempted(wait, &[(VM2, wait)]), blocked(Reason::Bql, lock)];
        above(&slow, Some((0, 6_000_000)))
    };
    let said = "; 33 % is I/O inactivity: the I/O had completed, but vm1 vCPU1 was not on a pCPU to handle it.";
    assert!(inactive(3_000_000).ends_with(said), "{}", inactive(3_000_000));
    assert!(!inactive(1_500_000).contains("inactivity"));
}

#[test]
fn an_empty_run_has_nothing_to_explain() {
    let builder = SummaryBuilder::new(example::START, example::vms());
    let summary = builder.finish(example::facts(), &example::names());
    assert_eq!(verdict(&summary), "No request was recorded, so there is no latency to explain.");
}

#[test]
fn without_requests_the_vcpu_that_waited_most_is_named() {
    let mut summary = example::summary();
    summary.requests.count = 0;
    let has_rival = |vcpu: &Vcpu| !vcpu.antagonist_groups.is_empty();
    let place = summary.vcpus.iter().position(has_rival).unwrap();
    summary.vcpus.iter_mut().for_each(|vcpu| vcpu.off_cpu.clear());
    let vcpu = &mut summary.vcpus[place];
    (vcpu.observed_ns, vcpu.wait_ns, vcpu.idle_ns) = (1_000, 900, 0);
    vcpu.antagonist_groups[0].share = 0.5;
    let (vm, name) = (vcpu.vm.clone(), vcpu.antagonists[0].thread.name.clone());
    let by = format!("Of all vCPUs, {vm} {} waited most for a pCPU: 90.0 % of its time", vcpu.vcpu);
    let told = verdict(&summary);
    assert!(told.ends_with(&format!("{by}, mostly while {name} was running there.")), "{told}");
    summary.vcpus[place].antagonist_groups[0].share = 0.4;
    let some = format!("{by}, 40 % of it while {name} was running there.");
    assert!(verdict(&summary).ends_with(&some), "{}", verdict(&summary));
    summary.vcpus[place].antagonist_groups[0].share = 0.09;
    assert!(verdict(&summary).ends_with(&format!("{by}.")), "{}", verdict(&summary));
    summary.vcpus[place].idle_ns = 500;
    let idle = format!("{by}, mostly while its pCPU was idle.");
    assert!(verdict(&summary).ends_with(&idle), "{}", verdict(&summary));
}

/// Nobody waits for a pCPU for long, and nothing but one thing keeps a vCPU from its work.
fn kept_by(reason: Reason, kept_ns: u64) -> String {
    let mut summary = example::summary();
    (summary.requests.count, summary.facts.measured_ns) = (0, 1_000_000);
    for vcpu in &mut summary.vcpus {
        (vcpu.observed_ns, vcpu.wait_ns) = (1_000_000, 500);
        vcpu.off_cpu.iter_mut().for_each(|row| row.total_ns = 0);
    }
    let mut rows = summary.vcpus[1].off_cpu.iter_mut();
    let row = rows.find(|row| row.reason == OffReason::Left(reason)).unwrap();
    (row.count, row.total_ns) = (1, kept_ns);
    verdict(&summary)
}

#[test]
fn without_requests_a_quota_or_a_lock_is_named_where_it_cost_most() {
    let opening = "No request was recorded, so there is no latency to explain.";
    for (reason, label) in [(Reason::Throttle, "throttled"), (Reason::Bql, "BQL")] {
        let told = format!(
            "{opening} Of all vCPUs, vm1 vCPU1 was held up most: 60.0 % of its time ({label})."
        );
        assert_eq!(kept_by(reason, 600_000), told);
    }
    // A guest that has nothing to do is not kept from anything, and what nobody feels is no finding.
    let quiet = format!(
        "{opening} No vCPU waited for a pCPU, a lock or memory for more than 0.1 % of its time."
    );
    assert_eq!(kept_by(Reason::Halt, 900_000), quiet);
    assert_eq!(kept_by(Reason::Bql, 900), quiet);
}

#[test]
fn a_vm_that_did_not_move_and_a_run_that_did_not_begin_are_said_so() {
    let mut summary = example::summary();
    summary.requests.count = 0;
    for vcpu in &mut summary.vcpus {
        (vcpu.observed_ns, vcpu.wait_ns) = (1_000, 0);
        vcpu.off_cpu.iter_mut().for_each(|row| row.total_ns = 0);
        let mut rows = vcpu.off_cpu.iter_mut();
        rows.find(|row| row.reason == OffReason::NotRecorded).unwrap().total_ns = 1_000;
    }
    let told =
        " No vCPU was ever scheduled in or out: the VM was stopped or paused, or nothing woke it.";
    assert!(verdict(&summary).ends_with(told), "{}", verdict(&summary));
    summary.vcpus[0].off_cpu.clear();
    assert!(!verdict(&summary).contains("stopped"), "one of them did");
    summary.facts.measured_ns = 0;
    assert_eq!(verdict(&summary), "Nothing was measured, so there is nothing to explain.");
}

#[test]
fn without_events_the_totals_say_who_waited() {
    let mut summary = example::sampled();
    summary.requests.count = 0;
    let told = verdict(&summary);
    let expected = "Of all vCPUs, vm1 vCPU1 waited most for a pCPU: 25.0 % of its time; what ran there \
                    meanwhile was not recorded.";
    assert!(told.ends_with(expected), "{told}");
    summary.facts.scheduled.clear();
    assert!(verdict(&summary).ends_with("no latency to explain."), "{}", verdict(&summary));
}

/// A vCPU of vm2 that made requests as well, of which none was slow or waited.
fn with_another_reader(mut summary: Summary) -> Summary {
    summary.clock.vcpus[1].requests = 3;
    summary
}

#[test]
fn a_reader_that_is_seldom_slow_is_one_nevertheless() {
    let one = run(&[running(5_000_000)], Some((4_900_000, 4_950_000)), Attribution::Attributed);
    assert!(verdict(&one).contains("vm1 vCPU1 was on a pCPU"), "{}", verdict(&one));
    let two = with_another_reader(one);
    assert!(verdict(&two).contains("the requesting vCPU was on a pCPU"), "{}", verdict(&two));
    // Where no clock placed a request, what is known names them.
    let mut none = two;
    none.clock.vcpus.clear();
    assert!(verdict(&none).contains("vm1 vCPU1 was on a pCPU"), "{}", verdict(&none));
}

/// The share is of all that made requests; who had the pCPU is of one.
#[test]
fn a_share_of_several_readers_is_not_told_of_one() {
    let wait = || preempted(3_000_000, &[(VM2, 3_000_000)]);
    let slow = [wait(), running(2_000_000), wait(), woken(1_000_000), running(1_000_000)];
    let io = Some((4_000_000, 4_500_000));
    let told = verdict(&with_another_reader(run(&slow, io, Attribution::Attributed)));
    let expected = "the requesting vCPU waited for a pCPU for 70 % of the time (60 % because vm2 vCPU1 was \
                    running on pCPU1 while vm1 vCPU1 waited): 40 % after the I/O";
    assert!(told.contains(expected), "{told}");
}

#[test]
fn whoever_are_many_and_of_one_group_are_called_by_it() {
    let slow = [running(1_000_000), preempted(6_000_000, &[(501, 3_000_000), (502, 3_000_000)])];
    let mut summary = run(&slow, Some((0, 1_000_000)), Attribution::Attributed);
    let told = verdict(&summary);
    assert!(told.contains("because build.service was running on pCPU1"), "{told}");
    let group = &mut summary.classes.p99.antagonist_groups[0].group;
    (group.path, group.name) = (Some("/".to_owned()), "root control group".to_owned());
    let told = verdict(&summary);
    let named = "because the root control group (cc1, make) was running on pCPU1";
    assert!(told.contains(named), "{told}");
    let group = &mut summary.classes.p99.antagonist_groups[0].group;
    let third = GroupMember { ran_ns: 1, ..group.members[1].clone() };
    group.members.push(third);
    (group.names, group.ran_ns) = (3, group.ran_ns + 1);
    let told = verdict(&summary);
    assert!(told.contains("the root control group (cc1, make and others) was"), "{told}");
}

/// The classes have the same rows: somebody may be there for what it ran in another one.
#[test]
fn whoever_ran_in_another_class_or_for_little_is_not_named() {
    let slow = [running(1_000_000), preempted(6_000_000, &[(VM2, 6_000_000)])];
    let mut summary = run(&slow, Some((0, 1_000_000)), Attribution::Attributed);
    for ran_ns in [0, summary.classes.p99.wait_ns / 20] {
        summary.classes.p99.antagonist_groups[0].group.ran_ns = ran_ns;
        let told = verdict(&summary);
        let expected =
            "vm1 vCPU1 waited for a pCPU after being preempted for 86 % of the time, after the I/O";
        assert!(told.contains(expected), "{told}");
    }
}

/// Whoever is woken while its quota is used up waits as for a neighbour.
#[test]
fn where_a_quota_was_used_up_waits_may_be_of_it() {
    let slow = [running(300_000), preempted(6_000_000, &[(VM2, 6_000_000)]), running(700_000)];
    let told = |used_up_count, kept_off_ns| {
        let mut summary = run(&slow, Some((10_000, 200_000)), Attribution::Attributed);
        summary.vcpus[1].quota = Some(QuotaUse { used_up_count, kept_off_ns });
        // In the whole run, of which the ten slow ones had 60 ms.
        summary.vcpus[1].wait_ns = 600_000_000;
        verdict(&summary)
    };
    let neighbour = "because vm2 vCPU1 was running on pCPU1, after the I/O had completed";
    assert!(told(1, 59_000_000).ends_with(&format!("{neighbour}.")), "{}", told(1, 59_000_000));
    let once = "; its CPU quota was used up once in this run, so some of this may be throttling.";
    assert!(
        told(1, 60_000_000).ends_with(&format!("{neighbour}{once}")),
        "{}",
        told(1, 60_000_000)
    );
    assert!(told(37, 90_000_000).contains("; its CPU quota was used up 37 times"));
    let mut undecided = run(
        &[running(3_000_000), preempted(3_000_000, &[(VM2, 3_000_000)])],
        Some((1_500_000, 1_500_000)),
        Attribution::Attributed,
    );
    undecided.vcpus[1].wait_ns = 600_000_000;
    undecided.vcpus[1].quota = Some(QuotaUse { used_up_count: 1, kept_off_ns: 90_000_000 });
    assert!(verdict(&undecided).contains("no single cause dominates"));
    assert!(verdict(&undecided).ends_with(once), "{}", verdict(&undecided));
    // That of a vCPU that asked for nothing is not the reason.
    let mut other = run(&slow, Some((10_000, 200_000)), Attribution::Attributed);
    other.vcpus[3].quota = Some(QuotaUse { used_up_count: 9, kept_off_ns: 90_000_000 });
    assert!(!verdict(&other).contains("quota"), "{}", verdict(&other));
}

#[test]
fn without_requests_a_quota_may_be_what_the_vcpu_waited_for() {
    let mut summary = example::summary();
    summary.requests.count = 0;
    for vcpu in &mut summary.vcpus {
        (vcpu.observed_ns, vcpu.wait_ns) = (1_000, 0);
        vcpu.off_cpu.clear();
    }
    summary.vcpus[1].wait_ns = 900;
    summary.vcpus[1].quota = Some(QuotaUse { used_up_count: 2, kept_off_ns: 900 });
    let told = verdict(&summary);
    assert!(told.contains("waited most for a pCPU: 90.0 % of its time"), "{told}");
    assert!(
        told.ends_with(
            "; its CPU quota was used up 2 times in this run, so some of this may be throttling."
        ),
        "{told}"
    );
}

#[test]
fn causes_of_584_years_are_no_fault() {
    let mut summary = run(&[running(5_000_000)], Some((0, 0)), Attribution::Attributed);
    let cause =
        |part| Cause { phase: Phase::Completed, part: Some(part), total_ns: u64::MAX, share: 1.0 };
    summary.causes.p99 = vec![cause(Part::PreemptWait), cause(Part::BqlWait)];
    summary.classes.p99.latency_ns = u64::MAX;
    assert!(verdict(&summary).contains("no single cause dominates"), "{}", verdict(&summary));
}
