//! How fast the host's pCPUs run.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use vslice_core::units::PcpuId;

/// Each pCPU's frequency in MHz. On x86 it is the one of the last tick, as the processor counted
/// (linux/arch/x86/kernel/cpu/aperfmperf.c, `arch_freq_get_on_cpu`), or else the nominal one.
pub type FrequenciesMhz = BTreeMap<PcpuId, f64>;

/// Of all pCPUs online now; none where the kernel does not say, as on Arm.
#[must_use]
pub fn of_pcpus() -> FrequenciesMhz {
    parse(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
}

fn parse(cpuinfo: &str) -> FrequenciesMhz {
    let mut frequencies = FrequenciesMhz::new();
    let mut pcpu = None;
    for (key, value) in cpuinfo.lines().filter_map(|line| line.split_once(':')) {
        match key.trim() {
            "processor" => pcpu = value.trim().parse().ok().map(PcpuId),
            "cpu MHz" => {
                frequencies.extend(pcpu.zip(value.trim().parse::<f64>().ok()));
            }
            _ => {}
        }
    }
    frequencies
}

/// What the frequencies of a window's start and end came to.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct FrequencyRecord {
    /// When the window began.
    pub start: FrequenciesMhz,
    /// When it ended.
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

    #[test]
    fn each_processor_has_its_frequency() {
        let text = "processor\t: 0\nmodel name\t: x: 2.9 GHz\ncpu MHz\t\t: 2445.404\n\n\
                    processor\t: 3\ncpu MHz\t\t: 1200.0\n";
        let start = parse(text);
        assert_eq!(start, FrequenciesMhz::from([(PcpuId(0), 2445.404), (PcpuId(3), 1200.0)]));
        assert!(parse("processor\t: 0\nBogoMIPS\t: 50\n").is_empty(), "Arm");
        let record = FrequencyRecord { start: start.clone(), end: start };
        assert_eq!(record.line(&[PcpuId(0), PcpuId(1)]).as_deref(), Some("2.45 GHz"));
        assert_eq!(record.line(&[PcpuId(0), PcpuId(3)]).as_deref(), Some("1.20 to 2.45 GHz"));
        assert_eq!(record.line(&[PcpuId(1)]), None);
    }
}
