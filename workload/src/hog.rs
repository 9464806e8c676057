//! A thread that does nothing but count, so that its vCPU is never idle.
//!
//! On the side it may look at a clock now and then: where two looks are far apart, something had the
//! vCPU in between. Whoever knows what the host did then can tell by that whether the guest's clock is
//! where it is believed to be.

use crate::clock::Clock;
use crate::error::WorkloadError;
use crate::pin::pin_current_thread;
use rtrb::{Consumer, Producer, RingBuffer};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

/// Turns between two looks at the clock: a few microseconds. Not more often, because under QEMU's TCG
/// a look takes a spin lock that all of its vCPUs share (`cpu_get_ticks`, softmmu/cpu-timers.c): a hog
/// that was taken off its pCPU with it would keep the others spinning.
const TURNS_PER_LOOK: u64 = 1024;

/// Gaps that are held until they are taken: 16 s of a hog that is taken off its pCPU every 4 ms.
const GAPS_MAX: usize = 4096;

/// A hog calls nothing, so a small stack does; the C library wants at least 16 KiB for its own.
const STACK_BYTES: usize = 64 * 1024;

/// On its own cache lines: two hogs that wrote to one line would wait for each other, and their
/// vCPUs would not be as busy as they look. 128 bytes, because Intel fetches lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counter(AtomicU64);

/// A time in which a hog did not look at its clock: from the last look before to the first one after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HogGap {
    /// Before, in the clock's unit.
    pub start: u64,
    /// After.
    pub end: u64,
}

/// How a hog looks at a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lookout {
    /// The clock. Reading it must not leave the guest: see [`Clock`].
    pub clock: Clock,
    /// Looks further apart are a gap.
    pub threshold_ticks: u64,
}

/// One running hog. Dropping it does not stop it: the flag given to [`Hog::start`] does, so that one
/// store ends all hogs at once.
#[derive(Debug)]
pub struct Hog {
    vcpu: u16,
    counter: Arc<Counter>,
    gaps: Option<Consumer<HogGap>>,
    thread: JoinHandle<()>,
}

impl Hog {
    /// Starts a thread on `vcpu` that counts until `stop` is true, and looks at a clock if there is a
    /// `lookout`. When this returns, the thread is pinned.
    ///
    /// # Errors
    ///
    /// [`WorkloadError::SpawnHog`] if there can be no further thread, [`WorkloadError::Pin`] if it
    /// cannot run on `vcpu`.
    pub fn start(
        vcpu: u16,
        stop: Arc<AtomicBool>,
        lookout: Option<Lookout>,
    ) -> Result<Hog, WorkloadError> {
        let counter = Arc::new(Counter::default());
        let (mut looks, gaps) = lookout.map(Looks::new).unzip();
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
                    count_until(&stop, &published.0, looks.as_mut());
                }
            })
            .map_err(|source| WorkloadError::SpawnHog { vcpu, source })?;
        receive_pinned
            .recv()
            .expect("the thread sends before it does anything that could panic")?;
        Ok(Hog { vcpu, counter, gaps, thread })
    }

    /// The next gap that has not been taken yet, in order of time. Where they were not taken in time,
    /// several are told as one, from the start of the first to the end of the last.
    pub fn take_gap(&mut self) -> Option<HogGap> {
        self.gaps.as_mut()?.pop().ok()
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
fn count_until(stop: &AtomicBool, counter: &AtomicU64, mut looks: Option<&mut Looks>) {
    let mut count: u64 = 0;
    while !stop.load(Ordering::Relaxed) {
        count = count.wrapping_add(1);
        counter.store(count, Ordering::Relaxed);
        if count.is_multiple_of(TURNS_PER_LOOK)
            && let Some(looks) = &mut looks
        {
            looks.look(looks.lookout.clock.now());
        }
    }
}

/// The looks of one hog.
#[derive(Debug)]
struct Looks {
    lookout: Lookout,
    last: Option<u64>,
    /// Where the gaps began that found no room.
    waiting_since: Option<u64>,
    gaps: Producer<HogGap>,
}

impl Looks {
    fn new(lookout: Lookout) -> (Looks, Consumer<HogGap>) {
        let (gaps, consumer) = RingBuffer::new(GAPS_MAX);
        (Looks { lookout, last: None, waiting_since: None, gaps }, consumer)
    }

    fn look(&mut self, now: u64) {
        let last = self.last.replace(now).unwrap_or(now);
        if now.saturating_sub(last) <= self.lookout.threshold_ticks {
            return;
        }
        let start = self.waiting_since.unwrap_or(last);
        let has_room = self.gaps.push(HogGap { start, end: now }).is_ok();
        self.waiting_since = (!has_room).then_some(start);
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
        let lookout = Lookout { clock: Clock::MonotonicRaw, threshold_ticks: 0 };
        let mut hog = Hog::start(vcpu, Arc::clone(&stop), Some(lookout)).unwrap();
        assert_eq!(hog.vcpu(), vcpu);
        assert_eq!(affinity_of_threads_named(&format!("hog-{vcpu}")), [vcpu.to_string()]);

        let first = hog.count();
        while hog.count() <= first {
            std::thread::sleep(Duration::from_millis(1));
        }
        let gaps: Vec<HogGap> = std::iter::from_fn(|| hog.take_gap()).collect();
        assert!(!gaps.is_empty(), "every two looks are a gap");
        assert!(gaps.iter().all(|gap| gap.start < gap.end));
        assert!(gaps.is_sorted_by(|one, next| one.end <= next.start));
        stop.store(true, Ordering::Relaxed);
        assert!(hog.join() > first);
    }

    #[test]
    fn looks_that_are_far_apart_are_a_gap_and_none_is_lost() {
        let lookout = Lookout { clock: Clock::MonotonicRaw, threshold_ticks: 10 };
        let (mut looks, mut gaps) = Looks::new(lookout);
        [100, 110, 121, 125].into_iter().for_each(|now| looks.look(now));
        assert_eq!(gaps.pop(), Ok(HogGap { start: 110, end: 121 }));
        assert!(gaps.pop().is_err(), "10 apart is none");
        let after_full = GAPS_MAX as u64 + 3;
        (1..=after_full).for_each(|turn| looks.look(turn * 1_000));
        let taken: Vec<HogGap> = std::iter::from_fn(|| gaps.pop().ok()).collect();
        assert_eq!(taken.len(), GAPS_MAX);
        looks.look((after_full + 1) * 1_000);
        // Three found no room: one gap from the first of them on.
        let merged = HogGap { start: GAPS_MAX as u64 * 1_000, end: (after_full + 1) * 1_000 };
        assert_eq!(gaps.pop(), Ok(merged));
        assert_eq!(looks.waiting_since, None);
    }

    #[test]
    fn a_hog_on_a_vcpu_that_is_not_there_does_not_start() {
        let stop = Arc::new(AtomicBool::new(false));
        let error = Hog::start(1023, stop, None).unwrap_err();
        assert!(matches!(error, WorkloadError::Pin { vcpu: 1023 }), "{error}");
    }
}
