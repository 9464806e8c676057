//! How many events a second are matched: `cargo test --release -p vslice-observe --test speed -- --ignored --nocapture`.

use std::time::Duration;
use vslice_observe::{BlockTrace, BlockTraceKind, Limits, Matching, Rwbs};
use vslice_wire::GuestTicks;

/// So many requests are under way at once.
const DEPTH: u64 = 128;

/// One request's events: it is queued, issued, and completed `DEPTH` requests later; every eighth is
/// made of two bios.
fn events(requests: u64) -> Vec<BlockTrace> {
    let mut events = Vec::new();
    let mut event = |time: u64, kind, sector: u64, sectors| {
        events.push(BlockTrace {
            time: GuestTicks(time),
            vcpu: u16::from(time & 4 != 0),
            device: 0,
            task: 0,
            thread: 0,
            kind,
            sector,
            sectors,
            rwbs: Rwbs::of_letters(b"RS"),
        });
    };
    let sector = |index: u64| index * 0x9e37_79b9 % (1 << 24) * 16;
    for index in 0..requests + DEPTH {
        let time = index * 1000;
        if index < requests {
            let parts = if index % 8 == 0 { [8, 8] } else { [16, 0] };
            event(time, BlockTraceKind::Queue, sector(index), parts[0]);
            if parts[1] > 0 {
                event(time + 1, BlockTraceKind::Queue, sector(index) + 8, parts[1]);
            }
            event(time + 5, BlockTraceKind::Issue, sector(index), 16);
        }
        if let Some(done) = index.checked_sub(DEPTH) {
            event(time + 9, BlockTraceKind::Complete { result: 0 }, sector(done), 16);
        }
    }
    events
}

/// How long this thread has been on a pCPU: others may be busy meanwhile.
fn on_pcpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("schedstat");
    let ns = stat.split_whitespace().next().expect("three numbers");
    Duration::from_nanos(ns.parse().expect("a number"))
}

#[test]
#[ignore = "a figure of an optimised build, for whoever asks"]
fn a_million_events_a_second() {
    let events = events(1_000_000);
    for slower_than_ticks in [0, u64::MAX] {
        let mut matching = Matching::new(Limits { slower_than_ticks, ..Limits::default() });
        let mut told = 0;
        let start = on_pcpu();
        for pass in events.chunks(10_000) {
            pass.iter().for_each(|event| matching.take(event));
            matching.pass(pass[pass.len() - 1].time);
            told += matching.take_requests().len();
        }
        let took = on_pcpu() - start;
        let rate = events.len() as f64 / took.as_secs_f64();
        println!("{} events in {took:.3?}: {:.2} M/s, {told} told", events.len(), rate / 1e6);
        assert!(rate > 1e6, "{rate} events a second");
    }
}
