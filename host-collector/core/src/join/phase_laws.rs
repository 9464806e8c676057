//! I/O phases, on drawn timelines and by their laws.
//!
//! A character of a drawing is a microsecond. The first line is the vCPU's thread, as in
//! [`super::laws`]; request and I/O are given by their beginnings and ends.

use super::laws::{index, placed};
use super::*;
use crate::extent::Extent;
use crate::host_event::{BlockEvent, BlockStep};
use crate::timeline::{Reason, RunMode, Sleep, Span, ThreadState};
use crate::units::{HostNs, PcpuId, Tid, VcpuId};
use proptest::prelude::*;
use vslice_spec::Pattern;
use vslice_wire::{GuestTicks, Request};

const THREAD: Tid = Tid(100);
const UNIT_NS: u64 = 1000;
/// Far more than the clock map is off by, far less than a character.
const SLIGHTLY_NS: u64 = 100;

fn at(units: u64) -> HostNs {
    HostNs(units * UNIT_NS)
}

fn request(index: u64, from: u64, to: u64) -> Request {
    let (submitted, completed) = (GuestTicks(from * UNIT_NS), GuestTicks(to * UNIT_NS));
    Request { index, submitted, completed, vcpu_submitted: 2, vcpu_completed: 2, result: 4096 }
}

fn spans(drawing: &str) -> Vec<Span> {
    let pcpu = PcpuId(1);
    let characters: Vec<char> = drawing.chars().collect();
    let mut start = HostNs(0);
    let span = |run: &[char]| {
        let state = match run[0] {
            'p' => ThreadState::PreemptWait {
                pcpu,
                reason: Reason::Timeslice,
                stack: None,
                lock: None,
            },
            'w' => ThreadState::WakeupDelay { pcpu, raced: None },
            'h' => ThreadState::Blocked(Sleep::new(Reason::Halt)),
            'b' => ThreadState::Blocked(Sleep::new(Reason::Bql)),
            'l' => ThreadState::Blocked(Sleep::new(Reason::VmmLock)),
            _ => ThreadState::Running { pcpu, mode: RunMode::Unsplit },
        };
        let end = HostNs(start.0 + run.len() as u64 * UNIT_NS);
        let span = Span { tid: THREAD, start, end, state, antagonists: vec![] };
        start = end;
        span
    };
    characters.chunk_by(|left, right| left == right).map(span).collect()
}

/// A disk of 16 blocks whose block n is at sectors `8 * n`.
fn target(access: HostAccess) -> Target {
    let extent = Extent { offset_bytes: 0, sector: 0, length_bytes: 16 * 4096 };
    Target {
        access,
        pattern: Pattern::Seq,
        block_bytes: 4096,
        size_bytes: 16 * 4096,
        offset_bytes: 0,
        extents: Some(vec![extent]),
    }
}

fn unmapped(access: HostAccess) -> Target {
    Target { extents: None, ..target(access) }
}

/// What the disk did at a time in nanoseconds: `>` the VM submits, `o` somebody else does, `<` done,
/// `x` events are lost from here for a unit; of sectors.
type Deed = (u64, char, u64, u32);

/// An I/O of the VM for one block.
fn io(from: u64, to: u64, block: u64) -> [Deed; 2] {
    [(from * UNIT_NS, '>', block * 8, 8), (to * UNIT_NS, '<', block * 8, 8)]
}

fn push_deed<Requests: Iterator<Item = Placed>>(
    join: &mut Join<Requests>,
    (time, kind, sector, sectors): Deed,
) {
    let (tid, device) = (Tid(1), 254 << 20);
    let (step, submitter) = match kind {
        '>' => (BlockStep::Submitted, Submitter::OwnVm),
        'o' => (BlockStep::Submitted, Submitter::Other),
        '<' => (BlockStep::Completed, Submitter::Other),
        _ => return join.lost(HostNs(time), HostNs(time + UNIT_NS)),
    };
    join.push_io(
        HostNs(time),
        &BlockEvent { step, tid, device, sector, sectors, operation: None },
        submitter,
    );
}

/// As the analysis does it: each span comes when its end has been seen.
fn join(target: Target, drawing: &str, requests: &[Request], deeds: &[Deed]) -> Vec<Breakdown> {
    let mut out = Vec::new();
    let mut join =
        Join::new(VcpuId(2), THREAD, requests.iter().copied().map(placed)).with_target(target);
    let mut deeds = deeds.to_vec();
    deeds.sort_by_key(|deed| deed.0);
    let mut deeds = deeds.into_iter().peekable();
    for span in spans(drawing) {
        while let Some(deed) = deeds.next_if(|deed| deed.0 <= span.end.0) {
            push_deed(&mut join, deed);
        }
        join.advance(span.end);
        join.push_span(&span, &mut |breakdown| out.push(breakdown));
    }
    deeds.for_each(|deed| push_deed(&mut join, deed));
    join.finish(&mut |breakdown| out.push(breakdown));
    out.sort_by_key(index);
    out
}

/// What is not 0, in units.
fn drawn(breakdown: &Breakdown) -> Vec<(Phase, Part, u64)> {
    let phases = Phase::ALL.into_iter();
    let all = phases.flat_map(|phase| Part::ALL.into_iter().map(move |part| (phase, part)));
    let lengths = all.map(|(phase, part)| (phase, part, breakdown.phases.of(phase).get(part)));
    lengths
        .filter(|(.., length_ns)| *length_ns > 0)
        .map(|(phase, part, length_ns)| (phase, part, length_ns / UNIT_NS))
        .collect()
}

fn marks(from: u64, to: u64) -> Result<IoMarks, NoPhase> {
    Ok(IoMarks { submitted: at(from), completed: at(to) })
}

#[test]
fn a_drawn_request_is_crossed_with_its_phases() {
    //             0         1         2
    //             0123456789012345678901234567
    let drawing = "====hhhhhhwwpppppppp========";
    //               |--->-------<--------|       request 3, its I/O
    let out = join(target(HostAccess::Direct), drawing, &[request(3, 2, 24)], &io(6, 14, 3));
    assert_eq!(out[0].io, marks(6, 14));
    assert_eq!(
        drawn(&out[0]),
        [
            (Phase::Queued, Part::OnPcpu, 2),
            (Phase::Queued, Part::Halt, 2),
            (Phase::Device, Part::PreemptWait, 2),
            (Phase::Device, Part::WakeupDelay, 2),
            (Phase::Device, Part::Halt, 4),
            (Phase::Completed, Part::OnPcpu, 4),
            (Phase::Completed, Part::PreemptWait, 6),
        ]
    );
    assert_eq!(out[0].phases.inactivity_ns(), 6 * UNIT_NS);
}

#[test]
fn inactivity_is_whatever_keeps_the_vcpu_from_data_that_is_there() {
    //             0         1         2         3
    //             0123456789012345678901234567890123
    let drawing = "====hhhhhhwwppbbbhhhllwwpppp=====";
    //               |->---<---------------------|     its I/O is done at 8
    let out = join(target(HostAccess::Direct), drawing, &[request(3, 2, 30)], &io(4, 8, 3));
    // Not the halts: the guest had yet to be told.
    let (waits, locks) = ((2 + 4) + (2 + 2), 3 + 2);
    assert_eq!(out[0].phases.inactivity_ns(), (waits + locks) * UNIT_NS);
}

/// One request, of block 3 and from 10 to 20, and what is known of its I/O.
#[test]
fn what_is_not_certain_is_not_known() {
    let direct = |deeds: &[Deed]| {
        join(target(HostAccess::Direct), &"=".repeat(40), &[request(3, 10, 20)], deeds)[0].io
    };
    let (own, next, lost) = (io(12, 16, 3), io(13, 17, 4), [(18 * UNIT_NS, 'x', 0, 0)]);
    for (deeds, expected, what) in [
        (own.to_vec(), marks(12, 16), "its own"),
        (vec![], Err(NoPhase::NoIo), "none"),
        (next.to_vec(), Err(NoPhase::NoIo), "for another block"),
        ([own, next].concat(), marks(12, 16), "another block's beside its own"),
        (
            [io(11, 14, 3), io(15, 18, 3)].concat(),
            Err(NoPhase::Ambiguous),
            "twice: one may be for a request that was not recorded",
        ),
        (
            [io(8, 12, 3), io(13, 16, 3)].concat(),
            marks(13, 16),
            "another's was over when its own came",
        ),
        (io(8, 22, 3).to_vec(), Err(NoPhase::NoIo), "longer than the request"),
        (
            vec![(12_000, '>', 24, 4), (16_000, '<', 24, 4)],
            Err(NoPhase::Unfinished),
            "of one half only",
        ),
        (
            vec![(2_000, '>', 24, 8), own[0], own[1]],
            Err(NoPhase::Ambiguous),
            "what was not seen to end may be what ended",
        ),
        (io(8, 16, 3).to_vec(), Err(NoPhase::Contradiction), "submitted before it"),
        (io(12, 22, 3).to_vec(), Err(NoPhase::Contradiction), "done after it"),
        (vec![own[0]], Err(NoPhase::Unfinished), "never done"),
        (io(2, 8, 3).to_vec(), Err(NoPhase::NoIo), "over before it"),
        (io(22, 25, 3).to_vec(), Err(NoPhase::NoIo), "begun after it"),
        (vec![(9_999, '>', 24, 8), own[1]], marks(10, 16), "before it, within the bound"),
        (vec![own[0], (20_001, '<', 24, 8)], marks(12, 20), "done after it, within the bound"),
        (
            vec![(10_000 - SLIGHTLY_NS, '>', 24, 8), own[1]],
            Err(NoPhase::Contradiction),
            "before it, beyond the bound",
        ),
        (
            [&own[..], &[(13 * UNIT_NS, 'o', 24, 8)]].concat(),
            Err(NoPhase::Unfinished),
            "others' came meanwhile",
        ),
        (
            [&own[..], &[(11 * UNIT_NS, 'o', 24, 8)]].concat(),
            Err(NoPhase::Ambiguous),
            "others' came first",
        ),
        ([&own[..], &lost].concat(), Err(NoPhase::Lost), "events were lost meanwhile"),
        ([&own[..], &[(30 * UNIT_NS, 'x', 0, 0)]].concat(), marks(12, 16), "lost later"),
        (
            vec![
                (11_000, '>', 24, 4),
                (12_000, '>', 28, 4),
                (15_000, '<', 24, 4),
                (17_000, '<', 28, 4),
            ],
            marks(11, 17),
            "two bios",
        ),
        (vec![(12_000, '>', 16, 32), (16_000, '<', 16, 32)], marks(12, 16), "merged with others'"),
    ] {
        assert_eq!(direct(&deeds), expected, "{what}");
    }
}

#[test]
fn io_beyond_its_request_is_measured_where_it_could_be_seen() {
    let check = |target, deeds: &[Deed]| {
        join(target, &"=".repeat(40), &[request(3, 10, 20)], deeds)[0].io_check
    };
    // Less what the ends may be off by.
    let is_about = |found: IoCheck, units: u64| {
        let IoCheck::Beyond { excess_ns } = found else { return false };
        (units * UNIT_NS - SLIGHTLY_NS..=units * UNIT_NS).contains(&excess_ns)
    };
    let direct = |deeds: &[Deed]| check(target(HostAccess::Direct), deeds);
    assert_eq!(direct(&io(12, 16, 3)), IoCheck::Within);
    let slightly = [(9_999, '>', 24, 8), (16_000, '<', 24, 8)];
    assert_eq!(direct(&slightly), IoCheck::Within, "within the bound");
    assert!(is_about(direct(&io(7, 16, 3)), 3), "submitted before it");
    assert!(is_about(direct(&io(16, 25, 3)), 5), "done after it");
    assert_eq!(direct(&io(8, 26, 3)), IoCheck::Unseen, "no request's I/O outlasts it");
    let passed_over = [io(7, 9, 3), io(7, 14, 3)].concat();
    assert_eq!(direct(&passed_over), IoCheck::Unseen, "its end may be the other one's");
    assert_eq!(direct(&io(12, 16, 4)), IoCheck::Unseen, "only for another block");
    assert_eq!(check(target(HostAccess::Cached), &io(12, 16, 3)), IoCheck::Unchecked);
    assert_eq!(check(unmapped(HostAccess::Direct), &io(12, 16, 3)), IoCheck::Unchecked);
}

#[test]
fn several_in_flight_are_told_apart_by_their_sectors() {
    let requests = [request(0, 2, 20), request(1, 3, 22), request(2, 4, 30)];
    let deeds = [io(6, 12, 0), io(7, 9, 1), io(8, 25, 2)].concat();
    let drawing = "=".repeat(40);
    let known = |target, requests: &[Request], deeds: &[Deed]| {
        let out = join(target, &drawing, requests, deeds);
        out.into_iter().map(|breakdown| breakdown.io).collect::<Vec<_>>()
    };
    let out = known(target(HostAccess::Direct), &requests, &deeds);
    assert_eq!(out, [marks(6, 12), marks(7, 9), marks(8, 25)]);
    // Guest or VMM made one I/O of all three.
    let merged = [(6_000, '>', 0, 24), (15_000, '<', 0, 24)];
    assert_eq!(known(target(HostAccess::Direct), &requests, &merged), [marks(6, 15); 3]);
    let ambiguous = Err(NoPhase::Ambiguous);
    // Each of them lies in at least two of the requests.
    let out = known(unmapped(HostAccess::Direct), &requests, &deeds);
    assert_eq!(out, [ambiguous, ambiguous, ambiguous]);
    // Both read block 0, one after the other by the host's account, together by the guest's.
    let same = [request(0, 2, 20), request(16, 3, 22)];
    let deeds = [io(6, 8, 0), io(9, 12, 0)].concat();
    assert_eq!(known(target(HostAccess::Direct), &same, &deeds), [ambiguous, ambiguous]);
}

#[test]
fn without_a_map_one_request_in_flight_must_have_all_of_the_io() {
    let requests = [request(0, 2, 10), request(1, 12, 20)];
    let io_of = |access, deeds: &[Deed]| {
        let out = join(unmapped(access), &"=".repeat(30), &requests, deeds);
        out.into_iter().map(|breakdown| breakdown.io).collect::<Vec<_>>()
    };
    let (ambiguous, none) = (Err(NoPhase::Ambiguous), Err(NoPhase::NoIo));
    let known = io_of(HostAccess::Direct, &[io(4, 8, 77), io(14, 18, 99)].concat());
    assert_eq!(known, [marks(4, 8), marks(14, 18)]);
    let two = [(3_000, '>', 5, 3), (4_000, '>', 90, 5), (5_000, '<', 5, 3), (9_000, '<', 90, 5)];
    assert_eq!(io_of(HostAccess::Direct, &two), [marks(3, 9), none]);
    let too_long = [(3_000, '>', 8, 16), (5_000, '<', 8, 16)];
    assert_eq!(io_of(HostAccess::Direct, &too_long), [ambiguous, none]);
    let between = io(9, 13, 5);
    assert_eq!(io_of(HostAccess::Direct, &between), [none, none]);
    assert_eq!(io_of(HostAccess::Cached, &io(4, 8, 77)), [ambiguous, none]);
}

#[test]
fn through_the_page_cache_whoever_needs_the_sectors_waits_for_them() {
    let requests = [request(0, 2, 10), request(1, 12, 20), request(2, 22, 28)];
    // Block 1 is read ahead, and the second request comes meanwhile; block 2 is there already.
    let deeds = [io(4, 9, 0), io(5, 15, 1)].concat();
    let out = join(target(HostAccess::Cached), &"=".repeat(30), &requests, &deeds);
    let known: Vec<_> = out.iter().map(|breakdown| breakdown.io).collect();
    assert_eq!(known, [marks(4, 9), marks(12, 15), Err(NoPhase::PageCache)]);
    let ahead = [io(3, 8, 0), io(4, 9, 1)].concat();
    let out = join(target(HostAccess::Cached), &"=".repeat(30), &requests, &ahead);
    let known: Vec<_> = out.iter().map(|breakdown| breakdown.io).collect();
    assert_eq!(known, [marks(3, 8), Err(NoPhase::PageCache), Err(NoPhase::PageCache)]);
}

/// Guest or VMM makes two I/Os of it, and its vCPU is kept from handing over the second.
#[test]
fn a_gap_between_a_requests_own_ios_is_not_the_disks() {
    let requests = [request(0, 2, 30)];
    let halves = [(4_000, '>', 0, 4), (8_000, '<', 0, 4), (20_000, '>', 4, 4), (25_000, '<', 4, 4)];
    let drawing = format!("{}{}{}", "=".repeat(8), "p".repeat(12), "=".repeat(20));
    let out = join(target(HostAccess::Direct), &drawing, &requests, &halves);
    assert_eq!(out[0].io, marks(4, 25));
    let phase = |phase, part| out[0].phases.of(phase).get(part) / UNIT_NS;
    assert_eq!(phase(Phase::Device, Part::OnPcpu), 9);
    assert_eq!(phase(Phase::Device, Part::PreemptWait), 0);
    assert_eq!(phase(Phase::Queued, Part::PreemptWait), 12);
    assert_eq!((phase(Phase::Queued, Part::OnPcpu), phase(Phase::Completed, Part::OnPcpu)), (2, 5));
    adds_up(&out[0]);
}

#[test]
fn the_page_cache_is_only_said_where_nobody_may_have_had_io_in_flight() {
    let requests = [request(0, 12, 20)];
    let of = |target: Target, deeds: &[Deed]| join(target, &"=".repeat(30), &requests, deeds)[0].io;
    let (cached, served) = (|| target(HostAccess::Cached), Err(NoPhase::PageCache));
    assert_eq!(of(cached(), &[]), served);
    assert_eq!(of(cached(), &io(2, 8, 0)), served, "it was read before");
    assert_eq!(of(cached(), &io(22, 28, 0)), served, "it is read again later");
    // Somebody else reads the sectors meanwhile, or began before and was not seen to end.
    let others = [(14_000, 'o', 0, 8), (18_000, '<', 0, 8)];
    assert_ne!(of(cached(), &others), served);
    assert_ne!(of(cached(), &[(2_000, '>', 0, 8)]), served);
    // Without O_DIRECT's opposite, or without the sectors, there must have been I/O somewhere.
    assert_eq!(of(target(HostAccess::Direct), &[]), Err(NoPhase::NoIo));
    assert_eq!(of(unmapped(HostAccess::Cached), &[]), Err(NoPhase::NoIo));
}

#[test]
fn a_request_waits_for_the_io_that_may_be_its_own_and_no_longer() {
    let requests = vec![request(0, 2, 10), request(1, 12, 14)];
    let mut join = Join::new(VcpuId(2), THREAD, requests.into_iter().map(placed))
        .with_target(target(HostAccess::Direct));
    let mut out = 0;
    for deed in io(4, 8, 0) {
        push_deed(&mut join, deed);
    }
    let [first, second, third] = ["=".repeat(10), "p".repeat(5), "=".repeat(5)];
    let timeline = spans(&format!("{first}{second}{third}"));
    join.push_span(&timeline[0], &mut |_| out += 1);
    assert_eq!(out, 0, "its last I/O may be done a nanosecond later");
    join.advance(at(11));
    join.push_span(&timeline[1], &mut |breakdown: Breakdown| {
        assert_eq!((index(&breakdown), breakdown.io), (0, marks(4, 8)));
    });
    join.finish(&mut |_| out += 1);
    assert_eq!(out, 1);
}

#[test]
fn without_a_target_all_is_in_no_phase() {
    let mut out = Vec::new();
    let requests = vec![request(0, 2, 10)].into_iter();
    let mut join = Join::new(VcpuId(2), THREAD, requests.map(placed));
    io(4, 8, 0).into_iter().for_each(|deed| push_deed(&mut join, deed));
    join.push_span(&spans(&"=".repeat(20))[0], &mut |breakdown| out.push(breakdown));
    assert_eq!(out[0].io, Err(NoPhase::NotRecorded));
    assert_eq!(drawn(&out[0]), [(Phase::Unknown, Part::OnPcpu, 8)]);
}

fn a_drawing() -> impl Strategy<Value = String> {
    let run = (prop::sample::select(vec!['=', 'p', 'w', 'h']), 1..8_usize);
    prop::collection::vec(run, 1..30).prop_map(|runs| {
        runs.into_iter().map(|(character, length)| character.to_string().repeat(length)).collect()
    })
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let io = (0..150_000_u64, 0..30_000_u64, 0..16_u64, 1..3_u32, prop::bool::weighted(0.9));
    let one = io.prop_map(|(from, length, block, blocks, is_own)| {
        let submit = if is_own { '>' } else { 'o' };
        vec![(from, submit, block * 8, blocks * 8), (from + length, '<', block * 8, blocks * 8)]
    });
    let lost = prop::collection::vec(0..150_000_u64, 0..2)
        .prop_map(|times| times.into_iter().map(|time| (time, 'x', 0, 0)).collect());
    let ios = prop::collection::vec(one, 0..30).prop_map(|ios| ios.concat());
    (ios, lost).prop_map(|(ios, lost): (Vec<Deed>, Vec<Deed>)| [ios, lost].concat())
}

proptest! {
    #[test]
    fn every_nanosecond_lands_in_one_phase_and_one_part(
        drawing in a_drawing(), deeds in deeds(), is_direct in any::<bool>(),
        is_mapped in prop::bool::weighted(0.8),
        windows in prop::collection::vec((0..150_u64, 0..60_u64), 0..20),
    ) {
        let mut windows = windows;
        windows.sort_unstable();
        let requests: Vec<Request> = windows.iter().zip(0..)
            .map(|((start, length), index)| request(index, *start, start + length)).collect();
        let access = if is_direct { HostAccess::Direct } else { HostAccess::Cached };
        let target = if is_mapped { target(access) } else { unmapped(access) };
        let out = join(target.clone(), &drawing, &requests, &deeds);
        prop_assert_eq!(out.len(), requests.len());
        for breakdown in &out {
            for part in Part::ALL {
                let of_part = Phase::ALL.map(|phase| breakdown.phases.of(phase).get(part));
                prop_assert_eq!(of_part.iter().sum::<u64>(), breakdown.parts.get(part));
            }
            let phase_ns = |phase| breakdown.phases.of(phase).total_ns();
            match breakdown.io {
                Err(_) => prop_assert_eq!(phase_ns(Phase::Unknown), breakdown.latency_ns()),
                Ok(marks) => {
                    prop_assert_eq!(phase_ns(Phase::Queued), marks.submitted.since_ns(breakdown.start));
                    prop_assert_eq!(phase_ns(Phase::Device), marks.completed.since_ns(marks.submitted));
                    prop_assert_eq!(phase_ns(Phase::Completed), breakdown.end.since_ns(marks.completed));
                    check_submission(breakdown, &target, &deeds)?;
                }
            }
        }
    }
}

/// Somebody of the VM submitted I/O for it when the marks say so.
fn check_submission(
    breakdown: &Breakdown,
    target: &Target,
    deeds: &[Deed],
) -> Result<(), TestCaseError> {
    let marks = breakdown.io.unwrap();
    let sectors = target.sectors_of(index(breakdown));
    let is_it = |(time, kind, sector, count): &Deed| {
        let clamped = HostNs(*time).clamp(breakdown.start, breakdown.end);
        let range = *sector..*sector + u64::from(*count);
        let reads = sectors.as_ref().is_none_or(|own| target::overlap(&own[0], &range));
        *kind == '>' && clamped == marks.submitted && reads
    };
    prop_assert!(deeds.iter().any(is_it), "{:?} of {:?}", marks, deeds);
    Ok(())
}

/// Over all phases each part is what the join says of it.
fn adds_up(breakdown: &Breakdown) {
    assert!(breakdown.io.is_ok(), "{:?}", breakdown.io);
    for part in Part::ALL {
        let of_part = Phase::ALL.map(|phase| breakdown.phases.of(phase).get(part));
        let over_phases: u64 = of_part.iter().sum();
        assert_eq!(over_phases, breakdown.parts.get(part), "{part:?}");
    }
}

#[test]
fn spans_that_a_late_request_missed_are_unknown_in_its_phases_too() {
    let arrived = std::cell::RefCell::new(Vec::new());
    let requests = std::iter::from_fn(|| arrived.borrow_mut().pop());
    let mut join =
        Join::new(VcpuId(2), THREAD, requests.map(placed)).with_target(target(HostAccess::Direct));
    let timeline = spans("==========pppppppppp");
    join.push_span(&timeline[0], &mut |_| unreachable!("none has come"));
    arrived.borrow_mut().push(request(0, 2, 18));
    io(4, 14, 0).into_iter().for_each(|deed| push_deed(&mut join, deed));
    let mut out = Vec::new();
    join.push_span(&timeline[1], &mut |breakdown| out.push(breakdown));
    join.finish(&mut |breakdown| out.push(breakdown));
    adds_up(&out[0]);
    let expected = [
        (Phase::Queued, Part::Unknown, 2),
        (Phase::Device, Part::PreemptWait, 4),
        (Phase::Device, Part::Unknown, 6),
        (Phase::Completed, Part::PreemptWait, 4),
    ];
    assert_eq!(drawn(&out[0]), expected);
}

#[test]
fn spans_after_a_request_was_given_up_are_unknown_in_its_phases_too() {
    let count = super::OPEN_REQUESTS_MAX as u64 + 1;
    let requests: Vec<Request> = (0..count).map(|index| request(index, 2, 18)).collect();
    let deeds = io(4, 14, (count - 1) % 16);
    let out = join(target(HostAccess::Cached), "==========pppppppppp", &requests, &deeds);
    let given_up = &out[usize::try_from(count - 1).unwrap()];
    assert_eq!(given_up.attribution, Attribution::NotRecorded);
    adds_up(given_up);
    let unknown_ns = given_up.phases.of(Phase::Completed).get(Part::Unknown);
    assert_eq!(unknown_ns, 4 * UNIT_NS);
}
