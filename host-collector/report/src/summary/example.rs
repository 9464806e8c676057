//! A small run made by hand, for the tests of this module.
//!
//! Two guests of two vCPUs; vCPU1 of both share pCPU1, and vm1 reads on it. Of 2000 requests, 1975
//! take a third of a millisecond, 20 meet vm2's vCPU1, 5 meet more than that.

use super::advice::Setup;
use super::big_lock::{BigLock, LockEvidence};
use super::clock::{ClockCut, ClockMethod, HogCheck, KvmCheck, VcpuClock};
use super::collect::{Facts, SummaryBuilder};
use super::host_io::HostIo;
#[cfg(test)]
use super::host_io::{HostIoDisk, HostIoOperation, WorstHostIo};
use super::io::{HiddenTask, IoDisk};
use super::model::{
    Accelerator, Cost, Environment, Hog, Lost, PcpuUse, RunFacts, RunStatus, Summary,
};
use super::names::{CommandLine, Names, ThreadKind, VmIndex, VmThreads};
use super::quota::QuotaUse;
use super::selection::{LeftOut, LeftOutBy, Selection};
use super::service::ServiceThread;
use std::sync::Arc;
use vslice_core::host_event::StackId;
use vslice_core::join::{
    Attribution, Bounds, Breakdown, Chain, ClockError, GuestRequest, IoCheck, IoMarks, NoPhase,
    Part, PartsNs, PhaseParts, PhaseVcpus, RequestIo,
};
use vslice_core::task::{Process, Task};
use vslice_core::timeline::{
    Antagonist, DeviceAddress, Exit, ExitReason, ExitTime, HardwareExit, LockWait, Reason, RunMode,
    Sleep, Span, ThreadState, UnknownCause, UserspaceExit, Who,
};
use vslice_core::units::{HostNs, PcpuId, Tid, VcpuId};
use vslice_trace::evidence::{Evidence, GroupEvidence, GroupSource};
use vslice_wire::{GuestTicks, Request};

pub(crate) const START: HostNs = HostNs(1_000_000_000);
pub(crate) const VM1: VmIndex = VmIndex(0);
pub(crate) const BLOCK_BYTES: u32 = 4096;

const PCPU: PcpuId = PcpuId(1);
const MAIN_LOOP: Tid = Tid(102);
const VM1_VCPU1: Tid = Tid(101);
const VM2_VCPU1: Tid = Tid(201);
const KWORKER: Tid = Tid(7);
const CC1: Tid = Tid(502);
const MAKE: Tid = Tid(501);
const FUTEX_STACK: StackId = StackId(0);
const OTHER_STACK: StackId = StackId(1);

const RUNNING: ThreadState = ThreadState::Running { pcpu: PCPU, mode: RunMode::Unsplit };
const PREEMPTED: ThreadState =
    ThreadState::PreemptWait { pcpu: PCPU, reason: Reason::Timeslice, stack: None, lock: None };

pub(crate) fn running(length_ns: u64) -> Span {
    span(RUNNING, length_ns)
}

/// Preempted, while each of `ran` (a tid and for how long) ran.
pub(crate) fn preempted(length_ns: u64, ran: &[(u32, u64)]) -> Span {
    let antagonists = ran.iter().map(|(tid, ran_ns)| antagonist(Tid(*tid), *ran_ns)).collect();
    Span { antagonists, ..span(PREEMPTED, length_ns) }
}

/// A thread that ran, under its name; the idle task is nobody.
pub(crate) fn antagonist(tid: Tid, ran_ns: u64) -> Antagonist {
    let known = names().threads.get(&tid).cloned();
    let who = known.map_or_else(|| Who::of_tid(tid), Who::Thread);
    Antagonist::new(who, ran_ns)
}

pub(crate) fn woken(length_ns: u64) -> Span {
    span(ThreadState::WakeupDelay { pcpu: PCPU, raced: None }, length_ns)
}

pub(crate) fn blocked(reason: Reason, length_ns: u64) -> Span {
    let is_bql = reason == Reason::Bql;
    let sleep = Sleep {
        reason,
        stack: match reason {
            Reason::Bql => Some(FUTEX_STACK),
            Reason::PollSleep => Some(OTHER_STACK),
            _ => None,
        },
        waker: Some(MAIN_LOOP),
        lock: is_bql.then_some(0x55a8_e2e7_eb40),
        device: is_bql.then_some(DeviceAddress::Port(0x1f7)),
    };
    span(ThreadState::Blocked(sleep), length_ns)
}

/// The wait that a span on the big lock is.
fn lock_wait(span: &Span) -> Option<LockWait> {
    let ThreadState::Blocked(sleep) = span.state else { return None };
    Some(LockWait {
        tid: span.tid,
        start: span.start,
        end: span.end,
        reason: sleep.reason,
        address: Some(sleep.lock?),
        released_by: sleep.waker?,
        held_ns: Some(span.length_ns() / 2),
        device: sleep.device,
    })
}

pub(crate) fn lost(length_ns: u64) -> Span {
    span(ThreadState::Unknown { cause: UnknownCause::Lost }, length_ns)
}

/// A span of vm1's vCPU1 that starts at 0; [`laid_out`] puts it in its place.
fn span(state: ThreadState, length_ns: u64) -> Span {
    let (start, end) = (HostNs(0), HostNs(length_ns));
    Span { tid: VM1_VCPU1, start, end, state, antagonists: vec![] }
}

/// The spans one after the other from `start` on.
pub(crate) fn laid_out(start: HostNs, spans: Vec<Span>) -> Vec<Span> {
    let mut at = start;
    let place = |span: Span| {
        let (start, end) = (at, HostNs(at.0 + span.length_ns()));
        at = end;
        Span { start, end, ..span }
    };
    spans.into_iter().map(place).collect()
}

/// One request that waited for so long in the host's disk, and then, with the data there, preempted and
/// woken.
#[must_use]
pub fn waited([device_ns, preempted_ns, woken_ns]: [u64; 3]) -> Summary {
    let spans = vec![running(device_ns), preempted(preempted_ns, &[]), woken(woken_ns)];
    let mut request = request(0, HostNs(2_000_000_000), spans);
    set_io(&mut request, 0, device_ns);
    let mut builder = SummaryBuilder::new(START, vms());
    builder.breakdown(VM1, &request);
    builder.finish(facts(), &names())
}

/// A request on vm1's vCPU1 over these spans.
pub(crate) fn request(index: u64, start: HostNs, spans: Vec<Span>) -> Breakdown {
    let chain = laid_out(start, spans);
    let mut parts = PartsNs::default();
    for span in &chain {
        parts.add(Part::of(&span.state), span.length_ns());
    }
    Breakdown {
        request: GuestRequest::Read(Request {
            index,
            submitted: GuestTicks(0),
            completed: GuestTicks(0),
            vcpu_submitted: 1,
            vcpu_completed: 1,
            result: i32::try_from(BLOCK_BYTES).expect("4096 fits"),
        }),
        vcpu: VcpuId(1),
        vcpus: PhaseVcpus::all(VcpuId(1)),
        start,
        issued: None,
        end: HostNs(start.0 + parts.total_ns()),
        bounds: Bounds::all(20_000 + index),
        parts,
        attribution: Attribution::Attributed,
        clock_error: ClockError::default(),
        waits: chain.iter().collect(),
        chain: chain.into_iter().collect(),
        io: Err(NoPhase::NotRecorded),
        io_check: IoCheck::Unchecked,
        phases: PhaseParts::unknown(parts),
    }
}

/// The host has the request's I/O from and until so long after its submission.
pub(crate) fn set_io(breakdown: &mut Breakdown, submitted_ns: u64, completed_ns: u64) {
    let at = |offset_ns| HostNs(breakdown.start.0 + offset_ns);
    let marks = IoMarks { submitted: at(submitted_ns), completed: at(completed_ns) };
    breakdown.io = Ok(marks);
    breakdown.io_check = IoCheck::Within;
    breakdown.phases = PhaseParts::default();
    for span in breakdown.chain.spans() {
        breakdown.phases.add(span.start, span.end, Part::of(&span.state), &RequestIo::whole(marks));
    }
}

/// Off by 20 us, a request that ends as it began gains what it loses; one that met another guest
/// could have waited a little less, or more.
fn set_clock_error(breakdown: &mut Breakdown) {
    let error = &mut breakdown.clock_error;
    error.parts.add(Part::OnPcpu, 12);
    if breakdown.parts.get(Part::PreemptWait) > 0 {
        error.parts.add(Part::OnPcpu, 9_000);
        error.parts.add(Part::PreemptWait, 9_000);
        error.can_move = true;
    }
}

/// The same with clocks that are not sound: steps, vCPUs that differ, I/O beyond its requests.
#[must_use]
pub fn unsound_clock() -> Summary {
    use super::clock::ClocksApart;
    use vslice_core::join::Unplaced;
    let mut builder = builder();
    let mut beyond = request(2000, HostNs(START.0 + 900_000_000), spans_of(0));
    (beyond.io, beyond.io_check) =
        (Err(NoPhase::Contradiction), IoCheck::Beyond { excess_ns: 1_230_000 });
    let request = beyond.request;
    builder.breakdown(VM1, &beyond);
    for why in [Unplaced::NoClock, Unplaced::ClockStepped, Unplaced::ClockAmbiguous] {
        builder.unplaced(VM1, &request, why);
    }
    let mut facts = facts();
    let cut = |after_ns, step_ns| ClockCut { after_ns, before_ns: after_ns + 100_000_000, step_ns };
    let clock = &mut facts.clocks[0];
    clock.hog_check = HogCheck { absences: 2_034, violations: 3, worst_ns: 1_140_000 };
    clock.ptp_check = KvmCheck { readings: 12, violations: 1, worst_ns: 77_000 };
    (clock.cut_count, clock.cuts) = (2, vec![cut(-10_000_000, 15_700_000), cut(520_000_000, 0)]);
    facts.clocks_apart = vec![ClocksApart {
        vm: "vm1".to_owned(),
        vcpu: VcpuId(0),
        other_vcpu: VcpuId(1),
        apart_ns: 15_700_000,
    }];
    builder.finish(facts, &names())
}

pub(crate) fn vms() -> Vec<VmThreads> {
    let vm2_quota = QuotaUse { used_up_count: 3, kept_off_ns: 9_000_000 };
    let vm = |name: &str, first_tid| VmThreads {
        name: name.to_owned(),
        block_bytes: (name == "vm1").then_some(BLOCK_BYTES),
        vcpus: vec![(VcpuId(0), Tid(first_tid)), (VcpuId(1), Tid(first_tid + 1))],
        quotas: (name == "vm2").then_some((VcpuId(1), vm2_quota)).into_iter().collect(),
    };
    vec![vm("vm1", 100), vm("vm2", 200)]
}

pub(crate) fn names() -> Names {
    let mut names = Names::default();
    let vm2 = Process { pid: Tid(200), since: HostNs(0) };
    let build = names.groups.at("/system.slice/build.service");
    let mut thread = |tid, name: &str, kind| {
        let process = Some(Process { pid: if tid == VM2_VCPU1 { vm2.pid } else { tid }, ..vm2 });
        let task = Task {
            name: name.to_owned(),
            kind,
            process,
            group: build.filter(|_| kind == ThreadKind::Host),
            ..Task::unknown(tid)
        };
        names.threads.insert(tid, Arc::new(task));
    };
    thread(MAIN_LOOP, "main loop", ThreadKind::Vmm { vm: VM1 });
    thread(KWORKER, "kworker/1:1", ThreadKind::Kernel);
    thread(CC1, "cc1", ThreadKind::Host);
    thread(MAKE, "make", ThreadKind::Host);
    thread(VM2_VCPU1, "vCPU1", ThreadKind::Vcpu { vm: VmIndex(1), vcpu: VcpuId(1) });
    let text = "qemu-system-x86_64 -name vm2,debug-threads=on".to_owned();
    names.commands.insert(vm2, CommandLine { comm: "qemu-system-x86".to_owned(), text });
    let stack = |frames: &[&str]| frames.iter().map(|frame| (*frame).to_owned()).collect();
    names.stacks.insert(
        FUTEX_STACK,
        stack(&["futex_wait_queue", "futex_wait", "do_futex", "__x64_sys_futex"]),
    );
    names.stacks.insert(
        OTHER_STACK,
        stack(&["do_sys_poll", "__x64_sys_ppoll", "do_syscall_64", "entry_SYSCALL_64"]),
    );
    names
}

fn big_locks() -> Vec<BigLock> {
    let lock = |vm: &str, evidence, address, because: &str| BigLock {
        vm: vm.to_owned(),
        evidence,
        address,
        because: because.to_owned(),
        behaviour: None,
    };
    let because = "bql_lock_impl and bql_unlock name it";
    vec![
        lock("vm1", LockEvidence::Proven, Some(0x55ed_66be_6b40), because),
        lock("vm2", LockEvidence::Unknown, None, "QEMU has 0 symbols"),
    ]
}

fn main_loop() -> ServiceThread {
    ServiceThread {
        vm: "vm1".to_owned(),
        role: "main loop".to_owned(),
        tid: Tid(200),
        arrivals: 2_400,
        woken_by_vcpus: 2_003,
        woke_vcpus: 1_990,
    }
}

pub(crate) fn facts() -> Facts {
    let clock = |vm: &str, vcpu, bound_ns| VcpuClock {
        vm: vm.to_owned(),
        vcpu: VcpuId(vcpu),
        method: ClockMethod::Exchange,
        exchanges: 40,
        stays: 0,
        kvm_check: KvmCheck::default(),
        ptp_check: KvmCheck::default(),
        hog_check: HogCheck::default(),
        requests: if vm == "vm1" { 2000 } else { 0 },
        observed: 0,
        bound_ns,
        cut_count: 0,
        cuts: vec![],
    };
    let hog = |vm: &str, count| Hog { vm: vm.to_owned(), vcpu: VcpuId(1), count };
    Facts {
        run: RunFacts {
            plan: "demo".to_owned(),
            status: RunStatus::Complete,
            accelerator: Accelerator {
                name: "tcg".to_owned(),
                reason: "/dev/kvm is there, but a stock kernel did not boot in it within 20 s"
                    .to_owned(),
            },
            environment: Environment {
                lines: vec!["Linux 6.18.5, 2 pCPUs; QEMU 7.2.22; guests Linux 6.1.0-40".to_owned()],
                details: serde_json::json!({ "qemu": "7.2.22", "pcpus": [0, 1] }),
            },
            measured_ns: 1_000_000_000,
            selection: None,
            hogs: vec![hog("vm1", 812_345_678), hog("vm2", 798_765_432)],
            service: vec![main_loop()],
            big_locks: big_locks(),
            control_groups: GroupEvidence { source: GroupSource::Events, reason: String::new() },
            evidence: Evidence {
                reason: "the scheduler's events can be recorded here".to_owned(),
                ..Evidence::default()
            },
            sampled: None,
            scheduled: vec![],
            host_io: HostIo::default(),
            pcpus: vec![PcpuUse { pcpu: PcpuId(1), seen_ns: 992_000_000, idle_ns: 3_000_000 }],
            lost: Lost { records: 12, intervals: 1, total_ns: 8_000_000 },
            cost: Cost {
                collector_cpu_ns: 61_000_000,
                collector_run_delay_ns: 3_000_000,
                events: 24_310,
                kvm_events: 0,
                bytes: 1_234_567,
            },
            warnings: vec![],
        },
        clocks: vec![clock("vm1", 1, 31_000), clock("vm2", 1, 28_000)],
        clocks_apart: vec![],
        disks: vec![IoDisk {
            vm: "vm1".to_owned(),
            device: Some("vda".to_owned()),
            reason: None,
            unmapped_reason: None,
        }],
        setup: Setup::default(),
        hidden: vec![HiddenTask { name: "idle".to_owned(), pcpu: PcpuId(0), count: 71 }],
    }
}

/// What the vCPU's thread does in the `index`th request.
fn spans_of(index: u64) -> Vec<Span> {
    match index {
        1980..2000 => vec![
            running(13_000),
            preempted(3_998_000, &[(201, 3_990_000), (7, 8_000)]),
            running(500_000 + (index - 1980) * 10_000),
        ],
        500 | 600 | 700 => vec![
            running(100_000),
            blocked(Reason::Bql, 1_400_000),
            Span {
                antagonists: vec![antagonist(CC1, 350_000), antagonist(MAKE, 100_000)],
                ..woken(500_000)
            },
            running(3_000_000),
            preempted(4_002_000, &[(201, 4_000_000), (0, 2_000)]),
            running(index * 1_000),
        ],
        800 => vec![running(200_000), blocked(Reason::PollSleep, 9_000_000), running(50_000)],
        900 => vec![running(200_000), lost(8_000_000), running(1_000_000)],
        _ => vec![running(210_000), blocked(Reason::Halt, 120_000 + index), woken(3_000)],
    }
}

/// The builder after all spans and requests of the example.
pub(crate) fn builder() -> SummaryBuilder {
    let mut builder = SummaryBuilder::new(START, vms());
    let mut at = HostNs(START.0 + 500_000);
    for index in 0..2000 {
        let mut breakdown = request(index, at, spans_of(index));
        let pause = laid_out(breakdown.end, vec![blocked(Reason::Halt, 5_000)]);
        at = pause[0].end;
        match index {
            800 => (breakdown.io, breakdown.io_check) = (Err(NoPhase::NoIo), IoCheck::Unseen),
            900 => {
                (breakdown.attribution, breakdown.io) = (Attribution::Lost, Err(NoPhase::Lost));
            }
            _ => set_io(&mut breakdown, 12_000, 210_000),
        }
        if breakdown.attribution == Attribution::Attributed {
            set_clock_error(&mut breakdown);
        }
        for span in breakdown.chain.spans().chain(&pause) {
            builder.span(span);
            if let Some(wait) = lock_wait(span) {
                builder.lock_wait(&wait);
            }
        }
        builder.breakdown(VM1, &breakdown);
    }
    let hog = |length_ns, state| Span { tid: VM2_VCPU1, ..span(state, length_ns) };
    for span in laid_out(
        START,
        vec![hog(9_000_000, PREEMPTED), hog(4_000_000, RUNNING), hog(3_000_000, PREEMPTED)],
    ) {
        let antagonists = vec![antagonist(VM1_VCPU1, span.length_ns() / 2)];
        let is_running = matches!(span.state, ThreadState::Running { .. });
        builder.span(&Span { antagonists: if is_running { vec![] } else { antagonists }, ..span });
    }
    builder
}

/// The same as a part of a longer run, with all kinds of limits.
#[must_use]
pub fn part() -> Summary {
    let mut part = summary();
    let faster = LeftOutBy { faster: 61_234, unplaced: 2, ..LeftOutBy::default() };
    part.facts.selection = Some(Selection {
        since_ns: 100_000_000,
        until_ns: 1_100_000_000,
        of_ns: 60_000_000_000,
        vms: vec!["vm1".to_owned(), "vm2".to_owned()],
        vcpus: vec![VcpuId(0), VcpuId(1)],
        slower_than_ns: Some(300_000),
        left_out: LeftOut { reader: faster, host_io: 1, ..LeftOut::default() },
    });
    part.requests.iops = None;
    part
}

/// A few requests of a run under KVM whose exits were recorded.
#[must_use]
pub fn with_exits() -> Summary {
    let mut builder = SummaryBuilder::new(START, vms());
    let on = |mode, length_ns| span(ThreadState::Running { pcpu: PCPU, mode }, length_ns);
    for index in 0..20 {
        let mut spans = Vec::new();
        for _ in 0..40 {
            spans.extend([on(RunMode::Guest, 1_000), on(RunMode::Kvm, 500)]);
        }
        spans.extend([on(RunMode::Vmm, 2_000 + index), on(RunMode::HaltPoll, 40_000)]);
        spans.push(blocked(Reason::Halt, 50_000));
        spans.extend([woken(3_000), on(RunMode::Kvm, 700), on(RunMode::Guest, 5_000)]);
        let breakdown = request(index, HostNs(START.0 + index * 1_000_000), spans);
        breakdown.chain.spans().for_each(|span| builder.span(span));
        builder.breakdown(VM1, &breakdown);
    }
    let mut exit = |tid, reason, count: u64, kvm_ns, vmm_ns, off_ns| {
        let time = ExitTime { kvm_ns, vmm_ns, off_ns };
        let (start, end) = (START, HostNs(START.0 + time.total_ns()));
        (0..count).for_each(|_| builder.exit(&Exit { tid, reason, start, end, time }));
    };
    let svm = |reason| ExitReason::Hardware(HardwareExit::new(2, reason));
    exit(VM1_VCPU1, svm(0x78), 20, 1_200, 0, 93_000);
    exit(VM1_VCPU1, svm(0x7b), 20, 500, 2_010, 0);
    exit(VM1_VCPU1, svm(0x400), 760, 500, 0, 0);
    for reason in 0x60..0x67 {
        exit(VM1_VCPU1, svm(reason), 1, 100, 0, 0);
    }
    exit(VM1_VCPU1, ExitReason::Userspace(UserspaceExit::new(2, 0)), 20, 0, 2_010, 0);
    exit(VM2_VCPU1, ExitReason::Hardware(HardwareExit::new(3, 7)), 2, 400, 0, 3_000);
    let mut facts = facts();
    facts.run.cost.kvm_events = 1_658;
    facts.run.accelerator = Accelerator {
        name: "kvm".to_owned(),
        reason: "a stock kernel boots in it, in 3.1 s".to_owned(),
    };
    builder.finish(facts, &names())
}

/// A whole run.
#[must_use]
pub fn summary() -> Summary {
    let mut facts = facts();
    facts.clocks[0].hog_check = HogCheck { absences: 2_034, violations: 0, worst_ns: 0 };
    builder().finish(facts, &names())
}

/// The same requests, of which no event was recorded.
#[must_use]
pub fn sampled() -> Summary {
    use super::evidence::{Sampled, SampledDoing, SampledShare, SampledVcpu, ScheduledVcpu};
    use vslice_core::samples::Doing;
    use vslice_trace::evidence::{EvidenceLevel, Missing};
    let share = |doing, lock_address, looks: u64, share, low, high| SampledShare {
        what: SampledDoing(doing),
        lock_address,
        looks,
        share,
        low,
        high,
    };
    let mut facts = facts();
    facts.run.lost = Lost::default();
    facts.run.cost.events = 0;
    facts.run.evidence = Evidence {
        level: EvidenceLevel::Sampled,
        reason: "not allowed to record the scheduler".to_owned(),
        missing: vec![Missing {
            name: "/proc/PID/wchan".to_owned(),
            costs: "what a vCPU waits for in KVM is unknown".to_owned(),
        }],
    };
    let vcpu = SampledVcpu {
        vm: "vm1".to_owned(),
        vcpu: VcpuId(1),
        tid: VM1_VCPU1,
        looks: 2000,
        shares: vec![
            share(Doing::Runnable, None, 1499, 0.7495, 0.73, 0.768),
            share(Doing::Off(Reason::Bql), Some(0x55a8_e2e7_eb40), 500, 0.25, 0.2315, 0.2694),
            share(Doing::Off(Reason::PollSleep), None, 1, 0.0005, 0.0001, 0.0028),
        ],
    };
    facts.run.sampled = Some(Sampled {
        rounds_hz: 921.4,
        own_share: Some(0.0612),
        gaps: 2,
        gap_rounds: 9,
        gaps_ns: 9_400_000,
        vcpus: vec![vcpu],
    });
    facts.run.scheduled = vec![ScheduledVcpu {
        vm: "vm1".to_owned(),
        vcpu: VcpuId(1),
        tid: VM1_VCPU1,
        observed_ns: 1_000_000_000,
        on_pcpu_ns: 500_000_000,
        run_delay_ns: 250_000_000,
        timeslices: 1000,
        timeslice_mean_ns: Some(500_000),
    }];
    let mut builder = SummaryBuilder::new(START, vms());
    let mut at = HostNs(START.0 + 500_000);
    for index in 0..2000 {
        let mut breakdown = request(index, at, spans_of(index));
        at = breakdown.end;
        breakdown.attribution = Attribution::NotRecorded;
        breakdown.chain = Chain::default();
        builder.breakdown(VM1, &breakdown);
    }
    builder.finish(facts, &names())
}

/// An I/O that waited.
#[cfg(test)]
fn worst_host_io(ms: u64, who: Option<&str>, vcpu: Option<u16>, disk: Option<&str>) -> WorstHostIo {
    WorstHostIo {
        vm: "vm1".to_owned(),
        disk: disk.map(str::to_owned),
        operation: "read".to_owned(),
        submitted_ns: ms * 1_000_000,
        bytes: 4096,
        latency_ns: 120_000,
        least_ns: 3_900_000,
        most_ns: 4_000_000,
        vcpu,
        who: who.map(str::to_owned),
    }
}

/// What the host saw of two disks' I/O.
#[cfg(test)]
pub(crate) fn host_io() -> HostIo {
    let by = |reasons: &[(&str, u64)]| {
        reasons.iter().map(|(reason, number)| ((*reason).to_owned(), *number)).collect()
    };
    let reads = HostIoOperation {
        operation: "read".to_owned(),
        count: 2_010,
        bytes: 2_010 * 4096,
        ended: 2_000,
        no_end_by: by(&[("ambiguous", 7), ("lost", 3)]),
        p50_ns: Some(110_000),
        p99_ns: Some(900_000),
        max_ns: Some(4_200_000),
        known: 1_990,
        by_interrupt: 1_700,
        unknown_by: by(&[("no_end", 10), ("vcpu_unknown", 10)]),
        least_ns: 310_000_000,
        most_ns: 420_000_000,
        inactive_least: 300,
        inactive_most: 410,
        least_p99_ns: Some(3_900_000),
        most_p99_ns: Some(4_000_000),
    };
    let flushes = HostIoOperation {
        operation: "flush".to_owned(),
        count: 12,
        bytes: 0,
        ended: 0,
        no_end_by: by(&[("no_sectors", 12)]),
        unknown_by: by(&[("no_end", 12)]),
        ..HostIoOperation::default()
    };
    let disk = |disk: Option<&str>, operations| HostIoDisk {
        vm: "vm1".to_owned(),
        disk: disk.map(str::to_owned),
        device: disk.map(|_| "vda".to_owned()),
        is_direct: disk.map(|_| true),
        reason: None,
        interrupts_missing: None,
        operations,
    };
    let seed = HostIoDisk {
        device: None,
        is_direct: None,
        reason: Some("it has no medium".to_owned()),
        interrupts_missing: Some("KVM's debugfs directory cannot be read".to_owned()),
        ..disk(Some("ide CD ide1-cd0 without a medium"), vec![])
    };
    let label = "virtio-blk disk0 on /var/lib/vm1.img (raw)";
    HostIo {
        disks: vec![
            disk(Some(label), vec![flushes, reads.clone()]),
            seed,
            disk(None, vec![HostIoOperation { count: 4, ..reads }]),
        ],
        worst: vec![
            worst_host_io(312, Some("vm2 vCPU1 (301)"), Some(1), Some(label)),
            worst_host_io(17, None, None, None),
        ],
    }
}
