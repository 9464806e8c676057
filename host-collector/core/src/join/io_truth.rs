//! Random disks of which all is known, of which not all is shown: the join never says of a request's
//! I/O what is not true.
//!
//! An image of a few blocks is read again and again. Requests, and others, have I/O for it; some
//! submissions and completions are not shown, as on kernels that hide what some tasks do.

use super::laws::index;
use super::*;
use crate::extent::Extent;
use crate::host_event::{BlockEvent, BlockStep};
use crate::timeline::{RunMode, Span, ThreadState};
use crate::units::{HostNs, PcpuId, Tid, VcpuId};
use proptest::prelude::*;
use std::ops::Range;
use vslice_spec::Pattern;
use vslice_wire::{GuestTicks, Request};

const THREAD: Tid = Tid(100);
const BLOCK_SECTORS: u64 = 8;
/// How far the ends of requests may be off.
const BOUND_NS: u64 = 3;
const SPAN_NS: u64 = 37;

/// Whose an I/O is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// The request's of this index.
    Request(usize),
    /// The VM's, for a request that was not recorded.
    Unrecorded,
    Other,
}

#[derive(Debug, Clone)]
struct TrueIo {
    whose: Whose,
    sectors: Range<u64>,
    submitted: u64,
    completed: u64,
    is_submission_shown: bool,
    /// Completions that are shown, of which each is for some of the sectors.
    shown: Vec<(u64, Range<u64>)>,
}

impl TrueIo {
    fn is_shown_to_end(&self) -> bool {
        let shown: u64 = self.shown.iter().map(|(_, sectors)| sectors.end - sectors.start).sum();
        self.is_submission_shown && shown == self.sectors.end - self.sectors.start
    }
}

/// What may go wrong.
#[derive(Debug, Clone, Copy)]
struct Faults {
    /// Of a hundred.
    hidden_completions: u64,
    hidden_submissions: u64,
    unrecorded: u64,
    others: u64,
    refused: u64,
    /// Requests that are in flight together.
    depth: u64,
}

#[derive(Debug)]
struct World {
    requests: Vec<Placed>,
    ios: Vec<TrueIo>,
}

/// A small generator, so that one number makes a world.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit.max(1)
    }

    fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }

    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }
}

/// Half of block 1 lies elsewhere.
fn target(blocks: u64, is_mapped: bool) -> Target {
    let half = BLOCK_SECTORS * 512 * 3 / 2;
    let size_bytes = blocks * BLOCK_SECTORS * 512;
    let extent = |offset_bytes, sector, length_bytes| Extent { offset_bytes, sector, length_bytes };
    let extents = vec![extent(0, 1_000, half), extent(half, 5_000, size_bytes - half)];
    Target {
        access: HostAccess::Direct,
        pattern: Pattern::Seq,
        block_bytes: u32::try_from(BLOCK_SECTORS * 512).unwrap(),
        size_bytes,
        offset_bytes: 0,
        extents: is_mapped.then_some(extents),
    }
}

fn world(seed: u64, requests_count: u64, blocks: u64, faults: Faults) -> World {
    let mut dice = Dice(seed);
    let target = target(blocks, true);
    let (mut requests, mut ios) = (Vec::new(), Vec::new());
    let off_ns = dice.between(0, 2 * BOUND_NS);
    let mut start = 100;
    for index in 0..requests_count {
        let end = start + dice.between(10, 60);
        let is_recorded = !dice.percent(faults.unrecorded);
        let whose = if is_recorded { Whose::Request(requests.len()) } else { Whose::Unrecorded };
        for sectors in target.sectors_of(index).unwrap() {
            if dice.percent(faults.refused) {
                let at = dice.between(start, start + 2);
                let refused = TrueIo {
                    whose: Whose::Unrecorded,
                    sectors: sectors.clone(),
                    submitted: at,
                    completed: at,
                    is_submission_shown: true,
                    shown: Vec::new(),
                };
                ios.push(refused);
            }
            ios.push(true_io(&mut dice, whose, sectors, (start + 2, end), faults));
        }
        if is_recorded {
            let ticks = |ns| GuestTicks(ns);
            let (submitted, completed) = (ticks(start), ticks(end));
            let shown = |ns: u64| HostNs(ns + off_ns - BOUND_NS);
            let (vcpu_submitted, vcpu_completed, result) = (2, 2, 4096);
            let request =
                Request { index, submitted, completed, vcpu_submitted, vcpu_completed, result };
            requests.push(Placed::of_read(request, shown(start)..shown(end), BOUND_NS, 0));
        }
        if dice.percent(faults.others) {
            let at = start + dice.below(40);
            let sectors = target.sectors_of(dice.below(blocks)).unwrap().remove(0);
            ios.push(true_io(&mut dice, Whose::Other, sectors, (at, at + 80), faults));
        }
        start = if faults.depth <= 1 {
            end + 1 + 2 * BOUND_NS
        } else {
            start + dice.between(1, 60 / faults.depth)
        };
    }
    World { requests, ios }
}

fn true_io(
    dice: &mut Dice,
    whose: Whose,
    sectors: Range<u64>,
    (start, end): (u64, u64),
    faults: Faults,
) -> TrueIo {
    let submitted = dice.between(start, end - 1);
    let completed = dice.between(submitted, end);
    let first = dice.between(submitted, completed);
    let middle = dice.between(sectors.start + 1, sectors.end);
    let pieces = [(first, sectors.start..middle), (completed, middle..sectors.end)];
    let pieces = pieces.into_iter().filter(|(_, piece)| !piece.is_empty());
    let is_submission_shown =
        !matches!(whose, Whose::Request(_)) || !dice.percent(faults.hidden_submissions);
    let shown: Vec<_> = pieces.filter(|_| !dice.percent(faults.hidden_completions)).collect();
    // One piece is done when it is done.
    let completed = if middle == sectors.end { first } else { completed };
    TrueIo { whose, sectors, submitted, completed, is_submission_shown, shown }
}

fn show(world: &World, target: Target) -> Vec<Breakdown> {
    show_in_spans(world, target, SPAN_NS)
}

fn show_in_spans(world: &World, target: Target, span_ns: u64) -> Vec<Breakdown> {
    let mut deeds = Vec::new();
    for io in &world.ios {
        let submitter = match io.whose {
            Whose::Other => Submitter::Other,
            Whose::Request(_) | Whose::Unrecorded => Submitter::OwnVm,
        };
        if io.is_submission_shown {
            deeds.push((io.submitted, 0, BlockStep::Submitted, io.sectors.clone(), submitter));
        }
        for (time, sectors) in &io.shown {
            deeds.push((*time, 1, BlockStep::Completed, sectors.clone(), Submitter::Other));
        }
    }
    deeds.sort_by_key(|(time, order, ..)| (*time, *order));
    let end = deeds.last().map_or(0, |deed| deed.0) + 2_000;
    let mut join =
        Join::new(VcpuId(2), THREAD, world.requests.clone().into_iter()).with_target(target);
    let mut deeds = deeds.into_iter().peekable();
    let mut out = Vec::new();
    for start in (0..end).step_by(usize::try_from(span_ns).unwrap()) {
        let until = start + span_ns;
        while let Some((time, _, step, sectors, submitter)) = deeds.next_if(|deed| deed.0 <= until)
        {
            let count = u32::try_from(sectors.end - sectors.start).unwrap();
            let (tid, device) = (Tid(1), 254 << 20);
            let event = BlockEvent {
                step,
                tid,
                device,
                sector: sectors.start,
                sectors: count,
                operation: None,
            };
            join.push_io(HostNs(time), &event, submitter);
        }
        join.advance(HostNs(until));
        let state = ThreadState::Running { pcpu: PcpuId(1), mode: RunMode::Unsplit };
        let (start, end) = (HostNs(start), HostNs(until));
        let span = Span { tid: THREAD, start, end, state, antagonists: vec![] };
        join.push_span(&span, &mut |breakdown| out.push(breakdown));
    }
    join.finish(&mut |breakdown| out.push(breakdown));
    out.sort_by_key(index);
    out
}

fn true_marks(world: &World, request: usize) -> IoMarks {
    let own = || world.ios.iter().filter(|io| io.whose == Whose::Request(request));
    let within =
        |ns: u64| HostNs(ns).clamp(world.requests[request].start, world.requests[request].end);
    IoMarks {
        submitted: within(own().map(|io| io.submitted).min().unwrap()),
        completed: within(own().map(|io| io.completed).max().unwrap()),
    }
}

/// Returns of how many requests the phases are known.
fn check(world: &World, target: Target) -> Result<usize, TestCaseError> {
    let out = show(world, target);
    prop_assert_eq!(out.len(), world.requests.len());
    let mut known = 0;
    for (request, breakdown) in out.iter().enumerate() {
        if let Ok(marks) = breakdown.io {
            prop_assert_eq!(marks, true_marks(world, request), "request {}", request);
            known += 1;
        }
        let is_beyond = matches!(breakdown.io_check, IoCheck::Beyond { .. });
        prop_assert!(!is_beyond, "request {}: {:?}", request, breakdown.io_check);
    }
    Ok(known)
}

fn faults() -> impl Strategy<Value = Faults> {
    let shares = (0..60_u64, 0..20_u64, 0..20_u64, 0..20_u64, 0..10_u64, 1..6_u64);
    shares.prop_map(
        |(hidden_completions, hidden_submissions, unrecorded, others, refused, depth)| {
            // What is neither shown nor any known request's leaves no trace that it might be seen by.
            let is_all_known = hidden_submissions > 10;
            let of_unknown = |share| if is_all_known { 0 } else { share };
            let [unrecorded, others, refused] = [unrecorded, others, refused].map(of_unknown);
            let hidden_submissions = if is_all_known { hidden_submissions } else { 0 };
            Faults { hidden_completions, hidden_submissions, unrecorded, others, refused, depth }
        },
    )
}

/// An image is read in turn, and of the first time a completion is missing; 38 s later it is read again.
#[test]
fn a_completion_that_is_missing_is_not_the_next_passes() {
    const PASS_NS: u64 = 38_000_000_000;
    let blocks = 2;
    let sectors = |index| target(blocks, true).sectors_of(index).unwrap().remove(0);
    let mut world = World { requests: Vec::new(), ios: Vec::new() };
    for (index, start) in (0..).zip([1_000, 2_000, PASS_NS, PASS_NS + 1_000]) {
        let (submitted, completed) = (GuestTicks(start), GuestTicks(start + 100));
        let request = Request {
            index: 2 * index,
            submitted,
            completed,
            vcpu_submitted: 2,
            vcpu_completed: 2,
            result: 4096,
        };
        let (start, end) = (HostNs(start), HostNs(start + 100));
        world.requests.push(Placed::of_read(request, start..end, BOUND_NS, 0));
        let (submitted, completed) = (start.0 + 10, start.0 + 90);
        let shown = if index == 1 { vec![] } else { vec![(completed, sectors(0))] };
        world.ios.push(TrueIo {
            whose: Whose::Request(usize::try_from(index).unwrap()),
            sectors: sectors(0),
            submitted,
            completed,
            is_submission_shown: true,
            shown,
        });
    }
    let out = show_in_spans(&world, target(blocks, true), PASS_NS / 20);
    let ends: Vec<_> =
        out.iter().map(|breakdown| breakdown.io.map(|marks| marks.completed.0)).collect();
    let known = [Ok(1_090), Err(NoPhase::Unfinished), Ok(PASS_NS + 90), Ok(PASS_NS + 1_090)];
    assert_eq!(ends, known);
    let blamed =
        out.iter().filter(|breakdown| matches!(breakdown.io_check, IoCheck::Beyond { .. }));
    assert_eq!(blamed.count(), 0, "{:?}", out.iter().map(|one| one.io_check).collect::<Vec<_>>());
}

proptest! {
    #[test]
    fn no_request_gets_a_mark_that_is_not_its_own_and_no_clock_is_blamed(
        seed in any::<u64>(), blocks in 2..6_u64, faults in faults(),
    ) {
        let world = world(seed, 40, blocks, faults);
        check(&world, target(blocks, true))?;
    }

    /// One request at a time: what was shown is known, however much of the rest was not.
    #[test]
    fn a_missing_completion_costs_its_own_request_only(
        seed in any::<u64>(), blocks in 2..6_u64, hidden_completions in 0..90_u64,
    ) {
        let faults = Faults {
            hidden_completions, hidden_submissions: 0, unrecorded: 0, others: 0, refused: 0, depth: 1,
        };
        let world = world(seed, 40, blocks, faults);
        let known = check(&world, target(blocks, true))?;
        let is_shown = |request: &usize| {
            let own = |io: &&TrueIo| io.whose == Whose::Request(*request);
            world.ios.iter().filter(own).all(TrueIo::is_shown_to_end)
        };
        prop_assert_eq!(known, (0..world.requests.len()).filter(is_shown).count());
    }

    /// Where the image lies is not known: the same, and less is known.
    #[test]
    fn without_a_map_no_mark_is_anothers_either(
        seed in any::<u64>(), blocks in 2..6_u64, hidden_completions in 0..60_u64, depth in 1..6_u64,
    ) {
        let faults = Faults {
            hidden_completions, hidden_submissions: 0, unrecorded: 0, others: 0, refused: 0, depth,
        };
        check(&world(seed, 40, blocks, faults), target(blocks, false))?;
    }
}
