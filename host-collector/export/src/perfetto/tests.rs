//! A whole trace, and what it does with what it is not told.

use super::PerfettoTrace;
use super::packets::Order;
use super::read::{Field, event_times, fields, text};
use super::trace::{Place, Slice, Trace};
use crate::full::Full;
use std::path::Path;
use vslice_core::units::HostNs;
use vslice_report::analyse::chosen::Asked;
use vslice_report::analyse::drawn::{names, run_in};
use vslice_report::analyse::drawn_observed as observed;
use vslice_report::analyse::{analyse_chosen, analyse_with};
use vslice_trace::manifest::Manifest;
use vslice_trace::observation::ObservedTaskRecord;
use vslice_trace::{ObservedItem, RunDir};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/perfetto/golden/drawn.txt");

/// The drawn run whose vm1 is observed, changed by whoever asks.
fn run(scratch: &Path, change: impl FnOnce(&mut Manifest)) -> RunDir {
    let mut manifest = observed::observed_manifest();
    let tasks = &mut manifest.vms[0].observation.as_mut().unwrap().tasks;
    let (name, title) = ("postgres".to_owned(), Some("postgres: checkpointer".to_owned()));
    tasks.push(ObservedTaskRecord { number: 3, pid: 41, name, title, title_before: None });
    change(&mut manifest);
    let run = run_in(&scratch.join("run"), &manifest);
    observed::host_streams(&run);
    names(&run);
    let mut request = observed::request(0, [110, 120, 400], [0, 0, 1]);
    request.task = 3;
    observed::observed_stream(&run, vec![ObservedItem::Request(request)]);
    run
}

fn trace(run: &RunDir) -> Vec<u8> {
    let mut trace = PerfettoTrace::new(Vec::new());
    analyse_with(run.path(), &mut [&mut trace]).unwrap();
    trace.finish().unwrap()
}

#[test]
fn the_trace_of_a_drawn_run_is_the_golden_one() {
    let scratch = tempfile::tempdir().unwrap();
    let told = text(&trace(&run(scratch.path(), |_| {})));
    if std::env::var_os("VSLICE_BLESS").is_some() {
        std::fs::write(GOLDEN, &told).unwrap();
    }
    let golden = std::fs::read_to_string(GOLDEN).unwrap();
    for (line, (told, golden)) in (1..).zip(told.lines().zip(golden.lines())) {
        assert_eq!(told, golden, "line {line} of {GOLDEN}; see the README beside it");
    }
    assert_eq!(told.lines().count(), golden.lines().count());
}

#[test]
fn a_stretch_has_no_event_of_another_and_says_which_it_is() {
    let scratch = tempfile::tempdir().unwrap();
    let run = run(scratch.path(), |_| {});
    let mut part = PerfettoTrace::new(Vec::new());
    let (since_ns, until_ns) = (Some(350_000), Some(760_000));
    let asked = Asked { since_ns, until_ns, ..Asked::default() };
    analyse_chosen(run.path(), &asked, &mut [&mut part]).unwrap();
    let part = part.finish().unwrap();
    let told = text(&part);
    let (_, since) = told.split_once("clock_snapshot { clocks { clock_id: 5 timestamp: ").unwrap();
    assert!(since.starts_with("1000000000 "), "times are those of the run: {told}");
    assert!(told.contains("part of the run: 350 us to 760 us of 1.10 ms"), "{told}");
    // The request is drawn whole, whose three slices end after the stretch, and so is the measured window.
    let outside = |us: &u64| !(350..=760).contains(us);
    let times = event_times(&part).into_iter().map(|ns| (ns - 1_000_000_000) / 1_000);
    let outside: Vec<u64> = times.filter(outside).collect();
    assert_eq!(outside, [800, 800, 800, 0, 1100], "{told}");
    let switches = told.lines().filter(|line| line.contains("sched_switch {"));
    let first: Vec<&str> =
        switches.filter_map(|line| line.split("event { timestamp: ").nth(1)).collect();
    assert_eq!(first.len(), 1, "pCPU2 has none: {told}");
    assert!(first[0].starts_with("1000400000 "), "{told}");
    assert!(told.contains("switch_timestamp: [1000600000, 150000] "), "{told}");
}

#[test]
fn names_of_strangers_are_harmless_and_short() {
    let scratch = tempfile::tempdir().unwrap();
    let told = text(&trace(&run(scratch.path(), |manifest| {
        let observation = manifest.vms[0].observation.as_mut().unwrap();
        observation.tasks[0].name = "\x1b[2J\u{202e}<script>".to_owned();
        observation.tasks[0].title = Some("x".repeat(100_000));
        observation.devices[0].name = "\u{9b}31m".to_owned();
    })));
    assert!(told.contains(r#"text: "?[2J?<script>""#), "{told}");
    assert!(told.contains(r#"text: "write ?31m""#), "{told}");
    let kept = "x".repeat(512);
    assert!(told.contains(&kept) && !told.contains(&format!("{kept}x")));
    assert!(!told.contains(['\x1b', '\u{9b}', '\u{202e}']));
}

#[test]
fn the_first_error_is_kept() {
    let scratch = tempfile::tempdir().unwrap();
    let run = run(scratch.path(), |_| {});
    let mut trace = PerfettoTrace::new(Full(100));
    analyse_with(run.path(), &mut [&mut trace]).unwrap();
    assert_eq!(trace.finish().unwrap_err().kind(), std::io::ErrorKind::StorageFull);
}

#[test]
fn equal_runs_give_equal_traces() {
    let scratch = tempfile::tempdir().unwrap();
    let run = run(scratch.path(), |_| {});
    assert_eq!(trace(&run), trace(&run));
}

#[test]
fn times_of_a_track_that_go_back_are_told_as_they_are() {
    let at = [500, 200, 500, 700, 100, 700].map(HostNs);
    let mut trace = Trace::new(Vec::new(), HostNs(100));
    let track = trace.track(Place::Top, "a track", 0);
    at.iter().for_each(|time| trace.instant(track, *time, &Slice::default()));
    assert_eq!(event_times(&trace.finish().unwrap()), at.map(|time| time.0));
}

#[test]
fn no_packet_is_too_long_for_a_reader() {
    let mut packets = super::packets::Packets::new(Vec::new());
    let mut noise = 1_u64;
    for _ in 0..200_000 {
        // What does not compress.
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        packets.push(Order::First, |packet| packet.uint(8, noise));
    }
    let trace = packets.finish().unwrap();
    let packets = fields(&trace);
    assert!(packets.len() > 5, "{}", packets.len());
    for (_, packet) in packets {
        let Field::Bytes(bytes) = packet else { panic!("{packet:?}") };
        assert!(bytes.len() < 512 << 10, "{}", bytes.len());
    }
}
