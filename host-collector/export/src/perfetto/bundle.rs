//! Scheduling events of one pCPU, as Perfetto's recorder bundles them: columns, and whole events where these cannot say
//! it.

use super::schema;
use super::trace::shown;
use super::wire::Message;
use std::collections::HashMap;
use vslice_core::units::{HostNs, PcpuId, Tid};

/// Events that one bundle has at most.
const EVENTS_MAX: usize = 2_048;

/// Who leaves, and who comes on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    pub(super) time: HostNs,
    pub(super) prev: Tid,
    /// The kernel's bits.
    pub(super) prev_state: i64,
    pub(super) next: Tid,
    pub(super) next_priority: i64,
}

/// A thread that is woken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Woken {
    pub(super) time: HostNs,
    pub(super) tid: Tid,
    pub(super) target: PcpuId,
    pub(super) priority: i64,
}

/// Events that have not been written yet.
#[derive(Debug, Default)]
pub(super) struct Bundle {
    switch_times: Times,
    /// The state of who leaves, who comes on, with which priority, and the place of its name.
    switches: [Vec<u64>; 4],
    waking_times: Times,
    /// Who is woken, for which pCPU, with which priority, and the place of its name.
    wakings: [Vec<u64>; 4],
    /// Events that are written as they are.
    events: Message,
    events_count: usize,
    names: Vec<String>,
    place_of_name: HashMap<String, u64>,
    /// Whether events were lost before the first of these.
    pub(super) is_after_loss: bool,
}

/// Times as what lies between them.
#[derive(Debug, Default)]
struct Times {
    deltas: Vec<u64>,
    last: u64,
}

impl Times {
    fn push(&mut self, time: HostNs) {
        let delta = time.0.saturating_sub(self.last);
        self.last = self.last.max(time.0);
        self.deltas.push(delta);
    }
}

impl Bundle {
    pub(super) fn is_full(&self) -> bool {
        self.switch_times.deltas.len() + self.waking_times.deltas.len() + self.events_count
            >= EVENTS_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.is_after_loss
            && self.switch_times.deltas.is_empty()
            && self.waking_times.deltas.is_empty()
            && self.events_count == 0
    }

    /// A switch away from the thread to which the last one was: a reader takes it for granted.
    pub(super) fn switch(&mut self, change: &Change, next_name: String) {
        self.switch_times.push(change.time);
        let name = self.place_of(next_name);
        let values = [
            change.prev_state.cast_unsigned(),
            change.next.0.into(),
            change.next_priority.cast_unsigned(),
            name,
        ];
        push(&mut self.switches, values);
    }

    /// One that says from whom it is.
    pub(super) fn whole_switch(&mut self, change: &Change, prev_name: &str, next_name: &str) {
        self.event(change.time, change.prev, schema::ftrace::SCHED_SWITCH, |switch| {
            switch.text(schema::ftrace::SWITCH_PREV_COMM, &shown(prev_name));
            switch.uint(schema::ftrace::SWITCH_PREV_PID, change.prev.0.into());
            switch.int(schema::ftrace::SWITCH_PREV_PRIO, super::pcpus::PRIORITY_NOT_RECORDED);
            switch.int(schema::ftrace::SWITCH_PREV_STATE, change.prev_state);
            switch.text(schema::ftrace::SWITCH_NEXT_COMM, &shown(next_name));
            switch.uint(schema::ftrace::SWITCH_NEXT_PID, change.next.0.into());
            switch.int(schema::ftrace::SWITCH_NEXT_PRIO, change.next_priority);
        });
    }

    /// A waking by the thread to which the last switch was.
    pub(super) fn waking(&mut self, woken: &Woken, name: String) {
        self.waking_times.push(woken.time);
        let name = self.place_of(name);
        let values =
            [woken.tid.0.into(), woken.target.0.into(), woken.priority.cast_unsigned(), name];
        push(&mut self.wakings, values);
    }

    /// One that says by whom it is.
    pub(super) fn whole_waking(&mut self, woken: &Woken, name: &str, waker: Tid) {
        self.event(woken.time, waker, schema::ftrace::SCHED_WAKING, |waking| {
            waking.text(schema::ftrace::WAKING_COMM, &shown(name));
            waking.uint(schema::ftrace::WAKING_PID, woken.tid.0.into());
            waking.int(schema::ftrace::WAKING_PRIO, woken.priority);
            waking.uint(schema::ftrace::WAKING_TARGET_CPU, woken.target.0.into());
        });
    }

    /// A birth: from here on the number is another thread's.
    pub(super) fn newborn(&mut self, time: HostNs, parent: Tid, tid: Tid, name: &str, flags: u64) {
        self.event(time, parent, schema::ftrace::TASK_NEWTASK, |newborn| {
            newborn.uint(schema::ftrace::NEWTASK_PID, tid.0.into());
            newborn.text(schema::ftrace::NEWTASK_COMM, &shown(name));
            newborn.uint(schema::ftrace::NEWTASK_CLONE_FLAGS, flags);
        });
    }

    fn event(&mut self, time: HostNs, by: Tid, field: u32, write: impl FnOnce(&mut Message)) {
        self.events_count += 1;
        self.events.message(schema::bundle::EVENT, |event| {
            event.uint(schema::ftrace::TIMESTAMP, time.0);
            event.uint(schema::ftrace::PID, by.0.into());
            event.message(field, write);
        });
    }

    fn place_of(&mut self, name: String) -> u64 {
        let next = self.names.len() as u64;
        *self.place_of_name.entry(name).or_insert_with_key(|name| {
            self.names.push(shown(name));
            next
        })
    }

    /// Writes it as `FtraceEventBundle`.
    pub(super) fn write(&self, pcpu: PcpuId, to: &mut Message) {
        to.uint(schema::bundle::CPU, pcpu.0.into());
        to.uint(schema::bundle::FTRACE_CLOCK, schema::bundle::MONO_RAW);
        if self.is_after_loss {
            to.uint(schema::bundle::LOST_EVENTS, 1);
        }
        to.append(&self.events);
        to.message(schema::bundle::COMPACT_SCHED, |compact| {
            self.names.iter().for_each(|name| compact.text(schema::compact::INTERN_TABLE, name));
            let [states, pids, priorities, names] = &self.switches;
            compact.packed(schema::compact::SWITCH_TIMESTAMP, &self.switch_times.deltas);
            compact.packed(schema::compact::SWITCH_PREV_STATE, states);
            compact.packed(schema::compact::SWITCH_NEXT_PID, pids);
            compact.packed(schema::compact::SWITCH_NEXT_PRIO, priorities);
            compact.packed(schema::compact::SWITCH_NEXT_COMM_INDEX, names);
            let [pids, targets, priorities, names] = &self.wakings;
            compact.packed(schema::compact::WAKING_TIMESTAMP, &self.waking_times.deltas);
            compact.packed(schema::compact::WAKING_PID, pids);
            compact.packed(schema::compact::WAKING_TARGET_CPU, targets);
            compact.packed(schema::compact::WAKING_PRIO, priorities);
            compact.packed(schema::compact::WAKING_COMM_INDEX, names);
        });
    }
}

fn push<const N: usize>(columns: &mut [Vec<u64>; N], values: [u64; N]) {
    columns.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
}
