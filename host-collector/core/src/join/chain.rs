//! What a vCPU's thread did during one request, in order.

use crate::timeline::{RunMode, Span, ThreadState};
use crate::units::{PcpuId, Tid};

/// Links that a [`Chain`] keeps at most.
pub const CHAIN_SPANS_MAX: usize = 64;

/// One link: a span, or a timeslice that came in several spans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The span; for a timeslice in several spans, from the start of the first to the end of the last, with
    /// [`RunMode::Unsplit`] if their modes differ.
    pub span: Span,
    /// In whose code the thread was during the timeslice; all 0 if that was not recorded, and off a pCPU.
    pub split: ModeSplit,
}

/// In whose code a thread was during a timeslice. For the rest of the timeslice's length that was not
/// recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ModeSplit {
    /// In the guest, in nanoseconds.
    pub guest_ns: u64,
    /// In KVM, in nanoseconds.
    pub kvm_ns: u64,
    /// In the VMM, in nanoseconds.
    pub vmm_ns: u64,
    /// In KVM for a guest that was idle, in nanoseconds.
    pub halt_poll_ns: u64,
    /// How often it exited from the guest within the timeslice.
    pub exits_count: u64,
}

impl ModeSplit {
    fn of(state: &ThreadState, length_ns: u64) -> ModeSplit {
        let mut split = ModeSplit::default();
        match state {
            ThreadState::Running { mode: RunMode::Guest, .. } => split.guest_ns = length_ns,
            ThreadState::Running { mode: RunMode::Kvm, .. } => split.kvm_ns = length_ns,
            ThreadState::Running { mode: RunMode::Vmm, .. } => split.vmm_ns = length_ns,
            ThreadState::Running { mode: RunMode::HaltPoll, .. } => split.halt_poll_ns = length_ns,
            _ => {}
        }
        split
    }

    fn add(&mut self, more: ModeSplit) {
        self.guest_ns += more.guest_ns;
        self.kvm_ns += more.kvm_ns;
        self.vmm_ns += more.vmm_ns;
        self.halt_poll_ns += more.halt_poll_ns;
        self.exits_count += more.exits_count;
    }
}

/// What a vCPU's thread did during one request: its first [`CHAIN_SPANS_MAX`] spans over the request's
/// window. A timeslice counts as one, however many exits it has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chain {
    links: Vec<Link>,
    /// How many more links the window had.
    pub cut_count: u64,
    /// The state that came last, and whose it was.
    last: Option<(Tid, ThreadState)>,
}

impl Chain {
    /// The links, in order of time.
    #[must_use]
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// Their spans, in order of time.
    pub fn spans(&self) -> impl Iterator<Item = &Span> {
        self.links.iter().map(|link| &link.span)
    }

    /// Adds the next span, which starts where the last one ended. A span of another thread is another stay.
    pub fn push(&mut self, span: Span) {
        let last = self.last.replace((span.tid, span.state));
        let last = last.filter(|(tid, _)| *tid == span.tid).map(|(_, state)| state);
        let mut split = ModeSplit::of(&span.state, span.length_ns());
        let goes_on = last.is_some_and(|last| is_one_stay(&last, &span.state));
        split.exits_count = u64::from(goes_on && left_guest(last, &span.state));
        if !goes_on {
            if self.links.len() >= CHAIN_SPANS_MAX {
                self.cut_count += 1;
            } else {
                self.links.push(Link { span, split });
            }
        } else if self.cut_count == 0
            && let Some(link) = self.links.last_mut()
        {
            link.split.add(split);
            link.span.end = span.end;
            if let Some(pcpu) = pcpu(&link.span.state)
                && link.span.state != span.state
            {
                link.span.state = ThreadState::Running { pcpu, mode: RunMode::Unsplit };
            }
        }
    }
}

fn pcpu(state: &ThreadState) -> Option<PcpuId> {
    match state {
        ThreadState::Running { pcpu, .. } => Some(*pcpu),
        _ => None,
    }
}

fn is_one_stay(before: &ThreadState, after: &ThreadState) -> bool {
    pcpu(before).is_some_and(|of| pcpu(after) == Some(of))
}

fn left_guest(before: Option<ThreadState>, after: &ThreadState) -> bool {
    let is_guest =
        |state: &ThreadState| matches!(state, ThreadState::Running { mode: RunMode::Guest, .. });
    before.is_some_and(|before| is_guest(&before)) && !is_guest(after)
}

impl FromIterator<Span> for Chain {
    fn from_iter<Spans: IntoIterator<Item = Span>>(spans: Spans) -> Chain {
        let mut chain = Chain::default();
        spans.into_iter().for_each(|span| chain.push(span));
        chain
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::{Reason, Sleep};
    use crate::units::HostNs;

    /// The chain of a drawing, a nanosecond a character: `=` not split, guest, KVM, VMM, polling, `_` asleep;
    /// capitals are on another pCPU.
    fn drawn(drawing: &str) -> Chain {
        let letters: Vec<char> = drawing.chars().collect();
        let (mut chain, mut start) = (Chain::default(), HostNs(0));
        for run in letters.chunk_by(|left, right| left == right) {
            let end = HostNs(start.0 + run.len() as u64);
            let mode = match run[0].to_ascii_lowercase() {
                'g' => RunMode::Guest,
                'k' => RunMode::Kvm,
                'v' => RunMode::Vmm,
                'p' => RunMode::HaltPoll,
                _ => RunMode::Unsplit,
            };
            let pcpu = PcpuId(u32::from(run[0].is_ascii_uppercase()));
            let state = match run[0] {
                '_' => ThreadState::Blocked(Sleep::new(Reason::Halt)),
                _ => ThreadState::Running { pcpu, mode },
            };
            chain.push(Span { tid: Tid(1), start, end, state, antagonists: vec![] });
            start = end;
        }
        chain
    }

    fn splits(chain: &Chain) -> Vec<(u64, [u64; 5])> {
        let split = |link: &Link| {
            let ModeSplit { guest_ns, kvm_ns, vmm_ns, halt_poll_ns, exits_count } = link.split;
            (link.span.length_ns(), [guest_ns, kvm_ns, vmm_ns, halt_poll_ns, exits_count])
        };
        chain.links().iter().map(split).collect()
    }

    #[test]
    fn a_stay_is_one_link_and_says_in_whose_code_it_was() {
        let chain = drawn("==ggkvvgkpp__kgggGGK");
        let expected =
            [(11, [3, 2, 2, 2, 2]), (2, [0; 5]), (4, [3, 1, 0, 0, 0]), (3, [2, 1, 0, 0, 1])];
        assert_eq!(splits(&chain), expected);
        let unsplit = ThreadState::Running { pcpu: PcpuId(0), mode: RunMode::Unsplit };
        assert_eq!(chain.links()[0].span.state, unsplit);
    }

    #[test]
    fn a_stay_of_one_mode_keeps_it() {
        let chain = drawn("_ggg_");
        let guest = ThreadState::Running { pcpu: PcpuId(0), mode: RunMode::Guest };
        assert_eq!(chain.links()[1].span.state, guest);
        assert_eq!(splits(&chain)[1], (3, [3, 0, 0, 0, 0]));
    }

    #[test]
    fn the_next_thread_on_the_same_pcpu_makes_another_stay() {
        let state = ThreadState::Running { pcpu: PcpuId(0), mode: RunMode::Guest };
        let stay = |tid, start, end| {
            let (start, end) = (HostNs(start), HostNs(end));
            Span { tid: Tid(tid), start, end, state, antagonists: vec![] }
        };
        let chain: Chain = [stay(1, 0, 3), stay(1, 3, 5), stay(2, 5, 9)].into_iter().collect();
        let tids: Vec<u32> = chain.spans().map(|span| span.tid.0).collect();
        assert_eq!(
            (tids, splits(&chain)),
            (vec![1, 2], vec![(5, [5, 0, 0, 0, 0]), (4, [4, 0, 0, 0, 0])])
        );
    }

    #[test]
    fn exits_do_not_use_up_the_chain() {
        let stay = "gkvgkgk".repeat(20);
        let full = drawn(&format!("{stay}_").repeat(CHAIN_SPANS_MAX / 2));
        assert_eq!((full.links().len(), full.cut_count), (CHAIN_SPANS_MAX, 0));
        let cut = drawn(&format!("{stay}_").repeat(CHAIN_SPANS_MAX));
        assert_eq!((cut.links().len(), cut.cut_count), (CHAIN_SPANS_MAX, 64));
        assert_eq!(full.links(), cut.links());
        // A stay that is kept is kept whole, also as the last one.
        let last =
            drawn(&format!("{}{stay}", "g_".repeat(CHAIN_SPANS_MAX / 2).trim_end_matches('_')));
        assert_eq!((last.links().len(), last.cut_count), (CHAIN_SPANS_MAX - 1, 0));
        assert_eq!(last.links().last().unwrap().span.length_ns(), 141);
    }
}
