//! Which vCPU a VMM's own threads have interrupted, and which of these interrupts are those of its disks.
//!
//! KVM tells vCPU and vector of each interrupt, and not which device sends it. Linux gives each vector of each vCPU to one
//! device (`assign_irq_vector`, arch/x86/kernel/apic/vector.c), so the two together are a *route*, and a route is a
//! disk's by what it does: its interrupts come while the VMM tells of I/O that is done, many times as often as in
//! other time. Those of another device that knows nothing of the I/O come in both alike.

use crate::units::HostNs;
use std::collections::{BTreeMap, VecDeque};

/// Interrupts that are kept at most.
const KEPT_MAX: usize = 1 << 14;
/// Routes that are told apart at most: more than a guest has vectors for its devices on some vCPUs.
const ROUTES_MAX: usize = 4096;
/// Interrupts of a route while I/O was told of until it may be a disk's.
const FEW: u64 = 32;
/// How many times as often as in other time they come then.
const FACTOR: u128 = 16;

/// One interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Interrupt {
    pub(super) time: HostNs,
    /// KVM's number of the vCPU.
    pub(super) vcpu: u32,
    pub(super) vector: u8,
}

/// How often interrupts of a route came.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    while_told: u64,
    otherwise: u64,
}

/// The interrupts of one VM, in order of time.
#[derive(Debug)]
pub(super) struct Interrupts {
    kept: VecDeque<Interrupt>,
    /// From here on none is missing.
    complete_from: HostNs,
    routes: BTreeMap<(u32, u8), Counts>,
    /// Up to here they are counted.
    counted_until: HostNs,
    /// For how long I/O was told of until then, and for how long not.
    told_ns: u64,
    other_ns: u64,
}

impl Interrupts {
    pub(super) fn new(start: HostNs) -> Interrupts {
        Interrupts {
            kept: VecDeque::new(),
            complete_from: start,
            routes: BTreeMap::new(),
            counted_until: start,
            told_ns: 0,
            other_ns: 0,
        }
    }

    pub(super) fn push(&mut self, interrupt: Interrupt) {
        self.kept.push_back(interrupt);
        if self.kept.len() > KEPT_MAX
            && let Some(gone) = self.kept.pop_front()
        {
            self.complete_from = HostNs(gone.time.0.saturating_add(1));
            // Not the other way round, or a route would seem to be a disk's that is none.
            if gone.time > self.counted_until
                && let Some(counts) = self.counts_of(gone)
            {
                counts.otherwise = counts.otherwise.saturating_add(1);
            }
        }
    }

    /// Some may have been missed until then.
    pub(super) fn lost(&mut self, until: HostNs) {
        self.complete_from = self.complete_from.max(until);
    }

    /// The only interrupt from `done` to `told_by`, if it is a disk's.
    pub(super) fn only_of_disk(&self, done: HostNs, told_by: HostNs) -> Option<Interrupt> {
        let is_between = |interrupt: &&Interrupt| (done..=told_by).contains(&interrupt.time);
        let mut between = self.kept.iter().filter(is_between);
        let only = *between.next().filter(|_| done >= self.complete_from)?;
        (between.next().is_none() && self.is_disks(&only)).then_some(only)
    }

    /// Whether its route is a disk's, by what it did until now.
    fn is_disks(&self, interrupt: &Interrupt) -> bool {
        let Some(counts) = self.routes.get(&(interrupt.vcpu, interrupt.vector)) else {
            return false;
        };
        // As rates, and as if there had been one more in other time: who was never seen there may come yet.
        let told = u128::from(counts.while_told) * u128::from(self.other_ns);
        let other = (u128::from(counts.otherwise) + 1) * u128::from(self.told_ns);
        counts.while_told >= FEW && told >= FACTOR * other
    }

    /// From `done` to `told_by` I/O was told of; these come in order of `done`. Counts what came until then.
    pub(super) fn count(&mut self, done: HostNs, told_by: HostNs) {
        let from = done.max(self.counted_until);
        let until = told_by.max(from);
        self.other_ns = self.other_ns.saturating_add(from.since_ns(self.counted_until));
        self.told_ns = self.told_ns.saturating_add(until.since_ns(from));
        let counted_until = self.counted_until;
        let is_new = |it: &&Interrupt| it.time > counted_until && it.time <= until;
        let new: Vec<Interrupt> = self.kept.iter().filter(is_new).copied().collect();
        for interrupt in new {
            let Some(counts) = self.counts_of(interrupt) else { continue };
            let place =
                if interrupt.time >= from { &mut counts.while_told } else { &mut counts.otherwise };
            *place = place.saturating_add(1);
        }
        self.counted_until = until;
    }

    /// Those of its route, if there is room for one more.
    fn counts_of(&mut self, interrupt: Interrupt) -> Option<&mut Counts> {
        let route = (interrupt.vcpu, interrupt.vector);
        let has_room = self.routes.len() < ROUTES_MAX || self.routes.contains_key(&route);
        has_room.then(|| self.routes.entry(route).or_default())
    }

    /// Lets go of what came before `time`, as far as it is counted.
    pub(super) fn forget_before(&mut self, time: HostNs) {
        let counted_until = self.counted_until;
        while self.kept.front().is_some_and(|it| it.time < time && it.time <= counted_until) {
            self.kept.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every millisecond an I/O is told of for 50 us, with an interrupt of the disk in it, and every `other_us`
    /// one of another device.
    fn after(ios: u64, other_us: u64) -> Interrupts {
        let mut interrupts = Interrupts::new(HostNs(0));
        let mut push = |ns: u64, vcpu, vector| {
            interrupts.push(Interrupt { time: HostNs(ns), vcpu, vector });
        };
        let own = (1..=ios).map(|io| (io * 1_000_000 + 20_000, 1, 40));
        let others = (1..=ios * 1000 / other_us).map(|at| (at * other_us * 1000 + 7, 2, 50));
        let mut all: Vec<_> = own.chain(others).collect();
        all.sort_unstable();
        all.into_iter().for_each(|(ns, vcpu, vector)| push(ns, vcpu, vector));
        for io in 1..=ios {
            interrupts.count(HostNs(io * 1_000_000), HostNs(io * 1_000_000 + 50_000));
        }
        interrupts
    }

    fn only(interrupts: &mut Interrupts, vcpu: u32, vector: u8) -> bool {
        let time = HostNs(1 << 40);
        interrupts.push(Interrupt { time, vcpu, vector });
        interrupts.only_of_disk(time, HostNs(time.0 + 1)).is_some()
    }

    #[test]
    fn a_route_is_a_disks_by_when_its_interrupts_come() {
        assert!(only(&mut after(40, 900), 1, 40));
        assert!(!only(&mut after(FEW - 1, 900), 1, 40), "too few to say");
        // Of 4000 interrupts of the other device some 200 come while I/O is told of, by chance.
        assert!(!only(&mut after(400, 100), 2, 50), "it comes at all times");
        assert!(!only(&mut after(40, 900), 1, 41), "another vector");
    }

    #[test]
    fn where_io_is_told_of_all_the_time_nothing_is_known() {
        let mut interrupts = Interrupts::new(HostNs(0));
        for io in 1..200_u64 {
            let time = HostNs(io * 1000);
            interrupts.push(Interrupt { time, vcpu: 0, vector: 40 });
            interrupts.count(time, HostNs(time.0 + 990));
        }
        assert!(!only(&mut interrupts, 0, 40));
    }

    #[test]
    fn one_of_two_interrupts_and_what_may_be_missing_is_none() {
        let mut interrupts = after(40, 900);
        let (first, second) = (HostNs(1 << 40), HostNs((1 << 40) + 10));
        interrupts.push(Interrupt { time: first, vcpu: 1, vector: 40 });
        let until = HostNs(second.0 + 1);
        assert_eq!(interrupts.only_of_disk(first, until).map(|it| it.vcpu), Some(1));
        assert_eq!(interrupts.only_of_disk(second, until), None, "it came before");
        interrupts.push(Interrupt { time: second, vcpu: 1, vector: 40 });
        assert_eq!(interrupts.only_of_disk(first, until), None);
        interrupts.lost(second);
        assert_eq!(interrupts.only_of_disk(first, until), None);
        assert!(interrupts.only_of_disk(second, until).is_some());
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_did_not_fit_is_missing() {
        let mut interrupts = after(40, 900);
        for at in 0..2 * KEPT_MAX as u64 {
            interrupts.push(Interrupt { time: HostNs((1 << 40) + at), vcpu: 1, vector: 40 });
        }
        assert_eq!(interrupts.kept.len(), KEPT_MAX);
        assert_eq!(interrupts.only_of_disk(HostNs(1 << 40), HostNs(1 << 40)), None);
        interrupts.count(HostNs(1 << 41), HostNs(1 << 41));
        let counts = interrupts.routes[&(1, 40)];
        assert_eq!(
            (counts.while_told, counts.otherwise),
            (40, 2 * KEPT_MAX as u64),
            "none is left out"
        );
        interrupts.forget_before(HostNs(1 << 41));
        assert!(interrupts.kept.is_empty());
    }
}
