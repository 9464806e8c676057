//! A thread that looks at other threads, again and again.

use super::files::{Functions, ThreadFiles};
use super::plan::{SampleError, SampleSink, SamplerPlan, SamplerTotals, TOTALS_INTERVAL};
use super::rounds::Rounds;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Builder, JoinHandle};
use vslice_core::samples::Call;
use vslice_core::units::Tid;
use vslice_host::pin;

/// The number of tries to find out what is visible: a running thread shows nothing.
const RIGHTS_TRIES: usize = 20;

/// What the kernel shows this process of other threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThreadVisibility {
    /// System calls and kernel functions.
    Both,
    /// Only the system call in which they sleep, with its arguments.
    CallsOnly,
    /// Only the kernel function in which they sleep.
    FunctionsOnly,
    /// Neither, or none of them slept.
    Nothing,
}

/// A running sampler. It ends when it is stopped or dropped.
#[derive(Debug)]
pub struct Sampler {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<SamplerTotals>>,
}

impl Sampler {
    /// Opens the files of all threads and starts to sample. Threads that have ended are left out.
    ///
    /// # Errors
    /// [`SampleError::NoSchedstat`] or [`SampleError::NoThread`].
    pub fn start(plan: &SamplerPlan, sink: impl SampleSink) -> Result<Sampler, SampleError> {
        let mut threads = Vec::new();
        for thread in &plan.threads {
            match ThreadFiles::open(thread.tid) {
                Ok(files) => threads.push((*thread, files)),
                Err(_) if !exists(thread.tid) => {}
                Err(source) => return Err(SampleError::NoSchedstat { tid: thread.tid, source }),
            }
        }
        let mut vms: Vec<usize> = threads.iter().map(|(thread, _)| thread.vm).collect();
        vms.sort_unstable();
        vms.dedup();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, content, pcpu) = (Arc::clone(&stop), plan.content, plan.pcpu);
        let run = move || {
            if let Some(pcpu) = pcpu {
                // Where that fails it samples from anywhere rather than not at all.
                let _anywhere = pin::set_affinity(own_tid(), &[pcpu]);
            }
            let functions = Functions::default();
            let totals = SamplerTotals::default();
            Rounds { threads, vms, content, sink, functions, totals }.repeat(&stopped)
        };
        let thread = Builder::new().name("vslice-sample".into()).spawn(run);
        Ok(Sampler { stop, thread: Some(thread.map_err(SampleError::NoThread)?) })
    }

    /// Whether it has ended by itself; [`Sampler::stop`] then says why.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Takes the totals once more, hands the rest to the sink and finishes it.
    ///
    /// # Errors
    /// [`SampleError::Panicked`]. Other failures are in [`SamplerTotals::ended_early`], because what
    /// was sampled before them is worth keeping.
    pub fn stop(mut self) -> Result<SamplerTotals, SampleError> {
        self.join().ok_or(SampleError::Panicked)
    }

    fn join(&mut self) -> Option<SamplerTotals> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take()?.join().ok()
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.join();
    }
}

/// The reason that is given when nothing of the threads is visible.
pub const NOTHING_VISIBLE: &str = "the kernel shows this user neither system calls nor kernel functions \
    of QEMU's threads (ptrace(2), kernel.yama.ptrace_scope)";

/// What the kernel shows of these threads, found out by trying. This takes up to 0.1 s if nothing is
/// visible.
#[must_use]
pub fn visibility_of(tids: &[Tid]) -> ThreadVisibility {
    let mut files: Vec<_> = tids.iter().filter_map(|tid| ThreadFiles::open(*tid).ok()).collect();
    let mut functions = Functions::default();
    let (mut calls, mut names) = (false, false);
    for _ in 0..RIGHTS_TRIES {
        for file in &mut files {
            if let Some(look) = file.look(&mut functions) {
                calls |= look.call != Call::Hidden;
                names |= look.wchan.is_some();
            }
        }
        if calls && names {
            break;
        }
        thread::sleep(TOTALS_INTERVAL / 20);
    }
    match (calls, names) {
        (true, true) => ThreadVisibility::Both,
        (true, false) => ThreadVisibility::CallsOnly,
        (false, true) => ThreadVisibility::FunctionsOnly,
        (false, false) => ThreadVisibility::Nothing,
    }
}

fn exists(tid: Tid) -> bool {
    std::path::Path::new(&format!("/proc/{tid}")).exists()
}

fn own_tid() -> Tid {
    Tid(nix::unistd::gettid().as_raw().cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::plan::{SampleContent, SampleRate, SampledThread, SinkError};
    use std::error::Error;
    use std::time::Duration;
    use vslice_core::samples::SampleItem;

    #[test]
    fn a_sink_that_fails_ends_it_and_says_why() {
        let plan = SamplerPlan {
            threads: vec![SampledThread { vm: 0, tid: own_tid(), rate: SampleRate::EveryRound }],
            content: SampleContent::TotalsOnly,
            pcpu: None,
        };
        let full = |_: usize, _: SampleItem| -> Result<(), SinkError> { Err("full".into()) };
        let sampler = Sampler::start(&plan, full).unwrap();
        while !sampler.has_ended() {
            thread::sleep(Duration::from_millis(1));
        }
        let ended = sampler.stop().unwrap().ended_early.unwrap();
        assert_eq!(ended.source().unwrap().to_string(), "full");
    }
}
