//! What can be said of threads without tracefs and perf: by looking at them in `/proc`, again and
//! again.
//!
//! ```text
//! item              one look at a thread, and its scheduler's totals
//! files, parse      /proc/PID/task/TID/{syscall,wchan,stat,schedstat} -> items
//! plan              whom to look at, and what of them
//! sampler, rounds   a thread that looks, at random intervals and a bounded cost
//! evidence          one look -> the reason for being off a pCPU          (pure)
//! tally             all looks -> shares of each thread's time           (pure)
//! interval          how far a share can be trusted                      (pure)
//! ```
//!
//! # What a look costs and needs
//!
//! The files are opened once and read with pread(2): the kernel checks the rights at each read, not
//! when they are opened (linux: fs/proc/base.c). `syscall` needs `PTRACE_MODE_ATTACH`, `wchan`
//! `PTRACE_MODE_READ`, which whoever runs the VMM has of it, unless kernel.yama.ptrace_scope is 2 or
//! more or the VMM may not be dumped; `stat` and `schedstat` need no right. Read
//! again and again on Linux 6.18, `syscall` takes 1.0 to 1.7 us, `wchan` 2.0, `stat` 2.7, `schedstat`
//! 0.9; a thread on a pCPU needs the first only, one that sleeps the first three.
//!
//! # What it is good for
//!
//! Shares of a thread's time, not counts, lengths or who did it: a sleep that is shorter than the
//! time between two looks is seen now and then. Looks are taken at random intervals, because a host
//! does much at its ticks, and looks at the ticks' rate would see always the same. What the
//! scheduler itself counts in `schedstat` is no sample: time on a pCPU, time spent waiting for one,
//! timeslices. The kernel brings these up to date when a thread is switched and, the first, at each
//! tick, so that over a window they are exact to about a tick, or to the wait that is going on.

pub mod evidence;
mod files;
pub mod interval;
pub mod item;
mod parse;
pub mod plan;
mod rounds;
pub mod sampler;
pub mod tally;

pub use evidence::Doing;
pub(crate) use parse::schedstat;

pub use item::{Call, Look, SampleItem, Schedstat};
pub use plan::{Pace, SampleError, SampleSink, SampledThread, SamplerPlan, SamplerTotals, Sight};
pub use sampler::{NOTHING_SHOWN, Sampler, Shown, shown_of};
pub use tally::{Gaps, Scheduled, Share, Tally, ThreadShares};
