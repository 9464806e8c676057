mod disks;

use super::*;
use crate::disk::{Aio, Bus, Cache, DirectSource, DiskBus, Storage};
use proptest::prelude::*;

/// A command line as one text, words split at blanks.
fn parse(line: &str) -> QemuArgs {
    QemuArgs::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
}

fn bus(name: &str) -> Bus {
    let known =
        [DiskBus::VirtioBlk, DiskBus::VirtioScsi, DiskBus::Ide, DiskBus::Ahci, DiskBus::Nvme];
    let known = known.into_iter().find(|bus| bus.name() == name);
    known.map_or_else(|| Bus::Other(name.to_owned()), Bus::Known)
}

/// A raw disk; an `aio` that is empty was not told.
fn disk(bus_name: &str, path: &str, is_direct: bool, aio: &str) -> Disk {
    Disk {
        storage: Storage::file(path),
        format: Some("raw".to_owned()),
        is_direct: Some(is_direct),
        is_direct_from: Some(DirectSource::CommandLine),
        aio: Aio::of_name(aio),
        ..Disk::new(bus(bus_name))
    }
}

/// As libvirt 9.0 starts QEMU 7.2 (Debian 12), shortened.
#[test]
fn libvirts_form() {
    let args = parse(
        r#"/usr/bin/qemu-system-x86_64 -name guest=web1,debug-threads=on -S
        -object {"qom-type":"secret","id":"masterKey0"} -machine pc-q35-7.2,usb=off -accel kvm
        -object {"qom-type":"iothread","id":"iothread1"}
        -chardev socket,id=charmonitor,fd=27,server=on,wait=off
        -mon chardev=charmonitor,id=monitor,mode=control
        -blockdev {"driver":"host_device","filename":"/dev/vg/web1","aio":"native","node-name":"libvirt-1-storage","cache":{"direct":true,"no-flush":false}}
        -blockdev {"node-name":"libvirt-1-format","driver":"raw","file":"libvirt-1-storage","cache":{"direct":true}}
        -device {"driver":"virtio-blk-pci","iothread":"iothread1","bus":"pci.3","drive":"libvirt-1-format","id":"virtio-disk0"}
        -chardev socket,id=charchannel0,fd=23,server=on,wait=off
        -device {"driver":"virtserialport","bus":"virtio-serial0.0","nr":1,"chardev":"charchannel0","id":"channel0","name":"org.qemu.guest_agent.0"}"#,
    );
    assert_eq!(args.name.as_deref(), Some("web1"));
    assert!(args.has_agent_port);
    // The sockets are libvirt's, and have no path here.
    assert_eq!((args.qmp_sockets.len(), args.agent_socket), (0, None));
    let expected = Disk {
        id: Some("virtio-disk0".to_owned()),
        iothreads: vec!["iothread1".to_owned()],
        ignores_flushes: Some(false),
        ..disk("virtio-blk", "/dev/vg/web1", true, "native")
    };
    assert_eq!(args.disks, [expected]);
}

/// As libvirt starts QEMU 2.2 in docs/seed-experiment.md, with `-drive` and key=value devices.
#[test]
fn the_old_form() {
    let args = parse(
        "qemu-system-x86_64 -enable-kvm -name kvm1 -M pc-i440fx-2.2,accel=tcg
        -drive file=/a,,b.img,if=none,id=drive-virtio-disk0,format=raw,cache=none,aio=native
        -device virtio-blk-pci,scsi=off,drive=drive-virtio-disk0,id=virtio-disk0,ioeventfd=off
        -drive file=/c.img,media=cdrom -drive if=virtio,file=/d.img,cache=directsync
        -drive if=pflash,file=/ovmf -qmp unix:/run/qmp.sock,server=on,wait=off
        -chardev socket,path=/run/ga.sock,server=on,wait=off,id=ga
        -device virtserialport,chardev=ga,name=org.qemu.guest_agent.0",
    );
    assert_eq!(args.name.as_deref(), Some("kvm1"));
    assert_eq!(args.qmp_sockets, [PathBuf::from("/run/qmp.sock")]);
    assert_eq!(args.agent_socket, Some(PathBuf::from("/run/ga.sock")));
    let first = Disk {
        id: Some("virtio-disk0".to_owned()),
        ioeventfd: Some(false),
        ..disk("virtio-blk", "/a,b.img", true, "native").cached(Cache::None)
    };
    let untold = |disk: Disk| Disk { format: None, ..disk };
    let uncached = |disk: Disk| Disk { is_direct: None, is_direct_from: None, ..disk };
    let rest = [
        Disk { is_cdrom: true, ..untold(uncached(disk("ide", "/c.img", false, ""))) },
        untold(disk("virtio-blk", "/d.img", true, "").cached(Cache::Directsync)),
    ];
    assert_eq!(args.disks, [&[first][..], &rest[..]].concat());
}

/// `-blockdev` with dotted keys, a filter between, several iothreads, and controllers.
#[test]
fn disks_are_followed_to_their_files_and_servers() {
    let args = parse(
        r#"qemu-system-x86_64 -machine q35 -name a=1,guest=z
        -blockdev driver=file,filename=/x,node-name=f,cache.direct=on,aio=io_uring
        -blockdev driver=throttle,file=f,node-name=t -blockdev driver=qcow2,file=t,node-name=q
        -device {"driver":"virtio-blk-pci","drive":"q","iothread-vq-mapping":[{"iothread":"a"},{"iothread":"b"}]}
        -blockdev driver=raw,node-name=r,file.driver=file,file.filename=/y,file.cache.direct=on
        -device virtio-scsi-pci,id=scsi0,iothread=c -device scsi-hd,drive=r,bus=scsi0.0
        -device scsi-hd,drive=r -device ide-hd,drive=r,bus=ide.1 -device nvme,drive=r,serial=1"#,
    );
    let served = |disk: Disk, iothreads: &[&str]| Disk {
        iothreads: iothreads.iter().map(|id| (*id).to_owned()).collect(),
        ..disk
    };
    assert_eq!(
        args.disks,
        [
            Disk {
                format: Some("qcow2".to_owned()),
                ..served(disk("virtio-blk", "/x", true, "io_uring"), &["a", "b"])
            },
            served(disk("virtio-scsi", "/y", true, ""), &["c"]),
            served(disk("virtio-scsi", "/y", true, ""), &["c"]),
            disk("ahci", "/y", true, ""),
            Disk { serial: Some("1".to_owned()), ..disk("nvme", "/y", true, "") },
        ]
    );
    assert_eq!(args.name.as_deref(), Some("z"));
}

/// libvirt hands QEMU a socket that listens already.
#[test]
fn the_ways_to_a_collector_are_found() {
    let args = parse(
        r#"qemu -chardev socket,id=c0,path=/a.sock,server=on -chardev socket,id=c1,fd=31,server=on
        -device virtserialport,chardev=c0,name=org.qemu.guest_agent.0
        -device {"driver":"virtserialport","chardev":"c1","name":"vslice.agent"}
        -device {"driver":"vhost-vsock-pci","guest-cid":7,"vhostfd":"33"}"#,
    );
    assert_eq!((args.load_socket, args.vsock_cid), (Some(SocketPlace::Fd(31)), Some(7)));
    assert_eq!(args.agent_socket, Some("/a.sock".into()));
    let args = parse(
        "qemu -chardev socket,id=c,path=/b.sock,server -device virtserialport,chardev=c,name=vslice.agent
        -chardev socket,id=g,fd=9,server=on -device virtserialport,chardev=g,name=org.qemu.guest_agent.0",
    );
    assert_eq!(args.load_socket, Some(SocketPlace::Path("/b.sock".into())));
    // libvirt is its only client.
    assert_eq!((args.agent_socket, args.has_agent_port, args.vsock_cid), (None, true, None));
    // Where QEMU is the client, the path leads to whoever listens there.
    let args = parse(
        "qemu -chardev socket,id=c,path=/b -device virtserialport,chardev=c,name=vslice.agent
        -chardev socket,id=g,path=/g,reconnect=1 -device virtserialport,chardev=g,name=org.qemu.guest_agent.0",
    );
    assert_eq!((args.load_socket, args.agent_socket, args.has_agent_port), (None, None, true));
}

/// libvirt has begun to leave out the node of a raw image's format; a raw node may show a part only.
#[test]
fn what_is_below_no_format_is_raw() {
    let formats =
        |line: &str| parse(line).disks.into_iter().map(|disk| disk.format).collect::<Vec<_>>();
    let lines = "qemu -device virtio-blk-pci,drive=a -blockdev driver=file,filename=/x,node-name=a
        -device virtio-blk-pci,drive=b -blockdev
        driver=raw,offset=512,node-name=b,file.driver=file,file.filename=/y
        -device virtio-blk-pci,drive=c -drive if=none,id=c,file=/z,driver=qcow2
        -device virtio-blk-pci,drive=d -drive if=none,id=d,file=/z,format=raw,snapshot=on";
    let expected = ["raw", "raw with an offset", "qcow2", "raw under a snapshot"]
        .map(|format| Some(format.to_owned()));
    assert_eq!(formats(lines), expected);
}

/// Each disk's rule of where `cache.direct` counts.
#[test]
fn the_page_cache_is_passed_where_qemu_says_so() {
    let drive = |drive: &str| parse(&format!("qemu -drive if=virtio,{drive}")).disks.remove(0);
    let direct = |line: &str| {
        let mut disks = parse(&format!("qemu -device virtio-blk-pci,drive=d {line}")).disks;
        let disk = disks.remove(0);
        assert_eq!(disk.path(), Some(std::path::Path::new("/x")), "{line}");
        assert_eq!(disk.is_direct.is_some(), disk.is_direct_from.is_some());
        disk.is_direct
    };
    // A drive's word is for all that is made of it, unless a part has its own.
    for (cache, expected) in [
        ("cache=none", Some(true)),
        ("cache=off", Some(true)),
        ("cache=writeback", Some(false)),
        ("cache=none,cache.direct=off", Some(false)),
        ("cache.direct=on", Some(true)),
        ("cache=none,file.cache.direct=off,file.filename=/x,file.driver=file", Some(false)),
        ("cache=none,file.filename=/x,file.driver=file", Some(true)),
        ("cache=none,file.locking=off", Some(true)),
        ("", None),
    ] {
        assert_eq!(drive(&format!("file=/x,{cache}")).is_direct, expected, "{cache}");
    }
    // A node's is its own, and that of what is defined in it; not of what it refers to.
    let file = "driver=file,filename=/x,node-name=f";
    for (nodes, expected) in [
        (format!("-blockdev {file} -blockdev driver=raw,node-name=d,file=f,cache.direct=on"), None),
        (
            format!(
                "-blockdev {file},cache.direct=on -blockdev driver=qcow2,node-name=d,file=f,cache.direct=off"
            ),
            Some(true),
        ),
        (
            format!("-blockdev {file},cache.direct=off -blockdev driver=raw,node-name=d,file=f"),
            Some(false),
        ),
        (
            "-blockdev driver=raw,node-name=d,cache.direct=on,file.driver=file,file.filename=/x"
                .to_owned(),
            Some(true),
        ),
        (
            "-blockdev driver=raw,node-name=d,cache.direct=on,file.driver=file,file.filename=/x,\
             file.cache.direct=off"
                .to_owned(),
            Some(false),
        ),
    ] {
        assert_eq!(direct(&nodes), expected, "{nodes}");
    }
}

/// Children that are defined in their parents, as Proxmox VE 9 writes its disks.
#[test]
fn nodes_within_nodes_are_followed() {
    let args = parse(
        r#"qemu -blockdev {"driver":"throttle","throttle-group":"tg","node-name":"d","file":{"driver":"qcow2","node-name":"f","file":{"driver":"file","filename":"/d.qcow2","aio":"io_uring","cache":{"direct":true},"node-name":"e"}}}
        -device virtio-blk-pci,drive=d,id=v0"#,
    );
    let expected = Disk {
        id: Some("v0".to_owned()),
        format: Some("qcow2".to_owned()),
        ..disk("virtio-blk", "/d.qcow2", true, "io_uring")
    };
    assert_eq!(args.disks, [expected]);
}

#[test]
fn a_graph_of_nodes_that_bites_its_tail_ends() {
    let args = parse(
        "qemu -blockdev driver=raw,node-name=a,file=b -blockdev driver=raw,node-name=b,file=a
        -device ide-hd,drive=a",
    );
    assert_eq!((args.disks.len(), args.disks[0].path()), (1, None));
}

/// Whoever starts a process writes its command line: one that is made to be long takes no longer than another.
#[test]
fn a_command_line_that_was_made_to_be_long_is_read_in_part() {
    let many = |count: usize, word: &dyn Fn(usize) -> String| {
        (0..count).map(word).collect::<Vec<_>>().join(",")
    };
    let children = many(200_000, &|child| format!("a{child}.node-name={child}"));
    let deep = format!("{}node-name=x", "a.".repeat(100_000));
    let long = format!(
        r#"{{"{}":{{{}}}}}"#,
        "k".repeat(100_000),
        many(20_000, &|key| format!("\"{key}\":1"))
    );
    for node in [children, deep, long] {
        let properties = Properties::parse(&node, "driver");
        assert!(properties.all(|key| key.len() > 512).next().is_none());
        assert!(properties.all(|_| true).count() <= 4096);
        let words = ["qemu", "-blockdev", &node, "-device", "ide-hd,drive=3"].map(str::to_owned);
        assert_eq!(QemuArgs::parse(&words).disks.len(), 1);
    }
    let short = parse("qemu -hda /x");
    assert_eq!(short.disk_notes, [""; 0]);
    let words: Vec<String> = (0..WORDS_MAX).map(|_| "-S".to_owned()).collect();
    let notes = QemuArgs::parse(&words).disk_notes;
    assert_eq!(notes, ["its command line is read up to its word 8192: it may have more of them"]);
}

const PIECES: [&str; 40] = [
    "if=virtio",
    "if=ide",
    "if=none",
    "id=a",
    "node-name=a",
    "node-name=b",
    "drive=a",
    "drive=b",
    "media=cdrom",
    "cache=none",
    "cache=off",
    "cache.direct=on",
    "file.cache.direct=off",
    "aio=native",
    "aio=io_uring",
    "file.aio=threads",
    "format=raw",
    "format=qcow2",
    "driver=qcow2",
    "driver=file",
    "driver=rbd",
    "driver=throttle",
    "driver=quorum",
    "file.driver=file",
    "file.driver=nvme",
    "filename=/x",
    "file.filename=/x",
    "file=/x",
    "file=",
    "file=a",
    "file=b",
    "file=nbd:unix:/x:exportname=e",
    "file=blkdebug::blkdebug::/x",
    "file=rbd:p/i",
    "file=json:{\"driver\":\"raw\",,\"file\":\"b\"}",
    "driver=virtio-blk-pci",
    "driver=scsi-block",
    "driver=ide-cd",
    "snapshot=on",
    "snapshot",
];

proptest! {
    #[test]
    fn any_command_line_is_parsed(words in prop::collection::vec("[-a-z=,.{}\":0-9]{0,20}", 0..20)) {
        let _ = QemuArgs::parse(&words);
    }

    /// Pieces of what people write, in any order: each disk ends, and what is not known of it has its reason.
    #[test]
    fn any_disk_ends_with_what_is_known_or_a_reason(
        values in prop::collection::vec(
            (
                prop::sample::select(vec!["-drive", "-blockdev", "-device"]),
                prop::sample::subsequence(PIECES.to_vec(), 0..12).prop_shuffle(),
            ),
            0..5,
        ),
    ) {
        let line = values.iter().flat_map(|(option, pieces)| [(*option).to_owned(), pieces.join(",")]);
        let words: Vec<String> = std::iter::once("qemu-system-x86_64".to_owned()).chain(line).collect();
        for disk in QemuArgs::parse(&words).disks {
            prop_assert_eq!(disk.aio.is_some(), disk.aio_missing().is_none());
            prop_assert_eq!(disk.is_direct.is_some(), disk.direct_missing().is_none());
            let is_file = disk.path().is_some() && !disk.passes_commands;
            prop_assert!(is_file || (disk.aio, disk.is_direct) == (None, None), "{:?}", disk);
        }
    }
}

#[test]
fn accelerators_are_those_that_are_asked_for_or_the_defaults() {
    for (line, accelerators) in [
        ("qemu-system-x86_64 -machine q35", &["tcg", "kvm"][..]),
        ("/usr/bin/kvm -m 512", &[]),
        ("kvm -M xenfv", &["xen"]),
        ("qemu-kvm -accel tcg", &["tcg"]),
        ("qemu-system-x86_64 -readconfig /a.cfg", &[]),
        ("qemu-system-x86_64 -M xenfv", &["xen"]),
        ("qemu-system-x86_64 -M q35,accel=kvm:tcg", &["kvm", "tcg"]),
        ("qemu-system-x86_64 -accel tcg,thread=multi", &["tcg"]),
        ("qemu-system-x86_64 -accel mshv -accel tcg", &["mshv", "tcg"]),
        ("qemu-system-x86_64 -enable-kvm -M pc", &["kvm"]),
    ] {
        assert_eq!(parse(line).accelerators, accelerators, "{line}");
    }
}
