//! Which of the host's I/O belongs to which request.
//!
//! A request has no identity on the host, so this is by what must hold, never by likelihood:
//!
//! - The I/O was handed to the block layer by a thread of the request's VM, and is for the disk that
//!   holds the VM's image: whoever calls [`Join::push_io`](super::Join::push_io) sees to that.
//! - It lies within the request, give or take how far the request's ends may be off. An I/O that went
//!   through the host's page cache may have been submitted before it, for somebody else.
//! - It is for sectors that the request reads, where those are known. Then several requests may be in
//!   flight, and one I/O may be for several of them, as guest and VMM merge adjacent ones.
//! - Where they are not known, only with `O_DIRECT`, only where the I/O can be for no other request,
//!   and only if all of them together are exactly as long as the request.
//! - Nothing else can have been in flight for the I/O's sectors that its completion may be of: no I/O
//!   that was not seen to end, see `ios.rs`, and no other request for the same sectors.
//!
//! A write through the page cache waits for no I/O of its sectors, so that only of one of which there was none
//! something is known. Flushes have no sectors, see `sync_calls.rs` and `flushes.rs`; a write with a flush before
//! or after it has both. Of other requests without data, and of those whose bytes have no place in the image yet or
//! may have been moved to another, nothing is known.
//!
//! Everything else is a [`NoPhase`].
//!
//! An I/O that was not seen to end had ended by the time at which a request had that waited for it:
//! with `O_DIRECT`, a request whose sectors one I/O alone was submitted for while it was under way.

use super::OPEN_REQUESTS_MAX;
use super::asked::Asked;
use super::breakdown::IoCheck;
use super::flushes::Flushes;
use super::ios::{HostIo, Ios, Submitter};
use super::phase::{IoMarks, NoPhase, RequestIo};
use super::placed::Placed;
use super::sectors::SectorSet;
use super::sync_calls::{SyncCall, SyncCalls};
use super::target::{HostAccess, Image, overlap};
use super::windows::{Rule, Window, Windows};
use crate::extent::Extent;
use crate::host_event::{BlockEvent, BlockStep};
use crate::units::{HostNs, Tid};
use std::collections::VecDeque;
use std::ops::Range;
use std::rc::Rc;

/// Requests whose windows are kept at most: those under way, and some that have just ended.
const WINDOWS_MAX: usize = 2 * OPEN_REQUESTS_MAX;

/// Losses of requests that are kept at most; then they run together.
const LOSSES_MAX: usize = 1024;

const SECTOR_BYTES: u64 = 512;

/// The I/O of a VM's disk and the requests that it may be for.
#[derive(Debug)]
pub(super) struct Matching {
    access: HostAccess,
    /// The sectors of the VM's image, if they are known.
    image: Option<SectorSet>,
    ios: Ios,
    windows: Windows,
    flushes: Flushes,
    /// The VMM's numbers of the image's file; empty if they are not known.
    descriptors: Vec<u32>,
    sync_calls: SyncCalls,
    windows_count: u64,
    forgotten_until: HostNs,
    /// I/O that ended before this was let go of.
    let_go_until: HostNs,
    /// Sectors of the guest's disk that may lie elsewhere by now.
    moved: SectorSet,
    /// When requests were not recorded.
    lost_requests: VecDeque<Range<HostNs>>,
}

/// How an I/O of the VM for a request's sectors fits the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    /// It was in flight at another time, or is another request's.
    Elsewhere,
    /// It lies within the request.
    Own,
    /// It may be the request's, but it may be another's, or its end may be.
    Ambiguous,
    /// It was submitted for the request, perhaps, and not seen to end.
    Unfinished,
    /// It is nobody else's, and yet a part of it lies beyond the request.
    Beyond,
}

impl Matching {
    pub(super) fn new(image: &Image) -> Matching {
        let sectors =
            image.extents.as_ref().map(|extents| extents.iter().map(Extent::sectors).collect());
        Matching {
            ios: Ios::new(image.access),
            access: image.access,
            image: sectors,
            windows: Windows::default(),
            flushes: Flushes::default(),
            descriptors: Vec::new(),
            sync_calls: SyncCalls::default(),
            windows_count: 0,
            forgotten_until: HostNs(0),
            let_go_until: HostNs(0),
            moved: SectorSet::default(),
            lost_requests: VecDeque::new(),
        }
    }

    /// The VMM has the image open by these numbers, and no other image.
    pub(super) fn with_descriptors(mut self, descriptors: Vec<u32>) -> Matching {
        self.descriptors = descriptors;
        self
    }

    /// A thread of the VMM fell asleep in a call that flushes.
    pub(super) fn asleep(&mut self, time: HostNs, thread: Tid, call: SyncCall) {
        match call {
            SyncCall::Of(number) if !self.descriptors.contains(&number) => {}
            SyncCall::Of(_) => self.sync_calls.asleep(time, thread, true),
            SyncCall::Unknown => self.sync_calls.asleep(time, thread, false),
        }
    }

    /// From now on all is recorded of a thread of the VMM.
    pub(super) fn recorded(&mut self, time: HostNs, thread: Tid) {
        self.sync_calls.recorded(time, thread);
    }

    /// A thread of the VMM was woken, or is on a pCPU.
    pub(super) fn awake(&mut self, time: HostNs, thread: Tid) {
        self.sync_calls.awake(time, thread);
    }

    /// A thread of the VMM has ended.
    pub(super) fn ended(&mut self, thread: Tid) {
        self.sync_calls.ended(thread);
    }

    /// See [`Ios::push`].
    pub(super) fn push(&mut self, time: HostNs, event: &BlockEvent, submitter: Submitter) {
        let image = self.image.as_ref();
        let is_for_image = |sectors: &Range<u64>| Some(image?.overlaps(sectors));
        if event.sectors == 0 {
            match event.step {
                BlockStep::Submitted => self.flushes.submitted(time, submitter),
                BlockStep::Completed => self.flushes.completed(time, event.sector),
                BlockStep::Issued => {}
            }
        }
        self.ios.push(time, event, submitter, is_for_image);
    }

    /// See [`Ios::lost`].
    pub(super) fn lost(&mut self, from: HostNs, until: HostNs) {
        self.ios.lost(from, until);
        self.flushes.lost();
    }

    /// Of this time not all requests are told. Of a guest that discards what it does not need any more, that
    /// may be among them, so that from then on it is not known where its bytes are.
    pub(super) fn lost_requests(&mut self, time: &Range<HostNs>) {
        if !self.moved.is_empty() {
            self.moved.insert(&(0..u64::MAX));
        }
        let is_full = self.lost_requests.len() >= LOSSES_MAX;
        match self.lost_requests.back_mut().filter(|_| is_full) {
            Some(last) => *last = last.start.min(time.start)..last.end.max(time.end),
            None => self.lost_requests.push_back(time.clone()),
        }
    }

    /// See [`Ios::advance`].
    pub(super) fn advance(&mut self, time: HostNs) {
        self.ios.advance(time);
    }

    /// Takes note of a request, in order of submission.
    pub(super) fn note(&mut self, placed: &Placed, asked: Asked) -> Rc<Window> {
        let Placed { request, end, bounds, length_error_ns, .. } = *placed;
        let start = placed.handed_over();
        let earliest = HostNs(start.0.saturating_sub(bounds.issued_ns));
        let by = [request.vcpu_queued(), request.vcpu_completed()];
        let length_error_ns = if by == [request.vcpu_issued(); 2] {
            length_error_ns
        } else {
            bounds.issued_ns.saturating_add(bounds.end_ns)
        };
        if self.windows.len() >= WINDOWS_MAX
            && let Some(gone) = self.windows.pop_first()
        {
            self.forgotten_until = self.forgotten_until.max(gone.latest);
            self.flushes.forget(&gone);
        }
        if asked.moves_sectors {
            self.moved.insert(&asked.guest_sectors);
        }
        let window = Rc::new(Window {
            number: self.windows_count,
            start,
            end,
            earliest,
            latest: HostNs(end.0.saturating_add(bounds.end_ns)),
            longest_ns: end.since_ns(start).saturating_add(length_error_ns),
            sectors: asked.sectors,
            guest_sectors: asked.guest_sectors,
            issue: (request.issued(), request.vcpu_issued()),
            length_bytes: asked.length_bytes,
            rule: asked.rule,
            may_flush: asked.may_flush,
            may_begin_early: asked.may_begin_early,
            is_late: earliest < self.let_go_until,
        });
        self.windows_count += 1;
        if asked.may_flush {
            self.flushes.note(&window);
        }
        self.windows.insert(Rc::clone(&window));
        window
    }

    /// Whether the image has any of these sectors; also where that is not known.
    pub(super) fn concerns(&self, sectors: &Range<u64>) -> bool {
        sectors.is_empty() || self.image.as_ref().is_none_or(|image| image.overlaps(sectors))
    }

    /// Whether all I/O has been seen that was done up to this time.
    pub(super) fn has_come_to(&self, time: HostNs) -> bool {
        self.ios.now() > time
    }

    /// Lets go of all that is over before `first`, when the first request that is still to come may
    /// have begun. Costs as much as there is of it, and of requests under way.
    pub(super) fn forget_before(&mut self, first: HostNs) {
        let until = first.min(self.ios.now());
        for window in self.windows.take_ended(until) {
            let waited_for = |io: &&HostIo| io.ended_by().is_none() && self.waits_for(&window, io);
            let ended: Vec<u64> =
                self.ios_of(&window).filter(waited_for).map(|io| io.number).collect();
            ended.into_iter().for_each(|number| self.ios.had_ended(number, window.latest));
            self.flushes.forget(&window);
        }
        let earliest = self.windows.earliest().unwrap_or(until);
        let until = until.min(earliest);
        self.ios.forget_before(until);
        self.flushes.forget_before(until);
        self.sync_calls.forget_before(until);
        self.lost_requests.retain(|lost| lost.end >= until);
        self.let_go_until = self.let_go_until.max(until);
    }

    /// When the host had the request's I/O.
    pub(super) fn io(&self, request: &Window) -> Result<RequestIo, NoPhase> {
        if self.ios.has_lost(request.earliest, request.latest) {
            return Err(NoPhase::Lost);
        }
        let is_forgotten =
            request.earliest < self.forgotten_until || self.ios.has_forgotten(request.earliest);
        if is_forgotten || request.is_late {
            return Err(NoPhase::Forgotten);
        }
        // By sectors a request's I/O is its own whatever others there were.
        let is_lost =
            |lost: &Range<HostNs>| lost.start <= request.latest && request.earliest <= lost.end;
        if !request.is_told_by_sectors() && self.lost_requests.iter().any(is_lost) {
            return Err(NoPhase::Lost);
        }
        let ios = match request.rule {
            Rule::None(why) => return Err(why),
            Rule::Flush { is_alone } => self.flush(request, is_alone)?,
            Rule::FlushedWrite => self.flushed_write(request)?,
            Rule::Read | Rule::Write => self.data(request)?,
        };
        RequestIo::of(ios).ok_or(NoPhase::NoIo)
    }

    /// When the host had the I/O for the request's sectors, each of it.
    fn data(&self, request: &Window) -> Result<Vec<Range<HostNs>>, NoPhase> {
        if self.moved.overlaps(&request.guest_sectors) {
            return Err(NoPhase::Unmapped);
        }
        if request.rule != Rule::Read && self.access == HostAccess::Cached {
            return Err(self.write_back(request));
        }
        let mut own: Vec<&HostIo> = Vec::new();
        let (mut is_unfinished, mut is_beyond) = (false, false);
        for io in self.ios_of(request) {
            match self.fit(io, request) {
                Fit::Elsewhere => {}
                // Of two for the same sectors one is not its own.
                Fit::Own
                    if request.sectors.is_some()
                        && own.iter().any(|other| overlap(&other.sectors, &io.sectors)) =>
                {
                    return Err(NoPhase::Ambiguous);
                }
                Fit::Own => own.push(io),
                Fit::Ambiguous => return Err(NoPhase::Ambiguous),
                Fit::Unfinished => is_unfinished = true,
                Fit::Beyond => is_beyond = true,
            }
        }
        if is_unfinished {
            return Err(NoPhase::Unfinished);
        }
        if let Some(sectors) = &request.sectors {
            let is_whole = self.access == HostAccess::Cached
                || sectors.iter().all(|sectors| covers(&own, sectors));
            if !is_whole && is_beyond {
                return Err(NoPhase::Contradiction);
            }
            if !is_whole && !own.is_empty() {
                return Err(NoPhase::Unfinished);
            }
        } else {
            let length_sectors =
                own.iter().fold(0_u64, |sum, io| sum.saturating_add(io.sectors_count()));
            let is_whole = length_sectors.saturating_mul(SECTOR_BYTES) == request.length_bytes;
            if !own.is_empty() && !is_whole {
                return Err(NoPhase::Ambiguous);
            }
        }
        if own.is_empty() && self.had_no_io(request) {
            return Err(NoPhase::PageCache);
        }
        let in_flight = |io: &&HostIo| Some(request.within(io.submitted..io.completed()?));
        Ok(own.iter().filter_map(in_flight).collect())
    }

    /// When the host had what a request had the VMM flush.
    fn flush(&self, request: &Window, is_alone: bool) -> Result<Vec<Range<HostNs>>, NoPhase> {
        let calls = self.sync_calls(request);
        let Err(why @ (NoPhase::NoWait | NoPhase::UnknownFile)) = calls else { return calls };
        // Through the page cache a flush writes first what is there, whoever does it.
        if !is_alone || self.access == HostAccess::Cached {
            return Err(why);
        }
        match self.flushes.of(request) {
            Ok(flush) => Ok(Vec::from([request.within(flush)])),
            Err(NoPhase::NoIo) if why == NoPhase::NoWait => Err(why),
            Err(why) => Err(why),
        }
    }

    /// When the host had what a write is for, and what it had the VMM flush before or after that.
    fn flushed_write(&self, request: &Window) -> Result<Vec<Range<HostNs>>, NoPhase> {
        let mut ios = self.sync_calls(request)?;
        let data = self.data(request)?;
        if data.is_empty() {
            return Err(NoPhase::NoIo);
        }
        ios.extend(data);
        Ok(ios)
    }

    /// When threads of the VMM waited for what the request had it flush; not empty.
    fn sync_calls(&self, request: &Window) -> Result<Vec<Range<HostNs>>, NoPhase> {
        if self.descriptors.is_empty() {
            return Err(NoPhase::UnknownFile);
        }
        let is_raw = request.sectors.is_some();
        let is_anothers = |time: &Range<HostNs>| {
            let others = self.windows.meeting(time.start, time.end);
            let mut others = others
                .filter(|other| other.number != request.number && !other.is_one_with(request));
            others.any(|other| {
                let is_whole = other.contains(time.start) && other.contains(time.end);
                !is_raw || (other.may_flush && is_whole)
            })
        };
        let calls = self.sync_calls.of(request, is_anothers)?;
        if calls.is_empty() {
            return Err(NoPhase::NoWait);
        }
        Ok(calls.into_iter().map(|time| request.within(time)).collect())
    }

    /// What is known of a write through the page cache: it is over when the page cache has the data, and what
    /// is in flight for these sectors may be what was written before.
    fn write_back(&self, request: &Window) -> NoPhase {
        if self.had_no_io(request) { NoPhase::PageCache } else { NoPhase::Ambiguous }
    }

    /// Takes what was found of a request. A direct write of which the VM submitted no I/O where some of its
    /// bytes lay went elsewhere: to a hole that was made there, or to a copy.
    pub(super) fn learn(&mut self, request: &Window, io: &Result<RequestIo, NoPhase>) {
        let is_write = matches!(request.rule, Rule::Write | Rule::FlushedWrite);
        let is_direct = self.access == HostAccess::Direct && is_write;
        let is_seen = !matches!(io, Ok(_) | Err(NoPhase::Lost | NoPhase::Forgotten));
        if is_direct && is_seen && !self.was_submitted(request) {
            self.moved.insert(&request.guest_sectors);
        }
    }

    /// Whether I/O was submitted for all of the request's sectors while it was under way.
    fn was_submitted(&self, request: &Window) -> bool {
        let meanwhile = |io: &&HostIo| request.contains(io.submitted);
        let ios: Vec<&HostIo> = self.ios_of(request).filter(meanwhile).collect();
        request.sectors.iter().flatten().all(|sectors| covers(&ios, sectors))
    }

    /// Whether it is certain that a request, of which nothing is lost, had no I/O of the host's to wait for:
    /// nobody had any in flight for its sectors while it was under way. The pages were there before.
    fn had_no_io(&self, request: &Window) -> bool {
        let is_idle = |sectors: &Range<u64>| {
            let elsewhere =
                |io: &HostIo| io.submitted > request.latest || self.had_ended(io, request.earliest);
            !self.ios.is_in_doubt(sectors) && self.ios.on(sectors).all(elsewhere)
        };
        let is_cached = self.access == HostAccess::Cached;
        is_cached && request.sectors.as_ref().is_some_and(|pieces| pieces.iter().all(is_idle))
    }

    /// What the request's I/O, of which this is known, says of the request's times.
    pub(super) fn check(&self, request: &Window, io: Result<IoMarks, NoPhase>) -> IoCheck {
        let is_known = self.access == HostAccess::Direct
            && request.sectors.is_some()
            && request.waits_for_sectors();
        match io {
            Ok(_) if is_known => IoCheck::Within,
            Err(NoPhase::NoIo) if is_known => IoCheck::Unseen,
            Err(NoPhase::Contradiction) => {
                let beyond = self.ios_of(request).filter(|io| self.fit(io, request) == Fit::Beyond);
                let excess_ns = beyond.map(|io| {
                    let late_ns = io.completed().map_or(0, |done| done.since_ns(request.latest));
                    request.earliest.since_ns(io.submitted).max(late_ns)
                });
                IoCheck::Beyond { excess_ns: excess_ns.max().unwrap_or(0).max(1) }
            }
            _ => IoCheck::Unchecked,
        }
    }

    /// The VM's I/O for sectors of the request. Where those are not known, all that is kept.
    fn ios_of<'a>(&'a self, request: &'a Window) -> Box<dyn Iterator<Item = &'a HostIo> + 'a> {
        let own = |io: &&HostIo| io.submitter == Submitter::OwnVm;
        match request.sectors.as_deref() {
            // An I/O may be for several pieces.
            Some(pieces) => Box::new((0..pieces.len()).flat_map(move |piece| {
                let is_first = move |io: &&HostIo| {
                    !pieces[..piece].iter().any(|before| overlap(before, &io.sectors))
                };
                self.ios.on(&pieces[piece]).filter(own).filter(is_first)
            })),
            None => Box::new(self.ios.all().filter(own)),
        }
    }

    #[cfg(test)]
    pub(super) fn comparisons_count(&self) -> usize {
        self.ios.comparisons_count() + self.windows.comparisons_count()
    }

    fn fit(&self, io: &HostIo, request: &Window) -> Fit {
        let is_direct = self.access == HostAccess::Direct;
        if io.submitted > request.latest || self.had_ended(io, request.earliest) {
            return Fit::Elsewhere;
        }
        let is_early = is_direct && io.submitted < request.earliest;
        let Some(completed) = io.completed() else {
            // Where the sectors are not known it may be for any other request as well.
            let is_others = request.sectors.is_none()
                && self.others(io, request).any(|other| other.contains(io.submitted));
            return if is_early || is_others { Fit::Elsewhere } else { Fit::Unfinished };
        };
        if completed < request.earliest {
            return Fit::Elsewhere;
        }
        if is_early && request.may_begin_early && request.sectors.is_some() {
            // It may have been for the time before, when the driver gave the request back.
            return Fit::Ambiguous;
        }
        let is_late = completed > request.latest;
        if !is_early && !is_late {
            let is_ambiguous = self.is_doubtful(io) || self.may_be_anothers(io, request);
            return if is_ambiguous { Fit::Ambiguous } else { Fit::Own };
        }
        // A clock that is wrong is wrong at both ends, so that no I/O of a request outlasts it. What is
        // written may have gone elsewhere meanwhile.
        let may_be_own = is_direct
            && request.sectors.is_some()
            && request.rule == Rule::Read
            && completed.since_ns(io.submitted) <= request.longest_ns
            && !self.is_doubtful(io)
            && !self.others(io, request).any(|other| other.meets(io.submitted, completed));
        if may_be_own { Fit::Beyond } else { Fit::Elsewhere }
    }

    /// Other requests that read what both the request and the I/O are for.
    fn others<'a>(
        &'a self,
        io: &'a HostIo,
        request: &'a Window,
    ) -> impl Iterator<Item = &'a Rc<Window>> + 'a {
        let near = self.windows.near(&io.sectors, io.completed().unwrap_or(io.submitted));
        near.filter(|other| other.number != request.number && other.reads_what(request))
    }

    /// Whether the I/O, or its end, may have been another request's instead. One that reads other
    /// sectors is none: if the I/O is for those as well, it is for both.
    fn may_be_anothers(&self, io: &HostIo, request: &Window) -> bool {
        let Some(completed) = io.completed() else { return false };
        if self.access == HostAccess::Cached {
            // Whoever reads the page waits for it, whoever asked for it.
            return request.sectors.is_none();
        }
        // Of known sectors, what was done there may be what another request had submitted unseen.
        let is_known = request.sectors.is_some();
        self.others(io, request).any(|other| {
            let holds = other.contains(io.submitted) && other.contains(completed);
            holds || (is_known && other.meets(io.submitted, completed))
        })
    }

    /// Whether something else may have been in flight for the I/O's sectors, so that the end that was
    /// seen may be of that.
    fn is_doubtful(&self, io: &HostIo) -> bool {
        self.ios.is_in_doubt(&io.sectors)
            || self.ios.in_flight_with(io).any(|other| !self.had_ended(other, io.submitted))
    }

    /// Whether it is certain that the I/O was not in flight any more at that time.
    fn had_ended(&self, io: &HostIo, time: HostNs) -> bool {
        let waited_for = |window: &Rc<Window>| {
            window.latest <= time && window.reads(&io.sectors) && self.waits_for(window, io)
        };
        io.has_ended_by(time)
            || (io.submitter == Submitter::OwnVm
                && self.windows.near(&io.sectors, io.submitted).any(waited_for))
    }

    /// Whether the request can only have ended with the I/O, which is for sectors of its.
    fn waits_for(&self, window: &Window, io: &HostIo) -> bool {
        let was_submitted = |io: &HostIo| window.contains(io.submitted);
        let waits = window.waits_for_sectors() && !self.moved.overlaps(&window.guest_sectors);
        if !waits || self.access == HostAccess::Cached || !was_submitted(io) {
            return false;
        }
        let others = || {
            self.ios_of(window).filter(|other| other.number != io.number && was_submitted(other))
        };
        match &window.sectors {
            // No other I/O was for what this one has of some piece.
            Some(pieces) => pieces.iter().any(|piece| {
                let common = piece.start.max(io.sectors.start)..piece.end.min(io.sectors.end);
                !common.is_empty() && !others().any(|other| overlap(&other.sectors, &common))
            }),
            None => {
                let length_bytes = io.sectors_count().saturating_mul(SECTOR_BYTES);
                let is_whole = length_bytes == window.length_bytes;
                is_whole && others().next().is_none()
            }
        }
    }
}

/// Whether each of the sectors is in one of the I/Os.
fn covers(ios: &[&HostIo], sectors: &Range<u64>) -> bool {
    let mut pieces: Vec<&Range<u64>> = ios.iter().map(|io| &io.sectors).collect();
    pieces.sort_unstable_by_key(|piece| piece.start);
    let mut until = sectors.start;
    for piece in pieces.into_iter().filter(|piece| piece.end > sectors.start) {
        if piece.start > until {
            break;
        }
        until = until.max(piece.end);
    }
    until >= sectors.end
}

#[cfg(test)]
mod tests {
    use super::super::target::Target;
    use super::*;
    use crate::extent::Extent;
    use crate::units::Tid;
    use vslice_spec::Pattern;
    use vslice_wire::{GuestTicks, Request};

    /// How much is looked at for each of so many requests that are in flight together.
    fn looks_per_request(depth: u64) -> f64 {
        let length_bytes = depth * 4096;
        let target = Target {
            access: HostAccess::Direct,
            pattern: Pattern::Seq,
            block_bytes: 4096,
            size_bytes: length_bytes,
            offset_bytes: 0,
            extents: Some(vec![Extent { offset_bytes: 0, sector: 0, length_bytes }]),
        };
        let mut matching = Matching::new(&target.image());
        let event = |step, index: u64| {
            let (tid, device) = (Tid(1), 254 << 20);
            BlockEvent { step, tid, device, sector: index * 8, sectors: 8, operation: None }
        };
        let window = |index: u64| {
            let (submitted, completed) = (GuestTicks(0), GuestTicks(0));
            let (vcpu_submitted, vcpu_completed, result) = (0, 0, 4096);
            let request =
                Request { index, submitted, completed, vcpu_submitted, vcpu_completed, result };
            let (start, end) = (HostNs(index), HostNs(10 * depth));
            Placed::of_read(request, start..end, 1, 0)
        };
        let windows: Vec<_> = (0..depth)
            .map(|index| {
                let placed = window(index);
                matching.note(&placed, Asked::by_reader(&target, &placed))
            })
            .collect();
        for index in 0..depth {
            let submitted = HostNs(2 * depth + index);
            matching.push(submitted, &event(BlockStep::Submitted, index), Submitter::OwnVm);
        }
        for index in 0..depth {
            let completed = HostNs(5 * depth + index);
            matching.push(completed, &event(BlockStep::Completed, index), Submitter::Other);
        }
        assert!(windows.iter().all(|window| matching.io(window).is_ok()));
        matching.comparisons_count() as f64 / depth as f64
    }

    #[test]
    fn what_is_looked_at_for_a_request_does_not_grow_with_those_in_flight() {
        let [few, many] = [16, 2_048].map(looks_per_request);
        assert!(many <= few * 1.2, "{many} looks for each of 2048, {few} for each of 16");
    }
}
