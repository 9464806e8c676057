//! Requests as slices: a request, in it how far the host had come, and in that what the vCPU's thread did.
//!
//! ```text
//! read vda               |------------------------------------|
//!   queued, device, ...    |queued |device      |completed     |
//!     the vCPU's thread    |runs |asleep          |preempted |runs
//! ```
//!
//! Slices of one track nest. So each request that was in flight beside others has a track of its own.

use super::state;
use super::trace::{Note, Place, Slice, Trace, Track, Value};
use std::collections::HashMap;
use std::io::Write;
use vslice_core::join::{Breakdown, GuestRequest, Part, PartsNs, Phase};
use vslice_core::task::VmIndex;
use vslice_core::timeline::{Span, ThreadState};
use vslice_core::units::{HostNs, Tid};
use vslice_report::who::VmNames;
use vslice_trace::manifest::Manifest;
use vslice_trace::observation::{ObservedTaskRecord, operation_name};
use vslice_wire::ObservedRequest;

/// Tracks for requests in flight of one VM at most. A guest with more of them is told of by their number.
const PLACES_MAX: usize = 1_024;

/// The requests of all VMs.
#[derive(Debug, Default)]
pub(super) struct Requests {
    vms: Vec<Vm>,
    threads: HashMap<Tid, String>,
    /// Those that are in the trace.
    pub(super) told_count: u64,
    /// Those for which there was no track.
    pub(super) left_out_count: u64,
}

#[derive(Debug)]
struct Vm {
    process: Track,
    group: Option<Track>,
    places: Vec<InFlight>,
    block_bytes: Option<u32>,
    devices: HashMap<u16, String>,
    tasks: HashMap<u32, ObservedTaskRecord>,
}

/// A track for one request at a time.
#[derive(Debug, Clone, Copy)]
struct InFlight {
    track: Track,
    /// When the last one ended.
    free_from: HostNs,
}

impl Requests {
    pub(super) fn of(manifest: &Manifest, processes: &[Track]) -> Requests {
        let vms = manifest.vms.iter().zip(processes).map(|(record, process)| {
            let observation = record.observation.clone().unwrap_or_default();
            let devices = observation.devices.into_iter();
            let tasks = observation.tasks.into_iter();
            Vm {
                process: *process,
                group: None,
                places: Vec::new(),
                block_bytes: record.block_bytes,
                devices: devices.map(|device| (device.number, device.name)).collect(),
                tasks: tasks.map(|task| (task.number, task)).collect(),
            }
        });
        let threads = manifest.vms.iter().flat_map(|vm| &vm.threads);
        let threads = threads.map(|thread| (thread.tid, thread.role.to_string()));
        Requests { vms: vms.collect(), threads: threads.collect(), ..Requests::default() }
    }

    pub(super) fn request<W: Write>(
        &mut self,
        vm: VmIndex,
        breakdown: &Breakdown,
        names: &VmNames,
        trace: &mut Trace<W>,
    ) {
        let Some(vm) = self.vms.get_mut(vm.0) else { return };
        let Some(track) = vm.place(breakdown, trace) else {
            self.left_out_count += 1;
            return;
        };
        self.told_count += 1;
        let name = vm.name(&breakdown.request);
        let notes = vm.notes(breakdown, names);
        let slice = Slice { name: &name, category: "request", notes: &notes, ..Slice::default() };
        trace.begin(track, breakdown.start, &slice);
        for phase in phases(breakdown) {
            let (name, notes) = phase.described(breakdown);
            trace.begin(
                track,
                phase.start,
                &Slice { name, category: "phase", notes: &notes, ..Slice::default() },
            );
            let links = breakdown.chain.links().iter().map(|link| &link.span);
            for span in links.filter(|span| span.start < phase.end && span.end > phase.start) {
                let notes = self.link_notes(span);
                let name = state::name(&span.state);
                let category = state::category(&span.state);
                let time = [span.start.max(phase.start), span.end.min(phase.end)];
                trace.slice(
                    track,
                    time,
                    &Slice { name: &name, category, notes: &notes, ..Slice::default() },
                );
            }
            trace.end(track, phase.end);
        }
        trace.end(track, breakdown.end);
    }

    /// What a state of the chain adds to; all else of it is said on the thread's own lane, at the same time.
    fn link_notes(&self, span: &Span) -> Vec<Note<'_>> {
        let thread = self.threads.get(&span.tid);
        let thread = thread.map(|role| Note::new("thread", Value::Word(role)));
        let part = Note::new("part", Value::Word(Part::of(&span.state).name()));
        let pcpu = match span.state {
            ThreadState::Running { pcpu, .. } => Some(pcpu),
            _ => None,
        };
        let pcpu = pcpu.map(|pcpu| Note::new("pcpu", Value::Count(pcpu.0.into())));
        [Some(part), thread, pcpu].into_iter().flatten().collect()
    }
}

impl Vm {
    /// A track on which nothing is while the request was in flight: of several the one that was busy last, so that
    /// as few as possible are needed.
    fn place<W: Write>(&mut self, of: &Breakdown, trace: &mut Trace<W>) -> Option<Track> {
        let free = self.places.iter_mut().filter(|place| place.free_from <= of.start);
        if let Some(place) = free.max_by_key(|place| place.free_from) {
            place.free_from = of.end;
            return Some(place.track);
        }
        if self.places.len() >= PLACES_MAX {
            return None;
        }
        let group = *self.group.get_or_insert_with(|| {
            let place = Place::Below(self.process);
            trace.described_track(place, "requests in flight", 0, DESCRIPTION)
        });
        let rank = self.places.len() as u64 + 1;
        let track = trace.track(Place::Below(group), &format!("in flight {rank}"), rank);
        self.places.push(InFlight { track, free_from: of.end });
        Some(track)
    }

    fn name(&self, request: &GuestRequest) -> String {
        let operation = operation_name(request.operation());
        let device = request.observed().and_then(|of| self.devices.get(&of.device));
        device.map_or_else(|| operation.to_owned(), |device| format!("{operation} {device}"))
    }

    fn notes<'a>(&'a self, of: &Breakdown, names: &VmNames) -> Vec<Note<'a>> {
        let mut notes = vec![
            Note::new("latency_ns", Value::Count(of.latency_ns())),
            Note::new("clock_bound_ns", Value::Count(of.bounds.worst_ns())),
            Note::new("attribution", Value::Word(of.attribution.name())),
            Note::new("parts_ns", Value::Notes(parts(&of.parts))),
            Note::new("io_inactivity_ns", Value::Count(of.phases.inactivity_ns())),
        ];
        if let Err(why) = of.io {
            notes.push(Note::new("phases_unknown", Value::Word(why.name())));
        }
        if of.chain.cut_count > 0 {
            notes.push(Note::new("states_left_out", Value::Count(of.chain.cut_count)));
        }
        let waited = of.waits.rows().map(|(_, ran)| state::antagonist(&ran, names));
        let waited: Vec<Value<'_>> = waited.collect();
        if !waited.is_empty() {
            notes.push(Note::new("waited_for", Value::List(waited)));
        }
        match &of.request {
            GuestRequest::Observed(observed) => notes.extend(self.observed_notes(observed)),
            GuestRequest::Read(read) => {
                let bytes = self.block_bytes.map(|bytes| Value::Count(bytes.into()));
                notes.extend(bytes.map(|bytes| Note::new("bytes", bytes)));
                notes.push(Note::new("made_by", Value::Word("vslice's reader")));
                notes.push(Note::new("result", Value::Number(read.result.into())));
            }
        }
        let vcpu = |name, vcpu: u16| Note::new(name, Value::Count(vcpu.into()));
        notes.push(vcpu("vcpu_queued", of.request.vcpu_queued()));
        notes.push(vcpu("vcpu_issued", of.request.vcpu_issued()));
        notes.push(vcpu("vcpu_completed", of.request.vcpu_completed()));
        notes
    }

    fn observed_notes<'a>(&'a self, request: &ObservedRequest) -> Vec<Note<'a>> {
        let mut notes = vec![
            Note::new("sector", Value::Count(request.sector)),
            Note::new("bytes", Value::Count(request.bytes.into())),
            Note::new("sync", Value::Bool(request.is_sync())),
            Note::new("result", Value::Number(request.result.into())),
        ];
        if let Some(task) = self.tasks.get(&request.task) {
            notes.push(Note::new("made_by", Value::Word(&task.name)));
            notes.push(Note::new("made_by_pid", Value::Count(task.pid.into())));
            let title = task.title.as_deref();
            notes.extend(title.map(|title| Note::new("made_by_title", Value::Word(title))));
        }
        notes
    }
}

/// How far the host had come, for a while of a request.
#[derive(Debug, Clone, Copy)]
struct PhaseSlice {
    phase: Phase,
    start: HostNs,
    end: HostNs,
}

impl PhaseSlice {
    fn described<'a>(&self, of: &Breakdown) -> (&'static str, Vec<Note<'a>>) {
        let length_ns = self.end.since_ns(self.start);
        let total_ns = of.phases.of(self.phase).total_ns();
        // Of a request in several pieces, the host had none in flight for a while.
        let (name, pieces) = match self.phase {
            Phase::GuestQueue => ("guest queue", None),
            Phase::Queued => ("queued", None),
            Phase::Device if total_ns < length_ns => ("device, in pieces", Some(total_ns)),
            Phase::Device => ("device", None),
            Phase::Completed => ("completed", None),
            Phase::Unknown => ("phase unknown", None),
        };
        let vcpu = of.vcpus.of(self.phase);
        let vcpu = vcpu.map_or(Value::Word("unknown"), |vcpu| Value::Count(vcpu.0.into()));
        let acts = of.vcpus.is_waited_for(self.phase);
        let mut notes =
            vec![Note::new("vcpu", vcpu), Note::new("waits_for_vcpu", Value::Bool(acts))];
        let in_flight = pieces.map(|in_flight_ns| [in_flight_ns, length_ns - in_flight_ns]);
        if let Some([device_ns, between_ns]) = in_flight {
            notes.push(Note::new("device_ns", Value::Count(device_ns)));
            notes.push(Note::new("queued_between_pieces_ns", Value::Count(between_ns)));
        }
        (name, notes)
    }
}

/// The phases of a request, one after the other; those of no length are left out.
fn phases(of: &Breakdown) -> Vec<PhaseSlice> {
    let issued = of.issued.unwrap_or(of.start);
    let edges = match of.io {
        Ok(marks) => vec![
            (Phase::GuestQueue, issued),
            (Phase::Queued, marks.submitted),
            (Phase::Device, marks.completed),
            (Phase::Completed, of.end),
        ],
        Err(_) => vec![(Phase::GuestQueue, issued), (Phase::Unknown, of.end)],
    };
    let mut at = of.start;
    let phases = edges.into_iter().map(|(phase, until)| {
        let (start, end) = (at, until.min(of.end).max(at));
        at = end;
        PhaseSlice { phase, start, end }
    });
    phases.filter(|phase| phase.start < phase.end).collect()
}

/// The parts that a request has.
fn parts(parts: &PartsNs) -> Vec<Note<'static>> {
    let all = Part::ALL.into_iter().map(|part| (part.name(), parts.get(part)));
    let some = all.filter(|(_, ns)| *ns > 0);
    some.map(|(name, ns)| Note::new(name, Value::Count(ns))).collect()
}

const DESCRIPTION: &str = "Requests of the guest, as many tracks as were in flight at once. In each: how far the \
                           host had come, and what the vCPU's thread did that had to act, or while the disk \
                           works, the one that issued it.";
