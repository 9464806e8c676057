//! A VM as a domain of libvirt: <https://libvirt.org/formatdomain.html>.

use super::qemu::{clock_hint, dataplane_properties, is_printable, kernel_command_line};
use super::xml::Element;
use super::{Dataplane, Emission, EmitError, Feature};
use crate::plan::{DiskPlan, LabAccelerator};
use crate::vsock::Transport;
use std::path::Path;
use vslice_core::units::PcpuId;
use vslice_host::disk::{Bus, Disk, DiskBus};
use vslice_host::qemu_args::{AGENT_PORT, LOAD_PORT};

/// The bus whose disk has the properties that a controller has of others.
const VIRTIO_BLK: Bus = Bus::Known(DiskBus::VirtioBlk);

/// The namespace in which libvirt lets its QEMU be told more than it knows.
pub(super) const QEMU_NAMESPACE: &str = "http://libvirt.org/schemas/domain/qemu/1.0";

/// The domain, a document that `virsh define` takes.
///
/// # Errors
/// [`EmitError`], if this QEMU, or libvirt, does not have what the plan asks for.
pub fn domain(emission: &Emission<'_>) -> Result<String, EmitError> {
    emission.check()?;
    let vm = emission.vm();
    if let Some(disk) = &vm.disk {
        check_libvirt(emission, disk)?;
    }
    let dataplane = match &vm.disk {
        Some(disk) => emission.dataplane(disk)?,
        None => Dataplane::Off,
    };
    let kind = match emission.accelerator() {
        LabAccelerator::Kvm => "kvm",
        LabAccelerator::Tcg => "qemu",
    };
    let disk = vm.disk.as_ref().map(|plan| plan.disk(&emission.files.disk));
    let extra = disk.as_ref().and_then(|disk| behind_libvirt(emission, disk, dataplane));
    let mut domain = Element::new("domain").with("type", kind);
    if extra.is_some() {
        domain = domain.with("xmlns:qemu", QEMU_NAMESPACE);
    }
    if !emission.boots() {
        domain = domain.comment(
            "It has neither a disk nor a kernel to boot: give it one of its own, or a kernel.",
        );
    }
    if let Some(hint) = clock_hint(emission) {
        domain = domain.comment(hint);
    }
    domain = domain
        .child(Element::new("name").text(&vm.name))
        .child(Element::new("memory").with("unit", "MiB").text(vm.memory_mib))
        .child(Element::new("vcpu").with("placement", "static").text(vm.vcpus));
    if let (Some(disk), Dataplane::Iothread | Dataplane::Mapping) = (&disk, dataplane) {
        domain = domain.children(iothreads(emission, disk));
        if emission.version.has(Feature::ModernForm) && !has_poll(emission) {
            domain = domain.comment(
                "vslice's own runs have poll-max-ns=0, so that an iothread sleeps when it has nothing to do. \
                 libvirt has <iothread id='1'><poll max='0'/></iothread> for it, in <iothreadids>, from 9.4 on.",
            );
        }
    }
    domain = domain.child(pins(emission, dataplane));
    for (threads, pcpu) in unpinned(emission, dataplane) {
        domain = domain.comment(format!(
            "libvirt has no pin for {threads}, which the plan has on {pcpu}: emulatorpin holds for it."
        ));
    }
    domain = domain
        .child(operating_system(emission)?)
        .child(Element::new("features").child(Element::new("acpi")).child(Element::new("apic")));
    domain = domain.children(processor(emission)).child(devices(emission, dataplane)?);
    Ok(domain.children(extra).document())
}

fn check_libvirt(emission: &Emission<'_>, disk: &DiskPlan) -> Result<(), EmitError> {
    if disk.bus == DiskBus::Nvme && !emission.version.has(Feature::LibvirtNvme) {
        return Err(EmitError::LibvirtNvme(emission.vm().name.clone()));
    }
    if disk.iothread && disk.bus == DiskBus::VirtioScsi {
        let what = "iothread = true on virtio-scsi under libvirt";
        emission.needs(Feature::LibvirtScsiIothread, what)?;
    }
    Ok(())
}

/// As many as the disk has, numbered from 1, which libvirt names `iothread1`.
fn iothreads(emission: &Emission<'_>, disk: &Disk) -> Vec<Element> {
    let count = disk.iothreads.len();
    let mut elements = vec![Element::new("iothreads").text(count)];
    // No adaptive polling, as in vslice's own runs.
    if has_poll(emission) {
        let ids = (1..=count).map(|id| {
            Element::new("iothread").with("id", id).child(Element::new("poll").with("max", 0))
        });
        elements.push(Element::new("iothreadids").children(ids));
    }
    elements
}

/// libvirt has `<poll>` since 9.4, which whoever has this QEMU will have.
fn has_poll(emission: &Emission<'_>) -> bool {
    emission.version.has(Feature::VqMapping)
}

fn pins(emission: &Emission<'_>, dataplane: Dataplane) -> Element {
    let (plan, vm) = (emission.plan, emission.vm());
    let vcpus = vm
        .vcpu_pcpus
        .iter()
        .enumerate()
        .map(|(vcpu, pcpu)| Element::new("vcpupin").with("vcpu", vcpu).with("cpuset", pcpu.0));
    let mut pins = Element::new("cputune").children(vcpus);
    pins = pins.child(Element::new("emulatorpin").with("cpuset", plan.main_loop_pcpu(vm).0));
    let count = match (&vm.disk, dataplane) {
        (Some(disk), Dataplane::Iothread | Dataplane::Mapping) => disk.iothreads,
        // The thread of x-data-plane is one of QEMU's own, for which libvirt has no name.
        _ => 0,
    };
    let pcpu = plan.iothread_pcpu(vm).0;
    pins.children(
        (1..=count).map(|id| Element::new("iothreadpin").with("iothread", id).with("cpuset", pcpu)),
    )
}

/// The threads that the plan has elsewhere than the emulator, and libvirt has not.
fn unpinned(emission: &Emission<'_>, dataplane: Dataplane) -> Vec<(&'static str, PcpuId)> {
    let (plan, vm) = (emission.plan, emission.vm());
    let mut threads = vec![("any worker thread", plan.worker_pcpu(vm))];
    if dataplane == Dataplane::XDataPlane {
        threads.push(("the thread of x-data-plane", plan.iothread_pcpu(vm)));
    }
    threads.retain(|(_, pcpu)| *pcpu != plan.main_loop_pcpu(vm));
    threads
}

fn operating_system(emission: &Emission<'_>) -> Result<Element, EmitError> {
    let kind = Element::new("type").with("arch", "x86_64").with("machine", "pc").text("hvm");
    let os = Element::new("os").child(kind);
    let Some(kernel) = &emission.files.kernel else {
        return Ok(os.child(Element::new("boot").with("dev", "hd")));
    };
    let mut os = os.child(Element::new("kernel").text(text(emission, kernel)?));
    if let Some(initramfs) = &emission.files.initramfs {
        os = os.child(Element::new("initrd").text(text(emission, initramfs)?));
    }
    Ok(os.child(Element::new("cmdline").text(kernel_command_line(emission))))
}

/// A guest that is never migrated may see that its TSC is invariant. The words are those of libvirt
/// 6.5 and 7.1; an older one has its own default under TCG.
fn processor(emission: &Emission<'_>) -> Option<Element> {
    let modern = emission.version.has(Feature::JsonDevices);
    let element = |mode| Element::new("cpu").with("mode", mode);
    match emission.accelerator() {
        LabAccelerator::Kvm if modern => {
            Some(element("host-passthrough").with("migratable", "off"))
        }
        LabAccelerator::Kvm => Some(element("host-passthrough")),
        LabAccelerator::Tcg => modern.then(|| element("maximum")),
    }
}

fn devices(emission: &Emission<'_>, dataplane: Dataplane) -> Result<Element, EmitError> {
    let mut devices = Element::new("devices");
    if let Some(plan) = &emission.vm().disk {
        let of_plan = plan.disk(&emission.files.disk);
        devices = devices.child(disk(emission, &of_plan, dataplane)?);
        if plan.bus == DiskBus::VirtioScsi {
            devices = devices.child(scsi_controller(emission, &of_plan, dataplane));
        }
    }
    let channel = |source: Option<Element>, name| {
        let target = Element::new("target").with("type", "virtio").with("name", name);
        Element::new("channel").with("type", "unix").children(source).child(target)
    };
    devices = devices.child(channel(None, AGENT_PORT));
    devices = devices.child(match emission.transport()? {
        Transport::VirtioSerial { socket } => {
            let source = Element::new("source").with("mode", "bind");
            channel(Some(source.with("path", text(emission, &socket)?)), LOAD_PORT)
        }
        Transport::Vhost { .. } | Transport::VhostUser { .. } => Element::new("vsock")
            .with("model", "virtio")
            .child(Element::new("cid").with("auto", "yes")),
    });
    let serial = Element::new("serial").with("type", "pty");
    Ok(devices.child(serial).child(Element::new("memballoon").with("model", "none")))
}

fn disk(emission: &Emission<'_>, disk: &Disk, dataplane: Dataplane) -> Result<Element, EmitError> {
    let mut driver = Element::new("driver").with("name", "qemu");
    if let Some(format) = &disk.format {
        driver = driver.with("type", format);
    }
    if let Some(cache) = disk.cache() {
        driver = driver.with("cache", cache.name());
    }
    if let Some(aio) = disk.aio {
        driver = driver.with("io", aio.name());
    }
    // What virtio-scsi has of these is its controller's.
    if disk.bus == VIRTIO_BLK {
        driver = virtio(driver, emission, disk, dataplane);
    }
    let (target, bus) = match disk.bus {
        Bus::Known(DiskBus::VirtioBlk) => ("vda", "virtio"),
        Bus::Known(DiskBus::VirtioScsi) => ("sda", "scsi"),
        Bus::Known(DiskBus::Ide) => ("hda", "ide"),
        Bus::Known(DiskBus::Nvme) => ("nvme0n1", "nvme"),
        // A plan has no other.
        Bus::Known(DiskBus::Ahci) | Bus::Other(_) => ("sda", "sata"),
    };
    // QEMU has no NVMe controller without.
    let serial =
        (disk.bus == Bus::Known(DiskBus::Nvme)).then(|| Element::new("serial").text("vslice"));
    Ok(Element::new("disk")
        .with("type", "file")
        .with("device", "disk")
        .child(driver)
        .child(Element::new("source").with("file", text(emission, &emission.files.disk)?))
        .child(Element::new("target").with("dev", target).with("bus", bus))
        .children(serial))
}

/// The attributes of a virtio disk, or of its controller.
fn virtio(
    mut driver: Element,
    emission: &Emission<'_>,
    disk: &Disk,
    dataplane: Dataplane,
) -> Element {
    if dataplane == Dataplane::Iothread {
        driver = driver.with("iothread", 1);
    }
    // One queue is what a QEMU without the property has, and libvirt refuses the attribute there.
    let has_queues = disk.bus != VIRTIO_BLK || emission.version.has(Feature::BlkQueues);
    if let Some(queues) = disk.queues.filter(|_| has_queues) {
        driver = driver.with("queues", queues);
    }
    if disk.ioeventfd == Some(false) {
        driver = driver.with("ioeventfd", "off");
    }
    if dataplane == Dataplane::Mapping {
        let ids = (1..=disk.iothreads.len()).map(|id| Element::new("iothread").with("id", id));
        driver = driver.child(Element::new("iothreads").children(ids));
    }
    driver
}

fn scsi_controller(emission: &Emission<'_>, disk: &Disk, dataplane: Dataplane) -> Element {
    let controller = Element::new("controller")
        .with("type", "scsi")
        .with("index", 0)
        .with("model", "virtio-scsi");
    let tuned =
        dataplane != Dataplane::Off || disk.queues.is_some() || disk.ioeventfd == Some(false);
    let driver = tuned.then(|| virtio(Element::new("driver"), emission, disk, dataplane));
    controller.children(driver)
}

/// What libvirt has no element for, told to QEMU behind its back; libvirt marks such a domain as tainted.
///
/// The seed's form, `-set`, changes a `-device` of libvirt's that is `key=value`; since libvirt writes
/// JSON it is `<qemu:override>`.
fn behind_libvirt(emission: &Emission<'_>, disk: &Disk, dataplane: Dataplane) -> Option<Element> {
    let alias = match disk.bus {
        Bus::Known(DiskBus::VirtioScsi) => "scsi0",
        _ => "virtio-disk0",
    };
    let mut properties = match dataplane {
        Dataplane::XDataPlane => dataplane_properties(emission, dataplane),
        _ => Vec::new(),
    };
    if disk.msix == Some(false) {
        properties.push(("vectors", "0"));
    }
    if properties.is_empty() {
        return None;
    }
    if !emission.version.has(Feature::JsonDevices) {
        let arg = |value: String| Element::new("qemu:arg").with("value", value);
        let args = properties.into_iter().flat_map(|(property, value)| {
            [arg("-set".to_owned()), arg(format!("device.{alias}.{property}={value}"))]
        });
        return Some(Element::new("qemu:commandline").children(args));
    }
    let frontend = properties.into_iter().map(|(property, value)| {
        Element::new("qemu:property")
            .with("name", property)
            .with("type", "unsigned")
            .with("value", value)
    });
    let frontend = Element::new("qemu:frontend").children(frontend);
    let device = Element::new("qemu:device").with("alias", alias).child(frontend);
    Some(Element::new("qemu:override").child(device))
}

fn text<'a>(emission: &Emission<'_>, path: &'a Path) -> Result<&'a str, EmitError> {
    path.to_str().filter(|_| is_printable(path)).ok_or_else(|| EmitError::NotText {
        vm: emission.vm().name.clone(),
        path: format!("{path:?}"),
    })
}
