//! Who took the time of a gap.

use super::evidence::{Evidence, Split, Tick};

/// Who had the largest part of a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The host took the vCPU's pCPU, and the steal clock says so.
    HostSteal,
    /// The vCPU made no progress, and the steal clock says that it was not waiting for a pCPU: a
    /// wait in the VMM, on QEMU's big lock for instance.
    HostNoSteal,
    /// The vCPU made no progress, and this guest is not told of steal gap by gap.
    Host,
    /// The guest's own scheduler ran another thread.
    GuestSwitch,
    /// The loop's thread was not runnable: stopped by a signal, frozen, waiting for memory.
    GuestStopped,
    /// The guest's own kernel: an interrupt, a tick, a switch.
    GuestInterrupt,
    /// Short, and nothing tells an interrupt from the host.
    Unknown,
}

impl Kind {
    /// Every kind, as reports list them.
    pub const ALL: [Kind; 7] = [
        Kind::HostSteal,
        Kind::HostNoSteal,
        Kind::Host,
        Kind::GuestSwitch,
        Kind::GuestStopped,
        Kind::GuestInterrupt,
        Kind::Unknown,
    ];

    /// The name in JSON and in tags.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::HostSteal => "host_steal",
            Kind::HostNoSteal => "host_no_steal",
            Kind::Host => "host",
            Kind::GuestSwitch => "guest_switch",
            Kind::GuestStopped => "guest_stopped",
            Kind::GuestInterrupt => "guest_interrupt",
            Kind::Unknown => "unknown",
        }
    }

    /// Whether the host took the vCPU, by steal or by a wait in the VMM.
    #[must_use]
    pub fn is_host(self) -> bool {
        matches!(self, Kind::HostSteal | Kind::HostNoSteal | Kind::Host)
    }
}

/// What this guest's steal clock tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StealTold {
    /// Gap by gap: the kernel leaves steal out of a thread's CPU time
    /// (`CONFIG_PARAVIRT_TIME_ACCOUNTING`).
    PerGap,
    /// The clock works, and stood still while the host took the vCPU: there was no steal.
    StoodStill,
    /// The clock works, but only its total is told.
    Total,
    /// It has never moved since the guest's boot: it may not exist.
    Never,
}

/// What holds for all gaps of a vCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// What is longer is no interrupt, unless it is a slow one.
    pub interrupt_max_ns: u64,
    /// A gap may be a slow tick, or another slow interrupt, up to this length: [`slow_tick_max_ns`].
    pub slow_tick_max_ns: u64,
    /// So long before a tick left its time behind its handler began: [`tick_lead_ns`].
    pub tick_lead_ns: u64,
    /// What the steal clock tells.
    pub steal: StealTold,
    /// Whether the kernel may leave interrupts out of CPU time as well
    /// (`CONFIG_IRQ_TIME_ACCOUNTING`), so that a short uncounted part may be either.
    pub interrupts_may_be_uncounted: bool,
}

/// Ticks of which the usual length is told.
const TICKS_MIN: usize = 20;

/// A tick that takes so many times the usual time may just be slow.
const SLOW_TICK_FACTOR: u64 = 8;

/// When the loop has run for so long and hardly a tick was a gap, ticks are shorter than a gap: a kernel
/// has at least 100 a second, and most of these would have been seen.
const TICKS_SURELY_NS: u64 = 2_000_000_000;

/// How long a tick of this guest may be before it is said that the host took part of it: eight times
/// the median of the gaps with a tick that are not longer than an interrupt. 0 where ticks are too short
/// to be gaps. When the loop, in the `ran_ns` outside gaps, ran too little to meet enough of them, it is
/// not known how long they are: then a tick may take the longest interrupt for its median.
///
/// Under TCG a tick reads an emulated timer, for which the vCPU waits in the VMM now and then, mostly
/// on its pCPU: gaps of 100 to 400 us, a tenth of all above 100 us where this was measured. So may an
/// interrupt that leaves no trace, and what is around a switch. A host gap of that length looks the same
/// from inside, so it is not known whose they are. The factor was chosen by looking at such runs, in which
/// ticks took up to 6.8 times the median. Ticks below the loop's
/// threshold are not seen, so that the median is rather too long.
#[must_use]
pub fn slow_tick_max_ns(evidence: &[Evidence], interrupt_max_ns: u64, ran_ns: u64) -> u64 {
    let lengths = plain_ticks(evidence, interrupt_max_ns).map(|(length_ns, _)| length_ns);
    let usual_ns = match usual_ns(lengths.collect()) {
        0 if ran_ns < TICKS_SURELY_NS => interrupt_max_ns,
        usual_ns => usual_ns,
    };
    usual_ns.saturating_mul(SLOW_TICK_FACTOR)
}

/// How long after its beginning the handler of a tick leaves its time behind: the median of those gaps
/// that are not longer than a tick may be. Until then it programs the next one and reads clocks, which
/// under TCG are devices: some tens of microseconds. 0 if there are too few.
#[must_use]
pub fn tick_lead_ns(evidence: &[Evidence], tick_max_ns: u64) -> u64 {
    usual_ns(plain_ticks(evidence, tick_max_ns).map(|(_, start_ns)| start_ns).collect())
}

/// The gaps with a tick that are not longer than `max_ns`: their lengths, and when in them the tick
/// left its time behind.
fn plain_ticks(evidence: &[Evidence], max_ns: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
    evidence.iter().filter_map(move |one| match one.tick {
        Tick::After { start_ns } if one.length_ns <= max_ns => Some((one.length_ns, start_ns)),
        _ => None,
    })
}

/// The median, if there are enough to tell; else 0.
fn usual_ns(mut times_ns: Vec<u64>) -> u64 {
    if times_ns.len() < TICKS_MIN {
        return 0;
    }
    times_ns.sort_unstable();
    times_ns[times_ns.len() / 2]
}

/// What the steal clock of one vCPU is worth, from how far it moved and what the gaps held.
///
/// The clock is read from `/proc/stat`, in steps of `step_ns`, and each of its two readings may be
/// one step late.
///
/// - `since_boot_ns` and `moved_ns`: what it showed at the end, and how far it moved in the run.
/// - `uncounted_ns`: the sum of all [`Split::uncounted_ns`].
/// - `counted_ns`: the sum of all [`Split::counted_ns`] above the longest interrupt.
#[must_use]
pub fn steal_told(
    since_boot_ns: u64,
    moved_ns: u64,
    step_ns: u64,
    uncounted_ns: u64,
    counted_ns: u64,
) -> StealTold {
    if since_boot_ns == 0 {
        return StealTold::Never;
    }
    let is_in_cpu_time = uncounted_ns.saturating_mul(2) >= moved_ns.saturating_sub(step_ns);
    if moved_ns > step_ns && is_in_cpu_time {
        return StealTold::PerGap;
    }
    if moved_ns == 0 && counted_ns > step_ns.saturating_mul(3) {
        return StealTold::StoodStill;
    }
    StealTold::Total
}

/// How much of a gap was whose, in nanoseconds. The parts add up to the gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Parts([u64; Kind::ALL.len()]);

impl Parts {
    /// Decides. Every nanosecond of the gap goes to exactly one kind.
    #[must_use]
    pub fn of(evidence: &Evidence, told: &Told) -> Parts {
        let Split { switch_ns, stopped_ns, uncounted_ns, counted_ns } = evidence.split();
        let mut parts = Parts::default();
        parts.add(Kind::GuestSwitch, switch_ns);
        parts.add(Kind::GuestStopped, stopped_ns);
        parts.add(uncounted_kind(uncounted_ns, told), uncounted_ns);
        let kind = counted_kind(counted_ns, evidence, told);
        let handler_ns = if kind.is_host() { handler_ns(evidence, told) } else { 0 };
        parts.add(kind, counted_ns - handler_ns.min(counted_ns));
        parts.add(Kind::GuestInterrupt, handler_ns.min(counted_ns));
        parts
    }

    /// The part of one kind.
    #[must_use]
    pub fn ns(&self, kind: Kind) -> u64 {
        self.0[kind as usize]
    }

    /// What the host took.
    #[must_use]
    pub fn host_ns(&self) -> u64 {
        Kind::ALL.into_iter().filter(|kind| kind.is_host()).map(|kind| self.ns(kind)).sum()
    }

    /// The kind that has the largest part; of equal ones the first of [`Kind::ALL`].
    #[must_use]
    pub fn kind(&self) -> Kind {
        let mut largest = Kind::HostSteal;
        for kind in Kind::ALL {
            if self.ns(kind) > self.ns(largest) {
                largest = kind;
            }
        }
        largest
    }

    fn add(&mut self, kind: Kind, ns: u64) {
        self.0[kind as usize] += ns;
    }
}

/// How long the guest's own handler of a pending tick ran at the end of a gap, once the host had
/// given the vCPU back: known because the tick left its time behind, and it is known how long it usually
/// takes to come to that. What is too long even for a slow tick is none: then the host took the vCPU during the handler.
#[must_use]
pub fn handler_ns(evidence: &Evidence, told: &Told) -> u64 {
    match evidence.tick {
        Tick::After { start_ns } => {
            let after_ns = evidence.length_ns.saturating_sub(start_ns);
            let max_ns = told.interrupt_max_ns.max(told.slow_tick_max_ns);
            if after_ns <= max_ns { after_ns + told.tick_lead_ns.min(start_ns) } else { 0 }
        }
        Tick::Outside | Tick::Untold => 0,
    }
}

fn uncounted_kind(uncounted_ns: u64, told: &Told) -> Kind {
    let is_short = uncounted_ns <= told.interrupt_max_ns;
    match told.steal {
        StealTold::PerGap if is_short && told.interrupts_may_be_uncounted => Kind::Unknown,
        StealTold::PerGap => Kind::HostSteal,
        _ if is_short && told.interrupts_may_be_uncounted => Kind::GuestInterrupt,
        _ => Kind::Unknown,
    }
}

fn counted_kind(counted_ns: u64, evidence: &Evidence, told: &Told) -> Kind {
    let has_tick = matches!(evidence.tick, Tick::After { .. });
    if counted_ns <= told.interrupt_max_ns {
        let switched = evidence.voluntary + evidence.involuntary > 0;
        return if switched || has_tick { Kind::GuestInterrupt } else { Kind::Unknown };
    }
    if counted_ns <= told.slow_tick_max_ns {
        return Kind::Unknown;
    }
    match told.steal {
        StealTold::PerGap | StealTold::StoodStill => Kind::HostNoSteal,
        StealTold::Total | StealTold::Never => Kind::Host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const US: u64 = 1_000;
    const MS: u64 = 1_000 * US;

    fn told(steal: StealTold) -> Told {
        Told {
            interrupt_max_ns: 100 * US,
            slow_tick_max_ns: 0,
            tick_lead_ns: 0,
            steal,
            interrupts_may_be_uncounted: false,
        }
    }

    /// A gap that was all counted as CPU time.
    fn counted(length_ns: u64, ticked: bool) -> Evidence {
        Evidence {
            length_ns,
            window_ns: length_ns,
            cpu_ns: length_ns,
            run_delay_ns: Some(0),
            tick: if ticked { Tick::After { start_ns: 2 * US } } else { Tick::Outside },
            ..Evidence::default()
        }
    }

    fn kind(evidence: &Evidence, steal: StealTold) -> Kind {
        Parts::of(evidence, &told(steal)).kind()
    }

    #[test]
    fn a_long_gap_in_which_the_thread_ran_is_the_hosts() {
        for (steal, expected) in [
            (StealTold::PerGap, Kind::HostNoSteal),
            (StealTold::StoodStill, Kind::HostNoSteal),
            (StealTold::Total, Kind::Host),
            (StealTold::Never, Kind::Host),
        ] {
            assert_eq!(kind(&counted(4 * MS, true), steal), expected);
            assert_eq!(kind(&counted(4 * MS, false), steal), expected);
        }
    }

    #[test]
    fn a_short_gap_is_an_interrupt_only_if_one_was_seen() {
        for steal in [StealTold::PerGap, StealTold::Never] {
            assert_eq!(kind(&counted(100 * US, true), steal), Kind::GuestInterrupt);
            assert_eq!(kind(&counted(100 * US, false), steal), Kind::Unknown);
            assert_eq!(
                kind(&Evidence { tick: Tick::Untold, ..counted(40 * US, false) }, steal),
                Kind::Unknown
            );
            let switched =
                Evidence { involuntary: 1, tick: Tick::Untold, ..counted(40 * US, false) };
            assert_eq!(kind(&switched, steal), Kind::GuestInterrupt);
        }
    }

    #[test]
    fn a_slow_tick_is_not_said_to_be_the_hosts() {
        let told = Told { slow_tick_max_ns: 200 * US, ..told(StealTold::Never) };
        let kind = |evidence: &Evidence| Parts::of(evidence, &told).kind();
        assert_eq!(kind(&counted(200 * US, true)), Kind::Unknown);
        assert_eq!(kind(&counted(203 * US, true)), Kind::Host);
        assert_eq!(kind(&counted(200 * US, false)), Kind::Unknown, "another slow interrupt");
        assert_eq!(kind(&counted(201 * US, false)), Kind::Host);
        assert_eq!(kind(&counted(100 * US, true)), Kind::GuestInterrupt);
    }

    #[test]
    fn the_handler_at_the_end_is_the_guests() {
        let at = |start_ns| Evidence { tick: Tick::After { start_ns }, ..counted(4 * MS, true) };
        let parts = Parts::of(&at(4 * MS - 60 * US), &told(StealTold::Never));
        assert_eq!((parts.host_ns(), parts.ns(Kind::GuestInterrupt)), (4 * MS - 60 * US, 60 * US));
        let slow = Told { slow_tick_max_ns: 200 * US, ..told(StealTold::Never) };
        assert_eq!(Parts::of(&at(4 * MS - 200 * US), &slow).ns(Kind::GuestInterrupt), 200 * US);
        let led = Told { tick_lead_ns: 30 * US, ..told(StealTold::Never) };
        assert_eq!(handler_ns(&at(4 * MS - 60 * US), &led), 90 * US);
        assert_eq!(handler_ns(&at(10 * US), &led), 0, "too long a time after it");
        let parts = Parts::of(&at(4 * MS - 101 * US), &told(StealTold::Never));
        assert_eq!(parts.host_ns(), 4 * MS, "too long for a handler");
        assert_eq!(handler_ns(&counted(4 * MS, false), &told(StealTold::Never)), 0);
    }

    #[test]
    fn how_slow_a_tick_may_be_is_learnt() {
        let mut evidence: Vec<Evidence> = (0..19).map(|_| counted(40 * US, true)).collect();
        let long_ns = 2_000 * MS;
        let slow_tick_max_ns =
            |evidence: &[Evidence]| slow_tick_max_ns(evidence, 100 * US, long_ns);
        assert_eq!(slow_tick_max_ns(&evidence), 0, "too few in so long a time");
        assert_eq!(tick_lead_ns(&evidence, 100 * US), 0, "too few");
        evidence.push(counted(60 * US, true));
        assert_eq!(slow_tick_max_ns(&evidence), 320 * US);
        evidence.extend([counted(4 * MS, true); 30]);
        evidence.extend([counted(90 * US, false); 30]);
        assert_eq!(slow_tick_max_ns(&evidence), 320 * US, "neither long nor without a tick");
        assert_eq!(tick_lead_ns(&evidence, 100 * US), 2 * US);
    }

    #[test]
    fn a_loop_that_hardly_ran_does_not_know_how_slow_a_tick_is() {
        let few = [counted(40 * US, true); 19];
        assert_eq!(slow_tick_max_ns(&few, 100 * US, 500 * MS), 800 * US);
        assert_eq!(slow_tick_max_ns(&[], 100 * US, 1_999 * MS), 800 * US);
        assert_eq!(slow_tick_max_ns(&[], 100 * US, 2_000 * MS), 0, "they are no gaps");
        let enough = [counted(40 * US, true); 20];
        assert_eq!(slow_tick_max_ns(&enough, 100 * US, 500 * MS), 320 * US);
    }

    #[test]
    fn uncounted_time_is_steal_only_where_steal_is_left_out() {
        let missing = |length_ns| Evidence { cpu_ns: 0, ..counted(length_ns, false) };
        assert_eq!(kind(&missing(4 * MS), StealTold::PerGap), Kind::HostSteal);
        assert_eq!(kind(&missing(50 * US), StealTold::PerGap), Kind::HostSteal);
        assert_eq!(kind(&missing(4 * MS), StealTold::Never), Kind::Unknown);
        let told = Told { interrupts_may_be_uncounted: true, ..told(StealTold::PerGap) };
        assert_eq!(Parts::of(&missing(50 * US), &told).kind(), Kind::Unknown);
        assert_eq!(Parts::of(&missing(4 * MS), &told).kind(), Kind::HostSteal);
        let told = Told { steal: StealTold::Never, ..told };
        assert_eq!(Parts::of(&missing(50 * US), &told).kind(), Kind::GuestInterrupt);
    }

    #[test]
    fn the_guests_own_gaps() {
        let waited = Evidence {
            cpu_ns: 10 * US,
            run_delay_ns: Some(4 * MS - 10 * US),
            involuntary: 1,
            ..counted(4 * MS, false)
        };
        assert_eq!(kind(&waited, StealTold::Never), Kind::GuestSwitch);
        let stopped = Evidence { cpu_ns: 0, voluntary: 1, ..counted(50 * MS, false) };
        assert_eq!(kind(&stopped, StealTold::PerGap), Kind::GuestStopped);
    }

    #[test]
    fn a_mixed_gap_is_told_in_numbers() {
        let mixed = Evidence {
            cpu_ns: 3 * MS,
            run_delay_ns: Some(MS),
            involuntary: 1,
            ..counted(4 * MS, false)
        };
        let parts = Parts::of(&mixed, &told(StealTold::Never));
        assert_eq!((parts.ns(Kind::GuestSwitch), parts.ns(Kind::Host)), (MS, 3 * MS));
        assert_eq!((parts.kind(), parts.host_ns()), (Kind::Host, 3 * MS));
    }

    #[test]
    fn what_a_steal_clock_is_worth() {
        let told = |since_boot, moved, uncounted, counted| {
            steal_told(since_boot * MS, moved * MS, 10 * MS, uncounted * MS, counted * MS)
        };
        assert_eq!(told(0, 0, 0, 900), StealTold::Never);
        assert_eq!(told(500, 300, 280, 0), StealTold::PerGap);
        assert_eq!(told(500, 300, 20, 280), StealTold::Total, "counted to the thread");
        assert_eq!(told(500, 0, 0, 900), StealTold::StoodStill);
        assert_eq!(told(500, 0, 0, 30), StealTold::Total, "too little to be sure");
        assert_eq!(told(500, 10, 0, 900), StealTold::Total, "one step is no evidence");
    }

    #[test]
    fn kinds_are_in_the_order_of_their_numbers() {
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
        }
    }

    proptest! {
        #[test]
        fn the_parts_add_up_and_their_kind_has_one(
            length_ns in 1_u64..1 << 36,
            around_ns in 0_u64..1 << 26,
            cpu_ns in 0_u64..1 << 37,
            run_delay_ns in proptest::option::of(0_u64..1 << 37),
            voluntary in 0_u64..2,
            involuntary in 0_u64..2,
            tick in prop_oneof![
                Just(Tick::Untold),
                Just(Tick::Outside),
                (0_u64..1 << 36).prop_map(|start_ns| Tick::After { start_ns }),
            ],
            steal in prop_oneof![
                Just(StealTold::PerGap),
                Just(StealTold::StoodStill),
                Just(StealTold::Total),
                Just(StealTold::Never),
            ],
            interrupts_may_be_uncounted in any::<bool>(),
            slow_tick_max_ns in 0_u64..1 << 36,
            tick_lead_ns in 0_u64..1 << 36,
        ) {
            let window_ns = length_ns + around_ns;
            let evidence = Evidence {
                length_ns, window_ns, cpu_ns,
                regained_ns: 0, run_delay_ns, voluntary, involuntary, tick,
            };
            let told = Told {
                interrupt_max_ns: 100 * US,
                slow_tick_max_ns,
                tick_lead_ns,
                steal,
                interrupts_may_be_uncounted,
            };
            let parts = Parts::of(&evidence, &told);
            let sum_ns: u64 = Kind::ALL.into_iter().map(|kind| parts.ns(kind)).sum();
            prop_assert_eq!(sum_ns, length_ns);
            let largest_ns = parts.ns(parts.kind());
            prop_assert!(Kind::ALL.into_iter().all(|kind| parts.ns(kind) <= largest_ns));
            prop_assert!(largest_ns > 0);
        }
    }
}
