//! What a guest does by itself is observed: fio, by its own latency log, and PostgreSQL.
//!
//! Times are printed and not asserted; but a request that vslice has observed lies within the I/O that fio
//! has timed, since fio begins before the kernel does and ends after it.

mod attached;
mod figures;
mod fio;
mod guest;
mod host_only;
mod postgres;
mod refused;

use attached::{Attached, Observed, Recorded};
use figures::{Percentiles, say};
use fio::{FioRun, Logged};
use guest::{Guarded, LoadGuest};
use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use std::collections::HashMap;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use vslice_tests::Lab;

type Case = (&'static str, fn(&Lab, &LoadGuest) -> Result<(), Failed>);

const CASES: &[Case] = &[
    ("load_fio_psync_is_observed_io_by_io", |lab, guest| direct(lab, guest, "psync", PSYNC, 1)),
    ("load_fio_io_uring_is_observed_io_by_io", |lab, guest| {
        direct(lab, guest, "io_uring", IO_URING, 1)
    }),
    ("load_four_fio_jobs_are_observed_io_by_io", |lab, guest| {
        direct(lab, guest, "4 jobs", JOBS, 4)
    }),
    ("load_what_may_not_wait_and_is_refused_is_observed_once", refused::each_is_observed_once),
    ("load_flushes_of_fio_are_observed", flushes),
    ("load_commits_of_a_journal_are_observed", commits),
    ("load_slow_requests_are_sent_and_the_others_counted", slower_than),
    ("load_who_made_fio_slow_is_named", contended),
    ("load_who_is_missing_is_held_by_an_attach_that_only_looks_from_the_host", |lab, guest| {
        host_only::fio_is_held(lab, guest)
    }),
    ("load_flushes_of_postgres_are_explained", postgres::flushes_are_explained),
];

/// Each offset once, so that an I/O is known by it.
const PSYNC: &str =
    "--filename=/dev/vdb --direct=1 --bs=4k --rw=randread --ioengine=psync --number_ios=2000";
const IO_URING: &str = "--filename=/dev/vdb --direct=1 --bs=4k --rw=randrw --ioengine=io_uring \
                        --iodepth=8 --number_ios=2000";
const JOBS: &str = "--filename=/dev/vdb --direct=1 --bs=4k --rw=randread --ioengine=psync \
                    --size=16m --offset_increment=16m --number_ios=500";

/// Writes over a file that is there, so that each fdatasync(2) is a write and a flush.
const FLUSHES: &str = "--filename=/srv/files/fio --size=4m --bs=4k --rw=randwrite --ioengine=psync \
                       --fdatasync=1 --number_ios=300";

/// The same, each followed by fsync(2), so that the file's times are written too: the guest's journal commits, by a
/// write with a flush before and after it.
const COMMITS: &str = "--filename=/srv/files/fio --size=4m --bs=4k --rw=randwrite --ioengine=psync \
                       --fsync=1 --number_ios=300";

/// The name of the busy process beside the guest.
const NEIGHBOUR: &str = "noisy-neighbour";

/// A third of what is known must be of these, for the others to be too few.
const COMMITS_MIN: usize = 100;

/// Reads of the guest's udev, when a disk has been written to.
const UDEV_READS_MAX: u64 = 100;

/// The clock of fio is slewed by the guest's NTP at most by 500 ppm (adjtimex(2)), that of the kernel's
/// events is not.
const SLEW_PPM_MAX: u64 = 500;

/// The guest that all of these tests share.
pub(crate) type SharedGuest = Arc<Mutex<Option<LoadGuest>>>;

/// The tests with this guest, which the first of them boots; all are ignored where it cannot be.
pub(crate) fn trials(lab: Result<Lab, String>, guest: &SharedGuest) -> Vec<Trial> {
    let lab = lab.and_then(|lab| guest::image().map(|image| lab.with_image(image)));
    let trial = |&(name, case): &Case| match lab.clone() {
        Ok(lab) => {
            let guest = Arc::clone(guest);
            Trial::test(name, move || {
                let mut guest = guest.lock().unwrap_or_else(PoisonError::into_inner);
                if guest.is_none() {
                    *guest = Some(LoadGuest::start(lab.image())?);
                }
                case(&lab, guest.as_ref().ok_or("it was just started")?)
            })
        }
        Err(reason) => Trial::test(name, || Ok(())).with_kind(reason).with_ignored_flag(true),
    };
    CASES.iter().map(trial).collect()
}

/// Each I/O of fio's is observed once, within its time.
fn direct(
    lab: &Lab,
    guest: &LoadGuest,
    name: &str,
    options: &str,
    jobs: usize,
) -> Result<(), Failed> {
    let attached = Attached::start(lab, &["--observe", "--devices", "vdb"])?;
    let fio = fio::run(guest, options, jobs)?;
    let recorded = attached.finish()?;
    let observed = by_fio(&recorded, "vdb")?;
    let slack = each_is_observed(&fio.logged, &observed)?;
    side_by_side(name, &fio, &observed);
    let slack = Percentiles::of(slack.into_iter());
    say(&format!("{name}, each I/O by fio less as observed: {}", slack.words()));
    Ok(())
}

fn by_fio(recorded: &Recorded, disk: &str) -> Result<Vec<Observed>, Failed> {
    let mut observed = recorded.on(disk)?;
    observed.retain(|request| recorded.who(request).0 == "fio");
    Ok(observed)
}

fn side_by_side(name: &str, fio: &FioRun, observed: &[Observed]) {
    let of_fio = Percentiles::of(fio.logged.iter().map(|logged| logged.latency_ns));
    let of_vslice = Percentiles::of(observed.iter().map(Observed::latency_ns));
    say(&format!("{name}, by fio:      {}", of_fio.words()));
    say(&format!("{name}, as observed: {}", of_vslice.words()));
}

/// Until the kernel has handed a flush to the driver, and then until it is done. `Limits` of `vslice-observe` rest on
/// how long these are.
fn how_long_flushes_take<'a>(of: &str, requests: impl Iterator<Item = &'a Observed> + Clone) {
    let flushes = requests.filter(|request| request.operation == "flush");
    let kernel = flushes.clone().map(|flush| flush.issued_ns - flush.queued_ns);
    let disk = flushes.map(|flush| flush.completed_ns - flush.issued_ns);
    say(&format!("flushes of {of}, until issued:    {}", Percentiles::of(kernel).words()));
    say(&format!("flushes of {of}, until completed: {}", Percentiles::of(disk).words()));
}

/// Writes through the page cache, each followed by fdatasync(2): the kernel's write and flush are within it.
fn flushes(lab: &Lab, guest: &LoadGuest) -> Result<(), Failed> {
    guest.run("dd if=/dev/urandom of=/srv/files/fio bs=1M count=4 conv=fsync")?;
    let attached = Attached::start(lab, &["--observe", "--devices", "vdc"])?;
    let fio = fio::run(guest, FLUSHES, 1)?;
    let recorded = attached.finish()?;
    let observed = by_fio(&recorded, "vdc")?;
    how_long_flushes_take("fio", observed.iter());
    let (mut syncs, mut write) = (Vec::new(), None);
    for request in observed {
        match request.operation {
            "write" => write = Some(request),
            "flush" => {
                let write: Observed = write.take().ok_or("a flush without its write")?;
                syncs.push(request.completed_ns - write.queued_ns);
            }
            other => return Err(format!("fio made a {other}: {request:?}").into()),
        }
    }
    recorded.phases_are_known("vdc", "flush")?;
    let of_fio = &fio.job["sync"];
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    let count = of_fio["lat_ns"]["N"].as_u64().unwrap_or_default();
    let mean_ns = number(&of_fio["lat_ns"]["mean"]);
    let of_vslice = Percentiles::of(syncs.iter().copied());
    let percentile = |name: &str| number(&of_fio["lat_ns"]["percentile"][name]) / 1e6;
    let (p50, p99) = (percentile("50.000000"), percentile("99.000000"));
    say(&format!("fdatasync, by fio:      {count:5}, p50 {p50:7.3} ms, p99 {p99:7.3} ms"));
    say(&format!("fdatasync, as observed: {}", of_vslice.words()));
    let observed_mean_ns = syncs.iter().sum::<u64>() as f64 / syncs.len().max(1) as f64;
    if count != syncs.len() as u64 || syncs.is_empty() {
        return Err(format!("{count} fdatasyncs of fio, {} observed", syncs.len()).into());
    }
    if observed_mean_ns > mean_ns {
        return Err(format!("{observed_mean_ns} ns on average, and {mean_ns} ns by fio").into());
    }
    Ok(())
}

/// The writes by which the guest's journal commits have their data on the host's disk, and their flushes.
fn commits(lab: &Lab, guest: &LoadGuest) -> Result<(), Failed> {
    guest.run("dd if=/dev/urandom of=/srv/files/fio bs=1M count=4 conv=fsync")?;
    let attached = Attached::start(lab, &["--observe", "--devices", "vdc"])?;
    fio::run(guest, COMMITS, 1)?;
    let recorded = attached.finish()?;
    let commits = recorded.on("vdc")?.iter().filter(|request| request.is_flushed).count();
    say(&format!("{commits} commits"));
    // A file's time goes on with the guest's timer, so not each fsync has to commit.
    if commits < COMMITS_MIN {
        return Err(format!("{commits} commits are too few to tell").into());
    }
    recorded.phases_are_known("vdc", "write")
}

/// About one in a hundred is sent, and the others are counted.
fn slower_than(lab: &Lab, guest: &LoadGuest) -> Result<(), Failed> {
    let attached = Attached::start(lab, &["--observe", "--devices", "vdb"])?;
    fio::run(guest, PSYNC, 1)?;
    let all = by_fio(&attached.finish()?, "vdb")?;
    let p99_us = Percentiles::of(all.iter().map(Observed::latency_ns)).p99_ns / 1000;
    let limit = format!("{p99_us}us");
    let attached =
        Attached::start(lab, &["--observe", "--devices", "vdb", "--slower-than", &limit])?;
    let fio = fio::run(guest, PSYNC, 1)?;
    let recorded = attached.finish()?;
    let sent = recorded.on("vdb")?;
    let counted: u64 = recorded.record.others.iter().map(|others| others.count).sum();
    let total = sent.len() as u64 + counted;
    let percent = sent.len() as f64 / total.max(1) as f64 * 100.0;
    say(&format!(
        "slower than {limit}: {} of {total} sent, {percent:.2} %; fio made {}",
        sent.len(),
        fio.logged.len()
    ));
    if let Some(quick) = sent.iter().find(|request| request.latency_ns() < p99_us * 1000) {
        return Err(format!("sent though it is quick: {quick:?}").into());
    }
    // The guest's udev may look at the disk once fio has closed it.
    if total < fio.logged.len() as u64 || total > fio.logged.len() as u64 + UDEV_READS_MAX {
        return Err(format!("{} I/Os of fio, {total} sent or counted", fio.logged.len()).into());
    }
    Ok(())
}

/// A busy process on the pCPU of the vCPU that fio runs on.
fn contended(lab: &Lab, guest: &LoadGuest) -> Result<(), Failed> {
    let attached = Attached::start(lab, &["--observe", "--devices", "vdb"])?;
    let neighbour = neighbour(1)?;
    let fio = fio::run(guest, &format!("{PSYNC} --cpus_allowed=1"), 1)?;
    drop(neighbour);
    let recorded = attached.finish()?;
    let observed = by_fio(&recorded, "vdb")?;
    each_is_observed(&fio.logged, &observed)?;
    side_by_side("beside a neighbour", &fio, &observed);
    for line in recorded.page.lines().take(20) {
        say(line);
    }
    recorded.blames(NEIGHBOUR, "read", 1)
}

/// How much longer each I/O took by fio than as observed.
fn each_is_observed(logged: &[Logged], observed: &[Observed]) -> Result<Vec<u64>, Failed> {
    // By their blocks: what the kernel merges is one request with the blocks of several I/Os.
    let blocks = observed.iter().flat_map(|request| {
        (request.offset..request.offset + u64::from(request.bytes))
            .step_by(4096)
            .map(move |block| (block, request))
    });
    let mut by_block = HashMap::new();
    for (block, request) in blocks {
        if let Some(other) = by_block.insert(block, request) {
            return Err(format!("one I/O is observed twice: {request:?}, {other:?}").into());
        }
    }
    let longer = |io: &Logged| -> Result<u64, Failed> {
        let request = by_block.remove(&io.offset);
        let request = request.ok_or_else(|| format!("not observed: {io:?}"))?;
        if (request.operation == "write") != io.is_write {
            return Err(format!("observed as another operation: {io:?}, {request:?}").into());
        }
        let most = io.latency_ns + io.latency_ns * SLEW_PPM_MAX / 1_000_000;
        if request.latency_ns() > most {
            return Err(format!("observed to take longer: {io:?}, {request:?}").into());
        }
        Ok(io.latency_ns.saturating_sub(request.latency_ns()))
    };
    let longer = logged.iter().map(longer).collect::<Result<Vec<u64>, Failed>>()?;
    match by_block.values().next() {
        Some(request) => Err(format!("not in fio's log: {request:?}").into()),
        None => Ok(longer),
    }
}

/// A busy process on a pCPU, under a name of its own; it ends with this value.
fn neighbour(pcpu: u32) -> Result<Guarded, Failed> {
    let line = format!("printf {NEIGHBOUR} >/proc/$$/comm; while :; do :; done");
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &pcpu.to_string(), "sh", "-c", &line]);
    Ok(Guarded(command.stdin(Stdio::null()).spawn()?))
}
