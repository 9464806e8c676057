//! What is emitted, before those it is meant for: the QEMU of this host, libvirt's schema, and libvirt.
//!
//! Where one of them is missing a test is reported as ignored and says why.

#[path = "support/newer.rs"]
mod newer;
#[path = "emit_real/schema.rs"]
mod schema;
mod support;

use libtest_mimic::{Arguments, Failed, Trial};
use newer::{QEMUS, tool as newer_tool};
use serde_json::json;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use support::{Guarded, Outcome, STEP_LIMIT, check, libvirt_missing, libvirtd, virsh, wait_for};
use vslice_host::disk::{Aio, Cache, DiskBus};
use vslice_host::host::qemu_version;
use vslice_host::qmp::Qmp;
use vslice_lab::emit::qemu::command_line;
use vslice_lab::emit::versions::{Feature, QemuVersion};
use vslice_lab::emit::{Emission, EmitFiles, from_xml, libvirt};
use vslice_lab::plan::{AcceleratorSetting, DiskPlan, Plan, VsockSetting};
use vslice_lab::tools;

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let no_qemu = missing(&[tools::QEMU]);
    let no_schema = missing(&["virt-xml-validate", "xmllint"]);
    let no_newer_schema = missing(&["xmllint"]).or_else(|| newer_tool(NEWER_SCHEMA).err());
    let no_newer_domains = newer_tool(NEWER_SCHEMAS).err();
    // Before there is another thread: it moves this one only.
    let no_libvirt = no_qemu.clone().or_else(libvirt_missing);
    let trial = |name: &str, missing: Option<String>, test: fn() -> Outcome| match missing {
        None => Trial::test(name, test),
        Some(reason) => Trial::test(name, test).with_kind(reason).with_ignored_flag(true),
    };
    let mut trials = vec![
        trial("the_command_prints_what_it_is_asked_for_or_says_why_not", None, the_command),
        trial("this_qemu_starts_with_every_emitted_disk", no_qemu, || {
            every_disk_starts(&tools::find(tools::QEMU).ok_or("QEMU was there a moment ago")?)
        }),
        trial("every_emitted_domain_is_one_by_the_schema", no_schema, every_domain_is_valid),
        trial("every_domain_of_today_is_one_by_the_newer_schema", no_newer_schema, || {
            every_domain_of_today_is_valid(&newer_tool(NEWER_SCHEMA)?)
        }),
        trial("everything_of_libvirts_schema_has_a_row", no_newer_domains, || {
            schema::every_path_has_a_row(&newer_tool(NEWER_SCHEMAS)?)
        }),
        trial("libvirt_defines_every_emitted_domain", no_libvirt, every_domain_is_defined),
    ];
    trials.extend(QEMUS.map(|directory| {
        let qemu = newer_tool(&format!("{directory}/{}", tools::QEMU));
        let name = format!("newer_qemu_starts_with_every_emitted_disk/{directory}");
        match qemu {
            Ok(qemu) => Trial::test(name, move || every_disk_starts(&qemu)),
            Err(reason) => Trial::test(name, || Ok(())).with_kind(reason).with_ignored_flag(true),
        }
    }));
    libtest_mimic::run(&arguments, trials).exit();
}

fn missing(programs: &[&str]) -> Option<String> {
    let missing = programs.iter().find(|program| tools::find(program).is_none())?;
    Some(format!("there is no {missing}: .ci/install-needs test"))
}

fn installed() -> Result<QemuVersion, Failed> {
    version_of(&tools::find(tools::QEMU).ok_or("QEMU was there a moment ago")?)
}

fn version_of(qemu: &Path) -> Result<QemuVersion, Failed> {
    Ok(QemuVersion::from_banner(&qemu_version(qemu)?)?)
}

const NEWER_SCHEMA: &str = "schemas/domain.rng";
const NEWER_SCHEMAS: &str = "schemas";

/// What `vslice` prints with these arguments, or what it says instead.
fn vslice(args: &[&str]) -> Result<Result<String, String>, Failed> {
    let output = Command::new(env!("CARGO_BIN_EXE_vslice")).args(args).output()?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ok(if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) })
}

fn the_command() -> Outcome {
    let emit = |args: &[&str]| vslice(&[&["emit", "demo", "--qemu-version", "2.0"], args].concat());
    let has = |said: &Result<String, String>, part: &str, printed: bool| {
        let text = said.as_ref().unwrap_or_else(|said| said);
        check(said.is_ok() == printed && text.contains(part), || format!("no '{part}': {said:?}"))
    };
    let both = emit(&[])?;
    has(&both, "-name vm1,debug-threads=on", true)?;
    has(&both, "-name vm2,debug-threads=on", true)?;
    has(&emit(&["--vm", "vm1", "--iothread", "true"])?, "x-data-plane=on", true)?;
    has(&emit(&["--vm", "vm1", "--format", "libvirt"])?, "<name>vm1</name>", true)?;
    has(&emit(&["--format", "libvirt"])?, "choose it with --vm (vm1, vm2)", false)?;
    has(
        &emit(&["--disk", "/d"])?,
        "--disk is the image of one VM: choose it with --vm (vm1, vm2)",
        false,
    )?;
    has(&emit(&["--vm", "web"])?, "plan 'demo' has no vm 'web', it has vm1, vm2", false)?;
    has(&emit(&["--vm", "vm1", "--aio", "io_uring"])?, "needs QEMU 5.0 or newer", false)?;

    let seed = concat!(env!("CARGO_MANIFEST_DIR"), "/lab/src/emit/fixtures/seed.xml");
    let plan = vslice(&["plan", "from-xml", seed])?;
    has(&plan, "vcpu_pcpus = [0, 1, 2, 3, 4]", true)?;
    let bare = concat!(env!("CARGO_MANIFEST_DIR"), "/lab/src/emit/fixtures/domains/x03-quota.xml");
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), vslice(&["plan", "from-xml", bare])??)?;
    let path = file.path().to_str().ok_or("a path of letters")?;
    let back = vslice(&["emit", path, "--qemu-version", "10.0", "--format", "libvirt"])?;
    has(&back, "It has neither a disk nor a kernel to boot", true)?;
    let other = vslice(&["plan", "from-xml", seed, "--disk", "vdz"])?;
    has(&other, "it has vda on /home/images/kvm1.img, hdc (a cdrom)", false)?;
    let json = Command::new(env!("CARGO_BIN_EXE_vslice"))
        .args(["plan", "from-xml", seed, "--json"])
        .output()?;
    serde_json::from_slice::<Plan>(&json.stdout)?;
    let told = String::from_utf8_lossy(&json.stderr);
    check(told.contains("Lost, line 61: <interface"), || format!("not told: {told}"))?;
    // What is printed is a plan, from which the seed's own form comes back.
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), plan?)?;
    let path = file.path().to_str().ok_or("a path of letters")?;
    let back = vslice(&["emit", path, "--qemu-version", "2.0", "--format", "libvirt"])?;
    has(&back, "device.virtio-disk0.x-data-plane=on", true)?;
    has(&vslice(&["plan", "from-xml", path])?, "is not XML", false)
}

/// Every combination that a plan can have of what decides over the disk's arguments.
fn disks() -> Vec<DiskPlan> {
    let mut disks = Vec::new();
    for bus in DiskBus::ALL {
        let virtio = bus.is_virtio();
        for (iothread, ioeventfd, msix) in [
            (false, true, true),
            (true, true, true),
            (false, false, true),
            (false, true, false),
            (true, true, false),
        ] {
            if virtio || (!iothread && ioeventfd && msix) {
                let disk = DiskPlan::of_size(1 << 20);
                disks.push(DiskPlan { bus, iothread, ioeventfd, msix, ..disk });
            }
        }
    }
    let mut mapped = DiskPlan::of_size(1 << 20);
    (mapped.iothread, mapped.iothreads, mapped.queues) = (true, 2, Some(2));
    disks.push(DiskPlan { bus: DiskBus::VirtioScsi, ..mapped.clone() });
    disks.push(mapped);
    for (cache, aio) in [(Cache::Writeback, Aio::Threads), (Cache::Directsync, Aio::Native)] {
        disks.push(DiskPlan { cache, aio, ..DiskPlan::of_size(1 << 20) });
    }
    disks
}

/// The plan with this disk; a serial port needs no device of the host.
fn plan(disk: &DiskPlan) -> Result<Plan, Failed> {
    let mut plan = Plan::load("demo")?;
    plan.vms[0].disk = Some(disk.clone());
    plan.accelerator = AcceleratorSetting::Tcg;
    plan.vsock = VsockSetting::VirtioSerial;
    plan.check()?;
    Ok(plan)
}

fn files(dir: &Path) -> EmitFiles {
    EmitFiles {
        kernel: None,
        initramfs: None,
        disk: dir.join("it's, a \"disk\".img"),
        sockets: dir.to_owned(),
    }
}

fn every_disk_starts(qemu: &Path) -> Outcome {
    // O_DIRECT is not for every /tmp.
    let dir = tempfile::tempdir_in("/var/tmp")?;
    let (files, installed) = (files(dir.path()), version_of(qemu)?);
    fs::write(&files.disk, vec![0; 1 << 20])?;
    let mut started = 0;
    // The form of old versions is understood by all that came later.
    let versions = [installed, QemuVersion::new(2, 8)];
    let both = versions.iter().flat_map(|version| disks().into_iter().map(|disk| (*version, disk)));
    for (version, disk) in both {
        let plan = plan(&disk)?;
        let emission = Emission { plan: &plan, vm_index: 0, version, files: &files };
        let Ok(args) = command_line(&emission) else {
            let mapping = match disk.bus {
                DiskBus::VirtioScsi => Feature::ScsiVqMapping,
                _ => Feature::VqMapping,
            };
            check(disk.iothreads > 1 && !version.has(mapping), || format!("{disk:?}"))?;
            continue;
        };
        let mut command = Command::new(qemu);
        command.args(&args).arg("-S").stdin(Stdio::null()).stderr(Stdio::piped());
        let mut process = Guarded(command.spawn()?);
        let socket = dir.path().join("vm1.qmp");
        let greeted = wait_for("QMP", STEP_LIMIT, || match process.0.try_wait() {
            Ok(None) => Qmp::connect(&socket).ok().map(Ok),
            ended => Some(Err(format!("it ended: {ended:?}"))),
        })?;
        let mut qmp = match greeted {
            Ok(qmp) => qmp,
            Err(ended) => {
                let mut said = String::new();
                if let Some(mut stderr) = process.0.stderr.take() {
                    stderr.read_to_string(&mut said)?;
                }
                return Err(format!("{disk:?}: {ended}: {said}").into());
            }
        };
        let iothreads = qmp.execute("query-iothreads", json!({}))?;
        let expected = if disk.iothread { usize::from(disk.iothreads) } else { 0 };
        let count = iothreads.as_array().map(Vec::len);
        check(count == Some(expected), || format!("{disk:?} has {iothreads}"))?;
        drop(process);
        fs::remove_file(&socket)?;
        started += 1;
    }
    check(started >= 28, || format!("only {started} disks were tried"))
}

/// The domains that a libvirt can have that knows so many iothreads of one disk, for each version in
/// which something changes.
fn domains(
    dir: &Path,
    versions: &[QemuVersion],
    iothreads_max: u16,
) -> Result<Vec<String>, Failed> {
    let mut domains = Vec::new();
    let files = files(dir);
    let booted = EmitFiles {
        kernel: Some("/boot/a&b".into()),
        initramfs: Some("/boot/<c>".into()),
        ..files.clone()
    };
    for &version in versions {
        for disk in disks().iter().filter(|disk| disk.iothreads <= iothreads_max) {
            let mut plan = plan(disk)?;
            for (files, vsock) in
                [(&files, VsockSetting::VirtioSerial), (&booted, VsockSetting::Auto)]
            {
                plan.vsock = vsock;
                let emission = Emission { plan: &plan, vm_index: 0, version, files };
                domains.extend(libvirt::domain(&emission));
            }
        }
    }
    check(domains.len() >= 8 * versions.len(), || format!("only {}", domains.len()))?;
    Ok(domains)
}

/// How many iothreads of one disk a libvirt knows before and since `<driver><iothreads>`: 10.0.0 for
/// virtio-blk (formatdomain.rst); the schema here is of 12.9, which has virtio-scsi's too.
const UNMAPPED: u16 = 1;
const MAPPED: u16 = 2;

fn every_domain_is_valid() -> Outcome {
    let dir = tempfile::tempdir()?;
    let versions = ["1.4", "2.0", "2.1", "2.4", "2.5", "2.7", "7.2"];
    let versions: Result<Vec<QemuVersion>, _> = versions.iter().map(|text| text.parse()).collect();
    for text in domains(dir.path(), &versions?, UNMAPPED)? {
        let file = dir.path().join("domain.xml");
        fs::write(&file, &text)?;
        accepts(Command::new("virt-xml-validate").arg(&file).arg("domain"), &text)?;
    }
    Ok(())
}

/// As virt-xml-validate would with that schema, which has its own built in.
fn every_domain_of_today_is_valid(schema: &Path) -> Outcome {
    let dir = tempfile::tempdir()?;
    let texts = domains(dir.path(), &[QemuVersion::new(11, 1)], MAPPED)?;
    let is_mapped = |text: &&String| text.contains("<iothread id='2'/>");
    let mapped_count = texts.iter().filter(is_mapped).count();
    check(mapped_count == 4, || format!("{mapped_count} of {} are mapped", texts.len()))?;
    check(texts.iter().any(|text| text.contains("bus='nvme'")), || "none is NVMe".to_owned())?;
    for text in texts {
        let file = dir.path().join("domain.xml");
        fs::write(&file, &text)?;
        let mut xmllint = Command::new("xmllint");
        accepts(xmllint.arg("--noout").arg("--relaxng").arg(schema).arg(&file), &text)?;
    }
    Ok(())
}

fn accepts(command: &mut Command, text: &str) -> Outcome {
    let output = command.output()?;
    let said = || format!("{text}{}", String::from_utf8_lossy(&output.stderr));
    check(output.status.success(), said)
}

/// And gives back what can be read as the plan that it came from.
fn every_domain_is_defined() -> Outcome {
    let dir = tempfile::tempdir_in("/var/tmp")?;
    let _daemon = libvirtd(dir.path())?;
    let file = dir.path().join("domain.xml");
    let path = file.to_str().ok_or("a path of letters")?;
    for text in domains(dir.path(), &[installed()?], UNMAPPED)? {
        fs::write(&file, &text)?;
        virsh(&["define", path]).map_err(|error| format!("{error:?}: {text}"))?;
        let back = virsh(&["dumpxml", "vm1"])?;
        let (own, back) =
            (from_xml::read("own", &text, None, None)?, from_xml::read("back", &back, None, None)?);
        check(own.plan == back.plan, || format!("{}\n{}", own.toml, back.toml))?;
        virsh(&["undefine", "vm1"])?;
    }
    Ok(())
}
