//! The host's view against drawn VMs of which it is known which vCPU took each I/O, and when it was told.

use super::*;
use crate::host_event::{BlockStep, PrevState};
use crate::timeline::{Reason, RunMode, Sleep};
use crate::units::PcpuId;
use proptest::prelude::*;

const MAIN_LOOP: Tid = Tid(10);

/// Whom the disk's interrupt comes to, and where.
const STRANGER: Tid = Tid(90);
const PCPU: PcpuId = PcpuId(7);

/// A worker of the kernel there.
const WORKER: (Tid, Role) = (Tid(91), Role::Worker(PCPU));
const DISK: u32 = 7;

/// What a vCPU does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    Runs,
    IsHalted,
    Waits,
    IsInKvm,
    SleepsOnLock,
}

impl Does {
    fn state(self) -> ThreadState {
        let pcpu = PcpuId(0);
        match self {
            Does::Runs => ThreadState::Running { pcpu, mode: RunMode::Unsplit },
            Does::IsInKvm => ThreadState::Running { pcpu, mode: RunMode::Kvm },
            Does::IsHalted => ThreadState::Blocked(Sleep::new(Reason::Halt)),
            Does::SleepsOnLock => ThreadState::Blocked(Sleep::new(Reason::Bql)),
            Does::Waits => {
                let (reason, stack, lock) = (Reason::Timeslice, None, None);
                ThreadState::PreemptWait { pcpu, reason, stack, lock }
            }
        }
    }

    fn is_inactivity(self) -> bool {
        matches!(self, Does::Waits | Does::SleepsOnLock)
    }
}

/// The length and kind of each span of a vCPU, in microseconds.
type Drawn = Vec<(u64, Does)>;

fn does() -> impl Strategy<Value = Does> {
    prop_oneof![
        3 => Just(Does::Runs),
        3 => Just(Does::IsHalted),
        2 => Just(Does::Waits),
        1 => Just(Does::IsInKvm),
        1 => Just(Does::SleepsOnLock),
    ]
}

/// One I/O: when it was done, for how long the VMM works then, when within that it tells, and whom.
#[derive(Debug, Clone)]
struct DrawnIo {
    done: u64,
    works: u64,
    told: u64,
    target: usize,
    /// The main loop is woken at once.
    is_at_once: bool,
}

fn io(vcpus: usize) -> impl Strategy<Value = DrawnIo> {
    (20_000_u64..30_000, 25_u64..3000, 0_u64..3000, 0..vcpus).prop_map(
        |(done, works, told, target)| DrawnIo {
            done,
            works,
            told: done + told % works,
            target,
            is_at_once: true,
        },
    )
}

fn drawn() -> impl Strategy<Value = (Vec<Drawn>, DrawnIo)> {
    (1_usize..4).prop_flat_map(|vcpus| {
        let span = (1_u64..900, does());
        let spans = prop::collection::vec(span, 60..90);
        (prop::collection::vec(spans, vcpus), io(vcpus))
    })
}

/// Spans from 0 to 60 ms, at the end in the guest.
fn laid(drawn: &Drawn) -> Vec<(u64, u64, Does)> {
    let mut at = 0;
    let mut laid: Vec<(u64, u64, Does)> = drawn
        .iter()
        .map(|(length, does)| {
            let start = at;
            at += length;
            (start, at, *does)
        })
        .collect();
    laid.push((at, at.max(60_000) + 1000, Does::Runs));
    laid
}

/// For how long a halt goes on after the interrupt that ends it, which KVM tells of first.
const WAKES_AFTER: u64 = 1;

/// The interrupt at `told`: it ends a halt, and until it is taken there is none.
fn interrupted(spans: &[(u64, u64, Does)], told: u64) -> Vec<(u64, u64, Does)> {
    let mut is_taken = false;
    let mut out = Vec::new();
    for (start, end, does) in spans.iter().copied() {
        let is_told = end > told && !is_taken;
        is_taken |= is_told && does == Does::Runs;
        if is_told && does == Does::IsHalted {
            let woken = if start <= told { end.min(told + WAKES_AFTER) } else { start };
            if start < woken {
                out.push((start, woken, does));
            }
            if woken < end {
                out.push((woken, end, Does::Waits));
            }
        } else {
            out.push((start, end, does));
        }
    }
    out
}

/// For how long the target was kept off a pCPU until it took the I/O.
fn truth(spans: &[(u64, u64, Does)], done: u64, told: u64) -> u64 {
    let mut waited = 0;
    for (start, end, does) in spans.iter().filter(|(_, end, _)| *end > done) {
        if *does == Does::Runs && *end > told {
            return waited;
        }
        waited += if does.is_inactivity() { end - start.max(&done) } else { 0 };
    }
    waited
}

fn block(step: BlockStep, sector: u64) -> BlockEvent {
    BlockEvent { step, tid: MAIN_LOOP, device: DISK, sector, sectors: 8, operation: None }
}

fn completed(sector: u64) -> BlockEvent {
    BlockEvent { tid: STRANGER, ..block(BlockStep::Completed, sector) }
}

/// The main loop is.
fn woken_by(view: &mut HostView, time: HostNs, waker: Tid, role: Role) {
    view.waking((time, PCPU), (MAIN_LOOP, Role::Vmm), (waker, role));
}

/// An interrupt at this microsecond, for the vCPU of this place.
type DrawnInterrupt = (u64, usize, u8);

/// The disk's vector, which is known for a disk's by what it did before, and one of another device.
const DISKS: u8 = 40;
const OTHERS: u8 = 50;

/// KVM's numbers are not those of the vCPUs' places.
fn number(place: usize) -> u32 {
    2 * u32::try_from(place).unwrap()
}

fn tid(place: usize) -> Tid {
    Tid(100 + u32::try_from(place).unwrap())
}

/// A VM all of whose vCPUs have run until 0, and taken the disk's interrupts, if any are told.
fn view_of(vcpus: usize, are_told: bool) -> HostView {
    let ids = (0_u16..).map(VcpuId).zip((0..vcpus).map(tid));
    let view = HostView::new(HostNs(0), ids);
    if !are_told {
        return view;
    }
    let numbers = (0..vcpus).map(|place| (number(place), tid(place)));
    let mut view = view.with_interrupts(HostNs(0), numbers);
    view.handovers.all_go_at_once(Way { device: DISK, is_read: false });
    let interrupts = view.interrupts.as_mut().unwrap();
    for io in 0..64_u64 {
        for place in 0..vcpus {
            let time = HostNs(io * 100_000 + 10);
            interrupts.push(Interrupt { time, vcpu: number(place), vector: DISKS });
        }
        interrupts.count(HostNs(io * 100_000), HostNs(io * 100_000 + 20));
    }
    view
}

/// What the host sees of it.
fn viewed(vcpus: &[Vec<(u64, u64, Does)>], io: &DrawnIo, loss: Option<u64>) -> Vec<ViewedIo> {
    told_viewed(vcpus, io, loss, None, &[], |_, _| {})
}

/// The same with interrupts, if they are recorded; `more` says what else comes, at `more_times` too.
fn told_viewed(
    vcpus: &[Vec<(u64, u64, Does)>],
    io: &DrawnIo,
    loss: Option<u64>,
    interrupts: Option<&[DrawnInterrupt]>,
    more_times: &[u64],
    more: impl Fn(u64, &mut HostView),
) -> Vec<ViewedIo> {
    let ns = |us: u64| HostNs(us * 1000);
    let mut view = view_of(vcpus.len(), interrupts.is_some());
    let mut out = Vec::new();
    let mut sink = |io: ViewedIo| out.push(io);
    let ends = vcpus.iter().flatten().map(|(_, end, _)| *end);
    let own = [io.done - 5, io.done - 4, io.done, io.done + 1, io.done + 2, io.done + io.works];
    let told = interrupts.unwrap_or_default();
    let own =
        own.into_iter().chain(told.iter().map(|(us, ..)| *us)).chain(more_times.iter().copied());
    let mut times: Vec<u64> = ends.chain(own).chain(loss).filter(|us| *us <= 61_000).collect();
    times.sort_unstable();
    times.dedup();
    for now in times {
        for (place, spans) in vcpus.iter().enumerate() {
            for (start, end, does) in spans.iter().filter(|(_, end, _)| *end == now) {
                let (start, end, state) = (ns(*start), ns(*end), does.state());
                view.span(&Span { tid: tid(place), start, end, state, antagonists: vec![] });
            }
        }
        if now == io.done - 5 {
            view.block(
                (ns(now), PCPU),
                &block(BlockStep::Submitted, 0),
                Submitter::OwnVm,
                &mut sink,
            );
        }
        if now == io.done {
            view.block((ns(now), PCPU), &completed(0), Submitter::Other, &mut sink);
        }
        if now == io.done + 1 && io.is_at_once {
            view.notifier(ns(now), MAIN_LOOP, true);
            woken_by(&mut view, ns(now), STRANGER, Role::Other);
        }
        for (_, place, vector) in told.iter().filter(|(us, ..)| *us == now) {
            view.interrupt(ns(now), number(*place), *vector);
        }
        more(now, &mut view);
        if now == io.done + io.works {
            view.notifier(ns(now), MAIN_LOOP, false);
        }
        if loss == Some(now) {
            view.lost(ns(now), ns(now + 1), &mut sink);
        }
        let open = |of: Tid| {
            let place = (0..vcpus.len()).find(|place| tid(*place) == of)?;
            let is_open = |(start, end, _): &&(u64, u64, Does)| *start <= now && now < *end;
            let (start, _, does) = vcpus[place].iter().find(is_open)?;
            Some((ns(*start), does.state()))
        };
        view.settle(ns(now), open, &mut sink);
    }
    view.finish(&mut sink);
    out
}

proptest! {
    #[test]
    fn the_true_inactivity_lies_within_the_range((vcpus, io) in drawn()) {
        let mut vcpus: Vec<_> = vcpus.iter().map(laid).collect();
        vcpus[io.target] = interrupted(&vcpus[io.target], io.told);
        let viewed = viewed(&vcpus, &io, None);
        prop_assert_eq!(viewed.len(), 1);
        prop_assert_eq!(viewed[0].done, Ok(HostNs(io.done * 1000)));
        let inactivity = viewed[0].inactivity.as_ref();
        let Ok(Inactivity { least_ns, most_ns, told_by, .. }) = inactivity else {
            return Err(TestCaseError::fail(format!("{inactivity:?}")));
        };
        prop_assert!(told_by.0 <= (io.done + io.works) * 1000);
        let true_ns = truth(&vcpus[io.target], io.done + 1, io.told) * 1000;
        prop_assert!(least_ns <= most_ns, "{least_ns} {most_ns}");
        prop_assert!((*least_ns..=*most_ns).contains(&true_ns), "{least_ns} {true_ns} {most_ns}");
    }

    #[test]
    fn what_touches_a_loss_is_unknown((vcpus, io) in drawn(), at in 0_u64..400) {
        let vcpus: Vec<_> = vcpus.iter().map(laid).collect();
        let loss = io.done - 4 + at % (io.works + 4);
        let viewed = viewed(&vcpus, &io, Some(loss));
        prop_assert_eq!(viewed.len(), 1);
        prop_assert_eq!(viewed[0].done.is_err(), loss < io.done, "it may have ended unseen");
        let why = [NoInactivity::NoEnd, NoInactivity::VcpuUnknown];
        let inactivity = viewed[0].inactivity.clone();
        prop_assert!(inactivity.clone().is_err_and(|reason| why.contains(&reason)), "{inactivity:?}");
    }
}

/// The interrupt of a drawn I/O.
fn own_interrupt(io: &DrawnIo) -> DrawnInterrupt {
    (io.told, io.target, DISKS)
}

proptest! {
    #[test]
    fn the_one_interrupt_of_the_disk_tells_the_true_inactivity((vcpus, io) in drawn()) {
        let mut vcpus: Vec<_> = vcpus.iter().map(laid).collect();
        vcpus[io.target] = interrupted(&vcpus[io.target], io.told);
        let wide = viewed(&vcpus, &io, None)[0].inactivity.clone().expect("known");
        let told = told_viewed(&vcpus, &io, None, Some(&[own_interrupt(&io)]), &[], |_, _| {});
        let narrow = told[0].inactivity.clone().expect("known");
        prop_assert_eq!(narrow.evidence, InactivityEvidence::Interrupt);
        let true_ns = truth(&vcpus[io.target], io.done + 1, io.told) * 1000;
        prop_assert_eq!((narrow.least_ns, narrow.most_ns), (true_ns, true_ns));
        prop_assert_eq!(narrow.told_by, HostNs(io.told * 1000));
        prop_assert!((wide.least_ns..=wide.most_ns).contains(&true_ns), "{wide:?}");
        let target = VcpuId(u16::try_from(io.target).unwrap());
        prop_assert_eq!(narrow.waited.map(|(vcpu, _)| vcpu), (true_ns > 0).then_some(target));
    }

    #[test]
    fn where_the_interrupts_do_not_decide_the_range_stays_as_it_is(
        (vcpus, io) in drawn(),
        other in (0_u64..3000, 0_usize..3, prop::bool::ANY, prop::bool::ANY),
    ) {
        let mut vcpus: Vec<_> = vcpus.iter().map(laid).collect();
        vcpus[io.target] = interrupted(&vcpus[io.target], io.told);
        let wide = viewed(&vcpus, &io, None);
        let (at, place, is_disks, is_suppressed) = other;
        // Another device's interrupt beside the I/O's own, or instead of it if the guest has turned that off.
        let vector = if is_disks && !is_suppressed { DISKS } else { OTHERS };
        let mut interrupts = vec![(io.done + at % io.works, place % vcpus.len(), vector)];
        if !is_suppressed {
            interrupts.push(own_interrupt(&io));
        }
        prop_assert_eq!(&told_viewed(&vcpus, &io, None, Some(&interrupts), &[], |_, _| {}), &wide);
        prop_assert_eq!(&told_viewed(&vcpus, &io, None, Some(&[]), &[], |_, _| {}), &wide);
    }

    #[test]
    fn the_interrupt_may_be_that_of_another_io_that_ended_meanwhile(
        (vcpus, io) in drawn(),
        is_flush in prop::bool::ANY,
    ) {
        let mut vcpus: Vec<_> = vcpus.iter().map(laid).collect();
        vcpus[io.target] = interrupted(&vcpus[io.target], io.told);
        let told = told_viewed(&vcpus, &io, None, Some(&[own_interrupt(&io)]), &[], |now, view| {
            let other = |step, sector| BlockEvent { sectors: if is_flush { 0 } else { 8 }, ..block(step, sector) };
            let mut ignored = |_: ViewedIo| {};
            if now == io.done - 4 {
                let event = other(BlockStep::Submitted, 64);
                view.block((HostNs(now * 1000), PCPU), &event, Submitter::OwnVm, &mut ignored);
            }
            if now == io.done + 2 && !is_flush {
                let event = other(BlockStep::Completed, 64);
                view.block((HostNs(now * 1000), PCPU), &event, Submitter::Other, &mut ignored);
            }
        });
        // Unless it came before the other ended.
        let is_own = !is_flush && io.told < io.done + 2;
        for inactivity in told.iter().filter_map(|io| io.inactivity.as_ref().ok()) {
            let by = inactivity.evidence;
            prop_assert!(is_own || by == InactivityEvidence::RunStates, "{inactivity:?}");
        }
    }

    #[test]
    fn each_of_some_ios_has_its_interrupt_where_the_guest_is_told_of_one_after_the_other(
        (vcpus, io) in drawn(),
        others in prop::collection::vec((5_u64..800, 0_u64..700, 0_usize..3, prop::bool::ANY), 1..5),
    ) {
        let mut vcpus: Vec<_> = vcpus.iter().map(laid).collect();
        let mut ios = vec![(io.done, io.told, io.target, true)];
        for (gap, told, target, is_seen) in others {
            let done = ios[ios.len() - 1].1 + gap;
            ios.push((done, done + told, target % vcpus.len(), is_seen));
        }
        for (_, told, target, _) in &ios {
            vcpus[*target] = interrupted(&vcpus[*target], *told);
        }
        // The VMM sleeps for the first time when all are told.
        let io = DrawnIo { works: ios[ios.len() - 1].1 + 1 - io.done, ..io };
        let seen = ios.iter().filter(|(.., is_seen)| *is_seen);
        let interrupts: Vec<DrawnInterrupt> =
            seen.map(|(_, told, target, _)| (*told, *target, DISKS)).collect();
        let times: Vec<u64> = ios.iter().flat_map(|(done, ..)| [done - 4, *done]).collect();
        let viewed = told_viewed(&vcpus, &io, None, Some(&interrupts), &times, |now, view| {
            let mut ignored = |_: ViewedIo| {};
            for (sector, (done, ..)) in (0..).step_by(64).zip(&ios).skip(1) {
                for (at, step, by) in [
                    (done - 4, BlockStep::Submitted, Submitter::OwnVm),
                    (*done, BlockStep::Completed, Submitter::Other),
                ] {
                    if at == now {
                        view.block((HostNs(now * 1000), PCPU), &block(step, sector), by, &mut ignored);
                    }
                }
            }
        });
        prop_assert_eq!(viewed.len(), ios.len());
        // As long as each was seen; one that has none may have had that of the next.
        let mut all_were_seen = true;
        for (viewed, (done, told, target, is_seen)) in viewed.iter().zip(&ios) {
            all_were_seen &= is_seen;
            let known = viewed.inactivity.as_ref().expect("known");
            // The main loop is woken for the first, and awake when the others are done.
            let handed = done + u64::from(*done == io.done);
            let true_ns = truth(&vcpus[*target], handed, *told) * 1000;
            prop_assert!((known.least_ns..=known.most_ns).contains(&true_ns), "{known:?} {true_ns}");
            let is_certain = known.evidence == InactivityEvidence::Interrupt;
            prop_assert_eq!(is_certain, all_were_seen, "{:?}", known);
        }
    }
}

#[test]
fn the_interrupt_may_be_that_of_an_io_whose_end_was_lost() {
    let (vcpus, io) = ([vec![(0, 61_000, Does::Runs)]], at(20_000, 100));
    let told = |in_flight: bool| {
        let interrupt = [(20_050, 0, DISKS)];
        let viewed =
            told_viewed(&vcpus, &io, None, Some(&interrupt), &[4_000, 5_000], |now, view| {
                let mut ignored = |_: ViewedIo| {};
                if now == 4_000 && in_flight {
                    let event = block(BlockStep::Submitted, 64);
                    view.block((HostNs(now * 1000), PCPU), &event, Submitter::OwnVm, &mut ignored);
                }
                if now == 5_000 {
                    view.lost(HostNs(now * 1000), HostNs(now * 1000 + 1), &mut ignored);
                }
            });
        viewed[0].inactivity.as_ref().expect("known").evidence
    };
    assert_eq!(told(false), InactivityEvidence::Interrupt);
    assert_eq!(told(true), InactivityEvidence::RunStates);
}

#[test]
fn an_interrupt_that_run_states_contradict_decides_nothing() {
    // vCPU0 stays halted, although it is said to have been interrupted.
    let halted = vec![(0, 50_000, Does::IsHalted), (50_000, 61_000, Does::Runs)];
    let kept_off =
        vec![(0, 19_000, Does::Runs), (19_000, 22_000, Does::Waits), (22_000, 61_000, Does::Runs)];
    let (vcpus, io) = ([halted, kept_off], at(20_000, 100));
    let told = told_viewed(&vcpus, &io, None, Some(&[(20_050, 0, DISKS)]), &[], |_, _| {});
    assert_eq!(told, viewed(&vcpus, &io, None));
    // Nor if it is in its guest before the other is, of whom alone the run states know.
    let early = vec![(0, 21_000, Does::IsHalted), (21_000, 61_000, Does::Runs)];
    let with_early = [early, vcpus[1].clone()];
    let told = told_viewed(&with_early, &io, None, Some(&[(20_050, 0, DISKS)]), &[], |_, _| {});
    assert_eq!(told, viewed(&with_early, &io, None));
    // Nor if it halts again before it has been in its guest, though the value is within the range of the other.
    let not_taken = vec![
        (0, 20_010, Does::IsHalted),
        (20_010, 20_060, Does::Waits),
        (20_060, 50_000, Does::IsHalted),
        (50_000, 61_000, Does::Runs),
    ];
    let other =
        vec![(0, 20_020, Does::Runs), (20_020, 55_000, Does::Waits), (55_000, 61_000, Does::Runs)];
    let with_other = [not_taken, other];
    let told = told_viewed(&with_other, &io, None, Some(&[(20_050, 0, DISKS)]), &[], |_, _| {});
    assert_eq!(told, viewed(&with_other, &io, None));
    // Nor does one of a vCPU that nobody knows.
    let told = told_viewed(&vcpus, &io, None, Some(&[(20_050, 9, DISKS)]), &[], |_, _| {});
    assert_eq!(told, viewed(&vcpus, &io, None));
    let told = told_viewed(&vcpus, &io, None, Some(&[(20_050, 1, DISKS)]), &[], |_, _| {});
    let inactivity = told[0].inactivity.as_ref().expect("known");
    assert_eq!(inactivity.evidence, InactivityEvidence::Interrupt);
    assert_eq!((inactivity.least_ns, inactivity.most_ns), (1_999_000, 1_999_000));
}

fn at(done: u64, works: u64) -> DrawnIo {
    DrawnIo { done, works, told: done + 1, target: 0, is_at_once: true }
}

#[test]
fn a_vcpu_that_stayed_halted_was_not_told_and_one_that_waits_may_have_been() {
    // Halted throughout; taken from its pCPU 1 ms before the I/O was done and back 2 ms after it.
    let halted = vec![(0, 50_000, Does::IsHalted), (50_000, 61_000, Does::Runs)];
    let kept_off =
        vec![(0, 19_000, Does::Runs), (19_000, 22_000, Does::Waits), (22_000, 61_000, Does::Runs)];
    let viewed = viewed(&[halted.clone(), kept_off], &at(20_000, 100), None);
    let inactivity = viewed[0].inactivity.as_ref().expect("known");
    assert_eq!((inactivity.least_ns, inactivity.most_ns), (1_999_000, 1_999_000));
    assert_eq!(inactivity.waited, Some((VcpuId(1), None)));
    // Alone, it was not told while the VMM worked: nothing is said.
    let alone = self::viewed(&[halted], &at(20_000, 100), None);
    assert_eq!(alone[0].inactivity, Err(NoInactivity::NobodyTold));
}

#[test]
fn a_halted_vcpu_that_is_woken_meanwhile_and_kept_waiting_is_the_most() {
    let runs = vec![(0, 61_000, Does::Runs)];
    let woken = vec![
        (0, 20_050, Does::IsHalted),
        (20_050, 24_050, Does::Waits),
        (24_050, 61_000, Does::Runs),
    ];
    let viewed = viewed(&[runs, woken], &at(20_000, 100), None);
    let inactivity = viewed[0].inactivity.as_ref().expect("known");
    assert_eq!((inactivity.least_ns, inactivity.most_ns), (0, 4_000_000));
}

#[test]
fn a_vmm_that_never_sleeps_is_never_known_to_have_told() {
    let runs = vec![(0, 61_000, Does::Runs)];
    let viewed = viewed(&[runs], &at(20_000, 1_000_000), None);
    assert_eq!(viewed[0].inactivity, Err(NoInactivity::NeverQuiet));
    assert_eq!(viewed[0].latency_ns(), Some(5_000));
}

/// An I/O that the host's kernel leaves to a worker: when that gets its pCPU, for how long the VMM's main loop was awake
/// before that for something else, whether the worker's wake was recorded, and whether one was seen to do so before.
#[derive(Debug, Clone)]
struct Late {
    waits: u64,
    other: std::ops::Range<u64>,
    is_wake_seen: bool,
    is_usual: bool,
}

fn late() -> impl Strategy<Value = Late> {
    let from = prop_oneof![-20_i64..0, 0_i64..3000];
    (5_u64..3000, from, 1_u64..3000, prop::bool::ANY, prop::bool::ANY).prop_map(
        |(waits, from, length, is_wake_seen, is_usual)| {
            let from = u64::try_from(1000 + from).unwrap();
            Late { waits, other: from..from + length, is_wake_seen, is_usual }
        },
    )
}

/// The host's view of it, whose guest is told at `io.told` after the worker has woken the main loop.
fn late_viewed(vcpus: &[Vec<(u64, u64, Does)>], io: &DrawnIo, late: &Late) -> Vec<ViewedIo> {
    let on = io.done + late.waits;
    let (wakes, idles) = (on + 4, on + 8);
    let (from, until) = (io.done - 1000 + late.other.start, io.done - 1000 + late.other.end);
    let until = until.min(wakes - 1).max(from);
    let has_other = from < wakes - 1;
    let mut times = vec![io.done + 1, on, wakes, idles];
    times.extend([from, until].into_iter().filter(|_| has_other));
    told_viewed(vcpus, io, None, None, &times, |now, view| {
        let time = HostNs(now * 1000);
        if now == io.done && late.is_usual {
            view.handovers.own_workers_hand_over();
        }
        if has_other && now == from {
            view.notifier(time, MAIN_LOOP, true);
            woken_by(view, time, tid(0), Role::Vcpu);
        }
        if has_other && now == until {
            view.notifier(time, MAIN_LOOP, false);
        }
        if now == io.done + 1 && late.is_wake_seen {
            view.waking((time, PCPU), WORKER, (STRANGER, Role::Other));
        }
        if now == on {
            let switch = Switch::new(STRANGER, PrevState::RunnablePreempted, WORKER.0);
            view.switched((time, PCPU), &switch, [Role::Other, WORKER.1]);
        }
        if now == wakes {
            view.notifier(time, MAIN_LOOP, true);
            woken_by(view, time, WORKER.0, WORKER.1);
        }
        if now == idles {
            let switch = Switch::new(WORKER.0, PrevState::Other(0x80), STRANGER);
            view.switched((time, PCPU), &switch, [WORKER.1, Role::Other]);
        }
    })
}

proptest! {
    #[test]
    fn the_true_inactivity_lies_within_the_range_where_a_worker_tells_the_vmm_late(
        (vcpus, io) in drawn(),
        late in late(),
    ) {
        let mut vcpus: Vec<_> = vcpus.iter().map(laid).collect();
        let wakes = io.done + late.waits + 4;
        let told = wakes + (io.told - io.done);
        let io = DrawnIo { works: late.waits + 4 + io.works, told, is_at_once: false, ..io };
        vcpus[io.target] = interrupted(&vcpus[io.target], told);
        let viewed = late_viewed(&vcpus, &io, &late);
        prop_assert_eq!(viewed.len(), 1);
        let inactivity = viewed[0].inactivity.as_ref();
        // To a main loop that was awake it may have been handed over at once, unless workers do that here.
        let was_awake = late.other.start < 1000 && 1000 <= late.other.end;
        let is_unseen = was_awake && !late.is_wake_seen && !late.is_usual;
        if is_unseen && inactivity == Err(&NoInactivity::NotTraced) {
            return Ok(());
        }
        let Ok(Inactivity { least_ns, most_ns, told_by, .. }) = inactivity else {
            return Err(TestCaseError::fail(format!("{inactivity:?}")));
        };
        prop_assert!(told_by.0 >= told * 1000, "{told_by:?}");
        let handed_over = viewed[0].handed_over.expect("it has a range");
        let is_within = (handed_over.from.0..=handed_over.by.0).contains(&(wakes * 1000));
        prop_assert!(is_within, "{handed_over:?} {wakes}");
        // Nobody waited for the vCPU before the VMM had the I/O.
        let true_ns = truth(&vcpus[io.target], wakes, told) * 1000;
        prop_assert!((*least_ns..=*most_ns).contains(&true_ns), "{least_ns} {true_ns} {most_ns}");
    }
}

#[test]
fn where_it_was_not_seen_who_told_the_vmm_nothing_is_known() {
    let vcpus = [laid(&vec![(1000, Does::Runs)])];
    let io = DrawnIo { is_at_once: false, ..at(20_000, 500) };
    // Nobody is woken, and only much later something happens at all.
    let viewed = told_viewed(&vcpus, &io, None, None, &[60_500], |_, _| {});
    assert_eq!(viewed[0].inactivity, Err(NoInactivity::NotTraced));
}
