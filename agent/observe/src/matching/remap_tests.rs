//! What is sent on from one device to another, as `fixtures/dm-6.1.trace` has it.

use super::drawing::{Drawn, told};

#[test]
fn a_remapped_bio_is_queued_with_or_without_a_word() {
    let told = told(
        "
        10 0 partition M R 8+8
        11 0 partition Q R 8+8
        12 0 md M R 800+8
        20 0 md I R 800+8
        21 0 md I R 8+8
        30 0 idle C R 800+8
        31 0 idle C R 8+8
    ",
    );
    assert_eq!(told, ["Read 800+8 md 12@0 20@0 30@0", "Read 8+8 partition 10@0 21@0 31@0"]);
}

#[test]
fn who_queues_a_bio_is_who_sent_it_on_whatever_it_is_called() {
    let told = told(
        "
        10 0 bash#7 M R 8+8
        11 0 cat#7 Q R 8+8
        20 0 cat#7 I R 8+8
        30 0 idle C R 8+8
    ",
    );
    assert_eq!(told, ["Read 8+8 cat 10@0 20@0 30@0"]);
}

#[test]
fn what_a_control_group_holds_back_is_of_who_asked_for_it() {
    let told = told(
        "
        10 0 dd M R 8+8
        900 1 kworker Q R 8+8
        901 1 kworker I R 8+8
        930 1 idle C R 8+8
    ",
    );
    assert_eq!(told, ["Read 8+8 dd 10@0 901@1 930@1"]);
}

#[test]
fn a_logical_volume_on_a_partition_leaves_nothing_open() {
    let told = told(
        "
        10 0 dd M R 2048+8
        11 0 dd M2048 R 45056+8
        12 0 dd Q R 45056+8
        20 0 dd I R 45056+8
        30 0 idle C R 45056+8
    ",
    );
    assert_eq!(told, ["Read 45056+8 dd 10@0 20@0 30@0"]);
}

#[test]
fn a_flush_of_a_logical_volume_is_one_and_ends_where_that_begins() {
    let told = told(
        "
        10 0 dd M FWS 2048+0
        11 0 dd Q FWS 2048+0
        12 0 jbd2 Q FWS 0+0
        20 0 kworker I FF 0+0
        30 0 idle C FF 0+0
        31 0 idle C WS 2048+0
        32 0 idle C WS 0+0
        40 0 dd M FWS 2048+0
        41 0 dd Q FWS 2048+0
        50 0 kworker I FF 0+0
        60 0 idle C FF 0+0
        61 0 idle C WS 2048+0
    ",
    );
    let expected = [
        "Flush 0+0 dd 10@0 20@0 31@0 PREFLUSH",
        "Flush 0+0 jbd2 12@0 20@0 32@0 PREFLUSH",
        "Flush 0+0 dd 40@0 50@0 61@0 PREFLUSH",
    ];
    assert_eq!(told, expected);
}

#[test]
fn what_was_sent_on_and_never_came_is_not_taken_for_what_another_thread_sends_on() {
    let mut drawn = Drawn::settled(1);
    let told = drawn.events(
        "
        10 0 dd M R 8+8
        12 0 cat M8 R 808+8
        13 0 cat Q R 808+8
        20 0 cat I R 808+8
        30 0 idle C R 808+8
    ",
    );
    assert_eq!(told, ["Read 808+8 cat 12@0 20@0 30@0"]);
    assert_eq!(drawn.matching.open_count(), 1);
}

#[test]
fn of_two_that_were_sent_on_alike_each_thread_queues_its_own() {
    let told = told(
        "
        10 0 dd M R 8+8
        11 1 cat M R 8+8
        12 1 cat Q R 8+8
        13 0 dd Q R 8+8
        20 0 cat I R 8+8
        21 0 idle C R 8+8
        30 0 dd I R 8+8
        31 0 idle C R 8+8
    ",
    );
    let of_cat = "Read 8+8 cat 11@1 20@0 21@0 AMBIGUOUS";
    assert_eq!(told, [of_cat, "Read 8+8 dd 10@0 30@0 31@0 AMBIGUOUS"]);
}

#[test]
fn what_was_sent_on_and_never_came_is_not_what_is_queued_otherwise() {
    for never_came in ["M R 8+16", "M W 8+8", "M R 0+8"] {
        let mut drawn = Drawn::settled(1);
        let told = drawn.events(&format!(
            "10 0 dd {never_came}
            12 0 cat Q R 8+8
            20 0 cat I R 8+8
            30 0 idle C R 8+8"
        ));
        assert!(told[0].starts_with("Read 8+8 cat 12@0 20@0 30@0"), "{never_came}: {told:?}");
        assert_eq!(drawn.matching.open_count(), 1, "{never_came}");
    }
}

#[test]
fn a_flush_of_one_volume_is_not_that_of_another() {
    let told = told(
        "
        10 0 dd M FWS 2048+0
        11 0 dd M FWS 4096+0
        12 0 dd Q FWS 4096+0
        13 0 dd Q FWS 2048+0
        20 0 irq I FF 0+0
        30 0 idle C FF 0+0
        31 0 idle C WS 4096+0
        32 0 idle C WS 2048+0
    ",
    );
    let first = "Flush 0+0 dd 11@0 20@0 31@0 PREFLUSH";
    assert_eq!(told, [first, "Flush 0+0 dd 10@0 20@0 32@0 PREFLUSH"]);
}

#[test]
fn what_a_control_group_held_back_may_be_refused_to_whom_it_lets_go() {
    let told = told(
        "
        10 0 fio M R 8+8
        900 1 kworker Q R 8+8
        901 1 kworker X R 8+8
        910 0 fio M R 8+8
        911 0 fio Q R 8+8
        920 0 fio I R 8+8
        930 0 idle C R 8+8
    ",
    );
    assert_eq!(told, ["Read 8+8 fio 910@0 920@0 930@0"]);
}
