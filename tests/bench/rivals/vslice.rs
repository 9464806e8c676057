//! vslice's recorder through its public interface; the only file of the bench that names it.

use super::{Recorded, Recording, Setting};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vslice_core::host_event::{HostEvent, HostEventKind};
use vslice_core::units::PcpuId;
use vslice_record::perf::{
    EventSink, RecordPlan, Recorder, SchedulerSource, SinkError, check_programs, check_rights,
};

/// What the plan is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watched {
    /// The idle VM and the pCPU that the ping-pong does not use.
    OtherPcpu,
    /// The idle VM and the ping-pong's pCPU: the ping-pong is somebody who runs there.
    Pcpu,
    /// The ping-pong's threads as vCPU threads, and their pCPU.
    VcpuThreads,
}

pub(super) fn missing(source: SchedulerSource) -> Option<String> {
    let rights = check_rights().err().map(|error| error.to_string());
    match source {
        SchedulerSource::Programs => rights.or_else(|| check_programs().err()),
        SchedulerSource::Tracepoints => rights,
    }
}

pub(super) fn start(
    watched: Watched,
    scheduler_source: SchedulerSource,
    setting: &Setting<'_>,
) -> anyhow::Result<Box<dyn Recording>> {
    let (vcpus, _) = setting.idle_vm.split_at(setting.idle_vm.len() / 2);
    let (vcpu_tids, vm_tids) = match watched {
        Watched::OtherPcpu | Watched::Pcpu => (vcpus.to_vec(), setting.idle_vm.to_vec()),
        Watched::VcpuThreads => {
            ([setting.players, vcpus].concat(), [setting.players, setting.idle_vm].concat())
        }
    };
    let pcpu = match watched {
        Watched::OtherPcpu => setting.places.others,
        Watched::Pcpu | Watched::VcpuThreads => setting.places.measured,
    };
    let plan = RecordPlan {
        vcpu_tids,
        vm_tids,
        pcpus: vec![pcpu],
        reader_pcpu: Some(setting.places.others),
        scheduler_source,
        ..RecordPlan::default()
    };
    let counts = Arc::new(Counts::default());
    let sink = sink(setting.places.measured, Arc::clone(&counts));
    Ok(Box::new(Running { recorder: Recorder::start(&plan, sink)?, counts }))
}

#[derive(Debug, Default)]
struct Counts {
    switches_count: AtomicU64,
    stacks_count: AtomicU64,
}

fn sink(measured: PcpuId, counts: Arc<Counts>) -> impl EventSink {
    move |pcpu: PcpuId, events: &[HostEvent]| -> Result<(), SinkError> {
        for event in events.iter().filter(|_| pcpu == measured) {
            if let HostEventKind::Switch(switch) = &event.kind {
                // ATOMICS: relaxed, because they are read after the thread that counts is joined.
                counts.switches_count.fetch_add(1, Ordering::Relaxed);
                counts.stacks_count.fetch_add(switch.stack.is_some().into(), Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

struct Running {
    recorder: Recorder,
    counts: Arc<Counts>,
}

impl Recording for Running {
    fn stop(self: Box<Self>) -> anyhow::Result<Recorded> {
        let totals = self.recorder.stop()?;
        if let Some(error) = totals.ended_early {
            return Err(error.into());
        }
        Ok(Recorded {
            switches_count: self.counts.switches_count.load(Ordering::Relaxed),
            stacks_count: self.counts.stacks_count.load(Ordering::Relaxed),
            lost_count: totals.counters.lost_count,
        })
    }
}
