use super::*;

fn parse(vmm: Vmm, line: &str) -> VmmArgs {
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    VmmArgs::parse(vmm, &words, |path| (path == Path::new("/c.json")).then(|| CONFIG.to_owned()))
}

const CONFIG: &str = r#"{
    "boot-source": {"kernel_image_path": "k"},
    "drives": [
        {"drive_id": "rootfs", "path_on_host": "/r.ext4", "is_root_device": true, "is_read_only": false,
         "cache_type": "Writeback", "io_engine": "Async", "rate_limiter": null},
        {"drive_id": "data", "path_on_host": "/d.raw", "is_root_device": false, "cache_type": "Unsafe",
         "io_engine": "Sync"},
        {"drive_id": "v", "socket": "/v.sock", "is_root_device": false}
    ]
}"#;

/// Of each disk: where its data are, whether they are read past the page cache, and by which aio.
fn told(args: &VmmArgs) -> Vec<(String, Option<bool>, Option<Aio>)> {
    let disks = args.disks.iter().flatten();
    disks.map(|disk| (disk.storage.to_string(), disk.is_direct, disk.aio)).collect()
}

fn of(
    storage: &str,
    is_direct: Option<bool>,
    aio: Option<Aio>,
) -> (String, Option<bool>, Option<Aio>) {
    (storage.to_owned(), is_direct, aio)
}

#[test]
fn disks_of_a_cloud_hypervisor() {
    let args = parse(
        Vmm::CloudHypervisor,
        "cloud-hypervisor --api-socket path=/run/a.sock --kernel k --disk path=d.raw,direct=on,num_queues=4 \
         path=e.raw,direct=off,id=e,queue_affinity=[0@[1,2]],image_type=qcow2 \
         vhost_user=true,socket=/v.sock --cpus boot=1 --disk=path=\"a,b\" --fs tag=t,socket=/f.sock \
         --net tap=t --net vhost_user=on,socket=/n.sock --vsock cid=3,socket=/vsock",
    );
    assert_eq!(
        told(&args),
        [
            of("on d.raw", Some(true), None),
            of("on e.raw", Some(false), None),
            of("served by another process, at /v.sock", None, None),
            of("on a,b", None, None),
        ]
    );
    let disks = args.disks.unwrap_or_default();
    assert_eq!((disks[0].queues, disks[0].format.as_deref()), (Some(4), None));
    assert_eq!((disks[1].id.as_deref(), disks[1].format.as_deref()), (Some("e"), Some("qcow2")));
    assert_eq!(
        args.backends,
        [
            (PathBuf::from("/v.sock"), HelperRole::Disk),
            (PathBuf::from("/n.sock"), HelperRole::Network),
            (PathBuf::from("/f.sock"), HelperRole::FileSystem),
        ]
    );
    assert_eq!(args.api_socket, Some(PathBuf::from("/run/a.sock")));
    let by_api = parse(Vmm::CloudHypervisor, "cloud-hypervisor --api-socket /run/a.sock");
    assert_eq!((by_api.disks, by_api.api_socket), (None, Some(PathBuf::from("/run/a.sock"))));
}

#[test]
fn disks_of_a_firecracker() {
    let args = parse(Vmm::Firecracker, "firecracker --id vm7 --no-api --config-file /c.json");
    assert_eq!(
        told(&args),
        [
            of("on /r.ext4", None, Some(Aio::IoUring)),
            of("on /d.raw", None, None),
            of("served by another process, at /v.sock", None, None),
        ]
    );
    let flushes: Vec<Option<bool>> =
        args.disks.iter().flatten().map(|disk| disk.ignores_flushes).collect();
    assert_eq!(flushes, [Some(false), Some(true), None]);
    assert_eq!((args.name.as_deref(), &args.api_socket), (Some("vm7"), &None));
    assert_eq!(args.backends, [(PathBuf::from("/v.sock"), HelperRole::Disk)]);
    let by_api = parse(Vmm::Firecracker, "firecracker --api-sock /run/fc.sock");
    assert_eq!((by_api.disks, by_api.api_socket), (None, Some(PathBuf::from("/run/fc.sock"))));
    assert_eq!(by_api.disk_notes, ["Firecracker was told of them over its API"]);
    let unseen = parse(Vmm::Firecracker, "firecracker --config-file /gone");
    assert_eq!((unseen.disks, unseen.disk_notes), (None, vec!["/gone cannot be read".to_owned()]));
}

#[test]
fn a_disk_that_is_told_to_be_read_by_its_own_thread_has_no_unknown_aio() {
    let told =
        parse(Vmm::Firecracker, "firecracker --config-file /c.json").disks.unwrap_or_default();
    let reasons: Vec<_> = told.iter().map(Disk::aio_missing).collect();
    let synchronous = "none: read(2) in the thread that serves it".to_owned();
    assert_eq!((&reasons[0], &reasons[1]), (&None, &Some(synchronous)), "Async, Sync");
}

#[test]
fn disks_of_a_crosvm() {
    let args = parse(
        Vmm::Crosvm,
        "crosvm run --disable-sandbox --name a --block path=/a.img,direct=true,async-executor=uring -b /b.img,ro \
         --rwdisk /c.img,o_direct=false --root=/d.img --scsi-block path=/e.img \
         --vhost-user block,socket=/v.sock --vhost-user type=net,socket=/n.sock kernel",
    );
    assert_eq!(
        told(&args),
        [
            of("on /a.img", Some(true), Some(Aio::IoUring)),
            of("on /b.img", None, None),
            of("on /c.img", Some(false), None),
            of("on /d.img", None, None),
            of("on /e.img", None, None),
            of("served by another process, at /v.sock", None, None),
        ]
    );
    let disks = args.disks.unwrap_or_default();
    assert_eq!(disks[4].bus, Bus::Known(DiskBus::VirtioScsi));
    assert_eq!(disks[0].iothreads_missing, None);
    assert_eq!(args.name.as_deref(), Some("a"));
    let jailed = parse(Vmm::Crosvm, "crosvm run --block /a.img k").disks.unwrap_or_default();
    let reason = "crosvm has a process of its own for it";
    assert_eq!(jailed[0].iothreads_missing.as_deref(), Some(reason));
}

#[test]
fn disks_of_a_kvmtool() {
    // As it was started, and as it looks once it runs.
    for line in [
        "lkvm run --name a -k k -d /d.raw,ro,direct --disk /e.raw --disk=/f.raw,direct -d scsi:naa.5:x",
        "lkvm run --name a -k k -d /d.raw ro direct --disk /e.raw --disk=/f.raw direct -d scsi:naa.5 x",
    ] {
        let args = parse(Vmm::Kvmtool, line);
        assert_eq!(
            told(&args),
            [
                of("on /d.raw", Some(true), None),
                of("on /e.raw", None, None),
                of("on /f.raw", Some(true), None),
                of("served outside of the VMM, by naa.5", None, None),
            ]
        );
        assert_eq!(args.name.as_deref(), Some("a"));
    }
}

#[test]
fn what_is_unknown_is_not_told_by_qemus_defaults() {
    let disks =
        parse(Vmm::CloudHypervisor, "ch --kernel k --disk path=a").disks.unwrap_or_default();
    let reasons = [disks[0].direct_missing(), disks[0].aio_missing(), disks[0].format_missing()];
    for reason in reasons {
        let reason = reason.expect("nothing is told");
        assert!(reason.contains("told") && !reason.contains("QEMU"), "{reason}");
    }
}

#[test]
fn threads_of_disks_are_told_by_their_ids() {
    let line = "ch --kernel k --disk path=a path=b,id=a-long-id-of-a-disk path=c,id=root path=d";
    let served = |names: &[&str]| {
        let mut disks = parse(Vmm::CloudHypervisor, line).disks.unwrap_or_default();
        note_threads(Vmm::CloudHypervisor, &mut disks, names);
        disks.iter().map(|disk| disk.iothreads.join(",")).collect::<Vec<_>>()
    };
    let names =
        ["_disk4_q0", "_disk10_q0", "_disk10_q1", "root_q0", "a-long-id-of-a-", "_net2_ctrl"];
    assert_eq!(
        served(&names),
        ["_disk4_q0", "a-long-id-of-a-", "root_q0", "_disk10_q0,_disk10_q1"]
    );
    // One was plugged in meanwhile, so that the order tells nothing.
    let more = [&names[..], &["_disk7_q0"]].concat();
    assert_eq!(served(&more), ["", "a-long-id-of-a-", "root_q0", ""]);
    let mut disks = parse(Vmm::Kvmtool, "lkvm run -d a -d b").disks.unwrap_or_default();
    note_threads(Vmm::Kvmtool, &mut disks, &["virtio-blk-io", "virtio-blk-io"]);
    assert!(disks.iter().all(|disk| disk.iothreads == ["virtio-blk-io"]));
}
