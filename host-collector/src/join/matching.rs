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
//!
//! Everything else is a [`NoPhase`].

use super::OPEN_REQUESTS_MAX;
use super::breakdown::IoCheck;
use super::ios::{HostIo, Ios, Submitter};
use super::phase::{IoMarks, NoPhase};
use super::target::{HostAccess, Target, overlap};
use crate::host_event::BlockEvent;
use crate::units::HostNs;
use std::collections::VecDeque;
use std::ops::Range;

/// Requests whose windows are kept at most: those under way, and some that have just ended.
const WINDOWS_MAX: usize = 2 * OPEN_REQUESTS_MAX;
/// Windows are looked through for old ones once there are so many more than needed last time.
const WINDOWS_SLACK: usize = 64;

const SECTOR_BYTES: u64 = 512;

/// A request as the host may have seen it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Window {
    index: u64,
    start: HostNs,
    end: HostNs,
    /// The request began after this ...
    earliest: HostNs,
    /// ... and ended before that, however wrong the clock map is.
    latest: HostNs,
    /// What it reads, where that is known.
    sectors: Option<Vec<Range<u64>>>,
}

impl Window {
    /// No I/O from before this is the request's, unless it went through the page cache.
    pub(super) fn earliest(&self) -> HostNs {
        self.earliest
    }

    fn reads(&self, sectors: &Range<u64>) -> bool {
        let own = self.sectors.as_ref();
        own.is_none_or(|own| own.iter().any(|range| overlap(range, sectors)))
    }

    fn reads_what(&self, other: &Window) -> bool {
        let theirs = other.sectors.as_ref();
        theirs.is_none_or(|theirs| theirs.iter().any(|range| self.reads(range)))
    }

    /// Whether the I/O can have been for this request by its times.
    fn holds(&self, io: &HostIo, access: HostAccess) -> bool {
        let Some(completed) = io.completed else { return false };
        let began = match access {
            HostAccess::Direct => io.submitted >= self.earliest,
            HostAccess::Cached => completed >= self.earliest,
        };
        began && completed <= self.latest
    }

    /// How far the I/O reaches beyond the request.
    fn excess_ns(&self, io: &HostIo) -> u64 {
        let too_late_ns = io.completed.map_or(0, |completed| completed.since_ns(self.latest));
        self.earliest.since_ns(io.submitted).max(too_late_ns)
    }

    fn meets(&self, io: &HostIo) -> bool {
        let had_ended = io.completed.is_some_and(|completed| completed < self.earliest);
        io.submitted <= self.latest && !had_ended
    }
}

/// The I/O of a VM's disk and the requests that it may be for.
#[derive(Debug)]
pub(super) struct Matching {
    target: Target,
    ios: Ios,
    /// In order of submission.
    windows: VecDeque<Window>,
    windows_needed: usize,
    forgotten_until: HostNs,
}

impl Matching {
    pub(super) fn new(target: Target) -> Matching {
        Matching {
            target,
            ios: Ios::default(),
            windows: VecDeque::new(),
            windows_needed: 0,
            forgotten_until: HostNs(0),
        }
    }

    /// See [`Ios::push`].
    pub(super) fn push(&mut self, time: HostNs, event: &BlockEvent, submitter: Submitter) {
        self.ios.push(time, event, submitter);
    }

    /// See [`Ios::lost`].
    pub(super) fn lost(&mut self, from: HostNs, until: HostNs) {
        self.ios.lost(from, until);
    }

    /// See [`Ios::advance`].
    pub(super) fn advance(&mut self, time: HostNs) {
        self.ios.advance(time);
    }

    /// The request of this index, from `start` to `end`, either of which may be off by `bound_ns`.
    pub(super) fn window(&self, index: u64, start: HostNs, end: HostNs, bound_ns: u64) -> Window {
        Window {
            index,
            start,
            end,
            earliest: HostNs(start.0.saturating_sub(bound_ns)),
            latest: HostNs(end.0.saturating_add(bound_ns)),
            sectors: self.target.sectors_of(index),
        }
    }

    /// Takes note of a request, in order of submission.
    pub(super) fn note(&mut self, window: Window) {
        if self.windows.len() >= WINDOWS_MAX
            && let Some(gone) = self.windows.pop_front()
        {
            self.forgotten_until = self.forgotten_until.max(gone.latest);
        }
        self.windows.push_back(window);
    }

    /// Whether all I/O has been seen that was done up to this time.
    pub(super) fn has_come_to(&self, time: HostNs) -> bool {
        self.ios.now() > time
    }

    /// Lets go of all that is over before the request, which is the first that is still to come.
    pub(super) fn forget_before(&mut self, first: &Window) {
        self.ios.forget_before(first.earliest);
        if self.windows.len() > self.windows_needed + WINDOWS_SLACK {
            self.windows.retain(|window| window.latest >= first.earliest);
            self.windows_needed = self.windows.len();
        }
    }

    /// When the host had the request's I/O.
    pub(super) fn marks(&self, request: &Window) -> Result<IoMarks, NoPhase> {
        if self.ios.has_lost(request.earliest, request.latest) {
            return Err(NoPhase::Lost);
        }
        if request.earliest < self.forgotten_until || self.ios.has_forgotten(request.earliest) {
            return Err(NoPhase::Forgotten);
        }
        let mut own: Vec<&HostIo> = Vec::new();
        for io in self.ios.since(request.earliest).filter(|io| request.reads(&io.sectors)) {
            if request.holds(io, self.target.access) {
                if io.is_entangled || self.may_be_anothers(io, request) {
                    return Err(NoPhase::Ambiguous);
                }
                own.push(io);
            } else if io.completed.is_none() && request.sectors.is_some() && request.meets(io) {
                return Err(NoPhase::Unfinished);
            } else if self.contradicts(io, request) {
                return Err(NoPhase::Contradiction);
            }
        }
        let length_sectors: u64 = own.iter().map(|io| io.sectors.end - io.sectors.start).sum();
        let is_whole = length_sectors * SECTOR_BYTES == u64::from(self.target.block_bytes);
        if request.sectors.is_none() && !own.is_empty() && !is_whole {
            return Err(NoPhase::Ambiguous);
        }
        let submitted = own.iter().map(|io| io.submitted).min().ok_or(NoPhase::NoIo)?;
        let completed = own.iter().filter_map(|io| io.completed).max().ok_or(NoPhase::NoIo)?;
        let within = |time: HostNs| time.clamp(request.start, request.end);
        Ok(IoMarks { submitted: within(submitted), completed: within(completed) })
    }

    /// What the request's I/O, which has these marks, says of the request's times.
    pub(super) fn check(&self, request: &Window, marks: Result<IoMarks, NoPhase>) -> IoCheck {
        let is_known = self.target.access == HostAccess::Direct && request.sectors.is_some();
        match marks {
            Ok(_) if is_known => IoCheck::Within,
            Err(NoPhase::NoIo) if is_known => IoCheck::Unseen,
            Err(NoPhase::Contradiction) => {
                let own = self
                    .ios
                    .since(request.earliest)
                    .filter(|io| request.reads(&io.sectors) && self.contradicts(io, request));
                let excess_ns = own.map(|io| request.excess_ns(io)).max().unwrap_or(0);
                IoCheck::Beyond { excess_ns: excess_ns.max(1) }
            }
            _ => IoCheck::Unchecked,
        }
    }

    /// Whether the I/O may have been for another request instead. One that reads other sectors is
    /// none: if the I/O is for those as well, it is for both.
    fn may_be_anothers(&self, io: &HostIo, request: &Window) -> bool {
        match self.target.access {
            // Whoever reads the page waits for it, whoever asked for it.
            HostAccess::Cached => request.sectors.is_none(),
            HostAccess::Direct => {
                self.windows.iter().any(|other| other != request && self.claims(other, io, request))
            }
        }
    }

    fn claims(&self, other: &Window, io: &HostIo, request: &Window) -> bool {
        other.holds(io, self.target.access) && other.reads(&io.sectors) && other.reads_what(request)
    }

    /// Whether the I/O, which reads the request's sectors while it is in flight, lies beyond it and
    /// is no other request's.
    fn contradicts(&self, io: &HostIo, request: &Window) -> bool {
        self.target.access == HostAccess::Direct
            && request.sectors.is_some()
            && request.meets(io)
            && !self.windows.iter().any(|other| other != request && self.claims(other, io, request))
    }
}
