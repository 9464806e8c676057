//! A continuous recording: one recorder after the other, each into a run directory of its own, in bounded space.
//!
//! The supervisor records nothing itself, so that what one recorder took is given back whole, and one that fails is
//! only tried again. A recorder is told to end once the next one's manifest says that it records: no moment between
//! the two is missed, however long a start takes on a busy host, and they overlap no longer than that takes to see.

mod again;
mod folder;
mod kept;
mod recorder;

pub(crate) use kept::Limits;

use again::Again;
use folder::Folder;
use kept::{EndedRun, to_remove};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use recorder::{Begun, Recorder, manifest_in};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant, UNIX_EPOCH};
use vslice_core::text::sentence;
use vslice_host::host_clock::host_clocks_now;
use vslice_spec::quantity::{bytes, duration};
use vslice_trace::manifest::Manifest;

/// Between two looks at the recorders: the overlap of two is about so long.
const TURN: Duration = Duration::from_millis(100);

/// Between two looks at the room.
const TIDY_INTERVAL: Duration = Duration::from_secs(1);

/// Between two looks for VMs while there is none.
const VMS_INTERVAL: Duration = Duration::from_secs(5);

/// One run takes this part of the room at most: the next one begins early then.
const RUNS_MIN: u64 = 4;

/// A run is never ended earlier for its size.
const INTERVAL_MIN: Duration = Duration::from_secs(5);

/// How it is recorded.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// How long each run is.
    pub(crate) interval: Duration,
    /// How much is kept.
    pub(crate) limits: Limits,
    /// The arguments of each recorder, but for where it writes.
    pub(crate) args: Vec<OsString>,
    /// Whether there is anything to record.
    pub(crate) are_there_vms: fn() -> bool,
}

/// Says something to whoever started this.
pub(crate) type Say<'a> = &'a mut dyn FnMut(&str);

/// The recording, and what it has come to.
#[derive(Debug)]
pub(crate) struct Rotation {
    settings: Settings,
    folder: Folder,
    again: Again,
    /// It records.
    current: Option<(Recorder, Begun)>,
    /// It was started, and takes over once it records.
    next: Option<Recorder>,
    /// They were told to end, each with the beginning of the window that came after it.
    ending: Vec<(Recorder, Option<u64>)>,
    /// What has ended, but for what stays whatever happens.
    runs: Vec<EndedRun>,
    left_alone: BTreeSet<String>,
    /// Where the last window ended that has ended.
    last_end_ns: Option<u64>,
    cpu_time: Duration,
    tidied: Option<Instant>,
    is_full: bool,
    waits_for_vms: bool,
}

impl Rotation {
    /// Takes the folder, and what earlier recordings have left there.
    ///
    /// # Errors
    /// If it cannot be written, or is another's.
    pub(crate) fn new(folder: &Path, settings: Settings) -> anyhow::Result<Rotation> {
        let folder = Folder::open(folder)?;
        let runs = folder.ended_runs(&[])?;
        Ok(Rotation {
            settings,
            folder,
            again: Again::new(),
            current: None,
            next: None,
            ending: Vec::new(),
            runs,
            left_alone: BTreeSet::new(),
            last_end_ns: None,
            cpu_time: children_cpu_time(),
            tidied: None,
            is_full: false,
            waits_for_vms: false,
        })
    }

    /// Records until it is interrupted, and ends in order.
    ///
    /// # Errors
    /// If the kernel does not say what became of a recorder.
    pub(crate) fn record(mut self, interrupted: &AtomicBool, say: Say<'_>) -> io::Result<()> {
        // ATOMICS: relaxed, because the flag stands for itself.
        while !interrupted.load(Ordering::Relaxed) {
            self.turn(say)?;
            sleep(TURN);
        }
        if let Some((current, _)) = self.current.take() {
            self.ending.push((current, None));
        }
        self.ending.extend(self.next.take().map(|next| (next, None)));
        self.ending.iter_mut().for_each(|(recorder, _)| recorder.tell_to_end());
        while !self.ending.is_empty() {
            self.reap_ending(say)?;
            sleep(TURN);
        }
        Ok(())
    }

    fn turn(&mut self, say: Say<'_>) -> io::Result<()> {
        self.reap_ending(say)?;
        self.reap_others(say)?;
        self.hand_over(say);
        if self.is_due() {
            self.start(say);
        }
        self.tidy(say);
        Ok(())
    }

    fn reap_ending(&mut self, say: Say<'_>) -> io::Result<()> {
        let mut place = 0;
        while let Some((recorder, _)) = self.ending.get_mut(place) {
            let Some(status) = recorder.has_ended()? else {
                place += 1;
                continue;
            };
            let (recorder, next_start_ns) = self.ending.remove(place);
            self.note_end(&recorder, next_start_ns, say);
            if status.success() {
                self.again.went_well();
            }
        }
        Ok(())
    }

    /// Those that nobody has told to end.
    fn reap_others(&mut self, say: Say<'_>) -> io::Result<()> {
        if let Some((recorder, _)) = &mut self.current
            && let Some(status) = recorder.has_ended()?
            && let Some((recorder, _)) = self.current.take()
        {
            self.failed(&recorder, status, say);
        }
        if let Some(recorder) = &mut self.next
            && let Some(status) = recorder.has_ended()?
            && let Some(recorder) = self.next.take()
        {
            self.failed(&recorder, status, say);
        }
        Ok(())
    }

    fn failed(&mut self, recorder: &Recorder, status: ExitStatus, say: Say<'_>) {
        self.note_end(recorder, None, say);
        let wait = duration_of(self.again.failed(Instant::now()));
        let name = &recorder.name;
        say(&format!(
            "the recorder of {name} has ended ({status}); the next one is started in {wait}"
        ));
    }

    /// Where the next recorder has begun, the one before it is not needed any more.
    fn hand_over(&mut self, say: Say<'_>) {
        let Some(begun) = self.next.as_mut().and_then(Recorder::begun) else { return };
        let Some(next) = self.next.take() else { return };
        match self.current.replace((next, begun)) {
            Some((mut former, _)) => {
                former.tell_to_end();
                self.ending.push((former, Some(begun.start_ns)));
            }
            None => {
                let gap_ns = self.last_end_ns.and_then(|end| begun.start_ns.checked_sub(end));
                if let Some(gap_ns) = gap_ns {
                    say(&format!("nothing was recorded for {}", duration(gap_ns)));
                }
            }
        }
    }

    fn is_due(&self) -> bool {
        let is_over = |begun: &Begun| {
            let age = begun.seen.elapsed();
            age >= self.settings.interval || (self.is_full && age >= INTERVAL_MIN)
        };
        self.next.is_none()
            && self.again.may(Instant::now())
            && self.current.as_ref().is_none_or(|(_, begun)| is_over(begun))
    }

    fn start(&mut self, say: Say<'_>) {
        let now = Instant::now();
        if self.current.is_none() && !(self.settings.are_there_vms)() {
            if !std::mem::replace(&mut self.waits_for_vms, true) {
                say("no virtual machine is visible on this host; waiting for one");
            }
            self.again.wait(now, VMS_INTERVAL);
            return;
        }
        self.waits_for_vms = false;
        match self.recorder() {
            Ok(recorder) => self.next = Some(recorder),
            Err(error) => {
                let wait = self.again.failed(now);
                let (why, wait) = (sentence(error.as_ref()), duration_of(wait));
                say(&format!("no recorder could be started: {why}; it is tried again in {wait}"));
            }
        }
    }

    fn recorder(&self) -> anyhow::Result<Recorder> {
        let realtime_s = host_clocks_now().realtime_ns / 1_000_000_000;
        let name = self.folder.new_name(i64::try_from(realtime_s)?)?;
        let dir = self.folder.path().join(&name);
        Ok(Recorder::start(name, dir, &self.settings.args)?)
    }

    /// Tells what a recorder has left.
    fn note_end(&mut self, recorder: &Recorder, next_start_ns: Option<u64>, say: Say<'_>) {
        let cpu_time = children_cpu_time();
        let used = cpu_time.saturating_sub(std::mem::replace(&mut self.cpu_time, cpu_time));
        let names: Vec<&str> = self.under_way().map(|recorder| &*recorder.name).collect();
        match self.folder.ended_runs(&names) {
            Ok(runs) => self.runs = runs,
            Err(error) => say(&format!("cannot list {}: {error}", self.folder.path().display())),
        }
        // Of one that had nothing to record there is nothing; it has said why.
        let Some(manifest) = manifest_in(recorder.dir()) else { return };
        let end_ns = manifest.window.and_then(|window| window.end_ns).map(|end| end.0);
        self.last_end_ns = end_ns.or(self.last_end_ns);
        let run_bytes = self.folder.run_bytes(&recorder.name);
        say(&told(&recorder.name, &manifest, run_bytes, next_start_ns, used));
    }

    /// The recorders that have not ended.
    fn under_way(&self) -> impl Iterator<Item = &Recorder> {
        let current = self.current.iter().map(|(recorder, _)| recorder);
        current.chain(&self.next).chain(self.ending.iter().map(|(recorder, _)| recorder))
    }

    /// Removes what is not kept, and sees whether the current run has grown too large.
    fn tidy(&mut self, say: Say<'_>) {
        if self.tidied.is_some_and(|tidied| tidied.elapsed() < TIDY_INTERVAL) {
            return;
        }
        self.tidied = Some(Instant::now());
        let limits = self.settings.limits;
        let run_bytes = |recorder: &Recorder| self.folder.run_bytes(&recorder.name);
        let current_bytes = self.current.as_ref().map_or(0, |(recorder, _)| run_bytes(recorder));
        let recording_bytes = self.under_way().map(run_bytes).sum();
        self.is_full = current_bytes > limits.keep_bytes / RUNS_MIN;
        self.runs.retain(|run| !self.left_alone.contains(&run.name));
        // Files have no other clock than the one that can be set.
        let now = UNIX_EPOCH + Duration::from_nanos(host_clocks_now().realtime_ns);
        for (name, why) in to_remove(&self.runs, recording_bytes, now, &limits) {
            match self.folder.remove(&name) {
                Ok(()) => say(&format!("removed {name}: {why}")),
                Err(error) => {
                    say(&format!("{name} is left alone, and not counted: {}", sentence(&error)));
                    self.left_alone.insert(name.clone());
                }
            }
            self.runs.retain(|run| run.name != name);
        }
    }
}

/// One line of what a recorder has recorded, and at what cost.
fn told(
    name: &str,
    manifest: &Manifest,
    run_bytes: u64,
    next_start_ns: Option<u64>,
    used: Duration,
) -> String {
    let end_ns = manifest.window.and_then(|window| Some(window.end_ns?.0));
    let length =
        manifest.window.zip(end_ns).map(|(window, end)| end.saturating_sub(window.start_ns.0));
    let length = length.map_or_else(|| "unknown how long".to_owned(), duration);
    let overlap = end_ns.zip(next_start_ns).map(|(end, next)| end.saturating_sub(next));
    let overlap =
        overlap.map_or(String::new(), |ns| format!(", the last {} of it twice", duration(ns)));
    let around = used.saturating_sub(Duration::from_nanos(manifest.cost.cpu_ns));
    format!(
        "{name} has {length}{overlap}, {}; CPU time {}, of which {} to begin and to end",
        bytes(run_bytes),
        duration_of(used),
        duration_of(around)
    )
}

fn duration_of(length: Duration) -> String {
    duration(u64::try_from(length.as_nanos()).unwrap_or(u64::MAX))
}

/// CPU time of all recorders that have ended.
fn children_cpu_time() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return Duration::ZERO };
    let time = |of: TimeVal| {
        let seconds = u64::try_from(of.tv_sec()).unwrap_or(0);
        Duration::from_secs(seconds)
            + Duration::from_micros(u64::try_from(of.tv_usec()).unwrap_or(0))
    };
    time(usage.user_time()) + time(usage.system_time())
}

#[cfg(test)]
mod tests;
