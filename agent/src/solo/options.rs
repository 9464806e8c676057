//! The command line of `vslice-agent solo`.

use anyhow::bail;
use clap::{Args, Parser};
use std::path::PathBuf;
use std::time::Duration;
use vslice_spec::{ClockChoice, duration};
use vslice_workload::clock::Clock;

/// Shorter, and the loop's own jitter is all gaps.
const THRESHOLD_MIN: Duration = Duration::from_nanos(500);

/// Measures, from inside the guest alone, whether its vCPUs are taken away, for how long and how
/// regularly.
///
/// On each vCPU a loop reads a clock as fast as it can. If two readings are further apart than the
/// threshold, something took the vCPU: the guest's own scheduler, an interrupt, or the host. The guest
/// kernel's counters of the loop's thread tell which one it was; a gap that they cannot explain is called
/// unknown. The vCPUs are fully busy during the run.
///
/// No rights are needed. On bare metal the "host" is the firmware.
#[derive(Debug, Clone, Args)]
pub(crate) struct Solo {
    /// How long to measure; Ctrl-C ends it earlier, with a report
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration::parse)]
    pub(crate) duration: Duration,
    /// The vCPUs to watch, such as `1,2` [default: all that this process may use]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = parse_vcpu)]
    pub(crate) vcpus: Vec<u16>,
    /// Two clock readings that are further apart than this are a gap
    #[arg(long, value_name = "TIME", default_value = "20us", value_parser = duration::parse)]
    pub(crate) threshold: Duration,
    /// A gap longer than this, while the loop's thread was running, is attributed to the host and not to
    /// an interrupt
    #[arg(long, value_name = "TIME", default_value = "100us", value_parser = duration::parse)]
    pub(crate) interrupt_max: Duration,
    /// Clock that the loop reads: auto, tsc or raw (CLOCK_MONOTONIC_RAW)
    #[arg(long, value_name = "CLOCK", default_value = "auto", value_parser = parse_clock)]
    pub(crate) clock: Clock,
    /// Print JSON (schema `vslice.solo/1`: times are integers in nanoseconds)
    #[arg(long)]
    pub(crate) json: bool,
    /// List every gap in the JSON
    #[arg(long, requires = "json")]
    pub(crate) gaps: bool,
    /// Write gap and timeslice lengths to FILE as an HdrHistogram interval log
    #[arg(long, value_name = "FILE")]
    pub(crate) hlog: Option<PathBuf>,
    /// Also read FILE or a disk (`auto` for the only one) with O_DIRECT in 4 KiB blocks on the last of
    /// the vCPUs, and show how far gaps overlap the slow requests
    #[arg(long, value_name = "FILE")]
    pub(crate) read: Option<String>,
    /// A request that takes longer than this is slow [default: the 99th percentile]
    #[arg(long, value_name = "TIME", requires = "read", value_parser = duration::parse)]
    pub(crate) slow: Option<Duration>,
    /// Only measure the resolution of the loop, and the cost of reading the counters
    #[arg(long, conflicts_with_all = ["read", "hlog", "gaps"])]
    pub(crate) calibrate: bool,
}

impl Solo {
    /// What clap does not check.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if self.duration < Duration::from_millis(10) {
            bail!("the duration is below 10 ms, too short to measure anything: use seconds");
        }
        if self.threshold < THRESHOLD_MIN {
            bail!(
                "the threshold is below {THRESHOLD_MIN:?}, which is within the loop's own jitter"
            );
        }
        if self.interrupt_max < self.threshold {
            bail!("--interrupt-max is below --threshold: no gap could be an interrupt");
        }
        for (index, vcpu) in self.vcpus.iter().enumerate() {
            if self.vcpus[..index].contains(vcpu) {
                bail!("vCPU{vcpu} is named twice");
            }
        }
        Ok(())
    }

    /// Reads the value of `vslice.solo=` on a kernel command line: options by their names without
    /// dashes, separated by commas, so that a list of vCPUs is joined by `+`.
    pub(crate) fn from_kernel_parameter(value: &str) -> Result<Solo, clap::Error> {
        #[derive(Debug, Parser)]
        #[command(name = "vslice.solo", no_binary_name = true)]
        struct Line {
            #[command(flatten)]
            solo: Solo,
        }
        let options = value.split(',').filter(|option| !option.is_empty());
        let arguments = options.map(|option| match option.split_once('=') {
            Some(("vcpus", list)) => format!("--vcpus={}", list.replace('+', ",")),
            _ => format!("--{option}"),
        });
        Line::try_parse_from(arguments).map(|line| line.solo)
    }
}

fn parse_vcpu(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("{text:?} is not a vCPU number"))
}

fn parse_clock(text: &str) -> Result<Clock, String> {
    match text {
        "auto" => Ok(Clock::choose_for_one_vcpu()),
        "tsc" => Ok(Clock::choose(ClockChoice::Tsc)),
        "raw" => Ok(Clock::MonotonicRaw),
        _ => Err(format!("{text:?} is not a clock: use auto, tsc or raw")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_parameter_is_the_command_line() {
        let solo =
            Solo::from_kernel_parameter("duration=5s,vcpus=0+1,json,threshold=30us").unwrap();
        assert_eq!(solo.duration, Duration::from_secs(5));
        assert_eq!(solo.vcpus, [0, 1]);
        assert!(solo.json && !solo.gaps);
        assert_eq!(solo.threshold, Duration::from_micros(30));
        assert_eq!(Solo::from_kernel_parameter("").unwrap().duration, Duration::from_secs(10));
        assert!(Solo::from_kernel_parameter("nonsense=1").is_err());
        let solo = Solo::from_kernel_parameter("duration=1.5s,slow=2,read=auto").unwrap();
        assert_eq!(solo.duration, Duration::from_millis(1_500));
        assert_eq!(solo.slow, Some(Duration::from_secs(2)));
    }

    #[test]
    fn what_measures_nothing_is_refused() {
        for value in ["duration=9ms", "threshold=499ns", "threshold=200us", "vcpus=1+2+1"] {
            let solo = Solo::from_kernel_parameter(value).unwrap();
            assert!(solo.check().is_err(), "{value}");
        }
        assert!(
            Solo::from_kernel_parameter("duration=10ms,threshold=100us").unwrap().check().is_ok()
        );
    }
}
