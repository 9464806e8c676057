use super::*;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use vslice_wire::CompletionVcpu;

/// A sysfs with these disks: name, number, the path of the device behind it if there is one.
pub(in crate::source) struct Sysfs(tempfile::TempDir);

impl Sysfs {
    pub(in crate::source) fn new() -> Sysfs {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("block")).unwrap();
        Sysfs(root)
    }

    pub(in crate::source) fn block(&self) -> PathBuf {
        self.0.path().join("block")
    }

    fn sources(&self) -> Sources {
        Sources { block: self.block(), diskstats: self.0.path().join("diskstats") }
    }

    /// The disks of these names, or all with a device.
    pub(in crate::source) fn devices(&self, wanted: &[&str]) -> Devices {
        let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        Devices::new(self.sources(), &wanted)
    }

    pub(in crate::source) fn write(&self, file: &str, text: impl AsRef<[u8]>) {
        let path = self.block().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn link(&self, place: &str, to: &str) {
        let place = self.block().join(place);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        symlink(self.block().join(to), place).unwrap();
    }

    pub(in crate::source) fn disk(&self, name: &str, dev: &str, device: Option<&str>) {
        self.write(&format!("{name}/dev"), format!("{dev}\n"));
        self.write(&format!("{name}/size"), "2048\n");
        if let Some(device) = device {
            let place = self.0.path().join("devices").join(device);
            fs::create_dir_all(&place).unwrap();
            symlink(place, self.block().join(name).join("device")).unwrap();
        }
    }

    /// A disk with paths, as Linux 6.1 tells of it.
    pub(in crate::source) fn nvme(&self, paths: &[&str]) {
        self.disk("nvme0n1", "259:1", Some("virtual/nvme-subsystem/nvme-subsys0"));
        self.write("nvme0n1/queue/nr_requests", "128\n");
        self.write("nvme0n1/hidden", "0\n");
        self.write("nvme0n1/nvme0n1p1/partition", "1\n");
        self.write("nvme0n1/nvme0n1p1/dev", "259:3\n");
        for (path, slot) in paths.iter().zip(5..) {
            self.write(&format!("{path}/hidden"), "1\n");
            self.write(&format!("{path}/size"), "2048\n");
            self.write(&format!("{path}/queue/scheduler"), "[none] mq-deadline\n");
            self.write(&format!("{path}/queue/rq_affinity"), "2\n");
            self.write(&format!("{path}/mq/0/cpu_list"), "0");
            self.write(&format!("{path}/mq/1/cpu_list"), "1");
            let place = format!("devices/pci0000:00/0000:00:0{slot}.0/nvme/nvme{slot}");
            let place = self.0.path().join(place);
            fs::create_dir_all(&place).unwrap();
            symlink(place, self.block().join(path).join("device")).unwrap();
        }
    }
}

fn names(devices: &[ObservedDevice]) -> Vec<&str> {
    devices.iter().map(|device| device.name.as_str()).collect()
}

#[test]
fn disks_are_those_with_a_device_and_their_partitions_are_theirs() {
    let sysfs = Sysfs::new();
    sysfs.disk("vda", "254:0", Some("pci0000:00/0000:00:01.3/0000:01:05.0/virtio1"));
    sysfs.write("vda/serial", "root-disk");
    sysfs.write("vda/queue/scheduler", "mq-deadline kyber [none]\n");
    sysfs.write("vda/queue/rq_affinity", "1\n");
    sysfs.write("../devices/system/cpu/online", "0-1\n");
    sysfs.write("vda/mq/0/cpu_list", "0");
    sysfs.write("vda/mq/1/cpu_list", "1");
    sysfs.write("vda/vda1/partition", "1\n");
    sysfs.write("vda/vda1/dev", "259:3\n");
    sysfs.disk("dm-0", "253:0", None);
    sysfs.disk("loop0", "7:0", None);
    let mut devices = sysfs.devices(&[]);
    let scanned = devices.scan();
    let vda = ObservedDevice {
        number: 0,
        name: "vda".into(),
        major: 254,
        minor: 0,
        size_bytes: 1 << 20,
        serial: "root-disk".into(),
        address: "0000:01:05.0".into(),
        io_scheduler: "none".into(),
        hardware_queues: 2,
        completion_vcpu: CompletionVcpu::InterruptedOrQueued,
    };
    assert_eq!(scanned.told, [vda]);
    assert_eq!(devices.number_of(254 << 20), Some(0));
    assert_eq!(devices.number_of(259 << 20 | 3), Some(0), "a partition");
    assert_eq!(devices.number_of(253 << 20), None);
    assert_eq!(devices.virtual_majors(), [7, 253].into());
    assert_eq!(devices.only(), None);
    assert_eq!(devices.scan(), Scanned::default(), "nothing is told twice");
}

#[test]
fn disks_that_come_later_are_told_and_one_that_changed_is_told_again() {
    let sysfs = Sysfs::new();
    sysfs.disk("vda", "254:0", Some("a"));
    sysfs.write("vda/queue/scheduler", "mq-deadline [none]\n");
    let mut devices = sysfs.devices(&[]);
    devices.scan();
    sysfs.disk("vdb", "254:16", Some("b"));
    sysfs.write("vda/queue/scheduler", "[mq-deadline] none\n");
    sysfs.write("vda/size", "4096\n");
    let scanned = devices.scan();
    assert_eq!(names(&scanned.told), ["vda", "vdb"]);
    assert_eq!(scanned.told[0].size_bytes, 2 << 20);
    assert_eq!(scanned.told[0].io_scheduler, "none", "it had that when it was found");
    assert_eq!(scanned.new_numbers, [254 << 20 | 16].into());
    assert_eq!(devices.number_of(254 << 20 | 16), Some(1));
    fs::remove_dir_all(sysfs.block().join("vda")).unwrap();
    sysfs.disk("vda", "254:0", Some("a"));
    sysfs.write("vda/serial", "another");
    assert_eq!(
        devices.scan().told[0].number,
        2,
        "another disk of the same name has its own number"
    );
}

#[test]
fn disks_that_are_named_are_all_and_missing_ones_are_said() {
    let sysfs = Sysfs::new();
    sysfs.disk("vda", "254:0", Some("a"));
    sysfs.disk("vdb", "254:16", Some("b"));
    sysfs.disk("dm-0", "253:0", None);
    let mut devices = sysfs.devices(&["vdb", "dm-0"]);
    devices.scan();
    assert_eq!(devices.only(), Some([254 << 20 | 16, 253 << 20].into()), "named, though virtual");
    assert!(devices.missing().is_empty());
    let mut some = sysfs.devices(&["vdb", "vdz"]);
    some.scan();
    assert_eq!((some.missing(), some.only()), (vec!["vdz".to_owned()], None));
    assert_eq!(some.there(), ["vda", "vdb"]);
    let mut none = sysfs.devices(&["vdz"]);
    none.scan();
    assert!(none.is_empty());
}

/// NVMe's disks have this major number, and partitions of any disk.
#[test]
fn a_major_number_that_disks_may_have_later_is_not_left_out() {
    let sysfs = Sysfs::new();
    sysfs.disk("vda", "254:0", Some("a"));
    sysfs.disk("ublkb0", "259:9", None);
    sysfs.disk("md0", "9:0", None);
    let mut devices = sysfs.devices(&[]);
    devices.scan();
    assert_eq!(devices.virtual_majors(), [9].into());
}

#[test]
fn serial_numbers_are_where_their_drivers_have_them() {
    let sysfs = Sysfs::new();
    sysfs.disk("nvme0n1", "259:0", Some("nvme"));
    fs::write(sysfs.0.path().join("devices/nvme/serial"), "  deadbeef            \n").unwrap();
    sysfs.disk("sda", "8:0", Some("scsi"));
    fs::write(sysfs.0.path().join("devices/scsi/vpd_pg80"), b"\0\x80\0\x05QM001").unwrap();
    sysfs.disk("sdb", "8:16", Some("short"));
    fs::write(sysfs.0.path().join("devices/short/vpd_pg80"), b"\0\x80").unwrap();
    let mut devices = sysfs.devices(&[]);
    let told = devices.scan().told;
    let serials: Vec<&str> = told.iter().map(|device| device.serial.as_str()).collect();
    assert_eq!(serials, ["deadbeef", "QM001", ""]);
    assert!(told.iter().all(|device| device.address.is_empty()));
    assert!(devices.virtual_majors().is_empty());
}

#[test]
fn more_disks_than_there_are_numbers_for_are_said_once() {
    let sysfs = Sysfs::new();
    for place in 0..OBSERVED_DEVICES_MAX + 1 {
        sysfs.disk(&format!("vd{place:03}"), &format!("254:{}", place * 16), Some("a"));
    }
    let mut devices = sysfs.devices(&[]);
    let scanned = devices.scan();
    assert_eq!(scanned.told.len(), OBSERVED_DEVICES_MAX);
    assert_eq!(scanned.left_out, ["vd032"]);
    assert!(devices.scan().left_out.is_empty());
}

#[test]
fn this_machine_has_what_it_has() {
    let sources = Sources { block: "/sys/block".into(), diskstats: "/proc/diskstats".into() };
    let mut devices = Devices::new(sources, &[]);
    let told = devices.scan().told;
    assert_eq!(names(&told), devices.there());
    for device in told {
        let dev = dev_of(device.major, device.minor);
        assert_eq!(devices.number_of(dev), Some(device.number));
    }
}

/// Two that alternate, as loop devices of a module that was loaded later do.
#[test]
fn one_look_is_enough_for_all_strangers_until_they_are_forgotten() {
    let sysfs = Sysfs::new();
    sysfs.disk("vda", "254:0", Some("a"));
    let mut devices = sysfs.devices(&[]);
    devices.scan();
    let mut looks = 0;
    for _ in 0..100 {
        for stranger in [7 << 20, 7 << 20 | 1] {
            if devices.deserves_a_look(stranger) {
                looks += 1;
                devices.scan();
                devices.is_strange(stranger);
            }
        }
    }
    assert_eq!(looks, 2);
    for stranger in 0..1_000 {
        devices.is_strange(7 << 20 | stranger);
    }
    assert!(!devices.deserves_a_look(7 << 20 | 1_000), "there are too many of them");
    devices.forget_strangers();
    assert!(devices.deserves_a_look(7 << 20));
}

#[test]
fn what_is_done_on_a_path_is_the_disks() {
    let sysfs = Sysfs::new();
    sysfs.nvme(&["nvme0c0n1"]);
    sysfs.write("../devices/system/cpu/online", "0-3\n");
    sysfs.write(
        "../diskstats",
        " 254       0 vda 1 2\n 259       0 nvme0c0n1 1 2\n 259       1 nvme0n1 3 4\n",
    );
    let mut devices = sysfs.devices(&[]);
    let scanned = devices.scan();
    assert!(scanned.notices.is_empty(), "{scanned:?}");
    let [head] = scanned.told.as_slice() else { panic!("{scanned:?}") };
    assert_eq!((head.name.as_str(), head.major, head.minor), ("nvme0n1", 259, 1));
    assert_eq!((head.address.as_str(), head.hardware_queues), ("0000:00:05.0", 2));
    assert_eq!(
        (head.io_scheduler.as_str(), head.completion_vcpu),
        ("none", CompletionVcpu::Queued)
    );
    for minor in [0, 1, 3] {
        assert_eq!(devices.number_of(dev_of(259, minor)), Some(head.number), "{minor}");
    }
    assert!(devices.is_path(dev_of(259, 0)) && !devices.is_path(dev_of(259, 1)));
    assert_eq!(devices.there(), ["nvme0n1"], "nobody can ask for a path");
    let mut named = sysfs.devices(&["nvme0n1"]);
    named.scan();
    assert!(named.only().unwrap().contains(&dev_of(259, 0)));
    // Another controller comes.
    sysfs.write("nvme0c1n1/hidden", "1\n");
    sysfs.write("nvme0c1n1/mq/0/cpu_list", "0");
    sysfs.write("../diskstats", "259 0 nvme0c0n1 1\n259 2 nvme0c1n1 1\n");
    let scanned = devices.scan();
    assert_eq!(scanned.new_numbers, [dev_of(259, 2)].into());
    assert!(scanned.has_new_disk);
    assert_eq!(scanned.told[0].hardware_queues, 3);
    assert_eq!(
        scanned.told[0].completion_vcpu,
        CompletionVcpu::Unknown,
        "of this path it is not told"
    );
}

#[test]
fn a_disk_whose_paths_have_no_numbers_is_left_out_and_why_is_said_once() {
    let sysfs = Sysfs::new();
    sysfs.nvme(&["nvme0c0n1", "nvme0c1n1"]);
    sysfs.write("../diskstats", "0 0 nvme0c0n1 1\n259 2 nvme0c1n1 1\n259 1 nvme0n1 3 4\n");
    sysfs.disk("vda", "254:0", Some("a"));
    let mut devices = sysfs.devices(&[]);
    let scanned = devices.scan();
    assert_eq!(names(&scanned.told), ["vda"]);
    let [notice] = scanned.notices.as_slice() else { panic!("{scanned:?}") };
    assert!(notice.starts_with("nvme0n1 is not observed"), "{notice}");
    assert!(
        notice.contains("(nvme0c0n1, nvme0c1n1)") && notice.contains("multipath=N"),
        "{notice}"
    );
    assert!(devices.scan().notices.is_empty());
}

#[test]
fn only_names_of_paths_are_taken_for_such() {
    for (name, head) in [
        ("nvme0c0n1", Some("nvme0n1")),
        ("nvme12c3n45", Some("nvme12n45")),
        ("nvme0n1", None),
        ("nvme0cn1", None),
        ("nvmexc0n1", None),
        ("sdc", None),
    ] {
        assert_eq!(disks::head_of(name).as_deref(), head, "{name}");
    }
}

#[test]
fn a_disk_without_requests_is_left_out_and_what_is_below_it_is_named() {
    let sysfs = Sysfs::new();
    sysfs.disk("vda", "254:0", Some("a"));
    sysfs.write("vda/mq/0/cpu_list", "0");
    sysfs.write("vda/queue/scheduler", "[none] mq-deadline\n");
    sysfs.disk("sda", "8:0", Some("b"));
    sysfs.write("sda/queue/scheduler", "noop deadline [cfq]\n");
    sysfs.write("sda/sda2/partition", "2\n");
    sysfs.disk("pmem0", "259:0", Some("c"));
    sysfs.write("pmem0/queue/scheduler", "none\n");
    sysfs.disk("dm-0", "253:0", None);
    sysfs.write("dm-0/queue/nr_requests", "128\n");
    sysfs.link("dm-0/slaves/vda", "vda");
    sysfs.link("dm-0/slaves/sda2", "sda/sda2");
    let mut devices = sysfs.devices(&[]);
    let scanned = devices.scan();
    assert_eq!(names(&scanned.told), ["sda", "vda"], "an old one with a single queue has requests");
    assert!(scanned.notices[0].starts_with("pmem0 is not observed"), "{scanned:?}");
    assert_eq!(scanned.notices.len(), 1);
    assert_eq!(devices.number_of(259 << 20), None);
    let mut named = sysfs.devices(&["dm-0", "vda"]);
    let scanned = named.scan();
    assert_eq!(names(&scanned.told), ["vda"]);
    let [notice] = scanned.notices.as_slice() else { panic!("{scanned:?}") };
    assert!(notice.contains("dm-0 is not observed") && notice.contains("sda, vda"), "{notice}");
    assert!(named.missing().is_empty(), "it is there");
    assert_eq!(named.only(), Some([254 << 20].into()));
}

#[test]
fn a_path_of_a_multipath_device_with_requests_is_said_to_be_one() {
    let sysfs = Sysfs::new();
    sysfs.disk("sda", "8:0", Some("a"));
    sysfs.disk("dm-3", "253:3", None);
    sysfs.write("dm-3/dm/uuid", "mpath-360000000000000000e00000000010001\n");
    sysfs.link("sda/holders/dm-3", "dm-3");
    let mut devices = sysfs.devices(&[]);
    assert!(devices.scan().notices.is_empty(), "one that hands bios on is none");
    sysfs.write("dm-3/mq/0/cpu_list", "0");
    let scanned = devices.scan();
    let [notice] = scanned.notices.as_slice() else { panic!("{scanned:?}") };
    assert!(notice.starts_with("sda is a path of dm-3"), "{notice}");
    sysfs.disk("vdb", "254:0", Some("b"));
    sysfs.disk("dm-4", "253:4", None);
    sysfs.write("dm-4/dm/uuid", "LVM-mpath-x\n");
    sysfs.write("dm-4/mq/0/cpu_list", "0");
    sysfs.link("vdb/holders/dm-4", "dm-4");
    assert!(devices.scan().notices.is_empty());
}
