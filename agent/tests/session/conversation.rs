//! The conversation that vslice-wire draws, from end to end and with a stop at every stage.

use crate::collector::{BLOCK_BYTES, Pair, Told, last_vcpu};
use std::time::Duration;
use vslice_spec::ClockChoice;
use vslice_wire::{ClockKind, DoneReason, HogGap, HostFrame, PROTOCOL_VERSION, Ping};
use vslice_workload::clock::Clock;

#[test]
fn a_whole_conversation() {
    let (mut pair, hello) = Pair::connect();
    assert_eq!(hello.protocol_version, PROTOCOL_VERSION);
    assert_eq!(hello.vcpu_count, last_vcpu() + 1);

    let mut spec = pair.spec();
    spec.hogs = vec![last_vcpu()];
    pair.plan(&spec);
    let ready = pair.listen_to_ready();
    assert_eq!(ready.clock, ClockKind::MonotonicRaw);
    assert_eq!(ready.target, pair.target().to_str().unwrap());
    assert_eq!(ready.target_bytes, 256 * u64::from(BLOCK_BYTES));

    let before = pair.ping(1, None);
    assert_eq!(pair.thread_names().len(), 2, "no hog before the start");
    pair.say(&HostFrame::Start);
    let told = pair.listen_to_done();
    let after = pair.ping(2, None);

    assert_eq!(told.done().reason, DoneReason::Completed);
    assert_eq!((told.done().requests, told.done().dropped), (256, 0));
    told.assert_complete();
    for request in &told.requests {
        assert_eq!(request.result, i32::try_from(BLOCK_BYTES).unwrap());
        assert_eq!((request.vcpu_submitted, request.vcpu_completed), (last_vcpu(), last_vcpu()));
        assert!(before.sent < request.submitted && request.completed < after.received);
    }
    let last_hogs = told.hogs.last().expect("the hogs' last counts");
    assert_eq!(last_hogs.iter().map(|hog| hog.vcpu).collect::<Vec<_>>(), [last_vcpu()]);
    assert!(last_hogs[0].count > 0);
    assert!(told.notices.is_empty());
    pair.wait_for_end_of_thread(&format!("hog-{}", last_vcpu()));

    pair.say(&HostFrame::Bye);
    let (status, said) = pair.wait();
    assert!(status.success(), "{said}");
    assert_eq!(said, "");
}

#[test]
fn pings_are_stamped_where_they_say() {
    let (mut pair, _) = Pair::prepare(|spec| spec.clock = ClockChoice::Auto);
    assert_eq!(pair.ping(300, None).vcpu, 0, "on the housekeeping vCPU if not asked elsewhere");
    for vcpu in 0..=last_vcpu() {
        let pong = pair.ping(u64::from(vcpu), Some(vcpu));
        assert_eq!((pong.id, pong.vcpu), (u64::from(vcpu), vcpu));
        assert!(pong.received <= pong.sent);
        assert_eq!(pair.ping(100, None).vcpu, vcpu, "the agent is left where it is");
    }
    let pong = pair.ping(200, Some(9999));
    assert_eq!(pong.vcpu, last_vcpu(), "what is not there cannot be visited: the pong says so");
}

#[test]
fn pings_are_answered_while_a_load_runs() {
    let mut pair = Pair::prepare_flood(u32::MAX);
    pair.say(&HostFrame::Start);
    let mut told = Told::default();
    while told.requests.is_empty() {
        assert!(pair.listen(&mut told), "it was to run for longer");
    }
    for (id, vcpu, stamped_on) in [(1, None, 0), (2, Some(last_vcpu()), last_vcpu()), (3, None, 0)]
    {
        pair.say(&HostFrame::Ping(Ping { id, vcpu }));
        while told.pongs.last().is_none_or(|pong| pong.id < id) {
            assert!(pair.listen(&mut told), "a pong does not wait for the load");
        }
        assert_eq!(told.pongs.last().map(|pong| pong.vcpu), Some(stamped_on), "ping {id}");
    }
    pair.say(&HostFrame::Stop);
    while pair.listen(&mut told) {}
    assert_eq!(told.done().reason, DoneReason::Stopped);
    told.assert_complete();
}

#[test]
fn hogs_alone_run_until_they_are_stopped() {
    let (mut pair, ready) = Pair::prepare(|spec| {
        spec.reader = None;
        spec.hogs = vec![last_vcpu()];
    });
    assert_eq!((ready.target.as_str(), ready.target_bytes), ("", 0));
    pair.say(&HostFrame::Start);
    let mut told = Told::default();
    while told.hogs.len() < 2 {
        assert!(pair.listen(&mut told), "hogs do not end by themselves");
    }
    assert!(told.hogs[0][0].count < told.hogs[1][0].count, "the hog does not count");
    pair.say(&HostFrame::Stop);
    while pair.listen(&mut told) {}
    assert_eq!(told.done().reason, DoneReason::Stopped);
    assert_eq!(told.done().requests, 0);
    pair.wait_for_end_of_thread(&format!("hog-{}", last_vcpu()));
}

#[test]
fn a_hog_tells_when_it_did_not_run() {
    let (mut pair, _) = Pair::prepare(|spec| {
        spec.reader = None;
        spec.clock = ClockChoice::Tsc;
        spec.hogs = vec![last_vcpu()];
        spec.hog_gap_us = Some(10_000);
    });
    pair.say(&HostFrame::Start);
    let mut told = Told::default();
    while told.hogs.is_empty() {
        assert!(pair.listen(&mut told), "hogs do not end by themselves");
    }
    // The agent is a process of this machine, so its clock is this thread's too.
    let clock = Clock::choose(ClockChoice::Tsc);
    for _ in 0..3 {
        let (from, to) = pair.pause(Duration::from_millis(50), clock);
        let is_it = |gap: &HogGap| gap.start.0 <= from && to <= gap.end.0;
        while !told.hog_gaps.iter().flat_map(|gaps| &gaps.gaps).any(is_it) {
            assert!(pair.listen(&mut told), "hogs do not end by themselves");
        }
    }
    let gaps: Vec<HogGap> = told.hog_gaps.iter().flat_map(|gaps| gaps.gaps.clone()).collect();
    assert!(told.hog_gaps.iter().all(|gaps| gaps.vcpu == last_vcpu()));
    assert!(gaps.is_sorted_by(|one, next| one.end <= next.start));
    assert!(gaps.iter().all(|gap| gap.start < gap.end));
    pair.say(&HostFrame::Stop);
    while pair.listen(&mut told) {}
}

#[test]
fn a_stop_before_the_start_ends_the_load() {
    let (mut pair, _) = Pair::prepare(|_| {});
    pair.say(&HostFrame::Stop);
    let told = pair.listen_to_done();
    assert_eq!(told.done().reason, DoneReason::Stopped);
    assert_eq!(pair.thread_names(), ["vslice-agent"]);
    pair.say(&HostFrame::Bye);
    assert!(pair.wait().0.success());
}
