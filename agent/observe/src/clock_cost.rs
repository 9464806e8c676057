//! What it costs a guest to stamp an event.

use crate::clock::{nanos, now};
use nix::time::{ClockId, clock_gettime};
use std::fs;
use std::time::Duration;

/// Readings of the clock that are timed, by pairs.
const PAIRS: usize = 32;

/// What one reading of `CLOCK_MONOTONIC_RAW` takes, at best.
#[must_use]
pub fn clock_read_ns() -> u64 {
    let pair = |_| {
        let before = now();
        now().0.saturating_sub(before.0)
    };
    (0..PAIRS).map(pair).min().unwrap_or(0)
}

/// The calling thread's time on vCPUs.
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    let time =
        clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from);
    nanos(time)
}

/// Why stamps are dear in this guest, if they are; a sentence.
#[must_use]
pub fn warning(read_ns: u64) -> Option<String> {
    let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let source = fs::read_to_string(path).unwrap_or_default();
    warning_of(source.trim(), read_ns)
}

/// These are devices of the hypervisor's, or a register that it has (linux: `read_hv_clock_msr` in
/// drivers/clocksource/hyperv_timer.c): each reading leaves the guest. TSC, kvm-clock and Hyper-V's page are read in
/// the guest.
fn warning_of(source: &str, read_ns: u64) -> Option<String> {
    match source {
        "hpet" | "acpi_pm" | "pit" | "hyperv_clocksource_msr" => Some(format!(
            "the guest's clock source is {source}, so each of the three or more stamps of a request is an exit \
             of {read_ns} ns: observing slows the guest's I/O down; boot it with clocksource=tsc \
             tsc=reliable where the host's TSC is stable, or let it have kvm-clock or Hyper-V's TSC page"
        )),
        "jiffies" | "refined-jiffies" => Some(format!(
            "the guest's clock source is {source}, which moves only with the timer's ticks: no request is timed finer"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_leaves_the_guest_is_warned_of() {
        for source in ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter", ""] {
            assert_eq!(warning_of(source, 40), None, "{source}");
        }
        let hpet = warning_of("hpet", 2400).unwrap();
        assert!(
            hpet.contains("hpet") && hpet.contains("2400 ns") && hpet.contains("clocksource=tsc")
        );
        assert!(warning_of("acpi_pm", 1).is_some());
        assert!(warning_of("hyperv_clocksource_msr", 1).unwrap().contains("is an exit"));
        assert!(warning_of("jiffies", 1).unwrap().contains("ticks"));
        assert!(clock_read_ns() > 0);
    }
}
