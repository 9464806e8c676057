//! A guest as users have them, with fio and PostgreSQL in it: the image of `make load-image`. What it
//! does is started through its qemu-ga, so vslice has no part in it.

use libtest_mimic::Failed;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use vslice_core::units::Tid;
use vslice_host::qga::Qga;
use vslice_host::vm;
use vslice_lab::tools;

/// Under TCG it has booted after 15 to 25 s.
const BOOT_LIMIT: Duration = Duration::from_secs(180);
/// For what is started in the guest.
const STEP_LIMIT: Duration = Duration::from_secs(120);

/// The guest's disk without a file system, `/dev/vdb` there; its beginning has data, for the host reads
/// nothing where nothing was written.
const RAW_BYTES: u64 = 64 << 20;
/// The disk with a file system, `/dev/vdc` in the guest.
const FILES_BYTES: u64 = 384 << 20;

/// The guest's name, by which it is attached to.
pub(super) const NAME: &str = "db1";

/// The image, by the environment variable `VSLICE_LOAD_IMAGE`, which `make test` sets.
///
/// # Errors
/// Why there is none, for the ignored tests to say.
pub(super) fn image() -> Result<PathBuf, String> {
    let image = std::env::var_os("VSLICE_LOAD_IMAGE").map(PathBuf::from);
    let image = image.ok_or("VSLICE_LOAD_IMAGE is not set, see make test")?;
    if image.join("disk.img").exists() {
        return Ok(image);
    }
    Err(format!("{} has no disk.img, see make load-image", image.display()))
}

/// The guest that runs, with vCPU n on pCPU n and all else of its QEMU on pCPU 0. It ends with this value.
pub(crate) struct LoadGuest {
    dir: TempDir,
    qemu: Guarded,
}

/// A process that ends with this value.
pub(super) struct Guarded(pub(super) Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _may_have_ended = self.0.kill();
        let _status = self.0.wait();
    }
}

impl LoadGuest {
    /// Boots it, until its qemu-ga answers.
    pub(super) fn start(image: &Path) -> Result<LoadGuest, Failed> {
        // Its disks are opened with O_DIRECT, and on a disk whose I/O the host tells.
        let parent =
            std::env::var_os("VSLICE_TMP").map_or_else(|| "/var/tmp".into(), PathBuf::from);
        let dir = tempfile::Builder::new().prefix("loads-").tempdir_in(parent)?;
        fill(&dir.path().join("raw.img"))?;
        make_file_system(&dir.path().join("files.img"))?;
        let qemu = Guarded(command(image, dir.path())?.stdin(Stdio::null()).spawn()?);
        let guest = LoadGuest { dir, qemu };
        let deadline = Instant::now() + BOOT_LIMIT;
        while Qga::connect(&guest.socket()).is_err() {
            if Instant::now() > deadline {
                let console = fs::read_to_string(guest.path("console")).unwrap_or_default();
                return Err(format!("qemu-ga of the guest is silent: {console}").into());
            }
            sleep(Duration::from_millis(200));
        }
        guest.pin()?;
        guest.run("mkdir -p /srv/files && mount /dev/vdc /srv/files")?;
        Ok(guest)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn socket(&self) -> PathBuf {
        self.path("ga")
    }

    fn pin(&self) -> Result<(), Failed> {
        let pid = self.qemu.0.id();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
            pin(entry.file_name().to_string_lossy().parse()?, 0)?;
        }
        let vm = vm::look_at(Tid(pid), None).ok_or("the guest is not seen as a VM")?;
        for thread in &vm.threads {
            if let Some(vcpu) = thread.vcpu {
                pin(thread.tid.0, usize::from(vcpu.0))?;
            }
        }
        Ok(())
    }

    /// Runs a line of its shell to its end.
    pub(super) fn run(&self, line: &str) -> Result<(), Failed> {
        let ended = self.qga()?.run("sh", &["-c", line], STEP_LIMIT)?;
        if ended.is_success() {
            return Ok(());
        }
        Err(format!("in the guest, {line}: {:?}: {}", ended.code, ended.last_words()).into())
    }

    /// A file of the guest, as far as 256 KiB.
    pub(super) fn file(&self, path: &str) -> Result<String, Failed> {
        let bytes = self.qga()?.read_file(path).ok_or(format!("the guest has no {path}"))?;
        Ok(String::from_utf8(bytes)?)
    }

    /// It has one client at a time, and vslice is one until it has started its agent.
    fn qga(&self) -> Result<Qga, Failed> {
        let mut result = Qga::connect(&self.socket());
        for _ in 0..10 {
            if result.is_ok() {
                break;
            }
            result = Qga::connect(&self.socket());
        }
        Ok(result?)
    }
}

fn pin(tid: u32, pcpu: usize) -> Result<(), Failed> {
    let mut pcpus = CpuSet::new();
    pcpus.set(pcpu)?;
    Ok(sched_setaffinity(Pid::from_raw(i32::try_from(tid)?), &pcpus)?)
}

fn fill(path: &Path) -> Result<(), Failed> {
    let mut file = BufWriter::new(File::create(path)?);
    for block in 0..RAW_BYTES / 4096 {
        file.write_all(&block.to_le_bytes().repeat(512))?;
    }
    Ok(file.into_inner()?.sync_all()?)
}

fn make_file_system(path: &Path) -> Result<(), Failed> {
    File::create(path)?.set_len(FILES_BYTES)?;
    let mut command = Command::new(tools::find("mke2fs").ok_or("there is no mke2fs")?);
    let status = command.args(["-q", "-t", "ext4"]).arg(path).status()?;
    if status.success() { Ok(()) } else { Err(format!("mke2fs: {status}").into()) }
}

fn command(image: &Path, dir: &Path) -> Result<Command, Failed> {
    let file = |name: &str| dir.join(name).display().to_string();
    let chardev = |id: &str| format!("socket,id={id},path={},server=on,wait=off", file(id));
    let disk =
        |id: &str, rest: &str| format!("if=none,id={id},format=raw,{rest},file={}", file(id));
    let mut command = Command::new(tools::find(tools::QEMU).ok_or("there is no QEMU")?);
    command
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "768"])
        .args(["-name", &format!("guest={NAME},debug-threads=on")])
        .arg("-kernel")
        .arg(image.join("vmlinux"))
        .arg("-initrd")
        .arg(image.join("initramfs.cpio.gz"))
        // Under TCG the clock source is hpet otherwise, and each reading of it an exit.
        .args(["-append", "quiet panic=-1 console=ttyS0 tsc=reliable clocksource=tsc"])
        .args(["-serial", &format!("file:{}", file("console"))])
        .arg("-drive")
        .arg(format!(
            "if=none,id=root,format=raw,snapshot=on,file={}",
            image.join("disk.img").display()
        ))
        .args(["-device", "virtio-blk-pci,drive=root"]);
    for id in ["raw.img", "files.img"] {
        command.args(["-drive", &disk(id, "cache=none,aio=native")]);
        command.args(["-device", &format!("virtio-blk-pci,drive={id},serial={id}")]);
    }
    command
        .args(["-device", "virtio-serial-pci", "-chardev", &chardev("ga")])
        .args(["-device", "virtserialport,chardev=ga,name=org.qemu.guest_agent.0"])
        .args(["-chardev", &chardev("load")])
        .args(["-device", "virtserialport,chardev=load,name=vslice.agent"]);
    Ok(command)
}
