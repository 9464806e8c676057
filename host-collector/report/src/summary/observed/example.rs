//! Observed requests drawn by hand: a database in vm1, whose vCPU1 shares a pCPU with vm2's.
//!
//! Backends read, the WAL writer writes and flushes, a kworker writes back. Of the flushes some meet vm2's vCPU1
//! once the host's disk is done; some reads wait in the guest's own queue.

#[cfg(test)]
use super::model::Observed;
use super::{Observation, ReadPlaces};
use crate::summary::example::{self, START, VM1, blocked, laid_out, preempted, running, woken};
use crate::summary::{Summary, SummaryBuilder, VmIndex, VmThreads};
use std::collections::BTreeMap;
use vslice_core::join::{
    Attribution, Bounds, Breakdown, GuestRequest, IoMarks, NoPhase, Part, PartsNs, Phase,
    PhaseParts, PhaseVcpus, Unplaced,
};
use vslice_core::timeline::{Reason, Span};
use vslice_core::units::{HostNs, Tid};
use vslice_spec::Pattern;
use vslice_trace::observation::{
    HiddenRecord, IssueRecord, ObservationRecord, ObservedCostRecord, ObservedDeviceRecord,
    ObservedEndRecord, ObservedOthersRecord, ObservedTaskRecord, UnderWayRecord,
};
use vslice_wire::{
    BlockOperation, CompletionVcpu, Dropped, GuestTicks, ObservedFlags, ObservedRequest,
};

/// The thread of vm1's vCPU0; that of its vCPU1 is the one that `example.rs` draws.
const VCPU0: Tid = Tid(100);

/// A request that reads 8 KiB for the first backend on vCPU1, queued at 0.
pub(crate) fn request() -> ObservedRequest {
    ObservedRequest {
        device: 0,
        operation: BlockOperation::Read,
        flags: ObservedFlags::SYNC,
        sector: 2048,
        bytes: 8192,
        queued: GuestTicks(0),
        issued: GuestTicks(0),
        completed: GuestTicks(0),
        vcpu_queued: 1,
        vcpu_issued: 1,
        vcpu_completed: 1,
        task: 0,
        result: 0,
    }
}

/// The request from `start` on, with what its vCPUs did in each phase, in order of time.
pub(crate) fn split(
    request: ObservedRequest,
    start: HostNs,
    phases: Vec<(Phase, Vec<Span>)>,
) -> Breakdown {
    split_over(request, start, phases, CompletionVcpu::Interrupted)
}

/// The same of a disk whose requests are completed there.
pub(crate) fn split_over(
    request: ObservedRequest,
    start: HostNs,
    phases: Vec<(Phase, Vec<Span>)>,
    completing: CompletionVcpu,
) -> Breakdown {
    let vcpus = PhaseVcpus::of_observed(&request, completing);
    let spans: Vec<Span> = phases.iter().flat_map(|(_, spans)| spans.clone()).collect();
    let chain = laid_out(start, spans);
    let (mut parts, mut by_phase) = (PartsNs::default(), PhaseParts::default());
    let mut ends: BTreeMap<Phase, HostNs> = BTreeMap::new();
    let mut at = start;
    for (phase, spans) in &phases {
        for span in spans {
            let part = Part::of(&span.state);
            parts.add(part, span.length_ns());
            by_phase.add_to(*phase, part, span.length_ns());
            at = HostNs(at.0 + span.length_ns());
        }
        ends.insert(*phase, at);
    }
    let waits = phases.iter().filter(|(phase, _)| vcpus.is_waited_for(*phase));
    let waits = waits.flat_map(|(_, spans)| spans).collect();
    let issued = ends.get(&Phase::GuestQueue).copied().unwrap_or(start);
    let io = match (ends.get(&Phase::Queued), ends.get(&Phase::Device)) {
        (submitted, Some(completed)) => {
            Ok(IoMarks { submitted: submitted.copied().unwrap_or(issued), completed: *completed })
        }
        _ => Err(NoPhase::Unmapped),
    };
    Breakdown {
        request: GuestRequest::Observed(request),
        vcpu: vcpus.issued,
        vcpus,
        start,
        issued: Some(issued),
        end: HostNs(start.0 + parts.total_ns()),
        bounds: Bounds::all(21_000),
        parts,
        waits,
        chain: chain.into_iter().collect(),
        io,
        phases: by_phase,
        ..example::request(0, start, vec![])
    }
}

/// A task of the guest.
fn task(number: u32, pid: u32, name: &str, title: Option<&str>) -> ObservedTaskRecord {
    let (name, title) = (name.to_owned(), title.map(str::to_owned));
    ObservedTaskRecord { number, pid, name, title, title_before: None }
}

/// What vm1's manifest says.
pub(crate) fn record() -> ObservationRecord {
    ObservationRecord {
        devices: vec![ObservedDeviceRecord {
            number: 0,
            name: "vdb".to_owned(),
            size_bytes: Some(8 << 30),
            serial: None,
            address: Some("0000:00:05.0".to_owned()),
            io_scheduler: Some("mq-deadline".to_owned()),
            hardware_queues: Some(1),
            completion_vcpu: CompletionVcpu::Interrupted,
            disk: Some(0),
            disk_missing: None,
        }],
        tasks: vec![
            task(0, 431, "postgres", Some("postgres: shop shop [local] UPDATE")),
            task(1, 432, "postgres", Some("postgres: shop shop [local] idle")),
            task(2, 415, "postgres", Some("postgres: walwriter")),
            task(3, 12, "kworker/u4:2", None),
            task(4, 57, "kworker/u4:0", None),
        ],
        slower_than_us: 0,
        others: vec![],
        requests_count: 3040,
        lost_count: 0,
        cost: Some(ObservedCostRecord {
            cpu_ns: 6_080_000,
            events_count: 9_400,
            lost_count: 0,
            clock_read_ns: 31,
        }),
        end: None,
    }
}

pub(crate) fn observations(record: ObservationRecord) -> BTreeMap<VmIndex, Observation> {
    let host_disks = vec![Some("nvme0n1".to_owned())];
    BTreeMap::from([(VM1, Observation { record, host_disks, ..Observation::default() })])
}

/// vCPU0 of vm1 is idle.
pub(crate) fn idle_vcpu0(length_ns: u64) -> Span {
    Span { tid: VCPU0, ..blocked(Reason::Halt, length_ns) }
}

/// The `index`th request of the database.
fn of_database(index: u64) -> Breakdown {
    let start = HostNs(START.0 + 200_000 + index * 300_000);
    let quick = |queue_ns| {
        vec![
            (Phase::GuestQueue, vec![running(queue_ns)]),
            (Phase::Queued, vec![running(9_000)]),
            (Phase::Device, vec![blocked(Reason::Halt, 180_000 + index)]),
            (Phase::Completed, vec![woken(3_000), running(6_000)]),
        ]
    };
    let sector = 2048 + index * 16;
    match index % 8 {
        // Written back; somebody else's.
        0 => {
            let (operation, flags) = (BlockOperation::Write, ObservedFlags::MERGED);
            let task = 3 + u32::from(index.is_multiple_of(16));
            let bytes = 65_536;
            split(
                ObservedRequest { operation, flags, task, bytes, sector, ..request() },
                start,
                quick(40_000),
            )
        }
        // The WAL, written ...
        1 => {
            let operation = BlockOperation::Write;
            split(ObservedRequest { operation, task: 2, sector, ..request() }, start, quick(4_000))
        }
        // ... and made durable; in one of fifty, vm2 has the pCPU when it is done.
        2 => {
            let flags = ObservedFlags::SYNC.with(ObservedFlags::PREFLUSH);
            let operation = BlockOperation::Flush;
            let flush =
                ObservedRequest { operation, flags, sector: 0, bytes: 0, task: 2, ..request() };
            let mut phases = quick(2_000);
            if index / 8 % 50 == 7 {
                phases[3].1 =
                    vec![preempted(4_000_000 + index * 800, &[(201, 3_900_000)]), running(6_000)];
            }
            split(flush, start, phases)
        }
        // Some reads of the second backend wait for a tag, and vCPU0 takes them out of the queue.
        3 if index / 8 % 50 == 9 => {
            let (vcpu_issued, vcpu_completed) = (0, 0);
            let read =
                ObservedRequest { task: 1, sector, vcpu_issued, vcpu_completed, ..request() };
            let mut phases = quick(700_000 + index);
            for (phase, spans) in &mut phases {
                if *phase != Phase::GuestQueue {
                    let length_ns = spans.iter().map(Span::length_ns).sum();
                    *spans = vec![idle_vcpu0(length_ns)];
                }
            }
            split(read, start, phases)
        }
        other => {
            let task = u32::from(other % 2 == 0);
            split(ObservedRequest { task, sector, ..request() }, start, quick(3_000))
        }
    }
}

pub(crate) fn builder(record: ObservationRecord) -> SummaryBuilder {
    let vms = example::vms().into_iter().map(|vm| VmThreads { block_bytes: None, ..vm });
    SummaryBuilder::new(START, vms.collect()).with_observations(observations(record))
}

/// Who attached to the database's VM.
pub(crate) fn facts() -> crate::summary::Facts {
    let mut facts = example::facts();
    facts.run.plan = "attach".to_owned();
    facts.run.lost = crate::summary::model::Lost::default();
    facts.run.hogs.clear();
    facts.disks.clear();
    facts.clocks.iter_mut().for_each(|clock| clock.requests = 0);
    facts
}

/// The database's run.
#[must_use]
pub fn summary() -> Summary {
    let mut builder = builder(record());
    for index in 0..3_000 {
        let breakdown = of_database(index);
        breakdown
            .chain
            .spans()
            .filter(|span| span.tid != VCPU0)
            .for_each(|span| builder.span(span));
        builder.breakdown(VM1, &breakdown);
    }
    for (index, attribution) in
        [(1, Attribution::Lost), (2, Attribution::Moved), (3, Attribution::Ambiguous)]
    {
        let breakdown = Breakdown { attribution, ..of_database(index) };
        builder.breakdown(VM1, &breakdown);
    }
    builder.unplaced(VM1, &GuestRequest::Observed(request()), Unplaced::NoClock);
    builder.lost_observed(VM1, &Dropped { count: 5, first: GuestTicks(1), last: GuestTicks(2) });
    builder.finish(facts(), &example::names())
}

/// The same with only what took 1 ms or longer; what was faster is counted.
#[must_use]
pub fn slower_than() -> Summary {
    let mut others: Vec<ObservedOthersRecord> = Vec::new();
    let mut sent = Vec::new();
    for index in 0..3_000 {
        let breakdown = of_database(index);
        let request = *breakdown.request.observed().expect("all of them are");
        if breakdown.latency_ns() >= 1_000_000 {
            sent.push(breakdown);
            continue;
        }
        let of = |of: &&mut ObservedOthersRecord| {
            (of.operation, of.is_sync) == (request.operation, request.is_sync())
        };
        let (operation, is_sync) = (request.operation, request.is_sync());
        let place = others.iter_mut().position(|row| of(&row)).unwrap_or_else(|| {
            let (device, count, bytes, total_ns) = (0, 0, 0, 0);
            others.push(ObservedOthersRecord {
                device,
                operation,
                is_sync,
                count,
                bytes,
                total_ns,
            });
            others.len() - 1
        });
        others[place].count += 1;
        others[place].bytes += u64::from(request.bytes);
        others[place].total_ns += breakdown.latency_ns();
    }
    let mut builder = builder(ObservationRecord { slower_than_us: 1_000, others, ..record() });
    sent.iter().for_each(|breakdown| builder.breakdown(VM1, breakdown));
    builder.finish(facts(), &example::names())
}

/// The same, and requests hang: a commit that the disk does not end, reads behind it, and a write-back that nobody
/// waits for.
#[must_use]
pub fn stalled() -> Summary {
    stalled_beside(HiddenRecord { is_exact: true, ..HiddenRecord::default() })
}

/// The same of a guest whose kernel hid so much.
#[must_use]
pub fn stalled_beside(hidden: HiddenRecord) -> Summary {
    let of = |operation, task, age_ns, issue| UnderWayRecord {
        device: 0,
        operation,
        is_sync: true,
        count: 1,
        sector: 2048,
        bytes: 8192,
        task,
        age_ns,
        issue,
    };
    let write = of(BlockOperation::Write, 2, 3_200_000_000, IssueRecord::AfterNs(4_000));
    let read = of(BlockOperation::Read, 0, 3_100_000_000, IssueRecord::NotYet);
    // Of any load some are under way.
    let flush = of(BlockOperation::Flush, 9, 900_000, IssueRecord::Unknown);
    let under_way = vec![
        UnderWayRecord { sector: 0, bytes: 0, ..flush },
        UnderWayRecord { count: 12, ..read },
        write,
        UnderWayRecord { is_sync: false, age_ns: 3_150_000_000, ..write },
    ];
    let end = Some(ObservedEndRecord {
        under_way,
        earlier_count: 2,
        passthrough_count: 7,
        late_count: 0,
        hidden: Some(hidden),
    });
    let mut builder = builder(ObservationRecord { end, ..record() });
    (0..3_000).for_each(|index| builder.breakdown(VM1, &of_database(index)));
    builder.lost_observed(VM1, &Dropped { count: 0, first: GuestTicks(1), last: GuestTicks(2) });
    builder.finish(facts(), &example::names())
}

/// A reader's requests, and those of the guest's kernel for them: all of them but the last, and the one before
/// begins 90 us too early.
#[must_use]
pub fn with_reader() -> Summary {
    let size_bytes = 1 << 20;
    let reader = ReadPlaces::Known {
        pattern: Pattern::Seq,
        block_bytes: example::BLOCK_BYTES,
        size_bytes,
        offset_bytes: 1 << 20,
    };
    let mut observations = observations(record());
    observations.entry(VM1).or_default().reader = Some(reader);
    let builder = SummaryBuilder::new(START, example::vms());
    let mut builder = builder.with_observations(observations);
    for index in 0..400 {
        let start = HostNs(START.0 + 1_000_000 + index * 1_000_000);
        let spans = vec![running(20_000), blocked(Reason::Halt, 200_000), running(30_000)];
        let mut own = example::request(index, start, spans);
        own.bounds = Bounds::all(20_000);
        example::set_io(&mut own, 15_000, 220_000);
        builder.breakdown(VM1, &own);
        if index == 399 {
            break;
        }
        let start = if index == 398 { start.0 - 90_000 } else { start.0 + 8_000 };
        let sector = (1 << 20) / 512 + index % 256 * 8;
        let kernel = ObservedRequest { sector, bytes: 4096, ..request() };
        let phases = vec![
            (Phase::GuestQueue, vec![running(2_000)]),
            (Phase::Queued, vec![running(5_000)]),
            (Phase::Device, vec![blocked(Reason::Halt, 205_000)]),
            (Phase::Completed, vec![running(10_000)]),
        ];
        builder.breakdown(VM1, &split(kernel, HostNs(start), phases));
    }
    builder.finish(example::facts(), &example::names())
}

/// What is observed of these requests.
#[cfg(test)]
pub(crate) fn observed(requests: impl IntoIterator<Item = Breakdown>) -> Observed {
    let mut builder = builder(record());
    requests.into_iter().for_each(|request| builder.breakdown(VM1, &request));
    builder.finish(facts(), &example::names()).observed.expect("vm1 observes")
}

/// Somebody of vm2 had the pCPU all that time.
#[cfg(test)]
pub(crate) fn taken(length_ns: u64) -> Span {
    Span {
        antagonists: vec![example::antagonist(Tid(201), length_ns)],
        ..preempted(length_ns, &[])
    }
}
