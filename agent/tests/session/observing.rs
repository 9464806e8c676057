//! What the machine that runs the tests does with its disks, observed: requests that the tests make, on the
//! disk below their directory.

use crate::collector::{BLOCK_BYTES, Pair, Told, last_vcpu};
use crate::hidden::{Completions, Counted};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use vslice_spec::{ObserveSpec, WorkloadSpec};
use vslice_tests::not_judged;
use vslice_wire::{
    BlockOperation, DoneReason, Dropped, GuestFrame, GuestTicks, HostFrame, Observed, ObservedCost,
    ObservedDevice, ObservedEnd, ObservedFlags, ObservedOthers, ObservedRequest, ObservedTask,
    Severity,
};

/// Everything of the frames of one run.
#[derive(Debug, Default)]
struct Seen {
    devices: BTreeMap<u16, ObservedDevice>,
    tasks: BTreeMap<u32, ObservedTask>,
    requests: Vec<ObservedRequest>,
    lost: Vec<Dropped>,
    others: Vec<ObservedOthers>,
    cost: ObservedCost,
    settled: GuestTicks,
    end: Option<ObservedEnd>,
}

impl Seen {
    /// Checks on the way what frames promise: disks and tasks before their first request, and nothing
    /// that was queued before what was settled.
    fn of(devices: Vec<ObservedDevice>, told: &Told) -> Seen {
        let mut seen = Seen::default();
        seen.devices.extend(devices.into_iter().map(|device| (device.number, device)));
        for observed in &told.observed {
            match observed.clone() {
                Observed::Devices(devices) => {
                    seen.devices.extend(devices.into_iter().map(|device| (device.number, device)));
                }
                Observed::Tasks(tasks) => {
                    seen.tasks.extend(tasks.into_iter().map(|task| (task.number, task)));
                }
                Observed::Requests(block) => {
                    for request in &block.requests {
                        assert!(seen.devices.contains_key(&request.device), "{request:?}");
                        let is_known =
                            request.task == u32::MAX || seen.tasks.contains_key(&request.task);
                        assert!(is_known, "{request:?}");
                        assert!(request.queued >= seen.settled, "{request:?} {:?}", seen.settled);
                        assert!(request.queued <= request.issued, "{request:?}");
                        assert!(request.issued <= request.completed, "{request:?}");
                    }
                    assert!(block.settled >= seen.settled);
                    seen.settled = block.settled;
                    seen.requests.extend(block.requests);
                }
                Observed::Others(others) => seen.others = others,
                Observed::Lost(lost) => seen.lost.push(lost),
                Observed::Cost(cost) => seen.cost = cost,
                Observed::End(end) => {
                    for row in &end.under_way {
                        assert!(seen.devices.contains_key(&row.device), "{row:?}");
                        let is_known = row.task == u32::MAX || seen.tasks.contains_key(&row.task);
                        assert!(is_known, "{row:?}");
                        assert!(row.queued >= seen.settled && row.queued <= end.at, "{row:?}");
                    }
                    assert_eq!(seen.end, None);
                    seen.end = Some(end);
                }
            }
        }
        seen
    }

    /// Requests of this task that seem not to have ended, of which the oldest of each kind are told.
    fn open_of_task(&self, name: &str) -> u64 {
        let end = self.end.as_ref().expect("an end");
        let is_its = |task: u32| self.tasks.get(&task).is_some_and(|task| task.name == name);
        end.under_way.iter().filter(|row| is_its(row.task)).count() as u64
    }

    fn of_task(&self, name: &str) -> Vec<ObservedRequest> {
        let is_its = |task: u32| self.tasks.get(&task).is_some_and(|task| task.name == name);
        self.requests.iter().filter(|request| is_its(request.task)).copied().collect()
    }
}

/// The whole disk that a path lies on, if that has a device behind it.
fn disk_of(path: &Path) -> Option<String> {
    let dev = fs::metadata(path).ok()?.dev();
    let (major, minor) = (nix::sys::stat::major(dev), nix::sys::stat::minor(dev));
    let place = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let whole = if place.join("partition").exists() { place.parent()? } else { &place };
    whole.join("device").exists().then_some(())?;
    Some(whole.file_name()?.to_str()?.to_owned())
}

/// What one test does with the disk another would observe, and it would be late beside its hogs.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An agent that waits for the start of an observation, and the disks that it has told; `None` where this
/// machine cannot be observed, or the tests' directory is on no disk.
fn prepare(
    test: &str,
    change: impl FnOnce(&mut WorkloadSpec),
) -> Option<(Pair, Vec<ObservedDevice>, String)> {
    let (mut pair, _) = Pair::connect();
    let mut spec = pair.spec();
    spec.observe = Some(ObserveSpec::default());
    change(&mut spec);
    pair.plan(&spec);
    let mut devices = Vec::new();
    let mut said = Vec::new();
    loop {
        match pair.next_frame().expect("an agent that lives") {
            GuestFrame::Ready(_) => break,
            GuestFrame::Observed(Observed::Devices(told)) => devices.extend(told),
            GuestFrame::Notice(notice) => said.push(notice.text),
            frame => panic!("not before Ready: {frame:?}"),
        }
    }
    let Some(disk) = disk_of(pair.directory.path()) else {
        not_judged::<()>(test, "the directory for the tests is on no disk").expect("never");
        return None;
    };
    if devices.is_empty() {
        assert!(!nix::unistd::geteuid().is_root(), "{said:?}");
        not_judged::<()>(test, &said.join("; ")).expect("never");
        return None;
    }
    Some((pair, devices, disk))
}

/// Some kernels trace nothing while a vCPU's idle task is current (`assemble.rs` of vslice-record), so no
/// vCPU is idle here.
fn all_vcpus() -> Vec<u16> {
    (0..=last_vcpu()).collect()
}

#[test]
fn each_read_of_the_reader_is_observed_within_its_own_stamps() {
    let _alone = alone();
    let prepared = prepare("each_read_of_the_reader_is_observed", |spec| spec.hogs = all_vcpus());
    let Some((mut pair, devices, disk)) = prepared else { return };
    let mut completions = completions(&disk);
    pair.say(&HostFrame::Start);
    let told = pair.listen_to_done();
    let counted = completions.counted().expect("perf and the disk are still there");
    assert_eq!(told.done().reason, DoneReason::Completed);
    told.assert_complete();
    let seen = Seen::of(devices, &told);
    let reads = seen.of_task("reader");
    let own = told.requests.len();
    println!(
        "{} of {own} reads on {disk}, {} requests in all; lost {:?}; {:?}",
        reads.len(),
        seen.requests.len(),
        seen.lost,
        seen.cost
    );
    let mut agreed = 0;
    for request in &told.requests {
        let within = reads
            .iter()
            .filter(|read| request.submitted <= read.queued && read.completed <= request.completed);
        let within: Vec<&ObservedRequest> = within.collect();
        if let [read] = within[..] {
            assert_eq!((read.operation, read.bytes), (BlockOperation::Read, BLOCK_BYTES));
            assert_eq!(seen.devices[&read.device].name, disk);
            assert_eq!(read.result, 0);
            assert!(!read.flags.contains(ObservedFlags::NO_QUEUE_TIME));
            agreed += 1;
        }
    }
    if counted.excuses((own - agreed) as u64, "each_read_of_the_reader_is_observed") {
        return;
    }
    assert_eq!(agreed, own, "each read is one request of the kernel's: {counted:?}");
    let title = &seen.tasks[&reads[0].task].title;
    assert!(title.contains("vslice-agent"), "{title}");
    assert!(seen.cost.cpu_ns > 0 && seen.cost.clock_read_ns > 0);
    assert!(seen.cost.events_count >= 3 * own as u64);
    assert!(told.notices.iter().all(|notice| notice.severity == Severity::Warning));
}

/// Reads and writes on the disk below this directory, past the page cache, by a process of its own: `dd`.
fn dd(directory: &Path, arguments: &[&str]) {
    let status = Command::new("dd")
        .args(arguments)
        .current_dir(directory)
        .stderr(Stdio::null())
        .status()
        .expect("coreutils are there");
    assert!(status.success(), "{arguments:?}");
}

/// The load is somebody else's: an agent that has nothing to run.
fn nothing(spec: &mut WorkloadSpec) {
    spec.reader = None;
    // Against idle tasks, of which some kernels trace nothing.
    spec.hogs = all_vcpus();
}

/// What the agent tells until it is stopped, while dd writes so many blocks of this size past the page cache, and reads so
/// many again; and what the disk completed meanwhile.
fn while_dd(
    pair: &mut Pair,
    disk: &str,
    written: [&str; 2],
    read: Option<[&str; 2]>,
) -> (Told, Counted) {
    pair.say(&HostFrame::Start);
    let mut told = Told::default();
    pair.listen_to_cost(&mut told);
    let mut completions = completions(disk);
    let directory = pair.directory.path();
    let [size, count] = written;
    dd(directory, &["if=/dev/zero", "of=written", size, count, "oflag=direct", "conv=fsync"]);
    if let Some([size, count]) = read {
        dd(directory, &["if=written", "of=/dev/null", size, count, "iflag=direct"]);
    }
    let counted = completions.counted().expect("perf and the disk are still there");
    pair.say(&HostFrame::Stop);
    while pair.listen(&mut told) {}
    (told, counted)
}

/// Where the agent can observe, this can be counted.
fn completions(disk: &str) -> Completions {
    Completions::of(disk).expect("perf and the disk's counters")
}

/// How many of so many blocks of this size are not told.
fn missing(told_bytes: u64, [size, count]: [u64; 2]) -> u64 {
    count.saturating_sub(told_bytes / size)
}

#[test]
fn a_foreign_load_is_told_with_its_name_until_the_agent_is_stopped() {
    let _alone = alone();
    let Some((mut pair, devices, disk)) = prepare("a_foreign_load", nothing) else { return };
    let read = Some(["bs=16k", "count=80"]);
    let (told, counted) = while_dd(&mut pair, &disk, ["bs=64k", "count=20"], read);
    assert_eq!(told.done().reason, DoneReason::Stopped);
    let seen = Seen::of(devices, &told);
    let of_dd = seen.of_task("dd");
    let bytes_of = |operation| {
        let its = of_dd.iter().filter(|request| request.operation == operation);
        its.map(|request| u64::from(request.bytes)).sum::<u64>()
    };
    println!("{} requests of dd on {disk}: {:?}; {counted:?}", of_dd.len(), seen.cost);
    if seen.cost.lost_count > 0 {
        let because = format!("others kept the disk too busy: {:?}", seen.cost);
        return not_judged::<()>("a_foreign_load", &because).expect("never");
    }
    // A file system may write more than what it is asked for, its journal for instance, but dd itself no less; and
    // dd ends when all that it asked for has.
    let [reads, writes] = [BlockOperation::Read, BlockOperation::Write].map(bytes_of);
    let missing_count = missing(reads, [16 << 10, 80]) + missing(writes, [64 << 10, 20]);
    let open_count = seen.open_of_task("dd");
    if counted.excuses(missing_count.max(open_count), "a_foreign_load") {
        return;
    }
    assert_eq!((missing_count, open_count), (0, 0), "{counted:?} {of_dd:?} {:?}", seen.end);
    assert!(of_dd.iter().all(|request| seen.devices[&request.device].name == disk));
    let settled = told.observed.iter().rev().find_map(|observed| match observed {
        Observed::Requests(block) => Some(block.settled),
        _ => None,
    });
    let last = seen.requests.iter().map(|request| request.completed).max();
    let end = seen.end.expect("an end");
    // Others' requests may be under way yet.
    let is_open = end.under_way.iter().map(|row| row.queued);
    assert!(settled >= last.min(is_open.chain([end.at]).min()), "all was told at the end");
    assert!(
        end.at
            >= GuestTicks(seen.requests.iter().map(|request| request.queued.0).min().unwrap_or(0))
    );
}

/// Some kernels record nothing of what happens while a vCPU is idle, and this machine's vCPUs are, as nobody keeps them
/// busy. What is missing then is counted as hidden, and what is not lost is.
#[test]
fn what_the_kernel_hides_is_counted_at_the_end() {
    const TEST: &str = "what_the_kernel_hides_is_counted_at_the_end";
    let _alone = alone();
    let Some((mut pair, devices, disk)) = prepare(TEST, |spec| spec.reader = None) else { return };
    let read = Some(["bs=16k", "count=400"]);
    let (told, counted) = while_dd(&mut pair, &disk, ["bs=64k", "count=100"], read);
    let seen = Seen::of(devices, &told);
    let reads = seen.of_task("dd").into_iter();
    let reads = reads.filter(|request| request.operation == BlockOperation::Read);
    let missing_count =
        missing(reads.map(|request| u64::from(request.bytes)).sum(), [16 << 10, 400]);
    let end = seen.end.expect("an end");
    println!("{:?}; {missing_count} reads are missing; {counted:?} {:?}", end.hidden, seen.cost);
    // By the disk's own counters, and by perf's, which the agent has not.
    assert!(end.hidden.completed_count >= counted.hidden_count(), "{counted:?} {:?}", end.hidden);
    assert!(missing_count <= end.hidden.completed_count + seen.cost.lost_count, "{:?}", end.hidden);
    if counted.hidden_count() == 0 {
        let because =
            "this machine's kernel hides no ends of requests from perf, or did not meanwhile";
        not_judged::<()>(TEST, because).expect("never");
    }
}

#[test]
fn requests_that_are_fast_are_counted_and_not_sent() {
    let _alone = alone();
    let prepared = prepare("requests_that_are_fast", |spec| {
        nothing(spec);
        spec.observe = Some(ObserveSpec { devices: Vec::new(), slower_than_us: 60_000_000 });
    });
    let Some((mut pair, devices, disk)) = prepared else { return };
    let number = devices.iter().find(|device| device.name == disk).expect("it is told").number;
    let written = ["bs=4k", "count=50"];
    let (told, counted) = while_dd(&mut pair, &disk, written, Some(written));
    let seen = Seen::of(devices, &told);
    assert!(seen.requests.is_empty(), "{:?}", seen.requests);
    // Of others, requests may be under way yet.
    let end = seen.end.as_ref().expect("an end");
    let is_told = |task: &u32| end.under_way.iter().any(|row| row.task == *task);
    assert!(seen.tasks.keys().all(is_told), "{:?} {end:?}", seen.tasks);
    let reads = seen
        .others
        .iter()
        .filter(|others| (others.device, others.operation) == (number, BlockOperation::Read));
    let (count, bytes, ticks) = reads.fold((0, 0, 0), |(count, bytes, ticks), of| {
        (count + of.count, bytes + of.bytes, ticks + of.total_ticks)
    });
    let missing_count = missing(bytes.min(count * 4096), [4096, 50]);
    let open_count = seen.open_of_task("dd");
    if counted.excuses(missing_count.max(open_count), "requests_that_are_fast") {
        return;
    }
    assert_eq!((missing_count, open_count), (0, 0), "{counted:?} {:?} {end:?}", seen.others);
    assert!(ticks > 0, "{:?}", seen.others);
}

#[test]
fn only_disks_that_are_named_are_observed_and_missing_ones_are_said() {
    let _alone = alone();
    let Some((pair, devices, disk)) = prepare("only_disks_that_are_named", nothing) else { return };
    drop(pair);
    let others: Vec<&str> =
        devices.iter().map(|device| device.name.as_str()).filter(|name| *name != disk).collect();
    let named = |names: &[&str]| {
        let (mut pair, _) = Pair::connect();
        let mut spec = pair.spec();
        nothing(&mut spec);
        let devices = names.iter().map(|name| (*name).to_owned()).collect();
        spec.observe = Some(ObserveSpec { devices, slower_than_us: 0 });
        pair.plan(&spec);
        let (mut devices, mut said) = (Vec::new(), Vec::new());
        loop {
            match pair.next_frame().expect("an agent that lives") {
                GuestFrame::Ready(_) => return (pair, devices, said),
                GuestFrame::Observed(Observed::Devices(told)) => devices.extend(told),
                GuestFrame::Notice(notice) => said.push(notice.text),
                frame => panic!("not before Ready: {frame:?}"),
            }
        }
    };
    let (mut pair, devices, said) = named(&[&disk]);
    assert_eq!(devices.iter().map(|device| device.name.as_str()).collect::<Vec<_>>(), [&disk]);
    assert!(said.is_empty(), "{said:?}");
    let (told, counted) = while_dd(&mut pair, &disk, ["bs=4k", "count=10"], None);
    let seen = Seen::of(devices, &told);
    let missing_count = 10_u64.saturating_sub(seen.of_task("dd").len() as u64);
    let is_excused = counted.excuses(missing_count, "only_disks_that_are_named");
    assert!(missing_count == 0 || is_excused, "{missing_count} are missing: {counted:?}");

    let (_pair, devices, said) = named(&["nosuch"]);
    assert!(devices.is_empty());
    assert!(said[0].contains("not observed") && said[0].contains(&disk), "{said:?}");
    let (_pair, devices, said) = named(&[&disk, "nosuch"]);
    assert_eq!(devices.len(), 1);
    assert!(said[0].starts_with("the guest has no disk nosuch to be observed"), "{said:?}");
    assert!(!others.contains(&disk.as_str()));
}

#[test]
fn a_collector_that_does_not_listen_costs_losses_and_no_memory() {
    let _alone = alone();
    // With its file of 3 MiB and its rings of 1.5 MiB at most these are 8 MiB.
    const OWN_BYTES_MAX: u64 = 7 << 19;
    const READS: usize = 60_000;
    let prepared = prepare("a_collector_that_does_not_listen", nothing);
    let Some((mut pair, devices, disk)) = prepared else { return };
    pair.say(&HostFrame::Start);
    let mut completions = completions(&disk);
    let file = pair.directory.path().join("read");
    fs::write(&file, vec![1; 1 << 20]).expect("room on the disk");
    fs::File::open(&file).expect("our own").sync_all().expect("a disk");
    read_past_the_cache(&file, READS);
    let counted = completions.counted().expect("perf and the disk are still there");
    let own_bytes = pair.own_bytes_max();
    println!("at most {} KiB of its own, {READS} reads", own_bytes / 1024);
    assert!(own_bytes <= OWN_BYTES_MAX, "{own_bytes} bytes");
    pair.say(&HostFrame::Stop);
    let told = pair.listen_to_done();
    let seen = Seen::of(devices, &told);
    println!("{} told, {} losses; {:?}", seen.requests.len(), seen.lost.len(), seen.cost);
    assert!(seen.lost.iter().all(|lost| lost.first <= lost.last && lost.count > 0));
    // Of a request whose completion a kernel hides from perf there is nothing to tell, and no outbox is full of. What was
    // seen before there was no room is told.
    let told_count = seen.requests.len();
    let is_all_seen = seen.cost.lost_count == 0;
    let missing_count = READS.saturating_sub(told_count) as u64;
    if (is_all_seen || told_count == 0)
        && counted.excuses(missing_count, "a_collector_that_does_not_listen")
    {
        return;
    }
    assert!(!is_all_seen && !seen.lost.is_empty(), "everything had room: {counted:?}");
    assert!((1..READS).contains(&told_count), "{told_count} of {READS}: {counted:?}");
}

/// So many reads of random blocks of a file.
fn read_past_the_cache(file: &Path, count: usize) {
    use std::os::unix::fs::{FileExt, OpenOptionsExt};
    let file = fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_DIRECT).open(file);
    let file = file.expect("a disk takes O_DIRECT");
    let mut buffer = vec![0_u8; 3 * 4096];
    let offset = buffer.as_ptr().align_offset(4096);
    for place in 0..count {
        let at = (place * 7919 % 256) as u64 * 4096;
        file.read_exact_at(&mut buffer[offset..offset + 4096], at).expect("a block");
    }
}

/// In a namespace of mounts of its own, so that the machine keeps its tracefs.
#[test]
fn a_tracefs_that_is_not_mounted_is_mounted_where_nobody_sees_it() {
    let _alone = alone();
    if disk_of(Path::new(env!("CARGO_TARGET_TMPDIR"))).is_none()
        || !nix::unistd::geteuid().is_root()
    {
        let because = "it needs root, and a disk below the tests' directory";
        not_judged::<()>("a_tracefs_that_is_not_mounted", because).expect("never");
        return;
    }
    let script = "umount -a -t tracefs; umount -a -t debugfs; ! grep -q tracefs /proc/self/mounts && exec \"$@\"";
    let mut pair = Pair::connect_by(&["unshare", "--mount", "sh", "-c", script, "sh"]).0;
    let mut spec = pair.spec();
    nothing(&mut spec);
    spec.observe = Some(ObserveSpec::default());
    pair.plan(&spec);
    match pair.next_frame() {
        Some(GuestFrame::Observed(Observed::Devices(devices))) => assert!(!devices.is_empty()),
        frame => panic!("not observed: {frame:?}"),
    }
    let mounts = pair.mounts();
    assert!(!mounts.contains("tracefs"), "{mounts}");
}

/// An agent that is nobody runs its load and says why it observes nothing.
#[test]
fn an_agent_without_rights_says_what_it_needs_and_runs_its_load() {
    let _alone = alone();
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--reuid=0"];
    let (mut pair, _) = Pair::connect_by(&drop);
    let mut spec = pair.spec();
    spec.observe = Some(ObserveSpec::default());
    pair.plan(&spec);
    let Some(GuestFrame::Notice(notice)) = pair.next_frame() else { panic!("it says nothing") };
    assert_eq!(notice.severity, Severity::Warning);
    let why = "the guest's own requests are not observed: the agent may not trace the guest's kernel: run it as root";
    assert!(notice.text.starts_with(why), "{}", notice.text);
    pair.listen_to_ready();
    pair.say(&HostFrame::Start);
    let told = pair.listen_to_done();
    assert_eq!(told.done().reason, DoneReason::Completed);
    assert!(told.observed.is_empty());
}
