//! Runs of eight hosts, two of each, drawn: before and after a day on which their vCPUs began to wait less.

use std::path::Path;
use vslice_core::host_event::PrevState;
use vslice_core::units::{HostNs, PcpuId};
use vslice_report::analyse::drawn::{
    START_NS, VM1_VCPU1, VM2_VCPU1, clock_sample, guest_at, manifest, names, run_in, stream,
    switch, vm, waking,
};
use vslice_trace::date::DateSample;
use vslice_trace::manifest::{Manifest, Status, Window};
use vslice_trace::{RequestItem, RunDir, VmName};
use vslice_wire::Request;

const HOSTS: u64 = 8;

/// Turns of a run: in each vm1's vCPU loses its pCPU once, sleeps on the big lock once, and has one request.
const TURNS: u64 = 200;
const TURN_US: u64 = 4_000;

/// Noon of 2026-11-24 and of the day after (`date -u -d '2026-11-24 12:00' +%s`).
const DAYS_S: [u64; 2] = [1_795_521_600, 1_795_608_000];

/// A run of one of the hosts.
pub(crate) struct HostRun {
    pub(crate) host: String,
    pub(crate) day: &'static str,
    pub(crate) kernel: &'static str,
    pub(crate) qemu: &'static str,
    pub(crate) dir: RunDir,
}

/// All runs, in a folder for each host.
pub(crate) fn runs(folder: &Path) -> Vec<HostRun> {
    let pairs = (0..HOSTS).flat_map(|host| [(host, 0), (host, 1)]);
    pairs.map(|(host, day)| run(folder, host, day)).collect()
}

fn run(folder: &Path, host: u64, day: usize) -> HostRun {
    let name = format!("kvm{host}");
    let kernel = if host < 4 { "6.1.0-40-amd64" } else { "6.12.48-amd64" };
    let qemu = ["QEMU emulator version 7.2.19", "QEMU emulator version 10.1.0"][day];
    // Two runs of a host may have the same name, in different folders.
    let path = folder.join(&name).join(day.to_string()).join("1");
    std::fs::create_dir_all(path.parent().expect("it has one"))
        .expect("a scratch directory takes it");
    let dir = run_in(&path, &manifest_of(&name, kernel, qemu, day, host));
    names(&dir);
    streams(&dir, host, day as u64);
    let day = ["2026-11-24", "2026-11-25"][day];
    HostRun { host: name, day, kernel, qemu, dir }
}

fn manifest_of(name: &str, kernel: &str, qemu: &str, day: usize, host: u64) -> Manifest {
    let environment = serde_json::json!({
        "host_name": name, "kernel_release": kernel, "qemu_version": qemu, "tick_hz": 250,
        "processor_model": "drawn", "pcpus_online": "0-1", "memory_bytes": null, "governor": null,
        "clocksource": "tsc",
    });
    let start_ns = HostNs(START_NS);
    let end_ns = Some(HostNs(START_NS + TURNS * TURN_US * 1_000));
    let realtime_ns = DAYS_S[day] * 1_000_000_000;
    let drawn = manifest();
    let [_, second] = &drawn.vms[..] else { panic!("two VMs are drawn") };
    let neighbour = format!("noisy{host}");
    let vms = vec![drawn.vms[0].clone(), vm(&neighbour, second.pid, VM2_VCPU1, false)];
    let is_cut = host == 5 && day == 1;
    let partial = Status::Partial { why: "it was interrupted".to_owned() };
    Manifest {
        status: if is_cut { partial } else { Status::Complete },
        environment: Some(serde_json::from_value(environment).expect("facts of a host")),
        window: Some(Window { start_ns, end_ns }),
        dates: vec![DateSample { host_ns: start_ns, realtime_ns }],
        vms,
        ..drawn
    }
}

/// How long the neighbour has the pCPU in a turn: on the first day longer, and longer by host.
fn preempted_us(host: u64, day: u64, turn: u64) -> u64 {
    100 + 60 * host * (2 - day) + turn * 37 % 101
}

fn streams(dir: &RunDir, host: u64, day: u64) {
    let (runs, preempted) = (PrevState::Runnable, PrevState::RunnablePreempted);
    let mut events = vec![switch(5, VM2_VCPU1, preempted, VM1_VCPU1)];
    let (mut wakings, mut requests, mut samples) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..TURNS {
        let at = turn * TURN_US;
        let back = at + 200 + preempted_us(host, day, turn);
        let asleep = at + 2_000;
        let locked_us = 20 + turn % 7 * (host + 1);
        events.extend([
            switch(at + 200, VM1_VCPU1, preempted, VM2_VCPU1),
            switch(back, VM2_VCPU1, runs, VM1_VCPU1),
            switch(asleep, VM1_VCPU1, PrevState::Sleep, VM2_VCPU1),
            switch(asleep + locked_us + 30, VM2_VCPU1, preempted, VM1_VCPU1),
        ]);
        wakings.push(waking(asleep + locked_us));
        requests.push(RequestItem::Request(Request {
            index: turn,
            submitted: guest_at(at + 100),
            completed: guest_at(back + 50 + turn % 11),
            vcpu_submitted: 1,
            vcpu_completed: 1,
            result: 4096,
        }));
        samples.push(clock_sample(1, at + 3_000, at + 3_000));
    }
    let vm1 = VmName::try_from("vm1").expect("a name");
    stream(&dir.events_path(PcpuId(1)), events, true);
    stream(&dir.events_path(PcpuId(0)), wakings, true);
    stream(&dir.requests_path(&vm1), requests, true);
    stream(&dir.clock_path(&vm1), samples, true);
}
