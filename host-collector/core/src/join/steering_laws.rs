//! Which vCPU took the interrupt of a request that the guest's kernel may have had another vCPU complete.

use super::observed_laws::{disk, join_completing, observed, placed_within, thread};
use super::*;
use crate::timeline::{ThreadState, UnknownCause};
use crate::units::{HostNs, VcpuId};
use proptest::prelude::*;
use vslice_wire::{BlockOperation, CompletionVcpu, ObservedFlags, ObservedRequest};

//                      0         1         2         3
//                      0123456789012345678901234567890123
const SUBMITTER: &str = "=====hhhhhhhhhhhhhhhhhhhhhhhhhhh==";
const INTERRUPTED: &str = "hhhhhhhhhhhhwpppppppppppppppppp===";

/// vCPU 0 asks at 1 and issues at 3, the host has the I/O from 4 to 12, and it is completed at 32 on this vCPU.
fn completed_on(vcpu: u16, completing: CompletionVcpu, has_io: bool) -> Breakdown {
    let request = placed_within(observed([1, 3, 32], [0, 0, vcpu]), Bounds::default());
    let io = [(4, '>', 1000..1008), (12, '<', 1000..1008)];
    let deeds = if has_io { &io[..] } else { &[] };
    let drawings = [SUBMITTER, INTERRUPTED];
    let disks = [disk(HostAccess::Direct)];
    join_completing(completing, &disks, &drawings, &[request], deeds).remove(0)
}

fn completed(split: &Breakdown) -> Vec<(Part, u64)> {
    let of = split.phases.of(Phase::Completed);
    let parts = Part::ALL.map(|part| (part, of.get(part)));
    parts.into_iter().filter(|(_, length_ns)| *length_ns > 0).collect()
}

#[test]
fn a_completion_that_may_have_been_sent_on_is_laid_over_no_vcpu() {
    // vCPU 1 took the interrupt, late, and had vCPU 0 complete the request: whether it did, nobody tells.
    for completing in
        [CompletionVcpu::InterruptedOrQueued, CompletionVcpu::Queued, CompletionVcpu::Unknown]
    {
        let split = completed_on(0, completing, true);
        assert_eq!(completed(&split), [(Part::Unknown, 20)], "{completing:?}");
        assert_eq!(split.attribution, Attribution::Attributed, "the rest of it is known");
        assert_eq!(split.parts.total_ns(), split.latency_ns());
        assert_eq!((split.phases.inactivity_ns(), split.waits.rows().count()), (0, 0));
        assert_eq!((split.vcpus.of(Phase::Completed), split.vcpu_of_end()), (None, None));
        let last = split.chain.spans().last().unwrap();
        let unknown = ThreadState::Unknown { cause: UnknownCause::UnknownThread };
        assert_eq!((last.start, last.end, &last.state), (HostNs(12), HostNs(32), &unknown));
        assert_eq!(split.clock_error, ClockError::default(), "the clocks are exact");
    }
    let sure = completed_on(0, CompletionVcpu::Interrupted, true);
    assert_eq!(completed(&sure), [(Part::Halt, 20)], "vCPU 0 took it itself");
}

#[test]
fn who_completes_what_another_asked_for_took_the_interrupt() {
    for completing in [CompletionVcpu::Interrupted, CompletionVcpu::InterruptedOrQueued] {
        let split = completed_on(1, completing, true);
        let late = [(Part::OnPcpu, 1), (Part::PreemptWait, 18), (Part::WakeupDelay, 1)];
        assert_eq!(completed(&split), late, "{completing:?}");
        assert_eq!(split.vcpu_of_end(), Some(VcpuId(1)));
        assert_eq!(split.chain.spans().last().unwrap().tid, thread(1));
    }
    // With rq_affinity 2 it is always the one that asked: who was that is not as it seems then.
    let split = completed_on(1, CompletionVcpu::Queued, true);
    assert_eq!(completed(&split), [(Part::Unknown, 20)]);
}

#[test]
fn without_phases_nothing_is_known_of_what_may_have_been_sent_on() {
    let of = |vcpu, completing| completed_on(vcpu, completing, false).attribution;
    assert_eq!(of(0, CompletionVcpu::Interrupted), Attribution::Attributed);
    assert_eq!(of(0, CompletionVcpu::InterruptedOrQueued), Attribution::Steered);
    assert_eq!(of(0, CompletionVcpu::Unknown), Attribution::Steered);
    assert_eq!(of(1, CompletionVcpu::InterruptedOrQueued), Attribution::Moved);
}

const VCPUS: u16 = 4;

/// A guest's kernel, as `blk_mq_complete_need_ipi` has it.
#[derive(Debug, Clone)]
struct Kernel {
    rq_affinity: u8,
    /// The last-level cache of each vCPU.
    caches: [u8; VCPUS as usize],
}

impl Kernel {
    /// The vCPU that completes a request.
    fn completes(&self, interrupted: u16, allocated_on: u16) -> u16 {
        let cache = |vcpu: u16| self.caches[usize::from(vcpu)];
        let is_sent = match self.rq_affinity {
            0 => false,
            1 => cache(interrupted) != cache(allocated_on),
            _ => true,
        };
        if is_sent { allocated_on } else { interrupted }
    }

    /// What the agent says of it.
    fn told(&self) -> CompletionVcpu {
        let is_one_cache = self.caches.iter().all(|cache| *cache == self.caches[0]);
        match self.rq_affinity {
            0 => CompletionVcpu::Interrupted,
            1 if is_one_cache => CompletionVcpu::Interrupted,
            1 => CompletionVcpu::InterruptedOrQueued,
            _ => CompletionVcpu::Queued,
        }
    }
}

/// How a request came to be allocated where it was.
#[derive(Debug, Clone, Copy)]
enum Allocated {
    /// Where it was asked for.
    Queued,
    /// The task moved in between, and whoever issued it did so elsewhere than where it was asked for.
    Moved,
    /// By another task: the request was merged with that one's, ...
    Merged,
    /// ... or shared a flush.
    Flushed,
    /// Nobody saw who asked.
    Unseen,
}

proptest! {
    /// Whatever the kernel did, no vCPU is taken for the one that took the interrupt that did not.
    #[test]
    fn no_vcpu_is_said_to_have_taken_an_interrupt_that_another_took(
        rq_affinity in 0..3_u8, caches in prop::array::uniform4(0..2_u8), is_told in any::<bool>(),
        vcpus in prop::array::uniform4(0..VCPUS), flag in any::<bool>(),
        how in prop::sample::select(vec![Allocated::Queued, Allocated::Moved, Allocated::Merged, Allocated::Flushed, Allocated::Unseen]),
    ) {
        let kernel = Kernel { rq_affinity, caches };
        let [queued, other, issued, interrupted] = vcpus;
        let allocated_on = if matches!(how, Allocated::Queued) { queued } else { other };
        prop_assume!(!matches!(how, Allocated::Moved) || issued != queued);
        let completed = kernel.completes(interrupted, allocated_on);
        let mut request: ObservedRequest = observed([1, 3, 32], [queued, issued, completed]);
        match how {
            Allocated::Queued | Allocated::Moved => {}
            Allocated::Merged => request.flags = ObservedFlags::MERGED,
            Allocated::Flushed if flag => request.flags = ObservedFlags::PREFLUSH,
            Allocated::Flushed => request.operation = BlockOperation::Flush,
            Allocated::Unseen => request.flags = ObservedFlags::NO_QUEUE_TIME,
        }
        let told = if is_told { kernel.told() } else { CompletionVcpu::Unknown };
        let said = PhaseVcpus::of_observed(&request, told).completed;
        prop_assert!(said.is_none_or(|vcpu| vcpu == VcpuId(interrupted)), "{said:?}");
        // Nor is it left unknown where it need not be.
        let is_plain = matches!(how, Allocated::Queued) && queued == issued && completed != queued;
        if told == CompletionVcpu::Interrupted || told == CompletionVcpu::InterruptedOrQueued && is_plain {
            prop_assert_eq!(said, Some(VcpuId(interrupted)));
        }
    }
}
