//! What runs may differ in, and what not.

use super::super::example::condition;
use super::*;
use crate::analyse::drawn;
use serde_json::json;
use vslice_trace::host::HostFacts;
use vslice_trace::vmm::Accelerator;

fn manifest(iothread: bool, qemu: &str) -> Manifest {
    let mut manifest = drawn::manifest();
    manifest.environment = host(json!({
        "qemu_version": format!("QEMU emulator version {qemu}"),
        "kernel_release": "6.1.0",
        "disks": [{ "device": "vda", "scheduler": "none", "schedulers": ["none", "bfq"] }],
        "governor": null,
    }));
    manifest.plan = json!({
        "name": "seed",
        "description": format!("with {qemu}"),
        "vm": [
            { "name": "vm1", "hogs": [0, 1], "disk": { "bus": "virtio-blk", "iothread": iothread } },
            { "name": "vm2", "hogs": [0, 1], "disk": null },
        ],
    });
    manifest
}

fn host(json: serde_json::Value) -> Option<HostFacts> {
    Some(serde_json::from_value(json).expect("facts of a host"))
}

/// The host as another field of its JSON would have it.
fn with_host(manifest: &mut Manifest, change: impl FnOnce(&mut serde_json::Value)) {
    let mut json = serde_json::to_value(&manifest.environment).expect("plain");
    change(&mut json);
    manifest.environment = host(json);
}

fn told(a: &[&Manifest], b: &[&Manifest]) -> Vec<String> {
    let of = |side: &[&Manifest]| side.iter().map(|run| conditions(run)).collect::<Vec<_>>();
    differences(&of(a), &of(b))
}

#[test]
fn sides_may_differ_in_their_iothread_and_runs_of_a_side_in_nothing() {
    let (a, b) = (manifest(false, "7.2"), manifest(true, "7.2"));
    assert_eq!(told(&[&a, &a], &[&b]), [""; 0]);
    assert_eq!(
        told(&[&a, &b], &[&b]),
        ["the runs of A differ: plan vm[vm1].disk.iothread false and true"]
    );
}

#[test]
fn every_other_difference_is_named() {
    let a = manifest(false, "7.2");
    assert_eq!(told(&[&a], &[&manifest(true, "8.0")]), ["not comparable: QEMU 7.2 against 8.0"]);
    let change = |change: &dyn Fn(&mut Manifest)| {
        let mut b = manifest(true, "7.2");
        change(&mut b);
        told(&[&a], &[&b])
    };
    assert_eq!(
        change(&|b| with_host(b, |host| host["disks"][0]["scheduler"] = json!("bfq"))),
        ["not comparable: host I/O scheduler none against bfq"]
    );
    assert_eq!(
        change(&|b| b.plan["vm"][0]["hogs"] = json!([0])),
        ["not comparable: plan vm[vm1].hogs [0,1] against [0]"]
    );
    assert_eq!(
        change(&|b| b.vms.iter_mut().for_each(|vm| vm.accelerator = Some(Accelerator::Tcg))),
        ["not comparable: accelerator kvm against tcg"]
    );
    assert_eq!(
        change(&|b| b.evidence.level = vslice_trace::evidence::EvidenceLevel::Sampled),
        ["not comparable: evidence recorded against sampled"]
    );
    assert_eq!(
        change(&|b| b.vms[0].guest.as_mut().unwrap().kernel_release = "6.2".to_owned()),
        ["not comparable: vm1's kernel 6.1.0 against 6.2"]
    );
    assert_eq!(
        change(&|b| with_host(b, |host| host["governor"] = json!("powersave"))),
        ["not comparable: frequency governor none against powersave"]
    );
    assert_eq!(
        change(&|b| b.vms[0].threads[1].pinned = Some(vslice_core::units::PcpuId(3))),
        ["not comparable: vm1's vCPU1 on pCPU1 against pCPU3"]
    );
    assert_eq!(
        change(&|b| b.plan["vm"][0]["disk"]["bus"] = json!("ide")),
        ["A and B differ in the disk: plan vm[vm1].disk.bus virtio-blk against ide"]
    );
    assert_eq!(
        change(&|b| b.plan["vm"][0]["disk"]["guest_io_scheduler"] = json!("bfq")),
        ["not comparable: plan vm[vm1].disk.guest_io_scheduler none against bfq"]
    );
    assert_eq!(
        change(&|b| b.vms[0].guest.as_mut().unwrap().clock_source = Some("hpet".to_owned())),
        ["not comparable: vm1's clock source none against hpet"]
    );
    assert_eq!(
        change(&|b| b.vms[0].guest.as_mut().unwrap().io_scheduler = Some("bfq".to_owned())),
        ["not comparable: vm1's I/O scheduler none against bfq"]
    );
    // Where a scratch file lies, and for how long the host was up, is no condition.
    assert_eq!(change(&|b| b.plan["vm"][0]["path"] = json!("/tmp/b")), [""; 0]);
}

#[test]
fn what_is_missing_is_told_once() {
    let (a, mut b) = (manifest(false, "7.2"), manifest(true, "7.2"));
    b.plan["vm"].as_array_mut().unwrap().pop();
    assert_eq!(told(&[&a], &[&b]), ["not comparable: plan vm[vm2] there against none"]);
    assert_eq!(
        told(&[&a, &a], &[&b, &manifest(true, "7.2")])[0],
        "the runs of B differ: plan vm[vm2] none and there"
    );
    let mut without = manifest(true, "7.2");
    without.plan["vm"][0]["disk"] = json!(null);
    assert_eq!(
        told(&[&a], &[&without]),
        ["A and B differ in the disk: plan vm[vm1].disk there against none"]
    );
}

#[test]
fn many_differences_are_cut() {
    let run = |value| (0..20).map(|at| condition(&format!("c{at:02}"), value)).collect::<Vec<_>>();
    let told = differences(&[run("1")], &[run("2")]);
    assert_eq!(told.len(), DIFFERENCES_MAX + 1);
    assert_eq!(told.last().unwrap(), "and 12 more conditions that differ");
    assert_eq!(differences(&[run("1")], &[]), [""; 0], "nothing to compare with");
}

#[test]
fn an_iothread_is_found_in_a_plan_and_in_what_was_attached_to() {
    assert_eq!(has_iothread(&manifest(true, "7.2")), Some(true));
    assert_eq!(has_iothread(&manifest(false, "7.2")), Some(false));
    let mut attached = manifest(false, "7.2");
    attached.plan = json!({ "attached": [{ "name": "vm1", "disks": [{ "iothreads": ["io1"] }] }] });
    assert_eq!(has_iothread(&attached), Some(true));
    attached.plan["attached"][0]["disks"] = json!(null);
    assert_eq!(has_iothread(&attached), None);
}

#[test]
fn the_host_disks_are_those_under_the_images() {
    let a = manifest(false, "7.2");
    let against = |disks: serde_json::Value| {
        let mut b = manifest(true, "7.2");
        with_host(&mut b, |host| host["disks"] = disks);
        told(&[&a], &[&b])
    };
    assert_eq!(
        against(json!([{ "device": "sda", "scheduler": "none", "schedulers": [] }])),
        ["not comparable: host disk vda against sda"]
    );
    assert_eq!(
        against(json!([
            { "device": "sda", "scheduler": "none", "schedulers": [], "rotational": true },
            { "device": "sdb", "scheduler": "bfq", "schedulers": [], "rotational": null },
        ])),
        [
            "not comparable: host I/O scheduler none against none of sda and bfq of sdb",
            "not comparable: host disk vda against sda and sdb",
            "not comparable: host disk rotates none against true of sda",
        ]
    );
    assert_eq!(
        against(json!([])),
        [
            "not comparable: host I/O scheduler none against unknown",
            "not comparable: host disk vda against unknown",
        ]
    );
    // Older runs had one, which was wrong for VMs that were attached to.
    let mut old = manifest(true, "7.2");
    with_host(&mut old, |host| {
        let disks = host.as_object_mut().unwrap().remove("disks").unwrap();
        host["disk"] = disks[0].clone();
    });
    assert_eq!(told(&[&a], &[&old]), [""; 0]);
    let host_disk = |run: &Manifest| {
        let mut all = conditions(run).into_iter();
        all.find(|condition| condition.name == "host disk").map(|condition| condition.value)
    };
    old.plan = json!({ "attached": [] });
    assert_eq!(host_disk(&old).as_deref(), Some("unknown"));
}

/// Two files are alike, whatever their paths, and so are an older run's, which say no more.
#[test]
fn disks_in_other_places_are_not_comparable() {
    let with = |disk: serde_json::Value| {
        let mut run = manifest(false, "7.2");
        run.plan = json!({ "attached": [{ "name": "vm1", "disks": [disk] }] });
        run
    };
    let older = with(json!({ "bus": "virtio-blk", "path": "/a" }));
    let stored = |storage| with(json!({ "bus": "virtio-blk", "storage": storage, "path": null }));
    let file = stored(json!({ "kind": "file", "path": "/b" }));
    assert_eq!(told(&[&older], &[&file]), [""; 0]);
    let untold = || stored(json!({ "kind": "unknown", "reason": "it is not told" }));
    let nothing = with(json!({ "bus": "virtio-blk", "path": null }));
    assert_eq!(told(&[&nothing], &[&untold()]), [""; 0]);
    let served = |socket| stored(json!({ "kind": "vhost_user", "socket": socket }));
    assert_eq!(told(&[&served("/run/a.sock")], &[&served("/run/b.sock")]), [""; 0]);
    assert_eq!(
        told(&[&file], &[&served("/run/a.sock")]),
        ["A and B differ in the disk: plan attached[vm1].disks[0].storage file against vhost_user"]
    );
    let driven = |driver| stored(json!({ "kind": "protocol", "driver": driver }));
    assert_eq!(
        told(&[&driven("rbd")], &[&driven("nbd")]),
        [
            "A and B differ in the disk: plan attached[vm1].disks[0].storage protocol rbd against protocol nbd"
        ]
    );
}

#[test]
fn conditions_stand_side_by_side_and_those_that_differ_first() {
    let runs = |of: &[&[(&str, &str)]]| -> Vec<Vec<Condition>> {
        of.iter()
            .map(|run| run.iter().map(|(name, value)| condition(name, value)).collect())
            .collect()
    };
    let a = runs(&[
        &[("HZ", "250"), ("QEMU", "7.2"), ("plan vm1.disk", THERE), ("zone", "x")],
        &[("HZ", "250"), ("QEMU", "7.2"), ("plan vm1.disk", THERE), ("zone", "y")],
    ]);
    let b = runs(&[&[("HZ", "250"), ("plan vm1.disk", THERE), ("zone", "x")]]);
    let told: Vec<(String, bool, Vec<Vec<String>>)> = side_by_side(&[&a, &b])
        .into_iter()
        .map(|row| (row.name, row.differs, row.values))
        .collect();
    let values = |of: &[&[&str]]| -> Vec<Vec<String>> {
        of.iter().map(|side| side.iter().map(|value| (*value).to_owned()).collect()).collect()
    };
    let expected = [
        ("QEMU".to_owned(), true, values(&[&["7.2"], &[NONE]])),
        ("zone".to_owned(), true, values(&[&["x", "y"], &["x"]])),
        ("HZ".to_owned(), false, values(&[&["250"], &["250"]])),
    ];
    assert_eq!(told, expected);
}
