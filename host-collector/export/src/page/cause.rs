//! Kinds of cause, as the text's sentences group them: see `summary/causes.rs` of `vslice-report`.

use super::model::Name;
use vslice_core::join::{Breakdown, Part, Phase};
use vslice_report::summary::causes::{Cause, Group, Kind};

/// Every kind; its place is its number on the page.
pub(super) const CAUSES: [Kind; 12] = [
    Kind::Device,
    Kind::GuestQueue,
    Kind::PcpuWait,
    Kind::State(Part::Throttled),
    Kind::State(Part::BqlWait),
    Kind::State(Part::LockWait),
    Kind::State(Part::HostFault),
    Kind::State(Part::IoSubmit),
    Kind::State(Part::OtherSleep),
    Kind::State(Part::Halt),
    Kind::OnPcpu,
    Kind::State(Part::Unknown),
];

/// The number of what is not known.
pub(super) const UNKNOWN: usize = CAUSES.len() - 1;

/// The number of the cause that a part in a phase of this request is.
pub(super) fn cause(breakdown: &Breakdown, phase: Phase, part: Part) -> usize {
    let is_context = match phase {
        Phase::Device => true,
        Phase::GuestQueue => !breakdown.vcpus.is_waited_for(phase),
        Phase::Queued | Phase::Completed | Phase::Unknown => false,
    };
    let part = (!is_context).then_some(part);
    let kind = Cause { phase, part, total_ns: 0, share: 0.0 }.kind();
    CAUSES.iter().position(|of| *of == kind).unwrap_or(UNKNOWN)
}

/// What they are called.
pub(super) fn names() -> Vec<Name> {
    let label = |kind| Group { kind, causes: Vec::new(), total_ns: 0 }.what();
    CAUSES.into_iter().map(|kind| Name { name: name(kind), label: label(kind) }).collect()
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Device => "device",
        Kind::GuestQueue => "guest_queue",
        Kind::PcpuWait => "pcpu_wait",
        Kind::OnPcpu => "on_pcpu",
        Kind::State(part) => part.name(),
    }
}
