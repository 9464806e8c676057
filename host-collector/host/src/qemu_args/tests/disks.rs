//! The disks of command lines as people write them, one line each.

use super::*;

/// The disks of a line, each as `BUS [CD] STORAGE (FORMAT) [direct|cached] [AIO] [iothreads]`.
fn read(line: &str) -> Vec<String> {
    let words = |disk: &Disk| {
        let words = [
            disk.bus.to_string(),
            if disk.is_cdrom { "CD" } else { "" }.to_owned(),
            disk.storage.to_string(),
            disk.format.as_ref().map(|format| format!("({format})")).unwrap_or_default(),
            disk.is_direct.map_or("", |is| if is { "direct" } else { "cached" }).to_owned(),
            disk.aio.map_or("", Aio::name).to_owned(),
            disk.iothreads.join(","),
        ];
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    };
    parse(&format!("qemu-system-x86_64 {line}")).disks.iter().map(words).collect()
}

fn check(cases: &[(&str, &[&str])]) {
    for (line, expected) in cases {
        assert_eq!(read(line), *expected, "{line}");
    }
}

#[test]
fn every_option_that_makes_a_disk_is_one() {
    check(&[
        (
            "-hda a.qcow2 -drive file=seed.img,format=raw",
            &["ide on a.qcow2", "ide on seed.img (raw)"],
        ),
        (
            "-hdb b -hdc c -hdd d -cdrom e.iso",
            &["ide on b", "ide on c", "ide on d", "ide CD on e.iso"],
        ),
        ("-M q35 -m 512 a.img", &["ahci on a.img"]),
        ("-fda f -sd s -mtdblock m -pflash p", &["floppy on f", "sd on s", "mtd on m"]),
        ("-machine pc -drive file=/x,format=raw,if=floppy", &["floppy on /x (raw)"]),
        ("-M microvm -drive file=/x,format=raw", &[]),
        (
            "-drive if=none,file=/x,format=raw -device virtio-blk,drive=none0",
            &["virtio-blk on /x (raw)"],
        ),
        ("-drive if=none,id=spare,file=/x,format=raw", &[]),
        ("-S -append -drive -kernel k", &[]),
    ]);
}

#[test]
fn the_machine_decides_how_a_drive_is_attached() {
    let line = |program: &str, options: &str| {
        let disks = parse(&format!("{program} {options} -drive file=/x,format=raw")).disks;
        disks.first().map(|disk| disk.bus.to_string())
    };
    for (program, options, expected) in [
        ("qemu-system-x86_64", "-M pc", "ide"),
        ("qemu-system-x86_64", "-machine accel=kvm,type=pc-q35-9.0", "ahci"),
        ("qemu-system-aarch64", "-M virt,gic-version=3", "virtio-blk"),
        ("qemu-system-s390x", "", "virtio-blk"),
        ("qemu-system-ppc64", "-M pseries-9.0", "scsi"),
        ("qemu-system-aarch64", "-M raspi3b", "sd"),
        ("qemu-system-aarch64", "-M what-somebody-made", "unknown bus (the machine's choice)"),
    ] {
        assert_eq!(line(program, options).as_deref(), Some(expected), "{program} {options}");
    }
}

#[test]
fn children_are_followed_and_backing_is_not() {
    let node = |node: &str| format!("-device virtio-blk-pci,drive=d -blockdev {node}");
    let expected = "virtio-blk on /d (qcow2) direct io_uring";
    for line in [
        node(r#"{"driver":"qcow2","node-name":"d","backing":{"driver":"raw","node-name":"b","file":{"driver":"file","filename":"/b"}},"file":{"driver":"file","filename":"/d","aio":"io_uring","cache":{"direct":true}}}"#),
        node(r#"{"driver":"qcow2","node-name":"d","cache":{"direct":true},"backing":"b","file":{"driver":"file","filename":"/d","aio":"io_uring"}} -blockdev driver=file,filename=/b,node-name=b"#),
        node(r#"{"driver":"copy-on-read","node-name":"d","file":{"driver":"throttle","throttle-group":"t","file":{"driver":"qcow2","file":"e"}}} -blockdev driver=host_device,filename=/d,aio=io_uring,cache.direct=on,node-name=e"#),
        node("driver=blkdebug,node-name=d,image.driver=qcow2,image.file.driver=file,image.file.filename=/d,image.file.aio=io_uring,image.cache.direct=on"),
        // A device may name a node within another one.
        node(r#"{"driver":"throttle","node-name":"t","throttle-group":"g","cache":{"direct":true},"file":{"driver":"qcow2","node-name":"d","file":{"driver":"file","filename":"/d","aio":"io_uring"}}}"#),
        "-drive if=virtio,driver=qcow2,file.driver=file,file.filename=/d,aio=io_uring,cache=none".to_owned(),
        r#"-drive if=virtio,aio=io_uring,cache=none,file=json:{"driver":"qcow2",,"file":{"driver":"file",,"filename":"/d"}}"#.to_owned(),
        "-drive if=virtio,format=qcow2,file=file:/d,file.locking=off,aio=io_uring,cache=off".to_owned(),
    ] {
        assert_eq!(read(&line), [expected], "{line}");
    }
    let deep = |depth| {
        format!("-device virtio-blk-pci,drive=d -blockdev driver=raw,node-name=d,{}", {
            let prefix = "file.".repeat(depth);
            format!(
                "{prefix}driver=file,{prefix}filename=/x,{}",
                (1..depth)
                    .map(|depth| format!("{}driver=raw,", "file.".repeat(depth)))
                    .collect::<String>()
            )
        })
    };
    assert_eq!(read(&deep(9)), ["virtio-blk on /x (raw)"]);
    assert!(
        read(&deep(40))[0].contains("an unknown file (more than 16 nodes"),
        "{:?}",
        read(&deep(40))
    );
    // QEMU's own JSON reader would take it, serde's does not.
    let bottomless =
        node(&format!("{}1{}", r#"{"driver":"raw","file":"#.repeat(200), "}".repeat(200)));
    assert!(read(&bottomless)[0].contains("an unknown file"), "{:?}", read(&bottomless));
}

/// Nodes (`-blockdev`) and names of files (`-drive`) that are no files of the host, and what is said of each.
const PROTOCOLS: [(&str, &str, &str); 27] = [
    ("node", "driver=nvme,device=0000:01:00.0,namespace=1", "nvme 0000:01:00.0 namespace 1"),
    ("file", "nvme://0000:01:00.0/1", "nvme 0000:01:00.0 namespace 1"),
    ("node", "driver=rbd,pool=p,image=i", "rbd p/i"),
    ("node", "driver=rbd,pool=p,namespace=n,image=i,snapshot=s", "rbd p/n/i@s"),
    ("file", "rbd:p/i:id=admin:key=secret:mon_host=h", "rbd p/i"),
    ("node", "driver=nbd,server.type=unix,server.path=/n.sock,export=e", "nbd /n.sock export e"),
    ("node", "driver=nbd,server.type=inet,server.host=h,server.port=10809", "nbd h:10809"),
    ("file", "nbd:unix:/n.sock:exportname=e", "nbd /n.sock export e"),
    ("file", "nbd+unix:///e?socket=/n.sock", "nbd /n.sock export e"),
    ("file", "nbd:h:10809", "nbd h:10809"),
    ("file", "nbd://h:10809/e", "nbd h:10809 export e"),
    ("file", "iscsi://u%p@h:3260/iqn.x/1", "iscsi h:3260 iqn.x LUN 1"),
    (
        "node",
        "driver=iscsi,portal=h:3260,target=iqn.x,lun=1,transport=tcp",
        "iscsi h:3260 iqn.x LUN 1",
    ),
    ("file", "ssh://me@h/disk.img", "ssh h/disk.img"),
    ("node", "driver=ssh,server.host=h,server.port=22,path=/disk.img", "ssh h:22 /disk.img"),
    ("file", "https://u:p@h/a.iso?token=t", "https https://h/a.iso"),
    ("node", "driver=https,url=https://h/a.iso", "https https://h/a.iso"),
    ("file", "gluster+tcp://h:24007/v/i", "gluster h:24007/v/i"),
    (
        "node",
        "driver=gluster,volume=v,path=i,server.0.type=inet,server.0.host=h,server.0.port=24007",
        "gluster h:24007 v/i",
    ),
    ("file", "nfs://h/x/i?uid=0", "nfs h/x/i"),
    ("node", "driver=null-co,size=1G", "null-co"),
    ("file", "null-co://", "null-co"),
    ("node", "driver=nvme-io_uring,path=/dev/ng0n1", "nvme-io_uring /dev/ng0n1"),
    (
        "node",
        "driver=virtio-blk-vhost-vdpa,path=/dev/vhost-vdpa-0",
        "virtio-blk-vhost-vdpa /dev/vhost-vdpa-0",
    ),
    (
        "node",
        "driver=virtio-blk-vhost-vdpa,path=/dev/fdset/0",
        "virtio-blk-vhost-vdpa set 0 of file descriptors",
    ),
    ("node", "driver=virtio-blk-vhost-user,path=/v.sock", "virtio-blk-vhost-user /v.sock"),
    (
        "node",
        "driver=throttle,throttle-group=t,file.driver=rbd,file.pool=p,file.image=i",
        "rbd p/i",
    ),
];

#[test]
fn what_is_no_file_of_the_host_has_no_page_cache_and_no_aio() {
    for (kind, value, expected) in PROTOCOLS {
        let line = match kind {
            "file" => format!("-drive if=virtio,format=raw,cache=none,aio=native,file={value}"),
            _ => format!("-device virtio-blk-pci,drive=d -blockdev node-name=d,{value}"),
        };
        assert_eq!(read(&line), [format!("virtio-blk on {expected} (raw)")], "{line}");
        let disk = parse(&format!("qemu-system-x86_64 {line}")).disks.remove(0);
        assert!(disk.aio_missing().is_some() && disk.direct_missing().is_some(), "{line}");
        assert_eq!(disk.storage.socket().is_some(), expected.contains(".sock"), "{line}");
    }
}

#[test]
fn a_file_name_may_be_more_than_a_path() {
    check(&[
        (
            "-drive if=virtio,file=fat:rw:/dir,format=raw",
            &[
                "virtio-blk on an unknown file (QEMU makes it of the files of a directory (vvfat)) (raw)",
            ],
        ),
        (
            "-drive if=virtio,file=/dev/fdset/3,format=raw",
            &[
                "virtio-blk on an unknown file (it was handed to QEMU open, as set 3 of file descriptors) (raw)",
            ],
        ),
        (
            "-drive if=virtio,file=pbs:repository=r,format=raw",
            &[
                "virtio-blk on an unknown file (its name has the protocol pbs before it, which is not known) (raw)",
            ],
        ),
        (
            "-drive if=virtio,file=blkdebug:rules:/x,format=raw,cache=none",
            &["virtio-blk on /x (raw) direct"],
        ),
        (
            "-drive if=virtio,file=/by-path/pci-0000:00:1f.2,format=raw",
            &["virtio-blk on /by-path/pci-0000:00:1f.2 (raw)"],
        ),
        (
            "-device virtio-blk-pci,drive=d -blockdev driver=io_uring,filename=/x,node-name=d,cache.direct=on",
            &["virtio-blk on /x (raw) direct io_uring"],
        ),
        (
            "-device virtio-blk-pci,drive=d -blockdev driver=quorum,node-name=d,vote-threshold=1,children.0=a,children.1=b",
            &["virtio-blk on an unknown file (it is a quorum of several images)"],
        ),
    ]);
}

#[test]
fn disks_are_behind_the_controller_that_qemu_takes() {
    let scsi = "-drive if=none,id=d,file=/x,format=raw -device scsi-hd,drive=d";
    let ide = "-drive if=none,id=d,file=/x,format=raw -device ide-hd,drive=d";
    for (line, expected) in [
        (format!("-device virtio-scsi-pci,id=s,iothread=a {scsi},bus=s.0"), "virtio-scsi on /x (raw) a"),
        (format!("-device virtio-scsi-pci,iothread=a {scsi}"), "virtio-scsi on /x (raw) a"),
        // The last that was made before it (seen with QEMU 7.2, `info qtree`); JSON is made later.
        (format!("-device virtio-scsi,id=s,iothread=a -device virtio-scsi-pci,id=t,iothread=b {scsi}"), "virtio-scsi on /x (raw) b"),
        (format!(r#"-device virtio-scsi-pci,iothread=a -device {{"driver":"virtio-scsi-pci","iothread":"b"}} {scsi}"#), "virtio-scsi on /x (raw) a"),
        // Buses of controllers without an id have numbers.
        (format!("-device virtio-scsi-pci,iothread=a -device lsi {scsi},bus=scsi.0"), "virtio-scsi on /x (raw) a"),
        (format!("-device virtio-scsi-pci,iothread=a -device lsi {scsi},bus=scsi.1"), "lsi on /x (raw)"),
        (format!("-device lsi,id=scsihw0 {scsi},bus=scsihw0.0,scsi-id=4"), "lsi on /x (raw)"),
        (format!("-device megasas,id=s {scsi},bus=s.0"), "megasas on /x (raw)"),
        (format!("-device usb-bot,id=u {scsi},bus=u.0"), "usb-bot on /x (raw)"),
        (scsi.to_owned(), "scsi on /x (raw)"),
        (format!("-device virtio-scsi-ccw,id=s,iothread=a {scsi},bus=s.0"), "virtio-scsi on /x (raw) a"),
        (format!("-device virtio-scsi-pci-non-transitional,id=s,iothread=a {scsi},bus=s.0"), "virtio-scsi on /x (raw) a"),
        (ide.to_owned(), "ide on /x (raw)"),
        (format!("{ide},bus=ide.1,unit=0"), "ide on /x (raw)"),
        (format!("-M q35 {ide},bus=ide.2"), "ahci on /x (raw)"),
        (format!("-device ich9-ahci,id=a {ide},bus=a.0"), "ahci on /x (raw)"),
        (format!("-device ahci,id=a {ide},bus=ide.1"), "ide on /x (raw)"),
        (format!("-device ahci {ide},bus=ide.3"), "ahci on /x (raw)"),
        (format!("-device ahci {ide}"), "ahci on /x (raw)"),
        (format!("-M q35 -device piix3-ide,id=p {ide},bus=p.0"), "ide on /x (raw)"),
        ("-drive if=none,id=d,file=/x,format=raw -device nvme,id=n,serial=1 -device nvme-ns,drive=d,bus=n".to_owned(), "nvme on /x (raw)"),
        ("-drive if=none,id=d,file=/x,format=raw -device usb-storage,drive=d".to_owned(), "usb-storage on /x (raw)"),
        ("-drive if=none,id=d,file=/x,format=raw -device sd-card,drive=d".to_owned(), "sd-card on /x (raw)"),
        ("-drive if=none,id=d,file=/x,format=raw -device virtio-blk-device,drive=d".to_owned(), "virtio-blk on /x (raw)"),
        ("-drive id=d,file=/x,format=raw -device virtio-blk-pci-transitional,drive=d".to_owned(), "virtio-blk on /x (raw)"),
    ] {
        assert_eq!(read(&line), [expected], "{line}");
    }
    // On different buses, which of them QEMU takes is its tree's secret.
    let apart = format!(
        "qemu -device virtio-scsi-pci,bus=pci.0,iothread=a -device virtio-scsi-pci,bus=pci.1 {scsi}"
    );
    let disk = parse(&apart).disks.remove(0);
    assert_eq!((disk.bus.to_string(), disk.iothreads.len()), ("scsi".to_owned(), 0));
    assert!(disk.iothreads_missing.is_some_and(|reason| reason.contains("2 controllers")));
}

#[test]
fn drives_without_a_medium_have_none() {
    check(&[
        ("-device ide-cd,bus=ide.1,unit=0,id=ide2", &["ide CD without a medium"]),
        ("-drive if=none,id=c,media=cdrom -device scsi-cd,drive=c", &["scsi CD without a medium"]),
        ("-drive file=,if=ide,media=cdrom -snapshot", &["ide CD without a medium"]),
        ("-device floppy,unit=0", &["floppy without a medium"]),
        ("-device nvme,id=n,serial=1 -device usb-bot,id=b -device virtio-scsi-pci", &[]),
    ]);
}

#[test]
fn what_others_serve_is_named() {
    check(&[
        (
            "-chardev socket,id=c,path=/v.sock -device vhost-user-blk-pci,chardev=c,num-queues=2",
            &["vhost-user-blk served by another process, at /v.sock"],
        ),
        (
            "-chardev socket,id=c,path=/v.sock,server=on -device vhost-user-scsi-pci,chardev=c",
            &["vhost-user-scsi served by another process, at /v.sock"],
        ),
        (
            "-chardev socket,id=c,fd=9 -device vhost-user-blk-pci-non-transitional,chardev=c",
            &["vhost-user-blk served by another process, over a socket that was handed to QEMU"],
        ),
        (
            "-device vhost-scsi-pci,wwpn=naa.1,id=v",
            &["vhost-scsi served outside of the VMM, by naa.1"],
        ),
        ("-device vhost-vdpa-device-pci,vhostdev=/dev/vhost-vdpa-0", &[]),
    ]);
    let args = parse(
        "qemu -device vhost-vdpa-device-pci,vhostdev=/dev/vhost-vdpa-0 -readconfig a.cfg -writeconfig b.cfg",
    );
    assert_eq!(
        args.disk_notes,
        [
            "a.cfg (-readconfig) is not read: it may have more of them, and change these",
            "/dev/vhost-vdpa-0 is served outside of QEMU (vDPA): whether it is a disk is not told",
        ]
    );
    let addresses = |line: &str| {
        parse(line).passed_through.into_iter().map(|device| device.address).collect::<Vec<_>>()
    };
    assert_eq!(
        addresses(
            "qemu -device vfio-pci,host=01:00.0 -device vfio-pci,host=0001:02:00.1,id=h -device vfio-pci,sysfsdev=/sys/bus/pci/devices/0000:03:00.0"
        ),
        ["0000:01:00.0", "0001:02:00.1", "0000:03:00.0"]
    );
}

#[test]
fn a_snapshot_is_over_every_drive_and_no_node() {
    check(&[
        (
            "-snapshot -drive file=/d,format=raw,if=virtio,cache=none",
            &["virtio-blk on /d (raw under a snapshot) direct"],
        ),
        (
            "-drive file=/d,if=virtio -snapshot",
            &["virtio-blk on /d (unknown format under a snapshot)"],
        ),
        ("-snapshot -drive file=/d,format=raw,if=virtio,snapshot=off", &["virtio-blk on /d (raw)"]),
        (
            "-snapshot -blockdev driver=file,filename=/d,node-name=d -device nvme,serial=1,drive=d",
            &["nvme on /d (raw)"],
        ),
    ]);
}

#[test]
fn set_and_global_change_what_devices_say() {
    let of = |line: &str| {
        let args = parse(&format!("qemu -drive if=none,id=d,file=/d,format=raw {line}"));
        let disk = args.disks.into_iter().next().expect("one");
        (disk.ioeventfd, disk.queues, disk.iothreads.join(","))
    };
    let device = "-device virtio-blk-pci,drive=d,id=v";
    for (line, expected) in [
        (format!("{device} -set device.v.ioeventfd=off"), (Some(false), None, "")),
        (
            format!("{device} -set device.other.ioeventfd=off -set drive.v.ioeventfd=off"),
            (None, None, ""),
        ),
        (format!("{device} -global virtio-blk-device.num-queues=3"), (None, Some(3), "")),
        (format!("{device},num-queues=2 -global virtio-blk-pci.num-queues=3"), (None, Some(2), "")),
        (
            format!("{device} -global driver=virtio-blk-pci,property=ioeventfd,value=off"),
            (Some(false), None, ""),
        ),
        (
            format!(
                "{device} -global virtio-blk-pci.ioeventfd=off -global virtio-pci.ioeventfd=on"
            ),
            (Some(true), None, ""),
        ),
        (
            format!(
                "{device} -global virtio-scsi-pci.ioeventfd=off -global virtio-net-pci.ioeventfd=off"
            ),
            (None, None, ""),
        ),
        (
            "-global virtio-blk-pci.iothread=i -drive if=virtio,file=/d".to_owned(),
            (None, None, "i"),
        ),
        (
            "-device virtio-scsi-pci,num_queues=4,iothread=i -device scsi-hd,drive=d".to_owned(),
            (None, Some(4), "i"),
        ),
    ] {
        let (ioeventfd, queues, iothreads) = expected;
        assert_eq!(of(&line), (ioeventfd, queues, iothreads.to_owned()), "{line}");
    }
}

#[test]
fn aliases_of_words_count() {
    check(&[
        ("-drive file=/d,if=virtio,format=raw,cache=off", &["virtio-blk on /d (raw) direct"]),
        (
            "-drive file=/d,if=virtio,format=raw,cache=none,aio=io_uring",
            &["virtio-blk on /d (raw) direct io_uring"],
        ),
        (
            "--drive file=/d,if=virtio,format=raw,cache.direct=yes",
            &["virtio-blk on /d (raw) direct"],
        ),
        ("-drive file=/a,,b,if=virtio,format=raw", &["virtio-blk on /a,b (raw)"]),
    ]);
    assert_eq!(parse("kvm a.img").disks.len(), 1);
}

#[test]
fn a_disk_has_the_serial_number_and_the_address_that_are_told() {
    let told = |device: &str| {
        let node = "-blockdev driver=file,filename=/x,node-name=d";
        let mut disks = parse(&format!("qemu-system-x86_64 {node} -device {device}")).disks;
        let disk = disks.remove(0);
        [disk.serial, disk.pci_address].map(|text| text.unwrap_or_default())
    };
    for (device, serial, address) in [
        ("virtio-blk-pci,drive=d,serial=A1,addr=0x5", "A1", "0000:00:05.0"),
        ("virtio-blk-pci,drive=d,bus=pci.0,addr=1f.7,serial=", "", "0000:00:1f.7"),
        ("virtio-blk-pci-non-transitional,drive=d,bus=pcie.0,addr=10", "", "0000:00:10.0"),
        (
            r#"{"driver":"virtio-blk-pci","drive":"d","bus":"pcie.0","addr":"0x3.0x1"}"#,
            "",
            "0000:00:03.1",
        ),
        ("nvme,drive=d,serial=n,addr=2", "n", "0000:00:02.0"),
        // Slot and function in one number, behind a bridge, no such slot, a controller's, no PCI.
        (r#"{"driver":"virtio-blk-pci","drive":"d","addr":40}"#, "", ""),
        ("virtio-blk-pci,drive=d,bus=pci.4,addr=0x0", "", ""),
        ("virtio-blk-pci,drive=d,addr=20", "", ""),
        ("scsi-hd,drive=d,serial=s,addr=3", "s", ""),
        ("virtio-blk-ccw,drive=d,addr=3", "", ""),
        ("virtio-blk-pci,drive=d", "", ""),
    ] {
        assert_eq!(told(device), [serial, address], "{device}");
    }
}
