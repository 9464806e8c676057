//! Time of the pCPUs that a hypervisor below this host kept for others.

use std::fs;

/// What a hypervisor below this host has kept of its pCPUs' time since it booted, all pCPUs added up, in
/// steps of 10 ms; `None` if the kernel does not say.
#[must_use]
pub fn stolen_ns() -> Option<u64> {
    stolen(&fs::read_to_string("/proc/stat").ok()?)
}

/// The eighth number of `cpu`, in hundredths of a second (proc_stat(5), `USER_HZ`, which is 100 wherever
/// vslice runs).
fn stolen(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    line.split_whitespace().nth(7)?.parse::<u64>().ok()?.checked_mul(10_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_hypervisor_kept_is_the_eighth_number() {
        let stat = "cpu  745654 0 287681 562091 3761 0 1372 1345 22 0\ncpu0 1 2 3 4 5 6 7 8 9 0\n";
        assert_eq!(stolen(stat), Some(13_450_000_000));
        assert_eq!(stolen("cpu  1 2 3 4\n"), None, "a kernel from before 2.6.11");
        assert_eq!(stolen("cpu0 1 2 3 4 5 6 7 8\n"), None);
    }
}
