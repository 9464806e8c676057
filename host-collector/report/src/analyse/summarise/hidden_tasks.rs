//! Tasks that the host's kernel hides from tracing, found in the record itself.
//!
//! There are kernels that trace nothing while certain tasks are current (see `perf::assemble`). Such a task
//! is seen to come onto a pCPU, as whoever gave way to it is, and is never seen to leave: the next switch
//! there begins with somebody else. What interrupts it is hidden as well, a disk's completion among that.

use crate::summary::io::HiddenTask;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeMap;
use vslice_core::host_event::{HostEvent, HostEventKind};
use vslice_core::units::{PcpuId, Tid};

/// Fewer times than this are told of nobody: a record may be cut off or moved now and then.
const COUNT_MIN: u64 = 10;

/// Tasks that are counted at most; none of those that come later is.
const TASKS_MAX: usize = 1024;

/// How often which task was not seen to leave.
#[derive(Debug)]
pub(super) struct HiddenTasks {
    /// The pCPUs on which every switch is recorded.
    watched: FxHashSet<PcpuId>,
    /// Who came on by the last switch.
    on: FxHashMap<PcpuId, Tid>,
    missed: BTreeMap<(PcpuId, Tid), u64>,
}

impl HiddenTasks {
    pub(super) fn new(watched: FxHashSet<PcpuId>) -> HiddenTasks {
        HiddenTasks { watched, on: FxHashMap::default(), missed: BTreeMap::new() }
    }

    /// Takes the events of each pCPU in order of time.
    pub(super) fn learn(&mut self, event: &HostEvent) {
        match event.kind {
            HostEventKind::Switch(switch) if self.watched.contains(&event.pcpu) => {
                let before = self.on.insert(event.pcpu, switch.next);
                let Some(before) = before.filter(|before| *before != switch.prev) else { return };
                let key = (event.pcpu, before);
                if self.missed.len() < TASKS_MAX || self.missed.contains_key(&key) {
                    *self.missed.entry(key).or_default() += 1;
                }
            }
            HostEventKind::Lost { .. } => {
                self.on.remove(&event.pcpu);
            }
            _ => {}
        }
    }

    /// Those that were not seen to leave again and again, the most often first.
    pub(super) fn into_rows(self, name: impl Fn(Tid) -> Option<String>) -> Vec<HiddenTask> {
        let often = self.missed.into_iter().filter(|(_, count)| *count >= COUNT_MIN);
        let row = |((pcpu, tid), count)| HiddenTask {
            name: match tid {
                Tid::IDLE => "idle".to_owned(),
                _ => name(tid).unwrap_or_else(|| format!("tid {tid}")),
            },
            pcpu,
            count,
        };
        let mut rows: Vec<HiddenTask> = often.map(row).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.count));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_core::host_event::{PrevState, Switch};
    use vslice_core::units::HostNs;

    fn rows(events: impl IntoIterator<Item = (u32, HostEventKind)>) -> Vec<HiddenTask> {
        let mut hidden = HiddenTasks::new(FxHashSet::from_iter([PcpuId(0)]));
        for ((pcpu, kind), time) in events.into_iter().zip(1..) {
            hidden.learn(&HostEvent { time: HostNs(time), pcpu: PcpuId(pcpu), kind });
        }
        hidden.into_rows(|tid| (tid == Tid(7)).then(|| "init".to_owned()))
    }

    fn switch(prev: u32, next: u32) -> HostEventKind {
        HostEventKind::Switch(Switch::new(Tid(prev), PrevState::Sleep, Tid(next)))
    }

    /// Idle and 7 come on, and are never seen to leave.
    fn never_leaving() -> impl Iterator<Item = (u32, HostEventKind)> {
        let round = || [(0, switch(5, 0)), (0, switch(5, 7)), (0, switch(5, 6)), (0, switch(6, 5))];
        (0..12).flat_map(move |_| round())
    }

    #[test]
    fn who_is_never_seen_to_leave_is_hidden() {
        let row = |name: &str| HiddenTask { name: name.to_owned(), pcpu: PcpuId(0), count: 12 };
        assert_eq!(rows(never_leaving()), [row("idle"), row("init")]);
    }

    #[test]
    fn who_leaves_is_not_and_nobody_is_after_a_loss_or_where_not_every_switch_is_recorded() {
        let seen = (0..99).flat_map(|_| [(0, switch(5, 0)), (0, switch(0, 5))]);
        assert_eq!(rows(seen), []);
        let lost = HostEventKind::Lost { until: HostNs(u64::MAX), count: 1 };
        let lossy = never_leaving().flat_map(|event| [event, (0, lost.clone())]);
        assert_eq!(rows(lossy), []);
        assert_eq!(rows(never_leaving().map(|(_, kind)| (1, kind))), []);
    }
}
