use super::*;
use std::path::Path;
use vslice_trace::StreamWriter;
use vslice_trace::observation::HiddenRecord;
use vslice_wire::{CompletionVcpu, ObservedFlags, ObservedHidden, ObservedIssue, ObservedRequest};

pub(crate) fn request(queued: u64, completed: u64) -> ObservedRequest {
    ObservedRequest {
        device: 0,
        operation: BlockOperation::Read,
        flags: ObservedFlags::SYNC,
        sector: 8,
        bytes: 4096,
        queued: GuestTicks(queued),
        issued: GuestTicks(queued),
        completed: GuestTicks(completed),
        vcpu_queued: 0,
        vcpu_issued: 0,
        vcpu_completed: 0,
        task: 1,
        result: 0,
    }
}

fn block(settled: u64, requests: Vec<ObservedRequest>) -> Observed {
    Observed::Requests(ObservedBlock { settled: GuestTicks(settled), requests })
}

fn device(number: u16, name: &str) -> ObservedDevice {
    ObservedDevice {
        number,
        name: name.to_owned(),
        major: 254,
        minor: 0,
        size_bytes: 0,
        serial: String::new(),
        address: String::new(),
        io_scheduler: "none".to_owned(),
        hardware_queues: 0,
        completion_vcpu: CompletionVcpu::Interrupted,
    }
}

fn task(number: u32, name: &str, title: &str) -> ObservedTask {
    ObservedTask { number, pid: 7, name: name.to_owned(), title: title.to_owned() }
}

#[test]
fn requests_go_to_the_sink_with_the_time_up_to_which_all_are_told() {
    let mut observation = Observation::default();
    let (one, two) = (request(1, 5), request(2, 6));
    let items = observation.take(block(2, vec![one, two]), 0);
    let [one, two] = [one, two].map(ObservedItem::Request);
    assert_eq!(items, [one, two, ObservedItem::Settled(GuestTicks(2))]);
    let lost = Dropped { count: 3, first: GuestTicks(6), last: GuestTicks(9) };
    assert_eq!(observation.take(Observed::Lost(lost), 0), [ObservedItem::Lost(lost)]);
    let record = observation.record(0);
    assert_eq!((record.requests_count, record.lost_count), (2, 3));
    assert_eq!(observation.notices().count(), 0);
}

/// What is beyond the bound is a loss with its interval, and says what would help.
#[test]
fn a_guest_that_floods_fills_no_disk() {
    let mut observation = Observation::default();
    let last = STREAM_BYTES_MAX - 1;
    let items = observation.take(block(9, vec![request(10, 15), request(12, 16)]), last);
    let [one, two] = [request(10, 15), request(12, 16)].map(ObservedItem::Request);
    assert_eq!(items, [one, two, ObservedItem::Settled(GuestTicks(9))]);
    assert_eq!(observation.notices().count(), 0);
    for _ in 0..1000 {
        let more = block(30, vec![request(20, 30), request(21, 40)]);
        assert_eq!(observation.take(more, STREAM_BYTES_MAX), []);
        let lost = Dropped { count: 1, first: GuestTicks(2), last: GuestTicks(3) };
        assert_eq!(observation.take(Observed::Lost(lost), STREAM_BYTES_MAX), []);
        assert_eq!(observation.take(block(31, vec![]), STREAM_BYTES_MAX), []);
    }
    let lost = Dropped { count: 3000, first: GuestTicks(2), last: GuestTicks(40) };
    assert_eq!(observation.end()[0], ObservedItem::Lost(lost));
    let notices: Vec<String> = observation.notices().collect();
    assert!(notices[0].contains("fills the 800 MB") && notices[0].contains("--slower-than"));
    assert_eq!(observation.record(0).requests_count, 2);
}

/// Requests that share nothing, as no kernel makes them, take more room than others, and cannot be packed. Their values
/// are those of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
fn nothing_in_common(order: u64) -> ObservedRequest {
    let mut state = order.wrapping_mul(64);
    let mut any = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    let short = |value: u64| u16::from_le_bytes([value.to_le_bytes()[0], value.to_le_bytes()[1]]);
    let long = |value: u64| u32::try_from(value >> 32).unwrap();
    ObservedRequest {
        device: short(any()),
        operation: [BlockOperation::Read, BlockOperation::Other][usize::from(any() % 2 == 1)],
        flags: ObservedFlags(short(any())),
        sector: any(),
        bytes: long(any()),
        queued: GuestTicks(any()),
        issued: GuestTicks(any()),
        completed: GuestTicks(any()),
        vcpu_queued: short(any()),
        vcpu_issued: short(any()),
        vcpu_completed: short(any()),
        task: long(any()),
        result: long(any()).cast_signed(),
    }
}

/// Bytes are bounded, not requests: what a guest can fill is what the documents say, whatever it sends.
#[test]
fn what_the_stream_takes_is_bounded_whatever_the_requests_are() {
    const MAX_BYTES: u64 = 1_000_000;
    let mut observation = Observation::keeping(MAX_BYTES);
    let mut file = Vec::new();
    let mut writer = StreamWriter::new(&mut file, Path::new("observed.vsr")).unwrap();
    for round in 0..100 {
        let requests = (0..512).map(|order| nothing_in_common(round * 512 + order)).collect();
        for item in observation.take(block(round, requests), writer.written_bytes()) {
            writer.push(item).unwrap();
        }
    }
    let kept = observation.record(0).requests_count;
    let told = observation.end();
    told.iter().for_each(|item| writer.push(*item).unwrap());
    writer.finish().unwrap();
    let Some(ObservedItem::Lost(lost)) = told.first() else { panic!("{told:?}") };
    assert_eq!(kept + lost.count, 51_200);
    // Beyond the bound there is what one block of the stream holds, which is not full when the bound is met.
    let bytes = file.len() as u64;
    assert!((MAX_BYTES..MAX_BYTES + 400_000).contains(&bytes), "{bytes} bytes for {kept} requests");
}

/// A time that says what one before said, or one long ago, is not stored.
#[test]
fn a_guest_that_settles_nothing_new_fills_nothing() {
    let mut observation = Observation::default();
    let items = [1, 1, 0, 2].into_iter().flat_map(|time| observation.take(block(time, vec![]), 0));
    let times: Vec<_> = items.collect();
    assert_eq!(times, [1, 2].map(|time| ObservedItem::Settled(GuestTicks(time))));
}

fn stalled(device: u16, queued: u64) -> ObservedUnderWay {
    ObservedUnderWay {
        device,
        operation: BlockOperation::Write,
        is_sync: true,
        count: 3,
        sector: 8,
        bytes: 4096,
        task: 1,
        queued: GuestTicks(queued),
        issue: ObservedIssue::At(GuestTicks(queued + 5)),
    }
}

fn end(at: u64, under_way: Vec<ObservedUnderWay>) -> Observed {
    let (earlier_count, passthrough_count, late_count) = (4, 5, 6);
    let at = GuestTicks(at);
    let hidden = ObservedHidden {
        queued_count: 1,
        issued_count: 2,
        completed_count: 3,
        others_count: 7,
        is_exact: true,
    };
    Observed::End(ObservedEnd {
        at,
        earlier_count,
        passthrough_count,
        late_count,
        hidden,
        under_way,
    })
}

#[test]
fn what_was_under_way_at_the_end_is_recorded_and_a_loss_without_events() {
    let mut observation = Observation::default();
    observation.take(Observed::Devices(vec![device(1, "vda"), device(2, "vdb")]), 0);
    let rows = vec![stalled(1, 100), stalled(2, 2_000), stalled(7, 90)];
    assert_eq!(observation.take(end(3_000, rows), 0), []);
    let open = |first| {
        let (first, last) = (GuestTicks(first), GuestTicks(u64::MAX));
        [ObservedItem::Lost(Dropped { count: 0, first, last })]
    };
    assert_eq!(observation.end(), open(90));
    let record = observation.record(0);
    let told = record.end.expect("the end was told");
    let counts = (told.earlier_count, told.passthrough_count, told.late_count);
    assert_eq!(counts, (4, 5, 6));
    let hidden = HiddenRecord {
        queued_count: 1,
        issued_count: 2,
        completed_count: 3,
        others_count: 7,
        is_exact: true,
    };
    assert_eq!(told.hidden, Some(hidden));
    let [row, other] = told.under_way[..] else { panic!("not of the disks it named: {told:?}") };
    assert_eq!((row.device, row.count, row.bytes, row.age_ns), (1, 3, 4096, 2_900));
    assert_eq!(row.issue, IssueRecord::AfterNs(5));
    assert_eq!((other.device, other.age_ns), (2, 1_000));
    assert_eq!(record.lost_count, 0);

    let mut nothing_open = Observation::default();
    nothing_open.take(end(3_000, vec![]), 0);
    assert_eq!(nothing_open.end(), open(3_000));
}

/// A guest that dies says nothing of what was under way: what it settled last is what is known.
#[test]
fn without_an_end_all_is_open_from_what_was_settled_last() {
    let mut observation = Observation::default();
    assert_eq!(observation.end(), [], "it has told of no request");
    observation.take(block(9, vec![request(1, 5)]), 0);
    let (first, last) = (GuestTicks(9), GuestTicks(u64::MAX));
    assert_eq!(observation.end(), [ObservedItem::Lost(Dropped { count: 0, first, last })]);
    assert_eq!(observation.record(0).end, None);
}

#[test]
fn names_are_harmless_and_bounded_and_may_be_told_again() {
    let mut observation = Observation::default();
    observation.take(Observed::Devices(vec![device(3, "vda\x1b[31m")]), 0);
    observation.take(Observed::Tasks(vec![task(1, "post\ngres", "")]), 0);
    observation.take(Observed::Tasks(vec![task(1, "postgres", "postgres: checkpointer")]), 0);
    let record = observation.record(5000);
    assert_eq!(record.slower_than_us, 5000);
    assert!(!record.devices[0].name.contains('\x1b'), "{:?}", record.devices);
    assert_eq!(record.devices[0].io_scheduler.as_deref(), Some("none"));
    assert_eq!((record.devices[0].size_bytes, record.devices[0].serial.clone()), (None, None));
    assert_eq!(record.tasks.len(), 1);
    assert_eq!(titles(&record, 0), (Some("postgres: checkpointer"), None));
    let more = (0..u32::try_from(TASKS_KEPT_MAX).unwrap()).map(|number| task(number + 2, "t", ""));
    observation.take(Observed::Tasks(more.collect()), 0);
    observation.take(Observed::Devices((0..300).map(|number| device(number, "d")).collect()), 0);
    let record = observation.record(0);
    assert_eq!((record.tasks.len(), record.devices.len()), (TASKS_KEPT_MAX, DEVICES_KEPT_MAX));
    let notice = observation.notices().next().expect("a notice");
    assert!(notice.contains("45 are left out"), "{notice}");
}

fn titles(record: &ObservationRecord, place: usize) -> (Option<&str>, Option<&str>) {
    let task = &record.tasks[place];
    (task.title.as_deref(), task.title_before.as_deref())
}

#[test]
fn a_title_that_changes_is_kept_with_the_one_before() {
    let mut observation = Observation::default();
    let mut told = |title: &str| {
        observation.take(Observed::Tasks(vec![task(1, "postgres", title)]), 0);
        observation.record(0)
    };
    assert_eq!(titles(&told("a"), 0), (Some("a"), None));
    assert_eq!(titles(&told("a"), 0), (Some("a"), None), "it is the same");
    assert_eq!(titles(&told("b"), 0), (Some("b"), Some("a")));
    assert_eq!(titles(&told("b"), 0), (Some("b"), Some("a")));
    assert_eq!(titles(&told(""), 0), (None, Some("b")));
    let other = ObservedTask { pid: 8, ..task(1, "postgres", "c") };
    observation.take(Observed::Tasks(vec![other]), 0);
    assert_eq!(titles(&observation.record(0), 0), (Some("c"), None), "another process");
}

#[test]
fn counts_of_the_others_are_of_named_disks_and_the_last_ones_count() {
    let mut observation = Observation::default();
    observation.take(Observed::Devices(vec![device(1, "vda")]), 0);
    let of = |device, count| ObservedOthers {
        device,
        operation: BlockOperation::Write,
        is_sync: count > 5,
        count,
        bytes: 4096 * count,
        total_ticks: 1000 * count,
    };
    observation.take(Observed::Others(vec![of(1, 5), of(2, 5)]), 0);
    observation.take(Observed::Others(vec![of(1, 7)]), 0);
    observation.take(Observed::Others(vec![of(1, 9)]), 0);
    let others = observation.record(100).others;
    let told: Vec<_> = others.iter().map(|of| (of.is_sync, of.count, of.total_ns)).collect();
    assert_eq!(told, [(false, 5, 5000), (true, 9, 9000)]);
}
