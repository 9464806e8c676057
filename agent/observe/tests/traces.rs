//! The matching, on what kernels printed of real loads. `fixtures/README.md` says how they were made.

use std::collections::BTreeMap;
use vslice_observe::{BlockTrace, BlockTraceKind, Counts, Limits, Matching, Rwbs};
use vslice_wire::{BlockOperation, GuestTicks, ObservedFlags, ObservedRequest};

/// A trace, and the names of its tasks.
struct Trace {
    events: Vec<BlockTrace>,
    names: Vec<String>,
}

fn fixture(name: &str) -> String {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn read(name: &str) -> Trace {
    let mut trace = Trace { events: Vec::new(), names: Vec::new() };
    for line in fixture(name).lines() {
        let event = event(line, &mut trace.names);
        trace.events.extend(event);
    }
    assert!(trace.events.len() > 100, "{} events", trace.events.len());
    trace
}

/// `dd-127 [000] d.h1. 5.138331: block_rq_issue: 254,0 RS 4096 () 2048 + 8 be,0,4 [dd]`
fn event(line: &str, names: &mut Vec<String>) -> Option<BlockTrace> {
    let (head, rest) = line.split_once(": block_")?;
    let (task, head) = head.trim().split_once(" [")?;
    let (vcpu, head) = head.split_once(']')?;
    let (seconds, micros) = head.split_whitespace().next_back()?.split_once('.')?;
    let time = number(seconds) * 1_000_000_000 + number(micros) * 1000;
    let (name, rest) = rest.split_once(": ")?;
    let letters = rest.split_whitespace().nth(1)?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let plus = words.iter().position(|word| *word == "+")?;
    let result = words.last()?.trim_matches(['[', ']']);
    let kind = match name {
        "bio_queue" => BlockTraceKind::Queue,
        "bio_remap" => BlockTraceKind::Remap { from: from(&words) },
        "rq_issue" => BlockTraceKind::Issue,
        "rq_requeue" => BlockTraceKind::Requeue,
        "rq_complete" => BlockTraceKind::Complete { result: result.parse().expect("an error") },
        _ => return None,
    };
    let task = task.trim();
    let thread = number(task.rsplit('-').next()?);
    let place = names.iter().position(|name| name == task).unwrap_or_else(|| {
        names.push(task.to_owned());
        names.len() - 1
    });
    Some(BlockTrace {
        time: GuestTicks(time),
        vcpu: u16::try_from(number(vcpu)).expect("a vCPU"),
        device: 0,
        task: u32::try_from(place).expect("some tasks"),
        thread: u32::try_from(thread).expect("a thread"),
        kind,
        sector: number(words[plus - 1]),
        sectors: u32::try_from(number(words[plus + 1])).expect("sectors"),
        rwbs: Rwbs::of_letters(letters.as_bytes()),
    })
}

/// `<- (254,34) 2048`, which is a partition of the disk, or `<- (253,0) 0`, which is not.
fn from(words: &[&str]) -> Option<u64> {
    let arrow = words.iter().position(|word| *word == "<-")?;
    words[arrow + 1].starts_with("(254,").then(|| number(words[arrow + 2]))
}

fn number(word: &str) -> u64 {
    word.trim().parse().unwrap_or_else(|_| panic!("{word:?} is no number"))
}

/// The requests of a trace, in passes of so many events; nothing may stay open, and nothing be lost.
fn requests(trace: &Trace, pass: usize) -> Vec<ObservedRequest> {
    let mut matching = Matching::new(Limits::default());
    let mut requests = Vec::new();
    for events in trace.events.chunks(pass) {
        events.iter().for_each(|event| matching.take(event));
        matching.pass(events.last().expect("no chunk is empty").time);
        requests.extend(matching.take_requests());
        assert_eq!(matching.take_lost(), []);
    }
    assert_eq!(matching.open_count(), 0, "{matching:?}");
    assert_eq!(matching.counts(), Counts::default());
    requests
}

/// How many requests and sectors an operation has.
fn sums(requests: &[ObservedRequest]) -> BTreeMap<BlockOperation, (u64, u64)> {
    let mut sums = BTreeMap::new();
    for request in requests {
        let (count, sectors) = sums.entry(request.operation).or_insert((0, 0));
        *count += 1;
        *sectors += u64::from(request.bytes) / 512;
    }
    sums
}

const KERNELS: [&str; 6] = [
    "block-5.10.trace",
    "block-6.1.trace",
    "block-7.3.trace",
    "dm-6.1.trace",
    "loop-6.18-deadline.trace",
    "loop-6.18-none.trace",
];

#[test]
fn each_issue_and_each_flush_that_was_asked_for_is_a_request() {
    for kernel in KERNELS {
        let trace = read(kernel);
        let requests = requests(&trace, usize::MAX);
        let mut expected = BTreeMap::new();
        for event in &trace.events {
            let is_flush = event.sectors == 0;
            let counts = match event.kind {
                BlockTraceKind::Queue => is_flush,
                BlockTraceKind::Issue => !is_flush,
                _ => false,
            };
            if counts {
                let flush = is_flush.then_some(BlockOperation::Flush);
                let operation = flush.unwrap_or(event.rwbs.operation);
                let (count, sectors) = expected.entry(operation).or_insert((0, 0));
                *count += 1;
                *sectors += u64::from(event.sectors);
            }
        }
        assert_eq!(sums(&requests), expected, "{kernel}");
        println!("{kernel}: {} events, {} requests", trace.events.len(), requests.len());
    }
}

#[test]
fn each_request_has_the_times_of_events_that_speak_of_it() {
    for kernel in KERNELS {
        let trace = read(kernel);
        for request in requests(&trace, usize::MAX) {
            let at = |time: GuestTicks, vcpu: u16| {
                let events = trace.events.iter();
                events.filter(move |event| (event.time, event.vcpu) == (time, vcpu))
            };
            let range = request.sector..request.sector + u64::from(request.bytes) / 512;
            let is_flush = request.operation == BlockOperation::Flush;
            let queued = at(request.queued, request.vcpu_queued).any(|event| {
                let end = event.sector + u64::from(event.sectors);
                let is_its = match event.kind {
                    BlockTraceKind::Queue => event.sector < range.end && end > range.start,
                    // At another sector, of a partition.
                    BlockTraceKind::Remap { .. } => true,
                    _ => false,
                };
                event.task == request.task && (is_flush || is_its)
            });
            let issued = at(request.issued, request.vcpu_issued).any(|event| {
                event.kind == BlockTraceKind::Issue
                    && (event.sector == request.sector
                        || event.rwbs.operation == BlockOperation::Flush)
            });
            let completed = at(request.completed, request.vcpu_completed)
                .any(|event| event.kind == BlockTraceKind::Complete { result: request.result });
            assert!(queued && issued && completed, "{kernel}: {request:?}");
            assert!(request.queued <= request.issued && request.issued <= request.completed);
        }
    }
}

/// Whom the kernel has do it is nobody who asked.
#[test]
fn no_request_is_the_one_of_a_thread_of_the_block_layer() {
    for kernel in KERNELS {
        let trace = read(kernel);
        let requests = requests(&trace, usize::MAX);
        let name = |request: &ObservedRequest| {
            trace.names[usize::try_from(request.task).expect("a place")].as_str()
        };
        let is_of_block = |name: &str| name.contains("H-") || name.contains("idle");
        let wrong: Vec<_> = requests.iter().filter(|request| is_of_block(name(request))).collect();
        assert!(wrong.is_empty(), "{kernel}: {wrong:?}");
        let has_journal = !kernel.starts_with("dm");
        let is_of_journal = |request: &ObservedRequest| name(request).starts_with("jbd2");
        assert_eq!(requests.iter().any(is_of_journal), has_journal, "{kernel}");
    }
}

#[test]
fn a_commit_lasts_from_its_first_flush_to_its_last() {
    for kernel in KERNELS {
        let trace = read(kernel);
        let both = ObservedFlags::PREFLUSH.with(ObservedFlags::FUA);
        let requests = requests(&trace, usize::MAX);
        let commits: Vec<_> = requests
            .iter()
            .filter(|request| request.operation == BlockOperation::Write)
            .filter(|request| request.flags.contains(both))
            .collect();
        assert!(!commits.is_empty() || kernel.starts_with("dm"), "{kernel}");
        for commit in commits {
            let within = commit.issued..=commit.completed;
            let issues = trace.events.iter().filter(|event| {
                event.kind == BlockTraceKind::Issue && within.contains(&event.time)
            });
            let flushes = issues.filter(|event| event.rwbs.operation == BlockOperation::Flush);
            assert!(flushes.count() >= 2, "{kernel}: {commit:?}");
        }
    }
}

#[test]
fn where_passes_end_is_no_matter() {
    for kernel in KERNELS {
        let trace = read(kernel);
        let whole = requests(&trace, usize::MAX);
        for pass in [1, 2, 3, 7, 64] {
            let without_doubt = |requests: Vec<ObservedRequest>| -> Vec<ObservedRequest> {
                let clear = |request: ObservedRequest| {
                    let flags = ObservedFlags(request.flags.0 & !ObservedFlags::AMBIGUOUS.0);
                    ObservedRequest { flags, ..request }
                };
                requests.into_iter().map(clear).collect()
            };
            let parts = requests(&trace, pass);
            assert_eq!(without_doubt(parts), without_doubt(whole.clone()), "{kernel} by {pass}");
        }
    }
}

/// Nothing is known of what was before, nor how many hardware queues there are..
#[test]
fn few_of_real_loads_are_ambiguous() {
    for (kernel, count, ambiguous) in [
        ("block-5.10.trace", 57, 3),
        ("block-6.1.trace", 56, 1),
        ("block-7.3.trace", 60, 3),
        ("loop-6.18-deadline.trace", 211, 4),
        ("loop-6.18-none.trace", 213, 1),
        ("dm-6.1.trace", 122, 4),
    ] {
        let requests = requests(&read(kernel), usize::MAX);
        let is_unclear =
            |request: &&ObservedRequest| request.flags.contains(ObservedFlags::AMBIGUOUS);
        let unclear: Vec<_> = requests.iter().filter(is_unclear).collect();
        println!("{kernel}: {} of {} are ambiguous", unclear.len(), requests.len());
        assert_eq!((requests.len(), unclear.len()), (count, ambiguous), "{unclear:?}");
    }
}

/// A control group of 20 reads a second held two of six back, until a kworker queued them.
#[test]
fn what_waits_for_its_control_group_is_of_who_asked() {
    let trace = read("dm-6.1.trace");
    let requests = requests(&trace, usize::MAX);
    let last = requests.iter().rev().take(6);
    let told: Vec<_> = last
        .map(|request| {
            let name = &trace.names[usize::try_from(request.task).expect("a place")];
            let waited_us = (request.issued.0 - request.queued.0) / 1000;
            (name.as_str(), request.sector, waited_us)
        })
        .collect();
    let expected = [
        ("dd-145", 2088, 32),
        ("dd-145", 2080, 98_313),
        ("dd-145", 2072, 50),
        ("dd-145", 2064, 26_799),
        ("dd-145", 2056, 30),
        ("dd-145", 2048, 352),
    ];
    assert_eq!(told, expected);
}

/// What `/sys/block/DISK/stat` counted meanwhile (linux: Documentation/block/stat.rst).
#[test]
fn the_kernel_has_counted_as_many() {
    for scheduler in ["deadline", "none"] {
        let trace = read(&format!("loop-6.18-{scheduler}.trace"));
        let stat: Vec<u64> = fixture(&format!("loop-6.18-{scheduler}.stat"))
            .split_whitespace()
            .map(number)
            .collect();
        let requests = requests(&trace, usize::MAX);
        let sums = sums(&requests);
        let of = |operation| sums.get(&operation).copied().unwrap_or_default();
        assert_eq!(of(BlockOperation::Read), (stat[0], stat[2]));
        assert_eq!(of(BlockOperation::Discard), (stat[11], stat[13]));
        // The kernel counts a flush that somebody asked for among the writes, and the queue's apart.
        let (writes, flushes) = (of(BlockOperation::Write), of(BlockOperation::Flush));
        assert_eq!((writes.0 + flushes.0, writes.1), (stat[4], stat[6]));
        // It counts from when a request has its tag, by a clock that it reads once for all that a thread
        // has plugged, and completion may be seen a moment later.
        let reads = requests.iter().filter(|request| request.operation == BlockOperation::Read);
        let took_ns: u64 = reads.map(|request| request.completed.0 - request.queued.0).sum();
        println!("{scheduler}: reads took {} us, {} ms by the kernel", took_ns / 1000, stat[3]);
        assert!(took_ns.abs_diff(stat[3] * 1_000_000) <= took_ns / 8, "{took_ns} ns");
    }
}
