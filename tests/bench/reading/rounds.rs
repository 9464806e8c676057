//! vslice's reader and fio in turn.

use super::task::Task;
use super::{fio, reader};
use crate::machine::{self, Pinned, Places};
use crate::statistics::{Middle, middle};
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What is to be measured.
#[derive(Debug)]
pub(crate) struct Schedule {
    pub(crate) tasks: Vec<Task>,
    pub(crate) rounds: usize,
    pub(crate) window: Duration,
    /// What is read; a file on the disk of /var/tmp, if none is named.
    pub(crate) target: Option<PathBuf>,
    /// The reader of an older vslice, as tests/bench/parent builds it.
    pub(crate) older: Option<PathBuf>,
}

/// What a window needs to know.
#[derive(Debug)]
pub(crate) struct Setting<'a> {
    pub(crate) places: Places,
    pub(crate) target: &'a Path,
    pub(crate) target_bytes: u64,
    /// Where fio's logs go: in memory.
    pub(crate) scratch: &'a Path,
    pub(crate) older: Option<&'a Path>,
}

/// Neighbours: a window of each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair {
    pub(crate) vslice: reader::Window,
    /// In the unit of `vslice.value`.
    pub(crate) fio: f64,
    /// The CPU time that fio took for a request, in ns.
    pub(crate) fio_processor_ns: f64,
    /// Of the older reader, in the same unit.
    pub(crate) older: Option<f64>,
}

/// All pairs of a task, or why there are none.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) task: Task,
    pub(crate) measured: Result<Vec<Pair>, String>,
}

impl Row {
    fn pairs(&self) -> &[Pair] {
        self.measured.as_deref().unwrap_or_default()
    }

    pub(crate) fn vslice(&self) -> Option<Middle> {
        middle(self.pairs().iter().map(|pair| pair.vslice.value))
    }

    pub(crate) fn fio(&self) -> Option<Middle> {
        middle(self.pairs().iter().map(|pair| pair.fio))
    }

    /// How many times as fast as fio, pair by pair.
    pub(crate) fn ratio(&self) -> Option<Middle> {
        middle(self.pairs().iter().map(|pair| match self.task {
            Task::Record => pair.fio / pair.vslice.value,
            Task::Read { .. } => pair.vslice.value / pair.fio,
        }))
    }

    /// The CPU time that each took for a request, in ns: vslice, then fio.
    pub(crate) fn processor_ns(&self) -> Option<[Middle; 2]> {
        let vslice = middle(self.pairs().iter().map(|pair| pair.vslice.processor_ns))?;
        Some([vslice, middle(self.pairs().iter().map(|pair| pair.fio_processor_ns))?])
    }

    /// Of a thousand requests, how many of vslice's were recorded.
    pub(crate) fn recorded_permille(&self) -> u64 {
        let sum = |of: fn(&reader::Window) -> u64| -> u64 {
            self.pairs().iter().map(|pair| of(&pair.vslice)).sum()
        };
        sum(|window| window.recorded_count) * 1000 / sum(|window| window.requests_count).max(1)
    }
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) rows: Vec<Row>,
    pub(crate) rounds: usize,
    pub(crate) window: Duration,
    pub(crate) places: Places,
    pub(crate) target: PathBuf,
    /// Load averages at the start and at the end.
    pub(crate) load: [String; 2],
}

/// The file that is read if none is named: 64 MiB.
const FILE_BYTES: u64 = 64 << 20;

impl Schedule {
    /// Measures everything; `told` hears of each round. What fails has a row that says why.
    pub(crate) fn run(self, told: &mut dyn FnMut(usize)) -> anyhow::Result<Results> {
        let places = Places::choose()?;
        let load = machine::load()?;
        machine::raise_priority()?;
        // Whoever takes the records is away from the reader.
        let _pinned = Pinned::to(places.others)?;
        let on_disk = tempfile::tempdir_in("/var/tmp").context("cannot make a directory")?;
        let scratch = tempfile::tempdir_in("/dev/shm").context("cannot make a directory")?;
        let target = match &self.target {
            Some(target) => target.clone(),
            None => {
                let target = on_disk.path().join("read");
                reader::create(&target, FILE_BYTES)?;
                target
            }
        };
        let target_bytes = reader::size_bytes(&target)?;
        let (scratch, older) = (scratch.path(), self.older.as_deref());
        let setting = Setting { places, target: &target, target_bytes, scratch, older };
        let row = |&task: &Task| Row { task, measured: fio::missing().map_or(Ok(vec![]), Err) };
        let mut rows: Vec<Row> = self.tasks.iter().map(row).collect();
        for round in 0..self.rounds {
            told(round + 1);
            for row in &mut rows {
                let Ok(pairs) = &mut row.measured else { continue };
                match pair(row.task, &setting, self.window, round) {
                    Ok(pair) => pairs.push(pair),
                    Err(error) => row.measured = Err(format!("{error:#}")),
                }
            }
        }
        let load = [load, machine::load()?];
        Ok(Results { rows, rounds: self.rounds, window: self.window, places, target, load })
    }
}

/// One window of each, vslice's first in even rounds.
fn pair(task: Task, setting: &Setting<'_>, window: Duration, round: usize) -> anyhow::Result<Pair> {
    let vslice = || match task {
        Task::Record => reader::record(setting, window),
        Task::Read { engine, depth } => reader::read(setting, engine, depth, window),
    };
    let fio = || match task {
        Task::Record => fio::record(setting, window).map(|ns| (ns, ns)),
        Task::Read { engine, depth } => fio::read(setting, engine, depth, window)
            .map(|rate| (rate.per_second, rate.processor_ns)),
    };
    let older = setting.older.map(|older| read_by_older(older, task, setting, window));
    let (vslice, (fio, fio_processor_ns)) = if round.is_multiple_of(2) {
        let vslice = vslice()?;
        (vslice, fio()?)
    } else {
        let fio = fio()?;
        (vslice()?, fio)
    };
    Ok(Pair { vslice, fio, fio_processor_ns, older: older.transpose()? })
}

/// A window of the older reader: a process of its own.
fn read_by_older(
    older: &Path,
    task: Task,
    setting: &Setting<'_>,
    window: Duration,
) -> anyhow::Result<f64> {
    let output = Command::new(older)
        .arg(task.to_string())
        .arg(setting.target)
        .args([setting.places.measured.0.to_string(), window.as_millis().to_string()])
        .output()
        .with_context(|| format!("cannot run {}", older.display()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    said.trim().parse().with_context(|| {
        format!("the older reader: {}", String::from_utf8_lossy(&output.stderr).trim())
    })
}
