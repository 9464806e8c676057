//! One type for each thing that is counted, so that two clocks or two kinds of index never mix.

use serde::{Deserialize, Serialize};
use std::fmt;

pub use vslice_wire::GuestTicks;

/// A host time: nanoseconds of `CLOCK_MONOTONIC_RAW`, the clock of every host record.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct HostNs(pub u64);

impl HostNs {
    /// Nanoseconds from `earlier` to `self`, 0 if `earlier` is later.
    #[must_use]
    pub fn since_ns(self, earlier: HostNs) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A host thread id as `gettid(2)` returns it in the initial pid namespace; 0 is the idle task.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Tid(pub u32);

impl Tid {
    /// The idle task ("swapper") of every pCPU.
    pub const IDLE: Tid = Tid(0);
}

impl fmt::Display for Tid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A logical CPU of the host, as in `/sys/devices/system/cpu/cpuN`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct PcpuId(pub u32);

impl fmt::Display for PcpuId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "pCPU{}", self.0)
    }
}

/// A vCPU of one guest by its index, as the guest and QEMU number it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct VcpuId(pub u16);

impl fmt::Display for VcpuId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "vCPU{}", self.0)
    }
}
