//! The filters are read back by a small evaluator of the kernel's filter language
//! (`kernel/trace/trace_events_filter.c`: `&&` binds tighter than `||`), so that the laws are about
//! what a filter matches, not about its text.

use super::*;
use proptest::prelude::*;
use vslice_perf::filter::FILTER_BYTES_MAX;

type Fields<'a> = &'a [(&'a str, u32)];

fn matches(filter: &str, fields: Fields<'_>) -> bool {
    let mut rest = filter;
    let value = any_of(&mut rest, fields);
    assert_eq!(rest, "", "in {filter}");
    value
}

fn any_of(rest: &mut &str, fields: Fields<'_>) -> bool {
    let mut value = all_of(rest, fields);
    while let Some(after) = rest.strip_prefix("||") {
        *rest = after;
        value |= all_of(rest, fields);
    }
    value
}

fn all_of(rest: &mut &str, fields: Fields<'_>) -> bool {
    let mut value = term(rest, fields);
    while let Some(after) = rest.strip_prefix("&&") {
        *rest = after;
        value &= term(rest, fields);
    }
    value
}

fn term(rest: &mut &str, fields: Fields<'_>) -> bool {
    if let Some(after) = rest.strip_prefix('(') {
        *rest = after;
        let value = any_of(rest, fields);
        *rest = rest.strip_prefix(')').unwrap();
        return value;
    }
    let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
    let field = fields.iter().find(|(field, _)| *field == name).unwrap().1;
    let operators = ["==", "!=", "<=", ">=", "<", ">"];
    let after = &rest[name.len()..];
    let operator = operators.iter().find(|operator| after.starts_with(**operator)).unwrap();
    let after = &after[operator.len()..];
    let digits = after.split(|c: char| !c.is_ascii_digit()).next().unwrap();
    let number: u32 = digits.parse().unwrap();
    *rest = &after[digits.len()..];
    match *operator {
        "==" => field == number,
        "!=" => field != number,
        "<=" => field <= number,
        ">=" => field >= number,
        "<" => field < number,
        _ => field > number,
    }
}

/// How many of the filters a record matches; each filter must be short enough.
fn count(filters: &[String], fields: Fields<'_>) -> usize {
    assert!(filters.iter().all(|filter| filter.len() <= FILTER_BYTES_MAX));
    filters.iter().filter(|filter| matches(filter, fields)).count()
}

fn switch(prev: u32, next: u32) -> [(&'static str, u32); 2] {
    [("prev_pid", prev), ("next_pid", next)]
}

fn waking(waker: u32, pid: u32, target: u32) -> [(&'static str, u32); 3] {
    [("common_pid", waker), ("pid", pid), ("target_cpu", target)]
}

fn numbers(list: &[u32]) -> Numbers {
    list.iter().copied().collect()
}

#[test]
fn filters_have_these_texts() {
    let (vcpus, threads) = (numbers(&[7]), numbers(&[4, 5, 6, 7, 9]));
    assert_eq!(stacked_leave(&vcpus), ["(prev_pid==7)"]);
    assert_eq!(others_leave(&vcpus), ["(prev_pid!=7)"]);
    assert_eq!(others_leave(&numbers(&[])), ["prev_pid>=0"]);
    assert_eq!(
        threads_switch(&vcpus, &threads),
        ["((prev_pid>=4&&prev_pid<=6)||prev_pid==9)||(((next_pid>=4&&next_pid<=7)||next_pid==9)\
          &&((prev_pid<4||prev_pid>7)&&prev_pid!=9))"]
    );
    let stranger_elsewhere = ["(pid==7)||((pid!=7)&&(target_cpu==1))"];
    assert_eq!(wakings(&vcpus, &numbers(&[1]), 0), stranger_elsewhere);
    assert_eq!(
        wakings(&vcpus, &numbers(&[1]), 1),
        ["(pid==7)||((pid!=7)&&(target_cpu==1&&(common_pid==7)))"]
    );
    assert!(stacked_leave(&numbers(&[])).is_empty());
}

#[test]
fn a_thousand_scattered_threads_are_split_and_still_matched_once() {
    let vcpus: Numbers = (0..1000).map(|n| 1_000_000 + 3 * n).collect();
    let threads: Numbers = (0..2000).map(|n| 1_000_000 + 3 * n).collect();
    let (leave, others) = (stacked_leave(&vcpus), others_leave(&vcpus));
    let elsewhere = threads_switch(&vcpus, &threads);
    assert!(leave.len() > 1 && others.len() > 1 && elsewhere.len() > 1);
    for prev in (999_990..1_006_010).step_by(601).chain([0, 1_000_000, 1_002_997]) {
        let fields = switch(prev, 0);
        assert_eq!(count(&leave, &fields) + count(&others, &fields), 1, "{prev}");
        assert_eq!(count(&leave, &fields), usize::from(vcpus.contains(&prev)), "{prev}");
        for next in [0, 1_000_300, 1_005_997, prev + 3] {
            let fields = switch(prev, next);
            let wanted = threads.contains(&prev) || threads.contains(&next);
            let found = count(&leave, &fields) + count(&elsewhere, &fields);
            assert_eq!(found, usize::from(wanted), "{prev} to {next}");
        }
    }
}

/// Every target, recording pCPU and waker.
fn places() -> impl Iterator<Item = (u32, u32, u32)> {
    (0..4)
        .flat_map(|target| (0..4).flat_map(move |here| (0..13).map(move |pid| (target, here, pid))))
}

proptest! {
    #[test]
    fn each_record_is_asked_for_exactly_once_or_not_at_all(
        vcpus in prop::collection::btree_set(0u32..12, 0..4),
        more in prop::collection::btree_set(0u32..12, 0..5),
        new in prop::collection::btree_set(0u32..12, 0..4),
        watched in prop::collection::btree_set(0u32..4, 0..3),
    ) {
        let threads: Numbers = &vcpus | &more;
        let new: Numbers = &new - &threads;
        let (leave, others) = (stacked_leave(&vcpus), others_leave(&vcpus));
        let first_switches = threads_switch(&vcpus, &threads);
        let later_switches = new_threads_switch(&new, &threads);
        // By the pCPU that records.
        let first_wakings: Vec<_> = (0..4).map(|here| wakings(&threads, &watched, here)).collect();
        let later_wakings: Vec<_> =
            (0..4).map(|here| new_wakings(&new, &threads, &watched, here)).collect();
        for prev in 0..13 {
            for next in (0..13).filter(|next| *next != prev) {
                let fields = switch(prev, next);
                let with_stack = count(&leave, &fields);
                prop_assert_eq!(with_stack, usize::from(vcpus.contains(&prev)));
                prop_assert_eq!(with_stack + count(&others, &fields), 1);
                let either = |set: &Numbers| set.contains(&prev) || set.contains(&next);
                let first = with_stack + count(&first_switches, &fields);
                prop_assert_eq!(first, usize::from(either(&threads)));
                let later = count(&later_switches, &fields);
                prop_assert_eq!(first + later, usize::from(either(&threads) || either(&new)));
            }
            for (target, here, waker) in places() {
                let fields = waking(waker, prev, target);
                let first = count(&first_wakings[here as usize], &fields);
                // Whether a VM's thread runs there; of another pCPU it is not known.
                let may_be_taken = target != here || threads.contains(&waker);
                let wanted =
                    threads.contains(&prev) || (watched.contains(&target) && may_be_taken);
                prop_assert_eq!(first, usize::from(wanted));
                let later = count(&later_wakings[here as usize], &fields);
                prop_assert_eq!(first + later, usize::from(wanted || new.contains(&prev)));
            }
        }
    }
}
