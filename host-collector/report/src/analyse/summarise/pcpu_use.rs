//! How far the pCPUs were busy: who was on each of them, from one switch to the next.

use crate::analyse::observer::MeasuredWindow;
use crate::summary::model::PcpuUse;
use rustc_hash::FxHashSet;
use std::collections::BTreeMap;
use vslice_core::host_event::{HostEvent, HostEventKind};
use vslice_core::units::{HostNs, PcpuId, Tid};

/// The pCPUs on which every switch is recorded.
#[derive(Debug)]
pub(super) struct PcpuUses {
    rows: BTreeMap<PcpuId, Row>,
    window: MeasuredWindow,
}

#[derive(Debug, Default)]
struct Row {
    /// The switch after which somebody is on it, and whether that is nobody; `None` until there was one.
    since: Option<(HostNs, bool)>,
    seen_ns: u64,
    idle_ns: u64,
}

impl PcpuUses {
    pub(super) fn new(watched: FxHashSet<PcpuId>, window: MeasuredWindow) -> PcpuUses {
        let rows = watched.into_iter().map(|pcpu| (pcpu, Row::default())).collect();
        PcpuUses { rows, window }
    }

    /// Until the first switch, and from a loss to the next one, it is not known who is on a pCPU.
    pub(super) fn learn(&mut self, event: &HostEvent) {
        let Some(row) = self.rows.get_mut(&event.pcpu) else { return };
        let since = match &event.kind {
            HostEventKind::Switch(switch) => Some((event.time, switch.next == Tid::IDLE)),
            HostEventKind::Lost { .. } => None,
            _ => return,
        };
        if let Some((from, is_idle)) = row.since {
            let (from, until) = (from.max(self.window.start), event.time.min(self.window.end));
            let length_ns = until.since_ns(from);
            row.seen_ns = row.seen_ns.saturating_add(length_ns);
            row.idle_ns = row.idle_ns.saturating_add(if is_idle { length_ns } else { 0 });
        }
        row.since = since;
    }

    /// In the order of the pCPUs. What was after the last switch of each is not in it.
    pub(super) fn into_rows(self) -> Vec<PcpuUse> {
        let rows = self.rows.into_iter();
        rows.map(|(pcpu, Row { seen_ns, idle_ns, .. })| PcpuUse { pcpu, seen_ns, idle_ns })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyse::drawn::{host_at, manifest};
    use vslice_core::host_event::{PrevState, Switch};

    #[test]
    fn a_pcpu_is_idle_from_one_switch_to_the_next_and_unknown_after_a_loss() {
        let watched = FxHashSet::from_iter([PcpuId(0), PcpuId(1)]);
        let mut uses = PcpuUses::new(watched, MeasuredWindow::of(&manifest()));
        let mut learn =
            |us, pcpu, kind| uses.learn(&HostEvent { time: host_at(us), pcpu: PcpuId(pcpu), kind });
        let switch = |prev, next| {
            HostEventKind::Switch(Switch::new(Tid(prev), PrevState::Runnable, Tid(next)))
        };
        learn(10, 0, switch(7, 0));
        learn(30, 0, switch(0, 7));
        learn(35, 0, switch(7, 0));
        let until = host_at(60);
        learn(50, 0, HostEventKind::Lost { until, count: 3 });
        learn(70, 0, switch(8, 0));
        learn(71, 0, switch(0, 8));
        learn(20, 2, switch(7, 0));
        learn(40, 2, switch(0, 7));
        let of = |pcpu, seen_us: u64, idle_us: u64| PcpuUse {
            pcpu: PcpuId(pcpu),
            seen_ns: seen_us * 1_000,
            idle_ns: idle_us * 1_000,
        };
        assert_eq!(uses.into_rows(), [of(0, 41, 36), of(1, 0, 0)], "pCPU2 is not watched");
    }

    #[test]
    fn only_the_window_counts() {
        let mut uses =
            PcpuUses::new(FxHashSet::from_iter([PcpuId(0)]), MeasuredWindow::of(&manifest()));
        let window = MeasuredWindow::of(&manifest());
        let before = HostNs(window.start.0 - 500);
        let after = HostNs(window.end.0.saturating_add(500));
        for (time, prev, next) in [(before, 7, 0), (after, 0, 7)] {
            let switch = Switch::new(Tid(prev), PrevState::Runnable, Tid(next));
            let kind = HostEventKind::Switch(switch);
            uses.learn(&HostEvent { time, pcpu: PcpuId(0), kind });
        }
        let window_ns = window.end.since_ns(window.start);
        let rows = uses.into_rows();
        assert_eq!((rows[0].seen_ns, rows[0].idle_ns), (window_ns, window_ns));
    }
}
