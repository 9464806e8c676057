//! Arrows from whoever was on a pCPU to the wait of a VM's thread that began there: who delayed it.

use super::trace::{Note, Place, Slice, Trace, Track, Value};
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use vslice_core::timeline::Span;
use vslice_core::units::{HostNs, PcpuId, Tid};

/// Waits that are shorter have no arrow: there are many, and each is drawn.
pub(super) const ARROW_MIN_NS: u64 = 100_000;

/// Who is in the way of each of the VMs' threads, and the tracks of those that are no thread of a VM.
#[derive(Debug, Default)]
pub(super) struct Delays {
    by: HashMap<Tid, Delay>,
    group: Option<Track>,
    pcpus: BTreeMap<PcpuId, Track>,
}

/// Who was on the pCPU when a wait began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Delay {
    pub(super) since: HostNs,
    pub(super) pcpu: PcpuId,
    pub(super) tid: Tid,
    pub(super) name: String,
}

impl Delays {
    /// From here on a thread may wait; `None` where nobody is in its way, or nobody knows who.
    pub(super) fn begins(&mut self, waits: Tid, by: Option<Delay>) {
        match by.filter(|by| by.tid != waits && by.tid != Tid::IDLE) {
            Some(by) => self.by.insert(waits, by),
            None => self.by.remove(&waits),
        };
    }

    /// Who was there when a wait began that gets an arrow.
    pub(super) fn of(&self, span: &Span) -> Option<&Delay> {
        let pcpu = span.state.waits_for().filter(|_| span.length_ns() >= ARROW_MIN_NS)?;
        self.by.get(&span.tid).filter(|by| by.since == span.start && by.pcpu == pcpu)
    }

    /// The track on which arrows begin from threads of the host that are no VM's.
    pub(super) fn track<W: Write>(&mut self, pcpu: PcpuId, trace: &mut Trace<W>) -> Track {
        let group = *self.group.get_or_insert_with(|| {
            trace.described_track(Place::Top, "who kept VMs waiting", 1, DESCRIPTION)
        });
        *self.pcpus.entry(pcpu).or_insert_with(|| {
            let name = format!("{pcpu}: keeps VMs waiting");
            trace.causes(Place::Below(group), &name, pcpu.0.into())
        })
    }
}

/// Where an arrow begins: whose stay on the pCPU it is, and whom it keeps waiting.
pub(super) fn slice<'a>(by: &'a str, notes: &'a [Note<'a>]) -> Slice<'a> {
    Slice { name: by, category: "delay", notes, ..Slice::default() }
}

/// Whom it keeps waiting.
pub(super) fn note(waits: &str) -> Note<'_> {
    Note::new("keeps_waiting", Value::Word(waits))
}

const DESCRIPTION: &str = "Threads of the host, those of VMs aside, that were on a pCPU when a VM's thread began \
                           to wait for it. Of each wait of 100 us or more an arrow goes to it.";

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_core::timeline::{Reason, ThreadState};

    const WAITS: Tid = Tid(7);

    fn span(start: u64, length_ns: u64, pcpu: u32, reason: Reason) -> Span {
        let (stack, lock) = (None, None);
        let state = ThreadState::PreemptWait { pcpu: PcpuId(pcpu), reason, stack, lock };
        let (start, end) = (HostNs(start), HostNs(start + length_ns));
        Span { tid: WAITS, start, end, state, antagonists: Vec::new() }
    }

    fn by(tid: u32) -> Option<Delay> {
        let name = "somebody".to_owned();
        Some(Delay { since: HostNs(100), pcpu: PcpuId(1), tid: Tid(tid), name })
    }

    #[test]
    fn a_wait_is_delayed_by_who_was_there_when_it_began() {
        let mut delays = Delays::default();
        let wait = span(100, ARROW_MIN_NS, 1, Reason::Unknown);
        assert_eq!(delays.of(&wait), None);
        delays.begins(WAITS, by(8));
        assert_eq!(delays.of(&wait), by(8).as_ref());
        for other in [
            span(100, ARROW_MIN_NS - 1, 1, Reason::Unknown),
            span(101, ARROW_MIN_NS, 1, Reason::Unknown),
            span(100, ARROW_MIN_NS, 2, Reason::Unknown),
            // Whoever is there is not in its way.
            span(100, ARROW_MIN_NS, 1, Reason::Throttle),
            Span { tid: Tid(9), ..wait.clone() },
        ] {
            assert_eq!(delays.of(&other), None, "{other:?}");
        }
        for nobody in [None, by(0), by(WAITS.0)] {
            delays.begins(WAITS, by(8));
            delays.begins(WAITS, nobody);
            assert_eq!(delays.of(&wait), None);
        }
    }
}
