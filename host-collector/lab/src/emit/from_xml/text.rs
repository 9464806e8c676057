//! The texts of a domain: names, amounts and sets of pCPUs.

use std::collections::BTreeSet;
use vslice_core::text::harmless;
use vslice_core::units::PcpuId;
use vslice_trace::host::HostPcpus;

/// As many pCPUs as libvirt has in a set (`VIR_DOMAIN_CPUMASK_LEN` in src/conf/domain_conf.h, libvirt 11.3).
const PCPUS_MAX: u32 = 16_384;

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

/// What a comment or a message can quote of a strange file: one line, and no more than a sentence holds.
pub(super) fn quoted(text: &str) -> String {
    const CHARACTERS_MAX: usize = 64;
    let one_line = |letter: char| if letter.is_control() { ' ' } else { letter };
    let shown: String = text.trim().chars().take(CHARACTERS_MAX).map(one_line).collect();
    let rest = if text.trim().chars().count() > CHARACTERS_MAX { "..." } else { "" };
    format!("{}{rest}", harmless(&shown))
}

/// An amount of memory in KiB, rounded up, by libvirt's words for units: those of two letters are of 1000
/// (`virScaleInteger` in src/util/virutil.c, libvirt 11.3). Without a unit it is KiB.
pub(super) fn kib_text(amount: u64, unit: &str) -> Option<u64> {
    let unit = unit.to_ascii_lowercase();
    let bytes = match unit.as_str() {
        "b" | "byte" | "bytes" => 1,
        _ => {
            let mut letters = unit.chars();
            let power = "kmgtpe".find(letters.next()?)? + 1;
            let base: u64 = match letters.as_str() {
                "" | "ib" => 1024,
                "b" => 1000,
                _ => return None,
            };
            base.pow(u32::try_from(power).ok()?)
        }
    };
    Some(amount.checked_mul(bytes)?.div_ceil(1 << 10))
}

/// The pCPUs of a set such as `1-4,^3,8`, which is read from left to right (`virBitmapParse` in
/// src/util/virbitmap.c, libvirt 11.3). None where it has none.
pub(super) fn cpuset(set: &str) -> Option<BTreeSet<PcpuId>> {
    let number = |text: &str| text.trim().parse::<u32>().ok().filter(|pcpu| *pcpu < PCPUS_MAX);
    let mut pcpus = BTreeSet::new();
    for part in set.split(',').map(str::trim) {
        if let Some(pcpu) = part.strip_prefix('^') {
            pcpus.remove(&PcpuId(number(pcpu)?));
        } else {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            pcpus.extend((first..=last).map(PcpuId));
        }
    }
    (!pcpus.is_empty()).then_some(pcpus)
}

/// `pCPU0-3,5`.
pub(super) fn list(pcpus: impl IntoIterator<Item = PcpuId>) -> String {
    HostPcpus::of(&pcpus.into_iter().collect::<Vec<_>>()).to_string()
}

/// `vCPU0-3,5`.
pub(super) fn vcpu_list(vcpus: impl IntoIterator<Item = u16>) -> String {
    let numbers = list(vcpus.into_iter().map(|vcpu| PcpuId(u32::from(vcpu))));
    numbers.replacen("pCPU", "vCPU", 1)
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
    fn what_is_quoted_is_one_line() {
        assert_eq!(quoted(" a\nb\u{7f}\u{2028}c "), "a b ?c");
        assert_eq!(quoted(&"x".repeat(65)), format!("{}...", "x".repeat(64)));
    }

    #[test]
    fn a_set_is_read_as_libvirt_reads_it() {
        let table = [
            ("5", Some(vec![5])),
            ("1-4", Some(vec![1, 2, 3, 4])),
            ("1-4,^1", Some(vec![2, 3, 4])),
            ("8, 0 - 1 ,^0", Some(vec![1, 8])),
            ("^3,3", Some(vec![3])),
            ("3,3", Some(vec![3])),
            ("16383", Some(vec![16_383])),
            ("^1", None),
            ("1,^1", None),
            ("4-1", None),
            ("", None),
            ("a-b", None),
            ("0-4294967295", None),
        ];
        for (set, expected) in table {
            let read =
                cpuset(set).map(|set| set.into_iter().map(|pcpu| pcpu.0).collect::<Vec<_>>());
            assert_eq!(read, expected, "{set}");
        }
        assert_eq!(vcpu_list([0, 1, 2, 5]), "vCPU0-2,5");
    }

    #[test]
    fn an_amount_has_its_unit() {
        assert_eq!(kib_text(4_194_304, "KiB"), Some(4_194_304));
        assert_eq!(kib_text(2, "GiB"), Some(2 << 20));
        assert_eq!(kib_text(2, "g"), Some(2 << 20));
        assert_eq!(kib_text(1, "MB"), Some(977));
        assert_eq!(kib_text(1, "Bytes"), Some(1));
        assert_eq!(kib_text(1, "EiB"), Some(1 << 50));
        assert_eq!(kib_text(1, "parsec"), None);
        assert_eq!(kib_text(1, ""), None);
        assert_eq!(kib_text(u64::MAX, "TiB"), None);
    }
}
