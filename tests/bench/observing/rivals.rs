//! Who observes, how each one is started and stopped, and what it recorded.

use super::agent;
use crate::machine::Places;
use crate::rivals::{perf, tool, trace_cmd};
use std::fmt;
use std::path::Path;

/// One way to see the block requests of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rival {
    /// vslice's agent, which tells of each request.
    Each,
    /// vslice's agent, which tells of those that took a second.
    Slow,
    /// `perf record` of the same tracepoints.
    Perf,
    /// `trace-cmd record` of the same tracepoints, in a tracefs instance of its own.
    TraceCmd,
}

/// In the order of the table.
pub(crate) const ALL: [Rival; 4] = [Rival::Each, Rival::Slow, Rival::Perf, Rival::TraceCmd];

/// What tells of a request's beginning, of its way to the driver, and of its end.
const TRACEPOINTS: [&str; 3] =
    ["block/block_bio_queue", "block/block_rq_issue", "block/block_rq_complete"];

/// What a rival needs to know.
#[derive(Debug)]
pub(crate) struct Setting<'a> {
    pub(crate) places: Places,
    /// The device that is read, as `/sys/block` names it.
    pub(crate) device: &'a str,
    /// The agent's program.
    pub(crate) agent: &'a Path,
    /// Where recordings go: in memory, so that they are no requests.
    pub(crate) scratch: &'a Path,
}

/// What was recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) requests_count: u64,
    /// Events that found no room.
    pub(crate) lost_count: u64,
}

/// A rival at work; dropping it ends it too.
pub(crate) enum Recording {
    Agent(Box<agent::Observer>),
    Perf(perf::Running),
    TraceCmd(trace_cmd::Running, Places),
}

impl Rival {
    /// Why it cannot be measured here.
    pub(crate) fn missing(self, agent: &Path) -> Option<String> {
        match self {
            Rival::Each | Rival::Slow if agent.exists() => None,
            Rival::Each | Rival::Slow => Some(format!("no {}: run make build", agent.display())),
            Rival::Perf => tool::missing("perf", "linux-perf"),
            Rival::TraceCmd => tool::missing("trace-cmd", "trace-cmd"),
        }
    }

    /// Returns once it records.
    pub(crate) fn start(self, setting: &Setting<'_>) -> anyhow::Result<Recording> {
        match self {
            Rival::Each => Ok(Recording::Agent(Box::new(agent::Observer::start(setting, 0)?))),
            Rival::Slow => {
                Ok(Recording::Agent(Box::new(agent::Observer::start(setting, 1_000_000)?)))
            }
            Rival::Perf => {
                // Rings of perf's own size: of larger ones it leaves more unread at the end.
                let events = TRACEPOINTS.map(|event| event.replace('/', ":")).join(",");
                let arguments = ["--all-cpus", "--mmap-pages", "512K", "-e", &events];
                Ok(Recording::Perf(perf::record(&arguments, setting.scratch)?))
            }
            Rival::TraceCmd => {
                let running = trace_cmd::record(&[], &TRACEPOINTS, setting.scratch)?;
                Ok(Recording::TraceCmd(running, setting.places))
            }
        }
    }
}

impl Recording {
    /// The CPU time so far of its program and of what that has started.
    pub(crate) fn processor_ns(&self) -> u64 {
        match self {
            Recording::Agent(observer) => observer.tool.processor_ns(),
            Recording::Perf(running) => running.tool.processor_ns(),
            Recording::TraceCmd(running, _) => running.tool.processor_ns(),
        }
    }

    /// Ends it and says what it recorded.
    pub(crate) fn stop(self) -> anyhow::Result<Recorded> {
        match self {
            Recording::Agent(observer) => observer.stop(),
            Recording::Perf(mut running) => {
                running.tool.interrupt()?;
                let said = running.perf(&["report", "--stats"])?;
                let requests_count = perf::samples_of(&said, "block:block_rq_complete");
                Ok(Recorded { requests_count, lost_count: perf::lost_of(&said) })
            }
            Recording::TraceCmd(mut running, places) => {
                let counts = [places.others, places.measured].map(|pcpu| running.counts(pcpu));
                running.tool.interrupt()?;
                let mut recorded = Recorded::default();
                for counts in counts {
                    let (events_count, lost_count) = counts?;
                    recorded.requests_count += events_count;
                    recorded.lost_count += lost_count;
                }
                recorded.requests_count /= TRACEPOINTS.len() as u64;
                Ok(recorded)
            }
        }
    }
}

impl fmt::Display for Rival {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Rival::Each => "vslice-agent, every request",
            Rival::Slow => "vslice-agent, slow ones",
            Rival::Perf => "perf record",
            Rival::TraceCmd => "trace-cmd record",
        })
    }
}
