//! The matching, on drawn events.

use super::drawing::{Drawn, lost, told};
use super::*;

#[test]
fn a_request_has_the_times_of_its_bio_its_issue_and_its_completion() {
    let told = told(
        "
        10 0 dd Q WS 8+8
        20 1 kworker I WS 8+8
        30 2 idle C WS 8+8
    ",
    );
    assert_eq!(told, ["Write 8+8 dd 10@0 20@1 30@2"]);
}

#[test]
fn errors_are_told() {
    let told = told(
        "
        10 0 dd Q R 8+8
        20 0 dd I R 8+8
        30 0 idle C R 8+8 -5
    ",
    );
    assert_eq!(told, ["Read 8+8 dd 10@0 20@0 30@0 -5"]);
}

#[test]
fn a_merged_request_is_that_of_the_first_who_asked() {
    let told = told(
        "
        10 0 late Q W 16+8
        11 1 back Q W 24+8
        12 2 front Q W 8+8
        20 0 kworker I W 8+24
        30 0 idle C W 8+24
    ",
    );
    assert_eq!(told, ["Write 8+24 late 10@0 20@0 30@0 MERGED"]);
}

#[test]
fn reads_are_not_merged_with_writes_of_the_same_sectors() {
    let told = told(
        "
        10 0 reader Q R 8+8
        11 1 writer Q W 8+8
        20 0 writer I W 8+8
        21 0 reader I R 8+8
        30 0 idle C R 8+8
        31 0 idle C W 8+8
    ",
    );
    let read = "Read 8+8 reader 10@0 21@0 30@0 OVERLAPPED";
    assert_eq!(told, [read, "Write 8+8 writer 11@1 20@0 31@0 OVERLAPPED"]);
}

#[test]
fn a_split_bio_is_several_requests_of_one_time_in_any_order() {
    let told = told(
        "
        10 0 dd Q R 0+24
        20 0 dd I R 16+8
        21 0 dd I R 0+8
        22 0 dd I R 8+8
        30 0 idle C R 0+8
        31 0 idle C R 8+8
        32 0 idle C R 16+8
    ",
    );
    let of = |sector, issued, done| format!("Read {sector}+8 dd 10@0 {issued}@0 {done}@0");
    assert_eq!(told, [of(0, 21, 30), of(8, 22, 31), of(16, 20, 32)]);
}

#[test]
fn the_rest_of_a_split_bio_is_merged_with_the_next() {
    let told = told(
        "
        10 0 dd Q W 0+24
        11 0 other Q W 24+8
        20 0 dd I W 0+16
        21 0 dd I W 16+16
        30 0 idle C W 0+16
        31 0 idle C W 16+16
    ",
    );
    assert_eq!(told, ["Write 0+16 dd 10@0 20@0 30@0", "Write 16+16 dd 10@0 21@0 31@0 MERGED"]);
}

#[test]
fn a_request_in_the_middle_of_a_later_bio_begins_where_it_begins() {
    let told = told(
        "
        10 0 first Q W 16+16
        11 0 second Q W 0+16
        20 0 kworker I W 8+16
        21 0 kworker I W 24+8
        22 0 kworker I W 0+8
        30 0 idle C W 8+16
        31 0 idle C W 24+8
        32 0 idle C W 0+8
    ",
    );
    assert_eq!(
        told,
        [
            "Write 8+16 first 10@0 20@0 30@0 MERGED",
            "Write 24+8 first 10@0 21@0 31@0",
            "Write 0+8 second 11@0 22@0 32@0",
        ]
    );
}

#[test]
fn what_completes_in_parts_is_told_once_with_the_first_error() {
    let told = told(
        "
        10 0 dd Q R 8+24
        20 0 dd I R 8+24
        30 0 idle C R 8+8
        31 0 idle C R 16+8 -5
        32 1 idle C R 24+8
    ",
    );
    assert_eq!(told, ["Read 8+24 dd 10@0 20@0 32@1 -5"]);
}

#[test]
fn what_is_given_back_is_issued_when_the_driver_keeps_it() {
    let told = told(
        "
        10 0 dd Q R 8+8
        20 0 dd I R 8+8
        21 0 dd R R 8+8
        40 1 kworker I R 8+8
        50 0 idle C R 8+8
    ",
    );
    assert_eq!(told, ["Read 8+8 dd 10@0 40@1 50@0 REQUEUED"]);
}

#[test]
fn what_is_given_back_before_it_was_issued_is_no_matter() {
    let told = told(
        "
        10 0 dd Q R 8+8
        15 0 dd R R 8+8
        20 0 dd I R 8+8
        50 0 idle C R 8+8
    ",
    );
    assert_eq!(told, ["Read 8+8 dd 10@0 20@0 50@0"]);
}

#[test]
fn others_are_merged_into_what_was_given_back() {
    let told = told(
        "
        10 0 dd Q W 8+8
        20 0 dd I W 8+8
        21 0 dd R W 8+8
        22 0 other Q W 16+8
        40 1 kworker I W 8+16
        50 0 idle C W 8+16
    ",
    );
    assert_eq!(told, ["Write 8+16 dd 10@0 40@1 50@0 MERGED REQUEUED"]);
}

#[test]
fn the_rest_of_what_is_done_in_part_may_be_given_back() {
    let told = told(
        "
        10 0 dd Q R 8+16
        20 0 dd I R 8+16
        30 0 idle C R 8+8
        31 0 idle R R 16+8
        40 1 kworker I R 16+8
        50 0 idle C R 16+8
    ",
    );
    assert_eq!(told, ["Read 8+16 dd 10@0 40@1 50@0 REQUEUED"]);
}

#[test]
fn a_discard_of_several_ranges_has_the_sectors_of_all() {
    let told = told(
        "
        10 0 fstrim Q D 100+8
        11 0 fstrim Q D 500+16
        12 0 fstrim Q D 50+4
        13 0 fstrim Q D 900+8
        20 0 fstrim I D 100+28
        30 0 idle C D 100+28
        31 0 fstrim I D 900+8
        32 0 idle C D 900+8
    ",
    );
    let first = "Discard 100+28 fstrim 10@0 20@0 30@0 MERGED";
    assert_eq!(told, [first, "Discard 900+8 fstrim 13@0 31@0 32@0"]);
}

#[test]
fn writes_of_zeroes_and_zone_operations_are_other() {
    let told = told(
        "
        10 0 mkfs Q N 8+4096
        11 0 mkfs Q ZR 0+0
        20 0 mkfs I N 8+4096
        21 0 mkfs I ZR 0+0
        30 0 idle C N 8+4096
        31 0 idle C ZR 0+0
    ",
    );
    assert_eq!(told, ["Other 8+4096 mkfs 10@0 20@0 30@0", "Other 0+0 mkfs 11@0 21@0 31@0"]);
}

#[test]
fn passthrough_is_no_block_io() {
    let mut drawn = Drawn::settled(1);
    let told = drawn.events(
        "
        20 0 smartctl I N 0+0
        30 0 idle C N 0+0
    ",
    );
    assert_eq!(told, [] as [&str; 0]);
    assert_eq!(drawn.matching.counts(), Counts { passthrough: 1, ..Counts::default() });
    assert_eq!(drawn.matching.open_count(), 0);
}

#[test]
fn two_of_the_same_sectors_are_marked_and_the_first_goes_first() {
    let told = told(
        "
        10 0 a Q W 8+8
        11 0 b Q W 8+8
        20 0 a I W 8+8
        21 0 b I W 8+8
        30 0 idle C W 8+8
        31 0 idle C W 8+8
    ",
    );
    assert_eq!(
        told,
        [
            "Write 8+8 a 10@0 20@0 30@0 AMBIGUOUS OVERLAPPED",
            "Write 8+8 b 11@0 21@0 31@0 AMBIGUOUS OVERLAPPED",
        ]
    );
}

#[test]
fn what_begins_within_another_may_be_a_part_of_that() {
    let told = told(
        "
        10 0 a Q R 8+16
        11 0 b Q R 16+8
        20 0 b I R 16+8
        30 0 idle C R 16+8
        40 0 a I R 8+16
        50 0 idle C R 8+16
    ",
    );
    let first = "Read 16+8 b 11@0 20@0 30@0 AMBIGUOUS";
    assert_eq!(told, [first, "Read 8+16 a 10@0 40@0 50@0 AMBIGUOUS"]);
}

#[test]
fn two_of_the_same_sectors_are_marked_whatever_else_waits_there() {
    let mut drawn = Drawn::settled(1);
    let writes: String = (11..30).map(|at| format!("{at} 0 writer Q W 8+8\n")).collect();
    let told = drawn.events(&format!(
        "10 0 a Q R 8+8
        {writes}
        30 0 b Q R 8+8
        31 0 a I R 8+8
        32 0 idle C R 8+8
        40 0 b I R 8+8
        50 0 idle C R 8+8"
    ));
    assert_eq!(
        told,
        ["Read 8+8 a 10@0 31@0 32@0 AMBIGUOUS", "Read 8+8 b 30@0 40@0 50@0 AMBIGUOUS"]
    );
}

#[test]
fn of_two_zeroings_alike_either_may_be_given_back() {
    let mut drawn = Drawn::settled(1);
    let told = drawn.events(
        "
        10 0 a Q N 8+8
        11 0 b Q N 8+8
        20 0 a I N 8+8
        21 0 b I N 8+8
        25 0 b R N 8+8
        40 0 b I N 8+8
        50 0 idle C N 8+8
        51 0 idle C N 8+8
    ",
    );
    assert_eq!(told, [] as [&str; 0]);
    assert_eq!(drawn.lost_count(), 2);
    assert_eq!(drawn.matching.open_count(), 0);
}

#[test]
fn sectors_that_two_bios_have_are_those_of_two_requests() {
    let told = told(
        "
        10 0 a Q W 64+24
        11 0 b Q W 64+16
        20 0 a I W 64+8
        30 0 idle C W 64+8
        40 0 a I W 72+16
        50 0 idle C W 72+16
        60 0 b I W 64+8
        61 0 b I W 72+8
        70 0 idle C W 64+8
        71 0 idle C W 72+8
    ",
    );
    assert_eq!(told.len(), 4);
    assert!(told.iter().all(|told| told.contains("AMBIGUOUS")), "{told:?}");
}

#[test]
fn of_two_writes_alike_either_may_have_the_flush_after_it() {
    let mut drawn = Drawn::settled(1);
    let told = drawn.events(
        "
        10 0 a Q WS 8+8
        11 1 b Q WFS 8+8
        20 1 kworker I WS 8+8
        30 1 idle C WS 8+8
        40 0 c Q WFS 8+8
        41 0 c I WS 8+8
        50 0 idle C WS 8+8
        60 1 idle C WS 8+0
    ",
    );
    assert!(told.iter().all(|told| told.contains("AMBIGUOUS")), "{told:?}");
    assert_eq!(told.len(), 2);
}

#[test]
fn requests_that_share_sectors_are_marked_on_their_disk_only() {
    let told = told(
        "
        10 0 a Q W 8+16
        11 0 b@1 Q W 8+16
        12 0 a I W 8+16
        13 0 b@1 I W 8+16
        14 0 c Q R 16+64
        15 0 c I R 16+64
        20 0 idle C W 8+16
        21 0 idle@1 C W 8+16
        22 0 idle C R 16+64
    ",
    );
    assert_eq!(
        told,
        [
            "Write 8+16 a 10@0 12@0 20@0 OVERLAPPED",
            "Write 8+16 b 11@0 13@0 21@0",
            "Read 16+64 c 14@0 15@0 22@0 OVERLAPPED",
        ]
    );
}

#[test]
fn who_may_not_wait_and_is_refused_asks_again() {
    let told = told(
        "
        10 0 fio Q R 8+8
        11 0 unnamed#fio X R 8+8
        15 0 iou-wrk Q R 8+8
        20 0 iou-wrk I R 8+8
        30 0 idle C R 8+8
    ",
    );
    assert_eq!(told, ["Read 8+8 iou-wrk 15@0 20@0 30@0"]);
}

#[test]
fn who_is_refused_asked_last() {
    let told = told(
        "
        10 0 a Q W 8+8
        11 1 b Q W 8+8
        12 1 b Q W 8+8
        13 1 b X W 8+8
        20 0 a I W 8+8
        30 0 idle C W 8+8
        40 0 b I W 8+8
        50 0 idle C W 8+8
    ",
    );
    let of_b = "Write 8+8 b 11@1 40@0 50@0 AMBIGUOUS";
    assert_eq!(told, ["Write 8+8 a 10@0 20@0 30@0 AMBIGUOUS", of_b]);
}

#[test]
fn what_is_refused_is_what_was_asked_for_so() {
    let told = told(
        "
        10 0 a Q R 8+8
        11 0 a Q R 8+16
        12 0 a Q W 8+8
        13 0 a X R 8+8
        20 0 a I R 8+16
        21 0 a I W 8+8
        30 0 idle C R 8+16
        31 0 idle C W 8+8
        40 0 a Q FWS 0+0
        41 0 a Q FWS 2048+0
        42 0 a X FWS 0+0
        50 0 irq I FF 0+0
        60 0 idle C FF 0+0
        61 0 idle C WS 2048+0
    ",
    );
    let expected = [
        "Read 8+16 a 11@0 20@0 30@0 AMBIGUOUS OVERLAPPED",
        "Write 8+8 a 12@0 21@0 31@0 OVERLAPPED",
        "Flush 0+0 a 41@0 50@0 61@0 PREFLUSH",
    ];
    assert_eq!(told, expected);
}

#[test]
fn of_a_discard_that_was_not_seen_whole_any_that_waits_may_be_a_range() {
    let mut drawn = Drawn::settled(1);
    let told = drawn.events(
        "
        lost 5 6
        10 0 fstrim Q D 500+8
        20 0 fstrim I D 100+24
        30 0 idle C D 100+24
        40 0 fstrim Q D 600+8
        50 0 fstrim I D 500+16
        60 0 idle C D 500+16
    ",
    );
    let unseen = "Discard 100+24 ? 20@0 20@0 30@0 NO_QUEUE_TIME";
    assert_eq!(told, [unseen, "Discard 500+16 fstrim 10@0 50@0 60@0 MERGED AMBIGUOUS"]);
}

#[test]
fn what_the_driver_has_failed_is_nobody_elses_refusal() {
    let told = told(
        "
        10 0 a Q R 8+8
        11 0 a I R 8+8
        12 1 b Q R 8+8
        20 0 idle C R 8+8 -5
        21 0 idle X R 8+8
        30 1 b I R 8+8
        40 0 idle C R 8+8
    ",
    );
    assert_eq!(told, ["Read 8+8 a 10@0 11@0 20@0 -5", "Read 8+8 b 12@1 30@1 40@0"]);
}

#[test]
fn a_flush_may_be_refused() {
    let told = told(
        "
        10 0 a Q FWS 0+0
        11 0 a X FWS 0+0
        12 1 b Q FWS 0+0
        20 0 irq I FF 0+0
        30 0 idle C FF 0+0
        31 0 idle C WS 0+0
    ",
    );
    assert_eq!(told, ["Flush 0+0 b 12@1 20@0 31@0 PREFLUSH"]);
}

#[test]
fn what_was_under_way_at_the_beginning_is_counted_or_has_no_queue_time() {
    let mut drawn = Drawn::settled(1);
    let told = drawn.events(
        "
        10 0 idle C R 8+8
        20 1 kworker I R 16+8
        21 0 kworker I WS 32+8
        30 0 idle C R 16+8
        31 0 idle C WS 32+8
    ",
    );
    assert_eq!(told, ["Read 16+8 ? 20@1 20@1 30@0 NO_QUEUE_TIME"]);
    assert_eq!(drawn.matching.counts().under_way, 1);
    assert_eq!(drawn.matching.open_count(), 0);
    assert_eq!(drawn.matching.take_lost(), []);
}

#[test]
fn what_is_open_when_events_are_lost_is_lost_from_when_it_was_queued() {
    let mut drawn = Drawn::settled(1);
    let told = drawn.events(
        "
        10 0 a Q R 8+8
        20 0 a I R 8+8
        lost 30 40
        35 0 idle C R 8+8
        36 0 b Q W 16+8
        50 0 b I W 16+8
        51 0 c Q R 24+8
        52 0 c I R 24+8
        60 0 idle C W 16+8
        61 0 idle C R 24+8
    ",
    );
    let unsure = "Write 16+8 ? 50@0 50@0 60@0 NO_QUEUE_TIME";
    assert_eq!(told, [unsure, "Read 24+8 c 51@0 52@0 61@0"]);
    assert_eq!(drawn.matching.take_lost(), [lost(10, 40)]);
    assert_eq!(drawn.matching.counts().under_way, 0);
}

#[test]
fn a_request_of_which_a_bio_is_missing_is_not_told() {
    let mut drawn = Drawn::settled(1);
    let told = drawn.events(
        "
        lost 5 6
        10 0 a Q W 8+8
        11 0 a Q W 24+8
        20 0 a I W 8+24
        30 0 idle C W 8+24
    ",
    );
    assert_eq!(told, [] as [&str; 0]);
    assert_eq!(drawn.matching.take_lost(), [lost(5, 6), lost(10, 30)]);
    assert_eq!(drawn.matching.open_count(), 0);
}

#[test]
fn a_loss_that_is_told_before_its_time_costs_nothing_that_was_over() {
    let mut drawn = Drawn::settled(1);
    let told = drawn.events(
        "
        lost 30 40
        10 0 a Q R 8+8
        20 0 a I R 8+8
        25 0 b Q R 16+8
        29 0 idle C R 8+8
        35 0 b I R 16+8
        50 0 idle C R 16+8
    ",
    );
    assert_eq!(told, ["Read 8+8 a 10@0 20@0 29@0"]);
    assert_eq!(drawn.matching.take_lost(), [lost(25, 40)]);
}

#[test]
fn settled_is_before_what_is_open_and_never_beyond_the_pass() {
    let mut drawn = Drawn::new();
    drawn.events(
        "
        10 0 a Q R 8+8
        11 0 b Q R 16+8
        20 0 a I R 8+8
    ",
    );
    assert_eq!(drawn.matching.settled(), GuestTicks(10));
    drawn.events("30 0 idle C R 8+8");
    assert_eq!(drawn.matching.settled(), GuestTicks(11));
    drawn.events("40 0 b I R 16+8");
    assert_eq!(drawn.matching.settled(), GuestTicks(11));
    drawn.events("50 0 idle C R 16+8");
    drawn.pass(60);
    assert_eq!(drawn.matching.settled(), GuestTicks(60));
}

#[test]
fn what_is_faster_than_asked_for_is_counted() {
    let mut drawn = Drawn::with(Limits { slower_than_ticks: 20, ..Limits::default() });
    let told = drawn.events(
        "
        10 0 a Q R 8+8
        11 0 a Q W 16+8
        12 0 a I R 8+8
        13 0 a I W 16+8
        29 0 idle C R 8+8
        31 0 idle C W 16+8
        40 0 a Q R 8+8
        41 0 a I R 8+8
        42 0 idle C R 8+8
    ",
    );
    assert_eq!(told, ["Write 16+8 a 11@0 13@0 31@0"]);
    let others = ObservedOthers {
        device: 0,
        operation: BlockOperation::Read,
        is_sync: true,
        count: 2,
        bytes: 8192,
        total_ticks: 21,
    };
    assert_eq!(drawn.matching.others(), [others]);
}

#[test]
fn beyond_the_limit_the_oldest_is_lost() {
    let mut drawn = Drawn::with(Limits { open_max: 2, ..Limits::default() });
    let told = drawn.events(
        "
        10 0 a Q R 8+8
        11 0 a I R 8+8
        12 0 b Q R 16+8
        13 0 c Q R 24+8
        20 0 idle C R 8+8
        21 0 b I R 16+8
        22 0 idle C R 16+8
    ",
    );
    assert_eq!(told, ["Read 16+8 b 12@0 21@0 22@0"]);
    assert_eq!(drawn.matching.take_lost(), [lost(10, 13)]);
}

/// What is kept of one kind of event, each some thousand times.
#[test]
fn what_a_guest_repeats_is_kept_no_more_often_than_its_limit() {
    let mut drawn = Drawn::with(Limits { open_max: 64, ..Limits::default() });
    for at in 0..1100_u64 {
        let (vcpu, sector) = (at, 8 * at);
        let ambiguous = format!("{at} 0 a Q WS {sector}+8\n{at} 0 a I WS {sector}+8");
        drawn.events(&format!(
            "{at} {vcpu} a I FF 0+0
             {at} {vcpu} a I FF 0+0
             {at} {vcpu} a C FF 0+0
             {at} 0 a C R {sector}+8
             {ambiguous}
             {ambiguous}
             {at} 0 a C WS {sector}+8
             {at} 0 a C WS {sector}+8
             {at} 0 a Q FWS {sector}+0
             {at} 0 a Q R {sector}+8"
        ));
        assert_eq!(drawn.matching.beyond_limits(), [] as [&str; 0], "at {at}");
        assert!(drawn.matching.open_count() <= 64, "at {at}");
    }
    for at in 0..1100 {
        let (past, future) = (2 * at, 10_000 + 2 * at);
        drawn.matching.lose(lost(past, past));
        drawn.matching.lose(lost(future, future));
        assert_eq!(drawn.matching.beyond_limits(), [] as [&str; 0], "at {at}");
    }
}

#[test]
fn an_event_of_a_time_that_is_over_costs_what_it_is_about() {
    let mut drawn = Drawn::settled(1);
    let told = drawn.events(
        "
        10 0 a Q R 8+8
        11 0 b Q R 16+8
        12 0 a I R 8+8
        13 0 b I R 16+8
        9 1 idle C R 8+8
        30 0 idle C R 16+8
    ",
    );
    assert_eq!(told, ["Read 16+8 b 11@0 13@0 30@0"]);
    assert_eq!(drawn.matching.counts().late, 1);
    assert_eq!(drawn.matching.open_count(), 0);
    assert_eq!(drawn.lost_count(), 2);
}

#[test]
fn an_effect_that_seems_to_be_before_its_cause_is_lost() {
    let mut drawn = Drawn::settled(1);
    let told = drawn.events(
        "
        10 0 a Q R 8+8
        11 1 idle C R 8+8
        12 0 a I R 8+8
        20 0 b Q R 8+8
        21 0 b I R 8+8
        22 1 idle C R 8+8
    ",
    );
    assert_eq!(told, ["Read 8+8 b 20@0 21@0 22@1"]);
    assert_eq!(drawn.matching.take_lost().len(), 1);
    assert_eq!(drawn.matching.open_count(), 0);
}

#[test]
fn what_thousands_have_overtaken_for_a_minute_is_lost() {
    let mut drawn = Drawn::with(Limits { stale_ticks: 1000, ..Limits::default() });
    drawn.events("10 0 a Q R 8+8");
    let each = |at: u64| format!("{at} 0 b Q R 16+8\n{at} 0 b I R 16+8\n{at} 0 b C R 16+8");
    let most: String = (20..20 + OVERTAKEN_MIN - 1).map(|at| each(at) + "\n").collect();
    drawn.events(&most);
    assert_eq!(drawn.matching.settled(), GuestTicks(10));
    drawn.events(&each(20 + OVERTAKEN_MIN));
    assert_eq!(drawn.matching.settled(), GuestTicks(20 + OVERTAKEN_MIN));
    assert_eq!(drawn.matching.take_lost().len(), 1);
}

#[test]
fn what_is_open_at_the_end_is_told_by_disk_and_operation_with_the_oldest() {
    let mut drawn = Drawn::settled(1);
    let told = drawn.events(
        "
        10 0 dd Q WS 8+8
        11 0 other Q WS 40+8
        12 0 dd I WS 8+8
        13 1 back Q W 80+16
        14 1 cat Q R 500+8
        15 1 cat I R 500+8
        16 0 jbd2 Q FWS 0+0
        17 0 jbd2 Q FWFS 96+8
        18 0 cat@1 Q R 8+8
        25 1 idle C R 500+8
        40 0 late Q R 200+8
    ",
    );
    assert_eq!(told, ["Read 500+8 cat 14@1 15@1 25@1"]);
    let under_way = drawn.under_way(39);
    assert_eq!(
        under_way,
        [
            "Write sync 3: 8+8 dd 10 12",
            "Write 1: 80+16 back 13 NotYet",
            "Flush sync 1: 0+0 jbd2 16 Unknown",
            "Read sync 1: 8+8 cat 18 NotYet",
        ]
    );
    assert_eq!(drawn.under_way(40).len(), 5, "{:?}", drawn.under_way(40));
    // What is lost is not told once more.
    drawn.matching.lose(lost(40, 50));
    assert_eq!(drawn.under_way(60), Vec::<String>::new());
}

#[test]
fn a_write_that_is_under_way_waits_for_its_flush_or_is_issued_in_part() {
    let mut drawn = Drawn::settled(1);
    drawn.events(
        "
        10 0 jbd2 Q FWFS 8+8
        11 0 dd Q R 64+16
        12 0 dd I R 64+16
        13 0 idle C R 64+8
    ",
    );
    let under_way = drawn.under_way(20);
    assert_eq!(under_way, ["Write sync 1: 8+8 jbd2 10 Unknown", "Read sync 1: 64+16 dd 11 12"]);
}

#[test]
fn disks_beyond_those_that_can_be_told_are_none() {
    let mut drawn = Drawn::settled(1);
    assert_eq!(drawn.events("10 0 a@32 Q R 8+8\n11 0 a@65535 Q R 8+8"), [] as [&str; 0]);
    assert_eq!(drawn.matching.open_count(), 0);
}
