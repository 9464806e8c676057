//! The join, on drawn timelines and by its laws.

use super::OPEN_REQUESTS_MAX;
use super::*;
use crate::clock::{ClockMap, Exchange};
use crate::timeline::{Antagonist, Reason, RunMode, Sleep, Span, ThreadState, UnknownCause, Who};
use crate::units::{HostNs, PcpuId, Tid, VcpuId};
use proptest::prelude::*;
use vslice_wire::{GuestTicks, Request};

const VCPU: VcpuId = VcpuId(2);
const THREAD: Tid = Tid(100);
/// The thread of vCPU 3.
const OTHER_THREAD: Tid = Tid(101);
const HOG: Tid = Tid(200);

/// A map on which guest tick n is host nanosecond n, as long as both are below 2^40, and which is
/// less than 100 ns from sure of it early on.
pub(super) fn identity() -> ClockMap {
    let exchange = |at: u64| Exchange {
        host_sent: HostNs(at),
        guest_received: GuestTicks(at),
        guest_sent: GuestTicks(at),
        host_received: HostNs(at),
    };
    let map = ClockMap::estimate(&[exchange(0), exchange(1 << 40)]).unwrap();
    assert_eq!(map.to_host(GuestTicks(12_345)).unwrap().at, HostNs(12_345));
    assert!(map.to_host(GuestTicks(300_000)).unwrap().bound_ns < 100);
    map
}

/// Requests of vCPUs 2 and 3 on that map.
pub(super) fn placed(request: Request) -> Placed {
    static CLOCKS: std::sync::LazyLock<Clocks> = std::sync::LazyLock::new(|| {
        let mut clocks = Clocks::default();
        clocks.insert(VcpuId(2), identity());
        clocks.insert(VcpuId(3), identity());
        clocks
    });
    CLOCKS.place(request).unwrap()
}

/// Which of the reader's requests it is.
pub(super) fn index(breakdown: &Breakdown) -> u64 {
    breakdown.request.read().unwrap().index
}

fn request(index: u64, submitted: u64, completed: u64) -> Request {
    let (submitted, completed) = (GuestTicks(submitted), GuestTicks(completed));
    Request { index, submitted, completed, vcpu_submitted: 2, vcpu_completed: 2, result: 4096 }
}

pub(super) fn state(character: char) -> ThreadState {
    let pcpu = PcpuId(1);
    let blocked = |reason| ThreadState::Blocked(Sleep::new(reason));
    let running = |mode| ThreadState::Running { pcpu, mode };
    match character {
        '=' => running(RunMode::Unsplit),
        'g' => running(RunMode::Guest),
        'k' => running(RunMode::Kvm),
        'v' => running(RunMode::Vmm),
        'p' => {
            ThreadState::PreemptWait { pcpu, reason: Reason::Timeslice, stack: None, lock: None }
        }
        't' => ThreadState::PreemptWait { pcpu, reason: Reason::Throttle, stack: None, lock: None },
        'w' => ThreadState::WakeupDelay { pcpu, raced: None },
        'f' => blocked(Reason::Bql),
        'h' => blocked(Reason::Halt),
        '_' => blocked(Reason::PollSleep),
        's' => blocked(Reason::Unknown),
        '?' => ThreadState::Unknown { cause: UnknownCause::Lost },
        '.' => ThreadState::Unknown { cause: UnknownCause::NotYetSeen },
        other => panic!("{other} is not in the legend"),
    }
}

/// One span for each run of equal characters, a nanosecond each, from `start_ns` on; in `p` and
/// `w` the hog runs all the time.
pub(super) fn spans(start_ns: u64, drawing: &str) -> Vec<Span> {
    let characters: Vec<char> = drawing.chars().collect();
    let mut start = HostNs(start_ns);
    let mut spans = Vec::new();
    for run in characters.chunk_by(|left, right| left == right) {
        let end = HostNs(start.0 + run.len() as u64);
        let antagonists = match run[0] {
            'p' | 'w' => vec![Antagonist::new(Who::of_tid(HOG), run.len() as u64)],
            _ => Vec::new(),
        };
        spans.push(Span { tid: THREAD, start, end, state: state(run[0]), antagonists });
        start = end;
    }
    spans
}

fn join(spans: &[Span], requests: &[Request]) -> Vec<Breakdown> {
    let mut out = Vec::new();
    let mut join = Join::new(VCPU, THREAD, requests.iter().copied().map(placed));
    for span in spans {
        join.push_span(span, &mut |breakdown| out.push(breakdown));
    }
    join.finish(&mut |breakdown| out.push(breakdown));
    out.sort_by_key(index);
    out
}

/// The spans of two vCPUs, 2 and 3, as a timeline tells of them: in order of their ends.
fn two_threads(drawings: [&str; 2]) -> Vec<Span> {
    let threads = drawings.into_iter().zip([THREAD, OTHER_THREAD]);
    let spans = threads.flat_map(|(drawing, tid)| {
        spans(0, drawing).into_iter().map(move |span| Span { tid, ..span })
    });
    let mut spans: Vec<Span> = spans.collect();
    spans.sort_by_key(|span| span.end);
    spans
}

fn parts(breakdown: &Breakdown) -> Vec<(Part, u64)> {
    Part::ALL
        .into_iter()
        .map(|part| (part, breakdown.parts.get(part)))
        .filter(|(_, length_ns)| *length_ns > 0)
        .collect()
}

#[test]
fn a_drawn_request_adds_up() {
    //              0         1         2
    //              0123456789012345678901234567
    let drawing = "===pppp=====_____wwww=======";
    //                |----- request -------|
    let out = join(&spans(0, drawing), &[request(0, 2, 25)]);
    assert_eq!(
        parts(&out[0]),
        [(Part::OnPcpu, 10), (Part::PreemptWait, 4), (Part::WakeupDelay, 4), (Part::OtherSleep, 5),]
    );
    assert_eq!((out[0].start, out[0].end, out[0].vcpu), (HostNs(2), HostNs(25), VCPU));
    assert_eq!(out[0].latency_ns(), 23);
    assert_eq!(out[0].attribution, Attribution::Attributed);
    assert_eq!(out[0].chain.links().len(), 6);
    assert_eq!(out[0].chain.links()[0].span.start, HostNs(2));
    assert_eq!(out[0].chain.links()[5].span.end, HostNs(25));
}

#[test]
fn antagonists_are_scaled_to_the_part_that_is_inside() {
    let mut timeline = spans(0, "pppppppppp=");
    let antagonist = |tid, ran_ns| Antagonist::new(Who::of_tid(tid), ran_ns);
    timeline[0].antagonists =
        vec![antagonist(HOG, 7), antagonist(Tid(3), 2), antagonist(Tid(4), 1)];
    let out = join(&timeline, &[request(0, 6, 11), request(1, 0, 10)]);
    assert_eq!(
        out[0].chain.links()[0].span.antagonists,
        [antagonist(HOG, 2), antagonist(Tid(3), 1), antagonist(Tid(4), 1)],
        "4 of 10 ns: 2.8, 0.8, 0.4, and all of it is known"
    );
    assert_eq!(out[1].chain.links()[0].span.antagonists, timeline[0].antagonists);
}

#[test]
fn attribution_says_what_must_not_be_believed() {
    let moved = |index, submitted, completed| Request {
        vcpu_completed: 3,
        ..request(index, submitted, completed)
    };
    let timeline = spans(10, "..===???====ssss");
    for (request, expected, unknown_ns, what) in [
        (request(0, 12, 15), Attribution::Attributed, 0, "just inside"),
        (request(0, 12, 16), Attribution::Lost, 1, "touches the loss"),
        (request(0, 17, 20), Attribution::Lost, 1, "begins in the loss"),
        (request(0, 18, 22), Attribution::Attributed, 0, "begins as the loss ends"),
        (request(0, 16, 16), Attribution::Lost, 0, "lasts no time, in the loss"),
        (request(0, 13, 13), Attribution::Attributed, 0, "lasts no time"),
        (request(0, 5, 8), Attribution::NotRecorded, 3, "before the first span"),
        (request(0, 5, 5), Attribution::NotRecorded, 0, "lasts no time, before the first span"),
        (request(0, 5, 14), Attribution::NotRecorded, 7, "begins before the first span"),
        (request(0, 11, 14), Attribution::NotRecorded, 1, "begins before the thread was seen"),
        (request(0, 20, 30), Attribution::NotRecorded, 8, "ends after the last span"),
        (request(0, 40, 50), Attribution::NotRecorded, 10, "after the last span"),
        (request(0, 5, 20), Attribution::Lost, 10, "lost comes before not recorded"),
        (request(0, 20, 24), Attribution::Attributed, 2, "a sleep without a stack is known time"),
        (moved(0, 12, 15), Attribution::Moved, 0, "completed on another vCPU"),
        (moved(0, 12, 17), Attribution::Lost, 2, "lost comes before moved"),
        (request(0, 15, 12), Attribution::Lost, 0, "completed before it was submitted"),
    ] {
        let out = join(&timeline, &[request]);
        assert_eq!(out.len(), 1, "{what}");
        assert_eq!(out[0].attribution, expected, "{what}");
        assert_eq!(out[0].parts.get(Part::Unknown), unknown_ns, "{what}");
        assert_eq!(out[0].parts.total_ns(), out[0].latency_ns(), "{what}");
        assert!(out[0].start <= out[0].end, "{what}");
    }
    let out = join(&spans(10, "???"), &[request(0, 5, 8)]);
    assert_eq!(out[0].attribution, Attribution::NotRecorded, "a loss after it is of no concern");
}

#[test]
fn the_bound_is_that_of_the_end_that_is_known_worse() {
    let beyond = 1 << 42;
    let out = join(&spans(0, "===="), &[request(0, 1, beyond)]);
    let bound_ns = |ticks| identity().to_host(GuestTicks(ticks)).unwrap().bound_ns;
    assert!(bound_ns(1) < bound_ns(beyond));
    assert_eq!(out[0].bounds.worst_ns(), bound_ns(beyond));
}

#[test]
fn a_request_that_comes_too_late_is_split_from_where_the_spans_are() {
    let timeline = spans(0, "=====ppppp");
    // A source that has nothing at first: it is asked again at the next span.
    let arrived = std::cell::RefCell::new(Vec::new());
    let requests = std::iter::from_fn(|| arrived.borrow_mut().pop());
    let mut out = Vec::new();
    let mut join = Join::new(VCPU, THREAD, requests.map(placed));
    join.push_span(&timeline[0], &mut |breakdown| out.push(breakdown));
    arrived.borrow_mut().push(request(1, 1, 8));
    join.push_span(&timeline[1], &mut |breakdown| out.push(breakdown));
    join.finish(&mut |breakdown| out.push(breakdown));
    assert_eq!(out.len(), 1);
    assert_eq!(parts(&out[0]), [(Part::PreemptWait, 3), (Part::Unknown, 4)]);
    assert_eq!(out[0].attribution, Attribution::NotRecorded);
}

#[test]
fn spans_of_other_threads_are_passed_over() {
    let mut timeline = spans(0, "====");
    timeline.insert(0, Span { tid: HOG, ..spans(0, "????").remove(0) });
    let out = join(&timeline, &[request(0, 1, 3)]);
    assert_eq!(parts(&out[0]), [(Part::OnPcpu, 2)]);
}

#[test]
fn a_long_chain_is_cut_and_still_adds_up() {
    let drawing = "=p".repeat(50);
    let out = join(&spans(0, &drawing), &[request(0, 0, 100)]);
    assert_eq!(out[0].chain.links().len(), CHAIN_SPANS_MAX);
    assert_eq!(out[0].chain.cut_count, 100 - CHAIN_SPANS_MAX as u64);
    assert_eq!(parts(&out[0]), [(Part::OnPcpu, 50), (Part::PreemptWait, 50)]);
}

#[test]
fn requests_that_never_end_are_given_up_beyond_the_limit() {
    let count = OPEN_REQUESTS_MAX as u64 + 10;
    let endless: Vec<Request> =
        (0..count).map(|index| request(index, 1, u64::MAX - index)).collect();
    let mut before_finish = 0;
    let mut join = Join::new(VCPU, THREAD, endless.into_iter().map(placed));
    join.push_span(&spans(0, "====")[0], &mut |breakdown| {
        assert_eq!(breakdown.attribution, Attribution::NotRecorded);
        assert_eq!(breakdown.parts.total_ns(), breakdown.latency_ns());
        before_finish += 1;
    });
    let mut after = 0;
    join.finish(&mut |_| after += 1);
    assert_eq!((before_finish, after), (10, OPEN_REQUESTS_MAX));
}

fn a_drawing() -> impl Strategy<Value = String> {
    let character =
        prop::sample::select(vec!['=', 'g', 'k', 'v', 'p', 't', 'w', 'f', 'h', '_', 's', '?', '.']);
    prop::collection::vec((character, 1..8_usize), 1..40).prop_map(|runs| {
        runs.into_iter().map(|(character, length)| character.to_string().repeat(length)).collect()
    })
}

proptest! {
    #[test]
    fn every_nanosecond_lands_in_exactly_one_part(
        drawing in a_drawing(),
        start_ns in 0..40_u64,
        windows in prop::collection::vec((0..250_u64, 0..120_u64, any::<bool>()), 0..20),
    ) {
        let mut windows = windows;
        windows.sort_unstable();
        let requests: Vec<Request> = windows.iter().zip(0..).map(|((start, length, moved), index)| {
            let vcpu_completed = if *moved { 3 } else { 2 };
            Request { vcpu_completed, ..request(index, *start, start + length) }
        }).collect();
        let out = join(&spans(start_ns, &drawing), &requests);
        prop_assert_eq!(out.len(), requests.len());
        for (breakdown, expected) in out.iter().zip(&requests) {
            prop_assert_eq!(breakdown.request, GuestRequest::Read(*expected));
            prop_assert_eq!(breakdown.parts.total_ns(), breakdown.latency_ns());
            prop_assert_eq!(breakdown.latency_ns(), expected.completed.0 - expected.submitted.0);
            check_against_drawing(breakdown, start_ns, &drawing)?;
            check_chain(breakdown)?;
        }
    }
}

proptest! {
    /// Requests of two vCPUs, joined together or each vCPU on its own.
    #[test]
    fn a_join_of_two_vcpus_splits_as_two_joins_do(
        drawings in (a_drawing(), a_drawing()),
        windows in prop::collection::vec((0..250_u64, 0..120_u64, 2..4_u16, 2..4_u16), 0..20),
    ) {
        let mut windows = windows;
        windows.sort_unstable();
        let requests = windows.iter().zip(0..).map(|((start, length, from, to), index)| {
            let (vcpu_submitted, vcpu_completed) = (*from, *to);
            Request { vcpu_submitted, vcpu_completed, ..request(index, *start, start + length) }
        });
        let requests: Vec<Placed> = requests.map(placed).collect();
        let timeline = two_threads([&drawings.0, &drawings.1]);
        let split_by = |vcpus: &[(VcpuId, Tid)]| {
            let mut join = Join::of_vcpus(vcpus.iter().copied(), requests.iter().copied());
            let mut out = Vec::new();
            for span in &timeline {
                join.push_span(span, &mut |breakdown| out.push(breakdown));
            }
            join.finish(&mut |breakdown| out.push(breakdown));
            out
        };
        let vcpus = [(VCPU, THREAD), (VcpuId(3), OTHER_THREAD)];
        let mut together = split_by(&vcpus);
        let mut apart = [split_by(&vcpus[..1]), split_by(&vcpus[1..])].concat();
        together.sort_by_key(index);
        apart.sort_by_key(index);
        prop_assert_eq!(together.len(), requests.len());
        prop_assert_eq!(together, apart);
    }
}

/// vCPU 3 sleeps on while vCPU 2 comes and goes: its request waits for its own span.
#[test]
fn a_request_waits_for_the_span_of_its_own_thread() {
    //               0         1         2
    //               012345678901234567890
    let drawings = ["==pp==pp==pp==pp==pp=", "====================="];
    let of = |vcpu, request| Request { vcpu_submitted: vcpu, vcpu_completed: vcpu, ..request };
    let requests = [of(3, request(0, 1, 9)), of(2, request(1, 2, 6)), of(3, request(2, 12, 15))];
    let mut out = Vec::new();
    let vcpus = [(VCPU, THREAD), (VcpuId(3), OTHER_THREAD)];
    let mut join = Join::of_vcpus(vcpus, requests.into_iter().map(placed));
    for span in two_threads(drawings) {
        join.push_span(&span, &mut |breakdown| out.push(breakdown));
    }
    join.finish(&mut |breakdown| out.push(breakdown));
    out.sort_by_key(index);
    let parts: Vec<_> = out.iter().map(parts).collect();
    let expected = [
        vec![(Part::OnPcpu, 8)],
        vec![(Part::OnPcpu, 2), (Part::PreemptWait, 2)],
        vec![(Part::OnPcpu, 3)],
    ];
    assert_eq!(parts, expected);
    assert!(out.iter().all(|breakdown| breakdown.attribution == Attribution::Attributed));
}

/// Each part by counting characters.
fn check_against_drawing(
    breakdown: &Breakdown,
    start_ns: u64,
    drawing: &str,
) -> Result<(), TestCaseError> {
    let at = |time_ns: u64| {
        let place = usize::try_from(time_ns.checked_sub(start_ns)?).unwrap();
        drawing.chars().nth(place)
    };
    let mut expected = PartsNs::default();
    let (mut lost, mut not_recorded) = (false, false);
    for time_ns in breakdown.start.0..breakdown.end.0 {
        let character = at(time_ns);
        lost |= character == Some('?');
        not_recorded |= character.is_none_or(|character| character == '.');
        expected.add(character.map_or(Part::Unknown, |character| Part::of(&state(character))), 1);
    }
    prop_assert_eq!(breakdown.parts, expected);
    if breakdown.latency_ns() > 0 {
        let moved = breakdown.request.vcpu_completed() != breakdown.request.vcpu_issued();
        let attribution = match (lost, not_recorded, moved) {
            (true, _, _) => Attribution::Lost,
            (_, true, _) => Attribution::NotRecorded,
            (_, _, true) => Attribution::Moved,
            _ => Attribution::Attributed,
        };
        prop_assert_eq!(breakdown.attribution, attribution);
    }
    Ok(())
}

/// The chain tiles the window and credits no more than it holds.
fn check_chain(breakdown: &Breakdown) -> Result<(), TestCaseError> {
    let chain: Vec<&Span> = breakdown.chain.spans().collect();
    prop_assert_eq!(breakdown.chain.cut_count, 0);
    prop_assert!(chain.windows(2).all(|pair| pair[0].end == pair[1].start));
    let mut parts = PartsNs::default();
    for link in breakdown.chain.links() {
        let (span, split) = (&link.span, link.split);
        prop_assert_eq!(span.tid, THREAD);
        prop_assert!(span.length_ns() > 0);
        let split_ns = [split.guest_ns, split.kvm_ns, split.vmm_ns];
        for (part, split_ns) in [Part::Guest, Part::Kvm, Part::VmmUser].into_iter().zip(split_ns) {
            parts.add(part, split_ns);
        }
        let unsplit_ns = span.length_ns().checked_sub(split_ns.iter().sum());
        prop_assert!(unsplit_ns.is_some());
        parts.add(Part::of(&span.state), unsplit_ns.unwrap());
        let ran_ns: u64 = span.antagonists.iter().map(|who| who.ran_ns).sum();
        prop_assert!(ran_ns <= span.length_ns());
    }
    prop_assert_eq!(parts, breakdown.parts);
    if let (Some(first), Some(last)) = (chain.first(), chain.last()) {
        prop_assert_eq!((first.start, last.end), (breakdown.start, breakdown.end));
    }
    Ok(())
}
