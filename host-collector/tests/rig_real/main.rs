//! The rig on this host: guests boot, and each injector and each act of the puppet does what it
//! says, by a witness that is not the rig: the kernel's own counts in `/proc`.
//!
//! What this host lacks (KVM, QEMU, root, a cgroup) shows as an ignored test with the reason. No
//! test asserts how long something took: windows only have to be long enough for it to happen.

mod puppet;
mod witness;

use libtest_mimic::{Arguments, Failed, Trial};
use puppet::{puppet_acts, puppet_failed, puppet_stopped};
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};
use vslice::lab::plan::Accelerator;
use vslice::lab::tools;
use vslice::rig::boot_sector::Guest;
use vslice::rig::frontend::Frontend;
use vslice::rig::inject::quota::{CgroupQuota, QuotaConfig};
use vslice::rig::inject::realtime::{self, RealtimeConfig};
use vslice::rig::inject::rival;
use vslice::rig::inject::stopper::Stopper;
use vslice::rig::inject::storm::QmpStorm;
use vslice::rig::inject::waker::{self, WakerConfig};
use vslice::rig::machine::{self, Machine, MachineConfig, Placement, READER, START_LIMIT};
use vslice::units::{PcpuId, Tid, VcpuId};
use vslice::vmm::host::HostPcpus;
use vslice::vmm::tsc::{self, KvmDebugfs};
use witness::{Counts, is_gone, read_bytes, soon, state};

const WINDOW: Duration = Duration::from_millis(200);

/// See [`in_some_window`].
const WINDOWS_MAX: usize = 6;

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
    trials.push(Trial::test("every_act_of_the_puppet_leaves_the_pcpu", || {
        in_some_window(puppet_acts)
    }));
    trials.push(Trial::test("a_stopped_puppet_sleeps_for_its_stops", || {
        in_some_window(puppet_stopped)
    }));
    trials.push(Trial::test("a_puppet_that_cannot_play_says_why", puppet_failed));
    libtest_mimic::run(&arguments, trials).exit();
}

fn ignored(name: &str, reason: &str) -> Trial {
    Trial::test(name, || Ok(())).with_kind(reason).with_ignored_flag(true)
}

fn machine_trials(qemu: &Path) -> Vec<Trial> {
    let choice = machine::choose_accelerator(qemu);
    let mut trials = Vec::new();
    for accelerator in [Accelerator::Tcg, Accelerator::Kvm] {
        let missing = (accelerator != Accelerator::Tcg && choice.accelerator != accelerator)
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
    let config = MachineConfig {
        start_limit: Duration::ZERO,
        ..config(qemu, Accelerator::Tcg, READER, Frontend::Ide)
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
        Guest::Reader { .. } | Guest::Idle => Vec::new(),
    }
}

fn config(
    qemu: &Path,
    accelerator: Accelerator,
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
    let online: Vec<PcpuId> = HostPcpus::online().expect("sysfs").iter().collect();
    (*online.last().expect("this runs on one"), online[0])
}

fn check(condition: bool, what: impl FnOnce() -> String) -> Outcome {
    if condition { Ok(()) } else { Err(what().into()) }
}

/// What happens to the vCPU thread while `window` runs.
fn during(machine: &Machine, window: impl FnOnce() -> Outcome) -> Result<Counts, Failed> {
    let before = Counts::of_vcpu(machine)?;
    window()?;
    Ok(Counts::of_vcpu(machine)?.since(before))
}

/// Others have work on these pCPUs too, and may keep them for a whole window: then the next one
/// counts. What does not work fails in each of them.
fn in_some_window(mut window: impl FnMut() -> Outcome) -> Outcome {
    let mut outcome = window();
    for _ in 1..WINDOWS_MAX {
        if outcome.is_ok() {
            break;
        }
        outcome = window();
    }
    outcome
}

fn wait() -> Outcome {
    sleep(WINDOW);
    Ok(())
}

fn boots(config: &MachineConfig, injectors: &[(&str, InjectorTest)]) -> Outcome {
    let mut machine = Machine::start(config)?;
    let (pid, vcpu) = (machine.pid(), machine.vcpu());
    in_some_window(|| works(&mut machine, config.guest))?;
    let is_iothread = config.frontend == Frontend::VirtioBlkIothread;
    check(machine.iothread().is_some() == is_iothread, || "iothread".to_owned())?;
    let placement = config.placement.expect("the tests place all machines");
    for thread in machine.threads()? {
        let pcpu = if thread.tid == vcpu { placement.vcpu } else { placement.others };
        let affinity = vslice::vmm::pin::affinity(thread.tid)?;
        check(affinity == [pcpu], || format!("{} may run on {affinity:?}", thread.comm))?;
    }
    own_tsc(&machine, config.accelerator)?;
    for (title, test) in injectors {
        in_some_window(|| test(&mut machine)).map_err(|failed| {
            format!("{title}: {}", failed.message().unwrap_or("it failed and says nothing"))
        })?;
    }
    machine.check()?;
    drop(machine);
    check(!Path::new(&format!("/proc/{pid}")).exists(), || "QEMU is still there".to_owned())
}

/// The guest does what it is for.
fn works(machine: &mut Machine, guest: Guest) -> Outcome {
    let read_before = read_bytes(machine.pid())?;
    let before = machine.counter()?;
    let counts = during(machine, wait)?;
    let moved = machine.counter()?.wrapping_sub(before);
    let read = read_bytes(machine.pid())? - read_before;
    check(moved > 0, || "the guest does not count".to_owned())?;
    match guest {
        Guest::Reader { .. } => {
            // One read may be counted by the guest in the window and by the kernel before it.
            let expected = u64::from(moved.saturating_sub(2)) * 4096;
            check(read >= expected, || format!("{moved} reads made {read} bytes"))?;
            check(machine.error_count()? == 0, || "reads fail in the guest".to_owned())
        }
        // Nothing in it needs the host.
        Guest::Hog => check(counts.voluntary == 0, || format!("a hog went to sleep: {counts:?}")),
        // KVM polls before it sleeps, and where the pCPU is taken for long, polling finds the timer
        // due nearly each time: of 905 halts 87 were sleeps.
        Guest::Idle => {
            check(counts.voluntary > 0, || format!("{moved} halts and no sleep: {counts:?}"))
        }
        Guest::PortReader => Ok(()),
    }
}

/// KVM says how the guest's TSC follows from the host's: it began when the guest did.
fn own_tsc(machine: &Machine, accelerator: Accelerator) -> Outcome {
    let relations = KvmDebugfs::find().and_then(|debugfs| debugfs.relations_of(machine.pid()));
    if accelerator == Accelerator::Tcg {
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
    let rival = rival::start(pcpus().0)?;
    let own = Tid(std::process::id());
    let before = Counts::of(own, rival.tid())?;
    let counts = during(machine, wait)?;
    let rival_counts = Counts::of(own, rival.tid())?.since(before);
    let tid = rival.tid();
    let log = rival.log();
    check(rival_counts.run_ns > 0 && rival_counts.voluntary == 0, || {
        format!("the rival did not run, or slept: {rival_counts:?}")
    })?;
    // The vCPU always wants to run: what the rival got, it waited for. What it waits for just now
    // is not counted yet.
    check(counts.run_delay_ns * 2 > rival_counts.run_ns, || {
        format!("{counts:?}, rival {rival_counts:?}")
    })?;
    check(log.tid == tid && log.episodes.len() == 1, || format!("{log:?}"))?;
    is_gone(tid)
}

fn waker(machine: &mut Machine) -> Outcome {
    let waker = waker::start(WakerConfig::new(pcpus().0))?;
    let tid = waker.tid();
    let counts = during(machine, wait)?;
    let log = waker.log();
    preempted(&counts, log.episodes.len())?;
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
    let counts = during(machine, wait)?;
    let log = task.log();
    preempted(&counts, log.episodes.len())?;
    is_gone(tid)
}

/// Others on the pCPU may be preempted as well, so that not every waking takes it from the vCPU.
fn preempted(counts: &Counts, waking_count: usize) -> Outcome {
    let wakings = waking_count as u64;
    check(wakings > 0 && counts.involuntary * 2 >= wakings, || {
        format!("{wakings} wakings, {counts:?}")
    })
}

fn quota(machine: &mut Machine) -> Outcome {
    let group = |tid: Tid| fs::read_to_string(format!("/proc/{}/task/{tid}/cgroup", machine.pid()));
    let (vcpu, main) = (machine.vcpu(), machine.pid());
    let (vcpu_group, main_group) = (group(vcpu)?, group(main)?);
    let quota = CgroupQuota::start(&QuotaConfig::new(main, vcpu))?;
    check(group(vcpu)? != vcpu_group, || "the vCPU is where it was".to_owned())?;
    let path = quota.path().to_owned();
    let counts = during(machine, wait)?;
    let log = quota.stop()?;
    check(log.after.throttled_count > log.before.throttled_count, || format!("{log:?}"))?;
    // A throttled thread is runnable and has no pCPU.
    check(counts.run_delay_ns > 0 && log.after.throttled_ns > 0, || format!("{counts:?} {log:?}"))?;
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
    wait()?;
    check(machine.counter()? != before, || "it is still stopped".to_owned())?;
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
    let calm = during(machine, wait)?;
    let storm = QmpStorm::start(&machine.second_monitor(), pcpus().1)?;
    let tid = storm.tid();
    let counts = during(machine, wait)?;
    let log = storm.stop().ok_or("the storm panicked")?;
    check(log.failure.is_none() && log.answer_count > 0, || format!("{log:?}"))?;
    check(counts.voluntary > calm.voluntary, || {
        format!("sleeps: {} in the storm, {} before", counts.voluntary, calm.voluntary)
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
