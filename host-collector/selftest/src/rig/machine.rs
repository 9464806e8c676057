//! One QEMU with one boot-sector guest, from its start until it is dropped.

mod error;

use super::boot_sector::{COUNTER_ADDRESS, ERROR_COUNTER_ADDRESS, Guest};
use super::frontend::{Frontend, MachineFiles, machine_args};
use nix::errno::Errno;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use vslice_core::units::{PcpuId, Tid};
use vslice_host::pin::{PinError, set_affinity};
use vslice_host::qmp::{Qmp, QmpError};
use vslice_host::scratch::{self, PrivateDir};
use vslice_host::threads::{self, VmmThread};
use vslice_lab::accelerator::{AcceleratorChoice, KVM, open_kvm};
use vslice_lab::disk;
use vslice_lab::plan::{DiskPlan, LabAccelerator};
use vslice_lab::process::{self, ChildSpec, SupervisedChild};
use vslice_trace::thread::ThreadRole;

pub use error::MachineError;

/// The disk: large enough that a guest needs seconds to read it once.
const DISK_SECTORS: u32 = 0x8000;

/// The same in bytes: 16 MiB.
const DISK_BYTES: u64 = 512 * DISK_SECTORS as u64;

/// A [`Guest::Reader`] of the whole disk.
pub const READER: Guest = Guest::Reader { disk_sectors: DISK_SECTORS };

/// How long a guest may take to boot and count. About 1 s is usual, 5 s where KVM is emulated, and more than
/// 30 s were seen there with others on all pCPUs.
pub const START_LIMIT: Duration = Duration::from_secs(120);

/// How long [`choose_accelerator`] gives KVM: a KVM that cannot run real mode hangs or ends at once.
pub const PROBE_LIMIT: Duration = Duration::from_secs(30);

/// How long QEMU may take for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// How often a counter is looked at until it moves.
const POLL: Duration = Duration::from_millis(20);

/// What to start.
#[derive(Debug, Clone)]
pub struct MachineConfig {
    /// QEMU, see [`vslice_lab::tools::find`].
    pub qemu: PathBuf,
    /// What runs the guest.
    pub accelerator: LabAccelerator,
    /// The guest.
    pub guest: Guest,
    /// Its disk.
    pub frontend: Frontend,
    /// Where its threads run; anywhere if `None`.
    pub placement: Option<Placement>,
    /// How long it may take to start.
    pub start_limit: Duration,
}

/// Where the threads of a machine run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// The vCPU thread.
    pub vcpu: PcpuId,
    /// All the others.
    pub others: PcpuId,
}

/// A guest that runs. Dropping it kills QEMU and removes the disk.
#[derive(Debug)]
pub struct Machine {
    monitor: Qmp,
    /// Before the directory: fields are dropped in order.
    child: SupervisedChild,
    directory: PrivateDir,
    vcpu: Tid,
    iothread: Option<Tid>,
}

impl Machine {
    /// Starts QEMU, finds and places its threads, and waits until the guest counts.
    ///
    /// The kernel ends QEMU when the calling **thread** ends, see [`SupervisedChild::start`].
    ///
    /// # Errors
    /// [`MachineError`]; nothing is left behind.
    pub fn start(config: &MachineConfig) -> Result<Machine, MachineError> {
        let deadline = Instant::now() + config.start_limit;
        let directory = PrivateDir::create(&scratch::parent_dir())?;
        let path = |name: &str| directory.path().join(name);
        let (disk, monitor_socket) = (path("disk.raw"), path("qmp"));
        write_disk(&disk, config.guest)?;
        let files = MachineFiles {
            disk: &disk,
            monitor: &monitor_socket,
            second_monitor: &second_monitor_path(&directory),
        };
        let args = machine_args(config.guest, config.frontend, config.accelerator, &files);
        let mut child = SupervisedChild::start(&ChildSpec {
            title: title(config),
            program: config.qemu.clone(),
            args,
            log: log_path(&directory),
            pcpu: None,
            file_bytes_max: Some(process::LOG_BYTES_MAX.max(DISK_BYTES)),
        })?;
        process::wait_for_file(&mut child, &monitor_socket, config.start_limit)?;
        let monitor = connect(&mut child, &monitor_socket, deadline)?;
        let (vcpu, iothread) = find_threads(&child, config.frontend)?;
        let mut machine = Machine { monitor, child, directory, vcpu, iothread };
        if let Some(placement) = config.placement {
            machine.place(placement)?;
        }
        machine.wait_until_it_counts(deadline, config.start_limit)?;
        if let Some(placement) = config.placement {
            // The first KVM_RUN makes a thread of the kernel's in QEMU, `kvm-nx-lpage-re`, which
            // has inherited the vCPU's place (linux: arch/x86/kvm/mmu/mmu.c, kvm_mmu_post_init_vm).
            machine.place(placement)?;
        }
        Ok(machine)
    }

    /// QEMU's process, which is the thread of its main loop.
    #[must_use]
    pub fn pid(&self) -> Tid {
        self.child.pid()
    }

    /// The vCPU thread.
    #[must_use]
    pub fn vcpu(&self) -> Tid {
        self.vcpu
    }

    /// The iothread, with [`Frontend::VirtioBlkIothread`].
    #[must_use]
    pub fn iothread(&self) -> Option<Tid> {
        self.iothread
    }

    /// All threads that QEMU has now.
    ///
    /// # Errors
    /// [`MachineError::Threads`].
    pub fn threads(&self) -> Result<Vec<VmmThread>, MachineError> {
        Ok(threads::list(self.pid())?)
    }

    /// A QMP socket that this machine does not use itself.
    #[must_use]
    pub fn second_monitor(&self) -> PathBuf {
        second_monitor_path(&self.directory)
    }

    /// Puts the threads where they should run. Those that are born later run where the thread did
    /// that made them, which is a vCPU thread never.
    ///
    /// # Errors
    /// [`MachineError::Threads`] and [`MachineError::Pin`].
    pub fn place(&mut self, placement: Placement) -> Result<(), MachineError> {
        for thread in self.threads()? {
            let is_vcpu = thread.tid == self.vcpu;
            let pcpu = if is_vcpu { placement.vcpu } else { placement.others };
            match set_affinity(thread.tid, &[pcpu]) {
                Ok(()) | Err(Errno::ESRCH) => {}
                // The kernel's own helpers in the process may refuse; the rest must not.
                Err(Errno::EINVAL) if thread.role == ThreadRole::Other => {}
                Err(errno) => {
                    return Err(PinError::Affinity { tid: thread.tid, pcpu, errno }.into());
                }
            }
        }
        Ok(())
    }

    /// How far the guest is. **QEMU's main loop takes the BQL for it**: not while something is
    /// measured.
    ///
    /// # Errors
    /// [`MachineError::Process`] if QEMU has ended, [`MachineError::Monitor`] otherwise.
    pub fn counter(&mut self) -> Result<u32, MachineError> {
        self.word(COUNTER_ADDRESS)
    }

    /// How many reads of a [`Guest::Reader`] have failed; as [`Machine::counter`].
    ///
    /// # Errors
    /// As [`Machine::counter`].
    pub fn error_count(&mut self) -> Result<u32, MachineError> {
        self.word(ERROR_COUNTER_ADDRESS)
    }

    /// That QEMU is still there.
    ///
    /// # Errors
    /// [`MachineError::Process`] with its last words.
    pub fn check(&mut self) -> Result<(), MachineError> {
        Ok(self.child.check()?)
    }

    fn word(&mut self, address: u16) -> Result<u32, MachineError> {
        let answer = self.monitor.human_monitor_command(&format!("xp /1xw {address:#x}"));
        let answer = answer.map_err(|source| monitor_error(&mut self.child, source))?;
        parse_word(&answer).ok_or_else(|| MachineError::Word {
            title: self.child.title().to_owned(),
            address,
            answer: answer.trim().to_owned(),
        })
    }

    /// The counter has to move twice: memory that firmware left is no guest that runs.
    fn wait_until_it_counts(
        &mut self,
        deadline: Instant,
        limit: Duration,
    ) -> Result<(), MachineError> {
        let (mut before, mut moves) = (self.counter()?, 0);
        while moves < 2 {
            if Instant::now() >= deadline {
                return Err(MachineError::NotRunning {
                    title: self.child.title().to_owned(),
                    limit,
                    counter: self.counter()?,
                    error_count: self.error_count()?,
                    last_words: process::last_line(&log_path(&self.directory))
                        .unwrap_or_else(|| "none".to_owned()),
                });
            }
            std::thread::sleep(POLL);
            self.check()?;
            let now = self.counter()?;
            moves += u32::from(now != before);
            before = now;
        }
        Ok(())
    }
}

/// KVM if it runs a boot sector here, else TCG; the reason says what was seen.
///
/// This asks less of KVM than [`vslice_lab::accelerator::probe`] does: real mode is all that the rig
/// needs, and some KVMs run that and no kernel.
#[must_use]
pub fn choose_accelerator(qemu: &Path) -> AcceleratorChoice {
    let tcg = |reason| AcceleratorChoice { accelerator: LabAccelerator::Tcg, reason };
    if let Err(error) = open_kvm() {
        return tcg(format!("{KVM} cannot be used: {error}"));
    }
    let begin = Instant::now();
    let machine = Machine::start(&MachineConfig {
        qemu: qemu.to_owned(),
        accelerator: LabAccelerator::Kvm,
        guest: Guest::Hog,
        frontend: Frontend::VirtioBlk,
        placement: None,
        start_limit: PROBE_LIMIT,
    });
    match machine {
        Ok(_) => AcceleratorChoice {
            accelerator: LabAccelerator::Kvm,
            reason: format!(
                "a boot sector runs under KVM after {:.1} s",
                begin.elapsed().as_secs_f64()
            ),
        },
        Err(error) => tcg(format!("KVM is available but does not run a boot sector: {error}")),
    }
}

fn title(config: &MachineConfig) -> String {
    let accelerator = match config.accelerator {
        LabAccelerator::Kvm => "KVM",
        LabAccelerator::Tcg => "TCG",
    };
    let (guest, frontend) = (config.guest.name(), config.frontend.name());
    format!("QEMU of the {guest} guest on {frontend} under {accelerator}")
}

fn log_path(directory: &PrivateDir) -> PathBuf {
    directory.path().join("qemu.log")
}

fn second_monitor_path(directory: &PrivateDir) -> PathBuf {
    directory.path().join("qmp2")
}

/// Real data all over, so that reads reach the storage, and the guest in the first sector.
fn write_disk(path: &Path, guest: Guest) -> Result<(), MachineError> {
    let plan = DiskPlan::of_size(DISK_BYTES);
    disk::create_scratch(path, &plan, &AtomicBool::new(false))?;
    let write = || {
        let mut file = OpenOptions::new().write(true).open(path)?;
        file.write_all(&guest.boot_sector())?;
        file.sync_all()
    };
    write().map_err(|source| MachineError::BootSector { path: path.to_owned(), source })
}

fn connect(
    child: &mut SupervisedChild,
    socket: &Path,
    deadline: Instant,
) -> Result<Qmp, MachineError> {
    loop {
        match Qmp::connect_within(socket, ANSWER_LIMIT) {
            // The file is there from bind(2) on, and refuses until listen(2).
            Err(QmpError::Connect { source, .. })
                if source.kind() == io::ErrorKind::ConnectionRefused
                    && Instant::now() < deadline
                    && child.check().is_ok() =>
            {
                std::thread::sleep(POLL);
            }
            Ok(monitor) => return Ok(monitor),
            Err(source) => return Err(monitor_error(child, source)),
        }
    }
}

/// A QEMU that has ended does not answer either, and then its last words say more.
fn monitor_error(child: &mut SupervisedChild, source: QmpError) -> MachineError {
    if let Err(ended) = child.check() {
        return ended.into();
    }
    MachineError::Monitor { title: child.title().to_owned(), source }
}

/// Reads `0000000000007e00: 0x0000002a`.
fn parse_word(text: &str) -> Option<u32> {
    let (_, number) = text.trim().split_once(": 0x")?;
    u32::from_str_radix(number, 16).ok()
}

/// They are all there once QMP answers: QEMU makes its devices and vCPUs before its main loop runs.
fn find_threads(
    child: &SupervisedChild,
    frontend: Frontend,
) -> Result<(Tid, Option<Tid>), MachineError> {
    let threads = threads::list(child.pid())?;
    let missing = |role| MachineError::NoThread {
        title: child.title().to_owned(),
        role,
        found: threads.iter().map(|thread| thread.comm.as_str()).collect::<Vec<_>>().join(", "),
    };
    let find = |wanted: fn(&ThreadRole) -> bool| {
        threads.iter().find(|thread| wanted(&thread.role)).map(|thread| thread.tid)
    };
    let vcpu = find(|role| matches!(role, ThreadRole::Vcpu(_))).ok_or_else(|| missing("vCPU"))?;
    let iothread = find(|role| matches!(role, ThreadRole::Iothread(_)));
    if frontend == Frontend::VirtioBlkIothread && iothread.is_none() {
        return Err(missing("iothread"));
    }
    Ok((vcpu, iothread))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_human_monitor_prints_memory_as_hexadecimal() {
        assert_eq!(parse_word("0000000000007e00: 0x0000002a\r\n"), Some(42));
        assert_eq!(parse_word("Cannot access memory\r\n"), None);
    }
}
