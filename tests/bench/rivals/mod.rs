//! Who is measured, how each one is started and stopped, and what it recorded.

pub(crate) mod perf;
pub(crate) mod tool;
pub(crate) mod trace_cmd;
mod vslice;

use crate::machine::Places;
use ::vslice_core::units::Tid;
use ::vslice_record::perf::SchedulerSource;
use std::fmt;
use std::path::Path;
use vslice::Watched;

/// One way to record; or the price of a recording that is about others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rival {
    /// vslice, with BPF programs or as where there are none.
    Vslice(Watched, SchedulerSource),
    /// `perf record` on the ping-pong's pCPU.
    Perf(perf::Asked),
    /// `trace-cmd record` on the ping-pong's pCPU, in a tracefs instance of its own.
    TraceCmd(trace_cmd::Stacks),
}

/// In the order of the table.
pub(crate) const ALL: [Rival; 12] = [
    Rival::Vslice(Watched::OtherPcpu, SchedulerSource::Programs),
    Rival::Vslice(Watched::OtherPcpu, SchedulerSource::Tracepoints),
    Rival::Perf(perf::Asked::NothingPasses),
    Rival::Vslice(Watched::Pcpu, SchedulerSource::Programs),
    Rival::Vslice(Watched::Pcpu, SchedulerSource::Tracepoints),
    Rival::Perf(perf::Asked::Switches),
    Rival::TraceCmd(trace_cmd::Stacks::Without),
    Rival::Vslice(Watched::VcpuThreads, SchedulerSource::Programs),
    Rival::Vslice(Watched::VcpuThreads, SchedulerSource::Tracepoints),
    Rival::Perf(perf::Asked::Stacks),
    Rival::Perf(perf::Asked::StacksAndWakings),
    Rival::TraceCmd(trace_cmd::Stacks::With),
];

/// What a rival is to record of the ping-pong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// Nothing: it looks elsewhere, or rejects everything.
    Nothing,
    /// Every switch, without a stack.
    Switches,
    /// Every switch, with the kernel stack of the thread that leaves.
    Stacks,
}

/// What a rival needs to know.
#[derive(Debug)]
pub(crate) struct Setting<'a> {
    pub(crate) places: Places,
    /// The two threads of the ping-pong.
    pub(crate) players: &'a [Tid],
    /// Threads of a VM that sleeps; half of them are vCPU threads.
    pub(crate) idle_vm: &'a [Tid],
    /// Where recordings go.
    pub(crate) scratch: &'a Path,
}

/// What was recorded on the ping-pong's pCPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) switches_count: u64,
    /// Of those, or of all kernel stacks where the tool keeps them apart.
    pub(crate) stacks_count: u64,
    /// Records that found no room.
    pub(crate) lost_count: u64,
}

/// A rival at work; dropping it ends it too.
pub(crate) trait Recording {
    /// Ends it and says what it recorded.
    fn stop(self: Box<Self>) -> anyhow::Result<Recorded>;
}

impl Rival {
    /// Why it cannot be measured here.
    pub(crate) fn missing(self) -> Option<String> {
        match self {
            Rival::Vslice(_, source) => vslice::missing(source),
            Rival::Perf(_) => tool::missing("perf", "linux-perf"),
            Rival::TraceCmd(_) => tool::missing("trace-cmd", "trace-cmd"),
        }
    }

    /// Returns once it records.
    pub(crate) fn start(self, setting: &Setting<'_>) -> anyhow::Result<Box<dyn Recording>> {
        match self {
            Rival::Vslice(watched, source) => vslice::start(watched, source, setting),
            Rival::Perf(asked) => perf::start(asked, setting),
            Rival::TraceCmd(stacks) => trace_cmd::start(stacks, setting),
        }
    }

    pub(crate) fn expected(self) -> Expected {
        match self {
            Rival::Vslice(Watched::OtherPcpu, _) | Rival::Perf(perf::Asked::NothingPasses) => {
                Expected::Nothing
            }
            Rival::Vslice(Watched::VcpuThreads, _)
            | Rival::Perf(perf::Asked::Stacks | perf::Asked::StacksAndWakings)
            | Rival::TraceCmd(trace_cmd::Stacks::With) => Expected::Stacks,
            _ => Expected::Switches,
        }
    }

    /// What vslice may cost by its own limit (docs/costs.md).
    pub(crate) fn limit_ns(self) -> Option<f64> {
        let Rival::Vslice(watched, SchedulerSource::Programs) = self else { return None };
        Some(match watched {
            Watched::OtherPcpu => 100.0,
            Watched::Pcpu => 1200.0,
            Watched::VcpuThreads => 3100.0,
        })
    }
}

impl fmt::Display for Rival {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match *self {
            Rival::Vslice(watched, source) => name_of(watched, source),
            Rival::Perf(perf::Asked::NothingPasses) => "perf, filter rejects all",
            Rival::Perf(perf::Asked::Switches) => "perf, switches",
            Rival::Perf(perf::Asked::Stacks) => "perf -g, switches",
            Rival::Perf(perf::Asked::StacksAndWakings) => "perf -g, switches; wakings",
            Rival::TraceCmd(trace_cmd::Stacks::Without) => "trace-cmd, switches",
            Rival::TraceCmd(trace_cmd::Stacks::With) => "trace-cmd -T, switches",
        })
    }
}

fn name_of(watched: Watched, source: SchedulerSource) -> &'static str {
    match (watched, source) {
        (Watched::OtherPcpu, SchedulerSource::Programs) => "vslice, unrelated threads",
        (Watched::OtherPcpu, SchedulerSource::Tracepoints) => "vslice without BPF, unrelated",
        (Watched::Pcpu, SchedulerSource::Programs) => "vslice, strangers on a watched pCPU",
        (Watched::Pcpu, SchedulerSource::Tracepoints) => "vslice without BPF, strangers",
        (Watched::VcpuThreads, SchedulerSource::Programs) => {
            "vslice, vCPU threads: stacks, wakings"
        }
        (Watched::VcpuThreads, SchedulerSource::Tracepoints) => "vslice without BPF, vCPU threads",
    }
}
