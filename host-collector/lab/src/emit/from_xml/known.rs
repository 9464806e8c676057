//! What a domain can have, and what becomes of it: every element and attribute of libvirt's schema
//! (`domaincommon.rng` of 12.9, which a test walks) is read, of no consequence, or lost. What is in none of
//! these rows is named as not known.

use super::child;
use roxmltree::Node;

/// What becomes of an element with all that is in it, or of an attribute.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fate {
    /// It is read, or decides whether the domain can be. Its attributes and children have rows of their own.
    Read,
    /// It has no part in when a vCPU runs or in how the disk is read.
    Aside(Aside),
    /// A plan has no place for it. The words say of what the plan is without it.
    Lost(&'static str),
    /// The same, unless a plan's guests are like that anyway.
    LostUnless(&'static str, fn(Node<'_, '_>) -> bool),
}

/// Why something is of no consequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Aside {
    /// What it is called and said to be.
    Identity,
    /// When it is started, ended and moved.
    LifeCycle,
    /// What it boots: a plan's guests boot vslice's image.
    Boot,
    /// Consoles, screens, sound, and what people type.
    Consoles,
    /// Devices that no request passes.
    SmallDevices,
    /// Where devices are plugged in.
    Layout,
    /// How images are found, opened and written, not how they are read.
    Images,
    /// Who may do what.
    Security,
    /// What another hypervisor's domain has.
    Others,
}

impl Aside {
    /// What the elements of this kind are, in a sentence.
    pub(super) fn title(self) -> &'static str {
        match self {
            Aside::Identity => "identity",
            Aside::LifeCycle => "start, end and migration",
            Aside::Boot => "what is booted",
            Aside::Consoles => "consoles and screens",
            Aside::SmallDevices => "small devices",
            Aside::Layout => "layout of the buses",
            Aside::Images => "how images are found and written",
            Aside::Security => "security",
            Aside::Others => "other hypervisors",
        }
    }
}

use Aside::{Boot, Consoles, Identity, Images, Layout, LifeCycle, Others, Security, SmallDevices};
use Fate::{Lost, LostUnless, Read};

const fn aside(why: Aside) -> Fate {
    Fate::Aside(why)
}

const QUOTA: &str = "no limit or weight holds for the plan's threads";
const CLASS: &str = "the plan's threads are of the default scheduling class";
const CACHE: &str = "the plan's threads share caches and memory bandwidth with everybody";
const NODES: &str = "the memory of the plan's guests is wherever the host puts it";
const LIMITS: &str = "no limit holds for the plan's memory and I/O";
const PAGES: &str =
    "the memory of the plan's guests is anonymous, in pages of the host's default size";
const PROCESSOR: &str =
    "the plan's guests see the host's processor, each vCPU a socket, on one node";
const TIMERS: &str = "the plan's guests have QEMU's default timers";
const FEATURES: &str = "the plan's guests have QEMU's default features, such as enlightenments";
const POLLING: &str = "the plan's iothreads do not poll, and have QEMU's default thread pool";
const HOTPLUG: &str = "memory that is plugged in is part of the plan's memory_mib, or not there";
const NETWORK: &str = "the plan's guests have no network, with its vhost threads and interrupts";
const PASSED: &str = "the plan's guests have no device of the host, with its interrupts";
const SHARED: &str = "the plan's guests share no files or memory, with the threads that serve them";
const THROTTLE: &str = "the plan's disk is not throttled";
const RING: &str = "the plan's disk has QEMU's default rings and notifications";
const CHAIN: &str = "the plan's image is one raw file of its own";
const GROUP: &str = "the plan's threads are in the control group that vslice is started in";
const SECRET: &str = "the memory of the plan's guests is not encrypted";
const COUNTED: &str = "nobody counts events of the plan's threads";
const MACHINE: &str = "the plan's machine is QEMU's pc, with x86-64";
const TOLD: &str = "the plan's QEMU is told no more than vslice tells it";

/// Paths below `<domain>`; `@` names an attribute, and `@*` is every other. First what has rows of its own,
/// then what is in it.
pub(super) const KNOWN: &[(&str, Fate)] = &[
    ("@type", Read),
    ("@id", aside(Identity)),
    ("name", Read),
    ("uuid", aside(Identity)),
    ("hwuuid", aside(Identity)),
    ("genid", aside(Identity)),
    ("title", aside(Identity)),
    ("description", aside(Identity)),
    ("metadata", aside(Identity)),
    ("sysinfo", aside(Identity)),
    ("on_poweroff", aside(LifeCycle)),
    ("on_reboot", aside(LifeCycle)),
    ("on_crash", aside(LifeCycle)),
    ("on_lockfailure", aside(LifeCycle)),
    ("pm", aside(LifeCycle)),
    ("bootloader", aside(Boot)),
    ("bootloader_args", aside(Boot)),
    ("idmap", aside(Others)),
    ("lxc:namespace", aside(Others)),
    ("bhyve:commandline", aside(Others)),
    ("xen:commandline", aside(Others)),
    ("vmware:datacenterpath", aside(Others)),
    ("seclabel", aside(Security)),
    ("keywrap", aside(Security)),
    ("launchSecurity", Lost(SECRET)),
    ("perf", Lost(COUNTED)),
    // vCPUs and memory.
    ("vcpu", Read),
    ("vcpu/@placement", Read),
    ("vcpu/@cpuset", Read),
    ("vcpu/@current", Read),
    ("vcpus", Read),
    ("vcpus/vcpu", Read),
    ("vcpus/vcpu/@id", Read),
    ("vcpus/vcpu/@enabled", Read),
    ("vcpus/vcpu/@hotpluggable", aside(LifeCycle)),
    ("vcpus/vcpu/@order", aside(LifeCycle)),
    ("memory", Read),
    ("memory/@unit", Read),
    ("memory/@dumpCore", aside(LifeCycle)),
    ("currentMemory", LostUnless("a plan has no balloon", has_all_memory)),
    ("maxMemory", Lost(HOTPLUG)),
    ("memtune", Lost(LIMITS)),
    ("blkiotune", Lost(LIMITS)),
    ("memoryBacking", Lost(PAGES)),
    ("numatune", Lost(NODES)),
    ("resource", LostUnless(GROUP, is_default_group)),
    ("cpu", Read),
    ("cpu/@mode", LostUnless(PROCESSOR, is_host_processor)),
    ("cpu/@*", aside(LifeCycle)),
    ("cpu/model", Lost(PROCESSOR)),
    ("cpu/vendor", Lost(PROCESSOR)),
    ("cpu/topology", Lost(PROCESSOR)),
    ("cpu/feature", Lost(PROCESSOR)),
    ("cpu/cache", Lost(PROCESSOR)),
    ("cpu/maxphysaddr", Lost(PROCESSOR)),
    ("cpu/numa", Lost(PROCESSOR)),
    // Threads.
    ("iothreads", Read),
    ("iothreadids", Read),
    ("iothreadids/iothread", Read),
    ("iothreadids/iothread/@id", Read),
    ("iothreadids/iothread/@*", Lost(POLLING)),
    ("iothreadids/iothread/poll", LostUnless(POLLING, is_not_polling)),
    ("defaultiothread", Lost(POLLING)),
    ("cputune", Read),
    ("cputune/vcpupin", Read),
    ("cputune/vcpupin/@vcpu", Read),
    ("cputune/vcpupin/@cpuset", Read),
    ("cputune/emulatorpin", Read),
    ("cputune/emulatorpin/@cpuset", Read),
    ("cputune/iothreadpin", Read),
    ("cputune/iothreadpin/@iothread", Read),
    ("cputune/iothreadpin/@cpuset", Read),
    ("cputune/shares", Lost(QUOTA)),
    ("cputune/period", Lost(QUOTA)),
    ("cputune/quota", Lost(QUOTA)),
    ("cputune/global_period", Lost(QUOTA)),
    ("cputune/global_quota", Lost(QUOTA)),
    ("cputune/emulator_period", Lost(QUOTA)),
    ("cputune/emulator_quota", Lost(QUOTA)),
    ("cputune/iothread_period", Lost(QUOTA)),
    ("cputune/iothread_quota", Lost(QUOTA)),
    ("cputune/vcpusched", Lost(CLASS)),
    ("cputune/iothreadsched", Lost(CLASS)),
    ("cputune/emulatorsched", Lost(CLASS)),
    ("cputune/cachetune", Lost(CACHE)),
    ("cputune/memorytune", Lost(CACHE)),
    ("cputune/energytune", Lost(COUNTED)),
    // The machine.
    ("os", Read),
    ("os/@firmware", aside(Boot)),
    ("os/type", Read),
    ("os/type/@arch", LostUnless(MACHINE, is_64_bit)),
    ("os/type/@machine", LostUnless(MACHINE, is_pc)),
    ("os/loader", aside(Boot)),
    ("os/nvram", aside(Boot)),
    ("os/varstore", aside(Boot)),
    ("os/firmware", aside(Boot)),
    ("os/shim", aside(Boot)),
    ("os/kernel", aside(Boot)),
    ("os/initrd", aside(Boot)),
    ("os/cmdline", aside(Boot)),
    ("os/root", aside(Boot)),
    ("os/dtb", aside(Boot)),
    ("os/boot", aside(Boot)),
    ("os/bootmenu", aside(Boot)),
    ("os/smbios", aside(Boot)),
    ("os/bios", aside(Boot)),
    ("os/acpi", aside(Boot)),
    ("os/init", aside(Others)),
    ("os/initarg", aside(Others)),
    ("os/initenv", aside(Others)),
    ("os/initdir", aside(Others)),
    ("os/inituser", aside(Others)),
    ("os/initgroup", aside(Others)),
    ("features", Read),
    ("features/acpi", aside(Boot)),
    ("features/apic", aside(Boot)),
    ("features/pae", aside(Boot)),
    ("features/smm", aside(Boot)),
    ("features/vmcoreinfo", aside(Boot)),
    ("features/vmport", aside(Boot)),
    ("features/ps2", aside(Boot)),
    ("features/async-teardown", aside(LifeCycle)),
    ("features/hap", aside(Others)),
    ("features/viridian", aside(Others)),
    ("features/privnet", aside(Others)),
    ("features/xen", aside(Others)),
    ("features/capabilities", aside(Others)),
    ("features/aia", aside(Others)),
    ("features/gic", aside(Others)),
    ("features/ras", aside(Others)),
    ("features/hpt", aside(Others)),
    ("features/htm", aside(Others)),
    ("features/nested-hv", aside(Others)),
    ("features/ccf-assist", aside(Others)),
    ("features/cfpc", aside(Others)),
    ("features/sbbc", aside(Others)),
    ("features/virtualization", aside(Others)),
    ("features/ibs", aside(Others)),
    ("features/hyperv", Lost(FEATURES)),
    ("features/kvm", Lost(FEATURES)),
    ("features/pvspinlock", Lost(FEATURES)),
    ("features/ioapic", Lost(FEATURES)),
    ("features/pmu", Lost(FEATURES)),
    ("features/msrs", Lost(FEATURES)),
    ("features/tcg", Lost(FEATURES)),
    ("clock", Read),
    ("clock/@*", aside(Boot)),
    ("clock/timer", Lost(TIMERS)),
    ("throttlegroups", Lost(THROTTLE)),
    ("iommufd", Lost(PASSED)),
    ("qemu:commandline", Read),
    ("qemu:commandline/qemu:arg", Read),
    ("qemu:commandline/qemu:arg/@value", Read),
    ("qemu:commandline/qemu:env", Lost(TOLD)),
    ("qemu:override", Read),
    ("qemu:override/qemu:device", Read),
    ("qemu:override/qemu:device/@alias", Read),
    ("qemu:override/qemu:device/qemu:frontend", Read),
    ("qemu:override/qemu:device/qemu:frontend/qemu:property", Read),
    ("qemu:override/qemu:device/qemu:frontend/qemu:property/@*", Read),
    ("qemu:capabilities", Lost(TOLD)),
    ("qemu:deprecation", aside(LifeCycle)),
    // Devices. Of disks and controllers, these rows are about the plan's disk and its controller.
    ("devices", Read),
    ("devices/emulator", LostUnless("the plan's QEMU is the one that is installed", is_installed)),
    ("devices/interface", Lost(NETWORK)),
    ("devices/hostdev", Lost(PASSED)),
    ("devices/filesystem", Lost(SHARED)),
    ("devices/shmem", Lost(SHARED)),
    ("devices/memory", Lost(HOTPLUG)),
    ("devices/iommu", Lost("the plan's guests have no IOMMU")),
    ("devices/crypto", Lost("the plan's guests have no crypto device")),
    ("devices/vsock", aside(SmallDevices)),
    ("devices/watchdog", aside(SmallDevices)),
    ("devices/memballoon", aside(SmallDevices)),
    ("devices/rng", aside(SmallDevices)),
    ("devices/panic", aside(SmallDevices)),
    ("devices/tpm", aside(SmallDevices)),
    ("devices/nvram", aside(SmallDevices)),
    ("devices/pstore", aside(SmallDevices)),
    ("devices/lease", aside(Security)),
    ("devices/hub", aside(Consoles)),
    ("devices/input", aside(Consoles)),
    ("devices/graphics", aside(Consoles)),
    ("devices/video", aside(Consoles)),
    ("devices/sound", aside(Consoles)),
    ("devices/audio", aside(Consoles)),
    ("devices/smartcard", aside(Consoles)),
    ("devices/serial", aside(Consoles)),
    ("devices/parallel", aside(Consoles)),
    ("devices/console", aside(Consoles)),
    ("devices/channel", aside(Consoles)),
    ("devices/redirdev", aside(Consoles)),
    ("devices/redirfilter", aside(Consoles)),
    ("devices/disk", Read),
    ("devices/disk/@type", Read),
    ("devices/disk/@device", Read),
    ("devices/disk/@*", aside(Images)),
    ("devices/disk/driver", Read),
    ("devices/disk/driver/@type", Read),
    ("devices/disk/driver/@cache", Read),
    ("devices/disk/driver/@io", Read),
    ("devices/disk/driver/@iothread", Read),
    ("devices/disk/driver/@queues", Read),
    ("devices/disk/driver/@ioeventfd", Read),
    ("devices/disk/driver/@name", LostUnless("QEMU reads the plan's image", is_of_qemu)),
    ("devices/disk/driver/@error_policy", aside(Images)),
    ("devices/disk/driver/@rerror_policy", aside(Images)),
    ("devices/disk/driver/@discard", aside(Images)),
    ("devices/disk/driver/@discard_no_unref", aside(Images)),
    ("devices/disk/driver/@detect_zeroes", aside(Images)),
    ("devices/disk/driver/@copy_on_read", Lost(CHAIN)),
    ("devices/disk/driver/@event_idx", Lost(RING)),
    ("devices/disk/driver/@queue_size", Lost(RING)),
    ("devices/disk/driver/@packed", Lost(RING)),
    ("devices/disk/driver/@page_per_vq", Lost(RING)),
    ("devices/disk/driver/@iommu", Lost(RING)),
    ("devices/disk/driver/@ats", Lost(RING)),
    ("devices/disk/driver/iothreads", Read),
    ("devices/disk/driver/iothreads/iothread", Read),
    ("devices/disk/driver/iothreads/iothread/@id", Read),
    ("devices/disk/driver/iothreads/iothread/queue", Lost("QEMU spreads the plan's queues evenly")),
    ("devices/disk/driver/metadata_cache", Lost(CHAIN)),
    ("devices/disk/driver/statistics", aside(Images)),
    ("devices/disk/source", Read),
    ("devices/disk/source/@*", Read),
    ("devices/disk/source/address", aside(Images)),
    ("devices/disk/source/auth", aside(Security)),
    ("devices/disk/source/config", aside(Images)),
    ("devices/disk/source/cookies", aside(Images)),
    ("devices/disk/source/dataStore", Lost(CHAIN)),
    ("devices/disk/source/encryption", Lost(CHAIN)),
    ("devices/disk/source/host", aside(Images)),
    ("devices/disk/source/identity", aside(Security)),
    ("devices/disk/source/initiator", aside(Images)),
    ("devices/disk/source/knownHosts", aside(Security)),
    ("devices/disk/source/privateData", aside(Images)),
    ("devices/disk/source/readahead", Lost(CHAIN)),
    ("devices/disk/source/reconnect", aside(Images)),
    ("devices/disk/source/reservations", aside(Security)),
    ("devices/disk/source/seclabel", aside(Security)),
    ("devices/disk/source/slices", Lost(CHAIN)),
    ("devices/disk/source/snapshot", aside(Images)),
    ("devices/disk/source/ssl", aside(Security)),
    ("devices/disk/source/timeout", aside(Images)),
    ("devices/disk/target", Read),
    ("devices/disk/target/@dev", Read),
    ("devices/disk/target/@bus", Read),
    ("devices/disk/target/@*", aside(Images)),
    ("devices/disk/address", Read),
    ("devices/disk/address/@*", Read),
    ("devices/disk/address/zpci", aside(Layout)),
    ("devices/disk/alias", Read),
    ("devices/disk/alias/@*", Read),
    ("devices/disk/shareable", Read),
    ("devices/disk/readonly", aside(Images)),
    ("devices/disk/transient", Lost(CHAIN)),
    ("devices/disk/backingStore", LostUnless(CHAIN, has_nothing)),
    ("devices/disk/mirror", Lost(CHAIN)),
    ("devices/disk/encryption", Lost(CHAIN)),
    ("devices/disk/iotune", Lost(THROTTLE)),
    ("devices/disk/throttlefilters", Lost(THROTTLE)),
    ("devices/disk/blockio", Lost("the plan's disk has blocks of 512 bytes")),
    ("devices/disk/auth", aside(Security)),
    ("devices/disk/geometry", aside(Boot)),
    ("devices/disk/boot", aside(Boot)),
    ("devices/disk/acpi", aside(Layout)),
    ("devices/disk/backenddomain", aside(Others)),
    // libvirt writes it into its own state of a running domain; its schema lacks it.
    ("devices/disk/diskSecretsPlacement", aside(Security)),
    ("devices/disk/serial", aside(Identity)),
    ("devices/disk/wwn", aside(Identity)),
    ("devices/disk/vendor", aside(Identity)),
    ("devices/disk/product", aside(Identity)),
    ("devices/disk/privateData", aside(Images)),
    ("devices/controller", Read),
    ("devices/controller/@type", Read),
    ("devices/controller/@index", Read),
    ("devices/controller/@model", Read),
    ("devices/controller/@*", aside(Layout)),
    ("devices/controller/address", aside(Layout)),
    ("devices/controller/alias", Read),
    ("devices/controller/alias/@*", Read),
    ("devices/controller/acpi", aside(Layout)),
    ("devices/controller/model", aside(Layout)),
    ("devices/controller/target", aside(Layout)),
    ("devices/controller/master", aside(Layout)),
    ("devices/controller/pcihole64", aside(Layout)),
    ("devices/controller/serial", aside(Identity)),
    ("devices/controller/driver", Read),
    ("devices/controller/driver/@iothread", Read),
    ("devices/controller/driver/@queues", Read),
    ("devices/controller/driver/@ioeventfd", Read),
    ("devices/controller/driver/@*", Lost(RING)),
    ("devices/controller/driver/iothreads", Read),
    ("devices/controller/driver/iothreads/iothread", Read),
    ("devices/controller/driver/iothreads/iothread/@id", Read),
    (
        "devices/controller/driver/iothreads/iothread/queue",
        Lost("QEMU spreads the plan's queues evenly"),
    ),
];

/// What becomes of what is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// It is read, and what is in it has rows of its own.
    Open,
    /// It is taken for what it is with all that is in it.
    Whole,
}

/// The row of an element or an attribute at a path below `<domain>`, such as `cputune/vcpupin/@cpuset`.
#[must_use]
pub fn row(path: &str) -> Option<Row> {
    fate(path).map(|fate| if matches!(fate, Read) { Row::Open } else { Row::Whole })
}

/// The paths of all rows.
pub fn rows() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().map(|(path, _)| *path)
}

/// The row of a path, or of every other attribute of its element.
pub(super) fn fate(path: &str) -> Option<Fate> {
    let row = |path: &str| KNOWN.iter().find(|(known, _)| *known == path).map(|(_, fate)| *fate);
    row(path).or_else(|| {
        let (element, _) = path.rsplit_once('@')?;
        row(&format!("{element}@*"))
    })
}

/// Whether a balloon leaves the guest all that it has.
fn has_all_memory(current: Node<'_, '_>) -> bool {
    let Some(memory) = current.parent().and_then(|domain| child(domain, "memory")) else {
        return false;
    };
    let told = |node: Node<'_, '_>| super::memory::kib(node);
    told(current).is_some() && told(current) == told(memory)
}

fn is_default_group(resource: Node<'_, '_>) -> bool {
    let mut elements = resource.children().filter(Node::is_element);
    elements.all(|node| node.has_tag_name("partition") && node.text() == Some("/machine"))
}

fn is_host_processor(cpu: Node<'_, '_>) -> bool {
    matches!(cpu.attribute("mode"), Some("host-passthrough" | "maximum"))
}

fn is_not_polling(poll: Node<'_, '_>) -> bool {
    poll.attribute("max") == Some("0")
}

fn is_pc(kind: Node<'_, '_>) -> bool {
    let machine = kind.attribute("machine").unwrap_or_default();
    machine == "pc"
        || machine.starts_with("pc-i440fx")
        || machine.starts_with("pc-0.")
        || machine.starts_with("pc-1.")
}

fn is_of_qemu(driver: Node<'_, '_>) -> bool {
    driver.attribute("name") == Some("qemu")
}

fn is_64_bit(kind: Node<'_, '_>) -> bool {
    kind.attribute("arch") == Some("x86_64")
}

/// Whether distributions have their QEMU there.
fn is_installed(emulator: Node<'_, '_>) -> bool {
    let path = emulator.text().unwrap_or_default().trim();
    let name = path.strip_prefix("/usr/bin/").or_else(|| path.strip_prefix("/usr/libexec/"));
    matches!(name, Some("qemu-system-x86_64" | "qemu-kvm" | "kvm" | "kvm-spice"))
}

fn has_nothing(node: Node<'_, '_>) -> bool {
    !node.children().any(|child| child.is_element())
}
