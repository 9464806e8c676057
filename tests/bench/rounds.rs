//! What recording a switch costs, rival by rival.

use crate::alternation::{self, Between, steal_permille};
use crate::machine::{self, Mounts, Pinned, Places};
use crate::processes::{Process, Role, Window};
use crate::rivals::{Recorded, Rival, Setting};
use crate::statistics::{Middle, middle};
use anyhow::Context;
use std::thread::sleep;
use std::time::Duration;

/// Threads of the VM that is watched and sleeps; half of them are vCPU threads.
pub(crate) const IDLE_THREADS: u32 = 8;

/// What is to be measured.
#[derive(Debug)]
pub(crate) struct Schedule {
    pub(crate) rivals: Vec<Rival>,
    pub(crate) rounds: usize,
    pub(crate) window: Duration,
}

/// A rival's window, and what it recorded.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) windows: Between<Window>,
    pub(crate) recorded: Recorded,
    /// What the ping-pong switched while all that was recorded.
    pub(crate) switches_count: u64,
}

/// All windows of a rival, or why there are none.
pub(crate) type Row = alternation::Row<Rival, Measured>;

impl Row {
    fn difference(&self, of: fn(&Window) -> f64) -> Option<Middle> {
        middle(self.windows().iter().map(|one| one.windows.difference(of)))
    }

    /// What a switch costs more in a quiet slice, in ns by the clock.
    pub(crate) fn quiet_ns(&self) -> Option<Middle> {
        self.difference(Window::quiet_ns_per_switch)
    }

    /// What a switch costs more, in ns by the clock.
    pub(crate) fn wall_ns(&self) -> Option<Middle> {
        self.difference(Window::wall_ns_per_switch)
    }

    /// What a switch costs more, in ns of CPU time.
    pub(crate) fn processor_ns(&self) -> Option<Middle> {
        self.difference(Window::processor_ns_per_switch)
    }

    /// What was recorded, all windows together.
    pub(crate) fn recorded(&self) -> Recorded {
        let mut sum = Recorded::default();
        for one in self.windows() {
            sum.switches_count += one.recorded.switches_count;
            sum.stacks_count += one.recorded.stacks_count;
            sum.lost_count += one.recorded.lost_count;
        }
        sum
    }

    /// What the ping-pong switched meanwhile.
    pub(crate) fn switches_count(&self) -> u64 {
        self.windows().iter().map(|one| one.switches_count).sum()
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
    /// Load averages at the start and at the end.
    pub(crate) load: [String; 2],
}

impl Schedule {
    /// Measures everything; `told` hears of each round. Whoever is missing or fails has a row that
    /// says why.
    pub(crate) fn run(&self, told: &mut dyn FnMut(usize)) -> anyhow::Result<Results> {
        let mut bench = Bench::start()?;
        let load = machine::load()?;
        let row = |rival: &Rival| Row::new(*rival, rival.missing());
        let mut rows: Vec<Row> = self.rivals.iter().map(row).collect();
        let mut on = OnBench { bench: &mut bench, window: self.window };
        let nothing = alternation::rounds(&mut on, &mut rows, self.rounds, told)?;
        let load = [load, machine::load()?];
        let (window, rounds, places) = (self.window, self.rounds, bench.places);
        Ok(Results { rows, nothing, window, rounds, places, load })
    }
}

/// Windows of one length.
struct OnBench<'b> {
    bench: &'b mut Bench,
    window: Duration,
}

impl alternation::Bench for OnBench<'_> {
    type Rival = Rival;
    type Window = Window;
    type Measured = Measured;

    fn window(&mut self) -> anyhow::Result<Window> {
        self.bench.players.window(self.window)
    }

    fn measure(&mut self, rival: Rival, before: Window) -> anyhow::Result<(Measured, Window)> {
        let Played { during, switches_count, recorded } = self.bench.record(rival, self.window)?;
        let after = self.window()?;
        let windows = Between { before, during, after };
        Ok((Measured { windows, recorded, switches_count }, after))
    }
}

/// Before its window a rival records so long: a recorder that looks at its rings every 100 ms may do
/// more once it has seen what they hold.
const LEAD: Duration = Duration::from_millis(150);

/// After a recording has ended, until its end costs nothing any more.
const AFTERMATH: Duration = Duration::from_millis(100);

/// What was played while a rival recorded.
#[derive(Debug)]
pub(crate) struct Played {
    /// The window.
    pub(crate) during: Window,
    /// Switches of the window and its lead.
    pub(crate) switches_count: u64,
    /// What the rival recorded of them.
    pub(crate) recorded: Recorded,
}

/// The processes of a run.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) places: Places,
    pub(crate) players: Process,
    idle_vm: Process,
    scratch: tempfile::TempDir,
    _pinned: Pinned,
    _mounts: Mounts,
}

impl Bench {
    /// Pins this thread, so that all that it starts is away from the ping-pong.
    pub(crate) fn start() -> anyhow::Result<Bench> {
        let places = Places::choose()?;
        let mounts = Mounts::note();
        machine::raise_priority()?;
        let players = Process::start(Role::PingPong, places.measured, 0)?;
        let idle_vm = Process::start(Role::IdleVm, places.others, IDLE_THREADS)?;
        let pinned = Pinned::to(places.others)?;
        let scratch = tempfile::tempdir_in("/var/tmp").context("cannot make a directory")?;
        Ok(Bench { places, players, idle_vm, scratch, _pinned: pinned, _mounts: mounts })
    }

    /// One window with a rival, from its start to the end of what it leaves behind.
    pub(crate) fn record(&mut self, rival: Rival, window: Duration) -> anyhow::Result<Played> {
        let setting = Setting {
            places: self.places,
            players: &self.players.tids,
            idle_vm: &self.idle_vm.tids,
            scratch: self.scratch.path(),
        };
        let recording = rival.start(&setting)?;
        let lead = self.players.window(LEAD)?;
        let during = self.players.window(window)?;
        let recorded = recording.stop()?;
        sleep(AFTERMATH);
        let switches_count = lead.switches_count + during.switches_count;
        Ok(Played { during, switches_count, recorded })
    }
}
