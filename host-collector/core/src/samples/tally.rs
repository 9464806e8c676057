//! All looks -> what each thread did, in shares. Pure.

use super::evidence::{Doing, FUTEX, IOCTL};
use super::interval::wilson_95;
use super::item::{Call, Look, SampleItem, Schedstat};
use crate::timeline::futex::FutexWait;
use crate::timeline::{LockFacts, LockUser, Reason};
use crate::units::{HostNs, Tid};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

/// Different looks that are told apart, of all threads of a VM. They have some hundreds; what comes
/// beyond counts as [`Reason::Unknown`].
const LOOKS_MAX: usize = 8192;

/// Adds up the looks at the threads of one VM. Its memory depends on how many things the threads do,
/// not on how often they were looked at.
#[derive(Debug)]
pub struct Tally {
    start: HostNs,
    end: HostNs,
    /// How often a thread was seen like this; [`Look::time`] is 0, and so are arguments that prove
    /// nothing.
    looks: HashMap<Look, u64>,
    beyond: BTreeMap<Tid, u64>,
    /// Of each thread, what was read closest to the start and to the end.
    schedstats: BTreeMap<Tid, (Schedstat, Schedstat)>,
    gaps: Gaps,
}

/// Looks that were not taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gaps {
    /// In how many stretches of time.
    pub count: u64,
    /// Rounds of looks that were due in them.
    pub rounds_count: u64,
    /// Their total length.
    pub total_ns: u64,
}

/// What one thread was seen to do.
#[derive(Debug, Clone, PartialEq)]
pub struct ThreadShares {
    /// The thread.
    pub tid: Tid,
    /// How often it was looked at.
    pub looks_count: u64,
    /// What it did, the largest share first; they add up to 1.
    pub shares: Vec<Share>,
}

/// How much of its time a thread did one thing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// What.
    pub doing: Doing,
    /// The lock that it slept on, if that is what it did and the address was shown.
    pub lock: Option<u64>,
    /// Looks that showed it.
    pub hits_count: u64,
    /// Their share of all looks at the thread, in [0, 1].
    pub share: f64,
    /// The 95 % interval of the share, see [`wilson_95`].
    pub interval: (f64, f64),
}

/// How a thread was scheduled between two reads of its totals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheduled {
    /// The thread.
    pub tid: Tid,
    /// Time between the reads.
    pub observed_ns: u64,
    /// Of it, time on a pCPU.
    pub on_pcpu_ns: u64,
    /// Time spent waiting for one.
    pub run_delay_ns: u64,
    /// Timeslices begun.
    pub timeslices_count: u64,
}

impl Tally {
    /// Of the looks from `start` to `end`.
    #[must_use]
    pub fn new(start: HostNs, end: HostNs) -> Tally {
        Tally {
            start,
            end,
            looks: HashMap::new(),
            beyond: BTreeMap::new(),
            schedstats: BTreeMap::new(),
            gaps: Gaps::default(),
        }
    }

    /// Takes the next item of the VM's stream.
    pub fn push(&mut self, item: SampleItem) {
        let is_within = (self.start..=self.end).contains(&item.time());
        match item {
            SampleItem::Look(look) if is_within => self.look(look),
            SampleItem::Look(_) => {}
            SampleItem::Schedstat(read) => self.schedstat(read),
            SampleItem::Gap { time, until, rounds_count } if is_within => {
                self.gaps.count += 1;
                self.gaps.rounds_count = self.gaps.rounds_count.saturating_add(rounds_count);
                self.gaps.total_ns = self.gaps.total_ns.saturating_add(until.since_ns(time));
            }
            SampleItem::Gap { .. } => {}
        }
    }

    fn look(&mut self, look: Look) {
        let call = match look.call {
            // The descriptor and the pointer say nothing.
            Call::In { number: IOCTL, args: [_, command, _] } => {
                Call::In { number: IOCTL, args: [0, command, 0] }
            }
            Call::In { number, .. } if number != FUTEX => Call::In { number, args: [0; 3] },
            call => call,
        };
        let kind = Look { time: HostNs(0), call, ..look };
        if self.looks.len() >= LOOKS_MAX && !self.looks.contains_key(&kind) {
            *self.beyond.entry(kind.tid).or_default() += 1;
        } else {
            *self.looks.entry(kind).or_default() += 1;
        }
    }

    fn schedstat(&mut self, read: Schedstat) {
        let (first, last) = self.schedstats.entry(read.tid).or_insert((read, read));
        if read.time.0.abs_diff(self.start.0) < first.time.0.abs_diff(self.start.0) {
            *first = read;
        }
        if read.time.0.abs_diff(self.end.0) <= last.time.0.abs_diff(self.end.0) {
            *last = read;
        }
    }

    /// Looks that were not taken.
    #[must_use]
    pub fn gaps(&self) -> Gaps {
        self.gaps
    }

    /// How each thread was scheduled, by its tid.
    #[must_use]
    pub fn scheduled(&self) -> Vec<Scheduled> {
        let rows = self.schedstats.iter().map(|(tid, (first, last))| Scheduled {
            tid: *tid,
            observed_ns: last.time.since_ns(first.time),
            on_pcpu_ns: last.on_pcpu_ns.saturating_sub(first.on_pcpu_ns),
            run_delay_ns: last.run_delay_ns.saturating_sub(first.run_delay_ns),
            timeslices_count: last.timeslices_count.saturating_sub(first.timeslices_count),
        });
        rows.collect()
    }

    /// What each thread did, by its tid, from what is known of the locks of its VMM; `user` says
    /// what a thread is in it.
    #[must_use]
    pub fn shares(&self, facts: &LockFacts, user: impl Fn(Tid) -> LockUser) -> Vec<ThreadShares> {
        let users = self.users_of_locks(facts, &user);
        let mut hits: BTreeMap<Tid, BTreeMap<(Doing, Option<u64>), u64>> = BTreeMap::new();
        for (look, count) in &self.looks {
            let futex = look.futex();
            let is_shared = futex
                .is_some_and(|call| users.get(&call.address).is_some_and(|bits| is_shared(*bits)));
            let doing = look.doing(facts, user(look.tid), is_shared);
            let is_lock = matches!(doing, Doing::Off(reason) if reason.is_lock());
            let lock = futex.filter(|_| is_lock).map(|call| call.address);
            *hits.entry(look.tid).or_default().entry((doing, lock)).or_default() += count;
        }
        for (tid, count) in &self.beyond {
            let unknown = (Doing::Off(Reason::Unknown), None);
            *hits.entry(*tid).or_default().entry(unknown).or_default() += count;
        }
        hits.into_iter().map(|(tid, hits)| thread_shares(tid, hits)).collect()
    }

    /// Which roles wait for a lock that may be the big one, as bits.
    fn users_of_locks(
        &self,
        facts: &LockFacts,
        user: impl Fn(Tid) -> LockUser,
    ) -> HashMap<u64, u8> {
        let mut users: HashMap<u64, u8> = HashMap::new();
        for look in self.looks.keys() {
            if let Some(call) = look.futex()
                && call.wait(facts) == FutexWait::StaticMutex
            {
                *users.entry(call.address).or_default() |= 1 << user(look.tid) as u8;
            }
        }
        users
    }
}

fn is_shared(bits: u8) -> bool {
    bits.count_ones() > 1
}

fn thread_shares(tid: Tid, hits: BTreeMap<(Doing, Option<u64>), u64>) -> ThreadShares {
    let looks_count = hits.values().sum();
    let share = |((doing, lock), hits_count): ((Doing, Option<u64>), u64)| Share {
        doing,
        lock,
        hits_count,
        share: hits_count as f64 / looks_count as f64,
        interval: wilson_95(hits_count, looks_count),
    };
    let mut shares: Vec<Share> = hits.into_iter().map(share).collect();
    shares.sort_by_key(|share| Reverse(share.hits_count));
    ThreadShares { tid, looks_count, shares }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::{GuestMode, Vmm};
    use proptest::prelude::*;

    const BQL: u64 = 0x560c_9484_9b40;
    const VCPU: Tid = Tid(2);
    const MAIN: Tid = Tid(1);

    fn facts() -> LockFacts {
        let exe_data = Some((0x560c_9400_0000, 0x560c_9500_0000));
        LockFacts {
            vmm: Vmm::Qemu,
            mode: Some(GuestMode::Tcg),
            bql: Some(BQL),
            exe_data,
            ..LockFacts::default()
        }
    }

    fn user(tid: Tid) -> LockUser {
        if tid == MAIN { LockUser::MainLoop } else { LockUser::Vcpu }
    }

    fn look(ms: u64, tid: Tid, call: Call) -> SampleItem {
        let is_running = call == Call::Running;
        SampleItem::Look(Look {
            time: HostNs(ms * 1_000_000),
            tid,
            call,
            state: (!is_running).then_some(b'S'),
            wchan: (!is_running).then(|| "futex_do_wait".into()),
        })
    }

    fn futex(address: u64, value: u64) -> Call {
        Call::In { number: FUTEX, args: [address, 0x80, value] }
    }

    fn tally(items: impl IntoIterator<Item = SampleItem>) -> Tally {
        let mut tally = Tally::new(HostNs(0), HostNs(1_000_000_000));
        items.into_iter().for_each(|item| tally.push(item));
        tally
    }

    /// Of ten looks six on the lock, three runnable, one on the condition.
    #[test]
    fn drawn_looks_come_back_as_shares() {
        let calls = [futex(BQL, 2); 6]
            .into_iter()
            .chain([Call::Running; 3])
            .chain([Call::In { number: FUTEX, args: [0x7f00, 0x189, 0] }]);
        let looks = calls.enumerate().map(|(ms, call)| look(ms as u64, VCPU, call));
        let shares = tally(looks).shares(&facts(), user);
        let rows: Vec<_> =
            shares[0].shares.iter().map(|row| (row.doing, row.lock, row.hits_count)).collect();
        assert_eq!((shares.len(), shares[0].tid, shares[0].looks_count), (1, VCPU, 10));
        assert_eq!(
            rows,
            [
                (Doing::Off(Reason::Bql), Some(BQL), 6),
                (Doing::Runnable, None, 3),
                (Doing::Off(Reason::HaltUser), None, 1),
            ]
        );
        assert!((shares[0].shares[0].share - 0.6).abs() < 1e-12);
        assert_eq!(shares[0].shares[0].interval, wilson_95(6, 10));
    }

    #[test]
    fn a_lock_of_unknown_address_is_the_big_one_if_threads_of_two_roles_wait_for_it() {
        let unknown = LockFacts { bql: None, ..facts() };
        let alone = [look(1, VCPU, futex(BQL, 2)), look(2, VCPU, futex(BQL, 2))];
        let both = [look(1, VCPU, futex(BQL, 2)), look(2, MAIN, futex(BQL, 2))];
        let reason = |items| tally(items).shares(&unknown, user).pop().unwrap().shares[0].doing;
        assert_eq!(reason(alone), Doing::Off(Reason::QemuLock));
        assert_eq!(reason(both), Doing::Off(Reason::BqlInferred));
    }

    #[test]
    fn what_lies_outside_the_window_does_not_count() {
        let gap = |ms: u64| SampleItem::Gap {
            time: HostNs(ms * 1_000_000),
            until: HostNs((ms + 5) * 1_000_000),
            rounds_count: 4,
        };
        let items = [look(500, VCPU, Call::Running), look(1001, VCPU, Call::Running)];
        let tally = tally(items.into_iter().chain([gap(10), gap(2000)]));
        assert_eq!(tally.shares(&facts(), user)[0].looks_count, 1);
        assert_eq!(tally.gaps(), Gaps { count: 1, rounds_count: 4, total_ns: 5_000_000 });
    }

    #[test]
    fn totals_are_taken_where_they_are_closest_to_the_window() {
        let read = |ms: u64, on_pcpu_ns| {
            SampleItem::Schedstat(Schedstat {
                time: HostNs(ms * 1_000_000),
                tid: VCPU,
                on_pcpu_ns,
                run_delay_ns: on_pcpu_ns / 2,
                timeslices_count: on_pcpu_ns / 10,
            })
        };
        let mut tally = Tally::new(HostNs(100_000_000), HostNs(900_000_000));
        [read(0, 0), read(90, 100), read(500, 500), read(910, 900), read(1500, 5000)]
            .into_iter()
            .for_each(|item| tally.push(item));
        let expected = Scheduled {
            tid: VCPU,
            observed_ns: 820_000_000,
            on_pcpu_ns: 800,
            run_delay_ns: 400,
            timeslices_count: 80,
        };
        assert_eq!(tally.scheduled(), [expected]);
    }

    #[test]
    fn what_is_beyond_the_limit_is_unknown_and_counted() {
        let looks = (0..LOOKS_MAX as u64 + 5).map(|at| look(1, VCPU, futex(at * 8, 2)));
        let shares = tally(looks).shares(&facts(), user);
        let unknown = shares[0].shares.iter().find(|row| row.doing == Doing::Off(Reason::Unknown));
        assert_eq!(shares[0].looks_count, LOOKS_MAX as u64 + 5);
        assert_eq!(unknown.unwrap().hits_count, 5);
    }

    proptest! {
        #[test]
        fn shares_add_up_and_hold_their_intervals(
            calls in prop::collection::vec((0_u32..4, 0_u64..5, 0_u64..4), 1..200),
        ) {
            let looks = calls.iter().map(|(tid, at, value)| match at {
                0 => look(1, Tid(*tid), Call::Running),
                at => look(1, Tid(*tid), futex(*at * 8, *value)),
            });
            let all = tally(looks).shares(&facts(), user);
            prop_assert_eq!(all.iter().map(|row| row.looks_count).sum::<u64>(), calls.len() as u64);
            for thread in all {
                let total: f64 = thread.shares.iter().map(|row| row.share).sum();
                prop_assert!((total - 1.0).abs() < 1e-9);
                for row in thread.shares {
                    let (low, high) = row.interval;
                    prop_assert!(low <= row.share && row.share <= high);
                }
            }
        }
    }
}
