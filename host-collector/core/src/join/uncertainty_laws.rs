//! What a breakdown could change by, against every place where the request may have been.

use super::laws::{index, spans, state};
use super::*;
use crate::timeline::{Antagonist, Span};
use crate::units::{HostNs, Tid, VcpuId};
use proptest::prelude::*;
use vslice_wire::{GuestTicks, Request};

fn placed(index: u64, (start, length): (u64, u64), bound_ns: u64, length_error_ns: u64) -> Placed {
    let (submitted, completed) = (GuestTicks(start), GuestTicks(start + length));
    let request =
        Request { index, submitted, completed, vcpu_submitted: 2, vcpu_completed: 2, result: 0 };
    Placed::of_read(request, HostNs(start)..HostNs(start + length), bound_ns, length_error_ns)
}

fn join(spans: &[Span], placed: &[Placed]) -> Vec<Breakdown> {
    let mut out = Vec::new();
    let mut join = Join::new(VcpuId(2), Tid(100), placed.iter().copied());
    for span in spans {
        join.push_span(span, &mut |breakdown| out.push(breakdown));
    }
    join.finish(&mut |breakdown| out.push(breakdown));
    out.sort_by_key(index);
    out
}

fn errors(breakdown: &Breakdown) -> Vec<(Part, u64)> {
    let parts = Part::ALL.into_iter().map(|part| (part, breakdown.clock_error.parts.get(part)));
    parts.filter(|(_, error_ns)| *error_ns > 0).collect()
}

#[test]
fn a_drawn_request_says_what_could_be_another_part() {
    //             0         1         2         3
    //             0123456789012345678901234567890123456789
    let drawing = "==========pppp======wwwwwwww============";
    let all = spans(0, drawing);
    let error = |window, bound_ns, length_error_ns| {
        let out = join(&all, &[placed(0, window, bound_ns, length_error_ns)]);
        (errors(&out[0]), out[0].clock_error.can_move)
    };
    // Both ends within one state: moved, it loses what it gains.
    assert_eq!(error((4, 13), 2, 0), (vec![], false));
    // But for its length: longer it may reach into w, shorter it may end in p.
    let stretched = vec![(Part::OnPcpu, 2), (Part::PreemptWait, 2), (Part::WakeupDelay, 2)];
    assert_eq!(error((4, 13), 2, 2), (stretched, false));
    assert_eq!(error((4, 13), 1, 1), (vec![(Part::OnPcpu, 1)], false));
    // Later it gains 3 of w for 3 of =; earlier it loses 2 of w.
    assert_eq!(error((5, 17), 3, 0).0, [(Part::OnPcpu, 3), (Part::WakeupDelay, 3)]);
    // Later it gains 2 of = for 2 of p; earlier it loses 2 of w for 1 of p and 1 of =.
    let changes = [(Part::OnPcpu, 2), (Part::PreemptWait, 2), (Part::WakeupDelay, 2)];
    assert_eq!(error((11, 17), 2, 0).0, changes);
    // Beyond what was recorded anything may have been.
    assert_eq!(error((33, 5), 4, 0).0, [(Part::OnPcpu, 2), (Part::Unknown, 2)]);
}

#[test]
fn what_is_not_known_around_a_request_could_be_anything() {
    let span = |start: u64, end: u64, letter| Span {
        start: HostNs(start),
        end: HostNs(end),
        antagonists: Vec::<Antagonist>::new(),
        ..Span { state: state(letter), ..spans(0, "=").remove(0) }
    };
    // More happens around its ends than is looked at.
    let busy = (0..20_000).map(|at| span(at, at + 1, if at % 2 == 0 { '=' } else { 'p' }));
    let out = join(&busy.collect::<Vec<_>>(), &[placed(0, (10_000, 10), 6_000, 5)]);
    assert_eq!(out[0].attribution, Attribution::Attributed);
    assert!(out[0].clock_error.can_move);
    assert!(Part::ALL.into_iter().all(|part| out[0].clock_error.parts.get(part) == 6_005));
}

#[test]
fn a_request_waits_for_what_is_around_its_end() {
    let all = spans(0, "=====pppp===");
    let mut out = Vec::new();
    let mut join = Join::new(VcpuId(2), Tid(100), [placed(0, (2, 3), 2, 1)].into_iter());
    for (place, expected) in [(0, 0), (1, 1), (2, 1)] {
        join.push_span(&all[place], &mut |breakdown| out.push(breakdown));
        assert_eq!(out.len(), expected, "after {place}");
    }
    assert_eq!(errors(&out[0]), [(Part::OnPcpu, 3), (Part::PreemptWait, 3)]);
}

#[test]
fn requests_of_other_vcpus_are_not_split_here() {
    let mut other = placed(0, (2, 3), 0, 0);
    let request = *other.request.read().unwrap();
    other.request = GuestRequest::Read(Request { vcpu_submitted: 3, vcpu_completed: 3, ..request });
    let out = join(&spans(0, "=========="), &[other, placed(1, (3, 3), 0, 0)]);
    assert_eq!(out.iter().map(index).collect::<Vec<_>>(), [1]);
}

fn a_drawing() -> impl Strategy<Value = String> {
    let character = prop::sample::select(vec!['=', 'p', 'w', 'h', 'f']);
    prop::collection::vec((character, 1..8_usize), 1..30).prop_map(|runs| {
        runs.into_iter().map(|(character, length)| character.to_string().repeat(length)).collect()
    })
}

/// By counting characters; what is not drawn is unknown.
fn parts_between(drawing: &str, from: u64, until: u64) -> PartsNs {
    let drawn: Vec<char> = drawing.chars().collect();
    let mut parts = PartsNs::default();
    for at in from..until {
        let character = drawn.get(usize::try_from(at).unwrap());
        parts.add(character.map_or(Part::Unknown, |letter| Part::of(&state(*letter))), 1);
    }
    parts
}

proptest! {
    /// Wherever the request was within its error, no part is off by more than is said; and some
    /// place is off by as much, as long as the length is known.
    #[test]
    fn no_part_changes_by_more_than_is_said(
        drawing in a_drawing(),
        windows in prop::collection::vec((40..200_u64, 0..60_u64), 1..8),
        bound_ns in 0..20_u64,
        length_error_ns in prop_oneof![Just(0), 0..5_u64],
    ) {
        let mut windows = windows;
        windows.sort_unstable();
        let all: Vec<Placed> = (0..).zip(&windows).map(|(index, window)| {
            placed(index, *window, bound_ns, length_error_ns)
        }).collect();
        for breakdown in join(&spans(0, &drawing), &all) {
            let error = breakdown.clock_error;
            if breakdown.attribution != Attribution::Attributed {
                prop_assert_eq!(error, ClockError::default());
                continue;
            }
            let (bound, longer) = (bound_ns.cast_signed(), length_error_ns.cast_signed());
            let moved = |time: HostNs, by: i64| time.0.checked_add_signed(by).unwrap();
            let (mut most, mut most_shifted) = (PartsNs::default(), PartsNs::default());
            for (shift, stretch) in (-bound..=bound).flat_map(|shift| {
                (-longer..=longer).map(move |stretch| (shift, stretch))
            }) {
                let start = moved(breakdown.start, shift);
                let end = moved(breakdown.end, shift + stretch);
                let parts = parts_between(&drawing, start, end);
                for part in Part::ALL {
                    // One that could be shorter than nothing is not there.
                    let off_ns = if end < start { 0 } else {
                        parts.get(part).abs_diff(breakdown.parts.get(part))
                    };
                    prop_assert!(off_ns <= error.parts.get(part), "{part:?} by {shift} {stretch}");
                    most.add(part, off_ns.saturating_sub(most.get(part)));
                    if stretch == 0 {
                        most_shifted.add(part, off_ns.saturating_sub(most_shifted.get(part)));
                    }
                }
            }
            prop_assert_eq!(error.can_move, most_shifted.total_ns() > 0);
            if length_error_ns == 0 {
                prop_assert_eq!(error.parts, most);
            }
        }
    }
}
