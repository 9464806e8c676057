//! A VM as a command line of QEMU.

use super::{Dataplane, Emission, EmitError, Feature};
use crate::plan::{DiskPlan, LabAccelerator};
use crate::qemu::{
    DISK_NODE, accelerator_args, clock_parameters, console_args, disk_args, machine_args,
    monitor_args, name_args, size_args, transport_args, words,
};
use crate::tools;
use crate::vsock::Transport;
use std::ffi::OsString;
use std::path::Path;
use vslice_host::disk::DiskBus;
use vslice_host::qemu_args::{AGENT_PORT, disk_devices, option};

/// What every guest's kernel is told: where to write, and to end QEMU by a panic.
const KERNEL_COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1";

/// The arguments of QEMU, without its own name.
///
/// # Errors
/// [`EmitError`], if this QEMU does not have what the plan asks for.
pub fn command_line(emission: &Emission<'_>) -> Result<Vec<OsString>, EmitError> {
    emission.check()?;
    let (vm, transport) = (emission.vm(), emission.transport()?);
    let mut args = match emission.version.has(Feature::DebugThreads) {
        true => name_args(&vm.name),
        false => words(["-name", &vm.name]),
    };
    args.extend(machine(emission, &transport));
    args.extend(size_args(vm.vcpus, vm.memory_mib, &transport));
    args.extend(boot(emission));
    args.extend(console_args(&emission.socket("console.log")));
    args.extend(monitor_args(&emission.socket("qmp")));
    args.extend(channels(emission, &transport));
    if let Some(disk) = &vm.disk {
        args.extend(disk_arguments(emission, disk)?);
    }
    Ok(args)
}

/// The disk's part of [`command_line`]: for a modern QEMU the very arguments of `vslice run`.
///
/// # Errors
/// As [`command_line`].
pub fn disk_arguments(
    emission: &Emission<'_>,
    disk: &DiskPlan,
) -> Result<Vec<OsString>, EmitError> {
    let dataplane = emission.dataplane(disk)?;
    if emission.version.has(Feature::ModernForm) {
        return Ok(disk_args(&disk.disk(&emission.files.disk)));
    }
    Ok(old_disk(emission, disk, dataplane))
}

/// The form before `-blockdev`: `-drive` knows the words of the cache, and gives them to the device.
fn old_disk(emission: &Emission<'_>, disk: &DiskPlan, dataplane: Dataplane) -> Vec<OsString> {
    let mut disk_of_plan = disk.disk(&emission.files.disk);
    // `x-data-plane` makes a thread of its own.
    if dataplane != Dataplane::Iothread {
        disk_of_plan.iothreads.clear();
    }
    if disk.bus == DiskBus::VirtioBlk && !emission.version.has(Feature::BlkQueues) {
        // What it has is one, which is all that the check has let through.
        disk_of_plan.queues = None;
    }
    let mut args = Vec::new();
    for id in &disk_of_plan.iothreads {
        args.extend(words(["-object", &format!("iothread,id={id}")]));
    }
    args.push("-drive".into());
    let (cache, aio) = (disk.cache.name(), disk.aio.name());
    let rest = format!(",format=raw,cache={cache},aio={aio}");
    let before = format!("if=none,id={DISK_NODE},file=");
    args.push(option(&before, &emission.files.disk, &rest));
    let mut drive = format!("drive={DISK_NODE}");
    if disk.bus == DiskBus::VirtioBlk {
        for (property, value) in dataplane_properties(emission, dataplane) {
            drive.push_str(&format!(",{property}={value}"));
        }
    }
    for device in disk_devices(&disk_of_plan, &drive) {
        args.extend(["-device".into(), device.into()]);
    }
    args
}

/// What virtio-blk needs beside its iothread for a dataplane of this QEMU.
pub(super) fn dataplane_properties(
    emission: &Emission<'_>,
    dataplane: Dataplane,
) -> Vec<(&'static str, &'static str)> {
    let on = dataplane != Dataplane::Off;
    let version = emission.version;
    [
        (on && version.has(Feature::ScsiToBeOff), ("scsi", "off")),
        (on && version.has(Feature::ConfigWceToBeOff), ("config-wce", "off")),
        (dataplane == Dataplane::XDataPlane, ("x-data-plane", "on")),
    ]
    .into_iter()
    .filter_map(|(needed, property)| needed.then_some(property))
    .collect()
}

fn machine(emission: &Emission<'_>, transport: &Transport) -> Vec<OsString> {
    let accelerator = emission.accelerator();
    let mut args = machine_args(transport);
    if emission.version.has(Feature::ModernForm) {
        args.extend(accelerator_args(accelerator));
        return args;
    }
    // The machine is the last word of its arguments.
    let machine = match accelerator {
        LabAccelerator::Kvm => "pc,accel=kvm",
        LabAccelerator::Tcg => "pc,accel=tcg",
    };
    args.pop();
    args.push(machine.into());
    match accelerator {
        LabAccelerator::Kvm if emission.version.has(Feature::Migratable) => {
            args.extend(words(["-cpu", "host,migratable=off"]));
        }
        LabAccelerator::Kvm => args.extend(words(["-cpu", "host"])),
        // `max` came with `-accel`; what is left is the default.
        LabAccelerator::Tcg => {}
    }
    args
}

fn boot(emission: &Emission<'_>) -> Vec<OsString> {
    let mut args = Vec::new();
    if let Some(kernel) = &emission.files.kernel {
        args.extend(["-no-reboot".into(), "-kernel".into(), kernel.into()]);
        if let Some(initramfs) = &emission.files.initramfs {
            args.extend(["-initrd".into(), initramfs.into()]);
        }
        args.extend(words(["-append", &kernel_command_line(emission)]));
    }
    args
}

/// What the guest's kernel is told.
pub(super) fn kernel_command_line(emission: &Emission<'_>) -> String {
    let clock = clock_parameters(emission.vm(), emission.accelerator());
    [KERNEL_COMMAND_LINE].into_iter().chain(clock).collect::<Vec<_>>().join(" ")
}

/// What a guest that boots by itself has to tell its kernel.
pub(super) fn clock_hint(emission: &Emission<'_>) -> Option<String> {
    let clock = clock_parameters(emission.vm(), emission.accelerator());
    clock.filter(|_| emission.files.kernel.is_none()).map(|clock| {
        format!(
            "It is observed under TCG: start its kernel with {clock}, or each event costs an exit to read the \
             HPET."
        )
    })
}

/// qemu-ga's port, and the agent's: both are on one controller.
fn channels(emission: &Emission<'_>, transport: &Transport) -> Vec<OsString> {
    let mut args = transport_args(transport);
    if !matches!(transport, Transport::VirtioSerial { .. }) {
        args.extend(words(["-device", "virtio-serial-pci"]));
    }
    args.push("-chardev".into());
    args.push(option("socket,id=qga,path=", &emission.socket("qga"), ",server=on,wait=off"));
    args.extend(words(["-device", &format!("virtserialport,chardev=qga,name={AGENT_PORT}")]));
    args
}

/// A VM's whole command as a shell takes it, with what a command line cannot say as comments before it.
///
/// # Errors
/// As [`command_line`].
pub fn script(emission: &Emission<'_>) -> Result<String, EmitError> {
    Ok(heading(emission) + &shell(tools::QEMU, &command_line(emission)?))
}

/// The command as a shell takes it, one option a line.
#[must_use]
pub fn shell(program: &str, args: &[OsString]) -> String {
    let mut text = program.to_owned();
    let mut is_value = false;
    for arg in args {
        let arg = arg.to_string_lossy();
        let is_option = !is_value && arg.starts_with('-');
        text.push_str(if is_option { " \\\n  " } else { " " });
        text.push_str(&quoted(&arg));
        is_value = is_option && !FLAGS.contains(&arg.as_ref());
    }
    text.push('\n');
    text
}

/// Options that are followed by no value.
const FLAGS: [&str; 3] = ["-nodefaults", "-no-user-config", "-no-reboot"];

fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=,.:/+%@".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// What precedes a printed command: what a command line cannot say.
#[must_use]
pub fn heading(emission: &Emission<'_>) -> String {
    let (name, version) = (&emission.vm().name, emission.version);
    let mut text = format!(
        "# {name} for QEMU {version}. QEMU pins no threads: `vslice attach {name} --pin PLAN` does.\n"
    );
    if !emission.boots() {
        text.push_str("# It has neither a disk nor a kernel to boot: see --kernel, --initramfs.\n");
    }
    if let Some(hint) = clock_hint(emission) {
        text.push_str(&format!("# {hint}\n"));
    }
    text
}

/// Whether a path is one that the printed command means: a shell's text is UTF-8 here.
#[must_use]
pub fn is_printable(path: &Path) -> bool {
    path.to_str().is_some_and(|text| !text.chars().any(char::is_control))
}
