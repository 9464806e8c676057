//! Which of a QEMU's mutexes is its big lock, where its code does not tell: by what its threads do with it.
//!
//! The main loop holds the big lock but while it waits for events, and vCPUs take it to access devices, so
//! that they sleep on it and wake each other (docs/evidence.md, "QEMU's big lock"). The one mutex among
//! QEMU's own variables with which they do so is *found by behaviour*. A device's own lock, as HPET has one
//! from QEMU 10.2 on, is part of the device, which is on the heap (qemu: hw/timer/hpet.c, `HPETState`).

use super::builder::Watched;
use super::futex::{FutexCall, FutexWait, LockFacts, Vmm};
use super::lock::LockUser;
use super::stack::{Mark, Marks, StackTable};
use crate::host_event::{HostEvent, HostEventKind, Switch};
use crate::units::Tid;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How often vCPUs and main loop must have woken each other, in each direction. A thread that sleeps is also
/// woken by signals, as by a vCPU's kick, which are not told from a lock's release: a few wakings prove
/// nothing.
pub const WAKINGS_MIN: u64 = 10;

/// Mutexes of one VM that are kept; beyond that, no new ones are.
const MUTEXES_MAX: usize = 4096;

/// What the vCPUs and the main loop of one QEMU did with one mutex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LockBehaviour {
    /// Its address.
    pub address: u64,
    /// How often vCPUs went to sleep on it.
    pub vcpu_sleeps: u64,
    /// How often the main loop did.
    pub main_loop_sleeps: u64,
    /// How often the main loop woke a vCPU from it.
    pub vcpus_woken_by_main_loop: u64,
    /// How often a vCPU woke the main loop from it.
    pub main_loop_woken_by_vcpus: u64,
}

impl LockBehaviour {
    /// How often they woke each other, in the direction that was rarer.
    fn wakings(&self) -> u64 {
        self.vcpus_woken_by_main_loop.min(self.main_loop_woken_by_vcpus)
    }
}

/// What a recording shows of the big lock of one QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundLock {
    /// It is this one.
    Found(LockBehaviour),
    /// vCPUs and main loop wake each other from several mutexes.
    Ambiguous {
        /// How many.
        mutexes_count: u64,
    },
    /// They hardly did, or not at all.
    TooFew {
        /// Wakings that there were, in the rarer direction, from the one mutex that they shared.
        wakings_count: u64,
    },
}

/// Looks for the big locks of VMs in the events of a recording, all of them, in order of time.
#[derive(Debug)]
pub struct LockSearch {
    stacks: StackTable,
    vms: Vec<Vm>,
    threads: FxHashMap<Tid, (usize, LockUser)>,
    /// On which mutex threads sleep.
    asleep: FxHashMap<Tid, u64>,
}

#[derive(Debug)]
struct Vm {
    facts: LockFacts,
    mutexes: BTreeMap<u64, LockBehaviour>,
}

impl LockSearch {
    /// Looks at these threads of VMs of which this is known.
    pub fn new(
        watched: impl IntoIterator<Item = Watched>,
        stacks: StackTable,
        vms: impl IntoIterator<Item = LockFacts>,
    ) -> LockSearch {
        let vm = |facts| Vm { facts, mutexes: BTreeMap::new() };
        let threads = watched.into_iter().map(|thread| (thread.tid, (thread.vm, thread.user)));
        LockSearch {
            stacks,
            vms: vms.into_iter().map(vm).collect(),
            threads: threads.collect(),
            asleep: FxHashMap::default(),
        }
    }

    /// Whether there is a VM whose big lock can be found in this way.
    #[must_use]
    pub fn is_needed(&self) -> bool {
        self.vms.iter().any(Vm::is_searched)
    }

    /// Takes the next event.
    pub fn push(&mut self, event: &HostEvent) {
        match event.kind {
            HostEventKind::Switch(switch) => {
                self.asleep.remove(&switch.next);
                self.sleeps(&switch);
            }
            HostEventKind::Waking { tid, waker, .. } => self.woken(tid, waker),
            HostEventKind::Exit { tid } => {
                self.asleep.remove(&tid);
            }
            // Whoever was asleep may have been woken, and may sleep on something else.
            HostEventKind::Lost { .. } => self.asleep.clear(),
            _ => {}
        }
    }

    /// What the events show of each VM; `None` where nothing was looked for.
    #[must_use]
    pub fn finish(&self) -> Vec<Option<FoundLock>> {
        self.vms.iter().map(|vm| vm.is_searched().then(|| vm.found())).collect()
    }

    fn sleeps(&mut self, switch: &Switch) {
        let Some(&(vm, user)) = self.threads.get(&switch.prev) else { return };
        let Some(vm) = self.vms.get_mut(vm) else { return };
        let is_futex = self.stacks.marks(switch.stack);
        let is_futex =
            is_futex.is_some_and(|marks| marks.intersects(Marks::of(&[Mark::FutexSleep])));
        let Some(call) = switch.call_args.filter(|_| is_futex).map(FutexCall::new) else { return };
        // Who is still runnable has been woken already.
        if switch.prev_state.is_runnable() || call.wait(&vm.facts) != FutexWait::StaticMutex {
            return;
        }
        let Some(mutex) = vm.mutex(call.address) else { return };
        match user {
            LockUser::Vcpu => mutex.vcpu_sleeps += 1,
            LockUser::MainLoop => mutex.main_loop_sleeps += 1,
            LockUser::Other => return,
        }
        self.asleep.insert(switch.prev, call.address);
    }

    fn woken(&mut self, tid: Tid, waker: Tid) {
        let Some(address) = self.asleep.remove(&tid) else { return };
        let (Some(&(vm, user)), Some(&(waker_vm, waker_user))) =
            (self.threads.get(&tid), self.threads.get(&waker))
        else {
            return;
        };
        let Some(mutex) = self.vms.get_mut(vm).and_then(|vm| vm.mutex(address)) else { return };
        match (user, waker_user) {
            _ if vm != waker_vm => {}
            (LockUser::Vcpu, LockUser::MainLoop) => mutex.vcpus_woken_by_main_loop += 1,
            (LockUser::MainLoop, LockUser::Vcpu) => mutex.main_loop_woken_by_vcpus += 1,
            _ => {}
        }
    }
}

impl Vm {
    fn is_searched(&self) -> bool {
        let LockFacts { vmm, bql, exe_data, .. } = self.facts;
        vmm == Vmm::Qemu && bql.is_none() && exe_data.is_some()
    }

    fn mutex(&mut self, address: u64) -> Option<&mut LockBehaviour> {
        if self.mutexes.len() >= MUTEXES_MAX && !self.mutexes.contains_key(&address) {
            return None;
        }
        let new = LockBehaviour { address, ..LockBehaviour::default() };
        Some(self.mutexes.entry(address).or_insert(new))
    }

    fn found(&self) -> FoundLock {
        let shared = || self.mutexes.values().filter(|mutex| mutex.wakings() > 0);
        let mutexes_count = shared().count() as u64;
        match shared().next() {
            Some(_) if mutexes_count > 1 => FoundLock::Ambiguous { mutexes_count },
            Some(mutex) if mutex.wakings() >= WAKINGS_MIN => FoundLock::Found(*mutex),
            only => FoundLock::TooFew { wakings_count: only.map_or(0, LockBehaviour::wakings) },
        }
    }
}

#[cfg(test)]
#[path = "behaviour_tests.rs"]
mod tests;
