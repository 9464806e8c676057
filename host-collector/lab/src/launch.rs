//! A lab: the guests of a plan, from their preparation to their end.
//!
//! ```text
//! Lab::prepare    disks are written, places to meet are known; nothing runs
//!    (the collector binds its listeners)
//! Lab::start      vhost-user devices and QEMUs run
//! Lab::check      has one of them ended?
//! Lab::stop       all of them have ended, disks and sockets are gone; so does dropping it
//! ```

use super::disk::{self, DiskError};
use super::image::MicroImage;
use super::plan::{LabAccelerator, Plan, VmPlan};
use super::process::{self, ChildSpec, ProcessError, SupervisedChild};
use super::qemu::{self, GuestFiles};
use super::vsock::{GuestEndpoint, Transport, TransportKind, VsockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use thiserror::Error;
use vslice_core::units::Tid;
use vslice_host::scratch::{PrivateDir, SOCKET_PATH_BYTES_MAX, ScratchError};

/// How long a device process may take to make its socket: it only has to start.
const DEVICE_START_LIMIT: Duration = Duration::from_secs(10);

/// The configuration of a lab.
#[derive(Debug, Clone, Copy)]
pub struct LabConfig<'a> {
    /// The plan, checked against this host.
    pub plan: &'a Plan,
    /// The image that the guests boot.
    pub image: &'a MicroImage,
    /// QEMU.
    pub qemu: &'a Path,
    /// The guests' accelerator.
    pub accelerator: LabAccelerator,
    /// The kind of transport between guests and collector.
    pub kind: &'a TransportKind,
    /// The existing directory for the logs of QEMU, of device processes and of consoles.
    pub logs: &'a Path,
    /// The directory in which the lab creates its [`PrivateDir`]; see
    /// [`vslice_host::scratch::parent_dir`].
    pub scratch: &'a Path,
    /// Is set to end the writing of disks early.
    pub interrupted: &'a AtomicBool,
}

/// Why a lab could not be launched, or ended.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// See [`ScratchError`].
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    /// See [`DiskError`].
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// See [`VsockError`].
    #[error(transparent)]
    Vsock(#[from] VsockError),
    /// See [`ProcessError`].
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// QEMU ended without a message of its own.
    #[error("{error}; the guest's console says: {console}")]
    Guest {
        /// The error about its end.
        error: ProcessError,
        /// The last line of the guest's console.
        console: String,
    },
}

/// One guest of a lab.
#[derive(Debug)]
pub struct Guest {
    name: String,
    endpoint: GuestEndpoint,
    device: Option<ChildSpec>,
    device_socket: Option<PathBuf>,
    qemu: ChildSpec,
    console: PathBuf,
    qmp: Option<PathBuf>,
    disk_image: Option<PathBuf>,
    /// Both, once started. QEMU comes first: fields are dropped in order, and the device should
    /// outlive it.
    qemu_child: Option<SupervisedChild>,
    device_child: Option<SupervisedChild>,
}

/// The guests of a plan.
#[derive(Debug)]
pub struct Lab {
    /// Before the directory: fields are dropped in order.
    guests: Vec<Guest>,
    /// Disks and sockets.
    _directory: PrivateDir,
}

impl Lab {
    /// Writes the disks and chooses the endpoint of each guest.
    ///
    /// # Errors
    /// [`LaunchError`]; nothing is left behind.
    pub fn prepare(config: &LabConfig<'_>) -> Result<Lab, LaunchError> {
        let directory = PrivateDir::create(config.scratch)?;
        let mut guests = Vec::new();
        for (index, vm) in (0..=u8::MAX).zip(&config.plan.vms) {
            guests.push(Guest::prepare(config, vm, index, directory.path())?);
        }
        Ok(Lab { guests, _directory: directory })
    }

    /// Starts all processes. The kernel kills them when the calling **thread** ends, see
    /// [`SupervisedChild::start`].
    ///
    /// # Errors
    /// [`LaunchError::Process`]; what was started is ended when the lab is dropped.
    pub fn start(&mut self) -> Result<(), LaunchError> {
        for guest in &mut self.guests {
            guest.start()?;
        }
        Ok(())
    }

    /// The guests, in the order of the plan.
    #[must_use]
    pub fn guests(&self) -> &[Guest] {
        &self.guests
    }

    /// Checks that all started processes are still running.
    ///
    /// # Errors
    /// [`LaunchError`] that says which one ended, how, and its last words.
    pub fn check(&mut self) -> Result<(), LaunchError> {
        self.guests.iter_mut().try_for_each(Guest::check)
    }

    /// Ends all guests. Guests that are powering off get `grace` to finish; after that the processes are
    /// terminated, and killed if they do not end.
    pub fn stop(mut self, grace: Duration) {
        let deadline = std::time::Instant::now() + grace;
        let children = |guest: &'_ mut Guest| guest.qemu_child.take();
        let mut qemus: Vec<SupervisedChild> = self.guests.iter_mut().filter_map(children).collect();
        while std::time::Instant::now() < deadline
            && qemus.iter_mut().any(|child| matches!(child.status(), Ok(None)))
        {
            std::thread::sleep(Duration::from_millis(10));
        }
        let devices = self.guests.iter_mut().filter_map(|guest| guest.device_child.take());
        qemus.extend(devices);
        qemus.iter_mut().for_each(SupervisedChild::ask_to_end);
        for child in &mut qemus {
            child.wait_or_kill(Duration::from_secs(2));
        }
    }
}

impl Guest {
    fn prepare(
        config: &LabConfig<'_>,
        vm: &VmPlan,
        index: u8,
        directory: &Path,
    ) -> Result<Guest, LaunchError> {
        let transport = config.kind.transport(directory, &vm.name, index, std::process::id())?;
        let image = directory.join(format!("{}.raw", vm.name));
        if let Some(disk) = &vm.disk {
            disk::create_scratch(&image, disk, config.interrupted)?;
        }
        let log = |kind: &str| config.logs.join(format!("{}.{kind}.log", vm.name));
        let console = log("console");
        // A run can do without a monitor, but a QEMU that cannot make its socket does not start.
        let qmp = Some(directory.join(format!("{}.qmp", vm.name)))
            .filter(|path| path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX);
        let files = GuestFiles {
            kernel: &config.image.kernel,
            initramfs: &config.image.initramfs,
            disk: &image,
            console: &console,
            qmp: qmp.as_deref(),
        };
        // The limit is also one for the disk and, under vhost-user, for the memory: both are files.
        let disk_bytes = vm.disk.as_ref().map_or(0, |disk| disk.size_bytes);
        let memory_bytes = u64::from(vm.memory_mib) << 20;
        let qemu = ChildSpec {
            title: format!("QEMU of {}", vm.name),
            program: config.qemu.to_owned(),
            args: qemu::guest_args(vm, config.accelerator, &transport, &files),
            log: log("qemu"),
            // Its threads are pinned once they exist.
            pcpu: None,
            file_bytes_max: Some(disk_bytes.max(memory_bytes).max(process::LOG_BYTES_MAX)),
        };
        let device = transport.device_command().map(|(program, args)| ChildSpec {
            title: format!("vhost-device-vsock of {}", vm.name),
            program,
            args,
            log: log("vsock"),
            // It carries what the collector reads: away from the vCPUs.
            pcpu: Some(config.plan.collector_pcpu),
            file_bytes_max: Some(process::LOG_BYTES_MAX),
        });
        let device_socket = match &transport {
            Transport::VhostUser { device_socket, .. } => Some(device_socket.clone()),
            Transport::Vhost { .. } | Transport::VirtioSerial { .. } => None,
        };
        Ok(Guest {
            name: vm.name.clone(),
            endpoint: transport.endpoint(),
            device,
            device_socket,
            qemu,
            console,
            qmp,
            disk_image: vm.disk.is_some().then_some(image),
            qemu_child: None,
            device_child: None,
        })
    }

    fn start(&mut self) -> Result<(), LaunchError> {
        if let (Some(spec), Some(socket)) = (&self.device, &self.device_socket) {
            let child = self.device_child.insert(SupervisedChild::start(spec)?);
            // QEMU connects to it as it starts, and does not try again.
            process::wait_for_file(child, socket, DEVICE_START_LIMIT)?;
        }
        self.qemu_child = Some(SupervisedChild::start(&self.qemu)?);
        Ok(())
    }

    /// Its name in the plan.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The endpoint at which the collector and the guest's agent connect.
    #[must_use]
    pub fn endpoint(&self) -> &GuestEndpoint {
        &self.endpoint
    }

    /// The process id of its QEMU, once started.
    #[must_use]
    pub fn qemu_pid(&self) -> Option<Tid> {
        self.qemu_child.as_ref().map(SupervisedChild::pid)
    }

    /// The process of its vhost-user device, if it has one and once that is started.
    #[must_use]
    pub fn device_pid(&self) -> Option<Tid> {
        self.device_child.as_ref().map(SupervisedChild::pid)
    }

    /// The path of its disk image, if it has a disk.
    #[must_use]
    pub fn disk_image(&self) -> Option<&Path> {
        self.disk_image.as_deref()
    }

    /// The socket of QEMU's monitor, see [`vslice_host::qmp`]: not for use while requests are
    /// measured. `None` if its path in this lab's directory is longer than a socket's may be.
    #[must_use]
    pub fn qmp_path(&self) -> Option<&Path> {
        self.qmp.as_deref()
    }

    /// What its kernel prints.
    #[must_use]
    pub fn console(&self) -> &Path {
        &self.console
    }

    /// QEMU's command line, for the run's manifest.
    #[must_use]
    pub fn command_line(&self) -> Vec<String> {
        let program = self.qemu.program.to_string_lossy().into_owned();
        let args = self.qemu.args.iter().map(|arg| arg.to_string_lossy().into_owned());
        std::iter::once(program).chain(args).collect()
    }

    /// Checks that its processes are still running.
    ///
    /// # Errors
    /// [`LaunchError`] that says which one ended, how, and its last words.
    pub fn check(&mut self) -> Result<(), LaunchError> {
        if let Some(child) = &mut self.qemu_child
            && let Err(error) = child.check()
        {
            // A QEMU that fails says why; one whose guest ended says nothing.
            // What the kernel says of a power off that the agent asked for explains nothing.
            let agent = process::last_line_with(&self.console, "vslice-agent: ");
            return Err(match agent.or_else(|| process::last_line(&self.console)) {
                Some(console) if process::last_line(&self.qemu.log).is_none() => {
                    LaunchError::Guest { error, console }
                }
                _ => error.into(),
            });
        }
        if let Some(child) = &mut self.device_child {
            child.check()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::process::Command;

    /// A lab whose QEMU is this shell script.
    fn lab(directory: &Path, script: &str) -> Result<Lab, LaunchError> {
        let qemu = directory.join("qemu");
        // Written by a child: a descriptor of this process could be inherited by what another test
        // forks at this moment, and a program that is open for writing cannot be executed.
        let written = Command::new("/bin/sh")
            .args(["-c", "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$0\" && chmod 755 \"$0\""])
            .arg(&qemu)
            .arg(script)
            .status();
        assert!(written.expect("a shell").success());
        let mut plan = Plan::load("demo").expect("built in");
        for disk in plan.vms.iter_mut().filter_map(|vm| vm.disk.as_mut()) {
            // A test's scratch may be in memory.

            disk.cache = vslice_host::disk::Cache::Writeback;
            disk.size_bytes = 1 << 20;
        }
        let image = MicroImage {
            kernel: directory.join("vmlinux"),
            initramfs: directory.join("initramfs.cpio.gz"),
            manifest: serde_json::Value::Null,
        };
        Lab::prepare(&LabConfig {
            plan: &plan,
            image: &image,
            qemu: &qemu,
            accelerator: LabAccelerator::Tcg,
            kind: &TransportKind::VirtioSerial,
            logs: directory,
            scratch: directory,
            interrupted: &AtomicBool::new(false),
        })
    }

    fn private_dirs(directory: &Path) -> usize {
        let entries = fs::read_dir(directory).expect("readable").flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("vslice-")).count()
    }

    fn wait(lab: &mut Lab) -> String {
        loop {
            if let Err(error) = lab.check() {
                return error.to_string();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_lab_that_is_stopped_leaves_its_logs_and_nothing_else() {
        let directory = tempfile::tempdir().expect("scratch");
        let mut lab = lab(directory.path(), "exec sleep 600").expect("prepared");
        assert_eq!(private_dirs(directory.path()), 1);
        assert_eq!(lab.guests()[0].qemu_pid(), None);
        let socket = lab.guests()[0].qmp_path().expect("a short path").to_owned();
        let option = format!("unix:{},server=on,wait=off", socket.display());
        let line = lab.guests()[0].command_line();
        assert!(line.iter().any(|argument| *argument == *option), "{line:?}");
        lab.start().expect("shells");
        lab.check().expect("they sleep");
        let pids: Vec<Tid> = lab.guests().iter().filter_map(Guest::qemu_pid).collect();
        assert_eq!(pids.len(), 2);
        lab.stop(Duration::ZERO);
        assert_eq!(private_dirs(directory.path()), 0);
        for pid in pids {
            assert!(vslice_host::procfs::start_ticks(pid).is_none(), "{pid} is still there");
        }
        assert!(directory.path().join("vm2.qemu.log").exists());
    }

    #[test]
    fn a_path_that_is_too_long_for_a_monitor_costs_the_monitor_only() {
        let directory = tempfile::tempdir().expect("scratch");
        let deep = directory.path().join("d".repeat(100));
        fs::create_dir(&deep).expect("scratch is writable");
        let plan = Plan::load("demo").expect("built in");
        let vm = &plan.vms[1];
        let image = MicroImage {
            kernel: PathBuf::new(),
            initramfs: PathBuf::new(),
            manifest: serde_json::Value::Null,
        };
        let config = LabConfig {
            plan: &plan,
            image: &image,
            qemu: Path::new("qemu"),
            accelerator: LabAccelerator::Kvm,
            kind: &TransportKind::Vhost,
            logs: &deep,
            scratch: &deep,
            interrupted: &AtomicBool::new(false),
        };
        let guest = Guest::prepare(&config, vm, 1, &deep).expect("vhost needs no socket");
        assert_eq!(guest.qmp_path(), None);
        assert!(!guest.command_line().iter().any(|argument| argument == "-qmp"));
    }

    #[test]
    fn a_qemu_that_ends_says_which_guest_it_had_and_why() {
        let directory = tempfile::tempdir().expect("scratch");
        let script =
            "case $2 in vm2,*) echo 'could not open disk' >&2; exit 1;; esac; exec sleep 600";
        let mut lab = lab(directory.path(), script).expect("prepared");
        lab.start().expect("shells");
        assert_eq!(wait(&mut lab), "QEMU of vm2 ended with status 1: could not open disk");
        drop(lab);
        assert_eq!(private_dirs(directory.path()), 0);
    }

    #[test]
    fn a_guest_that_ends_is_quoted() {
        for (console_text, quoted) in [
            ("up\nKernel panic - not syncing\n", "Kernel panic - not syncing"),
            ("vslice-agent: no lease\nreboot: Power down\n", "vslice-agent: no lease"),
        ] {
            let directory = tempfile::tempdir().expect("scratch");
            let console = directory.path().join("vm1.console.log");
            let script = format!(
                "case $2 in vm2,*) exec sleep 600;; esac; printf '{console_text}' > {}",
                console.display()
            );
            let mut lab = lab(directory.path(), &script).expect("prepared");
            lab.start().expect("shells");
            let message = wait(&mut lab);
            assert!(message.starts_with("QEMU of vm1 ended with status 0"), "{message}");
            assert!(message.ends_with(&format!("console says: {quoted}")), "{message}");
        }
    }
}
