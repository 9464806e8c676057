//! The observer that adds a run up to its summary.

mod environment;
mod hidden_tasks;
mod host_io;
mod losses;
mod observations;
mod pcpu_use;
mod run_warnings;
mod sampled;
mod service_threads;

use self::environment::environment;
use self::hidden_tasks::HiddenTasks;
use self::losses::Losses;
use self::pcpu_use::PcpuUses;
use self::sampled::Samples;
use self::service_threads::ServiceThreads;
use super::chosen::Chosen;
use super::observer::{MeasuredWindow, Observer, Run, RunEnd};
use super::pass;
use super::timeline_facts::quota_use;
use crate::summary::advice::Setup;
use crate::summary::big_lock::BigLock;
use crate::summary::host_io::HostIoTally;
use crate::summary::io::IoDisk;
use crate::summary::model::{Accelerator, Cost, Hog, RunFacts, RunStatus};
use crate::summary::told::Teller;
use crate::summary::{Facts, Names, Summary, SummaryBuilder, VmIndex, VmThreads};
use std::sync::Arc;
use vslice_core::host_event::{HostEvent, HostEventKind, StackId};
use vslice_core::host_view::ViewedIo;
use vslice_core::join::{Breakdown, GuestRequest, Unplaced};
use vslice_core::samples::SampleItem;
use vslice_core::text::harmless;
use vslice_core::timeline::{Exit, LockWait, Span, Tasks};
use vslice_trace::manifest::{Status, VmRecord};
use vslice_wire::Dropped;

/// Adds up a run, in memory that does not grow with it.
#[derive(Debug, Default)]
pub struct SummaryObserver {
    totals: Option<Totals>,
    summary: Option<Summary>,
}

impl SummaryObserver {
    /// The summary, once the run has come to its end.
    #[must_use]
    pub fn into_summary(self) -> Option<Summary> {
        self.summary
    }
}

/// What a run comes to so far.
#[derive(Debug)]
struct Totals {
    window: MeasuredWindow,
    chosen: Chosen,
    builder: SummaryBuilder,
    service: ServiceThreads,
    hidden: HiddenTasks,
    losses: Losses,
    pcpus: PcpuUses,
    host_io: HostIoTally,
    samples: Samples,
    kvm_events_count: u64,
    has_exits: bool,
}

impl Totals {
    fn new(run: &Run<'_>) -> Totals {
        let Run { manifest, window, chosen, .. } = *run;
        Totals {
            window,
            chosen: chosen.clone(),
            builder: builder(run).with_observations(observations::of(manifest, chosen)),
            service: ServiceThreads::new(manifest, chosen),
            hidden: HiddenTasks::new(pass::watched_pcpus(manifest)),
            losses: Losses::default(),
            pcpus: PcpuUses::new(pass::watched_pcpus(manifest), chosen.stretch()),
            host_io: HostIoTally::new(window.start),
            samples: Samples::new(manifest, chosen.stretch()),
            kvm_events_count: 0,
            has_exits: false,
        }
    }

    fn into_summary(self, run: &Run<'_>, end: &RunEnd<'_>) -> Summary {
        let (manifest, chosen) = (run.manifest, run.chosen);
        let samples = self.samples.finish(manifest, chosen);
        let has_exits = self.has_exits || end.left_out.exits > 0;
        let mut warnings = run_warnings::of_run(run, end, has_exits);
        warnings.extend(samples.warnings);
        let names = names(run, end);
        let start = manifest.window.map_or(end.window_end, |window| window.start_ns);
        let stretch_start = chosen.stretch().start.max(start);
        let vms = || manifest.vms.iter().enumerate().filter(|(vm, _)| chosen.has_vm(VmIndex(*vm)));
        let is_told = |name: &str| vms().any(|(_, vm)| vm.name == name);
        let facts = Facts {
            run: RunFacts {
                plan: manifest.plan_name.clone(),
                status: status(&manifest.status, end.is_torn),
                accelerator: Accelerator {
                    name: manifest.accelerators_label(),
                    reason: manifest.accelerator_reason.clone(),
                },
                environment: environment(manifest),
                measured_ns: chosen.end(end.window_end).since_ns(stretch_start),
                selection: chosen.told([start, end.window_end], end.left_out),
                hogs: vms().flat_map(|(_, vm)| hogs(vm)).collect(),
                service: self.service.into_rows(),
                pcpus: self.pcpus.into_rows(),
                lost: self.losses.lost,
                host_io: host_io::host_io(self.host_io, manifest, chosen),
                big_locks: big_locks(run),
                evidence: manifest.evidence.clone(),
                control_groups: manifest.group_evidence.clone().unwrap_or_default(),
                sampled: samples.sampled,
                scheduled: samples.scheduled,
                cost: Cost {
                    collector_cpu_ns: manifest.cost.cpu_ns,
                    collector_run_delay_ns: manifest.cost.run_delay_ns,
                    events: manifest.cost.events_count,
                    kvm_events: self.kvm_events_count,
                    bytes: manifest.cost.written_bytes,
                },
                warnings,
            },
            clocks: end.clocks.iter().filter(|row| is_told(&row.vm)).cloned().collect(),
            clocks_apart: end.clocks_apart.iter().filter(|row| is_told(&row.vm)).cloned().collect(),
            disks: vms().filter_map(|(_, vm)| io_disk(vm)).collect(),
            setup: Setup::of(manifest),
            hidden: self.hidden.into_rows(|tid| Some(names.threads.get(&tid)?.name.clone())),
        };
        let mut summary = self.builder.finish(facts, &names);
        forget_rates(&mut summary, chosen);
        summary
    }
}

/// Some of the requests are no measure of how many there were in the time, nor of what was spent for all.
fn forget_rates(summary: &mut Summary, chosen: &Chosen) {
    if chosen.has_limits() || chosen.is_stretch() && summary.requests.dropped > 0 {
        summary.requests.iops = None;
    }
    let guests = summary.observed.iter_mut().flat_map(|observed| &mut observed.guests);
    for cost in guests.filter_map(|guest| guest.cost.as_mut()).filter(|_| chosen.picks_requests()) {
        cost.cpu_ns_per_request = None;
    }
}

impl Observer for SummaryObserver {
    fn start(&mut self, run: &Run<'_>) {
        self.totals = Some(Totals::new(run));
    }

    fn sample(&mut self, vm: VmIndex, sample: &SampleItem) {
        if let Some(totals) = &mut self.totals {
            totals.samples.push(vm, sample);
        }
    }

    fn event(&mut self, event: &HostEvent, _tasks: &Tasks) {
        let Some(totals) = &mut self.totals else { return };
        totals.service.learn(event);
        totals.hidden.learn(event);
        totals.losses.learn(event, &totals.chosen.stretch());
        totals.pcpus.learn(event);
        totals.kvm_events_count += u64::from(matches!(event.kind, HostEventKind::Kvm { .. }));
    }

    fn span(&mut self, span: &Span) {
        let Some(totals) = &mut self.totals else { return };
        if totals.window.touches(span.start, span.end) {
            totals.builder.span(span);
        }
    }

    fn lock_wait(&mut self, wait: &LockWait) {
        let Some(totals) = &mut self.totals else { return };
        if totals.window.touches(wait.start, wait.end) {
            totals.builder.lock_wait(wait);
        }
    }

    fn exit(&mut self, exit: &Exit) {
        let Some(totals) = &mut self.totals else { return };
        if totals.window.touches(exit.start, exit.end) {
            totals.builder.exit(exit);
            totals.has_exits = true;
        }
    }

    fn request(&mut self, vm: VmIndex, breakdown: &Breakdown) {
        if let Some(totals) = &mut self.totals {
            totals.builder.breakdown(vm, breakdown);
        }
    }

    fn host_io(&mut self, vm: VmIndex, disk: Option<usize>, io: &ViewedIo) {
        let Some(totals) = &mut self.totals else { return };
        if totals.window.contains(io.submitted) {
            totals.host_io.push(vm.0, disk, io);
        }
    }

    fn unplaced_request(&mut self, vm: VmIndex, request: &GuestRequest, why: Unplaced) {
        if let Some(totals) = &mut self.totals {
            totals.builder.unplaced(vm, request, why);
        }
    }

    fn dropped_requests(&mut self, _vm: VmIndex, dropped: &Dropped) {
        if let Some(totals) = &mut self.totals {
            totals.builder.dropped(dropped.count);
        }
    }

    fn lost_observed(&mut self, vm: VmIndex, lost: &Dropped) {
        if let Some(totals) = &mut self.totals {
            totals.builder.lost_observed(vm, lost);
        }
    }

    fn end(&mut self, run: &Run<'_>, end: &RunEnd<'_>) {
        self.summary = self.totals.take().map(|totals| totals.into_summary(run, end));
    }
}

/// Tells of single requests and threads of a run, now that all of it was read.
#[must_use]
pub fn teller(run: &Run<'_>, end: &RunEnd<'_>) -> Teller {
    let vms = run.manifest.vms.iter().map(vm_threads).collect();
    Teller::new(run.window.start, names(run, end), vms, observations::of(run.manifest, run.chosen))
}

/// What adds up the spans and requests of the part that is told.
fn builder(run: &Run<'_>) -> SummaryBuilder {
    let mut vms: Vec<VmThreads> = run.manifest.vms.iter().map(vm_threads).collect();
    if run.chosen.is_stretch() {
        // They were counted over all of the run.
        vms.iter_mut().for_each(|vm| vm.quotas.clear());
    }
    let vcpus = vms.iter().flat_map(|vm| &vm.vcpus).map(|(_, tid)| *tid);
    let untold = vcpus.filter(|tid| !run.chosen.has_thread(*tid)).collect();
    SummaryBuilder::new(run.window.start, vms).without_rows_of(untold)
}

fn big_locks(run: &Run<'_>) -> Vec<BigLock> {
    let vms = run.manifest.vms.iter().enumerate();
    let vms = vms.filter(|(place, _)| run.chosen.has_vm(VmIndex(*place)));
    let locks = vms.filter_map(|(place, vm)| BigLock::of(vm, run.locks.get(place).copied()?));
    locks.collect()
}

fn names(run: &Run<'_>, end: &RunEnd<'_>) -> Names {
    let stacks = run.stacks.iter().map(|stack| (StackId(stack.id), stack.frames.clone()));
    Names {
        threads: end.tasks.all().map(|(tid, task)| (tid, Arc::clone(task))).collect(),
        commands: end.commands.clone(),
        stacks: stacks.collect(),
        devices: run.manifest.vms.iter().map(|vm| vm.memory_map.clone()).collect(),
        groups: end.tasks.groups().clone(),
        other_vms: run.manifest.other_vms.iter().map(|vm| harmless(&vm.name)).collect(),
    }
}

fn vm_threads(vm: &VmRecord) -> VmThreads {
    let vcpus = vm.threads.iter().filter_map(|thread| Some((thread.vcpu?, thread.tid)));
    let mut vcpus: Vec<_> = vcpus.collect();
    vcpus.sort_unstable();
    let quotas = vcpus.iter().filter_map(|(vcpu, _)| Some((*vcpu, quota_use(vm, *vcpu)?)));
    let quotas = quotas.collect();
    VmThreads { name: vm.name.clone(), block_bytes: vm.block_bytes, vcpus, quotas }
}

fn status(status: &Status, is_torn: bool) -> RunStatus {
    match status {
        Status::Complete if is_torn => RunStatus::Partial {
            reason: String::from(
                "it completed, but its files were cut off: the host died before they were on its disk, or \
                 they were truncated",
            ),
        },
        Status::Complete => RunStatus::Complete,
        Status::Partial { why } => RunStatus::Partial { reason: why.clone() },
        Status::Recording => RunStatus::Partial {
            reason: String::from(
                "its collector did not finish it: it was killed, or it is still running",
            ),
        },
    }
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
