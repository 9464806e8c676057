//! Room for the last words of a run on a disk that it has filled.
//!
//! What is written then is the manifest, the stacks' names, the processes that came, the summary and the
//! report. They grow while the run goes on: what they can grow to is bounded, and taken before the window
//! begins; only the names of stacks, of which a run has some hundred and may have thousands, get their room as they come.

use crate::census::NEWCOMERS_JSON_BYTES_MAX;
use crate::guest::observation::{DEVICES_KEPT_MAX, TASKS_KEPT_MAX};
use crate::guest::session::{HOST_TIMES_MAX, NOTICES_MAX};
use crate::other_vms::LATER_BYTES_MAX;
use crate::perf::{EventSink, SinkError};
use crate::tsc_watch::{READINGS_MAX, SAMPLES_MAX};
use serde::Serialize;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use vslice_core::clock::host_time::HostTimeSample;
use vslice_core::clock::tsc::{TscRelation, TscSample, TscScaling};
use vslice_core::host_event::{HostEvent, StackId};
use vslice_core::units::{HostNs, PcpuId, VcpuId};
use vslice_trace::manifest::{Manifest, TscReading};
use vslice_trace::observation::{
    HiddenRecord, IssueRecord, ObservedDeviceRecord, ObservedEndRecord, ObservedOthersRecord,
    ObservedTaskRecord, UnderWayRecord,
};
use vslice_trace::{RESERVE, RunDir, StoreError};
use vslice_wire::{
    BlockOperation, CompletionVcpu, NAME_BYTES_MAX, NOTICE_BYTES_MAX, OBSERVED_UNDER_WAY_MAX,
};

/// More than the summary's figures, the report and the names of the first stacks take together.
const BASE_BYTES: u64 = 256 << 10;

/// While a new manifest is written the old one is still there; the summary has most of it once more.
const MANIFESTS_COUNT: u64 = 3;

/// Room is taken up to here. More is needed only where KVM writes the TSCs of some hundred vCPUs again and
/// again for a quarter of an hour; taken of every host of that size, it would be hundreds of MB, and who has
/// less on a disk could not record there at all.
const ROOM_BYTES_MAX: u64 = 64 << 20;

/// A line of JSON is indented by so much at most.
const INDENT_BYTES: u64 = 24;

/// A frame's name is this long or shorter, with its line: kernels' names have some 20 characters, and few
/// more than 50.
const FRAME_BYTES: u64 = 96;

/// Stacks get room for so much more at a time, so that it is seldom taken while a run is measured.
const STEP_BYTES: u64 = 256 << 10;

/// Takes the first room. [`release`] gives all of it back when the run has ended, however it did.
///
/// # Errors
/// When there is not that much room: then there is none for a run either.
pub(crate) fn take(dir: &RunDir) -> Result<(), StoreError> {
    grow(&path(dir), BASE_BYTES)
}

/// Takes as much as the end of a run can need that begins with this manifest, but for its stacks.
///
/// # Errors
/// As [`take`].
pub(crate) fn fit(dir: &RunDir, manifest: &Manifest) -> Result<(), StoreError> {
    grow(&path(dir), last_words_bytes(manifest).min(ROOM_BYTES_MAX))
}

/// Gives the room back, if it has not been given back already.
pub(crate) fn release(dir: &RunDir) {
    let _may_be_gone = fs::remove_file(path(dir));
}

fn path(dir: &RunDir) -> PathBuf {
    dir.path().join(RESERVE)
}

/// Makes the room at least so large; if that fails it stays as it was.
fn grow(path: &Path, bytes: u64) -> Result<(), StoreError> {
    let write = || -> io::Result<()> {
        let mut file = File::options().append(true).create(true).open(path)?;
        let there = file.metadata()?.len();
        let result =
            io::copy(&mut io::Read::take(io::repeat(0x5a), bytes.saturating_sub(there)), &mut file)
                .and_then(|_| file.flush())
                // A file system may find out only now that it has no room.
                .and_then(|()| file.sync_all());
        if result.is_err() {
            file.set_len(there)?;
        }
        result
    };
    write().map_err(|source| {
        if fs::metadata(path).is_ok_and(|there| there.len() == 0) {
            let _nothing_to_keep = fs::remove_file(path);
        }
        StoreError::Io { doing: "write", path: path.into(), source }
    })
}

fn last_words_bytes(manifest: &Manifest) -> u64 {
    let now = json_bytes(manifest);
    let tsc = HostNs(u64::MAX);
    let relation = TscRelation {
        offset_ticks: i64::MIN,
        scaling: Some(TscScaling { ratio: u64::MAX, fraction_bits: 63 }),
    };
    let reading_bytes = json_bytes(&TscReading { from: tsc, until: tsc, relation });
    let sample_bytes = json_bytes(&TscSample { before: tsc, tsc: u64::MAX, after: tsc });
    let told_bytes = json_bytes(&HostTimeSample {
        vcpu: VcpuId(u16::MAX),
        asked_ticks: u64::MAX,
        answered_ticks: u64::MAX,
        earliest: tsc,
        latest: tsc,
    });
    // Each character may have to be escaped.
    let notice_bytes = 2 * NOTICE_BYTES_MAX as u64 + INDENT_BYTES;
    let mut growth = SAMPLES_MAX as u64 * sample_bytes + LATER_BYTES_MAX;
    for vm in &manifest.vms {
        let vcpus_count = vm.threads.iter().filter(|thread| thread.vcpu.is_some()).count() as u64;
        growth += vcpus_count * READINGS_MAX as u64 * reading_bytes;
        // Of those who only listen to no guest there are none.
        let is_observed = vm.observation.is_some();
        if is_observed {
            growth += observation_bytes();
        }
        if vm.guest.is_some() || vm.reader_vcpu.is_some() || !vm.hogs.is_empty() || is_observed {
            growth += HOST_TIMES_MAX as u64 * told_bytes + NOTICES_MAX as u64 * notice_bytes;
        }
    }
    BASE_BYTES + NEWCOMERS_JSON_BYTES_MAX + MANIFESTS_COUNT * (now + growth)
}

/// What a guest that observes may have the manifest say of it.
fn observation_bytes() -> u64 {
    DEVICES_KEPT_MAX as u64 * json_bytes(&largest_device())
        + TASKS_KEPT_MAX as u64 * json_bytes(&largest_task())
        + OTHERS_COUNT_MAX * json_bytes(&LARGEST_COUNT)
        + UNDER_WAY_COUNT_MAX * json_bytes(&LARGEST_UNDER_WAY)
        + json_bytes(&largest_end(0))
}

/// Those of each operation of each disk, of which somebody waited for some.
const OTHERS_COUNT_MAX: u64 = 2 * (BlockOperation::ALL.len() * DEVICES_KEPT_MAX) as u64;

/// A guest tells what was under way once, in one frame.
const UNDER_WAY_COUNT_MAX: u64 = OBSERVED_UNDER_WAY_MAX as u64;

/// A name whose every character has to be escaped.
fn largest_name() -> String {
    "\"".repeat(NAME_BYTES_MAX)
}

fn largest_device() -> ObservedDeviceRecord {
    ObservedDeviceRecord {
        number: u16::MAX,
        name: largest_name(),
        size_bytes: Some(u64::MAX),
        serial: Some(largest_name()),
        address: Some(largest_name()),
        io_scheduler: Some(largest_name()),
        hardware_queues: Some(u16::MAX),
        completion_vcpu: CompletionVcpu::InterruptedOrQueued,
        disk: Some(usize::MAX),
        disk_missing: Some("x".repeat(NAME_BYTES_MAX)),
    }
}

fn largest_task() -> ObservedTaskRecord {
    ObservedTaskRecord {
        number: u32::MAX,
        pid: u32::MAX,
        name: largest_name(),
        title: Some(largest_name()),
        title_before: Some(largest_name()),
    }
}

const LARGEST_COUNT: ObservedOthersRecord = ObservedOthersRecord {
    device: u16::MAX,
    operation: BlockOperation::Discard,
    is_sync: false,
    count: u64::MAX,
    bytes: u64::MAX,
    total_ns: u64::MAX,
};

const LARGEST_UNDER_WAY: UnderWayRecord = UnderWayRecord {
    device: u16::MAX,
    operation: BlockOperation::Discard,
    is_sync: false,
    count: u64::MAX,
    sector: u64::MAX,
    bytes: u32::MAX,
    task: u32::MAX,
    age_ns: u64::MAX,
    issue: IssueRecord::AfterNs(u64::MAX),
};

fn largest_end(under_way_count: usize) -> ObservedEndRecord {
    ObservedEndRecord {
        under_way: vec![LARGEST_UNDER_WAY; under_way_count],
        earlier_count: u64::MAX,
        passthrough_count: u64::MAX,
        late_count: u64::MAX,
        hidden: Some(HiddenRecord {
            queued_count: u64::MAX,
            issued_count: u64::MAX,
            completed_count: u64::MAX,
            others_count: u64::MAX,
            is_exact: false,
        }),
    }
}

/// What a value takes in a manifest, at most.
fn json_bytes(value: &impl Serialize) -> u64 {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.len() as u64 + (text.lines().count() as u64 + 1) * INDENT_BYTES
}

/// Passes on what is recorded, and takes room for the names of the stacks that come.
#[derive(Debug)]
pub(crate) struct ReservingSink<Sink> {
    sink: Sink,
    path: PathBuf,
    /// What names may take that has not been taken.
    names_bytes: u64,
}

impl<Sink> ReservingSink<Sink> {
    pub(crate) fn new(sink: Sink, dir: &RunDir) -> ReservingSink<Sink> {
        ReservingSink { sink, path: path(dir), names_bytes: 0 }
    }
}

impl<Sink: EventSink> EventSink for ReservingSink<Sink> {
    fn batch(&mut self, pcpu: PcpuId, events: &[HostEvent]) -> Result<(), SinkError> {
        self.sink.batch(pcpu, events)
    }

    fn stack(&mut self, id: StackId, frames: &[u64]) -> Result<(), SinkError> {
        // Its own lines, and those of its frames.
        self.names_bytes += (frames.len() as u64 + 4) * FRAME_BYTES;
        if self.names_bytes > STEP_BYTES {
            self.names_bytes -= STEP_BYTES;
            let there = fs::metadata(&self.path).map_or(0, |there| there.len());
            grow(&self.path, there + STEP_BYTES)?;
        }
        self.sink.stack(id, frames)
    }

    fn group(&mut self, number: u64, path: Option<&str>) -> Result<(), SinkError> {
        self.sink.group(number, path)
    }

    fn tick(&mut self) -> Result<(), SinkError> {
        self.sink.tick()
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.sink.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_report::analyse::drawn::manifest;
    use vslice_trace::StackNames;
    use vslice_trace::manifest::VcpuTsc;
    use vslice_trace::observation::ObservationRecord;
    use vslice_trace::thread::ThreadRecord;

    fn reserve_bytes(run: &RunDir) -> u64 {
        fs::metadata(path(run)).unwrap().len()
    }

    /// What a sink need not take is passed on nevertheless.
    #[test]
    fn stacks_and_control_groups_go_on_to_the_sink_behind() {
        let scratch = tempfile::tempdir().unwrap();
        let run = RunDir::create(&scratch.path().join("run")).unwrap();
        let writers = crate::event_writers::EventWriters::create(&run).unwrap();
        let mut sink = ReservingSink::new(writers, &run);
        sink.stack(StackId(0), &[1]).unwrap();
        sink.group(7, Some("/a.scope")).unwrap();
        sink.finish().unwrap();
        let (stacks, _) =
            vslice_trace::read_all::<vslice_trace::StackFrames>(&run.stacks_path()).unwrap();
        let (groups, _) =
            vslice_trace::read_all::<vslice_trace::GroupItem>(&run.groups_path()).unwrap();
        assert_eq!((stacks.len(), groups.len()), (1, 1));
    }

    #[test]
    fn the_room_is_taken_and_given_back() {
        let scratch = tempfile::tempdir().unwrap();
        let run = RunDir::create(&scratch.path().join("run")).unwrap();
        take(&run).unwrap();
        assert_eq!(reserve_bytes(&run), BASE_BYTES);
        fit(&run, &manifest()).unwrap();
        assert_eq!(reserve_bytes(&run), last_words_bytes(&manifest()));
        release(&run);
        release(&run);
        assert_eq!(fs::read_dir(run.path()).unwrap().count(), 0);
    }

    /// What an hour under KVM leaves in a manifest, with all that its guests may say.
    fn after_an_hour(mut manifest: Manifest) -> Manifest {
        let at = HostNs(u64::MAX - 1);
        manifest.host_tsc = vec![TscSample { before: at, tsc: at.0, after: at }; SAMPLES_MAX];
        for vm in &mut manifest.vms {
            let relation = TscRelation {
                offset_ticks: i64::MIN,
                scaling: Some(TscScaling { ratio: u64::MAX, fraction_bits: 48 }),
            };
            let readings = vec![TscReading { from: at, until: at, relation }; READINGS_MAX];
            let vcpus = vm.threads.iter().filter_map(|thread| thread.vcpu);
            vm.tsc.vcpus = vcpus.map(|vcpu| VcpuTsc { vcpu, readings: readings.clone() }).collect();
            let told = HostTimeSample {
                vcpu: VcpuId(1),
                asked_ticks: at.0,
                answered_ticks: at.0,
                earliest: at,
                latest: at,
            };
            let guest = vm.guest.as_mut().unwrap();
            guest.host_times = vec![told; HOST_TIMES_MAX];
            guest.notices = vec!["\"".repeat(NOTICE_BYTES_MAX); NOTICES_MAX];
            if let Some(observation) = &mut vm.observation {
                observation.devices = vec![largest_device(); DEVICES_KEPT_MAX];
                observation.tasks = vec![largest_task(); TASKS_KEPT_MAX];
                observation.others = vec![LARGEST_COUNT; 2560];
                observation.end = Some(largest_end(OBSERVED_UNDER_WAY_MAX));
            }
        }
        manifest
    }

    #[test]
    fn the_room_holds_the_last_words_after_an_hour() {
        let mut begun = manifest();
        begun.vms[0].observation = Some(ObservationRecord::default());
        let whole = serde_json::to_vec_pretty(&after_an_hour(begun.clone())).unwrap().len() as u64;
        let summary = vslice_report::summary::example::summary();
        let summary = serde_json::to_vec_pretty(&summary).unwrap().len() as u64;
        let needed = 3 * whole + summary + NEWCOMERS_JSON_BYTES_MAX;
        let reserved = last_words_bytes(&begun);
        assert!(reserved >= needed, "{reserved} bytes for {needed}");
        assert!(whole > BASE_BYTES, "or this test shows nothing: {whole}");
    }

    #[test]
    fn the_room_of_a_host_of_many_vcpus_is_bounded() {
        let scratch = tempfile::tempdir().unwrap();
        let run = RunDir::create(&scratch.path().join("run")).unwrap();
        let mut many = manifest();
        let threads = &mut many.vms[0].threads;
        let vcpu = threads.iter().find(|thread| thread.vcpu.is_some()).unwrap().clone();
        threads.extend((2..512).map(|id| ThreadRecord { vcpu: Some(VcpuId(id)), ..vcpu.clone() }));
        fit(&run, &many).unwrap();
        assert_eq!(reserve_bytes(&run), ROOM_BYTES_MAX);
    }

    #[test]
    fn the_room_grows_with_the_stacks() {
        struct Nowhere;
        impl EventSink for Nowhere {
            fn batch(&mut self, _: PcpuId, _: &[HostEvent]) -> Result<(), SinkError> {
                Ok(())
            }
        }
        let scratch = tempfile::tempdir().unwrap();
        let run = RunDir::create(&scratch.path().join("run")).unwrap();
        take(&run).unwrap();
        let mut sink = ReservingSink::new(Nowhere, &run);
        let name = String::from("asm_sysvec_apic_timer_interrupt_and_a_half");
        let mut names = Vec::new();
        for id in 0..4_000 {
            sink.stack(StackId(id), &[7; 24]).unwrap();
            names.push(StackNames { id, frames: vec![name.clone(); 24] });
        }
        let needed = serde_json::to_vec_pretty(&names).unwrap().len() as u64;
        assert!(needed > BASE_BYTES && reserve_bytes(&run) >= needed, "{needed}");
    }
}
