//! Who was on the pCPUs lately: for the slowest requests, of which it is known only when they are over.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use vslice_core::host_event::{HostEvent, HostEventKind, Switch};
use vslice_core::task::Task;
use vslice_core::timeline::Tasks;
use vslice_core::units::{HostNs, PcpuId, Tid};

/// Stays that are kept of all pCPUs together, and at least and at most of each.
const STAYS_MAX: usize = 1 << 19;
const OF_PCPU_MIN: usize = 256;
const OF_PCPU_MAX: usize = 1 << 13;

/// Stays that a request has of one pCPU at most, the longest.
const OF_REQUEST_MAX: usize = 48;

/// Somebody was on a pCPU; `None` for nobody: it was idle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stay {
    pub(super) time: Range<HostNs>,
    pub(super) task: Option<Arc<Task>>,
}

/// The stays on a pCPU in a stretch of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) pcpu: PcpuId,
    pub(super) stays: Result<Vec<Stay>, Unknown>,
    /// How many shorter ones were left out, and how long they are together.
    pub(super) cut_count: u64,
    pub(super) cut_ns: u64,
}

/// Why it is not known who was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unknown {
    NotRecorded,
    NoLongerKept,
}

impl Unknown {
    pub(super) fn words(self) -> &'static str {
        match self {
            Unknown::NotRecorded => "not every switch of this pCPU was recorded",
            Unknown::NoLongerKept => "there were more switches meanwhile than vslice keeps",
        }
    }
}

/// The latest stays on each pCPU whose switches are all recorded.
#[derive(Debug, Default)]
pub(super) struct Stays {
    pcpus: BTreeMap<PcpuId, Pcpu>,
    of_pcpu_max: usize,
    now: HostNs,
    /// From here on the record of some pCPU is missing.
    cut: Option<HostNs>,
}

#[derive(Debug, Default)]
struct Pcpu {
    latest: VecDeque<Stay>,
    /// Before this not all is there any more.
    kept_since: HostNs,
    occupant: Option<Occupant>,
    lost_until: HostNs,
}

#[derive(Debug)]
struct Occupant {
    tid: Tid,
    since: HostNs,
    task: Option<Arc<Task>>,
}

impl Stays {
    pub(super) fn of(watched: HashSet<PcpuId>) -> Stays {
        let of_pcpu_max = (STAYS_MAX / watched.len().max(1)).clamp(OF_PCPU_MIN, OF_PCPU_MAX);
        let pcpus = watched.into_iter().map(|pcpu| (pcpu, Pcpu::default())).collect();
        Stays { pcpus, of_pcpu_max, ..Stays::default() }
    }

    /// Takes an event, with the threads as they were before it.
    pub(super) fn event(&mut self, event: &HostEvent, tasks: &Tasks) {
        // As the timeline does: an event that is late has happened now.
        self.now = self.now.max(event.time);
        if self.cut.is_some() {
            return;
        }
        let (now, most) = (self.now, self.of_pcpu_max);
        let Some(pcpu) = self.pcpus.get_mut(&event.pcpu) else { return };
        match event.kind {
            HostEventKind::Switch(Switch { prev, next, .. }) => {
                pcpu.leaves(prev, now, tasks, most);
                let task = tasks.known(next).cloned();
                let occupant = Occupant { tid: next, since: now, task };
                pcpu.occupant = (now >= pcpu.lost_until).then_some(occupant);
            }
            HostEventKind::Lost { until, .. } => {
                if let Some(tid) = pcpu.occupant.as_ref().map(|occupant| occupant.tid) {
                    pcpu.leaves(tid, now, tasks, most);
                }
                pcpu.lost_until = pcpu.lost_until.max(until);
            }
            _ => {}
        }
    }

    /// From here on it is as if all was lost.
    pub(super) fn cut_off(&mut self, since: HostNs) {
        self.cut = Some(self.cut.map_or(since, |cut| cut.min(since)));
    }

    /// Who was on this pCPU then.
    pub(super) fn on(&self, pcpu: PcpuId, time: &Range<HostNs>) -> Found {
        let unknown = |why| Found { pcpu, stays: Err(why), cut_count: 0, cut_ns: 0 };
        let Some(of) = self.pcpus.get(&pcpu) else { return unknown(Unknown::NotRecorded) };
        if time.start < of.kept_since {
            return unknown(Unknown::NoLongerKept);
        }
        let first = of.latest.partition_point(|stay| stay.time.end <= time.start);
        let latest = of.latest.iter().skip(first).cloned().chain(self.present(of));
        let within = latest.take_while(|stay| stay.time.start < time.end).map(|stay| Stay {
            time: stay.time.start.max(time.start)..stay.time.end.min(time.end),
            ..stay
        });
        let mut stays: Vec<Stay> = within.filter(|stay| stay.time.start < stay.time.end).collect();
        let length_ns = |stay: &Stay| stay.time.end.since_ns(stay.time.start);
        stays.sort_by_key(|stay| (Reverse(length_ns(stay)), stay.time.start));
        let cut = stays.split_off(stays.len().min(OF_REQUEST_MAX));
        stays.sort_by_key(|stay| stay.time.start);
        let cut_ns = cut.iter().map(length_ns).fold(0, u64::saturating_add);
        Found { pcpu, stays: Ok(stays), cut_count: cut.len() as u64, cut_ns }
    }

    /// Who is there now.
    fn present(&self, pcpu: &Pcpu) -> Option<Stay> {
        let occupant = pcpu.occupant.as_ref()?;
        let until = self.cut.map_or(self.now, |cut| cut.min(self.now));
        let task = occupant.task.clone();
        (occupant.since < until).then(|| occupant.stay(until, task))
    }
}

impl Pcpu {
    /// Somebody leaves it. If that is not who came, a record is missing, and nobody knows who was there.
    fn leaves(&mut self, tid: Tid, now: HostNs, tasks: &Tasks, most: usize) {
        let Some(occupant) = self.occupant.take().filter(|occupant| occupant.tid == tid) else {
            return;
        };
        if occupant.since >= now {
            return;
        }
        // It may have got its name meanwhile.
        let task = tasks.known(tid).or(occupant.task.as_ref()).cloned();
        self.latest.push_back(occupant.stay(now, task));
        if self.latest.len() > most
            && let Some(oldest) = self.latest.pop_front()
        {
            self.kept_since = oldest.time.end;
        }
    }
}

impl Occupant {
    fn stay(&self, until: HostNs, task: Option<Arc<Task>>) -> Stay {
        let task = (self.tid != Tid::IDLE)
            .then(|| task.unwrap_or_else(|| Arc::new(Task::unknown(self.tid))));
        Stay { time: self.since..until, task }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_core::host_event::PrevState;

    const PCPU: PcpuId = PcpuId(1);

    fn switch(time: u64, prev: u32, next: u32) -> HostEvent {
        let switch = Switch::new(Tid(prev), PrevState::Runnable, Tid(next));
        HostEvent { time: HostNs(time), pcpu: PCPU, kind: HostEventKind::Switch(switch) }
    }

    fn lost(time: u64, until: u64) -> HostEvent {
        let kind = HostEventKind::Lost { until: HostNs(until), count: 1 };
        HostEvent { time: HostNs(time), pcpu: PCPU, kind }
    }

    fn after(events: &[HostEvent]) -> Stays {
        let mut stays = Stays::of(HashSet::from([PCPU]));
        events.iter().for_each(|event| stays.event(event, &Tasks::default()));
        stays
    }

    fn told(stays: &Stays, from: u64, to: u64) -> Vec<(u64, u64, u32)> {
        let found = stays.on(PCPU, &(HostNs(from)..HostNs(to))).stays.unwrap();
        let tid = |stay: &Stay| stay.task.as_ref().map_or(0, |task| task.tid.0);
        found.iter().map(|stay| (stay.time.start.0, stay.time.end.0, tid(stay))).collect()
    }

    #[test]
    fn stays_are_clipped_and_the_one_that_goes_on_is_there() {
        let stays =
            after(&[switch(10, 9, 1), switch(20, 1, 0), switch(30, 0, 2), switch(40, 2, 3)]);
        assert_eq!(told(&stays, 15, 35), [(15, 20, 1), (20, 30, 0), (30, 35, 2)]);
        assert_eq!(told(&stays, 0, 12), [(10, 12, 1)], "who was there at first is not told");
        let mut stays = stays;
        stays.event(&HostEvent { pcpu: PcpuId(0), ..switch(60, 7, 8) }, &Tasks::default());
        assert_eq!(told(&stays, 38, 90), [(38, 40, 2), (40, 60, 3)]);
        let elsewhere = stays.on(PcpuId(0), &(HostNs(0)..HostNs(9)));
        assert_eq!(elsewhere.stays, Err(Unknown::NotRecorded));
    }

    #[test]
    fn what_is_lost_or_contradicted_is_nobodys() {
        let stays = after(&[
            switch(10, 9, 1),
            lost(20, 40),
            switch(30, 5, 6),
            switch(45, 7, 8),
            switch(50, 8, 1),
            // Not who came.
            switch(60, 2, 3),
            switch(70, 3, 4),
        ]);
        assert_eq!(told(&stays, 0, 80), [(10, 20, 1), (45, 50, 8), (60, 70, 3)]);
    }

    #[test]
    fn nothing_is_told_after_a_record_was_cut_off() {
        let mut stays = after(&[switch(10, 9, 1)]);
        stays.cut_off(HostNs(25));
        stays.event(&switch(40, 1, 2), &Tasks::default());
        assert_eq!(told(&stays, 0, 80), [(10, 25, 1)]);
    }

    #[test]
    fn the_oldest_are_let_go_of_and_the_shortest_left_out() {
        let events: Vec<HostEvent> = (0..OF_PCPU_MAX as u64 + 11)
            .map(|turn| {
                let (prev, next) = if turn % 2 == 0 { (1, 2) } else { (2, 1) };
                switch(turn * 10 + turn % 2, prev, next)
            })
            .collect();
        let stays = after(&events);
        let found = |from: u64, to: u64| stays.on(PCPU, &(HostNs(from)..HostNs(to)));
        assert_eq!(found(99, 1_000).stays, Err(Unknown::NoLongerKept));
        assert!(found(100, 1_000).stays.is_ok(), "from where the tenth has left, all are there");
        let found = found(20_000, 22_000);
        let stays = found.stays.unwrap();
        assert_eq!(stays.len(), OF_REQUEST_MAX);
        assert!(stays.is_sorted_by_key(|stay| stay.time.start));
        let told_ns: u64 = stays.iter().map(|stay| stay.time.end.since_ns(stay.time.start)).sum();
        assert_eq!(told_ns + found.cut_ns, 2_000, "nothing is missing");
        assert_eq!(found.cut_count, 200 - OF_REQUEST_MAX as u64);
        assert!(stays.iter().all(|stay| stay.time.end.since_ns(stay.time.start) >= 10));
    }
}
