//! From what a session heard to what the manifest says of a guest.

use crate::guest::session::SessionRecord;
use vslice_core::units::VcpuId;
use vslice_trace::manifest::{GuestClock, GuestEnd, GuestRecord, HogRecord};
use vslice_wire::{ClockKind, DoneReason, Hello};

/// What a session recorded of a guest that has said hello.
#[must_use]
pub(crate) fn guest_record(record: &SessionRecord, hello: &Hello) -> GuestRecord {
    let clock = |kind| match kind {
        ClockKind::Tsc => GuestClock::Tsc,
        ClockKind::MonotonicRaw => GuestClock::MonotonicRaw,
    };
    let end = |reason| match reason {
        DoneReason::Completed => GuestEnd::Completed,
        DoneReason::Stopped => GuestEnd::Stopped,
        DoneReason::Failed => GuestEnd::Failed,
    };
    let notices = record.notices.iter().map(|notice| notice.text.clone());
    GuestRecord {
        kernel_release: hello.kernel_release.clone(),
        agent_version: hello.agent_version.clone(),
        vcpu_count: hello.vcpu_count,
        tsc_invariant: hello.tsc_invariant,
        clock: record.ready.as_ref().map(|ready| clock(ready.clock)),
        target: record.ready.as_ref().map(|ready| ready.target.clone()).unwrap_or_default(),
        io_scheduler: record.ready.as_ref().and_then(|ready| {
            let disk = ready.disk.as_ref()?;
            Some(disk.io_scheduler.clone()).filter(|name| !name.is_empty())
        }),
        clock_source: record
            .ready
            .as_ref()
            .map(|ready| ready.clock_source.clone())
            .filter(|name| !name.is_empty()),
        requests_count: record.requests_count,
        dropped_count: record.dropped_count,
        hogs: record
            .hogs
            .iter()
            .map(|hog| HogRecord { vcpu: VcpuId(hog.vcpu), count: hog.count })
            .collect(),
        notices: notices.chain(record.observation.notices()).collect(),
        host_times: record.host_times.clone(),
        ended: record.done.map(|done| end(done.reason)),
    }
}
