//! Whether the kernel of this machine hides from perf that requests end.
//!
//! Some kernels record nothing while certain tasks are current, for instance a CPU's idle task (`assemble.rs` of
//! vslice-record), nor what an interrupt of theirs completes. An event of perf's counts it all the same, but its ring has
//! no record, and no loss is counted. The disk's own counters have it. What they have and an independent ring has
//! not, the kernel hides. What an agent misses beyond that, it has lost itself.

use crate::no_room::LoopDevice;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use vslice_perf::attr::{LostCount, stamped};
use vslice_perf::format::Format;
use vslice_perf::record::{RawRecord, RawRecords};
use vslice_perf::{Ring, Tracefs, online, sys};
use vslice_tests::not_judged;

/// `PERF_TYPE_TRACEPOINT` and `PERF_RECORD_SAMPLE` in include/uapi/linux/perf_event.h.
const TRACEPOINT: u32 = 2;
const SAMPLE: u32 = 9;

/// Each ring has room for 16,000 records. Since Linux 6.0 it is known how many found none.
const RING_BYTES: usize = 256 << 10;

/// Requests completed, in `/sys/block/X/stat`: read, written, discarded (since Linux 4.19), flushed (since 5.5).
const COMPLETED_FIELDS: [usize; 4] = [0, 4, 11, 15];

/// What a disk completes while this lives, counted by the disk and by perf's records.
pub(crate) struct Completions {
    stat: PathBuf,
    rings: Vec<(OwnedFd, Ring)>,
    records_count: u64,
    before: Counted,
}

impl Completions {
    /// From now on. Perf records from a bit earlier on, so that nothing seems to be hidden which is not.
    pub(crate) fn of(disk: &str) -> io::Result<Completions> {
        let place = Path::new("/sys/block").join(disk);
        let mut completions = Completions {
            stat: place.join("stat"),
            rings: rings(&place)?,
            records_count: 0,
            before: Counted::default(),
        };
        let by_perf = completions.by_perf()?;
        completions.before = Counted { by_disk: completions.by_disk()?, by_perf };
        Ok(completions)
    }

    /// Until now, and by perf until a bit later.
    pub(crate) fn counted(&mut self) -> io::Result<Counted> {
        let by_disk = self.by_disk()? - self.before.by_disk;
        let by_perf = self.by_perf()? - self.before.by_perf;
        Ok(Counted { by_disk, by_perf })
    }

    fn by_disk(&self) -> io::Result<u64> {
        Ok(completed(&fs::read_to_string(&self.stat)?))
    }

    /// Records, and those that found no room: what is counted as lost is not hidden.
    fn by_perf(&mut self) -> io::Result<u64> {
        let mut batch = Vec::new();
        for (_, ring) in &mut self.rings {
            ring.drain(&mut batch).map_err(io::Error::other)?;
        }
        let is_sample =
            |record: &Result<_, _>| matches!(record, Ok(RawRecord { kind: SAMPLE, .. }));
        self.records_count += RawRecords::new(&batch).filter(is_sample).count() as u64;
        let lost_count: u64 = self.rings.iter().map(|(event, _)| sys::lost_of(event)).sum();
        Ok(self.records_count + lost_count)
    }
}

/// An event with a ring on each CPU, for the ends of requests of the disk at this place in sysfs.
fn rings(place: &Path) -> io::Result<Vec<(OwnedFd, Ring)>> {
    let format = Tracefs::find()?.format("block/block_rq_complete")?;
    let mut attr = stamped(LostCount::ask(0));
    attr.type_ = TRACEPOINT;
    attr.config = Format::new(&format).id().map_err(io::Error::other)?.into();
    attr.sample_period = 1;
    let (filter, page_bytes) = (filter(place)?, online::page_bytes()?);
    let ring = |cpu| {
        let event = sys::open(attr, cpu, None)?;
        sys::set_filter(event.as_fd(), &filter)?;
        let ring = Ring::map(&event, page_bytes, RING_BYTES)?;
        Ok((event, ring))
    };
    online::cpus()?.into_iter().map(ring).collect()
}

fn filter(place: &Path) -> io::Result<String> {
    // Data that had to wait for a flush end twice, the second time without sectors, and are one request to the disk
    // (linux: block/blk-flush.c). What is a flush alone has no sectors either, but is not somewhere on the disk: the
    // queue's own has -1, and whoever asked for it 0.
    let filter = format!("(nr_sector>0||sector==0||sector=={})", u64::MAX);
    // A disk without queues has its requests made by others, as NVMe's multipath does by hidden paths. Then those of
    // all disks are counted, and nothing seems to be hidden which is not.
    if !place.join("mq").exists() {
        return Ok(filter);
    }
    let number = kernel_number(&fs::read_to_string(place.join("dev"))?);
    let number = number.ok_or_else(|| io::Error::other("a disk without a number"))?;
    Ok(format!("dev=={number}&&{filter}"))
}

/// `254:0` as the kernel has it (`MKDEV` in include/linux/kdev_t.h).
fn kernel_number(dev: &str) -> Option<u32> {
    let (major, minor) = dev.trim().split_once(':')?;
    Some((major.parse::<u32>().ok()? << 20) | minor.parse::<u32>().ok()?)
}

fn completed(stat: &str) -> u64 {
    let fields: Vec<u64> =
        stat.split_ascii_whitespace().filter_map(|field| field.parse().ok()).collect();
    COMPLETED_FIELDS.iter().filter_map(|field| fields.get(*field)).sum()
}

/// How many requests a disk has completed meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counted {
    pub(crate) by_disk: u64,
    by_perf: u64,
}

impl Counted {
    /// How many ends of requests the kernel has hidden from perf, at least.
    pub(crate) fn hidden_count(self) -> u64 {
        self.by_disk.saturating_sub(self.by_perf)
    }

    /// Whether perf was not told of so many at least.
    fn explains(self, missing_count: u64) -> bool {
        missing_count > 0 && missing_count <= self.hidden_count()
    }

    /// Whether so many requests that an agent misses are missing because the kernel has hidden from perf that they
    /// ended: then the test cannot judge, and says so.
    pub(crate) fn excuses(self, missing_count: u64, test: &str) -> bool {
        if self.explains(missing_count) {
            let because = format!(
                "the kernel hides from perf that requests end: the disk has completed {}, perf's ring for \
                 block_rq_complete has had {}, and {missing_count} are missing",
                self.by_disk, self.by_perf
            );
            not_judged::<()>(test, &because).expect("never");
        }
        self.explains(missing_count)
    }
}

/// What a loop device does on memory its worker completes, and no interrupt, if it may do so on its own CPU.
#[test]
fn a_disk_and_perf_count_the_same_where_nothing_is_hidden() {
    const TEST: &str = "a_disk_and_perf_count_the_same";
    const READS: u64 = 500;
    let Some(device) = LoopDevice::make() else {
        return not_judged::<()>(TEST, "there is no loop device").expect("never");
    };
    device.complete_where_its_worker_is();
    let mut completions = match Completions::of(&device.name()) {
        Ok(completions) => completions,
        Err(error) => return not_judged::<()>(TEST, &error.to_string()).expect("never"),
    };
    device.read(0..READS);
    device.flush();
    let counted = completions.counted().expect("it was there a moment ago");
    println!("{counted:?}");
    // Somebody else may have a look at a new device.
    assert!((READS..READS + 100).contains(&counted.by_disk), "{counted:?}");
    assert!((counted.by_disk..READS + 100).contains(&counted.by_perf), "{counted:?}");
}

#[test]
fn only_what_the_kernel_hides_is_an_excuse() {
    let explains = |by_disk, by_perf, missing| Counted { by_disk, by_perf }.explains(missing);
    assert!(explains(100, 90, 10));
    assert!(!explains(100, 90, 11), "one of them is the agent's loss");
    assert!(!explains(100, 100, 1) && !explains(100, 101, 1));
    assert!(!explains(100, 90, 0), "what is not missing needs no excuse");
}

#[test]
fn completed_are_reads_writes_discards_and_flushes() {
    // Linux 4.18, and 5.5 and later.
    let old = "  1 2 3 4 50 6 7 8 9 10 11\n";
    assert_eq!(completed(old), 51);
    assert_eq!(completed(&format!("{} 600 13 14 15 7000 17", old.trim())), 7651);
}
