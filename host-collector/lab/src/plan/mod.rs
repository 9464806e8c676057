//! Plans: which guests to start, where each of their threads runs and what they do, as TOML.
//!
//! A plan is read and checked once, here; everything behind it may rely on a [`Plan`] from
//! [`Plan::load`] being possible, except for what only the host can tell ([`Plan::check_host`]).

mod check;
mod observe;
mod overrides;
mod problem;

use crate::quantity;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;
use vslice_core::units::{PcpuId, VcpuId};
use vslice_host::disk::{Aio, Bus, Cache, Disk, DiskBus, Storage};
use vslice_host::pin::VmPins;
use vslice_spec::workload::HOG_GAP_US;
use vslice_spec::{ClockChoice, Engine, Pattern, ReaderSpec, WorkloadSpec};
use vslice_trace::host::HostPcpus;
use vslice_trace::vmm::Accelerator;

pub use observe::ObservePlan;
pub use overrides::Overrides;
pub use problem::{PlanError, Problem};

/// The built-in plans, by name.
pub const BUILT_IN: [(&str, &str); 2] =
    [("demo", include_str!("../plans/demo.toml")), ("seed", include_str!("../plans/seed.toml"))];

/// The lease of a plan that says nothing of it. Shorter than the 2 s within which everything must have
/// stopped, and long enough for a ping that a busy host delays.
pub const LEASE_MS_DEFAULT: u64 = 1_500;

/// The most vCPUs that a plan's VM can have, as many as QEMU's machine `pc` (`max_cpus` in hw/i386/pc.c,
/// QEMU 7.2 to 10.0).
pub const VCPUS_MAX: u16 = 255;

/// The least memory that a plan's VM can have, in MiB: its kernel, and the initramfs twice while it unpacks.
pub const MEMORY_MIB_MIN: u64 = 128;

/// The most, in MiB: 16 TiB, more than today's hosts have.
pub const MEMORY_MIB_MAX: u64 = 16 << 20;

/// The most queues of a virtio disk (`VIRTIO_QUEUE_MAX` in include/hw/virtio/virtio.h, QEMU 7.2 to 10.0).
pub const QUEUES_MAX: u16 = 1_024;

/// What a plan or an override says that leaves a setting of the host as it is.
const KEEP: &str = "keep";

/// An experiment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Its name, of `a-z`, `0-9` and `-`, at most 32 characters.
    pub name: String,
    /// What it is for, in one line.
    #[serde(default)]
    pub description: String,
    /// What runs the guests.
    #[serde(default)]
    pub accelerator: AcceleratorSetting,
    /// How the guests reach the collector.
    #[serde(default)]
    pub vsock: VsockSetting,
    /// The clock that stamps the requests.
    #[serde(default = "clock_default")]
    pub clock: ClockChoice,
    /// How long a guest may take from its start to its first frame.
    #[serde(
        rename = "boot_timeout",
        default = "boot_timeout_default",
        with = "quantity::duration_text"
    )]
    pub boot_timeout_ms: u64,
    /// How long an agent continues without hearing from its collector, from 200 to 60,000 ms
    /// ([`LEASE_MS`](vslice_spec::workload::LEASE_MS)). If the host delays the collector for longer, the
    /// run ends early.
    #[serde(rename = "lease", default = "lease_default", with = "quantity::duration_text")]
    pub lease_ms: u64,
    /// Whether every exit of the guests is recorded, which tells the guest's own time from KVM's and
    /// QEMU's. Each costs two or three records more, made on the vCPU's time; there are none under TCG.
    #[serde(default)]
    pub exits: bool,
    /// The I/O scheduler that the host's disk under the guests' images has while `vslice run` or an
    /// experiment goes on: everybody's I/O on that disk goes through it meanwhile. `cfq`, `deadline` and
    /// `noop` are their heirs where the kernel has them no more; absent or `keep`, nothing is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_io_scheduler: Option<String>,
    /// The pCPU of the collector, and of QEMU's own threads unless a VM names others.
    pub collector_pcpu: PcpuId,
    /// The guests.
    #[serde(default, rename = "vm")]
    pub vms: Vec<VmPlan>,
}

/// One guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmPlan {
    /// Its name, of `a-z`, `0-9` and `-`, at most 32 characters.
    pub name: String,
    /// How many vCPUs it has, in [1, 255].
    pub vcpus: u16,
    /// Its memory in MiB, in [128, 16777216].
    #[serde(default = "memory_default")]
    pub memory_mib: u32,
    /// The pCPU of each vCPU thread, in order of the vCPUs.
    pub vcpu_pcpus: Vec<PcpuId>,
    /// The vCPUs that have a hog.
    #[serde(default)]
    pub hogs: Vec<VcpuId>,
    /// The vCPU for everything in the guest that is neither hog nor reader.
    #[serde(default)]
    pub housekeeping_vcpu: VcpuId,
    /// The pCPU of QEMU's main loop thread; the collector's if absent.
    pub main_loop_pcpu: Option<PcpuId>,
    /// The pCPU of its iothreads; the main loop's if absent.
    pub iothread_pcpu: Option<PcpuId>,
    /// The pCPU of its worker threads, and of any other thread that is not a vCPU's; the main
    /// loop's if absent.
    pub worker_pcpu: Option<PcpuId>,
    /// The disk that its reader reads.
    pub disk: Option<DiskPlan>,
    /// Its reader.
    pub reader: Option<ReaderPlan>,
    /// What is observed of its kernel's block requests, whoever makes them; nothing if absent.
    pub observe: Option<ObservePlan>,
}

/// The disk of a guest: a scratch image with real data that exists as long as the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskPlan {
    /// What the guest sees.
    #[serde(default)]
    pub bus: DiskBus,
    /// Whether an iothread serves it, instead of QEMU's main loop.
    #[serde(default)]
    pub iothread: bool,
    /// Over how many iothreads its queues are spread, if it has any: `iothread-vq-mapping`, since QEMU
    /// 9.0. 1 is `iothread=`.
    #[serde(default = "one")]
    pub iothreads: u16,
    /// Whether the guest's doorbell wakes whoever serves the disk by an eventfd. Without it the doorbell
    /// is an exit to QEMU, and the vCPU's own thread submits the I/O.
    #[serde(default = "yes")]
    pub ioeventfd: bool,
    /// Whether a virtio disk has interrupts of its own (MSI-X). Without it the guest reads the device's
    /// interrupt status at each one, which is an exit to QEMU.
    #[serde(default = "yes")]
    pub msix: bool,
    /// How QEMU reads the image.
    #[serde(default)]
    pub aio: Aio,
    /// How QEMU caches the image.
    #[serde(default)]
    pub cache: Cache,
    /// The size of the image in bytes, at least 1 MiB.
    #[serde(rename = "size", default = "disk_size_default", with = "quantity::bytes_text")]
    pub size_bytes: u64,
    /// How many request queues it has; absent, QEMU decides (one a vCPU since QEMU 5.2).
    pub queues: Option<u16>,
    /// The I/O scheduler that the guest uses for it.
    #[serde(default = "scheduler_default")]
    pub guest_io_scheduler: String,
}

/// A guest's reader; see [`ReaderSpec`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReaderPlan {
    /// The vCPU that it is pinned to.
    pub vcpu: VcpuId,
    /// In which order the blocks are read.
    #[serde(default = "pattern_default")]
    pub pattern: Pattern,
    /// How they are read.
    #[serde(default = "engine_default")]
    pub engine: Engine,
    /// Requests in flight at once, in [1, 4096].
    #[serde(default = "depth_default")]
    pub depth: u16,
    /// The size of one read in bytes: a power of two in [512, 1 MiB]
    /// ([`BLOCK_BYTES`](vslice_spec::workload::BLOCK_BYTES)).
    #[serde(rename = "block", default = "block_default", with = "quantity::bytes_text")]
    pub block_bytes: u64,
    /// What all reads come to, in bytes.
    #[serde(rename = "total", default = "total_default", with = "quantity::bytes_text")]
    pub total_bytes: u64,
    /// Stop after this long even if there is more to read.
    #[serde(
        rename = "duration",
        default,
        with = "quantity::duration_text_option",
        skip_serializing_if = "Option::is_none"
    )]
    pub duration_ms: Option<u64>,
}

/// What a plan says about the accelerator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum AcceleratorSetting {
    /// KVM where a stock kernel boots in it, else TCG.
    #[default]
    Auto,
    /// KVM, or no run.
    Kvm,
    /// QEMU's own translator.
    Tcg,
}

/// What a plan says about the way between guest and collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum VsockSetting {
    /// The first of the others that this host has.
    #[default]
    Auto,
    /// The host kernel's vhost-vsock.
    Vhost,
    /// A vhost-user device, vhost-device-vsock.
    VhostUser,
    /// A virtio serial port.
    VirtioSerial,
}

/// What a lab can launch guests under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LabAccelerator {
    /// The host's KVM.
    Kvm,
    /// QEMU's translator, a thread for each vCPU.
    Tcg,
}

impl From<LabAccelerator> for Accelerator {
    fn from(accelerator: LabAccelerator) -> Accelerator {
        match accelerator {
            LabAccelerator::Kvm => Accelerator::Kvm,
            LabAccelerator::Tcg => Accelerator::Tcg,
        }
    }
}

impl LabAccelerator {
    /// Its name as people write it.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            LabAccelerator::Kvm => "KVM",
            LabAccelerator::Tcg => "TCG",
        }
    }
}

impl DiskPlan {
    /// A disk of this size that is as a plan has it that says nothing else.
    #[must_use]
    pub fn of_size(size_bytes: u64) -> DiskPlan {
        DiskPlan {
            bus: DiskBus::default(),
            iothread: false,
            iothreads: one(),
            ioeventfd: yes(),
            msix: yes(),
            aio: Aio::default(),
            cache: Cache::default(),
            size_bytes,
            queues: None,
            guest_io_scheduler: scheduler_default(),
        }
    }

    /// The disk itself, whose raw image is at this path.
    #[must_use]
    pub fn disk(&self, image: &Path) -> Disk {
        let iothreads = if self.iothread { self.iothreads } else { 0 };
        Disk {
            storage: Storage::file(image),
            format: Some("raw".to_owned()),
            aio: Some(self.aio),
            iothreads: (0..iothreads).map(iothread_id).collect(),
            queues: self.queues,
            // What is as QEMU has it anyway is left to QEMU, of which an old one may not know it.
            ioeventfd: (!self.ioeventfd).then_some(false),
            msix: (!self.msix).then_some(false),
            ..Disk::new(Bus::Known(self.bus)).cached(self.cache)
        }
    }
}

/// The id of one of a guest's iothreads: its thread is `IO io0`.
#[must_use]
pub fn iothread_id(index: u16) -> String {
    format!("io{index}")
}

fn clock_default() -> ClockChoice {
    ClockChoice::Auto
}
fn boot_timeout_default() -> u64 {
    120_000
}
fn lease_default() -> u64 {
    LEASE_MS_DEFAULT
}
fn one() -> u16 {
    1
}
fn yes() -> bool {
    true
}
fn memory_default() -> u32 {
    256
}
fn disk_size_default() -> u64 {
    64 << 20
}
fn scheduler_default() -> String {
    "none".to_owned()
}
fn pattern_default() -> Pattern {
    Pattern::Seq
}
fn engine_default() -> Engine {
    Engine::Psync
}
fn depth_default() -> u16 {
    1
}
fn block_default() -> u64 {
    4 << 10
}
fn total_default() -> u64 {
    8 << 30
}

impl Plan {
    /// Where the threads of one of its VMs are to run.
    #[must_use]
    pub fn pins(&self, vm: &VmPlan) -> VmPins {
        VmPins {
            vcpus: vm.vcpu_pcpus.clone(),
            main_loop: self.main_loop_pcpu(vm),
            iothreads: self.iothread_pcpu(vm),
            workers: self.worker_pcpu(vm),
            // vhost works for the collector's connection, as the vhost-user device does.
            vhost: self.collector_pcpu,
        }
    }

    /// Reads and checks the built-in plan of this name, or else the file at this path.
    ///
    /// # Errors
    /// [`PlanError`], if there is neither, or it is not a plan, or not a possible one.
    pub fn load(name_or_path: &str) -> Result<Plan, PlanError> {
        let plan = Plan::load_parts(name_or_path)?;
        plan.check()?;
        Ok(plan)
    }

    /// The same, for guests that are there already: see [`Plan::check_parts`].
    ///
    /// # Errors
    /// As [`Plan::load`].
    pub fn load_parts(name_or_path: &str) -> Result<Plan, PlanError> {
        if let Some((name, text)) = BUILT_IN.iter().find(|(name, _)| *name == name_or_path) {
            return Plan::parse_parts(name, text);
        }
        match std::fs::read_to_string(Path::new(name_or_path)) {
            Ok(text) => Plan::parse_parts(name_or_path, &text),
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
                Err(PlanError::NotFound { name: name_or_path.to_owned() })
            }
            Err(source) => Err(PlanError::Read { path: name_or_path.to_owned(), source }),
        }
    }

    /// Reads and checks a plan; `origin` is what its errors call it.
    ///
    /// # Errors
    /// [`PlanError::Syntax`] or [`PlanError::Impossible`].
    pub fn parse(origin: &str, text: &str) -> Result<Plan, PlanError> {
        let plan = Plan::parse_parts(origin, text)?;
        plan.check()?;
        Ok(plan)
    }

    /// [`Plan::parse`] for guests that are there already: see [`Plan::check_parts`].
    ///
    /// # Errors
    /// As [`Plan::parse`].
    pub fn parse_parts(origin: &str, text: &str) -> Result<Plan, PlanError> {
        let plan: Plan =
            toml::from_str(text).map_err(|error| PlanError::syntax(origin, text, &error))?;
        plan.check_parts()?;
        Ok(plan)
    }

    /// All pCPUs that the plan puts something on.
    #[must_use]
    pub fn pcpus(&self) -> BTreeSet<PcpuId> {
        let mut pcpus = BTreeSet::from([self.collector_pcpu]);
        for vm in &self.vms {
            pcpus.extend(&vm.vcpu_pcpus);
            pcpus.extend([self.main_loop_pcpu(vm), self.iothread_pcpu(vm), self.worker_pcpu(vm)]);
        }
        pcpus
    }

    /// The I/O scheduler that the host's disk shall have, if it shall have another one than it has.
    #[must_use]
    pub fn host_io_scheduler(&self) -> Option<&str> {
        self.host_io_scheduler.as_deref().filter(|name| *name != KEEP)
    }

    /// Checks that the host has every pCPU that the plan names.
    ///
    /// # Errors
    /// [`PlanError::DoesNotFit`] with those that it does not have.
    pub fn check_host(&self, host: &HostPcpus) -> Result<(), PlanError> {
        let missing: Vec<PcpuId> =
            self.pcpus().into_iter().filter(|pcpu| !host.contains(*pcpu)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(PlanError::DoesNotFit { plan: self.name.clone(), missing, host: host.clone() })
    }

    /// Where this VM's main loop runs.
    #[must_use]
    pub fn main_loop_pcpu(&self, vm: &VmPlan) -> PcpuId {
        vm.main_loop_pcpu.unwrap_or(self.collector_pcpu)
    }

    /// Where this VM's iothreads run.
    #[must_use]
    pub fn iothread_pcpu(&self, vm: &VmPlan) -> PcpuId {
        vm.iothread_pcpu.unwrap_or_else(|| self.main_loop_pcpu(vm))
    }

    /// Where this VM's worker threads run, and all threads that have no pin of their own.
    #[must_use]
    pub fn worker_pcpu(&self, vm: &VmPlan) -> PcpuId {
        vm.worker_pcpu.unwrap_or_else(|| self.main_loop_pcpu(vm))
    }

    /// What the agent in this VM is asked to do.
    #[must_use]
    pub fn workload_spec(&self, vm: &VmPlan, accelerator: LabAccelerator) -> WorkloadSpec {
        let clock = match (self.clock, accelerator) {
            // What is observed is stamped by the guest's kernel, which does not know the TSC for a clock.
            (ClockChoice::Auto, _) if vm.observe.is_some() => ClockChoice::MonotonicRaw,
            // A guest of TCG reads the host's TSC plus a constant, though its CPUID does not say
            // that the TSC is invariant; its other clocks are devices, each reading an exit.
            (ClockChoice::Auto, LabAccelerator::Tcg) => ClockChoice::Tsc,
            (clock, _) => clock,
        };
        WorkloadSpec {
            hogs: vm.hogs.iter().map(|vcpu| vcpu.0).collect(),
            reader: vm.reader.as_ref().map(ReaderPlan::spec),
            housekeeping_vcpu: vm.housekeeping_vcpu.0,
            clock,
            io_scheduler: vm.disk.as_ref().map(|disk| disk.guest_io_scheduler.clone()),
            lease_ms: u32::try_from(self.lease_ms).unwrap_or(u32::MAX),
            observe: vm.observe.as_ref().map(ObservePlan::spec),
            hog_gap_us: Some(HOG_GAP_US),
        }
    }
}

impl ReaderPlan {
    fn spec(&self) -> ReaderSpec {
        ReaderSpec {
            target: "auto".to_owned(),
            create: false,
            // A checked plan has no blocks of as much.
            block_bytes: u32::try_from(self.block_bytes).unwrap_or(u32::MAX),
            total_bytes: self.total_bytes,
            duration_ms: self.duration_ms,
            pattern: self.pattern,
            engine: self.engine,
            depth: self.depth,
            vcpu: self.vcpu.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_core::units::Tid;
    use vslice_host::threads::VmmThread;
    use vslice_trace::thread::ThreadRole;

    fn built_in(name: &str) -> Plan {
        Plan::load(name).expect("a built-in plan is sound")
    }

    fn host(text: &str) -> HostPcpus {
        HostPcpus::parse(text).expect("a list of pCPUs")
    }

    #[test]
    fn every_thread_goes_where_the_plan_wants_it() {
        let mut plan = Plan::load("seed").expect("built in");
        plan.vms[0].iothread_pcpu = Some(PcpuId(7));
        plan.vms[0].worker_pcpu = Some(PcpuId(8));
        plan.collector_pcpu = PcpuId(9);
        let thread =
            |tid, role| VmmThread { pid: Tid(10), tid: Tid(tid), comm: String::new(), role };
        let threads = [
            thread(10, ThreadRole::MainLoop),
            thread(11, ThreadRole::Other),
            thread(12, ThreadRole::Vcpu(VcpuId(0))),
            thread(13, ThreadRole::Vcpu(VcpuId(4))),
            thread(14, ThreadRole::Iothread("io0".to_owned())),
            thread(15, ThreadRole::Worker),
            thread(16, ThreadRole::Vhost),
            thread(17, ThreadRole::Vcpu(VcpuId(5))),
        ];
        let pins = plan.pins(&plan.vms[0]).pins(&threads);
        let places: Vec<(u32, u32)> = pins.iter().map(|pin| (pin.tid.0, pin.pcpu.0)).collect();
        assert_eq!(places, [(10, 5), (11, 8), (12, 0), (13, 4), (14, 7), (15, 8), (16, 9)]);
    }

    #[test]
    fn the_seed_plan_is_the_experiment() {
        let plan = built_in("seed");
        let pins = |vm: usize| plan.vms[vm].vcpu_pcpus.iter().map(|p| p.0).collect::<Vec<_>>();
        let hogs = |vm: usize| plan.vms[vm].hogs.iter().map(|v| v.0).collect::<Vec<_>>();
        assert_eq!((pins(0), pins(1)), (vec![0, 1, 2, 3, 4], vec![5, 1, 2, 3, 4]));
        assert_eq!((hogs(0), hogs(1)), (vec![0, 1, 2, 3, 4], vec![1, 2, 3, 4]));
        let reader = plan.vms[0].reader.as_ref().expect("VM1 reads");
        assert_eq!(
            (reader.vcpu, reader.block_bytes, reader.total_bytes),
            (VcpuId(2), 4096, 8 << 30)
        );
        assert!(plan.vms[1].reader.is_none());
        for vm in &plan.vms {
            let io = [plan.main_loop_pcpu(vm), plan.iothread_pcpu(vm), plan.worker_pcpu(vm)];
            assert_eq!(io, [PcpuId(5); 3]);
        }
        let disk = plan.vms[0].disk.as_ref().expect("VM1 has a disk");
        assert_eq!((disk.guest_io_scheduler.as_str(), disk.iothread), ("none", false));
    }

    #[test]
    fn the_demo_fits_two_pcpus_and_the_seed_says_what_it_misses() {
        assert!(built_in("demo").check_host(&host("0-1")).is_ok());
        assert!(built_in("seed").check_host(&host("0-5")).is_ok());
        let message = built_in("seed").check_host(&host("0-1")).expect_err("too small").to_string();
        assert_eq!(
            message,
            "plan 'seed' needs pCPU2, pCPU3, pCPU4 and pCPU5; \
             this host has pCPU0-1 online (nproc=2)"
        );
        let message = built_in("seed").check_host(&host("0,2-7")).expect_err("a hole").to_string();
        assert!(message.contains("needs pCPU1; this host has pCPU0,2-7"), "{message}");
    }

    #[test]
    fn pins_that_are_not_given_follow_the_main_loop_and_that_the_collector() {
        let mut plan = built_in("demo");
        plan.collector_pcpu = PcpuId(7);
        let vm = &mut plan.vms[0];
        (vm.main_loop_pcpu, vm.iothread_pcpu, vm.worker_pcpu) = (None, Some(PcpuId(3)), None);
        let vm = &plan.vms[0];
        let pins = [plan.main_loop_pcpu(vm), plan.iothread_pcpu(vm), plan.worker_pcpu(vm)];
        assert_eq!(pins, [PcpuId(7), PcpuId(3), PcpuId(7)]);
        assert_eq!(plan.pcpus(), BTreeSet::from([0, 1, 3, 7].map(PcpuId)));
    }

    #[test]
    fn the_agent_is_asked_for_what_the_plan_says() {
        let plan = built_in("demo");
        let spec = plan.workload_spec(&plan.vms[0], LabAccelerator::Tcg);
        assert_eq!((spec.hogs.as_slice(), spec.housekeeping_vcpu), (&[1][..], 0));
        assert_eq!((spec.clock, spec.lease_ms), (ClockChoice::Tsc, 1_500));
        assert_eq!(spec.io_scheduler.as_deref(), Some("none"));
        let reader = spec.reader.expect("vm1 reads");
        assert_eq!((reader.target.as_str(), reader.create), ("auto", false));
        assert_eq!((reader.block_bytes, reader.total_bytes, reader.vcpu), (4096, 64 << 20, 1));

        let other = plan.workload_spec(&plan.vms[1], LabAccelerator::Kvm);
        assert_eq!(
            (other.reader, other.io_scheduler, other.clock),
            (None, None, ClockChoice::Auto)
        );
        let mut plan = plan;
        (plan.clock, plan.lease_ms) = (ClockChoice::MonotonicRaw, 20_000);
        let spec = plan.workload_spec(&plan.vms[0], LabAccelerator::Tcg);
        let chosen = (spec.clock, spec.lease_ms);
        assert_eq!(chosen, (ClockChoice::MonotonicRaw, 20_000), "what a plan chose it keeps");
    }

    #[test]
    fn a_plan_survives_being_stored() {
        for (name, _) in BUILT_IN {
            let mut plan = built_in(name);
            plan.vms[0].reader.as_mut().expect("VM1 reads").duration_ms = Some(1_500);
            let text = toml::to_string(&plan).expect("a plan is a TOML table");
            assert_eq!(Plan::parse("stored", &text).expect("it was valid"), plan);
        }
    }

    #[test]
    fn a_name_that_is_no_plan_says_which_there_are() {
        let message = Plan::load("demos").expect_err("no such plan").to_string();
        assert!(
            message.contains("no plan 'demos': it is neither a built-in plan (demo, seed"),
            "{message}"
        );
    }
}
