//! What of the things that recording can use this host offers, and what a run goes without where one
//! is missing.

use super::Tracefs;
use super::format::Detail;
use super::machine::{SWITCH, WAKING};
use super::registers;
use super::source::{check_disk_programs, check_programs};
use super::symbols::Symbols;
use vslice_core::host_event::BlockStep;
use vslice_trace::evidence::{BPF_PROGRAMS, DISK_PROGRAMS, KERNEL_SYMBOLS, USER_REGISTERS};

/// One kernel facility that recording can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// A tracepoint as `group/name`, [`BPF_PROGRAMS`], [`DISK_PROGRAMS`], [`USER_REGISTERS`] or
    /// [`KERNEL_SYMBOLS`].
    pub name: &'static str,
    /// Why it cannot be used here; `None` if it can.
    pub missing: Option<String>,
    /// What a report goes without where it is missing; a sentence without its end.
    pub costs: &'static str,
}

/// All kernel facilities that recording can use, in order of importance.
#[must_use]
pub fn offers(tracefs: &Tracefs) -> Vec<Offer> {
    let tracepoints = [SWITCH, WAKING].into_iter().chain(details().map(Detail::name));
    let tracepoints = tracepoints.map(|name| Offer {
        name,
        missing: tracefs.format(name).err().map(|error| error.to_string()),
        costs: costs_of(name),
    });
    let registers = (registers::MASK == 0)
        .then(|| "vslice does not know this architecture's calling convention".to_owned());
    let symbols = Symbols::load().err().map(|error| error.to_string());
    let programs = check_programs().err();
    let others = [
        (BPF_PROGRAMS, programs),
        (DISK_PROGRAMS, check_disk_programs().err()),
        (USER_REGISTERS, registers),
        (KERNEL_SYMBOLS, symbols),
    ];
    let others =
        others.into_iter().map(|(name, missing)| Offer { name, missing, costs: costs_of(name) });
    tracepoints.chain(others).collect()
}

fn details() -> impl Iterator<Item = Detail> {
    let kvm = Detail::DEVICE_ACCESS.into_iter().chain(Detail::EXITS).chain(Detail::HALTS);
    kvm.chain(Detail::INTERRUPTS).chain(Detail::DISK)
}

/// What a report goes without where this is missing; a sentence without its end.
#[must_use]
pub fn costs_of(name: &str) -> &'static str {
    let detail = details().find(|detail| detail.name() == name);
    match (name, detail) {
        (SWITCH | WAKING, _) => "events cannot be recorded: runs are sampled",
        (BPF_PROGRAMS, _) => {
            "perf's tracepoint events record context switches instead, at up to twice the cost"
        }
        (DISK_PROGRAMS, _) => {
            "perf's tracepoint events record I/O instead: some kernels hide from them what happens \
            while a pCPU is idle"
        }
        (USER_REGISTERS, _) => "locks cannot be distinguished by their addresses",
        (KERNEL_SYMBOLS, _) => {
            "stacks have no function names, so the reasons for sleeping are unknown"
        }
        (_, Some(Detail::UserspaceExit | Detail::Port | Detail::Memory)) => {
            "under KVM, the device that caused a lock wait is unknown"
        }
        (_, Some(Detail::GuestEntry | Detail::GuestExit)) => {
            "under KVM, time on a pCPU is not divided into guest, KVM and VMM"
        }
        (_, Some(Detail::HaltEnd)) => {
            "under KVM, time in which a pCPU was busy for an idle guest (halt polling) is not told from other \
            time on a pCPU"
        }
        (_, Some(Detail::Interrupt)) => {
            "under KVM, which vCPU was interrupted for an I/O that is done is unknown, so the host's view says in a \
            wider range for how long it waited"
        }
        (_, Some(Detail::Block(BlockStep::Issued))) => {
            "the time that the disk itself took for an I/O is unknown"
        }
        (_, Some(Detail::Block(_))) => "I/O is not divided into queued, device and completed",
        (_, None) => "what it would show is unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_trace::evidence::DEVICE_ACCESS;

    #[test]
    fn every_tracepoint_has_its_price() {
        for name in details().map(Detail::name).chain([SWITCH, WAKING]) {
            assert_ne!(costs_of(name), costs_of("no/such"), "{name}");
        }
        for name in [BPF_PROGRAMS, DISK_PROGRAMS, USER_REGISTERS, KERNEL_SYMBOLS] {
            assert_ne!(costs_of(name), costs_of("no/such"), "{name}");
        }
    }

    #[test]
    fn what_tells_the_device_of_a_lock_wait_has_the_name_that_runs_give_it() {
        assert_eq!(Detail::DEVICE_ACCESS.map(Detail::name), DEVICE_ACCESS);
    }
}
