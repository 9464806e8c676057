//! Requests that may not wait for a tag, are refused, and are asked for again.
//!
//! io_uring asks for each I/O with `RWF_NOWAIT` first. If the disk's queue has no tag left, the bio ends with
//! `EAGAIN` (linux 6.1: block/blk-mq.c, `blk_mq_submit_bio`), and one of its workers asks again and waits.

use super::attached::{Attached, Observed, Recorded};
use super::figures::say;
use super::guest::LoadGuest;
use super::{FioRun, each_is_observed, fio, side_by_side};
use libtest_mimic::Failed;
use vslice_tests::Lab;

/// Many at once, each offset once.
const FIO: &str = "--filename=/dev/vdb --direct=1 --bs=4k --rw=randread --ioengine=io_uring \
                   --iodepth=32 --number_ios=2000";

/// A queue with as few tags as the kernel lets it have (linux: `BLKDEV_MIN_RQ`), and a witness of its own: an instance
/// of the guest's tracefs that keeps what has ended with `EAGAIN`.
const SET: &str = "cd /sys/block/vdb/queue && cat nr_requests >/run/nr_requests && echo none >scheduler && \
                   echo 4 >nr_requests && mkdir /sys/kernel/tracing/instances/refused && \
                   cd /sys/kernel/tracing/instances/refused/events/block/block_bio_complete && \
                   echo 'error == -11' >filter && echo 1 >enable";
const UNSET: &str = "cat /run/nr_requests >/sys/block/vdb/queue/nr_requests && \
                     cd /sys/kernel/tracing/instances && echo 0 >refused/events/enable && \
                     grep -c block_bio_complete refused/trace >/run/refused; rmdir refused";

/// Of 2,000 I/Os, 32 at a time; without any there is nothing to see here.
const REFUSED_MIN: usize = 100;

/// Each I/O of fio is one request, of who asked for it in the end, and none is left.
pub(super) fn each_is_observed_once(lab: &Lab, guest: &LoadGuest) -> Result<(), Failed> {
    guest.run(SET)?;
    let recorded = record(lab, guest);
    // Other tests have this guest after this one.
    guest.run(UNSET)?;
    let (fio, recorded) = recorded?;
    let refused: usize = guest.file("/run/refused")?.trim().parse()?;
    let mut observed = recorded.on("vdb")?;
    let is_worker = |request: &Observed| recorded.who(request).0.starts_with("iou-wrk-");
    observed.retain(|request| recorded.who(request).0 == "fio" || is_worker(request));
    let again = observed.iter().filter(|request| is_worker(request)).count();
    say(&format!("{} I/Os of fio, {refused} refused, {again} of workers", fio.logged.len()));
    side_by_side("refused", &fio, &observed);
    for line in recorded.page.lines().take(20) {
        say(line);
    }
    if refused < REFUSED_MIN {
        return Err("too few were refused to tell".into());
    }
    each_is_observed(&fio.logged, &observed)?;
    let ambiguous = observed.iter().filter(|request| request.is_ambiguous).count();
    let end = recorded.record.end.as_ref().ok_or("what is left at the end is not told")?;
    if ambiguous > 0 || !end.under_way.is_empty() {
        return Err(format!("{ambiguous} ambiguous, left at the end: {:?}", end.under_way).into());
    }
    // What the kernel merges is one request of several.
    if again.abs_diff(refused) * 100 > refused {
        return Err(format!("{refused} were refused, and workers asked for {again}").into());
    }
    Ok(())
}

fn record(lab: &Lab, guest: &LoadGuest) -> Result<(FioRun, Recorded), Failed> {
    let attached = Attached::start(lab, &["--observe", "--devices", "vdb"])?;
    let fio = fio::run(guest, FIO, 1);
    let recorded = attached.finish()?;
    Ok((fio?, recorded))
}
