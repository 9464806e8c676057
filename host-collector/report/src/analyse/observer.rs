//! Who listens to the analysis of a run.

use super::chosen::Chosen;
use crate::summary::clock::{ClocksApart, VcpuClock};
use crate::summary::selection::LeftOut;
use crate::summary::{CommandLine, VmIndex, Warning};
use std::collections::HashMap;
use vslice_core::host_event::HostEvent;
use vslice_core::host_view::ViewedIo;
use vslice_core::join::{Breakdown, GuestRequest, Unplaced};
use vslice_core::samples::SampleItem;
use vslice_core::task::Process;
use vslice_core::timeline::{Exit, FoundLock, LockWait, Span, Tasks};
use vslice_core::units::{HostNs, PcpuId};
use vslice_trace::StackNames;
use vslice_trace::manifest::Manifest;
use vslice_wire::Dropped;

/// Is told of all that an analysis makes of a run, in one direction and once: each form of output is one.
///
/// All that it is lent is gone when a method returns, and a run may be longer than memory: it keeps totals, or the few
/// worst, or writes and lets go. One that writes keeps its first error until it is asked for it. Times are the
/// host's.
///
/// # Order
/// First [`start`](Observer::start), at the end [`end`](Observer::end). Samples, of a run whose events could not be
/// recorded, come before all else. Events come in order of time. Spans, lock waits and exits come when they are
/// over, those of one thread in order; requests when all is known of them, which is in no certain order.
///
/// Nothing is cut off at the edges of the measured window: see [`MeasuredWindow::touches`].
///
/// # A part of a run
/// Where only a [`Chosen`] is told, spans, lock waits, exits, requests and the host's I/Os are those of that part; spans are cut
/// at the edges of its stretch. Events are all told, since what comes before explains who is where; so is the window, by
/// which times are told.
pub trait Observer {
    /// The run, before its streams are read.
    fn start(&mut self, _run: &Run<'_>) {}

    /// Something that was seen of a VM's thread by looking at it.
    fn sample(&mut self, _vm: VmIndex, _sample: &SampleItem) {}

    /// Something that the host's kernel recorded, with the threads as they were before it.
    fn event(&mut self, _event: &HostEvent, _tasks: &Tasks) {}

    /// The record of a pCPU ends here without its writer's end, as it was cut off. Nothing that is told of later times
    /// is certain.
    fn cut_off(&mut self, _pcpu: PcpuId, _since: HostNs) {}

    /// What a thread of a VM did for a while.
    fn span(&mut self, _span: &Span) {}

    /// A sleep of a VM's thread on a lock of its VMM.
    fn lock_wait(&mut self, _wait: &LockWait) {}

    /// An exit of a vCPU from its guest.
    fn exit(&mut self, _exit: &Exit) {}

    /// A request of the guest's reader or one that was observed, and where its latency went.
    fn request(&mut self, _vm: VmIndex, _breakdown: &Breakdown) {}

    /// An I/O of a VM's process on a host disk that one of the VM's disks is on, as the host saw it; `disk` is the
    /// place in the manifest of the one that it is for, if that is known. In order of their ends.
    fn host_io(&mut self, _vm: VmIndex, _disk: Option<usize>, _io: &ViewedIo) {}

    /// A request that has no place on the host's clock.
    fn unplaced_request(&mut self, _vm: VmIndex, _request: &GuestRequest, _why: Unplaced) {}

    /// Requests that a guest's reader made and could not record.
    fn dropped_requests(&mut self, _vm: VmIndex, _dropped: &Dropped) {}

    /// Observed requests, or their parts, that a guest could not record; the count is that of its kernel's
    /// events.
    fn lost_observed(&mut self, _vm: VmIndex, _lost: &Dropped) {}

    /// All has been told.
    fn end(&mut self, _run: &Run<'_>, _end: &RunEnd<'_>) {}
}

/// A run, as it is known before its streams are read.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// What it says of itself.
    pub manifest: &'a Manifest,
    /// When it was measured.
    pub window: MeasuredWindow,
    /// What of it is told.
    pub chosen: &'a Chosen,
    /// The kernel stacks that spans refer to.
    pub stacks: &'a [StackNames],
    /// What its events show of each VM's big lock, where QEMU's code does not tell it.
    pub locks: &'a [Option<FoundLock>],
}

impl Run<'_> {
    /// Which part of the run is told, as far as that is known before its streams are read; `None`: all of it.
    #[must_use]
    pub fn part_sentence(&self) -> Option<String> {
        let end = self.manifest.window.and_then(|window| window.end_ns);
        let chosen = self
            .chosen
            .told([self.window.start, end.unwrap_or(self.window.end)], LeftOut::default());
        chosen.map(|part| part.sentence())
    }
}

/// What is known of a run once its streams have been read.
#[derive(Debug, Clone, Copy)]
pub struct RunEnd<'a> {
    /// Where the measured window ends: where it was closed, else with the last that was recorded.
    pub window_end: HostNs,
    /// Whether a stream ends without its writer's end.
    pub is_torn: bool,
    /// Events of the window.
    pub events_count: u64,
    /// Those of them that contradict the ones before them.
    pub contradictions_count: u64,
    /// The clock map of each vCPU that has one.
    pub clocks: &'a [VcpuClock],
    /// Guests of which two vCPUs cannot have the same clock.
    pub clocks_apart: &'a [ClocksApart],
    /// The host's threads under their latest names.
    pub tasks: &'a Tasks,
    /// The command lines of processes.
    pub commands: &'a HashMap<Process, CommandLine>,
    /// What there is to say of the streams and clocks.
    pub warnings: &'a [Warning],
    /// What of the run was not told.
    pub left_out: LeftOut,
}

/// The time over which a run was measured; all time if nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeasuredWindow {
    /// The first nanosecond of it.
    pub start: HostNs,
    /// The first one after it.
    pub end: HostNs,
}

impl MeasuredWindow {
    /// That of a run. One that was not closed goes on.
    #[must_use]
    pub fn of(manifest: &Manifest) -> MeasuredWindow {
        let window = manifest.window;
        MeasuredWindow {
            start: window.map_or(HostNs(0), |window| window.start_ns),
            end: window.and_then(|window| window.end_ns).unwrap_or(HostNs(u64::MAX)),
        }
    }

    /// Whether this instant is in it.
    #[must_use]
    pub fn contains(&self, time: HostNs) -> bool {
        self.start <= time && time < self.end
    }

    /// Whether a part of what began and ended then is in it. It counts whole: cut at the edges, it would be
    /// a timeslice, say, that never was.
    #[must_use]
    pub fn touches(&self, start: HostNs, end: HostNs) -> bool {
        end > self.start && start < self.end
    }
}
