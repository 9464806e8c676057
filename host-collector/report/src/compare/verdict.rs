//! From the runs' numbers to verdicts: on each metric, and on the original experiment's claim. Pure.

use super::metrics::Metric;
use super::statistics::{
    Interval, RESAMPLES_COUNT, RankTest, SIGNIFICANCE, Scale, interval, least_p, mean, rank_test,
    repeats,
};
use serde::Serialize;
use std::fmt;

/// A relative effect within this counts as no difference: a smaller one changes no engineer's mind.
pub const MARGIN_RELATIVE: f64 = 0.05;

/// The same for a difference of shares: one percentage point.
pub const MARGIN_SHARE: f64 = 0.01;

/// A vCPU that sleeps on the big lock for less than this share of its time has no contention that an iothread
/// could remove.
pub const CONTENTION_SHARE: f64 = 0.001;

/// To find that an effect lies on neither side of a margin takes the power of two tests: the two errors
/// share 20 %, so `z_0.9` stands where [`repeats`] has `z_0.8` (Chow, Shao, Wang, section 3.2.3). The
/// distance to the margin counts for so much of an effect: `(z_0.975 + z_0.8) / (z_0.975 + z_0.9)`.
const EQUIVALENCE_POWER: f64 = 2.801_6 / 3.241_5;

/// The same as a number of [`Metric::BqlWaitPerSecond`].
const CONTENTION_NS_PER_S: f64 = CONTENTION_SHARE * 1e9;

/// The verdict on one metric.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Verdict {
    /// B is lower: the interval lies below 0, and the rank test rules out chance.
    Lower,
    /// B is higher: the interval lies above 0, and the rank test rules out chance.
    Higher,
    /// The interval lies within the margin, even if it excludes 0.
    NoDifference {
        /// The margin, on the effect's scale.
        margin: f64,
    },
    /// None of these.
    NotDecided {
        /// Why not.
        why: Undecided,
        /// About how many runs each side needs; `None` if that is unknown.
        repeats: Option<u64>,
    },
}

/// Why a metric is undecided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Undecided {
    /// A side has no run with the metric.
    NotMeasured,
    /// A side has one run, which has no spread.
    OneRun,
    /// With so few runs no order rules out chance: the rank test cannot come below 5 %.
    FewRuns,
    /// The runs scatter too much.
    Spread,
}

/// One metric of two sides.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// How the sides are compared.
    pub scale: Scale,
    /// The metric's values in the runs of A that have it.
    pub a: Vec<f64>,
    /// The same for B.
    pub b: Vec<f64>,
    /// B compared with A: see [`Scale::effect`].
    pub effect: Option<f64>,
    /// Its 95 % interval.
    pub interval: Option<Interval>,
    /// How likely chance alone is.
    pub rank_test: Option<RankTest>,
    /// In words.
    pub verdict: Verdict,
}

impl Difference {
    /// Compares the runs' values.
    #[must_use]
    pub fn new(scale: Scale, a: Vec<f64>, b: Vec<f64>) -> Difference {
        let effect = mean(&a).zip(mean(&b)).map(|(mean_a, mean_b)| scale.effect(mean_a, mean_b));
        let interval = interval(scale, &a, &b, RESAMPLES_COUNT);
        let rank_test = rank_test(&a, &b);
        let is_beyond_chance = rank_test.is_some_and(|test| test.p <= SIGNIFICANCE);
        let verdict = verdict(scale, &a, &b, effect, interval, is_beyond_chance);
        Difference { scale, a, b, effect, interval, rank_test, verdict }
    }

    /// Whether any run has a value other than 0.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.a.iter().chain(&self.b).any(|value| *value != 0.0)
    }
}

/// The margin of a scale.
fn margin(scale: Scale) -> f64 {
    match scale {
        Scale::Relative => MARGIN_RELATIVE,
        Scale::Difference => MARGIN_SHARE,
    }
}

fn verdict(
    scale: Scale,
    a: &[f64],
    b: &[f64],
    effect: Option<f64>,
    interval: Option<Interval>,
    is_beyond_chance: bool,
) -> Verdict {
    let margin = margin(scale);
    let not_decided = |why| Verdict::NotDecided { why, repeats: needed(scale, a, b, effect) };
    let Some(Interval { low, high }) = interval else {
        let is_measured = !a.is_empty() && !b.is_empty();
        let why = if is_measured { Undecided::OneRun } else { Undecided::NotMeasured };
        return not_decided(why);
    };
    if least_p(a.len(), b.len()) > SIGNIFICANCE {
        return not_decided(Undecided::FewRuns);
    }
    if -margin <= low && high <= margin {
        Verdict::NoDifference { margin }
    } else if high < 0.0 && is_beyond_chance {
        Verdict::Lower
    } else if low > 0.0 && is_beyond_chance {
        Verdict::Higher
    } else {
        not_decided(Undecided::Spread)
    }
}

/// Runs that each side needs, about: to find the effect that was seen, or to find that it lies within the
/// margin, whichever takes fewer; never fewer than could decide anything, and more than there are.
fn needed(scale: Scale, a: &[f64], b: &[f64], effect: Option<f64>) -> Option<u64> {
    let effect = effect?.abs();
    let effect = effect.max((margin(scale) - effect) * EQUIVALENCE_POWER);
    let there_are = a.len().min(b.len());
    let least = (there_are + 1..).find(|count| least_p(*count, *count) <= SIGNIFICANCE)?;
    Some(repeats(scale, a, b, effect)?.max(least as u64))
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (why, repeats) = match self {
            Verdict::Lower => return formatter.write_str("lower"),
            Verdict::Higher => return formatter.write_str("higher"),
            // Which of the two margins it is, the effect beside it says by its unit.
            Verdict::NoDifference { margin } if *margin == MARGIN_SHARE => {
                return write!(formatter, "no difference above {:.0} point", margin * 100.0);
            }
            Verdict::NoDifference { margin } => {
                return write!(formatter, "no difference above {:.0} %", margin * 100.0);
            }
            Verdict::NotDecided { why, repeats } => (*why, *repeats),
        };
        formatter.write_str("undecided: ")?;
        match (why, repeats) {
            (Undecided::NotMeasured, _) => formatter.write_str("not measured on both sides"),
            (Undecided::OneRun, _) => formatter.write_str("a single run has no spread"),
            (_, Some(count)) => write!(formatter, "about {count} repeats would decide it"),
            (_, None) => formatter.write_str("the number of repeats needed is unknown"),
        }
    }
}

/// The original experiment's claim: with I/O from the main loop (A) the reader's vCPU loses its timeslices to
/// QEMU's big lock, and with an iothread (B) they are steady.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Claim {
    /// What became of it.
    pub verdict: ClaimVerdict,
    /// About how many runs each side needs, if the claim is undecided and that is known.
    pub repeats: Option<u64>,
    /// The verdict as a sentence that can be quoted, with its numbers.
    pub sentence: String,
}

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimVerdict {
    /// In B the timeslices vary less, and the vCPU waits less for the big lock.
    Holds,
    /// In B the timeslices vary as much or more, or the vCPU waits as long or longer for the big lock.
    DoesNotHold,
    /// In no run of A or B does the vCPU wait for the big lock for as much as [`CONTENTION_SHARE`] of its
    /// time.
    NoContentionFound,
    /// The runs do not decide it.
    NotDecided,
}

impl Claim {
    /// The verdict from the two metrics that the claim is about. The sides differ in the iothread, and unless
    /// `is_comparable` maybe in more.
    #[must_use]
    pub fn new(cv: &Difference, bql: &Difference, is_comparable: bool) -> Claim {
        let is_contended = |waits: &[f64]| waits.iter().any(|wait| *wait >= CONTENTION_NS_PER_S);
        let is_measured = !bql.a.is_empty() && !bql.b.is_empty();
        let is_quiet = is_measured && !is_contended(&bql.a) && !is_contended(&bql.b);
        let (verdict, words) = match (cv.verdict, bql.verdict) {
            (Verdict::NoDifference { .. }, _) if is_quiet => (
                ClaimVerdict::NoContentionFound,
                "No contention found: with {A}, the reader's vCPU hardly waits for QEMU's big lock, and \
                 its timeslices are as steady as with {B}",
            ),
            (Verdict::NotDecided { why: Undecided::Spread, .. }, _) if is_quiet => (
                ClaimVerdict::NoContentionFound,
                "No contention found: with {A}, the reader's vCPU hardly waits for QEMU's big lock, so {B} \
                 has nothing to improve; it is undecided whether its timeslices differ for another reason",
            ),
            (Verdict::Lower | Verdict::Higher, _) if is_quiet => (
                ClaimVerdict::NoContentionFound,
                "No contention found: with {A}, the reader's vCPU hardly waits for QEMU's big lock, so {B} \
                 has nothing to improve; its timeslices differ for another reason",
            ),
            (Verdict::NoDifference { .. } | Verdict::Higher, _) => (
                ClaimVerdict::DoesNotHold,
                "The claim does not hold: with {B}, the timeslices of the reader's vCPU are no steadier",
            ),
            (Verdict::Lower, Verdict::Lower) if is_contended(&bql.a) => (
                ClaimVerdict::Holds,
                "The claim holds: with {B}, the timeslices of the reader's vCPU are steadier, and it waits \
                 less for QEMU's big lock",
            ),
            (Verdict::Lower, Verdict::NoDifference { .. } | Verdict::Higher) => (
                ClaimVerdict::DoesNotHold,
                "The claim does not hold: with {B}, the timeslices of the reader's vCPU are steadier, but \
                 not because it waits less for QEMU's big lock",
            ),
            _ => (ClaimVerdict::NotDecided, "It is undecided whether the claim holds"),
        };
        let repeats = [cv.verdict, bql.verdict].into_iter().filter_map(|verdict| match verdict {
            Verdict::NotDecided { repeats, .. } => repeats,
            _ => None,
        });
        let repeats = repeats.max().filter(|_| verdict == ClaimVerdict::NotDecided);
        let more = match (verdict, repeats) {
            (ClaimVerdict::NotDecided, Some(count)) => {
                format!("; about {count} repeats on each side would decide it")
            }
            (ClaimVerdict::NotDecided, None) => why_not(cv, bql).to_owned(),
            _ => String::new(),
        };
        let numbers =
            [numbers(Metric::TimesliceCv, cv), numbers(Metric::BqlWaitPerSecond, bql)].join("; ");
        let runs = format!("{} against {}", runs(cv.a.len()), runs(cv.b.len()));
        let (name_a, name_b, doubt) = if is_comparable {
            ("I/O from the main loop (A)", "an iothread (B)", "")
        } else {
            let doubt = " But A and B may differ in more than the iothread: see the warnings.";
            ("A", "B", doubt)
        };
        let words = words.replace("{A}", name_a).replace("{B}", name_b);
        Claim { verdict, repeats, sentence: format!("{words} ({numbers}; {runs}){more}.{doubt}") }
    }
}

/// Why not even a number of repeats can be told.
fn why_not(cv: &Difference, bql: &Difference) -> &'static str {
    let is = |wanted| {
        [cv, bql]
            .iter()
            .any(|of| matches!(of.verdict, Verdict::NotDecided { why, .. } if why == wanted))
    };
    if is(Undecided::NotMeasured) {
        ": a metric was not measured on both sides"
    } else if is(Undecided::OneRun) {
        ": a single run has no spread"
    } else {
        ""
    }
}

pub(super) fn runs(count: usize) -> String {
    if count == 1 { "1 run".to_owned() } else { format!("{count} runs") }
}

/// `timeslice CV 1.24 against 0.72, -41.9 % [-50.1 %, -30.2 %]`.
fn numbers(metric: Metric, of: &Difference) -> String {
    let show = |values| mean(values).map_or("unknown".to_owned(), |mean| metric.unit().show(mean));
    let scale = of.scale;
    let effect = of.effect.map(|effect| format!(", {}", show_effect(scale, effect)));
    let interval = of.interval.map(|interval| format!(" {}", show_interval(scale, interval)));
    format!(
        "{} {} against {}{}{}",
        metric.label(),
        show(&of.a),
        show(&of.b),
        effect.unwrap_or_default(),
        interval.unwrap_or_default()
    )
}

/// An effect with its sign: `-42.0 %`, `+1.3 points`, `from 0`.
#[must_use]
pub fn show_effect(scale: Scale, effect: f64) -> String {
    let unit = match scale {
        Scale::Relative => "%",
        Scale::Difference => "points",
    };
    let percent = effect * 100.0;
    if effect.is_infinite() {
        "from 0".to_owned()
    } else if percent.abs() < 0.05 {
        format!("0.0 {unit}")
    } else if percent.abs() < 999.5 {
        format!("{percent:+.1} {unit}")
    } else {
        format!("{percent:+.0} {unit}")
    }
}

/// An interval, `[-50.1 %, -30.2 %]`.
#[must_use]
pub fn show_interval(scale: Scale, interval: Interval) -> String {
    let unit = if scale == Scale::Relative { " %" } else { "" };
    let end = |end: f64| {
        if end.is_infinite() {
            return "unbounded".to_owned();
        }
        let percent = end * 100.0;
        let percent = if percent.abs() < 0.05 { 0.0 } else { percent };
        let sign = if percent == 0.0 {
            ""
        } else if percent > 0.0 {
            "+"
        } else {
            "-"
        };
        format!("{sign}{:.1}{unit}", percent.abs())
    };
    format!("[{}, {}]", end(interval.low), end(interval.high))
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
