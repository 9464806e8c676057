//! What is asked of `perf_event_open(2)` of every event. Pure.

use perf_event_open_sys::bindings::{
    PERF_COUNT_SW_DUMMY, PERF_FORMAT_LOST, PERF_SAMPLE_TIME, PERF_TYPE_SOFTWARE, perf_event_attr,
};
use std::io;

/// Whether the kernel counts lost records for each event (since 6.0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostCount {
    /// `read(2)` of an event says how many records of it were lost.
    Readable,
    /// Only `PERF_RECORD_LOST` in the ring does.
    InRingOnly,
}

impl LostCount {
    /// Asks the kernel, by an event on this CPU: older ones refuse what they do not know.
    #[must_use]
    pub fn ask(cpu: u32) -> LostCount {
        let mut attr = stamped(LostCount::Readable);
        attr.type_ = PERF_TYPE_SOFTWARE;
        attr.config = PERF_COUNT_SW_DUMMY.into();
        attr.set_disabled(1);
        match crate::sys::open(attr, cpu, None).as_ref().map_err(io::Error::raw_os_error) {
            Err(Some(libc::EINVAL)) => LostCount::InRingOnly,
            _ => LostCount::Readable,
        }
    }
}

/// An event whose records all have the time, by `CLOCK_MONOTONIC_RAW`.
#[must_use]
pub fn stamped(lost: LostCount) -> perf_event_attr {
    let mut attr = perf_event_attr {
        size: u32::try_from(size_of::<perf_event_attr>()).expect("the struct has some 140 bytes"),
        sample_type: PERF_SAMPLE_TIME.into(),
        clockid: libc::CLOCK_MONOTONIC_RAW,
        ..Default::default()
    };
    if lost == LostCount::Readable {
        attr.read_format = PERF_FORMAT_LOST.into();
    }
    attr.set_use_clockid(1);
    attr.set_sample_id_all(1);
    attr
}

/// Lets the ring that an event owns wake its reader when it is a quarter full. The wake-ups of a ring
/// follow the event that maps it.
pub fn wake_at_a_quarter(attr: &mut perf_event_attr, ring_bytes: usize) {
    attr.set_watermark(1);
    attr.wakeup_watermark = u32::try_from(ring_bytes / 4).unwrap_or(u32::MAX);
}
