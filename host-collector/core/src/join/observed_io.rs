//! What is known of an observed request's I/O, case by case.

use super::observed_laws::{DEVICE, Deed, disk, join, observed, placed_within};
use super::*;
use crate::units::HostNs;
use vslice_wire::{BlockOperation, ObservedFlags, ObservedRequest};

const DRAWING: &str = "==================================================";

/// From 10 to 20.
fn request(operation: BlockOperation, sector: u64, sectors: u32) -> ObservedRequest {
    let bytes = sectors * 512;
    ObservedRequest { operation, sector, bytes, ..observed([10, 10, 20], [0; 3]) }
}

fn flush(task: u32, from: u64, until: u64) -> ObservedRequest {
    let request = request(BlockOperation::Flush, 0, 0);
    ObservedRequest { task, ..observed([from, from, until], [0; 3]) }.of(&request)
}

trait Of {
    fn of(self, what: &ObservedRequest) -> ObservedRequest;
}

impl Of for ObservedRequest {
    /// These times, for that.
    fn of(self, what: &ObservedRequest) -> ObservedRequest {
        let (queued, issued, completed, task) =
            (self.queued, self.issued, self.completed, self.task);
        ObservedRequest { queued, issued, completed, task, ..*what }
    }
}

fn io_of(
    disks: &[ObservedDisk],
    requests: &[ObservedRequest],
    deeds: &[Deed],
) -> Vec<Result<IoMarks, NoPhase>> {
    let placed = requests.iter().map(|request| placed_within(*request, Bounds::default()));
    let out = join(disks, &[DRAWING], &placed.collect::<Vec<_>>(), deeds);
    out.into_iter().map(|breakdown| breakdown.io).collect()
}

fn known(from: u64, until: u64) -> Result<IoMarks, NoPhase> {
    Ok(IoMarks { submitted: HostNs(from), completed: HostNs(until) })
}

#[test]
fn requests_of_any_size_have_the_io_for_their_sectors() {
    let of = |operation, sector, sectors, deeds: &[Deed]| {
        io_of(&[disk(HostAccess::Direct)], &[request(operation, sector, sectors)], deeds)[0]
    };
    let (read, write) = (BlockOperation::Read, BlockOperation::Write);
    let large = [(11, '>', 1000..1064), (15, '<', 1000..1064)];
    assert_eq!(of(read, 0, 64, &large), known(11, 15));
    assert_eq!(of(write, 8, 1, &large), known(11, 15), "guest or VMM merged others with it");
    let halves = [
        (11, '>', 1000..1032),
        (12, '>', 1032..1064),
        (14, '<', 1032..1064),
        (18, '<', 1000..1032),
    ];
    assert_eq!(of(write, 0, 64, &halves), known(11, 18));
    assert_eq!(of(write, 0, 64, &halves[..1]), Err(NoPhase::Unfinished));
    assert_eq!(of(write, 0, 64, &[]), Err(NoPhase::NoIo));
    // Its image ends at sector 128: what is beyond has no place.
    assert_eq!(
        of(write, 120, 16, &[(11, '>', 1120..1136), (15, '<', 1120..1136)]),
        Err(NoPhase::Unmapped)
    );
    assert_eq!(of(write, u64::MAX, 16, &large), Err(NoPhase::Unmapped));
    assert_eq!(of(BlockOperation::Discard, 0, 64, &large), Err(NoPhase::Unmapped));
    assert_eq!(of(BlockOperation::Other, 0, 64, &large), Err(NoPhase::Unmapped));
}

#[test]
fn what_is_flagged_is_known_no_better_than_the_guest_knows_it() {
    let of = |flags, coverage| {
        let request = ObservedRequest { flags, ..request(BlockOperation::Write, 0, 8) };
        let disk = ObservedDisk { coverage, ..disk(HostAccess::Direct) };
        io_of(&[disk], &[request], &[(11, '>', 1000..1008), (15, '<', 1000..1008)])[0]
    };
    let marks = known(11, 15);
    assert_eq!(of(ObservedFlags::SYNC.with(ObservedFlags::MERGED), Coverage::All), marks);
    assert_eq!(of(ObservedFlags::AMBIGUOUS, Coverage::All), Err(NoPhase::Ambiguous));
    assert_eq!(of(ObservedFlags::OVERLAPPED, Coverage::All), marks, "by which other, is told");
    assert_eq!(of(ObservedFlags::OVERLAPPED, Coverage::Slow), Err(NoPhase::Ambiguous));
    for flag in [ObservedFlags::FUA, ObservedFlags::PREFLUSH] {
        assert_eq!(of(flag, Coverage::All), Err(NoPhase::UnknownFile), "a flush is part of it");
        assert_eq!(of(flag, Coverage::Slow), Err(NoPhase::Ambiguous));
    }
}

#[test]
fn a_request_that_was_given_back_may_have_io_from_before() {
    let request =
        ObservedRequest { flags: ObservedFlags::REQUEUED, ..observed([2, 10, 20], [0; 3]) };
    let of = |deeds: &[Deed]| io_of(&[disk(HostAccess::Direct)], &[request], deeds)[0];
    assert_eq!(of(&[(11, '>', 1000..1008), (15, '<', 1000..1008)]), known(11, 15));
    assert_eq!(of(&[(7, '>', 1000..1008), (15, '<', 1000..1008)]), Err(NoPhase::Ambiguous));
    let both =
        [(4, '>', 1000..1008), (6, '<', 1000..1008), (11, '>', 1000..1008), (15, '<', 1000..1008)];
    assert_eq!(of(&both), known(11, 15));
}

#[test]
fn a_write_through_the_page_cache_waits_for_no_io() {
    let write = request(BlockOperation::Write, 0, 8);
    let of = |deeds: &[Deed]| io_of(&[disk(HostAccess::Cached)], &[write], deeds)[0];
    assert_eq!(of(&[]), Err(NoPhase::PageCache));
    let written_back = [(25, 'o', 1000..1008), (30, '<', 1000..1008)];
    assert_eq!(of(&written_back), Err(NoPhase::PageCache), "later");
    for submitter in ['>', 'o'] {
        let meanwhile = [(11, submitter, 1000..1008), (15, '<', 1000..1008)];
        assert_eq!(of(&meanwhile), Err(NoPhase::Ambiguous), "what was written before, perhaps");
    }
    let flush = io_of(
        &[disk(HostAccess::Cached)],
        &[flush(0, 10, 20)],
        &[(12, '>', 0..0), (15, '<', 0..0)],
    );
    assert_eq!(flush, [Err(NoPhase::UnknownFile)], "it writes back first");
}

#[test]
fn what_was_discarded_lies_nobody_knows_where() {
    let discard = ObservedRequest { task: 1, ..observed([1, 1, 5], [0; 3]) }.of(&request(
        BlockOperation::Discard,
        4,
        2,
    ));
    let deeds = [(11, '>', 1000..1016), (15, '<', 1000..1016)];
    let of = |sector| {
        let write = request(BlockOperation::Write, sector, 8);
        io_of(&[disk(HostAccess::Direct)], &[discard, write], &deeds)[1]
    };
    assert_eq!((of(0), of(8)), (Err(NoPhase::Unmapped), known(11, 15)));
    // So does what was written, and not there.
    let write = |task, from| {
        ObservedRequest { task, ..observed([from, from, from + 5], [0; 3]) }.of(&request(
            BlockOperation::Write,
            0,
            8,
        ))
    };
    let later = [(22, '>', 1000..1008), (24, '<', 1000..1008)];
    let out = io_of(&[disk(HostAccess::Direct)], &[write(0, 10), write(1, 20)], &later);
    assert_eq!(out, [Err(NoPhase::NoIo), Err(NoPhase::Unmapped)]);
}

#[test]
fn two_disks_have_each_their_own_io() {
    let other = ObservedDisk { number: 1, coverage: Coverage::Disk, ..disk(HostAccess::Direct) };
    let apart = |mut other: ObservedDisk| {
        other.image.extents.as_mut().unwrap()[0].sector = 5000;
        other
    };
    let requests =
        [0, 1].map(|device| ObservedRequest { device, ..request(BlockOperation::Read, 0, 8) });
    let deeds = [
        (11, '>', 1000..1008),
        (12, '>', 5000..5008),
        (15, '<', 5000..5008),
        (18, '<', 1000..1008),
    ];
    let first = ObservedDisk { coverage: Coverage::Disk, ..disk(HostAccess::Direct) };
    let out = io_of(&[first.clone(), apart(other.clone())], &requests, &deeds);
    assert_eq!(out, [known(11, 18), known(12, 15)]);
    // Of one image under two names, and of images that lie nobody knows where, nothing is known.
    let out = io_of(&[first.clone(), other.clone()], &requests, &deeds);
    assert_eq!(out, [Err(NoPhase::Ambiguous); 2]);
    let unmapped = |disk: ObservedDisk| {
        let image = Image { extents: None, ..disk.image };
        ObservedDisk { image, ..disk }
    };
    let out = io_of(&[unmapped(first.clone()), unmapped(other)], &requests, &deeds);
    assert_eq!(out, [Err(NoPhase::Ambiguous); 2]);
    // Alone, a request that has all of the I/O has its own.
    let alone = ObservedDisk { coverage: Coverage::All, ..unmapped(first) };
    assert_eq!(
        io_of(&[alone], &requests[..1], &[deeds[0].clone(), deeds[3].clone()]),
        [known(11, 18)]
    );
    // Another disk of the host's.
    let elsewhere = ObservedDisk { host_device: DEVICE + 1, ..disk(HostAccess::Direct) };
    assert_eq!(io_of(&[elsewhere], &requests[..1], &deeds), [Err(NoPhase::NoIo)]);
}

#[test]
fn a_flush_is_known_where_it_is_the_only_one() {
    let of = |coverage, requests: &[ObservedRequest], deeds: &[Deed]| {
        let disk = ObservedDisk { coverage, ..disk(HostAccess::Direct) };
        io_of(&[disk], requests, deeds)
    };
    let all = |requests: &[ObservedRequest], deeds: &[Deed]| of(Coverage::All, requests, deeds);
    let own: [Deed; 2] = [(12, '>', 0..0), (15, '<', 0..0)];
    let one = [flush(0, 10, 20)];
    assert_eq!(all(&one, &own), [known(12, 15)]);
    assert_eq!(of(Coverage::Disk, &one, &own), [Err(NoPhase::UnknownFile)]);
    assert_eq!(of(Coverage::Slow, &one, &own), [Err(NoPhase::Ambiguous)]);
    for (deeds, why, what) in [
        (vec![], NoPhase::NoIo, "none"),
        (vec![own[0].clone()], NoPhase::Unfinished, "its end was not seen"),
        (vec![(11, 'o', 0..0), own[1].clone()], NoPhase::NoIo, "somebody else's"),
        (
            vec![(11, 'o', 0..0), own[0].clone(), own[1].clone()],
            NoPhase::Ambiguous,
            "others' first",
        ),
        (vec![own[0].clone(), (13, 'o', 0..0), own[1].clone()], NoPhase::Ambiguous, "others' too"),
        (vec![own[0].clone(), (13, '>', 0..0), own[1].clone()], NoPhase::Ambiguous, "two"),
        (vec![own[0].clone(), own[1].clone(), (17, '<', 0..0)], NoPhase::Ambiguous, "two ends"),
        (vec![own[0].clone(), own[1].clone(), (17, 'x', 0..0)], NoPhase::Lost, "events were lost"),
        // That of the kernel's own flush, and of a write with one.
        (vec![own[0].clone(), (15, '<', 8..8)], NoPhase::Unfinished, "not a flush's"),
    ] {
        assert_eq!(all(&one, &deeds), [Err(why)], "{what}");
    }
    let before = [(1, '>', 0..0), (3, '<', 0..0), own[0].clone(), own[1].clone()];
    assert_eq!(all(&one, &before), [known(12, 15)], "another before");
    // Another request for a flush that was under way with it, or that was one with it in the guest.
    let rival = |from| {
        let mut rival = flush(1, from, 30);
        rival.queued = vslice_wire::GuestTicks(9);
        rival
    };
    assert_eq!(all(&[rival(9), one[0]], &own), [Err(NoPhase::Ambiguous); 2]);
    assert_eq!(all(&[rival(10), one[0]], &own), [known(12, 15); 2]);
    let write = request(BlockOperation::Write, 0, 8);
    let write = ObservedRequest { flags: ObservedFlags::FUA, task: 2, ..write };
    let with_fua = ObservedRequest { ..observed([9, 9, 30], [0; 3]).of(&write) };
    assert_eq!(all(&[with_fua, one[0]], &own)[1], Err(NoPhase::Ambiguous));
}

/// The image's file, as the VMM calls it.
const FILE: u64 = 14;

/// Thread 1 is asleep in a flush of a file.
fn sleep(file: u64, from: u64, until: u64) -> [Deed; 2] {
    by(1, file, from, until)
}

fn by(thread: u64, file: u64, from: u64, until: u64) -> [Deed; 2] {
    [(from, 's', file..file + thread), (until, 'w', 0..thread)]
}

/// Of requests of a disk whose file is known, where nothing is told by the host's disk alone; the thread was seen
/// before.
fn with_calls(
    access: HostAccess,
    requests: &[ObservedRequest],
    deeds: &[Deed],
) -> Vec<Result<IoMarks, NoPhase>> {
    let descriptors = vec![u32::try_from(FILE).unwrap(), 20];
    let disk = ObservedDisk { coverage: Coverage::Disk, descriptors, ..disk(access) };
    let deeds = [&[(1, 'r', 0..1)], deeds].concat();
    io_of(&[disk], requests, &deeds)
}

#[test]
fn a_flush_is_on_the_hosts_disk_while_a_thread_sleeps_in_it() {
    let one = [flush(0, 10, 20)];
    let of = |deeds: &[Deed]| with_calls(HostAccess::Direct, &one, deeds);
    let own = sleep(FILE, 12, 15);
    assert_eq!(of(&own), [known(12, 15)]);
    assert_eq!(with_calls(HostAccess::Cached, &one, &own), [known(12, 15)]);
    assert_eq!(of(&sleep(20, 12, 15)), [known(12, 15)], "by another of its numbers");
    // First the file's inode, then the flush; between them it was not on the disk.
    let two = [&own[..], &sleep(FILE, 17, 18)].concat();
    assert_eq!(of(&two), [known(12, 18)]);
    for (deeds, why, what) in [
        (vec![], NoPhase::NoWait, "no thread slept"),
        (sleep(9, 12, 15).to_vec(), NoPhase::NoWait, "in a flush of another file"),
        (sleep(FILE, 9, 15).to_vec(), NoPhase::NoWait, "since before the request"),
        (sleep(FILE, 12, 22).to_vec(), NoPhase::NoWait, "for longer than the request"),
        (own[..1].to_vec(), NoPhase::NoWait, "and was not woken"),
        (vec![(12, 'u', 0..1), own[1].clone()], NoPhase::Ambiguous, "of a file that is not known"),
        (by(2, FILE, 12, 15).to_vec(), NoPhase::Ambiguous, "not all is recorded of the thread"),
        ([&[(11, 'r', 0..2)], &by(2, FILE, 12, 15)[..]].concat(), NoPhase::Ambiguous, "only now"),
        ([&own[..], &[(17, 'x', 0..0)]].concat(), NoPhase::Lost, "events were lost"),
    ] {
        assert_eq!(of(&deeds), [Err(why)], "{what}");
    }
}

#[test]
fn a_thread_that_has_the_number_of_another_is_not_recorded_since_then() {
    let one = [flush(0, 10, 20)];
    let of = |deeds: &[Deed]| with_calls(HostAccess::Direct, &one, deeds);
    let own = sleep(FILE, 12, 15);
    let ended = [&[(5, 'e', 0..1)], &own[..]].concat();
    assert_eq!(of(&ended), [Err(NoPhase::Ambiguous)]);
    let ended_asleep = [&[(11, 's', FILE..FILE + 1), (12, 'e', 0..1)], &own[1..]].concat();
    assert_eq!(of(&ended_asleep), [Err(NoPhase::NoWait)]);
}

#[test]
fn what_vmms_do_with_their_threads_is_bounded() {
    let one = [flush(0, 10, 20)];
    let of = |deeds: &[Deed]| with_calls(HostAccess::Direct, &one, deeds);
    let sleeps = |count| -> Vec<Deed> { (0..count).flat_map(|_| sleep(FILE, 12, 12)).collect() };
    assert_eq!(of(&sleeps(4_000)), [known(12, 12)]);
    assert_eq!(of(&sleeps(5_000)), [Err(NoPhase::Forgotten)]);
    let asleep =
        |count| -> Vec<Deed> { (2..count).map(|thread| (12, 's', FILE..FILE + thread)).collect() };
    assert_eq!(of(&asleep(4_000)), [Err(NoPhase::NoWait)], "they sleep on");
    assert_eq!(of(&asleep(5_000)), [Err(NoPhase::Forgotten)]);
}

#[test]
fn what_lies_between_the_sleeps_of_a_flush_is_queued() {
    let descriptors = vec![u32::try_from(FILE).unwrap()];
    let disk = ObservedDisk { descriptors, ..disk(HostAccess::Direct) };
    let deeds = [&[(1, 'r', 0..1)], &sleep(FILE, 12, 15)[..], &sleep(FILE, 17, 18)].concat();
    let placed = placed_within(flush(0, 10, 20), Bounds::default());
    let out = join(&[disk], &[DRAWING], &[placed], &deeds).remove(0);
    let lengths = Phase::ALL.map(|phase| out.phases.of(phase).total_ns());
    assert_eq!(lengths, [0, 2 + 2, 3 + 1, 2, 0], "of {:?}", Phase::ALL);
}

#[test]
fn a_flush_is_known_by_its_thread_where_no_other_request_may_have_asked_for_it() {
    let own = sleep(FILE, 12, 15);
    let of = |requests: &[ObservedRequest]| with_calls(HostAccess::Direct, requests, &own);
    let one = flush(0, 10, 20);
    let ambiguous = Err(NoPhase::Ambiguous);
    assert_eq!(of(&[flush(1, 9, 30), one]), [ambiguous; 2]);
    assert_eq!(of(&[flush(1, 10, 30), one]), [known(12, 15); 2], "the guest made one of them");
    assert_eq!(of(&[flush(1, 5, 14), one]), [Err(NoPhase::NoWait), known(12, 15)], "it was over");
    let write = |flags| {
        let write = ObservedRequest { flags, task: 2, ..request(BlockOperation::Write, 8, 8) };
        observed([9, 9, 30], [0; 3]).of(&write)
    };
    assert_eq!(of(&[write(ObservedFlags::FUA), one])[1], ambiguous);
    assert_eq!(of(&[write(ObservedFlags(0)), one])[1], known(12, 15), "a write asks for none");
    // Of an image that is not raw, a write may.
    let descriptors = vec![u32::try_from(FILE).unwrap()];
    let image = Image { access: HostAccess::Direct, extents: None };
    let disk = ObservedDisk { descriptors, image, ..disk(HostAccess::Direct) };
    let deeds = [&[(1, 'r', 0..1)], &own[..]].concat();
    let of = |requests: &[ObservedRequest]| io_of(std::slice::from_ref(&disk), requests, &deeds);
    assert_eq!(of(&[one]), [known(12, 15)]);
    assert_eq!(of(&[write(ObservedFlags(0)), one])[1], ambiguous);
}

#[test]
fn a_write_that_is_flushed_has_its_data_and_its_flushes() {
    let write = |flags| ObservedRequest { flags, ..request(BlockOperation::Write, 0, 8) };
    let both = write(ObservedFlags::PREFLUSH.with(ObservedFlags::FUA));
    let data: [Deed; 2] = [(14, '>', 1000..1008), (15, '<', 1000..1008)];
    let before = sleep(FILE, 11, 13);
    let after = sleep(FILE, 17, 19);
    let all = [&before[..], &data, &after].concat();
    let of = |deeds: &[Deed]| with_calls(HostAccess::Direct, &[both], deeds)[0];
    assert_eq!(of(&all), known(11, 19));
    assert_eq!(of(&before), Err(NoPhase::NoIo), "its data were not seen");
    assert_eq!(of(&data), Err(NoPhase::NoWait), "its flushes were not");
    let unfinished = [&before[..], &data[..1], &after].concat();
    assert_eq!(of(&unfinished), Err(NoPhase::Unfinished));
    // Its first flush may be one with another's, its last may not.
    let one_with = |until| {
        let requests = [both, flush(1, 10, until)];
        with_calls(HostAccess::Direct, &requests, &all)
    };
    assert_eq!(one_with(14), [known(11, 19), Err(NoPhase::Ambiguous)]);
}
