//! What happens to observed guests in the middle of a run.

use crate::bad_luck::{UNTIL_RECORDING, failed_with, is_partial, qemu_of};
use libtest_mimic::Failed;
use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use vslice_tests::{Lab, Run, Started, processes_with};

/// The demo, whose first guest is observed, a moment after the first observed requests have been stored.
fn observing(lab: &Lab) -> Result<(Started, tempfile::TempDir), Failed> {
    let directory = tempfile::tempdir()?;
    let plan = directory.path().join("observed.toml");
    let toml = lab.command(&["plan", "show", "demo"]).output()?.stdout;
    let toml =
        String::from_utf8_lossy(&toml).replacen("[vm.reader]", "[vm.observe]\n[vm.reader]", 1);
    fs::write(&plan, toml)?;
    let plan = plan.to_string_lossy().into_owned();
    // A vsock device in user space does not survive that its VM is stopped.
    let way = ["--accelerator", "tcg", "--vsock", "virtio-serial"];
    let mut started = lab.start(&[&[&*plan, "--total", "4GiB"], &way[..]].concat())?;
    started.wait_until(UNTIL_RECORDING, |dir| observed_bytes(dir) > 512)?;
    Ok((started, directory))
}

/// How much is stored of what was observed.
fn observed_bytes(run_dir: &Path) -> u64 {
    fs::metadata(run_dir.join("observed-vm1.vsr")).map_or(0, |file| file.len())
}

/// Some requests were kept, and the disk that they are of is known.
fn observed_some(run: &Run) -> Result<(), Failed> {
    let manifest: Value = serde_json::from_slice(&fs::read(run.run_dir().join("run.json"))?)?;
    let observation = &manifest["vms"][0]["observation"];
    let count = observation["requests_count"].as_u64().unwrap_or(0);
    if count > 0 && observation["devices"][0]["name"] == "vda" {
        return Ok(());
    }
    Err(format!("nothing was observed: {observation:#}").into())
}

pub(super) fn dies(lab: &Lab) -> Result<(), Failed> {
    let (started, _plan) = observing(lab)?;
    kill(qemu_of("vm1", &started.run_dir())?, Signal::SIGKILL)?;
    let run = started.finish()?;
    failed_with(&run, 1, "vm1")?;
    is_partial(&run)?;
    observed_some(&run)
}

/// As by `virsh suspend`, or at the end of a migration. It is less than the agent's lease.
const STANDSTILL: Duration = Duration::from_millis(700);

/// How long a guest may take to be heard of again.
const UNTIL_GOING_ON: Duration = Duration::from_secs(30);

/// The run is so long that it has not ended by itself before it was seen to go on.
pub(super) fn stops(lab: &Lab) -> Result<(), Failed> {
    let (mut started, _plan) = observing(lab)?;
    let mut monitor = Monitor::connect(&started)?;
    monitor.execute("stop")?;
    std::thread::sleep(STANDSTILL);
    let stored_bytes = observed_bytes(&started.run_dir());
    monitor.execute("cont")?;
    started.wait_until(UNTIL_GOING_ON, |dir| observed_bytes(dir) > stored_bytes)?;
    kill(started.pid(), Signal::SIGINT)?;
    let run = started.finish()?;
    failed_with(&run, 130, "interrupted")?;
    is_partial(&run)?;
    run.nothing_is_left()?;
    observed_some(&run)
}

/// QEMU's monitor; nothing is said to it while requests are measured, but for this.
struct Monitor {
    stream: UnixStream,
    answers: BufReader<UnixStream>,
}

impl Monitor {
    fn connect(started: &Started) -> Result<Monitor, Failed> {
        let processes = processes_with(&started.run_dir());
        let words = processes.iter().flat_map(|(_, line)| line.split([' ', ',', '=', ':']));
        let mut sockets = words.filter(|word| word.ends_with("vm1.qmp")).map(PathBuf::from);
        let socket = sockets.next().ok_or_else(|| format!("no monitor in {processes:#?}"))?;
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut monitor = Monitor { answers: BufReader::new(stream.try_clone()?), stream };
        monitor.execute("qmp_capabilities")?;
        Ok(monitor)
    }

    fn execute(&mut self, command: &str) -> Result<(), Failed> {
        writeln!(self.stream, "{{\"execute\":\"{command}\"}}")?;
        loop {
            let mut line = String::new();
            self.answers.read_line(&mut line)?;
            // The greeting and events stand in between.
            if line.contains("\"return\"") {
                return Ok(());
            }
            if line.is_empty() || line.contains("\"error\"") {
                return Err(format!("{command}: {line:?}").into());
            }
        }
    }
}
