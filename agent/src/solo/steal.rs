//! What the guest's kernel tells of steal, per vCPU.

use nix::unistd::{SysconfVar, sysconf};

/// One vCPU's line of `/proc/stat`, in nanoseconds, since the guest's boot. The kernel prints steps
/// of [`step_ns`] (fs/proc/stat.c, `nsec_to_clock_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct VcpuTimes {
    /// Time in which the host ran somebody else, as the host says.
    pub(super) steal_ns: u64,
    /// Time in interrupt handlers. A kernel that only looks at ticks hardly ever sees one there, so
    /// 0 means that interrupts are not timed.
    pub(super) irq_ns: u64,
}

/// The length of one step of `/proc/stat`: 10 ms almost everywhere.
pub(super) fn step_ns() -> u64 {
    const NS_PER_S: u64 = 1_000_000_000;
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten();
    let per_second = per_second.and_then(|number| u64::try_from(number).ok());
    NS_PER_S / per_second.filter(|number| *number > 0).unwrap_or(100)
}

/// The times of `vcpu` in the text of `/proc/stat`; `None` if it does not have them.
pub(super) fn times_of(stat: &str, vcpu: u16, step_ns: u64) -> Option<VcpuTimes> {
    // proc_stat(5): user nice system idle iowait irq softirq steal ...
    const IRQ: usize = 5;
    const STEAL: usize = 7;
    let name = format!("cpu{vcpu}");
    let line = stat.lines().find(|line| line.split(' ').next() == Some(&name))?;
    let fields: Vec<&str> = line.split_ascii_whitespace().skip(1).collect();
    let field = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(VcpuTimes {
        steal_ns: field(STEAL)?.saturating_mul(step_ns),
        irq_ns: field(IRQ)?.saturating_mul(step_ns),
    })
}

/// The text of `/proc/stat`; empty where there is none.
pub(super) fn read() -> String {
    std::fs::read_to_string("/proc/stat").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "cpu  9 0 0 0 0 0 0 9 0 0\n\
                        cpu1 717727 42067 133043 1173898 3563 4 708 996 3 0\n\
                        cpu10 1 1 1 1 1 1 1 1 1 1\nintr 5 0\n";

    #[test]
    fn each_vcpu_has_its_line() {
        let times = times_of(STAT, 1, 10).unwrap();
        assert_eq!(times, VcpuTimes { steal_ns: 9960, irq_ns: 40 });
        assert_eq!(times_of(STAT, 10, 1).unwrap().steal_ns, 1);
        assert_eq!(times_of(STAT, 0, 10), None);
        assert_eq!(times_of("cpu0 1 2 3\n", 0, 10), None, "before Linux 2.6.11");
    }

    #[test]
    fn this_machine_has_one() {
        assert!(times_of(&read(), vslice_workload::pin::current_vcpu(), step_ns()).is_some());
        assert!((100_000..=100_000_000).contains(&step_ns()));
    }
}
