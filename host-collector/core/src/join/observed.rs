//! The join of a VM's observed requests with the timelines of its vCPUs' threads and the I/O of its disks.

use super::asked::{Asked, Coverage};
use super::breakdown::{Attribution, Breakdown, IoCheck, PhaseVcpus};
use super::guest_request::GuestRequest;
use super::history::History;
use super::ios::Submitter;
use super::laid::{Threads, lay};
use super::matching::Matching;
use super::part::Part;
use super::phase::{NoPhase, RequestIo};
use super::placed::Placed;
use super::queue_order::Ordered;
use super::recent_spans::RecentSpans;
use super::sectors::SectorSet;
use super::sync_calls::SyncCall;
use super::target::Image;
use super::uncertainty::{self, End};
use super::windows::Window;
use crate::extent::Extent;
use crate::host_event::BlockEvent;
use crate::timeline::Span;
use crate::units::{HostNs, Tid, VcpuId};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use vslice_wire::CompletionVcpu;

/// Requests that are kept at most, until all has come that they need. A guest that has more under way, or a
/// vCPU whose thread is asleep for long, costs the earliest of them their causes.
pub const OBSERVED_PENDING_MAX: usize = 1 << 16;

/// Spans of all of a VM's vCPUs that are kept at most: some 60 MiB of them.
const SPANS_MAX: usize = 1 << 19;

/// Spans of one vCPU that are always kept.
const SPANS_OF_VCPU_MIN: usize = 1 << 12;

/// Spans and requests after which it is looked for what can be let go of, at least.
const KEPT_MAX: usize = 64;

/// A guest's disk whose requests are observed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedDisk {
    /// What its requests call it.
    pub number: u16,
    /// The host's disk that its image is on.
    pub host_device: u32,
    /// Its image.
    pub image: Image,
    /// Which requests are told.
    pub coverage: Coverage,
    /// The numbers by which the VMM has its image open, and no other; empty if they are not known.
    pub descriptors: Vec<u32>,
}

/// Splits the observed requests of a VM by what the threads of the vCPUs that they waited for were doing
/// meanwhile: over the vCPU that queued and the one that issued it until the host has the request's I/O, and
/// over the one that took the interrupt once the host's I/O is done. See `laid.rs`.
///
/// So each is held back until the host's I/O is known and the threads of all its vCPUs have come far enough,
/// and each thread's recent spans are kept whole until then. All of that is bounded: what there was no room
/// for counts as unknown, and the request as [`Attribution::Forgotten`]. Conservation is by construction, as
/// the parts are the sums over phases that follow each other from the request's start to its end.
///
/// # Input
/// As of a [`Join`](super::Join), but in the order in which they were queued, see
/// [`QueueOrder`](super::QueueOrder). Requests of disks that were not named by
/// [`ObservedJoin::with_disks`] are split without phases.
#[derive(Debug)]
pub struct ObservedJoin<Requests> {
    threads: Vec<ThreadLane>,
    requests: Requests,
    next: Option<Pulled>,
    /// Covered by all threads that they need, but not by the disks' events.
    for_io: BTreeMap<Due, Pulled>,
    disks: Vec<Disk>,
    completing: BTreeMap<u16, CompletionVcpu>,
    number: u64,
    pending_count: usize,
    kept_count: usize,
}

/// The time up to which all must have come for a request, and a number to tell it apart.
type Due = (HostNs, u64);

/// A vCPU's thread, and the requests that wait for its spans first.
#[derive(Debug)]
struct ThreadLane {
    vcpu: VcpuId,
    spans: RecentSpans,
    history: History,
    waiting: BTreeMap<Due, Pulled>,
}

#[derive(Debug)]
struct Disk {
    number: u16,
    host_device: u32,
    image: Image,
    coverage: Coverage,
    matching: Matching,
}

/// A request on its way.
#[derive(Debug)]
struct Pulled {
    placed: Placed,
    vcpus: PhaseVcpus,
    /// However wrong the clock maps are, it began after this ...
    earliest: HostNs,
    /// ... and ended before that.
    latest: HostNs,
    window: Option<Rc<Window>>,
}

impl Pulled {
    fn vcpus(&self) -> [VcpuId; 3] {
        let PhaseVcpus { queued, issued, completed } = self.vcpus;
        [queued, issued, completed.unwrap_or(issued)]
    }
}

impl<Requests> ObservedJoin<Requests>
where
    Requests: Iterator<Item = Ordered<Placed, Range<HostNs>>>,
{
    /// Joins the observed requests of a VM whose vCPUs have these threads on the host.
    pub fn new(vcpus: impl IntoIterator<Item = (VcpuId, Tid)>, requests: Requests) -> Self {
        let vcpus: Vec<(VcpuId, Tid)> = vcpus.into_iter().collect();
        let spans_max = (SPANS_MAX / vcpus.len().max(1)).max(SPANS_OF_VCPU_MIN);
        let thread = |(vcpu, thread)| ThreadLane {
            vcpu,
            spans: RecentSpans::new(thread, spans_max),
            history: History::default(),
            waiting: BTreeMap::new(),
        };
        ObservedJoin {
            threads: vcpus.into_iter().map(thread).collect(),
            requests,
            next: None,
            for_io: BTreeMap::new(),
            disks: Vec::new(),
            completing: BTreeMap::new(),
            number: 0,
            pending_count: 0,
            kept_count: 0,
        }
    }

    /// Splits them by I/O phase too: these are the guest's disks of which the host's I/O was recorded.
    #[must_use]
    pub fn with_disks(mut self, disks: impl IntoIterator<Item = ObservedDisk>) -> Self {
        let disk = |ObservedDisk { number, host_device, image, coverage, descriptors }| {
            let matching = Matching::new(&image).with_descriptors(descriptors);
            Disk { number, host_device, image, coverage, matching }
        };
        let mut disks: Vec<ObservedDisk> = disks.into_iter().collect();
        tell_shared_apart(&mut disks);
        self.disks = disks.into_iter().map(disk).collect();
        self
    }

    /// On which vCPU the guest completes requests of its disks, by their numbers; that of others is unknown.
    #[must_use]
    pub fn with_completions(
        mut self,
        completing: impl IntoIterator<Item = (u16, CompletionVcpu)>,
    ) -> Self {
        self.completing = completing.into_iter().collect();
        self
    }

    /// Takes what a disk of the host did, whoever's I/O it is; in order of time.
    pub fn push_io(&mut self, time: HostNs, event: &BlockEvent, submitter: Submitter) {
        let sectors = event.sector..event.sector.saturating_add(u64::from(event.sectors));
        let on_it = self.disks.iter_mut().filter(|disk| disk.host_device == event.device);
        for disk in on_it.filter(|disk| disk.matching.concerns(&sectors)) {
            disk.matching.push(time, event, submitter);
        }
    }

    /// A thread of the VMM's own process fell asleep in a call that flushes a file.
    pub fn asleep(&mut self, time: HostNs, thread: Tid, call: SyncCall) {
        self.disks.iter_mut().for_each(|disk| disk.matching.asleep(time, thread, call));
    }

    /// From now on all is recorded of a thread of the VMM's own process: it left a pCPU, and its stack was had. Until
    /// then it may have slept unseen. Called each time, before [`ObservedJoin::asleep`].
    pub fn recorded(&mut self, time: HostNs, thread: Tid) {
        self.disks.iter_mut().for_each(|disk| disk.matching.recorded(time, thread));
    }

    /// A thread of the VMM's own process was woken, or is on a pCPU; also if it did not sleep in such a call.
    pub fn awake(&mut self, time: HostNs, thread: Tid) {
        self.disks.iter_mut().for_each(|disk| disk.matching.awake(time, thread));
    }

    /// A thread of the VMM's own process has ended.
    pub fn ended(&mut self, thread: Tid) {
        self.disks.iter_mut().for_each(|disk| disk.matching.ended(thread));
    }

    /// On some pCPU events between `from` and `until` were lost, perhaps the disks'.
    pub fn lost(&mut self, from: HostNs, until: HostNs) {
        self.disks.iter_mut().for_each(|disk| disk.matching.lost(from, until));
    }

    /// Nothing will come any more that happened before `time`.
    pub fn advance(&mut self, time: HostNs) {
        self.disks.iter_mut().for_each(|disk| disk.matching.advance(time));
    }

    /// Takes the next span; the requests of which all is known then go to `sink`. Spans of other threads are
    /// passed over.
    pub fn push_span(&mut self, span: &Span, sink: &mut impl FnMut(Breakdown)) {
        let Some(place) = self.threads.iter().position(|of| of.spans.thread() == span.tid) else {
            return;
        };
        let thread = &mut self.threads[place];
        thread.spans.push(span);
        thread.history.push(span.start, span.end, Part::of(&span.state));
        self.kept_count += 1;
        while let Some(pulled) = self.next_begun(span.end) {
            self.keep(pulled);
            while self.pending_count > OBSERVED_PENDING_MAX {
                self.give_up_first(sink);
            }
        }
        let until = self.threads[place].spans.until();
        while let Some((due, pulled)) = pop_due(&mut self.threads[place].waiting, until) {
            self.wait(due, pulled);
        }
        self.settle(sink);
        // Looking through all that are under way pays only once there are as many to let go of.
        if self.kept_count >= KEPT_MAX + self.pending_count {
            self.kept_count = 0;
            self.forget();
        }
    }

    /// No span will come any more: what is left goes to `sink`, its uncovered rest as unknown.
    pub fn finish(mut self, sink: &mut impl FnMut(Breakdown)) {
        while let Some(pulled) = self.pull() {
            self.keep(pulled);
            self.settle(sink);
            while self.pending_count > OBSERVED_PENDING_MAX {
                self.give_up_first(sink);
            }
        }
        let waiting = self.threads.iter_mut().map(|thread| std::mem::take(&mut thread.waiting));
        let mut all: BTreeMap<Due, Pulled> = waiting.flatten().collect();
        all.extend(std::mem::take(&mut self.for_io));
        all.into_values().for_each(|pulled| sink(self.breakdown(&pulled, Rest::NotRecorded)));
    }

    /// The next request that begins before `until`.
    fn next_begun(&mut self, until: HostNs) -> Option<Pulled> {
        let pulled = self.pull()?;
        if pulled.placed.start >= until {
            self.next = Some(pulled);
            return None;
        }
        Some(pulled)
    }

    fn pull(&mut self) -> Option<Pulled> {
        if let Some(next) = self.next.take() {
            return Some(next);
        }
        loop {
            match self.requests.next()? {
                Ordered::Request(placed) => return Some(self.pulled(placed)),
                Ordered::Lost(time) => {
                    self.disks.iter_mut().for_each(|disk| disk.matching.lost_requests(&time));
                }
            }
        }
    }

    fn pulled(&mut self, placed: Placed) -> Pulled {
        let Placed { request, start, end, bounds, .. } = placed;
        let device = request.observed().map(|request| request.device);
        let disk = self.disks.iter_mut().find(|disk| Some(disk.number) == device);
        let window = disk.zip(request.observed()).map(|(disk, request)| {
            disk.matching.note(&placed, Asked::observed(&disk.image, disk.coverage, request))
        });
        let ends = [
            start.0.saturating_add(bounds.start_ns),
            placed.handed_over().0.saturating_add(bounds.issued_ns),
            end.0.saturating_add(bounds.end_ns).saturating_add(placed.length_error_ns),
        ];
        let completing = device.and_then(|device| self.completing.get(&device).copied());
        let vcpus = match request {
            GuestRequest::Observed(request) => {
                PhaseVcpus::of_observed(&request, completing.unwrap_or_default())
            }
            GuestRequest::Read(_) => PhaseVcpus::all(VcpuId(request.vcpu_issued())),
        };
        let latest = HostNs(ends.into_iter().max().unwrap_or(u64::MAX));
        let earliest = HostNs(start.0.saturating_sub(bounds.worst_ns()));
        Pulled { placed, vcpus, earliest, latest, window }
    }

    fn keep(&mut self, pulled: Pulled) {
        self.number += 1;
        self.pending_count += 1;
        self.wait((pulled.latest, self.number), pulled);
    }

    /// Puts a request where it waits next: for the first of its threads that has not come far enough, or for
    /// the disks' events.
    fn wait(&mut self, due: Due, pulled: Pulled) {
        let vcpus = pulled.vcpus();
        let behind = self
            .threads
            .iter_mut()
            .find(|thread| vcpus.contains(&thread.vcpu) && thread.spans.until() < pulled.latest);
        let place = behind.map_or(&mut self.for_io, |thread| &mut thread.waiting);
        place.insert(due, pulled);
    }

    /// Gives out those of which all is known.
    fn settle(&mut self, sink: &mut impl FnMut(Breakdown)) {
        while self
            .for_io
            .first_key_value()
            .is_some_and(|((latest, _), _)| self.io_has_come_to(*latest))
            && let Some((_, pulled)) = self.for_io.pop_first()
        {
            self.give_out(&pulled, Rest::NotRecorded, sink);
        }
    }

    fn give_out(&mut self, pulled: &Pulled, rest: Rest, sink: &mut impl FnMut(Breakdown)) {
        self.pending_count -= 1;
        self.kept_count += 1;
        let breakdown = self.breakdown(pulled, rest);
        sink(breakdown);
    }

    /// Gives out what has waited for longest, whatever is known of it.
    fn give_up_first(&mut self, sink: &mut impl FnMut(Breakdown)) {
        let waiting = self.threads.iter_mut().map(|thread| &mut thread.waiting);
        let places = waiting.chain([&mut self.for_io]);
        let first = places.filter(|place| !place.is_empty());
        let first = first.min_by_key(|place| place.first_key_value().map(|(due, _)| *due));
        match first.and_then(BTreeMap::pop_first) {
            Some((_, pulled)) => self.give_out(&pulled, Rest::Forgotten, sink),
            None => self.pending_count = 0,
        }
    }

    fn io_has_come_to(&self, time: HostNs) -> bool {
        self.disks.iter().all(|disk| disk.matching.has_come_to(time))
    }

    /// Lets go of what no request that is under way or to come needs.
    fn forget(&mut self) {
        let waiting = self.threads.iter().flat_map(|thread| thread.waiting.values());
        let pending: Vec<(HostNs, [VcpuId; 3])> = waiting
            .chain(self.for_io.values())
            .map(|pulled| (pulled.earliest, pulled.vcpus()))
            .collect();
        let earliest = || pending.iter().map(|(earliest, _)| *earliest);
        let next = self.next.as_ref().map(|next| next.earliest);
        // Where nothing is under way and nothing comes, a guest that is idle or has told all, nothing is needed.
        let next = next.or_else(|| earliest().min()).unwrap_or(HostNs(u64::MAX));
        for thread in &mut self.threads {
            let own = pending.iter().filter(|(_, vcpus)| vcpus.contains(&thread.vcpu));
            let first = own.fold(next, |first, (earliest, _)| first.min(*earliest));
            thread.spans.forget_before(first);
            thread.history.forget_before(first);
        }
        let first = earliest().fold(next, HostNs::min);
        self.disks.iter_mut().for_each(|disk| disk.matching.forget_before(first));
    }

    fn thread(&self, vcpu: VcpuId) -> Option<&ThreadLane> {
        self.threads.iter().find(|thread| thread.vcpu == vcpu)
    }

    fn breakdown(&mut self, pulled: &Pulled, rest: Rest) -> Breakdown {
        let Pulled { placed, vcpus, window, .. } = pulled;
        let (io, io_check) = self.io(placed, window.as_deref());
        let spans = |vcpu| self.thread(vcpu).map(|thread| &thread.spans);
        let threads = Threads {
            queued: spans(vcpus.queued),
            issued: spans(vcpus.issued),
            completed: vcpus.completed.and_then(spans),
        };
        let laid = lay(placed, vcpus, &io, threads);
        let attribution = match laid.attribution(placed, vcpus, &io) {
            Attribution::NotRecorded if rest == Rest::Forgotten => Attribution::Forgotten,
            attribution => attribution,
        };
        let mut breakdown = Breakdown {
            request: placed.request,
            vcpu: vcpus.issued,
            vcpus: *vcpus,
            start: placed.start,
            issued: placed.issued,
            end: placed.end,
            bounds: placed.bounds,
            parts: laid.phases.parts(),
            attribution,
            clock_error: uncertainty::ClockError::default(),
            chain: laid.chain,
            waits: laid.waits,
            io: io.map(|io| io.marks),
            io_check,
            phases: laid.phases,
        };
        if attribution == Attribution::Attributed {
            breakdown.clock_error = self.clock_error(pulled, &breakdown, rest);
        }
        breakdown
    }

    fn io(
        &mut self,
        placed: &Placed,
        window: Option<&Window>,
    ) -> (Result<RequestIo, NoPhase>, IoCheck) {
        let device = placed.request.observed().map(|request| request.device);
        let disk = self.disks.iter_mut().find(|disk| Some(disk.number) == device);
        let Some((disk, window)) = disk.zip(window) else {
            return (Err(NoPhase::NotRecorded), IoCheck::Unchecked);
        };
        let io = disk.matching.io(window);
        disk.matching.learn(window, &io);
        let check = disk.matching.check(window, io.as_ref().map(|io| io.marks).map_err(|why| *why));
        // Zeroes that are read or written where the image has none need no I/O.
        let check = if check == IoCheck::Unseen { IoCheck::Unchecked } else { check };
        (io, check)
    }

    /// By how much each part may be off.
    fn clock_error(
        &self,
        pulled: &Pulled,
        breakdown: &Breakdown,
        rest: Rest,
    ) -> uncertainty::ClockError {
        let (placed, vcpus, bounds) = (&pulled.placed, &pulled.vcpus, &breakdown.bounds);
        let (queued, issued) = (Some(vcpus.queued), Some(vcpus.issued));
        let vcpus_of_ends = [queued, issued, breakdown.vcpu_of_end()];
        let ends = [
            (queued, placed.start, bounds.start_ns),
            (breakdown.vcpu_of_end(), placed.end, bounds.end_ns),
            (queued, placed.handed_over(), bounds.issued_ns),
            (issued, placed.handed_over(), bounds.issued_ns),
        ];
        let is_one = vcpus_of_ends.iter().all(|vcpu| *vcpu == issued);
        // Over one vCPU's thread it does not matter when the guest's own queue ended.
        let ends = if vcpus.queued == vcpus.issued { &ends[..2] } else { &ends[..] };
        let histories = ends.iter().map(|(vcpu, at, bound_ns)| {
            let Some(vcpu) = *vcpu else {
                return Some(End { history: None, at: *at, bound_ns: *bound_ns });
            };
            let thread = self.thread(vcpu)?;
            // What will not come any more is unknown; what was not waited for may be anything.
            let has_come = rest == Rest::NotRecorded || thread.history.until() >= pulled.latest;
            let history = Some(&thread.history);
            has_come.then_some(End { history, at: *at, bound_ns: *bound_ns })
        });
        let Some(known) = histories.collect::<Option<Vec<End<'_>>>>() else {
            let bounds_ns = ends.iter().map(|(.., bound_ns)| *bound_ns);
            return uncertainty::anything_within(bounds_ns.chain([placed.length_error_ns]));
        };
        match known.first().and_then(|first| first.history) {
            Some(history) if is_one => uncertainty::clock_error(history, placed),
            _ => uncertainty::error_of_ends(&known),
        }
    }
}

/// Of disks whose images have sectors in common, as two that are the same, no I/O can be told to be one's.
fn tell_shared_apart(disks: &mut [ObservedDisk]) {
    let sectors = |disk: &ObservedDisk| {
        let extents = disk.image.extents.iter().flatten();
        SectorSet::from_iter(extents.map(Extent::sectors))
    };
    let all: Vec<(u32, SectorSet)> =
        disks.iter().map(|disk| (disk.host_device, sectors(disk))).collect();
    for (place, disk) in disks.iter_mut().enumerate() {
        let (before, after) = (&all[..place], &all[place + 1..]);
        let others = before.iter().chain(after).filter(|(device, _)| *device == disk.host_device);
        let mut extents = disk.image.extents.iter().flatten();
        let is_shared =
            |extent: &Extent| others.clone().any(|(_, other)| other.overlaps(&extent.sectors()));
        if extents.any(is_shared) {
            (disk.image.extents, disk.coverage) = (None, disk.coverage.max(Coverage::Disk));
        }
    }
}

/// What it means that spans are missing at a request's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// None will come.
    NotRecorded,
    /// It was not waited for any longer.
    Forgotten,
}

fn pop_due(waiting: &mut BTreeMap<Due, Pulled>, until: HostNs) -> Option<(Due, Pulled)> {
    let is_due = waiting.first_key_value().is_some_and(|((latest, _), _)| *latest <= until);
    if is_due { waiting.pop_first() } else { None }
}
