//! Collectors that go away, fall silent, do not listen or talk nonsense, and plans that cannot run.

use crate::collector::{Pair, Told, last_vcpu};
use std::time::{Duration, Instant};
use vslice_tests::not_judged;
use vslice_wire::{DoneReason, HostFrame, Ping, Severity};

/// More requests than fit the buffers on the way: the socket's, the outbox and the ring.
const FLOOD_REQUESTS: u32 = 300_000;

/// So many that an agent which kept them all would have more memory than it may.
const HUGE_FLOOD_REQUESTS: u32 = 2_000_000;

#[test]
fn a_collector_that_does_not_read_costs_drops_and_no_memory() {
    const RESIDENT_BYTES_MAX: u64 = 8 << 20;
    let mut pair = Pair::prepare_flood(HUGE_FLOOD_REQUESTS);
    pair.say(&HostFrame::Start);
    // It ends by itself, so it never waited for this collector, which has not read a byte.
    pair.wait_for_end_of_thread("reader");
    let resident_bytes = pair.resident_bytes_max();
    println!("at most {} KiB resident", resident_bytes / 1024);
    assert!(resident_bytes <= RESIDENT_BYTES_MAX, "{resident_bytes} bytes");

    let told = pair.listen_to_done();
    assert_eq!(told.done().reason, DoneReason::Completed);
    assert_eq!(told.done().requests, u64::from(HUGE_FLOOD_REQUESTS));
    assert!(told.done().dropped > 0);
    told.assert_complete();
}

#[test]
fn a_pong_overtakes_the_requests_that_wait() {
    let mut pair = Pair::prepare_flood(FLOOD_REQUESTS);
    pair.say(&HostFrame::Start);
    pair.wait_for_end_of_thread("reader");
    pair.say(&HostFrame::Ping(Ping { id: 7, vcpu: None }));
    let mut told = Told::default();
    while told.pongs.is_empty() {
        assert!(pair.listen(&mut told), "Done came before the pong");
    }
    let before = told.requests.len();
    while pair.listen(&mut told) {}
    assert!(told.requests.len() > before, "no request came after the pong");
}

#[test]
fn silence_ends_the_lease() {
    let (mut pair, _) = Pair::prepare(|spec| {
        spec.reader = None;
        spec.hogs = vec![last_vcpu()];
        spec.lease_ms = 200;
    });
    pair.say(&HostFrame::Start);
    let (status, said) = pair.wait();
    assert!(!status.success());
    assert_eq!(said, "vslice-agent: the collector has been silent for 200 ms\n");
}

/// A collector that is late itself, on a machine that has no time for it, judges nothing.
#[test]
fn the_lease_begins_with_the_start_and_every_ping_renews_it() {
    const LEASE: Duration = Duration::from_secs(1);
    let (mut pair, _) = Pair::prepare(|spec| {
        spec.reader = None;
        spec.hogs = vec![last_vcpu()];
        spec.lease_ms = LEASE.as_millis().try_into().expect("a second");
    });
    std::thread::sleep(LEASE * 6 / 5);
    pair.say(&HostFrame::Start);
    let (mut told, mut said_at, mut longest) = (Told::default(), Instant::now(), Duration::ZERO);
    // Twice the lease: a count of the hogs comes about once a second.
    for id in 0.. {
        longest = longest.max(said_at.elapsed());
        if longest * 2 > LEASE {
            let because = format!("this test itself was silent for {longest:?} of {LEASE:?}");
            not_judged::<()>("the_lease_begins_with_the_start", &because).expect("never");
            return;
        }
        said_at = Instant::now();
        pair.say(&HostFrame::Ping(Ping { id, vcpu: None }));
        while told.pongs.last().is_none_or(|pong| pong.id < id) {
            assert!(pair.listen(&mut told));
        }
        if told.hogs.len() >= 2 {
            break;
        }
        std::thread::sleep(LEASE / 20);
    }
    pair.say(&HostFrame::Stop);
    while pair.listen(&mut told) {}
    pair.say(&HostFrame::Bye);
    assert!(pair.wait().0.success());
}

#[test]
fn a_lost_connection_ends_everything() {
    let (mut pair, _) = Pair::prepare(|spec| spec.hogs = vec![last_vcpu()]);
    pair.say(&HostFrame::Start);
    pair.hang_up();
    let (status, said) = pair.wait();
    assert!(!status.success());
    assert!(said.contains("connection"), "{said}");
}

/// It ends by itself, so that what its threads have set is put back.
#[test]
fn a_signal_ends_everything_in_order() {
    let (mut pair, _) = Pair::prepare(|spec| spec.hogs = vec![last_vcpu()]);
    pair.say(&HostFrame::Start);
    pair.terminate();
    let (status, said) = pair.wait();
    assert_eq!(status.code(), Some(1));
    assert_eq!(said, "vslice-agent: interrupted by a signal\n");
}

#[test]
fn a_collector_that_goes_away_before_the_plan_is_noticed() {
    let (mut pair, _) = Pair::connect();
    pair.hang_up();
    let (status, said) = pair.wait();
    assert!(!status.success());
    assert_eq!(said, "vslice-agent: the collector closed the connection\n");
}

/// Sends a plan that cannot run; returns the sentence about it.
fn refused(json: &[u8]) -> String {
    let (mut pair, _) = Pair::connect();
    pair.say(&HostFrame::Plan(json.to_vec()));
    let told = pair.listen_to_done();
    assert_eq!(told.done().reason, DoneReason::Failed);
    let [notice] = &told.notices[..] else { panic!("one notice: {:?}", told.notices) };
    assert_eq!(notice.severity, Severity::Error);
    assert_eq!(pair.ping(3, None).id, 3, "it still answers");
    pair.say(&HostFrame::Start);
    pair.say(&HostFrame::Bye);
    let (status, said) = pair.wait();
    assert!(!status.success());
    assert_eq!(said, format!("vslice-agent: {}\n", notice.text));
    notice.text.clone()
}

#[test]
fn plans_that_cannot_run_are_refused_with_the_reason() {
    assert!(refused(b"{\"hogs\": [").contains("cannot read the plan"));
    assert!(refused(b"{\"hogs\": [], \"hugs\": []}").contains("hugs"));
    assert!(refused(b"\xff").contains("cannot read the plan"));
    let (pair, _) = Pair::connect();
    let mut spec = pair.spec();
    spec.hogs = vec![last_vcpu() + 1];
    let no_such_vcpu = refused(&serde_json::to_vec(&spec).unwrap());
    assert!(no_such_vcpu.contains(&format!("vCPU{}", last_vcpu() + 1)), "{no_such_vcpu}");
    let mut spec = pair.spec();
    spec.reader.as_mut().unwrap().create = false;
    let no_target = refused(&serde_json::to_vec(&spec).unwrap());
    assert!(no_target.contains("target"), "{no_target}");
}

#[test]
fn a_target_that_fails_midway_is_a_result_and_no_failure() {
    let mut pair = Pair::prepare_flood(1000);
    pair.say(&HostFrame::Start);
    let told = pair.listen_to_done();
    assert_eq!(told.done().reason, DoneReason::Completed);
    assert_eq!(told.requests.len(), 1000);
    assert!(told.requests.iter().all(|request| request.result == 0));
}

#[test]
fn a_frame_out_of_order_ends_the_session() {
    let (mut pair, _) = Pair::connect();
    pair.say(&HostFrame::Start);
    let (status, said) = pair.wait();
    assert!(!status.success());
    assert!(said.contains("sent Start while the agent was waiting for a plan"), "{said}");

    let (mut pair, _) = Pair::prepare(|_| {});
    let spec = pair.spec();
    pair.plan(&spec);
    let (_, said) = pair.wait();
    assert!(said.contains("sent Plan while the agent was waiting for the start"), "{said}");
}

#[test]
fn nonsense_ends_the_session() {
    let (mut pair, _) = Pair::connect();
    pair.say_bytes(b"GET / HTTP/1.1\r\n\r\n");
    let (status, said) = pair.wait();
    assert!(!status.success());
    assert!(said.contains("cannot decode what the collector sent: a frame of"), "{said}");
}
