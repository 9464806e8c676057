//! Who watches the guests' threads while the workloads run: the recorder of events, or a sampler.

use crate::error::RecordingError;
use crate::evidence::{EvidencePlan, note_missing};
use crate::kept::Kept;
use crate::perf::{KvmDetail, RecordError, RecordPlan, Recorder, StackTable, Symbols};
use crate::sampling::plan::SinkError;
use crate::sampling::{
    SampleContent, SampleRate, SampleSink, SampledThread, Sampler, SamplerPlan, ThreadVisibility,
    visibility_of,
};
use vslice_core::host_event::StackId;
use vslice_core::samples::SampleItem;
use vslice_core::units::{PcpuId, Tid};
use vslice_trace::evidence::{EvidenceLevel, KERNEL_SYMBOLS};
use vslice_trace::manifest::{Cost, Manifest, SamplingRecord, VmRecord};
use vslice_trace::{RunDir, StackNames, StoreError, StreamWriter, VmName};

/// One of the two, at work.
#[derive(Debug)]
pub(crate) enum HostRecorder {
    Recorder(Recorder),
    Sampler(Sampler),
}

impl HostRecorder {
    /// Starts the best one that `plan` allows and the host lets, on the collector's pCPU, if it has
    /// one; the manifest is told which. `record` starts a recorder.
    pub(crate) fn start(
        kept: &Kept,
        pcpu: Option<PcpuId>,
        mut plan: EvidencePlan,
        manifest: &mut Manifest,
        record: impl FnOnce(&Manifest) -> Result<Recorder, RecordingError>,
    ) -> Result<HostRecorder, RecordingError> {
        if plan.level() == EvidenceLevel::Recorded {
            match record(manifest) {
                Ok(recorder) => {
                    manifest.group_evidence = Some(recorder.group_evidence().clone());
                    manifest.evidence = plan.settle(ThreadVisibility::Both)?;
                    return Ok(HostRecorder::Recorder(recorder));
                }
                Err(RecordingError::Record(error)) => plan.fall(error)?,
                Err(error) => return Err(error),
            }
        }
        let threads = sampled_threads(manifest);
        let tids: Vec<Tid> = threads.iter().map(|thread| thread.tid).collect();
        let shown = match plan.level() {
            EvidenceLevel::Sampled => visibility_of(&tids),
            EvidenceLevel::Totals | EvidenceLevel::Recorded => ThreadVisibility::Nothing,
        };
        manifest.evidence = plan.settle(shown)?;
        let content = match manifest.evidence.level {
            EvidenceLevel::Totals => SampleContent::TotalsOnly,
            EvidenceLevel::Sampled | EvidenceLevel::Recorded => SampleContent::StatesAndTotals,
        };
        let streams = SampleStreams::create(kept, manifest)?;
        let sampler = Sampler::start(&SamplerPlan { threads, content, pcpu }, streams)?;
        Ok(HostRecorder::Sampler(sampler))
    }

    /// Whether it has ended by itself; [`HostRecorder::finish`] says why.
    pub(crate) fn has_ended(&self) -> bool {
        match self {
            HostRecorder::Recorder(recorder) => recorder.has_ended(),
            HostRecorder::Sampler(sampler) => sampler.has_ended(),
        }
    }

    /// How many threads were seen that are called as those of vCPUs are and that are none of the recorded VMs'.
    pub(crate) fn strange_vcpus_count(&self) -> u64 {
        match self {
            HostRecorder::Recorder(recorder) => recorder.counters().strange_vcpus_count,
            HostRecorder::Sampler(_) => 0,
        }
    }

    /// Ends it, and notes what it came to.
    pub(crate) fn finish(self, kept: &Kept, manifest: &mut Manifest) -> Result<(), RecordingError> {
        match self {
            HostRecorder::Recorder(recorder) => finish_recording(recorder, kept, manifest),
            HostRecorder::Sampler(sampler) => finish_sampling(sampler, kept, manifest),
        }
    }
}

/// What a recorder is asked for, to record the VMs of a manifest.
pub(crate) fn record_plan(
    manifest: &Manifest,
    kvm: KvmDetail,
    reader_pcpu: Option<PcpuId>,
) -> RecordPlan {
    let threads = || manifest.vms.iter().flat_map(|vm| &vm.threads);
    RecordPlan {
        vcpu_tids: threads().filter(|thread| thread.vcpu.is_some()).map(|t| t.tid).collect(),
        vm_tids: threads().map(|thread| thread.tid).collect(),
        pcpus: manifest.pcpus.clone(),
        kvm,
        disks: vslice_trace::recorded_disks::devices(&manifest.vms),
        reader_pcpu,
        ..RecordPlan::default()
    }
}

fn finish_recording(
    recorder: Recorder,
    kept: &Kept,
    manifest: &mut Manifest,
) -> Result<(), RecordingError> {
    let totals = recorder.stop();
    // What follows is the run's last words.
    kept.release_room();
    let totals = totals?;
    vslice_trace::recorded_disks::mark_unrecorded(manifest, &totals.missing);
    let cost: &mut Cost = &mut manifest.cost;
    cost.events_count = totals.counters.events_count;
    cost.lost_count = totals.counters.lost_count;
    cost.uncovered_threads_count = totals.uncovered_threads_count;
    cost.stacks_refused_count = totals.stacks.refused_count();
    cost.ring_bytes = totals.counters.ring_bytes;
    note_missing(&mut manifest.evidence, &totals.missing);
    let named = name_stacks(kept, &totals.stacks, manifest);
    totals.ended_early.map_or(named, |error: RecordError| Err(error.into()))
}

/// Stacks without names are less, and not a reason to throw away a run.
fn name_stacks(
    kept: &Kept,
    stacks: &StackTable,
    manifest: &mut Manifest,
) -> Result<(), RecordingError> {
    match Symbols::load() {
        Ok(symbols) => Ok(kept.write_stack_names(&stack_names(stacks, &symbols))?),
        Err(_) => {
            note_missing(&mut manifest.evidence, &[KERNEL_SYMBOLS]);
            Ok(())
        }
    }
}

fn finish_sampling(
    sampler: Sampler,
    kept: &Kept,
    manifest: &mut Manifest,
) -> Result<(), RecordingError> {
    let totals = sampler.stop();
    kept.release_room();
    let totals = totals?;
    manifest.sampling = Some(SamplingRecord {
        rounds_count: totals.rounds_count,
        looks_count: totals.looks_count,
        elapsed_ns: totals.elapsed_ns,
        own_ns: totals.own_ns,
    });
    totals.ended_early.map_or(Ok(()), |error| Err(error.into()))
}

/// All threads of the VMs: those that are no vCPUs may share a lock with them.
fn sampled_threads(manifest: &Manifest) -> Vec<SampledThread> {
    let of_vms = manifest.vms.iter().enumerate();
    let threads = of_vms.flat_map(|(vm, record)| {
        record.threads.iter().map(move |thread| {
            let rate = if thread.vcpu.is_some() {
                SampleRate::EveryRound
            } else {
                SampleRate::EveryTenthRound
            };
            SampledThread { vm, tid: thread.tid, rate }
        })
    });
    threads.collect()
}

/// The streams of all VMs in the run directory.
#[derive(Debug)]
struct SampleStreams(Vec<Option<StreamWriter<SampleItem>>>);

impl SampleStreams {
    fn create(kept: &Kept, manifest: &Manifest) -> Result<SampleStreams, StoreError> {
        let create = |vm: &VmRecord| {
            let create = |dir: &RunDir| {
                StreamWriter::create(&dir.samples_path(&VmName::try_from(vm.name.as_str())?))
            };
            kept.dir().map(create).transpose()
        };
        manifest.vms.iter().map(create).collect::<Result<_, _>>().map(SampleStreams)
    }
}

impl SampleSink for SampleStreams {
    fn item(&mut self, vm: usize, item: SampleItem) -> Result<(), SinkError> {
        Ok(self.0[vm].as_mut().map_or(Ok(()), |stream| stream.push(item))?)
    }

    fn tick(&mut self) -> Result<(), SinkError> {
        self.0.iter_mut().flatten().try_for_each(StreamWriter::tick)?;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.0.drain(..).flatten().try_for_each(StreamWriter::finish)?;
        Ok(())
    }
}

/// All stacks of a run by name; `symbols` are those of the boot that recorded them.
fn stack_names(stacks: &StackTable, symbols: &Symbols) -> Vec<StackNames> {
    let names = |(id, frames): (StackId, &[u64])| StackNames {
        id: id.0,
        frames: symbols.frame_names(frames),
    };
    stacks.iter().map(names).collect()
}
