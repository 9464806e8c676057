//! How fast the host's pCPUs run.

use std::fs;
use vslice_core::units::PcpuId;
use vslice_trace::host::FrequenciesMhz;

/// The frequencies in MHz of all pCPUs that are online; none if the kernel does not report them, as on
/// Arm.
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

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_trace::host::FrequencyRecord;

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
