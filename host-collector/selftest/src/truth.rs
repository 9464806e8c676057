//! What a departure was really caused by, from what was injected. Pure.

use super::observe::Departure;
use super::score::Score;
use super::witness::FutexEntry;
use crate::rig::inject::Episode;
use crate::rig::inject::stopper::Stop;
use vslice_core::timeline::{GuestMode, Reason};
use vslice_core::units::{HostNs, Tid};

/// What is known of the cause of one departure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// It was injected.
    Injected(Reason),
    /// Nobody injected it.
    NotInjected,
    /// The witness cannot tell which of several it is.
    Undecided,
}

impl From<Option<Reason>> for Cause {
    fn from(injected: Option<Reason>) -> Cause {
        injected.map_or(Cause::NotInjected, Cause::Injected)
    }
}

/// The truth of one departure.
pub(super) type Truth<'a> = &'a dyn Fn(&Departure) -> Cause;

/// Scores the departures of a window. `bql` is the lock that a wait for the big lock must name.
pub(super) fn score(
    departures: &[Departure],
    window: Episode,
    bql: Option<u64>,
    truth: Truth<'_>,
) -> Score {
    let mut score = Score::default();
    let is_inside =
        |departure: &&Departure| departure.time >= window.start && departure.until <= window.end;
    for departure in departures.iter().filter(is_inside) {
        score.off_ns += departure.off_ns();
        if departure.reason == Reason::Unknown {
            score.unknown_ns += departure.off_ns();
        }
        if departure.reason == Reason::Bql {
            score.bql_count += 1;
            score.bql_unproven_count += u64::from(departure.lock != bql || bql.is_none());
        }
        match truth(departure) {
            Cause::Injected(injected) => score.add(injected, departure.reason),
            Cause::NotInjected => *score.not_injected.entry(departure.reason).or_default() += 1,
            Cause::Undecided => score.undecided_count += 1,
        }
    }
    score
}

/// It was still runnable, and this thread came on.
pub(super) fn taken_by(departure: &Departure, rival: Tid, reason: Reason) -> Option<Reason> {
    (departure.state.is_runnable() && departure.next == rival).then_some(reason)
}

/// The wakings of a thread that is there to preempt.
#[derive(Debug)]
pub(super) struct Wakings {
    pub(super) tid: Tid,
    /// When it ran, by its own log.
    pub(super) episodes: Vec<Episode>,
    /// For how long it meant to sleep between them.
    pub(super) sleep_ns: u64,
    /// The shortest slice of the thread that is preempted, where it is known.
    pub(super) slice_ns: Option<u64>,
}

/// What no scheduler calls a slice that is over, where its slices are not known: they are 0.7 ms and more
/// (linux: kernel/sched/fair.c, `sysctl_sched_base_slice`).
const SLICE_PART_NS: u64 = 500_000;

impl Wakings {
    /// It was still runnable, and this thread came on, which woke while it ran: by the waker's own log it
    /// was due after the other one had come on. And the other one had most of its slice left, so that it
    /// would have stayed otherwise.
    ///
    /// A kernel that preempts lazily lets a woken thread wait for the next tick: how late it comes on does
    /// not matter.
    pub(super) fn woken_by(&self, departure: &Departure) -> Option<Reason> {
        taken_by(departure, self.tid, Reason::PreemptWakeup)?;
        let after = self.episodes.partition_point(|it| it.start < departure.time);
        let before = self.episodes.get(after.checked_sub(1)?)?;
        let due = HostNs(before.end.0 + self.sleep_ns);
        let ran_ns = departure.ran_ns?;
        let came_ns = departure.time.0.checked_sub(ran_ns)?;
        let has_slice = ran_ns <= self.slice_ns.map_or(SLICE_PART_NS, |slice_ns| slice_ns / 2);
        (came_ns <= due.0 && due <= departure.time && has_slice).then_some(Reason::PreemptWakeup)
    }
}

/// It was stopped: the departure that lasted until the end of a stop.
pub(super) fn stopped(departure: &Departure, stops: &[Stop]) -> Option<Reason> {
    let lasted = |stop: &Stop| departure.time <= stop.end && departure.until >= stop.end;
    // One that was runnable but off when it was stopped had left for another reason.
    (!departure.state.is_runnable() && stops.iter().any(lasted)).then_some(Reason::Stopped)
}

/// It was runnable, nobody came on, and it was off for far longer than anything but its quota keeps
/// a thread off an idle pCPU.
pub(super) fn throttled(departure: &Departure, shortest_ns: u64) -> Option<Reason> {
    let is_idle = departure.next == Tid::IDLE;
    (departure.state.is_runnable() && is_idle && departure.off_ns() >= shortest_ns)
        .then_some(Reason::Throttle)
}

/// Traces are printed in microseconds.
const ROUNDING_NS: u64 = 1_000;

/// What the kernel's own tracepoint says of the call that the thread was in: the last one before the
/// departure. `bql` is the lock that different threads of this QEMU were seen to wait for; without one, which
/// mutex is the big lock is not known, and what vslice takes for it is no truth.
pub(super) fn futex(departure: &Departure, entries: &[FutexEntry], bql: Option<u64>) -> Cause {
    if departure.state.is_runnable() {
        return Cause::NotInjected;
    }
    let after = entries.partition_point(|entry| entry.time.0 <= departure.time.0 + ROUNDING_NS);
    let entry = after.checked_sub(1).and_then(|last| entries.get(last));
    // SwitchOut without a futex: the call before was long ago, or it has been left already.
    let is_current = |entry: &&FutexEntry| {
        entry.left.is_none_or(|left| left.0 + ROUNDING_NS >= departure.time.0)
    };
    entry.filter(is_current).map_or(Cause::NotInjected, |entry| of_call(entry, bql))
}

fn of_call(entry: &FutexEntry, bql: Option<u64>) -> Cause {
    // FUTEX_WAIT | FUTEX_PRIVATE_FLAG with the value of a contended mutex; all other waits of a
    // vCPU thread of QEMU are for conditions.
    match (entry.operation, entry.value, bql) {
        (0x80, 2, None) => Cause::Undecided,
        (0x80, 2, Some(bql)) if bql == entry.address => Cause::Injected(Reason::Bql),
        (0x80, 2, _) | (0, _, _) => Cause::Injected(Reason::QemuLock),
        _ => Cause::Injected(Reason::HaltUser),
    }
}

/// Since when a lock is known to be the one that different threads of a QEMU wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shared {
    /// Before this the record cannot show it: until then somebody had not even asked for the lock.
    pub(super) maybe: Option<HostNs>,
    /// From this on it does: main loop and vCPU have slept on it.
    pub(super) surely: Option<HostNs>,
}

impl Shared {
    /// What a wait for the big lock is to somebody who knows it only by who waits for it: until different
    /// threads have, it is a lock of QEMU's like any other.
    pub(super) fn of_wait(self, at: HostNs) -> Cause {
        if self.maybe.is_none_or(|maybe| at.0 + ROUNDING_NS < maybe.0) {
            Cause::Injected(Reason::QemuLock)
        } else if self.surely.is_some_and(|surely| at.0 >= surely.0 + ROUNDING_NS) {
            Cause::Injected(Reason::BqlInferred)
        } else {
            Cause::Undecided
        }
    }
}

/// A guest that does nothing but halt: under KVM all its sleeps are halts, as a vCPU thread is in
/// the kernel all the time.
pub(super) fn idle(departure: &Departure, mode: GuestMode) -> Option<Reason> {
    (mode == GuestMode::Kvm && !departure.state.is_runnable()).then_some(Reason::Halt)
}

/// The first time of a window from which on everything is settled: what was in flight when the
/// injection began says nothing of it.
pub(super) fn settled(episode: Episode, margin_ns: u64) -> Episode {
    let end_ns = episode.end.0.saturating_sub(margin_ns);
    Episode { start: HostNs(episode.start.0 + margin_ns), end: HostNs(end_ns) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_core::host_event::PrevState;

    const RIVAL: Tid = Tid(7);

    fn departure(from: u64, until: u64, state: PrevState, next: Tid) -> Departure {
        let (time, until) = (HostNs(from), HostNs(until));
        Departure {
            time,
            until,
            state,
            next,
            ran_ns: None,
            reason: Reason::Timeslice,
            lock: None,
            stack: None,
        }
    }

    fn episode(start: u64, end: u64) -> Episode {
        Episode { start: HostNs(start), end: HostNs(end) }
    }

    #[test]
    fn departures_at_the_edges_of_the_window_do_not_count() {
        let departures = [
            departure(5, 15, PrevState::Runnable, RIVAL),
            departure(15, 20, PrevState::Runnable, RIVAL),
            departure(25, 27, PrevState::Runnable, Tid(3)),
            departure(28, 35, PrevState::Runnable, RIVAL),
        ];
        let truth = |it: &Departure| taken_by(it, RIVAL, Reason::Timeslice).into();
        let score = score(&departures, episode(10, 30), None, &truth);
        assert_eq!(score.injected(Reason::Timeslice), 1);
        assert_eq!((score.not_injected[&Reason::Timeslice], score.off_ns), (1, 7));
    }

    #[test]
    fn a_wait_for_the_big_lock_must_name_it() {
        let mut waits = [departure(10, 12, PrevState::Sleep, Tid::IDLE); 2];
        waits.iter_mut().for_each(|wait| wait.reason = Reason::Bql);
        waits[0].lock = Some(0x40);
        let of =
            |bql| score(&waits, episode(0, 99), bql, &|_| Cause::NotInjected).bql_unproven_count;
        assert_eq!((of(Some(0x40)), of(Some(0x80)), of(None)), (1, 2, 2));
    }

    /// The vCPU came on at 110 us; the waker, which ran until 100 us, was due at 500 us.
    fn woken_by(left_us: u64, came_us: u64, slice_us: Option<u64>) -> Option<Reason> {
        let wakings = Wakings {
            tid: RIVAL,
            episodes: vec![episode(0, 100_000), episode(left_us * 1000 + 5_000, 9_000_000)],
            sleep_ns: 400_000,
            slice_ns: slice_us.map(|slice_us| slice_us * 1000),
        };
        let mut departure = departure(left_us * 1000, 9_000_000, PrevState::Runnable, RIVAL);
        departure.ran_ns = Some((left_us - came_us) * 1000);
        wakings.woken_by(&departure)
    }

    #[test]
    fn who_wakes_while_the_other_runs_preempts_it() {
        assert_eq!(woken_by(510, 110, Some(4000)), Some(Reason::PreemptWakeup));
        assert_eq!(woken_by(510, 110, None), Some(Reason::PreemptWakeup));
        assert_eq!(woken_by(450, 110, Some(4000)), None, "it was not due yet");
    }

    #[test]
    fn where_the_kernel_preempts_lazily_it_comes_on_at_the_tick() {
        assert_eq!(woken_by(1_700, 110, Some(4000)), Some(Reason::PreemptWakeup));
        assert_eq!(woken_by(3_900, 110, Some(4000)), None, "the slice was about over as well");
        assert_eq!(woken_by(1_700, 110, None), None, "nobody knows how long slices are");
    }

    #[test]
    fn a_thread_that_had_to_wait_did_not_preempt() {
        assert_eq!(woken_by(900, 700, Some(4000)), None, "somebody else ran when it was due");
    }

    #[test]
    fn a_stop_is_the_departure_that_lasts_until_its_end() {
        let stops = [Stop { start: HostNs(100), complete: HostNs(104), end: HostNs(200) }];
        let of = |from, until| {
            stopped(&departure(from, until, PrevState::Stopped, Tid::IDLE), &stops).is_some()
        };
        assert!(of(105, 201) && of(95, 203));
        assert!(!of(50, 99) && !of(101, 150) && !of(201, 300));
    }

    #[test]
    fn a_quota_leaves_the_pcpu_idle_for_long() {
        let of = |state, next, until| throttled(&departure(0, until, state, next), 10).is_some();
        assert!(of(PrevState::Runnable, Tid::IDLE, 10));
        assert!(!of(PrevState::Runnable, RIVAL, 10));
        assert!(!of(PrevState::Sleep, Tid::IDLE, 10));
        assert!(!of(PrevState::Runnable, Tid::IDLE, 9));
    }

    #[test]
    fn a_futex_is_the_call_that_the_thread_is_in() {
        let entry = |time, operation, value, left| FutexEntry {
            time: HostNs(time),
            tid: Tid(1),
            address: 0x40,
            operation,
            value,
            left: Some(HostNs(left)),
        };
        let at = |entry: FutexEntry, scale| {
            let left = entry.left.map(|left| HostNs(left.0 * scale));
            FutexEntry { time: HostNs(entry.time.0 * scale), left, ..entry }
        };
        let entries = [entry(10, 0x80, 2, 20), entry(30, 0x189, 0, 40), entry(50, 0x80, 2, 60)];
        let entries = entries.map(|entry| at(entry, 1000));
        let of = |time_us: u64, bql| {
            let departure = departure(time_us * 1000, 99_000, PrevState::Sleep, Tid::IDLE);
            futex(&departure, &entries, bql)
        };
        let is = Cause::Injected;
        assert_eq!(of(5, Some(0x99)), Cause::NotInjected);
        assert_eq!(of(9, Some(0x99)), is(Reason::QemuLock), "within what is rounded");
        assert_eq!(of(15, Some(0x99)), is(Reason::QemuLock));
        assert_eq!(of(15, Some(0x40)), is(Reason::Bql));
        assert_eq!(of(15, None), Cause::Undecided, "the witness saw nobody share a lock");
        assert_eq!(of(25, None), Cause::NotInjected, "it has come back from the call");
        assert_eq!(of(35, None), is(Reason::HaltUser), "no mutex, whichever is the big one");
        assert_eq!(of(55, Some(0x99)), is(Reason::QemuLock));
    }

    #[test]
    fn until_it_is_shared_the_big_lock_is_one_of_qemus_locks() {
        let of = |maybe_us: Option<u64>, surely_us: Option<u64>, at_us: u64| {
            let us = |us: u64| HostNs(us * 1000);
            Shared { maybe: maybe_us.map(us), surely: surely_us.map(us) }.of_wait(us(at_us))
        };
        let (lock, big) = (Cause::Injected(Reason::QemuLock), Cause::Injected(Reason::BqlInferred));
        assert_eq!(of(Some(20), Some(30), 10), lock);
        assert_eq!(
            of(Some(20), Some(30), 20),
            Cause::Undecided,
            "somebody asked, but may not have slept"
        );
        assert_eq!(
            of(Some(20), Some(30), 30),
            Cause::Undecided,
            "which came first is rounded away"
        );
        assert_eq!(of(Some(20), Some(30), 31), big);
        assert_eq!((of(Some(20), None, 99), of(None, None, 99)), (Cause::Undecided, lock));
    }

    #[test]
    fn what_the_witness_cannot_tell_is_counted_and_not_scored() {
        let waits = [departure(10, 12, PrevState::Sleep, Tid::IDLE); 3];
        let score = score(&waits, episode(0, 99), None, &|_| Cause::Undecided);
        assert_eq!(
            (score.undecided_count, score.injected_reasons().len(), score.off_ns),
            (3, 0, 6)
        );
        assert!(score.not_injected.is_empty());
    }
}
