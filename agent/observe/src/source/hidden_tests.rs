use super::*;
use proptest::prelude::*;

const NO_LOSS: RingLosses = RingLosses::NONE;

fn all_of(hidden: ObservedHidden) -> u64 {
    let ObservedHidden { queued_count, issued_count, completed_count, others_count, .. } = hidden;
    queued_count + issued_count + completed_count + others_count
}

/// What one occurrence of a tracepoint became.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Recorded,
    Lost,
    Hidden,
}

/// A kernel's side: for each event its tracepoint, and what became of each of its occurrences.
fn kernel() -> impl Strategy<Value = Vec<(Tracepoint, Vec<Fate>)>> {
    let fate = prop_oneof![
        6 => Just(Fate::Recorded),
        1 => Just(Fate::Lost),
        1 => Just(Fate::Hidden),
    ];
    let tracepoint = prop::sample::select(Tracepoint::ALL.to_vec());
    prop::collection::vec((tracepoint, prop::collection::vec(fate, 0..20)), 0..9)
}

fn number_of(fates: &[Fate], wanted: Fate) -> u64 {
    fates.iter().filter(|fate| **fate == wanted).count() as u64
}

fn records_of(events: &[(Tracepoint, Vec<Fate>)]) -> Records {
    let mut records = Records::default();
    for (tracepoint, fates) in events {
        (0..number_of(fates, Fate::Recorded)).for_each(|_| records.add(Some(*tracepoint)));
    }
    records
}

/// What is hidden of the tracepoints that `wanted` chooses.
fn truth(events: &[(Tracepoint, Vec<Fate>)], wanted: impl Fn(Tracepoint) -> bool) -> u64 {
    let its = events.iter().filter(|(tracepoint, _)| wanted(*tracepoint));
    its.map(|(_, fates)| number_of(fates, Fate::Hidden)).sum()
}

proptest! {
    /// Where each event tells what it lost, exactly that is hidden which the kernel hides.
    #[test]
    fn what_is_hidden_is_counted_by_what_it_tells(events in kernel()) {
        let counts = events.iter().map(|(tracepoint, fates)| {
            let count = EventCount {
                value: fates.len() as u64,
                lost: Some(number_of(fates, Fate::Lost)),
            };
            (*tracepoint, Some(count))
        });
        // What the ring told besides is the same, told once more.
        let told = RingLosses { count: 3, may_be_more: true };
        let hidden = records_of(&events).hidden(counts, told);
        use Tracepoint::{Complete, Issue, Queue};
        let expected = ObservedHidden {
            queued_count: truth(&events, |of| of == Queue),
            issued_count: truth(&events, |of| of == Issue),
            completed_count: truth(&events, |of| of == Complete),
            others_count: truth(&events, |of| ![Queue, Issue, Complete].contains(&of)),
            is_exact: true,
        };
        prop_assert_eq!(hidden, expected);
        prop_assert_eq!(is_any(hidden), truth(&events, |_| true) > 0);
    }

    /// Where only the ring tells of losses, never more is hidden than the kernel hides, nor is it said to be all unless
    /// it is; and nothing, where more may be lost than was told.
    #[test]
    fn what_a_loss_may_explain_is_not_hidden(events in kernel(), may_be_more in any::<bool>()) {
        let counts: Vec<_> = events
            .iter()
            .map(|(of, fates)| (*of, Some(EventCount { value: fates.len() as u64, lost: None })))
            .collect();
        let lost_count = events.iter().map(|(_, fates)| number_of(fates, Fate::Lost)).sum();
        let losses = RingLosses { count: lost_count, may_be_more };
        let hidden = records_of(&events).hidden(counts, losses);
        let all = truth(&events, |_| true);
        prop_assert!(all_of(hidden) <= all, "{hidden:?}");
        prop_assert!(hidden.completed_count <= truth(&events, |of| of == Tracepoint::Complete));
        if may_be_more && !events.is_empty() {
            prop_assert!(!is_any(hidden) && !hidden.is_exact);
        }
        if hidden.is_exact {
            prop_assert_eq!((all_of(hidden), lost_count), (all, 0));
        }
        if lost_count == 0 && !may_be_more {
            prop_assert!(hidden.is_exact);
        }
    }

    /// An event that cannot be read hides nothing, and nothing of others is hidden by its records.
    #[test]
    fn what_cannot_be_read_leaves_less_to_say(events in kernel(), unread in any::<u16>()) {
        let counts = events.iter().enumerate().map(|(place, (tracepoint, fates))| {
            let lost = Some(number_of(fates, Fate::Lost));
            let count = EventCount { value: fates.len() as u64, lost };
            (*tracepoint, (unread >> place & 1 == 0).then_some(count))
        });
        let hidden = records_of(&events).hidden(counts, NO_LOSS);
        prop_assert!(all_of(hidden) <= truth(&events, |_| true));
        let is_all_read = (0..events.len()).all(|place| unread >> place & 1 == 0);
        prop_assert_eq!(hidden.is_exact, is_all_read);
    }
}

#[test]
fn a_record_of_nobody_knows_whom_hides_nothing() {
    let mut records = Records::default();
    records.add(Some(Tracepoint::Complete));
    records.add(None);
    let events = [(Tracepoint::Complete, Some(EventCount { value: 2, lost: Some(0) }))];
    let hidden = records.hidden(events, NO_LOSS);
    assert!(!is_any(hidden) && !hidden.is_exact, "{hidden:?}");
}

#[test]
fn rings_hide_together_what_each_hides_and_all_of_it_is_known_if_it_is_of_each() {
    let of = |count, is_exact| ObservedHidden {
        queued_count: count,
        issued_count: 2 * count,
        completed_count: 3 * count,
        others_count: 4 * count,
        is_exact,
    };
    assert_eq!(together([of(1, true), of(10, true)]), of(11, true));
    assert_eq!(together([of(1, true), of(10, false), of(100, true)]), of(111, false));
    assert_eq!(together([of(u64::MAX / 4, true), of(u64::MAX / 4, true)]).others_count, u64::MAX);
    assert_eq!(together([]), of(0, true));
}
