//! The answer of a comparison in a sentence: what changed from A to B, why, and who caused it. Pure.
//!
//! If both sides have requests, the answer is about their 99th percentile, and the reason is what requests
//! above it waited for more or less. If they have none, as after a plain `vslice attach`, it is about the
//! vCPU whose waits for a pCPU or a lock changed most.

use super::because::{Direction, EXPLAINED_SHARE_MIN, because};
use super::metrics::Metric;
use super::statistics::mean;
use super::vcpus::{REPORTED_NS_PER_S_MIN, VcpuMetric, VcpuMetricRecord, VcpuRecord};
use super::verdict::{Difference, MARGIN_RELATIVE, Undecided, Verdict, runs};
use super::{Compared, Sample, Side};
use crate::summary::OffReason;
use serde::Serialize;
use vslice_spec::quantity::percent;

/// Another percentile is told if it changed by this ratio more than the 99th.
const FURTHER_RATIO_MIN: f64 = 1.5;

/// From this ratio on a change is told as a multiple, below it in percent.
const MULTIPLE_MIN: f64 = 2.0;

/// What changed from A to B.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// A sentence that can be quoted, with its numbers.
    pub sentence: String,
}

impl Answer {
    pub(super) fn new(
        p99: Option<&Difference>,
        others: &[(&str, &Difference)],
        a: &Side,
        b: &Side,
        vcpus: &[VcpuRecord],
    ) -> Answer {
        let p99 = p99.filter(|of| !of.a.is_empty() && !of.b.is_empty());
        let sentence = match p99 {
            Some(p99) => of_requests(p99, others, a, b),
            None if !vcpus.is_empty() => of_vcpus(vcpus, a, b),
            None => {
                "A and B have nothing in common to compare: no latency, and no vCPU whose context \
                     switches were all recorded."
                    .to_owned()
            }
        };
        Answer { sentence }
    }
}

/// Which way something changed, and how surely.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Change {
    Same,
    /// A change that is beyond chance.
    Certain(Direction),
    /// A change in these runs, which are too few to rule out chance.
    Seen(Direction),
    Undecided {
        repeats: Option<u64>,
    },
}

impl Change {
    fn of(verdict: Verdict, effect: Option<f64>) -> Change {
        match verdict {
            Verdict::Higher => Change::Certain(Direction::More),
            Verdict::Lower => Change::Certain(Direction::Less),
            Verdict::NoDifference { .. } => Change::Same,
            Verdict::NotDecided { why: Undecided::OneRun | Undecided::FewRuns, repeats } => {
                match effect {
                    Some(effect) if effect > MARGIN_RELATIVE => Change::Seen(Direction::More),
                    Some(effect) if effect < -MARGIN_RELATIVE => Change::Seen(Direction::Less),
                    Some(_) => Change::Same,
                    None => Change::Undecided { repeats },
                }
            }
            Verdict::NotDecided { repeats, .. } => Change::Undecided { repeats },
        }
    }
}

/// What the number of runs that have the figure allows to say of it, as the end of a sentence.
fn certainty(change: Change, (a_count, b_count): (usize, usize)) -> String {
    let sides = format!("{} of A and {} of B", runs(a_count), runs(b_count));
    match change {
        Change::Same | Change::Seen(_) if a_count == 1 && b_count == 1 => {
            " With one run on each side, how much of this is chance is unknown.".to_owned()
        }
        Change::Seen(_) => {
            format!(" {sides} are too few to rule out chance: that takes at least 4 on each side.")
        }
        Change::Same | Change::Certain(_) => format!(" Based on {sides}."),
        Change::Undecided { repeats: Some(count) } => {
            format!(" About {count} runs on each side would decide it (these are {sides}).")
        }
        Change::Undecided { repeats: None } => format!(" Based on {sides}."),
    }
}

fn of_requests(p99: &Difference, others: &[(&str, &Difference)], a: &Side, b: &Side) -> String {
    let (of_a, of_b) = (mean_latency(&p99.a), mean_latency(&p99.b));
    let change = Change::of(p99.verdict, p99.effect);
    let certainty = certainty(change, (p99.a.len(), p99.b.len()));
    let further = further(p99, others);
    match change {
        Change::Same => format!(
            "p99 does not differ by more than {:.0} %: {of_b} in B against {of_a} in A.{certainty}{further}",
            MARGIN_RELATIVE * 100.0
        ),
        Change::Undecided { .. } => {
            format!(
                "It is undecided whether p99 differs: {of_b} in B against {of_a} in A.{certainty}{further}"
            )
        }
        Change::Certain(direction) | Change::Seen(direction) => {
            let how = how_much(p99.effect, "as high", "higher", "lower");
            let moved_ns = mean(&p99.a).zip(mean(&p99.b)).map_or(0.0, |(a, b)| (b - a).abs());
            let because = because(direction, moved_ns, a, b);
            format!("p99 is {how} in B: {of_b} against {of_a} in A{because}.{certainty}{further}")
        }
    }
}

/// The mean of a latency over the runs of a side.
fn mean_latency(values: &[f64]) -> String {
    mean(values).map_or_else(|| "-".to_owned(), |mean| Metric::LatencyP99.unit().show(mean))
}

/// Another percentile that changed by much more than the 99th did is what somebody who reads one sentence has
/// to know.
fn further(p99: &Difference, others: &[(&str, &Difference)]) -> String {
    // The logarithm of B over A: how far apart they are, whichever is the greater.
    let apart = |of: &Difference| of.effect.map_or(0.0, |effect| effect.ln_1p().abs());
    let most = others.iter().max_by(|(_, one), (_, other)| apart(one).total_cmp(&apart(other)));
    let is_reported = |of: &Difference| {
        let change = Change::of(of.verdict, of.effect);
        matches!(change, Change::Certain(_) | Change::Seen(_))
            && apart(of) >= apart(p99) + FURTHER_RATIO_MIN.ln()
    };
    let Some((name, of)) = most.filter(|(_, of)| is_reported(of)) else { return String::new() };
    let how = how_much(of.effect, "as high", "higher", "lower");
    format!(" {name} is {how}: {} against {}.", mean_latency(&of.b), mean_latency(&of.a))
}

/// `6.8 times as high`, `31 % higher`, `85 % lower`.
fn how_much(effect: Option<f64>, times: &str, more: &str, less: &str) -> String {
    match effect {
        Some(effect) if effect.is_infinite() => format!("{more} (from zero)"),
        Some(effect) if effect + 1.0 >= MULTIPLE_MIN => {
            format!("{:.1} times {times}", effect + 1.0)
        }
        Some(effect) if effect >= 0.0 => format!("{:.0} % {more}", effect * 100.0),
        Some(effect) => format!("{:.0} % {less}", -effect * 100.0),
        None => more.to_owned(),
    }
}

fn of_vcpus(vcpus: &[VcpuRecord], a: &Side, b: &Side) -> String {
    let counts = (a.runs.len(), b.runs.len());
    let is_loss = |row: &&VcpuMetricRecord| match &row.kind {
        VcpuMetric::RunDelay => true,
        VcpuMetric::Off(OffReason::Left(reason)) => reason.is_hindrance(),
        VcpuMetric::Off(_) | VcpuMetric::Ran(_) => false,
    };
    let all =
        vcpus.iter().flat_map(|of| of.metrics.iter().filter(is_loss).map(move |row| (of, row)));
    let most =
        all.max_by(|(_, one), (_, other)| moved(&one.compared).total_cmp(&moved(&other.compared)));
    let Some((vcpu, row)) = most.filter(|(_, row)| moved(&row.compared) >= REPORTED_NS_PER_S_MIN)
    else {
        let sides = certainty(Change::Same, counts);
        return format!(
            "No vCPU's waits for a pCPU or a lock changed by more than {} of its time from A to B.{sides}",
            percent(REPORTED_NS_PER_S_MIN / 1e9)
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
    let certainty = certainty(change, counts);
    match change {
        Change::Certain(direction) | Change::Seen(direction) => {
            let how = how_much(*effect, "as long", "longer", "less");
            let who = if row.kind == VcpuMetric::RunDelay {
                who_of(direction, vcpu)
            } else {
                String::new()
            };
            format!("{name} {what} {how} in B: {shown_b} against {shown_a} in A{who}.{certainty}")
        }
        Change::Same => {
            format!("{name} {what} as long in B as in A: {shown_b} against {shown_a}.{certainty}")
        }
        Change::Undecided { .. } => format!(
            "It is undecided whether {name} {what} longer in A or in B: {shown_b} in B against {shown_a} \
             in A.{certainty}"
        ),
    }
}

/// By how much the mean of a figure moved, in its unit; 0 where a side does not tell.
fn moved(of: &Compared) -> f64 {
    of.a.mean.zip(of.b.mean).map_or(0.0, |(a, b)| (b - a).abs())
}

/// Who makes most of the change of a vCPU's run delay: for him counts what he ran at least on the side that
/// has more of it, and against him what he can have run at most on the other.
fn who_of(direction: Direction, vcpu: &VcpuRecord) -> String {
    let (more, less) = match direction {
        Direction::More => (1, 0),
        Direction::Less => (0, 1),
    };
    let by = |listed: &[f64; 2]| listed[more] - (listed[less] + vcpu.unlisted_max[less]);
    let run_delay = vcpu.metrics.iter().find(|row| row.kind == VcpuMetric::RunDelay);
    let whole = run_delay.map_or(0.0, |row| moved(&row.compared));
    let most = vcpu.ran.iter().max_by(|(_, one), (_, other)| by(one).total_cmp(&by(other)));
    match most.filter(|(_, listed)| by(listed) >= EXPLAINED_SHARE_MIN * whole) {
        Some((name, _)) if direction == Direction::More => {
            format!(", mostly while {name} was running there")
        }
        Some((name, _)) => format!(", because {name} ran less there"),
        None => String::new(),
    }
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
