//! QEMU's command line for one guest: a pure function of the plan and of paths.

use super::plan::{LabAccelerator, VmPlan};
use super::vsock::Transport;
use std::ffi::OsString;
use std::path::Path;
use vslice_host::disk::Disk;
use vslice_host::qemu_args::{self, LOAD_PORT, option};

/// What a guest prints on its console when it was started with [`PROBE_PARAMETER`] and got as far
/// as the agent.
pub const PROBE_LINE: &str = "vslice-probe: guest is up";

/// The kernel parameter that asks the agent to print [`PROBE_LINE`] and power off.
pub const PROBE_PARAMETER: &str = "vslice.probe";

/// The name of the node of a guest's disk.
pub(super) const DISK_NODE: &str = "disk0";

/// What every guest's kernel is started with. `quiet`: under TCG each byte on the serial port is an exit with
/// the BQL held. `no_timer_check`: on a busy host the timer of an emulated guest may not tick as soon as the
/// kernel tries it, and it panics ("IO-APIC + timer doesn't work"); as a guest of KVM it does not try
/// (`paravirt_ops_setup` in arch/x86/kernel/kvm.c).
pub const KERNEL_PARAMETERS: &str = "console=ttyS0 quiet panic=-1 no_timer_check";

/// With these a guest under TCG takes the TSC for its clock, which there is the host's plus a constant. It
/// would take the HPET, of which each reading is an exit under the BQL: not only the agent's, but the
/// kernel's too, for each event of what it observes.
const TSC_PARAMETERS: &str = "tsc=reliable clocksource=tsc";

/// What the kernel of a guest is told of its clock beside, if it needs that.
pub(crate) fn clock_parameters(vm: &VmPlan, accelerator: LabAccelerator) -> Option<&'static str> {
    (vm.observe.is_some() && accelerator == LabAccelerator::Tcg).then_some(TSC_PARAMETERS)
}

/// The files of one guest.
#[derive(Debug, Clone, Copy)]
pub struct GuestFiles<'a> {
    /// The kernel.
    pub kernel: &'a Path,
    /// The initramfs.
    pub initramfs: &'a Path,
    /// The image of its disk; used if the plan has a disk.
    pub disk: &'a Path,
    /// Where its console goes.
    pub console: &'a Path,
    /// The socket of its monitor, if it is to have one.
    pub qmp: Option<&'a Path>,
}

/// The arguments of a guest that runs a workload.
#[must_use]
pub fn guest_args(
    vm: &VmPlan,
    accelerator: LabAccelerator,
    transport: &Transport,
    files: &GuestFiles<'_>,
) -> Vec<OsString> {
    let connect = format!("vslice.connect={}", transport.agent_address());
    let mut args = name_args(&vm.name);
    args.extend(machine_args(transport));
    args.extend(accelerator_args(accelerator));
    args.extend(size_args(vm.vcpus, vm.memory_mib, transport));
    let tsc = clock_parameters(vm, accelerator).map_or_else(String::new, |tsc| format!("{tsc} "));
    args.extend(boot_args(files, &format!("{tsc}{connect}")));
    args.extend(console_args(files.console));
    if let Some(socket) = files.qmp {
        args.extend(monitor_args(socket));
    }
    args.extend(transport_args(transport));
    if let Some(disk) = &vm.disk {
        args.extend(disk_args(&disk.disk(files.disk)));
    }
    args
}

/// The arguments of a guest that shows whether the accelerator runs a stock kernel, and ends.
#[must_use]
pub fn probe_args(accelerator: LabAccelerator, files: &GuestFiles<'_>) -> Vec<OsString> {
    let transport = Transport::Vhost { cid: 0, port: 0 };
    let mut args = name_args("probe");
    args.extend(machine_args(&transport));
    args.extend(accelerator_args(accelerator));
    args.extend(size_args(1, 256, &transport));
    args.extend(boot_args(files, PROBE_PARAMETER));
    args.extend(console_args(files.console));
    args
}

/// Threads get names (`CPU 0/KVM`, `IO io0`), by which their roles are found.
pub(super) fn name_args(name: &str) -> Vec<OsString> {
    words(["-name", &format!("{name},debug-threads=on")])
}

/// Nothing but what is asked for: every default device is something that takes the BQL.
pub(super) fn machine_args(transport: &Transport) -> Vec<OsString> {
    // `pc` has the PIIX3 IDE controller, the one of the seed.
    let machine = match transport {
        // The device process maps the guest's memory, so it has to be a file that can be passed.
        Transport::VhostUser { .. } => "pc,memory-backend=memory",
        Transport::Vhost { .. } | Transport::VirtioSerial { .. } => "pc",
    };
    words(["-nodefaults", "-no-user-config", "-display", "none", "-machine", machine])
}

pub(super) fn accelerator_args(accelerator: LabAccelerator) -> Vec<OsString> {
    match accelerator {
        // A guest that is never migrated may see that its TSC is invariant, and time with it.
        LabAccelerator::Kvm => words(["-accel", "kvm", "-cpu", "host,migratable=off"]),
        // One thread for each vCPU: without it all vCPUs share a thread and nothing can be pinned.
        LabAccelerator::Tcg => words(["-accel", "tcg,thread=multi", "-cpu", "max"]),
    }
}

pub(super) fn size_args(vcpus: u16, memory_mib: u32, transport: &Transport) -> Vec<OsString> {
    let mut args = words(["-smp", &vcpus.to_string(), "-m", &format!("{memory_mib}M")]);
    if matches!(transport, Transport::VhostUser { .. }) {
        let backend = format!("memory-backend-memfd,id=memory,size={memory_mib}M,share=on");
        args.extend(words(["-object", &backend]));
    }
    args
}

/// A guest that ends, by power off or by panic, ends its QEMU: `panic=-1` reboots at once, and
/// `-no-reboot` turns that into an end.
fn boot_args(files: &GuestFiles<'_>, parameter: &str) -> Vec<OsString> {
    let mut args = words(["-no-reboot", "-kernel"]);
    args.push(files.kernel.into());
    args.push("-initrd".into());
    args.push(files.initramfs.into());
    args.extend(words(["-append", &format!("{KERNEL_PARAMETERS} {parameter}")]));
    args
}

pub(super) fn console_args(console: &Path) -> Vec<OsString> {
    let mut args = words(["-chardev"]);
    args.push(option("file,id=console,path=", console, ""));
    args.extend(words(["-serial", "chardev:console"]));
    args
}

/// A monitor for questions before and after a measured window, see [`vslice_host::qmp`]. It costs a
/// thread, `IO mon_iothread`, that sleeps for as long as nobody asks. Not `-mon`, which QEMU 11.1 warns of as
/// deprecated.
pub(super) fn monitor_args(socket: &Path) -> Vec<OsString> {
    let mut args = words(["-qmp"]);
    args.push(option("unix:", socket, ",server=on,wait=off"));
    args
}

pub(super) fn transport_args(transport: &Transport) -> Vec<OsString> {
    let mut args = words(["-chardev"]);
    match transport {
        Transport::Vhost { cid, .. } => {
            return words(["-device", &format!("vhost-vsock-pci,guest-cid={cid}")]);
        }
        Transport::VhostUser { device_socket, .. } => {
            args.push(option("socket,id=vsock,path=", device_socket, ""));
            args.extend(words(["-device", "vhost-user-vsock-pci,chardev=vsock"]));
        }
        Transport::VirtioSerial { socket } => {
            // The guest boots whether or not the collector has connected yet.
            args.push(option("socket,id=agent,path=", socket, ",server=on,wait=off"));
            args.extend(words(["-device", "virtio-serial-pci", "-device"]));
            args.push(format!("virtserialport,chardev=agent,name={LOAD_PORT}").into());
        }
    }
    args
}

/// The arguments for a guest's disk and its iothreads.
#[must_use]
pub fn disk_args(disk: &Disk) -> Vec<OsString> {
    let mut args = Vec::new();
    for id in &disk.iothreads {
        // No adaptive polling: the main loop does not poll either, so that with and without an
        // iothread differ in one thing only; and a thread that polls takes the pCPU from others.
        args.extend(words(["-object", &format!("iothread,id={id},poll-max-ns=0")]));
    }
    args.extend(qemu_args::disk_args(disk, DISK_NODE));
    args
}

pub(super) fn words<const N: usize>(words: [&str; N]) -> Vec<OsString> {
    words.map(OsString::from).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::DiskPlan;
    use crate::plan::{Overrides, Plan};
    use vslice_host::disk::Aio;
    use vslice_host::disk::{Cache, DiskBus};

    fn files() -> GuestFiles<'static> {
        GuestFiles {
            kernel: Path::new("/image/vmlinux"),
            initramfs: Path::new("/image/initramfs.cpio.gz"),
            disk: Path::new("/tmp/d/vm1.raw"),
            console: Path::new("/run/vm1.console.log"),
            qmp: Some(Path::new("/tmp/d/vm1.qmp")),
        }
    }

    fn vm1(overrides: &Overrides) -> VmPlan {
        let mut plan = Plan::load("demo").expect("built in");
        overrides.apply(&mut plan).expect("possible");
        plan.vms.remove(0)
    }

    fn hybrid() -> Transport {
        Transport::VhostUser {
            binary: "/opt/device".into(),
            device_socket: "/tmp/d/vm1.device".into(),
            uds_path: "/tmp/d/vm1.vsock".into(),
        }
    }

    fn line(args: &[OsString]) -> String {
        args.iter().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_demo_under_tcg() {
        let vm = vm1(&Overrides::default());
        assert_eq!(
            line(&guest_args(&vm, LabAccelerator::Tcg, &hybrid(), &files())),
            "-name vm1,debug-threads=on \
             -nodefaults -no-user-config -display none -machine pc,memory-backend=memory \
             -accel tcg,thread=multi -cpu max \
             -smp 2 -m 256M -object memory-backend-memfd,id=memory,size=256M,share=on \
             -no-reboot -kernel /image/vmlinux -initrd /image/initramfs.cpio.gz \
             -append console=ttyS0 quiet panic=-1 no_timer_check vslice.connect=vsock:2:1024 \
             -chardev file,id=console,path=/run/vm1.console.log -serial chardev:console \
             -qmp unix:/tmp/d/vm1.qmp,server=on,wait=off \
             -chardev socket,id=vsock,path=/tmp/d/vm1.device \
             -device vhost-user-vsock-pci,chardev=vsock \
             -blockdev driver=raw,node-name=disk0,file.driver=file,file.filename=/tmp/d/vm1.raw,\
             file.aio=native,cache.direct=on,cache.no-flush=off \
             -device virtio-blk-pci,drive=disk0,write-cache=on"
        );
    }

    #[test]
    fn the_seed_under_kvm_with_an_iothread() {
        let mut plan = Plan::load("seed").expect("built in");
        Overrides { iothread: Some(true), ..Overrides::default() }
            .apply(&mut plan)
            .expect("possible");
        let transport = Transport::Vhost { cid: 77, port: 5000 };
        assert_eq!(
            line(&guest_args(&plan.vms[0], LabAccelerator::Kvm, &transport, &files())),
            "-name vm1,debug-threads=on \
             -nodefaults -no-user-config -display none -machine pc \
             -accel kvm -cpu host,migratable=off \
             -smp 5 -m 256M \
             -no-reboot -kernel /image/vmlinux -initrd /image/initramfs.cpio.gz \
             -append console=ttyS0 quiet panic=-1 no_timer_check vslice.connect=vsock:2:5000 \
             -chardev file,id=console,path=/run/vm1.console.log -serial chardev:console \
             -qmp unix:/tmp/d/vm1.qmp,server=on,wait=off \
             -device vhost-vsock-pci,guest-cid=77 \
             -object iothread,id=io0,poll-max-ns=0 \
             -blockdev driver=raw,node-name=disk0,file.driver=file,file.filename=/tmp/d/vm1.raw,\
             file.aio=native,cache.direct=on,cache.no-flush=off \
             -device virtio-blk-pci,drive=disk0,write-cache=on,iothread=io0,num-queues=1"
        );
        let without_disk =
            line(&guest_args(&plan.vms[1], LabAccelerator::Kvm, &transport, &files()));
        assert!(without_disk.ends_with("-device vhost-vsock-pci,guest-cid=77"), "{without_disk}");
    }

    #[test]
    fn a_guest_under_tcg_that_is_observed_has_a_clock_that_is_no_device() {
        let vm = vm1(&Overrides { observe: true, ..Overrides::default() });
        let of = |accelerator| line(&guest_args(&vm, accelerator, &hybrid(), &files()));
        let tsc = "no_timer_check tsc=reliable clocksource=tsc vslice.connect=";
        assert!(of(LabAccelerator::Tcg).contains(tsc));
        assert!(!of(LabAccelerator::Kvm).contains("clocksource"), "KVM's clock is none either");
    }

    /// What follows the transport in the command line of vm1 with this disk.
    fn disk_line(change: impl FnOnce(&mut DiskPlan)) -> String {
        let mut disk = vm1(&Overrides::default()).disk.expect("vm1 has a disk");
        change(&mut disk);
        line(&disk_args(&disk.disk(Path::new("/d"))))
    }

    #[test]
    fn each_disk_has_its_devices() {
        let scsi = disk_line(|disk| {
            (disk.bus, disk.iothread, disk.queues) = (DiskBus::VirtioScsi, true, Some(2));
        });
        let devices = "-device virtio-scsi-pci,iothread=io0,num_queues=2 \
                       -device scsi-hd,drive=disk0,write-cache=on";
        assert!(scsi.ends_with(devices), "{scsi}");
        let ide = disk_line(|disk| disk.bus = DiskBus::Ide);
        assert!(ide.ends_with("-device ide-hd,drive=disk0,write-cache=on"), "{ide}");
        assert!(!ide.contains("iothread"), "{ide}");
        let ahci = disk_line(|disk| disk.bus = DiskBus::Ahci);
        let devices =
            "-device ich9-ahci,id=ahci0 -device ide-hd,bus=ahci0.0,drive=disk0,write-cache=on";
        assert!(ahci.ends_with(devices), "{ahci}");
        let nvme = disk_line(|disk| disk.bus = DiskBus::Nvme);
        assert!(nvme.ends_with("-device nvme,serial=vslice,drive=disk0,write-cache=on"), "{nvme}");
    }

    #[test]
    fn a_virtio_disk_has_its_ways_to_be_rung_and_to_ring() {
        let line = disk_line(|disk| (disk.ioeventfd, disk.msix) = (false, false));
        let device = "virtio-blk-pci,drive=disk0,write-cache=on,ioeventfd=off,vectors=0";
        assert!(line.ends_with(device), "{line}");
        let line = disk_line(|disk| {
            (disk.iothread, disk.iothreads, disk.queues) = (true, 2, Some(4));
        });
        let device = r#"-device {"drive":"disk0","driver":"virtio-blk-pci","iothread-vq-mapping":[{"iothread":"io0"},{"iothread":"io1"}],"num-queues":4,"write-cache":"on"}"#;
        assert!(line.ends_with(device), "{line}");
        assert!(line.contains("iothread,id=io1,poll-max-ns=0"), "{line}");
        let line = disk_line(|disk| {
            (disk.bus, disk.iothread, disk.iothreads) = (DiskBus::VirtioScsi, true, 2);
            disk.queues = Some(2);
        });
        let devices = r#"-device {"driver":"virtio-scsi-pci","iothread-vq-mapping":[{"iothread":"io0"},{"iothread":"io1"}],"num_queues":2} -device {"drive":"disk0","driver":"scsi-hd","write-cache":"on"}"#;
        assert!(line.ends_with(devices), "{line}");
    }

    #[test]
    fn each_cache_has_its_three_flags() {
        let table = [
            (Cache::None, "cache.direct=on,cache.no-flush=off", "write-cache=on"),
            (Cache::Writeback, "cache.direct=off,cache.no-flush=off", "write-cache=on"),
            (Cache::Writethrough, "cache.direct=off,cache.no-flush=off", "write-cache=off"),
            (Cache::Directsync, "cache.direct=on,cache.no-flush=off", "write-cache=off"),
            (Cache::Unsafe, "cache.direct=off,cache.no-flush=on", "write-cache=on"),
        ];
        for (cache, flags, write_cache) in table {
            let line = disk_line(|disk| (disk.cache, disk.aio) = (cache, Aio::Threads));
            assert!(line.contains(&format!("file.aio=threads,{flags} ")), "{cache:?}: {line}");
            assert!(line.contains(write_cache), "{cache:?}: {line}");
        }
        assert!(disk_line(|disk| disk.aio = Aio::IoUring).contains("file.aio=io_uring,"));
    }

    #[test]
    fn a_serial_port_does_not_keep_the_guest_waiting() {
        let transport = Transport::VirtioSerial { socket: "/tmp/d/vm1.serial".into() };
        let line = line(&guest_args(
            &vm1(&Overrides::default()),
            LabAccelerator::Tcg,
            &transport,
            &files(),
        ));
        let port = "-chardev socket,id=agent,path=/tmp/d/vm1.serial,server=on,wait=off \
                    -device virtio-serial-pci \
                    -device virtserialport,chardev=agent,name=vslice.agent";
        assert!(line.contains(port), "{line}");
        assert!(line.contains("vslice.connect=virtio:vslice.agent"), "{line}");
        assert!(!line.contains("memory-backend"), "{line}");
    }

    #[test]
    fn a_probe_has_neither_disk_nor_transport() {
        let line = line(&probe_args(LabAccelerator::Kvm, &files()));
        assert!(line.contains("no_timer_check vslice.probe -chardev file"), "{line}");
        assert!(!line.contains("-device"), "{line}");
    }

    #[test]
    fn a_comma_in_a_path_ends_no_option() {
        let escaped = option("file,path=", Path::new("/a,b/c"), ",id=x");
        assert_eq!(escaped, "file,path=/a,,b/c,id=x");
    }
}
