//! `vslice attach --load` to guests as users have them: the debian image under QEMU and under libvirt,
//! the agent started through a real qemu-ga.
//!
//! libvirt runs in a mount namespace of this test, with directories of its own, so that neither its
//! configuration nor its domains are the host's. What this host lacks (the image, libvirt, root) shows
//! as an ignored test with the reason.

mod support;

use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use support::{Guarded, Outcome, STEP_LIMIT, check, libvirt_missing, libvirtd, virsh, wait_for};
use vslice_core::units::PcpuId;
use vslice_host::qga::{LibvirtDaemon, Qga};
use vslice_host::qmp::Qmp;
use vslice_host::{host, vm};
use vslice_lab::tools;
use vslice_record::perf::check_rights;

/// A guest under TCG has booted after 10 to 20 s.
const BOOT_LIMIT: Duration = Duration::from_secs(180);

/// The reader shares its vCPU with a hog, and the collector its pCPU with nobody: it would have to wait
/// for one that it shares with a hog of another session, and the guests' leases end meanwhile.
const PLAN: &str = r#"name = "load"
collector_pcpu = 0
[[vm]]
name = "vslice-test"
vcpus = 2
vcpu_pcpus = [0, 1]
hogs = [1]
[vm.reader]
vcpu = 1
"#;

fn main() {
    let mut arguments = Arguments::from_args();
    // They share a domain, and the pCPUs.
    arguments.test_threads = Some(1);
    let missing = missing();
    // Before there is another thread: it moves this one only.
    let libvirt_missing = missing.clone().or_else(libvirt_missing);
    let domain = Arc::new(Mutex::new(None));
    let by_libvirt = |test: fn(&Libvirt) -> Outcome| {
        let domain = Arc::clone(&domain);
        move || {
            let mut domain = domain.lock().unwrap_or_else(PoisonError::into_inner);
            if domain.is_none() {
                *domain = Some(Libvirt::start()?);
            }
            test(domain.as_ref().ok_or("it was just started")?)
        }
    };
    let trial =
        |name: &str, missing: &Option<String>, test: Box<dyn FnOnce() -> Outcome + Send>| {
            match missing {
                None => Trial::test(name, test),
                Some(reason) => {
                    Trial::test(name, || Ok(())).with_kind(reason.clone()).with_ignored_flag(true)
                }
            }
        };
    let trials = vec![
        trial("an_agent_is_uploaded_through_a_socket", &missing, Box::new(uploaded)),
        trial("a_port_is_plugged_in_and_taken_out_again", &missing, Box::new(plugged)),
        trial(
            "the_guests_own_agent_is_started_through_libvirt",
            &libvirt_missing,
            Box::new(by_libvirt(started)),
        ),
        trial(
            "qemu_ga_and_libvirtd_may_end_midway",
            &libvirt_missing,
            Box::new(by_libvirt(without_daemons)),
        ),
        trial(
            "pins_of_a_killed_collector_are_undone_by_the_next",
            &libvirt_missing,
            Box::new(by_libvirt(killed)),
        ),
        trial(
            "a_domain_destroyed_midway_leaves_a_partial_report",
            &libvirt_missing,
            Box::new(by_libvirt(destroyed)),
        ),
    ];
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(domain.lock().unwrap_or_else(PoisonError::into_inner).take());
    conclusion.exit();
}

fn missing() -> Option<String> {
    if let Err(error) = check_rights() {
        return Some(error.to_string());
    }
    if tools::find(tools::QEMU).is_none() {
        return Some(format!("there is no {}", tools::QEMU));
    }
    std::env::var_os("VSLICE_DEBIAN_IMAGE")
        .is_none()
        .then(|| "VSLICE_DEBIAN_IMAGE does not name the image of `make debian-image`".to_owned())
}

fn image() -> PathBuf {
    PathBuf::from(std::env::var_os("VSLICE_DEBIAN_IMAGE").unwrap_or_default())
}

/// `vslice attach`, with its run directory in `dir`.
fn attach(vm: &str, dir: &Path, args: &[&str]) -> Result<Child, Failed> {
    let plan = dir.join("load.toml");
    fs::write(&plan, PLAN)?;
    // In a session of its own, as libvirt's QEMU is: the kernel gives each session its share of a pCPU
    // (sched(7), autogroup), and what else the session of the tests has to do is not known here.
    let mut command = Command::new("setsid");
    command.arg(env!("CARGO_BIN_EXE_vslice"));
    command.args(["attach", vm, "--json", "--load"]).arg(plan).args(args);
    command
        .args(["--target", "/dev/disk/by-partlabel/vslice-test", "--output"])
        .arg(dir.join("run"));
    Ok(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
}

fn summary(output: &Output) -> Result<Value, Failed> {
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).map_err(|error| format!("{error}: {said}").into())
}

/// A run that came to its end, with all of its requests, each of them explained.
fn is_complete(output: &Output, requests: u64) -> Outcome {
    let summary = summary(output)?;
    let said = || {
        let (status, requests) = (&summary["status"], &summary["requests"]);
        format!("{status:#} {requests:#}\n{}", String::from_utf8_lossy(&output.stderr))
    };
    check(output.status.success() && summary["status"]["state"] == "complete", said)?;
    check(summary["requests"]["count"] == requests, said)?;
    check(summary["requests"]["unattributable"] == 0, said)
}

/// The host's I/O of all requests is known, by the place of the partition on the guest's disk. Where this
/// image is on no disk whose I/O can be recorded, why is said.
fn phases_are_known(summary: &Value, image: &Path, requests: u64) -> Outcome {
    let io = &summary["io"];
    let said = || format!("{:#} {:#}", io["disks"], io["classes"]["all"]);
    let disk = &io["disks"][0];
    if let Err(reason) = host::whole_disk(image) {
        return check(disk["reason"] == reason.as_str(), said);
    }
    check(disk["device"].is_string() && disk["unmapped_reason"].is_null(), said)?;
    let all = &io["classes"]["all"];
    let [known, unfinished] = [&all["known"], &all["unphased_by"]["unfinished"]]
        .map(|number| number.as_u64().unwrap_or_default());
    // A kernel may hide from perf's tracepoints what interrupts its idle task.
    check(known + unfinished == requests && known > requests / 4 * 3, said)
}

/// Waits until requests are streamed into the run directory.
fn wait_for_requests(dir: &Path) -> Outcome {
    let is_requests = |path: &Path| path.to_string_lossy().contains("requests");
    wait_for("requests in the run directory", STEP_LIMIT, || {
        let entries = fs::read_dir(dir.join("run")).ok()?.flatten();
        let sizes = entries.filter(|entry| is_requests(&entry.path()));
        sizes.filter_map(|entry| entry.metadata().ok()).any(|file| file.len() > 4096).then_some(())
    })
}

/// Nothing of vslice is in the guest: no process, no file, no unit.
fn is_clean(qga: &mut Qga) -> Outcome {
    let look = "! grep -sl ^vslice-agent /proc/[0-9]*/comm && ! ls -d /var/lib/vslice-agent-* && \
                ! systemctl list-units --no-legend 'vslice-agent-*' | grep .";
    // The agent has a moment to end.
    wait_for("a clean guest", STEP_LIMIT, || {
        qga.run("sh", &["-c", look], STEP_LIMIT).ok().filter(|ended| ended.is_success())
    })
    .map(drop)
}

// --- QEMU and a plain socket ------------------------------------------------------------------

/// The debian image under a QEMU with a QMP socket, `qmp`, and a port for its qemu-ga, `ga`, in `dir`.
struct Plain {
    name: String,
    _qemu: Guarded,
}

impl Plain {
    fn start(dir: &Path, ports: &[&str]) -> Result<Plain, Failed> {
        let image = image();
        let chardev =
            |id: &str| format!("socket,id={id},path={},server=on,wait=off", dir.join(id).display());
        let name = format!("plain-{}", dir.file_name().unwrap_or_default().to_string_lossy());
        let mut command =
            Command::new(tools::find(tools::QEMU).ok_or("QEMU was there a moment ago")?);
        command
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "512"])
            .args(["-name", &format!("guest={name},debug-threads=on")])
            .arg("-kernel")
            .arg(image.join("vmlinux"))
            .arg("-initrd")
            .arg(image.join("initramfs.cpio.gz"))
            .args(["-append", "quiet panic=-1", "-drive"])
            .arg(format!(
                "if=none,id=disk,format=raw,snapshot=on,file={}",
                image.join("disk.img").display()
            ))
            .args(["-device", "virtio-blk-pci,drive=disk", "-device", "virtio-serial-pci"])
            .args(["-chardev", &chardev("ga")])
            .args(["-device", "virtserialport,chardev=ga,name=org.qemu.guest_agent.0"])
            .arg("-qmp")
            .arg(format!("unix:{},server=on,wait=off", dir.join("qmp").display()));
        for port in ports {
            command.args(["-chardev", &chardev(port)]);
            command.args(["-device", &format!("virtserialport,chardev={port},name=vslice.agent")]);
        }
        let _qemu = Guarded(command.stdin(Stdio::null()).spawn()?);
        Ok(Plain { name, _qemu })
    }
}

fn uploaded() -> Outcome {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("ga");
    let qemu = Plain::start(dir.path(), &["load"])?;
    let name = &qemu.name;
    let connect = || Qga::connect(&socket).ok();
    let mut qga = wait_for("qemu-ga", BOOT_LIMIT, connect)?;
    let agent = "/usr/local/bin/vslice-agent";
    // A copy of the image's own agent is what is uploaded; the guest then has none.
    let own = dir.path().join("vslice-agent");
    read_file(&mut qga, agent, &own)?;
    check(qga.run("rm", &[agent], STEP_LIMIT)?.is_success(), || "not removed".to_owned())?;
    drop(qga);

    let output = attach(name, dir.path(), &["--total", "1MiB"])?.wait_with_output()?;
    came_to_nothing(&output, dir.path(), "no vslice-agent on its PATH")?;
    let own = own.to_str().ok_or("a path of letters")?;
    let args = ["--total", "1MiB", "--agent", own];
    let output = attach(name, dir.path(), &args)?.wait_with_output()?;
    is_complete(&output, 256)?;
    is_clean(&mut wait_for("qemu-ga", STEP_LIMIT, connect)?)
}

/// It failed, said why, and left no run directory.
fn came_to_nothing(output: &Output, dir: &Path, why: &str) -> Outcome {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    check(!output.status.success() && said.contains(why), || said)?;
    check(!dir.join("run").exists(), || "a run directory was left".to_owned())
}

/// `vslice doctor` of this VM, which can be attached to.
fn doctor(vm: &str) -> Result<Value, Failed> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vslice"));
    let output = command.args(["doctor", vm, "--json"]).output()?;
    check(output.status.success(), || String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Whether QEMU has a port for vslice now, by its own word.
fn has_port(dir: &Path) -> Result<bool, Failed> {
    let mut qmp = Qmp::connect(&dir.join("qmp"))?;
    let ports = qmp.execute("qom-list", json!({"path": "/machine/peripheral"}))?;
    let chardevs = qmp.execute("query-chardev", json!({}))?;
    let is_in = |list: &Value, key: &str, name: &str| {
        list.as_array().into_iter().flatten().any(|entry| entry[key] == name)
    };
    let has_port = is_in(&ports, "name", "vslice-agent-port");
    check(has_port == is_in(&chardevs, "label", "vslice-agent"), || format!("{ports} {chardevs}"))?;
    Ok(has_port)
}

/// Into a guest with no way to this host, and out again: at the end, after SIGINT, after SIGKILL by the
/// next start; never while another client has the monitor.
fn plugged() -> Outcome {
    let dir = tempfile::tempdir()?;
    let path = dir.path();
    let qemu = Plain::start(path, &[])?;
    let (name, socket) = (&qemu.name, path.join("ga"));
    let connect = || Qga::connect(&socket).ok();
    drop(wait_for("qemu-ga", BOOT_LIMIT, connect)?);

    let diagnosis = doctor(name)?;
    let said = || format!("{diagnosis:#}");
    check(diagnosis["can_load"] == false, said)?;
    let lines = diagnosis["plug"]["plug"][0].as_str().unwrap_or_default();
    check(lines.contains("device_add") && lines.contains("virtserialport"), said)?;
    let without = attach(name, path, &["--total", "1MiB"])?.wait_with_output()?;
    came_to_nothing(&without, path, "use --plug to plug one in")?;

    let client = Qmp::connect(&path.join("qmp"))?;
    let taken = attach(name, path, &["--total", "1MiB", "--plug"])?.wait_with_output()?;
    came_to_nothing(&taken, path, "another client is using its monitor socket")?;
    drop(client);

    let output = attach(name, path, &["--total", "1MiB", "--plug"])?.wait_with_output()?;
    is_complete(&output, 256)?;
    let lines = summary(&output)?["environment"]["lines"].to_string();
    check(lines.contains("over a port that was plugged in"), || lines.clone())?;
    check(!has_port(path)?, || "the port was left".to_owned())?;
    fs::remove_dir_all(path.join("run"))?;

    let attached = attach(name, path, &["--total", "8GiB", "--plug"])?;
    wait_for_requests(path)?;
    check(has_port(path)?, || "there is no port".to_owned())?;
    kill(Pid::from_raw(i32::try_from(attached.id())?), Signal::SIGINT)?;
    let output = attached.wait_with_output()?;
    check(output.status.success(), || String::from_utf8_lossy(&output.stderr).into_owned())?;
    check(!has_port(path)?, || "the port was left by SIGINT".to_owned())?;
    is_clean(&mut wait_for("qemu-ga", STEP_LIMIT, connect)?)?;
    fs::remove_dir_all(path.join("run"))?;

    let mut attached = attach(name, path, &["--total", "8GiB", "--plug"])?;
    wait_for_requests(path)?;
    attached.kill()?;
    drop(attached.wait_with_output()?);
    check(has_port(path)?, || "nobody was there to take it out".to_owned())?;
    is_clean(&mut wait_for("qemu-ga", STEP_LIMIT, connect)?)?;
    fs::remove_dir_all(path.join("run"))?;
    let mut next = Command::new(env!("CARGO_BIN_EXE_vslice"));
    next.args(["attach", name, "--duration", "100ms", "--output"]).arg(path.join("run"));
    let output = next.stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    check(output.status.success() && said.contains("ports of VMs"), || said)?;
    check(!has_port(path)?, || "the port was left by SIGKILL".to_owned())
}

/// Copies a file out of the guest.
fn read_file(qga: &mut Qga, path: &str, to: &Path) -> Outcome {
    use base64::Engine;
    let handle = qga.execute("guest-file-open", json!({"path": path}))?;
    let mut bytes = Vec::new();
    loop {
        let read = qga.execute("guest-file-read", json!({"handle": handle, "count": 1 << 16}))?;
        let text = read["buf-b64"].as_str().ok_or("no bytes")?;
        bytes.extend(base64::engine::general_purpose::STANDARD.decode(text)?);
        if read["eof"] == true {
            break;
        }
    }
    qga.execute("guest-file-close", json!({"handle": handle}))?;
    Ok(fs::write(to, bytes)?)
}

// --- libvirt ----------------------------------------------------------------------------------

/// A libvirtd with one domain, `vslice-test`, of the debian image.
struct Libvirt {
    dir: tempfile::TempDir,
    daemon: Mutex<Guarded>,
}

impl Libvirt {
    fn start() -> Result<Libvirt, Failed> {
        // Not in /tmp with its modes: the paths of sockets are short, and nobody else looks in.
        let dir = tempfile::tempdir_in("/var/tmp")?;
        let daemon = Mutex::new(libvirtd(dir.path())?);
        let libvirt = Libvirt { dir, daemon };
        libvirt.define()?;
        wait_for("qemu-ga", BOOT_LIMIT, || {
            Qga::through_libvirt(LibvirtDaemon::System, "vslice-test").ok()
        })?;
        plug_by_hand()?;
        Ok(libvirt)
    }

    fn define(&self) -> Outcome {
        let (image, disk) = (image(), self.dir.path().join("disk.img"));
        let mut copy = Command::new("cp");
        copy.arg("--sparse=never").arg(image.join("disk.img")).arg(&disk);
        check(copy.status()?.success(), || "the disk cannot be copied".to_owned())?;
        let xml = self.dir.path().join("vslice-test.xml");
        fs::write(&xml, domain(&image, &disk))?;
        virsh(&["create", xml.to_str().ok_or("a path of letters")?]).map(drop)
    }

    fn dir(&self) -> Result<tempfile::TempDir, Failed> {
        Ok(tempfile::tempdir_in(self.dir.path())?)
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        let _may_be_gone = virsh(&["destroy", "vslice-test"]);
    }
}

/// By the line that `vslice doctor` has for it; the domain has no way to this host before, and one after.
fn plug_by_hand() -> Outcome {
    let before = doctor("vslice-test")?;
    check(before["can_load"] == false, || format!("{before:#}"))?;
    let line = before["plug"]["plug"][0].as_str().ok_or("no line")?;
    let output = Command::new("sh").args(["-c", line]).output()?;
    check(output.status.success(), || {
        format!("{line}: {}", String::from_utf8_lossy(&output.stderr))
    })?;
    let after = doctor("vslice-test")?;
    check(after["can_load"] == true && after["plug"].is_null(), || format!("{after:#}"))
}

fn domain(image: &Path, disk: &Path) -> String {
    format!(
        "<domain type='qemu'>
  <name>vslice-test</name>
  <memory unit='MiB'>512</memory>
  <vcpu>2</vcpu>
  <iothreads>1</iothreads>
  <os>
    <type arch='x86_64'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initrd}</initrd>
    <cmdline>quiet panic=-1</cmdline>
  </os>
  <cpu mode='maximum'/>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw' cache='none' io='native' iothread='1'/>
      <source file='{disk}'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <channel type='unix'>
      <target type='virtio' name='org.qemu.guest_agent.0'/>
    </channel>
  </devices>
</domain>
",
        kernel = image.join("vmlinux").display(),
        initrd = image.join("initramfs.cpio.gz").display(),
        disk = disk.display(),
    )
}

/// And its threads are pinned meanwhile, and put back.
fn started(libvirt: &Libvirt) -> Outcome {
    let dir = libvirt.dir()?;
    let before = vcpu_affinities()?;
    let plan = dir.path().join("load.toml");
    let args = ["--total", "1MiB", "--pin", plan.to_str().ok_or("a path of letters")?];
    let output = attach("vslice-test", dir.path(), &args)?.wait_with_output()?;
    is_complete(&output, 256)?;
    phases_are_known(&summary(&output)?, &libvirt.dir.path().join("disk.img"), 256)?;
    let run: Value = serde_json::from_slice(&fs::read(dir.path().join("run/run.json"))?)?;
    let packages = run["image"]["vslice-test"]["packages"].as_array().map_or(0, Vec::len);
    check(packages > 50, || format!("the image's manifest: {}", run["image"]))?;
    let threads = run["vms"][0]["threads"].as_array().ok_or("no threads")?;
    let pin = |vcpu| threads.iter().find(|thread| thread["vcpu"] == vcpu).map(|t| &t["pinned"]);
    check(pin(0) == Some(&json!(0)) && pin(1) == Some(&json!(1)), || format!("{threads:?}"))?;
    check(vcpu_affinities()? == before, || format!("they were {before:?}"))?;
    is_clean(&mut Qga::through_libvirt(LibvirtDaemon::System, "vslice-test")?)
}

fn vcpu_affinities() -> Result<Vec<Vec<PcpuId>>, Failed> {
    let vms = vm::find_all();
    let vm = vms.iter().find(|vm| vm.is_called("vslice-test")).ok_or("vslice-test is not found")?;
    Ok(vm.vcpus().map(|thread| thread.affinity.clone()).collect())
}

fn without_daemons(libvirt: &Libvirt) -> Outcome {
    let dir = libvirt.dir()?;
    let attached = attach("vslice-test", dir.path(), &["--total", "32MiB"])?;
    wait_for_requests(dir.path())?;
    let mut qga = Qga::through_libvirt(LibvirtDaemon::System, "vslice-test")?;
    let before = qemu_ga_pid(&mut qga)?;
    // It ends its own process, and systemd all that was started by it and stayed in its unit: so it may
    // not come to answer.
    let _ends_with_it = qga.start("systemctl", &["restart", "qemu-guest-agent"]);
    let mut daemon = libvirt.daemon.lock().unwrap_or_else(PoisonError::into_inner);
    let pid = i32::try_from(daemon.0.id())?;
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    daemon.0.wait()?;
    *daemon = libvirtd(libvirt.dir.path())?;
    is_complete(&attached.wait_with_output()?, 8192)?;
    let again = || Qga::through_libvirt(LibvirtDaemon::System, "vslice-test").ok();
    let mut qga = wait_for("qemu-ga", STEP_LIMIT, again)?;
    check(qemu_ga_pid(&mut qga)? != before, || format!("qemu-ga is still {before}"))?;
    is_clean(&mut qga)
}

fn qemu_ga_pid(qga: &mut Qga) -> Result<String, Failed> {
    let args = ["show", "--property=MainPID", "qemu-guest-agent"];
    Ok(qga.run("systemctl", &args, STEP_LIMIT)?.out)
}

fn killed(libvirt: &Libvirt) -> Outcome {
    let dir = libvirt.dir()?;
    let before = vcpu_affinities()?;
    let plan = dir.path().join("load.toml");
    let args = ["--total", "8GiB", "--pin", plan.to_str().ok_or("a path of letters")?];
    let mut attached = attach("vslice-test", dir.path(), &args)?;
    wait_for_requests(dir.path())?;
    attached.kill()?;
    let said = attached.wait_with_output()?;
    let said = || String::from_utf8_lossy(&said.stderr).into_owned();
    let pins = [vec![PcpuId(0)], vec![PcpuId(1)]];
    check(vcpu_affinities()? == pins, || format!("{:?}: {}", vcpu_affinities(), said()))?;
    // The agent's lease ends what it started.
    is_clean(&mut Qga::through_libvirt(LibvirtDaemon::System, "vslice-test")?)?;
    let mut next = Command::new(env!("CARGO_BIN_EXE_vslice"));
    next.args(["attach", "vslice-test", "--duration", "100ms", "--output"])
        .arg(dir.path().join("next"));
    let output = next.stdin(Stdio::null()).output()?;
    let said = || String::from_utf8_lossy(&output.stderr).into_owned();
    check(output.status.success(), said)?;
    check(vcpu_affinities()? == before, || format!("they were {before:?}; {}", said()))
}

fn destroyed(libvirt: &Libvirt) -> Outcome {
    let dir = libvirt.dir()?;
    let attached = attach("vslice-test", dir.path(), &["--total", "8GiB"])?;
    wait_for_requests(dir.path())?;
    virsh(&["destroy", "vslice-test"])?;
    let output = attached.wait_with_output()?;
    let summary = summary(&output)?;
    let said = || {
        let (status, requests) = (&summary["status"], &summary["requests"]);
        format!("{status:#} {requests:#}\n{}", String::from_utf8_lossy(&output.stderr))
    };
    check(!output.status.success(), said)?;
    let why = summary["status"]["reason"].as_str().unwrap_or_default();
    check(summary["status"]["state"] == "partial" && why.contains("has ended"), said)?;
    check(summary["requests"]["count"].as_u64().is_some_and(|count| count > 0), said)
}
