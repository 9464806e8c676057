//! How flushes end, and writes with flushes, on drawn events.

use super::drawing::{Drawn, lost, told, told_of};
use super::{GuestTicks, Limits};

#[test]
fn a_flush_is_issued_with_the_flush_of_the_queue_that_serves_it() {
    let told = told(
        "
        10 0 dd Q FWS 0+0
        20 1 kworker I FF 0+0
        30 1 idle C FF 18446744073709551615+0
        31 1 idle C WS 0+0
    ",
    );
    assert_eq!(told, ["Flush 0+0 dd 10@0 20@1 31@1 PREFLUSH"]);
}

#[test]
fn a_flush_of_the_queue_serves_several() {
    let told = told(
        "
        10 0 a Q FWS 0+0
        11 2 b Q FWS 0+0
        20 1 kworker I FF 0+0
        30 1 idle C FF 0+0
        31 1 idle C WS 0+0
        32 1 idle C WS 0+0
    ",
    );
    assert_eq!(
        told,
        ["Flush 0+0 a 10@0 20@1 31@1 PREFLUSH", "Flush 0+0 b 11@2 20@1 32@1 PREFLUSH"]
    );
}

#[test]
fn a_flush_that_comes_too_late_waits_for_the_next() {
    let told = told(
        "
        10 0 a Q FWS 0+0
        20 1 kworker I FF 0+0
        25 2 b Q FWS 0+0
        30 1 idle C FF 0+0
        31 1 idle C WS 0+0
        32 1 kworker I FF 0+0
        40 1 idle C FF 0+0
        41 1 idle C WS 0+0
    ",
    );
    assert_eq!(
        told,
        ["Flush 0+0 a 10@0 20@1 31@1 PREFLUSH", "Flush 0+0 b 25@2 32@1 41@1 PREFLUSH"]
    );
}

#[test]
fn where_one_of_two_flushes_is_served_it_may_be_either() {
    let told = told(
        "
        10 0 a Q FWS 0+0
        11 2 b Q FWS 0+0
        20 1 kworker I FF 0+0
        30 1 idle C FF 0+0
        31 1 idle C WS 0+0
        32 1 kworker I FF 0+0
        40 1 idle C FF 0+0
        41 1 idle C WS 0+0
    ",
    );
    let first = "Flush 0+0 a 10@0 20@1 31@1 PREFLUSH AMBIGUOUS";
    assert_eq!(told, [first, "Flush 0+0 b 11@2 32@1 41@1 PREFLUSH AMBIGUOUS"]);
}

#[test]
fn flushes_of_two_hardware_queues_serve_those_of_their_vcpus_or_say_that_they_may_not() {
    let told = told_of(
        2,
        "
        10 0 a Q FWS 0+0
        11 1 b Q FWS 0+0
        20 0 kworker I FF 0+0
        21 1 kworker I FF 0+0
        30 1 idle C FF 0+0
        31 1 idle C WS 0+0
        40 0 idle C FF 0+0
        41 0 idle C WS 0+0
    ",
    );
    assert_eq!(
        told,
        [
            "Flush 0+0 b 11@1 21@1 31@1 PREFLUSH AMBIGUOUS",
            "Flush 0+0 a 10@0 20@0 41@0 PREFLUSH AMBIGUOUS",
        ]
    );
}

#[test]
fn as_many_ends_as_flushes_are_theirs_whichever_queue_flushed() {
    let told = told_of(
        2,
        "
        10 0 a Q FWS 0+0
        11 1 b Q FWS 0+0
        20 1 kworker I FF 0+0
        30 1 idle C FF 0+0
        31 1 idle C WS 0+0
        32 1 idle C WS 0+0
    ",
    );
    let of = |queued, done| format!("Flush 0+0 {queued} 20@1 {done}@1 PREFLUSH");
    assert_eq!(told, [of("a 10@0", 31), of("b 11@1", 32)]);
}

#[test]
fn a_remapped_flush_is_one() {
    let told = told(
        "
        10 0 dm M FWS 0+0
        11 0 dm Q FWS 0+0
        20 1 kworker I FF 0+0
        30 1 idle C FF 0+0
        31 1 idle C WS 0+0
    ",
    );
    assert_eq!(told, ["Flush 0+0 dm 10@0 20@1 31@1 PREFLUSH"]);
}

#[test]
fn what_ends_with_a_flush_lets_the_next_go_before_the_data_behind_it() {
    let told = told(
        "
        10 0 a Q FWS 0+0
        11 0 commit Q FWS 8+8
        20 1 kworker I FF 0+0
        22 2 b Q FWS 0+0
        30 1 idle C FF 0+0
        31 1 idle C WS 0+0
        32 1 kworker I FF 0+0
        40 1 idle C FF 0+0
        41 1 idle C WS 0+0
        50 1 kworker I WS 8+8
        60 1 idle C WS 8+8
        61 1 idle C WS 8+0
    ",
    );
    assert_eq!(told.last().unwrap(), "Write 8+8 commit 11@0 32@1 61@1 PREFLUSH AMBIGUOUS");
}

#[test]
fn of_two_flushes_under_way_either_may_be_given_back() {
    let told = told_of(
        2,
        "
        10 1 kworker I FF 0+0
        15 0 a Q FWS 8+8
        20 0 kworker I FF 0+0
        30 1 idle C FF 0+0
        31 0 kworker R FF 0+0
        32 0 kworker I FF 0+0
        40 0 idle C FF 0+0
        50 0 kworker I WS 8+8
        60 0 idle C WS 8+8
        61 0 idle C WS 8+0
    ",
    );
    assert_eq!(told, ["Write 8+8 a 15@0 32@0 61@0 PREFLUSH AMBIGUOUS"]);
}

#[test]
fn fua_without_the_disks_help_is_done_with_the_flush_after_it() {
    let told = told(
        "
        10 0 mount Q WFS 8+8
        20 1 kworker I WS 8+8
        30 0 idle C WS 8+8
        40 1 kworker I FF 0+0
        50 1 idle C FF 18446744073709551615+0
        51 1 idle C WS 8+0
    ",
    );
    assert_eq!(told, ["Write 8+8 mount 10@0 20@1 51@1 FUA"]);
}

#[test]
fn fua_with_the_disks_help_is_a_write() {
    let told = told(
        "
        10 0 mount Q WFS 8+8
        20 1 kworker I WFS 8+8
        30 0 idle C WFS 8+8
    ",
    );
    assert_eq!(told, ["Write 8+8 mount 10@0 20@1 30@0 FUA"]);
}

#[test]
fn a_commit_is_handed_over_with_the_flush_before_it() {
    let told = told(
        "
        10 0 jbd2 Q FWFSM 8+8
        20 1 kworker I FF 0+0
        30 0 idle C FF 18446744073709551615+0
        40 1 kworker I WSM 8+8
        50 0 idle C WSM 8+8
        60 1 kworker I FF 0+0
        70 1 idle C FF 18446744073709551615+0
        71 1 idle C WSM 8+0
    ",
    );
    assert_eq!(told, ["Write 8+8 jbd2 10@0 20@1 71@1 FUA PREFLUSH"]);
}

#[test]
fn a_commit_whose_flush_fails_fails_unissued() {
    let told = told(
        "
        10 0 jbd2 Q FWFSM 8+8
        20 1 kworker I FF 0+0
        30 0 idle C FF 0+0 -5
        31 0 idle C WSM 8+8 -5
    ",
    );
    assert_eq!(told, ["Write 8+8 jbd2 10@0 20@1 31@0 FUA PREFLUSH -5"]);
}

#[test]
fn a_commit_that_fails_and_was_taken_in_part_for_another_is_in_doubt() {
    let mut drawn = Drawn::settled(1);
    let told = drawn.events(
        "
        10 0 jbd2 Q FWS 8+24
        20 0 irq I FF 0+0
        21 1 other I WS 16+16
        30 0 idle C FF 0+0 -5
        31 0 idle C WS 8+24 -5
    ",
    );
    assert_eq!(told, ["Write 8+8 jbd2 10@0 20@0 31@0 PREFLUSH AMBIGUOUS -5"]);
}

#[test]
fn flushes_of_which_the_beginning_was_not_seen_are_not_taken_for_others() {
    let mut drawn = Drawn::new();
    let told = drawn.events(
        "
        10 0 a Q FWS 0+0
        20 0 idle C FF 0+0
        21 0 idle C WS 0+0
        30 0 kworker I FF 0+0
        40 0 idle C FF 0+0
        41 0 idle C WS 0+0
    ",
    );
    assert_eq!(told, ["Flush 0+0 a 10@0 30@0 41@0 PREFLUSH AMBIGUOUS"]);
}

#[test]
fn either_the_commit_or_what_is_in_flight_of_its_sectors_has_failed() {
    let mut drawn = Drawn::settled(1);
    let told = drawn.events(
        "
        10 0 a Q WS 8+16
        11 0 a I WS 8+16
        15 1 jbd2 Q FWS 8+16
        20 1 kworker I FF 0+0
        30 0 idle C FF 0+0 -5
        31 0 idle C WS 8+16 -5
        40 0 idle R WS 8+16
        41 0 kworker I WS 8+16
        50 0 idle C WS 8+16
        60 0 idle C WS 8+0
    ",
    );
    let of = |name: &str| told.iter().find(|told| told.contains(name)).unwrap();
    assert!(of(" a ").contains("AMBIGUOUS"), "{told:?}");
    assert!(of(" jbd2 ").contains("AMBIGUOUS"), "{told:?}");
}

/// The first two writes are each told for the other: the end of the one with a flush is yet to come.
#[test]
fn what_is_told_for_a_write_with_a_flush_leaves_its_end_to_those_of_some_of_its_sectors() {
    let mut drawn = Drawn::settled(1);
    let mistaken = drawn.events(
        "
        10 0 plain Q WS 8+16
        11 0 fua Q WFS 8+16
        20 0 fua I WS 8+16
        21 0 idle C WS 8+8
        22 0 idle C WS 16+8
        30 0 plain I WS 8+16
        31 0 idle C WS 8+8
        32 0 idle C WS 16+8
    ",
    );
    assert_eq!(mistaken, ["Write 8+16 plain 10@0 20@0 22@0 AMBIGUOUS"]);
    // That of a write elsewhere says nothing of it.
    drawn.events("38 0 idle C WS 400+0");
    let told = drawn.events(
        "
        40 0 same Q WFS 8+8
        41 0 same I WS 8+8
        42 0 idle C WS 8+8
        43 0 behind Q WFS 24+8
        44 0 behind I WS 24+8
        45 0 idle C WS 24+8
        46 0 other@1 Q WFS 8+8
        47 0 other@1 I WS 8+8
        48 0 idle@1 C WS 8+8
        50 0 idle C WS 8+0
        60 0 idle C WS 24+0
        61 0 idle@1 C WS 8+0
    ",
    );
    let expected = [
        "Write 8+8 same 40@0 41@0 50@0 FUA AMBIGUOUS",
        "Write 24+8 behind 43@0 44@0 60@0 FUA",
        "Write 8+8 other 46@0 47@0 61@0 FUA",
    ];
    assert_eq!(told, expected);
}

#[test]
fn what_is_told_for_a_write_with_a_flush_may_end_as_one_whose_flush_is_left_already() {
    let mut drawn = Drawn::settled(1);
    let told = drawn.events(
        "
        10 0 first Q WFS 8+8
        11 0 first I WS 8+8
        12 0 idle C WS 8+8
        20 0 plain Q WS 8+8
        21 0 fua Q WFS 8+8
        30 0 fua I WS 8+8
        31 0 idle C WS 8+8
        40 0 idle C WS 8+0
    ",
    );
    let of_first = "Write 8+8 first 10@0 11@0 40@0 FUA AMBIGUOUS";
    assert_eq!(told, ["Write 8+8 plain 20@0 30@0 31@0 AMBIGUOUS", of_first]);
}

#[test]
fn an_end_that_has_come_is_not_waited_for() {
    let mut drawn = Drawn::settled(1);
    let told = drawn.events(
        "
        10 0 plain Q WS 16+8
        11 0 fua Q WFS 16+8
        20 0 fua I WS 16+8
        21 0 idle C WS 16+8
        30 0 idle C WS 16+0
        40 0 plain I WS 16+8
        41 0 idle C WS 16+8
        50 0 later Q WFS 8+16
        51 0 later I WS 8+16
        52 0 idle C WS 8+16
        60 0 idle C WS 8+0
    ",
    );
    let first = "Write 16+8 plain 10@0 20@0 21@0 AMBIGUOUS";
    assert_eq!(told, [first, "Write 8+16 later 50@0 51@0 60@0 FUA"]);
}

#[test]
fn of_two_writes_whose_flushes_are_left_either_may_end() {
    let told = told(
        "
        10 0 a Q WFS 8+8
        11 0 a I WS 8+8
        12 0 idle C WS 8+8
        20 1 b Q WFS 8+8
        21 1 b I WS 8+8
        22 0 idle C WS 8+8
        30 0 irq I FF 0+0
        40 0 idle C FF 0+0
        41 0 idle C WS 8+0
        42 0 idle C WS 8+0
    ",
    );
    let of_b = "Write 8+8 b 20@1 21@1 42@0 FUA AMBIGUOUS";
    assert_eq!(told, ["Write 8+8 a 10@0 11@0 41@0 FUA AMBIGUOUS", of_b]);
}

/// Another vCPU had the last reference (linux: `flush_end_io`).
#[test]
fn a_commit_fails_with_no_flush_of_the_queue_before_it() {
    let told = told(
        "
        10 0 kworker I FF 0+0
        20 0 idle C FF 0+0
        30 0 jbd2 Q FWFSM 8+8
        40 1 kworker I FF 0+0
        50 1 idle C FF 0+0 -5
        51 0 idle C WSM 8+8 -5
    ",
    );
    assert_eq!(told, ["Write 8+8 jbd2 30@0 40@1 51@0 FUA PREFLUSH AMBIGUOUS -5"]);
}

/// What was under way is over within 100, and what nobody keeps from going on does so within 10.
fn prompt(hardware_queues: u16) -> Drawn {
    let mut drawn = Drawn::with(Limits { driver_ticks: 100, quiet_ticks: 10, ..Limits::default() });
    drawn.matching.set_hardware_queues(0, hardware_queues);
    drawn
}

/// Whether it is not certain whose the end of a flush is that is asked for at this time.
fn is_ambiguous(drawn: &mut Drawn, at: u64) -> bool {
    let [issued, done, ended] = [at + 1, at + 2, at + 3];
    let told = drawn.events(&format!(
        "{at} 0 a Q FWS 0+0\n{issued} 0 irq I FF 0+0\n{done} 0 irq C FF 0+0\n{ended} 0 irq C WS 0+0"
    ));
    told[0].ends_with("AMBIGUOUS")
}

/// Until what was under way has ended, and then until nothing of a flush has shown for a while.
#[test]
fn after_a_loss_flushes_are_ambiguous_until_none_can_be_under_way() {
    let mut drawn = prompt(1);
    drawn.events("4 0 idle C R 8+8\nlost 5 10");
    let at = [60, 107, 111, 124, 128];
    assert_eq!(at.map(|at| is_ambiguous(&mut drawn, at)), [true, true, true, false, false]);
}

/// Of a queue of which the flush was issued before the loss was over, and not seen.
#[test]
fn after_a_loss_the_end_of_a_flush_may_have_been_taken_for_that_of_another_queues() {
    let mut drawn = prompt(2);
    let told = drawn.events(
        "
        lost 5 10
        95 0 a Q FWS 0+0
        100 0 irq I FF 0+0
        105 1 irq C FF 0+0
        106 1 irq C WS 0+0
        120 1 b Q FWS 0+0
        121 1 irq I FF 0+0
        130 0 irq C FF 0+0
        131 0 irq C WS 0+0
        140 1 irq C FF 0+0
        141 1 irq C WS 0+0
    ",
    );
    let of_b = "Flush 0+0 b 120@1 121@1 131@0 PREFLUSH AMBIGUOUS";
    assert_eq!(told, ["Flush 0+0 a 95@0 100@0 106@1 PREFLUSH AMBIGUOUS", of_b]);
    assert!(is_ambiguous(&mut drawn, 215), "what was issued at 121 may not have ended");
    assert!(!is_ambiguous(&mut drawn, 320));
}

/// After a loss: others, of which nobody was seen to ask, may wait for what is under way.
#[test]
fn nothing_of_a_flush_has_shown_for_a_while_only_if_none_is_under_way() {
    let ends_with = |before: &str, meanwhile: &str| {
        let mut drawn = prompt(1);
        let told = drawn.events(&format!(
            "lost 5 10
            {before}
            115 0 a Q FWS 0+0
            {meanwhile}
            120 0 irq I FF 0+0
            130 0 irq C FF 0+0
            131 0 irq C WS 0+0
            132 0 irq C WS 0+0"
        ));
        told.into_iter().find(|told| told.contains(" a ")).unwrap()
    };
    let certain = "Flush 0+0 a 115@0 120@0 131@0 PREFLUSH";
    assert_eq!(ends_with("60 0 b Q R 8+8", ""), certain);
    for (before, meanwhile, what) in [
        ("60 0 irq I FF 0+0", "118 0 irq C FF 0+0", "a flush of the queue"),
        ("60 0 b Q FWS 0+0", "", "a flush that waits"),
        ("60 0 b Q WFS 8+8\n61 0 b I WS 8+8", "118 0 irq C WS 8+8", "a write with a flush"),
        ("60 0 irq I FF 0+0\n112 0 irq R FF 0+0", "", "one that was given back just now"),
    ] {
        let told = ends_with(before, meanwhile);
        assert!(told.ends_with("AMBIGUOUS"), "{what}: {told}");
    }
}

/// What one of its flushes was seen to take, another that was not may take.
#[test]
fn after_a_loss_a_disk_with_slow_flushes_is_waited_for_longer() {
    let limits = Limits { driver_ticks: 100, quiet_ticks: 10, ..Limits::default() };
    let mut drawn = Drawn::with(limits);
    drawn.matching.set_hardware_queues(0, 1);
    drawn.events(
        "
        10 0 a Q FWS 0+0
        11 0 irq I FF 0+0
        311 0 irq C FF 0+0
        312 0 irq C WS 0+0
        lost 1000 1010
        1020 0 idle C R 8+8
    ",
    );
    let flush = |at: u64| {
        let [issued, done, ended] = [at + 1, at + 2, at + 3];
        format!(
            "{at} 0 a Q FWS 0+0\n{issued} 0 irq I FF 0+0\n{done} 0 irq C FF 0+0\n{ended} 0 irq C WS 0+0"
        )
    };
    let mut is_ambiguous = |at: u64| drawn.events(&flush(at))[0].ends_with("AMBIGUOUS");
    assert!(is_ambiguous(1120));
    assert!(is_ambiguous(1605));
    assert!(!is_ambiguous(1620));
}

#[test]
fn a_disk_that_was_idle_since_observing_began_has_no_flush_under_way() {
    let mut drawn = prompt(0);
    drawn.matching.begin(GuestTicks(5));
    let told = drawn.events(
        "
        105 0 a Q FWS 0+0
        106 0 irq I FF 0+0
        107 0 idle C FF 0+0
        108 0 idle C WS 0+0
    ",
    );
    assert_eq!(told, ["Flush 0+0 a 105@0 106@0 108@0 PREFLUSH"]);
}

#[test]
fn a_flush_that_nothing_was_heard_of_since_a_loss_is_lost() {
    let mut drawn = prompt(0);
    drawn.events("lost 5 10\n12 0 a Q FWS 0+0\n20 0 idle C FF 0+0\n21 0 idle C WS 0+0");
    drawn.pass(119);
    assert_eq!(drawn.matching.open_count(), 1);
    drawn.pass(121);
    assert_eq!(drawn.matching.open_count(), 0);
    assert!(drawn.matching.take_lost().contains(&lost(12, 121)));
}

#[test]
fn the_end_of_a_write_at_sector_0_that_was_lost_may_be_taken_for_a_flushs() {
    let mut drawn = Drawn::settled(1);
    let told = drawn.events(
        "
        10 0 mount Q WFS 0+8
        11 0 mount I WS 0+8
        9 1 idle C WS 0+8
        20 0 a Q FWS 0+0
        30 0 kworker I FF 0+0
        40 0 idle C FF 0+0
        41 0 idle C WS 0+0
    ",
    );
    assert_eq!(told, ["Flush 0+0 a 20@0 30@0 41@0 PREFLUSH AMBIGUOUS"]);
}
