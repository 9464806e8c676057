//! An agent that observes a loop device on memory, whose requests this test makes.

use crate::collector::{Pair, Told};
use crate::hidden::Completions;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use vslice_perf::attr::LostCount;
use vslice_spec::ObserveSpec;
use vslice_tests::not_judged;
use vslice_wire::{
    DoneReason, Dropped, GuestFrame, HostFrame, Observed, ObservedHidden, ObservedRequest, Severity,
};
use vslice_workload::clock::Clock;

/// One request each.
const BLOCK_BYTES: usize = 4096;

const BLOCKS: u64 = 1024;

/// More than the rings have room for.
const FLOOD_READS: u64 = 40_000;

/// A loop device, which ends with this.
pub(crate) struct LoopDevice {
    path: PathBuf,
    file: File,
    _image: tempfile::NamedTempFile,
}

impl LoopDevice {
    /// `None` where this machine lets nobody make one.
    pub(crate) fn make() -> Option<LoopDevice> {
        let image = tempfile::NamedTempFile::new_in("/dev/shm").ok()?;
        image.as_file().write_all_at(&vec![1; BLOCK_BYTES], (BLOCKS - 1) * 4096).ok()?;
        let made = Command::new("losetup").args(["--find", "--show"]).arg(image.path()).output();
        let made = made.ok().filter(|made| made.status.success())?;
        let path = PathBuf::from(String::from_utf8(made.stdout).ok()?.trim());
        let direct = nix::libc::O_DIRECT;
        let file = OpenOptions::new().read(true).custom_flags(direct).open(&path).ok()?;
        Some(LoopDevice { path, file, _image: image })
    }

    pub(crate) fn name(&self) -> String {
        self.path.file_name().expect("a device").to_string_lossy().into_owned()
    }

    /// No completion is sent to whoever asked, which interrupts a vCPU that may be idle: of that some kernels record nothing.
    pub(crate) fn complete_where_its_worker_is(&self) {
        let rq_affinity = format!("/sys/block/{}/queue/rq_affinity", self.name());
        std::fs::write(rq_affinity, "0").expect("it is our own");
    }

    /// Asks it to keep what was written.
    pub(crate) fn flush(&self) {
        self.file.sync_all().expect("its own image");
    }

    /// Reads these blocks past the page cache, one after the other.
    pub(crate) fn read(&self, blocks: impl IntoIterator<Item = u64>) -> Vec<Read> {
        let mut memory = vec![0; 2 * BLOCK_BYTES];
        let begin = memory.as_ptr().align_offset(BLOCK_BYTES);
        let block = &mut memory[begin..begin + BLOCK_BYTES];
        let read = |place: u64| {
            let begun = Clock::MonotonicRaw.now();
            self.file.read_exact_at(block, place * 4096).expect("its own image");
            Read { sector: place * 8, begun, ended: Clock::MonotonicRaw.now() }
        };
        blocks.into_iter().map(read).collect()
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.path).status();
    }
}

/// What this test did, by the clock that the kernel stamps with.
#[derive(Debug)]
pub(crate) struct Read {
    sector: u64,
    begun: u64,
    ended: u64,
}

impl Read {
    fn is_told(&self, requests: &[ObservedRequest]) -> bool {
        let after = requests.partition_point(|request| request.queued.0 < self.begun);
        let mut within = requests[after..].iter().take_while(|told| told.queued.0 <= self.ended);
        within.any(|told| told.sector == self.sector && told.completed.0 <= self.ended)
    }

    fn may_be_lost(&self, losses: &[Dropped]) -> bool {
        losses.iter().any(|lost| lost.first.0 <= self.ended && self.begun <= lost.last.0)
    }
}

/// An agent that observes the device, or why it cannot.
fn observing(device: &LoopDevice) -> Result<Pair, String> {
    let (mut pair, _) = Pair::connect();
    let mut spec = pair.spec();
    spec.reader = None;
    spec.observe = Some(ObserveSpec { devices: vec![device.name()], slower_than_us: 0 });
    pair.plan(&spec);
    loop {
        match pair.next_frame().expect("it is ready, or says why not") {
            GuestFrame::Ready(_) => break,
            GuestFrame::Notice(notice) if notice.severity == Severity::Warning => {
                return Err(notice.text);
            }
            _ => {}
        }
    }
    pair.say(&HostFrame::Start);
    Ok(pair)
}

fn stopped(mut pair: Pair, mut told: Told) -> Told {
    pair.say(&HostFrame::Stop);
    while pair.listen(&mut told) {}
    assert_eq!(told.done().reason, DoneReason::Stopped);
    told
}

fn requests(told: &Told) -> Vec<ObservedRequest> {
    let blocks = told.observed.iter().filter_map(|observed| match observed {
        Observed::Requests(block) => Some(&block.requests),
        _ => None,
    });
    blocks.flatten().copied().collect()
}

fn losses(told: &Told) -> Vec<Dropped> {
    let lost = |observed: &Observed| match observed {
        Observed::Lost(lost) => Some(*lost),
        _ => None,
    };
    told.observed.iter().filter_map(lost).collect()
}

fn hidden(told: &Told) -> ObservedHidden {
    let end = told.observed.iter().find_map(|observed| match observed {
        Observed::End(end) => Some(end),
        _ => None,
    });
    end.expect("an end").hidden
}

/// An agent that does not run cannot empty its rings. What did not fit is told as a loss, with when that
/// was; what was before and after it is told in full.
#[test]
fn what_finds_no_room_is_a_loss_with_its_interval() {
    const TEST: &str = "what_finds_no_room_is_a_loss_with_its_interval";
    let Some(device) = LoopDevice::make() else {
        return not_judged::<()>(TEST, "there is no loop device").expect("never");
    };
    device.complete_where_its_worker_is();
    let mut completions = match Completions::of(&device.name()) {
        Ok(completions) => completions,
        Err(error) => return not_judged::<()>(TEST, &error.to_string()).expect("never"),
    };
    let mut pair = match observing(&device) {
        Ok(pair) => pair,
        Err(reason) => return not_judged::<()>(TEST, &reason).expect("never"),
    };
    let mut told = Told::default();
    // Then it observes.
    pair.listen_to_cost(&mut told);
    let before = device.read(0..100);
    // So that all of them were seen in time.
    std::thread::sleep(Duration::from_millis(300));
    let mut flood = Vec::new();
    pair.pause_while(Clock::MonotonicRaw, || {
        flood = device.read((0..FLOOD_READS).map(|turn| 200 + turn % 800));
    });
    std::thread::sleep(Duration::from_millis(300));
    let after = device.read(100..200);
    let told = stopped(pair, told);
    let counted = completions.counted().expect("it was there a moment ago");
    let hidden = hidden(&told);
    // What is lost is not hidden, and what is hidden the disk has counted.
    let has_none = ObservedHidden { completed_count: 0, is_exact: false, ..hidden };
    assert_eq!(has_none, ObservedHidden::default());
    assert!(hidden.completed_count <= counted.hidden_count(), "{hidden:?} {counted:?}");
    if counted.by_disk == 200 + FLOOD_READS {
        // Nobody else has had a look at a new device.
        assert_eq!(hidden.completed_count, counted.hidden_count(), "{counted:?}");
    }
    assert_eq!(hidden.is_exact, LostCount::ask(0) == LostCount::Readable);
    let (mut requests, losses) = (requests(&told), losses(&told));
    requests.sort_by_key(|request| request.queued);
    let told_count = flood.iter().filter(|read| read.is_told(&requests)).count();
    println!("{told_count} of {} told; lost {losses:?}; {hidden:?} {counted:?}", flood.len());
    // The worker leaves completions to a softirq, which may run while its vCPU is idle.
    let missing = before.iter().chain(&after).chain(&flood);
    let missing = missing.filter(|of| !of.is_told(&requests) && !of.may_be_lost(&losses));
    let missing_count = missing.count() as u64;
    if missing_count <= hidden.completed_count
        && counted.excuses(missing_count, "what_finds_no_room")
    {
        return;
    }
    for read in before.iter().chain(&after) {
        assert!(read.is_told(&requests), "{read:?}");
    }
    // What came before the rings were full is known, what came then is not.
    assert!((1_000..39_000).contains(&told_count), "{told_count} told");
    for read in flood {
        assert!(read.is_told(&requests) || read.may_be_lost(&losses), "{read:?} and {losses:?}");
    }
    let is_true = |of: &&ObservedRequest| {
        of.queued <= of.issued && of.issued <= of.completed && of.bytes == 4096 && of.result == 0
    };
    let wrong = requests.iter().find(|request| !is_true(request));
    assert_eq!(wrong, None);
}
