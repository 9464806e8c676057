//! Metrics as others read them: what Prometheus's own parser for Python finds in the text is what was told.
//!
//! It is in the environment that `tests/readers` makes; without it the test is ignored, and says so.

use libtest_mimic::{Arguments, Failed, Trial};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use vslice_export::prometheus::{METRICS, MetricType, Metrics};
use vslice_report::live::example::second;

const READ: &str = "
import sys
from prometheus_client.parser import text_string_to_metric_families
for family in text_string_to_metric_families(sys.stdin.read()):
    print(family.type, family.name, family.documentation)
    for sample in family.samples:
        print('=', sample.name, sorted(sample.labels.items()), sample.value)
";

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let name = "prometheuss_own_parser_finds_every_metric_and_what_it_is";
    let trial = match python() {
        Ok(python) => Trial::test(name, move || read_back(&python)),
        Err(reason) => Trial::test(name, || Ok(())).with_kind(reason).with_ignored_flag(true),
    };
    libtest_mimic::run(&arguments, vec![trial]).exit_code()
}

fn python() -> Result<PathBuf, String> {
    let directory = std::env::var_os("VSLICE_READERS").map(PathBuf::from);
    let directory = directory.ok_or("VSLICE_READERS is not set, see make test")?;
    let python = directory.join("bin/python3");
    python
        .exists()
        .then_some(python)
        .ok_or_else(|| format!("{} has no bin/python3, see make test", directory.display()))
}

fn check(condition: bool, what: impl FnOnce() -> String) -> Result<(), Failed> {
    if condition { Ok(()) } else { Err(what().into()) }
}

fn read_back(python: &PathBuf) -> Result<(), Failed> {
    let mut metrics = Metrics::default();
    let mut odd = second(0);
    odd.vms[1].name = "a\"b\\c{}=,\n".to_owned();
    [odd, second(1)].iter().for_each(|second| metrics.add(second));
    let mut child = Command::new(python)
        .args(["-c", READ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    child.stdin.take().ok_or("no pipe")?.write_all(metrics.text().as_bytes())?;
    let output = child.wait_with_output()?;
    check(output.status.success(), || "the text is not read".to_owned())?;
    let read = String::from_utf8(output.stdout)?;
    for metric in METRICS {
        let kind = match metric.metric_type {
            MetricType::Seconds | MetricType::Count => "counter",
            MetricType::Gauge => "gauge",
            MetricType::Histogram => "histogram",
        };
        // The parser calls a counter without its `_total`.
        let name = metric.name.strip_suffix("_total").unwrap_or(metric.name);
        let head = format!("{kind} {name} {}\n", metric.help);
        check(read.contains(&head), || format!("no {head:?} in\n{read}"))?;
    }
    let labels = "[('vcpu', '0'), ('vm', 'db1')]";
    let ready = format!("= vslice_vcpu_ready_seconds_total {labels} 0.62\n");
    check(read.contains(&ready), || format!("no {ready:?} in\n{read}"))?;
    // As Python writes it: a backslash twice.
    check(read.contains("('vm', 'a\"b\\\\c{}=,?')"), || format!("an odd name is lost:\n{read}"))
}
