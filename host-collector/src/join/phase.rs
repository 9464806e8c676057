//! The phases of a request's I/O, crossed with what the vCPU's thread was doing.

use super::part::{Part, PartsNs};
use crate::units::HostNs;
use serde::{Deserialize, Serialize};

/// How far the host has come with a request's I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Submitted by the guest, not yet handed to the host's block layer.
    Queued,
    /// In flight on the host.
    Device,
    /// Done on the host; the guest has not seen it.
    Completed,
    /// Not known: see [`NoPhase`].
    Unknown,
}

impl Phase {
    /// Every phase, in order of time, and the unknown one.
    pub const ALL: [Phase; 4] = [Phase::Queued, Phase::Device, Phase::Completed, Phase::Unknown];

    /// The phase's name in `summary.json`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Phase::Queued => "queued",
            Phase::Device => "device",
            Phase::Completed => "completed",
            Phase::Unknown => "unknown",
        }
    }
}

/// Why the phases of a request are not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoPhase {
    /// The host's I/O was not recorded.
    NotRecorded,
    /// Records were lost meanwhile.
    Lost,
    /// The host's page cache served it: nobody had I/O in flight for its sectors. So no disk has a part in its
    /// latency; when the VMM took up the request, and when it was done, is not known.
    PageCache,
    /// No host I/O was seen for it.
    NoIo,
    /// There was I/O, but it may be another request's.
    Ambiguous,
    /// There was I/O for its data whose end was not seen.
    Unfinished,
    /// There was I/O for its data that does not lie within it, clock errors allowed for.
    Contradiction,
    /// More was under way than is kept.
    Forgotten,
}

impl NoPhase {
    /// Every reason, in the order in which they are printed.
    pub const ALL: [NoPhase; 8] = [
        NoPhase::NotRecorded,
        NoPhase::Lost,
        NoPhase::PageCache,
        NoPhase::NoIo,
        NoPhase::Ambiguous,
        NoPhase::Unfinished,
        NoPhase::Contradiction,
        NoPhase::Forgotten,
    ];
}

/// When the host had a request's I/O, within the request's own window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoMarks {
    /// The first I/O was handed to the block layer.
    pub submitted: HostNs,
    /// The last one was done; not before `submitted`.
    pub completed: HostNs,
}

/// Nanoseconds by phase and part. Over all phases, each part has what the request's
/// [`PartsNs`] have, and together they are its latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PhaseParts([PartsNs; Phase::ALL.len()]);

impl PhaseParts {
    /// Of a request whose phases are not known.
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

    /// **I/O inactivity**: the data was there, and nobody was on the pCPU to take it (Jia et al.,
    /// "Effectively Mitigating I/O Inactivity in vCPU Scheduling", USENIX ATC 2018), whatever kept it
    /// off: see [`Part::is_inactivity`].
    #[must_use]
    pub fn inactivity_ns(&self) -> u64 {
        let completed = self.of(Phase::Completed);
        let parts = Part::ALL.into_iter().filter(|part| part.is_inactivity());
        parts.fold(0, |sum_ns, part| sum_ns.saturating_add(completed.get(part)))
    }

    /// Adds what the thread did from one time until another, cut at the marks.
    pub fn add(&mut self, from: HostNs, until: HostNs, part: Part, marks: &IoMarks) {
        let edges = [HostNs(0), marks.submitted, marks.completed, HostNs(u64::MAX)];
        for (phase, edge) in Phase::ALL.into_iter().zip(edges.windows(2)) {
            let (from, until) = (from.max(edge[0]), until.min(edge[1]));
            self.0[phase as usize].add(part, until.since_ns(from));
        }
    }
}
