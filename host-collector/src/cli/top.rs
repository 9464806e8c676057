//! `vslice top`: what the host does to VMs, live.

use super::metrics_to::{ExposedMetrics, MetricsTo};
use super::run::{default_output, interrupts};
use super::terminal::{letters, may_draw, shown, style};
use super::vm::{all_with_vcpus, choose};
use super::{attach, complete};
use crate::top::draw::draw;
use crate::top::looking::look;
use crate::top::recorded::{Recorded, StatusWatcher};
use crate::top::terminal::Drawn;
use crate::top::view::{View, Wish};
use anyhow::{anyhow, bail};
use clap::Args;
use clap_complete::ArgValueCompleter;
use nix::sys::signal::{Signal, raise};
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use signal_hook::consts::SIGTSTP;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use vslice_core::text::sentence;
use vslice_host::vm::{Vm, find_all};
use vslice_record::attached::AgentLoad;
use vslice_record::guest::agent_file::AgentFile;
use vslice_record::leftovers;
use vslice_record::live::LiveTap;
use vslice_record::watcher::{LineWatcher, Watcher};
use vslice_report::live::Second;
use vslice_spec::ObserveSpec;

/// Seconds that wait to be drawn or written, at most; more are dropped, and counted.
const SECONDS_WAITING_MAX: usize = 8;

/// Between two looks for keys and seconds.
const TURN: Duration = Duration::from_millis(100);

/// The arguments of `vslice top`.
#[derive(Debug, Args)]
#[command(after_help = "\
Once a second: for each vCPU the share of time that it ran, waited for a pCPU (wait%), slept (slp%), was \
throttled (thr%), or of which nothing is known (unk%); its worst wait for a pCPU and who caused it; its waits \
for locks of the VMM; and the steal time that KVM tells its guest. Below: why the chosen vCPU slept and waited, \
who ran while the VM's vCPUs waited, and the latency of its I/O.

Nothing is recorded unless w is pressed or --output is given. The VMs are not changed, unless --observe starts an \
agent in their guests. It needs the same rights as `vslice attach`.

Keys: q quit; w write a run directory, and end it; space pause; left and right go back and forth in the last \
minute; up and down choose a vCPU; v show only its VM; s sort; Ctrl-Z suspend.

Examples:
  vslice top                            all VMs of this host
  vslice top db1 web1                   two of them
  vslice top --json                     a line of JSON each second, for a pipe
  vslice top --prometheus 127.0.0.1:9435
                                        also metrics, at http://127.0.0.1:9435/metrics
  vslice top db1 --json --prometheus vslice.prom
                                        also metrics, in a file for node_exporter
  vslice top db1 --observe --agent ./vslice-agent
                                        also the guest's requests, as it sees them")]
pub(crate) struct TopArgs {
    /// VMs: their names, their VMMs' process ids, or the paths of their QMP sockets [default: all]
    #[arg(value_name = "VM", add = ArgValueCompleter::new(complete::vms))]
    vms: Vec<String>,
    /// Print a line of JSON each second (schema vslice.top/1) instead of drawing
    #[arg(long)]
    json: bool,
    /// Metrics for Prometheus: written into this file each second, or served at this address, such as
    /// 127.0.0.1:9435
    #[arg(long, value_name = "FILE|ADDR")]
    prometheus: Option<MetricsTo>,
    /// Also write a run directory here, from the beginning
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
    /// End after this time, such as 10s
    #[arg(long, value_name = "TIME", value_parser = attach::duration)]
    duration: Option<Duration>,
    /// Record every exit of every vCPU (KVM only), for the halt polling of each; this takes time on the vCPUs'
    /// pCPUs
    #[arg(long)]
    exits: bool,
    /// Start the agent in the guests, and show the block requests that it observes
    #[arg(long)]
    observe: bool,
    /// Upload this agent and remove it afterwards, instead of starting the one installed in the guests
    #[arg(long, value_name = "FILE", requires = "observe")]
    agent: Option<PathBuf>,
    /// If a VM has no transport to this host, plug in a virtio-serial port by QMP and unplug it afterwards
    #[arg(long, requires = "observe")]
    plug: bool,
}

pub(super) fn execute(args: &TopArgs) -> anyhow::Result<u8> {
    let draws = !args.json && may_draw(&io::stdout()) && io::stdin().is_terminal();
    if !draws && !args.json && args.prometheus.is_none() {
        bail!(
            "there is no terminal to draw on: use --json for a line each second, or --prometheus FILE|ADDR for \
            metrics"
        );
    }
    leftovers::undo(&mut LineWatcher::new(io::stderr(), letters()));
    let vms = vms(args)?;
    let agents = args.observe.then(|| agents(args, &vms)).transpose()?;
    let interrupted = interrupts()?;
    let mut metrics = args.prometheus.as_ref().map(MetricsTo::open).transpose()?;
    if let Some(address) = metrics.as_ref().and_then(ExposedMetrics::address) {
        tell(&format!("metrics are at http://{address}/metrics"));
    }
    let recorded =
        Recorded { vms, exits: args.exits, duration: args.duration, output: args.output.clone() };
    let mut top = Top::start(recorded, agents, interrupted, draws)?;
    let looked = if draws { top.draw(&mut metrics) } else { top.tell(args.json, &mut metrics) };
    let ended = top.end();
    looked?;
    ended.map(|()| 0)
}

fn vms(args: &TopArgs) -> anyhow::Result<Vec<Vm>> {
    let there = find_all();
    let vms: Vec<Vm> = match &args.vms[..] {
        [] => all_with_vcpus(there)?,
        wanted => wanted.iter().map(|wanted| choose(wanted, &there)).collect::<Result<_, _>>()?,
    };
    for (place, vm) in vms.iter().enumerate() {
        if vms[..place].iter().any(|other| other.pid == vm.pid) {
            bail!("{} is named twice", vm.label());
        }
    }
    Ok(vms)
}

fn agents(args: &TopArgs, vms: &[Vm]) -> anyhow::Result<AgentLoad> {
    let agent = args.agent.as_deref().map(AgentFile::read).transpose()?;
    let spec = ObserveSpec { devices: Vec::new(), slower_than_us: 0 };
    let workloads = attach::observing(None, &spec, vms)?;
    Ok(AgentLoad { workloads, agent, plug: args.plug })
}

/// A recording that goes on, whoever looks on, and what is written beside it.
struct Top {
    recorded: Recorded,
    interrupted: Arc<AtomicBool>,
    seconds: Receiver<Second>,
    status: StatusWatcher,
    recording: JoinHandle<anyhow::Result<()>>,
    looking: JoinHandle<()>,
    writing: Option<Writing>,
    /// What was written and is whole.
    written: Vec<PathBuf>,
}

/// A run directory that is written from a press of `w` on, by a recording of its own.
struct Writing {
    dir: PathBuf,
    stop: Arc<AtomicBool>,
    recording: JoinHandle<anyhow::Result<()>>,
}

impl Top {
    fn start(
        recorded: Recorded,
        agents: Option<AgentLoad>,
        interrupted: Arc<AtomicBool>,
        draws: bool,
    ) -> io::Result<Top> {
        let (tap, news) = LiveTap::new();
        let (sender, seconds) = sync_channel(SECONDS_WAITING_MAX);
        let observes = agents.is_some();
        let thread = |name: &str| thread::Builder::new().name(name.to_owned());
        let looking = thread("vslice-top").spawn(move || look(&news, observes, sender))?;
        let status = StatusWatcher::default();
        let (said, of_it, flag) = (status.clone(), recorded.clone(), Arc::clone(&interrupted));
        let recording = thread("vslice-record").spawn(move || {
            let mut watcher: Box<dyn Watcher> = match draws {
                true => Box::new(said),
                false => Box::new(LineWatcher::new(io::stderr(), letters())),
            };
            of_it.record_live(agents, tap, &flag, watcher.as_mut())
        })?;
        let (writing, written) = (None, Vec::new());
        Ok(Top { recorded, interrupted, seconds, status, recording, looking, writing, written })
    }

    /// Tells each second, until the recording ends.
    fn tell(&mut self, json: bool, metrics: &mut Option<ExposedMetrics>) -> anyhow::Result<()> {
        loop {
            match self.seconds.recv_timeout(TURN) {
                Ok(second) => {
                    expose(metrics, &second)?;
                    if json {
                        let mut out = io::stdout().lock();
                        serde_json::to_writer(&mut out, &second)?;
                        writeln!(out)?;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    /// Draws, and does what keys ask for.
    fn draw(&mut self, metrics: &mut Option<ExposedMetrics>) -> anyhow::Result<()> {
        let suspend = Arc::new(AtomicBool::new(false));
        let registered = signal_hook::flag::register(SIGTSTP, Arc::clone(&suspend))?;
        let mut view = View::new(letters(), style(&io::stdout()).colour);
        let mut drawn = Drawn::take()?;
        let mut is_new = true;
        loop {
            match self.seconds.try_recv() {
                Ok(second) => {
                    expose(metrics, &second)?;
                    view.push(second);
                    is_new = true;
                    continue;
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => break,
            }
            is_new |= self.say(&mut view);
            if is_new {
                drawn.terminal().draw(|frame| draw(frame, &view))?;
            }
            // A terminal that is gone has no keys; the signal that says so ends the recording.
            let Ok(wish) = self.wish(&mut view, &suspend, &mut is_new) else { break };
            match wish {
                Wish::None => {}
                Wish::Quit => break,
                Wish::Write => view.status = self.write_or_end(),
                Wish::Suspend => drawn.without(|| {
                    let _it_is_continued = raise(Signal::SIGSTOP);
                })?,
            }
        }
        drop(drawn);
        signal_hook::low_level::unregister(registered);
        Ok(())
    }

    /// What the next key asks for, if one comes soon.
    fn wish(&self, view: &mut View, suspend: &AtomicBool, is_new: &mut bool) -> io::Result<Wish> {
        // ATOMICS: relaxed, because the flag stands for itself.
        if suspend.swap(false, Ordering::Relaxed) {
            *is_new = true;
            return Ok(Wish::Suspend);
        }
        *is_new = event::poll(TURN)?;
        if !*is_new {
            return Ok(Wish::None);
        }
        Ok(match event::read()? {
            Event::Key(key) if key.kind != KeyEventKind::Release => view.key(key),
            _ => Wish::None,
        })
    }

    /// Brings up to date what is said of the recordings; says whether that is new.
    fn say(&mut self, view: &mut View) -> bool {
        let mut is_new = false;
        if let Some(said) = self.status.take() {
            (view.status, is_new) = (said, true);
        }
        if self.writing.as_ref().is_some_and(|writing| writing.recording.is_finished()) {
            view.status = self.end_writing();
            is_new = true;
        }
        let dir = self.writing.as_ref().map(|writing| &writing.dir);
        let writes = dir.or(self.recorded.output.as_ref()).map(|dir| dir.display().to_string());
        is_new |= view.writes != writes;
        view.writes = writes;
        is_new
    }

    /// Begins to write a run directory, or ends it.
    fn write_or_end(&mut self) -> String {
        if let Some(writing) = &self.writing {
            // ATOMICS: relaxed, because the flag stands for itself.
            writing.stop.store(true, Ordering::Relaxed);
            return "ending it".to_owned();
        }
        if self.recorded.output.is_some() {
            return "it is written until the end".to_owned();
        }
        match self.begin_writing() {
            Ok(writing) => {
                self.writing = Some(writing);
                String::new()
            }
            Err(error) => format!("nothing is recorded: {}", sentence(error.as_ref())),
        }
    }

    fn begin_writing(&self) -> anyhow::Result<Writing> {
        let dir = default_output("top")?;
        let stop = Arc::new(AtomicBool::new(false));
        let (recorded, flag, to) = (self.recorded.clone(), Arc::clone(&stop), dir.clone());
        let recording = thread::Builder::new()
            .name("vslice-write".into())
            .spawn(move || recorded.record_into(&to, &flag, &mut StatusWatcher::default()))?;
        Ok(Writing { dir, stop, recording })
    }

    /// What it came to, once it has ended.
    fn end_writing(&mut self) -> String {
        let Some(Writing { dir, recording, .. }) = self.writing.take() else {
            return String::new();
        };
        match joined(recording) {
            Ok(()) => {
                let words = format!("wrote {0}: vslice report {0}", dir.display());
                self.written.push(dir);
                words
            }
            Err(error) => sentence(error.as_ref()),
        }
    }

    /// Ends all of it, in order.
    fn end(self) -> anyhow::Result<()> {
        // ATOMICS: relaxed, because the flags stand for themselves.
        self.interrupted.store(true, Ordering::Relaxed);
        if let Some(writing) = &self.writing {
            writing.stop.store(true, Ordering::Relaxed);
        }
        // Whoever makes seconds has nobody to hand them to any more, and does not wait.
        drop(self.seconds);
        let recorded = joined(self.recording);
        let _it_has_ended_with_its_news = self.looking.join();
        let writing = self.writing.map(|writing| (writing.dir, joined(writing.recording)));
        let output = self.recorded.output.filter(|dir| is_there(dir));
        let mut result = recorded;
        for dir in self.written.into_iter().chain(output) {
            tell(&format!("the run directory is {}", dir.display()));
        }
        if let Some((dir, written)) = writing {
            if is_there(&dir) {
                tell(&format!("the run directory is {}", dir.display()));
            }
            result = result.and(written);
        }
        result
    }
}

fn is_there(dir: &Path) -> bool {
    dir.join("run.json").exists()
}

fn joined(recording: JoinHandle<anyhow::Result<()>>) -> anyhow::Result<()> {
    recording.join().unwrap_or_else(|_| Err(anyhow!("the recording's thread has panicked")))
}

fn expose(metrics: &mut Option<ExposedMetrics>, second: &Second) -> anyhow::Result<()> {
    metrics.as_mut().map_or(Ok(()), |metrics| metrics.add(second))
}

/// Says something to whoever started this.
fn tell(words: &str) {
    let _may_be_closed = writeln!(io::stderr(), "vslice: {}", shown(words));
}
