//! Which CPUs there are, and the size of what is mapped for them.

use nix::unistd::{SysconfVar, sysconf};
use std::collections::BTreeSet;
use std::io;

/// CPU numbers are below this: the most that `CONFIG_NR_CPUS` may be, x86's `MAXSMP`.
pub const CPUS_MAX: u32 = 8192;

/// The CPUs that are online.
///
/// # Errors
/// When sysfs cannot be read, or says what is no list.
pub fn cpus() -> io::Result<BTreeSet<u32>> {
    let list = std::fs::read_to_string("/sys/devices/system/cpu/online")?;
    cpu_list(&list).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The size of a page.
///
/// # Errors
/// When the system does not say it.
pub fn page_bytes() -> io::Result<usize> {
    let size = sysconf(SysconfVar::PAGE_SIZE)?.and_then(|size| usize::try_from(size).ok());
    size.ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// `0-3,8` as numbers; `None` for anything else.
#[must_use]
pub fn cpu_list(list: &str) -> Option<BTreeSet<u32>> {
    let mut cpus = BTreeSet::new();
    let is_known = |cpu: &u32| *cpu < CPUS_MAX;
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok().filter(is_known)?);
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_read() {
        let list = |list| cpu_list(list).map(|cpus| cpus.into_iter().collect());
        assert_eq!(list("0-2,8\n"), Some(vec![0, 1, 2, 8]));
        assert_eq!(list("5"), Some(vec![5]));
        assert_eq!(list("x"), None);
        assert_eq!(list("0-4294967295"), None, "no machine has as many");
    }
}
