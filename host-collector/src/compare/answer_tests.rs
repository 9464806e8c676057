use super::super::example::{attached, held, neighbour, side, slow, vcpu};
use super::super::metrics::Metric;
use super::super::{Comparison, Side};
use super::*;
use crate::report::example;

/// Runs with these 99th percentiles in milliseconds, and these slow requests.
fn with_requests(name: &str, p99_ms: &[f64], of_slow: &SlowRequests) -> Side {
    let mut side = side(name, false, &vec![(1.0, 0.0); p99_ms.len()]);
    for (run, p99_ms) in side.runs.iter_mut().zip(p99_ms) {
        run.values = vec![(Metric::LatencyP99, p99_ms * 1e6)];
        run.slow = Some(of_slow.clone());
    }
    side
}

fn answer(a: Side, b: Side) -> String {
    Comparison::new(a, b).answer.sentence
}

fn quiet() -> SlowRequests {
    slow(
        &[
            (What::State(Part::OnPcpu), 1e6),
            (What::State(Part::WakeupDelay), 9e5),
            (What::Device, 4e6),
        ],
        &[],
    )
}

fn busy() -> SlowRequests {
    let causes = [
        (What::State(Part::OnPcpu), 2e6),
        (What::State(Part::WakeupDelay), 27.1e6),
        (What::Device, 4e6),
    ];
    slow(&causes, &[("sh", 25e6), ("kworker/1:1", 1e6)])
}

#[test]
fn the_change_its_cause_and_who_made_it_are_one_sentence() {
    let a = with_requests("a", &[5.6, 5.5, 5.7, 5.6], &quiet());
    let b = with_requests("b", &[38.2, 38.0, 38.4, 38.2], &busy());
    assert_eq!(
        answer(a.clone(), b.clone()),
        "p99 is 6.8 times as high in B: 38.2 ms against 5.60 ms in A, because of wakeup delay (27.1 ms \
         against 900 us a request above p99), mostly while sh ran. (4 runs against 4 runs)"
    );
    assert_eq!(
        answer(b, a),
        "p99 is 85 % lower in B: 5.60 ms against 38.2 ms in A, because of less wakeup delay (900 us \
         against 27.1 ms a request above p99), since sh ran less. (4 runs against 4 runs)"
    );
}

#[test]
fn one_run_against_one_says_so_once() {
    let a = with_requests("a", &[5.6], &quiet());
    let b = with_requests("b", &[38.2], &busy());
    let sentence = answer(a, b);
    assert!(sentence.starts_with("p99 is 6.8 times as high in B"), "{sentence}");
    assert_eq!(sentence.matches("One run against one").count(), 1, "{sentence}");
    let three = with_requests("b", &[38.2, 38.3, 38.4], &busy());
    let sentence = answer(with_requests("a", &[5.6, 5.5, 5.7], &quiet()), three);
    assert!(
        sentence.contains(" 3 runs against 3 runs: too few to say that it is no chance; 4 on"),
        "{sentence}"
    );
}

#[test]
fn what_is_not_decided_has_no_cause() {
    let a = with_requests("a", &[5.0, 9.0, 5.5, 12.0], &quiet());
    let b = with_requests("b", &[6.0, 8.0, 13.0, 6.5], &busy());
    let sentence = answer(a, b);
    assert!(sentence.starts_with("Whether p99 differs is not decided: "), "{sentence}");
    assert!(
        sentence.contains("runs on each side would decide it") && !sentence.contains("because")
    );
    let same = with_requests("a", &[5.6, 5.6, 5.6, 5.6], &quiet());
    let sentence = answer(same.clone(), same);
    assert!(
        sentence.starts_with("p99 does not differ by more than 5 %: 5.60 ms in B"),
        "{sentence}"
    );
}

#[test]
fn a_slower_disk_is_the_disk() {
    let slow_disk = slow(&[(What::State(Part::OnPcpu), 1e6), (What::Device, 30e6)], &[]);
    let a = with_requests("a", &[5.6], &quiet());
    let sentence = answer(a, with_requests("b", &[31.0], &slow_disk));
    assert!(
        sentence.contains(
            "because of time in the host's disk (30.0 ms against 4.00 ms a request above p99)."
        ),
        "{sentence}"
    );
}

#[test]
fn what_may_have_been_the_disk_is_said_to_be_so() {
    let hog = slow(&[(What::Unknown(Part::OnPcpu), 38e6)], &[]);
    let a = with_requests("a", &[5.6], &slow(&[(What::Unknown(Part::OnPcpu), 5e6)], &[]));
    let sentence = answer(a, with_requests("b", &[38.0], &hog));
    assert!(
        sentence.contains(
            "because of time on a pCPU while the I/O's phase is not known, so that it may have been the disk"
        ),
        "{sentence}"
    );
}

#[test]
fn who_ran_for_a_little_of_an_idle_pcpus_wait_is_not_blamed() {
    let idle = slow(&[(What::State(Part::WakeupDelay), 27e6)], &[("kworker/1:1", 3e5)]);
    let a = with_requests("a", &[5.6], &slow(&[(What::State(Part::WakeupDelay), 1e6)], &[]));
    let sentence = answer(a, with_requests("b", &[31.0], &idle));
    assert!(sentence.contains("wakeup delay") && !sentence.contains("kworker"), "{sentence}");
}

#[test]
fn two_causes_are_named_where_neither_makes_half_of_it() {
    let changed = slow(
        &[
            (What::State(Part::OnPcpu), 9e6),
            (What::State(Part::WakeupDelay), 8.9e6),
            (What::State(Part::BqlWait), 7e6),
            (What::Device, 4e6),
        ],
        &[],
    );
    let a = with_requests("a", &[5.6], &quiet());
    let sentence = answer(a, with_requests("b", &[31.0], &changed));
    assert!(
        sentence.contains(
            "because of time on a pCPU (9.00 ms against 1.00 ms a request above p99) and wakeup delay (8.90 ms \
             against 900 us)"
        ),
        "{sentence}"
    );
}

#[test]
fn attaches_without_requests_are_about_the_vcpu_that_waited_most_differently() {
    let (a, b) = neighbour();
    assert_eq!(
        answer(a.clone(), b.clone()),
        "web1 vCPU1 waited for a pCPU 137.6 times as long in B: 702 ms/s against 5.10 ms/s in A, mostly while \
         sh ran there. One run against one: what the next ones would show is not known."
    );
    let back = answer(b, a.clone());
    assert!(back.contains("99 % less in B") && back.contains("since sh ran less there"), "{back}");
    assert!(
        answer(a.clone(), a)
            .starts_with("No vCPU was kept from its pCPU, or on a lock, by more than 0.1 %")
    );
}

#[test]
fn a_lock_may_be_what_differs() {
    let of = |name: &str, wait| {
        let bql = [(OffReason::Left(Reason::Bql), wait)];
        attached(name, &[vcpu("web1", 5e6, &bql, &[])])
    };
    let sentence = answer(of("a", 2e6), of("b", 90e6));
    assert!(
        sentence.starts_with("web1 vCPU1 was off its pCPU (BQL) 45.0 times as long in B"),
        "{sentence}"
    );
    // A guest that idles less was kept from nothing.
    let idle = |name: &str, wait| {
        let halt = [(OffReason::Left(Reason::Halt), wait)];
        attached(name, &[vcpu("web1", 5e6, &halt, &[])])
    };
    assert!(answer(idle("a", 900e6), idle("b", 10e6)).starts_with("No vCPU was kept"));
}

#[test]
fn the_seeds_claim_is_spoken_of_only_where_it_is_asked() {
    let (a, b) = held();
    assert!(Comparison::new(a.clone(), b).claim.is_some());
    assert_eq!(Comparison::new(a.clone(), a).claim, None, "both from the main loop");
    let (quiet, busy) = neighbour();
    assert_eq!(Comparison::new(quiet, busy).claim, None, "nobody says how their disks are served");
}

#[test]
fn slow_requests_are_those_of_the_summary() {
    let summary = example::summary();
    let of = SlowRequests::of(&summary).unwrap().all;
    let class = &summary.classes.all;
    let whole: f64 = of.causes.values().sum();
    let mean = class.latency_ns as f64 / class.count as f64;
    assert!((whole - mean).abs() < 1e-6 * mean, "{whole} {mean}");
    assert_eq!(SlowRequests::of(&example::sampled()), None);
}
