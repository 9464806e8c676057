//! The guest that runs `vslice-agent solo`: a QEMU that waits until it is told to start.

use libtest_mimic::Failed;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use vslice_core::units::{HostNs, PcpuId, Tid, VcpuId};
use vslice_host::host_clock::host_now;
use vslice_host::pin::set_affinity;
use vslice_host::threads::list;
use vslice_lab::tools;
use vslice_trace::thread::ThreadRole;

/// A TCG guest is up in some ten seconds; then it measures for ten, and prints a long report over
/// a slow console. On a busy host all of that takes several times as long.
const END_LIMIT: Duration = Duration::from_secs(300);

const PARAMETER: &str = "vslice.solo=duration=10s,vcpus=1,json,gaps";

/// A QEMU that is not left behind, and the way to its monitor.
pub(super) struct Guest {
    qemu: Child,
    monitor: ChildStdin,
    answers: BufReader<ChildStdout>,
    console: PathBuf,
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

impl Guest {
    /// Starts QEMU; the guest itself waits for [`Guest::go`].
    pub(super) fn new(image: &Path, dir: &Path) -> Result<Guest, Failed> {
        let qemu: PathBuf = tools::find(tools::QEMU).ok_or("there is no QEMU")?;
        let console = dir.join("console");
        let chardev = format!("file,id=console,path={}", console.display());
        let mut command = Command::new(qemu);
        command.args(["-name", "solo,debug-threads=on", "-nodefaults", "-no-user-config"]);
        command.args(["-display", "none", "-machine", "pc", "-accel", "tcg,thread=multi"]);
        command.args(["-cpu", "max", "-smp", "2", "-m", "256M", "-no-reboot"]);
        command.arg("-kernel").arg(image.join("vmlinux"));
        command.arg("-initrd").arg(image.join("initramfs.cpio.gz"));
        command.args(["-append", &format!("console=ttyS0 quiet panic=-1 {PARAMETER}")]);
        command.args(["-chardev", &chardev, "-serial", "chardev:console"]);
        command.args(["-S", "-qmp", "stdio"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut qemu = command.spawn()?;
        let pipes = qemu.stdin.take().zip(qemu.stdout.take());
        let (monitor, answers) = pipes.ok_or("QEMU has no monitor")?;
        let mut guest = Guest { qemu, monitor, answers: BufReader::new(answers), console };
        guest.ask("qmp_capabilities")?;
        Ok(guest)
    }

    /// Asks the monitor, and waits for its answer; what else it says meanwhile is passed over.
    fn ask(&mut self, what: &str) -> Result<(), Failed> {
        writeln!(self.monitor, r#"{{"execute":"{what}"}}"#)?;
        loop {
            let mut line = String::new();
            if self.answers.read_line(&mut line)? == 0 {
                return Err(format!("QEMU's monitor is gone before {what}").into());
            }
            let said: Value = serde_json::from_str(&line)?;
            if said.get("return").is_some() {
                return Ok(());
            }
            if let Some(error) = said.get("error") {
                return Err(format!("{what}: {error}").into());
            }
        }
    }

    /// Pins vCPU1's thread to one pCPU and all others to another one, and returns the former.
    pub(super) fn place(&self, contended: PcpuId, others: PcpuId) -> Result<Tid, Failed> {
        let threads = list(Tid(self.qemu.id()))?;
        let vcpu = threads.iter().find(|thread| thread.role == ThreadRole::Vcpu(VcpuId(1)));
        let vcpu = vcpu.ok_or("QEMU has no thread of vCPU1")?.tid;
        for thread in &threads {
            let pcpu = if thread.tid == vcpu { contended } else { others };
            set_affinity(thread.tid, &[pcpu])?;
        }
        Ok(vcpu)
    }

    /// Lets the guest run. Between the two moments that are returned its TSC was 0: QEMU lets it begin
    /// when the machine does (`cpu_enable_ticks`, softmmu/cpu-timers.c).
    pub(super) fn go(&mut self) -> Result<(HostNs, HostNs), Failed> {
        let before = host_now();
        self.ask("cont")?;
        Ok((before, host_now()))
    }

    /// Waits until the guest has powered off, and returns the report on its console.
    pub(super) fn report(&mut self) -> Result<Value, Failed> {
        let deadline = Instant::now() + END_LIMIT;
        while self.qemu.try_wait()?.is_none() {
            if Instant::now() > deadline {
                let said = fs::read_to_string(&self.console).unwrap_or_default();
                return Err(format!("the guest did not end; it said:\n{said}").into());
            }
            sleep(Duration::from_millis(50));
        }
        report_in(&fs::read_to_string(&self.console)?)
    }
}

/// The report on the guest's console, between its two lines.
fn report_in(console: &str) -> Result<Value, Failed> {
    let report = console
        .split_once("vslice-solo: begin")
        .and_then(|(_, rest)| rest.split_once("vslice-solo: end").map(|(report, _)| report));
    let report = report.ok_or_else(|| format!("no report on the console:\n{console}"))?;
    Ok(serde_json::from_str(report)?)
}
