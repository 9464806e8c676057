//! The rig on this host: guests boot, and each injector and each action of the scripted process does what it
//! says, by a witness that is not the rig: the kernel's own counts in `/proc`.
//!
//! What this host lacks (KVM, QEMU, root, a cgroup) shows as an ignored test with the reason. No
//! test asserts how long something took: windows only have to be long enough for it to happen.

mod halt_poll;
mod scripted_process;
mod witness;

use libtest_mimic::{Arguments, Failed, Trial};
use scripted_process::{process_failed, process_stopped, scripted_actions};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};
use vslice_core::units::{PcpuId, Tid, VcpuId};
use vslice_host::tsc::{self, KvmDebugfs};
use vslice_lab::plan::LabAccelerator;
use vslice_lab::tools;
use vslice_selftest::rig::boot_sector::Guest;
use vslice_selftest::rig::frontend::Frontend;
use vslice_selftest::rig::inject::quota::{CgroupQuota, QuotaConfig};
use vslice_selftest::rig::inject::realtime::{self, RealtimeConfig};
use vslice_selftest::rig::inject::rival;
use vslice_selftest::rig::inject::stopper::Stopper;
use vslice_selftest::rig::inject::storm::QmpStorm;
use vslice_selftest::rig::inject::waker::{self, WakerConfig};
use vslice_selftest::rig::machine::{self, Machine, MachineConfig, Placement, READER, START_LIMIT};
use witness::{Counts, Seen, Watch, is_gone, read_bytes, soon, state};

/// Sleeps of a hog under TCG in a window: one was seen, in one run of many.
const HOG_SLEEPS_MAX: u64 = 2;

const WINDOW: Duration = Duration::from_millis(200);

/// How long is waited for something that needs the pCPU, which others have too.
const LONGEST: Duration = Duration::from_secs(20);

type Outcome = Result<(), Failed>;
type InjectorTest = fn(&mut Machine) -> Outcome;

fn main() {
    let mut arguments = Arguments::from_args();
    // The tests share two pCPUs and count what happens on them: one at a time.
    arguments.test_threads = Some(1);
    let mut trials = Vec::new();
    match tools::find(tools::QEMU) {
        Some(qemu) => trials.extend(machine_trials(&qemu)),
        None => trials.push(ignored("guests", "there is no qemu-system-x86_64")),
    }
    trials.push(Trial::test("a_waker_that_may_not_start_leaves_no_thread", a_failed_start));
    trials.push(Trial::test("every_action_of_the_process_leaves_the_pcpu", scripted_actions));
    trials.push(Trial::test("a_stopped_process_sleeps_for_its_stops", process_stopped));
    trials.push(Trial::test("a_process_that_cannot_run_its_script_says_why", process_failed));
    libtest_mimic::run(&arguments, trials).exit();
}

fn ignored(name: &str, reason: &str) -> Trial {
    Trial::test(name, || Ok(())).with_kind(reason).with_ignored_flag(true)
}

fn machine_trials(qemu: &Path) -> Vec<Trial> {
    let choice = machine::choose_accelerator(qemu);
    let mut trials = Vec::new();
    for accelerator in [LabAccelerator::Tcg, LabAccelerator::Kvm] {
        let missing = (accelerator != LabAccelerator::Tcg && choice.accelerator != accelerator)
            .then(|| choice.reason.clone());
        for (guest, frontend) in guests() {
            let mut name = format!("{accelerator:?}/{}/{}", guest.name(), frontend.name());
            let mut able = Vec::new();
            for (title, needs, test) in injectors(guest) {
                match missing.clone().or_else(needs) {
                    None => able.push((title, test)),
                    Some(reason) => trials.push(ignored(&format!("{name}/{title}"), &reason)),
                }
            }
            for (title, _) in &able {
                name.push_str(&format!(" {title}"));
            }
            let config = config(qemu, accelerator, guest, frontend);
            trials.push(match &missing {
                None => Trial::test(name, move || boots(&config, &able)),
                Some(reason) => ignored(&name, reason),
            });
        }
    }
    let brief = config(qemu, LabAccelerator::Kvm, Guest::BrieflyIdle, Frontend::VirtioBlk);
    let name = "Kvm/briefly-idle/virtio-blk halt polling is told";
    let no_kvm = (choice.accelerator != LabAccelerator::Kvm).then(|| choice.reason.clone());
    trials.push(match no_kvm.or_else(halt_poll::missing) {
        None => Trial::test(name, move || halt_poll::polling_is_told(&brief)),
        Some(reason) => ignored(name, &reason),
    });
    let config = MachineConfig {
        start_limit: Duration::ZERO,
        ..config(qemu, LabAccelerator::Tcg, READER, Frontend::Ide)
    };
    trials.push(Trial::test("a_machine_out_of_time_says_so", move || out_of_time(&config)));
    trials
}

fn guests() -> Vec<(Guest, Frontend)> {
    let readers = Frontend::ALL.map(|frontend| (READER, frontend));
    let others = [Guest::Hog, Guest::Idle, Guest::PortReader];
    readers.into_iter().chain(others.map(|guest| (guest, Frontend::VirtioBlk))).collect()
}

type Needs = fn() -> Option<String>;

/// Under an emulated KVM a guest takes seconds to boot, so that these share one.
fn injectors(guest: Guest) -> Vec<(&'static str, Needs, InjectorTest)> {
    let nothing: Needs = || None;
    let nice: Needs = || waker::start(WakerConfig::new(pcpus().0)).err().map(|e| e.to_string());
    let fifo: Needs =
        || realtime::start(RealtimeConfig::new(pcpus().0)).err().map(|e| e.to_string());
    let group: Needs = || {
        let own = Tid(std::process::id());
        CgroupQuota::start(&QuotaConfig::new(own, own)).err().map(|e| e.to_string())
    };
    match guest {
        Guest::Hog => vec![
            ("rival", nothing, rival),
            ("waker", nice, waker),
            ("realtime", fifo, realtime),
            ("quota", group, quota),
            ("stopper", nothing, stopper),
        ],
        Guest::PortReader => vec![("storm", nothing, storm)],
        Guest::Reader { .. } | Guest::Idle | Guest::BrieflyIdle => Vec::new(),
    }
}

fn config(
    qemu: &Path,
    accelerator: LabAccelerator,
    guest: Guest,
    frontend: Frontend,
) -> MachineConfig {
    let (vcpu, others) = pcpus();
    MachineConfig {
        qemu: qemu.to_owned(),
        accelerator,
        guest,
        frontend,
        placement: Some(Placement { vcpu, others }),
        start_limit: START_LIMIT,
    }
}

/// The last pCPU for the vCPU, as the first one has the machine's interrupts, and that for the rest.
fn pcpus() -> (PcpuId, PcpuId) {
    let online: Vec<PcpuId> = vslice_host::host::online_pcpus().expect("sysfs").iter().collect();
    (*online.last().expect("this runs on one"), online[0])
}

fn check(condition: bool, what: impl FnOnce() -> String) -> Outcome {
    if condition { Ok(()) } else { Err(what().into()) }
}

/// What this machine does not let a test judge; the test passes by what it could.
fn not_judged(why: &str) {
    let written = writeln!(std::io::stderr(), "not judged, because {why}");
    written.expect("the test's output");
}

fn wait() -> Outcome {
    sleep(WINDOW);
    Ok(())
}

fn boots(config: &MachineConfig, injectors: &[(&str, InjectorTest)]) -> Outcome {
    let mut machine = Machine::start(config)?;
    let (pid, vcpu) = (machine.pid(), machine.vcpu());
    works(&mut machine, config.guest, config.accelerator)?;
    let is_iothread = config.frontend == Frontend::VirtioBlkIothread;
    check(machine.iothread().is_some() == is_iothread, || "iothread".to_owned())?;
    let placement = config.placement.expect("the tests place all machines");
    for thread in machine.threads()? {
        let pcpu = if thread.tid == vcpu { placement.vcpu } else { placement.others };
        let affinity = vslice_host::pin::affinity(thread.tid)?;
        check(affinity == [pcpu], || format!("{} may run on {affinity:?}", thread.comm))?;
    }
    own_tsc(&machine, config.accelerator)?;
    for (title, test) in injectors {
        test(&mut machine).map_err(|failed| {
            format!("{title}: {}", failed.message().unwrap_or("it failed and says nothing"))
        })?;
    }
    machine.check()?;
    drop(machine);
    check(!Path::new(&format!("/proc/{pid}")).exists(), || "QEMU is still there".to_owned())
}

/// The guest does what it is for.
fn works(machine: &mut Machine, guest: Guest, accelerator: LabAccelerator) -> Outcome {
    let read_before = read_bytes(machine.pid())?;
    let before = machine.counter()?;
    // The guest runs on while nobody asks for its counter.
    let wants_sleep = guest == Guest::Idle;
    let seen = Watch::start(machine, None)?
        .until(|seen| seen.vcpu.run_ns > 0 && (seen.vcpu.voluntary > 0 || !wants_sleep))?;
    let moved = soon_moved(machine, before)?;
    let read = read_bytes(machine.pid())? - read_before;
    check(moved > 0, || "the guest does not count".to_owned())?;
    match guest {
        Guest::Reader { .. } => {
            // One read may be counted by the guest in the window and by the kernel before it.
            let expected = u64::from(moved.saturating_sub(2)) * 4096;
            check(read >= expected, || format!("{moved} reads made {read} bytes"))?;
            check(machine.error_count()? == 0, || "reads fail in the guest".to_owned())
        }
        // Nothing in it needs the host. But whatever ends a turn of TCG is followed by taking the big lock
        // (`mttcg_cpu_thread_fn` in QEMU's accel/tcg/tcg-accel-ops-mttcg.c), which the main loop may have.
        Guest::Hog => {
            let sleeps_max = if accelerator == LabAccelerator::Tcg { HOG_SLEEPS_MAX } else { 0 };
            let is_awake = seen.vcpu.voluntary <= sleeps_max;
            check(is_awake, || format!("a hog went to sleep: {seen:?}"))
        }
        // KVM polls before it sleeps, and where the pCPU is taken for long, polling finds the timer
        // due nearly each time: of 905 halts 87 were sleeps.
        Guest::Idle => {
            check(seen.vcpu.voluntary > 0, || format!("{moved} halts and no sleep: {seen:?}"))
        }
        Guest::BrieflyIdle | Guest::PortReader => Ok(()),
    }
}

/// How far the guest has come since `before`, once it has.
fn soon_moved(machine: &mut Machine, before: u32) -> Result<u32, Failed> {
    let deadline = Instant::now() + LONGEST;
    loop {
        let moved = machine.counter()?.wrapping_sub(before);
        if moved > 0 || Instant::now() >= deadline {
            return Ok(moved);
        }
        sleep(WINDOW);
    }
}

/// KVM says how the guest's TSC follows from the host's: it began when the guest did.
fn own_tsc(machine: &Machine, accelerator: LabAccelerator) -> Outcome {
    let relations = KvmDebugfs::find().and_then(|debugfs| debugfs.relations_of(machine.pid()));
    if accelerator == LabAccelerator::Tcg {
        return check(relations.is_err(), || format!("KVM knows a guest of TCG: {relations:?}"));
    }
    let [(VcpuId(0), relation)] = relations?[..] else { return Err("not vCPU0 alone".into()) };
    check(relation.scaling.is_none_or(|scaling| scaling.fraction_bits < 64), || {
        format!("{relation:?}")
    })?;
    let host = tsc::sample().ok_or("KVM without a TSC")?;
    let guest_ticks = host.tsc.wrapping_add_signed(relation.offset_ticks);
    // Either the guest began at 0, some seconds ago, or it was given the host's TSC as it is.
    check(guest_ticks <= host.tsc, || format!("{host:?} and {relation:?}"))
}

fn out_of_time(config: &MachineConfig) -> Outcome {
    let message = Machine::start(config).err().ok_or("it had no time at all")?.to_string();
    check(message.contains("within 0 s"), || message.clone())?;
    check(
        message.contains("reader guest on ide under TCG") || message.contains("did not appear"),
        || message.clone(),
    )
}

fn rival(machine: &mut Machine) -> Outcome {
    // Far more than a vCPU may wait for at a time, which is counted only when it comes on again.
    const RIVAL_NS: u64 = 200_000_000;
    let rival = rival::start(pcpus().0)?;
    let (own, tid) = (Tid(std::process::id()), rival.tid());
    let before = Counts::of(own, tid)?;
    let rival_counts = || Counts::of(own, tid).map(|counts| counts.since(before));
    let watch = Watch::start(machine, Some(tid))?;
    let seen = watch.until(|_| rival_counts().is_ok_and(|counts| counts.run_ns >= RIVAL_NS))?;
    let rival_counts = rival_counts()?;
    let log = rival.log();
    seen.judge(rival_counts.run_ns >= RIVAL_NS, || format!("the rival ran for {rival_counts:?}"))?;
    check(rival_counts.voluntary == 0, || format!("the rival slept: {rival_counts:?}"))?;
    // The vCPU always wants to run: what the rival got, it waited for. What it waits for just now
    // is not counted yet.
    check(seen.vcpu.run_delay_ns * 2 > rival_counts.run_ns, || {
        format!("{seen:?}, rival {rival_counts:?}")
    })?;
    check(log.tid == tid && log.episodes.len() == 1, || format!("{log:?}"))?;
    is_gone(tid)
}

fn waker(machine: &mut Machine) -> Outcome {
    let waker = waker::start(WakerConfig::new(pcpus().0))?;
    let tid = waker.tid();
    let seen = Watch::start(machine, Some(tid))?.until(|seen| seen.vcpu.involuntary >= WAKINGS)?;
    let log = waker.log();
    preempted(&seen, log.episodes.len())?;
    check(log.episodes.is_sorted_by(|a, b| a.end < b.start), || "they overlap".to_owned())?;
    is_gone(tid)
}

fn realtime(machine: &mut Machine) -> Outcome {
    let task = realtime::start(RealtimeConfig::new(pcpus().0))?;
    let tid = task.tid();
    let stat = fs::read_to_string(format!("/proc/self/task/{tid}/stat"))?;
    // The 41st field is the policy, proc_pid_stat(5); the name before the third may have spaces.
    let policy = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(38));
    check(policy == Some("1"), || format!("its policy is {policy:?}, not SCHED_FIFO"))?;
    let seen = Watch::start(machine, Some(tid))?.until(|seen| seen.vcpu.involuntary >= WAKINGS)?;
    let log = task.log();
    preempted(&seen, log.episodes.len())?;
    is_gone(tid)
}

/// So often a vCPU is to be preempted before it is looked how often it was.
const WAKINGS: u64 = 50;

/// Others on the pCPU may be preempted as well, so that not every waking takes it from the vCPU.
fn preempted(seen: &Seen, waking_count: usize) -> Outcome {
    let wakings = waking_count as u64;
    check(wakings > 0, || "it never woke".to_owned())?;
    seen.judge(seen.vcpu.involuntary * 2 >= wakings, || format!("{wakings} wakings, {seen:?}"))
}

fn quota(machine: &mut Machine) -> Outcome {
    let group = |tid: Tid| fs::read_to_string(format!("/proc/{}/task/{tid}/cgroup", machine.pid()));
    let (vcpu, main) = (machine.vcpu(), machine.pid());
    let (vcpu_group, main_group) = (group(vcpu)?, group(main)?);
    let quota = CgroupQuota::start(&QuotaConfig::new(main, vcpu))?;
    check(group(vcpu)? != vcpu_group, || "the vCPU is where it was".to_owned())?;
    let path = quota.path().to_owned();
    let before = quota.throttling()?;
    let throttled_count =
        || quota.throttling().map_or(0, |now| now.throttled_count - before.throttled_count);
    let seen = Watch::start(machine, None)?.until(|_| throttled_count() > 1)?;
    let log = quota.stop()?;
    let count = log.after.throttled_count - log.before.throttled_count;
    seen.judge(count > 0, || format!("{log:?}"))?;
    // A throttled thread is runnable and has no pCPU.
    let has_waited = seen.vcpu.run_delay_ns > 0 && log.after.throttled_ns > 0;
    check(count == 0 || has_waited, || format!("{seen:?} {log:?}"))?;
    check(group(vcpu)? == vcpu_group, || "the vCPU was not put back".to_owned())?;
    check(group(main)? == main_group, || "the main loop is elsewhere".to_owned())?;
    check(!path.exists(), || format!("{} is still there", path.display()))
}

fn stopper(machine: &mut Machine) -> Outcome {
    let pid = machine.pid();
    let stopper = Stopper::start(pid, Duration::from_millis(20), Duration::from_millis(20))?;
    let (mut stopped_count, mut running_count) = (0, 0);
    let deadline = Instant::now() + START_LIMIT;
    while (stopped_count < 3 || running_count < 3) && Instant::now() < deadline {
        match state(pid)? {
            'T' => stopped_count += 1,
            _ => running_count += 1,
        }
        sleep(Duration::from_millis(7));
    }
    let stops = stopper.stop()?;
    check(stopped_count >= 3 && running_count >= 3, || {
        format!("seen stopped {stopped_count} times, running {running_count} times")
    })?;
    check(!stops.is_empty(), || "its log is empty".to_owned())?;
    let before = machine.counter()?;
    check(soon_moved(machine, before)? > 0, || "it is still stopped".to_owned())?;
    // Dropped in the middle of a stop, it lets go as well.
    let long = Stopper::start(pid, Duration::from_secs(600), Duration::ZERO)?;
    while state(pid)? != 'T' && Instant::now() < deadline {
        sleep(Duration::from_millis(1));
    }
    drop(long);
    machine.counter()?;
    Ok(())
}

fn storm(machine: &mut Machine) -> Outcome {
    const SLEEPS: u64 = 20;
    // A guest that reads a port sleeps when it finds the lock taken: for a storm, not by itself.
    let calm = Watch::start(machine, None)?.until(|_| true)?;
    let storm = QmpStorm::start(&machine.second_monitor(), pcpus().1)?;
    let tid = storm.tid();
    let enough = calm.vcpu.voluntary + SLEEPS;
    let seen = Watch::start(machine, None)?.until(|seen| seen.vcpu.voluntary >= enough)?;
    let log = storm.stop().ok_or("the storm panicked")?;
    check(log.failure.is_none() && log.answer_count > 0, || format!("{log:?}"))?;
    seen.judge(seen.vcpu.voluntary >= enough, || {
        format!("sleeps: {} in {log:?}, {} before", seen.vcpu.voluntary, calm.vcpu.voluntary)
    })?;
    is_gone(tid)
}

fn a_failed_start() -> Outcome {
    let threads = || fs::read_dir("/proc/self/task").map_or(usize::MAX, Iterator::count);
    let before = threads();
    for _ in 0..200 {
        let error = waker::start(WakerConfig::new(PcpuId(1000))).err();
        let message = error.ok_or("there is no pCPU1000")?.to_string();
        check(message.contains("pinned to pCPU1000"), || message)?;
    }
    check(soon(|| threads() <= before), || "a thread is still there".to_owned())
}
