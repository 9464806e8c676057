//! From a run directory to all that is made of it: the pure layers, fed with what was recorded, and observers that are
//! told of it.
//!
//! ```text
//! clock, gaps of each guest --> clocks, hog_check --.
//! requests of each guest --> requests, observed -----+--> guests (joins) --> requests, broken down --.
//! events of each pCPU ---------> pass --> timeline --+--> spans, lock waits, exits ------------------+--> observers
//! samples of each VM ----------> samples --------------------------------------------------------------'
//! ```
//!
//! Blocks of events are decoded by threads of their own, the pass has another, and the listeners (joins and observers) are
//! in the thread of whoever asked. What the observers are told does not depend on how many threads there are.
//!
//! Of all this observers are told what is [`chosen`], the whole run unless a part is asked for. Each stream is decoded
//! once, but for the events where `look_ahead` needs them.

pub mod chosen;
mod clocks;
#[cfg(any(test, feature = "example"))]
pub mod drawn;
#[cfg(any(test, feature = "example"))]
pub mod drawn_observed;
mod guests;
mod hog_check;
mod host_pass;
mod host_views;
mod listeners;
pub mod live;
mod lost_time;
mod observed;
pub mod observer;
mod observers;
mod pass;
mod pulled;
mod requests;
mod samples;
mod summarise;
mod threads;
mod timeline_facts;
mod tsc_offset_check;

use self::chosen::{Asked, Chosen, NothingChosen};
use self::guests::{GuestsAhead, GuestsEnd};
use self::listeners::Listeners;
use self::observer::{MeasuredWindow, Observer, Run, RunEnd};
use self::observers::Observers;
use self::pass::{Pass, PassEnd};
use crate::summary::Summary;
use std::path::Path;
use std::rc::Rc;
use vslice_core::timeline::{FoundLock, LockSearch, StackTable, Timeline};
use vslice_trace::evidence::EvidenceLevel;
use vslice_trace::manifest::{Manifest, SCHEMA};
use vslice_trace::{EventMerge, RunDir, StoreError};

pub use self::pass::watched_pcpus;
pub use self::summarise::{SummaryObserver, teller};

/// Why there is no summary of a run directory.
#[derive(Debug, thiserror::Error)]
pub enum AnalyseError {
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The run was recorded by a vslice that described runs in another way.
    #[error("its run.json has schema {found}, this vslice reads {SCHEMA}")]
    Schema {
        /// What it says.
        found: String,
    },
    /// See [`NothingChosen`].
    #[error(transparent)]
    Nothing(#[from] NothingChosen),
    /// The system lets this process have no more threads.
    #[error("no thread for the timelines: {source}")]
    NoThread {
        /// Why.
        source: std::io::Error,
    },
}

/// The summary of a run.
///
/// # Errors
/// As [`analyse_with`]. A run that ended early, or whose collector was killed, has a summary that says so.
///
/// # Panics
/// Never: an analysis that comes to its end has told of it.
pub fn analyse(path: &Path) -> Result<Summary, AnalyseError> {
    let mut summary = SummaryObserver::default();
    analyse_with(path, &mut [&mut summary])?;
    Ok(summary.into_summary().expect("the end was told"))
}

/// Tells these observers of a run, all of them in one pass.
///
/// # Errors
/// When the directory is not a run's, or its files cannot be read.
pub fn analyse_with(path: &Path, observers: &mut [&mut dyn Observer]) -> Result<(), AnalyseError> {
    analyse_chosen(path, &Asked::default(), observers)
}

/// Tells these observers of a part of a run, all of them in one pass.
///
/// # Errors
/// As [`analyse_with`], and when the run has no such chosen.
pub fn analyse_chosen(
    path: &Path,
    asked: &Asked,
    observers: &mut [&mut dyn Observer],
) -> Result<(), AnalyseError> {
    analyse_on(pass::pcpus_count(), path, asked, observers)
}

/// [`analyse_chosen`] by as many threads as so many pCPUs are good for.
fn analyse_on(
    pcpus_count: usize,
    path: &Path,
    asked: &Asked,
    observers: &mut [&mut dyn Observer],
) -> Result<(), AnalyseError> {
    let run_dir = RunDir::open(path)?;
    let manifest = manifest_of(&run_dir)?;
    let chosen = Chosen::of(asked, &manifest)?;
    let stacks = optional(run_dir.read_stack_names())?;
    let (census, unread) = threads::census(&run_dir, "threads.json");
    let (census_at_end, unread_at_end) = threads::census(&run_dir, "threads_end.json");
    let window = MeasuredWindow::of(&manifest);
    let stack_table =
        StackTable::from(stacks.iter().map(|stack| stack.frames.clone()).collect::<Vec<_>>());
    let mut guests = GuestsAhead::open(&run_dir, &manifest)?;
    let locks = look_ahead(pcpus_count, &run_dir, &manifest, &stack_table, &mut guests)?;
    let run = Run { manifest: &manifest, window, chosen: &chosen, stacks: &stacks, locks: &locks };
    let observers = Rc::new(Observers::new(observers, chosen.clone()));
    observers.tell(|observer| observer.start(&run));
    let last_sample = samples::read(&run_dir, &manifest, &observers)?;
    let guests = guests.with_requests(&run_dir, &manifest, &observers)?;
    let timeline = timeline_facts::timeline(&manifest, stack_table.clone(), &locks);
    let (groups, damaged) = threads::control_groups(&run_dir);
    let tasks = || threads::tasks(&manifest, &census, groups.clone());
    let timeline = timeline.with_tasks(tasks());
    let mut listeners = Listeners::new(&observers, guests, tasks(), stack_table);
    let events = EventMerge::open_on(pcpus_count, &run_dir)?;
    let pass = Pass::new(&manifest, timeline).run(events, pcpus_count, &mut listeners)?;
    let PassEnd { timeline, last, events_count, contradictions_count, cut } = pass;
    let GuestsEnd { clocks, clocks_apart, mut warnings, is_torn } = listeners.finish(&manifest)?;
    let is_torn = is_torn || cut.is_some();
    warnings.extend(unread.into_iter().chain(unread_at_end).chain(damaged).chain(cut));
    let planned_end = manifest.window.and_then(|window| window.end_ns);
    let window_end = planned_end.unwrap_or(last.max(last_sample));
    chosen.check_end(window_end)?;
    let end = RunEnd {
        window_end,
        is_torn,
        events_count,
        contradictions_count,
        clocks: &clocks,
        clocks_apart: &clocks_apart,
        tasks: timeline.tasks(),
        commands: &threads::commands(&census, &census_at_end, timeline.tasks()),
        warnings: &warnings,
        left_out: observers.left_out(),
    };
    observers.tell(|observer| observer.end(&run, &end));
    Ok(())
}

/// The manifest of a run. Its schema is looked at first: a manifest of another one may not read at all, and
/// then that is why.
pub(crate) fn manifest_of(run: &RunDir) -> Result<Manifest, AnalyseError> {
    #[derive(serde::Deserialize)]
    struct Head {
        schema: String,
    }
    let Head { schema: found } = run.read_json("run.json")?;
    if found != SCHEMA {
        return Err(AnalyseError::Schema { found });
    }
    Ok(run.read_json("run.json")?)
}

/// Reads all events ahead of the pass where what they show has to be known before it: the big locks that QEMUs' code did
/// not tell, to say of the first wait what lock it was for; and hogs' timeslices, to place the first request. Returns the
/// locks, for each VM.
fn look_ahead(
    pcpus_count: usize,
    run: &RunDir,
    manifest: &Manifest,
    stacks: &StackTable,
    guests: &mut GuestsAhead<'_>,
) -> Result<Vec<Option<FoundLock>>, StoreError> {
    let mut search = timeline_facts::lock_search(manifest, stacks.clone());
    let seeks_locks = search.is_needed() && manifest.evidence.level == EvidenceLevel::Recorded;
    let narrows_clocks = guests.may_narrow(manifest);
    if seeks_locks || narrows_clocks {
        for event in EventMerge::open_on(pcpus_count, run)? {
            let event = event?;
            if seeks_locks {
                search.push(&event);
            }
            if narrows_clocks {
                guests.check_by_hogs(&event);
            }
        }
    }
    if narrows_clocks {
        guests.conclude_hogs()?;
    }
    Ok(if seeks_locks { search.finish() } else { vec![None; manifest.vms.len()] })
}

/// The timelines of a run's VMs with all that its manifest knows, for whoever brings the events; `shown` is what
/// these show of each VM's big lock.
///
/// # Errors
/// As [`analyse`].
pub fn timeline(
    run: &RunDir,
    stacks: StackTable,
    shown: &[Option<FoundLock>],
) -> Result<Timeline, AnalyseError> {
    Ok(timeline_facts::timeline(&manifest_of(run)?, stacks, shown))
}

/// Looks for the big locks of a run's VMs, for whoever brings the events.
///
/// # Errors
/// As [`analyse`].
pub fn lock_search(run: &RunDir, stacks: StackTable) -> Result<LockSearch, AnalyseError> {
    Ok(timeline_facts::lock_search(&manifest_of(run)?, stacks))
}

/// A file that a run writes late is not there when the run ended early.
fn optional<T: Default>(read: Result<T, StoreError>) -> Result<T, StoreError> {
    match read {
        Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(T::default())
        }
        other => other,
    }
}

#[cfg(test)]
mod any_observed;
#[cfg(test)]
mod any_run_tests;
#[cfg(test)]
mod chosen_laws;
#[cfg(test)]
mod chosen_tests;
#[cfg(test)]
mod decoded_tests;
#[cfg(test)]
mod observed_tests;
#[cfg(test)]
mod observer_tests;
#[cfg(test)]
mod sampled_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod transcript;
