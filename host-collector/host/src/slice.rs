//! How long a thread may keep its pCPU when others wait for it, as the host's scheduler has it.

use std::fs;
use std::path::Path;
use vslice_trace::host::Slice;

/// Where the scheduler's shortest slice is written, newest kernels first, and beside it the period in
/// which CFS gives everybody a turn: EEVDF's from 6.6 on (kernel/sched/debug.c), which has no period,
/// CFS's from 5.13 to 6.5, CFS's before that (a sysctl).
const FILES: [(&str, Option<&str>); 3] = [
    ("/sys/kernel/debug/sched/base_slice_ns", None),
    ("/sys/kernel/debug/sched/min_granularity_ns", Some("/sys/kernel/debug/sched/latency_ns")),
    ("/proc/sys/kernel/sched_min_granularity_ns", Some("/proc/sys/kernel/sched_latency_ns")),
];

/// The kernel's default on one pCPU (kernel/sched/fair.c, `sysctl_sched_base_slice`, before 6.6
/// `sysctl_sched_min_granularity`): 0.75 ms; some 6.12 kernels have 0.70.
const DEFAULT_NS: u64 = 750_000;

/// CFS's default period on one pCPU (`sysctl_sched_latency`).
const PERIOD_DEFAULT_NS: u64 = 6_000_000;

/// The first release with EEVDF instead of CFS.
const EEVDF_SINCE: (u32, u32) = (6, 6);

/// Of this host, whose kernel of this release ticks every `tick_ns` and which has `pcpus_count`
/// pCPUs.
#[must_use]
pub fn of_host(kernel_release: Option<&str>, tick_ns: u64, pcpus_count: usize) -> Slice {
    let read = FILES.iter().find_map(|(base, period)| {
        let period_ns = period.and_then(|path| read_ns(Path::new(path)));
        Some((read_ns(Path::new(base))?, period_ns, (*base).to_owned()))
    });
    let (base_ns, period_ns, source) = read.unwrap_or_else(|| {
        let is_cfs = kernel_release.and_then(version).is_some_and(|version| version < EEVDF_SINCE);
        (
            scaled(DEFAULT_NS, pcpus_count),
            is_cfs.then(|| scaled(PERIOD_DEFAULT_NS, pcpus_count)),
            format!(
                "the kernel's default for {pcpus_count} pCPUs; the actual value cannot be read here"
            ),
        )
    });
    new_slice(base_ns, period_ns, source, tick_ns)
}

fn new_slice(base_ns: u64, period_ns: Option<u64>, source: String, tick_ns: u64) -> Slice {
    let shortest_ns = in_ticks(base_ns, tick_ns);
    let half_ns = period_ns.map_or(0, |period_ns| period_ns / 2);
    let expected_ns = in_ticks(base_ns.max(half_ns), tick_ns);
    let shortest_ns = (shortest_ns < expected_ns).then_some(shortest_ns);
    Slice { base_ns, source, expected_ns, shortest_ns }
}

fn read_ns(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Scaled by `1 + log2(pCPUs)`, of at most 8 pCPUs (`get_update_sysctl_factor`, SCHED_TUNABLESCALING
/// LOG).
fn scaled(default_ns: u64, pcpus_count: usize) -> u64 {
    default_ns * u64::from(1 + pcpus_count.clamp(1, 8).ilog2())
}

/// The first two numbers of a kernel's release.
fn version(kernel_release: &str) -> Option<(u32, u32)> {
    let mut numbers = kernel_release.split(['.', '-', '+']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn in_ticks(length_ns: u64, tick_ns: u64) -> u64 {
    let tick_ns = tick_ns.max(1);
    length_ns.div_ceil(tick_ns).max(1) * tick_ns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_default(kernel_release: &str, tick_ns: u64, pcpus_count: usize) -> Slice {
        let is_cfs = version(kernel_release).expect("a release") < EEVDF_SINCE;
        let period_ns = is_cfs.then(|| scaled(PERIOD_DEFAULT_NS, pcpus_count));
        new_slice(scaled(DEFAULT_NS, pcpus_count), period_ns, String::new(), tick_ns)
    }

    #[test]
    fn slices_are_whole_ticks() {
        // Seen: two hogs on a pCPU of a 2-pCPU host with HZ=250 get 4.00 ms each.
        assert_eq!(by_default("6.18.0", 4_000_000, 2).expected_ns, 4_000_000);
        assert_eq!(by_default("6.6.1-rc1+", 1_000_000, 8).expected_ns, 3_000_000);
        assert_eq!(in_ticks(3_000_001, 1_000_000), 4_000_000);
        assert_eq!(in_ticks(0, 10_000_000), 10_000_000);
        assert_eq!((scaled(DEFAULT_NS, 1), scaled(DEFAULT_NS, 64)), (750_000, 3_000_000));
    }

    #[test]
    fn two_threads_share_a_period_of_cfs() {
        let debian = by_default("6.1.0-56-amd64", 4_000_000, 6);
        assert_eq!((debian.expected_ns, debian.shortest_ns()), (12_000_000, 4_000_000));
        let fast = by_default("6.5-1", 1_000_000, 1);
        assert_eq!((fast.expected_ns, fast.shortest_ns()), (3_000_000, 1_000_000));
        let eevdf = by_default("6.18.0", 1_000_000, 6);
        assert_eq!((eevdf.expected_ns, eevdf.shortest_ns), (3_000_000, None));
        assert_eq!((version("7.0"), version("6"), version("x.y")), (Some((7, 0)), None, None));
    }

    #[test]
    fn this_host_has_one() {
        let slice = of_host(None, 4_000_000, 2);
        assert!(slice.base_ns > 0 && slice.expected_ns.is_multiple_of(4_000_000), "{slice:?}");
    }
}
