//! Laws of seconds, on random schedules of two vCPUs and a task on one pCPU.

use super::*;
use crate::analyse::drawn::{BQL, VM1_LOOP, VM1_VCPU1, VM2_VCPU1, manifest};
use proptest::prelude::*;
use vslice_core::host_event::{HostEventKind, PrevState, StackId, Switch};
use vslice_core::timeline::{Span, ThreadState};
use vslice_core::units::PcpuId;
use vslice_trace::manifest::Window;

const PCPU: PcpuId = PcpuId(1);
const THREADS: [Tid; 3] = [VM1_VCPU1, VM2_VCPU1, Tid(300)];
const START: HostNs = HostNs(1_000_000_000);

/// What a scheduler does next: after how long, whether the one that leaves sleeps, who is woken before, and who comes.
type Deed = (u64, bool, Option<usize>, usize);

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = (1..700_000_000_u64, any::<bool>(), prop::option::of(0..3_usize), 0..4_usize);
    prop::collection::vec(deed, 1..40)
}

/// Events that contradict nothing.
fn schedule(deeds: &[Deed]) -> (Vec<HostEvent>, HostNs) {
    let (mut now, mut on) = (START, Tid::IDLE);
    let mut asleep = vec![false; THREADS.len()];
    let mut events = Vec::new();
    for &(ns, sleeps, woken, next) in deeds {
        now = HostNs(now.0 + ns);
        let event = |kind| HostEvent { time: now, pcpu: PCPU, kind };
        if let Some(place) = woken.filter(|place| asleep[*place]) {
            let (tid, target, waker) = (THREADS[place], PCPU, VM1_LOOP);
            events.push(event(HostEventKind::Waking { tid, target, waker }));
            asleep[place] = false;
        }
        let next = THREADS.get(next).copied().unwrap_or(Tid::IDLE);
        let place = |tid: Tid| THREADS.iter().position(|known| *known == tid);
        if next == on || place(next).is_some_and(|place| asleep[place]) {
            continue;
        }
        let sleeps = place(on).filter(|_| sleeps);
        let prev_state = if sleeps.is_some() { PrevState::Sleep } else { PrevState::Runnable };
        let stack = sleeps.map(|_| StackId(0));
        let call_args = sleeps.map(|_| [BQL, 0x80, 2]);
        let switch = Switch { stack, call_args, ..Switch::new(on, prev_state, next) };
        events.push(event(HostEventKind::Switch(switch)));
        sleeps.into_iter().for_each(|place| asleep[place] = true);
        on = next;
    }
    (events, HostNs(now.0 + 1))
}

fn recorded() -> Manifest {
    let window = Some(Window { start_ns: START, end_ns: None });
    Manifest { window, ..manifest() }
}

fn futex() -> Vec<String> {
    vec!["futex_wait_queue".to_owned(), "futex_wait".to_owned()]
}

/// All of it second by second, as it comes in pieces.
fn lived(events: &[HostEvent], end: HostNs, piece_ns: u64) -> Vec<Second> {
    let mut live = LiveAnalysis::new(recorded(), &[], Reading::default());
    live.stack(futex());
    let (mut seconds, mut from) = (Vec::new(), START);
    while from < end {
        let until = HostNs(from.0 + piece_ns).min(end);
        let piece = events.iter().filter(|event| (from..until).contains(&event.time));
        live.push(piece.cloned().collect(), until);
        while live.advance() {
            seconds.push(live.close(&Reading::default()));
        }
        from = until;
    }
    seconds.extend(live.end(end, &Reading::default()));
    seconds
}

/// The spans that a report is made of.
fn spans(events: &[HostEvent], end: HostNs) -> Vec<Span> {
    let mut stacks = StackTable::default();
    stacks.push(futex());
    let mut timeline = timeline_facts::timeline(&recorded(), stacks, &[]).starting_at(START);
    let mut spans = Vec::new();
    for event in events {
        timeline.push(event, &mut |span| spans.push(span));
    }
    timeline.finish(end, &mut |span| spans.push(span));
    spans
}

/// Running, and by reason waiting and asleep.
type Sums = (u64, BTreeMap<OffReason, u64>, BTreeMap<OffReason, u64>);

fn of_spans(spans: &[Span], tid: Tid) -> Sums {
    let mut sums = Sums::default();
    for span in spans.iter().filter(|span| span.tid == tid) {
        let ns = span.length_ns();
        match (OffReason::of(&span.state), span.state) {
            (_, ThreadState::Unknown { .. }) => {}
            (None, _) => sums.0 += ns,
            (Some(reason), ThreadState::Blocked(_)) => *sums.2.entry(reason).or_default() += ns,
            (Some(reason), _) => *sums.1.entry(reason).or_default() += ns,
        }
    }
    sums
}

fn of_seconds(seconds: &[Second], vm: usize) -> Sums {
    let mut sums = Sums::default();
    for second in seconds {
        let vcpu = &second.vms[vm].vcpus[0];
        sums.0 += vcpu.running_ns;
        for row in &vcpu.waiting_by {
            *sums.1.entry(row.reason).or_default() += row.ns;
        }
        for row in &vcpu.asleep_by {
            *sums.2.entry(row.reason).or_default() += row.ns;
        }
    }
    sums
}

proptest! {
    /// Each vCPU's parts add up to the second, and who ran to what was waited.
    #[test]
    fn parts_add_up_exactly(deeds in deeds(), piece_ns in 50_000_000..3_000_000_000_u64) {
        let (events, end) = schedule(&deeds);
        let seconds = lived(&events, end, piece_ns);
        let mut from = START;
        for second in &seconds {
            prop_assert_eq!(second.start_ns, from);
            from = HostNs(from.0 + second.length_ns);
            for vm in &second.vms {
                for vcpu in &vm.vcpus {
                    prop_assert_eq!(vcpu.total_ns(), second.length_ns);
                    let waiting: u64 = vcpu.waiting_by.iter().map(|row| row.ns).sum();
                    let asleep: u64 = vcpu.asleep_by.iter().map(|row| row.ns).sum();
                    prop_assert_eq!((waiting, asleep), (vcpu.waiting_ns, vcpu.asleep_ns));
                }
                let waited: u64 = vm.vcpus.iter().map(|vcpu| vcpu.waiting_ns).sum();
                let ran: u64 = vm.antagonists.iter().map(|group| group.ran_ns).sum();
                prop_assert_eq!(ran + vm.others_ns + vm.idle_ns + vm.unseen_ns, waited);
            }
        }
        prop_assert_eq!(from, end);
    }

    /// However it comes in pieces, all seconds together are what a report's spans say of the same time.
    #[test]
    fn seconds_are_a_reports_spans(deeds in deeds(), piece_ns in 50_000_000..3_000_000_000_u64) {
        let (events, end) = schedule(&deeds);
        let seconds = lived(&events, end, piece_ns);
        let spans = spans(&events, end);
        for (vm, tid) in [VM1_VCPU1, VM2_VCPU1].into_iter().enumerate() {
            prop_assert_eq!(of_seconds(&seconds, vm), of_spans(&spans, tid));
            let longest = spans.iter().filter(|span| span.tid == tid && span.state.waits_for().is_some());
            let worst = seconds.iter().filter_map(|second| second.vms[vm].vcpus[0].worst_wait.as_ref());
            prop_assert_eq!(
                worst.map(|wait| wait.length_ns).max(),
                longest.map(Span::length_ns).max()
            );
        }
    }

    /// Whatever comes, whatever is lost: what is not known is unknown, and all of it adds up.
    #[test]
    fn any_events_at_all_add_up(
        raw in prop::collection::vec((0..3_000_000_000_u64, 0..3_u32, 0..4_usize, 0..4_usize, 0..5_u32), 0..60),
        piece_ns in 200_000_000..2_000_000_000_u64,
    ) {
        let mut raw = raw;
        raw.sort_unstable();
        let tid = |place: usize| THREADS.get(place).copied().unwrap_or(Tid::IDLE);
        let event = |(ns, pcpu, one, other, kind)| {
            let time = HostNs(START.0 + ns);
            let kind = match kind {
                0 => HostEventKind::Waking { tid: tid(one), target: PcpuId(pcpu), waker: VM1_LOOP },
                1 => HostEventKind::Lost { until: HostNs(time.0 + 90_000_000), count: 1 },
                2 if one == 3 => HostEventKind::Exit { tid: tid(other) },
                3 => HostEventKind::Switch(Switch::new(tid(one), PrevState::Sleep, tid(other))),
                _ => HostEventKind::Switch(Switch::new(tid(one), PrevState::Runnable, tid(other))),
            };
            HostEvent { time, pcpu: PcpuId(pcpu), kind }
        };
        let events: Vec<HostEvent> = raw.into_iter().map(event).collect();
        for second in lived(&events, HostNs(START.0 + 3_300_000_000), piece_ns) {
            for vm in &second.vms {
                for vcpu in &vm.vcpus {
                    prop_assert_eq!(vcpu.total_ns(), second.length_ns);
                }
                let waited: u64 = vm.vcpus.iter().map(|vcpu| vcpu.waiting_ns).sum();
                let ran: u64 = vm.antagonists.iter().map(|group| group.ran_ns).sum();
                prop_assert_eq!(ran + vm.others_ns + vm.idle_ns + vm.unseen_ns, waited);
            }
        }
    }
}
