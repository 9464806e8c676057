//! Halt polling, recorded: a guest that is idle for a moment at a time, and what KVM itself counts of it.

use super::{LONGEST, Outcome, check, not_judged};
use libtest_mimic::Failed;
use serde_json::{Value, json};
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};
use vslice_core::host_event::{HostEventKind, KvmEvent};
use vslice_core::timeline::{RunMode, ThreadState, Timeline};
use vslice_core::units::{PcpuId, Tid};
use vslice_host::pin;
use vslice_host::qmp::Qmp;
use vslice_record::perf::{KvmDetail, RecordPlan, check_rights};
use vslice_selftest::rig::machine::{Machine, MachineConfig};
use vslice_selftest::{ObserveError, Observed, observe};

/// How long is recorded at a time.
const WINDOW: Duration = Duration::from_secs(2);

/// So much polling is enough to be compared with KVM's own count.
const POLLED_MIN_NS: u64 = 1_000_000;

/// Why polling cannot be seen here.
pub(crate) fn missing() -> Option<String> {
    let parameter = "/sys/module/kvm/parameters/halt_poll_ns";
    let is_off = fs::read_to_string(parameter).is_ok_and(|text| text.trim() == "0");
    let off = is_off.then(|| format!("{parameter} is 0"));
    off.or_else(|| check_rights().err().map(|error| error.to_string()))
}

/// vslice and KVM tell of the same polling. Where others want the pCPU, KVM polls little or not at all.
pub(crate) fn polling_is_told(config: &MachineConfig) -> Outcome {
    let machine = Machine::start(config)?;
    let placement = config.placement.expect("the tests place all machines");
    // While the thread that raises the timer's interrupt is on the vCPU's pCPU, KVM does not poll there.
    keep_timer_away(machine.pid(), placement.others)?;
    let mut monitor = Qmp::connect(&machine.second_monitor())?;
    let deadline = Instant::now() + LONGEST;
    loop {
        let before_ns = counted_ns(&mut monitor)?;
        let told_ns = told_ns(&machine, placement.vcpu)?;
        let counted_ns = counted_ns(&mut monitor)?.saturating_sub(before_ns);
        // KVM counts from before the record began until after it has ended, and to the end of a poll, not
        // of what follows before the thread sleeps.
        check(told_ns <= counted_ns + counted_ns / 4, || {
            format!("vslice tells of {told_ns} ns of polling, KVM of {counted_ns} ns")
        })?;
        if counted_ns >= POLLED_MIN_NS {
            // Polls under 10 us before a sleep are left out.
            return check(told_ns >= counted_ns / 2, || {
                format!("vslice tells of {told_ns} ns of polling only, KVM of {counted_ns} ns")
            });
        }
        if Instant::now() >= deadline {
            not_judged("KVM hardly polls here, as others want the pCPU");
            return check(told_ns > 0 || counted_ns == 0, || {
                format!("vslice tells of no polling, KVM of {counted_ns} ns")
            });
        }
    }
}

/// For how long KVM polled, by what is recorded.
fn told_ns(machine: &Machine, pcpu: PcpuId) -> Result<u64, Failed> {
    let vcpu = machine.vcpu();
    let plan = RecordPlan {
        vcpu_tids: vec![vcpu],
        pcpus: vec![pcpu],
        kvm: KvmDetail::Exits,
        ..RecordPlan::default()
    };
    let during = || -> Result<(), ObserveError> {
        sleep(WINDOW);
        Ok(())
    };
    let (observed, ()) = observe(&plan, during)?;
    let halts = observed.events().iter().filter(|event| {
        matches!(event.kind, HostEventKind::Kvm { event: KvmEvent::HaltEnd { .. }, .. })
    });
    check(halts.count() > 0, || "no halt was recorded".to_owned())?;
    Ok(polled_ns(&observed, vcpu))
}

fn polled_ns(observed: &Observed, vcpu: Tid) -> u64 {
    let mut timeline = Timeline::new([vcpu], observed.stacks());
    let mut polled_ns = 0;
    let mut sink = |span: vslice_core::timeline::Span| {
        if matches!(span.state, ThreadState::Running { mode: RunMode::HaltPoll, .. }) {
            polled_ns += span.length_ns();
        }
    };
    observed.events().iter().for_each(|event| timeline.push(event, &mut sink));
    timeline.finish(observed.end, &mut sink);
    polled_ns
}

/// For how long KVM has polled since the guest began, by its own count.
fn counted_ns(monitor: &mut Qmp) -> Result<u64, Failed> {
    let answer = monitor.execute("query-stats", json!({ "target": "vcpu" }))?;
    let stats = answer[0]["stats"].as_array().ok_or("QEMU knows no figures of KVM's")?;
    let value = |name: &str| -> u64 {
        let stat = stats.iter().find(|stat| stat["name"] == name);
        stat.and_then(|stat| stat["value"].as_u64()).unwrap_or(0)
    };
    let has = |name: &str| stats.iter().any(|stat: &Value| stat["name"] == name);
    check(has("halt_poll_success_ns"), || format!("KVM does not count its polling: {answer}"))?;
    Ok(value("halt_poll_success_ns") + value("halt_poll_fail_ns"))
}

/// KVM's timer chip is a thread of the kernel that ends with the VM (arch/x86/kvm/i8254.c).
fn keep_timer_away(vmm: Tid, pcpu: PcpuId) -> Outcome {
    let name = format!("kvm-pit/{vmm}");
    for entry in fs::read_dir("/proc")?.flatten() {
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if comm.trim_end() == name {
            let tid = entry.file_name().to_string_lossy().parse().map(Tid)?;
            pin::set_affinity(tid, &[pcpu])?;
        }
    }
    Ok(())
}
