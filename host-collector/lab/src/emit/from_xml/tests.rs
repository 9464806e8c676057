use super::*;
use crate::emit::versions::QemuVersion;
use crate::emit::{Emission, EmitFiles, libvirt};
use std::fs;
use std::path::PathBuf;
use vslice_host::disk::{Aio, Cache, DiskBus};

/// Domains that people have, with other names: what each shows is in its name.
fn fixture(name: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/emit/fixtures/domains");
    fs::read_to_string(PathBuf::from(path).join(name)).expect("a fixture")
}

fn read_text(xml: &str) -> ReadPlan {
    let read = read("x.xml", xml, None, None).expect("it is a domain that can be a plan");
    let again = Plan::parse_parts("printed", &read.toml).expect("what is printed is a plan");
    assert_eq!(again, read.plan);
    read
}

fn read_fixture(name: &str) -> ReadPlan {
    read_text(&fixture(name))
}

fn refusal(xml: &str) -> String {
    read("x.xml", xml, None, None).expect_err("this is no plan").to_string()
}

/// A domain with no more than it has to have, and with this.
fn domain(inside: &str) -> String {
    format!("<domain type='kvm'><name>a</name><memory>262144</memory>{inside}</domain>")
}

/// The same with a disk of this inside, on virtio.
fn with_disk(inside: &str) -> String {
    domain(&format!(
        "<devices><disk type='file'>{inside}<source file='/d'/><target dev='vda' bus='virtio'/></disk></devices>"
    ))
}

fn vcpus(read: &ReadPlan) -> Vec<u32> {
    read.plan.vms[0].vcpu_pcpus.iter().map(|pcpu| pcpu.0).collect()
}

/// Where the collector, the main loop and the iothreads are.
fn others(read: &ReadPlan) -> [u32; 3] {
    let (plan, vm) = (&read.plan, &read.plan.vms[0]);
    [plan.collector_pcpu, plan.main_loop_pcpu(vm), plan.iothread_pcpu(vm)].map(|pcpu| pcpu.0)
}

fn disk(read: &ReadPlan) -> (DiskBus, Cache, Aio, bool) {
    let disk = read.plan.vms[0].disk.as_ref().expect("it has one");
    (disk.bus, disk.cache, disk.aio, disk.iothread)
}

/// Whether some comment has all of these words.
fn has_comment(read: &ReadPlan, words: &[&str]) -> bool {
    let mut comments = read.toml.lines().filter(|line| line.starts_with('#'));
    comments.any(|line| words.iter().all(|word| line.contains(word)))
}

#[track_caller]
fn assert_comment(read: &ReadPlan, words: &[&str]) {
    assert!(has_comment(read, words), "no comment has {words:?}:\n{}", read.toml);
}

#[test]
fn vcpus_that_share_a_set_have_a_pcpu_each() {
    let shared = read_fixture("x01-shared-vcpupin-sets.xml");
    assert_eq!(vcpus(&shared), [0, 1, 2, 3]);
    assert_eq!(others(&shared), [4, 4, 4], "nobody is where a vCPU is");
    assert_comment(&shared, &["vCPU0-3", "pCPU0-3", "one of its own"]);
    let whole = read_fixture("x02-shared-vcpu-cpuset.xml");
    assert_eq!((vcpus(&whole), others(&whole)), (vec![1, 3, 4, 5], [6, 6, 6]));
    let few = read_text(&domain("<vcpu cpuset='2-3'>5</vcpu>"));
    assert_eq!(vcpus(&few), [2, 3, 2, 3, 2]);
    assert_comment(&few, &["fewer pCPUs than vCPUs"]);
}

#[test]
fn limits_and_classes_of_the_scheduler_are_named() {
    let quota = read_fixture("x03-quota.xml");
    assert_comment(&quota, &["Lost", "<shares> 512", "<period> 100000", "<quota> 20000"]);
    assert_eq!(vcpus(&quota), [2, 3]);
    let fifo = read_fixture("x04-vcpusched.xml");
    assert_comment(&fifo, &["Lost", "<vcpusched vcpus='1' scheduler='fifo' priority='1'>"]);
    assert_eq!((vcpus(&fifo), others(&fifo)), (vec![2, 3], [0, 0, 0]));
}

#[test]
fn an_iothread_is_pinned_where_its_own_number_is() {
    let by_id = read_fixture("x06-iothreadpin-by-id.xml");
    assert_eq!((others(&by_id), disk(&by_id).3), ([0, 0, 5], true));
    let idle = read_fixture("x19-unused-iothread-pin-multi-disk.xml");
    assert_eq!(idle.plan.vms[0].iothread_pcpu, None);
    assert_comment(&idle, &["Lost", "iothread 1", "it serves no disk of the plan"]);
    assert_comment(&idle, &["vda on /boot.qcow2", "Lost: vdb on /dev/vg/data"]);
    assert_comment(&idle, &["image is qcow2"]);
    let vdb = read("x", &fixture("x19-unused-iothread-pin-multi-disk.xml"), None, Some("vdb"));
    let vdb = vdb.expect("the other disk");
    assert_eq!(
        (others(&vdb)[2], disk(&vdb)),
        (5, (DiskBus::VirtioBlk, Cache::None, Aio::Native, true))
    );
    let scsi = domain(
        "<iothreads>2</iothreads><cputune><iothreadpin iothread='1' cpuset='4'/>\
         <iothreadpin iothread='2' cpuset='5'/></cputune><devices>\
         <controller type='scsi' index='0' model='virtio-scsi'><driver iothread='1'/></controller>\
         <controller type='scsi' index='1' model='virtio-scsi'><driver iothread='2' queues='3'/></controller>\
         <disk><source file='/d'/><target dev='sda' bus='scsi'/>\
         <address type='drive' controller='1' bus='0' target='0' unit='0'/></disk></devices>",
    );
    let scsi = read_text(&scsi);
    assert_eq!(
        (others(&scsi)[2], scsi.plan.vms[0].disk.as_ref().and_then(|disk| disk.queues)),
        (5, Some(3))
    );
}

#[test]
fn what_is_optional_has_libvirts_default() {
    let one = read_fixture("x08-no-vcpu.xml");
    assert_eq!(vcpus(&one), [0]);
    assert_comment(&one, &["Assumed", "libvirt's default"]);
    let cells = read_fixture("x09-memory-in-numa-cells.xml");
    assert_eq!(cells.plan.vms[0].memory_mib, 2048);
    assert_comment(&cells, &["Lost", "<numa>"]);
    let plugged = "<domain><name>a</name><cpu><numa><cell memory='1' unit='GiB'/><cell memory='1048576'/></numa></cpu>\
                   <devices><memory model='dimm'><target><size unit='MiB'>512</size></target></memory></devices>\
                   </domain>";
    assert_eq!(read_text(plugged).plan.vms[0].memory_mib, 2560);
    assert_comment(&read_text(plugged), &["Assumed", "has no type"]);
    let both = plugged.replace("<cpu>", "<memory unit='GiB'>4</memory><cpu>");
    assert_eq!(read_text(&both).plan.vms[0].memory_mib, 2560, "libvirt goes by the cells");
    assert_comment(&read_text(&both), &["<memory> is 4096 MiB", "cells"]);
    // QEMU gets whole MiB, of each cell, and never less.
    let cells = "<domain><name>a</name><cpu><numa><cell memory='100000000' unit='b'/>\
                 <cell memory='100000000' unit='b'/></numa></cpu></domain>";
    assert_eq!(read_text(cells).plan.vms[0].memory_mib, 192);
    let uneven = read_text("<domain><name>a</name><memory unit='KB'>300001</memory></domain>");
    assert_eq!(uneven.plan.vms[0].memory_mib, 287);
    assert!(refusal("<domain><name>a</name></domain>").contains("has no <memory>"));
}

#[test]
fn vcpus_are_those_that_are_online() {
    let current = read_text(&domain("<vcpu current='2'>4</vcpu>"));
    assert_eq!(vcpus(&current), [0, 1]);
    assert_comment(&current, &["can have 4 vCPUs"]);
    let states = domain(
        "<vcpu current='2'>4</vcpu><vcpus><vcpu id='0' enabled='yes'/><vcpu id='1' enabled='no'/>\
         <vcpu id='2' enabled='no'/><vcpu id='3' enabled='yes'/></vcpus>\
         <cputune><vcpupin vcpu='0' cpuset='4'/><vcpupin vcpu='1' cpuset='5'/><vcpupin vcpu='3' cpuset='7'/></cputune>",
    );
    let states = read_text(&states);
    assert_eq!(vcpus(&states), [4, 7]);
    assert_comment(&states, &["vCPU0,3"]);
    assert_comment(&states, &["Lost", "vcpupin of vCPU1"]);
    let auto = read_text(&domain("<vcpu placement='auto' cpuset='5-6'>2</vcpu>"));
    assert_eq!(vcpus(&auto), [0, 1], "numad says where, and the set is not read");
    assert_comment(&auto, &["numad"]);
}

#[test]
fn a_disk_that_others_serve_is_no_disk_of_a_plan() {
    let vhost = read_fixture("x10-vhostuser-disk.xml");
    assert!(vhost.plan.vms[0].disk.is_none() && vhost.plan.vms[0].reader.is_none());
    assert_comment(&vhost, &["vda on /tmp/vhost1.sock", "served by another process", "vhost-user"]);
    let hidden = read_fixture("x22-qemu-commandline-disk.xml");
    assert_comment(&hidden, &["Lost, a disk", "qemu:commandline", "vhost-user-blk-pci,chardev=c0"]);
    assert_comment(&hidden, &["Lost, arguments", "-chardev socket,id=c0,path=/var/tmp/vhostblk1"]);
    let cases = [
        ("<disk device='cdrom'><target dev='hda' bus='ide'/></disk>", "a cdrom"),
        ("<disk device='floppy'><target dev='fda'/></disk>", "a floppy"),
        ("<disk><source file='/d'/></disk>", "disk without a target on /d"),
        ("<disk type='dir'><target dev='vda'/></disk>", "a directory"),
        ("<disk type='vhostvdpa'><source dev='/dev/v'/><target dev='vda'/></disk>", "vhost-vdpa"),
        ("<disk><target dev='sda' bus='usb'/></disk>", "on usb"),
        (
            "<disk><target dev='sda' bus='scsi'/></disk>",
            "without a model, which is lsilogic or virtio-scsi",
        ),
        (
            "<controller type='scsi' model='lsisas1068'/><disk><target dev='sda' bus='scsi'/></disk>",
            "on the SCSI controller lsisas1068",
        ),
        (
            "<controller type='scsi' index='0' model='virtio-scsi'/><disk><target dev='sdh' bus='scsi'/></disk>",
            "on SCSI controller 1 without a model",
        ),
    ];
    for (devices, why) in cases {
        let read = read_text(&domain(&format!("<devices>{devices}</devices>")));
        assert!(read.plan.vms[0].disk.is_none(), "{devices}");
        assert_comment(&read, &["Lost", why]);
    }
}

#[test]
fn what_is_no_vm_of_qemu_on_x86_is_refused() {
    let message = refusal(&fixture("x12-xen.xml"));
    assert_eq!(
        message,
        "x.xml cannot be a plan: its type is xen, and a plan's VMs are of kvm or qemu"
    );
    let message = refusal(&fixture("x13-aarch64.xml"));
    assert_eq!(
        message,
        "x.xml cannot be a plan: its machine is aarch64, and a plan's VMs are x86-64"
    );
    for kind in ["lxc", "vz", "hvf", "bhyve", "vmware", "hyperv", "test", "a\nb"] {
        let message = refusal(&format!("<domain type='{kind}'><name>a</name></domain>"));
        assert!(
            message.contains("cannot be a plan: its type is") && !message.contains('\n'),
            "{message}"
        );
    }
    let emulator = |path| domain(&format!("<devices><emulator>{path}</emulator></devices>"));
    assert!(refusal(&emulator("/usr/bin/qemu-system-ppc64")).contains("its machine is ppc64"));
    assert!(
        refusal(&emulator("/usr/bin/cloud-hypervisor"))
            .contains("its emulator is cloud-hypervisor")
    );
    for path in ["/usr/bin/kvm-spice", "/usr/libexec/qemu-kvm", "/usr/bin/qemu-system-x86_64"] {
        assert!(!has_comment(&read_text(&emulator(path)), &["Lost"]), "{path}");
    }
    for path in ["/usr/bin/qemu-system-i386", "/opt/qemu-11/bin/qemu-system-x86_64"] {
        assert_comment(&read_text(&emulator(path)), &["Lost", "<emulator>", path]);
    }
    let old = read_text(&domain("<os><type arch='i686'>hvm</type></os>"));
    assert_comment(&old, &["Lost", "<type arch='i686'>", "x86-64"]);
    assert!(refusal(&domain("<os><type arch='x86_64'>exe</type></os>")).contains("(hvm)"));
}

#[test]
fn limits_are_said_to_be_the_plans_own() {
    let large = read_fixture("x14-large-memory.xml");
    assert_eq!((large.plan.vms[0].memory_mib, vcpus(&large).len()), (98_304, 16));
    let message = refusal(&domain("<vcpu>256</vcpu>"));
    assert_eq!(message, "x.xml has 256 vCPUs, and a plan has a limit of its own: 1 to 255");
    let message = refusal("<domain><name>a</name><memory unit='MiB'>64</memory></domain>");
    assert_eq!(
        message,
        "x.xml has 64 MiB of memory, and a plan has a limit of its own: 128 to 16777216"
    );
    let message = refusal("<domain><name>a</name><memory unit='EiB'>1</memory></domain>");
    assert!(message.contains("a limit of its own"), "{message}");
    assert_eq!(vcpus(&read_text(&domain("<vcpu>255</vcpu>"))).len(), 255);
}

#[test]
fn each_disk_has_the_bus_that_the_guest_sees() {
    let native = read_fixture("x16-native-without-cache.xml");
    assert_eq!(disk(&native), (DiskBus::VirtioBlk, Cache::Writeback, Aio::Threads, false));
    assert_comment(&native, &["Line 1", "io='native'", "by threads"]);
    let nvme = read_fixture("x17-boot-disk-nvme-bus.xml");
    assert_eq!(disk(&nvme), (DiskBus::Nvme, Cache::None, Aio::Threads, false));
    let lun = read_fixture("x18-lun.xml");
    assert_eq!(disk(&lun), (DiskBus::VirtioScsi, Cache::None, Aio::Native, false));
    assert_comment(&lun, &["is a LUN"]);
    let scsi = read_fixture("x23-pass-vfio.xml");
    assert_eq!(disk(&scsi), (DiskBus::VirtioScsi, Cache::None, Aio::Native, false));
    assert_eq!((vcpus(&scsi), others(&scsi)), (vec![1, 7], [0, 0, 0]));
    let mapped = read_fixture("x24-libvirt-iothreads-disk.xml");
    let mapped_disk = mapped.plan.vms[0].disk.as_ref().expect("it has one");
    assert_eq!(
        (mapped_disk.iothread, mapped_disk.iothreads, mapped_disk.queues),
        (true, 2, Some(4))
    );
    assert_comment(&mapped, &["Lost", "iothreads 1, 4, with their pins: they serve no disk"]);
    // Names decide where no bus is said, and IDE where they do not.
    let by_name = |dev: &str| {
        let xml = domain(&format!(
            "<devices><disk><source file='/d'/><target dev='{dev}'/></disk></devices>"
        ));
        read_text(&xml).plan.vms[0].disk.as_ref().map(|disk| disk.bus)
    };
    assert_eq!(by_name("vdb"), Some(DiskBus::VirtioBlk));
    assert_eq!(by_name("hda"), Some(DiskBus::Ide));
    assert_eq!(by_name("xvda"), None);
}

#[test]
fn what_libvirt_decides_about_an_image_is_said() {
    let shared = read_text(&with_disk("<driver name='qemu' io='native'/><shareable/>"));
    assert_eq!(disk(&shared), (DiskBus::VirtioBlk, Cache::None, Aio::Native, false));
    assert_comment(&shared, &["shareable"]);
    let xml = domain(
        "<devices><disk type='network'><driver cache='none'/><source protocol='rbd' name='p/i'/>\
         <target dev='vda' bus='virtio'/></disk></devices>",
    );
    assert_comment(&read_text(&xml), &["vda on p/i"]);
    assert_comment(&read_text(&xml), &["comes by rbd", "a local file"]);
    let message = refusal(&with_disk("\n<driver cache='fast'/>"));
    assert_eq!(message, "x.xml, line 2: \"fast\" is no cache= of a disk's driver");
    let ide = with_disk("<driver iothread='1'/>").replace("vda", "hda").replace("virtio", "ide");
    assert_comment(&read_text(&ide), &["Lost", "which only virtio disks have"]);
    let missing =
        read("x.xml", &with_disk(""), None, Some("vdb")).expect_err("it has none").to_string();
    assert_eq!(missing, "x.xml has no disk \"vdb\" that a plan can have; it has vda on /d");
}

#[test]
fn nobody_is_where_a_vcpu_is_unless_the_domain_says_so() {
    let same = read_fixture("x21-emulatorpin-is-the-vcpus.xml");
    assert_eq!((vcpus(&same), others(&same)), (vec![18, 66], [67, 67, 67]));
    assert_comment(&same, &["main loop may run on pCPU18,66", "with the collector"]);
    let pinned =
        |inside: &str| read_text(&domain(&format!("<vcpu>2</vcpu><cputune>{inside}</cputune>")));
    let told = pinned("<vcpupin vcpu='0' cpuset='2'/><emulatorpin cpuset='2'/>");
    assert_eq!((vcpus(&told), others(&told)[1]), (vec![2, 1], 2));
    assert_ne!(others(&told)[0], 2, "the domain says nothing of the collector");
    assert_comment(&told, &["main loop has a vCPU's pCPU"]);
    let left = pinned(
        "<vcpupin vcpu='0' cpuset='2'/><vcpupin vcpu='1' cpuset='3'/><emulatorpin cpuset='2-5'/>",
    );
    assert_eq!(others(&left), [4, 4, 4]);
    let unpinned = pinned("<emulatorpin cpuset='0'/>");
    assert_eq!((vcpus(&unpinned), others(&unpinned)), (vec![1, 2], [0, 0, 0]));
    let whole = read_text(&domain("<vcpu cpuset='0-5'>2</vcpu>"));
    assert_eq!((vcpus(&whole), others(&whole)), (vec![0, 1], [2, 2, 2]));
}

#[test]
fn an_iothread_with_a_set_has_a_pcpu_that_nobody_has() {
    let xml = |pins: &str| {
        with_disk("<driver iothread='7'/>").replace(
            "<devices>",
            &format!("<vcpu>2</vcpu><cputune><vcpupin vcpu='0' cpuset='1'/><vcpupin vcpu='1' cpuset='2'/>\
                      <emulatorpin cpuset='3'/>{pins}</cputune><devices>"),
        )
    };
    assert_eq!(others(&read_text(&xml("<iothreadpin iothread='7' cpuset='1-5'/>"))), [3, 3, 4]);
    let none_left = read_text(&xml("<iothreadpin iothread='7' cpuset='1-3'/>"));
    assert_eq!(others(&none_left), [3, 3, 3]);
    assert_comment(&none_left, &["goes with the main loop"]);
    assert_eq!(
        others(&read_text(&xml("<iothreadpin iothread='7' cpuset='2'/>")))[2],
        2,
        "as the domain says"
    );
    let two = xml("<iothreadpin iothread='7' cpuset='5'/><iothreadpin iothread='8' cpuset='6'/>")
        .replace(
            "<driver iothread='7'/>",
            "<driver><iothreads><iothread id='7'/><iothread id='8'/></iothreads></driver>",
        );
    let two = read_text(&two);
    assert_eq!(others(&two)[2], 5);
    assert_comment(&two, &["pCPU5 and pCPU6", "one pCPU for all"]);
    assert_comment(&two, &["polls before it sleeps"]);
    let silent = with_disk("<driver iothread='1'/>").replace(
        "<devices>",
        "<iothreadids><iothread id='1'><poll max='0'/></iothread></iothreadids><devices>",
    );
    assert!(!has_comment(&read_text(&silent), &["polls"]));
    assert!(!has_comment(&read_text(&silent), &["Lost"]), "a plan's does not poll either");
    let polling = silent.replace("max='0'", "max='9' grow='2'");
    assert_comment(&read_text(&polling), &["Lost", "<poll max='9' grow='2'>"]);
}

#[test]
fn nothing_is_dropped_without_a_word() {
    let xml = domain(
        "<numatune><memory mode='strict' nodeset='1'/></numatune><memoryBacking><hugepages/></memoryBacking>\
         <resource><partition>/vms</partition></resource>\
         <features><acpi/><hyperv><relaxed state='on'/></hyperv></features>\
         <cpu mode='custom' match='exact'><model>Haswell</model><feature name='x'/></cpu>\
         <clock offset='utc'><timer name='hpet' present='no'/></clock><os><type machine='pc-q35-9.2'>hvm</type></os>\
         <title>t</title><on_crash>restart</on_crash>\n<frobnicate speed='9'/><vcpu burst='1'>1</vcpu>\
         <devices><interface type='bridge'/><interface type='bridge'/><hostdev mode='subsystem'/><video/>\
         <disk><driver name='qemu' copy_on_read='on'/><source file='/d'/><target dev='vda'/><iotune/>\
         <serial>s</serial></disk>\
         </devices>",
    );
    let read = read_text(&xml);
    let many = (0..9).map(|number| format!("<feature name='{number}'/>")).collect::<String>();
    let many =
        domain(&format!("<cpu mode='custom'><model>m</model><topology/>{many}<numa/></cpu>"));
    assert_comment(&read_text(&many), &["Lost", "<model> m, <topology>, 9 <feature>, <numa>"]);
    for words in [
        ["Lost", "<numatune><memory mode='strict' nodeset='1'>"],
        ["Lost", "<memoryBacking><hugepages>"],
        ["Lost", "<resource>"],
        ["Lost", "<hyperv><relaxed state='on'>"],
        ["Lost", "<cpu mode='custom'>, <model> Haswell, <feature name='x'>"],
        ["Lost", "<timer name='hpet' present='no'>"],
        ["Lost", "<type machine='pc-q35-9.2'>"],
        ["Lost", "2 <interface type='bridge'>"],
        ["Lost", "<hostdev mode='subsystem'>"],
        ["Lost", "<driver copy_on_read='on'>"],
        ["Lost", "<iotune>"],
        ["Lost, line 2", "<frobnicate speed='9'>: vslice does not know it"],
        ["Lost, line 2", "<vcpu burst='1'>: vslice does not know it"],
        ["Left out", "identity (serial, title), start, end and migration (cpu match, on_crash)"],
        ["Left out", "consoles and screens (video)"],
    ] {
        assert_comment(&read, &words);
    }
}

#[test]
fn nothing_of_a_domain_reaches_the_terminal_as_it_is() {
    let name = "a\u{2066}b\u{9b}31m\nc";
    let read = read_text(&domain("").replace("<name>", &format!("<name>{name}")));
    let odd = read.toml.chars().find(|letter| *letter != '\n' && !(' '..='~').contains(letter));
    assert_eq!(odd, None, "{}", read.toml);
    assert_comment(&read, &["The domain is called", "a?b 31m ca"]);
}

#[test]
fn what_a_plan_has_anyway_is_not_lost() {
    let xml = domain(
        "<currentMemory unit='MiB'>256</currentMemory><resource><partition>/machine</partition></resource>\
         <cpu mode='host-passthrough' check='none'/><os><type arch='x86_64' machine='pc'>hvm</type></os>\
         <devices><disk><source file='/d'/><backingStore/><target dev='vda'/></disk></devices>",
    );
    let read = read_text(&xml);
    assert!(!has_comment(&read, &["Lost"]), "{}", read.toml);
    assert_comment(
        &read_text(&domain("<currentMemory>131072</currentMemory>")),
        &["Lost", "balloon"],
    );
}

#[test]
fn what_qemu_is_told_behind_libvirts_back_is_named() {
    let with = |args: &str| {
        let args: String =
            args.split(' ').map(|arg| format!("<qemu:arg value='{arg}'/>")).collect();
        let xml = with_disk("")
            .replace("<domain ", &format!("<domain xmlns:qemu='{}' ", libvirt::QEMU_NAMESPACE));
        xml.replace(
            "</domain>",
            &format!(
                "<qemu:commandline>{args}<qemu:env name='A' value='b'/></qemu:commandline></domain>"
            ),
        )
    };
    let dataplane =
        with("-set device.virtio-disk0.x-data-plane=on -set device.virtio-disk0.scsi=off");
    let dataplane = read_text(&dataplane);
    assert!(disk(&dataplane).3);
    assert!(!has_comment(&dataplane, &["Lost, arguments"]), "{}", dataplane.toml);
    assert_comment(
        &dataplane,
        &["Lost", "<env name='A' value='b'>".replace("<env", "<qemu:env").as_str()],
    );
    let other =
        read_text(&with("-set device.virtio-disk1.x-data-plane=on -no-hpet -drive file=/x"));
    assert!(!disk(&other).3, "that is another disk's");
    assert_comment(&other, &["-set device.virtio-disk1.x-data-plane=on; -no-hpet"]);
    assert_comment(&other, &["Lost, a disk", "-drive file=/x"]);
    // The second disk's properties are not the first's.
    let second = with("-set device.virtio-disk1.vectors=0").replace("vda", "vdb");
    assert!(!read_text(&second).plan.vms[0].disk.as_ref().expect("a disk").msix);
}

#[test]
fn a_domain_is_found_in_what_libvirt_writes_around_it() {
    let inner = domain("<vcpu>3</vcpu>");
    for wrapper in ["domstatus", "domainsnapshot", "domaincheckpoint"] {
        let xml = format!(
            "<{wrapper} state='running'><vcpus><vcpu id='0' pid='1'/></vcpus>{inner}</{wrapper}>"
        );
        assert_eq!(vcpus(&read_text(&xml)).len(), 3);
        assert_comment(&read_text(&xml), &[wrapper]);
    }
    let two = format!("<domains>{inner}{}</domains>", inner.replace(">a<", ">b<"));
    assert_eq!(refusal(&two), "x.xml has several domains (a, b): give each a file of its own");
    for between in ["", "\n\n", "<?xml version='1.0'?>"] {
        let message = refusal(&format!("{inner}{between}{inner}"));
        assert_eq!(message, "x.xml has several domains: give each a file of its own", "{between}");
    }
    let message = refusal("<domainCapabilities><domain>kvm</domain></domainCapabilities>");
    assert!(message.contains("its root is <domainCapabilities>"), "{message}");
    assert!(refusal("<network/>").contains("its root is <network>"));
}

#[test]
fn a_file_is_read_in_the_encodings_that_are_written() {
    let xml = domain("<title>\u{e4}</title>");
    let of = |bytes: &[u8]| text_of("x.xml", bytes).map(|text| vcpus(&read_text(&text)).len());
    assert_eq!(of(xml.as_bytes()).expect("UTF-8"), 1);
    assert_eq!(of(format!("\u{feff}{xml}").as_bytes()).expect("with its mark"), 1);
    let wide: Vec<u16> =
        format!("\u{feff}<?xml version='1.0' encoding='utf-16'?>{xml}").encode_utf16().collect();
    let little: Vec<u8> = wide.iter().flat_map(|unit| unit.to_le_bytes()).collect();
    let big: Vec<u8> = wide.iter().flat_map(|unit| unit.to_be_bytes()).collect();
    assert_eq!((of(&little).expect("UTF-16"), of(&big).expect("UTF-16")), (1, 1));
    let latin =
        b"<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><domain><title>\xe4</title></domain>";
    let message = text_of("x.xml", latin).expect_err("not UTF-8").to_string();
    assert_eq!(message, "x.xml is not UTF-8, but ISO-8859-1: iconv turns it into UTF-8");
    let message = refusal("<!DOCTYPE d [<!ENTITY a 'b'>]><domain><name>&a;</name></domain>");
    assert_eq!(message, "x.xml has a DTD, which no domain of libvirt has: remove <!DOCTYPE ...>");
}

#[test]
fn nothing_of_a_domain_gets_out_of_its_comment() {
    let evil = "&#10;collector_pcpu = 77&#10;&#13;x&#x85;&#x2028;\u{202e}";
    let xml = format!(
        "<domain type='kvm'><name>{evil}</name><memory>262144</memory><title>{evil}</title><vcpu>2</vcpu>\
         <strange a='{evil}'>{evil}</strange><cputune><shares>{evil}</shares></cputune><devices><disk device='{evil}'/>\
         <disk><driver type='{evil}' name='{evil}'/><source file='{evil}'/><target dev='vda'/></disk>\
         </devices></domain>"
    );
    let read = read_text(&xml);
    assert_eq!(read.plan.collector_pcpu, PcpuId(2), "{}", read.toml);
    assert!(!read.toml.contains(['\u{85}', '\u{2028}', '\u{202e}', '\r']), "{}", read.toml);
}

/// The plan's guest as it would run, whoever says where.
fn guest(plan: &Plan) -> impl PartialEq + std::fmt::Debug + use<> {
    let vm = &plan.vms[0];
    let io = (plan.main_loop_pcpu(vm), plan.iothread_pcpu(vm));
    let io = if vm.disk.as_ref().is_some_and(|disk| disk.iothread) { io } else { (io.0, io.0) };
    (vm.name.clone(), vm.vcpu_pcpus.clone(), vm.memory_mib, vm.disk.clone(), io, plan.accelerator)
}

#[test]
fn what_was_read_is_emitted_and_read_again() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/emit/fixtures/domains");
    let mut count = 0;
    for entry in fs::read_dir(directory).expect("fixtures") {
        let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
        let Ok(first) = read("x", &fixture(&name), None, None) else { continue };
        let files = EmitFiles::of_vm("x");
        let version = QemuVersion::new(11, 1);
        let emission = Emission { plan: &first.plan, vm_index: 0, version, files: &files };
        let Ok(emitted) = libvirt::domain(&emission) else { continue };
        let second = read_text(&emitted);
        assert_eq!(guest(&second.plan), guest(&first.plan), "{name}: {emitted}");
        let emission = Emission { plan: &second.plan, ..emission };
        assert_eq!(libvirt::domain(&emission).expect("it was possible"), emitted, "{name}");
        count += 1;
    }
    assert!(count > 12, "{count} of the domains went around");
}
