use super::*;
use crate::source::devices::tests::Sysfs;
use crate::source::formats::tests::{KERNELS, formats, record_of};

#[test]
fn a_lockdown_is_the_level_in_brackets() {
    assert_eq!(level_of("none integrity [confidentiality]\n").as_deref(), Some("confidentiality"));
    assert_eq!(level_of("[none] integrity confidentiality\n"), None);
    assert_eq!(level_of(""), None);
    // With integrity alone tracing is allowed, so whatever is refused is refused by something else.
    assert!(forbids_tracing("confidentiality") && !forbids_tracing("integrity"));
}

#[test]
fn what_is_refused_says_what_to_do() {
    let refused = tracefs_error(io::Error::from_raw_os_error(libc::EPERM)).to_string();
    assert!(refused.contains("root") || refused.contains("lockdown"), "{refused}");
    let none = tracefs_error(io::Error::from_raw_os_error(libc::ENODEV)).to_string();
    assert!(none.contains("CONFIG_FTRACE"), "{none}");
    let gone = format_error("block/x", io::ErrorKind::NotFound.into()).to_string();
    assert!(gone.contains("no readable tracepoint block/x"), "{gone}");
    let locked = ObserveError::LockedDown { level: "confidentiality".into() }.to_string();
    assert!(locked.contains("lockdown=integrity"), "{locked}");
    let nothing = ObserveError::NoDisk {
        there: vec!["vda".into(), "vdb".into()],
        notices: vec!["dm-0 is".into()],
    };
    let nothing = nothing.to_string();
    assert!(nothing.ends_with("it has vda, vdb; dm-0 is"), "{nothing}");
}

#[test]
fn vcpus_that_come_online_are_said() {
    let few = BTreeSet::from([0, 1]);
    assert_eq!(newcomers(&few, &few), None);
    assert_eq!(newcomers(&few, &BTreeSet::from([0])), None, "one that is gone does nothing");
    let notice = newcomers(&few, &BTreeSet::from([0, 1, 2, 3])).unwrap();
    assert!(notice.starts_with("vCPU 2, 3 came online"), "{notice}");
}

/// Without rings.
fn source(devices: Devices) -> Source {
    let wanted = devices.only().map_or(Wanted::AllBut(BTreeSet::new()), Wanted::Only);
    let mut source = Source::of(formats(KERNELS[0].1), wanted, devices, Tasks::new(Titles::none()));
    source.began = GuestTicks(0);
    source
}

/// One that has looked at these disks.
fn source_of(sysfs: &Sysfs) -> Source {
    let mut devices = sysfs.devices(&[]);
    devices.scan();
    source(devices)
}

fn take(source: &mut Source, tracepoint: Tracepoint, dev: u32) {
    let raw = record_of(&source.formats, tracepoint, dev);
    source.take(0, Sample { pid: 1, tid: 2, time: now(), raw: &raw });
}

fn held(source: &Source) -> Vec<(BlockTraceKind, u16)> {
    source.held.iter().map(|event| (event.kind, event.device)).collect()
}

#[test]
fn events_of_a_disk_that_has_just_come_wait_for_one_look_at_sysfs() {
    let sysfs = Sysfs::new();
    sysfs.disk("vda", "254:0", Some("a"));
    let mut source = source_of(&sysfs);
    sysfs.disk("vdb", "254:16", Some("b"));
    take(&mut source, Tracepoint::Queue, 254 << 20 | 16);
    take(&mut source, Tracepoint::Queue, 7 << 20);
    take(&mut source, Tracepoint::Issue, 254 << 20 | 16);
    assert_eq!((held(&source), source.strange.len()), (vec![], 3));
    source.look(GuestTicks(6));
    assert_eq!(held(&source), [(BlockTraceKind::Queue, 1), (BlockTraceKind::Issue, 1)]);
    assert_eq!(source.take_devices().len(), 1);
    // Strangers are not looked for anew by each event of theirs.
    take(&mut source, Tracepoint::Queue, 7 << 20);
    assert!(source.strange.is_empty());
    source.look(source.next_scan);
    take(&mut source, Tracepoint::Queue, 7 << 20);
    assert_eq!(source.strange.len(), 1, "what a number means may have changed by then");
}

#[test]
fn each_event_has_its_thread_and_what_is_asked_for_its_task() {
    let sysfs = Sysfs::new();
    sysfs.disk("vda", "254:0", Some("a"));
    let mut source = source_of(&sysfs);
    let all = [Tracepoint::Queue, Tracepoint::Remap, Tracepoint::Refused, Tracepoint::Issue];
    all.into_iter().for_each(|tracepoint| take(&mut source, tracepoint, 254 << 20));
    let whose: Vec<_> = source.held.iter().map(|event| (event.thread, event.task)).collect();
    assert_eq!(whose, [(2, 0), (2, 0), (2, UNKNOWN_TASK), (2, UNKNOWN_TASK)]);
}

#[test]
fn what_comes_from_a_partition_of_its_disk_has_the_sector_there() {
    let sysfs = Sysfs::new();
    // The device that `record_of` sends from.
    sysfs.disk("vda", "0:7", Some("a"));
    sysfs.disk("vdb", "254:0", Some("b"));
    let mut source = source_of(&sysfs);
    take(&mut source, Tracepoint::Remap, 7);
    take(&mut source, Tracepoint::Remap, 254 << 20);
    let kinds = [Some(9), None].map(|from| BlockTraceKind::Remap { from });
    assert_eq!(held(&source), [(kinds[0], 0), (kinds[1], 1)]);
}

#[test]
fn what_a_disk_sends_to_its_path_is_not_asked_for_twice() {
    let sysfs = Sysfs::new();
    sysfs.nvme(&["nvme0c0n1"]);
    sysfs.write("../diskstats", "259 0 nvme0c0n1 1\n");
    let mut source = source_of(&sysfs);
    let (path, head) = (259 << 20, 259 << 20 | 1);
    take(&mut source, Tracepoint::Remap, head);
    take(&mut source, Tracepoint::Queue, head);
    take(&mut source, Tracepoint::Remap, path);
    take(&mut source, Tracepoint::Issue, path);
    take(&mut source, Tracepoint::Complete, path);
    let kinds = [
        BlockTraceKind::Remap { from: None },
        BlockTraceKind::Queue,
        BlockTraceKind::Issue,
        BlockTraceKind::Complete { result: 0 },
    ];
    assert_eq!(held(&source), kinds.map(|kind| (kind, 0)));
}

#[test]
fn what_vcpus_do_without_a_ring_is_lost_for_as_long_as_they_are_there() {
    let sysfs = Sysfs::new();
    let mut source = source(sysfs.devices(&[]));
    source.began = GuestTicks(10);
    let mut look = |dark: &[u16], now: u64| {
        source.leave_in_the_dark(dark.iter().copied().collect(), GuestTicks(now));
        let lost = std::mem::take(&mut source.unseen);
        let ends: Vec<_> = lost.iter().map(|lost| (lost.first.0, lost.last.0)).collect();
        (ends, source.take_notices().len())
    };
    assert_eq!(look(&[], 20), (vec![], 0));
    assert_eq!(look(&[2], 30), (vec![(20, 30)], 1));
    assert_eq!(look(&[2], 40), (vec![(30, 40)], 0), "it is still there");
    assert_eq!(look(&[], 50), (vec![], 0), "it is gone, and does nothing");
    assert_eq!(look(&[2, 3], 60), (vec![(50, 60)], 1), "and back");
}

/// Events that begin later are opened on rings that are there, and a ring is known to be dead.
#[test]
fn a_disk_that_gets_another_number_is_observed_on() {
    let sysfs = Sysfs::new();
    // A number that no disk has, so that nothing comes unasked: Linux leaves major 240 to local use.
    sysfs.disk("vda", "240:0", Some("a"));
    let mut devices = sysfs.devices(&["vda"]);
    devices.scan();
    let mut source = source(devices);
    source.page_bytes = online::page_bytes().unwrap();
    let Ok(tracefs) = Tracefs::find() else { return assert!(!nix::unistd::geteuid().is_root()) };
    source.formats = formats_of(&tracefs, &mut Vec::new()).unwrap();
    let vcpu = vcpus().unwrap().first().copied().unwrap();
    source.open_rings(&[vcpu].into()).unwrap();
    source.began = GuestTicks(u64::MAX);
    source.disable().unwrap();
    assert!(source.dark.is_empty(), "nothing was enabled yet, so that nothing is unknown");
    source.enable().unwrap();
    let events_count = source.opened;
    assert_eq!(source.rings[0].live_vcpu(), Some(vcpu));
    fs::remove_dir_all(sysfs.block().join("vda")).unwrap();
    sysfs.disk("vda", "240:32", Some("a"));
    take(&mut source, Tracepoint::Queue, 240 << 20 | 32);
    assert_eq!(source.pass().unwrap().lost, [], "its beginning is too young");
    assert_eq!(source.held_losses.len(), 1, "what it did before is not known");
    assert_eq!(source.opened, 2 * events_count - 1, "all but what owns the ring");
    assert_eq!(source.take_notices(), Vec::<String>::new());
    assert_eq!(source.rings[0].live_vcpu(), Some(vcpu));
    source.disable().unwrap();
    // It was full, and nothing came that would have said so.
    let full_until = now();
    source.rings[0].fill.emptied(1 << 30, full_until);
    let lost: Vec<_> = source.last_pass().unwrap().lost;
    let told: Vec<_> = lost.iter().filter(|lost| lost.last == full_until).collect();
    assert_eq!((told.len(), source.lost_count()), (1, 1), "{lost:?}");
    assert_eq!(source.rings[0].live_vcpu(), None, "as when its vCPU goes offline");
}
