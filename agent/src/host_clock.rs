//! The host's clock, as KVM tells it to a guest.
//!
//! The device is a clock of PTP's kind that cannot be set (linux: drivers/ptp/ptp_kvm_common.c).
//! Reading it is one hypercall, `KVM_HC_CLOCK_PAIRING`, by which the host answers with its
//! `CLOCK_REALTIME`; hosts whose own clock source is not the TSC refuse it (linux:
//! Documentation/virt/kvm/x86/hypercalls.rst).

use nix::time::{ClockId, clock_gettime};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::Path;
use vslice_wire::{GuestTicks, HostTime};

/// What `clock_name` says of the device, in kernels for x86 and for arm.
const NAME: &str = "KVM virtual PTP";

/// Readings of which the quickest is told.
const TRIES: usize = 3;

/// An open device.
#[derive(Debug)]
pub(crate) struct HostClock(File);

impl HostClock {
    /// Looks for the device: `sys` is `/sys/class/ptp`, `dev` is `/dev`. `None` where there is none,
    /// or this process may not read it.
    pub(crate) fn find(sys: &Path, dev: &Path) -> Option<HostClock> {
        let is_it = |entry: &fs::DirEntry| {
            fs::read_to_string(entry.path().join("clock_name"))
                .is_ok_and(|name| name.trim_end() == NAME)
        };
        let entry = fs::read_dir(sys).ok()?.flatten().find(is_it)?;
        File::open(dev.join(entry.file_name())).ok().map(HostClock)
    }

    /// Asks from the vCPU that the caller is pinned to; `now` reads its clock. `None` if the host
    /// does not say.
    pub(crate) fn ask(&self, vcpu: u16, now: impl Fn() -> GuestTicks) -> Option<HostTime> {
        let ask = |_| {
            let before = now();
            let realtime_ns = self.realtime_ns()?;
            Some(HostTime { vcpu, before, realtime_ns, after: now() })
        };
        let asked = (0..TRIES).filter_map(ask);
        asked.min_by_key(|told| told.after.0.saturating_sub(told.before.0))
    }

    fn realtime_ns(&self) -> Option<u64> {
        let time = clock_gettime(clock_of(self.0.as_raw_fd())).ok()?;
        let seconds = u64::try_from(time.tv_sec()).ok()?;
        seconds.checked_mul(1_000_000_000)?.checked_add(u64::try_from(time.tv_nsec()).ok()?)
    }
}

/// The clock of an open device: `FD_TO_CLOCKID` of clock_gettime(2).
fn clock_of(fd: i32) -> ClockId {
    ClockId::from_raw((!fd << 3) | 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kvms_device_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let (sys, dev) = (root.path().join("ptp"), root.path().join("dev"));
        fs::create_dir_all(&dev).unwrap();
        assert!(HostClock::find(&sys, &dev).is_none(), "no class at all");
        for (device, name) in [("ptp0", "ptp_vmw"), ("ptp1", NAME)] {
            fs::create_dir_all(sys.join(device)).unwrap();
            fs::write(sys.join(device).join("clock_name"), format!("{name}\n")).unwrap();
        }
        fs::write(dev.join("ptp0"), "").unwrap();
        assert!(HostClock::find(&sys, &dev).is_none(), "it is there and cannot be opened");
        fs::write(dev.join("ptp1"), "").unwrap();
        let clock = HostClock::find(&sys, &dev).expect("a file by that name");
        assert!(clock.ask(0, || GuestTicks(1)).is_none(), "a file is no clock");
    }

    #[test]
    fn a_clock_is_named_as_the_manual_page_says() {
        // ((~fd << 3) | 3) of 5 is -48 | 3.
        assert_eq!(clock_of(5), ClockId::from_raw(-45));
    }
}
