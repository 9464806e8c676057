//! What a recording came to, and its counters while it goes on.

use super::RecordError;
use super::stacks::StackTable;
use std::sync::atomic::{AtomicU64, Ordering};
use vslice_core::host_event::{HostEvent, HostEventKind};
use vslice_core::units::HostNs;

/// How much has been recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecordCounters {
    /// Events that went to the sink.
    pub events_count: u64,
    /// Records that found no room in a ring.
    pub lost_count: u64,
    /// Intervals in which that happened, of all pCPUs.
    pub lost_intervals_count: u64,
    /// Bytes that the kernel wrote into the rings.
    pub ring_bytes: u64,
    /// Threads that are called as those of vCPUs are and that are none of the recorded VMs'.
    pub strange_vcpus_count: u64,
}

/// What a recording came to.
#[derive(Debug, Default)]
pub struct RecordTotals {
    /// From here on every event was enabled.
    pub started: HostNs,
    /// Up to here every event was enabled.
    pub stopped: HostNs,
    /// How much was recorded.
    pub counters: RecordCounters,
    /// CPU time of the thread that read the rings.
    pub reader_cpu_ns: u64,
    /// Births, deaths and names whose time was moved up to keep the order, by microseconds.
    pub moved_count: u64,
    /// Records of kinds that nobody asked for.
    pub unknown_count: u64,
    /// Newborn threads of the VMs that could not be watched on pCPUs that are not watched.
    pub uncovered_threads_count: u64,
    /// Every kernel stack that an event names.
    pub stacks: StackTable,
    /// Tracepoints that were asked for and that this kernel lacks, by group and name, and
    /// [`vslice_trace::evidence::BPF_PROGRAMS`] and [`vslice_trace::evidence::DISK_PROGRAMS`] if they were wanted and could not
    /// be had.
    pub missing: Vec<&'static str>,
    /// Why recording ended before it was told to. What came before has gone to the sink.
    pub ended_early: Option<RecordError>,
}

/// Counters that the reader moves and others look at.
#[derive(Debug, Default)]
pub(super) struct SharedCounters {
    events_count: AtomicU64,
    lost_count: AtomicU64,
    lost_intervals_count: AtomicU64,
    ring_bytes: AtomicU64,
    strange_vcpus_count: AtomicU64,
}

impl SharedCounters {
    pub(super) fn count(&self, events: &[HostEvent], ring_bytes: usize) {
        // ATOMICS: relaxed, because each counter stands for itself and orders nothing else.
        self.events_count.fetch_add(events.len() as u64, Ordering::Relaxed);
        self.ring_bytes.fetch_add(ring_bytes as u64, Ordering::Relaxed);
        for event in events {
            if let HostEventKind::Lost { count, .. } = event.kind {
                let sum = |lost: u64| lost.saturating_add(count);
                let relaxed = Ordering::Relaxed;
                // It always has a sum, so it does not fail.
                let _ = self.lost_count.fetch_update(relaxed, relaxed, |lost| Some(sum(lost)));
                self.lost_intervals_count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn count_strange_vcpus(&self, count: u64) {
        self.strange_vcpus_count.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> RecordCounters {
        RecordCounters {
            events_count: self.events_count.load(Ordering::Relaxed),
            lost_count: self.lost_count.load(Ordering::Relaxed),
            lost_intervals_count: self.lost_intervals_count.load(Ordering::Relaxed),
            ring_bytes: self.ring_bytes.load(Ordering::Relaxed),
            strange_vcpus_count: self.strange_vcpus_count.load(Ordering::Relaxed),
        }
    }
}
