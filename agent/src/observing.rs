//! What the guest's kernel does with its disks: from perf's rings to the outbox.
//!
//! While the outbox has no room the rings are left as they are: the kernel counts what it has no room for.

use crate::link::{Link, Others};
use crate::uptime::uptime;
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::thread;
use std::time::{Duration, Instant};
use vslice_observe::{Limits, Matching, ObserveError, Pass, Source, clock_cost};
use vslice_spec::ObserveSpec;
use vslice_wire::{
    Dropped, GuestFrame, GuestTicks, Notice, OBSERVED_MAX, OBSERVED_TASKS_MAX, Observed,
    ObservedBlock, ObservedCost, ObservedEnd, ObservedOthers, ObservedRequest, ObservedTask,
    Severity,
};

/// The rings are emptied so often, in ms, and earlier when one is about to be full: to wake costs more than a
/// hundred requests do.
const PASS_MS: u16 = 200;

/// The same where a ring does not wake its reader.
const UNWOKEN_PASS_MS: u16 = 50;

/// A block that is not full is sent when its first request waits for so long, for the live view: before the
/// next pass.
const BLOCK_AGE: Duration = Duration::from_millis(150);

/// Without requests, it is said so often up to when there were none; and what was counted, and what it cost.
const COUNTS_PERIOD: Duration = Duration::from_secs(1);

/// Bios and requests that are open at once, at most: 16 disks with 256 each.
const OPEN_MAX: usize = 4096;

/// How long the end waits for the titles of tasks that were told last.
const TITLES_PATIENCE: Duration = Duration::from_millis(100);

/// Observing one guest.
#[derive(Debug)]
pub(crate) struct Observing {
    /// `None` after it has failed.
    source: Option<Source>,
    matching: Matching,
    /// Requests that are not sent yet.
    waiting: VecDeque<ObservedRequest>,
    /// When the first of them was made.
    waiting_since: Duration,
    passed_at: Duration,
    /// A ring is about to be full.
    is_urgent: bool,
    /// Whether the rings can be waited for: not after a vCPU has gone offline.
    can_wait: bool,
    counted_at: Duration,
    /// Up to where the rings were read.
    until: GuestTicks,
    settled: GuestTicks,
    others: Vec<ObservedOthers>,
    cost: ObservedCost,
}

impl Observing {
    /// Opens everything and tells of the disks. Nothing is recorded yet.
    pub(crate) fn open(spec: &ObserveSpec, link: &mut Link) -> Result<Observing, ObserveError> {
        let source = Source::open(&spec.devices)?;
        let clock_read_ns = clock_cost::clock_read_ns();
        let limits = Limits {
            open_max: OPEN_MAX,
            slower_than_ticks: spec.slower_than_us.saturating_mul(1_000),
            ..Limits::default()
        };
        let mut observing = Observing {
            source: Some(source),
            matching: Matching::new(limits),
            waiting: VecDeque::new(),
            waiting_since: Duration::ZERO,
            passed_at: Duration::ZERO,
            is_urgent: false,
            can_wait: true,
            counted_at: uptime(),
            until: GuestTicks(0),
            settled: GuestTicks(0),
            others: Vec::new(),
            cost: ObservedCost { clock_read_ns, ..ObservedCost::default() },
        };
        clock_cost::warning(clock_read_ns).iter().for_each(|text| warn(link, text));
        observing.tell_disks(link);
        Ok(observing)
    }

    /// From now on it is recorded.
    pub(crate) fn start(&mut self, link: &mut Link) {
        let Some(source) = &mut self.source else { return };
        match source.enable() {
            Ok(()) => self.matching.begin(vslice_observe::clock::now()),
            Err(error) => self.fail(&error, link),
        }
    }

    /// How long to wait for the collector and the rings, in ms.
    pub(crate) fn poll_ms(&self) -> u16 {
        if self.can_wait { PASS_MS } else { UNWOKEN_PASS_MS }
    }

    /// What to wait for beside the collector.
    pub(crate) fn poll_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.source.iter().filter(|_| self.can_wait).flat_map(Source::poll_fds)
    }

    /// What became of those.
    pub(crate) fn woken(&mut self, by: Others) {
        self.is_urgent = by == Others::Readable;
        self.can_wait &= by != Others::Gone;
    }

    /// Sends what is due, as far as there is room, and empties the rings if all that was in them has gone.
    pub(crate) fn advance(&mut self, link: &mut Link) {
        let used_before = clock_cost::thread_cpu_ns();
        let now = uptime();
        self.send_blocks(link, now);
        let interval = Duration::from_millis(self.poll_ms().into());
        if self.waiting.len() < OBSERVED_MAX
            && link.has_room()
            && (self.is_urgent || now.saturating_sub(self.passed_at) >= interval)
        {
            self.passed_at = now;
            self.pass(link, Source::pass);
            self.send_blocks(link, now);
        }
        if now.saturating_sub(self.counted_at) >= COUNTS_PERIOD && link.has_room() {
            self.counted_at = now;
            self.send_counts(link);
        }
        let used_ns = clock_cost::thread_cpu_ns().saturating_sub(used_before);
        self.cost.cpu_ns = self.cost.cpu_ns.saturating_add(used_ns);
    }

    /// Records nothing more, and sends what is left, at most what the rings hold, whether there is room or
    /// not.
    pub(crate) fn end(mut self, link: &mut Link) {
        // One vCPU after the other records no more: of what is completed after this, not all is seen.
        let at = vslice_observe::clock::now();
        match self.source.as_mut().map(Source::disable) {
            Some(Ok(())) => self.pass(link, Source::last_pass),
            Some(Err(error)) => self.fail(&error, link),
            None => {}
        }
        while !self.waiting.is_empty() {
            self.send_block(link);
        }
        self.send_block(link);
        self.send_end(at, link);
        let begun = Instant::now();
        while self.source.as_ref().is_some_and(|source| !source.are_titled())
            && begun.elapsed() < TITLES_PATIENCE
        {
            thread::sleep(Duration::from_millis(1));
        }
        self.send_counts(link);
    }

    fn pass(
        &mut self,
        link: &mut Link,
        pass: impl FnOnce(&mut Source) -> Result<Pass<'_>, ObserveError>,
    ) {
        let Some(source) = &mut self.source else { return };
        match pass(source).map(|pass| hand_on(pass, &mut self.matching)) {
            Ok(until) => self.until = until,
            Err(error) => return self.fail(&error, link),
        }
        // Losses go before the blocks that say that all was told.
        self.send_losses(link);
        self.tell_disks(link);
        if self.waiting.is_empty() {
            self.waiting_since = uptime();
        }
        self.waiting.extend(self.matching.take_requests());
    }

    fn send_losses(&mut self, link: &mut Link) {
        for lost in self.matching.take_lost() {
            link.send(&GuestFrame::Observed(Observed::Lost(lost)));
        }
    }

    /// Whatever goes wrong with observing, the load goes on.
    fn fail(&mut self, error: &ObserveError, link: &mut Link) {
        self.source = None;
        warn(link, &format!("observing has ended early: {error}"));
        let last = vslice_observe::clock::now();
        self.matching.lose(Dropped { count: 1, first: self.until.min(last), last });
        self.send_losses(link);
    }

    fn tell_disks(&mut self, link: &mut Link) {
        let Some(source) = &mut self.source else { return };
        let disks = source.take_devices();
        for disk in &disks {
            self.matching.set_hardware_queues(disk.number, disk.hardware_queues);
        }
        if !disks.is_empty() {
            link.send(&GuestFrame::Observed(Observed::Devices(disks)));
        }
        source.take_notices().iter().for_each(|text| warn(link, text));
    }

    fn send_blocks(&mut self, link: &mut Link, now: Duration) {
        while self.waiting.len() >= OBSERVED_MAX && link.has_room() {
            self.send_block(link);
        }
        let age = now.saturating_sub(self.waiting_since);
        let is_due = if self.waiting.is_empty() { age >= COUNTS_PERIOD } else { age >= BLOCK_AGE };
        if is_due && link.has_room() {
            self.waiting_since = now;
            self.send_block(link);
        }
    }

    /// One block, and before it the tasks that it names first.
    fn send_block(&mut self, link: &mut Link) {
        let count = self.waiting.len().min(OBSERVED_MAX);
        let requests: Vec<ObservedRequest> = self.waiting.drain(..count).collect();
        if self.waiting.is_empty() {
            self.settled = self.settled.max(self.matching.settled());
        }
        self.tell_tasks(requests.iter().map(|request| request.task), link);
        let block = ObservedBlock { settled: self.settled, requests };
        link.send(&GuestFrame::Observed(Observed::Requests(block)));
    }

    /// What was open until the end. Where observing has failed that is not known: all of it is lost by then.
    fn send_end(&mut self, at: GuestTicks, link: &mut Link) {
        let Some(source) = &self.source else { return };
        let hidden = source.hidden();
        let under_way = self.matching.under_way(at);
        self.tell_tasks(under_way.iter().map(|row| row.task), link);
        let counts = self.matching.counts();
        link.send(&GuestFrame::Observed(Observed::End(ObservedEnd {
            at,
            earlier_count: counts.under_way,
            passthrough_count: counts.passthrough,
            late_count: counts.late,
            hidden,
            under_way,
        })));
    }

    fn tell_tasks(&mut self, numbers: impl Iterator<Item = u32>, link: &mut Link) {
        let Some(source) = &mut self.source else { return };
        let now = uptime();
        let mut tasks = source.take_titled();
        tasks.extend(numbers.filter_map(|number| source.task(number, now)));
        send_tasks(tasks, link);
    }

    fn send_counts(&mut self, link: &mut Link) {
        let others = self.matching.others();
        if others != self.others {
            self.others = others.to_vec();
            link.send(&GuestFrame::Observed(Observed::Others(self.others.clone())));
        }
        let Some(source) = &mut self.source else { return };
        send_tasks(source.take_titled(), link);
        let cost = ObservedCost {
            cpu_ns: self.cost.cpu_ns.saturating_add(source.cpu_ns()),
            events_count: source.events_count(),
            lost_count: source.lost_count(),
            ..self.cost
        };
        link.send(&GuestFrame::Observed(Observed::Cost(cost)));
    }
}

/// Up to where everything was handed on. What was there before a loss is handed on before it, and is known.
fn hand_on(pass: Pass<'_>, matching: &mut Matching) -> GuestTicks {
    let mut events = pass.events.peekable();
    for lost in pass.lost {
        while let Some(event) = events.next_if(|event| event.time <= lost.first) {
            matching.take(&event);
        }
        matching.lose(lost);
    }
    events.for_each(|event| matching.take(&event));
    matching.pass(pass.until);
    pass.until
}

fn send_tasks(tasks: Vec<ObservedTask>, link: &mut Link) {
    for tasks in tasks.chunks(OBSERVED_TASKS_MAX) {
        link.send(&GuestFrame::Observed(Observed::Tasks(tasks.to_vec())));
    }
}

/// Tells the collector what whoever reads the report has to know.
pub(crate) fn warn(link: &mut Link, text: &str) {
    link.send(&GuestFrame::Notice(Notice::new(Severity::Warning, text)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_observe::{BlockTrace, BlockTraceKind, Rwbs};

    /// Queued, issued and completed, one tick after the other.
    fn read(begun: u64, sector: u64) -> [BlockTrace; 3] {
        let kinds =
            [BlockTraceKind::Queue, BlockTraceKind::Issue, BlockTraceKind::Complete { result: 0 }];
        let event = |(time, kind)| BlockTrace {
            time: GuestTicks(time),
            vcpu: 0,
            device: 0,
            task: 0,
            thread: 0,
            kind,
            sector,
            sectors: 8,
            rwbs: Rwbs::of_letters(b"R"),
        };
        [(begun, kinds[0]), (begun + 1, kinds[1]), (begun + 2, kinds[2])].map(event)
    }

    #[test]
    fn what_was_there_before_a_loss_is_told_and_what_was_within_it_is_not() {
        let mut events = [read(10, 0), read(20, 8), read(50, 16)].concat();
        let lost = Dropped { count: 4, first: GuestTicks(12), last: GuestTicks(40) };
        let pass = Pass { lost: vec![lost], events: events.drain(..), until: GuestTicks(60) };
        let mut matching = Matching::new(Limits::default());
        assert_eq!(hand_on(pass, &mut matching), GuestTicks(60));
        let sectors: Vec<_> =
            matching.take_requests().iter().map(|request| request.sector).collect();
        assert_eq!(sectors, [0, 16]);
        assert_eq!(matching.take_lost().into_iter().collect::<Vec<_>>(), [lost]);
    }
}
