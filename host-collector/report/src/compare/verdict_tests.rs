//! Drawn runs for every verdict.

use super::super::Comparison;
use super::super::example::side;
use super::*;
use proptest::prelude::*;

const STEADY: [f64; 6] = [0.71, 0.72, 0.73, 0.70, 0.715, 0.725];

fn cv(a: &[f64], b: &[f64]) -> Difference {
    Difference::new(Scale::Relative, a.to_vec(), b.to_vec())
}

fn scaled(values: &[f64], factor: f64) -> Vec<f64> {
    values.iter().map(|value| value * factor).collect()
}

#[test]
fn every_verdict_of_a_metric() {
    assert_eq!(cv(&STEADY, &scaled(&STEADY, 0.5)).verdict, Verdict::Lower);
    assert_eq!(cv(&STEADY, &scaled(&STEADY, 1.5)).verdict, Verdict::Higher);
    let alike = cv(&STEADY, &STEADY);
    assert_eq!(alike.verdict, Verdict::NoDifference { margin: MARGIN_RELATIVE });
    assert_eq!(alike.verdict.to_string(), "no difference above 5 %");
    let spread = cv(&[0.5, 0.9, 1.3, 0.7], &[0.6, 0.8, 1.2, 0.5]);
    let Verdict::NotDecided { why: Undecided::Spread, repeats: Some(count) } = spread.verdict
    else {
        panic!("{spread:?}");
    };
    assert!(count > 4, "{count}");
    assert_eq!(
        spread.verdict.to_string(),
        format!("undecided: about {count} repeats would decide it")
    );
    let one = cv(&[1.0], &STEADY);
    assert_eq!((one.interval, one.effect.is_some()), (None, true));
    assert_eq!(one.verdict.to_string(), "undecided: a single run has no spread");
    assert_eq!(cv(&[], &STEADY).verdict.to_string(), "undecided: not measured on both sides");
}

#[test]
fn a_certain_difference_within_the_margin_is_none() {
    let a_little_less = cv(&STEADY, &scaled(&STEADY, 0.97));
    assert_eq!(cv(&[0.7; 6], &[0.68; 6]).verdict, Verdict::NoDifference { margin: 0.05 });
    assert!(!matches!(a_little_less.verdict, Verdict::Lower), "{a_little_less:?}");
    let share = Difference::new(Scale::Difference, vec![0.3; 6], vec![0.305; 6]);
    assert_eq!(share.verdict.to_string(), "no difference above 1 point");
}

/// The interval of these excludes 0, the ranks do not.
#[test]
fn what_may_be_chance_by_its_ranks_is_not_decided() {
    let of = cv(&[1.0, 1.1, 1.2, 1.9, 1.3], &[0.9, 0.95, 1.05, 0.7, 1.15]);
    let (interval, p) = (of.interval.unwrap(), of.rank_test.unwrap().p);
    assert!(interval.high < 0.0 && p > SIGNIFICANCE, "{of:?}");
    assert!(matches!(of.verdict, Verdict::NotDecided { why: Undecided::Spread, .. }), "{of:?}");
}

#[test]
fn a_small_effect_takes_as_many_runs_as_its_distance_to_the_margin() {
    let spread = [0.5, 0.9, 1.3, 0.7];
    let needed_for = |effect| needed(Scale::Relative, &spread, &spread, Some(effect)).unwrap();
    assert!(needed_for(0.025) > needed_for(0.0), "half the margin is the worst");
    assert!(needed_for(0.0) > needed_for(0.05), "two tests against one");
    assert_eq!(needed_for(0.04), needed_for(-0.04));
    assert!(needed_for(0.1) < needed_for(0.05));
}

#[test]
fn three_runs_a_side_decide_nothing_however_far_apart() {
    let few = cv(&[1.2, 1.3, 1.25], &[0.7, 0.71, 0.72]);
    assert_eq!(
        few.verdict,
        Verdict::NotDecided { why: Undecided::FewRuns, repeats: Some(4) },
        "{few:?}"
    );
    assert_eq!(cv(&[1.2, 1.3, 1.25, 1.22], &[0.7, 0.71, 0.72, 0.69]).verdict, Verdict::Lower);
}

fn claim(a: &[(f64, f64)], b: &[(f64, f64)]) -> Claim {
    Comparison::new(side("a", false, a), side("b", true, b)).claim.expect("it is asked")
}

fn six(cv: f64, wait_ns_per_s: f64) -> Vec<(f64, f64)> {
    STEADY.iter().map(|factor| (cv * factor, wait_ns_per_s * factor)).collect()
}

/// Runs whose timeslices say nothing.
fn scattered(wait_ns_per_s: f64) -> Vec<(f64, f64)> {
    [0.9, 1.4, 0.3, 1.1].map(|cv| (cv, wait_ns_per_s)).to_vec()
}

#[test]
fn every_verdict_of_the_claim() {
    use ClaimVerdict::{DoesNotHold, Holds, NoContentionFound, NotDecided};
    let waits_ns_per_s = 3e7;
    for (a, b, verdict) in [
        (six(1.2, waits_ns_per_s), six(0.7, 1e6), Holds),
        // As steady, and steadier the other way round.
        (six(1.2, waits_ns_per_s), six(1.2, 1e6), DoesNotHold),
        (six(0.7, waits_ns_per_s), six(1.2, 1e6), DoesNotHold),
        // Steadier, but for another reason than the lock.
        (six(1.2, waits_ns_per_s), six(0.7, waits_ns_per_s), DoesNotHold),
        (six(1.2, waits_ns_per_s), six(0.7, 2.0 * waits_ns_per_s), DoesNotHold),
        // Below 0.1 % of the time in all runs, and in all but one.
        (six(1.2, 1e6), six(1.2, 1e6), NoContentionFound),
        (six(1.2, 0.0), six(1.2, 0.0), NoContentionFound),
        // Timeslices that scatter too much to say anything, and no wait that could have made them.
        (scattered(0.0), scattered(0.0), NoContentionFound),
        (scattered(2e5), [scattered(0.0), vec![(0.8, 5e3)]].concat(), NoContentionFound),
        // Steadier or less steady, where there was nothing to take away.
        (six(1.2, 200.0), six(0.7, 0.0), NoContentionFound),
        (six(0.7, 0.0), six(1.2, 200.0), NoContentionFound),
        // A does not wait, and B does.
        (six(1.2, 0.0), six(1.2, waits_ns_per_s), DoesNotHold),
        (six(1.2, 0.0), six(0.7, waits_ns_per_s), DoesNotHold),
        (scattered(1e8), scattered(1e8), NotDecided),
        ([six(1.2, 1e6), vec![(0.86, 1.1e6)]].concat(), six(1.2, 1e6), DoesNotHold),
        (
            six(1.2, waits_ns_per_s),
            vec![(0.7, 0.0), (0.7, 1e8), (0.7, 9e7), (0.7, 1e5)],
            NotDecided,
        ),
        (vec![(1.2, waits_ns_per_s)], six(0.7, 1e6), NotDecided),
    ] {
        let claim = claim(&a, &b);
        assert_eq!(claim.verdict, verdict, "{}", claim.sentence);
        assert!(verdict == NotDecided || claim.repeats.is_none(), "{claim:?}");
    }
}

#[test]
fn the_sentence_can_be_quoted() {
    let held = claim(&six(1.7, 3e7), &six(1.0, 1e6)).sentence;
    assert!(
        held.starts_with(
            "The claim holds: with an iothread (B), the timeslices of the reader's vCPU are steadier, and it waits less \
             for QEMU's big lock (timeslice CV 1.22 against 0.72, -41.2 % ["
        ),
        "{held}"
    );
    assert!(held.ends_with("; 6 runs against 6 runs)."), "{held}");
    let (a, mut b) = (side("a", false, &six(1.7, 3e7)), side("b", true, &six(1.0, 1e6)));
    b.runs.iter_mut().for_each(|run| run.conditions[0].value = "8.0.1".to_owned());
    let doubtful = Comparison::new(a, b).claim.expect("it is asked").sentence;
    assert!(doubtful.starts_with("The claim holds: with B, the"), "{doubtful}");
    assert!(doubtful.ends_with("in more than the iothread: see the warnings."), "{doubtful}");
    let none = claim(&six(1.2, 1e6), &six(1.2, 1e6)).sentence;
    assert!(
        none.starts_with("No contention found: with I/O from the main loop (A), the"),
        "{none}"
    );
    let one = claim(&[(1.2, 3e7)], &[(0.7, 1e6)]).sentence;
    assert!(one.ends_with("; 1 run against 1 run): a single run has no spread."), "{one}");
    let few = claim(&six(1.2, 3e7)[..3], &six(0.7, 1e6)[..3]).sentence;
    assert!(few.ends_with("; about 4 repeats on each side would decide it."), "{few}");
}

#[test]
fn effects_read_well() {
    for (scale, effect, text) in [
        (Scale::Relative, -0.42, "-42.0 %"),
        (Scale::Relative, -0.0001, "0.0 %"),
        (Scale::Relative, 12.3456, "+1235 %"),
        (Scale::Relative, f64::INFINITY, "from 0"),
        (Scale::Difference, 0.013, "+1.3 points"),
    ] {
        assert_eq!(show_effect(scale, effect), text);
    }
    let interval = |low, high| Interval { low, high };
    assert_eq!(show_interval(Scale::Relative, interval(-0.5, 0.0)), "[-50.0 %, 0.0 %]");
    assert_eq!(show_interval(Scale::Difference, interval(-0.5, 0.021)), "[-50.0, +2.1]");
    assert_eq!(
        show_interval(Scale::Relative, interval(0.5, f64::INFINITY)),
        "[+50.0 %, unbounded]"
    );
}

proptest! {
    /// Whatever the runs, a verdict says what its interval says.
    #[test]
    fn a_verdict_follows_from_its_interval(
        a in prop::collection::vec(0.1..2.0_f64, 1..6),
        b in prop::collection::vec(0.1..2.0_f64, 1..6),
    ) {
        let of = cv(&a, &b);
        match (of.verdict, of.interval) {
            (Verdict::Lower, Some(interval)) => {
                prop_assert!(interval.high < 0.0 && of.rank_test.unwrap().p <= SIGNIFICANCE);
            }
            (Verdict::Higher, Some(interval)) => {
                prop_assert!(interval.low > 0.0 && of.rank_test.unwrap().p <= SIGNIFICANCE);
            }
            (Verdict::NoDifference { margin }, Some(interval)) => {
                prop_assert!(interval.low >= -margin && interval.high <= margin);
            }
            (Verdict::NotDecided { repeats: Some(count), .. }, _) => {
                prop_assert!(count > a.len().min(b.len()) as u64 && count >= 4);
            }
            (Verdict::NotDecided { .. }, _) => prop_assert!(a.len() < 2 || b.len() < 2),
            (verdict, None) => prop_assert!(false, "{verdict:?} without an interval"),
        }
    }
}
