//! Why the 99th percentile changed: what slow requests waited for more or less, by kind as a report ranks
//! it, and who ran meanwhile. Pure.
//!
//! A reason is given only if it explains the change: the requests' mean must move the same way, and what is
//! named must make up at least half of the change, of the causes and of the percentile.

use super::metrics::{Metric, Unit};
use super::{Run, Side};
use crate::summary::causes::{Cause, Kind, NAMED_SHARE, NEARLY_ALL, Weight};
use crate::summary::model::{Class, Summary};
use crate::summary::verdict::label;
use std::collections::BTreeMap;
use vslice_core::join::{Part, Phase};
use vslice_spec::quantity::whole_percent;
use vslice_trace::evidence::EvidenceLevel;

/// A cause or an antagonist explains a change if it makes up at least this share of it.
pub(super) const EXPLAINED_SHARE_MIN: f64 = 0.5;

/// Which way something changed from A to B.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    More,
    Less,
}

impl Direction {
    /// The factor that makes a change in this direction positive.
    pub(super) fn sign(self) -> f64 {
        match self {
            Direction::More => 1.0,
            Direction::Less => -1.0,
        }
    }
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
pub enum WaitedFor {
    /// The device.
    Device,
    /// The vCPU's state while the request needed the vCPU.
    State(Part),
    /// The vCPU's state while the I/O phase is unknown: the request may have waited for the device.
    Unknown(Part),
}

/// The requests of a class: mean nanoseconds per request, over those that were attributed to causes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClassMeans {
    /// What they waited for.
    pub causes: BTreeMap<WaitedFor, f64>,
    /// How long they waited for a pCPU, whatever the phase of their I/O.
    pub wait: f64,
    /// Who ran meanwhile, by name; those that the summary lists.
    pub ran: BTreeMap<String, f64>,
    /// The longest that anyone can have run beyond what is listed.
    pub unlisted_max: f64,
    /// The share of the class that could not be attributed to causes, in [0, 1].
    pub lost_share: f64,
}

impl SlowRequests {
    /// From the summary of a run; `None` if it has no requests, or what they waited for was not recorded.
    #[must_use]
    pub fn of(summary: &Summary) -> Option<SlowRequests> {
        if summary.facts.evidence.level != EvidenceLevel::Recorded {
            return None;
        }
        let all = ClassMeans::of(&summary.classes.all, &summary.causes.all)?;
        let p99 = ClassMeans::of(&summary.classes.p99, &summary.causes.p99);
        Some(SlowRequests { all, p99 })
    }
}

impl WaitedFor {
    fn part(self) -> Option<Part> {
        match self {
            WaitedFor::Device => None,
            WaitedFor::State(part) | WaitedFor::Unknown(part) => Some(part),
        }
    }

    fn kind(self) -> Kind {
        Kind::of(self.part())
    }
}

impl ClassMeans {
    /// `None` of a class without requests.
    fn of(class: &Class, causes: &[Cause]) -> Option<ClassMeans> {
        let whole_count = class.count.saturating_add(class.unattributable);
        if whole_count == 0 {
            return None;
        }
        let lost_share = class.unattributable as f64 / whole_count as f64;
        let mut means = ClassMeans { lost_share, ..ClassMeans::default() };
        if class.count == 0 {
            return Some(means);
        }
        let a_request = |length_ns: u64| length_ns as f64 / class.count as f64;
        for cause in causes {
            let what = match (cause.part, cause.phase) {
                (None, _) => WaitedFor::Device,
                (Some(part), Phase::Unknown) => WaitedFor::Unknown(part),
                (Some(part), _) => WaitedFor::State(part),
            };
            *means.causes.entry(what).or_default() += a_request(cause.total_ns);
        }
        means.wait = a_request(class.wait_ns);
        means.unlisted_max = a_request(class.others_ns.saturating_add(class.unseen_ns));
        for row in &class.antagonists {
            let name = row.antagonist.thread.name.clone();
            *means.ran.entry(name).or_default() += a_request(row.antagonist.ran_ns);
        }
        Some(means)
    }

    /// The mean over several runs, what they waited for over those that tell.
    fn mean(runs: &[&ClassMeans]) -> ClassMeans {
        let mut sum = ClassMeans::default();
        let telling_count = runs.iter().filter(|run| run.lost_share < 1.0).count();
        let of_telling = |figure: f64| figure / telling_count.max(1) as f64;
        for run in runs {
            sum.lost_share += run.lost_share / runs.len() as f64;
            sum.wait += of_telling(run.wait);
            sum.unlisted_max += of_telling(run.unlisted_max);
            for (cause, mean_ns) in &run.causes {
                *sum.causes.entry(*cause).or_default() += of_telling(*mean_ns);
            }
            for (name, mean_ns) in &run.ran {
                *sum.ran.entry(name.clone()).or_default() += of_telling(*mean_ns);
            }
        }
        sum
    }

    /// How long a request took.
    fn latency(&self) -> f64 {
        self.causes.values().sum()
    }

    /// How long of that it waited for a pCPU: not while the device had it.
    fn pcpu_wait(&self) -> f64 {
        let waits = self.causes.iter().filter(|(what, _)| what.kind() == Kind::PcpuWait);
        waits.map(|(_, mean_ns)| mean_ns).sum()
    }

    /// How long somebody ran while it waited for a pCPU, at least: all that he can have run while the
    /// device had it is taken off.
    fn ran_min(&self, name: &str) -> f64 {
        let while_device = (self.wait - self.pcpu_wait()).max(0.0);
        (self.ran.get(name).copied().unwrap_or(0.0) - while_device).max(0.0)
    }

    /// The same at most: he may be among those who are not listed, also beyond what is listed of him.
    fn ran_max(&self, name: &str) -> f64 {
        let listed = self.ran.get(name).copied().unwrap_or(0.0);
        (listed + self.unlisted_max).min(self.pcpu_wait())
    }
}

/// The means of both sides, over the same class of requests.
struct BothSides {
    a: ClassMeans,
    b: ClassMeans,
    /// How the class is called.
    class: &'static str,
    /// The same after "of the requests".
    of_class: &'static str,
}

/// Whether the percentile is of this run as well: others are of VMs that were asked for nothing.
fn has_requests(run: &&Run) -> bool {
    run.values.iter().any(|(metric, _)| *metric == Metric::LatencyP99)
}

impl BothSides {
    fn of(a: &Side, b: &Side) -> Option<BothSides> {
        let of = |side: &Side, class: fn(&SlowRequests) -> Option<&ClassMeans>| {
            let means: Option<Vec<&ClassMeans>> = side
                .runs
                .iter()
                .filter(has_requests)
                .map(|run| run.slow.as_ref().and_then(class))
                .collect();
            means.filter(|means| !means.is_empty()).map(|means| ClassMeans::mean(&means))
        };
        let both = |class: fn(&SlowRequests) -> Option<&ClassMeans>| of(a, class).zip(of(b, class));
        if let Some((a, b)) = both(|slow| slow.p99.as_ref()) {
            return Some(BothSides { a, b, class: "above p99", of_class: " above p99" });
        }
        let (a, b) = both(|slow| Some(&slow.all))?;
        Some(BothSides { a, b, class: "on average", of_class: "" })
    }

    /// The side of which more could not be attributed to causes, and which share.
    fn lost(&self) -> (f64, &'static str) {
        let (a, b) = (self.a.lost_share, self.b.lost_share);
        if a > b { (a, "A") } else { (b, "B") }
    }

    /// Why no reason is said.
    fn unexplained(&self) -> String {
        let (lost_share, side) = self.lost();
        if lost_share >= NAMED_SHARE {
            let percent = whole_percent(lost_share);
            return format!(
                "; the reason is unknown: {percent} of the requests{} in {side} could not be attributed to \
                 causes",
                self.of_class
            );
        }
        let (a, b) = (self.a.latency(), self.b.latency());
        format!(
            "; no cause explains it: requests{} took {} on average",
            self.of_class,
            figures([a, b])
        )
    }
}

/// What requests waited for of one kind, on both sides.
struct CauseChange {
    kind: Kind,
    /// Of A and of B.
    of: [f64; 2],
    /// By how much it changed, the way that the percentile did.
    by: f64,
    /// By how much where it is not known how far the I/O was.
    unknown_by: f64,
    /// The same by part.
    parts: BTreeMap<Option<Part>, [f64; 2]>,
}

impl CauseChange {
    /// Every kind, that first which changed most.
    fn all(direction: Direction, both: &BothSides) -> Vec<CauseChange> {
        let mut kinds: BTreeMap<Kind, CauseChange> = BTreeMap::new();
        for (side, means) in [&both.a, &both.b].into_iter().enumerate() {
            for (what, mean_ns) in &means.causes {
                let kind = what.kind();
                let change = kinds.entry(kind).or_insert_with(|| CauseChange {
                    kind,
                    of: [0.0; 2],
                    by: 0.0,
                    unknown_by: 0.0,
                    parts: BTreeMap::new(),
                });
                let by = direction.sign() * if side == 0 { -mean_ns } else { *mean_ns };
                change.of[side] += mean_ns;
                change.by += by;
                if matches!(what, WaitedFor::Unknown(_)) {
                    change.unknown_by += by;
                }
                change.parts.entry(what.part()).or_default()[side] += mean_ns;
            }
        }
        let mut kinds: Vec<CauseChange> = kinds.into_values().collect();
        kinds.sort_by(|one, other| other.by.total_cmp(&one.by));
        kinds
    }

    fn weight(&self, whole: f64) -> Weight {
        let known = (self.by - self.unknown_by) / whole;
        Weight { kind: self.kind, share: self.by / whole, known }
    }

    /// What changed, and its figures: the one part that nearly all of the change is of, else the kind.
    fn described(&self, direction: Direction) -> (String, String) {
        let nearly_all = (1.0 - NEARLY_ALL) * self.by;
        let by = |[a, b]: &[f64; 2]| direction.sign() * (b - a);
        let only = self.parts.iter().find(|(_, of)| (by(of) - self.by).abs() <= nearly_all);
        let (name, of) = match (self.kind, only) {
            (Kind::Device, _) => ("time in the host's disk".to_owned(), self.of),
            (Kind::GuestQueue, _) => ("time in the guest's own queue".to_owned(), self.of),
            (_, Some((Some(part), of))) => (name(*part), *of),
            (Kind::State(part), _) => (name(part), self.of),
            (Kind::OnPcpu, _) => (name(Part::OnPcpu), self.of),
            (Kind::PcpuWait, _) => ("waiting for a pCPU".to_owned(), self.of),
        };
        let doubt = "in an unknown I/O phase, so it may have been the disk";
        match self.unknown_by {
            unknown if unknown >= NEARLY_ALL * self.by => (format!("{name} {doubt}"), figures(of)),
            unknown if unknown > nearly_all => {
                let percent = whole_percent(unknown / self.by);
                (format!("{name}, {percent} of it {doubt}"), figures(of))
            }
            _ => (name, figures(of)),
        }
    }
}

/// A state of a vCPU after "because of".
fn name(part: Part) -> String {
    match part {
        Part::OnPcpu | Part::Guest | Part::Kvm | Part::VmmUser => format!("time {}", label(part)),
        part => label(part).to_owned(),
    }
}

/// `27.1 ms against 900 us`: of B against A.
fn figures([a, b]: [f64; 2]) -> String {
    let show = |mean_ns| Unit::Nanoseconds.show(mean_ns);
    format!("{} against {}", show(b), show(a))
}

/// The cause of the percentile's change by `moved_ns` nanoseconds, and who ran; or why no cause is given.
pub(super) fn because(direction: Direction, moved_ns: f64, a: &Side, b: &Side) -> String {
    let Some(both) = BothSides::of(a, b) else {
        return "; the reason is unknown: not every run recorded what its requests waited for"
            .to_owned();
    };
    let changes = CauseChange::all(direction, &both);
    let named = if both.lost().0 > 1.0 - EXPLAINED_SHARE_MIN {
        Vec::new()
    } else {
        explaining(&changes, moved_ns)
    };
    let more = if direction == Direction::More { "" } else { "less " };
    match named.as_slice() {
        [] => both.unexplained(),
        [only] => {
            let is_wait = only.kind == Kind::PcpuWait;
            let who = if is_wait { who(direction, &both, only.by) } else { String::new() };
            let (name, figures) = only.described(direction);
            format!(", because of {more}{name} ({figures} per request {}){who}", both.class)
        }
        [first, others @ ..] => {
            let (name, figures) = first.described(direction);
            let first = format!("{more}{name} ({figures} per request {})", both.class);
            let other = |change: &&CauseChange| {
                let (name, figures) = change.described(direction);
                format!(" and {more}{name} ({figures})")
            };
            let others: String = others.iter().map(other).collect();
            format!(", because of {first}{others}")
        }
    }
}

/// The one or two kinds, of all that changed, that explain a change of the percentile by so much; none if
/// none do.
fn explaining(changes: &[CauseChange], moved_ns: f64) -> Vec<&CauseChange> {
    // Where the requests' mean moved the other way, whatever is behind the percentile is not in it.
    if changes.iter().map(|change| change.by).sum::<f64>() <= 0.0 {
        return Vec::new();
    }
    let changes: Vec<&CauseChange> = changes.iter().filter(|change| change.by > 0.0).collect();
    let whole = changes.iter().map(|change| change.by).sum::<f64>().max(moved_ns);
    let Some(first) = changes.first() else { return Vec::new() };
    let device = changes.iter().find(|change| change.kind == Kind::Device);
    let share = |of: Option<&&CauseChange>| of.map_or(0.0, |change| change.by / whole);
    let weight = first.weight(whole);
    if weight.dominates(share(changes.get(1)), share(device)) {
        return vec![first];
    }
    let other = if weight.may_be_device(share(device)) { device } else { changes.get(1) };
    let named: Vec<&CauseChange> = [Some(first), other].into_iter().flatten().copied().collect();
    let share: f64 = named.iter().map(|change| change.by / whole).sum();
    if share >= EXPLAINED_SHARE_MIN { named } else { Vec::new() }
}

/// Who makes most of so large a change in the waits for a pCPU, whatever may have run beside those listed.
fn who(direction: Direction, both: &BothSides, whole: f64) -> String {
    let (more, less) = match direction {
        Direction::More => (&both.b, &both.a),
        Direction::Less => (&both.a, &both.b),
    };
    let by = |name: &String| more.ran_min(name) - less.ran_max(name);
    let most = more.ran.keys().max_by(|one, other| by(one).total_cmp(&by(other)));
    match most.filter(|name| by(name) >= EXPLAINED_SHARE_MIN * whole) {
        Some(name) if direction == Direction::More => format!(", mostly while {name} was running"),
        Some(name) => format!(", because {name} ran less"),
        None => String::new(),
    }
}
