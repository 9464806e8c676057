//! Statistics on the difference between the repeats of two conditions. Pure: numbers in, numbers out.
//!
//! The unit of observation is the run. Requests of one run share its guest, its caches and its place on the
//! host, so thousands of requests are not thousands of independent observations.

use serde::Serialize;
use std::f64::consts::{FRAC_2_PI, SQRT_2};
use vslice_spec::split_mix::SplitMix64;

/// Resamples of the bootstrap.
pub const RESAMPLES_COUNT: usize = 10_000;

/// The seed of the bootstrap: equal runs give an equal interval.
pub const SEED: u64 = 0x7673_6c69_6365;

/// The rank test counts every arrangement up to this many runs of both sides together.
pub const EXACT_RUNS_MAX: usize = 60;

/// The error rate of intervals and tests: how often an interval may miss the truth, and a test may call
/// chance a difference.
pub const SIGNIFICANCE: f64 = 0.05;

/// The two-sided 5 % point of the normal distribution.
const Z_SIGNIFICANCE: f64 = 1.959_964;

/// The point of the normal distribution that gives 80 % power.
const Z_POWER: f64 = 0.841_621;

/// How two means are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// The mean of B divided by that of A, minus 1.
    Relative,
    /// The mean of B minus that of A.
    Difference,
}

impl Scale {
    /// B compared with A; infinite if the mean of A is 0 and that of B is not.
    #[must_use]
    pub fn effect(self, mean_a: f64, mean_b: f64) -> f64 {
        match self {
            Scale::Difference => mean_b - mean_a,
            Scale::Relative if mean_a == mean_b => 0.0,
            Scale::Relative => mean_b / mean_a - 1.0,
        }
    }
}

/// The range in which the effect lies, given the scatter of the repeats.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// The lower end, on the effect's scale.
    pub low: f64,
    /// The upper end; infinite (`null` in JSON) if the mean of A may be 0.
    pub high: f64,
}

/// The outcome of the rank test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RankTest {
    /// How often chance alone would put the runs of one side so far before or behind the other's, in
    /// (0, 1].
    pub p: f64,
    /// How p was found.
    pub method: RankMethod,
}

/// How the p of the rank test was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RankMethod {
    /// Every arrangement of these ranks on two sides was counted; tied runs have their mean rank.
    Exact,
    /// By the normal approximation, corrected for ties and continuity.
    Normal,
}

/// The arithmetic mean; `None` without values.
#[must_use]
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The sample variance; `None` for fewer than two values.
#[must_use]
pub fn variance(values: &[f64]) -> Option<f64> {
    let mean = mean(values).filter(|_| values.len() > 1)?;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some(squares / (values.len() - 1) as f64)
}

/// The 95 % interval of the effect of B against A: a percentile bootstrap over the runs, both sides
/// resampled independently (Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 8
/// and 13). `None` if a side has fewer than two runs, which have no spread.
///
/// Of few runs the plain percentiles are too narrow: resamples of `n` runs scatter by `sqrt((n-1)/n)`
/// too little, and as if their spread were known. The percentiles are moved outwards by just that, to
/// those of Student's t (Hesterberg, "What teachers should know about the bootstrap", The American
/// Statistician 69, 2015, section 3: the expanded percentile interval); of six runs a side 0.7 % are
/// cut off at each end instead of 2.5 %.
#[must_use]
pub fn interval(scale: Scale, a: &[f64], b: &[f64], resamples_count: usize) -> Option<Interval> {
    if a.len() < 2 || b.len() < 2 || resamples_count == 0 {
        return None;
    }
    let mut random = SplitMix64(SEED);
    let effect = |_| {
        let mean_a = resampled_mean(&mut random, a);
        scale.effect(mean_a, resampled_mean(&mut random, b))
    };
    let effects = (0..resamples_count).map(effect).collect();
    Some(cut_off(effects, tail(a.len().min(b.len()), a.len() + b.len() - 2)))
}

/// The 95 % interval of one mean, found in the same way; `None` for fewer than two runs. With four runs it
/// misses the mean in 12 % of cases, not in 5 %, because no resample lies beyond the runs.
#[must_use]
pub fn mean_interval(values: &[f64], resamples_count: usize) -> Option<Interval> {
    if values.len() < 2 || resamples_count == 0 {
        return None;
    }
    let mut random = SplitMix64(SEED);
    let means = (0..resamples_count).map(|_| resampled_mean(&mut random, values)).collect();
    Some(cut_off(means, tail(values.len(), values.len() - 1)))
}

fn resampled_mean(random: &mut SplitMix64, values: &[f64]) -> f64 {
    let drawn = (0..values.len()).map(|_| values[random.below(values.len())]);
    drawn.sum::<f64>() / values.len() as f64
}

/// What is left of the resamples, at least one, when the share `tail` is cut off at each end.
fn cut_off(mut resamples: Vec<f64>, tail: f64) -> Interval {
    resamples.sort_unstable_by(f64::total_cmp);
    let last = resamples.len() - 1;
    let cut = whole(tail * resamples.len() as f64);
    let cut_count = usize::try_from(cut).unwrap_or(0).min(last / 2);
    Interval { low: resamples[cut_count], high: resamples[last - cut_count] }
}

/// The share of the resamples that lies beyond each end of the interval: of at least `fewest_count` runs
/// a side, with so many degrees of freedom.
fn tail(fewest_count: usize, freedom: usize) -> f64 {
    let fewest = fewest_count as f64;
    let widening = (fewest / (fewest - 1.0)).sqrt();
    normal_above(widening * student_point(freedom))
}

/// The two-sided 5 % point of Student's t with so many degrees of freedom, at least 1.
fn student_point(freedom: usize) -> f64 {
    let (mut low, mut high) = (0.0, 20.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if student_within(middle, freedom) < 1.0 - SIGNIFICANCE {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// How likely Student's t is within `-t..t`: Abramowitz, Stegun, "Handbook of Mathematical Functions",
/// 26.7.3 and 26.7.4.
fn student_within(t: f64, freedom: usize) -> f64 {
    let angle = (t / (freedom as f64).sqrt()).atan();
    let (sine, cosine) = angle.sin_cos();
    let is_odd = freedom % 2 == 1;
    let (mut term, mut sum) = (if is_odd { cosine } else { 1.0 }, 0.0);
    let mut at = if is_odd { 1 } else { 0 };
    while at + 2 <= freedom {
        sum += term;
        at += 2;
        term *= cosine * cosine * (at - 1) as f64 / at as f64;
    }
    if is_odd { FRAC_2_PI * (angle + sine * sum) } else { sine * sum }
}

/// How likely a normal number is above `z`: `erfc` as in Press et al., "Numerical Recipes", 6.2, whose
/// relative error is below 1.2e-7 everywhere.
fn normal_above(z: f64) -> f64 {
    const TERMS: [f64; 10] = [
        -1.265_512_23,
        1.000_023_68,
        0.374_091_96,
        0.096_784_18,
        -0.186_288_06,
        0.278_868_07,
        -1.135_203_98,
        1.488_515_87,
        -0.822_152_23,
        0.170_872_77,
    ];
    let x = z.abs() / SQRT_2;
    let t = 1.0 / (1.0 + 0.5 * x);
    let series = TERMS.iter().rev().fold(0.0, |sum, term| sum * t + term);
    let above = 0.5 * t * (-x * x + series).exp();
    if z >= 0.0 { above } else { 1.0 - above }
}

/// The two-sided rank test of Mann and Whitney ("On a test of whether one of two random variables is
/// stochastically larger than the other", Annals of Mathematical Statistics 18, 1947). `None` if a side
/// has no run.
///
/// Up to [`EXACT_RUNS_MAX`] runs every way to deal the ranks to the sides is counted, tied runs having
/// their mean rank: the permutation test of these very ranks, exact with ties as well.
#[must_use]
pub fn rank_test(a: &[f64], b: &[f64]) -> Option<RankTest> {
    if a.is_empty() || b.is_empty() {
        return None;
    }
    let (ranks, ties) = doubled_ranks(a, b);
    let sum_a: usize = ranks[..a.len()].iter().sum();
    // Of doubled ranks the mean sum is a whole number.
    let apart = sum_a.abs_diff(a.len() * (ranks.len() + 1));
    Some(if ranks.len() <= EXACT_RUNS_MAX {
        RankTest { p: share_as_far(&ranks, a.len(), apart), method: RankMethod::Exact }
    } else {
        let p = normal_p(apart as f64 / 2.0, ties, a.len() as f64, b.len() as f64);
        RankTest { p, method: RankMethod::Normal }
    })
}

/// Twice the rank of each value of `a`, then of each of `b`, and the sum of `t^3 - t` over the ties.
fn doubled_ranks(a: &[f64], b: &[f64]) -> (Vec<usize>, f64) {
    let all: Vec<f64> = a.iter().chain(b).copied().collect();
    let ranks = all.iter().map(|value| {
        let below = all.iter().filter(|other| *other < value).count();
        let equal = all.iter().filter(|other| *other == value).count();
        (2 * below + equal + 1, equal)
    });
    // Each of t tied values brings its share of t^3 - t.
    ranks.fold((Vec::new(), 0.0), |(mut ranks, ties), (rank, equal)| {
        ranks.push(rank);
        (ranks, ties + ((equal * equal) as f64 - 1.0))
    })
}

/// The share of the ways to choose `chosen_count` of the ranks whose sum is at least `apart` away from
/// the mean one.
fn share_as_far(ranks: &[usize], chosen_count: usize, apart: usize) -> f64 {
    let sum_max: usize = ranks.iter().sum();
    // How many ways there are to choose so many ranks with that sum; fewer than 2^57 of 60 runs.
    let mut ways = vec![vec![0_u64; sum_max + 1]; chosen_count + 1];
    ways[0][0] = 1;
    for rank in ranks {
        for count in (1..=chosen_count).rev() {
            for sum in (*rank..=sum_max).rev() {
                ways[count][sum] += ways[count - 1][sum - rank];
            }
        }
    }
    let centre = chosen_count * (ranks.len() + 1);
    let all: u64 = ways[chosen_count].iter().sum();
    let far =
        ways[chosen_count].iter().enumerate().filter(|(sum, _)| sum.abs_diff(centre) >= apart);
    far.map(|(_, ways)| *ways).sum::<u64>() as f64 / all as f64
}

fn normal_p(apart: f64, ties: f64, count_a: f64, count_b: f64) -> f64 {
    let count = count_a + count_b;
    let variance = count_a * count_b / 12.0 * (count + 1.0 - ties / (count * (count - 1.0)));
    if variance <= 0.0 {
        return 1.0;
    }
    (2.0 * normal_above((apart - 0.5).max(0.0) / variance.sqrt())).min(1.0)
}

/// The smallest p that the rank test can give for so many runs without ties: that of sides which do not
/// overlap.
#[must_use]
pub fn least_p(count_a: usize, count_b: usize) -> f64 {
    let pairs = (1..=count_a).map(|at| at as f64 / (count_b + at) as f64);
    (2.0 * pairs.product::<f64>()).min(1.0)
}

/// Runs that each side needs for 80 % power at 5 %, if the effect is this one and the runs go on to
/// scatter as they do: `n = (z_0.975 + z_0.8)^2 (v_a + v_b) / effect^2`, the usual size of two samples
/// (Chow, Shao, Wang, "Sample Size Calculations in Clinical Research", 2nd edition 2008, section 3.2).
/// Of a ratio `v` is the squared coefficient of variation, times the squared ratio of the means (the
/// delta method). `None` if it cannot be told.
#[must_use]
pub fn repeats(scale: Scale, a: &[f64], b: &[f64], effect: f64) -> Option<u64> {
    let (mean_a, mean_b) = (mean(a)?, mean(b)?);
    let (variance_a, variance_b) = (variance(a)?, variance(b)?);
    let spread = match scale {
        Scale::Difference => variance_a + variance_b,
        Scale::Relative => (variance_a * (mean_b / mean_a).powi(2) + variance_b) / mean_a.powi(2),
    };
    let count = ((Z_SIGNIFICANCE + Z_POWER) / effect).powi(2) * spread;
    // More than a million runs nobody makes, and infinity is no number of runs.
    (0.0..1e6).contains(&count).then(|| whole(count.ceil()))
}

/// A number in [0, 1e6] without its fraction.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is in the range, and its fraction is to go"
)]
fn whole(number: f64) -> u64 {
    number as u64
}

#[cfg(test)]
#[path = "statistics_tests.rs"]
mod tests;
