use super::super::because::{ClassMeans, SlowRequests, WaitedFor};
use super::super::example::{attached, held, neighbour, side, slow, vcpu};
use super::super::metrics::Metric;
use super::super::vcpus::VcpuFigures;
use super::super::{Comparison, Run, Side};
use super::*;
use crate::summary::causes::Cause;
use crate::summary::example;
use vslice_core::join::{Part, Phase};
use vslice_core::timeline::Reason;

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
            (WaitedFor::State(Part::OnPcpu), 1e6),
            (WaitedFor::State(Part::WakeupDelay), 9e5),
            (WaitedFor::Device, 4e6),
        ],
        &[],
    )
}

fn busy() -> SlowRequests {
    let causes = [
        (WaitedFor::State(Part::OnPcpu), 2e6),
        (WaitedFor::State(Part::WakeupDelay), 27.1e6),
        (WaitedFor::Device, 4e6),
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
         against 900 us per request above p99), mostly while sh was running. Based on 4 runs of A and 4 \
         runs of B."
    );
    assert_eq!(
        answer(b, a),
        "p99 is 85 % lower in B: 5.60 ms against 38.2 ms in A, because of less wakeup delay (900 us \
         against 27.1 ms per request above p99), because sh ran less. Based on 4 runs of A and 4 runs of \
         B."
    );
}

#[test]
fn a_median_that_changed_more_than_the_99th_percentile_is_told_too() {
    let mut a = with_requests("a", &[6.3], &quiet());
    let mut b = with_requests("b", &[7.0], &quiet());
    a.runs[0].values.push((Metric::LatencyP50, 206e3));
    b.runs[0].values.push((Metric::LatencyP50, 2.79e6));
    let told = answer(a.clone(), b.clone());
    assert!(told.starts_with("p99 is 11 % higher in B"), "{told}");
    assert!(told.ends_with(" p50 is 13.5 times as high: 2.79 ms against 206 us."), "{told}");
    b.runs[0].values = vec![(Metric::LatencyP99, 7.0e6), (Metric::LatencyP50, 250e3)];
    assert!(!answer(a, b).contains("p50"));
}

/// A plain attach among them has no percentile.
#[test]
fn only_runs_that_have_requests_count_for_a_percentile() {
    let mut a = with_requests("a", &[5.6], &quiet());
    let asked_nothing = Run { values: vec![], slow: None, ..a.runs[0].clone() };
    a.runs.extend([asked_nothing.clone(), asked_nothing]);
    let told = answer(a, with_requests("b", &[38.2], &busy()));
    assert!(told.contains("because of wakeup delay"), "{told}");
    assert!(
        told.ends_with(" With one run on each side, how much of this is chance is unknown."),
        "{told}"
    );
}

#[test]
fn one_run_against_one_says_so_once() {
    let a = with_requests("a", &[5.6], &quiet());
    let b = with_requests("b", &[38.2], &busy());
    let sentence = answer(a, b);
    assert!(sentence.starts_with("p99 is 6.8 times as high in B"), "{sentence}");
    assert_eq!(sentence.matches("With one run on each side").count(), 1, "{sentence}");
    let three = with_requests("b", &[38.2, 38.3, 38.4], &busy());
    let sentence = answer(with_requests("a", &[5.6, 5.5, 5.7], &quiet()), three);
    assert!(
        sentence.contains(
            "3 runs of A and 3 runs of B are too few to rule out chance: that takes at least \
                           4 on"
        ),
        "{sentence}"
    );
}

#[test]
fn what_is_not_decided_has_no_cause() {
    let a = with_requests("a", &[5.0, 9.0, 5.5, 12.0], &quiet());
    let b = with_requests("b", &[6.0, 8.0, 13.0, 6.5], &busy());
    let sentence = answer(a, b);
    assert!(sentence.starts_with("It is undecided whether p99 differs: "), "{sentence}");
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
    let slow_disk = slow(&[(WaitedFor::State(Part::OnPcpu), 1e6), (WaitedFor::Device, 30e6)], &[]);
    let a = with_requests("a", &[5.6], &quiet());
    let sentence = answer(a, with_requests("b", &[31.0], &slow_disk));
    assert!(
        sentence.contains(
            "because of time in the host's disk (30.0 ms against 4.00 ms per request above p99)."
        ),
        "{sentence}"
    );
}

#[test]
fn what_may_have_been_the_disk_is_said_to_be_so() {
    let hog = slow(&[(WaitedFor::Unknown(Part::OnPcpu), 38e6)], &[]);
    let a = with_requests("a", &[5.6], &slow(&[(WaitedFor::Unknown(Part::OnPcpu), 5e6)], &[]));
    let sentence = answer(a, with_requests("b", &[38.0], &hog));
    assert!(
        sentence.contains(
            "because of time on a pCPU in an unknown I/O phase, so it may have been the disk"
        ),
        "{sentence}"
    );
}

#[test]
fn who_ran_for_a_little_of_an_idle_pcpus_wait_is_not_blamed() {
    let idle = slow(&[(WaitedFor::State(Part::WakeupDelay), 27e6)], &[("kworker/1:1", 3e5)]);
    let a = with_requests("a", &[5.6], &slow(&[(WaitedFor::State(Part::WakeupDelay), 1e6)], &[]));
    let sentence = answer(a, with_requests("b", &[31.0], &idle));
    assert!(sentence.contains("wakeup delay") && !sentence.contains("kworker"), "{sentence}");
}

#[test]
fn two_causes_are_named_where_neither_makes_half_of_it() {
    let changed = slow(
        &[
            (WaitedFor::State(Part::OnPcpu), 9.1e6),
            (WaitedFor::State(Part::WakeupDelay), 8.9e6),
            (WaitedFor::State(Part::BqlWait), 7e6),
            (WaitedFor::Device, 4e6),
        ],
        &[],
    );
    let a = with_requests("a", &[5.6], &quiet());
    let sentence = answer(a, with_requests("b", &[31.0], &changed));
    assert!(
        sentence.contains(
            "because of time on a pCPU (9.10 ms against 1.00 ms per request above p99) and wakeup delay (8.90 ms \
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
        "web1 vCPU1 waited for a pCPU 137.6 times as long in B: 702 ms/s against 5.10 ms/s in A, mostly \
         while sh was running there. With one run on each side, how much of this is chance is unknown."
    );
    let back = answer(b, a.clone());
    assert!(
        back.contains("99 % less in B") && back.contains("because sh ran less there"),
        "{back}"
    );
    assert!(
        answer(a.clone(), a)
            .starts_with("No vCPU's waits for a pCPU or a lock changed by more than 0.1 %")
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
    assert!(answer(idle("a", 900e6), idle("b", 10e6)).starts_with("No vCPU's waits for"));
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

/// One slow request that waited so for its vCPU with its data there, who ran, and what others ran meanwhile.
fn waited(woken_ns: u64, wait_ns: u64, ran: &[(&str, u64)], others_ns: u64) -> SlowRequests {
    let mut summary = example::summary();
    let class = &mut summary.classes.p99;
    (class.count, class.latency_ns, class.wait_ns) = (1, woken_ns, wait_ns);
    (class.others_ns, class.unseen_ns) = (others_ns, 0);
    let row = class.antagonists[0].clone();
    let named = |(name, ran_ns): &(&str, u64)| {
        let mut row = row.clone();
        row.antagonist.thread.name = (*name).to_owned();
        row.antagonist.ran_ns = *ran_ns;
        row
    };
    class.antagonists = ran.iter().map(named).collect();
    let (phase, part) = (Phase::Completed, Some(Part::WakeupDelay));
    summary.causes.p99 = vec![Cause { phase, part, total_ns: woken_ns, share: 1.0 }];
    SlowRequests::of(&summary).unwrap()
}

#[test]
fn causes_of_one_kind_count_together_as_in_the_report() {
    let (quiet, busy) = (
        example::waited([3_000_000, 1_000_000, 1_000_000]),
        example::waited([45_000_000, 33_000_000, 27_000_000]),
    );
    let told = crate::summary::verdict::verdict(&busy);
    assert!(told.contains("vm1 vCPU1 waited for a pCPU for 57 % of the time"), "{told}");
    let side =
        |name, p99_ms, summary| with_requests(name, &[p99_ms], &SlowRequests::of(summary).unwrap());
    let (a, b) = (side("a", 5.0, &quiet), side("b", 105.0, &busy));
    let sentence = answer(a.clone(), b.clone());
    let wait = "waiting for a pCPU (60.0 ms against 2.00 ms per request on average)";
    assert!(sentence.contains(&format!("because of {wait}.")), "{sentence}");
    let sentence = answer(b, a);
    let wait = "waiting for a pCPU (2.00 ms against 60.0 ms per request on average)";
    assert!(sentence.contains(&format!("because of less {wait}.")), "{sentence}");
}

#[test]
fn a_cause_that_hardly_changed_is_no_reason() {
    let of = |device_ns| {
        slow(&[(WaitedFor::State(Part::OnPcpu), 1e6), (WaitedFor::Device, device_ns)], &[])
    };
    let a = with_requests("a", &[5.0], &of(4e6));
    let sentence = answer(a, with_requests("b", &[6.0], &of(4.002e6)));
    assert!(sentence.starts_with("p99 is 20 % higher in B"), "{sentence}");
    assert!(!sentence.contains("because"), "{sentence}");
}

#[test]
fn a_cause_of_a_class_that_moved_the_other_way_is_no_reason() {
    let of = |device_ns, woken_ns| {
        slow(
            &[(WaitedFor::Device, device_ns), (WaitedFor::State(Part::WakeupDelay), woken_ns)],
            &[],
        )
    };
    let a = with_requests("a", &[5.0], &of(40e6, 1e6));
    let sentence = answer(a, with_requests("b", &[36.0], &of(4e6, 32e6)));
    assert!(!sentence.contains("because"), "{sentence}");
}

#[test]
fn slow_requests_that_could_not_be_given_to_causes_are_why_the_reason_is_not_known() {
    let mut summary = example::summary();
    let whole = SlowRequests::of(&summary).unwrap();
    summary.classes.p99.unattributable = 4 * summary.classes.p99.count;
    summary.classes.p99.latency_ns += 2_000 * summary.classes.p99.count;
    summary.causes.p99[0].total_ns += 2_000 * summary.classes.p99.count;
    let lost = SlowRequests::of(&summary).unwrap();
    let (a, b) = (with_requests("a", &[5.0], &whole), with_requests("b", &[6.0], &lost));
    let sentence = answer(a, b);
    let unknown = "5.00 ms in A; the reason is unknown: 80 % of the requests above p99 in B could not be \
                   attributed to causes. With one run";
    assert!(sentence.contains(unknown), "{sentence}");
}

#[test]
fn who_may_have_run_among_the_others_of_the_quieter_side_is_not_blamed() {
    let a = with_requests("a", &[20.0], &waited(20_000_000, 20_000_000, &[], 20_000_000));
    let busy = waited(31_000_000, 31_000_000, &[("sh", 20_000_000)], 11_000_000);
    let b = with_requests("b", &[31.0], &busy);
    for sentence in [answer(a.clone(), b.clone()), answer(b, a)] {
        assert!(sentence.contains("wakeup delay") && !sentence.contains(" sh "), "{sentence}");
    }
}

#[test]
fn who_may_have_run_while_the_disk_had_the_requests_is_not_blamed() {
    let a = with_requests("a", &[5.0], &waited(1_000_000, 1_000_000, &[], 0));
    let busy = waited(30_000_000, 60_000_000, &[("sh", 30_000_000)], 30_000_000);
    let sentence = answer(a, with_requests("b", &[34.0], &busy));
    assert!(sentence.contains("wakeup delay") && !sentence.contains(" sh "), "{sentence}");
}

/// A vCPU of which all but these rows is not known: what others ran, or nobody saw.
fn half_seen(run_delay: f64, ran: &[(&str, f64)]) -> VcpuFigures {
    let seen: f64 = ran.iter().map(|(_, figure)| figure).sum();
    VcpuFigures { unlisted_max: run_delay - seen, ..vcpu("web1", run_delay, &[], ran) }
}

#[test]
fn who_a_side_does_not_list_is_not_given_all_that_its_others_ran() {
    let quiet = half_seen(20.2e6, &[("kworker/1:1", 20e6)]);
    let names: Vec<String> = (0..8).map(|at| format!("name {at}")).collect();
    let ran: Vec<(&str, f64)> = names.iter().map(|name| (name.as_str(), 10e6)).collect();
    let busy = half_seen(330e6, &ran);
    let (a, b) = (attached("a", &[quiet]), attached("b", &[busy]));
    for sentence in [answer(a.clone(), b.clone()), answer(b, a)] {
        assert!(sentence.starts_with("web1 vCPU1 waited for a pCPU"), "{sentence}");
        assert!(!sentence.contains(" ran ") && !sentence.contains("running"), "{sentence}");
    }
}

#[test]
fn who_runs_in_one_run_of_four_is_not_told_as_if_he_did_in_all() {
    let quiet = attached("a", &vec![half_seen(5e6, &[]); 4]);
    let mut busy = vec![half_seen(500e6, &[]); 4];
    busy[2] = half_seen(500e6, &[("sh", 500e6)]);
    let busy = attached("b", &busy);
    for sentence in [answer(quiet.clone(), busy.clone()), answer(busy, quiet.clone())] {
        assert!(sentence.contains("waited for a pCPU") && !sentence.contains("sh"), "{sentence}");
    }
    let busy = attached("b", &vec![half_seen(500e6, &[("sh", 500e6)]); 4]);
    assert!(answer(quiet, busy).contains("mostly while sh was running there"));
}

#[test]
fn how_much_of_a_change_may_have_been_the_disk_is_said() {
    let of = |state, unknown| {
        let causes =
            [(WaitedFor::State(Part::OnPcpu), state), (WaitedFor::Unknown(Part::OnPcpu), unknown)];
        slow(&causes, &[])
    };
    let a = with_requests("a", &[2.0], &of(1e6, 1e6));
    let sentence = answer(a, with_requests("b", &[12.0], &of(8e6, 4e6)));
    let told = "because of time on a pCPU, 30 % of it in an unknown I/O phase, so it may have been the \
                disk (12.0 ms against 2.00 ms per request above p99).";
    assert!(sentence.contains(told), "{sentence}");
}

#[test]
fn what_may_have_been_the_disk_is_not_told_without_a_disk_that_is_known_to_be_slower() {
    let of = |unknown, device_ns| {
        slow(&[(WaitedFor::Unknown(Part::OnPcpu), unknown), (WaitedFor::Device, device_ns)], &[])
    };
    let a = with_requests("a", &[2.0], &of(1e6, 1e6));
    let sentence = answer(a, with_requests("b", &[62.0], &of(41e6, 21e6)));
    let (hog, disk) = (
        "because of time on a pCPU in an unknown I/O phase",
        "and time in the host's disk \
                                                                             (21.0",
    );
    assert!(sentence.contains(hog) && sentence.contains(disk), "{sentence}");
}

#[test]
fn a_run_whose_slow_requests_have_no_causes_does_not_count_as_one_that_waited_for_nothing() {
    let (quiet, busy) = (quiet(), busy());
    let a = with_requests("a", &[5.6; 3], &quiet);
    let mut b = with_requests("b", &[38.2; 3], &busy);
    let lost = ClassMeans { lost_share: 1.0, ..ClassMeans::default() };
    b.runs[0].slow = Some(SlowRequests { all: lost.clone(), p99: Some(lost) });
    let sentence = answer(a.clone(), b.clone());
    assert!(sentence.contains("wakeup delay (27.1 ms against 900 us"), "{sentence}");
    b.runs[1].slow = b.runs[0].slow.clone();
    let sentence = answer(a.clone(), b.clone());
    assert!(sentence.contains("67 % of the requests above p99 in B could not be"), "{sentence}");
    b.runs[1].slow = None;
    let sentence = answer(a, b);
    assert!(
        sentence.contains(
            "; the reason is unknown: not every run recorded what its requests waited for."
        ),
        "{sentence}"
    );
}
