//! The table of QEMU's disks and monitors: command lines as users write them, with invented names.

use super::Case;

/// All cases.
pub(crate) const DISKS: &[Case] = &[
    Case {
        name: "nodes_nested_in_nodes_are_followed_to_the_file",
        line: r#"qemu-system-x86_64 -name a -accel kvm
                 -object '{"id":"tg","limits":{},"qom-type":"throttle-group"}'
                 -blockdev '{"driver":"throttle","throttle-group":"tg","node-name":"d","file":{"driver":"qcow2","node-name":"f","file":{"driver":"file","filename":"/d.qcow2","aio":"io_uring","cache":{"direct":true},"node-name":"e"}}}'
                 -device virtio-blk-pci,drive=d,id=v0"#,
        vm: Some(
            r#"{"disks": [{"bus": "virtio-blk", "id": "v0", "path": "/d.qcow2", "format": "qcow2",
                "is_direct": true, "aio": "io_uring"}]}"#,
        ),
        ..Case::OF_KVM
    },
    Case {
        name: "a_socket_that_qemu_is_the_client_of_takes_no_qmp",
        line: "qemu-system-x86_64 -name a -accel kvm -chardev socket,id=qmp,path=/run/a.qmp,server=on,wait=off \
               -mon chardev=qmp,mode=control -chardev socket,id=ev,path=/run/eventd.sock,reconnect=5 \
               -mon chardev=ev,mode=control",
        vm: Some(r#"{"qmp_sockets": ["/run/a.qmp"], "disks": []}"#),
        ..Case::OF_KVM
    },
    Case {
        name: "a_cd_drive_without_a_medium",
        line: "qemu-system-x86_64 -name a -accel kvm -drive if=none,id=cd,media=cdrom \
               -device ide-cd,bus=ide.1,drive=cd,id=ide2",
        vm: Some(
            r#"{"disks": [{"bus": "ide", "id": "ide2", "is_cdrom": true, "storage": {"kind": "empty"},
                "path": null}]}"#,
        ),
        ..Case::OF_KVM
    },
    Case {
        name: "cache_off_is_an_old_word_for_none",
        line: "qemu-system-x86_64 -name a -accel kvm -drive file=/d,if=virtio,format=raw,cache=off",
        vm: Some(
            r#"{"disks": [{"path": "/d", "is_direct": true, "aio": null,
                "aio_missing": "not told; QEMU's default is threads"}]}"#,
        ),
        ..Case::OF_KVM
    },
    Case {
        name: "a_vhost_user_disk_is_served_by_another_process",
        line: "qemu-system-x86_64 -name a -accel kvm -chardev socket,id=c,path=/v.sock \
               -device vhost-user-blk-pci,chardev=c,num-queues=2",
        vm: Some(
            r#"{"disks": [{"bus": "vhost-user-blk", "storage": {"kind": "vhost_user", "socket": "/v.sock"},
                "aio": null, "aio_missing": "another process serves it"}]}"#,
        ),
        ..Case::OF_KVM
    },
    Case {
        name: "disks_that_are_no_files_of_the_host",
        line: r#"qemu-system-x86_64 -name a -accel kvm
                 -blockdev '{"driver":"nvme","device":"0000:01:00.0","namespace":1,"node-name":"n"}'
                 -device virtio-blk-pci,drive=n
                 -blockdev '{"driver":"rbd","pool":"p","image":"i","node-name":"r"}' -device virtio-blk-pci,drive=r"#,
        vm: Some(
            r#"{"disks": [
                {"format": "raw", "is_direct": null, "aio": null, "aio_missing": "QEMU's driver nvme uses no file of the host",
                 "storage": {"kind": "protocol", "driver": "nvme", "place": "0000:01:00.0 namespace 1"}},
                {"format": "raw", "is_direct": null, "aio": null,
                 "is_direct_missing": "QEMU's driver rbd uses no file of the host",
                 "storage": {"kind": "protocol", "driver": "rbd", "place": "p/i"}}]}"#,
        ),
        ..Case::OF_KVM
    },
    Case {
        name: "the_short_forms_of_drives_are_disks",
        line: "qemu-system-x86_64 -enable-kvm -hda /a.qcow2 -drive file=/seed.img,format=raw -m 512",
        vm: Some(
            r#"{"disks": [{"bus": "ide", "path": "/a.qcow2", "format": null,
                 "format_missing": "not told; QEMU finds it out by the content"},
                {"bus": "ide", "path": "/seed.img", "format": "raw"}]}"#,
        ),
        ..Case::OF_KVM
    },
    Case {
        name: "the_path_of_a_qmp_socket_may_be_a_key",
        line: "qemu-system-x86_64 -name a -accel kvm -qmp unix:path=/run/q.sock,server=on,wait=off",
        vm: Some(r#"{"qmp_sockets": ["/run/q.sock"]}"#),
        ..Case::OF_KVM
    },
    Case {
        name: "a_snapshot_is_over_each_drive",
        line: "qemu-system-x86_64 -name a -accel kvm -snapshot -drive file=/d,format=raw,if=virtio,cache=none",
        vm: Some(
            r#"{"disks": [{"path": "/d", "format": "raw under a snapshot", "is_direct": true}]}"#,
        ),
        ..Case::OF_KVM
    },
];
