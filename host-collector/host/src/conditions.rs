//! Settings of the host's kernel that move a run's numbers, beside its versions: two runs under different
//! ones are not comparable.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use vslice_trace::host::Conditions;

/// Reads the conditions of this host.
#[must_use]
pub fn of_host() -> Conditions {
    Conditions {
        preemption: preemption(),
        mitigations: mitigations(Path::new("/sys/devices/system/cpu/vulnerabilities")),
        smt: read("/sys/devices/system/cpu/smt/control"),
        is_autogroup_on: read("/proc/sys/kernel/sched_autogroup_enabled").map(|text| text == "1"),
        idle_driver: read("/sys/devices/system/cpu/cpuidle/current_driver"),
        halt_poll_ns: read("/sys/module/kvm/parameters/halt_poll_ns")
            .and_then(|text| text.parse().ok()),
        hypervisor: hypervisor(),
        is_steal_told: super::steal::stolen_ns().is_some_and(|stolen_ns| stolen_ns > 0),
        frequency_driver: read(format!("{CPUFREQ}/scaling_driver")),
        frequency_min_khz: read_number("scaling_min_freq"),
        frequency_max_khz: read_number("scaling_max_freq"),
        is_boost_on: is_boost_on(),
    }
}

/// The flag is CPUID leaf 1, ECX bit 31, which hypervisors set; DMI has the machine's name.
fn hypervisor() -> Option<String> {
    let cpuinfo = read("/proc/cpuinfo")?;
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"))?;
    flags.split_whitespace().any(|flag| flag == "hypervisor").then(|| {
        let dmi = |name| read(format!("/sys/class/dmi/id/{name}"));
        let words: Vec<String> =
            ["sys_vendor", "product_name"].into_iter().filter_map(dmi).collect();
        if words.is_empty() { "not named by DMI".to_owned() } else { words.join(" ") }
    })
}

/// Documentation/admin-guide/pm/cpufreq.rst.
const CPUFREQ: &str = "/sys/devices/system/cpu/cpu0/cpufreq";

fn read_number(name: &str) -> Option<u64> {
    read(format!("{CPUFREQ}/{name}"))?.parse().ok()
}

/// `intel_pstate` has a file of its own, with the opposite meaning (Documentation/admin-guide/pm).
fn is_boost_on() -> Option<bool> {
    let no_turbo = read("/sys/devices/system/cpu/intel_pstate/no_turbo").map(|text| text == "0");
    no_turbo.or_else(|| read("/sys/devices/system/cpu/cpufreq/boost").map(|text| text == "1"))
}

fn preemption() -> Option<String> {
    if read("/sys/kernel/realtime").is_some_and(|text| text == "1") {
        return Some("rt".to_owned());
    }
    match read("/sys/kernel/debug/sched/preempt") {
        Some(text) => in_brackets(&text),
        None => by_version(&read("/proc/sys/kernel/version")?),
    }
}

/// `none voluntary (full) lazy`: the one in use (kernel/sched/core.c, `sched_dynamic_show`).
fn in_brackets(text: &str) -> Option<String> {
    let (_, after) = text.split_once('(')?;
    Some(after.split_once(')')?.0.to_owned())
}

/// `#1 SMP PREEMPT_DYNAMIC Thu ...`: what the kernel was built for (init/Makefile), where that says it.
fn by_version(version: &str) -> Option<String> {
    let word = version.split_whitespace().find(|word| word.starts_with("PREEMPT"));
    match word {
        // Which one it is set to is only in debugfs.
        Some("PREEMPT_DYNAMIC") => Some("dynamic".to_owned()),
        Some("PREEMPT_RT") => Some("rt".to_owned()),
        Some("PREEMPT_LAZY") => Some("lazy".to_owned()),
        Some(_) => Some("full".to_owned()),
        None => Some("none or voluntary".to_owned()),
    }
}

fn mitigations(directory: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let entry =
        |entry: fs::DirEntry| Some((entry.file_name().into_string().ok()?, read(entry.path())?));
    entries.filter_map(entry).collect()
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preemption_model_is_read_where_the_kernel_says_it() {
        assert_eq!(in_brackets("none voluntary (full) lazy").as_deref(), Some("full"));
        assert_eq!(in_brackets("none voluntary full"), None);
        for (version, model) in [
            ("#1 SMP PREEMPT_DYNAMIC Debian 6.1.1-1", "dynamic"),
            ("#1 SMP PREEMPT_RT Thu Jan 1", "rt"),
            ("#1 SMP PREEMPT Thu Jan 1", "full"),
            ("#1 SMP Thu Jan 1", "none or voluntary"),
        ] {
            assert_eq!(by_version(version).as_deref(), Some(model), "{version}");
        }
    }

    #[test]
    fn each_weakness_has_its_line() {
        let directory = tempfile::tempdir().expect("scratch");
        fs::write(directory.path().join("meltdown"), "Mitigation: PTI\n").expect("writable");
        let expected = BTreeMap::from([("meltdown".to_owned(), "Mitigation: PTI".to_owned())]);
        assert_eq!(mitigations(directory.path()), expected);
        assert!(mitigations(&directory.path().join("nowhere")).is_empty());
    }

    #[test]
    fn this_host_says_something() {
        assert!(of_host().preemption.is_some(), "/proc/sys/kernel/version is always there");
    }
}
