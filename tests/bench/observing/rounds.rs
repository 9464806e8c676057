//! What observing a request costs, rival by rival.

use super::load::{Device, Window};
use super::rivals::{Recorded, Rival, Setting};
use crate::alternation::{self, Between, steal_permille};
use crate::machine::{self, Mounts, Pinned, Places};
use crate::statistics::{Middle, middle};
use anyhow::Context;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

/// What is to be measured.
#[derive(Debug)]
pub(crate) struct Schedule {
    pub(crate) rivals: Vec<Rival>,
    pub(crate) rounds: usize,
    pub(crate) window: Duration,
    /// What is read; a loop device on memory, if none is named.
    pub(crate) device: Option<PathBuf>,
    pub(crate) agent: PathBuf,
}

/// A rival's window, and what it recorded.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) windows: Between<Window>,
    pub(crate) recorded: Recorded,
    /// The recorder's CPU time for that, until it has looked at everything.
    pub(crate) processor_ns: u64,
    /// Its CPU time while nothing was requested.
    pub(crate) idle_ns_per_s: f64,
}

impl Measured {
    #[expect(clippy::cast_precision_loss, reason = "windows are far shorter than 2^52 ns")]
    fn recorder_ns(&self) -> f64 {
        self.processor_ns as f64 / self.windows.during.requests_count.max(1) as f64
    }
}

/// All windows of a rival, or why there are none.
pub(crate) type Row = alternation::Row<Rival, Measured>;

impl Row {
    /// What a request takes longer for whoever makes it, in quiet slices, in ns by the clock.
    pub(crate) fn quiet_ns(&self) -> Option<Middle> {
        middle(self.windows().iter().map(|one| one.windows.difference(|window| window.quiet_ns)))
    }

    /// The same on the whole.
    pub(crate) fn wall_ns(&self) -> Option<Middle> {
        middle(self.windows().iter().map(|one| one.windows.difference(Window::wall_ns_per_request)))
    }

    /// The recorder's CPU time for a request, in ns.
    pub(crate) fn recorder_ns(&self) -> Option<Middle> {
        middle(self.windows().iter().map(Measured::recorder_ns))
    }

    /// Both together.
    pub(crate) fn sum_ns(&self) -> Option<Middle> {
        let sum =
            |one: &Measured| one.windows.difference(|window| window.quiet_ns) + one.recorder_ns();
        middle(self.windows().iter().map(sum))
    }

    /// The recorder's CPU time a second without a request, in ns.
    pub(crate) fn idle_ns_per_s(&self) -> Option<Middle> {
        middle(self.windows().iter().map(|one| one.idle_ns_per_s))
    }

    /// Of a thousand requests, how many were recorded.
    pub(crate) fn recorded_permille(&self) -> u64 {
        let recorded: u64 = self.windows().iter().map(|one| one.recorded.requests_count).sum();
        let made: u64 = self.windows().iter().map(|one| one.windows.during.requests_count).sum();
        recorded * 1000 / made.max(1)
    }

    pub(crate) fn lost_count(&self) -> u64 {
        self.windows().iter().map(|one| one.recorded.lost_count).sum()
    }

    /// Stolen of each thousand ns of its windows.
    pub(crate) fn steal_permille(&self) -> u64 {
        let during = self.windows().iter().map(|one| &one.windows.during);
        steal_permille(during.map(|window| (window.wall_ns, window.steal_ns)))
    }
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) rows: Vec<Row>,
    /// Every window in which nobody recorded.
    pub(crate) nothing: Vec<Window>,
    pub(crate) window: Duration,
    pub(crate) rounds: usize,
    pub(crate) places: Places,
    pub(crate) device: String,
}

impl Schedule {
    /// Measures everything; `told` hears of each round. Whoever is missing or fails has a row that
    /// says why.
    pub(crate) fn run(self, told: &mut dyn FnMut(usize)) -> anyhow::Result<Results> {
        let row = |&rival: &Rival| Row::new(rival, rival.missing(&self.agent));
        let mut rows: Vec<Row> = self.rivals.iter().map(row).collect();
        let rounds = self.rounds;
        let mut bench = Bench::start(self)?;
        let nothing = alternation::rounds(&mut bench, &mut rows, rounds, told)?;
        let window = bench.schedule.window;
        let (places, device) = (bench.places, bench.device.name.clone());
        Ok(Results { rows, nothing, window, rounds, places, device })
    }
}

/// How long a recorder is left alone before its window, to have begun in earnest, and after it, to look
/// at what its rings still hold.
const LEAD: Duration = Duration::from_millis(150);

/// What a run needs all the time.
struct Bench {
    schedule: Schedule,
    places: Places,
    device: Device,
    scratch: tempfile::TempDir,
    _pinned: Pinned,
    _mounts: Mounts,
}

impl Bench {
    /// Pins this thread, so that all that it starts is away from the reader.
    fn start(schedule: Schedule) -> anyhow::Result<Bench> {
        let places = Places::choose()?;
        let mounts = Mounts::note();
        machine::raise_priority()?;
        let pinned = Pinned::to(places.others)?;
        // In memory: a recorder that writes to a disk would record itself.
        let scratch = tempfile::tempdir_in("/dev/shm").context("cannot make a directory")?;
        let device = Device::open(schedule.device.as_deref(), scratch.path())?;
        Ok(Bench { schedule, places, device, scratch, _pinned: pinned, _mounts: mounts })
    }
}

impl alternation::Bench for Bench {
    type Rival = Rival;
    type Window = Window;
    type Measured = Measured;

    fn window(&mut self) -> anyhow::Result<Window> {
        self.device.window(self.places.measured, self.schedule.window)
    }

    fn measure(&mut self, rival: Rival, before: Window) -> anyhow::Result<(Measured, Window)> {
        let setting = Setting {
            places: self.places,
            device: &self.device.name,
            agent: &self.schedule.agent,
            scratch: self.scratch.path(),
        };
        let recording = rival.start(&setting)?;
        sleep(LEAD);
        let begun_ns = recording.processor_ns();
        sleep(self.schedule.window);
        let idle_ns = recording.processor_ns();
        let during = self.window()?;
        sleep(LEAD);
        let processor_ns = recording.processor_ns() - idle_ns;
        let recorded = recording.stop()?;
        sleep(LEAD);
        let after = self.window()?;
        #[expect(clippy::cast_precision_loss, reason = "windows are far shorter than 2^52 ns")]
        let idle_ns_per_s = (idle_ns - begun_ns) as f64 / self.schedule.window.as_secs_f64();
        let windows = Between { before, during, after };
        Ok((Measured { windows, recorded, processor_ns, idle_ns_per_s }, after))
    }
}
