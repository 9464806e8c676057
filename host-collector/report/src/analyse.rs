//! From a run directory to its summary: the pure layers, fed with what was recorded.

mod clocks;
#[cfg(any(test, feature = "example"))]
pub mod drawn;
mod facts;
mod hidden;
mod hog_check;
mod samples;
mod service;
mod threads;
mod tsc_offset_check;

use self::hidden::Hidden;
use self::samples::Samples;
use self::service::Service;
use self::tsc_offset_check::TscOffsetChecker;
use crate::summary::clock::{ClocksApart, VcpuClock};
use crate::summary::io::IoDisk;
use crate::summary::model::{Accelerator, Cost, Environment, Hog, Lost, RunStatus};
use crate::summary::{
    CommandLine, Facts, Names, Summary, SummaryBuilder, VmIndex, VmThreads, Warning,
};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use vslice_core::clock::RoundTrips;
use vslice_core::clock::tsc::TscSample;
use vslice_core::host_event::{HostEvent, HostEventKind, StackId};
use vslice_core::join::{Clocks, Join, Placed, SubmissionOrder, Submitter};
use vslice_core::task::Process;
use vslice_core::timeline::{
    RunMode, Span, StackTable, Tasks, ThreadState, Timeline, UnknownCause,
};
use vslice_core::units::{HostNs, PcpuId, Tid, VcpuId};
use vslice_trace::manifest::{GuestRecord, Manifest, SCHEMA, Status, VmRecord};
use vslice_trace::{
    ClockSample, EventMerge, RequestItem, RunDir, StackNames, StoreError, StreamReader, Tail,
    VmName, disk,
};
use vslice_wire::Request;

/// Why there is no summary of a run directory.
#[derive(Debug, thiserror::Error)]
pub enum AnalyseError {
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The run was recorded by a vslice that described runs in another way.
    #[error("its run.json has schema {found}, this vslice reads {SCHEMA}")]
    Schema {
        /// What it says.
        found: String,
    },
}

/// The summary of a run.
///
/// # Errors
/// When the directory is not a run's, or its files cannot be read. A run that ended early, or whose
/// collector was killed, has a summary that says so.
pub fn analyse(path: &Path) -> Result<Summary, AnalyseError> {
    let run = RunDir::open(path)?;
    let manifest = manifest_of(&run)?;
    let stacks = optional(run.read_stack_names())?;
    let (threads, unread) = threads::census(&run, "threads.json");
    let (came, came_unread) = threads::census(&run, "threads_end.json");
    let mut analysis = Analysis::new(&run, &manifest)?;
    analysis.warnings.extend(unread.into_iter().chain(came_unread));
    let tasks = threads::tasks(&manifest, &threads);
    let (end, timeline) = analysis.lay_out(&manifest, &stacks, tasks)?;
    let commands = threads::commands(&threads, &came, timeline.tasks());
    Ok(analysis.finish(&manifest, &stacks, (timeline.tasks(), commands), end))
}

/// The manifest of a run. Its schema is looked at first: a manifest of another one may not read at all, and
/// then that is why.
pub(crate) fn manifest_of(run: &RunDir) -> Result<Manifest, AnalyseError> {
    #[derive(serde::Deserialize)]
    struct Head {
        schema: String,
    }
    let Head { schema: found } = run.read_json("run.json")?;
    if found != SCHEMA {
        return Err(AnalyseError::Schema { found });
    }
    Ok(run.read_json("run.json")?)
}

/// The timelines of a run's VMs with all that its manifest knows, for whoever brings the events.
///
/// # Errors
/// As [`analyse`].
pub fn timeline(run: &RunDir, stacks: StackTable) -> Result<Timeline, AnalyseError> {
    Ok(facts::timeline(&manifest_of(run)?, stacks))
}

/// A file that a run writes late is not there when the run ended early.
fn optional<T: Default>(read: Result<T, StoreError>) -> Result<T, StoreError> {
    match read {
        Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(T::default())
        }
        other => other,
    }
}

/// The requests of one VM on their way to the join.
type Requests = Box<dyn Iterator<Item = Placed>>;

/// A run directory while it is read.
struct Analysis<'a> {
    run: &'a RunDir,
    builder: SummaryBuilder,
    joins: Vec<(VmIndex, Join<Requests>)>,
    clocks: Vec<VcpuClock>,
    clocks_apart: Vec<ClocksApart>,
    /// With the place of each vCPU among the clocks.
    tsc_offset_checks: Vec<(usize, TscOffsetChecker)>,
    service: Service,
    hidden: Hidden,
    /// Threads that kept their pCPU through the window, so that no event told of them.
    kept: HashMap<Tid, PcpuId>,
    lost: Lost,
    /// Up to here the losses are counted.
    lost_until: HostNs,
    kvm_events_count: u64,
    has_exits: bool,
    samples: Samples,
    /// Whether a stream ends without its writer's end.
    is_torn: bool,
    warnings: Vec<Warning>,
}

impl<'a> Analysis<'a> {
    fn new(run: &'a RunDir, manifest: &Manifest) -> Result<Self, AnalyseError> {
        let vms = manifest.vms.iter().map(vm_threads).collect();
        let start = manifest.window.map_or(HostNs(0), |window| window.start_ns);
        let mut analysis = Analysis {
            run,
            builder: SummaryBuilder::new(start, vms),
            joins: Vec::new(),
            clocks: Vec::new(),
            clocks_apart: Vec::new(),
            tsc_offset_checks: Vec::new(),
            service: Service::new(manifest),
            hidden: Hidden::new(watched_pcpus(manifest)),
            kept: kept(manifest),
            lost: Lost::default(),
            lost_until: HostNs(0),
            kvm_events_count: 0,
            has_exits: false,
            samples: samples::read(run, manifest)?,
            is_torn: false,
            warnings: Vec::new(),
        };
        analysis.warnings.extend(facts::uncovered(manifest));
        analysis.warnings.extend(facts::stacks_refused(manifest));
        analysis.warnings.extend(threads::left_out(&manifest.cost));
        let vms = manifest.vms.iter();
        analysis.warnings.extend(vms.filter_map(|vm| facts::throttled(manifest, vm)));
        analysis.warnings.extend(facts::stolen(manifest));
        analysis.warnings.extend(facts::no_window(manifest));
        let contradicted = std::mem::take(&mut analysis.samples.warnings);
        analysis.warnings.extend(contradicted);
        for (index, vm) in manifest.vms.iter().enumerate() {
            analysis.read_guest(VmIndex(index), vm, &manifest.host_tsc, start)?;
        }
        Ok(analysis)
    }

    /// Prepares the joins of one guest's requests, and what its clocks need for it.
    fn read_guest(
        &mut self,
        index: VmIndex,
        vm: &VmRecord,
        host_tsc: &[TscSample],
        start: HostNs,
    ) -> Result<(), AnalyseError> {
        for notice in vm.guest.iter().flat_map(|guest| &guest.notices) {
            self.warnings.push(Warning::Notice { text: format!("{}: {notice}", vm.name) });
        }
        let name = VmName::try_from(vm.name.as_str())?;
        let Some((trips, tail)) = optional(round_trips(self.run, &name).map(Some))? else {
            return Ok(());
        };
        self.warn_of_tail(vm, "clock exchanges", tail);
        let mut clocks = clocks::read(vm, &trips, host_tsc, start);
        let first_row = self.clocks.len();
        self.read_hogs(vm, &name, &trips, &mut clocks)?;
        self.warnings.extend(clocks.notices.into_iter().map(|text| Warning::Notice { text }));
        self.clocks_apart.extend(clocks.apart);
        self.tsc_offset_checks.extend(
            clocks.tsc_offset_checks.into_iter().map(|(row, checker)| (first_row + row, checker)),
        );
        self.clocks.extend(clocks.rows);
        if vm.reader_vcpu.is_none() {
            return Ok(());
        }
        let clocks = Rc::new(clocks.clocks);
        let submitted_on = self.read_requests(index, vm, &name, &clocks)?;
        for row in &mut self.clocks[first_row..] {
            row.requests = submitted_on.get(&row.vcpu).copied().unwrap_or(0);
        }
        for vcpu in submitted_on.into_keys() {
            let thread = vm.threads.iter().find(|thread| thread.vcpu == Some(vcpu));
            let Some(tid) = thread.map(|thread| thread.tid) else { continue };
            let requests = SubmissionOrder::new(requests(self.run, &name)?);
            let clocks = Rc::clone(&clocks);
            let placed = requests.filter_map(move |request| clocks.place(request).ok());
            let mut join = Join::new(vcpu, tid, Box::new(placed) as Requests);
            if let Some(target) = disk::target(vm) {
                join = join.with_target(target);
            }
            self.joins.push((index, join));
        }
        Ok(())
    }

    fn warn_of_tail(&mut self, vm: &VmRecord, what: &str, tail: Tail) {
        let Tail::Torn { bytes } = tail else { return };
        self.is_torn = true;
        // Without a half block nothing is known to be missing; that the run did not end is said anyway.
        if bytes > 0 {
            let text = format!(
                "{}: the stored {what} were cut off; {bytes} bytes after the last whole block were \
                 left out",
                vm.name
            );
            self.warnings.push(Warning::Notice { text });
        }
    }

    /// Counts what no join will see: requests that were dropped, and those that have no place on
    /// the host's clock. Returns how many of the others were submitted on each vCPU.
    fn read_requests(
        &mut self,
        index: VmIndex,
        vm: &VmRecord,
        name: &VmName,
        clocks: &Clocks,
    ) -> Result<BTreeMap<VcpuId, u64>, StoreError> {
        let mut submitted_on = BTreeMap::new();
        let mut stream = StreamReader::<RequestItem>::open(&self.run.requests_path(name))?;
        while let Some(block) = stream.next_block()? {
            for item in block {
                match item {
                    RequestItem::Dropped(dropped) => self.builder.dropped(dropped.count),
                    RequestItem::Request(request) => match clocks.place(request) {
                        Ok(placed) => {
                            let vcpu = VcpuId(placed.request.vcpu_submitted);
                            *submitted_on.entry(vcpu).or_insert(0) += 1;
                        }
                        Err(why) => self.builder.unplaced(index, &request, why),
                    },
                }
            }
        }
        if let Some(tail) = stream.tail() {
            self.warn_of_tail(vm, "requests", tail);
        }
        Ok(submitted_on)
    }

    /// Runs the events through the timelines and the joins; returns the end of the window.
    fn lay_out(
        &mut self,
        manifest: &Manifest,
        stacks: &[StackNames],
        tasks: Tasks,
    ) -> Result<(HostNs, Timeline), AnalyseError> {
        let mut table = StackTable::default();
        for stack in stacks {
            table.push(stack.frames.clone());
        }
        let mut timeline = facts::timeline(manifest, table).naming(tasks);
        let start = manifest.window.map_or(HostNs(0), |window| window.start_ns);
        let planned_end = manifest.window.and_then(|window| window.end_ns);
        let end = planned_end.unwrap_or(HostNs(u64::MAX));
        let mut now = start;
        let mut events = EventMerge::open(self.run)?;
        let watched = watched_pcpus(manifest);
        // Where nothing at all is left, no event comes by at which it would be seen.
        let mut ended_count = events.ended_count();
        let mut cut = cut_pcpu(&events, &watched);
        let loss = cut.map(|pcpu| self.cut(manifest, pcpu, start, start));
        if let Some(loss) = loss {
            timeline.push(&loss, &mut |span| self.span(&span, start, end));
        }
        // What was contradicted before the window concerns no request.
        let mut contradictions_before = 0;
        let mut events_count = 0;
        while let Some(event) = events.next() {
            let event = event?;
            now = event.time;
            self.service.learn(&event);
            self.hidden.learn(&event);
            self.io(manifest, &event, timeline.tasks());
            self.count_lost(&event, start, end);
            self.kvm_events_count += u64::from(matches!(event.kind, HostEventKind::Kvm { .. }));
            timeline.push(&event, &mut |span| self.span(&span, start, end));
            if now < start {
                contradictions_before = timeline.contradictions().count();
            } else {
                events_count += 1;
            }
            self.exits(&mut timeline, start, end);
            self.lock_waits(&mut timeline, start, end);
            if cut.is_none() && events.ended_count() != ended_count {
                ended_count = events.ended_count();
                cut = cut_pcpu(&events, &watched);
                let loss = cut.map(|pcpu| self.cut(manifest, pcpu, now, start));
                if let Some(loss) = loss {
                    timeline.push(&loss, &mut |span| self.span(&span, start, end));
                }
            }
        }
        timeline.finish(now, &mut |span| self.span(&span, start, end));
        self.lock_waits(&mut timeline, start, end);
        let contradictions = timeline.contradictions().count() - contradictions_before;
        self.warnings.extend(facts::contradicted(contradictions, events_count));
        self.warnings.extend(facts::no_exits(manifest, self.has_exits));
        for (vm, join) in self.joins.drain(..) {
            join.finish(&mut |breakdown| self.builder.breakdown(vm, breakdown));
        }
        Ok((planned_end.unwrap_or(now.max(self.samples.last)), timeline))
    }

    /// Counts what was lost within the window, stretches on several pCPUs once where they overlap.
    fn count_lost(&mut self, event: &HostEvent, start: HostNs, end: HostNs) {
        let HostEventKind::Lost { until, count } = event.kind else { return };
        if until <= start || event.time >= end {
            return;
        }
        self.lost.records = self.lost.records.saturating_add(count);
        self.lost.intervals += 1;
        // They come in the order in which they began.
        let (from, until) = (event.time.max(start).max(self.lost_until), until.min(end));
        self.lost.total_ns = self.lost.total_ns.saturating_add(until.since_ns(from));
        self.lost_until = self.lost_until.max(until);
    }

    /// The record of a pCPU ends here without its end: from here on it is as if the kernel had lost
    /// everything.
    fn cut(&mut self, manifest: &Manifest, pcpu: PcpuId, now: HostNs, start: HostNs) -> HostEvent {
        let text = format!(
            "the scheduler events of {pcpu} were cut off after {:.3} s; the time after that counts as \
             lost",
            now.since_ns(start) as f64 / 1e9
        );
        self.warnings.push(Warning::Notice { text });
        self.is_torn = true;
        let kind = HostEventKind::Lost { until: HostNs(u64::MAX), count: 0 };
        let loss = HostEvent { time: now, pcpu, kind };
        self.io(manifest, &loss, &Tasks::default());
        loss
    }

    /// A span that touches the window counts whole: cut at its edges, it would be a timeslice that
    /// never was.
    fn span(&mut self, span: &Span, start: HostNs, end: HostNs) {
        let kept = self.kept.get(&span.tid).filter(|_| {
            matches!(span.state, ThreadState::Unknown { cause: UnknownCause::NotYetSeen })
        });
        let on = kept.map(|pcpu| Span {
            state: ThreadState::Running { pcpu: *pcpu, mode: RunMode::Unsplit },
            ..span.clone()
        });
        let span = on.as_ref().unwrap_or(span);
        if span.end > start && span.start < end {
            self.builder.span(span);
        }
        for (vm, join) in &mut self.joins {
            join.push_span(span, &mut |breakdown| self.builder.breakdown(*vm, breakdown));
        }
        self.tsc_offset_checks.iter_mut().for_each(|(_, checker)| checker.push(span));
    }

    /// Tells the joins how far recording has come, and what their disks did.
    fn io(&mut self, manifest: &Manifest, event: &HostEvent, tasks: &Tasks) {
        for (vm, join) in &mut self.joins {
            match &event.kind {
                HostEventKind::Block(block) => {
                    let disk = manifest.vms.get(vm.0).and_then(|vm| vm.disk.as_ref());
                    let whole = disk.and_then(|disk| disk.whole_disk.as_ref());
                    if whole.is_some_and(|whole| whole.device == block.device) {
                        let is_own = tasks.vm_of(block.tid) == Some(*vm);
                        let submitter = if is_own { Submitter::OwnVm } else { Submitter::Other };
                        join.push_io(event.time, block, submitter);
                    }
                }
                HostEventKind::Lost { until, .. } => join.lost(event.time, *until),
                _ => {}
            }
            join.advance(event.time);
        }
    }

    fn lock_waits(&mut self, timeline: &mut Timeline, start: HostNs, end: HostNs) {
        for wait in timeline.take_lock_waits() {
            if wait.end > start && wait.start < end {
                self.builder.lock_wait(&wait);
            }
        }
    }

    /// An exit that touches the window counts whole, as spans do.
    fn exits(&mut self, timeline: &mut Timeline, start: HostNs, end: HostNs) {
        for exit in timeline.take_exits() {
            if exit.end > start && exit.start < end {
                self.builder.exit(&exit);
                self.has_exits = true;
            }
        }
    }

    fn finish(
        mut self,
        manifest: &Manifest,
        stacks: &[StackNames],
        (tasks, commands): (&Tasks, HashMap<Process, CommandLine>),
        end: HostNs,
    ) -> Summary {
        for (row, checker) in self.tsc_offset_checks {
            self.clocks[row].kvm_check = checker.check;
        }
        let stacks = stacks.iter().map(|stack| (StackId(stack.id), stack.frames.clone()));
        let names = Names {
            threads: tasks.all().map(|(tid, task)| (tid, Arc::clone(task))).collect(),
            commands,
            stacks: stacks.collect(),
            devices: manifest.vms.iter().map(|vm| vm.memory_map.clone()).collect(),
        };
        let start = manifest.window.map_or(end, |window| window.start_ns);
        let facts = Facts {
            plan: manifest.plan_name.clone(),
            status: status(&manifest.status, self.is_torn),
            accelerator: Accelerator {
                name: manifest.accelerators_label(),
                reason: manifest.accelerator_reason.clone(),
            },
            environment: environment(manifest),
            measured_ns: end.since_ns(start),
            clocks: self.clocks,
            clocks_apart: self.clocks_apart,
            disks: manifest.vms.iter().filter_map(io_disk).collect(),
            hidden: self.hidden.into_rows(|tid| Some(names.threads.get(&tid)?.name.clone())),
            hogs: manifest.vms.iter().flat_map(hogs).collect(),
            service: self.service.into_rows(),
            lost: self.lost,
            evidence: manifest.evidence.clone(),
            sampled: self.samples.sampled,
            scheduled: self.samples.scheduled,
            cost: Cost {
                collector_cpu_ns: manifest.cost.cpu_ns,
                collector_run_delay_ns: manifest.cost.run_delay_ns,
                events: manifest.cost.events_count,
                kvm_events: self.kvm_events_count,
                bytes: manifest.cost.written_bytes,
            },
            warnings: self.warnings,
        };
        self.builder.finish(facts, &names)
    }
}

fn vm_threads(vm: &VmRecord) -> VmThreads {
    let vcpus = vm.threads.iter().filter_map(|thread| Some((thread.vcpu?, thread.tid)));
    let mut vcpus: Vec<_> = vcpus.collect();
    vcpus.sort_unstable();
    let quotas = vcpus.iter().filter_map(|(vcpu, _)| Some((*vcpu, facts::quota_use(vm, *vcpu)?)));
    let quotas = quotas.collect();
    VmThreads { name: vm.name.clone(), block_bytes: vm.block_bytes, vcpus, quotas }
}

fn kept(manifest: &Manifest) -> HashMap<Tid, PcpuId> {
    let threads = manifest.vms.iter().flat_map(|vm| &vm.threads);
    threads.filter_map(|thread| Some((thread.tid, thread.kept?))).collect()
}

/// The pCPUs on which every switch is recorded.
fn watched_pcpus(manifest: &Manifest) -> HashSet<PcpuId> {
    let pinned = manifest.vms.iter().flat_map(|vm| &vm.threads).filter_map(|thread| thread.pinned);
    pinned.chain(manifest.pcpus.iter().copied()).collect()
}

/// A watched pCPU whose record has come to its end, but not to the one that its writer makes. The
/// others' records of a run that was killed may go on for a second or so. On pCPUs that are not
/// watched next to nothing happens, so the end of their record says little.
fn cut_pcpu(events: &EventMerge, watched: &HashSet<PcpuId>) -> Option<PcpuId> {
    let tails = events.tails().into_iter();
    let mut cut = tails.filter(|(pcpu, tail)| *tail != Tail::Finished && watched.contains(pcpu));
    cut.next().map(|(pcpu, _)| pcpu)
}

/// The clock exchanges with one guest, and how their stream ends.
fn round_trips(run: &RunDir, vm: &VmName) -> Result<(RoundTrips, Tail), StoreError> {
    let mut stream = StreamReader::<ClockSample>::open(&run.clock_path(vm))?;
    let mut trips = RoundTrips::default();
    while let Some(block) = stream.next_block()? {
        block.iter().for_each(|sample| trips.push(sample.vcpu, sample.exchange));
    }
    Ok((trips, stream.tail().unwrap_or(Tail::Finished)))
}

/// The requests of one guest as they are stored. A stream that turns out to be unreadable midway
/// ends there; `read_requests`, which has read it before, has said so.
fn requests(run: &RunDir, vm: &VmName) -> Result<Box<dyn Iterator<Item = Request>>, StoreError> {
    let mut stream = StreamReader::<RequestItem>::open(&run.requests_path(vm))?;
    let blocks = std::iter::from_fn(move || stream.next_block().ok().flatten());
    let requests = blocks.flatten().filter_map(|item| match item {
        RequestItem::Request(request) => Some(request),
        RequestItem::Dropped(_) => None,
    });
    Ok(Box::new(requests))
}

fn status(status: &Status, is_torn: bool) -> RunStatus {
    match status {
        Status::Complete if is_torn => RunStatus::Partial {
            reason: String::from(
                "it came to its end, but its files were cut off: the host died before they were on \
                 its disk, or somebody cut them",
            ),
        },
        Status::Complete => RunStatus::Complete,
        Status::Partial { why } => RunStatus::Partial { reason: why.clone() },
        Status::Recording => RunStatus::Partial {
            reason: String::from(
                "its collector ended without closing it: it was killed, or it still runs",
            ),
        },
    }
}

fn environment(manifest: &Manifest) -> Environment {
    let mut vms = manifest.vms.clone();
    // A file may be in thousands of pieces, of which nobody wants to read.
    vms.iter_mut().filter_map(|vm| vm.disk.as_mut()).for_each(|disk| disk.extents.clear());
    let mut lines = manifest.environment_lines.clone();
    lines.extend(manifest.vms.iter().filter_map(|vm| Some(guest_line(vm, vm.guest.as_ref()?))));
    lines.extend(manifest.vms.iter().filter_map(scheduling_line));
    if let Some(line) = manifest.frequency.line(&manifest.pcpus) {
        lines.push(format!("the pCPUs of the run at {line}"));
    }
    lines.push(format!("way to the guests: {}", manifest.vsock_way));
    let details = serde_json::json!({
        "host": manifest.environment,
        "image": manifest.image,
        "plan": manifest.plan,
        "vms": vms,
    });
    Environment { lines, details }
}

fn guest_line(vm: &VmRecord, guest: &GuestRecord) -> String {
    let mut line = format!("{}: guest kernel {}", vm.name, guest.kernel_release);
    let clock_source = guest.clock_source.as_ref();
    line.extend(clock_source.map(|name| format!(", clock source {name}")));
    if !guest.target.is_empty() {
        line.push_str(&format!(", reads {}", guest.target));
        let scheduler = guest.io_scheduler.as_ref();
        line.extend(scheduler.map(|name| format!(" (I/O scheduler {name})")));
    }
    line
}

/// How the threads compete for their pCPUs, those together that do so alike.
fn scheduling_line(vm: &VmRecord) -> Option<String> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for thread in &vm.threads {
        let Some(scheduling) = thread.scheduling.as_ref().map(ToString::to_string) else {
            continue;
        };
        match groups.iter_mut().find(|(other, _)| *other == scheduling) {
            Some((_, roles)) => roles.push(thread.role.to_string()),
            None => groups.push((scheduling, vec![thread.role.to_string()])),
        }
    }
    let text = match groups.as_slice() {
        [] => return None,
        [(all, _)] => format!("all threads {all}"),
        groups => {
            let group = |(scheduling, roles): &(String, Vec<String>)| {
                let mut roles = roles.clone();
                roles.dedup();
                format!("{} {scheduling}", roles.join(" and "))
            };
            groups.iter().map(group).collect::<Vec<_>>().join(", ")
        }
    };
    Some(format!("{}: {text}", vm.name))
}

fn io_disk(vm: &VmRecord) -> Option<IoDisk> {
    let disk = vm.disk.as_ref()?;
    let whole = disk.whole_disk.as_ref().filter(|_| disk.missing.is_none());
    Some(IoDisk {
        vm: vm.name.clone(),
        device: whole.map(|whole| whole.name.clone()),
        reason: disk.missing.clone(),
        unmapped_reason: disk.extents_missing.clone(),
    })
}

/// The hogs by the plan; one that the guest never mentioned has not counted. Of a guest whose word
/// was not kept, as its collector was killed, nobody knows.
fn hogs(vm: &VmRecord) -> impl Iterator<Item = Hog> {
    let pairs = vm.guest.iter().flat_map(|guest| vm.hogs.iter().map(move |vcpu| (guest, *vcpu)));
    pairs.map(|(guest, vcpu)| {
        let records = guest.hogs.iter().filter(|hog| hog.vcpu == vcpu);
        let count = records.map(|hog| hog.count).max().unwrap_or(0);
        Hog { vm: vm.name.clone(), vcpu, count }
    })
}

#[cfg(test)]
mod any_run_tests;
#[cfg(test)]
mod sampled_tests;
#[cfg(test)]
mod tests;
