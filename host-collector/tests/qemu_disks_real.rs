//! The disks of QEMUs as vslice reads them, and as QEMU itself has them: its monitor is the witness. Their guests never
//! run.

#[path = "support/newer.rs"]
mod newer;

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use vslice_core::units::Tid;
use vslice_host::disk::{Disk, Storage};
use vslice_host::qemu_args::QemuArgs;
use vslice_host::qmp::Qmp;
use vslice_host::vm::{self, Vm};
use vslice_lab::tools;

const DEADLINE: Duration = Duration::from_secs(60);

type Outcome = Result<(), Failed>;
type Test = fn(&Path) -> Outcome;

/// Command lines with each form of a disk; a.img to d.img are there.
const LINES: [&str; 5] = [
    "-M pc -hda a.img -cdrom b.img -drive file=c.img,format=raw,if=virtio,cache=off -device ide-cd,id=e",
    "-M q35 d.img -drive if=none,file=file:a.img,cache=directsync -device virtio-blk-pci,drive=none0,id=v \
     -drive if=none,id=c,media=cdrom -device ide-cd,drive=c,id=e",
    r#"-M q35 -object throttle-group,id=t -blockdev {"driver":"throttle","throttle-group":"t","node-name":"n","cache":{"direct":true},"file":{"driver":"raw","file":{"driver":"file","filename":"a.img"}}}
     -device virtio-blk-pci,drive=n,id=v -blockdev driver=copy-on-read,node-name=r,file.driver=file,file.filename=b.img
     -device nvme,drive=r,serial=1,id=w"#,
    r#"-M pc -device ahci -device virtio-blk-pci,id=v,drive=x -set device.v.drive=y
     -drive if=none,id=y,cache=none,cache.direct=off,file=json:{"driver":"raw",,"file":{"driver":"file",,"filename":"a.img"}}
     -drive if=none,id=z,file.filename=b.img,format=raw -device ide-hd,drive=z,id=w"#,
    "-M pc -drive if=virtio,file=null-co://,format=raw -drive if=virtio,format=raw,file=blkdebug::a.img,cache=none",
];

fn main() {
    let arguments = Arguments::from_args();
    let tests: [(&str, Test); 3] = [
        ("qemu_has_the_disks_that_its_command_line_is_read_to_have", qemu_is_a_witness),
        ("a_disk_without_a_bus_is_behind_the_controller_that_is_read", the_tree_is_a_witness),
        ("what_was_changed_while_it_ran_is_said", changes_are_seen),
    ];
    let installed = tools::find(tools::QEMU)
        .ok_or_else(|| format!("no {} on the path: apt-get install qemu-system-x86", tools::QEMU));
    let newer = newer::QEMUS.map(|name| (name, newer::tool(&format!("{name}/{}", tools::QEMU))));
    let qemus = [("installed", installed)].into_iter().chain(newer);
    let trials = qemus.flat_map(|(label, qemu)| {
        tests.map(|(name, test)| {
            let name = format!("{name}/{label}");
            match qemu.clone() {
                Ok(qemu) => Trial::test(name, move || test(&qemu)),
                Err(reason) => {
                    Trial::test(name, || Ok(())).with_kind(reason).with_ignored_flag(true)
                }
            }
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

/// A QEMU that ends with the test.
struct Qemu {
    directory: tempfile::TempDir,
    child: Child,
    words: Vec<String>,
    qmp: Qmp,
}

impl Qemu {
    fn start(qemu: &Path, line: &str) -> Result<Qemu, Failed> {
        // Not in memory, where nothing is an image that came later.
        let directory = tempfile::tempdir_in("/var/tmp")?;
        let path = |name: &str| directory.path().join(name);
        for name in ["a.img", "b.img", "c.img", "d.img"] {
            fs::File::create(path(name))?.set_len(1 << 20)?;
        }
        let always = "-name disks,debug-threads=on -nodefaults -no-user-config -display none -m 16M -S \
                      -accel tcg -qmp unix:qmp,server=on,wait=off";
        let args = always.split_whitespace().chain(line.split_whitespace());
        let args: Vec<String> = args.map(str::to_owned).collect();
        let mut child = Command::new(qemu)
            .args(&args)
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .spawn()?;
        let start = Instant::now();
        let qmp = loop {
            match Qmp::connect(&path("qmp")) {
                Ok(qmp) => break qmp,
                Err(_) if start.elapsed() < DEADLINE && child.try_wait()?.is_none() => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(error) => {
                    let _may_have_ended = child.kill();
                    return Err(format!("{line}: {error}, {}", child.wait()?).into());
                }
            }
        };
        let program = qemu.to_string_lossy().into_owned();
        let words = [vec![program], args].concat();
        Ok(Qemu { directory, child, words, qmp })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// As `vslice ps` sees it.
    fn vm(&self) -> Result<Vm, Failed> {
        vm::look_at(Tid(self.child.id()), None).ok_or_else(|| "it is no VM".into())
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _may_have_ended = self.child.kill();
        let _status = self.child.wait();
    }
}

fn check(condition: bool, what: impl FnOnce() -> String) -> Outcome {
    if condition { Ok(()) } else { Err(what().into()) }
}

/// Each disk as the file, the driver at its top, and whether it is open with `O_DIRECT`; what its command line does
/// not say is the default here.
fn of_reader(disk: &Disk) -> (String, String, bool) {
    let place = match &disk.storage {
        Storage::File { path } => path.display().to_string(),
        Storage::Protocol { driver, .. } => driver.clone(),
        other => format!("{other:?}"),
    };
    (place, disk.format.clone().unwrap_or("raw".to_owned()), disk.is_direct.unwrap_or(false))
}

/// The same by `query-block`.
fn of_qemu(block: &Value) -> (String, String, bool) {
    let inserted = &block["inserted"];
    if inserted.is_null() {
        return (format!("{:?}", Storage::Empty), "raw".to_owned(), false);
    }
    let text = inserted["file"].as_str().unwrap_or_default();
    // Filters are shown as JSON.
    let file = text.split('"').rfind(|part| part.contains(".img")).unwrap_or(text);
    let file = file.trim_start_matches("blkdebug::").trim_end_matches("://");
    let format = match inserted["drv"].as_str().unwrap_or_default() {
        "throttle" | "copy-on-read" | "blkdebug" => "raw",
        other => other,
    };
    let is_direct = inserted["cache"]["direct"] == true;
    (file.to_owned(), format.to_owned(), is_direct)
}

fn qemu_is_a_witness(qemu: &Path) -> Outcome {
    for line in LINES {
        let mut qemu = Qemu::start(qemu, line)?;
        let blocks = qemu.qmp.execute("query-block", json!({}))?;
        let attached = |block: &&Value| !block["qdev"].is_null();
        let mut by_qemu: Vec<_> =
            blocks.as_array().into_iter().flatten().filter(attached).map(of_qemu).collect();
        let mut read: Vec<_> = QemuArgs::parse(&qemu.words).disks.iter().map(of_reader).collect();
        by_qemu.sort();
        read.sort();
        check(read == by_qemu, || format!("{line}:\nread {read:#?}\nQEMU has {by_qemu:#?}"))?;
        let vm = qemu.vm()?;
        let disks = vm.disks.as_deref().unwrap_or_default();
        let is_said = disks.iter().any(|disk| disk.contradiction.is_some());
        check(!is_said && vm.unnamed_images.is_empty(), || format!("{line}: {vm:#?}"))?;
    }
    Ok(())
}

/// The iothread of each controller has the controller's name.
fn the_tree_is_a_witness(qemu: &Path) -> Outcome {
    let disk = "-drive if=none,id=d,file=a.img,format=raw -device scsi-hd,drive=d,id=disk";
    let controller = |id: &str| format!("-device virtio-scsi-pci,id={id},iothread={id}");
    let json = r#"-device {"driver":"virtio-scsi-pci","id":"s1","iothread":"s1"}"#;
    let nameless = "-device virtio-scsi-pci,iothread=s1 -device lsi";
    for line in [
        format!("{} {} {disk}", controller("s0"), controller("s1")),
        format!("{} {json} {disk}", controller("s0")),
        format!("{nameless} {disk},bus=scsi.0"),
        format!("{} {disk} {}", controller("s0"), controller("s1")),
    ] {
        let line = format!("-M pc -object iothread,id=s0 -object iothread,id=s1 {line}");
        let mut qemu = Qemu::start(qemu, &line)?;
        let tree = qemu.qmp.human_monitor_command("info qtree")?;
        let before = tree.split("dev: scsi-hd").next().unwrap_or_default();
        let above = before.rsplit("dev: virtio-scsi-pci").next().unwrap_or_default();
        // `, id "s0"`; the one without an id has the other's iothread.
        let id = above.split('"').nth(1).map(|id| if id.is_empty() { "s1" } else { id });
        let by_qemu = id.map(str::to_owned);
        let read = QemuArgs::parse(&qemu.words).disks.remove(0).iothreads;
        check(Some(&read[..]) == by_qemu.clone().as_ref().map(std::slice::from_ref), || {
            format!("{line}: read {read:?}, QEMU has {by_qemu:?}")
        })?;
    }
    Ok(())
}

fn changes_are_seen(qemu: &Path) -> Outcome {
    let line = "-M q35 -device pcie-root-port,id=rp0 -drive if=none,id=b,file=b.img,format=raw,media=cdrom \
        -device ide-cd,drive=b,id=cd -blockdev driver=raw,node-name=a,file.driver=file,file.filename=a.img \
        -device virtio-blk-pci,drive=a -drive if=virtio,file=c.img,format=raw,snapshot=on";
    let mut qemu = Qemu::start(qemu, line)?;
    let vm = qemu.vm()?;
    let said = |vm: &Vm| -> Vec<Option<String>> {
        vm.disks.iter().flatten().map(|disk| disk.contradiction.clone()).collect()
    };
    check(said(&vm) == [None, None, None] && vm.unnamed_images.is_empty(), || format!("{vm:#?}"))?;
    let overlay = qemu.path("over.qcow2");
    let snapshot = json!({"node-name": "a", "snapshot-node-name": "o", "snapshot-file": overlay});
    qemu.qmp.execute("blockdev-snapshot-sync", snapshot)?;
    let vm = qemu.vm()?;
    let writes = format!(
        "that file is open for reading only, and QEMU writes to {} (host page cache)",
        overlay.display()
    );
    check(said(&vm) == [None, Some(writes), None], || format!("{vm:#?}"))?;
    qemu.qmp.execute("eject", json!({"id": "cd", "force": true}))?;
    let hot = json!({"driver": "raw", "node-name": "h", "file": {"driver": "file", "filename": qemu.path("d.img")}});
    qemu.qmp.execute("blockdev-add", hot)?;
    let device = json!({"driver": "virtio-blk-pci", "drive": "h", "id": "hot", "bus": "rp0"});
    qemu.qmp.execute("device_add", device)?;
    let vm = qemu.vm()?;
    let gone = Some("its process does not have that file open".to_owned());
    check(said(&vm)[0] == gone, || format!("{vm:#?}"))?;
    let mut unnamed: Vec<&Path> =
        vm.unnamed_images.iter().map(|image| image.path.as_path()).collect();
    unnamed.sort();
    check(unnamed == [qemu.path("d.img"), overlay], || format!("{vm:#?}"))
}
