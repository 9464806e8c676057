//! Advice on drawn runs: what there is, what there is not, and what it rests on.

use super::setup::{Machine, MachineDisk};
use super::*;
use crate::summary::causes::Kind;
use crate::summary::example::{
    self, START, VM1, blocked, preempted, request, running, set_io, woken,
};
use crate::summary::model::PcpuUse;
use crate::summary::{Facts, Summary, SummaryBuilder};
use proptest::prelude::*;
use vslice_core::timeline::{Reason, Span, ThreadState};
use vslice_core::units::{HostNs, PcpuId, Tid, VcpuId};
use vslice_trace::evidence::EvidenceLevel;
use vslice_trace::quota::{GroupRecord, Quota, Throttling};
use vslice_trace::thread::ThreadRole;
use vslice_trace::vmm::{Accelerator, DomainRecord, Vmm};

const SCOPE: &str = "/sys/fs/cgroup/machine.slice/machine-qemu\\x2d1\\x2d";

/// A drawn run of vm1's reader: of so many requests every fortieth is slow.
struct Drawn {
    requests: u64,
    slow: Vec<Span>,
    /// When the host has the I/O of a slow one, of all of its length in hundredths.
    io: (u64, u64),
    /// For how long vm2's vCPU1 ran, and pCPU0 was idle.
    vm2_ran_ns: u64,
    pcpu0_idle_ns: u64,
    setup: Setup,
}

impl Drawn {
    fn new(slow: Vec<Span>) -> Drawn {
        Drawn {
            requests: 2_000,
            slow,
            io: (0, 1),
            vm2_ran_ns: 300_000_000,
            pcpu0_idle_ns: 700_000_000,
            setup: setup(Accelerator::Kvm),
        }
    }

    fn summary(&self) -> Summary {
        let mut builder = SummaryBuilder::new(START, example::vms());
        let mut at = HostNs(START.0 + 1_000);
        for index in 0..self.requests {
            let is_slow = index % 40 == 0;
            // No two are alike, so that some are slower than p99.
            let more = running(1 + index * 20);
            let slow = || self.slow.iter().cloned().chain([more]).collect();
            let spans = if is_slow { slow() } else { vec![running(100_000)] };
            let mut breakdown = request(index, at, spans);
            let length_ns = breakdown.latency_ns();
            let (from, until) = if is_slow { self.io } else { (0, 50) };
            set_io(&mut breakdown, length_ns * from / 100, length_ns * until / 100);
            at = breakdown.end;
            breakdown.chain.spans().for_each(|span| builder.span(span));
            builder.breakdown(VM1, &breakdown);
        }
        builder.span(&Span { tid: Tid(201), ..running(self.vm2_ran_ns) });
        let mut facts = Facts { setup: self.setup.clone(), ..example::facts() };
        let of = |pcpu, idle_ns| PcpuUse { pcpu: PcpuId(pcpu), seen_ns: 999_000_000, idle_ns };
        facts.run.pcpus = vec![of(0, self.pcpu0_idle_ns), of(1, 0)];
        builder.finish(facts, &example::names())
    }

    fn advice(&self) -> Advice {
        let summary = self.summary();
        rests_on_the_summary(&summary).unwrap();
        summary.advice
    }
}

fn machine(name: &str, first_tid: u32, accelerator: Accelerator) -> Machine {
    let group = GroupRecord {
        path: format!("{SCOPE}{name}.scope"),
        vcpus: vec![VcpuId(0), VcpuId(1)],
        quota: None,
        before: Throttling::default(),
        after: None,
    };
    Machine {
        name: name.to_owned(),
        vmm: Some(Vmm::Qemu),
        accelerator: Some(accelerator),
        domain: Some(DomainRecord { name: name.to_owned(), uri: "qemu:///system".to_owned() }),
        threads: vec![
            (Tid(first_tid), ThreadRole::Vcpu(VcpuId(0))),
            (Tid(first_tid + 1), ThreadRole::Vcpu(VcpuId(1))),
            (Tid(first_tid + 2), ThreadRole::MainLoop),
        ],
        disks: Some(vec![MachineDisk {
            label: "virtio-blk on /x".to_owned(),
            bus: "virtio-blk".to_owned(),
            has_iothread: Some(false),
        }]),
        groups: vec![group],
    }
}

fn setup(accelerator: Accelerator) -> Setup {
    Setup {
        machines: vec![machine("vm1", 100, accelerator), machine("vm2", 200, accelerator)],
        halt_poll_ns: Some(0),
        is_autogroup_on: Some(true),
    }
}

/// Each figure is where it is said to be, and each gain is enough by the bound that promises least.
fn rests_on_the_summary(summary: &Summary) -> Result<(), String> {
    let json = serde_json::to_value(summary).unwrap();
    let Advice { rows, would_not_help, none_because, .. } = &summary.advice;
    let figures = rows.iter().flat_map(|row| &row.figures);
    for figure in figures.chain(would_not_help.iter().flat_map(|row| &row.figures)) {
        if json.pointer(&figure.field) != Some(&serde_json::Value::from(figure.value)) {
            return Err(format!("{figure:?} is {:?}", json.pointer(&figure.field)));
        }
    }
    for row in rows {
        let Gain { measured_ns, least_ns, told_ns, most_ns, .. } = row.gain;
        let is_ordered = least_ns <= told_ns && told_ns <= most_ns && most_ns <= measured_ns;
        if !is_ordered || (least_ns as f64) < 0.0999 * measured_ns as f64 {
            return Err(format!("{:?}", row.gain));
        }
        if row.command.is_some() == row.no_command_because.is_some() || row.figures.len() < 2 {
            return Err(format!("{row:?}"));
        }
    }
    if rows.is_empty() != none_because.is_some() {
        return Err(format!("{none_because:?}"));
    }
    let vain = |remedy| would_not_help.iter().any(|row| row.remedy == remedy);
    let is_pinned = |row: &&AdviceRow| {
        matches!(row.against, Against::OtherVm | Against::ControlGroup | Against::PcpuWait)
            && row.gain.percentile == Percentile::P99
    };
    if vain(Remedy::Pinning) && rows.iter().any(|row| is_pinned(&row)) {
        return Err("pinning helps, and does not".to_owned());
    }
    Ok(())
}

fn one(advice: &Advice) -> &AdviceRow {
    assert_eq!(advice.rows.len(), 1, "{advice:#?}");
    &advice.rows[0]
}

fn throttled(length_ns: u64) -> Span {
    let (pcpu, reason) = (PcpuId(1), Reason::Throttle);
    let state = ThreadState::PreemptWait { pcpu, reason, stack: None, lock: None };
    Span { state, ..preempted(length_ns, &[]) }
}

fn by_vm2() -> Drawn {
    Drawn::new(vec![running(50_000), preempted(4_000_000, &[(201, 4_000_000)]), running(50_000)])
}

/// A run with a neighbour whom a command moves.
pub(in crate::summary) fn with_a_command() -> Summary {
    by_vm2().summary()
}

#[test]
fn a_neighbour_is_moved_to_where_there_was_room() {
    let drawn = by_vm2();
    let advice = drawn.advice();
    let row = one(&advice);
    assert_eq!((row.against, row.action.as_str()), (Against::OtherVm, "Keep vm2 vCPU1 off pCPU1"));
    assert_eq!(row.command.as_deref(), Some("virsh vcpupin vm2 1 0"));
    assert_eq!(
        row.because,
        "vm2 vCPU1 ran there for 97 % of the time of requests above p99, while vm1 vCPU1 waited for it; pCPU0 was idle \
         for 70 % of the run"
    );
    let Gain { percentile, measured_ns, told_ns, .. } = row.gain;
    assert_eq!(percentile, Percentile::P99);
    assert!((100_000..145_000).contains(&(measured_ns - told_ns)), "{advice:#?}");

    let mut launched = by_vm2();
    launched.setup.machines.iter_mut().for_each(|machine| machine.domain = None);
    assert_eq!(one(&launched.advice()).command.as_deref(), Some("taskset -pc 0 201"));
}

#[test]
fn without_room_a_neighbour_weighs_less_if_that_can_be() {
    let mut drawn = by_vm2();
    drawn.pcpu0_idle_ns = 299_000_000;
    let advice = drawn.advice();
    assert_eq!(one(&advice).action, "Let vm2 vCPU1 have less of pCPU1");
    assert_eq!(
        one(&advice).command.as_deref(),
        Some("systemctl set-property --runtime 'machine-qemu\\x2d1\\x2dvm2.scope' CPUWeight=20")
    );
    let one_group = |path: &str, drawn: &mut Drawn| {
        let groups = drawn.setup.machines.iter_mut().flat_map(|machine| &mut machine.groups);
        groups.for_each(|group| path.clone_into(&mut group.path));
    };
    one_group("/sys/fs/cgroup/vms", &mut drawn);
    assert_eq!(one(&drawn.advice()).command.as_deref(), Some("renice -n 19 -p 201"));
    one_group("/sys/fs/cgroup/cpu", &mut drawn);
    let advice = drawn.advice();
    let why = one(&advice).no_command_because.as_deref().unwrap();
    assert!(why.contains("had room: pCPU0") && why.contains("autogroup"), "{why}");
    drawn.setup.is_autogroup_on = Some(false);
    assert_eq!(one(&drawn.advice()).command.as_deref(), Some("renice -n 19 -p 201"));
}

#[test]
fn a_domain_that_is_called_like_a_command_is_one_word() {
    let mut drawn = by_vm2();
    let rename = |drawn: &mut Drawn, name: &str| {
        let domain = drawn.setup.machines[1].domain.as_mut().unwrap();
        name.clone_into(&mut domain.name);
    };
    rename(&mut drawn, "x; rm -rf /");
    let command = one(&drawn.advice()).command.clone();
    assert_eq!(command.as_deref(), Some("virsh vcpupin 'x; rm -rf /' 1 0"));
    rename(&mut drawn, "x\u{1b}[2Jy");
    let advice = drawn.advice();
    assert!(!one(&advice).command.as_deref().unwrap_or_default().contains("virsh"), "{advice:#?}");
}

fn by_build() -> Drawn {
    let ran = [(502, 3_000_000), (501, 1_000_000)];
    Drawn::new(vec![running(50_000), preempted(4_000_000, &ran), running(50_000)])
}

#[test]
fn a_unit_of_the_host_goes_elsewhere_or_weighs_less() {
    let drawn = by_build();
    let advice = drawn.advice();
    let row = one(&advice);
    assert_eq!(
        (row.against, row.action.as_str()),
        (Against::ControlGroup, "Keep build.service off pCPU1")
    );
    assert_eq!(
        row.command.as_deref(),
        Some("systemctl set-property --runtime build.service AllowedCPUs=0")
    );
    let mut full = by_build();
    full.pcpu0_idle_ns = 1_000_000;
    let command = one(&full.advice()).command.clone();
    assert_eq!(
        command.as_deref(),
        Some("systemctl set-property --runtime build.service CPUWeight=20")
    );
}

#[test]
fn a_vmms_own_main_loop_is_the_emulator_of_libvirt() {
    let slow = vec![running(50_000), preempted(4_000_000, &[(102, 4_000_000)]), running(50_000)];
    let drawn = Drawn::new(slow);
    let advice = drawn.advice();
    let row = one(&advice);
    assert_eq!(
        (row.against, row.action.as_str()),
        (Against::OwnVm, "Keep vm1 main loop off pCPU1")
    );
    assert_eq!(row.command.as_deref(), Some("virsh emulatorpin vm1 0"));
}

#[test]
fn for_a_kernels_thread_there_is_no_command() {
    let slow = vec![running(50_000), preempted(4_000_000, &[(7, 4_000_000)]), running(50_000)];
    let advice = Drawn::new(slow).advice();
    let row = one(&advice);
    assert_eq!((row.against, &row.command), (Against::KernelThread, &None));
    assert!(row.action.contains("kworker/1:1"), "{row:#?}");
}

#[test]
fn the_big_lock_asks_for_an_iothread_where_there_is_none() {
    let mut drawn =
        Drawn::new(vec![running(50_000), blocked(Reason::Bql, 4_000_000), running(50_000)]);
    let advice = drawn.advice();
    let row = one(&advice);
    assert_eq!(
        (row.against, row.command.as_deref()),
        (Against::BigLock, Some("virsh iothreadadd vm1 1 --config"))
    );
    assert!(!row.because.contains("TCG"), "{}", row.because);

    drawn.setup = setup(Accelerator::Tcg);
    drawn.setup.machines[0].domain = None;
    let advice = drawn.advice();
    assert!(one(&advice).because.contains("little of the VM under KVM"), "{advice:#?}");
    assert!(
        one(&advice).no_command_because.as_deref().unwrap().contains("-object iothread,id=io0")
    );

    let disks = |drawn: &mut Drawn, change: fn(&mut MachineDisk)| {
        drawn.setup.machines[0].disks.iter_mut().flatten().for_each(change);
    };
    disks(&mut drawn, |disk| disk.has_iothread = None);
    assert_eq!(drawn.advice().rows, [], "whether it has one is not known");
    disks(&mut drawn, |disk| disk.has_iothread = Some(true));
    assert_eq!(drawn.advice().rows, [], "it has one");
    disks(&mut drawn, |disk| disk.bus = "ahci".to_owned());
    assert!(one(&drawn.advice()).action.starts_with("Give the VM a virtio disk"));
}

#[test]
fn an_idle_vcpu_waits_for_the_thread_that_serves_its_disk() {
    let slow = vec![running(50_000), blocked(Reason::Halt, 4_000_000), running(50_000)];
    let drawn = Drawn { io: (90, 91), ..Drawn::new(slow) };
    let advice = drawn.advice();
    let row = one(&advice);
    assert_eq!(row.against, Against::VmmThread);
    assert_eq!(row.command.as_deref(), Some("virsh emulatorpin vm1 0"));
    let elsewhere = Drawn { io: (1, 99), ..drawn };
    let advice = elsewhere.advice();
    assert_eq!(one(&advice).against, Against::Disk, "the disk had it while the vCPU was idle");
    let vain: Vec<Remedy> = advice.would_not_help.iter().map(|row| row.remedy).collect();
    assert_eq!(vain, [Remedy::Iothread, Remedy::Pinning, Remedy::HaltPolling]);
}

#[test]
fn what_is_set_where_a_vm_starts_has_no_command_and_says_so() {
    let slow_by = |reason| vec![running(50_000), blocked(reason, 4_000_000), running(50_000)];
    let advice = Drawn::new(slow_by(Reason::HostFault)).advice();
    let row = one(&advice);
    assert_eq!((row.against, &row.command), (Against::HostFault, &None));
    assert!(row.because.contains("for 97 % of their time until the host had a page"), "{row:#?}");

    let mut drawn = Drawn::new(slow_by(Reason::IoSubmit));
    let advice = drawn.advice();
    let row = one(&advice);
    assert_eq!((row.against, &row.command), (Against::IoSubmit, &None));
    assert!(row.action.contains("an iothread, and aio=native"), "{row:#?}");
    let disks = drawn.setup.machines[0].disks.iter_mut().flatten();
    disks.for_each(|disk| disk.has_iothread = Some(true));
    let advice = drawn.advice();
    assert!(!one(&advice).action.contains("an iothread"), "it has one: {advice:#?}");
}

#[test]
fn where_nobody_is_known_to_be_in_the_way_the_vcpu_gets_a_pcpu_of_its_own() {
    let slow = vec![running(50_000), preempted(4_000_000, &[(999, 4_000_000)]), running(50_000)];
    let mut drawn = Drawn::new(slow);
    let advice = drawn.advice();
    let row = one(&advice);
    assert_eq!(
        (row.against, row.action.as_str(), row.command.as_deref()),
        (Against::PcpuWait, "Give vm1 vCPU1 a pCPU of its own", Some("virsh vcpupin vm1 1 0"))
    );
    drawn.pcpu0_idle_ns = 0;
    let advice = drawn.advice();
    assert!(
        one(&advice).no_command_because.as_deref().unwrap().contains("had room"),
        "{advice:#?}"
    );
}

#[test]
fn a_quota_is_taken_away_where_it_was_used_up() {
    let mut drawn = Drawn::new(vec![running(50_000), throttled(4_000_000), running(50_000)]);
    let advice = drawn.advice();
    assert_eq!((one(&advice).against, &one(&advice).command), (Against::Quota, &None));
    let group = &mut drawn.setup.machines[0].groups[0];
    group.quota = Some(Quota { quota_us: 50_000, period_us: 100_000 });
    group.after = Some(Throttling { throttled_count: 7, throttled_ns: 9_000_000 });
    let advice = drawn.advice();
    assert_eq!(
        one(&advice).command.as_deref(),
        Some("systemctl set-property --runtime 'machine-qemu\\x2d1\\x2dvm1.scope' CPUQuota=")
    );
    assert!(one(&advice).because.contains("in 7 periods"), "{advice:#?}");
}

#[test]
fn a_sleeping_pcpu_is_kept_awake_by_kvm_alone() {
    let idle = Span { antagonists: vec![example::antagonist(Tid(0), 400_000)], ..woken(400_000) };
    let slow = vec![running(50_000), blocked(Reason::Halt, 95_000), idle, running(50_000)];
    let mut drawn = Drawn { io: (10, 20), ..Drawn::new(slow) };
    let against = |advice: &Advice| advice.rows.iter().map(|row| row.against).collect::<Vec<_>>();
    let advice = drawn.advice();
    let row = advice.rows.iter().find(|row| row.against == Against::IdlePcpu).expect("it is there");
    assert_eq!(
        row.command.as_deref(),
        Some("echo 100000 > /sys/module/kvm/parameters/halt_poll_ns")
    );
    drawn.setup.halt_poll_ns = Some(200_000);
    assert!(!against(&drawn.advice()).contains(&Against::IdlePcpu), "it polls so long already");
    drawn.setup = setup(Accelerator::Tcg);
    let advice = drawn.advice();
    assert!(!against(&advice).contains(&Against::IdlePcpu));
    let polling = advice.would_not_help.iter().find(|row| row.remedy == Remedy::HaltPolling);
    assert_eq!(
        polling.map(|row| row.because.as_str()),
        Some("it is KVM's, and under TCG there is none")
    );
}

#[test]
fn there_is_none_below_the_threshold_or_of_a_few_requests_and_it_is_said_why() {
    // Of 100 us some 9 % and some 12 % are gained.
    let spared = |wait_ns| {
        let slow = vec![running(1_000_000), preempted(wait_ns, &[(201, wait_ns)])];
        Drawn::new(slow)
    };
    let below = spared(95_000).advice();
    assert_eq!(below.rows, []);
    assert!(below.none_because.as_deref().unwrap().contains("on a pCPU"), "{below:#?}");
    assert_eq!(spared(130_000).advice().rows.len(), 1);
    let few = Drawn { requests: 900, ..by_vm2() };
    assert_eq!(few.advice().rows, [], "p99 has 9 requests beyond it");
    assert_eq!(Drawn { requests: 1_000, ..by_vm2() }.advice().rows.len(), 1);

    let none =
        SummaryBuilder::new(START, example::vms()).finish(example::facts(), &example::names());
    assert_eq!(
        none.advice.none_because.as_deref(),
        Some("no request could be attributed to causes")
    );
    let sampled = example::sampled();
    assert_eq!(sampled.facts.evidence.level, EvidenceLevel::Sampled);
    assert_eq!(
        (sampled.advice.rows.len(), sampled.advice.none_because.as_deref()),
        (0, Some("what happened to single requests was not recorded"))
    );
}

#[test]
fn the_gain_counts_by_its_least_bound() {
    // Half of what the neighbour took may be the clock's error.
    let mut builder = SummaryBuilder::new(START, example::vms());
    let finish = |mut builder: SummaryBuilder, error_ns| {
        for index in 0..2_000_u64 {
            let slow = vec![running(1_000_000), preempted(150_000, &[(201, 150_000)])];
            let mut breakdown = request(index, HostNs(START.0 + index * 2_000_000), slow);
            set_io(&mut breakdown, 0, 10_000);
            breakdown.clock_error.parts.add(vslice_core::join::Part::PreemptWait, error_ns);
            builder.breakdown(VM1, &breakdown);
        }
        builder.finish(example::facts(), &example::names())
    };
    let sure = finish(builder, 0);
    assert_eq!(sure.advice.rows.len(), 1, "{:#?}", sure.advice);
    builder = SummaryBuilder::new(START, example::vms());
    let unsure = finish(builder, 75_000);
    let place =
        unsure.what_if.as_ref().unwrap().causes.iter().find(|row| row.cause == Kind::PcpuWait);
    assert!(place.is_some(), "it was there");
    assert_eq!(unsure.advice.rows, []);
}

fn span() -> impl Strategy<Value = Span> {
    (0..8_u8, 1..4_000_000_u64).prop_map(|(number, length_ns)| match number {
        0 => running(length_ns),
        1 => preempted(length_ns, &[(201, length_ns)]),
        2 => preempted(length_ns, &[(502, length_ns / 3), (7, length_ns / 3)]),
        3 => preempted(length_ns, &[(102, length_ns / 2), (0, length_ns / 2)]),
        4 => woken(length_ns),
        5 => blocked(Reason::Bql, length_ns),
        6 => blocked(Reason::Halt, length_ns),
        _ => example::lost(length_ns),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn advice_rests_on_figures_that_are_there_and_promises_enough(
        slow in prop::collection::vec(span(), 1..5),
        io in (0..=100_u64, 0..=100_u64),
        requests in 1..1_500_u64,
        pcpu0_idle_ns in 0..1_000_000_000_u64,
        is_kvm in any::<bool>(),
    ) {
        let accelerator = if is_kvm { Accelerator::Kvm } else { Accelerator::Tcg };
        let io = (io.0.min(io.1), io.0.max(io.1));
        let setup = setup(accelerator);
        let drawn = Drawn { requests, io, pcpu0_idle_ns, setup, ..Drawn::new(slow) };
        let told = rests_on_the_summary(&drawn.summary());
        prop_assert!(told.is_ok(), "{:?}", told);
    }
}
