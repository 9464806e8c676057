//! When on the host's clock a guest lost what it was to record.

use std::ops::Range;
use vslice_core::join::Clocks;
use vslice_core::units::HostNs;
use vslice_wire::{Dropped, GuestTicks};

/// When on the host's clock something was lost; all the time where no clock tells.
pub(super) fn time_of(lost: &Dropped, clocks: &Clocks) -> Range<HostNs> {
    let mapped = |ticks: GuestTicks| {
        clocks.iter().map(move |(_, map)| {
            let at = map.to_host(ticks).ok()?;
            Some((at.at.0.saturating_sub(at.bound_ns), at.at.0.saturating_add(at.bound_ns)))
        })
    };
    // By which vCPU's clock is not told: by none is it outside of this.
    let first = mapped(lost.first).map(|at| at.map_or(0, |(earliest, _)| earliest)).min();
    let last = mapped(lost.last).map(|at| at.map_or(u64::MAX, |(_, latest)| latest)).max();
    HostNs(first.unwrap_or(0))..HostNs(last.unwrap_or(u64::MAX))
}
