//! How far the host had come with the requests' I/O, and what the vCPUs did meanwhile.

use super::totals::{ByClass, PartTotals, share, sum};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use vslice_core::join::{Breakdown, NoPhase, Part, PartsNs, Phase, PhaseParts};
use vslice_core::units::{HostNs, PcpuId};

/// The requests' I/O on the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Io {
    /// The disk of each VM that reads one.
    pub disks: Vec<IoDisk>,
    /// Its totals over the attributed requests of each class.
    pub classes: ByClass<IoClass>,
    /// Tasks that the host's kernel hides from tracing, as the recording shows: a disk completion that
    /// interrupts one of them may not be seen.
    #[serde(default)]
    pub hidden: Vec<HiddenTask>,
}

/// A task that was switched in repeatedly without a switch-out being seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HiddenTask {
    /// Its name.
    pub name: String,
    /// Where.
    pub pcpu: PcpuId,
    /// How often its switch-out was not seen.
    pub count: u64,
}

/// The host disk that a VM's requests read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoDisk {
    /// The VM.
    pub vm: String,
    /// The host's disk whose I/O was recorded.
    pub device: Option<String>,
    /// Why no I/O was recorded, as a sentence without its full stop.
    pub reason: Option<String>,
    /// Why the location of the VM's image on that disk is unknown, as a sentence without its full stop. The
    /// phases of requests that were in flight together are unknown then.
    pub unmapped_reason: Option<String>,
}

/// The I/O of one class of requests.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct IoClass {
    /// Attributed requests of the class whose phases are known.
    pub known: u64,
    /// Attributed requests of the class whose phases are unknown.
    pub unphased: u64,
    /// The same by reason; adds up to `unphased`.
    pub unphased_by: UnphasedBy,
    /// Of `known` those whose vCPU in the `completed` phase is not known, so that what it did is not either.
    #[serde(default)]
    pub steered: u64,
    /// Time in the `unknown` phase of requests that the host's page cache served.
    #[serde(default)]
    pub page_cache_ns: u64,
    /// Their latency by phase; adds up to the class's `latency_ns`.
    pub phases_ns: BTreeMap<Phase, u64>,
    /// Their latency by phase and part; summed over the phases they equal the class's parts.
    pub parts_ns: BTreeMap<Phase, PartTotals>,
    /// Of `parts_ns.guest_queue` what is context and no cause, as another vCPU issued the request than the one
    /// whose state it is; empty if there is none of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub guest_queue_context_ns: BTreeMap<Part, u64>,
    /// I/O inactivity in nanoseconds: the I/O had completed, and the vCPU was not on a pCPU to handle it; see
    /// [`Part::is_inactivity`].
    pub inactivity_ns: u64,
    /// The same by part; every part that counts is there, even if it is 0.
    pub inactivity_parts_ns: BTreeMap<Part, u64>,
    /// Its share of the class's `latency_ns`, in [0, 1]. Requests with unknown phases contribute nothing, nor do those
    /// whose vCPU is not known, so this is a lower bound.
    pub inactivity_share: f64,
    /// How many requests have any I/O inactivity.
    pub inactive: u64,
}

/// Requests whose phases are unknown, by reason; see [`NoPhase`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UnphasedBy {
    /// The host's I/O was not recorded.
    pub not_recorded: u64,
    /// Records were lost meanwhile.
    pub lost: u64,
    /// The host's page cache served them, so no disk was involved.
    #[serde(default)]
    pub page_cache: u64,
    /// No host I/O was seen for them.
    pub no_io: u64,
    /// There was I/O, but it may be another request's.
    pub ambiguous: u64,
    /// Which sectors of the host's disk they are for is not known.
    #[serde(default)]
    pub unmapped: u64,
    /// The VMM flushes for them, and it is not known by which descriptors it has the image open.
    #[serde(default)]
    pub unknown_file: u64,
    /// The VMM flushes for them, and no thread of the VMM's was seen to wait for that.
    #[serde(default)]
    pub no_wait: u64,
    /// There was I/O for their data whose completion was not seen.
    pub unfinished: u64,
    /// There was I/O for their data that lies outside them by more than the clock error.
    pub contradiction: u64,
    /// More was in flight than vslice keeps.
    pub forgotten: u64,
}

impl UnphasedBy {
    fn count(&mut self, reason: NoPhase) -> &mut u64 {
        match reason {
            NoPhase::NotRecorded => &mut self.not_recorded,
            NoPhase::Lost => &mut self.lost,
            NoPhase::PageCache => &mut self.page_cache,
            NoPhase::NoIo => &mut self.no_io,
            NoPhase::Ambiguous => &mut self.ambiguous,
            NoPhase::Unmapped => &mut self.unmapped,
            NoPhase::UnknownFile => &mut self.unknown_file,
            NoPhase::NoWait => &mut self.no_wait,
            NoPhase::Unfinished => &mut self.unfinished,
            NoPhase::Contradiction => &mut self.contradiction,
            NoPhase::Forgotten => &mut self.forgotten,
        }
    }

    /// The reasons that occur, each with its number of requests.
    pub fn reasons(self) -> impl Iterator<Item = (NoPhase, u64)> {
        NoPhase::ALL
            .into_iter()
            .map(move |reason| (reason, self.get(reason)))
            .filter(|(_, count)| *count > 0)
    }

    /// How many requests have this reason.
    #[must_use]
    pub fn get(mut self, reason: NoPhase) -> u64 {
        *self.count(reason)
    }
}

/// When the host had the I/O of one of the slowest requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorstIo {
    /// When the first I/O was handed to the block layer, in nanoseconds since the request's submission.
    pub submitted_ns: u64,
    /// When the last I/O was done, in nanoseconds since the request's submission.
    pub completed_ns: u64,
}

impl WorstIo {
    pub(super) fn of(breakdown: &Breakdown) -> Option<WorstIo> {
        let marks = breakdown.io.ok()?;
        let since_start = |time: HostNs| time.since_ns(breakdown.start);
        Some(WorstIo {
            submitted_ns: since_start(marks.submitted),
            completed_ns: since_start(marks.completed),
        })
    }
}

/// What the attributed requests of one bucket or one class come to.
#[derive(Debug, Clone, Default)]
pub(super) struct IoTotals {
    phases: PhaseParts,
    queue_context: PartsNs,
    known: u64,
    steered: u64,
    unphased_by: UnphasedBy,
    page_cache_ns: u64,
    inactive: u64,
}

impl IoTotals {
    pub(super) fn add(&mut self, breakdown: &Breakdown) {
        self.phases.add_all(&breakdown.phases);
        if !breakdown.vcpus.is_waited_for(Phase::GuestQueue) {
            self.queue_context.add_all(breakdown.phases.of(Phase::GuestQueue));
        }
        if breakdown.io == Err(NoPhase::PageCache) {
            let unknown_ns = breakdown.phases.of(Phase::Unknown).total_ns();
            self.page_cache_ns = self.page_cache_ns.saturating_add(unknown_ns);
        }
        match breakdown.io {
            Ok(_) => self.known += 1,
            Err(reason) => *self.unphased_by.count(reason) += 1,
        }
        let completed_ns = breakdown.phases.of(Phase::Completed).total_ns();
        self.steered += u64::from(breakdown.vcpus.completed.is_none() && completed_ns > 0);
        self.inactive += u64::from(breakdown.phases.inactivity_ns() > 0);
    }

    pub(super) fn add_all(&mut self, other: &IoTotals) {
        self.phases.add_all(&other.phases);
        self.queue_context.add_all(&other.queue_context);
        self.known += other.known;
        self.steered += other.steered;
        for reason in NoPhase::ALL {
            *self.unphased_by.count(reason) += other.unphased_by.get(reason);
        }
        self.page_cache_ns = self.page_cache_ns.saturating_add(other.page_cache_ns);
        self.inactive += other.inactive;
    }

    /// Of a class of this total latency.
    pub(super) fn class(&self, latency_ns: u64) -> IoClass {
        let parts = |phase| (phase, PartTotals::from(self.phases.of(phase)));
        let total = |phase| (phase, self.phases.of(phase).total_ns());
        // The reader's own requests have none.
        let has_guest_queue = self.phases.of(Phase::GuestQueue).total_ns() > 0;
        let is_there = move |phase: &Phase| has_guest_queue || *phase != Phase::GuestQueue;
        let phases = || Phase::ALL.into_iter().filter(is_there);
        let inactivity_ns = self.phases.inactivity_ns();
        IoClass {
            known: self.known,
            steered: self.steered,
            unphased: sum(NoPhase::ALL.map(|reason| self.unphased_by.get(reason))),
            unphased_by: self.unphased_by,
            page_cache_ns: self.page_cache_ns,
            phases_ns: phases().map(total).collect(),
            parts_ns: phases().map(parts).collect(),
            guest_queue_context_ns: of_parts(&self.queue_context),
            inactivity_ns,
            inactivity_parts_ns: Part::ALL
                .into_iter()
                .filter(|part| part.is_inactivity())
                .map(|part| (part, self.phases.of(Phase::Completed).get(part)))
                .collect(),
            inactivity_share: share(inactivity_ns, latency_ns),
            inactive: self.inactive,
        }
    }
}

/// The parts that took time.
fn of_parts(parts: &PartsNs) -> BTreeMap<Part, u64> {
    let all = Part::ALL.into_iter().map(|part| (part, parts.get(part)));
    all.filter(|(_, length_ns)| *length_ns > 0).collect()
}

impl IoClass {
    /// Nanoseconds of one part of the guest queue that are context and no cause.
    #[must_use]
    pub fn queue_context(&self, part: Part) -> u64 {
        self.guest_queue_context_ns.get(&part).copied().unwrap_or(0)
    }

    /// How long it is unknown whether the host's disk had the requests' I/O, in nanoseconds.
    #[must_use]
    pub fn unknown_ns(&self) -> u64 {
        let unknown_ns = self.phases_ns.get(&Phase::Unknown).copied().unwrap_or(0);
        unknown_ns.saturating_sub(self.page_cache_ns)
    }

    /// Nanoseconds of one phase and one part.
    #[must_use]
    pub fn get(&self, phase: Phase, part: Part) -> u64 {
        self.parts_ns.get(&phase).map_or(0, |parts| parts.get(part))
    }
}
