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
//! Everything else is a [`NoPhase`].
//!
//! An I/O that was not seen to end had ended by the time at which a request had that waited for it:
//! with `O_DIRECT`, a request whose sectors one I/O alone was submitted for while it was under way.

use super::OPEN_REQUESTS_MAX;
use super::breakdown::IoCheck;
use super::ios::{HostIo, Ios, Submitter};
use super::phase::{IoMarks, NoPhase, RequestIo};
use super::placed::Placed;
use super::sectors::SectorSet;
use super::target::{HostAccess, Target, overlap};
use super::windows::{Window, Windows};
use crate::host_event::BlockEvent;
use crate::units::HostNs;
use std::ops::Range;
use std::rc::Rc;

/// Requests whose windows are kept at most: those under way, and some that have just ended.
const WINDOWS_MAX: usize = 2 * OPEN_REQUESTS_MAX;

const SECTOR_BYTES: u64 = 512;

/// The I/O of a VM's disk and the requests that it may be for.
#[derive(Debug)]
pub(super) struct Matching {
    target: Target,
    /// The sectors of the VM's image, if they are known.
    image: Option<SectorSet>,
    ios: Ios,
    windows: Windows,
    windows_count: u64,
    forgotten_until: HostNs,
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
    pub(super) fn new(target: Target) -> Matching {
        let image = target.extents.as_ref().map(|extents| {
            let mut image = SectorSet::default();
            extents.iter().for_each(|extent| image.insert(&extent.sectors()));
            image
        });
        Matching {
            ios: Ios::new(target.access),
            target,
            image,
            windows: Windows::default(),
            windows_count: 0,
            forgotten_until: HostNs(0),
        }
    }

    /// See [`Ios::push`].
    pub(super) fn push(&mut self, time: HostNs, event: &BlockEvent, submitter: Submitter) {
        let image = self.image.as_ref();
        let is_for_image = |sectors: &Range<u64>| Some(image?.overlaps(sectors));
        self.ios.push(time, event, submitter, is_for_image);
    }

    /// See [`Ios::lost`].
    pub(super) fn lost(&mut self, from: HostNs, until: HostNs) {
        self.ios.lost(from, until);
    }

    /// See [`Ios::advance`].
    pub(super) fn advance(&mut self, time: HostNs) {
        self.ios.advance(time);
    }

    /// Takes note of a request, in order of submission.
    pub(super) fn note(&mut self, placed: &Placed) -> Rc<Window> {
        let Placed { request, start, end, bound_ns, length_error_ns } = *placed;
        if self.windows.len() >= WINDOWS_MAX
            && let Some(gone) = self.windows.pop_first()
        {
            self.forgotten_until = self.forgotten_until.max(gone.latest);
        }
        let window = Rc::new(Window {
            number: self.windows_count,
            start,
            end,
            earliest: HostNs(start.0.saturating_sub(bound_ns)),
            latest: HostNs(end.0.saturating_add(bound_ns)),
            longest_ns: end.since_ns(start).saturating_add(length_error_ns),
            sectors: self.target.sectors_of(request.index),
        });
        self.windows_count += 1;
        self.windows.insert(Rc::clone(&window));
        window
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
        }
        let earliest = self.windows.earliest().unwrap_or(until);
        self.ios.forget_before(until.min(earliest));
    }

    /// When the host had the request's I/O.
    pub(super) fn io(&self, request: &Window) -> Result<RequestIo, NoPhase> {
        if self.ios.has_lost(request.earliest, request.latest) {
            return Err(NoPhase::Lost);
        }
        if request.earliest < self.forgotten_until || self.ios.has_forgotten(request.earliest) {
            return Err(NoPhase::Forgotten);
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
            let is_whole = self.target.access == HostAccess::Cached
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
            let is_whole =
                length_sectors.saturating_mul(SECTOR_BYTES) == u64::from(self.target.block_bytes);
            if !own.is_empty() && !is_whole {
                return Err(NoPhase::Ambiguous);
            }
        }
        if own.is_empty() && self.had_no_io(request) {
            return Err(NoPhase::PageCache);
        }
        let within = |time: HostNs| time.clamp(request.start, request.end);
        let in_flight = |io: &&HostIo| Some(within(io.submitted)..within(io.completed()?));
        RequestIo::of(own.iter().filter_map(in_flight).collect()).ok_or(NoPhase::NoIo)
    }

    /// Whether it is certain that a request, of which nothing is lost, had no I/O of the host's to wait for:
    /// nobody had any in flight for its sectors while it was under way. The pages were there before.
    fn had_no_io(&self, request: &Window) -> bool {
        let is_idle = |sectors: &Range<u64>| {
            let elsewhere =
                |io: &HostIo| io.submitted > request.latest || self.had_ended(io, request.earliest);
            !self.ios.is_in_doubt(sectors) && self.ios.on(sectors).all(elsewhere)
        };
        let is_cached = self.target.access == HostAccess::Cached;
        is_cached && request.sectors.as_ref().is_some_and(|pieces| pieces.iter().all(is_idle))
    }

    /// What the request's I/O, of which this is known, says of the request's times.
    pub(super) fn check(&self, request: &Window, io: Result<IoMarks, NoPhase>) -> IoCheck {
        let is_known = self.target.access == HostAccess::Direct && request.sectors.is_some();
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
        let is_direct = self.target.access == HostAccess::Direct;
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
        let is_late = completed > request.latest;
        if !is_early && !is_late {
            let is_ambiguous = self.is_doubtful(io) || self.may_be_anothers(io, request);
            return if is_ambiguous { Fit::Ambiguous } else { Fit::Own };
        }
        // A clock that is wrong is wrong at both ends, so that no I/O of a request outlasts it.
        let may_be_own = is_direct
            && request.sectors.is_some()
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
        if self.target.access == HostAccess::Cached {
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
        if self.target.access == HostAccess::Cached || !was_submitted(io) {
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
                let block_bytes = u64::from(self.target.block_bytes);
                let is_whole = io.sectors_count().saturating_mul(SECTOR_BYTES) == block_bytes;
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
    use super::*;
    use crate::extent::Extent;
    use crate::host_event::BlockStep;
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
        let mut matching = Matching::new(target);
        let event = |step, index: u64| {
            let (tid, device) = (Tid(1), 254 << 20);
            BlockEvent { step, tid, device, sector: index * 8, sectors: 8 }
        };
        let window = |index: u64| {
            let (submitted, completed) = (GuestTicks(0), GuestTicks(0));
            let (vcpu_submitted, vcpu_completed, result) = (0, 0, 4096);
            let request =
                Request { index, submitted, completed, vcpu_submitted, vcpu_completed, result };
            let (start, end) = (HostNs(index), HostNs(10 * depth));
            Placed { request, start, end, bound_ns: 1, length_error_ns: 0 }
        };
        let windows: Vec<_> = (0..depth).map(|index| matching.note(&window(index))).collect();
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
