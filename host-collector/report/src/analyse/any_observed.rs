//! What a guest that lies may have said of its block requests: times that run backwards, sectors beyond its
//! disks, disks and tasks that it never named, names that would draw on a terminal.

use super::drawn::host_at;
use proptest::prelude::*;
use vslice_trace::ObservedItem;
use vslice_trace::observation::{
    HiddenRecord, IssueRecord, ObservationRecord, ObservedCostRecord, ObservedDeviceRecord,
    ObservedEndRecord, ObservedOthersRecord, ObservedTaskRecord, UnderWayRecord,
};
use vslice_wire::{
    BlockOperation, CompletionVcpu, Dropped, GuestTicks, ObservedFlags, ObservedRequest,
};

/// Mostly within the window, now and then anywhere; the guest's clock is the host's.
fn ticks() -> impl Strategy<Value = GuestTicks> {
    prop_oneof![
        40 => (0..1_200_u64).prop_map(|us| GuestTicks(host_at(us).0)),
        1 => any::<u64>().prop_map(GuestTicks),
    ]
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..1_000_000_u64, 1 => Just(u64::MAX)]
}

fn operation() -> impl Strategy<Value = BlockOperation> {
    prop::sample::select(&BlockOperation::ALL[..])
}

fn request() -> impl Strategy<Value = ObservedItem> {
    let sector = prop_oneof![8 => (0..5_u64).prop_map(|place| place * 8), 1 => any::<u64>()];
    let bytes = prop_oneof![8 => Just(4096_u32), 1 => Just(0), 1 => any::<u32>()];
    let what = (0..3_u16, operation(), 0..0x800_u16, sector, bytes);
    let in_order = (ticks(), 0..200_000_u64, 0..400_000_u64).prop_map(|(queued, wait, took)| {
        let issued = GuestTicks(queued.0.saturating_add(wait));
        (queued, issued, GuestTicks(issued.0.saturating_add(took)))
    });
    let times = prop_oneof![6 => in_order, 1 => (ticks(), ticks(), ticks())];
    let vcpu = || prop_oneof![6 => Just(1_u16), 2 => 0..3_u16, 1 => any::<u16>()];
    let result = prop_oneof![8 => Just(0_i32), 1 => any::<i32>()];
    (what, times, (vcpu(), vcpu(), vcpu()), 0..4_u32, result).prop_map(
        |(what, (queued, issued, completed), vcpus, task, result)| {
            let (device, operation, flags, sector, bytes) = what;
            let (vcpu_queued, vcpu_issued, vcpu_completed) = vcpus;
            ObservedItem::Request(ObservedRequest {
                device,
                operation,
                flags: ObservedFlags(flags),
                sector,
                bytes,
                queued,
                issued,
                completed,
                vcpu_queued,
                vcpu_issued,
                vcpu_completed,
                task,
                result,
            })
        },
    )
}

/// One item of the stream.
pub(super) fn item() -> impl Strategy<Value = ObservedItem> {
    let lost = (number(), ticks(), ticks())
        .prop_map(|(count, first, last)| ObservedItem::Lost(Dropped { count, first, last }));
    prop_oneof![12 => request(), 1 => lost, 2 => ticks().prop_map(ObservedItem::Settled)]
}

fn name() -> impl Strategy<Value = String> {
    let names =
        vec!["vda", "postgres", "", "\u{1b}[2Jvd", "a\nb\tc", "<b>&\u{202e}x", "\u{7f}\u{9b}1m"];
    prop::sample::select(names).prop_map(str::to_owned)
}

fn device() -> impl Strategy<Value = ObservedDeviceRecord> {
    let texts =
        (name(), prop::option::of(name()), prop::option::of(name()), prop::option::of(name()));
    let queues =
        (prop::option::of(any::<u16>()), prop::sample::select(CompletionVcpu::ALL.to_vec()));
    let numbers = (0..2_u16, prop::option::of(number()), queues);
    // The drawn VM has one disk, or none: a place that it does not have may be stored as well.
    (texts, numbers, prop::option::of(0..2_usize)).prop_map(|(texts, numbers, disk)| {
        let (name, serial, address, io_scheduler) = texts;
        let (number, size_bytes, (hardware_queues, completion_vcpu)) = numbers;
        ObservedDeviceRecord {
            number,
            name,
            size_bytes,
            serial,
            address,
            io_scheduler,
            hardware_queues,
            completion_vcpu,
            disk,
            disk_missing: disk.is_none().then(|| "nobody knows".to_owned()),
        }
    })
}

fn task() -> impl Strategy<Value = ObservedTaskRecord> {
    let title = || prop::option::of(name());
    (0..3_u32, any::<u32>(), name(), title(), title()).prop_map(
        |(number, pid, name, title, title_before)| ObservedTaskRecord {
            number,
            pid,
            name,
            title,
            title_before,
        },
    )
}

fn end() -> impl Strategy<Value = ObservedEndRecord> {
    let issue = prop_oneof![
        Just(IssueRecord::NotYet),
        number().prop_map(IssueRecord::AfterNs),
        Just(IssueRecord::Unknown),
    ];
    let row = ((0..3_u16, operation(), any::<bool>()), [number(), number(), number()], issue);
    let row = (row, any::<u32>(), 0..4_u32).prop_map(|((kind, numbers, issue), bytes, task)| {
        let ((device, operation, is_sync), [count, sector, age_ns]) = (kind, numbers);
        UnderWayRecord { device, operation, is_sync, count, sector, bytes, task, age_ns, issue }
    });
    let counts = [number(), number(), number()];
    (prop::collection::vec(row, 0..4), counts, prop::option::of(hidden())).prop_map(
        |(under_way, [earlier_count, passthrough_count, late_count], hidden)| ObservedEndRecord {
            under_way,
            earlier_count,
            passthrough_count,
            late_count,
            hidden,
        },
    )
}

fn hidden() -> impl Strategy<Value = HiddenRecord> {
    ([number(), number(), number(), number()], any::<bool>()).prop_map(
        |([queued_count, issued_count, completed_count, others_count], is_exact)| HiddenRecord {
            queued_count,
            issued_count,
            completed_count,
            others_count,
            is_exact,
        },
    )
}

/// What a manifest says of it.
pub(super) fn record() -> impl Strategy<Value = ObservationRecord> {
    let others = (0..3_u16, operation(), any::<bool>(), number(), number(), number()).prop_map(
        |(device, operation, is_sync, count, bytes, total_ns)| ObservedOthersRecord {
            device,
            operation,
            is_sync,
            count,
            bytes,
            total_ns,
        },
    );
    let cost = (number(), number(), number(), number()).prop_map(
        |(cpu_ns, events_count, lost_count, clock_read_ns)| ObservedCostRecord {
            cpu_ns,
            events_count,
            lost_count,
            clock_read_ns,
        },
    );
    let lists = (
        prop::collection::vec(device(), 0..3),
        prop::collection::vec(task(), 0..3),
        prop::collection::vec(others, 0..3),
    );
    let counts = (prop_oneof![Just(0), number()], number(), number());
    let once = (prop::option::of(cost), prop::option::of(end()));
    (lists, counts, once).prop_map(|((devices, tasks, others), counts, (cost, end))| {
        let (slower_than_us, requests_count, lost_count) = counts;
        ObservationRecord {
            devices,
            tasks,
            slower_than_us,
            others,
            requests_count,
            lost_count,
            cost,
            end,
        }
    })
}
