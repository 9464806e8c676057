//! Runs that observe their guests: the reader's own requests, as it stamps them itself and as the guest's
//! kernel is seen to make them.

use crate::Case;
use libtest_mimic::Failed;
use std::fs;
use std::path::Path;
use vslice_lab::plan::BUILT_IN;
use vslice_spec::Pattern;
use vslice_spec::offsets::offset_of;
use vslice_tests::{Lab, Run};
use vslice_trace::manifest::{Manifest, VmRecord};
use vslice_trace::observation::ObservationRecord;
use vslice_trace::{ObservedItem, RequestItem, RunDir, Tail, VmName, read_all};
use vslice_wire::{BlockOperation, ObservedFlags, ObservedRequest, Request};

pub(crate) const CASES: &[Case] = &[
    ("reads_are_observed_within_the_readers_own_stamps", by_psync),
    ("reads_of_io_uring_on_nvme_are_observed_within_the_readers_own_stamps", by_io_uring),
    ("what_cannot_be_observed_is_said_before_the_load_begins", no_such_disk),
];

/// 1,024 reads.
const TOTAL: &str = "4MiB";
const READS: usize = 1024;
const BLOCK_BYTES: u32 = 4096;
const DISK_BYTES: u64 = 64 << 20;
const SECTOR_BYTES: u64 = 512;

fn check(holds: bool, what: impl FnOnce() -> String) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(what().into()) }
}

/// What a run recorded of vm1.
struct Recorded {
    reads: Vec<Request>,
    observed: Vec<ObservedRequest>,
    lost_count: usize,
    vm: VmRecord,
    observed_bytes: u64,
}

impl Recorded {
    fn of(run: &Run) -> Result<Recorded, Failed> {
        check(run.code() == Some(0), || format!("exit code {:?}:\n{}", run.code(), run.said()))?;
        run.nothing_is_left()?;
        let directory = RunDir::open(&run.run_dir())?;
        let name = VmName::try_from("vm1")?;
        let mut manifest: Manifest = directory.read_json("run.json")?;
        let vm = manifest.vms.swap_remove(0);
        let (requests, tail) = read_all::<RequestItem>(&directory.requests_path(&name))?;
        check(tail == Tail::Finished, || format!("{tail:?}"))?;
        let path = directory.observed_path(&name);
        let (items, tail) = read_all::<ObservedItem>(&path)?;
        check(tail == Tail::Finished, || format!("{tail:?}"))?;
        let of_reader = |item: &RequestItem| match item {
            RequestItem::Request(request) => Some(*request),
            RequestItem::Dropped(_) => None,
        };
        let observed = |item: &ObservedItem| match item {
            ObservedItem::Request(request) => Some(*request),
            ObservedItem::Lost(_) | ObservedItem::Settled(_) => None,
        };
        Ok(Recorded {
            reads: requests.iter().filter_map(of_reader).collect(),
            observed: items.iter().filter_map(observed).collect(),
            lost_count: items
                .iter()
                .filter(|item| matches!(item, ObservedItem::Lost(lost) if lost.count > 0))
                .count(),
            vm,
            observed_bytes: fs::metadata(path)?.len(),
        })
    }

    fn observation(&self) -> Result<&ObservationRecord, Failed> {
        Ok(self.vm.observation.as_ref().ok_or("no observation in the manifest")?)
    }

    /// Each of the reader's requests is in one that was observed, and no other is its.
    fn has_each_read_once(&self, disk_name: &str) -> Result<(), Failed> {
        let observation = self.observation()?;
        check(self.lost_count == 0 && observation.lost_count == 0, || format!("{observation:?}"))?;
        let disk = observation.devices.iter().find(|device| device.name == disk_name);
        let disk = disk.ok_or_else(|| format!("no {disk_name} in {observation:?}"))?;
        let image = disk.disk.and_then(|place| self.vm.disks.get(place));
        check(image.is_some_and(|image| image.label.contains("vm1.raw")), || format!("{disk:?}"))?;
        check(self.reads.len() == READS, || format!("{} reads", self.reads.len()))?;
        let reader = observation.tasks.iter().find(|task| task.name == "reader");
        let reader = reader.ok_or_else(|| format!("no reader in {observation:?}"))?.number;
        let is_its = |of: &&ObservedRequest| (of.device, of.task) == (disk.number, reader);
        let bytes: u64 = self.observed.iter().filter(is_its).map(|of| u64::from(of.bytes)).sum();
        check(bytes == READS as u64 * u64::from(BLOCK_BYTES), || {
            format!("{bytes} observed bytes")
        })?;
        for read in &self.reads {
            self.is_observed_once(read, disk.number, reader)?;
        }
        Ok(())
    }

    fn is_observed_once(&self, read: &Request, device: u16, reader: u32) -> Result<(), Failed> {
        let at_bytes = offset_of(Pattern::Seq, BLOCK_BYTES, DISK_BYTES, read.index);
        let is_it = |of: &&ObservedRequest| {
            let start_bytes = of.sector * SECTOR_BYTES;
            let covers = (start_bytes..start_bytes + u64::from(of.bytes)).contains(&at_bytes);
            covers && (of.device, of.operation) == (device, BlockOperation::Read)
        };
        let found: Vec<&ObservedRequest> = self.observed.iter().filter(is_it).collect();
        let [one] = found[..] else {
            return Err(format!("{read:?} is observed as {found:?}").into());
        };
        // One vCPU stamps a request's beginning by one clock, as agent and as kernel: nothing is left to err.
        let is_within = read.submitted <= one.queued && one.completed <= read.completed;
        let is_in_order = one.queued <= one.issued && one.issued <= one.completed;
        check(is_within && is_in_order, || format!("{read:?} is observed as {one:?}"))?;
        let doubts =
            [ObservedFlags::AMBIGUOUS, ObservedFlags::OVERLAPPED, ObservedFlags::NO_QUEUE_TIME];
        let is_sure = !doubts.iter().any(|doubt| one.flags.contains(*doubt));
        // Neighbours that are submitted together are one request of the kernel's.
        let is_merged = one.flags.contains(ObservedFlags::MERGED);
        let is_its = (one.result, one.task) == (0, reader)
            && (one.bytes > BLOCK_BYTES) == is_merged
            && one.vcpu_queued == read.vcpu_submitted;
        check(is_sure && is_its, || format!("{read:?} is observed as {one:?}"))
    }
}

fn observing(lab: &Lab, arguments: &[&str]) -> Result<Recorded, Failed> {
    let run = lab.run(&[&["demo", "--observe", "--total", TOTAL], arguments].concat())?;
    Recorded::of(&run)
}

fn by_psync(lab: &Lab) -> Result<(), Failed> {
    let recorded = observing(lab, &["--iothread", "true"])?;
    recorded.has_each_read_once("vda")?;
    check(recorded.observed.len() >= READS, || "reads one by one are merged".to_owned())?;
    let per_request = recorded.observed_bytes / READS as u64;
    check(per_request <= 14, || format!("{per_request} bytes a request"))?;
    let guest = recorded.vm.guest.as_ref().ok_or("the guest said nothing of itself")?;
    check(guest.notices.is_empty(), || format!("{:?}", guest.notices))?;
    check(guest.clock_source.as_deref() == Some("tsc"), || format!("{guest:?}"))
}

fn by_io_uring(lab: &Lab) -> Result<(), Failed> {
    let arguments = ["--bus", "nvme", "--engine", "io_uring", "--depth", "4"];
    observing(lab, &arguments)?.has_each_read_once("nvme0n1")
}

fn no_such_disk(lab: &Lab) -> Result<(), Failed> {
    const SAID: &str = "vm1: the guest's own requests are not observed";
    let observe = "[vm.observe]\ndevices = ['vdz']\n[vm.reader]";
    let directory = tempfile::tempdir()?;
    let plan = directory.path().join("plan.toml");
    fs::write(&plan, BUILT_IN[0].1.replacen("[vm.reader]", observe, 1))?;
    let path = Path::to_str(&plan).ok_or("the path is no text")?;
    let run = lab.run(&[path, "--total", "256KiB"])?;
    let said = run.said();
    let recorded = Recorded::of(&run)?;
    let (warned, begun) = (said.find(SAID), said.find("running the workloads"));
    check(warned.is_some() && warned < begun, || said.clone())?;
    check(said.contains("it has vda"), || said.clone())?;
    check(recorded.observed.is_empty() && recorded.reads.len() == 64, || {
        format!("{} of {}", recorded.observed.len(), recorded.reads.len())
    })?;
    let report = run.printed();
    check(report.contains("own requests are not observed"), || report.clone())
}
