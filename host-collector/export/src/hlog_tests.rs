use super::*;
use crate::full::Full;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use proptest::prelude::*;
use vslice_report::analyse::chosen::Asked;
use vslice_report::analyse::drawn::{guest_at, manifest, names, run_in, streams};
use vslice_report::analyse::drawn_observed as observed;
use vslice_report::analyse::{analyse_chosen, analyse_with};
use vslice_trace::ObservedItem;
use vslice_trace::RunDir;
use vslice_trace::manifest::Manifest;
use vslice_wire::ObservedFlags;

/// The second, tag and histogram of each line.
type Line = (u64, String, Histogram<u64>);

fn lines(log: &[u8]) -> Vec<Line> {
    let mut deserializer = Deserializer::new();
    let entries = IntervalLogIterator::new(log).map(Result::unwrap);
    let lines = entries.filter_map(|entry| match entry {
        LogEntry::Interval(interval) => Some(interval),
        LogEntry::StartTime(_) | LogEntry::BaseTime(_) => None,
    });
    lines
        .map(|line| {
            assert_eq!(line.duration(), Duration::from_secs(1));
            let encoded = line.encoded_histogram();
            let bytes = STANDARD.decode(encoded).unwrap();
            let histogram: Histogram<u64> =
                deserializer.deserialize(&mut bytes.as_slice()).unwrap();
            assert_eq!(line.max(), histogram.max() as f64);
            (line.start_timestamp().as_secs(), line.tag().unwrap().to_string(), histogram)
        })
        .collect()
}

fn log_of(run: &RunDir) -> Vec<u8> {
    let mut log = LatencyLog::new(Vec::new());
    analyse_with(run.path(), &mut [&mut log]).unwrap();
    log.finish().unwrap()
}

/// The drawn run, in which vm1 was observed.
fn observed_run(requests: Vec<vslice_wire::ObservedRequest>, manifest: &Manifest) -> Vec<u8> {
    let scratch = tempfile::tempdir().unwrap();
    let run = run_in(&scratch.path().join("run"), manifest);
    observed::host_streams(&run);
    names(&run);
    let items = requests.into_iter().map(ObservedItem::Request);
    let settled = [ObservedItem::Settled(guest_at(1200))];
    observed::observed_stream(&run, items.chain(settled).collect());
    log_of(&run)
}

/// A request as the drawn run tells it, to be told again at other times.
fn breakdown() -> Breakdown {
    #[derive(Default)]
    struct Last(Option<Breakdown>);
    impl Observer for Last {
        fn request(&mut self, _: VmIndex, breakdown: &Breakdown) {
            self.0 = Some(breakdown.clone());
        }
    }
    let scratch = tempfile::tempdir().unwrap();
    let run = run_in(&scratch.path().join("run"), &manifest());
    streams(&run, &[0, 500, 1150], true);
    names(&run);
    let mut last = Last::default();
    analyse_with(run.path(), &mut [&mut last]).unwrap();
    last.0.unwrap()
}

fn at(breakdown: &Breakdown, end_ns: u64, latency_ns: u64) -> Breakdown {
    let (start, end) = (HostNs(end_ns - latency_ns), HostNs(end_ns));
    Breakdown { start, end, ..breakdown.clone() }
}

/// Listens to a run that began at 1,000 s and went on for ten.
fn listener(counters_max: usize) -> LatencyLog<Vec<u8>> {
    let mut log = LatencyLog::with_room(Vec::new(), counters_max);
    log.window = MeasuredWindow { start: HostNs(RUN_START_NS), end: HostNs(RUN_START_NS + 10 * S) };
    log.vms = vec![Vm { name: "vm1".to_owned(), disks: HashMap::new() }];
    log
}

const S: u64 = 1_000_000_000;
const RUN_START_NS: u64 = 1000 * S;

fn written(mut log: LatencyLog<Vec<u8>>) -> Vec<u8> {
    while !log.counters.is_empty() {
        log.write_first();
    }
    let comments = log.left_out.comments();
    log.comments(&comments);
    log.finish().unwrap()
}

#[test]
fn the_readers_requests_are_there_whole_and_by_part() {
    let scratch = tempfile::tempdir().unwrap();
    let run = run_in(&scratch.path().join("run"), &manifest());
    streams(&run, &[0, 500, 1150], true);
    names(&run);
    let log = log_of(&run);
    assert!(log.starts_with(b"#[Histogram log format version 1.3]\n"));
    let lines = lines(&log);
    let tags: Vec<&str> = lines.iter().map(|(_, tag, _)| tag.as_str()).collect();
    let parts = Part::ALL.map(|part| format!("vm1/reader/read/{}", part.name()));
    assert_eq!(tags[0], "vm1/reader/read/latency");
    assert_eq!(tags[1..], parts);
    assert!(lines.iter().all(|(second, _, histogram)| (*second, histogram.len()) == (0, 2)));
    let us = |tag: &str| {
        let (.., of) = lines.iter().find(|(_, of, _)| of.ends_with(tag)).unwrap();
        [0.5, 1.0].map(|quantile| (of.value_at_quantile(quantile) + 500) / 1000)
    };
    // To one in a thousand: 250 and 400 us, of which 300 and 50 are a preempted vCPU's.
    assert_eq!(us("/latency"), [250, 400]);
    assert_eq!(us("/preempt_wait"), [0, 300]);
    assert_eq!(us("/bql_wait"), [0, 100]);
}

#[test]
fn a_part_of_a_run_is_named_and_has_the_seconds_of_the_run() {
    let scratch = tempfile::tempdir().unwrap();
    let run = run_in(&scratch.path().join("run"), &manifest());
    streams(&run, &[0, 500, 1150], true);
    names(&run);
    let mut log = LatencyLog::new(Vec::new());
    let asked = Asked { since_ns: Some(500_000), vms: vec!["vm1".to_owned()], ..Asked::default() };
    analyse_chosen(run.path(), &asked, &mut [&mut log]).unwrap();
    let log = log.finish().unwrap();
    let text = String::from_utf8_lossy(&log).into_owned();
    let told = "\n#[part of the run: 500 us to its end at 1.10 ms, VM vm1]\n";
    assert!(text.contains(told), "{text}");
    let (second, _, histogram) = &lines(&log)[0];
    assert_eq!((*second, histogram.len()), (0, 1));
}

#[test]
fn each_disk_and_operation_has_tags_of_its_own_whatever_a_guest_calls_it() {
    let mut manifest = observed::observed_manifest();
    let observation = manifest.vms[0].observation.as_mut().unwrap();
    observation.devices[0].name = "v/d,a \n%".to_owned();
    observation.slower_than_us = 50;
    observation.devices.truncate(1);
    let request = |device, flags| vslice_wire::ObservedRequest {
        flags,
        ..observed::request(device, [110, 120, 450], [0, 0, 0])
    };
    let requests = vec![
        request(0, ObservedFlags::SYNC),
        request(0, ObservedFlags(0)),
        request(1, ObservedFlags(0)),
    ];
    let log = observed_run(requests, &manifest);
    let lines = lines(&log);
    let mut tags: Vec<&str> = lines.iter().map(|(_, tag, _)| tag.as_str()).collect();
    tags.retain(|tag| tag.ends_with("/latency"));
    tags.sort_unstable();
    assert_eq!(
        tags,
        [
            "vm1/guest/#1/write-back/latency",
            "vm1/guest/v%2Fd%2Ca%20%0A%25/sync-write/latency",
            "vm1/guest/v%2Fd%2Ca%20%0A%25/write-back/latency",
            "vm1/reader/read/latency",
        ]
    );
    let comment = "#[vm1: of observed requests only those of at least 50 us are in this log]\n";
    assert!(String::from_utf8(log).unwrap().contains(comment));
}

#[test]
fn what_cannot_be_attributed_has_a_latency_and_no_parts() {
    let mut log = listener(1 << 20);
    let drawn = at(&breakdown(), RUN_START_NS + S, 5_000);
    log.request(VmIndex(0), &drawn);
    log.request(VmIndex(0), &Breakdown { attribution: Attribution::Lost, ..drawn });
    for (_, tag, histogram) in lines(&written(log)) {
        let expected = if tag.ends_with("/latency") { 2 } else { 1 };
        assert_eq!(histogram.len(), expected, "{tag}");
    }
}

#[test]
fn what_comes_too_late_or_is_elsewhere_in_time_is_counted() {
    let breakdown = breakdown();
    let mut log = listener(40);
    let mut tell = |end_ns| log.request(VmIndex(0), &at(&breakdown, end_ns, 5_000));
    for second in [3, 1, 2, 1] {
        tell(RUN_START_NS + second * S);
    }
    tell(RUN_START_NS - 1);
    tell(RUN_START_NS + 69 * S);
    tell(RUN_START_NS + 70 * S);
    tell(u64::MAX);
    log.request(VmIndex(9), &at(&breakdown, RUN_START_NS + 69 * S, 5_000));
    log.unplaced_request(VmIndex(0), &breakdown.request, Unplaced::NoClock);
    let dropped = Dropped { count: 7, first: guest_at(0), last: guest_at(1) };
    log.dropped_requests(VmIndex(0), &dropped);
    log.lost_observed(VmIndex(0), &Dropped { count: 8, ..dropped });
    assert!(log.counters.len() <= 40);
    let log = written(log);
    let seconds: Vec<u64> = lines(&log)
        .into_iter()
        .filter(|(_, tag, _)| tag.ends_with("/latency"))
        .map(|(second, ..)| second)
        .collect();
    assert_eq!(seconds, [1, 2, 3, 69]);
    let text = String::from_utf8(log).unwrap();
    let comments: Vec<&str> = text.lines().filter(|line| line.starts_with('#')).collect();
    assert_eq!(
        comments,
        [
            "#[left out: requests of which all was known only when their second was written: 1]",
            "#[left out: requests that did not end in the measured window, nor soon after it: 3]",
            "#[left out: requests of further disks and operations: 1]",
            "#[left out: requests without a place on the host's clock: 1]",
            "#[left out: requests that the guest's reader could not record: 7]",
            "#[left out: events of requests that a guest could not record: 8]",
        ]
    );
}

#[test]
fn kinds_are_bounded() {
    let mut log = listener(1 << 20);
    let request =
        |device| GuestRequest::Observed(observed::request(device, [110, 120, 450], [0, 0, 0]));
    let kinds = (0..2000).filter_map(|device| log.kind(VmIndex(0), &request(device)));
    assert_eq!(kinds.count(), KINDS_MAX);
    assert_eq!(log.kind(VmIndex(0), &request(3)), Some(3));
}

proptest! {
    // A case is hundreds of histograms.
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever order requests come in, and however little room there is: each is in a histogram or counted, seconds are
    /// in order, and each is there to one in a thousand.
    #[test]
    fn every_request_is_in_a_histogram_or_counted(
        requests in prop::collection::vec((0..8_u64, 1..3_u64, any::<u64>()), 1..60),
        counters_max in 0..200_usize,
    ) {
        let breakdown = breakdown();
        let mut log = listener(counters_max);
        let mut latencies = Vec::new();
        for (second, half, latency) in requests {
            let end_ns = RUN_START_NS + second * S + half * S / 2 - 1;
            let latency_ns = latency % end_ns;
            let late = log.left_out.late;
            log.request(VmIndex(0), &at(&breakdown, end_ns, latency_ns));
            if log.left_out.late == late {
                latencies.push(latency_ns);
            }
            prop_assert!(log.counters.len() <= counters_max);
        }
        let lines = lines(&written(log));
        prop_assert!(lines.iter().is_sorted_by_key(|(second, ..)| *second));
        let mut told = Vec::new();
        for (.., histogram) in lines.iter().filter(|(_, tag, _)| tag.ends_with("/latency")) {
            for bucket in histogram.iter_recorded() {
                let count = usize::try_from(bucket.count_at_value()).unwrap();
                told.extend(std::iter::repeat_n(bucket.value_iterated_to(), count));
            }
        }
        told.sort_unstable();
        latencies.sort_unstable();
        prop_assert_eq!(told.len(), latencies.len());
        for (told_ns, latency_ns) in told.into_iter().zip(latencies) {
            prop_assert!(latency_ns <= told_ns && told_ns - latency_ns <= latency_ns / 1000);
        }
    }
}

#[test]
fn the_first_error_is_kept_wherever_it_is() {
    let scratch = tempfile::tempdir().unwrap();
    let run = run_in(&scratch.path().join("run"), &manifest());
    streams(&run, &[0, 500, 1150], true);
    names(&run);
    let whole = log_of(&run).len();
    for room in [0, whole - 1] {
        let mut log = LatencyLog::new(Full(room));
        analyse_with(run.path(), &mut [&mut log]).unwrap();
        assert_eq!(log.finish().err().unwrap().kind(), std::io::ErrorKind::StorageFull);
    }
    let mut log = LatencyLog::new(Full(whole));
    analyse_with(run.path(), &mut [&mut log]).unwrap();
    assert!(log.finish().is_ok());
}
