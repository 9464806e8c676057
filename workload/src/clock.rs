//! The clock that stamps the requests.
//!
//! The TSC is worth its unsafe code: where a guest's clock source is not the TSC (`hpet` under
//! QEMU's TCG), every `clock_gettime` is an exit to the VMM, which takes QEMU's big lock: the
//! measurement would cause what it measures. `rdtsc` never leaves the guest.
#![cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "the TSC and the fences around it have no safe interface")
)]

use nix::time::{ClockId, clock_gettime};
use vslice_spec::ClockChoice;

/// A clock whose readings compare across the threads of one machine, and never step back on one
/// vCPU. Two vCPUs of one guest may disagree; whoever maps the readings maps each vCPU by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// The time stamp counter, in ticks.
    #[cfg(target_arch = "x86_64")]
    Tsc,
    /// `CLOCK_MONOTONIC_RAW`, in nanoseconds.
    MonotonicRaw,
}

impl Clock {
    /// The clock that `choice` comes to on this machine: the TSC only on x86-64, and with
    /// [`ClockChoice::Auto`] only if CPUID says that it is invariant.
    #[must_use]
    pub fn choose(choice: ClockChoice) -> Clock {
        match choice {
            #[cfg(target_arch = "x86_64")]
            ClockChoice::Tsc => Clock::Tsc,
            #[cfg(target_arch = "x86_64")]
            ClockChoice::Auto if Clock::tsc_is_invariant() => Clock::Tsc,
            _ => Clock::MonotonicRaw,
        }
    }

    /// The time now, in the unit of this clock.
    #[inline]
    #[must_use]
    pub fn now(self) -> u64 {
        match self {
            #[cfg(target_arch = "x86_64")]
            Clock::Tsc => read_tsc(),
            Clock::MonotonicRaw => read_clock_ns(ClockId::CLOCK_MONOTONIC_RAW),
        }
    }

    /// The time now, for the beginning of something, which does not begin before it. What the program
    /// did just before may still be under way in the processor: it is not waited for, some nanoseconds.
    #[inline]
    #[must_use]
    pub fn beginning(self) -> u64 {
        match self {
            #[cfg(target_arch = "x86_64")]
            Clock::Tsc => read_tsc_before(),
            Clock::MonotonicRaw => read_clock_ns(ClockId::CLOCK_MONOTONIC_RAW),
        }
    }

    /// The time now, for the end of something: it was over by then.
    #[inline]
    #[must_use]
    pub fn end(self) -> u64 {
        match self {
            #[cfg(target_arch = "x86_64")]
            Clock::Tsc => read_tsc_after(),
            Clock::MonotonicRaw => read_clock_ns(ClockId::CLOCK_MONOTONIC_RAW),
        }
    }

    /// Whether this is the TSC, also where the variant does not exist.
    #[must_use]
    pub fn is_tsc(self) -> bool {
        self != Clock::MonotonicRaw
    }

    /// The clock for a thread that only compares its own readings, on one vCPU: as with
    /// [`ClockChoice::Auto`], and the TSC also under QEMU's TCG, whose guests read the host's TSC
    /// plus a constant but are not told that it is invariant.
    #[must_use]
    pub fn choose_for_one_vcpu() -> Clock {
        let tcg = Clock::is_under_tcg();
        Clock::choose(if tcg { ClockChoice::Tsc } else { ClockChoice::Auto })
    }

    /// Whether the hypervisor calls itself `TCGTCGTCGTCG` (leaf 0x4000_0000, which is there if leaf
    /// 1, ECX bit 31 says so; QEMU: target/i386/cpu.c).
    #[must_use]
    pub fn is_under_tcg() -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            const HYPERVISOR_BIT: u32 = 1 << 31;
            const TCGT: u32 = u32::from_le_bytes(*b"TCGT");
            const CGTC: u32 = u32::from_le_bytes(*b"CGTC");
            const GTCG: u32 = u32::from_le_bytes(*b"GTCG");
            use std::arch::x86_64::__cpuid;
            let leaf = __cpuid(0x4000_0000);
            __cpuid(1).ecx & HYPERVISOR_BIT != 0
                && (leaf.ebx, leaf.ecx, leaf.edx) == (TCGT, CGTC, GTCG)
        }
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// Whether CPUID says that the TSC runs at one rate in every P-, C- and T-state: leaf
    /// 0x8000_0007, EDX bit 8 (Intel SDM volume 3, "Invariant TSC"; AMD APM volume 2, "TscInvariant").
    #[must_use]
    pub fn tsc_is_invariant() -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            const POWER_MANAGEMENT_LEAF: u32 = 0x8000_0007;
            const INVARIANT_TSC_BIT: u32 = 1 << 8;
            use std::arch::x86_64::__cpuid;
            __cpuid(0x8000_0000).eax >= POWER_MANAGEMENT_LEAF
                && __cpuid(POWER_MANAGEMENT_LEAF).edx & INVARIANT_TSC_BIT != 0
        }
        #[cfg(not(target_arch = "x86_64"))]
        false
    }
}

/// `CLOCK_MONOTONIC_COARSE` in nanoseconds: as fine as a tick, but never an exit, because it only
/// reads what the kernel's last tick wrote to the vDSO page. For deadlines, not for stamps.
pub(crate) fn coarse_now_ns() -> u64 {
    read_clock_ns(ClockId::CLOCK_MONOTONIC_COARSE)
}

/// Reads the TSC so that what the program does before it is done before it, and what comes after
/// starts after it.
///
/// `rdtsc` by itself is not ordered with its neighbours. `rdtscp` waits for what comes before, as a fence
/// and `rdtsc` do, and takes as long. That it tells the vCPU as well saves nothing: the thread's rseq
/// area has it, and is read while the processor is at the TSC.
#[cfg(target_arch = "x86_64")]
#[inline]
fn read_tsc() -> u64 {
    fence();
    let ticks = read_tsc_unordered();
    fence();
    ticks
}

/// Reads the TSC so that what comes after starts after it: no request starts before its stamp.
#[cfg(target_arch = "x86_64")]
#[inline]
fn read_tsc_before() -> u64 {
    let ticks = read_tsc_unordered();
    fence();
    ticks
}

/// Reads the TSC so that what comes before it is done before it: the stamp of a completion is not taken
/// before the load that saw it.
#[cfg(target_arch = "x86_64")]
#[inline]
fn read_tsc_after() -> u64 {
    fence();
    read_tsc_unordered()
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn read_tsc_unordered() -> u64 {
    // SAFETY: `rdtsc` faults only under CR4.TSD, which Linux sets only for a thread that asked for
    // it by `prctl(PR_SET_TSC, PR_TSC_SIGSEGV)`; nothing in this workspace does.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// Waits for what comes before it, and lets nothing start that comes after (Intel SDM volume 2, RDTSC and
/// LFENCE; Linux makes `lfence` dispatch-serialising on AMD at boot).
#[cfg(target_arch = "x86_64")]
#[inline]
fn fence() {
    // SAFETY: `lfence` is part of SSE2, which every x86-64 has.
    unsafe { std::arch::x86_64::_mm_lfence() };
}

fn read_clock_ns(clock: ClockId) -> u64 {
    const NS_PER_S: u64 = 1_000_000_000;
    let time = clock_gettime(clock).expect("Linux has had this clock since 2.6.32");
    let seconds = u64::try_from(time.tv_sec()).expect("a monotonic clock starts at 0");
    let ns = u64::try_from(time.tv_nsec()).expect("tv_nsec is in [0, 1e9)");
    seconds * NS_PER_S + ns
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clocks() -> Vec<Clock> {
        vec![Clock::choose(ClockChoice::Tsc), Clock::MonotonicRaw]
    }

    #[test]
    fn no_clock_steps_back_on_one_vcpu() {
        let vcpu = crate::pin::current_vcpu();
        std::thread::spawn(move || {
            crate::pin::pin_current_thread(vcpu).unwrap();
            for clock in clocks() {
                let mut last = clock.now();
                for _ in 0..10_000 {
                    let now = clock.now();
                    assert!(now >= last, "{clock:?} went from {last} to {now}");
                    last = now;
                }
            }
        })
        .join()
        .unwrap();
    }

    #[test]
    fn what_begins_begins_before_it_ends() {
        let vcpu = crate::pin::current_vcpu();
        std::thread::spawn(move || {
            crate::pin::pin_current_thread(vcpu).unwrap();
            for clock in clocks() {
                for _ in 0..10_000 {
                    let times = [clock.now(), clock.beginning(), clock.end(), clock.now()];
                    assert!(times.is_sorted(), "{clock:?} says {times:?}");
                }
            }
        })
        .join()
        .unwrap();
    }

    #[test]
    fn every_clock_advances() {
        for clock in clocks() {
            let before = clock.now();
            std::thread::sleep(std::time::Duration::from_millis(2));
            assert!(clock.now() > before, "{clock:?} stands still");
        }
    }

    #[test]
    fn monotonic_raw_is_in_nanoseconds() {
        let sleep = std::time::Duration::from_millis(20);
        let before = Clock::MonotonicRaw.now();
        std::thread::sleep(sleep);
        let elapsed_ns = Clock::MonotonicRaw.now() - before;
        // A sleep ends late at will, but never early; the margin is for the raw clock's own rate.
        assert!(elapsed_ns >= 19_000_000, "{elapsed_ns} ns");
    }

    #[test]
    fn the_choice_is_kept() {
        assert_eq!(Clock::choose(ClockChoice::MonotonicRaw), Clock::MonotonicRaw);
        assert_eq!(Clock::choose(ClockChoice::Tsc).is_tsc(), cfg!(target_arch = "x86_64"));
        assert_eq!(Clock::choose(ClockChoice::Auto).is_tsc(), Clock::tsc_is_invariant());
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn invariance_is_what_the_kernel_says_too() {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let nonstop = cpuinfo.split_ascii_whitespace().any(|flag| flag == "nonstop_tsc");
        assert_eq!(Clock::tsc_is_invariant(), nonstop);
    }
}
