//! Recording VMs: the host's events, and the sessions with agents in their guests.
//!
//! ```text
//! recording      a recording from an empty run directory to a whole one
//! guests         where its VMs come from: a trait, so that launched and found ones are recorded alike
//! attached       VMs that run already, and agents that are started in them
//! measurement    the measured window: what begins just before it and ends just after it
//! recorded_work  what goes on meanwhile, and when it is over
//! host_recorder  who watches the threads: perf's events, or looks
//! live           the same events for whoever looks on meanwhile
//! perf           the scheduler's, KVM's and disks' events, by BPF programs or tracepoints
//! sampling       looks at threads, where no events may be recorded
//! guest          what is said between an agent and the collector, and how agents are started
//! guest_session, guest_sessions, guest_streams   each guest's session, its thread and its files
//! ```
//!
//! Data flows one way, into a run directory ([`vslice_trace`]); what it says is another crate's matter.

pub mod attached;
pub mod census;
mod disk_notes;
pub mod error;
pub mod event_writers;
pub mod evidence;
pub mod guest;
mod guest_record;
mod guest_session;
mod guest_sessions;
mod guest_streams;
pub mod guests;
mod host_recorder;
mod image_notes;
pub mod interrupt;
mod interrupts;
mod kept;
pub mod leftovers;
pub mod live;
mod live_counters;
mod lock_facts;
mod measurement;
mod names;
mod observed_disks;
mod other_vms;
pub mod perf;
mod pins;
mod plugged_ports;
pub mod quota;
mod recorded_work;
pub mod recording;
mod reserve;
pub mod sampling;
mod tsc_watch;
mod uninterrupted;
mod until;
mod vm_record;
pub mod watcher;

pub use error::RecordingError;
pub use evidence::{EvidencePlan, EvidenceSetting};
pub use live_counters::{Counted, LiveCounters};
pub use names::names_of;
pub use recording::{EndedEarly, Recording, RecordingFacts, RecordingOptions};
pub use until::UntilOver;
pub use vm_record::vm_records;
