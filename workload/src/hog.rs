//! A thread that does nothing but count, so that its vCPU is never idle.

use crate::error::WorkloadError;
use crate::pin::pin_current_thread;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

/// A hog calls nothing, so a small stack does; the C library wants at least 16 KiB for its own.
const STACK_BYTES: usize = 64 * 1024;

/// On its own cache lines: two hogs that wrote to one line would wait for each other, and their
/// vCPUs would not be as busy as they look. 128 bytes, because Intel fetches lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counter(AtomicU64);

/// One running hog. Dropping it does not stop it: the flag given to [`Hog::start`] does, so that one
/// store ends all hogs at once.
#[derive(Debug)]
pub struct Hog {
    vcpu: u16,
    counter: Arc<Counter>,
    thread: JoinHandle<()>,
}

impl Hog {
    /// Starts a thread on `vcpu` that counts until `stop` is true. When this returns, the thread is
    /// pinned.
    ///
    /// # Errors
    ///
    /// [`WorkloadError::SpawnHog`] if there can be no further thread, [`WorkloadError::Pin`] if it
    /// cannot run on `vcpu`.
    pub fn start(vcpu: u16, stop: Arc<AtomicBool>) -> Result<Hog, WorkloadError> {
        let counter = Arc::new(Counter::default());
        let published = Arc::clone(&counter);
        let (send_pinned, receive_pinned) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name(format!("hog-{vcpu}"))
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let pinned = pin_current_thread(vcpu);
                let go = pinned.is_ok();
                // The starter waits for this message, so the channel is open.
                let _ = send_pinned.send(pinned);
                if go {
                    count_until(&stop, &published.0);
                }
            })
            .map_err(|source| WorkloadError::SpawnHog { vcpu, source })?;
        receive_pinned
            .recv()
            .expect("the thread sends before it does anything that could panic")?;
        Ok(Hog { vcpu, counter, thread })
    }

    /// The vCPU that this hog is pinned to.
    #[must_use]
    pub fn vcpu(&self) -> u16 {
        self.vcpu
    }

    /// How often its loop has counted so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counter.0.load(Ordering::Relaxed)
    }

    /// Waits for the hog to see its flag, and returns its last count.
    #[must_use]
    pub fn join(self) -> u64 {
        // An error would be a panic in a loop of a load, an addition and a store.
        let _ = self.thread.join();
        self.counter.0.load(Ordering::Relaxed)
    }
}

/// The seed's `while (1) i++;`, with a way out and a way to see it. No system call, no lock.
///
/// The count is stored at every turn: a relaxed store is a plain `mov`, and because it is atomic
/// the compiler may not move it out of a loop that another thread ends. Nobody else writes to it, so
/// it needs no locked addition.
fn count_until(stop: &AtomicBool, counter: &AtomicU64) {
    let mut count: u64 = 0;
    while !stop.load(Ordering::Relaxed) {
        count = count.wrapping_add(1);
        counter.store(count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn affinity_of_threads_named(name: &str) -> Vec<String> {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        tasks
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("status")).ok())
            .filter(|status| status.lines().next() == Some(&format!("Name:\t{name}")))
            .filter_map(|status| {
                let allowed =
                    status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
                Some(allowed.trim().to_owned())
            })
            .collect()
    }

    #[test]
    fn a_hog_counts_where_it_was_put_until_it_is_told_to_stop() {
        let vcpu =
            u16::try_from(core_affinity::get_core_ids().unwrap().last().unwrap().id).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let hog = Hog::start(vcpu, Arc::clone(&stop)).unwrap();
        assert_eq!(hog.vcpu(), vcpu);
        assert_eq!(affinity_of_threads_named(&format!("hog-{vcpu}")), [vcpu.to_string()]);

        let first = hog.count();
        while hog.count() <= first {
            std::thread::sleep(Duration::from_millis(1));
        }
        stop.store(true, Ordering::Relaxed);
        assert!(hog.join() > first);
    }

    #[test]
    fn a_hog_on_a_vcpu_that_is_not_there_does_not_start() {
        let stop = Arc::new(AtomicBool::new(false));
        let error = Hog::start(1023, stop).unwrap_err();
        assert!(matches!(error, WorkloadError::Pin { vcpu: 1023 }), "{error}");
    }
}
