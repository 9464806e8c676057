//! Gaps: when a thread that only reads a clock was kept from reading it, and by whom.
//!
//! A loop that is never idle reads a clock as fast as it can, as sysjitter, oslat and rtla osnoise
//! do. Two readings further apart than a threshold are a *gap*: in between something else had the
//! vCPU, or the vCPU had no pCPU. After each gap the loop reads what the guest's kernel counts about
//! the loop's own thread, and the rest of this module tells from it who took the time.
//!
//! ```text
//! probe      the loop and its thread; what a reading of counters is
//! rate       ticks to nanoseconds
//! evidence   a gap and its counters, in nanoseconds
//! cause      who took the time of a gap: one pure decision, whose parts add up to the gap
//! figures    distributions, timeslices, the timeline, and what requests were overlapped by
//! ```
//!
//! Nothing here prints or opens a file: whoever starts a probe gives it a [`Witness`].

mod cause;
mod evidence;
mod figures;
mod probe;
mod rate;

pub use cause::{
    Kind, Parts, StealTold, Told, handler_ns, slow_tick_max_ns, steal_told, tick_lead_ns,
};
pub use evidence::{Evidence, Split, Tick, evidence_of_all};
pub use figures::{Figures, Span, shares_of_cells, taken_within, timeslices};
pub use probe::{
    Counters, LostGaps, Outcome, Probe, RawGap, SchedStat, Settings, Witness, watch_for_gaps,
};
pub use rate::{TickRate, TickSample};
