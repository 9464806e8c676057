//! fio with the options that make it quick, for the same windows on the same file.

use super::rounds::Setting;
use super::task::BLOCK_BYTES;
use anyhow::{Context, bail};
use serde_json::Value;
use std::process::{Command, Stdio};
use std::time::Duration;
use vslice_spec::Engine;

/// What a window of fio came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    /// Requests a second.
    pub(crate) per_second: f64,
    /// The CPU time that it took for each, in ns.
    pub(crate) processor_ns: f64,
}

/// Why fio cannot be run.
pub(crate) fn missing() -> Option<String> {
    let mut command = Command::new("fio");
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    let error = command.status().err()?;
    Some(format!("cannot run fio ({error}): install fio"))
}

/// What its log adds to a request, in ns: it asks for the latency alone, which is the least that it can
/// log of each request, and makes none (its engine `null`).
pub(crate) fn record(setting: &Setting<'_>, window: Duration) -> anyhow::Result<f64> {
    let null = ["--ioengine=null", "--size=1G", "--disable_slat=1", "--disable_clat=1"];
    let null = null.map(str::to_owned);
    let without = rate(setting, &null, window)?.per_second;
    let log = format!("--write_lat_log={}", setting.scratch.join("log").display());
    let with = rate(setting, &[&null[..], &[log]].concat(), window)?.per_second;
    Ok(1e9 / with - 1e9 / without)
}

/// What it reads without a log.
pub(crate) fn read(
    setting: &Setting<'_>,
    engine: Engine,
    depth: u16,
    window: Duration,
) -> anyhow::Result<Rate> {
    let target = setting.target.to_str().context("the target's name is no UTF-8")?;
    // A colon separates files.
    let mut options = vec![
        format!("--filename={}", target.replace(':', "\\:")),
        format!("--size={}", setting.target_bytes),
        "--direct=1".to_owned(),
    ];
    match engine {
        Engine::Psync => options.push("--ioengine=psync".to_owned()),
        Engine::IoUring => {
            let quick = ["--ioengine=io_uring", "--fixedbufs=1", "--registerfiles=1"];
            options.extend(quick.map(str::to_owned));
            options.push(format!("--iodepth={depth}"));
        }
    }
    rate(setting, &options, window)
}

fn rate(setting: &Setting<'_>, options: &[String], window: Duration) -> anyhow::Result<Rate> {
    let output = Command::new("fio")
        .current_dir(setting.scratch)
        .args([
            "--name=bench",
            "--rw=randread",
            "--norandommap=1",
            "--time_based",
            "--output-format=json",
        ])
        .args([format!("--bs={BLOCK_BYTES}"), format!("--runtime={}ms", window.as_millis())])
        .arg(format!("--cpus_allowed={}", setting.places.measured.0))
        .args(options)
        .output()
        .context("cannot run fio")?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("fio: {}{}", said.trim(), String::from_utf8_lossy(&output.stderr).trim());
    }
    of_json(&said)
}

/// The rate that fio's JSON tells. Remarks may stand before it.
pub(crate) fn of_json(said: &str) -> anyhow::Result<Rate> {
    let begin = said.find('{').context("fio says nothing")?;
    let told: Value = serde_json::from_str(&said[begin..]).context("fio's result")?;
    let job = &told["jobs"][0];
    if job["error"].as_i64() != Some(0) {
        bail!("fio: error {}", job["error"]);
    }
    let told = [
        &job["read"]["total_ios"],
        &job["read"]["runtime"],
        &job["job_runtime"],
        &job["usr_cpu"],
        &job["sys_cpu"],
    ];
    let [Some(requests), Some(ms), Some(job_ms), Some(user), Some(system)] =
        told.map(Value::as_f64)
    else {
        bail!("fio tells no rate: {job}")
    };
    anyhow::ensure!(requests > 0.0 && ms > 0.0, "fio read nothing");
    // Percent of the job's milliseconds.
    let processor_ns = (user + system) / 100.0 * job_ms * 1e6 / requests;
    Ok(Rate { per_second: requests * 1000.0 / ms, processor_ns })
}
