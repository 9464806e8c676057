//! Random guests and hosts of which all is known, of which not all is shown: the join never says of an
//! observed request's I/O what is not true.
//!
//! A guest reads and writes two small disks, whose images lie in pieces on one disk of the host and have a
//! hole, discards and flushes them. Neighbouring requests may be one I/O on the host, one may be several.
//! What is written to a hole, or to what was discarded before, gets sectors that nobody knows of, also such
//! that were another's before. A thread of the VMM sleeps for each flush, once or twice, or for none.

use super::observed_laws::{DEVICE, placed_within, thread};
use super::*;
use crate::extent::Extent;
use crate::host_event::{BlockEvent, BlockStep};
use crate::timeline::{RunMode, Span, ThreadState};
use crate::units::{HostNs, PcpuId, Tid, VcpuId};
use proptest::prelude::*;
use std::ops::Range;
use vslice_wire::{BlockOperation, CompletionVcpu, GuestTicks, ObservedFlags, ObservedRequest};

/// How far the times of requests may be off.
const BOUND_NS: u64 = 3;
const SPAN_NS: u64 = 37;
const SECTOR_BYTES: u64 = 512;
/// Of each of the guest's disks.
const SECTORS: u64 = 96;
/// Where nothing is until something is written there.
const HOLE: Range<u64> = 32..48;

/// What may go wrong or is hard to tell; each of a hundred.
#[derive(Debug, Clone, Copy)]
struct Faults {
    hidden_completions: u64,
    /// Requests that the guest did not tell of.
    untold: u64,
    others: u64,
    discards: u64,
    flushes: u64,
    /// Flushes for which the host's file system needed none.
    flushless: u64,
    /// Writes with a flush before or after them.
    flushed: u64,
    /// Sleeps for flushes of which it is not told for which file they are.
    unknown_calls: u64,
    /// Flushes by threads that are recorded only from then on, so that their first sleep is not.
    new_threads: u64,
    /// Requests in flight together.
    depth: u64,
}

/// An I/O of the host.
#[derive(Debug, Clone)]
struct TrueIo {
    /// The requests that it is for.
    whose: Vec<usize>,
    sectors: Range<u64>,
    submitted: u64,
    completed: u64,
    is_own: bool,
    is_shown_to_end: bool,
}

/// A sleep of a thread of the VMM for a flush.
#[derive(Debug, Clone)]
struct TrueSleep {
    /// The request that it is for; each has a thread of its own.
    whose: usize,
    disk: u16,
    from: u64,
    until: u64,
    is_told_whose: bool,
    is_shown: bool,
}

#[derive(Debug)]
struct Asked {
    request: ObservedRequest,
    is_told: bool,
}

#[derive(Debug, Default)]
struct World {
    requests: Vec<Asked>,
    ios: Vec<TrueIo>,
    sleeps: Vec<TrueSleep>,
    off_ns: u64,
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

fn extents(disk: u16) -> Vec<Extent> {
    let base = 1_000 + 10_000 * u64::from(disk);
    let piece = |from: u64, until: u64, sector| Extent {
        offset_bytes: from * SECTOR_BYTES,
        sector,
        length_bytes: (until - from) * SECTOR_BYTES,
    };
    vec![
        piece(0, 20, base),
        piece(20, HOLE.start, base + 2_000),
        piece(HOLE.end, SECTORS, base + 5_000),
    ]
}

/// Where each sector of the guest's disks is, as only the host knows it.
struct Placement {
    sectors: [Vec<Option<u64>>; 2],
    /// Sectors that were given back, and then such that nobody had.
    free: Vec<u64>,
    next_free: u64,
}

impl Placement {
    fn new() -> Placement {
        let of_disk = |disk| {
            let mut sectors = vec![None; usize::try_from(SECTORS).unwrap()];
            for extent in extents(disk) {
                for (sector, place) in extent.sectors().zip(extent.offset_bytes / SECTOR_BYTES..) {
                    sectors[usize::try_from(place).unwrap()] = Some(sector);
                }
            }
            sectors
        };
        Placement { sectors: [of_disk(0), of_disk(1)], free: Vec::new(), next_free: 50_000 }
    }

    /// Gives sectors back.
    fn discard(&mut self, disk: u16, sectors: Range<u64>) {
        for place in sectors {
            let gone = self.sectors[usize::from(disk)][usize::try_from(place).unwrap()].take();
            self.free.extend(gone);
        }
    }

    /// The host's sectors of these, in pieces; a write gives places to those that have none.
    fn pieces(&mut self, disk: u16, sectors: Range<u64>, is_write: bool) -> Vec<Range<u64>> {
        let mut pieces: Vec<Range<u64>> = Vec::new();
        for place in sectors {
            let place = usize::try_from(place).unwrap();
            let known = self.sectors[usize::from(disk)][place];
            let sector = match known {
                Some(sector) => sector,
                None if !is_write => continue,
                None => {
                    self.next_free += 1;
                    self.free.pop().unwrap_or(self.next_free)
                }
            };
            self.sectors[usize::from(disk)][place] = Some(sector);
            match pieces.last_mut().filter(|piece| piece.end == sector) {
                Some(piece) => piece.end += 1,
                None => pieces.push(Range { start: sector, end: sector + 1 }),
            }
        }
        pieces
    }
}

fn operation(dice: &mut Dice, faults: Faults) -> BlockOperation {
    match dice.below(100) {
        dice if dice < faults.flushes => BlockOperation::Flush,
        dice if dice < faults.flushes + faults.discards => BlockOperation::Discard,
        dice if dice % 2 == 0 => BlockOperation::Read,
        _ => BlockOperation::Write,
    }
}

fn world(seed: u64, count: usize, disks: u16, faults: Faults) -> World {
    let mut dice = Dice(seed);
    let mut placement = Placement::new();
    let mut world = World { off_ns: dice.between(0, 2 * BOUND_NS), ..World::default() };
    let mut start = 100;
    while world.requests.len() < count {
        let operation = operation(&mut dice, faults);
        let device = u16::try_from(dice.below(disks.into())).unwrap();
        let (sector, sectors) = match operation {
            BlockOperation::Flush => (0, 0),
            _ => (dice.below(SECTORS / 4 - 4) * 4, dice.between(1, 4) * 4),
        };
        let end = start + dice.between(12, 60);
        // Two flushes that are issued at once are one.
        let waits = dice.below(5);
        let is_write = operation == BlockOperation::Write;
        let flags = match dice.below(3) {
            _ if !(is_write && dice.percent(faults.flushed)) => ObservedFlags(0),
            0 => ObservedFlags::FUA,
            1 => ObservedFlags::PREFLUSH,
            _ => ObservedFlags::PREFLUSH.with(ObservedFlags::FUA),
        };
        let flushes = operation == BlockOperation::Flush || flags != ObservedFlags(0);
        let issued = start + if flushes { 0 } else { waits };
        let request = ObservedRequest {
            device,
            operation,
            flags,
            sector,
            bytes: u32::try_from(sectors * SECTOR_BYTES).unwrap(),
            task: u32::try_from(world.requests.len()).unwrap(),
            queued: GuestTicks(start),
            issued: GuestTicks(issued),
            completed: GuestTicks(end),
            ..super::observed_laws::observed([0; 3], [0; 3])
        };
        let number = world.requests.len();
        world.requests.push(Asked { request, is_told: !dice.percent(faults.untold) });
        let time = issued + 2..end;
        let is_flushless = dice.percent(faults.flushless);
        if flushes && !is_flushless {
            sleep(&mut dice, &mut world, (number, device), &time, faults);
        }
        match operation {
            BlockOperation::Flush if is_flushless => {}
            BlockOperation::Flush => {
                // The journal's, which is somebody else's, and then the flush itself.
                let io = an_io(&mut dice, vec![number], 0..0, &time, faults);
                world.ios.push(io);
            }
            BlockOperation::Discard => placement.discard(device, sector..sector + sectors),
            _ => {
                let next = push_io(&mut dice, &mut placement, &mut world, request, faults);
                world.requests.extend(next);
            }
        }
        if dice.percent(faults.others) {
            let sectors = if dice.percent(50) { 0..0 } else { 1_000..1_004 };
            let mut other = an_io(&mut dice, vec![], sectors, &(start..start + 80), faults);
            other.is_own = false;
            world.ios.push(other);
        }
        start = if faults.depth <= 1 {
            end + 1 + 2 * BOUND_NS
        } else {
            start + dice.between(1, 60 / faults.depth)
        };
    }
    world
}

/// A thread sleeps for a request's flushes.
fn sleep(
    dice: &mut Dice,
    world: &mut World,
    (whose, disk): (usize, u16),
    time: &Range<u64>,
    faults: Faults,
) {
    let is_new = dice.percent(faults.new_threads);
    let middle = dice.between(time.start, time.end);
    for (place, part) in [time.start..middle, middle..time.end].into_iter().enumerate() {
        if part.end < part.start + 2 || dice.percent(20) {
            continue;
        }
        let from = dice.between(part.start, part.end - 2);
        world.sleeps.push(TrueSleep {
            whose,
            disk,
            from,
            until: dice.between(from + 1, part.end - 1),
            is_told_whose: !dice.percent(faults.unknown_calls),
            is_shown: !(is_new && place == 0),
        });
    }
}

/// The I/O of a request with data; returns the request after it if that goes with it.
fn push_io(
    dice: &mut Dice,
    placement: &mut Placement,
    world: &mut World,
    request: ObservedRequest,
    faults: Faults,
) -> Option<Asked> {
    let (device, number) = (request.device, usize::try_from(request.task).unwrap());
    let is_write = request.operation == BlockOperation::Write;
    let (sector, end) = (request.sector, request.sector + u64::from(request.bytes) / SECTOR_BYTES);
    let may_merge = request.flags == ObservedFlags(0) && end + 4 <= SECTORS;
    let merged = (may_merge && dice.percent(10)).then(|| {
        let task = request.task + 1;
        let request = ObservedRequest { sector: end, bytes: 2048, task, ..request };
        Asked { request, is_told: !dice.percent(faults.untold) }
    });
    let until = end + if merged.is_some() { 4 } else { 0 };
    let pieces = placement.pieces(device, sector..until, is_write);
    let own = placement.pieces(device, sector..end, false);
    let next = placement.pieces(device, end..until, false);
    let time = request.issued.0 + 2..request.completed.0;
    for piece in pieces {
        let middle = dice.between(piece.start + 1, piece.end);
        let cuts = [piece.start..middle, middle..piece.end];
        for cut in cuts.into_iter().filter(|cut| !cut.is_empty()) {
            let is_for = |of: &[Range<u64>]| of.iter().any(|piece| target::overlap(piece, &cut));
            let mut whose = Vec::new();
            whose.extend(is_for(&own).then_some(number));
            whose.extend(is_for(&next).then_some(number + 1));
            world.ios.push(an_io(dice, whose, cut, &time, faults));
        }
    }
    merged
}

fn an_io(
    dice: &mut Dice,
    whose: Vec<usize>,
    sectors: Range<u64>,
    time: &Range<u64>,
    faults: Faults,
) -> TrueIo {
    let submitted = dice.between(time.start, time.end - 1);
    let completed = dice.between(submitted, time.end);
    // Of flushes all is seen, or lost.
    let is_shown_to_end = sectors.is_empty() || !dice.percent(faults.hidden_completions);
    TrueIo { whose, sectors, submitted, completed, is_own: true, is_shown_to_end }
}

/// The disks as the join is told of them; `is_mapped` is whether it is told where they are.
fn disks(count: u16, coverage: Coverage, is_mapped: bool) -> Vec<ObservedDisk> {
    let disk = |number| ObservedDisk { descriptors: vec![], ..disk(number, coverage, is_mapped) };
    (0..count).map(disk).collect()
}

/// One of them, whose file is known too.
fn disk(number: u16, coverage: Coverage, is_mapped: bool) -> ObservedDisk {
    let extents = is_mapped.then(|| extents(number));
    let image = Image { access: HostAccess::Direct, extents };
    let descriptors = vec![file(number)];
    ObservedDisk { number, host_device: DEVICE, image, coverage, descriptors }
}

/// What the VMM calls the file of a disk.
fn file(disk: u16) -> u32 {
    10 + u32::from(disk)
}

fn placed(world: &World, request: ObservedRequest) -> Placed {
    let mut placed = placed_within(request, Bounds::all(BOUND_NS));
    let shown = |at: HostNs| HostNs(at.0 + world.off_ns - BOUND_NS);
    placed.start = shown(placed.start);
    placed.issued = placed.issued.map(shown);
    placed.end = shown(placed.end);
    placed
}

/// What the host's disk and the VMM's threads were seen to do.
#[derive(Debug, Clone)]
enum Deed {
    Disk(BlockStep, Range<u64>, Submitter),
    Recorded(Tid),
    Asleep(Tid, SyncCall),
    Awake(Tid),
}

/// Each deed with its time, in order.
fn deeds(world: &World) -> Vec<(u64, Deed)> {
    let mut deeds = Vec::new();
    for io in &world.ios {
        let submitter = if io.is_own { Submitter::OwnVm } else { Submitter::Other };
        let submitted = Deed::Disk(BlockStep::Submitted, io.sectors.clone(), submitter);
        deeds.push((io.submitted, 0, submitted));
        if io.is_shown_to_end {
            let completed = Deed::Disk(BlockStep::Completed, io.sectors.clone(), Submitter::Other);
            deeds.push((io.completed, 1, completed));
        }
    }
    let thread = |sleep: &TrueSleep| Tid(u32::try_from(sleep.whose).unwrap());
    let is_new = |whose| world.sleeps.iter().any(|sleep| sleep.whose == whose && !sleep.is_shown);
    for sleep in world.sleeps.iter().filter(|sleep| sleep.is_shown) {
        let since = if is_new(sleep.whose) { sleep.from } else { 0 };
        deeds.push((since, 0, Deed::Recorded(thread(sleep))));
        let call =
            if sleep.is_told_whose { SyncCall::Of(file(sleep.disk)) } else { SyncCall::Unknown };
        deeds.push((sleep.from, 0, Deed::Asleep(thread(sleep), call)));
        deeds.push((sleep.until, 1, Deed::Awake(thread(sleep))));
    }
    deeds.sort_by_key(|(time, order, _)| (*time, *order));
    deeds.into_iter().map(|(time, _, deed)| (time, deed)).collect()
}

fn push<Requests: Iterator<Item = Ordered<Placed, Range<HostNs>>>>(
    join: &mut ObservedJoin<Requests>,
    time: HostNs,
    deed: Deed,
) {
    match deed {
        Deed::Disk(step, sectors, submitter) => {
            let count = u32::try_from(sectors.end - sectors.start).unwrap();
            let (tid, device, sector) = (Tid(1), DEVICE, sectors.start);
            let event = BlockEvent { step, tid, device, sector, sectors: count, operation: None };
            join.push_io(time, &event, submitter);
        }
        Deed::Recorded(thread) => join.recorded(time, thread),
        Deed::Asleep(thread, call) => join.asleep(time, thread, call),
        Deed::Awake(thread) => join.awake(time, thread),
    }
}

fn show(world: &World, disks: Vec<ObservedDisk>) -> Vec<Breakdown> {
    let deeds = deeds(world);
    let end = deeds.last().map_or(0, |deed| deed.0) + 2_000;
    let mut requests: Vec<Placed> = world
        .requests
        .iter()
        .filter(|asked| asked.is_told)
        .map(|asked| placed(world, asked.request))
        .collect();
    requests.sort_by_key(|placed| placed.start);
    let vcpus = [(VcpuId(0), thread(0))];
    let requests = requests.into_iter().map(Ordered::Request);
    let completing: Vec<_> =
        disks.iter().map(|disk| (disk.number, CompletionVcpu::Interrupted)).collect();
    let mut join =
        ObservedJoin::new(vcpus, requests).with_disks(disks).with_completions(completing);
    let (mut deeds, mut out) = (deeds.into_iter().peekable(), Vec::new());
    for start in (0..end).step_by(usize::try_from(SPAN_NS).unwrap()) {
        let until = start + SPAN_NS;
        while let Some((time, deed)) = deeds.next_if(|deed| deed.0 <= until) {
            push(&mut join, HostNs(time), deed);
        }
        join.advance(HostNs(until));
        let state = ThreadState::Running { pcpu: PcpuId(1), mode: RunMode::Unsplit };
        let (start, end) = (HostNs(start), HostNs(until));
        let span = Span { tid: thread(0), start, end, state, antagonists: vec![] };
        join.push_span(&span, &mut |breakdown| out.push(breakdown));
    }
    join.finish(&mut |breakdown| out.push(breakdown));
    out.sort_by_key(|breakdown| breakdown.request.observed().unwrap().task);
    out
}

/// When the host had it, in pieces. A flush that is not known by its thread is the disk's alone.
fn true_times(world: &World, number: usize, by: By) -> Vec<Range<HostNs>> {
    let request = world.requests[number].request;
    let placed = placed(world, request);
    let within = |time: &Range<u64>| {
        let clamp = |ns: u64| HostNs(ns).clamp(placed.handed_over(), placed.end);
        clamp(time.start)..clamp(time.end)
    };
    let of_disk = by == By::Disk || request.operation != BlockOperation::Flush;
    let ios = world.ios.iter().filter(|io| of_disk && io.whose.contains(&number));
    let sleeps = world.sleeps.iter().filter(|sleep| by == By::Threads && sleep.whose == number);
    let ios = ios.map(|io| within(&(io.submitted..io.completed)));
    ios.chain(sleeps.map(|sleep| within(&(sleep.from..sleep.until)))).collect()
}

/// For how long any of these lasted.
fn union_ns(mut times: Vec<Range<HostNs>>) -> u64 {
    times.sort_by_key(|time| time.start);
    let (mut until, mut sum_ns) = (HostNs(0), 0);
    for time in times {
        sum_ns += time.end.since_ns(time.start.max(until));
        until = until.max(time.end);
    }
    sum_ns
}

/// By what flushes are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Disk,
    Threads,
}

/// Of how many requests the phases are known, by operation.
fn check(world: &World, disks: Vec<ObservedDisk>, by: By) -> Result<[usize; 5], TestCaseError> {
    let out = show(world, disks);
    let told = world.requests.iter().filter(|asked| asked.is_told).count();
    prop_assert_eq!(out.len(), told);
    let mut known = [0; 5];
    for breakdown in &out {
        let request = breakdown.request.observed().unwrap();
        let number = usize::try_from(request.task).unwrap();
        if let Ok(marks) = breakdown.io {
            let times = true_times(world, number, by);
            let submitted = times.iter().map(|time| time.start).min();
            let completed = times.iter().map(|time| time.end).max();
            let told = (Some(marks.submitted), Some(marks.completed));
            prop_assert_eq!(told, (submitted, completed), "{:?}", request);
            let device_ns = breakdown.phases.of(Phase::Device).total_ns();
            prop_assert_eq!(device_ns, union_ns(times), "{:?}", request);
            known[usize::from(request.operation.number())] += 1;
        }
        let is_beyond = matches!(breakdown.io_check, IoCheck::Beyond { .. });
        prop_assert!(!is_beyond, "{:?}: {:?}", request, breakdown.io_check);
        prop_assert_eq!(breakdown.phases.parts().total_ns(), breakdown.latency_ns());
    }
    Ok(known)
}

fn faults() -> impl Strategy<Value = Faults> {
    let shares = (0..60_u64, 0..30_u64, 0..20_u64, 0..10_u64, 0..30_u64, (0..30_u64, 1..6_u64));
    let of_flushes = (0..30_u64, 0..10_u64, 0..10_u64);
    (shares, of_flushes).prop_map(|(shares, (flushed, unknown_calls, new_threads))| {
        let (hidden_completions, untold, others, discards, flushes, (flushless, depth)) = shares;
        Faults {
            hidden_completions,
            untold,
            others,
            discards,
            flushes,
            flushless,
            flushed,
            unknown_calls,
            new_threads,
            depth,
        }
    })
}

const NONE: Faults = Faults {
    hidden_completions: 0,
    untold: 0,
    others: 0,
    discards: 0,
    flushes: 20,
    flushless: 0,
    flushed: 0,
    unknown_calls: 0,
    new_threads: 0,
    depth: 1,
};

proptest! {
    /// Two disks on one of the host's; only the slow requests may be told.
    #[test]
    fn no_observed_request_gets_a_mark_that_is_not_its_own(
        seed in any::<u64>(), faults in faults(), is_all in any::<bool>(),
    ) {
        // Where only the slow ones are told, discards are, or it is not known where the bytes are.
        let faults = if is_all {
            Faults { untold: 0, ..faults }
        } else {
            Faults { discards: 0, ..faults }
        };
        let coverage = if is_all { Coverage::Disk } else { Coverage::Slow };
        check(&world(seed, 40, 2, faults), disks(2, coverage, true), By::Disk)?;
    }

    /// One disk that is alone, so that flushes are known as well.
    #[test]
    fn no_flush_gets_anothers_marks(seed in any::<u64>(), faults in faults()) {
        let faults = Faults { untold: 0, ..faults };
        check(&world(seed, 40, 1, faults), disks(1, Coverage::All, true), By::Disk)?;
    }

    /// Two disks on one of the host's, and it is known which files the VMM's threads flush.
    #[test]
    fn no_flush_gets_the_sleep_of_anothers(seed in any::<u64>(), faults in faults()) {
        let faults = Faults { untold: 0, ..faults };
        let disks = (0..2).map(|number| disk(number, Coverage::Disk, true)).collect();
        check(&world(seed, 40, 2, faults), disks, By::Threads)?;
    }

    /// One request at a time, and all is shown: all flushes are known for which a thread slept.
    #[test]
    fn flushes_whose_threads_are_shown_are_known(seed in any::<u64>()) {
        let faults = Faults { flushes: 40, flushed: 50, ..NONE };
        let world = world(seed, 40, 2, faults);
        let disks = (0..2).map(|number| disk(number, Coverage::Disk, true)).collect();
        let known = check(&world, disks, By::Threads)?;
        let has_slept = |number| world.sleeps.iter().any(|sleep| sleep.whose == number);
        let is_flush = |of: &&Asked| of.request.operation == BlockOperation::Flush;
        let flushes = world.requests.iter().filter(is_flush);
        let expected = flushes.filter(|of| has_slept(of.request.task as usize)).count();
        prop_assert_eq!(known[usize::from(BlockOperation::Flush.number())], expected);
    }

    /// Where the image lies is not known: the same.
    #[test]
    fn without_a_map_no_observed_mark_is_anothers_either(
        seed in any::<u64>(), faults in faults(), is_alone in any::<bool>(),
    ) {
        // Others' I/O for an image is known to be such by its map only.
        let faults = Faults { untold: 0, discards: 0, others: 0, ..faults };
        let (count, coverage) = if is_alone { (1, Coverage::All) } else { (2, Coverage::Disk) };
        check(&world(seed, 40, count, faults), disks(count, coverage, false), By::Disk)?;
    }

    /// One request at a time, and all is shown: all is known of what the map has, and of flushes.
    #[test]
    fn what_is_shown_is_known(seed in any::<u64>()) {
        let world = world(seed, 40, 1, NONE);
        let known = check(&world, disks(1, Coverage::All, true), By::Disk)?;
        let is_in_hole = |request: &ObservedRequest| {
            let until = request.sector + u64::from(request.bytes) / SECTOR_BYTES;
            target::overlap(&(request.sector..until), &HOLE)
        };
        let expected = BlockOperation::ALL.map(|operation| {
            let requests = world.requests.iter().map(|asked| &asked.request);
            requests.filter(|of| of.operation == operation && !is_in_hole(of)).count()
        });
        prop_assert_eq!(known, expected);
    }
}
