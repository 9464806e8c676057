//! Runs of any content: whatever the files say, what is made of them keeps the laws of a summary, and the
//! pages can be drawn.

use super::drawn::{BQL, VM1_VCPU1, host_at, manifest, run_dir, stream};
use super::transcript::told_by_threads_for;
use super::{analyse, any_observed};
use crate::summary::{Style, laws, render, render_full};
use proptest::prelude::*;
use std::collections::HashMap;
use vslice_core::clock::Exchange;
use vslice_core::extent::Extent;
use vslice_core::host_event::{
    BlockEvent, BlockStep, HostEvent, HostEventKind, KvmEvent, PrevState, StackId, Switch,
};
use vslice_core::units::{HostNs, PcpuId, Tid, VcpuId};
use vslice_trace::disk::DiskRecord;
use vslice_trace::host::WholeDisk;
use vslice_trace::manifest::{Manifest, Window};
use vslice_trace::quota::{GroupRecord, Quota, Throttling};
use vslice_trace::vmm::Accelerator;
use vslice_trace::{ClockSample, HogGapItem, RequestItem, RunDir, StackNames, VmName};
use vslice_wire::{Dropped, GuestTicks, Request};

const DEVICE: u32 = 0xfe0_0000;

/// Idle, the VMs' threads, two strangers, and one that is born and ends.
fn tid() -> impl Strategy<Value = Tid> {
    prop::sample::select(vec![0, 100, 101, 200, 201, 300, 301, 400]).prop_map(Tid)
}

/// Mostly within the window, now and then anywhere.
fn us() -> impl Strategy<Value = u64> {
    prop_oneof![20 => 0..1_200_u64, 1 => 0..100_000_u64]
}

fn prev_state() -> impl Strategy<Value = PrevState> {
    use PrevState::{Dead, DiskSleep, Other, Runnable, RunnablePreempted, Sleep, Stopped};
    prop::sample::select(vec![
        Runnable,
        RunnablePreempted,
        RunnablePreempted,
        Sleep,
        Sleep,
        DiskSleep,
        Stopped,
        Dead,
        Other(0x400),
    ])
}

fn switch() -> impl Strategy<Value = HostEventKind> {
    let arguments = prop::option::of(prop::sample::select(vec![
        [BQL, 0x80, 2],
        [0x7f00_1000, 0x89, 2],
        [0x7f00_1000, 0x80, 0],
    ]));
    (tid(), prev_state(), tid(), prop::option::of(0..3_u32), arguments, -1..140_i16).prop_map(
        |(prev, prev_state, next, stack, call_args, priority)| {
            let switch = Switch {
                stack: stack.map(StackId),
                call_args,
                next_priority: Some(priority),
                ..Switch::new(prev, prev_state, next)
            };
            HostEventKind::Switch(switch)
        },
    )
}

fn life() -> impl Strategy<Value = HostEventKind> {
    let comm = prop::sample::select(vec!["cc1", "vslice", "CPU 1/KVM", ""]);
    prop_oneof![
        (tid(), comm).prop_map(|(tid, comm)| HostEventKind::Comm { tid, comm: comm.to_owned() }),
        (tid(), tid(), tid()).prop_map(|(pid, tid, parent_pid)| HostEventKind::Fork {
            pid,
            tid,
            parent_pid
        }),
        tid().prop_map(|tid| HostEventKind::Exit { tid }),
    ]
}

fn block() -> impl Strategy<Value = HostEventKind> {
    use BlockStep::{Completed, Issued, Submitted};
    let step = prop::sample::select(vec![Submitted, Issued, Completed]);
    (step, tid(), 0..5_u64, 1..4_u32).prop_map(|(step, tid, place, blocks)| {
        let (sector, sectors) = (place * 8, blocks * 8);
        HostEventKind::Block(BlockEvent {
            step,
            tid,
            device: DEVICE,
            sector,
            sectors,
            operation: None,
        })
    })
}

fn kvm() -> impl Strategy<Value = HostEventKind> {
    let event = prop_oneof![
        Just(KvmEvent::GuestEntry),
        (1..3_u32, 0..60_u32).prop_map(|(isa, reason)| KvmEvent::GuestExit { isa, reason }),
        (0..30_u32, -5..1_i32)
            .prop_map(|(reason, errno)| KvmEvent::UserspaceExit { reason, errno }),
        any::<u16>().prop_map(|port| KvmEvent::PortWrite { port }),
        any::<u64>().prop_map(|address| KvmEvent::Memory { address }),
        (0..5_000_u64, any::<bool>())
            .prop_map(|(halted_ns, has_slept)| KvmEvent::HaltEnd { halted_ns, has_slept }),
        (0..4_u32, any::<u8>()).prop_map(|(vcpu, vector)| KvmEvent::Interrupt { vcpu, vector }),
    ];
    (tid(), event).prop_map(|(tid, event)| HostEventKind::Kvm { tid, event })
}

pub(super) fn event() -> impl Strategy<Value = HostEvent> {
    let waking = (tid(), 0..2_u32, tid()).prop_map(|(tid, pcpu, waker)| HostEventKind::Waking {
        tid,
        target: PcpuId(pcpu),
        waker,
    });
    let count = prop_oneof![0..5_u64, Just(u64::MAX)];
    let lost =
        (us(), count).prop_map(|(us, count)| HostEventKind::Lost { until: host_at(us), count });
    let kind =
        prop_oneof![12 => switch(), 6 => waking, 2 => life(), 6 => block(), 2 => kvm(), 1 => lost];
    (us(), 0..2_u32, kind).prop_map(|(us, pcpu, kind)| HostEvent {
        time: host_at(us),
        pcpu: PcpuId(pcpu),
        kind,
    })
}

/// The guest's clock is the host's; what it says of its requests need not be so.
pub(super) fn request() -> impl Strategy<Value = RequestItem> {
    let ticks = || us().prop_map(|us| GuestTicks(host_at(us).0));
    let result = prop::sample::select(vec![4096, 4096, 4096, 512, -5]);
    let vcpu = || prop_oneof![9 => Just(1_u16), 1 => 0..3_u16];
    let request = (0..12_u64, ticks(), ticks(), vcpu(), vcpu(), result).prop_map(
        |(index, submitted, completed, vcpu_submitted, vcpu_completed, result)| {
            RequestItem::Request(Request {
                index,
                submitted,
                completed,
                vcpu_submitted,
                vcpu_completed,
                result,
            })
        },
    );
    let count = prop_oneof![0..9_u64, Just(u64::MAX)];
    let dropped = (count, ticks(), ticks())
        .prop_map(|(count, first, last)| RequestItem::Dropped(Dropped { count, first, last }));
    prop_oneof![9 => request, 1 => dropped]
}

pub(super) fn exchange() -> impl Strategy<Value = ClockSample> {
    (0..2_u16, us(), 0..50_000_u64, 0..50_000_u64).prop_map(|(vcpu, us, there_ns, back_ns)| {
        let sent = host_at(us);
        let stamped = GuestTicks(sent.0 + there_ns);
        let exchange = Exchange {
            host_sent: sent,
            guest_received: stamped,
            guest_sent: stamped,
            host_received: HostNs(sent.0 + there_ns + back_ns),
        };
        ClockSample { vcpu: VcpuId(vcpu), exchange }
    })
}

fn throttling() -> impl Strategy<Value = Throttling> {
    let number = || prop_oneof![0..1_000_000_u64, Just(u64::MAX)];
    (number(), number())
        .prop_map(|(throttled_count, throttled_ns)| Throttling { throttled_count, throttled_ns })
}

/// The drawn run's, with another window, a quota, a disk.
pub(super) fn any_manifest() -> impl Strategy<Value = Manifest> {
    let window = (0..900_u64, prop::option::of(0..1_500_u64));
    let group = (prop::option::of(Just(Quota { quota_us: 500, period_us: 1000 })), throttling());
    let group = (group, prop::option::of(throttling()));
    let accelerator =
        prop::sample::select(vec![Some(Accelerator::Kvm), Some(Accelerator::Tcg), None]);
    (window, prop::option::of(group), any::<bool>(), accelerator).prop_map(
        |((start_us, end_us), group, is_direct, accelerator)| {
            let mut manifest = manifest();
            manifest.vms.iter_mut().for_each(|vm| vm.accelerator = accelerator);
            let end_ns = end_us.map(host_at);
            manifest.window = Some(Window { start_ns: host_at(start_us), end_ns });
            let vm = &mut manifest.vms[0];
            vm.groups.extend(group.map(|((quota, before), after)| GroupRecord {
                path: "/machine/vm1".to_owned(),
                vcpus: vec![VcpuId(1)],
                quota,
                before,
                after,
            }));
            vm.disk = Some(DiskRecord {
                is_direct: Some(is_direct),
                pattern: vslice_spec::Pattern::Seq,
                size_bytes: 4 * 4096,
                offset_bytes: 0,
                whole_disk: Some(WholeDisk {
                    name: "vda".to_owned(),
                    device: DEVICE,
                    first_sector: 0,
                }),
                missing: None,
                extents: vec![Extent { offset_bytes: 0, sector: 0, length_bytes: 4 * 4096 }],
                extents_missing: None,
            });
            manifest
        },
    )
}

/// Who leaves a pCPU is who came onto it before; without that no request can be attributed to causes.
pub(super) fn follow_each_other(events: &mut [HostEvent]) {
    let mut last = HashMap::new();
    for event in events {
        if let HostEventKind::Switch(switch) = &mut event.kind {
            switch.prev = last.insert(event.pcpu, switch.next).unwrap_or(switch.prev);
        }
    }
}

/// Stored as a run stores it: in order of time on each pCPU, with its names.
pub(super) fn store(run: &RunDir, events: &[HostEvent], requests: Vec<RequestItem>) {
    let stack = |id, frames: &[&str]| {
        let frames = frames.iter().map(|frame| (*frame).to_owned()).collect();
        StackNames { id, frames }
    };
    let stacks = [
        stack(0, &["futex_wait_queue", "do_futex"]),
        stack(1, &["kvm_vcpu_block", "kvm_vcpu_halt", "kvm_arch_vcpu_ioctl_run"]),
        stack(2, &["io_schedule", "folio_wait_bit_common", "filemap_fault"]),
    ];
    run.write_stack_names(&stacks).unwrap();
    for pcpu in [PcpuId(0), PcpuId(1)] {
        let own = events.iter().filter(|event| event.pcpu == pcpu).cloned().collect();
        stream(&run.events_path(pcpu), own, true);
    }
    let vm1 = VmName::try_from("vm1").unwrap();
    stream(&run.requests_path(&vm1), requests, true);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_a_run_says_its_summary_keeps_the_laws(
        manifest in any_manifest(),
        mut events in prop::collection::vec(event(), 0..120),
        is_consistent in any::<bool>(),
        requests in prop::collection::vec(request(), 0..24),
        exchanges in prop::collection::vec(exchange(), 0..12),
        gaps in prop::collection::vec((us(), us()), 0..6),
        observed in prop::option::of((
            any_observed::record(),
            prop::collection::vec(any_observed::item(), 0..24),
        )),
    ) {
        let mut manifest = manifest;
        let (observation, observed) = observed.unzip();
        manifest.vms[0].observation = observation;
        let (_scratch, run) = run_dir(&manifest);
        events.sort_by_key(|event| event.time);
        if is_consistent {
            follow_each_other(&mut events);
        }
        store(&run, &events, requests);
        let vm1 = VmName::try_from("vm1").unwrap();
        stream(&run.clock_path(&vm1), exchanges, true);
        if let Some(observed) = observed {
            stream(&run.observed_path(&vm1), observed, true);
        }
        let gap = |(start, end): (u64, u64)| HogGapItem {
            vcpu: VcpuId(1),
            start: GuestTicks(host_at(start.min(end)).0),
            end: GuestTicks(host_at(start.max(end)).0),
        };
        stream(&run.hog_gaps_path(&vm1), gaps.into_iter().map(gap).collect(), true);
        // In a debug build it looks at the laws itself, and panics.
        let summary = analyse(run.path()).unwrap();
        let by_one = told_by_threads_for(1, run.path());
        for pcpus_count in [2, 4] {
            prop_assert!(told_by_threads_for(pcpus_count, run.path()) == by_one, "{}", pcpus_count);
        }
        prop_assert_eq!(laws::check(&summary), Ok(()));
        prop_assert!(summary.vcpus.iter().any(|vcpu| vcpu.tid == VM1_VCPU1));
        for page in [render(&summary, Style::PLAIN), render_full(&summary, Style::PLAIN)] {
            let mut words = page.split_whitespace();
            let is_nonsense = |word: &str| ["inf", "-inf", "NaN", "INCONSISTENT"].contains(&word);
            prop_assert!(!words.any(is_nonsense), "{}", page);
            prop_assert!(!page.replace('\n', "").contains(char::is_control), "{page:?}");
        }
    }
}
