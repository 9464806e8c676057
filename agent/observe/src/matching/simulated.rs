//! A block layer that does what linux's does, at random, and knows what came of each request.

use crate::event::{BlockTrace, BlockTraceKind, Rwbs};
use std::collections::VecDeque;
use vslice_wire::{BlockOperation, GuestTicks, ObservedFlags};

/// vCPUs of the guest. Each of a disk's hardware queues has every second one, if it has two.
const VCPUS: u64 = 4;

/// So long something is with the driver at most, where the kernel is prompt.
pub(super) const DRIVER_TICKS: u64 = 6000;

/// So long the kernel needs at most for three steps with a flush that nothing keeps it from, where it is
/// prompt.
pub(super) const QUIET_TICKS: u64 = 2000;

/// So long what is pending waits for data in flight (linux: `FLUSH_PENDING_TIMEOUT`).
const PENDING_TICKS: u64 = 5_000_000_000;

/// Where the logical volume of a disk begins.
pub(super) const TARGET_SECTOR: u64 = 2048;

/// Who has nothing to do with what it does.
const KWORKER: u32 = 9;

/// What a simulation may do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Habits {
    pub(super) hardware_queues: usize,
    pub(super) has_fua: bool,
    /// Requests for the same sectors at the same time.
    pub(super) has_same: bool,
    /// Flushes that are asked for and reach the queue only later, when others have overtaken them.
    pub(super) has_slow_flushes: bool,
    /// Nothing waits for longer than [`QUIET_TICKS`] and [`DRIVER_TICKS`]; if not, there is no bound.
    pub(super) is_prompt: bool,
}

/// A time, and a vCPU.
type Moment = (u64, u16);

/// What the kernel knows of a request that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Truth {
    pub(super) device: u16,
    pub(super) operation: BlockOperation,
    pub(super) sector: u64,
    pub(super) end: u64,
    pub(super) queued: (u64, u16),
    /// When, where and by whom its bios were sent on, or queued after that: what is seen if their beginnings
    /// are lost.
    pub(super) sent_on: Vec<(Moment, u32)>,
    pub(super) issued: (u64, u16),
    pub(super) completed: (u64, u16),
    pub(super) task: u32,
    pub(super) result: i32,
    pub(super) is_merged: bool,
    pub(super) is_requeued: bool,
}

/// A request on its way.
#[derive(Debug, Clone)]
struct Request {
    truth: Truth,
    /// What is not done yet begins here.
    start: u64,
    letters: &'static str,
    may_merge: bool,
    sequence: Sequence,
    queue: usize,
    /// Since when it is where it is.
    since: u64,
}

/// What a request wants of the flush machinery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sequence {
    is_flush: bool,
    before: bool,
    after: bool,
    has_begun: bool,
}

/// One hardware queue's flushes.
#[derive(Debug, Default)]
struct FlushQueue {
    pending: VecDeque<Request>,
    running: VecDeque<Request>,
    state: FlushState,
    data_in_flight: usize,
    /// Since when it is as it is, and since when the first of `pending` waits.
    since: u64,
    pending_since: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum FlushState {
    #[default]
    Idle,
    Kicked,
    Issued(u64, u16),
}

#[derive(Debug, Default)]
struct Disk {
    waiting: Vec<Request>,
    in_flight: Vec<Request>,
    slow: Vec<Request>,
    queues: Vec<FlushQueue>,
    next_sector: u64,
    /// Where flushes end and a write is under way.
    firsts: Vec<u64>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Simulation {
    habits: Habits,
    random: u64,
    time: u64,
    disks: [Disk; 2],
    /// The disks and queues whose flushes are ended, and the vCPUs that do it with interrupts off.
    ending: Vec<(usize, usize, u16)>,
    pub(super) events: Vec<BlockTrace>,
    pub(super) truths: Vec<Truth>,
}

impl Simulation {
    /// What happens in so many steps, until all that was asked for is done.
    pub(super) fn run(habits: Habits, seed: u64, steps: usize) -> Simulation {
        let disk = || Disk {
            queues: (0..habits.hardware_queues).map(|_| FlushQueue::default()).collect(),
            next_sector: 2 * TARGET_SECTOR,
            ..Disk::default()
        };
        let (events, truths) = (Vec::new(), Vec::new());
        let disks = [disk(), disk()];
        let random = seed | 1;
        let mut simulation =
            Simulation { habits, random, time: 100, disks, ending: Vec::new(), events, truths };
        for _ in 0..steps {
            simulation.step(true);
        }
        while simulation.is_busy() {
            simulation.step(false);
        }
        simulation
    }

    fn is_busy(&self) -> bool {
        self.disks.iter().any(|disk| {
            let flushes = |queue: &FlushQueue| queue.pending.len() + queue.running.len();
            disk.waiting.len() + disk.in_flight.len() + disk.slow.len() > 0
                || disk.queues.iter().map(flushes).sum::<usize>() > 0
        })
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from((self.random >> 11) % u64::try_from(bound).unwrap()).unwrap()
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn vcpu(&mut self) -> u16 {
        let vcpu = u16::try_from(self.below(usize::try_from(VCPUS).unwrap())).unwrap();
        if self.is_ending(vcpu) { self.vcpu() } else { vcpu }
    }

    /// Whether a vCPU ends flushes, and can do nothing else.
    fn is_ending(&self, vcpu: u16) -> bool {
        self.ending.iter().any(|(_, _, ending)| *ending == vcpu)
    }

    /// Whether the flushes of a queue are being ended, so that its lists are locked.
    fn is_locked(&self, device: usize, queue: usize) -> bool {
        self.ending.iter().any(|(disk, other, _)| (*disk, *other) == (device, queue))
    }

    fn vcpu_of(&mut self, queue: usize) -> u16 {
        let queues = self.habits.hardware_queues;
        let all = usize::try_from(VCPUS).unwrap() / queues;
        let vcpu = u16::try_from(queue + queues * self.below(all)).unwrap();
        if self.is_ending(vcpu) { self.vcpu_of(queue) } else { vcpu }
    }

    #[expect(clippy::too_many_arguments, reason = "an event has so many fields")]
    fn emit(
        &mut self,
        device: usize,
        vcpu: u16,
        task: u32,
        kind: BlockTraceKind,
        letters: &str,
        sector: u64,
        sectors: u64,
    ) -> (u64, u16) {
        self.time += u64::try_from(self.below(50)).unwrap() + 1;
        self.events.push(BlockTrace {
            time: GuestTicks(self.time),
            vcpu,
            device: u16::try_from(device).unwrap(),
            task,
            thread: task,
            kind,
            sector,
            sectors: u32::try_from(sectors).unwrap(),
            rwbs: Rwbs::of_letters(letters.as_bytes()),
        });
        (self.time, vcpu)
    }

    fn step(&mut self, may_ask: bool) {
        if self.ending.is_empty() {
            if self.habits.is_prompt {
                let rests = if self.one_in(60) { 12 } else { 0 };
                (0..rests).for_each(|_| {
                    self.hurry();
                    self.time += 300;
                });
                self.hurry();
            } else if self.one_in(100) {
                self.time += PENDING_TICKS;
            }
        }
        let device = self.below(2);
        match self.below(10) {
            0..=2 if may_ask => self.ask(device),
            3 | 4 => self.issue(device),
            5 | 6 => self.complete(device),
            7 => {
                let queue = self.below(self.habits.hardware_queues);
                self.flush(device, queue);
            }
            8 if self.one_in(4) => self.requeue(device),
            9 => {
                let slow = std::mem::take(&mut self.disks[device].slow);
                slow.into_iter().rev().for_each(|request| self.sequence_slow(device, request));
            }
            _ => {}
        }
    }

    /// One that had to wait for a tag may have been moved to another vCPU meanwhile.
    fn sequence_slow(&mut self, device: usize, mut request: Request) {
        if self.one_in(2) {
            request.queue = usize::from(self.vcpu()) % self.habits.hardware_queues;
        }
        self.sequence(device, request);
    }

    /// Does what is overdue, where the kernel is prompt.
    fn hurry(&mut self) {
        let (soon, late) = (self.time.saturating_sub(QUIET_TICKS / 5), DRIVER_TICKS * 2 / 3);
        let late = self.time.saturating_sub(late);
        for device in 0..2 {
            while let Some(at) = self.disks[device].slow.iter().position(|slow| slow.since < soon) {
                let request = self.disks[device].slow.remove(at);
                self.sequence_slow(device, request);
            }
            for queue in 0..self.habits.hardware_queues {
                let (state, since) = {
                    let of = &self.disks[device].queues[queue];
                    (of.state, of.since)
                };
                match state {
                    FlushState::Idle | FlushState::Kicked if since < soon => {
                        self.flush(device, queue);
                    }
                    FlushState::Issued(..) if since < late => self.flush(device, queue),
                    _ => {}
                }
            }
            let is_overdue = |request: &Request| {
                (request.sequence.before || request.sequence.after) && request.since < soon
            };
            while let Some(at) = self.disks[device].waiting.iter().position(is_overdue) {
                self.issue_at(device, at);
            }
            let is_overdue = |request: &Request| request.since < late;
            while let Some(at) = self.disks[device].in_flight.iter().position(is_overdue) {
                self.complete_at(device, at);
            }
        }
    }

    /// Somebody asks for something.
    fn ask(&mut self, device: usize) {
        let letters =
            ["R", "RA", "W", "W", "WS", "D", "N", "FWS", "FWS", "WFS", "FWFS"][self.below(11)];
        let task = u32::try_from(self.below(3)).unwrap();
        let vcpu = self.vcpu();
        let rwbs = Rwbs::of_letters(letters.as_bytes());
        let is_flush = letters == "FWS" && self.one_in(2);
        let length = if is_flush { 0 } else { 8 * (1 + u64::try_from(self.below(4)).unwrap()) };
        let after = rwbs.flags.contains(ObservedFlags::FUA) && !self.habits.has_fua;
        let before = rwbs.flags.contains(ObservedFlags::PREFLUSH);
        // On one of the disks there is a logical volume.
        let flush_sector = if device == 1 && self.one_in(2) { TARGET_SECTOR } else { 0 };
        let is_free = !self.disks[device].firsts.contains(&flush_sector);
        let is_first = !is_flush && (before || after) && is_free && self.one_in(8);
        let sector = match (is_flush, is_first) {
            (true, _) => flush_sector,
            (false, true) => {
                self.disks[device].firsts.push(flush_sector);
                flush_sector
            }
            (false, false) => self.sector(device, length, letters == "D"),
        };
        let (queued, sent_on) = self.queue(device, vcpu, task, letters, sector, length);
        // Who may not wait asks again, on another vCPU.
        if !is_first && self.one_in(16) {
            // Whoever queued it is told, also if that was a kworker.
            let (by, vcpu) = sent_on.last().map_or((task, vcpu), |((_, vcpu), by)| (*by, *vcpu));
            self.emit(device, vcpu, by, BlockTraceKind::Refused, letters, sector, length);
            return;
        }
        let queue = usize::from(vcpu) % self.habits.hardware_queues;
        let sequence = Sequence { is_flush, before, after, has_begun: false };
        let truth = Truth {
            device: u16::try_from(device).unwrap(),
            operation: if is_flush { BlockOperation::Flush } else { rwbs.operation },
            sector,
            end: sector + length,
            queued,
            sent_on,
            issued: (0, 0),
            completed: (0, 0),
            task,
            result: 0,
            is_merged: false,
            is_requeued: false,
        };
        // What the kernel says once it is a request.
        let letters = match letters {
            "FWS" => "WS",
            "WFS" | "FWFS" if !self.habits.has_fua => "WS",
            "FWFS" => "WFS",
            other => other,
        };
        let may_merge = !before && !after && letters != "N" && letters != "WFS";
        let since = self.time;
        let request = Request { truth, start: sector, letters, may_merge, sequence, queue, since };
        if !(before || after) {
            self.insert(device, request);
        } else if self.habits.has_slow_flushes && self.one_in(3) {
            self.disks[device].slow.push(request);
        } else {
            self.sequence(device, request);
        }
    }

    /// Events until a bio is queued: since when it is, and each by which it was sent on since, and by whom.
    fn queue(
        &mut self,
        device: usize,
        vcpu: u16,
        task: u32,
        letters: &'static str,
        sector: u64,
        length: u64,
    ) -> (Moment, Vec<(Moment, u32)>) {
        let way = self.below(16);
        let kind = BlockTraceKind::Queue;
        if way > 3 {
            return (self.emit(device, vcpu, task, kind, letters, sector, length), Vec::new());
        }
        // From the device mapper to a partition, which flushes are not sent on from.
        let is_of_partition = way == 0 && length > 0;
        let before = if is_of_partition { sector + (1 << 40) } else { sector };
        let from_other = BlockTraceKind::Remap { from: None };
        let queued = self.emit(device, vcpu, task, from_other, letters, before, length);
        let mut sent_on = Vec::new();
        if is_of_partition {
            let kind = BlockTraceKind::Remap { from: Some(before) };
            sent_on.push((self.emit(device, vcpu, task, kind, letters, sector, length), task));
        }
        // By a kworker, once the control group may.
        let (by, vcpu) = if way == 1 { (KWORKER, self.vcpu()) } else { (task, vcpu) };
        sent_on.push((self.emit(device, vcpu, by, kind, letters, sector, length), by));
        (queued, sent_on)
    }

    /// Sectors that nobody else has, unless the same are wanted. Every other bio follows the last.
    fn sector(&mut self, device: usize, length: u64, is_apart: bool) -> u64 {
        if self.habits.has_same && !is_apart && self.one_in(4) {
            return 8 * (1 + u64::try_from(self.below(8)).unwrap());
        }
        let gap = if self.one_in(2) { 64 } else { 0 };
        let disk = &mut self.disks[device];
        disk.next_sector += gap + length;
        disk.next_sector - length
    }

    /// Among those that wait for the driver: merged, in parts, or as it is.
    fn insert(&mut self, device: usize, request: Request) {
        if request.may_merge && self.merge(device, &request) {
            return;
        }
        let length = request.truth.end - request.truth.sector;
        if length > 8 && request.letters != "D" && !request.sequence.before && self.one_in(4) {
            let middle = request.truth.sector + 8;
            let (mut front, mut rest) = (request.clone(), request);
            front.truth.end = middle;
            front.may_merge = false;
            rest.truth.sector = middle;
            rest.start = middle;
            self.disks[device].waiting.push(front);
            self.disks[device].waiting.push(rest);
        } else {
            self.disks[device].waiting.push(request);
        }
    }

    fn merge(&mut self, device: usize, request: &Request) -> bool {
        let is_discard = request.letters == "D";
        let waiting = &mut self.disks[device].waiting;
        let latest = waiting.iter().rposition(|other| other.letters == "D" && is_discard);
        let latest = latest.filter(|place| waiting[*place].may_merge);
        let place = waiting.iter().position(|other| {
            other.may_merge
                && other.letters == request.letters
                && !is_discard
                && (other.truth.end == request.start
                    || (request.truth.end == other.start && other.start == other.truth.sector))
        });
        let Some(place) = place.or(latest) else { return false };
        if is_discard && waiting[place].truth.task != request.truth.task {
            return false;
        }
        let truth = &mut waiting[place].truth;
        if is_discard {
            truth.end += request.truth.end - request.truth.sector;
        } else {
            truth.sector = truth.sector.min(request.truth.sector);
            truth.end = truth.end.max(request.truth.end);
        }
        if request.truth.queued < truth.queued {
            (truth.queued, truth.task) = (request.truth.queued, request.truth.task);
        }
        truth.sent_on.extend(&request.truth.sent_on);
        truth.is_merged = true;
        truth.is_requeued |= request.truth.is_requeued;
        if !is_discard {
            let other = &mut waiting[place];
            other.start = other.start.min(request.start);
        }
        true
    }

    fn issue(&mut self, device: usize) {
        if self.disks[device].waiting.is_empty() {
            return;
        }
        let place = self.below(self.disks[device].waiting.len());
        self.issue_at(device, place);
    }

    fn issue_at(&mut self, device: usize, place: usize) {
        let mut request = self.disks[device].waiting.remove(place);
        let vcpu = self.vcpu_of(request.queue);
        let (start, sectors) = (request.start, request.truth.end - request.start);
        let kind = BlockTraceKind::Issue;
        let issued = self.emit(device, vcpu, 9, kind, request.letters, start, sectors);
        if !request.sequence.before {
            request.truth.issued = issued;
        }
        request.since = self.time;
        self.disks[device].in_flight.push(request);
    }

    fn requeue(&mut self, device: usize) {
        if self.disks[device].in_flight.is_empty() {
            return;
        }
        let place = self.below(self.disks[device].in_flight.len());
        let mut request = self.disks[device].in_flight.remove(place);
        let vcpu = self.vcpu();
        let (start, sectors) = (request.start, request.truth.end - request.start);
        self.emit(device, vcpu, 9, BlockTraceKind::Requeue, request.letters, start, sectors);
        request.truth.is_requeued = true;
        // A discard of several ranges grows only while it is the last of its thread.
        request.may_merge &= request.letters != "D";
        request.since = self.time;
        self.disks[device].waiting.push(request);
    }

    fn complete(&mut self, device: usize) {
        if self.disks[device].in_flight.is_empty() {
            return;
        }
        let place = self.below(self.disks[device].in_flight.len());
        self.complete_at(device, place);
    }

    fn complete_at(&mut self, device: usize, place: usize) {
        let request = &self.disks[device].in_flight[place];
        let is_sequenced = request.sequence.before || request.sequence.after;
        if is_sequenced && self.is_locked(device, request.queue) {
            return;
        }
        let mut request = self.disks[device].in_flight.remove(place);
        let vcpu = self.vcpu_of(request.queue);
        let left = request.truth.end - request.start;
        let may_part = left > 8 && request.letters != "D";
        let part = if may_part && self.one_in(4) { 8 } else { left };
        let result = if self.one_in(8) { -5 } else { 0 };
        if request.truth.result == 0 {
            request.truth.result = result;
        }
        let kind = BlockTraceKind::Complete { result };
        let (start, letters) = (request.start, request.letters);
        request.truth.completed = self.emit(device, vcpu, 9, kind, letters, start, part);
        if part < left {
            request.start += part;
            self.disks[device].in_flight.push(request);
        } else if is_sequenced {
            let queue = &mut self.disks[device].queues[request.queue];
            queue.data_in_flight -= 1;
            if queue.state == FlushState::Idle {
                queue.since = self.time;
            }
            if request.sequence.after && request.truth.result == 0 {
                self.pend(device, request);
            } else {
                self.end(device, vcpu, request, 0);
            }
        } else {
            if result != 0 && self.one_in(2) {
                let (sector, end) = (request.truth.sector, request.truth.end);
                self.emit(device, vcpu, 9, BlockTraceKind::Refused, letters, sector, end - sector);
            }
            self.truths.push(request.truth);
        }
    }

    /// Begins what a request wants of the flush machinery.
    fn sequence(&mut self, device: usize, mut request: Request) {
        if self.is_locked(device, request.queue) {
            self.disks[device].slow.push(request);
        } else if request.sequence.before {
            self.pend(device, request);
        } else {
            self.disks[device].queues[request.queue].data_in_flight += 1;
            request.sequence.has_begun = true;
            request.since = self.time;
            self.disks[device].waiting.push(request);
        }
    }

    fn pend(&mut self, device: usize, request: Request) {
        let queue = &mut self.disks[device].queues[request.queue];
        if queue.state == FlushState::Idle {
            queue.since = self.time;
        }
        if queue.pending.is_empty() {
            queue.pending_since = self.time;
        }
        queue.pending.push_back(request);
    }

    /// Issues a flush of the queue, if it may be; that it goes to the driver is another step.
    fn kick(&mut self, device: usize, queue: usize) {
        let time = self.time;
        let queue = &mut self.disks[device].queues[queue];
        let has_data = queue.data_in_flight > 0 && time < queue.pending_since + PENDING_TICKS;
        if queue.state == FlushState::Idle && !queue.pending.is_empty() && !has_data {
            queue.running = std::mem::take(&mut queue.pending);
            queue.state = FlushState::Kicked;
            queue.since = time;
        }
    }

    /// One step of a hardware queue's flush machinery.
    fn flush(&mut self, device: usize, index: usize) {
        let is_given_back = self.one_in(8);
        match self.disks[device].queues[index].state {
            FlushState::Idle if self.is_locked(device, index) => {}
            FlushState::Idle => self.kick(device, index),
            FlushState::Kicked => {
                let vcpu = self.vcpu_of(index);
                let (time, vcpu) = self.emit(device, vcpu, 9, BlockTraceKind::Issue, "FF", 0, 0);
                let queue = &mut self.disks[device].queues[index];
                (queue.state, queue.since) = (FlushState::Issued(time, vcpu), time);
            }
            FlushState::Issued(..) if is_given_back => {
                let vcpu = self.vcpu_of(index);
                self.emit(device, vcpu, 9, BlockTraceKind::Requeue, "FF", u64::MAX, 0);
                let queue = &mut self.disks[device].queues[index];
                (queue.state, queue.since) = (FlushState::Kicked, self.time);
            }
            // Of two hardware queues each keeps a vCPU that does not end flushes.
            FlushState::Issued(..) if self.ending.iter().any(|(_, other, _)| *other == index) => {}
            FlushState::Issued(time, by) => {
                let vcpu = self.vcpu_of(index);
                self.ending.push((device, index, vcpu));
                self.flushed(device, index, vcpu, (time, by));
                self.ending.pop();
            }
        }
    }

    /// As `flush_end_io` does it: once something has ended, the next may go before all have gone on.
    fn flushed(&mut self, device: usize, index: usize, vcpu: u16, issued: (u64, u16)) {
        let result = if self.one_in(8) { -5 } else { 0 };
        let kind = BlockTraceKind::Complete { result };
        self.emit(device, vcpu, 9, kind, "FF", u64::MAX, 0);
        let queue = &mut self.disks[device].queues[index];
        (queue.state, queue.since) = (FlushState::Idle, self.time);
        for mut request in std::mem::take(&mut queue.running) {
            // Its vCPU may be off meanwhile.
            let most = if self.habits.is_prompt { 4 } else { 20 };
            let steps = if self.one_in(4) { self.below(most) } else { 0 };
            (0..steps).for_each(|_| self.step(true));
            let goes_before = request.sequence.before && !request.sequence.has_begun;
            if goes_before {
                request.truth.issued = issued;
            }
            let is_data = goes_before && !request.sequence.is_flush && result == 0;
            if is_data {
                request.sequence.has_begun = true;
                request.since = self.time;
                self.disks[device].queues[index].data_in_flight += 1;
                self.disks[device].waiting.push(request);
            } else {
                self.end(device, vcpu, request, result);
            }
            if self.one_in(2) {
                self.kick(device, index);
            }
        }
    }

    /// The last completion of what the flush machinery had.
    fn end(&mut self, device: usize, vcpu: u16, mut request: Request, result: i32) {
        let has_begun = request.sequence.has_begun || request.sequence.is_flush;
        let sectors = if has_begun { 0 } else { request.truth.end - request.start };
        let kind = BlockTraceKind::Complete { result };
        let (start, letters) = (request.start, request.letters);
        request.truth.completed = self.emit(device, vcpu, 9, kind, letters, start, sectors);
        if request.truth.result == 0 {
            request.truth.result = result;
        }
        if request.sequence.is_flush {
            request.truth.sector = 0;
            request.truth.end = 0;
        } else {
            let sector = request.truth.sector;
            self.disks[device].firsts.retain(|first| *first != sector);
        }
        self.truths.push(request.truth);
    }
}
