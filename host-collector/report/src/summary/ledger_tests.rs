use super::*;
use proptest::prelude::*;
use vslice_core::task::{Process, ThreadKind};
use vslice_core::units::{HostNs, Tid};

const ALL: (Bound<u64>, Bound<u64>) = (Bound::Unbounded, Bound::Unbounded);
const ROOM: Room = Room { keys: 64, cells: 1 << 12, members: 1 << 12 };

fn task(tid: u32) -> Arc<Task> {
    let process = Some(Process { pid: Tid(tid / 2 * 2), since: HostNs(0) });
    Arc::new(Task { process, kind: ThreadKind::Host, ..Task::unknown(Tid(tid)) })
}

fn ledger(room: Room, ran: &[(u32, u64, u64)]) -> Ledger<u32> {
    let mut ledger = Ledger::new(room);
    for (key, bucket, ran_ns) in ran {
        ledger.add(key, *bucket, &task(*key), (*ran_ns, false));
    }
    ledger
}

/// Key, time and error of the `count` longest, and the others' time.
fn told(
    ledger: &Ledger<u32>,
    count: usize,
    buckets: (Bound<u64>, Bound<u64>),
) -> (Vec<(u32, u64, u64)>, u64) {
    let (rows, others_ns) = ledger.figures(&ledger.longest(count, buckets), buckets);
    (rows.iter().map(|row| (*row.key, row.ran_ns, row.error_ns)).collect(), others_ns)
}

#[test]
fn as_long_as_there_is_room_all_is_exact() {
    let ledger = ledger(ROOM, &[(1, 0, 5), (2, 0, 7), (3, 0, 11), (1, 9, 1), (4, 9, 2)]);
    assert_eq!(told(&ledger, 2, ALL), (vec![(3, 11, 0), (2, 7, 0)], 8));
    let slow = (Bound::Excluded(0), Bound::Unbounded);
    assert_eq!(told(&ledger, 2, slow), (vec![(4, 2, 0), (1, 1, 0)], 0));
}

#[test]
fn keys_that_come_when_others_are_heavier_have_an_error() {
    let room = Room { keys: 2, ..ROOM };
    let ledger = ledger(room, &[(1, 0, 6), (2, 0, 7), (3, 0, 11), (1, 0, 20)]);
    // 1 goes for 3, which may have had 6 before; 2, of which 1 is left, goes for 1.
    let (rows, others_ns) = told(&ledger, 8, ALL);
    assert_eq!(rows, [(1, 20, 7), (3, 11, 6)]);
    assert_eq!(others_ns, 13);
}

#[test]
fn how_many_share_a_key_is_counted() {
    let mut ledger = Ledger::new(Room { members: 5, ..ROOM });
    for tid in [10, 11, 12, 11] {
        ledger.add(&"true", 0, &task(tid), (u64::from(tid), false));
    }
    ledger.add(&"one", 0, &task(40), (1, true));
    for tid in 50..60 {
        ledger.add(&"many", 0, &task(tid), (1, false));
    }
    let (rows, _) = ledger.figures(&ledger.longest(8, ALL), ALL);
    let told = |key: &str| rows.iter().find(|row| *row.key == key).unwrap();
    let members = |count, is_exact| Members { count, is_exact };
    let count = |key: &str| (told(key).threads, told(key).processes);
    assert_eq!(count("true"), (members(3, true), members(2, true)));
    assert_eq!(count("one"), (members(1, false), members(1, false)));
    assert_eq!(count("many"), (members(3, false), members(1, false)), "the budget is used up");
    assert_eq!(told("true").example.tid, Tid(12), "who had most at once");
}

#[test]
fn a_million_names_need_no_more_room_than_the_heaviest() {
    let mut ledger = Ledger::new(ROOM);
    let anybody = task(7);
    for number in 0..1_000_000_u32 {
        ledger.add(&number, u64::from(number % 100), &anybody, (1, false));
        if number % 100 == 0 {
            ledger.add(&u32::MAX, 3, &anybody, (5, false));
        }
    }
    assert!(ledger.rows.len() <= ROOM.keys && ledger.cells_count <= ROOM.cells);
    let (rows, others_ns) = told(&ledger, 1, ALL);
    let (key, ran_ns, error_ns) = rows[0];
    assert_eq!(key, u32::MAX);
    assert_eq!(ran_ns + others_ns, 1_050_000);
    assert!(ran_ns <= 50_000 && ran_ns + error_ns >= 50_000, "{ran_ns} and {error_ns}");
    assert!(error_ns <= 1_050_000 / (ROOM.keys as u64 / 2), "{error_ns}");
}

proptest! {
    /// Against totals of which every key is kept.
    #[test]
    fn what_is_told_is_never_too_much_and_the_error_says_how_much_too_little(
        ran in prop::collection::vec((0..40_u32, 0..6_u64, 0..1_000_u64), 0..400),
        keyless in prop::collection::vec((0..6_u64, 0..50_u64), 0..3),
        keys in 2..50_usize,
        cells in 20..200_usize,
        from in 0..6_u64,
    ) {
        let room = Room { keys, cells, ..ROOM };
        let mut ledger = ledger(room, &ran);
        for (bucket, ran_ns) in &keyless {
            ledger.add_keyless(*bucket, *ran_ns);
        }
        prop_assert!(ledger.rows.len() <= keys.max(2));
        prop_assert!(ledger.cells_count <= cells);
        let cells_count: usize = ledger.rows.values().map(|row| row.by_bucket_ns.len()).sum();
        prop_assert_eq!(ledger.cells_count, cells_count);
        let all_ns: u64 = ran.iter().map(|(.., ran_ns)| ran_ns).sum();
        for buckets in [ALL, (Bound::Excluded(from), Bound::Unbounded)] {
            let is_in = |bucket: &u64| buckets.contains(bucket);
            let exact_ns = |key: u32| -> u64 {
                let of_key = ran.iter().filter(|(of, bucket, _)| *of == key && is_in(bucket));
                of_key.map(|(.., ran_ns)| ran_ns).sum()
            };
            let (rows, others_ns) = told(&ledger, 8, buckets);
            let told_ns: u64 = rows.iter().map(|row| row.1).sum();
            let of_keys: u64 = (0..40).map(exact_ns).sum();
            let of_none = keyless.iter().filter(|(bucket, _)| is_in(bucket));
            let of_none: u64 = of_none.map(|(_, ran_ns)| ran_ns).sum();
            prop_assert_eq!(told_ns + others_ns, of_keys + of_none);
            for (key, ran_ns, error_ns) in rows {
                prop_assert!(ran_ns <= exact_ns(key));
                prop_assert!(exact_ns(key) <= ran_ns + error_ns);
                prop_assert!(error_ns <= others_ns);
            }
        }
        // Whoever has had more than the floor has a row, and where only keys were short that is low.
        for key in 0..40 {
            let of_key: u64 = ran.iter().filter(|row| row.0 == key).map(|row| row.2).sum();
            prop_assert!(of_key <= ledger.floor_ns || ledger.rows.contains_key(&key));
        }
        if cells >= 40 * 6 || keys <= cells / 6 {
            prop_assert!(ledger.floor_ns <= 2 * all_ns / keys as u64 + 1);
        }
    }
}
