//! What observers are told of the drawn run.

use super::drawn::{VM1_VCPU1, guest_at, host_at, manifest, names, run_dir, stream, streams};
use super::observer::{Observer, Run, RunEnd};
use super::{SummaryObserver, analyse, analyse_with};
use crate::summary::VmIndex;
use vslice_core::host_event::HostEvent;
use vslice_core::join::{Breakdown, GuestRequest, Unplaced};
use vslice_core::timeline::{LockWait, Span, Tasks};
use vslice_trace::{RequestItem, VmName};
use vslice_wire::{Dropped, Request};

/// All that it was told, in a word each.
#[derive(Default)]
struct Listener {
    told: Vec<&'static str>,
    events_us: Vec<u64>,
    vcpu_spans_us: Vec<(u64, u64)>,
    latencies_us: Vec<u64>,
    clocks_count: usize,
}

impl Listener {
    fn count(&self, what: &str) -> usize {
        self.told.iter().filter(|told| **told == what).count()
    }
}

impl Observer for Listener {
    fn start(&mut self, run: &Run<'_>) {
        assert_eq!((run.manifest.vms.len(), run.window.start), (2, host_at(0)));
        self.told.push("start");
    }

    fn event(&mut self, event: &HostEvent, _tasks: &Tasks) {
        self.told.push("event");
        self.events_us.push(event.time.since_ns(host_at(0)) / 1_000);
    }

    fn span(&mut self, span: &Span) {
        self.told.push("span");
        if span.tid == VM1_VCPU1 {
            let us = |time: vslice_core::units::HostNs| time.since_ns(host_at(0)) / 1_000;
            self.vcpu_spans_us.push((us(span.start), us(span.end)));
        }
    }

    fn lock_wait(&mut self, _wait: &LockWait) {
        self.told.push("lock wait");
    }

    fn request(&mut self, vm: VmIndex, breakdown: &Breakdown) {
        assert_eq!((vm, breakdown.parts.total_ns()), (VmIndex(0), breakdown.latency_ns()));
        self.told.push("request");
        self.latencies_us.push((breakdown.latency_ns() + 500) / 1_000);
    }

    fn unplaced_request(&mut self, vm: VmIndex, request: &GuestRequest, why: Unplaced) {
        assert_eq!((vm, request.read().unwrap().index, why), (VmIndex(0), 2, Unplaced::NoClock));
        self.told.push("unplaced");
    }

    fn dropped_requests(&mut self, vm: VmIndex, dropped: &Dropped) {
        assert_eq!((vm, dropped.count), (VmIndex(0), 3));
        self.told.push("dropped");
    }

    fn end(&mut self, run: &Run<'_>, end: &RunEnd<'_>) {
        assert_eq!((run.window.end, end.window_end), (host_at(1100), host_at(1100)));
        assert!(end.tasks.all().any(|(tid, _)| tid == VM1_VCPU1));
        self.clocks_count = end.clocks.len();
        self.told.push("end");
    }
}

/// The drawn run, whose guest also drops requests and makes one on a vCPU without a clock.
fn told_of_a_run() -> (Listener, bool) {
    let (_scratch, run) = run_dir(&manifest());
    names(&run);
    streams(&run, &[0, 500, 1150], true);
    let path = run.requests_path(&VmName::try_from("vm1").unwrap());
    std::fs::remove_file(&path).unwrap();
    let request = |index, from_us, to_us, vcpu| {
        RequestItem::Request(Request {
            index,
            submitted: guest_at(from_us),
            completed: guest_at(to_us),
            vcpu_submitted: vcpu,
            vcpu_completed: vcpu,
            result: 4096,
        })
    };
    let dropped = Dropped { count: 3, first: guest_at(900), last: guest_at(910) };
    let items = vec![
        request(0, 50, 450, 1),
        request(1, 550, 800, 1),
        request(2, 850, 860, 9),
        RequestItem::Dropped(dropped),
    ];
    stream(&path, items, true);
    let (mut listener, mut summary) = (Listener::default(), SummaryObserver::default());
    analyse_with(run.path(), &mut [&mut listener, &mut summary]).unwrap();
    let is_the_same = summary.into_summary() == Some(analyse(run.path()).unwrap());
    (listener, is_the_same)
}

#[test]
fn observers_are_told_all_of_a_run_and_a_second_one_takes_nothing_from_the_first() {
    let (listener, is_the_same) = told_of_a_run();
    assert!(is_the_same, "the summary beside another observer is the summary alone");
    let told = &listener.told;
    assert_eq!((told.first(), told.last()), (Some(&"start"), Some(&"end")));
    let counts = ["start", "event", "lock wait", "request", "unplaced", "dropped", "end"]
        .map(|what| listener.count(what));
    assert_eq!(counts, [1, 8, 1, 2, 1, 1, 1]);
    assert_eq!(listener.latencies_us, [400, 250]);
    assert_eq!(listener.clocks_count, 1);
}

#[test]
fn events_come_in_order_and_the_spans_of_a_thread_tile_the_run() {
    let (listener, _) = told_of_a_run();
    assert_eq!(listener.events_us, [20, 100, 400, 600, 700, 750, 1000, 1200]);
    let drawn =
        [(20, 100), (100, 400), (400, 600), (600, 700), (700, 750), (750, 1000), (1000, 1200)];
    let spans = &listener.vcpu_spans_us;
    assert!(spans.ends_with(&drawn), "not cut at the window's end: {spans:?}");
}
