//! How the host's kernel hands an I/O that is done to the VMM.
//!
//! ```text
//! done --> wake of a thread of the VMM                                        at once
//! done --> wake of a worker --> its run --> wake of a thread of the VMM --> the worker is idle
//! ```
//!
//! Where the file system has to end a direct write itself, it leaves that to a worker of the pCPU that took the disk's
//! interrupt (linux 6.12: `iomap_dio_bio_end_io`, fs/iomap/direct-io.c, `s_dio_done_wq`), and the worker has to wait for
//! that pCPU like anybody. Until it has run the VMM sleeps and wakes for other things, and knows nothing.
//!
//! A thread that is awake is not woken, so a handover may leave no trace. But a worker that sleeps idle has left nothing
//! to do (`worker_thread`, kernel/workqueue.c), so by then all is handed over that had ended before; unless another
//! worker of that pCPU sleeps in the middle of its work. And where a disk's reads, or its writes, were all handed over at
//! once whenever the VMM slept, they are so when it is awake too.

use crate::host_event::{PrevState, Switch};
use crate::units::{HostNs, PcpuId, Tid};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Within this the interrupt that tells of a completion also wakes who waits for it (`blk_update_request`,
/// block/blk-mq.c).
const AT_ONCE_NS: u64 = 20_000;

/// So many have to have been handed over at once, and none by a worker, before that is taken for the way.
const ENOUGH: u64 = 16;

/// Ways that are kept at most.
const WAYS_MAX: usize = 1024;

/// Of an I/O that was not seen to be handed over for so long, that will not be known.
const GIVEN_UP_AFTER_NS: u64 = 500_000_000;

/// I/Os that are done and not seen to be handed over, at most.
const OPEN_MAX: usize = 8192;

/// Workers asleep in the middle of their work that are kept at most.
const BLOCKED_MAX: usize = 1024;

/// What a thread is to a VM's I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A thread of the VMM that runs no vCPU.
    Vmm,
    /// It runs a vCPU of the VM.
    Vcpu,
    /// A worker of the kernel that works for this pCPU.
    Worker(PcpuId),
    /// A worker of the kernel that works for more than one.
    OtherWorker,
    /// Any other.
    Other,
}

impl Role {
    /// That of a thread of the kernel with this name: `kworker/1:0` works for pCPU1, `kworker/u8:2` for several
    /// (linux 6.12: `format_worker_id`, kernel/workqueue.c). Those of `WQ_HIGHPRI`, `kworker/1:0H`, are a pool of their
    /// own that no file system ends I/O in.
    #[must_use]
    pub fn of_kernel_thread(name: &str) -> Role {
        let Some(worker) = name.strip_prefix("kworker/") else { return Role::Other };
        let place = worker.split_once(':').and_then(|(pcpu, number)| {
            let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
            pcpu.parse().ok().filter(|_| is_number)
        });
        place.map_or(Role::OtherWorker, |pcpu| Role::Worker(PcpuId(pcpu)))
    }
}

/// When the VMM was handed an I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Handover {
    /// Not before that, if there is more to say than that it was done.
    pub(super) from: Option<HostNs>,
    /// By then.
    pub(super) by: HostNs,
}

/// What goes the same way: a disk's reads, and what is done with it else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Way {
    pub(super) device: u32,
    pub(super) is_read: bool,
}

/// How many went which way, of those of which it was seen.
#[derive(Debug, Default)]
struct Counts {
    at_once: u64,
    by_worker: u64,
}

/// An I/O that is done and was not seen to be handed over.
#[derive(Debug)]
struct Open {
    /// In the order in which they were done.
    number: u64,
    done: HostNs,
    way: Way,
    pcpu: PcpuId,
    /// Whom the completion interrupted.
    current: Tid,
    /// Nobody has been switched to since.
    is_at_once: bool,
    /// Nobody of the VMM was awake then, or a worker was woken for it: it was not handed over without a trace then.
    is_late: bool,
    /// Nobody of the VMM was awake then; whether anybody has been since, see `woken_before`.
    is_quiet: bool,
    /// When a worker of the pCPU was there for the first time since.
    worked_from: Option<HostNs>,
    /// It was not handed over before that.
    from: Option<HostNs>,
}

impl Open {
    /// The first moment at which it can have been handed over, by a worker that is there or was at `now`.
    fn earliest(&self, now: HostNs, woken_before: u64) -> Option<HostNs> {
        let earliest = if self.is_quiet_since(woken_before) { Some(now) } else { self.worked_from };
        earliest.filter(|_| self.is_late)
    }

    /// Whether nobody of the VMM has been awake since, who was woken before that number was given.
    fn is_quiet_since(&self, woken_before: u64) -> bool {
        self.is_quiet && self.number >= woken_before
    }
}

/// What the workers of one pCPU do.
#[derive(Debug, Default)]
struct Workers {
    awake: BTreeSet<Tid>,
    /// They sleep in the middle of their work.
    blocked: BTreeSet<Tid>,
    /// One of them is on the pCPU.
    is_on: bool,
}

/// The handovers of one VM's I/O.
#[derive(Debug, Default)]
pub(super) struct Handovers {
    /// In order of their ends.
    open: VecDeque<Open>,
    next_number: u64,
    /// A thread of the VMM was woken after all of lower numbers were done.
    woken_before: u64,
    pcpus: BTreeMap<PcpuId, Workers>,
    ways: BTreeMap<Way, Counts>,
    /// Of those that were done before it was looked whether they were handed over at once.
    looked_at_until: HostNs,
    /// I/Os that a worker of the pCPU with the interrupt may have handed over, and that others may have.
    own_count: u64,
    others_count: u64,
}

/// What is known of a handover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// It was.
    HandedOver(Handover),
    /// That will not be known.
    NotTraced,
}

/// What has come to be known of the I/O that was done then.
pub(super) type Known = (HostNs, Progress);

impl Handovers {
    /// Whether there are I/Os that are done and were not seen to be handed over.
    pub(super) fn are_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// An I/O was done; `is_quiet` is whether nobody of the VMM was awake.
    pub(super) fn done(
        &mut self,
        (done, way): (HostNs, Way),
        (pcpu, current): (PcpuId, Tid),
        is_quiet: bool,
    ) -> Option<Known> {
        self.leave(done, pcpu);
        let number = self.next_number;
        self.next_number += 1;
        let worked_from = self.pcpus.get(&pcpu).is_some_and(|of| of.is_on).then_some(done);
        let (is_at_once, is_late) = (true, is_quiet);
        self.open.push_back(Open {
            number,
            done,
            way,
            pcpu,
            current,
            is_at_once,
            is_late,
            is_quiet,
            worked_from,
            from: None,
        });
        let is_full = self.open.len() > OPEN_MAX;
        let gone = if is_full { self.open.pop_front() } else { None };
        gone.map(|gone| (gone.done, Progress::NotTraced))
    }

    /// On this pCPU `waker` wakes `tid`.
    pub(super) fn waking(
        &mut self,
        time: HostNs,
        pcpu: PcpuId,
        tid: (Tid, Role),
        waker: (Tid, Role),
        known: &mut Vec<Known>,
    ) {
        let at_once = self
            .just_done(time)
            .position(|open| open.is_at_once && open.pcpu == pcpu && open.current == waker.0);
        let at_once = at_once.map(|from_last| self.open.len() - 1 - from_last);
        match tid.1 {
            Role::Worker(of) => {
                self.pcpus.entry(of).or_default().wakes(tid.0);
                if let Some(place) = at_once.filter(|_| of == pcpu) {
                    (self.open[place].is_late, self.open[place].is_at_once) = (true, false);
                }
            }
            Role::Vmm => {
                let may_be_own = matches!(waker.1, Role::Vmm | Role::Vcpu);
                let is_unsure = may_be_own && !self.is_idle(pcpu);
                match at_once.filter(|_| !is_unsure).and_then(|place| self.open.remove(place)) {
                    Some(Open { done, way, .. }) => {
                        self.count(way, |counts| &mut counts.at_once);
                        let handover = Handover { from: Some(time), by: time };
                        known.push((done, Progress::HandedOver(handover)));
                    }
                    None => self.by_worker(time, pcpu, waker.1, known),
                }
                self.woken_before = self.next_number;
            }
            Role::Vcpu | Role::OtherWorker | Role::Other => {}
        }
    }

    /// A worker, perhaps, wakes a thread of the VMM. What interrupts it does too, so it is not known that this is for an
    /// I/O; but if none has been handed over since it was done, then none before this.
    fn by_worker(&mut self, time: HostNs, pcpu: PcpuId, waker: Role, known: &mut Vec<Known>) {
        match waker {
            Role::Worker(of) if of == pcpu => {
                let of_pcpu = self.open.iter_mut().filter(|open| open.pcpu == pcpu);
                for open in of_pcpu.filter(|open| open.from.is_none()) {
                    open.from = open.earliest(time, self.woken_before);
                    self.own_count += u64::from(open.from.is_some());
                }
                // Else it is known better when the worker is idle.
                if self.pcpus.get(&pcpu).is_none_or(|of| !of.is_on) {
                    self.by_only_one(time, known);
                }
            }
            Role::Worker(_) | Role::OtherWorker => {
                let since = self.open.iter().rev();
                let mut since = since.take_while(|open| open.number >= self.woken_before);
                let is_its = since.any(|open| open.is_late && open.is_quiet);
                self.others_count += u64::from(is_its);
                if !self.are_own() {
                    self.by_only_one(time, known);
                }
            }
            Role::Vmm | Role::Vcpu | Role::Other => {}
        }
    }

    /// With more than one it may be any's.
    fn by_only_one(&mut self, time: HostNs, known: &mut Vec<Known>) {
        if self.open.len() == 1
            && let Some(open) = self.open.pop_front()
        {
            let is_quiet = open.is_quiet_since(self.woken_before);
            let quiet = (open.is_late && is_quiet).then_some(time);
            let from = open.from.or(quiet);
            known.push((open.done, Progress::HandedOver(Handover { from, by: time })));
        }
    }

    /// Whether it is workers of the pCPUs with the disks' interrupts that hand over.
    fn are_own(&self) -> bool {
        self.own_count > self.others_count
    }

    /// This pCPU has another thread; `roles` are of the one that left and of the one that came.
    pub(super) fn switched(
        &mut self,
        time: HostNs,
        pcpu: PcpuId,
        switch: &Switch,
        roles: [Role; 2],
        known: &mut Vec<Known>,
    ) {
        self.leave(time, pcpu);
        let mut is_over = switch.next == Tid::IDLE;
        if let Role::Worker(of) = roles[0] {
            // A new one may be elsewhere at first.
            let workers = self.pcpus.entry(of).or_default();
            is_over |= workers.left(switch.prev, switch.prev_state) && of == pcpu;
        }
        if is_over && self.is_idle(pcpu) && self.are_own() {
            self.open.retain(|open| {
                let is_over = open.pcpu == pcpu && open.done < time;
                if is_over {
                    // Between its end and a worker's first run nobody was there to hand it over.
                    let from = open.from.or(open.worked_from.filter(|_| open.is_late));
                    known.push((open.done, Progress::HandedOver(Handover { from, by: time })));
                }
                !is_over
            });
        }
        if roles[1] == Role::Worker(pcpu) {
            let workers = self.pcpus.entry(pcpu).or_default();
            workers.wakes(switch.next);
            workers.is_on = true;
            // Where a worker was there for one, one was for all that were done before.
            let of_pcpu = self.open.iter_mut().rev().filter(|open| open.pcpu == pcpu);
            for open in of_pcpu.take_while(|open| open.worked_from.is_none()) {
                open.worked_from = Some(time);
            }
        }
    }

    /// Takes that time has come to `now`: what can have been handed over at once was.
    pub(super) fn advance(&mut self, now: HostNs, known: &mut Vec<Known>) {
        let until = HostNs(now.0.saturating_sub(AT_ONCE_NS));
        let from = std::mem::replace(&mut self.looked_at_until, until);
        for place in (0..self.open.len()).rev() {
            let Open { done, way, is_late, .. } = self.open[place];
            if done < from {
                break;
            }
            if done >= until {
                continue;
            }
            if is_late {
                self.count(way, |counts| &mut counts.by_worker);
            } else if self.goes_at_once(way) && self.open.remove(place).is_some() {
                let by = HostNs(done.0.saturating_add(AT_ONCE_NS));
                let handover = Handover { from: Some(done), by };
                known.push((done, Progress::HandedOver(handover)));
            }
        }
        self.give_up(now, known);
    }

    /// As if it had been seen.
    #[cfg(test)]
    pub(super) fn all_go_at_once(&mut self, way: Way) {
        self.ways.insert(way, Counts { at_once: ENOUGH, by_worker: 0 });
    }

    /// As if a worker of the pCPU with the interrupt had been seen to hand over.
    #[cfg(test)]
    pub(super) fn own_workers_hand_over(&mut self) {
        self.own_count = 1;
    }

    fn count(&mut self, way: Way, of: impl FnOnce(&mut Counts) -> &mut u64) {
        if self.ways.len() < WAYS_MAX || self.ways.contains_key(&way) {
            let count = of(self.ways.entry(way).or_default());
            *count = count.saturating_add(1);
        }
    }

    fn goes_at_once(&self, way: Way) -> bool {
        let is_so = |counts: &Counts| counts.at_once >= ENOUGH && counts.by_worker == 0;
        self.ways.get(&way).is_some_and(is_so)
    }

    /// Those of which nothing will be known any more.
    fn give_up(&mut self, now: HostNs, known: &mut Vec<Known>) {
        let is_old = |open: &mut Open| now.since_ns(open.done) > GIVEN_UP_AFTER_NS;
        while let Some(open) = self.open.pop_front_if(is_old) {
            known.push((open.done, Progress::NotTraced));
        }
    }

    /// Events were lost: nothing is known of what was under way.
    pub(super) fn lost(&mut self) {
        (self.open, self.pcpus) = Default::default();
    }

    /// Whether no worker of this pCPU has anything to do, as far as they were seen.
    fn is_idle(&self, pcpu: PcpuId) -> bool {
        let workers = self.pcpus.get(&pcpu);
        workers.is_none_or(|of| of.awake.is_empty() && of.blocked.is_empty())
    }

    /// The last ones, from the end, of which an interrupt may still wake somebody at once.
    fn just_done(&self, time: HostNs) -> impl Iterator<Item = &Open> {
        self.open.iter().rev().take_while(move |open| time.since_ns(open.done) <= AT_ONCE_NS)
    }

    /// What interrupted this pCPU is over, or another interrupt follows.
    fn leave(&mut self, time: HostNs, pcpu: PcpuId) {
        let mut just_done =
            self.open.iter_mut().rev().take_while(|open| time.since_ns(open.done) <= AT_ONCE_NS);
        if let Some(last) = just_done.find(|open| open.pcpu == pcpu) {
            last.is_at_once = false;
        }
    }
}

impl Workers {
    fn wakes(&mut self, tid: Tid) {
        self.blocked.remove(&tid);
        self.awake.insert(tid);
    }

    /// Whether it went to sleep as one that has nothing to do: `TASK_IDLE` (since linux 4.14), which is reported by a bit
    /// of its own.
    fn left(&mut self, tid: Tid, state: PrevState) -> bool {
        self.is_on = false;
        match state {
            PrevState::Runnable | PrevState::RunnablePreempted => return false,
            PrevState::Sleep | PrevState::DiskSleep | PrevState::Stopped => {
                self.awake.remove(&tid);
                if self.blocked.len() < BLOCKED_MAX {
                    self.blocked.insert(tid);
                }
                return false;
            }
            PrevState::Dead => {
                self.awake.remove(&tid);
                return false;
            }
            PrevState::Other(_) => {}
        }
        self.awake.remove(&tid);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PCPU: PcpuId = PcpuId(1);
    const STRANGER: (Tid, Role) = (Tid(90), Role::Other);
    const WORKER: (Tid, Role) = (Tid(91), Role::Worker(PCPU));
    const SECOND: (Tid, Role) = (Tid(92), Role::Worker(PCPU));
    const VCPU: (Tid, Role) = (Tid(93), Role::Vcpu);
    const MAIN_LOOP: (Tid, Role) = (Tid(10), Role::Vmm);
    const IDLE: PrevState = PrevState::Other(0x80);
    const READ: Way = Way { device: 7, is_read: true };

    /// All that happens on one pCPU, with what comes to be known.
    #[derive(Default)]
    struct Seen(Handovers, Vec<Known>);

    impl Seen {
        fn done(&mut self, us: u64, current: (Tid, Role), is_quiet: bool) {
            let done = HostNs(us * 1000);
            self.1.extend(self.0.done((done, READ), (PCPU, current.0), is_quiet));
        }

        fn wake(&mut self, us: u64, tid: (Tid, Role), waker: (Tid, Role)) {
            self.0.waking(HostNs(us * 1000), PCPU, tid, waker, &mut self.1);
        }

        fn switch(&mut self, us: u64, prev: (Tid, Role), state: PrevState, next: (Tid, Role)) {
            let switch = Switch::new(prev.0, state, next.0);
            let roles = [prev.1, next.1];
            self.0.switched(HostNs(us * 1000), PCPU, &switch, roles, &mut self.1);
        }

        /// The worker works for so long and wakes the main loop at its beginning.
        fn work(&mut self, us: u64, for_us: u64) {
            self.switch(us, STRANGER, PrevState::Runnable, WORKER);
            self.wake(us + 1, MAIN_LOOP, WORKER);
            self.switch(us + for_us, WORKER, IDLE, STRANGER);
        }

        /// From and by, in microseconds, of what is known of the one that was done then.
        fn of(&self, us: u64) -> Option<(Option<u64>, u64)> {
            self.1.iter().find_map(|(done, progress)| match progress {
                Progress::HandedOver(Handover { from, by }) if done.0 == us * 1000 => {
                    Some((from.map(|from| from.0 / 1000), by.0 / 1000))
                }
                _ => None,
            })
        }
    }

    #[test]
    fn the_interrupt_wakes_the_vmm_or_a_worker_that_does_it_later() {
        let mut seen = Seen::default();
        seen.done(100, STRANGER, true);
        seen.wake(103, MAIN_LOOP, STRANGER);
        assert_eq!(seen.of(100), Some((Some(103), 103)));
        seen.done(200, STRANGER, true);
        seen.wake(201, WORKER, STRANGER);
        // Something else wakes the main loop, also whom the interrupt came to.
        seen.wake(204, MAIN_LOOP, STRANGER);
        seen.wake(300, MAIN_LOOP, VCPU);
        assert_eq!(seen.of(200), None);
        seen.work(900, 5);
        assert_eq!(seen.of(200), Some((Some(900), 905)));
    }

    #[test]
    fn a_wake_long_after_the_interrupt_or_by_another_is_not_the_interrupts() {
        for (us, waker) in [(121, STRANGER), (103, VCPU)] {
            let mut seen = Seen::default();
            seen.done(100, STRANGER, true);
            seen.wake(us, MAIN_LOOP, waker);
            assert_eq!(seen.of(100), None, "{us} {waker:?}");
        }
        let mut seen = Seen::default();
        seen.done(100, STRANGER, true);
        seen.switch(101, STRANGER, PrevState::Runnable, STRANGER);
        seen.wake(103, MAIN_LOOP, STRANGER);
        assert_eq!(seen.of(100), None, "it came back");
        // The VMM's own thread may wake another while the worker has the I/O.
        let mut seen = Seen::default();
        seen.wake(90, WORKER, STRANGER);
        seen.done(100, VCPU, true);
        seen.wake(103, MAIN_LOOP, VCPU);
        assert_eq!(seen.of(100), None);
    }

    #[test]
    fn once_the_worker_is_idle_all_is_handed_over_unless_another_is_in_the_middle_of_its_work() {
        let mut seen = Seen::default();
        for us in [100, 110, 120] {
            seen.done(us, STRANGER, us == 100);
        }
        seen.work(900, 20);
        let of_first = Some((Some(901), 920));
        let of_others = Some((None, 920));
        assert_eq!([100, 110, 120].map(|us| seen.of(us)), [of_first, of_others, of_others]);
        seen.done(1000, STRANGER, true);
        seen.switch(1100, STRANGER, PrevState::Runnable, WORKER);
        seen.switch(1110, WORKER, PrevState::DiskSleep, SECOND);
        seen.switch(1120, SECOND, IDLE, STRANGER);
        assert_eq!(seen.of(1000), None);
        seen.work(1200, 7);
        assert_eq!(seen.of(1000), Some((Some(1201), 1207)));
        // Whoever comes on where nobody else wants to, nothing is left to do.
        seen.done(1300, STRANGER, false);
        seen.switch(1350, STRANGER, PrevState::Sleep, (Tid::IDLE, Role::Other));
        assert_eq!(seen.of(1300), Some((None, 1350)));
    }

    #[test]
    fn a_worker_that_is_preempted_has_not_done() {
        let mut seen = Seen::default();
        seen.done(100, STRANGER, true);
        seen.switch(200, STRANGER, PrevState::Runnable, WORKER);
        seen.wake(201, MAIN_LOOP, WORKER);
        seen.switch(202, WORKER, PrevState::RunnablePreempted, STRANGER);
        assert_eq!(seen.of(100), None);
        seen.switch(5000, STRANGER, PrevState::Runnable, WORKER);
        seen.switch(5003, WORKER, IDLE, STRANGER);
        assert_eq!(seen.of(100), Some((Some(201), 5003)));
    }

    #[test]
    fn workers_of_several_pcpus_are_believed_only_for_one_io_alone() {
        let other = (Tid(95), Role::OtherWorker);
        let mut seen = Seen::default();
        seen.done(100, STRANGER, true);
        seen.wake(150, MAIN_LOOP, other);
        assert_eq!(seen.of(100), Some((Some(150), 150)));
        seen.done(200, STRANGER, true);
        seen.done(210, STRANGER, true);
        seen.wake(250, MAIN_LOOP, other);
        seen.switch(300, WORKER, IDLE, STRANGER);
        assert_eq!((seen.of(200), seen.of(210)), (None, None));
    }

    #[test]
    fn what_always_went_at_once_does_so_when_nobody_is_woken() {
        let mut seen = Seen::default();
        for io in 1..=ENOUGH {
            seen.done(io * 100, STRANGER, true);
            seen.wake(io * 100 + 2, MAIN_LOOP, STRANGER);
            if io == ENOUGH - 1 {
                seen.done(5_000, STRANGER, false);
                seen.0.advance(HostNs(6_000_000), &mut seen.1);
                seen.0.open.clear();
            }
        }
        assert_eq!(seen.of(5_000), None, "too few to say");
        seen.done(7_000, STRANGER, false);
        seen.0.advance(HostNs(7_010_000), &mut seen.1);
        assert_eq!(seen.of(7_000), None, "it may still come");
        seen.0.advance(HostNs(7_050_000), &mut seen.1);
        assert_eq!(seen.of(7_000), Some((Some(7_000), 7_020)));
        seen.done(8_000, STRANGER, true);
        seen.wake(8_001, WORKER, STRANGER);
        seen.0.advance(HostNs(8_050_000), &mut seen.1);
        seen.done(9_000, STRANGER, false);
        seen.0.advance(HostNs(9_050_000), &mut seen.1);
        assert_eq!(seen.of(9_000), None, "one went by a worker");
    }

    #[test]
    fn what_is_never_seen_or_too_much_is_not_traced() {
        let mut seen = Seen::default();
        (0..=OPEN_MAX as u64).for_each(|us| seen.done(us, STRANGER, false));
        assert_eq!(seen.1, [(HostNs(0), Progress::NotTraced)]);
        seen.0.advance(HostNs(GIVEN_UP_AFTER_NS + 5_001), &mut seen.1);
        assert_eq!(seen.1.len(), 6);
        seen.0.lost();
        assert!(seen.0.open.is_empty());
    }

    #[test]
    fn a_worker_is_known_by_its_name() {
        let of = Role::of_kernel_thread;
        assert_eq!(of("kworker/1:0"), Role::Worker(PcpuId(1)));
        assert_eq!(of("kworker/12:345"), Role::Worker(PcpuId(12)));
        for other in
            ["kworker/1:0H", "kworker/u8:2", "kworker/R-dio/vda", "kworker/", "kworker/:1x"]
        {
            assert_eq!(of(other), Role::OtherWorker, "{other}");
        }
        assert_eq!(of("ksoftirqd/1"), Role::Other);
    }
}
