//! `vslice attach --observe` beside a load, and what it has observed.

use super::figures::say;
use super::guest::NAME;
use libtest_mimic::Failed;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs::File;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};
use std::{fs, thread};
use tempfile::TempDir;
use vslice_tests::Lab;
use vslice_trace::manifest::Manifest;
use vslice_trace::observation::{ObservationRecord, operation_name};
use vslice_trace::{ObservedItem, RunDir, Tail, VmName, read_all};
use vslice_wire::{BlockOperation, ObservedFlags};

/// Until the agent has been started, and has found the guest's tracepoints.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Of so many requests it is known when the host's disk had them. What QEMU's new threads do first is not.
const KNOWN_MIN_PERCENT: u64 = 90;

/// An attach that goes on.
pub(super) struct Attached {
    vslice: Child,
    dir: TempDir,
}

/// What one left that observed.
pub(super) struct Recorded {
    pub(super) requests: Vec<Observed>,
    pub(super) record: ObservationRecord,
    summary: Value,
    /// The page.
    pub(super) page: String,
    /// The run directory; it ends with this value.
    pub(super) path: PathBuf,
    _dir: TempDir,
}

/// What one left that did not observe: what the host alone shows.
pub(super) struct HostOnly {
    /// The page.
    pub(super) page: String,
    /// The run directory; it ends with this value.
    pub(super) path: PathBuf,
    _dir: TempDir,
}

/// A request that was observed, as these tests compare it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Observed {
    pub(super) operation: &'static str,
    pub(super) offset: u64,
    pub(super) bytes: u32,
    device: u16,
    pub(super) queued_ns: u64,
    pub(super) issued_ns: u64,
    pub(super) completed_ns: u64,
    pub(super) task: u32,
    /// The guest's kernel does not say which of several it is.
    pub(super) is_ambiguous: bool,
    /// A write with a flush before or after it.
    pub(super) is_flushed: bool,
}

impl Observed {
    pub(super) fn latency_ns(&self) -> u64 {
        self.completed_ns - self.queued_ns
    }
}

impl Attached {
    /// Starts it, with these options beside, and waits until it says that it records: its agent observes then.
    pub(super) fn start(lab: &Lab, options: &[&str]) -> Result<Attached, Failed> {
        let dir = tempfile::tempdir()?;
        let mut command = lab.command(&["attach", NAME, "--output"]);
        command.arg(dir.path().join("run")).args(options);
        let vslice = command.stderr(File::create(dir.path().join("said"))?).spawn()?;
        let mut attached = Attached { vslice, dir };
        let deadline = Instant::now() + START_LIMIT;
        let announcement = format!("recording {NAME} until Ctrl-C");
        while !attached.said().contains(&announcement) {
            if attached.vslice.try_wait()?.is_some() || Instant::now() > deadline {
                return Err(format!("it did not begin: {}", attached.end()?.said).into());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(attached)
    }

    fn said(&self) -> String {
        fs::read_to_string(self.dir.path().join("said")).unwrap_or_default()
    }

    fn run(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// Ends it as Ctrl-C does.
    fn end(self) -> Result<Ended, Failed> {
        let _may_have_ended = kill(Pid::from_raw(i32::try_from(self.vslice.id())?), Signal::SIGINT);
        let output = self.vslice.wait_with_output()?;
        let page = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = fs::read_to_string(self.dir.path().join("said"))?;
        Ok(Ended { is_success: output.status.success(), page, said, dir: self.dir })
    }

    /// Ends it, of which nothing but the host's own view is expected.
    pub(super) fn finish_host_only(self) -> Result<HostOnly, Failed> {
        let path = self.run();
        let ended = self.end()?.succeeded()?;
        Ok(HostOnly { page: ended.page, path, _dir: ended.dir })
    }

    /// Ends it, and reads what it left.
    pub(super) fn finish(self) -> Result<Recorded, Failed> {
        let path = self.run();
        let ended = self.end()?.succeeded()?;
        let run = RunDir::open(&path)?;
        let manifest: Manifest = run.read_json("run.json")?;
        let record = manifest.vms.into_iter().find_map(|vm| vm.observation);
        let record = record.ok_or(format!("nothing was observed: {}", ended.said))?;
        let (items, tail) = read_all(&run.observed_path(&VmName::try_from(NAME)?))?;
        if tail != Tail::Finished {
            return Err(format!("the stream is cut off: {tail:?}").into());
        }
        let mut requests = Vec::new();
        for item in items {
            match item {
                ObservedItem::Request(request) => requests.push(Observed {
                    operation: operation_name(request.operation),
                    offset: request.sector * 512,
                    bytes: request.bytes,
                    device: request.device,
                    queued_ns: request.queued.0,
                    issued_ns: request.issued.0,
                    completed_ns: request.completed.0,
                    task: request.task,
                    is_ambiguous: request.flags.contains(ObservedFlags::AMBIGUOUS),
                    is_flushed: request.operation == BlockOperation::Write
                        && [ObservedFlags::PREFLUSH, ObservedFlags::FUA]
                            .into_iter()
                            .any(|flag| request.flags.contains(flag)),
                }),
                ObservedItem::Lost(lost) if lost.count > 0 => {
                    return Err(format!("events were lost: {lost:?}").into());
                }
                ObservedItem::Lost(_) | ObservedItem::Settled(_) => {}
            }
        }
        let summary = serde_json::from_slice(&fs::read(path.join("summary.json"))?)?;
        Ok(Recorded { requests, record, summary, page: ended.page, path, _dir: ended.dir })
    }
}

struct Ended {
    is_success: bool,
    page: String,
    said: String,
    dir: TempDir,
}

impl Ended {
    fn succeeded(self) -> Result<Ended, Failed> {
        if self.is_success { Ok(self) } else { Err(format!("attach failed: {}", self.said).into()) }
    }
}

impl Recorded {
    /// The requests on a disk that the guest calls so.
    pub(super) fn on(&self, disk: &str) -> Result<Vec<Observed>, Failed> {
        let device = self.record.devices.iter().find(|device| device.name == disk);
        let device = device.ok_or(format!("{disk} was not observed: {:?}", self.record.devices))?;
        let on = |request: &&Observed| request.device == device.number;
        Ok(self.requests.iter().filter(on).copied().collect())
    }

    /// The name of who made a request, and what the process calls itself.
    pub(super) fn who(&self, request: &Observed) -> (&str, &str) {
        let task = self.record.tasks.iter().find(|task| task.number == request.task);
        task.map_or(("?", ""), |task| (&task.name, task.title.as_deref().unwrap_or_default()))
    }

    /// That the host's phases are known of most requests of this operation on a disk that somebody waits for; says of
    /// how many they are, and the reasons of the others. Those of which the guest's kernel does not say which is which
    /// have none.
    pub(super) fn phases_are_known(&self, disk: &str, operation: &str) -> Result<(), Failed> {
        let operations = self.summary["observed"]["operations"].as_array().into_iter().flatten();
        let is_it = |one: &&Value| {
            one["device"] == disk && one["operation"] == operation && one["is_sync"] == true
        };
        let row = operations.into_iter().find(is_it).ok_or("there is none")?;
        let (made, io) = (&row["count"], &row["io"]["all"]);
        let reasons = io["unphased_by"].as_object().into_iter().flatten();
        let reasons = reasons.filter(|(_, count)| count.as_u64() != Some(0));
        let reasons: Vec<String> =
            reasons.map(|(reason, count)| format!("{reason} {count}")).collect();
        let (known, unknown) = (io["known"].as_u64(), io["unphased"].as_u64());
        let (known, unknown) = known.zip(unknown).ok_or("it is not told how many are known")?;
        say(&format!(
            "{disk} {operation}: {made}, attributed {}, of which the host's phases are known of {known}; \
             unknown: {reasons:?}",
            known + unknown
        ));
        if known == 0 || known * 100 < (known + unknown) * KNOWN_MIN_PERCENT {
            return Err(format!("these are too few:\n{}", self.page).into());
        }
        Ok(())
    }

    /// That this process is among those because of whom requests of this operation waited for the pCPU of
    /// this vCPU. The page names the few that ran longest, which may be others of a busy host.
    pub(super) fn blames(&self, name: &str, operation: &str, vcpu: u64) -> Result<(), Failed> {
        let operations = self.summary["observed"]["operations"].as_array().into_iter().flatten();
        let blamed = operations
            .filter(|one| one["operation"] == operation)
            .flat_map(|one| one["classes"]["all"]["antagonists"].as_array().into_iter().flatten());
        if blamed.into_iter().any(|one| one["name"] == name && one["victim_vcpu"] == vcpu) {
            return Ok(());
        }
        Err(format!("{name} is not named for a {operation} of vCPU{vcpu}:\n{}", self.page).into())
    }
}
