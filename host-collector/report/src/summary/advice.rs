//! What an experienced engineer would do about the tail, and what would be for nothing.
//!
//! Advice rests on the figures of this run: for each cause whose removal is sure to gain something
//! ([`super::what_if`], and of its bounds the one that promises least), what would take it away here, with the
//! command where the run tells all that the command has to name. What people usually try is said not to help
//! where its cause has next to nothing of the tail. It is about the requests that the answer is about.
//!
//! The gain is that of [`super::what_if`]: a bound, as something may take the cause's place.

mod antagonist;
mod asked;
mod command;
mod machine;
mod room;
mod setup;
#[cfg(test)]
pub(super) mod tests;
mod would_not_help;

pub use setup::Setup;

use self::asked::Asked;
use self::command::Command;
use super::causes::{Kind, NAMED_SHARE};
use super::model::{LatencyNs, Summary};
use super::totals::share;
use super::verdict::DOMINANT_SHARE;
use super::what_if::{Percentiles, Without};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use vslice_core::join::Part;
use vslice_spec::quantity::whole_percent;
use vslice_trace::evidence::EvidenceLevel;

/// There is advice if a percentile would be lower by at least this share of it, by the bound that promises least:
/// from there on the sentence names a cause, and less than that two runs of one plan differ by themselves.
pub const GAIN_SHARE_MIN: f64 = NAMED_SHARE;

/// A percentile is advised on if at least so many requests are slower than it: with fewer, one unlucky request moves
/// it.
pub const BEYOND_MIN: u64 = 10;

/// Rows of [`Advice::rows`] at most: the first is worth most, and nobody changes five things at once.
pub const ROWS_MAX: usize = 4;

/// Advice on the requests that the answer is about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Advice {
    /// Which requests these are, `vm1 vdb flush`; `None` if they are those of the readers.
    pub of: Option<String>,
    /// What would help, what would gain most first, at most [`ROWS_MAX`].
    pub rows: Vec<AdviceRow>,
    /// What people usually try and what has next to nothing to take away here.
    pub would_not_help: Vec<WouldNotHelp>,
    /// Why there is no row, as a sentence without its full stop; `None` if there is one.
    pub none_because: Option<String>,
}

/// What would help.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdviceRow {
    /// Against what.
    pub against: Against,
    /// What to do, as a sentence without its full stop.
    pub action: String,
    /// By what figures, as a sentence without its full stop.
    pub because: String,
    /// The figures of this summary that it rests on.
    pub figures: Vec<Figure>,
    /// The command that does it here.
    pub command: Option<String>,
    /// Why there is no command, as a sentence without its full stop; `None` if there is one.
    pub no_command_because: Option<String>,
    /// What would be gained.
    pub gain: Gain,
}

/// What advice is against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Against {
    /// Another VM on the pCPU.
    OtherVm,
    /// Other threads of the same VMM on the pCPU.
    OwnVm,
    /// Processes of the host on the pCPU.
    ControlGroup,
    /// A thread of the host's kernel on the pCPU.
    KernelThread,
    /// This vslice, or another.
    Vslice,
    /// Waits for a pCPU that nobody alone is to blame for.
    PcpuWait,
    /// Sleeps of a vCPU whose pCPU was idle when it was woken.
    IdlePcpu,
    /// A CPU quota.
    Quota,
    /// Waits for QEMU's big lock.
    BigLock,
    /// The VMM's thread that serves the disk, for which an idle vCPU waited.
    VmmThread,
    /// The host's disk.
    Disk,
    /// The guest's own queue.
    GuestQueue,
    /// Memory of the VM that the host had to bring in.
    HostFault,
    /// Disk I/O that a vCPU's thread does itself.
    IoSubmit,
}

/// A figure of the summary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figure {
    /// Where it is, as a JSON pointer (RFC 6901): `/what_if/causes/0/high_ns/p99`.
    pub field: String,
    /// What it is.
    pub value: u64,
}

/// By how much a percentile would be lower, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gain {
    /// Which percentile: the 99th, else the 99.9th, else the median, the first for which it is enough.
    pub percentile: Percentile,
    /// As it was measured.
    pub measured_ns: u64,
    /// By how much at least, whatever clock errors and what is unknown make of it.
    pub least_ns: u64,
    /// By how much by the figures as they were measured.
    pub told_ns: u64,
    /// By how much at most.
    pub most_ns: u64,
}

/// A percentile of latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Percentile {
    /// The 99th.
    P99,
    /// The 99.9th.
    P999,
    /// The median.
    P50,
}

/// What people usually try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Remedy {
    /// An iothread for the disk.
    Iothread,
    /// Pinning vCPUs, or taking neighbours away from their pCPUs.
    Pinning,
    /// A faster disk on the host.
    FasterDisk,
    /// KVM's halt polling.
    HaltPolling,
}

/// What would not help.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WouldNotHelp {
    /// What.
    pub remedy: Remedy,
    /// By what figures, as a sentence without its full stop.
    pub because: String,
    /// The figures of this summary that it rests on.
    pub figures: Vec<Figure>,
}

impl Percentile {
    /// All of them, in the order in which one is looked for that is worth advice: the tail first.
    pub const ALL: [Percentile; 3] = [Percentile::P99, Percentile::P999, Percentile::P50];

    /// What it is called on a page.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Percentile::P99 => "p99",
            Percentile::P999 => "p99.9",
            Percentile::P50 => "p50",
        }
    }

    /// Its key in the summary.
    fn key(self) -> &'static str {
        match self {
            Percentile::P99 => "p99",
            Percentile::P999 => "p999",
            Percentile::P50 => "p50",
        }
    }

    fn of(self, of: &Percentiles) -> Option<u64> {
        match self {
            Percentile::P99 => of.p99,
            Percentile::P999 => of.p999,
            Percentile::P50 => of.p50,
        }
    }

    /// How many of so many requests are slower.
    fn beyond(self, count: u64) -> u64 {
        match self {
            Percentile::P99 => count / 100,
            Percentile::P999 => count / 1_000,
            Percentile::P50 => count / 2,
        }
    }
}

impl Remedy {
    /// What it is called in a sentence.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Remedy::Iothread => "an iothread",
            Remedy::Pinning => "pinning",
            Remedy::FasterDisk => "a faster disk",
            Remedy::HaltPolling => "halt polling",
        }
    }
}

impl Gain {
    /// The first percentile for which it is enough; `None` if there is none. Below `floor_ns` requests were only
    /// counted, so a percentile that has gone there is at most that.
    fn of(
        latency_ns: &LatencyNs,
        without: &Without,
        (count, floor_ns): (u64, Option<u64>),
    ) -> Option<Gain> {
        let measured = Percentiles::from(latency_ns);
        let gains = Percentile::ALL.into_iter().filter_map(|percentile| {
            let measured_ns = percentile.of(&measured)?;
            let below = |left: &Percentiles| {
                percentile.of(left).or(floor_ns).map(|left| measured_ns.saturating_sub(left))
            };
            let gain = Gain {
                percentile,
                measured_ns,
                least_ns: below(&without.high_ns)?,
                told_ns: below(&without.latency_ns)?,
                most_ns: percentile
                    .of(&without.low_ns)
                    .map_or(measured_ns, |left| measured_ns.saturating_sub(left)),
            };
            let is_known = percentile.beyond(count) >= BEYOND_MIN;
            (is_known && gain.is_enough()).then_some(gain)
        });
        gains.into_iter().next()
    }

    fn is_enough(&self) -> bool {
        share(self.least_ns, self.measured_ns) >= GAIN_SHARE_MIN
    }
}

/// Advice in the making.
struct Draft {
    against: Against,
    action: String,
    because: String,
    figures: Vec<Figure>,
    command: Command,
}

impl Draft {
    fn with(self, gain: Gain) -> AdviceRow {
        let Draft { against, action, because, figures, command } = self;
        let (command, no_command_because) = match command {
            Ok(command) => (Some(command), None),
            Err(why) => (None, Some(why)),
        };
        AdviceRow { against, action, because, figures, command, no_command_because, gain }
    }
}

impl Advice {
    /// The advice of a summary that has none yet.
    pub(super) fn of(summary: &Summary, setup: &Setup) -> Advice {
        let none =
            |because: &str| Advice { none_because: Some(because.to_owned()), ..Advice::default() };
        if summary.facts.evidence.level != EvidenceLevel::Recorded {
            return none("what happened to single requests was not recorded");
        }
        let Some(asked) = Asked::of(summary, setup) else {
            return none("no request could be attributed to causes");
        };
        let mut rows: Vec<AdviceRow> = rows(&asked);
        rows.sort_by_key(|row| Reverse((row.gain.percentile == Percentile::P99, row.gain.told_ns)));
        rows.truncate(ROWS_MAX);
        Advice {
            of: asked.of.clone(),
            none_because: rows.is_empty().then(|| none_because(&asked)),
            would_not_help: would_not_help::would_not_help(&asked),
            rows,
        }
    }
}

fn rows(asked: &Asked<'_>) -> Vec<AdviceRow> {
    let mut rows = antagonist::rows(asked);
    for (place, row) in asked.what_if.causes.iter().enumerate() {
        let Some(gain) = asked.gain(&row.without) else { continue };
        let at = format!("what_if/causes/{place}");
        let asked = &asked.at(gain.percentile);
        let draft = match row.cause {
            // Who is in the way is known by name, or what is left is nobody's.
            Kind::PcpuWait => antagonist::wait(asked, !rows.is_empty()),
            // Each request takes its time on the disk; it is worth a look where it takes the slow ones longer.
            Kind::Device if gain.percentile == Percentile::P50 => None,
            Kind::Device => machine::disk(asked),
            Kind::GuestQueue => machine::guest_queue(asked),
            Kind::State(Part::Throttled) => machine::quota(asked),
            Kind::State(Part::BqlWait) => machine::big_lock(asked),
            Kind::State(Part::Halt) => machine::vmm_thread(asked),
            Kind::State(Part::HostFault) => machine::host_fault(asked),
            Kind::State(Part::IoSubmit) => machine::io_submit(asked),
            // The guest's and the VMM's own work, locks whose remedy depends on the VMM, and what is not known.
            Kind::OnPcpu | Kind::State(_) => None,
        };
        rows.extend(draft.map(|draft| asked.row(draft, &at, gain)));
    }
    rows
}

fn none_because(asked: &Asked<'_>) -> String {
    let on_pcpu = asked.share_of(Kind::OnPcpu);
    if on_pcpu >= DOMINANT_SHARE {
        return format!(
            "{} of the time of {} is on a pCPU: the guest's and QEMU's own work, which no setting of the host takes \
             away",
            whole_percent(on_pcpu),
            asked.which()
        );
    }
    format!(
        "no cause that something can be done about is sure to be {} of a percentile that at least {BEYOND_MIN} \
         requests are slower than",
        whole_percent(GAIN_SHARE_MIN)
    )
}
