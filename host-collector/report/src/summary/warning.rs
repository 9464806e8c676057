//! What the reader of a report should know before trusting it.

use super::io::{HiddenTask, UnphasedBy};
use super::observed::model::ObservedHidden;
use super::text::io::why;
use serde::{Deserialize, Serialize};
use std::fmt;
use vslice_core::units::VcpuId;
use vslice_spec::quantity::{count, counted, duration, percent};
use vslice_trace::evidence::EvidenceLevel;

/// A warning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Warning {
    /// No request was recorded.
    NoRequests,
    /// The kernel dropped records.
    LostRecords {
        /// How many.
        records: u64,
        /// In how many intervals.
        intervals: u64,
    },
    /// Guests dropped the records of requests, so their latencies are missing.
    DroppedRequests {
        /// How many.
        count: u64,
        /// In how many intervals.
        intervals: u64,
    },
    /// Events were not recorded, so statements about vCPUs rest on less.
    NotRecorded {
        /// What they rest on.
        level: EvidenceLevel,
        /// Why.
        reason: String,
    },
    /// The samples of a vCPU are biased.
    SampleBias {
        /// The VM.
        vm: String,
        /// The vCPU.
        vcpu: VcpuId,
        /// The share of samples that showed it running or waiting for a pCPU, in [0, 1].
        sampled: f64,
        /// The same share by the kernel's totals, in [0, 1].
        counted: f64,
    },
    /// The run lacked evidence that this kernel does not have or does not show.
    MissingEvidence {
        /// What.
        name: String,
        /// What the report lacks because of it.
        costs: String,
    },
    /// Requests were recorded but could not be attributed to causes.
    Unattributable {
        /// How many.
        count: u64,
        /// Their share of all recorded requests.
        share: f64,
    },
    /// Requests were recorded but could not be placed on the host's clock.
    Unplaced {
        /// How many.
        count: u64,
    },
    /// An agent that observes could not record all events of its guest's kernel.
    ObservedLost {
        /// The VM.
        vm: String,
        /// How many events.
        events: u64,
        /// In how many intervals.
        intervals: u64,
    },
    /// A guest's kernel hid events of its block requests from the agent that observed.
    ObservedHidden {
        /// The VM.
        vm: String,
        /// Which.
        hidden: ObservedHidden,
        /// How many requests seem to be under way because of it, or are.
        may_have_ended: u64,
    },
    /// Observed requests that the answer is about could not be attributed to causes.
    ObservedUnattributable {
        /// The VM.
        vm: String,
        /// The guest's name for their disk.
        device: String,
        /// What they are: `flushes`.
        operation: String,
        /// How many.
        count: u64,
        /// Their share of all that were recorded.
        share: f64,
    },
    /// What a reader and its guest's kernel say of the same requests differs by more than the clock error.
    ReaderContradicted {
        /// The VM.
        vm: String,
        /// How many requests.
        count: u64,
        /// By how many nanoseconds more at worst.
        worst_ns: u64,
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
    /// The I/O phase is unknown for too much of the requests' time.
    UnknownPhases {
        /// Its share of the time of all attributed requests, in [0, 1].
        share: f64,
        /// The same above the 99th percentile.
        p99_share: f64,
        /// How many requests have unknown phases.
        requests: u64,
        /// The same by reason.
        by: UnphasedBy,
        /// Tasks that the host's kernel hides from tracing.
        hidden: Vec<HiddenTask>,
    },
    /// The answer rests on few requests.
    ThinTail {
        /// The class that it is about: `p99`, or `all` if no request was slower than the others.
        class: String,
        /// The requests in it.
        count: u64,
    },
    /// The clock error is large compared with the latencies.
    ClockBound {
        /// The clock map's bound.
        bound_ns: u64,
        /// The 99th percentile of the latency.
        p99_ns: u64,
    },
    /// The host's I/O for some requests lies outside them, so the clock map is wrong.
    ClockViolated {
        /// How many requests.
        count: u64,
        /// By how many nanoseconds more than the clock error at worst.
        worst_ns: u64,
    },
    /// KVM's TSC offsets contradict the clock round trips with the guests.
    KvmClockViolated {
        /// How often.
        count: u64,
        /// By how many nanoseconds at worst.
        worst_ns: u64,
    },
    /// The host's clock as the guests read it through KVM contradicts the clock round trips with them.
    PtpClockViolated {
        /// How often.
        count: u64,
        /// By how many nanoseconds at worst.
        worst_ns: u64,
    },
    /// Hogs ran while their vCPUs were off their pCPUs, so the clock map is wrong.
    HogClockViolated {
        /// How often.
        count: u64,
        /// By how many nanoseconds more than the clock error at worst.
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
        /// The largest step in nanoseconds, at least; 0 if only the rate may have changed.
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
    /// A hog made no progress, so its vCPU was not kept busy.
    HogDidNotCount {
        /// The VM.
        vm: String,
        /// The vCPU that it is pinned to.
        vcpu: VcpuId,
    },
    /// vslice's own threads ran where a vCPU waited to run.
    CollectorRan {
        /// The VM.
        vm: String,
        /// The vCPU that waited.
        vcpu: VcpuId,
        /// How long they did, as a share of the vCPU's time in [0, 1].
        share: f64,
    },
    /// The CPU quota of a VM's control groups was used up, and throttled threads for more than 1 % of the
    /// measured window.
    Throttled {
        /// The VM.
        vm: String,
        /// In how many periods, of all groups that its vCPU threads are in or below.
        count: u64,
        /// How long runnable threads of those groups were throttled, in nanoseconds, summed over pCPUs.
        throttled_ns: u64,
        /// The directory of the group whose quota was used up most often.
        group: String,
        /// That group's quota, if it had one when the window began.
        quota_ns: Option<u64>,
        /// The period of that quota.
        period_ns: Option<u64>,
    },
    /// The collector's threads had to wait for a pCPU, and so did everyone who waits for them.
    CollectorWaited {
        /// How long they waited, summed, in nanoseconds.
        waited_ns: u64,
        /// The length of the measured window in nanoseconds.
        measured_ns: u64,
    },
    /// A notice of the run or of a guest.
    Notice {
        /// The sentence.
        text: String,
    },
}

impl Warning {
    /// Its rank, from 0: what makes the answer untrustworthy comes before what the answer lacks, and that
    /// before what is only good to know.
    #[must_use]
    pub(super) fn rank(&self) -> u8 {
        match self {
            Warning::NoRequests
            | Warning::NotRecorded { .. }
            | Warning::ClockViolated { .. }
            | Warning::Unattributable { .. }
            | Warning::Unplaced { .. }
            | Warning::LostRecords { .. }
            | Warning::DroppedRequests { .. }
            | Warning::ObservedLost { .. }
            | Warning::ObservedHidden { .. }
            | Warning::ObservedUnattributable { .. }
            | Warning::ReaderContradicted { .. } => 0,
            Warning::UnknownPhases { .. }
            | Warning::UnknownTail { .. }
            | Warning::KvmClockViolated { .. }
            | Warning::PtpClockViolated { .. }
            | Warning::HogClockViolated { .. }
            | Warning::ClockStepped { .. }
            | Warning::ClocksApart { .. }
            | Warning::ClockBound { .. }
            | Warning::SampleBias { .. }
            | Warning::FailedRequests { .. }
            | Warning::ThinTail { .. } => 1,
            Warning::HogDidNotCount { .. }
            | Warning::CollectorRan { .. }
            | Warning::Throttled { .. }
            | Warning::Notice { .. } => 2,
            Warning::MissingEvidence { .. } | Warning::CollectorWaited { .. } => 3,
        }
    }
}

fn lost_records(records: u64, intervals: u64) -> String {
    format!(
        "the kernel dropped {} in {}; requests that overlap such a loss are not attributed to causes",
        counted(records, "scheduler event"),
        counted(intervals, "interval")
    )
}

fn dropped(requests: u64, intervals: u64) -> String {
    format!(
        "the guests dropped the records of {} in {}; their latencies are missing from this report",
        counted(requests, "request"),
        counted(intervals, "interval")
    )
}

fn observed_lost(vm: &str, events: u64, intervals: u64) -> String {
    format!(
        "the kernel of {vm} lost {} of its block requests in {}; requests that overlap such a loss are missing or \
         not attributed to causes",
        counted(events, "event"),
        counted(intervals, "interval")
    )
}

fn observed_hidden(vm: &str, hidden: ObservedHidden, may_have_ended: u64) -> String {
    let named = hidden.named().unwrap_or_else(|| "nothing".to_owned());
    let seem = match may_have_ended {
        0 => String::new(),
        number => format!(
            ", and {} that {} to be under way at the end may have ended",
            counted(number, "request"),
            if number == 1 { "seems" } else { "seem" }
        ),
    };
    // Of a request whose end alone is hidden nothing wrong is told.
    let wrong = match hidden.events() > hidden.completed {
        true => ", and when others were queued or issued may be wrong",
        false => "",
    };
    format!(
        "the kernel of {vm} hid {named} of block requests from perf: as many requests may be missing{seem}{wrong}"
    )
}

fn observed_unattributable(of: [&str; 3], left_out: u64, share: f64) -> String {
    let [vm, device, operation] = of;
    format!(
        "{} ({}) of the {operation} of {vm} {device} could not be attributed to causes: the latencies include \
         them, the answer does not",
        count(left_out),
        percent(share)
    )
}

fn reader_contradicted(vm: &str, requests: u64, worst_ns: u64) -> String {
    format!(
        "the reader of {vm} and its kernel contradict each other on {} by up to {} more than the clock error: times \
         of observed requests may be wrong",
        counted(requests, "request"),
        duration(worst_ns)
    )
}

impl fmt::Display for Warning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Warning::NoRequests => "no request was recorded".to_owned(),
            Warning::LostRecords { records, intervals } => lost_records(*records, *intervals),
            Warning::DroppedRequests { count, intervals } => dropped(*count, *intervals),
            Warning::ObservedLost { vm, events, intervals } => {
                observed_lost(vm, *events, *intervals)
            }
            Warning::ObservedHidden { vm, hidden, may_have_ended } => {
                observed_hidden(vm, *hidden, *may_have_ended)
            }
            Warning::ObservedUnattributable { vm, device, operation, count, share } => {
                observed_unattributable([vm, device, operation], *count, *share)
            }
            Warning::ReaderContradicted { vm, count, worst_ns } => {
                reader_contradicted(vm, *count, *worst_ns)
            }
            Warning::NotRecorded { level, reason } => {
                format!("events were not recorded{} ({reason})", instead(*level))
            }
            Warning::SampleBias { vm, vcpu, sampled, counted } => {
                biased(vm, *vcpu, *sampled, *counted)
            }
            Warning::MissingEvidence { name, costs } => format!("without {name}: {costs}"),
            Warning::Unattributable { count: requests, share } => format!(
                "{} ({}) could not be attributed to causes: the latencies include them, the answer does not",
                counted(*requests, "request"),
                percent(*share)
            ),
            Warning::Unplaced { count } => format!(
                "the latency of {} is unknown: a guest's clock stepped, or is unknown",
                counted(*count, "request")
            ),
            Warning::FailedRequests { errors, short } => failed(*errors, *short),
            Warning::UnknownTail { share } => format!(
                "{} of the time of requests above the 99th percentile is unknown and may hide another cause",
                percent(*share)
            ),
            Warning::UnknownPhases { share, p99_share, requests, by, hidden } => {
                unknown_phases(*share, *p99_share, *requests, *by, hidden)
            }
            Warning::ThinTail { class, count } => thin_tail(class, *count),
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
            Warning::CollectorRan { vm, vcpu, share } => collector_ran(vm, *vcpu, *share),
            Warning::CollectorWaited { waited_ns, measured_ns } => {
                collector_waited(*waited_ns, *measured_ns)
            }
            Warning::Throttled { vm, count, throttled_ns, group, quota_ns, period_ns } => {
                let quota = quota(*quota_ns, *period_ns);
                let (times, kept_off) = (counted(*count, "time"), duration(*throttled_ns));
                format!(
                    "the CPU quota of {vm} ({quota}, {group}) was used up {times}; its threads were \
                     throttled for {kept_off}, over all pCPUs"
                )
            }
            Warning::Notice { text } => text.clone(),
        };
        formatter.write_str(&text)
    }
}

/// Hidden tasks that are named at most.
const HIDDEN_NAMED: usize = 3;

fn unknown_phases(
    share: f64,
    p99_share: f64,
    requests: u64,
    by: UnphasedBy,
    hidden: &[HiddenTask],
) -> String {
    let reasons = by.reasons().map(|(reason, number)| format!("{} {}", count(number), why(reason)));
    let reasons: Vec<String> = reasons.collect();
    let named = hidden
        .iter()
        .take(HIDDEN_NAMED)
        .map(|task| format!("{} on {} ({})", task.name, task.pcpu, counted(task.count, "time")));
    let named: Vec<String> = named.collect();
    // Only an end that was not seen can be one that was hidden.
    let hidden = match named.as_slice() {
        [] => String::new(),
        _ if by.unfinished == 0 => String::new(),
        _ => format!(
            "; the kernel of this host hides from tracing whatever happens while these tasks are on a pCPU: {}",
            named.join(", ")
        ),
    };
    format!(
        "the I/O phase is unknown for {} of the requests' time ({} above p99), so queued, device and \
         completed cover only the rest: {} ({}){hidden}",
        percent(share),
        percent(p99_share),
        counted(requests, "request"),
        reasons.join(", ")
    )
}

fn failed(errors: u64, short: u64) -> String {
    format!("{} failed, {short} read less than asked for", counted(errors, "request"))
}

fn thin_tail(class: &str, count: u64) -> String {
    let requests = counted(count, "request");
    let which = if class == "all" { "in all" } else { "above the 99th percentile" };
    format!("the answer rests on only {requests} {which}, so it may be chance")
}

fn idle_hog(vm: &str, vcpu: VcpuId) -> String {
    format!("the hog on {vm} {vcpu} made no progress, so this vCPU was not kept busy")
}

fn collector_ran(vm: &str, vcpu: VcpuId, share: f64) -> String {
    format!(
        "vslice itself ran on the pCPU that {vm} {vcpu} waited for, for {} of its time: that much of the \
         wait was caused by measuring it",
        percent(share)
    )
}

fn kvm_violated(count: u64, worst_ns: u64) -> String {
    format!(
        "KVM's TSC offsets contradict the clock round trips with the guests {}, by up to {}: request times \
         may be off by more than stated",
        counted(count, "time"),
        duration(worst_ns)
    )
}

fn ptp_violated(count: u64, worst_ns: u64) -> String {
    format!(
        "the host's clock, as guests read it through KVM, contradicts the clock round trips with them {}, \
         by up to {}: request times may be off by more than stated",
        counted(count, "time"),
        duration(worst_ns)
    )
}

fn hogs_violated(count: u64, worst_ns: u64) -> String {
    format!(
        "the clock is wrong: hogs ran {} while their vCPUs were off their pCPUs, by up to {} more than the stated clock error",
        counted(count, "time"),
        duration(worst_ns)
    )
}

fn biased(vm: &str, vcpu: VcpuId, sampled: f64, counted: f64) -> String {
    format!(
        "the samples of {vm} {vcpu} are biased: they show it running or waiting for {} of its time, but \
         the kernel counted {}; does it share the collector's pCPU?",
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
        "request times may be off by {} on the host's clock, which is large compared with a 99th \
         percentile of {}",
        duration(bound_ns),
        duration(p99_ns)
    )
}

fn violated(count: u64, worst_ns: u64) -> String {
    format!(
        "the clock is wrong: the host I/O for {} lies outside the request as the guest timed it, by up to {} more than the stated clock error",
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
        "vslice's own threads waited {} of {} for a pCPU, and a guest that does not hear from it in time \
         stops its load: give vslice a pCPU with room (collector_pcpu), or give its control group or \
         session a larger share",
        duration(waited_ns),
        duration(measured_ns)
    )
}

/// A quota in words.
fn quota(quota_ns: Option<u64>, period_ns: Option<u64>) -> String {
    match (quota_ns, period_ns) {
        (Some(quota_ns), Some(period_ns)) => {
            format!("{} per {}", duration(quota_ns), duration(period_ns))
        }
        _ => "set during the run".to_owned(),
    }
}

/// What there is instead of events, and what that cannot tell.
fn instead(level: EvidenceLevel) -> &'static str {
    match level {
        EvidenceLevel::Totals => {
            "and nothing was sampled: there are only totals of the vCPU threads; reasons, and causes of \
             single requests, are unknown"
        }
        EvidenceLevel::Sampled | EvidenceLevel::Recorded => {
            ", only sampled: shares are estimates; lengths and counts of waits, and causes of single \
             requests, are unknown"
        }
    }
}
