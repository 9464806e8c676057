//! Laws of timelines, on random drawings and on random schedules of several threads.

use super::drawing::{UNIT_NS, draw, events, lost, spans_of, switch, waking};
use super::*;
use crate::host_event::{HostEvent, HostEventKind, PrevState};
use crate::units::{HostNs, PcpuId, Tid};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Watched threads of a random schedule: 1, 2, 3.
const WATCHED: [Tid; 3] = [Tid(1), Tid(2), Tid(3)];
/// All threads of a random schedule; the idle task is there besides.
const THREADS: u32 = 5;
const PCPUS: usize = 2;

fn a_drawing() -> impl Strategy<Value = String> {
    let run = (prop::sample::select(vec!['=', 'p', '_', 'w', '?']), 1..6_usize);
    prop::collection::vec(run, 1..40)
        .prop_map(|runs| runs.into_iter().map(|(state, length)| state.to_string().repeat(length)))
        .prop_map(Iterator::collect)
}

/// One thing that a scheduler does; the numbers choose among what is possible at that moment.
#[derive(Debug, Clone)]
enum Deed {
    Preempt { pcpu: usize, choice: usize },
    Block { pcpu: usize, choice: usize, raced: bool },
    Wake { choice: usize, pcpu: usize },
    Pass { units: u64 },
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed =
        prop_oneof![
            (0..PCPUS, any::<usize>()).prop_map(|(pcpu, choice)| Deed::Preempt { pcpu, choice }),
            (0..PCPUS, any::<usize>(), any::<bool>())
                .prop_map(|(pcpu, choice, raced)| Deed::Block { pcpu, choice, raced }),
            (any::<usize>(), 0..PCPUS).prop_map(|(choice, pcpu)| Deed::Wake { choice, pcpu }),
            (1..4_u64).prop_map(|units| Deed::Pass { units }),
        ];
    prop::collection::vec(deed, 1..120)
}

/// What a thread of the model is doing.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Truth {
    Running(usize),
    Blocked(usize),
    Preempted(usize),
    Woken(usize),
}

/// A scheduler that keeps a diary of every unit of time, the plain way.
struct Model {
    now: u64,
    occupant: [Tid; PCPUS],
    threads: BTreeMap<Tid, Truth>,
    seen: BTreeMap<Tid, bool>,
    events: Vec<HostEvent>,
    diary: BTreeMap<Tid, Vec<char>>,
    /// For each thread and unit of time that it waited: who ran where it waited.
    ran: BTreeMap<Tid, Vec<Option<Tid>>>,
}

impl Model {
    fn new() -> Model {
        let threads: BTreeMap<Tid, Truth> =
            (1..=THREADS).map(|tid| (Tid(tid), Truth::Woken(tid as usize % PCPUS))).collect();
        let seen = threads.keys().map(|tid| (*tid, false)).collect();
        let (diary, ran) = (BTreeMap::new(), BTreeMap::new());
        let occupant = [Tid::IDLE; PCPUS];
        let mut model = Model { now: 0, occupant, threads, seen, events: Vec::new(), diary, ran };
        // From here on it is known who runs where; these two threads are not watched.
        model.switch(0, PrevState::Runnable, Tid(4));
        model.switch(1, PrevState::Runnable, Tid(5));
        model
    }

    /// A runnable thread that is off, or the idle task.
    fn pick(&self, choice: usize) -> Tid {
        let runnable = |truth: &Truth| matches!(truth, Truth::Preempted(_) | Truth::Woken(_));
        let mut ready: Vec<Tid> =
            self.threads.iter().filter(|(_, truth)| runnable(truth)).map(|(tid, _)| *tid).collect();
        ready.push(Tid::IDLE);
        ready[choice % ready.len()]
    }

    fn switch(&mut self, pcpu: usize, state: PrevState, next: Tid) {
        let prev = self.occupant[pcpu];
        if prev == next {
            return;
        }
        let id = PcpuId(u32::try_from(pcpu).unwrap());
        self.events.push(switch(self.now * UNIT_NS, id, prev, state, next));
        self.occupant[pcpu] = next;
        if next != Tid::IDLE {
            self.threads.insert(next, Truth::Running(pcpu));
        }
        for tid in [prev, next] {
            self.seen.insert(tid, true);
        }
    }

    fn act(&mut self, deed: &Deed) {
        match *deed {
            Deed::Preempt { pcpu, choice } => {
                let (prev, next) = (self.occupant[pcpu], self.pick(choice));
                if prev != next {
                    if prev != Tid::IDLE {
                        self.threads.insert(prev, Truth::Preempted(pcpu));
                    }
                    self.switch(pcpu, PrevState::Runnable, next);
                }
            }
            Deed::Block { pcpu, choice, raced } => {
                let (prev, next) = (self.occupant[pcpu], self.pick(choice));
                if prev == Tid::IDLE {
                    return;
                }
                let id = PcpuId(u32::try_from(pcpu).unwrap());
                if raced {
                    self.events.push(waking(self.now * UNIT_NS, prev, id));
                }
                let truth = if raced { Truth::Woken(pcpu) } else { Truth::Blocked(pcpu) };
                self.threads.insert(prev, truth);
                self.switch(pcpu, PrevState::Sleep, next);
            }
            Deed::Wake { choice, pcpu } => {
                let asleep: Vec<Tid> = self
                    .threads
                    .iter()
                    .filter(|(_, truth)| matches!(truth, Truth::Blocked(_)))
                    .map(|(tid, _)| *tid)
                    .collect();
                if !asleep.is_empty() {
                    let tid = asleep[choice % asleep.len()];
                    let id = PcpuId(u32::try_from(pcpu).unwrap());
                    self.events.push(waking(self.now * UNIT_NS, tid, id));
                    self.threads.insert(tid, Truth::Woken(pcpu));
                }
            }
            Deed::Pass { units } => (0..units).for_each(|_| self.note()),
        }
    }

    fn note(&mut self) {
        self.now += 1;
        for (tid, truth) in &self.threads {
            let (character, waits_on) = match *truth {
                _ if !self.seen[tid] => ('?', None),
                Truth::Running(_) => ('=', None),
                Truth::Blocked(_) => ('_', None),
                Truth::Preempted(pcpu) => ('p', Some(pcpu)),
                Truth::Woken(pcpu) => ('w', Some(pcpu)),
            };
            self.diary.entry(*tid).or_default().push(character);
            self.ran.entry(*tid).or_default().push(waits_on.map(|pcpu| self.occupant[pcpu]));
        }
    }

    /// Brings everybody on once, so that no race stays open at the end.
    fn close(&mut self) {
        self.note();
        for _ in 0..2 {
            for tid in 1..=THREADS {
                let tid = Tid(tid);
                if matches!(self.threads[&tid], Truth::Preempted(_) | Truth::Woken(_)) {
                    let prev = self.occupant[0];
                    if prev != Tid::IDLE {
                        self.threads.insert(prev, Truth::Preempted(0));
                    }
                    self.switch(0, PrevState::Runnable, tid);
                    self.note();
                }
            }
        }
    }
}

fn spans_by_tid(events: &[HostEvent], end: u64) -> BTreeMap<Tid, Vec<Span>> {
    let mut spans: BTreeMap<Tid, Vec<Span>> = BTreeMap::new();
    let mut sink = |span: Span| spans.entry(span.tid).or_default().push(span);
    let mut timeline = Timeline::new(WATCHED, StackTable::default()).starting_at(HostNs(0));
    for event in events {
        timeline.push(event, &mut sink);
    }
    timeline.finish(HostNs(end * UNIT_NS), &mut sink);
    assert_eq!(timeline.contradictions().count(), 0, "{:?}", timeline.contradictions());
    spans
}

/// What the diary says of who ran while a span lasted.
fn ran_by_diary(ran: &[Option<Tid>], span: &Span) -> BTreeMap<Tid, u64> {
    let mut sums = BTreeMap::new();
    for unit in span.start.0 / UNIT_NS..span.end.0 / UNIT_NS {
        if let Some(tid) = ran[usize::try_from(unit).unwrap()] {
            *sums.entry(tid).or_insert(0) += UNIT_NS;
        }
    }
    sums
}

/// Whether a wait ended on another pCPU than the thread was woken for.
fn has_moved(events: &[HostEvent], span: &Span) -> bool {
    let ThreadState::WakeupDelay { pcpu: target, .. } = span.state else { return false };
    let comes = |event: &&HostEvent| {
        let is_its = matches!(event.kind, HostEventKind::Switch(switch) if switch.next == span.tid);
        is_its && event.time >= span.end
    };
    events.iter().find(comes).is_some_and(|event| event.pcpu != target)
}

type RawEvent = (u64, u32, u32, u32, u32);

fn raw_events() -> impl Strategy<Value = Vec<RawEvent>> {
    prop::collection::vec((0..400_u64, 0..3_u32, 0..4_u32, 0..4_u32, 0..6_u32), 0..80)
}

fn any_events(raw: Vec<RawEvent>) -> Vec<HostEvent> {
    let event = |(time_ns, pcpu, one, other, kind)| match kind {
        0 => waking(time_ns, Tid(one), PcpuId(pcpu)),
        1 => lost(time_ns, time_ns + 20),
        2 if one == 3 => HostEvent {
            time: HostNs(time_ns),
            pcpu: PcpuId(pcpu),
            kind: HostEventKind::Exit { tid: Tid(other) },
        },
        3 => switch(time_ns, PcpuId(pcpu), Tid(one), PrevState::Sleep, Tid(other)),
        _ => switch(time_ns, PcpuId(pcpu), Tid(one), PrevState::Runnable, Tid(other)),
    };
    raw.into_iter().map(event).collect()
}

proptest! {
    #[test]
    fn any_drawing_comes_back(drawing in a_drawing()) {
        let (spans, contradictions) = spans_of(&events(&drawing), drawing.len());
        prop_assert_eq!(draw(&spans), drawing);
        prop_assert_eq!(contradictions.count(), 0);
    }

    #[test]
    fn a_random_schedule_comes_back_with_its_antagonists(deeds in deeds()) {
        let mut model = Model::new();
        deeds.iter().for_each(|deed| model.act(deed));
        model.close();
        let spans = spans_by_tid(&model.events, model.now);
        for tid in WATCHED {
            let drawn: String = model.diary[&tid].iter().collect();
            prop_assert_eq!(draw(&spans[&tid]), drawn, "{:?}: {:#?}", tid, model.events);
            for span in &spans[&tid] {
                let credited: BTreeMap<Tid, u64> =
                    span.antagonists.iter().map(|ran| (ran.who.tid().unwrap(), ran.ran_ns)).collect();
                let sum: u64 = credited.values().sum();
                let waits = matches!(
                    span.state,
                    ThreadState::PreemptWait { .. } | ThreadState::WakeupDelay { .. }
                );
                if !waits || has_moved(&model.events, span) {
                    prop_assert!(credited.is_empty());
                } else {
                    prop_assert_eq!(sum, span.length_ns());
                    prop_assert_eq!(credited, ran_by_diary(&model.ran[&tid], span));
                }
                let threads = span.antagonists.iter().filter(|ran| ran.who != Who::Idle);
                prop_assert!(threads.is_sorted_by(|one, next| one.ran_ns >= next.ran_ns));
            }
        }
    }

    /// Whatever comes in, in whatever order, the spans tile and no wait credits more than itself.
    #[test]
    fn any_events_at_all_give_a_tiling(
        raw in raw_events(),
    ) {
        let events = any_events(raw);
        let mut spans: BTreeMap<Tid, Vec<Span>> = BTreeMap::new();
        let mut sink = |span: Span| spans.entry(span.tid).or_default().push(span);
        let mut timeline = Timeline::new(WATCHED, StackTable::default()).starting_at(HostNs(0));
        events.iter().for_each(|event| timeline.push(event, &mut sink));
        timeline.finish(HostNs(500), &mut sink);
        for tid in WATCHED {
            let spans = &spans[&tid];
            prop_assert_eq!(spans[0].start, HostNs(0));
            prop_assert_eq!(spans[spans.len() - 1].end, HostNs(500));
            prop_assert!(spans.windows(2).all(|pair| pair[0].end == pair[1].start));
            for span in spans {
                let ran_ns: u64 = span.antagonists.iter().map(|who| who.ran_ns).sum();
                prop_assert!(ran_ns <= span.length_ns());
                prop_assert!(!span.antagonists.iter().any(|ran| ran.who.tid() == Some(tid)));
            }
        }
    }
    /// What has gone out and what goes on tile at any moment, and whoever asks changes nothing.
    #[test]
    fn what_goes_on_follows_what_has_gone_out(raw in raw_events(), every in 1..5_usize) {
        let mut events = any_events(raw);
        events.sort_by_key(|event| event.time);
        let timeline = || Timeline::new(WATCHED, StackTable::default()).starting_at(HostNs(0));
        let (mut asked, mut left_alone) = (timeline(), timeline());
        let (mut spans, mut expected) = (Vec::new(), Vec::new());
        for (place, event) in events.iter().enumerate() {
            if place % every == 0 {
                for tid in WATCHED {
                    let open = asked.so_far(tid, event.time);
                    let of_it = spans.iter().filter(|span: &&Span| span.tid == tid);
                    let all: Vec<&Span> = of_it.chain(&open).collect();
                    prop_assert!(all.windows(2).all(|pair| pair[0].end == pair[1].start));
                    let end = all.last().map_or(HostNs(0), |span| span.end);
                    prop_assert_eq!(end, event.time);
                    for span in open {
                        let ran_ns: u64 = span.antagonists.iter().map(|who| who.ran_ns).sum();
                        prop_assert!(ran_ns <= span.length_ns());
                    }
                }
            }
            asked.push(event, &mut |span| spans.push(span));
            left_alone.push(event, &mut |span| expected.push(span));
        }
        asked.finish(HostNs(500), &mut |span| spans.push(span));
        left_alone.finish(HostNs(500), &mut |span| expected.push(span));
        prop_assert_eq!(spans, expected);
    }
}
