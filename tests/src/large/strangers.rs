//! A pCPU on which strangers come and go, with a vCPU that has it else, or nobody.

use super::expected::Expected;
use super::{Events, Random, START_NS, switch, vcpu_thread};
use vslice_core::host_event::PrevState;
use vslice_core::units::{PcpuId, Tid};
use vslice_trace::{RunDir, StoreError};

/// Strangers of each pCPU.
const STRANGERS: u32 = 64;

/// How they are called: no more than a summary lists.
const NAMES: u32 = 6;

fn stranger(pcpu: u32, place: u32) -> Tid {
    Tid(100_000 + pcpu * STRANGERS + place)
}

fn name(place: u32) -> String {
    format!("job{}", place % NAMES)
}

/// The threads of a pCPU's strangers, and their names.
pub(super) fn all_on(pcpu: u32) -> impl Iterator<Item = (Tid, String)> {
    (0..STRANGERS).map(move |place| (stranger(pcpu, place), name(place)))
}

/// One of them.
pub(super) fn any_on(PcpuId(pcpu): PcpuId, random: &mut Random) -> (Tid, String) {
    let place = u32::try_from(random.within(0..STRANGERS.into())).unwrap_or(0);
    (stranger(pcpu, place), name(place))
}

/// A pCPU that no reader has.
pub(super) struct Strangers {
    pcpu: PcpuId,
    vcpu: Option<(u32, u32)>,
    events: Events,
    random: Random,
}

impl Strangers {
    pub(super) fn new(
        run: &RunDir,
        pcpu: u32,
        vcpu: Option<(u32, u32)>,
        seed: u64,
    ) -> Result<Strangers, StoreError> {
        let random = Random::of(seed, (1 << 32) + u64::from(pcpu));
        let pcpu = PcpuId(pcpu);
        Ok(Strangers { pcpu, vcpu, events: Events::create(run, pcpu)?, random })
    }

    /// So many stays of strangers, each as long after the one before as chance has it.
    pub(super) fn write(
        mut self,
        stays: u64,
        end_ns: u64,
        expected: &mut Expected,
    ) -> Result<(), StoreError> {
        let own = self.vcpu.map_or(Tid::IDLE, |(vm, vcpu)| vcpu_thread(vm, vcpu));
        let left =
            if self.vcpu.is_some() { PrevState::RunnablePreempted } else { PrevState::Runnable };
        let turn_ns = (end_ns - START_NS) / stays;
        let mut tally = super::VcpuExpected::default();
        self.events.push(switch(START_NS, self.pcpu, Tid::IDLE, PrevState::Runnable, own))?;
        let mut came = START_NS;
        for turn in 0..stays {
            let begin = START_NS + turn * turn_ns;
            let leaves = begin + 1 + self.random.within(0..turn_ns / 2);
            let back = leaves + 1 + self.random.mostly_short(0..turn_ns / 2 - 2);
            let (stranger, name) = any_on(self.pcpu, &mut self.random);
            self.events.push(switch(leaves, self.pcpu, own, left, stranger))?;
            self.events.push(switch(back, self.pcpu, stranger, PrevState::Sleep, own))?;
            tally.on_pcpu_ns += leaves - came;
            tally.wait_ns += back - leaves;
            *tally.antagonists_ns.entry(name).or_default() += back - leaves;
            came = back;
        }
        // Who is still there when the recording ends is known to have been there until its last event.
        let (stranger, _) = any_on(self.pcpu, &mut self.random);
        self.events.push(switch(end_ns, self.pcpu, own, left, stranger))?;
        tally.on_pcpu_ns += end_ns - came;
        if let Some(vcpu) = self.vcpu {
            expected.vcpus.insert(vcpu, tally);
        }
        expected.events += self.events.finish()?;
        Ok(())
    }
}
