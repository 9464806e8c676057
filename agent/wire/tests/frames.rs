//! The bytes of every frame, one by one: whoever changes one of them changes the protocol, and
//! raises `PROTOCOL_VERSION`.

use std::path::PathBuf;
use vslice_wire::{
    BlockOperation, ClockKind, CompletionVcpu, DecodeError, Done, DoneReason, Dropped, EncodeError,
    Frame, GuestDisk, GuestFrame, GuestTicks, HOG_GAPS_MAX, HOGS_MAX, Hello, HogCount, HogGap,
    HogGaps, HostFrame, HostTime, NAME_BYTES_MAX, NOTICE_BYTES_MAX, Notice, OBSERVED_DEVICES_MAX,
    OBSERVED_OTHERS_MAX, OBSERVED_TASKS_MAX, OBSERVED_UNDER_WAY_MAX, Observed, ObservedBlock,
    ObservedCost, ObservedDevice, ObservedEnd, ObservedFlags, ObservedHidden, ObservedIssue,
    ObservedOthers, ObservedRequest, ObservedTask, ObservedUnderWay, PLAN_BYTES_MAX,
    PROTOCOL_VERSION, Ping, Pong, Ready, Request, Severity, TARGET_BYTES_MAX,
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
    is_seed(&bytes);
}

/// Each frame is a seed for whoever fuzzes the decoders: `VSLICE_BLESS=1` writes those of frames that change.
fn is_seed(bytes: &[u8]) {
    let test = std::thread::current().name().expect("a test's name").to_owned();
    let digest = bytes.iter().fold(0_u32, |sum, byte| sum.wrapping_mul(31) ^ u32::from(*byte));
    let name = format!("{test}-{digest:08x}");
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/seeds").join(name);
    if std::env::var_os("VSLICE_BLESS").is_some() {
        std::fs::write(&path, bytes).expect("the directory of the seeds");
    }
    let seed = std::fs::read(&path).unwrap_or_default();
    assert_eq!(seed, bytes, "{} is not this frame: VSLICE_BLESS=1 writes it", path.display());
}

#[test]
fn the_version_is_that_of_these_bytes() {
    assert_eq!(PROTOCOL_VERSION, 6);
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
fn observed_devices_and_tasks() {
    let device = ObservedDevice {
        number: 0x0102,
        name: "vda".to_owned(),
        major: 254,
        minor: 16,
        size_bytes: 1 << 33,
        serial: "s1".to_owned(),
        address: "0:5".to_owned(),
        io_scheduler: "none".to_owned(),
        hardware_queues: 4,
        completion_vcpu: CompletionVcpu::InterruptedOrQueued,
    };
    let fields = "0201 | 0300 766461 | fe01 10 | 8080808020 | 0200 7331 | 0300 303a35 | 0400 6e6f6e65 | 0400 | 02";
    check(
        GuestFrame::Observed(Observed::Devices(vec![device])),
        &format!("24000000 | 0b | 00 | 01 | {fields}"),
    );
    let (name, title) = ("postgres".to_owned(), "p: w".to_owned());
    check(
        GuestFrame::Observed(Observed::Tasks(vec![ObservedTask {
            number: 300,
            pid: 7,
            name,
            title,
        }])),
        "16000000 | 0b | 01 | 01 | ac02 07 | 0800 706f737467726573 | 0400 703a2077",
    );
}

#[test]
fn observed_requests() {
    let first = ObservedRequest {
        device: 1,
        operation: BlockOperation::Write,
        flags: ObservedFlags::SYNC.with(ObservedFlags::FUA),
        sector: 100,
        bytes: 4096,
        queued: GuestTicks(1000),
        issued: GuestTicks(1010),
        completed: GuestTicks(1310),
        vcpu_queued: 0,
        vcpu_issued: 1,
        vcpu_completed: 2,
        task: 3,
        result: -5,
    };
    let (queued, issued, completed) = (GuestTicks(990), GuestTicks(991), GuestTicks(1391));
    let second = ObservedRequest { sector: 108, queued, issued, completed, ..first };
    let block = ObservedBlock { settled: GuestTicks(0x0102), requests: vec![first, second] };
    // device, operation, flags, three vCPUs, task, bytes, result: one run of two each
    let runs = "0102 0102 0502 | 0002 0102 0202 | 0302 802002 0902";
    check(
        GuestFrame::Observed(Observed::Requests(block)),
        &format!(
            "2a000000 | 0b | 02 | 0201000000000000 | 02 | {runs} | c801 00 | d00f 13 | 14 02 | d804 a006"
        ),
    );
}

#[test]
fn observed_others_losses_and_cost() {
    let (device, operation) = (2, BlockOperation::Flush);
    let (is_sync, count, bytes, total_ticks) = (true, 300, 0, 5);
    let others = ObservedOthers { device, operation, is_sync, count, bytes, total_ticks };
    check(
        GuestFrame::Observed(Observed::Others(vec![others])),
        "0b000000 | 0b | 03 | 01 | 0200 02 01 | ac02 00 05",
    );
    let lost = Dropped { count: 1, first: GuestTicks(2), last: GuestTicks(3) };
    check(
        GuestFrame::Observed(Observed::Lost(lost)),
        "1a000000 | 0b | 04 | 0100000000000000 | 0200000000000000 | 0300000000000000",
    );
    let cost = ObservedCost { cpu_ns: 300, events_count: 4, lost_count: 5, clock_read_ns: 6 };
    check(GuestFrame::Observed(Observed::Cost(cost)), "07000000 | 0b | 05 | ac02 04 05 06");
}

fn stalled_write() -> ObservedUnderWay {
    ObservedUnderWay {
        device: 2,
        operation: BlockOperation::Write,
        is_sync: true,
        count: 3,
        sector: 300,
        bytes: 4096,
        task: 5,
        queued: GuestTicks(6),
        issue: ObservedIssue::At(GuestTicks(7)),
    }
}

/// Without rows of what was under way.
fn end_of(at: GuestTicks, counts: [u64; 3], hidden: [u64; 4]) -> ObservedEnd {
    let [earlier_count, passthrough_count, late_count] = counts;
    let [queued_count, issued_count, completed_count, others_count] = hidden;
    let is_exact = true;
    let hidden =
        ObservedHidden { queued_count, issued_count, completed_count, others_count, is_exact };
    let under_way = Vec::new();
    ObservedEnd { at, earlier_count, passthrough_count, late_count, hidden, under_way }
}

#[test]
fn an_end_with_too_many_rows_is_not_encoded() {
    let (max_count, count) = (OBSERVED_UNDER_WAY_MAX, OBSERVED_UNDER_WAY_MAX + 1);
    let under_way = vec![stalled_write(); count];
    let end = ObservedEnd { under_way, ..end_of(GuestTicks(0), [0; 3], [0; 4]) };
    let refused = GuestFrame::Observed(Observed::End(end)).encode(&mut Vec::new());
    assert_eq!(refused, Err(EncodeError::TooMany { what: UNDER_WAY, count, max_count }));
}

#[test]
fn the_end_of_observing() {
    let waiting = ObservedUnderWay { issue: ObservedIssue::NotYet, ..stalled_write() };
    let (operation, issue) = (BlockOperation::Flush, ObservedIssue::Unknown);
    let flush = ObservedUnderWay { operation, issue, sector: 0, bytes: 0, ..stalled_write() };
    let under_way = vec![stalled_write(), waiting, flush];
    let end = ObservedEnd { under_way, ..end_of(GuestTicks(9), [300, 1, 2], [3, 4, 500, 6]) };
    let row = "0200 01 01 | 03 ac02 8020 05 | 0600000000000000";
    let flush = "0200 02 01 | 03 00 00 05 | 0600000000000000";
    check(
        GuestFrame::Observed(Observed::End(end)),
        &format!(
            "54000000 | 0b | 06 | 0900000000000000 | ac02 01 02 | 03 04 f403 06 01 | 03 | {row} 01 0700000000000000 | {row} 00 | {flush} 02"
        ),
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
    let device = || ObservedDevice {
        number: 0,
        name: "x".repeat(NAME_BYTES_MAX),
        major: 0,
        minor: 0,
        size_bytes: 0,
        serial: "x".repeat(NAME_BYTES_MAX),
        address: "x".repeat(NAME_BYTES_MAX),
        io_scheduler: "x".repeat(NAME_BYTES_MAX),
        hardware_queues: 0,
        completion_vcpu: CompletionVcpu::Unknown,
    };
    let devices = vec![device(); OBSERVED_DEVICES_MAX + 1];
    refused(&GuestFrame::Observed(Observed::Devices(devices)), "devices", OBSERVED_DEVICES_MAX);
    let long_serial = ObservedDevice { serial: long(NAME_BYTES_MAX), ..device() };
    let long_serial = GuestFrame::Observed(Observed::Devices(vec![long_serial]));
    refused(&long_serial, "bytes of serial number", NAME_BYTES_MAX);
    let task = |title| ObservedTask { number: 0, pid: 0, name: String::new(), title };
    let tasks = vec![task(String::new()); OBSERVED_TASKS_MAX + 1];
    refused(&GuestFrame::Observed(Observed::Tasks(tasks)), "tasks", OBSERVED_TASKS_MAX);
    let long_title = GuestFrame::Observed(Observed::Tasks(vec![task(long(NAME_BYTES_MAX))]));
    refused(&long_title, "bytes of title", NAME_BYTES_MAX);
    let (operation, count, bytes, total_ticks) = (BlockOperation::Read, 0, 0, 0);
    let others = ObservedOthers { device: 0, operation, is_sync: true, count, bytes, total_ticks };
    let others = vec![others; OBSERVED_OTHERS_MAX + 1];
    refused(&GuestFrame::Observed(Observed::Others(others)), "counts", OBSERVED_OTHERS_MAX);
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
    let name = || "x".repeat(NAME_BYTES_MAX);
    let device = ObservedDevice {
        number: u16::MAX,
        name: name(),
        major: u32::MAX,
        minor: u32::MAX,
        size_bytes: u64::MAX,
        serial: name(),
        address: name(),
        io_scheduler: name(),
        hardware_queues: u16::MAX,
        completion_vcpu: CompletionVcpu::Queued,
    };
    let devices = Observed::Devices(vec![device; OBSERVED_DEVICES_MAX]);
    assert!(encoded(&GuestFrame::Observed(devices)).len() > 30_000);
    let task = ObservedTask { number: u32::MAX, pid: u32::MAX, name: name(), title: name() };
    let tasks = Observed::Tasks(vec![task; OBSERVED_TASKS_MAX]);
    assert!(encoded(&GuestFrame::Observed(tasks)).len() > 30_000);
    let (operation, count, bytes, total_ticks) =
        (BlockOperation::Other, u64::MAX, u64::MAX, u64::MAX);
    let (device, is_sync) = (u16::MAX, false);
    let of = ObservedOthers { device, operation, is_sync, count, bytes, total_ticks };
    let others = Observed::Others(vec![of; OBSERVED_OTHERS_MAX]);
    assert!(encoded(&GuestFrame::Observed(others)).len() > 30_000);
    let (last, count) = (GuestTicks(u64::MAX), u64::MAX);
    let row = ObservedUnderWay {
        count,
        sector: u64::MAX,
        bytes: u32::MAX,
        task: u32::MAX,
        issue: ObservedIssue::At(last),
        ..stalled_write()
    };
    let under_way = vec![row; OBSERVED_UNDER_WAY_MAX];
    let end = ObservedEnd { under_way, ..end_of(last, [count; 3], [count; 4]) };
    assert!(encoded(&GuestFrame::Observed(Observed::End(end))).len() > 51 * OBSERVED_UNDER_WAY_MAX);
}

#[test]
fn a_long_notice_is_cut_at_a_character() {
    let notice = Notice::new(Severity::Error, format!("x{}", "\u{20ac}".repeat(2000)));
    assert_eq!(notice.text.len(), 4096);
    assert!(notice.text.ends_with('\u{20ac}'));
    let notice = Notice::new(Severity::Error, "\u{20ac}".repeat(2000));
    assert_eq!(notice.text.len(), 4095);
}

const UNDER_WAY: &str = "rows of what is under way";

/// An end of observing with these rows.
fn end_with(rows: &[u8]) -> Vec<u8> {
    [&[6][..], &[0; 16], rows].concat()
}

#[test]
fn bytes_that_are_no_frame_are_refused() {
    use DecodeError::{NotUtf8, OutOfRange, TooMany, TrailingBytes, Truncated, UnknownCase};
    let unknown = |kind| DecodeError::UnknownKind { kind };
    for (kind, payload, error) in [
        (0x00, &[][..], unknown(0x00)),
        (0x0c, &[], unknown(0x0c)),
        (0x0b, &[7], UnknownCase { what: "observation", value: 7 }),
        (0x0b, &[0, 33], TooMany { what: "devices", count: 33, max_count: 32 }),
        (0x0b, &[1, 65], TooMany { what: "tasks", count: 65, max_count: 64 }),
        (0x0b, &[3, 0x81, 8], TooMany { what: "counts", count: 1025, max_count: 1024 }),
        (0x0b, &[3, 1, 0, 0, 5], OutOfRange { what: "operation", value: 5 }),
        (0x0b, &end_with(&[0x81, 8]), TooMany { what: UNDER_WAY, count: 1025, max_count: 1024 }),
        (
            0x0b,
            &end_with(&[1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]),
            UnknownCase { what: "issue", value: 3 },
        ),
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
