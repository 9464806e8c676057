//! The second witness: what was taken from threads while they had the pCPU.
//!
//! Where this host is itself a guest, the hypervisor below takes pCPUs from it, and no switch of the
//! host shows that: for the guest on top it is the host all the same. The kernel leaves such steal out
//! of the runtime that it counts (`CONFIG_PARAVIRT_TIME_ACCOUNTING`; kernel/sched/core.c,
//! `update_rq_clock_task`), and tells that runtime at each tick and switch (`sched_stat_runtime`): what
//! is missing between two of these was stolen. Interrupts of the host run on the thread's time, and no switch
//! shows them either: the kernel tells of each when it begins and ends.

use super::truth::Interval;
use std::path::PathBuf;
use std::{fs, io};
use vslice_core::units::{PcpuId, Tid};
use vslice_host::procfs;
use vslice_record::perf::Tracefs;

/// The one pCPU's buffer: some hundred bytes for each event, of which there are a few thousand a second.
const BUFFER_KIB: u32 = 64 << 10;

/// The clock of the runtime is read a little before the event is written, by a different time each time.
const NOISE_NS: u64 = 20_000;

const EVENTS: [&str; 6] = [
    "sched/sched_switch",
    "sched/sched_stat_runtime",
    "irq/irq_handler_entry",
    "irq/irq_handler_exit",
    "irq/softirq_entry",
    "irq/softirq_exit",
];

/// What happened on the pCPU beside its switches.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Testimony {
    /// Of all threads that had the pCPU, in order of time.
    pub(super) stretches: Vec<Stretch>,
    /// The host's interrupts and what they put off, in order of time and apart.
    pub(super) interrupts: Vec<Interval>,
}

/// Between two moments at which the kernel told a thread's runtime, in all of which it had the pCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) tid: Tid,
    pub(super) when: Interval,
    /// How much of it was not counted to the thread.
    pub(super) stolen_ns: u64,
}

/// An instance of tracefs that traces one pCPU. Dropping it removes it.
pub(super) struct Witness {
    _tracefs: Tracefs,
    path: PathBuf,
    pcpu: PcpuId,
}

impl Witness {
    pub(super) fn start(pcpu: PcpuId) -> io::Result<Witness> {
        let tracefs = Tracefs::find_writable()?;
        let own = Tid(std::process::id());
        let start = procfs::start_ticks(own).map_or(0, |start| start.0);
        // Named as vslice's own, which are removed where their maker was killed.
        let path = tracefs.path().join("instances").join(format!("vslice-{own}-{start}"));
        fs::create_dir(&path)?;
        let witness = Witness { _tracefs: tracefs, path, pcpu };
        witness.write("trace_clock", "mono_raw")?;
        witness.write("tracing_cpumask", &mask(pcpu))?;
        witness.write(&witness.of_pcpu("buffer_size_kb"), &BUFFER_KIB.to_string())?;
        for event in EVENTS {
            witness.write(&format!("events/{event}/enable"), "1")?;
        }
        witness.write("tracing_on", "1")?;
        Ok(witness)
    }

    fn of_pcpu(&self, file: &str) -> String {
        format!("per_cpu/cpu{}/{file}", self.pcpu.0)
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        fs::write(self.path.join(file), text)
    }

    /// Ends it.
    pub(super) fn finish(self) -> io::Result<Testimony> {
        self.write("tracing_on", "0")?;
        let stats = fs::read_to_string(self.path.join(self.of_pcpu("stats")))?;
        if !stats.lines().any(|line| line.trim() == "overrun: 0") {
            return Err(io::Error::other(format!("its buffer was too small: {stats}")));
        }
        Ok(testimony(&fs::read_to_string(self.path.join(self.of_pcpu("trace")))?))
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        for event in EVENTS {
            let _ = self.write(&format!("events/{event}/enable"), "0");
        }
        let _ = fs::remove_dir(&self.path);
    }
}

/// The mask of one pCPU as the kernel reads it: words of 32 bits, the highest first.
fn mask(pcpu: PcpuId) -> String {
    let zeros: String = (0..pcpu.0 / 32).map(|_| ",00000000").collect();
    format!("{:x}{zeros}", 1_u32 << (pcpu.0 % 32))
}

/// Reads the text of one pCPU's trace.
pub(super) fn testimony(trace: &str) -> Testimony {
    let (mut stretches, mut interrupts) = (Vec::new(), Vec::new());
    // How many interrupts have begun and not ended, one in the other, and since when.
    let (mut depth, mut begun) = (0_u32, 0);
    // The thread on the pCPU, and since when its runtime is not told.
    let mut current: Option<(Tid, u64)> = None;
    for line in trace.lines() {
        if let Some((time, fields)) = event(line, " sched_switch: ") {
            current = number(fields, " next_pid=").map(|tid| (Tid(tid), time));
        } else if let Some((time, fields)) = event(line, " sched_stat_runtime: ") {
            let told = number::<u32>(fields, " pid=").zip(number::<u64>(fields, " runtime="));
            let Some(((tid, since), (of, runtime_ns))) = current.zip(told) else { continue };
            if tid == Tid(of) {
                let missing_ns = (time - since.min(time)).saturating_sub(runtime_ns);
                let stolen_ns = if missing_ns > NOISE_NS { missing_ns } else { 0 };
                let when = Interval { start: since.min(time), end: time };
                stretches.push(Stretch { tid, when, stolen_ns });
                current = Some((tid, time));
            }
        } else if let Some((time, _)) = event(line, "_entry: ") {
            begun = if depth == 0 { time } else { begun };
            depth += 1;
        } else if let Some((time, _)) = event(line, "_exit: ")
            && depth > 0
        {
            depth -= 1;
            if depth == 0 {
                interrupts.push(Interval { start: begun, end: time });
            }
        }
    }
    Testimony { stretches, interrupts }
}

/// The time in nanoseconds and the fields, if the line is of this event.
fn event<'line>(line: &'line str, name: &str) -> Option<(u64, &'line str)> {
    let (before, fields) = line.split_once(name)?;
    // The event's own name may be longer than what is asked for.
    let before =
        before.rsplit_once(' ').filter(|_| name.starts_with('_')).map_or(before, |all| all.0);
    let (seconds, micros) =
        before.split_whitespace().next_back()?.strip_suffix(':')?.split_once('.')?;
    let micros = seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?;
    Some((micros * 1_000, fields))
}

/// The last number with this name: thread names stand before all numbers.
fn number<Number: std::str::FromStr>(fields: &str, name: &str) -> Option<Number> {
    let (_, rest) = fields.rsplit_once(name)?;
    rest.split_whitespace().next()?.parse().ok()
}
