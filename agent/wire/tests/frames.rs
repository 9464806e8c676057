//! The bytes of every frame, one by one: whoever changes one of them changes the protocol, and
//! raises `PROTOCOL_VERSION`.

use vslice_wire::{
    ClockKind, DecodeError, Done, DoneReason, Dropped, EncodeError, Frame, GuestDisk, GuestFrame,
    GuestTicks, HOG_GAPS_MAX, HOGS_MAX, Hello, HogCount, HogGap, HogGaps, HostFrame, HostTime,
    NAME_BYTES_MAX, NOTICE_BYTES_MAX, Notice, PLAN_BYTES_MAX, PROTOCOL_VERSION, Ping, Pong, Ready,
    Request, Severity, TARGET_BYTES_MAX,
};

fn encoded(frame: &impl Frame) -> Vec<u8> {
    let mut out = Vec::new();
    frame.encode(&mut out).expect("within the bounds");
    out
}

/// `hex` is the frame, split by `|` where its fields end for the eye only.
fn check<F: Frame + PartialEq + std::fmt::Debug>(frame: F, hex: &str) {
    let digits: Vec<u32> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    let bytes_of = |pair: &[u32]| u8::try_from(pair[0] << 4 | pair[1]).expect("two hex digits");
    let expected: Vec<u8> = digits.chunks(2).map(bytes_of).collect();
    let bytes = encoded(&frame);
    assert_eq!(bytes, expected, "{frame:?} is {bytes:02x?}");
    assert_eq!(F::decode_body(bytes[4], &bytes[5..]), Ok(frame));
}

#[test]
fn the_version_is_that_of_these_bytes() {
    assert_eq!(PROTOCOL_VERSION, 5);
}

#[test]
fn hello() {
    let hello = Hello {
        protocol_version: 0x0102,
        agent_version: "0.1".to_owned(),
        kernel_release: "6.1.0".to_owned(),
        vcpu_count: 5,
        tsc_invariant: true,
    };
    check(
        GuestFrame::Hello(hello),
        "12000000 | 01 | 0201 | 0300 302e31 | 0500 362e312e30 | 0500 | 01",
    );
}

#[test]
fn ready() {
    let ready = |clock, disk| {
        let target = "/dev/vda".to_owned();
        let clock_source = "tsc".to_owned();
        GuestFrame::Ready(Ready { clock, target, target_bytes: 1 << 33, clock_source, disk })
    };
    let target = "0800 2f6465762f766461 | 0000000002000000 | 0300 747363";
    check(ready(ClockKind::Tsc, None), &format!("1a000000 | 02 | 00 | {target} | 00"));
    let mut disk = GuestDisk {
        size_bytes: 1 << 34,
        target_offset_bytes: None,
        io_scheduler: "none".to_owned(),
    };
    let known = "0000000004000000 | 0400 6e6f6e65";
    check(
        ready(ClockKind::MonotonicRaw, Some(disk.clone())),
        &format!("28000000 | 02 | 01 | {target} | 01 | {known}"),
    );
    disk.target_offset_bytes = Some(1 << 20);
    check(
        ready(ClockKind::MonotonicRaw, Some(disk)),
        &format!("30000000 | 02 | 01 | {target} | 02 | {known} | 0000100000000000"),
    );
}

#[test]
fn pong() {
    check(
        GuestFrame::Pong(Pong {
            id: 0x0102_0304_0506_0708,
            vcpu: 0x0a0b,
            received: GuestTicks(0x1112_1314_1516_1718),
            sent: GuestTicks(0x2122_2324_2526_2728),
        }),
        "1b000000 | 03 | 0807060504030201 | 0b0a | 1817161514131211 | 2827262524232221",
    );
}

#[test]
fn requests_of_one_in_flight() {
    let request = |index, submitted, completed| Request {
        index,
        submitted: GuestTicks(submitted),
        completed: GuestTicks(completed),
        vcpu_submitted: 2,
        vcpu_completed: 2,
        result: 4096,
    };
    check(
        GuestFrame::Requests(vec![
            request(7, 1000, 751_000),
            request(8, 753_000, 1_553_000),
            request(9, 1_555_500, 2_305_500),
        ]),
        // index: a step of 7 once, then of 0 twice; vCPUs and result: one run of three
        "1d000000 | 04 | 03 | 00 | 0e01 0002 | 0203 | 0203 | 804003 | d00f a01f 8827 \
         | b0e32d 80ea30 b0e32d",
    );
}

#[test]
fn requests_of_many_in_flight() {
    let first = Request {
        index: 1,
        submitted: GuestTicks(1000),
        completed: GuestTicks(901_000),
        vcpu_submitted: 0,
        vcpu_completed: 1,
        result: -5,
    };
    let second = Request {
        index: 0,
        submitted: GuestTicks(900),
        completed: GuestTicks(902_000),
        vcpu_submitted: 0,
        vcpu_completed: 300,
        result: 512,
    };
    check(
        GuestFrame::Requests(vec![first, second]),
        "1d000000 | 04 | 02 | 01 | 0201 0301 | 0002 | 0101 ac0201 | 0901 800801 | d00f c701 \
         | a0f736 ecff36",
    );
}

#[test]
fn no_requests() {
    check(GuestFrame::Requests(Vec::new()), "03000000 | 04 | 00 | 00");
}

#[test]
fn dropped() {
    check(
        GuestFrame::Dropped(Dropped {
            count: 0x0102,
            first: GuestTicks(0x0304),
            last: GuestTicks(u64::MAX),
        }),
        "19000000 | 05 | 0201000000000000 | 0403000000000000 | ffffffffffffffff",
    );
}

#[test]
fn hogs() {
    check(
        GuestFrame::Hogs(vec![
            HogCount { vcpu: 0, count: 300 },
            HogCount { vcpu: 0x0102, count: 1 },
        ]),
        "09000000 | 06 | 02 | 0000 ac02 | 0201 01",
    );
}

#[test]
fn host_time() {
    let told = HostTime {
        vcpu: 0x0102,
        before: GuestTicks(3),
        realtime_ns: 0x0102_0304_0506_0708,
        after: GuestTicks(4),
    };
    check(
        GuestFrame::HostTime(told),
        "1b000000 | 0a | 0201 | 0300000000000000 | 0807060504030201 | 0400000000000000",
    );
}

#[test]
fn hog_gaps() {
    let gap = |start, end| HogGap { start: GuestTicks(start), end: GuestTicks(end) };
    let gaps = HogGaps { vcpu: 0x0102, gaps: vec![gap(300, 301), gap(311, 611)] };
    check(GuestFrame::HogGaps(gaps), "0a000000 | 09 | 0201 | 02 | ac02 01 | 0a ac02");
    // What a clock that went back would leave.
    let back = HogGaps { vcpu: 0, gaps: vec![gap(9, 5), gap(3, 3)] };
    let wrapped = "fcffffffffffffffff01";
    let wrapped_start = "feffffffffffffffff01";
    check(
        GuestFrame::HogGaps(back),
        &format!("1a000000 | 09 | 0000 | 02 | 09 {wrapped} | {wrapped_start} 00"),
    );
}

#[test]
fn notice() {
    check(
        GuestFrame::Notice(Notice::new(Severity::Warning, "hi")),
        "06000000 | 07 | 00 | 0200 6869",
    );
    check(GuestFrame::Notice(Notice::new(Severity::Error, "")), "04000000 | 07 | 01 | 0000");
}

#[test]
fn done() {
    for (reason, number) in
        [(DoneReason::Completed, "00"), (DoneReason::Stopped, "01"), (DoneReason::Failed, "02")]
    {
        check(
            GuestFrame::Done(Done { reason, requests: 0x0102, dropped: 3 }),
            &format!("12000000 | 08 | {number} | 0201000000000000 | 0300000000000000"),
        );
    }
}

#[test]
fn plan() {
    check(HostFrame::Plan(b"{}".to_vec()), "03000000 | 81 | 7b7d");
}

#[test]
fn ping() {
    let id = 0x0102_0304_0506_0708;
    check(HostFrame::Ping(Ping { id, vcpu: None }), "0c000000 | 82 | 0807060504030201 | 00 | 0000");
    check(
        HostFrame::Ping(Ping { id, vcpu: Some(0x0102) }),
        "0c000000 | 82 | 0807060504030201 | 01 | 0201",
    );
}

#[test]
fn start_stop_bye() {
    check(HostFrame::Start, "01000000 | 83");
    check(HostFrame::Stop, "01000000 | 84");
    check(HostFrame::Bye, "01000000 | 85");
}

#[test]
fn what_is_above_a_bound_is_not_encoded() {
    let mut out = vec![0xaa];
    let mut refused = |frame: &GuestFrame, what, max_count| {
        let error = EncodeError::TooMany { what, count: max_count + 1, max_count };
        assert_eq!(frame.encode(&mut out), Err(error));
        assert_eq!(out, [0xaa], "nothing of a refused frame is appended");
    };
    let long = |max_bytes: usize| "x".repeat(max_bytes + 1);
    let hello = |agent_version, kernel_release| {
        GuestFrame::Hello(Hello {
            protocol_version: 1,
            agent_version,
            kernel_release,
            vcpu_count: 1,
            tsc_invariant: true,
        })
    };
    refused(&hello(long(NAME_BYTES_MAX), String::new()), "bytes of agent version", NAME_BYTES_MAX);
    refused(&hello(String::new(), long(NAME_BYTES_MAX)), "bytes of kernel release", NAME_BYTES_MAX);
    let ready = |target, clock_source, io_scheduler| {
        let disk = GuestDisk { size_bytes: 0, target_offset_bytes: None, io_scheduler };
        let (clock, disk) = (ClockKind::Tsc, Some(disk));
        GuestFrame::Ready(Ready { clock, target, target_bytes: 0, clock_source, disk })
    };
    let long_target = ready(long(TARGET_BYTES_MAX), String::new(), String::new());
    refused(&long_target, "bytes of target", TARGET_BYTES_MAX);
    let long_clock_source = ready(String::new(), long(NAME_BYTES_MAX), String::new());
    refused(&long_clock_source, "bytes of clock source", NAME_BYTES_MAX);
    let long_scheduler = ready(String::new(), String::new(), long(NAME_BYTES_MAX));
    refused(&long_scheduler, "bytes of I/O scheduler", NAME_BYTES_MAX);
    let notice = Notice { severity: Severity::Error, text: long(NOTICE_BYTES_MAX) };
    refused(&GuestFrame::Notice(notice), "bytes of notice", NOTICE_BYTES_MAX);
    let hogs = vec![HogCount { vcpu: 0, count: 0 }; HOGS_MAX + 1];
    refused(&GuestFrame::Hogs(hogs), "hogs", HOGS_MAX);
    let gap = HogGap { start: GuestTicks(0), end: GuestTicks(0) };
    let gaps = HogGaps { vcpu: 0, gaps: vec![gap; HOG_GAPS_MAX + 1] };
    refused(&GuestFrame::HogGaps(gaps), "hog gaps", HOG_GAPS_MAX);
    let count = PLAN_BYTES_MAX + 1;
    assert_eq!(
        HostFrame::Plan(vec![0; count]).encode(&mut Vec::new()),
        Err(EncodeError::TooMany { what: "bytes of plan", count, max_count: PLAN_BYTES_MAX })
    );
}

#[test]
fn the_largest_frames_fit() {
    let hogs = vec![HogCount { vcpu: u16::MAX, count: u64::MAX }; HOGS_MAX];
    assert!(encoded(&GuestFrame::Hogs(hogs)).len() > 49_000);
    assert!(encoded(&HostFrame::Plan(vec![b' '; PLAN_BYTES_MAX])).len() > 40_000);
    let gap = HogGap { start: GuestTicks(u64::MAX), end: GuestTicks(u64::MAX - 1) };
    let gaps = HogGaps { vcpu: u16::MAX, gaps: vec![gap; HOG_GAPS_MAX] };
    assert!(encoded(&GuestFrame::HogGaps(gaps)).len() > 10_000);
}

#[test]
fn a_long_notice_is_cut_at_a_character() {
    let notice = Notice::new(Severity::Error, format!("x{}", "\u{20ac}".repeat(2000)));
    assert_eq!(notice.text.len(), 4096);
    assert!(notice.text.ends_with('\u{20ac}'));
    let notice = Notice::new(Severity::Error, "\u{20ac}".repeat(2000));
    assert_eq!(notice.text.len(), 4095);
}

#[test]
fn bytes_that_are_no_frame_are_refused() {
    use DecodeError::{NotUtf8, OutOfRange, TooMany, TrailingBytes, Truncated, UnknownCase};
    let unknown = |kind| DecodeError::UnknownKind { kind };
    for (kind, payload, error) in [
        (0x00, &[][..], unknown(0x00)),
        (0x0b, &[], unknown(0x0b)),
        (0x83, &[], unknown(0x83)),
        (0x01, &[1], Truncated { needed_bytes: 2, left_bytes: 1 }),
        (
            0x01,
            &[1, 0, 0, 1],
            TooMany { what: "bytes of agent version", count: 256, max_count: 255 },
        ),
        (0x01, &[1, 0, 3, 0, 65], Truncated { needed_bytes: 3, left_bytes: 1 }),
        (0x01, &[1, 0, 0, 0, 0, 0, 5, 0, 2], UnknownCase { what: "TSC property", value: 2 }),
        (0x02, &[2], UnknownCase { what: "clock", value: 2 }),
        (0x03, &[0; 27], TrailingBytes { count: 1 }),
        (0x06, &[0x81, 0x20], TooMany { what: "hogs", count: 4097, max_count: 4096 }),
        (0x07, &[2], UnknownCase { what: "severity", value: 2 }),
        (0x07, &[0, 2, 0, 65, 0xff], NotUtf8 { what: "bytes of notice", valid_bytes: 1 }),
        (0x08, &[3], UnknownCase { what: "reason", value: 3 }),
    ] {
        assert_eq!(GuestFrame::decode_body(kind, payload), Err(error), "{kind:#x} {payload:?}");
    }
    let no_vcpu_named = OutOfRange { what: "vCPU not named", value: 7 };
    for (kind, payload, error) in [
        (0x01, &[][..], unknown(0x01)),
        (0x86, &[], unknown(0x86)),
        (0x82, &[0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0], UnknownCase { what: "ping", value: 2 }),
        (0x82, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0], no_vcpu_named),
        (0x84, &[0], TrailingBytes { count: 1 }),
    ] {
        assert_eq!(HostFrame::decode_body(kind, payload), Err(error), "{kind:#x} {payload:?}");
    }
    let plan = vec![0; PLAN_BYTES_MAX + 1];
    let count = u64::try_from(plan.len()).unwrap();
    assert_eq!(
        HostFrame::decode_body(0x81, &plan),
        Err(TooMany { what: "bytes of plan", count, max_count: PLAN_BYTES_MAX })
    );
}
