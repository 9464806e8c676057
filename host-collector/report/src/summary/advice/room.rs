//! Where there was room: pCPUs that were idle for longer than somebody ran who could go there.

use super::Figure;
use super::asked::Asked;
use crate::summary::totals::share;
use std::collections::BTreeSet;
use vslice_core::units::PcpuId;
use vslice_spec::quantity::whole_percent;
use vslice_trace::host::HostPcpus;

/// Of a pCPU this share of the window has to be seen, or how far it was idle is not known.
const SEEN_SHARE_MIN: f64 = 0.95;

/// pCPUs that had room.
pub(super) struct Room {
    pub(super) pcpus: BTreeSet<PcpuId>,
    /// That, as it goes on after a sentence.
    pub(super) words: String,
    pub(super) figures: Vec<Figure>,
}

/// The pCPUs, those aside, that were idle for so long at least: as long as somebody ran who could run there instead.
///
/// # Errors
/// Why there is none, as a sentence without its full stop.
pub(super) fn room(
    asked: &Asked<'_>,
    needed_ns: u64,
    aside: &BTreeSet<PcpuId>,
) -> Result<Room, String> {
    let facts = &asked.summary.facts;
    let seen = facts.pcpus.iter().enumerate().filter(|(_, of)| {
        !aside.contains(&of.pcpu) && share(of.seen_ns, facts.measured_ns) >= SEEN_SHARE_MIN
    });
    let seen: Vec<_> = seen.collect();
    let of_run = |length_ns| whole_percent(share(length_ns, facts.measured_ns));
    let Some((_, best)) = seen.iter().max_by_key(|(_, of)| of.idle_ns) else {
        return Err("the run does not tell how far any other pCPU was idle".to_owned());
    };
    let fitting: Vec<_> = seen.iter().filter(|(_, of)| of.idle_ns >= needed_ns).collect();
    if fitting.is_empty() {
        return Err(format!(
            "no other pCPU had room: {}, the most idle one, was so for {} of the run, and {} is needed",
            best.pcpu,
            of_run(best.idle_ns),
            of_run(needed_ns)
        ));
    }
    let pcpus: BTreeSet<PcpuId> = fitting.iter().map(|(_, of)| of.pcpu).collect();
    let least_ns = fitting.iter().map(|(_, of)| of.idle_ns).min().unwrap_or(0);
    let which = named(&pcpus);
    let were = if pcpus.len() == 1 { "was idle for" } else { "were each idle for at least" };
    let figure = |(place, idle_ns): (usize, u64)| Figure {
        field: format!("/pcpus/{place}/idle_ns"),
        value: idle_ns,
    };
    Ok(Room {
        words: format!("{which} {were} {} of the run", of_run(least_ns)),
        figures: fitting.iter().map(|(place, of)| figure((*place, of.idle_ns))).collect(),
        pcpus,
    })
}

/// `pCPU1`, `pCPU1-3,7`.
pub(super) fn named(pcpus: &BTreeSet<PcpuId>) -> String {
    HostPcpus::of(&pcpus.iter().copied().collect::<Vec<_>>()).to_string()
}
