//! The processes that are measured or watched: this binary again, in another role.
//!
//! They are processes of their own because vslice looks after all threads of a VM's process, and
//! the threads of the bench, the recorder's reader among them, are no VM.

use crate::machine;
use anyhow::{Context, bail};
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{gettid, pipe};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write, stdin, stdout};
use std::os::fd::OwnedFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;
use vslice_core::units::{PcpuId, Tid};

/// What a child process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Two threads on one pCPU that hand a byte to and fro.
    PingPong,
    /// Threads that sleep: a VM that others watch.
    IdleVm,
}

impl Role {
    fn argument(self) -> &'static str {
        match self {
            Role::PingPong => "role:ping-pong",
            Role::IdleVm => "role:idle-vm",
        }
    }

    /// The role that a first argument names.
    pub(crate) fn of(argument: &str) -> Option<Role> {
        [Role::PingPong, Role::IdleVm].into_iter().find(|role| role.argument() == argument)
    }
}

/// What one window came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// Switches of the two threads, as the kernel counted them.
    pub(crate) switches_count: u64,
    /// By `CLOCK_MONOTONIC_RAW`.
    pub(crate) wall_ns: u64,
    /// What a switch took, by the same clock, in the slice of the window at the lower quartile: in
    /// three quarters of the slices it took longer.
    pub(crate) quiet_switch_ps: u64,
    /// CPU time of the two threads, `CLOCK_PROCESS_CPUTIME_ID`: without what others ran in between,
    /// and without steal where the hypervisor tells it (CONFIG_PARAVIRT_TIME_ACCOUNTING).
    pub(crate) processor_ns: u64,
    /// Steal of the pCPU meanwhile, from `/proc/stat`: whole ticks of 10 ms.
    pub(crate) steal_ns: u64,
}

#[expect(clippy::cast_precision_loss, reason = "windows are far shorter than 2^52 ns")]
impl Window {
    pub(crate) fn quiet_ns_per_switch(&self) -> f64 {
        self.quiet_switch_ps as f64 / 1000.0
    }

    pub(crate) fn wall_ns_per_switch(&self) -> f64 {
        self.wall_ns as f64 / self.switches_count as f64
    }

    pub(crate) fn processor_ns_per_switch(&self) -> f64 {
        self.processor_ns as f64 / self.switches_count as f64
    }
}

/// Child side: plays a role until its standard input ends.
pub(crate) fn run(role: Role, mut arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let mut number =
        || -> anyhow::Result<u32> { Ok(arguments.next().context("a number")?.parse()?) };
    machine::pin_to(PcpuId(number()?))?;
    match role {
        Role::PingPong => ping_pong(),
        Role::IdleVm => idle_vm(number()?),
    }
}

fn own_tid() -> u32 {
    gettid().as_raw().cast_unsigned()
}

fn idle_vm(threads: u32) -> anyhow::Result<()> {
    let (told, tids) = channel();
    for _ in 0..threads {
        let told = told.clone();
        thread::spawn(move || {
            // The parent of this process waits for the number of every thread.
            let _ = told.send(own_tid());
            loop {
                thread::park();
            }
        });
    }
    let tids: Vec<String> = tids.iter().take(threads as usize).map(|tid| tid.to_string()).collect();
    println!("{}", tids.join(" "));
    stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn ping_pong() -> anyhow::Result<()> {
    let (there_reader, there) = pipe()?;
    let (back, back_writer) = pipe()?;
    let (told, partner) = channel();
    thread::spawn(move || {
        // The thread below waits for it.
        let _ = told.send(own_tid());
        return_bytes(there_reader, back_writer);
    });
    println!("{} {}", own_tid(), partner.recv()?);
    let (mut there, mut back) = (File::from(there), File::from(back));
    for line in stdin().lines() {
        let window_ns = line?.parse()?;
        let window = play(&mut there, &mut back, window_ns)?;
        let Window { switches_count, wall_ns, quiet_switch_ps, processor_ns, .. } = window;
        println!("{switches_count} {wall_ns} {quiet_switch_ps} {processor_ns}");
        stdout().flush()?;
    }
    Ok(())
}

fn return_bytes(reader: OwnedFd, writer: OwnedFd) {
    let (mut reader, mut writer) = (File::from(reader), File::from(writer));
    let mut byte = [0];
    while reader.read_exact(&mut byte).is_ok() && writer.write_all(&byte).is_ok() {}
}

/// How long a slice of a window is. Whatever else goes on in the machine, and in the one below it
/// that is shared with others, comes and goes within hundreds of milliseconds: it is in some slices
/// and not in others, while the price of recording is in all.
const SLICE_NS: u64 = 10_000_000;

fn play(there: &mut File, back: &mut File, window_ns: u64) -> anyhow::Result<Window> {
    let (wall, processor, switches) = (wall_ns()?, processor_ns()?, switches_count()?);
    let mut slices = Vec::new();
    let (mut now, mut switched) = (wall, switches);
    while now - wall < window_ns {
        let (start, before) = (now, switched);
        while now - start < SLICE_NS {
            round_trips(there, back)?;
            now = wall_ns()?;
        }
        switched = switches_count()?;
        slices.push((now - start) * 1000 / (switched - before).max(1));
    }
    slices.sort_unstable();
    Ok(Window {
        switches_count: switched - switches,
        wall_ns: now - wall,
        quiet_switch_ps: slices.get(slices.len() / 4).copied().unwrap_or(0),
        processor_ns: processor_ns()? - processor,
        steal_ns: 0,
    })
}

/// So many that a look at the clock, some 30 ns, is nothing beside them.
fn round_trips(there: &mut File, back: &mut File) -> anyhow::Result<()> {
    let mut byte = [0];
    for _ in 0..64 {
        there.write_all(&byte)?;
        back.read_exact(&mut byte)?;
    }
    Ok(())
}

fn clock_ns(clock: ClockId) -> anyhow::Result<u64> {
    Ok(u64::try_from(Duration::from(clock_gettime(clock)?).as_nanos())?)
}

fn wall_ns() -> anyhow::Result<u64> {
    clock_ns(ClockId::CLOCK_MONOTONIC_RAW)
}

fn processor_ns() -> anyhow::Result<u64> {
    clock_ns(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

fn switches_count() -> anyhow::Result<u64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let both = usage.voluntary_context_switches() + usage.involuntary_context_switches();
    Ok(u64::try_from(both)?)
}

/// Parent side: a child in its role, ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// `None` once it is closed, which ends the child.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    pcpu: PcpuId,
    /// The threads of its role.
    pub(crate) tids: Vec<Tid>,
}

impl Process {
    pub(crate) fn start(role: Role, pcpu: PcpuId, threads: u32) -> anyhow::Result<Process> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([role.argument(), &pcpu.0.to_string(), &threads.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start this binary again")?;
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("its output is a pipe")?);
        let mut process = Process { child, orders, answers, pcpu, tids: Vec::new() };
        process.tids = process
            .answer()?
            .into_iter()
            .map(u32::try_from)
            .map(|tid| tid.map(Tid))
            .collect::<Result<_, _>>()?;
        Ok(process)
    }

    /// Lets the ping-pong play for so long.
    pub(crate) fn window(&mut self, length: Duration) -> anyhow::Result<Window> {
        let steal = machine::steal_ns(self.pcpu)?;
        writeln!(self.orders.as_ref().context("it was closed")?, "{}", length.as_nanos())?;
        let answer = self.answer()?;
        let steal_ns = machine::steal_ns(self.pcpu)?.saturating_sub(steal);
        match answer[..] {
            [switches_count, wall_ns, quiet_switch_ps, processor_ns] if switches_count > 0 => {
                Ok(Window { switches_count, wall_ns, quiet_switch_ps, processor_ns, steal_ns })
            }
            _ => bail!("the ping-pong answered {answer:?}"),
        }
    }

    fn answer(&mut self) -> anyhow::Result<Vec<u64>> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!("the {:?} process has ended: {:?}", self.child.id(), self.child.wait()?);
        }
        line.split_whitespace().map(|number| Ok(number.parse()?)).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.child.wait();
    }
}
