//! The host of a run: the facts that its numbers depend on, as far as the host tells them.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;
use thiserror::Error;
use vslice_core::units::PcpuId;

/// The pCPUs that are online, in the form of `/sys/devices/system/cpu/online`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPcpus(BTreeSet<PcpuId>);

/// A text is not a list of pCPUs.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("'{0}' is not a list of pCPUs such as 0-3,5")]
pub struct PcpuListError(pub String);

/// More than the kernel can be built for (`CONFIG_NR_CPUS`), and a bound for a range.
const PCPU_COUNT_MAX: u32 = 8192;

impl HostPcpus {
    /// Reads a list such as `0-3,5`.
    ///
    /// # Errors
    /// [`PcpuListError`] if it is not one.
    pub fn parse(text: &str) -> Result<HostPcpus, PcpuListError> {
        let mut pcpus = BTreeSet::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            match (first.parse::<u32>(), last.parse::<u32>()) {
                (Ok(first), Ok(last)) if first <= last && last < PCPU_COUNT_MAX => {
                    pcpus.extend((first..=last).map(PcpuId));
                }
                _ => return Err(PcpuListError(text.to_owned())),
            }
        }
        Ok(HostPcpus(pcpus))
    }

    /// A list of these pCPUs, for example of a thread's affinity.
    #[must_use]
    pub fn of(pcpus: &[PcpuId]) -> HostPcpus {
        HostPcpus(pcpus.iter().copied().collect())
    }

    /// Whether this pCPU is online.
    #[must_use]
    pub fn contains(&self, pcpu: PcpuId) -> bool {
        self.0.contains(&pcpu)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Each of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = PcpuId> {
        self.0.iter().copied()
    }

    /// `0-3,5`.
    fn ranges(&self) -> String {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for pcpu in &self.0 {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == pcpu.0 => *last = pcpu.0,
                _ => ranges.push((pcpu.0, pcpu.0)),
            }
        }
        let texts = ranges.into_iter().map(|(first, last)| {
            if first == last { first.to_string() } else { format!("{first}-{last}") }
        });
        texts.collect::<Vec<_>>().join(",")
    }
}

impl fmt::Display for HostPcpus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "pCPU{}", self.ranges())
    }
}

impl From<HostPcpus> for String {
    fn from(pcpus: HostPcpus) -> String {
        pcpus.ranges()
    }
}

impl TryFrom<String> for HostPcpus {
    type Error = PcpuListError;
    fn try_from(text: String) -> Result<HostPcpus, PcpuListError> {
        HostPcpus::parse(&text)
    }
}

/// What a run's manifest says about its host. What the host does not tell is `None`, and `unknown` says why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// What it calls itself, as `uname -n` prints it; `None` also in older runs.
    #[serde(default)]
    pub host_name: Option<String>,
    /// As `uname -r` prints it.
    pub kernel_release: Option<String>,
    /// `model name` of `/proc/cpuinfo`.
    pub processor_model: Option<String>,
    /// The pCPUs online.
    pub pcpus_online: Option<HostPcpus>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Ticks per second of the host's kernel, `CONFIG_HZ`: a timeslice that another thread waits for
    /// is a whole number of ticks.
    pub tick_hz: Option<u32>,
    /// How long a thread may keep a pCPU for which others wait.
    #[serde(default)]
    pub slice: Option<Slice>,
    /// The frequency governor of pCPU0.
    pub governor: Option<String>,
    /// The kernel's clock source.
    pub clocksource: Option<String>,
    /// The first line of `qemu-system-x86_64 --version`.
    pub qemu_version: Option<String>,
    /// The disks under the guests' images.
    #[serde(flatten)]
    pub host_disks: HostDisks,
    /// The disk under vslice's own files, which older runs noted instead.
    #[serde(default, rename = "disk", skip_serializing_if = "Option::is_none")]
    pub disk_before: Option<DiskFacts>,
    /// What its kernel is set to; older runs did not note it.
    #[serde(default)]
    pub conditions: Option<Conditions>,
    /// Why each field that is `None` is unknown, keyed by the field's name; older runs did not record it.
    #[serde(default)]
    pub unknown: BTreeMap<String, String>,
}

impl HostFacts {
    /// The host in a few lines, as a report shows it.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let tick = self.tick_hz.map_or(String::new(), |hz| format!(", HZ={hz}"));
        let kernel =
            self.kernel_release.as_ref().map(|release| format!("host kernel {release}{tick}"));
        let pcpus = self.pcpus_online.as_ref().map(|pcpus| format!("{} pCPUs", pcpus.count()));
        let source = self.clocksource.as_ref().map(|source| format!("clock source {source}"));
        let mut lines = vec![
            format!(
                "{}, {}",
                self.known_or_why(kernel, "host kernel", "kernel_release"),
                self.known_or_why(pcpus, "pCPUs", "pcpus_online")
            ),
            format!(
                "{}, {}",
                self.known_or_why(self.processor_model.clone(), "processor", "processor_model"),
                self.known_or_why(source, "clock source", "clocksource")
            ),
            self.known_or_why(self.qemu_version.clone(), "QEMU version", "qemu_version"),
        ];
        if let Some(slice) = &self.slice {
            let expected = Duration::from_nanos(slice.expected_ns).as_secs_f64() * 1e3;
            lines.push(format!("two busy threads on one pCPU alternate every {expected:.2} ms"));
        }
        lines.extend(self.host_disks.lines());
        lines
    }

    /// What is known, or that it is not and why.
    fn known_or_why(&self, known: Option<String>, what: &str, field: &str) -> String {
        known.unwrap_or_else(|| match self.unknown.get(field) {
            Some(reason) => format!("{what} unknown, because {reason}"),
            None => format!("{what} unknown (this run did not record why)"),
        })
    }
}

/// The block device under a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskFacts {
    /// Its name, `vda` for instance.
    pub device: String,
    /// The I/O scheduler in use.
    pub scheduler: Option<String>,
    /// The I/O schedulers that it could use.
    pub schedulers: Vec<String>,
    /// The I/O scheduler that the plan asks for, if any.
    #[serde(default)]
    pub scheduler_asked: Option<String>,
    /// The I/O scheduler before the run, if the run has set another one.
    #[serde(default)]
    pub scheduler_before: Option<String>,
    /// Whether the kernel treats it as a rotating disk.
    pub rotational: Option<bool>,
}

impl DiskFacts {
    /// Its I/O scheduler, or why it is unknown.
    #[must_use]
    pub fn scheduler_text(&self) -> String {
        match &self.scheduler {
            Some(scheduler) => format!("I/O scheduler {scheduler}"),
            None => format!(
                "I/O scheduler unknown, because {}'s queue/scheduler cannot be read or selects none",
                self.device
            ),
        }
    }

    /// What a report says of it.
    fn line(&self) -> String {
        let mut line = format!("host disk {}, {}", self.device, self.scheduler_text());
        let scheduler = self.scheduler.as_deref();
        if let Some(asked) =
            self.scheduler_asked.as_deref().filter(|asked| Some(*asked) != scheduler)
        {
            line.push_str(&format!(" instead of {asked}, which Linux 5.0 removed"));
        }
        if let Some(before) = &self.scheduler_before {
            line.push_str(&format!(" (set for the run; it was {before} before)"));
        }
        line
    }
}

/// The host disks that hold the guests' images.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HostDisks {
    /// Each disk once, in order of names.
    #[serde(default)]
    pub disks: Vec<DiskFacts>,
    /// Why some or all of them are unknown, as sentences without full stops.
    #[serde(default)]
    pub disks_missing: Vec<String>,
}

impl HostDisks {
    /// One line for each, as a report shows it.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let known = self.disks.iter().map(DiskFacts::line);
        let of_some = if self.disks.is_empty() { "host disk" } else { "another host disk" };
        let missing = self.disks_missing.iter();
        known.chain(missing.map(|why| format!("{of_some} unknown, because {why}"))).collect()
    }
}

/// The length of timeslices on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// The scheduler's base slice in nanoseconds.
    pub base_ns: u64,
    /// Where that was read, or how it was derived.
    pub source: String,
    /// The timeslice in nanoseconds of two busy threads of equal weight that share a pCPU: EEVDF's slice, or
    /// half of CFS's period. The scheduler preempts only at ticks (unless HRTICK is on, which it is not by
    /// default), so this is rounded up to whole ticks.
    pub expected_ns: u64,
    /// The shortest timeslice in nanoseconds, in whole ticks, of a thread for whose pCPU others wait; `None`
    /// if it is `expected_ns`.
    #[serde(default)]
    pub shortest_ns: Option<u64>,
}

impl Slice {
    /// The shortest timeslice in nanoseconds, in whole ticks, of a thread for whose pCPU others wait.
    #[must_use]
    pub fn shortest_ns(&self) -> u64 {
        self.shortest_ns.unwrap_or(self.expected_ns)
    }
}

/// The settings of the kernel. What it does not tell is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Conditions {
    /// The kernel's preemption model: `none`, `voluntary`, `full`, `lazy`; `rt` for PREEMPT_RT.
    pub preemption: Option<String>,
    /// The mitigation of each known processor vulnerability, by its name
    /// (Documentation/ABI/testing/sysfs-devices-system-cpu).
    pub mitigations: BTreeMap<String, String>,
    /// Whether simultaneous multithreading is in use: `on`, `off`, `notsupported`, ...
    pub smt: Option<String>,
    /// Whether each session gets its own share of a pCPU (sched(7), autogroup).
    pub is_autogroup_on: Option<bool>,
    /// The cpuidle driver.
    pub idle_driver: Option<String>,
    /// For how long KVM polls on behalf of an idle vCPU at most (its parameter `halt_poll_ns`); `None` where there is
    /// no KVM, and in older runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halt_poll_ns: Option<u64>,
    /// The hypervisor under the host, if the host is a virtual machine itself.
    #[serde(default)]
    pub hypervisor: Option<String>,
    /// Whether that hypervisor has ever reported steal time.
    #[serde(default)]
    pub is_steal_told: bool,
    /// The cpufreq driver of pCPU0.
    #[serde(default)]
    pub frequency_driver: Option<String>,
    /// The lowest frequency of pCPU0, in kHz.
    #[serde(default)]
    pub frequency_min_khz: Option<u64>,
    /// The highest frequency of pCPU0, in kHz.
    #[serde(default)]
    pub frequency_max_khz: Option<u64>,
    /// Whether frequency boost is enabled.
    #[serde(default)]
    pub is_boost_on: Option<bool>,
}

/// A whole disk whose I/O can be recorded, and where a file system begins on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WholeDisk {
    /// Its name, `vda` for instance.
    pub name: String,
    /// Its `dev_t` as the kernel prints it: major in bits 20 and above, minor below.
    pub device: u32,
    /// The disk's sector, of 512 bytes, at which the file system's device begins: that of its
    /// partition, or 0.
    pub first_sector: u64,
}

/// Each pCPU's frequency in MHz. On x86 it is the one of the last tick, as the processor counted
/// (linux/arch/x86/kernel/cpu/aperfmperf.c, `arch_freq_get_on_cpu`), or else the nominal one.
pub type FrequenciesMhz = BTreeMap<PcpuId, f64>;

/// The pCPUs' frequencies at the start and at the end of the measured window.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct FrequencyRecord {
    /// At the start of the window.
    pub start: FrequenciesMhz,
    /// At the end of the window.
    pub end: FrequenciesMhz,
}

impl FrequencyRecord {
    /// `2.45 GHz`, or `1.20 to 2.45 GHz` over these pCPUs, both ends of the window together.
    #[must_use]
    pub fn line(&self, pcpus: &[PcpuId]) -> Option<String> {
        let of = |frequencies: &FrequenciesMhz| -> Vec<f64> {
            pcpus.iter().filter_map(|pcpu| frequencies.get(pcpu).copied()).collect()
        };
        let all = [of(&self.start), of(&self.end)].concat();
        let least = all.iter().copied().reduce(f64::min)? / 1e3;
        let most = all.iter().copied().reduce(f64::max)? / 1e3;
        let (least, most) = (format!("{least:.2}"), format!("{most:.2}"));
        Some(if least == most { format!("{most} GHz") } else { format!("{least} to {most} GHz") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists_of_pcpus_as_the_kernel_writes_them() {
        let pcpus = HostPcpus::parse("0-2,5,7-8").expect("a list");
        assert_eq!(pcpus.count(), 6);
        assert!(pcpus.contains(PcpuId(5)) && !pcpus.contains(PcpuId(6)));
        assert_eq!(pcpus.to_string(), "pCPU0-2,5,7-8");
        for text in ["", "a", "3-1", "0-", "0,,1", "0-99999999"] {
            assert!(HostPcpus::parse(text).is_err(), "'{text}' was taken for a list");
        }
    }

    proptest! {
        #[test]
        fn reading_a_list_that_was_written_gives_it_back(
            numbers in proptest::collection::btree_set(0_u32..300, 1..40)
        ) {
            let pcpus = HostPcpus(numbers.into_iter().map(PcpuId).collect());
            let json = serde_json::to_string(&pcpus).expect("a string");
            prop_assert_eq!(serde_json::from_str::<HostPcpus>(&json).expect("a list"), pcpus);
        }
    }

    #[test]
    fn what_an_older_run_does_not_know_has_no_reason_and_no_default() {
        let facts: HostFacts = serde_json::from_value(serde_json::json!({
            "kernel_release": null, "processor_model": null, "pcpus_online": null,
            "memory_bytes": null, "tick_hz": null, "governor": null, "clocksource": null,
            "qemu_version": null,
        }))
        .unwrap();
        let lines = facts.lines();
        assert_eq!(
            lines[0],
            "host kernel unknown (this run did not record why), pCPUs unknown (this run did not record why)"
        );
    }

    #[test]
    fn a_scheduler_that_is_not_known_has_its_reason() {
        let disk = DiskFacts {
            device: "vdb".to_owned(),
            scheduler: None,
            schedulers: vec![],
            scheduler_asked: None,
            scheduler_before: None,
            rotational: None,
        };
        assert_eq!(
            disk.line(),
            "host disk vdb, I/O scheduler unknown, because vdb's queue/scheduler cannot be read or selects none"
        );
    }
}
