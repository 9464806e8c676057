//! Control groups against the running kernel: short processes in a group of their own on a watched pCPU, and
//! a group that is gone before anybody could look for it.
//!
//! Needs the right to record with programs, and cgroup v2 where groups may be made; where one is missing, each
//! test is reported as ignored and says why.

use libtest_mimic::{Arguments, Failed, Trial};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};
use vslice_core::host_event::{HostEvent, HostEventKind};
use vslice_core::units::{PcpuId, Tid, VcpuId};
use vslice_host::host_clock::host_now;
use vslice_record::event_writers::EventWriters;
use vslice_record::perf::{EventSink, RecordPlan, Recorder, SinkError, check_programs};
use vslice_report::analyse::analyse;
use vslice_report::summary::group::GroupKind;
use vslice_trace::RunDir;
use vslice_trace::evidence::GroupSource;
use vslice_trace::manifest::{Manifest, Status, VmRecord, Window};
use vslice_trace::thread::{ThreadRecord, ThreadRole};
use vslice_trace::vmm::Vmm;

const DEADLINE: Duration = Duration::from_secs(60);

/// The pCPU that is watched.
const PCPU: PcpuId = PcpuId(0);

type Outcome = Result<(), Failed>;

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let missing = check_programs().err().or_else(|| Group::make("try").err());
    let trial = |name: &str, test: fn() -> Outcome| {
        let trial = Trial::test(name, test);
        match &missing {
            None => trial,
            Some(reason) => trial.with_kind(reason).with_ignored_flag(true),
        }
    };
    let trials = vec![
        trial("each_of_many_short_processes_is_in_its_group", short_processes_have_a_group),
        trial("a_group_that_lives_for_a_moment_has_its_path", a_short_group_has_a_path),
        trial("a_loop_of_short_processes_is_one_antagonist", a_loop_is_one_antagonist),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

/// A control group of this test, which is removed with it.
struct Group {
    directory: PathBuf,
    path: String,
    number: u64,
}

impl Group {
    fn make(name: &str) -> Result<Group, String> {
        let mounts =
            fs::read_to_string("/proc/self/mountinfo").map_err(|error| error.to_string())?;
        let mount = mounts.lines().find_map(|line| {
            let (place, kind) = line.split_once(" - ")?;
            kind.starts_with("cgroup2 ").then(|| place.split(' ').nth(4)).flatten()
        });
        let mount = mount.ok_or("cgroup v2 is not mounted")?;
        let path = format!("/vslice-test-{name}-{}.scope", std::process::id());
        let directory = Path::new(mount).join(&path[1..]);
        fs::create_dir(&directory)
            .map_err(|error| format!("no control group can be made: {error}"))?;
        let number = fs::metadata(&directory).map_err(|error| error.to_string())?.ino();
        Ok(Group { directory, path, number })
    }

    /// Runs a shell in it, on the watched pCPU.
    fn run(&self, script: &str) -> Result<Child, Failed> {
        let procs = self.directory.join("cgroup.procs");
        let script = format!("echo $$ > '{}' && {script}", procs.display());
        let pcpu = PCPU.0.to_string();
        Ok(Command::new("taskset").args(["-c", &pcpu, "sh", "-c", &script]).spawn()?)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let start = Instant::now();
        // Its processes take a moment to end.
        while fs::remove_dir(&self.directory).is_err() && start.elapsed() < DEADLINE {
            sleep(Duration::from_millis(20));
        }
    }
}

#[derive(Clone, Default)]
struct Seen {
    events: Arc<Mutex<Vec<HostEvent>>>,
    paths: Arc<Mutex<BTreeMap<u64, Option<String>>>>,
}

impl EventSink for Seen {
    fn batch(&mut self, _: PcpuId, events: &[HostEvent]) -> Result<(), SinkError> {
        self.events.lock().expect("nobody panics with it").extend_from_slice(events);
        Ok(())
    }

    fn group(&mut self, number: u64, path: Option<&str>) -> Result<(), SinkError> {
        let mut paths = self.paths.lock().expect("nobody panics with it");
        assert!(paths.insert(number, path.map(str::to_owned)).is_none(), "it is said once");
        Ok(())
    }
}

impl Seen {
    fn path(&self, number: u64) -> Option<Option<String>> {
        self.paths.lock().expect("nobody panics with it").get(&number).cloned()
    }

    fn of<T: Ord>(&self, pick: impl FnMut(&HostEvent) -> Option<T>) -> BTreeSet<T> {
        self.events.lock().expect("nobody panics with it").iter().filter_map(pick).collect()
    }

    /// The threads that were seen in this group.
    fn tids_in(&self, group: u64) -> BTreeSet<Tid> {
        self.of(|event| match event.kind {
            HostEventKind::Group { tid, group: seen } => (seen == group).then_some(tid),
            _ => None,
        })
    }
}

fn record(seen: &Seen) -> Result<Recorder, Failed> {
    let plan = RecordPlan { pcpus: vec![PCPU], ..RecordPlan::default() };
    let recorder = Recorder::start(&plan, seen.clone())?;
    let evidence = recorder.group_evidence();
    if evidence.source != GroupSource::Events {
        return Err(format!("{evidence:?}").into());
    }
    Ok(recorder)
}

fn wait_until(what: &str, mut is_there: impl FnMut() -> bool) -> Outcome {
    let start = Instant::now();
    while !is_there() {
        if start.elapsed() > DEADLINE {
            return Err(format!("{what}: not within {DEADLINE:?}").into());
        }
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn short_processes_have_a_group() -> Outcome {
    let group = Group::make("loop")?;
    let seen = Seen::default();
    let recorder = record(&seen)?;
    let mut shell = group.run("while :; do /bin/true; done")?;
    let many = wait_until("fifty processes", || seen.tids_in(group.number).len() >= 50);
    shell.kill()?;
    shell.wait()?;
    recorder.stop()?;
    many?;
    assert_eq!(seen.path(group.number), Some(Some(group.path.clone())));
    // Each program that the shell ran; those of others would be in another group.
    let programs = seen.of(|event| match &event.kind {
        HostEventKind::Comm { tid, comm } if comm == "true" => Some(*tid),
        _ => None,
    });
    let known = seen.tids_in(group.number);
    let strangers = programs.difference(&known).count();
    assert!(programs.len() >= 40 && strangers * 20 <= programs.len(), "{strangers} strangers");
    Ok(())
}

fn a_short_group_has_a_path() -> Outcome {
    let seen = Seen::default();
    let recorder = record(&seen)?;
    let group = Group::make("moment")?;
    let (number, path) = (group.number, group.path.clone());
    group.run("/bin/true")?.wait()?;
    drop(group);
    let told = wait_until("the group's path", || seen.path(number).is_some());
    recorder.stop()?;
    told?;
    assert_eq!(seen.path(number), Some(Some(path)));
    Ok(())
}

/// A busy process stands for the VM: its only thread is the vCPU, which wants the pCPU all the time.
fn a_loop_is_one_antagonist() -> Outcome {
    let group = Group::make("rival")?;
    let scratch = tempfile::tempdir()?;
    let run = RunDir::create(&scratch.path().join("run"))?;
    let pcpu = PCPU.0.to_string();
    let busy = ["-c", &pcpu, "sh", "-c", "while :; do :; done"];
    let mut vcpu = Command::new("taskset").args(busy).spawn()?;
    let tid = Tid(vcpu.id());
    let thread = ThreadRecord {
        tid,
        comm: "CPU 0/KVM".to_owned(),
        role: ThreadRole::Vcpu(VcpuId(0)),
        vcpu: Some(VcpuId(0)),
        pinned: Some(PCPU),
        kept: None,
        scheduling: None,
    };
    let plan = RecordPlan {
        vcpu_tids: vec![tid],
        vm_tids: vec![tid],
        pcpus: vec![PCPU],
        ..RecordPlan::default()
    };
    let recorder = Recorder::start(&plan, EventWriters::create(&run)?)?;
    let mut manifest = Manifest::begun(Tid(std::process::id()));
    manifest.vms = vec![VmRecord::new("vm1", Vmm::Qemu, tid, vec![thread])];
    (manifest.pcpus, manifest.group_evidence) =
        (vec![PCPU], Some(recorder.group_evidence().clone()));
    let mut shell = group.run("while :; do /bin/true; done")?;
    let start_ns = host_now();
    sleep(Duration::from_secs(2));
    manifest.window = Some(Window { start_ns, end_ns: Some(host_now()) });
    shell.kill()?;
    shell.wait()?;
    let stopped = recorder.stop();
    vcpu.kill()?;
    vcpu.wait()?;
    stopped?;
    manifest.status = Status::Complete;
    run.write_json("run.json", &manifest)?;
    let summary = analyse(run.path())?;
    let of_vcpu = &summary.vcpus[0];
    let row = of_vcpu.antagonist_groups.first().ok_or("nobody ran while the vCPU waited")?;
    assert_eq!((row.kind, row.path.as_deref()), (GroupKind::ControlGroup, Some(&*group.path)));
    assert_eq!(row.name, group.path[1..]);
    assert!(row.processes.count >= 50, "{row:?}");
    assert!(row.share > 0.2, "it competes alone with it: {row:?}");
    assert!(row.members.iter().any(|member| member.name == "true"), "{row:?}");
    Ok(())
}
