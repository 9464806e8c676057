//! The recordings of `vslice top`: the one that is looked at, and those that are written beside it.

use anyhow::{Context, anyhow};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use vslice_core::text::sentence;
use vslice_host::host::online_pcpus;
use vslice_host::vm::Vm;
use vslice_record::attached::{AgentLoad, AttachedPlans, AttachedVms};
use vslice_record::guest::live::LiveFigures;
use vslice_record::live::LiveTap;
use vslice_record::watcher::Watcher;
use vslice_record::{
    EndedEarly, EvidencePlan, EvidenceSetting, Recording, RecordingError, RecordingOptions,
    UntilOver,
};

/// What is recorded.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pub(crate) vms: Vec<Vm>,
    pub(crate) exits: bool,
    /// For how long it is looked at; `None` for until somebody ends it.
    pub(crate) duration: Option<Duration>,
    /// Where it is written from the beginning, if it is.
    pub(crate) output: Option<PathBuf>,
}

impl Recorded {
    /// Records for whoever looks on.
    ///
    /// # Errors
    /// Why nothing was recorded, or it ended early.
    pub(crate) fn record_live(
        &self,
        agents: Option<AgentLoad>,
        live: LiveTap,
        interrupted: &AtomicBool,
        watcher: &mut dyn Watcher,
    ) -> anyhow::Result<()> {
        let mut attached = self.attached(agents, watcher)?;
        let options = self.options(&attached, Some(live), self.duration, interrupted)?;
        let recording = match &self.output {
            Some(output) => Recording::prepare(options, output).map_err(nothing_recorded)?,
            None => Recording::without_directory(options),
        };
        record(recording, &mut attached, watcher)
    }

    /// Records into a run directory, as `vslice attach` does, until it is told to stop.
    ///
    /// # Errors
    /// The same.
    pub(crate) fn record_into(
        &self,
        dir: &Path,
        stop: &AtomicBool,
        watcher: &mut dyn Watcher,
    ) -> anyhow::Result<()> {
        let mut attached = self.attached(None, watcher)?;
        let options = self.options(&attached, None, None, stop)?;
        let recording = Recording::prepare(options, dir).map_err(nothing_recorded)?;
        record(recording, &mut attached, watcher)
    }

    fn attached(
        &self,
        agents: Option<AgentLoad>,
        watcher: &mut dyn Watcher,
    ) -> anyhow::Result<AttachedVms> {
        let attached = AttachedVms::new(&self.vms, agents, watcher).map_err(nothing_recorded)?;
        Ok(attached.until_none_is_left())
    }

    fn options<'a>(
        &self,
        attached: &AttachedVms,
        live: Option<LiveTap>,
        duration: Option<Duration>,
        interrupted: &'a AtomicBool,
    ) -> anyhow::Result<RecordingOptions<'a>> {
        // Where events cannot be recorded there is nothing to look at each second.
        let evidence =
            EvidencePlan::of_host(EvidenceSetting::Recorded).map_err(nothing_recorded)?;
        let (pcpus, collector_pcpu) = attached.pcpus(&online_pcpus()?);
        Ok(RecordingOptions {
            evidence,
            exits: self.exits,
            pcpus,
            collector_pcpu,
            pins: None,
            asks_monitors: false,
            live,
            until: UntilOver {
                duration,
                is_interrupt_the_end: true,
                announcement: "looking on".to_owned(),
            },
            interrupted,
        })
    }
}

fn record(
    recording: Recording<'_>,
    attached: &mut AttachedVms,
    watcher: &mut dyn Watcher,
) -> anyhow::Result<()> {
    let facts = attached.facts(AttachedPlans::default());
    match recording.record(facts, attached, watcher) {
        Ok(()) => Ok(()),
        Err(EndedEarly { error, is_measured: true }) => {
            Err(anyhow::Error::new(*error)).context("the recording ended early")
        }
        Err(EndedEarly { error, is_measured: false }) => {
            if let Some(dir) = recording.dir() {
                dir.discard();
            }
            Err(nothing_recorded(*error))
        }
    }
}

fn nothing_recorded(error: RecordingError) -> anyhow::Error {
    anyhow!("nothing was recorded: {}", sentence(&error))
}

/// Keeps the last word of a recording for whoever draws.
#[derive(Debug, Clone, Default)]
pub(crate) struct StatusWatcher(Arc<Mutex<Option<String>>>);

impl StatusWatcher {
    /// What was said since this was last asked.
    pub(crate) fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Watcher for StatusWatcher {
    fn stage(&mut self, text: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(text.to_owned());
    }

    fn progress(&mut self, _figures: &LiveFigures, _expected_count: u64) {}
}
