//! How the thread of one vCPU was scheduled: its timeslices, and why it was off.

use super::distribution::{Distribution, Precision};
use super::ledger::Room;
use super::model::{OffCpu, Timeslices};
use super::reason::OffReason;
use super::runners::{Runners, Told};
use super::stays::Stays;
use super::totals::round_4;
use std::ops::Bound;
use vslice_core::timeline::{RunMode, Span, ThreadState, Who};

/// Who is told apart of those that ran while one vCPU waited, all in one bucket.
const ROOM: Room = Room { keys: 1024, cells: 1024, members: 1 << 14 };
const BUCKET: u64 = 0;

/// The spans of one vCPU thread, in bounded memory.
#[derive(Debug)]
pub(super) struct VcpuTally {
    timeslices: Distribution,
    /// Welford's running mean and sum of squared deviations, as in Knuth, TAOCP vol. 2, 4.2.2,
    /// (15) and (16): one pass, and no difference of large squares.
    mean_ns: f64,
    squares_ns2: f64,
    off_cpu: Vec<OffCpu>,
    waits: Runners<()>,
    wait_ns: u64,
    idle_ns: u64,
    on_pcpu_ns: u64,
    halt_poll_ns: Option<u64>,
    stays: Stays,
}

impl VcpuTally {
    pub(super) fn new() -> Self {
        VcpuTally {
            timeslices: Distribution::new(Precision::Fine),
            mean_ns: 0.0,
            squares_ns2: 0.0,
            off_cpu: OffReason::all()
                .map(|reason| OffCpu { reason, count: 0, total_ns: 0, max_ns: None })
                .collect(),
            waits: Runners::new(ROOM),
            wait_ns: 0,
            idle_ns: 0,
            on_pcpu_ns: 0,
            halt_poll_ns: None,
            stays: Stays::default(),
        }
    }

    /// Takes the thread's next span.
    pub(super) fn span(&mut self, span: &Span) {
        let length_ns = span.length_ns();
        if let Some(timeslice) = self.stays.span(span) {
            self.timeslice(timeslice.length_ns);
        }
        if let ThreadState::WakeupDelay { raced: Some(sleep), .. } = span.state {
            self.off(OffReason::Left(sleep.reason), 0);
        }
        if let Some(reason) = OffReason::of(&span.state) {
            self.off(reason, length_ns);
        } else {
            self.on_pcpu_ns = self.on_pcpu_ns.saturating_add(length_ns);
            if matches!(span.state, ThreadState::Running { mode: RunMode::HaltPoll, .. }) {
                let polled_ns = self.halt_poll_ns.unwrap_or(0);
                self.halt_poll_ns = Some(polled_ns.saturating_add(length_ns));
            }
        }
        if span.state.waits_for().is_some() {
            self.wait(span);
        }
    }

    fn wait(&mut self, span: &Span) {
        self.wait_ns = self.wait_ns.saturating_add(span.length_ns());
        for ran in &span.antagonists {
            match ran.who {
                Who::Idle => self.idle_ns = self.idle_ns.saturating_add(ran.ran_ns),
                Who::Others | Who::Thread(_) => self.waits.add((), BUCKET, ran),
            }
        }
    }

    fn timeslice(&mut self, length_ns: u64) {
        self.timeslices.record(length_ns);
        let deviation_ns = length_ns as f64 - self.mean_ns;
        self.mean_ns += deviation_ns / self.timeslices.count() as f64;
        self.squares_ns2 += deviation_ns * (length_ns as f64 - self.mean_ns);
    }

    fn off(&mut self, reason: OffReason, length_ns: u64) {
        for row in self.off_cpu.iter_mut().filter(|row| row.reason == reason) {
            row.count += 1;
            row.total_ns = row.total_ns.saturating_add(length_ns);
            row.max_ns = row.max_ns.max(Some(length_ns));
        }
    }

    /// How long the thread waited for a pCPU.
    pub(super) fn wait_ns(&self) -> u64 {
        self.wait_ns
    }

    pub(super) fn on_pcpu_ns(&self) -> u64 {
        self.on_pcpu_ns
    }

    /// How long KVM polled for its idle guest, if it was seen to.
    pub(super) fn halt_poll_ns(&self) -> Option<u64> {
        self.halt_poll_ns
    }

    pub(super) fn off_cpu(&self) -> &[OffCpu] {
        &self.off_cpu
    }

    /// Who ran while the thread was runnable, the `count` longest, and what all others ran.
    pub(super) fn waits(&self, count: usize) -> Told<'_, ()> {
        let [told] = self.waits.longest(count, [(Bound::Unbounded, Bound::Unbounded)]);
        told
    }

    /// For how long nobody ran while the thread was runnable.
    pub(super) fn idle_ns(&self) -> u64 {
        self.idle_ns
    }

    pub(super) fn timeslices(&self) -> Timeslices {
        let slices = &self.timeslices;
        Timeslices {
            count: slices.count(),
            mean_ns: slices.mean_ns(),
            cv: self.variation(),
            p10_ns: slices.quantile_ns(0.1),
            p50_ns: slices.quantile_ns(0.5),
            p90_ns: slices.quantile_ns(0.9),
            p99_ns: slices.quantile_ns(0.99),
            max_ns: slices.max_ns(),
        }
    }

    fn variation(&self) -> Option<f64> {
        let count = self.timeslices.count();
        if count < 2 || self.mean_ns <= 0.0 {
            return None;
        }
        let deviation_ns = (self.squares_ns2 / (count - 1) as f64).sqrt();
        Some(round_4(deviation_ns / self.mean_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use vslice_core::timeline::{Antagonist, Reason, Sleep, UnknownCause};
    use vslice_core::units::{HostNs, PcpuId, Tid};

    const PCPU: PcpuId = PcpuId(1);

    /// Draws the spans of a thread, a nanosecond a character: `=` running, `p` preempted, `q` kept off by its quota, `w`
    /// woken, `g` and `k` running in the guest and in KVM, `f` on the big lock, `h` halted, `o` asleep elsewhere, `s` asleep without a stack, `?`
    /// lost. A `|` begins a new span of the same kind.
    fn drawn(drawing: &str) -> Vec<Span> {
        let mut spans: Vec<(char, Span)> = Vec::new();
        let mut now = HostNs(100);
        let mut is_cut = true;
        for letter in drawing.chars() {
            if letter == '|' {
                is_cut = true;
                continue;
            }
            let end = HostNs(now.0 + 1);
            match spans.last_mut() {
                Some((last, span)) if *last == letter && !is_cut => span.end = end,
                _ => {
                    let state = state(letter);
                    let span = Span { tid: Tid(7), start: now, end, state, antagonists: vec![] };
                    spans.push((letter, span));
                }
            }
            is_cut = false;
            now = end;
        }
        spans.into_iter().map(|(_, span)| span).collect()
    }

    fn state(letter: char) -> ThreadState {
        let blocked = |reason| ThreadState::Blocked(Sleep::new(reason));
        let running = |mode| ThreadState::Running { pcpu: PCPU, mode };
        match letter {
            '=' => running(RunMode::Unsplit),
            'g' => running(RunMode::Guest),
            'k' => running(RunMode::Kvm),
            'l' => running(RunMode::HaltPoll),
            'p' => ThreadState::PreemptWait {
                pcpu: PCPU,
                reason: Reason::Timeslice,
                stack: None,
                lock: None,
            },
            'q' => ThreadState::PreemptWait {
                pcpu: PCPU,
                reason: Reason::Throttle,
                stack: None,
                lock: None,
            },
            'w' => ThreadState::WakeupDelay { pcpu: PCPU, raced: None },
            'f' => blocked(Reason::Bql),
            'h' => blocked(Reason::Halt),
            'o' => blocked(Reason::PollSleep),
            's' => blocked(Reason::Unknown),
            '?' => ThreadState::Unknown { cause: UnknownCause::Lost },
            other => panic!("no state is drawn as {other}"),
        }
    }

    fn tally(drawing: &str) -> VcpuTally {
        let mut tally = VcpuTally::new();
        drawn(drawing).iter().for_each(|span| tally.span(span));
        tally
    }

    #[test]
    fn only_stays_with_both_ends_seen_are_timeslices() {
        for (drawing, count, max_ns) in [
            ("", 0, 0),
            ("=====", 0, 0),
            ("=====pp", 0, 0),
            ("pp=====", 0, 0),
            ("pp=====p", 1, 5),
            ("p==p===ff====", 2, 3),
            ("p==?p===p", 1, 3),
            ("p==p?===p=w", 2, 2),
            ("p=====|===p", 1, 8),
            ("p==gg=kkkp==p", 2, 8),
            ("==gg=kkkp", 0, 0),
        ] {
            let timeslices = tally(drawing).timeslices();
            let longest_ns = timeslices.max_ns.unwrap_or(0);
            assert_eq!((timeslices.count, longest_ns), (count, max_ns), "{drawing}");
        }
    }

    #[test]
    fn polling_for_an_idle_guest_is_time_on_a_pcpu() {
        let polled = tally("ggkllhhwllkg");
        assert_eq!((polled.on_pcpu_ns(), polled.halt_poll_ns()), (9, Some(4)));
        assert_eq!(tally("ggkhhwkg").halt_poll_ns(), None);
    }

    #[test]
    fn a_gap_between_spans_hides_an_end() {
        let mut spans = drawn("p===f==p");
        spans.remove(2);
        let mut tally = VcpuTally::new();
        spans.iter().for_each(|span| tally.span(span));
        assert_eq!(tally.timeslices().count, 0);
        assert_eq!(tally.on_pcpu_ns(), 5);
    }

    #[test]
    fn off_cpu_time_is_counted_by_reason() {
        let tally = tally("=pp=p=www=ff=hhh=o=ss=??=pppp");
        let rows: Vec<_> = tally
            .off_cpu()
            .iter()
            .filter(|row| row.count > 0)
            .map(|row| (row.reason.name(), row.count, row.total_ns, row.max_ns.unwrap_or(0)))
            .collect();
        assert_eq!(
            rows,
            [
                ("bql", 1, 2, 2),
                ("halt", 1, 3, 3),
                ("timeslice", 3, 7, 4),
                ("poll_sleep", 1, 1, 1),
                ("unknown", 1, 2, 2),
                ("wakeup_delay", 1, 3, 3),
                ("not_recorded", 1, 2, 2),
            ]
        );
        assert_eq!(tally.on_pcpu_ns(), 9);
        assert_eq!(tally.wait_ns(), 10, "preempted and woken");
    }

    #[test]
    fn a_sleep_that_was_over_before_it_began_counts_and_takes_no_time() {
        let mut tally = VcpuTally::new();
        let raced = Some(Sleep::new(Reason::Bql));
        let state = ThreadState::WakeupDelay { pcpu: PCPU, raced };
        let (start, end) = (HostNs(10), HostNs(15));
        tally.span(&Span { tid: Tid(7), start, end, state, antagonists: vec![] });
        let row = |wanted| *tally.off_cpu().iter().find(|row| row.reason == wanted).unwrap();
        let (lock, delay) = (row(OffReason::Left(Reason::Bql)), row(OffReason::WakeupDelay));
        assert_eq!((lock.count, lock.total_ns), (1, 0));
        assert_eq!((delay.count, delay.total_ns), (1, 5));
    }

    #[test]
    fn the_variation_of_two_four_four_four_five_five_seven_nine() {
        let slices = tally("p==p====p====p====p=====p=====p=======p=========p").timeslices();
        assert_eq!((slices.count, slices.mean_ns), (8, Some(5)));
        assert_eq!(slices.cv, Some(0.4276), "sqrt(32 / 7) / 5");
        assert_eq!((slices.p10_ns, slices.p50_ns, slices.p99_ns), (Some(2), Some(4), Some(9)));
        assert_eq!(tally("p===p===p===p").timeslices().cv, Some(0.0));
        assert_eq!(tally("p===p").timeslices().cv, None);
    }

    #[test]
    fn antagonists_of_all_waits_are_added_up() {
        let mut spans = drawn("=ppp=www=");
        let ran = |tid, ran_ns| Antagonist::new(Who::of_tid(Tid(tid)), ran_ns);
        spans[1].antagonists = vec![ran(2, 2), ran(3, 1)];
        spans[3].antagonists = vec![ran(3, 2), ran(0, 1)];
        let mut tally = VcpuTally::new();
        spans.iter().for_each(|span| tally.span(span));
        let told = tally.waits(8);
        let rows: Vec<_> = told.names.iter().map(|row| (row.example.tid, row.ran_ns)).collect();
        assert_eq!((rows, told.others_ns), (vec![(Tid(3), 3), (Tid(2), 2)], 0));
        assert_eq!((tally.idle_ns(), tally.wait_ns()), (1, 6), "idle is nobody");
    }

    #[test]
    fn nobody_is_in_the_way_of_a_thread_whose_quota_is_used_up() {
        let mut spans = drawn("=qqq=ppp=");
        let ran = |ran_ns| vec![Antagonist::new(Who::of_tid(Tid(2)), ran_ns)];
        (spans[1].antagonists, spans[3].antagonists) = (ran(3), ran(2));
        let mut tally = VcpuTally::new();
        spans.iter().for_each(|span| tally.span(span));
        let told = tally.waits(8);
        let ran_ns: u64 = told.names.iter().map(|row| row.ran_ns).sum();
        assert_eq!((ran_ns, told.others_ns, tally.wait_ns()), (2, 0, 3));
    }

    proptest! {
        #[test]
        fn every_nanosecond_is_on_or_off(drawing in "[=pwfhos?]{0,120}") {
            let tally = tally(&drawing);
            let off_ns: u64 = tally.off_cpu().iter().map(|row| row.total_ns).sum();
            let drawn_ns = u64::try_from(drawing.len()).unwrap();
            prop_assert_eq!(tally.on_pcpu_ns() + off_ns, drawn_ns);
            prop_assert!(tally.timeslices().count <= tally.on_pcpu_ns());
        }
    }
}
