//! Which warnings the numbers of a summary deserve.

use super::io::IoClass;
use super::model::{Relation, Summary, Vcpu};
use super::totals::{share, sum};
use super::warning::Warning;
use super::{observed, sampled};
use vslice_core::join::Part;
use vslice_trace::evidence::EvidenceLevel;

/// Above this share of the tail's time that is unknown, [`Warning::UnknownTail`] is given.
const UNKNOWN_SHARE_MAX: f64 = 0.05;

/// Above this share of the requests' time without a known I/O phase, [`Warning::UnknownPhases`] is given.
const UNKNOWN_PHASES_SHARE_MAX: f64 = 0.1;

/// Above this share of the 99th percentile, the clock's bound brings [`Warning::ClockBound`].
pub(super) const CLOCK_SHARE_MAX: f64 = 0.1;

/// Above this share of a vCPU's time, what vslice's own threads ran while it waited brings
/// [`Warning::CollectorRan`].
const OWN_SHARE_MAX: f64 = 0.01;

/// Above this share of the measured time, lost records bring [`Warning::LostRecords`].
const LOST_SHARE_MAX: f64 = 0.01;

/// Above this share of all requests, dropped ones bring [`Warning::DroppedRequests`]: they may all have been
/// slow, and a tenth of those above the 99th percentile move it.
const DROPPED_SHARE_MAX: f64 = 0.001;

/// Above this share of all requests, or that one of the slow ones, those that could not be attributed to causes
/// bring [`Warning::Unattributable`].
pub(super) const LEFT_OUT_SHARE_MAX: f64 = 0.01;
pub(super) const LEFT_OUT_TAIL_SHARE_MAX: f64 = 0.05;

/// An answer about fewer requests than this brings [`Warning::ThinTail`].
pub(super) const CLASS_COUNT_MIN: u64 = 10;

/// Above this share of the measured time, what the collector's threads waited for a pCPU brings
/// [`Warning::CollectorWaited`].
const COLLECTOR_WAIT_SHARE_MAX: f64 = 0.25;

/// What the numbers of a summary say against themselves.
pub(super) fn warnings(summary: &Summary) -> Vec<Warning> {
    let mut warnings = Vec::new();
    recording(summary, &mut warnings);
    clock(summary, &mut warnings);
    if summary.requests.count > summary.requests.unattributable_by.unplaced() {
        tail(summary, &mut warnings);
    }
    warnings.extend(phases(summary));
    warnings.extend(observed::warnings(summary));
    // One that was never started is no news.
    let idle_hogs =
        summary.facts.hogs.iter().filter(|hog| hog.count == 0 && summary.facts.measured_ns > 0);
    warnings.extend(
        idle_hogs.map(|hog| Warning::HogDidNotCount { vm: hog.vm.clone(), vcpu: hog.vcpu }),
    );
    warnings.extend(summary.vcpus.iter().filter_map(collector_ran));
    warnings
}

fn recording(summary: &Summary, warnings: &mut Vec<Warning>) {
    let requests = &summary.requests;
    if share(summary.facts.lost.total_ns, summary.facts.measured_ns) > LOST_SHARE_MAX {
        let (records, intervals) = (summary.facts.lost.records, summary.facts.lost.intervals);
        warnings.push(Warning::LostRecords { records, intervals });
    }
    let made = requests.count.saturating_add(requests.dropped);
    if share(requests.dropped, made) > DROPPED_SHARE_MAX {
        let (count, intervals) = (requests.dropped, requests.dropped_intervals);
        warnings.push(Warning::DroppedRequests { count, intervals });
    }
    let (waited_ns, measured_ns) =
        (summary.facts.cost.collector_run_delay_ns, summary.facts.whole_ns());
    // A VM that was asked for nothing waits for nobody who listens.
    let is_asked = requests.count > 0 || !summary.facts.hogs.is_empty();
    if is_asked && share(waited_ns, measured_ns) > COLLECTOR_WAIT_SHARE_MAX {
        warnings.push(Warning::CollectorWaited { waited_ns, measured_ns });
    }
    sampled::warn(summary, warnings);
    let unplaced = requests.unattributable_by.unplaced();
    let count = requests.unattributable.saturating_sub(unplaced);
    let tail = &summary.classes.p99;
    let of_tail = share(tail.unattributable, tail.count.saturating_add(tail.unattributable));
    let is_felt = share(count, requests.count) > LEFT_OUT_SHARE_MAX
        || count > 0 && of_tail > LEFT_OUT_TAIL_SHARE_MAX;
    if is_felt && summary.facts.evidence.level == EvidenceLevel::Recorded {
        warnings.push(Warning::Unattributable { count, share: share(count, requests.count) });
    }
    if unplaced > 0 {
        warnings.push(Warning::Unplaced { count: unplaced });
    }
    if requests.errors > 0 || requests.short > 0 {
        let (errors, short) = (requests.errors, requests.short);
        warnings.push(Warning::FailedRequests { errors, short });
    }
}

fn clock(summary: &Summary, warnings: &mut Vec<Warning>) {
    let clock = &summary.clock;
    let check = clock.check;
    if check.violations > 0 {
        let (count, worst_ns) = (check.violations, check.worst_ns);
        warnings.push(Warning::ClockViolated { count, worst_ns });
    }
    let kvm = clock.kvm_check();
    if kvm.violations > 0 {
        let (count, worst_ns) = (kvm.violations, kvm.worst_ns);
        warnings.push(Warning::KvmClockViolated { count, worst_ns });
    }
    let ptp = clock.ptp_check();
    if ptp.violations > 0 {
        let (count, worst_ns) = (ptp.violations, ptp.worst_ns);
        warnings.push(Warning::PtpClockViolated { count, worst_ns });
    }
    let hogs = clock.hog_check();
    if hogs.violations > 0 {
        let (count, worst_ns) = (hogs.violations, hogs.worst_ns);
        warnings.push(Warning::HogClockViolated { count, worst_ns });
    }
    let stepped = clock.vcpus.iter().filter(|vcpu| vcpu.cut_count > 0);
    warnings.extend(stepped.map(|vcpu| Warning::ClockStepped {
        vm: vcpu.vm.clone(),
        vcpu: vcpu.vcpu,
        count: vcpu.cut_count,
        step_ns: vcpu.step_max_ns(),
    }));
    warnings.extend(clock.apart.iter().map(|apart| Warning::ClocksApart {
        vm: apart.vm.clone(),
        vcpu: apart.vcpu,
        other_vcpu: apart.other_vcpu,
        apart_ns: apart.apart_ns,
    }));
}

fn tail(summary: &Summary, warnings: &mut Vec<Warning>) {
    let unknown_ns = summary.parts.p99.get(Part::Unknown);
    let unknown_share = share(unknown_ns, summary.classes.p99.latency_ns);
    if unknown_share > UNKNOWN_SHARE_MAX {
        warnings.push(Warning::UnknownTail { share: unknown_share });
    }
    // That which the sentence is about.
    let (name, count) = match summary.classes.p99.count {
        0 => ("all", summary.classes.all.count),
        slow => ("p99", slow),
    };
    // Where no request at all has causes there is no such answer.
    if (1..CLASS_COUNT_MIN).contains(&count) {
        warnings.push(Warning::ThinTail { class: name.to_owned(), count });
    }
    if let (Some(bound_ns), Some(p99_ns)) = (summary.clock.bound_ns, summary.latency_ns.p99)
        && bound_ns as f64 > CLOCK_SHARE_MAX * p99_ns as f64
    {
        warnings.push(Warning::ClockBound { bound_ns, p99_ns });
    }
}

/// Where the I/O was not recorded at all that is said instead.
fn phases(summary: &Summary) -> Option<Warning> {
    let share_of = |io: &IoClass| share(io.unknown_ns(), sum(io.phases_ns.values().copied()));
    let io = &summary.io.classes;
    let (all, p99) = (share_of(&io.all), share_of(&io.p99));
    let is_recorded = io.all.unphased_by.not_recorded < io.all.unphased;
    let is_much = all.max(p99) > UNKNOWN_PHASES_SHARE_MAX;
    (is_recorded && is_much).then(|| Warning::UnknownPhases {
        share: all,
        p99_share: p99,
        requests: io.all.unphased,
        by: io.all.unphased_by,
        hidden: summary.io.hidden.clone(),
    })
}

/// Who had the pCPU is what a report finds out; that it was whoever looked changes what was found.
fn collector_ran(vcpu: &Vcpu) -> Option<Warning> {
    let own = vcpu.antagonists.iter().filter(|row| row.thread.kind == Relation::Collector);
    let ran_ns = sum(own.map(|row| row.ran_ns));
    let share = share(ran_ns, vcpu.observed_ns);
    (share > OWN_SHARE_MAX).then(|| Warning::CollectorRan {
        vm: vcpu.vm.clone(),
        vcpu: vcpu.vcpu,
        share,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::example;
    use crate::summary::io::UnphasedBy;
    use crate::summary::model::Hog;
    use std::collections::BTreeMap;
    use vslice_core::join::Phase;
    use vslice_core::units::VcpuId;

    /// The example without anything that it would be warned of.
    fn sound() -> Summary {
        let mut summary = example::summary();
        summary.facts.lost = Default::default();
        summary.requests.unattributable = 0;
        summary.classes.p99.unattributable = 0;
        summary
    }

    fn warned(change: impl FnOnce(&mut Summary)) -> Vec<Warning> {
        let mut summary = sound();
        change(&mut summary);
        warnings(&summary)
    }

    #[test]
    fn a_sound_run_is_not_warned_of() {
        assert_eq!(warned(|_| {}), []);
    }

    #[test]
    fn a_collector_that_was_kept_waiting_is_warned_of() {
        let waited = |waited_ns| {
            move |summary: &mut Summary| {
                summary.facts.cost.collector_run_delay_ns = waited_ns;
            }
        };
        let measured_ns = sound().facts.measured_ns;
        assert_eq!(warned(waited(measured_ns / 4)), []);
        let waited_ns = measured_ns / 1_000 * 251;
        let expected = [Warning::CollectorWaited { waited_ns, measured_ns }];
        assert_eq!(warned(waited(waited_ns)), expected);
        // Nobody in the VM waits for a collector that asked it for nothing.
        let unasked = |summary: &mut Summary| {
            summary.facts.cost.collector_run_delay_ns = waited_ns;
            summary.requests.count = 0;
            summary.facts.hogs.clear();
        };
        assert_eq!(warned(unasked), []);
    }

    #[test]
    fn losses_of_every_kind_are_warned_of_where_they_can_be_felt() {
        let lost = |total_ns| crate::summary::model::Lost { records: 3, intervals: 2, total_ns };
        assert_eq!(warned(|summary| summary.facts.lost = lost(10_000_000)), [], "1 % of the time");
        let warning = Warning::LostRecords { records: 3, intervals: 2 };
        assert_eq!(warned(|summary| summary.facts.lost = lost(10_100_000)), [warning]);
        let dropped = |count| {
            move |summary: &mut Summary| {
                summary.requests.dropped = count;
                summary.requests.dropped_intervals = 1;
            }
        };
        assert_eq!(warned(dropped(2)), [], "2 of 2,002");
        assert_eq!(warned(dropped(3)), [Warning::DroppedRequests { count: 3, intervals: 1 }]);
        for (errors, short) in [(4, 0), (0, 5), (4, 5)] {
            let failed = |summary: &mut Summary| {
                (summary.requests.errors, summary.requests.short) = (errors, short);
            };
            assert_eq!(warned(failed), [Warning::FailedRequests { errors, short }]);
        }
    }

    #[test]
    fn what_could_not_be_given_to_causes_is_warned_of_where_it_can_be_felt() {
        let left_out = |count, of_tail| {
            warned(move |summary| {
                summary.requests.unattributable = count;
                summary.classes.p99.count = 95;
                summary.classes.p99.unattributable = of_tail;
            })
        };
        assert_eq!(left_out(20, 0), [], "1 % of 2,000");
        assert_eq!(left_out(21, 0), [Warning::Unattributable { count: 21, share: 0.0105 }]);
        assert_eq!(left_out(5, 5), [], "5 % of the slow ones");
        assert_eq!(left_out(6, 6), [Warning::Unattributable { count: 6, share: 0.003 }]);
    }

    /// They are among those that could not be attributed to causes, and no class has them.
    #[test]
    fn requests_without_a_place_are_warned_of_once() {
        let left_out = |count, of_tail| {
            warned(move |summary| {
                summary.requests.unattributable = count;
                summary.requests.unattributable_by.no_clock = 30;
                summary.classes.p99.count = 90;
                summary.classes.p99.unattributable = of_tail;
            })
        };
        let unplaced = || Warning::Unplaced { count: 30 };
        assert_eq!(left_out(30, 0), [unplaced()], "1.5 % of 2,000");
        assert_eq!(left_out(30, 10), [unplaced()], "there is no other");
        let others = Warning::Unattributable { count: 1, share: 0.0005 };
        assert_eq!(left_out(31, 10), [others, unplaced()]);
    }

    #[test]
    fn an_unknown_tail_is_warned_of_from_just_above_five_percent() {
        let unknown = |unknown_ns| {
            warned(move |summary| {
                summary.parts.p99.add(Part::Unknown, unknown_ns);
                summary.classes.p99.latency_ns = 100_000;
            })
        };
        assert_eq!(unknown(5_000), []);
        assert_eq!(unknown(5_100), [Warning::UnknownTail { share: 0.051 }]);
    }

    #[test]
    fn phases_that_are_not_known_are_warned_of_above_a_tenth_of_the_requests_time() {
        let unknown = |unknown_ns: u64, not_recorded: u64| {
            warned(move |summary| {
                let io = &mut summary.io.classes.all;
                (io.known, io.unphased) = (842, 1_158);
                let unfinished = 1_158 - not_recorded;
                io.unphased_by = UnphasedBy { unfinished, not_recorded, ..UnphasedBy::default() };
                io.phases_ns = BTreeMap::from([
                    (Phase::Device, 100_000 - unknown_ns),
                    (Phase::Unknown, unknown_ns),
                ]);
            })
        };
        assert_eq!(unknown(10_000, 0), []);
        assert_eq!(unknown(10_100, 0).len(), 1);
        assert_eq!(unknown(57_000, 1_158), [], "that is said elsewhere");
        let warnings = unknown(57_000, 0);
        let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
        assert_eq!(
            warning.to_string(),
            "the I/O phase is unknown for 57.0 % of the requests' time (8.6 % above p99), so queued, \
             device and completed cover only the rest: 1,158 requests (1,158 whose I/O completion was not \
             seen); the kernel of this host hides from tracing whatever happens while these tasks are on a \
             pCPU: idle on pCPU0 (71 times)"
        );
    }

    #[test]
    fn phases_that_are_not_known_of_the_slow_ones_are_warned_of_as_well() {
        let slow = |unknown_ns: u64| {
            let phases_ns = BTreeMap::from([
                (Phase::Device, 100_000 - unknown_ns),
                (Phase::Unknown, unknown_ns),
            ]);
            let warnings = warned(|summary| summary.io.classes.p99.phases_ns = phases_ns);
            let p99_share = |warning: &Warning| match warning {
                Warning::UnknownPhases { p99_share, .. } => *p99_share,
                other => panic!("{other:?}"),
            };
            warnings.iter().map(p99_share).collect::<Vec<_>>()
        };
        assert_eq!(slow(10_000), [0.0; 0]);
        assert_eq!(slow(10_100), [0.101]);
    }

    /// Sums of a guest that lies stay at the most that there can be.
    #[test]
    fn phases_of_584_years_are_no_fault() {
        let endless = |summary: &mut Summary| {
            summary.io.classes.all.phases_ns =
                BTreeMap::from([(Phase::Device, u64::MAX), (Phase::Unknown, u64::MAX)]);
        };
        let [Warning::UnknownPhases { share, .. }] = warned(endless)[..] else {
            panic!("no phases")
        };
        assert!((share - 1.0).abs() < 1e-9, "{share}");
    }

    #[test]
    fn a_coarse_clock_is_warned_of_from_just_above_a_tenth_of_p99() {
        let bound = |bound_ns| {
            warned(move |summary| {
                summary.latency_ns.p99 = Some(1_000_000);
                summary.clock.bound_ns = Some(bound_ns);
            })
        };
        assert_eq!(bound(100_000), []);
        let warning = Warning::ClockBound { bound_ns: 100_001, p99_ns: 1_000_000 };
        assert_eq!(bound(100_001), [warning]);
    }

    #[test]
    fn a_clock_that_is_not_sound_is_warned_of() {
        let example = example::unsound_clock();
        let of_clock = |warning: &Warning| {
            matches!(
                warning,
                Warning::Unplaced { .. }
                    | Warning::ClockViolated { .. }
                    | Warning::ClockStepped { .. }
                    | Warning::ClocksApart { .. }
            )
        };
        let found: Vec<Warning> = warnings(&example).into_iter().filter(of_clock).collect();
        let (vm, vcpu, worst_ns) = ("vm1".to_owned(), VcpuId(1), 1_230_000);
        let expected = [
            Warning::Unplaced { count: 3 },
            Warning::ClockViolated { count: 1, worst_ns },
            Warning::ClockStepped { vm: vm.clone(), vcpu, count: 2, step_ns: 15_700_000 },
            Warning::ClocksApart { vm, vcpu: VcpuId(0), other_vcpu: vcpu, apart_ns: 15_700_000 },
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_hog_that_stood_still_is_warned_of() {
        let hog = Hog { vm: "vm2".into(), vcpu: VcpuId(3), count: 0 };
        let warning = Warning::HogDidNotCount { vm: "vm2".into(), vcpu: VcpuId(3) };
        assert_eq!(warned(|summary| summary.facts.hogs.push(hog.clone())), [warning]);
        let not_begun = |summary: &mut Summary| {
            summary.facts.hogs.push(hog.clone());
            summary.facts.measured_ns = 0;
        };
        let told = warned(not_begun);
        let is_of_hog = |warning: &Warning| matches!(warning, Warning::HogDidNotCount { .. });
        assert!(!told.iter().any(is_of_hog), "it was never started: {told:?}");
    }

    #[test]
    fn who_had_the_pcpu_is_what_was_found_unless_it_was_vslice() {
        let ran = |kind, ran_ns| {
            warned(move |summary| {
                let vcpu = &mut summary.vcpus[1];
                vcpu.observed_ns = 100_000;
                vcpu.antagonists.truncate(1);
                vcpu.antagonists[0].thread.kind = kind;
                vcpu.antagonists[0].ran_ns = ran_ns;
            })
        };
        assert_eq!(ran(Relation::HostTask, 90_000), [], "90 % of its time");
        assert_eq!(ran(Relation::Collector, 1_000), []);
        let warning = Warning::CollectorRan { vm: "vm1".into(), vcpu: VcpuId(1), share: 0.011 };
        assert_eq!(ran(Relation::Collector, 1_100), [warning]);
    }

    #[test]
    fn an_answer_about_few_requests_is_warned_of() {
        let thin = |class: &str, count| Warning::ThinTail { class: class.into(), count };
        let slow = |count| {
            move |summary: &mut Summary| {
                (summary.classes.p99.count, summary.classes.p99.unattributable) = (count, 0);
            }
        };
        assert_eq!(warned(slow(10)), []);
        assert_eq!(warned(slow(9)), [thin("p99", 9)]);
        let left_out = |summary: &mut Summary| {
            slow(9)(summary);
            summary.classes.p99.unattributable = 1;
        };
        let [first, ..] = &warned(left_out)[..] else { panic!("no warning") };
        assert_eq!(*first, thin("p99", 9), "the answer does not rest on what has no cause");
        // Without slow ones the answer is about all of them.
        assert_eq!(warned(slow(0)), []);
        let few = |summary: &mut Summary| {
            slow(0)(summary);
            summary.classes.all.count = 9;
            summary.classes.all.unattributable = 0;
        };
        assert_eq!(warned(few), [thin("all", 9)]);
        // No sentence is about those above p99.9.
        assert_eq!(warned(|summary| summary.classes.p999.count = 0), []);
    }

    #[test]
    fn a_run_without_requests_is_not_warned_of_their_number() {
        let none = |summary: &mut Summary| {
            summary.requests.count = 0;
            summary.requests.unattributable = 0;
            summary.classes = Default::default();
        };
        assert_eq!(warned(none), []);
    }
}
