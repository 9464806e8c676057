//! When threads were off their pCPUs, as exactly as the kernel told it.

use rustc_hash::FxHashMap;
use vslice_core::host_event::{HostEvent, HostEventKind};
use vslice_core::units::{HostNs, Tid};

/// A time in which a thread was off its pCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Absence {
    /// When it left.
    pub(super) left: HostNs,
    /// When it came back.
    pub(super) came: HostNs,
}

/// When threads were off their pCPUs, from switches alone.
#[derive(Debug)]
pub(super) struct Absences {
    left: FxHashMap<Tid, Option<HostNs>>,
}

impl Absences {
    pub(super) fn of(tids: impl IntoIterator<Item = Tid>) -> Absences {
        Absences { left: tids.into_iter().map(|tid| (tid, None)).collect() }
    }

    /// Since when a thread is off its pCPU, if it is known to be.
    pub(super) fn since(&self, tid: Tid) -> Option<HostNs> {
        self.left.get(&tid).copied().flatten()
    }

    /// Takes the next event, in order of time; returns who came back by it, and from what.
    pub(super) fn push(&mut self, event: &HostEvent) -> Option<(Tid, Absence)> {
        match &event.kind {
            HostEventKind::Switch(switch) => {
                if let Some(left) = self.left.get_mut(&switch.prev) {
                    *left = Some(event.time);
                }
                let left = self.left.get_mut(&switch.next).and_then(Option::take);
                // A switch without a priority is one that was not recorded but made up for: its time is
                // no bound (`perf/assemble.rs`).
                let left = left.filter(|_| switch.next_priority.is_some())?;
                Some((switch.next, Absence { left, came: event.time }))
            }
            // Whoever left before may have come and left again meanwhile.
            HostEventKind::Lost { .. } => {
                self.left.values_mut().for_each(|left| *left = None);
                None
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_core::host_event::{PrevState, Switch};
    use vslice_core::units::PcpuId;

    fn absence(left_us: u64, came_us: u64) -> Absence {
        Absence { left: HostNs(left_us * 1_000), came: HostNs(came_us * 1_000) }
    }

    #[test]
    fn absences_are_from_leaving_to_coming() {
        let event = |us: u64, kind| HostEvent { time: HostNs(us * 1_000), pcpu: PcpuId(1), kind };
        let switch = |us, prev, next| {
            let switch = Switch::new(Tid(prev), PrevState::Runnable, Tid(next));
            event(us, HostEventKind::Switch(Switch { next_priority: Some(120), ..switch }))
        };
        let made_up = |us| {
            let switch = Switch::new(Tid(8), PrevState::Runnable, Tid(7));
            event(us, HostEventKind::Switch(switch))
        };
        let lost =
            |us: u64| event(us, HostEventKind::Lost { until: HostNs(us * 1_000 + 1), count: 1 });
        let mut absences = Absences::of([Tid(7)]);
        let events = [
            switch(10, 6, 7),
            switch(20, 7, 6),
            switch(30, 6, 7),
            switch(40, 7, 6),
            lost(45),
            switch(50, 6, 7),
            switch(60, 7, 8),
            switch(70, 8, 7),
            switch(80, 7, 8),
            made_up(90),
            switch(95, 7, 8),
            switch(99, 8, 7),
        ];
        let came: Vec<_> = events.iter().filter_map(|event| absences.push(event)).collect();
        let of_7 = [absence(20, 30), absence(60, 70), absence(95, 99)];
        assert_eq!(came, of_7.map(|absence| (Tid(7), absence)));
    }
}
