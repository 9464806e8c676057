//! How long a thread may keep its pCPU when others wait for it, as the host's scheduler has it.

use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// Where the scheduler's shortest slice is written, newest kernels first: EEVDF's from 6.6 on
/// (kernel/sched/debug.c), CFS's from 5.13 to 6.5, CFS's before that (a sysctl).
const FILES: [&str; 3] = [
    "/sys/kernel/debug/sched/base_slice_ns",
    "/sys/kernel/debug/sched/min_granularity_ns",
    "/proc/sys/kernel/sched_min_granularity_ns",
];

/// The kernel's default on one pCPU (kernel/sched/fair.c, `sysctl_sched_base_slice`, before 6.6
/// `sysctl_sched_min_granularity`): 0.75 ms; some 6.12 kernels have 0.70.
const DEFAULT_NS: u64 = 750_000;

/// A thread's slice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// The scheduler's shortest slice.
    pub base_ns: u64,
    /// Where that was read, or how it was worked out.
    pub source: String,
    /// What two threads that share a pCPU see of it: the scheduler looks at each tick only (unless
    /// HRTICK is on, which it is not by default), so it is rounded up to whole ticks.
    pub expected_ns: u64,
}

impl Slice {
    /// Of this host, whose kernel ticks `tick_hz` times a second and which has `pcpus_count` pCPUs.
    #[must_use]
    pub fn of_host(tick_hz: u32, pcpus_count: usize) -> Slice {
        let read = FILES.iter().find_map(|path| Some((read_ns(Path::new(path))?, *path)));
        let (base_ns, source) = match read {
            Some((base_ns, path)) => (base_ns, path.to_owned()),
            None => (
                default_ns(pcpus_count),
                format!("the kernel's default for {pcpus_count} pCPUs; it cannot be read here"),
            ),
        };
        Slice { base_ns, source, expected_ns: in_ticks(base_ns, tick_hz) }
    }
}

fn read_ns(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Scaled by `1 + log2(pCPUs)`, of at most 8 pCPUs (`get_update_sysctl_factor`, SCHED_TUNABLESCALING
/// LOG).
fn default_ns(pcpus_count: usize) -> u64 {
    DEFAULT_NS * u64::from(1 + pcpus_count.clamp(1, 8).ilog2())
}

fn in_ticks(base_ns: u64, tick_hz: u32) -> u64 {
    let tick_ns = 1_000_000_000 / u64::from(tick_hz.max(1));
    base_ns.div_ceil(tick_ns).max(1) * tick_ns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_whole_ticks() {
        // Seen: two hogs on a pCPU of a 2-pCPU host with HZ=250 get 4.00 ms each.
        assert_eq!(in_ticks(default_ns(2), 250), 4_000_000);
        assert_eq!(in_ticks(default_ns(8), 1000), 3_000_000);
        assert_eq!(in_ticks(3_000_001, 1000), 4_000_000);
        assert_eq!(in_ticks(0, 100), 10_000_000);
        assert_eq!((default_ns(1), default_ns(64)), (750_000, 3_000_000));
    }

    #[test]
    fn this_host_has_one() {
        let slice = Slice::of_host(250, 2);
        assert!(slice.base_ns > 0 && slice.expected_ns.is_multiple_of(4_000_000), "{slice:?}");
    }
}
