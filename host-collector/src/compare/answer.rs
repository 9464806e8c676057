//! The answer of a comparison in a sentence: what changed from A to B, for which reason, and who did it.
//! Pure.
//!
//! Where both sides have requests it is about their 99th percentile, and the reason is what a request above
//! it waited for more, or less. Where they have none, as after a plain `vslice attach`, it is about the vCPU
//! that was kept from its pCPU, or on a lock, most differently.

use super::vcpus::{TOLD_NS_PER_S_MIN, VcpuMetric, VcpuMetricRecord, VcpuRecord};
use super::verdict::{Difference, MARGIN_RELATIVE, Undecided, Verdict, runs};
use super::{Compared, Sample, Side};
use crate::join::{Part, Phase};
use crate::report::OffReason;
use crate::report::causes::Cause;
use crate::report::evidence::EvidenceLevel;
use crate::report::model::{Class, Summary};
use crate::report::text::units::percent;
use crate::report::verdict::label;
use crate::timeline::Reason;
use serde::Serialize;
use std::collections::BTreeMap;

/// A cause, or somebody who ran, explains a change if it makes at least this share of it.
const EXPLAINED_SHARE_MIN: f64 = 0.5;

/// From this ratio on a change is told as a multiple, below it in percent.
const MULTIPLE_MIN: f64 = 2.0;

/// What changed from A to B.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// As a sentence that can be quoted, with its numbers.
    pub sentence: String,
}

/// What the requests of one run waited for.
#[derive(Debug, Clone, PartialEq)]
pub struct SlowRequests {
    /// Over all of them.
    pub all: ClassMeans,
    /// Over those above the 99th percentile; `None` if there is none.
    pub p99: Option<ClassMeans>,
}

/// What a request waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// The device.
    Device,
    /// What the vCPU did while the request needed it.
    State(Part),
    /// What the vCPU did while it is not known how far the I/O was: it may have been the device.
    Unknown(Part),
}

/// The requests of a class, in nanoseconds a request.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClassMeans {
    /// What they waited for.
    pub causes: BTreeMap<What, f64>,
    /// How long they waited for a pCPU, whatever the phase of their I/O.
    pub wait: f64,
    /// Who ran meanwhile, by name.
    pub ran: BTreeMap<String, f64>,
}

impl SlowRequests {
    /// Of a run; `None` where no request was given to causes.
    #[must_use]
    pub fn of(summary: &Summary) -> Option<SlowRequests> {
        if summary.evidence.level != EvidenceLevel::Recorded {
            return None;
        }
        let all = ClassMeans::of(&summary.classes.all, &summary.causes.all)?;
        let p99 = ClassMeans::of(&summary.classes.p99, &summary.causes.p99);
        Some(SlowRequests { all, p99 })
    }
}

impl ClassMeans {
    fn of(class: &Class, causes: &[Cause]) -> Option<ClassMeans> {
        if class.count == 0 {
            return None;
        }
        let a_request = |length_ns: u64| length_ns as f64 / class.count as f64;
        let mut means = ClassMeans::default();
        for cause in causes {
            let what = match (cause.part, cause.phase) {
                (None, _) => What::Device,
                (Some(part), Phase::Unknown) => What::Unknown(part),
                (Some(part), _) => What::State(part),
            };
            *means.causes.entry(what).or_default() += a_request(cause.total_ns);
        }
        means.wait = a_request(class.wait_ns);
        for row in &class.antagonists {
            let name = row.antagonist.thread.name.clone();
            *means.ran.entry(name).or_default() += a_request(row.antagonist.ran_ns);
        }
        Some(means)
    }

    /// The mean over several runs.
    fn mean(runs: &[&ClassMeans]) -> ClassMeans {
        let mut sum = ClassMeans::default();
        for run in runs {
            sum.wait += run.wait / runs.len() as f64;
            for (cause, mean_ns) in &run.causes {
                *sum.causes.entry(*cause).or_default() += mean_ns / runs.len() as f64;
            }
            for (name, mean_ns) in &run.ran {
                *sum.ran.entry(name.clone()).or_default() += mean_ns / runs.len() as f64;
            }
        }
        sum
    }
}

impl Answer {
    pub(super) fn new(
        p99: Option<&Difference>,
        a: &Side,
        b: &Side,
        vcpus: &[VcpuRecord],
    ) -> Answer {
        let p99 = p99.filter(|of| !of.a.is_empty() && !of.b.is_empty());
        let sentence = match p99 {
            Some(p99) => of_requests(p99, a, b),
            None if !vcpus.is_empty() => of_vcpus(vcpus, a, b),
            None => "A and B tell of nothing that both have: no latency, and no vCPU whose every switch \
                     was recorded."
                .to_owned(),
        };
        Answer { sentence }
    }
}

/// Which way something changed, and how surely.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Change {
    Same,
    /// Beyond chance.
    Certain(Way),
    /// As these runs have it, which are too few to set it against chance.
    Seen(Way),
    Undecided {
        repeats: Option<u64>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    More,
    Less,
}

impl Change {
    fn of(verdict: Verdict, effect: Option<f64>) -> Change {
        match verdict {
            Verdict::Higher => Change::Certain(Way::More),
            Verdict::Lower => Change::Certain(Way::Less),
            Verdict::NoDifference { .. } => Change::Same,
            Verdict::NotDecided { why: Undecided::OneRun | Undecided::FewRuns, repeats } => {
                match effect {
                    Some(effect) if effect > MARGIN_RELATIVE => Change::Seen(Way::More),
                    Some(effect) if effect < -MARGIN_RELATIVE => Change::Seen(Way::Less),
                    Some(_) => Change::Same,
                    None => Change::Undecided { repeats },
                }
            }
            Verdict::NotDecided { repeats, .. } => Change::Undecided { repeats },
        }
    }
}

/// What the number of runs allows to say of it, as the end of a sentence.
fn certainty(change: Change, a: &Side, b: &Side) -> String {
    let sides = format!("{} against {}", runs(a.runs.len()), runs(b.runs.len()));
    match change {
        Change::Same | Change::Seen(_) if a.runs.len() == 1 && b.runs.len() == 1 => {
            " One run against one: what the next ones would show is not known.".to_owned()
        }
        Change::Seen(_) => format!(
            " {sides}: too few to say that it is no chance; 4 on each side are the least that can."
        ),
        Change::Same | Change::Certain(_) => format!(" ({sides})"),
        Change::Undecided { repeats: Some(count) } => {
            format!(" About {count} runs on each side would decide it ({sides}).")
        }
        Change::Undecided { repeats: None } => format!(" ({sides})"),
    }
}

fn of_requests(p99: &Difference, a: &Side, b: &Side) -> String {
    use super::metrics::Metric;
    use super::statistics::mean;
    let show = |values: &[f64]| {
        mean(values).map_or_else(|| "-".to_owned(), |mean| Metric::LatencyP99.unit().show(mean))
    };
    let (of_a, of_b) = (show(&p99.a), show(&p99.b));
    let change = Change::of(p99.verdict, p99.effect);
    let certainty = certainty(change, a, b);
    match change {
        Change::Same => format!(
            "p99 does not differ by more than {:.0} %: {of_b} in B against {of_a} in A.{certainty}",
            MARGIN_RELATIVE * 100.0
        ),
        Change::Undecided { .. } => {
            format!(
                "Whether p99 differs is not decided: {of_b} in B against {of_a} in A.{certainty}"
            )
        }
        Change::Certain(way) | Change::Seen(way) => {
            let how = how_much(p99.effect, "as high", "higher", "lower");
            let because = because(way, a, b);
            format!("p99 is {how} in B: {of_b} against {of_a} in A{because}.{certainty}")
        }
    }
}

/// `6.8 times as high`, `31 % higher`, `85 % lower`.
fn how_much(effect: Option<f64>, times: &str, more: &str, less: &str) -> String {
    match effect {
        Some(effect) if effect.is_infinite() => format!("{more}, from nothing,"),
        Some(effect) if effect + 1.0 >= MULTIPLE_MIN => {
            format!("{:.1} times {times}", effect + 1.0)
        }
        Some(effect) if effect >= 0.0 => format!("{:.0} % {more}", effect * 100.0),
        Some(effect) => format!("{:.0} % {less}", -effect * 100.0),
        None => more.to_owned(),
    }
}

/// Which cause makes the change of a slow request, and who; nothing where the runs do not tell.
fn because(way: Way, a: &Side, b: &Side) -> String {
    let Some((a, b, class)) = slow(a, b) else { return String::new() };
    let sign = if way == Way::More { 1.0 } else { -1.0 };
    let keys: Vec<What> = union(&a.causes, &b.causes);
    let changed = |cause: &What| {
        let of = |means: &ClassMeans| means.causes.get(cause).copied().unwrap_or(0.0);
        (*cause, of(&a), of(&b), sign * (of(&b) - of(&a)))
    };
    let mut changed: Vec<_> = keys.iter().map(changed).filter(|(.., by)| *by > 0.0).collect();
    changed.sort_by(|one, other| other.3.total_cmp(&one.3));
    let whole: f64 = changed.iter().map(|(.., by)| by).sum();
    let Some((first, of_a, of_b, by)) = changed.first().copied() else { return String::new() };
    let show = super::metrics::Unit::Nanoseconds;
    let more = if way == Way::More { "" } else { "less " };
    let figures = |of_a, of_b| format!("{} against {}", show.show(of_b), show.show(of_a));
    if by < EXPLAINED_SHARE_MIN * whole {
        let (second, a2, b2, _) = changed[1];
        return format!(
            ", because of {more}{} ({} a request {class}) and {} ({})",
            name(first),
            figures(of_a, of_b),
            name(second),
            figures(a2, b2)
        );
    }
    let is_wait = matches!(first, What::State(Part::PreemptWait | Part::WakeupDelay));
    let who = if is_wait { who(way, &a, &b) } else { String::new() };
    format!(", because of {more}{} ({} a request {class}){who}", name(first), figures(of_a, of_b))
}

/// A cause after "because of".
fn name(cause: What) -> String {
    let state = |part| match part {
        Part::OnPcpu | Part::Guest | Part::Kvm | Part::VmmUser => format!("time {}", label(part)),
        part => label(part).to_owned(),
    };
    match cause {
        What::Device => "time in the host's disk".to_owned(),
        What::State(part) => state(part),
        What::Unknown(part) => format!(
            "{} while the I/O's phase is not known, so that it may have been the disk",
            state(part)
        ),
    }
}

/// The means of both sides, over the same class of requests, and how it is called.
fn slow(a: &Side, b: &Side) -> Option<(ClassMeans, ClassMeans, &'static str)> {
    let of = |side: &Side, class: fn(&SlowRequests) -> Option<&ClassMeans>| {
        let means: Option<Vec<&ClassMeans>> =
            side.runs.iter().map(|run| run.slow.as_ref().and_then(class)).collect();
        means.filter(|means| !means.is_empty()).map(|means| ClassMeans::mean(&means))
    };
    let both = |class: fn(&SlowRequests) -> Option<&ClassMeans>| of(a, class).zip(of(b, class));
    if let Some((a, b)) = both(|slow| slow.p99.as_ref()) {
        return Some((a, b, "above p99"));
    }
    both(|slow| Some(&slow.all)).map(|(a, b)| (a, b, "on average"))
}

fn union<K: Ord + Clone, V>(a: &BTreeMap<K, V>, b: &BTreeMap<K, V>) -> Vec<K> {
    let mut keys: Vec<K> = a.keys().chain(b.keys()).cloned().collect();
    keys.sort();
    keys.dedup();
    keys
}

/// Who makes most of the change in what ran while requests waited.
fn who(way: Way, a: &ClassMeans, b: &ClassMeans) -> String {
    let sign = if way == Way::More { 1.0 } else { -1.0 };
    let by = |name: &String| {
        let of = |means: &ClassMeans| means.ran.get(name).copied().unwrap_or(0.0);
        sign * (of(b) - of(a))
    };
    let names = union(&a.ran, &b.ran);
    // Also what nobody ran, or it is not known who.
    let whole = sign * (b.wait - a.wait);
    let most = names.iter().max_by(|one, other| by(one).total_cmp(&by(other)));
    match most.filter(|name| whole > 0.0 && by(name) >= EXPLAINED_SHARE_MIN * whole) {
        Some(name) if way == Way::More => format!(", mostly while {name} ran"),
        Some(name) => format!(", since {name} ran less"),
        None => String::new(),
    }
}

/// Reasons that keep a vCPU from its work: not that it has none, and not the ones that are run delay.
const LOSSES: [Reason; 9] = [
    Reason::Bql,
    Reason::BqlInferred,
    Reason::QemuLock,
    Reason::VmmLock,
    Reason::HostFault,
    Reason::KvmKernelLock,
    Reason::IoSubmit,
    Reason::Throttle,
    Reason::Stopped,
];

fn of_vcpus(vcpus: &[VcpuRecord], a: &Side, b: &Side) -> String {
    let is_loss = |row: &&VcpuMetricRecord| match &row.kind {
        VcpuMetric::RunDelay => true,
        VcpuMetric::Off(OffReason::Left(reason)) => LOSSES.contains(reason),
        VcpuMetric::Off(_) | VcpuMetric::Ran(_) => false,
    };
    let all =
        vcpus.iter().flat_map(|of| of.metrics.iter().filter(is_loss).map(move |row| (of, row)));
    let most =
        all.max_by(|(_, one), (_, other)| moved(&one.compared).total_cmp(&moved(&other.compared)));
    let Some((vcpu, row)) = most.filter(|(_, row)| moved(&row.compared) >= TOLD_NS_PER_S_MIN)
    else {
        let sides = certainty(Change::Same, a, b);
        return format!(
            "No vCPU was kept from its pCPU, or on a lock, by more than {} of its time more or less in B.{sides}",
            percent(TOLD_NS_PER_S_MIN / 1e9)
        );
    };
    let name = format!("{} {}", vcpu.vm, vcpu.vcpu);
    let what = match &row.kind {
        VcpuMetric::RunDelay => "waited for a pCPU".to_owned(),
        VcpuMetric::Off(reason) => format!("was off its pCPU ({})", reason.label()),
        VcpuMetric::Ran(_) => String::new(),
    };
    let Compared { a: of_a, b: of_b, effect, verdict, unit, .. } = &row.compared;
    let show = |of: &Sample| of.mean.map_or_else(|| "-".to_owned(), |mean| unit.show(mean));
    let (shown_a, shown_b) = (show(of_a), show(of_b));
    let change = Change::of(*verdict, *effect);
    let certainty = certainty(change, a, b);
    match change {
        Change::Certain(way) | Change::Seen(way) => {
            let how = how_much(*effect, "as long", "longer", "less");
            let who =
                if row.kind == VcpuMetric::RunDelay { who_of(way, vcpu) } else { String::new() };
            format!("{name} {what} {how} in B: {shown_b} against {shown_a} in A{who}.{certainty}")
        }
        Change::Same => {
            format!("{name} {what} as long in B as in A: {shown_b} against {shown_a}.{certainty}")
        }
        Change::Undecided { .. } => format!(
            "Whether {name} {what} longer in one of them is not decided: {shown_b} in B against {shown_a} in \
             A.{certainty}"
        ),
    }
}

/// By how much the mean of a figure moved, in its unit; 0 where a side does not tell.
fn moved(of: &Compared) -> f64 {
    of.a.mean.zip(of.b.mean).map_or(0.0, |(a, b)| (b - a).abs())
}

/// Who makes most of the change of a vCPU's run delay. Whoever a side does not list counts there for the
/// most that he can have run.
fn who_of(way: Way, vcpu: &VcpuRecord) -> String {
    let sign = if way == Way::More { 1.0 } else { -1.0 };
    let by = |row: &VcpuMetricRecord| {
        let [unlisted_a, unlisted_b] = vcpu.unlisted_max;
        let Compared { a, b, .. } = &row.compared;
        sign * (b.mean.unwrap_or(unlisted_b) - a.mean.unwrap_or(unlisted_a))
    };
    let run_delay = vcpu.metrics.iter().find(|row| row.kind == VcpuMetric::RunDelay);
    let whole = run_delay.map_or(0.0, |row| moved(&row.compared));
    let ran = vcpu.metrics.iter().filter(|row| matches!(row.kind, VcpuMetric::Ran(_)));
    let most = ran.max_by(|one, other| by(one).total_cmp(&by(other)));
    let most = most.filter(|row| by(row) >= EXPLAINED_SHARE_MIN * whole);
    match most.and_then(|row| row.name.as_ref()) {
        Some(name) if way == Way::More => format!(", mostly while {name} ran there"),
        Some(name) => format!(", since {name} ran less there"),
        None => String::new(),
    }
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
