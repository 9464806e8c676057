//! What the reader of a report should know before believing it.

use super::evidence::EvidenceLevel;
use super::model::{Relation, Summary, Vcpu, share};
use super::sampled;
use super::text::units::{counted, duration, percent};
use crate::join::Part;
use crate::units::VcpuId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Above this share of the tail's time that is unknown, [`Warning::UnknownTail`] is given.
pub const UNKNOWN_SHARE_MAX: f64 = 0.05;

/// Above this share of the 99th percentile, the clock's bound brings [`Warning::ClockBound`].
pub const CLOCK_SHARE_MAX: f64 = 0.1;

/// Above this share of a vCPU's waits, threads outside the VMs bring [`Warning::OutsidePlan`].
pub const OUTSIDE_SHARE_MAX: f64 = 0.01;

/// A vCPU that waited for less than this share of its time is not looked at for
/// [`Warning::OutsidePlan`]: of next to nothing, anybody can be 1 %.
pub const WAIT_SHARE_MIN: f64 = 0.01;

/// A class of fewer requests than this brings [`Warning::ThinTail`].
pub const CLASS_COUNT_MIN: u64 = 10;

/// Above this share of the measured time, what the collector's threads waited for a pCPU brings
/// [`Warning::CollectorWaited`].
pub const COLLECTOR_WAIT_SHARE_MAX: f64 = 0.25;

/// One thing to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Warning {
    /// No request was recorded.
    NoRequests,
    /// The kernel dropped records.
    LostRecords {
        /// How many.
        records: u64,
        /// In how many stretches of time.
        intervals: u64,
    },
    /// Guests dropped requests, which no latency knows of.
    DroppedRequests {
        /// How many.
        count: u64,
        /// In how many stretches of time.
        intervals: u64,
    },
    /// No event was recorded: what is said of vCPUs rests on less.
    NotRecorded {
        /// On what.
        level: EvidenceLevel,
        /// Why.
        reason: String,
    },
    /// A vCPU was sampled at moments that are not like its others.
    SampleBias {
        /// The VM.
        vm: String,
        /// The vCPU.
        vcpu: VcpuId,
        /// The share of looks that showed it running or waiting for a pCPU.
        sampled: f64,
        /// The same share by the kernel's totals.
        counted: f64,
    },
    /// The run went without something that this kernel lacks or does not show.
    MissingEvidence {
        /// What.
        name: String,
        /// What the report goes without.
        costs: String,
    },
    /// Requests were recorded but could not be given to causes.
    Unattributable {
        /// How many.
        count: u64,
        /// Their share of all recorded requests.
        share: f64,
    },
    /// Requests were recorded but have no place on the host's clock.
    Unplaced {
        /// How many.
        count: u64,
    },
    /// Requests failed or came back short; their latency counts like any other.
    FailedRequests {
        /// How many failed.
        errors: u64,
        /// How many read fewer bytes than they asked for.
        short: u64,
    },
    /// Too much of the tail's time is unknown.
    UnknownTail {
        /// Its share of the time of the requests above the 99th percentile.
        share: f64,
    },
    /// A percentile rests on few requests.
    ThinTail {
        /// `p99` or `p999`.
        class: String,
        /// The requests above it.
        count: u64,
    },
    /// The clocks are not known well enough for latencies this short.
    ClockBound {
        /// The clock map's bound.
        bound_ns: u64,
        /// The 99th percentile that it is too large for.
        p99_ns: u64,
    },
    /// The host's I/O for some requests lies beyond them: the clocks are not what they are taken
    /// for.
    ClockViolated {
        /// How many requests.
        count: u64,
        /// By how much at worst, beside what the clocks may be off.
        worst_ns: u64,
    },
    /// What KVM says of the guests' TSCs is not what round trips with the guests allow.
    KvmClockViolated {
        /// How often.
        count: u64,
        /// By how much at worst.
        worst_ns: u64,
    },
    /// What KVM told the guests of the host's clock is not what round trips with them allow.
    PtpClockViolated {
        /// How often.
        count: u64,
        /// By how much at worst.
        worst_ns: u64,
    },
    /// Hogs looked at their clocks while the host had their vCPUs off their pCPUs.
    HogClockViolated {
        /// How often.
        count: u64,
        /// By how much at worst, beside what the clocks may be off.
        worst_ns: u64,
    },
    /// A vCPU's clock stepped, or changed its rate.
    ClockStepped {
        /// The VM.
        vm: String,
        /// The vCPU.
        vcpu: VcpuId,
        /// How often.
        count: u64,
        /// The largest step, at least; 0 if it may have been the rate alone.
        step_ns: u64,
    },
    /// Two vCPUs of a guest have different clocks.
    ClocksApart {
        /// The VM.
        vm: String,
        /// One of the two that are furthest apart.
        vcpu: VcpuId,
        /// The other.
        other_vcpu: VcpuId,
        /// How far they are apart, at least.
        apart_ns: u64,
    },
    /// A hog never counted, so its vCPU was not kept busy.
    HogDidNotCount {
        /// The VM.
        vm: String,
        /// The vCPU that it is pinned to.
        vcpu: VcpuId,
    },
    /// Threads that the plan did not bring took a vCPU's pCPU.
    OutsidePlan {
        /// The VM.
        vm: String,
        /// The vCPU that waited.
        vcpu: VcpuId,
        /// The one that ran longest.
        name: String,
        /// What all of them ran, as a share of the vCPU's waits.
        share: f64,
    },
    /// The quota of a VM's control groups was used up in the measured window.
    Throttled {
        /// The VM.
        vm: String,
        /// In how many periods, of all groups that its vCPU threads are in or below.
        count: u64,
        /// For how long runnable threads of those groups were kept off, their pCPUs' times added up.
        throttled_ns: u64,
        /// The directory of the group whose quota was used up most often.
        group: String,
        /// That group's quota, if it had one when the window began.
        quota_ns: Option<u64>,
        /// The period of that quota.
        period_ns: Option<u64>,
    },
    /// The collector's threads had to wait for their pCPU, and so did whoever waits for them.
    CollectorWaited {
        /// For how long, all of them added up.
        waited_ns: u64,
        /// Of how much time.
        measured_ns: u64,
    },
    /// Something that the run or a guest has to say.
    Notice {
        /// The sentence.
        text: String,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Warning::NoRequests => "no request was recorded".to_owned(),
            Warning::LostRecords { records, intervals } => format!(
                "the kernel dropped {} in {}; requests that touch one are unattributable",
                counted(*records, "scheduler event"),
                counted(*intervals, "interval")
            ),
            Warning::DroppedRequests { count: dropped, intervals } => format!(
                "the guests could not record {}, in {}; no latency here knows of them",
                counted(*dropped, "request"),
                counted(*intervals, "interval")
            ),
            Warning::NotRecorded { level, reason } => {
                format!("no event was recorded{} ({reason})", instead(*level))
            }
            Warning::SampleBias { vm, vcpu, sampled, counted } => {
                biased(vm, *vcpu, *sampled, *counted)
            }
            Warning::MissingEvidence { name, costs } => format!("{name} is missing: {costs}"),
            Warning::Unattributable { count: requests, share } => format!(
                "{} ({}) could not be given to causes: among the latencies, not among the parts",
                counted(*requests, "request"),
                percent(*share)
            ),
            Warning::Unplaced { count } => format!(
                "no latency is known of {}: a guest's clock stepped, or is not known",
                counted(*count, "request")
            ),
            Warning::FailedRequests { errors, short } => {
                let errors = counted(*errors, "request");
                format!("{errors} failed, {short} read less than asked for")
            }
            Warning::UnknownTail { share } => format!(
                "of the time of the requests above the 99th percentile, {} is unknown",
                percent(*share)
            ),
            Warning::ThinTail { class, count: requests } => {
                let percentile = if class == "p999" { "99.9th" } else { "99th" };
                format!(
                    "above the {percentile} percentile only {}: what is said of it may be chance",
                    counted(*requests, "request")
                )
            }
            Warning::ClockBound { bound_ns, p99_ns } => coarse(*bound_ns, *p99_ns),
            Warning::ClockViolated { count, worst_ns } => violated(*count, *worst_ns),
            Warning::KvmClockViolated { count, worst_ns } => kvm_violated(*count, *worst_ns),
            Warning::PtpClockViolated { count, worst_ns } => ptp_violated(*count, *worst_ns),
            Warning::HogClockViolated { count, worst_ns } => hogs_violated(*count, *worst_ns),
            Warning::ClockStepped { vm, vcpu, count, step_ns } => {
                stepped(vm, *vcpu, *count, *step_ns)
            }
            Warning::ClocksApart { vm, vcpu, other_vcpu, apart_ns } => {
                apart(vm, *vcpu, *other_vcpu, *apart_ns)
            }
            Warning::HogDidNotCount { vm, vcpu } => idle_hog(vm, *vcpu),
            Warning::OutsidePlan { vm, vcpu, name, share } => outside(vm, *vcpu, name, *share),
            Warning::CollectorWaited { waited_ns, measured_ns } => {
                collector_waited(*waited_ns, *measured_ns)
            }
            Warning::Throttled { vm, count, throttled_ns, group, quota_ns, period_ns } => {
                let quota = quota(*quota_ns, *period_ns);
                let (times, kept_off) = (counted(*count, "time"), duration(*throttled_ns));
                format!(
                    "the quota of {vm} ({quota}, {group}) was used up {times}; threads were kept off \
                     for {kept_off}, all pCPUs together"
                )
            }
            Warning::Notice { text } => text.clone(),
        };
        formatter.write_str(&text)
    }
}

fn idle_hog(vm: &str, vcpu: VcpuId) -> String {
    format!("the hog on {vm} {vcpu} never counted: this vCPU was not kept busy")
}

fn outside(vm: &str, vcpu: VcpuId, name: &str, share: f64) -> String {
    format!(
        "of the time that {vm} {vcpu} waited for its pCPU, {} went to threads outside the VMs, most of it \
         to {name}",
        percent(share)
    )
}

fn kvm_violated(count: u64, worst_ns: u64) -> String {
    format!(
        "KVM's offsets of the guests' TSCs contradict the round trips with the guests {}, by up to {}: \
         request times may be off by more than they say",
        counted(count, "time"),
        duration(worst_ns)
    )
}

fn ptp_violated(count: u64, worst_ns: u64) -> String {
    format!(
        "the host's clock, as KVM told it to the guests, contradicts the round trips with them {}, by up \
         to {}: request times may be off by more than they say",
        counted(count, "time"),
        duration(worst_ns)
    )
}

fn hogs_violated(count: u64, worst_ns: u64) -> String {
    format!(
        "the clock is wrong: hogs ran in their guests {} that the host had their vCPUs off their pCPUs, by \
         up to {} more than request times may be off",
        counted(count, "time"),
        duration(worst_ns)
    )
}

fn biased(vm: &str, vcpu: VcpuId, sampled: f64, counted: f64) -> String {
    format!(
        "the samples of {vm} {vcpu} are biased: they show it running or waiting for {} of its time, the \
         kernel counted {}; does it share the collector's pCPU?",
        percent(sampled),
        percent(counted)
    )
}

fn apart(vm: &str, vcpu: VcpuId, other_vcpu: VcpuId, apart_ns: u64) -> String {
    let apart = duration(apart_ns);
    format!("the clocks of {vm} {vcpu} and {other_vcpu} are at least {apart} apart")
}

fn coarse(bound_ns: u64, p99_ns: u64) -> String {
    format!(
        "request times may be off by {} on the host's clock, which is a lot beside a 99th percentile \
         of {}",
        duration(bound_ns),
        duration(p99_ns)
    )
}

fn violated(count: u64, worst_ns: u64) -> String {
    format!(
        "the clock is wrong: the host's I/O of {} lies beyond what the guest saw of it, by up to {} \
         more than request times may be off",
        counted(count, "request"),
        duration(worst_ns)
    )
}

fn stepped(vm: &str, vcpu: VcpuId, count: u64, step_ns: u64) -> String {
    let times = counted(count, "time");
    let how = match step_ns {
        0 => "or its rate changed".to_owned(),
        step_ns => format!("by {} or more at worst", duration(step_ns)),
    };
    format!("the clock of {vm} {vcpu} stepped {times}, {how}; requests at a step are left out")
}

fn collector_waited(waited_ns: u64, measured_ns: u64) -> String {
    format!(
        "vslice's own threads waited {} of {} for a pCPU, and a guest that does not hear of it in time \
         stops its load: give it a pCPU that has room (collector_pcpu), or its control group or session \
         a larger share",
        duration(waited_ns),
        duration(measured_ns)
    )
}

/// A quota in words.
fn quota(quota_ns: Option<u64>, period_ns: Option<u64>) -> String {
    match (quota_ns, period_ns) {
        (Some(quota_ns), Some(period_ns)) => {
            format!("{} in every {}", duration(quota_ns), duration(period_ns))
        }
        _ => "set during the run".to_owned(),
    }
}

/// What there is instead of events, and what that cannot tell.
fn instead(level: EvidenceLevel) -> &'static str {
    match level {
        EvidenceLevel::Totals => {
            " and nothing sampled: there are totals of the vCPUs' threads, no reasons, and nothing is \
             known of single requests"
        }
        EvidenceLevel::Sampled | EvidenceLevel::Recorded => {
            ", only sampled: shares are estimates, lengths and counts of waits are not known, nor \
             what happened to single requests"
        }
    }
}

/// What the numbers of a summary say against themselves.
pub(super) fn warnings(summary: &Summary) -> Vec<Warning> {
    let mut warnings = Vec::new();
    recording(summary, &mut warnings);
    clock(summary, &mut warnings);
    if summary.requests.count > summary.requests.unattributable_by.unplaced() {
        tail(summary, &mut warnings);
    }
    let idle_hogs = summary.hogs.iter().filter(|hog| hog.count == 0);
    warnings.extend(
        idle_hogs.map(|hog| Warning::HogDidNotCount { vm: hog.vm.clone(), vcpu: hog.vcpu }),
    );
    warnings.extend(summary.vcpus.iter().filter_map(outside_plan));
    warnings
}

fn recording(summary: &Summary, warnings: &mut Vec<Warning>) {
    let requests = &summary.requests;
    if summary.lost.records > 0 || summary.lost.intervals > 0 {
        let (records, intervals) = (summary.lost.records, summary.lost.intervals);
        warnings.push(Warning::LostRecords { records, intervals });
    }
    if requests.dropped > 0 {
        let (count, intervals) = (requests.dropped, requests.dropped_intervals);
        warnings.push(Warning::DroppedRequests { count, intervals });
    }
    let (waited_ns, measured_ns) = (summary.cost.collector_run_delay_ns, summary.measured_ns);
    if share(waited_ns, measured_ns) > COLLECTOR_WAIT_SHARE_MAX {
        warnings.push(Warning::CollectorWaited { waited_ns, measured_ns });
    }
    sampled::warn(summary, warnings);
    let unplaced = requests.unattributable_by.unplaced();
    let count = requests.unattributable.saturating_sub(unplaced);
    if count > 0 && summary.evidence.level == EvidenceLevel::Recorded {
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
    for (name, class) in [("p99", &summary.classes.p99), ("p999", &summary.classes.p999)] {
        let count = class.count + class.unattributable;
        if count < CLASS_COUNT_MIN {
            warnings.push(Warning::ThinTail { class: name.to_owned(), count });
        }
    }
    let p99_ns = summary.latency_ns.p99;
    if let Some(bound_ns) = summary.clock.bound_ns
        && bound_ns as f64 > CLOCK_SHARE_MAX * p99_ns as f64
    {
        warnings.push(Warning::ClockBound { bound_ns, p99_ns });
    }
}

fn outside_plan(vcpu: &Vcpu) -> Option<Warning> {
    if share(vcpu.wait_ns, vcpu.observed_ns) < WAIT_SHARE_MIN {
        return None;
    }
    let is_outside = |kind: Relation| kind.is_outside_plan();
    let mut outside = vcpu.antagonists.iter().filter(|row| is_outside(row.thread.kind)).peekable();
    let name = outside.peek()?.thread.name.clone();
    let outside_ns = outside.fold(0_u64, |sum_ns, row| sum_ns.saturating_add(row.ran_ns));
    let share = share(outside_ns, vcpu.wait_ns);
    (share > OUTSIDE_SHARE_MAX).then(|| Warning::OutsidePlan {
        vm: vcpu.vm.clone(),
        vcpu: vcpu.vcpu,
        name,
        share,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;
    use crate::report::model::Hog;
    use crate::units::Tid;

    /// The example without anything that it would be warned of.
    fn sound() -> Summary {
        let mut summary = example::summary();
        summary.lost = Default::default();
        summary.requests.unattributable = 0;
        summary.classes.p999.count = CLASS_COUNT_MIN;
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
                summary.cost.collector_run_delay_ns = waited_ns;
            }
        };
        let measured_ns = sound().measured_ns;
        assert_eq!(warned(waited(measured_ns / 4)), []);
        let waited_ns = measured_ns / 2;
        let expected = [Warning::CollectorWaited { waited_ns, measured_ns }];
        assert_eq!(warned(waited(waited_ns)), expected);
    }

    #[test]
    fn losses_of_every_kind_are_warned_of() {
        assert_eq!(
            warned(|summary| {
                summary.lost = crate::report::model::Lost { records: 3, intervals: 2, total_ns: 9 };
                summary.requests.dropped = 7;
                summary.requests.dropped_intervals = 1;
                summary.requests.unattributable = 200;
                summary.requests.errors = 4;
                summary.requests.short = 5;
            }),
            [
                Warning::LostRecords { records: 3, intervals: 2 },
                Warning::DroppedRequests { count: 7, intervals: 1 },
                Warning::Unattributable { count: 200, share: 0.1 },
                Warning::FailedRequests { errors: 4, short: 5 },
            ]
        );
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
    fn a_coarse_clock_is_warned_of_from_just_above_a_tenth_of_p99() {
        let bound = |bound_ns| {
            warned(move |summary| {
                summary.latency_ns.p99 = 1_000_000;
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
        assert_eq!(warned(|summary| summary.hogs.push(hog)), [warning]);
    }

    #[test]
    fn threads_outside_the_plan_are_warned_of_where_waits_matter() {
        let outside = |observed_ns, ran_ns| {
            warned(move |summary| {
                let vcpu = &mut summary.vcpus[1];
                vcpu.observed_ns = observed_ns;
                vcpu.wait_ns = 100_000;
                vcpu.antagonists.retain(|row| row.thread.tid == Tid(7));
                vcpu.antagonists[0].ran_ns = ran_ns;
            })
        };
        let warning = Warning::OutsidePlan {
            vm: "vm1".into(),
            vcpu: VcpuId(1),
            name: "kworker/1:1".into(),
            share: 0.011,
        };
        assert_eq!(outside(1_000_000, 1_000), []);
        assert_eq!(outside(1_000_000, 1_100), [warning]);
        assert_eq!(outside(100_000_000, 1_100), [], "it waited for 0.1 % of its time");
    }

    #[test]
    fn few_requests_above_a_percentile_are_warned_of() {
        let thin = |class: &str, count| Warning::ThinTail { class: class.into(), count };
        assert_eq!(warned(|summary| summary.classes.p999.count = 9), [thin("p999", 9)]);
        let warnings = warned(|summary| {
            summary.classes.p99.count = 1;
            summary.classes.p99.unattributable = 0;
        });
        assert_eq!(warnings, [thin("p99", 1)]);
    }
}
