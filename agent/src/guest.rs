//! What the agent says about the machine it runs on.

use crate::load::{Clock, Target};
use nix::unistd::{SysconfVar, sysconf};
use std::collections::BTreeSet;
use vslice_perf::online;
use vslice_wire::{
    ClockKind, GuestDisk, Hello, NAME_BYTES_MAX, PROTOCOL_VERSION, Ready, TARGET_BYTES_MAX,
};

/// All vCPUs that are online have numbers below this. One that is offline between others has one too.
pub(crate) fn vcpu_count() -> u16 {
    let online = online::cpus().ok().and_then(|vcpus| after(&vcpus));
    let count = || sysconf(SysconfVar::_NPROCESSORS_ONLN).ok().flatten()?.try_into().ok();
    online.or_else(count).unwrap_or(1)
}

fn after(vcpus: &BTreeSet<u32>) -> Option<u16> {
    u16::try_from(vcpus.last()? + 1).ok()
}

pub(crate) fn hello() -> Hello {
    let kernel_release = nix::sys::utsname::uname()
        .map(|names| names.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    Hello {
        protocol_version: PROTOCOL_VERSION,
        agent_version: cut(env!("CARGO_PKG_VERSION"), NAME_BYTES_MAX),
        kernel_release: cut(&kernel_release, NAME_BYTES_MAX),
        vcpu_count: vcpu_count(),
        tsc_invariant: Clock::tsc_is_invariant(),
    }
}

pub(crate) fn ready(clock: Clock, target: &Target) -> Ready {
    Ready {
        clock: if clock.is_tsc() { ClockKind::Tsc } else { ClockKind::MonotonicRaw },
        target: cut(&target.path.to_string_lossy(), TARGET_BYTES_MAX),
        target_bytes: target.bytes,
        clock_source: cut(clock_source().trim(), NAME_BYTES_MAX),
        disk: target.place.as_ref().map(|place| GuestDisk {
            size_bytes: place.disk_bytes,
            target_offset_bytes: place.offset_bytes,
            io_scheduler: cut(place.io_scheduler.as_deref().unwrap_or_default(), NAME_BYTES_MAX),
        }),
    }
}

/// What the guest's kernel takes its time from; empty where sysfs does not say.
fn clock_source() -> String {
    let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    std::fs::read_to_string(path).unwrap_or_default()
}

/// A path that is no UTF-8 gets longer when it is made so.
fn cut(text: &str, max_bytes: usize) -> String {
    text[..text.floor_char_boundary(max_bytes)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use vslice_spec::ClockChoice;
    use vslice_wire::{Frame, GuestFrame};

    #[test]
    fn vcpus_are_counted_up_to_the_last_that_is_online() {
        assert_eq!(after(&[0, 2, 3].into()), Some(4));
        assert_eq!(after(&BTreeSet::new()), None);
        let own: BTreeSet<u32> = online::cpus().unwrap();
        assert!(own.iter().all(|vcpu| *vcpu < vcpu_count().into()));
    }

    #[test]
    fn hello_can_be_sent() {
        let hello = hello();
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        assert_eq!(hello.kernel_release, release.trim());
        assert!(hello.vcpu_count >= 1);
        GuestFrame::Hello(hello).encode(&mut Vec::new()).unwrap();
    }

    #[test]
    fn a_path_that_is_no_utf8_can_be_sent() {
        let path = OsStr::from_bytes(&[0xff; TARGET_BYTES_MAX]).into();
        let ready = ready(
            Clock::choose(ClockChoice::MonotonicRaw),
            &Target { path, bytes: 1, place: None },
        );
        assert_eq!(ready.clock, ClockKind::MonotonicRaw);
        assert_eq!(ready.target.len(), TARGET_BYTES_MAX - 1);
        assert!(!ready.clock_source.is_empty() && !ready.clock_source.ends_with('\n'));
        GuestFrame::Ready(ready).encode(&mut Vec::new()).unwrap();
    }
}
