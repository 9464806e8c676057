//! The join of observed requests, on drawn timelines of several vCPUs and by its laws.
//!
//! A character of a drawing is a nanosecond, as in [`super::laws`]. The first line is vCPU 0, the next vCPU 1,
//! and so on.

use super::laws::{spans, state};
use super::*;
use crate::extent::Extent;
use crate::host_event::{BlockEvent, BlockStep};
use crate::timeline::{Antagonist, Span, Who};
use crate::units::{HostNs, Tid, VcpuId};
use proptest::prelude::*;
use std::ops::Range;
use vslice_wire::{BlockOperation, CompletionVcpu, GuestTicks, ObservedFlags, ObservedRequest};

/// The host's disk that the guest's is on.
pub(super) const DEVICE: u32 = 254 << 20;
const HOG: u32 = 200;

/// The thread of a vCPU.
pub(super) fn thread(vcpu: u16) -> Tid {
    Tid(100 + u32::from(vcpu))
}

/// Queued, issued and completed then, on these vCPUs: a read of 4 KiB, at sector 0.
pub(super) fn observed(times: [u64; 3], vcpus: [u16; 3]) -> ObservedRequest {
    ObservedRequest {
        device: 0,
        operation: BlockOperation::Read,
        flags: ObservedFlags(0),
        sector: 0,
        bytes: 4096,
        queued: GuestTicks(times[0]),
        issued: GuestTicks(times[1]),
        completed: GuestTicks(times[2]),
        vcpu_queued: vcpus[0],
        vcpu_issued: vcpus[1],
        vcpu_completed: vcpus[2],
        task: 0,
        result: 0,
    }
}

/// At the host's times that its guest times are, off by no more than this.
pub(super) fn placed_within(request: ObservedRequest, bounds: Bounds) -> Placed {
    let at = |ticks: GuestTicks| HostNs(ticks.0);
    let is_one = request.vcpu_queued == request.vcpu_completed;
    Placed {
        request: GuestRequest::Observed(request),
        start: at(request.queued),
        issued: Some(at(request.issued)),
        end: at(request.completed),
        bounds,
        length_error_ns: if is_one { 0 } else { bounds.start_ns + bounds.end_ns },
    }
}

fn placed(request: ObservedRequest) -> Placed {
    placed_within(request, Bounds::default())
}

/// The spans of these vCPUs, as a timeline tells of them: in order of their ends.
pub(super) fn of_vcpus(drawings: &[&str]) -> Vec<Span> {
    let all = (0..).zip(drawings).flat_map(|(vcpu, drawing)| {
        spans(0, drawing).into_iter().map(move |span| {
            // Each has a hog of its own.
            let hog = |ran: &Antagonist| Antagonist {
                who: Who::of_tid(Tid(HOG + u32::from(vcpu))),
                ..ran.clone()
            };
            let antagonists = span.antagonists.iter().map(hog).collect();
            Span { tid: thread(vcpu), antagonists, ..span }
        })
    });
    let mut all: Vec<Span> = all.collect();
    all.sort_by_key(|span| span.end);
    all
}

/// A disk of 64 KiB whose sector n is the host's sector 1000 + n.
pub(super) fn disk(access: HostAccess) -> ObservedDisk {
    let extent = Extent { offset_bytes: 0, sector: 1000, length_bytes: 64 << 10 };
    let image = Image { access, extents: Some(vec![extent]) };
    ObservedDisk {
        number: 0,
        host_device: DEVICE,
        image,
        coverage: Coverage::All,
        descriptors: vec![],
    }
}

/// What the host's disk did at a time: `>` the VM submits, `o` somebody else does, `<` done, `x` events are
/// lost from here for a nanosecond; of sectors. And what a thread of the VMM did, whose number is how many sectors
/// there are: `s` it falls asleep in a flush of the file whose number is the first sector, `u` of an unknown file,
/// `w` it is woken, `r` from now on all is recorded of it, `e` it has ended.
pub(super) type Deed = (u64, char, Range<u64>);

/// I/O of the VM for the first 4 KiB of the disk.
fn io(from: u64, to: u64) -> Vec<Deed> {
    vec![(from, '>', 1000..1008), (to, '<', 1000..1008)]
}

pub(super) fn push_deed<Requests: Iterator<Item = Ordered<Placed, Range<HostNs>>>>(
    join: &mut ObservedJoin<Requests>,
    (time, kind, sectors): &Deed,
) {
    let thread = Tid(u32::try_from(sectors.end - sectors.start).unwrap());
    let file = u32::try_from(sectors.start).unwrap();
    let (step, submitter) = match kind {
        's' => return join.asleep(HostNs(*time), thread, SyncCall::Of(file)),
        'u' => return join.asleep(HostNs(*time), thread, SyncCall::Unknown),
        'w' => return join.awake(HostNs(*time), thread),
        'r' => return join.recorded(HostNs(*time), thread),
        'e' => return join.ended(thread),
        '>' => (BlockStep::Submitted, Submitter::OwnVm),
        'o' => (BlockStep::Submitted, Submitter::Other),
        '<' => (BlockStep::Completed, Submitter::Other),
        _ => return join.lost(HostNs(*time), HostNs(time + 1)),
    };
    let count = u32::try_from(sectors.end - sectors.start).unwrap();
    let (tid, device, sector) = (Tid(1), DEVICE, sectors.start);
    let event = BlockEvent { step, tid, device, sector, sectors: count, operation: None };
    join.push_io(HostNs(*time), &event, submitter);
}

/// As the analysis does it: each span comes when its end has been seen.
pub(super) fn join(
    disks: &[ObservedDisk],
    drawings: &[&str],
    requests: &[Placed],
    deeds: &[Deed],
) -> Vec<Breakdown> {
    join_completing(CompletionVcpu::Interrupted, disks, drawings, requests, deeds)
}

/// The same of a guest that completes its requests there.
pub(super) fn join_completing(
    completing: CompletionVcpu,
    disks: &[ObservedDisk],
    drawings: &[&str],
    requests: &[Placed],
    deeds: &[Deed],
) -> Vec<Breakdown> {
    let vcpus = (0..).zip(drawings).map(|(vcpu, _)| (VcpuId(vcpu), thread(vcpu)));
    let mut join = ObservedJoin::new(vcpus, requests.iter().copied().map(Ordered::Request))
        .with_disks(disks.iter().cloned())
        .with_completions([(0, completing)]);
    let mut deeds = deeds.to_vec();
    deeds.sort_by_key(|deed| deed.0);
    let mut deeds = deeds.iter().peekable();
    let mut out = Vec::new();
    for span in of_vcpus(drawings) {
        while let Some(deed) = deeds.next_if(|deed| deed.0 <= span.end.0) {
            push_deed(&mut join, deed);
        }
        join.advance(span.end);
        join.push_span(&span, &mut |breakdown| out.push(breakdown));
    }
    deeds.for_each(|deed| push_deed(&mut join, deed));
    join.finish(&mut |breakdown| out.push(breakdown));
    out.sort_by_key(|breakdown| {
        requests.iter().position(|placed| placed.request == breakdown.request)
    });
    out
}

/// What is not 0.
fn drawn(breakdown: &Breakdown) -> Vec<(Phase, Part, u64)> {
    let phases = Phase::ALL.into_iter();
    let all = phases.flat_map(|phase| Part::ALL.into_iter().map(move |part| (phase, part)));
    let lengths = all.map(|(phase, part)| (phase, part, breakdown.phases.of(phase).get(part)));
    lengths.filter(|(.., length_ns)| *length_ns > 0).collect()
}

/// Who ran while it waited, and for how long.
fn hogs(breakdown: &Breakdown) -> Vec<(u32, u64)> {
    let mut hogs: Vec<(u32, u64)> = breakdown
        .waits
        .rows()
        .map(|(_, ran)| match ran.who {
            Who::Thread(thread) => (thread.tid.0 - HOG, ran.ran_ns),
            other => panic!("{other:?}"),
        })
        .collect();
    hogs.sort_unstable();
    hogs
}

/// Of each link of its chain whose it is, from when to when.
fn links(breakdown: &Breakdown) -> Vec<(u32, u64, u64)> {
    let link = |span: &Span| (span.tid.0 - thread(0).0, span.start.0, span.end.0);
    breakdown.chain.spans().map(link).collect()
}

//                    0         1         2         3         4
//                    0123456789012345678901234567890123456789012345
const QUEUES: &str = "==ppppp====hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh==";
const ISSUES: &str = "hhhhhhhhh=ppp===hhhhpppphhhhhhhhhhhhhhhhhhhhhh";
const COMPLETES: &str = "ppppppppppppppphhhhhhhhhhhhhwwppppp=====hhhhhh";

#[test]
fn a_request_is_laid_over_the_vcpu_that_it_waits_for() {
    let drawings = [QUEUES, ISSUES, COMPLETES];
    // Queued at 1, issued at 10, on the host's disk from 14 to 26, completed at 37.
    let request = placed(observed([1, 10, 37], [0, 1, 2]));
    let out = join(&[disk(HostAccess::Direct)], &drawings, &[request], &io(14, 26)).remove(0);
    assert_eq!(out.io, Ok(IoMarks { submitted: HostNs(14), completed: HostNs(26) }));
    assert_eq!(
        drawn(&out),
        [
            (Phase::GuestQueue, Part::OnPcpu, 4),
            (Phase::GuestQueue, Part::PreemptWait, 5),
            (Phase::Queued, Part::OnPcpu, 1),
            (Phase::Queued, Part::PreemptWait, 3),
            (Phase::Device, Part::OnPcpu, 2),
            (Phase::Device, Part::PreemptWait, 4),
            (Phase::Device, Part::Halt, 6),
            (Phase::Completed, Part::OnPcpu, 2),
            (Phase::Completed, Part::PreemptWait, 5),
            (Phase::Completed, Part::WakeupDelay, 2),
            (Phase::Completed, Part::Halt, 2),
        ]
    );
    let vcpus = [(0, 1, 2), (0, 2, 7), (0, 7, 10)];
    let issuing = [(1, 10, 13), (1, 13, 16), (1, 16, 20), (1, 20, 24), (1, 24, 26)];
    let completing = [(2, 26, 28), (2, 28, 30), (2, 30, 35), (2, 35, 37)];
    assert_eq!(links(&out), [&vcpus[..], &issuing, &completing].concat());
    // Not while it was in the guest's queue, where another vCPU issued it, nor in the device.
    assert_eq!(hogs(&out), [(1, 3), (2, 7)]);
    assert_eq!(out.attribution, Attribution::Attributed, "although it moved");
    assert_eq!(out.phases.inactivity_ns(), 7);
    assert_eq!((out.vcpu, out.issued), (VcpuId(1), Some(HostNs(10))));
    let of = |phase| (out.vcpus.of(phase).unwrap().0, out.vcpus.is_waited_for(phase));
    let all = [Phase::GuestQueue, Phase::Queued, Phase::Device, Phase::Completed].map(of);
    assert_eq!(all, [(0, false), (1, true), (1, false), (2, true)]);
}

#[test]
fn in_its_own_vcpus_queue_it_waits_for_that() {
    let request = placed(observed([1, 10, 37], [0, 0, 0]));
    let drawings = [QUEUES, ISSUES, COMPLETES];
    let out = join(&[disk(HostAccess::Direct)], &drawings, &[request], &io(12, 26)).remove(0);
    assert_eq!(hogs(&out), [(0, 5)]);
    assert!(out.vcpus.is_waited_for(Phase::GuestQueue));
}

#[test]
fn without_the_hosts_io_one_that_moved_cannot_be_attributed() {
    let drawings = [QUEUES, ISSUES, COMPLETES];
    let of = |vcpus, deeds: &[Deed]| {
        let request = placed(observed([1, 10, 37], vcpus));
        join(&[disk(HostAccess::Direct)], &drawings, &[request], deeds).remove(0)
    };
    let moved = of([0, 1, 2], &[]);
    assert_eq!((moved.attribution, moved.io), (Attribution::Moved, Err(NoPhase::NoIo)));
    let stayed = of([0, 1, 1], &[]);
    assert_eq!((stayed.attribution, stayed.io), (Attribution::Attributed, Err(NoPhase::NoIo)));
    // The guest's own queue is known in both.
    for out in [moved, stayed] {
        assert_eq!(out.phases.of(Phase::GuestQueue).total_ns(), 9);
        assert_eq!(out.phases.of(Phase::Unknown).total_ns(), 27);
        assert_eq!(hogs(&out), [(1, 7)], "it may have been any phase");
    }
    let known = of([0, 1, 2], &io(14, 26));
    assert_eq!(known.attribution, Attribution::Attributed);
}

#[test]
fn what_is_missing_counts_where_it_matters() {
    let of = |drawings: [&str; 3], times| {
        let request = placed(observed(times, [0, 1, 2]));
        let deeds = io(times[1] + 2, times[2] - 2);
        let out = join(&[disk(HostAccess::Direct)], &drawings, &[request], &deeds).remove(0);
        (out.attribution, out.parts.get(Part::Unknown))
    };
    let fine = "====================";
    for (drawings, expected, what) in [
        ([fine, fine, fine], (Attribution::Attributed, 0), "all is known"),
        (["==..=...............", fine, fine], (Attribution::Attributed, 2), "another's queue"),
        ([fine, "========....========", fine], (Attribution::Attributed, 4), "in the device"),
        ([fine, "======..============", fine], (Attribution::NotRecorded, 2), "queued"),
        ([fine, fine, "=============..====="], (Attribution::NotRecorded, 1), "completed"),
        (
            [fine, fine, "==========..........".trim_end_matches('.')],
            (Attribution::NotRecorded, 2),
            "it ends",
        ),
        (["==..=...............", "====?=?=============", fine], (Attribution::Lost, 3), "lost"),
    ] {
        assert_eq!(of(drawings, [2, 5, 14]), expected, "{what}");
    }
}

#[test]
fn a_request_of_no_length_is_where_its_vcpu_is() {
    let of = |time| {
        let request = placed(observed([time; 3], [1; 3]));
        let out = join(&[], &["=========", "..===???="], &[request], &[]).remove(0);
        (out.attribution, out.parts.total_ns())
    };
    assert_eq!(of(1), (Attribution::NotRecorded, 0));
    assert_eq!(of(3), (Attribution::Attributed, 0));
    assert_eq!(of(6), (Attribution::Lost, 0));
    assert_eq!(of(20), (Attribution::NotRecorded, 0));
}

#[test]
fn what_the_guest_took_for_another_is_not_attributed() {
    let flags = ObservedFlags::AMBIGUOUS;
    let request = ObservedRequest { flags, ..observed([2, 5, 14], [0; 3]) };
    let disks = [disk(HostAccess::Direct)];
    let out = join(&disks, &["===================="], &[placed(request)], &io(7, 12)).remove(0);
    let expected = (Attribution::Ambiguous, Err(NoPhase::Ambiguous));
    assert_eq!((out.attribution, out.io), expected);
}

#[test]
fn a_request_waits_for_all_its_vcpus_and_no_longer() {
    // vCPU 2 sleeps on long after the request; vCPUs 0 and 1 come and go.
    let drawings =
        ["=p=p=p=p=p=p=p=p=p=p=p=p", "==p==p==p==p==p==p==p==p", "===========hhhhhhhhhhhhh"];
    let waits = [placed(observed([1, 3, 12], [0, 1, 2])), placed(observed([2, 3, 9], [0, 1, 1]))];
    let vcpus = (0..3).map(|vcpu| (VcpuId(vcpu), thread(vcpu)));
    let mut join = ObservedJoin::new(vcpus, waits.into_iter().map(Ordered::Request))
        .with_completions([(0, CompletionVcpu::Interrupted)]);
    let mut out = Vec::new();
    for span in of_vcpus(&drawings) {
        join.push_span(&span, &mut |breakdown: Breakdown| out.push((breakdown, span.end.0)));
    }
    let at: Vec<(u64, u64)> = out.iter().map(|(split, at)| (split.end.0, *at)).collect();
    assert_eq!(at, [(9, 9), (12, 24)]);
    assert_eq!(links(&out[1].0).last(), Some(&(1, 11, 12)), "its I/O is not known");
}

#[test]
fn more_spans_than_are_kept_cost_a_requests_causes_and_no_more() {
    let room = 16;
    let mut spans = recent_spans::RecentSpans::new(thread(0), room);
    let drawing = "=p".repeat(20);
    of_vcpus(&[&drawing]).iter().for_each(|span| spans.push(span));
    assert_eq!(spans.len(), room);
    let threads =
        laid::Threads { queued: Some(&spans), issued: Some(&spans), completed: Some(&spans) };
    let of = |start| {
        let placed = placed(observed([start, start, 38], [0; 3]));
        let (vcpus, io) = (PhaseVcpus::all(VcpuId(0)), Err(NoPhase::NoIo));
        let laid = laid::lay(&placed, &vcpus, &io, threads);
        let parts = laid.phases.parts();
        assert_eq!(parts.total_ns(), 38 - start);
        (laid.attribution(&placed, &vcpus, &io), parts.get(Part::Unknown))
    };
    assert_eq!(of(24), (Attribution::Attributed, 0));
    assert_eq!(of(20), (Attribution::Forgotten, 4));
}

#[test]
fn a_vcpu_that_sleeps_for_long_costs_the_earliest_requests_only() {
    let count = OBSERVED_PENDING_MAX as u64 + 10;
    let requests =
        (0..count).map(|index| placed(observed([index + 1, index + 1, index + 2], [0, 0, 1])));
    let vcpus = (0..2).map(|vcpu| (VcpuId(vcpu), thread(vcpu)));
    let mut join = ObservedJoin::new(vcpus, requests.map(Ordered::Request))
        .with_completions([(0, CompletionVcpu::Interrupted)]);
    let mut spans = spans(0, "=").into_iter();
    let mut span = spans.next().unwrap();
    (span.tid, span.end) = (thread(0), HostNs(count + 10));
    let mut given_up = Vec::new();
    join.push_span(&span, &mut |breakdown| {
        given_up.push((breakdown.attribution, breakdown.start.0))
    });
    let expected: Vec<_> = (1..=10).map(|start| (Attribution::Moved, start)).collect();
    assert_eq!(given_up, expected, "the thread that issued them has come");
    let mut rest = 0;
    join.finish(&mut |_| rest += 1);
    assert_eq!(rest, OBSERVED_PENDING_MAX);
}

/// A request all of one vCPU that was issued when it was queued, by either join.
fn twins(times: &[(u64, u64, u64)]) -> (Vec<Placed>, Vec<Placed>) {
    let twin = |(index, (start, length, block)): (u64, &(u64, u64, u64))| {
        let request = observed([*start, *start, start + length], [0; 3]);
        let request =
            ObservedRequest { sector: block * 8, task: u32::try_from(index).unwrap(), ..request };
        let read = vslice_wire::Request {
            index: *block,
            submitted: request.queued,
            completed: request.completed,
            vcpu_submitted: 0,
            vcpu_completed: 0,
            result: 4096,
        };
        let window = HostNs(*start)..HostNs(start + length);
        (placed_within(request, Bounds::all(2)), Placed::of_read(read, window, 2, 0))
    };
    (0..).zip(times).map(twin).unzip()
}

fn a_drawing() -> impl Strategy<Value = String> {
    let character =
        prop::sample::select(vec!['=', 'g', 'k', 'v', 'p', 't', 'w', 'f', 'h', '_', 's', '?', '.']);
    prop::collection::vec((character, 1..8_usize), 1..40).prop_map(|runs| {
        runs.into_iter().map(|(character, length)| character.to_string().repeat(length)).collect()
    })
}

pub(super) fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let io = (0..150_u64, 0..30_u64, 0..16_u64, 1..3_u64, prop::bool::weighted(0.9));
    let one = io.prop_map(|(from, length, block, blocks, is_own)| {
        let submit = if is_own { '>' } else { 'o' };
        let sectors = 1000 + block * 8..1000 + (block + blocks) * 8;
        vec![(from, submit, sectors.clone()), (from + length, '<', sectors)]
    });
    let lost = prop::collection::vec(0..150_u64, 0..2)
        .prop_map(|times| times.into_iter().map(|time| (time, 'x', 0..0)).collect());
    let ios = prop::collection::vec(one, 0..30).prop_map(|ios| ios.concat());
    (ios, lost).prop_map(|(ios, lost): (Vec<Deed>, Vec<Deed>)| [ios, lost].concat())
}

proptest! {
    /// Conservation: each nanosecond is in one phase and one part, that of the right thread.
    #[test]
    fn every_nanosecond_lands_in_one_phase_and_one_part_of_the_right_thread(
        drawings in (a_drawing(), a_drawing(), a_drawing()), deeds in deeds(),
        is_direct in any::<bool>(), completing in prop::sample::select(CompletionVcpu::ALL.to_vec()),
        windows in prop::collection::vec(
            (0..150_u64, 0..20_u64, 0..60_u64, 0..16_u64, prop::array::uniform3(0..4_u16)), 0..20),
    ) {
        let mut windows = windows;
        windows.sort_unstable();
        let request = |(task, (queued, waits, length, block, vcpus))| {
            let times = [queued, queued + waits, queued + waits + length];
            placed(ObservedRequest { sector: block * 8, task, ..observed(times, vcpus) })
        };
        let requests: Vec<Placed> = (0..).zip(windows).map(request).collect();
        let access = if is_direct { HostAccess::Direct } else { HostAccess::Cached };
        // vCPU 3 has no thread.
        let drawings = [&drawings.0[..], &drawings.1, &drawings.2];
        let out = join_completing(completing, &[disk(access)], &drawings, &requests, &deeds);
        prop_assert_eq!(out.len(), requests.len());
        for (breakdown, placed) in out.iter().zip(&requests) {
            prop_assert_eq!(breakdown.request, placed.request);
            check_against_drawings(breakdown, &drawings)?;
            check_chain(breakdown)?;
        }
    }

    /// A request that is all one vCPU's is split as one of the reader's is.
    #[test]
    fn a_request_of_one_vcpu_is_split_as_the_readers_are(
        drawing in a_drawing(), deeds in deeds(), is_direct in any::<bool>(),
        windows in prop::collection::vec((0..150_u64, 0..60_u64, 0..16_u64), 0..20),
    ) {
        let mut windows = windows;
        windows.sort_unstable();
        let (observed, read) = twins(&windows);
        // The reader's join does not ask what came after one that no span reaches.
        let drawing = format!("{drawing}{}", "=".repeat(300));
        let access = if is_direct { HostAccess::Direct } else { HostAccess::Cached };
        let out = join(&[disk(access)], &[&drawing], &observed, &deeds);
        let by_reader = join_reads(access, &drawing, &read, &deeds);
        prop_assert_eq!(out.len(), by_reader.len());
        for (one, other) in out.iter().zip(&by_reader) {
            prop_assert_eq!(one.start, other.start);
            prop_assert_eq!(one.parts, other.parts);
            // What is missing of the vCPU while the I/O is in the device matters to the reader's only.
            if one.io.is_err() {
                prop_assert_eq!(one.attribution, other.attribution);
            }
            prop_assert_eq!(&one.chain, &other.chain);
            prop_assert_eq!(one.io, other.io);
            prop_assert_eq!(one.phases, other.phases);
            if one.attribution == other.attribution {
                prop_assert_eq!(one.clock_error, other.clock_error);
            }
        }
    }
}

fn join_reads(
    access: HostAccess,
    drawing: &str,
    reads: &[Placed],
    deeds: &[Deed],
) -> Vec<Breakdown> {
    let image = disk(access).image;
    let target = Target {
        access,
        pattern: vslice_spec::Pattern::Seq,
        block_bytes: 4096,
        size_bytes: 64 << 10,
        offset_bytes: 0,
        extents: image.extents,
    };
    let mut join = Join::new(VcpuId(0), thread(0), reads.iter().copied()).with_target(target);
    let mut deeds = deeds.to_vec();
    deeds.sort_by_key(|deed| deed.0);
    let mut deeds = deeds.iter().peekable();
    let mut out = Vec::new();
    let push = |join: &mut Join<_>, (time, kind, sectors): &Deed| {
        let (step, submitter) = match kind {
            '>' => (BlockStep::Submitted, Submitter::OwnVm),
            'o' => (BlockStep::Submitted, Submitter::Other),
            '<' => (BlockStep::Completed, Submitter::Other),
            _ => return join.lost(HostNs(*time), HostNs(time + 1)),
        };
        let sectors_count = u32::try_from(sectors.end - sectors.start).unwrap();
        let (tid, device, sector) = (Tid(1), DEVICE, sectors.start);
        let event =
            BlockEvent { step, tid, device, sector, sectors: sectors_count, operation: None };
        join.push_io(HostNs(*time), &event, submitter);
    };
    for span in of_vcpus(&[drawing]) {
        while let Some(deed) = deeds.next_if(|deed| deed.0 <= span.end.0) {
            push(&mut join, deed);
        }
        join.advance(span.end);
        join.push_span(&span, &mut |breakdown| out.push(breakdown));
    }
    deeds.for_each(|deed| push(&mut join, deed));
    join.finish(&mut |breakdown| out.push(breakdown));
    out.sort_by_key(|breakdown| {
        reads.iter().position(|read| {
            (read.request, read.start, read.end)
                == (breakdown.request, breakdown.start, breakdown.end)
        })
    });
    out
}

/// Each part of each phase by counting characters of the vCPU that the phase is of.
fn check_against_drawings(breakdown: &Breakdown, drawings: &[&str]) -> Result<(), TestCaseError> {
    let request = breakdown.request.observed().unwrap();
    let at = |vcpu: u16, time: u64| {
        drawings.get(usize::from(vcpu))?.chars().nth(usize::try_from(time).unwrap())
    };
    let phase_at = |time: u64| match breakdown.io {
        _ if time < request.issued.0 => Phase::GuestQueue,
        Err(_) => Phase::Unknown,
        Ok(marks) if time < marks.submitted.0 => Phase::Queued,
        Ok(marks) if time < marks.completed.0 => Phase::Device,
        Ok(_) => Phase::Completed,
    };
    let mut expected = [PartsNs::default(); Phase::ALL.len()];
    let (mut lost, mut not_recorded, mut waited_ns) = (false, false, 0);
    for time in request.queued.0..request.completed.0 {
        let phase = phase_at(time);
        let (vcpu, is_waited_for) = match phase {
            Phase::GuestQueue => (request.vcpu_queued, request.vcpu_queued == request.vcpu_issued),
            Phase::Queued | Phase::Unknown => (request.vcpu_issued, true),
            Phase::Device => (request.vcpu_issued, false),
            // It is not known which, so that nothing of it is.
            Phase::Completed if breakdown.vcpus.completed.is_none() => {
                expected[phase as usize].add(Part::Unknown, 1);
                continue;
            }
            Phase::Completed => (request.vcpu_completed, true),
        };
        prop_assert_eq!(breakdown.vcpus.of(phase), Some(VcpuId(vcpu)));
        let character = at(vcpu, time);
        if is_waited_for {
            lost |= character == Some('?');
            not_recorded |= character.is_none_or(|character| character == '.');
            waited_ns += u64::from(matches!(character, Some('p' | 'w')));
        }
        let part = character.map_or(Part::Unknown, |character| Part::of(&state(character)));
        expected[phase as usize].add(part, 1);
    }
    // A gap between two I/Os is the first's and the second's: those of one block are ambiguous here.
    prop_assert_eq!(Phase::ALL.map(|phase| *breakdown.phases.of(phase)), expected);
    prop_assert_eq!(breakdown.phases.parts(), breakdown.parts);
    prop_assert_eq!(breakdown.parts.total_ns(), breakdown.latency_ns());
    prop_assert_eq!(hogs(breakdown).iter().map(|(_, ran_ns)| ran_ns).sum::<u64>(), waited_ns);
    if breakdown.latency_ns() > 0 {
        let is_steered = breakdown.io.is_err() && breakdown.vcpus.completed.is_none();
        let is_moved = breakdown.io.is_err() && request.vcpu_issued != request.vcpu_completed;
        let attribution = match (lost, not_recorded, is_steered, is_moved) {
            (true, ..) => Attribution::Lost,
            (_, true, ..) => Attribution::NotRecorded,
            (_, _, true, _) => Attribution::Steered,
            (.., true) => Attribution::Moved,
            _ => Attribution::Attributed,
        };
        prop_assert_eq!(breakdown.attribution, attribution);
    }
    Ok(())
}

/// The chain tiles the window, over each phase's own thread.
fn check_chain(breakdown: &Breakdown) -> Result<(), TestCaseError> {
    let chain: Vec<&Span> = breakdown.chain.spans().collect();
    prop_assert!(chain.windows(2).all(|pair| pair[0].end == pair[1].start));
    if breakdown.chain.cut_count == 0
        && let (Some(first), Some(last)) = (chain.first(), chain.last())
    {
        prop_assert_eq!((first.start, last.end), (breakdown.start, breakdown.end));
    }
    let issued = breakdown.issued.unwrap();
    let completed = breakdown.io.map_or(breakdown.end, |marks| marks.completed);
    for span in chain {
        prop_assert!(span.length_ns() > 0);
        let phase = match span.start {
            start if start < issued => Phase::GuestQueue,
            start if breakdown.io.is_ok() && start >= completed => Phase::Completed,
            _ => Phase::Unknown,
        };
        let vcpu = breakdown.vcpus.of(phase);
        // vCPU 3 has no thread.
        let has_thread = vcpu.filter(|vcpu| vcpu.0 < 3);
        prop_assert_eq!(span.tid, has_thread.map_or(Tid(0), |vcpu| thread(vcpu.0)));
        prop_assert!(vcpu == breakdown.vcpus.of(Phase::Completed) || span.end <= completed);
    }
    Ok(())
}

/// By counting characters; what is not drawn is unknown.
fn part_at(drawing: &str, time: i64) -> Part {
    let place = usize::try_from(time).ok();
    let character = place.and_then(|place| drawing.chars().nth(place));
    character.map_or(Part::Unknown, |character| Part::of(&state(character)))
}

proptest! {
    /// Wherever a request's times were within their errors, no part is off by more than is said.
    #[test]
    fn no_part_changes_by_more_than_is_said_whichever_clocks_are_off(
        drawings in (a_drawing(), a_drawing(), a_drawing()),
        times in (20..90_u64, 0..20_u64, 8..50_u64), vcpus in prop::array::uniform3(0..3_u16),
        bounds in (0..4_u64, 0..4_u64, 0..4_u64), marks in (0..50_u64, 0..50_u64),
        is_known in any::<bool>(), completing in prop::sample::select(CompletionVcpu::ALL.to_vec()),
    ) {
        let (start, waits, length) = times;
        let (issued, end) = (start + waits, start + waits + length);
        let bounds = Bounds { start_ns: bounds.0, issued_ns: bounds.1, end_ns: bounds.2 };
        let from = issued + bounds.issued_ns + marks.0 % length;
        let to = from + marks.1 % length;
        let deeds = if is_known && to + bounds.end_ns <= end { io(from, to) } else { vec![] };
        let placed = placed_within(observed([start, issued, end], vcpus), bounds);
        let drawings = [&drawings.0[..], &drawings.1, &drawings.2];
        let disks = [disk(HostAccess::Direct)];
        let out = join_completing(completing, &disks, &drawings, &[placed], &deeds).remove(0);
        if out.attribution != Attribution::Attributed {
            prop_assert_eq!(out.clock_error, ClockError::default());
            return Ok(());
        }
        let of = |vcpu: VcpuId| Some(drawings[usize::from(vcpu.0)]);
        let over_end = if out.io.is_ok() { out.vcpus.completed.and_then(of) } else { of(VcpuId(vcpus[1])) };
        let change = |bound: u64| -bound.cast_signed()..=bound.cast_signed();
        let is_one = vcpus[0] == vcpus[1] && vcpus[1] == vcpus[2];
        let time = |at: u64, by: i64| at.cast_signed() + by;
        for by_start in change(bounds.start_ns) {
            for by_issue in change(bounds.issued_ns) {
                for by_end in change(bounds.end_ns) {
                    // One clock is off by one and the same.
                    if is_one && by_start != by_end {
                        continue;
                    }
                    let (start, end) = (time(start, by_start), time(end, by_end));
                    let issued = time(issued, by_issue);
                    let done = out.io.map_or(end, |marks| marks.completed.0.cast_signed()).max(issued);
                    // The true times are in order.
                    if issued < start || end < done {
                        continue;
                    }
                    let [over_queue, over_issue] = [vcpus[0], vcpus[1]].map(|vcpu| of(VcpuId(vcpu)));
                    let pieces = [(over_queue, start..issued), (over_issue, issued..done), (over_end, done..end)];
                    let mut parts = PartsNs::default();
                    for (drawing, piece) in pieces {
                        let part = |at| drawing.map_or(Part::Unknown, |drawing| part_at(drawing, at));
                        piece.for_each(|at| parts.add(part(at), 1));
                    }
                    for part in Part::ALL {
                        let off_ns = parts.get(part).abs_diff(out.parts.get(part));
                        prop_assert!(
                            off_ns <= out.clock_error.parts.get(part),
                            "{part:?} is off by {off_ns}, {by_start} {by_issue} {by_end}"
                        );
                    }
                }
            }
        }
    }
}
