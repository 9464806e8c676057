//! `vslice-agent solo` in a guest against the host's truth of the same run: the switches of the
//! vCPU's thread, as the kernel told them.

mod truth;

use crate::Case;
use libtest_mimic::Failed;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};
use truth::{Agreement, Interval, Seen, agreement, off_intervals};
use vslice::host_event::{HostEvent, HostEventKind};
use vslice::lab::tools;
use vslice::perf::{RecordPlan, Recorder, SinkError};
use vslice::rig::inject::rival;
use vslice::units::{PcpuId, Tid, VcpuId};
use vslice::vmm::pin::set_affinity;
use vslice::vmm::threads::{ThreadRole, list};
use vslice_tests::Lab;
use vslice_workload::clock::Clock;
use vslice_workload::gap::{TickRate, TickSample};
use vslice_workload::spec::ClockChoice;

pub(crate) const CASES: &[Case] = &[("solo_sees_what_the_host_took", agrees)];

/// A TCG guest is up in some ten seconds; then it measures for five, and prints a long report over
/// a slow console.
const END_LIMIT: Duration = Duration::from_secs(180);

/// From the start of its threads to the start of its clock QEMU takes a few milliseconds, on a busy
/// host longer.
const START_LIMIT_NS: u64 = 500_000_000;

const PARAMETER: &str = "vslice.solo=duration=5s,vcpus=1,json,gaps";

/// Where vCPU1 and its rival are; everything else of the guest is on the other one.
const CONTENDED: PcpuId = PcpuId(1);
const OTHERS: PcpuId = PcpuId(0);

/// A QEMU that is not left behind.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn agrees(lab: &Lab) -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let console = dir.path().join("console");
    let clock = Clock::choose(ClockChoice::Tsc);
    let first = TickSample::take(clock);
    let mut guest = boot(lab.image(), &console)?;
    let vcpu = place(&guest)?;
    let placed = TickSample::take(clock);
    let switches = Arc::new(Mutex::new(Vec::new()));
    let recorder = record(vcpu, &switches)?;
    let stolen_before_ns = stolen_ns();
    let rival = rival::start(CONTENDED)?;
    let ended = wait_for_end(&mut guest, &console);
    drop(rival);
    let totals = recorder.stop()?;
    ended?;
    // The guest's TSC runs at the host's rate.
    let rate = TickRate::between(first, TickSample::take(clock)).ok_or("the TSC stands still")?;
    if totals.counters.lost_count > 0 {
        return Err("the host lost events, so there is no truth".into());
    }
    let report = report_in(&fs::read_to_string(&console)?)?;
    let switches = switches.lock().unwrap_or_else(PoisonError::into_inner);
    let truth = off_intervals(&switches, vcpu);
    let seen = seen_by(&report["vcpus"][0], rate)?;
    let begun = (first.raw_ns, placed.raw_ns + START_LIMIT_NS);
    let agreement =
        agreement(&truth, &seen, begun).ok_or("no gap of the guest fits any of the host's")?;
    say(&agreement, stolen_ns().saturating_sub(stolen_before_ns));
    demanded(&agreement).map_err(|what| format!("{what}: {agreement:#?}").into())
}

/// For whoever wants to know how good it was, and not only that it was good enough.
fn say(agreement: &Agreement, stolen_ns: u64) {
    let Agreement {
        host_gaps,
        recall,
        precision,
        timeslice_mean_ns,
        timeslice_p50_ns,
        timeslice_p90_ns,
        timeslice_p99_ns,
        ..
    } = agreement;
    let stolen_ms = stolen_ns / 1_000_000;
    let text = format!(
        "solo: {host_gaps} host gaps above 100 us, recall {recall:.3}, precision {precision:.3}; \
         timeslices by guest and host: mean {timeslice_mean_ns:.0?} ns, p50 {timeslice_p50_ns:?} ns, p90 {timeslice_p90_ns:?} ns, p99 {timeslice_p99_ns:?} ns; \
         {stolen_ms} ms of {CONTENDED} were stolen from this host itself"
    );
    // Nothing hangs on it.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// What this host's own hypervisor has taken of the contended pCPU since the boot: gaps of a guest's
/// guest that no switch of this host shows. 0 if the kernel does not say.
fn stolen_ns() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let name = format!("cpu{}", CONTENDED.0);
    let line = stat.lines().find(|line| line.split_whitespace().next() == Some(&name));
    // The eighth number, in hundredths of a second (proc_stat(5)).
    let steal = line.and_then(|line| line.split_whitespace().nth(8)?.parse::<u64>().ok());
    steal.unwrap_or(0) * 10_000_000
}

/// Floors that tell a broken probe from a noisy run, and not what is wanted of it.
///
/// Wanted are a recall of 0.99, a precision of 0.95 and timeslices within 5 %. Under TCG, on two pCPUs,
/// runs have a recall of 0.997 to 1 and a precision of 0.92 to 1; the timeslices' p50 is short by 1 to
/// 8 %: that is how long QEMU takes, back on its pCPU, until the guest goes on, which is the host's too but
/// in none of its switches. Where one timeslice in ten, or in a hundred, is of two ticks, p90 or p99 is
/// as often one tick as two (seen: p90 of 3.99 ms in the guest, 7.62 ms on the host, recall 1.000);
/// the mean has no such step.
fn demanded(agreement: &Agreement) -> Result<(), &'static str> {
    let Agreement { host_gaps, recall, precision, .. } = *agreement;
    let is_close = |(guest_ns, host_ns): (u64, u64)| guest_ns.abs_diff(host_ns) * 10 <= host_ns;
    let is_near = |(guest_ns, host_ns): (f64, f64)| (guest_ns - host_ns).abs() * 5.0 <= host_ns;
    for (what, holds) in [
        ("too few gaps to judge", host_gaps >= 200),
        ("the recall is below 0.95", recall >= 0.95),
        ("the precision is below 0.8", precision >= 0.8),
        ("the timeslices' p50 is off by a tenth", is_close(agreement.timeslice_p50_ns)),
        ("the timeslices' mean is off by a fifth", is_near(agreement.timeslice_mean_ns)),
    ] {
        if !holds {
            return Err(what);
        }
    }
    Ok(())
}

fn boot(image: &Path, console: &Path) -> Result<Guest, Failed> {
    let qemu: PathBuf = tools::find(tools::QEMU).ok_or("there is no QEMU")?;
    let chardev = format!("file,id=console,path={}", console.display());
    let mut command = Command::new(qemu);
    command.args(["-name", "solo,debug-threads=on", "-nodefaults", "-no-user-config"]);
    command.args(["-display", "none", "-machine", "pc", "-accel", "tcg,thread=multi"]);
    command.args(["-cpu", "max", "-smp", "2", "-m", "256M", "-no-reboot"]);
    command.arg("-kernel").arg(image.join("vmlinuz"));
    command.arg("-initrd").arg(image.join("initramfs.cpio.gz"));
    command.args(["-append", &format!("console=ttyS0 quiet panic=-1 {PARAMETER}")]);
    command.args(["-chardev", &chardev, "-serial", "chardev:console"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(Guest(command.spawn()?))
}

/// Pins the guest's threads once they are there, and returns the one of vCPU1.
fn place(guest: &Guest) -> Result<Tid, Failed> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let threads = list(Tid(guest.0.id()))?;
        let vcpu = threads.iter().find(|thread| thread.role == ThreadRole::Vcpu(VcpuId(1)));
        if let Some(vcpu) = vcpu {
            for thread in &threads {
                let pcpu = if thread.tid == vcpu.tid { CONTENDED } else { OTHERS };
                set_affinity(thread.tid, &[pcpu])?;
            }
            return Ok(vcpu.tid);
        }
        if Instant::now() > deadline {
            return Err("QEMU has no thread of vCPU1".into());
        }
        sleep(Duration::from_millis(5));
    }
}

/// Records every switch of the vCPU's thread.
fn record(vcpu: Tid, switches: &Arc<Mutex<Vec<HostEvent>>>) -> Result<Recorder, Failed> {
    let kept = Arc::clone(switches);
    let sink = move |_: PcpuId, events: &[HostEvent]| -> Result<(), SinkError> {
        let is_ours = |event: &&HostEvent| match &event.kind {
            HostEventKind::Switch(switch) => switch.prev == vcpu || switch.next == vcpu,
            _ => false,
        };
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(events.iter().filter(is_ours).cloned());
        Ok(())
    };
    let plan = RecordPlan {
        vcpu_tids: vec![vcpu],
        vm_tids: vec![vcpu],
        pcpus: vec![CONTENDED],
        reader_pcpu: Some(OTHERS),
        ..RecordPlan::default()
    };
    Ok(Recorder::start(&plan, sink)?)
}

fn wait_for_end(guest: &mut Guest, console: &Path) -> Result<(), Failed> {
    let deadline = Instant::now() + END_LIMIT;
    while guest.0.try_wait()?.is_none() {
        if Instant::now() > deadline {
            let said = fs::read_to_string(console).unwrap_or_default();
            return Err(format!("the guest did not end; it said:\n{said}").into());
        }
        sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// The report on the guest's console, between its two lines.
fn report_in(console: &str) -> Result<Value, Failed> {
    let report = console
        .split_once("vslice-solo: begin")
        .and_then(|(_, rest)| rest.split_once("vslice-solo: end").map(|(report, _)| report));
    let report = report.ok_or_else(|| format!("no report on the console:\n{console}"))?;
    Ok(serde_json::from_str(report)?)
}

/// What the guest saw, on a clock that runs like the host's but begins elsewhere.
fn seen_by(vcpu: &Value, rate: TickRate) -> Result<Seen, Failed> {
    let number = |value: &Value| value.as_u64().ok_or_else(|| format!("no number in {vcpu:#}"));
    let mut gaps = Vec::new();
    for gap in vcpu["gap_list"].as_array().ok_or("no list of gaps")? {
        let start = rate.ns(number(&gap["start_ticks"])?);
        let is_host = gap["kind"].as_str().is_some_and(|kind| kind.starts_with("host"));
        // The handler of a pending tick at the end of a host gap is the guest's.
        let handler_ns =
            if is_host { gap["parts_ns"]["guest_interrupt"].as_u64().unwrap_or(0) } else { 0 };
        let end = start + number(&gap["length_ns"])?.saturating_sub(handler_ns);
        let interval = Interval { start, end };
        gaps.push((interval, is_host));
    }
    let (begun, _) = gaps.first().ok_or("the guest saw no gap")?;
    let offset = number(&vcpu["gap_list"][0]["start_ns"])?;
    let begun = begun.start.saturating_sub(offset);
    let ended = begun + number(&vcpu["measured_ns"])?;
    Ok(Seen { gaps, begun, ended })
}
