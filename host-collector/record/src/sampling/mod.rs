//! Looks at threads in `/proc`, again and again, where neither tracefs nor perf is there.
//!
//! ```text
//! files, parse      /proc/PID/task/TID/{syscall,wchan,stat,schedstat} -> items
//! plan              whom to look at, and what of them
//! sampler, rounds   a thread that looks, at random intervals and a bounded cost
//! ```
//!
//! What the looks say is [`vslice_core::samples`].
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
//! Looks are taken at random intervals, because a host does much at its ticks, and looks at the ticks'
//! rate would see always the same.

mod files;
mod parse;
pub mod plan;
mod rounds;
pub mod sampler;

pub(crate) use parse::schedstat;

pub use plan::{
    SampleContent, SampleError, SampleRate, SampleSink, SampledThread, SamplerPlan, SamplerTotals,
};
pub use sampler::{NOTHING_VISIBLE, Sampler, ThreadVisibility, visibility_of};
