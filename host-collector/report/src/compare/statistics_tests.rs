//! The laws of the statistics.

use super::*;
use proptest::prelude::*;

/// Fewer resamples than a user gets, so that thousands of samples can be drawn.
const RESAMPLES: usize = 1_000;

/// The p of the rank test as its definition has it: every choice of the runs that could be side A.
fn p_by_enumeration(a: &[f64], b: &[f64]) -> f64 {
    let all: Vec<f64> = a.iter().chain(b).copied().collect();
    // Pairs that A wins, a tie being half of one: Mann and Whitney's U, doubled.
    let doubled_u = |is_a: &dyn Fn(usize) -> bool| -> i64 {
        let sides = (0..all.len()).partition::<Vec<usize>, _>(|at| is_a(*at));
        let won = |left: f64, right: f64| i64::from(left > right) * 2 + i64::from(left == right);
        sides
            .0
            .iter()
            .map(|left| sides.1.iter().map(|right| won(all[*left], all[*right])).sum::<i64>())
            .sum()
    };
    let middle = i64::try_from(a.len() * b.len()).unwrap();
    let seen = (doubled_u(&|at| at < a.len()) - middle).abs();
    let (mut far, mut count) = (0_u32, 0_u32);
    for choice in 0..1_u32 << all.len() {
        if choice.count_ones() as usize == a.len() {
            count += 1;
            far += u32::from((doubled_u(&|at| choice >> at & 1 == 1) - middle).abs() >= seen);
        }
    }
    f64::from(far) / f64::from(count)
}

fn close(left: f64, right: f64) -> bool {
    left == right || (left - right).abs() <= 1e-9 * left.abs().max(right.abs()).max(1.0)
}

fn values(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec(0.1..1e6_f64, count)
}

/// Few different values, so that many are tied.
fn tied(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec((0..4_u8).prop_map(f64::from), count)
}

/// Two numbers of the standard normal distribution (Box and Muller).
fn normal(random: &mut SplitMix64) -> f64 {
    let mut uniform = || (random.next() >> 11) as f64 / (1_u64 << 53) as f64;
    let (first, second) = (1.0 - uniform(), uniform());
    (-2.0 * first.ln()).sqrt() * (std::f64::consts::TAU * second).cos()
}

/// How often an interval of normal samples with equal means excludes 0.
fn misses(count: usize, scale: Scale) -> f64 {
    let mut random = SplitMix64(7);
    let draws_count = 600;
    let mut sample =
        || -> Vec<f64> { (0..count).map(|_| 100.0 + 10.0 * normal(&mut random)).collect() };
    let missed = (0..draws_count).filter(|_| {
        let interval = interval(scale, &sample(), &sample(), RESAMPLES).unwrap();
        interval.low > 0.0 || interval.high < 0.0
    });
    missed.count() as f64 / f64::from(draws_count)
}

#[test]
fn an_interval_misses_about_as_often_as_it_says() {
    for count in [4, 6, 12] {
        for scale in [Scale::Relative, Scale::Difference] {
            let misses = misses(count, scale);
            assert!((0.015..0.09).contains(&misses), "{count} runs, {scale:?}: {misses}");
        }
    }
}

#[test]
fn the_interval_of_a_mean_misses_it_about_as_often_as_it_says() {
    // Of four runs all resamples together do not reach far enough.
    for (count, misses_max) in [(4_usize, 0.13), (6, 0.09), (12, 0.09)] {
        let mut random = SplitMix64(11);
        let missed = (0..600).filter(|_| {
            let sample: Vec<f64> = (0..count).map(|_| 3.0 + normal(&mut random)).collect();
            let interval = mean_interval(&sample, RESAMPLES).unwrap();
            !(interval.low..=interval.high).contains(&3.0)
        });
        let misses = missed.count() as f64 / 600.0;
        assert!((0.015..misses_max).contains(&misses), "{count} runs: {misses}");
    }
    assert_eq!(mean_interval(&[7.0], RESAMPLES), None, "one run has no spread");
    let same = mean_interval(&[7.0; 3], RESAMPLES).unwrap();
    assert_eq!((same.low, same.high), (7.0, 7.0));
}

#[test]
fn points_of_the_distributions_are_those_of_the_tables() {
    for (freedom, point) in
        [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (10, 2.228)]
    {
        assert!((student_point(freedom) - point).abs() < 6e-4, "{freedom}");
    }
    assert!((normal_above(Z_SIGNIFICANCE) - 0.025).abs() < 1e-7);
    assert!((normal_above(-Z_POWER) - 0.8).abs() < 1e-6);
    assert!((normal_above(4.0) - 3.167e-5).abs() < 1e-8);
}

#[test]
fn ranks_of_the_textbook() {
    let exact = |a: &[f64], b: &[f64]| rank_test(a, b).unwrap();
    // Sides of three that do not overlap: 2 of the 20 ways.
    let apart = exact(&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]);
    assert_eq!((apart.p, apart.method), (0.1, RankMethod::Exact));
    assert_eq!(exact(&[5.0; 4], &[5.0; 4]).p, 1.0);
    assert_eq!(rank_test(&[], &[1.0]), None);
    assert_eq!(least_p(3, 3), 0.1);
    assert!(least_p(4, 4) < SIGNIFICANCE && least_p(3, 4) > SIGNIFICANCE);
    assert_eq!(least_p(1, 1), 1.0);
}

#[test]
fn the_approximation_goes_on_where_counting_ends() {
    let (a, b): (Vec<f64>, Vec<f64>) = (0..60).map(|at| f64::from(at % 17)).enumerate().fold(
        (vec![], vec![]),
        |(mut a, mut b), (at, value)| {
            if at % 2 == 0 {
                a.push(value)
            } else {
                b.push(value + 2.0)
            }
            (a, b)
        },
    );
    let exact = rank_test(&a, &b).unwrap();
    let (ranks, ties) = doubled_ranks(&a, &b);
    let apart = ranks[..30].iter().sum::<usize>().abs_diff(30 * 61) as f64 / 2.0;
    let approximate = normal_p(apart, ties, 30.0, 30.0);
    assert!((exact.p - approximate).abs() < 0.003, "{} {approximate}", exact.p);
    let more: Vec<f64> = a.iter().chain(&[1.0]).copied().collect();
    assert_eq!(rank_test(&more, &b).unwrap().method, RankMethod::Normal);
    assert_eq!(rank_test(&[3.0; 40], &[3.0; 40]).unwrap().p, 1.0);
}

#[test]
fn what_a_has_none_of_is_infinitely_more_in_b() {
    assert_eq!(Scale::Relative.effect(0.0, 0.0), 0.0);
    assert_eq!(Scale::Relative.effect(0.0, 1.0), f64::INFINITY);
    let all = interval(Scale::Relative, &[0.0; 4], &[1.0; 4], RESAMPLES).unwrap();
    assert_eq!((all.low, all.high), (f64::INFINITY, f64::INFINITY));
    assert_eq!(serde_json::to_value(all).unwrap()["high"], serde_json::Value::Null);
    let some = interval(Scale::Relative, &[0.0, 0.0, 1.0, 1.0], &[1.0; 4], RESAMPLES).unwrap();
    assert_eq!((some.low, some.high), (0.0, f64::INFINITY));
    assert_eq!(repeats(Scale::Relative, &[0.0; 4], &[1.0; 4], f64::INFINITY), None);
}

#[test]
fn the_number_of_repeats_is_that_of_the_books() {
    // Cohen 1988, table 2.4.1: 16 a side for d = 1 by t, which the normal formula has one below.
    let side = |mean: f64| vec![mean - 0.5_f64.sqrt(), mean + 0.5_f64.sqrt()];
    assert_eq!(repeats(Scale::Difference, &side(0.0), &side(1.0), 1.0), Some(16));
    assert_eq!(repeats(Scale::Difference, &side(0.0), &side(1.0), 0.5), Some(63));
    // 10 % of spread on both sides, and 10 % of effect.
    let spread = |mean: f64| vec![mean * (1.0 - 0.005_f64.sqrt()), mean * (1.0 + 0.005_f64.sqrt())];
    assert_eq!(repeats(Scale::Relative, &spread(50.0), &spread(50.0), 0.1), Some(16));
    assert_eq!(repeats(Scale::Difference, &[1.0], &[1.0, 2.0], 1.0), None);
    assert_eq!(repeats(Scale::Difference, &[1.0, 2.0], &[1.0, 2.0], 0.0), None);
}

#[test]
fn one_run_has_no_interval() {
    assert_eq!(interval(Scale::Relative, &[1.0], &[1.0, 2.0], RESAMPLES), None);
    assert_eq!(interval(Scale::Relative, &[1.0, 2.0], &[], RESAMPLES), None);
}

proptest! {
    #[test]
    fn the_interval_holds_the_effect(
        a in values(2..9), b in values(2..9), is_relative in any::<bool>(),
    ) {
        let scale = if is_relative { Scale::Relative } else { Scale::Difference };
        let effect = scale.effect(mean(&a).unwrap(), mean(&b).unwrap());
        let interval = interval(scale, &a, &b, RESAMPLES).unwrap();
        prop_assert!(interval.low <= effect || close(interval.low, effect), "{interval:?} {effect}");
        prop_assert!(interval.high >= effect || close(interval.high, effect), "{interval:?} {effect}");
        prop_assert_eq!(Some(interval), super::interval(scale, &a, &b, RESAMPLES), "same again");
    }

    #[test]
    fn sides_that_change_places_mirror_the_effect_and_keep_p(a in values(1..9), b in values(1..9)) {
        let (mean_a, mean_b) = (mean(&a).unwrap(), mean(&b).unwrap());
        let (there, back) = (Scale::Relative.effect(mean_a, mean_b), Scale::Relative.effect(mean_b, mean_a));
        prop_assert!(close((1.0 + there) * (1.0 + back), 1.0));
        prop_assert!(close(Scale::Difference.effect(mean_a, mean_b), -Scale::Difference.effect(mean_b, mean_a)));
        prop_assert_eq!(rank_test(&a, &b), rank_test(&b, &a));
    }

    #[test]
    fn p_is_that_of_counting_every_arrangement(
        (a, b) in prop_oneof![(values(1..6), values(1..6)), (tied(1..6), tied(1..6))],
    ) {
        let test = rank_test(&a, &b).unwrap();
        prop_assert!(close(test.p, p_by_enumeration(&a, &b)), "{test:?}");
        prop_assert!(test.p > 0.0 && test.p <= 1.0);
    }

    #[test]
    fn no_runs_without_ties_come_below_the_least_p(a in values(1..7), b in values(1..7)) {
        prop_assert!(rank_test(&a, &b).unwrap().p >= least_p(a.len(), b.len()) - 1e-12);
        let beyond: Vec<f64> = b.iter().map(|value| value + 1e6).collect();
        prop_assert!(close(rank_test(&a, &beyond).unwrap().p, least_p(a.len(), b.len())));
    }

    #[test]
    fn the_rank_test_does_not_know_the_unit(a in values(2..7), b in values(2..7)) {
        let scaled = |values: &[f64]| values.iter().map(|value| value.ln()).collect::<Vec<_>>();
        prop_assert_eq!(rank_test(&a, &b), rank_test(&scaled(&a), &scaled(&b)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn sides_that_change_places_about_mirror_the_interval(a in values(4..9), b in values(4..9)) {
        let there = interval(Scale::Difference, &a, &b, RESAMPLES_COUNT).unwrap();
        let back = interval(Scale::Difference, &b, &a, RESAMPLES_COUNT).unwrap();
        let width = there.high - there.low;
        prop_assert!((there.low + back.high).abs() < 0.15 * width, "{there:?} {back:?}");
        prop_assert!((there.high + back.low).abs() < 0.15 * width, "{there:?} {back:?}");
    }
}
