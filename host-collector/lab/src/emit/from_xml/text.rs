//! The texts of a domain: names, amounts and sets of pCPUs.

use vslice_core::units::PcpuId;

/// A name that a plan can have, made of a domain's.
pub(super) fn plan_name(name: &str) -> String {
    let fits = |character: char| match character.to_ascii_lowercase() {
        fitting @ ('a'..='z' | '0'..='9') => fitting,
        _ => '-',
    };
    let name: String = name.chars().map(fits).collect();
    let name: String = name.trim_matches('-').chars().take(32).collect();
    if name.is_empty() { "domain".to_owned() } else { name }
}

/// An amount of memory in KiB, by libvirt's words for units: those of two letters are of 1000.
pub(super) fn kib_text(amount: u64, unit: &str) -> Option<u64> {
    let bytes = match unit {
        "b" | "bytes" => 1,
        "KB" => 1_000,
        "k" | "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "M" | "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "G" | "GiB" => 1 << 30,
        "TB" => 1_000_000_000_000,
        "T" | "TiB" => 1_u64 << 40,
        _ => return None,
    };
    Some(amount.checked_mul(bytes)? >> 10)
}

/// The first pCPU of a set such as `1-4,^3,8`, and whether the set has others.
pub(super) fn first_pcpu(set: &str) -> Option<(PcpuId, bool)> {
    let mut ranges = Vec::new();
    let mut excluded = Vec::new();
    for part in set.split(',').map(str::trim) {
        if let Some(pcpu) = part.strip_prefix('^') {
            excluded.push(pcpu.parse::<u32>().ok()?);
        } else {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
            ranges.push(first..=last);
        }
    }
    ranges.sort_by_key(|range| *range.start());
    // No further than the exclusions reach is anything skipped, so a wide range costs nothing.
    let mut pcpus = ranges.into_iter().flatten().filter(|pcpu| !excluded.contains(pcpu));
    let first = pcpus.next()?;
    Some((PcpuId(first), pcpus.any(|pcpu| pcpu != first)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_to_fit() {
        assert_eq!(plan_name("kvm1"), "kvm1");
        assert_eq!(plan_name("Web Server_2"), "web-server-2");
        assert_eq!(plan_name("--"), "domain");
        assert_eq!(plan_name(&"x".repeat(40)).len(), 32);
    }

    #[test]
    fn the_first_of_a_set_is_told_with_whether_there_are_others() {
        let table = [
            ("5", Some((5, false))),
            ("1-4", Some((1, true))),
            ("1-4,^1", Some((2, true))),
            ("8,0-1,^0", Some((1, true))),
            ("3,3", Some((3, false))),
            ("^1", None),
            ("", None),
            ("a-b", None),
            ("0-4294967295", Some((0, true))),
        ];
        for (set, expected) in table {
            let read = first_pcpu(set).map(|(pcpu, others)| (pcpu.0, others));
            assert_eq!(read, expected, "{set}");
        }
    }

    #[test]
    fn an_amount_has_its_unit() {
        assert_eq!(kib_text(4_194_304, "KiB"), Some(4_194_304));
        assert_eq!(kib_text(2, "GiB"), Some(2 << 20));
        assert_eq!(kib_text(1, "parsec"), None);
        assert_eq!(kib_text(u64::MAX, "TiB"), None);
    }
}
