//! The phases of a request's I/O, crossed with what the vCPU's thread was doing.

use super::part::{Part, PartsNs};
use crate::units::HostNs;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// How far the host has come with a request's I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// In the guest's own queue: its kernel had been asked for it and had not handed it to the disk's driver.
    /// Only of observed requests.
    GuestQueue,
    /// Submitted or issued by the guest, not yet handed to the host's block layer. For a request in several pieces,
    /// also while none of them is in flight and the next one has not been handed over.
    Queued,
    /// In flight on the host.
    Device,
    /// Completed by the host's disk; the guest has not seen it yet. The host's kernel may still have to end it before
    /// the VMM knows, see `host_view/handover.rs`.
    Completed,
    /// Unknown, for the reason in [`NoPhase`].
    Unknown,
}

impl Phase {
    /// Every phase, in order of time, and the unknown one.
    pub const ALL: [Phase; 5] =
        [Phase::GuestQueue, Phase::Queued, Phase::Device, Phase::Completed, Phase::Unknown];

    /// The phase's name in `summary.json`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Phase::GuestQueue => "guest_queue",
            Phase::Queued => "queued",
            Phase::Device => "device",
            Phase::Completed => "completed",
            Phase::Unknown => "unknown",
        }
    }
}

/// Why the phases of a request are unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoPhase {
    /// The host's I/O was not recorded.
    NotRecorded,
    /// Records were lost meanwhile.
    Lost,
    /// The host's page cache served it: no I/O was in flight for its sectors, so no disk was involved. When
    /// the VMM took up the request and when it was done is unknown.
    PageCache,
    /// No host I/O was seen for it.
    NoIo,
    /// There was I/O, but it may be another request's.
    Ambiguous,
    /// Which of the host's I/O is for it cannot be told by sectors: it has none, or its image had no place for them
    /// on the host's disk.
    Unmapped,
    /// The VMM flushes for it, and it is not known by which descriptors it has the image open.
    UnknownFile,
    /// The VMM flushes for it, and no thread of the VMM's was seen to wait for that.
    NoWait,
    /// There was I/O for its data whose completion was not seen.
    Unfinished,
    /// There was I/O for its data that lies outside it by more than the clock error.
    Contradiction,
    /// More was in flight than vslice keeps.
    Forgotten,
}

impl NoPhase {
    /// Every reason, in the order in which they are printed.
    pub const ALL: [NoPhase; 11] = [
        NoPhase::NotRecorded,
        NoPhase::Lost,
        NoPhase::PageCache,
        NoPhase::NoIo,
        NoPhase::Ambiguous,
        NoPhase::Unmapped,
        NoPhase::UnknownFile,
        NoPhase::NoWait,
        NoPhase::Unfinished,
        NoPhase::Contradiction,
        NoPhase::Forgotten,
    ];

    /// Its name in `summary.json`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            NoPhase::NotRecorded => "not_recorded",
            NoPhase::Lost => "lost",
            NoPhase::PageCache => "page_cache",
            NoPhase::NoIo => "no_io",
            NoPhase::Ambiguous => "ambiguous",
            NoPhase::Unmapped => "unmapped",
            NoPhase::UnknownFile => "unknown_file",
            NoPhase::NoWait => "no_wait",
            NoPhase::Unfinished => "unfinished",
            NoPhase::Contradiction => "contradiction",
            NoPhase::Forgotten => "forgotten",
        }
    }
}

/// When the host had a request's I/O, within the request's own window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoMarks {
    /// The first I/O was handed to the block layer.
    pub submitted: HostNs,
    /// The last one was done; not before `submitted`.
    pub completed: HostNs,
}

/// The host's I/O of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestIo {
    /// From its first I/O's submission to its last one's completion.
    pub marks: IoMarks,
    /// Within that, when none of them was in flight, in order of time: the next one had not been handed over
    /// yet, as guests and VMMs split a request that is too large for a device.
    gaps: Vec<Range<HostNs>>,
}

impl RequestIo {
    /// A single I/O, or several of which at least one was always in flight.
    #[must_use]
    pub fn whole(marks: IoMarks) -> RequestIo {
        RequestIo { marks, gaps: Vec::new() }
    }

    /// From the request's I/Os, each from submission to completion and clipped to the request; `None` if
    /// there are none.
    pub(super) fn of(mut ios: Vec<Range<HostNs>>) -> Option<RequestIo> {
        ios.sort_unstable_by_key(|io| io.start);
        let submitted = ios.first()?.start;
        let (mut gaps, mut completed) = (Vec::new(), submitted);
        for io in ios {
            if io.start > completed {
                gaps.push(completed..io.start);
            }
            completed = completed.max(io.end);
        }
        Some(RequestIo { marks: IoMarks { submitted, completed }, gaps })
    }

    /// How far the host had come at each time from one to another, in order of time.
    pub(super) fn stretches(&self, from: HostNs, until: HostNs) -> Vec<(Phase, Range<HostNs>)> {
        let IoMarks { submitted, completed } = self.marks;
        let mut stretches = vec![(Phase::Queued, from..submitted)];
        let mut at = submitted;
        for gap in &self.gaps {
            stretches.push((Phase::Device, at..gap.start));
            stretches.push((Phase::Queued, gap.clone()));
            at = gap.end;
        }
        stretches.push((Phase::Device, at..completed));
        stretches.push((Phase::Completed, completed..until));
        stretches
    }

    /// For how long none was in flight between two times.
    fn gaps_ns(&self, from: HostNs, until: HostNs) -> u64 {
        let within = |gap: &Range<HostNs>| gap.end.min(until).since_ns(gap.start.max(from));
        self.gaps.iter().map(within).fold(0, u64::saturating_add)
    }
}

/// Nanoseconds by phase and part. Summed over the phases they equal the request's [`PartsNs`], and over both
/// its latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PhaseParts([PartsNs; Phase::ALL.len()]);

impl PhaseParts {
    /// The parts of a request whose phases are unknown.
    #[must_use]
    pub fn unknown(parts: PartsNs) -> PhaseParts {
        let mut all = PhaseParts::default();
        all.0[Phase::Unknown as usize] = parts;
        all
    }

    /// The parts of one phase.
    #[must_use]
    pub fn of(&self, phase: Phase) -> &PartsNs {
        &self.0[phase as usize]
    }

    /// Adds all of `other`.
    pub fn add_all(&mut self, other: &PhaseParts) {
        for phase in Phase::ALL {
            self.0[phase as usize].add_all(other.of(phase));
        }
    }

    /// **I/O inactivity**: the I/O had completed, and the vCPU was not on a pCPU to handle it (Jia et al.,
    /// "Effectively Mitigating I/O Inactivity in vCPU Scheduling", USENIX ATC 2018), whatever kept it off:
    /// see [`Part::is_inactivity`].
    #[must_use]
    pub fn inactivity_ns(&self) -> u64 {
        let completed = self.of(Phase::Completed);
        let parts = Part::ALL.into_iter().filter(|part| part.is_inactivity());
        parts.fold(0, |sum_ns, part| sum_ns.saturating_add(completed.get(part)))
    }

    /// Adds a state of the thread in one phase.
    pub fn add_to(&mut self, phase: Phase, part: Part, length_ns: u64) {
        self.0[phase as usize].add(part, length_ns);
    }

    /// Summed over all phases.
    #[must_use]
    pub fn parts(&self) -> PartsNs {
        let mut parts = PartsNs::default();
        self.0.iter().for_each(|of_phase| parts.add_all(of_phase));
        parts
    }

    /// Adds a state of the thread from one time to another, cut at the phases of the request's I/O.
    pub fn add(&mut self, from: HostNs, until: HostNs, part: Part, io: &RequestIo) {
        let marks = &io.marks;
        let edges = [HostNs(0), marks.submitted, marks.completed, HostNs(u64::MAX)];
        let in_phases = [Phase::Queued, Phase::Device, Phase::Completed]
            .into_iter()
            .zip(edges.windows(2).map(|edge| until.min(edge[1]).since_ns(from.max(edge[0]))));
        let gaps_ns = io.gaps_ns(from, until);
        for (phase, length_ns) in in_phases {
            let length_ns = match phase {
                Phase::Queued => length_ns.saturating_add(gaps_ns),
                Phase::Device => length_ns.saturating_sub(gaps_ns),
                Phase::GuestQueue | Phase::Completed | Phase::Unknown => length_ns,
            };
            self.0[phase as usize].add(part, length_ns);
        }
    }
}
